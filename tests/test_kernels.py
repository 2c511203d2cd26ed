"""Every kernel of ops.def on every instruction set, against the specification and one another."""

import re
from functools import lru_cache

import numpy as np
import pytest

from klce import _ufuncs
from klce.reference import KERNELS as REFERENCE
from tests.kernels import (
    DOMAINS,
    DTYPE_OF,
    DTYPES,
    HALVES,
    ISAS,
    KERNELS,
    assert_as_specified,
    call,
    describe,
    finfo,
    is_divergence,
    letters,
    on_isa,
    operands,
    operands_in_turn,
    rows,
    same_bits,
    specified,
    take_rows,
)

pytestmark = pytest.mark.matrix

# Kernels work in groups (16 or 32 elements), flushes (256, 512), blocks (1024, 2048) and segments
# (32768): all of them powers of two.
SHORT = range(1, 71)
MIDDLE = sorted({2**k + d for k in range(7, 14) for d in (-1, 0, 1)} | {1000, 3 * 2048 + 5})
LONG = [16385, 32767, 32768, 32769, 65537, 128256]
# 16-bit elements are computed in float32: fewer are held against the specification here, since
# test_halves_are_computed_in_float32 holds all of them against float32, to the bit.
LONG_HALVES = [16385, 50257]

KERNEL = pytest.mark.parametrize("kernel", KERNELS)
DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=str)
ISA = pytest.mark.parametrize("isa", ISAS)


# A call on short rows has a group of them and some more. Few are drawn and come again in turn, so
# that each place in a group is held against the specification, which is slow, at the price of few.
ROWS, DISTINCT = 19, 7


