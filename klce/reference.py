"""The specification of what klce computes, in readable NumPy, and the oracle of its tests.

The first part holds one function per kernel: it works on the last axis of an array and returns
float64 (``KERNELS`` maps kernel names to them). The second part holds the public functions, which
add what a user sees: ``axis``, ``form``, ``base``, ``reduction`` and argument checks. They have the
signatures of the compiled ones, less ``out`` and ``dtype``, and check values but not dtypes.

Three rules keep the results right to the last digits of float64:

1. The maximum stays out of a sum of exponentials and comes back through ``log1p``, so a row whose
   maximum is far ahead keeps its small loss and its small entropy.
2. A divergence is a sum of terms that are not negative and vanish with the difference of the two
   distributions, ``q - p + p*log(p/q)``; log-probabilities are never subtracted.
3. Every intermediate value is a ``np.longdouble``. Where that is wider than float64 (x86-64: 64
   significant bits; aarch64 Linux: 113) results are correctly rounded float64 but for rare ties.
   What differs for rows that are near (divergences below some 1e-9, the total variation, the
   changes at the target) sees the last place of the normalisers, too. Where it is not wider, the
   first two rules alone keep them within a few ULP.

Special values: 0*log 0 = 0, also against q = 0; p > 0 against q = 0 is inf; a finite logit or
log-probability means p > 0, however small; a negative probability or a nan makes its row nan, and
so does a row of probabilities to be normalised that sums to 0, or a row of logits that is all -inf
or holds +inf (only ``logsumexp`` is defined there). A row without classes counts as all zero.

Sources: T. Cover and J. Thomas, "Elements of Information Theory", chapter 2 (the measures);
P. Blanchard, D. Higham and N. Higham, "Accurately computing the log-sum-exp and softmax functions",
IMA J. Numer. Anal. 41 (2021) (the shift and the ``log1p`` form).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from klce._typing import (
        Array,
        ArrayLike,
        Axis,
        BinaryForm,
        DivergenceReduction,
        Form,
        Mask,
        Reduction,
    )

    Wide = NDArray[np.longdouble]
    Float64 = NDArray[np.float64]

__all__ = [
    "KERNELS",
    "binary_cross_entropy",
    "binary_entropy",
    "compare",
    "cross_entropy",
    "entropy",
    "information",
    "js_divergence",
    "kl_divergence",
    "log_softmax",
    "logsumexp",
    "nll_loss",
    "rel_entr",
    "score",
    "softmax",
]

# Infinities and nan are results here, not accidents: no function warns about them.
_silent = np.errstate(all="ignore")


# --- parts ----------------------------------------------------------------------------------------


def _wide(x: Array) -> Wide:
    return np.asarray(x).astype(np.longdouble)


def _float64(x: Any) -> Float64:
    # + 0.0 turns -0.0 into 0.0: minus a sum of nothing is 0.
    return np.asarray(x + 0.0, dtype=np.float64)


class _Split(NamedTuple):
    """A row of logits x at temperature T as its maximum and the rest.

    ``offset = (x - maximum)/T`` and ``weight = exp(offset)``; ``rest`` sums every weight but that
    of the first maximum, which is 1, so ``logsumexp(x/T) = maximum/T + log1p(rest)``.
    """

    maximum: Wide
    offset: Wide
    weight: Wide
    rest: Wide

    @property
    def total(self) -> Wide:
        return 1 + self.rest


def _split(x: Array, temperature: float = 1.0) -> _Split:
    x = _wide(x)
    maximum = x.max(axis=-1, keepdims=True, initial=-np.inf)
    # Subtracted first, divided after: x - maximum is exact, a rounded x/T would not be.
    offset = np.where(np.isfinite(maximum), (x - maximum) / np.longdouble(temperature), np.nan)
    weight = np.exp(offset)
    others = weight.copy()
    if x.shape[-1]:
        np.put_along_axis(others, x.argmax(axis=-1, keepdims=True), 0, axis=-1)
    return _Split(maximum, offset, weight, others.sum(axis=-1, keepdims=True))


def _below_maximum(x: Wide, maximum: Wide) -> tuple[Wide, Wide]:
    """Subtract the maximum; the second part is what rounding took off the first."""
    below = x - maximum
    back = below - x
    lost = (x - (below - back)) - (maximum + back)
    return below, np.where(np.isfinite(below), lost, 0)


def _shift(x: Wide, y: Wide, a: _Split, b: _Split, temperature: float) -> Wide:
    """Give ((y - max y) - (x - max x))/T, with x and y of any size, near or far.

    Not by way of y - x: far from each other, the smaller of the two would be rounded away.
    """
    below_x, lost_x = _below_maximum(x, a.maximum)
    below_y, lost_y = _below_maximum(y, b.maximum)
    return ((below_y - below_x) + (lost_y - lost_x)) / np.longdouble(temperature)


def _series(t: Array, within: Array, coefficients: Array) -> Array:
    """c0 + c1*t + c2*t^2 + ... by Horner's scheme; where it does not hold c0.

    Only numbers that it holds for go in: longdouble arithmetic is slow on nan and infinities.
    """
    t = np.where(within, t, 0)
    total = np.zeros_like(t)
    for c in coefficients[::-1]:
        total *= t
        total += c
    return total


# Each goes as far as 2^-70 of its first term.
_LOG1P = 2 / np.arange(3, 45, 2, dtype=np.longdouble)
_EXPM1 = 1 / np.cumprod(np.arange(1, 23, dtype=np.longdouble))[1:]
_JS = 1 / np.array([k * (2 * k - 1) for k in range(1, 31)], np.longdouble)


def _minus_log1p(u: Array) -> Array:
    """Give u - log1p(u) without cancellation: t*u - 2*(t^3/3 + t^5/5 + ...) with t = u/(2 + u)."""
    near = np.abs(u) < 0.5
    t = u / (2 + u)
    return np.where(near, t * (u - t * t * _series(t * t, near, _LOG1P)), u - np.log1p(u))


def _expm1_minus(d: Array) -> Array:
    """Give expm1(d) - d without cancellation: the series d^2/2! + d^3/3! + ... where abs(d) < 1."""
    near = np.abs(d) < 1
    return np.where(near, d * d * _series(d, near, _EXPM1), np.expm1(d) - d)


def _js_series(v: Array) -> Array:
    """v^2 + v^4/6 + v^6/15 + ..., term k over k(2k - 1), where abs(v) < 1/2."""
    square = v * v
    return square * _series(square, np.abs(v) < 0.5, _JS)


def _at_target(values: Array, target: Array, ignore_index: int) -> tuple[Array, Mask]:
    """Take the value of each row at its target, or a 0; tell which rows count."""
    classes = values.shape[-1]
    target = np.asarray(target)
    rows = np.broadcast_shapes(values.shape[:-1], target.shape)
    target = np.broadcast_to(target, rows)
    counts = target != ignore_index
    wrong = counts & ((target < 0) | (target >= classes))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise IndexError(
            f"target holds {target.flat[row]} in row {row}, which is no index of {classes} classes"
        )
    if not classes:
        return np.zeros(rows, values.dtype), counts
    index = np.where(counts, target, 0).astype(np.intp)[..., np.newaxis]
    values = np.broadcast_to(values, (*rows, classes))
    taken = np.take_along_axis(values, index, axis=-1)[..., 0]
    return np.where(counts, taken, 0), counts


# --- kernels --------------------------------------------------------------------------------------


@_silent
def _logsumexp(x: Array) -> Float64:
    """log(sum exp(x)) = max + log1p(sum of the other exp(x - max)); -inf over no classes."""
    s = _split(x)
    result = np.where(np.isfinite(s.maximum), s.maximum + np.log1p(s.rest), s.maximum)
    return _float64(result[..., 0])


@_silent
def _logsumexp_scaled(x: Array, b: Array, signed: bool = False) -> tuple[Float64, Float64]:
    """log(abs(sum b*exp(x))) and the sign of that sum; nan and -1 where negative, unless signed.

    A class with b = 0 does not count, whatever its x. The largest term stays out of the sum.
    """
    x, b = np.broadcast_arrays(_wide(x), _wide(b))
    if not x.shape[-1]:
        return np.full(x.shape[:-1], -np.inf), np.zeros(x.shape[:-1])
    z = np.where(b == 0, -np.inf, x + np.log(np.abs(b)))
    best = np.where(np.isnan(z), -np.inf, z).argmax(axis=-1, keepdims=True)
    top = np.take_along_axis(z, best, axis=-1)
    own = np.sign(np.take_along_axis(b, best, axis=-1))[..., 0]
    term = np.sign(b) * np.where(z == top, 1, np.exp(z - np.where(np.isfinite(top), top, 0)))
    term = np.where(np.isposinf(top) & np.isfinite(z), 0, np.where(b == 0, 0, term))
    np.put_along_axis(term, best, 0, axis=-1)
    opposes = own[..., np.newaxis] * term < 0
    against = np.abs(np.where(opposes, term, 0)).sum(axis=-1)
    beside = np.abs(np.where(opposes, 0, term)).sum(axis=-1)
    # Where the largest term cancels, what is left of it first.
    rest, left = beside - against, (1 - against) + beside
    log = np.where(np.abs(left) < 0.5, np.log(np.abs(left)), np.log1p(np.maximum(rest, -1)))
    log = top[..., 0] + np.where(left <= -0.5, np.log(-1 - rest), log)
    sign = own * np.sign(left)
    empty = np.isneginf(top[..., 0])
    log, sign = np.where(empty, -np.inf, log), np.where(empty, 0, sign)
    # A nan, or infinite terms of both signs.
    undefined = np.isnan(z).any(axis=-1) | (np.isposinf(top[..., 0]) & opposes.any(axis=-1))
    log, sign = np.where(undefined, np.nan, log), np.where(undefined, np.nan, sign)
    return _float64(np.where((sign < 0) & (not signed), np.nan, log)), _float64(sign)


@_silent
def _softmax(x: Array, temperature: float = 1.0) -> Float64:
    """exp(x/T) / sum exp(x/T)."""
    s = _split(x, temperature)
    return _float64(s.weight / s.total)


@_silent
def _log_softmax(x: Array, temperature: float = 1.0) -> Float64:
    """x/T - logsumexp(x/T), as (x - max)/T - log1p(rest)."""
    s = _split(x, temperature)
    return _float64(s.offset - np.log1p(s.rest))


@_silent
def _cross_entropy(
    x: Array,
    target: Array,
    ignore_index: int = -100,
    temperature: float = 1.0,
    z_loss: float = 0.0,
) -> Float64:
    """-log softmax(x/T)[target] + z_loss * logsumexp(x/T)^2; 0 where ignored."""
    s = _split(x, temperature)
    offset, counts = _at_target(s.offset, target, ignore_index)
    rest = np.log1p(s.rest[..., 0])
    lse = s.maximum[..., 0] / np.longdouble(temperature) + rest
    penalty = z_loss * lse**2 if z_loss else 0
    return _float64(np.where(counts, rest - offset + penalty, 0))


@_silent
def _nll(log_probs: Array, target: Array, ignore_index: int = -100) -> Float64:
    """-log_probs[target]; 0 where ignored."""
    value, _ = _at_target(_wide(log_probs), target, ignore_index)
    return _float64(-value)


@_silent
def _nll_probs(probs: Array, target: Array, ignore_index: int = -100) -> Float64:
    """-log(probs[target]); 0 where ignored."""
    value, counts = _at_target(_wide(probs), target, ignore_index)
    return _float64(np.where(counts, -np.log(value), 0))


def _weigh(coefficient: Array, value: Array) -> Array:
    """Multiply; a coefficient of 0 takes out an infinite value, but not nan."""
    return np.where((coefficient == 0) & ~np.isnan(value), 0, coefficient * value)


def _loss(
    surprise: Wide,
    target: Array,
    ignore_index: int,
    weight: Array,
    row_weight: Array,
    distribution: Array,
    indexed: int,
    label_smoothing: float,
    penalty: Array | float = 0,
    *,
    classes: Array | bool = True,
) -> tuple[Float64, Float64]:
    """Give r * sum w*((1 - e)*t + e/n)*surprise over n classes, and the row's weight in a mean.

    t is 1 at the target and 0 elsewhere, or else the distribution; w are the class weights, r the
    row weight and e the label smoothing, shared among the `classes` that a mask leaves in. A row's
    weight in a mean is r, times w at the target if there is one. Both are 0 where r is, or where
    the target is to be ignored.
    """
    there = np.broadcast_to(classes, surprise.shape)
    share = there / np.maximum(there.sum(axis=-1, keepdims=True), 1).astype(np.longdouble)
    e, w, r = np.longdouble(label_smoothing), _wide(weight), _wide(row_weight)
    if indexed:
        at_target, counts = _at_target(surprise, target, ignore_index)
        own, _ = _at_target(np.broadcast_to(w, surprise.shape), target, ignore_index)
        loss = _weigh((1 - e) * own, at_target) + penalty
        if e:
            loss = loss + _weigh(w * e * share, surprise).sum(axis=-1)
    else:
        t = _wide(distribution)
        t = np.where((t >= 0) & (t < np.inf), t, np.nan)
        own, counts = np.ones((), np.longdouble), np.asarray(target) != ignore_index
        loss = _weigh(w * ((1 - e) * t + e * share), surprise).sum(axis=-1) + penalty
    counts, loss, in_mean = np.broadcast_arrays(counts & (r != 0), r * loss, r * own)
    return _float64(np.where(counts, loss, 0)), _float64(np.where(counts, in_mean, 0))


@_silent
def _weighted_nll(
    log_probs: Array, target: Array, ignore_index: int, weight: Array, row_weight: Array
) -> tuple[Float64, Float64]:
    """-log_probs[target] times the weights of the class and the row, and their product."""
    return _loss(-_wide(log_probs), target, ignore_index, weight, row_weight, target, 1, 0)


@_silent
def _weighted_nll_probs(
    probs: Array, target: Array, ignore_index: int, weight: Array, row_weight: Array
) -> tuple[Float64, Float64]:
    """-log(probs[target]) times the weights of the class and the row, and their product."""
    surprise = -np.log(_wide(probs))
    return _loss(surprise, target, ignore_index, weight, row_weight, target, 1, 0)


@_silent
def _loss_logits(
    x: Array,
    target: Array,
    ignore_index: int,
    weight: Array,
    row_weight: Array,
    distribution: Array,
    indexed: int = 1,
    label_smoothing: float = 0.0,
    temperature: float = 1.0,
    z_loss: float = 0.0,
    *,
    classes: Array | bool = True,
) -> tuple[Float64, Float64]:
    """As ``_loss``, of -log softmax(x/T), plus r * z_loss * logsumexp(x/T)^2."""
    s = _split(x, temperature)
    surprise = np.log1p(s.rest) - s.offset
    lse = s.maximum[..., 0] / np.longdouble(temperature) + np.log1p(s.rest[..., 0])
    penalty = (s.maximum - s.maximum)[..., 0] + (z_loss * lse**2 if z_loss else 0)
    given = target, ignore_index, weight, row_weight, distribution, indexed, label_smoothing
    return _loss(surprise, *given, penalty, classes=classes)


@_silent
def _loss_log_probs(
    log_probs: Array,
    target: Array,
    ignore_index: int,
    weight: Array,
    row_weight: Array,
    distribution: Array,
    indexed: int = 1,
    label_smoothing: float = 0.0,
    *,
    classes: Array | bool = True,
) -> tuple[Float64, Float64]:
    """As ``_loss``, of -log_probs."""
    given = target, ignore_index, weight, row_weight, distribution, indexed, label_smoothing
    return _loss(-_wide(log_probs), *given, classes=classes)


@_silent
def _loss_probs(
    probs: Array,
    target: Array,
    ignore_index: int,
    weight: Array,
    row_weight: Array,
    distribution: Array,
    indexed: int = 1,
    label_smoothing: float = 0.0,
    *,
    classes: Array | bool = True,
) -> tuple[Float64, Float64]:
    """As ``_loss``, of -log(probs)."""
    given = target, ignore_index, weight, row_weight, distribution, indexed, label_smoothing
    return _loss(-np.log(_wide(probs)), *given, classes=classes)


@_silent
def _entropy_probs(p: Array, normalize: bool = True) -> Float64:
    """Sum of p/S * log(S/p), S = sum p; without normalize -sum p log p."""
    p = _wide(p)
    negative = ((p < 0) | np.isinf(p)).any(axis=-1)
    if not normalize:
        return _float64(np.where(negative, np.nan, -np.where(p == 0, 0, p * np.log(p)).sum(-1)))
    # Only the largest p can be near S: its S/p is 1 + rest/p. The others have S/p >= 2.
    largest = p.max(axis=-1, keepdims=True, initial=0)
    is_largest = np.zeros(p.shape, dtype=bool)
    if p.shape[-1]:
        np.put_along_axis(is_largest, p.argmax(axis=-1, keepdims=True), True, axis=-1)
    rest = np.where(is_largest, 0, p).sum(axis=-1, keepdims=True)
    total = largest + rest
    information = np.where(is_largest, np.log1p(rest / largest), np.log(total / p))
    result = (np.where(p == 0, 0, p * information) / total).sum(axis=-1)
    return _float64(np.where(negative | (total[..., 0] == 0), np.nan, result))


@_silent
def _entropy_log_probs(log_probs: Array) -> Float64:
    """-sum exp(l) * l, the plain sum."""
    x = _wide(log_probs)
    return _float64(-np.where(x == -np.inf, 0, np.exp(x) * x).sum(axis=-1))


@_silent
def _entropy_logits(x: Array, temperature: float = 1.0) -> Float64:
    """log1p(rest) - sum w*d / (1 + rest) with d = (x - max)/T, w = exp(d): no negative term."""
    return _entropy_of_split(_split(x, temperature))


def _entropy_of_split(s: _Split) -> Float64:
    if not s.weight.shape[-1]:
        return np.full(s.weight.shape[:-1], np.nan)
    mean = np.where(s.weight == 0, 0, s.weight * s.offset).sum(axis=-1) / s.total[..., 0]
    return _float64(np.log1p(s.rest[..., 0]) - mean)


@_silent
def _kl_probs(p: Array, q: Array, normalize: bool = True) -> Float64:
    """Sum of p log(p/q), of p/sum(p) and q/sum(q) when normalize is set."""
    p, q = np.broadcast_arrays(_wide(p) + 0.0, _wide(q) + 0.0)
    negative = ((p < 0) | (q < 0) | np.isinf(p) | np.isinf(q)).any(axis=-1)
    if not normalize:
        v = (q - p) / p  # q/p - 1
        # Where q/p is near 1, q - p is exact and log1p keeps every digit of it.
        log_ratio = np.where(np.abs(v) < 0.5, -np.log1p(v), np.log(p / q))
        term = np.where((p == 0) & ~np.isnan(q), 0, p * log_ratio)
        return _float64(np.where(negative, np.nan, term.sum(axis=-1)))
    p_sum, q_sum = p.sum(axis=-1, keepdims=True), q.sum(axis=-1, keepdims=True)
    # To sums within a third of each other, by a power of 2: that rounds nothing.
    twos = np.frexp(0.75 * p_sum / q_sum)[1]
    q, q_sum = np.ldexp(q, twos), np.ldexp(q_sum, twos)
    v = (q - p) / p
    # q_sum/p_sum - 1 from the differences, since those are exact where p and q are near.
    c = (q - p).sum(axis=-1, keepdims=True) / p_sum
    u = (v - c) / (1 + c)
    p, q = p / p_sum, q / q_sum
    near = np.abs(u) < 0.5
    p_log = np.where(p == 0, 0, p * np.log(q / p))
    result = _divergence(
        difference=np.where(near, p * u, q - p),
        term=np.where(near, p * _minus_log1p(u), q - p - p_log),
    )
    invalid = negative | (p_sum[..., 0] == 0) | (q_sum[..., 0] == 0)
    return _float64(np.where(invalid, np.nan, result))


@_silent
def _kl_log_probs(log_p: Array, log_q: Array) -> Float64:
    """Sum of exp(lp) * (lp - lq), the plain sum."""
    lp, lq = np.broadcast_arrays(_wide(log_p), _wide(log_q))
    term = np.where((lq == -np.inf) & np.isfinite(lp), np.inf, np.exp(lp) * (lp - lq))
    term = np.where((lp == -np.inf) & ~np.isnan(lq), 0, term)
    return _float64(term.sum(axis=-1))


@_silent
def _kl_logits(x: Array, y: Array, temperature: float = 1.0) -> Float64:
    """KL of softmax(x/T) and softmax(y/T), from d = log q - log p; see ``_shift``."""
    x, y = np.broadcast_arrays(_wide(x), _wide(y))
    return _kl_of_splits(x, y, _split(x, temperature), _split(y, temperature), temperature)


def _kl_of_splits(x: Wide, y: Wide, a: _Split, b: _Split, temperature: float) -> Float64:
    if not x.shape[-1]:
        return np.full(x.shape[:-1], np.nan)
    p, q = a.weight / a.total, b.weight / b.total
    shift = _shift(x, y, a, b, temperature)
    d = np.where((x == -np.inf) & (y == -np.inf), 0, shift - (np.log1p(b.rest) - np.log1p(a.rest)))
    near = np.abs(d) < 1
    term = np.where(near, p * _expm1_minus(d), q - p - np.where(p == 0, 0, p * d))
    impossible = (y == -np.inf) & (x > -np.inf)
    return _float64(
        _divergence(
            difference=np.where(near, p * np.expm1(d), q - p),
            # Added, so that a nan of the row stays nan.
            term=np.where(impossible, np.inf + term, term),
        )
    )


def _divergence(difference: Array, term: Array) -> Array:
    """KL of p and q from the sums of q - p and of q - p + p*log(p/q).

    The first is s = 0 but for the rounding of the two normalisers. With sum q = 1 + s,
    sum p*log(p/(q/(1 + s))) = sum term - (s - log1p(s)) takes that out exactly.
    """
    s = difference.sum(axis=-1)
    result: Array = np.maximum(term.sum(axis=-1) - _minus_log1p(s), 0)
    return result


class _Shares(NamedTuple):
    """A row's probabilities and their logarithms, nan where it is no distribution."""

    p: Wide
    log: Wide


