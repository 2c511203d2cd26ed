"""The stand-ins for SciPy: its defaults, shapes, dtypes and special values."""

import math
import warnings

import ml_dtypes
import mpmath
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import klce
from klce.compat import scipy as ours
from klce.reference import KERNELS
from tests.test_arrays import BFLOAT, Tensor
from tests.ulp import ulp_error

INF, NAN = np.inf, np.nan
RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3, 4))
P = np.exp(RNG.normal(size=(5, 7)))
Q = np.exp(RNG.normal(size=(5, 7)))


@pytest.fixture(autouse=True)
def _no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# --- logsumexp, softmax, log_softmax --------------------------------------------------------------


@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2), (2, 0), (0, 1, 2)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_logsumexp_axes(axis, keepdims):
    expected = np.log(np.exp(X).sum(axis=axis, keepdims=keepdims))
    result = ours.logsumexp(X, axis, keepdims=keepdims)
    assert_allclose(result, expected, rtol=1e-14)
    assert np.shape(result) == np.shape(expected)


def test_logsumexp_takes_scalars_and_nothing():
    assert ours.logsumexp(3.0) == 3.0
    assert ours.logsumexp([]) == -INF
    assert ours.logsumexp(np.zeros((2, 0)), axis=1).tolist() == [-INF, -INF]


def test_logsumexp_factors_and_signs():
    value, sign = ours.logsumexp([[1.0], [2.0]], b=[[1.0, 1.0], [-1.0, 1.0]], return_sign=True)
    assert (np.shape(value), sign) == ((), 1.0)
    assert_allclose(value, math.log(2 * math.e))
    value, sign = ours.logsumexp([1.0, 2.0], b=[1, -1], return_sign=True)
    assert_allclose(value, math.log(math.e**2 - math.e))
    assert sign == -1
    assert np.isnan(ours.logsumexp([1.0, 2.0], b=[1, -1]))
    assert ours.logsumexp([1.0, INF, NAN], b=[1, 0, 0]) == 1.0


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (np.float16, None, np.float16),
        (np.float32, None, np.float32),
        (np.int32, None, np.float64),
        (bool, None, np.float64),
        (np.float32, np.float32, np.float32),
        (np.float32, np.int64, np.float64),
        (np.float16, np.float32, np.float32),
    ],
)
def test_logsumexp_dtypes(a, b, expected):
    factors = None if b is None else np.ones(2, b)
    assert ours.logsumexp(np.ones(2, a), b=factors).dtype == expected
    value, sign = ours.logsumexp(np.ones(2, a), b=factors, return_sign=True)
    assert (value.dtype, sign.dtype) == (expected, expected)


def test_a_number_takes_the_dtype_beside_it():
    assert ours.logsumexp(np.ones(2, np.float32), b=2.0).dtype == np.float32
    assert ours.rel_entr(2, np.float32(3)).dtype == np.float32
    assert ours.rel_entr(2, 3).dtype == np.float64
    assert ours.xlogy(2, np.float32(3)).dtype == np.float64
    row = np.ones(2, np.float32)
    assert ours.entropy(row, 2.0).dtype == ours.entropy(2, row).dtype == np.float32
    assert ours.entropy(2, 2.0).dtype == np.float64


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("axis", [None, 0, 1, -1, (0, 2), (2, 1), (0, 1, 2)])
def test_maps_along_axes(name, axis):
    result = getattr(ours, name)(X, axis)
    total = np.exp(X).sum(axis=axis, keepdims=True)
    expected = np.exp(X) / total if name == "softmax" else X - np.log(total)
    assert result.shape == X.shape
    assert_allclose(result, expected, rtol=1e-13)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_maps_are_klces(name):
    assert_array_equal(getattr(ours, name)(X, 1), getattr(klce, name)(X, 1))
    assert getattr(ours, name)(2.0) == float(name == "softmax")
    for dtype in (np.float16, np.float32):
        assert getattr(ours, name)(X.astype(dtype), 0).dtype == dtype


