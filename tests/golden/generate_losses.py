"""Write losses.npz: the true results of the losses with weights, smoothing and soft targets.

Run in the root: ``python -m tests.golden.generate_losses``; it takes less than a minute. See
``generate.py`` for how many digits a row is computed with.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import mpmath
import numpy as np
from mpmath import mpf
from numpy.typing import NDArray

from .cases import bell, make
from .generate import (
    DTYPES,
    Logits,
    Store,
    digits,
    for_logits,
    for_probs,
    information,
    normal,
)

Array = NDArray[Any]


# --- the truth ------------------------------------------------------------------------------------


def weighted_loss(
    surprise: list[Any],
    target: list[float],
    weight: list[float],
    label_smoothing: float,
) -> tuple[Any, Any]:
    """A row's, and the sum of its absolute terms; without a class whose coefficient is 0."""
    e, n = mpf(label_smoothing), len(surprise)
    coefficients = [
        mpf(w) * ((1 - e) * mpf(t) + e / n) for w, t in zip(weight, target, strict=True)
    ]
    terms = [c * s for c, s in zip(coefficients, surprise, strict=True) if c]
    return mpmath.fsum(terms), mpmath.fsum(map(abs, terms))


def binary_loss(if_true: Any, if_false: Any, y: float, weight: float, pos_weight: float) -> Any:
    return mpf(weight) * (mpf(pos_weight) * mpf(y) * if_true + (1 - mpf(y)) * if_false)


# --- the cases ------------------------------------------------------------------------------------


def positive(seed: int, *shape: int) -> Array:
    """Weights, from 1/4 to 3.7, in steps of 1/64."""
    return 0.25 + np.round(np.abs(bell(seed, math.prod(shape)).reshape(shape)) * 64) / 64


def rows_of_losses(dtype: str) -> Iterator[tuple[str, Array]]:
    """Name and logits."""
    for n in (2, 3, 10, 33, 70, 257):
        yield f"n={n}", normal(40_000 + n, 3 if n < 100 else 1, n)
    leads = [5.0, 20.0, 60.0] + ([300.0] if dtype == "float64" else [])
    x = normal(41_000, len(leads), 10, 1.0)
    x[:, 5] = x.max(axis=1) + leads
    yield "confident", x
    yield "offset", normal(41_001, 2, 10) + {"float32": 1e4, "float64": 1e8}[dtype]
    for mask, value in {"-inf": -np.inf, "-1e9": -1e9}.items():
        x = normal(41_002, 2, 70)
        x[0, :30] = x[1, 40:] = value
        yield f"mask={mask}", x


def distributions(seed: int, rows: int, n: int, dtype: str) -> Array:
    return np.concatenate([make("probs", seed=seed + i, n=n, dtype=dtype) for i in range(rows)])


class Rows:
    """The operands that losses of the same rows share, stored, and as the truth wants them."""

    def __init__(self, store: Store, name: str, x: Array, seed: int) -> None:
        self.store, self.name, self.dtype = store, name, x.dtype.name
        rows, n = x.shape
        self.weight = positive(seed, n).astype(self.dtype)
        self.row_weight = positive(seed + 1, rows).astype(self.dtype)
        self.index = x.argmax(axis=1)
        self.index[::2] = np.where(x[::2] > -np.inf, x[::2], np.inf).argmin(axis=1)
        index_key = store.stored(self.index)
        soft: Array
        if n > 1000:
            soft, soft_key = store.made(recipe="probs", seed=seed, n=n, dtype=self.dtype)
        else:
            soft = distributions(seed, rows, n, self.dtype)
            soft[x == -np.inf] = soft[:, 1] = 0
            soft_key = store.stored(soft)
        one_hot = (np.arange(n) == self.index[:, np.newaxis]).astype(self.dtype)
        self.targets = {"index": one_hot, "soft": soft}
        weights = [store.stored(self.weight), store.stored(self.row_weight)]
        self.operands = [index_key, store.stored(np.array(-100)), *weights, soft_key]

    def add(
        self,
        kernel: str,
        key: int,
        surprise: list[list[Any]],
        kind: str,
        options: dict[str, Any] | None = None,
        penalties: list[tuple[Any, Any]] | None = None,
    ) -> None:
        """One case, and the weights in a mean if there are no options."""
        options = options or {}
        general = kernel.startswith("loss")
        values, sizes = [], []
        for i, row_weight in enumerate(self.row_weight.tolist()):
            value, size = weighted_loss(
                *(surprise[i], self.targets[kind][i].tolist(), self.weight.tolist()),
                options.get("label_smoothing", 0.0),
            )
            penalty, penalty_size = penalties[i] if penalties else (0, 0)
            values.append(mpf(row_weight) * (value + penalty))
            sizes.append(mpf(row_weight) * (size + penalty_size))
        inputs = [key, *(self.operands if general else self.operands[:-1])]
        params = {**({} if kind == "index" else {"indexed": 0}), **options}
        name = f"{self.name}-{kind}"
        span = self.store.truth(values)
        self.store.case(name, kernel, self.dtype, inputs, span, sizes, output=0, **params)
        if not options:
            own = self.weight[self.index].tolist() if kind == "index" else [1.0] * len(values)
            pairs = zip(own, self.row_weight.tolist(), strict=True)
            span = self.store.truth([mpf(a) * mpf(b) for a, b in pairs])
            self.store.case(name, kernel, self.dtype, inputs, span, output=1, **params)


