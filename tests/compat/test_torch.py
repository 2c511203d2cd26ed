"""The stand-ins for torch on NumPy arrays: its defaults, axes, dtypes and special values.

Tensors are tested beside torch itself, in tests/peers/.
"""

import math
import warnings

import ml_dtypes
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import klce
from klce.compat import torch as ours

INF, NAN = np.inf, np.nan
RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 5, 2, 3))
TARGET = RNG.integers(0, 5, size=(4, 2, 3))
SOFT = klce.softmax(RNG.normal(size=X.shape), axis=1)
WEIGHT = RNG.uniform(0.5, 2, size=5)
MAPS = ("softmax", "softmin", "log_softmax")


# --- maps and logsumexp ---------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_maps_are_klces(dim):
    assert_array_equal(ours.softmax(X, dim), klce.softmax(X, dim))
    assert_array_equal(ours.softmin(X, dim), klce.softmax(-X, dim))
    assert_array_equal(ours.log_softmax(X, dim=dim), klce.log_softmax(X, dim))


@pytest.mark.parametrize("name", MAPS)
def test_maps_leave_their_input(name):
    x = X.copy()
    getattr(ours, name)(x, 1)
    assert_array_equal(x, X)


@pytest.mark.parametrize("name", MAPS)
def test_dim_by_default(name):
    function = getattr(ours, name)
    for ndim, dim in [(1, 0), (2, 1), (3, 0), (4, 1)]:
        x = RNG.normal(size=(2, 3, 4, 5)[:ndim])
        with pytest.warns(UserWarning, match=f"Implicit dimension choice for {name}"):
            result = function(x)
        assert_array_equal(result, function(x, dim))


@pytest.mark.parametrize("name", MAPS)
def test_maps_of_scalars_and_of_nothing(name):
    function = getattr(ours, name)
    one = 0.0 if name == "log_softmax" else 1.0
    assert function(np.float64(3.0), 0) == function(np.float64(3.0), -1) == one
    assert function(np.zeros((2, 0)), 1).shape == (2, 0)


@pytest.mark.parametrize("name", MAPS)
def test_dtypes_of_maps(name):
    function = getattr(ours, name)
    integers = np.arange(4)
    with pytest.raises(RuntimeError, match="input must be of a floating dtype, got int64"):
        function(integers, 0)
    with pytest.raises(RuntimeError, match="input must be of a floating dtype, got float8_e5m2"):
        function(integers.astype(ml_dtypes.float8_e5m2), 0)
    for dtype in (np.float16, np.float32, np.float64, "float32"):
        assert function(integers, 0, dtype=dtype).dtype == np.dtype(dtype)
        assert function(integers.astype(dtype), 0).dtype == np.dtype(dtype)
    with pytest.raises(RuntimeError, match="dtype must be a floating one, got <class 'int'>"):
        function(integers, 0, dtype=int)
    with pytest.raises(IndexError, match="dim must be from -1 to 0"):
        function(integers.astype(float), 1)
    with pytest.raises(TypeError, match=r"dim must be an integer, got 0\.0"):
        function(integers.astype(float), 0.0)


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dim", [0, -1, (1,), (0, 2), [3, 1], ()])
def test_logsumexp(dim, keepdim):
    axis = tuple(dim) or None if not isinstance(dim, int) else dim
    expected = np.log(np.exp(X).sum(axis=axis, keepdims=keepdim))
    result = ours.logsumexp(X, dim, keepdim)
    assert_allclose(result, expected, rtol=1e-14)
    assert np.shape(result) == np.shape(expected)
    out = np.empty(np.shape(expected))
    assert ours.logsumexp(X, dim, keepdim, out=out) is out
    assert_array_equal(out, result)


def test_logsumexp_of_odd_inputs():
    assert ours.logsumexp(np.float32(2.0), 0) == 2
    assert ours.logsumexp(np.float32(2.0), 0, True).shape == ()
    assert ours.logsumexp(np.arange(3), 0).dtype == np.float32
    assert ours.logsumexp(np.ones(3, np.float16), 0).dtype == np.float16
    assert_array_equal(ours.logsumexp(np.zeros((2, 0)), 1), [-INF, -INF])
    assert_array_equal(ours.logsumexp(X, np.int64(0)), ours.logsumexp(X, 0))
    with pytest.raises(IndexError, match="dim must be from -4 to 3"):
        ours.logsumexp(X, 4)
    with pytest.raises(RuntimeError, match=r"dim must name each dimension once, got \(0, -4\)"):
        ours.logsumexp(X, (0, -4))
    with pytest.raises(TypeError, match="dim must be an integer, got None"):
        ours.logsumexp(X, None)


