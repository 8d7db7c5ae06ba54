# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: cdivision=True, autotestdict=False, embedsignature=False, freethreading_compatible=True
"""The central compiled module: Network, and its calls.

Trusts its callers: the Python half has checked all user input.

Safe without a GIL, too: nothing in a Network changes but its spare memory, which is exchanged atomically, and
`threads`, which results do not depend on.
"""

from cpython.mem cimport PyMem_RawFree
from libc.string cimport memset

cimport cython
cimport numpy as cnp
import numpy as np

from fastgru._arguments cimport (
    converted, copy_lengths, only_item, read_others, touches, touches_any,
)
from fastgru._arrays cimport has_shape, is_plain, is_state, rows_are_whole, stride
from fastgru._atomics cimport exchange
from fastgru._engine cimport (
    FASTGRU_CALL_MASK, FASTGRU_GRU, FASTGRU_NO_MASK, FASTGRU_OUTPUTS, fastgru_clock, fastgru_input,
    fastgru_kernels, fastgru_node, fastgru_run_of, fastgru_value,
)
from fastgru._memory cimport ALIGNMENT, Memory, allocate, allocated, give_back, scratch_of, take
from fastgru._plans cimport (
    ACTIVATION_IDS, DensePlan, Plan, connect, kernels_of, run_nodes, workspace_of,
)
from fastgru._states cimport add_states, are_states, copy_state, with_defaults

cnp.import_array()

cdef extern from "Python.h":
    Py_ssize_t PY_SSIZE_T_MAX

cdef size_t TOO_LARGE = <size_t> -1

cdef enum:
    FEW_LENGTHS = 32                                    # up to which they lie on the stack
    FEW_INPUTS = 8                                      # after the first one, as those

cdef tuple KINDS = (                                    # in the order of enum fastgru_kind
    "gru", "cast", "sum", "mul", "ave", "sub", "div", "max", "min", "copy", "dense", "convolution",
    "depthwise", "embedding", "activation", "softmax", "log_softmax", "prelu", "scale", "inverse", "clip", "norm",
    "differs", "nonzero", "both", "either", "select", "hide", "mean", "most", "last", "first", "repeat", "reshape",
    "transpose", "pad",
)


