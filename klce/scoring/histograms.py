"""What the pictures of a comparison show: counts and means in bins, of rows of any number."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klce.scoring.comparison import counted_rows, probability_change
from klce.scoring.distribution import ROWS_AT_ONCE
from klce.scoring.groups import Groups

LEAST_KL = 1e-12
"""Divergences below it are shown at it: they are 0, or the last digits of the logits."""

_BINS = 60
_POSITIONS = 60
_CONFIDENCES = 15
_WORST = 20


@dataclass(frozen=True, slots=True)
class Density:
    """Counts of rows in cells of two values, and the mean of y for each cell of x.

    Attributes
    ----------
    x, y : ndarray
        Edges of the cells.
    counts : ndarray
        Of shape (cells of x, cells of y).
    mean : ndarray
        nan where there are no rows.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    counts: NDArray[np.int64]
    mean: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Calibration:
    """How often a model is right where it says that it is so sure.

    Attributes
    ----------
    counts : ndarray
        Rows in bins of the largest probability, of equal width from 0 to 1.
    confidence, accuracy : ndarray
        Means of the largest probability and of being right in them; nan where there are no rows.
    """

    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def error(self) -> float:
        """Expected calibration error: the mean of |accuracy - confidence| over rows.

        Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian
        binning", 2015.
        """
        some = self.counts > 0
        gaps = np.abs(self.accuracy[some] - self.confidence[some])
        total = int(self.counts.sum())
        return float((gaps * self.counts[some]).sum() / total) if total else math.nan


@dataclass(frozen=True, slots=True)
class Pictures:
    """The data of all pictures; of the labels None where there are none.

    Attributes
    ----------
    kl_edges, kl_counts : ndarray
        Rows in bins of KL(P||Q), equally wide on a logarithmic scale.
    by_entropy, by_position : Density
        KL(P||Q) against the entropy of P and along the position.
    change_edges, change_counts : ndarray or None
        Rows in bins of the label's change of probability.
    calibration : tuple of Calibration or None
        Of P and of Q.
    worst : ndarray
        The numbers of the rows of the largest KL(P||Q), in descending order.
    positions : str
        What a position is.
    """

    kl_edges: NDArray[np.float64]
    kl_counts: NDArray[np.int64]
    by_entropy: Density
    by_position: Density
    change_edges: NDArray[np.float64] | None
    change_counts: NDArray[np.int64] | None
    calibration: tuple[Calibration, Calibration] | None
    worst: NDArray[np.int64]
    positions: str