@pytest.mark.parametrize(
    ("out", "error", "match"),
    [
        (np.full((4, 2), 7), RuntimeError, "out must be of a floating dtype, got int64"),
        (np.full((3, 4, 2), 7.0), ValueError, r"out must have the shape \(4, 2\), got \(3, 4, 2\)"),
        ([7], TypeError, "out must be as input, an array or a tensor, got list"),
    ],
)
def test_an_out_that_does_not_hold_the_result(out, error, match):
    """Which was filled with truncated numbers, or with several copies."""
    with pytest.raises(error, match=match):
        ours.logsumexp(X, (1, 3), out=out)
    assert np.all(np.asarray(out) == 7)


# --- losses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_index_losses_are_klces(reduction, weight):
    options = {"weight": weight, "ignore_index": 2, "reduction": reduction}
    assert_array_equal(
        ours.nll_loss(X, TARGET, **options), klce.nll_loss(X, TARGET, axis=1, **options)
    )
    assert_array_equal(
        ours.cross_entropy(X, TARGET, **options, label_smoothing=0.1),
        klce.cross_entropy(X, TARGET, axis=1, **options, label_smoothing=0.1),
    )
    assert_array_equal(
        ours.cross_entropy(X, SOFT, weight, reduction=reduction),
        klce.cross_entropy(X, SOFT, axis=1, weight=weight, reduction=reduction),
    )


def test_one_row():
    x = X[0, :, 0, 0]
    assert ours.cross_entropy(x, np.int64(3)) == klce.cross_entropy(x, 3)
    assert ours.nll_loss(x, np.int64(3)) == -x[3]
    for function in (ours.cross_entropy, ours.nll_loss):
        for reduction in ("none", "mean", "sum"):
            loss = function(x, np.array([3]), reduction=reduction)
            assert (loss.shape, loss) == ((), function(x, np.int64(3)))
    assert ours.cross_entropy(x, SOFT[0, :, 0, 0]) == klce.cross_entropy(x, SOFT[0, :, 0, 0])


SIGNED = np.array([1.0, -2.0, 0.5, -0.25, 3.0])


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("soft", [False, True])
def test_negative_weights(soft, smoothing):
    log_p = np.log(klce.softmax(X, axis=1))
    indicator = SOFT if soft else np.moveaxis(np.eye(5)[TARGET], -1, 1)
    t = (1 - smoothing) * indicator + smoothing / 5
    rows = -(SIGNED[:, None, None] * t * log_p).sum(axis=1)
    total = rows.size if soft else SIGNED[TARGET].sum()

    def loss(reduction):
        target = SOFT if soft else TARGET
        return ours.cross_entropy(X, target, SIGNED, reduction=reduction, label_smoothing=smoothing)

    assert_allclose(loss("none"), rows, rtol=1e-12)
    assert_allclose(loss("sum"), rows.sum(), rtol=1e-12)
    assert_allclose(loss("mean"), rows.sum() / total, rtol=1e-12)


def test_negative_weights_of_what_is_ignored():
    x, target = X[:, :, 0, 0], np.array([0, 1, -1, 3])
    rows = -SIGNED[target] * x[np.arange(4), target] * (target >= 0)
    options = {"weight": SIGNED, "ignore_index": -1}
    assert_allclose(ours.nll_loss(x, target, **options, reduction="none"), rows)
    assert_allclose(ours.nll_loss(x, target, **options), rows.sum() / SIGNED[[0, 1, 3]].sum())
    assert math.isnan(ours.nll_loss(x, np.full(4, -1), **options))


def test_dtypes_of_losses():
    for dtype in (np.float16, np.float32, np.float64):
        x, p = X.astype(dtype), SOFT.astype(dtype)
        assert ours.nll_loss(x, TARGET).dtype == dtype
        assert ours.cross_entropy(x, TARGET, reduction="none").dtype == dtype
        assert ours.kl_div(x, p, reduction="batchmean").dtype == dtype
        assert ours.binary_cross_entropy(p, p).dtype == dtype
        assert ours.binary_cross_entropy_with_logits(x, p).dtype == dtype


