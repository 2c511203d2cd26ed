"""What the rows of a comparison say together: means with their errors, and quantiles."""

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klce.scoring.accuracy import NO_ROWS, Calibration
from klce.scoring.compare_columns import CUT_OFF
from klce.scoring.distribution import Counting, pieces, quantiles_of
from klce.scoring.groups import Groups, GroupSums
from klce.scoring.moments import NO_VALUES, Moments
from klce.scoring.numbers import exp
from klce.scoring.summary import counted

MEASURES = {
    "kl_divergence": "KL(P||Q), nats",
    "reverse_kl_divergence": "KL(Q||P), nats",
    "js_divergence": "Jensen-Shannon divergence, nats",
    "total_variation": "total variation distance",
    "expected_agreement": "probability that samples of both agree",
    "same_argmax": "same argmax",
    "top_overlap": "classes in the top k of both",
    "entropy_p": "entropy of P, nats",
    "entropy_q": "entropy of Q, nats",
    "nll_p": "NLL of P, nats",
    "nll_q": "NLL of Q, nats",
    "nll_change": "NLL of Q - NLL of P, nats",
    "target_prob_change": "label's probability in Q - in P",
    "squared_target_prob_change": "its square",
    "greedy_match_p": "argmax of P is the label",
    "greedy_match_q": "argmax of Q is the label",
}
"""Values of a row whose means are given, those of the labels last."""


_SUMS_BYTES = 64 << 20
"""The most that sums by sequence take, if those of one value do not take more."""

FOLLOWING = {
    "perplexity_p": "perplexity of P",
    "perplexity_q": "perplexity of Q",
    "perplexity_ratio": "perplexity of Q / that of P",
    "perplexity_difference": "perplexity of Q - that of P",
    "rms_target_prob_change": "root of the mean square of the label's change",
}
"""What follows from the means where there are labels: attributes of `ComparisonSummary`."""

_FROM = {
    "nll_change": ("target_log_prob_change",),
    "squared_target_prob_change": ("target_prob_change",),
    "greedy_match_p": ("argmax_p", "target"),
    "greedy_match_q": ("argmax_q", "target"),
}
"""The columns that values come from, where that is not one of their name."""


_CUT_OFF = tuple(name + suffix for suffix in CUT_OFF for name in ("floor_classes", "saturated"))


def measured(columns: np.dtype[Any]) -> list[str]:
    """Return which of `MEASURES` rows of such columns have."""
    there = {*(columns.names or ())}
    return [name for name in MEASURES if there.issuperset(_columns(name))]


def measure(table: NDArray[Any], name: str) -> NDArray[np.float64]:
    """Return a value of each row, by its name in `MEASURES`."""
    first, *others = (table[column] for column in _columns(name))
    values: NDArray[np.float64] = (first == others[0] if others else first).astype(np.float64)
    if name == "nll_change":
        values = 0 - values
    elif name == "squared_target_prob_change":
        values *= values
    return values


def _columns(name: str) -> tuple[str, ...]:
    return _FROM.get(name, (name,))


