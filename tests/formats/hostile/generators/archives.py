"""Zip archives of all kinds, written field by field, so that the parts of one may disagree.

What is sound, and must load where nothing hostile is beside it: an .npz of a state dict, a file of fastgru's
own, one of torch.save; stored and deflated; with a comment, extra fields, sizes after the data or as numbers
of zip64, names in UTF-8 and in code page 437, folders as members, gaps between members.

The hostile productions are in PRODUCTIONS.
"""

import io
import struct
import warnings
import zipfile
import zlib
from dataclasses import dataclass

import numpy as np
from formats.hostile.generators.drawing import NAMES, Draw, edge, scrambled, weights

import fastgru

PRODUCTIONS = (
    # the end
    *("two directories", "prefix", "suffix", "comment has an end record", "place lies", "size lies"),
    "count lies",
    *("disks", "zip64 lies", "locator lies", "zip64 without need", "cut off"),
    # the directory
    *("name twice", "name has NUL", "name is strange", "name is no UTF-8", "local place lies", "overlap"),
    "bomb",
    *("local header differs", "local name differs", "size is another", "two sizes", "checksum is another"),
    *("checksum is zero", "encrypted", "method is unknown", "extra field is broken", "flags are strange"),
    *("descriptor without flag", "data is damaged", "data is longer", "member is missing", "link"),
    *("members of other formats", "many members", "scrambled"),
)
STORED, DEFLATED = 0, 8
DATE = 33  # the first day of 1980
WIDE = 0xFFFFFFFF


@dataclass
class Member:
    """A member as it is written; what is said of it may be something else.

    `None` is what is true.
    """

    name: bytes
    data: bytes
    method: int = STORED
    flags: int = 0
    crc: int | None = None
    packed_size: int | None = None
    size: int | None = None
    place: int | None = None
    extra: bytes = b""
    comment: bytes = b""
    attributes: int = 0
    packed: bytes | None = None
    local: dict | None = None  # fields that are others before the data
    gap: bytes = b""  # before it
    wide: bool = False  # sizes in the extra field of zip64
    later: bool = False  # checksum and sizes after the data

    def pack(self):
        if self.packed is None:
            self.packed = deflated(self.data) if self.method == DEFLATED else self.data

    def fields(self):
        """What is said of it: flags, method, checksum and sizes."""
        return {
            "flags": self.flags | (8 if self.later else 0),
            "method": self.method,
            "crc": zlib.crc32(self.data) if self.crc is None else self.crc,
            "packed_size": len(self.packed) if self.packed_size is None else self.packed_size,
            "size": len(self.data) if self.size is None else self.size,
            "name": self.name,
            "extra": self.extra,
        }


def deflated(data):
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def written(members, prefix=b"", end=None):
    """An archive of members.

    Parameters
    ----------
    members : list of Member
    prefix : bytes
    end : callable, optional
        Of the place of the directory, its bytes and the number of members: the end of the archive.
    """
    data = bytearray(prefix)
    entries = b""
    for member in members:
        member.pack()
        data += member.gap
        said = member.fields()
        place = len(data) if member.place is None else member.place
        local = said | (member.local or {})
        if member.later:
            local |= dict.fromkeys(("crc", "packed_size", "size"), 0)
        data += local_header(local, member.wide) + member.packed
        if member.later:
            form = "<4sLQQ" if member.wide else "<4s3L"
            sizes = said["packed_size"], said["size"]
            mask = (1 << 64) - 1 if member.wide else WIDE
            data += struct.pack(form, b"PK\7\x08", said["crc"] & WIDE, *(size & mask for size in sizes))
        entries += directory_entry(said, member, place)
    return bytes(data) + entries + (end or end_record)(len(data), entries, len(members))


def local_header(said, wide):
    sizes = said["packed_size"], said["size"]
    extra = said["extra"]
    if wide:
        extra += struct.pack("<2H2Q", 1, 16, sizes[1] & ((1 << 64) - 1), sizes[0] & ((1 << 64) - 1))
        sizes = WIDE, WIDE
    numbers = (
        said["crc"] & WIDE,
        *(size & WIDE for size in sizes),
        len(said["name"]) & 0xFFFF,
        len(extra) & 0xFFFF,
    )
    return (
        struct.pack("<4s5H3L2H", b"PK\3\4", 20, said["flags"], said["method"], 0, DATE, *numbers)
        + said["name"]
        + extra
    )


