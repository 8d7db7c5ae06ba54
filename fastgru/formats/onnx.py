"""GRU nodes of ONNX: opsets 7 to 22, in and out.

ONNX orders the gates z, r, h as Keras does, but stores every matrix transposed, under a leading axis of
directions, and both biases in one row. Its `linear_before_reset` is Keras' `reset_after`.

Source: the operator GRU, https://onnx.ai/onnx/operators/onnx__GRU.html
"""

import bisect
import sys
import warnings
from collections import ChainMap, Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgru import activations
from fastgru.formats import _file, _model, _protobuf
from fastgru.formats._model import Arguments, FormatError, Layer, Maker
from fastgru.gru import GRU
from fastgru.stack import Stack
from fastgru.wrappers import Bidirectional

Array = NDArray[Any]

OPSETS = range(7, 23)
INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h")
DEPTH = 32  # of graphs in nodes in graphs
NO_LIMIT = 1 << 62  # bytes
STRUCTURE = (
    16 << 20
)  # bytes that nodes may take, besides those of a file's size: weights may lie in other files
VALUE = 200  # bytes that CPython takes for a name in a scope

# ---- activations -----------------------------------------------------------------------------

PLAIN = {
    "Relu": activations.relu,
    "Tanh": activations.tanh,
    "Sigmoid": activations.sigmoid,
    "Softsign": activations.softsign,
    "Softplus": activations.softplus,
}
# With alpha and beta, and what these are where a file does not say. None: it must say, for onnxruntime
# takes 0, while the specification has 1 for ThresholdedRelu and nothing for the others.
PARAMETRIC: dict[str, tuple[Any, tuple[float | None, ...]]] = {
    "LeakyRelu": (activations.LeakyReLU, (0.01,)),
    "ThresholdedRelu": (activations.ThresholdedReLU, (None,)),
    "Elu": (activations.ELU, (1.0,)),
    "HardSigmoid": (activations.HardSigmoid, (0.2, 0.5)),
    "Affine": (activations.Affine, (None, None)),
    "ScaledTanh": (activations.ScaledTanh, (None, None)),
}
SPELLED = {name.lower(): name for name in (*PLAIN, *PARAMETRIC)}  # files spell them in any case
HARD_SIGMOIDS = {  # by alpha, where beta is 0.5
    float(np.float32(0.2)): activations.hard_sigmoid,
    float(np.float32(1 / 6)): activations.keras3_hard_sigmoid,
}


def _activations(names: Sequence[str], alphas: Sequence[float], betas: Sequence[float]) -> list[Any]:
    """The activations of a node in their order, each taking of alphas and betas what it needs."""
    if not np.isfinite([*alphas, *betas]).all():
        raise FormatError(f"activation_alpha and activation_beta must be finite, got {alphas} and {betas}")
    given = iter(alphas), iter(betas)
    made = []
    for name in names:
        spelled = SPELLED.get(name.lower())
        if spelled is None:
            raise FormatError(f"the activation {name!r:.40} is none of {', '.join(SPELLED.values())}")
        if spelled in PLAIN:
            made.append(PLAIN[spelled])
            continue
        kind, defaults = PARAMETRIC[spelled]
        parameters = [next(values, default) for values, default in zip(given, defaults, strict=False)]
        if None in parameters:
            raise FormatError(
                f"the activation {name} must have its parameters, which have no agreed defaults"
            )
        made.append(_named(kind(*parameters)))
    return made


def _named(activation: Any) -> Any:
    """The activation, by name if it is a hard sigmoid of Keras."""
    if isinstance(activation, activations.HardSigmoid) and activation.beta == 0.5:
        return HARD_SIGMOIDS.get(activation.alpha, activation)
    return activation


def _onnx_activation(activation: Any) -> tuple[str, list[float], list[float]]:
    """ONNX' name, alphas and betas of an activation of fastgru."""
    if isinstance(activation, activations.HardSigmoid | activations.Affine | activations.ScaledTanh):
        return type(activation).__name__, [activation.alpha], [activation.beta]
    kernel = activation.kernel if isinstance(activation, activations.Activation) else None
    match kernel:
        case ("relu" | "tanh" | "sigmoid" | "softsign" | "softplus") as name, _:
            return name.capitalize(), [], []
        case "linear", _:
            return "Affine", [1.0], [0.0]
        case "leaky_relu", alpha:
            return "LeakyRelu", [alpha], []
        case "elu", alpha:
            return "Elu", [alpha], []
        case "thresholded_relu", theta:
            return "ThresholdedRelu", [theta], []
        case "hard_sigmoid", _:
            return "HardSigmoid", [0.2], [0.5]
        case "clipped_line", alpha:
            return "HardSigmoid", [alpha], [0.5]
    raise ValueError(f"ONNX' GRU has no activation {activation!r}: one of {', '.join(SPELLED.values())}")