def _shares_of_probs(p: Array, normalize: bool, temperature: float) -> _Shares:
    p = _wide(p) + 0.0
    wrong = ((p < 0) | np.isinf(p)).any(axis=-1, keepdims=True)
    total = p.sum(axis=-1, keepdims=True) if normalize else np.longdouble(1)
    p = np.where(wrong | (total == 0), np.nan, p / total)
    return _Shares(p, np.log(p))


def _shares_of_logits(x: Array, normalize: bool, temperature: float) -> _Shares:
    if normalize:
        s = _split(x, temperature)
        log = s.offset - np.log1p(s.rest)
    else:
        log = np.where(np.isposinf(x).any(axis=-1, keepdims=True), np.nan, _wide(x))
    return _Shares(np.exp(log), log)


def _pair(
    divergence: Callable[[_Shares, _Shares, bool], Float64],
    shares_of_p: Callable[[Array, bool, float], _Shares],
    shares_of_q: Callable[[Array, bool, float], _Shares],
) -> Callable[..., Float64]:
    """Make a divergence of two distributions, each in a form and at a temperature of its own."""

    @_silent
    def kernel(
        p: Array,
        q: Array,
        normalize: bool = True,
        temperature_p: float = 1.0,
        temperature_q: float = 1.0,
    ) -> Float64:
        p, q = np.broadcast_arrays(p, q)
        if normalize and not p.shape[-1]:
            return np.full(p.shape[:-1], np.nan)
        a = shares_of_p(p, normalize, temperature_p)
        b = shares_of_q(q, normalize, temperature_q)
        return divergence(a, b, normalize)

    return kernel


