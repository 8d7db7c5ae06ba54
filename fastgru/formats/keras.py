"""Models and layers of Keras: version 1 to 3, `tf_keras`, TensorFlow; files and live objects."""

import contextlib
import functools
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgru import activations, constraints, initializers, regularizers
from fastgru.formats import _hdf5, _model, _zip
from fastgru.formats._hdf5 import Tree
from fastgru.formats._model import Arguments, FormatError, Layer, Maker, Makers
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
REFERENCE = 8  # bytes
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
# what lets its inputs through, but in training
PASSING = (
    *("Dropout", "SpatialDropout1D", "GaussianDropout", "GaussianNoise", "AlphaDropout"),
    "ActivityRegularization",
)
CUDNN = {"activation": "tanh", "recurrent_activation": "sigmoid", "reset_after": True}


def _object(what: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FormatError(f"{what} must be an object, got {value!r:.80}")
    return value


def _major(version: Any) -> int:
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
        cell = _object("config of the cell", _object("cell", config.get("cell")).get("config"))
        arguments = cell | arguments | {"dtype": cell.get("dtype")}
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


def _direction(what: str, layer: Any, version: int, given: Arguments) -> dict[str, Any]:
    """Arguments of one direction of a Bidirectional."""
    layer = _object(what, layer)
    config = _object(f"config of {what}", layer.get("config"))
    arguments = _arguments(str(layer.get("class_name")), config, version)
    if version >= 3 and isinstance(arguments.get("name"), str):  # written with what the wrapper adds to it
        arguments["name"] = re.sub("^(forward|backward)_", "", arguments["name"])
    return arguments | dict(given)


def _gru(arrays: Sequence[Array], arguments: Arguments) -> GRU:
    return _model.gru(merged(arrays), arguments) if arrays else GRU(**arguments)


def _layer(
    class_name: str, config: Config, version: int, weights: Sequence[Sequence[Array]], given: Arguments
) -> Layer:
    """A layer from Keras' config and weights.

    Parameters
    ----------
    class_name : str
        GRU, CuDNNGRU, RNN around a GRUCell, or Bidirectional around one of them.
    config : mapping
    version : int
        Keras' major version.
    weights : sequence of sequence of ndarray
        In Keras' order, of every direction, forward first; of a layer that is not built, none.
    given : mapping
        The caller's arguments, which come before the config's.
    """
    if class_name != "Bidirectional":
        return _gru(weights[0], _arguments(class_name, config, version) | dict(given))
    own, given = _shared(given)
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
    return _bidirectional(weights, forward, backward, wrapper)


def _shared(given: Arguments) -> tuple[dict[str, Any], dict[str, Any]]:
    """The caller's arguments of a Bidirectional: its own, and those of both directions."""
    own = {key: given[key] for key in ("name", "merge_mode") if key in given}
    return own, {key: value for key, value in given.items() if key not in own}


def _bidirectional(
    weights: Sequence[Sequence[Array]], forward: Arguments, backward: Arguments, wrapper: Arguments
) -> Bidirectional:
    layers = _gru(weights[0], forward), _gru(weights[1], backward)
    if not all(layer.built for layer in layers):
        return Bidirectional(layers[0], backward_layer=layers[1], **wrapper)
    return _model.bidirectional(*layers, wrapper)


# ---- weights ---------------------------------------------------------------------------------


def is_cudnn(shapes: Sequence[tuple[int, ...]]) -> bool:
    """Are these the shapes of a CuDNNGRU, whose bias is flat?"""
    return len(shapes) == 3 and len(shapes[1]) == 2 and shapes[2] == (6 * shapes[1][0],)


def is_gru(shapes: Sequence[tuple[int, ...]]) -> bool:
    """Are these the shapes of a GRU of any version of Keras, without alphas?"""
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


# ---- models ----------------------------------------------------------------------------------


class Entry(NamedTuple):
    """A recurrent layer in a model's config.

    Attributes
    ----------
    names : tuple of str
        Of the models that it lies in, from the outermost, and its own.
    class_name : str
    config : dict
    path : str
        Of its variables in a .weights.h5, which goes by classes: layers/functional/layers/gru_1.
    trainable : bool
        Are it and the models that it lies in?
    """

    names: tuple[str, ...]
    class_name: str
    config: dict[str, Any]
    path: str
    trainable: bool

    @property
    def name(self) -> str:
        """encoder/gru."""
        return "/".join(self.names)


def _is_recurrent(layer: Config) -> bool:
    """GRU, CuDNNGRU, RNN of one GRUCell, Bidirectional of such a one."""
    config = layer.get("config")
    if not isinstance(config, dict):
        return False
    match layer.get("class_name"):
        case "GRU" | "CuDNNGRU":
            return True
        case "RNN":
            return isinstance(config.get("cell"), dict) and config["cell"].get("class_name") == "GRUCell"
        case "Bidirectional":
            return isinstance(config.get("layer"), dict) and _is_recurrent(config["layer"])
    return False


def _snake(name: str) -> str:
    """BatchNormalization -> batch_normalization, as Keras has it in paths."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _inner_layers(layer: Config) -> list[dict[str, Any]] | None:
    """The layers of a model, in old Sequentials the config itself; None for a layer that is no model."""
    config = layer.get("config")
    layers = config.get("layers") if isinstance(config, dict) else config
    if isinstance(layers, list) and all(isinstance(one, dict) and "class_name" in one for one in layers):
        return layers
    return None


def _name(layer: Config) -> str:
    config = layer.get("config")
    name = config.get("name") if isinstance(config, dict) else None
    return str(layer.get("name", "") if name is None else name)  # an old Sequential in another has none


def _entries(
    layers: Sequence[Config],
    joined: _model.Names,
    names: tuple[str, ...] = (),
    path: str = "",
    trainable: bool = True,
) -> Iterator[Entry]:
    """The recurrent layers among these and in the models and wrappers among them, in their order."""
    used: dict[str, int] = defaultdict(int)
    for layer in layers:
        name = _name(layer)
        snake = _snake(str(layer.get("class_name")))
        number = f"_{used[snake]}" if used[snake] else ""
        used[snake] += 1
        inner = joined.join(path, "layers/", snake, number)
        yield from _entries_of(layer, joined, (*names, name), inner, trainable)


def _entries_of(
    layer: Config, joined: _model.Names, names: tuple[str, ...], path: str, trainable: bool
) -> Iterator[Entry]:
    """The layer, if it is recurrent, or those in it."""
    config = layer.get("config")
    trainable = trainable and not (isinstance(config, dict) and config.get("trainable") is False)
    if isinstance(config, dict) and _is_recurrent(layer):
        joined.join(*names)
        joined.spend(REFERENCE * len(names))
        yield Entry(names, layer["class_name"], config, path, trainable)
    elif (inner := _inner_layers(layer)) is not None:
        yield from _entries(inner, joined, names, joined.join(path, "/"), trainable)
    elif isinstance(config, dict) and isinstance(config.get("layer"), dict):  # TimeDistributed
        yield from _entries_of(config["layer"], joined, names, joined.join(path, "/layer"), trainable)


def _sequential(model: Config, count: int) -> str | None:
    """The name of a Sequential in the model, or of the model, that has this many recurrent layers in a row.

    Each must return what the next one reads; between them may be what does nothing but in training.
    """
    layers = _inner_layers(model) or []
    recurrent = [layer for layer in layers if _is_recurrent(layer)]
    if model.get("class_name") == "Sequential" and len(recurrent) == count:
        run = [_is_recurrent(layer) for layer in layers if layer["class_name"] not in PASSING]
        first = run.index(True)
        together = all(run[first : first + count])
        return _name(model) if together and all(map(_returns_sequences, recurrent[:-1])) else None
    return next((name for layer in layers if (name := _sequential(layer, count)) is not None), None)


def _returns_sequences(layer: Config) -> bool:
    """Is that so of a recurrent layer?"""
    config = layer["config"]
    if layer["class_name"] == "Bidirectional":
        return _returns_sequences(config["layer"])
    return config.get("return_sequences") is True


def _makers(
    tree: Tree,
    version: int,
    model: Config,
    entries: Sequence[Entry],
    paths: Callable[[Entry], list[list[str]]],
) -> Makers:
    """The layers of a model with a config; `paths` of the weights of each direction."""

    def maker(entry: Entry) -> Maker:
        def made(given: Arguments) -> Layer:
            weights = [[tree.floats(path) for path in direction] for direction in paths(entry)]
            config = entry.config | {"name": entry.names[-1]}
            return _layer(entry.class_name, config, version, weights, given)

        return made

    makers = Makers({entry.name: maker(entry) for entry in entries})
    if len(makers) < len(entries):
        raise FormatError("two layers of the model have the same name")
    name = _sequential(model, len(entries)) if len(entries) > 1 else None
    if name is not None:
        makers.whole = lambda given: _model.stack(name, list(makers.values()), given)
    return makers


# ---- .h5: weights by the names that TensorFlow or Theano gave them ----------------------------------


def _names(attributes: Mapping[str, Any], kind: str) -> list[str]:
    """layer_names or weight_names, which Keras cuts into several attributes when they are long."""
    if kind in attributes:
        parts = [attributes[kind]]
    else:
        parts = []
        while f"{kind}{len(parts)}" in attributes:
            parts.append(attributes[f"{kind}{len(parts)}"])
    if not all(isinstance(part, list) for part in parts):
        raise FormatError(f"{kind} must be a list of names")
    return [name for part in parts for name in part]


def _cells(tree: Tree, group: str, joined: _model.Names) -> dict[str, list[str]]:
    """Paths of the weights of every GRU cell in a layer's group, by the folder that they lie in.

    gru_1/gru_cell/kernel:0 lies in gru_1/gru_cell; Keras 1's gru_1_W_z lies in gru_1. An alpha of PReLU has
    a folder of its own, gru_1/gru_cell/p_re_lu/alpha:0, in that of its cell.
    """
    folders: dict[str, list[str]] = {}
    alphas: dict[str, list[str]] = defaultdict(list)
    for name in _names(tree.attributes.get(group, {}), "weight_names"):
        keras_1 = re.fullmatch(r"(.*)_[WUb](?:_[zrh])?(?:_\d+)?(?::0)?", name, re.S)
        folder, _, last = (keras_1[1], "", "") if keras_1 else name.rpartition("/")
        path = joined.join(group, "/", name)
        if last.startswith("alpha"):
            alphas[folder.rpartition("/")[0]].append(path)
        else:
            folders.setdefault(folder, []).append(path)
    return {
        folder: [*paths, *alphas[folder]]
        for folder, paths in folders.items()
        if all(path in tree.shapes for path in paths) and is_gru([tree.shapes[path] for path in paths])
    }


def _directions(entry: Entry, version: int) -> list[set[str]]:
    """For each direction what is in the folder of its weights: names of the layer and of the direction."""
    if entry.class_name != "Bidirectional":
        return [set(entry.names[-1].split("/"))]
    named = []
    for way, key in (("forward_", "layer"), ("backward_", "backward_layer")):
        layer = _object(key, entry.config.get(key) or entry.config["layer"])
        name = str(_object(f"config of {key}", layer.get("config")).get("name"))
        if version < 3 or key not in entry.config:
            name = way + name  # which Keras 3 has in the config
        named.append({*entry.names[-1].split("/"), *name.split("/")})
    return named


def _folders(entries: Sequence[Entry], version: int, folders: Sequence[str]) -> list[list[str]]:
    """The folder of each direction of each of the layers that are saved in one group.

    By names, and where these are ambiguous or others, as those of a layer that was built before its model,
    by order: that of the model, but weights that are not trainable come last.
    """
    slots = [(i, names) for i, entry in enumerate(entries) for names in _directions(entry, version)]
    holding: dict[str, set[str]] = defaultdict(set)
    for folder in folders:
        for part in folder.split("/"):
            holding[part].add(folder)
    found: dict[str, int] = {}  # the layer's number, by folder
    for i, names in slots:
        fitting = set.intersection(*sorted((holding[name] for name in names), key=len)).difference(found)
        if len(fitting) != 1:
            break
        found[fitting.pop()] = i
    if len(found) < len(slots):
        if len(folders) != len(slots):
            those = ", ".join(entry.name for entry in entries)
            raise FormatError(f"weights of {those:.200} are missing or have other shapes")
        slots.sort(key=lambda slot: not entries[slot[0]].trainable)
        found = {folder: i for folder, (i, _) in zip(folders, slots, strict=True)}
    of_entries: list[list[str]] = [[] for _ in entries]
    for folder, i in found.items():
        of_entries[i].append(folder)
    return of_entries


def _model_h5(tree: Tree, file_bytes: int, joined: _model.Names) -> dict[str, Maker]:
    """The layers of an .h5 file of a whole model."""
    root = tree.attributes[""]
    text = str(root["model_config"]).encode()
    model = _object("model_config", _zip.parse_json("model_config", text, file_bytes))
    version = _major(root.get("keras_version"))
    entries = list(_entries(_inner_layers(model) or [], joined))

    together: dict[str, list[Entry]] = defaultdict(list)  # in one group
    groups: dict[str, str] = {}
    for entry in entries:
        for name in entry.names:  # the outermost model's; Keras 1 had none for a Sequential in another
            if f"model_weights/{name}" in tree.attributes:
                groups[entry.name] = f"model_weights/{name}"
                together[groups[entry.name]].append(entry)
                break

    @functools.cache
    def paths_in(group: str) -> dict[str, list[list[str]]]:
        cells = _cells(tree, group, joined)
        folders = _folders(together[group], version, list(cells))
        return {
            entry.name: [cells[folder] for folder in own]
            for entry, own in zip(together[group], folders, strict=True)
        }

    def paths(entry: Entry) -> list[list[str]]:
        if entry.name not in groups:
            raise FormatError(f"weights of {entry.name} are missing")
        return paths_in(groups[entry.name])[entry.name]

    return _makers(tree, version, model, entries, paths)


def _weights_h5(tree: Tree, joined: _model.Names) -> dict[str, Maker]:
    """The layers of an .h5 file of `save_weights`."""
    makers: dict[str, Maker] = {}
    names = _names(tree.attributes[""], "layer_names")
    if len(set(names)) < len(names):
        raise FormatError("two layers have the same name")
    for layer in names:
        pairs: dict[str, dict[str, list[str]]] = defaultdict(dict)  # by what both directions lie in
        single: dict[str, list[list[str]]] = {}
        for folder, paths in _cells(tree, layer, joined).items():
            match = re.match("(.*?)(?:^|/)(forward|backward)_", folder, re.S)
            if match and match[2] not in pairs[match[1]]:
                pairs[match[1]][match[2]] = paths
            else:
                single[re.sub("(?:^|/)gru_cell[^/]*$", "", folder)] = [paths]
        found = [
            (folder, [ways[way] for way in sorted(ways, reverse=True)]) for folder, ways in pairs.items()
        ]
        found += single.items()
        for folder, directions in found:
            inner = folder.rpartition("/")[2] or "gru"  # without a folder if it was built before its model
            name = layer if len(found) == 1 else joined.join(layer, "/", inner)
            _add(makers, name, _bare_maker(tree, name, directions))
    return makers


def _add(makers: dict[str, Maker], name: str, maker: Maker) -> None:
    if name in makers:
        raise FormatError(f"two layers have the name {name}")
    makers[name] = maker


# ---- .weights.h5: weights by their place among the objects -------------------------------------------


def _variables(tree: Tree, path: str) -> list[str]:
    """Paths of the weights of the layer at a path, and of its activations, which it shares with its cell."""
    cell = f"{path}/cell" if f"{path}/cell/vars/0" in tree.shapes else path  # a CuDNNGRU has none
    places = [f"{cell}/vars/{i}" for i in range(3)]
    for activation in ("activation", "recurrent_activation"):
        places += [f"{owner}/{activation}/vars/0" for owner in (path, f"{path}/cell")]
    return [place for place in places if place in tree.shapes]


def _at(tree: Tree, entry: Entry) -> list[list[str]]:
    """Paths of the weights of each direction of a layer of a model."""
    path = entry.path
    if "_layer_checkpoint_dependencies" in tree.attributes:  # Keras 2.12 and 2.13
        path = path.replace("layers/", "_layer_checkpoint_dependencies/")
    ways = ("/forward_layer", "/backward_layer") if entry.class_name == "Bidirectional" else ("",)
    paths = [_variables(tree, path + way) for way in ways]
    if not all(paths):
        raise FormatError(f"weights of {entry.name} are missing")
    return paths


def _objects(tree: Tree) -> dict[str, Maker]:
    """The layers of a .weights.h5, by their names where Keras 3 gives them, else by their paths."""
    layers: dict[str, dict[str, list[str]]] = defaultdict(dict)
    for group in sorted(tree.attributes, key=_numbers_as_such):
        variables = [f"{group}/{i}" for i in range(3) if f"{group}/{i}" in tree.shapes]
        if not group.endswith("/vars") or not is_gru([tree.shapes[variable] for variable in variables]):
            continue
        path = group.removesuffix("/vars").removesuffix("/cell")
        outer, _, way = path.rpartition("/")
        if way not in ("forward_layer", "backward_layer"):
            outer, way = path, ""
        layers[outer][way] = _variables(tree, path)
    makers: dict[str, Maker] = {}
    for path, ways in layers.items():
        name = tree.attributes.get(f"{path}/vars", {}).get("name")
        if not isinstance(name, str) or name in makers:
            name = re.sub("(^|/)(layers|_layer_checkpoint_dependencies)/", r"\1", path)
        _add(makers, name, _bare_maker(tree, name, [ways[way] for way in sorted(ways, reverse=True)]))
    return makers


def _numbers_as_such(path: str) -> list[Any]:
    """A key for sorting that puts gru_9 before gru_10."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split("([0-9]{1,9})", path))]


# ---- files -----------------------------------------------------------------------------------


def _bare_maker(tree: Tree, name: str, directions: Sequence[Sequence[str]]) -> Maker:
    """A layer of a file without configs: paths of the weights of one direction or of both."""

    def made(given: Arguments) -> Layer:
        shapes = [[tree.shapes[path] for path in paths] for paths in directions]
        if is_cudnn(shapes[0]):
            given = {**CUDNN, **given}
        elif not set(given) - {"name"}:
            held = " and ".join(
                "Keras 1's nine arrays" if len(shape) == 9 else _model.describe(shape) for shape in shapes
            )
            raise FormatError(
                f"the file has weights only, of {name} {held}: give the arguments that the layer was made "
                "with, such as recurrent_activation='sigmoid', reset_after=True"
            )
        weights = [[tree.floats(path) for path in paths] for paths in directions]
        given = {"name": name.rpartition("/")[2], **given}
        if len(weights) == 1:
            return _gru(weights[0], given)
        own, given = _shared(given)
        given["name"] = own["name"]
        return _bidirectional(weights, given, given | {"go_backwards": not given.get("go_backwards")}, own)

    return made


@contextlib.contextmanager
def hdf5(data: bytes) -> Iterator[dict[str, Maker]]:
    """The layers of an .h5 file, whole model or weights only, or of a .weights.h5."""
    limit = _model.size_limit(len(data))
    joined = _model.Names(limit)
    with _hdf5.open_tree(data, limit) as tree:
        root = tree.attributes[""]
        if "model_config" in root:
            yield _model_h5(tree, len(data), joined)
        elif "layer_names" in root or "layer_names0" in root:
            yield _weights_h5(tree, joined)
        else:
            yield _objects(tree)


@contextlib.contextmanager
def archive(members: _zip.Archive) -> Iterator[dict[str, Maker]]:
    """The layers of a .keras archive; those of a model that has no layers in its config, by their weights."""
    model, metadata = members.json("config.json"), members.json("metadata.json")
    layers = _inner_layers(_object("config.json", model))
    version = _major(_object("metadata.json", metadata).get("keras_version"))
    if version < 2:
        raise FormatError("metadata.json must say which version of Keras the model is of")
    limit = _model.size_limit(members.size)
    with _hdf5.open_tree(members.read("model.weights.h5"), limit) as tree:
        if layers is None:
            yield _objects(tree)
        else:
            entries = list(_entries(layers, _model.Names(limit)))
            yield _makers(tree, version, model, entries, lambda entry: _at(tree, entry))


# ---- live objects ------------------------------------------------------------------------------

KERAS = ("keras", "tf_keras", "tensorflow")


def from_keras(layer: Any) -> Layer:
    """The layer that a layer of Keras is: of `tf_keras`, of TensorFlow or of Keras 3.

    Parameters
    ----------
    layer : keras.layers.GRU, CuDNNGRU, RNN of a GRUCell, Bidirectional of one of them, or Sequential
        Or an object of a subclass, of which only the weights and what Keras' class has in its config are
        taken. A layer that is not built gives one that is not built. A recorded state stays behind, as it
        does in Keras' own files. Of a Sequential the layers of these kinds, which must be in a row.

    Returns
    -------
    GRU, Bidirectional or Stack

    Raises
    ------
    TypeError
        If it is no such layer.
    ValueError
        If its configuration is not one of fastgru: an activation of its own, for example. If the layers of a
        Sequential are not in a row.
    """
    cls = _keras_class(layer)
    if cls is not None and cls.__name__ == "Sequential":
        return _of_sequential(layer)
    config = {} if cls is None else cls.get_config(layer)
    if cls is None or not _is_recurrent({"class_name": cls.__name__, "config": config}):
        raise TypeError(f"layer must be a GRU or a Bidirectional GRU of Keras, got {type(layer).__name__}")
    package = cls.__module__.partition(".")[0]
    version = _major(getattr(sys.modules["keras"], "__version__", None)) if package == "keras" else 2
    directions = [layer]
    if cls.__name__ == "Bidirectional":
        directions = [layer.forward_layer, layer.backward_layer]
        config |= {
            key: _config_of(direction)
            for key, direction in zip(("layer", "backward_layer"), directions, strict=True)
        }
    weights = [[_numbers(array) for array in direction.get_weights()] for direction in directions]
    return _layer(cls.__name__, config, version, weights, {})


def _of_sequential(model: Any) -> Layer:
    """The recurrent layers of a live Sequential."""
    layers = [layer for layer in model.layers if type(layer).__name__ not in PASSING]
    run = [_is_recurrent(_described(layer)) for layer in layers]
    if not any(run):
        raise TypeError("layer must be a GRU or a Bidirectional GRU of Keras, got a Sequential without one")
    first, count = run.index(True), run.count(True)
    if not all(run[first : first + count]):
        raise ValueError(
            f"layer must have its GRUs in a row, got the Sequential {model.name!r} with other layers between "
            "them: give them one by one"
        )
    found = [from_keras(layer) for layer in layers[first : first + count]]
    return Stack(found, name=model.name) if count > 1 else found[0]


def _described(layer: Any) -> dict[str, Any]:
    """A live layer as a model's config has it; nothing if it is of no known class of Keras."""
    cls = _keras_class(layer)
    return {} if cls is None else {"class_name": cls.__name__, "config": cls.get_config(layer)}


def _keras_class(layer: Any) -> Any:
    """Keras' own class that the layer is of; None if it is not Keras'."""
    known = ("GRU", "CuDNNGRU", "RNN", "Bidirectional", "Sequential")
    classes = (cls for cls in type(layer).__mro__ if cls.__module__.partition(".")[0] in KERAS)
    return next((cls for cls in classes if cls.__name__ in known), None)


def _numbers(weight: Any) -> Array:
    """A live weight; one of bfloat16, which is no type of NumPy's, as float32."""
    array = np.asarray(weight)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def _config_of(direction: Any) -> dict[str, Any]:
    """A direction of a live Bidirectional as its config would have it, with `trainable` as it is now."""
    cls = _keras_class(direction)
    config = cls.get_config(direction)
    return {
        "class_name": cls.__name__,
        "config": config | {"name": re.sub("^(forward|backward)_", "", config["name"])},
    }


# ---- out -------------------------------------------------------------------------------------


def to_config(layer: Layer, version: int = 2) -> dict[str, Any]:
    """A config that Keras takes; `Layer.to_keras_config` has the rest."""
    if version not in (2, 3):
        raise ValueError(f"version must be 2 or 3, of Keras, got {version!r}")
    if isinstance(layer, GRU):
        return _gru_config(layer, version)
    if isinstance(layer, Stack):
        raise ValueError("Keras has no layer that is a Stack: write its `layers` one by one")
    config = layer.get_config()
    if version == 3:
        config.pop("batch_input_shape", None)
        if layer.trainable and layer.backward_layer.trainable > layer.forward_layer.trainable:
            raise ValueError(
                "Keras 3 has the forward layer's weights first, but get_weights() those of the backward "
                "layer, as only they are trainable: set trainable of the layer first"
            )
    for key, direction in (("layer", layer.forward_layer), ("backward_layer", layer.backward_layer)):
        name = re.sub("^(forward|backward)_", "", direction.name)
        of_direction = _gru_config(direction, version) | {"name": name}
        config[key] = {
            "module": "keras.layers",
            "class_name": "GRU",
            "config": of_direction,
            "registered_name": None,
        }
    return config


def _gru_config(layer: GRU, version: int) -> dict[str, Any]:
    if layer.default_state is not None:
        raise ValueError(
            f"Keras {version} has only GRUs that start from zeros, got a default_state: give it to calls"
        )
    config = layer.get_config()
    config.pop("weights_dtype", None)
    for key in ("activation", "recurrent_activation"):
        config[key] = _keras_activation(key, getattr(layer, key), config[key], version)
    if version == 3:
        if config.pop("time_major"):
            raise ValueError("Keras 3 has only GRUs that are batch-major, got time_major=True")
        config.pop("implementation")
        config.pop("batch_input_shape", None)
    return config


def _keras_activation(key: str, activation: Any, identifier: Any, version: int) -> Any:
    """What Keras has for an activation whose config in fastgru is `identifier`."""
    of_onnx = (activations.HardSigmoid, activations.Affine, activations.ScaledTanh)
    of_2 = activation is activations.hard_sigmoid or isinstance(activation, activations.ThresholdedReLU)
    foreign = of_2 if version == 3 else activation is activations.keras3_hard_sigmoid
    if foreign or isinstance(activation, of_onnx):
        raise ValueError(f"Keras {version} has no activation {activation!r}, which is the layer's {key}")
    if activation is activations.keras3_hard_sigmoid:
        return "hard_sigmoid"
    if version == 3 and isinstance(activation, activations.LeakyReLU):
        return identifier | {"config": {"negative_slope": activation.alpha}}
    return identifier
