"""What torch.save and torch.jit.save have written: tensors by name, read without PyTorch.

A zip archive, since PyTorch 1.6, has a pickle and a member for each storage; a legacy file has pickles one
after the other, then the storages. Nothing that a pickle names is imported or called, and code of TorchScript
is not looked at.

Source: serialization.py, _utils.py and csrc/jit/serialization/pickler.cpp of PyTorch 1.0 to 2.13.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru._errors import FormatError
from fastgru.formats import _model, _pickle, _zip
from fastgru.formats._torch_walk import Storage, Tensor, Walk

Array = NDArray[Any]
Read = Callable[["Storage"], bytes]

MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of a legacy file
PROTOCOL = 1001  # the second one
LISTED = 8  # names in a message
SMALL = 10_000  # bytes of what stands before the state dict of a legacy file
SAVE = "torch.save(model.state_dict(), 'model.pt')"

STORAGES = {  # classes of the module torch: the type of an element
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "b1",
    "ComplexFloatStorage": "c8",
    "ComplexDoubleStorage": "c16",
    "QInt8Storage": "i1",
    "QUInt8Storage": "u1",
    "QInt32Storage": "i4",
}
FLOATS = {"float16": "f2", "float32": "f4", "float64": "f8"}  # torch's names


class Saved:
    """What a file holds.

    Attributes
    ----------
    groups : list of Group
    """

    def __init__(self, found: Any, constants: int, big_endian: bool, read: Read, names: _model.Names) -> None:
        walk = Walk(names)
        walk.into(found, (), 0)
        self.groups = list(walk.groups.values())
        self._classes = list(walk.classes)
        self._keys = list(found) if isinstance(found, dict) else []
        self._constants = constants
        self._order, self._read = ">" if big_endian else "<", read
        self._bytes: dict[str, bytes] = {}

    def array(self, tensor: Tensor) -> Array:
        """The elements of a tensor of floats; of a quantized one, and of bfloat16, as float32."""
        array = self._elements(tensor)
        if tensor.scale is not None:  # in float32, as PyTorch computes it
            scale = self._along(tensor, tensor.scale, np.float32)
            zero_point = self._along(tensor, tensor.zero_point, np.int32)
            with np.errstate(over="ignore", invalid="ignore"):
                numbers: Array = (array - zero_point).astype(np.float32) * scale
            return numbers
        if tensor.storage.kind == "bfloat16":
            return _model.of_bfloat16(array)
        return array.astype(array.dtype.newbyteorder("="), copy=False)

    def scales(self, tensor: Tensor) -> Array | None:
        """What a tensor of symmetric bytes has been multiplied by: one number, or one for each row."""
        least = {"i1": -128, "u1": 0}.get(tensor.storage.kind)
        if tensor.scale is None or least is None or (isinstance(tensor.scale, Tensor) and tensor.axis):
            return None
        if np.any(least - self._along(tensor, tensor.zero_point, np.int64) != -128):
            return None
        scales: Array = np.asarray(self._along(tensor, tensor.scale, np.float32)).ravel()
        return scales

    def _along(self, tensor: Tensor, parameter: Any, dtype: Any) -> Any:
        """A scale or zero point of a tensor, shaped to its axis if there are several."""
        with np.errstate(over="ignore"):  # what is infinite then makes weights that are refused
            if not isinstance(parameter, Tensor):
                return dtype(parameter)
            shape = [1] * len(tensor.shape)
            shape[tensor.axis] = -1
            return self._elements(parameter).astype(dtype).reshape(shape)

    def _elements(self, tensor: Tensor) -> Array:
        """A tensor's elements as the file has them: a view of its storage."""
        storage = tensor.storage
        if storage.key not in self._bytes:
            self._bytes[storage.key] = self._read(storage)
        dtype = np.dtype(self._order + ("u2" if storage.kind == "bfloat16" else storage.kind))
        if 0 in tensor.shape:
            return np.empty(tensor.shape, dtype)
        strides = [stride * dtype.itemsize for stride in tensor.strides]
        first = (storage.first + tensor.offset) * dtype.itemsize
        elements: Array = np.ndarray(tensor.shape, dtype, self._bytes[storage.key], first, strides)
        return elements

    def described(self) -> str:
        """What there is, in a few words."""
        found = [f"{sum(len(group.tensors) for group in self.groups)} tensors"]
        if self._constants:
            found.append(f"{self._constants} constants without names, as of a frozen module")
        for what, names in (("the keys", self._keys), ("objects of", self._classes)):
            if names:
                more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
                found.append(f"{what} {', '.join(f'{name:.60}' for name in names[:LISTED])}{more}")
        return "; ".join(found)


# ---- from pickles to objects -----------------------------------------------------------------

