"""Whole models from files and objects of Keras and ONNX, and fastgru's own files."""

import os
from typing import Any

from fastgru import formats
from fastgru._errors import FormatError
from fastgru.formats import _file, _keras_whole, _native_model, _onnx_whole
from fastgru.model import Model


def load_model(path: Any, weights_dtype: str | None = None, *, config: Any = None) -> Model:
    """The whole network of a model file.

    Parameters
    ----------
    path : str, path-like, bytes or binary file object
        Keras: ``.keras``, the folder that Keras 3 makes with ``zipped=False``, ``.h5`` of a model, or weights
        in ``.h5`` or ``.weights.h5`` with `config`. ONNX. fastgru's own ``.npz``. Told by content.
    weights_dtype : {None, 'float16', 'int8'}
        What packed weights of float32 are kept as.
    config : str, path-like, bytes or binary file object, optional
        For weights of Keras: the architecture, from `to_json` of the model.

    Returns
    -------
    Model
        Of Keras: `lengths` and `mask` of a call pass through an Embedding, which in Keras drops them. A layer
        with stateful=True is read as one that is not: every call starts anew, and what keeps states is a
        stream.

    Raises
    ------
    FormatError
        If the file is damaged, of another format, or has layers that fastgru does not compute: names all of
        them. It is a ValueError. Nothing in the file is run.
    OSError
        If the file cannot be opened.
    ImportError
        If the format's library is not installed; names the extra that brings it.
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
    """The network that a model of Keras is: of `tf_keras`, of TensorFlow or of Keras 3.

    Parameters
    ----------
    model : keras.Model
        Sequential or functional, built.
    weights_dtype : {None, 'float16', 'int8'}
        As of `load_model`.

    Returns
    -------
    Model

    Raises
    ------
    TypeError
        If it is no model of Keras.
    ValueError
        If it is another class than Sequential or a functional model, or has layers that fastgru does not
        compute: names all of them.

    Notes
    -----
    The model gets copies of the weights: what is trained afterwards does not change it.
    """
    return _keras_whole.live_model(model, weights_dtype)


def from_onnx_model(model: Any, weights_dtype: str | None = None) -> Model:
    """The network that an ONNX model is.

    Parameters
    ----------
    model : onnx.ModelProto, str, path-like or bytes
    weights_dtype : {None, 'float16', 'int8'}
        As of `load_model`.

    Returns
    -------
    Model

    Raises
    ------
    TypeError
        If it is no model of ONNX.
    ValueError
        If it has operators that fastgru does not compute: names them.
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
