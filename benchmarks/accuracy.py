"""The accuracy of klce and of its rivals, measured: ``python -m benchmarks.accuracy``.

Every kind of row is drawn from a seed, rounded to a dtype, given to each contestant, and the
results are compared with those of ``benchmarks.truth`` on the same rounded rows. It writes
docs/accuracy.md; ``--quick`` draws a small part of the rows, as ``tests/test_accuracy.py`` does.
"""

from __future__ import annotations

import argparse
import importlib
import platform
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

import klce
from benchmarks import truth
from benchmarks.truth import Pair, exact
from tests.ulp import ulp_error

Array = NDArray[Any]
Rng = np.random.Generator
Form = str

PAGE = Path(__file__).parents[1] / "docs" / "accuracy.md"
DTYPES = {name: np.dtype(name) for name in ("float32", "float64", "float16")}
DTYPES["bfloat16"] = np.dtype(ml_dtypes.bfloat16)
HALVES = ("float16", "bfloat16")
TINIEST_DIVERGENCE = 1e-12  # below, an error counts as if the divergence were this


# --- the rows -------------------------------------------------------------------------------------
#
# A kind draws logits in float64; what is measured is their rounding to a dtype. Its plan is how
# many rows of how many classes.

SHORT = tuple((600, n) for n in (2, 3, 5, 10, 33))
MIDDLE = ((150, 257), (60, 1000), (12, 4099))
LONG = ((3, 32000), (1, 128256), (1, 262144))
SOME = ((400, 2), (300, 10), (40, 1000), (1, 50257))
QUICK = 40000  # classes at most
TEMPERATURES = (0.3, 0.7, 1.7, 10.0)


@dataclass(frozen=True)
class Kind:
    name: str
    about: str
    draw: Callable[[Rng, int, int, np.dtype[Any]], Any]  # logits, or a pair of them
    plan: tuple[tuple[int, int], ...]
    temperatures: tuple[float, ...] = (1.0,)


def spread(rng: Rng, rows: int, n: int) -> Array:
    """Normal logits of deviations from 0.1 to 100, another in each row."""
    return rng.normal(size=(rows, n)) * 10.0 ** rng.uniform(-1, 2, size=(rows, 1))


def epsilon(dtype: np.dtype[Any]) -> float:
    return float(ml_dtypes.finfo(dtype).eps)


def lowest(dtype: np.dtype[Any]) -> float:
    return float(ml_dtypes.finfo(dtype).min)


def plain(rng: Rng, rows: int, n: int, dtype: np.dtype[Any]) -> Array:
    return spread(rng, rows, n)


def tied(rng: Rng, rows: int, n: int, dtype: np.dtype[Any]) -> Array:
    """Two or three maxima, equal or some ULP to some tenths apart."""
    x = spread(rng, rows, n)
    top = x.max(axis=-1)
    for k in range(1, min(n, 3)):
        apart = rng.choice([0.0, 1.0, 3.0], size=rows) * epsilon(dtype) * np.abs(top)
        apart += rng.choice([0.0, 1.0], size=rows) * 10.0 ** rng.uniform(-6, 0, size=rows)
        x[np.arange(rows), (x.argmax(axis=-1) + k) % n] = top - apart
    return x


def offset(rng: Rng, rows: int, n: int, dtype: np.dtype[Any]) -> Array:
    far = rng.choice([-1e4, -300.0, -257.0, 255.0, 300.0, 1e4], size=(rows, 1))
    return spread(rng, rows, n) + far * rng.uniform(0.98, 1, size=(rows, 1))


def ahead(x: Array, lead: Array, at: Array) -> Array:
    """Put one class of each row that far ahead of the others."""
    x[np.arange(len(x)), at] = x.max(axis=-1) + lead
    return x


def confident(rng: Rng, rows: int, n: int, dtype: np.dtype[Any]) -> Array:
    return ahead(
        spread(rng, rows, n), rng.uniform(5, 100, size=rows), rng.integers(0, n, size=rows)
    )


def equal(rng: Rng, rows: int, n: int, dtype: np.dtype[Any]) -> Array:
    """All classes but one equal, or nearly: what rounding does to one, it does to all."""
    apart = rng.choice([0.0, 1e-3], size=(rows, 1))
    x = apart * rng.normal(size=(rows, n)) - rng.uniform(-1, np.log(n) + 30, size=(rows, 1))
    x[np.arange(rows), rng.integers(0, n, size=rows)] = rng.choice([0.0, 3.7], size=rows)
    return x


