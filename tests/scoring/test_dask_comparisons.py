"""Comparisons of Dask arrays are those of files, whatever the chunks and the options."""

import dask
import dask.array as da
import numpy as np
import pytest

from klce.scoring import InputError, LabelError, compare_dask, compare_file
from klce.scoring.distribution import ROWS_AT_ONCE

ROWS, CLASSES = 4 * ROWS_AT_ONCE + 1234, 5


@pytest.fixture(scope="module")
def numbers():
    rng = np.random.default_rng(5)
    p = (4 * rng.standard_normal((ROWS, CLASSES))).astype(np.float32)
    q = (p + rng.standard_normal((ROWS, CLASSES))).astype(np.float16)
    p[200_017] = np.nan
    q[70_001, 2] = -np.inf
    targets = rng.integers(0, CLASSES, ROWS)
    targets[::10] = -100
    return p, q, targets


def in_files(folder, p, q, targets, **options):
    names = []
    for name, array in (("p", p), ("q", q), ("targets", targets)):
        names.append(None if array is None else folder / f"{name}.npy")
        if array is not None:
            np.save(folder / f"{name}.npy", array)
    report = compare_file(*names, out=folder / "rows.npy", **options)
    return report.summary, np.load(folder / "rows.npy")


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
def test_as_from_files(tmp_path, numbers, labelled, scheduler):
    p, q, targets = numbers
    targets = targets if labelled else None
    summary, rows = in_files(tmp_path, p, q, targets)
    assert (summary.nan, summary.infinite) == (1, 1)
    with dask.config.set(scheduler=scheduler):
        for chunks in (ROWS, 50_000, (1, ROWS - 1)):
            lazy = (da.from_array(p, chunks=(chunks, -1)), da.from_array(q, chunks=(60_000, -1)))
            comparison = compare_dask(*lazy, targets)
            assert repr(comparison.summary()) == repr(summary)  # errors of an infinite mean are nan
            found = comparison.rows.compute()
            assert found.dtype == rows.dtype
            assert found.tobytes() == rows.tobytes()


def test_many_parts(tmp_path, numbers, monkeypatch):
    monkeypatch.setattr("klce.scoring.dask_arrays._PART_ROWS", ROWS_AT_ONCE)
    monkeypatch.setattr("klce.scoring.dask_arrays._PARTS_AT_ONCE", 2)
    p, q, targets = numbers
    comparison = compare_dask(da.from_array(p), da.from_array(q), targets)
    assert repr(comparison.summary()) == repr(in_files(tmp_path, p, q, targets)[0])


@pytest.mark.parametrize("labelled", [True, False])
def test_options_axes_and_dtypes(tmp_path, numbers, labelled):
    p, q, targets = (array[:600].reshape(20, 30, *array.shape[1:]) for array in numbers)
    targets = targets.clip(0) if labelled else None
    options = {
        "want": ("total_variation", "rank_q", "nll_p") if labelled else ("margin_q",),
        "top_k": 2,
        "temperature": 1.7,
        "ignore_index": 3,
    }
    p = p.astype(np.float64)
    lazy = (da.from_array(p, chunks=(7, 11, -1)), da.from_array(q, chunks=(5, 30, -1)))
    comparison = compare_dask(*lazy, targets, **options)
    summary, rows = in_files(tmp_path, p, q, targets, **options)
    assert "top_overlap" in summary.estimates
    assert comparison.summary() == summary
    assert comparison.rows.dtype == rows.dtype
    assert comparison.rows.compute().tobytes() == rows.tobytes()


def test_persisted(numbers):
    p, q, targets = numbers
    comparison = compare_dask(da.from_array(p), da.from_array(q), targets)
    assert repr(comparison.persist().summary()) == repr(comparison.summary())


def test_no_rows():
    none = da.zeros((0, 3))
    summary = compare_dask(none, none).summary()
    assert summary.rows == 0
    assert np.isnan(summary.estimates["kl_divergence"].mean)


def test_a_label_out_of_range():
    lazy = da.zeros((4, 5, 3), chunks=2)
    lazy = lazy.rechunk({-1: -1})
    targets = np.zeros((4, 5), int)
    targets[2, 3] = 3
    with pytest.raises(LabelError, match=r"^targets must hold .*, got 3 in row 13, at \(2, 3\)$"):
        compare_dask(lazy, lazy, targets).summary()


def test_refused():
    lazy = da.zeros((4, 6), chunks=(2, 6))
    with pytest.raises(TypeError, match="p must be a Dask array, got a ndarray"):
        compare_dask(np.zeros((4, 6)), lazy)
    with pytest.raises(TypeError, match="q must be a Dask array, got a ndarray"):
        compare_dask(lazy, np.zeros((4, 6)))
    for q, message in (
        (da.zeros((4, 5)), r"q of shape \(4, 5\) does not match p of shape \(4, 6\)"),
        (da.zeros((4, 6), chunks=(2, 3)), "q must have the classes in one chunk, got 2: rechunk"),
        (lazy.astype(complex), "q must be of float16, .*, got complex128"),
    ):
        with pytest.raises(InputError, match=message):
            compare_dask(lazy, q)
    for options, message in (
        ({"want": ["nll"]}, "want must name statistics of kl_divergence, .*, got 'nll'"),
        ({"want": []}, "want must name at least one statistic"),
        ({"want": ["nll_p"]}, "without a target"),
        ({"top_k": 7}, "top_k must be from 0 to the 6 classes"),
        ({"temperature": 0}, "temperature must be from 1e-6 to 1e6, got 0"),
        ({"ignore_index": 2**63}, "ignore_index"),
        ({"targets": np.zeros(3, int)}, r"targets of shape \(3,\) do not match"),
    ):
        with pytest.raises(InputError, match=message):
            compare_dask(lazy, lazy, **options)
