"""Both engines behind one face: the scratch that a call needs, and the call, without a Python object."""

from libc.limits cimport INT_MAX
from libc.string cimport memcpy, memset

from fastgru._blas cimport Blas, matmul
from fastgru._engine cimport (
    fastgru_call,
    fastgru_engine,
    fastgru_functions,
    fastgru_gates,
    fastgru_layer,
    fastgru_ragged_scratch_size,
    fastgru_scratch_size,
    fastgru_sequence,
)

# Scratch of a call of the BLAS engine. With the state of the rows beside it a call stays below 4 MiB
# beyond its input and output, or below three states of the batch where those are more.
cdef enum:
    SCRATCH_BYTES = 2 << 20
    ALIGNMENT = 64


cdef struct Engine:
    # One layer, ready to run. Whoever fills it keeps the arrays.
    fastgru_layer layer              # its kernels NULL: the rest is for BLAS
    Py_ssize_t itemsize
    const Blas *blas
    const fastgru_functions *functions
    fastgru_gates template
    char *kernel                     # (features, 3 * units)
    char *recurrent_kernel           # (units, 3 * units)


cdef struct Products:
    # How the BLAS engine cuts a call into products, and at which bytes of the scratch they lie; from 0 on
    # xw (steps, rows, 3 * units).
    Py_ssize_t rows          # at a time
    Py_ssize_t steps         # projected at a time
    size_t hu                # (rows, 3 * units)
    size_t seen              # (rows) of bytes
    size_t mask              # (rows) of bytes: of a step, by the lengths of the rows
    size_t state             # (batch, units)  if the call wants none


cdef inline size_t scratch_size(const Engine *engine, const fastgru_call *call) noexcept nogil:
    """Bytes of scratch that a call needs, whose arrays need not be known yet."""
    cdef Products products
    if engine.layer.kernels != NULL and call.lengths != NULL:
        return fastgru_ragged_scratch_size(&engine.layer, call.batch, call.timesteps)
    if engine.layer.kernels != NULL:
        return fastgru_scratch_size(&engine.layer, call.batch, call.timesteps)
    products = cut(engine, call)
    return products.state + (0 if call.state != NULL else call.batch * engine.layer.units * engine.itemsize)


cdef inline void run(const Engine *engine, fastgru_call *call, char *scratch) noexcept nogil:
    """Every timestep of a call, in aligned scratch; nothing can fail. A state of NULL: not wanted."""
    cdef Products products
    if engine.layer.kernels != NULL:
        call.scratch = scratch
        fastgru_sequence(&engine.layer, call)
    else:
        products = cut(engine, call)
        if call.state == NULL:
            call.state = scratch + products.state
        run_blas(engine, call, &products, scratch)


cdef inline size_t scratch_of_engine(const void *weights, const fastgru_call *call) noexcept nogil:
    return scratch_size(<const Engine *> weights, call)


cdef inline void run_engine(const void *weights, fastgru_call *call) noexcept nogil:
    run(<const Engine *> weights, call, <char *> call.scratch)


# ---- the BLAS engine -----------------------------------------------------------------------


