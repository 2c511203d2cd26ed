"""What is raced: each operation, its shapes, its input, and every contestant's way of doing it.

A contestant is a function without arguments that returns the result. Input, and output where the
contestant takes one, are made and touched beforehand. Each contestant does it in the fastest way
that a few plain calls allow. NumPy and SciPy, which have no threads of their own for this, get an
equal share of the rows on each of as many Python threads.
"""

from __future__ import annotations

import functools
import importlib
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import ModuleType

import numpy as np

import klce

Array = np.ndarray
Shape = tuple[int, int]
Contestant = Callable[[], Array | list[Array]]  # a list holds the rows in parts

SHAPES: tuple[Shape, ...] = ((65536, 10), (8192, 1000), (64, 128256))
RIVALS = ("numpy", "torch", "scipy")

# klce as it comes: entropy and KL from probabilities also normalise them, which no rival does.
KLCE_WAYS: dict[str, Callable[..., Array]] = {
    "logsumexp": klce.logsumexp,
    "softmax": klce.softmax,
    "log_softmax": klce.log_softmax,
    "cross_entropy": functools.partial(klce.cross_entropy, reduction="none"),
    "entropy probs": klce.entropy,
    "entropy logits": functools.partial(klce.entropy, form="logits"),
    "kl probs": klce.kl_divergence,
    "kl logits": functools.partial(klce.kl_divergence, form="logits"),
}
OPS = tuple(KLCE_WAYS)


