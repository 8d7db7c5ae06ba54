"""Whole models from files and objects of Keras and ONNX, and fastgru's own files."""

import os
from typing import Any

from fastgru import formats
from fastgru._errors import FormatError
from fastgru.formats import _file, _keras_whole, _native_model, _onnx_whole
from fastgru.model import Model


def load_model(path: Any, weights_dtype: str | None = None, *, config: Any = None) -> Model:
    """Load the whole network of a model file. Nothing in the file is run.

    Parameters
    ----------
    path : str, path-like, bytes or binary file object
        A file of Keras, of ONNX or of `Model.save`, which is recognised by its content. Of Keras it is a
        ``.keras`` file, the folder that Keras 3 makes with ``zipped=False``, an ``.h5`` file of a whole
        model, or with `config` an ``.h5`` or ``.weights.h5`` file of weights.
    weights_dtype : {None, 'float16', 'int8'}
        The type of packed weights of a float32 model; None: float32, or what a file of fastgru has.
    config : str, path-like, bytes or binary file object, optional
        For weights of Keras: the model's architecture, which its `to_json` returns.

    Returns
    -------
    Model
        Unlike in Keras, the `lengths` and the `mask` of a call pass through an Embedding. A layer with
        stateful=True starts every call anew: a stream keeps states.

    Raises
    ------
    FormatError
        If the file is damaged, of an unknown format, or has layers that fastgru does not compute. The message
        names all of these. A FormatError is a ValueError.
    OSError
        If the file cannot be opened.
    ImportError
        If the format's library is not installed. The message names the extra that installs it.
    ValueError
        If `weights_dtype` is none of these.

    Examples
    --------
    Usually `path` is ``"model.keras"``. Here it is a file of ONNX that fastgru has written:

    >>> import numpy as np
    >>> import fastgru
    >>> lower = fastgru.GRU(8, recurrent_activation="sigmoid", return_sequences=True)
    >>> upper = fastgru.GRU(4, recurrent_activation="sigmoid", return_sequences=True)
    >>> stack = fastgru.Stack([lower, upper], name="both")
    >>> stack.build((None, None, 3))
    >>> model = fastgru.load_model(stack.to_onnx().SerializeToString())
    >>> model
    <Model 'both': 2 nodes, X (None, 3), float32>
    >>> x = np.zeros((10, 2, 3), np.float32)  # (timesteps, batch, features), as in ONNX
    >>> model(x).shape
    (10, 1, 2, 4)
    """
    if weights_dtype not in (None, "float32", "float64", "float16", "int8"):
        raise ValueError(f"weights_dtype must be None, 'float16' or 'int8', got {weights_dtype!r}")
    source = formats.opened(path)
    architecture = None if config is None else formats.architecture_beside(config, source)
    with formats.blaming(path):
        if isinstance(source.content, _file.Folder):
            return _keras_whole.archive_model(source.content, weights_dtype)
        told, content = formats.recognised(source.content)
        if told == "hdf5":
            return _keras_whole.hdf5_model(content, architecture, weights_dtype)
        if architecture is not None:
            raise FormatError(
                f"config must be given with weights of Keras in HDF5, got it with a file of {told}"
            )
        if told == "keras":
            return _keras_whole.archive_model(content, weights_dtype)
        if told == "onnx":
            return _onnx_whole.file_model(content, source.folder, weights_dtype)
        if told == "fastgru":
            return _native_model.archive_model(content, weights_dtype)
        raise FormatError(f"a file of {told} has weights only: load its layers by fastgru.load")


def from_keras_model(model: Any, weights_dtype: str | None = None) -> Model:
    """Make a model of a model of Keras that is in memory.

    Parameters
    ----------
    model : keras.Model
        A built Sequential or functional model of `tf_keras`, TensorFlow or Keras 3.
    weights_dtype : {None, 'float16', 'int8'}
        As for `load_model`.

    Returns
    -------
    Model

    Raises
    ------
    TypeError
        If it is no model of Keras.
    ValueError
        If it is neither Sequential nor functional, or has layers that fastgru does not compute. The message
        names all of these.

    Notes
    -----
    The weights are copied: training the Keras model afterwards does not change them.
    """
    return _keras_whole.live_model(model, weights_dtype)


def from_onnx_model(model: Any, weights_dtype: str | None = None) -> Model:
    """Make a model of an ONNX model.

    Parameters
    ----------
    model : onnx.ModelProto, str, path-like or bytes
    weights_dtype : {None, 'float16', 'int8'}
        As for `load_model`.

    Returns
    -------
    Model

    Raises
    ------
    TypeError
        If it is no model of ONNX.
    ValueError
        If it has operators that fastgru does not compute. The message names them.
    ImportError
        If `model` is a file, and `onnx` is not installed.

    Examples
    --------
    >>> import fastgru
    >>> layer = fastgru.GRU(4, recurrent_activation="sigmoid", input_shape=(None, 3), name="gru")
    >>> layer.build()
    >>> fastgru.from_onnx_model(layer.to_onnx()).summary()
    Model 'gru', float32, weights float32
    Node       Output shape     Weights  Reads
    ------------------------------------------
    X (Input)  (None, None, 3)  0
    gru (GRU)  (None, 4)        96       X
    ------------------------------------------
    Weights: 96
    """
    if isinstance(model, str | bytes | os.PathLike):
        return load_model(model, weights_dtype)
    return _onnx_whole.live_model(model, weights_dtype)
