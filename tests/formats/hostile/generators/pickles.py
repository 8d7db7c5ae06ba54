"""Files of PyTorch: zip archives of torch.save, legacy files, TorchScript; pickles opcode by opcode.

What is sound, and must load where nothing hostile is beside it:

- state dicts of one to three levels, one or both directions, with or without biases, under several prefixes,
  as plain and ordered dicts, alone, in checkpoints, in lists, twice; modules pickled whole; TorchScript
- tensors of every float type, contiguous, transposed, as views of a shared storage, with storages without a
  type, as parameters, of subclasses, quantized for all and along an axis
- every opcode that the reader has, in the forms of protocols 0 to 5, with and without frames and memo
- programs of random opcodes that are correct in their types, as one more value: containers in themselves,
  marks, memo, objects, sets, calls of globals that have no meaning to the reader

The hostile productions are in PRODUCTIONS; each place of the grammar has its own.
"""

import struct

from formats.hostile.generators import archives
from formats.hostile.generators.drawing import NAMES, Draw, edge, scrambled, weights
from formats.hostile.generators.opcodes import Program, Values
from formats.hostile.generators.tensors import GLOBALS, WIDTHS, Tensors, gru_state

PRODUCTIONS = (
    # tensors
    *("stride lies", "offset lies", "shape lies", "stride of zero", "many axes", "no counts", "no storage"),
    *("numbers are strange", "quantization lies", "tensor is another object", "shapes do not fit"),
    # storages
    *("storage of other type", "storage of other size", "storage is missing", "key is strange"),
    *("key has two claims", "class is none", "persistent id of other form", "view lies"),
    *("list omits a storage", "list repeats a storage", "list has more", "count differs", "storages are cut"),
    # values
    *("doubling graph", "deep nesting", "cycle", "memo has a gap", "get before put", "huge integer"),
    *("long text", "key twice", "keys of other types", "colliding integers", "copies of a dict"),
    *("call of a global", "encoded often", "state is strange", "many objects", "dict of no pairs"),
    *("program is broken", "names are strange", "modules are strange", "modules in a cycle"),
    # the bytes of a pickle
    *("opcode is unknown", "mark without end", "stack is empty", "stops early", "later protocol"),
    *("frame lies", "pickle is cut", "pickle is scrambled", "text is no UTF-8", "constants are strange"),
    "member is strange",
)

IN_LEGACY = (
    *("list omits a storage", "list repeats a storage", "list has more", "count differs", "storages are cut"),
)
IN_ARCHIVES = "storage is missing", "member is strange"
OF_LEGACY = [p for p in PRODUCTIONS if p not in (*IN_ARCHIVES, "constants are strange")]
OF_TORCHSCRIPT = [p for p in PRODUCTIONS if p not in IN_LEGACY]
OF_ARCHIVES = [p for p in OF_TORCHSCRIPT if p != "constants are strange"]

MAGIC = 0x1950A86A20F9469CFC6C

# ---- values that harm -------------------------------------------------------------------------


def doubling(values):
    """A value that is in another twice, which is in another twice."""
    code = values.rng.choice(
        [b"]", b"}", values.text("leaf"), values.object("a.B", b"}"), values.tuple(b"N")]
    )
    for _ in range(values.rng.choice([5, 20, 60, 300])):
        code, again = values.remembered(code)
        key = values.text("a"), values.text("b")
        forms = [
            values.list(code, again),
            values.tuple(code, again),
            values.dict([(key[0], code), (key[1], again)]),
        ]
        code = values.rng.choice(forms)
    return code


def deep(values):
    depth = values.rng.choice([50, 99, 101, 150, 3_000, 60_000])
    one = [
        (b"]", b"a"),
        (b"", b"\x85"),
        (b"}X\1\0\0\0k", b"s"),
        (b"(", b"t"),
        (b"ca\nB\n)\x81", b"b"),
        (b"(", b""),
    ]
    before, after = values.rng.choice(one)
    return before * depth + b"N" + after * depth


