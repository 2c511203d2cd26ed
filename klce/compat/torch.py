"""Stand-ins for ``torch.nn.functional``, and ``torch.logsumexp``, for NumPy arrays and CPU tensors.

What comes in as tensors goes out as a tensor, what comes in as arrays goes out as an array.  There
are no gradients: a tensor that asks for one is refused.
"""

from __future__ import annotations

import math
import sys
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

import klce
from klce import _arrays, _reduce, _validate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from klce._typing import Array, DType, Form

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "kl_div",
    "log_softmax",
    "logsumexp",
    "nll_loss",
    "softmax",
    "softmin",
]


# --- tensors --------------------------------------------------------------------------------------


def _is_tensor(x: Any) -> bool:
    """Whether `x` is torch's, for which torch must have been imported."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def _array(x: Any, name: str) -> Array:
    """Return an array over the memory of a tensor, or `x` as an array."""
    if _is_tensor(x) and not sys.modules["torch"].is_grad_enabled():
        x = x.detach()  # asks for no gradient here
    return _arrays.array(x, name)


def _real(x: Any, name: str) -> Array:
    """Return a tensor or array of real numbers, integers too, as an array."""
    array = _array(x, name)
    _arrays.check_dtype(array.dtype, name)
    return array


def _numpy_dtype(dtype: Any) -> DType:
    """Return the NumPy dtype of the same name."""
    name = str(dtype).removeprefix("torch.")
    return _arrays.dtype_of(dtype if name == str(dtype) else name)


def _like(result: Any, given: Any, dtype: DType) -> Any:
    """Return a result in the dtype, as a tensor if what was given is one."""
    with np.errstate(all="ignore"):  # a sum may be beyond float16
        array = np.asarray(result).astype(dtype, copy=False)
    if not _is_tensor(given):
        return array[()]
    torch = sys.modules["torch"]
    if dtype.name == "bfloat16":  # NumPy's own bits
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _is_floating(dtype: DType) -> bool:
    """Whether torch computes in a dtype; not in float8."""
    return dtype.name in ("float16", "bfloat16", "float32", "float64")


def _floating(x: Any, name: str) -> Array:
    """Return a tensor or array of floating numbers as an array."""
    array = _array(x, name)
    if not _is_floating(array.dtype):
        # A RuntimeError, as most of the others are.
        raise NotImplementedError(f"{name} must be of a floating dtype, got {array.dtype}")
    return array


def _promoted(*arrays: Array) -> DType:
    """Return the dtype of a result of several arrays, in which that of a scalar does not count."""
    return _arrays.map_dtype(*([array for array in arrays if array.ndim] or arrays))


def _at_least(x: Array, dtype: DType) -> Array:
    """Return an array in float64 if a result is, which klce computes in what the array has."""
    return x.astype(dtype, copy=False) if dtype == np.float64 else x


# --- maps and logsumexp ---------------------------------------------------------------------------


def _rows(x: Array, dims: tuple[int, ...]) -> Array:
    """Return an array with the dimensions that are named; a scalar has one."""
    rows = np.atleast_1d(x)
    for dim in dims:
        if not -rows.ndim <= dim < rows.ndim:
            raise IndexError(
                f"dim must be from {-rows.ndim} to {rows.ndim - 1} for shape {x.shape}, got {dim}"
            )
    if len({dim % rows.ndim for dim in dims}) < len(dims):
        raise RuntimeError(f"dim must name each dimension once, got {dims}")
    return rows


def _mapped(
    function: Callable[..., Array],
    input: Any,
    dim: int | None,
    dtype: Any,
    name: str,
    stacklevel: int,
) -> Any:
    if dtype is None:
        x = _floating(input, "input")
    else:
        wanted = _numpy_dtype(dtype)
        if not _is_floating(wanted):
            raise RuntimeError(f"dtype must be a floating one, got {dtype}")
        x = _real(input, "input").astype(wanted, copy=False)
    if dim is None:
        dim = 0 if x.ndim in (0, 1, 3) else 1
        warnings.warn(
            f"Implicit dimension choice for {name} has been deprecated. "
            "Change the call to include dim=X as an argument.",
            stacklevel=stacklevel,
        )
    rows = _rows(x, (_validate.integer(dim, "dim"),))
    result = function(rows, dim) if rows.size else rows.copy()
    return _like(result.reshape(x.shape), input, x.dtype)


def softmax(input: Any, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Any:
    r"""Probabilities proportional to exponentials, as ``torch.nn.functional.softmax``.

    Parameters
    ----------
    input : ndarray or Tensor
        Logits, of a floating dtype unless `dtype` is given.
    dim : int, optional
        The dimension of the classes.  Without, 0 for an input of 0, 1 or 3 dimensions, else 1, and
        a warning.
    _stacklevel : int, default 3
        Where that warning points to.
    dtype : dtype, optional
        NumPy's or torch's: convert `input` to this first.

    Returns
    -------
    ndarray or Tensor
        :math:`e^{x_i} / \sum_j e^{x_j}`, of the shape and dtype of `input`.

    Raises
    ------
    RuntimeError
        For an input that is not floating, without `dtype`, or a `dtype` that is not.
    IndexError
        For a `dim` out of bounds.

    Warns
    -----
    UserWarning
        Where `dim` is not given.

    See Also
    --------
    klce.softmax : with a temperature, and in place.

    Examples
    --------
    >>> import numpy as np
    >>> from klce.compat.torch import softmax
    >>> softmax(np.log([1.0, 2.0, 1.0]), dim=0)
    array([0.25, 0.5 , 0.25])
    """
    return _mapped(klce.softmax, input, dim, dtype, "softmax", _stacklevel)


def softmin(input: Any, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Any:
    r"""Softmax of the negated input, as ``torch.nn.functional.softmin``.

    Parameters
    ----------
    input : ndarray or Tensor
        Negative logits, of a floating dtype unless `dtype` is given.
    dim : int, optional
        The dimension of the classes, as for :func:`softmax`.
    _stacklevel : int, default 3
        Where the warning of a missing `dim` points to.
    dtype : dtype, optional
        NumPy's or torch's: convert `input` to this first.

    Returns
    -------
    ndarray or Tensor
        :math:`e^{-x_i} / \sum_j e^{-x_j}`, of the shape and dtype of `input`.

    Raises
    ------
    RuntimeError, IndexError
        As for :func:`softmax`.

    Warns
    -----
    UserWarning
        Where `dim` is not given.

    Examples
    --------
    >>> import numpy as np
    >>> from klce.compat.torch import softmin
    >>> softmin(np.log([2.0, 1.0, 2.0]), dim=0)
    array([0.25, 0.5 , 0.25])
    """
    return _mapped(_softmin, input, dim, dtype, "softmin", _stacklevel)


def _softmin(x: Array, axis: int) -> Array:
    negated = np.negative(x)
    result: Array = klce.softmax(negated, axis, out=negated)
    return result


def log_softmax(input: Any, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Any:
    r"""Logarithm of softmax, as ``torch.nn.functional.log_softmax``.

    Parameters
    ----------
    input : ndarray or Tensor
        Logits, of a floating dtype unless `dtype` is given.
    dim : int, optional
        The dimension of the classes, as for :func:`softmax`.
    _stacklevel : int, default 3
        Where the warning of a missing `dim` points to.
    dtype : dtype, optional
        NumPy's or torch's: convert `input` to this first.

    Returns
    -------
    ndarray or Tensor
        :math:`x_i - \log \sum_j e^{x_j}`, in nats, of the shape and dtype of `input`.

    Raises
    ------
    RuntimeError, IndexError
        As for :func:`softmax`.

    Warns
    -----
    UserWarning
        Where `dim` is not given.

    See Also
    --------
    klce.log_softmax : with a temperature, and in place.

    Examples
    --------
    >>> import numpy as np
    >>> from klce.compat.torch import log_softmax
    >>> log_softmax(np.array([20.0, 0.0]), dim=0)
    array([-2.06115362e-09, -2.00000000e+01])
    """
    return _mapped(klce.log_softmax, input, dim, dtype, "log_softmax", _stacklevel)


def logsumexp(
    input: Any, dim: int | Sequence[int], keepdim: bool = False, *, out: Any = None
) -> Any:
    r"""Logarithm of a sum of exponentials, as ``torch.logsumexp``.

    Parameters
    ----------
    input : ndarray or Tensor
        Numbers; integers and bool become float32.
    dim : int or sequence of int
        The dimensions that are summed over; all of them for an empty sequence.
    keepdim : bool, default False
        Keep the dimensions, with length one.
    out : ndarray or Tensor, optional
        Where to put the result.

    Returns
    -------
    ndarray or Tensor
        :math:`\log \sum_i e^{x_i}`, in nats and in the dtype of `input`.

    Raises
    ------
    IndexError
        For a `dim` out of bounds.
    RuntimeError, TypeError, ValueError
        For a `dim` that is named twice, or an `out` of integers or, an array, of another shape.

    Warns
    -----
    UserWarning
        Where a tensor `out` that is not empty is resized.

    See Also
    --------
    klce.logsumexp : with factors and signs.

    Examples
    --------
    >>> import numpy as np
    >>> from klce.compat.torch import logsumexp
    >>> logsumexp(np.array([[0.0, -40.0]]), dim=(0, 1)).item()
    4.248354255291589e-18
    """
    x = _real(input, "input")
    if not _is_floating(x.dtype):
        x = x.astype(np.float32)
    dims = tuple(dim) if isinstance(dim, tuple | list) else (dim,)
    axes = tuple(_validate.integer(one, "dim") for one in dims)
    rows = _rows(x, axes)
    result = np.asarray(klce.logsumexp(rows, axes or None, keepdims=keepdim))
    if keepdim:
        result = result.reshape(result.shape if x.ndim else ())
    result = _like(result, input, x.dtype)
    return result if out is None else _put(result, out)


def _put(result: Any, out: Any) -> Any:
    """Fill `out`, as torch does: a tensor may be of another shape, and loses it."""
    if not (_is_tensor(out) if _is_tensor(result) else isinstance(out, np.ndarray)):
        raise TypeError(f"out must be as input, an array or a tensor, got {type(out).__name__}")
    floating = out.is_floating_point() if _is_tensor(out) else _is_floating(out.dtype)
    if not floating:
        raise RuntimeError(f"out must be of a floating dtype, got {out.dtype}")
    if out.shape != result.shape:
        if not _is_tensor(out):
            raise ValueError(f"out must have the shape {result.shape}, got {out.shape}")
        if out.numel():
            warnings.warn(
                f"out was resized from the shape {tuple(out.shape)} to {tuple(result.shape)}, "
                "which torch has deprecated",
                stacklevel=3,
            )
        out.resize_(result.shape)
    out[...] = result
    return out


# --- losses ---------------------------------------------------------------------------------------


def _weighted(
    function: Callable[..., Any],
    x: Array,
    target: Array,
    weight: Any,
    ignore_index: int,
    how: str,
    **options: Any,
) -> Any:
    """Return a loss of class weights.

    torch takes negative weights, and klce does not; but the loss is linear in them.
    """
    axis = 0 if x.ndim == 1 else 1
    soft = function is klce.cross_entropy and target.shape == x.shape
    if not soft:
        if target.size and target.dtype.kind not in "iu":
            raise RuntimeError(f"target must hold integers, class indices, got {target.dtype}")
        if x.ndim == 1 and target.shape == (1,):  # one row, with or without an axis
            target = target.reshape(())
        if x.ndim > 1 and target.shape[:1] == x.shape[:1] and target.shape[1:] != x.shape[2:]:
            raise RuntimeError(
                f"target must have the shape of input without the classes, "
                f"{x.shape[:1] + x.shape[2:]}, got {target.shape}"
            )

    def loss(w: Array | None, how: str) -> Any:
        return function(
            x, target, axis=axis, weight=w, ignore_index=ignore_index, reduction=how, **options
        )

    w = None if weight is None else _real(weight, "weight")
    if w is not None and x.ndim and w.shape != x.shape[axis : axis + 1]:
        raise RuntimeError(
            f"weight must have one number a class, {x.shape[axis : axis + 1]}, got {w.shape}"
        )
    if w is None or not _negative(w):
        return loss(w, how)
    parts = [loss(np.maximum(part, 0), "sum" if how == "mean" else how) for part in (w, -w)]
    with np.errstate(all="ignore"):
        difference = parts[0] - parts[1]
        if how != "mean":
            return difference
        if soft:
            return difference * (x.shape[axis] / np.float64(x.size))
        return difference / w[target[target != ignore_index]].sum(dtype=np.float64)


def _how(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """Return the reduction, also from the two flags that came before it."""
    if size_average is None and reduce is None:
        return reduction
    how = "none" if reduce is False else "sum" if size_average is False else "mean"
    warnings.warn(
        f"size_average and reduce args will be deprecated, please use reduction={how!r} instead.",
        stacklevel=3,
    )
    return how


def nll_loss(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Any:
    r"""Negative log-likelihood of class indices, as ``torch.nn.functional.nll_loss``.

    Parameters
    ----------
    input : ndarray or Tensor, shape (C,), (N, C) or (N, C, d1, ..., dK)
        Log-probabilities.
    target : ndarray or Tensor of int, shape () or (1,), (N,) or (N, d1, ..., dK)
        Class indices.
    weight : ndarray or Tensor, shape (C,), optional
        A weight for each class.
    size_average, reduce : bool, optional
        Deprecated: what `reduction` says.
    ignore_index : int, default -100
        Rows with this target do not count; their loss is 0 under ``"none"``.
    reduction : {"mean", "sum", "none"}, default "mean"
        ``"mean"`` divides by the sum of the weights of the targets that count; nan if none do.

    Returns
    -------
    ndarray or Tensor
        :math:`-w_y x_y`, in nats and in the dtype of `input`; a scalar unless `reduction` is
        ``"none"``.

    Raises
    ------
    IndexError
        For a target out of range, with its row.
    RuntimeError, TypeError, ValueError
        For a wrong dtype, shape or option.

    Warns
    -----
    UserWarning
        For `size_average` and `reduce`.

    See Also
    --------
    klce.nll_loss : with the classes on any axis.

    Examples
    --------
    >>> import numpy as np
    >>> from klce.compat.torch import nll_loss
    >>> nll_loss(np.array([[-1.0, -2.0], [-3.0, -4.0]]), np.array([0, 1])).item()
    2.5
    """
    how = _how(size_average, reduce, reduction)
    x, t = _floating(input, "input"), _array(target, "target")
    loss = _weighted(klce.nll_loss, x, t, weight, ignore_index, how)
    return _like(loss, input, x.dtype)


def cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    r"""Cross-entropy of logits and targets, as ``torch.nn.functional.cross_entropy``.

    Parameters
    ----------
    input : ndarray or Tensor, shape (C,), (N, C) or (N, C, d1, ..., dK)
        Logits.
    target : ndarray or Tensor
        Class indices, of shape () or (1,), (N,) or (N, d1, ..., dK); or probabilities of the
        classes, of the shape of `input`.
    weight : ndarray or Tensor, shape (C,), optional
        A weight for each class.
    size_average, reduce : bool, optional
        Deprecated: what `reduction` says.
    ignore_index : int, default -100
        Rows with this target do not count; their loss is 0 under ``"none"``.
    reduction : {"mean", "sum", "none"}, default "mean"
        ``"mean"`` divides by the sum of the weights of the targets that count (nan if none do), or
        by the number of rows where targets are probabilities.
    label_smoothing : float, default 0.0
        The share of the target that is spread over all classes, from 0 to 1.

    Returns
    -------
    ndarray or Tensor
        :math:`-\sum_c w_c t_c \log \mathrm{softmax}(x)_c`, in nats and in the dtype of `input`, or
        of it, probabilities and weights together; a scalar unless `reduction` is ``"none"``.

    Raises
    ------
    IndexError
        For a target out of range, with its row.
    RuntimeError, TypeError, ValueError
        For a wrong dtype, shape or option.

    Warns
    -----
    UserWarning
        For `size_average` and `reduce`.

    See Also
    --------
    klce.cross_entropy : with a temperature, masks, a z-loss, and the classes on any axis.

    Examples
    --------
    >>> import numpy as np
    >>> from klce.compat.torch import cross_entropy
    >>> cross_entropy(np.array([[20.0, 0.0]]), np.array([0])).item()
    2.061153620314381e-09
    """
    how = _how(size_average, reduce, reduction)
    x, t = _floating(input, "input"), _array(target, "target")
    if not 0 <= _validate.real(label_smoothing, "label_smoothing") <= 1:
        raise RuntimeError(f"label_smoothing must be from 0 to 1, got {label_smoothing!r}")
    dtype, ignored = x.dtype, ignore_index
    if t.shape == x.shape:
        if not _is_floating(t.dtype):
            raise RuntimeError(
                f"target must be of a floating dtype where it has the shape of input, got {t.dtype}"
            )
        if _validate.integer(ignore_index, "ignore_index") >= 0:
            raise RuntimeError(
                f"ignore_index belongs to class indices, got {ignore_index} with a target of "
                "probabilities"
            )
        ignored = -100
        w = t if weight is None else _array(weight, "weight")
        dtype = _promoted(x, t, w if _is_floating(w.dtype) else t)
        x = _at_least(x, dtype)
    loss = _weighted(
        klce.cross_entropy, x, t, weight, ignored, how, label_smoothing=label_smoothing
    )
    return _like(loss, input, dtype)


def kl_div(
    input: Any,
    target: Any,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Any:
    r"""Terms of a Kullback-Leibler divergence, as ``torch.nn.functional.kl_div``.

    Parameters
    ----------
    input : ndarray or Tensor
        Log-probabilities of Q.
    target : ndarray or Tensor
        Probabilities of P, or their logarithms; of a shape that broadcasts with `input`.
    size_average, reduce : bool, optional
        Deprecated: what `reduction` says.
    reduction : {"mean", "batchmean", "sum", "none"}, default "mean"
        ``"mean"`` divides by the number of elements, ``"batchmean"`` by the length of the first
        dimension; KL(P || Q) needs the latter.
    log_target : bool, default False
        `target` holds logarithms.

    Returns
    -------
    ndarray or Tensor
        :math:`p_i (\log p_i - \log q_i)`, in nats and in the dtype of `input` and `target`
        together; a scalar unless `reduction` is ``"none"``.

    Raises
    ------
    RuntimeError, TypeError, ValueError
        For a wrong dtype, shape or option.

    Warns
    -----
    UserWarning
        For ``reduction="mean"``, and for `size_average` and `reduce`.

    See Also
    --------
    klce.kl_divergence : over rows, in every form, with sums that cannot be negative.

    Notes
    -----
    As in torch, a class that neither has is nan: p = 0 where log q is -inf, or log p = -inf.

    Examples
    --------
    >>> import numpy as np
    >>> from klce.compat.torch import kl_div
    >>> log_q, p = np.log([[0.5, 0.5]]), np.array([[0.25, 0.75]])
    >>> round(kl_div(log_q, p, reduction="batchmean").item(), 4)
    0.1308
    """
    how = _how(size_average, reduce, reduction)
    if how == "mean" and size_average is None and reduce is None:
        warnings.warn(
            'reduction="mean" divides by the number of elements; KL(P || Q) is the mean over the '
            'batch, reduction="batchmean"',
            stacklevel=2,
        )
    _reduce.reduction(how, batchmean=True)
    log_q, given = _floating(input, "input"), _floating(target, "target")
    batch = log_q.shape[0] if log_q.ndim else 1
    dtype = _promoted(log_q, given)
    try:
        log_q, p = np.broadcast_arrays(log_q, given)
    except ValueError:
        raise RuntimeError(
            f"target must have a shape that broadcasts with {log_q.shape}, that of input, "
            f"got {given.shape}"
        ) from None
    form: tuple[Form, Form] = ("log_probs" if log_target else "probs", "log_probs")
    undefined = p == -np.inf if log_target else (p == 0) & (log_q == -np.inf)
    count = {"none": 1, "sum": 1, "mean": log_q.size, "batchmean": batch}[how]
    total = math.nan
    if how != "none" and not undefined.any():
        # One row of all elements: their sum.
        total = klce.kl_divergence(p.ravel(), log_q.ravel(), form=form, normalize=False)
    if how == "none" or (log_target and not (undefined.any() or math.isfinite(total))):
        # One class a row: its term alone.
        terms = np.asarray(
            klce.kl_divergence(
                p[..., np.newaxis], log_q[..., np.newaxis], form=form, normalize=False
            )
        )
        if log_target:
            terms = _finite_terms(terms, p, log_q)
        if how == "none":
            return _like(np.where(undefined, np.nan, terms), input, dtype)
        total = terms.sum(dtype=np.float64)
    with np.errstate(all="ignore"):
        result = np.asarray(total / np.float64(count))
    return _like(result, input, dtype)


def _finite_terms(terms: Array, log_p: Array, log_q: Array) -> Array:
    """Compute again what is not finite though the logarithms are: of 1e19 or more."""
    far = ~np.isfinite(terms) & np.isfinite(log_p) & np.isfinite(log_q)
    if far.any():
        a, b = log_p[far].astype(terms.dtype), log_q[far].astype(terms.dtype)
        with np.errstate(all="ignore"):
            terms[far] = np.exp(a) * (a - b)
    return terms


def binary_cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Any:
    r"""Cross-entropy of binary outcomes, as ``torch.nn.functional.binary_cross_entropy``.

    Parameters
    ----------
    input : ndarray or Tensor
        Probabilities of the outcome 1.
    target : ndarray or Tensor
        Outcomes, or their probabilities, of the shape of `input`.
    weight : ndarray or Tensor, optional
        A weight for each element, of a shape that broadcasts with `target`.
    size_average, reduce : bool, optional
        Deprecated: what `reduction` says.
    reduction : {"mean", "sum", "none"}, default "mean"
        ``"mean"`` divides by the number of elements.

    Returns
    -------
    ndarray or Tensor
        :math:`-w (t \log p + (1 - t) \log(1 - p))`, in nats and in the dtype of `input`, with
        logarithms of at least -100; a scalar unless `reduction` is ``"none"``.

    Raises
    ------
    RuntimeError
        For an input or a target outside [0, 1].
    TypeError, ValueError
        For a wrong dtype, shape or option.

    Warns
    -----
    UserWarning
        For `size_average` and `reduce`.

    See Also
    --------
    klce.binary_cross_entropy : without the bound of 100.

    Examples
    --------
    >>> import numpy as np
    >>> from klce.compat.torch import binary_cross_entropy
    >>> binary_cross_entropy(np.array([0.0, 1.0]), np.array([1.0, 1.0]), reduction="none")
    array([100.,   0.])
    """
    how = _reduce.reduction(_how(size_average, reduce, reduction))
    p, t, w = _outcomes(input, target, weight)
    if p.size and not (p.min() >= 0 and p.max() <= 1):
        raise RuntimeError(
            f"all elements of input should be between 0 and 1, got {p.min()} to {p.max()}"
        )
    if t.size and not (t.min() >= 0 and t.max() <= 1):
        raise RuntimeError(
            f"all elements of target should be between 0 and 1, got {t.min()} to {t.max()}"
        )
    # Logarithms below -100: of p itself, and of 1 - p where that is 0.  In 16 bits e^-100 is 0.
    no_p, no_rest = (p == 0) | (p < math.exp(-100)), p == 1
    if not (no_p.any() or no_rest.any() or _negative(w)):
        loss = klce.binary_cross_entropy(p, t, form="probs", weight=w, reduction=how)
        return _like(loss, input, p.dtype)
    terms = np.asarray(klce.binary_cross_entropy(p, t, form="probs", reduction="none"))
    with np.errstate(all="ignore"):
        y = t.astype(terms.dtype)
        terms = np.where(no_p, 100 * y + (1 - y) * p, np.where(no_rest, 100 * (1 - y), terms))
    return _like(_reduced(terms, w, how), input, p.dtype)


def _negative(weight: Array | None) -> bool:
    return weight is not None and bool((weight < 0).any())


def _reduced(terms: Array, weight: Array | None, how: str) -> Any:
    """Weigh the terms of a loss and reduce them, in float64."""
    with np.errstate(all="ignore"):
        if weight is not None:
            terms = terms * weight
        if how == "none":
            return terms
        total = terms.sum(dtype=np.float64)
        return total if how == "sum" else total / np.float64(terms.size)


def _outcomes(input: Any, target: Any, weight: Any) -> tuple[Array, Array, Array | None]:
    """Return predictions, outcomes of the same shape, and weights broadcast to it."""
    x, t = _floating(input, "input"), _floating(target, "target")
    if x.shape != t.shape:
        raise ValueError(f"target must have the shape of input, {x.shape}, got {t.shape}")
    return x, t, None if weight is None else _spread(weight, "weight", x.shape)


def _spread(weight: Any, name: str, shape: tuple[int, ...]) -> Array:
    """Return weights broadcast to what they weigh."""
    w = _real(weight, name)
    try:
        return np.broadcast_to(w, shape)
    except ValueError:
        raise RuntimeError(
            f"{name} must have a shape that broadcasts to {shape}, got {w.shape}"
        ) from None


def binary_cross_entropy_with_logits(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Any = None,
) -> Any:
    r"""Cross-entropy of logits, as ``torch.nn.functional.binary_cross_entropy_with_logits``.

    Parameters
    ----------
    input : ndarray or Tensor
        Logits of the outcome 1.
    target : ndarray or Tensor
        Outcomes, or their probabilities, of the shape of `input`.
    weight : ndarray or Tensor, optional
        A weight for each element, of a shape that broadcasts with `target`.
    size_average, reduce : bool, optional
        Deprecated: what `reduction` says.
    reduction : {"mean", "sum", "none"}, default "mean"
        ``"mean"`` divides by the number of elements.
    pos_weight : ndarray or Tensor, optional
        A weight for the outcome 1, of a shape that broadcasts with `target`.

    Returns
    -------
    ndarray or Tensor
        :math:`w ((1 - t) x + (1 + (u - 1) t) \log(1 + e^{-x}))`, u being `pos_weight`, in nats and
        in the dtype of `target`; a scalar unless `reduction` is ``"none"``.

    Raises
    ------
    RuntimeError, TypeError, ValueError
        For a wrong dtype, shape or option.

    Warns
    -----
    UserWarning
        For `size_average` and `reduce`.

    See Also
    --------
    klce.binary_cross_entropy : from probabilities too.

    Examples
    --------
    >>> import numpy as np
    >>> from klce.compat.torch import binary_cross_entropy_with_logits
    >>> binary_cross_entropy_with_logits(np.array([40.0]), np.array([1.0])).item()
    4.248354255291589e-18
    """
    how = _reduce.reduction(_how(size_average, reduce, reduction))
    x, t, w = _outcomes(input, target, weight)
    x = _at_least(x, t.dtype)
    positive = None if pos_weight is None else _array(pos_weight, "pos_weight")
    if positive is not None:
        _spread(positive, "pos_weight", x.shape)  # it may; it is looked at as it is
    if not (_negative(w) or _negative(positive)):
        loss = klce.binary_cross_entropy(
            x, t, form="logits", weight=w, pos_weight=positive, reduction=how
        )
        return _like(loss, input, t.dtype)
    least = None if positive is None else np.maximum(positive, 0)
    terms = klce.binary_cross_entropy(x, t, form="logits", pos_weight=least, reduction="none")
    if positive is not None and _negative(positive):
        # klce takes no negative weights; but the loss is linear in them.
        losses = klce.binary_cross_entropy(x, np.ones_like(t), form="logits", reduction="none")
        with np.errstate(all="ignore"):
            factors = np.minimum(positive, 0).astype(losses.dtype) * t.astype(losses.dtype)
            terms = terms + np.where(factors == 0, 0, factors * losses)
    return _like(_reduced(terms, w, how), input, t.dtype)
