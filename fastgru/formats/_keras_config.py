"""Configs of Keras' layers, version 1 to 3, and arrays as its files have them -> layers of fastgru."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru import constraints, initializers, regularizers
from fastgru.formats import _model
from fastgru.formats._model import Arguments, FormatError, Layer, Maker
from fastgru.gru import GRU
from fastgru.stack import Stack
from fastgru.wrappers import Bidirectional

Array = NDArray[Any]
Config = Mapping[str, Any]

# ---- configs ---------------------------------------------------------------------------------

# what computes nothing here: of cuDNN, random numbers, TensorFlow, quantization, Keras 1's memory
MEANINGLESS = {
    *("seed", "use_cudnn", "enable_caching_device", "return_runtime", "autocast", "dynamic", "num_constants"),
    *("batch_shape", "cell", "quantization_config", "input_dtype", "consume_less"),
}
# of training alone: one that is not Keras' own is left out
TRAINING = {
    f"{weight}_{kind}": registry.get
    for weight in ("kernel", "recurrent", "bias", "activity")
    for kind, registry in (
        ("initializer", initializers),
        ("regularizer", regularizers),
        ("constraint", constraints),
    )
}
KERAS_1 = {
    "output_dim": "units",
    "inner_activation": "recurrent_activation",
    "init": "kernel_initializer",
    "inner_init": "recurrent_initializer",
    "W_regularizer": "kernel_regularizer",
    "U_regularizer": "recurrent_regularizer",
    "b_regularizer": "bias_regularizer",
    "dropout_W": "dropout",
    "dropout_U": "recurrent_dropout",
}
KERAS = ("keras", "tf_keras", "tensorflow")  # packages
KERAS_3 = {"keras_version": 3, "implementation": 2}  # what its configs don't say
CUDNN = {"activation": "tanh", "recurrent_activation": "sigmoid", "reset_after": True}


def an_object(what: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FormatError(f"{what} must be an object, got {value!r:.80}")
    return value


def major(version: Any) -> int:
    """Keras' major version; 1, whose first files do not say, if there is none."""
    match = re.match("[0-9]{1,4}", version) if isinstance(version, str) else None
    return int(match[0]) if match else 1


def _dtype(value: Any) -> str | None:
    """The dtype of weights: of a mixed policy, and in place of bfloat16, float32; None if it is not said."""
    if isinstance(value, dict) and isinstance(value.get("config"), dict):  # a policy
        value = value["config"].get("name")
    return value if value in ("float16", "float64", None) else "float32"


def _activation(identifier: Any, version: int) -> Any:
    """Keras' identifier in fastgru's words: Keras 3 has another hard_sigmoid, and other arguments."""
    if isinstance(identifier, dict):
        name, config = identifier.get("class_name"), identifier.get("config")
        if name == "function" and isinstance(config, str):
            return _activation(config, version)
        if version >= 3 and name == "LeakyReLU" and isinstance(config, dict):
            renamed = {"negative_slope": "alpha"}
            return identifier | {"config": {renamed.get(key, key): value for key, value in config.items()}}
        return identifier
    return "keras3_hard_sigmoid" if version >= 3 and identifier == "hard_sigmoid" else identifier


def _arguments(class_name: str, config: Config, version: int) -> dict[str, Any]:
    """Arguments of `fastgru.GRU` from a config of Keras.

    Parameters
    ----------
    class_name : str
        GRU, CuDNNGRU, or RNN around a GRUCell.
    config : mapping
    version : int
        Keras' major version.
    """
    arguments = dict(config)
    if class_name == "RNN":
        cell = an_object("config of the cell", an_object("cell", config.get("cell")).get("config"))
        arguments = cell | arguments | {"dtype": cell.get("dtype")}
    if version >= 3:
        arguments = KERAS_3 | arguments
    arguments = {KERAS_1.get(key, key): value for key, value in arguments.items() if key not in MEANINGLESS}
    if class_name == "CuDNNGRU":
        arguments |= CUDNN
    for key, registered in TRAINING.items():
        if key in arguments:
            try:
                registered(arguments[key])
            except (ValueError, TypeError):
                del arguments[key]
    for key in ("activation", "recurrent_activation"):
        if key in arguments:
            arguments[key] = _activation(arguments[key], version)
    if arguments.get("implementation") == 0:
        arguments["implementation"] = 1
    dtype = _dtype(arguments.pop("dtype", None))
    return arguments if dtype is None else arguments | {"dtype": dtype}