def cycle(values):
    """Containers that are in themselves."""
    code, again = values.remembered(values.rng.choice([b"]", b"}", b"ca\nB\n)\x81", b"\x8f"]))
    key = values.text("itself")
    match code[:1]:
        case b"]":
            return code + again * values.rng.choice([1, 2, 9]) + b"a"
        case b"}":
            return code + key + again + b"s"
        case b"\x8f":
            return code + b"(" + again + b"\x90"
    return code + values.rng.choice([again + b"b", key + again + b"s", values.dict([(key, again)]) + b"b"])


def memo_gap(values):
    index = values.rng.choice([1000, 100_000, 1 << 24, (1 << 31) - 1, (1 << 32) - 1])
    return b"Nr" + struct.pack("<I", index)


def get_before_put(values):
    return values.rng.choice([b"h\xff", b"j" + struct.pack("<I", values.rng.choice([1000, (1 << 32) - 1]))])


def huge_integer(values):
    rng = values.rng
    size = rng.choice([8, 9, 255])
    integer = b"\x8a" + bytes([size]) + rng.randbytes(size)
    text = b"L" + b"9" * rng.choice([39, 40, 4_000, 5_000, 100_000]) + rng.choice([b"L\n", b"\n", b""])
    key = values.dict([(integer, b"N")])
    long4 = b"\x8b" + struct.pack("<i", rng.choice([1, -1, 1000, (1 << 31) - 1])) + b"\1" * 1000
    return rng.choice(
        [integer, text, key, long4, values.tuple(integer), values.call("torch.device", integer)]
    )


def long_text(values):
    rng = values.rng
    text = rng.choice(["x", "\xe9", "\N{PILE OF POO}"]) * rng.choice([1024, 4096, 4097, 200_000])
    place = rng.randrange(4)
    if place == 0:
        return [(values.text(text), b"N")]
    if place == 1:
        return values.text(text)
    if place == 2:
        return values.call(text, b"N")
    size = rng.choice([1 << 20, (1 << 31) - 1, (1 << 32) - 1])
    return rng.choice([b"X", b"T", b"B"]) + struct.pack("<I", size) + b"x"


def key_twice(values):
    key = values.text(values.rng.choice(["weight_ih_l0", "x", ""]))
    return [(key, b"N"), (key, b"N")]


def other_keys(values):
    rng = values.rng
    keys = [
        b"N",
        values.number(0.5),
        values.tuple(b"N"),
        values.data(b"weight_ih_l0"),
        values.boolean(True),
        b"]",
    ]
    keys += [values.integer(edge(rng)) for _ in range(3)] + [
        values.object("a.B", b"N"),
        values.named("os.system"),
    ]
    return [(rng.choice(keys), values.integer(i)) for i in range(rng.choice([1, 2, 5]))]


def colliding(values):
    count = values.rng.choice([10, 1000, 5000])
    numbers = [i * ((1 << 61) - 1) for i in range(1, count)]
    keys = [b"\x8a\x0a" + number.to_bytes(10, "little") for number in numbers]
    return values.rng.choice(
        [values.dict([(key, b"N") for key in keys]), b"\x8f(" + b"".join(keys) + b"\x90"]
    )


def copies_of_a_dict(values):
    rng = values.rng
    pairs = [(values.text(f"k{i}"), b"N") for i in range(rng.choice([3, 100, 2000]))]
    code, again = values.remembered(values.dict(pairs))
    one = values.named("collections.OrderedDict")
    one, of = values.remembered(one)
    copies = [of + again + b"\x85R" for _ in range(rng.choice([2, 50, 500]))]
    return values.list(one, code, *copies)


def encoded_often(values):
    codec = values.rng.choice(["hex", "punycode", "latin1", "zip", "bz2", "base64", "idna"])
    code = values.text("A" * values.rng.choice([10, 1000]))
    for _ in range(values.rng.choice([1, 20, 100])):
        code = values.call("_codecs.encode", code, values.text(codec))
    return code


