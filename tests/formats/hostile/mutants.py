"""Changes of real files, by seed: of any bytes, or of one part of a file so that the rest stays sound."""

import io
import random
import struct
import warnings
import zipfile

import numpy as np
from formats.hostile.generators.drawing import EDGES, File, scrambled, with_strange_number
from formats.hostile.generators.json_trees import changed_text


def mutant(original, seed, arguments=None):
    """A changed copy of a file, or of the file of data beside it.

    Parameters
    ----------
    original : Path
    seed : int
    arguments : dict, optional
        Of `fastgru.load_all`.

    Returns
    -------
    File
    """
    rng = random.Random(f"{original.name} {seed}")
    files = {original.name: original.read_bytes()}
    changing = original
    beside = original.with_name("data")
    if beside.exists():
        files["data"] = beside.read_bytes()
        changing = rng.choice([original, original, beside])
    data = files[changing.name]
    change = scrambled if changing.name == "legacy.pt" else CHANGES.get(changing.suffix, scrambled)
    files[changing.name] = change(data, rng) if rng.random() < 0.5 else scrambled(data, rng)
    return File(original.name, files.pop(original.name), files, arguments or {})


# ---- archives --------------------------------------------------------------------------------


def changed_zip(data, rng):
    """A sound archive with a changed member, or with others."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    at = rng.randrange(len(members))
    name, content = members[at]
    match rng.randrange(8):
        case 0:
            members[at] = rng.choice(["../x", "/x", "x" * 300, name + "x", members[0][0]]), content
        case 1:
            del members[at]
        case 2:
            members.append((rng.choice([name, "config.json", "fastgru.npy", "a/data.pkl", "0.npy"]), content))
        case _:
            members[at] = name, changed_member(name, content, rng)
    buffer = io.BytesIO()
    packing = rng.choice([zipfile.ZIP_STORED] * 10 + [zipfile.ZIP_DEFLATED] * 5 + [zipfile.ZIP_BZIP2])
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", packing) as archive:
        warnings.simplefilter("ignore")  # of two members with one name
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def changed_member(name, data, rng):
    """A member of an archive, changed as files of its kind are."""
    if name == "fastgru.npy":
        (length,) = struct.unpack_from("<H", data, 8)
        buffer = io.BytesIO()
        np.save(buffer, np.frombuffer(changed_text(data[10 + length :], rng), np.uint8))
        return buffer.getvalue()
    kinds = {"json": changed_text, "npy": changed_npy, "h5": changed_h5}
    change = kinds.get(name.rpartition(".")[2], scrambled)
    return change(data, rng) if rng.random() < 0.8 else scrambled(data, rng)


def changed_npy(data, rng):
    """An .npy file with another header, or other numbers."""
    (length,) = struct.unpack_from("<H", data, 8)
    header, rest = data[10 : 10 + length], data[10 + length :]
    match rng.randrange(6):
        case 0:
            descr = rng.choice(
                [b"|O", b"<f8", b"<f2", b">f4", b"|V4", b"<U9", b"<c8", b"|u1", b"<f4,<f4", b"x"]
            )
            header = header.replace(b"<f4", descr)
        case 1:
            shapes = [b"(-1,)", b"(1, 2, 3)", b"(9999999999, 9999999999)", b"(0, 99999999999)", b"((4,),)"]
            shapes += [b"()", b"(True,)", b"(" + b"1, " * 70 + b")", b"(1e3,)", b"[4]", b"(" * 300]
            header = header[: header.index(b"(")] + rng.choice(shapes) + b", }"
        case 2:
            header = header.replace(b"False", rng.choice([b"True", b"1", b"None", b"__import__('os')"]))
        case 3:
            header = scrambled(header, rng)
        case 4:
            rest = with_strange_number(rest, rng)
        case 5:
            return scrambled(data, rng)
    return data[:8] + struct.pack("<H", len(header) & 0xFFFF) + header + rest


# ---- the other formats -----------------------------------------------------------------------


def changed_safetensors(data, rng):
    """A file with another header, header's length, or number."""
    (length,) = struct.unpack_from("<Q", data)
    header, rest = data[8 : 8 + length], data[8 + length :]
    if rng.random() < 0.2:
        return data[: 8 + length] + with_strange_number(rest, rng)
    header = changed_text(header, rng)
    length = rng.choice(EDGES) & ((1 << 64) - 1) if rng.random() < 0.1 else len(header)
    return struct.pack("<Q", length) + header + rest