def late(rng: Rng, rows: int, n: int, dtype: np.dtype[Any]) -> Array:
    """Each block of 64 to 4096 classes with a larger maximum; sorted rows; the last class ahead."""
    x = spread(rng, rows, n)
    for row in x:
        how = rng.integers(0, 3)
        if how == 0:
            row += 10.0 ** rng.uniform(-3, 1) * (np.arange(n) // 2 ** rng.integers(6, 13))
        elif how == 1:
            row.sort()
        else:
            row[-1] = row.max() + 10.0 ** rng.uniform(-6, 2)
    return x


def masked(value: float | None) -> Callable[[Rng, int, int, np.dtype[Any]], Array]:
    def draw(rng: Rng, rows: int, n: int, dtype: np.dtype[Any]) -> Array:
        return mask(rng, spread(rng, rows, n), value if value is not None else lowest(dtype))

    return draw


def mask(rng: Rng, x: Array, value: float) -> Array:
    """Mask from a tenth to all but one of each row's classes: anywhere, a prefix, or a suffix."""
    n = x.shape[-1]
    for row in x:
        count = min(n - 1, int(n * rng.uniform(0.1, 1)))
        where = [rng.permutation(n)[:count], slice(0, count), slice(n - count, n)]
        row[where[rng.integers(0, 3)]] = value
    return x


def near_0(rng: Rng, rows: int, n: int, dtype: np.dtype[Any]) -> Array:
    """Rows whose logsumexp is next to 0: log-probabilities, and small numbers beside a 0."""
    x = spread(rng, rows, n)
    x -= x.max(axis=-1, keepdims=True)
    x[::2] -= np.log(np.exp(x[::2]).sum(axis=-1, keepdims=True))
    x[1::2] -= 10.0 ** rng.uniform(0, 2, size=(len(x[1::2]), 1)) * (x[1::2] < 0)
    return x


LOGITS = (
    Kind("short", "2 to 33 classes, scales 0.1 to 100", plain, SHORT),
    Kind("middle", "257 to 4099 classes, scales 0.1 to 100", plain, MIDDLE),
    Kind("long", "32000 to 262144 classes, scales 0.1 to 100", plain, LONG),
    Kind("tied", "two or three maxima equal or next to each other", tied, (*SHORT, (40, 1000))),
    Kind("offset", "all logits moved by 255 to 1e4, up or down", offset, SOME),
    Kind("confident", "one class 5 to 100 nats ahead", confident, (*SOME, (2, 128256))),
    Kind("equal", "all classes but one equal, or nearly", equal, (*SHORT, *MIDDLE, (2, 50257))),
    Kind(
        "late",
        "the maximum late, or rising from block to block",
        late,
        (*SOME, (2, 32000), (2, 262144)),
    ),
    Kind("near 0", "a logsumexp near 0", near_0, SOME),
    Kind("-inf", "a tenth to all but one of the classes masked with -inf", masked(-np.inf), SOME),
    Kind("-1e9", "masked with -1e9", masked(-1e9), SOME),
    Kind("lowest", "masked with the lowest finite number", masked(None), SOME),
    Kind("temperature", "temperatures 0.3 to 10", plain, SOME, TEMPERATURES),
)


def independent(rng: Rng, rows: int, n: int, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    scale = 10.0 ** rng.uniform(-1, 1, size=(2, rows, 1))
    x, y = rng.normal(size=(2, rows, n)) * scale
    return x, y


def near(rng: Rng, rows: int, n: int, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Pairs with divergences from about 1e-12 up."""
    x = rng.normal(size=(rows, n)) * 10.0 ** rng.uniform(-1, 1, size=(rows, 1))
    return x, x + rng.normal(size=(rows, n)) * 10.0 ** rng.uniform(-6, -1, size=(rows, 1))


def far(rng: Rng, rows: int, n: int, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    return spread(rng, rows, n), spread(rng, rows, n)


def confident_pair(rng: Rng, rows: int, n: int, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """One class ahead in both, by much the same or not."""
    x, y = near(rng, rows, n, dtype)
    lead, at = rng.uniform(5, 50, size=rows), rng.integers(0, n, size=rows)
    change = rng.choice([0.0, 1.0], size=rows) * rng.normal(size=rows)
    return ahead(x, lead, at), ahead(y, lead + change, at)


def offset_pair(rng: Rng, rows: int, n: int, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    x, y = independent(rng, rows, n, dtype)
    moved = rng.choice([-1e4, 0.0, 300.0, 1e4], size=(2, rows, 1))
    return x + moved[0], y + moved[1]


def masked_pair(rng: Rng, rows: int, n: int, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """The same classes masked in both, with -inf or -1e9; in every other pair they are near."""
    x, y = independent(rng, rows, n, dtype)
    y[::2] = x[::2] + 1e-3 * rng.normal(size=x[::2].shape)
    value = float(rng.choice([-np.inf, -1e9]))
    state = int(rng.integers(0, 2**32))
    mask(np.random.default_rng(state), x, value)
    mask(np.random.default_rng(state), y, value)
    return x, y


def late_pair(rng: Rng, rows: int, n: int, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    x = late(rng, rows, n, dtype) / 10
    return x, x + rng.normal(size=x.shape) * 10.0 ** rng.uniform(-4, 0, size=(rows, 1))


PAIRS = (
    Kind("short", "2 to 33 classes, scales 0.1 to 10", independent, SHORT),
    Kind("middle", "257 to 4099 classes, scales 0.1 to 10", independent, MIDDLE),
    Kind("long", "32000 to 262144 classes, scales 0.1 to 10", independent, LONG),
    Kind("near", "differing by 1e-6 to 0.1: divergences from 1e-12", near, (*SHORT, *MIDDLE)),
    Kind("near, long", "the same, 32000 to 262144 classes", near, LONG),
    Kind("far", "scales 0.1 to 100", far, SOME),
    Kind("confident", "one class 5 to 50 nats ahead in both", confident_pair, SOME),
    Kind("offset", "moved by -1e4, 300 or 1e4, each its way", offset_pair, SOME),
    Kind("masked", "the same classes masked in both, by -inf or -1e9", masked_pair, SOME),
    Kind("late", "the maximum late, or rising from block to block", late_pair, (*SOME, (2, 32000))),
    Kind("temperature", "temperatures 0.3 to 10", near, SOME, TEMPERATURES),
)
BLOCK = 1 << 16  # numbers that are drawn and measured together, unless one row is longer


@dataclass
class Sample:
    """Some rows of a kind, or pairs of them, in one dtype."""

    rows: tuple[Array, ...]
    target: NDArray[np.int64]
    temperature: float = 1.0
    _truths: dict[Any, Any] = field(default_factory=dict)

    @property
    def classes(self) -> int:
        return int(self.rows[0].shape[-1])

    def given(self, k: int, form: Form) -> Array:
        """Return row k in a form, rounded to the dtype."""
        if form == "logits":
            return self.rows[k]
        return self.once(("given", k, form), lambda: in_form(self.rows[k], form))

    def truth(self, k: int, form: Form, normalize: bool = True) -> Any:
        """Return the true distributions of what is given."""
        return self.once((k, form, normalize), lambda: self._truth(k, form, normalize))

    def _truth(self, k: int, form: Form, normalize: bool) -> Any:
        x = self.given(k, form).astype(np.float64)
        if form == "logits":
            return truth.of_logits(x, self.temperature)
        if form == "probs":
            return truth.of_probs(x) if normalize else truth.masses_of_probs(x)
        return truth.of_logits(x) if normalize else truth.masses_of_log_probs(x)

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._truths:
            self._truths[key] = make()
        return self._truths[key]


def in_form(logits: Array, form: Form) -> Array:
    z = logits.astype(np.float64)
    z = z - z.max(axis=-1, keepdims=True)
    z = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
    return (np.exp(z) if form == "probs" else z).astype(logits.dtype)


def samples(kind: Kind, dtype: np.dtype[Any], quick: bool) -> Iterator[Sample]:
    for planned, n in kind.plan:
        if quick and n > QUICK:
            continue
        count = -(-planned // 20) if quick else planned
        for k, temperature in enumerate(kind.temperatures):
            rng = np.random.default_rng([n, k, *map(ord, kind.name)])
            step = max(1, BLOCK // n)
            for start in range(0, count, step):
                drawn = kind.draw(rng, min(step, count - start), n, dtype)
                pair = drawn if isinstance(drawn, tuple) else (drawn,)
                with np.errstate(over="ignore"):  # -1e9 is -inf in float16
                    rows = tuple(x.astype(dtype) for x in pair)
                # Every other row is measured at its likeliest class.
                target = rng.integers(0, n, size=len(rows[0]))
                target[::2] = rows[0][::2].argmax(axis=-1)
                yield Sample(rows, target, temperature)


# --- the contestants ------------------------------------------------------------------------------


class Klce:
    """klce as it comes."""

    normalizes = True
    version = klce.__version__

    def logsumexp(self, x: Array) -> Any:
        return klce.logsumexp(x)

    def softmax(self, x: Array, t: float) -> Any:
        return klce.softmax(x, temperature=t)

    def log_softmax(self, x: Array, t: float) -> Any:
        return klce.log_softmax(x, temperature=t)

    def cross_entropy(self, x: Array, target: Array, t: float) -> Any:
        return klce.cross_entropy(x, target, temperature=t, reduction="none")

    def entropy(self, p: Array, form: Any, t: float) -> Any:
        return klce.entropy(p, form=form, temperature=t)

    def kl(self, p: Array, q: Array, forms: Any, t: float) -> Any:
        return klce.kl_divergence(p, q, form=forms, temperature=t)

    def js(self, p: Array, q: Array, forms: Any, t: float) -> Any:
        return klce.js_divergence(p, q, form=forms, temperature=t)


class Numpy:
    """The textbook's formulas, the maximum subtracted."""

    normalizes = False

    def __init__(self) -> None:
        self.version = np.__version__

    def taken(self, x: Array) -> Any:
        """Halves become float32: NumPy and SciPy would round every step to 11 or 8 bits."""
        return x.astype(np.float32) if x.dtype.itemsize == 2 else x

    def logsumexp(self, x: Any) -> Any:
        x = self.taken(x)
        m = x.max(axis=-1, keepdims=True)
        return (m + np.log(np.exp(x - m).sum(axis=-1, keepdims=True)))[..., 0]

    def softmax(self, x: Any, t: float) -> Any:
        x = self.taken(x) / np.float32(t) if x.dtype.itemsize < 8 else x / t
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)

    def log_softmax(self, x: Any, t: float) -> Any:
        x = self.taken(x) / np.float32(t) if x.dtype.itemsize < 8 else x / t
        z = x - x.max(axis=-1, keepdims=True)
        return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))

    def cross_entropy(self, x: Any, target: Array, t: float) -> Any:
        return -np.take_along_axis(self.log_softmax(x, t), target[:, None], axis=-1)[:, 0]

    def probs(self, p: Any, form: Form, t: float) -> Any:
        if form == "logits":
            return self.softmax(p, t)
        return np.exp(self.taken(p)) if form == "log_probs" else self.taken(p)

    def log_probs(self, p: Any, form: Form, t: float) -> Any:
        if form == "logits":
            return self.log_softmax(p, t)
        return self.taken(p) if form == "log_probs" else np.log(self.taken(p))

    def entropy(self, p: Any, form: Form, t: float) -> Any:
        weights = self.probs(p, form, t)
        return -np.where(weights > 0, weights * self.log_probs(p, form, t), 0).sum(axis=-1)

    def kl(self, p: Any, q: Any, forms: tuple[Form, Form], t: float) -> Any:
        weights = self.probs(p, forms[0], t)
        ratio = self.log_probs(p, forms[0], t) - self.log_probs(q, forms[1], t)
        return np.where(weights > 0, weights * ratio, 0).sum(axis=-1)

    def js(self, p: Any, q: Any, forms: tuple[Form, Form], t: float) -> Any:
        p, q = self.probs(p, forms[0], t), self.probs(q, forms[1], t)
        m, both = (p + q) / 2, ("probs", "probs")
        return (self.kl(p, m, both, 1.0) + self.kl(q, m, both, 1.0)) / 2