def test_log_softmax_beside_infinity():
    rows = [[INF, 1.0, -INF], [INF, NAN, 1.0], [-INF, -INF, -INF], [0.0, -INF, -INF]]
    expected = [[NAN, -INF, -INF], [NAN] * 3, [NAN] * 3, [0.0, -INF, -INF]]
    assert_array_equal(ours.log_softmax(rows, axis=1), expected)
    assert_array_equal(ours.log_softmax(np.transpose(rows), axis=0), np.transpose(expected))
    assert_array_equal(ours.log_softmax(rows[0]), expected[0])


def test_softmax_of_nothing():
    with pytest.raises(ValueError, match="at least one class"):
        ours.softmax([])


# --- elementwise ----------------------------------------------------------------------------------

VALUES = [-INF, -1.0, -0.0, 0.0, 0.25, 1.0, 3.0, INF, NAN]


def by_definition(name, x, y):
    if math.isnan(x) or math.isnan(y):
        return NAN
    if name == "xlogy":
        if x == 0:
            return 0.0
        log = NAN if y < 0 else -INF if y == 0 else math.log(y)
        return NAN if math.isinf(x) and log == 0 else x * log
    if name == "kl_div" and x == 0 and y >= 0:
        return y
    if x == 0 and y >= 0:
        return 0.0
    if x <= 0 or y <= 0:
        return INF
    if name == "kl_div" and (math.isinf(x) or math.isinf(y)):
        return NAN
    if math.isinf(x) or math.isinf(y):
        return NAN if math.isinf(x) and math.isinf(y) else (INF if math.isinf(x) else -INF)
    term = x * math.log(x / y)
    return term - x + y if name == "kl_div" else term