def changed_proto(data, rng):
    """A message of ONNX with fields of other values."""
    import onnx
    from google.protobuf.descriptor import FieldDescriptor as Field

    model = onnx.ModelProto.FromString(data)

    def fields(message):
        for field, value in message.ListFields():
            yield message, field
            if field.type == Field.TYPE_MESSAGE:
                for item in value if hasattr(value, "extend") else [value]:
                    yield from fields(item)

    def another(field, old):
        if field.type == Field.TYPE_MESSAGE:
            return None
        if field.type == Field.TYPE_STRING:
            values = ["", "X", "W", "R", "B", "Y", "h", "GRU", "first"]
            names = ["../data", "/etc/passwd", "data", "9" * 30, "-1", "0", "x" * 1000]
            return rng.choice(values + names)
        if field.type == Field.TYPE_BYTES:
            words = [b"", b"Tanh", b"reverse", b"forward", b"\xff", b"softmax", b"x" * 1000]
            return rng.choice([*words, scrambled(old, rng), with_strange_number(old, rng)])
        if field.type in (Field.TYPE_FLOAT, Field.TYPE_DOUBLE):
            return rng.choice([0.0, -1.0, 1e38, float("nan"), float("inf")])
        if field.type == Field.TYPE_ENUM:
            return rng.choice(field.enum_type.values).number
        return rng.choice([-(2**31), -1, 0, 1, 2, 3, 10, 11, 16, 1000, 2**31 - 1])

    for _ in range(rng.choice([1, 1, 2, 4])):
        message, field = rng.choice(list(fields(model)))
        value = getattr(message, field.name)
        if rng.random() < 0.1:
            message.ClearField(field.name)
        elif hasattr(value, "extend"):
            at = rng.randrange(len(value))
            new = another(field, value[at])
            if new is None or rng.random() < 0.3:
                if rng.random() < 0.5:
                    del value[at]
                else:
                    value.append(value[at])
            else:
                value[at] = new
        elif (new := another(field, value)) is not None:
            setattr(message, field.name, new)
    return model.SerializeToString()


def changed_h5(data, rng):
    """An HDF5 file that the library itself has changed: attributes, shapes, types, links."""
    import h5py

    buffer = io.BytesIO(data)
    with h5py.File(buffer, "r+") as file:
        found = []
        file.visit(found.append)
        datasets = [name for name in found if isinstance(file[name], h5py.Dataset)]
        groups = ["/", *(name for name in found if name not in datasets)]
        name, group = rng.choice(datasets), file[rng.choice(groups)]
        old = file[name][()]
        match rng.randrange(9):
            case 0:
                del file[name]
                shape = rng.choice([old.T.shape, (old.size,), (*old.shape, 1), (), (0, 3), (1000,)])
                file.create_dataset(name, shape, rng.choice(["f2", "f4", "f8", ">f4", "i4", "S4"]))
            case 1:
                del file[name]
            case 2:
                file[name][...] = with_nan(old, rng)
            case 3:
                del file[name]
                links = [h5py.SoftLink("/"), h5py.SoftLink("/x"), h5py.ExternalLink("/etc/passwd", "/")]
                file[name] = rng.choice(links)
            case 4:
                file[f"{group.name}/loop"] = file["/"]
            case 5:
                del file[name]
                shape = rng.choice([(1 << 40,), (1 << 20, 1 << 20), (3, 12)])
                file.create_dataset(name, shape, "f4", chunks=(1,) * len(shape), fillvalue=1)
            case _:
                owners = [g for g in (file[g] for g in groups) if len(g.attrs)]
                owner = rng.choice(owners) if owners else group
                change_attribute(owner, rng)
    return buffer.getvalue()


def change_attribute(owner, rng):
    """Give an attribute of a group another value."""
    key = rng.choice(list(owner.attrs) or ["layer_names"])
    value = owner.attrs.get(key, "")
    if isinstance(value, (str, bytes)) and key == "model_config":
        text = changed_text(value, rng).decode("latin1").replace("\0", "")
        owner.attrs[key] = text[:60_000]
    elif key == "keras_version":
        owner.attrs[key] = rng.choice(["1.2.2", "3.0.0", "", "x", "9" * 100])
    else:
        names = np.ravel(value).tolist()
        weird = [names[::-1], names[1:], names + names, [b"x"], [b"../x"], [b"\xff"]]
        weird = [[str(n).encode() if isinstance(n, str) else n for n in several] for several in weird]
        owner.attrs[key] = rng.choice([*(np.array(several, "S") for several in weird), 7, "x"])


def with_nan(array, rng):
    """An array with a NaN or an infinity in it."""
    changed = array.ravel().copy()
    if changed.size:
        changed[rng.randrange(changed.size)] = rng.choice([np.nan, np.inf])
    return changed.reshape(array.shape)


CHANGES = {
    ".h5": changed_h5,
    ".keras": changed_zip,
    ".npz": changed_zip,
    ".pt": changed_zip,
    ".safetensors": changed_safetensors,
    ".onnx": changed_proto,
}
