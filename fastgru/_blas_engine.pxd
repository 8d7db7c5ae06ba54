"""The BLAS engine: a format that leaves weights as they are, and multiplies by BLAS."""

cimport numpy as cnp

from fastgru._blas cimport Blas
from fastgru._engine cimport fastgru_functions, fastgru_layer


cdef struct BlasLayer:
    # One layer, ready to run. The caller keeps the arrays alive.
    fastgru_layer layer              # first: a pointer to it is one to all
    const Blas *blas
    const fastgru_functions *functions
    char *kernel                     # (features, 3 * units)
    char *recurrent_kernel           # (units, 3 * units)


cdef tuple refer_to(
    BlasLayer *ready, cnp.ndarray kernel, cnp.ndarray recurrent_kernel, cnp.ndarray bias)
