"""Results row by row as a folder of Parquet files, its parts, which is read as one table.

A part is a fixed range of rows, which follows from the columns alone: from the files, it cannot be
told in what blocks, by which engine and in how many runs they were computed. Parts are written as
rows come in, to a hidden folder beside, which takes the name once it has all.
"""

import contextlib
import functools
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klce import __version__
from klce.scoring.errors import InputError
from klce.scoring.optional import library
from klce.scoring.readers import StrPath
from klce.scoring.results import ParquetWriter, arrow_schema, open_writer, rows_in_group, write_rows
from klce.scoring.whole import give_name

_GROUPS = 8
"""Row groups of a part."""

_NAME = re.compile(r"part-\d{6,}\.parquet")

_METADATA = {"klce": __version__}
"""What a part has in its footer: the key tells it from any other file of such a name."""


def check_content(out: StrPath) -> None:
    """Refuse a folder of which anything would be lost."""
    path = Path(out)
    for entry in sorted(path.iterdir()) if path.is_dir() else ():
        if not _is_part(entry):
            raise InputError(
                f"{out}: --out replaces a folder only if it has nothing but parts that klce wrote, "
                f"and {entry.name} is none"
            )


def _is_part(path: Path) -> bool:
    footer = _footer(path) if _NAME.fullmatch(path.name) else None
    return footer is not None and b"klce" in (footer.metadata or {})


def _footer(path: Path) -> Any:
    """Return what the end of a Parquet file says; None where the file is not whole."""
    parquet = library("pyarrow.parquet", "reading .parquet files")
    try:
        return parquet.read_metadata(path)
    except (OSError, ValueError):  # pyarrow's errors are of these
        return None


def part_name(part: int) -> str:
    """Return the name of a part, by its number."""
    return f"part-{part:06}.parquet"


class Parts:
    """The parts of rows that come in order, on their way to the folder `out`."""

    def __init__(self, out: StrPath, columns: np.dtype[Any]) -> None:
        self._out, self._columns = out, columns
        self._final = Path(out).resolve()  # a symbolic link stays one
        self._folder = self._final.with_name(f".{self._final.name}.parts")
        self._schema = arrow_schema(columns, _METADATA)
        self._part_rows = _GROUPS * rows_in_group(columns)
        self._written = 0

    def begin(self, *, resume: bool) -> None:
        """Take over the whole parts of an interrupted run, or remove all there are."""
        if not resume:
            _remove(self._folder)
        self._folder.mkdir(exist_ok=True)
        kept = set()
        while self._is_whole(self._folder / part_name(self._written)):
            kept.add(part_name(self._written))
            self._written += 1
        for path in self._folder.iterdir():  # half a part, or parts of other columns
            if path.name not in kept:
                path.unlink()

    def _is_whole(self, path: Path) -> bool:
        footer = _footer(path)
        return (
            footer is not None
            and footer.num_rows == self._part_rows
            and footer.schema.to_arrow_schema().equals(self._schema, check_metadata=True)
        )

    def due(self, finished: int) -> bool:
        """Tell whether the first so many rows make a part that is not there yet."""
        return finished >= (self._written + 1) * self._part_rows

    def write(self, rows: NDArray[Any]) -> None:
        """Write the parts that all rows so far make, those that are not there yet."""
        self._write_to(len(rows) // self._part_rows, rows)

    def finish(self, rows: NDArray[Any]) -> None:
        """Write what is left of all rows, and let the folder appear under its name."""
        self._write_to(max(1, -(-len(rows) // self._part_rows)), rows)
        check_content(self._out)  # once more, since it was some time ago
        before = self._final.with_name(f".{self._final.name}.old")
        if self._final.exists():
            _remove(before)
            os.replace(self._final, before)
        give_name(self._folder, self._final)
        shutil.rmtree(before, ignore_errors=True)

    def _write_to(self, end: int, rows: NDArray[Any]) -> None:
        for part in range(self._written, end):
            start = part * self._part_rows
            some = rows[start : start + self._part_rows]
            make = functools.partial(
                ParquetWriter,
                shape=some.shape,
                columns=self._columns,
                first_row=start,
                metadata=_METADATA,
            )
            with open_writer(self._folder / part_name(part), make) as writer:
                write_rows(writer, some, self._columns)
            self._written += 1

    def discard(self) -> None:
        """Remove what is not under its name."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _remove(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
