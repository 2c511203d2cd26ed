"""Information and entropy of distributions, and their Kullback-Leibler and other divergences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from klce import _arrays, _axes, _call, _reduce, _ufuncs, _validate
from klce._entry import entry

if TYPE_CHECKING:
    from klce._typing import Array, ArrayLike, Axis, DivergenceReduction, Form, Mask

__all__ = [
    "binary_entropy",
    "entropy",
    "information",
    "js_divergence",
    "kl_divergence",
    "rel_entr",
]


def _elementwise(
    kernel: Any,
    arrays: tuple[Array, ...],
    base: float | None,
    out: np.ndarray[Any, Any] | None,
) -> Any:
    nats = _reduce.unit(base)
    dtype = _arrays.map_dtype(*arrays)
    out = _validate.output(out, np.broadcast_shapes(*(a.shape for a in arrays)), dtype)
    if nats == 1:
        return _call.called(kernel, *arrays, out=out)
    # Rounded once: a half is divided before it is one.
    wide = _call.called(kernel, *arrays, dtype=_arrays.row_dtype(*arrays))
    with np.errstate(all="ignore"):  # it may be beyond a half
        result = _reduce.in_unit(wide, nats, wide.dtype).astype(dtype, copy=False)
    if out is None:
        return result
    out[...] = result
    return out


@entry("elements", "p", plain={"": [("information",)]})
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
        Of the shape of `p` and in its dtype (float8 gives float32, integers and bool float64): +inf
        at 0, nan below 0 and of nan; negative above 1.

    Raises
    ------
    TypeError, ValueError
        For a wrong dtype, `base` or `out`.

    See Also
    --------
    entropy : its mean over a distribution.
    binary_entropy : its mean over a yes and a no.

    Notes
    -----
    Shannon, "A mathematical theory of communication", 1948.

    Examples
    --------
    >>> import klce
    >>> klce.information([1.0, 0.5, 0.125], base=2)
    array([0., 1., 3.])
    """
    return _elementwise(_ufuncs.information, (_arrays.floats(p, "p"),), base, out)


