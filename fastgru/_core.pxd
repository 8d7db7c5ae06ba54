"""Networks, for the compiled modules that run them."""

from fastgru._blas_engine cimport BlasLayer
from fastgru._engine cimport fastgru_kernels, fastgru_network, fastgru_run_of
from fastgru._memory cimport Memory
from fastgru._states cimport States

cdef dict ACTIVATION_IDS                               # of the engine, by name


cdef class Plan:
    cdef readonly int features, units
    cdef readonly bint reset_after
    cdef readonly str isa, engine
    cdef int typenum                                    # of all arrays
    cdef BlasLayer ready                                # of the packed engine its layer alone
    cdef tuple arrays                                   # that it points into


cdef class Network:
    cdef fastgru_network net
    cdef readonly tuple plans                           # in the order of their states
    cdef readonly bint time_major, return_state, optional
    cdef readonly Py_ssize_t features
    cdef readonly object dtype                          # of the input
    cdef readonly tuple flags                           # time_major, of every step, return_state
    cdef tuple default_states                           # of calls without an initial state, or None
    cdef int typenum
    cdef int output_types[2]
    cdef States states
    cdef Memory *spare                                  # of a call before, for the next one
    cdef Memory *spare_lengths

    cpdef call(self, x, initial_state, mask, lengths, out, list states=*, Py_ssize_t first=*)
    cdef int execute(
        self, fastgru_run_of *run, tuple given, initial_state, list last, int first,
    ) except -1


cdef const fastgru_kernels *kernels_at(int index) noexcept
cdef const fastgru_kernels *kernels_of(isa) except NULL
cdef bint has_dot(const fastgru_kernels *kernels) noexcept
cdef void run_network(Network network, fastgru_run_of *run) noexcept nogil
cdef Memory *prepared(
    Network network, Py_ssize_t rows, Py_ssize_t timesteps, fastgru_run_of *run, Memory **spare, size_t own,
) except NULL
