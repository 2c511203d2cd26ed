"""What llama.cpp's perplexity tool prints with ``--kl-divergence``, from logits alone.

Its formulas, in its arithmetic: float32 for a row, with sums over classes and rows in float64. The
base model is known by its log-probabilities in 16 bits, of which those at -16 or below are left out
of the divergence, and nothing is normalised. So a row's divergence may be negative; for the exact
one, compare without ``--compat``.

Checked against commit 0c1e57098 of the tool, whose output for two pairs of files is reproduced.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klce.scoring import kld
from klce.scoring.distribution import ROWS_AT_ONCE, in_order, pieces
from klce.scoring.numbers import exp, finite_or_none

FLOOR = -16.0
"""Log-probabilities of the base at or below it are left out of the divergence."""

COLUMNS = np.dtype(
    [
        ("target", np.int64),
        ("nll_p", np.float32),
        ("nll_q", np.float32),
        ("kl_divergence", np.float64),
        ("target_prob_change", np.float32),
        ("same_argmax", np.bool_),
    ]
)
"""A row's results, in nats; p is the base."""


def compare_rows(
    log_p: NDArray[np.float32], q: NDArray[Any], target: NDArray[np.int64]
) -> NDArray[Any]:
    """Compare rows of the base's decoded log-probabilities with logits, as the tool does."""
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite makes its row nan
        return _compare_rows(log_p, q.astype(np.float32, copy=False), target)


def _compare_rows(
    log_p: NDArray[np.float32], x: NDArray[np.float32], target: NDArray[np.int64]
) -> NDArray[Any]:
    rows = np.arange(len(x))
    largest = x.max(axis=1)
    total = kld.exponential(x - largest[:, None]).sum(axis=1, dtype=np.float64)
    log_total = np.log(total).astype(np.float32)
    normalizer = largest + log_total

    table = np.empty(len(x), COLUMNS)
    table["target"] = target
    table["nll_q"] = normalizer - x[rows, target]
    table["nll_p"] = -log_p[rows, target]
    probability = kld.exponential(log_p)
    probability[log_p <= FLOOR] = 0
    terms = log_p - x
    terms += normalizer[:, None]
    terms *= probability
    terms[probability == 0] = 0
    table["kl_divergence"] = terms.sum(axis=1, dtype=np.float64)
    table["target_prob_change"] = kld.exponential(-table["nll_q"]) - kld.exponential(
        -table["nll_p"]
    )
    table["same_argmax"] = x.argmax(axis=1) == log_p.argmax(axis=1)
    return table


def as_base(logits: NDArray[Any], path: str, first_row: int) -> NDArray[np.float32]:
    """Return the log-probabilities of logits as the tool would find them in its own file."""
    return kld.decode(kld.encode(logits, kld.CUTS[0], path=path, first_row=first_row))


@dataclass(frozen=True, slots=True)
class _Estimate:
    """A mean, and its error as the tool reckons it."""

    value: float
    error: float


class Statistics:
    """The tool's statistics of so many rows, given `_sums` of them."""

    def __init__(self, count: int, sums: NDArray[np.float64]) -> None:
        q, qq, p, pp, qp, kl, kl_squares, change, squares, fourth_powers, same = sums.tolist()
        self.count = count
        mean_q, mean_p = self._mean(q, qq), self._mean(p, pp)
        covariance = self._covariance(q, p, qp)
        self.perplexity_q = _exponential(mean_q)
        self.perplexity_p = _exponential(mean_p)
        self.correlation = _divide(covariance, mean_q.error * mean_p.error)
        self.log_ratio = _Estimate(
            mean_q.value - mean_p.value,
            _root(mean_q.error**2 + mean_p.error**2 - 2 * covariance),
        )
        self.ratio = _exponential(self.log_ratio)
        between = self.perplexity_q.value * self.perplexity_p.value * covariance
        self.difference = _Estimate(
            self.perplexity_q.value - self.perplexity_p.value,
            _root(self.perplexity_q.error**2 + self.perplexity_p.error**2 - 2 * between),
        )
        self.kl = self._mean(kl, kl_squares)
        self.change = self._mean(change, squares)
        mean_square = self._mean(squares, fourth_powers)
        rms = _root(mean_square.value)
        self.rms_change = _Estimate(rms, _divide(0.5 * mean_square.error, rms))
        share = same / count
        self.same_top = _Estimate(share, _root(_divide(share * (1 - share), count - 1)))

    def _mean(self, total: float, squares: float) -> _Estimate:
        mean = total / self.count
        variance = squares / self.count - mean * mean
        # The tool takes a variance that rounding made negative, and one of few values, for none.
        known = variance > 0 and self.count > 10
        return _Estimate(mean, math.sqrt(variance / (self.count - 1)) if known else 0.0)

    def _covariance(self, a: float, b: float, products: float) -> float:
        if self.count < 10:
            return 0.0
        mean_product = products / self.count
        return (mean_product - a / self.count * (b / self.count)) / (self.count - 1)

    def values(self) -> dict[str, Any]:
        """Return them by the names that the exact comparison has for them, without nan and inf."""
        values: dict[str, Any] = {"nll_correlation": self.correlation}
        for name, estimate in (
            ("perplexity_p", self.perplexity_p),
            ("perplexity_q", self.perplexity_q),
            ("perplexity_ratio", self.ratio),
            ("perplexity_difference", self.difference),
            ("rms_target_prob_change", self.rms_change),
        ):
            values |= {name: estimate.value, f"{name}_error": estimate.error}
        for name, estimate in (
            ("nll_change", self.log_ratio),
            ("kl_divergence", self.kl),
            ("target_prob_change", self.change),
            ("same_argmax", self.same_top),
        ):
            values[name] = {
                "mean": finite_or_none(estimate.value),
                "error": finite_or_none(estimate.error),
            }
        return {name: finite_or_none(value) for name, value in values.items()}


