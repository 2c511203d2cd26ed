"""The loop of every run: blocks of rows, one after the other, to whoever wants their results."""

import contextlib
import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from klce.scoring.engines import Engine
from klce.scoring.errors import InputError, warn
from klce.scoring.files import Files
from klce.scoring.inputs import Rows, check_integer
from klce.scoring.journal import RowFile
from klce.scoring.readers.base import DECODED_BYTES, Chunks

# Enough rows to keep every thread busy, while Python's share of a block, a third of a millisecond,
# does not count; few enough that Ctrl-C acts at once. What is no view, but read or converted, is
# less, since it takes memory. Rows are limited too: with two classes, their results are larger than
# the logits.
_VIEW_BYTES = 128 << 20
_COPY_BYTES = 32 << 20
_BLOCK_ROWS = 1 << 17
# A block of rows of several maps is a copy: of maps that are too small to be blocks.
_JOINED_BYTES = 4 << 20

MEMORY = 256 << 20
"""Bytes that a run may take by default, beyond the maps of its files."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """How a file is cut into blocks.

    Attributes
    ----------
    rows : int
        All rows.
    row_bytes : int
        Bytes of a row in the files, which progress counts.
    block_rows : int
        Rows of a block.
    chunk_rows : int
        Rows whose chunks are decoded together.
    ends : tuple of int
        Rows at which another map begins, in order: a block ends there, unless it has few rows.
    joined_rows : int
        Rows of a block, at most, that goes on behind such an end.
    """

    rows: int
    row_bytes: int
    block_rows: int
    chunk_rows: int = 1
    ends: tuple[int, ...] = ()
    joined_rows: int = 0

    def spans(self, start: int = 0) -> Iterator[tuple[int, int]]:
        """Yield where blocks from row `start` on begin and end: with chunks, where they can."""
        while start < self.rows:
            stop = (start + self.block_rows) // self.chunk_rows * self.chunk_rows
            stop = min(stop if stop > start else start + self.block_rows, self.rows)
            stop = self._cut(start, stop)
            yield start, stop
            start = stop

    def _cut(self, start: int, stop: int) -> int:
        """Return the last end within the rows that may be joined, or else the first one."""
        first = bisect_right(self.ends, start)
        last = bisect_right(self.ends, start + self.joined_rows) - 1
        return min(stop, self.ends[max(first, last)]) if first < len(self.ends) else stop


def plan_blocks(
    inputs: Sequence[Rows],
    *,
    memory: int,
    block_rows: int | None,
    working_row_bytes: int = 0,
    block_bytes: int | None = None,
) -> Plan:
    """Choose the rows of a block: within `memory`, and one row at least.

    They are whole chunks, so that none is decoded twice, where there is room for those; else even
    parts of them, as few as there is room for, and a warning says so. `working_row_bytes` is what
    the computation itself takes for a row, `block_bytes` what a block has if it may: by default
    more where all of it are views. Then blocks end where maps do, so that they are views, but for
    chunks.
    """
    row_bytes = sum(rows.row_bytes for rows in inputs)
    check_integer("memory", memory)
    if memory < 1:
        raise InputError(f"memory must be at least 1 byte, got {memory}")
    if block_rows is not None:
        check_integer("block_rows", block_rows)
    if block_rows is not None and block_rows < 1:
        raise InputError(f"block_rows must be at least 1, got {block_rows}")
    chunked = [(rows, rows.chunks) for rows in inputs if rows.chunks is not None]
    joined, joined_row_bytes = 0, sum(rows.row_bytes for rows in inputs if rows.ends)
    ends: tuple[int, ...] = ()
    if chunked or block_bytes is not None:  # any block may be a copy
        working_row_bytes += joined_row_bytes
    elif joined_row_bytes:
        joined = min(_JOINED_BYTES, memory // 8) // joined_row_bytes
        ends = tuple(sorted({end for rows in inputs for end in rows.ends}))
    if block_bytes is None:
        block_bytes = _COPY_BYTES if any(rows.block_row_bytes for rows in inputs) else _VIEW_BYTES
    # Twice, since the next block is read before the last one is given back.
    held = max(1, 2 * (sum(rows.block_row_bytes for rows in inputs) + working_row_bytes))
    decoding = sum(chunks.decoding_bytes for _, chunks in chunked)
    taken = decoding + 2 * joined * joined_row_bytes
    room = max(1, max(memory - taken, memory // 4) // held)
    usual = max(1, min(block_bytes // row_bytes, _BLOCK_ROWS, room))
    # Where a block has no room for whole chunks, it need have them only if they are not kept.
    again = [(rows, chunks) for rows, chunks in chunked if not chunks.kept]
    chunk = math.lcm(*(chunks.rows for _, chunks in chunked))
    if chunk > room:
        chunk = max((chunks.rows for _, chunks in again or chunked), default=1)
    if block_rows is None:
        if chunk > room:
            block_rows = -(-chunk // -(-chunk // (room if again else usual)))
        elif chunked and not again:
            block_rows = chunk  # a view of the one that is kept
        else:
            block_rows = max(1, usual // chunk) * chunk
        _warn_of_chunks(chunked, block_rows, memory, decoding, held)
    file_row_bytes = sum(rows.file_row_bytes for rows in inputs)
    return Plan(inputs[0].rows, file_row_bytes, block_rows, chunk, ends, min(joined, block_rows))


def _warn_of_chunks(
    inputs: list[tuple[Rows, Chunks]], block_rows: int, memory: int, decoding: int, held: int
) -> None:
    takes = decoding + block_rows * held
    for rows, chunks in inputs:
        size = f"chunks of {chunks.rows:,} rows and {_size(chunks.chunk_bytes)}"
        over = f"the run takes up to {_size(takes)}" if takes > memory else ""
        told = f"{rows.path}: {size} are too large for memory {_size(memory)}: "
        if block_rows < chunks.rows and not chunks.kept:
            times = f"each is decoded {-(-chunks.rows // block_rows)} times"
            enough = _size(decoding + chunks.rows * held)
            told += f"{times}{over and ' and '}{over}; with --memory {enough} it is once"
        elif over and chunks.chunk_bytes > DECODED_BYTES:
            told += over
        else:
            continue
        warn(told)
        return


def _size(count: int) -> str:
    """Return a number of bytes, rounded up, in a unit of which it is not a few only."""
    for unit, each in (("MB", 10**6), ("kB", 10**3)):
        if count >= 10 * each:
            return f"{-(-count // each)}{unit}"
    return f"{count:,} bytes" if count != 1 else "1 byte"


def run_blocks(
    plan: Plan,
    engine: Engine,
    files: Files,
    consumers: Sequence[Callable[[NDArray[Any]], None]],
    store: RowFile,
    progress: Progress | None,
) -> None:
    """Hand the results of all rows, in order, to the consumers, and keep them in `store`.

    Rows that `store` holds already are not computed again.
    """
    finished, rows = store.finished, store.rows()
    for start in range(0, finished, _BLOCK_ROWS):
        for consume in consumers:
            consume(rows[start : start + _BLOCK_ROWS])
    with contextlib.closing(engine.tables(files, plan.spans(finished))) as tables:
        for table in tables:
            finished += len(table)
            store.append(table)
            for consume in consumers:
                consume(table)
            if progress is not None:
                progress(finished * plan.row_bytes, plan.rows * plan.row_bytes)
