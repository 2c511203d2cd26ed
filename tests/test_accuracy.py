"""The rows of docs/accuracy.md within the bounds, and the truth that they are held against."""

from functools import lru_cache

import mpmath
import numpy as np
import pytest

import klce
from benchmarks import accuracy, truth
from klce import _ufuncs, reference
from tests.kernels import on_isa
from tests.ulp import ulp_error

pytestmark = pytest.mark.slow

mpmath.mp.dps = 60


def exactly(pair):
    return [mpmath.mpf(float(h)) + float(low) for h, low in zip(pair.hi, pair.lo, strict=True)]


def worst(actual, expected, size):
    return max(abs((a - e) / size(e)) for a, e in zip(exactly(actual), expected, strict=True))


SMALL = 10.0 ** np.random.default_rng(0).uniform(-290, 0, size=300)
NEAR_1 = 1 + 0.5 ** np.arange(1.0, 53)


@pytest.mark.parametrize(
    ("function", "true", "x"),
    [
        (lambda z: truth.exp(z)[0], mpmath.exp, np.linspace(-5000, 0, 1001)),
        (lambda z: truth.exp(z)[0], mpmath.exp, -SMALL),
        (truth.log, mpmath.log, np.concatenate([SMALL, 1 / SMALL, NEAR_1, 2 - NEAR_1])),
        (truth.log1p, mpmath.log1p, np.concatenate([SMALL, NEAR_1, np.geomspace(1, 1e6, 300)])),
    ],
    ids=["exp", "exp of a small number", "log", "log1p"],
)
def test_functions_of_pairs_are_right_to_100_bits(function, true, x):
    pair = truth.exact(x)
    actual = function(pair)
    expected = [true(mpmath.mpf(v)) for v in x]
    if true is mpmath.exp:
        powers = truth.exp(pair)[1]
        expected = [e * mpmath.mpf(2) ** -int(n) for e, n in zip(expected, powers, strict=True)]
    # A logarithm near 0 is right absolutely: what is small is given to log1p.
    size = (lambda e: max(1, abs(e))) if true is mpmath.log else abs
    assert worst(actual, expected, size) < 2.0**-100


@pytest.mark.parametrize("scale", [0.1, 1, 30])
def test_truth_of_measures(scale):
    """The measures of short rows, by the textbook's formulas in mpmath."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(20, 7)) * scale
    y = x + 1e-6 * rng.normal(size=x.shape)
    p, q = truth.of_logits(x), truth.of_logits(y)
    rows = []
    for a, b in zip(x, y, strict=True):
        e, f = ([mpmath.exp(mpmath.mpf(v)) for v in row] for row in (a, b))
        rows.append(([v / sum(e) for v in e], [v / sum(f) for v in f]))
    expected = {
        "entropy": [-sum(v * mpmath.log(v) for v in a) for a, _ in rows],
        "kl": [sum(v * mpmath.log(v / w) for v, w in zip(a, b, strict=True)) for a, b in rows],
        "js": [
            sum(
                v * mpmath.log(2 * v / (v + w)) + w * mpmath.log(2 * w / (v + w))
                for v, w in zip(a, b, strict=True)
            )
            / 2
            for a, b in rows
        ],
    }
    assert worst(truth.entropy(p), expected["entropy"], abs) < 2.0**-90
    for name in ("kl", "js"):
        assert worst(getattr(truth, name)(p, q), expected[name], lambda _: 1) < 2.0**-95
    probs = p.p
    for k, (a, _) in enumerate(rows):
        assert worst(probs[k], a, abs) < 2.0**-95


@lru_cache(maxsize=len(accuracy.DTYPES))
def drawn(kind, dtype, quick):
    """The rows of a kind, which keep their truth for all operations and instruction sets."""
    return list(accuracy.samples(kind, dtype, quick))


KINDS = [(kinds, kind) for kinds in (accuracy.LOGITS, accuracy.PAIRS) for kind in kinds]


@pytest.mark.parametrize("isa", _ufuncs.available_isas())
@pytest.mark.parametrize(("kinds", "kind"), KINDS, ids=[kind.name for _, kind in KINDS])
def test_bounds(kinds, kind, isa):
    with on_isa(isa), klce.threads(1):
        cells = accuracy.measure(quick=True, names=("klce",), only=kind, draw=drawn)
    measured = {(op, dtype) for op, _, dtype, _ in cells}
    asked = [op for op in accuracy.OPS if op.kinds is kinds and op.takes(kind)]
    assert measured == {(op.name, dtype) for op in asked for dtype in op.dtypes}
    assert all(cell.count for cell in cells.values())
    assert accuracy.missed(cells) == []


@pytest.mark.parametrize("isa", _ufuncs.available_isas())
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kl_of_near_probabilities_of_other_sums(dtype, isa):
    """Rows whose sums differ by about as much as the divergence comes to."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet([1.0, 1.0], size=20000)
    apart = 10.0 ** rng.uniform(-5, -2, size=(20000, 1))
    change = apart * (1 + rng.uniform(0.2, 2, size=(20000, 1)) * rng.normal(size=p.shape))
    p, q = p.astype(dtype), (p * (1 + change)).astype(dtype)
    want = truth.kl(*(truth.of_probs(x.astype(np.float64)) for x in (p, q)))
    with on_isa(isa):
        actual = klce.kl_divergence(p, q)
    op = next(op for op in accuracy.OPS if op.name == "KL divergence of probs")
    assert op.distance(None, actual.astype(np.float64), want, None).max() <= op.bound(dtype)


