"""The stand-ins for scikit-learn: its conventions of labels, and its checks."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

import klce
from klce.compat.sklearn import d2_log_loss_score, log_loss

RNG = np.random.default_rng(0)
PROBA = klce.softmax(RNG.normal(size=(40, 5)))
TARGET = np.arange(40) % 5
WEIGHTS = RNG.uniform(size=40)


def test_is_klces_cross_entropy():
    expected = klce.cross_entropy(PROBA, TARGET, form="probs")
    assert_allclose(log_loss(TARGET, PROBA), expected, rtol=1e-15)
    assert isinstance(log_loss(TARGET, PROBA), float)
    losses = klce.cross_entropy(PROBA, TARGET, form="probs", reduction="none")
    assert_allclose(log_loss(TARGET, PROBA, normalize=False), losses.sum(), rtol=1e-15)
    assert_allclose(
        log_loss(TARGET, PROBA, sample_weight=WEIGHTS), np.average(losses, weights=WEIGHTS)
    )
    assert_allclose(
        log_loss(TARGET, PROBA, sample_weight=WEIGHTS, normalize=False), losses @ WEIGHTS
    )


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["ant", "bee", "cat", "dog", "eel"]),
        np.array(["ant", "bee", "cat", "dog", "eel"], dtype=object),
        np.array([-3.0, 0.0, 1.0, 7.0, 9.0]),
        np.array([2, 3, 5, 7, 11], dtype=np.uint8),
    ],
)
def test_labels_of_any_kind_are_sorted(labels):
    expected = log_loss(TARGET, PROBA)
    assert log_loss(labels[TARGET], PROBA) == expected
    assert log_loss(list(labels[TARGET]), PROBA, labels=list(labels)) == expected
    keep = TARGET != 2
    assert_allclose(
        log_loss(labels[TARGET[keep]], PROBA[keep], labels=labels),
        klce.cross_entropy(PROBA[keep], TARGET[keep], form="probs"),
    )


def test_one_column_is_the_second_class():
    y, p = [0, 1, 1], np.array([0.25, 0.5, 0.75])
    expected = -(math.log(0.75) + math.log(0.5) + math.log(0.75)) / 3
    assert_allclose(log_loss(y, p), expected)
    assert_allclose(log_loss(y, p[:, np.newaxis]), expected)
    assert_allclose(log_loss(["no", "yes", "yes"], p), expected)


def test_indicator_rows():
    indicator = np.eye(5, dtype=int)[TARGET]
    assert_allclose(log_loss(indicator, PROBA), log_loss(TARGET, PROBA), rtol=1e-14)
    two = indicator | np.eye(5, dtype=int)[(TARGET + 1) % 5]
    expected = -(two * np.log(PROBA)).sum(axis=1)
    assert_allclose(log_loss(two, PROBA), expected.mean(), rtol=1e-14)
    assert_allclose(
        log_loss(two, PROBA, sample_weight=WEIGHTS), np.average(expected, weights=WEIGHTS)
    )


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_probabilities_are_clipped(dtype):
    eps = float(np.finfo(dtype).eps)
    proba = np.array([[1, 0], [0, 1], [1, 0]], dtype)
    result = log_loss([1, 1, 0], proba)
    one = -math.log1p(-eps)
    assert_allclose(result, (-math.log(eps) + 2 * one) / 3, rtol=1e-6)


def test_integers_and_text_are_numbers():
    """Probabilities of 0 and 1 as integers, and weights as NumPy reads them."""
    certain = [[1, 0], [0, 1]]
    assert log_loss([0, 1], certain) == log_loss([0, 1], np.array(certain, float)) > 0
    weighted = log_loss([0, 1], [0.25, 0.5], sample_weight=["1", "3"])
    assert weighted == log_loss([0, 1], [0.25, 0.5], sample_weight=[1.0, 3.0])


@pytest.mark.parametrize("dtype", [">f2", ">f4", ">f8", np.longdouble])
def test_other_floats_are_float64(dtype):
    proba = np.array([[1, 0], [0.25, 0.75]], dtype)
    assert log_loss([1, 0], proba) == log_loss([1, 0], proba.astype(np.float64))


def test_d2():
    frequencies = np.full(PROBA.shape, 0.2)
    expected = 1 - log_loss(TARGET, PROBA) / log_loss(TARGET, frequencies)
    assert_allclose(d2_log_loss_score(TARGET, PROBA), expected)
    assert d2_log_loss_score(TARGET, frequencies) == 0
    share = np.bincount(TARGET, WEIGHTS) / WEIGHTS.sum()
    expected = 1 - log_loss(TARGET, PROBA, sample_weight=WEIGHTS) / log_loss(
        TARGET, np.tile(share, (40, 1)), sample_weight=WEIGHTS
    )
    assert_allclose(d2_log_loss_score(TARGET, PROBA, sample_weight=WEIGHTS), expected)
    indicator = np.eye(5, dtype=int)[TARGET]
    assert_allclose(d2_log_loss_score(indicator, PROBA), d2_log_loss_score(TARGET, PROBA))


def test_d2_of_a_frequency_below_0():
    """Weights below 0 may make one; it is clipped as a probability is, as scikit-learn does."""
    proba, weights = [0.27, 0.43, 0.02, 0.03], [-0.38, 0.27, 1.09, -1.24]
    scikit_learns = 0.911573371555777
    indicator = np.array([[1, 0], [0, 1], [0, 1], [1, 0]])
    both = np.stack([1 - np.array(proba), proba], axis=1)
    for y, p in ((["a", "b", "b", "a"], proba), (indicator, both)):
        assert_allclose(d2_log_loss_score(y, p, sample_weight=weights), scikit_learns, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_d2_takes_frequencies_in_float64(dtype):
    """And clips them by its eps, and sums weights in it, whatever the probabilities are."""
    proba = PROBA.astype(dtype)
    weights = RNG.integers(1, 200, 40).astype(dtype)
    weights[0] = 2048  # a sum of float16 loses what is added to it
    y, wide = TARGET // 2, weights.astype(float)
    for w, share in ((None, np.bincount(y) / 40), (weights, np.bincount(y, wide) / wide.sum())):
        proba3 = proba[:, :3] / proba[:, :3].sum(axis=1, keepdims=True)
        frequencies = np.tile(share, (40, 1))
        expected = 1 - log_loss(y, proba3, sample_weight=w) / log_loss(
            y, frequencies, sample_weight=wide if w is not None else None
        )
        assert_allclose(d2_log_loss_score(y, proba3, sample_weight=w), expected, rtol=1e-12)
        indicator = np.eye(3, dtype=dtype)[y]
        score = d2_log_loss_score(indicator, proba3, sample_weight=w)
        assert_allclose(score, expected, rtol=1e-3 if dtype == np.float16 else 1e-5)
    certain = np.full((3, 2), 0.5, dtype)
    null = -math.log1p(-float(np.finfo(float).eps))
    assert_allclose(
        d2_log_loss_score([0, 0, 0], certain, labels=[0, 1]), 1 - math.log(2) / null, rtol=1e-6
    )


@pytest.mark.parametrize("function", [log_loss, d2_log_loss_score])
def test_weights_that_sum_to_0(function):
    for zeros in ([0, 0], np.zeros(2, np.float32)):
        with pytest.raises(ValueError, match="must contain at least one non-zero number"):
            function([0, 1], HALF, sample_weight=zeros)
    for y in ([0, 1], np.eye(2)):
        with pytest.raises(ZeroDivisionError, match="Weights sum to zero"):
            function(y, HALF, sample_weight=[1, -1])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_weighted_sums_are_in_float64(dtype):
    weights, y = np.full(3000, 1.1, dtype), np.array([0, 1, 1] * 1000)
    total = 3000 * float(weights[0]) * float(np.float32(math.log(2)))
    for target, proba in (
        (y, np.full(3000, 0.5, np.float32)),
        (np.eye(2)[y], np.full((3000, 2), 0.5, np.float32)),
    ):
        result = log_loss(target, proba, sample_weight=weights, normalize=False)
        assert_allclose(result, total, rtol=1e-12)


def test_d2_of_one_row():
    with pytest.warns(UserWarning, match="not well-defined with less than two samples"):
        assert math.isnan(d2_log_loss_score([1], [[0.5, 0.5]]))


@pytest.mark.parametrize("function", [log_loss, d2_log_loss_score])
def test_former_name(function):
    expected = function(TARGET, PROBA)
    with pytest.warns(FutureWarning, match="`y_pred` was renamed to `y_proba`"):
        assert function(TARGET, y_pred=PROBA) == expected
    with pytest.raises(ValueError, match="Cannot use both `y_pred` and `y_proba`"):
        function(TARGET, PROBA, y_pred=PROBA)
    with pytest.raises(ValueError, match="y_proba must be given"):
        function(TARGET)


def test_warnings():
    with pytest.warns(UserWarning, match="do not sum to one"):
        log_loss([0, 1], [[0.5, 0.4], [0.1, 0.9]])
    with pytest.warns(UserWarning, match=r"Pass the ordered labels=\['a', 'b'\]"):
        log_loss(["a", "b"], [[0.5, 0.5], [0.1, 0.9]], labels=["b", "a"])


def test_sums_within_the_tolerance():
    """Of the root of eps and 1e-8 together."""
    assert log_loss([0, 1], [[1.0 - 2.3e-8, 0.0], [0.5, 0.5]]) > 0
    with pytest.warns(UserWarning, match="do not sum to one"):
        log_loss([0, 1], [[1.0 - 2.6e-8, 0.0], [0.5, 0.5]])


HALF = [[0.5, 0.5], [0.5, 0.5]]


@pytest.mark.parametrize(
    ("error", "match", "arguments"),
    [
        (ValueError, r"greater than 1: 1\.5", ([0, 1], [[1.5, -0.5], [0.5, 0.5]])),
        (ValueError, r"lower than 0: -0\.5", ([0, 1], [[1.0, -0.5], [0.5, 0.5]])),
        (ValueError, "contains NaN", ([0, 1], [[math.nan, 0.5], [0.5, 0.5]])),
        (ValueError, "contains infinity", ([0, 1], [[math.inf, 0.5], [0.5, 0.5]])),
        (ValueError, r"inconsistent numbers of samples: \[2, 3\]", ([0, 1, 1], HALF)),
        (ValueError, r"inconsistent numbers of samples: \[2, 2, 1\]", ([0, 1], HALF, [1.0])),
        (ValueError, r"contains only one label \(1\)", ([1, 1], HALF)),
        (ValueError, "at least two labels, got", ([1, 1], HALF, None, [1])),
        (ValueError, r"values \{'b'\} not belonging", (["a", "b"], HALF, None, ["a", "c"])),
        (ValueError, "different number of classes: 2 vs 3", ([0, 1], np.full((2, 3), 1 / 3))),
        (ValueError, "number of classes in labels is different", ([0, 1], HALF, None, [0, 1, 2])),
        (ValueError, "Unknown label type for y_true: continuous", ([0.5, 1.0], HALF)),
        (ValueError, "Unknown label type", ([None, object()], HALF)),
        (ValueError, "Multioutput target data", ([[1, 2], [3, 4]], HALF)),
        (ValueError, "labels must not be given where", (np.eye(2), HALF, None, [0, 1])),
        (TypeError, "got bytes", ([b"a", b"b"], HALF)),
        (ValueError, "y_true must have one or two dimensions", (np.zeros((2, 1, 1)), HALF)),
        (ValueError, "at least one row", ([], [])),
        (ValueError, "1D array or scalar, got 2D", ([0, 1], HALF, [[1.0], [1.0]])),
        (TypeError, "got the scalar", (np.float64(1.0), HALF)),
        (TypeError, "Expected sequence or array-like", (3, HALF)),
        (ValueError, "y_true must be real, got complex128", ([0, 1j], HALF)),
        (ValueError, "y_proba must be real, got complex64", ([0, 1], np.array(HALF, "F"))),
        (ValueError, "sample_weight must be real, got complex128", ([0, 1], HALF, [1, 1j])),
        (ValueError, "y_proba must hold numbers, got <U1", ([0, 1], [["a", "b"], ["c", "d"]])),
        (ValueError, "sample_weight must hold numbers, got <U1", ([0, 1], HALF, ["a", "b"])),
        (ValueError, "Multioutput target data", ([["a", "b"], ["b", "a"]], HALF)),
        (ValueError, "y_true must have no masked", (np.ma.array([0, 1], mask=[0, 1]), HALF)),
        (ValueError, "y_proba must have no masked", ([0, 1], np.ma.masked_less(HALF, 1))),
        (ValueError, "sample_weight must have no", ([0, 1], HALF, np.ma.masked_less([0, 1], 1))),
    ],
)
def test_errors(error, match, arguments):
    y_true, y_proba, sample_weight, labels = (*arguments, None, None)[:4]
    with pytest.raises(error, match=match):
        log_loss(y_true, y_proba, sample_weight=sample_weight, labels=labels)


def test_normalize_is_a_flag():
    with pytest.raises(ValueError, match="'normalize' parameter of log_loss must be a bool, got 2"):
        log_loss([0, 1], HALF, normalize=2)