def directory_entry(said, member, place):
    sizes = said["packed_size"], said["size"]
    extra = said["extra"]
    if member.wide:
        extra += struct.pack(
            "<2H3Q", 1, 24, *(number & ((1 << 64) - 1) for number in (sizes[1], sizes[0], place))
        )
        sizes, place = (WIDE, WIDE), WIDE
    lengths = len(said["name"]) & 0xFFFF, len(extra) & 0xFFFF, len(member.comment)
    numbers = said["crc"] & WIDE, *(size & WIDE for size in sizes), *lengths, 0, 0
    head = struct.pack("<4s6H", b"PK\1\2", 20, 20, said["flags"], said["method"], 0, DATE)
    head += struct.pack("<3L5H2L", *numbers, member.attributes, place & WIDE)
    return head + said["name"] + extra + member.comment


def end_record(place, entries, count, comment=b"", disks=(0, 0)):
    numbers = *disks, count & 0xFFFF, count & 0xFFFF, len(entries) & WIDE, place & WIDE, len(comment)
    return struct.pack("<4s4H2LH", b"PK\5\6", *numbers) + comment


def sound(members, packing=STORED):
    """An archive without lies, of pairs of a name and bytes."""
    return written(
        [Member(name.encode(), data, packing, 0 if name.isascii() else 1 << 11) for name, data in members]
    )


def of_zipfile(members, packing=STORED):
    """An archive as the standard library writes it, of pairs of a name and bytes; by `sound` if it cannot."""
    if any("\0" in name or not name.isprintable() or len(name) > 0xFFFF for name, _ in members):
        return sound(members, packing)
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", packing) as archive:
        warnings.simplefilter("ignore")  # of two members with one name
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


# ---- contents --------------------------------------------------------------------------------


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def state_dict(rng):
    units, features = rng.choice([1, 2, 5]), rng.choice([1, 3])
    arrays = {
        "weight_ih_l0": weights(rng, 3 * units, features),
        "weight_hh_l0": weights(rng, 3 * units, units),
    }
    return [(f"{name}.npy", npy(array)) for name, array in arrays.items()]


def native(rng):
    buffer = io.BytesIO()
    layer = fastgru.GRU(rng.choice([1, 3]), use_bias=False)
    layer.build((None, None, 2))
    arrays = {str(i): weights(rng, *array.shape) for i, array in enumerate(layer.weights)}
    header = b'{"format": 1, "class_name": "GRU", "config": {"units": %d, "use_bias": false}}' % layer.units
    np.savez(buffer, fastgru=np.frombuffer(header, np.uint8), **arrays)
    with zipfile.ZipFile(buffer) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def torch(rng):
    """A state dict of two tensors that lie in one storage."""
    units = rng.choice([1, 2])
    numbers = weights(rng, 3 * units * (units + 1))
    text = b"X%c\0\0\0%s"
    storage = b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" + b"0X\3\0\0\0cpuK%ctQ" % len(numbers)

    def tensor(offset, features):
        view = b"K%c(K%cK%ct(K%cK\1t" % (offset, 3 * units, features, features)
        return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + view + b"\x89}tR"

    pairs = (
        text % (12, b"weight_ih_l0") + tensor(0, 1) + text % (12, b"weight_hh_l0") + tensor(3 * units, units)
    )
    return [
        ("archive/data.pkl", b"\x80\2}(" + pairs + b"u."),
        ("archive/byteorder", b"little"),
        ("archive/data/0", numbers.tobytes()),
        ("archive/version", b"3\n"),
    ]


# ---- the grammar -----------------------------------------------------------------------------


def archive(rng):
    """An archive of a GRU."""
    draw = Draw(rng, PRODUCTIONS)
    kind, ending = rng.choice([(state_dict, "npz"), (native, "npz"), (torch, "pt")])
    members = [Member(name.encode(), data) for name, data in kind(rng)]
    if draw.chance(0.2):
        rng.shuffle(members)
    if draw.chance(0.15) and kind is not torch:
        members.append(Member(rng.choice([b"folder/", b"other.txt", b"x.bin"]), b""))
    if draw.chance(0.15) and kind is not torch:
        members.append(Member("\xe9\N{PILE OF POO}.txt".encode(), b"x", flags=1 << 11))
    for member in members:
        vary(draw, member)
    members[0].gap = b""  # what begins with something else is something else
    members = spoiled(draw, members, kind is torch)
    data = written(members, prefix_of(draw), end_of(draw, members))
    if draw.hostile("two directories"):
        data += written(
            [Member(b"config.json", b"{}"), Member(b"metadata.json", b"{}")],
            data if draw.chance(0.5) else b"",
        )
    if draw.hostile("suffix"):
        data += rng.choice([b"\0", b"x" * 10, b"PK\5\6", b"\0" * 70_000, data])
    if draw.hostile("cut off"):
        data = data[: rng.randrange(len(data) + 1)]
    if draw.hostile("scrambled"):
        data = scrambled(data, rng)
    return draw.file(f"model.{ending}", data)


