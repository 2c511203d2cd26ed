"""Write golden.npz and pairs.npz: the true results of every kernel, by textbook formulas in mpmath.

Run in the root: ``python -m tests.golden.generate [FILE ...]``; it takes some three minutes. The
same data comes out every time, but for inputs that are a softmax: they depend on the machine's exp,
and are stored.

A row is computed with 60 digits, plus as many as its textbook formula may cancel: those between its
largest and its smallest term (log p of a class that is 700 nats ahead is -1e-304, the logarithm of
a sum of 1 and 1e-304), and those in front of the point of its maximum. Terms more than 1600 nats
down do not reach a float64 and are not counted. So a stored result is off by its storage only: 1/2
part in 2**16 of a ULP of float64, or half the smallest subnormal for a result that is subnormal.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import mpmath
import numpy as np
from mpmath import mp, mpf
from numpy.typing import NDArray

from .cases import FOLDER, PARTS, bell, checksum, make

Array = NDArray[Any]
DTYPES = ("float32", "float64")
TINY = {"float32": 2.0**-149, "float64": 2.0**-1074}


# --- the truth ------------------------------------------------------------------------------------
#
# Each function takes rows of floats and returns (values, scale), under enough digits. None stands
# for minus infinity.


class Logits:
    """One row x/T: its exponentials and their sum."""

    def __init__(self, x: Array, temperature: float = 1.0) -> None:
        t = mpf(temperature)
        self.z = [mpf(v) / t if v > -math.inf else None for v in x.tolist()]
        self.e = [mpf(0) if z is None else mpmath.exp(z) for z in self.z]
        self.total = mpmath.fsum(self.e)
        self.lse = mpmath.log(self.total)
        self.max = max(z for z in self.z if z is not None)

    def log_p(self, i: int) -> Any:
        return None if self.z[i] is None else self.z[i] - self.lse


@contextmanager
def digits(before: float, after: float) -> Iterator[None]:
    """Compute with 60 digits beyond those of sums of this size that may cancel to that size."""
    global nothing
    with mp.workdps(math.ceil(before + after + 60)):
        # What is left of a sum that is 0. True results have some 30 digits less of a gap.
        nothing = mpf(10) ** -math.ceil(after + 45)
        yield


nothing = mpf(0)


def for_logits(rows: list[Array], temperature: float = 1.0) -> AbstractContextManager[None]:
    before, after = 0.0, 0.0
    for row in rows:
        x = row[row > -np.inf].astype(np.longdouble) / temperature
        x = x[x >= x.max() - 1600]
        before = max(before, math.log10(1 + abs(x.max())))
        after = max(after, float(x.max() - x.min()) / math.log(10))
    return digits(before, after)


def for_probs(rows: list[Array]) -> AbstractContextManager[None]:
    positive = np.concatenate([row[row > 0] for row in rows])
    return digits(math.log10(1 + positive.max()), -math.log10(min(1, positive.min())))


def logsumexp(x: Logits) -> tuple[list[Any], Any]:
    return [x.lse], x.max


def softmax(x: Logits, at: list[int]) -> tuple[list[Any], Any]:
    return [x.e[i] / x.total for i in at], None


def log_softmax(x: Logits, at: list[int]) -> tuple[list[Any], Any]:
    return [x.log_p(i) for i in at], None


def cross_entropy(
    x: Logits, target: int, ignore_index: int = -100, z_loss: float = 0.0
) -> tuple[list[Any], Any]:
    if target == ignore_index:
        return [mpf(0)], 0
    loss = -x.log_p(target)
    # The squared logsumexp near 0 is as good as the logsumexp: in ULP of the maximum.
    return [loss + mpf(z_loss) * x.lse**2], loss + mpf(z_loss) * x.max**2


def entropy_logits(x: Logits) -> tuple[list[Any], Any]:
    total = mpmath.fsum(e * z for e, z in zip(x.e, x.z, strict=True) if e)
    return [x.lse - total / x.total], None


def kl_logits(x: Logits, y: Logits) -> tuple[list[Any], Any]:
    pairs = ((e, x.log_p(i) - y.log_p(i)) for i, e in enumerate(x.e) if e)
    return [mpmath.fsum(e * ratio for e, ratio in pairs) / x.total], None


def entropy_log_probs(x: Array) -> tuple[list[Any], Any]:
    terms = [-mpmath.exp(mpf(v)) * mpf(v) for v in x.tolist() if v > -np.inf]
    return [mpmath.fsum(terms)], mpmath.fsum(map(abs, terms))


def kl_log_probs(x: Array, y: Array) -> tuple[list[Any], Any]:
    pairs = zip(x.tolist(), y.tolist(), strict=True)
    terms = [mpmath.exp(mpf(a)) * (mpf(a) - mpf(b)) for a, b in pairs if a > -np.inf]
    return [mpmath.fsum(terms)], mpmath.fsum(map(abs, terms))


class Probs:
    """One row of p: its logarithms and its sum."""

    def __init__(self, p: Array) -> None:
        self.p = [mpf(v) for v in p.tolist()]
        self.log = [mpmath.log(v) if v else None for v in self.p]
        self.total = mpmath.fsum(self.p)


def entropy_probs(p: Probs, normalize: bool = True) -> tuple[list[Any], Any]:
    terms = [-a * log for a, log in zip(p.p, p.log, strict=True) if a]
    if normalize:
        return [mpmath.fsum(terms) / p.total + mpmath.log(p.total)], None
    return [mpmath.fsum(terms)], mpmath.fsum(map(abs, terms))


def kl_probs(p: Probs, q: Probs, normalize: bool = True) -> tuple[list[Any], Any]:
    terms = [a * (log - q.log[i]) for i, (a, log) in enumerate(zip(p.p, p.log, strict=True)) if a]
    if normalize:
        return [mpmath.fsum(terms) / p.total + mpmath.log(q.total / p.total)], None
    return [mpmath.fsum(terms)], mpmath.fsum(map(abs, terms))


class Shares:
    """The probabilities of one row in a form, and their logarithms; up to scale if to normalise."""

    def __init__(self, row: Array, form: str, normalize: bool, temperature: float) -> None:
        if form == "probs":
            probs = Probs(row)
            total = probs.total if normalize else mpf(1)
            self.p = [v / total for v in probs.p]
            self.log = [None if v is None else v - mpmath.log(total) for v in probs.log]
        elif normalize:
            x = Logits(row, temperature)
            self.p = [e / x.total for e in x.e]
            self.log = [x.log_p(i) for i in range(len(row))]
        else:
            self.log = [mpf(v) if v > -math.inf else None for v in row.tolist()]
            self.p = [mpf(0) if v is None else mpmath.exp(v) for v in self.log]


def kl_of_shares(p: Shares, q: Shares) -> tuple[Any, Any]:
    terms = [a * (log - q.log[i]) for i, (a, log) in enumerate(zip(p.p, p.log, strict=True)) if a]
    return mpmath.fsum(terms), mpmath.fsum(map(abs, terms))


def js_of_shares(p: Shares, q: Shares) -> tuple[Any, Any]:
    terms = []
    for a, b in zip(p.p, q.p, strict=True):
        terms += [v * mpmath.log(2 * v / (a + b)) / 2 for v in (a, b) if v]
    return mpmath.fsum(terms), None


def logsumexp_scaled(x: Array, b: Array) -> tuple[Any, Any, Any]:
    """The logarithm, the sign, and the size at which to count ULP.

    That is the largest part of the terms that matter, as many times as the sum of the absolute
    terms is larger than the sum.
    """
    pairs = [(mpf(v), mpf(c)) for v, c in zip(x.tolist(), b.tolist(), strict=True) if c]
    terms = [c * mpmath.exp(v) for v, c in pairs]
    total, absolute = mpmath.fsum(terms), mpmath.fsum(map(abs, terms))
    sizes = [
        max(abs(v), abs(mpmath.log(abs(c))))
        for (v, c), term in zip(pairs, terms, strict=True)
        if abs(term) > absolute * mpf(10) ** -20
    ]
    lost = absolute / abs(total)
    scale = max(sizes) * lost + (lost if lost > 1.0001 else 0)
    return mpmath.log(abs(total)), mpmath.sign(total), scale


def rel_entr(p: float, q: float) -> Any:
    return mpf(p) * mpmath.log(mpf(p) / mpf(q))


def information(p: float) -> Any:
    return -mpmath.log(mpf(p))


def binary_entropy(p: float) -> Any:
    parts = (v for v in (mpf(p), 1 - mpf(p)) if v)
    return mpmath.fsum(-v * mpmath.log(v) for v in parts)


# --- the file -------------------------------------------------------------------------------------


class Store:
    """What golden.npz will hold: pools of numbers, and an index of spans of them."""

    def __init__(self) -> None:
        self.pools: dict[str, list[Any]] = {
            name: [] for name in ("float32", "float64", "int64", "hi", "lo", "scale", "positions")
        }
        self.inputs: list[dict[str, Any]] = []
        self.cases: list[dict[str, Any]] = []
        self.kept: dict[Any, int] = {}

    def extend(self, pool: str, values: Any) -> list[int]:
        start = len(self.pools[pool])
        self.pools[pool].extend(np.ravel(values).tolist())
        return [start, len(self.pools[pool])]

    def stored(self, values: Array) -> int:
        pool = values.dtype.name
        start = self.extend(pool, values)[0]
        self.inputs.append({"pool": pool, "start": start, "shape": list(values.shape)})
        return len(self.inputs) - 1

    def shared(self, values: Array) -> int:
        """As ``stored``, but once for all cases that have the same."""
        key = values.dtype.name, values.shape, values.tobytes()
        if key not in self.kept:
            self.kept[key] = self.stored(values)
        return self.kept[key]

    def made(self, **recipe: Any) -> tuple[Array, int]:
        row = make(**recipe)
        self.inputs.append({**recipe, "crc": checksum(row)})
        return row, len(self.inputs) - 1

    def truth(self, values: list[Any]) -> list[int]:
        """Keep values as float64 and parts of its spacing."""
        for value in values:
            if value is not None and abs(value) < nothing:
                value = mpf(0)
            hi = -math.inf if value is None else float(value)
            finite = math.isfinite(hi)
            part = round((value - mpf(hi)) / mpf(math.ulp(hi)) * PARTS) if finite else 0
            self.pools["hi"].append(hi)
            self.pools["lo"].append(max(-PARTS // 2, min(part, PARTS // 2 - 1)))
        return [len(self.pools["hi"]) - len(values), len(self.pools["hi"])]

    def case(
        self,
        name: str,
        kernel: str,
        dtype: str,
        inputs: list[int],
        expected: list[int],
        scale: list[Any] | None = None,
        positions: list[int] | None = None,
        output: int | str | None = None,
        **params: Any,
    ) -> None:
        options = "".join(f"-{k}={v}" for k, v in params.items())
        part = "" if output is None else f"[{output}]"
        self.cases.append(
            {
                "id": f"{kernel}{part}-{dtype}-{name}{options}",
                "kernel": kernel,
                "dtype": dtype,
                "inputs": inputs,
                "params": params,
                "output": output,
                "expected": expected,
                "positions": None if positions is None else self.extend("positions", positions),
                "scale": None if scale is None else self.extend("scale", [float(s) for s in scale]),
            }
        )

    def write(self, name: str) -> None:
        index = json.dumps({"inputs": self.inputs, "cases": self.cases}, separators=(",", ":"))
        types = {"hi": "f8", "lo": "i2", "scale": "f8", "positions": "i4"}
        pools = {name: np.array(v, types.get(name, name)) for name, v in self.pools.items()}
        np.savez_compressed(FOLDER / name, index=np.frombuffer(index.encode(), np.uint8), **pools)


# --- the cases ------------------------------------------------------------------------------------


def sample(row: Array, seed: int) -> list[int]:
    """Positions to keep of a map over a row: all, or the ends, the extremes and some others."""
    n = len(row)
    if n <= 70:
        return list(range(n))
    rank = np.argsort(row, kind="stable")
    some = np.random.PCG64(seed).random_raw(150 if n >= 1000 else 40) % np.uint64(n)
    ends = [*range(4), *range(n - 4, n)]
    return sorted({*ends, *rank[:20].tolist(), *rank[-10:].tolist(), *some.tolist()})


def add_logits(
    store: Store,
    name: str,
    x: Array,
    key: int,
    temperatures: tuple[float, ...] = (1.0,),
    z_losses: tuple[float, ...] = (),
) -> None:
    """Every kernel of one array of logits, on the rows of x (input ``key``)."""
    dtype, (rows, n) = x.dtype.name, x.shape
    top = x.argmax(axis=1)
    other = (np.random.PCG64(key).random_raw(rows) % np.uint64(n)).astype(np.int64)
    other = np.where(np.isneginf(x[np.arange(rows), other]), top, other)
    if rows > 1:
        other[0] = -100
    targets = {"top": top, "any": other}
    target_keys = {kind: store.stored(target) for kind, target in targets.items()}
    for temperature in temperatures:
        options = {} if temperature == 1 else {"temperature": temperature}
        with for_logits([*x], temperature):
            exact = [Logits(row, temperature) for row in x]
            at = [sample(row, key + i) for i, row in enumerate(x)]
            positions = [i * n + j for i, js in enumerate(at) for j in js]
            if n <= 70:
                positions = None
            for kernel in (softmax, log_softmax):
                found = [v for row, js in zip(exact, at, strict=True) for v in kernel(row, js)[0]]
                span = store.truth(found)
                store.case(
                    name, kernel.__name__, dtype, [key], span, positions=positions, **options
                )
            entropies = store.truth([entropy_logits(row)[0][0] for row in exact])
            store.case(name, "entropy_logits", dtype, [key], entropies, **options)
            losses = {}
            for z_loss in (0.0, *z_losses):
                more = {"z_loss": z_loss} if z_loss else {}
                for kind, target in targets.items():
                    found = [
                        cross_entropy(row, t, **more)
                        for row, t in zip(exact, target.tolist(), strict=True)
                    ]
                    span = store.truth([values[0] for values, _ in found])
                    store.case(
                        f"{name}-{kind}",
                        "cross_entropy",
                        dtype,
                        [key, target_keys[kind]],
                        span,
                        scale=[s for _, s in found] if z_loss else None,
                        **options,
                        **more,
                    )
                    losses.setdefault(kind, span)
            if temperature != 1:
                continue
            lse = store.truth([row.lse for row in exact])
            scale = [abs(row.max) for row in exact]
            store.case(name, "logsumexp", dtype, [key], lse, scale)
            for kind, span in losses.items():
                both = [key, target_keys[kind]]
                store.case(f"{name}-{kind}", "score", dtype, both, span, output=0)
            best = store.truth([mpf(int(i)) for i in top])
            store.case(name, "score", dtype, both, entropies, output=1)
            store.case(name, "score", dtype, both, lse, scale, output=2)
            store.case(name, "score", dtype, both, best, output=3)


def add_kl_logits(
    store: Store, name: str, pair: tuple[Array, Array], keys: list[int], temperatures=(1.0,)
) -> None:
    x, y = pair
    for temperature in temperatures:
        with for_logits([*x, *y], temperature):
            found = [
                kl_logits(Logits(a, temperature), Logits(b, temperature))[0][0]
                for a, b in zip(x, y, strict=True)
            ]
            options = {} if temperature == 1 else {"temperature": temperature}
            store.case(name, "kl_logits", x.dtype.name, keys, store.truth(found), **options)


def add_log_probs(store: Store, name: str, pair: tuple[Array, Array], keys: list[int]) -> None:
    """The plain sums, and the lookup, of log-probabilities."""
    x, y = pair
    dtype = x.dtype.name
    target = x.argmin(axis=1)
    target_key = store.stored(target)
    picked = [float(v) for v in x[np.arange(len(x)), target]]
    span = store.truth([None if v == -math.inf else -mpf(v) for v in picked])
    if -math.inf not in picked:
        store.case(name, "nll", dtype, [keys[0], target_key], span)
    with for_logits([*x, *y]):
        found = [entropy_log_probs(a) for a in x]
        span = store.truth([v[0] for v, _ in found])
        store.case(name, "entropy_log_probs", dtype, keys[:1], span, [s for _, s in found])
        found = [kl_log_probs(a, b) for a, b in zip(x, y, strict=True)]
        span = store.truth([v[0] for v, _ in found])
        store.case(name, "kl_log_probs", dtype, keys, span, [s for _, s in found])


def add_probs(store: Store, name: str, pair: tuple[Array, Array], keys: list[int]) -> None:
    p, q = pair
    dtype = p.dtype.name
    with for_probs([*p, *q]):
        target = np.where(p > 0, p, np.inf).argmin(axis=1)
        picked = [information(float(v)) for v in p[np.arange(len(p)), target]]
        store.case(name, "nll_probs", dtype, [keys[0], store.stored(target)], store.truth(picked))
        exact_p, exact_q = [Probs(row) for row in p], [Probs(row) for row in q]
        for normalize in (True, False):
            found = [entropy_probs(a, normalize) for a in exact_p]
            span = store.truth([v[0] for v, _ in found])
            scale = None if normalize else [s for _, s in found]
            store.case(name, "entropy_probs", dtype, keys[:1], span, scale, normalize=normalize)
            found = [kl_probs(a, b, normalize) for a, b in zip(exact_p, exact_q, strict=True)]
            span = store.truth([v[0] for v, _ in found])
            scale = None if normalize else [s for _, s in found]
            store.case(name, "kl_probs", dtype, keys, span, scale, normalize=normalize)


def rounded_softmax(x: Array) -> Array:
    """Softmax as a program computes it in the dtype of x, with the rounding that comes with it."""
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def normal(seed: int, rows: int, n: int, scale: float = 3.0) -> Array:
    return scale * bell(seed, rows * n).reshape(rows, n)


LENGTHS = (1, 2, 3, 7, 10, 17, 33, 70, 257)
MASKS = ("-inf", "-1e9", "min")
TEMPERATURES = (1.0, 0.5, 0.7, 2.0)


def short_logits(dtype: str) -> Iterator[tuple[str, Array, dict[str, Any]]]:
    """Name, rows and options of ``add_logits``."""
    tempered = {"temperatures": TEMPERATURES}
    for n in LENGTHS:
        options = {**tempered, "z_losses": (1e-4, 0.5)} if n in (10, 257) else {}
        yield f"n={n}", normal(n, 4 if n < 100 else 2, n), options
    for scale in (0.1, 1.0, 10.0, 30.0, 100.0):
        for n in (10, 70):
            yield f"scale={scale}-n={n}", normal(1000 + n, 2, n, scale), {}

    # From the maximum down to where softmax is subnormal, and then 0; around maxima on both sides
    # of 256, where kernels may change their way.
    depth = {"float32": 112.0, "float64": 760.0}[dtype]
    fall = -depth * (np.arange(70) / 69) + 0.3 * bell(7, 70)
    fall[0] = 0.3
    tops = np.array([0.0, 0.37, 37.7, 200.0, 255.9, 300.0, -200.0, -300.0])
    yield "far-tail", (tops[:, np.newaxis] + fall)[:, (np.arange(70) * 29) % 70], tempered
    edge = {"float32": (87.0, 104.5), "float64": (708.0, 746.0)}[dtype]
    subnormal = np.append(0.0, -np.linspace(*edge, 60))
    yield "subnormal", np.stack([subnormal, subnormal + 100.3]), {}

    leads = [5.0, 10.0, 20.0, 30.0, 40.0, 60.0, 80.0, 100.0]
    if dtype == "float64":
        leads += [200.0, 400.0, 600.0, 700.0]
    for n in (2, 3, 10, 70):
        x = normal(2000 + n, len(leads), n, 1.0)
        x[:, n // 2] = -np.inf
        x[:, n // 2] = x.max(axis=1) + leads
        yield f"confident-n={n}", x, tempered if n == 10 else {}
    yield "confident-plain", np.array([[a, 0.0] for a in leads]), {}

    for n in (2, 10, 257):
        x = normal(3000 + n, 3 if n < 100 else 1, n)
        x -= np.log(np.exp(x).sum(axis=1, keepdims=True))
        yield f"lse-near-0-n={n}", x, {"z_losses": (0.5,)}
    near = [[0.0, -40.0], [0.0, -5.0], [0.0, -100.0], [-1e-3, -7.0], [1e-6, -13.8], [-0.7, -0.69]]
    yield "lse-near-0-pairs", np.array(near), {}

    for offset in (256.0, -256.0, 300.0, {"float32": 1e4, "float64": 1e8}[dtype]):
        options = tempered if abs(offset) > 1e3 else {}
        yield f"offset={offset:g}", normal(4000, 2, 10) + offset, options
        yield f"offset={-offset:g}-n=70", normal(4001, 1, 70) - offset, {}

    masked = {"-inf": -np.inf, "-1e9": -1e9, "min": float(np.finfo(dtype).min)}
    for mask in MASKS:
        x = normal(5000, 5, 70)
        x[0, :35] = x[1, 35:] = x[2, :69] = x[3, 1:] = x[4, ::3] = masked[mask]
        yield f"mask={mask}", x, tempered
    x = normal(5001, 1, 257) - 3.0
    x[0, :200] = -1e9
    yield "mask=-1e9-n=257", x, {}

    yield "flat", np.array([[0.0] * 10, [1.7] * 10, [-300.1] * 10]), {}
    yield "ties", np.round(normal(6000, 3, 33, 1.0)), {}
    yield (
        "sorted",
        np.stack([np.sort(normal(6001, 1, 70)[0]), -np.sort(normal(6002, 1, 70)[0])]),
        {},
    )
    big = float(np.finfo(dtype).max)
    huge = [[big, big, 0.0], [big, -big, -big], [1e30, 1e30, -1e30], [-big, -big, -big]]
    yield "huge", np.array(huge), {}
    small = TINY[dtype]
    yield "small", np.array([[small, 0.0, -small], [1e-30, -1e-30, 2e-20], [1e-7, 0.0, -1e-7]]), {}


def long_logits(dtype: str) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Name, recipe and options of ``add_logits``."""
    offset = {"float32": 1e4, "float64": 1e8}[dtype]
    yield "n=1000", {"seed": 1, "n": 1000, "scale": 3}, {"temperatures": TEMPERATURES}
    for n in (4099, 50257):
        yield f"n={n}", {"seed": n, "n": n, "scale": 3}, {}
    n = 128256
    yield f"n={n}", {"seed": n, "n": n, "scale": 4}, {"temperatures": (1.0, 0.7)}
    yield f"confident-n={n}", {"seed": 2, "n": n, "scale": 2, "lead": 30}, {}
    yield f"flat-n={n}", {"seed": 3, "n": n, "scale": 0, "offset": 0.1}, {}
    for scale in (0.1, 10, 100):
        yield f"scale={scale}-n=1000", {"seed": 4, "n": 1000, "scale": scale}, {}
    yield "far-tail-n=4099", {"seed": 5, "n": 4099, "scale": 15 if dtype == "float32" else 110}, {}
    for lead in (5, 20, 80):
        yield f"confident={lead}-n=1000", {"seed": 6, "n": 1000, "lead": lead}, {}
    # About -log(sum), so that the logsumexp is near 0.
    yield "lse-near-0-n=1000", {"seed": 7, "n": 1000, "offset": -7.4}, {}
    yield "lse-near-0-n=50257", {"seed": 8, "n": 50257, "scale": 3, "offset": -15.1}, {}
    for sign in (1, -1):
        recipe = {"seed": 9, "n": 4099, "scale": 3, "offset": sign * offset}
        yield f"offset={sign * offset:g}-n=4099", recipe, {}
    for order in ("up", "down"):
        yield f"sorted-{order}-n=4099", {"seed": 10, "n": 4099, "scale": 20, "order": order}, {}
    for mask in MASKS:
        for side, (start, stop) in {"prefix": (0, 3001), "suffix": (1003, 4099)}.items():
            recipe = {"seed": 11, "n": 4099, "scale": 3, "mask": [start, stop, mask]}
            yield f"{side}={mask}-n=4099", recipe, {}
    yield (
        "prefix=-1e9-n=50257",
        {"seed": 12, "n": 50257, "scale": 3, "mask": [0, 32000, "-1e9"]},
        {},
    )


