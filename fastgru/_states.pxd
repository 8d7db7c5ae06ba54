"""The states of a network's call: those that it starts from by default, and arrays for the last ones."""

cimport numpy as cnp
from libc.string cimport memcpy

from fastgru._arrays cimport is_state


cdef struct States:
    int count
    Py_ssize_t *units                                   # (count)
    int *types                                          # (count) of NumPy


cdef inline tuple with_defaults(const States *states, tuple given, tuple defaults, Py_ssize_t batch):
    """The given states, with defaults in place of None; None if a default has another number of rows."""
    cdef list found = list(defaults)
    cdef cnp.ndarray state, rows
    cdef cnp.npy_intp shape[2]
    cdef Py_ssize_t row
    cdef int i
    for i in range(states.count):
        if given is not None and given[i] is not None:
            found[i] = given[i]
        elif found[i] is not None and cnp.PyArray_DIMS(<cnp.ndarray> found[i])[0] != batch:
            state = found[i]
            if cnp.PyArray_DIMS(state)[0] != 1:
                return None
            shape[0], shape[1] = batch, states.units[i]
            rows = cnp.PyArray_EMPTY(2, shape, states.types[i], 0)
            for row in range(batch):
                memcpy(<char *> cnp.PyArray_DATA(rows) + row * cnp.PyArray_NBYTES(state),
                       cnp.PyArray_DATA(state), cnp.PyArray_NBYTES(state))
            found[i] = rows
    return tuple(found)


cdef inline int add_states(const States *states, list to, int first, Py_ssize_t batch) except -1:
    """Put new arrays for all states into a list, from an index on."""
    cdef cnp.npy_intp shape[2]
    cdef int i
    shape[0] = batch
    for i in range(states.count):
        shape[1] = states.units[i]
        to[first + i] = cnp.PyArray_EMPTY(2, shape, states.types[i], 0)
    return 0


cdef inline bint are_states(const States *states, list arrays, Py_ssize_t batch) noexcept:
    """True of arrays that last states fit into."""
    cdef cnp.npy_intp shape[2]
    cdef int i
    shape[0] = batch
    if len(arrays) != states.count:
        return False
    for i in range(states.count):
        shape[1] = states.units[i]
        if not is_state(arrays[i], states.types[i], shape):
            return False
    return True


cdef inline void copy_state(cnp.ndarray to, cnp.ndarray array) noexcept:
    memcpy(cnp.PyArray_DATA(to), cnp.PyArray_DATA(array), cnp.PyArray_NBYTES(array))
