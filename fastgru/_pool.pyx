# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: cdivision=True, autotestdict=False, embedsignature=False, freethreading_compatible=True
"""The states of many streams in one place, and a step of some of them."""

from cpython.mem cimport PyMem_RawFree
from libc.string cimport memcpy

cimport cython
cimport numpy as cnp
import numpy as np

from fastgru._arrays cimport are_rows, is_plain, overlap, stride
from fastgru._core cimport Network, prepared, run_network
from fastgru._engine cimport fastgru_input, fastgru_run_of
from fastgru._memory cimport Memory, give_back, scratch_of
from fastgru._ports cimport (
    Port, apart, are_targets, copy_indices, indices_of, is_input, listed, parts,
    ports_of, replaced,
)

cnp.import_array()


cdef cnp.ndarray numbers_of(slots):
    """Numbers of slots as an array of int64, (n,); None if Python must convert or refuse them."""
    cdef cnp.ndarray numbers
    cdef cnp.npy_intp n
    cdef Py_ssize_t i
    cdef tuple given
    if type(slots) is list or type(slots) is tuple:
        given = tuple(slots)  # a copy: another thread may change a list
        n = len(given)
        numbers = cnp.PyArray_EMPTY(1, &n, cnp.NPY_INT64, 0)
        for i in range(n):
            if type(given[i]) is not int or not 0 <= given[i] < 1 << 62:
                return None
            (<cnp.int64_t *> cnp.PyArray_DATA(numbers))[i] = given[i]
        return numbers
    if (
        (is_plain(slots, 1, cnp.NPY_LONG) or is_plain(slots, 1, cnp.NPY_LONGLONG))
        and cnp.PyArray_ITEMSIZE(<cnp.ndarray> slots) == 8 and cnp.PyArray_IS_C_CONTIGUOUS(<cnp.ndarray> slots)
    ):
        return <cnp.ndarray> slots
    return None


cdef tuple new_outputs(Network network, Py_ssize_t rows):
    """Arrays for the outputs of a step."""
    cdef list outputs = []
    cdef cnp.npy_intp shape[2]
    cdef int i
    for i in range(network.net.output_count):
        shape[0], shape[1] = rows, network.net.values[network.net.outputs[i]].width
        outputs.append(cnp.PyArray_EMPTY(2, shape, network.output_types[i], 0))
    return tuple(outputs)


