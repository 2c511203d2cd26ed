"""Rows of two models that are near each other: what float32 does not tell of them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

import klce

NEAR = 2.0**-7
"""Rows of a total variation below it are near, and some of up to 2^-5."""

_CLASSES_AT_ONCE = 1 << 18

_CHANGES = ("target_log_prob_change", "target_prob_change")


def near_rows(table: NDArray[Any]) -> NDArray[np.intp]:
    """Return the numbers of rows whose total variation float32 may miss by a millionth of it.

    It is off by the rounding of the normalisers, which adds up as the root of the sum of squares of
    the probabilities, but for the largest: its exponential is 1. The root of the expected agreement
    is that of all, and nearly the largest where there is such.
    """
    root = np.sqrt(table["expected_agreement"])
    near: NDArray[np.bool_] = table["total_variation"] < np.maximum(NEAR, root * (1 - root) / 8)
    return np.flatnonzero(near)


def refine(
    table: NDArray[Any],
    p: NDArray[Any],
    q: NDArray[Any],
    target: NDArray[np.int64] | None,
    ignore_index: int,
    temperature: float = 1.0,
) -> None:
    """Compute what hangs on the difference of the normalisers in float64, for rows that are near.

    These are the total variation and the label's changes; a divergence does not, to first order.
    Rows are taken some at a time and long ones in pieces, so that the memory is bounded. All
    functions of a class are klce's: they give the same bits everywhere.
    """
    near = near_rows(table)
    classes = p.shape[1]
    pieces = [
        slice(start, min(start + _CLASSES_AT_ONCE, classes))
        for start in range(0, classes, _CLASSES_AT_ONCE)
    ]
    step = max(1, _CLASSES_AT_ONCE // classes)
    # Memory that is used again and again: that of new arrays comes page by page.
    room = np.empty((2, min(step, len(near)), min(classes, _CLASSES_AT_ONCE) + 1))
    for start in range(0, len(near), step):
        rows = near[start : start + step]
        label = np.full(len(rows), -1) if target is None else target[rows]
        label = np.where(label == ignore_index, -1, label)
        (others_p, shares_p), (others_q, shares_q) = (
            _others(x, rows, pieces, temperature) for x in (p, q)
        )
        variation = np.zeros(len(rows))
        changes = np.full((2, len(rows)), np.nan)
        for number, piece in enumerate(pieces):
            # The other pieces are one class more, whose own part is taken out again.
            width = piece.stop - piece.start
            wide = room[:, : len(rows), : width + 1]
            for values, x, others in zip(wide, (p, q), (others_p, others_q), strict=True):
                values[:, :width] = x[rows, piece]
                values[:, width] = temperature * others[:, number]
            here = (piece.start <= label) & (label < piece.stop)
            found = klce.compare(
                wide[0],
                wide[1],
                np.where(here, label - piece.start, -1),
                want=("total_variation", *(() if target is None else _CHANGES)),
                temperature=temperature,
                ignore_index=-1,
            )
            variation += found["total_variation"]
            variation -= np.abs(shares_q[:, number] - shares_p[:, number]) / 2
            if target is not None:
                changes[:, here] = [found[name][here] for name in _CHANGES]
        table["total_variation"][rows] = np.maximum(variation, 0)
        if target is not None:
            for name, values in zip(_CHANGES, changes, strict=True):
                table[name][rows] = values


def _others(
    x: NDArray[Any], rows: NDArray[np.intp], pieces: list[slice], temperature: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the log-sum-exp of all other pieces for each, and each one's share of the whole."""
    if len(pieces) == 1:
        return np.full((len(rows), 1), -np.inf), np.ones((len(rows), 1))
    parts = np.empty((len(rows), len(pieces)))
    for number, piece in enumerate(pieces):
        values = x[rows, piece].astype(np.float64)
        found = klce.score(values, want=("logsumexp",), temperature=temperature)
        parts[:, number] = found["logsumexp"]
    others = [klce.logsumexp(np.delete(parts, i, axis=1), axis=-1) for i in range(len(pieces))]
    return np.stack(others, axis=1), klce.softmax(parts, axis=-1)
