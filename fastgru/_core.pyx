# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: cdivision=True, autotestdict=False, embedsignature=False, freethreading_compatible=True
"""The heart of the compiled half: weights ready to run (Plan), networks of them, and the calls of layers.

Trusts its callers: whatever a user can get wrong has been found by the Python half.

Without a GIL, too: a Network is not written into but for its spare memory, which is exchanged in one piece.
"""

from cpython.mem cimport PyMem_RawFree
from libc.string cimport memcpy, memset

cimport cython
cimport numpy as cnp
import numpy as np

from fastgru._arrays cimport has_shape, is_plain, is_state, overlap, stride
from fastgru._arrays cimport rows_are_whole as are_whole
from fastgru._blas_engine cimport refer_to
from fastgru._engine cimport (
    FASTGRU_ACTIVATION_COUNT,
    FASTGRU_AVE,
    FASTGRU_CAST,
    FASTGRU_CHAINS,
    FASTGRU_GRU,
    FASTGRU_MUL,
    FASTGRU_SUM,
    fastgru_activation_names,
    fastgru_cast,
    fastgru_connect,
    fastgru_functions,
    fastgru_kernels,
    fastgru_kernels_at,
    fastgru_layer,
    fastgru_node,
    fastgru_pack,
    fastgru_packed_size,
    fastgru_run_network,
    fastgru_run_of,
    fastgru_value,
    fastgru_workspace,
)
from fastgru._memory cimport (
    ALIGNMENT,
    Memory,
    aligned,
    allocate,
    allocated,
    exchange,
    give_back,
    scratch_of,
    take,
)

cnp.import_array()

cdef extern from *:
    Py_ssize_t Py_REFCNT(object) noexcept

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
    return tuple(isa for isa in isas() if kernels_of(isa).f16.step != NULL)


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


def rows_are_whole(cnp.ndarray array):
    """Does the last axis lie side by side, and does every row start at an element?"""
    return are_whole(array)


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

    def __init__(
        self, cnp.ndarray kernel, cnp.ndarray recurrent_kernel, cnp.ndarray bias, bint reset_after,
        tuple activation, tuple recurrent_activation, str engine, isa=None, bint float16=False,
    ):
        cdef const fastgru_kernels *kernels = kernels_of(isa)
        self.isa, self.engine, self.typenum = kernels.isa.decode(), engine, cnp.PyArray_TYPE(kernel)
        self.features, self.units, self.reset_after = kernel.shape[0], recurrent_kernel.shape[0], reset_after
        self.ready.layer.features, self.ready.layer.units = self.features, self.units
        self.ready.layer.reset_after = reset_after
        self.ready.layer.activation, self.ready.layer.alpha = ACTIVATION_IDS[activation[0]], activation[1]
        self.ready.layer.recurrent_activation = ACTIVATION_IDS[recurrent_activation[0]]
        self.ready.layer.recurrent_alpha = recurrent_activation[1]
        if engine == "packed":
            self.ready.layer.kernels = &kernels.f16 if float16 else (
                &kernels.f32 if kernel.itemsize == 4 else &kernels.f64)
            self.arrays = pack(&self.ready.layer, kernel, recurrent_kernel, bias)
        else:
            self.ready.functions = &kernels.f32_functions if kernel.itemsize == 4 else &kernels.f64_functions
            self.arrays = refer_to(&self.ready, kernel, recurrent_kernel, bias)

    @property
    def nbytes(self):
        """Bytes of the weights as they are read."""
        if self.engine == "packed":
            return fastgru_packed_size(&self.ready.layer)
        return sum(array.nbytes for array in self.arrays)


