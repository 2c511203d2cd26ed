"""Log-sum-exp, and the maps that divide by its exponential: softmax and log-softmax."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from klce import _ufuncs, _validate
from klce._lazy import lazily

__all__ = ["log_softmax", "logsumexp", "softmax"]


@lazily("rows", "x")
def logsumexp(
    x: ArrayLike,
    axis: int = -1,
    *,
    keepdims: bool = False,
    dtype: DTypeLike | None = None,
    out: np.ndarray[Any, Any] | None = None,
) -> Any:
    r"""Logarithm of the sum of the exponentials along an axis.

    Parameters
    ----------
    x : array_like
        Values of any shape with at least one dimension; of any floating-point dtype up to float64,
        computed in float32 if shorter than that; integers and bool become float64.
    axis : int, default -1
        The axis that is summed over.
    keepdims : bool, default False
        Keep the axis, with length one.
    dtype : {float16, bfloat16, float32, float64}, optional
        Convert `x` to this first.
    out : ndarray, optional
        Where to put the result; of its shape and of a dtype that holds it.

    Returns
    -------
    ndarray or scalar
        :math:`\log \sum_i e^{x_i}` of each row, in nats: float64 for float64 and
        integers, else float32.

    Raises
    ------
    TypeError
        For another dtype, or an `axis` that is not an integer.
    ValueError
        For a scalar `x`, an `axis` out of bounds, or an `out` of another shape.

    Notes
    -----
    Computed as :math:`m + \log(1 + \sum_{i \ne k} e^{x_i - m})` with :math:`m = x_k` the maximum,
    which is not part of the sum, so that a small rest is not lost (Blanchard, Higham and Higham,
    "Accurately computing the log-sum-exp and softmax functions", 2021).  The row is read from
    memory once.

    A row of -inf, or an empty one, gives -inf; +inf gives +inf; nan gives nan.

    Examples
    --------
    >>> import numpy as np, klce
    >>> klce.logsumexp(np.log([0.25, 0.5, 0.25])).item()
    0.0
    >>> klce.logsumexp(np.array([0.0, -40.0])).item()
    4.248354255291589e-18
    """
    array = _validate.floats(x, "x")
    axis = _validate.class_axis(axis, array, "x")
    taken = _validate.option_dtype(dtype, array)
    return _validate.over_rows(_ufuncs.logsumexp, (array,), (), axis, keepdims, out, taken)


def _map(
    kernel: Any,
    x: ArrayLike,
    axis: int,
    temperature: float,
    dtype: DTypeLike | None,
    out: np.ndarray[Any, Any] | None,
) -> Any:
    array = _validate.floats(x, "x")
    axis = _validate.class_axis(axis, array, "x")
    taken = _validate.option_dtype(dtype, array)
    if array.shape[axis] == 0:
        raise ValueError(f"x must have at least one class on axis {axis}, got shape {array.shape}")
    t = _validate.temperature(temperature)
    out = _validate.output(out, array.shape, taken)
    if out is None:
        # In the layout of x: NumPy's own would be that of x with the axis moved to the end.
        out = np.empty_like(array, taken, subok=False)
    return _validate.called(kernel, array, t, dtype=taken, axes=[(axis,), (), (axis,)], out=out)


@lazily("map", "x")
def softmax(
    x: ArrayLike,
    axis: int = -1,
    *,
    temperature: float = 1.0,
    dtype: DTypeLike | None = None,
    out: np.ndarray[Any, Any] | None = None,
) -> Any:
    r"""Probabilities that are proportional to the exponentials along an axis.

    Parameters
    ----------
    x : array_like
        Logits, of any shape with at least one dimension; of any floating-point dtype up to
        float64, computed in float32 if shorter than that; integers and bool become float64.
    axis : int, default -1
        The axis of the classes.
    temperature : float, default 1.0
        Divides the logits; from 1e-6 to 1e6.
    dtype : {float16, bfloat16, float32, float64}, optional
        Convert `x` to this first.
    out : ndarray, optional
        Where to put the result; of its shape and of a dtype that holds it.  It may be `x` itself.

    Returns
    -------
    ndarray
        :math:`e^{x_i/T} / \sum_j e^{x_j/T}`, of the shape of `x` and in its dtype; a float8
        gives float32, an integer float64.

    Raises
    ------
    TypeError
        For another dtype, or an `axis` that is not an integer.
    ValueError
        For a scalar `x`, an `axis` out of bounds, no classes, a `temperature` out of range, or an
        `out` of another shape.

    Notes
    -----
    Results below the normal numbers are right too, rounded as subnormal ones.  A row of -inf, and
    one that holds +inf or nan, gives nan throughout.

    Examples
    --------
    >>> import numpy as np, klce
    >>> klce.softmax(np.log([1.0, 2.0, 1.0]))
    array([0.25, 0.5 , 0.25])
    >>> klce.softmax(np.array([0.0, 1.0]), temperature=0.5).round(4)
    array([0.1192, 0.8808])
    """
    return _map(_ufuncs.softmax, x, axis, temperature, dtype, out)


@lazily("map", "x")
def log_softmax(
    x: ArrayLike,
    axis: int = -1,
    *,
    temperature: float = 1.0,
    dtype: DTypeLike | None = None,
    out: np.ndarray[Any, Any] | None = None,
) -> Any:
    r"""Logarithm of :func:`softmax`, without the loss of taking one after the other.

    Parameters
    ----------
    x : array_like
        Logits, of any shape with at least one dimension; of any floating-point dtype up to
        float64, computed in float32 if shorter than that; integers and bool become float64.
    axis : int, default -1
        The axis of the classes.
    temperature : float, default 1.0
        Divides the logits; from 1e-6 to 1e6.
    dtype : {float16, bfloat16, float32, float64}, optional
        Convert `x` to this first.
    out : ndarray, optional
        Where to put the result; of its shape and of a dtype that holds it.  It may be `x` itself.

    Returns
    -------
    ndarray
        :math:`x_i/T - \log \sum_j e^{x_j/T}`, in nats, of the shape of `x` and in its dtype; a
        float8 gives float32, an integer float64.

    Raises
    ------
    TypeError
        For another dtype, or an `axis` that is not an integer.
    ValueError
        For a scalar `x`, an `axis` out of bounds, no classes, a `temperature` out of range, or an
        `out` of another shape.

    Notes
    -----
    A row of -inf, and one that holds +inf or nan, gives nan throughout.

    Examples
    --------
    >>> import numpy as np, klce
    >>> klce.log_softmax(np.array([20.0, 0.0]))
    array([-2.06115362e-09, -2.00000000e+01])
    """
    return _map(_ufuncs.log_softmax, x, axis, temperature, dtype, out)