# Functions in PyTorch's pickles that make a tensor of storage, offset, shape, strides and more
REBUILD = {f"torch._utils._rebuild_{kind}" for kind in ("tensor", "tensor_v2", "tensor_v3", "qtensor")}
REBUILD_OF_TENSOR = {  # that return their first argument, a tensor
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch.nn.parameter.Parameter",
    "torch.jit._pickle.build_tensorlist",
    "torch.jit._pickle.restore_type_tag",
}
REBUILD_OF_TYPE = {"torch._tensor._rebuild_from_type", "torch._tensor._rebuild_from_type_v2"}
DICTS = {"collections.OrderedDict", "collections.defaultdict", "collections.Counter"}


def _called(name: str, arguments: tuple[Any, ...]) -> Any:
    """The result of a known global of PyTorch or the standard library; a stand-in for any other."""
    if name in REBUILD:
        return _tensor(name, arguments)
    if name in REBUILD_OF_TENSOR and arguments:
        return arguments[0]
    if name in REBUILD_OF_TYPE and len(arguments) >= 3:  # function, class, arguments
        function, _, inner = arguments[:3]
        if isinstance(function, _pickle.Global) and function.name in REBUILD and isinstance(inner, tuple):
            return _tensor(function.name, inner)
    if name in DICTS:
        return _dict(arguments)
    return _pickle.Object(name)


def _dict(arguments: Sequence[Any]) -> dict[str, Any]:
    """An OrderedDict and the like: of nothing, another dict or, as Python 2 has it, a list of pairs."""
    given = arguments[-1] if arguments else ()
    if isinstance(given, dict):
        return given
    pairs: list[Any] = given if isinstance(given, list) else []
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        raise FormatError("the pickle is damaged: a dict of what are no pairs")
    made = {key: value for key, value in pairs if isinstance(key, str)}
    pairs.clear()  # they were for this dict: no pickle makes many of one list
    return made


def _tensor(name: str, arguments: Sequence[Any]) -> Any:
    """The tensor that a call rebuilds, whose elements must all lie in its storage."""
    storage, offset, shape, strides, *more = [*arguments, None, None, None, None]
    if isinstance(storage, _pickle.Object):  # not of torch.save
        return _pickle.Object(name)
    if not isinstance(storage, Storage) or not _are_counts((offset,)):
        raise FormatError("the pickle is damaged: a tensor without a storage")
    if not isinstance(shape, tuple) or not isinstance(strides, tuple) or not _are_counts(shape + strides):
        raise FormatError("the pickle is damaged: a tensor without shape and strides")
    if name.endswith("_v3") and not storage.kind:  # more: requires_grad, hooks, dtype
        kind = more[2].name.removeprefix("torch.") if isinstance(more[2], _pickle.Global) else ""
        storage = Storage(storage.key, kind if kind == "bfloat16" else FLOATS.get(kind, ""), 0, storage.size)
        storage = storage._replace(size=storage.size // storage.itemsize)
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=False))
    reached = 0 if 0 in shape else last + 1
    if len(shape) != len(strides) or len(shape) > _model.AXES or (storage.kind and reached > storage.size):
        raise FormatError(
            f"a tensor of shape {shape!s:.80} and strides {strides!s:.80} from {offset} on is not in its "
            f"storage of {storage.size}"
        )
    tensor = Tensor(storage, offset, shape, strides)
    return _quantized(tensor, more[0]) if name.endswith("qtensor") else tensor


def _are_counts(values: Sequence[Any]) -> bool:
    """True of integers that are not negative."""
    return all(type(value) is int and value >= 0 for value in values)


def _quantized(tensor: Tensor, parameters: Any) -> Tensor:
    """The tensor with its scheme: one scale and zero point, or several along an axis."""
    scheme, *rest = parameters if isinstance(parameters, tuple) and parameters else (None,)
    match getattr(scheme, "name", None), *rest:
        case "torch.per_tensor_affine", float(scale), int(zero_point) if abs(zero_point) < 1 << 31:
            return tensor._replace(scale=scale, zero_point=zero_point)
        case "torch.per_channel_affine", Tensor() as scales, Tensor() as zero_points, int(axis) if axis >= 0:
            kinds = scales.storage.kind in ("f4", "f8"), zero_points.storage.kind in ("i4", "i8")
            if all(kinds) and scales.shape == zero_points.shape == tensor.shape[axis : axis + 1]:
                return tensor._replace(scale=scales, zero_point=zero_points, axis=axis)
    raise FormatError("the pickle is damaged: a quantized tensor without scale and zero point")


