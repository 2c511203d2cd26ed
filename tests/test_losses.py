"""Every combination of the losses' options against the specification, and what they promise."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import klce
from klce import reference
from tests.kernels import same_bits
from tests.ulp import ulp_error

FLOATS = [np.dtype(np.float32), np.dtype(np.float64)]
INTEGERS = [np.dtype(c) for c in "bBhHiIqQ"]
DTYPE = pytest.mark.parametrize("dtype", FLOATS, ids=str)
REDUCTIONS = ("none", "mean", "sum")


def rows_of(form, shape, axis, dtype, rng):
    """Random predictions in a form, the classes along an axis."""
    x = 4 * rng.normal(size=shape)
    if form != "logits":
        x = reference.log_softmax(x, axis)
    return (np.exp(x) if form == "probs" else x).astype(dtype)


def close(actual, expected, dtype, ulp=6):
    """Within a few ULP: the bounds proper are those of the kernels; units and means come on top."""
    assert np.shape(actual) == np.shape(expected)
    assert np.asarray(actual).dtype == dtype
    error = ulp_error(actual, expected, 0, dtype)
    assert error.max(initial=0) <= ulp, (error.max(), actual, expected)


# --- cross_entropy and nll_loss -------------------------------------------------------------------


@st.composite
def calls(draw):
    """Predictions, a target and options of cross_entropy, each of them given or not."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = tuple(draw(st.lists(st.integers(1, 7), min_size=1, max_size=4)))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    form = draw(st.sampled_from(["logits", "log_probs", "probs"]))
    dtype = draw(st.sampled_from(FLOATS))
    q = rows_of(form, shape, axis, dtype, rng)
    rows, classes = np.delete(shape, axis).tolist(), shape[axis]
    options = {"axis": axis, "form": form, "reduction": draw(st.sampled_from(REDUCTIONS))}

    def maybe(name, value):
        if draw(st.booleans()):
            options[name] = value

    if draw(st.booleans()):
        other = draw(st.sampled_from(FLOATS))
        target = rows_of("probs", shape, axis, other, rng)
        if draw(st.booleans()):
            target = np.where(rng.random(shape) < 0.3, 0, target).astype(other)
    else:
        target = rng.integers(0, classes, size=rows).astype(draw(st.sampled_from(INTEGERS)))
        if draw(st.booleans()):
            options["ignore_index"] = 0
    maybe("weight", rng.integers(0, 5, size=classes) / 4)
    weights = rng.integers(0, 4, size=[draw(st.sampled_from([1, n])) for n in rows]) / 2
    maybe("sample_weight", weights)
    maybe("label_smoothing", draw(st.sampled_from([0.1, 0.5, 1.0])))
    maybe("base", draw(st.sampled_from([2, 10])))
    if form == "logits":
        maybe("z_loss", 0.25)
        maybe("temperature", 0.7)
    if draw(st.booleans()):
        q = np.asfortranarray(q)
    return q, target, options


def test_a_mean_over_no_weight_is_nan():
    """Also where smoothing leaves a loss to divide: torch's 0/0 is in it as well."""
    options = {"weight": np.array([1.0, 0.0]), "label_smoothing": 0.1}
    for f in (klce.cross_entropy, reference.cross_entropy):
        assert f(np.array([[1.0, 0.0]]), np.array([1]), reduction="sum", **options) > 0
        assert np.isnan(f(np.array([[1.0, 0.0]]), np.array([1]), **options))


@given(calls())
def test_every_combination(call):
    q, target, options = call
    expected = reference.cross_entropy(q, in_dtype_of(q, target), **in_dtype(q, options))
    # The squared logsumexp is as good as the logsumexp: in ULP of the maximum.
    size = float(np.abs(q).max()) ** 2 if "z_loss" in options else 0
    result = klce.cross_entropy(q, target, **options)
    assert np.shape(result) == np.shape(expected)
    assert result.dtype == q.dtype
    if options["reduction"] == "sum":
        size *= 100
    error = ulp_error(result, expected, 0, q.dtype, np.full(np.shape(expected), 2 * size))
    assert error.max(initial=0) <= 6, (error.max(), result, expected)
    if options["reduction"] == "none":
        out = np.full(np.shape(expected), 9, q.dtype)
        assert klce.cross_entropy(q, target, **options, out=out) is out
        assert same_bits(out, np.asarray(result))


