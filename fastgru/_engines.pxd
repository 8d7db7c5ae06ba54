"""The BLAS engine: a format of weights that are left as they are, whose products are BLAS's.

Its arrays and theirs are described in include/fastgru/network.h.
"""

from libc.limits cimport INT_MAX

from fastgru._blas cimport Blas, matmul
from fastgru._engine cimport (
    fastgru_format,
    fastgru_functions,
    fastgru_layer,
    fastgru_pass,
    fastgru_projection,
)

cdef struct BlasLayer:
    # One layer, ready to run. Whoever fills it keeps the arrays.
    fastgru_layer layer              # first: a pointer to it is one to all
    const Blas *blas
    const fastgru_functions *functions
    char *kernel                     # (features, 3 * units)
    char *recurrent_kernel           # (units, 3 * units)


cdef inline fastgru_format blas_format(size_t itemsize) noexcept nogil:
    """The row of the table."""
    cdef fastgru_format row
    row.itemsize = row.weight_size = itemsize
    row.vlen, row.full_tile = 1, 0
    row.step_units[0] = row.step_units[1] = 3
    row.pack, row.project, row.step = NULL, project, step
    return row


cdef inline Py_ssize_t rows_in_one_product(
    Py_ssize_t outer, Py_ssize_t outer_stride,
    Py_ssize_t inner, Py_ssize_t inner_stride,
    Py_ssize_t row,
) noexcept nogil:
    """How many rows of an (outer, inner) block BLAS can walk with a single stride; sizes in elements."""
    cdef Py_ssize_t stride = outer_stride if inner == 1 else inner_stride
    if stride < max(row, 1) or stride > INT_MAX:
        return 1
    if inner == 1 or outer == 1 or outer_stride == inner * inner_stride:
        return inner * outer
    return inner


cdef inline void project(const fastgru_layer *layer, fastgru_projection *p) noexcept nogil:
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


cdef inline void step(const fastgru_layer *layer, const fastgru_pass *run) noexcept nogil:
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
        matmul(self.blas, itemsize, run.rows, 3 * units, units, h, units, recurrent_kernel, 3 * units, hu, 3 * units)
        self.functions.gates_after(layer, run)
    else:
        matmul(self.blas, itemsize, run.rows, 2 * units, units, h, units, recurrent_kernel, 3 * units,
               hu + run.rows * width, 2 * units)
        self.functions.gates_reset(layer, run)
        matmul(self.blas, itemsize, run.rows, units, units, hu, units,
               recurrent_kernel + 2 * width, 3 * units, xw + width, run.xw_stride)
        self.functions.gates_update(layer, run)
