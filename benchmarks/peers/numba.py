"""Numba: loops over rows as one would write them by hand, parallel and with fast math."""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.cases import HALVES, IGNORED, Array, Case
from benchmarks.peers import Contestant, LacksError, Peer

# The loops, plain Python until they are compiled.  Rows are contiguous; the result is the last
# argument.  `prange` is range to Python; the compiled ones share its rows out to threads.

prange = range


def _top(x: Array, i: int) -> Any:
    m = x[i, 0]
    for j in range(x.shape[1]):
        m = max(m, x[i, j])
    return m


def _total(x: Array, i: int) -> Any:
    m = top(x, i)
    s = x.dtype.type(0)
    for j in range(x.shape[1]):
        s += np.exp(x[i, j] - m)
    return m + np.log(s)


top, total = _top, _total  # what the loops call, and Numba compiles into them


def logsumexp(x: Array, out: Array) -> None:
    for i in prange(x.shape[0]):
        out[i] = total(x, i)


def softmax(x: Array, out: Array) -> None:
    for i in prange(x.shape[0]):
        m = top(x, i)
        s = x.dtype.type(0)
        for j in range(x.shape[1]):
            e = np.exp(x[i, j] - m)
            out[i, j] = e
            s += e
        r = 1 / s
        for j in range(x.shape[1]):
            out[i, j] *= r


def log_softmax(x: Array, out: Array) -> None:
    for i in prange(x.shape[0]):
        t = total(x, i)
        for j in range(x.shape[1]):
            out[i, j] = x[i, j] - t


def entropy_probs(p: Array, out: Array) -> None:
    for i in prange(p.shape[0]):
        s = p.dtype.type(0)
        for j in range(p.shape[1]):
            s -= p[i, j] * np.log(p[i, j])
        out[i] = s


def entropy_logits(x: Array, out: Array) -> None:
    for i in prange(x.shape[0]):
        m = top(x, i)
        s = x.dtype.type(0)
        t = x.dtype.type(0)
        for j in range(x.shape[1]):
            d = x[i, j] - m
            e = np.exp(d)
            s += e
            t += e * d
        out[i] = np.log(s) - t / s


def kl_probs(p: Array, q: Array, out: Array) -> None:
    for i in prange(p.shape[0]):
        s = p.dtype.type(0)
        for j in range(p.shape[1]):
            s += p[i, j] * np.log(p[i, j] / q[i, j])
        out[i] = s


def kl_logits(x: Array, y: Array, out: Array) -> None:
    for i in prange(x.shape[0]):
        a = top(x, i)
        b = top(y, i)
        s = x.dtype.type(0)
        r = x.dtype.type(0)
        t = x.dtype.type(0)
        for j in range(x.shape[1]):
            u = x[i, j] - a
            v = y[i, j] - b
            e = np.exp(u)
            s += e
            r += np.exp(v)
            t += e * (u - v)
        out[i] = t / s - np.log(s) + np.log(r)


def js_probs(p: Array, q: Array, out: Array) -> None:
    for i in prange(p.shape[0]):
        s = p.dtype.type(0)
        for j in range(p.shape[1]):
            a = p[i, j]
            b = q[i, j]
            r = 2 / (a + b)
            s += a * np.log(a * r) + b * np.log(b * r)
        out[i] = s / 2


def js_logits(x: Array, y: Array, out: Array) -> None:
    for i in prange(x.shape[0]):
        t = total(x, i)
        w = total(y, i)
        s = x.dtype.type(0)
        for j in range(x.shape[1]):
            a = np.exp(x[i, j] - t)
            b = np.exp(y[i, j] - w)
            r = 2 / (a + b)
            s += a * np.log(a * r) + b * np.log(b * r)
        out[i] = s / 2


def mean_nll(log_probs: Array, target: Array) -> Any:
    s = 0.0
    for i in prange(log_probs.shape[0]):
        s -= log_probs[i, target[i]]
    return s / log_probs.shape[0]


def cross_entropy(x: Array, target: Array, out: Array) -> None:
    for i in prange(x.shape[0]):
        out[i] = total(x, i) - x[i, target[i]]


def mean_cross_entropy(x: Array, target: Array, z_loss: float, unit: float) -> Any:
    s = 0.0
    n = 0
    for i in prange(x.shape[0]):
        if target[i] != IGNORED:
            t = total(x, i)
            s += t - x[i, target[i]] + z_loss * t * t
            n += 1
    return s / n / unit


def weighted_cross_entropy(x: Array, target: Array, weight: Array) -> Any:
    s = 0.0
    n = 0.0
    for i in prange(x.shape[0]):
        w = weight[target[i]]
        s += w * (total(x, i) - x[i, target[i]])
        n += w
    return s / n


def row_weighted_cross_entropy(x: Array, target: Array, weight: Array) -> Any:
    s = 0.0
    n = 0.0
    for i in prange(x.shape[0]):
        s += weight[i] * (total(x, i) - x[i, target[i]])
        n += weight[i]
    return s / n


