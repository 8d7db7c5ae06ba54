"""Layers models of TensorFlow.js: a model.json, and shards of weights beside it.

What is sound, and must load where nothing hostile is beside it: a Sequential of one or two GRUs, whose
weights are of float32, float16 or quantized, in one or two groups of one or more shards.

The hostile productions are in PRODUCTIONS.
"""

import json

import numpy as np
from formats.hostile.generators.drawing import NAMES, Draw, edge, scrambled, weights, with_strange_number
from formats.hostile.generators.json_trees import changed, misspelled, weird

PRODUCTIONS = (
    # shards
    *(
        "shard is missing",
        "shard is elsewhere",
        "shard is named twice",
        "shard is shorter",
        "shard is longer",
    ),
    *("many shards", "shard is the model", "no shards", "paths are strange"),
    # weights
    *("shape lies", "type is unknown", "quantization is strange", "name is strange", "name twice"),
    *("weight is missing", "more weights", "numbers are strange", "entry is strange", "many weights"),
    # the text
    *("format is another", "version is strange", "text is changed", "text is misspelled", "no topology"),
    *("no manifest", "wide characters", "many objects", "scrambled", "cut off"),
)
QUANTIZED = {"uint8": 255, "uint16": 65_535}


def model(rng):
    """A model.json, and the files beside it."""
    draw = Draw(rng, PRODUCTIONS)
    layers, entries = [], []
    features, kind = rng.choice([1, 2]), rng.choice(["float32"] * 3 + ["float16", "uint8", "uint16"])
    for number in range(rng.choice([1, 1, 2])):
        units, name = rng.choice([1, 2]), f"gru_{number}"
        config = {"name": name, "units": units, "return_sequences": True, "reset_after": True}
        layers.append({"class_name": "GRU", "config": config | {"recurrent_activation": "sigmoid"}})
        shapes = {
            "kernel": (features, 3 * units),
            "recurrent_kernel": (units, 3 * units),
            "bias": (2, 3 * units),
        }
        entries += [
            weight(draw, f"{name}/gru_cell/{end}", weights(rng, *shape), kind)
            for end, shape in shapes.items()
        ]
        features = units
    if draw.hostile("weight is missing"):
        del entries[rng.randrange(len(entries))]
    if draw.hostile("more weights"):
        entries.append(weight(draw, "other/kernel", weights(rng, 2, 2), kind))
    if draw.hostile("many weights"):
        entries += [({"name": f"w{i}", "shape": [0], "dtype": "float32"}, b"") for i in range(3000)]
    if draw.hostile("name twice"):
        entries.append(rng.choice(entries))
    middle = rng.choice([0, 0, 3])
    groups = [group for group in (entries[:middle], entries[middle:]) if group]
    shards = {}
    manifest = [written(draw, shards, number, group) for number, group in enumerate(groups)]
    text = text_of(draw, layers, manifest)
    if draw.hostile("shard is missing") and shards:
        del shards[rng.choice(list(shards))]
    for production, change in {
        "shard is shorter": lambda data: data[:-1],
        "shard is longer": lambda data: data + bytes(rng.choice([1, 4, 1000])),
        "numbers are strange": lambda data: with_strange_number(data, rng),
    }.items():
        if shards and draw.hostile(production):
            name = rng.choice(list(shards))
            shards[name] = change(shards[name])
    return draw.file("model.json", text, shards)


