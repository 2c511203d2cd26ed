"""Columns of Parquet's files (`.parquet`) as arrays."""

import os
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from klce.scoring.optional import library
from klce.scoring.readers.base import Reader, damage_named
from klce.scoring.readers.column import Column, ColumnReader, Stream, column_path
from klce.scoring.readers.location import Location

_BATCH_BYTES = 1 << 20
"""Of a column that are decoded at once, which takes several times as much."""


class ParquetFile:
    """A Parquet file, read as a stream of batches; to go back starts at an earlier row group."""

    def __init__(self, location: Location) -> None:
        pa = library("pyarrow", f"{location.file}: reading .parquet files")
        parquet = library("pyarrow.parquet", "")
        self._path = location.file
        file: Any = location.open()  # for an error that names the file
        if not location.remote:
            file.close()
            file = pa.OSFile(os.fsencode(location.file))
        with damage_named(self._path, "not a whole Parquet file"):
            self._file = parquet.ParquetFile(
                file, buffer_size=1 << 20, pre_buffer=False, page_checksum_verification=True
            )
        meta = self._file.metadata
        self._ends = list(
            accumulate(meta.row_group(i).num_rows for i in range(meta.num_row_groups))
        )
        self.names = tuple(self._file.schema_arrow.names)

    def array(self, name: str) -> Reader:
        """Open one of the columns."""
        path = column_path(self._path, self.names, name)
        column = Column(path, self._file.schema_arrow.field(name).type)
        rows = self._ends[-1] if self._ends else 0
        with damage_named(path, "damaged from row 0 on"):
            first = next(self._batches(name, 0, 1))[:1] if rows else None
        batch_rows = _BATCH_BYTES // max(1, column.width(first) * column.dtype.itemsize)
        stream = Stream(lambda group: self._batches(name, group, max(1, batch_rows)), self._ends)
        return ColumnReader(column, rows, first, stream.parts)

    def _batches(self, name: str, group: int, batch_rows: int) -> Iterator[Any]:
        groups = range(group, len(self._ends))
        batches = self._file.iter_batches(
            batch_rows, row_groups=groups, columns=[name], use_threads=False
        )
        return (batch.column(0) for batch in batches)
