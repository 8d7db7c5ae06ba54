"""GRU nodes of ONNX that are layers on top of each other, with nothing between them that computes."""

import itertools
from collections import Counter
from collections.abc import Sequence

import numpy as np

from fastgru.formats import _model
from fastgru.formats._onnx_fold import Folder
from fastgru.formats._onnx_graph import Output, Walk
from fastgru.formats._onnx_node import DIRECTIONS, Node, reads
from fastgru.formats._onnx_tensor import NO_LIMIT

WAY = 8  # nodes between two layers, at most


def is_stack(nodes: Sequence[Node], walk: Walk, folder: Folder) -> bool:
    """True if each node but the first reads what the one before returns, and nothing else does.

    Parameters
    ----------
    nodes : sequence of Node
        All of a model, in its order.
    walk : Walk
        Its graphs.
    folder : Folder
        Of its constants.
    """
    if len(nodes) < 2 or any(node.inside is not walk.found[0] for node in nodes):
        return False
    readers = Counter(
        name
        for inside in walk.found
        if not inside.root
        for name in reads(inside.graph, besides=("Shape", "Size"))
    )
    try:
        return all(_follows(lower, upper, readers, folder) for lower, upper in itertools.pairwise(nodes))
    except ValueError:  # raised again when the layer is asked for
        return False


def _follows(lower: Node, upper: Node, readers: Counter[str], folder: Folder) -> bool:
    """True if X of a node is Y of another one as Keras has it, (timesteps, batch, directions * units).

    That is tried with two arrays in the place of Y.
    """
    attributes = lower.attributes()
    units, backwards = attributes["hidden_size"], DIRECTIONS.get(attributes["direction"].decode(), [])
    if not units or not lower.proto.output or not _is_way(lower, upper, readers):
        return False
    y = Output(lower.proto, 0, lower.inside)
    for sizes in folder.apart:
        x = folder.shape(lower.source("X"), sizes)
        first, second = (sizes.size, sizes.size + 1) if x is None or len(x) != 3 else x[:2]
        timesteps, batch = (second, first) if attributes["layout"] else (first, second)
        shape = timesteps, len(backwards), batch, units
        folder.spend(_model.check_size("Y", shape, 8, NO_LIMIT))
        array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        states = np.zeros(shape[1:], np.float32)
        if attributes["layout"]:
            array, states = array.transpose(2, 0, 1, 3), states.swapaxes(0, 1)
        wanted = array[::-1] if backwards == [True] else array
        if attributes["layout"]:
            wanted = array[:, ::-1] if backwards == [True] else array
            wanted = wanted.reshape(batch, timesteps, -1)
        else:
            wanted = wanted.swapaxes(1, 2).reshape(timesteps, batch, -1)
        found = folder.assuming(y, (array, states)).value(upper.source("X"))
        if not isinstance(found, np.ndarray) or not np.array_equal(found, wanted):
            return False
    return True


def _is_way(lower: Node, upper: Node, readers: Counter[str]) -> bool:
    """True if few nodes lead from Y of a node to X of another, and nothing else reads what is between."""
    name = upper.inputs()["X"]
    for _ in range(WAY):
        value = upper.inside.scope.get(name) if readers[name] == 1 else None
        if not isinstance(value, Output) or not value.node.input:
            return False
        if value.node is lower.proto:
            return value.number == 0
        name = value.node.input[0]
    return False
