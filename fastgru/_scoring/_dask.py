"""A scorer over the parts of Dask's collections."""

from typing import Any

import numpy as np

from fastgru._scoring._network import Network


def mapped(scorer: Any, collection: Any, lengths: Any, network: Network) -> Any:
    """The outputs of a Dask array, bag or DataFrame, lazily."""
    import dask.array
    import dask.bag

    if isinstance(collection, dask.array.Array):
        return _array(scorer, collection, lengths, network)
    if lengths is not None:
        raise ValueError("lengths must be given with an array alone: other collections have a column of them")
    if isinstance(collection, dask.bag.Bag):
        return collection.map_partitions(scorer)
    if hasattr(collection, "map_partitions"):
        from dask.dataframe.dispatch import make_meta

        return collection.map_partitions(scorer, meta=scorer(make_meta(collection)))
    raise TypeError(
        "collection must be an array, a bag or a DataFrame of Dask, "
        f"got {collection!r:.80} of type {type(collection).__name__}"
    )


def _array(scorer: Any, x: Any, lengths: Any, network: Network) -> Any:
    """One output of an array, block by block of its rows."""
    import dask.array

    if len(scorer.output_names) > 1:
        raise ValueError(
            f"outputs must name one output for an array of Dask, got {list(scorer.output_names)}"
        )
    axis = network.rows_axis
    for number, count in enumerate(x.numblocks):
        if number != axis and count > 1:
            raise ValueError(
                f"the array must be one chunk along axis {number}, got {count}: rechunk({{{number}: -1}})"
            )
    if np.isnan(x.shape).any():
        raise ValueError(f"the array must have a known shape, got {x.shape}: compute_chunk_sizes() finds it")
    shape = scorer.output_shape(x.shape)
    (one,) = (each for each in network.outputs if each.name == scorer.output_names[0])
    given = [x, tuple(range(x.ndim))]
    if lengths is not None:
        if lengths.shape != (x.shape[axis],):
            raise ValueError(
                f"lengths must have shape ({x.shape[axis]},), one for each row, got {lengths.shape}"
            )
        given += [lengths.rechunk((x.chunks[axis],)), (axis,)]
    labels = [axis if place == one.rows_axis else x.ndim + place for place in range(len(shape))]
    sizes = {label: size for label, size in zip(labels, shape, strict=True) if label != axis}
    return dask.array.blockwise(
        scorer, labels, *given, new_axes=sizes, concatenate=True, dtype=scorer.dtype, token="scorer",
        meta=np.empty((0,) * len(shape), scorer.dtype),
    )  # fmt: skip
