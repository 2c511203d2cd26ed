"""What the tests of all kernels share: operands for any signature, and forcing an ISA.

A kernel's operands come from the letters of its signature in ``src_c/ops.def``, so a new row there
is tested without an edit here; a kernel whose rows are not logits is named in ``DOMAINS``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klce import _ufuncs

Array = NDArray[Any]
KERNELS = sorted(_ufuncs.OPS)
DTYPES = [np.dtype(np.float32), np.dtype(np.float64)]
ISAS = _ufuncs.available_isas()

# What the rows of a kernel hold, where it is not logits.
DOMAINS = {
    "nll": "log_probs",
    "nll_probs": "probs",
    "entropy_probs": "probs",
    "entropy_log_probs": "log_probs",
    "kl_probs": "probs",
    "kl_log_probs": "log_probs",
    "information": "probs",
    "binary_entropy": "probs",
}
# Parameters of a whole call, in order, where they are not all 1.
PARAMETERS: dict[str, list[tuple[float, ...]]] = {
    "softmax": [(1.0,), (0.7,)],
    "log_softmax": [(1.0,), (0.7,)],
    "entropy_logits": [(1.0,), (2.5,)],
    "kl_logits": [(1.0,), (2.5,)],
    "cross_entropy": [(-100, 1.0, 0.0), (1, 0.7, 0.25)],
    "nll": [(-100,), (1,)],
    "nll_probs": [(-100,), (1,)],
    "score": [(-100,), (1,)],
    "entropy_probs": [(1,), (0,)],
    "kl_probs": [(1,), (0,)],
}


@contextmanager
def on_isa(name: str) -> Iterator[None]:
    """Run the kernels of one instruction set."""
    before = _ufuncs.active_isa()
    _ufuncs.select_isa(name)
    try:
        yield
    finally:
        _ufuncs.select_isa(before)


def letters(kernel: str) -> tuple[str, str]:
    """Return the letters of a kernel's inputs and of its outputs."""
    inputs, outputs = _ufuncs.OPS[kernel].split(">")
    return inputs, outputs


def rows(domain: str, shape: tuple[int, ...], dtype: np.dtype[Any], rng: Any) -> Array:
    """Random rows of a domain: from flat to confident ones."""
    x = rng.normal(size=shape) * 10.0 ** rng.uniform(-1, 1, size=(*shape[:-1], 1))
    if domain != "logits" and shape[-1]:
        x = x - x.max(axis=-1, keepdims=True)
        x = x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
    if domain == "probs":
        x = np.exp(x)
    return np.ascontiguousarray(x.astype(dtype))


def operands(
    kernel: str, count: int, n: int, dtype: np.dtype[Any], seed: int = 0
) -> Iterator[tuple[Array | float, ...]]:
    """Yield the operands of calls on `count` rows of `n` classes, a tuple for each parameter set."""
    inputs, _ = letters(kernel)
    rng = np.random.default_rng((seed, count, n, dtype.itemsize))
    domain = DOMAINS.get(kernel, "logits")
    arrays: list[Array] = []
    for letter in inputs:
        if letter in "vge":
            arrays.append(rows(domain, (count, n), dtype, rng))
        elif letter == "l":
            arrays.append(rng.integers(0, max(n, 1), size=count))
    # Each second row of a pair is near the first: divergences are small there.
    if inputs.startswith("vv"):
        near = arrays[0][::2].astype(np.float64)
        noise = 1e-3 * rng.normal(size=near.shape)
        arrays[1][::2] = near * (1 + noise) if domain == "probs" else near + noise
    scalars = sum(letter in "id" for letter in inputs)
    for parameters in PARAMETERS.get(kernel, [(1.0,) * scalars]):
        given = iter(arrays), iter(parameters)
        yield tuple(next(given[letter in "id"]) for letter in inputs)


def call(kernel: str, args: tuple[Any, ...], **kwargs: Any) -> tuple[Array, ...]:
    """Call a kernel; its outputs as a tuple."""
    result = getattr(_ufuncs, kernel)(*args, **kwargs)
    return result if isinstance(result, tuple) else (result,)


def same_bits(a: Array, b: Array) -> bool:
    """Whether two arrays are equal to the bit, nan to nan."""
    return bool(np.array_equal(a, b, equal_nan=True) and np.array_equal(np.signbit(a), np.signbit(b)))
