"""What the generators share: files, and decisions that are drawn from a seed and noted."""

import struct
from typing import NamedTuple

import numpy as np


class File(NamedTuple):
    """A file that has been made up.

    Attributes
    ----------
    name : str
    content : bytes
    beside : dict of str to bytes
        Other files in its folder.
    arguments : dict
        Of `fastgru.load_all`.
    hostile : tuple of str
        The hostile productions that it was made with.
    """

    name: str
    content: bytes
    beside: dict = {}  # noqa: RUF012
    arguments: dict = {}  # noqa: RUF012
    hostile: tuple = ()


class Draw:
    """The decisions of one file.

    Which hostile productions it may take is drawn before all else, each with the same chance, so that those
    that come late in a grammar are as frequent as those that come early.

    Parameters
    ----------
    rng : random.Random
    productions : sequence of str
        The hostile productions of the grammar.
    most : int
        How many of them a file has at most.

    Attributes
    ----------
    rng : random.Random
    taken : set of str
        The hostile productions that have been taken.
    """

    def __init__(self, rng, productions, most=6):
        self.rng = rng
        self.taken = set()
        self._productions = productions
        count = rng.choice([0, 0, 0, 1, 1, 1, 1, 2, 2, 3, most])
        self._chosen = set(rng.sample(productions, min(count, len(productions))))

    def hostile(self, production, chance=1.0):
        """True if a hostile production is to be taken at this place."""
        assert production in self._productions, production
        if production not in self._chosen or self.rng.random() >= chance:
            return False
        self.taken.add(production)
        return True

    def hostile_once(self, production, chance=1.0):
        """As `hostile`, but False if the production has been taken already: it costs much."""
        return production not in self.taken and self.hostile(production, chance)

    def may_take(self, productions):
        """True if one of these hostile productions may be taken."""
        return not self._chosen.isdisjoint(productions)

    def chance(self, probability):
        """True so often."""
        return self.rng.random() < probability

    def file(self, name, content, beside=None, arguments=None):
        """The file that has come of all decisions."""
        return File(name, content, beside or {}, arguments or {}, tuple(sorted(self.taken)))


# Numbers that are at the edges of types, or of what a reader may take for granted
EDGES = (
    *(0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 4095, 4096, 4097, 0x7FFF, 0xFFFF, 0x10000),
    *(0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF, 1 << 32, 1 << 40, (1 << 61) - 1),
    *((1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 64, 10**30),
)
NAMES = (
    *("", "x", "weight_ih_l0", "GRU", "\0", "a\0b", "/", "a/b", "..", "../../x", "/etc/passwd", "C:\\x", "."),
    *("\N{PILE OF POO}", "\N{LATIN SMALL LETTER E WITH ACUTE}", "\N{RIGHT-TO-LEFT OVERRIDE}", "x" * 300),
    *("x" * 4096, "x" * 4097, "x" * 70_000, "__class__", "__reduce__", "%s%n", "{0.__class__}", "\n", "a\nb"),
)


def edge(rng):
    """A number at an edge, or the negative of one."""
    return rng.choice(EDGES) * rng.choice([1, 1, 1, -1])


def weights(rng, *shape, dtype=np.float32):
    """An array of small numbers."""
    count = int(np.prod(shape))
    # NumPy's generator would take a hundred times as long to make as these to draw
    return np.array([rng.uniform(-1, 1) for _ in range(count)], dtype).reshape(shape)


def with_strange_number(data, rng, form="<f"):
    """Bytes with a NaN, an infinity or a number at the end of its range where a float may be."""
    size = struct.calcsize(form)
    if len(data) < size:
        return data
    at = rng.randrange(max(1, len(data) // size)) * size
    number = struct.pack(form, rng.choice([np.nan, np.inf, -np.inf, 3e38]))
    return data[:at] + number + data[at + size :]


def occurrences(data, signature):
    """Where a signature is in the data."""
    at = data.find(signature)
    while at >= 0:
        yield at
        at = data.find(signature, at + 1)


SIGNATURES = (
    *(b"TREE", b"SNOD", b"HEAP", b"GCOL", b"OHDR", b"PK\1\2", b"PK\3\4", b"PK\5\6"),
    *(b"\x93NUMPY", b"{"),
)


def scrambled(data, rng):
    """Bytes with some of them changed, moved, doubled or left out."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 5, 20])):
        size = len(data)
        at = rng.randrange(size + 1)
        if rng.random() < 0.3:  # near what tells the parts of a file
            places = [i for s in SIGNATURES for i in occurrences(data, s)] or [0]
            at = min(size, rng.choice(places) + rng.randrange(64))
        length = min(rng.choice([1, 2, 4, 8, 64, 1000]), size - at)
        match rng.randrange(9):
            case 0 if length:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[at : at + length] = rng.randbytes(length)
            case 2:
                data[at : at + length] = rng.choice([b"\0", b"\xff"]) * length
            case 3:
                other = rng.randrange(size + 1)
                data[at : at + length] = data[other : other + length]
            case 4:
                data[at:at] = data[at : at + length]
            case 5:
                data[at:at] = rng.randbytes(length)
            case 6:
                del data[at : at + length]
            case 7:
                width = rng.choice([1, 2, 4, 8])
                number = rng.choice(EDGES) & ((1 << 8 * width) - 1)
                data[at : at + width] = number.to_bytes(width, rng.choice(["little", "big"]))
            case 8 if rng.random() < 0.2:
                del data[at:]
    return bytes(data)
