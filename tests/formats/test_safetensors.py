"""Files of safetensors against the library of that name."""

import random

import numpy as np
import pytest

from fastgru._writers.safetensors import written
from fastgru.formats import _safetensors
from fastgru.formats._model import FormatError

safetensors = pytest.importorskip("safetensors.numpy")
KINDS = ("f2", "f4", "f8", "i1", "u1", "i2", "i4", "i8", "?")


def some_arrays(rng):
    """Arrays of any type and shape, by name."""
    arrays = {}
    for i in range(rng.randrange(1, 8)):
        shape = [rng.randrange(4) for _ in range(rng.randrange(4))]
        arrays[f"{rng.choice(['a', 'é.b', '__metadata_'])}{i}"] = np.full(shape, i, rng.choice(KINDS))
    return arrays


def test_files_of_the_library_are_read_as_it_reads_them():
    for seed in range(200):
        print(f"seed {seed}")
        arrays = some_arrays(random.Random(seed))
        found = _safetensors.Tensors(safetensors.save(arrays, {"format": "np"} if seed % 2 else None))
        assert {name: array.shape for name, array in arrays.items()} == found.shapes
        for name, array in arrays.items():
            if array.dtype.kind == "f":
                np.testing.assert_array_equal(found.floats(name), array)
                assert found.floats(name).dtype == array.dtype
            else:
                with pytest.raises(FormatError, match="must be of F16, F32, F64, BF16, got "):
                    found.floats(name)


def test_what_is_written_is_read_by_the_library():
    for seed in range(100):
        print(f"seed {seed}")
        arrays = {
            name: array for name, array in some_arrays(random.Random(seed)).items() if array.dtype.kind == "f"
        }
        arrays["z"] = np.arange(6, dtype="f4").reshape(2, 3).T
        data = written(arrays)
        loaded = safetensors.load(data)
        assert set(loaded) == set(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(loaded[name], array)
            assert loaded[name].dtype == array.dtype
        assert list(_safetensors.Tensors(data).shapes) == list(arrays)


def test_bfloat16_is_the_upper_half_of_a_float32():
    torch = pytest.importorskip("torch")
    save = pytest.importorskip("safetensors.torch").save
    tensor = torch.randn(3, 4).to(torch.bfloat16)
    found = _safetensors.Tensors(save({"x": tensor})).floats("x")
    np.testing.assert_array_equal(found, tensor.float().numpy())


def test_types_of_eight_bits_and_less_may_be_beside():
    torch = pytest.importorskip("torch")
    save = pytest.importorskip("safetensors.torch").save
    data = save(
        {"x": torch.zeros(3), "y": torch.zeros(5).to(torch.float8_e4m3fn), "z": torch.zeros(2).bool()}
    )
    assert _safetensors.Tensors(data).floats("x").tolist() == [0, 0, 0]
