"""The specification, klce/reference.py, against golden data and tables of what must come out."""

from __future__ import annotations

import inspect
import itertools
import math

import ml_dtypes
import mpmath
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from klce import reference
from tests.golden import calls, load
from tests.kernels import by_output
from tests.ulp import ulp_error

INF, NAN = math.inf, math.nan
pytestmark = pytest.mark.matrix

KERNELS = reference.KERNELS
OF_TWO_FORMS = {
    *(kernel for kernel in KERNELS if kernel.startswith("js_")),
    *("kl_probs_logits", "kl_logits_probs", "kl_logits_logits"),
}
EPS = np.finfo(np.float64).eps


@pytest.fixture
def rng():
    return np.random.default_rng(20240229)


# --- golden data ----------------------------------------------------------------------------------


def test_golden_data_covers_every_kernel_and_dtype():
    cases = load()
    assert len({case.id for case in cases}) == len(cases)
    covered = {(case.kernel, case.dtype.name) for case in cases}
    assert covered == set(itertools.product(KERNELS, ("float32", "float64")))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_golden(kernel, dtype):
    errors = {}
    for cases in calls(kernel, np.dtype(dtype)):
        outputs = by_output(kernel, KERNELS[kernel](*cases[0].inputs, **cases[0].params))
        for case in cases:
            result = case.pick(outputs)
            # Float64 results, whatever the inputs: half a ULP for rounding, and as much again since
            # a subnormal truth is itself stored to half of one.
            error = ulp_error(result, case.expected_hi, case.expected_lo, np.float64, case.scale)
            if kernel in OF_TWO_FORMS:
                # It is probabilities that are subtracted there, each rounded to a longdouble.  A
                # divergence is as the square of their difference, the terms of a plain sum as that.
                size = np.sqrt(np.abs(case.expected_hi)) if case.scale is None else case.scale
                with np.errstate(divide="ignore"):
                    error = error / (1 + 16 * np.finfo(np.longdouble).eps / EPS / size)
            if error.max() > 1:
                errors[case.id] = error.max()
    assert not errors


# --- special values -------------------------------------------------------------------------------

LOGITS = {
    # row: logsumexp, softmax, log_softmax, entropy, cross-entropy at class 0
    "all -inf": ([-INF, -INF], -INF, [NAN, NAN], [NAN, NAN], NAN, NAN),
    "+inf": ([1.0, INF], INF, [NAN, NAN], [NAN, NAN], NAN, NAN),
    "+inf and -inf": ([INF, -INF], INF, [NAN, NAN], [NAN, NAN], NAN, NAN),
    "nan": ([0.0, NAN], NAN, [NAN, NAN], [NAN, NAN], NAN, NAN),
    "nan and +inf": ([INF, NAN], NAN, [NAN, NAN], [NAN, NAN], NAN, NAN),
    "masked target": ([-INF, 3.0], 3.0, [0.0, 1.0], [-INF, 0.0], 0.0, INF),
    "masked other": ([3.0, -INF], 3.0, [1.0, 0.0], [0.0, -INF], 0.0, 0.0),
    "one class": ([7.5], 7.5, [1.0], [0.0], 0.0, 0.0),
    "far apart": ([1e300, -1e300], 1e300, [1.0, 0.0], [0.0, -2e300], 0.0, 0.0),
}


@pytest.mark.parametrize("name", LOGITS)
def test_special_logits(name):
    row, lse, probs, log_probs, entropy, loss = LOGITS[name]
    # Beside rows that are fine: nothing spreads.
    fine = np.linspace(0, 1, len(row))
    x = np.stack([fine, row, fine])
    target = np.zeros(3, dtype=int)
    results = {
        "logsumexp": (KERNELS["logsumexp"](x), lse),
        "softmax": (KERNELS["softmax"](x), probs),
        "log_softmax": (KERNELS["log_softmax"](x), log_probs),
        "entropy_logits": (KERNELS["entropy_logits"](x), entropy),
        "cross_entropy": (KERNELS["cross_entropy"](x, target), loss),
    }
    for kernel, (result, expected) in results.items():
        assert_array_equal(result[1], expected, err_msg=kernel, strict=False)
        assert np.isfinite(result[[0, 2]]).all(), kernel
        assert_array_equal(result[0], result[2], err_msg=kernel)
    scored = reference.score(x, target)
    assert_array_equal(scored["nll"], results["cross_entropy"][0])
    assert_array_equal(scored["entropy"], results["entropy_logits"][0])
    assert_array_equal(scored["logsumexp"], results["logsumexp"][0])


