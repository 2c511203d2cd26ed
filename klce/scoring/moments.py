"""The mean of rows that come in parts, and its standard error, without cancellation."""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums of values and of their squares.

    Within a part, sums are about its mean, so that squares keep the digits in which the values
    differ. From there on they are exact fractions: parts merge to the same in any order and
    grouping, and nothing cancels where the mean is far from 0.

    Attributes
    ----------
    count : int
        Finite values.
    total, squares : fractions.Fraction
        Sums of them and of their squares.
    beyond : float
        Sum of the others, which fractions do not hold: 0 of none, nan of nan and of both
        infinities. It is the mean then, which has no error.

    Examples
    --------
    >>> import numpy as np
    >>> parts = [np.array([1e9, 1e9 + 1]), np.array([1e9 + 2])]
    >>> round(Moments.of(parts[0]).merge(Moments.of(parts[1])).error ** 2, 6)
    0.333333
    """

    count: int = 0
    total: Fraction = Fraction()
    squares: Fraction = Fraction()
    beyond: float = 0.0

    @classmethod
    def of(cls, values: NDArray[Any]) -> "Moments":
        """Return those of the values of one part."""
        finite = np.isfinite(values)
        if not finite.all():
            with np.errstate(invalid="ignore"):
                beyond = float(values[~finite].sum())
            return cls.of(values[finite]).merge(cls(beyond=beyond))
        count = len(values)
        if not count:
            return cls()
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(values.sum()) / count
            deviations = values - mean
            rest = float(deviations.sum())
            deviations *= deviations
            squares = float(deviations.sum())
        if not math.isfinite(squares):  # beyond float64's range
            exact = [Fraction(value) for value in values.tolist()]
            return cls(count, sum(exact, start=Fraction()), sum((x * x for x in exact), Fraction()))
        about, left = Fraction(mean), Fraction(rest)
        total = count * about + left
        return cls(count, total, Fraction(squares) + about * (left + total))

    def merge(self, other: "Moments") -> "Moments":
        """Return those of the values of both."""
        return Moments(
            self.count + other.count,
            self.total + other.total,
            self.squares + other.squares,
            self.beyond + other.beyond,
        )

    @property
    def mean(self) -> float:
        """The mean; nan of no values."""
        if self.beyond:
            return self.beyond
        return float(self.total / self.count) if self.count else math.nan

    @property
    def error(self) -> float:
        """The standard error of the mean, as if values were independent: the root of var/(n - 1).

        nan of fewer than two values.
        """
        if self.count < 2 or self.beyond:
            return math.nan
        variance = self.squares / self.count - (self.total / self.count) ** 2
        return _root(max(Fraction(), variance) / (self.count - 1))


NO_VALUES = Moments()


def _root(value: Fraction) -> float:
    """Return the root of a number that may be beyond float64's range, though its root is not."""
    scale = max(0, value.numerator.bit_length() - value.denominator.bit_length() - 1000) // 2
    return math.ldexp(math.sqrt(value / (1 << 2 * scale)), scale)
