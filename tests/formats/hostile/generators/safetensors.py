"""Files of safetensors: a header of JSON, and tensors.

What is sound, and must load where nothing hostile is beside it: state dicts of GRUs of F16, BF16, F32 and
F64, with tensors of other types beside them, metadata, headers that are padded, in any order or in UTF-8.

The hostile productions are in PRODUCTIONS.
"""

import json
import struct

from formats.hostile.generators.drawing import NAMES, Draw, edge, scrambled, with_strange_number
from formats.hostile.generators.json_trees import changed, misspelled, weird
from formats.hostile.generators.tensors import elements, gru_state

PRODUCTIONS = (
    *("offsets lie", "gap", "overlap", "same place twice", "backwards", "data is longer", "data is shorter"),
    *("shape lies", "many axes", "empty axis", "type is unknown", "type is another", "no integers"),
    *("entry is no object", "entry has more", "entry is missing", "names are strange", "name twice"),
    *("length lies", "many tensors", "header is changed", "header is misspelled", "header is no object"),
    *("metadata is strange", "numbers are strange", "wide characters", "scrambled", "cut off"),
)
TYPES = {"f2": "F16", "f4": "F32", "f8": "F64", "bf16": "BF16"}
OTHERS = {"I64": 8, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "I16": 2, "C64": 8}


def file(rng):
    """A file of a GRU."""
    draw = Draw(rng, PRODUCTIONS)
    kind = rng.choice(["f4", "f4", "f8", "f2", "bf16"])
    prefix = rng.choice(["", "voice.", "a.b.", "\xe9."])
    if draw.hostile("names are strange"):
        prefix = rng.choice(NAMES)
    tensors = [
        (prefix + name, TYPES[kind], [*array.shape], elements(array, kind))
        for name, array in gru_state(draw).items()
    ]
    for _ in range(rng.choice([0, 0, 1, 2])):
        other, size = rng.choice(list(OTHERS.items()))
        shape = rng.choice([[], [3], [2, 2], [0]])
        count = 1
        for length in shape:
            count *= length
        tensors.append((f"other{len(tensors)}", other, shape, rng.randbytes(count * size)))
    if draw.chance(0.2):
        rng.shuffle(tensors)
    header, data = laid_out(draw, tensors)
    text = written(draw, header)
    length = len(text)
    if draw.hostile("length lies"):
        length = rng.choice(
            [0, 1, length + 1, length - 1, length + len(data), length + len(data) + 1, abs(edge(rng))]
        )
    content = struct.pack("<Q", length & ((1 << 64) - 1)) + text + data
    if draw.hostile("scrambled"):
        content = scrambled(content, rng)
    if draw.hostile("cut off"):
        content = content[: rng.randrange(len(content) + 1)]
    return draw.file("model.safetensors", content)


def laid_out(draw, tensors):
    """A header that says where tensors are, and their data."""
    rng = draw.rng
    header, data = {}, b""
    for name, kind, shape, content in tensors:
        if draw.hostile("numbers are strange", 0.5) and kind == "F32":
            content = with_strange_number(content, rng)
        if draw.hostile("gap", 0.5):
            data += bytes(rng.choice([1, 4, 1000]))
        begin, end = len(data), len(data) + len(content)
        data += content
        if draw.hostile("offsets lie", 0.5):
            begin, end = rng.choice([(begin, abs(edge(rng))), (abs(edge(rng)), end), (edge(rng), edge(rng))])
        if draw.hostile("overlap", 0.5) and begin:
            begin, end = begin - 1, end - 1
        if draw.hostile("same place twice", 0.5):
            header[f"{name}.again"] = {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}
        if draw.hostile("backwards", 0.5):
            begin, end = end, begin
        if draw.hostile("shape lies", 0.5):
            shape = rng.choice(
                [[*shape, 2], shape[:1], [edge(rng), *shape[1:]], [-1, -1], [1 << 32, 1 << 32], shape[::-1]]
            )
        if draw.hostile("many axes", 0.5):
            shape = [*shape, *[1] * rng.choice([1, 30, 31, 32, 1000, 50_000])]
        if draw.hostile("empty axis", 0.5):
            shape, end = [0, rng.choice([0, 1, 1 << 62])], begin
        if draw.hostile("type is unknown", 0.5):
            kind = rng.choice(["", "f32", "F33", "F4", "float32", "F32\0", "X" * 5000, "<f4", "O"])
        if draw.hostile("type is another", 0.5):
            kind = rng.choice(["F16", "F64", "I32", "BF16", "F8_E5M2", "U16", "C64", "BOOL"])
        entry = {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}
        if draw.hostile("no integers", 0.5):
            key = rng.choice(["shape", "data_offsets"])
            strange = [1.0, True, "1", None, [1], {}, 1e400, -0.0]
            entry[key] = [rng.choice(strange) if draw.chance(0.7) else number for number in entry[key]]
        if draw.hostile("entry has more", 0.5):
            key = rng.choice(["dtype", "shape", "data_offsets", "x", ""])
            entry[key] = rng.choice([[1, 2, 3], [], "x", weird(rng)])
        if draw.hostile("entry is missing", 0.5):
            del entry[rng.choice(["dtype", "shape", "data_offsets"])]
        header[name] = weird(rng) if draw.hostile("entry is no object", 0.3) else entry
    if draw.hostile("data is longer"):
        data += rng.choice([b"\0", bytes(1000)])
    if draw.hostile("data is shorter"):
        data = data[:-1]
    if draw.hostile("many tensors"):
        empty = {"dtype": "U8", "shape": [0], "data_offsets": [len(data)] * 2}
        header |= {str(i): empty for i in range(rng.choice([100, 3000]))}
    return header, data


def written(draw, header):
    """The header's text."""
    rng = draw.rng
    if draw.chance(0.5):
        header = {"__metadata__": {"format": "pt"}, **header}
    if draw.hostile("metadata is strange"):
        header["__metadata__"] = rng.choice([weird(rng), {"a": weird(rng)}, {"x": "y" * 100_000}, "x" * 1000])
    if draw.hostile("wide characters"):
        text = "\N{PILE OF POO}" + "x" * rng.choice([10, 1000, 100_000])
        header["__metadata__"] = {text: text[: rng.choice([1, len(text)])]}
    if draw.hostile("header is changed"):
        header = changed(header, rng)
    if draw.hostile("header is no object"):
        header = rng.choice([[header], [], {}, {"__metadata__": {}}, "x", 3, None, [[1, 2]]])
    separators = rng.choice([(",", ":"), (", ", ": ")])
    text = json.dumps(header, ensure_ascii=draw.chance(0.5), separators=separators).encode(
        "utf-8", "surrogatepass"
    )
    if draw.hostile("name twice"):
        text = text[:1] + b'"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},' * 2 + text[1:]
    if draw.hostile("header is misspelled"):
        text = misspelled(text, rng)
    if draw.chance(0.5):
        text += b" " * (-len(text) % 8)
    return text
