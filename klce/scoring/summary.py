"""The summary of scored rows, which does not depend on the blocks they came in."""

import functools
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klce.scoring.moments import NO_VALUES, Moments
from klce.scoring.numbers import exp

CHUNK_ROWS = 4096
"""Rows whose results are added up in float64; the sums of chunks are then added exactly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Counts and sums over rows, and the means that follow from them.

    A row *counts* unless its label is ``ignore_index``, or its loss or entropy is nan (its logits
    hold a nan or +inf, or are all -inf). Sums are over the rows that count, in nats. They are
    exact fractions, so that `merge` gives the same result in any order and grouping.

    Attributes
    ----------
    rows, ignored, nan : int
        All rows; those with the label ``ignore_index``; the others whose result is nan.
    first_nan : int or None
        Number of the first nan row.
    labelled : int
        Rows that count and have a label, so that the means of the loss are over them.
    infinite : int
        Those of them whose NLL is inf: their target has probability 0. They make the mean inf.
    correct : int
        Those of them whose argmax is the label.
    saturated : int or None
        Those of them whose label the file cut off, so that their NLL is a lower bound; None where
        the file cuts nothing off.
    floor_classes : int or None
        Log-probabilities, of all rows that count, that the file cut off; None likewise.
    nll, entropy, logsumexp : fractions.Fraction
        Sums over the rows that count; ``nll`` and ``logsumexp`` without their infinite values.
    nll_moments, entropy_moments : Moments
        Of the same values, for the errors of their means.
    infinite_logsumexp : int
        Rows that count whose log-sum-exp is infinite, of logits beyond the dtype's range.
    overflow : float
        Sum of these infinite values: 0 of none.
    """

    rows: int = 0
    ignored: int = 0
    nan: int = 0
    first_nan: int | None = None
    labelled: int = 0
    infinite: int = 0
    correct: int = 0
    saturated: int | None = None
    floor_classes: int | None = None
    nll: Fraction = Fraction()
    entropy: Fraction = Fraction()
    logsumexp: Fraction = Fraction()
    nll_moments: Moments = NO_VALUES
    entropy_moments: Moments = NO_VALUES
    infinite_logsumexp: int = 0
    overflow: float = 0.0

    def merge(self, other: "Summary") -> "Summary":
        """Return the summary of the rows of both."""
        first = [s.first_nan for s in (self, other) if s.first_nan is not None]
        return Summary(
            rows=self.rows + other.rows,
            ignored=self.ignored + other.ignored,
            nan=self.nan + other.nan,
            first_nan=min(first, default=None),
            labelled=self.labelled + other.labelled,
            infinite=self.infinite + other.infinite,
            correct=self.correct + other.correct,
            saturated=_both(self.saturated, other.saturated),
            floor_classes=_both(self.floor_classes, other.floor_classes),
            nll=self.nll + other.nll,
            entropy=self.entropy + other.entropy,
            logsumexp=self.logsumexp + other.logsumexp,
            nll_moments=self.nll_moments.merge(other.nll_moments),
            entropy_moments=self.entropy_moments.merge(other.entropy_moments),
            infinite_logsumexp=self.infinite_logsumexp + other.infinite_logsumexp,
            overflow=self.overflow + other.overflow,
        )

    @property
    def counted(self) -> int:
        """Rows that count."""
        return self.rows - self.ignored - self.nan

    @property
    def mean_nll(self) -> float:
        """Mean negative log-likelihood of the labels, in nats; nan if no row has one."""
        return math.inf if self.infinite else _mean(self.nll, self.labelled)

    @property
    def mean_nll_error(self) -> float:
        """Standard error of the mean NLL, as if rows were independent; nan if that is inf."""
        return self.nll_moments.error if self.labelled and not self.infinite else math.nan

    @property
    def perplexity(self) -> float:
        """The exponential of the mean NLL."""
        return exp(self.mean_nll)

    @property
    def perplexity_error(self) -> float:
        """Its standard error, by the slope of the exponential."""
        return self.perplexity * self.mean_nll_error

    @property
    def accuracy(self) -> float:
        """The share of rows whose argmax is the label; nan if no row has one."""
        return _mean(Fraction(self.correct), self.labelled)

    @property
    def accuracy_error(self) -> float:
        """Standard error of the accuracy."""
        if self.labelled < 2:
            return math.nan
        wrong = self.labelled - self.correct
        return math.sqrt(self.correct * wrong / (self.labelled - 1)) / self.labelled

    @property
    def mean_entropy(self) -> float:
        """Mean entropy of the rows' distributions, in nats; nan if no row counts."""
        return _mean(self.entropy, self.counted)

    @property
    def mean_entropy_error(self) -> float:
        """Standard error of the mean entropy."""
        return self.entropy_moments.error

    @property
    def mean_logsumexp(self) -> float:
        """Mean log-sum-exp of the rows; nan if no row counts, or if it is inf and -inf in some."""
        return self.overflow or _mean(self.logsumexp, self.counted)


