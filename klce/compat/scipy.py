"""Stand-ins for SciPy: ``scipy.special``, ``scipy.stats.entropy`` and ``jensenshannon``.

Names, defaults, shapes and dtypes are SciPy's; the numbers are klce's.  Real input only: complex
numbers are refused.  Where SciPy defines a value that klce's contract leaves nan (a negative
probability, say), the elements or rows in question are put right afterwards.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

import klce
from klce import _arrays, _validate

if TYPE_CHECKING:
    from collections.abc import Callable

    from klce._typing import Array, ArrayLike, Axis

__all__ = [
    "entr",
    "entropy",
    "jensenshannon",
    "kl_div",
    "log_softmax",
    "logsumexp",
    "rel_entr",
    "softmax",
    "xlogy",
]

# Infinities and nan are results here, as they are in SciPy.
_silent = np.errstate(all="ignore")


def _common(arrays: dict[str, Any], *, least: Any = None) -> list[Array]:
    """Return arrays, given by name, in the floating dtype that holds all of them.

    Python's numbers take the dtype of the arrays beside them, as in NumPy.  `least` is one more
    dtype that has to fit in.
    """
    # What is not real is refused, Python's numbers beyond float64 too.
    converted = {name: _arrays.floats(x, name) for name, x in arrays.items()}
    values = [x if isinstance(x, int | float) else _wide(converted[k]) for k, x in arrays.items()]
    dtype = np.result_type(*values)
    if least is not None:
        dtype = np.result_type(dtype, least)
    if dtype.kind != "f":
        dtype = np.dtype(np.float64)
    return [np.asarray(x, dtype=dtype) for x in values]


def _wide(x: Array) -> Array:
    """Return floats that NumPy and SciPy do not have, such as bfloat16, as float32."""
    return x.astype(np.float32) if x.dtype.type.__module__ == "ml_dtypes" else x


def _operand(x: ArrayLike, axis: Axis) -> Array:
    """Return an array, and refuse axes of a scalar as NumPy does: all but 0 and -1, alone."""
    array = _arrays.floats(x, "x")
    if array.ndim == 0 and axis is not None and axis not in (0, -1):
        normalize_axis_tuple(axis, 0)
    return array


# --- scipy.special --------------------------------------------------------------------------------


def logsumexp(
    a: ArrayLike,
    axis: Axis = None,
    b: ArrayLike | None = None,
    keepdims: bool = False,
    return_sign: bool = False,
) -> Any:
    r"""Logarithm of a sum of exponentials, as ``scipy.special.logsumexp``.

    Parameters
    ----------
    a : array_like
        Real numbers; integers and bool become float64, float16 is computed in float32.
    axis : int, tuple of int or None, default None
        The axes that are summed over; all of them by default.
    b : array_like, optional
        A factor for each exponential, of a shape that broadcasts with `a`.  What has the factor 0
        does not count, be it infinite or nan.
    keepdims : bool, default False
        Keep the axes, with length one.
    return_sign : bool, default False
        Return the sign of the sum beside the logarithm of its size.  Without, a negative sum
        gives nan.

    Returns
    -------
    ndarray or scalar, or two of them
        :math:`\log \sum_i b_i e^{a_i}`, in nats and in the common dtype of `a` and `b`; with
        `return_sign`, the logarithm of the sum's size, and 1, 0 or -1.

    Raises
    ------
    TypeError
        For complex input.
    ValueError
        For an axis out of bounds, or shapes that do not broadcast.

    See Also
    --------
    klce.logsumexp : over the last axis by default.

    Examples
    --------
    >>> from klce.compat.scipy import logsumexp
    >>> logsumexp([[0.0, -40.0]]).item()
    4.248354255291589e-18
    >>> value, sign = logsumexp([1.0, 2.0], b=[1, -1], return_sign=True)
    >>> round(value.item(), 4), sign.item()
    (1.5413, -1.0)
    """
    given = {"a": a} if b is None else {"a": a, "b": b}
    x, *rest = np.broadcast_arrays(*map(np.atleast_1d, _common(given)))
    factors = rest[0] if rest else None
    result = klce.logsumexp(
        x, axis, b=factors, keepdims=bool(keepdims), return_sign=bool(return_sign)
    )
    if x.dtype != np.float16:
        return result
    with np.errstate(over="ignore"):  # a sum may be beyond float16
        if return_sign:
            return tuple(part.astype(x.dtype) for part in result)
        return result.astype(x.dtype)


def softmax(x: ArrayLike, axis: Axis = None) -> Any:
    r"""Probabilities proportional to exponentials, as ``scipy.special.softmax``.

    Parameters
    ----------
    x : array_like
        Real numbers; integers and bool become float64.
    axis : int, tuple of int or None, default None
        The axes along which the result sums to 1; all of them by default.

    Returns
    -------
    ndarray or scalar
        :math:`e^{x_i} / \sum_j e^{x_j}`, of the shape and dtype of `x`.

    Raises
    ------
    TypeError
        For complex input.
    ValueError
        For an axis out of bounds, or nothing along it.

    See Also
    --------
    klce.softmax : over the last axis by default.

    Examples
    --------
    >>> from klce.compat.scipy import softmax
    >>> softmax([[0, 0], [0, 0]])
    array([[0.25, 0.25],
           [0.25, 0.25]])
    """
    return klce.softmax(_operand(x, axis), axis)


def log_softmax(x: ArrayLike, axis: Axis = None) -> Any:
    r"""Logarithm of :func:`softmax`, as ``scipy.special.log_softmax``.

    Parameters
    ----------
    x : array_like
        Real numbers; integers and bool become float64.
    axis : int, tuple of int or None, default None
        The axes along which the exponentials of the result sum to 1; all of them by default.

    Returns
    -------
    ndarray or scalar
        :math:`x_i - \log \sum_j e^{x_j}`, in nats, of the shape and dtype of `x`.

    Raises
    ------
    TypeError
        For complex input.
    ValueError
        For an axis out of bounds, or nothing along it.

    See Also
    --------
    klce.log_softmax : over the last axis by default; nan throughout a row that holds +inf.

    Notes
    -----
    Beside +inf, which gives nan, the finite elements of a row are -inf.

    Examples
    --------
    >>> from klce.compat.scipy import log_softmax
    >>> log_softmax([1000.0, 1.0])
    array([   0., -999.])
    """
    array = _operand(x, axis)
    axes = _validate.class_axes(axis, array, "x")
    result = klce.log_softmax(array, axis)
    # Of a row that is nan where klce says so, the first element is.
    firsts = tuple(0 if k in axes else slice(None) for k in range(-array.ndim, 0))
    if np.isnan(result[firsts]).any():
        infinite, missing = array == np.inf, np.isnan(array)
        rows = [each.any(axis=axes, keepdims=True) for each in (infinite, missing)]
        result = np.where(rows[0] & ~rows[1] & ~infinite, -np.inf, result)[()]
    return result


@_silent
def _elementwise(
    function: Callable[..., Array],
    arrays: dict[str, Any],
    out: Any,
    where: Any,
    least: Any = np.float32,
) -> Any:
    """Compute in the least dtype that holds all of the arrays and `least`, as SciPy's ufuncs do."""
    result = function(*_common(arrays, least=least))
    if out is None and where is True:
        return result[()]
    (target,) = out if isinstance(out, tuple) else (out,)
    return np.positive(result, out=target, where=where)


