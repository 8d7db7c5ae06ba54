"""Keras 3's own computation of a layer, as a function of the weights too: what is differentiated."""

from collections.abc import Sequence
from typing import Any

import keras


def keras_own(
    call: Any, x: Any, states: Sequence[Any], masks: Sequence[Any], weights: Sequence[Any]
) -> list[Any]:
    """What Keras' own `call` computes: the outputs, and the states if they are wanted.

    Nothing is recorded.

    Parameters
    ----------
    call : Call
    x, states, masks : tensor, list of tensors, list of none or one
    weights : list of tensors
        Values of `call.variables()`; none: as they are.
    """
    layer = call.layer
    values = zip(call.variables(), weights, strict=True) if weights else ()
    recorded = zip(layer.states, states, strict=True) if layer.stateful and states else ()
    with keras.StatelessScope(state_mapping=[*values, *recorded]) as scope:
        found = call.own(
            x, initial_state=list(states) or None, mask=masks[0] if masks else None, training=False
        )
        results = list(found) if isinstance(found, (list, tuple)) else [found]
        if layer.stateful and not layer.return_state:
            results.append(scope.get_current_value(layer.states[0]))
    return results