def _sums(table: NDArray[Any]) -> NDArray[np.float64]:
    q, p, kl = table["nll_q"], table["nll_p"], table["kl_divergence"]
    change = table["target_prob_change"]
    squares = (change * change).astype(np.float64)
    columns = (
        q, q * q, p, p * p, q * p,  # products in float32, like the values
        kl, kl * kl, change, squares, squares * squares, table["same_argmax"],
    )  # fmt: skip
    return np.array([column.sum(dtype=np.float64) for column in columns])


def _running(table: NDArray[Any], ends: Iterable[int]) -> Iterator[Statistics]:
    """Yield the statistics of the rows up to the end of each chunk."""
    sums, start = np.zeros(11), 0
    for stop in ends:
        for begin in range(start, stop, ROWS_AT_ONCE):
            sums += _sums(table[begin : min(begin + ROWS_AT_ONCE, stop)])
        yield Statistics(stop, sums)
        start = stop


@dataclass(frozen=True, slots=True)
class Output:
    """What the tool prints.

    Attributes
    ----------
    lines : tuple of str
        As it stands on a terminal.
    values : dict
        The same numbers by name, for JSON; ``chunks`` has those up to the end of each.
    nan : int
        Rows of nan, as where Q has nan, +inf or nothing but -inf. The means are nan then, too.
    first_nan : int or None
        The first of them.
    """

    lines: tuple[str, ...]
    values: dict[str, Any]
    nan: int
    first_nan: int | None


def output(table: NDArray[Any], ends: NDArray[np.int64] | None) -> Output:
    """Return what the tool prints of rows; `ends` tells where chunks end, if that is known."""
    found = list(_running(table, [len(table)] if ends is None else ends.tolist()))
    with (
        in_order(table, lambda rows: rows["kl_divergence"], np.float32) as kl,
        in_order(table, lambda rows: rows["target_prob_change"], np.float32) as changes,
    ):
        kl_quantiles = dict(_quantiles(kl))
        change_quantiles = dict(_quantiles(changes, quartiles=True))
    lines = [] if ends is None else [*_chunk_lines(found), ""]
    lines += [*_statistics_lines(found[-1], kl_quantiles, change_quantiles), ""]
    nan, first_nan = _nan_rows(table)
    values = {"nan_rows": nan, "first_nan_row": first_nan} | found[-1].values()
    for name, quantiles in (
        ("kl_divergence_quantiles", kl_quantiles),
        ("target_prob_change_quantiles", change_quantiles),
    ):
        values[name] = {f"{at:g}": finite_or_none(quantiles[at]) for at in sorted(quantiles)}
    if ends is not None:
        values["chunks"] = [statistics.values() for statistics in found]
    return Output(tuple(lines), values, nan, first_nan)


def _nan_rows(table: NDArray[Any]) -> tuple[int, int | None]:
    nan, first = 0, None
    for start, _, found in pieces(table, lambda rows: np.isnan(rows["kl_divergence"])):
        if first is None and found.any():
            first = start + int(found.argmax())
        nan += int(found.sum())
    return nan, first


_CHUNK_HEADING = (
    "chunk             PPL               ln(PPL(Q)/PPL(base))          KL Divergence"
    "              Δp RMS            Same top p"
)


