"""How right a model is: by how sure it is, and among how many of its classes the label is.

All is counted in whole numbers, so that parts merge to the same in any order and grouping.
"""

import math
from dataclasses import dataclass
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

TOP = (1, 2, 3, 5, 10, 20, 50, 100)
"""The k of the top-k accuracies that are given in numbers, as far as there are classes."""

_CONFIDENCES = 15
_UNITS = 1 << 30
"""Of a probability: it is rounded to one part in so many."""

_ROWS_AT_ONCE = 1 << 14
"""Rows that stay in cache, and whose units float64 adds up exactly."""

_RANKS = 60


@dataclass(frozen=True, slots=True)
class Calibration:
    """How often a model is right where it says that it is so sure.

    Attributes
    ----------
    counts, right : tuple of int
        Rows in bins of the largest probability, of equal width from 0 to 1, and those of them
        whose argmax is the label.
    sure : tuple of int
        Sums of the largest probability in the bins, in units of 2^-30, to which each is rounded.
    """

    counts: tuple[int, ...] = (0,) * _CONFIDENCES
    right: tuple[int, ...] = (0,) * _CONFIDENCES
    sure: tuple[int, ...] = (0,) * _CONFIDENCES

    @classmethod
    def of(cls, max_log_prob: NDArray[Any], right: NDArray[np.bool_]) -> "Calibration":
        """Return that of rows: by their largest log-probabilities, and whether those were right."""
        found = np.zeros((3, _CONFIDENCES), np.int64)
        for start in range(0, len(right), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            sure = np.rint(np.exp(max_log_prob[rows], dtype=np.float64) * _UNITS)
            bins = (sure * (_CONFIDENCES / _UNITS)).astype(np.intp)
            np.minimum(bins, _CONFIDENCES - 1, out=bins)
            for sums, each in zip(found, (None, right[rows], sure), strict=True):
                sums += np.bincount(bins, each, _CONFIDENCES).astype(np.int64)
        return cls(*(tuple(sums.tolist()) for sums in found))

    def merge(self, other: "Calibration") -> "Calibration":
        """Return that of the rows of both."""
        return Calibration(
            _added(self.counts, other.counts),
            _added(self.right, other.right),
            _added(self.sure, other.sure),
        )

    @property
    def confidence(self) -> NDArray[np.float64]:
        """Means of the largest probability in the bins; nan where there are no rows."""
        return _means(self.sure, self.counts) / _UNITS

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """Means of being right likewise."""
        return _means(self.right, self.counts)

    @property
    def error(self) -> float:
        """Expected calibration error: the mean of |accuracy - confidence| over rows.

        Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian
        binning", 2015.
        """
        gaps = (abs(n * _UNITS - sure) for n, sure in zip(self.right, self.sure, strict=True))
        rows = sum(self.counts)
        return sum(gaps) / (_UNITS * rows) if rows else math.nan


NO_ROWS = Calibration()


@dataclass(frozen=True, slots=True)
class Ranks:
    """How often the label is among the k largest logits.

    Attributes
    ----------
    k : tuple of int
        Numbers of classes, from 1 to all of them, with those in `TOP`.
    within : tuple of int
        Rows whose label's rank is at most that.
    rows : int
        All rows.
    """

    k: tuple[int, ...]
    within: tuple[int, ...]
    rows: int

    @classmethod
    def of(cls, rank: NDArray[np.int64], classes: int) -> "Ranks":
        """Return those of rows, by the ranks of their labels among so many classes."""
        k = np.unique(np.rint(np.geomspace(1, classes, _RANKS)).astype(np.int64))
        k = np.union1d(k, np.array([top for top in TOP if top < classes], np.int64))
        within = np.cumsum(np.bincount(np.searchsorted(k, rank), minlength=len(k)))
        return cls(tuple(k.tolist()), tuple(within.tolist()), len(rank))

    def merge(self, other: "Ranks") -> "Ranks":
        """Return those of the rows of both, which have as many classes."""
        return Ranks(self.k, _added(self.within, other.within), self.rows + other.rows)

    @property
    def share(self) -> tuple[float, ...]:
        """The shares of rows within k; nan without rows."""
        return tuple(n / self.rows if self.rows else math.nan for n in self.within)


def _added(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(map(add, a, b))


def _means(sums: tuple[int, ...], counts: tuple[int, ...]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):  # 0 of no rows
        means: NDArray[np.float64] = np.array(sums, np.float64) / np.array(counts, np.float64)
    return means
