"""Stand-ins for scikit-learn: ``log_loss`` and ``d2_log_loss_score`` of ``sklearn.metrics``.

Labels are found, ordered and checked as scikit-learn does it; the losses are klce's.
"""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

import klce
from klce import _arrays

if TYPE_CHECKING:
    from collections.abc import Collection

    from klce._typing import Array, ArrayLike, DType

__all__ = ["d2_log_loss_score", "log_loss"]


def log_loss(
    y_true: ArrayLike,
    y_proba: ArrayLike | None = None,
    *,
    normalize: bool = True,
    sample_weight: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    y_pred: Any = "deprecated",
) -> float:
    r"""Cross-entropy of predicted probabilities and labels, as ``sklearn.metrics.log_loss``.

    Parameters
    ----------
    y_true : array_like, shape (n,) or (n, k)
        Labels: numbers or strings.  Or, with k columns, 1 for the classes that a row has, else 0.
    y_proba : array_like, shape (n, k) or (n,)
        Probabilities of the classes, in the order of the sorted labels; of the second of two
        classes where there is one column.  They are clipped to [eps, 1 - eps] of their dtype.
    normalize : bool, default True
        The mean over the rows; else their sum.
    sample_weight : array_like, shape (n,), optional
        A weight for each row.
    labels : array_like, optional
        The labels there may be; those of `y_true` by default.  Not for an indicator matrix.
    y_pred : array_like, deprecated
        The former name of `y_proba`.

    Returns
    -------
    float
        :math:`-\sum_i w_i \log p_{i, y_i}` in nats, divided by :math:`\sum_i w_i` where
        `normalize` is set.

    Raises
    ------
    ValueError, TypeError
        For probabilities outside [0, 1], labels that do not fit, lengths that differ, or weights
        that are all 0.
    ZeroDivisionError
        For other weights that sum to 0, with `normalize`.

    Warns
    -----
    UserWarning
        Where rows of `y_proba` do not sum to 1, or `labels` are not sorted.
    FutureWarning
        For `y_pred`.

    See Also
    --------
    klce.cross_entropy : from class indices, and from logits.

    Examples
    --------
    >>> from klce.compat.sklearn import log_loss
    >>> round(log_loss(["no", "yes"], [[0.75, 0.25], [0.5, 0.5]]), 4)
    0.4904
    """
    proba = _renamed(y_proba, y_pred)
    _check_flag(normalize, "normalize", "log_loss")
    target, probabilities, weights = _checked(y_true, proba, sample_weight, labels)
    return _averaged(_losses(target, probabilities), weights, normalize)


def d2_log_loss_score(
    y_true: ArrayLike,
    y_proba: ArrayLike | None = None,
    *,
    sample_weight: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    y_pred: Any = "deprecated",
) -> float:
    r"""Fraction of the log loss explained, as ``sklearn.metrics.d2_log_loss_score``.

    Parameters
    ----------
    y_true : array_like, shape (n,) or (n, k)
        Labels, as for :func:`log_loss`.
    y_proba : array_like, shape (n, k) or (n,)
        Probabilities, as for :func:`log_loss`.
    sample_weight : array_like, shape (n,), optional
        A weight for each row.
    labels : array_like, optional
        The labels there may be; those of `y_true` by default.  Not for an indicator matrix.
    y_pred : array_like, deprecated
        The former name of `y_proba`.

    Returns
    -------
    float
        One less the quotient of two log losses: that of `y_proba`, and that of the frequencies of
        the classes in `y_true`.  1 is best; 0 is no better than the frequencies.

    Raises
    ------
    ValueError, TypeError, ZeroDivisionError
        As for :func:`log_loss`.

    Warns
    -----
    UndefinedMetricWarning
        For fewer than two rows, whose score is nan; a UserWarning if scikit-learn is not imported.
    UserWarning, FutureWarning
        As for :func:`log_loss`.

    See Also
    --------
    klce.cross_entropy : the losses.

    Examples
    --------
    >>> from klce.compat.sklearn import d2_log_loss_score
    >>> round(d2_log_loss_score([0, 1, 1], [0.25, 0.75, 0.75]), 4)
    0.548
    """
    proba = _renamed(y_proba, y_pred)
    _check_lengths(proba, y_true, sample_weight)
    if _length(proba) < 2:
        category = _of_sklearn("sklearn.exceptions", "UndefinedMetricWarning", UserWarning)
        message = "D^2 score is not well-defined with less than two samples."
        warnings.warn(message, category, stacklevel=2)
        return float("nan")
    target, probabilities, weights = _checked(y_true, proba, sample_weight, labels)
    frequencies = _frequencies(target, weights, probabilities.shape[1])
    explained = _averaged(_losses(target, probabilities), weights, False)
    total = _averaged(
        _losses(target, np.broadcast_to(frequencies, probabilities.shape)), weights, False
    )
    return 1 - explained / total


