"""Comparing Dask arrays."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from klce.scoring.columns import computed_and_written, names_of
from klce.scoring.compare import compare_block
from klce.scoring.compare_columns import COMPARED, SHOWN, comparison_columns
from klce.scoring.compare_summary import (
    QUANTIFIED,
    ComparisonSummary,
    Counts,
    conclude,
    count,
    quantified,
)
from klce.scoring.dask_arrays import LazyRows, Operands, merged
from klce.scoring.distribution import quantiles_of
from klce.scoring.optional import library


@dataclass(frozen=True, slots=True)
class DaskComparison(LazyRows):
    """A comparison of Dask arrays: a `klce.scoring.dask_arrays.LazyRows`, and their summary."""

    def summary(self) -> ComparisonSummary:
        """Compute the summary of all rows, on the scheduler that Dask has set.

        For the quantiles, one task sorts the columns that have them, which are kept until then.

        Returns
        -------
        ComparisonSummary
            What `klce.scoring.compare_file` gives for the same logits, to the bit, whatever the
            chunks.
        """
        delayed = library("dask", "compare_dask").delayed
        parts = list(self._parts())
        counts = merged(
            [delayed(count)(part, self.ignore_index, start) for start, part in parts], Counts.merge
        )
        columns = [name for name in QUANTIFIED if name in self.table.dtype.names]
        values = {
            name: [delayed(quantified)(part, name, self.ignore_index) for _, part in parts]
            for name in columns
        }
        summary: ComparisonSummary = delayed(_conclude)(counts, values).compute()
        return summary


def compare_dask(
    p: Any,
    q: Any,
    targets: ArrayLike | None = None,
    *,
    want: Iterable[str] | None = None,
    top_k: int = 0,
    temperature: float = 1.0,
    ignore_index: int = -100,
) -> DaskComparison:
    """Compare two Dask arrays of logits of the same rows, with or without labels.

    Parameters
    ----------
    p, q : dask.array.Array, shape (..., C)
        float16, bfloat16, float32, float64 or integers; the last axis is the classes, in one chunk.
        P is the one to measure by, such as the model in full precision.
    targets : dask.array.Array or array_like of int, shape (...), optional
        Class indices, one per row.
    want : iterable of str, optional
        The statistics of each row that `DaskComparison.rows` is to have, by the names of
        `klce.compare` and, with ``_p`` and ``_q`` behind, of `klce.score`. Without it, as
        `compare_file` has them, `klce.scoring.compare_columns.SHOWN`. With labels, ``target`` is
        there too.
    top_k : int, default 0
        How many of the largest classes of P and of Q to hold against each other: ``top_overlap``.
    temperature : float, default 1.0
        Divides the logits of both; from 1e-6 to 1e6.
    ignore_index : int, default -100
        Label of rows that do not count.

    Returns
    -------
    DaskComparison
        Lazy results row by row, and `DaskComparison.summary`.

    Raises
    ------
    TypeError
        If `p` or `q` is no Dask array.
    InputError
        Where they cannot be compared. A label out of range is found when it is computed: a
        LabelError, which is an IndexError too.

    Examples
    --------
    >>> import dask.array as da, numpy as np
    >>> from klce.scoring import compare_dask
    >>> p = da.from_array(np.log([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]]), chunks=(1, 3))
    >>> q = da.from_array(np.log([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]]), chunks=(1, 3))
    >>> comparison = compare_dask(p, q)
    >>> round(comparison.summary().estimates["kl_divergence"].mean, 6)
    0.086643
    >>> comparison.rows["same_argmax"].compute()
    array([ True, False])
    """
    operands = Operands({"p": p, "q": q}, targets, ignore_index)
    columns, written = computed_and_written(
        comparison_columns,
        operands.dtype,
        labelled=operands.labelled,
        want=names_of(want),
        needed=SHOWN if operands.labelled or want is None else COMPARED,
        top_k=top_k,
        classes=operands.classes,
        temperature=temperature,
    )
    table = operands.table(compare_block, columns, top_k=top_k, temperature=temperature)
    return DaskComparison(table, written, ignore_index)


def _conclude(counts: Counts, values: dict[str, list[NDArray[Any]]]) -> ComparisonSummary:
    quantiles = {}
    for name, parts in values.items():
        column = np.concatenate(parts)
        quantiles[name] = quantiles_of(column, lambda some: some, column.dtype)
    return conclude(counts, {}, quantiles)