class Scipy(Numpy):
    """scipy.special and scipy.stats, whose divergences take probabilities."""

    normalizes = True

    def __init__(self) -> None:
        self.version = _module("scipy").__version__
        self.special = _module("scipy.special")
        self.stats = _module("scipy.stats")
        self.distance = _module("scipy.spatial.distance")

    def logsumexp(self, x: Any) -> Any:
        return self.special.logsumexp(self.taken(x), axis=-1)

    def softmax(self, x: Any, t: float) -> Any:
        x = self.taken(x)
        return self.special.softmax(x / x.dtype.type(t), axis=-1)

    def log_softmax(self, x: Any, t: float) -> Any:
        x = self.taken(x)
        return self.special.log_softmax(x / x.dtype.type(t), axis=-1)

    def entropy(self, p: Any, form: Form, t: float) -> Any:
        return self.stats.entropy(self.probs(p, form, t), axis=-1)

    def kl(self, p: Any, q: Any, forms: tuple[Form, Form], t: float) -> Any:
        return self.stats.entropy(self.probs(p, forms[0], t), self.probs(q, forms[1], t), axis=-1)

    def js(self, p: Any, q: Any, forms: tuple[Form, Form], t: float) -> Any:
        p, q = self.probs(p, forms[0], t), self.probs(q, forms[1], t)
        return self.distance.jensenshannon(p, q, axis=-1) ** 2