# --- the numbers ----------------------------------------------------------------------------------


def _losses(target: Array, probabilities: Array) -> Array:
    """Cross-entropy of each row with its class index, or with its row of zeros and ones."""
    eps = np.finfo(probabilities.dtype).eps
    least, most = eps, probabilities.dtype.type(1) - eps
    if target.ndim == 2:
        clipped = np.clip(probabilities, least, most)
        result = klce.cross_entropy(
            clipped, target.astype(clipped.dtype), form="probs", reduction="none"
        )
    else:
        # To clip the loss is to clip the probability, without a copy of the array.
        bounds = klce.information([float(most), float(least)])
        losses = klce.cross_entropy(probabilities, target, form="probs", reduction="none")
        result = np.clip(losses, *bounds)
    return np.asarray(result)


def _averaged(losses: Array, weights: Array | None, normalize: bool) -> float:
    losses = losses.astype(np.float64)
    if normalize:
        return float(np.average(losses, weights=weights))
    return float(losses.sum() if weights is None else np.dot(losses, weights))


def _frequencies(target: Array, weights: Array | None, classes: int) -> Array:
    """Return the weighted share of each class among the targets, in float64."""
    if target.ndim == 2:
        return np.asarray(np.average(target.astype(np.float64), axis=0, weights=weights))
    counts = np.bincount(target, weights, minlength=classes)
    total = counts.sum()
    if total == 0:
        raise ZeroDivisionError("Weights sum to zero, can't be normalized")
    # Weights below 0 may leave a share below 0, whose loss would be nan: least of all is 0.
    return np.asarray(np.maximum(counts / total, 0))


# --- what scikit-learn checks, and how it says so -------------------------------------------------


def _of_sklearn(module: str, name: str, base: type) -> Any:
    """Return a class of scikit-learn's if the program has imported it, else its `base`.

    So its warnings and errors can be caught by their own names without importing it here: who
    holds such a name has imported it.
    """
    return getattr(sys.modules.get(module), name, base)


def _renamed(y_proba: Any, y_pred: Any) -> Any:
    if isinstance(y_pred, str) and y_pred == "deprecated":
        if y_proba is None:
            raise ValueError("y_proba must be given, got None")
        return y_proba
    if y_proba is not None:
        raise ValueError(
            "Cannot use both `y_pred` and `y_proba`. `y_pred` is deprecated, use `y_proba` instead."
        )
    warnings.warn(
        "`y_pred` was renamed to `y_proba` in version 1.9 and will be removed "
        "in 1.11. Use `y_proba` instead.",
        FutureWarning,
        stacklevel=3,
    )
    return y_pred


def _check_flag(value: Any, name: str, function: str) -> None:
    if not isinstance(value, bool | np.bool_):
        error = _of_sklearn("sklearn.utils._param_validation", "InvalidParameterError", ValueError)
        raise error(f"The {name!r} parameter of {function} must be a bool, got {value!r} instead.")


def _length(x: Any) -> int:
    shape = getattr(x, "shape", None)
    if shape is not None:
        if not len(shape):
            raise TypeError(f"input should have at least 1 dimension, got the scalar {x!r}")
        return int(shape[0])
    if not hasattr(x, "__len__"):
        raise TypeError(f"Expected sequence or array-like, got {type(x)}")
    return len(x)


def _check_lengths(*arrays: Any) -> None:
    lengths = [_length(x) for x in arrays if x is not None]
    if len(set(lengths)) > 1:
        raise ValueError(f"Found input variables with inconsistent numbers of samples: {lengths!r}")


def _check_finite(x: Array, name: str) -> None:
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        what = "NaN" if np.isnan(x).any() else f"infinity or a value too large for {x.dtype!r}"
        raise ValueError(f"Input {name} contains {what}.")


