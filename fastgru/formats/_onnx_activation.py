"""Activations of ONNX: those that GRU nodes name, and operators of their own.

Source: the operators, https://onnx.ai/onnx/operators/
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastgru import activations
from fastgru._errors import FormatError
from fastgru._writers._onnx_gru import PARAMETRIC, PLAIN, SPELLED

HARD_SIGMOIDS = {  # by alpha, where beta is 0.5
    float(np.float32(0.2)): activations.hard_sigmoid,
    float(np.float32(1 / 6)): activations.keras3_hard_sigmoid,
}

# Operators besides PLAIN, and their parameters with what these are where a file does not say
OPERATORS: dict[str, tuple[Any, dict[str, float]]] = {
    "LeakyRelu": (activations.LeakyReLU, {"alpha": 0.01}),
    "ThresholdedRelu": (activations.ThresholdedReLU, {"alpha": 1.0}),
    "Elu": (activations.ELU, {"alpha": 1.0}),
    "HardSigmoid": (activations.HardSigmoid, {"alpha": 0.2, "beta": 0.5}),
}
FIXED = {"Exp": activations.exponential, "Mish": activations.mish, "HardSwish": activations.hard_silu}
SELU = {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875}  # by default


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


def of_operator(kind: str, given: Mapping[str, Any]) -> Any:
    """The activation that an operator is with these attributes; None if it is none."""
    plain = PLAIN | FIXED
    if kind in plain:
        return plain[kind]
    if kind == "Selu":
        own = {name: given[name].f if name in given else value for name, value in SELU.items()}
        return activations.selu if own == SELU else None
    if kind == "Softmax":  # of (batch, units)
        return activations.softmax if "axis" not in given or given["axis"].i in (-1, 1) else None
    if kind not in OPERATORS:
        return None
    maker, defaults = OPERATORS[kind]
    numbers = [given[name].f if name in given else value for name, value in defaults.items()]
    if not np.isfinite(numbers).all() or (kind == "ThresholdedRelu" and numbers[0] < 0):
        return None
    made = maker(*numbers)
    known = next(
        (each for each in (activations.elu, activations.leaky_relu) if each.kernel == made.kernel), made
    )
    return _named(known)


def times_itself(functions: Sequence[Any]) -> Any:
    """The activation that x * f(g(x)) is, by the functions f, g and so on; None if it is none."""
    match functions:
        case [activations.sigmoid]:
            return activations.swish
        case [activations.tanh, activations.softplus]:
            return activations.mish
    return None


def of_line(alpha: float, beta: float, low: float | None, high: float | None) -> Any:
    """The activation that is alpha * x + beta, not below `low` and not above `high`; None if it is none."""
    match alpha, beta, low, high:
        case 1.0, 0.0, 0.0, 6.0:
            return activations.relu6
        case 1.0, 0.0, 0.0, None:
            return activations.relu
        case 1.0, 0.0, 0.0, float():
            return activations.ReLU(max_value=high)
        case _, _, 0.0, 1.0:
            return _named(activations.HardSigmoid(alpha, beta))
        case _, _, None, None:
            return activations.linear if (alpha, beta) == (1.0, 0.0) else activations.Affine(alpha, beta)
    return None


def are_same(first: Any, second: Any) -> bool:
    """True of one activation, made twice or not."""
    return type(first) is type(second) and activations.serialize(first) == activations.serialize(second)
