"""Calibration and the accuracy of the top k, of rows in any parts."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klce.scoring.accuracy import NO_ROWS, TOP, Calibration, Ranks


def make(rows, seed=0):
    rng = np.random.default_rng(seed)
    return np.log(rng.uniform(0.01, 1, rows)), rng.random(rows) < 0.6


def test_calibration_is_that_of_a_float64_computation():
    max_log_prob, right = make(40_000)
    found = Calibration.of(max_log_prob, right)
    probability = np.exp(max_log_prob)
    bins = (15 * probability).astype(int)
    assert found.counts == tuple(np.bincount(bins, minlength=15).tolist())
    error = 0
    for i in range(15):
        some = bins == i
        assert found.confidence[i] == pytest.approx(probability[some].mean(), rel=1e-8)
        assert found.accuracy[i] == right[some].mean()
        error += abs(right[some].sum() - probability[some].sum())
    assert found.error == pytest.approx(error / 40_000, rel=1e-7)


def test_expected_calibration_error():
    unit = 2.0**-30
    found = Calibration((2, 0, 6), (1, 0, 3), (round(0.4 / unit), 0, round(5.4 / unit)))
    assert found.error == pytest.approx((2 * 0.3 + 6 * 0.4) / 8)
    np.testing.assert_allclose(found.confidence, [0.2, np.nan, 0.9])
    np.testing.assert_allclose(found.accuracy, [0.5, np.nan, 0.5])
    assert math.isnan(NO_ROWS.error)
    assert np.isnan(NO_ROWS.confidence).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_probabilities_at_the_ends(dtype):
    """1 is in the last bin, also where rounding says more, and next to nothing in the first."""
    found = Calibration.of(np.array([0, 1e-7, -1e-7, -700], dtype), np.array([1, 1, 0, 0], bool))
    assert (found.counts[-1], found.right[-1], found.counts[0], found.right[0]) == (3, 2, 1, 0)
    assert found.confidence[-1] == pytest.approx(1, abs=1e-7)
    assert sum(found.counts) == 4


@given(st.lists(st.integers(0, 200), max_size=5), st.permutations(range(6)))
def test_parts_merge_to_the_whole_in_any_order(cuts, order):
    max_log_prob, right = make(200)
    rank = np.random.default_rng(1).integers(1, 31, 200)
    edges = [0, *sorted(cuts), 200]
    spans = [slice(*edges[i : i + 2]) for i in range(len(edges) - 1)]
    calibration, ranks = NO_ROWS, Ranks.of(rank[:0], 30)
    for i in order:
        if i < len(spans):
            calibration = calibration.merge(Calibration.of(max_log_prob[spans[i]], right[spans[i]]))
            ranks = ranks.merge(Ranks.of(rank[spans[i]], 30))
    assert calibration == Calibration.of(max_log_prob, right)
    assert ranks == Ranks.of(rank, 30)


@pytest.mark.parametrize("classes", [1, 2, 7, 100, 50_000])
def test_ranks(classes):
    rank = np.random.default_rng(0).integers(1, classes + 1, 500)
    found = Ranks.of(rank, classes)
    assert (found.rows, found.k[0], found.k[-1], found.share[-1]) == (500, 1, classes, 1)
    assert {k for k in TOP if k <= classes} <= {*found.k}
    for k, within, share in zip(found.k, found.within, found.share, strict=True):
        assert within == (rank <= k).sum()
        assert share == np.mean(rank <= k)


def test_ranks_of_no_rows():
    found = Ranks.of(np.empty(0, np.int64), 9)
    assert (found.rows, {*found.within}) == (0, {0})
    assert all(map(math.isnan, found.share))
