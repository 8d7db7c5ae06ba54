"""What a step of a stream reads and writes, and the checks of its arrays."""

cimport numpy as cnp

from fastgru._arrays cimport are_rows, overlap
from fastgru._core cimport Network
from fastgru._memory cimport allocated


cdef struct Port:
    # An input of a step, (rows, width).
    Py_ssize_t width
    int typenum
    bint has_limits                                     # True of indices: int32, none less than the first limit,
    long long limits[2]                                 # all less than the second
    int number                                          # among the inputs of indices


cdef inline Port *ports_of(Network network, tuple inputs) except NULL:
    """The inputs of a network: of each its dtype, and of indices the limits, else None."""
    cdef Port *ports = <Port *> allocated(network.net.input_count * sizeof(Port))
    cdef int i, count = 0
    for i in range(network.net.input_count):
        ports[i].width, ports[i].typenum = network.net.values[i].width, inputs[i][0].num
        if inputs[i][1] is not None:
            ports[i].limits[0], ports[i].limits[1] = inputs[i][1]
            ports[i].has_limits, ports[i].number = True, count
            count += 1
    return ports


cdef inline int indices_of(const Port *ports, int count) noexcept:
    """How many of the inputs are indices."""
    cdef int i, found = 0
    for i in range(count):
        found += ports[i].has_limits
    return found


cdef inline tuple parts(given, Py_ssize_t count):
    """The items of a list or tuple of that many; None of all else."""
    cdef tuple found
    if type(given) is tuple:
        found = <tuple> given
    elif type(given) is list:
        found = tuple(<list> given)  # a copy: another thread may change a list
    else:
        return None
    return found if len(found) == count else None


cdef inline list listed(tuple items):
    """A list of them; where there is no memory for list(items), Python 3.11 leaks a reference to the tuple."""
    cdef list found = [None] * len(items)
    cdef Py_ssize_t i
    for i in range(len(items)):
        found[i] = items[i]
    return found


cdef inline bint is_input(array, const Port *port, Py_ssize_t rows) noexcept:
    """True of rows as they are read."""
    cdef cnp.npy_intp shape[2]
    shape[0], shape[1] = rows, port.width
    return are_rows(array, port.typenum, shape)


cdef inline bint are_targets(Network network, first, tuple targets, Py_ssize_t rows) noexcept:
    """True of arrays that the outputs of a step may be written to; `first` is one alone, or the first target."""
    cdef cnp.npy_intp shape[2]
    cdef object target = first
    cdef int i, k
    shape[0] = rows
    for i in range(network.net.output_count):
        if i:
            target = targets[i]
        shape[1] = network.net.values[network.net.outputs[i]].width
        if not (
            are_rows(target, network.output_types[i], shape) and cnp.PyArray_ISWRITEABLE(<cnp.ndarray> target)
        ):
            return False
        for k in range(i):
            if overlap(<cnp.ndarray> target, <cnp.ndarray> targets[k]):
                return False
    return True


cdef inline object apart(Network network, array, first, tuple targets):
    """The array, or a copy if it may share memory with one that is written; targets as of `are_targets`."""
    cdef bint shared = overlap(<cnp.ndarray> first, <cnp.ndarray> array)
    cdef int i
    for i in range(1, network.net.output_count):
        shared |= overlap(<cnp.ndarray> targets[i], <cnp.ndarray> array)
    return cnp.PyArray_NewCopy(<cnp.ndarray> array, cnp.NPY_CORDER) if shared else array


cdef inline tuple replaced(tuple inputs, Py_ssize_t i, array):
    """The inputs, with another one in a place."""
    cdef list found = listed(inputs)
    found[i] = array
    return tuple(found)


cdef inline bint copy_indices(cnp.ndarray array, const Port *port, cnp.int32_t *copied) noexcept:
    """copied, (rows,), := indices; False if one is not within the limits.

    Each is read once: another thread may write into the array.
    """
    cdef const char *row = <const char *> cnp.PyArray_DATA(array)
    cdef Py_ssize_t i, gap = cnp.PyArray_STRIDES(array)[0]
    for i in range(cnp.PyArray_DIMS(array)[0]):
        copied[i] = (<const volatile cnp.int32_t *> (row + i * gap))[0]
        if copied[i] < port.limits[0] or copied[i] >= port.limits[1]:
            return False
    return True