class Torch(Numpy):
    """torch.nn.functional, in the dtype that is given."""

    def __init__(self) -> None:
        self.torch = _module("torch")
        self.torch.set_num_threads(1)
        self.functional = _module("torch.nn.functional")
        self.version = self.torch.__version__

    def taken(self, x: Any) -> Any:
        if not isinstance(x, np.ndarray):
            return x
        if x.dtype == DTYPES["bfloat16"]:
            return self.torch.from_numpy(x.view(np.int16)).view(self.torch.bfloat16)
        return self.torch.from_numpy(x)

    def logsumexp(self, x: Any) -> Any:
        return self.taken(x).logsumexp(-1)

    def softmax(self, x: Any, t: float) -> Any:
        return (self.taken(x) / t).softmax(-1)

    def log_softmax(self, x: Any, t: float) -> Any:
        return (self.taken(x) / t).log_softmax(-1)

    def cross_entropy(self, x: Any, target: Array, t: float) -> Any:
        labels = self.torch.from_numpy(target)
        return self.functional.cross_entropy(self.taken(x) / t, labels, reduction="none")

    def probs(self, p: Any, form: Form, t: float) -> Any:
        if form == "logits":
            return self.softmax(p, t)
        return self.taken(p).exp() if form == "log_probs" else self.taken(p)

    def log_probs(self, p: Any, form: Form, t: float) -> Any:
        if form == "logits":
            return self.log_softmax(p, t)
        return self.taken(p) if form == "log_probs" else self.taken(p).log()

    def entropy(self, p: Any, form: Form, t: float) -> Any:
        return self.torch.special.entr(self.probs(p, form, t)).sum(-1)

    def kl(self, p: Any, q: Any, forms: tuple[Form, Form], t: float) -> Any:
        log_q = self.log_probs(q, forms[1], t)
        if forms[0] == "probs":
            terms = self.functional.kl_div(log_q, self.taken(p), reduction="none")
        else:
            log_p = self.log_probs(p, forms[0], t)
            terms = self.functional.kl_div(log_q, log_p, reduction="none", log_target=True)
        return terms.sum(-1)