@entry("elements", "p", plain={"": [("binary_entropy",)]})
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
        Of the shape of `p` and in its dtype (float8 gives float32, integers and bool float64): 0 at
        0 and 1, nan outside [0, 1] and of nan.

    Raises
    ------
    TypeError, ValueError
        For a wrong dtype, `base` or `out`.

    See Also
    --------
    entropy : of any number of classes.
    binary_cross_entropy : of predictions against outcomes.

    Notes
    -----
    Shannon, "A mathematical theory of communication", 1948, of two possibilities.

    Examples
    --------
    >>> import klce
    >>> klce.binary_entropy([0.0, 0.5, 1.0], base=2)
    array([0., 1., 0.])
    """
    return _elementwise(_ufuncs.binary_entropy, (_arrays.floats(p, "p"),), base, out)


@entry("elements", "p", "q", plain={"": [("rel_entr",)]})
def rel_entr(
    p: ArrayLike,
    q: ArrayLike,
    *,
    base: float | None = None,
    out: np.ndarray[Any, Any] | None = None,
) -> Any:
    r"""Relative entropy of two numbers, :math:`p \log(p/q)`, element by element.

    Parameters
    ----------
    p, q : array_like
        Numbers that are not negative, of any floating-point dtype up to float64, computed in
        float32 if both are shorter than that, and of shapes that broadcast; integers and bool
        become float64.
    base : float, optional
        Base of the logarithm; nats without it.
    out : ndarray, optional
        Where to put the result; of its shape and of a dtype that holds it.

    Returns
    -------
    ndarray or scalar
        Of the shape of both and in their dtype; of two dtypes, and of float8, integers and bool,
        float64 if either is float64, an integer or bool, else float32.  nan where either is nan or
        both are inf, else +inf where either is negative, 0 where p is 0, +inf where q is 0, -inf
        where q alone is inf.

    Raises
    ------
    TypeError, ValueError
        For a wrong dtype or shape, `base` or `out`.

    See Also
    --------
    kl_divergence : the sum over a row, with terms that are never negative.

    Notes
    -----
    The terms of :func:`kl_divergence` as a plain sum (Kullback and Leibler, "On information and
    sufficiency", 1951), with the values of scipy.special.rel_entr at and below 0.  Where p and q
    are near it keeps its digits: the logarithm is taken of 1 + (q - p)/p.

    Examples
    --------
    >>> import klce
    >>> klce.rel_entr([0.0, 0.5, 1.0], [0.0, 0.25, 0.0], base=2)
    array([0. , 0.5, inf])
    """
    a, b = _arrays.floats(p, "p"), _arrays.floats(q, "q")
    _validate.broadcast(a, b)
    return _elementwise(_ufuncs.rel_entr, (a, b), base, out)


@entry(
    "rows",
    "p",
    plain={
        "probs": [("entropy_probs", 1)],
        "log_probs": [("entropy_logits", 1.0)],
        "logits": [("entropy_logits", "temperature")],
    },
)
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
    out: np.ndarray[Any, Any] | None = None,
) -> Any:
    r"""Entropy of distributions along one or several axes.

    Parameters
    ----------
    p : array_like
        Distributions in the given `form`, of any floating-point dtype up to float64, computed in
        float32 if shorter than that; integers and bool become float64.
    axis : int, tuple of int or None, default -1
        The axes of the classes; None is all of them.
    form : {"probs", "log_probs", "logits"}
        What `p` holds.
    normalize : bool, default True
        Take `p` as a distribution up to scale.  Without, the plain sum
        :math:`-\sum_i p_i \log p_i` (not for logits).
    temperature : float, default 1.0
        Divides the logits (logits only); from 1e-6 to 1e6.
    base : float, optional
        Base of the logarithm; nats without it.
    where : array_like of bool, optional
        Which classes count; broadcasts to the shape of `p`.  The others have probability 0; a
        row that has no other gives nan, or 0 without `normalize`.
    keepdims : bool, default False
        Keep the axes, with length one.
    out : ndarray, optional
        Where to put the result; of its shape and of a dtype that holds it.

    Returns
    -------
    ndarray or scalar
        :math:`-\sum_i p_i \log p_i` of each row: float64 for float64, integers and bool, else
        float32.

    Raises
    ------
    TypeError, ValueError
        For a wrong dtype, axis, form, option, `where` or `out`.

    See Also
    --------
    information : of a single probability.
    binary_entropy : of two classes, by the probability of one.
    cross_entropy : against predictions.
    score : the entropy of logits, and more of each row, in one read.

    Notes
    -----
    Shannon, "A mathematical theory of communication", 1948.  :math:`0 \log 0` is 0.  A row with a
    negative probability, one that sums to 0 and one that holds nan give nan, and so does one of
    float64 whose sum is beyond float64.  Of logits, a row of -inf and one that holds +inf or nan
    give nan.

    Results are within 5 units in the last place, before a change of unit; 12 where rows of more
    than 256 float32 (128 float64) classes are led by a few, or of hundreds of equal ones, whose
    roundings fall alike.

    Examples
    --------
    >>> import numpy as np, klce
    >>> klce.entropy([0.5, 0.25, 0.25], base=2).item()
    1.5
    >>> klce.entropy(np.zeros((2, 4)), form="logits", base=2)
    array([2., 2.])
    >>> klce.entropy(np.zeros((2, 4)), form="logits", base=2, where=[True, True, False, False])
    array([1., 1.])
    """
    array = _arrays.floats(p, "p", _arrays.WHERE)
    axes = _validate.class_axes(axis, array, "p")
    _validate.form(form)
    t = _validate.temperature(temperature, form)
    normalize = _validate.normalize(normalize, form)
    nats = _reduce.unit(base)
    mask = _validate.mask(where, array.shape, axes, "p")
    keepdims = _validate.flag(keepdims, "keepdims")
    rows = _axes.kept(array.shape, axes) if keepdims else _axes.without(array.shape, axes)
    dtype = _arrays.row_dtype(array)
    out = _validate.output(out, rows, dtype)
    parameters: tuple[float, ...]
    if form == "probs":
        kernel, parameters = _ufuncs.entropy_probs, (int(normalize),)
    elif normalize:
        # Log-probabilities up to scale are logits.
        kernel, parameters = _ufuncs.entropy_logits, (t,)
    else:
        kernel, parameters = _ufuncs.entropy_log_probs, ()
    (result,) = _axes.over_rows(
        kernel, (array,), parameters, axes, where=mask, keepdims=keepdims, outs=(out,)
    )
    return _reduce.in_unit(result, nats, dtype)


def _pair_of_forms(
    measure: str, forms: tuple[Form, Form], normalize: bool, t: float
) -> tuple[Any, tuple[float, ...]]:
    """Return the kernel of any two forms.  Log-probabilities are logits at temperature 1."""
    names = ["probs" if form == "probs" else "logits" for form in forms]
    temperatures = [t if form == "logits" else 1.0 for form in forms]
    kernel = getattr(_ufuncs, f"{measure}_{names[0]}_{names[1]}")
    return kernel, (int(normalize), *temperatures)


def _kl_kernel(
    forms: tuple[Form, Form], normalize: bool, t: float
) -> tuple[Any, tuple[float, ...]]:
    """Return the kernel of one form, or else that of any two."""
    if forms == ("probs", "probs"):
        return _ufuncs.kl_probs, (int(normalize),)
    if forms == ("log_probs", "log_probs") and not normalize:
        return _ufuncs.kl_log_probs, ()
    if "probs" not in forms and (forms[0] == forms[1] or t == 1):
        return _ufuncs.kl_logits, (t,)
    return _pair_of_forms("kl", forms, normalize, t)


def _divergence(
    measure: str,
    p: ArrayLike,
    q: ArrayLike,
    axis: Axis,
    form: Form | tuple[Form, Form],
    normalize: bool,
    temperature: float,
    where: ArrayLike | None,
    base: float | None,
    reduction: DivergenceReduction,
    keepdims: bool,
    out: np.ndarray[Any, Any] | None,
) -> Any:
    """Validate what all divergences share, run the kernel over the rows and reduce."""
    a, b = _arrays.floats(p, "p", _arrays.WHERE), _arrays.floats(q, "q", _arrays.WHERE)
    axes = _validate.pair_axes(axis, a, b)
    forms = _validate.forms(form)
    t = _validate.temperature(temperature, form)
    normalize = _validate.normalize(normalize, form)
    nats = _reduce.unit(base)
    how = _reduce.reduction(reduction, batchmean=True)
    _validate.keeps_rows(keepdims, how)
    shape = _validate.broadcast(a, b)
    mask = _validate.mask(where, shape, axes, "p and q")
    kept = _validate.kept_rows(where, shape, axes)
    if kept is not None:
        mask, kept = None, kept.copy()  # `out` may be written over it
    rows = _axes.without(shape, axes)
    of_result = () if how != "none" else _axes.kept(shape, axes) if keepdims else rows
    dtype = _arrays.row_dtype(a, b)
    out = _validate.output(out, of_result, dtype)
    if len(axes) != 1:
        a, b = np.broadcast_arrays(a, b)
    if measure == "kl":
        kernel, parameters = _kl_kernel(forms, normalize, t)
    else:
        if forms[1] == "probs" != forms[0]:  # either way is the same
            a, b, forms = b, a, (forms[1], forms[0])
        kernel, parameters = _pair_of_forms("js", forms, normalize, t)
    outs = (out if how == "none" else None,)
    (terms,) = _axes.over_rows(
        kernel, (a, b), parameters, axes, where=mask, keepdims=keepdims, outs=outs
    )
    counted = np.size(terms)
    if kept is not None:
        terms, counted = _without_ignored(terms, kept), int(np.count_nonzero(kept))
    batch = rows[0] if rows else 1
    return _reduce.reduced(terms, how, counted, nats, out, dtype, batch)


def _without_ignored(terms: Any, kept: Mask) -> Any:
    """Put 0 for the rows that are not kept: in place, but for a scalar."""
    values = np.asarray(terms)
    values[~kept.reshape(values.shape)] = 0
    return terms if isinstance(terms, np.ndarray) else values[()]


@entry(
    "rows",
    "p",
    "q",
    plain={
        "probs": [("kl_probs", 1)],
        "log_probs": [("kl_logits", 1.0)],
        "logits": [("kl_logits", "temperature")],
    },
)
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
    out: np.ndarray[Any, Any] | None = None,
) -> Any:
    r"""Kullback-Leibler divergence of `q` from `p` along one or several axes, KL(p || q).

    Parameters
    ----------
    p, q : array_like
        Distributions, both in the given `form`, of any floating-point dtype up to float64, computed
        in float32 if both are shorter than that; integers and bool become float64.  Their shapes
        are broadcast against each other, but for the classes, of which both have the same number.
    axis : int, tuple of int or None, default -1
        The axes of the classes; None is all of them.  It names the same axes of both, counted from
        the end: one that is not negative counts in each array's own shape.
    form : {"probs", "log_probs", "logits"} or a pair of them
        What `p` and `q` hold; a pair ``(form_p, form_q)`` if they differ.
    normalize : bool, default True
        Take both as distributions up to scale; the result is never negative then.  Without, the
        plain sum :math:`\sum_i p_i \log(p_i / q_i)` (not for logits).
    temperature : float, default 1.0
        Divides what comes as logits (logits only); from 1e-6 to 1e6.
    where : array_like of bool, optional
        Which classes there are, or which rows count; broadcasts to the shape of `p` and `q`.  With
        length one on `axis`, as ``keep[:, None]`` has on the last, or too few dimensions to reach
        it, it is a mask of rows, and the others are ignored.  Else masked classes have probability
        0; a row that has no other gives nan, or 0 without `normalize`.
    base : float, optional
        Base of the logarithm; nats without it.
    reduction : {"none", "mean", "batchmean", "sum"}
        ``"mean"`` divides the sum by the number of rows that are not ignored (nan if that is 0),
        ``"batchmean"`` by the length of the rows' first axis.  Ignored rows are 0 under ``"none"``.
    keepdims : bool, default False
        Keep the axes, with length one (under ``"none"`` only).
    out : ndarray, optional
        Where to put the result; of its shape and of a dtype that holds it.

    Returns
    -------
    ndarray or scalar
        :math:`\sum_i p_i \log(p_i / q_i)` of each row, or reduced: float64 where `p` or `q` is
        float64, an integer or bool, else float32.

    Raises
    ------
    TypeError, ValueError
        For a wrong dtype, shape, axis, form, option, `where` or `out`.

    See Also
    --------
    js_divergence : symmetric and bounded.
    cross_entropy : with the entropy of `p`, which is constant where `p` is a target.
    rel_entr : the terms, element by element.
    compare : the divergences both ways, and more of each pair of rows, in one read.
    compare_top_k : where only the most likely classes of `p` are known.

    Notes
    -----
    Kullback and Leibler, "On information and sufficiency", 1951; KL(p || q) = H(p, q) - H(p).
    Computed as :math:`\sum_i p_i (u_i - \log(1 + u_i))`, :math:`u_i = (q_i - p_i)/p_i`, whose terms
    are never negative, so that a divergence of 1e-12 keeps its digits.  KL(p || p) is 0.  Both
    arrays are read from memory once, and again from cache.

    :math:`0 \log 0` is 0, also where q is 0; a class with p > 0 and q = 0 gives +inf.  A row with
    a negative probability, one that sums to 0 and one that holds nan give nan; of logits, one of
    -inf and one that holds +inf or nan.

    Relative errors are within 2e-6 in float32 and 1e-13 in float64, of divergences down to 1e-12;
    1e-5 in float32 where rows of more than 256 classes are led by a few, and roundings of hundreds
    of others fall alike.

    A divergence of logits from 1e18 on (float64: 1e148) may be inf.  That of float32 logits loses
    digits at a temperature T other than 1 where x/T exceeds 1e9, and where the offsets of two rows
    are far apart: one of 1e-12 was off by 1.4e-6 of itself at 500 and 1e-5 at 5000, one of 1e-6 by
    2.4e-6 at 1e6.  Float64 probabilities have to sum to a finite float64, and beside logits to one
    that is no subnormal.

    Examples
    --------
    >>> import numpy as np, klce
    >>> round(klce.kl_divergence([1.0, 0.0, 0.0], [0.7, 0.2, 0.1]).item(), 4)
    0.3567
    >>> probs, logits = [0.7, 0.2, 0.1], np.log([0.7, 0.2, 0.1]) + 5.0
    >>> round(klce.kl_divergence(probs, logits, form=("probs", "logits")).item(), 12)
    0.0

    The mean over the rows that count, whatever the others hold:

    >>> p, q = np.array([[0.5, 0.5], [np.nan, 1.0]]), np.array([[0.25, 0.75], [0.5, 0.5]])
    >>> keep = np.array([True, False])
    >>> round(klce.kl_divergence(p, q, where=keep[:, None], reduction="mean").item(), 4)
    0.1438

    The soft part of a distillation loss (Hinton, Vinyals and Dean, "Distilling the knowledge in a
    neural network", 2015): the student's divergence from the teacher at a temperature T, times
    T squared, so that its gradients keep their size whatever T is.

    >>> teacher, student, T = np.array([[4.0, 1.0, 0.0]]), np.array([[3.0, 2.0, 0.0]]), 2.0
    >>> kl = klce.kl_divergence(
    ...     teacher, student, form="logits", temperature=T, reduction="batchmean"
    ... )
    >>> round(float(T**2 * kl), 4)
    0.3348
    """
    return _divergence(
        "kl",
        p,
        q,
        axis,
        form,
        normalize,
        temperature,
        where,
        base,
        reduction,
        keepdims,
        out,
    )


@entry(
    "rows",
    "p",
    "q",
    plain={
        "probs": [("js_probs_probs", 1, 1.0, 1.0)],
        "log_probs": [("js_logits_logits", 1, 1.0, 1.0)],
        "logits": [("js_logits_logits", 1, "temperature", "temperature")],
    },
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
    out: np.ndarray[Any, Any] | None = None,
) -> Any:
    r"""Jensen-Shannon divergence of `p` and `q` along one or several axes.

    Parameters
    ----------
    p, q : array_like
        Distributions, both in the given `form`, of any floating-point dtype up to float64, computed
        in float32 if both are shorter than that; integers and bool become float64.  Their shapes
        are broadcast against each other, but for the classes, of which both have the same number.
    axis : int, tuple of int or None, default -1
        The axes of the classes; None is all of them.  It names the same axes of both, counted from
        the end: one that is not negative counts in each array's own shape.
    form : {"probs", "log_probs", "logits"} or a pair of them
        What `p` and `q` hold; a pair ``(form_p, form_q)`` if they differ.
    normalize : bool, default True
        Take both as distributions up to scale; the result is from 0 to :math:`\log 2` then.
        Without, the plain sum
        :math:`\frac12 \sum_i (p_i \log(p_i/m_i) + q_i \log(q_i/m_i))`,
        :math:`m = (p + q)/2` (not for logits).
    temperature : float, default 1.0
        Divides what comes as logits (logits only); from 1e-6 to 1e6.
    where : array_like of bool, optional
        Which classes there are, or which rows count; broadcasts to the shape of `p` and `q`.  With
        length one on `axis`, as ``keep[:, None]`` has on the last, or too few dimensions to reach
        it, it is a mask of rows, and the others are ignored.  Else masked classes have probability
        0; a row that has no other gives nan, or 0 without `normalize`.
    base : float, optional
        Base of the logarithm; nats without it.
    reduction : {"none", "mean", "batchmean", "sum"}
        ``"mean"`` divides the sum by the number of rows that are not ignored (nan if that is 0),
        ``"batchmean"`` by the length of the rows' first axis.  Ignored rows are 0 under ``"none"``.
    keepdims : bool, default False
        Keep the axes, with length one (under ``"none"`` only).
    out : ndarray, optional
        Where to put the result; of its shape and of a dtype that holds it.

    Returns
    -------
    ndarray or scalar
        :math:`\frac12 (KL(p \| m) + KL(q \| m))`, :math:`m = (p + q)/2`, of each row, or reduced:
        float64 where `p` or `q` is float64, an integer or bool, else float32.  Its square root is a
        metric, the Jensen-Shannon distance.

    Raises
    ------
    TypeError, ValueError
        For a wrong dtype, shape, axis, form, option, `where` or `out`.

    See Also
    --------
    kl_divergence : of one from the other.
    compare : this and more of each pair of rows, in one read.

    Notes
    -----
    Lin, "Divergence measures based on the Shannon entropy", 1991.  With
    :math:`v_i = (q_i - p_i)/(q_i + p_i)` a class gives :math:`(p_i + q_i)/4` times
    :math:`(1 - v_i) \log(1 - v_i) + (1 + v_i) \log(1 + v_i) = v_i^2 + v_i^4/6 + \ldots`: never
    negative, so that a divergence of 1e-12 keeps its digits, which a difference of entropies would
    lose.  That of p and p is 0.  Both arrays are read from memory once, and again from cache.

    :math:`0 \log 0` is 0.  A row with a negative probability, one that sums to 0 and one that holds
    nan give nan; of logits, one of -inf and one that holds +inf or nan.

    Relative errors are those of :func:`kl_divergence`: within 2e-6 in float32 and 1e-13 in float64,
    of divergences down to 1e-12, and 1e-5 in float32 where roundings fall alike.

    That of float32 logits loses digits at a temperature T other than 1 where x/T exceeds 1e9, and
    where the offsets of two rows are far apart, as :func:`kl_divergence` does.  Rows of float64
    probabilities have to sum to 2e-307 or more, and to a finite float64.

    Examples
    --------
    >>> import numpy as np, klce
    >>> klce.js_divergence([1.0, 0.0], [0.0, 1.0], base=2).item()
    1.0
    >>> klce.js_divergence([0.5, 0.5], np.log([1.0, 3.0]), form=("probs", "logits")).round(6).item()
    0.033822
    """
    return _divergence(
        "js",
        p,
        q,
        axis,
        form,
        normalize,
        temperature,
        where,
        base,
        reduction,
        keepdims,
        out,
    )