ENTROPY_OF_PROBS = [
    # p, normalised, plain sum
    ([1.0, 0.0], 0.0, 0.0),
    ([0.0, 0.0], NAN, 0.0),
    ([0.0, -0.0, 1.0], 0.0, 0.0),
    ([0.5, -0.1], NAN, NAN),
    ([0.0, -1.0], NAN, NAN),
    ([NAN, 1.0], NAN, NAN),
    ([INF, 1.0], NAN, NAN),
    ([2.0, 2.0], math.log(2), -4 * math.log(2)),
    ([], NAN, 0.0),
]


@pytest.mark.parametrize(("p", "normalised", "plain"), ENTROPY_OF_PROBS)
def test_special_entropies(p, normalised, plain):
    assert_array_equal(KERNELS["entropy_probs"](np.array(p), normalize=True), normalised)
    assert_array_equal(KERNELS["entropy_probs"](np.array(p), normalize=False), plain)


@pytest.mark.parametrize(
    ("log_probs", "expected"),
    [([0.0, -INF], 0.0), ([-INF, -INF], 0.0), ([NAN, 0.0], NAN), ([INF, 0.0], -INF), ([], 0.0)],
)
def test_special_entropies_of_log_probs(log_probs, expected):
    assert_array_equal(KERNELS["entropy_log_probs"](np.array(log_probs)), expected)


KL_OF_PROBS = [
    # p, q, normalised, plain sum
    ([1.0, 0.0], [1.0, 0.0], 0.0, 0.0),
    ([0.0, 1.0], [0.5, 0.5], math.log(2), math.log(2)),
    ([0.5, 0.5], [0.0, 1.0], INF, INF),
    ([1.0, 0.0], [0.0, 1.0], INF, INF),
    ([0.0, 0.0], [0.5, 0.5], NAN, 0.0),
    ([0.5, 0.5], [0.0, 0.0], NAN, INF),
    ([-0.5, 1.5], [0.5, 0.5], NAN, NAN),
    ([0.5, 0.5], [-0.5, 1.5], NAN, NAN),
    ([0.0, 1.0], [-0.5, 1.5], NAN, NAN),
    ([-0.5, 0.5], [-0.5, 0.5], NAN, NAN),
    ([NAN, 1.0], [0.5, 0.5], NAN, NAN),
    ([0.0, 1.0], [NAN, 1.0], NAN, NAN),
    ([0.5, 0.5, 0.0], [0.0, 0.5, NAN], NAN, NAN),
    ([INF, 1.0], [1.0, 1.0], NAN, NAN),
    ([1.0, 1.0], [INF, 1.0], NAN, NAN),
    ([], [], NAN, 0.0),
]


@pytest.mark.parametrize(("p", "q", "normalised", "plain"), KL_OF_PROBS)
def test_special_divergences(p, q, normalised, plain):
    p, q = np.array(p), np.array(q)
    assert_array_equal(KERNELS["kl_probs"](p, q, normalize=True), normalised)
    assert_array_equal(KERNELS["kl_probs"](p, q, normalize=False), plain)


KL_OF_LOGS = [
    # logits or log-probabilities of p and of q, from logits, plain sum
    ([0.0, -INF], [0.0, -INF], 0.0, 0.0),
    ([0.0, -INF], [-math.log(2)] * 2, math.log(2), math.log(2)),
    ([-math.log(2)] * 2, [0.0, -INF], INF, INF),
    ([0.0, -1e9], [0.0, -INF], INF, INF),
    ([0.0, -INF], [0.0, -1e9], 0.0, 0.0),
    ([0.0, -1e9], [0.0, -1e9], 0.0, 0.0),
    ([-INF, -INF], [0.0, 0.0], NAN, 0.0),
    ([0.0, 0.0], [-INF, -INF], NAN, INF),
    ([NAN, 0.0], [0.0, 0.0], NAN, NAN),
    ([0.0, -INF], [0.0, NAN], NAN, NAN),
    ([0.0, 0.0, 0.0], [0.0, -INF, NAN], NAN, NAN),
    ([INF, 0.0], [0.0, 0.0], NAN, INF),
    ([0.0, 0.0], [INF, 0.0], NAN, -INF),
    ([], [], NAN, 0.0),
]


