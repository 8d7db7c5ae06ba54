"""Values of PyTorch in pickles: storages, tensors of every kind, and state dicts of GRUs."""

import numpy as np
from formats.hostile.generators.drawing import NAMES, edge, weights, with_strange_number
from formats.hostile.generators.opcodes import Values, mark_and

NAMES_OF_GLOBALS = """
os.system posix.system subprocess.Popen builtins.exec builtins.eval builtins.open builtins.__import__
builtins.getattr builtins.print builtins.bytearray builtins.set codecs.encode _codecs.encode codecs.decode
bytearray __builtin__.object copyreg.__reduce__ copyreg._reconstructor collections.OrderedDict
collections.defaultdict collections.Counter collections.namedtuple collections.deque argparse.Namespace
pathlib.PosixPath io.open importlib.import_module ctypes.CDLL socket.create_connection sys.exit os._exit
os.fork time.sleep pickle.loads _pickle.loads marshal.loads types.FunctionType types.CodeType
operator.attrgetter functools.partial functools.reduce runpy.run_path pty.spawn pdb.run webbrowser.open
shutil.rmtree tempfile.mkdtemp urllib.request.urlopen timeit.timeit numpy.core.multiarray._reconstruct
numpy.ndarray numpy.dtype numpy.load fastgru.load torch.load torch.hub.load torch.jit.load torch.device
torch.Size torch.float32 torch.nn.modules.rnn.GRU torch.FloatStorage torch.storage.TypedStorage torch.Tensor
torch.serialization._get_layout torch.storage._load_from_bytes torch._utils._rebuild_sparse_tensor
torch._utils._rebuild_device_tensor_from_cpu_tensor torch._utils._rebuild_device_tensor_from_numpy
torch._utils._rebuild_meta_tensor_no_storage torch._utils._rebuild_nested_tensor
torch._utils._rebuild_wrapper_subclass torch._utils._rebuild_parameter
torch._utils._rebuild_parameter_with_state torch._utils._rebuild_tensor torch._utils._rebuild_tensor_v2
torch._utils._rebuild_tensor_v3 torch._utils._rebuild_qtensor torch._tensor._rebuild_from_type
torch._tensor._rebuild_from_type_v2 torch.nn.parameter.Parameter torch.jit._pickle.build_tensorlist
torch.jit._pickle.build_intlist torch.jit._pickle.restore_type_tag torch.package.PackageImporter
__torch__.torch.nn.modules.rnn.GRU __main__.Model .. a.b.c.d.e.f \N{PILE OF POO}.x
"""
GLOBALS = NAMES_OF_GLOBALS.split()
CLASSES = {"f4": "FloatStorage", "f8": "DoubleStorage", "f2": "HalfStorage", "bf16": "BFloat16Storage"}
CLASSES |= {"i4": "IntStorage", "i8": "LongStorage", "i1": "QInt8Storage", "u1": "QUInt8Storage"}
WIDTHS = {"f4": 4, "f8": 8, "f2": 2, "bf16": 2, "i4": 4, "i8": 8, "i1": 1, "u1": 1}
TORCH_TYPES = {"f4": "float32", "f8": "float64", "f2": "float16", "bf16": "bfloat16"}


