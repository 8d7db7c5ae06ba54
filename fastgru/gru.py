"""The GRU layer of Keras, `tf.compat.v1.keras.layers.GRU`, for inference on arrays."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fastgru import (
    _config,
    _description,
    _keras_config,
    _validate,
    activations,
    constraints,
    initializers,
    regularizers,
)
from fastgru._calls import compiled
from fastgru._gru_node import GRUNode
from fastgru._kernels import float16_isas
from fastgru._layer import flag
from fastgru._validate import InputSpec

Array = NDArray[Any]


def _read_only(name: str) -> property:
    return property(lambda layer: getattr(layer, "_" + name), doc=f"The constructor's `{name}`; read-only.")


class GRU(GRUNode):
    """Gated recurrent unit: arguments, results, masks and states of Keras' version 1 layer.

    Parameters
    ----------
    units : int
        Size of the state and of the output.
    activation, recurrent_activation : str, callable, dict or None
        Of the candidate, and of the gates z and r. Names as in `fastgru.activations`; None is
        linear; a callable maps (batch, units) to (batch, units) and runs in Python.
    use_bias : bool
        Add a bias.
    kernel_initializer, recurrent_initializer, bias_initializer : str, callable, dict or None
        What weights start from; None is glorot_uniform, for the bias too.
    kernel_regularizer, recurrent_regularizer, bias_regularizer : str, callable, dict or None
        Losses of the weights, in `losses`.
    activity_regularizer : str, callable, dict or None
        Loss of every array that a call returns, divided by the length of its first axis, in `losses`.
    kernel_constraint, recurrent_constraint, bias_constraint : str, callable, dict or None
        Projections of the weights, which `apply_constraints` applies.
    dropout, recurrent_dropout : float
        Fraction of the input's and of the state's elements that a call with `training=True` drops,
        the same ones at every step; clipped to [0, 1].
    return_sequences : bool
        Return the output of every step instead of the last one.
    return_state : bool
        Return the last state, too.
    go_backwards : bool
        Run from the last timestep to the first. Outputs come in the order of the run.
    stateful : bool
        Start each call from the state in which the one before ended.
    unroll : bool
        Accepted for compatibility with Keras; it has no effect.
    reset_after : bool
        Apply the reset gate after the recurrent product, as cuDNN, PyTorch and ONNX do, instead of
        before it.
    implementation : {1, 2}, keyword
        With 2, dropout drops the same input elements for all gates, with 1 others for each. 0 means 2, but
        in a config 1. `recurrent_dropout` sets it to 1.
    time_major : bool, keyword
        Inputs, masks and sequences have the shape (timesteps, batch, ...).
    zero_output_for_mask : bool, keyword
        The output of a masked step is zero instead of that of the step before.
    weights_dtype : {None, 'float32', 'float64', 'float16', 'int8'}, keyword
        Type in which the kernels are kept for the computation. Defaults to the type of the computation.
        With 'float16' both kernels are rounded to the nearest float16, and sums are computed in float32;
        the packed engine then reads half as many bytes, which take most of the time of one row.
        With 'int8' each column is rounded to 255 equal steps, and what it multiplies to 16 bits; their
        products are added exactly. `get_weights` returns what was set.
    keras_version : {2, 3}, keyword
        The version whose rules hold where Keras 3 differs. With 3 a stateful layer starts every call from a
        given initial state, with 2 (as in version 1) only while its own state is the default one. With 3 a
        layer that is not trainable has no losses of its weights.
    default_state : array_like, shape (units,) or (batch, units), keyword
        The state that calls without an initial state start from, and a stateful layer after
        `reset_states()`. Defaults to zeros. A network may have been trained with one.
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
        self._state = None

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
    activity_regularizer = flag("activity_regularizer")
    return_sequences = flag("return_sequences")
    return_state = flag("return_state")
    go_backwards = flag("go_backwards")
    stateful = flag("stateful")
    time_major = flag("time_major")
    zero_output_for_mask = flag("zero_output_for_mask")

    @property
    def weights_dtype(self) -> str:
        """Name of the type that the kernels are kept in for the computation."""
        return self._weights_dtype.name

    @property
    def default_state(self) -> Array | None:
        """The state that calls without an initial state start from, (1 or batch, units); None means zeros."""
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
            If the shape is invalid, a stateful layer's batch is unknown or 0, the layer has been built
            for other features, or the constructor's weights do not fit.
        TypeError
            If the features are unknown.
        """
        self._build(self._batch_input_shape if input_shape is None else input_shape)

    # ---- calling ---------------------------------------------------------------------------

    @compiled
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
        """Run the layer: `layer(...)` with Keras' other order of arguments.

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
            Drop out. By default a call does not.
        lengths : array_like of int, shape (batch,), optional
            Number of timesteps of each row, 0 to timesteps, in place of a mask that is true at these first
            ones. Packed weights are not read for rows that have ended.
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
            If an argument is no array, or not of floats (integers are not cast), or `training` is no flag.
        """

    # ---- state -----------------------------------------------------------------------------

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
        with self._lock:
            self._state = self._reset_to(states)

    def get_initial_state(self, inputs: Any) -> list[Array]:
        """The state that a call with these inputs starts from by default, (batch, units), in their type.

        Raises
        ------
        ValueError
            If the inputs do not have three axes, or not the batch of a `default_state`.
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

    def _described(self) -> _description.GRU:
        with self._lock:  # the weights and their scales
            return _description.of(_description.GRU, self, cls=GRU, scales=self._scales)

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

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        if "seed" in config:  # as Keras 3 alone has it
            config = _keras_config.arguments_of("GRU", config, 3)
        # where TensorFlow reads its variables means nothing here
        config = {key: value for key, value in config.items() if key != "enable_caching_device"}
        if config.get("implementation") == 0:  # written by Keras 2.0, where 0 was what 1 is now
            config["implementation"] = 1
        return super().from_config(config)
