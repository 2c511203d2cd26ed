"""Quantiles, and columns in order, of rows in any pieces."""

import functools

import numpy as np
import pytest

from klce.scoring import distribution
from klce.scoring.distribution import (
    QUANTILES,
    by_fraction,
    in_order,
    pieces,
    quantile_name,
    quantiles,
    quantiles_of,
)

FRACTIONS = (0, 0.25, 0.5, 0.9, 1)


@pytest.fixture(autouse=True)
def short_pieces(monkeypatch):
    monkeypatch.setattr(distribution, "ROWS_AT_ONCE", 32)


@pytest.mark.parametrize("count", [1, 2, 3, 10, 997, 1001])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_quantiles_are_those_of_numpy(count, dtype):
    values = np.random.default_rng(count).normal(size=count).astype(dtype)
    found = quantiles_of(values, lambda some: some, dtype)
    np.testing.assert_allclose(found, np.quantile(values.astype(float), QUANTILES), rtol=1e-13)


def test_quantiles_of_none_and_of_few():
    assert np.isnan(quantiles(np.empty(0), FRACTIONS)).tolist() == [True] * 5
    assert quantiles(np.array([3.0]), FRACTIONS) == [3] * 5
    assert quantiles(np.array([1.0, 2.0]), FRACTIONS) == [1, 1.25, 1.5, 1.9, 2]
    assert np.isnan(quantiles_of(np.empty(0, "f4"), lambda some: some, "f4")).all()


def test_an_infinite_value_beside_a_finite_one():
    """A quantile between them is infinite; one that falls on the finite value is that."""
    assert quantiles(np.array([1.0, np.inf]), FRACTIONS) == [1, np.inf, np.inf, np.inf, np.inf]
    assert quantiles(np.array([1.0, 2, np.inf]), FRACTIONS) == [1, 1.5, 2, np.inf, np.inf]
    assert quantiles(np.full(3, np.inf), FRACTIONS) == [np.inf] * 5


def test_a_column_in_order_is_without_nan():
    values = np.random.default_rng(0).normal(size=200).astype(np.float32)
    values[::9] = np.nan
    with in_order(values, lambda some: 2 * some, np.float32) as ordered:
        assert ordered.dtype == np.float32
        np.testing.assert_array_equal(ordered, 2 * np.sort(values)[: np.isfinite(values).sum()])


def test_pieces_are_all_rows():
    rows = np.arange(100)
    found = list(pieces(rows, functools.partial(np.greater, 50)))
    assert [start for start, _, _ in found] == [0, 32, 64, 96]
    np.testing.assert_array_equal(np.concatenate([table for _, table, _ in found]), rows)
    np.testing.assert_array_equal(np.concatenate([counts for *_, counts in found]), rows < 50)
    assert not list(pieces(rows[:0], np.isnan))


def test_names_of_quantiles():
    assert [quantile_name(fraction) for fraction in (0, 0.001, 0.5, 0.95, 1)] == [
        "minimum", "0.1 %", "median", "95 %", "maximum"
    ]  # fmt: skip


def test_quantiles_for_json():
    found = by_fraction((*range(12), np.inf))
    assert list(found) == [
        "0", "0.001", "0.01", "0.05", "0.1", "0.25", "0.5", "0.75", "0.9", "0.95", "0.99", "0.999",
        "1",
    ]  # fmt: skip
    assert list(found.values()) == [*range(12), None]
    assert by_fraction(None) is None