class _Storages:
    """The storages that a pickle names, each of one type and size.

    Parameters
    ----------
    legacy : bool
        True if storages may be views of others, and other persistent ids may be classes of modules.
    """

    def __init__(self, legacy: bool) -> None:
        self.found: dict[str, Storage] = {}
        self._legacy = legacy

    def __call__(self, found: Any) -> Any:
        """What a persistent id stands for: "storage", class, key, device, number of elements, view."""
        match found:
            case "storage", _pickle.Global() as cls, str(key), _, int(count), *view if count >= 0:
                _, _, name = cls.name.rpartition(".")
                if cls.name.partition(".")[0] != "torch" or not name.endswith("Storage"):
                    raise FormatError(f"the pickle has a storage of the class {cls.name:.80}")
                storage = Storage(key, STORAGES.get(name, ""), 0, count)
                if self.found.setdefault(key, storage) != storage:
                    raise FormatError(f"the storage {key!r:.80} is of two types or sizes")
                return _viewed(storage, *view) if self._legacy and view else storage
            case "module", _pickle.Global() as cls, *_ if self._legacy:
                return cls
        raise FormatError("the pickle is damaged: what lies outside of it is no storage")


def _viewed(storage: Storage, view: Any) -> Storage:
    """A part of a storage, of which a legacy file says its key, first element and number of elements."""
    if view is None:
        return storage
    match view:
        case _, int(first), int(count) if min(first, count) >= 0 and first + count <= storage.size:
            return storage._replace(first=first, size=count)
    raise FormatError(f"the storage {storage.key!r:.80} is a view outside of another")


# ---- files -----------------------------------------------------------------------------------


def zipped(archive: _zip.Archive) -> Saved:
    """An archive of torch.save or torch.jit.save, which has all its members in one folder.

    Raises
    ------
    FormatError
        If it is damaged, or of PyTorch before 1.4.
    """
    root = archive.names[0].partition("/")[0]
    if not all(name.startswith(f"{root}/") for name in archive.names):
        raise FormatError("the archive has members of several archives")
    limit = _model.size_limit(archive.size)

    def loaded(member: str, folder: str) -> Any:
        storages = _Storages(legacy=False)
        pickle = archive.read(f"{root}/{member}", crc_may_be_zero=True)
        found, _ = _pickle.load(pickle, 0, limit // 2, _called, storages)
        for storage in storages.found.values():
            size = archive.member_size(f"{root}/{folder}/{storage.key}")
            if size != storage.size * storage.itemsize and (storage.kind or size < storage.size):
                raise FormatError(
                    f"the storage {storage.key!r:.80} of {storage.size} numbers has {size} bytes"
                )
        return found

    def read(storage: Storage) -> bytes:
        return archive.read(f"{root}/data/{storage.key}", crc_may_be_zero=True)

    order = f"{root}/byteorder"
    byteorder = archive.read(order, crc_may_be_zero=True) if order in archive else b"little"
    if byteorder not in (b"little", b"big"):
        raise FormatError(f"the byte order must be little or big, got {byteorder!r:.40}")
    if f"{root}/data.pkl" not in archive:
        raise FormatError("TorchScript of PyTorch before 1.4: load it with PyTorch, and save it again")
    constants = loaded("constants.pkl", "constants") if f"{root}/constants.pkl" in archive else ()
    found = loaded("data.pkl", "data")
    unnamed = sum(isinstance(one, Tensor) for one in constants) if isinstance(constants, tuple) else 0
    return Saved(found, unnamed, byteorder == b"big", read, _model.Names(limit))


def legacy(data: bytes) -> Saved:
    """A file of torch.save before PyTorch 1.6, or with _use_new_zipfile_serialization=False.

    Raises
    ------
    FormatError
        If it is damaged, or a pickle that torch.save has not written.
    """
    limit = _model.size_limit(len(data))
    storages = _Storages(legacy=True)
    place = 0
    for wanted in (MAGIC, PROTOCOL, dict):
        found, place = _pickle.load(data, place, SMALL, _called, storages)
        if found != wanted and not (wanted is dict and isinstance(found, dict)):
            raise FormatError(
                "a pickle that torch.save has not written: load it where it comes from, and save the state "
                f"dict by {SAVE}"
            )
    found, place = _pickle.load(data, place, limit // 2, _called, storages)
    keys, place = _pickle.load(data, place, limit // 2, _called, storages)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise FormatError("the storages must have a list of their keys")
    if len(keys) != len(storages.found) or set(keys) != set(storages.found):
        raise FormatError("the list of storages has not those that the tensors lie in")
    places: dict[str, int] = {}
    for key in keys:  # the number of elements, then they, the lowest byte first on every machine
        storage = storages.found[key]
        count = int.from_bytes(data[place : place + 8], "little", signed=True)
        places[key] = place + 8
        place += 8 + storage.size * storage.itemsize
        if count != storage.size or place > len(data):
            raise FormatError(f"the storage {key!r:.80} must have {storage.size} numbers, has {count}")

    def read(storage: Storage) -> bytes:
        whole = storages.found[storage.key]
        return data[places[storage.key] : places[storage.key] + whole.size * whole.itemsize]

    return Saved(found, 0, False, read, _model.Names(limit))
