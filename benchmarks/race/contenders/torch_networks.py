"""The models of the race as modules of PyTorch, with Keras' weights; imported where PyTorch is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from benchmarks.networks import NETWORKS, NetworkTask
from benchmarks.tasks import Array


def parameter(array: Array) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor(np.ascontiguousarray(array)), requires_grad=False)


def gates(weights: Array) -> torch.nn.Parameter:
    """Keras' columns z | r | h as torch's rows r | z | n."""
    z, r, h = np.split(weights, 3, axis=-1)
    return parameter(np.concatenate([r, z, h], axis=-1).T)


class GRU(torch.nn.Module):
    """A layer, or both directions of one; returns outputs and the last state."""

    def __init__(self, weights: Sequence[Array], sequences: bool) -> None:
        super().__init__()
        features, units = weights[0].shape[0], weights[1].shape[0]
        self.sequences, self.both = sequences, len(weights) > 3
        self.gru = torch.nn.GRU(features, units, batch_first=True, bidirectional=self.both)
        for start, direction in ((0, ""), (3, "_reverse"))[: 1 + self.both]:
            kernel, recurrent, (input_bias, bias) = weights[start : start + 3]
            named = {"weight_ih": kernel, "weight_hh": recurrent, "bias_ih": input_bias, "bias_hh": bias}
            for name, array in named.items():
                setattr(self.gru, f"{name}_l0{direction}", gates(array))

    def forward(
        self, x: torch.Tensor, state: torch.Tensor | None = None, lengths: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if lengths is not None:
            x = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        y, state = self.gru(x, state)
        if self.sequences:
            return y, state
        return (torch.cat([state[0], state[1]], dim=-1) if self.both else state[0]), state


class Causal(torch.nn.Module):
    """A convolution that sees no later step."""

    def __init__(self, kernel: Array, bias: Array) -> None:
        super().__init__()
        size, features, filters = kernel.shape
        self.past = size - 1
        self.convolution = torch.nn.Conv1d(features, filters, size)
        self.convolution.weight, self.convolution.bias = parameter(kernel.transpose(2, 1, 0)), parameter(bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.pad(x.transpose(1, 2), (self.past, 0))
        return self.convolution(x).transpose(1, 2)


ACTIVATIONS = {"relu": torch.nn.ReLU, "sigmoid": torch.nn.Sigmoid, "tanh": torch.nn.Tanh}


def activated(module: torch.nn.Module, activation: str | None) -> torch.nn.Module:
    if activation is None:
        return module
    made = torch.nn.Softmax(-1) if activation == "softmax" else ACTIVATIONS[activation]()
    return torch.nn.Sequential(module, made)


class Layers:
    """Stands in for `keras.layers`: makes modules, of weights in the order of Keras' layers."""

    def __init__(self, weights: Iterable[Array]) -> None:
        self._weights = iter(weights)

    def Dense(self, units: int, activation: str | None = None, name: str = "") -> torch.nn.Module:
        kernel, bias = next(self._weights), next(self._weights)
        made = torch.nn.Linear(*kernel.shape)
        made.weight, made.bias = parameter(kernel.T), parameter(bias)
        return activated(made, activation)

    def GRU(self, units: int, return_sequences: bool = False, name: str = "") -> GRU:
        self._latest = [next(self._weights) for _ in range(3)]
        return GRU(self._latest, return_sequences)

    def Bidirectional(self, layer: GRU) -> GRU:
        return GRU([*self._latest, *(next(self._weights) for _ in range(3))], layer.sequences)

    def Embedding(self, rows: int, width: int, mask_zero: bool = False, name: str = "") -> torch.nn.Module:
        return torch.nn.Embedding.from_pretrained(parameter(next(self._weights)))

    def Conv1D(self, filters: int, size: int, padding: str, activation: str) -> torch.nn.Module:
        return activated(Causal(next(self._weights), next(self._weights)), activation)

    def SpatialDropout1D(self, rate: float) -> torch.nn.Module:
        return torch.nn.Identity()

    def TimeDistributed(self, layer: torch.nn.Module, name: str = "") -> torch.nn.Module:
        return layer


class Chain(torch.nn.Module):
    """Modules one after the other; states in and out, of GRUs."""

    def __init__(self, modules: Sequence[torch.nn.Module], padded: bool) -> None:
        super().__init__()
        self.chain, self.padded = torch.nn.ModuleList(modules), padded

    def forward(
        self, inputs: Sequence[torch.Tensor], states: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        y, left, after = inputs[0], iter(states), []
        lengths = (y != 0).sum(1) if self.padded else None
        for module in self.chain:
            if isinstance(module, GRU):
                y, state = module(y, next(left, None), lengths)
                after.append(state)
            else:
                y = module(y)
        return y, after


class Phonemes(torch.nn.Module):
    """Encoder and decoder."""

    def __init__(self, weights: Sequence[Array]) -> None:
        super().__init__()
        decoder, encoder, letter, logits, phoneme = np.split(np.arange(len(weights)), [3, 6, 7, 9])
        layers = Layers([weights[i] for i in (*letter, *encoder, *phoneme, *decoder, *logits)])
        self.letter, self.encoder = layers.Embedding(0, 0), layers.GRU(0)
        self.phoneme, self.decoder = layers.Embedding(0, 0), layers.GRU(0, return_sequences=True)
        self.logits = layers.Dense(0)

    def forward(
        self, inputs: Sequence[torch.Tensor], states: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        letters, phonemes = inputs
        _, state = self.encoder(self.letter(letters))
        y, _ = self.decoder(self.phoneme(phonemes), state)
        return self.logits(y), []


def module(task: NetworkTask, weights: Sequence[Array]) -> torch.nn.Module:
    """The model of a task."""
    network = NETWORKS[task.name]
    if network.layers is None:
        return Phonemes(weights).eval()
    return Chain(network.layers(Layers(weights)), network.padded and task.batch > 1).eval()
