"""The GRU layer of Keras, `tf.compat.v1.keras.layers.GRU`, for inference on arrays."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fastgru import _config, _random, _validate, activations, constraints, initializers, regularizers
from fastgru._core import Plan, float16_isas, rows_are_whole
from fastgru._layer import Weight, WeightedLayer
from fastgru._loop import Loop
from fastgru._validate import InputSpec

Array = NDArray[Any]


def _read_only(name: str) -> property:
    return property(lambda layer: getattr(layer, "_" + name), doc=f"The constructor's `{name}`; read-only.")


class GRU(WeightedLayer):
    """Gated recurrent unit: arguments, results, masks and states of Keras' version 1 layer.

    Parameters
    ----------
    units : int
        Size of the state and of the output.
    activation, recurrent_activation : str, callable, dict or None
        Of the candidate, and of the gates z and r. Names as in `fastgru.activations`; None is
        linear; a callable maps (batch, units) to (batch, units) and runs in Python.
    use_bias : bool
        Is there a bias?
    kernel_initializer, recurrent_initializer, bias_initializer : str, callable, dict or None
        What weights start from; None is glorot_uniform, for the bias too.
    kernel_regularizer, recurrent_regularizer, bias_regularizer : str, callable, dict or None
        Losses of the weights, in `losses`.
    activity_regularizer : str, callable, dict or None
        Loss of every array that a call returns, over its first axis' length, in `losses`.
    kernel_constraint, recurrent_constraint, bias_constraint : str, callable, dict or None
        What `apply_constraints` projects weights with.
    dropout, recurrent_dropout : float
        Fraction of the input's and of the state's elements that a call with `training=True` drops,
        the same ones at every step; clipped to [0, 1].
    return_sequences : bool
        Return the output of every step, or of the last one?
    return_state : bool
        Return the last state too?
    go_backwards : bool
        Run from the last timestep to the first? Outputs come in the order of the run.
    stateful : bool
        Does a call start from the state in which the one before ended?
    unroll : bool
        Accepted for Keras' sake: there is one way to run, and results are the same.
    reset_after : bool
        Is the reset gate applied after the recurrent product, as cuDNN, PyTorch and ONNX do, or
        before it?
    implementation : {1, 2}, keyword
        2 drops the same input elements for all gates, and so does 0, but in a config, where it means 1.
        `recurrent_dropout` sets it to 1.
    time_major : bool, keyword
        Do inputs, masks and sequences have the shape (timesteps, batch, ...)?
    zero_output_for_mask : bool, keyword
        Is the output of a masked step zero, or that of the step before?
    weights_dtype : {None, 'float32', 'float64', 'float16'}, keyword
        Type that the kernels are kept in for the computation; by default that of the computation.
        With 'float16' every weight but the bias is rounded to the nearest float16, and the sums are
        float32's; the packed engine then reads half as many bytes, and reading is what one row's time is
        spent on. `get_weights` returns what was set.
    keras_version : {2, 3}, keyword
        Whose rules hold where Keras 3 has others: with 3 a stateful layer that is given an initial state
        starts every call from it, with 2 (version 1, too) only the first one, and with 3 a layer that is not
        trainable has no losses of its weights.
    default_state : array_like, shape (units,) or (batch, units), keyword
        The state that a call starts from which is given none, and a stateful layer after
        `reset_states()`; zeros by default. A network may have been trained with one.
    batch_input_shape, input_shape, batch_size, input_dim, input_length : keyword
        The shape of inputs, for the config and for `build()` without an argument.
    name, dtype, trainable, weights : keyword
        `dtype`: float32, float64, or float16, which is computed in float32. `weights`: what the
        layer is built with instead of the initializers' values.

    Raises
    ------
    ValueError
        If an argument has a value out of range or an unknown name.
    TypeError
        If an argument is of the wrong type or unknown.

    Notes
    -----
    With x the input, h the state, f the recurrent activation and g the activation::

        z  = f(x.Wz + bz + h.Uz)              update gate
        r  = f(x.Wr + br + h.Ur)              reset gate
        hh = g(x.Wh + bh + (r * h).Uh)        candidate
        h' = z * h + (1 - z) * hh             state and output

    and with `reset_after`, where there is a recurrent bias c, too::

        z  = f(x.Wz + bz + h.Uz + cz)
        r  = f(x.Wr + br + h.Ur + cr)
        hh = g(x.Wh + bh + r * (h.Uh + ch))

    Weights: kernel W (features, 3 * units), recurrent_kernel U (units, 3 * units) and bias b (3 * units,),
    or (2, 3 * units) with `reset_after`, b and c; columns z | r | h.

    Calls release the GIL, except where activations or dropout run in Python, and any number of threads
    may share a layer; a stateful one runs them one after the other.

    References
    ----------
    Cho et al. 2014, arXiv:1406.1078: version 3 with the reset before, version 1 with the reset after.

    Examples
    --------
    >>> import numpy as np
    >>> import fastgru
    >>> layer = fastgru.GRU(4, return_sequences=True, return_state=True)
    >>> outputs, state = layer(np.zeros((2, 5, 3), np.float32))
    >>> outputs.shape, state.shape
    ((2, 5, 4), (2, 4))
    """

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "hard_sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        reset_after: bool = False,
        *,
        implementation: int = 1,
        time_major: bool = False,
        zero_output_for_mask: bool = False,
        weights_dtype: Any = None,
        default_state: Any = None,
        keras_version: int = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._weights_dtype = _validate.weights_dtype(
            weights_dtype, self._compute_dtype, _config.CHOICE.isa in float16_isas()
        )
        self._keras_version = _validate.keras_version(keras_version)
        self._units = _validate.units(units)
        self._activation = activations.get(activation)
        self._recurrent_activation = activations.get(recurrent_activation)
        self._use_bias = _validate.flag("use_bias", use_bias)
        self._kernel_initializer = initializers.get(kernel_initializer)
        self._recurrent_initializer = initializers.get(recurrent_initializer)
        self._bias_initializer = initializers.get(bias_initializer)
        self._kernel_regularizer = regularizers.get(kernel_regularizer)
        self._recurrent_regularizer = regularizers.get(recurrent_regularizer)
        self._bias_regularizer = regularizers.get(bias_regularizer)
        self.activity_regularizer = regularizers.get(activity_regularizer)
        self._kernel_constraint = constraints.get(kernel_constraint)
        self._recurrent_constraint = constraints.get(recurrent_constraint)
        self._bias_constraint = constraints.get(bias_constraint)
        self._dropout = _validate.rate("dropout", dropout)
        self._recurrent_dropout = _validate.rate("recurrent_dropout", recurrent_dropout)
        self._implementation = _validate.implementation(implementation)
        if self._recurrent_dropout:
            self._implementation = 1
        self._reset_after = _validate.flag("reset_after", reset_after)
        self.return_sequences = _validate.flag("return_sequences", return_sequences)
        self.return_state = _validate.flag("return_state", return_state)
        self.go_backwards = _validate.flag("go_backwards", go_backwards)
        self.stateful = _validate.flag("stateful", stateful)
        self.unroll = _validate.flag("unroll", unroll)
        self.time_major = _validate.flag("time_major", time_major)
        self.zero_output_for_mask = _validate.flag("zero_output_for_mask", zero_output_for_mask)
        self._default_state = (
            None
            if default_state is None
            else _validate.default_state(default_state, self._units, self._compute_dtype)
        )
        self._state: Array | None = None

    def __repr__(self) -> str:
        features = self._weights[0].shape[0] if self.built else "unknown"
        return f"<GRU {self.name!r}: {features} features, {self._units} units, {self.dtype}>"

    # ---- arguments -------------------------------------------------------------------------

    units = _read_only("units")
    activation = _read_only("activation")
    recurrent_activation = _read_only("recurrent_activation")
    use_bias = _read_only("use_bias")
    kernel_initializer = _read_only("kernel_initializer")
    recurrent_initializer = _read_only("recurrent_initializer")
    bias_initializer = _read_only("bias_initializer")
    kernel_regularizer = _read_only("kernel_regularizer")
    recurrent_regularizer = _read_only("recurrent_regularizer")
    bias_regularizer = _read_only("bias_regularizer")
    kernel_constraint = _read_only("kernel_constraint")
    recurrent_constraint = _read_only("recurrent_constraint")
    bias_constraint = _read_only("bias_constraint")
    dropout = _read_only("dropout")
    recurrent_dropout = _read_only("recurrent_dropout")
    implementation = _read_only("implementation")
    reset_after = _read_only("reset_after")
    keras_version = _read_only("keras_version")

    @property
    def weights_dtype(self) -> str:
        """Name of the type that the kernels are kept in for the computation."""
        return self._weights_dtype.name

    @property
    def default_state(self) -> Array | None:
        """The state that a call starts from which is given none, (1 or batch, units); None: zeros."""
        return self._default_state

    # ---- building --------------------------------------------------------------------------

    def build(self, input_shape: Any = None) -> None:
        """Make the weights; the first call does this by itself.

        Parameters
        ----------
        input_shape : tuple, optional
            (batch, timesteps, features), or (timesteps, batch, features) if `time_major`; None fits
            any size, but features must be known, and batch too if the layer is stateful. By default
            the shape that the constructor was given.

        Raises
        ------
        ValueError
            If the shape is none, a stateful layer's batch is unknown or 0, the layer has been built
            for other features, or the constructor's weights do not fit.
        TypeError
            If the features are unknown.
        """
        given = self._batch_input_shape if input_shape is None else input_shape
        shape = _validate.shape("input_shape", given)
        if len(shape) < 3 or shape[-1] is None:
            raise TypeError(
                f"input_shape must be (batch, timesteps, features) with features known, got {shape}"
            )
        features, batch = shape[-1], shape[1 if self.time_major else 0]
        with self._lock:
            if not self.built:
                self._build(features, batch)
                return
            if features != self._weights[0].shape[0]:
                raise ValueError(
                    f"input_shape must end in {self._weights[0].shape[0]}, the features that the layer "
                    f"{self.name} has been built for, got {shape}"
                )
            if self.stateful and self._state is not None and batch != self._state.shape[0]:
                raise ValueError(
                    f"input_shape must have the batch {self._state.shape[0]} that the stateful layer "
                    f"{self.name} has been built for, got {shape}"
                )

    def _build(self, features: int, batch: int | None) -> None:
        state = self._first_state(batch) if self.stateful else None
        self._build_weights(features)
        if state is not None:
            self._keep(state)

    def _build_weights(self, features: int) -> None:
        """All that does not need the batch of a stateful layer, whose first call then gives it."""
        if features > _validate.BLAS_LIMIT:
            raise ValueError(f"input_shape must have at most {_validate.BLAS_LIMIT} features, got {features}")
        self._add_weights(self._weight_specs(features))

    def _weight_specs(self, features: int) -> list[Weight]:
        """kernel, recurrent_kernel, bias, and an alpha for every PReLU."""
        width = 3 * self._units
        glorot = initializers.get("glorot_uniform")
        specs = [
            Weight(
                "kernel",
                (features, width),
                self._kernel_initializer or glorot,
                self._kernel_regularizer,
                self._kernel_constraint,
            ),
            Weight(
                "recurrent_kernel",
                (self._units, width),
                self._recurrent_initializer or glorot,
                self._recurrent_regularizer,
                self._recurrent_constraint,
            ),
        ]
        if self._use_bias:
            specs.append(
                Weight(
                    "bias",
                    (2, width) if self._reset_after else (width,),
                    self._bias_initializer or glorot,
                    self._bias_regularizer,
                    self._bias_constraint,
                )
            )
        for activation in (self._activation, self._recurrent_activation):
            if isinstance(activation, activations.PReLU):
                specs.append(
                    Weight(
                        "alpha",
                        activation.alpha_shape(self._units),
                        activation.alpha_initializer or glorot,
                        activation.alpha_regularizer,
                        activation.alpha_constraint,
                    )
                )
        return specs

    def _prepare(self, arrays: tuple[Array, ...]) -> Plan | Loop:
        kernel, recurrent_kernel, bias = self._computed(arrays)
        f, g = (
            a.kernel if isinstance(a, activations.Activation) else None
            for a in (self._recurrent_activation, self._activation)
        )
        if f is None or g is None:
            return self._loop(arrays)
        float16 = self._weights_dtype == np.float16
        return Plan(kernel, recurrent_kernel, bias, self._reset_after, g, f, *_config.CHOICE, float16)

    def _computed(self, arrays: tuple[Array, ...]) -> tuple[Array, Array, Array | None]:
        """kernel, recurrent_kernel and bias in the dtype that is computed in."""
        kernel, recurrent_kernel, *rest = (array.astype(self._compute_dtype, copy=False) for array in arrays)
        if self._weights_dtype == np.float16:
            kernel = _validate.halved("kernel", kernel)
            recurrent_kernel = _validate.halved("recurrent_kernel", recurrent_kernel)
        return kernel, recurrent_kernel, rest[0] if self._use_bias else None

    def _loop(self, arrays: tuple[Array, ...], **dropout: Any) -> Loop:
        alphas = iter(arrays[2 + self._use_bias :])
        activation, recurrent_activation = (
            a.with_alpha(next(alphas)) if isinstance(a, activations.PReLU) else a
            for a in (self._activation, self._recurrent_activation)
        )
        return Loop(*self._computed(arrays), self._reset_after, activation, recurrent_activation, **dropout)

    # ---- calling ---------------------------------------------------------------------------

    def __call__(
        self,
        inputs: Any,
        initial_state: Any = None,
        mask: Any = None,
        training: Any = None,
        *,
        lengths: Any = None,
        out: Any = None,
    ) -> Any:
        """Run the layer.

        Parameters
        ----------
        inputs : ndarray, shape (batch, timesteps, features)
            Or (timesteps, batch, features) if `time_major`; or a list of it and the initial state.
            Of the layer's dtype and with a contiguous last axis it is read in place; other float
            types are cast.
        initial_state : ndarray, shape (batch, units), optional
            Or a list or tuple of it. Zeros or the layer's `default_state` by default. A stateful layer uses
            it only while its own state is that default, or always with `keras_version=3`.
        mask : array_like, shape (batch, timesteps), optional
            Or (timesteps, batch) if `time_major`. At a step where it is false the row keeps its
            state, and its output is that of its last step before, or zeros if there was none; the
            input may then be anything, NaN too.
        training : bool, optional
            Drop out?
        lengths : array_like of int, shape (batch,), optional
            In place of a mask that is true at the first steps of each row: how many these are, 0 to
            timesteps. Packed weights are not read for rows that have ended.
        out : ndarray, optional
            Where to write the output: of exactly its shape and dtype, sharing no memory with the
            inputs, the mask, the states or the weights.

        Returns
        -------
        ndarray or list of two
            The output: (batch, timesteps, units), time-major as the inputs, with `return_sequences`,
            else (batch, units). With `return_state` a list of it and of the last state, (batch, units).

        Raises
        ------
        ValueError
            If a shape does not fit, there is no timestep, a stateful layer's batch is empty, `lengths` are
            no integers, out of range or beside a mask, `out` has another dtype, is read-only or shares
            memory, or a dropout rate is 1 in training.
        TypeError
            If an array is none, or not of floats (integers are not cast), or `training` is no flag.
        """
        plan, results = self._plan, NotImplemented
        if (
            type(plan) is Plan
            and training is None
            and self._dtype is self._compute_dtype
            and self.activity_regularizer is None
            and self._default_state is None
        ):  # the short way, in this one frame: all of a small layer's call takes a microsecond
            if not self.stateful:
                results = plan.call(
                    inputs, initial_state, mask, lengths, out, None, self.time_major, self.go_backwards,
                    self.zero_output_for_mask, self.return_sequences, self.return_state,
                )  # fmt: skip
            elif initial_state is None:
                with self._lock:  # not acquire and try: an interrupt may come between them
                    state = self._state
                    if state is not None:
                        results = plan.call(
                            inputs, state, mask, lengths, out, state, self.time_major, self.go_backwards,
                            self.zero_output_for_mask, self.return_sequences, self.return_state,
                        )  # fmt: skip
        if results is NotImplemented:  # something is to be converted, or complained of
            return self._long_call(inputs, mask, training, initial_state, out, lengths)
        return results

    def call(
        self,
        inputs: Any,
        mask: Any = None,
        training: Any = None,
        initial_state: Any = None,
        *,
        lengths: Any = None,
        out: Any = None,
    ) -> Any:
        """`__call__` with Keras' other order of arguments."""
        return GRU.__call__(self, inputs, initial_state, mask, training, lengths=lengths, out=out)

    def _long_call(
        self,
        inputs: Any,
        mask: Any,
        training: Any,
        initial_state: Any,
        out: Any,
        lengths: Any,
        plan: Plan | Loop | None = None,
        return_state: bool | None = None,
    ) -> Any:
        """Any call: checks and conversions first, then the plan, by default that of the moment."""
        if isinstance(inputs, list):
            inputs, initial_state = _validate.inputs_and_state(inputs, initial_state)
        # flags that shapes depend on are read once here, and all of a call is checked against the plan that
        # it runs with: another thread, or code behind an argument, may change the layer meanwhile
        time_major, sequences, stateful = (
            bool(self.time_major),
            bool(self.return_sequences),
            bool(self.stateful),
        )
        if return_state is None:
            return_state = bool(self.return_state)
        x = _validate.inputs(inputs, self.name, self._compute_dtype)
        batch, timesteps = x.shape[1 if time_major else 0], x.shape[0 if time_major else 1]
        if timesteps == 0:
            raise ValueError(f"inputs must have at least one timestep, got shape {x.shape}")
        read = None if out is None else [x, inputs, initial_state, mask, lengths]
        if initial_state is not None:
            state_shape = (batch, self._units)
            initial_state = _validate.state("initial_state", initial_state, state_shape, self._compute_dtype)
        if not stateful:
            initial_state = self._start(batch, initial_state, stateful)
        if mask is not None:
            mask = _validate.mask(mask, x.shape[:2])
        if lengths is not None:
            if mask is not None:
                raise ValueError("lengths must be given without a mask, got both")
            mask = _validate.lengths(lengths, batch, timesteps)
        target = None
        if read is not None:
            shape = (*x.shape[:2], self._units) if sequences else (batch, self._units)
            read += [initial_state, mask, *self._weights]
            target = _validate.out(out, shape, self._dtype, read)
        if training is not None:
            training = _validate.training(training, self._dropout, self._recurrent_dropout)
        if plan is None:
            if self._plan is None:
                self.build(x.shape)
            plan = self._plan
        if stateful:
            with self._lock:
                self._check_fit(x.shape, batch, plan, self._state)
                initial_state = self._start(batch, initial_state, stateful)
                output, state = self._run(
                    plan, x, batch, initial_state, mask, training, time_major, sequences, target
                )
                results = self._results(output, state, stateful, target, return_state)
                self._keep(state)
        else:
            self._check_fit(x.shape, batch, plan, None)
            output, state = self._run(
                plan, x, batch, initial_state, mask, training, time_major, sequences, target
            )
            results = self._results(output, state, stateful, target, return_state)
        if out is not None:
            results[0] = out
        return results if len(results) > 1 else results[0]

    def _start(self, batch: int, initial_state: Array | None, stateful: bool) -> Array | None:
        """What a call starts from that was given this; None: zeros."""
        if stateful:
            if initial_state is not None and self._keras_version == 3:
                return initial_state
            first = self._first_state(batch)
            recorded = first if self._state is None else self._state
            return recorded if initial_state is None or np.any(recorded != first) else initial_state
        if initial_state is None and self._default_state is not None:
            return _validate.broadcast_state(self._default_state, batch)
        return initial_state

    def _check_fit(
        self, shape: tuple[int, ...], batch: int, plan: Plan | Loop, recorded: Array | None
    ) -> None:
        """Has the input the weights' features and, if there is a recorded state, its batch?"""
        if shape[2] != plan.features or (recorded is not None and batch != recorded.shape[0]):
            raise ValueError(
                f'Input 0 of layer "{self.name}" is incompatible with the layer: expected '
                f"shape={self.input_spec[0].shape}, found shape={shape}"
            )

    def _run(
        self,
        plan: Plan | Loop,
        x: Array,
        batch: int,
        initial_state: Array | None,
        mask: Array | None,
        training: bool | None,
        time_major: bool,
        sequences: bool,
        out: Array | None,
    ) -> tuple[Array, Array]:
        """The output of a checked call and the last state, as computed; a mask of one axis is lengths."""
        if training and (self._dropout or self._recurrent_dropout):
            plan = self._loop(self._weights, **self._dropout_masks(batch, x.shape[2]))
        if mask is not None and mask.ndim == 1 and not (isinstance(plan, Plan) and plan.engine == "packed"):
            mask = _validate.mask_of_lengths(mask, x.shape[0 if time_major else 1], time_major)
        state = np.empty((batch, self._units), self._compute_dtype)
        if initial_state is not None:
            initial_state = np.require(initial_state, self._compute_dtype, ["C", "A"])
        output: Array | None = None  # or else it is the state
        if sequences or mask is not None:
            shape = (*x.shape[:2], self._units) if sequences else state.shape
            in_place = out is not None and out.dtype == self._compute_dtype and rows_are_whole(out)
            output = out if in_place else np.empty(shape, self._compute_dtype)
        plan.run(
            x, initial_state, state, output, mask, time_major, self.go_backwards, self.zero_output_for_mask
        )
        return state if output is None else output, state

    def _results(
        self, output: Array, state: Array, recorded: bool, out: Array | None, return_state: bool
    ) -> list[Array]:
        """In the layer's dtype; no array is another one, or the state that will be recorded."""
        if out is not None:
            if output is not out:
                with np.errstate(over="ignore"):
                    np.copyto(out, output, casting="same_kind")
            output = out
        elif output.dtype != self._dtype:
            output = _validate.cast(output, self._dtype)
        elif output is state and (return_state or recorded):
            output = output.copy()
        results = [output]
        if return_state:
            results.append(_validate.cast(state.copy() if recorded else state, self._dtype))
        if self.activity_regularizer is not None:
            with np.errstate(all="ignore"):  # over the length of the first axis; of an empty batch: 0
                self._activity_losses = [
                    self.activity_regularizer(array) / (array.shape[0] or np.inf)
                    for array in results[: 1 + bool(self.return_state)]
                ]
        return results

    def _dropout_masks(self, batch: int, features: int) -> dict[str, list[Array]]:
        """Arguments of Loop: 0 with probability p, else 1 / (1 - p), drawn anew for every call."""
        masks = {}
        for name, rate, size in (
            ("input_masks", self._dropout, features),
            ("recurrent_masks", self._recurrent_dropout, self._units),
        ):
            if rate:
                kept = _random.generator().random((3, batch, size)) >= rate
                masks[name] = list(kept.astype(self._compute_dtype) / self._compute_dtype.type(1 - rate))
        if "input_masks" in masks and self._implementation != 1:
            masks["input_masks"] = masks["input_masks"][:1] * 3
        return masks

    # ---- state -----------------------------------------------------------------------------

    def _first_state(self, batch: int | None) -> Array:
        """What is recorded before the first call, of a batch that is not empty."""
        if not batch:
            raise ValueError(
                "If a RNN is stateful, it needs to know its batch size: build the layer with (batch, "
                f"timesteps, features), or call it, with a batch that is not empty, got batch={batch}"
            )
        if self._default_state is None:
            return np.zeros((batch, self._units), self._dtype)
        return _validate.broadcast_state(self._default_state, batch).astype(self._dtype)

    def _keep(self, state: Array) -> None:
        """Record a state, which no one else holds: calls write into it."""
        self._state = _validate.cast(state, self._dtype)

    @property
    def states(self) -> list[Array | None]:
        """[state] of a stateful layer once it is built, (batch, units), a read-only copy; else [None]."""
        with self._lock:
            return [
                _validate.frozen(self._state.copy()) if self.stateful and self._state is not None else None
            ]

    def reset_states(self, states: Any = None) -> None:
        """Set the recorded state of a stateful layer.

        Parameters
        ----------
        states : ndarray, shape (batch, units), optional
            Or a list or tuple of it; copied. By default zeros, or the layer's `default_state`.

        Raises
        ------
        AttributeError
            If the layer is not stateful.
        ValueError
            If the batch size is unknown because the layer is not built, or there is not one state of
            the right shape and of a type that can be cast to the layer's.
        """
        if not self.stateful:
            raise AttributeError("Layer must be stateful.")
        with self._lock:
            if self._state is None:
                raise ValueError(
                    "If a RNN is stateful, it needs to know its batch size: build the layer with "
                    "(batch, timesteps, features), or call it, before its states are reset"
                )
            shape = self._state.shape
            if states is None:
                self._keep(self._first_state(shape[0]))
            else:
                self._keep(_validate.recorded_state(states, self.name, shape, self._dtype))

    def get_initial_state(self, inputs: Any) -> list[Array]:
        """The state that a call with these inputs starts from by default, (batch, units), in their type.

        Raises
        ------
        ValueError
            If the inputs have no shape (batch, timesteps, features), or not the batch of a `default_state`.
        """
        array = _validate.initial_state_inputs(inputs)
        state = np.zeros((array.shape[1 if self.time_major else 0], self._units), array.dtype)
        if self._default_state is not None:
            state[...] = _validate.broadcast_state(self._default_state, len(state))
        return [state]

    # ---- shapes and masks ------------------------------------------------------------------

    @property
    def input_spec(self) -> list[InputSpec]:
        """What a call expects of its inputs: their rank, and once built the shape."""
        if self._plan is None:
            return [InputSpec(ndim=3)]
        batch = self._state.shape[0] if self.stateful and self._state is not None else None
        features = self._plan.features
        return [InputSpec(shape=(None, batch, features) if self.time_major else (batch, None, features))]

    @property
    def state_spec(self) -> list[InputSpec] | None:
        """What a call expects of its initial state; None before the layer is built."""
        return None if self._plan is None else [InputSpec(shape=(None, self._units))]

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Shape of what a call returns for inputs of this shape: a tuple, or a list of two.

        Raises
        ------
        ValueError
            If `input_shape` is no shape of two axes or more.
        TypeError
            If one of its sizes is no integer.
        """
        shape = _validate.shape("input_shape", input_shape)
        if len(shape) < 2:
            raise ValueError(f"input_shape must be (batch, timesteps, features), got {shape}")
        state = (shape[1] if self.time_major else shape[0], self._units)
        output = (*shape[:2], self._units) if self.return_sequences else state
        return [output, state] if self.return_state else output

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """Mask of what a call returns: the mask for sequences, None for all else."""
        if isinstance(mask, (list, tuple)):
            mask = mask[0] if mask else None
        output = mask if self.return_sequences else None
        return [output, None] if self.return_state else output

    # ---- config ----------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        config = super().get_config() | {
            "return_sequences": self.return_sequences,
            "return_state": self.return_state,
            "go_backwards": self.go_backwards,
            "stateful": self.stateful,
            "unroll": self.unroll,
            "time_major": self.time_major,
        }
        if self.zero_output_for_mask:
            config["zero_output_for_mask"] = True
        if self._keras_version != 2:
            config["keras_version"] = self._keras_version
        if self._weights_dtype != self._compute_dtype:
            config["weights_dtype"] = self.weights_dtype
        if self._default_state is not None:
            config["default_state"] = self._default_state.tolist()
        return config | {
            "units": self._units,
            "activation": activations.serialize(self._activation),
            "recurrent_activation": activations.serialize(self._recurrent_activation),
            "use_bias": self._use_bias,
            "kernel_initializer": initializers.serialize(self._kernel_initializer),
            "recurrent_initializer": initializers.serialize(self._recurrent_initializer),
            "bias_initializer": initializers.serialize(self._bias_initializer),
            "kernel_regularizer": regularizers.serialize(self._kernel_regularizer),
            "recurrent_regularizer": regularizers.serialize(self._recurrent_regularizer),
            "bias_regularizer": regularizers.serialize(self._bias_regularizer),
            "activity_regularizer": regularizers.serialize(self.activity_regularizer),
            "kernel_constraint": constraints.serialize(self._kernel_constraint),
            "recurrent_constraint": constraints.serialize(self._recurrent_constraint),
            "bias_constraint": constraints.serialize(self._bias_constraint),
            "dropout": self._dropout,
            "recurrent_dropout": self._recurrent_dropout,
            "implementation": self._implementation,
            "reset_after": self._reset_after,
        }

    @property
    def losses(self) -> list[Any]:
        losses = super().losses
        if self._keras_version == 3 and not self.trainable:
            return losses[: len(losses) - sum(spec.regularizer is not None for spec in self._specs)]
        return losses

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:  # calls write into the recorded state
            state = super().__getstate__()
            if self._state is not None:
                state["_state"] = self._state.copy()
        return state

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        if "seed" in config:  # as Keras 3 alone has it
            from fastgru.formats import _keras_config

            config = _keras_config.arguments_of_keras_3(config)
        # where TensorFlow reads its variables means nothing here
        config = {key: value for key, value in config.items() if key != "enable_caching_device"}
        if config.get("implementation") == 0:  # written by Keras 2.0, where 0 was what 1 is now
            config["implementation"] = 1
        return super().from_config(config)