def call_of_a_global(values):
    """A call of anything, with arguments that would do something if it were made."""
    rng = values.rng
    arguments = [
        [values.text("touch called; exit 3")],
        [values.text("import os; os.abort()")],
        [values.text("/etc/passwd")],
        [values.integer(rng.choice([1, 1 << 30, 1 << 40]))],
        [values.named("os.system"), values.tuple(values.text("true"))],
        [values.list(values.text("true"))],
        [],
    ]
    code = values.call(rng.choice(GLOBALS), *rng.choice(arguments))
    if values.draw.chance(0.3):  # what it returns is called
        code += values.tuple(values.text("true")) + b"R"
    if values.draw.chance(0.2):
        code += rng.choice([b"N", b"}", values.tuple(b"N", b"}"), values.text("x")]) + b"b"
    return code


def strange_state(values):
    """States that are set in what has none, or are none."""
    rng = values.rng
    owner = rng.choice(
        [b"N", b"]", b"}", b")", values.text("x"), values.named("os.system"), b"ca\nB\n)\x81", b"\x8f"]
    )
    states = [
        b"N",
        b"]",
        values.tuple(b"}", b"}"),
        values.dict([(values.text("__class__"), b"N")]),
        values.integer(3),
    ]
    states += [values.dict([(values.text("__reduce__"), values.named("os.system"))]), values.text("x" * 1000)]
    return owner + b"".join(rng.choice(states) + b"b" for _ in range(rng.choice([1, 1, 3])))


def many_objects(values):
    count = values.rng.choice([1_000, 30_000])
    one = [
        b"]",
        b"}",
        b")",
        b"N",
        b"K\1",
        b"G" + bytes(8),
        b"(t",
        b"\x8f",
        b"(\x91",
        b"ca\nB\n",
        b"ca\nB\n)R",
        b"U\1x",
    ]
    one += [b"J\xff\xff\xff\x7f", b"X\2\0\0\0xy", b"]\x94", b"cos\nsystem\nX\4\0\0\0true\x85R", b"B\0\0\0\0"]
    return (
        values.rng.choice([b"](", b"("])
        + values.rng.choice(one) * count
        + b"t"
        + b"0" * values.rng.choice([0, 0, 1])
    )


def no_pairs(values):
    strange = [
        b"N",
        values.text("ab"),
        values.tuple(b"N"),
        values.tuple(b"N", b"N", b"N"),
        values.list(b"N", b"N"),
    ]
    given = [
        values.list(*(values.rng.choice(strange) for _ in range(3))),
        values.integer(3),
        b"N",
        values.text("ab"),
    ]
    name = values.rng.choice(["collections.OrderedDict", "collections.defaultdict", "collections.Counter"])
    return values.call(name, *(values.rng.choice(given) for _ in range(values.rng.choice([1, 2]))))


def broken_program(values):
    return Program(values, True).run(values.rng.choice([5, 20, 100]))


HOSTILE = {
    "doubling graph": doubling,
    "deep nesting": deep,
    "cycle": cycle,
    "memo has a gap": memo_gap,
    "get before put": get_before_put,
    "huge integer": huge_integer,
    "long text": long_text,
    "key twice": key_twice,
    "keys of other types": other_keys,
    "colliding integers": colliding,
    "copies of a dict": copies_of_a_dict,
    "call of a global": call_of_a_global,
    "encoded often": encoded_often,
    "state is strange": strange_state,
    "many objects": many_objects,
    "dict of no pairs": no_pairs,
    "program is broken": broken_program,
}

# ---- state dicts -----------------------------------------------------------------------------