@pytest.mark.parametrize("isa", _ufuncs.available_isas())
@pytest.mark.parametrize(
    ("p", "own", "times"), [(0.1, 0.01, 1.5), (0.1, 0.9, 1.01), (0.3, 0.01, 2)]
)
def test_kl_of_many_equal_probabilities_of_other_sums(p, own, times, isa):
    """Roundings of equal terms are alike, and add up where none is kept."""
    n = 250_000
    ps = np.full(n, p)
    qs = ps * times
    ps[7] = qs[7] = own
    a, b, c = (mpmath.mpf(float(x)) for x in (ps[0], own, qs[0]))
    p_sum, q_sum = (n - 1) * a + b, (n - 1) * c + b
    rest = (n - 1) * a / p_sum * mpmath.log(a / p_sum * q_sum / c)
    expected = rest + b / p_sum * mpmath.log(q_sum / p_sum)
    with on_isa(isa):
        found = float(klce.kl_divergence(ps, qs))
    assert abs(found - expected) <= 1e-15 * expected


@pytest.mark.parametrize("isa", _ufuncs.available_isas())
def test_kl_of_float16_probabilities_whose_sums_differ_by_a_sixth(isa):
    """The sums' part is as large as what is left, and cost it more than it may."""
    p = np.array([0.46044921875, 0.0311431884765625, 0.50830078125], np.float16)
    q = np.array([0.65185546875, 0.0310516357421875, 0.49658203125], np.float16)
    want = reference.kl_divergence(p, q)
    with on_isa(isa):
        np.testing.assert_allclose(klce.kl_divergence(p, q), want, rtol=5e-7)


# The bounds of README, in ULP of (float32, float64): of rows at large, and of many classes whose
# roundings fall alike.
MEASURES = {
    "logsumexp": ((4, 5), (16, 16)),
    "log_softmax": ((4, 5), (16, 16)),
    "cross_entropy": ((4, 5), (16, 16)),
    "softmax": ((2.5, 4), (2.5, 4)),
    "max_log_prob": ((4, 5), (16, 16)),
    "target_prob": ((4, 6), (16, 16)),
    "nll_p": ((4, 8), (16, 16)),
    "entropy": ((5, 5), (12, 12)),
    "varentropy": ((12, 16), (50, 50)),
    "soft": ((10, 10), (16, 16)),
    "smooth": ((10, 10), (16, 16)),
}
FEW = {"float32": 256, "float64": 128}
# Classes, leaders, their logit, that of all others, and the temperature; the largest logit is 0.
LED = {
    "float32": [
        (273, 3, -2.375, -19.02, 1.0),
        (718, 22, -19.75321, -35.83978, 1.0),
        (1940, 11, -13.435950, -29.442938, 0.9953852748124052),
        (1637, 45, -40.093565, -61.660, 1.3),
        (1847, 3, -5.8145, -21.9377, 1.0),
        (417, 5, -34.293685 * 1.3, -50.214969 * 1.3, 1.3),
        (510, 2, -0.3425, -16.927, 1.0),
        (1015, 31, -1.5270, -15.8369, 0.8822395655184312),
        (314, 16, 0.0, -11.52, 0.7),
        (764, 87, -0.318971 * 1.6042425, -16.4124 * 1.6042425, 1.6042425266114064),
        (185, 11, -38.459011, -54.641842, 1.0),
        (232, 22, -68.691, -96.1, 1.724137360103983),
        (245, 38, -24.974, -36.98, 0.7),
        (252, 14, -19.750522, -35.4363, 1.0),
        (96, 81, -1.6011, -26.3546, 1.540670411336451),
    ],
    "float64": [
        (395, 1, -9.3, -46.05, 1.0),
        (406, 11, -38.469297274408994, -75.1767826146006, 1.0),
        (766, 22, -11.164859767, -46.592467, 0.9786812240737319),
        (1797, 3, -9.1115, -45.5412, 1.0),
        (673, 5, -22.549343, -48.800, 0.7),
        (1209, 2, -0.1666, -36.6714, 1.0),
        (1022, 4, -0.79901, -29.019, 0.7690950944471661),
        (309, 21, -0.53769, -59.874, 1.6172694158412693),
        (113, 45, -45.855, -99.642, 1.486802096857497),
        (96, 20, -47.810, -99.037, 1.3659303280),
        (128, 13, -23.1742, -70.583, 1.3),
        (86, 10, -0.28114, -29.873, 0.817812950963844),
    ],
}


