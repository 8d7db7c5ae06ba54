"""Graphs of Keras' layers, drawn at random: for tf_keras and Keras 3 alike."""

import numpy as np
from keras_networks import randomized

ACTIVATIONS = [
    "linear",
    "relu",
    "tanh",
    "sigmoid",
    "softmax",
    "elu",
    "gelu",
    "softplus",
    "swish",
    "hard_sigmoid",
]


class Drawn:
    """A value of the graph.

    Attributes
    ----------
    tensor : KerasTensor
    clock : object
        The same for values that have the same timesteps; None: it has none.
    """

    def __init__(self, tensor, clock):
        self.tensor, self.clock, self.is_read = tensor, clock, False

    @property
    def shape(self):
        """Without the batch."""
        return tuple(self.tensor.shape)[1:]


class Graph:
    """A model that is drawn.

    Parameters
    ----------
    keras : module
    rng : numpy.random.Generator
    """

    def __init__(self, keras, rng):
        self.keras, self.layers, self.rng = keras, keras.layers, rng
        self.values, self.inputs, self.shared = [], [], []

    def flip(self, chance=0.5):
        return bool(self.rng.random() < chance)

    def pick(self, choices):
        return choices[int(self.rng.integers(len(choices)))]

    def size(self, most=6):
        return int(self.rng.integers(1, most + 1))

    def activation(self):
        return self.pick(ACTIVATIONS)

    def put(self, tensor, clock):
        self.values.append(Drawn(tensor, clock))

    def some(self, rank):
        """One of the values with this many axes, or None; the newest ones more often."""
        fitting = [value for value in self.values if len(value.shape) == rank]
        if not fitting:
            return None
        value = fitting[-min(len(fitting), 1 + int(self.rng.exponential(1.5)))]
        value.is_read = True
        return value

    # ---- inputs ----------------------------------------------------------------------------

    def add_input(self):
        steps = self.pick([None, 12, 16])
        match self.pick(["sequence", "sequence", "sequence", "indices", "vector"]):
            case "sequence":
                tensor = self.keras.Input((steps, self.size()))
                self.put(tensor, object())
            case "indices":
                tensor = self.keras.Input((steps,), dtype=self.pick(["int32", "int64"]))
                table = self.layers.Embedding(9, self.size(), mask_zero=self.flip(0.7))
                clock = object()
                for _ in range(1 + self.flip(0.2)):
                    self.put(table(tensor), clock)
            case _:
                tensor = self.keras.Input((self.size(),))
                self.put(tensor, None)
        self.inputs.append(tensor)

    # ---- layers ----------------------------------------------------------------------------

    def step_layer(self, width):
        """A layer that works on each step, and keeps sequences sequences."""
        layers = self.layers
        layer = self.pick(
            [
                lambda: layers.Dense(self.size(), self.activation(), use_bias=self.flip(0.8)),
                lambda: layers.Dense(self.size()),
                lambda: layers.Activation(self.activation()),
                lambda: layers.ReLU(**self.pick([{}, {"max_value": 0.75}, {"negative_slope": 0.25}])),
                lambda: layers.ReLU(max_value=0.5, negative_slope=0.25),
                lambda: layers.LeakyReLU(),
                lambda: layers.ELU(0.7),
                lambda: layers.Dropout(0.5),
                lambda: layers.GaussianNoise(0.1),
                lambda: layers.ActivityRegularization(0.1),
                lambda: layers.BatchNormalization(scale=self.flip(0.8), center=self.flip(0.8)),
                lambda: layers.BatchNormalization(trainable=self.flip()),
                lambda: layers.UnitNormalization(),
                lambda: layers.LayerNormalization(scale=self.flip(0.8), center=self.flip(0.8)),
            ]
        )()
        return layer

    def add_step(self, value):
        layer = self.step_layer(value.shape[-1])
        self.put(layer(value.tensor), value.clock)
        if isinstance(layer, self.layers.Dense) and self.flip():
            self.shared.append((layer, value.shape[-1]))

    def add_batch_normalization_after_a_product(self, value):
        layers = self.layers
        products = [lambda: layers.Dense(4)]
        if value.clock is not None:
            products += [
                lambda: layers.Conv1D(3, 2, padding="causal"),
                lambda: layers.DepthwiseConv1D(2, padding="same"),
            ]
        product = self.pick(products)()
        kept = product(value.tensor)
        clock = value.clock
        self.put(layers.BatchNormalization()(kept), clock)
        if self.flip(0.3):
            self.put(kept, clock)

    def add_shared(self, value):
        fitting = [layer for layer, width in self.shared if width == value.shape[-1]]
        if fitting:
            self.put(self.pick(fitting)(value.tensor), value.clock)

    def add_nested(self, value):
        """A model in the model, called once or twice, maybe with another in it."""
        layers = self.layers
        inner = [layers.Input(value.shape), self.step_layer(value.shape[-1]), layers.Dense(3)]
        if self.flip(0.3):
            shape = (*value.shape[:-1], 3)
            inner.append(self.keras.Sequential([layers.Input(shape), layers.Dense(2, "tanh"), layers.ELU()]))
        model = self.keras.Sequential(inner)
        if self.flip():
            x = self.keras.Input(value.shape)
            y = layers.Dense(2)(x)
            model = self.keras.Model(x, [layers.Activation("tanh")(y), layers.Concatenate()([x, y])])
        for _ in range(1 + self.flip(0.3)):
            results = model(value.tensor)
            for result in results if isinstance(results, list | tuple) else [results]:
                self.put(result, value.clock)

    def add_gru(self, value):
        layers = self.layers
        settings = {
            "return_sequences": self.flip(0.7),
            "go_backwards": self.flip(0.2),
            "reset_after": self.flip(0.7),
            "use_bias": self.flip(0.8),
            "activation": self.pick(["tanh", "relu", "softsign"]),
            "recurrent_activation": self.pick(["sigmoid", "hard_sigmoid"]),
        }
        units = self.size()
        kind = self.pick(["gru", "gru", "states", "both", "cells", "cell", "initial"])
        clock = value.clock if settings["return_sequences"] else None
        cell = {
            key: settings.pop(key)
            for key in settings.copy()
            if key not in ("return_sequences", "go_backwards")
        }
        if kind == "gru":
            self.put(layers.GRU(units, **cell, **settings)(value.tensor), clock)
        elif kind == "states":
            result, state = layers.GRU(units, return_state=True, **cell, **settings)(value.tensor)
            self.put(result, clock)
            self.put(state, None)
        elif kind == "cell":
            self.put(layers.RNN(layers.GRUCell(units, **cell), **settings)(value.tensor), clock)
        elif kind == "cells":
            settings["go_backwards"] = False
            cells = [layers.GRUCell(self.size(), **cell) for _ in range(2)]
            self.put(layers.RNN(cells, **settings)(value.tensor), clock)
        elif kind == "both":
            settings["go_backwards"] = False
            mode = self.pick(["concat", "sum", "mul", "ave", None])
            results = layers.Bidirectional(layers.GRU(units, **cell, **settings), merge_mode=mode)(
                value.tensor
            )
            for result in results if mode is None else [results]:
                self.put(result, clock)
        else:
            state = self.some(1)
            if state is not None:
                layer = layers.GRU(state.shape[0], **cell, **settings)
                self.put(layer(value.tensor, initial_state=state.tensor), clock)

    def add_windows(self, value):
        layers = self.layers
        steps = value.shape[0]
        padding = self.pick(["valid", "same", "causal"])
        size, stride, dilation = self.size(3), 1, 1
        if self.flip(0.3):
            stride = 2
        elif self.flip(0.3):
            dilation = 2
        if padding == "valid" and steps is not None and steps < (size - 1) * dilation + 1:
            return
        keeps = (padding != "valid" and stride == 1) or size == stride == 1
        clock = value.clock if keeps else (value.clock, padding == "valid" and size, stride, dilation)
        settings = {"padding": padding, "strides": stride}
        match self.pick(["conv", "conv", "depthwise", "separable", "average", "max"]):
            case "conv":
                layer = layers.Conv1D(
                    self.size(), size, dilation_rate=dilation, activation=self.activation(), **settings
                )
            case "depthwise" if padding != "causal":
                layer = layers.DepthwiseConv1D(
                    size, depth_multiplier=self.size(2), use_bias=self.flip(), **settings
                )
            case "separable" if padding != "causal":
                layer = layers.SeparableConv1D(self.size(), size, dilation_rate=dilation, **settings)
            case "average" if padding != "causal" and dilation == 1:
                layer = layers.AveragePooling1D(size, **settings)
            case "max" if padding != "causal" and dilation == 1:
                layer = layers.MaxPooling1D(size, **settings)
            case _:
                return
        if isinstance(layer, layers.DepthwiseConv1D):
            clock = value.clock if keeps else (value.clock, padding == "valid" and size, stride, 1)
        self.put(layer(value.tensor), clock)

    def add_ends(self, value):
        """More timesteps, or fewer, maybe with a convolution after them."""
        layers, steps = self.layers, value.shape[0]
        before, after = self.size(3) - 1, self.size(3) - 1
        if self.flip():
            if steps is not None and steps <= before + after:
                return
            x, more = layers.Cropping1D((before, after))(value.tensor), -before - after
        else:
            x, more = layers.ZeroPadding1D((before, after))(value.tensor), before + after
        if self.flip() and more > 0:
            layer = self.pick(
                [lambda: layers.Conv1D(4, more + 1), lambda: layers.DepthwiseConv1D(more + 1)]
            )()
            self.put(layer(x), value.clock)
        else:
            self.put(x, (value.clock, more) if more else value.clock)

    def add_merge(self, value):
        layers = self.layers
        others = [
            one
            for one in self.values
            if one is not value and one.shape == value.shape and one.clock == value.clock
        ]
        if others:
            other = self.pick(others)
            other.is_read = True
            layer = self.pick(
                [layers.Add, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum, layers.Subtract]
            )
            given = [value.tensor, other.tensor]
            if layer is not layers.Subtract and self.flip(0.3):
                given.append(self.pick(given))
            self.put(layer()(given), value.clock)
        others = [
            one for one in self.values if len(one.shape) == len(value.shape) and one.clock == value.clock
        ]
        other = self.pick(others)
        other.is_read = True
        self.put(layers.Concatenate()([value.tensor, other.tensor]), value.clock)

    def add_shape(self, value):
        layers = self.layers
        if value.clock is None:
            if self.flip():
                self.put(layers.RepeatVector(5)(value.tensor), "repeated 5")
            else:
                self.put(layers.Flatten()(value.tensor), None)
            return
        steps, width = value.shape
        match self.pick(["mean", "most", "flatten", "permute", "reshape", "masking", "distributed"]):
            case "mean":
                self.put(layers.GlobalAveragePooling1D()(value.tensor), None)
            case "most":
                self.put(layers.GlobalMaxPooling1D()(value.tensor), None)
            case "flatten" if steps is not None:
                self.put(layers.Flatten()(value.tensor), None)
            case "permute" if steps is not None:
                self.put(layers.Permute((2, 1))(value.tensor), ("fixed", width))
            case "reshape" if steps is not None:
                self.put(
                    layers.Reshape((-1, width * 2) if steps % 2 == 0 else (width, steps))(value.tensor),
                    object(),
                )
            case "masking":
                self.put(layers.Masking()(value.tensor), value.clock)
            case "distributed":
                inner = self.pick(
                    [layers.Dense(3, "softmax"), layers.Activation("tanh"), layers.LayerNormalization()]
                )
                self.put(layers.TimeDistributed(inner)(value.tensor), value.clock)

    # ---- all -------------------------------------------------------------------------------

    def model(self):
        for _ in range(1 + self.flip(0.4)):
            self.add_input()
        for _ in range(int(self.rng.integers(2, 9))):
            rank = self.pick([1, 2, 2, 2, 2])
            value = self.some(rank)
            if value is None:
                continue
            every = [
                self.add_step,
                self.add_step,
                self.add_merge,
                self.add_shape,
                self.add_nested,
                self.add_shared,
            ]
            every += [self.add_batch_normalization_after_a_product]
            if value.clock is not None:
                every += [self.add_gru] * 4 + [self.add_windows] * 2 + [self.add_ends]
            self.pick(every)(value)
        if not any(len(value.shape) == 2 for value in self.values) or self.flip(0.3):
            value = self.values[-1]
            self.put(self.layers.Dense(2)(value.tensor), value.clock)
        ends = [value for value in self.values if not value.is_read] or self.values[-1:]
        outputs = [value.tensor for value in ends[-3:]]
        if len(outputs) == 1 and self.flip():
            outputs = outputs[0]
        return randomized(
            self.keras.Model(self.inputs if len(self.inputs) > 1 else self.inputs[0], outputs), self.rng
        )


def inputs_of(model, rng, dtype, timesteps=14, batch=3):
    """Arrays for the inputs, in which some timesteps are all zeros."""
    found = []
    for tensor in model.inputs:
        shape = tuple(tensor.shape)[1:]
        shape = (batch, *(size or timesteps for size in shape))
        if "int" in str(tensor.dtype):
            array = rng.integers(0, 9, shape).astype(np.int32)
        else:
            array = rng.normal(size=shape).astype(dtype)
            if len(shape) == 3:
                array[rng.random(shape[:2]) < 0.2] = 0
        found.append(array)
    return found
