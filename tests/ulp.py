"""Errors in units in the last place."""

from __future__ import annotations

from typing import Any

import numpy as np
from ml_dtypes import finfo
from numpy.typing import ArrayLike, DTypeLike, NDArray


def ulp_error(
    actual: ArrayLike,
    hi: ArrayLike,
    lo: ArrayLike,
    dtype: DTypeLike,
    scale: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """Distance of actual from the true value hi + lo, in ULP of dtype.

    A ULP is the spacing of dtype at the true value, or at ``scale`` where that is larger, and never
    less than the smallest subnormal. A result that is not finite is right (0) or wrong (inf): nan
    where the truth is nan, an infinity where the truth rounds to it.
    """
    info = finfo(dtype)
    actual, hi, lo = (np.asarray(a, np.float64) for a in (actual, hi, lo))
    size = np.abs(hi) if scale is None else np.maximum(np.abs(hi), np.abs(scale))
    with np.errstate(all="ignore"):
        # frexp's fraction is in [1/2, 1): a value of exponent e has its last bit at e - 1 - nmant.
        last_bit = np.frexp(size)[1] - 1 - info.nmant
        ulp = np.ldexp(1.0, np.maximum(last_bit, info.minexp - info.nmant))
        # Half a ULP past the largest number is where rounding turns to infinity. In float64 hi is
        # the rounded value already.
        limit = float(info.max) + np.ldexp(1.0, info.maxexp - 2 - info.nmant)
        error = np.abs((actual - hi) - lo) / ulp
        overflow = ~(np.abs(hi) < limit)
        right: Any = np.where(overflow, actual == np.copysign(np.inf, hi), np.isfinite(actual))
        right = np.where(np.isnan(hi), np.isnan(actual), right)
        return np.where(right, np.where(np.isfinite(actual) & ~overflow, error, 0.0), np.inf)
