"""Configs of Keras' layers, and arrays as its files have them -> layers of fastgru."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru import _keras_config
from fastgru._errors import FormatError
from fastgru._keras_config import Config, an_object, cells_of
from fastgru.formats import _model
from fastgru.formats._model import Arguments, Layer, Maker
from fastgru.gru import GRU
from fastgru.stack import Stack
from fastgru.wrappers import Bidirectional

Array = NDArray[Any]

# ---- layers ----------------------------------------------------------------------------------


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
        return gru_of(weights[0], _keras_config.arguments_of(class_name, config, version) | dict(given))
    own, given = shared(given)
    forward = _keras_config.direction_of("layer", config.get("layer"), version, given)
    turned = {"go_backwards": not forward.get("go_backwards")}
    if config.get("backward_layer") is None:
        backward = forward | turned
    else:
        given = given | turned if "go_backwards" in given else given
        backward = _keras_config.direction_of("backward_layer", config["backward_layer"], version, given)
    wrapper = {key: config[key] for key in ("name", "merge_mode", "trainable") if key in config} | own
    dtype = _keras_config.dtype_of(config.get("dtype"))
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
        arguments = _keras_config.arguments_of("RNN", {**config, "cell": cell}, version)
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