# ---- tensors ---------------------------------------------------------------------------------

# TensorProto.DataType: its name, and the type and the field of values that are not raw bytes
FLOATS = {
    1: ("<f4", "float_data"),
    11: ("<f8", "double_data"),
    10: ("<f2", "int32_data"),
    16: ("<u2", "int32_data"),  # bfloat16
}
EXTERNAL = 1  # TensorProto.DataLocation


class Expanded(NamedTuple):
    """A constant that is repeated to a shape which may be known in a call only."""

    tensor: Any


# What nodes of a graph see, by name: a TensorProto, a list of floats, Expanded, or None, where it is computed
Scope = ChainMap[str, Any]


def _scope(graph: Any, outer: Scope, names: _model.Names) -> Scope:
    """All values of a graph inside another, whose values of the same names are hidden from it."""
    scope = outer.new_child()

    def add(name: str, value: Any) -> None:
        names.spend(VALUE + len(name))
        if name in scope.maps[0]:
            raise FormatError(f"two values have the name {name!r:.80}")
        scope[name] = value

    for tensor in graph.initializer:
        add(tensor.name, tensor)
    for node in graph.node:
        first = scope.get(node.input[0]) if node.input else None
        value = None
        if node.op_type == "Constant":
            value = _constant(node)
        elif node.op_type == "Identity":
            value = first
        elif node.op_type == "Expand" and first is not None:
            value = Expanded(first)
        for name in filter(None, node.output):
            add(name, value)
    return scope


def _constant(node: Any) -> Any:
    """What a Constant node returns: a tensor, a list of floats, or something else that is no weight."""
    for attribute in node.attribute:
        return attribute.t if attribute.name == "value" else attribute.floats
    return None