def arguments_of_keras_3(config: Config) -> dict[str, Any]:
    """Arguments of `fastgru.GRU` from what Keras 3's `get_config` gives, or what its files have."""
    return _arguments("GRU", config, 3)


def wrapper_of_keras_3(config: Config) -> dict[str, Any]:
    """What `fastgru.Bidirectional.from_config` takes, from what Keras 3's has."""
    made = {key: value for key, value in config.items() if key not in MEANINGLESS}
    dtype = _dtype(made.pop("dtype", None))
    if dtype is not None:
        made["dtype"] = dtype
    for key in ("layer", "backward_layer"):
        layer = made.get(key)
        if isinstance(layer, dict) and is_recurrent(layer):
            made[key] = {"class_name": "GRU", "config": _direction(key, layer, 3, {})}
    return made


def _direction(what: str, layer: Any, version: int, given: Arguments) -> dict[str, Any]:
    """Arguments of one direction of a Bidirectional."""
    layer = an_object(what, layer)
    config = an_object(f"config of {what}", layer.get("config"))
    arguments = _arguments(str(layer.get("class_name")), config, version)
    if version >= 3 and isinstance(arguments.get("name"), str):  # written with what the wrapper adds to it
        arguments["name"] = re.sub("^(forward|backward)_", "", arguments["name"])
    return arguments | dict(given)


def gru_of(arrays: Sequence[Array], arguments: Arguments) -> GRU:
    return _model.gru(merged(arrays), arguments) if arrays else GRU(**arguments)


def layer_of(
    class_name: str, config: Config, version: int, weights: Sequence[Sequence[Array]], given: Arguments
) -> Layer:
    """A layer from Keras' config and weights.

    Parameters
    ----------
    class_name : str
        GRU, CuDNNGRU, RNN around GRUCells, or Bidirectional around one of them, but not around several cells.
    config : mapping
    version : int
        Keras' major version.
    weights : sequence of sequence of ndarray
        In Keras' order, of every direction, forward first, or of every cell; of a layer that is not built,
        none.
    given : mapping
        The caller's arguments, which come before the config's.
    """
    cells = cells_of({"class_name": class_name, "config": config})
    if class_name == "RNN" and cells is not None:
        return _stack_of(cells, config, version, weights, given)
    if class_name != "Bidirectional":
        return gru_of(weights[0], _arguments(class_name, config, version) | dict(given))
    own, given = shared(given)
    forward = _direction("layer", config.get("layer"), version, given)
    turned = {"go_backwards": not forward.get("go_backwards")}
    if config.get("backward_layer") is None:
        backward = forward | turned
    else:
        given = given | turned if "go_backwards" in given else given
        backward = _direction("backward_layer", config["backward_layer"], version, given)
    wrapper = {key: config[key] for key in ("name", "merge_mode", "trainable") if key in config} | own
    dtype = _dtype(config.get("dtype"))
    if dtype is not None and "dtype" not in given:
        wrapper["dtype"] = dtype
    return bidirectional_of(weights, forward, backward, wrapper)


def _stack_of(
    cells: Sequence[Config],
    config: Config,
    version: int,
    weights: Sequence[Sequence[Array]],
    given: Arguments,
) -> Stack:
    """The layers that several cells in one RNN are."""
    if given.get("go_backwards", config.get("go_backwards")):
        raise FormatError(
            "several cells in one RNN must go forward, got go_backwards=True: masks would be those of other "
            "steps for the upper ones. Turn inputs and mask around, and give go_backwards=False"
        )

    def maker(cell: Config, arrays: Sequence[Array], last: bool) -> Maker:
        arguments = _arguments("RNN", {**config, "cell": cell}, version)
        arguments["name"] = an_object("config of the cell", cell.get("config")).get("name")
        if not last:
            arguments["return_sequences"] = True
        return lambda given: gru_of(arrays, arguments | dict(given))

    pairs = list(zip(cells, weights, strict=True))
    makers = [maker(*pair, last=i == len(pairs) - 1) for i, pair in enumerate(pairs)]
    return _model.stack(str(config.get("name")), makers, given, config.get("return_state"))


def shared(given: Arguments) -> tuple[dict[str, Any], dict[str, Any]]:
    """The caller's arguments of a Bidirectional: its own, and those of both directions."""
    own = {key: given[key] for key in ("name", "merge_mode") if key in given}
    return own, {key: value for key, value in given.items() if key not in own}


