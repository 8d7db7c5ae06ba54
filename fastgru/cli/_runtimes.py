"""The runtimes that models were made for: each reads its own file and computes the layer of a name.

What a runtime is given and returns is batch-major: inputs (batch, timesteps, features), a mask
(batch, timesteps) or None, states (batch, units) of every direction or None; outputs of all steps in the
order of fastgru's, then the last states.
"""

import importlib
import importlib.util
import json
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgru import formats
from fastgru.cli import _model, _onnxruntime
from fastgru.formats import keras as keras_format

Array = NDArray[Any]
Run = Callable[[Array, Array | None, Sequence[Array] | None], list[Array]]

OWN = {  # by the format of a file
    "hdf5": "keras",
    "keras": "keras",
    "onnx": "onnxruntime",
    "npz": "torch",
    "torch": "torch",
    "safetensors": "torch",
}
TORCH_KEY = re.compile(  # of a weight of torch.nn.GRU or GRUCell, or of what stands for it
    r"(?:(?P<module>(?!parametrizations\.).*?)\.)?(?P<before>(?:parametrizations\.)?)"
    r"(?P<kind>(?:weight|bias)_[ih]h)(?:_l(?P<level>[0-9]+))?"
    r"(?P<suffix>(?:_reverse)?)(?P<behind>(?:_g|_v|_u|_orig|_mask|_raw|\.original[01]?|\.0\._[uv])?)",
    re.S,
)
ROUNDOFF = {"bfloat16": 2**-8, "float16": 2**-11, "float32": 2**-24, "float64": 2**-53}  # half a last place


class Runtime(NamedTuple):
    """A layer in another runtime.

    Attributes
    ----------
    masks : bool
        Does it take any mask, or only one that begins with a row's true steps, at least one? What it returns
        beyond them has no meaning then.
    run : callable
    roundoff : float
        The unit roundoff of what it computes in, if that may be less precise than the layer's dtype.
    """

    masks: bool
    run: Run
    roundoff: float = 0.0


def need(module: str, what: str) -> Any:
    """The module.

    Raises
    ------
    ImportError
        Says what to install.
    """
    if importlib.util.find_spec(module) is None:
        package = {"tf_keras": "tf_keras tensorflow", "keras": "keras tensorflow"}.get(module, module)
        raise ImportError(f"{module} is needed {what}: pip install {package}", name=module)
    return importlib.import_module(module)


def lengths(mask: Array | None, x: Array) -> Array:
    """How many steps of each row take part, (batch,)."""
    return np.full(x.shape[0], x.shape[1]) if mask is None else mask.sum(1)


# ---- onnxruntime -------------------------------------------------------------------------------


def onnx_model(path: Path) -> Any:
    """What a file holds, with the data beside it."""
    need("onnxruntime", "to run ONNX models")
    return need("onnx", "to read ONNX models").load(path)


def onnxruntime(model: Any, name: str | None = None) -> Runtime:
    """The GRU node of a name, by default the only one, with what the model has for it."""
    gru = _onnxruntime.Gru(model, name)
    return Runtime(False, lambda x, mask, states: gru.run(x, lengths(mask, x), states))


# ---- PyTorch -----------------------------------------------------------------------------------


def torch_state(path: Path, kind: str) -> Mapping[str, Any]:
    """The tensors of a file, as PyTorch itself or safetensors reads them."""
    torch = need("torch", "to run PyTorch's models")
    if kind == "safetensors":
        loaded: Mapping[str, Any] = need("safetensors.torch", "to read .safetensors").load_file(path)
        return loaded
    if kind == "npz":
        with np.load(path) as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays}
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                script: Mapping[str, Any] = torch.jit.load(path, map_location="cpu").state_dict()
                return script
    found = dict(_tensors(torch.load(path, map_location="cpu", weights_only=False), ()))
    places = [where for where, key in found if TORCH_KEY.fullmatch(key)] or [()]
    shared = len(os.path.commonprefix(places))  # noqa: RUF071 - of tuples
    return {".".join((*where[shared:], key)): tensor for (where, key), tensor in found.items()}


def _tensors(loaded: Any, where: tuple[str, ...]) -> Iterator[tuple[tuple[tuple[str, ...], str], Any]]:
    """The tensors of a checkpoint by the keys of dicts and lists that they lie in, and their own."""
    torch = need("torch", "to run PyTorch's models")
    if isinstance(loaded, torch.nn.Module):
        loaded = loaded.state_dict()
    items = loaded.items() if isinstance(loaded, Mapping) else enumerate(loaded)
    for key, value in items:
        if isinstance(value, torch.Tensor):
            yield (where, str(key)), value
        elif isinstance(value, Mapping | list | tuple | torch.nn.Module):
            yield from _tensors(value, (*where, str(key)))