def xlogy(x: ArrayLike, y: ArrayLike, /, out: Any = None, *, where: Any = True) -> Any:
    r"""Product of `x` and the logarithm of `y`, 0 where `x` is 0, as ``scipy.special.xlogy``.

    Parameters
    ----------
    x, y : array_like
        Real numbers, of shapes that broadcast.
    out : ndarray, optional
        Where to put the result.
    where : array_like of bool, default True
        Where to put it into `out`.

    Returns
    -------
    ndarray or scalar
        :math:`x \log y` in nats, float32 where both are float32, else float64.  Where `x` is 0 it
        is 0, unless `y` is nan.

    Raises
    ------
    TypeError, ValueError
        For complex input, or shapes that do not broadcast.

    See Also
    --------
    klce.information : the logarithm of one array.

    Examples
    --------
    >>> from klce.compat.scipy import xlogy
    >>> xlogy([0.0, 0.0, 2.0], [0.0, -1.0, 1.0])
    array([0., 0., 0.])
    """
    # SciPy's prefers float64 to what has to be converted to float32.
    given = {"x": x, "y": y}
    narrow = all(_arrays.array(x, name).dtype.type is np.float32 for name, x in given.items())
    return _elementwise(_xlogy, given, out, where, np.float32 if narrow else np.float64)


def _xlogy(x: Array, y: Array) -> Array:
    result = 0 - x * klce.information(y)  # no -0.0 for y = 1
    return np.where((x == 0) & ~np.isnan(y), np.zeros((), result.dtype), result)


