"""Columns of Arrow's files (`.arrow`, `.arrows`, `.feather`) and of Parquet's (`.parquet`).

A column of numbers is an array of one axis, one of lists (of a fixed size, or all as long as the
first) an array of two.
"""

import os
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klce.scoring.errors import InputError
from klce.scoring.optional import library
from klce.scoring.readers.base import FileMap, Reader, damage_named, within_rows
from klce.scoring.readers.location import Location

_BATCH_BYTES = 1 << 20
"""Of Parquet that are decoded at once, which takes several times as much."""

_FILE_MARK = b"ARROW1"


class ArrowFile:
    """A file in Arrow's own format (IPC, Feather version 2), mapped."""

    def __init__(self, location: Location) -> None:
        pa = library("pyarrow", f"{location.file}: reading .arrow files")
        library("pyarrow.ipc", "")
        self._path = location.file
        with damage_named(self._path, "not a whole Arrow file"):
            self._file = pa.ipc.open_file(pa.memory_map(os.fsencode(location.path)))
            self.names = tuple(self._file.schema.names)
        with location.open() as file:
            self._map = FileMap(file, self._path)
        self._ends: list[int] = []
        rows = 0
        for i in range(self._file.num_record_batches):
            with damage_named(self._path, f"damaged from row {rows} on"):
                rows += self._file.get_batch(i).num_rows
            self._ends.append(rows)

    def array(self, name: str) -> Reader:
        """Open one of the columns."""
        path = _column_path(self._path, self.names, name)
        index = self._file.schema.get_field_index(name)
        column = Column(path, self._file.schema.field(index).type)
        rows = self._ends[-1] if self._ends else 0
        with damage_named(path, "damaged from row 0 on"):
            first = next(self._parts(index, 0, min(rows, 1)), None)
        return ArrowReader(column, rows, first, lambda a, b: self._parts(index, a, b))

    def _parts(self, index: int, start: int, stop: int) -> Iterator[Any]:
        self._map.check()
        batch = bisect_right(self._ends, start)
        while start < stop:
            first = self._ends[batch - 1] if batch else 0
            end = min(stop, self._ends[batch])
            column = self._file.get_batch(batch).column(index)
            yield _valid(column.slice(start - first, end - start))
            start, batch = end, batch + 1


class ArrowStream:
    """A stream in Arrow's format, mapped; it has no index, so that to go back starts it anew."""

    def __init__(self, location: Location) -> None:
        self._pa = library("pyarrow", f"{location.file}: reading .arrow files")
        library("pyarrow.ipc", "")
        self._path = location.file
        self._rows = 0
        with damage_named(self._path, "not a whole Arrow file or stream"):
            source = self._source()
            stream = self._pa.ipc.open_stream(source)
            self._schema = stream.schema
            self.names = tuple(self._schema.names)
            end = source.tell()
            for batch in stream:
                self._rows += batch.num_rows
                end = source.tell()
            if source.tell() == end:  # pyarrow takes the end of the file for that of the stream
                raise InputError(
                    f"{self._path}: ends without the mark of a stream's end, after "
                    f"{self._rows:,} rows: it is cut off, or its writer was not closed"
                )
        with location.open() as file:
            self._map = FileMap(file, self._path)

    def array(self, name: str) -> Reader:
        """Open one of the columns."""
        path = _column_path(self._path, self.names, name)
        index = self._schema.get_field_index(name)
        column = Column(path, self._schema.field(index).type)
        stream = _Stream(lambda _: self._columns(index), [self._rows])
        with damage_named(path, "damaged from row 0 on"):
            first = next(stream.parts(0, min(self._rows, 1)), None)
        return ArrowReader(column, self._rows, first, lambda a, b: self._parts(stream, a, b))

    def _parts(self, stream: "_Stream", start: int, stop: int) -> Iterator[Any]:
        self._map.check()
        return stream.parts(start, stop)

    def _columns(self, index: int) -> Iterator[Any]:
        batches = self._pa.ipc.open_stream(self._source())
        return (_valid(batch.column(index)) for batch in batches)

    def _source(self) -> Any:
        return self._pa.memory_map(os.fsencode(self._path))


def open_arrow(location: Location) -> ArrowFile | ArrowStream:
    """Open Arrow's own format, as a file, which begins and ends with a mark, or as a stream."""
    with location.path.open("rb") as file:  # for an error that names the file
        marked = file.read(len(_FILE_MARK)) == _FILE_MARK
    return ArrowFile(location) if marked else ArrowStream(location)


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
        path = _column_path(self._path, self.names, name)
        column = Column(path, self._file.schema_arrow.field(name).type)
        rows = self._ends[-1] if self._ends else 0
        with damage_named(path, "damaged from row 0 on"):
            first = next(self._batches(name, 0, 1))[:1] if rows else None
        batch_rows = _BATCH_BYTES // max(1, column.width(first) * column.dtype.itemsize)
        stream = _Stream(lambda group: self._batches(name, group, max(1, batch_rows)), self._ends)
        return ArrowReader(column, rows, first, stream.parts)

    def _batches(self, name: str, group: int, batch_rows: int) -> Iterator[Any]:
        groups = range(group, len(self._ends))
        batches = self._file.iter_batches(
            batch_rows, row_groups=groups, columns=[name], use_threads=False
        )
        return (batch.column(0) for batch in batches)