def state_pairs(values):
    """Pairs of code of a state dict."""
    draw, rng = values.draw, values.rng
    kind = rng.choice(["f4"] * 6 + ["f8", "f2", "bf16"])
    prefix = rng.choice(["", "", "voice.", "module.encoder.rnn.", "a.b.", "\xe9."])
    if draw.hostile("names are strange"):
        prefix = rng.choice(NAMES) + rng.choice([".", ""])
    pairs = []
    for name, array in gru_state(draw).items():
        pairs.append((values.text(prefix + name), values.tensor(array, kind)))
    if draw.chance(0.3):
        pairs.insert(0, (values.text("embedding.weight"), values.tensor(weights(rng, 2, 2), "f4")))
    pairs += extras(values)
    if draw.chance(0.1):
        rng.shuffle(pairs)
    return pairs


def extras(values):
    """What else is in a dict: harmless values, and hostile ones."""
    draw, rng = values.draw, values.rng
    pairs = []
    if draw.chance(0.3):
        pairs.append((values.text("extra"), Program(values, False).run(rng.choice([3, 10, 30, 300]))))
    if draw.chance(0.2):
        state = values.dict([(values.text("lr"), values.number(0.1))])
        pairs.append((values.text("args"), values.object("argparse.Namespace", state)))
    for production, make in HOSTILE.items():
        if draw.hostile(production, 0.7):
            made = make(values)
            pairs += made if isinstance(made, list) else [(values.text(production), made)]
    return pairs


# ---- whole pickles ---------------------------------------------------------------------------


def saved(values):
    """What torch.save is given: a state dict, or something that has one."""
    draw, rng = values.draw, values.rng

    def state():
        pairs = state_pairs(values)
        return rng.choice([values.ordered, values.ordered, values.dict])(pairs)

    match rng.randrange(10):
        case 0 | 1 | 2 | 3:
            return state()
        case 4 | 5:
            pairs = [("epoch", values.integer(3)), ("model", state()), ("best", values.number(0.1))]
            if draw.chance(0.3):
                pairs.append(("ema", state()))
            return values.dict([(values.text(key), value) for key, value in pairs])
        case 6:
            return rng.choice([values.list, values.tuple])(values.none(), state())
        case 7:
            return values.object("__main__.Trainer", b"N") + values.items([(values.text("model"), state())])
        case _:
            return module(values, 0)


def module(values, depth):
    """A torch.nn.Module that was pickled whole."""
    draw, rng = values.draw, values.rng
    inner = depth < 3 and draw.chance(0.4)
    own = [] if inner else state_pairs(values)
    names = ("rnn", "head")[: rng.randrange(1, 3)] if inner else ()
    modules = [(values.text(name), module(values, depth + 1)) for name in names]
    if draw.hostile("names are strange", 0.3):
        modules.append((values.text(rng.choice(NAMES)), module(values, depth + 2)))
    parts = {
        "training": values.boolean(False),
        "_parameters": rng.choice([values.ordered, values.dict])(own),
        "_buffers": values.dict([]),
        "_modules": values.ordered(modules),
        "batch_first": values.boolean(draw.chance(0.5)),
    }
    if draw.hostile("modules are strange"):
        strange = [
            values.none(),
            values.list(values.none()),
            values.integer(3),
            values.object("a.B", b"N"),
            b"}",
        ]
        parts[rng.choice(list(parts))] = rng.choice(strange)
        if draw.chance(0.3):
            del parts[rng.choice(list(parts))]
    code = values.named(rng.choice(["torch.nn.modules.rnn.GRU", "__main__.Model"])) + b")\x81"
    if draw.hostile("modules in a cycle"):
        code, again = values.remembered(code)
        parts["_modules"] = values.dict([(values.text(f"m{i}"), again) for i in range(rng.choice([1, 2, 5]))])
    return code + values.dict([(values.text(key), part) for key, part in parts.items()]) + b"b"