CONTESTANTS: dict[str, Callable[[], Any]] = {
    "klce": Klce,
    "torch": Torch,
    "scipy": Scipy,
    "numpy": Numpy,
}


def _module(name: str) -> ModuleType:
    return importlib.import_module(name)


# --- the measures ---------------------------------------------------------------------------------


def in_ulp(sample: Sample, actual: Array, want: Pair, dtype: np.dtype[Any]) -> Array:
    return ulp_error(actual, want.hi, want.lo, dtype)


def in_ulp_of_maximum(sample: Sample, actual: Array, want: Pair, dtype: np.dtype[Any]) -> Array:
    largest = np.abs(sample.rows[0].astype(np.float64).max(axis=-1))
    return ulp_error(actual, want.hi, want.lo, dtype, largest)


def in_ulp_of_normal_probs(
    sample: Sample, actual: Array, want: Pair, dtype: np.dtype[Any]
) -> Array:
    """Sums may drop subnormal probabilities: up to 128 of them may be missing from an entropy."""
    info = np.finfo(dtype)
    return ulp_error(actual, want.hi, want.lo, dtype, 64 * float(info.tiny / info.eps))


def in_ulp_of_subnormals(sample: Sample, actual: Array, want: Pair, dtype: np.dtype[Any]) -> Array:
    """Compare probabilities, those near 0 both enlarged: a subnormal truth lacks digits."""
    lift = np.where(want.hi < 2.0**-960, 200, 0)
    want = sample.truth(0, "logits").lifted(lift)
    smallest = np.ldexp(float(np.finfo(dtype).tiny), lift)
    return ulp_error(np.ldexp(actual, lift), want.hi, want.lo, dtype, smallest)


def relative_error(sample: Sample, actual: Array, want: Pair, dtype: np.dtype[Any]) -> Array:
    size = np.maximum(np.abs(want.hi), TINIEST_DIVERGENCE)
    error = np.abs((actual - want.hi) - want.lo) / size
    right = (actual == want.hi) | (np.isnan(actual) & np.isnan(want.hi))
    both = np.isfinite(actual) & np.isfinite(want.hi)
    return np.where(both, error, np.where(right, 0.0, np.inf))