def add_logits(of: Rows, key: int, x: Array, options: dict[str, Any], kind: str) -> None:
    temperature = options.get("temperature", 1.0)
    with for_logits([*x], temperature):
        exact = [Logits(row, temperature) for row in x]
        surprise = [[None if z is None else row.lse - z for z in row.z] for row in exact]
        z_loss = mpf(options.get("z_loss", 0.0))
        # The squared logsumexp near 0 is as good as the logsumexp: in ULP of the maximum.
        penalties = [(z_loss * row.lse**2, z_loss * row.max**2) for row in exact]
        of.add("loss_logits", key, surprise, kind, options, penalties)


def add_losses(store: Store, dtype: str) -> None:
    smooth = {"label_smoothing": 0.1}
    tempered: dict[str, dict[str, Any]] = {
        "index": {**smooth, "temperature": 0.7, "z_loss": 0.5},
        "soft": {"label_smoothing": 0.3, "temperature": 0.7},
    }
    for number, (name, wide) in enumerate(rows_of_losses(dtype)):
        x = wide.astype(dtype)
        of, key = Rows(store, name, x, 42_000 + 10 * number), store.stored(x)
        finite = bool(np.isfinite(x).all())
        for kind, options in tempered.items():
            add_logits(of, key, x, {}, kind)
            if finite:
                add_logits(of, key, x, options, kind)
        if not finite:
            continue
        logs = (x - x.max() - 1).astype(dtype)
        probs = distributions(45_000 + 10 * number, *x.shape, dtype)
        for form, values in {"log_probs": logs, "probs": probs}.items():
            key = store.stored(values)
            with for_logits([*values]) if form == "log_probs" else for_probs([*values]):
                of_class = (lambda v: -mpf(v)) if form == "log_probs" else information
                surprise = [[of_class(v) for v in row] for row in values.tolist()]
                plain = "weighted_nll" if form == "log_probs" else "weighted_nll_probs"
                of.add(plain, key, surprise, "index")
                for kind in tempered:
                    of.add(f"loss_{form}", key, surprise, kind)
                    of.add(f"loss_{form}", key, surprise, kind, smooth)
    for n in (4099, 20_000):
        x, key = store.made(recipe="logits", seed=40, n=n, dtype=dtype, scale=3)
        of = Rows(store, f"n={n}", x, 46_000)
        for kind, options in tempered.items():
            add_logits(of, key, x, options, kind)


def add_binary_losses(store: Store, dtype: str) -> None:
    lowest = {"float32": 104.0, "float64": 745.0}[dtype]
    size = np.concatenate([np.geomspace(1e-10, lowest, 150), np.linspace(0, 20, 50)])
    x = np.concatenate([size, -size]).astype(dtype)
    y = (np.arange(len(x)) * 7 % 23 / 22).astype(dtype)
    y[::3] = np.round(y[::3])
    weight, pos_weight = positive(46_000, 2, len(x)).astype(dtype)
    others = [store.stored(v) for v in (y, weight, pos_weight)]
    factors = list(zip(y.tolist(), weight.tolist(), pos_weight.tolist(), strict=True))
    with digits(10, 700):
        found = []
        for v, factor in zip(x.tolist(), factors, strict=True):
            log = mpmath.log(1 + mpmath.exp(-abs(mpf(v))))
            found.append(binary_loss(max(-mpf(v), 0) + log, max(mpf(v), 0) + log, *factor))
        span = store.truth(found)
        kernel = "binary_cross_entropy_logits"
        store.case("points", kernel, dtype, [store.stored(x), *others], span)
        info = np.finfo(dtype)
        small = np.geomspace(float(info.tiny), 0.5, len(x) // 2)
        large = 1 - np.geomspace(info.epsneg, 0.5, len(x) // 2)
        q = np.concatenate([small, large]).astype(dtype)
        pairs = zip(q.tolist(), factors, strict=True)
        found = [binary_loss(information(v), information(1 - mpf(v)), *f) for v, f in pairs]
        span = store.truth(found)
        kernel = "binary_cross_entropy_probs"
        store.case("points", kernel, dtype, [store.stored(q), *others], span)


def main() -> None:
    store = Store()
    for dtype in DTYPES:
        add_losses(store, dtype)
        add_binary_losses(store, dtype)
    store.write("losses.npz")


if __name__ == "__main__":
    main()