def _kl_of_shares(a: _Shares, b: _Shares, normalize: bool) -> Float64:
    """Sum of p log(p/q)."""
    p_zero, q_zero = np.isneginf(a.log), np.isneginf(b.log)
    d = np.where(p_zero & q_zero, 0, b.log - a.log)
    impossible = np.where(q_zero & ~p_zero, np.inf, 0)
    if not normalize:
        # A p that underflows is none, too, but for what is impossible.
        none = p_zero | ((a.p == 0) & q_zero)
        term = np.where(none & ~np.isnan(b.p), 0, -a.p * d)
        return _float64((term + impossible).sum(axis=-1))
    near = np.abs(d) < 1
    p_log = np.where(a.p == 0, 0, a.p * d)
    return _float64(
        _divergence(
            difference=np.where(near, a.p * np.expm1(d), b.p - a.p),
            term=np.where(near, a.p * _expm1_minus(d), b.p - a.p - p_log) + impossible,
        )
    )


def _js_of_shares(a: _Shares, b: _Shares, normalize: bool) -> Float64:
    """Half the sum of p log(p/m) + q log(q/m), m = (p + q)/2.

    With v = (q - p)/(q + p) a class gives (p + q)/4 times (1 - v) log(1 - v) + (1 + v) log(1 + v),
    which is the even series v^2 + v^4/6 + v^6/15 + ...: never negative.
    """
    # q - p by the logarithms where those are near, since their difference is exact to more digits.
    d = b.log - a.log
    difference = np.where(np.abs(d) < 1, a.p * np.expm1(d), b.p - a.p)
    total = a.p + b.p
    v = np.where(total == 0, 0, difference / np.where(total == 0, 1, total))
    parts = [np.where(x == 0, 0, x * np.log(2 * x / total)) for x in (a.p, b.p)]
    term = np.where(np.abs(v) < 0.5, total * _js_series(v) / 4, (parts[0] + parts[1]) / 2)
    result = np.where(total == 0, total, term).sum(axis=-1)
    return _float64(np.minimum(result, np.log(np.longdouble(2))) if normalize else result)


@_silent
def _rel_entr(p: Array, q: Array) -> Float64:
    """Element by element p log(p/q); 0 where p is 0, inf where no logarithm is."""
    p, q = np.broadcast_arrays(_wide(p), _wide(q))
    v = (q - p) / p
    log_ratio = np.where(np.abs(v) < 0.5, -np.log1p(v), np.log(p) - np.log(q))
    result = np.where((p > 0) & (q > 0), p * log_ratio, np.where((p == 0) & (q >= 0), 0, np.inf))
    return _float64(np.where(np.isnan(p) | np.isnan(q), np.nan, result))


@_silent
def _information(p: Array) -> Float64:
    """-log p."""
    return _float64(-np.log(_wide(p)))


@_silent
def _binary_entropy(p: Array) -> Float64:
    """-p*log(p) - (1 - p)*log(1 - p)."""
    p = _wide(p)
    result = -p * np.log(p) - (1 - p) * np.log1p(-p)
    return _float64(np.where((p == 0) | (p == 1), 0, result))