cdef tuple pack(fastgru_layer *layer, cnp.ndarray kernel, cnp.ndarray recurrent_kernel, cnp.ndarray bias):
    """Have a layer, whose settings are there, compute with a copy of these weights; the arrays to be kept."""
    cdef cnp.ndarray packed = np.empty(fastgru_packed_size(layer) + ALIGNMENT, np.uint8)
    fastgru_pack(
        layer, cnp.PyArray_DATA(kernel), cnp.PyArray_DATA(recurrent_kernel),
        NULL if bias is None else cnp.PyArray_DATA(bias), aligned(cnp.PyArray_DATA(packed)))
    return (packed,)


# ---- networks ------------------------------------------------------------------------------


cdef size_t TOO_LARGE = <size_t> -1

cdef dict KINDS = {"cast": FASTGRU_CAST, "sum": FASTGRU_SUM, "mul": FASTGRU_MUL, "ave": FASTGRU_AVE}


cdef cnp.ndarray converted(cnp.ndarray array, int typenum):
    """A C-contiguous array of another float type; what it can't hold is infinite. None: it is no float array."""
    cdef cnp.ndarray result
    cdef int last = cnp.PyArray_NDIM(array) - 1
    cdef int kind = cnp.PyArray_TYPE(array)
    cdef Py_ssize_t n, size = cnp.PyArray_ITEMSIZE(array), gap
    cdef char *target
    cdef cnp.flatiter rows
    if not (
        (kind == cnp.NPY_FLOAT or kind == cnp.NPY_DOUBLE or kind == cnp.NPY_FLOAT16)
        and cnp.PyArray_ISNOTSWAPPED(array)
    ):
        return None
    result = cnp.PyArray_EMPTY(last + 1, cnp.PyArray_DIMS(array), typenum, 0)
    target = <char *> cnp.PyArray_DATA(result)
    n, gap = cnp.PyArray_DIMS(array)[last], cnp.PyArray_STRIDES(array)[last]
    if cnp.PyArray_SIZE(array) == 0:
        return result
    if cnp.PyArray_IS_C_CONTIGUOUS(array):
        fastgru_cast(cnp.PyArray_SIZE(array), cnp.PyArray_DATA(array), size, size, target,
                     cnp.PyArray_ITEMSIZE(result))
        return result
    rows = cnp.PyArray_IterAllButAxis(array, &last)
    while cnp.PyArray_ITER_NOTDONE(rows):
        fastgru_cast(n, cnp.PyArray_ITER_DATA(rows), size, gap, target, cnp.PyArray_ITEMSIZE(result))
        target += n * cnp.PyArray_ITEMSIZE(result)
        cnp.PyArray_ITER_NEXT(rows)
    return result


cdef bint copy_lengths(lengths, Py_ssize_t batch, Py_ssize_t timesteps, Py_ssize_t *steps) except -1:
    """steps, (batch,), := lengths from 0 to timesteps; False if they are to be converted or complained of."""
    cdef Py_ssize_t i, gap
    cdef const char *data
    if type(lengths) is list or type(lengths) is tuple:
        if len(lengths) != batch:
            return False
        for i in range(batch):
            if i >= len(lengths) or type(lengths[i]) is not int or not 0 <= lengths[i] <= timesteps:
                return False
            steps[i] = lengths[i]
        return True
    if not is_plain(lengths, 1, cnp.NPY_INTP) or cnp.PyArray_DIMS(<cnp.ndarray> lengths)[0] != batch:
        return False
    data = <const char *> cnp.PyArray_DATA(<cnp.ndarray> lengths)
    gap = cnp.PyArray_STRIDES(<cnp.ndarray> lengths)[0]
    for i in range(batch):  # copied first, for another thread may write into what was given
        steps[i] = (<const Py_ssize_t *> (data + i * gap))[0]
        if not 0 <= steps[i] <= timesteps:
            return False
    return True


