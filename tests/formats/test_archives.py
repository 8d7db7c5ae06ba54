"""Zip archives: read as zipfile reads them where they are sound, refused where readers would differ."""

import io
import random
import struct
import zipfile

import pytest

from fastgru.formats import _zip
from fastgru.formats._model import FormatError


class Unseekable(io.RawIOBase):
    """A stream to which zipfile writes sizes behind the members."""

    def __init__(self):
        self.data = bytearray()

    def writable(self):
        return True

    def write(self, data):
        self.data += data
        return len(data)


def some_archive(rng):
    """The bytes of an archive of any kind that zipfile writes."""
    stream = Unseekable() if rng.random() < 0.3 else io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for i in range(rng.randrange(1, 6)):
            info = zipfile.ZipInfo(f"{rng.choice(['a', 'b/c', 'é', 'x' * 300])}{i}")
            info.compress_type = rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
            info.comment = b"?" * rng.choice([0, 0, 7])
            info.extra = rng.choice([b"", struct.pack("<2H4s", 0x4246, 4, b"ZZZZ")])
            content = rng.choice([b"", rng.randbytes(50), b"0" * 5000, b"PK\5\6" * 9])
            with archive.open(info, "w", force_zip64=rng.random() < 0.3) as member:
                member.write(content)
        archive.comment = b"!" * rng.choice([0, 0, 0, 60_000])
    return bytes(stream.data) if isinstance(stream, Unseekable) else stream.getvalue()


def test_sound_archives_are_read_as_zipfile_reads_them():
    for seed in range(300):
        print(f"seed {seed}")
        data = some_archive(random.Random(seed))
        found = _zip.Archive(data)
        with zipfile.ZipFile(io.BytesIO(data)) as wanted:
            assert found.names == wanted.namelist()
            for name in found.names:
                assert found.member_size(name) == wanted.getinfo(name).file_size
                assert found.read(name) == wanted.read(name)


def made(members, packing=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packing) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return bytearray(buffer.getvalue())


MEMBERS = {"first": b"1" * 100, "second": b"2" * 100}
SOUND = made(MEMBERS)
END = SOUND.rindex(b"PK\5\6")
DIRECTORY = SOUND.index(b"PK\1\2")
SECOND = SOUND.rindex(b"PK\1\2")  # of the directory


def changed(place, value, form="<I", of=SOUND):
    """The archive with another number at a place."""
    data = bytearray(of)
    struct.pack_into(form, data, place, value)
    return data


def two_directories():
    """An archive whose end is found by the directory's place, and by what is just before the end."""
    other = made({"first": b"another", "second": b"another"})
    size, start = struct.unpack_from("<2L", other, len(other) - 10)
    record = bytearray(other[-22:])
    record[16:20] = struct.pack("<L", DIRECTORY)
    return SOUND[:END] + other[start : start + size] + record


def wide(**changes):
    """The archive with an end record of zip64, some numbers of which are others."""
    numbers = {"count": 2, "size": END - DIRECTORY, "start": DIRECTORY, "where": END} | changes
    record = struct.pack("<4sQ2H2L", b"PK\6\6", 44, 45, 45, 0, 0)
    record += struct.pack("<4Q", numbers["count"], numbers["count"], numbers["size"], numbers["start"])
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, numbers["where"], 1)
    return SOUND[:END] + record + locator + SOUND[END:]