def pairs_of_logits(dtype: str) -> Iterator[tuple[str, Array, Array, tuple[float, ...]]]:
    """Name, logits of p, logits of q, temperatures."""
    one = (1.0,)
    for n in LENGTHS[1:]:
        rows = 3 if n < 100 else 1
        yield (
            f"n={n}",
            normal(n, rows, n),
            normal(n + 500, rows, n),
            TEMPERATURES if n == 10 else one,
        )
    for eps in (1e-6, 3e-6, 1e-4, 1e-2, 0.1, 1.0):
        for n in (2, 10, 70):
            x = normal(7000 + n, 2, n, 2.0)
            near = x + eps * normal(7500 + n, 2, n, 1.0)
            yield f"near={eps:g}-n={n}", x, near, TEMPERATURES if (eps, n) == (1e-6, 10) else one
    x = normal(8000, 2, 70, 0.1)
    yield "flat", x, normal(8001, 2, 70, 0.1), one
    yield "far", normal(8002, 2, 70, 40.0), normal(8003, 2, 70, 40.0), one
    x, y = normal(8004, 3, 10, 1.0), normal(8005, 3, 10, 1.0)
    x[:, 5] += [10.0, 30.0, 80.0]
    y[:, 5] += [11.0, 29.0, 70.0]
    yield "confident", x, y, (1.0, 0.7)
    x, y = normal(8006, 2, 70), normal(8007, 2, 70)
    offset = {"float32": 1e4, "float64": 1e8}[dtype]
    yield "offset", x + offset, y - offset / 2, one
    yield "offset-near", x + 300.0, x + 300.0 + 1e-3 * y, one
    for mask, value in {"-inf": -np.inf, "-1e9": -1e9}.items():
        x, y = normal(8008, 4, 70), normal(8009, 4, 70)
        x[0, :35] = y[0, :35] = x[1, 40:] = y[1, 40:] = x[2, :60] = y[2, :60] = value
        x[3, 10:30] = value  # p = 0 or nearly where q is not
        yield f"mask={mask}", x, y, one
    x, y = normal(8010, 1, 70), normal(8011, 1, 70)
    y[0, :35] = -200.0  # hardly possible under q
    yield "unlikely", x, y, one


