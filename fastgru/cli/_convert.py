"""`fastgru convert`: a layer from one format to another, checked."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

import fastgru
from fastgru.cli import _model
from fastgru.cli._files import Array, appearing

TIMESTEPS = 20
ROUNDING = 8  # units in the last place


def onnx(layer: _model.Layer, path: Path) -> None:
    model = layer.to_onnx()
    path.write_bytes(model.SerializeToString())


def npz(layer: _model.Layer, path: Path) -> None:
    layer.save(path)


def safetensors(layer: _model.Layer, path: Path) -> None:
    from fastgru._writers.safetensors import written

    path.write_bytes(written(layer.to_torch_state_dict()))


WRITERS: dict[str, Callable[[_model.Layer, Path], None]] = {
    ".onnx": onnx,
    ".npz": npz,
    ".safetensors": safetensors,
}


def convert(model: Path, out: Path, layer: str | None) -> None:
    """Write the layer, and keep what was written if it can be read back."""
    if out.suffix not in WRITERS:
        raise ValueError(f"OUT must end in {', '.join(WRITERS)}, got {str(out)!r}")
    everything = _model.RETURNING_ALL | {"weights_dtype": None}  # other formats have full weights alone
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / f"layer{out.suffix}"
        WRITERS[out.suffix](_model.read(model, layer), written)
        read_back = fastgru.load(written, **everything)
        difference, bound = differ(_model.read(model, layer, **everything), read_back)
        if not difference <= bound:
            raise ValueError(f"{out} was not written: read back, its outputs differ by {difference:.3g}")
        with appearing(out) as file:
            file.write(written.read_bytes())
    print(f"{out}: {read_back.count_params():,} parameters; outputs differ by at most {difference:.3g}")


def differ(layer: _model.Layer, other: _model.Layer) -> tuple[float, float]:
    """The largest difference of two layers' outputs on random sequences, and the bound for rounding.

    The bound is small, because both are computed here, from the same numbers if nothing was lost.
    """
    states = (gru.default_state for gru in layer._parts)
    batch = max((len(state) for state in states if state is not None), default=1)
    x = np.random.default_rng(0).normal(size=(batch, TIMESTEPS, _model.features(layer))).astype("float32")
    ours, theirs = _outputs(layer, x), _outputs(other, x)
    bound = ROUNDING * float(np.finfo(layer.dtype).eps) * max(1.0, float(np.abs(ours).max(initial=0)))
    return float(np.abs(ours - theirs).max(initial=0)), bound


def _outputs(layer: _model.Layer, x: Array) -> Array:
    """Of every timestep (batch, timesteps, units), of both directions side by side, in float64."""
    results = layer(x.swapaxes(0, 1) if layer.time_major else x)
    output = np.concatenate(results[: len(layer._dtypes)], axis=-1)
    return (output.swapaxes(0, 1) if layer.time_major else output).astype("float64")
