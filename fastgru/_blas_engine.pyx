# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: cdivision=True, autotestdict=False, embedsignature=False, freethreading_compatible=True
"""The BLAS engine: products of weights as they are, through SciPy's BLAS, bound on first use.

include/fastgru/network.h describes the arrays that a format of weights is handed.
"""

import threading

from libc.limits cimport INT_MAX

cimport numpy as cnp
import numpy as np

from fastgru._blas cimport Blas, bind, matmul
from fastgru._engine cimport fastgru_format, fastgru_layer, fastgru_pass, fastgru_projection

cnp.import_array()

cdef Blas blas
cdef object binding = threading.Lock()                  # held where blas is filled
cdef fastgru_format FORMATS[2]
cdef int i
for i in range(2):
    FORMATS[i].itemsize = FORMATS[i].weight_size = 4 << i
    FORMATS[i].vlen, FORMATS[i].full_tile = 1, 0
    FORMATS[i].step_units[0] = FORMATS[i].step_units[1] = 3
    FORMATS[i].project, FORMATS[i].step = project, step


cdef tuple refer_to(
    BlasLayer *ready, cnp.ndarray kernel, cnp.ndarray recurrent_kernel, cnp.ndarray bias,
):
    """Point a layer, whose settings and functions are set, to these weights; returns the arrays to keep alive."""
    cdef Py_ssize_t features = kernel.shape[0], units = recurrent_kernel.shape[0]
    cdef cnp.ndarray biases = np.zeros((4, units), kernel.dtype)
    with binding:
        bind(&blas)
    if bias is not None and ready.layer.reset_after:
        # z and r see only the sum of both biases; the candidate's recurrent one is reset with h.Uh
        biases[:3] = bias[0].reshape(3, units)
        biases[:2] += bias[1, :2 * units].reshape(2, units)
        biases[3] = bias[1, 2 * units:]
    elif bias is not None:
        biases[:3] = bias.reshape(3, units)
    ready.layer.kernels = &FORMATS[kernel.itemsize == 8]
    ready.layer.biases = cnp.PyArray_DATA(biases)
    ready.layer.panel_count = units
    ready.layer.panel_bytes = 3 * (features + units) * kernel.itemsize
    ready.blas = &blas
    ready.kernel = <char *> cnp.PyArray_DATA(kernel)
    ready.recurrent_kernel = <char *> cnp.PyArray_DATA(recurrent_kernel)
    return kernel, recurrent_kernel, biases


cdef inline Py_ssize_t rows_in_one_product(
    Py_ssize_t outer, Py_ssize_t outer_stride,
    Py_ssize_t inner, Py_ssize_t inner_stride,
    Py_ssize_t row,
) noexcept nogil:
    """Number of rows of an (outer, inner) block that BLAS can address with one stride; sizes in elements."""
    cdef Py_ssize_t stride = outer_stride if inner == 1 else inner_stride
    if stride < max(row, 1) or stride > INT_MAX:
        return 1
    if inner == 1 or outer == 1 or outer_stride == inner * inner_stride:
        return inner * outer
    return inner


cdef void project(const fastgru_layer *layer, fastgru_projection *p) noexcept nogil:
    """xw := x.kernel in products of as many rows as the strides of x allow.

    Hence xw is laid out (steps, rows) or (rows, steps).
    """
    cdef const BlasLayer *self = <const BlasLayer *> layer
    cdef Py_ssize_t features = layer.features, width = 3 * layer.units, itemsize = layer.kernels.itemsize
    cdef Py_ssize_t outer = p.steps, outer_stride = p.x_time_stride, i, row, m, m_across
    cdef Py_ssize_t inner = p.rows, inner_stride = p.x_batch_stride
    cdef const char *x = <const char *> p.x
    cdef char *xw = <char *> p.xw
    m = rows_in_one_product(outer, outer_stride, inner, inner_stride, features)
    m_across = rows_in_one_product(inner, inner_stride, outer, outer_stride, features)
    p.xw_stride, p.xw_time_stride = width, p.rows * width
    if m_across > m:
        m = m_across
        outer, outer_stride, inner, inner_stride = inner, inner_stride, outer, outer_stride
        p.xw_stride, p.xw_time_stride = p.steps * width, width
    for i in range(inner * outer // m):
        row = i * m
        matmul(self.blas, itemsize, m, width, features,
               x + itemsize * (row // inner * outer_stride + row % inner * inner_stride),
               outer_stride if inner == 1 else inner_stride,
               self.kernel, width, xw + itemsize * row * width, width)


cdef void step(const fastgru_layer *layer, const fastgru_pass *run) noexcept nogil:
    """One timestep: one product, or two with the reset before, and the gates."""
    cdef const BlasLayer *self = <const BlasLayer *> layer
    cdef int units = layer.units
    cdef Py_ssize_t itemsize = layer.kernels.itemsize, width = units * itemsize
    cdef const char *h = <const char *> run.h
    cdef char *xw = <char *> run.xw
    cdef char *hu = <char *> run.scratch
    cdef char *recurrent_kernel = self.recurrent_kernel
    cdef fastgru_projection x
    if run.x_rows:
        x.rows, x.steps, x.x, x.x_batch_stride, x.x_time_stride, x.xw = run.rows, 1, run.x, run.x_stride, 0, xw
        project(layer, &x)
    if layer.reset_after:
        matmul(self.blas, itemsize, run.rows, 3 * units, units, h, units,
               recurrent_kernel, 3 * units, hu, 3 * units)
        self.functions.gates_after(layer, run)
    else:
        matmul(self.blas, itemsize, run.rows, 2 * units, units, h, units, recurrent_kernel, 3 * units,
               hu + run.rows * width, 2 * units)
        self.functions.gates_reset(layer, run)
        matmul(self.blas, itemsize, run.rows, units, units, hu, units,
               recurrent_kernel + 2 * width, 3 * units, xw + width, run.xw_stride)
        self.functions.gates_update(layer, run)
