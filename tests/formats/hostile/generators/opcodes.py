"""Pickles opcode by opcode: values in all of their forms, and programs of random opcodes."""

import struct

PLAIN = "argparse.Namespace", "__main__.Model", "torch.device", "os.system", "builtins.exec"  # of no meaning


def mark_and(*codes):
    return b"(" + b"".join(codes)


class Values:
    """Code that pushes one value each, in one of the forms that there are.

    Parameters
    ----------
    draw : Draw
    protocol : int
        The newest one whose opcodes are used.
    """

    def __init__(self, draw, protocol):
        self.draw, self.rng, self.protocol = draw, draw.rng, protocol
        self._puts = 0

    def header(self):
        return b"\x80" + bytes([self.protocol]) if self.protocol > 1 else b""

    # ---- plain values

    def none(self):
        return b"N"

    def boolean(self, value):
        if self.draw.chance(0.1):
            return b"I01\n" if value else b"I00\n"
        return b"\x88" if value else b"\x89"

    def integer(self, number):
        forms = []
        if 0 <= number < 1 << 8:
            forms += [b"K" + struct.pack("<B", number)] * 9
        if 0 <= number < 1 << 16:
            forms += [b"M" + struct.pack("<H", number)] * 3
        if -(1 << 31) <= number < 1 << 31:
            forms += [b"J" + struct.pack("<i", number)] * 3
        size = number.bit_length() // 8 + 1
        if size < 256:
            forms.append(b"\x8a" + bytes([size]) + number.to_bytes(size, "little", signed=True))
        if size < 16:
            forms += [b"I%d\n" % number, b"L%dL\n" % number]
        return self.rng.choice(forms)

    def number(self, value):
        return b"G" + struct.pack(">d", value)

    def text(self, value):
        data = value.encode("utf-8", "surrogatepass")
        forms = [b"X" + struct.pack("<I", len(data)) + data] * 6
        if len(data) < 256:
            forms += [b"\x8c" + bytes([len(data)]) + data] * 4
        forms.append(b"\x8d" + struct.pack("<Q", len(data)) + data)
        if data.isascii():
            forms.append(b"T" + struct.pack("<I", len(data)) + data)
            if len(data) < 256:
                forms.append(b"U" + bytes([len(data)]) + data)
        return self.rng.choice(forms)

    def data(self, data):
        forms = [b"B" + struct.pack("<I", len(data)) + data]
        forms += [
            b"\x8e" + struct.pack("<Q", len(data)) + data,
            b"\x96" + struct.pack("<Q", len(data)) + data,
        ]
        if len(data) < 256:
            forms.append(b"C" + bytes([len(data)]) + data)
        return self.rng.choice(forms)

    # ---- memo

    def remembered(self, code):
        """A value that is also put into the memo, and code that gets it from there."""
        number = self._puts
        self._puts += 1
        long = number > 255 or self.draw.chance(0.2)
        form, put, get = ("<I", b"r", b"j") if long else ("<B", b"q", b"h")
        return code + put + struct.pack(form, number), get + struct.pack(form, number)

    def perhaps_remembered(self, code):
        if not self.draw.chance(0.3):
            return code
        return code + b"\x94" if self.protocol > 3 else self.remembered(code)[0]

    # ---- containers

    def tuple(self, *codes):
        if not codes and self.draw.chance(0.9):
            return self.perhaps_remembered(b")")
        if 0 < len(codes) < 4 and self.draw.chance(0.8):
            return self.perhaps_remembered(b"".join(codes) + b"\x84\x85\x86\x87"[len(codes) : len(codes) + 1])
        return self.perhaps_remembered(mark_and(*codes) + b"t")

    def list(self, *codes):
        made = self.perhaps_remembered(b"]")
        if len(codes) == 1 or self.draw.chance(0.2):
            return made + b"".join(code + b"a" for code in codes)
        return made + mark_and(*codes) + b"e"

    def dict(self, pairs):
        return self.perhaps_remembered(b"}") + self.items(pairs)

    def items(self, pairs):
        """Code that sets items of a dict that is on the stack."""
        pairs = [key + value for key, value in pairs]
        if len(pairs) == 1 or self.draw.chance(0.2):
            return b"".join(pair + b"s" for pair in pairs)
        return mark_and(*pairs) + b"u"

    # ---- globals and objects

    def named(self, name):
        module, _, attribute = name.rpartition(".")
        if (self.protocol > 3 and self.draw.chance(0.7)) or "\n" in name:
            return self.perhaps_remembered(self.text(module) + self.text(attribute) + b"\x93")
        return self.perhaps_remembered(b"c%s\n%s\n" % (module.encode(), attribute.encode()))

    def call(self, name, *codes):
        return self.perhaps_remembered(self.named(name) + self.tuple(*codes) + b"R")

    def object(self, name, state, *codes):
        if self.draw.chance(0.2):
            made = self.named(name) + self.tuple(*codes) + b"}\x92"
        else:
            made = self.named(name) + self.tuple(*codes) + self.rng.choice([b"\x81", b"R"])
        return self.perhaps_remembered(made) + state + b"b"

    def ordered(self, pairs):
        """An OrderedDict: of pairs, as Python 2 has it, or with items and the attribute of a state dict."""
        if self.draw.chance(0.15):
            given = self.list(*(self.list(key, value) for key, value in pairs))
            return self.call("collections.OrderedDict", given)
        code = self.call("collections.OrderedDict") + self.items(pairs)
        if self.draw.chance(0.5):
            metadata = self.dict([(self.text("version"), self.integer(1))])
            code += self.dict([(self.text("_metadata"), self.dict([(self.text(""), metadata)]))]) + b"b"
        return code