def _binary_loss(
    if_true: Array, if_false: Array, target: Array, weight: Array, pos_weight: Array
) -> Float64:
    """Give w * (v*y*if_true + (1 - y)*if_false); 0 where w is."""
    y, w, v = _wide(target), _wide(weight), _wide(pos_weight)
    loss = _weigh(v * y, if_true) + _weigh(1 - y, if_false)
    loss = np.where((y >= 0) & (y <= 1), loss, np.nan)
    return _float64(np.where(w == 0, 0, w * loss))


@_silent
def _binary_cross_entropy_probs(
    q: Array, target: Array, weight: Array, pos_weight: Array
) -> Float64:
    """-log q if the target is true, -log(1 - q) if it is false; their mean in between."""
    q = _wide(q)
    if_true, if_false = -np.log(q), -np.log1p(-q)
    if_true = np.where(q <= 1, if_true, np.nan)
    return _binary_loss(if_true, if_false, target, weight, pos_weight)


@_silent
def _binary_cross_entropy_logits(
    x: Array, target: Array, weight: Array, pos_weight: Array
) -> Float64:
    """-log q = max(-x, 0) + log1p(exp(-abs(x))) with q = 1/(1 + exp(-x)); -log(1 - q) likewise."""
    x = _wide(x)
    log = np.log1p(np.exp(-np.abs(x)))
    if_true, if_false = np.maximum(-x, 0) + log, np.maximum(x, 0) + log
    return _binary_loss(if_true, if_false, target, weight, pos_weight)


@_silent
def _statistics(
    x: Array, target: Array, ignore_index: int = -100, temperature: float = 1.0
) -> dict[str, Array]:
    """Every statistic of score, by name."""
    return _statistics_of_split(x, _split(x, temperature), target, ignore_index, temperature)


def _statistics_of_split(
    x: Array, s: _Split, target: Array, ignore_index: int, temperature: float
) -> dict[str, Array]:
    t = np.longdouble(temperature)
    log_p = s.offset - np.log1p(s.rest)
    own, counts = _at_target(_wide(x), target, ignore_index)
    at, _ = _at_target(log_p, target, ignore_index)
    best = x.argmax(axis=-1) if x.shape[-1] else np.full(x.shape[:-1], -1)
    nothing = np.full((*x.shape[:-1], 2), -np.inf, np.longdouble)
    first, second = np.moveaxis(
        np.partition(np.concatenate([nothing, _wide(x)], axis=-1), -2, axis=-1)[..., -2:], -1, 0
    )[::-1]
    # Of a row that is no distribution nan, like log p of its first class.
    none = np.log1p(s.rest[..., 0]) * 0 + s.maximum[..., 0] - s.maximum[..., 0]
    away = np.where(s.weight == 0, 0, -s.offset)
    mean = (s.weight * away).sum(axis=-1, keepdims=True) / s.total
    lse = np.where(np.isfinite(s.maximum), s.maximum / t + np.log1p(s.rest), s.maximum)
    return {
        "nll": _float64(np.where(counts, -at, 0)),
        "target_log_prob": _float64(np.where(counts, at, np.nan)),
        "target_prob": _float64(np.where(counts, np.exp(at), np.nan)),
        "max_log_prob": _float64(-np.log1p(s.rest[..., 0]) + none),
        "margin": _float64((first - second) / t + none),
        "logsumexp": _float64(lse[..., 0]),
        "entropy": _entropy_of_split(s),
        "varentropy": _float64(
            (s.weight * (away - mean) ** 2).sum(axis=-1) / s.total[..., 0] + none
        ),
        "rank": np.where(counts, (_wide(x) >= own[..., np.newaxis]).sum(axis=-1), 0),
        "argmax": np.asarray(best, dtype=np.int64),
        "greedy_match": (counts & (best == np.asarray(target))).astype(np.int64),
    }


def _columns(statistics: dict[str, Array], want: int) -> tuple[Array, Array]:
    """Numbers and integers that are wanted, each in the order of the bits."""
    chosen = [a for bit, a in enumerate(statistics.values()) if want >> bit & 1]
    shape = next(iter(statistics.values())).shape
    numbers = [a for a in chosen if a.dtype.kind == "f"]
    integers = [a for a in chosen if a.dtype.kind != "f"]
    return (
        np.stack([np.empty(shape), *numbers], axis=-1)[..., 1:],
        np.stack([np.empty(shape, np.int64), *integers], axis=-1)[..., 1:],
    )


@_silent
def _score(
    x: Array,
    target: Array,
    ignore_index: int = -100,
    temperature: float = 1.0,
    want: int = -1,
    candidates: Array | tuple[int, ...] = (),
    top_k: int = 0,
) -> tuple[Array, ...]:
    """Statistics that are wanted; log p of candidates; the largest, in a stable order, less nan."""
    s = _split(x, temperature)
    found = _statistics_of_split(x, s, target, ignore_index, temperature)
    numbers, integers = _columns(found, want)
    log_p = s.offset - np.log1p(s.rest)
    chosen = np.asarray(candidates, dtype=np.int64)
    chosen = np.broadcast_to(chosen, (*x.shape[:-1], chosen.shape[-1]))
    ids = _top(x, top_k)
    logs = np.full(ids.shape, np.nan)
    there = slice(x.shape[-1])
    # A row with nan, where an index may be -1, has no other logarithm.
    logs[..., there] = np.take_along_axis(log_p, np.maximum(ids[..., there], 0), axis=-1)
    given = np.take_along_axis(log_p, chosen, axis=-1) if chosen.size else np.empty(chosen.shape)
    return numbers, integers, _float64(given), ids, _float64(logs)


def _top(x: Array, top_k: int) -> Array:
    """Give the indices of the largest, in a stable order; -1 where only nan or nothing is left."""
    order = np.argsort(np.where(np.isnan(x), np.inf, -x.astype(np.float64)), axis=-1, kind="stable")
    # Of a row with nan, its infinities may stand behind them.
    behind = np.take_along_axis(np.isnan(x), order, axis=-1).argsort(axis=-1, kind="stable")
    order = np.take_along_axis(order, behind, axis=-1)[..., :top_k]
    left_over = np.take_along_axis(np.isnan(x), order, axis=-1)
    ids = np.full((*x.shape[:-1], top_k), -1)
    ids[..., : order.shape[-1]] = np.where(left_over, -1, order)
    return ids


def _js_terms(p: Wide, q: Wide, difference: Wide) -> Wide:
    """Twice p log(2p/(p + q)) + q log(2q/(p + q)), without cancellation.

    With v = (q - p)/(q + p): (p + q)(v^2 + v^4/6 + v^6/15 + ...).
    """
    v = difference / (p + q)
    logs = np.where(p == 0, 0, p * np.log(2 * (p / (p + q))))
    logs = logs + np.where(q == 0, 0, q * np.log(2 * (q / (p + q))))
    result: Wide = np.where(np.abs(v) < 0.5, (p + q) * _js_series(v), 2 * logs)
    return np.where(p + q == 0, 0, result)


@_silent
def _comparison(
    x: Array, y: Array, target: Array, ignore_index: int, temperature: float, top_k: int
) -> dict[str, Array]:
    """Every statistic of compare, by name."""
    x, y = np.broadcast_arrays(_wide(x), _wide(y))
    a, b = _split(x, temperature), _split(y, temperature)
    p, q = a.weight / a.total, b.weight / b.total
    shift = _shift(x, y, a, b, temperature)
    d = shift - (np.log1p(b.rest) - np.log1p(a.rest))
    difference = np.where(np.abs(d) < 1, p * np.expm1(d), q - p)
    none = p.sum(axis=-1) + q.sum(axis=-1)
    none = none - none if x.shape[-1] else none * np.nan
    kl, reverse = _kl_of_splits(x, y, a, b, temperature), _kl_of_splits(y, x, b, a, temperature)
    # What each row has for itself.
    own_p, own_q = (
        _statistics_of_split(z, s, target, ignore_index, temperature) for z, s in ((x, a), (y, b))
    )
    h_p, h_q = own_p["entropy"], own_q["entropy"]
    log_change, counts = _at_target(d, target, ignore_index)
    prob_change, _ = _at_target(difference, target, ignore_index)
    tops = [_top(z, top_k) for z in (x, y)]
    shared = (tops[0][..., :, np.newaxis] == tops[1][..., np.newaxis, :]) & (
        tops[0][..., :, np.newaxis] >= 0
    )
    return {
        "kl_divergence": kl,
        "reverse_kl_divergence": reverse,
        "js_divergence": _float64(_js_terms(p, q, difference).sum(axis=-1) / 4 + none),
        "total_variation": _float64(np.abs(difference).sum(axis=-1) / 2 + none),
        "cross_entropy": h_p + kl,
        "reverse_cross_entropy": h_q + reverse,
        "entropy_p": h_p,
        "entropy_q": h_q,
        "expected_agreement": _float64((p * q).sum(axis=-1) + none),
        "target_log_prob_change": _float64(np.where(counts, log_change + none, np.nan)),
        "target_prob_change": _float64(np.where(counts, prob_change + none, np.nan)),
        "nll_p": own_p["nll"],
        "nll_q": own_q["nll"],
        "max_log_prob_p": own_p["max_log_prob"],
        "max_log_prob_q": own_q["max_log_prob"],
        "same_argmax": (own_p["argmax"] == own_q["argmax"]).astype(np.int64),
        "top_overlap": shared.sum(axis=(-2, -1)),
        "argmax_p": own_p["argmax"],
        "argmax_q": own_q["argmax"],
        "greedy_match_p": own_p["greedy_match"],
        "greedy_match_q": own_q["greedy_match"],
    }


