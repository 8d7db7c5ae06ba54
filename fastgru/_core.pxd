"""Networks, for the compiled modules that run them."""

from fastgru._engine cimport FASTGRU_OUTPUTS, fastgru_clock, fastgru_network, fastgru_run_of
from fastgru._memory cimport Memory
from fastgru._states cimport States

cdef class Network:
    cdef fastgru_network net
    cdef fastgru_clock *clocks
    cdef readonly tuple plans                           # of GRUs, in the order of their states
    cdef tuple kept                                     # that nodes point into
    cdef readonly bint time_major, return_state, optional
    cdef readonly Py_ssize_t features
    cdef readonly object dtype                          # of the input
    cdef readonly Py_ssize_t units                      # width of the first output
    cdef readonly object output_dtype
    cdef readonly tuple flags                           # time_major, of every step, return_state
    cdef tuple default_states                           # of calls without an initial state, or None
    cdef bint short                                     # `call` runs it
    cdef Py_ssize_t least, most                         # timesteps of the first input
    cdef public int threads                             # of a call, at most; 0: those of the process
    cdef int typenum
    cdef int output_types[FASTGRU_OUTPUTS]
    cdef States states
    cdef Memory *spare                                  # of a call before, for the next one
    cdef Memory *spare_lengths

    cpdef call(self, x, initial_state, mask, lengths, out, list states=*, Py_ssize_t first=*, tuple others=*)
    cdef int execute(
        self, fastgru_run_of *run, tuple given, initial_state, list last, int first,
    ) except -1


cdef void run_network(Network network, fastgru_run_of *run) noexcept nogil
cdef Memory *prepared(
    Network network, Py_ssize_t rows, Py_ssize_t timesteps, fastgru_run_of *run, Memory **spare, size_t own,
) except NULL
