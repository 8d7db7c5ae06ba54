"""The config of a whole model of Keras -> its layers, and the calls of them in running order."""

import dataclasses
import heapq
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from fastgru._errors import FormatError
from fastgru._keras_config import Config, an_object, is_recurrent
from fastgru.formats import _model
from fastgru.formats._keras_model import inner_layers, name_of, snake_case

MODELS = ("Functional", "Model", "Sequential")
MOST_CALLS = 10_000
# operations that Keras 3 adds to a graph for the masks of its layers
MASK_OPERATIONS = (
    *("NotEqual", "Any", "LogicalOr", "ZerosLike", "OnesLike", "ExpandDims", "Squeeze", "Concatenate"),
)
TENSOR = "__keras_tensor__"


@dataclasses.dataclass(eq=False)
class Layer:
    """A layer in a model's config, or the model.

    Attributes
    ----------
    names : tuple of str
        Of the models that it lies in, without the outermost, and its own.
    class_name : str
    config : dict
    described : dict
        All that the file says of it: class, config and more.
    place : str
        The path of its variables in a .weights.h5, which is made of classes: layers/functional/layers/gru_1.
    trainable : bool
        True if it and every model that it lies in are trainable.
    inner : list of Layer or None
        The layers of a model; None for other layers.
    """

    names: tuple[str, ...]
    class_name: str
    config: dict[str, Any]
    described: Config
    place: str
    trainable: bool
    inner: list["Layer"] | None

    @property
    def name(self) -> str:
        """encoder/gru."""
        return "/".join(self.names)

    def leaves(self) -> Iterator["Layer"]:
        """Itself, or of a model the layers in it that are none, in their order."""
        if self.inner is None:
            yield self
        else:
            for layer in self.inner:
                yield from layer.leaves()


class Call(NamedTuple):
    """A call of a layer that is no model.

    Attributes
    ----------
    layer : Layer
    inputs : tuple of str
        Names of the values that it reads.
    output : str
        Name of the first value that it writes. `numbered` makes those of the next ones.
    wrong : str
        Arguments that fastgru does not compute; "" if there are none.
    masks : tuple of (str, str)
        Names of inputs, and of the values that are given as their masks. A call of a model has these alone.
    constants : tuple
        The other arguments of an operation on masks.
    """

    layer: Layer
    inputs: tuple[str, ...]
    output: str
    wrong: str
    masks: tuple[tuple[str, str], ...] = ()
    constants: tuple[Any, ...] = ()


class Graph(NamedTuple):
    """The calls of a model.

    Attributes
    ----------
    inputs : list of (str, dict)
        Names and configs of the inputs.
    calls : list of Call
        In running order.
    outputs : list of (str, str)
        Names of values, and Keras' names of the outputs.
    """

    inputs: list[tuple[str, dict[str, Any]]]
    calls: list[Call]
    outputs: list[tuple[str, str]]


def numbered(output: str, tensor: int) -> str:
    """The name of one of the values that a call writes."""
    return f"{output}:{tensor}" if tensor else output


# ---- layers ----------------------------------------------------------------------------------


def model_of(described: Config, joined: _model.Names) -> Layer:
    """The model with all layers in it."""
    return _layer_of(described, (), "", True, joined)


def _layer_of(
    described: Config, names: tuple[str, ...], place: str, trainable: bool, joined: _model.Names
) -> Layer:
    class_name = described.get("class_name")
    if not isinstance(class_name, str):
        raise FormatError(f"class_name must be a string, got {class_name!r:.80}")
    config = described.get("config")
    inner = inner_layers(described) if class_name in MODELS else None
    if inner is not None and not isinstance(config, dict):  # an old Sequential
        config = {"name": name_of(described), "layers": config}
    where = "/".join(names) or class_name
    layer = Layer(
        names, class_name, an_object(f"config of {where:.80}", config), described, place, True, None
    )
    layer.trainable = trainable and layer.config.get("trainable") is not False
    if inner is None:
        return layer
    used: dict[str, int] = defaultdict(int)
    layer.inner = []
    for one in inner:
        snake = snake_case(joined.join(str(one["class_name"])))
        number = f"_{used[snake]}" if used[snake] else ""
        used[snake] += 1
        path = joined.join(place, "/" if place else "", "layers/", snake, number)
        joined.join(*names, name_of(one))
        layer.inner.append(_layer_of(one, (*names, name_of(one)), path, layer.trainable, joined))
    return layer


# ---- calls -----------------------------------------------------------------------------------


