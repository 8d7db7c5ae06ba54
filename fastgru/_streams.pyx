# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: cdivision=True, autotestdict=False, embedsignature=False, freethreading_compatible=True
"""The state of a stream, and its steps."""

from cpython.mem cimport PyMem_RawFree
from libc.string cimport memcpy

cimport cython
cimport numpy as cnp
import numpy as np

from fastgru._arrays cimport are_rows, are_within, is_plain, overlap, rows_are_whole, stride
from fastgru._core cimport Network, prepared, run_network
from fastgru._engine cimport fastgru_run_of
from fastgru._memory cimport Memory, exchange, give_back

cnp.import_array()


@cython.auto_pickle(False)
cdef class Steps:
    """The state of some rows in a network, and steps of it.

    Parameters
    ----------
    network : Network or None
        Of one output; None: every step takes `_long_step`.
    states : tuple of ndarray, each (batch, units)
        To start from; copied.
    output : ndarray, shape (batch, units), C-contiguous
        Overwritten by every step without `out`.
    limits : (int, int), optional
        If inputs are indices: the least, and the first one that is too large.
    """

    cdef Network network
    cdef tuple states                                   # of ndarrays (2, batch, units), read and written in turn
    cdef int side                                       # which of both holds the state
    cdef bint has_limits
    cdef long long limits[2]                            # of indices
    cdef void *running                                  # NULL: nothing is
    cdef cnp.npy_intp input_shape[2]
    cdef cnp.npy_intp output_shape[2]
    cdef cnp.ndarray memory_of_output
    cdef readonly cnp.ndarray _output                   # a view of it: users may change its shape
    cdef Memory *memory                                 # of a step
    cdef Memory *spare                                  # of a chunk
    cdef fastgru_run_of step

    def __init__(self, Network network, tuple states, cnp.ndarray output, tuple limits=None):
        if self.memory_of_output is not None:
            raise RuntimeError("__init__ must be called once")
        pairs = []
        for state in states:  # no comprehension: when it fails, its arrays are given up twice
            pairs.append(np.stack([state, state]))
        self.states = tuple(pairs)
        self.output_shape[0], self.output_shape[1] = output.shape[0], output.shape[1]
        if network is not None:
            self.input_shape[0], self.input_shape[1] = output.shape[0], network.features
            self.memory = prepared(network, output.shape[0], 1, &self.step, &self.spare, 0)
        if limits is not None:
            self.has_limits, self.limits[0], self.limits[1] = True, limits[0], limits[1]
        self._output, self.network, self.memory_of_output = output[:], network, output

    def __dealloc__(self):
        PyMem_RawFree(self.memory)
        PyMem_RawFree(self.spare)

    def __reduce__(self):
        raise TypeError(f"cannot pickle {type(self).__name__!r}: pickle its state and its layer")

    def __call__(self, x, out=None):
        cdef fastgru_run_of *step = &self.step
        cdef cnp.ndarray target = self.memory_of_output
        cdef int batch_axis
        if (
            self.network is not None and not self.has_limits and out is None
            and is_plain(x, 3, self.network.typenum)
            and rows_are_whole(<cnp.ndarray> x)
        ):
            batch_axis = self.network.time_major
            if (
                cnp.PyArray_DIMS(<cnp.ndarray> x)[batch_axis] == self.input_shape[0]
                and cnp.PyArray_DIMS(<cnp.ndarray> x)[2] == self.input_shape[1]
            ):
                return self._chunk(x, None, False)
        if self.network is None or not are_rows(x, self.network.typenum, self.input_shape):
            return self._long_step(x, out)
        if self.has_limits and not are_within(<cnp.ndarray> x, self.limits):
            return self._long_step(x, out)  # which complains
        if out is not None:
            if not (
                are_rows(out, self.network.output_types[0], self.output_shape)
                and cnp.PyArray_ISWRITEABLE(<cnp.ndarray> out) and not overlap(<cnp.ndarray> out, x)
            ):
                return self._long_step(x, out)
            target = <cnp.ndarray> out
        self.enter()
        step.x, step.x_batch_stride = cnp.PyArray_DATA(<cnp.ndarray> x), stride(<cnp.ndarray> x, 0)
        step.out[0], step.out_batch_stride[0] = cnp.PyArray_DATA(target), stride(target, 0)
        self.advance(step)
        self.side = 1 - self.side
        self.leave()
        return self._output if out is None else out

    def _chunk(self, cnp.ndarray x, target, bint single):
        """Run all timesteps of x, (batch, timesteps, features), time-major as the network and of its dtype.

        Returns the outputs, or those of a `single` step; `target` is overwritten with them unless it is None.
        """
        cdef Network network = self.network
        cdef fastgru_run_of run
        cdef cnp.npy_intp shape[3]
        cdef cnp.ndarray outputs
        cdef int batch_axis = network.time_major, time_axis = not network.time_major
        cdef Memory *memory
        shape[0], shape[1], shape[2] = x.shape[0], x.shape[1], self.output_shape[1]
        outputs = cnp.PyArray_EMPTY(3, shape, network.output_types[0], 0)
        if not rows_are_whole(x):
            x = np.array(x, order="C")
        memory = prepared(network, shape[batch_axis], shape[time_axis], &run, &self.spare, 0)
        try:
            run.x = cnp.PyArray_DATA(x)
            run.x_batch_stride, run.x_time_stride = stride(x, batch_axis), stride(x, time_axis)
            run.out[0], run.out_batch_stride[0] = cnp.PyArray_DATA(outputs), stride(outputs, batch_axis)
            run.out_time_stride[0] = stride(outputs, time_axis)
            result = outputs.reshape(self.output_shape[0], self.output_shape[1]) if single else outputs
            self.enter()
            try:
                if shape[time_axis]:
                    self.advance(&run)
                if target is not None:  # while the state is what it was: a user may have changed its shape
                    target[...] = result
                if shape[time_axis]:
                    self.side = 1 - self.side
            finally:
                self.leave()
        finally:
            give_back(&self.spare, memory)
        return result

    cdef inline void advance(self, fastgru_run_of *run) noexcept:
        """Run from the state on one side, and write the next one to the other side; `side` stays."""
        cdef Py_ssize_t k, bytes_of_state
        cdef cnp.ndarray memory
        for k in range(self.network.net.state_count):
            memory = <cnp.ndarray> self.states[k]
            bytes_of_state = cnp.PyArray_NBYTES(memory) // 2
            (<char **> run.initial_states)[k] = <char *> cnp.PyArray_DATA(memory) + self.side * bytes_of_state
            (<char **> run.states)[k] = <char *> cnp.PyArray_DATA(memory) + (1 - self.side) * bytes_of_state
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
