# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: cdivision=True, autotestdict=False, embedsignature=False
"""The compiled half of fastgru: weights ready to run (Plan) and the loop over time.

Trusts its callers: whatever a user can get wrong has been found by the Python half.
"""

from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.limits cimport INT_MAX
from libc.string cimport memset

cimport cython
cimport numpy as cnp
import numpy as np

from fastgru._blas cimport Blas, bind, matmul
from fastgru._engine cimport (
    FASTGRU_ACTIVATION_COUNT,
    fastgru_activation_names,
    fastgru_functions,
    fastgru_kernels,
    fastgru_kernels_at,
    fastgru_step,
)

cnp.import_array()

cdef Blas blas

# Scratch of a call. With the state of the rows beside it a call stays below 4 MiB beyond its
# input and output, or below 3 * units * batch elements where those are more.
cdef enum:
    SCRATCH_BYTES = 2 << 20
    ALIGNMENT = 64

cdef dict ACTIVATION_IDS = {
    fastgru_activation_names[i].decode(): i for i in range(FASTGRU_ACTIVATION_COUNT)
}


cdef const fastgru_kernels *kernels_of(isa) except NULL:
    """The row of the named instruction set, or the fastest for None."""
    cdef int index = 0
    cdef const fastgru_kernels *row = fastgru_kernels_at(0)
    if isa is None:
        return row
    while row != NULL and row.isa.decode() != isa:
        index += 1
        row = fastgru_kernels_at(index)
    if row == NULL:
        raise ValueError(f"isa must be one of {isas()}, got {isa!r}")
    return row


def isas():
    """Names of the instruction sets that this machine can run, the fastest first."""
    cdef int index = 0
    names = []
    while fastgru_kernels_at(index) != NULL:
        names.append(fastgru_kernels_at(index).isa.decode())
        index += 1
    return tuple(names)


def activations():
    """Names of the activations that have a kernel."""
    return tuple(ACTIVATION_IDS)


def activate(str name, cnp.ndarray x, double alpha=0.0, isa=None):
    """The named activation of a float32 or float64 array, elementwise, as a new array."""
    cdef const fastgru_kernels *kernels = kernels_of(isa)
    cdef int activation = ACTIVATION_IDS[name]
    cdef cnp.ndarray source = np.ascontiguousarray(x)
    cdef cnp.ndarray result = np.empty_like(source)
    cdef const fastgru_functions *functions = &kernels.f32 if source.itemsize == 4 else &kernels.f64
    cdef Py_ssize_t n = cnp.PyArray_SIZE(source)
    with nogil:
        functions.activate(activation, alpha, n, cnp.PyArray_DATA(source), cnp.PyArray_DATA(result))
    return result.reshape(np.shape(x))


cdef struct View:
    # An array as (batch, timesteps, last axis), wherever its axes lie; strides count bytes.
    char *data
    Py_ssize_t batch_stride
    Py_ssize_t time_stride


cdef struct Run:
    # One call: what is read and written, and the scratch that it needs.
    View x                   # (batch, timesteps, features)
    View out                 # (batch, timesteps, units), or data NULL
    View mask                # (batch, timesteps), or data NULL
    char *h                  # (batch, units)              in and out
    char *xw                 # (steps, rows, 3 * units)    scratch
    char *hu                 # (rows, 3 * units)           scratch
    unsigned char *seen      # (rows)                      scratch, or NULL without a mask
    Py_ssize_t itemsize
    Py_ssize_t batch
    Py_ssize_t timesteps
    Py_ssize_t rows          # at a time
    Py_ssize_t steps         # projected at a time
    bint backwards
    bint zero_output_for_mask


cdef View view_of(cnp.ndarray array, int batch_axis, int time_axis) noexcept:
    """Of None: no data. Without a time axis: the same place for every step."""
    cdef View view
    view.data, view.batch_stride, view.time_stride = NULL, 0, 0
    if array is not None:
        view.data = <char *> cnp.PyArray_DATA(array)
        view.batch_stride = cnp.PyArray_STRIDES(array)[batch_axis]
        if time_axis >= 0:
            view.time_stride = cnp.PyArray_STRIDES(array)[time_axis]
    return view


cpdef bint rows_are_whole(cnp.ndarray array) noexcept:
    """Does the last axis lie side by side, and does every row start at an element?"""
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


cdef Py_ssize_t rows_in_one_product(
    Py_ssize_t outer, Py_ssize_t outer_stride,
    Py_ssize_t inner, Py_ssize_t inner_stride,
    Py_ssize_t row_bytes, Py_ssize_t itemsize,
) noexcept nogil:
    """How many rows of an (outer, inner) block BLAS can walk with a single stride."""
    cdef Py_ssize_t stride = outer_stride if inner == 1 else inner_stride
    if stride < max(row_bytes, itemsize) or stride > INT_MAX * itemsize:
        return 1
    if inner == 1 or outer == 1 or outer_stride == inner * inner_stride:
        return inner * outer
    return inner


