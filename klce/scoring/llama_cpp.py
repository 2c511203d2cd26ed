"""What llama.cpp's perplexity tool prints with ``--kl-divergence``, from logits alone.

Its formulas, in its arithmetic: float32 for a row, with sums over classes and rows in float64. The
base model is known by its log-probabilities in 16 bits, of which those at -16 or below are left out
of the divergence, and nothing is normalised. So a row's divergence may be negative; for the exact
one, compare without ``--compat``.

Checked against commit 0c1e57098 of the tool, whose output for two pairs of files is reproduced.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klce.scoring import kld

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
    x = q.astype(np.float32, copy=False)
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
    with np.errstate(invalid="ignore"):
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
    """The tool's statistics of the rows so far."""

    def __init__(self, table: NDArray[Any]) -> None:
        nll_q, nll_p, kl = table["nll_q"], table["nll_p"], table["kl_divergence"]
        change = table["target_prob_change"]
        square = (change * change).astype(np.float64)
        self.count = len(table)
        q = self._mean(nll_q, nll_q * nll_q)  # products in float32, like the values
        p = self._mean(nll_p, nll_p * nll_p)
        covariance = self._covariance(nll_q, nll_p)
        self.perplexity_q = _exponential(q)
        self.perplexity_p = _exponential(p)
        self.correlation = _divide(covariance, q.error * p.error)
        self.log_ratio = _Estimate(
            q.value - p.value, _root(q.error**2 + p.error**2 - 2 * covariance)
        )
        self.ratio = _exponential(self.log_ratio)
        between = self.perplexity_q.value * self.perplexity_p.value * covariance
        self.difference = _Estimate(
            self.perplexity_q.value - self.perplexity_p.value,
            _root(self.perplexity_q.error**2 + self.perplexity_p.error**2 - 2 * between),
        )
        self.kl = self._mean(kl, kl * kl)
        self.change = self._mean(change, square)
        mean_square = self._mean(square, square * square)
        rms = _root(mean_square.value)
        self.rms_change = _Estimate(rms, _divide(0.5 * mean_square.error, rms))
        same = float(table["same_argmax"].sum()) / self.count
        self.same_top = _Estimate(same, _root(_divide(same * (1 - same), self.count - 1)))

    def _mean(self, values: NDArray[Any], squares: NDArray[Any]) -> _Estimate:
        mean = float(values.sum(dtype=np.float64)) / self.count
        variance = float(squares.sum(dtype=np.float64)) / self.count - mean * mean
        # The tool takes a variance that rounding made negative, and one of few values, for none.
        known = variance > 0 and self.count > 10
        return _Estimate(mean, math.sqrt(variance / (self.count - 1)) if known else 0.0)

    def _covariance(self, a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
        if self.count < 10:
            return 0.0
        means = [float(values.sum(dtype=np.float64)) / self.count for values in (a, b)]
        mean_product = float((a * b).sum(dtype=np.float64)) / self.count
        return (mean_product - means[0] * means[1]) / (self.count - 1)


_CHUNK_HEADING = (
    "chunk             PPL               ln(PPL(Q)/PPL(base))          KL Divergence"
    "              Δp RMS            Same top p"
)


def chunk_lines(table: NDArray[Any], rows_per_chunk: int) -> Iterator[str]:
    """Yield the table of chunks: the statistics after each."""
    yield _CHUNK_HEADING
    for chunk, stop in enumerate(range(rows_per_chunk, len(table) + 1, rows_per_chunk), 1):
        s = Statistics(table[:stop])
        yield (
            f"{chunk:4d}"
            f"    {_pair(s.perplexity_q, '9.4f')}"
            f"    {_pair(s.log_ratio, '10.5f')}"
            f"    {_pair(s.kl, '10.5f')}"
            f"    {_pair(_percent(s.rms_change), '6.3f')} %"
            f"    {_pair(_percent(s.same_top), '6.3f')} %"
        )


def statistics_lines(
    table: NDArray[Any], kl: NDArray[np.float32], change: NDArray[np.float32]
) -> Iterator[str]:
    """Yield the blocks of statistics, given the divergences and probability changes in order."""
    s = Statistics(table)
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
    for name, fraction in _percentiles(kl):
        yield f"{name} KLD: {_number(fraction, '10.6f')}"
    yield ""
    yield "====== Token probability statistics ======"
    yield f"Mean    Δp: {_pair(_percent(s.change), '6.3f', '5.3f')} %"
    for name, fraction in _percentiles(change, quartiles=True):
        yield f"{name} Δp: {_number(100 * fraction, '6.3f')}%"
    yield f"RMS Δp    : {_pair(_percent(s.rms_change), '6.3f', '5.3f')} %"
    yield f"Same top p: {_pair(_percent(s.same_top), '6.3f', '5.3f')} %"


def _percentiles(
    ordered: NDArray[np.float32], *, quartiles: bool = False
) -> Iterator[tuple[str, float]]:
    yield "Maximum", float(ordered[-1])
    for percent in (99.9, 99.0, 95.0, 90.0, *([75.0] if quartiles else [])):
        yield f"{percent:4.1f}%  ", _percentile(ordered, percent / 100)
    yield "Median ", _median(ordered)
    for percent in (*([25.0] if quartiles else []), 10.0, 5.0, 1.0, 0.1):
        yield f"{percent:4.1f}%  ", _percentile(ordered, percent / 100)
    yield "Minimum", float(ordered[0])


def _percentile(ordered: NDArray[np.float32], fraction: float) -> float:
    position = np.float32(fraction) * np.float32(len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    weight = position - np.float32(below)
    return float((np.float32(1) - weight) * ordered[below] + weight * ordered[above])


def _median(ordered: NDArray[np.float32]) -> float:
    half = len(ordered) // 2
    if len(ordered) % 2:
        return float(ordered[half])
    return float(np.float32(0.5) * (ordered[half] + ordered[half - 1]))


def _exponential(estimate: _Estimate) -> _Estimate:
    try:
        value = math.exp(estimate.value)
    except OverflowError:
        value = math.inf
    return _Estimate(value, value * estimate.error)


def _percent(estimate: _Estimate) -> _Estimate:
    return _Estimate(100 * estimate.value, 100 * estimate.error)


def _root(value: float) -> float:
    # C's root of a negative number has the sign bit set, which its printf shows.
    return math.sqrt(value) if value >= 0 else -math.nan


def _divide(a: float, b: float) -> float:
    if b:
        return a / b
    return -math.nan if a == 0 else math.copysign(math.inf, a)


def _pair(estimate: _Estimate, form: str, error_form: str | None = None) -> str:
    return f"{_number(estimate.value, form)} ± {_number(estimate.error, error_form or form)}"


def _number(value: float, form: str) -> str:
    if math.isnan(value):
        return f"{'-nan' if math.copysign(1, value) < 0 else 'nan':>{form.partition('.')[0]}}"
    return format(value, form)
