"""Losses against class indices: negative log-likelihood and cross-entropy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from klce import _ufuncs, _validate
from klce._lazy import lazily
from klce._validate import Form

__all__ = ["cross_entropy", "nll_loss"]

_REDUCTIONS = ("none", "mean", "sum")


def _loss(
    kernel: Any,
    parameters: tuple[float, ...],
    rows: _validate.Floats,
    target: ArrayLike,
    axis: int,
    ignore_index: int,
    base: float | None,
    reduction: str,
    out: np.ndarray[Any, Any] | None,
    name: str,
) -> Any:
    """Validate what all losses share, run the kernel over the rows and reduce."""
    axis = _validate.class_axis(axis, rows, name)
    how = _validate.reduction(reduction, _REDUCTIONS)
    nats = _validate.unit(base)
    shape = _validate.rows_of(rows, axis)
    out = _validate.output(out, shape if how == "none" else (), _validate.row_dtype(rows))
    index, ignored, counted = _validate.labels(target, shape, rows.shape[axis], ignore_index)
    axes = [(axis,), *[()] * (2 + len(parameters) + 1)]
    losses = _validate.called(
        kernel, rows, index, ignored, *parameters, axes=axes, out=out if how == "none" else None
    )
    return _validate.reduced(losses, how, counted, nats, out)


@lazily("rows", "log_probs", "target")
def nll_loss(
    log_probs: ArrayLike,
    target: ArrayLike,
    *,
    axis: int = -1,
    ignore_index: int = -100,
    base: float | None = None,
    reduction: str = "mean",
    out: np.ndarray[Any, Any] | None = None,
) -> Any:
    r"""Negative log-likelihood: minus the log-probability of each row's target class.

    Parameters
    ----------
    log_probs : array_like
        Log-probabilities, float32 or float64; any values are taken as they are.
    target : array_like of int
        A class index for each row: of the shape of `log_probs` without `axis`.
    axis : int, default -1
        The axis of the classes (torch's is 1).
    ignore_index : int, default -100
        Rows with this label are 0 under ``"none"`` and do not count in the mean.
    base : float, optional
        Base of the logarithm; nats without it.
    reduction : {"mean", "sum", "none"}
        ``"mean"`` divides by the number of rows that are not ignored; nan if there are none.
    out : ndarray, optional
        Where to put the result: of the rows' shape under ``"none"``, else 0-d.

    Returns
    -------
    scalar, or ndarray under ``"none"``
        In the dtype of `log_probs`.

    Raises
    ------
    IndexError
        For a label out of range, with its value and row; nothing is written then.
    TypeError, ValueError
        For a wrong dtype, shape, axis or option.

    Examples
    --------
    >>> import numpy as np, klce
    >>> klce.nll_loss(np.log([[0.5, 0.5], [0.25, 0.75]]), [0, 0], base=2).item()
    1.5
    """
    rows = _validate.floats(log_probs, "log_probs")
    return _loss(
        _ufuncs.nll, (), rows, target, axis, ignore_index, base, reduction, out, "log_probs"
    )


@lazily("rows", "q", "target")
def cross_entropy(
    q: ArrayLike,
    target: ArrayLike,
    *,
    axis: int = -1,
    form: Form = "logits",
    ignore_index: int = -100,
    z_loss: float = 0.0,
    temperature: float = 1.0,
    base: float | None = None,
    reduction: str = "mean",
    out: np.ndarray[Any, Any] | None = None,
) -> Any:
    r"""Cross-entropy of predictions against class indices.

    ``cross_entropy(logits, y)`` is ``nll_loss(log_softmax(logits), y)`` in one read of the logits,
    without the array in between.

    Parameters
    ----------
    q : array_like
        The predictions, float32 or float64, in the given `form`.
    target : array_like of int
        A class index for each row: of the shape of `q` without `axis`.
    axis : int, default -1
        The axis of the classes (torch's is 1).
    form : {"logits", "log_probs", "probs"}
        What `q` holds.  Log-probabilities and probabilities are taken as they are, not normalised.
    ignore_index : int, default -100
        Rows with this label are 0 under ``"none"`` and do not count in the mean.
    z_loss : float, default 0.0
        Adds ``z_loss * logsumexp(row)**2`` to each row's loss (logits only); not negative.
    temperature : float, default 1.0
        Divides the logits (logits only); from 1e-6 to 1e6.
    base : float, optional
        Base of the logarithm; nats without it.
    reduction : {"mean", "sum", "none"}
        ``"mean"`` divides by the number of rows that are not ignored; nan if there are none.
    out : ndarray, optional
        Where to put the result: of the rows' shape under ``"none"``, else 0-d.

    Returns
    -------
    scalar, or ndarray under ``"none"``
        :math:`-\log q_y` with :math:`q = \mathrm{softmax}(x/T)`, in the dtype of `q`.

    Raises
    ------
    IndexError
        For a label out of range, with its value and row; nothing is written then.
    TypeError, ValueError
        For a wrong dtype, shape, axis or option.

    Notes
    -----
    The loss is :math:`(m - x_y)/T + \log(1 + \sum_{i \ne k} e^{(x_i - m)/T})`, with
    :math:`m = x_k` the maximum: two terms that are never negative, so that the loss of a confident
    row is right to the last digits where ``logsumexp(x) - x[y]`` gives 0.

    A target class of probability 0 gives +inf; a row that holds nan or +inf, or only -inf, gives
    nan.

    Examples
    --------
    >>> import numpy as np, klce
    >>> logits = np.array([[0.7, 0.2, 0.1], [0.3, 0.5, 0.2], [0.2, 0.2, 0.6]])
    >>> round(klce.cross_entropy(logits, [0, 1, 2]).item(), 4)
    0.8527
    >>> klce.cross_entropy(np.array([[20.0, 0.0]]), [0]).item()
    2.061153620314381e-09
    """
    rows = _validate.floats(q, "q")
    _validate.form(form)
    t = _validate.temperature(temperature, form)
    z = _validate.number(z_loss, "z_loss")
    if z < 0:
        raise ValueError(f"z_loss must not be negative, got {z_loss!r}")
    parameters: tuple[float, ...] = ()
    if form == "logits":
        kernel, parameters = _ufuncs.cross_entropy, (t, z)
    else:
        if z != 0:
            raise ValueError(f'z_loss belongs to form="logits", got {z_loss!r} with form={form!r}')
        kernel = _ufuncs.nll if form == "log_probs" else _ufuncs.nll_probs
    return _loss(kernel, parameters, rows, target, axis, ignore_index, base, reduction, out, "q")