class _Positions:
    """The place of a row: in its sequence, along the last axis of rows, or in the file."""

    def __init__(self, leading_shape: tuple[int, ...], groups: Groups | None) -> None:
        self._groups, self._axis = groups, leading_shape[-1] if len(leading_shape) > 1 else None
        self._seen = np.zeros(0 if groups is None else len(groups), np.int64)
        if groups is not None:
            self.name = "position in the sequence"
        else:
            self.name = "row" if self._axis is None else "position along the last axis of rows"

    def block(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the positions of rows, which are to be asked for in order."""
        rows = np.arange(start, stop)
        if self._groups is None:
            return rows if self._axis is None else rows % self._axis
        of = self._groups.block(start, stop)
        order = np.argsort(of, kind="stable")
        grouped = of[order]
        first = np.searchsorted(grouped, grouped)  # where each one's sequence begins
        places = np.empty(len(of), np.int64)
        places[order] = np.arange(len(of)) - first
        places += self._seen[of]
        np.add.at(self._seen, of, 1)
        return places


def gather(
    rows: NDArray[Any],
    leading_shape: tuple[int, ...],
    ignore_index: int,
    groups: Groups | None,
    kl_range: tuple[float, float],
) -> Pictures:
    """Count rows of a comparison, whose KL(P||Q) has a range, into the bins of all pictures."""
    smallest_kl, largest_kl = kl_range
    labelled = "target" in (rows.dtype.names or ())

    def pieces() -> Iterator[tuple[int, NDArray[Any], NDArray[np.bool_]]]:
        for start in range(0, len(rows), ROWS_AT_ONCE):
            table = rows[start : start + ROWS_AT_ONCE]
            yield start, table, counted_rows(table, ignore_index)

    positions = _Positions(leading_shape, groups)
    entropy_top = change_top = 0.0
    last = 0
    worst_rows = np.empty(0, np.int64)
    worst_kl = np.empty(0)
    for start, table, counts in pieces():
        places = positions.block(start, start + len(table))
        last = max(last, int(places.max(initial=0)))
        entropy_top = max(entropy_top, float(table["entropy"][counts].max(initial=0)))
        if labelled:
            change = np.abs(probability_change(table)[counts])
            change_top = max(change_top, float(change.max(initial=0)))
        worst_kl = np.concatenate([worst_kl, table["kl"][counts].astype(np.float64)])
        worst_rows = np.concatenate([worst_rows, start + np.flatnonzero(counts)])
        best = np.argsort(-worst_kl, kind="stable")[:_WORST]
        worst_rows, worst_kl = worst_rows[best], worst_kl[best]

    top = largest_kl if LEAST_KL < largest_kl < math.inf else 1.0
    least = smallest_kl if LEAST_KL < smallest_kl < top / 10 else min(LEAST_KL, top / 10)
    kl_edges = np.geomspace(least, top, _BINS + 1)
    entropy_edges = np.linspace(0, entropy_top or 1.0, _BINS + 1)
    wide = -(-(last + 1) // _POSITIONS)
    position_edges = np.arange(0, last + 1 + wide, wide) - 0.5
    change_edges = np.linspace(-(change_top or 1.0), change_top or 1.0, 2 * _BINS + 2)

    kl_counts = np.zeros(_BINS, np.int64)
    change_counts = np.zeros(2 * _BINS + 1, np.int64)
    entropy = _DensitySums(entropy_edges, kl_edges)
    position = _DensitySums(position_edges, kl_edges)
    calibrations = _CalibrationSums(), _CalibrationSums()
    positions = _Positions(leading_shape, groups)
    for start, table, counts in pieces():
        places = positions.block(start, start + len(table))[counts]
        table = table[counts]
        kl = table["kl"].astype(np.float64)
        shown = np.clip(kl, kl_edges[0], kl_edges[-1])
        kl_counts += np.histogram(shown, kl_edges)[0]
        entropy.add(table["entropy"].astype(np.float64), shown, kl)
        position.add(places.astype(np.float64), shown, kl)
        if labelled:
            change_counts += np.histogram(probability_change(table), change_edges)[0]
            for sums, suffix in zip(calibrations, ("", "_q"), strict=True):
                right = table["argmax" + suffix] == table["target"]
                sums.add(table["top" + suffix].astype(np.float64), right)
    return Pictures(
        kl_edges=kl_edges,
        kl_counts=kl_counts,
        by_entropy=entropy.finish(),
        by_position=position.finish(),
        change_edges=change_edges if labelled else None,
        change_counts=change_counts if labelled else None,
        calibration=(calibrations[0].finish(), calibrations[1].finish()) if labelled else None,
        worst=worst_rows,
        positions=positions.name,
    )


class _DensitySums:
    def __init__(self, x: NDArray[Any], y: NDArray[np.float64]) -> None:
        self._x, self._y = x, y
        self._counts = np.zeros((len(x) - 1, len(y) - 1), np.int64)
        self._sums = np.zeros(len(x) - 1)

    def add(
        self, x: NDArray[np.float64], shown: NDArray[np.float64], y: NDArray[np.float64]
    ) -> None:
        self._counts += np.histogram2d(x, shown, (self._x, self._y))[0].astype(np.int64)
        cells = np.clip(np.searchsorted(self._x, x, side="right") - 1, 0, len(self._sums) - 1)
        np.add.at(self._sums, cells, y)

    def finish(self) -> Density:
        return Density(self._x, self._y, self._counts, _ratio(self._sums, self._counts.sum(axis=1)))


class _CalibrationSums:
    def __init__(self) -> None:
        self._counts = np.zeros(_CONFIDENCES, np.int64)
        self._confidence, self._right = np.zeros(_CONFIDENCES), np.zeros(_CONFIDENCES)

    def add(self, confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> None:
        cells = np.minimum((confidence * _CONFIDENCES).astype(np.intp), _CONFIDENCES - 1)
        np.add.at(self._counts, cells, 1)
        np.add.at(self._confidence, cells, confidence)
        np.add.at(self._right, cells, right)

    def finish(self) -> Calibration:
        return Calibration(
            self._counts,
            _ratio(self._confidence, self._counts),
            _ratio(self._right, self._counts),
        )


def _ratio(sums: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        ratio: NDArray[np.float64] = np.where(counts > 0, sums / np.maximum(counts, 1), math.nan)
    return ratio
