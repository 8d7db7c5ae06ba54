# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: cdivision=True, autotestdict=False, embedsignature=False, freethreading_compatible=True
"""The state of a stream, and its steps."""

from cpython.mem cimport PyMem_RawFree
from libc.string cimport memcpy

cimport cython
cimport numpy as cnp
import numpy as np

from fastgru._arrays cimport extent, is_plain, is_state, overlap, rows_are_whole, stride
from fastgru._atomics cimport exchange
from fastgru._core cimport Network, prepared, run_network
from fastgru._engine cimport fastgru_input, fastgru_run_of
from fastgru._memory cimport Memory, allocated, give_back
from fastgru._ports cimport (
    Port, apart, are_targets, copy_indices, indices_of, is_input, listed, parts,
    ports_of, replaced,
)

cnp.import_array()


cdef object without_steps(outputs):
    """Outputs of one timestep, an array or a list, as those of a step; some may have no timesteps."""
    cdef list found = []
    if cnp.PyArray_CheckExact(outputs):
        return outputs.reshape(-1, outputs.shape[outputs.ndim - 1])
    for output in outputs:
        found.append(output.reshape(-1, output.shape[output.ndim - 1]))
    return found


@cython.auto_pickle(False)
cdef class Steps:
    """The state of some rows in a network, and steps of it.

    Parameters
    ----------
    network : Network or None
        None: every step takes `_long_step`.
    states : tuple of ndarray, each (batch, units)
        To start from; copied.
    outputs : tuple of ndarray, each (batch, units), C-contiguous
        Overwritten by every step without `out`.
    inputs : tuple of (dtype, (int, int) or None)
        Of each its type, and if it is of indices the least, and the first one that is too large.
    """

    cdef Network network
    cdef tuple states                                   # of ndarrays (2, batch, units), read and written in turn
    cdef void **places                                  # (2, states) where they lie
    cdef int side                                       # which of both holds the state
    cdef Py_ssize_t batch
    cdef int input_count, output_count
    cdef Port *ports                                    # (inputs)
    cdef fastgru_input *others                          # (inputs - 1) where the inputs after the first one lie
    cdef cnp.int32_t *indices                           # (inputs of indices, batch) copies
    cdef void *running                                  # NULL: nothing is
    cdef tuple memories                                 # of outputs
    cdef cnp.ndarray memory_of_output                   # the first of them
    cdef readonly tuple _outputs                        # views of them: users may change their shapes
    cdef object _output                                 # the first of these
    cdef bint simple                                    # one input of numbers, and one output
    cdef cnp.npy_intp input_shape[2]                    # of these, in a step
    cdef cnp.npy_intp output_shape[2]
    cdef char *first_byte                               # of the memory of the output of a step, and where it
    cdef char *end                                      # ends, if steps must not read it: there are several nodes
    cdef Memory *memory                                 # of a step
    cdef Memory *spare                                  # of a chunk
    cdef fastgru_run_of step

    def __init__(self, Network network, tuple states, tuple outputs, tuple inputs):
        cdef cnp.ndarray memory
        cdef Py_ssize_t i
        if self.memories is not None:
            raise RuntimeError("__init__ must be called once")
        pairs, views = [], []
        for state in states:  # no comprehension: when it fails, its arrays are given up twice
            pairs.append(np.stack([state, state]))
        for output in outputs:
            views.append(output[:])
        self.states, self._outputs, self._output = tuple(pairs), tuple(views), views[0]
        self.input_count, self.output_count, self.batch = len(inputs), len(outputs), len(outputs[0])
        if network is not None:
            self.ports = ports_of(network, inputs)
            self.places = <void **> allocated(2 * len(states) * sizeof(void *))
            for i in range(len(states)):
                memory = self.states[i]
                self.places[i] = cnp.PyArray_DATA(memory)
                self.places[len(states) + i] = cnp.PyArray_BYTES(memory) + cnp.PyArray_NBYTES(memory) // 2
            self.others = <fastgru_input *> allocated(self.input_count * sizeof(fastgru_input))
            self.indices = <cnp.int32_t *> allocated(
                indices_of(self.ports, self.input_count) * self.batch * sizeof(cnp.int32_t))
            self.memory = prepared(network, self.batch, 1, &self.step, &self.spare, 0)
            self.step.inputs, self.step.first = self.others, 1
            if network.net.node_count > 1:
                extent(outputs[0], &self.first_byte, &self.end)
            self.simple = self.input_count == self.output_count == 1 and not self.ports.has_limits
            self.input_shape[0], self.input_shape[1] = self.batch, network.features
            self.output_shape[0], self.output_shape[1] = self.batch, network.units
        self.network, self.memory_of_output, self.memories = network, outputs[0], outputs

    def __dealloc__(self):
        PyMem_RawFree(self.ports)
        PyMem_RawFree(self.places)
        PyMem_RawFree(self.others)
        PyMem_RawFree(self.indices)
        PyMem_RawFree(self.memory)
        PyMem_RawFree(self.spare)

    def __reduce__(self):
        raise TypeError(f"cannot pickle {type(self).__name__!r}: pickle its state and its layer")

    def __call__(self, x, out=None):
        cdef fastgru_run_of *step = &self.step
        cdef cnp.ndarray target = self.memory_of_output
        cdef char *data
        # the usual step: what is checked here is what costs least
        if not self.simple or not is_state(x, self.network.typenum, self.input_shape):
            return self.any_call(x, out)
        data = <char *> cnp.PyArray_DATA(<cnp.ndarray> x)
        if out is not None:
            if not (
                is_state(out, self.network.output_types[0], self.output_shape)
                and cnp.PyArray_ISWRITEABLE(<cnp.ndarray> out) and not overlap(<cnp.ndarray> out, x)
            ):
                return self.any_call(x, out)
            target = <cnp.ndarray> out
        elif self.first_byte <= data < self.end:
            return self.any_call(x, out)
        self.enter()
        step.x, step.x_batch_stride = data, self.input_shape[1]
        step.out[0], step.out_batch_stride[0] = cnp.PyArray_DATA(target), self.output_shape[1]
        self.advance(step)
        self.side = 1 - self.side
        self.leave()
        return self._output if out is None else out

    cdef object any_call(self, x, out):
        """A call of any inputs and outputs."""
        cdef Network network = self.network
        cdef tuple inputs = None, targets = self.memories
        cdef object first = x, target = self.memory_of_output, result = self._output
        cdef bint fits
        cdef int i
        if network is None:
            return self._long_step(x, out)
        if self.input_count > 1:
            inputs = parts(x, self.input_count)
            if inputs is None:
                return self._long_step(x, out)
            first = inputs[0]
        if out is None and self.are_chunks(x if inputs is None else inputs):
            return self.chunk(x if inputs is None else inputs, None, False)
        if not is_input(first, self.ports, self.batch):
            return self._long_step(x, out)
        for i in range(1, self.input_count):
            if not is_input(inputs[i], self.ports + i, self.batch):
                return self._long_step(x, out)
        if out is not None:
            result = target = out
            if self.output_count > 1:
                targets = parts(out, self.output_count)
                if targets is None:
                    return self._long_step(x, out)
                target = targets[0]
            if not are_targets(network, target, targets, self.batch):
                return self._long_step(x, out)
        elif self.output_count > 1:
            result = listed(self._outputs)
        first = apart(network, first, target, targets)
        for i in range(1, self.input_count):
            other = apart(network, inputs[i], target, targets)
            if other is not inputs[i]:
                inputs = replaced(inputs, i, other)
        self.enter()
        fits = self.read(0, <cnp.ndarray> first)
        for i in range(1, self.input_count):
            fits &= self.read(i, <cnp.ndarray> inputs[i])
        if not fits:
            self.leave()
            return self._long_step(x, out)  # which complains
        for i in range(self.output_count):
            self.step.out[i] = cnp.PyArray_DATA(<cnp.ndarray> (targets[i] if i else target))
            self.step.out_batch_stride[i] = stride(<cnp.ndarray> (targets[i] if i else target), 0)
        self.advance(&self.step)
        self.side = 1 - self.side
        self.leave()
        return result

    cdef bint are_chunks(self, x) noexcept:
        """True of an array, or a tuple of all inputs, that a chunk reads in place; False if one is of indices."""
        cdef Network network = self.network
        cdef object array = x
        cdef cnp.npy_intp *sizes
        cdef Py_ssize_t timesteps = -1
        cdef int i
        for i in range(self.input_count):
            if self.input_count > 1:
                array = (<tuple> x)[i]
            if network.net.values[i].last:
                if not is_input(array, self.ports + i, self.batch):
                    return False
                continue
            if (
                not is_plain(array, 3, self.ports[i].typenum) or self.ports[i].has_limits
                or not rows_are_whole(<cnp.ndarray> array)
            ):
                return False
            sizes = cnp.PyArray_DIMS(<cnp.ndarray> array)
            if sizes[network.time_major] != self.batch or sizes[2] != self.ports[i].width:
                return False
            if timesteps >= 0 and sizes[not network.time_major] != timesteps:
                return False
            timesteps = sizes[not network.time_major]
        return timesteps > 0 or self.input_count == 1

    cdef inline bint read(self, int i, cnp.ndarray array) noexcept:
        """Say where an input of a step lies; False if an index is not within the limits."""
        cdef const void *data = cnp.PyArray_DATA(array)
        cdef Py_ssize_t gap = stride(array, 0)
        cdef cnp.int32_t *copied
        if self.ports[i].has_limits:
            copied = self.indices + self.ports[i].number * self.batch
            if not copy_indices(array, self.ports + i, copied):
                return False
            data, gap = copied, 1
        if i == 0:
            self.step.x, self.step.x_batch_stride = data, gap
        else:
            self.others[i - 1].data, self.others[i - 1].batch_stride = data, gap
        return True

    def _chunk(self, x, targets, bint single):
        """As `chunk`, for Python."""
        return self.chunk(x, targets, single)

    cdef object chunk(self, x, targets, bint single):
        """Run all timesteps of an array, or a tuple of several, of the network's types.

        They are (batch, timesteps, features), time-major as the network, or (batch, width) without timesteps;
        nobody else writes into indices. Returns the output, or a list of several; those of a `single` step have
        no timesteps. `targets`, a list of arrays, are overwritten with them unless they are None.
        """
        cdef Network network = self.network
        cdef fastgru_run_of run
        cdef cnp.ndarray first, output
        cdef int i, time_axis = not network.time_major
        cdef Py_ssize_t timesteps
        cdef list inputs = None, outputs = None
        cdef Memory *memory
        if self.input_count > 1:
            inputs = []
            for array in <tuple> x:
                inputs.append(array if rows_are_whole(array) else np.array(array, order="C"))
            x = inputs[0]
        first = x
        if not rows_are_whole(first):
            first = np.array(first, order="C")
        timesteps = 1 if network.net.values[0].last else cnp.PyArray_DIMS(first)[time_axis]
        for i in range(1, self.input_count):
            if not network.net.values[i].last:
                timesteps = cnp.PyArray_DIMS(<cnp.ndarray> inputs[i])[time_axis]
        output = self.new_output(0, timesteps)
        if self.output_count > 1:
            outputs = [output]
            for i in range(1, self.output_count):
                outputs.append(self.new_output(i, timesteps))
        memory = prepared(network, self.batch, timesteps, &run, &self.spare, 0)
        try:
            result = output if outputs is None else outputs
            if single:
                result = without_steps(result)
            self.enter()
            try:
                run.inputs, run.first = self.others, 1  # rows that are masked keep their outputs
                for i in range(self.input_count):
                    self.lay_input(&run, i, <cnp.ndarray> (inputs[i] if i else first))
                for i in range(self.output_count):
                    self.lay_output(&run, i, <cnp.ndarray> (outputs[i] if i else output))
                if timesteps:
                    self.advance(&run)
                if targets is not None:  # while the state is what it was: a user may have changed a shape
                    for i in range(self.output_count):
                        targets[i][...] = result if outputs is None else result[i]
                if timesteps:
                    self.side = 1 - self.side
            finally:
                self.leave()
        finally:
            give_back(&self.spare, memory)
        return result

    cdef inline cnp.ndarray new_output(self, int i, Py_ssize_t timesteps):
        """An array for an output of a chunk."""
        cdef int value = self.network.net.outputs[i], last = self.network.net.values[value].last
        cdef cnp.npy_intp shape[3]
        shape[self.network.time_major], shape[not self.network.time_major] = self.batch, timesteps
        shape[2 - last] = self.network.net.values[value].width
        return cnp.PyArray_EMPTY(3 - last, shape, self.network.output_types[i], 0)

    cdef inline void lay_input(self, fastgru_run_of *run, int i, cnp.ndarray array) noexcept:
        """Say where an input of a chunk lies."""
        cdef bint last = self.network.net.values[i].last
        cdef Py_ssize_t batch = stride(array, 0 if last else self.network.time_major)
        cdef Py_ssize_t time = 0 if last else stride(array, not self.network.time_major)
        if i == 0:
            run.x, run.x_batch_stride, run.x_time_stride = cnp.PyArray_DATA(array), batch, time
        else:
            self.others[i - 1].data = cnp.PyArray_DATA(array)
            self.others[i - 1].batch_stride, self.others[i - 1].time_stride = batch, time

    cdef inline void lay_output(self, fastgru_run_of *run, int i, cnp.ndarray array) noexcept:
        """Say where an output of a chunk lies."""
        cdef bint last = self.network.net.values[self.network.net.outputs[i]].last
        run.out[i] = cnp.PyArray_DATA(array)
        run.out_batch_stride[i] = stride(array, 0 if last else self.network.time_major)
        run.out_time_stride[i] = 0 if last else stride(array, not self.network.time_major)

    cdef inline void advance(self, fastgru_run_of *run) noexcept:
        """Run from the state on one side, and write the next one to the other side; `side` stays."""
        cdef Py_ssize_t count = self.network.net.state_count
        run.initial_states = <const void *const *> (self.places + self.side * count)
        run.states = <void *const *> (self.places + (1 - self.side) * count)
        with nogil:
            run_network(self.network, run)

    cdef inline int enter(self) except -1:
        if exchange(&self.running, <void *> self) != NULL:
            raise RuntimeError("a stream does one thing at a time, got a call while another one is running")
        return 0

    cdef inline void leave(self) noexcept:
        exchange(&self.running, NULL)

    def _states(self):
        """The states themselves, each (batch, units)."""
        states = []
        for memory in self.states:
            states.append(memory[self.side])
        return states

    def _assign(self, states):
        """Replace all states, by arrays (batch, units) of their types, C-contiguous."""
        cdef cnp.ndarray memory, state
        cdef Py_ssize_t k, n
        cdef tuple given = tuple(states)
        for k in range(len(given)):
            memory, state = self.states[k], given[k]
            n = cnp.PyArray_NBYTES(memory) // 2
            memcpy(<char *> cnp.PyArray_DATA(memory) + self.side * n, cnp.PyArray_DATA(state), n)


@cython.final
@cython.auto_pickle(False)
cdef class Alone:
    """Keeps other threads out of a stream while a block runs: they would read a state that is being written.

    Python handles no interrupt between `__enter__` of a compiled class and the block; of a Python class it could.
    """

    cdef Steps stream

    def __init__(self, Steps stream):
        self.stream = stream

    def __enter__(self):
        self.stream.enter()

    def __exit__(self, *_):
        self.stream.leave()
