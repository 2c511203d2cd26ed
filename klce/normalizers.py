"""Log-sum-exp, and the maps that divide by its exponential: softmax and log-softmax."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from klce import _arrays, _axes, _ufuncs, _validate
from klce._entry import entry

if TYPE_CHECKING:
    from klce._typing import Array, ArrayLike, Axis, DTypeLike

__all__ = ["log_softmax", "logsumexp", "softmax"]


@entry("rows", "x", plain={"": [("logsumexp",)]})
def logsumexp(
    x: ArrayLike,
    axis: Axis = -1,
    *,
    b: ArrayLike | None = None,
    where: ArrayLike | None = None,
    keepdims: bool = False,
    return_sign: bool = False,
    dtype: DTypeLike | None = None,
    out: np.ndarray[Any, Any] | None = None,
) -> Any:
    r"""Logarithm of the sum of the exponentials along one or several axes.

    Parameters
    ----------
    x : array_like
        Values of any shape, of any floating-point dtype up to float64,
        computed in float32 if shorter than that; integers and bool become float64.
    axis : int, tuple of int or None, default -1
        The axes that are summed over; None is all of them.
    b : array_like, optional
        Factors of the exponentials, of any sign; broadcasts with `x`.  A factor of 0 leaves its
        class out, whatever it holds.
    where : array_like of bool, optional
        Which elements count; broadcasts to the shape of `x` (and `b`).
    keepdims : bool, default False
        Keep the axes, with length one.
    return_sign : bool, default False
        Return the logarithm of the sum's size, and its sign.
    dtype : {float16, bfloat16, float32, float64}, optional
        Convert `x` and `b` to this first.
    out : ndarray, optional
        Where to put the logarithm; of its shape and of a dtype that holds it.

    Returns
    -------
    ndarray or scalar
        :math:`\log \sum_i b_i e^{x_i}` of each row, in nats: float64 where `x` or `b` is float64,
        an integer or bool, else float32, or `dtype`; nan where the sum is negative.
    sign : ndarray or scalar
        With `return_sign` only: 1, 0, -1 or nan, of the same shape and dtype.

    Raises
    ------
    TypeError
        For another dtype, an `axis` that is not an integer, a `where`, `keepdims` or `return_sign`
        that is not bool, or an `out` that is no array or does not hold the dtype.
    ValueError
        For an `axis` out of bounds, a `b` or `where` that does not broadcast, or an `out` of
        another shape or that is read-only.

    See Also
    --------
    softmax, log_softmax : what the sum normalises.
    cross_entropy : logsumexp less the logit of a target, without the loss of subtracting.
    score : logsumexp and more of each row, in one read.

    Notes
    -----
    Computed as :math:`m + \log(1 + \sum_{i \ne k} e^{x_i - m})` with :math:`m = x_k` the maximum,
    which is not part of the sum, so that a small rest is not lost (Blanchard, Higham and Higham,
    "Accurately computing the log-sum-exp and softmax functions", 2021).  With `b` the largest term
    is taken out likewise, and the others are summed by their sign.  The row is read from memory
    once.  Several axes whose strides do not let them be one are copied, by blocks of rows.

    Results are within 4 units in the last place in float32 and 5 in float64; 16 where rows of more
    than 256 float32 (128 float64) classes are led by a few, and roundings of hundreds of others
    fall alike.  Where the result is near 0 these are units of the maximum, with `b` of the largest
    :math:`|x_i + \log |b_i||`.

    A row of -inf, or an empty one, gives -inf (and the sign 0); +inf gives +inf; nan gives nan.

    Examples
    --------
    >>> import numpy as np, klce
    >>> klce.logsumexp(np.log([0.25, 0.5, 0.25])).item()
    0.0
    >>> klce.logsumexp(np.array([0.0, -40.0])).item()
    4.248354255291589e-18
    >>> log, sign = klce.logsumexp([1.0, 2.0], b=[1.0, -1.0], return_sign=True)
    >>> round(log.item(), 4), sign.item()
    (1.5413, -1.0)
    >>> klce.logsumexp(np.zeros((2, 4)), axis=None, where=[True, True, False, False], b=0.25).item()
    0.0
    """
    if b is None:
        arrays: tuple[Array, ...] = (_arrays.floats(x, "x", _arrays.WHERE),)
    else:
        both = _arrays.floats(x, "x", _arrays.WHERE), _arrays.floats(b, "b", _arrays.WHERE)
        shape = _validate.broadcast(*both, "x and b")
        arrays = tuple(np.broadcast_to(one, shape) for one in both)
    array, name = arrays[0], "x" if b is None else "x and b"
    taken = _validate.option_dtype(dtype, *arrays)
    axes = _validate.class_axes(axis, array, name)
    mask = _validate.mask(where, array.shape, axes, name)
    keepdims = _validate.flag(keepdims, "keepdims")
    return_sign = _validate.flag(return_sign, "return_sign")
    rows = _axes.kept(array.shape, axes) if keepdims else _axes.without(array.shape, axes)
    out = _validate.output(out, rows, _arrays.computed(taken))
    if b is not None:
        log, sign = _axes.over_rows(
            _ufuncs.logsumexp_scaled,
            arrays,
            (int(return_sign),),
            axes,
            where=mask,
            keepdims=keepdims,
            outs=(out, None),
            dtype=taken,
        )
        return (log, sign) if return_sign else log
    (log,) = _axes.over_rows(
        _ufuncs.logsumexp, arrays, (), axes, where=mask, keepdims=keepdims, outs=(out,), dtype=taken
    )
    if not return_sign:
        return log
    # A sum of exponentials is positive, or 0, or nan.
    return log, (np.where(np.isnan(log), log, log > -np.inf).astype(_arrays.computed(taken)))[()]


def _map(
    kernel: Any,
    x: ArrayLike,
    axis: Axis,
    temperature: float,
    where: ArrayLike | None,
    dtype: DTypeLike | None,
    out: np.ndarray[Any, Any] | None,
) -> Any:
    array = _arrays.floats(x, "x", _arrays.WHERE)
    axes = _validate.class_axes(axis, array, "x")
    taken = _validate.option_dtype(dtype, array)
    if not all(array.shape[one] for one in axes):
        raise ValueError(f"x must have at least one class on axis {axis}, got shape {array.shape}")
    t = _validate.temperature(temperature)
    mask = _validate.mask(where, array.shape, axes, "x")
    given = _validate.output(out, array.shape, taken)
    # In the layout of x: NumPy's own would be that of x with the axis moved to the end.
    result = _ufuncs.new_like(array, taken) if given is None else given
    _axes.over_classes(kernel, array, (t,), axes, mask, result, taken)
    return result if given is not None else result[()]


@entry("map", "x", plain={"": [("softmax", "temperature")]})
def softmax(
    x: ArrayLike,
    axis: Axis = -1,
    *,
    temperature: float = 1.0,
    where: ArrayLike | None = None,
    dtype: DTypeLike | None = None,
    out: np.ndarray[Any, Any] | None = None,
) -> Any:
    r"""Probabilities that are proportional to the exponentials along an axis.

    Parameters
    ----------
    x : array_like
        Logits of any shape, of any floating-point dtype up to float64,
        computed in float32 if shorter than that; integers and bool become float64.
    axis : int, tuple of int or None, default -1
        The axes of the classes; None is all of them.
    temperature : float, default 1.0
        Divides the logits; from 1e-6 to 1e6.
    where : array_like of bool, optional
        Which classes count; broadcasts to the shape of `x`.  The others count as -inf.
    dtype : {float16, bfloat16, float32, float64}, optional
        Convert `x` to this first.
    out : ndarray, optional
        Where to put the result; of its shape and of a dtype that holds it.  It may be `x` itself.

    Returns
    -------
    ndarray or scalar
        :math:`e^{x_i/T} / \sum_j e^{x_j/T}`, of the shape of `x` and in `dtype`, by default its
        own; a float8 gives float32, an integer or bool float64.

    Raises
    ------
    TypeError
        For another dtype, an `axis` that is not an integer, a `where` that is not bool, or an `out`
        that is no array or does not hold the dtype.
    ValueError
        For an `axis` out of bounds, no classes, a `temperature` out of range, a `where` that does
        not broadcast, or an `out` of another shape or that is read-only.

    See Also
    --------
    log_softmax : the logarithm, of which no small probability is lost.
    logsumexp : the logarithm of the sum.
    score : the probability of a target, and more of each row, in one read.

    Notes
    -----
    Bridle, "Probabilistic interpretation of feedforward classification network outputs, with
    relationships to statistical pattern recognition", 1990.

    Results are within 2.5 units in the last place in float32 and 4 in float64.  Those below the
    normal numbers are right too, rounded as subnormal ones.  A row of -inf, and one that holds +inf
    or nan, gives nan throughout; a masked class gives 0 in any other row.

    Examples
    --------
    >>> import numpy as np, klce
    >>> klce.softmax(np.log([1.0, 2.0, 1.0]))
    array([0.25, 0.5 , 0.25])
    >>> klce.softmax(np.array([0.0, 1.0]), temperature=0.5).round(4)
    array([0.1192, 0.8808])
    >>> klce.softmax(np.zeros(4), where=[True, True, False, False])
    array([0.5, 0.5, 0. , 0. ])
    """
    return _map(_ufuncs.softmax, x, axis, temperature, where, dtype, out)


@entry("map", "x", plain={"": [("log_softmax", "temperature")]})
def log_softmax(
    x: ArrayLike,
    axis: Axis = -1,
    *,
    temperature: float = 1.0,
    where: ArrayLike | None = None,
    dtype: DTypeLike | None = None,
    out: np.ndarray[Any, Any] | None = None,
) -> Any:
    r"""Logarithm of :func:`softmax`, without the loss of taking one after the other.

    Parameters
    ----------
    x : array_like
        Logits of any shape, of any floating-point dtype up to float64,
        computed in float32 if shorter than that; integers and bool become float64.
    axis : int, tuple of int or None, default -1
        The axes of the classes; None is all of them.
    temperature : float, default 1.0
        Divides the logits; from 1e-6 to 1e6.
    where : array_like of bool, optional
        Which classes count; broadcasts to the shape of `x`.  The others count as -inf.
    dtype : {float16, bfloat16, float32, float64}, optional
        Convert `x` to this first.
    out : ndarray, optional
        Where to put the result; of its shape and of a dtype that holds it.  It may be `x` itself.

    Returns
    -------
    ndarray or scalar
        :math:`x_i/T - \log \sum_j e^{x_j/T}`, in nats, of the shape of `x` and in `dtype`, by
        default its own; a float8 gives float32, an integer or bool float64.

    Raises
    ------
    TypeError
        For another dtype, an `axis` that is not an integer, a `where` that is not bool, or an `out`
        that is no array or does not hold the dtype.
    ValueError
        For an `axis` out of bounds, no classes, a `temperature` out of range, a `where` that does
        not broadcast, or an `out` of another shape or that is read-only.

    See Also
    --------
    softmax : the probabilities.
    logsumexp : what is subtracted.
    cross_entropy : the loss against a target, in one read and without the array between.

    Notes
    -----
    Computed as :math:`(x_i - m)/T - \log(1 + \sum_{j \ne k} e^{(x_j - m)/T})` with
    :math:`m = x_k` the maximum, which share a sign, so that nothing cancels (Blanchard, Higham and
    Higham: see :func:`logsumexp`).  Results are within 4 units in the last place in float32 and 5
    in float64; 16 where roundings fall alike, as of `logsumexp`.  An :math:`x_i - m` beyond the
    dtype gives -inf, also where T would bring it back.

    A row of -inf, and one that holds +inf or nan, gives nan throughout; a masked class gives -inf
    in any other row.

    Examples
    --------
    >>> import numpy as np, klce
    >>> klce.log_softmax(np.array([20.0, 0.0]))
    array([-2.06115362e-09, -2.00000000e+01])
    """
    return _map(_ufuncs.log_softmax, x, axis, temperature, where, dtype, out)