def _compare(
    x: Array,
    y: Array,
    target: Array,
    ignore_index: int = -100,
    temperature: float = 1.0,
    want: int = -1,
    top_k: int = 0,
) -> tuple[Array, Array]:
    """Statistics of two rows that are wanted."""
    found = _comparison(x, y, target, ignore_index, temperature, int(top_k))
    return _columns(found, want)


KERNELS: dict[str, Callable[..., Any]] = {
    "logsumexp": _logsumexp,
    "logsumexp_scaled": _logsumexp_scaled,
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "cross_entropy": _cross_entropy,
    "nll": _nll,
    "nll_probs": _nll_probs,
    "weighted_nll": _weighted_nll,
    "weighted_nll_probs": _weighted_nll_probs,
    "loss_logits": _loss_logits,
    "loss_log_probs": _loss_log_probs,
    "loss_probs": _loss_probs,
    "entropy_probs": _entropy_probs,
    "entropy_log_probs": _entropy_log_probs,
    "entropy_logits": _entropy_logits,
    "kl_probs": _kl_probs,
    "kl_log_probs": _kl_log_probs,
    "kl_logits": _kl_logits,
    "kl_probs_logits": _pair(_kl_of_shares, _shares_of_probs, _shares_of_logits),
    "kl_logits_probs": _pair(_kl_of_shares, _shares_of_logits, _shares_of_probs),
    "kl_logits_logits": _pair(_kl_of_shares, _shares_of_logits, _shares_of_logits),
    "js_probs_probs": _pair(_js_of_shares, _shares_of_probs, _shares_of_probs),
    "js_probs_logits": _pair(_js_of_shares, _shares_of_probs, _shares_of_logits),
    "js_logits_logits": _pair(_js_of_shares, _shares_of_logits, _shares_of_logits),
    "rel_entr": _rel_entr,
    "information": _information,
    "binary_entropy": _binary_entropy,
    "binary_cross_entropy_probs": _binary_cross_entropy_probs,
    "binary_cross_entropy_logits": _binary_cross_entropy_logits,
    "score": _score,
    "compare": _compare,
}


# --- public functions: arguments ------------------------------------------------------------------


def _numbers(x: ArrayLike) -> Array:
    x = np.asarray(x)
    # Dtypes of other packages, such as bfloat16, have kinds of their own.
    if x.dtype.kind not in "fiub" and not np.can_cast(x.dtype, np.float64):
        raise TypeError(f"klce computes on real numbers, not on {x.dtype}")
    return x


def _class_axes(axis: Axis, x: Array) -> tuple[int, ...]:
    """Return the axes of the classes in order, counted from the end.

    A scalar has no axis, and its axis 0 or -1 is that.
    """
    if not x.ndim and axis in (0, -1):
        axis = ()
    axes = range(x.ndim) if axis is None else sorted(normalize_axis_tuple(axis, x.ndim))
    return tuple(axis - x.ndim for axis in axes)


def _classes_last(x: Array, axis: Axis) -> tuple[Array, tuple[int, ...]]:
    """Move the axes of the classes last and join them; tell which they were."""
    axes = _class_axes(axis, x)
    x = np.moveaxis(x, axes, range(-len(axes), 0))
    rows = x.ndim - len(axes)
    return x.reshape(*x.shape[:rows], math.prod(x.shape[rows:])), axes


def _common_axes(axis: Axis, *arrays: Array) -> tuple[int, ...]:
    """Return the axes of the classes, which are the same of all."""
    named = {_class_axes(axis, x) for x in arrays}
    if len(named) > 1:
        raise ValueError(f"axis {axis} is not the same axis of p and q, counted from the end")
    (axes,) = named
    for one in axes:
        counts = [x.shape[one] for x in arrays]
        if len(set(counts)) > 1:
            raise ValueError(f"p has {counts[0]} classes and q has {counts[1]}")
    return axes


def _kept_rows(where: ArrayLike | None, shape: tuple[int, ...], axes: tuple[int, ...]) -> Mask:
    """Return which rows count: all of them, unless ``where`` is a mask of rows.

    It is one if it has length one on the axes of the classes, or too few axes to have them.
    """
    kept = tuple(1 if k in axes else n for k, n in enumerate(shape, -len(shape)))
    mask = np.asarray(True if where is None else where)
    of_classes = any(mask.ndim >= -axis and mask.shape[axis] != 1 for axis in axes)
    return np.broadcast_to(of_classes or mask, kept).squeeze(axes)


def _labels(target: Array, kept: Mask, ignore_index: int) -> Array:
    """Ignore the rows that do not count; as Python's integers, since labels may be beyond int64."""
    return np.where(kept, target.astype(object), ignore_index)


def _masked(x: Array, where: ArrayLike | None, form: str) -> Array:
    """Put what stands for no probability where a mask is False."""
    if where is None:
        return x
    mask = np.broadcast_to(np.asarray(where, dtype=bool), x.shape)
    return np.where(mask, x, 0 if form == "probs" else -np.inf)


def _classes_back(y: Float64, shape: tuple[int, ...], axes: tuple[int, ...]) -> Float64:
    """Undo ``_classes_last`` for a result of the shape of its input."""
    y = y.reshape(*y.shape[:-1], *(shape[a] for a in axes))
    return np.moveaxis(y, range(-len(axes), 0), axes)


def _check_form(*forms: str, temperature: float, normalize: bool = True) -> None:
    for form in forms:
        if form not in ("probs", "log_probs", "logits"):
            raise ValueError(f"form must be 'probs', 'log_probs' or 'logits', got {form!r}")
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be positive and finite, got {temperature}")
    if "logits" not in forms and temperature != 1:
        raise ValueError(f"temperature belongs to form='logits', not to form={forms[0]!r}")
    if "logits" in forms and not normalize:
        raise ValueError("normalize=False belongs to probs and log_probs, not to form='logits'")


@_silent
def _in_base(values: Float64, base: float | None) -> Float64:
    if base is None:
        return values
    if not 0 < base < math.inf or base == 1:
        raise ValueError(f"base must be positive, finite and not 1, got {base}")
    return _float64(values / np.log(np.longdouble(base)))


@_silent
def _reduce(values: Float64, counts: Array, reduction: str, *, batch: bool) -> Float64:
    total = values.astype(np.longdouble).sum()
    if reduction == "none":
        return values
    if reduction == "sum":
        return _float64(total)
    if reduction == "mean":
        weight = counts.astype(np.longdouble).sum()
        return _float64(total / weight if weight else np.longdouble(np.nan))
    if reduction == "batchmean" and batch:
        return _float64(total / (values.shape[0] if values.ndim else 1))
    allowed = "'none', 'mean', 'sum' or 'batchmean'" if batch else "'none', 'mean' or 'sum'"
    raise ValueError(f"reduction must be {allowed}, got {reduction!r}")


def _row_losses(
    kernel: Callable[..., tuple[Float64, Float64]],
    x: ArrayLike,
    target: ArrayLike,
    rows: tuple[int, ArrayLike | None, int, ArrayLike | None, ArrayLike | None],
    form: Form,
    base: float | None,
    reduction: str,
    options: dict[str, Any],
) -> Float64:
    axis, weight, ignore_index, sample_weight, where = rows
    x, target = _numbers(x), np.asarray(target)
    axis = normalize_axis_index(axis, x.ndim) - x.ndim
    kept = _kept_rows(where, x.shape, (axis,))
    x = _masked(x, where, form)
    if where is not None and options:
        options = options | {"classes": np.moveaxis(np.broadcast_to(where, x.shape), axis, -1)}
    index: Any = target
    soft = target.dtype.kind == "f" or (
        target.dtype.kind not in "iub" and np.can_cast(target.dtype, np.float64)
    )
    if soft and target.ndim == x.ndim and options:
        if target.shape != x.shape:
            raise ValueError(f"target has the shape {target.shape} and q has {x.shape}")
        if ignore_index != -100:
            raise ValueError(f"ignore_index belongs to class indices, got {ignore_index}")
        index, target, indexed = np.where(kept, 0, -100), np.moveaxis(target, axis, -1), 0
    elif target.dtype.kind in "iu":
        index = _labels(target, kept, ignore_index)
        target, indexed = np.zeros(()), 1
    else:
        raise TypeError(f"target must hold integers, got {target.dtype}")
    x = np.moveaxis(x, axis, -1)
    w = np.ones(x.shape[-1]) if weight is None else np.asarray(weight)
    r = np.ones(()) if sample_weight is None else np.asarray(sample_weight)
    if options:
        losses, weights = kernel(x, index, ignore_index, w, r, target, indexed, **options)
    else:
        losses, weights = kernel(x, index, ignore_index, w, r)
    return _reduce(_in_base(losses, base), weights, reduction, batch=False)[()]