def pickled(values, code):
    """The bytes of a pickle, from its protocol to its end."""
    draw, rng = values.draw, values.rng
    header = values.header()
    if values.protocol > 3 and draw.chance(0.8):
        header += b"\x95" + struct.pack("<Q", len(code) + 1)
    if draw.hostile("frame lies"):
        header += b"\x95" + struct.pack("<Q", edge(rng) & ((1 << 64) - 1))
    if draw.hostile("later protocol"):
        header = b"\x80" + bytes([rng.choice([6, 7, 128, 255])])
    if draw.hostile("mark without end"):
        code = rng.choice([b"(" + code, code + b"(", b"(" * rng.choice([10, 100_000]) + code])
    if draw.hostile("stack is empty"):
        code = rng.choice(
            [b"0", b"a", b"s", b"R", b"t", b"b", b"Q", b"\x86", b"\x94", b"q\0", b"", b"1", b"e"]
        )
    if draw.hostile("opcode is unknown"):
        place = rng.choice([0, len(code)])
        strange = [bytes([rng.randrange(256)]), *(bytes([c]) for c in b"diolPSVFpg2\x82\x83\x84\x8b\x97\x98")]
        code = code[:place] + rng.choice(strange) + code[place:]
    if draw.hostile("stops early"):
        code = rng.choice([b".", code + b".", b"N."]) + code
    if draw.hostile("text is no UTF-8"):
        code = b"}" + b"X\2\0\0\0\xff\xfeNs" + code if draw.chance(0.5) else b"c\xff\nx\n0" + code
    data = header + code + b"."
    if draw.hostile("pickle is cut"):
        data = data[: rng.randrange(len(data) + 1)]
    if draw.hostile("pickle is scrambled"):
        data = scrambled(data, rng)
    return data


def stored(draw, values):
    """The storages of a file, of which some are not as the pickle says."""
    rng = draw.rng
    held = {key: data for key, (_, _, data) in values.storages.items()}
    if draw.hostile("storage is missing") and held:
        del held[rng.choice(list(held))]
    return held


def zipped(rng):
    """A zip archive of torch.save."""
    draw = Draw(rng, OF_ARCHIVES)
    values = Tensors(draw, rng.choice([2, 2, 2, 0, 1, 3, 4, 5]), legacy=False)
    data = pickled(values, saved(values))
    root = rng.choice(["archive", "model", "a b", "\xe9"])
    members = [(f"{root}/data.pkl", data), (f"{root}/byteorder", b"little"), (f"{root}/version", b"3\n")]
    members += [(f"{root}/data/{key}", content) for key, content in stored(draw, values).items()]
    return draw.file("model.pt", archive_of(draw, root, members))


def archive_of(draw, root, members):
    """An archive with these members, and perhaps with others."""
    rng = draw.rng
    if draw.chance(0.3):
        members.append((f"{root}/.data/serialization_id", b"1" * 40))
    if draw.hostile("member is strange"):
        strange = [
            ("byteorder", b"big"),
            ("byteorder", b""),
            ("byteorder", b"x" * 1000),
            ("constants.pkl", b"x"),
        ]
        strange += [("data.pkl/x", b""), ("model.json", b"{}"), ("../x", b""), ("constants.pkl", b"")]
        name, content = rng.choice(strange)
        members = [member for member in members if member[0] != f"{root}/{name}"] + [
            (f"{root}/{name}", content)
        ]
        if draw.chance(0.3):
            members.append((rng.choice(["other/data.pkl", "config.json", "fastgru.npy", "x"]), b""))
    return archives.sound(members, packing=rng.choice([0, 0, 0, 8]))


