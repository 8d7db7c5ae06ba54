"""Checks of arrays before the GIL is released: type, shape, strides, shared memory."""

cimport numpy as cnp


cdef inline bint rows_are_whole(cnp.ndarray array) noexcept:
    """True if the last axis is contiguous and every row starts at a multiple of the item size."""
    cdef int axis, last = cnp.PyArray_NDIM(array) - 1
    cdef Py_ssize_t itemsize = cnp.PyArray_ITEMSIZE(array)
    if cnp.PyArray_IS_C_CONTIGUOUS(array) and cnp.PyArray_ISALIGNED(array):
        return True
    for axis in range(last):
        if cnp.PyArray_STRIDES(array)[axis] % itemsize:
            return False
    return cnp.PyArray_ISALIGNED(array) and (
        cnp.PyArray_DIMS(array)[last] <= 1 or cnp.PyArray_STRIDES(array)[last] == itemsize
    )


cdef inline bint is_plain(array, int ndim, int typenum) noexcept:
    """True for an ndarray, not a subclass, of that rank and type, aligned and in native byte order."""
    return (
        cnp.PyArray_CheckExact(array) and cnp.PyArray_NDIM(<cnp.ndarray> array) == ndim
        and cnp.PyArray_TYPE(<cnp.ndarray> array) == typenum and cnp.PyArray_ISBEHAVED_RO(<cnp.ndarray> array)
    )


cdef inline bint has_shape(cnp.ndarray array, const cnp.npy_intp *shape) noexcept:
    """True if the array has that shape."""
    cdef int axis
    for axis in range(cnp.PyArray_NDIM(array)):
        if cnp.PyArray_DIMS(array)[axis] != shape[axis]:
            return False
    return True


cdef inline void extent(cnp.ndarray array, char **first, char **end) noexcept:
    """The first byte and the end of the memory of an array that is not empty."""
    cdef int axis
    cdef Py_ssize_t reach
    first[0] = <char *> cnp.PyArray_DATA(array)
    end[0] = first[0] + cnp.PyArray_ITEMSIZE(array)
    for axis in range(cnp.PyArray_NDIM(array)):
        reach = (cnp.PyArray_DIMS(array)[axis] - 1) * cnp.PyArray_STRIDES(array)[axis]
        if reach < 0:
            first[0] += reach
        else:
            end[0] += reach


cdef inline bint overlap(cnp.ndarray array, cnp.ndarray other) noexcept:
    """True if both may share memory; False if `other` is None."""
    cdef char *first
    cdef char *end
    cdef char *other_first
    cdef char *other_end
    if other is None or cnp.PyArray_SIZE(other) == 0:
        return False
    extent(array, &first, &end)
    extent(other, &other_first, &other_end)
    return first < other_end and other_first < end


cdef inline bint is_state(array, int typenum, const cnp.npy_intp *shape) noexcept:
    """True of a state as it is read: C-contiguous, of that type and shape."""
    return (
        is_plain(array, 2, typenum) and has_shape(array, shape)
        and cnp.PyArray_IS_C_CONTIGUOUS(<cnp.ndarray> array)
    )


cdef inline bint are_rows(array, int typenum, const cnp.npy_intp *shape) noexcept:
    """True of rows of that type and shape, each contiguous."""
    return is_plain(array, 2, typenum) and has_shape(array, shape) and rows_are_whole(array)


cdef inline Py_ssize_t stride(cnp.ndarray array, int axis) noexcept:
    """In elements."""
    return cnp.PyArray_STRIDES(array)[axis] // cnp.PyArray_ITEMSIZE(array)
