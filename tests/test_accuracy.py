"""The rows of docs/accuracy.md within the bounds, and the truth that they are held against."""

from functools import lru_cache

import mpmath
import numpy as np
import pytest

import klce
from benchmarks import accuracy, truth
from klce import _ufuncs, reference
from tests.kernels import on_isa

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
