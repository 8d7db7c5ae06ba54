"""The BLAS engine: a format of weights that are left as they are, whose products are BLAS's."""

cimport numpy as cnp

from fastgru._blas cimport Blas
from fastgru._engine cimport fastgru_functions, fastgru_layer


cdef struct BlasLayer:
    # One layer, ready to run. Whoever fills it keeps the arrays.
    fastgru_layer layer              # first: a pointer to it is one to all
    const Blas *blas
    const fastgru_functions *functions
    char *kernel                     # (features, 3 * units)
    char *recurrent_kernel           # (units, 3 * units)


cdef tuple refer_to(
    BlasLayer *ready, cnp.ndarray kernel, cnp.ndarray recurrent_kernel, cnp.ndarray bias)