def pairs_of_probs(dtype: str) -> Iterator[tuple[str, Array, Array]]:
    for n in (1, 2, 3, 10, 33, 70, 257):
        rows = 3 if n < 100 else 1
        x, y = normal(9000 + n, rows, n), normal(9500 + n, rows, n)
        yield f"n={n}", rounded_softmax(x.astype(dtype)), rounded_softmax(y.astype(dtype))
    for eps in (1e-6, 3e-6, 1e-4, 1e-2, 0.3):
        for n in (2, 10, 70):
            x = normal(7000 + n, 2, n, 2.0)
            near = x + eps * normal(7500 + n, 2, n, 1.0)
            yield (
                f"near={eps:g}-n={n}",
                rounded_softmax(x.astype(dtype)),
                rounded_softmax(near.astype(dtype)),
            )
    counts = np.floor(np.exp(normal(9001, 2, 33, 2.0)))
    yield "counts", counts, np.ceil(np.exp(normal(9002, 2, 33, 2.0))) * 3
    p = rounded_softmax(normal(9003, 3, 17))
    p[0, ::2] = p[1, :16] = p[2, 5] = 0
    q = rounded_softmax(normal(9004, 3, 17))
    q[0, ::4] = q[2, 5] = 0  # only where p is 0 too
    yield "zeros", p, q
    steep = {"float32": 25.0, "float64": 200.0}[dtype]
    x, y = normal(9005, 2, 33, steep), normal(9006, 2, 33, 1.0)
    yield "steep", rounded_softmax(x), rounded_softmax(y)
    confident = np.array([[1.0, 1e-7, 1e-12], [1.0, 1e-20, 1e-30], [1e-30, 1e-25, 0.999999]])
    yield (
        "confident",
        confident,
        np.array([[1.0, 3e-7, 1e-9], [0.9, 0.05, 0.05], [1e-3, 1e-3, 0.998]]),
    )
    # Sums need not keep what is subnormal, so nothing smaller than the smallest normal.
    small = float(np.finfo(dtype).tiny)
    yield "small", np.array([[small, 4 * small, 1.0]]), np.array([[1.0, small, 8 * small]])


