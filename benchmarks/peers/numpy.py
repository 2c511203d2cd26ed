"""NumPy: the few plain calls that its users write, in place if they can be, on Python threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.cases import HALVES, IGNORED, Array, Case
from benchmarks.peers import Contestant, Peer, RowShares, widened

# Each takes some rows, the axis of their classes, and last where to put the result.


def _logsumexp(x: Array, axis: int, out: Array) -> Array:
    m = x.max(axis=axis, keepdims=True)
    e = x - m
    np.log(np.exp(e, out=e).sum(axis=axis), out=out)
    out += m.squeeze(axis)
    return out


def _softmax(x: Array, axis: int, out: Array) -> Array:
    np.subtract(x, x.max(axis=axis, keepdims=True), out=out)
    np.exp(out, out=out)
    out /= out.sum(axis=axis, keepdims=True)
    return out


def _log_softmax(x: Array, axis: int, out: Array) -> Array:
    np.subtract(x, x.max(axis=axis, keepdims=True), out=out)
    out -= np.log(np.exp(out).sum(axis=axis, keepdims=True))
    return out


def _entropy_probs(p: Array, axis: int, out: Array) -> Array:
    terms = np.log(p)
    terms *= p
    return np.negative(terms.sum(axis=axis), out=out)


def _entropy_logits(x: Array, axis: int, out: Array) -> Array:
    log_p = _log_softmax(x, axis, np.empty_like(x))
    p = np.exp(log_p)
    p *= log_p
    return np.negative(p.sum(axis=axis), out=out)


def _kl_probs(p: Array, q: Array, axis: int, out: Array) -> Array:
    terms = p / q
    np.log(terms, out=terms)
    terms *= p
    return terms.sum(axis=axis, out=out)


def _kl_logits(x: Array, y: Array, axis: int, out: Array) -> Array:
    log_p = _log_softmax(x, axis, np.empty_like(x))
    terms = _log_softmax(y, axis, np.empty_like(y))
    np.subtract(log_p, terms, out=terms)
    np.exp(log_p, out=log_p)
    terms *= log_p
    return terms.sum(axis=axis, out=out)


def _js_probs(p: Array, q: Array, axis: int, out: Array) -> Array:
    middle = p + q
    middle *= 0.5
    _kl_probs(p, middle, axis, out)
    out += _kl_probs(q, middle, axis, np.empty_like(out))
    out *= 0.5
    return out


def _js_logits(x: Array, y: Array, axis: int, out: Array) -> Array:
    p = _softmax(x, axis, np.empty_like(x))
    return _js_probs(p, _softmax(y, axis, np.empty_like(y)), axis, out)


def _nll(log_probs: Array, target: Array, axis: int, out: Array) -> Array:
    picked = np.take_along_axis(log_probs, np.expand_dims(target, axis), axis)
    return np.negative(picked.squeeze(axis), out=out)


_ROWS: dict[tuple[str, str], Callable[..., Array]] = {
    ("logsumexp", "logits"): _logsumexp,
    ("softmax", "logits"): _softmax,
    ("log_softmax", "logits"): _log_softmax,
    ("entropy", "probs"): _entropy_probs,
    ("entropy", "logits"): _entropy_logits,
    ("kl_divergence", "probs"): _kl_probs,
    ("kl_divergence", "logits"): _kl_logits,
    ("js_divergence", "probs"): _js_probs,
    ("js_divergence", "logits"): _js_logits,
    ("nll_loss", "log_probs"): _nll,
}


class _CrossEntropy:
    """A row's cross-entropy with the one option that is on."""

    def __init__(self, case: Case) -> None:
        self._keywords = case.op.keywords
        self._option = case.op.option
        self._weight = case.extras.get("weight")
        self._soft = case.op.target == "soft"

    def __call__(self, x: Array, target: Array, *rest: Any) -> None:
        *extras, axis, out = rest
        if "temperature" in self._keywords:
            x = x / x.dtype.type(self._keywords["temperature"])
        if self._option == "where":
            x = np.where(extras[0], x, -np.inf)
        _logsumexp(x, axis, out)
        smoothing = self._keywords.get("label_smoothing", 0)
        z_loss = self._keywords.get("z_loss", 0)
        squares = z_loss * np.square(out) if z_loss else 0
        if self._soft:
            out -= (x * target).sum(axis=axis)
            return
        taken = np.where(target == IGNORED, 0, target) if self._option == "ignore_index" else target
        picked = np.take_along_axis(x, np.expand_dims(taken, axis), axis).squeeze(axis)
        if smoothing:
            picked = (1 - smoothing) * picked + smoothing * x.mean(axis=axis)
        out -= picked
        out += squares
        if self._option == "ignore_index":
            out[target == IGNORED] = 0
        elif self._weight is not None:
            out *= self._weight[target]
        elif self._option == "sample_weight":
            out *= extras[0]
        if "base" in self._keywords:
            out /= np.log(out.dtype.type(self._keywords["base"]))


def _denominator(case: Case) -> Callable[[], Any]:
    """Return what counts the rows of a mean."""
    target, extras = case.target, case.extras
    if case.op.option == "ignore_index":
        return lambda: np.count_nonzero(target != IGNORED)
    if "weight" in extras:
        return lambda: extras["weight"][target].sum()
    if "sample_weight" in extras:
        return lambda: extras["sample_weight"].sum()
    return lambda: case.layout.rows


class NumPy(Peer):
    """NumPy on blocks of rows."""

    name = "numpy"

    def __init__(self, threads: int) -> None:
        self.version = np.__version__
        self._shares = RowShares(threads)

    def contestant(self, case: Case) -> Contestant:
        op, layout = case.op, case.layout
        row_way: Callable[..., object]
        if op.function == "cross_entropy":
            row_way = _CrossEntropy(case)
        else:
            row_way = _ROWS[op.function, op.form]
        half = case.dtype in HALVES
        arrays = [a for name, a in case.extras.items() if name != "weight"]
        operands = [*case.inputs, *(() if case.target is None else (case.target,)), *arrays]
        dtype = np.dtype(np.float32) if half else case.inputs[0].dtype

        def task(*share: Array) -> None:
            *rows, out = share
            if not half:
                row_way(*rows, layout.axis, out)
                return
            place = np.empty(out.shape, dtype)
            row_way(*widened(rows), layout.axis, place)
            out[...] = place

        def on(out: Array) -> Callable[[], Any]:
            return self._shares.over(layout, task, *operands, out)

        shape = layout.shape if op.result == "map" else layout.row_shape
        kind = case.inputs[0].dtype if op.result == "map" else dtype
        kept = np.zeros(shape, kind)
        into, denominator = on(kept), _denominator(case)
        if op.result == "scalar":

            def mean(run: Callable[[], Any] = into) -> Any:
                run()
                return kept.sum() / denominator()

            return Contestant(mean, mean)

        def fresh() -> Array:
            out = np.empty(shape, kind)
            on(out)()
            return out

        def run_into() -> Array:
            into()
            return kept

        return Contestant(fresh, run_into)


PEERS = (NumPy,)