def led(classes, leaders, near, far, dtype):
    """A row whose leaders are the first of their lanes: all others there are added to them."""
    group, flush = (32, 256) if dtype == "float32" else (16, 128)
    if classes <= FEW[dtype]:
        group, flush = 16, 32
    x = np.full(classes, far, dtype)
    x[[k for k in range(1, classes) if k % flush < group][:leaders]] = near
    x[0] = 0
    return x


def kinds_of(x, divisor=1.0):
    """The numbers of a row, divided, as often as they come."""
    values, counts = np.unique(x, return_counts=True)
    return [mpmath.mpf(float(v)) / divisor for v in values], [int(c) for c in counts]


def true_measures(x, temperature):
    z, counts = kinds_of(x, temperature)
    rest = mpmath.fsum(
        (c - (v == 0)) * mpmath.exp(v) for v, c in zip(z, counts, strict=True) if v != 0 or c > 1
    )
    log_total = mpmath.log1p(rest)
    p = [mpmath.exp(v) / (1 + rest) for v in z]

    def mean(f):
        return mpmath.fsum(c * q * f(v) for v, c, q in zip(z, counts, p, strict=True))

    centre, square = mean(lambda v: v), mean(lambda v: v * v)
    varentropy = mean(lambda v: (v - centre) ** 2)
    total = mpmath.fsum(c * (log_total - v) for v, c in zip(z, counts, strict=True)) / len(x)
    exact = {
        "logsumexp": log_total,
        "log_softmax": -log_total,
        "cross_entropy": log_total,
        "softmax": 1 / (1 + rest),
        "max_log_prob": -log_total,
        "target_prob": 1 / (1 + rest),
        "nll_p": log_total,
        "entropy": log_total - centre,
        "varentropy": varentropy,
        "soft": (log_total + mpmath.mpf(0.5) * (log_total - mpmath.mpf(float(x[1])) / temperature)),
        "smooth": (log_total + total) / 2,
    }
    # (d - mean)^2 is as good as d^2: the root of both means' product.
    return exact, {"varentropy": mpmath.sqrt(varentropy * square)}


def measured(x, temperature):
    asked = ["max_log_prob", "target_prob", "entropy", "varentropy"]
    table = klce.score(x, 0, want=asked, temperature=temperature)
    soft = np.zeros_like(x)
    soft[:2] = 1, 0.5
    return {
        "log_softmax": klce.log_softmax(x, temperature=temperature)[0],
        "cross_entropy": klce.cross_entropy(x, 0, temperature=temperature),
        "softmax": klce.softmax(x, temperature=temperature)[0],
        "nll_p": klce.compare(x, x, 0, want=["nll_p"], temperature=temperature).nll_p,
        "soft": klce.cross_entropy(x, soft, temperature=temperature),
        "smooth": klce.cross_entropy(x, 0, label_smoothing=0.5, temperature=temperature),
        **table,
    } | ({"logsumexp": klce.logsumexp(x)} if temperature == 1 else {})


def in_ulp(actual, true, dtype, size=None):
    ulp = np.spacing(np.abs(np.asarray(float(true if size is None else size), dtype)))
    return float(abs(mpmath.mpf(float(actual)) - true) / mpmath.mpf(float(ulp)))


@pytest.mark.parametrize("isa", _ufuncs.available_isas())
@pytest.mark.parametrize("dtype", FEW)
def test_rows_whose_roundings_fall_alike(dtype, isa):
    """Some classes lead all but the maximum, and hundreds are half a ULP of them, or less."""
    wrong = []
    for case in LED[dtype]:
        *row, temperature = case
        x = led(*row, dtype)
        true, sizes = true_measures(x, temperature)
        with on_isa(isa):
            found = measured(x, temperature) | {
                "entropy alone": klce.entropy(x, form="logits", temperature=temperature)
            }
        for name, actual in found.items():
            measure = name.removesuffix(" alone")
            error = in_ulp(actual, true[measure], dtype, sizes.get(measure))
            bound = MEASURES[measure][len(x) > FEW[dtype]][dtype == "float64"]
            if not error <= bound:
                wrong.append((name, case, error))
    assert not wrong


