"""Conversion of arguments to what the engine reads, where that needs no message."""

cimport numpy as cnp

from fastgru._arrays cimport is_plain, overlap, rows_are_whole, stride
from fastgru._engine cimport fastgru_input, fastgru_network
from fastgru._plans cimport cast_numbers


cdef inline cnp.ndarray converted(cnp.ndarray array, int typenum):
    """A C-contiguous copy in another float type, overflowing to infinity; None if it is no float array."""
    cdef cnp.ndarray result
    cdef int last = cnp.PyArray_NDIM(array) - 1
    cdef int kind = cnp.PyArray_TYPE(array)
    cdef Py_ssize_t n, size = cnp.PyArray_ITEMSIZE(array), gap
    cdef char *target
    cdef cnp.flatiter rows
    if not (
        (kind == cnp.NPY_FLOAT or kind == cnp.NPY_DOUBLE or kind == cnp.NPY_FLOAT16)
        and cnp.PyArray_ISNOTSWAPPED(array)
    ):
        return None
    result = cnp.PyArray_EMPTY(last + 1, cnp.PyArray_DIMS(array), typenum, 0)
    target = <char *> cnp.PyArray_DATA(result)
    n, gap = cnp.PyArray_DIMS(array)[last], cnp.PyArray_STRIDES(array)[last]
    if cnp.PyArray_SIZE(array) == 0:
        return result
    if cnp.PyArray_IS_C_CONTIGUOUS(array):
        cast_numbers(cnp.PyArray_SIZE(array), cnp.PyArray_DATA(array), size, size, target,
                     cnp.PyArray_ITEMSIZE(result))
        return result
    rows = cnp.PyArray_IterAllButAxis(array, &last)
    while cnp.PyArray_ITER_NOTDONE(rows):
        cast_numbers(n, cnp.PyArray_ITER_DATA(rows), size, gap, target, cnp.PyArray_ITEMSIZE(result))
        target += n * cnp.PyArray_ITEMSIZE(result)
        cnp.PyArray_ITER_NEXT(rows)
    return result


cdef inline int copy_lengths(lengths, Py_ssize_t batch, Py_ssize_t timesteps, Py_ssize_t *steps) except -2:
    """steps, (batch,), := lengths from 0 to timesteps.

    Returns 1 if any row ends before the last timestep, else 0; -1 if Python must convert or refuse the lengths.
    """
    cdef Py_ssize_t i, gap
    cdef const char *data
    cdef bint ended = False
    cdef tuple given
    if type(lengths) is list or type(lengths) is tuple:
        given = tuple(lengths)  # a copy: another thread may change a list
        if len(given) != batch:
            return -1
        for i in range(batch):
            length = given[i]
            if type(length) is not int or not 0 <= length <= timesteps:
                return -1
            steps[i] = length
            ended |= steps[i] != timesteps
        return ended
    if not is_plain(lengths, 1, cnp.NPY_INTP) or cnp.PyArray_DIMS(<cnp.ndarray> lengths)[0] != batch:
        return -1
    data = <const char *> cnp.PyArray_DATA(<cnp.ndarray> lengths)
    gap = cnp.PyArray_STRIDES(<cnp.ndarray> lengths)[0]
    for i in range(batch):  # copied first, for another thread may write into what was given
        steps[i] = (<const Py_ssize_t *> (data + i * gap))[0]
        if not 0 <= steps[i] <= timesteps:
            return -1
        ended |= steps[i] != timesteps
    return ended


cdef inline object only_item(given):
    """The item of a list or tuple of one; NotImplemented of all else."""
    cdef tuple items
    if type(given) is list or type(given) is tuple:
        items = tuple(given)  # a copy: another thread may change a list
        if len(items) == 1:
            return items[0]
    return NotImplemented


cdef inline bint touches(cnp.ndarray out, x, initial_state, tuple given, mask, lengths) noexcept:
    """True if an array may share memory with one that is read."""
    cdef object state
    if overlap(out, x) or overlap(out, mask):
        return True
    if cnp.PyArray_CheckExact(lengths) and overlap(out, lengths):
        return True
    if given is not None:
        for state in given:
            if overlap(out, state):
                return True
        return False
    return initial_state is not None and overlap(out, initial_state)


cdef inline bint read_others(
    const fastgru_network *net, tuple others, int typenum, Py_ssize_t batch, Py_ssize_t timesteps,
    fastgru_input *inputs,
) noexcept:
    """inputs := where the inputs of a batch-major call lie, after the first one.

    False if Python must convert or refuse one, or if not all have as many rows and timesteps.
    """
    cdef cnp.ndarray array
    cdef int i, last
    if others is None or len(others) != net.input_count - 1:
        return False
    for i in range(net.input_count - 1):
        last = net.values[1 + i].last
        if not is_plain(others[i], 3 - last, typenum) or not rows_are_whole(<cnp.ndarray> others[i]):
            return False
        array = <cnp.ndarray> others[i]
        if (
            cnp.PyArray_DIMS(array)[0] != batch or cnp.PyArray_DIMS(array)[2 - last] != net.values[1 + i].width
            or not (last or cnp.PyArray_DIMS(array)[1] == timesteps)
        ):
            return False
        inputs[i].data, inputs[i].batch_stride = cnp.PyArray_DATA(array), stride(array, 0)
        inputs[i].time_stride, inputs[i].timesteps = 0 if last else stride(array, 1), 1 if last else timesteps
    return True


cdef inline bint touches_any(cnp.ndarray out, tuple arrays) noexcept:
    """True if an array may share memory with one of these; None means none."""
    cdef object array
    if arrays is not None:
        for array in arrays:
            if overlap(out, <cnp.ndarray> array):
                return True
    return False