@pytest.mark.parametrize(("x", "y", "normalised", "plain"), KL_OF_LOGS)
def test_special_divergences_of_logs(x, y, normalised, plain):
    x, y = np.array(x), np.array(y)
    assert_allclose(KERNELS["kl_logits"](x, y), normalised, rtol=1e-15)
    assert_allclose(KERNELS["kl_log_probs"](x, y), plain, rtol=1e-15)


def test_special_elements():
    p = np.array([0.0, -0.0, 1.0, -1.0, NAN, INF, 2.0])
    information = [INF, INF, 0.0, NAN, NAN, -INF, -math.log(2)]
    assert_array_equal(KERNELS["information"](p), information)
    assert_array_equal(KERNELS["binary_entropy"](p), [0.0, 0.0, 0.0, NAN, NAN, NAN, NAN])
    zeros = KERNELS["information"](np.ones(1)), KERNELS["binary_entropy"](np.ones(1))
    assert not np.signbit(zeros).any()


def test_losses_read_nothing_but_the_target():
    probs = np.array([[0.0, 1.0, 0.5, -2.0, NAN]])
    for target, expected in enumerate([INF, 0.0, math.log(2), NAN, NAN]):
        result = KERNELS["nll_probs"](probs, np.array([target]))
        assert_array_equal(result, [expected])
    log_probs = np.array([[-INF, 0.0, -1.5, NAN]])
    for target, expected in enumerate([INF, 0.0, 1.5, NAN]):
        assert_array_equal(KERNELS["nll"](log_probs, np.array([target])), [expected])


@pytest.mark.parametrize("kernel", ["cross_entropy", "nll", "nll_probs"])
def test_ignored_rows_are_0_whatever_they_hold(kernel):
    x = np.array([[NAN, 1.0], [0.5, 0.5], [-INF, -INF]])
    result = KERNELS[kernel](x, np.array([7, 1, 7]), ignore_index=7)
    assert_array_equal(result[[0, 2]], 0.0)
    assert result[1] > 0 or kernel == "nll"
    # Also a class that exists.
    assert_array_equal(KERNELS[kernel](x[1:2], np.array([1]), ignore_index=1), [0.0])
    assert_array_equal(KERNELS[kernel](np.zeros((1, 0)), np.array([-100])), [0.0])


def test_score_takes_the_first_maximum_and_a_nan_for_one():
    x = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0], [1.0, NAN, INF]])
    best = reference.score(x)["argmax"]
    assert best.dtype == np.int64
    assert_array_equal(best, [1, 0, 1])


def test_no_classes():
    empty = np.zeros((2, 0))
    assert_array_equal(reference.logsumexp(empty), [-INF, -INF])
    assert_array_equal(reference.entropy(empty, form="logits"), [NAN, NAN])
    assert_array_equal(reference.kl_divergence(empty, empty, form="logits"), [NAN, NAN])
    with pytest.raises(ValueError, match="softmax needs at least one class"):
        reference.softmax(empty)
    with pytest.raises(ValueError, match="log_softmax needs at least one class"):
        reference.log_softmax(empty)
    with pytest.raises(IndexError, match=r"target holds 0 in row 0, .* 0 classes"):
        reference.cross_entropy(empty, [0, 0])


# --- properties -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 10, 1000])
def test_a_distribution_does_not_diverge_from_itself(rng, n):
    x = rng.normal(size=(5, n)) * 10
    p = rng.random((5, n))
    assert_array_equal(reference.kl_divergence(p, p), 0)
    assert_array_equal(reference.kl_divergence(p, 4 * p), 0)
    assert_array_equal(reference.kl_divergence(p, p, normalize=False), 0)
    assert_array_equal(reference.kl_divergence(x, x, form="logits"), 0)
    assert_array_equal(reference.kl_divergence(x, x, form="log_probs"), 0)
    assert_array_equal(reference.kl_divergence(x, x, form="log_probs", normalize=False), 0)