def torch_module(state: Mapping[str, Any], name: str | None = None, batch_first: bool = True) -> Any:
    """The torch.nn.GRU of a name, by default the only one, with its tensors of a state dict.

    What PyTorch keeps other tensors for (weight_norm, spectral_norm, prune) is applied again, by PyTorch.
    """
    torch = need("torch", "to run PyTorch's models")
    found: dict[tuple[str, int, str], dict[str, Any]] = {}  # by kind, level and suffix; what stands for it
    for key, value in state.items():
        match = TORCH_KEY.fullmatch(key)
        whole = match["module"] or "gru" if match else ""
        names = [None, whole, f"{whole}.l{match['level']}"] if match else []
        if match and match["behind"] == "_raw":  # WeightDrop may keep it beside the module that it is of
            names.append(f"{whole}.module")
        if match and name in names:
            tensor = torch.as_tensor(value)
            tensor = tensor.dequantize() if tensor.is_quantized else tensor
            low = tensor.dtype in (torch.float16, torch.bfloat16)  # which are computed in float32
            place = match["kind"], int(match["level"] or 0), match["suffix"]  # a cell has no level
            parts = found.setdefault(place, {})
            parts["/" * bool(match["before"]) + match["behind"]] = tensor.float() if low else tensor
    levels = sorted({level for _, level, _ in found})
    shapes = {
        kind: max(found[kind, levels[0], ""].values(), key=lambda part: part.numel()).shape
        for kind in ("weight_ih", "weight_hh")
    }
    module = torch.nn.GRU(
        shapes["weight_ih"][1],
        shapes["weight_hh"][0] // 3,
        len(levels),
        bias=("bias_ih", levels[0], "") in found,
        batch_first=batch_first,
        bidirectional=("weight_ih", levels[0], "_reverse") in found,
        dtype=next(iter(found["weight_ih", levels[0], ""].values())).dtype,
    )
    own = {}
    for (kind, level, suffix), parts in found.items():
        weight = f"{kind}_l{levels.index(level)}{suffix}"
        if "_raw" in parts:  # what WeightDrop drops from
            parts = {"": parts["_raw"]}
        _applied(module, weight, parts)
        for part, tensor in parts.items():
            before, behind = ("parametrizations.", part[1:]) if part[:1] == "/" else ("", part)
            own[f"{before}{weight}{behind}"] = tensor
    module.load_state_dict(own)
    return module.eval()


def _applied(module: Any, weight: str, parts: Mapping[str, Any]) -> None:
    """Have PyTorch change a weight of a module as it was changed where these tensors stand for it."""
    utils = need("torch.nn.utils", "to run PyTorch's models")
    if "_g" in parts:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is a newer one
            utils.weight_norm(
                module, weight, dim=None if parts["_g"].ndim == 0 else int(parts["_g"].shape[0] == 1)
            )
    elif "_mask" in parts:
        need("torch.nn.utils.prune", "to run PyTorch's models").identity(module, weight)
    elif "_u" in parts:
        utils.spectral_norm(module, weight)
    elif "/.original0" in parts:
        dim = None if parts["/.original0"].ndim == 0 else int(parts["/.original0"].shape[0] == 1)
        utils.parametrizations.weight_norm(module, weight, dim=dim)
    elif "/.original" in parts:
        utils.parametrizations.spectral_norm(module, weight)


def torch(module: Any) -> Runtime:
    """A torch.nn.GRU, batch-major."""
    torch = need("torch", "to run PyTorch's models")
    dtype = module.weight_ih_l0.dtype

    def run(x: Array, mask: Array | None, states: Sequence[Array] | None) -> list[Array]:
        rnn = torch.nn.utils.rnn
        h = None if states is None else torch.from_numpy(np.stack(states)).to(dtype)
        with torch.inference_mode():
            packed = rnn.pack_padded_sequence(
                torch.from_numpy(x).to(dtype),
                torch.from_numpy(lengths(mask, x)),
                batch_first=True,
                enforce_sorted=False,
            )
            packed, h_n = module(packed, h)
            y, _ = rnn.pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
        return [y.numpy(), *h_n.numpy()]

    return Runtime(False, run)


# ---- Keras -------------------------------------------------------------------------------------


