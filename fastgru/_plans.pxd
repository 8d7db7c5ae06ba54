"""Packed weights, for the compiled modules that run them."""

from fastgru._blas_engine cimport BlasLayer
from fastgru._engine cimport fastgru_kernels, fastgru_layer, fastgru_network, fastgru_run_of

cdef dict ACTIVATION_IDS                               # of the engine, by name


cdef class Plan:
    cdef readonly int features, units
    cdef readonly bint reset_after
    cdef readonly str isa, engine
    cdef int typenum                                    # of all arrays
    cdef BlasLayer ready                                # of the packed engine its layer alone
    cdef tuple arrays                                   # that it points into


cdef class DensePlan:
    cdef fastgru_layer layer
    cdef tuple arrays                                   # that it points into


cdef const fastgru_kernels *kernels_at(int index) noexcept
cdef const fastgru_kernels *kernels_of(isa) except NULL
cdef bint has_dot(const fastgru_kernels *kernels) noexcept
cdef int connect(fastgru_network *network) noexcept
cdef size_t workspace_of(const fastgru_network *network, const fastgru_run_of *run) noexcept
cdef void run_nodes(const fastgru_network *network, fastgru_run_of *run) noexcept nogil
cdef void cast_numbers(
    Py_ssize_t n, const void *x, size_t x_size, Py_ssize_t x_stride, void *y, size_t y_size,
) noexcept