@pytest.mark.parametrize("name", ["xlogy", "kl_div"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pairs(name, dtype):
    x, y = np.meshgrid(np.array(VALUES, dtype), np.array(VALUES, dtype))
    expected = np.vectorize(lambda a, b: by_definition(name, a, b))(x, y)
    result = getattr(ours, name)(x, y)
    assert result.dtype == dtype
    assert_allclose(result, expected, rtol=4 * np.finfo(dtype).eps, atol=np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rel_entr(dtype):
    x, y = np.meshgrid(np.array([-1, 0, 0.25, 1, 3], dtype), np.array([-1, 0, 0.5, 3], dtype))
    expected = np.vectorize(lambda a, b: by_definition("rel_entr", a, b))(x, y)
    assert_allclose(ours.rel_entr(x, y), expected, rtol=4 * np.finfo(dtype).eps)


def test_entr():
    expected = [-INF, -INF, 0.0, 0.0, math.log(4) / 4, 0.0, -3 * math.log(3), -INF, NAN]
    assert_allclose(ours.entr(VALUES), expected, rtol=1e-15)
    assert ours.entr(0.5) == pytest.approx(math.log(2) / 2, rel=1e-15)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (np.float16, np.float32),
        (np.int8, np.float32),
        (bool, np.float32),
        (np.float32, np.float32),
        (np.int32, np.float64),
        (np.float64, np.float64),
    ],
)
def test_elementwise_dtypes(given, expected):
    x = np.ones(3, given)
    assert ours.entr(x).dtype == expected
    for name in ("rel_entr", "kl_div"):
        assert getattr(ours, name)(x, x).dtype == expected
    assert ours.xlogy(x, x).dtype == (np.float32 if given == np.float32 else np.float64)


def test_what_only_klce_has_is_float32():
    """bfloat16 and float8, of other libraries too."""
    x, short = P.astype(ml_dtypes.bfloat16), P.astype(ml_dtypes.float8_e5m2)
    for given, numbers in ((x, x), (Tensor(x.view(np.int16), BFLOAT), x), (short, short)):
        wide = numbers.astype(np.float32)
        for name in ("entr", "logsumexp", "entropy"):
            result = getattr(ours, name)(given)
            assert result.dtype == np.float32
            assert_array_equal(result, getattr(ours, name)(wide))
        for name in ("rel_entr", "kl_div", "entropy", "jensenshannon"):
            assert getattr(ours, name)(given, wide).dtype == np.float32
        assert ours.xlogy(given, wide).dtype == np.float64
    with pytest.raises(TypeError, match=r"^y must be float16, .*, got int4$"):
        ours.rel_entr(wide, np.ones(7, ml_dtypes.int4))
    with pytest.raises(TypeError, match=r"^a must be float16, .*, got object$"):
        ours.logsumexp(10**400)


def test_byte_order_is_no_dtype():
    x, swapped = np.ones(3, np.float32), np.ones(3, ">f4")
    for name in ("xlogy", "rel_entr", "kl_div"):
        assert getattr(ours, name)(x, swapped).dtype == np.float32


def test_out_and_where():
    x, y = np.array([1.0, 2.0, 3.0]), np.array([[1.0], [2.0]])
    for name in ("xlogy", "rel_entr", "kl_div"):
        function = getattr(ours, name)
        full = function(x, y)
        assert full.shape == (2, 3)
        out = np.full((2, 3), 7.0)
        assert function(x, y, out=out, where=x < 3) is out
        assert_array_equal(out, np.where(x < 3, full, 7.0))
        assert function(x, y, out) is out
        assert_array_equal(out, full)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kl_div_keeps_its_digits(dtype):
    """Also where x and y are near, or next to each other; and it is never negative."""
    x = np.exp(RNG.uniform(-20, 20, size=20_000)).astype(dtype)
    ratio = np.exp(RNG.normal(size=x.size) * np.geomspace(np.finfo(dtype).eps, 5, x.size))
    y = (x * ratio).astype(dtype)
    y[::100] = np.nextafter(x[::100], dtype(0))
    result = ours.kl_div(x, y)
    assert (result >= 0).all()
    assert (result[::100] > 0).all()
    with mpmath.workdps(60):
        for a, b, found in zip(x[::7].tolist(), y[::7].tolist(), result[::7], strict=True):
            a, b = mpmath.mpf(a), mpmath.mpf(b)
            assert ulp_error(found, float(a * mpmath.log(a / b) - a + b), 0, dtype) <= 6
    assert_array_equal(ours.kl_div(x, x), np.zeros(x.size))


# --- entropy and jensenshannon --------------------------------------------------------------------


def test_entropy_is_klces():
    assert_array_equal(ours.entropy(P.T), klce.entropy(P))
    assert_array_equal(ours.entropy(P, axis=1, base=2), klce.entropy(P, base=2))
    assert_array_equal(ours.entropy(P, Q, axis=-1), klce.kl_divergence(P, Q))
    assert_array_equal(ours.entropy(P, Q), klce.kl_divergence(P, Q, axis=0))
    assert_allclose(ours.jensenshannon(P, Q, axis=1) ** 2, klce.js_divergence(P, Q), rtol=1e-15)


@pytest.mark.parametrize(
    ("pk", "expected"),
    [
        ([0.0, 0.0], NAN),
        ([], 0.0),
        ([1.0, -1.0, 2.0], -INF),
        ([-1.0, -1.0], math.log(2)),
        ([1.0, -1.0], -INF),
        ([INF, 1.0], NAN),
        ([NAN, 1.0], NAN),
        ([3], 0.0),
        (5.0, 0.0),
    ],
)
def test_entropy_special_values(pk, expected):
    assert_allclose(ours.entropy(pk), expected, rtol=1e-15)
    if np.ndim(pk) and len(pk):
        both = np.stack([pk, np.ones(len(pk))])
        assert_allclose(ours.entropy(both, axis=1)[0], expected, rtol=1e-15)
        assert ours.entropy(both, axis=1)[1] == pytest.approx(math.log(len(pk)))


@pytest.mark.parametrize(
    ("pk", "qk", "expected"),
    [
        ([0.5, 0.5], [1.0, 0.0], INF),
        ([1.0, 0.0], [0.5, 0.5], math.log(2)),
        ([1.0, -1.0, 2.0], [1.0, 1.0, 1.0], INF),
        ([0.0, 0.0], [1.0, 1.0], NAN),
        ([], [], 0.0),
    ],
)
def test_divergence_special_values(pk, qk, expected):
    assert_allclose(ours.entropy(pk, qk), expected, rtol=1e-15)


def test_divergence_broadcasts_the_classes_too():
    assert ours.entropy(P, np.ones((5, 1)), axis=1).shape == (5,)
    assert_allclose(
        ours.entropy(P, np.ones((5, 1)), axis=1), math.log(7) - klce.entropy(P), rtol=1e-13
    )
    with pytest.raises(ValueError, match="Array shapes are incompatible for broadcasting"):
        ours.entropy(P, Q[:3])


def test_nan_policy():
    p = P.copy()
    p[1, 2] = p[3, :] = NAN
    kept = np.delete(p[1], 2)
    result = ours.entropy(p, axis=1)
    assert np.isnan(result).tolist() == [False, True, False, True, False]
    result = ours.entropy(p, axis=1, nan_policy="omit")
    assert_allclose(result[1], klce.entropy(kept), rtol=1e-15)
    assert result[3] == 0
    result = ours.entropy(p, Q, axis=1, nan_policy="omit", keepdims=True)
    assert result.shape == (5, 1)
    assert_allclose(result[1, 0], klce.kl_divergence(kept, np.delete(Q[1], 2)), rtol=1e-13)
    with pytest.raises(ValueError, match="The input contains nan values"):
        ours.entropy(p, nan_policy="raise")
    with pytest.raises(ValueError, match="nan_policy must be one of"):
        ours.entropy(p, nan_policy="none")


def test_masked_elements_do_not_count():
    mask = np.zeros(P.shape, bool)
    mask[1, 2] = mask[2, :] = True
    result = ours.entropy(np.ma.array(P, mask=mask), axis=1)
    assert type(result) is np.ndarray
    assert_allclose(result[1], klce.entropy(np.delete(P[1], 2)), rtol=1e-15)
    assert result[2] == 0
    assert result[0] == klce.entropy(P[0])


@pytest.mark.parametrize("axis", [None, 0, 1, (0, 1), (1, 0)])
@pytest.mark.parametrize("name", ["entropy", "divergence", "jensenshannon"])
def test_keepdims(name, axis):
    def call(keepdims):
        if name == "jensenshannon":
            return ours.jensenshannon(P, Q, axis=axis, keepdims=keepdims)
        return ours.entropy(P, Q if name == "divergence" else None, axis=axis, keepdims=keepdims)

    kept = call(True)
    assert kept.shape == P.sum(axis=axis, keepdims=True).shape
    assert_array_equal(np.squeeze(kept), call(False))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.int32])