@cython.final
@cython.auto_pickle(False)
cdef class Network:
    """Nodes in running order over packed weights; immutable, shared by any number of threads.

    Parameters
    ----------
    values : sequence of (int, dtype, bool, int)
        What nodes read and write: width, type, whether it has no timesteps, and its clock. The inputs come first.
    nodes : sequence of (str, int, int, dict)
        Kind, the value that it reads, the one that it writes, and more fields of struct fastgru_node, which
        network.h describes, by name. Of a "gru" its `plan`; of others `layer`, `weights` and `bias`.
    outputs : sequence of int
        The values that a call returns.
    time_major, return_state : bool
        Of a call.
    optional : bool
        True if one of several initial states of a call may be None.
    default_states : tuple of (ndarray or None), optional
        (1 or batch, units) each, as `initial_state`: the states of calls without any. None means zeros.
    inputs : int
        How many values are inputs.
    clocks : sequence of tuple
        Fields of struct fastgru_clock.
    states : sequence of (int, dtype)
        Width and type of each.
    chunk_bytes, chunk_steps : int
        Of a chunk of the values between nodes; 0 means as many as stay in the cache.
    isa : str, optional
        The instruction set of the nodes that have no plan.
    least, most : int
        Timesteps that inputs may have in a call of `call`.
    threads : int
        Of a call, at most: 0 means those of the process. It may be set.
    """

    def __init__(
        self, values, nodes, outputs, bint time_major, bint return_state, bint optional=False,
        tuple default_states=None, *, int inputs=1, clocks=(), states=(), size_t chunk_bytes=0,
        Py_ssize_t chunk_steps=0, isa=None, Py_ssize_t least=1, Py_ssize_t most=PY_SSIZE_T_MAX, int threads=0,
    ):
        cdef const fastgru_kernels *kernels = kernels_of(isa)
        cdef int i, count = len(nodes)
        if self.net.nodes != NULL:
            raise RuntimeError("__init__ must be called once")
        if len(outputs) > FASTGRU_OUTPUTS:
            raise ValueError(f"a network must have at most {FASTGRU_OUTPUTS} outputs, got {len(outputs)}")
        self.net.nodes = <fastgru_node *> allocated(count * sizeof(fastgru_node))
        self.net.values = <fastgru_value *> allocated(len(values) * sizeof(fastgru_value))
        self.clocks = <fastgru_clock *> allocated(len(clocks) * sizeof(fastgru_clock))
        self.states.units = <Py_ssize_t *> allocated(len(states) * sizeof(Py_ssize_t))
        self.states.types = <int *> allocated(len(states) * sizeof(int))
        self.net.node_count, self.net.value_count, self.net.input_count = count, len(values), inputs
        self.net.clocks, self.net.clock_count = self.clocks, len(clocks)
        self.net.state_count = self.states.count = len(states)
        self.time_major, self.return_state, self.optional = time_major, return_state, optional
        self.default_states = default_states
        dtypes = []
        for i in range(len(values)):
            dtypes.append(np.dtype(values[i][1]))
            self.net.values[i].width, self.net.values[i].itemsize = values[i][0], dtypes[i].itemsize
            self.net.values[i].last, self.net.values[i].clock = values[i][2], values[i][3]
        self.features, self.dtype, self.typenum = values[0][0], dtypes[0], dtypes[0].num
        self.units, self.output_dtype = values[outputs[0]][0], dtypes[outputs[0]]
        for i in range(len(clocks)):
            self.clocks[i].input, self.clocks[i].from_clock, self.clocks[i].span = clocks[i][:3]
            self.clocks[i].stride, self.clocks[i].steps = clocks[i][3:]
        for i in range(len(states)):
            self.states.units[i], self.states.types[i] = states[i][0], np.dtype(states[i][1]).num
        kept, plans = [], {}
        for i in range(count):
            kept.append(describe_node(&self.net.nodes[i], nodes[i]))
            if self.net.nodes[i].kind == FASTGRU_GRU:
                plans[self.net.nodes[i].state] = kept[i][0]
            elif self.net.values[self.net.nodes[i].output].itemsize == 8:
                self.net.nodes[i].functions = &kernels.f64_functions
            else:
                self.net.nodes[i].functions = &kernels.f32_functions
        in_order = []
        for i in sorted(plans):  # no comprehension: when it fails, its objects are given up twice
            in_order.append(plans[i])
        self.kept, self.plans = tuple(kept), tuple(in_order)
        self.net.output_count = len(outputs)
        for i in range(len(outputs)):
            self.net.outputs[i], self.output_types[i] = outputs[i], dtypes[outputs[i]].num
        self.net.chunk_bytes, self.net.chunk_steps = chunk_bytes, chunk_steps
        self.least, self.most, self.threads = least, most, threads
        self.short = inputs <= 1 + FEW_INPUTS and not self.net.values[0].last and self.dtype.kind == "f"
        for i in range(1, inputs):
            self.short &= dtypes[i].num == self.typenum
        for i in range(len(outputs)):  # of the timesteps of an input: in a short call all have as many
            self.short &= (
                self.net.values[outputs[i]].last or self.net.values[outputs[i]].clock == 0
                or self.clocks[self.net.values[outputs[i]].clock].input >= 0
            )
        self.flags = time_major, not self.net.values[self.net.outputs[0]].last, return_state
        if connect(&self.net):
            raise ValueError("nodes must be in running order")

    def __dealloc__(self):
        PyMem_RawFree(self.net.nodes)
        PyMem_RawFree(self.net.values)
        PyMem_RawFree(self.clocks)
        PyMem_RawFree(self.states.units)
        PyMem_RawFree(self.states.types)
        PyMem_RawFree(self.spare)
        PyMem_RawFree(self.spare_lengths)

    cpdef call(
        self, x, initial_state, mask, lengths, out, list states=None, Py_ssize_t first=0, tuple others=None,
    ):
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
        others : tuple, optional
            The inputs after x.
        """
        cdef fastgru_run_of run
        cdef fastgru_input inputs[FEW_INPUTS]
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
        if not cnp.PyArray_CheckExact(x) or cnp.PyArray_NDIM(<cnp.ndarray> x) != 3 or not self.short:
            return NotImplemented
        array = <cnp.ndarray> x
        sizes = cnp.PyArray_DIMS(array)
        if not self.least <= sizes[time_axis] <= self.most or sizes[2] != self.features:
            return NotImplemented
        if not is_plain(array, 3, self.typenum) or not rows_are_whole(array):
            array = converted(array, self.typenum)
            if array is None:
                return NotImplemented
            sizes = cnp.PyArray_DIMS(array)
        shape[0], shape[1] = sizes[0], sizes[1]
        state_shape[0] = sizes[batch_axis]
        run.inputs = inputs
        if self.net.input_count > 1 and not read_others(
            &self.net, others, self.typenum, shape[0], shape[1], inputs
        ):
            return NotImplemented
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
            shape[0], shape[1] = sizes[0], sizes[1]  # of which an output before this one may have had others
            axes, shape[2 - value.last] = 3 - value.last, value.width
            if value.last:
                shape[0] = state_shape[0]
            if out is None:
                output = cnp.PyArray_EMPTY(axes, shape, self.output_types[i], 0)
            elif (
                outputs == 1 and is_plain(out, axes, self.output_types[i])
                and cnp.PyArray_ISWRITEABLE(<cnp.ndarray> out) and has_shape(out, shape)
                and rows_are_whole(out) and not touches(out, x, initial_state, given, mask, lengths)
                and not touches_any(out, others)
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
        Py_ssize_t first=0, tuple others=(),
    ):
        """Run a call on arrays that have been checked and share no memory.

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
        others : tuple of ndarray
            The inputs after x, as x, or (batch, width) if they have no timesteps.
        """
        cdef fastgru_run_of run
        cdef fastgru_input *inputs = <fastgru_input *> allocated(len(others) * sizeof(fastgru_input))
        cdef cnp.ndarray other
        cdef int i
        for i in range(len(out)):
            direct(self, &run, i, out[i])
        describe(self, &run, x, mask)
        run.inputs = inputs
        for i in range(len(others)):
            other = others[i]
            inputs[i].data, inputs[i].timesteps = cnp.PyArray_DATA(other), 1
            inputs[i].batch_stride = stride(other, 0 if self.net.values[1 + i].last else self.time_major)
            if not self.net.values[1 + i].last:
                inputs[i].time_stride = stride(other, not self.time_major)
                inputs[i].timesteps = cnp.PyArray_DIMS(other)[not self.time_major]
        if lengths is not None:
            run.lengths, run.first = <const Py_ssize_t *> cnp.PyArray_DATA(<cnp.ndarray> lengths), first
        try:
            self.execute(&run, initial_states, None, list(states), 0)
        finally:
            PyMem_RawFree(inputs)

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
            run_nodes(&self.net, run)
        memory.walk = run.walk
        give_back(&self.spare, memory)
        return 0


cdef tuple describe_node(fastgru_node *node, given_node):
    """Set the fields of a node, and return the objects that own the memory it points to."""
    cdef Plan plan
    cdef DensePlan dense
    cdef cnp.ndarray array
    kind, x, output, given = given_node
    given = dict(given)
    node.kind, node.input, node.output = KINDS.index(kind), x, output
    node.state, node.other = given.pop("state", -1), given.pop("other", 0)
    node.column = given.pop("column", 0)
    node.mask = given.pop("mask", FASTGRU_CALL_MASK if node.kind == FASTGRU_GRU else FASTGRU_NO_MASK)
    if node.kind == FASTGRU_GRU:
        plan = given.pop("plan")
        node.layer = &plan.ready.layer
        node.go_backwards, node.reverse_output = given.pop("go_backwards", 0), given.pop("reverse_output", 0)
        node.zero_output_for_mask = given.pop("zero_output_for_mask", 0)
        node.initial, node.final_state = given.pop("initial", 0), given.pop("final", 0)
        kept = (plan,)
    else:
        dense = given.pop("layer", None)
        weights, bias = given.pop("weights", None), given.pop("bias", None)
        if dense is not None:
            node.layer = &dense.layer
        for array in (weights, bias):
            if array is not None and not cnp.PyArray_IS_C_CONTIGUOUS(array):
                raise ValueError("weights of nodes must be C-contiguous")
        node.weights = NULL if weights is None else cnp.PyArray_DATA(<cnp.ndarray> weights)
        node.bias = NULL if bias is None else cnp.PyArray_DATA(<cnp.ndarray> bias)
        node.activation = ACTIVATION_IDS[given.pop("activation", "linear")]
        node.alpha, node.beta = given.pop("alpha", 0), given.pop("beta", 0)
        node.from_column, node.limit = given.pop("from_column", 0), given.pop("limit", 0)
        node.from_end, node.size = given.pop("from_end", 0), given.pop("size", 0)
        node.stride, node.dilation = given.pop("stride", 1), given.pop("dilation", 1)
        node.padding = given.pop("padding", 0)
        kept = dense, weights, bias
    if given:
        raise TypeError(f"a node has no field {next(iter(given))!r}")
    return kept


cdef inline void direct(Network self, fastgru_run_of *run, int i, cnp.ndarray output) noexcept:
    """Say where an output lies."""
    cdef bint last = self.net.values[self.net.outputs[i]].last
    run.out[i] = cnp.PyArray_DATA(output)
    run.out_batch_stride[i] = stride(output, 0 if last else self.time_major)
    run.out_time_stride[i] = 0 if last else stride(output, not self.time_major)


cdef inline void describe(Network self, fastgru_run_of *run, cnp.ndarray x, mask) noexcept:
    """Say where the input and the mask lie; there are no lengths."""
    cdef int batch_axis = self.time_major, time_axis = not self.time_major
    run.x = cnp.PyArray_DATA(x)
    if self.net.values[0].last:
        run.batch, run.timesteps, run.x_batch_stride, run.x_time_stride = x.shape[0], 1, stride(x, 0), 0
    else:
        run.batch, run.timesteps = cnp.PyArray_DIMS(x)[batch_axis], cnp.PyArray_DIMS(x)[time_axis]
        run.x_batch_stride, run.x_time_stride = stride(x, batch_axis), stride(x, time_axis)
    run.mask, run.mask_batch_stride, run.mask_time_stride, run.lengths, run.first = NULL, 0, 0, NULL, 0
    run.threads = self.threads
    if mask is not None and not (run.batch == run.timesteps == 1 and (<const char *> cnp.PyArray_DATA(mask))[0]):
        run.mask = <const unsigned char *> cnp.PyArray_DATA(<cnp.ndarray> mask)
        run.mask_batch_stride = cnp.PyArray_STRIDES(<cnp.ndarray> mask)[batch_axis]
        run.mask_time_stride = cnp.PyArray_STRIDES(<cnp.ndarray> mask)[time_axis]


cdef void run_network(Network network, fastgru_run_of *run) noexcept nogil:
    """Run a described call."""
    run_nodes(&network.net, run)


cdef Memory *fitting(Network network, fastgru_run_of *run, Memory **spare, size_t own) except NULL:
    """Memory for a described run, laid out, with tables of states for the caller; it begins with `own` bytes.

    The spare memory, which must be of the same network, is used if it fits.
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
        or (network.net.input_count > 1 and network.net.clock_count > 1)
    ):
        run.memory = NULL
        bytes = workspace_of(&network.net, run)
        if bytes == TOO_LARGE:
            PyMem_RawFree(memory)
            raise MemoryError()
        if memory == NULL or memory.size < own + tables + bytes:
            PyMem_RawFree(memory)
            memory = allocate(own + tables + bytes)
        run.memory = scratch_of(memory) + own + tables
        workspace_of(&network.net, run)
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
    run.batch, run.timesteps, run.threads = rows, timesteps, network.threads
    return fitting(network, run, spare, own)