class _Reference(NamedTuple):
    """A value in a config: the layer that writes it, which call of it, which of its values."""

    layer: str
    call: int
    tensor: int


class _Inbound(NamedTuple):
    """The values that a call reads, in a config; `masks` has one, or None, for each of the first values."""

    layer: Layer
    reads: list[_Reference]
    wrong: str
    masks: list[_Reference | None]
    constants: tuple[Any, ...] = ()

    @property
    def all_reads(self) -> list[_Reference]:
        """The values that it reads, and the masks."""
        return [*self.reads, *(mask for mask in self.masks if mask is not None)]


def graph_of(model: Layer) -> Graph:
    """The calls of a model, in which models are replaced by the calls in them."""
    if model.inner is None:
        raise FormatError(
            f"the model must be a Sequential or a functional model of Keras, got the class "
            f"{model.class_name:.80}: what it computes is in its program, and not in the file"
        )
    inputs = _inputs_of(model)
    flat = _Flat()
    given = [flat.fresh(name) for name, _ in inputs]
    outputs = flat.run(model, given)
    return Graph(
        [(name, config) for name, (_, config) in zip(given, inputs, strict=True)], flat.calls, outputs
    )


class _Flat:
    """Puts the calls of a model, and of models in it, in a row."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._used: dict[str, int] = defaultdict(int)
        self._count = 0

    def fresh(self, name: str) -> str:
        """The name for what a call of a layer writes."""
        self._used[name] += 1
        count = self._used[name]
        return name if count == 1 else f"{name}@{count}"

    def run(self, model: Layer, given: Sequence[str]) -> list[tuple[str, str]]:
        """Add the calls of a model that reads these values, and return its outputs as `Graph` has them."""
        assert model.inner is not None
        if model.class_name == "Sequential":
            values = list(given)
            last = model
            for layer in model.inner:
                if layer.class_name != "InputLayer":
                    values, last = self._called(_Inbound(layer, [], "", []), values)[:1], layer
            return [(value, last.names[-1] if last.names else value) for value in values]
        return self._functional(model, given)

    def _functional(self, model: Layer, given: Sequence[str]) -> list[tuple[str, str]]:
        assert model.inner is not None
        known: dict[tuple[str, int], list[str] | str] = {}
        references = _references(f"input_layers of {model.name:.80}", model.config.get("input_layers"))
        if len(references) != len(given):
            raise FormatError(f"{_named(model)} reads {len(references)} values, got {len(given)}")
        for reference, name in zip(references, given, strict=True):
            known[reference.layer, 0] = name
        layers = {layer.names[-1]: layer for layer in model.inner}
        if len(layers) < len(model.inner):
            raise FormatError("two layers of the model have the same name")
        outputs = _references(f"output_layers of {model.name:.80}", model.config.get("output_layers"))
        inbound = {
            (name, number): one
            for name, layer in layers.items()
            if layer.class_name != "InputLayer"
            for number, one in enumerate(_inbound_of(layer))
        }
        count = _Count(layers, inbound, outputs)

        def value(reference: _Reference, is_output: bool = False) -> str:
            call = count.call(reference, is_output)
            found = known.get((reference.layer, call))
            if found is None:
                raise FormatError(
                    f"the model reads call {reference.call} of {reference.layer!r:.80}, which is not there"
                )
            if isinstance(found, str):
                return numbered(found, reference.tensor)
            if not 0 <= reference.tensor < len(found):
                raise FormatError(f"{reference.layer!r:.80} writes {len(found)} values, got {reference}")
            return found[reference.tensor]

        for key in _in_order(inbound, count, known):
            one = inbound[key]
            reads = [value(read) for read in one.reads]
            masks = [
                (name, value(mask)) for name, mask in zip(reads, one.masks, strict=False) if mask is not None
            ]
            values = self._called(one, reads, masks)
            known[key] = values if one.layer.inner is not None else values[0]
        return [(value(reference, True), reference.layer) for reference in outputs]

    def _called(
        self, one: _Inbound, reads: Sequence[str], masks: Sequence[tuple[str, str]] = ()
    ) -> list[str]:
        """Add a call of a layer or model, and return the names of its outputs, for a layer only the first."""
        layer = one.layer
        self._count += 1
        if self._count > MOST_CALLS:
            raise FormatError(f"a model may have {MOST_CALLS} calls of layers, got more")
        if layer.inner is None:
            output = self.fresh(layer.name)
            self.calls.append(Call(layer, tuple(reads), output, one.wrong, tuple(masks), one.constants))
            return [output]
        if one.wrong:
            raise FormatError(f"{_named(layer)} is called with {one.wrong}, which fastgru does not compute")
        if layer.class_name == "Sequential" and len(reads) != 1:
            raise FormatError(f"{_named(layer)} reads one value, got {len(reads)}")
        if masks:
            self.calls.append(Call(layer, (), "", "", tuple(masks)))
        return [value for value, _ in self.run(layer, reads)]


def _named(layer: Layer) -> str:
    return f"the model {layer.name or layer.config.get('name')!r:.80}"


class _Count:
    """The number of the first call of each inner model, from which a config counts its calls.

    In Keras 2 it is 1 if the model was built before it was called; in Keras 3 it is 1 for functional models
    in the list of outputs.
    """

    def __init__(
        self,
        layers: dict[str, Layer],
        inbound: dict[tuple[str, int], _Inbound],
        outputs: Sequence[_Reference],
    ) -> None:
        models = [name for name, layer in layers.items() if layer.inner is not None]
        most = dict.fromkeys(models, 0)
        for reference in (*outputs, *(read for one in inbound.values() for read in one.all_reads)):
            if reference.layer in most:
                most[reference.layer] = max(most[reference.layer], reference.call)
        self._first: dict[tuple[str, bool], int] = {}
        for name in models:
            nodes = layers[name].described.get("inbound_nodes")
            if isinstance(nodes, list) and nodes and isinstance(nodes[0], dict):
                self._first[name, True] = layers[name].class_name != "Sequential"
            else:
                first = most[name] == sum(1 for layer, _ in inbound if layer == name)
                self._first[name, True] = self._first[name, False] = first

    def call(self, reference: _Reference, is_output: bool = False) -> int:
        """The number of a call, from 0 on."""
        return max(reference.call - self._first.get((reference.layer, is_output), 0), 0)


def _in_order(
    inbound: dict[tuple[str, int], _Inbound], count: _Count, known: dict[tuple[str, int], Any]
) -> Iterator[tuple[str, int]]:
    """The calls, each after those that it reads; otherwise as the config has them."""
    place = {key: number for number, key in enumerate(inbound)}
    keys = list(inbound)
    waits: dict[tuple[str, int], int] = {}
    readers: dict[tuple[str, int], list[tuple[str, int]]] = defaultdict(list)
    for key, one in inbound.items():
        needed = {(read.layer, count.call(read)) for read in one.all_reads}
        needed -= known.keys()
        missing = [name for name, call in needed if (name, call) not in inbound]
        if missing:
            raise FormatError(
                f"{one.layer.name!r:.80} reads {missing[0]!r:.80}, which the model does not have"
            )
        waits[key] = len(needed)
        for other in needed:
            readers[other].append(key)
    ready = [place[key] for key, number in waits.items() if not number]
    done = 0
    while ready:
        key = keys[heapq.heappop(ready)]
        yield key
        done += 1
        for reader in readers[key]:
            waits[reader] -= 1
            if not waits[reader]:
                heapq.heappush(ready, place[reader])
    if done < len(keys):
        round_ = sorted({name for (name, _), number in waits.items() if number})
        raise FormatError(f"layers read each other in a circle: {', '.join(round_):.200}")


# ---- what calls read -------------------------------------------------------------------------


def _references(what: str, value: Any) -> list[_Reference]:
    """References in a structure of them: [name, call, tensor], or lists or objects of such."""
    if isinstance(value, dict):
        return [one for key in sorted(value) for one in _references(what, value[key])]
    if not isinstance(value, list):
        raise FormatError(f"{what} must be lists of [layer, call, tensor], got {value!r:.80}")
    if value and isinstance(value[0], str):
        return [_reference(what, value)]
    return [one for part in value for one in _references(what, part)]


def _reference(what: str, value: Any) -> _Reference:
    match value:
        case [str(layer), int(call), int(tensor), *_] if (
            0 <= call <= MOST_CALLS and 0 <= tensor <= MOST_CALLS
        ):
            return _Reference(layer, call, tensor)
    raise FormatError(f"{what} must be lists of [layer, call, tensor], got {value!r:.80}")


def _inbound_of(layer: Layer) -> Iterator[_Inbound]:
    """The calls of a layer in a functional model."""
    what = f"inbound_nodes of {layer.name:.80}"
    nodes = layer.described.get("inbound_nodes")
    if not isinstance(nodes, list):
        raise FormatError(f"{what} must be a list, got {nodes!r:.80}")
    for node in nodes:
        if isinstance(node, dict) and "args" in node:
            yield _of_keras_3(layer, what, node)
        else:
            yield _of_keras_2(layer, what, node)


def _of_keras_2(layer: Layer, what: str, node: Any) -> _Inbound:
    if isinstance(node, list) and node and isinstance(node[0], str):
        node = [node]
    reads = _references(what, node)
    entries = [one for one in node if isinstance(one, list)] if isinstance(node, list) else []
    options = next((one[3] for one in entries if len(one) > 3 and isinstance(one[3], dict)), {})
    wrong = []
    for key, value in options.items():
        if key == "initial_state" and is_recurrent(layer.described) and value is not None:
            reads += _references(what, value)
        elif value not in (None, False):
            wrong.append(_option(key, value))
    return _Inbound(layer, reads, ", ".join(wrong), [])


def _of_keras_3(layer: Layer, what: str, node: dict[str, Any]) -> _Inbound:
    arguments, options = node["args"], an_object(what, node.get("kwargs") or {})
    if not isinstance(arguments, list):
        raise FormatError(f"args in {what} must be a list, got {arguments!r:.80}")
    if is_mask_operation(layer):
        reads = list(_tensors(what, arguments))
        constants = tuple(value for value in arguments if not isinstance(value, dict | list))
        return _Inbound(layer, reads, "", [], constants)
    recurrent = is_recurrent(layer.described)
    given = [(str(number), value) for number, value in enumerate(arguments)]
    given += list(options.items())
    reads, wrong = [], []
    masks: list[_Reference | None] = []
    for number, (key, value) in enumerate(given):
        tensors = list(_tensors(what, value))
        is_state = recurrent and key in ("1", "initial_state")
        if tensors and (number == 0 or is_state):
            reads += tensors
        elif tensors and (key == "mask" or (recurrent and key == "2")):
            masks = [
                next(_tensors(what, one), None) for one in (value if isinstance(value, list) else [value])
            ]
        elif tensors or (value not in (None, False) and not (isinstance(value, list) and not any(value))):
            wrong.append(_option("argument " + key if key.isdigit() else key, value))
    return _Inbound(layer, reads, ", ".join(wrong), masks)


def is_mask_operation(layer: Layer) -> bool:
    """True of an operation that Keras 3 uses for masks."""
    # which has no module in an .h5, but what every layer has is not in its config either
    is_bare = "module" not in layer.described and "trainable" not in layer.config
    return layer.class_name in MASK_OPERATIONS and (is_bare or is_operation(layer))


def is_operation(layer: Layer) -> bool:
    """True of a function of Keras in the place of a layer."""
    module = layer.described.get("module")
    return isinstance(module, str) and module.startswith("keras.src.ops")


def _tensors(what: str, value: Any) -> Iterator[_Reference]:
    """The values in an argument of a call."""
    if isinstance(value, dict) and value.get("class_name") == TENSOR:
        config = an_object(what, value.get("config"))
        yield _reference(what, config.get("keras_history"))
    elif isinstance(value, dict):
        for key in sorted(value):
            yield from _tensors(what, value[key])
    elif isinstance(value, list):
        for one in value:
            yield from _tensors(what, one)


def _option(key: str, value: Any) -> str:
    """An argument of a call, for messages."""
    return f"{key}={'...' if isinstance(value, dict | list) else repr(value)[:40]}"


# ---- inputs ----------------------------------------------------------------------------------


def _inputs_of(model: Layer) -> list[tuple[str, dict[str, Any]]]:
    """Names of a model's inputs, and configs of their InputLayers."""
    assert model.inner is not None
    if model.class_name != "Sequential":
        layers = {layer.names[-1]: layer for layer in model.inner if layer.class_name == "InputLayer"}
        found = []
        for reference in _references("input_layers", model.config.get("input_layers")):
            if reference.layer not in layers:
                raise FormatError(f"input_layers has {reference.layer!r:.80}, which is no InputLayer")
            found.append((reference.layer, layers[reference.layer].config))
        return found
    if not model.inner:
        raise FormatError(f"the model {model.config.get('name')!r:.80} has no layers")
    first = model.inner[0]
    if first.class_name == "InputLayer":
        return [(first.names[-1], first.config)]
    if first.inner is not None:
        return _inputs_of(first)
    for config, key in (
        (first.config, "batch_input_shape"),
        (first.config, "batch_shape"),
        (model.config, "build_input_shape"),
    ):
        if config.get(key) is not None:
            return [(f"{first.names[-1]}_input", {"batch_shape": config[key]})]
    raise FormatError(
        f"the model {model.config.get('name')!r:.80} does not say what it reads: give it an Input, or call "
        "it once before it is saved"
    )
