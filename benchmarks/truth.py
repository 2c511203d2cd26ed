"""True results, in pairs of doubles: the yardstick of ``benchmarks.accuracy``.

A `Pair` is an unevaluated sum of two doubles, some 106 bits. Its operations are the classical ones
(Knuth; Dekker; Hida, Li and Bailey, "Library for double-double and quad-double arithmetic", 2008),
right to a few parts in 2**104. So are exp and log1p, and log where it is above 1, else absolutely;
``tests/test_accuracy.py`` checks them against mpmath. The formulas on top keep the maximum out of
the sum, so that results are right to 2**-95 of themselves: 2**-42 of a ULP of float64. Divergences
are sums of terms that may cancel, hence right to some 2**-95 = 3e-29 as such: one of 1e-12 to 3e-17
of itself, less than a thousandth of the strictest bound.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cached_property
from math import factorial

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """The numbers ``hi + lo``, where hi is that sum rounded."""

    hi: Array
    lo: Array

    def __getitem__(self, key: object) -> Pair:
        return Pair(self.hi[key], self.lo[key])

    def __neg__(self) -> Pair:
        return Pair(-self.hi, -self.lo)

    def __add__(self, other: Pair) -> Pair:
        high, low = _two_sum(self.hi, other.hi), _two_sum(self.lo, other.lo)
        return _quick(*_quick_sum(high[0], high[1] + low[0]), low[1])

    def __sub__(self, other: Pair) -> Pair:
        return self + -other

    def __mul__(self, other: Pair) -> Pair:
        product, error = _two_product(self.hi, other.hi)
        return Pair(*_quick_sum(product, error + (self.hi * other.lo + self.lo * other.hi)))

    def __truediv__(self, other: Pair) -> Pair:
        first = self.hi / other.hi
        rest = self - other * exact(first)
        second = rest.hi / other.hi
        rest = rest - other * exact(second)
        return _quick(*_quick_sum(first, second), rest.hi / other.hi)

    def scaled(self, power: Array | int) -> Pair:
        """Return this times 2**power."""
        return Pair(np.ldexp(self.hi, power), np.ldexp(self.lo, power))

    def where(self, condition: NDArray[np.bool_], other: float) -> Pair:
        """Return this where the condition holds, elsewhere a constant."""
        return Pair(np.where(condition, self.hi, other), np.where(condition, self.lo, 0.0))

    def sum(self) -> Pair:
        """Return the sum over the last axis, by halves; the axis stays, with length 1."""
        total = self
        while (n := total.hi.shape[-1]) > 1:
            half = n // 2
            joined = total[..., :half] + total[..., half : 2 * half]
            odd = total[..., 2 * half :]
            total = Pair(
                np.concatenate([joined.hi, odd.hi], axis=-1),
                np.concatenate([joined.lo, odd.lo], axis=-1),
            )
        return total


def exact(x: Array | float) -> Pair:
    """Return a double as a pair."""
    x = np.asarray(x, np.float64)
    return Pair(x, np.zeros_like(x))


def _quick_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """Return a + b and its error, for a not smaller than b."""
    s = a + b
    return s, b - (s - a)


def _quick(a: Array, b: Array, c: Array) -> Pair:
    return Pair(*_quick_sum(a, b + c))


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    s = a + b
    c = s - a
    return s, (a - (s - c)) + (b - c)


def _halves(a: Array) -> tuple[Array, Array]:
    """Return a in two pieces of 26 bits."""
    t = a * 134217729.0
    high = t - (t - a)
    return high, a - high


def _two_product(a: Array, b: Array) -> tuple[Array, Array]:
    p = a * b
    (a1, a2), (b1, b2) = _halves(a), _halves(b)
    return p, ((a1 * b1 - p) + a1 * b2 + a2 * b1) + a2 * b2


def _constant(value: Fraction) -> Pair:
    hi = float(value)
    return Pair(np.float64(hi), np.float64(value - Fraction(hi)))


def _ln2(*bits: int) -> list[float]:
    """ln 2 in pieces that end at these bits, and the rest: 14 bits times 38 are exact."""
    with localcontext(prec=80):
        rest = Fraction(Decimal(2).ln())
    pieces = []
    for bit in bits:
        pieces.append(float(Fraction(int(rest * 2**bit), 2**bit)))
        rest -= Fraction(pieces[-1])
    return [*pieces, float(rest)]


_LN2 = _ln2(38, 76)
_HALVINGS = 6
_INVERSE_FACTORIALS = [_constant(Fraction(1, factorial(k))) for k in range(13)]


def _expm1(r: Pair) -> Pair:
    """exp(r) - 1 for |r| <= 0.4, right to 2**-99 of itself: exp(2r) - 1 = e (e + 2)."""
    t = r.scaled(-_HALVINGS)
    tail = 0.0  # of the series, in doubles: less than 2**-53 of it
    for k in (12, 11, 10, 9, 8, 7):
        tail = (tail + _INVERSE_FACTORIALS[k].hi) * t.hi
    e = _INVERSE_FACTORIALS[6] + exact(tail)
    for k in (5, 4, 3, 2, 1):
        e = _INVERSE_FACTORIALS[k] + t * e
    e = t * e
    for _ in range(_HALVINGS):
        two = _quick_sum(2.0, e.hi)
        e = e * _quick(two[0], two[1], e.lo)
    return e


def _exp(z: Pair) -> tuple[Pair, Array]:
    n = np.rint(z.hi / float(_LN2[0]))
    r = exact(z.hi) - exact(n * _LN2[0])
    r = (r - exact(n * _LN2[1])) + (exact(z.lo) - exact(n * _LN2[2]))
    return exact(1.0) + _expm1(r), n


def _log(x: Pair) -> Pair:
    fraction, n = np.frexp(x.hi)
    n = n - (fraction < 0.75)  # so that log x is not a difference near 1
    near_1 = x.scaled(-n)
    guess = np.log(near_1.hi)
    inverse, power = _exp(exact(-guess))
    off = near_1 * inverse.scaled(power.astype(np.int64)) - exact(1.0)
    rest = _log1p_near_0(off) + (exact(n * _LN2[1]) + exact(n * _LN2[2]))
    return exact(n * _LN2[0]) + (exact(guess) + rest)


def _log1p_near_0(e: Pair) -> Pair:
    """log(1 + e) for |e| < 2**-50."""
    return e - (e * e).scaled(-1)


CHUNK = 4096  # numbers whose intermediate results stay in cache


def exp(z: Pair) -> tuple[Pair, NDArray[np.int64]]:
    """Return exp(z) for |z| <= 5000 as a number in [0.7, 1.5) and a power of two."""
    e, n = np.empty((2, z.hi.size)), np.empty(z.hi.size)
    for chunk, part in _chunks(z):
        result, n[chunk] = _exp(part)
        e[:, chunk] = result.hi, result.lo
    shape = z.hi.shape
    return Pair(e[0].reshape(shape), e[1].reshape(shape)), n.reshape(shape).astype(np.int64)


def log(x: Pair) -> Pair:
    """Return log(x) for x > 0: a step of Newton's from the double."""
    y = np.empty((2, x.hi.size))
    for chunk, part in _chunks(x):
        result = _log(part)
        y[:, chunk] = result.hi, result.lo
    return Pair(y[0].reshape(x.hi.shape), y[1].reshape(x.hi.shape))


