"""What holds of divergences whatever their forms: bounds, symmetry, small values, broadcasting."""

import itertools
import math
from functools import lru_cache

import ml_dtypes
import numpy as np
import pytest

import klce
from klce import reference
from tests.kernels import DTYPES, ISAS, RELATIVE, computed, on_isa, same_bits

pytestmark = pytest.mark.matrix

FORMS = ["probs", "log_probs", "logits"]
PAIRS = list(itertools.product(FORMS, FORMS))
DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=str)
ISA = pytest.mark.parametrize("isa", ISAS)


def in_form(logits, form, dtype):
    """Distributions in a form, and the same exactly as probabilities and logarithms."""
    x = np.asarray(logits, np.longdouble)
    log = x - x.max(axis=-1, keepdims=True)
    log = log - np.log(np.exp(log).sum(axis=-1, keepdims=True))
    return {"probs": np.exp(log), "log_probs": log, "logits": log + 3}[form].astype(dtype)


@lru_cache(maxsize=1)
def pairs(forms, dtype):
    """Pairs of rows from equal to far apart, and how far; made once for all instruction sets."""
    rng = np.random.default_rng(1)
    found = []
    for n, noise in itertools.product((1, 2, 10, 33, 1000), (0, 1e-8, 1e-3, 1, 30, 300)):
        x = rng.normal(size=(40 if n < 1000 else 10, n)) * 3
        y = x + noise * rng.normal(size=x.shape)
        p, q = (in_form(z, form, dtype) for z, form in zip((x, y), forms, strict=True))
        found.append((noise, p, q))
    return found


@ISA
@DTYPE
@pytest.mark.parametrize("forms", PAIRS)
def test_bounds(forms, dtype, isa):
    """Never negative; Jensen-Shannon symmetric, and at most log 2, of rows that share nothing."""
    with on_isa(isa):
        for noise, p, q in pairs(forms, dtype):
            kl = klce.kl_divergence(p, q, form=forms)
            assert (kl >= 0).all()
            js = klce.js_divergence(p, q, form=forms)
            assert (js >= 0).all()
            assert (js <= computed(dtype).type(math.log(2))).all()
            other = klce.js_divergence(q, p, form=forms[::-1])
            np.testing.assert_allclose(js, other, rtol=RELATIVE[dtype == np.float64], atol=1e-25)
            if noise == 0 and forms[0] == forms[1]:
                assert (kl == 0).all()
                assert (js == 0).all()
        apart = np.array([[1.0, 0.0, 0.0], [0.0, 0.3, 0.7]])
        with np.errstate(divide="ignore"):
            p, q = (
                (row if form == "probs" else np.log(row)).astype(dtype)
                for row, form in zip(apart, forms, strict=True)
            )
        assert klce.js_divergence(p, q, form=forms) == computed(dtype).type(math.log(2))
        assert klce.kl_divergence(p, q, form=forms) == math.inf


@lru_cache(maxsize=1)
def near_pairs(forms, dtype):
    """Pairs of rows that differ little, and what their divergences truly are."""
    wide = np.longdouble
    rng = np.random.default_rng(2)
    found = []
    for n, noise in itertools.product((2, 10, 70, 1000), (2e-6, 1e-4)):
        x = rng.normal(size=(5, n))
        y = x + noise * rng.normal(size=x.shape)
        pair = [in_form(z, form, dtype) for z, form in zip((x, y), forms, strict=True)]
        shares = []
        for row, form in zip(pair, forms, strict=True):
            share = row.astype(wide) if form == "probs" else np.exp(row.astype(wide))
            shares.append(share / share.sum(axis=-1, keepdims=True))
        p, q = shares
        u, v = (q - p) / p, (q - p) / (q + p)
        # The series to what is left of it: u is below 1e-3.
        kl = (p * sum((-u) ** k / k for k in range(2, 9))).sum(axis=-1)
        s = (q - p).sum(axis=-1)
        kl -= s * s / 2
        js = ((p + q) / 4 * (v**2 + v**4 / 6 + v**6 / 15)).sum(axis=-1) - s * s / 8
        found.append((pair, {"kl_divergence": kl, "js_divergence": js}, (n, noise)))
    return found


@ISA
@DTYPE
@pytest.mark.parametrize("forms", PAIRS)
def test_small_divergences(forms, dtype, isa):
    """Down to 1e-12, of rows as they are stored: their rounding is part of the distributions."""
    # What the longdouble differences of the truth itself are worth, and of either.
    slack = 30 * np.finfo(np.longdouble).eps
    with on_isa(isa):
        for pair, truths, about in near_pairs(forms, dtype):
            for name, true in truths.items():
                result = getattr(klce, name)(*pair, form=forms)
                bound = RELATIVE[dtype == np.float64] * np.maximum(true, 1e-12)
                bound = bound + slack * np.sqrt(true)
                assert (np.abs(result - true) <= bound).all(), (name, *about)


@DTYPE
@pytest.mark.parametrize("forms", PAIRS)
def test_one_against_many(forms, dtype):
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 4, 300))
    mask = rng.random((4, 300)) < 0.7
    p, q = in_form(x, forms[0], dtype), in_form(y, forms[1], dtype)
    for f in (klce.kl_divergence, klce.js_divergence):
        for where in (None, mask, mask[0]):
            expected = f(np.broadcast_to(p[0], q.shape), q, form=forms, where=where)
            assert same_bits(f(p[0], q, form=forms, where=where), expected)
            table = f(p[:, np.newaxis], q, form=forms, where=where)
            assert same_bits(table[0], expected)
            kept = f(p[0], q, form=forms, where=where, keepdims=True)
            assert same_bits(kept, expected[:, np.newaxis])