@dataclass(frozen=True)
class Op:
    """One table: what is called, its truth, and the contract's bounds (float32, float64)."""

    name: str
    kinds: tuple[Kind, ...]
    call: Callable[[Any, Sample], Any]
    true: Callable[[Sample, bool], Pair]
    bounds: tuple[float, float]
    distance: Callable[[Sample, Array, Pair, np.dtype[Any]], Array]
    forms: tuple[Form, ...] = ("logits",)
    halves: bool = True
    tempered: bool = True

    def takes(self, kind: Kind) -> bool:
        if kind.name == "temperature":
            return self.tempered and "logits" in self.forms
        # Probabilities and log-probabilities know nothing of an offset.
        return "logits" in self.forms or kind.name not in ("offset", "near 0", "-1e9", "lowest")

    @property
    def relative(self) -> bool:
        return self.distance is relative_error

    @property
    def dtypes(self) -> tuple[str, ...]:
        return ("float32", "float64", *(HALVES if self.halves else ()))

    def bound(self, dtype: str) -> float:
        return self.bounds[dtype == "float64"]

    def errors(self, sample: Sample, contestant: Any, dtype: np.dtype[Any]) -> tuple[Array, int]:
        """Return the errors of a contestant's results, and how many of them are negative."""
        with np.errstate(all="ignore"):
            raw = self.call(contestant, sample)
        if not isinstance(raw, np.ndarray | np.generic):
            raw = raw.double().numpy()
        actual = np.asarray(raw, np.float64)
        normalize = contestant.normalizes or set(self.forms) == {"logits"}
        counted = dtype if dtype.itemsize > 2 else DTYPES["float32"]
        with np.errstate(all="ignore"):
            want = sample.once((self.name, normalize), lambda: self.true(sample, normalize))
            return self.distance(sample, actual, want, counted), int((actual < 0).sum())


def _true_logsumexp(sample: Sample, _: bool) -> Pair:
    x = sample.rows[0].astype(np.float64).max(axis=-1)
    return exact(x) + sample.truth(0, "logits").log_total[..., 0]


def _true_loss(sample: Sample, _: bool) -> Pair:
    log_p = sample.truth(0, "logits").log_p
    return -log_p[np.arange(len(sample.target)), sample.target]


def _entropy(form: Form) -> Op:
    return Op(
        f"entropy of {form}",
        LOGITS,
        lambda lib, s: lib.entropy(s.given(0, form), form, s.temperature),
        lambda s, normalize: truth.entropy(s.truth(0, form, normalize)),
        (4, 4),
        in_ulp_of_normal_probs if form == "probs" else in_ulp,
        forms=(form,),
    )


def _divergence(measure: str, *forms: Form) -> Op:
    true = getattr(truth, measure)
    name = {"kl": "KL divergence", "js": "JS divergence"}[measure]

    def call(lib: Any, s: Sample) -> Any:
        p, q = (s.given(k, form) for k, form in enumerate(forms))
        given = forms[0] if isinstance(lib, Klce) and forms[0] == forms[1] else forms
        return getattr(lib, measure)(p, q, given, s.temperature)

    return Op(
        f"{name} of {forms[0] if forms[0] == forms[1] else ' from '.join(forms)}",
        PAIRS,
        call,
        lambda s, normalize: true(
            *(s.truth(k, form, normalize or form == "logits") for k, form in enumerate(forms))
        ),
        (1e-6, 1e-13),
        relative_error,
        forms=forms,
    )


OPS = (
    Op(
        "logsumexp",
        LOGITS,
        lambda lib, s: lib.logsumexp(s.rows[0]),
        _true_logsumexp,
        (2, 4),
        in_ulp_of_maximum,
        halves=False,
        tempered=False,
    ),
    Op(
        "softmax",
        LOGITS,
        lambda lib, s: lib.softmax(s.rows[0], s.temperature),
        lambda s, _: s.truth(0, "logits").p,
        (2, 4),
        in_ulp_of_subnormals,
        halves=False,
    ),
    Op(
        "log_softmax",
        LOGITS,
        lambda lib, s: lib.log_softmax(s.rows[0], s.temperature),
        lambda s, _: s.truth(0, "logits").log_p,
        (2, 4),
        in_ulp,
        halves=False,
    ),
    Op(
        "cross_entropy",
        LOGITS,
        lambda lib, s: lib.cross_entropy(s.rows[0], s.target, s.temperature),
        _true_loss,
        (2, 4),
        in_ulp,
    ),
    _entropy("logits"),
    _entropy("log_probs"),
    _entropy("probs"),
    _divergence("kl", "logits", "logits"),
    _divergence("kl", "log_probs", "log_probs"),
    _divergence("kl", "probs", "probs"),
    _divergence("kl", "probs", "logits"),
    _divergence("js", "logits", "logits"),
    _divergence("js", "log_probs", "log_probs"),
    _divergence("js", "probs", "probs"),
)