def weight(draw, name, array, kind):
    """What the manifest says of a weight, and its bytes."""
    rng = draw.rng
    entry = {"name": name, "shape": list(array.shape), "dtype": "float32"}
    if kind in QUANTIZED:
        scale = 2 / QUANTIZED[kind]
        entry["quantization"] = {"dtype": kind, "scale": scale, "min": -1.0, "original_dtype": "float32"}
        array = np.clip((array + 1) / scale, 0, QUANTIZED[kind])
    elif kind == "float16":
        entry["quantization"] = {"dtype": kind, "original_dtype": "float32"}
    data = array.astype(np.dtype(kind)).tobytes()
    if draw.hostile("shape lies", 0.5):
        shapes = [
            entry["shape"][::-1],
            [edge(rng)],
            [],
            [0, 1 << 62],
            [1] * 100,
            [1.0],
            "x",
            [[1]],
            [-1, -1],
            None,
        ]
        entry["shape"] = rng.choice(shapes)
    if draw.hostile("type is unknown", 0.5):
        entry["dtype"] = rng.choice(
            ["float64", "string", "complex64", "", None, 3, "O", "int32", "bool", "x" * 5000]
        )
    if draw.hostile("quantization is strange", 0.5):
        numbers = [float("nan"), 1e308, -1e400, "1", None, True, 10**400]
        strange = {
            "dtype": rng.choice(["uint8", "uint16", "int64"]),
            "scale": rng.choice(numbers),
            "min": rng.choice(numbers),
        }
        entry["quantization"] = rng.choice([strange, weird(rng)])
    if draw.hostile("name is strange", 0.5):
        entry["name"] = rng.choice([*NAMES, weird(rng)])
    if draw.hostile("entry is strange", 0.3):
        entry = weird(rng)
    return entry, data


def written(draw, shards, number, group):
    """What the manifest says of a group, whose bytes are added to the shards."""
    rng = draw.rng
    data = b"".join(content for _, content in group)
    count = rng.choice([1, 1, 2, 3])
    if draw.hostile("many shards", 0.5):
        count = 40
    ends = sorted(rng.randrange(len(data) + 1) for _ in range(count - 1))
    parts = [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]
    paths = [f"group{number}-shard{i}of{count}.bin" for i in range(count)]
    shards.update(zip(paths, parts, strict=True))
    if paths and draw.hostile("shard is elsewhere", 0.5):
        names = [
            "../x",
            "/etc/passwd",
            "/dev/zero",
            ".",
            "..",
            "",
            "a/b",
            "C:x",
            "x\0",
            "a\\b",
            "x" * 300,
            "\ud800",
        ]
        paths[rng.randrange(len(paths))] = rng.choice(names)
    if draw.hostile("shard is the model", 0.5):
        paths[rng.randrange(len(paths))] = "model.json"
    if draw.hostile("shard is named twice", 0.5):
        paths.append(paths[0])
    if draw.hostile("no shards", 0.5):
        paths = []
    if draw.hostile("paths are strange", 0.5):
        paths = rng.choice([weird(rng), [weird(rng)], "".join(paths), dict.fromkeys(paths, 1)])
    return {"paths": paths, "weights": [entry for entry, _ in group]}


def text_of(draw, layers, manifest):
    """The text of a model.json."""
    rng = draw.rng
    config = {"class_name": "Sequential", "config": {"name": "model", "layers": layers}}
    topology = {"keras_version": "2.15.0", "backend": "tensorflow", "model_config": config}
    if draw.chance(0.3):
        topology = config | {"keras_version": rng.choice(["tfjs-layers 4.22.0", "2.4.0"])}
    if draw.hostile("version is strange"):
        topology["keras_version"] = rng.choice(["", "1.2.2", "3.0.0", "9" * 5000, None, 3, [], "\u0663"])
    made = {"format": "layers-model", "modelTopology": topology, "weightsManifest": manifest}
    if draw.hostile("format is another"):
        made["format"] = rng.choice(["graph-model", "", None, weird(rng)])
    if draw.hostile("no topology"):
        made["modelTopology"] = rng.choice([weird(rng), {"node": []}, {"model_config": weird(rng)}])
    if draw.hostile("no manifest"):
        made["weightsManifest"] = rng.choice([weird(rng), [weird(rng)], [{}], [manifest]])
    if draw.hostile("wide characters"):
        made["x"] = "\N{PILE OF POO}" + "x" * rng.choice([10, 1000, 100_000])
    if draw.hostile("many objects"):
        made["x"] = [rng.choice([{}, [], "", 1.5])] * rng.choice([1000, 30_000])
    if draw.hostile("text is changed"):
        made = changed(made, rng)
    text = json.dumps(made, ensure_ascii=draw.chance(0.5)).encode("utf-8", "surrogatepass")
    if draw.hostile("text is misspelled"):
        text = misspelled(text, rng)
    if draw.hostile("scrambled"):
        text = scrambled(text, rng)
    if draw.hostile("cut off"):
        text = text[: rng.randrange(len(text) + 1)]
    return text