def _chunks(x: Pair) -> Iterator[tuple[slice, Pair]]:
    hi, lo = x.hi.ravel(), x.lo.ravel()
    for start in range(0, hi.size, CHUNK):
        chunk = slice(start, start + CHUNK)
        yield chunk, Pair(hi[chunk], lo[chunk])


def log1p(x: Pair) -> Pair:
    """Return log(1 + x) for x >= 0, right relatively however small."""
    guess = np.log1p(x.hi)
    inverse, power = exp(exact(-guess))
    inverse = inverse.scaled(power)
    # exp(-guess) - 1, which near 0 has to be right relatively.
    small = guess < 0.3
    minus = _expm1(exact(np.where(small, -guess, 0.0)))
    other = inverse - exact(1.0)
    minus = Pair(np.where(small, minus.hi, other.hi), np.where(small, minus.lo, other.lo))
    y = exact(guess) + _log1p_near_0(minus + x * inverse)
    tiny = x.hi < 2.0**-120  # x, but for what no digit shows
    return Pair(np.where(tiny, x.hi, y.hi), np.where(tiny, x.lo, y.lo))


# --- distributions --------------------------------------------------------------------------------

FAR = 5000.0  # nats below the maximum: nothing in any result


@dataclass(frozen=True)
class Masses:
    """Rows of numbers p and their logarithms, which need not sum to 1."""

    p: Pair
    log_p: Pair

    def lifted(self, power: int) -> Pair:
        """Return p times 2**power."""
        return self.p.scaled(power)


