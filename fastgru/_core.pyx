# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: cdivision=True, autotestdict=False, embedsignature=False, freethreading_compatible=True
"""The compiled half of fastgru: weights ready to run (Plan) and the loop over time.

Trusts its callers: whatever a user can get wrong has been found by the Python half.

Without a GIL, too: a Plan is not written into but for its spare memory, which is exchanged in one piece, as is
the sign that a stream is running; what a pool knows of its slots is read and written in critical sections.
"""

import threading

from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.string cimport memcpy, memset

cimport cython
cimport numpy as cnp
import numpy as np

from fastgru._blas cimport Blas, bind
from fastgru._engine cimport (
    FASTGRU_ACTIVATION_COUNT,
    FASTGRU_CHAINS,
    fastgru_activation_names,
    fastgru_call,
    fastgru_functions,
    fastgru_gates,
    fastgru_kernels,
    fastgru_kernels_at,
    fastgru_pack,
    fastgru_packed_size,
    fastgru_set_lengths,
)
from fastgru._engines cimport ALIGNMENT, Engine, run, scratch_size

cnp.import_array()

cdef Blas blas
cdef object binding = threading.Lock()                  # held where blas is filled

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


def lanes(isa=None):
    """Floats in a vector."""
    return kernels_of(isa).f32.vlen


def multiply_adds(Py_ssize_t turns, isa=None):
    """Fused multiply-adds on float32 and nothing else; how many operations these were, two each."""
    cdef const fastgru_kernels *kernels = kernels_of(isa)
    with nogil:
        kernels.roofline.multiply_adds(turns)
    return 2 * FASTGRU_CHAINS * kernels.f32.vlen * turns


def reads(cnp.ndarray memory, Py_ssize_t turns, isa=None):
    """Read a contiguous float32 array over and over and do nothing else; how many bytes these were.

    Whole blocks of `lanes()` times some vectors are read: what is left at the end is not.
    """
    cdef const fastgru_kernels *kernels = kernels_of(isa)
    cdef Py_ssize_t block = FASTGRU_CHAINS * kernels.f32.vlen
    cdef Py_ssize_t blocks = cnp.PyArray_SIZE(memory) // block
    with nogil:
        kernels.roofline.reads(<const float *> cnp.PyArray_DATA(memory), blocks, turns)
    return 4 * block * blocks * turns


cdef extern from *:
    """
    /* *place := value, returns what was there, in one piece: a GIL is held where there is one. */
    #if !defined(Py_GIL_DISABLED)
    static inline void *fastgru_exchange(void **place, void *value)
    {
        void *was = *place;
        *place = value;
        return was;
    }
    #elif defined(_MSC_VER)
    #include <intrin.h>
    #define fastgru_exchange(place, value) _InterlockedExchangePointer(place, value)
    #else
    #define fastgru_exchange(place, value) __atomic_exchange_n(place, value, __ATOMIC_ACQ_REL)
    #endif
    """
    void *exchange "fastgru_exchange" (void **place, void *value) noexcept


cdef struct Memory:
    # Scratch of a call, and before it what the next call with it is to know.
    size_t size                                         # in bytes, of the scratch
    unsigned turn                                       # which way packed weights are walked next


cdef inline char *aligned(void *memory) noexcept nogil:
    """The first aligned byte of memory that is ALIGNMENT bytes longer than needed."""
    return <char *> memory + (ALIGNMENT - <size_t> memory % ALIGNMENT) % ALIGNMENT


cdef inline char *scratch_of(Memory *memory) noexcept nogil:
    return aligned(memory + 1)


cdef Memory *allocate(size_t size) except NULL:
    cdef Memory *memory = <Memory *> PyMem_RawMalloc(sizeof(Memory) + size + ALIGNMENT)
    if memory == NULL:
        raise MemoryError()
    memory.size, memory.turn = size, 0
    return memory


cdef Memory *take(Memory **spare, size_t size) except NULL:
    """The spare memory if it is there and large enough, else new memory."""
    cdef Memory *memory = <Memory *> exchange(<void **> spare, NULL)
    if memory != NULL and memory.size >= size:
        return memory
    PyMem_RawFree(memory)
    return allocate(size)