def in_dtype_of(q, target):
    """The target as klce takes it: a distribution in the dtype of q."""
    return target.astype(q.dtype) if target.dtype.kind == "f" else target


def in_dtype(q, options):
    """The options as klce takes them: weights in the dtype of q."""
    weights = ("weight", "sample_weight")
    return {k: v.astype(q.dtype) if k in weights else v for k, v in options.items()}


@DTYPE
def test_nll_loss_is_cross_entropy_of_log_probs(dtype):
    rng = np.random.default_rng(1)
    x = rows_of("log_probs", (40, 7), -1, dtype, rng)
    y = rng.integers(0, 7, size=40)
    for given_options in itertools.product(
        ({}, {"weight": rng.random(7)}), ({}, {"sample_weight": rng.random(40)}), REDUCTIONS
    ):
        options = {**given_options[0], **given_options[1], "reduction": given_options[2]}
        a, b = klce.nll_loss(x, y, **options), klce.cross_entropy(x, y, form="log_probs", **options)
        assert same_bits(np.asarray(a), np.asarray(b))


@DTYPE
@pytest.mark.parametrize("form", ["logits", "log_probs", "probs"])
def test_an_index_is_the_distribution_that_is_1_there(form, dtype):
    rng = np.random.default_rng(2)
    q = rows_of(form, (50, 9), -1, dtype, rng)
    y = rng.integers(0, 9, size=50)
    one_hot = np.eye(9, dtype=dtype)[y]
    for smoothing in (0.0, 0.2, 1.0):
        options = {"form": form, "label_smoothing": smoothing, "reduction": "none"}
        options["weight"] = rng.random(9)
        a = klce.cross_entropy(q, y, **options)
        close(klce.cross_entropy(q, one_hot, **options), a.astype(np.float64), dtype, 4)
        # Smoothing by hand. The sum of a distribution is its own only as far as that is rounded.
        by_hand = (1 - smoothing) * one_hot.astype(np.float64) + smoothing / 9
        options["label_smoothing"] = 0.0
        close(klce.cross_entropy(q, by_hand, **options), a.astype(np.float64), dtype, 6)


@DTYPE
def test_the_mean_divides_by_the_weights_that_counted(dtype):
    """torch's denominators: the targets' weights for indices, the rows for distributions."""
    q = np.log(np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.125, 0.125, 0.75]], dtype))
    y = np.array([0, 1, -100])
    weight, row = np.array([1.0, 3.0, 5.0]), np.array([2.0, 0.5, 7.0])
    losses = math.log(2) * np.array([1.0, 1.0])
    mean = klce.cross_entropy(q, y, weight=weight, sample_weight=row)
    expected = (losses * weight[:2] * row[:2]).sum() / (weight[:2] * row[:2]).sum()
    assert mean == pytest.approx(expected, rel=1e-6)
    soft = np.eye(3)[[0, 1, 0]]
    total = klce.cross_entropy(q, soft, weight=weight, sample_weight=row, reduction="sum")
    mean = klce.cross_entropy(q, soft, weight=weight, sample_weight=row)
    assert mean == pytest.approx(total / row.sum(), rel=1e-6)
    assert klce.cross_entropy(q, soft, weight=weight) == pytest.approx(
        klce.cross_entropy(q, soft, weight=weight, reduction="sum") / 3, rel=1e-6
    )
    for nothing in ({"sample_weight": np.zeros(3)}, {"weight": [0, 0, 1]}):
        assert np.isnan(klce.cross_entropy(q, y, **nothing))
        assert klce.cross_entropy(q, y, **nothing, reduction="sum") == 0


@DTYPE
@pytest.mark.parametrize("n", [2, 40, 3000, 40_000])
def test_confident_rows_keep_their_digits(dtype, n):
    x = np.full((3, n), -1000, dtype)
    x[:, 0], x[:, 1] = 0, [-20, -40, -80]
    truth = np.log1p(np.exp(np.array([-20.0, -40.0, -80.0])))
    soft = np.zeros((3, n), dtype)
    soft[:, 0] = 1
    for options in ({"sample_weight": 2.0}, {"weight": np.full(n, 2.0)}):
        for target in (np.zeros(3, int), soft):
            loss = klce.cross_entropy(x, target, reduction="none", **options)
            close(loss, 2 * truth, dtype, 4)