@pytest.mark.parametrize("name", ["kl_divergence", "js_divergence"])
@pytest.mark.parametrize("axis", [-1, 1, (0, 2)])
def test_a_masked_row_is_ignored(axis, name):
    """As losses ignore it: whatever it holds it is 0, and not in a mean."""
    f, specified = getattr(klce, name), getattr(reference, name)
    x, y = np.random.default_rng(6).normal(size=(2, 3, 4, 5))
    axes = np.atleast_1d(axis)
    keep = np.random.default_rng(7).random((3, 4, 5)).sum(axis=axis, keepdims=True)
    keep = keep > np.median(keep)
    x = np.where(keep, x, np.nan)
    options = {"form": "logits", "base": 2, "where": keep}
    rows = np.where(keep, f(x, y, axis, form="logits", base=2, keepdims=True), 0)
    assert same_bits(f(x, y, axis, keepdims=True, **options), rows)
    out = np.full(rows.shape, 9.0)
    assert f(x, y, axis, keepdims=True, out=out, **options) is out
    assert same_bits(out, rows)
    rows = np.squeeze(rows, tuple(axes))
    assert same_bits(f(x, y, axis, **options), rows)
    divisors = {"sum": 1, "mean": keep.sum(), "batchmean": len(rows)}
    for reduction, divisor in divisors.items():
        result = f(x, y, axis, reduction=reduction, **options)
        assert result == pytest.approx(rows.sum() / divisor, rel=1e-13)
        expected = specified(x, y, axis, reduction=reduction, **options)
        assert result == pytest.approx(expected, rel=1e-12)
    assert np.isnan(f(x, y, axis, form="logits", where=False, reduction="mean"))
    assert f(x, y, axis, form="logits", where=False, reduction="batchmean") == 0
    # Rows without a class that counts are no mask of rows.
    classes = np.zeros(np.take(x, [0], axis=1).shape if axis == (0, 2) else (4, 5), bool)
    assert np.isnan(f(y, y, axis, form="logits", where=classes)).all()
    single = f(x[:, 0, 0], y[:, 0, 0], form="logits", where=False)
    assert single == 0
    assert isinstance(single, np.float64)


def test_a_mask_of_rows_that_shares_the_output():
    x, y = np.random.default_rng(8).normal(size=(2, 16, 5))
    keep = np.arange(16) % 3 > 0
    expected = klce.kl_divergence(x, y, form="logits", where=keep[:, np.newaxis])
    out = np.empty(16)
    where = out.view(bool)[:16]
    where[:] = keep
    klce.kl_divergence(x, y, form="logits", where=where[:, np.newaxis], out=out)
    assert same_bits(out, expected)


@pytest.mark.parametrize("scale", [1e-42, 1e-38, 1e-20, 1e20, 1e38])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("classes", [5, 300])
def test_sums_far_from_one(classes, normalize, scale):
    """Where a JS divergence normalises, its rows' scale is no matter; elsewhere it is a factor."""
    p, q = np.random.default_rng(0).uniform(0.1, 1, size=(2, 20, classes)) / classes
    p, q = (p * scale).astype(np.float32), (q * scale).astype(np.float32)
    expected = reference.js_divergence(p, q, normalize=normalize)
    found = klce.js_divergence(p, q, normalize=normalize)
    # A result may be subnormal, and then is as good as their spacing.
    np.testing.assert_allclose(found, expected, rtol=RELATIVE[0], atol=0 if normalize else 1e-45)


@ISA
def test_two_classes_of_any_slope(isa):
    """Where a class is neither near nor far, terms cancel most; with two there is no average."""
    rng = np.random.default_rng(8)
    for scale, temperature in itertools.product((0.5, 2, 6), (1.0, 0.6)):
        x, y = (rng.normal(size=(2, 20000, 2)) * scale).astype(np.float32)
        wide = x.astype(float), y.astype(float)
        with on_isa(isa):
            options = {"form": "logits", "temperature": temperature}
            kl, js = klce.kl_divergence(x, y, **options), klce.js_divergence(x, y, **options)
            found = klce.compare(x, y, want=["reverse_kl_divergence"], temperature=temperature)
        expected = reference.kl_divergence(*wide, **options)
        np.testing.assert_allclose(kl, expected, rtol=1e-6, atol=1e-18)
        expected = reference.js_divergence(*wide, **options)
        np.testing.assert_allclose(js, expected, rtol=1e-6, atol=1e-18)
        expected = reference.kl_divergence(*wide[::-1], **options)
        np.testing.assert_allclose(found["reverse_kl_divergence"], expected, rtol=1e-6, atol=1e-18)


@ISA
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logits_that_are_as_low_as_numbers_go(dtype, isa):
    """Masks by finite numbers, which may differ, and differences beyond the dtype."""
    least = np.finfo(dtype).min
    large, inf = -least / 1.7, math.inf
    cases = [
        # logits of p and of q; KL of p and q, KL of q and p, and JS, all over log 2
        ([0, -1e9], [0, least], 0, 0, 0),
        ([0, -1000], [0, -1e30], 0, 0, 0),
        ([0, 0], [0, -1e12], 5e11 / math.log(2), 1, None),
        ([0, 0], [0, -1e18], 5e17 / math.log(2), 1, None),
        ([large, large], [large, -large], inf, 1, None),
        ([large, large], [large, -inf], inf, 1, None),
        ([0, -1e9], [0, -inf], inf, 0, 0),
    ]
    for p, q, kl, reverse, js in cases:
        for x, y, there, back in ((p, q, kl, reverse), (q, p, reverse, kl)):
            x, y = np.array([x], dtype), np.array([y], dtype)
            want = ["kl_divergence", "reverse_kl_divergence", "js_divergence"]
            with on_isa(isa):
                found = [
                    klce.kl_divergence(x, y, form="logits"),
                    klce.js_divergence(x, y, form="logits"),
                    *(klce.compare(x, y, want=want)[name] for name in want),
                ]
            share = 0.75 * math.log2(4 / 3) if js is None else js  # 1/2 and 1/2 against 1 and 0
            units = np.ravel(found) / math.log(2)
            np.testing.assert_allclose(
                units, [there, share, there, back, share], rtol=1e-6, atol=1e-30
            )


@pytest.mark.parametrize("f", [klce.kl_divergence, klce.js_divergence])
def test_plain_and_scaled(f):
    """Without normalize the scale counts; with it, it does not."""
    p, q = klce.softmax(np.random.default_rng(4).normal(size=(2, 50)))
    plain = {"normalize": False}
    assert f(p, q, **plain) == pytest.approx(f(p, q), rel=1e-12)
    assert f(3 * p, 3 * q, **plain) == pytest.approx(3 * f(p, q), rel=1e-12)
    assert f(3 * p, 7 * q) == pytest.approx(f(p, q), rel=1e-12)
    for forms in itertools.product(["probs", "log_probs"], repeat=2):
        pair = [z if form == "probs" else np.log(z) for z, form in zip((p, q), forms, strict=True)]
        assert f(*pair, form=forms, **plain) == pytest.approx(f(p, q), rel=1e-12)