def test_dtypes_of_measures(dtype):
    p = np.ceil(P).astype(dtype)
    expected = np.float32 if dtype in (np.float16, np.float32) else np.float64
    for base in (None, 2):
        assert ours.entropy(p, base=base).dtype == expected
        assert ours.entropy(p, p, base=base).dtype == expected
        assert ours.jensenshannon(p, p, base).dtype == expected
    assert ours.entropy(-p, base=2).dtype == expected
    half = P.astype(np.float16)
    assert ours.entropy(half, p).dtype == (np.float32 if dtype == np.int8 else expected)
    assert ours.jensenshannon(half, p).dtype == expected


def test_measures_of_float16_are_those_of_its_numbers():
    p, q = P.astype(np.float16), Q.astype(np.float16)
    wide = p.astype(float), q.astype(float)
    assert_allclose(ours.entropy(p), ours.entropy(wide[0]), rtol=1e-6)
    assert_allclose(ours.entropy(p, q), ours.entropy(*wide), rtol=1e-5)
    assert_allclose(ours.jensenshannon(p, q), ours.jensenshannon(*wide), rtol=1e-5)


def test_base():
    assert ours.entropy([1, 1], base=2) == 1.0
    assert ours.jensenshannon([1.0, 0.0], [0.0, 1.0], 2) == 1.0
    for function in (ours.entropy, ours.jensenshannon):
        with pytest.raises(ValueError, match="`base` must be a positive number"):
            function([1, 1], [1, 1], base=0)
        with pytest.raises(ValueError, match=r"`base` must be a positive number .* Got -2"):
            function([1, 1], [1, 1], base=-2)
        with pytest.raises(TypeError, match="base must be a number or None, got '2'"):
            function([1, 1], [1, 1], base="2")