class Reader:
    """Arrays of tensors, which are in the model or in files beside it.

    Parameters
    ----------
    folder : Path or None
        Where the model's file lies; None: external data is refused.
    limit : int
        The most bytes that the nodes may read from the model, together: many may share a tensor.
    """

    def __init__(self, folder: Path | None, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._files: set[Path] = set()

    def floats(self, what: str, value: Any) -> Array:
        """A value of a scope that must be a constant of finite floats; bfloat16 as float32."""
        if hasattr(value, "data_type"):
            return _model.floats(what, self._array(what, value))
        if value is None or isinstance(value, Expanded):
            raise FormatError(f"{what} must be a constant of the file: an initializer or Constant")
        return _model.floats(what, np.array(value, np.float32))

    def _array(self, what: str, tensor: Any) -> Array:
        if tensor.data_type not in FLOATS:
            raise FormatError(f"{what} must be of floats, got the data type {tensor.data_type}")
        name, field = FLOATS[tensor.data_type]
        dtype, shape = np.dtype(name), tuple(tensor.dims)
        size = _model.check_size(what, shape, dtype.itemsize, NO_LIMIT)
        if tensor.data_location == EXTERNAL:
            data = self._external(what, tensor, size)
        else:
            data = tensor.raw_data or _bytes(getattr(tensor, field), dtype)
            if len(data) != size:
                raise FormatError(f"{what} of shape {shape} needs {size} bytes, has {len(data)}")
        self._limit -= size
        if self._limit < 0:
            raise FormatError("the GRU nodes share tensors so often that they exceed the file many times")
        array = np.frombuffer(data, dtype).reshape(shape)
        if tensor.data_type == 16:  # bfloat16 is the upper half of a float32
            return (array.astype(np.uint32) << 16).view(np.float32)
        return array.astype(dtype.newbyteorder("="), copy=False)

    def _external(self, what: str, tensor: Any, size: int) -> bytes:
        """Bytes of a tensor in a file beside the model: a plain file in the same folder or below."""
        keys = [entry.key for entry in tensor.external_data]
        if len(set(keys)) != len(keys):
            raise FormatError(f"{what} says something twice of its external data")
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if self._folder is None:
            raise FormatError(f"{what} lies in another file, {location!r:.80}: load the model by its path")
        folder = self._folder.resolve()
        path = folder / location
        if "\0" in location or path.resolve() != path or folder not in path.parents or not path.is_file():
            raise FormatError(f"{what} lies in {location!r:.80}, which is no plain file beside the model")
        offset = _number(what, entries.get("offset", "0"))
        length = _number(what, entries.get("length", str(size)))
        data, available = _file.read_part(path, offset, size)
        if length != size or len(data) != size:
            raise FormatError(
                f"{what} needs {size} bytes, has {length} from {offset} on in {location!r:.80} of {available}"
            )
        if path not in self._files:
            self._files.add(path)
            self._limit += _model.size_limit(available)
        return data


def _bytes(values: Any, dtype: np.dtype[Any]) -> bytes:
    """Of a tensor's values in a field of its type; two of each in int32_data."""
    if dtype.itemsize > 2:
        return np.fromiter(values, dtype, len(values)).tobytes()
    return np.fromiter(values, "<i4", len(values)).astype("<u2").tobytes()


def _number(what: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise FormatError(f"{what} has the offset or length {text!r:.40}")
    return int(text)


# ---- nodes -----------------------------------------------------------------------------------

TYPES = {"f": 1, "i": 2, "s": 3, "floats": 6, "strings": 8}  # AttributeProto.AttributeType, by field
ATTRIBUTES: dict[str, tuple[str, Any]] = {  # field, and value by default
    "activation_alpha": ("floats", ()),
    "activation_beta": ("floats", ()),
    "activations": ("strings", ()),
    "clip": ("f", np.inf),
    "direction": ("s", b"forward"),
    "hidden_size": ("i", None),
    "layout": ("i", 0),
    "linear_before_reset": ("i", 0),
}
DIRECTIONS = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}  # which go backwards


class Node(NamedTuple):
    """A GRU node.

    Attributes
    ----------
    name : str
    proto : onnx.NodeProto
    scope : mapping
        The values that it sees.
    is_used : callable
        True of the name of an output that its graph, or one in this, reads or returns.
    """

    name: str
    proto: Any
    scope: Scope
    is_used: Callable[[str], bool]

    def attributes(self) -> dict[str, Any]:
        """All attributes by name."""
        values = {}
        for attribute in self.proto.attribute:
            field, _ = ATTRIBUTES.get(attribute.name, ("", None))
            if not field or attribute.type != TYPES[field] or attribute.name in values:
                raise FormatError(
                    f"the node {self.name!r:.80} has the attribute {attribute.name!r:.40} twice or of a "
                    "wrong type, or it is none of GRU"
                )
            values[attribute.name] = getattr(attribute, field)
        return {name: default for name, (_, default) in ATTRIBUTES.items()} | values

    def inputs(self) -> dict[str, str]:
        """Names of values by names of inputs, empty where there is none."""
        return dict.fromkeys(INPUTS, "") | dict(zip(INPUTS, self.proto.input, strict=False))

    def outputs(self) -> tuple[bool, bool]:
        """Are Y and Y_h used? If none of them is, are they there?"""
        y, y_h = [*self.proto.output, "", ""][:2]
        used = bool(y) and self.is_used(y), bool(y_h) and self.is_used(y_h)
        return used if any(used) else (bool(y), bool(y_h))


def _layer(node: Node, reader: Reader, given: Arguments) -> Layer:
    """The layer that a node is; `given` are the caller's arguments."""
    attributes, inputs = node.attributes(), node.inputs()
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
    functions = _activations(names, attributes["activation_alpha"], attributes["activation_beta"])
    weights = _weights(node, reader, len(backwards), attributes["hidden_size"])
    states = _initial_states(node, reader, len(backwards), weights["R"].shape[2], attributes["layout"])
    if node.scope.get(inputs["sequence_lens"]) is not None:
        warnings.warn(
            f"{node.name}: sequence_lens is a constant of the file; give every call the mask that it means",
            stacklevel=2,
        )

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
        own = {
            "activation": g,
            "recurrent_activation": f,
            "go_backwards": backward,
            "default_state": states[d],
        }
        layers.append(_model.gru(arrays, own | arguments))
    if len(layers) == 1:
        return layers[0]
    both = {key: value for key, value in given.items() if key == "merge_mode"}
    return _model.bidirectional(layers[0], layers[1], {"name": arguments["name"]} | both)


def _weights(node: Node, reader: Reader, directions: int, hidden_size: int | None) -> dict[str, Array]:
    """W (directions, 3 * units, features), R (directions, 3 * units, units) and B (directions, 6 * units)."""
    weights = {
        key: reader.floats(f"{key} ({name!r:.80})", node.scope.get(name))
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


def _initial_states(
    node: Node, reader: Reader, directions: int, units: int, layout: int
) -> list[Array | None]:
    """initial_h of each direction where it is a constant other than zero; else a call gives it."""
    value = node.scope.get(node.inputs()["initial_h"])
    if value is None:
        return [None] * directions
    states = reader.floats("initial_h", value.tensor if isinstance(value, Expanded) else value)
    if not states.any():
        return [None] * directions
    axis = 1 if layout else 0  # of directions; the other one is the batch
    if isinstance(value, Expanded) and states.shape[-1:] == (units,) and states.ndim <= 3:
        one_row = (1, directions, units) if layout else (directions, 1, units)
        states = np.broadcast_to(states, np.broadcast_shapes(states.shape, one_row))
    if states.ndim != 3 or (states.shape[axis], states.shape[2]) != (directions, units):
        raise FormatError(f"initial_h must have the shape ({directions}, batch, {units}), got {states.shape}")
    return [state if state.any() else None for state in np.moveaxis(states, axis, 0)]


# ---- models ----------------------------------------------------------------------------------


class Inside(NamedTuple):
    """A graph among all of a model, which are counted from the outermost one on, each before those in it.

    Attributes
    ----------
    graph : onnx.GraphProto
    scope : mapping
        The values that its nodes see.
    prefix : str
        What the names of its nodes begin with.
    end : int
        The number after that of the last graph in it.
    """

    graph: Any
    scope: Scope
    prefix: str
    end: int


def _is_gru(node: Any) -> bool:
    return node.op_type == "GRU" and node.domain in ("", "ai.onnx")


def _name_of(node: Any, numbers: Counter[str]) -> str:
    """A node's name, or its kind and number among those of a graph, which are counted."""
    kind = node.op_type.lower()
    number = numbers[kind]
    numbers[kind] += 1
    return node.name or f"{kind}_{number}"


def _graphs(
    graph: Any, outer: Scope, prefix: str, names: _model.Names, found: list[Inside], depth: int = 0
) -> None:
    """Append a graph, and those in its nodes, as in If, Loop and Scan, to what is found."""
    if depth > DEPTH:
        raise FormatError(f"graphs are nested deeper than {DEPTH}")
    number = len(found)
    scope = _scope(graph, outer, names)
    found.append(Inside(graph, scope, prefix, 0))
    numbers: Counter[str] = Counter()
    for node in graph.node:
        name = _name_of(node, numbers)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                inner = names.join(prefix, name, "/", attribute.name, "/")
                _graphs(attribute.g, scope, inner, names, found, depth + 1)
    found[number] = found[number]._replace(end=len(found))


def _nodes(graph: Any, names: _model.Names | None = None) -> Iterator[Node]:
    """The GRU nodes of a graph and of the graphs in its nodes, by name or number.

    Parameters
    ----------
    graph : onnx.GraphProto
    names : Names, optional
        What names may take; without limits if it is not given.
    """
    names = names or _model.Names(NO_LIMIT)
    graphs: list[Inside] = []
    _graphs(graph, ChainMap(), "", names, graphs)
    outputs = {
        name for inside in graphs for node in inside.graph.node if _is_gru(node) for name in node.output
    }
    readers: dict[str, list[int]] = defaultdict(list)  # numbers of graphs that read an output, in order
    for number, inside in enumerate(graphs):
        for name in _reads(inside.graph):
            if name in outputs and readers[name][-1:] != [number]:
                readers[name].append(number)
    for number, inside in enumerate(graphs):
        own = range(number, inside.end)

        def is_used(name: str, own: range = own) -> bool:
            numbers = readers.get(name, [])
            first = bisect.bisect_left(numbers, own.start)
            return first < len(numbers) and numbers[first] < own.stop

        numbers: Counter[str] = Counter()
        for node in inside.graph.node:
            name = _name_of(node, numbers)
            if _is_gru(node):
                yield Node(names.join(inside.prefix, name), node, inside.scope, is_used)


def _reads(graph: Any) -> Iterator[str]:
    """What a graph returns and its own nodes read."""
    yield from (value.name for value in graph.output)
    for node in graph.node:
        yield from node.input


def _makers(model: Any, reader: Reader, names: _model.Names | None = None) -> dict[str, Maker]:
    """The layers of a ModelProto."""
    opsets = [opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")]
    if len(opsets) != 1:
        raise FormatError("no ONNX model: it must have the version of one opset")
    if opsets[0] not in OPSETS:
        raise FormatError(f"the opset must be from {OPSETS[0]} to {OPSETS[-1]}, got {opsets[0]}")
    exporter = f"{model.producer_name} {model.producer_version}".strip()

    def maker(node: Node) -> Maker:
        def made(given: Arguments) -> Layer:
            layer = _layer(node, reader, given)
            if exporter.startswith("pytorch") and not node.attributes()["linear_before_reset"]:
                warnings.warn(
                    f"{node.name}: the file says linear_before_reset=0 and was written by {exporter:.40}, "
                    "whose layers apply the reset after the product: it computes something else than the "
                    "network that it was made from (microsoft/onnxscript#2852); loaded as the file says",
                    stacklevel=2,
                )
            return layer

        return made

    makers: dict[str, Maker] = {}
    for node in _nodes(model.graph, names):
        if node.name in makers:
            raise FormatError(f"two nodes have the name {node.name!r:.80}")
        makers[node.name] = maker(node)
    return makers


def file(data: bytes, folder: Path) -> dict[str, Maker]:
    """The layers of an ONNX file, of whose tensors some may lie in files in its folder."""
    _model.need("onnx", "onnx")
    import onnx

    if len(data) >= 1 << 31:  # the most that a message may have
        raise FormatError("no ONNX model, which has less than 2 GiB, nor any other")
    limit = _model.size_limit(len(data))
    try:
        _protobuf.check(data, onnx.ModelProto.DESCRIPTOR, limit + STRUCTURE)
        model = onnx.ModelProto.FromString(data)
    except (FormatError, MemoryError):
        raise
    except Exception as error:  # protobuf's own, of several modules
        raise FormatError(f"no model file of Keras, PyTorch, ONNX or fastgru: {error}") from None
    return _makers(model, Reader(folder, limit), _model.Names(limit + STRUCTURE))


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
        layout=1, and returns of Y and Y_h what the network uses.

    Raises
    ------
    ValueError
        If there is none, or one is damaged or is none of Keras.
    TypeError
        If it is no model.

    Notes
    -----
    What the node gets from the network in a call, the layer gets from the caller: `sequence_lens` as a mask
    that begins with so many true steps, `initial_h` as the initial state. A constant `initial_h` is the
    layer's `default_state`. A row of length 0 ends in the state zero in ONNX, here in its initial one.

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
    reader = Reader(None, NO_LIMIT)
    if onnx and isinstance(model, onnx.ModelProto):
        layers = {name: maker({}) for name, maker in _makers(model, reader).items()}
        if not layers:
            raise ValueError("the model has no GRU node")
        return layers if len(layers) > 1 else next(iter(layers.values()))
    match model:
        case node, graph if onnx and isinstance(node, onnx.NodeProto) and isinstance(graph, onnx.GraphProto):
            if node.op_type != "GRU":
                raise ValueError(f"node must be a GRU, got {node.op_type}")
            graphs: list[Inside] = []
            _graphs(graph, ChainMap(), "", _model.Names(NO_LIMIT), graphs)
            read = {name for inside in graphs for name in _reads(inside.graph)}
            return _layer(Node(node.name or "gru", node, graphs[0].scope, read.__contains__), reader, {})
    raise TypeError(
        f"model must be an onnx.ModelProto or a pair of a GRU node and its graph, got {type(model).__name__}"
    )


# ---- out -------------------------------------------------------------------------------------


def to_onnx(layer: Layer, opset: int = 14, initial_state: bool = False) -> Any:
    """An ONNX model with one node, the layer; `Layer.to_onnx` has the rest."""
    _model.need("onnx", "onnx")
    import onnx
    from onnx import helper, numpy_helper

    if opset not in OPSETS:
        raise ValueError(f"opset must be from {OPSETS[0]} to {OPSETS[-1]}, got {opset}")
    if not layer.built:
        raise ValueError(f"the layer {layer.name} must be built to be exported: it has no weights yet")
    if isinstance(layer, Stack):
        raise ValueError("a GRU node of ONNX is one layer, got a Stack: write its `layers` one by one")
    direction, layers = _directions(layer)
    functions = [_onnx_activation(a) for one in layers for a in (one.recurrent_activation, one.activation)]
    attributes = {
        "hidden_size": layers[0].units,
        "linear_before_reset": int(layers[0].reset_after),
        "direction": direction,
        "activations": [name for name, _, _ in functions],
        "activation_alpha": [alpha for _, alphas, _ in functions for alpha in alphas],
        "activation_beta": [beta for _, _, betas in functions for beta in betas],
    }
    tensors = _tensors(layers)

    element = helper.np_dtype_to_tensor_dtype(np.dtype(layers[0].dtype))
    batch = tensors["initial_h"].shape[1] if "initial_h" in tensors else "batch"
    state = len(layers), batch, layers[0].units
    shapes = {
        "X": ("timesteps", batch, tensors["W"].shape[2]),
        "initial_h": state,
        "Y": ("timesteps", *state),
        "Y_h": state,
    }
    values = {name: helper.make_tensor_value_info(name, element, shape) for name, shape in shapes.items()}
    given = {*tensors, "X"} | ({"initial_h"} if initial_state else set())
    returned = {"Y"} if layer.return_sequences else {"Y_h"}
    returned |= {"Y_h"} if layer.return_state else set()
    node = helper.make_node(
        "GRU",
        [name if name in given else "" for name in INPUTS],
        [name if name in returned else "" for name in ("Y", "Y_h")],
        layer.name,
        **{key: value for key, value in attributes.items() if value != []},
    )
    graph = helper.make_graph(
        [node],
        layer.name or "gru",
        [values["X"]] + [values["initial_h"]] * initial_state,
        [values[name] for name in ("Y", "Y_h") if name in returned],
        [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in tensors.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    ir_version = max(4, helper.find_min_ir_version_for(opsets))  # 4: weights are no inputs
    model = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version, producer_name="fastgru")
    onnx.checker.check_model(model)
    return model


def _directions(layer: GRU | Bidirectional) -> tuple[str, list[GRU]]:
    """ONNX' name for the direction, and the layers of it."""
    if isinstance(layer, GRU):
        return "reverse" if layer.go_backwards else "forward", [layer]
    layers = [layer.forward_layer, layer.backward_layer]
    if layer.merge_mode not in ("concat", None):
        raise ValueError(
            f"a GRU node of ONNX returns its directions side by side, got merge_mode={layer.merge_mode!r}: "
            "merge them after it"
        )
    if layers[0].go_backwards:
        raise ValueError("a GRU node of ONNX goes forward first, got a forward_layer with go_backwards=True")
    for name in ("units", "reset_after", "dtype"):
        values = [getattr(one, name) for one in layers]
        if values[0] != values[1]:
            raise ValueError(f"a GRU node of ONNX has one {name} for both directions, got {values}")
    return "bidirectional", layers


def _tensors(layers: Sequence[GRU]) -> dict[str, Array]:
    """W, R, B and initial_h of the directions; the latter two where one of them has it."""
    dtype = np.dtype(layers[0].dtype)
    tensors = {
        "W": np.stack([one.weights[0].T for one in layers]),
        "R": np.stack([one.weights[1].T for one in layers]),
    }
    if any(one.use_bias for one in layers):  # the input's, then the recurrent one
        biases = np.zeros((len(layers), 2, 3 * layers[0].units), dtype)
        for bias, one in zip(biases, layers, strict=True):
            if one.use_bias:
                bias[: 1 + one.reset_after] = one.weights[2]
        tensors["B"] = biases.reshape(len(layers), -1)
    states = [one.default_state for one in layers]
    batches = [len(state) for state in states if state is not None]
    if batches:
        shape = max(batches), layers[0].units
        rows = [np.broadcast_to(0 if state is None else state, shape) for state in states]
        tensors["initial_h"] = np.stack(rows).astype(dtype)
    return tensors