def add_elementwise(store: Store, dtype: str) -> None:
    info = np.finfo(dtype)
    powers = np.geomspace(1e-4 * float(info.tiny), 1.0, 60)
    grid = np.concatenate([np.linspace(0, 1, 41)[1:-1], [0.5 - info.epsneg, 0.5 + info.eps]])
    near_one = 1 - np.geomspace(info.epsneg, 0.1, 30)
    p = np.unique(np.concatenate([[TINY[dtype], info.tiny], powers, grid, near_one]).astype(dtype))
    above = 1 + np.geomspace(info.eps, 0.1, 10)
    more = np.concatenate([above, [2.0, 1e10, float(info.max)]]).astype(dtype)
    with digits(0, 400):
        both = np.concatenate([p, more])
        span = store.truth([information(v) for v in both.tolist()])
        store.case("points", "information", dtype, [store.stored(both)], span)
        ends = np.concatenate([[0.0], p]).astype(dtype)
        span = store.truth([binary_entropy(v) for v in ends.tolist()])
        store.case("points", "binary_entropy", dtype, [store.stored(ends)], span)


def add_long_pairs(store: Store, dtype: str) -> None:
    for n, perturb in ((1000, 1e-6), (1000, 0.3), (4099, 0.0), (50257, 0.0), (128256, 3e-6)):
        name = f"n={n}" + (f"-near={perturb:g}" if perturb else "")
        pairs = []
        for recipe, options in (("logits", {"scale": 3}), ("probs", {})):
            base = {"recipe": recipe, "seed": 20, "n": n, "dtype": dtype, **options}
            other = {**base, "perturb": perturb} if perturb else {**base, "seed": 30}
            made = [store.made(**base), store.made(**other)]
            pairs.append((tuple(row for row, _ in made), [key for _, key in made]))
        add_kl_logits(store, name, *pairs[0])
        add_probs(store, name, *pairs[1])
        if n > 50257:
            continue
        # Log-probabilities: the same logits, less about their logsumexp.
        lse = {1000: 11.4, 4099: 12.8, 50257: 15.3}[n]
        base = {"recipe": "logits", "seed": 20, "n": n, "dtype": dtype, "scale": 3, "offset": -lse}
        other = {**base, "perturb": perturb} if perturb else {**base, "seed": 30}
        made = [store.made(**base), store.made(**other)]
        add_log_probs(store, name, tuple(row for row, _ in made), [key for _, key in made])


