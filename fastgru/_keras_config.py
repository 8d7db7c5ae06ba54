"""Configs of Keras' layers, version 1 to 3: the arguments of fastgru's layers, and which layers they are."""

import re
from collections.abc import Mapping
from typing import Any

from fastgru import constraints, initializers, regularizers
from fastgru._errors import FormatError

Config = Mapping[str, Any]

# ---- configs ---------------------------------------------------------------------------------

# without a meaning here: of cuDNN, random numbers, TensorFlow, quantization, Keras 1's memory
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
    """Keras' major version; 1 if there is none, as in the first files of Keras 1."""
    match = re.match("[0-9]{1,4}", version) if isinstance(version, str) else None
    return int(match[0]) if match else 1


def dtype_of(value: Any) -> str | None:
    """The dtype of weights: float32 for a mixed policy or bfloat16; None if there is none."""
    if isinstance(value, dict) and isinstance(value.get("config"), dict):  # a policy
        value = value["config"].get("name")
    return value if value in ("float16", "float64", None) else "float32"


def activation_of(identifier: Any, version: int) -> Any:
    """Keras' identifier in fastgru's words: Keras 3 has another hard_sigmoid, and other arguments."""
    if isinstance(identifier, dict):
        name, config = identifier.get("class_name"), identifier.get("config")
        if name == "function" and isinstance(config, str):
            return activation_of(config, version)
        if version >= 3 and name == "LeakyReLU" and isinstance(config, dict):
            renamed = {"negative_slope": "alpha"}
            return identifier | {"config": {renamed.get(key, key): value for key, value in config.items()}}
        return identifier
    return "keras3_hard_sigmoid" if version >= 3 and identifier == "hard_sigmoid" else identifier


def arguments_of(class_name: str, config: Config, version: int) -> dict[str, Any]:
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
            arguments[key] = activation_of(arguments[key], version)
    if arguments.get("implementation") == 0:
        arguments["implementation"] = 1
    dtype = dtype_of(arguments.pop("dtype", None))
    return arguments if dtype is None else arguments | {"dtype": dtype}


def serialized(class_name: str, config: Config) -> dict[str, Any]:
    """A layer's class and config, as Keras writes them."""
    return {
        "module": "keras.layers",
        "class_name": class_name,
        "config": config,
        "registered_name": None,
    }


def wrapper_of_keras_3(config: Config) -> dict[str, Any]:
    """The config for `fastgru.Bidirectional.from_config` of one of Keras 3."""
    made = {key: value for key, value in config.items() if key not in MEANINGLESS}
    dtype = dtype_of(made.pop("dtype", None))
    if dtype is not None:
        made["dtype"] = dtype
    for key in ("layer", "backward_layer"):
        layer = made.get(key)
        if isinstance(layer, dict) and is_recurrent(layer):
            made[key] = {"class_name": "GRU", "config": direction_of(key, layer, 3, {})}
    return made


def direction_of(what: str, layer: Any, version: int, given: Config) -> dict[str, Any]:
    """Arguments of one direction of a Bidirectional; `given` override its config."""
    layer = an_object(what, layer)
    config = an_object(f"config of {what}", layer.get("config"))
    arguments = arguments_of(str(layer.get("class_name")), config, version)
    if version >= 3 and isinstance(arguments.get("name"), str):  # written with what the wrapper adds to it
        arguments["name"] = re.sub("^(forward|backward)_", "", arguments["name"])
    return arguments | dict(given)


# ---- which layers these are ------------------------------------------------------------------


def is_ones_own(layer: Config) -> bool:
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
    return isinstance(cell, dict) and cell.get("class_name") == "GRUCell" and not is_ones_own(cell)


def _goes_one_way(layer: Any) -> bool:
    """GRU, CuDNNGRU, RNN of one GRUCell."""
    config = layer.get("config") if isinstance(layer, dict) else None
    if not isinstance(config, dict) or is_ones_own(layer):
        return False
    name = layer.get("class_name")
    return name in ("GRU", "CuDNNGRU") or (name == "RNN" and _is_cell(config.get("cell")))


def is_recurrent(layer: Config) -> bool:
    """GRU, CuDNNGRU, RNN of GRUCells, Bidirectional of one of them that is one layer."""
    config = layer.get("config")
    if not isinstance(config, dict) or is_ones_own(layer):
        return False
    if layer.get("class_name") == "Bidirectional":
        backward = config.get("backward_layer")
        return _goes_one_way(config.get("layer")) and (backward is None or _goes_one_way(backward))
    return _goes_one_way(layer) or cells_of(layer) is not None
