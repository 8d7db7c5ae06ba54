"""A network as a function of batches, for engines that cut a large job among processes and machines."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru import _threads, _validate
from fastgru._errors import need
from fastgru._scoring import _columns, _sequences, _source
from fastgru._scoring._network import Network
from fastgru._scoring._sequences import Ragged
from fastgru._validate_models import Input

Array = NDArray[Any]
Names = str | Sequence[str]

ROWS = 32  # at a time by default: they share the reading of the weights


class Scorer:
    """A network as a picklable function of batches, for Dask, Ray, Spark, joblib and the like.

    ``scorer(batch)`` returns the outputs of a batch of rows, in the form that the batch has:

    - an array, as the network takes it: an array, or a list of arrays for several outputs. `lengths`,
      (batch,), may be given with it.
    - a list or another iterable of rows, (timesteps, features) each: a list of the rows' outputs. Rows may
      be dicts of columns: then outputs are dicts.
    - a dict of columns, as Ray has them: a dict of the outputs by name.
    - a table of pandas or Arrow, or any with Arrow's interface, such as that of Polars: a DataFrame, or a
      Table or RecordBatch of Arrow. Cells of outputs are lists, or lists of lists.

    The outputs of a job have the same bits however its rows are cut into batches, on the packed engine. A
    row of a list or a column of lists may have any number of timesteps, and has the bits that it has alone.

    Parameters
    ----------
    model : str, path-like, bytes, layer or Model
        A file that `fastgru.load_model` or `fastgru.load` reads, of which the whole network is taken if it
        holds one; its bytes; or what these return, of which a copy is taken. A path must lead to the same
        file on every machine.
    layer : str, optional
        Of a file: the name of one GRU layer, to be run alone.
    columns : str, sequence of str or dict, optional
        The column of the input, or a column for each of its features. For several inputs a dict of these by
        input. By default the input's name, or the only column that is left.
    lengths : str, optional
        The column with the number of timesteps of each row, where all rows are padded to as many.
    outputs : str or sequence of str, optional
        Names of the outputs that are returned, by default all: those of a Model, or `output` and `state`,
        `state_1` and so on of a layer. With a str, one array is returned for an array.
    keep : str or sequence of str
        Columns that are copied to the result.
    batch_size : int
        Rows that are computed at a time.
    dtype, weights_dtype : str, optional
        As of `fastgru.load` and `fastgru.load_model`. The `dtype` of a whole model cannot be changed.
    num_threads : int or 'auto'
        Threads that a call may have: engines run several workers on a machine.

    Raises
    ------
    ValueError
        If the network cannot be loaded with these arguments, is stateful, or has no such output.
    OSError
        If the file cannot be read.
    TypeError
        If an argument is of the wrong type.

    Notes
    -----
    A pickled scorer holds the path, or the bytes. A process loads a network once, for all scorers of it. A
    file that has changed since the scorer was made is refused.

    A call raises a ValueError or a TypeError that names the column, what was wanted and what came.

    Examples
    --------
    >>> import numpy as np
    >>> import fastgru
    >>> layer = fastgru.GRU(4, return_sequences=True)
    >>> layer.build((None, None, 3))
    >>> scorer = fastgru.Scorer(layer, batch_size=64)
    >>> scorer(np.zeros((100, 7, 3), np.float32)).shape
    (100, 7, 4)
    >>> [y.shape for y in scorer([np.zeros((steps, 3), np.float32) for steps in (5, 0, 9)])]
    [(5, 4), (0, 4), (9, 4)]
    """

    def __init__(
        self,
        model: Any,
        *,
        layer: str | None = None,
        columns: Names | Mapping[str, Names] | None = None,
        lengths: str | None = None,
        outputs: Names | None = None,
        keep: Names = (),
        batch_size: int = ROWS,
        dtype: str | None = None,
        weights_dtype: str | None = None,
        num_threads: int | str = 1,
    ) -> None:
        self._batch_size = _validate.positive("batch_size", batch_size)
        _threads.asked(num_threads)
        self._source = _source.source_of(
            model, layer=layer, dtype=dtype, weights_dtype=weights_dtype, num_threads=num_threads
        )
        if lengths is not None and not isinstance(lengths, str):
            raise TypeError(f"lengths must be the name of a column, got {lengths!r}")
        self._lengths, self._keep = lengths, _several("keep", keep)
        network = self._source.network()
        self._columns = _columns_by_input(columns, network.inputs)
        known = [one.name for one in network.outputs]
        wanted = known if outputs is None else _several("outputs", outputs)
        unknown = [name for name in wanted if name not in known]
        if unknown or not wanted:
            raise ValueError(f"outputs must be among {known}, got {outputs!r}")
        self._outputs, self._single = wanted, isinstance(outputs, str) or len(wanted) == 1

    def __repr__(self) -> str:
        what = self._source.content if self._source.kind == "path" else self._source.digest[:12]
        return f"<Scorer of {what}: outputs {', '.join(self._outputs)}>"

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The inputs of the network, as `Model.inputs`; of a layer one, named `x`."""
        return tuple(self._source.network().inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of what is returned, in its order."""
        return tuple(self._outputs)

    @property
    def dtype(self) -> str:
        """Name of the type of the outputs."""
        return self._source.network().dtype.name

    def output_shape(self, input_shape: Sequence[int], output: str | None = None) -> tuple[int, ...]:
        """The shape of an output for an array of this shape, as the network takes it.

        Parameters
        ----------
        input_shape : sequence of int
        output : str, optional
            Its name; by default the first one.

        Raises
        ------
        ValueError
            If the network does not take such arrays.
        """
        shape = list(input_shape)
        network = self._source.network()
        axis = network.rows_axis
        few = [*shape[:axis], 0, *shape[axis + 1 :]]
        one = network.inputs[0]
        found = network.run([np.zeros(few, np.int32 if one.indices else network.dtype)], None, 1)
        name = self._outputs[0] if output is None else output
        place = [each.name for each in network.outputs].index(name)
        rows = network.outputs[place].rows_axis
        return (*found[place].shape[:rows], shape[axis], *found[place].shape[rows + 1 :])

    def columns_of(self, names: Sequence[str]) -> list[str]:
        """Those columns of a table that the scorer reads, in the order of the table.

        Parameters
        ----------
        names : sequence of str
            Of all columns of the table.

        Raises
        ------
        ValueError
            If one is missing.
        """
        known = list(names)
        read = {*self._kept(known), *([] if self._lengths is None else [self._lengths])}
        for wanted in self._chosen_columns(self._source.network(), known):
            read |= {*wanted}
        missing = [name for name in sorted(read) if name not in known]
        if missing:
            raise ValueError(f"columns must be among {known}, got {missing[0]!r}")
        return [name for name in known if name in read]

    def __call__(self, batch: Any, lengths: Any = None, *, block_info: Any = None) -> Any:
        """The outputs of a batch, in its form; `block_info` is what Dask tells of a block."""
        network = self._source.network()
        if isinstance(batch, np.ndarray) and batch.dtype != object:
            if len(network.inputs) > 1:
                names = ", ".join(repr(one.name) for one in network.inputs)
                raise ValueError(f"batch must be a dict or a table with {names}, got one array")
            _check_whole(block_info, network)
            return self._returned(self._chosen(network, network.run([batch], lengths, self._batch_size)))
        if lengths is not None:
            raise ValueError("lengths must be given with an array alone: other batches have a column of them")
        if isinstance(batch, Mapping):
            rows = self._of_columns(network, batch, list(batch))
            return {name: _as_column(found) for name, found in rows.items()} | {
                name: batch[name] for name in self._kept(list(batch))
            }
        if hasattr(batch, "__arrow_c_stream__") or hasattr(batch, "__arrow_c_array__"):
            return self._of_table(network, batch)
        if isinstance(batch, Iterable) and not isinstance(batch, str | bytes):
            return self._of_rows(network, list(batch))
        raise TypeError(
            f"batch must be an array, an iterable of rows, a dict of columns or a table, got {batch!r:.80} "
            f"of type {type(batch).__name__}"
        )

    def map(self, collection: Any, lengths: Any = None) -> Any:
        """The outputs of a Dask collection, part by part, when they are computed.

        Parameters
        ----------
        collection : dask.array.Array, dask.bag.Bag or dask.dataframe.DataFrame
            Of an array, only the axis of the rows may be cut into chunks.
        lengths : dask.array.Array, shape (rows,), optional
            With an array: the timesteps of each row.

        Returns
        -------
        Array, Bag or DataFrame of Dask
            As a call of the scorer returns; for several outputs of an array a list.

        Raises
        ------
        ValueError
            If an array is cut along another axis, or is none that the network takes.
        TypeError
            If it is none of these.
        """
        need("dask", "batch", "a collection of Dask")
        from fastgru._scoring import _dask

        return _dask.mapped(self, collection, lengths, self._source.network())

    # ---- batches of each form --------------------------------------------------------------

    def _chosen(self, network: Network, found: Sequence[Any]) -> list[Any]:
        """The outputs that were asked for."""
        by_name = dict(zip((one.name for one in network.outputs), found, strict=True))
        return [by_name[name] for name in self._outputs]

    def _returned(self, found: list[Any]) -> Any:
        return found[0] if self._single else found

    def _of_columns(self, network: Network, batch: Any, known: list[str]) -> dict[str, Array | Ragged]:
        """The outputs of columns, by name."""
        columns, names = [], []
        for one, wanted in zip(network.inputs, self._chosen_columns(network, known), strict=True):
            for name in wanted:
                if name not in known:
                    raise ValueError(
                        f"columns must be among {known}, got {name!r} for the input {one.name!r}"
                    )
            names.append(wanted[0])
            if len(wanted) == 1:
                columns.append(_columns.column(wanted[0], batch[wanted[0]], one))
            else:
                single = one._replace(shape=(*one.shape[:-1], 1))
                parts = [_columns.column(name, batch[name], single) for name in wanted]
                columns.append(_columns.joined(wanted, parts, one))
        rows = [len(one.counts) if isinstance(one, Ragged) else len(one) for one in columns]
        if len(set(rows)) > 1:
            raise ValueError(f"columns {names} must have as many rows, got {rows}")
        taken = [name for name in self._outputs if name in self._kept(known)]
        if taken:
            raise ValueError(f"keep must have no name of an output, got {taken[0]!r}: rename the column")
        if self._lengths is None:
            return self._by_name(network, _sequences.run(network, columns, self._batch_size, names))
        if self._lengths not in known:
            raise ValueError(f"lengths must be one of the columns {known}, got {self._lengths!r}")
        if any(isinstance(one, Ragged) for one in columns):
            raise ValueError(
                "lengths must be left out for a column of lists, which are as long as they are, "
                f"got {self._lengths!r}"
            )
        steps = _columns.lengths(self._lengths, batch[self._lengths])
        return self._by_name(network, _sequences.call(network, columns, steps, self._batch_size))

    def _by_name(self, network: Network, found: Sequence[Any]) -> dict[str, Any]:
        return dict(zip(self._outputs, self._chosen(network, found), strict=True))

    def _chosen_columns(self, network: Network, known: list[str]) -> list[list[str]]:
        """The columns of each input."""
        if self._columns is not None:
            return self._columns
        names = [one.name for one in network.inputs]
        left = [name for name in known if name not in (self._lengths, *self._keep)]
        if len(names) == 1 and names[0] not in known and len(left) == 1:
            return [left]
        missing = [name for name in names if name not in known]
        if missing:
            raise ValueError(
                f"columns must name those of the inputs {names}, of the columns {known}: got none"
            )
        return [[name] for name in names]

    def _kept(self, known: list[str]) -> list[str]:
        for name in self._keep:
            if name not in known:
                raise ValueError(f"keep must have names of the columns {known}, got {name!r}")
        return self._keep

    def _of_rows(self, network: Network, rows: list[Any]) -> list[Any]:
        """The outputs of each row."""
        if rows and all(isinstance(row, Mapping) for row in rows):
            known = list(rows[0])
            for number, row in enumerate(rows):
                if set(row) != set(known):
                    raise ValueError(
                        f"batch must have rows of the same columns {known}, got {list(row)} in {number}"
                    )
            found = self._of_columns(network, {name: [row[name] for row in rows] for name in known}, known)
            cells = {name: _cells(one) for name, one in found.items()}
            kept = self._kept(known)
            return [
                {name: cells[name][place] for name in cells} | {name: row[name] for name in kept}
                for place, row in enumerate(rows)
            ]
        if len(network.inputs) > 1:
            names = [one.name for one in network.inputs]
            raise ValueError(f"batch must have dicts with {names} for rows, got others")
        column = _columns.column("batch", rows, network.inputs[0])
        found = self._by_name(network, _sequences.run(network, [column], self._batch_size, ["batch"]))
        cells = {name: _cells(one) for name, one in found.items()}
        if self._single:
            return cells[self._outputs[0]]
        return [list(row) for row in zip(*cells.values(), strict=True)]

    def _of_table(self, network: Network, batch: Any) -> Any:
        """A table of the outputs, of the kind of the batch."""
        need("pyarrow", "batch", "a table")
        import pyarrow

        is_frame = hasattr(batch, "iloc")
        if is_frame:
            table: Any = {}
            for name in batch.columns:
                series = batch[name]
                table[name] = (
                    pyarrow.array(series) if hasattr(series.dtype, "pyarrow_dtype") else series.to_numpy()
                )
        else:
            table = batch if isinstance(batch, pyarrow.Table | pyarrow.RecordBatch) else pyarrow.table(batch)
        known = [str(name) for name in (batch.columns if is_frame else table.column_names)]
        found = self._of_columns(network, table, known)
        columns = {name: _columns.to_arrow(one) for name, one in found.items()}
        if is_frame:
            import pandas

            made = {
                name: pandas.Series(one, dtype=pandas.ArrowDtype(one.type), index=batch.index)
                for name, one in columns.items()
            }
            return pandas.DataFrame(
                made | {name: batch[name] for name in self._kept(known)}, index=batch.index
            )
        kept = {name: table[name] for name in self._kept(known)}
        made = {**columns, **kept}
        fields = [
            table.schema.field(name) if name in kept else pyarrow.field(name, one.type)
            for name, one in made.items()
        ]
        return type(table).from_arrays(list(made.values()), schema=pyarrow.schema(fields))


def _several(name: str, given: Any) -> list[str]:
    found = [given] if isinstance(given, str) else list(given)
    if not all(isinstance(one, str) for one in found):
        raise TypeError(f"{name} must be a name or a sequence of names, got {given!r}")
    return found


def _columns_by_input(columns: Any, inputs: Sequence[Input]) -> list[list[str]] | None:
    """The names of the columns of each input, of what a caller gives."""
    if columns is None:
        return None
    names = [one.name for one in inputs]
    if not isinstance(columns, Mapping):
        if len(names) > 1:
            raise ValueError(f"columns must be a dict with the inputs {names}, got {columns!r}")
        columns = {names[0]: columns}
    if set(columns) != set(names):
        raise ValueError(f"columns must be a dict with the inputs {names}, got {list(columns)}")
    found = [_several("columns", columns[name]) for name in names]
    if not all(found):
        raise ValueError(f"columns must name a column or more for each input, got {columns!r}")
    return found


def _check_whole(block_info: Any, network: Network) -> None:
    """Refuse a block of a Dask array that has not all timesteps and features: its result would be another."""
    counts = block_info[0]["num-chunks"] if block_info and 0 in block_info else ()
    for axis, count in enumerate(counts):
        if count > 1 and axis != network.rows_axis:
            raise ValueError(
                f"the array must be one chunk along axis {axis}, got {count}: rechunk({{{axis}: -1}})"
            )


def _cells(found: Array | Ragged) -> list[Any]:
    """The rows of an output, each an array of its own: a view would keep all others in memory."""
    return [row.copy() for row in (found.rows() if isinstance(found, Ragged) else found)]


def _as_column(found: Array | Ragged) -> Array:
    """An array, or one of objects where rows have different numbers of timesteps."""
    if not isinstance(found, Ragged):
        return found
    cells = _cells(found)
    column = np.empty(len(cells), object)
    column[:] = cells
    return column