def entr(x: ArrayLike, /, out: Any = None, *, where: Any = True) -> Any:
    r"""Terms of an entropy, :math:`-x \log x`, as ``scipy.special.entr``.

    Parameters
    ----------
    x : array_like
        Real numbers.
    out : ndarray, optional
        Where to put the result.
    where : array_like of bool, default True
        Where to put it into `out`.

    Returns
    -------
    ndarray or scalar
        :math:`-x \log x` in nats, float32 if that holds the dtype, else float64; 0 at 0, and -inf
        below.

    Raises
    ------
    TypeError
        For complex input.

    See Also
    --------
    klce.entropy : their sum over a row.

    Examples
    --------
    >>> from klce.compat.scipy import entr
    >>> entr([-1.0, 0.0, 1.0])
    array([-inf,   0.,   0.])
    """
    return _elementwise(_entr, {"x": x}, out, where)


def _entr(x: Array) -> Array:
    result = x * klce.information(x)
    return np.where(x > 0, result, np.where(x == 0, 0, np.where(x < 0, -np.inf, x)))


def rel_entr(x: ArrayLike, y: ArrayLike, /, out: Any = None, *, where: Any = True) -> Any:
    r"""Terms of a relative entropy, :math:`x \log(x/y)`, as ``scipy.special.rel_entr``.

    Parameters
    ----------
    x, y : array_like
        Real numbers, of shapes that broadcast.
    out : ndarray, optional
        Where to put the result.
    where : array_like of bool, default True
        Where to put it into `out`.

    Returns
    -------
    ndarray or scalar
        :math:`x \log(x/y)` in nats, float32 if that holds both dtypes, else float64.  It is 0
        where `x` is 0 and `y` is not negative, and +inf where either is negative or `y` alone
        is 0.

    Raises
    ------
    TypeError, ValueError
        For complex input, or shapes that do not broadcast.

    See Also
    --------
    klce.kl_divergence : their sum over a row.

    Examples
    --------
    >>> from klce.compat.scipy import rel_entr
    >>> rel_entr([0.0, 1.0, -1.0], [0.0, 0.0, 1.0])
    array([ 0., inf, inf])
    """
    return _elementwise(klce.rel_entr, {"x": x, "y": y}, out, where)


def kl_div(x: ArrayLike, y: ArrayLike, /, out: Any = None, *, where: Any = True) -> Any:
    r"""Terms of a divergence, :math:`x \log(x/y) - x + y`, as ``scipy.special.kl_div``.

    Parameters
    ----------
    x, y : array_like
        Real numbers, of shapes that broadcast.
    out : ndarray, optional
        Where to put the result.
    where : array_like of bool, default True
        Where to put it into `out`.

    Returns
    -------
    ndarray or scalar
        :math:`x \log(x/y) - x + y` in nats, float32 if that holds both dtypes, else float64.  It
        is `y` where `x` is 0, +inf where either is negative or `y` alone is 0, and nan where one
        is infinite; never negative.

    Raises
    ------
    TypeError, ValueError
        For complex input, or shapes that do not broadcast.

    See Also
    --------
    klce.kl_divergence : their sum over a row, if `x` and `y` are distributions.

    Examples
    --------
    >>> from klce.compat.scipy import kl_div
    >>> kl_div([0.0, 1.0], [0.25, 1.0])
    array([0.25, 0.  ])
    """
    return _elementwise(_kl_div, {"x": x, "y": y}, out, where)


def _kl_div(x: Array, y: Array) -> Any:
    terms = klce.rel_entr(x, y)
    # +inf there, whatever is added: where either is negative, or y alone is 0.
    outside = (np.minimum(x, y) < 0) | ((y == 0) & (x > 0))
    # Where both are near, the sum would cancel, and may be negative.
    near = (x > 0) & (x <= 2 * y) & (y <= 2 * x)
    return np.where(near, x * _minus_log1p((y - x) / x), np.where(outside, terms, terms - x + y))


#: Of 2 atanh(t)/t - 2, by powers of t^2 as far as 2^-56 of the result for a t^2 of 1/9.
_ATANH = tuple(2 / k for k in range(3, 35, 2))


def _minus_log1p(u: Array) -> Array:
    """Return u - log(1 + u) without cancellation, never negative, for u from -1/2 to 1.

    It is t u - 2 (t^3/3 + t^5/5 + ...) with t = u/(2 + u).
    """
    t = u / (2 + u)
    square = t * t
    rest = np.zeros_like(square)
    for coefficient in reversed(_ATANH):
        rest *= square
        rest += coefficient
    result: Array = t * (u - square * rest)
    return result