def counted_rows(table: NDArray[Any], ignore_index: int) -> NDArray[np.bool_]:
    """Tell which rows of a table count: those of `klce.scoring.summary.counted` for P and Q."""
    counts = counted(table, ignore_index, "_p")
    counts &= counted(table, ignore_index, "_q") & ~np.isnan(table["kl_divergence"])
    return counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over rows, or what follows from one.

    Attributes
    ----------
    mean : float
        nan if no row counts.
    error : float
        Its standard error, as if rows were independent: the root of var/(n - 1).
    clustered_error : float or None
        The same clustered by sequence, if there are groups.
    """

    mean: float
    error: float
    clustered_error: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonSummary:
    """Counts, means and quantiles over rows.

    Attributes
    ----------
    rows, ignored, nan : int
        All rows; those with the label ``ignore_index``; the others with a nan in their results.
    first_nan : int or None
        Number of the first nan row.
    infinite : int
        Rows that count whose KL(P||Q) is inf: Q gives nothing to a class that P gives something.
    estimates : dict of str to Estimate
        By the names of `MEASURES`, those that there are.
    kl_divergence_quantiles, target_prob_change_quantiles : tuple of float
        Quantiles at `QUANTILES` of KL(P||Q) and of the label's change of probability.
    calibration_p, calibration_q : Calibration
        How often the argmax of P, or of Q, is the label, by its probability; of no rows without
        labels.
    saturated, saturated_q : int or None
        Rows whose label the file of P, or of Q, cut off, so that their NLL is a lower bound; None
        where it cuts nothing off.
    floor_classes, floor_classes_q : int or None
        Log-probabilities, of all rows that count, that the file of P, or of Q, cut off.
    """

    rows: int
    ignored: int
    nan: int
    first_nan: int | None
    infinite: int
    estimates: dict[str, Estimate]
    kl_divergence_quantiles: tuple[float, ...]
    target_prob_change_quantiles: tuple[float, ...] | None
    calibration_p: Calibration
    calibration_q: Calibration
    saturated: int | None
    floor_classes: int | None
    saturated_q: int | None
    floor_classes_q: int | None

    @property
    def counted(self) -> int:
        """Rows that count."""
        return self.rows - self.ignored - self.nan

    @property
    def perplexity_p(self) -> Estimate:
        """The exponential of the mean NLL of P."""
        return _exponential(self.estimates["nll_p"])

    @property
    def perplexity_q(self) -> Estimate:
        """The exponential of the mean NLL of Q."""
        return _exponential(self.estimates["nll_q"])

    @property
    def perplexity_ratio(self) -> Estimate:
        """The perplexity of Q by that of P."""
        return _exponential(self.estimates["nll_change"])

    @property
    def perplexity_difference(self) -> Estimate:
        """The perplexity of Q less that of P."""
        p, q, ratio = self.perplexity_p, self.perplexity_q, self.perplexity_ratio

        def error(which: str) -> float:
            # The variance of q - p, with that of the change for the covariance: what is near, and
            # would cancel, is subtracted first.
            of_p, of_q, of_change = (
                getattr(self.estimates[name], which) for name in ("nll_p", "nll_q", "nll_change")
            )
            variance = (q.mean - p.mean) * (q.mean * of_q * of_q - p.mean * of_p * of_p)
            variance += q.mean * p.mean * of_change * of_change
            return math.sqrt(max(variance, 0.0)) if math.isfinite(variance) else math.nan

        difference = q.mean - p.mean
        if 0.5 < ratio.mean < 2:
            difference = p.mean * math.expm1(self.estimates["nll_change"].mean)
        return Estimate(
            mean=difference,
            error=error("error"),
            clustered_error=None if p.clustered_error is None else error("clustered_error"),
        )

    @property
    def following(self) -> dict[str, Estimate]:
        """What follows from the means of labels, by the names of `FOLLOWING`."""
        return {name: getattr(self, name) for name in FOLLOWING if "nll_p" in self.estimates}

    @property
    def nll_correlation(self) -> float:
        """The correlation of the NLL of P and of Q over rows."""
        p, q, change = (self.estimates[name].error for name in ("nll_p", "nll_q", "nll_change"))
        return (p * p + q * q - change * change) / (2 * p * q) if p * q else math.nan

    @property
    def rms_target_prob_change(self) -> Estimate:
        """Root of the mean square of the label's change of probability."""
        square = self.estimates["squared_target_prob_change"]
        root = math.sqrt(square.mean)
        return _scaled(square, root, 1 / (2 * root) if root else math.nan)


def _exponential(estimate: Estimate) -> Estimate:
    value = exp(estimate.mean)
    return _scaled(estimate, value, value)


def _scaled(estimate: Estimate, value: float, slope: float) -> Estimate:
    """Return a value that follows from an estimate, with its errors by the slope there."""
    clustered = estimate.clustered_error
    return Estimate(
        mean=value,
        error=slope * estimate.error,
        clustered_error=None if clustered is None else slope * clustered,
    )


QUANTIFIED = ("kl_divergence", "target_prob_change")
"""The columns whose quantiles are given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What a pass over rows finds: what `ComparisonSummary` counts, and sums.

    Attributes
    ----------
    cut_off : dict of str to int
        What files cut off, of rows that count, by the columns that there are.
    moments : dict of str to Moments
        Of the values that there are, by the names of `MEASURES`.
    calibrations : dict of str to Calibration
        Of P and of Q, by the suffixes of their columns.
    """

    rows: int
    ignored: int
    nan: int
    first_nan: int | None
    infinite: int
    cut_off: dict[str, int]
    moments: dict[str, Moments]
    calibrations: dict[str, Calibration]

    def merge(self, other: "Counts") -> "Counts":
        """Return those of these rows and of others, which follow them."""
        return Counts(
            rows=self.rows + other.rows,
            ignored=self.ignored + other.ignored,
            nan=self.nan + other.nan,
            first_nan=other.first_nan if self.first_nan is None else self.first_nan,
            infinite=self.infinite + other.infinite,
            cut_off={name: n + other.cut_off[name] for name, n in self.cut_off.items()},
            moments={name: own.merge(other.moments[name]) for name, own in self.moments.items()},
            calibrations={
                name: own.merge(other.calibrations[name]) for name, own in self.calibrations.items()
            },
        )


