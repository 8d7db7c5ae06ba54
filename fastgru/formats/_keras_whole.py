"""Whole models of Keras, from files and in memory: their configs and arrays -> a Model."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fastgru._compile import CALL_MASK, NO_MASK, UNKNOWN, Mask, Sketch, either
from fastgru._errors import FormatError
from fastgru._keras_config import KERAS, Config, is_ones_own
from fastgru._nodes import Activation, Array, Convolution, Dense, Depthwise, Node, Value
from fastgru.formats import _model
from fastgru.formats._keras_arrays import Arrays, by_names, by_places, of_live
from fastgru.formats._keras_files import Members, Opened, architecture_of, opened_archive, opened_hdf5
from fastgru.formats._keras_graph import (
    Call,
    Graph,
    Layer,
    graph_of,
    is_mask_operation,
    is_operation,
    model_of,
)
from fastgru.formats._keras_kinds import LARGEST, At
from fastgru.formats._keras_weights import Architecture
from fastgru.formats._keras_wrappers import KINDS
from fastgru.model import Input, Model, Output

DTYPES = ("float32", "float64")
WHAT_TO_DO = (
    "keep what these compute in Keras, and save the rest as a model of its own: keras.Model(its inputs, its "
    "outputs)"
)


def hdf5_model(data: bytes, architecture: Architecture | None, weights_dtype: str | None) -> Model:
    """The model of an .h5 file, or of a .weights.h5 with its architecture."""
    with opened_hdf5(data, architecture) as opened:
        if opened.architecture is None:
            raise FormatError(
                "the file has weights only: give the model's architecture, config=model.to_json()"
            )
        return _of_file(opened, len(data), weights_dtype)


def archive_model(members: Members, weights_dtype: str | None) -> Model:
    """The model of a .keras archive, or of a folder of the same files."""
    with opened_archive(members) as opened:
        return _of_file(opened, members.size, weights_dtype)


def live_model(model: Any, weights_dtype: str | None) -> Model:
    """The model of a Keras model that is in memory."""
    classes: list[Any] = [cls for cls in type(model).__mro__ if cls.__module__.partition(".")[0] in KERAS]
    if not any(cls.__name__ in ("Model", "Sequential") for cls in classes):
        raise TypeError(f"model must be a model of Keras, got {type(model).__name__}")
    if type(model) is not classes[0] or classes[0].__name__ not in ("Functional", "Sequential"):
        raise ValueError(
            f"model must be a Sequential or a functional model, got the class {type(model).__name__}, whose "
            "program may compute anything"
        )
    text = model.to_json().encode()
    architecture = architecture_of("the model", text, len(text))
    return _model_of(
        architecture,
        lambda _: of_live(model),
        _model.Names(_model.size_limit(len(text))),
        None,
        weights_dtype,
    )


def _of_file(opened: Opened, size: int, weights_dtype: str | None) -> Model:
    assert opened.architecture is not None

    def arrays(model: Layer) -> Arrays:
        if opened.base is None:
            return by_places(opened.weights, _names_of)
        return by_names(opened.weights, model, opened.base, _names_of)

    limit = _model.size_limit(size) // 8
    return _model_of(opened.architecture, arrays, opened.joined, limit, weights_dtype)


def _model_of(
    architecture: Architecture,
    arrays: Callable[[Layer], Arrays],
    joined: _model.Names,
    limit: int | None,
    weights_dtype: str | None,
) -> Model:
    """The model; refuse one that needs more than `limit` numbers beyond those that the file holds."""
    if architecture.version < 2:
        raise FormatError("the model is of Keras 1: load it in Keras 2 and save it again")
    model = model_of(architecture.model, joined)
    graph = graph_of(model)
    check_layers(graph, architecture.version)
    dtype = _dtype_of(graph)
    reader = _Reader(graph, arrays(model), architecture.version, dtype, limit, weights_dtype)
    for call in graph.calls:
        reader.call(call)
    name = model.config.get("name")
    nodes, outputs = reader.finished()
    return Model(
        reader.inputs,
        nodes,
        outputs,
        name=name if isinstance(name, str) else "model",
        dtype=dtype,
        weights_dtype=weights_dtype,
    )


def _names_of(layer: Layer) -> list[str]:
    """Names of a layer's weights."""
    known = KINDS.get(layer.class_name)
    return known.weights(layer.config) if known is not None else []


