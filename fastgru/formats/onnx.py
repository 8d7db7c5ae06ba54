"""GRU nodes and loops of ONNX models, from files and in memory, to layers."""

import functools
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru._errors import FormatError, need
from fastgru._writers import _onnx_gru
from fastgru.formats import (
    _model,
    _onnx_activation,
    _onnx_graph,
    _onnx_loop,
    _onnx_node,
    _onnx_stack,
    _onnx_state,
    _protobuf,
)
from fastgru.formats._model import Arguments, Layer, Maker, Makers
from fastgru.formats._onnx_fold import Folder
from fastgru.formats._onnx_graph import Alias, Output, Walk
from fastgru.formats._onnx_node import DIRECTIONS, Node, reads
from fastgru.formats._onnx_tensor import NO_LIMIT, Reader, floats

Array = NDArray[Any]

STRUCTURE = 16 << 20  # bytes of nodes besides those of a file's size: weights may lie in other files
MEMORY = 1 << 30  # bytes that constants of a model in memory may take, besides those of its size

# ---- nodes -----------------------------------------------------------------------------------


def layer_of(node: Node, folder: Folder, given: Arguments) -> Layer:
    """The layer that a node is; `given` are the caller's arguments."""
    _onnx_gru.check_opset(node.inside.opset, FormatError)
    attributes = node.attributes()
    direction = attributes["direction"].decode()
    if direction not in DIRECTIONS:
        raise FormatError(f"the direction must be one of {', '.join(DIRECTIONS)}, got {direction!r:.40}")
    if attributes["clip"] != np.inf:
        raise FormatError(
            f"clip={attributes['clip']:g}: Keras' GRU has no bound on what its activations are given, and "
            "cannot compute this node"
        )
    backwards = DIRECTIONS[direction]
    names = [name.decode() for name in attributes["activations"]] or ["Sigmoid", "Tanh"] * len(backwards)
    if len(names) != 2 * len(backwards):
        raise FormatError(f"activations must be {2 * len(backwards)} names, got {len(names)}")
    functions = _onnx_activation.read(names, attributes["activation_alpha"], attributes["activation_beta"])
    weights = _weights(node, folder, len(backwards), attributes["hidden_size"])
    states = _onnx_state.initial(node, folder, len(backwards), weights["R"].shape[2], attributes["layout"])
    _onnx_state.check_lengths(node, folder, 1 if attributes["layout"] else 0)

    has_y, has_y_h = node.outputs()
    reset_after = bool(attributes["linear_before_reset"])
    arguments = {
        "name": node.name,
        "use_bias": "B" in weights,
        "reset_after": reset_after,
        "return_sequences": has_y or not has_y_h,
        "return_state": has_y and has_y_h,
        "time_major": not attributes["layout"],
    } | dict(given)
    arguments.setdefault("zero_output_for_mask", arguments["return_sequences"])  # Y is, beyond a row's length
    layers = []
    for d, backward in enumerate(backwards):
        arrays = [weights["W"][d].T, weights["R"][d].T]
        if "B" in weights:  # rows of the input's and of the recurrent bias; without reset_after their sum
            rows = weights["B"][d].reshape(2, -1)
            with np.errstate(over="ignore"):  # of float16, and then the layer is refused
                arrays.append(rows if reset_after else rows.sum(0))
        f, g = functions[2 * d : 2 * d + 2]
        scales = [_scales(node, folder, key, d) for key in "WR"]
        own = {
            "activation": g,
            "recurrent_activation": f,
            "go_backwards": backward,
            "default_state": states[d],
        }
        layers.append(_model.gru(arrays, own | arguments, _model.scales_of(arrays, scales)))
    if len(layers) == 1:
        return layers[0]
    both = {key: value for key, value in given.items() if key == "merge_mode"}
    return _model.bidirectional(layers[0], layers[1], {"name": arguments["name"]} | both)


def _constant(what: str, folder: Folder, value: Any) -> Array:
    """A value that must be a constant of finite floats."""
    return floats(what, folder.constant(what, value))


