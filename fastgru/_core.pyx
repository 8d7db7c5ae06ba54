# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: cdivision=True, autotestdict=False, embedsignature=False, freethreading_compatible=True
"""The central compiled module, linked with the C engine: Plan (weights ready to run), Network, and its calls.

Trusts its callers: the Python half has checked all user input.

Safe without a GIL, too: nothing in a Network changes but its spare memory, which is exchanged atomically.
"""

from cpython.mem cimport PyMem_RawFree
from libc.string cimport memset

cimport cython
cimport numpy as cnp
import numpy as np

from fastgru._arguments cimport converted, copy_lengths, only_item, touches
from fastgru._arrays cimport has_shape, is_plain, is_state, rows_are_whole, stride
from fastgru._blas_engine cimport refer_to
from fastgru._engine cimport (
    FASTGRU_ACTIVATION_COUNT, FASTGRU_AVE, FASTGRU_CAST, FASTGRU_GRU, FASTGRU_MUL, FASTGRU_SUM,
    fastgru_activation_names, fastgru_connect, fastgru_has_dot, fastgru_kernels, fastgru_kernels_at,
    fastgru_layer, fastgru_node, fastgru_pack, fastgru_packed_size, fastgru_run_network, fastgru_run_of,
    fastgru_value, fastgru_workspace,
)
from fastgru._memory cimport (
    ALIGNMENT, Memory, aligned, allocate, allocated, exchange, give_back, scratch_of, take,
)
from fastgru._states cimport add_states, are_states, copy_state, with_defaults

cnp.import_array()

cdef dict ACTIVATION_IDS = {
    fastgru_activation_names[i].decode(): i for i in range(FASTGRU_ACTIVATION_COUNT)
}


cdef const fastgru_kernels *kernels_at(int index) noexcept:
    """Kernels of the instruction sets that this machine can run, the fastest first; NULL after the last."""
    return fastgru_kernels_at(index)


cdef bint has_dot(const fastgru_kernels *kernels) noexcept:
    """True if this machine multiplies bytes with these."""
    return fastgru_has_dot(kernels)