@cython.final
@cython.auto_pickle(False)
cdef class Network:
    """Nodes in running order over packed weights; immutable, shared by any number of threads.

    Parameters
    ----------
    features : int
        Width of the input.
    dtype : dtype
        Of the input.
    values : sequence of (int, dtype, bool)
        What nodes write, from number 1 on: width, type, and whether of the last step alone. Number 0 is the input.
    nodes : sequence of tuple
        ("gru", Plan, input, output, column, go_backwards, turned, zero_output_for_mask, state): `column` is where
        its units begin in the output's width, `turned` whether outputs are written from the last timestep on,
        `state` the number of its state. ("cast", input, output). ("sum", "mul" or "ave", input, other, output).
    outputs : sequence of int
        The values that a call returns.
    time_major, return_state : bool
        Of a call.
    optional : bool
        May a call be given None in place of one of several initial states?
    chunk_bytes, chunk_steps : int
        Of what nodes hand to each other; 0: as many as stay in the cache.
    """

    def __init__(
        self, Py_ssize_t features, dtype, values, nodes, outputs, bint time_major, bint return_state,
        bint optional=False, size_t chunk_bytes=0, Py_ssize_t chunk_steps=0,
    ):
        cdef int i, kinds = len(nodes), count = len(values) + 1
        cdef fastgru_node *node
        cdef Plan plan
        if self.net.nodes != NULL:
            raise RuntimeError("__init__ must be called once")
        grus = [each for each in nodes if each[0] == "gru"]
        self.net.nodes = <fastgru_node *> allocated(kinds * sizeof(fastgru_node))
        self.net.values = <fastgru_value *> allocated(count * sizeof(fastgru_value))
        self.state_units = <Py_ssize_t *> allocated(len(grus) * sizeof(Py_ssize_t))
        self.state_types = <int *> allocated(len(grus) * sizeof(int))
        self.net.node_count, self.net.value_count, self.net.state_count = kinds, count, len(grus)
        self.features, self.dtype, self.typenum = features, np.dtype(dtype), np.dtype(dtype).num
        self.time_major, self.return_state, self.optional = time_major, return_state, optional
        dtypes = [np.dtype(dtype)] + [np.dtype(each[1]) for each in values]
        self.net.values[0].width, self.net.values[0].itemsize = features, dtypes[0].itemsize
        for i in range(1, count):
            self.net.values[i].width, self.net.values[i].itemsize = values[i - 1][0], dtypes[i].itemsize
            self.net.values[i].last = values[i - 1][2]
        plans = [None] * len(grus)
        for i in range(kinds):
            node, each = &self.net.nodes[i], nodes[i]
            if each[0] == "gru":
                plan, node.kind = each[1], FASTGRU_GRU
                node.layer = &plan.ready.layer
                node.input, node.output, node.column, node.go_backwards, node.turned = each[2:7]
                node.zero_output_for_mask, node.state = each[7:9]
                plans[node.state] = plan
                self.state_units[node.state], self.state_types[node.state] = plan.units, plan.typenum
            else:
                node.kind, node.input, node.output = KINDS[each[0]], each[1], each[len(each) - 1]
                node.other = each[2]
        self.plans = tuple(plans)
        self.net.output_count = len(outputs)
        for i in range(len(outputs)):
            self.net.outputs[i], self.output_types[i] = outputs[i], dtypes[outputs[i]].num
        self.net.chunk_bytes, self.net.chunk_steps = chunk_bytes, chunk_steps
        self.flags = time_major, not self.net.values[self.net.outputs[0]].last, return_state
        if fastgru_connect(&self.net):
            raise ValueError("nodes must be in running order")

    def __dealloc__(self):
        PyMem_RawFree(self.net.nodes)
        PyMem_RawFree(self.net.values)
        PyMem_RawFree(self.state_units)
        PyMem_RawFree(self.state_types)
        PyMem_RawFree(self.spare)
        PyMem_RawFree(self.spare_lengths)

    cpdef call(self, x, initial_state, mask, lengths, out, list states=None):
        """What a layer's call returns; NotImplemented if Python is to convert an argument, or to complain of one.

        Parameters
        ----------
        x : ndarray, shape (batch, timesteps, features), or the first two swapped if `time_major`
            Of any float type.
        initial_state : ndarray, list or tuple of ndarrays, or None
            (batch, units) each, of the type that is computed in, C-contiguous.
        mask : bool ndarray or None
            (batch, timesteps), time-major as x; False: the row does not take part in the step.
        lengths : list of int, intp ndarray or None
            (batch,): in place of a mask that is true at so many first steps of each row.
        out : ndarray or None
            Overwritten by the output, if there is one.
        states : list, optional
            Overwritten with the last states, in the arrays that it holds, if there are such.
        """
        cdef fastgru_run_of run
        cdef cnp.npy_intp shape[3]
        cdef cnp.npy_intp state_shape[2]
        cdef cnp.npy_intp *sizes
        cdef cnp.ndarray array, output
        cdef Memory *steps = NULL
        cdef int i, axes, batch_axis = self.time_major, time_axis = not self.time_major
        cdef int count = self.net.state_count, outputs = self.net.output_count
        cdef fastgru_value *value
        cdef list results = None, last = None
        cdef tuple given = None
        if not cnp.PyArray_CheckExact(x) or cnp.PyArray_NDIM(<cnp.ndarray> x) != 3:
            return NotImplemented
        array = <cnp.ndarray> x
        sizes = cnp.PyArray_DIMS(array)
        if sizes[time_axis] == 0 or sizes[2] != self.features:
            return NotImplemented
        if not is_plain(array, 3, self.typenum) or not are_whole(array):
            array = converted(array, self.typenum)
            if array is None:
                return NotImplemented
            sizes = cnp.PyArray_DIMS(array)
        shape[0], shape[1] = sizes[0], sizes[1]
        state_shape[0] = sizes[batch_axis]
        if mask is not None and (
            lengths is not None or not (is_plain(mask, 2, cnp.NPY_BOOL) and has_shape(mask, shape))
        ):
            return NotImplemented

        # states that are given
        if initial_state is None:
            pass
        elif count == 1 and cnp.PyArray_CheckExact(initial_state):
            state_shape[1] = self.state_units[0]
            if not is_state(initial_state, self.state_types[0], state_shape):
                return NotImplemented
        elif type(initial_state) is list or type(initial_state) is tuple:
            given = tuple(initial_state)  # which nobody changes meanwhile
            if len(given) != count:
                return NotImplemented
            for i in range(count):
                state_shape[1] = self.state_units[i]
                if given[i] is None and self.optional:
                    continue
                if not is_state(given[i], self.state_types[i], state_shape):
                    return NotImplemented
        else:
            return NotImplemented

        # what is returned: no allocation may fail once anything has been overwritten
        if outputs > 1 or self.return_state:
            results = []
        for i in range(outputs):
            value = &self.net.values[self.net.outputs[i]]
            axes, shape[2 - value.last] = 3 - value.last, value.width
            if value.last:
                shape[0] = state_shape[0]
            if out is None:
                output = cnp.PyArray_EMPTY(axes, shape, self.output_types[i], 0)
            elif (
                outputs == 1 and is_plain(out, axes, self.output_types[i])
                and cnp.PyArray_ISWRITEABLE(<cnp.ndarray> out) and has_shape(out, shape)
                and are_whole(out) and not touches(out, x, initial_state, given, mask, lengths)
            ):
                output = <cnp.ndarray> out
            else:
                return NotImplemented
            if results is not None:
                results.append(output)
            direct(self, &run, i, output)
        if self.return_state:
            results += self.new_states(state_shape[0])
        if states is not None:
            if not self.can_write(states, state_shape[0]):
                states[:] = self.new_states(state_shape[0])
            last = states
        elif self.return_state:
            last = results[outputs:]

        describe(self, &run, array, mask)
        if lengths is not None:
            steps = take(&self.spare_lengths, run.batch * sizeof(Py_ssize_t))
            run.lengths = <const Py_ssize_t *> scratch_of(steps)
        try:
            if steps != NULL and not copy_lengths(lengths, run.batch, run.timesteps, <Py_ssize_t *> run.lengths):
                return NotImplemented
            if run.batch:
                self.execute(&run, given, initial_state, last)
        finally:
            if steps != NULL:
                give_back(&self.spare_lengths, steps)
        if states is not None and self.return_state:
            for i in range(count):
                copy_state(results[outputs + i], last[i])
        return output if results is None else results

    cdef list new_states(self, Py_ssize_t batch):
        """Arrays for the last states of all GRUs."""
        cdef cnp.npy_intp shape[2]
        cdef int i
        cdef list states = []
        shape[0] = batch
        for i in range(self.net.state_count):
            shape[1] = self.state_units[i]
            states.append(cnp.PyArray_EMPTY(2, shape, self.state_types[i], 0))
        return states

    cdef bint can_write(self, list states, Py_ssize_t batch) noexcept:
        """True of arrays that last states fit into."""
        cdef cnp.npy_intp shape[2]
        cdef int i
        shape[0] = batch
        if len(states) != self.net.state_count:
            return False
        for i in range(self.net.state_count):
            shape[1] = self.state_units[i]
            if not is_state(states[i], self.state_types[i], shape):
                return False
        return True

    def run(self, cnp.ndarray x, tuple initial_states, tuple states, tuple out, mask=None, lengths=None):
        """Run a call of arrays that are known to be right and share no memory.

        Parameters
        ----------
        x : ndarray, shape (batch, timesteps, features), or the first two swapped if `time_major`
            Of the network's dtype, the last axis contiguous.
        initial_states : tuple of ndarray or None
            (batch, units) each, C-contiguous; None: zeros.
        states : tuple of ndarray or None
            (batch, units) each, C-contiguous: overwritten with the last ones. None: not wanted.
        out : tuple of ndarray
            Overwritten with the outputs; the last axis contiguous.
        mask : bool ndarray or None
            (batch, timesteps), time-major as x.
        lengths : intp ndarray or None
            (batch,), C-contiguous, from 0 to timesteps.
        """
        cdef fastgru_run_of run
        cdef int i
        for i in range(len(out)):
            direct(self, &run, i, out[i])
        describe(self, &run, x, mask)
        if lengths is not None:
            run.lengths = <const Py_ssize_t *> cnp.PyArray_DATA(<cnp.ndarray> lengths)
        self.execute(&run, initial_states, None, list(states))

    cdef int execute(self, fastgru_run_of *run, tuple given, initial_state, list last) except -1:
        """Run what has been described, from given states, or from the one of a network that has one."""
        cdef int i, count = self.net.state_count
        cdef size_t bytes, tables = (2 * count * sizeof(void *) + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
        cdef bint masked = run.mask != NULL
        cdef Memory *memory = <Memory *> exchange(<void **> &self.spare, NULL)
        cdef void **table
        if (
            memory == NULL or memory.batch != run.batch or memory.timesteps != run.timesteps
            or memory.masked != masked or memory.out_stride != run.out_batch_stride[0] or run.lengths != NULL
        ):
            bytes = fastgru_workspace(&self.net, run)
            if bytes == TOO_LARGE:
                PyMem_RawFree(memory)
                raise MemoryError()
            if memory == NULL or memory.size < tables + bytes:
                PyMem_RawFree(memory)
                memory = allocate(tables + bytes)
            memory.batch, memory.masked, memory.out_stride = run.batch, masked, run.out_batch_stride[0]
            memory.timesteps = 0 if run.lengths != NULL else run.timesteps
        table = <void **> scratch_of(memory)
        for i in range(count):
            table[i] = table[count + i] = NULL
            if given is not None:
                if given[i] is not None:
                    table[i] = cnp.PyArray_DATA(<cnp.ndarray> given[i])
            elif initial_state is not None:
                table[i] = cnp.PyArray_DATA(<cnp.ndarray> initial_state)
            if last is not None and last[i] is not None:
                table[count + i] = cnp.PyArray_DATA(<cnp.ndarray> last[i])
        run.initial_states, run.states = <const void *const *> table, <void *const *> table + count
        run.memory, run.walk = <char *> table + tables, memory.walk
        with nogil:
            fastgru_run_network(&self.net, run)
        memory.walk = run.walk
        give_back(&self.spare, memory)
        return 0


cdef inline void direct(Network self, fastgru_run_of *run, int i, cnp.ndarray output) noexcept:
    """Say where an output lies."""
    cdef bint last = self.net.values[self.net.outputs[i]].last
    run.out[i] = cnp.PyArray_DATA(output)
    run.out_batch_stride[i] = stride(output, 0 if last else self.time_major)
    run.out_time_stride[i] = 0 if last else stride(output, not self.time_major)


cdef inline void describe(Network self, fastgru_run_of *run, cnp.ndarray x, mask) noexcept:
    """Say where the input and the mask lie; there are no lengths."""
    cdef int batch_axis = self.time_major, time_axis = not self.time_major
    run.batch, run.timesteps = cnp.PyArray_DIMS(x)[batch_axis], cnp.PyArray_DIMS(x)[time_axis]
    run.x = cnp.PyArray_DATA(x)
    run.x_batch_stride, run.x_time_stride = stride(x, batch_axis), stride(x, time_axis)
    run.mask, run.mask_batch_stride, run.mask_time_stride, run.lengths = NULL, 0, 0, NULL
    if mask is not None:
        run.mask = <const unsigned char *> cnp.PyArray_DATA(<cnp.ndarray> mask)
        run.mask_batch_stride = cnp.PyArray_STRIDES(<cnp.ndarray> mask)[batch_axis]
        run.mask_time_stride = cnp.PyArray_STRIDES(<cnp.ndarray> mask)[time_axis]


cdef inline void copy_state(cnp.ndarray to, cnp.ndarray array) noexcept:
    memcpy(cnp.PyArray_DATA(to), cnp.PyArray_DATA(array), cnp.PyArray_NBYTES(array))


cdef bint touches(cnp.ndarray out, x, initial_state, tuple given, mask, lengths) noexcept:
    """May an array share memory with one that is read?"""
    cdef object state
    if overlap(out, x) or overlap(out, mask):
        return True
    if cnp.PyArray_CheckExact(lengths) and overlap(out, lengths):
        return True
    if given is not None:
        for state in given:
            if overlap(out, state):
                return True
        return False
    return initial_state is not None and overlap(out, initial_state)


cdef enum:
    LONG
    PLAIN
    RECORDS


@cython.auto_pickle(False)
cdef class Caller:
    """What a layer is called through: the short way of every call that needs no conversion in Python.

    It runs the layer's network, which `_long_call` makes, as long as nothing that went into it has been set anew.
    """

    cdef Network network
    cdef long long version
    cdef long long own                                  # the version that the network was made of, and
    cdef tuple others                                   # other layers that are in it, with theirs
    cdef long long *versions
    cdef int way                                        # what kind of call is short
    cdef public object _lock
    cdef public object _state                           # a recorded one, or None
    cdef object other_state                             # memory for the next one, which nobody else has

    def __dealloc__(self):
        PyMem_RawFree(self.versions)

    @cython.critical_section
    cdef Network current(self):
        """The network, unless it is none any more."""
        cdef Py_ssize_t i
        if self.network is None or self.version != self.own:
            return None
        for i in range(len(self.others)):
            if (<Caller> self.others[i]).version != self.versions[i]:
                return None
        return self.network

    def _current_network(self):
        """The network that calls run, or None: it is to be made anew."""
        return self.current()

    def _changed(self):
        """Have networks made anew that have weights or flags of this layer in them."""
        self.version += 1

    def _versions(self, tuple others):
        """What `_keep_network` wants, taken before weights and flags are read."""
        cdef Caller each
        found = [self.version]
        for each in others:
            found.append(each.version)
        return found

    @cython.critical_section
    def _keep_network(self, Network network, tuple others, list versions, str way):
        """Have calls run this network until this layer, or one of those in it, changes.

        Short are calls 'plain', or of a layer that 'records' its state; None: none is.
        """
        cdef Py_ssize_t i
        cdef long long *taken = <long long *> allocated(len(others) * sizeof(long long))
        for i in range(len(others)):
            taken[i] = versions[1 + i]
        PyMem_RawFree(self.versions)
        self.network, self.own, self.others, self.versions = network, versions[0], others, taken
        self.way = LONG if way is None else PLAIN if way == "plain" else RECORDS

    def __call__(self, inputs, initial_state=None, mask=None, training=None, *, lengths=None, out=None):
        cdef Network network = self.current()
        cdef list states
        cdef object x, state
        if network is not None and self.way != LONG and (training is None or training is False):
            x, state = inputs, initial_state
            if type(inputs) is list and len(inputs) > 0:
                x = inputs[0]
                if len(inputs) > 1:
                    state = inputs[1:] if initial_state is None else NotImplemented
            if self.way == PLAIN:
                results = network.call(x, state, mask, lengths, out)
                if results is not NotImplemented:
                    return results
            elif state is None:
                with self._lock:
                    if self._state is not None:
                        states = [self.other_state]
                        self.other_state = None
                        results = network.call(x, self._state, mask, lengths, out, states)
                        if results is not NotImplemented:
                            old, self._state = self._state, states[0]
                            if Py_REFCNT(old) == 1:
                                self.other_state = old
                            return results
        return self._long_call(inputs, initial_state, mask, training, lengths, out)


@cython.final
@cython.auto_pickle(False)
cdef class Holding:
    """Holds locks, taken in their order, while a block runs; leaving it takes no memory.

    No interrupt comes between a class of this module, which Python's own could not promise, and the block.
    """

    cdef tuple locks
    cdef Py_ssize_t held

    def __init__(self, locks):
        self.locks = tuple(locks)

    def __enter__(self):
        try:
            while self.held < len(self.locks):
                self.locks[self.held].acquire()
                self.held += 1
        except BaseException:
            self.release()
            raise

    def __exit__(self, *_):
        self.release()

    cdef int release(self) except -1:
        while self.held > 0:
            self.held -= 1
            self.locks[self.held].release()
        return 0


def commit(list changes, list changed):
    """Set attributes, (object, name, value), that objects have already; then have networks of layers made anew.

    Takes no memory: either all is done, or nothing.
    """
    cdef tuple change
    cdef Caller layer
    for change in changes:
        setattr(change[0], change[1], change[2])
    for layer in changed:
        layer.version += 1


cdef size_t workspace(Network network, const fastgru_run_of *run) noexcept:
    """Bytes of memory that a run takes."""
    return fastgru_workspace(&network.net, run)


cdef void run_network(Network network, fastgru_run_of *run) noexcept nogil:
    """Run what has been described."""
    fastgru_run_network(&network.net, run)


cdef Memory *prepared(
    Network network, Py_ssize_t rows, Py_ssize_t timesteps, fastgru_run_of *run, Memory **spare,
) except NULL:
    """Describe a run of rows without masks, whose states are told later, and take memory for it."""
    cdef Py_ssize_t count = network.net.state_count
    cdef size_t bytes, tables = (2 * count * sizeof(void *) + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
    cdef Memory *memory
    cdef char *scratch
    memset(run, 0, sizeof(run[0]))
    run.batch, run.timesteps = rows, timesteps
    bytes = fastgru_workspace(&network.net, run)
    if bytes == TOO_LARGE:
        raise MemoryError()
    memory = take(spare, tables + bytes)
    scratch = scratch_of(memory)
    run.initial_states, run.states = <const void *const *> scratch, <void *const *> scratch + count
    run.memory, run.walk = scratch + tables, memory.walk
    return memory