@DTYPE
@pytest.mark.parametrize("n", [3, 40, 3000, 20_000])
def test_what_a_coefficient_of_0_takes_out(dtype, n):
    """An impossible class that nobody asks for costs nothing; a nan does."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(4, n)).astype(dtype)
    masked = x.copy()
    masked[:, 1] = -np.inf
    soft = rng.random((4, n)).astype(dtype)
    soft[:, 1] = 0
    weight = np.ones(n)
    weight[1] = 0
    for options in ({}, {"weight": weight, "label_smoothing": 0.1}):
        loss = klce.cross_entropy(masked, soft, **options, reduction="none")
        expected = reference.cross_entropy(masked, soft, **in_dtype(x, options), reduction="none")
        assert np.isfinite(expected).all()
        close(loss, expected, dtype)
        assert np.isinf(
            klce.cross_entropy(masked, soft, label_smoothing=0.1, reduction="none")
        ).all()
    for form in ("logits", "log_probs", "probs"):
        q = np.abs(x)
        q[2, 1] = np.nan
        loss = klce.cross_entropy(q, soft, form=form, reduction="none")
        assert np.isnan(loss).tolist() == [False, False, True, False]


@DTYPE
@pytest.mark.parametrize("form", ["logits", "log_probs", "probs"])
@pytest.mark.parametrize("value", [-1, -np.inf, np.inf, np.nan, -1e-45])
def test_a_target_that_is_no_distribution(form, value, dtype):
    for n, place in itertools.product((3, 40, 3000, 20_000), (0, -1)):
        q, soft = np.full((3, n), 0.5, dtype), np.full((3, n), 0.25, dtype)
        soft[1, place] = value
        expected = [False, soft[1, place] != 0, False]  # float32's -1e-45 is not 0
        for options in ({}, {"label_smoothing": 0.5}):
            loss = klce.cross_entropy(q, soft, form=form, reduction="none", **options)
            assert np.isnan(loss).tolist() == expected
    assert klce.cross_entropy(q[0], np.zeros_like(q[0]), form=form) == 0


@DTYPE
def test_a_row_of_weight_0_is_ignored(dtype):
    q = np.array([[np.nan, 1], [0, 1], [-np.inf, 0]], dtype)
    row = [0, 2, 0]
    for target in ([0, 0, 0], np.full((3, 2), 0.5)):
        for form in ("logits", "log_probs", "probs"):
            losses = klce.cross_entropy(q, target, form=form, sample_weight=row, reduction="none")
            assert (losses[[0, 2]] == 0).all()
            mean = klce.cross_entropy(q, target, form=form, sample_weight=row)
            assert same_bits(np.asarray(mean), np.asarray(losses[1] / 2))


def test_weights_broadcast_to_the_rows():
    rng = np.random.default_rng(4)
    q, y = rng.normal(size=(2, 5, 3, 4)), rng.integers(0, 5, size=(2, 3, 4))
    for shape in ((), (1,), (4,), (3, 1), (2, 1, 4), (2, 3, 4)):
        row = rng.random(shape)
        whole = np.broadcast_to(row, y.shape).copy()
        for reduction in REDUCTIONS:
            options = {"axis": 1, "reduction": reduction}
            a = klce.cross_entropy(q, y, sample_weight=row, **options)
            assert same_bits(a, klce.cross_entropy(q, y, sample_weight=whole, **options))


@DTYPE
def test_layouts_change_no_bit(dtype):
    """A target of either dtype, in any order of axes, in one piece or in blocks."""
    rng = np.random.default_rng(5)
    for shape, axis in (((7, 300, 5), 1), ((300, 40), 0), ((3, 20_000), -1), ((4, 700_000), 1)):
        q = rng.normal(size=shape).astype(dtype)
        target = rows_of("probs", shape, axis, dtype, rng)
        options = {"axis": axis, "reduction": "none", "label_smoothing": 0.1, "z_loss": 0.1}
        options["weight"] = rng.random(shape[axis])
        expected = klce.cross_entropy(q, target, **options)
        for change in (
            np.asfortranarray,
            lambda x: x.astype(np.float64),
            lambda x: np.asfortranarray(x.astype(np.float64)),
            lambda x: x.astype(x.dtype.newbyteorder()),
            lambda x: np.repeat(x, 2, axis=0)[::2],
            lambda x: x[::-1].copy()[::-1],
        ):
            assert same_bits(klce.cross_entropy(q, change(target), **options), expected)
        assert same_bits(klce.cross_entropy(np.asfortranarray(q), target, **options), expected)


@DTYPE
def test_threads_change_no_bit(dtype):
    rng = np.random.default_rng(6)
    q = rng.normal(size=(5_003, 30)).astype(dtype)
    y, soft = rng.integers(0, 30, size=len(q)), rng.random(q.shape)
    options = {"weight": rng.random(30), "sample_weight": rng.random(len(q))}
    options["label_smoothing"] = 0.1
    for target, reduction in itertools.product((y, soft), ("mean", "sum")):
        results = set()
        for n in (1, 2, 5):
            with klce.threads(n):
                results.add(klce.cross_entropy(q, target, **options, reduction=reduction).tobytes())
        assert len(results) == 1


@pytest.mark.parametrize("other", [np.float32, np.float64])
@pytest.mark.parametrize("soft", [False, True])
def test_memory_does_not_grow_with_the_rows(soft, other):
    """Every option on: beside operands and results, blocks of a fixed size at most."""
    classes, peaks = 4000, []
    rng = np.random.default_rng(7)
    for count in (250, 1000):
        q = rng.random((count, classes), np.float32)
        target = rng.random((count, classes)).astype(other) if soft else np.zeros(count, np.int32)
        options = {
            "weight": np.ones(classes),
            "label_smoothing": 0.1,
            "z_loss": 1e-4,
            "temperature": 0.7,
            "sample_weight": np.ones(count),
            "base": 2,
        }
        tracemalloc.start()
        klce.cross_entropy(q, target, **options)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    by_row = 64 * (1000 - 250)  # labels, weights and losses
    assert peaks[1] < peaks[0] + by_row, peaks
    assert max(peaks) < 6e6, peaks


def test_wrong_arguments():
    q, y = np.zeros((2, 3)), [0, 1]
    soft = np.full((2, 3), 1 / 3)
    for call, error, message in (
        (
            lambda: klce.cross_entropy(q, y, weight=[1, 2]),
            ValueError,
            r"^weight .* \(3,\), got \(2,",
        ),
        (lambda: klce.cross_entropy(q, y, weight=2.0), ValueError, r"^weight must have one number"),
        (
            lambda: klce.cross_entropy(q, y, weight=[1, -2, 3]),
            ValueError,
            r"^weight must be finite and not negative, got -2 at 1$",
        ),
        (
            lambda: klce.nll_loss(q, y, sample_weight=[1, np.nan]),
            ValueError,
            r"^sample_weight must be finite and not negative, got nan at 1$",
        ),
        (
            lambda: klce.nll_loss(q, y, sample_weight=np.inf),
            ValueError,
            r"^sample_weight must be finite and not negative, got inf$",
        ),
        (
            lambda: klce.nll_loss(q.astype(np.float32), y, weight=[1, 1e39, 1]),
            ValueError,
            r"^weight must be finite in float32 and not negative, got 1e\+39 at 1$",
        ),
        (
            lambda: klce.cross_entropy(q, y, sample_weight=[1, 2, 3]),
            ValueError,
            r"^sample_weight must broadcast to the shape of the rows, \(2,\), got \(3,\)$",
        ),
        (
            lambda: klce.cross_entropy(q, y, sample_weight=np.ones((2, 2))),
            ValueError,
            r"^sample_weight must broadcast",
        ),
        (lambda: klce.cross_entropy(q, y, weight="heavy"), TypeError, r"^weight must be float16"),
        (
            lambda: klce.cross_entropy(q, y, label_smoothing=1.5),
            ValueError,
            r"^label_smoothing must be from 0 to 1, got 1.5$",
        ),
        (
            lambda: klce.cross_entropy(q, y, label_smoothing=-0.1),
            ValueError,
            r"^label_smoothing must be from 0 to 1, got -0.1$",
        ),
        (
            lambda: klce.cross_entropy(q, y, label_smoothing="much"),
            TypeError,
            r"^label_smoothing must be a number, got 'much'$",
        ),
        (
            lambda: klce.cross_entropy(q, soft[:, :2]),
            ValueError,
            r"^target must have the shape of q, \(2, 3\), if it holds probabilities, got \(2, 2\)$",
        ),
        (
            lambda: klce.cross_entropy(q, soft, ignore_index=-1),
            ValueError,
            r"^ignore_index belongs to class indices, got -1 with a target of probabilities$",
        ),
        (
            lambda: klce.cross_entropy(q, soft > 0),
            TypeError,
            r"^target must be of a floating dtype where it has the shape of q, \(2, 3\), as a "
            r"distribution, got bool$",
        ),
        (
            lambda: klce.cross_entropy(q, np.eye(3, dtype=int)[y]),
            TypeError,
            r"^target must be of a floating dtype where .* as a distribution, got int64$",
        ),
        (
            lambda: klce.nll_loss(q, np.eye(3, dtype=int)[y]),
            ValueError,
            r"^target must have the shape of the rows, \(2,\), one label a row, got \(2, 3\)$",
        ),
        (
            lambda: klce.nll_loss(q, soft),
            TypeError,
            r"^target must hold integers, class indices, got float64$",
        ),
    ):
        with pytest.raises(error, match=message):
            call()


def test_weights_that_float32_rounds_to_0():
    """Without a word, whatever NumPy is told about such."""
    q, small = np.zeros((2, 3), np.float32), np.array([1e-300, 1.0, 1.0])
    with np.errstate(all="raise"):
        assert klce.cross_entropy(q, [0, 1], weight=small) == pytest.approx(np.log(3))
        assert klce.binary_cross_entropy(q, q, weight=small[:1]) == 0


def test_nothing_is_written_by_a_call_that_fails():
    q, out = np.zeros((70_000, 3)), np.full(70_000, 99.0)
    y = np.zeros(len(q), int)
    y[-1] = 3
    for options in ({"weight": np.ones(3)}, {"label_smoothing": 0.1}):
        with pytest.raises(IndexError, match=r"got 3 in row 69999$"):
            klce.cross_entropy(q, y, **options, reduction="none", out=out)
    row = np.ones(len(q))
    row[-1] = -1
    with pytest.raises(ValueError, match=r"got -1.0 at 69999$"):
        klce.cross_entropy(q, y * 0, sample_weight=row, reduction="none", out=out)
    assert (out == 99).all()


# --- binary_cross_entropy -------------------------------------------------------------------------


@DTYPE
@pytest.mark.parametrize("form", ["probs", "logits"])
@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 4), (2, 3, 70)])
def test_binary(form, shape, dtype):
    rng = np.random.default_rng(8)
    x = 5 * rng.normal(size=shape)
    q = np.asarray(x if form == "logits" else 1 / (1 + np.exp(-x)), dtype)
    target = np.asarray(rng.random(shape), dtype)
    for factors, reduction in itertools.product(range(4), REDUCTIONS):
        options = {"form": form, "reduction": reduction}
        if factors & 1:
            options["weight"] = np.asarray(rng.random(shape[-1:]), dtype)
        if factors & 2:
            options["pos_weight"] = np.asarray(rng.random((1,) * len(shape)), dtype)
        result = klce.binary_cross_entropy(q, target, **options)
        close(result, reference.binary_cross_entropy(q, target, **options), dtype)
        out = np.empty(np.shape(result), dtype)
        assert klce.binary_cross_entropy(q, target, **options, out=out) is out
        assert same_bits(out, np.asarray(result))


@DTYPE
def test_binary_rules(dtype):
    inf, nan = np.inf, np.nan
    cases = [
        # form, q, y: loss
        ("probs", 0, 0, 0.0),
        ("probs", 1, 1, 0.0),
        ("probs", 0, 1, inf),
        ("probs", 1, 0, inf),
        ("probs", 0, 0.5, inf),
        ("probs", 1.5, 1, nan),
        ("probs", -0.5, 0, nan),
        ("probs", 0.5, 1.5, nan),
        ("probs", 0.5, -0.5, nan),
        ("probs", nan, 0, nan),
        ("probs", 0.5, nan, nan),
        ("logits", inf, 1, 0.0),
        ("logits", -inf, 0, 0.0),
        ("logits", inf, 0, inf),
        ("logits", -inf, 1, inf),
        ("logits", -1e4, 1, 1e4),
        ("logits", 1e4, 1, 0.0),
        ("logits", nan, 1, nan),
        ("logits", 0, nan, nan),
        ("logits", 0, 2, nan),
    ]
    for form, q, y, expected in cases:
        q, y = np.full(37, q, dtype), np.full(37, y, dtype)
        loss = klce.binary_cross_entropy(q, y, form=form, reduction="none")
        np.testing.assert_array_equal(loss, np.full(37, expected, dtype), str((form, q, y)))
        nothing = klce.binary_cross_entropy(q, y, form=form, weight=0, reduction="none")
        assert same_bits(nothing, np.zeros(37, dtype))
    assert np.isnan(klce.binary_cross_entropy(np.zeros(0, dtype), np.zeros(0)))
    assert klce.binary_cross_entropy(np.zeros(0, dtype), np.zeros(0), reduction="sum") == 0


@DTYPE
def test_binary_targets_of_any_dtype(dtype):
    rng = np.random.default_rng(9)
    x, y = rng.normal(size=(40, 7)).astype(dtype), rng.random((40, 7)) < 0.5
    expected = klce.binary_cross_entropy(x, y.astype(dtype), form="logits", reduction="none")
    for kind in (bool, np.int8, np.uint64, np.float32, np.float64, ">f8"):
        loss = klce.binary_cross_entropy(x, y.astype(kind), form="logits", reduction="none")
        assert loss.dtype == dtype
        assert same_bits(loss, expected)


@DTYPE
def test_binary_sums_depend_on_the_values_alone(dtype):
    """Neither on threads nor on how they lie in memory, and without an array of losses."""
    rng = np.random.default_rng(10)
    x = rng.normal(size=(900, 1000)).astype(dtype)
    y, weight = rng.random(x.shape).astype(dtype), rng.random(1000).astype(dtype)
    results = set()
    for n, change in itertools.product((1, 2, 5), (np.asarray, np.asfortranarray)):
        with klce.threads(n):
            a, b = change(x), change(y)
            loss = klce.binary_cross_entropy(a, b, form="logits", weight=weight)
            results.add(loss.tobytes())
    assert len(results) == 1
    tracemalloc.start()
    klce.binary_cross_entropy(x, y, form="logits", weight=weight)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.2 * 2**18 * dtype.itemsize + 1e5


def test_binary_wrong_arguments():
    q, y = np.full((2, 3), 0.5), np.zeros((2, 3))
    for options, message in (
        ({"form": "log_probs"}, r'^form must be "probs" or "logits", got \'log_probs\'$'),
        ({"reduction": "batchmean"}, r"^reduction must be "),
        (
            {"weight": np.ones(2)},
            r"^weight must broadcast to the shape of q, \(2, 3\), got \(2,\)$",
        ),
        ({"weight": np.ones((4, 2, 3))}, r"^weight must broadcast"),
        ({"pos_weight": -1}, r"^pos_weight must be finite and not negative, got -1$"),
        ({"out": np.zeros(1)}, r"^out must have the result's shape \(\), got \(1,\)$"),
    ):
        with pytest.raises(ValueError, match=message):
            klce.binary_cross_entropy(q, y, **options)
    with pytest.raises(
        ValueError, match=r"^target must have the shape of q, \(2, 3\), got \(3,\)$"
    ):
        klce.binary_cross_entropy(q, y[0])
    with pytest.raises(TypeError, match=r"^target must be float16, .*, got complex128$"):
        klce.binary_cross_entropy(q, y + 1j)
    with pytest.raises(TypeError, match=r"^q must be "):
        klce.binary_cross_entropy(q + 1j, y)


# --- masks ----------------------------------------------------------------------------------------

OPTIONS = {
    "plain": {},
    "weight": {"weight": True},
    "smooth": {"label_smoothing": 0.1},
    "all": {"weight": True, "label_smoothing": 0.3, "sample_weight": [1.0, 2.0, 0.5, 0.0, 3.0]},
}


def masked_rows(dtype):
    """Logits, labels that are not masked, a mask with classes in each row, and class weights."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(5, 40)).astype(dtype)
    where = rng.random((5, 40)) < 0.6
    target = np.array([int(np.flatnonzero(row)[2]) for row in where])
    return x, target, where, rng.uniform(0.5, 2, 40)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("soft", [False, True], ids=["index", "soft"])