# ---- what stands in the way ------------------------------------------------------------------


def check_layers(graph: Graph, version: int) -> None:
    """Refuse a model with layers that are not computed.

    Raises
    ------
    FormatError
        Names all of them.
    """
    computed = {name for call in graph.calls if not is_mask_operation(call.layer) for name in call.inputs}
    computed |= {name for name, _ in graph.outputs}
    wrong = {
        f"{call.layer.class_name:.80} {call.layer.name!r:.200}{why}": None
        for call in graph.calls
        if call.output in computed or not is_mask_operation(call.layer)
        for why in _refusals(call, version)
    }
    if wrong:
        named = "; ".join(list(wrong)[:100])
        raise FormatError(f"the model has layers that fastgru does not compute: {named}: {WHAT_TO_DO}")


def _refusals(call: Call, version: int) -> Iterable[str]:
    """Why a call is not computed: None, or reasons in brackets, which may be an empty string."""
    layer, known = call.layer, KINDS.get(call.layer.class_name)
    module = layer.described.get("module")
    if layer.inner is not None:
        return
    if is_operation(layer) or is_ones_own(layer.described):
        yield f" (of {module})"
        return
    if known is None:
        yield ""
        return
    why = known.refused(layer.config, version)
    dtypes = [one for one in _dtypes_in(layer.config) if one not in DTYPES]
    reasons = [why, call.wrong and f"called with {call.wrong}", dtypes and f"dtype={dtypes[0]}"]
    given = ", ".join(reason for reason in reasons if reason)
    if given:
        yield f" ({given})"


def _dtypes_in(config: Config) -> list[str]:
    """Names of the types that a layer, and the layers in it, compute in."""
    found = []
    value = config.get("dtype")
    if isinstance(value, dict):  # a policy
        inner = value.get("config")
        value = inner.get("name") if isinstance(inner, dict) else "unknown"
    if value is not None:
        found.append(str(value)[:40])
    for key in ("layer", "backward_layer", "cell"):
        inner = config.get(key)
        if isinstance(inner, dict) and isinstance(inner.get("config"), dict):
            found += _dtypes_in(inner["config"])
    return found


def _dtype_of(graph: Graph) -> str:
    """The type that all of a model is computed in."""
    of_type: dict[str, str] = {}
    for layer in {call.layer: None for call in graph.calls}:
        if layer.inner is not None or is_mask_operation(layer):
            continue
        for dtype in _dtypes_in(layer.config):
            of_type.setdefault(dtype, layer.name)
    if len(of_type) > 1:
        shown = " and ".join(f"{dtype} of {name!r:.80}" for dtype, name in of_type.items())
        raise FormatError(
            f"the model must compute everything in float32 or everything in float64, got {shown}"
        )
    of_inputs = [config.get("dtype") for _, config in graph.inputs]
    return next(iter(of_type), "float64" if "float64" in of_inputs else "float32")


# ---- inputs ----------------------------------------------------------------------------------


def _input_of(name: str, config: dict[str, Any], is_table_read: bool) -> Input:
    """An input of the model, from the config of its InputLayer."""
    shape = config.get("batch_shape", config.get("batch_input_shape"))
    if not isinstance(shape, list) or any(
        size is not None and (type(size) is not int or not 0 < size <= LARGEST) for size in shape
    ):
        raise FormatError(f"the input {name!r:.80} must have a shape of sizes, got {shape!r:.80}")
    inner = tuple(shape[1:])
    if config.get("sparse") or config.get("ragged"):
        raise FormatError(f"the input {name!r:.80} must be dense, got one that is sparse or ragged")
    if is_table_read:
        if len(inner) != 1:
            raise FormatError(
                f"the input {name!r:.80} of indices must be (batch, timesteps), got {shape!r:.80}"
            )
        return Input(name, inner, True, "bt")
    if len(inner) not in (1, 2) or inner[-1] is None:
        raise FormatError(
            f"the input {name!r:.80} must be (batch, features) or (batch, timesteps, features) with features "
            f"that are known, got {shape!r:.80}"
        )
    if _is_of_integers(config):
        raise FormatError(
            f"the input {name!r:.80} of {config['dtype']:.40} must be read by Embeddings, and by nothing else"
        )
    return Input(name, inner, False, "btf" if len(inner) == 2 else "bf")