@pytest.mark.parametrize("f", [klce.kl_divergence, klce.js_divergence])
def test_a_temperature_belongs_to_the_logits_of_a_pair(f):
    x, y = np.random.default_rng(5).normal(size=(2, 3, 50))
    warm = klce.softmax(y, temperature=2)
    logs = klce.log_softmax(x)
    for form, p in (("probs", np.exp(logs)), ("log_probs", logs)):
        expected = f(np.exp(logs), warm)
        np.testing.assert_allclose(f(p, y, form=(form, "logits"), temperature=2), expected, 1e-12)
        expected = f(warm, np.exp(logs))
        np.testing.assert_allclose(f(y, p, form=("logits", form), temperature=2), expected, 1e-12)


def test_square_of_the_jensen_shannon_distance():
    """What scipy.spatial.distance.jensenshannon gives for [1, 0] and [0, 1] is 0.8326."""
    assert math.sqrt(klce.js_divergence([1.0, 0.0], [0.0, 1.0])) == pytest.approx(0.8326, abs=1e-4)


@ISA
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("n", [3, 33, 300, 3000])
def test_tiny_probabilities(n, dtype, isa):
    """Down to the smallest number there is, beside large ones and alone, in tiles and by rows."""
    info, rng = np.finfo(dtype), np.random.default_rng(n)
    lowest = math.log(info.smallest_subnormal)
    least = rng.choice([0.2, 0.6, 0.97, 1], (40, 1)) * lowest
    x = rng.uniform(least, 0, (40, n))
    y = np.minimum(x + rng.choice([1e-3, 0.3, 10], (40, 1)) * rng.normal(size=x.shape), 0)
    x[:20, 0] = y[:20, 0] = 0
    x[30:] += lowest - x[30:].max(axis=-1, keepdims=True) + rng.uniform(2, 20)
    p, q = np.exp(x).astype(dtype), np.maximum(np.exp(y).astype(dtype), info.smallest_subnormal)
    p[:10, -1] = 0
    wide = [z.astype(np.longdouble) for z in (p, q)]
    shares = [z / z.sum(axis=-1, keepdims=True) for z in wide]
    with np.errstate(divide="ignore", invalid="ignore"):
        log = np.where(shares[0] > 0, np.log(shares[0] / shares[1]), 0)
        kl = (shares[0] * log - shares[0] + shares[1]).sum(axis=-1)
        entropy = -np.where(shares[0] > 0, shares[0] * np.log(shares[0]), 0).sum(axis=-1)
    slack = 30 * np.finfo(np.longdouble).eps  # what the differences of the truth itself are worth
    with on_isa(isa):
        found = klce.kl_divergence(p, q), klce.entropy(p)
        most = slice(30)  # of the others a subnormal p counts as 0
        rtol = RELATIVE[dtype == np.float64]
        np.testing.assert_allclose(found[0][most], kl[most], rtol=rtol, atol=slack)
        np.testing.assert_allclose(found[1], entropy, rtol=8 * info.eps, atol=slack)
        for i in range(len(p)):
            assert same_bits(klce.kl_divergence(p[i], q[i]), found[0][i])
            assert same_bits(klce.entropy(p[i]), found[1][i])


@ISA
def test_a_product_that_would_be_subnormal(isa):
    p = np.array([1, 5.95e-39], np.float32)
    rest = float(p[1])
    with on_isa(isa):
        assert klce.entropy(p) == pytest.approx(rest * (1 - math.log(rest)), rel=1e-6)


