"""Archives of NumPy, whose members are .npy files of a state dict.

What is sound, and must load where nothing hostile is beside it: versions 1 to 3 of the format, floats of
every size in both byte orders, in the order of C and of Fortran, headers padded or not, members beside them
that are no weights.

The hostile productions are in PRODUCTIONS.
"""

import struct

import numpy as np
from formats.hostile.generators import archives
from formats.hostile.generators.drawing import NAMES, Draw, edge, scrambled, with_strange_number
from formats.hostile.generators.tensors import gru_state

PRODUCTIONS = (
    *("magic is another", "version is another", "length lies", "length is cut", "long header"),
    *("type is another", "type is code", "order is strange", "shape lies", "shape is strange", "many axes"),
    *("keys in another order", "more keys", "key is missing", "no literal", "deep literal", "no ASCII"),
    *("data is longer", "data is shorter", "numbers are strange", "scrambled", "pickled", "empty member"),
    *("names are strange", "shapes do not fit", "many members", "member is missing", "large zeros"),
)


def file(rng):
    """An archive of the tensors of a GRU."""
    draw = Draw(rng, PRODUCTIONS)
    prefix = rng.choice(["", "voice.", "a.b."])
    if draw.hostile("names are strange"):
        prefix = rng.choice(NAMES)
    kind = rng.choice(["f4", "f4", "f8", "f2"])
    members = []
    for name, array in gru_state(draw).items():
        if draw.hostile("shapes do not fit", 0.3):
            array = rng.choice([array.T, array.ravel(), array[:1], array[..., None]])
        if draw.hostile("large zeros", 0.3):
            array = np.zeros((3 * rng.choice([1, 100]), rng.choice([1, 1000])), np.float32)
        members.append((f"{prefix}{name}.npy", member(draw, array.astype(kind))))
    if draw.hostile("member is missing"):
        del members[rng.randrange(len(members))]
    if draw.hostile("many members"):
        form, small = (
            rng.choice(["x%d", "x%d.npy", "m%d.weight_hh_l0.npy"]),
            archives.npy(np.ones((3, 1), "f4")),
        )
        members += [(form % i, small) for i in range(300)]
    if draw.chance(0.2):
        members.append((rng.choice(["other.npy", "x", "embedding.weight.npy"]), rng.randbytes(9)))
    if draw.chance(0.2):
        rng.shuffle(members)
    pack = rng.choice([archives.sound, archives.of_zipfile])
    return draw.file("state.npz", pack(members, rng.choice([0, 0, 8])))