def count(rows: NDArray[Any], ignore_index: int, first_row: int = 0) -> Counts:
    """Count rows of a comparison, and add up their values by fixed pieces."""
    columns = rows.dtype.names or ()
    ignored = nan = infinite = 0
    cut_off = {name: 0 for name in _CUT_OFF if name in columns}
    first_nan: int | None = None
    moments = dict.fromkeys(measured(rows.dtype), NO_VALUES)
    calibrations = dict.fromkeys(("_p", "_q"), NO_ROWS)
    for start, table, counts in pieces(rows, _counting(ignore_index)):
        skipped = np.zeros(len(table), bool)
        if "target" in columns:
            skipped = table["target"] == ignore_index
        bad = ~counts & ~skipped
        if first_nan is None and bad.any():
            first_nan = first_row + start + int(bad.argmax())
        ignored, nan = ignored + int(skipped.sum()), nan + int(bad.sum())
        infinite += int(np.isinf(table["kl_divergence"][counts]).sum())
        for name in cut_off:
            cut_off[name] += int(table[name][counts].sum())
        for name in moments:
            moments[name] = moments[name].merge(Moments.of(measure(table, name)[counts]))
        if "target" in columns:
            for suffix in calibrations:
                right = (table["argmax" + suffix] == table["target"])[counts]
                found = Calibration.of(table["max_log_prob" + suffix][counts], right)
                calibrations[suffix] = calibrations[suffix].merge(found)
    return Counts(
        rows=len(rows),
        ignored=ignored,
        nan=nan,
        first_nan=first_nan,
        infinite=infinite,
        cut_off=cut_off,
        moments=moments,
        calibrations=calibrations,
    )


def quantified(table: NDArray[Any], name: str, ignore_index: int) -> NDArray[Any]:
    """Return one of the columns `QUANTIFIED` of the rows that count."""
    found: NDArray[Any] = table[name][counted_rows(table, ignore_index)]
    return found


def conclude(
    counts: Counts,
    clustered: dict[str, float],
    quantiles: dict[str, tuple[float, ...]],
) -> ComparisonSummary:
    """Return the summary of what passes over the rows found: see `summarize`."""
    return ComparisonSummary(
        rows=counts.rows,
        ignored=counts.ignored,
        nan=counts.nan,
        first_nan=counts.first_nan,
        infinite=counts.infinite,
        estimates={
            name: Estimate(mean=found.mean, error=found.error, clustered_error=clustered.get(name))
            for name, found in counts.moments.items()
        },
        kl_divergence_quantiles=quantiles["kl_divergence"],
        target_prob_change_quantiles=quantiles.get("target_prob_change"),
        calibration_p=counts.calibrations["_p"],
        calibration_q=counts.calibrations["_q"],
        **{name: counts.cut_off.get(name) for name in _CUT_OFF},
    )


def summarize(rows: NDArray[Any], ignore_index: int, groups: Groups | None) -> ComparisonSummary:
    """Summarize the rows of a comparison.

    It passes over `rows` once, once more for each quantile, and by sequence once or more often: see
    `_clustered_errors`.
    """
    counts = count(rows, ignore_index)
    clustered = {}
    if groups is not None:
        clustered = _clustered_errors(rows, [*counts.moments], groups, _counting(ignore_index))
    columns = [name for name in QUANTIFIED if name in (rows.dtype.names or ())]
    found = {
        name: quantiles_of(
            rows,
            functools.partial(quantified, name=name, ignore_index=ignore_index),
            rows.dtype[name],
        )
        for name in columns
    }
    return conclude(counts, clustered, found)


def _counting(ignore_index: int) -> Counting:
    return functools.partial(counted_rows, ignore_index=ignore_index)


def _clustered_errors(
    rows: NDArray[Any], names: list[str], groups: Groups, counting: Counting
) -> dict[str, float]:
    """Return the clustered errors of values: of so many in a pass as their sums take little."""
    errors: dict[str, float] = {}
    each = max(1, _SUMS_BYTES // (8 * max(1, len(groups))))
    for start in range(0, len(names), each):
        some, sums = names[start : start + each], GroupSums(groups)
        for _, table, counts in pieces(rows, counting):
            sums.add({name: measure(table, name) for name in some}, counts)
        errors |= {name: sums.clustered_error(name) for name in some}
    return errors