# Classes, leaders, their logit and the others'; what q adds to the maximum, the leaders and others.
LED_PAIRS = [
    (753, 15, -1.607622, -18.23458, -0.004135913, -0.009258882, 1.379432e-05),
    (1051, 31, -2.379483, -18.540999, -0.02607718, -6.5043e-06, -0.016525283),
    (650, 40, -0.774341, -16.989061, 2.738805e-06, -0.001260085, -0.000151638),
    (74, 19, -23.30498, -39.12431, -2.0262341e-06, 0.78181570, 0.00225999),
    (236, 16, -14.381094, -30.003, 0.007529166, 7.778968e-06, -2.779803e-06),
]


@pytest.mark.parametrize("isa", _ufuncs.available_isas())
def test_divergences_of_rows_whose_roundings_fall_alike(isa):
    for classes, leaders, near, far, *changes in LED_PAIRS:
        x = led(classes, leaders, near, far, "float32")
        y = (x + led(classes, leaders, *changes[1:], "float64")).astype("float32")
        y[0] = changes[0]
        p, q = (truth.of_logits(a[np.newaxis].astype(np.float64)) for a in (x, y))
        bound = 1e-5 if classes > FEW["float32"] else 2e-6
        with on_isa(isa):
            found = {
                "kl": [
                    klce.kl_divergence(x, y, form="logits"),
                    klce.compare(x, y, want=["kl_divergence"]).kl_divergence,
                ],
                "js": [klce.js_divergence(x, y, form="logits")],
            }
        for measure, results in found.items():
            true = float(getattr(truth, measure)(p, q).hi[0])
            np.testing.assert_allclose(results, true, rtol=bound, atol=bound * 1e-12)


@pytest.mark.parametrize("isa", _ufuncs.available_isas())
@pytest.mark.parametrize("dtype", FEW)
def test_probabilities_that_are_alike(dtype, isa):
    """Entropy, and losses of distributions; the number and the scale of what is equal."""
    counts = [2, 33, 203, 256, 1341, 1654, 2272, 2293, 2303, 2424, 4043]
    for n, scale in [(n, s / n) for n in counts for s in (1, 0.3, 1000)]:
        p = np.full(n, scale, dtype)
        one = mpmath.mpf(float(p[0]))
        with on_isa(isa):
            entropy = klce.entropy(p)
            loss = klce.cross_entropy(p, p, form="probs")
        bound = 12 if n > FEW[dtype] else 5
        assert in_ulp(entropy, mpmath.log(n), dtype) <= bound, (n, scale)
        if scale < 1:
            assert in_ulp(loss, -n * one * mpmath.log(one), dtype) <= 10, (n, scale)


@pytest.mark.parametrize("isa", _ufuncs.available_isas())
@pytest.mark.parametrize("dtype", FEW)
def test_probability_of_a_target(dtype, isa):
    """Of a few classes, normal logits: an exponential, a sum and a product."""
    x = (np.random.default_rng(0).normal(size=(20000, 33)) * 1e-2).astype(dtype)
    true = truth.of_logits(x.astype(np.float64)).p[np.arange(len(x)), 0]
    with on_isa(isa):
        found = klce.score(x, np.zeros(len(x), int), want=["target_prob"]).target_prob
    bound = MEASURES["target_prob"][0][dtype == "float64"]
    assert ulp_error(found, true.hi, true.lo, dtype).max() <= bound


def test_an_error_beyond_a_bound_is_reported():
    """A contestant that is a few ULP off, as NumPy is, must not pass."""
    op = next(op for op in accuracy.OPS if op.name == "softmax")
    cells = accuracy.measure(quick=True, ops=(op,), names=("numpy",))
    as_klce = {(*key[:3], "klce"): cell for key, cell in cells.items()}
    assert accuracy.missed(as_klce)


def test_the_page_has_every_table():
    text = accuracy.PAGE.read_text()
    for op in accuracy.OPS:
        assert f"### {op.name}\n" in text
    for kind in (*accuracy.LOGITS, *accuracy.PAIRS):
        assert f"| {kind.name} | {kind.about} |" in text
    assert "Not installed" not in text