# --- public functions -----------------------------------------------------------------------------


def logsumexp(
    x: ArrayLike,
    axis: Axis = -1,
    *,
    b: ArrayLike | None = None,
    where: ArrayLike | None = None,
    keepdims: bool = False,
    return_sign: bool = False,
) -> Any:
    r"""Logarithm of the sum of exponentials.

    .. math:: \log \sum_i e^{x_i} = m + \log\Bigl(1 + \sum_{i \ne k} e^{x_i - m}\Bigr),
              \quad m = x_k = \max_i x_i

    and with factors :math:`\log \sum_i b_i e^{x_i}`.

    Parameters
    ----------
    x : array_like
        Logits.
    axis : int, tuple of int or None
        Axis or axes of the classes; None is all of them.
    b : array_like, optional
        Factors, which broadcast with x; a 0 leaves its class out.
    where : array_like of bool, optional
        Which classes count.
    keepdims : bool
        Keep the reduced axes with length 1.
    return_sign : bool
        Return the logarithm of the sum's size, and its sign.

    Returns
    -------
    float64 array, or two
        -inf for a row that is all -inf or empty, inf for a row that holds +inf, nan for a negative
        sum unless its sign is returned.

    Examples
    --------
    >>> from klce import reference
    >>> reference.logsumexp([0.0, 0.0]).round(4).item()
    0.6931
    """
    x = _numbers(x)
    factors = np.ones(()) if b is None else _numbers(b)
    x, factors = np.broadcast_arrays(x, factors)
    factors = _masked(factors, where, "probs")
    rows, axes = _classes_last(_masked(x, where, "logits"), axis)
    if b is None:
        log = _logsumexp(rows)
        sign = np.where(np.isnan(log), np.nan, np.where(np.isneginf(log), 0.0, 1.0))
    else:
        log, sign = _logsumexp_scaled(rows, _classes_last(factors, axis)[0], return_sign)
    if keepdims:
        log, sign = np.expand_dims(log, axes), np.expand_dims(sign, axes)
    return (log[()], sign[()]) if return_sign else log[()]


def softmax(
    x: ArrayLike, axis: Axis = -1, *, temperature: float = 1.0, where: ArrayLike | None = None
) -> Float64:
    r"""Probabilities of logits.

    .. math:: p_i = e^{x_i/T} \Big/ \sum_j e^{x_j/T}

    Parameters
    ----------
    x : array_like
        Logits.
    axis : int, tuple of int or None
        Axis or axes of the classes; None is all of them.
    temperature : float
        T, positive.
    where : array_like of bool, optional
        Which classes count; the others are -inf.

    Returns
    -------
    float64 array
        Of the shape of x; nan in a row that is all -inf or holds +inf.

    Raises
    ------
    ValueError
        Over no classes.

    Examples
    --------
    >>> from klce import reference
    >>> reference.softmax([0.0, 0.0])
    array([0.5, 0.5])
    """
    return _map(_softmax, "softmax", x, axis, temperature, where)


def log_softmax(
    x: ArrayLike, axis: Axis = -1, *, temperature: float = 1.0, where: ArrayLike | None = None
) -> Float64:
    r"""Log-probabilities of logits.

    .. math:: \log p_i = x_i/T - \log \sum_j e^{x_j/T}

    Parameters
    ----------
    x : array_like
        Logits.
    axis : int, tuple of int or None
        Axis or axes of the classes; None is all of them.
    temperature : float
        T, positive.
    where : array_like of bool, optional
        Which classes count; the others are -inf.

    Returns
    -------
    float64 array
        Of the shape of x; nan in a row that is all -inf or holds +inf.

    Raises
    ------
    ValueError
        Over no classes.

    Examples
    --------
    >>> from klce import reference
    >>> reference.log_softmax([0.0, 0.0]).round(4)
    array([-0.6931, -0.6931])
    """
    return _map(_log_softmax, "log_softmax", x, axis, temperature, where)


def _map(
    kernel: Callable[..., Float64],
    name: str,
    x: ArrayLike,
    axis: Axis,
    temperature: float,
    where: ArrayLike | None,
) -> Float64:
    _check_form("logits", temperature=temperature)
    x = _masked(_numbers(x), where, "logits")
    rows, axes = _classes_last(x, axis)
    if not rows.shape[-1]:
        raise ValueError(f"{name} needs at least one class")
    return _classes_back(kernel(rows, temperature), x.shape, axes)[()]


def information(p: ArrayLike, *, base: float | None = None) -> Float64:
    r"""Self-information, elementwise.

    .. math:: I(p) = -\log p

    Parameters
    ----------
    p : array_like
        Probabilities.
    base : float, optional
        Base of the logarithm; natural by default.

    Returns
    -------
    float64 array
        inf where p is 0, nan where it is negative.

    Examples
    --------
    >>> from klce import reference
    >>> reference.information([1.0, 0.25], base=2)
    array([0., 2.])
    """
    return _in_base(_information(_numbers(p)), base)[()]


def binary_entropy(p: ArrayLike, *, base: float | None = None) -> Float64:
    r"""Entropy of a coin that shows heads with probability p, elementwise.

    .. math:: H(p) = -p \log p - (1 - p) \log(1 - p)

    Parameters
    ----------
    p : array_like
        Probabilities.
    base : float, optional
        Base of the logarithm; natural by default.

    Returns
    -------
    float64 array
        nan where p is not in [0, 1].

    Examples
    --------
    >>> from klce import reference
    >>> reference.binary_entropy([0.0, 0.5], base=2)
    array([0., 1.])
    """
    return _in_base(_binary_entropy(_numbers(p)), base)[()]


def entropy(
    p: ArrayLike,
    axis: Axis = -1,
    *,
    form: Form = "probs",
    normalize: bool = True,
    temperature: float = 1.0,
    base: float | None = None,
    where: ArrayLike | None = None,
    keepdims: bool = False,
) -> Float64:
    r"""Shannon entropy of distributions.

    .. math:: H(p) = -\sum_i p_i \log p_i

    Parameters
    ----------
    p : array_like
        Distributions, in the form that ``form`` names.
    axis : int, tuple of int or None
        Axis or axes of the classes; None is all of them.
    form : {"probs", "log_probs", "logits"}
        What p holds.
    normalize : bool
        Divide the probabilities by their sum first. False gives the plain sum, and is for probs and
        log_probs only.
    temperature : float
        Divides the logits; for logits only.
    base : float, optional
        Base of the logarithm; natural by default.
    where : array_like of bool, optional
        Which classes count.
    keepdims : bool
        Keep the reduced axes with length 1.

    Returns
    -------
    float64 array
        One value a row.

    Examples
    --------
    >>> from klce import reference
    >>> reference.entropy([0.5, 0.5], base=2).item()
    1.0
    """
    _check_form(form, temperature=temperature, normalize=normalize)
    rows, axes = _classes_last(_masked(_numbers(p), where, form), axis)
    if form == "probs":
        result = _entropy_probs(rows, normalize)
    elif normalize:
        result = _entropy_logits(rows, temperature)
    else:
        result = _entropy_log_probs(rows)
    result = _in_base(result, base)
    return (np.expand_dims(result, axes) if keepdims else result)[()]


def nll_loss(
    log_probs: ArrayLike,
    target: ArrayLike,
    *,
    axis: int = -1,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    sample_weight: ArrayLike | None = None,
    where: ArrayLike | None = None,
    base: float | None = None,
    reduction: Reduction = "mean",
) -> Float64:
    r"""Negative log-likelihood of the right classes, given log-probabilities.

    .. math:: \ell = -s w_t \log p_t

    where w are the class weights and s is the row's.

    Parameters
    ----------
    log_probs : array_like
        Log-probabilities; taken as they are, not normalised.
    target : array_like of int
        The right class of each row.
    axis : int
        Axis of the classes.
    weight : array_like, optional
        A factor w for each class.
    ignore_index : int
        A target that leaves its row out, whether it names a class or not.
    sample_weight : array_like, optional
        A factor s for each row; one of 0 leaves it out.
    where : array_like of bool, optional
        Which classes there are; with length one on the axis of the classes, or without that axis,
        which rows count. A masked class has probability 0 and no share of a smoothed label.
    base : float, optional
        Base of the logarithm of the result; natural by default.
    reduction : {"mean", "sum", "none"}
        The mean over the rows that count, weighted by s w_t (nan if those sum to 0), their sum, or
        one value a row (0 where left out).

    Returns
    -------
    float64 array

    Raises
    ------
    IndexError
        If a target is neither a class nor ``ignore_index``.

    Examples
    --------
    >>> from klce import reference
    >>> reference.nll_loss([[-0.5, -1.0], [-2.0, -0.25]], [1, 0]).item()
    1.5
    """
    rows = axis, weight, ignore_index, sample_weight, where
    return _row_losses(
        _weighted_nll, log_probs, target, rows, "log_probs", base, reduction, options={}
    )