def _scales(node: Node, folder: Folder, key: str, direction: int) -> Array | None:
    """What W or R has been multiplied by where it is of symmetric bytes: one number, or one for each row."""
    value = node.source(key)
    if isinstance(value, Alias):
        value = _onnx_graph.find(value.scope, value.name)
    if not isinstance(value, Output) or value.node.op_type != "DequantizeLinear":
        return None
    if value.node.domain not in _onnx_graph.STANDARD:
        return None
    integers, scale, *zero = (folder.value(value.inside.scope[name]) for name in value.node.input if name)
    given = folder.attributes(value.node, value.inside)
    axis = (given["axis"].i if "axis" in given else 1) % 3  # of directions, gates of units, inputs
    if integers.dtype not in (np.int8, np.uint8) or (scale.size > 1 and (scale.ndim != 1 or axis == 2)):
        return None
    least = np.iinfo(integers.dtype).min - (zero[0].astype(int) if zero else 0)
    if np.any(least != -128):
        return None
    scales: Array = scale.astype(np.float32).ravel()
    return scales[[direction]] if axis == 0 and scales.size > 1 else scales


def _weights(node: Node, folder: Folder, directions: int, hidden_size: int | None) -> dict[str, Array]:
    """W (directions, 3 * units, features), R (directions, 3 * units, units) and B (directions, 6 * units)."""
    weights = {
        key: _constant(f"{key} ({name!r:.80})", folder, node.source(key))
        for key, name in node.inputs().items()
        if key in ("W", "R") or (key == "B" and name)
    }
    shapes = {key: array.shape for key, array in weights.items()}
    units, features = shapes["R"][-1:] or (0,), shapes["W"][-1:]
    wanted = {
        "W": (directions, 3 * units[0], *features),
        "R": (directions, 3 * units[0], *units),
        "B": (directions, 6 * units[0]),
    }
    if any(shape != wanted[key] for key, shape in shapes.items()) or hidden_size not in (None, *units):
        raise FormatError(
            "W (directions, 3 * units, features), R (directions, 3 * units, units) and "
            f"B (directions, 6 * units) do not fit each other or directions={directions} and "
            f"hidden_size={hidden_size}: got {shapes}"
        )
    if len({array.dtype for array in weights.values()}) > 1:
        raise FormatError(f"W, R and B must be of one type, got {[a.dtype.name for a in weights.values()]}")
    return weights


# ---- models ----------------------------------------------------------------------------------


def _makers(model: Any, folder: Folder, names: _model.Names) -> Makers:
    """The layers of a ModelProto; as a whole where each reads what the one before returns."""
    opset = _onnx_graph.opset_of(model)
    _onnx_gru.check_opset(opset, FormatError)
    exporter = f"{model.producer_name} {model.producer_version}".strip()

    def maker(node: Node) -> Maker:
        def made(given: Arguments) -> Layer:
            layer = layer_of(node, folder, given)
            if exporter.startswith("pytorch") and not node.attributes()["linear_before_reset"]:
                warnings.warn(
                    f"{node.name}: the file says linear_before_reset=0 and was written by {exporter:.40}, "
                    "whose layers apply the reset after the product: it computes something else than the "
                    "network that it was made from (microsoft/onnxscript#2852); loaded as the file says",
                    stacklevel=2,
                )
            return layer

        return made

    makers = Makers()
    walk = Walk(model.graph, opset, names, model.functions)
    nodes: list[Node] = []  # of GRUs
    refused = None
    for node in _onnx_node.nodes(walk, names):
        if _onnx_graph.is_gru(node.proto):
            nodes.append(node)
            make = maker(node)
        else:
            try:
                found = _onnx_loop.find(node, folder)
            except FormatError as error:  # it may be anything
                refused = refused or (node, str(error))
                continue
            make = functools.partial(found.layer, folder)
        if node.name in makers:
            raise FormatError(f"two nodes have the name {node.name!r:.80}")
        makers[node.name] = make
    if refused and not nodes:
        _onnx_loop.refuse(*refused, has_others=bool(makers))
    if len(nodes) == len(makers) and _onnx_stack.is_stack(nodes, walk, folder):
        name = model.graph.name or "stack"
        return_state = any(node.outputs()[1] for node in nodes)
        lowest_first = [*makers.values()]
        makers.whole = lambda given: _model.stack(name, lowest_first, given, return_state)
    return makers


