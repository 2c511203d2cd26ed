"""Write rows.npz: the true results of score and compare, statistic by statistic.

Run in the root: ``python -m tests.golden.generate_rows``; it takes less than a minute. See
``generate.py`` for how many digits a row is computed with.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mpmath
import numpy as np
from mpmath import mpf
from numpy.typing import NDArray

from klce._ufuncs import STATISTICS

from .generate import DTYPES, Logits, Store, for_logits, normal

Array = NDArray[Any]


# --- the truth ------------------------------------------------------------------------------------


def score(x: Logits, target: int) -> dict[str, tuple[Any, Any]]:
    """Each number of a row, and the size at which its error is counted."""
    p = [e / x.total for e in x.e]
    logs = [x.log_p(i) for i in range(len(p))]
    entropy = -mpmath.fsum(a * log for a, log in zip(p, logs, strict=True) if a)
    spread = mpmath.fsum(a * (log + entropy) ** 2 for a, log in zip(p, logs, strict=True) if a)
    known = sorted((log for log in logs if log is not None), reverse=True)
    margin = known[0] - known[1] if len(known) > 1 else mpf("inf")
    # A square of a difference is as good as the squares of both.
    square_of_mean = (entropy + known[0]) ** 2
    values = {
        "nll": -logs[target],
        "target_log_prob": logs[target],
        "target_prob": p[target],
        "max_log_prob": known[0],
        "margin": margin,
        "logsumexp": x.lse,
        "entropy": entropy,
        "varentropy": spread,
    }
    sizes = {"logsumexp": abs(x.max), "varentropy": mpmath.sqrt(spread * (spread + square_of_mean))}
    return {name: (value, sizes.get(name, 0)) for name, value in values.items()}


def compare(x: Logits, y: Logits, target: int) -> dict[str, tuple[Any, Any]]:
    """Each number of a pair of rows, and the size at which its error is counted."""
    p, q = ([e / z.total for e in z.e] for z in (x, y))
    log_p, log_q = ([z.log_p(i) for i in range(len(p))] for z in (x, y))

    def entropy(a: list[Any], log_b: list[Any]) -> Any:
        return -mpmath.fsum(v * log for v, log in zip(a, log_b, strict=True) if v)

    pairs = list(zip(p, q, strict=True))
    middle = [mpmath.log((a + b) / 2) if a + b else None for a, b in pairs]
    halves = entropy(p, middle) - entropy(p, log_p) + entropy(q, middle) - entropy(q, log_q)
    values = {
        "kl_divergence": entropy(p, log_q) - entropy(p, log_p),
        "reverse_kl_divergence": entropy(q, log_p) - entropy(q, log_q),
        "js_divergence": halves / 2,
        "total_variation": mpmath.fsum(abs(a - b) for a, b in pairs) / 2,
        "cross_entropy": entropy(p, log_q),
        "reverse_cross_entropy": entropy(q, log_p),
        "entropy_p": entropy(p, log_p),
        "entropy_q": entropy(q, log_q),
        "expected_agreement": mpmath.fsum(a * b for a, b in pairs),
        "target_log_prob_change": log_q[target] - log_p[target],
        "target_prob_change": q[target] - p[target],
        "nll_p": -log_p[target],
        "nll_q": -log_q[target],
        "max_log_prob_p": max(log for log in log_p if log is not None),
        "max_log_prob_q": max(log for log in log_q if log is not None),
    }
    # Differences are as good as what they are the difference of; the agreement is of products.
    sizes = {"total_variation": 0.1, "target_log_prob_change": 1, "target_prob_change": 1}
    sizes["expected_agreement"] = 2 * values["expected_agreement"]
    return {name: (value, sizes.get(name, 0)) for name, value in values.items()}


# --- the cases ------------------------------------------------------------------------------------


def rows_of_logits(dtype: str) -> Iterator[tuple[str, Array]]:
    """Name and logits."""
    for n in (1, 2, 3, 10, 33, 70, 257):
        yield f"n={n}", normal(60_000 + n, 3 if n < 100 else 1, n)
    leads = [5.0, 20.0, 60.0] + ([300.0] if dtype == "float64" else [])
    x = normal(61_000, len(leads), 10, 1.0)
    x[:, 5] = x.max(axis=1) + leads
    yield "confident", x
    yield "offset", normal(61_001, 2, 10) + {"float32": 1e4, "float64": 1e8}[dtype]
    # Nearly all is as far from the maximum as the mean is.
    x = 1e-3 * normal(61_002, 2, 3000)
    x[:, 1] = 2
    yield "level", x


def add(
    store: Store,
    name: str,
    kernel: str,
    dtype: str,
    inputs: list[int],
    found: list[dict[str, tuple[Any, Any]]],
    temperature: float,
) -> None:
    """One case for each statistic."""
    options = {} if temperature == 1 else {"temperature": temperature}
    for statistic in (k for k, letter in STATISTICS[kernel].items() if letter == "S"):
        if not all(mpmath.isfinite(row[statistic][0]) for row in found):
            continue
        span = store.truth([row[statistic][0] for row in found])
        sizes = [row[statistic][1] for row in found]
        store.case(
            name, kernel, dtype, inputs, span, sizes if any(sizes) else None,
            output=statistic, **options,
        )  # fmt: skip


def main() -> None:
    store = Store()
    for dtype in DTYPES:
        for number, (name, wide) in enumerate(rows_of_logits(dtype)):
            x = wide.astype(dtype)
            target = np.arange(len(x)) * 7 % x.shape[1]
            keys = [store.stored(x), store.stored(target)]
            for temperature in (1.0, 0.7):
                with for_logits([*x], temperature):
                    scored = [
                        score(Logits(row, temperature), t)
                        for row, t in zip(x, target.tolist(), strict=True)
                    ]
                    add(store, name, "score", dtype, keys, scored, temperature)
                for near in (1e-6, 1e-3, 0.3, 10.0):
                    y = (x + near * normal(62_000 + number, *x.shape, 1.0)).astype(dtype)
                    if name == "offset" or (temperature != 1 and near != 0.3):
                        continue
                    both = [keys[0], store.stored(y), keys[1]]
                    with for_logits([*x, *y], temperature):
                        compared = [
                            compare(Logits(a, temperature), Logits(b, temperature), t)
                            for a, b, t in zip(x, y, target.tolist(), strict=True)
                        ]
                        about = f"{name}-near={near}"
                        add(store, about, "compare", dtype, both, compared, temperature)
    store.write("rows.npz")


if __name__ == "__main__":
    main()
