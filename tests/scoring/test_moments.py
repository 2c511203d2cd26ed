"""Means and errors of values in parts, finite or not."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klce.scoring.moments import NO_VALUES, Moments


def exact_error(values):
    exact = [Fraction(value) for value in np.asarray(values, float).tolist()]
    mean = sum(exact) / len(exact)
    return math.sqrt(sum((value - mean) ** 2 for value in exact) / len(exact) / (len(exact) - 1))


@pytest.mark.parametrize("offset", [0.0, 1e6, -1e12])
def test_mean_and_error(offset):
    values = np.random.default_rng(0).normal(size=5000) + offset
    found = Moments.of(values[:1000]).merge(Moments.of(values[1000:]))
    assert found.count == 5000
    assert found.mean == pytest.approx(math.fsum(values) / 5000, rel=1e-13)
    assert found.error == pytest.approx(exact_error(values), rel=1e-7)


@given(st.permutations(range(5)), st.integers(0, 5))
def test_parts_merge_to_the_same_in_any_order_and_grouping(order, cut):
    parts = [Moments.of(part) for part in np.random.default_rng(0).normal(size=(5, 30))]
    left = right = NO_VALUES
    for i in order[:cut]:
        left = left.merge(parts[i])
    for i in order[cut:]:
        right = parts[i].merge(right)
    whole = NO_VALUES
    for part in parts:
        whole = whole.merge(part)
    assert left.merge(right) == whole


@pytest.mark.parametrize("values", [[], [3.0]])
def test_too_few_values_for_an_error(values):
    found = Moments.of(np.array(values))
    assert math.isnan(found.error)
    assert found.mean == 3 if values else math.isnan(found.mean)


def test_equal_values_have_no_error():
    assert Moments.of(np.full(4000, 0.1)).error == 0


def test_sums_beyond_the_range_of_float64():
    found = Moments.of(np.array([1.5e308, 1e308]))
    assert found.mean == 1.25e308
    assert found.error == pytest.approx(0.25e308, rel=1e-14)
    assert Moments.of(np.full(3, -1.7e308)).mean == -1.7e308


@pytest.mark.parametrize(
    ("values", "mean"),
    [
        ([1, np.inf], math.inf),
        ([-np.inf, 1, -np.inf], -math.inf),
        ([np.inf, -np.inf, 2], math.nan),
        ([np.nan, 1, 2], math.nan),
        ([np.inf], math.inf),
    ],
)
def test_values_that_fractions_do_not_hold(values, mean):
    values = np.array(values, float)
    for found in (
        Moments.of(values),
        Moments.of(values[:1]).merge(Moments.of(values[1:])),
        NO_VALUES.merge(Moments.of(values)),
    ):
        assert found.mean == pytest.approx(mean, nan_ok=True)
        assert math.isnan(found.error)
        assert found.count == np.isfinite(values).sum()
        assert found.total == sum(values[np.isfinite(values)].tolist())
