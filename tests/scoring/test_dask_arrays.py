"""Scores of Dask arrays are those of a file, whatever the chunks."""

import dask
import dask.array as da
import numpy as np
import pytest

from klce.scoring import InputError, LabelError, score_dask, score_file
from klce.scoring.summary import CHUNK_ROWS

ROWS, CLASSES = 3 * CHUNK_ROWS + 123, 7


@pytest.fixture(scope="module")
def numbers():
    rng = np.random.default_rng(5)
    logits = (4 * rng.standard_normal((ROWS, CLASSES))).astype(np.float32)
    logits[17] = np.nan
    targets = rng.integers(0, CLASSES, ROWS)
    targets[::10] = -100
    return logits, targets


def in_file(folder, logits, targets):
    np.save(folder / "logits.npy", logits)
    if targets is not None:
        np.save(folder / "targets.npy", targets)
        targets = folder / "targets.npy"
    report = score_file(folder / "logits.npy", targets, out=folder / "rows.npy")
    return report.summary, np.load(folder / "rows.npy")


@pytest.mark.parametrize("chunks", [ROWS, 1000, 4097, (1, ROWS - 1)])
@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
def test_as_from_a_file(tmp_path, numbers, chunks, labelled, scheduler):
    logits, targets = numbers
    targets = targets if labelled else None
    lazy = da.from_array(logits, chunks=(chunks, CLASSES))
    scores = score_dask(lazy, targets)
    summary, rows = in_file(tmp_path, logits, targets)
    with dask.config.set(scheduler=scheduler):
        assert scores.summary() == summary
        found = scores.rows.compute()
    assert found.dtype == rows.dtype
    assert found.tobytes() == rows.tobytes()


def test_many_parts(tmp_path, numbers, monkeypatch):
    monkeypatch.setattr("klce.scoring.dask_arrays._PART_ROWS", CHUNK_ROWS)
    monkeypatch.setattr("klce.scoring.dask_arrays._PARTS_AT_ONCE", 2)
    logits, targets = numbers
    scores = score_dask(da.from_array(logits, chunks=(5000, CLASSES)), targets)
    assert scores.summary() == in_file(tmp_path, logits, targets)[0]


@pytest.mark.parametrize("dtype", ["f2", "f8", "i4", ">f4"])
def test_axes_and_dtypes(tmp_path, numbers, dtype):
    logits, targets = numbers
    logits = np.nan_to_num(logits[: 6 * 50 * 5]).reshape(6, 50, 5, CLASSES).astype(dtype)
    targets = targets[: 6 * 50 * 5].reshape(6, 50, 5)
    lazy = da.from_array(logits, chunks=(4, 13, 2, CLASSES))
    scores = score_dask(lazy, da.from_array(targets, chunks=(3, 50, 5)))
    summary, rows = in_file(tmp_path, logits, targets)
    assert scores.summary() == summary
    assert scores.rows.shape == rows.shape
    assert scores.rows.compute().tobytes() == rows.tobytes()


def test_no_rows(tmp_path):
    logits = np.zeros((0, 3))
    assert score_dask(da.from_array(logits)).summary() == in_file(tmp_path, logits, None)[0]


@pytest.mark.parametrize(("shape", "name"), [((20,), "row 13"), ((4, 5), r"row 13, at \(2, 3\),")])
def test_a_label_out_of_range(shape, name):
    targets = np.zeros(shape, np.uint64)
    targets.flat[13] = 2**64 - 100
    lazy = da.zeros((*shape, 3), chunks=(3,) * len(shape) + (3,))
    with pytest.raises(LabelError, match=rf"targets: label {2**64 - 100} in {name} is neither"):
        score_dask(lazy, targets).summary()


def test_refused():
    lazy = da.zeros((4, 6), chunks=(2, 6))
    with pytest.raises(TypeError, match="logits must be a Dask array, got a ndarray"):
        score_dask(np.zeros((4, 6)))
    with pytest.raises(InputError, match=r"2 axes or more.*\(4,\)"):
        score_dask(da.zeros(4))
    with pytest.raises(InputError, match="one chunk, got 2: rechunk"):
        score_dask(da.zeros((4, 6), chunks=(2, 3)))
    with pytest.raises(InputError, match="complex128"):
        score_dask(lazy.astype(complex))
    with pytest.raises(InputError, match="integers, got float64"):
        score_dask(lazy, np.zeros(4))
    with pytest.raises(InputError, match=r"shape \(3,\) do not match .* \(4,\)"):
        score_dask(lazy, np.zeros(3, int))
    with pytest.raises(InputError, match="compute_chunk_sizes"):
        score_dask(lazy[lazy[:, 0] == 0])
    with pytest.raises(InputError, match="ignore_index"):
        score_dask(lazy, ignore_index=2**63)