def _checked(
    y_true: Any, y_proba: Any, sample_weight: Any, labels: Any
) -> tuple[Array, Array, Array | None]:
    """Return class indices (or rows of 0 and 1), probabilities with two dimensions, and weights."""
    probabilities = _numbers(y_proba, "y_proba", _arrays.NATIVE)
    if probabilities.ndim not in (1, 2) or not probabilities.size:
        raise ValueError(
            "y_proba must have one or two dimensions and at least one row, "
            f"got shape {probabilities.shape}"
        )
    _check_finite(probabilities, "y_proba")
    if probabilities.max() > 1:
        raise ValueError(f"y_prob contains values greater than 1: {probabilities.max()}")
    if probabilities.min() < 0:
        raise ValueError(f"y_prob contains values lower than 0: {probabilities.min()}")
    _check_lengths(probabilities, y_true, sample_weight)
    weights = None if sample_weight is None else _weights(sample_weight)

    target, classes = _indices(y_true, labels)
    if probabilities.ndim == 1:
        probabilities = probabilities[:, np.newaxis]
    if probabilities.shape[1] == 1:
        probabilities = np.concatenate([1 - probabilities, probabilities], axis=1)
    sums = probabilities.sum(axis=1)
    if not np.allclose(sums, 1, rtol=np.sqrt(np.finfo(sums.dtype).eps)):
        warnings.warn(
            "The y_prob values do not sum to one. Make sure to pass probabilities.",
            UserWarning,
            stacklevel=3,
        )
    if len(classes) != probabilities.shape[1]:
        if labels is None:
            raise ValueError(
                "y_true and y_prob contain different number of classes: "
                f"{len(classes)} vs {probabilities.shape[1]}. Please provide the true labels "
                "explicitly through the labels argument. "
                f"Classes found in y_true: {classes}"
            )
        raise ValueError(
            "The number of classes in labels is different from that in y_prob. "
            f"Classes found in labels: {classes}"
        )
    return target, probabilities, weights


def _numbers(values: Any, name: str, native: Collection[DType] | None = None) -> Array:
    """Return real numbers, in float64 unless they are of a dtype that is taken as it is."""
    array = _array(values, name)
    taken = array.dtype.kind in "fiub" if native is None else array.dtype in native
    try:
        return array if taken else array.astype(np.float64)
    except ValueError:
        raise ValueError(f"{name} must hold numbers, got {array.dtype}") from None


def _array(values: Any, name: str) -> Array:
    """Return an array that is real, and has no mask, which would be lost without a word."""
    if np.ma.is_masked(values):
        raise ValueError(f"{name} must have no masked elements")
    array = np.asarray(values)
    if array.dtype.kind == "c":
        raise ValueError(f"{name} must be real, got {array.dtype}")
    return array


def _weights(sample_weight: Any) -> Array:
    weights = _numbers(sample_weight, "sample_weight")
    if weights.ndim != 1:
        raise ValueError(f"Sample weights must be 1D array or scalar, got {weights.ndim}D array.")
    _check_finite(weights, "sample_weight")
    if not weights.any():
        raise ValueError("Sample weights must contain at least one non-zero number.")
    return weights


def _indices(y_true: Any, labels: Any) -> tuple[Array, Array]:
    """Return the index of each row's label among the sorted classes, and the classes.

    Or, for an array of several columns of two values, the array itself: an indicator matrix.
    """
    y = _labels(y_true, "y_true")
    if y.ndim == 2 and y.shape[1] > 1:
        if y.dtype.kind not in "biuf" or len(np.unique(y)) > 2:
            raise ValueError("Multioutput target data is not supported with label binarization")
        if labels is not None:
            raise ValueError(
                f"labels must not be given where y_true is an indicator matrix, got {labels!r}"
            )
        return y, np.arange(y.shape[1])
    y = y.reshape(-1)
    if labels is None:
        classes, index = np.unique(y, return_inverse=True)
        if len(classes) == 1:
            raise ValueError(
                f"y_true contains only one label ({classes[0]}). Please provide the list of all "
                "expected class labels explicitly through the labels argument."
            )
        return index, classes
    declared = _labels(labels, "labels").reshape(-1)
    classes = np.unique(declared)
    if len(classes) != len(declared):
        raise ValueError(f"labels must not hold one twice, got {labels!r}")
    if not np.array_equal(classes, declared):
        warnings.warn(
            f"Labels passed were {labels}. But this function assumes labels are ordered "
            f"lexicographically. Pass the ordered labels={classes.tolist()} and ensure that the "
            "columns of y_prob correspond to this ordering.",
            UserWarning,
            stacklevel=4,
        )
    if not np.isin(y, classes).all():
        undeclared = set(y.tolist()) - set(declared.tolist())
        raise ValueError(
            f"y_true contains values {undeclared} not belonging to the passed labels {labels}."
        )
    if len(classes) == 1:
        raise ValueError(f"The labels array needs to contain at least two labels, got {classes}.")
    return np.searchsorted(classes, y), classes


def _labels(values: Any, name: str) -> Array:
    y = _array(values, name)
    if not y.size or y.ndim not in (1, 2):
        raise ValueError(f"{name} must have one or two dimensions, got shape {y.shape}")
    if y.dtype.kind == "S" or isinstance(y.flat[0], bytes):
        raise TypeError(f"{name} must hold strings or numbers, got bytes")
    if y.dtype == object and not isinstance(y.flat[0], str):
        raise ValueError(f"Unknown label type for {name}: {values!r}")
    if y.dtype.kind == "f":
        _check_finite(y, name)
        if (y != np.floor(y)).any():
            raise ValueError(f"Unknown label type for {name}: continuous")
    return y
