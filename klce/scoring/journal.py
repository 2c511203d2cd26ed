"""The rows that a run has finished, kept in a file until the results are whole.

A run with an output writes them to a hidden `.npy` file beside it, with a JSON file that says of
which run they are and a file of checksums, one for each block. What stops the run, even the loss of
the process or of power, leaves these, and a run with ``resume`` goes on behind the last block that
is what it was. As no result depends on the block that it came in, it ends with the same files as a
run that nothing stopped.
"""

import contextlib
import io
import json
import math
import mmap
import os
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from klce import __version__
from klce.scoring.errors import InputError, Interrupted, naming, warn
from klce.scoring.identity import differences, fingerprint
from klce.scoring.locks import lock
from klce.scoring.outputs import is_folder
from klce.scoring.parts import Parts
from klce.scoring.readers import StrPath
from klce.scoring.results import NpyWriter, open_results, write_rows
from klce.scoring.scratch import give_up, scratch_errors, scratch_file
from klce.scoring.whole import give_name, open_whole, to_disk

_SUM = np.dtype([("rows", "<i8"), ("crc", "<u4")])
"""What is kept of a block: the rows that there are with it, and its checksum."""

_CHECKED_BYTES = 4 << 20
"""Bytes of rows that are checked at once."""


class RowFile:
    """Rows of results in a temporary file without a name."""

    def __init__(self, columns: np.dtype[Any]) -> None:
        self.columns = columns
        self.finished = 0
        self._file: BinaryIO = scratch_file()
        self._offset = 0

    def append(self, table: NDArray[Any]) -> None:
        """Add the rows that follow."""
        with self._errors():
            self._file.write(table.tobytes())
            self._file.flush()
        self.finished += len(table)

    def _errors(self) -> contextlib.AbstractContextManager[None]:
        return scratch_errors()

    def rows(self) -> NDArray[Any]:
        """Return all rows so far, as a read-only map of the file."""
        if not self.finished:
            return np.empty(0, self.columns)
        data = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.ndarray((self.finished,), self.columns, data, self._offset)

    def finish(self) -> None:
        """Do with the rows what is to be done at the end: here, nothing."""

    def close(self) -> None:
        """Give up the file."""
        give_up(self._file)

    def __enter__(self) -> "RowFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class NoRows(RowFile):
    """No rows, where none are kept."""

    def __init__(self, columns: np.dtype[Any]) -> None:
        self.columns = columns
        self.finished = 0

    def append(self, table: NDArray[Any]) -> None:
        """Drop rows."""

    def close(self) -> None:
        """There is no file."""