REFUSED = {
    "empty": (b"", "has no end"),
    "cut off": (SOUND[:-1], "has no end|its end record is not its end"),
    "without a directory": (SOUND[:DIRECTORY], "has no end"),
    "more behind it": (SOUND + b"x", "its end record is not its end"),
    "another end behind it": (SOUND + SOUND[END:], "its directory is not where its end says"),
    "an end in the comment": (
        changed(END + 20, 22, "<H") + SOUND[END:],
        "its directory is not where its end says",
    ),
    "something before it": (b"PK\3\4" + SOUND, "its directory is not where its end says"),
    "two directories": (two_directories(), "its directory is not where its end says"),
    "another disk": (changed(END + 4, 1, "<H"), "its end record is not its end"),
    "fewer here than in all": (changed(END + 8, 1, "<H"), "its end record is not its end"),
    "fewer members": (changed(END + 8, 0x10001), "its directory has more than its members"),
    "more members": (changed(END + 8, 0x30003), "its directory is cut off"),
    "another size": (changed(END + 12, 46), "its directory is not where its end says"),
    "zip64 elsewhere": (wide(where=0), "its end record is elsewhere than it says"),
    "zip64 with another count": (wide(count=1), "its two end records differ"),
    "zip64 with another start": (wide(start=0), "its two end records differ"),
    "no directory there": (changed(DIRECTORY, 0), "its directory is no directory"),
    "another name at the member": (changed(30, ord("F"), "<B"), "'first' is not where the directory says"),
    "another method at the member": (changed(8, 8, "<H"), "'first' is not as the directory says"),
    "another size at the member": (changed(22, 99), "'first' is not as the directory says"),
    "another checksum at the member": (changed(14, 99), "'first' is not as the directory says"),
    "two sizes of one stored": (
        changed(DIRECTORY + 24, 99, of=changed(22, 99)),
        "'first' has two sizes",
    ),
    "beyond the directory": (changed(DIRECTORY + 42, END), "'first' is not in it"),
    "not at a member": (changed(DIRECTORY + 42, 1), "'first' is not where the directory says"),
    "one name twice": (
        made({"first": b"", "secnd": b""}).replace(b"secnd", b"first"),
        "two members of one name",
    ),
    "a zero in a name": (SOUND.replace(b"first", b"fir\0t"), r"the name 'fir\\x00t'"),
    "a name of 60 000": (made({"x" * 60_000: b""}), "the name 'xxx"),
    "a bomb": (made({"x": bytes(10**8)}, zipfile.ZIP_DEFLATED), "unpacks to 100000000"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_an_archive_that_can_be_read_in_two_ways_is_refused(case):
    data, match = REFUSED[case]
    with pytest.raises(FormatError, match=match):
        _zip.Archive(bytes(data))


def test_the_cases_are_changes_of_what_is_sound():
    assert _zip.Archive(bytes(SOUND)).read("first") == MEMBERS["first"]
    assert _zip.Archive(bytes(wide())).read("second") == MEMBERS["second"]


def test_members_that_overlap_are_refused():
    inner = bytes(made({"inner": b"x" * 50}))[: 30 + 5 + 50]  # a member in a member
    data = made({"outer": b"-" + inner, "inner": b"x" * 50})
    second = data.rindex(b"PK\1\2")
    with pytest.raises(FormatError, match="its members overlap"):
        _zip.Archive(bytes(changed(second + 42, data.index(inner), of=data)))


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (made({"x": b"1" * 9}).replace(b"1" * 9, b"2" * 9), "x is damaged: its checksum is another"),
        (made({"x": b"1" * 99}, zipfile.ZIP_BZIP2), "x is packed by method 12"),
        (made({"x": b"1" * 99}, zipfile.ZIP_LZMA), "x is packed by method 14"),
        (changed(6, 1, "<H", changed(DIRECTORY + 8, 1, "<H")), "first is encrypted"),
    ],
)
def test_a_member_that_is_damaged_is_refused(data, match):
    archive = _zip.Archive(bytes(data))
    with pytest.raises(FormatError, match=match):
        archive.read(archive.names[0])


@pytest.mark.parametrize("size", [0, 99, 101, 5000])
def test_a_member_that_unpacks_to_another_size_is_refused(size):
    content = random.Random(0).randbytes(100)
    data = made({"x": content}, zipfile.ZIP_DEFLATED)
    directory = data.index(b"PK\1\2")
    for place in (22, directory + 24):
        struct.pack_into("<I", data, place, size)
    with pytest.raises(FormatError, match=f"x must have {size} bytes, has others"):
        _zip.Archive(bytes(data)).read("x")


def test_no_checksum_is_one_only_where_there_may_be_none():
    data = made({"x": b"content"})
    for place in (14, data.index(b"PK\1\2") + 16):
        struct.pack_into("<I", data, place, 0)
    archive = _zip.Archive(bytes(data))
    assert archive.read("x", crc_may_be_zero=True) == b"content"
    with pytest.raises(FormatError, match="its checksum is another"):
        archive.read("x")
