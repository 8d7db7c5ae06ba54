"""fastgru's own files: an archive with a header of JSON and numbered arrays.

What is sound, and must load where nothing hostile is beside it: GRUs, Bidirectionals and Stacks of them, with
their activations, initializers, constraints and states to start from, of three types of weights.

The hostile productions are in PRODUCTIONS.
"""

import functools
import json
import zipfile

import numpy as np
from formats.hostile.generators import archives
from formats.hostile.generators.drawing import NAMES, Draw, edge, scrambled, weights, with_strange_number
from formats.hostile.generators.json_trees import changed, misspelled, weird

import fastgru

PRODUCTIONS = (
    # the header
    *("config is changed", "header is misspelled", "header is no text", "format is another"),
    "class is another",
    *("config is none", "numbers of other types", "header is missing", "deep config", "wide characters"),
    *("argument is unknown", "argument is strange", "activation is strange", "name is strange"),
    "state is strange",
    *("units are large", "layers are strange", "stack in a stack", "many layers", "layers in layers"),
    # the arrays
    *("array is missing", "arrays are in another order", "more arrays", "shape is another"),
    "type is another",
    *("numbers are strange", "member is damaged", "members of others", "numbers with zeros", "no arrays"),
)
ACTIVATIONS = [
    *("relu", "tanh", "sigmoid", "linear", "softmax", "elu", "selu", "hard_sigmoid", "swish", "gelu"),
    "exponential",
    *("softplus", "softsign", "keras3_hard_sigmoid", None),
    {"class_name": "LeakyReLU", "config": {"alpha": 0.1}},
    {"class_name": "ReLU", "config": {"max_value": 6.0}},
    {"class_name": "ELU", "config": {"alpha": 0.5}},
]
STRANGE_ACTIVATIONS = [
    *(
        "Softmax",
        "",
        "__class__",
        "os.system",
        "LeakyReLU",
        "lambda x: x",
        "relu\0",
        3,
        [],
        {},
        True,
        float("nan"),
    ),
    {"class_name": "PReLU", "config": {"shared_axes": [1, 1, 1]}},
    {"class_name": "LeakyReLU", "config": {"alpha": float("nan")}},
    {"class_name": "LeakyReLU", "config": {"alpha": 1e400}},
    {"class_name": "ReLU", "config": {"max_value": -1, "threshold": float("inf")}},
    {"class_name": "Softmax", "config": {"axis": 7}},
    {"class_name": "Softmax", "config": {"axis": [0, 1]}},
    {"class_name": "Lambda", "config": {"function": "x"}},
    {"class_name": "function", "config": "os.system"},
    {"class_name": {"class_name": "GRU"}, "config": []},
    {"module": "os", "class_name": "system", "config": {"command": "true"}, "registered_name": "x"},
]


@functools.cache
def sound(kind, number):
    """The config and the arrays of a layer, of several of each kind."""
    more = {
        "activation": ACTIVATIONS[number % len(ACTIVATIONS)],
        "use_bias": number % 3 > 0,
        "reset_after": number % 2 > 0,
        "dtype": ["float32", "float64", "float16"][number % 3],
    }
    if number % 4 == 1:
        more |= {"kernel_initializer": "he_normal", "kernel_regularizer": "l2", "bias_constraint": "non_neg"}
    if number % 4 == 2:
        more["default_state"] = np.ones(2, more["dtype"])

    def gru():
        return fastgru.GRU(2, return_sequences=True, **more)

    def bidirectional():
        return fastgru.Bidirectional(gru(), merge_mode=["concat", "sum", "ave", "mul"][number % 4])

    layer = {
        "GRU": gru,
        "Bidirectional": bidirectional,
        "Stack": lambda: fastgru.Stack([*(gru() for _ in range(number % 3)), bidirectional()]),
    }[kind]()
    layer.build((None, None, 3))
    return json.dumps(layer.get_config()), numbered(layer, "")


