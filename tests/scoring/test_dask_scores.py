"""Scores of Dask arrays are those of a file, whatever the chunks and the options."""

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


def in_file(folder, logits, targets, **options):
    np.save(folder / "logits.npy", logits)
    if targets is not None:
        np.save(folder / "targets.npy", targets)
        targets = folder / "targets.npy"
    report = score_file(folder / "logits.npy", targets, out=folder / "rows.npy", **options)
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


EVERYTHING = {
    "want": ("margin", "nll", "target_prob", "greedy_match", "varentropy"),
    "top_k": 3,
    "candidates": (5, 0),
    "temperature": 1.7,
    "ignore_index": 2,
}


@pytest.mark.parametrize("labelled", [True, False])
def test_options_as_from_a_file(tmp_path, numbers, labelled):
    logits, targets = numbers
    targets = targets.clip(0) if labelled else None
    options = dict(EVERYTHING)
    if not labelled:
        options["want"] = ("margin", "varentropy")
    scores = score_dask(da.from_array(logits, chunks=(999, CLASSES)), targets, **options)
    summary, rows = in_file(tmp_path, logits, targets, **options)
    assert scores.summary() == summary
    assert scores.rows.dtype == rows.dtype
    assert scores.rows.compute().tobytes() == rows.tobytes()
    assert scores.rows["top_ids"].compute().tobytes() == rows["top_ids"].tobytes()


def test_candidates_of_each_row(tmp_path, numbers):
    logits = numbers[0][:600].reshape(20, 30, CLASSES)
    each = np.random.default_rng(1).integers(0, CLASSES, (20, 30, 4)).astype(np.uint8)
    np.save(tmp_path / "each.npy", each)
    options = {"want": ()}
    _, rows = in_file(tmp_path, logits, None, candidates=tmp_path / "each.npy", **options)
    for candidates in (each, da.from_array(each, chunks=(3, 30, 1))):
        lazy = da.from_array(logits, chunks=(7, 11, CLASSES))
        scores = score_dask(lazy, candidates=candidates, **options)
        assert scores.rows.compute().tobytes() == rows.tobytes()
    each[13, 4, 2] = CLASSES
    place = rf"row {13 * 30 + 4}, at \(13, 4\)"
    message = rf"candidates must hold class .* to {CLASSES - 1}, got {CLASSES} in {place}$"
    with pytest.raises(LabelError, match=message):
        score_dask(lazy, candidates=each).rows.compute()


def test_rows_and_summary_share_what_is_persisted(numbers):
    computed = []

    def block(x):
        computed.append(x.shape)
        return x

    logits, targets = numbers
    lazy = da.from_array(logits, chunks=(5000, CLASSES)).map_blocks(block, meta=logits[:0])
    scores = score_dask(lazy, targets, want=["rank"]).persist()
    assert len(computed) == 3
    assert scores.rows["rank"].compute().shape == (ROWS,)
    assert scores.summary().rows == ROWS
    assert len(computed) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"want": ["nl"]}, "want must name statistics of nll, .*, got 'nl'"),
        ({"want": "nll"}, "want must be a collection of names, got the string 'nll'"),
        ({"want": []}, "want must name at least one statistic"),
        ({"want": ["rank"]}, "want must not name 'rank' without a target"),
        ({"top_k": 7}, "top_k must be from 0 to the 6 classes"),
        ({"temperature": 0}, "temperature must be from 1e-6 to 1e6, got 0"),
        ({"candidates": [2, 6]}, "candidates must hold class indices from 0 to 5, got 6 at 1$"),
        ({"candidates": [-1]}, "candidates must hold class indices from 0 to 5, got -1 at 0$"),
        ({"candidates": [0.5]}, "candidates must hold integers, class indices, got float64"),
        ({"candidates": []}, "at least one candidate"),
        ({"candidates": np.zeros((4, 0), int)}, "at least one candidate"),
        ({"candidates": 3}, r"candidates of shape \(\) are neither"),
        ({"candidates": [[1, 2]]}, r"candidates of shape \(1, 2\) are neither one axis"),
    ],
)
def test_refused_options(options, message):
    with pytest.raises(InputError, match=message):
        score_dask(da.zeros((4, 6)), **options)


def test_no_rows(tmp_path):
    logits = np.zeros((0, 3))
    scores = score_dask(da.from_array(logits), candidates=np.zeros((0, 2), int))
    assert scores.summary() == in_file(tmp_path, logits, None)[0]
    assert scores.rows["candidate_log_probs"].compute().shape == (0, 2)


@pytest.mark.parametrize(("shape", "name"), [((20,), "row 13"), ((4, 5), r"row 13, at \(2, 3\)")])
def test_a_label_out_of_range(shape, name):
    targets = np.zeros(shape, np.uint64)
    targets.flat[13] = 2**64 - 100
    lazy = da.zeros((*shape, 3), chunks=(3,) * len(shape) + (3,))
    message = rf"^targets must hold class indices .*, got {2**64 - 100} in {name}$"
    with pytest.raises(LabelError, match=message):
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
    with pytest.raises(InputError, match=r"targets must hold integers, .* got float64"):
        score_dask(lazy, np.zeros(4))
    with pytest.raises(InputError, match=r"shape \(3,\) do not match .* \(4,\)"):
        score_dask(lazy, np.zeros(3, int))
    with pytest.raises(InputError, match="compute_chunk_sizes"):
        score_dask(lazy[lazy[:, 0] == 0])
    with pytest.raises(InputError, match="ignore_index"):
        score_dask(lazy, ignore_index=2**63)


def test_logsumexp_beyond_the_range(tmp_path):
    logits = np.array([[3e38, 0], [1, 2]], np.float32)
    summary, rows = in_file(tmp_path, logits, None, temperature=0.5)
    assert np.isinf(rows["logsumexp"]).tolist() == [True, False]
    assert summary.mean_logsumexp == np.inf
    assert 0 < summary.mean_entropy < 1
    lazy = score_dask(da.from_array(logits, chunks=(1, 2)), temperature=0.5)
    assert lazy.summary() == summary
