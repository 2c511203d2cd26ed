"""What the tests of all kernels share: operands for any signature, and forcing an ISA.

A kernel's operands come from the letters of its signature in ``src_c/ops.def``, so a new row there
is tested without an edit here; a kernel whose rows are not logits is named in ``DOMAINS``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

import klce
from klce import _ufuncs
from klce.reference import KERNELS as REFERENCE
from tests.ulp import ulp_error

Array = NDArray[Any]
KERNELS = sorted(_ufuncs.OPS)
# By the rows of src_c/dtypes.def.
DTYPE_OF = {
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
}
DTYPES = [DTYPE_OF[name] for name in _ufuncs.DTYPES]
HALVES = [dtype for dtype in DTYPES if dtype.itemsize == 2]
finfo = ml_dtypes.finfo  # numpy's, and of its own dtypes
_ufuncs.register_bfloat16(DTYPE_OF["bf16"])
ISAS = _ufuncs.available_isas()

# What the rows of a kernel hold, where it is not logits; of a pair of forms each operand's.
DOMAINS: dict[str, str | tuple[str, str]] = {
    "kl_probs_logits": ("probs", "logits"),
    "kl_logits_probs": ("logits", "probs"),
    "js_probs_logits": ("probs", "logits"),
    "logsumexp_scaled": ("logits", "factors"),
    "nll": "log_probs",
    "nll_probs": "probs",
    "weighted_nll": "log_probs",
    "weighted_nll_probs": "probs",
    "loss_log_probs": "log_probs",
    "loss_probs": "probs",
    "entropy_probs": "probs",
    "entropy_log_probs": "log_probs",
    "kl_probs": "probs",
    "kl_log_probs": "log_probs",
    "js_probs_probs": "probs",
    "rel_entr": "probs",
    "information": "probs",
    "binary_entropy": "probs",
    "binary_cross_entropy_probs": "probs",
}
# What the operands of one number a class hold, in order, where they are not all of that domain.
OPERANDS = {
    "weighted_nll": ("log_probs", "weights"),
    "weighted_nll_probs": ("probs", "weights"),
    "loss_logits": ("logits", "weights", "probs"),
    "loss_log_probs": ("log_probs", "weights", "probs"),
    "loss_probs": ("probs", "weights", "probs"),
    "binary_cross_entropy_probs": ("probs", "probs", "weights", "weights"),
    "binary_cross_entropy_logits": ("logits", "probs", "weights", "weights"),
}
# What asks for every statistic.
ALL = {op: 2 ** len(statistics) - 1 for op, statistics in _ufuncs.STATISTICS.items()}
# Parameters of a whole call, in order, in two sets or more, where `parameters_of` does not tell.
PARAMETERS: dict[str, list[tuple[float, ...]]] = {
    "softmax": [(1.0,), (0.7,)],
    "log_softmax": [(1.0,), (0.7,)],
    "logsumexp_scaled": [(1,), (0,)],
    "entropy_logits": [(1.0,), (2.5,)],
    "kl_probs_logits": [(1, 1.0, 2.5), (0, 1.0, 1.0)],
    "kl_logits_probs": [(1, 0.7, 1.0), (0, 1.0, 1.0)],
    "kl_logits_logits": [(1, 1.0, 2.5), (1, 1.0, 1.0)],
    "js_probs_probs": [(1, 1.0, 1.0), (0, 1.0, 1.0)],
    "js_probs_logits": [(1, 1.0, 2.5), (1, 1.0, 1.0)],
    "js_logits_logits": [(1, 1.0, 1.0), (1, 0.7, 2.5)],
    "kl_logits": [(1.0,), (2.5,)],
    "cross_entropy": [(-100, 1.0, 0.0), (1, 0.7, 0.25)],
    "nll": [(-100,), (1,)],
    "nll_probs": [(-100,), (1,)],
    "weighted_nll": [(-100,), (1,)],
    "weighted_nll_probs": [(-100,), (1,)],
    "loss_logits": [(-100, 1, 0.1, 1.0, 0.0), (1, 1, 0.0, 0.7, 0.25), (-100, 0, 0.3, 0.7, 0.0)],
    "loss_log_probs": [(-100, 1, 0.1), (1, 1, 0.0), (-100, 0, 0.3)],
    "loss_probs": [(-100, 1, 0.1), (1, 1, 0.0), (-100, 0, 0.3)],
    # Every statistic; of compare also how large a top.
    "score": [(-100, 1.0, ALL["score"]), (1, 0.7, ALL["score"])],
    "compare": [(-100, 1.0, ALL["compare"], 3), (1, 0.7, ALL["compare"], 2)],
    "entropy_probs": [(1,), (0,)],
    "kl_probs": [(1,), (0,)],
}

# The bounds of score's numbers: (2, 4) if not named here.
SCORE_ULP: dict[str, tuple[int, int]] = {"entropy": (4, 4), "varentropy": (4, 4)}
SCORE_NUMBERS = [name for name, letter in _ufuncs.STATISTICS["score"].items() if letter == "S"]
# The numerics contract's bounds for (float32, float64), in ULP of each output; 4 if not named here.
ULP: dict[str, list[tuple[Any, Any]]] = {
    "logsumexp": [(2, 4)],
    "logsumexp_scaled": [(2, 4), (0, 0)],
    "softmax": [(2, 4)],
    "log_softmax": [(2, 4)],
    "cross_entropy": [(2, 4)],
    "nll": [(0, 0)],
    "nll_probs": [(1, 1)],
    "weighted_nll": [(1, 1), (1, 1)],
    "weighted_nll_probs": [(1, 2), (1, 1)],
    "loss_logits": [(2, 4), (1, 1)],
    "loss_log_probs": [(2, 4), (1, 1)],
    "loss_probs": [(2, 4), (1, 1)],
    "information": [(1, 1)],
    # The first of two outputs or more has a column, here a number, for each statistic.
    "score": [
        tuple(zip(*(SCORE_ULP.get(name, (2, 4)) for name in SCORE_NUMBERS), strict=True)),
        (0, 0),
        (2, 4),
        (0, 0),
        (2, 4),
    ],
}
# How many values a row the outputs S and L have: of the first two, each for a statistic.
EXTENTS = {
    op: (numbers := sum(letter == "S" for letter in told.values()), len(told) - numbers)
    for op, told in _ufuncs.STATISTICS.items()
}
EXTENTS["score"] += (3, 4, 4)
# What numbers stand for in the first golden data of score.
FORMER = ("nll", "entropy", "logsumexp", "argmax")
# Divergences are bounded relatively: float32 (in which 16-bit elements are computed), float64.
RELATIVE = (1e-6, 1e-13)


def is_divergence(kernel: str) -> bool:
    """Whether a kernel's bound is relative."""
    return kernel.startswith(("kl_", "js_"))


