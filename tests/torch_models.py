"""Random models of PyTorch with GRUs, and random calls of them."""

import random
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence

TOLERANCE = {torch.float32: 3e-5, torch.float64: 1e-10}


class Model(nn.Module):
    """A linear layer, a GRU of any kind, and a cell that runs over what comes out of it."""

    def __init__(self, draw: random.Random, dtype: torch.dtype) -> None:
        super().__init__()
        self.features = draw.choice([1, 2, 3, 7, 16, 33])
        units = draw.choice([1, 3, 4, 8, 17, 40])
        levels = draw.choice([1, 1, 2, 3])
        self.before = nn.Linear(self.features, self.features)
        self.gru = nn.GRU(
            self.features,
            units,
            levels,
            bias=draw.random() < 0.8,
            batch_first=draw.random() < 0.5,
            bidirectional=draw.random() < 0.4,
            dropout=draw.choice([0, 0.3]) if levels > 1 else 0,
        )
        width = units * (2 if self.gru.bidirectional else 1)
        self.cell = nn.GRUCell(width, units, bias=draw.random() < 0.8)
        self.to(dtype)

    def forward(self, x: Any, hx: Any = None) -> Any:
        """Output, last states, and the cell's state after the last step."""
        packed = isinstance(x, PackedSequence)
        x = x._replace(data=self.before(x.data)) if packed else self.before(x)
        output, h_n = self.gru(x, hx)
        rows = output.data if isinstance(output, PackedSequence) else output
        state = None
        if rows.dim() == 3:
            for step in rows.unbind(1 if self.gru.batch_first else 0):
                state = self.cell(step, state)
        else:
            state = self.cell(rows)
        return output, h_n, state


class Inputs(NamedTuple):
    """Arguments of a call."""

    x: Any
    hx: Any


def strided(draw: random.Random, *shape: int, dtype: torch.dtype) -> torch.Tensor:
    """A tensor of that shape which lies in memory in one of many ways."""
    way = draw.randrange(5)
    tensor = torch.randn(shape, dtype=dtype)
    if way == 1:  # every other element of a larger one
        tensor = torch.randn([2 * size for size in shape], dtype=dtype)[
            tuple(slice(None, None, 2) for _ in shape)
        ]
    elif way == 2:  # axes in another order
        order = list(range(len(shape)))
        draw.shuffle(order)
        tensor = torch.randn([shape[axis] for axis in order], dtype=dtype)
        tensor = tensor.permute([order.index(axis) for axis in range(len(shape))])
    elif way == 3:  # an axis of equal items
        axis = draw.randrange(len(shape))
        tensor = tensor.narrow(axis, 0, 1).expand(shape)
    elif way == 4:  # in the middle of another one
        tensor = torch.randn(tensor.numel() + 3, dtype=dtype)[3:].view(shape)
    return tensor


def inputs(draw: random.Random, model: Model) -> Inputs:
    """A random call of a model: batched, unbatched or packed, with a state or without."""
    gru = model.gru
    dtype = gru.weight_ih_l0.dtype
    count = gru.num_layers * (2 if gru.bidirectional else 1)
    batch, timesteps = draw.choice([1, 1, 2, 5, 9]), draw.choice([1, 1, 2, 6, 13])
    kind = draw.choice(["batched", "batched", "unbatched", "packed", "packed_list"])
    state_shape = (count, batch, gru.hidden_size)
    if kind == "unbatched":
        x = strided(draw, timesteps, model.features, dtype=dtype)
        state_shape = (count, gru.hidden_size)
    elif kind == "batched":
        rows = (batch, timesteps) if gru.batch_first else (timesteps, batch)
        x = strided(draw, *rows, model.features, dtype=dtype)
    else:
        lengths = sorted((draw.randint(1, timesteps) for _ in range(batch)), reverse=True)
        enforced = draw.random() < 0.5
        if not enforced:
            draw.shuffle(lengths)
        if kind == "packed":
            padded = torch.randn(batch, max(lengths), model.features, dtype=dtype)
            x = pack_padded_sequence(padded, lengths, batch_first=True, enforce_sorted=enforced)
        else:
            rows = [torch.randn(length, model.features, dtype=dtype) for length in lengths]
            x = pack_sequence(rows, enforce_sorted=enforced)
    return Inputs(x, strided(draw, *state_shape, dtype=dtype) if draw.random() < 0.5 else None)


def flat(result: Any) -> list[torch.Tensor]:
    """The tensors of a result, those of packed sequences included."""
    if isinstance(result, torch.Tensor):
        return [result]
    return [tensor for part in result if part is not None for tensor in flat(part)]


def assert_same(found: Any, wanted: Any, tolerance: float | None = None) -> None:
    """The same kinds, shapes, strides and types, and the same numbers within a tolerance."""
    assert type(found) is type(wanted)
    for a, b in zip(flat(found), flat(wanted), strict=True):
        assert (a.shape, a.stride(), a.dtype, a.device) == (b.shape, b.stride(), b.dtype, b.device)
        assert a.requires_grad == b.requires_grad
        bound = TOLERANCE.get(b.dtype, 0) if tolerance is None else tolerance
        torch.testing.assert_close(a.detach(), b.detach(), rtol=0, atol=bound, equal_nan=True)
