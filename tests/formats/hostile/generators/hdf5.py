"""HDF5 files of weights, by the HDF5 library itself: what it can write and Keras does not.

What is sound, and must load where nothing hostile is beside it: weights as Keras 2 keeps them, by names, and
as Keras 3 does, by objects; of float16, bfloat16, float32 and float64 in both byte orders; contiguous, in
chunks and compressed; files of old and new versions of the format, with a block of a program's own in front.

The hostile productions are in PRODUCTIONS. Each file takes a process of its own to read.
"""

import io

import h5py
import numpy as np
from formats.hostile.generators.drawing import NAMES, Draw, scrambled

PRODUCTIONS = (
    # links
    *("soft link", "external link", "group in itself", "dataset has two names", "committed type"),
    # datasets
    *("virtual", "in other files", "huge shape", "many chunks", "one huge chunk", "zeros that compress"),
    *("no shape", "scalar", "another shape", "another type", "numbers are strange", "dataset is missing"),
    # groups
    *("long name of a group", "many groups", "groups nested deeply", "many datasets"),
    # attributes
    *("many attributes", "large attribute", "long strings", "names are strange", "names of another type"),
    *("names twice", "names are missing", "piece is missing", "attribute of another type"),
    "name is no UTF-8",
    # bytes
    *("scrambled", "cut off", "longer", "block is another format"),
)
NEW = {
    "many attributes",
    "large attribute",
    "long strings",
    "long name of a group",
}  # which old versions lack
ARGUMENTS = {"recurrent_activation": "sigmoid", "reset_after": True}
TYPES = [
    *(
        "i4",
        "S4",
        "?",
        "c8",
        h5py.string_dtype(),
        h5py.vlen_dtype("f4"),
        h5py.ref_dtype,
        h5py.regionref_dtype,
    ),
    *(
        [("a", "f4"), ("b", "f4")],
        [("a", "f4", (3,))],
        h5py.enum_dtype({"A": 1}, "i4"),
        "V4",
        "u8",
        ("f4", (2,)),
    ),
    np.dtype({"names": ["a"], "formats": ["f4"], "itemsize": 1 << 20}),
]


