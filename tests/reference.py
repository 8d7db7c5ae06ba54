"""The equations in float64 NumPy, slow and plain: the specification that fastgru is tested against.

Knows nothing of fastgru. Shapes: x (batch, timesteps, features), kernel (features, 3 * units),
recurrent_kernel (units, 3 * units), bias None, (3 * units,) or (2, 3 * units); columns z | r | h.
"""

import math

import numpy as np


def _softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


def _softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


_erfc = np.vectorize(math.erfc, otypes=[np.float64])

ACTIVATIONS = {
    "linear": lambda x: x,
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "hard_sigmoid": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "keras3_hard_sigmoid": lambda x: np.clip((x + 3) / 6, 0, 1),
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "leaky_relu": lambda x: np.where(x >= 0, x, float(np.float32(0.2)) * x),  # TensorFlow rounds it
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "selu": lambda x: (
        1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0)))
    ),
    "gelu": lambda x: x * _erfc(-x * float(np.float32(math.sqrt(0.5)))) / 2,  # so does it this constant
    "swish": lambda x: x * _sigmoid(x),
    "silu": lambda x: x * _sigmoid(x),
    "mish": lambda x: x * np.tanh(_softplus(x)),
    "softplus": _softplus,
    "softsign": lambda x: x / (1 + np.abs(x)),
    "exponential": np.exp,
    "softmax": _softmax,
    "log_softmax": lambda x: np.log(_softmax(x)),
}


def step(x, h, kernel, recurrent_kernel, bias, f, g, reset_after, input_masks=None, recurrent_masks=None):
    """The state after one timestep; x (batch, features), h (batch, units)."""
    units = h.shape[1]
    if bias is None:
        bias = np.zeros((2, 3 * units))
    elif bias.ndim == 1:
        bias = np.stack([bias, np.zeros_like(bias)])
    z_, r_, h_ = (slice(i * units, (i + 1) * units) for i in range(3))
    xz, xr, xh = (x, x, x) if input_masks is None else (x * m for m in input_masks)
    hz, hr, hh = (h, h, h) if recurrent_masks is None else (h * m for m in recurrent_masks)

    z = f(xz @ kernel[:, z_] + bias[0, z_] + hz @ recurrent_kernel[:, z_] + bias[1, z_])
    r = f(xr @ kernel[:, r_] + bias[0, r_] + hr @ recurrent_kernel[:, r_] + bias[1, r_])
    if reset_after:
        candidate = g(xh @ kernel[:, h_] + bias[0, h_] + r * (hh @ recurrent_kernel[:, h_] + bias[1, h_]))
    else:
        candidate = g(xh @ kernel[:, h_] + bias[0, h_] + (r * hh) @ recurrent_kernel[:, h_])
    return z * h + (1 - z) * candidate


def gru(
    x,
    kernel,
    recurrent_kernel,
    bias=None,
    *,
    activation="tanh",
    recurrent_activation="hard_sigmoid",
    reset_after=False,
    initial_state=None,
    mask=None,
    go_backwards=False,
    zero_output_for_mask=False,
    time_major=False,
    input_masks=None,
    recurrent_masks=None,
):
    """Outputs of all steps in the order of the run, time-major as x, and the last state."""
    f, g = (ACTIVATIONS.get(a, a) for a in (recurrent_activation, activation))
    x = np.asarray(x, np.float64)
    kernel, recurrent_kernel = np.asarray(kernel, np.float64), np.asarray(recurrent_kernel, np.float64)
    bias = None if bias is None else np.asarray(bias, np.float64)
    if time_major:
        x, mask = x.swapaxes(0, 1), None if mask is None else mask.swapaxes(0, 1)
    batch, timesteps, _ = x.shape
    units = recurrent_kernel.shape[0]
    h = np.zeros((batch, units)) if initial_state is None else np.array(initial_state, np.float64)
    output = np.zeros((batch, units))  # before the first valid step: zeros, not the initial state
    outputs = []
    for t in reversed(range(timesteps)) if go_backwards else range(timesteps):
        valid = np.ones(batch, bool) if mask is None else mask[:, t].astype(bool)
        row = np.where(valid[:, None], x[:, t], 0)  # a masked row may hold anything
        following = step(
            row, h, kernel, recurrent_kernel, bias, f, g, reset_after, input_masks, recurrent_masks
        )
        h = np.where(valid[:, None], following, h)
        output = np.where(valid[:, None], following, 0 if zero_output_for_mask else output)
        outputs.append(output)
    return np.stack(outputs, 0 if time_major else 1), h