def parsed(data: bytes) -> tuple[Any, int]:
    """The ModelProto of a file, and the bytes that its tensors may take."""
    need("onnx", "onnx")
    import onnx

    if len(data) >= 1 << 31:  # the most that a message may have
        raise FormatError("no ONNX model, which has less than 2 GiB, nor any other")
    limit = _model.size_limit(len(data))
    try:
        _protobuf.check(data, onnx.ModelProto.DESCRIPTOR, limit + STRUCTURE)
        model = onnx.ModelProto.FromString(data)
    except (FormatError, *_model.NOT_OF_THE_FILE):
        raise
    except Exception as error:  # protobuf's own, of several modules
        raise FormatError(f"no model file of Keras, PyTorch, ONNX or fastgru: {error}") from None
    return model, limit


def file(data: bytes, folder: Path | None) -> dict[str, Maker]:
    """The layers of an ONNX file, of whose tensors some may lie in files in its folder, if it has one."""
    model, limit = parsed(data)
    return _makers(model, Folder(Reader(folder, limit)), _model.Names(limit + STRUCTURE))


def folder_of(message: Any) -> Folder:
    """What computes constants of a model, or a graph, that is in memory."""
    try:
        size = message.ByteSize()
    except _model.NOT_OF_THE_FILE:
        raise
    except Exception:  # protobuf's own, if it is larger than a message may be in a file
        return Folder(Reader(None, NO_LIMIT))
    return Folder(Reader(None, _model.size_limit(size) + MEMORY))


def from_onnx(model: Any) -> Layer | dict[str, Layer]:
    """The layers of an ONNX model that is in memory.

    Parameters
    ----------
    model : onnx.ModelProto
        Or a pair (node, graph) of a GRU node and the graph that has its weights as constants: onnx.NodeProto
        and onnx.GraphProto.

    Returns
    -------
    GRU, Bidirectional, or dict
        The layer, or of a model that has several a dict of them by name. It is time-major unless the node has
        layout=1, and returns of Y and Y_h what the network uses. Loops that are a GRU are layers, too.

    Raises
    ------
    ValueError
        If there is no GRU, or one is damaged, or Keras has no such layer.
    TypeError
        If it is no model.

    Notes
    -----
    What the node gets from the network in a call, the layer gets from the caller: `sequence_lens` as a mask
    that begins with this many true steps, the mask of a loop, `initial_h` as the initial state. A constant
    `initial_h` is the layer's `default_state`. A row of length 0 ends in the state zero in ONNX, here in its
    initial one.

    Outputs of a single `reverse` direction belong to the inputs' timesteps in ONNX; here they come in the
    order of the run, the last timestep first, as Keras has it with `go_backwards`.

    Examples
    --------
    >>> import fastgru
    >>> layer = fastgru.GRU(4, activation="relu")
    >>> layer.build((None, None, 3))
    >>> fastgru.from_onnx(layer.to_onnx()).activation
    fastgru.activations.relu
    """
    onnx = sys.modules.get("onnx")  # whoever has a model has imported it
    if onnx and isinstance(model, onnx.ModelProto):
        makers = _makers(model, folder_of(model), _model.Names(NO_LIMIT))
        layers = {name: maker({}) for name, maker in makers.items()}
        if not layers:
            raise ValueError("the model has no GRU node")
        return layers if len(layers) > 1 else next(iter(layers.values()))
    match model:
        case node, graph if onnx and isinstance(node, onnx.NodeProto) and isinstance(graph, onnx.GraphProto):
            if node.op_type != "GRU":
                raise ValueError(f"node must be a GRU, got {node.op_type}")
            newest = onnx.defs.onnx_opset_version()
            graphs = Walk(graph, newest, _model.Names(NO_LIMIT)).found
            read = {name for inside in graphs for name in reads(inside.graph)}
            return layer_of(
                Node(node.name or "gru", node, graphs[0], read.__contains__), folder_of(graph), {}
            )
    raise TypeError(
        f"model must be an onnx.ModelProto or a pair of a GRU node and its graph, got {type(model).__name__}"
    )