class Journal(RowFile):
    """Rows of results on their way to `out`.

    Attributes
    ----------
    finished : int
        The rows that are there: those of an interrupted run, to begin with.
    """

    def __init__(
        self,
        out: StrPath,
        shape: tuple[int, ...],
        columns: np.dtype[Any],
        run: dict[str, Any],
        *,
        resume: bool,
        written: np.dtype[Any] | None = None,
    ) -> None:
        self.columns = columns
        self.finished = 0
        self._offset = 0
        self._out, self._shape = out, shape
        self._written = columns if written is None else written
        self._parts = Parts(out, self._written) if is_folder(out) else None
        final = self._final = Path(out).resolve()
        self._rows_path = final.with_name(f".{final.name}.rows.npy")
        self._sums_path = final.with_name(f".{final.name}.rows.crc")
        self._run_path = final.with_name(f".{final.name}.run.json")
        run = run | {"klce": __version__, "columns": columns.descr}
        described = json.dumps(run, indent=1).encode()
        run = json.loads(described)  # tuples become lists, as in the file
        self._seed = zlib.crc32(described)  # of checksums: those of another run are none
        # What is locked keeps its name to the end, where the rows may get that of the results.
        with self._errors():
            self._sums: BinaryIO = self._sums_path.open("a+b")
        lock(self._sums, self._sums_path, self._out)
        try:
            found = self._found() if resume else None
            if found is not None and found != run:
                raise InputError(
                    f"{out}: the interrupted run was another: {differences(found, run)}; "
                    "start anew without --resume"
                )
            if resume and found is None and (self._rows_path.exists() or final.exists()):
                warn(f"{out}: no interrupted run to resume, made anew")
            if not resume:
                self._warn_of_rows_given_up(run)
            with self._errors():
                self._file = self._rows_path.open("r+b" if found is not None else "a+b")
        except BaseException:
            give_up(self._sums)
            raise
        try:
            with self._errors():
                self._begin(described, found is not None)
        except BaseException:
            if found is None:
                self.discard()
            else:
                self.close()
            raise

    def _found(self) -> dict[str, Any] | None:
        if not (self._rows_path.exists() and self._run_path.exists()):
            return None
        with contextlib.suppress(ValueError):
            run = json.loads(self._run_path.read_text())
            if isinstance(run, dict):
                return run
        raise InputError(
            f"{self._out}: {self._run_path.name}, which says of which run the finished rows are, "
            "is damaged; start anew without --resume"
        )

    def _warn_of_rows_given_up(self, run: dict[str, Any]) -> None:
        sums = self._recorded()
        if not len(sums) or not self._run_path.exists():
            return
        same = False
        with contextlib.suppress(InputError):  # it is damaged
            same = self._found() == run
        kept = "; --resume would have kept them" if same else ""
        warn(
            f"{self._out}: {sums['rows'][-1]:,} finished rows of an interrupted run are given "
            f"up{kept}"
        )

    def _recorded(self) -> NDArray[Any]:
        """Return what is kept of the blocks."""
        self._sums.seek(0)
        data = self._sums.read()
        return np.frombuffer(data[: len(data) // _SUM.itemsize * _SUM.itemsize], _SUM)

    def _begin(self, described: bytes, resume: bool) -> None:
        header = io.BytesIO()
        NpyWriter(header, self._shape, self.columns)
        self._offset = header.tell()
        if self._parts is not None:
            self._parts.begin(resume=resume)
        if resume:
            size = self._file.seek(0, 2)
            self._file.seek(0)
            if self._file.read(self._offset) == header.getvalue():  # else it ended before
                self.finished = self._whole_rows(size)
                self._file.truncate(self._offset + self.finished * self.columns.itemsize)
                self._file.seek(0, 2)
                return
        # First the rows go, then the run that they are of is named: never the rows of another.
        for rows in (self._file, self._sums):
            rows.seek(0)
            rows.truncate()
        with open_whole(self._run_path) as file:
            file.write(described)
        self._file.write(header.getvalue())
        self._file.flush()

    def _whole_rows(self, size: int) -> int:
        """Return the rows of the blocks that are what they were, of a file of `size` bytes."""
        whole, rows, end = 0, 0, self._offset
        for rows_with, crc in self._recorded().tolist():
            start, end = end, self._offset + rows_with * self.columns.itemsize
            if not start < end <= size or self._checksum(start, end) != crc:
                warn(
                    f"{self._out}: finished rows from {rows:,} on are not what they were, and are "
                    "computed again"
                )
                break
            whole, rows = whole + 1, rows_with
        self._sums.truncate(whole * _SUM.itemsize)
        return rows

    def _checksum(self, start: int, end: int) -> int:
        crc = self._seed
        self._file.seek(start)
        while data := self._file.read(min(end - start, _CHECKED_BYTES)):
            crc = zlib.crc32(data, crc)
            start += len(data)
        return crc

    def append(self, table: NDArray[Any]) -> None:
        """Add the rows that follow; if the disk is full, those that it takes."""
        before = self.finished
        try:
            super().append(table)
        except OSError:
            size = os.fstat(self._file.fileno()).st_size
            taken = (size - self._offset) // self.columns.itemsize - before
            if taken > 0:
                with contextlib.suppress(OSError):
                    self._add_sum(table[:taken], before)
            raise
        self._add_sum(table, before)
        if self._parts is not None and self._parts.due(self.finished):
            with self._errors():
                self._parts.write(self.rows())

    def _add_sum(self, table: NDArray[Any], before: int) -> None:
        """Add the checksum of rows that are there, without which they are not finished."""
        self.finished = before
        crc = zlib.crc32(np.ascontiguousarray(table).view(np.uint8).data, self._seed)
        with self._errors():
            self._sums.write(np.array((before + len(table), crc), _SUM).tobytes())
            self._sums.flush()
        self.finished += len(table)

    def _errors(self) -> contextlib.AbstractContextManager[None]:
        return naming(os.fspath(self._out), self._final.parent)

    def finish(self) -> None:
        """Turn the rows into `out`."""
        if self._parts is not None:
            with self._errors():
                self._parts.finish(self.rows())
        elif self._final.suffix.lower() == ".npy" and self._written == self.columns:
            with self._errors():
                to_disk(self._file)
                if sys.platform == "win32":  # where no open file is renamed
                    self.close()
                give_name(self._rows_path, self._final)
        else:
            with open_results(Path(self._out), self._shape, self._written) as writer:
                write_rows(writer, self.rows(), self._written)
        self.discard()

    def close(self) -> None:
        """Give up the files, and with the last one the lock."""
        super().close()
        give_up(self._sums)

    def discard(self) -> None:
        """Remove the rows, and last what is locked: what another run begins with stays."""
        if sys.platform == "win32":  # where no open file is removed
            self.close()
        if self._parts is not None:
            self._parts.discard()
        for path in (self._rows_path, self._run_path, self._sums_path):
            with contextlib.suppress(OSError):  # not there, or it cannot be helped
                path.unlink()
        self.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file.closed:
            return
        if not self.finished:
            self.discard()
            return
        self.close()
        stop = Interrupted(self.finished, math.prod(self._shape))
        if kind is KeyboardInterrupt:
            raise stop from None
        if error is not None:
            error.add_note(str(stop))


def open_rows(
    out: StrPath | None,
    shape: tuple[int, ...],
    columns: np.dtype[Any],
    inputs: Mapping[str, StrPath | tuple[int, ...] | None],
    run: dict[str, Any],
    *,
    resume: bool,
    written: np.dtype[Any],
    keep: bool,
) -> RowFile:
    """Open the rows of a run: on their way to `out`, or to `keep` for as long as the run takes.

    Those of `columns` that are not to be `written` are kept until then. To resume, the inputs have
    to be the same and the run has to be described by the same words.
    """
    if out is None:
        return RowFile(columns) if keep else NoRows(columns)
    prints = {name: fingerprint(place) for name, place in inputs.items()}
    run = run | {"shape": shape, "inputs": prints}
    return Journal(out, shape, columns, run, resume=resume, written=written)