cdef void give_back(Memory **spare, Memory *memory) noexcept:
    """Keep the larger of this and the spare memory."""
    cdef Memory *other = <Memory *> exchange(<void **> spare, memory)
    if other != NULL and other.size > memory.size:
        other = <Memory *> exchange(<void **> spare, other)
    PyMem_RawFree(other)


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
    cnp.ndarray lengths, bint time_major,
) noexcept:
    """Where the arrays of a call lie; None: nowhere. An `out` without timesteps is that of every step.

    Lengths are those given, which `Plan.compute` puts in order.
    """
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
    if lengths is not None:
        call.lengths = <const Py_ssize_t *> cnp.PyArray_DATA(lengths)
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
    cdef Memory *spare                                  # of a call before, for the next one

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
            with binding:
                bind(&blas)
            self.ready.blas = &blas
            self.ready.functions = &kernels.f32_functions if kernel.itemsize == 4 else &kernels.f64_functions
            self.refer_to(kernel, recurrent_kernel, bias)

    def __dealloc__(self):
        PyMem_RawFree(self.spare)

    @property
    def nbytes(self):
        """Bytes of the weights as they are read."""
        if self.ready.layer.kernels != NULL:
            return fastgru_packed_size(&self.ready.layer)
        return sum(array.nbytes for array in self.arrays)

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
            weights also (batch,), nobody else's: each row takes part in so many steps, the first ones.
        """
        cdef fastgru_call call
        cdef cnp.ndarray lengths = None
        if mask is not None and cnp.PyArray_NDIM(mask) == 1:
            lengths, mask = mask, None
        if cnp.PyArray_DIMS(x)[time_major] == 0:
            return
        if not rows_are_whole(x):
            x = np.array(x, order="C")  # aligned, too
        describe(&call, x, initial_state, out, mask, lengths, time_major)
        call.state = cnp.PyArray_DATA(state)
        call.go_backwards, call.zero_output_for_mask = go_backwards, zero_output_for_mask
        self.compute(&call)

    def call(
        self, x, initial_state, mask, lengths, out, record, bint time_major, bint go_backwards,
        bint zero_output_for_mask, bint sequences, bint return_state,
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
        # is the output not simply the last state?
        cdef bint apart = sequences or mask is not None or lengths is not None
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
        if lengths is not None and not (
            mask is None and self.ready.layer.kernels != NULL and is_plain(lengths, 1, cnp.NPY_INTP)
            and has_shape(lengths, state_shape) and cnp.PyArray_IS_C_CONTIGUOUS(lengths)
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
            and not (overlap(out, x) or overlap(out, initial_state) or overlap(out, mask)
                     or overlap(out, lengths))
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

        describe(&call, x, initial_state, output if apart else None, mask, lengths, time_major)
        call.state = NULL if last is None else cnp.PyArray_DATA(last)
        call.go_backwards, call.zero_output_for_mask = go_backwards, zero_output_for_mask
        if not self.compute(&call):
            return NotImplemented
        if record is not None and last is not record:
            memcpy(cnp.PyArray_DATA(<cnp.ndarray> record), call.state, cnp.PyArray_NBYTES(output))
        if not return_state:
            return output
        if last is not returned:
            memcpy(cnp.PyArray_DATA(returned), call.state, cnp.PyArray_NBYTES(returned))
        return [output, returned]

    cdef bint compute(self, fastgru_call *call) except -1:
        """Run a call; False, and nothing done, if a length is out of range. A state of NULL: not wanted."""
        cdef size_t order = 0                           # bytes of the lengths in theirs
        cdef Memory *memory
        cdef bint right = True
        if call.lengths != NULL:
            order = (3 * call.batch + call.timesteps + 1) * sizeof(Py_ssize_t)
            order = (order + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
        memory = take(&self.spare, order + scratch_size(&self.ready, call))
        if call.lengths != NULL:
            right = fastgru_set_lengths(call, call.lengths, <Py_ssize_t *> scratch_of(memory))
        if right:
            call.turn = memory.turn
            with nogil:
                run(&self.ready, call, scratch_of(memory) + order)
            memory.turn = call.turn
        give_back(&self.spare, memory)
        return right


# ---- one timestep at a time ----------------------------------------------------------------


cdef struct Level:
    # One of several layers on top of each other, and a step of it.
    const Engine *engine
    fastgru_call call


cdef size_t scratch_of_step(tuple plans, Py_ssize_t rows) noexcept:
    """Bytes of scratch that a step of any of the layers needs."""
    cdef fastgru_call call
    cdef Plan plan
    cdef size_t size = 0
    memset(&call, 0, sizeof(call))
    call.batch, call.timesteps, call.state = rows, 1, &call  # there will be a state
    for plan in plans:
        size = max(size, scratch_size(&plan.ready, &call))
    return size


cdef void prepare(Level *levels, tuple plans, Py_ssize_t rows) noexcept:
    """Steps of so many rows that lie side by side; where they lie is not said yet."""
    cdef Plan plan
    cdef Level *level = levels
    memset(levels, 0, len(plans) * sizeof(Level))
    for plan in plans:
        level.engine = &plan.ready
        level.call.batch, level.call.timesteps = rows, 1
        level.call.x_batch_stride = level.call.x_time_stride = plan.features
        level += 1


cdef inline void climb(Level *levels, Py_ssize_t count, char *scratch) noexcept nogil:
    """A step of every layer: each reads the new state of the one below."""
    cdef Py_ssize_t k
    for k in range(count):
        if k > 0:
            levels[k].call.x = levels[k - 1].call.state
        run(levels[k].engine, &levels[k].call, scratch)


cdef inline bint are_rows(array, int typenum, const cnp.npy_intp *shape) noexcept:
    """Are they rows of that type and number, each with its elements side by side?"""
    return is_plain(array, 2, typenum) and has_shape(array, shape) and rows_are_whole(array)


cdef struct Target:
    # Rows to write, as they are before the GIL is dropped: others may give the array another shape then.
    char *data
    Py_ssize_t count, stride                            # in bytes
    size_t width


cdef inline Target target_of(cnp.ndarray array) noexcept:
    """Where rows lie, for which `are_rows` holds."""
    cdef Target target
    target.data, target.count = <char *> cnp.PyArray_DATA(array), cnp.PyArray_DIMS(array)[0]
    target.width = cnp.PyArray_DIMS(array)[1] * cnp.PyArray_ITEMSIZE(array)
    target.stride = cnp.PyArray_STRIDES(array)[0]
    return target


cdef inline void copy_rows(const Target *target, const char *rows) noexcept:
    """target := rows that lie one after the other."""
    cdef Py_ssize_t row
    if target.stride == <Py_ssize_t> target.width:
        memcpy(target.data, rows, target.count * target.width)
        return
    for row in range(target.count):
        memcpy(target.data + row * target.stride, rows + row * target.width, target.width)


@cython.auto_pickle(False)
cdef class Steps:
    """The state of some rows in layers on top of each other, and a step of it.

    Parameters
    ----------
    plans : tuple of Plan
        From the lowest layer on; none: every step takes `_long_step`, the long way.
    states : tuple of ndarray, each (batch, units)
        To start from; copied. With plans, all arrays are of their dtype.
    output : ndarray, shape (batch, units), C-contiguous
        Overwritten by every step that is given nothing else to write into.
    """

    cdef tuple plans
    cdef tuple states                                   # of ndarrays (2, batch, units), read and written in turn
    cdef int side                                       # which of both holds the state
    cdef int typenum
    cdef void *running                                  # NULL: nothing is
    cdef cnp.npy_intp input_shape[2]
    cdef cnp.npy_intp output_shape[2]
    cdef cnp.ndarray memory_of_output
    cdef Target target                                  # which is that
    cdef readonly cnp.ndarray _output                   # a view of it: users may change its shape
    cdef Memory *memory                                 # the levels and their scratch
    cdef Level *levels
    cdef char *scratch

    def __init__(self, tuple plans, tuple states, cnp.ndarray output):
        cdef cnp.ndarray last = states[len(states) - 1]
        cdef size_t levels_size = (len(plans) * sizeof(Level) + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
        if self.memory_of_output is not None:
            raise RuntimeError("__init__ must be called once")
        self.memory_of_output, self.target = output, target_of(output)
        self._output = output[:]
        self.states = tuple([np.stack([state, state]) for state in states])
        self.typenum = cnp.PyArray_TYPE(last)
        self.output_shape[0], self.output_shape[1] = last.shape[0], last.shape[1]
        if plans:
            self.input_shape[0], self.input_shape[1] = last.shape[0], (<Plan> plans[0]).features
            self.memory = allocate(levels_size + scratch_of_step(plans, last.shape[0]))
            self.levels = <Level *> scratch_of(self.memory)
            self.scratch = <char *> self.levels + levels_size
            prepare(self.levels, plans, last.shape[0])
        self.plans = plans

    def __dealloc__(self):
        PyMem_RawFree(self.memory)

    def __reduce__(self):
        raise TypeError(f"cannot pickle {type(self).__name__!r}: pickle its state and its layer")

    def __call__(self, x, out=None):
        cdef Target target = self.target
        cdef cnp.ndarray memory
        cdef Py_ssize_t k, count, bytes_of_state
        if self.levels == NULL or not are_rows(x, self.typenum, self.input_shape):
            return self._long_step(x, out)
        if out is not None:
            if not (are_rows(out, self.typenum, self.output_shape) and cnp.PyArray_ISWRITEABLE(out)):
                return self._long_step(x, out)
            target = target_of(out)
        self.enter()
        count = len(self.plans)
        for k in range(count):
            memory = <cnp.ndarray> self.states[k]
            bytes_of_state = cnp.PyArray_NBYTES(memory) // 2
            self.levels[k].call.initial_state = <char *> cnp.PyArray_DATA(memory) + self.side * bytes_of_state
            self.levels[k].call.state = <char *> cnp.PyArray_DATA(memory) + (1 - self.side) * bytes_of_state
        self.levels.call.x = cnp.PyArray_DATA(x)
        self.levels.call.x_batch_stride = cnp.PyArray_STRIDES(x)[0] // cnp.PyArray_ITEMSIZE(x)
        with nogil:
            climb(self.levels, count, self.scratch)
        self.side = 1 - self.side
        copy_rows(&target, <const char *> self.levels[count - 1].call.state)
        self.leave()
        return self._output if out is None else out

    cdef inline int enter(self) except -1:
        if exchange(&self.running, <void *> self) != NULL:
            raise RuntimeError("a stream does one thing at a time, got a call while another one is running")
        return 0

    cdef inline void leave(self) noexcept:
        exchange(&self.running, NULL)

    def _states(self):
        """The states themselves, each (batch, units)."""
        return [memory[self.side] for memory in self.states]


@cython.final
@cython.auto_pickle(False)
cdef class Alone:
    """Keeps other threads out of a stream while a block runs: they would read a state that is being written.

    No interrupt comes between a class of this module, which Python's own could not promise, and the block.
    """

    cdef Steps stream

    def __init__(self, Steps stream):
        self.stream = stream

    def __enter__(self):
        self.stream.enter()

    def __exit__(self, *_):
        self.stream.leave()


@cython.auto_pickle(False)
cdef class Slots:
    """The states of many rows, slots, in layers on top of each other, and a step of some of them.

    A slot has a number that no other has before or after it: its place plus a multiple of the capacity.
    `cdef` methods want the GIL, or a critical section of the pool.

    Parameters
    ----------
    plans : tuple of Plan
        From the lowest layer on; none: every step takes `_long_step`, the long way.
    states : tuple of ndarray, each (capacity, units), C-contiguous
        Taken over, not copied. With plans, all arrays are of their dtype.
    """

    cdef tuple plans
    cdef tuple states
    cdef readonly Py_ssize_t capacity
    cdef Py_ssize_t count                               # of open slots
    cdef Py_ssize_t free_count
    cdef cnp.ndarray free                               # places, the next to be given last
    cdef cnp.ndarray numbers                            # of the slot at a place; closed: -1 - the next one's
    cdef cnp.ndarray busy                               # is a step running?
    cdef int typenum
    cdef Memory *spare                                  # of a step before, for the next one

    def __init__(self, tuple plans, tuple states):
        cdef Py_ssize_t capacity = states[0].shape[0]
        if self.states is not None:
            raise RuntimeError("__init__ must be called once")
        self.states = states
        self.typenum = cnp.PyArray_TYPE(<cnp.ndarray> states[0])
        self.free = np.arange(capacity - 1, -1, -1)
        self.numbers = -1 - np.arange(capacity, dtype=np.int64)
        self.busy = np.zeros(capacity, np.uint8)
        self.plans, self.free_count, self.capacity = plans, capacity, capacity

    def __dealloc__(self):
        PyMem_RawFree(self.spare)

    def __reduce__(self):
        raise TypeError(f"cannot pickle {type(self).__name__!r}: pickle the state of each slot, and the layer")

    def __len__(self):
        return self.count

    cdef inline Py_ssize_t place(self, long long slot) noexcept:
        """Where the state of an open slot lies, or -1."""
        cdef Py_ssize_t place = slot % self.capacity if slot >= 0 and self.capacity else -1
        if place >= 0 and (<cnp.int64_t *> cnp.PyArray_DATA(self.numbers))[place] != slot:
            return -1
        return place

    cdef Py_ssize_t claim(self, const cnp.int64_t *slots, Py_ssize_t count, Py_ssize_t *places) noexcept:
        """Keep others away from the slots, unless one of them is not open or busy: its index, or -1."""
        cdef Py_ssize_t i
        for i in range(count):
            places[i] = self.place(slots[i])
            if places[i] < 0 or (<unsigned char *> cnp.PyArray_DATA(self.busy))[places[i]]:
                self.release(places, i)
                return i
            (<unsigned char *> cnp.PyArray_DATA(self.busy))[places[i]] = True
        return -1

    cdef void release(self, const Py_ssize_t *places, Py_ssize_t count) noexcept:
        """After `claim`: a place whose slot has been closed meanwhile is free now."""
        cdef Py_ssize_t i
        for i in range(count):
            (<unsigned char *> cnp.PyArray_DATA(self.busy))[places[i]] = False
            if (<cnp.int64_t *> cnp.PyArray_DATA(self.numbers))[places[i]] < 0:
                self.set_free(places[i])

    cdef void set_free(self, Py_ssize_t place) noexcept:
        (<Py_ssize_t *> cnp.PyArray_DATA(self.free))[self.free_count] = place
        self.free_count += 1

    def step(self, slots, x, out=None):
        """Advance some slots by one step, as one batch.

        Parameters
        ----------
        slots : array_like of int, shape (n,)
            Their numbers, each once, in any order; none is allowed. An array of int64 is read in place.
        x : ndarray, shape (n, features)
            The input of each. Of the layer's dtype it is read in place; other float types are cast.
        out : ndarray, shape (n, units), optional
            Where to write the outputs: of the layer's dtype.

        Returns
        -------
        ndarray, shape (n, units)
            The output of each: `out`, or a new array.

        Raises
        ------
        ValueError
            If a slot is not open, there twice, or in another thread's step; a shape does not fit; or `out`
            has another dtype or is read-only.
        TypeError
            If slots are no integers, or an array is none, or not of floats.
        """
        cdef cnp.npy_intp shape[2]
        cdef Py_ssize_t n, k, bad, depth
        cdef size_t levels_size, places_size, climb_size, states_size = 0
        cdef cnp.ndarray output
        cdef Target target
        cdef Memory *memory
        cdef Level *levels
        cdef Py_ssize_t *places
        cdef char *scratch
        cdef char *rows
        if not (
            self.plans and (is_plain(slots, 1, cnp.NPY_LONG) or is_plain(slots, 1, cnp.NPY_LONGLONG))
            and cnp.PyArray_ITEMSIZE(slots) == 8 and cnp.PyArray_IS_C_CONTIGUOUS(slots)
            and cnp.PyArray_DIMS(slots)[0]
        ):
            return self._long_step(slots, x, out)
        n, depth = cnp.PyArray_DIMS(slots)[0], len(self.plans)
        shape[0], shape[1] = n, (<Plan> self.plans[0]).features
        if not are_rows(x, self.typenum, shape):
            return self._long_step(slots, x, out)
        shape[1] = (<Plan> self.plans[depth - 1]).units
        if out is None:
            output = cnp.PyArray_EMPTY(2, shape, self.typenum, 0)
        elif are_rows(out, self.typenum, shape) and cnp.PyArray_ISWRITEABLE(out):
            output = out
        else:
            return self._long_step(slots, x, out)
        target = target_of(output)

        # all that may fail, or run Python code, comes before `claim`
        levels_size = (depth * sizeof(Level) + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
        places_size = (n * sizeof(Py_ssize_t) + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
        climb_size = (scratch_of_step(self.plans, n) + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
        for k in range(depth):
            states_size += 2 * n * cnp.PyArray_STRIDES(<cnp.ndarray> self.states[k])[0]
        memory = take(&self.spare, levels_size + places_size + climb_size + states_size)
        levels = <Level *> scratch_of(memory)
        places = <Py_ssize_t *> (<char *> levels + levels_size)
        scratch = <char *> places + places_size
        prepare(levels, self.plans, n)
        rows = scratch + climb_size
        for k in range(depth):
            states_size = n * cnp.PyArray_STRIDES(<cnp.ndarray> self.states[k])[0]
            levels[k].call.initial_state, levels[k].call.state = rows, rows + states_size
            levels[k].call.turn = memory.turn
            rows += 2 * states_size
        memory.turn += 1
        levels.call.x = cnp.PyArray_DATA(x)
        levels.call.x_batch_stride = cnp.PyArray_STRIDES(x)[0] // cnp.PyArray_ITEMSIZE(x)
        with cython.critical_section(self):
            bad = self.claim(<const cnp.int64_t *> cnp.PyArray_DATA(slots), n, places)
            if bad < 0:
                for k in range(depth):
                    gather(<char *> levels[k].call.initial_state, self.states[k], places, n)
        if bad < 0:
            with nogil:
                climb(levels, depth, scratch)
            with cython.critical_section(self):
                for k in range(depth):
                    scatter(self.states[k], <const char *> levels[k].call.state, True, places, n)
                self.release(places, n)
            copy_rows(&target, <const char *> levels[depth - 1].call.state)
        give_back(&self.spare, memory)
        if bad >= 0:
            self._complain(slots, bad)
            return NotImplemented
        return output

    # ---- the parts of a step, and what else becomes of slots; by number, states are (n, units) ---

    @cython.critical_section
    def _open(self, tuple states):
        """The number of a new slot whose states, each (units,), are these; -1: none is free."""
        cdef cnp.int64_t *numbers = <cnp.int64_t *> cnp.PyArray_DATA(self.numbers)
        cdef Py_ssize_t k, place
        if self.free_count == 0:
            return -1
        self.free_count -= 1
        place = (<Py_ssize_t *> cnp.PyArray_DATA(self.free))[self.free_count]
        numbers[place] = -1 - numbers[place]
        self.count += 1
        for k in range(len(states)):
            scatter(self.states[k], <const char *> cnp.PyArray_DATA(<cnp.ndarray> states[k]), False, &place, 1)
        return numbers[place]

    @cython.critical_section
    def _close(self, long long slot):
        """Was the slot open? Its place is free at once, or when its step ends."""
        cdef Py_ssize_t place = self.place(slot)
        if place < 0:
            return False
        (<cnp.int64_t *> cnp.PyArray_DATA(self.numbers))[place] = -1 - (slot + self.capacity)
        self.count -= 1
        if not (<unsigned char *> cnp.PyArray_DATA(self.busy))[place]:
            self.set_free(place)
        return True

    @cython.critical_section
    def _was_open(self, long long slot):
        """Has there been a slot of that number?"""
        cdef cnp.int64_t number
        if slot < 0 or self.capacity == 0:
            return False
        number = (<cnp.int64_t *> cnp.PyArray_DATA(self.numbers))[slot % self.capacity]
        return slot < (number if number >= 0 else -1 - number)

    def _state(self, long long slot):
        """Copies of the states of a slot, each (units,), as its last step left them; None if it is not open."""
        rows = [np.empty(state.shape[1], state.dtype) for state in self.states]
        cdef Py_ssize_t k, place
        with cython.critical_section(self):
            place = self.place(slot)
            if place >= 0:
                for k in range(len(rows)):
                    gather(<char *> cnp.PyArray_DATA(<cnp.ndarray> rows[k]), self.states[k], &place, 1)
        return rows if place >= 0 else None

    def _rows(self, places):
        """Copies of the states at these places."""
        return [state[places] for state in self.states]

    @cython.critical_section
    def _set_rows(self, cnp.ndarray places, tuple states):
        """What the states at these places become: each (n, units), or (units,) for all, C-contiguous."""
        cdef cnp.ndarray rows
        cdef Py_ssize_t k
        for k in range(len(states)):  # not by NumPy: it may drop the GIL, and others see half of a state
            rows = states[k]
            scatter(
                self.states[k], <const char *> cnp.PyArray_DATA(rows), cnp.PyArray_NDIM(rows) == 2,
                <const Py_ssize_t *> cnp.PyArray_DATA(places), cnp.PyArray_DIMS(places)[0])


@cython.final
@cython.auto_pickle(False)
cdef class Claim:
    """Keeps others away from slots, (n,) of int64, while a block runs, which gets their places. None: all open.

    No interrupt comes between it and the block, as for `Alone`.
    """

    cdef Slots pool
    cdef cnp.ndarray slots
    cdef cnp.ndarray places

    def __init__(self, Slots pool, cnp.ndarray slots):
        self.pool, self.slots = pool, slots

    def __enter__(self):
        cdef Slots pool = self.pool
        cdef cnp.ndarray chosen = np.empty(pool.capacity, np.int64) if self.slots is None else self.slots
        cdef cnp.ndarray places = np.empty(chosen.shape[0], np.intp)
        cdef const cnp.int64_t *numbers = <const cnp.int64_t *> cnp.PyArray_DATA(pool.numbers)
        cdef cnp.int64_t *wanted = <cnp.int64_t *> cnp.PyArray_DATA(chosen)
        cdef Py_ssize_t bad, place, n = chosen.shape[0]
        with cython.critical_section(pool):
            if self.slots is None:  # here, where no one opens or closes slots before they are claimed
                n = 0
                for place in range(pool.capacity):
                    if numbers[place] >= 0:
                        wanted[n] = numbers[place]
                        n += 1
            bad = pool.claim(wanted, n, <Py_ssize_t *> cnp.PyArray_DATA(places))
        if bad >= 0:
            pool._complain(chosen, bad)
        self.places = places[:n]
        return self.places

    def __exit__(self, *_):
        with cython.critical_section(self.pool):
            self.pool.release(<const Py_ssize_t *> cnp.PyArray_DATA(self.places), self.places.shape[0])


cdef inline void gather(
    char *rows, cnp.ndarray states, const Py_ssize_t *places, Py_ssize_t count,
) noexcept:
    """rows, (count, units), := the states at these places."""
    cdef size_t width = cnp.PyArray_STRIDES(states)[0]
    cdef Py_ssize_t i
    for i in range(count):
        memcpy(rows + i * width, <char *> cnp.PyArray_DATA(states) + places[i] * width, width)


cdef inline void scatter(
    cnp.ndarray states, const char *rows, bint each, const Py_ssize_t *places, Py_ssize_t count,
) noexcept:
    """The states at these places := rows, (count, units), or (units,) unless there is one for each."""
    cdef size_t width = cnp.PyArray_STRIDES(states)[0], stride = width if each else 0
    cdef Py_ssize_t i
    for i in range(count):
        memcpy(<char *> cnp.PyArray_DATA(states) + places[i] * width, rows + i * stride, width)
