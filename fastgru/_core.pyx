# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: cdivision=True, autotestdict=False, embedsignature=False
"""The compiled half of fastgru: weights ready to run (Plan) and the loop over time.

Trusts its callers: whatever a user can get wrong has been found by the Python half.
"""

from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.limits cimport INT_MAX
from libc.string cimport memcpy, memset

cimport cython
cimport numpy as cnp
import numpy as np

from fastgru._blas cimport Blas, bind, matmul
from fastgru._engine cimport (
    FASTGRU_ACTIVATION_COUNT,
    fastgru_activation_names,
    fastgru_call,
    fastgru_functions,
    fastgru_gates,
    fastgru_kernels,
    fastgru_kernels_at,
    fastgru_layer,
    fastgru_pack,
    fastgru_packed_size,
    fastgru_ragged_scratch_size,
    fastgru_scratch_size,
    fastgru_sequence,
)

cnp.import_array()

cdef Blas blas

# Scratch of a call of the BLAS engine. With the state of the rows beside it a call stays below 4 MiB
# beyond its input and output, or below three states of the batch where those are more.
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


def packed_isas():
    """Those of `isas()` that have packed kernels whose bits agree with each other's."""
    return tuple(isa for isa in isas() if kernels_of(isa).fused)


def float16_isas():
    """Those of `isas()` that compute with float16 weights."""
    return tuple(isa for isa in isas() if kernels_of(isa).f16.sequence != NULL)


def activations():
    """Names of the activations that have a kernel."""
    return tuple(ACTIVATION_IDS)


def activate(str name, cnp.ndarray x, double alpha=0.0, isa=None):
    """The named activation of a float32 or float64 array, elementwise, as a new array."""
    cdef const fastgru_kernels *kernels = kernels_of(isa)
    cdef int activation = ACTIVATION_IDS[name]
    cdef cnp.ndarray source = np.require(x, requirements=["C", "A"])
    cdef cnp.ndarray result = np.empty_like(source)
    cdef const fastgru_functions *functions = (
        &kernels.f32_functions if source.itemsize == 4 else &kernels.f64_functions)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(source)
    with nogil:
        functions.activate(activation, alpha, n, cnp.PyArray_DATA(source), cnp.PyArray_DATA(result))
    return result.reshape(np.shape(x))


cdef struct Memory:
    # Scratch of a call; data is `owned`, aligned.
    void *owned
    char *data
    size_t size


cdef struct Products:
    # How the BLAS engine cuts a call into products, and where it puts them.
    Py_ssize_t rows          # at a time
    Py_ssize_t steps         # projected at a time
    char *xw                 # (steps, rows, 3 * units)
    char *hu                 # (rows, 3 * units)
    unsigned char *seen      # (rows)


cdef inline char *aligned(void *memory) noexcept nogil:
    """The first aligned byte of memory that is ALIGNMENT bytes longer than needed."""
    return <char *> memory + (ALIGNMENT - <size_t> memory % ALIGNMENT) % ALIGNMENT


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


cdef inline bint is_plain(array, int ndim, int typenum) noexcept:
    """No subclass, of that rank and type, aligned and in the machine's byte order?"""
    return (
        cnp.PyArray_CheckExact(array) and cnp.PyArray_NDIM(<cnp.ndarray> array) == ndim
        and cnp.PyArray_TYPE(<cnp.ndarray> array) == typenum and cnp.PyArray_ISBEHAVED_RO(<cnp.ndarray> array)
    )


cdef inline bint has_shape(cnp.ndarray array, const cnp.npy_intp *shape) noexcept:
    """Are the array's axes as long as that?"""
    cdef int axis
    for axis in range(cnp.PyArray_NDIM(array)):
        if cnp.PyArray_DIMS(array)[axis] != shape[axis]:
            return False
    return True


cdef void extent(cnp.ndarray array, char **first, char **end) noexcept:
    """The bytes between which an array that is not empty lies."""
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


cdef bint overlap(cnp.ndarray array, cnp.ndarray other) noexcept:
    """May they share memory? None shares none."""
    cdef char *first
    cdef char *end
    cdef char *other_first
    cdef char *other_end
    if other is None or cnp.PyArray_SIZE(other) == 0:
        return False
    extent(array, &first, &end)
    extent(other, &other_first, &other_end)
    return first < other_end and other_first < end


