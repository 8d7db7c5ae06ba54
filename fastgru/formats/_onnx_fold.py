"""What nodes make of constants, computed by the reference operators that `onnx` comes with.

Only what a GRU needs is computed, each node once, and only after the size of its result is known. What
depends on the sizes of inputs, but not on their values, is computed for sizes that are made up.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgru._errors import FormatError
from fastgru.formats import _onnx_graph, _onnx_shape, _onnx_size
from fastgru.formats._onnx_graph import Alias, Given, Inside, Output, said
from fastgru.formats._onnx_tensor import Reader

Array = NDArray[Any]

NODE = 1200  # bytes that a node and its result take in CPython besides values (measured, 2026-11-30)
LAYER = 8192  # bytes of half a layer, besides its weights
VECTOR = 16  # units that a packed layer has room for at least, with AVX2
FIRST = {"ConstantOfShape": 9, "Where": 9}  # opsets of operators that PyTorch wrote for older ones
SINCE = {"DequantizeLinear": 19}  # reference operators that older opsets lack, which have part of them
MOST = 4096  # the largest declared size that is tried
RANK = 8  # of values of which nothing is known: as many sizes are made up


class Kind(enum.Enum):
    """What a value depends on that is not a constant."""

    CALL = "the values of an input"
    SIZES = "the sizes of an input"


class Unknown(NamedTuple):
    """A value that cannot be determined, and why."""

    reason: str


class Sizes:
    """Sizes that are made up for those axes of inputs whose sizes the file leaves open.

    Parameters
    ----------
    size : int
        That of every axis, or of the first one.
    apart : bool
        True: every axis that has a name, or belongs to an input, has a size of its own.
    """

    def __init__(self, size: int, apart: bool = False) -> None:
        self.size = size
        self._apart = apart
        self._known: dict[Any, int] = {}

    def of(self, axis: Any) -> int:
        """That of an axis, which is a name or a pair of an input's name and a number."""
        if not self._apart:
            return self.size
        return self._known.setdefault(axis, self.size + 1 + 2 * len(self._known))


Result = Any  # an array, Kind or Unknown