class Writer:
    """Fills a file with weights.

    Parameters
    ----------
    draw : Draw
    file : h5py.File
    """

    def __init__(self, draw, file):
        self.draw, self.rng, self.file = draw, draw.rng, file
        self.kind = draw.rng.choice(["f4"] * 5 + ["f8", "f2", ">f4", "bf16"])

    def dataset(self, group, path, array):
        """A weight, in one of the ways to keep one."""
        draw, rng = self.draw, self.rng
        if draw.hostile("dataset is missing", 0.3):
            return
        if draw.hostile("soft link", 0.3):
            group[path] = h5py.SoftLink(
                rng.choice(["/", "/x", path, f"{group.name}/{path}", "..", "x" * 1000])
            )
            return
        if draw.hostile("external link", 0.3):
            group[path] = h5py.ExternalLink(
                rng.choice(["/etc/passwd", "data", "model.h5", "/dev/zero", "."]), "/x"
            )
            return
        if draw.hostile("group in itself", 0.3):
            group[path] = rng.choice([group, self.file["/"]])
            return
        if draw.hostile("committed type", 0.3):
            group[path] = np.dtype("f4")
            return
        if self.hostile_dataset(group, path, array):
            return
        kind = self.kind
        upper_half = (array.view("<u4") >> 16).astype("<u2").view("V2")
        array = upper_half if kind == "bf16" else array.astype(kind)
        if draw.hostile("another shape", 0.3):
            array = rng.choice([array.T, array.ravel(), array[:1], array[None], array[:0], array[..., None]])
        if draw.hostile("numbers are strange", 0.5) and kind != "bf16" and array.size:
            array.flat[rng.randrange(array.size)] = rng.choice([np.nan, np.inf, -np.inf])
        options = [{}, {}, {"chunks": True}, {"compression": "gzip"}, {"compression": "lzf", "shuffle": True}]
        options += [{"fletcher32": True}, {"chunks": (1,) * array.ndim, "maxshape": (None,) * array.ndim}]
        group.create_dataset(path, data=array, **(rng.choice(options) if array.size and array.ndim else {}))
        if draw.hostile("dataset has two names", 0.5):
            group[f"{path}.again"] = group[path]

    def hostile_dataset(self, group, path, array):
        """A dataset that is not what it seems; return whether there is one."""
        draw, rng = self.draw, self.rng
        shape = array.shape
        if draw.hostile("virtual", 0.5):
            layout = h5py.VirtualLayout(rng.choice([shape, (1 << 30, 1 << 10)]), "f4")
            if draw.chance(0.7):
                source = h5py.VirtualSource(rng.choice(["/etc/passwd", ".", "data"]), "x", shape)
                layout[tuple(slice(0, length) for length in shape)] = source
            group.create_virtual_dataset(path, layout, fillvalue=1)
        elif draw.hostile("in other files", 0.5):
            files = [(rng.choice(["/etc/passwd", "/dev/zero", "data"]), 0, 1 << 30)]
            group.create_dataset(path, shape, "f4", external=files)
        elif draw.hostile("huge shape", 0.5):
            shape = rng.choice([(1 << 40,), (1 << 20, 1 << 20), (3, 1 << 50), (1 << 31, 3)])
            chunks = tuple(min(length, 1000) for length in shape)
            group.create_dataset(path, shape, "f4", chunks=chunks, fillvalue=1)
        elif draw.hostile("many chunks", 0.5):
            group.create_dataset(path, (rng.choice([1000, 300_000]), 1), "f4", chunks=(1, 1), fillvalue=1)
        elif draw.hostile("one huge chunk", 0.5):
            maxshape = (None,) * len(shape)
            chunks = (1 << 14,) * len(shape)
            options = rng.choice([{}, {"compression": "gzip"}, {"fillvalue": 1}])
            made = group.create_dataset(path, shape, "f4", chunks=chunks, maxshape=maxshape, **options)
            if draw.chance(0.3) and len(shape) == 1:
                made[...] = 0
        elif draw.hostile("zeros that compress", 0.5):
            shape = (3000, rng.choice([100, 3000]))
            group.create_dataset(path, data=np.zeros(shape, "f4"), chunks=shape, compression="gzip")
        elif draw.hostile("no shape", 0.5):
            group[path] = h5py.Empty("f4")
        elif draw.hostile("scalar", 0.5):
            group[path] = np.float32(1)
        elif draw.hostile("another type", 0.5):
            kind = rng.choice(TYPES)
            group.create_dataset(path, shape, kind)
        else:
            return False
        return True

    def names(self, owner, key, names):
        """An attribute that lists names, in one of the ways to keep one."""
        draw, rng = self.draw, self.rng
        if draw.hostile("names are strange", 0.5):
            names = [*names, *rng.sample(NAMES[:16], 2)]
        if draw.hostile("names twice", 0.5):
            names = [*names, *names]
        if draw.hostile("names are missing", 0.5):
            names = names[: rng.randrange(len(names))]
        data = [name.replace("\0", "").encode("utf-8", "surrogatepass") for name in names]
        if draw.hostile("name is no UTF-8", 0.5):
            data = [b"\xff\xfe" + name for name in data]
        if draw.hostile("names of another type", 0.5):
            owner.attrs[key] = rng.choice(
                [3, 1.5, "x", np.zeros((2, 2)), np.array([[b"a", b"b"]]), h5py.Empty("S1"), np.zeros(3, "V5")]
            )
            return
        if draw.hostile("long strings", 0.3):
            data = [name.ljust(rng.choice([1000, 6_000]), b"x") for name in data]
        if not data:
            owner.attrs[key] = np.zeros(0, "f8")
        elif draw.chance(0.3):  # each of its own length
            owner.attrs.create(key, data, dtype=h5py.string_dtype())
        elif draw.chance(0.2) and len(data) > 1:  # in pieces
            for number, one in enumerate(data):
                if not draw.hostile("piece is missing", 0.3):
                    owner.attrs[f"{key}{number}"] = np.array([one])
        else:
            owner.attrs[key] = np.array(data)

    def by_names(self):
        """Weights as Keras 2 keeps them."""
        draw, rng = self.draw, self.rng
        names = [rng.choice(["gru", "layer_1", "voice"]), "dense"][: rng.choice([1, 1, 2])]
        if draw.hostile("long name of a group"):
            names[0] = "G" * rng.choice([300, 4000, 60_000])
        self.names(self.file, "layer_names", names)
        for name in names:
            group = self.file.create_group(name)
            bidirectional = draw.chance(0.3)
            ways = (
                [f"{name[:100]}/forward_g/", f"{name[:100]}/backward_g/"]
                if bidirectional
                else [f"{name[:100]}/"]
            )
            paths = []
            for way in ways if name != "dense" else []:
                for end, array in zip(
                    ("kernel:0", "recurrent_kernel:0", "bias:0"), kernels(rng), strict=True
                ):
                    paths.append(f"{way}gru_cell/{end}")
                    self.dataset(group, paths[-1], array)
            if paths:
                self.names(group, "weight_names", paths)
            self.enlarge(group)

    def by_objects(self):
        """Weights as Keras 3 keeps them."""
        draw, rng = self.draw, self.rng
        for number in range(rng.choice([1, 1, 2, 3])):
            path = f"layers/gru_{number}" if number else "layers/gru"
            if draw.hostile("long name of a group"):
                path = "layers/" + "G" * rng.choice([300, 4000, 60_000])
            ways = rng.choice([[""], [""], ["/forward_layer", "/backward_layer"]])
            for way in ways:
                group = self.file.require_group(f"{path}{way}/cell/vars")
                for end, array in zip("012", kernels(rng), strict=True):
                    self.dataset(group, end, array)
            if draw.chance(0.5):
                self.file.require_group(f"{path}/vars").attrs["name"] = f"voice_{number}"
            self.enlarge(self.file)

    def enlarge(self, group):
        """Add much of one thing."""
        draw, rng = self.draw, self.rng
        if draw.hostile_once("many groups"):
            for number in range(rng.choice([100, 1000])):
                group.create_group(f"many{number}")
        if draw.hostile_once("groups nested deeply"):
            group.create_group("/".join(["g"] * rng.choice([20, 40, 300])))
        if draw.hostile_once("many datasets"):
            for number in range(rng.choice([100, 1000])):
                group.create_dataset(f"more{number}", (2, 6), "f4")
        if draw.hostile_once("many attributes"):
            for number in range(rng.choice([100, 2000])):
                group.attrs[f"attribute{number}"] = "x"
        if draw.hostile_once("large attribute"):
            group.attrs["large"] = np.array([b"x" * rng.choice([100, 6_000])] * rng.choice([1, 10]))
        if draw.hostile_once("attribute of another type"):
            kind = rng.choice([kind for kind in TYPES if isinstance(kind, str)])
            group.attrs.create("name", np.zeros((2, 2), kind) if kind != "S4" else np.array(b"x"), dtype=kind)