# ---- programs of random opcodes --------------------------------------------------------------


class Program:
    """Random opcodes, of types that the machine can have, that leave one value.

    Parameters
    ----------
    values : Tensors
    broken : bool
        Whether what would fail may be in it.
    """

    def __init__(self, values, broken):
        self._values, self._rng, self._broken = values, values.rng, broken
        self._code = bytearray()
        self._stack, self._outer = [], []
        self._kept = {}  # kinds in the memo by index
        self._fresh = 0

    def run(self, steps):
        """The code of so many steps, and of what it takes to come to an end."""
        for _ in range(steps):
            if self._broken and self._rng.random() < 0.05:
                self._code += self._rng.choice([bytes([self._rng.randrange(256)]), self._rng.choice(OPCODES)])
                self._stack = [*self._stack, "?"][:1000]
            else:
                self._rng.choice(self._steps())()
        while self._outer:
            self._tuple()
        if not self._stack:
            self._push(b"N", "none")
        while len(self._stack) > 1:
            if self._rng.random() < 0.5:
                self._pop()
            else:
                self._tuple_of_two()
        return bytes(self._code)

    def _steps(self):
        """What may be done next."""
        steps = [self._plain, self._plain, self._container, self._container, self._text, self._mark]
        steps += [self._global, self._noise, self._storage]
        stack, outer = self._stack, self._outer
        if stack:
            steps += [self._pop, self._put, self._put]
            if stack[-1] != "?":
                steps.append(self._frozen if outer else self._put)
        if self._kept:
            steps += [self._get] * 3
        if len(stack) > 1:
            steps += [self._tuple_of_two, self._tuple_of_two, self._build]
            if stack[-2] in ("list", "object"):
                steps += [self._append] * 4
            if stack[-1] in ("tuple", "empty") and stack[-2] != "special":
                steps += [self._reduce] * 3
        if len(stack) > 2:
            steps += [self._tuple_of_three]
            if stack[-3] in ("dict", "object") and stack[-2] in KEYS:
                steps += [self._set] * 4
            if stack[-2] in ("tuple", "empty") and stack[-3] != "special":
                steps.append(self._newobj_ex)
        if outer:
            steps += [self._tuple, self._pop_mark]
            below = outer[-1][-1] if outer[-1] else None
            if below in ("list", "object"):
                steps += [self._appends] * 3
            if below is not None:
                steps.append(self._add)
            if below in ("dict", "object") and not len(stack) % 2 and set(stack[::2]) <= KEYS:
                steps += [self._sets] * 4
        return steps

    def _push(self, code, kind):
        self._code += code
        self._stack.append(kind)

    def _take(self, code, count, kind=None):
        """Code that takes values off the stack and perhaps pushes one."""
        del self._stack[len(self._stack) - count :]
        self._code += code
        if kind:
            self._stack.append(kind)

    def _plain(self):
        values, rng = self._values, self._rng
        choices = [
            (values.none(), "none"),
            (values.boolean(rng.random() < 0.5), "boolean"),
            (values.integer(rng.choice([0, 1, -1, 255, 65_536, 1 << 40, 1 << 62, -(1 << 62)])), "integer"),
            (values.integer(rng.randrange(1 << 60)), "integer"),
            (values.number(rng.choice([0.0, -1.5, 1e308, float("nan"), float("inf")])), "float"),
            (values.data(rng.randbytes(rng.choice([0, 1, 8, 300]))), "bytes"),
        ]
        self._push(*rng.choice(choices))

    def _text(self):
        self._fresh += 1
        self._push(
            self._values.text(self._rng.choice(["t%d", "a.b%d", "weight_ih_l%d.x", "\xe9%d"]) % self._fresh),
            "text",
        )

    def _container(self):
        choices = [(b"]", "list"), (b"}", "dict"), (b")", "empty"), (b"\x8f", "object"), (b"]", "list")]
        self._push(*self._rng.choice(choices))

    def _global(self):
        self._push(self._values.named(self._rng.choice(PLAIN)), "global")

    def _storage(self):
        key = f"empty{self._rng.randrange(3)}"
        self._values.storages[key] = "f4", 0, b""
        self._push(self._values.persistent("torch.FloatStorage", key, 0), "storage")

    def _noise(self):
        code = self._rng.choice([b"\x95" + self._rng.randbytes(8), b"\x80" + bytes([self._rng.randrange(6)])])
        self._code += code

    def _mark(self):
        self._code += b"("
        self._outer.append(self._stack)
        self._stack = []

    def _close(self, code):
        self._code += code
        values, self._stack = self._stack, self._outer.pop()
        return values

    def _pop(self):
        self._take(b"0", 1)

    def _pop_mark(self):
        self._close(b"1")

    def _tuple(self):
        kind = "tuple" if self._close(b"t") else "empty"
        self._stack.append(kind)

    def _frozen(self):
        self._close(b"\x91")
        self._stack.append("object")

    def _add(self):
        self._close(b"\x90")

    def _appends(self):
        self._close(b"e")

    def _sets(self):
        self._close(b"u")

    def _append(self):
        self._take(b"a", 1)

    def _set(self):
        self._take(b"s", 2)

    def _tuple_of_two(self):
        self._take(b"\x86", 2, "tuple")

    def _tuple_of_three(self):
        self._take(b"\x87", 3, "tuple")

    def _build(self):
        self._take(b"b", 1)

    def _reduce(self):
        self._take(self._rng.choice([b"R", b"\x81"]), 2, "object")

    def _newobj_ex(self):
        self._take(b"\x92", 3, "object")

    def _put(self):
        index = MEMO + self._rng.choice([len(self._kept), self._rng.randrange(300)])
        kind = "again" if self._stack[-1] == "text" else self._stack[-1]  # no key twice
        self._stack[-1] = kind
        self._kept[index] = kind
        self._code += b"r" + struct.pack("<I", index)

    def _get(self):
        index, kind = self._rng.choice(list(self._kept.items()))
        self._push(b"j" + struct.pack("<I", index), kind)