def bidirectional_of(
    weights: Sequence[Sequence[Array]], forward: Arguments, backward: Arguments, wrapper: Arguments
) -> Bidirectional:
    layers = gru_of(weights[0], forward), gru_of(weights[1], backward)
    if not all(layer.built for layer in layers):
        return Bidirectional(layers[0], backward_layer=layers[1], **wrapper)
    return _model.bidirectional(*layers, wrapper)


# ---- which layers these are ------------------------------------------------------------------


def _is_ones_own(layer: Config) -> bool:
    """True of a class that is not Keras' own: it may compute anything, whatever it is called."""
    module = layer.get("module", KERAS[0])  # None: of a program's own file
    known = isinstance(module, str) and module.partition(".")[0] in KERAS
    return not known or layer.get("registered_name") is not None


def cells_of(layer: Config) -> list[dict[str, Any]] | None:
    """The GRUCells of an RNN that has several in a row; None for all else."""
    config = layer.get("config")
    cell = config.get("cell") if layer.get("class_name") == "RNN" and isinstance(config, dict) else None
    if not isinstance(cell, dict) or cell.get("class_name") != "StackedRNNCells":
        return None
    inner = cell.get("config")
    cells = inner.get("cells") if isinstance(inner, dict) else None
    return cells if isinstance(cells, list) and cells and all(map(_is_cell, cells)) else None


def _is_cell(cell: Any) -> bool:
    """True of a GRUCell of Keras."""
    return isinstance(cell, dict) and cell.get("class_name") == "GRUCell" and not _is_ones_own(cell)


def _goes_one_way(layer: Any) -> bool:
    """GRU, CuDNNGRU, RNN of one GRUCell."""
    config = layer.get("config") if isinstance(layer, dict) else None
    if not isinstance(config, dict) or _is_ones_own(layer):
        return False
    name = layer.get("class_name")
    return name in ("GRU", "CuDNNGRU") or (name == "RNN" and _is_cell(config.get("cell")))


def is_recurrent(layer: Config) -> bool:
    """GRU, CuDNNGRU, RNN of GRUCells, Bidirectional of one of them that is one layer."""
    config = layer.get("config")
    if not isinstance(config, dict) or _is_ones_own(layer):
        return False
    if layer.get("class_name") == "Bidirectional":
        backward = config.get("backward_layer")
        return _goes_one_way(config.get("layer")) and (backward is None or _goes_one_way(backward))
    return _goes_one_way(layer) or cells_of(layer) is not None


# ---- weights ---------------------------------------------------------------------------------


def is_cudnn(shapes: Sequence[tuple[int, ...]]) -> bool:
    """True of the shapes of a CuDNNGRU, whose bias is flat."""
    return len(shapes) == 3 and len(shapes[1]) == 2 and shapes[2] == (6 * shapes[1][0],)


def is_gru(shapes: Sequence[tuple[int, ...]]) -> bool:
    """True of the shapes of a GRU of any version of Keras, without alphas."""
    if len(shapes) not in (2, 3, 9) or any(len(shape) != 2 for shape in shapes[:2]):
        return False
    (features, _), (units, _) = shapes[:2]
    if len(shapes) == 9:
        return list(shapes) == [(features, units), (units, units), (units,)] * 3
    bias = [(3 * units,), (2, 3 * units), (6 * units,)]
    kernels = [(features, 3 * units), (units, 3 * units)]
    return units > 0 and list(shapes[:2]) == kernels and (len(shapes) == 2 or shapes[2] in bias)


def merged(arrays: Sequence[Array]) -> list[Array]:
    """kernel, recurrent_kernel, bias and alphas, from what the versions of Keras keep.

    Keras 1 has nine arrays, W, U and b of z, r and h in turn. CuDNNGRU has the blocks of the kernel as
    cuDNN reads them: (units, features) in the memory of (features, units).
    """
    if len(arrays) == 9:
        return [np.concatenate(arrays[i::3], axis=-1) for i in range(3)]
    if is_cudnn([array.shape for array in arrays]):
        kernel, recurrent_kernel, bias = arrays
        gates = [block.T.reshape(block.shape, order="F") for block in np.split(kernel, 3, axis=1)]
        recurrent_gates = [block.T for block in np.split(recurrent_kernel, 3, axis=1)]
        return [np.hstack(gates), np.hstack(recurrent_gates), bias.reshape(2, -1)]
    return list(arrays)