@cython.final
@cython.auto_pickle(False)
cdef class Plan:
    """Weights of one layer, ready to run; immutable, shared by any number of threads.

    Parameters
    ----------
    kernel : ndarray, shape (features, 3 * units)
        float32 or float64, C-contiguous, like the rest; referred to, not copied.
    recurrent_kernel : ndarray, shape (units, 3 * units)
    bias : ndarray or None
        (3 * units,), or (2, 3 * units) with `reset_after`: input bias, recurrent bias.
    reset_after : bool
    activation, recurrent_activation : (str, float)
        Name of a kernel and its parameter.
    isa : str, optional
        Instruction set, one of `isas()`; the fastest by default.
    """

    cdef readonly cnp.ndarray kernel, recurrent_kernel, bias, recurrent_bias
    cdef readonly int features, units
    cdef readonly bint reset_after
    cdef readonly str isa
    cdef const fastgru_functions *functions
    cdef fastgru_step template

    def __init__(
        self, cnp.ndarray kernel, cnp.ndarray recurrent_kernel, cnp.ndarray bias, bint reset_after,
        tuple activation, tuple recurrent_activation, isa=None,
    ):
        cdef const fastgru_kernels *kernels = kernels_of(isa)
        bind(&blas)
        self.isa = kernels.isa.decode()
        self.features, self.units = kernel.shape[0], recurrent_kernel.shape[0]
        self.kernel, self.recurrent_kernel, self.reset_after = kernel, recurrent_kernel, reset_after
        self.functions = &kernels.f32 if kernel.itemsize == 4 else &kernels.f64

        self.bias = np.zeros(3 * self.units, kernel.dtype)
        self.recurrent_bias = np.zeros(self.units, kernel.dtype)
        if bias is not None and reset_after:
            # z and r see only the sum of both biases; the candidate's recurrent one is reset with h.Uh
            self.bias[:] = bias[0]
            self.bias[:2 * self.units] += bias[1, :2 * self.units]
            self.recurrent_bias[:] = bias[1, 2 * self.units:]
        elif bias is not None:
            self.bias[:] = bias

        self.template.units = self.units
        self.template.activation = ACTIVATION_IDS[activation[0]]
        self.template.alpha = activation[1]
        self.template.recurrent_activation = ACTIVATION_IDS[recurrent_activation[0]]
        self.template.recurrent_alpha = recurrent_activation[1]
        self.template.bias = cnp.PyArray_DATA(self.bias)
        self.template.recurrent_bias = cnp.PyArray_DATA(self.recurrent_bias)

    def run(
        self, cnp.ndarray x, cnp.ndarray state, cnp.ndarray out, cnp.ndarray mask,
        bint time_major, bint go_backwards, bint zero_output_for_mask,
    ):
        """Advance `state` by every timestep of x, at least one; the GIL is released.

        Parameters
        ----------
        x : ndarray, shape (batch, timesteps, features), or the first two swapped if `time_major`
            Read in place if its last axis is contiguous, else copied.
        state : ndarray, shape (batch, units), C-contiguous
            In: before the first step, out: after the last one.
        out : ndarray or None
            Overwritten: (batch, timesteps, units), time-major as x, the output of every step; or
            (batch, units), that of the last. Last axis contiguous.
        mask : bool ndarray or None
            (batch, timesteps), time-major as x; False: the row does not take part in the step.
        """
        cdef Run run
        cdef Py_ssize_t row_bytes, budget, blocks
        cdef char *scratch
        run.itemsize = cnp.PyArray_ITEMSIZE(state)
        run.batch, run.timesteps = cnp.PyArray_DIMS(x)[time_major], cnp.PyArray_DIMS(x)[not time_major]
        if run.batch == 0:
            return
        if not rows_are_whole(x):
            x = np.ascontiguousarray(x)

        # As many rows at a time as leave room for one step of xw and hu, in blocks of one size;
        # then as many steps as fit. BLAS counts both together in a C int.
        row_bytes = 3 * self.units * run.itemsize
        budget = max(<Py_ssize_t> SCRATCH_BYTES, 2 * run.batch * self.units * run.itemsize)
        budget = min(budget, INT_MAX * row_bytes)
        run.rows = min(run.batch, max(1, budget // (2 * row_bytes)))
        blocks = (run.batch + run.rows - 1) // run.rows
        run.rows = (run.batch + blocks - 1) // blocks
        run.steps = min(run.timesteps, max(1, budget // (run.rows * row_bytes) - 1))
        scratch = <char *> PyMem_RawMalloc(ALIGNMENT + (run.steps + 1) * run.rows * row_bytes + run.rows)
        if scratch == NULL:
            raise MemoryError()

        run.xw = scratch + ALIGNMENT - <size_t> scratch % ALIGNMENT
        run.hu = run.xw + run.steps * run.rows * row_bytes
        run.seen = NULL if mask is None else <unsigned char *> run.hu + run.rows * row_bytes
        run.x, run.mask = view_of(x, time_major, not time_major), view_of(mask, time_major, not time_major)
        if out is not None and cnp.PyArray_NDIM(out) == 2:
            run.out = view_of(out, 0, -1)
        else:
            run.out = view_of(out, time_major, not time_major)
        run.h = <char *> cnp.PyArray_DATA(state)
        run.backwards, run.zero_output_for_mask = go_backwards, zero_output_for_mask
        with nogil:
            self.run_blas(&run)
        PyMem_RawFree(scratch)

    cdef void run_blas(self, const Run *run) noexcept nogil:
        """Blocks of rows, chunks of time: x.kernel of a whole chunk, then step by step h.recurrent_kernel
        and the gates."""
        cdef Py_ssize_t block, chunk, first_row, first_step, steps, start, i, step_stride, time
        cdef Py_ssize_t itemsize = run.itemsize, width = self.units * itemsize
        cdef fastgru_step step = self.template
        step.hu, step.seen, step.zero_output_for_mask = run.hu, run.seen, run.zero_output_for_mask
        step.out, step.out_stride = NULL, run.out.batch_stride // itemsize
        step.mask, step.mask_stride = NULL, run.mask.batch_stride
        for block in range((run.batch + run.rows - 1) // run.rows):
            first_row = block * run.rows
            step.rows = min(run.rows, run.batch - first_row)
            step.h = run.h + first_row * width
            if step.seen != NULL:
                memset(step.seen, 0, step.rows)
            for chunk in range((run.timesteps + run.steps - 1) // run.steps):
                first_step = chunk * run.steps
                steps = min(run.steps, run.timesteps - first_step)
                start = run.timesteps - first_step - steps if run.backwards else first_step
                step_stride = self.project(run, first_row, start, steps, &step)
                for i in range(steps):
                    time = start + (steps - 1 - i if run.backwards else i)
                    step.xw = run.xw + (time - start) * step_stride
                    if run.out.data != NULL:
                        step.out = (run.out.data + first_row * run.out.batch_stride
                                    + (first_step + i) * run.out.time_stride)
                    if run.mask.data != NULL:
                        step.mask = (<unsigned char *> run.mask.data + first_row * run.mask.batch_stride
                                     + time * run.mask.time_stride)
                    self.advance(&step, itemsize)

    cdef Py_ssize_t project(
        self, const Run *run, Py_ssize_t first_row, Py_ssize_t start, Py_ssize_t steps, fastgru_step *step,
    ) noexcept nogil:
        """xw := x.kernel for step.rows rows and the steps from `start` on.

        In products of as many rows as the strides of x allow: xw is laid out (steps, rows) or
        (rows, steps) accordingly. Sets step.xw_stride, returns the stride in bytes from step to step.
        """
        cdef Py_ssize_t itemsize = run.itemsize, row_bytes = self.features * itemsize
        cdef Py_ssize_t xw_bytes = 3 * self.units * itemsize
        cdef Py_ssize_t outer = steps, outer_stride = run.x.time_stride, i
        cdef Py_ssize_t inner = step.rows, inner_stride = run.x.batch_stride, row
        cdef Py_ssize_t m = rows_in_one_product(outer, outer_stride, inner, inner_stride, row_bytes, itemsize)
        cdef Py_ssize_t m_across = rows_in_one_product(
            inner, inner_stride, outer, outer_stride, row_bytes, itemsize)
        cdef const char *x = run.x.data + first_row * run.x.batch_stride + start * run.x.time_stride
        cdef Py_ssize_t step_stride = step.rows * xw_bytes
        step.xw_stride = 3 * self.units
        if m_across > m:
            m = m_across
            outer, outer_stride, inner, inner_stride = inner, inner_stride, outer, outer_stride
            step_stride, step.xw_stride = xw_bytes, steps * 3 * self.units
        for i in range(inner * outer // m):
            row = i * m
            matmul(&blas, itemsize, m, 3 * self.units, self.features,
                   x + row // inner * outer_stride + row % inner * inner_stride,
                   (outer_stride if inner == 1 else inner_stride) // itemsize,
                   <char *> cnp.PyArray_DATA(self.kernel), 3 * self.units,
                   run.xw + row * xw_bytes, 3 * self.units)
        return step_stride

    cdef void advance(self, fastgru_step *step, Py_ssize_t itemsize) noexcept nogil:
        """One step: one product, or two with the reset before, and the gates."""
        cdef int units = self.units
        cdef Py_ssize_t width = units * itemsize
        cdef char *hu = <char *> step.hu
        cdef char *recurrent_kernel = <char *> cnp.PyArray_DATA(self.recurrent_kernel)
        if self.reset_after:
            matmul(&blas, itemsize, step.rows, 3 * units, units, <char *> step.h, units,
                   recurrent_kernel, 3 * units, hu, 3 * units)
            self.functions.gates_reset_after(step)
        else:
            matmul(&blas, itemsize, step.rows, 2 * units, units, <char *> step.h, units,
                   recurrent_kernel, 3 * units, hu, 2 * units)
            self.functions.gates_reset(step)
            matmul(&blas, itemsize, step.rows, units, units, hu + width, 2 * units,
                   recurrent_kernel + 2 * width, 3 * units, <char *> step.xw + width, step.xw_stride)
            self.functions.gates_update(step)
