"""Rows of two models that are near each other: what float32 does not tell of them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

import klce

NEAR = 2.0**-5
"""Rows of a total variation below it are near: float32 is off by up to 3e-8, a millionth of it."""

_CLASSES_AT_ONCE = 1 << 18


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
    near = np.flatnonzero(table["total_variation"] < NEAR)
    classes = p.shape[1]
    pieces = [
        slice(start, min(start + _CLASSES_AT_ONCE, classes))
        for start in range(0, classes, _CLASSES_AT_ONCE)
    ]
    step = max(1, _CLASSES_AT_ONCE // classes)
    for start in range(0, len(near), step):
        rows = near[start : start + step]
        wide = _Wide(p, rows, pieces, temperature), _Wide(q, rows, pieces, temperature)
        variation = np.zeros(len(rows))
        change = np.full(len(rows), np.nan)
        label = np.full(len(rows), -1) if target is None else target[rows]
        label = np.where(label == ignore_index, -1, label)
        for number, piece in enumerate(pieces):
            difference = wide[1].probs(number)
            difference -= wide[0].probs(number)
            here = np.flatnonzero((piece.start <= label) & (label < piece.stop))
            change[here] = difference[here, label[here] - piece.start]
            variation += np.abs(difference, out=difference).sum(axis=1)
        table["total_variation"][rows] = variation / 2
        if target is not None:
            table["target_prob_change"][rows] = change
            with np.errstate(invalid="ignore"):
                change = wide[1].at(label) - wide[0].at(label)
            change -= wide[1].normalizer - wide[0].normalizer
            table["target_log_prob_change"][rows] = np.where(label < 0, np.nan, change)


class _Wide:
    """Some rows of logits in float64, piece by piece.

    Attributes
    ----------
    normalizer : ndarray
        The logarithm of the sum of exponentials of each row.
    """

    def __init__(
        self, x: NDArray[Any], rows: NDArray[np.intp], pieces: list[slice], temperature: float
    ) -> None:
        self._x, self._rows, self._pieces, self._t = x, rows, pieces, temperature
        self._number, self._values = -1, np.empty((0, 0))
        parts = np.stack([self._logsumexp(number) for number in range(len(pieces))], axis=-1)
        self.normalizer = klce.logsumexp(parts, axis=-1)
        self._weights = klce.softmax(parts, axis=-1)

    def _piece(self, number: int) -> NDArray[np.float64]:
        if number != self._number:  # else it is the last one, or the only one
            piece = self._x[self._rows, self._pieces[number]]
            self._number, self._values = number, piece.astype(np.float64)
        return self._values

    def _logsumexp(self, number: int) -> NDArray[np.float64]:
        scored = klce.score(self._piece(number), want=("logsumexp",), temperature=self._t)
        return scored["logsumexp"]

    def probs(self, number: int) -> NDArray[np.float64]:
        """Return the probabilities of a piece's classes."""
        probs = klce.softmax(self._piece(number), axis=-1, temperature=self._t)
        if len(self._pieces) > 1:
            weights = self._weights[:, number]
            probs *= weights[:, None]
            probs[weights == 0] = 0  # where a piece of impossible classes has nan
        return np.asarray(probs)

    def at(self, label: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the label's logit of each row."""
        return self._x[self._rows, label].astype(np.float64) / self._t