def test_divergences_are_not_negative(rng):
    p = rng.random((200, 50))
    for eps in (1e-16, 1e-12, 1e-8, 1e-3):
        q = p * (1 + eps * rng.normal(size=p.shape))
        assert (reference.kl_divergence(p, q) >= 0).all()
        assert (reference.kl_divergence(np.log(p), np.log(q), form="logits") >= 0).all()


def test_forms_agree(rng):
    x, y = rng.normal(size=(2, 6, 20)) * 3
    p, q = reference.softmax(x), reference.softmax(y)
    log_p, log_q = reference.log_softmax(x), reference.log_softmax(y)
    target = rng.integers(0, 20, 6)
    same = {
        "entropy": [
            reference.entropy(x, form="logits"),
            reference.entropy(p),
            reference.entropy(7 * p),
            reference.entropy(p, normalize=False),
            reference.entropy(log_p, form="log_probs"),
            reference.entropy(log_p + 7, form="log_probs"),
            reference.entropy(log_p, form="log_probs", normalize=False),
        ],
        "kl_divergence": [
            reference.kl_divergence(x, y, form="logits"),
            reference.kl_divergence(p, q),
            reference.kl_divergence(2 * p, 3 * q),
            reference.kl_divergence(p, q, normalize=False),
            reference.kl_divergence(log_p, log_q, form="log_probs"),
            reference.kl_divergence(log_p, log_q, form="log_probs", normalize=False),
        ],
        "cross_entropy": [
            reference.cross_entropy(x, target),
            reference.cross_entropy(p, target, form="probs"),
            reference.cross_entropy(log_p, target, form="log_probs"),
            reference.nll_loss(log_p, target),
        ],
    }
    for first, *others in same.values():
        for other in others:
            assert_allclose(other, first, rtol=1e-13)


def test_temperature_divides_the_logits(rng):
    x, y = rng.normal(size=(2, 4, 8))
    target = [0, 3, 5, 7]
    warm = {"temperature": 2.0}
    close = {"rtol": 1e-15, "atol": 1e-15}
    for f in (reference.softmax, reference.log_softmax):
        assert_allclose(f(x, **warm), f(x / 2), **close)
    for f, arguments in (
        (reference.entropy, (x,)),
        (reference.kl_divergence, (x, y)),
    ):
        halves = [a / 2 for a in arguments]
        assert_allclose(f(*arguments, form="logits", **warm), f(*halves, form="logits"), **close)
    assert_allclose(
        reference.cross_entropy(x, target, z_loss=0.1, **warm),
        reference.cross_entropy(x / 2, target, z_loss=0.1),
        **close,
    )


def test_z_loss_adds_the_squared_logsumexp(rng):
    x, target = rng.normal(size=(4, 8)), np.array([0, -100, 5, 7])
    plain = reference.cross_entropy(x, target, reduction="none")
    expected = plain + 0.1 * reference.logsumexp(x) ** 2 * (target != -100)
    result = reference.cross_entropy(x, target, z_loss=0.1, reduction="none")
    assert_allclose(result, expected, rtol=1e-15)


def divergences(p, q):
    """KL, the reverse and JS divergence and the total variation of probabilities up to scale."""
    p, q = ([value / mpmath.fsum(row) for value in row] for row in (p, q))
    m = [(a + b) / 2 for a, b in zip(p, q, strict=True)]

    def kl(p, q):
        pairs = zip(p, q, strict=True)
        return mpmath.fsum(a * mpmath.log(a / b) for a, b in pairs if a)

    variation = mpmath.fsum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2
    return [float(x) for x in (kl(p, q), kl(q, p), (kl(p, m) + kl(q, m)) / 2, variation)]


DIVERGENCES = ("kl_divergence", "reverse_kl_divergence", "js_divergence", "total_variation")


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("apart", [0, 300, 1e10, -1e15, 1e25, -3.39e38, 1e300])
def test_logits_of_any_offset(rng, apart, temperature):
    """Each row is right from its own maximum, be it far from that of the other."""
    for scale in (1.0, 10.0):
        x, y = rng.normal(size=(2, 5)) * scale
        # Near each other, equal, and apart by what is left of y beside the offset.
        for row in (y, x + 1e-3 * y, x):
            other = row + apart
            with mpmath.workdps(400):
                rows = [[mpmath.mpf(v) / temperature for v in one] for one in (x, other)]
                below = [[v - max(one) for v in one] for one in rows]
                with mpmath.workdps(60):
                    want = divergences(*([mpmath.exp(v) for v in one] for one in below))
            found = reference.compare(x, other, temperature=temperature)
            close = {"rtol": 2e-14, "atol": 1e-19}
            assert_allclose([found[name] for name in DIVERGENCES], want, **close)
            for name, value in (("kl_divergence", want[0]), ("js_divergence", want[2])):
                function = getattr(reference, name)
                result = function(x, other, form="logits", temperature=temperature)
                assert_allclose(result, value, **close)


