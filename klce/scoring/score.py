"""The loop of scoring: blocks of rows through the kernel, into the summary and the results."""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klce import _ufuncs
from klce.scoring.errors import InputError
from klce.scoring.inputs import Labels, Logits
from klce.scoring.readers import open_reader
from klce.scoring.report import Report
from klce.scoring.results import check_results_path, open_results, row_dtype
from klce.scoring.summary import Summarizer

# Enough rows to keep every thread busy, few enough that Ctrl-C acts at once and that a block which
# must be converted stays small. Rows are limited too: with two classes, their results are larger
# than the logits.
_BLOCK_BYTES = 32 << 20
_BLOCK_ROWS = 1 << 17

StrPath = str | os.PathLike[str]


def score_file(
    logits: StrPath,
    targets: StrPath | None = None,
    *,
    out: StrPath | None = None,
    ignore_index: int = -100,
    block_rows: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Score a file of logits, with or without labels.

    Parameters
    ----------
    logits : path
        An array file (``.npy``), whose last axis is the classes.
    targets : path, optional
        Class indices, one per row: integers of the logits' leading shape.
    out : path, optional
        File for the results row by row (``.npy`` or ``.csv``); see `klce.scoring.results`.
    ignore_index : int
        Label of rows that do not count.
    block_rows : int, optional
        Rows to score at once. It changes no bit of any result.
    progress : callable, optional
        Called after each block with the bytes of logits done and those in all.

    Returns
    -------
    Report
        Summary and speed.

    Raises
    ------
    InputError
        Where a file cannot be scored, before anything is written. For a label out of range it is
        a LabelError, which is an IndexError too.
    OSError
        Where a file cannot be read or written.
    """
    rows = Logits(open_reader(Path(logits)))
    inputs = [Path(path) for path in (logits, targets) if path is not None]
    if not -(2**63) <= ignore_index < 2**63:
        raise InputError(f"ignore_index must be a 64-bit integer, not {ignore_index}")
    if block_rows is None:
        block_rows = max(1, min(_BLOCK_BYTES // rows.row_bytes, _BLOCK_ROWS))
    elif block_rows < 1:
        raise InputError(f"block_rows must be at least 1, not {block_rows}")
    if out is not None:
        check_results_path(Path(out), inputs)
    labels = None if targets is None else Labels(open_reader(Path(targets)), rows, ignore_index)

    with contextlib.ExitStack() as stack:
        writer = None
        if out is not None:
            columns = row_dtype(rows.dtype, labelled=labels is not None)
            writer = stack.enter_context(open_results(Path(out), rows.leading_shape, columns))
        summarizer = Summarizer(ignore_index)
        begin = time.perf_counter()
        for start in range(0, rows.rows, block_rows):
            stop = min(start + block_rows, rows.rows)
            target = None if labels is None else labels.block(start, stop)
            table = score_block(rows.block(start, stop), target, ignore_index)
            summarizer.add(table)
            if writer is not None:
                writer.write(table)
            if progress is not None:
                progress(stop * rows.row_bytes, rows.rows * rows.row_bytes)
    seconds = time.perf_counter() - begin
    return Report(
        logits=os.fspath(logits),
        targets=None if targets is None else os.fspath(targets),
        out=None if out is None else os.fspath(out),
        shape=(*rows.leading_shape, rows.classes),
        dtype=rows.dtype.name,
        ignore_index=ignore_index,
        summary=summarizer.finish(),
        seconds=seconds,
        read_bytes=rows.rows * rows.row_bytes,
    )


def score_block(
    x: NDArray[Any], target: NDArray[np.int64] | None, ignore_index: int
) -> NDArray[Any]:
    """Score rows of logits in one read; return a table of `klce.scoring.results.row_dtype`."""
    table = np.empty(len(x), dtype=row_dtype(x.dtype, labelled=target is not None))
    # Without labels every row is ignored, which leaves all but the NLL.
    label = np.int64(ignore_index) if target is None else target
    nll, entropy, logsumexp, argmax = _ufuncs.score(x, label, np.int64(ignore_index))
    _ufuncs.raise_trouble()  # such as a label that was changed since it was checked
    table["entropy"], table["logsumexp"], table["argmax"] = entropy, logsumexp, argmax
    if target is not None:
        table["target"], table["nll"] = target, nll
    return table