@pytest.mark.parametrize("form", ["logits", "log_probs", "probs"])
def test_a_masked_class_is_as_if_it_were_not_there(form, soft, options, dtype):
    x, target, where, weight = masked_rows(dtype)
    if form != "logits":
        x = klce.log_softmax(x) if form == "log_probs" else klce.softmax(x)
    share = klce.softmax(np.where(where, 1.0, -np.inf) * np.arange(1, 41) / 9)
    share = np.where(where, share, 0)
    options = dict(options)
    rows = options.pop("sample_weight", np.ones(5))
    weighted = options.pop("weight", False)
    extra = {"z_loss": 0.25, "temperature": 0.7} if form == "logits" else {}
    common = options | extra | {"form": form, "reduction": "none"}
    masked = common | {
        "target": share if soft else target,
        "where": where,
        "weight": weight if weighted else None,
        "sample_weight": rows,
    }
    losses = klce.cross_entropy(x, **masked)
    rtol = 1e-12 if dtype == "float64" else 1e-6
    np.testing.assert_allclose(losses, reference.cross_entropy(x, **masked), rtol=rtol)
    for i, keep in enumerate(where):
        alone = klce.cross_entropy(
            x[i, keep],
            share[i, keep] if soft else int(np.count_nonzero(keep[: target[i]])),
            weight=weight[keep] if weighted else None,
            sample_weight=rows[i],
            **common,
        )
        np.testing.assert_allclose(losses[i], alone, rtol=rtol)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("axis", [1, -1])