cdef const fastgru_kernels *kernels_of(isa) except NULL:
    """Those of the named instruction set, or the fastest for None."""
    cdef int index = 0
    cdef const fastgru_kernels *row = fastgru_kernels_at(0)
    cdef list names = []
    if isa is None:
        return row
    while row != NULL:
        names.append(row.isa.decode())
        if names[index] == isa:
            return row
        index += 1
        row = fastgru_kernels_at(index)
    raise ValueError(f"isa must be one of {tuple(names)}, got {isa!r}")


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
    weights : {None, 'float16', 'int8'}
        Keep packed weights in that. They must be float32, with values that float16 can hold, or finite.
    scales : ndarray, shape (2, 3 * units), optional
        float32, of int8 weights: the step of each column of both kernels; by default the largest weight of the
        column divided by 127.
    dot : bool
        Multiply int8 weights as bytes if the machine can.
    """

    def __init__(
        self, cnp.ndarray kernel, cnp.ndarray recurrent_kernel, cnp.ndarray bias, bint reset_after,
        tuple activation, tuple recurrent_activation, str engine, isa=None, str weights=None,
        cnp.ndarray scales=None, bint dot=True,
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
            if weights == "int8":
                self.ready.layer.kernels = &kernels.i8_dot if dot and fastgru_has_dot(kernels) else &kernels.i8
                self.ready.layer.scales = (
                    NULL if scales is None else <float *> cnp.PyArray_DATA(scales))
            elif weights == "float16":
                self.ready.layer.kernels = &kernels.f16
            else:
                self.ready.layer.kernels = &kernels.f32 if kernel.itemsize == 4 else &kernels.f64
            self.arrays = pack(&self.ready.layer, kernel, recurrent_kernel, bias)
            self.ready.layer.scales = NULL
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
    """Pack these weights for a layer whose settings are set; returns the arrays to keep alive."""
    cdef cnp.ndarray packed = np.empty(fastgru_packed_size(layer) + ALIGNMENT, np.uint8)
    fastgru_pack(
        layer, cnp.PyArray_DATA(kernel), cnp.PyArray_DATA(recurrent_kernel),
        NULL if bias is None else cnp.PyArray_DATA(bias), aligned(cnp.PyArray_DATA(packed)))
    return (packed,)


# ---- networks ------------------------------------------------------------------------------


cdef size_t TOO_LARGE = <size_t> -1

cdef enum:
    FEW_LENGTHS = 32                                    # up to which they lie on the stack

cdef dict KINDS = {"cast": FASTGRU_CAST, "sum": FASTGRU_SUM, "mul": FASTGRU_MUL, "ave": FASTGRU_AVE}


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
        ("gru", Plan, input, output, column, go_backwards, reverse_output, zero_output_for_mask, state): `column`
        is where its units begin in the output's width, `reverse_output` is in time, `state` is the number of its
        state. ("cast", input, output). ("sum", "mul" or "ave", input, other, output).
    outputs : sequence of int
        The values that a call returns.
    time_major, return_state : bool
        Of a call.
    optional : bool
        True if one of several initial states of a call may be None.
    default_states : tuple of (ndarray or None), optional
        (1 or batch, units) each, as `initial_state`: the states of calls without any. None means zeros.
    chunk_bytes, chunk_steps : int
        Of the values between nodes; 0 means as many as stay in the cache.
    """

    def __init__(
        self, Py_ssize_t features, dtype, values, nodes, outputs, bint time_major, bint return_state,
        bint optional=False, tuple default_states=None, size_t chunk_bytes=0, Py_ssize_t chunk_steps=0,
    ):
        cdef int i, kinds = len(nodes), count = len(values) + 1
        cdef fastgru_node *node
        cdef Plan plan
        if self.net.nodes != NULL:
            raise RuntimeError("__init__ must be called once")
        grus = [each for each in nodes if each[0] == "gru"]
        self.net.nodes = <fastgru_node *> allocated(kinds * sizeof(fastgru_node))
        self.net.values = <fastgru_value *> allocated(count * sizeof(fastgru_value))
        self.states.units = <Py_ssize_t *> allocated(len(grus) * sizeof(Py_ssize_t))
        self.states.types = <int *> allocated(len(grus) * sizeof(int))
        self.net.node_count, self.net.value_count = kinds, count
        self.net.state_count = self.states.count = len(grus)
        self.features, self.dtype, self.typenum = features, np.dtype(dtype), np.dtype(dtype).num
        self.time_major, self.return_state, self.optional = time_major, return_state, optional
        self.default_states = default_states
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
                node.input, node.output, node.column, node.go_backwards, node.reverse_output = each[2:7]
                node.zero_output_for_mask, node.state = each[7:9]
                plans[node.state] = plan
                self.states.units[node.state], self.states.types[node.state] = plan.units, plan.typenum
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
        PyMem_RawFree(self.states.units)
        PyMem_RawFree(self.states.types)
        PyMem_RawFree(self.spare)
        PyMem_RawFree(self.spare_lengths)

    cpdef call(self, x, initial_state, mask, lengths, out, list states=None, Py_ssize_t first=0):
        """The result of a layer's call; NotImplemented if Python must convert or refuse an argument.

        Parameters
        ----------
        x : ndarray, shape (batch, timesteps, features), or the first two swapped if `time_major`
            Of any float type.
        initial_state : ndarray, list or tuple of ndarrays, or None
            (batch, units) each, of the compute dtype, C-contiguous.
        mask : bool ndarray or None
            (batch, timesteps), time-major if x is; where it is False, the row skips the step.
        lengths : list of int, intp ndarray or None
            (batch,): timesteps of each row, 0 to first + timesteps, in place of a mask that is true at these
            first ones of the sequence.
        out : ndarray or None
            Overwritten by the output, if there is one.
        states : list, optional
            Overwritten with the last states, in the arrays that it holds, if there are such.
        first : int
            The timestep of the sequence that x begins with: states are those of the timesteps before.
        """
        cdef fastgru_run_of run
        cdef cnp.npy_intp shape[3]
        cdef cnp.npy_intp state_shape[2]
        cdef cnp.npy_intp *sizes
        cdef cnp.ndarray array, output
        cdef Py_ssize_t few[FEW_LENGTHS]
        cdef Py_ssize_t *steps = few
        cdef int i, axes, batch_axis = self.time_major, time_axis = not self.time_major
        cdef int ended, count = self.net.state_count, outputs = self.net.output_count
        cdef fastgru_value *value
        cdef list results = None
        cdef tuple given = None
        cdef Memory *more = NULL
        if not cnp.PyArray_CheckExact(x) or cnp.PyArray_NDIM(<cnp.ndarray> x) != 3:
            return NotImplemented
        array = <cnp.ndarray> x
        sizes = cnp.PyArray_DIMS(array)
        if sizes[time_axis] == 0 or sizes[2] != self.features:
            return NotImplemented
        if not is_plain(array, 3, self.typenum) or not rows_are_whole(array):
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
        if count == 1 and cnp.PyArray_CheckExact(initial_state):
            if self.optional:  # of a Stack: it is to be in a list
                return NotImplemented
        elif count == 1 and initial_state is not None:
            initial_state = only_item(initial_state)
            if initial_state is None and not self.optional:
                return NotImplemented
        if initial_state is None:
            if self.default_states is not None:
                given = with_defaults(&self.states, None, self.default_states, state_shape[0])
                if given is None:
                    return NotImplemented
        elif cnp.PyArray_CheckExact(initial_state):
            if count > 1:
                return NotImplemented
            state_shape[1] = self.states.units[0]
            if not is_state(initial_state, self.states.types[0], state_shape):
                return NotImplemented
        elif type(initial_state) is list or type(initial_state) is tuple:
            given = tuple(initial_state)  # a copy: another thread may change a list
            if len(given) != count:
                return NotImplemented
            for i in range(count):
                state_shape[1] = self.states.units[i]
                if given[i] is None and self.optional:
                    continue
                if not is_state(given[i], self.states.types[i], state_shape):
                    return NotImplemented
            if self.default_states is not None:
                given = with_defaults(&self.states, given, self.default_states, state_shape[0])
                if given is None:
                    return NotImplemented
        else:
            return NotImplemented

        # what is returned: no allocation may fail once anything has been overwritten
        if outputs > 1 or self.return_state:
            results = [None] * (outputs + (count if self.return_state else 0))
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
                and rows_are_whole(out) and not touches(out, x, initial_state, given, mask, lengths)
            ):
                output = <cnp.ndarray> out
            else:
                return NotImplemented
            if results is not None:
                results[i] = output
            direct(self, &run, i, output)
        if self.return_state:
            add_states(&self.states, results, outputs, state_shape[0])
        if states is not None and not are_states(&self.states, states, state_shape[0]):
            states[:] = [None] * count
            add_states(&self.states, states, 0, state_shape[0])

        describe(self, &run, array, mask)
        if lengths is not None:
            if run.batch > FEW_LENGTHS:
                more = take(&self.spare_lengths, run.batch * sizeof(Py_ssize_t))
                steps = <Py_ssize_t *> scratch_of(more)
            run.lengths = steps
        try:
            if lengths is not None:
                run.first = first
                ended = copy_lengths(lengths, run.batch, first + run.timesteps, steps)
                if ended < 0:
                    return NotImplemented
                if not ended:
                    run.lengths = NULL
            if run.batch and states is not None:
                self.execute(&run, given, initial_state, states, 0)
            elif run.batch:
                self.execute(&run, given, initial_state, results if self.return_state else None, outputs)
        finally:
            if more != NULL:
                give_back(&self.spare_lengths, more)
        if states is not None and self.return_state:
            for i in range(count):
                copy_state(results[outputs + i], states[i])
        return output if results is None else results

    def run(
        self, cnp.ndarray x, tuple initial_states, tuple states, tuple out, mask=None, lengths=None,
        Py_ssize_t first=0,
    ):
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
            (batch,), C-contiguous, from 0 to first + timesteps.
        first : int
            As of `call`.
        """
        cdef fastgru_run_of run
        cdef int i
        for i in range(len(out)):
            direct(self, &run, i, out[i])
        describe(self, &run, x, mask)
        if lengths is not None:
            run.lengths, run.first = <const Py_ssize_t *> cnp.PyArray_DATA(<cnp.ndarray> lengths), first
        self.execute(&run, initial_states, None, list(states), 0)

    cdef int execute(
        self, fastgru_run_of *run, tuple given, initial_state, list last, int first,
    ) except -1:
        """Run a described call, from the states in `given`, or from `initial_state` of a network of one state.

        The last states are written to the arrays in `last` from the index `first` on, unless it is None.
        """
        cdef int i, count = self.net.state_count
        cdef Memory *memory = fitting(self, run, &self.spare, 0)
        cdef void **table = <void **> run.initial_states
        for i in range(count):
            table[i] = table[count + i] = NULL
            if given is not None:
                if given[i] is not None:
                    table[i] = cnp.PyArray_DATA(<cnp.ndarray> given[i])
            elif initial_state is not None:
                table[i] = cnp.PyArray_DATA(<cnp.ndarray> initial_state)
            if last is not None and last[first + i] is not None:
                table[count + i] = cnp.PyArray_DATA(<cnp.ndarray> last[first + i])
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
    run.mask, run.mask_batch_stride, run.mask_time_stride, run.lengths, run.first = NULL, 0, 0, NULL, 0
    if mask is not None and not (run.batch == run.timesteps == 1 and (<const char *> cnp.PyArray_DATA(mask))[0]):
        run.mask = <const unsigned char *> cnp.PyArray_DATA(<cnp.ndarray> mask)
        run.mask_batch_stride = cnp.PyArray_STRIDES(<cnp.ndarray> mask)[batch_axis]
        run.mask_time_stride = cnp.PyArray_STRIDES(<cnp.ndarray> mask)[time_axis]


cdef void run_network(Network network, fastgru_run_of *run) noexcept nogil:
    """Run what has been described."""
    fastgru_run_network(&network.net, run)


cdef Memory *fitting(Network network, fastgru_run_of *run, Memory **spare, size_t own) except NULL:
    """Memory for a described run, laid out, with tables of states that the caller fills; it begins with `own` bytes.

    It is the spare one, which must be of the same network, if that fits.
    """
    cdef Py_ssize_t count = network.net.state_count
    cdef size_t bytes, tables
    cdef bint masked = run.mask != NULL
    cdef Memory *memory = <Memory *> exchange(<void **> spare, NULL)
    own = (own + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
    tables = (2 * count * sizeof(void *) + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
    if (
        memory == NULL or memory.batch != run.batch or memory.timesteps != run.timesteps
        or memory.masked != masked or memory.out_stride != run.out_batch_stride[0] or run.lengths != NULL
    ):
        run.memory = NULL
        bytes = fastgru_workspace(&network.net, run)
        if bytes == TOO_LARGE:
            PyMem_RawFree(memory)
            raise MemoryError()
        if memory == NULL or memory.size < own + tables + bytes:
            PyMem_RawFree(memory)
            memory = allocate(own + tables + bytes)
        run.memory = scratch_of(memory) + own + tables
        fastgru_workspace(&network.net, run)
        memory.batch, memory.masked, memory.out_stride = run.batch, masked, run.out_batch_stride[0]
        memory.timesteps = 0 if run.lengths != NULL else run.timesteps
    run.initial_states = <const void *const *> (scratch_of(memory) + own)
    run.states = <void *const *> run.initial_states + count
    run.memory, run.walk = scratch_of(memory) + own + tables, memory.walk
    return memory


cdef Memory *prepared(
    Network network, Py_ssize_t rows, Py_ssize_t timesteps, fastgru_run_of *run, Memory **spare, size_t own,
) except NULL:
    """Describe a run without masks, and take memory for it; the caller sets its states later."""
    memset(run, 0, sizeof(run[0]))
    run.batch, run.timesteps = rows, timesteps
    return fitting(network, run, spare, own)
