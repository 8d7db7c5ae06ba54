"""How a layer leaves: methods that hand its description to a writer.

A writer is imported when it is first called: no layer needs one to compute.
"""

import os
from typing import IO, Any

from numpy.typing import NDArray

from fastgru import _description


class Exports:
    """What layers with weights have in common that leave for other libraries and for files."""

    def _described(self) -> _description.Layer:
        """What writers read of the layer."""
        raise NotImplementedError

    def save(self, path: str | os.PathLike[str] | IO[bytes]) -> None:
        """Write the layer with its weights into a file that `fastgru.load` reads.

        Parameters
        ----------
        path : str, path-like or binary file object
            An .npz of arrays and JSON, without pickle, in place of a file that may be there; written
            whole or not at all, but into a file that is open. A recorded state is not in it.

        Raises
        ------
        ValueError
            If the layer is not built, a weight is not finite, or an argument is a Python object without a
            name.
        OSError
            If the file cannot be written.
        """
        from fastgru._writers import native

        native.save(self._described(), path)

    def to_keras_config(self, version: int = 2) -> dict[str, Any]:
        """The config from which Keras makes this layer; the weights go along by `get_weights`.

        Parameters
        ----------
        version : {2, 3}
            For `from_config` of `tf_keras` and TensorFlow, or of Keras 3.

        Raises
        ------
        ValueError
            If that Keras has not such a layer: a Stack, an activation of ONNX or of the other version,
            `time_major` in Keras 3, a `default_state`; or, in Keras 3, if only the backward layer is
            trainable, whose weights `get_weights` then has first.
        """
        from fastgru._writers import keras

        return keras.to_config(self._described(), version)

    def to_torch_state_dict(self) -> dict[str, NDArray[Any]]:
        """The weights as PyTorch's `torch.nn.GRU` names and orders them.

        Returns
        -------
        dict of ndarray
            weight_ih_l0 (3 * units, features), weight_hh_l0 (3 * units, units) and, with a bias,
            bias_ih_l0 and bias_hh_l0 (3 * units,), blocks r | z | n; with _reverse for the backward layer,
            and l1, l2, ... for the layers of a Stack above the first.
            `{name: torch.from_numpy(array) ...}` is for `load_state_dict`.

        Raises
        ------
        ValueError
            If PyTorch has not such a layer: `reset_after=False`, activations other than tanh and sigmoid,
            one direction that goes backwards, directions that are not concatenated, a `default_state`, layers
            of a Stack that differ in units, dtype or the number of directions.
        """
        from fastgru._writers import torch

        return torch.to_state_dict(self._described())

    def to_onnx(self, opset: int = 14, initial_state: bool = False) -> Any:
        """An ONNX model whose one node is the layer; of a Stack there is a node for each.

        Parameters
        ----------
        opset : int
            7 to the newest that the installed `onnx` knows; at least 10 for a Stack in which a layer that
            goes backwards is below another.
        initial_state : bool
            True: the state before the first step, initial_h (directions, batch, units), is an input.

        Returns
        -------
        onnx.ModelProto
            From X (timesteps, batch, features) to Y (timesteps, directions, batch, units) with
            `return_sequences`, and to Y_h (directions, batch, units) without it or with `return_state`.
            Outputs of a layer that goes backwards belong to the inputs' timesteps, as ONNX has it. A
            `default_state` is a constant, which fixes the batch to its own. Of a Stack the last states are
            NAME/Y_h, and the first ones NAME/initial_h, by the names of its layers.

        Raises
        ------
        ValueError
            If ONNX has not such a node: an activation such as gelu, a `merge_mode` other than concat and
            None, directions of different kinds; or if layers of a Stack differ in dtype, or `opset` is out of
            range.
        ImportError
            If onnx is not installed.
        """
        from fastgru._writers import onnx

        return onnx.to_onnx(self._described(), opset, initial_state)
