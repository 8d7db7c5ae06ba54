"""Models of Keras 2 and 3: configs with the weights of all their layers.

What is sound, and must load where nothing hostile is beside it: Sequential and Functional models, in
each other and in wrappers, of GRU, CuDNNGRU, RNN of a GRUCell and Bidirectional of them, with other layers
between them, of both versions, as a .keras archive and as an .h5 file.

The hostile productions are in PRODUCTIONS. Archives have one of a few files of weights, so that whoever
judges them can keep these open.
"""

import functools
import io
import json

import h5py
import numpy as np
from formats.hostile.generators import archives
from formats.hostile.generators.drawing import NAMES, Draw, edge
from formats.hostile.generators.json_trees import changed, misspelled, weird
from formats.hostile.generators.native import ACTIVATIONS, STRANGE_ACTIVATIONS

PRODUCTIONS = (
    # texts
    *("config is changed", "text is misspelled", "metadata is strange", "wide characters", "deep value"),
    # models
    *("models nested deeply", "wrappers nested deeply", "bidirectionals nested deeply", "many layers"),
    *("long names", "long names of many models", "name is strange", "name twice", "no name"),
    "class is strange",
    *("layers are strange", "many small objects", "more layers than weights", "model has no layers"),
    # layers
    *("argument is unknown", "argument is strange", "activation is strange", "numbers of other types"),
    *("NaN or infinity", "dtype is strange", "units are large", "cell is strange", "direction is strange"),
    *("merge mode is strange", "shape is strange", "initializer is strange", "arguments do not fit"),
    "Keras 1",
)
OF_H5 = [p for p in PRODUCTIONS if p != "metadata is strange"]
UNITS = FEATURES = 2
LAYOUTS = (  # classes of models, and what is in them
    ("Sequential", ["GRU"]),
    ("Sequential", ["GRU", "Bidirectional", "RNN"]),
    ("Sequential", ["CuDNNGRU", "GRU"]),
    ("Functional", ["GRU", "GRU", ("Sequential", ["GRU", "Bidirectional"])]),
    ("Functional", ["Bidirectional", ("TimeDistributed", ["GRU"]), "GRU"]),
    ("Functional", [("TimeDistributed", [("Sequential", ["GRU", "RNN"])]), "Bidirectional"]),
)
SNAKES = {"CuDNNGRU": "cu_dnngru", "TimeDistributed": "time_distributed"}  # all others are in lower case


# ---- weights ---------------------------------------------------------------------------------


def kernels(cudnn=False):
    """Arrays of a GRU, all of one shape: so any may be anywhere."""
    rng = np.random.default_rng(0)
    shapes = (FEATURES, 3 * UNITS), (UNITS, 3 * UNITS), (6 * UNITS,) if cudnn else (2, 3 * UNITS)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


