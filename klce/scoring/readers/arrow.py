"""Columns of files in Arrow's own format (`.arrow`, `.arrows`, `.feather`) as arrays."""

import os
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any

from klce.scoring.errors import InputError
from klce.scoring.optional import library
from klce.scoring.readers.base import FileMap, Reader, damage_named
from klce.scoring.readers.column import Column, ColumnReader, Stream, column_path
from klce.scoring.readers.location import Location

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
        path = column_path(self._path, self.names, name)
        index = self._file.schema.get_field_index(name)
        column = Column(path, self._file.schema.field(index).type)
        rows = self._ends[-1] if self._ends else 0
        with damage_named(path, "damaged from row 0 on"):
            first = next(self._parts(index, 0, min(rows, 1)), None)
        return ColumnReader(column, rows, first, lambda a, b: self._parts(index, a, b))

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
        path = column_path(self._path, self.names, name)
        index = self._schema.get_field_index(name)
        column = Column(path, self._schema.field(index).type)
        stream = Stream(lambda _: self._columns(index), [self._rows])
        with damage_named(path, "damaged from row 0 on"):
            first = next(stream.parts(0, min(self._rows, 1)), None)
        return ColumnReader(column, self._rows, first, lambda a, b: self._parts(stream, a, b))

    def _parts(self, stream: Stream, start: int, stop: int) -> Iterator[Any]:
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


def _valid(part: Any) -> Any:
    """Return a part of a file that is mapped, whose offsets nobody else has looked at."""
    part.validate(full=True)
    return part
