"""A model's streams against its calls."""

import numpy as np

from fastgru import _layouts


def assert_streams_as_called(model, arrays):
    """Compare steps and chunks with a call, bit for bit; None, or the message why there is no stream."""
    try:
        stream, pieces = model.stream(_rows(model, arrays)), model.stream(_rows(model, arrays))
    except ValueError as error:
        return str(error)
    given = {
        one.name: (_layouts.batch_major(array, one.layout, one.shape, one.indices), one)
        for one, array in zip(model.inputs, arrays, strict=True)
        if one.name in stream.input_names
    }
    steps = {array.shape[1] for array, one in given.values() if one.indices or len(one.shape) == 2}
    if len(steps) > 1:
        return "sequences of the call have different timesteps"
    (timesteps,) = steps
    results = model(
        {
            one.name: array if one.name in given else np.zeros_like(array)  # a state, which starts from zeros
            for one, array in zip(model.inputs, arrays, strict=True)
        }
    )
    results = results if isinstance(results, list) else [results]
    wanted = {}
    for one, result in zip(model.output_values, results, strict=True):
        shape = model.shape_of(one.name)
        wanted[one.name] = _layouts.batch_major(result, one.layout, shape, indices=False)
    cut = timesteps // 2
    chunks = [_called(pieces, given, slice(first, last)) for first, last in ((0, cut), (cut, timesteps))]
    for t in range(timesteps):
        found = _called(stream, given, t)
        for name, result in found.items():
            chunk = chunks[t >= cut][name]
            piece = chunk if chunk.ndim == 2 else chunk[:, t - cut * (t >= cut)]
            assert np.array_equal(piece, result, equal_nan=True), f"{name} of a chunk, step {t}"
            if wanted[name].ndim == 3:
                assert np.array_equal(wanted[name][:, t], result, equal_nan=True), f"{name}, step {t}"
    for name, result in found.items():
        if wanted[name].ndim == 2:
            assert np.array_equal(wanted[name], result, equal_nan=True), f"{name}, after the last step"
    return None


def _rows(model, arrays):
    """The batch of a call."""
    one, array = model.inputs[0], arrays[0]
    return len(_layouts.batch_major(array, one.layout, one.shape, one.indices))


def _called(stream, given, part):
    """The outputs of a call of a stream, by name, of these timesteps."""
    x = {
        name: array[:, part] if one.indices or len(one.shape) == 2 else array
        for name, (array, one) in given.items()
    }
    results = stream(x)
    results = results if isinstance(results, list) else [results]
    return {name: result.copy() for name, result in zip(stream.output_names, results, strict=True)}
