"""Scoring Dask arrays."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike, NDArray

from klce.scoring.columns import SHOWN, SUMMED, computed_and_written, names_of, score_columns
from klce.scoring.dask_arrays import LazyRows, Operands, merged
from klce.scoring.optional import library
from klce.scoring.score import score_block
from klce.scoring.summary import Summarizer, Summary


@dataclass(frozen=True, slots=True)
class DaskScores(LazyRows):
    """Scores of a Dask array: a `klce.scoring.dask_arrays.LazyRows`, and their summary."""

    def summary(self) -> Summary:
        """Compute the summary of all rows, on the scheduler that Dask has set.

        Returns
        -------
        Summary
            What `klce.scoring.score_file` gives for the same logits, to the bit, whatever the
            chunks.
        """
        delayed = library("dask", "score_dask").delayed
        # Parts begin at chunks of the summary; exact sums then merge in any grouping.
        parts = [
            delayed(_summarize)(part, start, self.ignore_index) for start, part in self._parts()
        ]
        summary: Summary = merged(parts, Summary.merge).compute()
        return summary


def score_dask(
    logits: Any,
    targets: ArrayLike | None = None,
    *,
    want: Iterable[str] | None = None,
    top_k: int = 0,
    candidates: ArrayLike | None = None,
    temperature: float = 1.0,
    ignore_index: int = -100,
) -> DaskScores:
    """Score a Dask array of logits, with or without labels.

    Parameters
    ----------
    logits : dask.array.Array, shape (..., C)
        float16, bfloat16, float32, float64 or integers; the last axis is the classes, in one chunk.
    targets : dask.array.Array or array_like of int, shape (...), optional
        Class indices, one per row.
    want : iterable of str, optional
        The statistics of each row that `DaskScores.rows` is to have, by the names of `klce.score`.
        Without it, as `score_file` has them, `klce.scoring.columns.SHOWN`. With labels,
        ``target`` is there too.
    top_k : int, default 0
        How many of the largest classes of each row to tell: ``top_ids`` and ``top_log_probs``.
    candidates : dask.array.Array or array_like of int, optional
        Classes whose log-probabilities to tell, ``candidate_log_probs``: of one axis, for all rows;
        or of the rows' shape and one axis more, for each its own.
    temperature : float, default 1.0
        Divides the logits; from 1e-6 to 1e6.
    ignore_index : int, default -100
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
        Where it cannot be scored. A label or a candidate of a row that is out of range is found
        when it is computed: a LabelError, which is an IndexError too.

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
    >>> score_dask(logits, want=(), top_k=2).rows["top_ids"].compute()
    array([[0, 1],
           [1, 0]])
    """
    operands = Operands({"logits": logits}, targets, ignore_index, candidates)
    columns, written = computed_and_written(
        score_columns,
        operands.dtype,
        labelled=operands.labelled,
        want=names_of(want),
        needed=SHOWN if want is None else SUMMED,
        top_k=top_k,
        classes=operands.classes,
        candidates=operands.candidates,
        temperature=temperature,
    )
    table = operands.table(score_block, columns, top_k=top_k, temperature=temperature)
    return DaskScores(table, written, ignore_index)


def _summarize(rows: NDArray[Any], first_row: int, ignore_index: int) -> Summary:
    summarizer = Summarizer(ignore_index, first_row)
    summarizer.add(rows)
    return summarizer.finish()