def test_jensenshannon_against_the_definition():
    p, q = P / P.sum(axis=1, keepdims=True), Q / Q.sum(axis=1, keepdims=True)
    middle = (p + q) / 2
    expected = (KERNELS["kl_probs"](p, middle) + KERNELS["kl_probs"](q, middle)) / 2
    assert_allclose(ours.jensenshannon(P, 3 * Q, axis=1), np.sqrt(expected), rtol=1e-13)
    assert ours.jensenshannon([1.0, -1.0, 1.0], [1.0, 1.0, 1.0]) == INF
    assert np.isnan(ours.jensenshannon([0.0, 0.0], [1.0, 1.0]))


@pytest.mark.parametrize("axis", [None, 0, 1, (0, 1)])
def test_jensenshannon_normalises_before_it_broadcasts(axis):
    for q in (Q[:1], Q[:, :1], Q[:1, :1]):
        quotients = [x / x.sum(axis=axis, keepdims=True) for x in (P, q)]
        middle = sum(quotients) / 2
        terms = sum(klce.rel_entr(x, middle) for x in quotients) / 2
        for keepdims in (False, True):
            result = ours.jensenshannon(P, q, 2, axis=axis, keepdims=keepdims)
            expected = np.sqrt(terms.sum(axis=axis, keepdims=keepdims) / np.log(2))
            assert_allclose(result, expected, rtol=1e-13)
    with pytest.raises(ValueError, match="axis 1 is out of bounds"):
        ours.jensenshannon(P, Q[0], axis=1)
    with pytest.raises(ValueError, match=r"p and q must have shapes that broadcast, got"):
        ours.jensenshannon(P, np.ones(P.shape[1] + 1), axis=-1)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda z: ours.logsumexp(z),
        lambda z: ours.logsumexp([1.0], b=z),
        lambda z: ours.softmax(z),
        lambda z: ours.log_softmax(z),
        lambda z: ours.entr(z),
        lambda z: ours.xlogy(1.0, z),
        lambda z: ours.rel_entr(z, 1.0),
        lambda z: ours.kl_div(1.0, z),
        lambda z: ours.entropy(z),
        lambda z: ours.jensenshannon(z, [1.0]),
    ],
)
def test_complex_numbers_are_refused(call):
    with pytest.raises(TypeError, match=r"must be .*, got complex128"):
        call(np.array([1.0 + 1.0j]))


@pytest.mark.parametrize(("name", "value"), [("softmax", 1), ("log_softmax", 0)])
def test_axes_of_a_scalar(name, value):
    function = getattr(ours, name)
    for axis in (1, -2, (0,), (0, 1)):
        with pytest.raises(np.exceptions.AxisError, match="out of bounds for array of dimension 0"):
            function(2.5, axis=axis)
    for axis in (None, 0, -1, ()):
        assert function(2.5, axis=axis) == value