def cross_entropy(
    q: ArrayLike,
    target: ArrayLike,
    *,
    axis: int = -1,
    form: Form = "logits",
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    temperature: float = 1.0,
    sample_weight: ArrayLike | None = None,
    where: ArrayLike | None = None,
    base: float | None = None,
    reduction: Reduction = "mean",
) -> Float64:
    r"""Cross-entropy of the right classes, or of distributions, and the distributions q.

    .. math:: \ell = s \sum_i w_i \bigl((1 - e)\, t_i + e/C\bigr) (-\log q_i)
              + s c \Bigl(\log \sum_i e^{x_i/T}\Bigr)^2

    over C classes, where x are the logits of q, t is the target (1 at an index), w are the class
    weights, s is the row's, e is ``label_smoothing`` and c is ``z_loss``; from logits,
    :math:`-\log q_i = (m - x_i)/T + \log(1 + \sum_{j \ne k} e^{(x_j - m)/T})`, m = x_k the maximum.

    Parameters
    ----------
    q : array_like
        Distributions, in the form that ``form`` names; probs and log_probs are not normalised.
    target : array_like
        The right class of each row, or a distribution (floats of the shape of q).
    axis : int
        Axis of the classes.
    form : {"logits", "log_probs", "probs"}
        What q holds.
    weight : array_like, optional
        A factor w for each class.
    ignore_index : int
        A target that leaves its row out, whether it names a class or not; for class indices only.
    label_smoothing : float
        What is taken of the target and spread over all classes, from 0 to 1.
    z_loss : float
        Weight of the squared logsumexp, not negative; for logits only.
    temperature : float
        Divides the logits; for logits only.
    sample_weight : array_like, optional
        A factor s for each row; one of 0 leaves it out.
    where : array_like of bool, optional
        Which classes there are; with length one on the axis of the classes, or without that axis,
        which rows count. A masked class has probability 0 and no share of a smoothed label.
    base : float, optional
        Base of the logarithm; the whole loss is divided by its logarithm.
    reduction : {"mean", "sum", "none"}
        The mean over the rows that count, weighted by s, and for class indices by s w_t (nan if
        those sum to 0), their sum, or one value a row (0 where left out).

    Returns
    -------
    float64 array

    Raises
    ------
    IndexError
        If a target is neither a class nor ``ignore_index``.

    Examples
    --------
    >>> from klce import reference
    >>> reference.cross_entropy([[0.0, 0.0], [0.0, 0.0]], [0, 1]).round(4).item()
    0.6931
    """
    _check_form(form, temperature=temperature)
    if not 0 <= z_loss < math.inf:
        raise ValueError(f"z_loss must be finite and not negative, got {z_loss}")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be from 0 to 1, got {label_smoothing}")
    if z_loss and form != "logits":
        raise ValueError(f"z_loss belongs to form='logits', not to form={form!r}")
    options: dict[str, Any] = {"label_smoothing": label_smoothing}
    if form == "logits":
        options |= {"temperature": temperature, "z_loss": z_loss}
    kernel = KERNELS[f"loss_{form}"]
    rows = axis, weight, ignore_index, sample_weight, where
    return _row_losses(kernel, q, target, rows, form, base, reduction, options=options)