def vary(draw, member):
    """Write a member in one of the forms that there are."""
    rng = draw.rng
    member.method = rng.choice([STORED, STORED, DEFLATED])
    member.wide = draw.chance(0.1)
    member.later = draw.chance(0.1)
    if draw.chance(0.1):
        member.flags |= rng.choice([1 << 1, 1 << 2, 1 << 11])
    if draw.chance(0.1):
        member.gap = rng.randbytes(rng.choice([1, 30, 100]))
    if draw.chance(0.1):
        member.extra = struct.pack("<2H", 0x4246, 60) + b"Z" * 60  # as torch.save pads
    if draw.chance(0.1):
        member.comment = b"comment"
    if draw.chance(0.1):
        member.attributes = rng.getrandbits(32) & 0x0FFFFFFF


def spoiled(draw, members, of_torch):
    """The members, of which some are not what is said of them, or others."""
    rng = draw.rng

    def one():
        return rng.choice(members)

    if draw.hostile("name is strange"):
        one().name = rng.choice(NAMES).encode("utf-8", "surrogatepass")[:65_535]
    if draw.hostile("name has NUL"):
        member = one()
        member.name = rng.choice([member.name + b"\0", b"\0", member.name + b"\0.txt", b"\0" + member.name])
    if draw.hostile("name is no UTF-8"):
        member = one()
        member.name, member.flags = b"\xff\xfe" + member.name, member.flags | (1 << 11)
    if draw.hostile("local name differs"):
        member = one()
        member.local = {
            "name": rng.choice([b"x", b"", member.name + b"x", members[0].name, member.name[:-1]])
        }
    if draw.hostile("local header differs"):
        member = one()
        field = rng.choice(["flags", "method", "crc", "packed_size", "size"])
        number = rng.choice([member.fields()[field] + 1 if member.packed else 1, 0, 8, WIDE])
        member.local = {field: number & (0xFFFF if field in ("flags", "method") else WIDE)}
    if draw.hostile("size is another"):
        member = one()
        member.size = rng.choice([0, 1, len(member.data) + 1, len(member.data) - 1, abs(edge(rng))])
    if draw.hostile("two sizes"):
        member = one()
        member.method, member.packed_size = (
            STORED,
            rng.choice([0, 1, len(member.data) + 1, abs(edge(rng)) & WIDE]),
        )
    if draw.hostile("checksum is another"):
        one().crc = rng.choice([1, WIDE])
    if draw.hostile("checksum is zero"):
        one().crc = 0
    if draw.hostile("encrypted"):
        one().flags |= 1
    if draw.hostile("flags are strange"):
        one().flags = rng.getrandbits(16)
    if draw.hostile("descriptor without flag"):
        member = one()
        member.later = True
        member.local = {"flags": 0}
    if draw.hostile("method is unknown"):
        member = one()
        member.method = rng.choice([1, 6, 9, 12, 14, 93, 95, 97, 99, 0xFFFF])
    if draw.hostile("extra field is broken"):
        member = one()
        forms = [
            struct.pack("<2H", 1, 8) + bytes(7),
            struct.pack("<2H", 1, 100),
            b"\1",
            struct.pack("<2H", 1, 0),
        ]
        forms += [struct.pack("<2H", 1, 8) * 3, struct.pack("<2HQ", 1, 8, 1 << 40), b"\1\0\xff\xff"]
        member.extra, member.wide = rng.choice(forms), draw.chance(0.5)
        if draw.chance(0.5):
            member.size = member.packed_size = WIDE
    if draw.hostile("data is damaged"):
        member = one()
        member.pack()
        member.packed = scrambled(member.packed, rng)
    if draw.hostile("data is longer"):
        member = one()
        member.pack()
        member.packed += rng.choice([b"\0", member.packed, b"x" * 1000])
    if draw.hostile("bomb"):
        member = one()
        size = rng.choice([1 << 20, 1_100_000, 20_000_000])
        member.data, member.method = bytes(size), DEFLATED
        if draw.chance(0.5):
            member.size = rng.choice([1000, size - 1, 1 << 20])
    if draw.hostile("link"):
        one().attributes = 0xA1FF0000
    if draw.hostile("member is missing"):
        members = [member for member in members if member is not members[rng.randrange(len(members))]]
    if draw.hostile("members of other formats"):
        names = [
            b"config.json",
            b"metadata.json",
            b"model.weights.h5",
            b"fastgru.npy",
            b"x/data.pkl",
            b"x/model.json",
        ]
        members.append(
            Member(rng.choice(names), rng.choice([b"", b"{}", b"[]", b"\x89HDF\r\n\x1a\n", npy(np.zeros(3))]))
        )
    if draw.hostile("many members"):
        prefix = b"archive/" if of_torch else b""
        count = rng.choice([100, 3_000])
        members = [*members, *(Member(b"%s%d" % (prefix, i), b"") for i in range(count))]
    if draw.hostile("name twice") and members:
        members.insert(rng.randrange(len(members) + 1), Member(one().name, rng.choice([b"", one().data])))
    if (
        draw.hostile("overlap") and len(members) > 1
    ):  # two entries for one place, or a place in another's data
        at = rng.randrange(len(members) - 1)
        before = sum(
            len(local_header(m.fields(), m.wide)) + len(m.packed) + len(m.gap) for m in packed(members[:at])
        )
        members[at + 1].place = before + rng.choice([0, 1, 40])
    if draw.hostile("local place lies") and members:
        one().place = abs(edge(rng))
    return members