def test_a_masked_row_is_ignored(axis, options):
    x, target, _, weight = masked_rows("float64")
    keep = np.array([True, False, True, True, False])
    options = dict(options)
    if options.pop("weight", False):
        options["weight"] = weight
    wrong = np.where(keep, target, 10**6)  # whatever the label is
    for reduction in ("none", "mean", "sum"):
        actual = klce.cross_entropy(
            x, wrong, axis=axis, where=keep[:, None], reduction=reduction, **options
        )
        expected = klce.cross_entropy(
            x, np.where(keep, target, -100), axis=axis, reduction=reduction, **options
        )
        np.testing.assert_array_equal(actual, expected)
    soft = klce.softmax(x[::-1])
    actual = klce.cross_entropy(x, soft, where=keep[:, None])
    np.testing.assert_allclose(
        actual, reference.cross_entropy(x, soft, where=keep[:, None]), rtol=1e-15
    )
    np.testing.assert_allclose(actual, klce.cross_entropy(x[keep], soft[keep]), rtol=1e-15)
    log_probs = klce.log_softmax(x)
    actual = klce.nll_loss(log_probs, wrong, where=keep[:, None])
    assert actual == klce.nll_loss(log_probs, np.where(keep, target, -100))
    expected = reference.nll_loss(log_probs, wrong, where=keep[:, None])
    np.testing.assert_allclose(actual, expected, rtol=1e-15)


def test_a_masked_label_is_impossible():
    x, where = np.zeros((2, 3)), np.array([True, True, False])
    for options in ({}, {"weight": [1, 2, 3]}, {"label_smoothing": 0.1}):
        losses = klce.cross_entropy(x, [0, 2], where=where, reduction="none", **options)
        assert np.isfinite(losses[0])
        assert losses[1] == np.inf
    assert np.isnan(klce.cross_entropy(x, [0, 2], where=np.zeros(3, bool)))