def numbered(layer, prefix):
    """Arrays of a layer by their names in a file."""
    if isinstance(layer, fastgru.Stack):
        parts = {f"{prefix}{i}.": one for i, one in enumerate(layer.layers)}
    elif isinstance(layer, fastgru.Bidirectional):
        parts = {f"{prefix}forward.": layer.forward_layer, f"{prefix}backward.": layer.backward_layer}
    else:
        return {f"{prefix}{i}": array for i, array in enumerate(layer.get_weights())}
    return {name: array for start, part in parts.items() for name, array in numbered(part, start).items()}


def configs(value):
    """The configs of GRUs in a layer's config, whatever else is in it."""
    if isinstance(value, dict):
        if "units" in value:
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from configs(one)


def file(rng):
    """A file of a layer."""
    draw = Draw(rng, PRODUCTIONS)
    kind = rng.choice(["GRU", "GRU", "Bidirectional", "Stack"])
    text, arrays = sound(kind, rng.randrange(36))
    header = {"format": 1, "class_name": kind, "config": spoiled(draw, json.loads(text))}
    arrays = {name: weights(rng, *array.shape, dtype=array.dtype) for name, array in arrays.items()}
    if draw.hostile("many layers"):
        count = rng.choice([30, 300])
        one = json.loads(sound("GRU", 0)[0])
        layers = [{"class_name": "GRU", "config": one | {"name": str(i)}} for i in range(count)]
        header |= {"class_name": "Stack", "config": {"name": "stack", "layers": layers}}
        arrays = {f"{i}.{j}": np.zeros((2, 6), np.float32) for i in range(count) for j in range(2)}
    members = [(f"{name}.npy", archives.npy(array)) for name, array in chosen(draw, arrays).items()]
    if draw.hostile("member is damaged") and members:
        at = rng.randrange(len(members))
        members[at] = members[at][0], scrambled(members[at][1], rng)
    if draw.hostile("members of others"):
        names = [
            "config.json",
            "x/data.pkl",
            "weight_ih_l0.npy",
            "fastgru",
            "fastgru.npy/x",
            "forward.0.npy",
            "0.0.npy",
        ]
        members += [(name, members[0][1] if members else b"") for name in rng.sample(names, 2)]
    if not draw.hostile("header is missing"):
        members.insert(rng.choice([0, len(members)]), ("fastgru.npy", headed(draw, header)))
    packing = rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    pack = rng.choice([archives.sound, archives.of_zipfile])
    return draw.file("layer.npz", pack(members or [("x", b"")], packing))


def headed(draw, header):
    """The member that has the header."""
    rng = draw.rng
    if draw.hostile("format is another"):
        header["format"] = rng.choice([0, 2, -1, "1", True, 1.0, None, [1], 10**30])
    if draw.hostile("class is another"):
        names = [
            "GRU",
            "Bidirectional",
            "Stack",
            "gru",
            "",
            "object",
            "os.system",
            None,
            3,
            ["GRU"],
            {"a": 1},
        ]
        header["class_name"] = rng.choice(names)
    if draw.hostile("config is none"):
        header["config"] = weird(rng)
    if draw.hostile("config is changed"):
        header = changed(header, rng)
    text = json.dumps(header, ensure_ascii=draw.chance(0.5)).encode("utf-8", "surrogatepass")
    if draw.hostile("header is misspelled"):
        text = misspelled(text, rng)
    if draw.hostile("deep config"):
        deep = rng.choice([30, 900, 100_000])
        text = text[:-1] + b', "x": ' + b'{"layer": ' * deep + b"1" + b"}" * deep + b"}"
    array = np.frombuffer(text, np.uint8)
    if draw.hostile("header is no text"):
        changes = [
            array.astype(np.uint16),
            array.astype(np.float32),
            array[:0],
            np.zeros((), np.uint8),
            array[None],
        ]
        array = rng.choice(changes)
    return archives.npy(array)


