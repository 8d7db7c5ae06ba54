"""A sequence whose parts come one after the other: the state goes from part to part, and into a file."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru._scoring import _columns
from fastgru._scoring._network import LayerNetwork, ModelNetwork, Result
from fastgru._validate_models import Input
from fastgru.model import Model

Array = NDArray[Any]


class Steps:
    """A layer or a model as a function of the next part of its sequences.

    Parameters
    ----------
    net : GRU, Stack or Model
    batch : int
        Sequences side by side.
    digest : str
        What the states of this network are known by.
    columns, keep : sequence of str
        Of tables, whose rows are timesteps: the features, and what is copied to the output.

    Raises
    ------
    ValueError
        If the network cannot run step by step, or has several inputs or outputs.
    """

    def __init__(
        self, net: Any, batch: int, digest: str, columns: Sequence[str], keep: Sequence[str]
    ) -> None:
        self._stream = net.stream(batch)
        several = self._stream.input_names, self._stream.output_names
        if any(len(names) > 1 for names in several):
            raise ValueError(f"--resume-state must have a network of one input and one output, got {several}")
        network = ModelNetwork(net) if isinstance(net, Model) else LayerNetwork(net)
        self.input: Input = network.inputs[0]
        self.output: Result = next(one for one in network.outputs if one.name in ("output", several[1][0]))
        self.time_major = not isinstance(net, Model) and bool(net.time_major)
        self.dtype = network.dtype
        self._last = isinstance(net, Model) or self.output.has_steps
        self._digest, self._batch = digest, batch
        self._columns, self._keep = list(columns), list(keep)
        self._done = 0

    def __call__(self, x: Any) -> Any:
        """The outputs of the next timesteps: an array or a table, as they come."""
        if not hasattr(x, "column_names"):
            return self._run(x)
        import pyarrow

        names = self.columns_of(x.column_names)
        one = self.input._replace(shape=self.input.shape[-1:]) if not self.input.indices else self.input
        if len(names) == 1 and one.shape[-1] != 1:
            found = _columns.column(names[0], x[names[0]], one)
        elif self.input.indices:
            found = np.asarray(_columns.column(names[0], x[names[0]], Input("x", (1,), True)))
        else:
            single = one._replace(shape=(1,))
            found = _columns.joined(names, [_columns.column(name, x[name], single) for name in names], one)
        y = (
            self._run(np.asarray(found)[np.newaxis])[0]
            if len(x)
            else np.zeros((0, self.output.width), self.dtype)
        )
        made = {self.output.name: _columns.to_arrow(y)} | {name: x[name] for name in self._keep}
        return pyarrow.table(made)

    def columns_of(self, names: Sequence[str]) -> list[str]:
        """The columns of the features, of all that a table has."""
        for name in (*self._columns, *self._keep):
            if name not in names:
                raise ValueError(f"columns must be among {list(names)}, got {name!r}")
        left = [name for name in names if name not in self._keep]
        found = self._columns or ([self.input.name] if self.input.name in left else left)
        wanted = 1 if self.input.indices else self.input.shape[-1]
        if len(found) not in (1, wanted):
            raise ValueError(
                f"columns must name {wanted} columns, a feature each, or one of lists, got {found}"
            )
        if self.output.name in self._keep:
            raise ValueError(
                f"keep must have no name of an output, got {self.output.name!r}: rename the column"
            )
        return found

    def _run(self, x: Array) -> Array:
        y = np.asarray(self._stream(x))
        if self.input.indices and x.shape[1] == 1 and self.output.has_steps:
            y = y[:, np.newaxis]  # (batch, 1) is a step to a stream
        self._done += x.shape[0 if self.time_major else 1]
        if self._last or y.ndim == 2:
            return y
        return y[-1] if self.time_major else y[:, -1]

    # ---- the state ---------------------------------------------------------------------------

    def saved(self) -> bytes:
        """The state, as the bytes of an .npz file."""
        state = self._stream.state
        arrays = state if isinstance(state, list) else [state]
        file = io.BytesIO()
        named = {f"state_{number}": array for number, array in enumerate(arrays)}
        np.savez(file, model=np.array(self._digest), timesteps=np.array(self._done), **named)
        return file.getvalue()

    def restore(self, path: Path, data: bytes) -> None:
        """Go on from a saved state.

        Raises
        ------
        ValueError
            If it is none, of another network, or of other sequences.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                names = sorted(name for name in file.files if name.startswith("state_"))
                digest, done = str(file["model"]), int(file["timesteps"])
                arrays = [file[f"state_{number}"] for number in range(len(names))]
        except Exception as error:  # whatever NumPy raises of a damaged file
            raise ValueError(f"{path} must be a file that --resume-state has written: {error}") from error
        if digest != self._digest:
            raise ValueError(f"{path} must be the state of this network, and is that of another one")
        if any(len(array) != self._batch for array in arrays):
            raise ValueError(
                f"{path} must be the state of {self._batch} sequences, as INPUT has, got {len(arrays[0])}"
            )
        state = self._stream.state
        self._stream.state = arrays if isinstance(state, list) else arrays[0]
        self._done = done
