"""Results row by row, and the files that hold them.

A format is a class with a `write` method and one row in `WRITERS`. A file appears under its name
only when it is whole: rows go to a temporary file in the same folder, which is then renamed.
"""

import contextlib
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.lib import format as npy
from numpy.typing import DTypeLike, NDArray

from klce.scoring.errors import InputError

_CSV_ROWS_AT_ONCE = 8192


def row_dtype(dtype: DTypeLike, *, labelled: bool) -> np.dtype[Any]:
    """Return the columns of per-row results, in nats, for logits of `dtype`.

    ``target`` is the label as the file has it and ``nll`` is 0 where that is ignored; both are
    there only when there are labels. ``argmax`` is the first class of the largest logit.
    """
    real = np.dtype(dtype)
    columns = [("argmax", np.int64), ("entropy", real), ("logsumexp", real)]
    if labelled:
        columns = [("target", np.int64), ("nll", real), *columns]
    return np.dtype(columns)


class Writer(Protocol):
    """Takes the rows of a results file in order."""

    def write(self, table: NDArray[Any]) -> None:
        """Append rows."""
        ...


class NpyWriter:
    """A structured array of the shape of the rows."""

    def __init__(self, file: BinaryIO, shape: tuple[int, ...], columns: np.dtype[Any]) -> None:
        self._file = file
        header = {"descr": npy.dtype_to_descr(columns), "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(file, header)

    def write(self, table: NDArray[Any]) -> None:
        """Append rows."""
        self._file.write(table.tobytes())


class CsvWriter:
    """A heading and a line per row: its number, then its columns.

    Numbers are the shortest that read back as the same ones.
    """

    def __init__(self, file: BinaryIO, shape: tuple[int, ...], columns: np.dtype[Any]) -> None:
        self._file = file
        self._next_row = 0
        self._write_lines([",".join(["row", *(columns.names or ())])])

    def write(self, table: NDArray[Any]) -> None:
        """Append rows."""
        for start in range(0, len(table), _CSV_ROWS_AT_ONCE):
            part = table[start : start + _CSV_ROWS_AT_ONCE]
            numbers = np.arange(self._next_row, self._next_row + len(part))
            columns = [numbers, *(part[name] for name in part.dtype.names or ())]
            self._write_lines(map(",".join, zip(*(c.astype(str) for c in columns), strict=True)))
            self._next_row += len(part)

    def _write_lines(self, lines: Iterable[str]) -> None:
        self._file.write("".join(line + "\n" for line in lines).encode("ascii"))


WRITERS: dict[str, Callable[[BinaryIO, tuple[int, ...], np.dtype[Any]], Writer]] = {
    ".npy": NpyWriter,
    ".csv": CsvWriter,
}


def check_results_path(path: Path, inputs: list[Path]) -> None:
    """Refuse, before any work, a path that results cannot or should not be written to."""
    if path.suffix.lower() not in WRITERS:
        known = ", ".join(WRITERS)
        raise InputError(f"{path}: not a file type that klce writes results to ({known})")
    if path.is_dir():
        raise InputError(f"{path}: is a folder, not a file for results")
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}")
    for source in inputs:
        if path.exists() and path.samefile(source):
            raise InputError(f"{path}: results would replace the input {source}")


@contextlib.contextmanager
def open_results(path: Path, shape: tuple[int, ...], columns: np.dtype[Any]) -> Iterator[Writer]:
    """Open a writer of results of rows of `shape`; the file appears if the block ends well."""
    final = path.resolve()  # a symbolic link stays one
    temporary = final.with_name(f".{final.name}.{secrets.token_hex(4)}.part")
    try:
        with temporary.open("xb") as file:
            yield WRITERS[path.suffix.lower()](file, shape, columns)
        os.replace(temporary, final)
    except OSError as error:
        if error.filename in (None, str(temporary)):  # a full disk names no file
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