def legacy(rng):
    """A file as torch.save wrote it before PyTorch 1.6: pickles, then storages."""
    draw = Draw(rng, OF_LEGACY)
    values = Tensors(draw, rng.choice([2, 2, 2, 1, 3, 4, 5]), legacy=True)
    main = pickled(values, saved(values))
    plain = Values(draw, values.protocol)
    system = plain.dict(
        [(plain.text("little_endian"), plain.boolean(True)), (plain.text("type_sizes"), plain.dict([]))]
    )
    magic = b"\x8a\x0a" + MAGIC.to_bytes(10, "little")
    heads = [magic, plain.integer(1001), system]
    if values.protocol == 1:
        heads[0] = b"L%dL\n" % MAGIC
    keys = list(values.storages)
    rng.shuffle(keys)
    listed = list(keys)
    if draw.hostile("list omits a storage") and listed:
        listed.remove(rng.choice(listed))
    if draw.hostile("list repeats a storage") and listed:
        listed.insert(rng.randrange(len(listed)), rng.choice(listed))
    if draw.hostile("list has more"):
        listed.insert(rng.randrange(len(listed) + 1), rng.choice(NAMES))
    codes = [plain.text(key) for key in listed]
    listing = plain.list(*codes)
    if draw.hostile("list has more", 0.3):
        listing = rng.choice(
            [plain.tuple(*codes), plain.dict([(code, b"N") for code in codes]), b"N", b"]", b"](NK\1e"]
        )
    pieces = [values.header() + code + b"." for code in heads] + [main, values.header() + listing + b"."]
    for key in keys:
        kind, size, data = values.storages[key]
        count = len(data) // WIDTHS[kind]
        if draw.hostile("count differs", 0.5):
            count = rng.choice([size, count + 1, -1, edge(rng)])
        pieces += [struct.pack("<Q", count & ((1 << 64) - 1)), data]
    content = b"".join(pieces)
    if draw.hostile("storages are cut"):
        content = content[: -rng.randrange(1, 30)] + b"x" * rng.choice([0, 0, 5])
    return draw.file("legacy.pt", content)


def torchscript(rng):
    """A zip archive of torch.jit.save."""
    draw = Draw(rng, OF_TORCHSCRIPT)
    values = Tensors(draw, 2, legacy=False)

    def scripted(depth):
        pairs = [(values.text("training"), values.boolean(False))]
        if depth < 2 and draw.chance(0.4):
            pairs += [
                (values.text(name), scripted(depth + 1)) for name in ("voice", "head")[: rng.randrange(1, 3)]
            ]
        else:
            pairs += state_pairs(values)
        if draw.hostile("names are strange", 0.3):
            pairs.append((values.text(rng.choice(NAMES)), scripted(depth + 2)))
        if draw.hostile("modules are strange"):
            pairs.append(
                (values.text("_modules"), rng.choice([b"N", b"}", values.integer(3), values.list(b"N")]))
            )
        code = values.named(
            f"__torch__.{rng.choice(['Model', 'torch.nn.modules.rnn.GRU', '___torch_mangle_3.GRU'])}"
        )
        code += b")\x81"
        if draw.hostile("modules in a cycle"):
            code, again = values.remembered(code)
            pairs += [(values.text(f"m{i}"), again) for i in range(rng.choice([1, 2, 5]))]
        return code + values.dict(pairs) + b"b"

    data = pickled(values, scripted(0))
    constants = Tensors(draw, 2, legacy=False)
    held = values.tuple(*(constants.tensor(weights(rng, 2), "f4") for _ in range(rng.choice([0, 0, 2]))))
    if draw.hostile("constants are strange"):
        held = rng.choice(
            [b"N", b"}", b"]", values.integer(3), broken_program(values), doubling(values), deep(values)]
        )
    root = rng.choice(["archive", "script"])
    members = [(f"{root}/data.pkl", data), (f"{root}/version", b"6\n"), (f"{root}/byteorder", b"little")]
    members += [
        (f"{root}/code/__torch__.py", b"class Model(Module):\n  import os; os.abort()\n"),
        (f"{root}/code/__torch__.py.debug_pkl", rng.randbytes(30)),
        (f"{root}/constants.pkl", b"\x80\2" + held + b"."),
    ]
    members += [(f"{root}/data/{key}", content) for key, content in stored(draw, values).items()]
    members += [(f"{root}/constants/{key}", held) for key, (_, _, held) in constants.storages.items()]
    return draw.file("script.pt", archive_of(draw, root, members))
