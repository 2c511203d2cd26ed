"""Counts and means in bins, of rows of any number: what the pictures of a page are drawn from."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klce.scoring.groups import Groups

BINS = 60
MOST = 1e100
"""Larger values are shown at it: where float64 ends, axes do before."""

_POSITIONS = 60
_WORST = 20


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of rows in bins of a value, which has one edge more."""

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]


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


class Positions:
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


def position_edges(last: int) -> NDArray[np.float64]:
    """Return the edges of bins of whole positions from 0 to `last`."""
    wide = -(-(last + 1) // _POSITIONS)
    return np.arange(0, last + 1 + wide, wide, dtype=np.float64) - 0.5


class Worst:
    """The rows of the largest values so far, in descending order; of equal ones the first."""

    def __init__(self) -> None:
        self.rows = np.empty(0, np.int64)
        self._values = np.empty(0)

    def add(self, rows: NDArray[np.int64], values: NDArray[Any]) -> None:
        """Add rows that follow, by their numbers."""
        found = np.concatenate([self.rows, rows])
        values = np.concatenate([self._values, values.astype(np.float64)])
        best = np.argsort(-values, kind="stable")[:_WORST]
        self.rows, self._values = found[best], values[best]


class HistogramSums:
    """Builds a `Histogram`, of finite values. Those beyond its edges are counted at them."""

    def __init__(self, edges: NDArray[np.float64]) -> None:
        self._edges = edges
        self._counts = np.zeros(len(edges) - 1, np.int64)

    def add(self, values: NDArray[Any]) -> None:
        """Add rows."""
        shown = np.clip(
            values[np.isfinite(values)].astype(np.float64), self._edges[0], self._edges[-1]
        )
        self._counts += np.histogram(shown, self._edges)[0]

    def finish(self) -> Histogram:
        """Return it."""
        return Histogram(self._edges, self._counts)


class DensitySums:
    """Builds a `Density`, of rows with a finite y. Those beyond its edges are counted at them."""

    def __init__(self, x: NDArray[Any], y: NDArray[np.float64]) -> None:
        self._x, self._y = x, y
        self._counts = np.zeros((len(x) - 1, len(y) - 1), np.int64)
        self._sums = np.zeros(len(x) - 1)

    def add(self, x: NDArray[Any], y: NDArray[Any]) -> None:
        """Add rows."""
        finite = np.isfinite(y)
        x, y = x[finite].astype(np.float64), y[finite].astype(np.float64)
        shown = np.clip(y, self._y[0], self._y[-1])
        self._counts += np.histogram2d(x, shown, (self._x, self._y))[0].astype(np.int64)
        cells = np.clip(np.searchsorted(self._x, x, side="right") - 1, 0, len(self._sums) - 1)
        np.add.at(self._sums, cells, np.minimum(y, self._y[-1]))

    def finish(self) -> Density:
        """Return it."""
        rows = self._counts.sum(axis=1)
        mean = np.where(rows > 0, self._sums / np.maximum(rows, 1), math.nan)
        return Density(self._x, self._y, self._counts, mean)