def add_pair(
    store: Store, name: str, kernel: str, pair: tuple[Array, Array], params: dict[str, Any]
) -> None:
    """A divergence of two arrays in the forms that the kernel names."""
    measure, *forms = kernel.split("_")
    normalize = params.get("normalize", True)
    temperatures = params.get("temperature_p", 1.0), params.get("temperature_q", 1.0)
    contexts = [
        for_probs([*rows]) if form == "probs" else for_logits([*rows], temperature)
        for rows, form, temperature in zip(pair, forms, temperatures, strict=True)
    ]
    needed = []
    for context in contexts:
        with context:
            needed.append(mp.dps)
    with mp.workdps(max(needed)):
        found = []
        for rows in zip(*pair, strict=True):
            shares = [
                Shares(row, form, normalize, t)
                for row, form, t in zip(rows, forms, temperatures, strict=True)
            ]
            found.append((kl_of_shares if measure == "kl" else js_of_shares)(*shares))
        scale = None if normalize or measure == "js" else [s for _, s in found]
        keys = [store.shared(rows) for rows in pair]
        span = store.truth([value for value, _ in found])
        store.case(name, kernel, pair[0].dtype.name, keys, span, scale, **params)


def add_pairs(store: Store, dtype: str) -> None:
    """Every divergence of two forms, and Jensen-Shannon's."""
    for name, x, y, temperatures in pairs_of_logits(dtype):
        if name.startswith(("offset", "mask=-1e9", "far")):
            continue
        x, y = x.astype(dtype), y.astype(dtype)
        with np.errstate(divide="ignore"):
            p, q = (rounded_softmax(v) for v in (x, y))
            log_q = (y - np.log(np.exp(y).sum(axis=1, keepdims=True))).astype(dtype)
        for temperature in temperatures:
            of_p = {} if temperature == 1 else {"temperature_p": temperature}
            of_q = {} if temperature == 1 else {"temperature_q": temperature}
            add_pair(store, name, "js_logits_logits", (x, y), {**of_p, **of_q})
            # Logits of q at twice T have that q too.
            add_pair(store, name, "kl_logits_logits", (x, 2 * y), {"temperature_q": 2.0, **of_p})
            if temperature == 1:
                add_pair(store, name, "js_probs_probs", (p, q), {})
                add_pair(store, name, "js_probs_logits", (p, y), {})
                if not ((q == 0) & np.isfinite(x)).any():  # a true KL that is not infinite
                    add_pair(store, name, "kl_logits_probs", (x, q), {})
                add_pair(store, name, "kl_probs_logits", (p, y), {})
                plain = {"normalize": False}
                add_pair(store, name, "js_probs_logits", (p, log_q), plain)
                add_pair(store, name, "kl_probs_logits", (p, log_q), plain)
            else:
                # The probabilities of the logits at T.
                cool = rounded_softmax((x / temperature).astype(dtype))
                add_pair(store, name, "kl_probs_logits", (cool, y), of_q)
                add_pair(store, name, "js_probs_logits", (cool, y), of_q)
    for name, p, q in pairs_of_probs(dtype):
        if name != "small":
            add_pair(
                store, f"probs-{name}", "js_probs_probs", (p.astype(dtype), q.astype(dtype)), {}
            )
    for n in (1000, 4099):
        for eps in (1e-6, 1e-3, 1.0):
            x = normal(7000 + n, 1, n, 2.0)
            y = (x + eps * normal(7500 + n, 1, n, 1.0)).astype(dtype)
            p, q = rounded_softmax(x.astype(dtype)), rounded_softmax(y)
            for kernel, pair in (
                ("js_probs_probs", (p, q)),
                ("js_probs_logits", (p, y)),
                ("js_logits_logits", (x.astype(dtype), y)),
                ("kl_probs_logits", (p, y)),
                ("kl_logits_probs", (x.astype(dtype), q)),
            ):
                add_pair(store, f"near={eps:g}-n={n}", kernel, pair, {})


