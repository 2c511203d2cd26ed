"""Infinities, nan, zeros, masks and subnormal numbers, in every kernel on every instruction set."""

import ctypes
import inspect
import itertools
import math
import platform
import re
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

import klce
from klce import _arrays, _ufuncs
from tests.functions import ELEMENTWISE
from tests.kernels import (
    ALL,
    DOMAINS,
    DTYPES,
    ISAS,
    KERNELS,
    OPERANDS,
    assert_as_specified,
    call,
    cast,
    computed,
    describe,
    finfo,
    has_divergence,
    letters,
    on_isa,
    operands,
    operands_in_turn,
    same_bits,
    specified,
    take_rows,
)

pytestmark = pytest.mark.matrix

INF, NAN = math.inf, math.nan
# Of few classes; of more than the sums flush at once; of more than a block.
CLASSES = [1, 2, 10, 33, 300, 2100]

KERNEL = pytest.mark.parametrize("kernel", KERNELS)
DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=str)
ISA = pytest.mark.parametrize("isa", ISAS)


def values(kernel, dtype):
    """What a row may hold that is not a common number."""
    info = finfo(dtype)
    common = [NAN, INF, -INF, 0.0, -0.0]
    if "probs" in np.ravel(DOMAINS.get(kernel, "")):
        return [
            *common,
            -1.0,
            -info.smallest_subnormal,
            1.0,
            info.smallest_subnormal,
            info.tiny / 2,
        ]
    return [*common, info.smallest_subnormal]


