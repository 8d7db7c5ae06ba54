"""The tensors of a PyTorch file, in dicts, lists and modules at any depth, by the names of a state dict."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from fastgru._errors import FormatError
from fastgru.formats import _model, _pickle, _torch_keys, _torch_packed

AGAIN = 8192  # bytes of half a layer, which a second name of a tensor may cost
DEPTH = 100  # of dicts, lists and modules in each other
MEMBERS = ("_parameters", "_buffers", "_modules")  # attributes of a torch.nn.Module


class Storage(NamedTuple):
    """A storage that a pickle has named.

    Attributes
    ----------
    key : str
        Of its bytes in the file.
    kind : str
        The type of an element: one of NumPy's, "bfloat16", or "" if it is none of them.
    first, size : int
        Its elements among those that the file has by this key.
    """

    key: str
    kind: str
    first: int
    size: int

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return {"bfloat16": 2, "": 1}.get(self.kind) or np.dtype(self.kind).itemsize


class Tensor(NamedTuple):
    """A tensor: a view of a storage.

    Attributes
    ----------
    storage : Storage
    offset : int
        Elements before its first one.
    shape, strides : tuple of int
        Strides in elements.
    scale : float, Tensor or None
        Of a quantized tensor, for all or along an axis.
    zero_point : int, Tensor or None
    axis : int
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    scale: Any = None
    zero_point: Any = None
    axis: int = 0

    @property
    def dtype(self) -> str:
        """The type of its elements in words."""
        kind = self.storage.kind
        name = kind if kind in ("bfloat16", "") else np.dtype(kind).name
        return f"quantized {name}" if self.scale is not None else name or "a type that is no weight"

    @property
    def nbytes(self) -> int:
        """Bytes of an array of all its elements."""
        return math.prod(self.shape) * (self.storage.itemsize if self.scale is None else 4)


class Group(NamedTuple):
    """Tensors that lie in one dict or module.

    Attributes
    ----------
    where : tuple of str
        Keys of the dicts and lists that it lies in.
    tensors : dict of str to Tensor
        By the keys of a state dict.
    batch_first : dict of str to bool
        Of modules by name, where a module was saved whole.
    bidirectional : dict of str to bool
        The same.
    others : dict of str to str
        Classes of objects that are no tensors, by key.
    """

    where: tuple[str, ...]
    tensors: dict[str, Tensor]
    batch_first: dict[str, bool]
    bidirectional: dict[str, bool]
    others: dict[str, str]


class Walk:
    """Finds tensors in dicts, lists and modules."""

    def __init__(self, names: _model.Names) -> None:
        self.groups: dict[tuple[str, ...], Group] = {}
        self.classes: dict[str, None] = {}
        self._names = names
        self._entered: set[int] = set()  # by id
        self._barren: set[int] = set()  # in which there is nothing
        self._met: set[int] = set()  # tensors
        self._found = 0

    def into(self, found: Any, where: tuple[str, ...], depth: int) -> None:
        """Look at what lies in these dicts and lists."""
        if depth > DEPTH:
            raise FormatError(f"its dicts and lists are nested deeper than {DEPTH}")
        if id(found) in self._entered or id(found) in self._barren:  # it lies in itself, or was looked at
            return
        self._entered.add(id(found))
        before = self._found
        if _is_module(found):
            self._in_module(found, where, "", depth)
        elif isinstance(found, dict | list | tuple | _pickle.Object):
            self._in_container(found, where, depth)
        self._entered.discard(id(found))
        if self._found == before:
            self._barren.add(id(found))

    def _in_container(self, found: Any, where: tuple[str, ...], depth: int) -> None:
        if isinstance(found, _pickle.Object):
            self.classes[found.name] = None
            found = found.items
        self._names.spend(len(found))
        for key, value in found.items() if isinstance(found, dict) else enumerate(found):
            if not self._add(value, where, "", str(key)) or isinstance(value, _pickle.Object):
                self.into(value, (*where, str(key)), depth + 1)

    def _in_module(self, module: _pickle.Object, where: tuple[str, ...], prefix: str, depth: int) -> None:
        """Look at a module, whose tensors get the keys of its state dict."""
        if depth > DEPTH:
            raise FormatError(f"its modules are nested deeper than {DEPTH}")
        self._names.spend(len(module.state))
        self.classes[module.name] = None
        for name in ("batch_first", "bidirectional"):
            flag = module.state.get(name)
            if isinstance(flag, bool):
                getattr(self._group(where), name)[prefix.removesuffix(".")] = flag
        for key, value in _members(module.state):
            if not self._add(value, where, prefix, key) and _is_module(value):
                self._in_module(value, where, self._names.join(prefix, key, "."), depth + 1)

    def _add(self, value: Any, where: tuple[str, ...], prefix: str, key: str) -> bool:
        """Note a tensor, or an object in the place of one; return False if there may be others in it."""
        if isinstance(value, Tensor):
            self._found += 1
            if id(value) in self._met:  # by another name, under which it may be a layer's, too
                self._names.spend(AGAIN)
            self._met.add(id(value))
            self._group(where).tensors[self._names.join(prefix, key)] = value
            return True
        packed = _torch_packed.tensors(key, value, _content) if isinstance(value, _pickle.Object) else {}
        for name, tensor in packed.items():
            self._add(tensor, where, prefix, name)
        if packed:
            return True
        if isinstance(value, dict | list | tuple) or _is_module(value):
            self._names.join(*where, prefix, key)
            return False
        if isinstance(value, _pickle.Object) and _torch_keys.place(key):
            self._found += 1
            self._group(where).others[self._names.join(prefix, key)] = value.name
        return True

    def _group(self, where: tuple[str, ...]) -> Group:
        return self.groups.setdefault(where, Group(where, {}, {}, {}, {}))


def _is_module(value: Any) -> bool:
    """True of an object of TorchScript, and of a torch.nn.Module that was pickled whole."""
    if not isinstance(value, _pickle.Object) or not isinstance(value.state, dict):
        return False
    return value.name.startswith("__torch__.") or all(kind in value.state for kind in MEMBERS)


def _members(state: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """What a module has, by name, in the order of its state dict."""
    if "_modules" not in state:
        yield from state.items()
    else:
        for kind in MEMBERS:
            if isinstance(state.get(kind), dict):
                yield from state[kind].items()
        for name in _torch_packed.ATTRIBUTES:
            if isinstance(state.get(name), _pickle.Object):
                yield name, state[name]


def _content(value: Any) -> tuple[str, Any]:
    """The class of an object of TorchScript and its state, which torch.save has in a pair with the class."""
    if not isinstance(value, _pickle.Object):
        return "", None
    match value.name, value.state:
        case "torch.ScriptObject", (state, str(name)):
            return name, state
    return value.name, value.state