def _column_path(path: str, names: tuple[str, ...], name: str) -> str:
    """Return what names a column in errors, of which there is one of that name."""
    if names.count(name) > 1:
        raise InputError(f"{path}: {names.count(name)} columns are named {name!r}")
    return f"{path}::{name}" if len(names) > 1 else path


class _Stream:
    """Slices of a stream that can be opened at each group of rows, which end at `ends`."""

    def __init__(self, open_at: Any, ends: list[int]) -> None:
        self._open_at, self._ends = open_at, ends
        self._batches: Iterator[Any] = iter(())
        self._batch: Any = None
        self._position = 0  # of the batch
        self._opened = False

    def parts(self, start: int, stop: int) -> Iterator[Any]:
        """Yield the rows from `start` to `stop`, in one part or more."""
        if start < stop and (not self._opened or start < self._position):
            group = bisect_right(self._ends, start)
            self._position = self._ends[group - 1] if group else 0
            self._batches, self._batch, self._opened = self._open_at(group), None, True
        while start < stop:
            if self._batch is None:
                self._batch = next(self._batches, None)
            if self._batch is None:
                raise OSError(f"there are {self._ends[-1] - self._position} rows less than it says")
            end = self._position + len(self._batch)
            if start < end:
                yield self._batch.slice(start - self._position, min(stop, end) - start)
                start = min(stop, end)
            if start >= end:
                self._position, self._batch = end, None


class Column:
    """What a column's type means as an array."""

    def __init__(self, path: str, kind: Any) -> None:
        pa = library("pyarrow", path)
        self.path = path
        self.lists = (
            pa.types.is_fixed_size_list(kind)
            or pa.types.is_list(kind)
            or pa.types.is_large_list(kind)
        )
        self._size = kind.list_size if pa.types.is_fixed_size_list(kind) else None
        self.of_any_length = self.lists and self._size is None
        value = kind.value_type if self.lists else kind
        kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
        if not any(is_kind(value) for is_kind in kinds):
            raise InputError(f"{path}: a column of {kind}, not of numbers or of lists of them")
        self.dtype: np.dtype[Any] = np.dtype(value.to_pandas_dtype())

    def width(self, first: Any) -> int:
        """Return the numbers in a row, given the first row, if there is one."""
        if not self.lists:
            return 1
        if self._size is not None:
            return int(self._size)
        if first is not None and first.null_count:
            raise InputError(f"{self.path}: row 0 is null")
        return 0 if first is None else len(first.flatten())

    def numbers(self, part: Any, row: int, width: int) -> NDArray[Any]:
        """Return the numbers of rows, the first of which is number `row`, as a flat array."""
        if part.null_count:
            at = int(np.argmax(part.is_null().to_numpy(zero_copy_only=False)))
            raise InputError(f"{self.path}: row {row + at} is null")
        if not self.lists:
            return _numpy(part)
        if self._size is None:
            lengths = _numpy(part.value_lengths())
            if (lengths != width).any():
                at = int((lengths != width).argmax())
                raise InputError(
                    f"{self.path}: row {row + at} has {lengths[at]} numbers, row 0 has {width}"
                )
        values = part.flatten()
        if values.null_count:
            at = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
            raise InputError(f"{self.path}: row {row + at // width} has a null in it")
        return _numpy(values)


class ArrowReader(Reader):
    """A column."""

    def __init__(self, column: Column, rows: int, first: Any, parts: Any) -> None:
        self.path, self.dtype = column.path, column.dtype
        self._width = column.width(first)
        self.shape: tuple[int, ...] = (rows, self._width) if column.lists else (rows,)
        self.sized = rows > 0 or not column.of_any_length
        self._column, self._parts = column, parts

    def read(self, start: int, stop: int, leading: int) -> NDArray[Any]:
        """Return items `start` to `stop`, numbered in C order over the first `leading` axes."""
        if leading > 1:
            return within_rows(lambda a, b: self.read(a, b, 1), start, stop, self._width)
        values, row = np.empty((stop - start, *self.shape[1:]), self.dtype), start
        remaining = self._parts(start, stop)
        while row < stop:
            with damage_named(self.path, f"damaged from row {row} on"):
                part = next(remaining)
            numbers = self._column.numbers(part, row, self._width)
            numbers = numbers.reshape(len(part), *self.shape[1:])
            if len(part) == len(values):  # a view of the map, where there is one
                return numbers
            values[row - start :][: len(part)] = numbers  # and no part is held any longer
            row += len(part)
        return values


def _valid(part: Any) -> Any:
    """Return a part of a file that is mapped, whose offsets nobody else has looked at."""
    part.validate(full=True)
    return part


def _numpy(values: Any) -> NDArray[Any]:
    array: NDArray[Any] = values.to_numpy(zero_copy_only=False)
    return array
