"""`fastgru quantize`: a layer or a network with int8 weights, and the errors of its outputs."""

from pathlib import Path
from typing import Any

import numpy as np

import fastgru
from fastgru import _quantize_model
from fastgru.cli import _files, _model, _terminal

MEGABYTES = 256  # of calibration at most: more takes time and makes it no better


def quantize(
    model: Path,
    output: Path,
    layer: str | None,
    calibration: Path | None,
    lengths: Path | None,
    whole: bool,
) -> None:
    """Write the layer or the network, and print the report."""
    if output.suffix != ".npz":
        raise ValueError(f"OUT must end in .npz, got {str(output)!r}")
    if whole and layer is not None:
        raise ValueError(f"--layer must be left out with --whole, got {layer!r}")
    rounded = {} if calibration is None else {"weights_dtype": None}  # int8 weights of the file are kept
    found: Any = fastgru.load_model(model) if whole else _model.read(model, layer, **rounded)
    kernels = _quantize_model.kernels_of(found) if whole else 2 * len(found._parts)
    frames = steps = None
    if calibration is not None:
        frames = _files.array(calibration, str(calibration))
        if frames.nbytes > MEGABYTES << 20:
            raise ValueError(
                f"--calibration must have at most {MEGABYTES} MiB, got {frames.nbytes / 2**20:.0f}: "
                "some hundred timesteps suffice"
            )
        frames = np.asarray(frames)
        steps = None if lengths is None else _files.array(lengths, str(lengths))
    elif lengths is not None:
        raise ValueError("--lengths must be given with --calibration")
    with _terminal.progress(found.name, kernels, "kernels") as advance:
        small, report = fastgru.quantize(
            found, frames, lengths=steps, progress=lambda done, total: advance(1)
        )
    with _files.appearing(output) as file:
        small.save(file)
    print(report)