# --- scipy.stats and scipy.spatial.distance -------------------------------------------------------


def _check_base(base: Any) -> None:
    if base is not None and _validate.real(base, "base", "a number or None") <= 0:
        raise ValueError(f"`base` must be a positive number or `None`. Got {base!r}")


@_silent
def entropy(
    pk: ArrayLike,
    qk: ArrayLike | None = None,
    base: float | None = None,
    axis: Axis = 0,
    *,
    nan_policy: Literal["propagate", "omit", "raise"] = "propagate",
    keepdims: bool = False,
) -> Any:
    r"""Entropy of `pk`, or its divergence from `qk`, as ``scipy.stats.entropy``.

    Parameters
    ----------
    pk, qk : array_like
        Distributions up to scale; their shapes broadcast, the axis of the classes included.
        Masked elements of a masked array do not count.
    base : float, optional
        Base of the logarithm; nats without it.
    axis : int, tuple of int or None, default 0
        The axes of the classes.
    nan_policy : {"propagate", "omit", "raise"}, default "propagate"
        A row that holds nan gives nan, is taken without that class, or is an error.
    keepdims : bool, default False
        Keep the axes, with length one.

    Returns
    -------
    ndarray or scalar
        :math:`-\sum_i p_i \log p_i`, or :math:`\sum_i p_i \log(p_i / q_i)`, in the common dtype, of
        float16 in float32.

    Raises
    ------
    TypeError
        For complex input.
    ValueError
        For shapes that do not broadcast, a `base` that is not positive, an axis out of bounds, or
        nan where `nan_policy` is ``"raise"``.

    See Also
    --------
    klce.entropy, klce.kl_divergence : over the last axis, and for logits too.

    Notes
    -----
    A row of no classes gives 0, one that sums to 0 gives nan.  A row with a negative element is
    normalised as it stands: what is negative then has the entropy -inf and the divergence +inf.

    Examples
    --------
    >>> from klce.compat.scipy import entropy
    >>> entropy([1, 1], base=2).item()
    1.0
    >>> entropy([0.5, 0.5], [1.0, 0.0]).item()
    inf
    """
    _check_base(base)
    if nan_policy not in ("propagate", "omit", "raise"):
        raise ValueError(
            f'nan_policy must be one of "propagate", "omit" and "raise", got {nan_policy!r}'
        )
    given: list[Any] = [pk] if qk is None else [pk, qk]
    names = ("pk", "qk")[: len(given)]
    data = [np.ma.getdata(x) if isinstance(x, np.ma.MaskedArray) else x for x in given]
    arrays = _common(dict(zip(names, data, strict=True)))
    ignored = [np.ma.getmaskarray(x) for x in given if np.ma.is_masked(x)]
    if nan_policy != "propagate":
        missing = [np.isnan(array) for array in arrays]
        if nan_policy == "raise" and any(m.any() for m in missing):
            raise ValueError("The input contains nan values")
        ignored += [m for m in missing if m.any()]
    measure, terms = (klce.entropy, _entr) if qk is None else (klce.kl_divergence, klce.rel_entr)
    return _over_distributions(measure, terms, arrays, ignored, base, axis, keepdims)


@_silent
def jensenshannon(
    p: ArrayLike,
    q: ArrayLike,
    base: float | None = None,
    *,
    axis: Axis = 0,
    keepdims: bool = False,
) -> Any:
    r"""Root of the Jensen-Shannon divergence, as ``scipy.spatial.distance.jensenshannon``.

    Parameters
    ----------
    p, q : array_like
        Distributions up to scale, of shapes that broadcast.
    base : float, optional
        Base of the logarithm; nats without it.
    axis : int, tuple of int or None, default 0
        The axes of the classes, of `p` and of `q`, each in its own shape.
    keepdims : bool, default False
        Keep the axes, with length one.

    Returns
    -------
    ndarray or scalar
        :math:`\sqrt{\mathrm{JS}(p, q)}`, float32 if that holds both dtypes, else float64, also for
        integers.

    Raises
    ------
    TypeError, ValueError
        For complex input, an axis out of bounds, a `base` that is not positive, or shapes that do
        not broadcast.

    See Also
    --------
    klce.js_divergence : the divergence itself, over the last axis by default.

    Notes
    -----
    Each is normalised as it was given, and then broadcast, so that what is repeated along an axis
    of classes is no distribution any more.

    Examples
    --------
    >>> from klce.compat.scipy import jensenshannon
    >>> jensenshannon([1.0, 0.0], [0.0, 1.0], base=2).item()
    1.0
    """
    _check_base(base)
    # Integers are float64 before the dtypes meet, as SciPy's quotients are.
    arrays = [np.atleast_1d(_common({name: each})[0]) for name, each in (("p", p), ("q", q))]
    if _classes(arrays[0], axis) == _classes(arrays[1], axis):
        divergence = _over_distributions(
            klce.js_divergence, _js_terms, arrays, [], None, axis, keepdims
        )
    else:
        sums = [array.sum(axis=axis, keepdims=True) for array in arrays]
        try:
            terms = _js_terms(*map(np.divide, arrays, sums))
        except ValueError:
            raise ValueError(
                f"p and q must have shapes that broadcast, got {arrays[0].shape} and "
                f"{arrays[1].shape}"
            ) from None
        divergence = np.maximum(terms.sum(axis=axis, keepdims=keepdims), 0)
    if base is not None:
        divergence = divergence / divergence.dtype.type(math.log(base))
    return np.sqrt(divergence)


