"""Results row by row, and the files that hold them.

A format is a `Writer` and one row in `WRITERS`.
"""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Protocol

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from klce._columns import arrow_array, one_each
from klce.scoring.optional import library
from klce.scoring.whole import open_whole

_ROWS_AT_ONCE, _BYTES_AT_ONCE = 8192, 1 << 20
"""The most that is turned into text at once."""

_ROWS_IN_GROUP, _BYTES_IN_GROUP = 1 << 17, 32 << 20
"""The most in a row group of Parquet and in a batch of Arrow."""

_ROWS_TO_COPY, _BYTES_TO_COPY = 1 << 16, 16 << 20
"""The most that is copied out of kept rows at once."""


class Writer(Protocol):
    """Takes the rows of a results file in order.

    Attributes
    ----------
    needs : str or None
        The library that it needs.
    """

    needs: ClassVar[str | None]

    def __init__(self, file: BinaryIO, shape: tuple[int, ...], columns: np.dtype[Any]) -> None: ...

    def write(self, table: NDArray[Any]) -> None:
        """Append rows."""
        ...

    def close(self) -> None:
        """Write what comes after the last row."""
        ...


class NpyWriter:
    """An array of the shape of the rows, structured where they have columns: a header, then it."""

    needs: ClassVar[str | None] = None

    def __init__(self, file: BinaryIO, shape: tuple[int, ...], columns: np.dtype[Any]) -> None:
        self._file = file
        header = {"descr": npy.dtype_to_descr(columns), "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(file, header)

    def write(self, table: NDArray[Any]) -> None:
        """Append rows."""
        self._file.write(table.tobytes())

    def close(self) -> None:
        """Nothing comes after the rows."""


class CsvWriter:
    """A heading and a line per row: its number, then its columns, of several values one each.

    Numbers are the shortest that read back as the same ones.
    """

    needs: ClassVar[str | None] = None

    def __init__(self, file: BinaryIO, shape: tuple[int, ...], columns: np.dtype[Any]) -> None:
        self._file = file
        self._next_row = 0
        self._write_lines([",".join(["row", *_one_each(np.empty(0, columns))])])

    def write(self, table: NDArray[Any]) -> None:
        """Append rows."""
        for part in _parts(table):
            numbers = np.arange(self._next_row, self._next_row + len(part))
            columns = [numbers, *_one_each(part).values()]
            self._write_lines(map(",".join, zip(*map(_texts, columns), strict=True)))
            self._next_row += len(part)

    def close(self) -> None:
        """Nothing comes after the rows."""

    def _write_lines(self, lines: Iterable[str]) -> None:
        self._file.write("".join(line + "\n" for line in lines).encode("ascii"))


class JsonLinesWriter:
    """An object per line and row, with its number. JSON has no nan and no inf: they are null."""

    needs: ClassVar[str | None] = None

    def __init__(self, file: BinaryIO, shape: tuple[int, ...], columns: np.dtype[Any]) -> None:
        self._file = file
        self._next_row = 0
        self._names = ("row", *(columns.names or ()))

    def write(self, table: NDArray[Any]) -> None:
        """Append rows."""
        for part in _parts(table):
            numbers = range(self._next_row, self._next_row + len(part))
            columns = [numbers, *(_json_values(part[name]) for name in self._names[1:])]
            lines = (
                json.dumps(dict(zip(self._names, values, strict=True))) + "\n"
                for values in zip(*columns, strict=True)
            )
            self._file.write("".join(lines).encode("ascii"))
            self._next_row += len(part)

    def close(self) -> None:
        """Nothing comes after the rows."""


class ArrowWriter:
    """Arrow's own format: the row's number, and a column each."""

    needs: ClassVar[str | None] = "pyarrow"

    def __init__(
        self,
        file: BinaryIO,
        shape: tuple[int, ...],
        columns: np.dtype[Any],
        *,
        first_row: int = 0,
        metadata: dict[str, str] | None = None,
    ) -> None:
        self._pa = library("pyarrow", "writing .arrow files")
        library("pyarrow.ipc", "")
        self._schema = arrow_schema(columns, metadata)
        self._group = rows_in_group(columns)
        self._next_row = first_row
        self._pending: list[NDArray[Any]] = []
        self._pending_rows = 0
        self._writer = self._open(file)

    def _open(self, file: BinaryIO) -> Any:
        return self._pa.ipc.new_file(file, self._schema)

    def write(self, table: NDArray[Any]) -> None:
        """Append rows, which are gathered to groups of a fixed size, whatever they come in."""
        while len(table):
            room = self._group - self._pending_rows
            self._pending.append(table[:room])
            self._pending_rows += len(table[:room])
            table = table[room:]
            if self._pending_rows == self._group:
                self._flush()

    def close(self) -> None:
        """Write the last group and the footer."""
        try:
            if self._pending_rows:
                self._flush()
        finally:  # it lets go of the file, or it would try to at some later time
            self._writer.close()

    def _flush(self) -> None:
        rows = np.concatenate(self._pending)
        numbers = np.arange(self._next_row, self._next_row + len(rows))
        columns = [numbers, *(rows[name] for name in rows.dtype.names or ())]
        arrays = [arrow_array(self._pa, column) for column in columns]
        self._writer.write_table(self._pa.table(arrays, schema=self._schema))
        self._next_row += len(rows)
        self._pending, self._pending_rows = [], 0


class ParquetWriter(ArrowWriter):
    """Parquet: the same columns."""

    def _open(self, file: BinaryIO) -> Any:
        return open_parquet(file, self._schema, dictionary=_repeating(self._schema))


def arrow_schema(columns: np.dtype[Any], metadata: dict[str, str] | None) -> Any:
    """Return the columns of a table of Arrow: the row's number, and those."""
    pa = library("pyarrow", "writing .arrow files")

    def kind(dtype: np.dtype[Any]) -> Any:
        value = pa.from_numpy_dtype(dtype.base)
        return pa.list_(value, dtype.shape[0]) if dtype.shape else value

    fields = [(name, kind(columns[name])) for name in columns.names or ()]
    return pa.schema([("row", pa.int64()), *fields], metadata)


def _repeating(schema: Any) -> list[str]:
    """Return, by Parquet's names, the columns whose values come again, such as classes.

    Row numbers never do, floats seldom: a dictionary of them would be larger than they.
    """
    types = library("pyarrow.types", "")
    found = []
    for field in schema:
        several = types.is_fixed_size_list(field.type)
        value = field.type.value_type if several else field.type
        if field.name != "row" and not types.is_floating(value):
            found.append(f"{field.name}.list.element" if several else field.name)
    return found


def rows_in_group(columns: np.dtype[Any]) -> int:
    """Return the rows of a row group of Parquet, and of a batch of Arrow."""
    return max(1, min(_ROWS_IN_GROUP, _BYTES_IN_GROUP // columns.itemsize))


def open_parquet(file: BinaryIO, schema: Any, *, dictionary: bool | list[str]) -> Any:
    """Open pyarrow's writer of Parquet files, with dictionaries of all columns, of none or of some.

    When it could not write the end of the file, it would try again at some later time, and complain
    on stderr that the file is closed.
    """
    parquet = library("pyarrow.parquet", "writing .parquet files")

    class Writer(parquet.ParquetWriter):  # type: ignore[misc, name-defined]
        def close(self) -> None:
            try:
                super().close()
            finally:
                self.is_open = False

    return Writer(file, schema, use_dictionary=dictionary)


WRITERS: dict[str, type[Writer]] = {
    ".npy": NpyWriter,
    ".csv": CsvWriter,
    ".jsonl": JsonLinesWriter,
    ".parquet": ParquetWriter,
    ".arrow": ArrowWriter,
}


@contextlib.contextmanager
def open_results(path: Path, shape: tuple[int, ...], columns: np.dtype[Any]) -> Iterator[Writer]:
    """Open a writer of results of rows of `shape`; the file appears if the block ends well."""
    make = WRITERS[path.suffix.lower()]
    with open_writer(path, lambda file: make(file, shape, columns)) as writer:
        yield writer


@contextlib.contextmanager
def open_writer(path: Path, make: Callable[[BinaryIO], Writer]) -> Iterator[Writer]:
    """Open a writer that `make` puts on a file, which appears if the block ends well."""
    with open_whole(path) as file:
        writer = make(file)
        try:
            yield writer
        except BaseException:
            with contextlib.suppress(Exception):  # a library has to let go of the file, no more
                writer.close()
            raise
        writer.close()


def write_rows(writer: Writer, rows: NDArray[Any], columns: np.dtype[Any]) -> None:
    """Append kept rows, which may be a map and have more columns than those to write."""
    step = max(1, min(_ROWS_TO_COPY, _BYTES_TO_COPY // rows.dtype.itemsize))
    for start in range(0, len(rows), step):
        writer.write(with_columns(rows[start : start + step], columns))


def with_columns(table: NDArray[Any], columns: np.dtype[Any]) -> NDArray[Any]:
    """Return a table with those of its columns."""
    if table.dtype == columns:
        return table
    found = np.empty(table.shape, columns)
    for name in columns.names or ():
        found[name] = table[name]
    return found


def _parts(table: NDArray[Any]) -> Iterator[NDArray[Any]]:
    most = max(1, min(_ROWS_AT_ONCE, _BYTES_AT_ONCE // table.dtype.itemsize))
    for start in range(0, len(table), most):
        yield table[start : start + most]


def _one_each(table: NDArray[Any]) -> dict[str, NDArray[Any]]:
    return one_each((name, table[name]) for name in table.dtype.names or ())


def _texts(column: NDArray[Any]) -> list[str]:
    """Return numbers as texts, of Python's type: Ctrl-C may be lost while NumPy's are made."""
    texts: list[str] = column.astype(str).tolist()
    return texts


def _json_values(column: NDArray[Any]) -> list[Any]:
    if column.ndim == 2:
        width, values = column.shape[1], _json_values(column.reshape(-1))
        return [values[start : start + width] for start in range(0, len(values), width)]
    if column.dtype.kind != "f":
        exact: list[Any] = column.tolist()
        return exact
    # By way of their shortest text, so that a float32 does not show the digits of a float64.
    finite = np.isfinite(column)
    return [
        float(text) if number else None for text, number in zip(_texts(column), finite, strict=True)
    ]