@dataclass
class Cell:
    """The errors of one contestant on rows of one kind."""

    parts: list[Array] = field(default_factory=list)
    negative: int = 0
    worst: float = -1.0
    classes: int = 0  # of the row with the worst error
    count: int = 0
    percentile: float = -1.0

    def add(self, errors: Array, negative: int, classes: int) -> None:
        self.parts.append(errors.ravel().astype(np.float32))
        self.negative += negative
        if (worst := float(errors.max())) > self.worst:
            self.worst, self.classes = worst, classes

    def settle(self) -> None:
        """Keep the count and the percentile, an error that was seen, and let go of the errors."""
        if self.parts:
            errors = np.concatenate(self.parts)
            self.parts.clear()
            self.count = errors.size
            at = int(np.ceil(0.999 * self.count)) - 1
            self.percentile = float(np.partition(errors, at)[at])


Cells = dict[tuple[str, str, str, str], Cell]  # by op, kind, dtype, contestant


@cache
def contestant(name: str) -> Any | None:
    """Return a contestant, or None where it is not installed."""
    try:
        return CONTESTANTS[name]()
    except ModuleNotFoundError:
        return None


def measure(
    *,
    quick: bool = False,
    ops: tuple[Op, ...] = OPS,
    names: tuple[str, ...] = tuple(CONTESTANTS),
    only: Kind | None = None,
    draw: Callable[[Kind, np.dtype[Any], bool], Iterable[Sample]] = samples,
) -> Cells:
    """Measure the contestants that are installed, on one kind of rows or on all."""
    cells: Cells = {}
    present = {name: lib for name in names if (lib := contestant(name))}
    for kinds in (LOGITS, PAIRS):
        for kind in kinds:
            if only not in (None, kind):
                continue
            asked = [op for op in ops if op.kinds is kinds and op.takes(kind)]
            for dtype in DTYPES:
                for op in asked:
                    for name in present if dtype in op.dtypes else ():
                        cells[op.name, kind.name, dtype, name] = Cell()
                for sample in draw(kind, DTYPES[dtype], quick) if asked else ():
                    for op in asked:
                        for name, lib in present.items() if dtype in op.dtypes else ():
                            errors = op.errors(sample, lib, DTYPES[dtype])
                            cells[op.name, kind.name, dtype, name].add(*errors, sample.classes)
            for cell in cells.values():
                cell.settle()
    return cells


# --- the page -------------------------------------------------------------------------------------

LABELS = {"klce": "klce", "torch": "torch", "scipy": "SciPy", "numpy": "NumPy"}


def missed(cells: Cells, ops: tuple[Op, ...] = OPS) -> list[str]:
    """Say where klce misses a bound, or gives a negative divergence."""
    by_name = {op.name: op for op in ops}
    lines = []
    for (name, kind, dtype, who), cell in cells.items():
        op = by_name[name]
        if who == "klce" and not cell.worst <= op.bound(dtype):
            lines.append(
                f"{name}, {kind}, {dtype}: {figure(op, cell.worst)} at {cell.classes} classes, "
                f"the bound is {op.bound(dtype):g}"
            )
        if who == "klce" and op.relative and cell.negative:
            lines.append(f"{name}, {kind}, {dtype}: {cell.negative} results are negative")
    return lines


def worse(cells: Cells) -> list[str]:
    """Say where the worst error of a rival is smaller than klce's, as printed."""
    by_name = {op.name: op for op in OPS}
    lines = []
    for (name, kind, dtype, who), cell in cells.items():
        if who != "klce":
            continue
        op, own = by_name[name], figure(by_name[name], cell.worst)
        rivals = {
            LABELS[rival]: other
            for rival in LABELS
            if rival != "klce" and (other := cells.get((name, kind, dtype, rival)))
        }
        better = [
            f"{label} {figure(op, other.worst)}"
            for label, other in rivals.items()
            if float(figure(op, other.worst)) < float(own)
        ]
        if better:
            lines.append(f"- {name}, {kind}, {dtype}: klce {own}, {', '.join(better)}")
    return lines


def figure(op: Op, error: float) -> str:
    if not np.isfinite(error):
        return "inf"
    if op.relative:
        return f"{error:.1e}"
    return f"{error:.2f}" if error < 100 else f"{error:.1e}"


def shown(op: Op, cell: Cell | None) -> str:
    """Return the worst error and, in brackets, the 99.9 percentile."""
    if cell is None:
        return "-"
    text = f"{figure(op, cell.worst)} ({figure(op, cell.percentile)})"
    if op.relative and cell.negative:
        text += f" {100 * cell.negative / cell.count:.1f} % < 0"
    return text