@ISA
def test_log_probabilities_masked_by_the_lowest_number(isa):
    """Plain sums multiply a difference of any size by a probability."""
    lowest = np.finfo(np.float32).min
    for p, q in (([0, -46], [-1, lowest]), ([-1, -0.5], [-0.1, -1e15])):
        x, y = np.array([p], np.float32), np.array([q], np.float32)
        expected = reference.kl_divergence(x, y, form="log_probs", normalize=False)
        with on_isa(isa):
            found = klce.kl_divergence(x, y, form="log_probs", normalize=False)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def assert_plain_kl_of_log_probs(pairs, dtype):
    """Of pairs of two classes, and where those are the ends of a long row with nothing between."""
    x, y = np.moveaxis(np.array(pairs), 1, 0).astype(dtype)
    expected = reference.kl_divergence(x, y, form="log_probs", normalize=False)
    found = klce.kl_divergence(x, y, form="log_probs", normalize=False)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-40)
    some = slice(None, None, 1 + len(x) // 100)
    x, y = (np.insert(z[some], [1] * 33000, -np.inf, axis=1) for z in (x, y))
    found = klce.kl_divergence(x, y, form="log_probs", normalize=False)
    np.testing.assert_allclose(found, expected[some], rtol=1e-6, atol=1e-40)


@ISA
@DTYPE
def test_infinite_log_probabilities_as_plain_sums(dtype, isa):
    """However far below the largest they are, and whatever the row's other class is."""
    special = [-math.inf, math.inf, math.nan, 0.0, -2.0, -500.0, -5000.0]
    rows = list(itertools.product(special, repeat=2))
    with on_isa(isa):
        assert_plain_kl_of_log_probs(list(itertools.product(rows, rows)), dtype)


@ISA
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_distances_beyond_the_dtype_as_plain_sums(dtype, isa):
    """Finite where the sum is, and nothing where all of p is as good as 0."""
    most = float(np.finfo(dtype).max)
    large = most / 16
    pairs = [
        ([-large, -large], [-large / 8, 0]),
        ([-most, -most], [most, 0]),
        ([-most, -2000], [-1, -most]),
        ([0, -1], [-large, -2]),
        ([-1, -0.5], [-large, -large]),
        ([-1, -0.5], [large, -large]),
        ([0, -2000], [0, -math.inf]),
        ([-most, -most], [-math.inf, 0]),
    ]
    with on_isa(isa):
        assert_plain_kl_of_log_probs(pairs, dtype)


@ISA
@DTYPE
@pytest.mark.parametrize("first", [5, 64, 3000])
def test_one_class_against_a_masked_stretch(first, dtype, isa):
    """A stretch of 32768 classes whose only p above 0 stands against a q of 0, as all do there."""
    for n in (40000, 70000):
        x, y = np.full(n, -math.inf), np.zeros(n)
        x[first] = 0
        y[32768:] = -math.inf
        with on_isa(isa):
            for step in (1, 300):
                x[n - 1] = -step
                row, other = x.astype(dtype), y.astype(dtype)
                assert klce.kl_divergence(row, other, form="logits") == math.inf
                assert klce.compare(row, other)["kl_divergence"] == math.inf


@ISA
@DTYPE
def test_steep_rows_alone_and_among_others(dtype, isa):
    """What a vector holds beyond a row's classes adds nothing, however little the row has."""
    rng = np.random.default_rng(4)
    for n in (2, 5, 40):
        x, y = (60 * rng.normal(size=(2, 400, n))).astype(computed(dtype)).astype(dtype)
        with on_isa(isa):
            for f in (klce.kl_divergence, klce.js_divergence):
                together = f(x, y, form="logits")
                alone = [f(x[i : i + 1], y[i : i + 1], form="logits") for i in range(len(x))]
                assert same_bits(together, np.concatenate(alone))


@ISA
@DTYPE
@pytest.mark.parametrize("n", [257, 300, 1000])
def test_logits_in_turn_and_alone(n, dtype, isa):
    """Rows of one block: unlike ones are summed in turn as far as they follow one another."""
    rng = np.random.default_rng(n)
    stretches = [21, 2, 70, 1, 3, 5, 4, 19]  # unlike, near, unlike, ...
    x = 4 * rng.normal(size=(sum(stretches), n))
    apart = np.repeat(np.resize([4, 0.05], len(stretches)), stretches)
    y = x + apart[:, None] * rng.normal(size=x.shape)
    y[2::9] -= 500
    y[4::9, ::3] = x[5::9, :100] = -math.inf
    x[6::9] = np.round(x[6::9])  # several largest
    x[7, -1] = y[8, 0] = x[9, 3] = y[9, 3] = math.inf
    x[10, n // 2] = y[11, -1] = math.nan
    x[12] = y[13] = x[14] = y[14] = -math.inf
    x, y = (z.astype(computed(dtype)).astype(dtype) for z in (x, y))
    with on_isa(isa):
        for f in (klce.kl_divergence, klce.js_divergence):
            for t in (1, 0.5):
                together = f(x, y, form="logits", temperature=t)
                alone = [
                    f(x[i : i + 1], y[i : i + 1], form="logits", temperature=t)
                    for i in range(len(x))
                ]
                assert same_bits(together, np.concatenate(alone)), f


@ISA
@DTYPE
@pytest.mark.parametrize("n", [3, 71, 300])
@pytest.mark.parametrize("factor", [1, 3, 2.0**12, 2.0**25])
def test_js_of_a_row_and_a_multiple_of_it(factor, n, dtype, isa):
    """In a tile and alone the same; and nothing, whatever stands for two classes that are 0."""
    q = np.random.default_rng(n).integers(1, 9, size=(17, n)) / 2**10
    q[:, 1] = q[:, 2::5] = 0
    p = q * (min(factor, 2**12) if dtype == np.float16 else factor)  # what float16 has room for
    p, q = (z.astype(computed(dtype)).astype(dtype) for z in (p, q))
    with on_isa(isa):
        for a, b in ((p, q), (q, p)):
            together = klce.js_divergence(a, b)
            alone = [klce.js_divergence(a[i : i + 1], b[i : i + 1]) for i in range(len(a))]
            assert same_bits(together, np.concatenate(alone))
            assert (together == 0).all() or factor == 3


@ISA
@DTYPE
@pytest.mark.parametrize("n", [4, 10, 71])
def test_one_class_alone_above_all(n, dtype, isa):
    """Divergences of next to nothing, which lie between the ways they may be found."""
    rng = np.random.default_rng(n)
    x = -rng.uniform(100, 280, size=(2000, n))
    y = x + 8 * rng.normal(size=x.shape)
    x[:, 0] = y[:, 0] = 0
    x, y = (z.astype(computed(dtype)).astype(dtype) for z in (x, y))
    with on_isa(isa):
        together = klce.kl_divergence(x, y, form="logits")
        alone = [klce.kl_divergence(x[i], y[i], form="logits") for i in range(len(x))]
        assert same_bits(together, np.array(alone))


@ISA
@DTYPE
def test_a_q_of_next_to_nothing_beside_p(dtype, isa):
    """Scale is no part of a distribution; only a q of nothing at all is none."""
    p = np.array([[0.5, 0, 0.25], [0.5, 0, 0.25], [1, 0, 0], [1, 1, 0]]).astype(dtype)
    q = np.array([[0.5, 0, 0.25], [0.25, 0, 0.5], [1, 0, 0], [1, 0, 0]]).astype(dtype)
    small = (q.astype(np.float64) * 2.0 ** -(22 if computed(dtype) != np.float64 else 60)).astype(
        dtype
    )
    small[:] = small if dtype == np.float16 else (small.astype(np.float64) * 2.0**-8).astype(dtype)
    expected = klce.kl_divergence(p.astype(np.float64), q.astype(np.float64))
    with on_isa(isa):
        for repeat in (1, 5):  # by rows, and in a tile
            found = klce.kl_divergence(np.repeat(p, repeat, 0), np.repeat(small, repeat, 0))
            np.testing.assert_allclose(found[::repeat], expected, rtol=1e-6, atol=1e-12)
        assert np.isnan(klce.kl_divergence(p, np.zeros_like(q))).all()


def kl_of_wide(p, q):
    """KL divergence in extended precision, in terms that keep the digits of a small one."""
    wide = p.astype(np.longdouble), q.astype(np.longdouble)
    a, b = (x / x.sum(axis=-1, keepdims=True) for x in wide)
    u = (b - a) / a
    near = np.abs(u) < 0.5
    terms = np.where(near, u - np.log1p(np.where(near, u, 0)), u - np.log(b / a))
    return (a * terms).sum(axis=-1).astype(np.float64)


@ISA
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [2, 5, 60, 1000])
def test_q_of_a_small_sum(n, dtype, isa):
    """Of q - p such a sum has few digits; at any scale the divergence has them."""
    rng = np.random.default_rng(5)
    p = rng.uniform(0.1, 1, size=(40, n)).astype(dtype)
    spread = np.where(np.arange(40)[:, np.newaxis] % 2, 0, 30)
    q = rng.uniform(0.1, 1, size=(40, n)) * 10.0 ** -(spread * rng.uniform(size=(40, n)))
    q = (q * 10.0 ** -rng.uniform(0, 6, size=(40, 1))).astype(dtype)
    with on_isa(isa):
        together = klce.kl_divergence(p, q)
        alone = [klce.kl_divergence(p[i], q[i]) for i in range(len(p))]
    np.testing.assert_allclose(together, kl_of_wide(p, q), rtol=RELATIVE[dtype is np.float64])
    assert same_bits(together, np.array(alone))


@ISA
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scales_far_apart(dtype, isa):
    """Of KL divergence: subnormal sums, and quotients of sums that are beyond the dtype."""
    rng = np.random.default_rng(6)
    p, q = rng.uniform(0.1, 1, size=(2, 20, 7))
    largest = 306 if dtype is np.float64 else 37
    exponents = [-largest - 10, -largest, -largest + 20, -20, 0, 20, largest - 1]
    if dtype is np.float32:
        exponents[0] = -largest - 4
    for low in exponents:
        for high in exponents:
            a, b = (p * 10.0**low).astype(dtype), (q * 10.0**high).astype(dtype)
            with on_isa(isa):
                found = klce.kl_divergence(a, b)
            rtol = RELATIVE[dtype is np.float64]
            np.testing.assert_allclose(found, kl_of_wide(a, b), rtol=rtol)


@ISA
@pytest.mark.parametrize(
    ("dtype", "p", "q"),
    [
        (np.float32, 8, 1e-45),
        (np.float32, 1000, 1.2e-38),
        (np.float32, 1e6, 1e-33),
        (np.float32, 1e10, 1e-35),
        (np.float32, 1e30, 1e-45),
        (np.float64, 1e5, 1e-306),
        (np.float64, 1e200, 1e-200),
    ],
)
def test_quotients_below_the_normal_numbers(dtype, p, q, isa):
    rows = np.array([[p, 0], [q, p]], dtype)
    expected = np.log1p(rows[0, 0].astype(np.longdouble) / rows[1, 0]).astype(np.float64)
    with on_isa(isa):
        for repeat in (1, 17):
            found = klce.kl_divergence(np.tile(rows[0], (repeat, 1)), rows[1])
            np.testing.assert_allclose(found, expected, rtol=RELATIVE[dtype is np.float64])


@ISA
@pytest.mark.parametrize("n", [1, 3, 10, 257])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_quotients_beyond_the_dtype_as_plain_sums(dtype, n, isa):
    """They count as they are: their logarithm comes from exponents, not from a quotient."""
    info = np.finfo(dtype)
    p, q = np.zeros((2, 17, n), dtype)
    p[:, -1], q[:, -1] = 4 * info.tiny, info.max / 2**14  # so that no term is infinite
    p, q = np.concatenate([p, q]), np.concatenate([q, p])
    expected = p[:, -1].astype(np.longdouble)
    expected = expected * (np.log(expected) - np.log(q[:, -1].astype(np.longdouble)))
    with on_isa(isa):
        for found in (
            klce.kl_divergence(p, q, normalize=False),
            klce.kl_divergence(p.T.copy(), q.T.copy(), 0, normalize=False),
        ):
            rounded = expected.astype(dtype)
            np.testing.assert_allclose(found, rounded, rtol=RELATIVE[dtype is np.float64])


@ISA
@pytest.mark.parametrize(("p", "q"), [(5e-324, 4.0), (1e-307, 1e100), (0.0, 2.0)])
def test_js_of_quotients_beyond_float64(p, q, isa):
    expected = reference.js_divergence([p, 0.5], [q, 0.5], normalize=False)
    with on_isa(isa):
        for repeat in (1, 17):
            rows = np.tile([[p, 0.5], [q, 0.5]], (repeat, 1, 1))
            found = klce.js_divergence(rows[:, 0], rows[:, 1], normalize=False)
            np.testing.assert_allclose(found, expected, rtol=RELATIVE[1])


@ISA
@DTYPE
def test_nothing_in_q_beside_next_to_nothing_in_p(dtype, isa):
    least = ml_dtypes.finfo(dtype).smallest_subnormal
    with on_isa(isa):
        for scale in (1, 0.05, 1e-3):
            q = np.array([scale, 0], dtype)
            assert klce.kl_divergence(np.array([1, least], dtype), q) == np.inf
        for little in (least, 2 * least, 0.5 * least):  # the last is 0
            assert np.isnan(klce.kl_divergence(np.array([little, 0], dtype), np.zeros(2, dtype)))


@ISA
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_small_classes_that_are_near(dtype, isa):
    """About where quotients begin to be raised, in rows of small sums and of large ones."""
    small = 90 if dtype is np.float32 else 900
    rng = np.random.default_rng(7)
    with on_isa(isa):
        for exponent in (small - 3, small - 1, small, small + 1, small + 20):
            for first in (exponent, small - 1, small // 2 + 14, 0):
                p = rng.uniform(0.3, 1, (20, 40)) * 2.0**-exponent
                q = p * rng.uniform(0.5, 2, p.shape)
                p[:, 0] = q[:, 0] = 2.0**-first
                p, q = p.astype(dtype), q.astype(dtype)
                assert not klce.kl_divergence(p, p).any()
                found = klce.kl_divergence(p, q)
                rtol, expected = RELATIVE[dtype is np.float64], kl_of_wide(p, q)
                np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * 1e-12)
            p = rng.uniform(0.3, 1, (20, 40)) * 2.0**-exponent
            p, q = p.astype(dtype), (p * rng.uniform(0.5, 2, p.shape)).astype(dtype)
            wide = p.astype(np.longdouble)
            expected = (wide * np.log(wide / q)).sum(-1).astype(np.float64)
            found = klce.kl_divergence(p, q, normalize=False)
            np.testing.assert_allclose(found, expected, rtol=1e-5 if dtype is np.float32 else 1e-12)
            assert not klce.kl_divergence(p, p, normalize=False).any()


@ISA
def test_many_subnormal_classes(isa):
    p = np.array([2e-29] + [1e-38] * 1000, np.float32)
    q = np.array([2e-29] + [5e-39] * 1000, np.float32)
    with on_isa(isa):
        found = klce.kl_divergence(p, q)
    np.testing.assert_allclose(found, kl_of_wide(p, q), rtol=RELATIVE[0])


@ISA
@DTYPE
@pytest.mark.parametrize("n", [257, 1000, 20000])
def test_logits_about_a_third_of_a_nat_apart(n, dtype, isa):
    """There KL divergence of logits leaves out its second sweep, for rows that seem unlike."""
    rng = np.random.default_rng(n)
    spread = np.repeat([0.3, 0.6, 0.7, 0.8, 0.9, 1.1, 3, 12], 4)[:, np.newaxis]
    offset = np.tile([0, 0.5, -20, 40], 8)[:, np.newaxis]
    x = 3 * rng.normal(size=(32, n))
    x[:, 64:] += 4 * (x[:, 64:] > 3)  # the first classes are not those that count
    y = (x + spread * rng.normal(size=x.shape) + offset).astype(dtype)
    x = x.astype(dtype)
    for temperature in (1, 0.8):
        p, q = (
            in_form(z.astype(np.longdouble) / temperature, "log_probs", np.longdouble)
            for z in (x, y)
        )
        expected = np.sum(np.exp(p) * (p - q), axis=-1)
        with on_isa(isa):
            actual = klce.kl_divergence(x, y, form="logits", temperature=temperature)
        # Of near rows, offsets cost the specification more digits than the kernel.
        error = np.abs(actual - expected) / expected
        assert error[expected > 0.1].max() <= RELATIVE[dtype == np.float64]


OF_UNLIKE_ROWS = [
    "js_divergence",
    "total_variation",
    "expected_agreement",
    "kl_divergence",
    "reverse_kl_divergence",
]


def compared(x, y, temperature):
    """OF_UNLIKE_ROWS in extended precision."""
    p, q = (in_form(z.astype(np.longdouble) / temperature, "log_probs", np.longdouble)
            for z in (x, y))  # fmt: skip
    with np.errstate(invalid="ignore"):
        middle = np.logaddexp(p, q) - np.log(np.longdouble(2))
        of_p, of_q = (
            [np.where(z == -np.inf, 0, np.exp(z) * (z - other)).sum(-1) for other in (middle, rest)]
            for z, rest in ((p, q), (q, p))
        )
    return {
        "js_divergence": (of_p[0] + of_q[0]) / 2,
        "total_variation": np.abs(np.exp(p) - np.exp(q)).sum(-1) / 2,
        "expected_agreement": np.exp(p + q).sum(-1),
        "kl_divergence": of_p[1],
        "reverse_kl_divergence": of_q[1],
    }


@ISA
@DTYPE
@pytest.mark.parametrize("hidden", ["", "p", "q", "pq"])
@pytest.mark.parametrize("n", [257, 1000, 33000])
def test_comparisons_of_logits_near_and_unlike(n, hidden, dtype, isa):
    """Rows that seem unlike have a sweep of their own; whose divergence is then small, another."""
    rng = np.random.default_rng(n)
    each = 4 if n < 33000 else 1
    spread = np.repeat([0.3, 0.6, 0.7, 0.8, 0.9, 1.1, 3, 12], each)[:, np.newaxis]
    offset = np.resize([0, 0.5, -20, 40], 8 * each)[:, np.newaxis]
    x = 3 * rng.normal(size=(8 * each, n))
    x[:, 64:] += 4 * (x[:, 64:] > 3)  # the first classes are not those that count
    y = x + spread * rng.normal(size=x.shape)
    y[::3, 64:] += 0.97 * (x - y)[::3, 64:]  # and say nothing of the others
    for rows, name in ((x, "p"), (y, "q")):
        rows[:, (np.arange(n) % 7 == 2) & (name in hidden)] = -np.inf
    x, y = x.astype(dtype), (y + offset).astype(dtype)
    label = np.zeros(8 * each, np.int64)
    for temperature in (1, 0.8):
        expected = compared(x, y, temperature)
        with on_isa(isa):
            alone = klce.js_divergence(x, y, form="logits", temperature=temperature)
            whole = klce.compare(x, y, label, want=OF_UNLIKE_ROWS, temperature=temperature)
            for name in OF_UNLIKE_ROWS:
                one = klce.compare(x, y, label, want=[name], temperature=temperature)[name]
                found = [whole[name], one] + [alone] * (name == "js_divergence")
                for actual in found:
                    assert_relative(actual, expected[name], dtype)


@ISA
@DTYPE
@pytest.mark.parametrize("n", [257, 1000, 33000])
def test_js_of_probabilities_near_and_unlike(n, dtype, isa):
    """As of logits; zeros, tiny probabilities and sums that are not 1 make no difference."""
    rng = np.random.default_rng(n)
    spread = np.repeat([0.3, 0.6, 0.9, 1.2, 2, 3, 5], 4)[:, np.newaxis]
    x = spread * rng.normal(size=(28, n))
    y = spread * rng.normal(size=x.shape)
    y[::3, 64:] += 0.97 * (x - y)[::3, 64:]  # the first classes say nothing of the others
    p, q = (in_form(z, "probs", np.float64) for z in (x, y))
    p[1::4, ::3] = q[2::4, 1::2] = 0
    p[3::4] *= 3
    q[3::4] /= 5
    p, q = p.astype(dtype), q.astype(dtype)
    wide = [z.astype(np.longdouble) / z.astype(np.longdouble).sum(-1, keepdims=True)
            for z in (p, q)]  # fmt: skip
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = [np.where(z == 0, 0, z * np.log(2 * z / (wide[0] + wide[1]))) for z in wide]
    with on_isa(isa):
        found = klce.js_divergence(p, q)
        assert_relative(found, (terms[0] + terms[1]).sum(-1) / 2, dtype)
        for side, bad in itertools.product((0, 1), (-1e-6, np.nan, np.inf)):
            rows = p.copy(), q.copy()
            rows[side][5, n - 3] = bad
            spoilt = klce.js_divergence(*rows)
            assert np.flatnonzero(np.isnan(spoilt)).tolist() == [5]
            np.testing.assert_array_equal(np.delete(spoilt, 5), np.delete(found, 5))


@ISA
@DTYPE
@pytest.mark.parametrize("n", [257, 1000, 33000])
def test_js_of_sums_that_nearly_agree(n, dtype, isa):
    """Where they do, terms are summed before it is known, and at one scale for both rows."""
    rng = np.random.default_rng(n)
    off = np.array([0, 2.0**-24, 2.0**-22, 2.0**-20, 2.0**-10, 1])  # as a share of q's sum
    if dtype == np.float64:
        off[1:4] = 2.0**-49, 2.0**-47, 2.0**-45
    off = np.tile(np.concatenate([off, -off / 2]), 5)[:, np.newaxis]
    spread = np.repeat([1e-3, 0.1, 1, 3, 10], 12)[:, np.newaxis]
    x = 2 * rng.normal(size=(60, n))
    p, q = (in_form(z, "probs", np.float64) for z in (x, x + spread * rng.normal(size=x.shape)))
    q[36:48, ::2] = 0  # as far from the middle as p is not
    p, q = p.astype(dtype), (q / q.sum(-1, keepdims=True) * (1 + off)).astype(dtype)
    wide = [z.astype(np.longdouble) / z.astype(np.longdouble).sum(-1, keepdims=True)
            for z in (p, q)]  # fmt: skip
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = [np.where(z == 0, 0, z * np.log(2 * z / (wide[0] + wide[1]))) for z in wide]
    with on_isa(isa):
        assert_relative(klce.js_divergence(p, q), (terms[0] + terms[1]).sum(-1) / 2, dtype)


def assert_relative(actual, expected, dtype):
    """Within the bound; of small ones extended precision itself has too few digits in float64."""
    infinite = np.isinf(expected)
    np.testing.assert_array_equal(np.isinf(actual), infinite)
    counts = ~infinite & (expected > (1e-4 if dtype == np.float64 else 1e-12))
    error = np.abs(actual[counts] - expected[counts]) / expected[counts]
    assert not counts.any() or error.max() <= RELATIVE[dtype == np.float64]


@ISA
@DTYPE
@pytest.mark.parametrize("n", [2, 3, 4, 10, 33, 100])
def test_logits_of_few_classes_at_any_distance(n, dtype, isa):
    """KL divergence leaves out the second sweep for a tile whose rows all have their digits."""
    rng = np.random.default_rng(n)
    apart = np.tile([1e-3, 0.1, 1, 1, 3, 3, 10, 40], 12)[:, np.newaxis]
    apart[48:80] = 5  # whole tiles of them, as a rule
    offset = np.tile([0, 0.5, -20], 32)[:, np.newaxis]
    x = rng.normal(size=(96, n)) * np.repeat([0.5, 3, 12], 32)[:, np.newaxis]
    y = (x + apart * rng.normal(size=x.shape) + offset).astype(dtype)
    x = x.astype(dtype)
    p, q = (in_form(z, "log_probs", np.longdouble) for z in (x, y))
    expected = np.sum(np.exp(p) * (np.expm1(q - p) - (q - p)), axis=-1)
    with on_isa(isa):
        actual = klce.kl_divergence(x, y, form="logits")
        each = [klce.kl_divergence(*rows, form="logits") for rows in zip(x, y, strict=True)]
    seen = expected > 1e-8
    np.testing.assert_allclose(actual[seen], expected[seen], rtol=RELATIVE[dtype == np.float64])
    assert same_bits(actual, np.array(each))


@ISA
@DTYPE
def test_few_logits_far_from_zero(dtype, isa):
    """Differences of the two rows round to one number: they seem near in a tile, and are not."""
    far = {"float16": 3e4, "float64": 1e17}.get(np.dtype(dtype).name, 1e8)
    x = np.full((80, 10), far).astype(dtype)
    y = (2 * np.random.default_rng(3).normal(size=x.shape)).astype(dtype)
    y[64:] += np.arange(10).astype(dtype) * 8  # apart by any means
    order = np.random.default_rng(4).permutation(80)
    with on_isa(isa):
        together = klce.kl_divergence(x, y, form="logits")
        mixed = klce.kl_divergence(x[order], y[order], form="logits")
        each = [klce.kl_divergence(*rows, form="logits") for rows in zip(x, y, strict=True)]
    expected = reference.kl_divergence(x * 0, y, form="logits")
    np.testing.assert_allclose(together, expected, rtol=RELATIVE[dtype == np.float64])
    assert same_bits(together, np.array(each))
    assert same_bits(together[order], mixed)


@ISA
@DTYPE
@pytest.mark.parametrize("n", [3, 40, 200, 2000])
def test_a_class_masked_by_the_lowest_number_at_a_low_temperature(n, dtype, isa):
    """Its distance is a number, but divided by the temperature none: of a p of next to nothing."""
    rng = np.random.default_rng(n)
    size = 300 if np.dtype(dtype).itemsize == 2 else 1e4
    p = rng.normal(0, size, (17, n)).astype(dtype)
    q = (p + rng.normal(0, size / 10, p.shape)).astype(dtype)
    q[np.arange(17), p.argmin(-1)] = ml_dtypes.finfo(dtype).min
    how = {"temperature": 0.01}
    wide = p.astype(np.float64), q.astype(np.float64)
    expected = reference.kl_divergence(*wide, form="logits", **how)
    relative = RELATIVE[dtype == np.float64]
    with on_isa(isa):
        for rows in (1, 17):
            x, y = p[:rows], q[:rows]
            found = (
                klce.kl_divergence(x, y, form="logits", **how),
                klce.compare(x, y, **how)["kl_divergence"],
                klce.compare(y, x, want=["reverse_kl_divergence"], **how)["reverse_kl_divergence"],
            )
            for kl in found:
                np.testing.assert_allclose(kl, expected[:rows], rtol=relative, atol=1e-12)


@ISA
@DTYPE
@pytest.mark.parametrize("n", [257, 1000, 5003, 150001])
def test_logits_of_near_long_rows(n, dtype, isa):
    """One sweep finds KL and both rows' sums, by any number of threads; of some rows it cannot."""
    rng = np.random.default_rng(n)
    x = 3 * rng.normal(size=(9, n))
    apart = np.array([0, 1e-4, 1e-2, 0.1, 0.3, 0.6, 0.1, 0.1, 0.1])[:, np.newaxis]
    y = 0.97 * x + apart * rng.normal(size=x.shape) + 2
    y[0] = x[0]
    x[6].sort()  # a larger maximum in every block
    y[6] = x[6] + 0.2 * rng.normal(size=n)
    y[7, n // 3] += 40  # a class of its own: no near row
    x, y = x.astype(dtype), y.astype(dtype)
    x[8, ::2] = y[8, ::2] = -np.inf  # no classes
    there = np.isfinite(x.astype(float))
    p, q = (in_form(np.where(there, z, -1e4), "log_probs", np.longdouble) for z in (x, y))
    expected = np.sum(np.exp(p) * (np.expm1(q - p) - (q - p)), axis=-1)
    found = []
    with on_isa(isa):
        for threads in (1, 3):
            with klce.threads(threads):
                found.append(klce.kl_divergence(x, y, form="logits"))
                each = [klce.kl_divergence(*rows, form="logits") for rows in zip(x, y, strict=True)]
                found.append(np.array(each))
                table = klce.compare(x, y)
    assert all(same_bits(found[0], other) for other in found)
    assert found[0][0] == 0
    for values in found[0], table["kl_divergence"]:
        relative = RELATIVE[dtype == np.float64]
        np.testing.assert_allclose(values, expected, rtol=relative, atol=1e-12)
    for name, z in (("entropy_p", x), ("entropy_q", y)):
        wide = reference.entropy(np.where(there, z, -1e4).astype(np.float64), form="logits")
        np.testing.assert_allclose(table[name], wide, rtol=RELATIVE[dtype == np.float64])
    assert table["same_argmax"].tolist() == (x.argmax(-1) == y.argmax(-1)).tolist()


@ISA
@pytest.mark.parametrize("n", [200, 3000, 70000])
@pytest.mark.parametrize("offset", [2.0**20, 2.0**37])
def test_near_logits_of_far_offsets(n, offset, isa):
    """What rounding takes from the distance of the rows is as large as what KL hangs on."""
    rng = np.random.default_rng(n)
    x = 2 * rng.normal(size=(5, n))
    far = x + max(5e-6, offset * 1e-15) * rng.normal(size=x.shape) + offset
    near = far - offset  # exact
    with on_isa(isa):
        found = klce.kl_divergence(x, far, form="logits")
        expected = klce.kl_divergence(x, near, form="logits")
        table = klce.compare(x, far)
    np.testing.assert_allclose(found, expected, rtol=RELATIVE[True])
    np.testing.assert_allclose(table["kl_divergence"], expected, rtol=RELATIVE[True])
    entropies = klce.entropy(near, form="logits")
    np.testing.assert_allclose(table["entropy_q"], entropies, rtol=1e-15)


@ISA
@DTYPE
@pytest.mark.parametrize("n", [300, 1000, 70000])
def test_long_rows_that_seem_near(n, dtype, isa):
    """A class that stands out, behind the first ones: all others are as far from it as may be."""
    stands = np.array([0.1, 0.5, 0.7, 0.9, 1, 1.5, 4, 7, 8.5, 16.5, 20.5, 31.8])[:, np.newaxis]
    x = np.full((len(stands), n), 0.3)
    y = np.zeros_like(x)
    x[:, 100] = 0.5
    for rows in (y + stands * (np.arange(n) == 100), y + stands * (np.arange(n) != 100)):
        p, q = (z.astype(dtype) for z in (x, rows))
        logs = [in_form(z, "log_probs", np.longdouble) for z in (p, q)]
        expected = np.sum(np.exp(logs[0]) * (np.expm1(logs[1] - logs[0]) + logs[0] - logs[1]), -1)
        with on_isa(isa):
            found = klce.kl_divergence(p, q, form="logits")
            table = klce.compare(p, q, np.full(len(p), 100))
        wide = reference.entropy(q.astype(np.float64), form="logits")
        relative = RELATIVE[dtype == np.float64]
        for values in found, table["kl_divergence"]:
            # The specification sums 70000 terms of one rounding.
            np.testing.assert_allclose(values, expected, rtol=relative, atol=1e-17)
        np.testing.assert_allclose(table["entropy_q"], wide, rtol=relative)
        change = (logs[1] - logs[0])[:, 100]
        np.testing.assert_allclose(
            table["target_log_prob_change"], change, rtol=relative, atol=relative
        )


@ISA
@DTYPE
@pytest.mark.parametrize("n", [20, 700])
def test_unlike_logits_without_some_classes(n, dtype, isa):
    """What is -inf in both rows counts for nothing, in q alone for all; in p alone it leaves q."""
    rng = np.random.default_rng(8)
    x, y = (
        (rng.normal(size=(19, n)) * 3).astype(dtype),
        (rng.normal(size=(19, n)) * 3).astype(dtype),
    )
    some = np.arange(n) % 7 == 2
    for p_hidden, q_hidden in ((True, True), (True, False), (False, True)):
        p, q = x.copy(), y.copy()
        p[:, some & p_hidden] = -np.inf
        q[:, some & q_hidden] = -np.inf
        with np.errstate(invalid="ignore"):
            expected = reference.kl_divergence(p.astype(float), q.astype(float), form="logits")
        with on_isa(isa):
            actual = klce.kl_divergence(p, q, form="logits")
            where = klce.kl_divergence(x, y, form="logits", where=~some)
        np.testing.assert_allclose(actual, expected, rtol=RELATIVE[dtype == np.float64])
        assert np.isinf(actual).all() == (q_hidden and not p_hidden)
        if p_hidden and q_hidden:
            np.testing.assert_allclose(where, expected, rtol=RELATIVE[dtype == np.float64])
    for special, side in itertools.product((np.nan, np.inf), (0, 1)):
        rows = x.copy(), y.copy()
        rows[side][1, n - 5] = special
        with on_isa(isa):
            actual = klce.kl_divergence(*rows, form="logits")
        assert np.flatnonzero(np.isnan(actual)).tolist() == [1]


@ISA
@DTYPE
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_long_rows_that_are_very_far_apart(dtype, temperature, isa):
    """Sums of such distances may go beyond all numbers, -inf among them."""
    rng = np.random.default_rng(78)
    largest = 3e4 if dtype == np.float16 else 3e17
    for n, scale in itertools.product((257, 1025), np.geomspace(1e3, largest, 12)):
        x = rng.normal(size=(4, n)).astype(dtype)
        y = np.where(rng.random((4, n)) < 0.5, -scale, scale).astype(dtype)
        x[0, 2:] = y[0, 2:] = -np.inf
        y[0, :2] = scale, -scale
        with on_isa(isa):
            found = klce.kl_divergence(x, y, form="logits", temperature=temperature)
            of_pairs = klce.compare(
                x, y, want=["cross_entropy", "entropy_p"], temperature=temperature
            )
        p, q = x.astype(np.float64), y.astype(np.float64)
        expected = reference.kl_divergence(p, q, form="logits", temperature=temperature)
        np.testing.assert_allclose(found, expected, rtol=RELATIVE[dtype == np.float64])
        np.testing.assert_allclose(
            of_pairs["cross_entropy"] - of_pairs["entropy_p"], found, rtol=RELATIVE[0]
        )