class Tensors(Values):
    """Values of PyTorch: storages and tensors, in an archive or a legacy file.

    Attributes
    ----------
    storages : dict of str to tuple
        Type of the elements, their number and bytes, by key.
    """

    def __init__(self, draw, protocol, legacy):
        super().__init__(draw, protocol)
        self.storages = {}
        self._legacy = legacy

    def key(self):
        """A key for one more storage."""
        if self.draw.hostile("key is strange", 0.3):
            return self.rng.choice(NAMES)
        return str(len(self.storages))

    def storage(self, kind, data):
        """Code of a storage with these bytes."""
        draw, rng, key = self.draw, self.rng, self.key()
        count = len(data) // WIDTHS[kind]
        said, size, name = kind, count, f"torch.{CLASSES[kind]}"
        if draw.hostile("key has two claims", 0.3) and self.storages:
            key = rng.choice(list(self.storages))
        if draw.hostile("storage of other type", 0.3):
            said = rng.choice(list(CLASSES))
            name = f"torch.{CLASSES[said]}"
        if draw.hostile("storage of other size", 0.3):
            size = rng.choice([count + 1, count - 1, 2 * count, -count, edge(rng)])
        if draw.hostile("class is none", 0.3):
            storages = [
                "torch.UntypedStorage",
                "torch.storage.UntypedStorage",
                "torch.QUInt4x2Storage",
                "torch.xStorage",
            ]
            name = rng.choice([*GLOBALS, *storages, "x.FloatStorage", "torch.FloatStorag", "torch..Storage"])
        self.storages[key] = said, size, data
        return self.persistent(name, key, size)

    def persistent(self, name, key, count):
        """Code of a persistent id."""
        draw, rng = self.draw, self.rng
        parts = [
            self.text("storage"),
            self.named(name),
            self.text(key),
            self.text("cpu"),
            self.integer(count),
        ]
        if self._legacy:
            parts.append(self.none())
        if draw.hostile("view lies", 0.5):
            view = [self.text(rng.choice([key, "x"])), *(self.integer(edge(rng)) for _ in range(2))]
            forms = [
                self.tuple(*view),
                self.tuple(*view[:2]),
                self.integer(0),
                self.list(*view),
                self.text(""),
            ]
            parts[5:] = [rng.choice(forms)]
        elif self._legacy and draw.chance(0.1):  # a view of all
            parts[5:] = [self.tuple(self.text(f"{key}:view"), self.integer(0), self.integer(max(count, 0)))]
        if draw.hostile("persistent id of other form", 0.5):
            at = rng.randrange(len(parts))
            other = [
                self.none(),
                self.integer(edge(rng)),
                self.text("module"),
                self.boolean(True),
                b")",
                b"]",
            ]
            match rng.randrange(6):
                case 0:
                    return rng.choice([*other, self.text("0"), parts[1]]) + b"Q"
                case 1:
                    del parts[at]
                case 2:
                    parts.append(rng.choice(other))
                case 3:
                    return self.list(*parts) + b"Q"
                case 4:
                    module = [
                        self.text("module"),
                        self.named("os.system"),
                        self.text("x.py"),
                        self.text("import os"),
                    ]
                    return self.tuple(*module) + b"Q"
                case _:
                    parts[at] = rng.choice([*other, self.tuple(*parts)])
        return mark_and(*parts) + b"tQ"

    def tensor(self, array, kind=None):
        """Code of a tensor of these numbers, and perhaps of one more in its storage."""
        draw, rng = self.draw, self.rng
        kind = kind or rng.choice(["f4"] * 6 + ["f8", "f2", "bf16"])
        if draw.hostile("shapes do not fit", 0.3):
            array = rng.choice([array.T, array.ravel(), array[:1], array[..., None], array[:0], array[1:]])
        shape = array.shape
        order = "F" if array.ndim == 2 and draw.chance(0.1) else "C"
        data = elements(array.ravel(order), kind)
        if draw.hostile("numbers are strange", 0.5) and kind in ("f4", "f8", "f2"):
            data = with_strange_number(
                data, rng, {"f4": "<f", "f8": "<d", "f2": "<e"}[kind] if kind != "f2" else "<f"
            )
        before, after = (rng.randrange(3) for _ in range(2)) if draw.chance(0.2) else (0, 0)
        width = WIDTHS[kind]
        storage = self.storage(kind, bytes(before * width) + data + bytes(after * width))
        strides = [number // array.itemsize for number in np.empty(shape, array.dtype, order).strides]
        return self.rebuilt(storage, before, list(shape), strides, kind)

    def rebuilt(self, storage, offset, shape, strides, kind):
        """Code of the call that makes a tensor."""
        draw, rng = self.draw, self.rng
        if draw.hostile("stride lies", 0.5) and strides:
            strides[rng.randrange(len(strides))] = edge(rng)
        if draw.hostile("stride of zero", 0.5) and strides:
            strides[0] = 0
            if draw.chance(0.5):
                shape[0] = rng.choice([3, 300, 1 << 20, 1 << 31, 1 << 62])
        if draw.hostile("offset lies", 0.5):
            offset = edge(rng)
        if draw.hostile("shape lies", 0.5) and shape:
            shape[rng.randrange(len(shape))] = edge(rng)
        if draw.hostile("many axes", 0.5):
            axes = rng.choice([5, 31, 32, 33, 64, 65, 1000])
            shape, strides = [*shape, *[1] * axes], [*strides, *[rng.choice([0, 1])] * axes]
        if draw.hostile("no storage", 0.3):
            storage = rng.choice(
                [self.none(), self.integer(0), self.call("os.system", self.text("true")), b"}", b"]"]
            )
        counts = [
            self.integer(offset),
            *(self.tuple(*map(self.integer, numbers)) for numbers in (shape, strides)),
        ]
        if draw.hostile("no counts", 0.5):
            strange = [
                self.none(),
                self.text("1"),
                self.number(1.0),
                self.boolean(True),
                b")",
                b"]",
                self.tuple(b"N"),
            ]
            counts[rng.randrange(3)] = rng.choice([*strange, self.list(self.integer(3)), self.integer(-1)])
        rest = [self.boolean(False), self.call("collections.OrderedDict")]
        forms = ["v2"] * 6 + ["v1", "parameter", "type", "untyped"]
        form = rng.choice(forms + ["quantized", "channels"] * (kind == "f4"))  # which are read as float32
        if draw.hostile("quantization lies"):
            form = rng.choice(["quantized", "channels"])
        if draw.hostile("tensor is another object", 0.5):
            return self.call(rng.choice(GLOBALS), storage, *counts, *rest[: rng.randrange(3)])
        match form:
            case "v1":
                return self.call("torch._utils._rebuild_tensor", storage, *counts)
            case "parameter":
                tensor = self.call("torch._utils._rebuild_tensor_v2", storage, *counts, *rest)
                name, *more = rng.choice(
                    [["parameter", *rest], ["parameter_with_state", *rest, self.dict([])]]
                )
                return self.call(f"torch._utils._rebuild_{name}", tensor, *more)
            case "type":
                function = self.named("torch._utils._rebuild_tensor_v2")
                inner = self.tuple(storage, *counts, *rest)
                cls = self.named("torch.nn.parameter.Buffer")
                return self.call("torch._tensor._rebuild_from_type_v2", function, cls, inner, self.dict([]))
            case "untyped" if self.storages:
                return self.of_untyped(counts, rest, kind)
            case "quantized" | "channels" if self.storages:
                return self.quantized(form, counts, rest, shape, strides, offset)
        return self.call("torch._utils._rebuild_tensor_v2", storage, *counts, *rest)

    def of_untyped(self, counts, rest, kind):
        """A tensor whose storage is bytes, the last one that has been made."""
        key, (_, _, data) = list(self.storages.items())[-1]
        if kind not in TORCH_TYPES:
            kind = "f4"
        self.storages[key] = "u1", len(data), data
        storage = self.persistent("torch.storage.UntypedStorage", key, len(data))
        return self.call(
            "torch._utils._rebuild_tensor_v3",
            storage,
            *counts,
            *rest,
            self.named(f"torch.{TORCH_TYPES[kind]}"),
        )

    def quantized(self, form, counts, rest, shape, strides, offset):
        """A tensor of bytes with a scale, or with several along an axis, in place of the last storage's."""
        draw, rng = self.draw, self.rng
        key = list(self.storages)[-1]
        reach = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=False)) + 1
        size = reach if 0 < reach < 10_000 else 1
        kind = rng.choice(["i1", "u1"])
        self.storages[key] = kind, size, rng.randbytes(size)
        storage = self.persistent(f"torch.{CLASSES[kind]}", key, size)
        axis = rng.randrange(max(1, len(shape)))
        scales = weights(rng, min(max(shape[axis] if axis < len(shape) else 1, 0), 100))
        zeros = np.zeros(len(scales))
        lies = draw.hostile("quantization lies")
        if form == "quantized":
            scale, zero = self.number(0.01), self.integer(rng.randrange(10))
            scheme = [self.named("torch.per_tensor_affine"), scale, zero]
            strange = [
                self.number(float("nan")),
                self.number(1e308),
                self.integer(1 << 40),
                b"N",
                self.text("x"),
            ]
        else:
            parts = [(scales, "f8"), (zeros, "i8")]
            if lies and draw.chance(0.5):
                parts = [(scales[:-1], "f8"), (zeros, rng.choice(["i8", "f4"]))]
            columns = [
                self.call(
                    "torch._utils._rebuild_tensor_v2",
                    self.storage(own, elements(array, own)),
                    self.integer(0),
                    self.tuple(self.integer(len(array))),
                    self.tuple(self.integer(1)),
                    *rest,
                )
                for array, own in parts
            ]
            scheme = [self.named("torch.per_channel_affine"), *columns, self.integer(axis)]
            strange = [self.integer(edge(rng)), b"N", self.integer(len(shape)), self.number(0.5)]
        if lies and draw.chance(0.7):
            scheme[rng.randrange(len(scheme))] = rng.choice(strange)
        return self.call("torch._utils._rebuild_qtensor", storage, *counts, self.tuple(*scheme), *rest)


def elements(array, kind):
    """Bytes of numbers of a storage's type."""
    if kind == "bf16":
        return (array.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return array.astype(f"<{kind}").tobytes()


def gru_state(draw):
    """Arrays of a GRU by PyTorch's names."""
    rng = draw.rng
    units, features, bias = rng.choice([1, 2, 3]), rng.choice([1, 2]), draw.chance(0.7)
    ways = ["", "_reverse"] if draw.chance(0.3) else [""]
    if draw.chance(0.1):  # a cell
        levels, ways = [""], [""]
    else:
        levels = [f"_l{level}" for level in range(rng.choice([1, 1, 1, 2, 3]))]
    state = {}
    for level in levels:
        for way in ways:
            state[f"weight_ih{level}{way}"] = weights(rng, 3 * units, features)
            state[f"weight_hh{level}{way}"] = weights(rng, 3 * units, units)
            if bias:
                state[f"bias_ih{level}{way}"] = weights(rng, 3 * units)
                state[f"bias_hh{level}{way}"] = weights(rng, 3 * units)
        features = units * len(ways)
    return state