def add_scaled(store: Store, dtype: str) -> None:
    """Sums with factors: of one sign, of both, cancelling, and with zeros."""
    cases = []
    for n in (1, 2, 3, 10, 33, 70, 257, 1000):
        for scale in (0.1, 3.0, 30.0):
            x, b = normal(9100 + n, 2, n, scale), normal(9200 + n, 2, n, 1.0)
            cases.append((f"n={n}-scale={scale:g}-positive", x, np.exp(b)))
            cases.append((f"n={n}-scale={scale:g}", x, b))
    x = normal(9300, 4, 10)
    b = np.ones((4, 10))
    b[:, ::2] = -1
    x[:2, 1::2] = x[:2, ::2] + 1e-3 * normal(9301, 2, 5)
    b[2, :4] = 0
    x[2, :2] = [np.inf, np.nan]
    b[3] *= 1e-30
    cases.append(("cancelling-zeros-small", x, b))
    # Near 0 there is nothing but the rest.
    cases.append(
        ("near-0", np.array([[0.0, -40.0], [-3.0, 0.0]]), np.array([[1.0, 1.0], [1e-9, 1.0]]))
    )
    cases.append(("near-0-signs", np.array([[0.0, -40.0]]), np.array([[1.0, -1.0]])))
    offset = {"float32": 1e4, "float64": 1e8}[dtype]
    cases.append(("offset", normal(9302, 2, 33) + offset, normal(9303, 2, 33)))
    for name, x, b in cases:
        x, b = x.astype(dtype), b.astype(dtype)
        with digits(20, 120), mp.workdps(200):
            found = [logsumexp_scaled(*rows) for rows in zip(x, b, strict=True)]
            keys = [store.stored(x), store.stored(b)]
            span = store.truth([log for log, _, _ in found])
            scale = [size for _, _, size in found]
            store.case(name, "logsumexp_scaled", dtype, keys, span, scale, output=0, signed=True)
            span = store.truth([sign for _, sign, _ in found])
            store.case(name, "logsumexp_scaled", dtype, keys, span, output=1, signed=True)


