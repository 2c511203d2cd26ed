"""What the rows of a comparison say together: means with their errors, and quantiles."""

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from klce.scoring.distribution import QUANTILES, in_order, pieces, quantiles
from klce.scoring.groups import Groups, GroupSums
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


COMPARED = (
    "kl_divergence",
    "reverse_kl_divergence",
    "js_divergence",
    "total_variation",
    "expected_agreement",
    "entropy_p",
    "entropy_q",
)
"""What `klce.compare` tells of two rows."""


def row_dtype(dtype: DTypeLike, *, labelled: bool, cut_off: bool, top_k: int = 0) -> np.dtype[Any]:
    """Return the columns of a comparison's per-row results, in nats.

    They have the names that `klce.compare` and, with ``_p`` and ``_q`` behind, `klce.score` give
    them. Where P comes from a file whose log-probabilities are cut
    off, ``floor_classes`` counts those that are, and the row is ``saturated`` if its label is one.
    """
    real = np.dtype(dtype)
    label = [("target", np.int64), ("nll_p", real), ("nll_q", real)] if labelled else []
    columns: list[tuple[str, Any]] = [*label, *((name, real) for name in COMPARED)]
    columns += [("max_log_prob_p", real), ("max_log_prob_q", real)]
    columns += [("argmax_p", np.int64), ("argmax_q", np.int64)]
    if top_k:
        columns.append(("top_overlap", np.int64))
    if cut_off:
        columns += [("floor_classes", np.int64), *([("saturated", np.bool_)] if labelled else [])]
    return np.dtype(columns)


def measures(table: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return the values of `MEASURES` that rows have, as float64."""
    names = table.dtype.names or ()
    found = {name: table[name].astype(np.float64) for name in MEASURES if name in names}
    found["same_argmax"] = (table["argmax_p"] == table["argmax_q"]).astype(np.float64)
    if "target" in names:
        found["nll_change"] = found["nll_q"] - found["nll_p"]
        found["target_prob_change"] = target_prob_change(table)
        found["squared_target_prob_change"] = found["target_prob_change"] ** 2
        found["greedy_match_p"] = (table["argmax_p"] == table["target"]).astype(np.float64)
        found["greedy_match_q"] = (table["argmax_q"] == table["target"]).astype(np.float64)
    return {name: found[name] for name in MEASURES if name in found}


def target_prob_change(table: NDArray[Any]) -> NDArray[np.float64]:
    """Return the label's probability in Q less that in P, exact also where they are near."""
    nll_p, nll_q = table["nll_p"].astype(np.float64), table["nll_q"].astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        change: NDArray[np.float64] = np.exp(-nll_p) * np.expm1(nll_p - nll_q)
    # Where P gives the label nothing, the change is what Q gives it.
    return np.where(np.isposinf(nll_p), np.exp(-nll_q), change)


def counted_rows(table: NDArray[Any], ignore_index: int) -> NDArray[np.bool_]:
    """Tell which rows of a table count: those of `klce.scoring.summary.counted` for P and Q."""
    counts = counted(table, ignore_index, "_p")
    counts &= counted(table, ignore_index, "_q") & ~np.isnan(table["kl_divergence"])
    return counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over rows.

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
    saturated : int or None
        Rows whose label P's file cut off, so that their NLL is a lower bound.
    floor_classes : int or None
        Log-probabilities, of all rows that count, that P's file cut off.
    """

    rows: int
    ignored: int
    nan: int
    first_nan: int | None
    infinite: int
    estimates: dict[str, Estimate]
    kl_divergence_quantiles: tuple[float, ...]
    target_prob_change_quantiles: tuple[float, ...] | None
    saturated: int | None
    floor_classes: int | None

    @property
    def counted(self) -> int:
        """Rows that count."""
        return self.rows - self.ignored - self.nan

    def perplexity(self, which: str = "nll_p") -> float:
        """Return the exponential of a mean NLL, or of a change of it: a ratio of perplexities."""
        try:
            return math.exp(self.estimates[which].mean)
        except OverflowError:
            return math.inf

    @property
    def rms_target_prob_change(self) -> float:
        """Root of the mean square of the label's change of probability."""
        return math.sqrt(self.estimates["squared_target_prob_change"].mean)


def summarize(rows: NDArray[Any], ignore_index: int, groups: Groups | None) -> ComparisonSummary:
    """Summarize the rows of a comparison.

    Sums go by fixed pieces, in order, and variances from the means: in two passes over `rows`.
    """
    labelled = "target" in (rows.dtype.names or ())
    ignored = nan = infinite = saturated = floor_classes = count = 0
    first_nan: int | None = None
    parts: dict[str, list[float]] = {}
    sums = None if groups is None else GroupSums(groups)
    counting = functools.partial(counted_rows, ignore_index=ignore_index)
    for start, table, counts in pieces(rows, counting):
        skipped = table["target"] == ignore_index if labelled else np.zeros(len(table), bool)
        bad = ~counts & ~skipped
        if first_nan is None and bad.any():
            first_nan = start + int(bad.argmax())
        ignored, nan = ignored + int(skipped.sum()), nan + int(bad.sum())
        count += int(counts.sum())
        infinite += int(np.isinf(table["kl_divergence"][counts]).sum())
        if "saturated" in (table.dtype.names or ()):
            saturated += int(table["saturated"][counts].sum())
        if "floor_classes" in (table.dtype.names or ()):
            floor_classes += int(table["floor_classes"][counts].sum())
        values = measures(table)
        for name, numbers in values.items():
            parts.setdefault(name, []).append(float(numbers[counts].sum()))
        if sums is not None:
            sums.add(values, counts)
    names = list(measures(rows[:0]))
    means = {name: _fsum(parts.get(name, [])) / count if count else math.nan for name in names}

    squares: dict[str, list[float]] = {name: [] for name in names}
    for _, table, counts in pieces(rows, counting):
        for name, numbers in measures(table).items():
            with np.errstate(invalid="ignore", over="ignore"):
                deviations = numbers[counts] - means[name]
                squares[name].append(float((deviations * deviations).sum()))
    estimates = {
        name: Estimate(
            mean=means[name],
            error=_error(_fsum(squares[name]), count),
            clustered_error=None if sums is None else sums.clustered_error(name),
        )
        for name in names
    }

    def divergences(table: NDArray[Any]) -> NDArray[Any]:
        found: NDArray[Any] = table["kl_divergence"][counting(table)]
        return found

    def changes(table: NDArray[Any]) -> NDArray[np.float64]:
        return target_prob_change(table)[counting(table)]

    with in_order(rows, divergences, rows.dtype["kl_divergence"]) as ordered:
        kl_quantiles = tuple(quantiles(ordered, QUANTILES))
    change_quantiles = None
    if labelled:
        with in_order(rows, changes, np.float64) as ordered:
            change_quantiles = tuple(quantiles(ordered, QUANTILES))
    columns = rows.dtype.names or ()
    return ComparisonSummary(
        rows=len(rows),
        ignored=ignored,
        nan=nan,
        first_nan=first_nan,
        infinite=infinite,
        estimates=estimates,
        kl_divergence_quantiles=kl_quantiles,
        target_prob_change_quantiles=change_quantiles,
        saturated=saturated if "saturated" in columns else None,
        floor_classes=floor_classes if "floor_classes" in columns else None,
    )


def _fsum(parts: list[float]) -> float:
    return math.fsum(parts) if all(map(math.isfinite, parts)) else sum(parts)


def _error(squares: float, count: int) -> float:
    if count < 2 or not math.isfinite(squares):
        return math.nan
    return math.sqrt(squares / count / (count - 1))