cdef void describe(
    fastgru_call *call, cnp.ndarray x, cnp.ndarray initial_state, cnp.ndarray out, cnp.ndarray mask,
    bint time_major,
) noexcept:
    """Where the arrays of a call lie; None: nowhere. An `out` without timesteps is that of every step."""
    cdef Py_ssize_t itemsize = cnp.PyArray_ITEMSIZE(x)
    cdef int batch_axis = time_major, time_axis = not time_major
    call.batch, call.timesteps = cnp.PyArray_DIMS(x)[batch_axis], cnp.PyArray_DIMS(x)[time_axis]
    call.x = cnp.PyArray_DATA(x)
    call.x_batch_stride = cnp.PyArray_STRIDES(x)[batch_axis] // itemsize
    call.x_time_stride = cnp.PyArray_STRIDES(x)[time_axis] // itemsize
    call.initial_state = NULL if initial_state is None else cnp.PyArray_DATA(initial_state)
    call.out, call.out_batch_stride, call.out_time_stride = NULL, 0, 0
    if out is not None and cnp.PyArray_NDIM(out) == 2:
        call.out = cnp.PyArray_DATA(out)
        call.out_batch_stride = cnp.PyArray_STRIDES(out)[0] // itemsize
    elif out is not None:
        call.out = cnp.PyArray_DATA(out)
        call.out_batch_stride = cnp.PyArray_STRIDES(out)[batch_axis] // itemsize
        call.out_time_stride = cnp.PyArray_STRIDES(out)[time_axis] // itemsize
    call.mask, call.mask_batch_stride, call.mask_time_stride = NULL, 0, 0
    call.lengths = call.rows = NULL
    if mask is not None:
        call.mask = <const unsigned char *> cnp.PyArray_DATA(mask)
        call.mask_batch_stride = cnp.PyArray_STRIDES(mask)[batch_axis]
        call.mask_time_stride = cnp.PyArray_STRIDES(mask)[time_axis]