cdef inline Products cut(const Engine *engine, const fastgru_call *call) noexcept nogil:
    """As many rows at a time as leave room for one step of xw and hu, in blocks of one size;
    then as many steps as fit. BLAS counts both together in a C int."""
    cdef Products products
    cdef Py_ssize_t width = engine.layer.units * engine.itemsize, row_bytes = 3 * width
    cdef Py_ssize_t budget = max(<Py_ssize_t> SCRATCH_BYTES, 2 * call.batch * width), blocks
    budget = min(budget, INT_MAX * row_bytes)
    products.rows = min(call.batch, max(1, budget // (2 * row_bytes)))
    blocks = (call.batch + products.rows - 1) // products.rows
    products.rows = (call.batch + blocks - 1) // blocks
    products.steps = min(call.timesteps, max(1, budget // (products.rows * row_bytes) - 1))
    products.hu = products.steps * products.rows * row_bytes
    products.seen = products.hu + products.rows * row_bytes
    products.mask = products.seen + products.rows
    products.state = (products.mask + products.rows + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
    return products


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


cdef inline void run_blas(
    const Engine *engine, const fastgru_call *call, const Products *products, char *scratch,
) noexcept nogil:
    """Blocks of rows, chunks of time: x.kernel of a whole chunk, then step by step h.recurrent_kernel
    and the gates."""
    cdef Py_ssize_t block, chunk, first_row, first_step, steps, start, i, step_stride, time
    cdef bint masked = call.mask != NULL or call.lengths != NULL
    cdef Py_ssize_t itemsize = engine.itemsize, width = engine.layer.units * itemsize
    cdef fastgru_gates step = engine.template
    if call.initial_state == NULL:
        memset(call.state, 0, call.batch * width)
    elif call.initial_state != call.state:
        memcpy(call.state, call.initial_state, call.batch * width)
    step.hu, step.zero_output_for_mask = scratch + products.hu, call.zero_output_for_mask
    step.out, step.out_stride = NULL, call.out_batch_stride
    step.mask, step.mask_stride = NULL, call.mask_batch_stride
    for block in range((call.batch + products.rows - 1) // products.rows):
        first_row = block * products.rows
        step.rows = min(products.rows, call.batch - first_row)
        step.h = <char *> call.state + first_row * width
        step.seen = NULL
        if masked and call.seen != NULL:
            step.seen = call.seen + first_row
        elif masked:
            step.seen = <unsigned char *> scratch + products.seen
            memset(step.seen, 0, step.rows)
        for chunk in range((call.timesteps + products.steps - 1) // products.steps):
            first_step = chunk * products.steps
            steps = min(products.steps, call.timesteps - first_step)
            start = call.timesteps - first_step - steps if call.go_backwards else first_step
            step_stride = project(engine, call, scratch, first_row, start, steps, &step)
            for i in range(steps):
                time = start + (steps - 1 - i if call.go_backwards else i)
                step.xw = scratch + (time - start) * step_stride
                if call.out != NULL:
                    step.out = <char *> call.out + itemsize * (
                        first_row * call.out_batch_stride + (first_step + i) * call.out_time_stride)
                if call.lengths != NULL:
                    step.mask, step.mask_stride = <unsigned char *> scratch + products.mask, 1
                    mask_of_step(call, first_row, step.rows, time, scratch + products.mask)
                elif call.mask != NULL:
                    step.mask = (call.mask + first_row * call.mask_batch_stride
                                 + time * call.mask_time_stride)
                advance(engine, &step)


cdef inline void mask_of_step(
    const fastgru_call *call, Py_ssize_t first_row, Py_ssize_t rows, Py_ssize_t time, char *mask,
) noexcept nogil:
    """Which rows have that step, by their lengths, of which the largest come first."""
    cdef Py_ssize_t i, row
    for i in range(call.batch):
        row = call.rows[i] - first_row
        if 0 <= row < rows:
            mask[row] = time < call.lengths[i]


cdef inline Py_ssize_t project(
    const Engine *engine, const fastgru_call *call, char *xw,
    Py_ssize_t first_row, Py_ssize_t start, Py_ssize_t steps, fastgru_gates *step,
) noexcept nogil:
    """xw := x.kernel for step.rows rows and the steps from `start` on.

    In products of as many rows as the strides of x allow: xw is laid out (steps, rows) or
    (rows, steps) accordingly. Sets step.xw_stride, returns the stride in bytes from step to step.
    """
    cdef Py_ssize_t features = engine.layer.features, width = 3 * engine.layer.units
    cdef Py_ssize_t itemsize = engine.itemsize, xw_bytes = width * itemsize
    cdef Py_ssize_t outer = steps, outer_stride = call.x_time_stride, i
    cdef Py_ssize_t inner = step.rows, inner_stride = call.x_batch_stride, row
    cdef Py_ssize_t m = rows_in_one_product(outer, outer_stride, inner, inner_stride, features)
    cdef Py_ssize_t m_across = rows_in_one_product(inner, inner_stride, outer, outer_stride, features)
    cdef const char *x = <const char *> call.x + itemsize * (
        first_row * call.x_batch_stride + start * call.x_time_stride)
    cdef Py_ssize_t step_stride = step.rows * xw_bytes
    step.xw_stride = width
    if m_across > m:
        m = m_across
        outer, outer_stride, inner, inner_stride = inner, inner_stride, outer, outer_stride
        step_stride, step.xw_stride = xw_bytes, steps * width
    for i in range(inner * outer // m):
        row = i * m
        matmul(engine.blas, itemsize, m, width, features,
               x + itemsize * (row // inner * outer_stride + row % inner * inner_stride),
               outer_stride if inner == 1 else inner_stride,
               engine.kernel, width, xw + row * xw_bytes, width)
    return step_stride


cdef inline void advance(const Engine *engine, fastgru_gates *step) noexcept nogil:
    """One step: one product, or two with the reset before, and the gates."""
    cdef int units = engine.layer.units
    cdef Py_ssize_t itemsize = engine.itemsize, width = units * itemsize
    cdef char *hu = <char *> step.hu
    cdef char *recurrent_kernel = engine.recurrent_kernel
    if engine.layer.reset_after:
        matmul(engine.blas, itemsize, step.rows, 3 * units, units, <char *> step.h, units,
               recurrent_kernel, 3 * units, hu, 3 * units)
        engine.functions.gates_reset_after(step)
    else:
        matmul(engine.blas, itemsize, step.rows, 2 * units, units, <char *> step.h, units,
               recurrent_kernel, 3 * units, hu, 2 * units)
        engine.functions.gates_reset(step)
        matmul(engine.blas, itemsize, step.rows, units, units, hu + width, 2 * units,
               recurrent_kernel + 2 * width, 3 * units, <char *> step.xw + width, step.xw_stride)
        engine.functions.gates_update(step)