def calls(kernel, dtype, seed=0, long=LONG):
    """Yield the operands of calls on rows of every number of classes."""
    for n in SHORT:
        choice = list(operands(kernel, DISTINCT, n, dtype, seed))
        # As for LONG_HALVES, all parameters at each number are left to float32.
        for args in choice if dtype not in HALVES else [choice[n % len(choice)]]:
            yield take_rows(kernel, args, np.arange(ROWS) % DISTINCT)
    for i, n in enumerate([*MIDDLE, *long]):
        # The parameters in turn.  Of a pair of rows, the second is the one that is not near.
        choice = list(operands(kernel, 1 + i % 2, n, dtype, seed))
        yield take_rows(kernel, choice[i // 2 % len(choice)], slice(i % 2, None))


@lru_cache(maxsize=1)
def cases(kernel, dtype):
    """Calls of a kernel and what the specification gives, made once for all instruction sets."""
    found = []
    for args in calls(kernel, dtype, long=LONG_HALVES if dtype in HALVES else LONG):
        expected = specified(kernel, take_rows(kernel, args, slice(DISTINCT)))
        again = np.arange(len(args[0])) % DISTINCT
        found.append((args, tuple(output[again] for output in expected)))
    return found


@lru_cache(maxsize=1)
def calls_in_both(kernel, dtype):
    """Calls on 16-bit elements, and on the same numbers in float32."""
    return [
        (
            args,
            tuple(
                arg.astype(np.float32) if np.asarray(arg).dtype == dtype else arg for arg in args
            ),
        )
        for args in calls(kernel, dtype, seed=3)
    ]


def test_every_kernel_is_specified():
    assert set(KERNELS) == set(REFERENCE)
    assert set(_ufuncs.DTYPES) == set(DTYPE_OF)


@ISA
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@KERNEL
def test_halves_are_computed_in_float32(kernel, dtype, isa):
    """To the bit what float32 gives for the same numbers, with one rounding at the end of a map."""
    _, outputs = letters(kernel)
    with on_isa(isa):
        for args, wide in calls_in_both(kernel, dtype):
            for a, b, letter in zip(call(kernel, args), call(kernel, wide), outputs, strict=True):
                rounded = b.astype(dtype) if letter in "ve" else b
                assert a.dtype == rounded.dtype
                assert same_bits(a, rounded), describe(kernel, args)


@ISA
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("count", [1, 7, 65536])
def test_every_half_is_read_and_written(count, dtype, isa):
    """By a kernel that maps element by element, alone and among others: all 65536 of each."""
    every = np.arange(65536, dtype=np.uint16).view(dtype)
    pieces = np.split(every, range(count, 65536, count))
    with on_isa(isa):
        expected = _ufuncs.information(every.astype(np.float32)).astype(dtype)
        found = np.concatenate([_ufuncs.information(piece) for piece in pieces])
        assert same_bits(found, expected)
        # The logarithm loses most of them; the value at a label is as it stands.
        rows = every.reshape(-1, 1)
        labels = np.zeros(65536, np.int64)
        picked = _ufuncs.nll(rows, labels, np.int64(-100))
        assert same_bits(picked, -every.astype(np.float32))


# The last parameter varies fastest, so that the cases are made once for each kernel and dtype.
@ISA
@DTYPE
@KERNEL
def test_against_the_specification(kernel, dtype, isa):
    with on_isa(isa):
        for args, expected in cases(kernel, dtype):
            assert_as_specified(kernel, args, call(kernel, args), expected, f"on {isa}")


@DTYPE
@KERNEL
def test_vector_isas_agree_to_the_bit(kernel, dtype):
    """The baseline has no fused multiply-add: it meets the bounds only."""
    first, *others = [isa for isa in ISAS if isa != "baseline"] or ISAS
    if not others:
        pytest.skip("this machine has no two that have a fused multiply-add")
    for args in calls(kernel, dtype, seed=1):
        with on_isa(first):
            expected = call(kernel, args)
        for isa in others:
            with on_isa(isa):
                result = call(kernel, args)
            for a, b in zip(expected, result, strict=True):
                assert same_bits(a, b), f"{first} and {isa}: {describe(kernel, args)}"


@ISA
@DTYPE
@KERNEL
def test_a_row_stands_for_itself(kernel, dtype, isa):
    """Neither the number of rows nor a row's place among them changes a bit of its result."""
    short = (1, 2, 3, 5, 8, 9, 10, 16, 17, 31, 32, 33, 65)
    shapes = [(37, n) for n in short] + [(25, n) for n in (257, 300, 1000)]
    shapes += [(5, n) for n in (600, 2049, 16385)]
    with on_isa(isa):
        for args in operands_in_turn(kernel, shapes, dtype, seed=2):
            whole = call(kernel, args)
            for length in (1, 21):
                parts = [slice(i, i + length) for i in range(len(args[0]) - length + 1)]
                found = [call(kernel, take_rows(kernel, args, part)) for part in parts]
                for k, full in enumerate(whole if parts else ()):
                    a = np.stack([full[part] for part in parts])
                    b = np.stack([result[k] for result in found])
                    assert same_bits(a, b), f"{length} rows of {describe(kernel, args)}"


def special_logits(n, dtype):
    """Return rows whose maximum is somewhere in particular, is there twice, or is none."""
    rng = np.random.default_rng(n)
    x = (3 * rng.normal(size=(24, n))).astype(dtype)
    places = [0, n - 1, n // 2, n - n % 64 - 1, 7, n // 3]
    x[np.arange(6), places] = 20
    x[6, [3, n // 2]] = x[7, [n // 2, n - 1]] = 9
    x[8] = x[9] = 2.5
    x[9, n // 3 :] = -7
    x[10:12] = -np.abs(x[10:12]) - 1
    x[12, 1:] = x[13, : n // 2] = -np.inf
    x[14], x[15] = -np.inf, 0
    x[16, -1], x[17, 1] = np.inf, -np.inf
    x[18, 0], x[19, -1] = np.nan, np.nan
    x[20], x[21] = np.sort(x[20]), np.sort(x[21])[::-1]
    x[22, 5] = np.nan
    x[22, 6] = 20
    return x


@ISA
@DTYPE
@pytest.mark.parametrize("n", [20, 100, 257, 600, 1000, 1024, 2048, 3000])
@pytest.mark.parametrize("kernel", ["logsumexp", "softmax", "log_softmax", "entropy_logits"])
def test_special_rows_among_others(kernel, n, dtype, isa):
    """Give each of them what it gives alone, and as the specification has it."""
    x = special_logits(n, dtype)
    with on_isa(isa):
        (whole,) = call(kernel, (x, 1.0)[: len(letters(kernel)[0])])
        for i, row in enumerate(x[:, None]):
            args = (row, 1.0)[: len(letters(kernel)[0])]
            (alone,) = call(kernel, args)
            assert same_bits(whole[i : i + 1], alone), i
            assert_as_specified(kernel, args, (alone,), specified(kernel, args), f"row {i}")


@DTYPE
@KERNEL
def test_dimensions(kernel, dtype):
    """Rows of any shape, none, and one without a dimension of its own."""
    for args in operands(kernel, 12, 5, dtype):
        inputs, outputs = letters(kernel)
        whole = call(kernel, args)
        for shape in ((12,), (3, 4), (2, 1, 6)):
            # A parameter of the call stays one.
            shaped = tuple(
                arg if letter in "id" else np.reshape(arg, (*shape, *np.shape(arg)[1:]))
                for letter, arg in zip(inputs, args, strict=True)
            )
            for a, b in zip(whole, call(kernel, shaped), strict=True):
                assert same_bits(a.reshape(*shape, *a.shape[1:]), b), (kernel, shape)
        none = call(kernel, take_rows(kernel, args, slice(0)))
        own = {"v": (5,), "e": (5,), "S": None, "L": None}
        for a, letter in zip(none, outputs, strict=True):
            assert a.shape[:1] == (0,)
            assert own.get(letter, ()) in (None, a.shape[1:])
        one = call(kernel, take_rows(kernel, args, 3))
        for a, b in zip(whole, one, strict=True):
            assert same_bits(a[3], b), kernel


@DTYPE
@pytest.mark.parametrize("kernel", [k for k in KERNELS if set(letters(k)[0]) & set("id")])
def test_a_parameter_that_differs_by_row(kernel, dtype):
    inputs, _ = letters(kernel)
    calls = list(operands(kernel, 6, 40, dtype))
    mixed = tuple(
        np.where(np.arange(6) % 2, b, a) if letter in "id" else a
        for letter, a, b in zip(inputs, *calls[:2], strict=True)
    )
    results = call(kernel, mixed)
    for row in range(6):
        expected = call(kernel, take_rows(kernel, calls[row % 2], row))
        for a, b in zip(results, expected, strict=True):
            assert same_bits(a[row], b), f"{kernel} {dtype}, row {row}"


@ISA
@pytest.mark.parametrize("kernel", [k for k in KERNELS if re.search("l.*>s", _ufuncs.OPS[k])])
def test_a_label_that_changes_under_the_call(kernel, isa):
    """Callers check labels before: here is what guards the memory if one is changed after."""
    args = next(operands(kernel, 40, 10, DTYPES[0]))
    labels = args[1].copy()
    before = call(kernel, args)
    with on_isa(isa):
        for wrong in (-1, 10, -101, 2**40, -(2**62)):
            labels[7] = wrong
            loss, *others = call(kernel, (args[0], labels, *args[2:]))
            with pytest.raises(IndexError, match="target holds a label out of range"):
                _ufuncs.raise_trouble()
            assert np.isnan(loss[7])
            assert np.isfinite(np.delete(loss, 7)).all()
            for a, b in zip(others, before[1:], strict=True):
                # The weight of a row is that of its label.
                own = 7 if "w" in letters(kernel)[0] else []
                np.testing.assert_allclose(np.delete(a, own), np.delete(b, own), rtol=1e-5)
        # Raised once: the next call starts afresh.
        _ufuncs.raise_trouble()


# Divergences of two rows in one form.
SAME_FORM = [k for k in KERNELS if is_divergence(k) and isinstance(DOMAINS.get(k, "logits"), str)]


def is_of_probs(kernel):
    return DOMAINS.get(kernel) == "probs"


@ISA
@DTYPE
@pytest.mark.parametrize("kernel", SAME_FORM)
def test_nothing_diverges_from_itself(kernel, dtype, isa):
    rng = np.random.default_rng(3)
    with on_isa(isa):
        for n in (*range(1, 71), 1000, 2049, 40000):
            for args in operands(kernel, 3, n, dtype):
                if len(args) == 5 and args[3] != args[4]:
                    continue
                x = rows("probs" if is_of_probs(kernel) else "logits", (3, n), dtype, rng)
                (result,) = call(kernel, (x, x, *args[2:]))
                assert same_bits(result, np.zeros_like(result)), (kernel, n, args[2:])


@lru_cache(maxsize=1)
def near_pairs(kernel, dtype, factor):
    """Pairs of rows that differ by some rounding errors or little more, the second one scaled."""
    rng = np.random.default_rng(4)
    eps = float(finfo(dtype).eps)
    cases = []
    for n in (2, 3, 10, 33, 1000, 5000):
        for noise in (eps, 30 * eps, 1000 * eps, 1e-3):
            x = rows("probs" if is_of_probs(kernel) else "logits", (3, n), dtype, rng)
            # A half's own rounding is more than a thousandth; no probability goes below 0.
            noise = min(noise, 0.1)
            moved = (x * (1 + noise * rng.normal(size=x.shape))).astype(dtype)
            y = np.where(rng.random(x.shape) < 0.5, np.nextafter(x, dtype.type(9)), moved)
            if is_of_probs(kernel):
                y *= factor / y.sum(axis=-1, keepdims=True)
            else:
                y += dtype.type(factor - 1)
            args = (x, y, *[1] * (len(letters(kernel)[0]) - 2))
            cases.append((args, specified(kernel, args)))
    return cases


@ISA
@DTYPE
@pytest.mark.parametrize("factor", [1, 1.001, 4, 1 / 3])
@pytest.mark.parametrize("kernel", [k for k in SAME_FORM if k != "kl_log_probs"])
def test_small_divergences_keep_their_digits(kernel, factor, dtype, isa):
    """Whatever the rows sum to: they are distributions up to scale (logits: up to a shift)."""
    with on_isa(isa):
        for args, expected in near_pairs(kernel, dtype, factor):
            result = call(kernel, args)
            assert (result[0] >= 0).all()
            assert_as_specified(kernel, args, result, expected, f"on {isa}")