class Folder:
    """Computes values of a model's graphs.

    Parameters
    ----------
    reader : Reader
        Of tensors; it has the limit of all that they and results may take.
    assumed : sequence of (Output, tuple of ndarray), optional
        Nodes, with what they are taken to return.

    Attributes
    ----------
    batches : tuple of Sizes
        Of inputs of two sizes, every axis as long as the others.
    apart : tuple of Sizes
        Of inputs whose axes differ.
    """

    def __init__(self, reader: Reader, assumed: Sequence[tuple[Output, tuple[Array, ...]]] = ()) -> None:
        self._reader = reader
        # results by value, or by node, and sizes
        self._memo: dict[Any, Any] = {(self._key(each), None): arrays for each, arrays in assumed}
        self._read: set[int] = set()  # constants that a GRU has
        self._noted: dict[Any, Callable[[Sizes], list[int]]] = {}  # shapes by value
        self._work = _onnx_size.WORK
        self._operators: dict[Any, Any] = {}
        self._types: dict[tuple[str, int], dict[str, int]] = {}  # of attributes, by operator and opset
        self.batches = Sizes(2), Sizes(3)
        self.apart = Sizes(2, apart=True), Sizes(11, apart=True)

    def assuming(self, value: Output, arrays: tuple[Array, ...]) -> Folder:
        """A Folder with the same limit that takes these arrays as the results of a value's node."""
        return Folder(self._reader, [(value, arrays)])

    def note(self, value: Any, shape: Callable[[Sizes], list[int]]) -> None:
        """Let a function of the sizes that are made up return the shape of a value."""
        self._noted[self._key(value), getattr(value, "number", 0)] = shape

    def spend(self, size: int) -> None:
        """Count bytes that are going to be taken; FormatError if there are no more."""
        self._reader.spend(size)

    def constant(self, what: str, value: Any) -> Array:
        """The array of a value that must be a constant.

        Raises
        ------
        FormatError
            If it depends on an input, cannot be determined, or takes more memory than the file allows.
        """
        if isinstance(value, Alias):
            value = _onnx_graph.find(value.scope, value.name)
        if value is not None and not isinstance(value, Output | Given):  # a tensor, which need not be kept
            read: Array = self._reader.array(what, value)
            if id(value) in self._read:
                self._reader.spend(_taken_again(read) - read.nbytes)
            self._read.add(id(value))
            return read
        found = self.value(value)
        if isinstance(found, Kind):
            raise FormatError(f"{what} must be a constant of the file, but depends on {found.value}")
        if isinstance(found, Unknown):
            raise FormatError(f"{what} must be a constant of the file, but {found.reason}")
        self.share(found)
        array: Array = found
        return array

    def share(self, array: Array) -> None:
        """Count an array again if it is read again: every GRU is a layer with a copy of its own."""
        if id(array) in self._read:
            self._reader.spend(_taken_again(array))
        self._read.add(id(array))

    def value(self, value: Any, sizes: Sizes | None = None) -> Result:
        """What a value is: an array, or why it is none.

        Parameters
        ----------
        value : onnx.TensorProto, Output, Given, Alias or None
        sizes : Sizes, optional
            Without them what depends on the sizes of inputs is `Kind.SIZES`.
        """
        pending = [value]
        begun: set[Any] = set()
        while pending:  # a stack of our own: graphs may be deeper than Python's
            top = pending[-1]
            key = self._key(top)
            if self._known(key, sizes) is not None:
                pending.pop()
                continue
            missing = [
                source for source in self._needs(top, sizes) if self._known(self._key(source), sizes) is None
            ]
            if missing:
                if key in begun:
                    raise FormatError("a value depends on itself")
                begun.add(key)
                pending += missing
                continue
            self._reader.spend(NODE)
            self._memo[key, sizes] = self._computed(top, sizes)
            pending.pop()
        return self._got(value, sizes)

    @staticmethod
    def _key(value: Any) -> Any:
        if isinstance(value, Output):  # all outputs of a node come at once
            return id(value.node), id(value.inside)
        if isinstance(value, Alias):
            return value.name, id(value.scope)
        return None if value is None else id(value)  # scopes hold what has this identity

    def _known(self, key: Any, sizes: Sizes | None) -> Any:
        """What has been computed, for these sizes or for any; None if nothing has."""
        found = self._memo.get((key, None))
        if sizes is None or (found is not None and found is not Kind.SIZES):
            return found
        return self._memo.get((key, sizes))

    def _got(self, value: Any, sizes: Sizes | None) -> Result:
        found = self._known(self._key(value), sizes)
        if isinstance(value, Output) and isinstance(found, tuple) and not isinstance(found, Unknown):
            if value.number >= len(found):
                return Unknown(f"{said(value.node)} has no output {value.number}")
            return found[value.number]
        return found

    def _needs(self, value: Any, sizes: Sizes | None) -> list[Any]:
        """The values that one is computed from."""
        if isinstance(value, Alias):
            return [value.scope.get(value.name)]
        if not isinstance(value, Output):
            return []
        scope = value.inside.scope
        if sizes is not None and self._is_shape(value):  # of what depends on sizes alone, or else made up
            source = scope.get(value.node.input[0]) if value.node.input else None
            return [source] if self._got(source, None) is Kind.SIZES else []
        names = [name for name in value.node.input if name]
        for attribute in value.node.attribute:
            if attribute.HasField("g"):
                names += _captured(attribute.g)
        return [scope.get(name) for name in names]

    @staticmethod
    def _is_shape(value: Output) -> bool:
        return value.node.op_type in ("Shape", "Size") and value.node.domain in _onnx_graph.STANDARD

    def _computed(self, value: Any, sizes: Sizes | None) -> Any:
        """The result of a value, or the results of a node, of which all inputs are known."""
        if isinstance(value, Alias):
            return self._got(value.scope.get(value.name), sizes)
        if value is None:
            return Unknown("a value that is read is nowhere in the file")
        if isinstance(value, Given):
            return Kind.CALL
        if not isinstance(value, Output):
            return self._reader.array(f"the tensor {value.name!r:.80}", value)
        node = value.node
        if node.op_type == "Constant" and node.domain in _onnx_graph.STANDARD:
            return self._constant(value)
        if self._is_shape(value):
            found = self._shape_of(value, sizes)
            if found is not None:
                return found
        inputs = [self._got(source, sizes) for source in self._needs(value, None)]
        if Kind.CALL in [found for found in inputs if isinstance(found, Kind)]:
            return Kind.CALL
        unknown = next((found for found in inputs if isinstance(found, Unknown)), None)
        if unknown is not None:
            return unknown
        if Kind.SIZES in [found for found in inputs if isinstance(found, Kind)]:
            return Kind.SIZES
        scope = value.inside.scope
        arrays = [self._got(scope.get(name), sizes) if name else None for name in node.input]
        try:
            return self._run(value, arrays)
        except (FormatError, MemoryError, OSError):
            raise
        except Exception as error:  # whatever an operator says of its inputs
            return Unknown(f"{said(node)} cannot be computed: {type(error).__name__}: {error!s:.200}")

    # ---- operators -------------------------------------------------------------------------

    def _constant(self, value: Output) -> Any:
        """What a Constant node returns."""
        what = said(value.node)
        for attribute in _onnx_graph.attributes(value.node, value.inside.attributes):
            match attribute.name:
                case "value":
                    return (self._reader.array(what, attribute.t),)
                case "value_float":
                    return (np.array(attribute.f, np.float32),)
                case "value_int":
                    return (np.array(attribute.i, np.int64),)
                case "value_floats":
                    self._reader.spend(4 * len(attribute.floats))
                    return (np.array(attribute.floats, np.float32),)
                case "value_ints":
                    self._reader.spend(8 * len(attribute.ints))
                    return (np.array(attribute.ints, np.int64),)
        return Unknown(f"{what} has no numbers")

    def _shape_of(self, value: Output, sizes: Sizes | None) -> Any:
        """What Shape and Size return of what is no constant; None if it is one."""
        node = value.node
        source = value.inside.scope.get(node.input[0]) if node.input else None
        found = self._got(source, sizes)
        if isinstance(found, np.ndarray):
            return None
        if sizes is None:
            return Kind.SIZES
        shape = self.shape(source, sizes)
        if node.op_type == "Size":
            return (
                Unknown("the number of an input's values") if shape is None else (np.array(math.prod(shape)),)
            )
        given = {a.name: a.i for a in _onnx_graph.attributes(node, value.inside.attributes)}
        whole = np.array([sizes.size] * RANK if shape is None else shape, np.int64)
        return (whole[slice(given.get("start"), given.get("end"))],)

    def declared(self, inside: Inside) -> list[Sizes]:
        """Sizes as the file itself has them for inputs of its graph."""
        found = {
            axis.dim_value
            for value in inside.scope.maps[-1].values()
            if isinstance(value, Given)
            for axis in value.value.type.tensor_type.shape.dim
        }
        return [Sizes(size) for size in sorted(found) if 0 < size < MOST][:RANK]

    def shape(self, value: Any, sizes: Sizes) -> list[int] | None:
        """The shape of a value by what the file says of it, or of what it is computed from; None: unknown.

        Parameters
        ----------
        value : Output, Given, Alias or None
        sizes : Sizes
            Those of axes that the file leaves open.
        """
        if isinstance(value, Alias):
            value = _onnx_graph.find(value.scope, value.name)
        noted = self._noted.get((self._key(value), getattr(value, "number", 0)))
        if noted is not None:
            return noted(sizes)
        return _onnx_shape.of(value, sizes.of, lambda source: self.value(source))

    def _run(self, value: Output, arrays: Sequence[Array | None]) -> Any:
        """The results of a node that has constants as inputs."""
        node, inside = value.node, value.inside
        kind = node.op_type
        if kind == "ConstantFill" and node.domain in _onnx_graph.STANDARD:
            return self._filled(value, arrays)
        if node.domain not in _onnx_graph.STANDARD or kind not in _onnx_size.OPERATORS:
            return Unknown(f"{said(node)} is no operator that is computed when a file is read")
        if kind == "Identity" or (kind == "Dropout" and len(arrays) < 3 and len(node.output) == 1):
            return (arrays[0],)  # without a third input Dropout is for training alone
        given = self.attributes(node, inside)
        opset = max(inside.opset, FIRST.get(kind, 0))
        if any(array is not None and array.dtype.kind not in "biufV" for array in arrays):
            return Unknown(f"{said(node)} has inputs that are no numbers")
        size, work = _onnx_size.of(kind, arrays, given)
        self._reader.spend(size)
        self._work -= work
        if self._work < 0:
            raise FormatError("its constants take more multiplications than a file may")
        operator = self._operator(kind, opset, node, given)
        with np.errstate(all="ignore"):
            results: tuple[Array, ...] = operator.run(*arrays)
        self._reader.spend(max(0, _onnx_size.owned(results, arrays) - size))
        return results

    def attributes(self, node: Any, inside: Inside) -> dict[str, Any]:
        """The attributes of a node by name.

        Raises
        ------
        FormatError
            If the opset does not have the operator, or the operator not the attribute.
        """
        from onnx import defs

        kind = node.op_type
        opset = max(inside.opset, FIRST.get(kind, 0))
        if (kind, opset) not in self._types:
            if not defs.has(kind, max_inclusive_version=opset, domain=""):
                raise FormatError(f"{said(node)} is no operator of the opset {opset}")
            schema = defs.get_schema(kind, opset, "").attributes
            self._types[kind, opset] = {name: int(each.type.value) for name, each in schema.items()}
        types = self._types[kind, opset]
        given: dict[str, Any] = {}
        for attribute in _onnx_graph.attributes(node, inside.attributes):
            if attribute.type != types.get(attribute.name) or attribute.name in given:
                raise FormatError(
                    f"{said(node)} has the attribute {attribute.name!r:.40} twice or of a wrong type, or it "
                    f"is none of {kind}"
                )
            given[attribute.name] = attribute
        return given

    def _filled(self, value: Output, arrays: Sequence[Array | None]) -> Any:
        """What ConstantFill returns, as PyTorch wrote it for opset 8 though no opset has it."""
        given = {a.name: a for a in _onnx_graph.attributes(value.node, value.inside.attributes)}
        if "input_as_shape" not in given or not given["input_as_shape"].i or arrays[0] is None:
            return Unknown(f"{said(value.node)} is read only with a shape as its input")
        size, _ = _onnx_size.of("ConstantOfShape", arrays, {})
        self._reader.spend(size)
        number = given["value"].f if "value" in given else 0.0
        return (np.full([int(each) for each in arrays[0]], number, np.float32),)

    def _operator(self, kind: str, opset: int, node: Any, given: dict[str, Any]) -> Any:
        """The reference operator that a node is, made once for all that are alike."""
        from onnx import NodeProto
        from onnx.reference.ops._op_list import load_op

        key = kind, opset, len(node.output), *(each.SerializeToString() for each in given.values())
        if key not in self._operators:
            plain = NodeProto(op_type=kind, input=[*node.input], output=[*node.output])
            for attribute in given.values():
                if attribute.HasField("t"):
                    _check_number(attribute.t)
            plain.attribute.extend(given.values())
            parameters = {"log": lambda *_: None, "opsets": {"": opset}, "verbose": 0, "new_ops": None}
            implemented = max(opset, SINCE.get(kind, 0))
            self._operators[key] = load_op("", kind, implemented)(plain, parameters)
        return self._operators[key]


def _taken_again(array: Array) -> int:
    """Bytes that one more layer with the same weights takes."""
    return taken(array.shape[1] // 3 if array.ndim == 3 else VECTOR, array.nbytes)


def taken(units: int, size: int) -> int:
    """Bytes that a layer takes for weights of a size, whose few units are padded to vectors."""
    return LAYER + size * max(1, VECTOR // max(1, units))


def _check_number(tensor: Any) -> None:
    """Refuse a tensor in an attribute that is more than a number, or lies in another file."""
    if tensor.data_location or [*tensor.dims] not in ([], [1]):
        raise FormatError(f"a tensor in a node must be one number, got one of shape {[*tensor.dims]!s:.80}")


def _captured(graph: Any, depth: int = 0) -> list[str]:
    """The names that the nodes of a graph, and of those in it, read from outside of it, and maybe others."""
    if depth > _onnx_graph.DEPTH:
        raise FormatError(f"graphs are nested deeper than {_onnx_graph.DEPTH}")
    own = {name for node in graph.node for name in node.output}
    own |= {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    read = [name for node in graph.node for name in node.input] + [value.name for value in graph.output]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                read += _captured(attribute.g, depth + 1)
    return [name for name in dict.fromkeys(read) if name and name not in own]