def packed(members):
    for member in members:
        member.pack()
    return members


def prefix_of(draw):
    if not draw.hostile("prefix"):
        return b""
    return draw.rng.choice(
        [b"x", b"MZ" + bytes(510), b"\x89HDF\r\n\x1a\n", bytes(512), b"\x80\2", b"PK\3\4" + bytes(26)]
    )


def end_of(draw, members):
    """How the archive ends."""
    rng = draw.rng
    comment = rng.choice([b"", b"", b"", b"a comment", b"x" * 0xFFFF])
    wide = draw.chance(0.15)
    lies = {}
    if draw.hostile("count lies"):
        lies["count"] = rng.choice([0, 1, len(members) + 1, len(members) - 1, 0xFFFF])
    if draw.hostile("place lies"):
        lies["place"] = rng.choice([-1, 1, -46, "edge"])
    if draw.hostile("size lies"):
        lies["size"] = rng.choice([-1, 1, -46, "edge"])
    disks = (rng.choice([0, 1, 0xFFFF]), rng.choice([0, 1, 0xFFFF])) if draw.hostile("disks") else (0, 0)
    lying, astray = draw.hostile("zip64 lies"), draw.hostile("locator lies")
    needless = draw.hostile("zip64 without need")

    def end(place, entries, count):
        size = len(entries)
        said = lies.get("count", count)
        shift, grow = lies.get("place", 0), lies.get("size", 0)
        place_said = abs(edge(rng)) if shift == "edge" else place + shift
        size_said = abs(edge(rng)) if grow == "edge" else size + grow
        middle = b""
        if wide or lying or astray or needless:
            numbers = [said, said, size_said, place_said]
            if lying:
                numbers[rng.randrange(4)] = abs(edge(rng))
            where = place + size + (rng.choice([1, -1, 1000, -place - size]) if astray else 0)
            head = 44, 45, 45, 0, 0
            if lying and rng.random() < 0.3:
                head = rng.choice([(0, 45, 45, 0, 0), (44, 45, 45, 1, 0), (1 << 40, 45, 45, 0, 0)])
            mask = (1 << 64) - 1
            middle = struct.pack("<4sQ2H2L4Q", b"PK\6\6", *head, *(number & mask for number in numbers))
            middle += struct.pack(
                "<4sLQL", b"PK\6\7", 0, max(where, 0), rng.choice([1, 1, 0, 2]) if astray else 1
            )
            if not needless:
                said, size_said, place_said = 0xFFFF, WIDE, WIDE
        numbers = *disks, said & 0xFFFF, said & 0xFFFF, size_said & WIDE, place_said & WIDE
        last = struct.pack("<4s4H2LH", b"PK\5\6", *numbers, len(comment)) + comment
        if draw.hostile("comment has an end record"):
            inner = end_record(place, entries, count)
            if rng.random() < 0.5:  # an archive in the comment, whose end is also the end of the whole
                inner = written([Member(b"x", b"")])
            last = struct.pack("<4s4H2LH", b"PK\5\6", *numbers, len(inner)) + inner
        return middle + last

    return end
