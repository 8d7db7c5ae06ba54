"""ONNX' operator GRU: its inputs, the opsets that have it, and the names of its activations.

Source: https://onnx.ai/onnx/operators/onnx__GRU.html
"""

from typing import Any

from fastgru import activations

INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h")
OLDEST = 7  # opset
VERSIONS = (7, 14, 22)  # opsets that changed it

# ---- activations -----------------------------------------------------------------------------

PLAIN = {
    "Relu": activations.relu,
    "Tanh": activations.tanh,
    "Sigmoid": activations.sigmoid,
    "Softsign": activations.softsign,
    "Softplus": activations.softplus,
}
# With the defaults of alpha and beta. None: a file must have it, because onnxruntime takes 0, while the
# specification has 1 for ThresholdedRelu and nothing for the others.
PARAMETRIC: dict[str, tuple[Any, tuple[float | None, ...]]] = {
    "LeakyRelu": (activations.LeakyReLU, (0.01,)),
    "ThresholdedRelu": (activations.ThresholdedReLU, (None,)),
    "Elu": (activations.ELU, (1.0,)),
    "HardSigmoid": (activations.HardSigmoid, (0.2, 0.5)),
    "Affine": (activations.Affine, (None, None)),
    "ScaledTanh": (activations.ScaledTanh, (None, None)),
}
SPELLED = {name.lower(): name for name in (*PLAIN, *PARAMETRIC)}  # files spell them in any case


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


# ---- opsets ----------------------------------------------------------------------------------


def check_opset(version: Any, error: type[ValueError] = ValueError) -> None:
    """Refuse an opset that has no GRU, or one that may compute something else, by an error of this type."""
    from onnx import defs

    newest = defs.onnx_opset_version()
    if not isinstance(version, int) or not OLDEST <= version <= newest:
        raise error(f"opset must be from {OLDEST} to {newest}, got {version}")
    since = defs.get_schema("GRU", version, "").since_version
    if since not in VERSIONS:
        raise error(
            f"opset must have the GRU of one of the opsets {VERSIONS}, got {version} with that of {since}"
        )
