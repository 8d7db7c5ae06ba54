"""Jobs over tables in Parquet files and in folders of them: a part is one row group or more of a file."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

PART_BYTES = 8 << 20  # of a part's columns, at least, uncompressed, if the file has as many
READ_BYTES = 8 << 20  # of these that are in memory at a time, about


@dataclasses.dataclass(frozen=True)
class Part:
    """Row groups of a file.

    Attributes
    ----------
    file : str
        Relative to the input.
    groups : tuple of int
        The first one, and the one after the last one.
    name : str
        Of the file that they become, relative to the output.
    rows : int
    step : int
        Rows that are read at a time.
    """

    file: str
    groups: tuple[int, int]
    name: str
    rows: int
    step: int


@dataclasses.dataclass(frozen=True)
class TableJob:
    """Parquet files that are computed part by part.

    Attributes
    ----------
    source, target : str
        Folders of the files that are read and written.
    columns : sequence of str
        That are read.
    parts : sequence of Part
    durable : bool
        True: a part is on disk when it is done.
    """

    source: str
    target: str
    columns: Sequence[str]
    parts: Sequence[Part]
    durable: bool = False

    unit = "rows"

    def size(self, number: int) -> int:
        """What a part counts in the progress."""
        return self.parts[number].rows

    def name(self, number: int) -> str:
        """A part, for messages."""
        part = self.parts[number]
        return f"{Path(self.source) / part.file}, row groups {part.groups[0]} to {part.groups[1] - 1}"

    def compute(self, function: Callable[[Any], Any], number: int) -> None:
        """Read a part, and write what the function makes of it to a file: whole, or not at all."""
        import pyarrow
        from pyarrow import parquet

        part = self.parts[number]
        path = Path(self.target) / part.name
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
        with parquet.ParquetFile(Path(self.source) / part.file) as file:
            empty = file.schema_arrow.empty_table().select(list(self.columns))
            try:
                with parquet.ParquetWriter(new, function(empty).schema) as writer:
                    batches = file.iter_batches(part.step, list(range(*part.groups)), list(self.columns))
                    for batch in batches:
                        writer.write_table(function(pyarrow.Table.from_batches([batch])))
                if self.durable:
                    with new.open("rb") as written:
                        os.fsync(written.fileno())
                new.replace(path)
            finally:
                new.unlink(missing_ok=True)


def files_in(folder: Path, ending: str) -> list[str]:
    """The files of an ending below a folder, by relative path; hidden ones and `_metadata` are left out."""
    found = [path.relative_to(folder) for path in folder.rglob(f"*{ending}") if path.is_file()]
    return [str(path) for path in found if not any(part[0] in "._" for part in path.parts)]


def planned(
    source: Path,
    files: Sequence[str],
    choose: Callable[[Any], Sequence[str]],
    part_bytes: int | None = None,
) -> tuple[list[Part], Any]:
    """The parts of files, and the columns of them that are read.

    Parameters
    ----------
    source : Path
        The folder of the files.
    files : sequence of str
    choose : callable
        From an empty table of a file's schema to the columns that are read; it raises an error if the table
        does not fit.
    part_bytes : int, optional

    Raises
    ------
    ValueError
        If a file is no Parquet file or does not fit; names the file.
    """
    from pyarrow import parquet

    parts: list[Part] = []
    columns: Any = None
    for name in files:
        path = source / name
        try:
            with parquet.ParquetFile(path) as file:
                schema, metadata = file.schema_arrow, file.metadata
                found = list(choose(schema.empty_table()))
        except (ValueError, TypeError, OSError) as error:
            if isinstance(error, OSError) and error.filename is not None:
                raise
            raise ValueError(f"{path}: {error}") from error
        if columns is not None and found != columns:
            raise ValueError(f"{path} must have the columns {columns} of the file before, got {found}")
        columns = found
        parts += _of_file(name, metadata, columns, part_bytes or PART_BYTES)
    return parts, columns


def _of_file(name: str, metadata: Any, columns: Sequence[str], part_bytes: int) -> list[Part]:
    """The parts of one file: row groups that follow each other, of at least this size together."""
    groups = []
    first = rows = size = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        rows += group.num_rows
        chunks = (group.column(i) for i in range(group.num_columns))
        size += sum(
            one.total_uncompressed_size for one in chunks if one.path_in_schema.split(".")[0] in columns
        )
        if size >= part_bytes or number == metadata.num_row_groups - 1:
            groups.append(((first, number + 1), rows, size))
            first, rows, size = number + 1, 0, 0
    stem = name.removesuffix(".parquet")
    parts = []
    for number, (between, rows, size) in enumerate(groups or [((0, 0), 0, 0)]):
        said = f"{stem}.parquet" if len(groups) < 2 else f"{stem}-{number:05}.parquet"
        step = max(1, min(rows, READ_BYTES * rows // max(size, 1)))
        parts.append(Part(name, between, said, rows, step))
    return parts