cdef Py_ssize_t rows_in_one_product(
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


@cython.final
@cython.auto_pickle(False)
cdef class Plan:
    """Weights of one layer, ready to run; immutable, shared by any number of threads.

    Parameters
    ----------
    kernel : ndarray, shape (features, 3 * units)
        float32 or float64, C-contiguous, like the rest.
    recurrent_kernel : ndarray, shape (units, 3 * units)
    bias : ndarray or None
        (3 * units,), or (2, 3 * units) with `reset_after`: input bias, recurrent bias.
    reset_after : bool
    activation, recurrent_activation : (str, float)
        Name of a kernel and its parameter.
    engine : {'packed', 'blas'}
        With 'packed' weights are copied, with 'blas' referred to.
    isa : str, optional
        Instruction set, one of `isas()`; the fastest by default.
    float16 : bool
        Keep packed weights in float16? They must be float32 without a value that it cannot hold.
    """

    cdef readonly int features, units
    cdef readonly bint reset_after
    cdef readonly str isa, engine
    cdef int typenum                                    # of all arrays
    cdef fastgru_layer layer
    cdef cnp.ndarray packed                             # bytes
    cdef unsigned turn                                  # which way packed weights are walked next
    cdef Memory spare                                   # of the call before, for the next one
    cdef cnp.ndarray kernel, recurrent_kernel, bias, recurrent_bias
    cdef const fastgru_functions *functions
    cdef fastgru_gates template

    def __init__(
        self, cnp.ndarray kernel, cnp.ndarray recurrent_kernel, cnp.ndarray bias, bint reset_after,
        tuple activation, tuple recurrent_activation, str engine, isa=None, bint float16=False,
    ):
        cdef const fastgru_kernels *kernels = kernels_of(isa)
        self.isa, self.engine, self.typenum = kernels.isa.decode(), engine, cnp.PyArray_TYPE(kernel)
        self.features, self.units, self.reset_after = kernel.shape[0], recurrent_kernel.shape[0], reset_after
        self.layer.features, self.layer.units, self.layer.reset_after = self.features, self.units, reset_after
        self.layer.activation, self.layer.alpha = ACTIVATION_IDS[activation[0]], activation[1]
        self.layer.recurrent_activation = ACTIVATION_IDS[recurrent_activation[0]]
        self.layer.recurrent_alpha = recurrent_activation[1]
        if engine == "packed":
            self.layer.kernels = &kernels.f16 if float16 else (
                &kernels.f32 if kernel.itemsize == 4 else &kernels.f64)
            self.packed = np.empty(fastgru_packed_size(&self.layer) + ALIGNMENT, np.uint8)
            fastgru_pack(
                &self.layer, cnp.PyArray_DATA(kernel), cnp.PyArray_DATA(recurrent_kernel),
                NULL if bias is None else cnp.PyArray_DATA(bias), aligned(cnp.PyArray_DATA(self.packed)))
        else:
            bind(&blas)
            self.functions = &kernels.f32_functions if kernel.itemsize == 4 else &kernels.f64_functions
            self.refer_to(kernel, recurrent_kernel, bias)

    def __dealloc__(self):
        PyMem_RawFree(self.spare.owned)

    cdef int refer_to(
        self, cnp.ndarray kernel, cnp.ndarray recurrent_kernel, cnp.ndarray bias,
    ) except -1:
        """What the BLAS engine needs beside the settings of the layer."""
        self.kernel, self.recurrent_kernel = kernel, recurrent_kernel
        self.bias = np.zeros(3 * self.units, kernel.dtype)
        self.recurrent_bias = np.zeros(self.units, kernel.dtype)
        if bias is not None and self.reset_after:
            # z and r see only the sum of both biases; the candidate's recurrent one is reset with h.Uh
            self.bias[:] = bias[0]
            self.bias[:2 * self.units] += bias[1, :2 * self.units]
            self.recurrent_bias[:] = bias[1, 2 * self.units:]
        elif bias is not None:
            self.bias[:] = bias
        self.template.units = self.units
        self.template.activation, self.template.alpha = self.layer.activation, self.layer.alpha
        self.template.recurrent_activation = self.layer.recurrent_activation
        self.template.recurrent_alpha = self.layer.recurrent_alpha
        self.template.bias = cnp.PyArray_DATA(self.bias)
        self.template.recurrent_bias = cnp.PyArray_DATA(self.recurrent_bias)
        return 0

    def run(
        self, cnp.ndarray x, cnp.ndarray initial_state, cnp.ndarray state, cnp.ndarray out, cnp.ndarray mask,
        bint time_major, bint go_backwards, bint zero_output_for_mask,
    ):
        """Run every timestep of x, at least one; the GIL is released.

        Parameters
        ----------
        x : ndarray, shape (batch, timesteps, features), or the first two swapped if `time_major`
            Read in place if its last axis is contiguous, else copied.
        initial_state : ndarray or None
            (batch, units), C-contiguous; None: zeros. May be `state`.
        state : ndarray, shape (batch, units), C-contiguous
            Overwritten: the state after the last step.
        out : ndarray or None
            Overwritten: (batch, timesteps, units), time-major as x, the output of every step; or
            (batch, units), that of the last. Last axis contiguous.
        mask : bool ndarray, intp ndarray or None
            (batch, timesteps), time-major as x; False: the row does not take part in the step. With packed
            weights also (batch,): each row takes part in so many steps, the first ones.
        """
        cdef fastgru_call call
        cdef cnp.ndarray longest_first, lengths = None
        if mask is not None and cnp.PyArray_NDIM(mask) == 1:
            lengths, mask = mask, None
        if cnp.PyArray_DIMS(x)[time_major] == 0:
            return
        if not rows_are_whole(x):
            x = np.array(x, order="C")  # aligned, too
        describe(&call, x, initial_state, out, mask, time_major)
        call.state = cnp.PyArray_DATA(state)
        call.go_backwards, call.zero_output_for_mask = go_backwards, zero_output_for_mask
        if lengths is not None:
            longest_first = np.argsort(-lengths, kind="stable")
            lengths = lengths[longest_first]
            call.rows = <const Py_ssize_t *> cnp.PyArray_DATA(longest_first)
            call.lengths = <const Py_ssize_t *> cnp.PyArray_DATA(lengths)
        self.compute(&call)

    def call(
        self, x, initial_state, mask, out, record, bint time_major, bint go_backwards, bint zero_output_for_mask,
        bint sequences, bint return_state,
    ):
        """What a layer's call returns, if every argument is as `run` wants it; else NotImplemented.

        The short way of nearly every call: it converts nothing and complains of nothing. The last state
        goes to `record` too, which may be `initial_state`, unless it is None. With `out` and without
        `return_state` nothing is allocated, once there is scratch.
        """
        cdef fastgru_call call
        cdef cnp.npy_intp shape[3]
        cdef cnp.npy_intp state_shape[2]
        cdef cnp.npy_intp *steps
        cdef cnp.npy_intp *out_shape = state_shape
        cdef cnp.ndarray output, last, returned = None
        cdef bint apart = sequences or mask is not None     # is the output not simply the last state?
        if not is_plain(x, 3, self.typenum) or not rows_are_whole(x):
            return NotImplemented
        steps = cnp.PyArray_DIMS(<cnp.ndarray> x)
        shape[0], shape[1], shape[2] = steps[0], steps[1], self.units
        if shape[0] == 0 or shape[1] == 0 or steps[2] != self.features:
            return NotImplemented
        if mask is not None and not (is_plain(mask, 2, cnp.NPY_BOOL) and has_shape(mask, shape)):
            return NotImplemented
        state_shape[0], state_shape[1] = steps[time_major], self.units
        if initial_state is not None and not (
            is_plain(initial_state, 2, self.typenum) and has_shape(initial_state, state_shape)
            and cnp.PyArray_IS_C_CONTIGUOUS(initial_state)
        ):
            return NotImplemented
        if sequences:
            out_shape = shape
        if out is None:
            output = cnp.PyArray_EMPTY(2 + sequences, out_shape, self.typenum, 0)
        elif (
            is_plain(out, 2 + sequences, self.typenum) and cnp.PyArray_ISWRITEABLE(out)
            and has_shape(out, out_shape)
            and (rows_are_whole(out) if apart else cnp.PyArray_IS_C_CONTIGUOUS(out))
            and not (overlap(out, x) or overlap(out, initial_state) or overlap(out, mask))
        ):
            output = out
        else:
            return NotImplemented
        if return_state:  # no allocation may fail once the state has been overwritten
            returned = cnp.PyArray_EMPTY(2, state_shape, self.typenum, 0)
        if not apart:  # not the record, which a single step reads: it would have to be copied away first
            last = output
        elif record is not None:
            last = record
        else:
            last = returned

        describe(&call, x, initial_state, output if apart else None, mask, time_major)
        call.state = NULL if last is None else cnp.PyArray_DATA(last)
        call.go_backwards, call.zero_output_for_mask = go_backwards, zero_output_for_mask
        self.compute(&call)
        if record is not None and last is not record:
            memcpy(cnp.PyArray_DATA(<cnp.ndarray> record), call.state, cnp.PyArray_NBYTES(output))
        if not return_state:
            return output
        if last is not returned:
            memcpy(cnp.PyArray_DATA(returned), call.state, cnp.PyArray_NBYTES(returned))
        return [output, returned]

    cdef int compute(self, fastgru_call *call) except -1:
        """Run a call, of which nothing can fail any more but to get scratch. A state of NULL: not wanted."""
        cdef Py_ssize_t itemsize = 4 if self.typenum == cnp.NPY_FLOAT else 8
        cdef size_t size, state_at
        cdef Products products
        cdef Memory memory
        if call.lengths != NULL:
            size = fastgru_ragged_scratch_size(&self.layer, call.batch, call.timesteps)
        elif self.packed is not None:
            size = fastgru_scratch_size(&self.layer, call.batch, call.timesteps)
        else:
            products = self.cut(call, itemsize)
            size = (products.steps + 1) * products.rows * 3 * self.units * itemsize + products.rows
            state_at = (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
            size = state_at + (call.batch * self.units * itemsize if call.state == NULL else 0)
        memory = self.take(size)
        if self.packed is not None:
            call.scratch, call.turn = memory.data, self.turn
            with nogil:
                fastgru_sequence(&self.layer, call)
            self.turn = call.turn
        else:
            if call.state == NULL:
                call.state = memory.data + state_at
            products.xw = memory.data
            products.hu = products.xw + products.steps * products.rows * 3 * self.units * itemsize
            products.seen = <unsigned char *> products.hu + products.rows * 3 * self.units * itemsize
            with nogil:
                self.run_blas(call, &products, itemsize)
        self.give_back(memory)
        return 0

    # ---- scratch: the GIL is held ----------------------------------------------------------

    cdef Memory take(self, size_t size) except *:
        """The spare memory if it is there and large enough, else new memory."""
        cdef Memory memory = self.spare
        if memory.size >= size and memory.owned != NULL:
            self.spare.owned = NULL
            return memory
        memory.owned = PyMem_RawMalloc(size + ALIGNMENT)
        if memory.owned == NULL:
            raise MemoryError()
        memory.data, memory.size = aligned(memory.owned), size
        return memory

    cdef void give_back(self, Memory memory) noexcept:
        """Keep the larger of this and the spare memory."""
        if self.spare.owned == NULL:
            self.spare = memory
        elif self.spare.size < memory.size:
            PyMem_RawFree(self.spare.owned)
            self.spare = memory
        else:
            PyMem_RawFree(memory.owned)

    # ---- the BLAS engine -------------------------------------------------------------------

    cdef Products cut(self, const fastgru_call *call, Py_ssize_t itemsize) noexcept nogil:
        """As many rows at a time as leave room for one step of xw and hu, in blocks of one size;
        then as many steps as fit. BLAS counts both together in a C int."""
        cdef Products products
        cdef Py_ssize_t row_bytes = 3 * self.units * itemsize
        cdef Py_ssize_t budget = max(<Py_ssize_t> SCRATCH_BYTES, 2 * call.batch * self.units * itemsize), blocks
        budget = min(budget, INT_MAX * row_bytes)
        products.rows = min(call.batch, max(1, budget // (2 * row_bytes)))
        blocks = (call.batch + products.rows - 1) // products.rows
        products.rows = (call.batch + blocks - 1) // blocks
        products.steps = min(call.timesteps, max(1, budget // (products.rows * row_bytes) - 1))
        return products

    cdef void run_blas(
        self, const fastgru_call *call, const Products *products, Py_ssize_t itemsize,
    ) noexcept nogil:
        """Blocks of rows, chunks of time: x.kernel of a whole chunk, then step by step h.recurrent_kernel
        and the gates."""
        cdef Py_ssize_t block, chunk, first_row, first_step, steps, start, i, step_stride, time
        cdef Py_ssize_t width = self.units * itemsize
        cdef fastgru_gates step = self.template
        if call.initial_state == NULL:
            memset(call.state, 0, call.batch * width)
        elif call.initial_state != call.state:
            memcpy(call.state, call.initial_state, call.batch * width)
        step.hu, step.zero_output_for_mask = products.hu, call.zero_output_for_mask
        step.seen = NULL if call.mask == NULL else products.seen
        step.out, step.out_stride = NULL, call.out_batch_stride
        step.mask, step.mask_stride = NULL, call.mask_batch_stride
        for block in range((call.batch + products.rows - 1) // products.rows):
            first_row = block * products.rows
            step.rows = min(products.rows, call.batch - first_row)
            step.h = <char *> call.state + first_row * width
            if step.seen != NULL:
                memset(step.seen, 0, step.rows)
            for chunk in range((call.timesteps + products.steps - 1) // products.steps):
                first_step = chunk * products.steps
                steps = min(products.steps, call.timesteps - first_step)
                start = call.timesteps - first_step - steps if call.go_backwards else first_step
                step_stride = self.project(
                    call, products.xw, itemsize, first_row, start, steps, &step)
                for i in range(steps):
                    time = start + (steps - 1 - i if call.go_backwards else i)
                    step.xw = products.xw + (time - start) * step_stride
                    if call.out != NULL:
                        step.out = <char *> call.out + itemsize * (
                            first_row * call.out_batch_stride + (first_step + i) * call.out_time_stride)
                    if call.mask != NULL:
                        step.mask = (call.mask + first_row * call.mask_batch_stride
                                     + time * call.mask_time_stride)
                    self.advance(&step, itemsize)

    cdef Py_ssize_t project(
        self, const fastgru_call *call, char *xw, Py_ssize_t itemsize,
        Py_ssize_t first_row, Py_ssize_t start, Py_ssize_t steps, fastgru_gates *step,
    ) noexcept nogil:
        """xw := x.kernel for step.rows rows and the steps from `start` on.

        In products of as many rows as the strides of x allow: xw is laid out (steps, rows) or
        (rows, steps) accordingly. Sets step.xw_stride, returns the stride in bytes from step to step.
        """
        cdef Py_ssize_t xw_bytes = 3 * self.units * itemsize
        cdef Py_ssize_t outer = steps, outer_stride = call.x_time_stride, i
        cdef Py_ssize_t inner = step.rows, inner_stride = call.x_batch_stride, row
        cdef Py_ssize_t m = rows_in_one_product(outer, outer_stride, inner, inner_stride, self.features)
        cdef Py_ssize_t m_across = rows_in_one_product(
            inner, inner_stride, outer, outer_stride, self.features)
        cdef const char *x = <const char *> call.x + itemsize * (
            first_row * call.x_batch_stride + start * call.x_time_stride)
        cdef Py_ssize_t step_stride = step.rows * xw_bytes
        step.xw_stride = 3 * self.units
        if m_across > m:
            m = m_across
            outer, outer_stride, inner, inner_stride = inner, inner_stride, outer, outer_stride
            step_stride, step.xw_stride = xw_bytes, steps * 3 * self.units
        for i in range(inner * outer // m):
            row = i * m
            matmul(&blas, itemsize, m, 3 * self.units, self.features,
                   x + itemsize * (row // inner * outer_stride + row % inner * inner_stride),
                   outer_stride if inner == 1 else inner_stride,
                   <char *> cnp.PyArray_DATA(self.kernel), 3 * self.units,
                   xw + row * xw_bytes, 3 * self.units)
        return step_stride

    cdef void advance(self, fastgru_gates *step, Py_ssize_t itemsize) noexcept nogil:
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