def positions(n):
    """Every lane of a short row; of a long one the ends and those of groups and blocks."""
    return range(n) if n <= 33 else [0, 31, n // 2, n - 1] if n < 2048 else [0, 2048, n - 1]


def changed(kernel, n, dtype, changes):
    """Yield calls whose odd rows (``ODD``) are changed, and the unchanged calls.

    A change is a set of operands, the part of their row and the value that it gets.
    """
    inputs, _ = letters(kernel)
    for args in operands(kernel, 2 * len(changes) + 1, n, dtype):
        copies = [
            np.copy(a) if letter in "vgel" else a for letter, a in zip(inputs, args, strict=True)
        ]
        for row, (which, part, value) in enumerate(changes):
            for k in which:
                copies[k][2 * row + 1, part] = cast(value, dtype)
            # The label is at the change in each second row.
            if "l" in inputs and row % 2 and isinstance(part, int):
                copies[inputs.index("l")][2 * row + 1] = part
        yield tuple(copies), args


ODD = slice(1, None, 2)


def divergence_takes(kernel, value):
    """Whether a divergence promises a result for a row with this value in it.

    An infinite probability is none, and sums of numbers near the dtype's largest overflow.
    """
    return not has_divergence(kernel) or not (value == INF or 1e30 < abs(float(value)) < INF)


def subsets(kernel, weights=True):
    """The operands to change: each that holds rows, and all of them; weights only if asked to."""
    rows = [k for k, letter in enumerate(letters(kernel)[0]) if letter in "vge"]
    domains = OPERANDS.get(kernel, [""] * len(rows))
    rows = [k for k, domain in zip(rows, domains, strict=False) if weights or domain != "weights"]
    return [(k,) for k in rows] + ([tuple(rows)] if len(rows) > 1 else [])


@lru_cache(maxsize=1)
def cases_of_one_value(kernel, dtype):
    cases = []
    for n in CLASSES:
        # Sums may drop subnormal numbers, so a row of nothing else may count as empty.
        special = [v for v in values(kernel, dtype) if n > 1 or v == 0 or not abs(v) < 1e-30]
        special = [v for v in special if divergence_takes(kernel, v)]
        changed_ones = subsets(kernel)
        if n > 10:
            # The specification is slow where numbers are not finite.
            special, changed_ones = special[:3], changed_ones[:2]
        changes = list(itertools.product(changed_ones, positions(n), special))
        for args, common in changed(kernel, n, dtype, changes):
            cases.append((args, common, specified(kernel, take_rows(kernel, args, ODD))))
    return cases


@ISA
@DTYPE
@KERNEL
def test_one_special_value(kernel, dtype, isa):
    with on_isa(isa), np.errstate(all="raise"):
        for args, common, expected in cases_of_one_value(kernel, dtype):
            result = call(kernel, args)
            odd = tuple(output[ODD] for output in result)
            assert_as_specified(
                kernel, take_rows(kernel, args, ODD), odd, expected, f"on {isa}, odd rows of"
            )
            # The rows between are what they are beside common rows.
            for a, b in zip(result, call(kernel, common), strict=True):
                assert same_bits(a[::2], b[::2]), f"on {isa}, {describe(kernel, args)}"


@lru_cache(maxsize=1)
def cases_of_parts(kernel, dtype):
    cases = []
    for n in (2, 10, 33, 2049, 4100, 40000):
        if n <= 33:
            special = values(kernel, dtype)[:8]
            parts = [slice(0, n), slice(0, n // 2), slice(n // 2, n), slice(1, n)]
        else:
            special = [NAN, INF, -INF] if n == 2049 else [-INF]
            parts = [slice(0, n // 2048 * 2048), slice(0, 2048), slice(1024, n)]
            parts = parts if n < 32768 else [slice(0, 32768)]
        special = [v for v in special if divergence_takes(kernel, v)]
        changed_ones = subsets(kernel)[: 1 if n > 2048 else None]
        changes = list(itertools.product(changed_ones, parts, special))
        for args, _ in changed(kernel, n, dtype, changes):
            args = take_rows(kernel, args, ODD)
            cases.append((args, specified(kernel, args)))
    return cases


@ISA
@DTYPE
@KERNEL
def test_rows_of_special_values(kernel, dtype, isa):
    """Rows that hold nothing else, or nothing else in their first or last part."""
    with on_isa(isa), np.errstate(all="raise"):
        for args, expected in cases_of_parts(kernel, dtype):
            assert_as_specified(kernel, args, call(kernel, args), expected, f"on {isa}")


@lru_cache(maxsize=1)
def extreme_calls(kernel, dtype):
    info = finfo(dtype)
    least, most = float(info.min), float(info.max)
    extremes = [-1e9, least] if kernel in DOMAINS else [-1e9, 1e9, least, most]
    extremes = [x for x in extremes if least <= x <= most]  # 16 bits have no 1e9
    if has_divergence(kernel):
        # y - x of a lone largest number is beyond the dtype, or loses the other's digits, as does a
        # float64 normaliser of 1e9 beside a bound of 1e-13.
        extremes = [x for x in extremes if abs(x) <= 1e9]
        if kernel in ("kl_logits", "compare") and dtype == np.float64:
            extremes = [-1e3, 1e3]
    cases = []
    for n in (2, 10, 33, 600, 2100):
        if n == 2100 and kernel == "logsumexp_scaled":
            continue  # its factors' sum is near 0 there, and may have either sign
        places = [0, n // 2, n - 1, slice(0, n // 2), slice(1, n)]
        if n == 2100:  # whole first blocks of the smallest number, and a later one of others
            places = [slice(0, n - 1), slice(0, n // 2)]
        changes = list(itertools.product(subsets(kernel, weights=False), places, extremes))
        for args, _ in changed(kernel, n, dtype, changes):
            args = take_rows(kernel, args, ODD)
            cases.append((args, specified(kernel, args)))
    return cases


@ISA
@DTYPE
@pytest.mark.parametrize("kernel", [k for k in KERNELS if DOMAINS.get(k) != "probs"])
def test_extreme_logits(kernel, dtype, isa):
    """Of both signs, up to the largest numbers that there are."""
    with on_isa(isa), np.errstate(all="raise"):
        for args, expected in extreme_calls(kernel, dtype):
            assert_as_specified(kernel, args, call(kernel, args), expected, f"on {isa}")


@ISA
@DTYPE
@KERNEL
def test_no_classes(kernel, dtype, isa):
    inputs, outputs = letters(kernel)
    with on_isa(isa):
        for args in operands(kernel, 3, 0, dtype):
            if "l" in inputs:
                # There is no class that a label could name.
                ignored = args[inputs.index("i")]
                args = tuple(
                    np.full(3, ignored) if letter == "l" else arg
                    for letter, arg in zip(inputs, args, strict=True)
                )
            result = call(kernel, args)
            _ufuncs.raise_trouble()
            assert_as_specified(kernel, args, result, specified(kernel, args), f"on {isa}")
            assert len(result) == len(outputs)


# --- the rules, spelt out -------------------------------------------------------------------------

LOGITS = [
    # row: logsumexp, softmax, log_softmax, entropy, loss at class 0, first maximum
    ([-INF, -INF], -INF, [NAN, NAN], [NAN, NAN], NAN, NAN, 0),
    ([1.0, INF], INF, [NAN, NAN], [NAN, NAN], NAN, NAN, 1),
    ([INF, INF], INF, [NAN, NAN], [NAN, NAN], NAN, NAN, 0),
    ([INF, -INF], INF, [NAN, NAN], [NAN, NAN], NAN, NAN, 0),
    ([0.0, NAN], NAN, [NAN, NAN], [NAN, NAN], NAN, NAN, 1),
    ([INF, NAN], NAN, [NAN, NAN], [NAN, NAN], NAN, NAN, 1),
    ([NAN, -INF], NAN, [NAN, NAN], [NAN, NAN], NAN, NAN, 0),
    ([-INF, 3.0], 3.0, [0.0, 1.0], [-INF, 0.0], 0.0, INF, 1),
    ([3.0, -INF], 3.0, [1.0, 0.0], [0.0, -INF], 0.0, 0.0, 0),
]


@ISA
@DTYPE
@pytest.mark.parametrize("padding", [0, 1, 8, 31, 3000])
def test_special_logits(padding, dtype, isa):
    """A pair of classes, before others that are masked."""
    mask = [-INF] * padding
    # Some logits are as large as the dtype allows: twice as much is beyond it, but for float64.
    big = float(cast(6e4 if dtype == np.float16 else 3e38, dtype))
    rows = [*LOGITS, ([big, -big], big, [1.0, 0.0], [0.0, -2 * big], 0.0, 0.0, 0)]
    x = np.array([[*row, *mask] for row, *_ in rows], dtype)
    target = np.zeros(len(x), np.int64)
    _, lse, probs, log_probs, entropy, loss, best = zip(*rows, strict=True)
    with on_isa(isa), np.errstate(all="raise"):
        results = {
            "logsumexp": (call("logsumexp", (x,))[0], lse),
            "softmax": (call("softmax", (x, 1.0))[0][:, :2], probs),
            "log_softmax": (call("log_softmax", (x, 1.0))[0][:, :2], log_probs),
            "entropy_logits": (call("entropy_logits", (x, 1.0))[0], entropy),
            "cross_entropy": (call("cross_entropy", (x, target, -100, 1.0, 0.0))[0], loss),
        }
        numbers, integers, *_ = call("score", (x, target, -100, 1.0, ALL["score"], target[:1]))
    scored = (numbers[:, 0], numbers[:, 6], numbers[:, 5], integers[:, 1])
    results |= dict(
        zip(range(4), zip(scored, (loss, entropy, lse, best), strict=True), strict=True)
    )
    for kernel, (result, expected) in results.items():
        assert same_bits(result + 0, cast(expected, result.dtype)), kernel


@ISA
@DTYPE
def test_special_probabilities(dtype, isa):
    pairs = [
        # p, q: entropy, divergence
        ([1.0, 0.0], [1.0, 0.0], 0.0, 0.0),
        ([0.0, 1.0], [0.5, 0.5], 0.0, math.log(2)),
        ([0.5, 0.5], [0.0, 1.0], math.log(2), INF),
        ([1.0, 0.0], [0.0, 1.0], 0.0, INF),
        ([0.0, 0.0], [0.5, 0.5], NAN, NAN),
        ([0.5, 0.5], [0.0, 0.0], math.log(2), NAN),
        ([-0.5, 1.5], [0.5, 0.5], NAN, NAN),
        ([0.5, 0.5], [-0.5, 1.5], math.log(2), NAN),
        ([NAN, 1.0], [0.5, 0.5], NAN, NAN),
        ([0.5, 0.5], [NAN, 1.0], math.log(2), NAN),
    ]
    p, q, *results = zip(*pairs, strict=True)
    p, q = np.array(p, dtype), np.array(q, dtype)
    entropy, divergence = (np.array(c, computed(dtype)) for c in results)
    with on_isa(isa), np.errstate(all="raise"):
        for padding in (0, 1, 8, 31, 3000):
            pad = ((0, 0), (0, padding))
            x, y = np.pad(p, pad), np.pad(q, pad)
            np.testing.assert_array_equal(call("entropy_probs", (x, 1))[0], entropy)
            np.testing.assert_array_equal(call("kl_probs", (x, y, 1))[0], divergence)
            elements = np.array([0.0, -0.0, 1.0, -1.0, NAN, 2.0, *[0.5] * padding], dtype)
            information = call("information", (elements,))[0][:6]
            expected = [INF, INF, 0.0, NAN, NAN, -math.log(2)]
            assert same_bits(information, np.array(expected, dtype))
            binary = call("binary_entropy", (elements,))[0][:6]
            assert same_bits(binary, np.array([0, 0, 0, NAN, NAN, NAN], dtype))


@ISA
@DTYPE
@pytest.mark.parametrize("kernel", [k for k in KERNELS if re.search("l.*>s", _ufuncs.OPS[k])])
def test_ignored_rows_are_0_whatever_they_hold(kernel, dtype, isa):
    with on_isa(isa):
        for n in CLASSES:
            args = list(next(operands(kernel, 20, n, dtype)))
            x, labels = args[0].copy(), args[1].copy()
            x[::3], labels[::3] = NAN, -100
            x[1::3], labels[1::3] = -INF, -100
            # Neither a class nor less than none: any number may be the one to ignore.
            for ignored in (-100, n, 2**63 - 1, -(2**63)):
                labels[labels == -100] = ignored
                loss, *_ = call(kernel, (x, labels, ignored, *args[3:]))
                _ufuncs.raise_trouble()
                assert same_bits(loss[labels == ignored], np.zeros_like(loss[labels == ignored]))
                # A probability may have become 0 in 16 bits.
                expected, *_ = specified(kernel, (x, labels, ignored, *args[3:]))
                assert (np.isfinite(loss) == np.isfinite(expected)).all()
                assert np.isfinite(loss).sum() > 10
                labels[labels == ignored] = -100


@ISA
@DTYPE
def test_subnormal_probabilities(dtype, isa):
    """Neither flushed nor stuck at the smallest normal number."""
    info = finfo(dtype)
    smallest, lowest = float(np.log(info.tiny)), float(np.log(info.smallest_subnormal))
    steps = np.linspace(smallest + 1, lowest - 1, 200)
    with on_isa(isa), np.errstate(all="raise"):
        for n in (2, 7, 33, 201, 3000):
            for offset in (0.0, -50.0, 1e4):
                for count in range(0, 200, max(n - 1, 7)):
                    x = np.zeros(n)
                    x[1:] = np.resize(steps[count : count + n - 1], n - 1)
                    args = (cast(x + offset, dtype), 1.0)
                    result, expected = call("softmax", args), specified("softmax", args)
                    assert_as_specified("softmax", args, result, expected, f"on {isa}")
                    above = expected[0] > 3 * float(info.smallest_subnormal)
                    assert (result[0][above] > 0).all()


@lru_cache(maxsize=1)
def masked_calls(kernel, dtype):
    cases = []
    for n in (5, 40, 3000):
        masks = [-INF, -1e9, finfo(dtype).min]
        parts = [slice(0, n // 2), slice(n // 2, n), slice(1, n, 2), slice(0, n - 2)]
        changes = list(itertools.product(subsets(kernel)[-1:], parts, masks))
        for args, _ in changed(kernel, n, dtype, changes):
            args = take_rows(kernel, args, ODD)
            cases.append((args, specified(kernel, args)))
    return cases


@ISA
@DTYPE
@pytest.mark.parametrize("kernel", [k for k in KERNELS if k not in DOMAINS])
def test_masks_cost_no_accuracy(kernel, dtype, isa):
    """A mask of -inf, -1e9 or the least number before, behind or among the logits."""
    with on_isa(isa), np.errstate(all="raise"):
        for args, expected in masked_calls(kernel, dtype):
            assert_as_specified(kernel, args, call(kernel, args), expected, f"on {isa}")


# --- the caller's floating-point environment ------------------------------------------------------


@DTYPE
@KERNEL
def test_no_warning_on_any_thread(kernel, dtype):
    """Numbers of rows and classes that several threads share, special values among them."""
    special = cast(values(kernel, dtype), dtype)
    for args in operands_in_turn(kernel, [(8201, 9), (67, 1000), (1, 65537)], dtype):
        for letter, arg in zip(letters(kernel)[0], args, strict=True):
            if letter in "vge":
                arg[::2, ::7] = np.resize(special, arg[::2, ::7].shape)
        for threads in (1, 2, 7):
            with klce.threads(threads), np.errstate(all="raise"):
                call(kernel, args)


LIBM = ctypes.CDLL(None)
# What flushes subnormal results (and operands) to zero: a word of fenv_t, and its bits.
FLUSH = {"x86_64": (28, 0x8040), "aarch64": (0, 1 << 24)}


def environment():
    buffer = ctypes.create_string_buffer(64)
    assert LIBM.fegetenv(buffer) == 0
    return buffer


def modes_and_flags():
    raw = environment().raw
    # x87's addresses of its last instruction are there too, and change as anyone uses it.
    return raw[:12] + raw[28:] if platform.machine() == "x86_64" else raw


@pytest.fixture
def hostile_environment():
    """A host that flushes subnormal numbers to zero and rounds upwards."""
    before, ours = environment(), environment()
    offset, bits = FLUSH[platform.machine()]
    word = ctypes.c_uint32.from_buffer(ours, offset)
    word.value |= bits

    def enter():
        LIBM.fesetenv(ours)
        LIBM.fesetround(0x800 if platform.machine() == "x86_64" else 1 << 22)

    def leave():
        LIBM.fesetenv(before)

    yield enter, leave
    leave()


@ISA
@DTYPE
@KERNEL
def test_the_callers_environment_does_not_matter(kernel, dtype, isa, hostile_environment):
    enter, leave = hostile_environment
    with on_isa(isa), klce.threads(2):
        # One thread, and several: by rows that are packed, and by segments of long ones.
        for args in operands_in_turn(kernel, [(3, 40), (700, 101), (2, 40000)], dtype):
            if kernel not in DOMAINS:
                args[0][:, ::3] -= dtype.type(720 if dtype == np.float64 else 95)
            args = (np.asfortranarray(args[0]) if len(args[0]) == 700 else args[0], *args[1:])
            expected = call(kernel, args)
            enter()
            try:
                start = modes_and_flags()
                result = call(kernel, args)
                end = modes_and_flags()
            finally:
                leave()
            assert end == start, describe(kernel, args)
            for a, b in zip(result, expected, strict=True):
                assert same_bits(a, b), describe(kernel, args)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_callers_environment_changes_no_mean(dtype, hostile_environment):
    enter, leave = hostile_environment
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(1237, 7)).astype(dtype)
    target = rng.integers(0, 7, 1237)

    expected = klce.cross_entropy(logits, target)
    enter()
    try:
        result = klce.cross_entropy(logits, target)
    finally:
        leave()
    assert result == expected


# --- the table of docs/special_values.md ---------------------------------------------------------

DOCUMENT = (Path(__file__).parents[1] / "docs/special_values.md").read_text()


def table(heading):
    """The rows of the table under a heading."""
    section = DOCUMENT.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines[2:]]


NAMES = {"inf": INF, "nan": NAN}
PROMISES = table("Inputs and results")


def test_the_table_names_every_function():
    """All but klce.compare, which gives the columns that others are."""

    def takes_numbers(name):
        first = next(iter(inspect.signature(getattr(klce, name)).parameters), None)
        return first in ("x", "p", "q", "log_probs") and name != "compare"

    assert {function for function, _, _ in PROMISES} == set(filter(takes_numbers, klce.__all__))


@ISA
@DTYPE
@pytest.mark.parametrize(("function", "arguments", "result"), PROMISES)
def test_the_table(function, arguments, result, dtype, isa):
    def call_it(*args, **kwargs):
        args = [np.array(a, dtype) if isinstance(a, list) else a for a in args]
        if "b" in kwargs:
            kwargs["b"] = np.array(kwargs["b"], dtype)
        return getattr(klce, function)(*args, **kwargs)

    with on_isa(isa), np.errstate(all="raise"):
        call = f"call_it({arguments})"
        if result == "ValueError":
            with pytest.raises(ValueError, match="at least one class"):
                eval(call, {**NAMES, "call_it": call_it})
            return
        actual = eval(call, {**NAMES, "call_it": call_it})
        expected = eval(result, NAMES)
        assert isinstance(actual, tuple) == isinstance(expected, tuple)
        for a, b in zip(
            *((v if isinstance(v, tuple) else (v,)) for v in (actual, expected)), strict=True
        ):
            # A number for each row of halves is what they are computed in.
            by_rows = np.ndim(a) == 0 and function not in ELEMENTWISE
            assert a.dtype == (_arrays.computed(dtype) if by_rows else dtype)
            expected = np.array(b, a.dtype)
            # NumPy compares no nan of bfloat16.
            np.testing.assert_array_equal(a.astype(float), expected.astype(float))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("first", [5.5e-309, 1e-320, 2e-308])
def test_entropy_after_a_block_of_next_to_nothing(first, isa):
    """A later maximum over an earlier one may be beyond all numbers."""
    p = np.zeros((2, 1025))
    p[:, 0], p[:, -1] = first, 1.0
    p[1, 5] = first
    with on_isa(isa):
        found = klce.entropy(p)
    one = first * (1 - np.log(first))
    np.testing.assert_allclose(found, [one, 2 * one], rtol=1e-3 if first < 1e-315 else 1e-12)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [2, 10, 33, 200, 257, 3000, 70000])
def test_entropy_of_rows_of_any_sum_side_by_side(n, dtype, isa):
    """Sums from 1/2 to 2 take one sweep, others two: alone, in a tile and in parts all agree."""
    rng = np.random.default_rng(n)
    sums = np.array([1, 0.4999, 0.5001, 1.9999, 2.0001, 1e3, 1e-6, 1, 40, 0.1, 1.01, 0.99])
    sharp = np.array([0.1, 1, 4, 20])  # the last leaves one class nearly all
    x = rng.normal(size=(48, n)) * np.repeat(sharp, 12)[:, np.newaxis]
    p = np.exp(x - x.max(axis=1, keepdims=True))
    p = (p / p.sum(axis=1, keepdims=True) * np.tile(sums, 4)[:, np.newaxis]).astype(dtype)
    p[5:7, 0] = 0
    p[7, -1] = -1
    share = p.astype(np.longdouble) / p.sum(axis=1, dtype=np.longdouble, keepdims=True)
    first = np.arange(48), share.argmax(axis=1)
    share[first] = 0
    rest = share.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = -(1 - rest) * np.log1p(-rest) - np.where(share, share * np.log(share), 0).sum(1)
    expected[7] = np.nan
    with on_isa(isa):
        found = klce.entropy(p)
        alone = np.array([klce.entropy(row) for row in p])
        with klce.threads(2):
            shared = klce.entropy(p[-1:])
    np.testing.assert_array_equal(found, alone)
    np.testing.assert_array_equal(found[-1:], shared)
    rtol = 6e-7 if dtype == np.float32 else 4e-15
    np.testing.assert_allclose(found, expected.astype(np.float64), rtol=rtol)


@pytest.mark.parametrize("isa", ISAS)
def test_a_later_maximum_far_above_takes_no_normal_number(isa):
    x = np.full((4, 1025), -1e5)
    x[:, 0] = -690, -694, -700, -708
    x[:, -1] = 0
    with on_isa(isa):
        found = klce.cross_entropy(x, np.full(4, 1024), reduction="none")
        table = klce.score(x, np.full(4, 1024))
    np.testing.assert_allclose(found, np.exp(x[:, 0]), rtol=1e-12)
    assert table["nll"].tolist() == found.tolist()
