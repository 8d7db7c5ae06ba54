"""Wrappers and recurrent layers of Keras -> nodes. `_keras_nodes` has all other layers."""

from collections.abc import Sequence
from typing import Any

from fastgru import _nodes, activations
from fastgru._keras_config import Config, activation_of, an_object, cells_of, is_recurrent
from fastgru.formats._keras_kinds import At, Refusal, inner_of, is_on, kind
from fastgru.formats._keras_layers import layer_of
from fastgru.formats._keras_nodes import KINDS
from fastgru.stack import Stack

__all__ = ["KINDS"]


def _distributed_refused(config: Config, version: int) -> Refusal:
    class_name, inner = inner_of(config)
    known = KINDS.get(class_name)
    if known is None or not known.each_step:
        return f"of {class_name:.80}"
    why = known.refused(inner, version)
    return f"of {class_name} with {why}" if why else ""


def _distributed_weights(config: Config) -> list[str]:
    class_name, inner = inner_of(config)
    return KINDS[class_name].weights(inner)


@kind("TimeDistributed", weights=_distributed_weights, refusal=_distributed_refused)
def _time_distributed(at: At) -> None:
    """Around the layers that have "yes" in this table."""
    class_name, inner = inner_of(at.config)
    if at.values[0].clock is None or at.values[0].indices:
        raise at.wrong(f"must read (timesteps, features), got {at.values[0].shape}")
    KINDS[class_name].make(
        At(at.builder, at.layer, inner, at.inputs, at.values, at.output, True, at.passes_mask)
    )


def _directions(class_name: str, config: Config) -> list[tuple[str, dict[str, Any]]]:
    """Class and config of each direction or cell of a recurrent layer."""
    cells = cells_of({"class_name": class_name, "config": config})
    if cells is not None:
        return [("GRUCell", an_object("config of a cell", cell.get("config"))) for cell in cells]
    if class_name == "RNN":
        return [inner_of(config, "cell")]
    if class_name != "Bidirectional":
        return [(class_name, dict(config))]
    forward = inner_of(config)
    backward = inner_of(config, "backward_layer") if config.get("backward_layer") is not None else forward
    return [*_directions(*forward), *_directions(*backward)]


def _weights_of(class_name: str, config: Config) -> list[str]:
    return [
        name
        for one, own in _directions(class_name, config)
        for name in (
            "kernel",
            "recurrent_kernel",
            *(["bias"] if one == "CuDNNGRU" or is_on(own, "use_bias") else []),
        )
    ]


def _gru_refused(class_name: str, config: Config, version: int) -> Refusal:
    if not is_recurrent({"class_name": class_name, "config": config}):
        inner = config.get("cell" if class_name == "RNN" else "layer")
        return f"of {inner.get('class_name') if isinstance(inner, dict) else inner!r:.80}"
    wrapped = [config, *(config[key]["config"] for key in ("layer", "backward_layer") if config.get(key))]
    if any(one.get("time_major") for one in wrapped):
        return "time_major=True"
    if cells_of({"class_name": class_name, "config": config}) is not None and config.get("go_backwards"):
        return "several cells with go_backwards=True"
    for one, own in _directions(class_name, config):
        if one == "CuDNNGRU":
            continue
        for key, default in (("activation", "tanh"), ("recurrent_activation", "sigmoid")):
            try:
                function = activations.get(activation_of(own.get(key, default), version))
            except (ValueError, TypeError, KeyError, AttributeError):
                function = None
            if getattr(function, "kernel", None) is None:
                return f"{key}={own.get(key)!r:.40}"
    return ""


def _recurrent_kind(class_name: str) -> None:
    kind(
        class_name,
        weights=lambda config: _weights_of(class_name, config),
        refusal=lambda config, version: _gru_refused(class_name, config, version),
    )(_recurrent)


def _recurrent(at: At) -> None:
    """Every option but `time_major`, with activations that have a kernel. It streams if it goes forward.

    A Bidirectional is around one of the others, an RNN around one GRUCell, or several that go forward.
    """
    layers = at.builder.once(at.layer, lambda: _layers_of(at))
    x, *states = at.inputs
    cells = len(layers)
    if states and cells > 1 and len(states) != cells:
        raise at.wrong(f"must start from {cells} states, got {len(states)}")
    # Keras 3 gives a layer the mask of what it reads only if that is one value
    reads_mask = not states or at.version < 3 or at.is_given_mask
    for number, layer in enumerate(layers):
        is_last = number == cells - 1
        own = states if cells == 1 else states[number : number + 1]
        first = [at.output] if is_last else [at.between(number)]
        if getattr(layer, "merge_mode", "one") is None:
            first.append(f"{at.output}:1")
        after = len(first) if cells == 1 else 1 + number
        count = (2 if at.layer.class_name == "Bidirectional" else 1) if layer.return_state else 0
        last = [f"{at.output}:{after + i}" for i in range(count)]
        at.builder.add(
            _nodes.Recurrent(
                name=at.layer.name,
                inputs=(x, *own),
                outputs=(*first, *last),
                layer=layer,
                passes_mask=at.passes_mask,
                reads_mask=reads_mask,
            )
        )
        x = first[0]


def _layers_of(at: At) -> Sequence[Any]:
    """The layers of fastgru that a recurrent layer is: one, or one for each cell."""
    arrays = at.builder.arrays(at.layer)
    split = []
    for class_name, config in _directions(at.layer.class_name, at.config):
        count = 3 if class_name == "CuDNNGRU" or is_on(config, "use_bias") else 2
        split.append(arrays[:count])
        arrays = arrays[count:]
    config = {**at.config, "name": at.layer.names[-1]}
    given = {"stateful": False, "weights_dtype": at.builder.weights_dtype}
    layer = layer_of(at.layer.class_name, config, at.version, split, given)
    return layer.layers if isinstance(layer, Stack) else (layer,)


for _name in ("GRU", "CuDNNGRU", "RNN", "Bidirectional"):
    _recurrent_kind(_name)