def add_rel_entr(store: Store, dtype: str) -> None:
    info = np.finfo(dtype)
    some = np.concatenate([np.geomspace(4 * float(info.tiny), 1, 25), [2.0, 1e10]]).astype(dtype)
    p, q = (v.ravel() for v in np.meshgrid(some, some))
    near = np.nextafter(some, np.dtype(dtype).type(9))
    nearer = (some * (1 + normal(9400, 1, len(some), 1e-3)[0])).astype(dtype)
    p = np.concatenate([p, some, near, some])
    q = np.concatenate([q, near, some, nearer])
    both = some[:, np.newaxis] * np.array([1.0, 0.7, 1.5, 0.5, 2.0])
    p = np.concatenate([p, np.repeat(some, 5)])
    q = np.concatenate([q, both.ravel().astype(dtype)])
    with digits(20, 650):
        span = store.truth([rel_entr(a, b) for a, b in zip(p.tolist(), q.tolist(), strict=True)])
        store.case("points", "rel_entr", dtype, [store.stored(p), store.stored(q)], span)


def pairs() -> Store:
    """What pairs.npz holds."""
    store = Store()
    for dtype in DTYPES:
        add_pairs(store, dtype)
        add_scaled(store, dtype)
        add_rel_entr(store, dtype)
    return store


