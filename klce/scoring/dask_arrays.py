"""Scoring Dask arrays: rows stay lazy, and their summary is merged where they are."""

import math
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

import klce
from klce._arrays import computed, element_dtype
from klce.scoring.columns import row_dtype
from klce.scoring.errors import InputError, LabelError
from klce.scoring.inputs import check_ignore_index, name_row, out_of_range
from klce.scoring.optional import library
from klce.scoring.score import score_block
from klce.scoring.summary import CHUNK_ROWS, Summarizer, Summary

_PART_ROWS = 32 * CHUNK_ROWS
_PARTS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class DaskScores:
    """Scores of a Dask array.

    Attributes
    ----------
    rows : dask.array.Array
        The results row by row, in the leading shape of the logits: a structured array with the
        columns of `klce.scoring.columns.row_dtype`, in nats. It is lazy; `persist` it where both it
        and the summary are wanted.
    ignore_index : int
        The label of rows that do not count.
    """

    rows: Any
    ignore_index: int

    def summary(self) -> Summary:
        """Compute the summary of all rows, on the scheduler that Dask has set.

        Returns
        -------
        Summary
            What `klce.scoring.score_file` gives for the same logits, to the bit, whatever the
            chunks.
        """
        delayed = library("dask", "score_dask").delayed
        rows = self.rows.reshape(-1).rechunk(_PART_ROWS)
        # Parts begin at chunks of the summary; exact sums then merge in any grouping.
        parts = [
            delayed(_summarize)(part, i * _PART_ROWS, self.ignore_index)
            for i, part in enumerate(rows.to_delayed())
        ]
        while len(parts) > 1:
            starts = range(0, len(parts), _PARTS_AT_ONCE)
            parts = [delayed(_merge)(parts[start : start + _PARTS_AT_ONCE]) for start in starts]
        summary: Summary = parts[0].compute()
        return summary


def score_dask(
    logits: Any, targets: ArrayLike | None = None, *, ignore_index: int = -100
) -> DaskScores:
    """Score a Dask array of logits, with or without labels.

    Parameters
    ----------
    logits : dask.array.Array, shape (..., C)
        float16, bfloat16, float32, float64 or integers; the last axis is the classes, in one chunk.
    targets : dask.array.Array or array_like of int, shape (...), optional
        Class indices, one per row.
    ignore_index : int
        Label of rows that do not count.

    Returns
    -------
    DaskScores
        Lazy results row by row, and `DaskScores.summary`.

    Raises
    ------
    TypeError
        If `logits` is no Dask array.
    InputError
        Where it cannot be scored. A label out of range is found when it is computed: a LabelError,
        which is an IndexError too.

    Examples
    --------
    >>> import dask.array as da, numpy as np
    >>> from klce.scoring import score_dask
    >>> logits = da.from_array(np.array([[0.7, 0.2, 0.1], [0.3, 0.5, 0.2]]), chunks=(1, 3))
    >>> scores = score_dask(logits, [0, 1])
    >>> scores.summary().accuracy
    1.0
    >>> scores.rows["argmax"].compute()
    array([0, 1])
    """
    array = library("dask.array", "score_dask")
    if not isinstance(logits, array.Array):
        raise TypeError(f"logits must be a Dask array, got a {type(logits).__name__}")
    check_ignore_index(ignore_index)
    if logits.ndim < 2 or logits.shape[-1] == 0:
        raise InputError(
            "logits must have 2 axes or more, the last one at least one class; "
            f"their shape is {logits.shape}"
        )
    if any(map(math.isnan, logits.shape)):
        raise InputError(
            f"logits must have a known shape, got {logits.shape}: call compute_chunk_sizes() first"
        )
    if logits.numblocks[-1] > 1:
        raise InputError(
            f"logits must have their classes in one chunk, got {logits.numblocks[-1]}: rechunk them"
        )
    taken = element_dtype(logits.dtype)
    if taken is None:
        raise InputError(f"logits have the dtype {logits.dtype}, which is not supported")

    shape, axes = logits.shape[:-1], tuple(range(logits.ndim - 1))
    columns = row_dtype(computed(taken), labelled=targets is not None)
    operands = [logits, (*axes, logits.ndim - 1)]
    if targets is not None:
        labels = array.asarray(targets)
        if labels.dtype.kind not in "iu":
            raise InputError(f"targets must be integers, got {labels.dtype}")
        if labels.shape != shape:
            raise InputError(
                f"targets of shape {labels.shape} do not match logits with rows of shape {shape}"
            )
        operands += [labels, axes]
        for axis, chunks in enumerate(logits.chunks[:-1]):  # for an error to name the row
            operands += [array.arange(shape[axis], chunks=(chunks,)), (axis,)]
    rows = array.blockwise(
        _score,
        axes,
        *operands,
        taken=taken,
        columns=columns,
        shape=shape,
        ignore_index=ignore_index,
        concatenate=True,
        meta=np.empty((0,) * len(axes), columns),
    )
    return DaskScores(rows, ignore_index)


def _score(
    logits: NDArray[Any],
    labels: NDArray[Any] | None = None,
    *indices: NDArray[np.int64],
    taken: np.dtype[Any],
    columns: np.dtype[Any],
    shape: tuple[int, ...],
    ignore_index: int,
) -> NDArray[Any]:
    leading, classes = logits.shape[:-1], logits.shape[-1]
    x = np.asarray(logits).astype(taken, copy=False).reshape(math.prod(leading), classes)
    target = None
    if labels is not None:
        flat = np.asarray(labels).reshape(-1)
        at = out_of_range(flat, classes, ignore_index)
        if at is not None:
            place = zip(indices, np.unravel_index(at, leading), strict=True)
            row = np.ravel_multi_index([int(index[i]) for index, i in place], shape)
            raise LabelError(
                f"targets: label {flat[at]} in {name_row(int(row), shape)} is neither a class "
                f"(0 to {classes - 1}) nor ignore_index ({ignore_index})"
            )
        target = flat.astype(np.int64, copy=False)
    with klce.threads(1):  # Dask's threads have a chunk each
        table = np.empty(len(x), columns)
        score_block(table, x, target, ignore_index)
    return table.reshape(leading)


def _summarize(rows: NDArray[Any], first_row: int, ignore_index: int) -> Summary:
    summarizer = Summarizer(ignore_index, first_row)
    summarizer.add(rows)
    return summarizer.finish()


def _merge(parts: list[Summary]) -> Summary:
    return reduce(Summary.merge, parts)