def test_dtypes_of_losses_of_two_dtypes():
    """As torch's: that of both together, but of logits of binary outcomes the target's."""
    half, single, double = (SOFT.astype(dtype) for dtype in (np.float16, np.float32, np.float64))
    brain = SOFT.astype(ml_dtypes.bfloat16)
    for x, p, dtype in [
        (half, single, np.float32),
        (single, half, np.float32),
        (brain, half, np.float32),
        (single, double, np.float64),
        (double, half, np.float64),
    ]:
        assert ours.kl_div(x, p, reduction="sum").dtype == dtype
        assert ours.cross_entropy(x, p).dtype == dtype
        assert ours.cross_entropy(x, p, WEIGHT).dtype == np.float64
        assert ours.binary_cross_entropy_with_logits(x, p).dtype == p.dtype
    assert ours.kl_div(single, np.float64(0.5), reduction="none").dtype == np.float32
    # The digits are those of the dtype, too.
    x = X.astype(np.float32)
    assert ours.cross_entropy(x, double) == ours.cross_entropy(x.astype(np.float64), double)
    assert_array_equal(
        ours.binary_cross_entropy_with_logits(x, double),
        ours.binary_cross_entropy_with_logits(x.astype(np.float64), double),
    )


def test_a_sum_beyond_float16_is_infinite():
    x = np.full((3, 2), [0, 60000], np.float16)
    assert ours.cross_entropy(x, np.zeros(3, int), reduction="sum") == INF


@pytest.mark.parametrize(
    ("flags", "reduction"),
    [
        ({"size_average": True}, "mean"),
        ({"size_average": False}, "sum"),
        ({"reduce": True}, "mean"),
        ({"reduce": False}, "none"),
        ({"size_average": False, "reduce": True}, "sum"),
        ({"size_average": True, "reduce": False}, "none"),
    ],
)
def test_former_flags(flags, reduction):
    calls = {
        "nll_loss": (X, TARGET),
        "cross_entropy": (X, TARGET),
        "kl_div": (X, SOFT),
        "binary_cross_entropy": (SOFT, SOFT),
        "binary_cross_entropy_with_logits": (X, SOFT),
    }
    for name, arguments in calls.items():
        function = getattr(ours, name)
        with pytest.warns(UserWarning, match=f"please use reduction='{reduction}'"):
            result = function(*arguments, **flags, reduction="nonsense")
        with pytest.warns(UserWarning, match="please use") as told:
            function(*arguments, **flags)
        assert len(told) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # kl_div's, of "mean"
            assert_array_equal(result, function(*arguments, reduction=reduction))


def test_errors_of_losses():
    with pytest.raises(IndexError, match="got 7 in row 1"):
        ours.cross_entropy(X[:, :, 0, 0], np.array([0, 7, 0, 0]))
    with pytest.raises(RuntimeError, match="floating dtype where it has the shape of input"):
        ours.cross_entropy(X, np.zeros(X.shape, int))
    with pytest.raises(RuntimeError, match="ignore_index belongs to class indices, got 3"):
        ours.cross_entropy(X, SOFT, ignore_index=3)
    with pytest.raises(RuntimeError, match="input must be of a floating dtype, got int64"):
        ours.nll_loss(np.zeros((2, 3), int), np.zeros(2, int))
    with pytest.raises(RuntimeError, match="target must hold integers, class indices, got float64"):
        ours.nll_loss(X, X)
    with pytest.raises(TypeError, match="ignore_index must be an integer, got None"):
        ours.cross_entropy(X, SOFT, ignore_index=None)
    with pytest.raises(TypeError, match="label_smoothing must be a number, got 'a'"):
        ours.cross_entropy(X, TARGET, label_smoothing="a")
    with pytest.raises(RuntimeError, match=r"label_smoothing must be from 0 to 1, got 1\.5"):
        ours.cross_entropy(X, TARGET, label_smoothing=1.5)
    for name in ("nll_loss", "cross_entropy"):
        with pytest.raises(RuntimeError, match=r"target must hold integers, .* got float64"):
            getattr(ours, name)(X, TARGET.astype(float))
        with pytest.raises(RuntimeError, match=r"weight must have one number a class, \(5,\)"):
            getattr(ours, name)(X, TARGET, np.ones(4))
        # Of another batch a ValueError, of other dimensions beside it a RuntimeError.
        for wrong in (TARGET[:1], TARGET[0, 0, 0], TARGET[:, 0].T):
            with pytest.raises(ValueError, match="target must have the shape of the rows"):
                getattr(ours, name)(X, wrong)
        for wrong in (TARGET[:, 0], TARGET[:, :1], TARGET[..., np.newaxis]):
            with pytest.raises(RuntimeError, match=r"target must have the shape of input without"):
                getattr(ours, name)(X, wrong)
        with pytest.raises(ValueError, match="target must have the shape of the rows"):
            getattr(ours, name)(X[0, :, 0, 0], np.zeros(2, int))
        with pytest.raises(NotImplementedError, match="input must be of a floating dtype"):
            getattr(ours, name)(X.astype(int), TARGET)
        with pytest.raises(ValueError, match=r"reduction must be .* got 'middle'"):
            getattr(ours, name)(X, TARGET, reduction="middle")
    for name in ("kl_div", "binary_cross_entropy", "binary_cross_entropy_with_logits"):
        with pytest.raises(ValueError, match=r"reduction must be .* got 'middle'"):
            getattr(ours, name)(SOFT, SOFT, reduction="middle")


