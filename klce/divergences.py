"""Information, entropy and Kullback-Leibler divergence of distributions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from klce import _ufuncs, _validate
from klce._lazy import lazily
from klce._validate import Form

__all__ = ["binary_entropy", "entropy", "information", "kl_divergence"]


def _elementwise(
    kernel: Any, p: ArrayLike, base: float | None, out: np.ndarray[Any, Any] | None
) -> Any:
    array = _validate.floats(p, "p")
    nats = _validate.unit(base)
    dtype = _validate.map_dtype(array)
    out = _validate.output(out, array.shape, dtype)
    if nats == 1:
        return _validate.called(kernel, array, out=out)
    # Rounded once: a half is divided before it is one.
    wide = _validate.called(kernel, array, dtype=_validate.row_dtype(array))
    result = _validate.in_unit(wide, nats).astype(dtype, copy=False)
    if out is None:
        return result
    out[...] = result
    return out


@lazily("elements", "p")
def information(
    p: ArrayLike, *, base: float | None = None, out: np.ndarray[Any, Any] | None = None
) -> Any:
    r"""Self-information of probabilities, :math:`-\log p`, element by element.

    Parameters
    ----------
    p : array_like
        Probabilities, of any shape and any floating-point dtype up to float64, computed in float32
        if shorter than that; integers and bool become float64.
    base : float, optional
        Base of the logarithm; nats without it.
    out : ndarray, optional
        Where to put the result; of its shape and of a dtype that holds it.

    Returns
    -------
    ndarray or scalar
        Of the shape and dtype of `p`: +inf at 0, nan below 0.

    Raises
    ------
    TypeError, ValueError
        For a wrong dtype, `base` or `out`.

    Examples
    --------
    >>> import klce
    >>> klce.information([1.0, 0.5, 0.125], base=2)
    array([0., 1., 3.])
    """
    return _elementwise(_ufuncs.information, p, base, out)


@lazily("elements", "p")
def binary_entropy(
    p: ArrayLike, *, base: float | None = None, out: np.ndarray[Any, Any] | None = None
) -> Any:
    r"""Entropy of a binary outcome, :math:`-p \log p - (1 - p) \log(1 - p)`, element by element.

    Parameters
    ----------
    p : array_like
        Probabilities, of any shape and any floating-point dtype up to float64, computed in float32
        if shorter than that; integers and bool become float64.
    base : float, optional
        Base of the logarithm; nats without it.
    out : ndarray, optional
        Where to put the result; of its shape and of a dtype that holds it.

    Returns
    -------
    ndarray or scalar
        Of the shape and dtype of `p`: 0 at 0 and 1, nan outside [0, 1].

    Raises
    ------
    TypeError, ValueError
        For a wrong dtype, `base` or `out`.

    Examples
    --------
    >>> import klce
    >>> klce.binary_entropy([0.0, 0.5, 1.0], base=2)
    array([0., 1., 0.])
    """
    return _elementwise(_ufuncs.binary_entropy, p, base, out)


@lazily("rows", "p")
def entropy(
    p: ArrayLike,
    axis: int = -1,
    *,
    form: Form = "probs",
    normalize: bool = True,
    temperature: float = 1.0,
    base: float | None = None,
    keepdims: bool = False,
    out: np.ndarray[Any, Any] | None = None,
) -> Any:
    r"""Entropy of distributions along an axis.

    Parameters
    ----------
    p : array_like
        Distributions in the given `form`, of any floating-point dtype up to float64, computed in
        float32 if shorter than that; integers and bool become float64.
    axis : int, default -1
        The axis of the classes.
    form : {"probs", "log_probs", "logits"}
        What `p` holds.
    normalize : bool, default True
        Take `p` as a distribution up to scale.  Without, the plain sum
        :math:`-\sum_i p_i \log p_i` (not for logits).
    temperature : float, default 1.0
        Divides the logits (logits only); from 1e-6 to 1e6.
    base : float, optional
        Base of the logarithm; nats without it.
    keepdims : bool, default False
        Keep the axis, with length one.
    out : ndarray, optional
        Where to put the result; of its shape and of a dtype that holds it.

    Returns
    -------
    ndarray or scalar
        :math:`-\sum_i p_i \log p_i` of each row, in the dtype of `p`.

    Raises
    ------
    TypeError, ValueError
        For a wrong dtype, axis, form, option or `out`.

    Notes
    -----
    Shannon, "A mathematical theory of communication", 1948.  :math:`0 \log 0` is 0.  A row with a
    negative probability, one that sums to 0 and one that holds nan give nan.

    Examples
    --------
    >>> import numpy as np, klce
    >>> klce.entropy([0.5, 0.25, 0.25], base=2).item()
    1.5
    >>> klce.entropy(np.zeros((2, 4)), form="logits", base=2)
    array([2., 2.])
    """
    array = _validate.floats(p, "p")
    axis = _validate.class_axis(axis, array, "p")
    _validate.form(form)
    t = _validate.temperature(temperature, form)
    normalize = _validate.normalize(normalize, form)
    nats = _validate.unit(base)
    parameters: tuple[float, ...]
    if form == "probs":
        kernel, parameters = _ufuncs.entropy_probs, (int(normalize),)
    elif normalize:
        # Log-probabilities up to scale are logits.
        kernel, parameters = _ufuncs.entropy_logits, (t,)
    else:
        kernel, parameters = _ufuncs.entropy_log_probs, ()
    return _over_rows(kernel, (array,), parameters, axis, keepdims, nats, out)


def _over_rows(
    kernel: Any,
    arrays: tuple[_validate.Floats, ...],
    parameters: tuple[float, ...],
    axis: int,
    keepdims: bool,
    nats: float,
    out: np.ndarray[Any, Any] | None,
) -> Any:
    """Run a kernel over the class axis of its arrays, and change the unit of the result."""
    result = _validate.over_rows(kernel, arrays, parameters, axis, keepdims, out)
    return _validate.in_unit(result, nats)


@lazily("rows", "p", "q")
def kl_divergence(
    p: ArrayLike,
    q: ArrayLike,
    axis: int = -1,
    *,
    form: Form = "probs",
    normalize: bool = True,
    temperature: float = 1.0,
    base: float | None = None,
    reduction: str = "none",
    keepdims: bool = False,
    out: np.ndarray[Any, Any] | None = None,
) -> Any:
    r"""Kullback-Leibler divergence of `q` from `p` along an axis, KL(p || q).

    Parameters
    ----------
    p, q : array_like
        Distributions, both in the given `form`, of any floating-point dtype up to float64, computed
        in float32 if both are shorter than that; integers and bool become float64.  Their shapes
        are broadcast against each other, but for the classes.
    axis : int, default -1
        The axis of the classes.
    form : {"probs", "log_probs", "logits"}
        What `p` and `q` hold.
    normalize : bool, default True
        Take both as distributions up to scale; the result is never negative then.  Without, the
        plain sum :math:`\sum_i p_i \log(p_i / q_i)` (not for logits).
    temperature : float, default 1.0
        Divides both logits (logits only); from 1e-6 to 1e6.
    base : float, optional
        Base of the logarithm; nats without it.
    reduction : {"none", "mean", "batchmean", "sum"}
        ``"mean"`` divides the sum by the number of rows, ``"batchmean"`` by the length of the
        first axis.
    keepdims : bool, default False
        Keep the axis, with length one (under ``"none"`` only).
    out : ndarray, optional
        Where to put the result; of its shape and of a dtype that holds it.

    Returns
    -------
    ndarray or scalar
        :math:`\sum_i p_i \log(p_i / q_i)` of each row, or reduced.

    Raises
    ------
    TypeError, ValueError
        For a wrong dtype, shape, axis, form, option or `out`.

    Notes
    -----
    Kullback and Leibler, "On information and sufficiency", 1951; KL(p || q) = H(p, q) - H(p).
    Computed as :math:`\sum_i p_i (u_i - \log(1 + u_i))`, :math:`u_i = (q_i - p_i)/p_i`, whose terms
    are never negative, so that a divergence of 1e-12 keeps its digits.  KL(p || p) is 0.

    :math:`0 \log 0` is 0, also where q is 0; a class with p > 0 and q = 0 gives +inf.  A row with
    a negative probability, one that sums to 0 and one that holds nan give nan.

    Examples
    --------
    >>> import numpy as np, klce
    >>> round(klce.kl_divergence([1.0, 0.0, 0.0], [0.7, 0.2, 0.1]).item(), 4)
    0.3567
    """
    a, b = _validate.floats(p, "p"), _validate.floats(q, "q")
    axis_p = _validate.class_axis(axis, a, "p")
    axis_q = _validate.class_axis(axis, b, "q") if axis >= 0 else axis
    _validate.class_axis(axis_q, b, "q")
    if axis_p != axis_q:
        raise ValueError(
            f"axis must name the same axis of p and q, counted from the end, got {axis} "
            f"for shapes {a.shape} and {b.shape}"
        )
    axis = axis_p
    if a.shape[axis] != b.shape[axis]:
        raise ValueError(
            f"p and q must have the same number of classes, got {a.shape[axis]} and {b.shape[axis]}"
        )
    _validate.form(form)
    t = _validate.temperature(temperature, form)
    normalize = _validate.normalize(normalize, form)
    nats = _validate.unit(base)
    how = _validate.reduction(reduction, ("none", "mean", "batchmean", "sum"))
    if keepdims and how != "none":
        raise ValueError(f'keepdims belongs to reduction="none", got reduction={reduction!r}')
    try:
        np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        raise ValueError(
            f"p and q must have shapes that broadcast, got {a.shape} and {b.shape}"
        ) from None
    parameters: tuple[float, ...]
    if form == "probs":
        kernel, parameters = _ufuncs.kl_probs, (int(normalize),)
    elif normalize:
        # Log-probabilities up to scale are logits.
        kernel, parameters = _ufuncs.kl_logits, (t,)
    else:
        kernel, parameters = _ufuncs.kl_log_probs, ()
    if how == "none":
        return _over_rows(kernel, (a, b), parameters, axis, keepdims, nats, out)
    out = _validate.output(out, (), _validate.row_dtype(a, b))
    terms = _over_rows(kernel, (a, b), parameters, axis, False, 1.0, None)
    batch = np.shape(terms)[0] if np.ndim(terms) else 1
    return _validate.reduced(terms, how, np.size(terms), nats, out, batch)