class Summarizer:
    """Builds the `Summary` of rows that come in order, in blocks of any size.

    Each chunk of `CHUNK_ROWS` rows is added up by itself, so that the rounding does not depend on
    where blocks begin. Summaries of parts of a file merge to that of the whole, bit for bit, if
    the parts begin at multiples of it.
    """

    def __init__(self, ignore_index: int, first_row: int = 0) -> None:
        self._ignore_index = ignore_index
        self._first_row = first_row
        self._summary = Summary()
        self._pending: NDArray[np.float64] = np.empty((4, 0))

    def add(self, table: NDArray[Any]) -> None:
        """Add the rows that follow: a table of `klce.scoring.columns.score_columns`."""
        labelled = "target" in (table.dtype.names or ())
        none = np.zeros(len(table), dtype=bool)
        nll = table["nll"] if labelled else np.zeros(len(table))
        ignored = table["target"] == self._ignore_index if labelled else none
        nan = (np.isnan(nll) | np.isnan(table["entropy"])) & ~ignored
        counts = counted(table, self._ignore_index)
        infinite = np.isinf(nll) & counts
        correct = (table["argmax"] == table["target"]) & counts if labelled else none

        values = np.stack([nll, table["entropy"], table["logsumexp"], counts], dtype=np.float64)
        values[:, ~counts] = 0
        values[0, infinite] = 0
        # Fractions have no inf, and inf of both signs adds up to nan in any order.
        beyond = np.isinf(values[2])
        with np.errstate(invalid="ignore"):
            overflow = float(values[2, beyond].sum())
        values[2, beyond] = 0
        values = np.concatenate([self._pending, values], axis=1)
        full = values.shape[1] // CHUNK_ROWS * CHUNK_ROWS
        self._pending = values[:, full:].copy()  # a view would keep the whole block

        self._summary = self._summary.merge(
            Summary(
                rows=len(table),
                ignored=int(ignored.sum()),
                nan=int(nan.sum()),
                first_nan=self._first_row + int(nan.argmax()) if nan.any() else None,
                labelled=int(counts.sum()) if labelled else 0,
                infinite=int(infinite.sum()),
                correct=int(correct.sum()),
                saturated=_sum(table, "saturated", counts),
                floor_classes=_sum(table, "floor_classes", counts),
                infinite_logsumexp=int(beyond.sum()),
                overflow=overflow,
            ).merge(_add_up(values[:, :full], CHUNK_ROWS))
        )
        self._first_row += len(table)

    def finish(self) -> Summary:
        """Return the summary of all rows added."""
        return self._summary.merge(_add_up(self._pending, max(1, self._pending.shape[1])))


def counted(table: NDArray[Any], ignore_index: int, suffix: str = "") -> NDArray[np.bool_]:
    """Tell which rows of a table count: see `Summary`. Its columns may end in a suffix."""
    counts: NDArray[np.bool_] = ~np.isnan(table["entropy" + suffix])
    if "target" in (table.dtype.names or ()):
        counts &= ~np.isnan(table["nll" + suffix]) & (table["target"] != ignore_index)
    return counts


def _sum(table: NDArray[Any], name: str, counts: NDArray[np.bool_]) -> int | None:
    return int(table[name][counts].sum()) if name in (table.dtype.names or ()) else None


def _both(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else a + b


def _mean(total: Fraction, count: int) -> float:
    return float(total / count) if count else math.nan


def _add_up(values: NDArray[np.float64], width: int) -> Summary:
    """Sum NLL, entropy and log-sum-exp: chunks of `width` in float64, their sums exactly.

    A fourth row of `values` tells which of them count; the others are 0.
    """
    chunks = values.reshape(len(values), values.shape[1] // width, width)
    nll, entropy, logsumexp, counts = chunks
    return Summary(
        nll=sum(map(_add_up_chunk, nll), Fraction()),
        entropy=sum(map(_add_up_chunk, entropy), Fraction()),
        logsumexp=sum(map(_add_up_chunk, logsumexp), Fraction()),
        nll_moments=_moments(nll, counts),
        entropy_moments=_moments(entropy, counts),
    )


def _moments(chunks: NDArray[np.float64], counts: NDArray[np.float64]) -> Moments:
    found = (
        Moments.of(chunk if kept.all() else chunk[kept != 0])
        for chunk, kept in zip(chunks, counts, strict=True)
    )
    return functools.reduce(Moments.merge, found, NO_VALUES)


def _add_up_chunk(values: NDArray[np.float64]) -> Fraction:
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(values.sum())
    if not math.isfinite(total):  # the sum is beyond float64's range; the mean is within it
        return sum(map(Fraction, values.tolist()), start=Fraction())
    return Fraction(total)