def test_changes_at_the_target_of_any_offset():
    found = reference.compare([-11.0, 9.5], [-3.39e38, -3.39e38], 0)
    assert_allclose(found["target_log_prob_change"], 20.5 - math.log(2), rtol=1e-9)
    assert_allclose(found["target_prob_change"], 0.5, rtol=1e-8)
    masked = reference.compare([-INF, 1.0, 0.0], [-INF, 1e20, 1e20], 1)
    expected = -math.log(2) + math.log1p(math.exp(-1))
    assert_allclose(masked["target_log_prob_change"], expected, rtol=1e-15)
    assert_array_equal(reference.kl_divergence([0.0, 1.0], [-INF, 1e20], form="logits"), INF)


@pytest.mark.parametrize("size", [1.0, 1e-3, 1e-10, 1e-19, 1e-300, 1e20, 1e300])
def test_probabilities_of_any_sum(rng, size):
    for near in (False, True):
        p, noise = rng.random((2, 5)) + 0.01
        q = (p * (1 + 1e-2 * noise) if near else noise) * size
        with mpmath.workdps(60):
            want = divergences(*([mpmath.mpf(v) for v in row] for row in (p, q)))
        assert_allclose(reference.kl_divergence(p, q), want[0], rtol=1e-14)
        assert_allclose(reference.js_divergence(p, q), want[2], rtol=1e-14)


# --- axes, bases, reductions ----------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, 2, -1, (0, 2), (2, 0), (-1, 1), (0, 1, 2), None])
def test_axes(rng, axis):
    x = rng.normal(size=(3, 4, 5))
    total = np.exp(x).sum(axis=axis, keepdims=True)
    assert_allclose(reference.logsumexp(x, axis, keepdims=True), np.log(total), rtol=1e-14)
    assert_allclose(reference.logsumexp(x, axis), np.log(np.exp(x).sum(axis=axis)), rtol=1e-14)
    assert_allclose(reference.softmax(x, axis), np.exp(x) / total, rtol=1e-14)
    assert_allclose(reference.log_softmax(x, axis), x - np.log(total), rtol=1e-14)
    p = np.exp(x) / total
    entropy = -(p * np.log(p)).sum(axis=axis, keepdims=True)
    assert_allclose(reference.entropy(p, axis, keepdims=True), entropy, rtol=1e-14)
    assert_allclose(reference.entropy(p, axis), entropy.reshape(np.sum(p, axis).shape), rtol=1e-14)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_axes_of_losses_and_divergences(rng, axis):
    x, y = rng.normal(size=(2, 3, 4, 5))
    rows = np.moveaxis(x, axis, -1)
    target = rng.integers(0, rows.shape[-1], rows.shape[:-1])
    expected = reference.cross_entropy(rows, target, reduction="none")
    assert expected.shape == target.shape
    assert_array_equal(reference.cross_entropy(x, target, axis=axis, reduction="none"), expected)
    expected = reference.kl_divergence(rows, np.moveaxis(y, axis, -1), form="logits")
    result = reference.kl_divergence(x, y, axis, form="logits")
    assert_array_equal(result, expected)
    kept = reference.kl_divergence(x, y, axis, form="logits", keepdims=True)
    assert_array_equal(kept, np.expand_dims(expected, axis))


def test_rows_broadcast(rng):
    x, y = rng.normal(size=(4, 1, 6)), rng.normal(size=(3, 6))
    result = reference.kl_divergence(x, y, form="logits")
    x, y = np.broadcast_arrays(x, y)
    assert_array_equal(result, reference.kl_divergence(x, y, form="logits"))
    single = reference.cross_entropy(x, 2, reduction="none")
    assert_array_equal(single, reference.cross_entropy(x, np.full((4, 3), 2), reduction="none"))