def kernels(rng):
    """Arrays of a GRU of two units and features."""
    return [np.array([rng.uniform(-1, 1) for _ in range(12)], "f4").reshape(2, 6) for _ in range(3)]


def file(rng):
    """A file of weights."""
    draw = Draw(rng, PRODUCTIONS)
    block = rng.choice([0, 0, 0, 512, 2048])
    buffer = io.BytesIO()
    libver = rng.choice(["earliest", "latest", ("earliest", "v110")])
    if draw.may_take(NEW):
        libver = "latest"
    with h5py.File(buffer, "w", libver=libver, userblock_size=block, track_order=draw.chance(0.2)) as opened:
        writer = Writer(draw, opened)
        rng.choice([writer.by_names, writer.by_objects])()
    data = buffer.getvalue()
    if block and draw.hostile("block is another format"):
        starts = [b"PK\3\4", b"\x80\2}.", b"\x08\x08", b"\x08\0\0\0\0\0\0\0{}", b"\x89HDF\r\n\x1a\n"]
        data = rng.choice(starts).ljust(block, b"\0") + data[block:]
    if draw.hostile("scrambled"):
        data = scrambled(data, rng)
    if draw.hostile("cut off"):
        data = data[: rng.randrange(len(data) + 1)]
    if draw.hostile("longer"):
        data += b"x" * rng.choice([1, 1000])
    return draw.file("model.weights.h5", data, arguments=ARGUMENTS)