MEMO = 3000  # the first number of those that programs put, which nothing else does
KEYS = {  # kinds of values that may be keys of a dict more than once, and of fresh texts
    *("text", "none", "boolean", "float", "bytes", "tuple", "empty", "list", "dict", "object", "global"),
    "storage",
}
PLAIN_OPCODES = b"\x80\x95(01N\x88\x89]}\x8f\x90\x91)t\x85\x86\x87\x93R\x81\x92bQaesu\x94o2dlPS"
OPCODES = [
    *(bytes([code]) for code in PLAIN_OPCODES),
    *(b"I1\n", b"Ix\n", b"L9L\n", b"K\1", b"M\1\1", b"J\1\1\1\1", b"\x8a\1\1", b"\x8a\0", b"G" + bytes(8)),
    *(b"X\1\0\0\0x", b"\x8c\1x", b"\x8d\1\0\0\0\0\0\0\0x", b"T\1\0\0\0x", b"U\1x", b"B\1\0\0\0x", b"C\1x"),
    *(b"\x8e\1\0\0\0\0\0\0\0x", b"\x96\1\0\0\0\0\0\0\0x", b"cos\nsystem\n", b"q\0", b"r\0\0\0\0", b"h\0"),
    *(b"j\0\0\0\0", b"i__main__\nX\n", b"p0\n", b"g0\n", b"F1.5\n", b"Vx\n", b"\x82\1", b"\x97"),
    b"\x8b\1\0\0\0\1",
]