def test_bases(rng):
    p, q = rng.random((2, 4, 5))
    q /= q.sum(axis=-1, keepdims=True)
    target = [0, 1, 2, 3]
    for f in (
        lambda **base: reference.information(p, **base),
        lambda **base: reference.binary_entropy(p, **base),
        lambda **base: reference.entropy(p, **base),
        lambda **base: reference.kl_divergence(p, q, **base),
        lambda **base: reference.cross_entropy(p, target, z_loss=0.5, **base),
        lambda **base: reference.nll_loss(np.log(q), target, **base),
    ):
        assert_allclose(f(base=2), f() / math.log(2), rtol=1e-15)
        assert_allclose(f(base=0.5), f() / math.log(0.5), rtol=1e-15)
    assert reference.entropy([1, 1, 1, 1], base=2) == 2


def test_reductions(rng):
    x, target = rng.normal(size=(2, 3, 5)), np.array([[0, 1, -100], [-100, 4, 2]])
    rows = reference.cross_entropy(x, target, reduction="none")
    assert_array_equal(rows == 0, target == -100)
    assert_allclose(reference.cross_entropy(x, target), rows.sum() / 4, rtol=1e-15)
    assert_allclose(reference.cross_entropy(x, target, reduction="sum"), rows.sum(), rtol=1e-15)
    ignored = np.full((2, 3), -100)
    assert math.isnan(reference.cross_entropy(x, ignored))
    assert reference.cross_entropy(x, ignored, reduction="sum") == 0

    p, q = rng.random((2, 2, 3, 5))
    rows = reference.kl_divergence(p, q)
    assert rows.shape == (2, 3)
    for reduction, count in (("mean", 6), ("sum", 1), ("batchmean", 2)):
        result = reference.kl_divergence(p, q, reduction=reduction)
        assert_allclose(result, rows.sum() / count, rtol=1e-15)
    keep = np.array([[True, False, True], [True, True, True]])[..., np.newaxis]
    for reduction, count in (("mean", 5), ("sum", 1), ("batchmean", 2)):
        result = reference.kl_divergence(p, q, reduction=reduction, where=keep)
        assert_allclose(result, rows[keep[..., 0]].sum() / count, rtol=1e-15)
    single = reference.kl_divergence(p[0, 0], q[0, 0])
    assert reference.kl_divergence(p[0, 0], q[0, 0], reduction="batchmean") == single


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8", "bool"])
def test_results_are_float64(dtype):
    x = np.array([[0, 1, 1]], dtype=dtype)
    for result in (
        reference.logsumexp(x),
        reference.softmax(x),
        reference.entropy(x),
        reference.information(x),
        reference.cross_entropy(x, [1]),
        reference.kl_divergence(x, x),
    ):
        assert result.dtype == np.float64


# --- arguments ------------------------------------------------------------------------------------