def _is_of_integers(config: dict[str, Any]) -> bool:
    dtype = config.get("dtype")
    return isinstance(dtype, str) and not dtype.startswith(("float", "bfloat"))


# ---- nodes -----------------------------------------------------------------------------------


class _Reader:
    """Makes the nodes of a graph: the Builder of `_keras_kinds`."""

    def __init__(
        self,
        graph: Graph,
        arrays: Arrays,
        version: int,
        dtype: str,
        limit: int | None,
        weights_dtype: str | None,
    ) -> None:
        self.version, self.weights_dtype = version, weights_dtype
        self._graph, self._arrays, self._left = graph, arrays, limit
        self._dtype = np.dtype(dtype)
        calls = [call for call in graph.calls if not is_mask_operation(call.layer)]
        reads = [name for call in calls for name in call.inputs]
        self._readers = Counter(reads + [name for name, _ in graph.outputs])
        tables = {name for call in calls if call.layer.class_name == "Embedding" for name in call.inputs}
        others = {name for call in calls if call.layer.class_name != "Embedding" for name in call.inputs}
        others |= {name for name, _ in graph.outputs}
        self.inputs = [
            _input_of(name, config, name not in others and (name in tables or _is_of_integers(config)))
            for name, config in graph.inputs
        ]
        self._sketch = Sketch([(one.shape, one.indices) for one in self.inputs], self._dtype)
        self._values: dict[str, Value] = {}
        for number, one in enumerate(self.inputs):
            clock = self._sketch.clocks_of_inputs[number]
            mask = CALL_MASK if number == 0 and clock is not None else NO_MASK
            self._add_value(one.name, Value(number, one.shape, clock, mask, one.indices), one.name)
        self._nodes: dict[str, Node] = {}  # by the first value that each writes
        self._masks: dict[str, Mask] = {}
        self._held: dict[Layer, list[Array]] = {}
        self._made: dict[Layer, Any] = {}

    def call(self, call: Call) -> None:
        """Add the nodes of a call."""
        if is_mask_operation(call.layer):
            self._masks[call.output] = self._sketch_of_mask(call)
            return
        for name, mask in call.masks:
            self._check_mask(call.layer, name, mask)
        if call.layer.inner is not None:
            return
        kind = KINDS[call.layer.class_name]
        for name in call.inputs:
            if name not in self._values:
                raise FormatError(f"{call.layer.name!r:.200} reads {name!r:.200}, which no layer writes")
        if not call.inputs:
            raise FormatError(f"{call.layer.name!r:.200} reads nothing")
        values = [self._values[name] for name in call.inputs]
        kind.make(
            At(
                self,
                call.layer,
                call.layer.config,
                call.inputs,
                values,
                call.output,
                False,
                kind.passes_mask,
                bool(call.masks),
            )
        )

    # ---- masks that a graph of Keras 3 has as values ---------------------------------------

    def _sketch_of_mask(self, call: Call) -> Mask:
        """The mask that an operation of Keras 3 makes of masks, or of a value."""
        class_name = call.layer.class_name
        if class_name == "NotEqual":
            value, constants = self._values.get(call.inputs[0]) if call.inputs else None, call.constants
            if value is None or len(constants) != 1 or not isinstance(constants[0], int | float):
                return UNKNOWN
            return frozenset([(value.number, float(constants[0]))])
        if class_name == "OnesLike":
            return None
        if class_name == "ZerosLike":
            return frozenset()
        return either([self._masks.get(name, UNKNOWN) for name in call.inputs])

    def _check_mask(self, layer: Layer, name: str, mask: str) -> None:
        """Refuse a mask argument, unless it is the mask that Keras would use without the argument."""
        value = self._values.get(name)
        if value is None or self._sketch.described_mask(value.mask) != self._masks.get(mask, UNKNOWN):
            raise FormatError(
                f"{layer.class_name} {layer.name!r:.200} is called with a mask of its own, and not that of "
                f"its input: {WHAT_TO_DO}"
            )

    # ---- the Builder -----------------------------------------------------------------------

    def add(self, node: Node) -> list[Value]:
        found = node.add_to(self._sketch, [self._values[name] for name in node.inputs])
        if len(found) < len(node.outputs):
            raise node.wrong(f"writes {len(found)} values, got names for {len(node.outputs)}")
        for name, value in zip(node.outputs, found, strict=False):
            self._add_value(name, value, node.name)
        self._nodes[node.outputs[0]] = node
        return found

    def arrays(self, layer: Layer, shapes: Sequence[tuple[int, ...]] | None = None) -> list[Array]:
        if layer not in self._held:
            given = self._arrays.shapes(layer)
            if shapes is not None and list(shapes) != given:
                names = ", ".join(
                    f"{name} {shape}" for name, shape in zip(_names_of(layer), shapes, strict=False)
                )
                raise FormatError(
                    f"{layer.class_name} {layer.name!r:.200} must have {names}, got "
                    f"{', '.join(map(str, given))}"
                )
            self._held[layer] = [self._cast(layer, array) for array in self._arrays.read(layer)]
        return list(self._held[layer])

    def _cast(self, layer: Layer, array: Array) -> Array:
        with np.errstate(over="ignore"):
            cast = np.asarray(array, self._dtype)
        if not np.isfinite(cast).all():
            raise FormatError(f"weights of {layer.name!r:.200} must be finite as {self._dtype}")
        return cast

    def once(self, layer: Layer, make: Callable[[], Any]) -> Any:
        if layer not in self._made:
            self._made[layer] = make()
        return self._made[layer]

    def fold(self, value: str, factor: Array, shift: Array, output: str) -> bool:
        node = self._nodes.get(value)
        if not isinstance(node, Dense | Convolution | Depthwise) or node.activation is not None:
            return False
        if self._readers[value] != 1:
            return False
        kernel, bias = node.kernel, shift if node.bias is None else shift + node.bias * factor
        shape = (*kernel.shape[:-2], -1) if isinstance(node, Depthwise) else kernel.shape
        scaled = (kernel.reshape(shape) * factor).reshape(kernel.shape)
        if any(np.abs(array).max(initial=0) > np.finfo(self._dtype).max for array in (scaled, bias)):
            return False
        self.spend(2 * node.kernel.size)
        del self._nodes[value]
        kernel, bias = scaled.astype(self._dtype), bias.astype(self._dtype)
        self._nodes[output] = dataclasses.replace(node, outputs=(output,), kernel=kernel, bias=bias)
        self._values[output] = self._values.pop(value)
        return True

    def spend(self, numbers: int) -> None:
        if self._left is not None:
            self._left -= numbers
            if self._left < 0:
                raise FormatError("its layers are wider than a file of its size can hold weights for")

    def _add_value(self, name: str, value: Value, where: str) -> None:
        if name in self._values:
            raise FormatError(f"two layers have the name {name!r:.200}")
        size = 1
        for length in value.shape:
            size *= length or 1
        if size > LARGEST:
            raise FormatError(f"{where!r:.200} has the shape {value.shape!s:.80}, which is too large")
        self._values[name] = value

    # ---- outputs ---------------------------------------------------------------------------

    def finished(self) -> tuple[list[Node], list[Output]]:
        """All nodes, and the outputs, which get Keras' names if no other value has them."""
        outputs: list[Output] = []
        renamed: dict[str, str] = {}
        for name, wanted in self._graph.outputs:
            if name not in self._values:
                raise FormatError(f"the model's output {name!r:.200} is written by no layer")
            value = self._values[name]
            if value.indices:
                raise FormatError(
                    f"the model's output {name!r:.200} must be computed, got an input of indices"
                )
            taken = {*self._values, *renamed.values()}
            if (
                any(name == one.name for one in self.inputs) or name in renamed
            ):  # an input, or an output again
                own = self._free(wanted, taken)
                self.add(Activation(name=wanted, inputs=(name,), outputs=(own,)))
                renamed[own] = own
            else:
                renamed[name] = wanted if wanted not in taken else name
                own = renamed[name]
            outputs.append(Output(own, "bf" if value.clock is None else "btf"))
        return [_renamed(node, renamed) for node in self._nodes.values()], outputs

    @staticmethod
    def _free(wanted: str, taken: Container[str]) -> str:
        """A name that no value has."""
        names = (f"{wanted}#{number}" if number else wanted for number in itertools.count())
        return next(name for name in names if name not in taken)


def _renamed(node: Node, names: Mapping[str, str]) -> Node:
    """The node with other names of what it reads and writes."""
    inputs = tuple(names.get(name, name) for name in node.inputs)
    outputs = tuple(names.get(name, name) for name in node.outputs)
    return dataclasses.replace(node, inputs=inputs, outputs=outputs)