# --- kl_div ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("log_target", [False, True])
def test_kl_div(log_target):
    target = np.log(SOFT) if log_target else SOFT
    terms = SOFT * (np.log(SOFT) - X)

    def call(reduction):
        return ours.kl_div(X, target, reduction=reduction, log_target=log_target)

    assert_allclose(call("none"), terms, rtol=1e-12, atol=1e-14)
    assert_allclose(call("sum"), terms.sum(), rtol=1e-13)
    assert_allclose(call("batchmean"), terms.sum() / 4, rtol=1e-13)
    with pytest.warns(UserWarning, match="divides by the number of elements"):
        assert_allclose(call("mean"), terms.mean(), rtol=1e-13)


def test_kl_div_broadcasts():
    one = SOFT[:1]
    assert_allclose(
        ours.kl_div(X, one, reduction="sum"), (one * (np.log(one) - X)).sum(), rtol=1e-13
    )
    assert ours.kl_div(X, one, reduction="none").shape == X.shape
    assert ours.kl_div(np.float64(-1.0), np.float64(1.0), reduction="batchmean") == 1


def test_kl_div_of_shapes_that_do_not_broadcast():
    with pytest.raises(RuntimeError, match=r"target must .* with \(4, 5, 2, 3\), .* got \(2,\)"):
        ours.kl_div(X, np.ones(2), reduction="sum")


def test_kl_div_special_values():
    log_q = np.array([-1.0, -INF, -INF, -1.0, NAN])
    p = np.array([0.0, 0.5, 0.0, -1.0, 0.5])
    assert_array_equal(ours.kl_div(log_q, p, reduction="none"), [0.0, INF, NAN, NAN, NAN])
    assert ours.kl_div(log_q[:2], p[:2], reduction="sum") == INF
    assert np.isnan(ours.kl_div(log_q[:3], p[:3], reduction="sum"))
    assert np.isnan(ours.kl_div(log_q[:1], np.array([-INF]), reduction="sum", log_target=True))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kl_div_of_classes_masked_with_large_numbers(dtype):
    least = float(np.finfo(dtype).min)
    log_p = np.array([0.0, least, least, 0.0], dtype)
    log_q = np.array([-1.0, -2.0, least, least / 2], dtype)
    expected = np.array([1.0, 0.0, 0.0, -least / 2], dtype)

    def call(low, high, reduction):
        a, b = log_q[low:high], log_p[low:high]
        return ours.kl_div(a, b, reduction=reduction, log_target=True)

    assert_array_equal(call(0, 4, "none"), expected)
    for high in (2, 3, 4):
        assert call(1, high, "sum") == expected[1:high].sum()
        assert call(1, high, "batchmean") == expected[1:high].sum() / (high - 1)
    assert ours.kl_div(log_q[1], log_p[1], reduction="none", log_target=True) == 0


# --- binary cross-entropy -------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [None, np.array([0.5, 1.0, 2.0]), np.array([-1.0, 0.0, 2.0])])
def test_binary_losses(weight):
    y = RNG.uniform(size=X.shape)
    positive = np.array([1.0, 2.0, 0.5])
    w = 1.0 if weight is None else weight
    plain = -w * (y * np.log(SOFT) + (1 - y) * np.log1p(-SOFT))
    sigmoid = 1 / (1 + np.exp(-X))
    logits = -w * (positive * y * np.log(sigmoid) + (1 - y) * np.log1p(-sigmoid))
    for reduction, reduce in {"none": np.asarray, "sum": np.sum, "mean": np.mean}.items():
        result = ours.binary_cross_entropy(SOFT, y, weight, reduction=reduction)
        assert_allclose(result, reduce(plain), rtol=1e-12)
        result = ours.binary_cross_entropy_with_logits(
            X, y, weight, reduction=reduction, pos_weight=positive
        )
        assert_allclose(result, reduce(logits), rtol=1e-12)


