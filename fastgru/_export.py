"""Methods that export a layer: each hands its description to a writer.

A writer is imported when it is first called: no layer needs one to compute.
"""

import os
from typing import IO, Any

from numpy.typing import NDArray

from fastgru import _description


class Exports:
    """The methods that export a layer to files and other libraries."""

    def _described(self) -> _description.Layer:
        """What writers read of the layer."""
        raise NotImplementedError

    def save(self, path: str | os.PathLike[str] | IO[bytes]) -> None:
        """Write the layer with its weights into a file that `fastgru.load` reads.

        Parameters
        ----------
        path : str, path-like or binary file object
            An .npz of arrays and JSON, without pickle. At a path it replaces any file, and is written whole
            or not at all. A recorded state is not saved.

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
            If that Keras has no such layer: a Stack, an activation of ONNX or of the other version,
            `time_major` in Keras 3, a `default_state`; or, for Keras 3, if only the backward layer is
            trainable, because `get_weights` then returns its weights first.
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
            If PyTorch has no such layer: `reset_after=False`, activations other than tanh and sigmoid,
            one direction that goes backwards, directions that are not concatenated, a `default_state`, layers
            of a Stack that differ in units, dtype or the number of directions.
        """
        from fastgru._writers import torch

        return torch.to_state_dict(self._described())

    def to_onnx(self, opset: int = 14, initial_state: bool = False) -> Any:
        """An ONNX model with the layer as a GRU node; a Stack becomes a node for each layer.

        Parameters
        ----------
        opset : int
            From 7 to the newest of the installed `onnx`; at least 10 for a Stack with a layer that goes
            backwards below another.
        initial_state : bool
            Make the initial state, initial_h (directions, batch, units), an input of the model.

        Returns
        -------
        onnx.ModelProto
            From X (timesteps, batch, features) to Y (timesteps, directions, batch, units) with
            `return_sequences`, and to Y_h (directions, batch, units) without it or with `return_state`.
            Outputs of a layer that goes backwards are in the order of the inputs, as in ONNX. A
            `default_state` is a constant, which fixes the batch to its number of rows. For a Stack the last
            states are NAME/Y_h and the initial ones NAME/initial_h, with the names of its layers.

        Raises
        ------
        ValueError
            If ONNX has no such node: an activation such as gelu, a `merge_mode` other than concat and
            None, directions of different kinds; or if layers of a Stack differ in dtype, or `opset` is out of
            range.
        ImportError
            If onnx is not installed.
        """
        from fastgru._writers import onnx

        return onnx.to_onnx(self._described(), opset, initial_state)
