# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: cdivision=True, autotestdict=False, embedsignature=False
"""The compiled half of fastgru: weights ready to run (Plan) and the loop over time.

Trusts its callers: whatever a user can get wrong has been found by the Python half.
"""

from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.string cimport memcpy

cimport cython
cimport numpy as cnp
import numpy as np

from fastgru._blas cimport Blas, bind
from fastgru._engine cimport (
    FASTGRU_ACTIVATION_COUNT,
    fastgru_activation_names,
    fastgru_call,
    fastgru_functions,
    fastgru_gates,
    fastgru_kernels,
    fastgru_kernels_at,
    fastgru_pack,
    fastgru_packed_size,
)
from fastgru._engines cimport ALIGNMENT, Engine, run, scratch_size

cnp.import_array()

cdef Blas blas

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


cdef inline char *aligned(void *memory) noexcept nogil:
    """The first aligned byte of memory that is ALIGNMENT bytes longer than needed."""
    return <char *> memory + (ALIGNMENT - <size_t> memory % ALIGNMENT) % ALIGNMENT


cdef Memory take(Memory *spare, size_t size) except *:
    """The spare memory if it is there and large enough, else new memory; the GIL is held."""
    cdef Memory memory = spare[0]
    if memory.size >= size and memory.owned != NULL:
        spare.owned = NULL
        return memory
    memory.owned = PyMem_RawMalloc(size + ALIGNMENT)
    if memory.owned == NULL:
        raise MemoryError()
    memory.data, memory.size = aligned(memory.owned), size
    return memory


cdef void give_back(Memory *spare, Memory memory) noexcept:
    """Keep the larger of this and the spare memory; the GIL is held."""
    if spare.owned == NULL:
        spare[0] = memory
    elif spare.size < memory.size:
        PyMem_RawFree(spare.owned)
        spare[0] = memory
    else:
        PyMem_RawFree(memory.owned)


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
    cdef Engine ready
    cdef tuple arrays                                   # that it points into
    cdef unsigned turn                                  # which way packed weights are walked next
    cdef Memory spare                                   # of the call before, for the next one

    def __init__(
        self, cnp.ndarray kernel, cnp.ndarray recurrent_kernel, cnp.ndarray bias, bint reset_after,
        tuple activation, tuple recurrent_activation, str engine, isa=None, bint float16=False,
    ):
        cdef const fastgru_kernels *kernels = kernels_of(isa)
        self.isa, self.engine, self.typenum = kernels.isa.decode(), engine, cnp.PyArray_TYPE(kernel)
        self.features, self.units, self.reset_after = kernel.shape[0], recurrent_kernel.shape[0], reset_after
        self.ready.itemsize = kernel.itemsize
        self.ready.layer.features, self.ready.layer.units = self.features, self.units
        self.ready.layer.reset_after = reset_after
        self.ready.layer.activation, self.ready.layer.alpha = ACTIVATION_IDS[activation[0]], activation[1]
        self.ready.layer.recurrent_activation = ACTIVATION_IDS[recurrent_activation[0]]
        self.ready.layer.recurrent_alpha = recurrent_activation[1]
        if engine == "packed":
            self.ready.layer.kernels = &kernels.f16 if float16 else (
                &kernels.f32 if kernel.itemsize == 4 else &kernels.f64)
            self.pack(kernel, recurrent_kernel, bias)
        else:
            bind(&blas)
            self.ready.blas = &blas
            self.ready.functions = &kernels.f32_functions if kernel.itemsize == 4 else &kernels.f64_functions
            self.refer_to(kernel, recurrent_kernel, bias)

    def __dealloc__(self):
        PyMem_RawFree(self.spare.owned)

    cdef int pack(
        self, cnp.ndarray kernel, cnp.ndarray recurrent_kernel, cnp.ndarray bias,
    ) except -1:
        """What the packed engine needs beside the settings of the layer: a copy of the weights."""
        cdef cnp.ndarray packed = np.empty(fastgru_packed_size(&self.ready.layer) + ALIGNMENT, np.uint8)
        self.arrays = (packed,)
        fastgru_pack(
            &self.ready.layer, cnp.PyArray_DATA(kernel), cnp.PyArray_DATA(recurrent_kernel),
            NULL if bias is None else cnp.PyArray_DATA(bias), aligned(cnp.PyArray_DATA(packed)))
        return 0

    cdef int refer_to(
        self, cnp.ndarray kernel, cnp.ndarray recurrent_kernel, cnp.ndarray bias,
    ) except -1:
        """What the BLAS engine needs beside the settings of the layer: the weights themselves."""
        cdef fastgru_gates *template = &self.ready.template
        cdef cnp.ndarray sums = np.zeros(3 * self.units, kernel.dtype)
        cdef cnp.ndarray recurrent_bias = np.zeros(self.units, kernel.dtype)
        if bias is not None and self.reset_after:
            # z and r see only the sum of both biases; the candidate's recurrent one is reset with h.Uh
            sums[:] = bias[0]
            sums[:2 * self.units] += bias[1, :2 * self.units]
            recurrent_bias[:] = bias[1, 2 * self.units:]
        elif bias is not None:
            sums[:] = bias
        self.arrays = kernel, recurrent_kernel, sums, recurrent_bias
        self.ready.kernel = <char *> cnp.PyArray_DATA(kernel)
        self.ready.recurrent_kernel = <char *> cnp.PyArray_DATA(recurrent_kernel)
        template.units = self.units
        template.activation, template.alpha = self.ready.layer.activation, self.ready.layer.alpha
        template.recurrent_activation = self.ready.layer.recurrent_activation
        template.recurrent_alpha = self.ready.layer.recurrent_alpha
        template.bias, template.recurrent_bias = cnp.PyArray_DATA(sums), cnp.PyArray_DATA(recurrent_bias)
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
        cdef Memory memory = take(&self.spare, scratch_size(&self.ready, call))
        call.turn = self.turn
        with nogil:
            run(&self.ready, call, memory.data)
        self.turn = call.turn
        give_back(&self.spare, memory)
        return 0
