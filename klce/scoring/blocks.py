"""The loop of every run: blocks of rows, one after the other, to whoever wants their results."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from klce.scoring.engines import Computation, Engine
from klce.scoring.errors import InputError
from klce.scoring.inputs import Logits
from klce.scoring.journal import RowFile

# Enough rows to keep every thread busy, few enough that Ctrl-C acts at once and that a block which
# must be converted stays small. Rows are limited too: with two classes, their results are larger
# than the logits.
_BLOCK_BYTES = 32 << 20
_BLOCK_ROWS = 1 << 17

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
    """

    rows: int
    row_bytes: int
    block_rows: int


def plan_blocks(
    inputs: Sequence[Logits],
    *,
    memory: int,
    block_rows: int | None,
    working_row_bytes: int = 0,
) -> Plan:
    """Choose the rows of a block: within `memory`, and one row at least.

    `working_row_bytes` is what the computation itself takes for a row.
    """
    row_bytes = sum(logits.row_bytes for logits in inputs)
    if memory < 1:
        raise InputError(f"memory must be at least 1 byte, got {memory}")
    if block_rows is None:
        # Twice, since the next block is read before the last one is given back.
        held = 2 * (sum(logits.block_row_bytes for logits in inputs) + working_row_bytes)
        block_rows = min(_BLOCK_BYTES // row_bytes, _BLOCK_ROWS, memory // max(held, 1))
        # Whole chunks, so that none is read twice, if memory allows one.
        chunk = max(logits.chunk_rows for logits in inputs)
        if chunk * held <= memory:
            block_rows = max(1, block_rows // chunk) * chunk
        block_rows = max(1, block_rows)
    elif block_rows < 1:
        raise InputError(f"block_rows must be at least 1, got {block_rows}")
    return Plan(inputs[0].rows, row_bytes, block_rows)


def run_blocks(
    plan: Plan,
    engine: Engine,
    computation: Computation,
    consumers: Sequence[Callable[[NDArray[Any]], None]],
    store: RowFile | None,
    progress: Progress | None,
) -> None:
    """Hand the results of all rows, in order, to the consumers, and keep them in `store`.

    Rows that `store` holds already are not computed again.
    """
    finished = 0 if store is None else store.finished
    if store is not None and finished:
        rows = store.rows()
        for start in range(0, finished, _BLOCK_ROWS):
            for consume in consumers:
                consume(rows[start : min(start + _BLOCK_ROWS, finished)])
    starts = range(finished, plan.rows, plan.block_rows)
    spans = ((start, min(start + plan.block_rows, plan.rows)) for start in starts)
    with contextlib.closing(engine.tables(computation, spans)) as tables:
        for table in tables:
            finished += len(table)
            if store is not None:
                store.append(table)
            for consume in consumers:
                consume(table)
            if progress is not None:
                progress(finished * plan.row_bytes, plan.rows * plan.row_bytes)