def smooth_cross_entropy(x: Array, target: Array, smoothing: float) -> Any:
    s = 0.0
    for i in prange(x.shape[0]):
        t = total(x, i)
        r = x.dtype.type(0)
        for j in range(x.shape[1]):
            r += x[i, j]
        s += t - (1 - smoothing) * x[i, target[i]] - smoothing * r / x.shape[1]
    return s / x.shape[0]


def scaled_cross_entropy(x: Array, target: Array, scale: float) -> Any:
    f = x.dtype.type(scale)
    loss = 0.0
    for i in prange(x.shape[0]):
        m = top(x, i)
        s = x.dtype.type(0)
        for j in range(x.shape[1]):
            s += np.exp((x[i, j] - m) * f)
        loss += np.log(s) - (x[i, target[i]] - m) * f
    return loss / x.shape[0]


def masked_cross_entropy(x: Array, target: Array, where: Array) -> Any:
    loss = 0.0
    for i in prange(x.shape[0]):
        m = x[i, target[i]]
        for j in range(x.shape[1]):
            if where[i, j]:
                m = max(m, x[i, j])
        s = x.dtype.type(0)
        for j in range(x.shape[1]):
            e = np.exp(x[i, j] - m)
            if where[i, j]:
                s += e
        loss += m + np.log(s) - x[i, target[i]]
    return loss / x.shape[0]


def soft_cross_entropy(x: Array, target: Array) -> Any:
    loss = 0.0
    for i in prange(x.shape[0]):
        t = total(x, i)
        r = x.dtype.type(0)
        for j in range(x.shape[1]):
            r += target[i, j] * (t - x[i, j])
        loss += r
    return loss / x.shape[0]


class Numba(Peer):
    """Numba, which needs Intel's libsvml to compute exponentials in vectors."""

    name = "numba"

    def __init__(self, threads: int) -> None:
        self._numba: Any = importlib.import_module("numba")
        self._numba.set_num_threads(min(threads, self._numba.config.NUMBA_NUM_THREADS))
        self.version = self._numba.__version__
        vectors = self._numba.config.USING_SVML
        self.remark = "with libsvml" if vectors else "without libsvml: its exp and log are scalar"
        globals()["prange"] = self._numba.prange
        helper = self._numba.njit(fastmath=True, inline="always")
        globals()["top"] = helper(_top)
        globals()["total"] = helper(_total)

    @functools.cache  # noqa: B019 - there is one for the whole run
    def _compiled(self, loop: Callable[..., Any]) -> Any:
        return self._numba.njit(parallel=True, fastmath=True)(loop)

    def contestant(self, case: Case) -> Contestant:
        if case.dtype in HALVES:
            raise LacksError(f"has no {case.dtype} on CPUs")
        if case.layout.axis != -1:
            raise LacksError("its loops here are for classes on the last axis")
        op, keywords, x = case.op, case.op.keywords, case.inputs[0]
        if op.function in ("cross_entropy", "nll_loss") and op.result == "scalar":
            return self._mean(case)
        loops: dict[tuple[str, str], Callable[..., Any]] = {
            ("logsumexp", "logits"): logsumexp,
            ("softmax", "logits"): softmax,
            ("log_softmax", "logits"): log_softmax,
            ("entropy", "probs"): entropy_probs,
            ("entropy", "logits"): entropy_logits,
            ("kl_divergence", "probs"): kl_probs,
            ("kl_divergence", "logits"): kl_logits,
            ("js_divergence", "probs"): js_probs,
            ("js_divergence", "logits"): js_logits,
            ("cross_entropy", "logits"): cross_entropy,
        }
        loop = loops.get((op.function, op.form))
        if loop is None or set(keywords) - {"reduction"}:
            raise LacksError(f"no loop is written here for {case.name}")
        run, arrays = self._compiled(loop), case.arrays
        shape = x.shape if op.result == "map" else case.layout.row_shape
        kept = np.zeros(shape, x.dtype)

        def fresh() -> Array:
            out = np.empty(shape, x.dtype)
            run(*arrays, out)
            return out

        def into() -> Array:
            run(*arrays, kept)
            return kept

        return Contestant(fresh, into)

    def _mean(self, case: Case) -> Contestant:
        op, keywords = case.op, case.op.keywords
        numbers: tuple[float, ...] = ()
        if op.function == "nll_loss":
            loop: Callable[..., Any] = mean_nll
        elif op.target == "soft":
            loop = soft_cross_entropy
        elif op.option in ("weight", "sample_weight", "where"):
            loop = {
                "weight": weighted_cross_entropy,
                "sample_weight": row_weighted_cross_entropy,
                "where": masked_cross_entropy,
            }[op.option]
        elif "label_smoothing" in keywords:
            loop, numbers = smooth_cross_entropy, (keywords["label_smoothing"],)
        elif "temperature" in keywords:
            loop, numbers = scaled_cross_entropy, (1 / keywords["temperature"],)
        else:
            unit = math.log(keywords.get("base", math.e))
            loop, numbers = mean_cross_entropy, (keywords.get("z_loss", 0.0), unit)
        run, arrays = self._compiled(loop), case.arrays
        return Contestant(lambda: run(*arrays, *numbers))


PEERS = (Numba,)