def peer(name: str) -> ModuleType | None:
    """Import a rival, or return None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


# The NumPy ways. Each takes some rows and, last, where to put the result.


def _numpy_logsumexp(x: Array, out: Array) -> Array:
    m = x.max(axis=-1, keepdims=True)
    e = x - m
    np.log(np.exp(e, out=e).sum(axis=-1), out=out)
    out += m[:, 0]
    return out


def _numpy_softmax(x: Array, out: Array) -> Array:
    np.subtract(x, x.max(axis=-1, keepdims=True), out=out)
    np.exp(out, out=out)
    out /= out.sum(axis=-1, keepdims=True)
    return out


def _numpy_log_softmax(x: Array, out: Array) -> Array:
    np.subtract(x, x.max(axis=-1, keepdims=True), out=out)
    out -= np.log(np.exp(out).sum(axis=-1, keepdims=True))
    return out


def _numpy_cross_entropy(x: Array, target: Array, out: Array) -> Array:
    _numpy_logsumexp(x, out)
    out -= np.take_along_axis(x, target[:, None], axis=-1)[:, 0]
    return out


def _numpy_entropy_probs(p: Array, out: Array) -> Array:
    terms = np.log(p)
    terms *= p
    return np.negative(terms.sum(axis=-1), out=out)


def _numpy_entropy_logits(x: Array, out: Array) -> Array:
    log_p = _numpy_log_softmax(x, np.empty_like(x))
    p = np.exp(log_p)
    p *= log_p
    return np.negative(p.sum(axis=-1), out=out)


def _numpy_kl_probs(p: Array, q: Array, out: Array) -> Array:
    terms = p / q
    np.log(terms, out=terms)
    terms *= p
    return terms.sum(axis=-1, out=out)


def _numpy_kl_logits(x: Array, y: Array, out: Array) -> Array:
    log_p = _numpy_log_softmax(x, np.empty_like(x))
    terms = _numpy_log_softmax(y, np.empty_like(y))
    np.subtract(log_p, terms, out=terms)
    np.exp(log_p, out=log_p)
    terms *= log_p
    return terms.sum(axis=-1, out=out)


NUMPY_WAYS: dict[str, Callable[..., Array]] = {
    "logsumexp": _numpy_logsumexp,
    "softmax": _numpy_softmax,
    "log_softmax": _numpy_log_softmax,
    "cross_entropy": _numpy_cross_entropy,
    "entropy probs": _numpy_entropy_probs,
    "entropy logits": _numpy_entropy_logits,
    "kl probs": _numpy_kl_probs,
    "kl logits": _numpy_kl_logits,
}


def _scipy_way(op: str) -> Callable[..., Array] | None:
    special = peer("scipy.special")
    if special is None:
        return None
    ways: dict[str, Callable[..., Array]] = {
        "logsumexp": functools.partial(special.logsumexp, axis=-1),
        "softmax": functools.partial(special.softmax, axis=-1),
        "log_softmax": functools.partial(special.log_softmax, axis=-1),
        "entropy probs": lambda p: special.entr(p).sum(axis=-1),
        "kl probs": lambda p, q: special.rel_entr(p, q).sum(axis=-1),
    }
    return ways.get(op)


def _torch_way(op: str, arrays: tuple[Array, ...], result: Array) -> Contestant | None:
    torch = peer("torch")
    if torch is None:
        return None
    functional = torch.nn.functional
    x, *others = (torch.from_numpy(array) for array in arrays)
    y = others[0] if others else None
    out = torch.from_numpy(result)

    def entropy_logits() -> object:
        log_p = functional.log_softmax(x, -1)
        return torch.sum(log_p.exp().mul_(log_p), -1, out=out).neg_()

    def kl_logits() -> object:
        log_p, log_q = functional.log_softmax(x, -1), functional.log_softmax(y, -1)
        return functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)

    way = {
        "logsumexp": lambda: torch.logsumexp(x, -1, out=out),
        "softmax": lambda: torch.softmax(x, -1, out=out),
        "log_softmax": lambda: torch.log_softmax(x, -1, out=out),
        "cross_entropy": lambda: functional.cross_entropy(x, y, reduction="none"),
        "entropy probs": lambda: torch.sum(torch.special.entr(x), -1, out=out),
        "entropy logits": entropy_logits,
        "kl probs": lambda: functional.kl_div(y.log(), x, reduction="none").sum(-1),
        "kl logits": kl_logits,
    }[op]

    def run() -> Array:
        with torch.inference_mode():
            return way().numpy()

    return run


def _over_rows(way: Callable[..., Array], threads: int, *arrays: Array) -> Contestant:
    """Run `way` on equal shares of the rows of `arrays`, a thread each."""
    edges = [len(arrays[0]) * k // threads for k in range(threads + 1)]
    shares = [[array[start:stop] for array in arrays] for start, stop in itertools.pairwise(edges)]
    pool = ThreadPoolExecutor(threads)
    return lambda: list(pool.map(lambda share: way(*share), shares))


@dataclass(frozen=True)
class Case:
    """One operation at one shape."""

    op: str
    shape: Shape
    floats: tuple[Array, ...]  # what has to be read; the read limit is over these
    contestants: dict[str, Contestant]  # klce, and the rivals that have the operation

    @property
    def name(self) -> str:
        """The operation and its shape."""
        return "{} {}x{}".format(self.op, *self.shape)

    def check(self) -> None:
        """Raise AssertionError unless every contestant gets klce's result.

        The tolerance is the rivals' accuracy: rounding x - max alone costs them 32 ULP.
        """
        expected = self.contestants["klce"]()
        for name, run in self.contestants.items():
            result = run()
            if isinstance(result, list):
                result = np.concatenate(result)
            np.testing.assert_allclose(
                result, expected, rtol=1e-4, atol=1e-6, err_msg=f"{self.name}: {name} and klce"
            )


@functools.cache
def _logits(shape: Shape, seed: int) -> Array:
    return 3 * np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@functools.cache
def _probs(shape: Shape, seed: int) -> Array:
    return klce.softmax(_logits(shape, seed))


def make_case(op: str, shape: Shape, threads: int) -> Case:
    """Return the case of `op` at `shape`, with that many threads for every contestant."""
    rows, classes = shape
    make = _probs if op.endswith("probs") else _logits
    floats = tuple(make(shape, seed) for seed in range(2 if op.startswith("kl") else 1))
    arrays = floats
    if op == "cross_entropy":
        arrays = (*floats, np.random.default_rng(9).integers(0, classes, rows))

    def result() -> Array:
        return np.zeros(shape if op.endswith("softmax") else rows, np.float32)

    klce.set_num_threads(threads)
    contestants: dict[str, Contestant] = {
        "klce": functools.partial(KLCE_WAYS[op], *arrays, out=result()),
        "numpy": _over_rows(NUMPY_WAYS[op], threads, *arrays, result()),
    }
    if torch_way := _torch_way(op, arrays, result()):
        peer("torch").set_num_threads(threads)
        contestants["torch"] = torch_way
    if scipy_way := _scipy_way(op):
        contestants["scipy"] = _over_rows(scipy_way, threads, *arrays)
    return Case(op, shape, floats, contestants)


def make_cases(ops: tuple[str, ...], shapes: tuple[Shape, ...], threads: int) -> Iterator[Case]:
    """Yield the cases of `ops` at `shapes`; one shape's input is alive at a time."""
    for shape in shapes:
        for op in ops:
            yield make_case(op, shape, threads)
        _logits.cache_clear()
        _probs.cache_clear()
