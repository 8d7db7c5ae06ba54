"""Pickles, taken apart without making anything that they name.

A small stack machine on the opcodes that PyTorch's files have. Globals, calls and objects become stand-ins;
what a name stands for is never looked up. It is not pickle.Unpickler: that grows its memo to any index that a
pickle names, and hashes whatever a pickle has as keys.

Source: the opcodes of Lib/pickletools.py, PEP 307 and PEP 3154.
"""

import struct
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from fastgru._errors import FormatError
from fastgru.formats import _model

# Bytes that CPython takes: for a reference in a list, an integer or float, an empty container, an entry of a
# dict while that grows.
SLOT, NUMBER, CONTAINER, ENTRY = 10, 32, 64, 72


class Global:
    """What a pickle calls by its module and name: "collections.OrderedDict"."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class Object:
    """A stand-in for an object that was not made.

    Attributes
    ----------
    name : str
        Its class, or the function that would have returned it: "argparse.Namespace".
    state : Any
        What its attributes would have been set from; None if nothing.
    items : dict
        What would have been set in it by string keys.
    """

    __slots__ = ("items", "name", "state")

    def __init__(self, name: str) -> None:
        self.name = name
        self.state: Any = None
        self.items: dict[str, Any] = {}


TEXT, BYTES = object(), object()  # of any content: texts that are no names, and bytes
NOTHING = object()  # in the memo

Call = Callable[[str, tuple[Any, ...]], Any]  # of a global by its name, with its arguments
Persistent = Callable[[Any], Any]  # a persistent id, to what it stands for


def load(data: bytes, start: int, limit: int, call: Call, persistent: Persistent) -> tuple[Any, int]:
    """Read one pickle.

    Parameters
    ----------
    data : bytes
    start : int
        Where in them it begins.
    limit : int
        The most bytes that its objects may take.
    call : callable
        Gets the name of a global and a tuple of arguments, when a pickle calls it or makes an object of it;
        returns a stand-in.
    persistent : callable
        Gets a persistent id, and returns what it stands for.

    Returns
    -------
    object
        None, bool, int, float, str, tuple, list, dict with string keys, Global, Object, or what the callables
        have returned. Integer keys become strings; pairs with other keys are left out. Sets are Objects.
        Numbers in lists are None.
    int
        Where the pickle ends.

    Raises
    ------
    FormatError
        If it is damaged, has an opcode that is not read, or makes too much.
    """
    return _Machine(data, start, limit, call, persistent).run()


class _Machine:
    def __init__(self, data: bytes, start: int, limit: int, call: Call, persistent: Persistent) -> None:
        self._data, self._at, self._left = data, start, limit
        self._call, self._persistent = call, persistent
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []  # stacks below a mark
        self._memo: list[Any] = []
        self._globals: dict[str, Global] = {}

    def run(self) -> tuple[Any, int]:
        data = self._data
        while True:
            code = data[self._at] if self._at < len(data) else self._cut()
            self._at += 1
            if code == STOP:
                return self._pop(), self._at
            operation = OPERATIONS.get(code)
            if operation is None:
                raise FormatError(f"the pickle has the opcode {bytes([code])!r}, which no state dict needs")
            operation(self)

    # ---- bytes

    def _cut(self) -> NoReturn:
        raise FormatError("the pickle is damaged: it ends too early")

    def _take(self, size: int) -> bytes:
        start = self._at
        if size > len(self._data) - start:
            self._cut()
        self._at = start + size
        return self._data[start : self._at]

    def _number(self, form: str) -> Any:
        (number,) = struct.unpack(form, self._take(struct.calcsize(form)))
        return number

    def _line(self) -> str:
        end = self._data.find(b"\n", self._at, self._at + _model.LONGEST)
        if end < 0:
            raise FormatError("the pickle is damaged: a name in it has no end")
        line = self._take(end - self._at)
        self._at += 1
        return _decoded(line)

    # ---- the stack

    def _charge(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise FormatError("the pickle makes more objects than a file of its size may hold")

    def _push(self, value: Any, size: int = 0) -> None:
        self._charge(_held(value) + size)
        self._stack.append(value)

    def _pop(self) -> Any:
        if not self._stack:
            raise FormatError("the pickle is damaged: it takes what is not there")
        value = self._stack.pop()
        self._left += _held(value)
        return value

    def _top(self) -> Any:
        if not self._stack:
            raise FormatError("the pickle is damaged: it changes what is not there")
        return self._stack[-1]

    def _to_mark(self) -> list[Any]:
        if not self._outer:
            raise FormatError("the pickle is damaged: a mark is missing")
        values, self._stack = self._stack, self._outer.pop()
        self._left += CONTAINER + sum(map(_held, values))
        return values

    # ---- opcodes

    def proto(self) -> None:
        if self._number("<B") > 5:
            raise FormatError("the pickle is of a protocol later than 5")

    def frame(self) -> None:
        self._take(8)  # how long it is, which is of use for files that are read piece by piece

    def mark(self) -> None:
        self._charge(CONTAINER)
        self._outer.append(self._stack)
        self._stack = []

    def pop(self) -> None:
        if self._stack:
            self._pop()
        else:
            self._to_mark()

    def pop_mark(self) -> None:
        self._to_mark()

    def integer(self) -> None:
        text = self._line()
        if text in ("00", "01"):  # so protocol 1 has booleans
            self._push(text == "01")
            return
        digits = text.removesuffix("L").removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) < 40):
            raise FormatError(f"the pickle is damaged: the integer {text!r:.40}")
        self._push(int(text.removesuffix("L")))

    def long1(self) -> None:
        size = self._number("<B")
        self._push(int.from_bytes(self._take(size), "little", signed=True), size)

    def _text(self, size: int) -> None:
        text = self._take(size)
        decoded = _decoded(text) if size <= 4 * _model.LONGEST else None  # 4 bytes a character at most
        if decoded is None or len(decoded) > _model.LONGEST:  # no name
            self._push(TEXT)
        else:
            self._push(decoded, sys.getsizeof(decoded))

    def _text_of_python_2(self, size: int) -> None:
        text = self._take(size)
        if size > _model.LONGEST or not text.isascii():  # str was for bytes, too
            self._push(BYTES)
        else:
            self._push(text.decode("ascii"), CONTAINER + size)

    def _bytes(self, size: int) -> None:
        if size > len(self._data) - self._at:
            self._cut()
        self._at += size
        self._push(BYTES)

    def append(self) -> None:
        self._extend([self._pop()])

    def appends(self) -> None:
        self._extend(self._to_mark())

    def _extend(self, values: list[Any]) -> None:
        into = self._top()
        if isinstance(into, list):
            self._charge(SLOT * len(values))
            into += [None if isinstance(value, int | float) else value for value in values]
        elif not isinstance(into, Object):  # whose members are of no use
            raise FormatError("the pickle is damaged: it appends to what is no list")

    def setitem(self) -> None:
        value = self._pop()
        self._set([self._pop(), value])

    def setitems(self) -> None:
        self._set(self._to_mark())

    def _set(self, pairs: list[Any]) -> None:
        into = self._top()
        if isinstance(into, Object):
            into = into.items
        if not isinstance(into, dict) or len(pairs) % 2:
            raise FormatError("the pickle is damaged: it sets items of what is no dict")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if key is TEXT:
                raise FormatError(f"the pickle has a key of more than {_model.LONGEST} characters")
            if type(key) is int and abs(key) < 1 << 63:
                key = str(key)
            if isinstance(key, str):  # no other is hashed: there may be many with one hash
                self._charge(ENTRY + _held(value) + _held(key))
                if key in into:
                    raise FormatError(f"the pickle has the key {key!r:.80} twice in one dict")
                into[key] = value

    def add(self) -> None:
        self._to_mark()
        self._top()

    def frozenset(self) -> None:
        self._to_mark()
        self._push(Object("frozenset"), 2 * CONTAINER)

    def tuple_(self) -> None:
        values = self._to_mark()
        self._push(tuple(values), CONTAINER + sum(map(_held, values)))

    def _tuple_of(self, count: int) -> None:
        values = [self._pop() for _ in range(count)]
        self._push(tuple(reversed(values)), CONTAINER + sum(map(_held, values)))

    def global_(self) -> None:
        module = self._line()
        self._named(module, self._line())

    def stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise FormatError("the pickle is damaged: a global without a name")
        self._named(module, name)

    def _named(self, module: str, name: str) -> None:
        full = f"{module}.{name}"
        if full not in self._globals:
            self._charge(CONTAINER + ENTRY + sys.getsizeof(full))
            self._globals[full] = Global(full)
        self._push(self._globals[full])

    def reduce(self) -> None:
        arguments = self._pop()
        self._apply(self._pop(), arguments)

    def newobj_ex(self) -> None:
        self._pop()  # arguments by name
        self.reduce()

    def _apply(self, function: Any, arguments: Any) -> None:
        if not isinstance(arguments, tuple):
            raise FormatError("the pickle is damaged: it calls without arguments")
        name = function.name if isinstance(function, Global | Object) else type(function).__name__
        made = self._call(name, arguments) if isinstance(function, Global) else Object(name)
        self._push(made, 3 * CONTAINER)

    def build(self) -> None:
        state = self._pop()
        made = self._top()
        if isinstance(made, Object):
            made.state = state

    def binpersid(self) -> None:
        self._push(self._persistent(self._pop()), 3 * CONTAINER)

    def _put(self, index: int) -> None:
        missing = index + 1 - len(self._memo)
        if missing > 0:  # by one, unless the pickle has been optimized
            self._charge(SLOT * missing)
            self._memo += [NOTHING] * missing
        self._charge(_held(self._top()))
        self._memo[index] = self._top()

    def memoize(self) -> None:
        self._put(len(self._memo))

    def _get(self, index: int) -> None:
        value = self._memo[index] if index < len(self._memo) else NOTHING
        if value is NOTHING:
            raise FormatError(f"the pickle is damaged: it takes the value {index} before there is one")
        self._push(value)


def _held(value: Any) -> int:
    """Bytes of a reference, with the number that it refers to: all else is counted where it is made."""
    return SLOT + NUMBER if type(value) in (int, float) else SLOT


def _decoded(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise FormatError(f"the pickle has the text {text!r:.80}, which is not UTF-8") from None


STOP = ord(".")
OPERATIONS: dict[int, Callable[[_Machine], None]] = {
    ord(code): operation
    for code, operation in {
        "\x80": _Machine.proto,
        "\x95": _Machine.frame,
        "(": _Machine.mark,
        "0": _Machine.pop,
        "1": _Machine.pop_mark,
        "N": lambda machine: machine._push(None),
        "\x88": lambda machine: machine._push(True),
        "\x89": lambda machine: machine._push(False),
        "I": _Machine.integer,
        "L": _Machine.integer,
        "J": lambda machine: machine._push(machine._number("<i")),
        "K": lambda machine: machine._push(machine._number("<B")),
        "M": lambda machine: machine._push(machine._number("<H")),
        "\x8a": _Machine.long1,
        "G": lambda machine: machine._push(machine._number(">d")),
        "X": lambda machine: machine._text(machine._number("<I")),
        "\x8c": lambda machine: machine._text(machine._number("<B")),
        "\x8d": lambda machine: machine._text(machine._number("<Q")),
        "T": lambda machine: machine._text_of_python_2(machine._number("<I")),
        "U": lambda machine: machine._text_of_python_2(machine._number("<B")),
        "B": lambda machine: machine._bytes(machine._number("<I")),
        "C": lambda machine: machine._bytes(machine._number("<B")),
        "\x8e": lambda machine: machine._bytes(machine._number("<Q")),
        "\x96": lambda machine: machine._bytes(machine._number("<Q")),
        "]": lambda machine: machine._push([], CONTAINER),
        "a": _Machine.append,
        "e": _Machine.appends,
        "}": lambda machine: machine._push({}, CONTAINER),
        "s": _Machine.setitem,
        "u": _Machine.setitems,
        "\x8f": lambda machine: machine._push(Object("set"), 2 * CONTAINER),
        "\x90": _Machine.add,
        "\x91": _Machine.frozenset,
        ")": lambda machine: machine._push(()),
        "t": _Machine.tuple_,
        "\x85": lambda machine: machine._tuple_of(1),
        "\x86": lambda machine: machine._tuple_of(2),
        "\x87": lambda machine: machine._tuple_of(3),
        "c": _Machine.global_,
        "\x93": _Machine.stack_global,
        "R": _Machine.reduce,
        "\x81": _Machine.reduce,
        "\x92": _Machine.newobj_ex,
        "b": _Machine.build,
        "Q": _Machine.binpersid,
        "q": lambda machine: machine._put(machine._number("<B")),
        "r": lambda machine: machine._put(machine._number("<I")),
        "\x94": _Machine.memoize,
        "h": lambda machine: machine._get(machine._number("<B")),
        "j": lambda machine: machine._get(machine._number("<I")),
    }.items()
}
