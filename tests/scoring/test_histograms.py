"""What pictures are drawn from, of rows in any pieces."""

import numpy as np
import pytest

from klce.scoring.groups import Groups
from klce.scoring.histograms import (
    DensitySums,
    HistogramSums,
    Positions,
    Worst,
    position_edges,
)
from klce.scoring.readers import open_reader


def in_blocks(positions, rows, block):
    found = [positions.block(start, min(start + block, rows)) for start in range(0, rows, block)]
    return np.concatenate(found)


@pytest.mark.parametrize("block", [1, 3, 7, 40])
def test_positions_in_sequences_that_are_interleaved(tmp_path, block):
    ids = np.random.default_rng(0).integers(0, 4, 40)
    np.save(tmp_path / "ids.npy", ids)
    groups = Groups(open_reader(tmp_path / "ids.npy"), (40,))
    expected = [(ids[:row] == ids[row]).sum() for row in range(40)]
    found = Positions((40,), groups)
    assert found.name == "position in the sequence"
    np.testing.assert_array_equal(in_blocks(found, 40, block), expected)


def test_positions_without_sequences():
    rows = Positions((12,), None)
    assert rows.name == "row"
    np.testing.assert_array_equal(in_blocks(rows, 12, 5), np.arange(12))
    axes = Positions((3, 4), None)
    assert axes.name == "position along the last axis of rows"
    np.testing.assert_array_equal(in_blocks(axes, 12, 5), np.tile(np.arange(4), 3))


@pytest.mark.parametrize("last", [0, 1, 59, 60, 1000])
def test_edges_of_positions(last):
    edges = position_edges(last)
    assert len(edges) <= 61
    assert edges[0] == -0.5
    assert edges[-1] > last
    assert (np.diff(edges) == np.rint(np.diff(edges))).all()


@pytest.mark.parametrize("block", [1, 7, 100])
def test_the_worst_rows_are_the_first_of_equal_ones(block):
    values = np.random.default_rng(0).integers(0, 8, 100).astype(np.float32)
    values[[30, 60]] = np.inf
    worst = Worst()
    for start in range(0, 100, block):
        part = values[start : start + block]
        worst.add(np.arange(start, start + len(part)), part)
    assert worst.rows.tolist() == np.argsort(-values, kind="stable")[:20].tolist()


def test_no_rows():
    assert Worst().rows.tolist() == []
    worst = Worst()
    worst.add(np.empty(0, np.int64), np.empty(0))
    worst.add(np.array([3]), np.array([0.5]))
    assert worst.rows.tolist() == [3]
    assert HistogramSums(np.linspace(0, 1, 5)).finish().counts.tolist() == [0] * 4
    density = DensitySums(position_edges(2), np.linspace(0, 1, 5)).finish()
    assert not density.counts.any()
    assert np.isnan(density.mean).all()


def test_values_beyond_the_edges_are_counted_at_them():
    sums = HistogramSums(np.linspace(0, 1, 5))
    sums.add(np.array([-3, 0.1, 2, np.inf, np.nan], np.float32))
    sums.add(np.array([0.6, 1]))
    assert sums.finish().counts.tolist() == [2, 0, 1, 2]


def test_densities_have_the_means_of_their_cells():
    y = np.array([0.25, 0.75, np.inf, 0.5, 3])
    density = DensitySums(position_edges(2), np.linspace(0, 1, 3))
    density.add(np.array([0, 0, 0]), y[:3])
    density.add(np.array([2, 2]), y[3:])
    found = density.finish()
    assert found.counts.tolist() == [[1, 1], [0, 0], [0, 2]]
    np.testing.assert_array_equal(found.mean, [0.5, np.nan, 0.75])