class Distributions:
    """Rows of distributions, from what p is over the largest p: e 2**powers, of logarithm z."""

    def __init__(self, z: Pair, e: Pair, powers: NDArray[np.int64], top: NDArray[np.int64]) -> None:
        others = np.arange(z.hi.shape[-1]) != top
        rest = e.scaled(powers).where(others, 0.0).sum()
        self.log_total = log1p(rest)
        self._quotient = e / (exact(1.0) + rest)
        self._powers = powers
        present = z.hi > -np.inf
        self.log_p = (z.where(present, 0.0) - self.log_total).where(present, -np.inf)

    def lifted(self, power: NDArray[np.int64] | int) -> Pair:
        """Return p times 2**power: all digits, of a p that would be subnormal too."""
        return self._quotient.scaled(self._powers + power)

    @cached_property
    def p(self) -> Pair:
        return self.lifted(0)


def of_logits(x: Array, temperature: float = 1.0) -> Distributions:
    """Return the distributions of logits x/T, one row each; masked ones may be -inf."""
    top = x.argmax(axis=-1, keepdims=True)
    present = x > -np.inf
    z = exact(np.where(present, x, 0.0)) - exact(np.take_along_axis(x, top, axis=-1))
    if temperature != 1:
        z = z / exact(temperature)
    z = z.where(present, -np.inf)
    near = z.hi > -FAR
    e, powers = exp(z.where(near, -FAR))
    return Distributions(z, e.where(near, 0.0), powers, top)


def of_probs(p: Array) -> Distributions:
    """Return the distributions that numbers are proportional to."""
    top = p.argmax(axis=-1, keepdims=True)
    e = exact(p) / exact(np.take_along_axis(p, top, axis=-1))
    z = log(e.where(p > 0, 1.0)).where(p > 0, -np.inf)
    return Distributions(z, e, np.zeros(p.shape, np.int64), top)


def masses_of_probs(p: Array) -> Masses:
    return Masses(exact(p), log(exact(np.where(p > 0, p, 1.0))).where(p > 0, -np.inf))


def masses_of_log_probs(x: Array) -> Masses:
    present = x > -FAR
    e, powers = exp(exact(np.where(present, x, 0.0)))
    return Masses(e.scaled(powers).where(present, 0.0), exact(x))


# --- measures, one value a row --------------------------------------------------------------------


def entropy(p: Masses | Distributions) -> Pair:
    return -_expected(p, p.log_p)


def kl(p: Masses | Distributions, q: Masses | Distributions) -> Pair:
    return _expected(p, _less(p.log_p, q.log_p))


def js(p: Masses | Distributions, q: Masses | Distributions) -> Pair:
    middle = (p.p + q.p).scaled(-1)
    present = middle.hi > 0
    log_middle = log(middle.where(present, 1.0)).where(present, -np.inf)
    sides = (_expected(side, _less(side.log_p, log_middle)) for side in (p, q))
    return (next(sides) + next(sides)).scaled(-1)


def _less(a: Pair, b: Pair) -> Pair:
    """a - b, where a is finite: inf where b is -inf; 0 where a is not."""
    here, there = a.hi > -np.inf, b.hi > -np.inf
    difference = a.where(here & there, 0.0) - b.where(here & there, 0.0)
    return difference.where(there | ~here, np.inf)


LIFT = 200  # powers of two, so that a subnormal probability has all its digits


def _expected(p: Masses | Distributions, values: Pair) -> Pair:
    """The sum of p * values, where 0 times anything is 0."""
    weights = p.lifted(LIFT)
    present = weights.hi > 0
    finite = np.isfinite(values.hi)
    total = (weights * values.where(present & finite, 0.0)).sum()[..., 0].scaled(-LIFT)
    return total.where((finite | ~present).all(axis=-1), np.inf)