def _chunk_lines(found: list[Statistics]) -> Iterator[str]:
    """Yield the table of chunks: the statistics after each."""
    yield _CHUNK_HEADING
    for chunk, s in enumerate(found, 1):
        yield (
            f"{chunk:4d}"
            f"    {_pair(s.perplexity_q, '9.4f')}"
            f"    {_pair(s.log_ratio, '10.5f')}"
            f"    {_pair(s.kl, '10.5f')}"
            f"    {_pair(_percent(s.rms_change), '6.3f')} %"
            f"    {_pair(_percent(s.same_top), '6.3f')} %"
        )


def _statistics_lines(
    s: Statistics, kl: dict[float, float], change: dict[float, float]
) -> Iterator[str]:
    """Yield the blocks of statistics, given the quantiles of divergences and changes."""
    yield "====== Perplexity statistics ======"
    yield f"Mean PPL(Q)                   : {_pair(s.perplexity_q, '10.6f')}"
    yield f"Mean PPL(base)                : {_pair(s.perplexity_p, '10.6f')}"
    yield f"Cor(ln(PPL(Q)), ln(PPL(base))): {_number(100 * s.correlation, '6.2f')}%"
    yield f"Mean ln(PPL(Q)/PPL(base))     : {_pair(s.log_ratio, '10.6f')}"
    yield f"Mean PPL(Q)/PPL(base)         : {_pair(s.ratio, '10.6f')}"
    yield f"Mean PPL(Q)-PPL(base)         : {_pair(s.difference, '10.6f')}"
    yield ""
    yield "====== KL divergence statistics ======"
    yield f"Mean    KLD: {_pair(s.kl, '10.6f')}"
    for at, value in kl.items():
        yield f"{_quantile_name(at)} KLD: {_number(value, '10.6f')}"
    yield ""
    yield "====== Token probability statistics ======"
    yield f"Mean    Δp: {_pair(_percent(s.change), '6.3f', '5.3f')} %"
    for at, value in change.items():
        yield f"{_quantile_name(at)} Δp: {_number(100 * value, '6.3f')}%"
    yield f"RMS Δp    : {_pair(_percent(s.rms_change), '6.3f', '5.3f')} %"
    yield f"Same top p: {_pair(_percent(s.same_top), '6.3f', '5.3f')} %"


def _quantiles(
    ordered: NDArray[np.float32], *, quartiles: bool = False
) -> Iterator[tuple[float, float]]:
    if not len(ordered):  # all were nan
        ordered = np.full(1, np.nan, ordered.dtype)
    yield 1.0, float(ordered[-1])
    for fraction in (0.999, 0.99, 0.95, 0.9, *([0.75] if quartiles else [])):
        yield fraction, _quantile(ordered, fraction)
    yield 0.5, _median(ordered)
    for fraction in (*([0.25] if quartiles else []), 0.1, 0.05, 0.01, 0.001):
        yield fraction, _quantile(ordered, fraction)
    yield 0.0, float(ordered[0])


def _quantile_name(fraction: float) -> str:
    names = {1.0: "Maximum", 0.5: "Median ", 0.0: "Minimum"}
    return names.get(fraction, f"{100 * fraction:4.1f}%  ")


def _quantile(ordered: NDArray[np.float32], fraction: float) -> float:
    position = np.float32(fraction) * np.float32(len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    weight = position - np.float32(below)
    with np.errstate(invalid="ignore"):  # the tool's formula, also beside an infinite value
        return float((np.float32(1) - weight) * ordered[below] + weight * ordered[above])


def _median(ordered: NDArray[np.float32]) -> float:
    half = len(ordered) // 2
    if len(ordered) % 2:
        return float(ordered[half])
    return float(np.float32(0.5) * (ordered[half] + ordered[half - 1]))


def _exponential(estimate: _Estimate) -> _Estimate:
    value = exp(estimate.value)
    return _Estimate(value, value * estimate.error)


def _percent(estimate: _Estimate) -> _Estimate:
    return _Estimate(100 * estimate.value, 100 * estimate.error)


def _root(value: float) -> float:
    # C's root of a negative number has the sign bit set, which its printf shows.
    return math.sqrt(value) if value >= 0 else -math.nan


def _divide(a: float, b: float) -> float:
    if b:
        return a / b
    if math.isnan(a):
        return a
    return -math.nan if a == 0 else math.copysign(math.inf, a)


def _pair(estimate: _Estimate, form: str, error_form: str | None = None) -> str:
    return f"{_number(estimate.value, form)} ± {_number(estimate.error, error_form or form)}"


def _number(value: float, form: str) -> str:
    if math.isnan(value):
        return f"{'-nan' if math.copysign(1, value) < 0 else 'nan':>{form.partition('.')[0]}}"
    return format(value, form)
