"""The contenders: one small class each, which makes a layer of its library ready to be called."""

from benchmarks.race.contenders.base import Contender
from benchmarks.race.contenders.fastgru import (
    FastGRU,
    FastGRUAvx2,
    FastGRUAvx512,
    FastGRUBlas,
    FastGRUGeneric,
    FastGRUHalf,
    FastGRUInt8,
    FastGRUNeon,
    FastGRUSse2,
)
from benchmarks.race.contenders.jax import Jax
from benchmarks.race.contenders.keras import Keras, KerasOnFastGRU, LiteRt, TfKeras
from benchmarks.race.contenders.ncnn import Ncnn
from benchmarks.race.contenders.numpy import NumPy
from benchmarks.race.contenders.onnx import OnnxRuntime, OnnxRuntimeBound, OpenVino, Tract
from benchmarks.race.contenders.torch import Torch, TorchInt8, TorchOnFastGRU

ALL: tuple[type[Contender], ...] = (
    FastGRU,
    FastGRUHalf,
    FastGRUInt8,
    FastGRUBlas,
    FastGRUAvx512,
    FastGRUAvx2,
    FastGRUSse2,
    FastGRUNeon,
    FastGRUGeneric,
    OnnxRuntime,
    OnnxRuntimeBound,
    OpenVino,
    Tract,
    Torch,
    TorchOnFastGRU,
    TorchInt8,
    Jax,
    Keras,
    KerasOnFastGRU,
    TfKeras,
    LiteRt,
    Ncnn,
    NumPy,
)