@cython.auto_pickle(False)
cdef class Slots:
    """The states of many rows, slots, in a network, and a step of some of them.

    A slot has a number that is never used again: its place plus a multiple of the capacity.
    `cdef` methods need the GIL, or a critical section of the pool.

    Parameters
    ----------
    network : Network or None
        None: every step takes `_long_step`.
    states : tuple of ndarray, each (capacity, units), C-contiguous
        Taken over, not copied.
    capacity : int
    inputs : tuple of (dtype, (int, int) or None)
        As of `Steps`.
    """

    cdef Network network
    cdef tuple states
    cdef readonly Py_ssize_t capacity
    cdef Py_ssize_t count                               # of open slots
    cdef Py_ssize_t free_count
    cdef cnp.ndarray free                               # places, the next to be given last
    cdef cnp.ndarray numbers                            # of the slot at a place; closed: -1 - the next one's
    cdef cnp.ndarray busy                               # 1 while a step is running
    cdef Memory *spare                                  # of a step before, for the next one
    cdef int input_count, output_count
    cdef size_t bytes, bytes_of_row                     # of `lay`
    cdef bint simple                                    # one input of numbers, and one output
    cdef Port *ports                                    # (inputs)

    def __init__(self, Network network, tuple states, Py_ssize_t capacity, tuple inputs):
        if self.states is not None:
            raise RuntimeError("__init__ must be called once")
        if network is not None:
            self.ports = ports_of(network, inputs)
            self.input_count, self.output_count = network.net.input_count, network.net.output_count
            self.bytes = (self.input_count - 1) * sizeof(fastgru_input)
            self.bytes_of_row = indices_of(self.ports, self.input_count) * sizeof(cnp.int32_t)
            self.simple = self.input_count == self.output_count == 1 and not self.bytes_of_row
        self.free = np.arange(capacity - 1, -1, -1)
        self.numbers = -1 - np.arange(capacity, dtype=np.int64)
        self.busy = np.zeros(capacity, np.uint8)
        self.network, self.free_count, self.capacity, self.states = network, capacity, capacity, states

    def __dealloc__(self):
        PyMem_RawFree(self.ports)
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
        """Reserve the slots; returns -1, or the index of one that is not open or busy, and reserves none."""
        cdef Py_ssize_t i
        for i in range(count):
            places[i] = self.place(slots[i])
            if places[i] < 0 or (<unsigned char *> cnp.PyArray_DATA(self.busy))[places[i]]:
                self.release(places, i)
                return i
            (<unsigned char *> cnp.PyArray_DATA(self.busy))[places[i]] = True
        return -1

    cdef void release(self, const Py_ssize_t *places, Py_ssize_t count) noexcept:
        """Undo `claim`; places of slots that have been closed since become free."""
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
        x : ndarray, shape (n, features), or list of them
            The input of each. Of the layer's dtype it is read in place; other float types are cast. Indices of a
            Model: (n,) or (n, 1), of any integer type. Of a Model of several inputs: a list of arrays in their
            order, or a dict by their names; (n, width) of one without timesteps, too.
        out : ndarray, shape (n, units), or list of them, optional
            Where to write the outputs: of the layer's dtype. For several outputs a list, in their order.

        Returns
        -------
        ndarray, shape (n, units), or list of them
            The output of each: `out`, or a new array; of a Model of several outputs a list of arrays.

        Raises
        ------
        ValueError
            If a slot is not open, listed twice, or in another thread's step; a shape does not fit; or `out`
            has another dtype or is read-only.
        TypeError
            If slots are no integers, or an array is none, or not of floats.
        """
        cdef Network network = self.network
        cdef fastgru_run_of run
        cdef cnp.npy_intp shape[2]
        cdef Py_ssize_t n, k, bad
        cdef size_t states_size = 0
        cdef cnp.ndarray output = None, numbers
        cdef tuple arranged = None
        cdef Memory *memory
        cdef Py_ssize_t *places
        cdef char *rows
        if network is None:
            return self._long_step(slots, x, out)
        numbers = numbers_of(slots)
        if numbers is None:
            return self._long_step(slots, x, out)
        n = cnp.PyArray_DIMS(numbers)[0]
        if n == 0:
            return self._long_step(slots, x, out)
        if self.simple:
            shape[0], shape[1] = n, network.features
            if not are_rows(x, network.typenum, shape):
                return self._long_step(slots, x, out)
            shape[1] = network.units
            if out is None:
                output = cnp.PyArray_EMPTY(2, shape, network.output_types[0], 0)
            elif (
                are_rows(out, network.output_types[0], shape) and cnp.PyArray_ISWRITEABLE(<cnp.ndarray> out)
                and not overlap(<cnp.ndarray> out, x)
            ):
                output = <cnp.ndarray> out
            else:
                return self._long_step(slots, x, out)
        else:
            arranged = self.arranged(x, out, n)
            if arranged is None:
                return self._long_step(slots, x, out)

        # all that may fail, or run Python code, comes before `claim`
        for k in range(network.net.state_count):
            states_size += 2 * n * cnp.PyArray_STRIDES(<cnp.ndarray> self.states[k])[0]
        memory = prepared(
            network, n, 1, &run, &self.spare,
            states_size + n * (sizeof(Py_ssize_t) + self.bytes_of_row) + self.bytes)
        rows = scratch_of(memory)
        places = <Py_ssize_t *> (rows + states_size)
        for k in range(network.net.state_count):
            states_size = n * cnp.PyArray_STRIDES(<cnp.ndarray> self.states[k])[0]
            (<char **> run.initial_states)[k], (<char **> run.states)[k] = rows, rows + states_size
            rows += 2 * states_size
        run.first = 1  # rows that are masked keep their outputs
        if self.simple:
            run.x, run.x_batch_stride = cnp.PyArray_DATA(<cnp.ndarray> x), stride(<cnp.ndarray> x, 0)
            run.out[0], run.out_batch_stride[0] = cnp.PyArray_DATA(output), stride(output, 0)
        elif not self.lay(&run, <char *> (places + n), arranged):
            give_back(&self.spare, memory)
            return self._long_step(slots, x, out)  # which complains
        with cython.critical_section(self):
            bad = self.claim(<const cnp.int64_t *> cnp.PyArray_DATA(numbers), n, places)
            if bad < 0:
                for k in range(network.net.state_count):
                    gather((<char **> run.initial_states)[k], self.states[k], places, n)
        if bad < 0:
            with nogil:
                run_network(network, &run)
            with cython.critical_section(self):
                for k in range(network.net.state_count):
                    scatter(self.states[k], (<char **> run.states)[k], True, places, n)
                self.release(places, n)
        memory.walk = run.walk
        give_back(&self.spare, memory)
        if bad >= 0:
            self._complain(numbers, bad)
            return NotImplemented
        return output if arranged is None else arranged[2]

    cdef tuple arranged(self, x, out, Py_ssize_t n):
        """The inputs and outputs of a step of any model, in tuples, and what it returns.

        None if Python must convert or refuse them. No input shares memory with an output.
        """
        cdef tuple inputs = (x,), targets = (out,)
        cdef int k
        if self.input_count > 1:
            inputs = parts(x, self.input_count)
        if out is None:
            targets = new_outputs(self.network, n)
        elif self.output_count > 1:
            targets = parts(out, self.output_count)
        if inputs is None or targets is None or not are_targets(self.network, targets[0], targets, n):
            return None
        for k in range(self.input_count):
            if not is_input(inputs[k], self.ports + k, n):
                return None
            array = apart(self.network, inputs[k], targets[0], targets)
            if array is not inputs[k]:
                inputs = replaced(inputs, k, array)
        if out is None:
            out = listed(targets) if self.output_count > 1 else targets[0]
        return inputs, targets, out

    cdef bint lay(self, fastgru_run_of *run, char *memory, tuple arranged) noexcept:
        """Say where the inputs and outputs of a step lie; False if an index is not within the limits.

        `memory` is overwritten with where the inputs after the first one lie, and then with copies of indices.
        """
        cdef tuple inputs = <tuple> arranged[0], targets = <tuple> arranged[1]
        cdef fastgru_input *others = <fastgru_input *> memory
        cdef cnp.int32_t *indices = <cnp.int32_t *> (memory + self.bytes)
        cdef const void *data
        cdef Py_ssize_t k, gap
        run.inputs = others
        for k in range(self.output_count):
            run.out[k] = cnp.PyArray_DATA(<cnp.ndarray> targets[k])
            run.out_batch_stride[k] = stride(<cnp.ndarray> targets[k], 0)
        for k in range(self.input_count):
            data, gap = cnp.PyArray_DATA(<cnp.ndarray> inputs[k]), stride(<cnp.ndarray> inputs[k], 0)
            if self.ports[k].has_limits:
                if not copy_indices(<cnp.ndarray> inputs[k], self.ports + k, indices):
                    return False
                data, gap = indices, 1
                indices += run.batch
            if k == 0:
                run.x, run.x_batch_stride = data, gap
            else:
                others[k - 1].data, others[k - 1].batch_stride = data, gap
                others[k - 1].time_stride, others[k - 1].timesteps = 0, 1
        return True

    # ---- parts of a step, and other operations on slots; states are (n, units) -----------------

    @cython.critical_section
    def _open(self, tuple states):
        """Open a slot with these states, each (units,); returns its number, or -1 if none is free."""
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
        """Close a slot; True if it was open. Its place is free at once, or when its step ends."""
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
        """True if there has been a slot of that number."""
        cdef cnp.int64_t number
        if slot < 0 or self.capacity == 0:
            return False
        number = (<cnp.int64_t *> cnp.PyArray_DATA(self.numbers))[slot % self.capacity]
        return slot < (number if number >= 0 else -1 - number)

    def _state(self, long long slot):
        """Copies of the states of a slot, each (units,), as its last step left them; None if it is not open."""
        cdef Py_ssize_t k, place
        rows = []
        for state in self.states:
            rows.append(np.empty(state.shape[1], state.dtype))
        with cython.critical_section(self):
            place = self.place(slot)
            if place >= 0:
                for k in range(len(rows)):
                    gather(<char *> cnp.PyArray_DATA(<cnp.ndarray> rows[k]), self.states[k], &place, 1)
        return rows if place >= 0 else None

    def _rows(self, places):
        """Copies of the states at these places."""
        rows = []
        for state in self.states:
            rows.append(state[places])
        return rows

    @cython.critical_section
    def _set_rows(self, cnp.ndarray places, tuple states):
        """Set the states at these places: each (n, units), or (units,) for all, C-contiguous."""
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
    """Reserves slots, (n,) of int64, or for None all open ones, while a block runs, which gets their places.

    As for `Alone`, no interrupt is handled between `__enter__` and the block.
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
        try:
            self.places = places[:n]
        except BaseException:
            with cython.critical_section(pool):
                pool.release(<const Py_ssize_t *> cnp.PyArray_DATA(places), n)
            raise
        return self.places

    def __exit__(self, *_):
        with cython.critical_section(self.pool):
            self.pool.release(
                <const Py_ssize_t *> cnp.PyArray_DATA(self.places), cnp.PyArray_DIMS(self.places)[0])


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
    cdef size_t width = cnp.PyArray_STRIDES(states)[0], gap = width if each else 0
    cdef Py_ssize_t i
    for i in range(count):
        memcpy(<char *> cnp.PyArray_DATA(states) + places[i] * width, rows + i * gap, width)