X, P = np.zeros((2, 3)), np.ones((2, 3)) / 3


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda r: r.entropy(P, form="prob"), ValueError, "form must be"),
        (lambda r: r.entropy(P, temperature=2.0), ValueError, "temperature belongs to"),
        (lambda r: r.entropy(X, form="logits", normalize=False), ValueError, "normalize=False"),
        (lambda r: r.kl_divergence(P, P, temperature=2.0), ValueError, "temperature belongs to"),
        (lambda r: r.softmax(X, temperature=0.0), ValueError, "temperature must be"),
        (lambda r: r.softmax(X, temperature=NAN), ValueError, "temperature must be"),
        (lambda r: r.entropy(P, base=1), ValueError, "base must be"),
        (lambda r: r.entropy(P, base=-2), ValueError, "base must be"),
        (lambda r: r.cross_entropy(X, [0, 1], z_loss=-1), ValueError, "z_loss must be"),
        (lambda r: r.cross_entropy(P, [0, 1], form="probs", z_loss=1), ValueError, "z_loss"),
        (lambda r: r.cross_entropy(X, [0, 1], reduction="batchmean"), ValueError, "reduction"),
        (lambda r: r.kl_divergence(P, P, reduction="max"), ValueError, "reduction must be"),
        (lambda r: r.kl_divergence(P, P, reduction="sum", keepdims=True), ValueError, "keepdims"),
        (lambda r: r.kl_divergence(P, P[:, :2]), ValueError, "p has 3 classes and q has 2"),
        (lambda r: r.kl_divergence(P, P[0], axis=0), ValueError, "axis 0 is not the same axis"),
        (lambda r: r.compare(P, P[:, :1]), ValueError, "p has 3 classes and q has 1"),
        (lambda r: r.compare(P, P[0], axis=0), ValueError, "axis 0 is not the same axis"),
        (lambda r: r.cross_entropy(X, [0, 1, 2]), ValueError, "could not be broadcast"),
        (lambda r: r.cross_entropy(X, [0, 3]), IndexError, "target holds 3 in row 1, .* 3 classes"),
        (lambda r: r.cross_entropy(X, [-1, 0]), IndexError, "target holds -1 in row 0"),
        (
            lambda r: r.nll_loss(X, np.array([0, 2**64 - 100], np.uint64)),
            IndexError,
            "target holds 18446744073709551516 in row 1",
        ),
        (lambda r: r.nll_loss(X, [0.0, 1.0]), TypeError, "integers, got float64"),
        (lambda r: r.nll_loss(X, [True, False]), TypeError, "integers, got bool"),
        (lambda r: r.softmax(X + 1j), TypeError, "complex128"),
        (lambda r: r.softmax(X.astype(object)), TypeError, "object"),
        (lambda r: r.logsumexp(X, axis=2), ValueError, "axis 2 is out of bounds"),
        (lambda r: r.nll_loss(1.0, 0), ValueError, "axis -1 is out of bounds"),
        (lambda r: r.kl_divergence(P, 1.0), ValueError, "axis -1 is not the same axis"),
    ],
)
def test_wrong_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call(reference)


@pytest.mark.parametrize("name", [name for name in reference.__all__ if name != "KERNELS"])
def test_signatures_are_the_public_ones(name):
    import klce

    def parameters(module):
        found = inspect.signature(getattr(module, name)).parameters.values()
        return [(p.name, p.kind, p.default) for p in found if p.name not in ("out", "dtype")]

    assert parameters(reference) == parameters(klce)


def test_logsumexp_of_what_is_half_of_its_largest_term_against_it():
    b = np.array([-1.0, 1.0, 0.5])
    log, sign = reference.logsumexp(np.zeros(3), b=b, return_sign=True)
    assert (log, sign) == (np.log(0.5), 1)


def test_soft_targets_of_another_packages_dtype(rng):
    x, t = rng.random((2, 4, 5)).astype(ml_dtypes.bfloat16)
    expected = reference.cross_entropy(x, t.astype(np.float64))
    assert_array_equal(reference.cross_entropy(x, t), expected)


def test_a_result_beyond_float64_does_not_warn():
    x = np.array([[0.0, -1.7e308]])
    assert reference.kl_divergence(x, x[:, ::-1], form="logits", base=1.1) == np.inf


# --- the measure of errors ------------------------------------------------------------------------


def test_ulp_error():
    def error(actual, hi, lo=0.0, dtype=np.float32, scale=None):
        return float(ulp_error(actual, hi, lo, dtype, scale))

    eps = 2.0**-23
    assert error(1.0, 1.0) == 0
    assert error(1 + eps, 1.0) == 1
    assert error(1 + eps, 1.0, eps / 4) == 0.75
    assert error(-2 + 3 * eps, -2.0) == 1.5
    assert error(1 + eps, 1.0, dtype=np.float64) == 2.0**29
    assert error(eps, 0.0, scale=-1.5) == 1
    assert error(5.0, 4.0, scale=1.0) == 2.0**21
    assert error(0.0, 2.0**-150) == 0.5  # in units of the smallest subnormal
    assert error(2.0**-149, 2.0**-140) == 511
    big = float(np.finfo(np.float32).max)
    assert error(math.inf, 2 * big) == 0
    assert error(big, 2 * big) == math.inf
    assert error(big, big) == 0
    assert error(math.inf, big) == math.inf
    assert error(-math.inf, -math.inf, dtype=np.float64) == 0
    assert error(math.inf, -math.inf) == math.inf
    assert error(math.nan, math.nan) == 0
    assert error(math.nan, 1.0) == math.inf
    assert error(1.0, math.nan) == math.inf
