"""One step at a time: the state of a stream, and of many clients' streams in one place."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fastgru import _threads, _validate, _validate_streams
from fastgru._cascade import Cascade
from fastgru._pool import Claim, Slots
from fastgru._streams import Alone, Steps

Array = NDArray[Any]


class Streamable:
    """Base of layers: gives them streams."""

    def _cascade(self) -> Cascade:
        """What a stream runs.

        Raises
        ------
        ValueError
            If the layer cannot compute while its input arrives, or is not built.
        """
        raise NotImplementedError

    def stream(self, batch: int = 1, *, num_threads: int | str | None = None) -> "Stream":
        """A `fastgru.Stream`: the layer's state, advanced as inputs arrive, a step or more at a time.

        Parameters
        ----------
        batch : int
            Rows that are advanced together.
        num_threads : int or 'auto', optional
            Threads that a step may have; by default those of the layer.

        Raises
        ------
        ValueError
            If the layer is not built, reads sequences from their end (Bidirectional, `go_backwards`) or has a
            `default_state` of another batch, if a layer of a model needs the whole sequence, or `batch` is
            less than 1.
        TypeError
            If `batch` is no integer.
        """
        return Stream(self, batch, num_threads=num_threads)


def _cascade_of(layer: Any, num_threads: int | str | None) -> Cascade:
    """What a stream of a layer runs, on this many threads."""
    if not isinstance(layer, Streamable):
        raise TypeError(
            f"layer must be a GRU, a Stack or a Model, got {layer!r} of type {type(layer).__name__}"
        )
    threads = _threads.asked(num_threads)
    cascade = layer._cascade()
    if threads and cascade.network is not None:
        cascade.network.threads = threads
    return cascade


def _one_or_all(several: list[Any]) -> Any:
    """The only one of them, or a tuple of all."""
    return tuple(several) if len(several) > 1 else several[0]


class Stream(Steps):
    """One or more streams of a layer, side by side: their state, advanced as their inputs arrive.

    `layer.stream(batch)` makes one. It keeps the weights that the layer has then, and starts from zeros or
    the layer's `default_state`. Flags of the layer that say what a call returns have no meaning here.

    ``stream(x, out=None)`` runs one step of every row, or several. On the packed engine outputs and states
    are those of one call of the layer over the whole sequence, bit for bit.

    Parameters
    ----------
    layer : GRU, Stack or Model
        It is built, its GRUs go forward, and no node of a Model needs later timesteps.
    batch : int
        Rows that are advanced together.

    Raises
    ------
    ValueError
        If the layer is not built, reads sequences from their end (Bidirectional, `go_backwards`) or has a
        `default_state` of another batch, or `batch` is less than 1. If a Model cannot run step by step; names
        the layers.
    TypeError
        If an argument is of the wrong type.

    Notes
    -----
    Arguments of a call:

    x : ndarray, (batch, features) or (batch, timesteps, features)
        A step; or a chunk of any number of them, time-major if the layer is. Of the layer's dtype it is read
        in place; other float types are cast. Where a Model reads indices: (batch,) or (batch, 1) is a step,
        (batch, timesteps) another chunk; integers of any type. For a Model of several inputs, a list of
        arrays in the order of `input_names`, or a dict by these names; all have as many timesteps. An input
        of the Model that has no timesteps is (batch, width), in each step and each chunk.
    out : ndarray, optional
        Where to write the outputs: (batch, units), or (batch, timesteps, units) for a chunk. For a Model of
        several outputs, a list of arrays in the order of `output_names`.

    A call returns `out` if it is given. Otherwise a step returns **an array that the next step overwrites**,
    the same one each time, and a chunk returns a new array; for several outputs they return a list of such
    arrays. It raises a ValueError if a shape or a number of arrays does not fit, or `out` has another dtype
    or is read-only; a TypeError if an argument is not an array of floats; and a RuntimeError if another call
    is running. A call that fails leaves the state as it was.

    A step of arrays of the layer's dtype, in a list or tuple if there are several, releases the GIL, and
    allocates nothing but the list that it returns.

    Examples
    --------
    >>> import numpy as np
    >>> import fastgru
    >>> layer = fastgru.GRU(4, input_shape=(None, 3))
    >>> layer.build()
    >>> stream = layer.stream()
    >>> for frame in np.zeros((10, 1, 3), np.float32):
    ...     y = stream(frame)
    >>> y.shape, stream.state.shape
    ((1, 4), (1, 4))
    """

    def __init__(self, layer: Any, batch: int = 1, *, num_threads: int | str | None = None) -> None:
        cascade, batch = _cascade_of(layer, num_threads), _validate.positive("batch", batch)
        states, outputs = tuple(cascade.default_states(batch)), cascade.zeros(batch)
        super().__init__(cascade.network, states, outputs, cascade.input_kinds)
        self._cascade, self._batch = cascade, batch  # not before: a second call of __init__ has been refused

    def __repr__(self) -> str:
        return f"<Stream of {self._cascade.layers!r}: batch {self._batch}>"

    @property
    def batch(self) -> int:
        """Rows that are advanced together."""
        return self._batch

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of what a call takes, in its order; of a layer "x"."""
        return tuple(one.name for one in self._cascade.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of what a call returns, in its order; of a layer "out"."""
        return tuple(one.name for one in self._cascade.outputs)

    @property
    def state(self) -> Any:
        """A copy of the state, (batch, units), in the compute dtype; for a Stack or a Model a list of them.

        It can be assigned: the values are copied, and other float types cast.

        Raises
        ------
        ValueError
            If it is set to arrays of another number or shape.
        TypeError
            If it is set to what is no array of floats.
        RuntimeError
            If another thread's call is running.
        """
        with Alone(self):
            return self._cascade.handed_out([state.copy() for state in self._states()])

    @state.setter
    def state(self, value: Any) -> None:
        states = self._cascade.given_states(value, self._batch)
        with Alone(self):
            self._assign(states)

    def reset(self, rows: Any = None) -> None:
        """Start again from zeros or the layer's `default_state`.

        Parameters
        ----------
        rows : int or array_like of int, optional
            Which ones, from 0 on; by default all.

        Raises
        ------
        ValueError
            If a row is not in the batch.
        TypeError
            If they are no integers.
        RuntimeError
            If another thread's call is running.
        """
        chosen = slice(None) if rows is None else _validate_streams.rows(rows, self._batch)
        first = self._cascade.default_states(self._batch)
        with Alone(self):
            states = [state.copy() for state in self._states()]
            for state, start in zip(states, first, strict=True):
                state[chosen] = start[chosen]
            self._assign(states)

    def copy(self) -> Self:
        """Another stream in the same state, with the same weights.

        Raises
        ------
        RuntimeError
            If another thread's call is running.
        """
        other = type(self).__new__(type(self))
        with Alone(self):
            states, outputs = tuple(self._states()), self._cascade.zeros(self._batch)
            Steps.__init__(other, self._cascade.network, states, outputs, self._cascade.input_kinds)
        other.__dict__.update(self.__dict__)
        return other

    def _long_step(self, x: Any, out: Any) -> Any:
        """Any call: check and convert the arguments; a step is a chunk of one."""
        cascade = self._cascade
        inputs, single = _validate_streams.stream_inputs(x, cascade.inputs, self._batch, cascade.time_major)
        steps = next(a.shape[:2] for a, one in zip(inputs, cascade.inputs, strict=True) if one.has_steps)
        shapes = cascade.shapes(self._batch, None if single else steps)
        targets = _validate_streams.targets(out, cascade.outputs, shapes)
        if 0 in steps and not all(one.has_steps for one in cascade.outputs):
            raise ValueError("x must have a timestep or more, as an output has none, got 0")
        if targets is None and single:
            targets = [*self._outputs]
        if cascade.network is not None:
            outputs = self._chunk(_one_or_all(inputs), targets, single)
        else:
            with Alone(self):
                outputs, states = np.empty(shapes[0], cascade.outputs[0].dtype), self._states()
                if 0 not in steps:
                    found, states = cascade.run(inputs[0], states)
                    outputs = found.reshape(shapes[0])
                if targets is not None:
                    targets[0][...] = outputs  # first, as it may fail: a user may have changed its shape
                self._assign([np.require(state, requirements=["C", "A"]) for state in states])
        if out is not None or targets is None:
            return outputs if out is None else out
        return targets if len(targets) > 1 else targets[0]


class StreamPool(Slots):
    """Streams of many clients over one set of weights. Each has a slot, and any of them step together.

    Parameters
    ----------
    layer : GRU, Stack or Model
        As for `Stream`. The pool keeps the weights that the layer has now.
    capacity : int
        Slots that may be open at a time. Each takes the bytes of its state, and 17 more.
    num_threads : int or 'auto', optional, keyword
        As of `Stream`.

    Raises
    ------
    ValueError
        If the layer is not built, reads sequences from their end (Bidirectional, `go_backwards`) or has a
        `default_state` of several rows, or `capacity` is less than 1.
    TypeError
        If an argument is of the wrong type.

    Notes
    -----
    Any number of threads may use a pool, and steps of different slots run side by side. A method that fails
    leaves every slot as it was.

    Examples
    --------
    >>> import numpy as np
    >>> import fastgru
    >>> layer = fastgru.GRU(4, input_shape=(None, 3))
    >>> layer.build()
    >>> pool = fastgru.StreamPool(layer, capacity=1000)
    >>> alice, bob = pool.open(), pool.open()
    >>> pool.step([bob, alice], np.zeros((2, 3), np.float32)).shape
    (2, 4)
    >>> moved = fastgru.StreamPool(layer, capacity=10).open(pool.state(bob))
    >>> pool.close(bob)
    >>> len(pool)
    1
    """

    def __init__(self, layer: Any, capacity: int, *, num_threads: int | str | None = None) -> None:
        cascade, capacity = _cascade_of(layer, num_threads), _validate.positive("capacity", capacity)
        first = tuple(state[0] for state in cascade.default_states(1))
        states = tuple(np.zeros((capacity, len(state)), state.dtype) for state in first)
        super().__init__(cascade.network, states, capacity, cascade.input_kinds)
        self._cascade, self._first = cascade, first  # not before: a second call of __init__ has been refused

    def __repr__(self) -> str:
        return f"<StreamPool of {self._cascade.layers!r}: {len(self)} of {self.capacity} slots open>"

    input_names = Stream.input_names
    output_names = Stream.output_names

    @property
    def features(self) -> Any:
        """Size of the last axis of inputs; of several a tuple."""
        return _one_or_all([one.width for one in self._cascade.inputs])

    @property
    def units(self) -> Any:
        """Size of the last axis of outputs; of several a tuple."""
        return _one_or_all([one.width for one in self._cascade.outputs])

    @property
    def dtype(self) -> str:
        """Name of the type of outputs, and of inputs that are numbers."""
        return self._cascade.outputs[0].dtype.name

    @property
    def takes_indices(self) -> Any:
        """True if inputs are integers, which a Model looks up in a table; of several a tuple."""
        return _one_or_all([one.limits is not None for one in self._cascade.inputs])

    def open(self, state: Any = None) -> int:
        """A new slot.

        Parameters
        ----------
        state : ndarray, shape (units,), optional
            As `state` of this or another pool returns it: a list of them for a Stack or a Model. Defaults
            to zeros or the layer's `default_state`.

        Returns
        -------
        int
            Its number, which no other slot of this pool gets, neither now nor later.

        Raises
        ------
        ValueError
            If all slots are open, or the state has another shape.
        TypeError
            If the state is no array of floats.
        """
        states = self._first if state is None else tuple(self._cascade.given_states(state, None))
        slot = self._open(states)
        if slot < 0:
            raise ValueError(
                f"slots must be closed before more are opened: all {self.capacity} are open, or closed in a "
                "step that is running"
            )
        return slot

    def close(self, slot: int) -> None:
        """Give a slot back. A step of it that is running ends as usual.

        Raises
        ------
        ValueError
            If the slot is not open.
        TypeError
            If it is no integer.
        """
        if not self._close(_validate_streams.slot(slot)):
            raise ValueError(f"slot must be open, got {slot}, which {self._why_not(slot)}")

    def state(self, slot: int) -> Any:
        """A copy of a slot's state, (units,), as its last step left it; for a Stack or Model a list of them.

        It may be pickled, and `open` of any pool of the layer takes it.

        Raises
        ------
        ValueError
            If the slot is not open.
        TypeError
            If it is no integer.
        """
        states = self._state(_validate_streams.slot(slot))
        if states is None:
            raise ValueError(f"slot must be open, got {slot}, which {self._why_not(slot)}")
        return self._cascade.handed_out(states)

    def reset(self, slots: Any = None) -> None:
        """Let slots start again from zeros or the layer's `default_state`.

        Parameters
        ----------
        slots : int or array_like of int, optional
            Their numbers; by default all that are open.

        Raises
        ------
        ValueError
            If one is not open, is listed twice, or is in a step that is running.
        TypeError
            If they are no integers.
        """
        with Claim(self, None if slots is None else _validate_streams.slots(slots, one=True)) as places:
            self._set_rows(places, self._first)

    def _long_step(self, slots: Any, x: Any, out: Any) -> Any:
        """Any step: check and convert the arguments; then take the short path, if there is one."""
        cascade = self._cascade
        numbers = _validate_streams.slots(slots)
        rows = len(numbers)
        inputs = _validate_streams.slot_inputs(x, cascade.inputs, rows)
        targets = _validate_streams.targets(out, cascade.outputs, cascade.shapes(rows, None))
        outputs = [np.empty((rows, one.width), one.dtype) for one in cascade.outputs]
        if rows and cascade.network is not None:
            super().step(numbers, _one_or_all(inputs), _one_or_all(outputs))
        elif rows:
            with Claim(self, numbers) as places:
                sequence = np.expand_dims(inputs[0], 0 if cascade.time_major else 1)
                found, states = cascade.run(sequence, self._rows(places))
                outputs[0][...] = found.reshape(outputs[0].shape)
                self._set_rows(places, tuple(np.require(state, requirements=["C", "A"]) for state in states))
        if targets is None:
            return outputs if len(outputs) > 1 else outputs[0]
        for target, output in zip(targets, outputs, strict=True):
            target[...] = output
        return out

    def _complain(self, slots: Array, bad: int) -> None:
        """Say why a slot cannot be stepped."""
        slot = int(slots[bad])
        if slot in slots[:bad]:
            raise ValueError(f"slots must hold each one once, got {slot} twice")
        if self._state(slot) is None:
            raise ValueError(f"slots must be open, got {slot}, which {self._why_not(slot)}")
        raise ValueError(f"slots must be in one step at a time, got {slot}, which another thread is stepping")

    def _why_not(self, slot: int) -> str:
        """Why a slot is not open, as the end of a sentence."""
        return "has been closed" if self._was_open(slot) else "the pool never gave"
