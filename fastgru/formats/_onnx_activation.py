"""Activations of ONNX' GRU nodes, in and out.

Source: the operator GRU, https://onnx.ai/onnx/operators/onnx__GRU.html
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastgru import activations
from fastgru.formats._model import FormatError

PLAIN = {
    "Relu": activations.relu,
    "Tanh": activations.tanh,
    "Sigmoid": activations.sigmoid,
    "Softsign": activations.softsign,
    "Softplus": activations.softplus,
}
# With alpha and beta, and what these are where a file does not say. None: it must say, for onnxruntime
# takes 0, while the specification has 1 for ThresholdedRelu and nothing for the others.
PARAMETRIC: dict[str, tuple[Any, tuple[float | None, ...]]] = {
    "LeakyRelu": (activations.LeakyReLU, (0.01,)),
    "ThresholdedRelu": (activations.ThresholdedReLU, (None,)),
    "Elu": (activations.ELU, (1.0,)),
    "HardSigmoid": (activations.HardSigmoid, (0.2, 0.5)),
    "Affine": (activations.Affine, (None, None)),
    "ScaledTanh": (activations.ScaledTanh, (None, None)),
}
SPELLED = {name.lower(): name for name in (*PLAIN, *PARAMETRIC)}  # files spell them in any case
HARD_SIGMOIDS = {  # by alpha, where beta is 0.5
    float(np.float32(0.2)): activations.hard_sigmoid,
    float(np.float32(1 / 6)): activations.keras3_hard_sigmoid,
}


def read(names: Sequence[str], alphas: Sequence[float], betas: Sequence[float]) -> list[Any]:
    """The activations of a node in their order, each taking of alphas and betas what it needs."""
    if not np.isfinite([*alphas, *betas]).all():
        raise FormatError(f"activation_alpha and activation_beta must be finite, got {alphas} and {betas}")
    given = iter(alphas), iter(betas)
    made = []
    for name in names:
        spelled = SPELLED.get(name.lower())
        if spelled is None:
            raise FormatError(f"the activation {name!r:.40} is none of {', '.join(SPELLED.values())}")
        if spelled in PLAIN:
            made.append(PLAIN[spelled])
            continue
        kind, defaults = PARAMETRIC[spelled]
        parameters = [next(values, default) for values, default in zip(given, defaults, strict=False)]
        if None in parameters:
            raise FormatError(
                f"the activation {name} must have its parameters, which have no agreed defaults"
            )
        made.append(_named(kind(*parameters)))
    return made


def _named(activation: Any) -> Any:
    """The activation, by name if it is a hard sigmoid of Keras."""
    if isinstance(activation, activations.HardSigmoid) and activation.beta == 0.5:
        return HARD_SIGMOIDS.get(activation.alpha, activation)
    return activation


def written(activation: Any) -> tuple[str, list[float], list[float]]:
    """ONNX' name, alphas and betas of an activation of fastgru."""
    if isinstance(activation, activations.HardSigmoid | activations.Affine | activations.ScaledTanh):
        return type(activation).__name__, [activation.alpha], [activation.beta]
    kernel = activation.kernel if isinstance(activation, activations.Activation) else None
    match kernel:
        case ("relu" | "tanh" | "sigmoid" | "softsign" | "softplus") as name, _:
            return name.capitalize(), [], []
        case "linear", _:
            return "Affine", [1.0], [0.0]
        case "leaky_relu", alpha:
            return "LeakyRelu", [alpha], []
        case "elu", alpha:
            return "Elu", [alpha], []
        case "thresholded_relu", theta:
            return "ThresholdedRelu", [theta], []
        case "hard_sigmoid", _:
            return "HardSigmoid", [0.2], [0.5]
        case "clipped_line", alpha:
            return "HardSigmoid", [alpha], [0.5]
    raise ValueError(f"ONNX' GRU has no activation {activation!r}: one of {', '.join(SPELLED.values())}")
