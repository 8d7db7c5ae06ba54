"""The node of a GRU or Bidirectional layer, whose states may come from other nodes and go to them."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from fastgru._compile import NO_MASK, ModelGraph
from fastgru._nodes._node import Array, Node, Value
from fastgru.gru import GRU
from fastgru.wrappers import Bidirectional


@dataclasses.dataclass(eq=False, kw_only=True)
class Recurrent(Node):
    """A recurrent layer.

    It reads x, and after x either an initial state for each GRU in the layer or none. It writes the layer's
    output, or both outputs of a Bidirectional with merge_mode=None. If the layer's `return_state` is true, it
    also writes the last states.

    Parameters
    ----------
    layer : GRU or Bidirectional
        Built, not time-major, not stateful.
    in_order : bool
        True: outputs of a GRU that goes backwards are in the order of its input, as in ONNX. False: they are
        in the order in which they are computed, the last timestep first, as in Keras.
    reads_mask : bool
        False: masked timesteps are computed like others.
    """

    layer: Any
    in_order: bool = False
    reads_mask: bool = True

    @property
    def weights(self) -> dict[str, Array]:
        return {f"layer.{number}": array for number, array in enumerate(self.layer.weights)}

    @property
    def label(self) -> str:
        return type(self.layer).__name__

    def add_to(self, graph: ModelGraph, inputs: Sequence[Value]) -> list[Value]:
        layer = self.layer
        x, *initial = inputs
        self.sequence([x])
        if not isinstance(layer, GRU | Bidirectional) or not layer.built:
            raise self.wrong(f"must have a layer that is built, got {layer!r}")
        if layer.time_major:
            raise self.wrong("must be batch-major, got a layer with time_major=True")
        if layer.stateful:
            raise self.wrong("must keep no state, got a layer with stateful=True")
        features = layer._parts[0]._plan.features
        if features != x.width:
            raise self.wrong(f"must read {features} features, got {x.shape}")
        parts = layer._parts
        wanted, got = [(part.units,) for part in parts], [state.shape for state in initial]
        if initial and got != wanted:
            raise self.wrong(f"must start from {wanted}, got {got}")
        if initial:
            self.blocks(graph, "starts from a state that is computed")
        if isinstance(layer, Bidirectional) or layer.go_backwards:
            self.blocks(graph, "reads the sequence from its end")
        last = not layer.return_sequences and not graph.streaming
        clock = None if last else x.clock
        numbers = [state.number for state in initial]
        turned = self.in_order and layer.return_sequences
        read = x.mask if self.reads_mask else NO_MASK
        outputs, states = graph.recurrent(layer, x.number, last, clock, read, numbers, turned)
        mask = NO_MASK if last else self.mask_of(x)
        shape = () if last else (x.timesteps,)
        values = [Value(number, (*shape, width), clock, mask) for number, width in outputs]
        if layer.return_state and graph.streaming and len(parts) == 1:  # every step is the last one so far
            values += values
        elif layer.return_state:
            values += [Value(number, (part.units,), None) for number, part in zip(states, parts, strict=True)]
        return values