def has_divergence(kernel: str) -> bool:
    """Whether a kernel gives a divergence, alone or among other results."""
    return is_divergence(kernel) or kernel == "compare"


@contextmanager
def on_isa(name: str) -> Iterator[None]:
    """Run the kernels of one instruction set."""
    before = _ufuncs.active_isa()
    _ufuncs.select_isa(name)
    try:
        yield
    finally:
        _ufuncs.select_isa(before)


def computed(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype that a dtype is computed in, and its results of one number a row are."""
    return DTYPE_OF["f32"] if dtype in HALVES else dtype


def cast(x: Any, dtype: np.dtype[Any]) -> Array:
    """Return numbers in a dtype, where some may be 0 or infinite that are not in theirs."""
    with np.errstate(all="ignore"):
        return np.asarray(x).astype(dtype)


def letters(kernel: str) -> tuple[str, str]:
    """Return the letters of a kernel's inputs and of its outputs."""
    inputs, outputs = _ufuncs.OPS[kernel].split(">")
    return inputs, outputs


def rows(domain: str, shape: tuple[int, ...], dtype: np.dtype[Any], rng: Any) -> Array:
    """Random rows of a domain: from flat to confident ones; factors are of both signs, or 0."""
    if domain == "weights":
        return cast(rng.uniform(0.25, 1, size=shape), dtype)
    if domain == "factors":
        b = rng.normal(size=shape) * 10.0 ** rng.uniform(-2, 2, size=shape)
        b = np.where(rng.random((*shape[:-1], 1)) < 0.5, np.abs(b), b)
        return cast(np.where(rng.random(shape) < 0.2, 0, b), dtype)
    x = rng.normal(size=shape) * 10.0 ** rng.uniform(-1, 1, size=(*shape[:-1], 1))
    if domain != "logits" and shape[-1]:
        x = x - x.max(axis=-1, keepdims=True)
        x = x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
    if domain == "probs":
        x = np.exp(x)
    return np.ascontiguousarray(cast(x, dtype))


def parameters_of(kernel: str) -> list[tuple[float, ...]]:
    """Return the sets of parameters of a whole call that a kernel is tested with."""
    scalars = [letter for letter in letters(kernel)[0] if letter in "id"]
    guesses = {"i": (1, 0), "d": (1.0, 2.0)}  # a flag, a temperature
    made = [tuple(guesses[letter][k] for letter in scalars) for k in (0, 1)]
    return PARAMETERS.get(kernel, made if scalars else [()])


def operands(
    kernel: str, count: int, n: int, dtype: np.dtype[Any], seed: int = 0
) -> Iterator[tuple[Array | float, ...]]:
    """Yield the operands of calls on `count` rows of `n` classes, for each set of parameters."""
    inputs, _ = letters(kernel)
    rng = np.random.default_rng((seed, count, n, dtype.itemsize))
    domain = DOMAINS.get(kernel, "logits")
    own = (domain,) * len(inputs) if isinstance(domain, str) else domain
    domains = OPERANDS.get(kernel, own)
    in_turn = iter(domains)
    arrays: list[Array] = []
    for letter in inputs:
        if letter in "vgew":
            own = computed(dtype) if letter == "w" else dtype
            arrays.append(rows(next(in_turn), (count, n), own, rng))
        elif letter == "s":
            arrays.append(rows("weights", (count,), computed(dtype), rng))
        elif letter == "l":
            arrays.append(rng.integers(0, max(n, 1), size=count))
        elif letter == "L":
            arrays.append(rng.integers(0, max(n, 1), size=(count, min(n, 3))))
    # Each second row of a pair is near the first: divergences are small there.
    if inputs.startswith("vv") and domains[1] != "factors":
        near = arrays[0][::2].astype(np.float64)
        noise = 1e-3 * rng.normal(size=near.shape)
        with np.errstate(divide="ignore"):
            near = np.log(near) if domains[0] == "probs" else near
        near = near + noise
        if domains[1] == "probs" and n:
            near = np.exp(near - near.max(axis=-1, keepdims=True))
            near = near / near.sum(axis=-1, keepdims=True)
        arrays[1][::2] = cast(near, dtype)
    for parameters in parameters_of(kernel):
        given = iter(arrays), iter(parameters)
        yield tuple(next(given[letter in "id"]) for letter in inputs)


def operands_in_turn(
    kernel: str, shapes: Iterable[tuple[int, int]], dtype: np.dtype[Any], seed: int = 0
) -> Iterator[tuple[Array | float, ...]]:
    """Yield the operands of one call of each shape, with the sets of parameters in turn."""
    for i, shape in enumerate(shapes):
        choice = list(operands(kernel, *shape, dtype, seed))
        yield choice[i % len(choice)]


def call(kernel: str, args: tuple[Any, ...], **kwargs: Any) -> tuple[Array, ...]:
    """Call a kernel; its outputs as a tuple."""
    if kernel in EXTENTS and "out" not in kwargs:
        kwargs["out"] = outputs_of(kernel, args, kwargs.get("axes"))
    result = getattr(_ufuncs, kernel)(*args, **kwargs)
    return result if isinstance(result, tuple) else (result,)


def outputs_of(kernel: str, args: tuple[Any, ...], axes: Any = None) -> tuple[Array, ...]:
    """Return outputs of several values a row, for NumPy cannot know how many."""
    inputs, outputs = letters(kernel)
    arrays = [np.asarray(arg) for arg in args]
    shapes = [
        np.delete(a.shape, axes[k] if axes else -1) if letter in "vL" else a.shape
        for k, (a, letter) in enumerate(zip(arrays, inputs, strict=True))
    ]
    shape = np.broadcast_shapes(*(tuple(map(int, s)) for s in shapes))
    native = arrays[0].dtype.newbyteorder("=")
    dtypes = {"S": computed(native), "L": np.dtype(np.int64)}
    extents = list(EXTENTS[kernel])
    if kernel == "score":
        extents[2] = arrays[5].shape[-1]
    return tuple(
        np.empty((*shape, extent), dtypes[letter])
        for extent, letter in zip(extents, outputs, strict=True)
    )


def by_output(kernel: str, result: Any) -> Any:
    """Return what golden data call the outputs of a kernel by: of score and compare, statistics.

    The first data of score have numbers for four of them, FORMER.
    """
    if kernel not in EXTENTS:
        return result
    found: dict[int | str, Array] = {}
    for are_numbers, columns in zip((True, False), result[:2], strict=True):
        told = _ufuncs.STATISTICS[kernel].items()
        names = [k for k, letter in told if (letter == "S") == are_numbers]
        found |= zip(names, np.moveaxis(columns, -1, 0), strict=True)
    former = FORMER if kernel == "score" else ()
    return found | {i: found[name] for i, name in enumerate(former)}


def bounds_of_output(kernel: str, output: int | str | None) -> tuple[int, int]:
    """Return the bounds, in ULP for (float32, float64), of an output as golden data call it."""
    if kernel not in ULP:
        return 4, 4
    if kernel != "score":
        return ULP[kernel][int(output or 0)]
    name = FORMER[output] if isinstance(output, int) else output
    if name not in SCORE_NUMBERS:
        return 0, 0  # an index or a count
    return SCORE_ULP.get(str(name), (2, 4))


def specified(kernel: str, args: tuple[Any, ...]) -> tuple[Array, ...]:
    """Return what the specification gives for a call; its outputs as a tuple."""
    more = {"top_k": EXTENTS[kernel][3]} if kernel == "score" else {}
    result = REFERENCE[kernel](*args, **more)
    return result if isinstance(result, tuple) else (result,)


def same_bits(a: Array, b: Array) -> bool:
    """Whether two arrays are equal to the bit, nan to any nan."""
    signs = [np.signbit(x) & ~np.isnan(x) for x in (a, b)]
    return bool(np.array_equal(a, b, equal_nan=True) and np.array_equal(*signs))


def take_rows(kernel: str, args: tuple[Any, ...], which: Any) -> tuple[Any, ...]:
    """Return the operands of a call on some of the rows."""
    inputs, _ = letters(kernel)
    return tuple(
        arg if letter in "id" else arg[which] for letter, arg in zip(inputs, args, strict=True)
    )


def describe(kernel: str, args: tuple[Any, ...]) -> str:
    """Name a call in an assertion."""
    inputs, _ = letters(kernel)
    parameters = [arg for letter, arg in zip(inputs, args, strict=True) if letter in "id"]
    return f"{kernel}, {args[0].dtype}, shape {args[0].shape}, parameters {parameters}"


def is_plain(kernel: str, args: tuple[Any, ...]) -> bool:
    """Whether a divergence is asked for as a plain sum."""
    return kernel == "kl_log_probs" or (kernel != "kl_logits" and not args[2])


def scale_of(kernel: str, args: tuple[Any, ...], output: int, expected: Array) -> Array | None:
    """Return the size at which the contract counts the ULP of results that may cancel."""
    with np.errstate(all="ignore"):
        x = np.asarray(args[0], np.float64)
        if kernel == "logsumexp":
            size = np.abs(x.max(axis=-1, initial=-np.inf))
        elif kernel == "logsumexp_scaled":
            if output:
                return None
            b = np.asarray(args[1], np.float64)
            # Of the terms that matter the largest parts; and what cancelling leaves of the sum.
            z = np.where(b == 0, -np.inf, x + np.log(np.abs(b)))
            top = np.where(np.isnan(z), -np.inf, z).max(axis=-1, initial=-np.inf, keepdims=True)
            parts = np.where(z > top - 50, np.abs(x) + np.abs(np.log(np.abs(b))), 0)
            terms = np.exp(z - top)
            lost = terms.sum(axis=-1) / np.abs((np.sign(b) * terms).sum(axis=-1))
            size = parts.max(axis=-1, initial=0) * lost + np.where(lost > 1.0001, lost, 0)
        elif kernel == "rel_entr":
            return None
        elif kernel == "score" and output == 0:
            size = score_sizes(args, expected)
        elif kernel == "compare" and output == 0:
            # Of differences, that of what they are the difference of; and a tenth of a nat or more.
            size = np.zeros_like(expected)
            size[..., 3], size[..., 9:11] = 0.1, 1
            # Both are of first order in the normalisers: they see the last place of the logits.
            most = np.maximum(np.abs(x), np.abs(np.asarray(args[1], np.float64)))
            last_place = np.minimum(most.max(axis=-1, initial=0), 1e3) / 1e3
            size[..., [3, 9]] += last_place[..., np.newaxis]
            # The agreement is of products of two.
            size[..., 8] = 2 * expected[..., 8]
        elif kernel == "cross_entropy" and args[4]:
            temperature, z_loss = args[3:]
            # The squared logsumexp near 0 is as good as the logsumexp: in ULP of the maximum.
            size = np.abs(expected) + z_loss * (x.max(axis=-1, initial=-np.inf) / temperature) ** 2
        elif kernel.startswith("binary_cross_entropy"):
            # A negative weight of the positive class takes one term from the other.
            size = np.abs(REFERENCE[kernel](*args[:2], *map(np.abs, args[2:])))
        elif kernel == "entropy_log_probs":
            size = np.abs(np.exp(x) * x)
            size = np.where(np.isfinite(size), size, 0).sum(axis=-1)
        elif kernel == "entropy_probs":
            # Sums may drop subnormal numbers: each of them is at most 128 tiny here.
            info = finfo(computed(args[0].dtype))
            size = np.full(expected.shape, 64 * float(info.tiny / info.eps))
            if not args[1]:
                terms = np.abs(x * np.log(x))
                size += np.where(np.isfinite(terms), terms, 0).sum(axis=-1)
        elif kernel.startswith("kl_") and is_plain(kernel, args):
            log_p, log_q = (
                np.log(np.asarray(arg, np.float64)) if fill == "0" else np.asarray(arg, np.float64)
                for arg, fill in zip(args, _ufuncs.FILLS[kernel], strict=False)
            )
            size = np.exp(log_p) * np.abs(log_p - log_q)
            size = np.where(np.isfinite(size), np.abs(size), 0).sum(axis=-1)
        else:
            return None
        return np.where(np.isfinite(size), size, 0)


def score_sizes(args: tuple[Any, ...], expected: Array) -> Array:
    """Return the sizes that errors of score's numbers are counted at."""
    x, temperature = np.asarray(args[0], np.float64), args[3]
    size = np.abs(expected)
    size[..., 5] = np.maximum(size[..., 5], np.abs(x.max(axis=-1, initial=-np.inf) / temperature))
    # (d - mean)^2 is as good as d^2: the root of both variances' product.
    mean = expected[..., 6] + expected[..., 3]
    spread = expected[..., 7]
    size[..., 7] = np.sqrt(spread * (spread + mean**2))
    return size


def assert_as_specified(
    kernel: str,
    args: tuple[Any, ...],
    actual: tuple[Array, ...],
    expected: tuple[Array, ...],
    about: str,
) -> None:
    """Check the outputs of a call against the specification's, within the contract's bounds."""
    double = args[0].dtype == np.float64

    def where() -> str:
        return f"{about} {describe(kernel, args)}: output {k}"

    for k, (got, want) in enumerate(zip(actual, expected, strict=True)):
        dtype = args[0].dtype if letters(kernel)[1][k] in "ve" else computed(args[0].dtype)
        assert got.shape == want.shape, where()
        assert got.dtype == (want.dtype if want.dtype.kind == "i" else dtype), where()
        scale = scale_of(kernel, args, k, want)
        relative = is_divergence(kernel) or (kernel == "compare" and k == 0)
        if relative:
            with np.errstate(all="ignore"):
                # Below 1e-12 the bound is absolute.
                size = np.maximum(np.abs(want), 1e-12)
                size = size if scale is None else np.maximum(size, scale)
                error = np.abs(got - want) / (RELATIVE[double] * size)
                rounded = want.astype(got.dtype)  # an infinity, if it is beyond all numbers
            right = (got == rounded) | (np.isnan(got) & np.isnan(want)) | (error <= 1)
            error = np.where(right, 0, error)
        else:
            error = ulp_error(got, want, 0, dtype, scale)
            # The specification's float64 is itself rounded: half a ULP of it.
            bound = np.asarray(ULP.get(kernel, [(4, 4)] * len(actual))[k][double]) + 0.5 * double
            if dtype in HALVES:  # what the bound allows in float32, and one rounding
                bound = 0.5 + bound * float(finfo(computed(dtype)).eps / finfo(dtype).eps)
            right = error <= bound
        if not right.all():
            i = np.unravel_index(np.argmin(right), right.shape)
            what = "of the bound" if relative else "ULP"
            raise AssertionError(
                f"{where()} at {tuple(map(int, i))} is {got[i]!r}, not {want[i]!r}: "
                f"{error[i]:.2f} {what}; {np.sum(~right)} of {right.size} wrong"
            )


def run_script(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own that imports what this one does."""
    folders = [str(Path(module).parents[1]) for module in (klce.__file__, __file__)]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("KLCE_")}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**clean, "PYTHONPATH": os.pathsep.join(folders), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
