"""The summary of scored rows, which does not depend on the blocks they came in."""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klce.scoring.accuracy import NO_ROWS, Calibration
from klce.scoring.moments import NO_VALUES, Moments
from klce.scoring.numbers import exp

CHUNK_ROWS = 4096
"""Rows whose results are added up in float64; the sums of chunks are then added exactly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Counts and sums over rows, and the means that follow from them.

    A row *counts* unless its label is ``ignore_index``, or its loss or entropy is nan (its logits
    hold a nan or +inf, or are all -inf). Sums are over the rows that count, in nats. They are exact
    fractions and integers, so that `merge` gives the same result in any order and grouping.

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
    calibration : Calibration
        How often that is so, by the largest probability; of no rows without labels.
    saturated : int or None
        Those of them whose label the file cut off, so that their NLL is a lower bound; None where
        the file cuts nothing off.
    floor_classes : int or None
        Log-probabilities, of all rows that count, that the file cut off; None likewise.
    nll, entropy : Moments
        Over the rows that count; there is no NLL without labels.
    logsumexp : fractions.Fraction
        Sum over the rows that count, without the infinite values.
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
    calibration: Calibration = NO_ROWS
    saturated: int | None = None
    floor_classes: int | None = None
    nll: Moments = NO_VALUES
    entropy: Moments = NO_VALUES
    logsumexp: Fraction = Fraction()
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
            calibration=self.calibration.merge(other.calibration),
            saturated=_both(self.saturated, other.saturated),
            floor_classes=_both(self.floor_classes, other.floor_classes),
            nll=self.nll.merge(other.nll),
            entropy=self.entropy.merge(other.entropy),
            logsumexp=self.logsumexp + other.logsumexp,
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
        return self.nll.mean

    @property
    def mean_nll_error(self) -> float:
        """Standard error of the mean NLL, as if rows were independent; nan if that is inf."""
        return self.nll.error

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
        return self.entropy.mean

    @property
    def mean_entropy_error(self) -> float:
        """Standard error of the mean entropy."""
        return self.entropy.error

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
        self._pending: NDArray[np.float64] = np.empty((0, 0))
        self._pending_counts: NDArray[np.bool_] = np.empty(0, dtype=bool)

    def add(self, table: NDArray[Any]) -> None:
        """Add the rows that follow: a table of `klce.scoring.columns.score_columns`."""
        labelled = "target" in (table.dtype.names or ())
        columns = ("logsumexp", "entropy", *(["nll"] if labelled else []))
        counts = counted(table, self._ignore_index)
        nan = ~counts
        if labelled:
            nan &= table["target"] != self._ignore_index

        before = len(self._pending_counts)
        values = np.empty((len(columns), before + len(table)))
        if before:
            values[:, :before] = self._pending
        new = values[:, before:]
        for column, name in zip(new, columns, strict=True):
            column[:] = table[name]
        if not counts.all():
            new[:, ~counts] = 0
        # Fractions have no inf, and inf of both signs adds up to nan in any order.
        beyond = _take_infinite(new[0])
        with np.errstate(invalid="ignore"):
            overflow = float(beyond.sum())
        infinite, correct, calibration = 0, 0, NO_ROWS
        if labelled:
            right = (table["argmax"] == table["target"])[counts]
            infinite = _count(np.isinf(new[2]))
            correct = _count(right)
            calibration = Calibration.of(table["max_log_prob"][counts], right)

        self._summary = self._summary.merge(
            Summary(
                rows=len(table),
                ignored=len(table) - _count(counts | nan),
                nan=_count(nan),
                first_nan=self._first_row + int(nan.argmax()) if nan.any() else None,
                labelled=_count(counts) if labelled else 0,
                infinite=infinite,
                correct=correct,
                calibration=calibration,
                saturated=_sum(table, "saturated", counts),
                floor_classes=_sum(table, "floor_classes", counts),
                infinite_logsumexp=len(beyond),
                overflow=overflow,
            )
        )
        counts = np.concatenate([self._pending_counts, counts])
        full = len(counts) // CHUNK_ROWS * CHUNK_ROWS
        self._summary = self._summary.merge(_add_up(values[:, :full], counts[:full]))
        self._pending = values[:, full:].copy()  # a view would keep the whole block
        self._pending_counts = counts[full:].copy()
        self._first_row += len(table)

    def finish(self) -> Summary:
        """Return the summary of all rows added."""
        return self._summary.merge(_add_up(self._pending, self._pending_counts))


def counted(table: NDArray[Any], ignore_index: int, suffix: str = "") -> NDArray[np.bool_]:
    """Tell which rows of a table count: see `Summary`. Its columns may end in a suffix."""
    counts: NDArray[np.bool_] = ~np.isnan(table["entropy" + suffix])
    if "target" in (table.dtype.names or ()):
        counts &= ~np.isnan(table["nll" + suffix]) & (table["target"] != ignore_index)
    return counts


def _count(which: NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(which))


def _sum(table: NDArray[Any], name: str, counts: NDArray[np.bool_]) -> int | None:
    return int(table[name][counts].sum()) if name in (table.dtype.names or ()) else None


def _both(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else a + b


def _take_infinite(column: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the infinite values, and put 0 in their places."""
    infinite = np.isinf(column)
    found: NDArray[np.float64] = column[infinite]
    column[infinite] = 0
    return found


def _mean(total: Fraction, count: int) -> float:
    return float(total / count) if count else math.nan


def _add_up(values: NDArray[np.float64], counts: NDArray[np.bool_]) -> Summary:
    """Add up log-sum-exp, entropy and, if it is there, NLL: chunks in float64, their sums exactly.

    Rows that do not count are 0.
    """
    logsumexp, moments = Fraction(), [NO_VALUES, NO_VALUES]
    for start in range(0, len(counts), CHUNK_ROWS):
        chunk, kept = (some[..., start : start + CHUNK_ROWS] for some in (values, counts))
        logsumexp += _add_up_chunk(chunk[0])
        whole = kept.all()
        for i, column in enumerate(chunk[1:]):
            moments[i] = moments[i].merge(Moments.of(column if whole else column[kept]))
    entropy, nll = moments
    return Summary(nll=nll, entropy=entropy, logsumexp=logsumexp)


def _add_up_chunk(values: NDArray[np.float64]) -> Fraction:
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(values.sum())
    if not math.isfinite(total):  # the sum is beyond float64's range; the mean is within it
        return sum(map(Fraction, values.tolist()), start=Fraction())
    return Fraction(total)