@pytest.mark.parametrize("weight", [None, np.array([-1.0, 0.0, 2.0])])
def test_negative_weights_of_yes(weight):
    y = RNG.uniform(size=X.shape)
    positive = np.array([1.0, -2.0, -0.25])
    w = 1.0 if weight is None else weight
    sigmoid = 1 / (1 + np.exp(-X))
    terms = -w * (positive * y * np.log(sigmoid) + (1 - y) * np.log1p(-sigmoid))
    for reduction, reduce in {"none": np.asarray, "sum": np.sum, "mean": np.mean}.items():
        result = ours.binary_cross_entropy_with_logits(
            X, y, weight, reduction=reduction, pos_weight=positive
        )
        assert_allclose(result, reduce(terms), rtol=1e-12)
    x, y = np.array([-INF, -INF, INF]), np.array([0.0, 1.0, 1.0])
    result = ours.binary_cross_entropy_with_logits(
        x, y, pos_weight=np.array(-2.0), reduction="none"
    )
    assert_array_equal(result, [0.0, -INF, 0.0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logarithms_are_bounded(dtype):
    least = np.exp(dtype(-100))
    p = np.array([0, 0, 1, 1, 0, 0.5, least / 2], dtype)
    y = np.array([0, 1, 0, 1, 0.25, 1, 1], dtype)
    expected = np.array([0, 100, 100, 0, 25, math.log(2), 100])
    assert_allclose(ours.binary_cross_entropy(p, y, reduction="none"), expected, rtol=1e-6)
    assert_allclose(ours.binary_cross_entropy(p, y, reduction="sum"), expected.sum(), rtol=1e-6)
    assert_allclose(ours.binary_cross_entropy(p, y), expected.mean(), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
def test_logarithms_are_bounded_in_16_bits(dtype):
    """In which the least p whose logarithm counts is 0."""
    p = np.array([0, 0, 1, 1, 0, 0.5], dtype)
    y = np.array([0, 1, 0, 1, 0.25, 1], dtype)
    expected = np.array([0, 100, 100, 0, 25, math.log(2)]).astype(dtype)
    result = ours.binary_cross_entropy(p, y, reduction="none")
    assert result.dtype == dtype
    assert_array_equal(result, expected)
    assert ours.binary_cross_entropy(p[1:2], y[1:2]) == 100


def test_an_impossible_target_of_nothing():
    """Smoothed away, it has but its share of the smoothing; of weight 0 not even that."""
    x, y = np.array([[-INF, 1.0, 2.0]]), np.array([0])
    assert ours.cross_entropy(x, y, label_smoothing=1.0) == INF
    loss = ours.cross_entropy(x, y, np.array([0.0, 1.0, 1.0]), reduction="sum", label_smoothing=1.0)
    assert_allclose(loss, (math.log1p(math.e) + math.log1p(1 / math.e)) / 3)


def test_errors_of_binary_losses():
    for p in (1.5, -0.5, NAN):
        with pytest.raises(RuntimeError, match="should be between 0 and 1"):
            ours.binary_cross_entropy(np.array([0.5, p]), np.zeros(2))
        with pytest.raises(RuntimeError, match="all elements of target should be between 0 and 1"):
            ours.binary_cross_entropy(np.full(2, 0.5), np.array([0.5, p]))
    for function in (ours.binary_cross_entropy, ours.binary_cross_entropy_with_logits):
        with pytest.raises(ValueError, match=r"target must have the shape of input, \(2,\)"):
            function(np.full(2, 0.5), np.zeros(3))
        with pytest.raises(RuntimeError, match=r"weight must .* that broadcasts to \(2,\)"):
            function(np.full(2, 0.5), np.zeros(2), np.ones(3))
    with pytest.raises(RuntimeError, match=r"pos_weight must .* broadcasts to \(2,\)"):
        ours.binary_cross_entropy_with_logits(np.zeros(2), np.zeros(2), pos_weight=np.ones(3))


@pytest.mark.parametrize(
    "call",
    [
        lambda z: ours.logsumexp(z, 0),
        lambda z: ours.softmax(z, 0, dtype=np.float32),
        lambda z: ours.nll_loss(np.zeros((1, 2)), np.array([0]), z),
        lambda z: ours.binary_cross_entropy(np.full(2, 0.5), np.ones(2), z),
    ],
    ids=["logsumexp", "softmax", "nll_loss", "binary_cross_entropy"],
)
def test_complex_numbers_are_refused(call):
    with pytest.raises(TypeError, match=r"^(input|weight) must be .*, got complex128$"):
        call(np.array([1.0, -1.0 + 1.0j]))
