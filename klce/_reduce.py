"""From a value for each row to what is asked for: a sum, a mean, in the unit of a base."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from klce import _ufuncs, _validate

if TYPE_CHECKING:
    from klce._typing import Array, DType

_LARGE = 3e38  # a little below the largest float32


def unit(base: float | None) -> float:
    """Return how many nats a unit in logarithms of `base` is: results are divided by it."""
    if base is None:
        return 1.0
    b = _validate.real(base, "base", "a number or None")
    if not (0 < b < math.inf) or b == 1:
        raise ValueError(f"base must be positive, finite and not 1, got {base!r}")
    return math.log(b)


class Sums:
    """As ``reduction=``, asks for two numbers of a part of the rows, in float64.

    They are the sum of the values, in nats, and what their mean divides it by.
    """


def reduction(value: Any, *, batchmean: bool = False) -> Any:
    """Check ``reduction=``; only divergences have a ``"batchmean"``."""
    allowed = ("none", "mean", "batchmean", "sum") if batchmean else ("none", "mean", "sum")
    if value is not Sums:
        _validate.one_of(value, allowed, "reduction")
    return value


def in_unit(values: Any, nats: float, dtype: DType) -> Any:
    """Divide fresh values, an array in place, by the unit that they are wanted in.

    They are of `dtype`, be it in an output of another one.
    """
    if nats == 1:
        return values
    with np.errstate(all="ignore"):
        if values.dtype == dtype:
            return np.divide(values, nats, out=values if isinstance(values, np.ndarray) else None)
        values[...] = np.divide(values.real.astype(dtype), nats)
        return values


def total(values: Any) -> float:
    """Sum float32 or float64 values in float64, in a fixed order."""
    return _ufuncs.sum_of(_line(values))


def _line(values: Any) -> Array:
    """Return all elements along one axis."""
    array = np.asarray(values)
    return array if array.ndim == 1 else array.reshape(-1)


def reduced(
    losses: Any,
    how: Any,
    counted: float,
    nats: float,
    out: Array | None,
    dtype: DType,
    batch: int = 1,
) -> Any:
    """Reduce per-row values and change their unit; ``"none"`` came with its `out` filled.

    `counted` is what the mean divides by, `dtype` that of the result.
    """
    if how == "none":
        return in_unit(losses, nats, dtype)
    return of_total(total(losses), how, counted, nats, out, dtype, batch)


def of_total(
    total: float,
    how: Any,
    counted: float,
    nats: float,
    out: Array | None,
    dtype: DType,
    batch: int = 1,
) -> Any:
    """Reduce values of which this is the total, as `reduced` does, and put it into `out` if any."""
    if how is Sums:
        return np.array([total, counted])
    result = reduction_of(total, how, counted, nats, batch, dtype)
    if out is None:
        return result
    out[...] = result
    return out


def reduction_of(
    total: float, how: str, counted: float, nats: float, batch: int, dtype: DType
) -> Any:
    """Return a reduction of values, of which this is the total."""
    value = total / nats
    if how != "sum":
        count = counted if how == "mean" else batch
        value = value / count if count else math.nan
    if abs(value) < _LARGE:
        return dtype.type(value)
    with np.errstate(all="ignore"):  # a sum may be beyond float32
        return dtype.type(value)
