"""Weights of PyTorch's modules, packed, and whether they are still those that the module has."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fastgru import _config, _validate
from fastgru._compile import Graph
from fastgru._core import Network
from fastgru._kernels import float16_isas
from fastgru._plans import Plan
from fastgru._tensors import TensorCalls
from fastgru._writers.torch import swapped

Array = NDArray[Any]

TYPES = (torch.Tensor, torch.nn.Parameter)
DTYPES: dict[Any, np.dtype[Any]] = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}


class Unfit(Exception):  # noqa: N818 - no error: PyTorch computes
    """Why weights are PyTorch's to compute with."""


class Direction(NamedTuple):
    """One GRU of a module, which is a node of its network."""

    level: int
    go_backwards: bool
    zero_output_for_mask: bool = False

    @property
    def name(self) -> str:
        """What torch.nn.GRU appends to the names of its weights."""
        return f"l{self.level}{'_reverse' if self.go_backwards else ''}"


class Sizes(NamedTuple):
    """What a module's weights are to be like."""

    features: int
    units: int
    levels: int
    directions: int
    bias: bool


class Packed(TensorCalls):
    """The packed weights of one module, and calls on them; shared by all threads.

    Parameters
    ----------
    weights : mapping of str to Tensor
        In the order of PyTorch's `_flat_weights`.
    sizes : Sizes
    weights_dtype : str or None
        As of `fastgru.GRU`.
    threads : int
        Of a call, at most; 0: those of the process.

    Attributes
    ----------
    dtype : torch.dtype
    features, units, width : int
        Of the input, of a state, and of the output, which is that of all directions.
    alone : list of Network
        Each level and direction by itself, in the order of `h_n`.

    Raises
    ------
    Unfit
        If PyTorch has to compute with them.
    """

    def __init__(
        self, weights: Mapping[str, Any], sizes: Sizes, weights_dtype: str | None, threads: int = 0
    ) -> None:
        packed_as = check(weights, sizes, weights_dtype)
        tensors = tuple(weights.values())
        self.dtype = tensors[0].dtype
        self.features, self.units = sizes.features, sizes.units
        self.width = sizes.units * sizes.directions
        # First the marks: who writes while weights are read has them read again.
        super().__init__(tuple(weights), tensors, self.width, TYPES)
        plans = _plans([tensor.detach().numpy() for tensor in tensors], sizes, packed_as)
        network = _network(plans, DTYPES[self.dtype], threads)
        self._run_on(network)
        self.alone = [network]
        if len(plans) > 1:
            self.alone = [_network({node: plan}, DTYPES[self.dtype], threads) for node, plan in plans.items()]


def _shapes(sizes: Sizes) -> Iterable[tuple[int, ...]]:
    """Shapes of weights in their order."""
    width = 3 * sizes.units
    for level in range(sizes.levels):
        for _ in range(sizes.directions):
            yield width, sizes.units * sizes.directions if level else sizes.features
            yield width, sizes.units
            if sizes.bias:
                yield (width,)
                yield (width,)


def check(weights: Mapping[str, Any], sizes: Sizes, weights_dtype: str | None) -> str | None:
    """Raise `Unfit` unless weights are plain and of a type that fastgru has; what Plan packs them as."""
    dtype = next(iter(weights.values())).dtype
    for (name, tensor), shape in zip(weights.items(), _shapes(sizes), strict=True):
        if type(tensor) not in TYPES:
            raise Unfit(f"{name} is of the type {type(tensor).__name__}")
        if not tensor.is_cpu:
            raise Unfit(f"{name} is on the device {tensor.device}")
        if tensor.dtype not in DTYPES or tensor.dtype != dtype:
            raise Unfit(f"{name} is of {tensor.dtype}")
        if tensor.layout != torch.strided or tuple(tensor.shape) != shape:
            raise Unfit(f"{name} has the shape {tuple(tensor.shape)} in place of {shape}")
    try:
        kept = _validate.weights_dtype(weights_dtype, DTYPES[dtype], _config.CHOICE.isa in float16_isas())
    except ValueError as error:
        raise Unfit(str(error)) from None
    return None if kept == DTYPES[dtype] else kept.name


def _plans(arrays: Sequence[Array], sizes: Sizes, packed_as: str | None) -> dict[Direction, Plan]:
    """Packed weights by level and direction, in the order of `h_n`."""
    each = iter(arrays)
    plans = {}
    for level, backwards in itertools.product(range(sizes.levels), range(sizes.directions)):
        kernel, recurrent = (np.ascontiguousarray(swapped(next(each)).T) for _ in range(2))
        bias = np.stack([swapped(next(each)) for _ in range(2)]) if sizes.bias else None
        try:
            kernel, recurrent = (
                _validate.rounded("weights", array, packed_as) for array in (kernel, recurrent)
            )
        except ValueError as error:
            raise Unfit(str(error)) from None
        engine = _config.engine_of(packed_as)
        plans[Direction(level, bool(backwards))] = Plan(
            kernel,
            recurrent,
            bias,
            True,
            ("tanh", 0.0),
            ("sigmoid", 0.0),
            engine,
            _config.CHOICE.isa,
            packed_as,
        )
    return plans


def _network(plans: Mapping[Direction, Plan], dtype: np.dtype[Any], threads: int) -> Network:
    """These GRUs, one level after the other, time-major: all outputs, and states where an array is given."""
    first = next(iter(plans.values()))
    graph = Graph(first.features, dtype, plans)
    graph.threads = threads
    value = 0
    for _, level in itertools.groupby(plans, lambda node: node.level):
        nodes = list(level)
        output = graph.value(first.units * len(nodes), dtype, False)
        # first what needs the whole input: the other direction then runs together with what reads the output
        for node in sorted(nodes, key=lambda node: not node.go_backwards):
            column = first.units if node.go_backwards and len(nodes) > 1 else 0
            graph.gru(node, value, output, column, reverse_output=node.go_backwards)
        value = output
    return graph.network([value], time_major=True, return_state=False, optional=False)