def spoiled(draw, config):
    """A config with strange arguments."""
    rng = draw.rng
    if draw.hostile("layers are strange"):
        config["layers"] = rng.choice(
            [[], [None], {}, "GRU", [[]], [{"class_name": "GRU"}], [{"config": {}}], 3]
        )
    if draw.hostile("stack in a stack"):
        inner = {
            "class_name": rng.choice(["Stack", "RNN", "Lambda"]),
            "config": json.loads(json.dumps(config)),
        }
        config["layers"] = [inner, inner]
    if draw.hostile("layers in layers"):
        inner = {"class_name": rng.choice(["GRU", "Bidirectional"]), "config": json.loads(json.dumps(config))}
        config[rng.choice(["layer", "backward_layer", "cell"])] = inner
    found = list(configs(config)) or [config]
    one = rng.choice(found)
    if draw.hostile("argument is unknown"):
        one[
            rng.choice(["weights", "cell", "self", "args", "__class__", "batch_input_shape", "x" * 5000, ""])
        ] = weird(rng)
    if draw.hostile("argument is strange"):
        one[rng.choice(list(one))] = weird(rng)
    if draw.hostile("activation is strange"):
        activation = json.loads(json.dumps(rng.choice(STRANGE_ACTIVATIONS)))
        one[rng.choice(["activation", "recurrent_activation"])] = activation
    if draw.hostile("name is strange"):
        rng.choice([one, config])["name"] = rng.choice([*NAMES, weird(rng)])
    if draw.hostile("state is strange"):
        states = [
            [1],
            [[1, 2]],
            [[[1, 2]]],
            [1, "x"],
            [1e400, 0],
            [float("nan")] * 2,
            [[1, 2]] * 1000,
            {},
            "1",
            3,
        ]
        one["default_state"] = rng.choice(states)
    if draw.hostile("units are large"):
        one["units"] = rng.choice([0, -1, 1 << 20, 1 << 31, 1 << 62, 10**30, 2.0, "2"])
    if draw.hostile("numbers of other types"):
        for key, value in list(one.items()):
            if isinstance(value, (bool, int, float)) and draw.chance(0.5):
                one[key] = rng.choice([str(value), float(value), [value], None, not value, edge(rng)])
    if draw.hostile("wide characters"):
        config["name"] = "\N{PILE OF POO}" + "x" * rng.choice([10, 4000, 100_000])
    return config


def chosen(draw, arrays):
    """The arrays of a file by name, of which some are others."""
    rng = draw.rng
    names = list(arrays)
    if draw.hostile("array is missing"):
        del arrays[rng.choice(names)]
    if draw.hostile("arrays are in another order"):
        shuffled = rng.sample(list(arrays.values()), len(arrays))
        arrays = dict(zip(arrays, shuffled, strict=True))
    if draw.hostile("more arrays"):
        arrays |= {
            f"{rng.choice(['', '0.', 'forward.', '9.'])}{i}": arrays.get(names[0], np.zeros(3))
            for i in range(9)
        }
    if draw.hostile("shape is another") and arrays:
        name = rng.choice(list(arrays))
        array = arrays[name]
        arrays[name] = rng.choice([array.T, array.ravel(), array[:1], array[:0], array[None], array[..., :1]])
    if draw.hostile("type is another") and arrays:
        name = rng.choice(list(arrays))
        arrays[name] = arrays[name].astype(rng.choice(["i4", "f8", "f2", "f4", "b1", "u1", ">f4", "i8"]))
    if draw.hostile("numbers are strange") and arrays:
        name = rng.choice(list(arrays))
        array = arrays[name]
        if array.dtype == np.float32:
            data = with_strange_number(array.tobytes(), rng)
            arrays[name] = np.frombuffer(data, np.float32).reshape(array.shape)
    if draw.hostile("numbers with zeros"):
        arrays = {rng.choice([f"0{name}", name.replace(".", "..")]): array for name, array in arrays.items()}
    if draw.hostile("no arrays"):
        arrays = {}
    return arrays
