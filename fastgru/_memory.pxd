"""Scratch memory of calls, which a network or a stream keeps for the next one."""

from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree, PyMem_RawMalloc

from fastgru._atomics cimport exchange


cdef enum:
    ALIGNMENT = 64


cdef struct Memory:
    # Scratch memory of a call, after what the next call needs to know of it.
    size_t size                                         # in bytes, of the scratch
    Py_ssize_t batch, timesteps                         # of a call that it fits; timesteps 0: of none
    bint masked                                         # True if that call had a mask
    Py_ssize_t out_stride                               # of rows
    unsigned walk                                       # which way packed weights are walked next


cdef inline char *aligned(void *memory) noexcept nogil:
    """The first aligned byte of memory that is ALIGNMENT bytes longer than needed."""
    return <char *> memory + (ALIGNMENT - <size_t> memory % ALIGNMENT) % ALIGNMENT


cdef inline char *scratch_of(Memory *memory) noexcept nogil:
    return aligned(memory + 1)


cdef inline Memory *allocate(size_t size) except NULL:
    cdef Memory *memory = <Memory *> PyMem_RawMalloc(sizeof(Memory) + size + ALIGNMENT)
    if memory == NULL:
        raise MemoryError()
    memory.size, memory.walk, memory.batch, memory.timesteps = size, 0, 0, 0
    return memory


cdef inline void *allocated(size_t size) except NULL:
    """Zeroed memory."""
    cdef void *memory = PyMem_RawCalloc(size + 1, 1)
    if memory == NULL:
        raise MemoryError()
    return memory


cdef inline Memory *take(Memory **spare, size_t size) except NULL:
    """The spare memory if it is there and large enough, else new memory."""
    cdef Memory *memory = <Memory *> exchange(<void **> spare, NULL)
    if memory != NULL and memory.size >= size:
        return memory
    PyMem_RawFree(memory)
    return allocate(size)


cdef inline void give_back(Memory **spare, Memory *memory) noexcept:
    """Keep the larger of this and the spare memory."""
    cdef Memory *other = <Memory *> exchange(<void **> spare, memory)
    if other != NULL and other.size > memory.size:
        other = <Memory *> exchange(<void **> spare, other)
    PyMem_RawFree(other)