def golden() -> Store:
    """What golden.npz holds."""
    store = Store()
    for dtype in DTYPES:
        for name, x, options in short_logits(dtype):
            x = x.astype(dtype)
            add_logits(store, name, x, store.stored(x), **options)
        for name, recipe, options in long_logits(dtype):
            x, key = store.made(recipe="logits", dtype=dtype, **recipe)
            add_logits(store, name, x, key, **options)
        for name, x, y, temperatures in pairs_of_logits(dtype):
            pair = x.astype(dtype), y.astype(dtype)
            add_kl_logits(store, name, pair, [store.stored(v) for v in pair], temperatures)
            if name.startswith(("n=", "near", "confident", "mask=-inf")):
                with np.errstate(divide="ignore"):
                    logs = tuple(
                        np.log(rounded_softmax(v.astype(float))).astype(dtype) for v in pair
                    )
                add_log_probs(store, name, logs, [store.stored(v) for v in logs])
        for name, p, q in pairs_of_probs(dtype):
            pair = p.astype(dtype), q.astype(dtype)
            add_probs(store, name, pair, [store.stored(v) for v in pair])
        add_long_pairs(store, dtype)
        add_elementwise(store, dtype)
    return store


FILES = {"golden.npz": golden, "pairs.npz": pairs}


def main() -> None:
    for name in sys.argv[1:] or FILES:
        began = time.perf_counter()
        store = FILES[name]()
        store.write(name)
        size, took = (FOLDER / name).stat().st_size / 1e6, time.perf_counter() - began
        results = len(store.pools["hi"])
        print(f"{name}: {len(store.cases)} cases, {results} results, {size:.2f} MB, {took:.0f} s")


if __name__ == "__main__":
    main()