def table(op: Op, cells: Cells, names: list[str]) -> Iterator[str]:
    unit = "relative error" if op.relative else "ULP"
    bounds = [f"{op.bound(dtype):g}".replace("e-0", "e-") for dtype in ("float32", "float64")]
    yield f"\n### {op.name}\n"
    yield f"In {unit}; the bounds are {bounds[0]} for float32 and {bounds[1]} for float64.\n"
    yield "| rows | dtype | " + " | ".join(LABELS[name] for name in names) + " |"
    yield "|---|---|" + "---|" * len(names)
    for kind in op.kinds:
        for dtype in op.dtypes if op.takes(kind) else ():
            row = [shown(op, cells.get((op.name, kind.name, dtype, name))) for name in names]
            yield f"| {kind.name} | {dtype} | " + " | ".join(row) + " |"


def page(cells: Cells) -> str:
    """Return docs/accuracy.md."""
    names = [name for name in LABELS if contestant(name)]
    missing = [LABELS[name] for name in LABELS if name not in names]
    versions = ", ".join(f"{LABELS[name]} {contestant(name).version}" for name in names)
    lines = [
        "# Accuracy",
        "",
        "Written by `python -m benchmarks.accuracy`; not edited by hand.",
        "",
        HOW.strip(),
        "",
        f"Measured: {versions}; klce's {klce.get_config()['isa']} kernels on {platform.machine()}."
        + (f" **Not installed, hence without a column: {', '.join(missing)}.**" if missing else ""),
        "",
        "## The rows",
        "",
    ]
    for title, kinds in (("One distribution", LOGITS), ("Pairs of distributions", PAIRS)):
        lines += [f"{title}:", "", "| rows | what they are | rows x classes |", "|---|---|---|"]
        for kind in kinds:
            plan = ", ".join(
                f"{rows * len(kind.temperatures)} x {classes}" for rows, classes in kind.plan
            )
            lines.append(f"| {kind.name} | {kind.about} | {plan} |")
        lines.append("")
    lines += ["## Does klce keep its bounds?", ""]
    lines += [f"- **{line}**" for line in missed(cells)] or [
        "Yes, in every cell below, and none of its divergences is negative."
    ]
    lines += ["", "## Where klce is worse than a rival", ""]
    lines.append("By the worst error, as printed; all others are equal or better.\n")
    lines += worse(cells) or ["Nowhere."]
    lines += ["", "## The tables"]
    for op in OPS:
        lines += table(op, cells, names)
    return "\n".join(lines) + "\n"


HOW = """
The worst error, and in brackets the 99.9 percentile, of what each library returns for rows of many
kinds. The truth is computed from the same rows, as rounded to their dtype, in pairs of doubles (106
bits); `benchmarks/truth.py` says how, and why that is good enough for the strictest bound. The
bounds are those of these rows; README's, which are wider, hold for rows made to be rounded badly,
too.

- **ULP** are units in the last place of the result's dtype, at the true value. Near 0 a logsumexp
  counts ULP of its row's maximum. A correctly rounded result is within 0.5.
- **Relative errors** are those of divergences; below a divergence of 1e-12 they are relative to
  that. A share of results that are negative stands beside them: no divergence is.
- **inf** stands for a result that is nan or infinite where the truth is not, or the reverse.
- **float16 and bfloat16 rows** are counted in ULP of float32, which is what klce returns for them.
  torch rounds such results to 16 bits, which alone is up to 4096 and 32768 ULP of float32. NumPy
  and SciPy are given the rows as float32.
- An entropy of probabilities may leave out subnormal ones: a ULP is never less than one of 64 times
  the smallest normal number over epsilon.
- Of probabilities and log-probabilities, klce and SciPy normalise (their entropies and divergences
  are those of p over its sum), torch and NumPy do not: each is held against what it defines.
- klce is called as it comes. torch: `nn.functional` and `special.entr`; SciPy: `special`,
  `stats.entropy` and `spatial.distance.jensenshannon`, squared; NumPy: the textbook's formulas with
  the maximum subtracted. What is no function of a library is made of its softmax, log_softmax, exp
  and log.
"""


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small part of the rows; no page")
    parser.add_argument("--out", type=Path, default=PAGE, help="where to write the page")
    options = parser.parse_args()
    with klce.threads(1):
        cells = measure(quick=options.quick)
    for name in LABELS:
        if not contestant(name):
            print(f"{LABELS[name]} is not installed")
    if options.quick:
        names = [name for name in LABELS if contestant(name)]
        print("\n".join(line for op in OPS for line in table(op, cells, names)))
    else:
        options.out.write_text(page(cells))
        print(options.out)
    if lines := missed(cells):
        sys.exit("\n".join(["klce misses its bounds:", *lines]))


if __name__ == "__main__":
    main()