@functools.cache
def weights_of(number):
    """A .weights.h5 with the weights of a model of this layout."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver="latest") as file:
        save_inside(file, LAYOUTS[number][1], "layers/")
    return buffer.getvalue()


def save_inside(file, members, prefix):
    """Save the weights of the layers of a model."""
    used = {}
    for member in members:
        kind = member if isinstance(member, str) else member[0]
        snake = SNAKES.get(kind, kind.lower())
        number = used[snake] = used.get(snake, -1) + 1
        path = f"{prefix}{snake}_{number}" if number else f"{prefix}{snake}"
        if kind == "TimeDistributed":
            (inner,) = member[1]
            save_layer(file, inner, f"{path}/layer")
        else:
            save_layer(file, member, path)


def save_layer(file, member, path):
    """Save the weights of a layer, or of those of a model."""
    if not isinstance(member, str):
        save_inside(file, member[1], f"{path}/layers/")
    elif member == "Bidirectional":
        for way in ("forward", "backward"):
            save(file, f"{path}/{way}_layer/cell/vars", "012", kernels())
    elif member == "CuDNNGRU":
        save(file, f"{path}/vars", "012", kernels(cudnn=True))
    else:
        save(file, f"{path}/cell/vars", "012", kernels())


def save(group, path, names, arrays):
    for name, array in zip(names, arrays, strict=True):
        group[f"{path}/{name}"] = array


# ---- configs ---------------------------------------------------------------------------------


class Model:
    """The config of a model.

    Parameters
    ----------
    draw : Draw
    version : int
        Keras' major version.
    """

    def __init__(self, draw, version):
        self.draw, self.rng, self.version = draw, draw.rng, version
        self._names = {}

    def name(self, kind):
        """A name as Keras gives it."""
        draw = self.draw
        if draw.hostile("name is strange", 0.3):
            return self.rng.choice([*NAMES, weird(self.rng)])
        if draw.hostile("long names", 0.5):
            return kind + "x" * self.rng.choice([1000, 4000, 100_000])
        self._names[kind] = number = self._names.get(kind, -1) + 1
        return f"{kind}_{number}" if number and not draw.hostile("name twice", 0.5) else kind

    def layer(self, kind, config, snake):
        """A layer of a class."""
        draw = self.draw
        made = {"class_name": kind, "config": config}
        config["name"] = self.name(snake)
        if draw.hostile("no name", 0.3):
            del config["name"]
        if self.version >= 3 or draw.chance(0.2):
            made |= {
                "module": "keras.layers",
                "registered_name": None,
                "build_config": {"input_shape": [None, None, 2]},
            }
        if draw.chance(0.3):
            made["inbound_nodes"] = [[["input_1", 0, 0, {}]]]
        if draw.chance(0.3):
            config["trainable"] = draw.chance(0.7)
        if draw.hostile("class is strange", 0.3):
            classes = [
                "",
                "gru",
                "GRU\0",
                "Gru",
                "x" * 100_000,
                "aA" * 20_000,
                "\N{PILE OF POO}",
                None,
                3,
                ["GRU"],
                {},
                "Aa" * 3000,
            ]
            made["class_name"] = self.rng.choice(classes)
        return made

    # ---- recurrent layers

    def arguments(self):
        """The config of a GRU."""
        draw, rng = self.draw, self.rng
        plain = [a for a in ACTIVATIONS if a != "keras3_hard_sigmoid" and (isinstance(a, str) or a is None)]
        config = {
            "units": UNITS,
            "activation": rng.choice(plain),
            "recurrent_activation": rng.choice(["sigmoid", "hard_sigmoid"]),
            "use_bias": True,
            "reset_after": True,
            "return_sequences": True,
            "return_state": False,
            "go_backwards": False,
            "stateful": False,
            "unroll": False,
            "dropout": 0.0,
            "recurrent_dropout": rng.choice([0.0, 0.1]),
        }
        policy = {
            "module": "keras",
            "class_name": "DTypePolicy",
            "config": {"name": "float32"},
            "registered_name": None,
        }
        config["dtype"] = rng.choice(["float32", policy, None]) if self.version >= 3 else "float32"
        for weight in ("kernel", "recurrent", "bias"):
            for kind, values in {
                "initializer": [
                    "zeros",
                    {"class_name": "GlorotUniform", "config": {"seed": None}},
                    "glorot_uniform",
                ],
                "regularizer": [
                    None,
                    {"class_name": "L2", "config": {"l2": 0.01}},
                    {"class_name": "Own", "config": {}},
                ],
                "constraint": [None, {"class_name": "NonNeg", "config": {}}],
            }.items():
                if draw.chance(0.3):
                    config[f"{weight}_{kind}"] = rng.choice(values)
        if self.version >= 3:
            config |= {"seed": None, "zero_output_for_mask": False}
        else:
            config |= {"time_major": False, "implementation": rng.choice([0, 1, 2])}
        self.spoil(config)
        return config

    def spoil(self, config):
        """Give the config of a GRU strange arguments."""
        draw, rng = self.draw, self.rng
        if draw.hostile("argument is unknown", 0.5):
            config[rng.choice(["weights", "self", "args", "__class__", "x" * 5000, "", "kernel"])] = weird(
                rng
            )
        if draw.hostile("argument is strange", 0.5):
            config[rng.choice(list(config))] = weird(rng)
        if draw.hostile("activation is strange", 0.5):
            activation = json.loads(json.dumps(rng.choice(STRANGE_ACTIVATIONS)))
            for _ in range(rng.choice([0, 0, 1, 60])):
                activation = {
                    "class_name": rng.choice(["function", "Activation", "LeakyReLU"]),
                    "config": activation,
                }
            config[rng.choice(["activation", "recurrent_activation"])] = activation
        if draw.hostile("numbers of other types", 0.5):
            for key, value in list(config.items()):
                if isinstance(value, (bool, int, float)) and draw.chance(0.5):
                    config[key] = rng.choice([str(value), float(value), [value], None, not value, edge(rng)])
        if draw.hostile("NaN or infinity", 0.5):
            number = rng.choice([float("nan"), float("inf"), -float("inf")])
            parametric = {"class_name": rng.choice(["LeakyReLU", "ELU", "ReLU"]), "config": {"alpha": number}}
            config |= rng.choice(
                [{"dropout": number}, {"units": number}, {"activation": parametric}, {"x": number}]
            )
        if draw.hostile("dtype is strange", 0.5):
            policies = [
                "mixed_float16",
                "bfloat16",
                "complex64",
                "O",
                "U9",
                "",
                3,
                {"config": {"name": {"config": []}}},
                {"config": 1},
            ]
            config["dtype"] = rng.choice([*policies, weird(rng)])
        if draw.hostile("units are large", 0.5):
            config["units"] = rng.choice([0, -1, 1 << 20, 1 << 31, 1 << 62, 10**30, 2.0, "2"])
        if draw.hostile("shape is strange", 0.5):
            key = rng.choice(["batch_input_shape", "input_shape", "input_dim", "batch_size", "input_length"])
            config[key] = rng.choice(
                [[None] * 99, [-1, -1, -1], [10**30] * 3, {}, "x", [[1]], [1, 2, 3], 1.5]
            )
        if draw.hostile("initializer is strange", 0.5):
            numbers = {"class_name": "__numpy__", "config": {"value": [[1] * 100] * 100, "dtype": "float64"}}
            constant = {
                "class_name": "Constant",
                "config": {"value": rng.choice([numbers, 1e400, [[1], [2, 3]], {}])},
            }
            config["kernel_initializer"] = rng.choice(
                [numbers, constant, {"class_name": "os.system", "config": "true"}]
            )
        if draw.hostile("arguments do not fit", 0.5):
            config |= rng.choice([{"use_bias": False}, {"reset_after": False}, {"units": 3}])
        if draw.hostile("Keras 1", 0.5):
            config |= {
                "output_dim": config.pop("units", 2),
                "inner_activation": "sigmoid",
                "init": "uniform",
                "W_regularizer": weird(rng),
            }

    def recurrent(self, kind):
        """A layer that fastgru makes."""
        draw, rng = self.draw, self.rng
        config = self.arguments()
        if kind == "GRU":
            return self.layer("GRU", config, "gru")
        if kind == "CuDNNGRU":
            for key in (
                "activation",
                "recurrent_activation",
                "use_bias",
                "reset_after",
                "unroll",
                "implementation",
            ):
                config.pop(key, None)
            return self.layer("CuDNNGRU", config, "cu_dnngru")
        if kind == "RNN":
            return self.rnn(config)
        wrapper = {"merge_mode": rng.choice(["sum", "ave", "mul"])}
        forward = {
            "class_name": "GRU",
            "config": config | {"name": "forward_inner" if self.version >= 3 else "inner"},
        }
        wrapper["layer"] = forward
        if self.version >= 3 or draw.chance(0.3):
            backward = json.loads(json.dumps(forward))
            backward["config"] |= {"name": "backward_inner", "go_backwards": True}
            wrapper["backward_layer"] = backward
        if draw.hostile("merge mode is strange", 0.5):
            wrapper["merge_mode"] = rng.choice([None, "concat", "x", 3, [], {}, "SUM", True])
        if draw.hostile("direction is strange", 0.5):
            key = rng.choice(["layer", "backward_layer"])
            wrapper[key] = rng.choice(
                [weird(rng), {"class_name": "GRU"}, {"config": {}}, {"class_name": "LSTM", "config": {}}]
            )
        if draw.hostile("bidirectionals nested deeply", 0.5):
            for _ in range(rng.choice([1, 10, 60])):
                wrapper = {"layer": {"class_name": "Bidirectional", "config": wrapper}, "name": "x"}
        return self.layer("Bidirectional", wrapper, "bidirectional")

    def rnn(self, config):
        """An RNN of a cell."""
        draw, rng = self.draw, self.rng
        shared = {
            key: config.pop(key, False)
            for key in ("return_sequences", "return_state", "go_backwards", "stateful", "unroll")
        }
        for key in ("time_major", "zero_output_for_mask", "implementation"):
            config.pop(key, None)
        cell = {"class_name": "GRUCell", "config": config | {"name": "cell"}}
        if draw.hostile("cell is strange"):
            cell = rng.choice(
                [
                    weird(rng),
                    [cell, cell],
                    {"class_name": "GRUCell"},
                    {"class_name": "LSTMCell", "config": {}},
                ]
            )
        return self.layer("RNN", shared | {"cell": cell}, "rnn")

    # ---- models

    def other(self):
        """A layer that has nothing to do with it."""
        kind = self.rng.choice(["Dropout", "Dense", "Embedding", "Lambda", "Activation", "LSTM"])
        return self.layer(kind, {"units": 3, "rate": 0.1, "function": "os.system"}, kind.lower())

    def model(self, kind, members):
        """A Sequential or Functional, as a layer."""
        draw, rng = self.draw, self.rng
        layers = (
            [self.layer("InputLayer", {"batch_shape": [None, None, 2]}, "input")] if draw.chance(0.5) else []
        )
        for member in members:
            layers.append(self.member(member))
            if draw.chance(0.2):
                layers.append(self.other())
        self.enlarge(layers)
        config = {"layers": layers}
        if draw.hostile("layers are strange", 0.5):
            strange = [weird(rng), {}, "GRU", [None], [[]], [layers], [{"class_name": "GRU"}], layers * 2]
            config["layers"] = rng.choice([*strange, {"0": layers[0]}])
        if draw.hostile("model has no layers", 0.5):
            del config["layers"]
        return self.layer(kind, config, kind.lower())

    def member(self, member):
        """What is in a model: a recurrent layer, another model, or a wrapper."""
        draw, rng = self.draw, self.rng
        if isinstance(member, str):
            return self.recurrent(member)
        kind, members = member
        if kind == "TimeDistributed":
            made = self.layer(kind, {"layer": self.member(members[0])}, "time_distributed")
        else:
            made = self.model(kind, members)
        if draw.hostile("models nested deeply", 0.7):
            for number in range(rng.choice([5, 30, 90])):
                made = {"class_name": "Functional", "config": {"name": f"m{number}", "layers": [made]}}
        if draw.hostile("wrappers nested deeply", 0.7):
            for number in range(rng.choice([5, 90])):
                made = {"class_name": "TimeDistributed", "config": {"name": f"w{number}", "layer": made}}
        return made

    def enlarge(self, layers):
        """Add many layers, or few of long names."""
        draw, rng = self.draw, self.rng
        if draw.hostile("many layers", 0.5):
            one = {"class_name": "GRU", "config": {"units": 2}}
            layers += [one | {"config": {"name": f"many{i}"}} for i in range(rng.choice([30, 1000]))]
        if draw.hostile("more layers than weights", 0.5):
            layers += [self.recurrent("GRU") for _ in range(5)]
        if draw.hostile("long names of many models", 0.5):
            length, count = rng.choice([(1000, 3), (4000, 30), (30_000, 300), (3, 1000)])
            for number in range(4):
                many = [{"class_name": "GRU", "config": {"name": str(i)}} for i in range(count)]
                layers.append(
                    {
                        "class_name": "Functional",
                        "config": {"name": "n" * length + str(number), "layers": many},
                    }
                )
        if draw.hostile("many small objects", 0.5):
            layers += [
                rng.choice([{}, [], 0, {"class_name": ""}, {"class_name": "GRU", "config": {}}])
            ] * rng.choice([100, 10_000])


def text_of(draw, config):
    """The config as a text."""
    rng = draw.rng
    if draw.hostile("config is changed"):
        config = changed(config, rng)
    if draw.hostile("wide characters"):
        config = (
            {"x": "\N{PILE OF POO}" + "x" * rng.choice([10, 1000, 100_000]), **config}
            if isinstance(config, dict)
            else config
        )
    text = json.dumps(config, ensure_ascii=draw.chance(0.5)).encode("utf-8", "surrogatepass")
    if draw.hostile("deep value"):
        deep = rng.choice([30, 300, 900, 20_000])
        opening, closing = rng.choice(
            [
                (b"[", b"]"),
                (b'{"config":', b"}"),
                (b'{"layer":', b"}"),
                (b'{"class_name":"Bidirectional","config":{"layer":', b"}}"),
            ]
        )
        text = text[:-1] + b', "deep": ' + opening * deep + b"1" + closing * deep + b"}"
    if draw.hostile("text is misspelled"):
        text = misspelled(text, rng)
    return text


def drawn(rng, draw):
    """A version of Keras, the number of a layout, and a model of it."""
    version, number = rng.choice([2, 3]), rng.randrange(len(LAYOUTS))
    if "CuDNNGRU" in LAYOUTS[number][1]:
        version = 2
    model = Model(draw, version).model(*LAYOUTS[number])
    layers = model["config"].get("layers")
    if model["class_name"] == "Sequential" and version < 3 and draw.chance(0.1):  # as Keras before 2.2.3
        model["config"] = layers
    return version, number, model


def archive(rng):
    """A .keras archive."""
    draw = Draw(rng, PRODUCTIONS)
    version, number, config = drawn(rng, draw)
    metadata = {"keras_version": {2: "2.15.0", 3: "3.5.0"}[version], "date_saved": "2024-01-01@00:00:00"}
    if draw.hostile("metadata is strange"):
        versions = ["", "1.2.2", "9" * 5000, "3", "x", None, 3, [], "-1", "\u0663.0", "2.0.0\0"]
        metadata = rng.choice([{"keras_version": rng.choice(versions)}, weird(rng), {}])
    members = [
        ("metadata.json", json.dumps(metadata).encode()),
        ("config.json", text_of(draw, config)),
        ("model.weights.h5", weights_of(number)),
    ]
    return draw.file("model.keras", archives.of_zipfile(members, rng.choice([0, 0, 8])))


def h5(rng):
    """An .h5 file of a whole model, whose weights are those that its sound layers have."""
    draw = Draw(rng, OF_H5)
    version, _, config = drawn(rng, draw)
    text = text_of(draw, json.loads(json.dumps(config))).decode("utf-8", "replace").replace("\0", "")
    layers = config["config"] if isinstance(config["config"], list) else config["config"].get("layers")
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver="latest") as file:
        file.attrs["keras_version"] = {2: "2.15.0", 3: "3.5.0"}[version]
        file.attrs["model_config"] = text
        group = file.create_group("model_weights")
        saved = []
        for layer in layers if isinstance(layers, list) else []:
            name = name_of(layer)
            if name is not None and name not in saved:
                saved.append(name)
                save_h5(group.create_group(name), layer)
        group.attrs["layer_names"] = np.array([name.encode() for name in saved] or [b""], "S")
    return draw.file("model.h5", buffer.getvalue())


def name_of(layer):
    """The name of a layer, if it is a plain one."""
    config = layer.get("config") if isinstance(layer, dict) else None
    name = config.get("name") if isinstance(config, dict) else None
    return name if isinstance(name, str) and name.isidentifier() and len(name) < 1000 else None


def save_h5(group, layer):
    """The weights of a layer, and of those in it, in its group."""
    names = []

    def add(inner, prefix):
        kind, config = inner.get("class_name"), inner.get("config")
        if not isinstance(config, dict):
            config = {"layers": config}
        name = config.get("name")
        folder = (
            f"{prefix}{name if isinstance(name, str) and name.isidentifier() and len(name) < 1000 else 'x'}"
        )
        folders = []
        if kind == "Bidirectional":
            inside = config.get("layer")
            name = inside.get("config", {}).get("name", "x") if isinstance(inside, dict) else "x"
            folders = [
                f"{folder}/{way}_{str(name).removeprefix('forward_')[:9]}/gru_cell"
                for way in ("forward", "backward")
            ]
        elif kind in ("GRU", "RNN"):
            folders = [f"{folder}/gru_cell"]
        elif kind == "CuDNNGRU":
            folders = [folder]
        for one in folders:
            ends = ["kernel:0", "recurrent_kernel:0", "bias:0"]
            if f"{one}/{ends[0]}" not in group:
                save(group, one, ends, kernels(kind == "CuDNNGRU"))
                names.extend(f"{one}/{end}" for end in ends)
        if kind == "TimeDistributed" and isinstance(config.get("layer"), dict):
            add(config["layer"], "")
        for one in config.get("layers") or []:
            if isinstance(one, dict) and len(names) < 100:
                add(one, "")

    add(layer, "")
    group.attrs["weight_names"] = np.array([name.encode() for name in names] or [b""], "S")