def _classes(array: Array, axis: Axis) -> dict[int, int]:
    """Return the axes of the classes, counted from the end, and their lengths."""
    axes = range(array.ndim) if axis is None else normalize_axis_tuple(axis, array.ndim)
    return {k - array.ndim: array.shape[k] for k in axes}


def _js_terms(p: Array, q: Array) -> Any:
    middle = (p + q) / 2
    return (klce.rel_entr(p, middle) + klce.rel_entr(q, middle)) / 2


def _joined(x: Array, axis: int | tuple[int, ...]) -> tuple[Array, tuple[int, ...]]:
    """Return `x` with the named axes last and joined to one, and which they were."""
    axes = normalize_axis_tuple(axis, x.ndim)
    if axes == (x.ndim - 1,):
        return x, axes
    moved = np.moveaxis(x, axes, range(-len(axes), 0))
    kept = moved.shape[: x.ndim - len(axes)]
    return moved.reshape(*kept, math.prod(moved.shape[len(kept) :])), axes


def _over_distributions(
    measure: Callable[..., Any],
    terms: Callable[..., Any],
    arrays: list[Array],
    ignored: list[Array],
    base: float | None,
    axis: Axis,
    keepdims: bool,
) -> Any:
    """Take a measure of arrays, less the elements that are ignored in any, over SciPy's axes.

    `terms` gives what it sums of each class.
    """
    if axis is None:
        ndim = max(array.ndim for array in arrays)
        arrays, ignored = [a.ravel() for a in arrays], [a.ravel() for a in ignored]
        shape, axes = (1,) * max(ndim, 1), tuple(range(max(ndim, 1)))
    try:
        arrays = list(np.broadcast_arrays(*map(np.atleast_1d, arrays)))
    except ValueError:
        raise ValueError("Array shapes are incompatible for broadcasting.") from None
    where = None
    if ignored:
        where = ~np.logical_or.reduce([np.broadcast_to(m, arrays[0].shape) for m in ignored])
    if axis is not None:
        shape = arrays[0].shape
        joined = [_joined(array, axis) for array in arrays]
        arrays, axes = [array for array, _ in joined], joined[0][1]
        where = where if where is None else _joined(where, axis)[0]
    result = np.asarray(measure(*arrays, where=where))
    result = _by_terms_where_nan(result, terms, where, arrays)
    if base is not None:
        result = result / result.dtype.type(math.log(base))
    if keepdims:
        result = result.reshape([1 if k in axes else n for k, n in enumerate(shape)])
    return result[()]


def _by_terms_where_nan(
    result: Array, terms: Callable[..., Any], where: Array | None, arrays: list[Array]
) -> Array:
    """Compute again, term by term as SciPy does, the rows that klce's contract leaves nan.

    Such are rows with a negative element, of sum 0 or without a class that counts.  They are
    normalised first.
    """
    unknown = np.isnan(result)
    if not unknown.any():
        return result
    rows = [array[unknown].astype(result.dtype) for array in arrays]
    counts = np.ones(rows[0].shape, bool) if where is None else where[unknown]
    zero = rows[0].dtype.type(0)
    rows = [np.where(counts, row, zero) for row in rows]
    normalised = [row / row.sum(axis=-1, keepdims=True) for row in rows]
    sums = terms(*(np.where(counts, row, zero) for row in normalised)).sum(axis=-1)
    result = result.copy()
    result[unknown] = np.where(counts.any(axis=-1), sums, zero)
    return result
