"""Losses: negative log-likelihood, cross-entropy, binary cross-entropy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from klce import _arrays, _axes, _call, _reduce, _ufuncs, _validate
from klce._entry import entry

if TYPE_CHECKING:
    from klce._typing import Array, ArrayLike, BinaryForm, Form, Reduction

__all__ = ["binary_cross_entropy", "cross_entropy", "nll_loss"]

_IGNORED = -100

#: How many elements binary cross-entropy computes at a time where it returns only a sum or mean.
_BLOCK = 1 << 18

# Of each form: the kernel of an index alone, of an index and weights, and of every option.
_PLAIN = {
    "logits": _ufuncs.cross_entropy,
    "log_probs": _ufuncs.nll,
    "probs": _ufuncs.nll_probs,
}
_WEIGHTED = {"log_probs": _ufuncs.weighted_nll, "probs": _ufuncs.weighted_nll_probs}
_GENERAL = {
    "logits": _ufuncs.loss_logits,
    "log_probs": _ufuncs.loss_log_probs,
    "probs": _ufuncs.loss_probs,
}

# What plain calls go to (klce._entry), likewise by form.
_NO_DISTRIBUTION = (0.0, 1)  # nothing to every class, and that the target is the index
_WEIGHTS = ("ignore_index", "weight", "sample_weight")
_SMOOTHED = (*_WEIGHTS, *_NO_DISTRIBUTION, "label_smoothing")
_OF_LOG_PROBS = [("nll", "ignore_index"), ("weighted_nll", *_WEIGHTS)]
_OF_ALL = {
    "logits": [
        ("cross_entropy", "ignore_index", "temperature", "z_loss"),
        ("loss_logits", *_SMOOTHED, "temperature", "z_loss"),
    ],
    "log_probs": [*_OF_LOG_PROBS, ("loss_log_probs", *_SMOOTHED)],
    "probs": [
        ("nll_probs", "ignore_index"),
        ("weighted_nll_probs", *_WEIGHTS),
        ("loss_probs", *_SMOOTHED),
    ],
}

_BINARY = {
    "probs": _ufuncs.binary_cross_entropy_probs,
    "logits": _ufuncs.binary_cross_entropy_logits,
}


def _loss(
    rows: Array,
    target: ArrayLike,
    *,
    name: str,
    form: str,
    axis: int,
    weight: ArrayLike | None,
    ignore_index: int,
    sample_weight: ArrayLike | None,
    base: float | None,
    reduction: Reduction,
    out: np.ndarray[Any, Any] | None,
    soft: bool = False,
    smoothing: float = 0.0,
    of_logits: tuple[float, ...] = (),
    where: ArrayLike | None = None,
) -> Any:
    """Validate what all losses share, run the kernel that the options ask for, and reduce.

    `soft` says that the target is a distribution, `of_logits` are temperature and z_loss.
    """
    axis = _validate.class_axis(axis, rows, name)
    how = _reduce.reduction(reduction)
    nats = _reduce.unit(base)
    ignored = _validate.ignored(ignore_index)
    mask = _validate.mask(where, rows.shape, (axis,), name)
    kept = _validate.kept_rows(where, rows.shape, (axis,))
    if kept is not None:
        mask = None
    shape, classes = _axes.without(rows.shape, (axis,)), rows.shape[axis]
    dtype = _arrays.row_dtype(rows)
    weighted = weight is not None or sample_weight is not None
    general = soft or smoothing != 0 or (weighted and form not in _WEIGHTED)
    kernel = (_GENERAL if general else _WEIGHTED if weighted else _PLAIN)[form]
    options: list[Any] = []
    if general or weighted:
        options.append(_validate.class_weights(weight, classes, dtype))
        options.append(_validate.spread(sample_weight, "sample_weight", shape, dtype, "the rows"))
    if general:
        distribution = (
            _validate.distribution(target, rows)
            if soft
            else _validate.repeated(0, (classes,), dtype)
        )
        options += (distribution, not soft, smoothing)
    if general or not weighted:
        options += of_logits
    # A distribution has no label, but kernels look at one.
    index: Any = _validate.repeated(0, shape, np.dtype(np.int64)) if soft else target
    if kept is None:
        # As it is, if all is well: a few rows take longer to look into than to compute.
        operands = (rows, index, ignored, *options)
        found = _call.whole_loss(kernel, operands, axis, mask, how, nats, out)
        if found is not None:
            return found

    out = _validate.output(out, shape if how == "none" else (), dtype)
    if not soft:
        # All threads look at the labels, and are awake when the kernel follows.
        index, counted = _validate.labels(target, shape, classes, ignored, kept)
    elif kept is None:
        counted = math.prod(shape)
    else:
        index, counted = np.where(kept, 0, ignored), int(np.count_nonzero(kept))
    operands = (rows, index, ignored, *options)
    sums = None if how == "none" else _call.totals(kernel, *operands, axis=axis, where=mask)
    if sums is not None:
        return _reduce.of_total(sums[0], how, sums[1] if weighted else counted, nats, out, dtype)
    results = [np.empty(shape, dtype) for _ in range(kernel.nout)]
    if how == "none" and out is not None:
        results[0] = out
    taken = _arrays.map_dtype(rows)
    _call.called(kernel, *operands, axis=axis, dtype=taken, where=mask, out=tuple(results))
    total = _reduce.total(results[1]) if weighted else counted
    losses = results[0][()] if out is None else results[0]
    return _reduce.reduced(losses, how, total, nats, out, dtype)


@entry("rows", "log_probs", "target", plain={"": _OF_LOG_PROBS})
def nll_loss(
    log_probs: ArrayLike,
    target: ArrayLike,
    *,
    axis: int = -1,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    sample_weight: ArrayLike | None = None,
    where: ArrayLike | None = None,
    base: float | None = None,
    reduction: Reduction = "mean",
    out: np.ndarray[Any, Any] | None = None,
) -> Any:
    r"""Negative log-likelihood: minus the log-probability of each row's target class.

    Parameters
    ----------
    log_probs : array_like
        Log-probabilities, of any floating-point dtype up to float64, computed in float32 if
        shorter than that; integers and bool become float64.  Any values are taken as they are.
    target : array_like of int
        A class index for each row, of any integer dtype: of the rows' shape, that of `log_probs`
        without `axis`.
    axis : int, default -1
        The axis of the classes (torch's is 1).
    weight : array_like, optional
        A factor for each class, not negative: a row's loss is multiplied by its target's.
    ignore_index : int, default -100
        Rows with this label are 0 under ``"none"`` and do not count in the mean.
    sample_weight : array_like, optional
        A factor for each row, not negative; broadcasts to the rows. A row of weight 0 is ignored.
    where : array_like of bool, optional
        Which classes there are, or which rows count; broadcasts to the shape of `log_probs`. With
        length one on `axis`, as ``keep[:, None]`` has on the last, or too few dimensions to reach
        it, it is a mask of rows, and the others are ignored, whatever their label. Else a masked
        class has probability 0.
    base : float, optional
        Base of the logarithm; nats without it.
    reduction : {"mean", "sum", "none"}
        ``"mean"`` divides by the sum of the factors (`weight` at the target times
        `sample_weight`) of the rows that are not ignored: without factors by their number. nan if
        that is 0.
    out : ndarray, optional
        Where to put the result: of the rows' shape under ``"none"``, else 0-d.

    Returns
    -------
    scalar, or ndarray under ``"none"``
        Float64 where `log_probs` is float64, an integer or bool, else float32.

    Raises
    ------
    IndexError
        For a label out of range, with its value and row; nothing is written then.
    TypeError, ValueError
        For a wrong dtype, shape, axis, option, `where` or `out`.

    See Also
    --------
    cross_entropy : the same from logits, in one read; it also has targets that are distributions.

    Notes
    -----
    With x the log-probabilities and y the target of a row, w `weight` and s `sample_weight`:

    .. math:: -s\, w_y\, x_y

    The sum over rows is what maximum likelihood minimises (Fisher, "On the mathematical foundations
    of theoretical statistics", 1922).

    It picks, and trusts that it was given log-probabilities. A class of weight 0 gives 0 also where
    its log-probability is -inf.

    torch.nn.functional.nll_loss takes the classes from axis 1 of an array of two or more
    dimensions (``axis=1`` here), and int64 or uint8 targets only. The rest is alike.

    Examples
    --------
    >>> import numpy as np, klce
    >>> log_probs = np.log([[0.5, 0.5], [0.25, 0.75]])
    >>> klce.nll_loss(log_probs, [0, 0], base=2).item()
    1.5
    >>> round(klce.nll_loss(log_probs, [0, 0], base=2, sample_weight=[3, 1]).item(), 4)
    1.25
    """
    rows = _arrays.floats(log_probs, "log_probs", _arrays.WHERE)
    return _loss(
        rows,
        target,
        name="log_probs",
        form="log_probs",
        axis=axis,
        weight=weight,
        ignore_index=ignore_index,
        sample_weight=sample_weight,
        base=base,
        reduction=reduction,
        out=out,
        where=where,
    )


@entry("rows", "q", "target", plain=_OF_ALL)
def cross_entropy(
    q: ArrayLike,
    target: ArrayLike,
    *,
    axis: int = -1,
    form: Form = "logits",
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    temperature: float = 1.0,
    sample_weight: ArrayLike | None = None,
    where: ArrayLike | None = None,
    base: float | None = None,
    reduction: Reduction = "mean",
    out: np.ndarray[Any, Any] | None = None,
) -> Any:
    r"""Cross-entropy of predictions against class indices or distributions.

    ``cross_entropy(logits, y)`` is ``nll_loss(log_softmax(logits), y)`` in one read of the logits,
    without the array in between. So it is with every option: each row is read from memory once.

    Parameters
    ----------
    q : array_like
        The predictions in the given `form`, of any floating-point dtype up to float64, computed
        in float32 if shorter than that; integers and bool become float64.
    target : array_like
        Either integers, a class index for each row: of any integer dtype, of the rows' shape, that
        of `q` without `axis`. Or floats, a distribution for each row (soft targets): of the shape
        of `q`, not negative, taken as they are (not normalised).
    axis : int, default -1
        The axis of the classes, in `q` and in a `target` of distributions (torch's is 1).
    form : {"logits", "log_probs", "probs"}
        What `q` holds.  Log-probabilities and probabilities are taken as they are, not normalised.
    weight : array_like, optional
        A factor for each class, not negative; 1 without it.
    ignore_index : int, default -100
        Rows with this label are 0 under ``"none"`` and do not count in the mean. Distributions have
        no labels: there, only the default is accepted. (Give such rows a `sample_weight` of 0.)
    label_smoothing : float, default 0.0
        e, from 0 to 1: the target becomes (1 - e) of itself and e of the uniform distribution.
    z_loss : float, default 0.0
        Adds ``z_loss * logsumexp(row)**2`` to each row's loss (logits only); not negative. `weight`
        does not apply to it, `sample_weight` does.
    temperature : float, default 1.0
        Divides the logits (logits only); from 1e-6 to 1e6.
    sample_weight : array_like, optional
        A factor for each row, not negative; broadcasts to the rows. A row of weight 0 is ignored.
    where : array_like of bool, optional
        Which classes there are, or which rows count; broadcasts to the shape of `q`. With length
        one on `axis`, as ``keep[:, None]`` has on the last, or too few dimensions to reach it, it
        is a mask of rows, and the others are ignored, whatever their label. Else masked classes
        have probability 0 and no share of `label_smoothing`, whose C counts the others; a row of
        logits without classes gives nan, of probabilities or log-probabilities +inf.
    base : float, optional
        Base of the logarithm; nats without it.
    reduction : {"mean", "sum", "none"}
        ``"mean"`` divides by the sum over the rows that are not ignored of `sample_weight` times,
        for class indices, `weight` at the target: without either by the number of those rows. nan
        if that is 0.
    out : ndarray, optional
        Where to put the result: of the rows' shape under ``"none"``, else 0-d.

    Returns
    -------
    scalar, or ndarray under ``"none"``
        Float64 where `q` is float64, an integer or bool, else float32; sums are in float64.

    Raises
    ------
    IndexError
        For a label out of range, with its value and row; nothing is written then.
    TypeError, ValueError
        For a wrong dtype, shape, axis, option, `where` or `out`.

    See Also
    --------
    nll_loss : the same from log-probabilities, against class indices.
    binary_cross_entropy : a yes or a no for each element.
    kl_divergence : cross-entropy less the entropy of the target.

    Notes
    -----
    With q the predicted distribution of a row of C classes, :math:`q = \mathrm{softmax}(x/T)` of
    logits x, the loss of the row is

    .. math:: s \Bigl( \sum_c w_c \bigl((1 - e)\, t_c + e/C\bigr) (-\log q_c)
              + z \log^2 \sum_c e^{x_c/T} \Bigr)

    t the target (1 at the index, 0 elsewhere), w `weight`, e `label_smoothing`, z `z_loss`, s
    `sample_weight`. As in torch, with class indices, smoothing and weights, the smoothed part is
    weighted class by class, and the mean divides by the weights at the targets.

    Label smoothing is that of Szegedy, Vanhoucke, Ioffe, Shlens and Wojna, "Rethinking the
    Inception architecture for computer vision", 2016; `z_loss` that of Chowdhery et al., "PaLM:
    scaling language modeling with pathways", 2022, where it is 1e-4.

    Without options it is :math:`(m - x_y)/T + \log(1 + \sum_{i \ne k} e^{(x_i - m)/T})`, with
    :math:`m = x_k` the maximum: two terms that are never negative, so that the loss of a confident
    row is right to the last digits where ``logsumexp(x) - x[y]`` gives 0. Nor does the general
    formula subtract: it sums :math:`m - x_c` and adds the logarithm. Results are within 4 units
    in the last place in float32 and 5 in float64, before a change of unit or a mean; 10 with soft
    targets, `weight` or `label_smoothing`; 16 where rows of more than 256 float32 (128 float64)
    classes are led by a few, and roundings of hundreds of others fall alike. Where the logsumexp
    is near 0, the penalty of `z_loss` has the digits that the logsumexp has, which are
    those of the row's maximum: its square may be off by a tenth of itself, or all of it.

    A target class of probability 0 gives +inf; a row of logits that holds nan or +inf, or only
    -inf, gives nan, and so does a negative target. Of probabilities and log-probabilities, classes
    without a coefficient do not count, whatever they are. A class whose coefficient is 0 adds 0,
    also where q is 0.

    **Coming from torch.nn.functional.cross_entropy**

    - The classes are on the last axis. torch has them on axis 1 of inputs of two or more
      dimensions: ``axis=1``. Nothing is copied for that.
    - ``input`` is `q`. Logits are the default `form` here too; probabilities and log-probabilities
      need not be turned into logits first.
    - ``target`` may be of any integer dtype, not int64 or uint8 only; a list will do. bool is
      refused. Class probabilities may be of any float dtype; that of the result is used.
    - ``weight``, ``ignore_index``, ``label_smoothing`` and ``reduction`` are torch's, with its
      denominators: the mean over class indices divides by the weights of the targets that count,
      the mean over class probabilities by the number of rows, whatever `weight` is.
    - ``ignore_index`` with class probabilities is an error in torch if it is not negative, and
      here if it is not the default.
    - ``size_average`` and ``reduce``, deprecated there, do not exist.
    - A class of weight 0 that is impossible (logit -inf) adds 0; torch gives nan.
    - Results of float32 are right to float32's last digits for confident rows, and sums do not
      depend on the number of threads; torch rounds log_softmax first.
    - `temperature`, `z_loss`, `sample_weight`, `where`, `base` and `out` have no counterpart there.

    Examples
    --------
    >>> import numpy as np, klce
    >>> logits = np.array([[0.7, 0.2, 0.1], [0.3, 0.5, 0.2], [0.2, 0.2, 0.6]])
    >>> round(klce.cross_entropy(logits, [0, 1, 2]).item(), 4)
    0.8527
    >>> klce.cross_entropy(np.array([[20.0, 0.0]]), [0]).item()
    2.061153620314381e-09

    Soft targets, and what label smoothing makes of an index:

    >>> soft = np.array([[0.8, 0.1, 0.1], [0.0, 1.0, 0.0], [0.3, 0.3, 0.4]])
    >>> round(klce.cross_entropy(logits, soft).item(), 4)
    0.9694
    >>> smooth = 0.9 * np.eye(3) + 0.1 / 3
    >>> losses = [klce.cross_entropy(logits, smooth),
    ...           klce.cross_entropy(logits, [0, 1, 2], label_smoothing=0.1)]
    >>> [round(loss.item(), 4) for loss in losses]
    [0.8794, 0.8794]

    Images in torch's layout, (N, C, H, W), with weights and a label to ignore:

    >>> images = np.log([0.5, 0.25, 0.25]).reshape(1, 3, 1, 1) + np.zeros((2, 3, 4, 5))
    >>> labels = np.ones((2, 4, 5), np.uint8)
    >>> labels[0] = 255
    >>> loss = klce.cross_entropy(images, labels, axis=1, ignore_index=255, weight=[1, 2, 2])
    >>> round(loss.item(), 4)  # log 4
    1.3863
    """
    rows = _arrays.floats(q, "q", _arrays.WHERE)
    _validate.form(form)
    t = _validate.temperature(temperature, form)
    z = _validate.z_loss(z_loss, form)
    smoothing = _validate.label_smoothing(label_smoothing)
    given = _arrays.array(target, "target")
    # Floats by row, one too few dimensions, are taken for labels of the wrong dtype.
    soft = given.ndim == rows.ndim and _validate.is_floating(given.dtype)
    if given.shape == rows.shape != () and given.dtype.kind in "iub":
        raise TypeError(
            f"target must be of a floating dtype where it has the shape of q, {rows.shape}, as a "
            f"distribution, got {given.dtype}"
        )
    if soft and ignore_index != _IGNORED:
        raise ValueError(
            f"ignore_index belongs to class indices, got {ignore_index!r} with a target of "
            f"probabilities"
        )
    return _loss(
        rows,
        given,
        name="q",
        form=form,
        axis=axis,
        weight=weight,
        ignore_index=ignore_index,
        sample_weight=sample_weight,
        base=base,
        reduction=reduction,
        out=out,
        soft=soft,
        smoothing=smoothing,
        of_logits=(t, z) if form == "logits" else (),
        where=where,
    )


@entry("losses", "q", "target", "weight", "pos_weight")
def binary_cross_entropy(
    q: ArrayLike,
    target: ArrayLike,
    *,
    form: BinaryForm = "probs",
    weight: ArrayLike | None = None,
    pos_weight: ArrayLike | None = None,
    reduction: Reduction = "mean",
    out: np.ndarray[Any, Any] | None = None,
) -> Any:
    r"""Binary cross-entropy, element by element: predicted probabilities of a yes against outcomes.

    Parameters
    ----------
    q : array_like
        The predictions: probabilities from 0 to 1, or logits x that stand for
        :math:`q = 1/(1 + e^{-x})`. Of any floating-point dtype up to float64, computed in float32
        if shorter than that; integers and bool become float64.
    target : array_like
        y: numbers from 0 to 1, or bool, of the shape of `q`.
    form : {"probs", "logits"}
        What `q` holds. There is no ``"log_probs"``: log q alone does not tell 1 - q.
    weight : array_like, optional
        A factor for each element, not negative; broadcasts to the shape of `q`. An element of
        weight 0 gives 0, whatever it holds.
    pos_weight : array_like, optional
        A factor v for the positive part, not negative; broadcasts to the shape of `q`. Above 1 it
        favours recall, below 1 precision.
    reduction : {"mean", "sum", "none"}
        ``"mean"`` divides by the number of elements, as torch does, whatever the weights; nan if
        there are none.
    out : ndarray, optional
        Where to put the result: of the shape of `q` under ``"none"``, else 0-d.

    Returns
    -------
    scalar, or ndarray under ``"none"``
        In nats: float64 where `q` is float64, an integer or bool, else float32.

    Raises
    ------
    TypeError, ValueError
        For a wrong dtype, shape, option or `out`.

    See Also
    --------
    cross_entropy : one of several classes.
    binary_entropy : of outcomes that the predictions are right about.

    Notes
    -----
    .. math:: -w \bigl( v\, y \log q + (1 - y) \log(1 - q) \bigr)

    Without weights it is the logarithmic score of Good, "Rational decisions", 1952.

    With logits, :math:`-\log q = \max(-x, 0) + \log(1 + e^{-|x|})` and
    :math:`-\log(1 - q) = \max(x, 0) + \log(1 + e^{-|x|})`: neither cancels, so a confident logit
    keeps its loss, which 1 - q in floating point would round to 0. Results are within 4 units in
    the last place, unless v y or :math:`e^{-|x|}` is subnormal, which is rounded as such.

    0 log 0 is 0. A q of 0 for a y above 0 gives +inf, and so does a q of 1 for a y below 1:
    torch.nn.functional.binary_cross_entropy clamps logarithms at -100. A q or y outside [0, 1]
    gives nan. With logits it is torch's binary_cross_entropy_with_logits.

    Examples
    --------
    >>> import numpy as np, klce
    >>> round(klce.binary_cross_entropy([0.9, 0.2], [1, 0]).item(), 4)
    0.1643
    >>> klce.binary_cross_entropy(np.array([40.0, -40.0]), [1, 0], form="logits").item()
    4.248354255291589e-18
    >>> losses = klce.binary_cross_entropy([0.5, 0.5], [1, 0], pos_weight=3, reduction="none")
    >>> [round(x, 4) for x in (losses / np.log(2)).tolist()]
    [3.0, 1.0]
    """
    values = _arrays.floats(q, "q")
    _validate.form(form, tuple(_BINARY))
    how = _reduce.reduction(reduction)
    shape, dtype = values.shape, _arrays.row_dtype(values)
    y = _arrays.floats(target, "target")
    if y.shape != shape:
        raise ValueError(f"target must have the shape of q, {shape}, got {y.shape}")
    factors = [
        _validate.spread(w, name, shape, dtype, "q")
        for w, name in ((weight, "weight"), (pos_weight, "pos_weight"))
    ]
    operands = [values, y, *factors]
    out = _validate.output(out, shape if how == "none" else (), dtype)
    if how == "none":
        return _call.called(_BINARY[form], *operands, dtype=dtype, out=out)
    # Block by block: the losses are kept only until they are added up.
    sums = [
        _reduce.total(
            _call.called(_BINARY[form], *(x[block] if x.ndim else x for x in operands), dtype=dtype)
        )
        for block in _axes.blocks(shape, 1, _BLOCK)
    ]
    return _reduce.reduced(np.array(sums), how, values.size, 1.0, out, dtype)