def keras_model(path: Path, kind: str) -> Any:
    """The model of a file, read by the Keras that wrote it: Keras 3, or `tf_keras` for what was before."""
    if kind == "keras":
        with zipfile.ZipFile(path) as archive:
            version = json.loads(archive.read("metadata.json"))["keras_version"]
    else:
        with need("h5py", "to read .h5").File(path) as file:
            if "model_config" not in file.attrs:
                raise ValueError(
                    f"{path}: it holds weights only, of which Keras makes no model: name --against"
                )
            version = file.attrs.get("keras_version", "1")
    return _keras(3 if keras_format.major(version) >= 3 else 2).models.load_model(path, compile=False)


def _keras(version: int) -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    return need("keras" if version == 3 else "tf_keras", f"to run models of Keras {version}")


def keras(model: Any, name: str) -> Runtime:
    """The recurrent layer of a name in a model, which returns all that it can."""
    layer = _find(model, name)
    config = _returning_all(layer.get_config())
    package = importlib.import_module(type(layer).__module__.partition(".")[0])
    with package.utils.custom_object_scope({type(layer).__name__: type(layer)}):
        made = type(layer).from_config(config)
    weights = layer.get_weights()
    made.build((None, None, weights[0].shape[0]))
    made.set_weights(weights)
    return _keras_runtime(made)


def _find(model: Any, name: str) -> Any:
    """A layer by its name and those of the models around it; of a TimeDistributed what is in it."""
    for layer in model.layers:
        if layer.name == name:
            while type(layer).__name__ != "Bidirectional" and hasattr(layer, "layer"):
                layer = layer.layer
            return layer
        if name.startswith(f"{layer.name}/") and hasattr(layer, "layers"):
            found = _find(layer, name.removeprefix(f"{layer.name}/"))
            if found is not None:
                return found
    return None


def _returning_all(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a layer, or of both directions, that returns all outputs and states."""
    returning_all = _model.RETURNING_ALL | {"unroll": False}
    made = {
        key: returning_all.get(key, value)
        for key, value in config.items()
        if key not in ("batch_input_shape", "batch_shape")
    }
    for key in ("layer", "backward_layer"):
        if isinstance(config.get(key), dict):
            inner = {part: value for part, value in config[key].items() if part != "build_config"}
            made[key] = inner | {"config": _returning_all(inner["config"])}
    return made


def _keras_runtime(layer: Any) -> Runtime:
    tensor = np.asarray
    if type(layer).__module__.startswith("keras."):
        tensor = importlib.import_module("keras").ops.convert_to_tensor
    else:
        tensor = importlib.import_module("tensorflow").constant
    dtype = getattr(layer, "forward_layer", layer).compute_dtype  # a wrapper has one of its own

    def run(x: Array, mask: Array | None, states: Sequence[Array] | None) -> list[Array]:
        steps = getattr(layer, "time_major", False) or getattr(
            getattr(layer, "forward_layer", None), "time_major", False
        )

        def turned(array: Array) -> Array:
            return array.swapaxes(0, 1) if steps and array.ndim > 1 else array

        results = layer(
            tensor(np.ascontiguousarray(turned(x))),
            mask=None if mask is None else tensor(np.ascontiguousarray(turned(mask))),
            initial_state=None if states is None else [tensor(state, dtype=dtype) for state in states],
        )
        arrays = [np.asarray(result) for result in results]
        return [turned(array) if array.ndim == 3 else array for array in arrays]

    return Runtime(True, run, ROUNDOFF[dtype])


# ---- which of them -----------------------------------------------------------------------------


def of_file(path: Path, against: str, kind: str) -> Callable[[str], Runtime]:
    """The layers of a file by name, as its own runtime reads them."""
    if against == "onnxruntime":
        model = onnx_model(path)
        return lambda name: onnxruntime(model, name)
    if against == "torch":
        state = torch_state(path, kind)
        return lambda name: torch(torch_module(state, name))
    model = keras_model(path, kind)
    return lambda name: keras(model, name)


def of_layer(layer: Any, against: str) -> Runtime:
    """A layer as it is exported to a runtime.

    Raises
    ------
    ValueError
        If the runtime has not such a layer.
    """
    if against == "onnxruntime":
        need("onnxruntime", "to run ONNX models")
        return onnxruntime(layer.to_onnx())
    if against == "torch":
        return torch(torch_module(layer.to_torch_state_dict()))
    package = _keras(2 if importlib.util.find_spec("tf_keras") else 3)
    config = layer.to_keras_config(2 if package.__name__ == "tf_keras" else 3)
    made = getattr(package.layers, type(layer).__name__).from_config(config)
    made.build((None, None, _model.features(layer)))
    made.set_weights(layer.get_weights())
    return _keras_runtime(made)


def own(path: Path) -> tuple[str | None, str]:
    """The runtime that a file belongs to, and its format."""
    kind = formats.format_of(path)
    return OWN.get(kind), kind