def binary_cross_entropy(
    q: ArrayLike,
    target: ArrayLike,
    *,
    form: BinaryForm = "probs",
    weight: ArrayLike | None = None,
    pos_weight: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> Float64:
    r"""Cross-entropy of a yes or no and its predicted probability, elementwise.

    .. math:: \ell = -w \bigl(v\, y \log q + (1 - y) \log(1 - q)\bigr)

    Parameters
    ----------
    q : array_like
        Probabilities, or logits x: q = 1/(1 + exp(-x)).
    target : array_like
        y, from 0 to 1, of the shape of q.
    form : {"probs", "logits"}
        What q holds.
    weight, pos_weight : array_like, optional
        Factors w and v, which broadcast to the shape of q; where w is 0, so is the result.
    reduction : {"mean", "sum", "none"}
        The mean over all elements, their sum, or one value each.

    Returns
    -------
    float64 array
        nan where q or y is not in [0, 1].

    Raises
    ------
    ValueError
        For another form or reduction, or a target of another shape than q.

    Examples
    --------
    >>> from klce import reference
    >>> reference.binary_cross_entropy([0.5, 0.5], [0.0, 1.0]).round(4).item()
    0.6931
    """
    if form not in ("probs", "logits"):
        raise ValueError(f"form must be 'probs' or 'logits', got {form!r}")
    kernel = _binary_cross_entropy_probs if form == "probs" else _binary_cross_entropy_logits
    q, y = _numbers(q), _numbers(target)
    if q.shape != y.shape:
        raise ValueError(f"target has the shape {y.shape} and q has {q.shape}")
    w, v = (np.broadcast_to(1 if f is None else f, q.shape) for f in (weight, pos_weight))
    result = kernel(q, y, w, v)
    return _reduce(result, np.ones(q.shape, dtype=bool), reduction, batch=False)[()]


def kl_divergence(
    p: ArrayLike,
    q: ArrayLike,
    axis: Axis = -1,
    *,
    form: Form | tuple[Form, Form] = "probs",
    normalize: bool = True,
    temperature: float = 1.0,
    where: ArrayLike | None = None,
    base: float | None = None,
    reduction: DivergenceReduction = "none",
    keepdims: bool = False,
) -> Float64:
    r"""Kullback-Leibler divergence of q from p.

    .. math:: D(p \| q) = \sum_i p_i \log \frac{p_i}{q_i}
              = \sum_i \Bigl(q_i - p_i + p_i \log \frac{p_i}{q_i}\Bigr)

    The second form holds since both sum to 1. No term is negative; all vanish if p = q.

    Parameters
    ----------
    p, q : array_like
        Distributions in the form that ``form`` names, with as many classes; rows broadcast.
    axis : int, tuple of int or None
        Axis or axes of the classes, in p and in q; None is all of them.
    form : {"probs", "log_probs", "logits"} or a pair of them
        What p and q hold.
    normalize : bool
        Divide the probabilities by their sums first; the result is not negative then. False gives
        the plain first sum, and is for probs and log_probs only.
    temperature : float
        Divides what comes as logits; for logits only.
    where : array_like of bool, optional
        Which classes count; with length one on the axis of the classes, or without that axis, which
        rows do.
    base : float, optional
        Base of the logarithm; natural by default.
    reduction : {"none", "mean", "sum", "batchmean"}
        One value a row (0 where left out), the mean of those that count, their sum, or their sum
        over the length of the rows' first axis.
    keepdims : bool
        Keep the axes of the classes with length 1; for reduction="none" only.

    Returns
    -------
    float64 array

    Examples
    --------
    >>> from klce import reference
    >>> reference.kl_divergence([0.5, 0.5], [0.25, 0.75]).round(4).item()
    0.1438
    """
    kernel = _kl_kernel if _both(form) else _kl_of_pair
    return _pair_measure(
        kernel, p, q, axis, form, normalize, temperature, where, base, reduction, keepdims
    )


def js_divergence(
    p: ArrayLike,
    q: ArrayLike,
    axis: Axis = -1,
    *,
    form: Form | tuple[Form, Form] = "probs",
    normalize: bool = True,
    temperature: float = 1.0,
    where: ArrayLike | None = None,
    base: float | None = None,
    reduction: DivergenceReduction = "none",
    keepdims: bool = False,
) -> Float64:
    r"""Jensen-Shannon divergence of p and q.

    .. math:: \tfrac12 D(p \| m) + \tfrac12 D(q \| m), \quad m = \tfrac12 (p + q)

    Parameters
    ----------
    p, q : array_like
        Distributions in the form that ``form`` names, with as many classes; rows broadcast.
    axis : int, tuple of int or None
        Axis or axes of the classes, in p and in q; None is all of them.
    form : {"probs", "log_probs", "logits"} or a pair of them
        What p and q hold.
    normalize : bool
        Divide the probabilities by their sums first; the result is from 0 to log 2 then. False
        gives the plain sum, and is for probs and log_probs only.
    temperature : float
        Divides what comes as logits; for logits only.
    where : array_like of bool, optional
        Which classes count; with length one on the axis of the classes, or without that axis, which
        rows do.
    base : float, optional
        Base of the logarithm; natural by default.
    reduction : {"none", "mean", "sum", "batchmean"}
        One value a row (0 where left out), the mean of those that count, their sum, or their sum
        over the length of the rows' first axis.
    keepdims : bool
        Keep the axes of the classes with length 1; for reduction="none" only.

    Returns
    -------
    float64 array

    Examples
    --------
    >>> from klce import reference
    >>> reference.js_divergence([1.0, 0.0], [0.0, 1.0], base=2).item()
    1.0
    """
    return _pair_measure(
        _js_of_pair, p, q, axis, form, normalize, temperature, where, base, reduction, keepdims
    )


def rel_entr(p: ArrayLike, q: ArrayLike, *, base: float | None = None) -> Float64:
    r"""Relative entropy of two numbers, elementwise.

    .. math:: p \log(p/q)

    Parameters
    ----------
    p, q : array_like
        Numbers that are not negative; their shapes broadcast.
    base : float, optional
        Base of the logarithm; natural by default.

    Returns
    -------
    float64 array
        0 where p is 0; inf where q is 0 and p is not, and where either is negative.

    Examples
    --------
    >>> from klce import reference
    >>> reference.rel_entr([0.0, 0.5], [0.5, 0.25]).round(4)
    array([0.    , 0.3466])
    """
    return _in_base(_rel_entr(_numbers(p), _numbers(q)), base)[()]


def _both(form: Any) -> bool:
    """Whether both distributions come in one form."""
    return isinstance(form, str) or form[0] == form[1]


def _kl_kernel(
    p: Array, q: Array, forms: tuple[Form, Form], normalize: bool, temperature: float
) -> Float64:
    if forms[0] == "probs":
        return _kl_probs(p, q, normalize)
    return _kl_logits(p, q, temperature) if normalize else _kl_log_probs(p, q)


def _kl_of_pair(p: Array, q: Array, forms: Any, normalize: bool, temperature: float) -> Float64:
    return _of_pair("kl", p, q, forms, normalize, temperature)


def _js_of_pair(p: Array, q: Array, forms: Any, normalize: bool, temperature: float) -> Float64:
    if forms[1] == "probs":  # it is the same either way
        p, q, forms = q, p, forms[::-1]
    return _of_pair("js", p, q, forms, normalize, temperature)


def _of_pair(
    measure: str, p: Array, q: Array, forms: Any, normalize: bool, temperature: float
) -> Float64:
    names = ["probs" if form == "probs" else "logits" for form in forms]
    temperatures = [temperature if form == "logits" else 1.0 for form in forms]
    result: Float64 = KERNELS[f"{measure}_{names[0]}_{names[1]}"](p, q, normalize, *temperatures)
    return result


def _pair_measure(
    kernel: Callable[..., Float64],
    p: ArrayLike,
    q: ArrayLike,
    axis: Axis,
    form: Any,
    normalize: bool,
    temperature: float,
    where: ArrayLike | None,
    base: float | None,
    reduction: DivergenceReduction,
    keepdims: bool,
) -> Float64:
    forms = (form, form) if isinstance(form, str) else form
    _check_form(*forms, temperature=temperature, normalize=normalize)
    if keepdims and reduction != "none":
        raise ValueError("keepdims=True belongs to reduction='none'")
    p, q = _numbers(p), _numbers(q)
    axes = _common_axes(axis, p, q)
    p, q = np.broadcast_arrays(p, q)
    kept = _kept_rows(where, p.shape, axes)
    (p, _), (q, _) = (
        _classes_last(_masked(x, where, form), axes) for x, form in zip((p, q), forms, strict=True)
    )
    result = np.where(kept, kernel(p, q, forms, normalize, temperature), 0)
    result = _in_base(result, base)
    if keepdims:
        return np.expand_dims(result, axes)
    return _reduce(result, kept, reduction, batch=True)[()]


@_silent
def _row_options(
    arrays: tuple[ArrayLike, ...],
    target: ArrayLike | None,
    axis: int,
    form: Form,
    temperature: float,
    where: ArrayLike | None,
    ignore_index: int,
) -> tuple[list[Array], Array, int]:
    """Bring score's and compare's operands to logits, the classes last, and to labels."""
    _check_form(form, temperature=temperature)
    given = [_numbers(array) for array in arrays]
    axes = _common_axes(axis, *given)
    rows = []
    for x in given:
        if form == "probs":
            x = np.log(_wide(x))
        if where is not None:
            x = np.where(where, x, -np.inf)
        rows.append(_classes_last(x, axes)[0])
    if target is None:
        return rows, np.zeros(np.broadcast_shapes(*(x.shape for x in rows))[:-1], np.int64), 0
    kept = _kept_rows(where, np.broadcast_shapes(*(x.shape for x in given)), axes)
    return rows, _labels(np.asarray(target), kept, ignore_index), ignore_index


def score(
    logits: ArrayLike,
    target: ArrayLike | None = None,
    *,
    axis: int = -1,
    want: Iterable[str] | None = None,
    top_k: int = 0,
    candidates: ArrayLike | None = None,
    form: Form = "logits",
    temperature: float = 1.0,
    where: ArrayLike | None = None,
    ignore_index: int = -100,
) -> dict[str, Array]:
    r"""Every statistic of each row of logits x, with :math:`p = \mathrm{softmax}(x/T)`.

    Parameters
    ----------
    logits : array_like
        Distributions, in the form that ``form`` names, up to scale.
    target : array_like of int, optional
        The right class of each row; without it, every row is ignored.
    axis : int
        Axis of the classes.
    want : iterable of str, optional
        Names of the statistics to return; all of them by default.
    top_k : int
        How many of the largest classes to tell.
    candidates : array_like of int, optional
        Classes to tell the log-probabilities of: for all rows, or on an axis more of the rows.
    form : {"logits", "log_probs", "probs"}
        What logits holds.
    temperature : float
        T, positive; for logits only.
    where : array_like of bool, optional
        Classes that count; the others have probability 0. A row that it leaves out as a mask of
        rows has no target, whatever its label.
    ignore_index : int
        A target that leaves its row without one.

    Returns
    -------
    dict of str to array
        ``nll`` :math:`-\log p_t` (0 where ignored), ``target_log_prob``, ``target_prob`` (nan where
        ignored), ``max_log_prob``, ``margin`` (the largest log p less the second), ``logsumexp``,
        ``entropy`` and ``varentropy`` (mean and variance of :math:`-\log p`), ``rank`` (the count
        of :math:`x_i \ge x_t`; 0 where ignored), ``argmax``, ``greedy_match``,
        ``candidate_log_probs``, ``top_ids`` and ``top_log_probs``.

    Examples
    --------
    >>> from klce import reference
    >>> reference.score([[2.0, 1.0]], want=["margin"])["margin"]
    array([1.])
    """
    (x,), label, ignored = _row_options(
        (logits,), target, axis, form, temperature, where, ignore_index
    )
    found = _statistics(x, label, ignored, temperature)
    chosen = () if candidates is None else np.asarray(candidates)
    *_, given, ids, logs = _score(x, label, ignored, temperature, 0, chosen, top_k)
    found["greedy_match"] = found["greedy_match"] == 1
    found = {name: found[name] for name in (found if want is None else want)}
    return found | {"candidate_log_probs": given, "top_ids": ids, "top_log_probs": logs}


def compare(
    p: ArrayLike,
    q: ArrayLike,
    target: ArrayLike | None = None,
    *,
    axis: int = -1,
    want: Iterable[str] | None = None,
    top_k: int = 0,
    form: Form = "logits",
    temperature: float = 1.0,
    where: ArrayLike | None = None,
    ignore_index: int = -100,
) -> dict[str, Array]:
    r"""Every statistic of each pair of rows.

    Parameters
    ----------
    p, q : array_like
        Distributions, in the form that ``form`` names, up to scale; rows broadcast.
    target : array_like of int, optional
        The right class of each row; without it, every row is ignored.
    axis : int
        Axis of the classes, in p and in q.
    want : iterable of str, optional
        Names of the statistics to return; all of them by default.
    top_k : int
        How many of the largest classes to hold against each other.
    form : {"logits", "log_probs", "probs"}
        What p and q hold.
    temperature : float
        Divides the logits; for logits only.
    where : array_like of bool, optional
        Classes that count; the others have probability 0. A row that it leaves out as a mask of
        rows has no target, whatever its label.
    ignore_index : int
        A target that leaves its row without one.

    Returns
    -------
    dict of str to array
        ``kl_divergence`` D(p||q), ``reverse_kl_divergence`` D(q||p), ``js_divergence``
        :math:`\frac12 D(p \| m) + \frac12 D(q \| m)` with m = (p + q)/2, ``total_variation``
        :math:`\frac12 \sum |q - p|`, ``cross_entropy`` H(p) + D(p||q), ``reverse_cross_entropy``,
        ``entropy_p``, ``entropy_q``, ``expected_agreement`` :math:`\sum p q`,
        ``target_log_prob_change`` :math:`\log q_t - \log p_t`, ``target_prob_change``
        :math:`q_t - p_t` (nan where ignored), ``same_argmax``, ``top_overlap`` (how many of the
        top_k classes are the same); and with ``_p`` and ``_q`` behind, ``nll``, ``max_log_prob``,
        ``argmax`` and ``greedy_match`` of each, as `score` has them.

    Examples
    --------
    >>> from klce import reference
    >>> reference.compare([[0.0, 0.0]], [[0.0, 0.0]], want=["kl_divergence"])["kl_divergence"]
    array([0.])
    """
    (x, y), label, ignored = _row_options(
        (p, q), target, axis, form, temperature, where, ignore_index
    )
    found = _comparison(x, y, label, ignored, temperature, top_k)
    for name in ("same_argmax", "greedy_match_p", "greedy_match_q"):
        found[name] = found[name] == 1
    return {name: found[name] for name in (found if want is None else want)}