def member(draw, array):
    """An .npy file."""
    rng = draw.rng
    order = "F" if draw.chance(0.2) else "C"
    sign = rng.choice("<<<>")
    descr = f"'{sign}{array.dtype.str[1:]}'"
    data = array.astype(array.dtype.newbyteorder(sign)).tobytes(order)
    shape = list(array.shape)
    if draw.hostile("numbers are strange", 0.5):
        data = with_strange_number(data, rng, f"{sign}f")
    if draw.hostile("data is longer", 0.5):
        data += bytes(rng.choice([1, 4, 1000]))
    if draw.hostile("data is shorter", 0.5):
        data = data[: -rng.choice([1, 4, 8])]
    if draw.hostile("type is another", 0.5):
        types = [
            "'|O'",
            "'<i4'",
            "'|V4'",
            "'<U9'",
            "'<c8'",
            "'|b1'",
            "'<M8[s]'",
            "'|S4'",
            "'<f3'",
            "'f4'",
            "'=f4'",
        ]
        descr = rng.choice(
            [*types, "'<f4,<f4'", "[('a', '<f4')]", "('<f4', (2,))", "None", "'<U99999999'", "'<f16'"]
        )
    if draw.hostile("type is code", 0.5):
        descr = rng.choice(
            ["__import__('os').system('true')", "lambda: 0", "open('x')", "exec('x')", "'<f4' and 'x'"]
        )
    if draw.hostile("shape lies", 0.5):
        shape[rng.randrange(len(shape))] = edge(rng)
    if draw.hostile("many axes", 0.5):
        shape += [rng.choice([0, 1])] * rng.choice([1, 30, 31, 32, 33, 65, 300])
    text = "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"
    if draw.hostile("shape is strange", 0.5):
        strange = [
            "()",
            "[3, 2]",
            "3",
            "(3, 2",
            "(True, 2)",
            "(3.0, 2)",
            "('3', 2)",
            "(3, (2,))",
            "(3,, 2)",
            "(-3, -2)",
        ]
        text = rng.choice(
            [*strange, "(" * 300, "(0x3, 2)", "(3L, 2L)", "(" + "9" * 5000 + ",)", "(1_0, 2)", "(\u0663,)"]
        )
    fortran = str(order == "F")
    if draw.hostile("order is strange", 0.5):
        fortran = rng.choice(["1", "0", "None", "true", "'C'", "not True", "True or x"])
    pairs = [("'descr'", descr), ("'fortran_order'", fortran), ("'shape'", text)]
    if draw.hostile("keys in another order", 0.5):
        rng.shuffle(pairs)
    if draw.hostile("more keys", 0.5):
        pairs.insert(
            rng.randrange(4), rng.choice([("'x'", "1"), ("'shape'", "(1,)"), ("'descr'", "'|O'"), ("1", "2")])
        )
    if draw.hostile("key is missing", 0.5):
        del pairs[rng.randrange(len(pairs))]
    header = "{" + ", ".join(f"{key}: {value}" for key, value in pairs) + rng.choice([", }", "}"])
    if draw.hostile("no literal", 0.5):
        header = rng.choice(
            ["", "{", "x", "[]", "{}", header * 2, header[:-1], "dict(" + header[1:-1] + ")", "\0"]
        )
    if draw.hostile("deep literal", 0.5):
        deep = rng.choice([100, 450, 30_000])
        header = rng.choice(["(" * deep + ")" * deep, "-" * deep + "1", "[" * deep, "{1:" * deep])
    header = header.encode("utf-8")
    if draw.hostile("no ASCII", 0.5):
        header = rng.choice([b"\xff", "\u0130".encode(), b"\0"]) + header
    return assembled(draw, header, data)


def assembled(draw, header, data):
    """Magic, version, length, header and data."""
    rng = draw.rng
    version = rng.choice([1, 1, 1, 2, 3])
    if draw.hostile("version is another", 0.5):
        version = rng.choice([0, 4, 93, 255])
    if draw.hostile("long header", 0.5):
        header += rng.choice([b" ", b"\n", b"x", b"\0"]) * rng.choice([900, 1000, 60_000])
    if draw.chance(0.7):
        header += b" " * (-(len(header) + (11 if version == 1 else 13)) % 64) + b"\n"
    length = len(header)
    if draw.hostile("length lies", 0.5):
        length = rng.choice([0, 1, length + 1, length - 1, abs(edge(rng))])
    magic = b"\x93NUMPY"
    if draw.hostile("magic is another", 0.3):
        magic = rng.choice([b"\x94NUMPY", b"\x93NUMPX", b"NUMPY\x93", b"\x80\4\x95abc", b"PK\3\4\0\0"])
    size = struct.pack("<H", length & 0xFFFF) if version == 1 else struct.pack("<L", length & 0xFFFFFFFF)
    content = magic + bytes([version, rng.choice([0, 0, 0, 9])]) + size + header + data
    if draw.hostile("length is cut", 0.3):
        content = content[: rng.randrange(13)]
    if draw.hostile("empty member", 0.2):
        content = b""
    if draw.hostile("pickled", 0.3):
        content = (
            magic
            + b"\1\0v\0{'descr': '|O', 'fortran_order': False, 'shape': (), }".ljust(128)
            + b"\x80\2cos\nsystem\n."
        )
    if draw.hostile("scrambled", 0.3):
        content = scrambled(content, rng)
    return content
