import math
import re
from pathlib import Path

import numpy as np
import pytest

from klce import reference
from klce.scoring import InputError, LabelError, compare_file, convert_file, score_file
from klce.scoring.columns import SHOWN

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def files(tmp_path):
    """Return a function that saves logits and labels and returns the paths."""

    def save(logits, targets=None):
        paths = [tmp_path / "logits.npy", tmp_path / "targets.npy"]
        np.save(paths[0], logits)
        if targets is None:
            return paths[:1]
        np.save(paths[1], targets)
        return paths

    return save


def make(shape, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    logits = (5 * rng.standard_normal(shape)).astype(dtype)
    return logits, rng.integers(0, shape[-1], shape[:-1])


def specification(logits, targets, ignore_index=-100):
    found = reference.score(logits, targets, ignore_index=ignore_index)
    return {"target": targets, **{name: found[name] for name in SHOWN}}


def assert_table(table, expected):
    tolerance = 4 * np.finfo(table.dtype["entropy"]).eps
    assert set(table.dtype.names) <= set(expected)
    for name in table.dtype.names:
        np.testing.assert_allclose(table[name], expected[name], rtol=tolerance, atol=1e-12)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    ("stored", "computed"),
    [
        ("<f4", "f4"),
        ("<f8", "f8"),
        (">f4", "f4"),
        (">f8", "f8"),
        ("<i2", "f8"),
        (">i8", "f8"),
        ("<f2", "f4"),
        (">f2", "f4"),
    ],
)
@pytest.mark.parametrize("shape", [(50, 7), (4, 6, 3), (2, 3, 4, 5), (3, 1)])
def test_layouts_and_dtypes(files, tmp_path, shape, stored, computed, order):
    logits, targets = make(shape)
    logits = np.asarray(logits.astype(stored), order=order)
    paths = files(logits, np.asarray(targets.astype(">i4"), order=order))
    report = score_file(*paths, out=tmp_path / "out.npy")
    expected = specification(logits.astype(computed), targets)
    table = np.load(tmp_path / "out.npy")
    assert table.shape == targets.shape
    assert table.dtype["nll"] == np.dtype(computed)
    assert_table(table, expected)
    assert report.shape == shape
    assert (report.dtype, report.computed_in) == (logits.dtype.name, np.dtype(computed).name)
    assert report.summary.rows == targets.size
    assert report.summary.mean_nll == pytest.approx(expected["nll"].mean(), rel=1e-6)
    assert report.read_bytes == logits.nbytes


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f8"])
@pytest.mark.parametrize("shape", [(9001, 3), (70, 100, 2)])
def test_the_size_of_a_block_changes_no_bit(files, tmp_path, shape, dtype, order):
    logits, targets = make(shape)
    targets.flat[::7] = -100
    logits.flat[5000 * shape[-1]] = np.nan
    paths = files(np.asarray(logits.astype(dtype), order=order), targets)
    whole = score_file(*paths, out=tmp_path / "whole.npy")
    assert whole.summary.nan == 1
    for block_rows in (997, 4096, 5000):
        parts = score_file(*paths, out=tmp_path / "parts.npy", block_rows=block_rows)
        assert parts.summary == whole.summary
        assert (tmp_path / "parts.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_csv_has_the_same_numbers_as_npy(files, tmp_path):
    logits, targets = make((3, 5, 4))
    paths = files(logits, targets)
    score_file(*paths, out=tmp_path / "out.npy", block_rows=4)
    score_file(*paths, out=tmp_path / "out.csv", block_rows=4)
    lines = np.genfromtxt(
        tmp_path / "out.csv", delimiter=",", names=True, dtype=None, encoding="ascii"
    )
    table = np.load(tmp_path / "out.npy").ravel()
    np.testing.assert_array_equal(lines["row"], range(15))
    for name in table.dtype.names:
        np.testing.assert_array_equal(lines[name].astype(table.dtype[name]), table[name])


def test_without_labels(files, tmp_path):
    logits, targets = make((20, 6))
    report = score_file(*files(logits), out=tmp_path / "out.npy")
    expected = specification(logits, targets)
    table = np.load(tmp_path / "out.npy")
    assert table.dtype.names == ("max_log_prob", "logsumexp", "entropy", "argmax")
    assert_table(table, expected)
    assert report.targets is None
    assert math.isnan(report.summary.mean_nll)
    assert report.summary.mean_entropy == pytest.approx(expected["entropy"].mean(), rel=1e-6)
    assert report.summary.mean_logsumexp == pytest.approx(expected["logsumexp"].mean(), rel=1e-6)


@pytest.mark.parametrize("ignore_index", [-100, -1, 0, 2, 2**40])
def test_ignored_rows(files, tmp_path, ignore_index):
    logits, targets = make((40, 5))
    targets[::3] = ignore_index
    ignored = targets == ignore_index
    report = score_file(
        *files(logits, targets), out=tmp_path / "out.npy", ignore_index=ignore_index
    )
    nll = specification(logits, targets, ignore_index)["nll"]
    assert report.summary.ignored == ignored.sum()
    assert report.summary.mean_nll == pytest.approx(nll[~ignored].mean(), rel=1e-6)
    assert report.summary.accuracy == np.mean((logits.argmax(-1) == targets)[~ignored])
    table = np.load(tmp_path / "out.npy")
    assert not table["nll"][ignored].any()
    np.testing.assert_array_equal(table["target"], targets)


def test_rows_without_a_result(files):
    logits, targets = make((6, 3), np.float64)
    logits[1, 0] = np.nan
    logits[2, 1] = np.inf
    logits[3] = -np.inf
    logits[4, targets[4]] = -np.inf
    summary = score_file(*files(logits, targets)).summary
    assert (summary.nan, summary.first_nan, summary.counted) == (3, 1, 3)
    assert (summary.infinite, summary.mean_nll) == (1, math.inf)
    assert math.isfinite(summary.mean_entropy)


@pytest.mark.parametrize("shape", [(0, 3), (0, 2, 3), (2, 0, 3)])
def test_no_rows(files, tmp_path, shape):
    paths = files(*make(shape))
    report = score_file(*paths, out=tmp_path / "out.npy")
    score_file(*paths, out=tmp_path / "out.csv")
    assert report.summary.rows == 0
    assert math.isnan(report.summary.mean_nll)
    assert report.rows_per_second == 0
    assert np.load(tmp_path / "out.npy").shape == shape[:-1]
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 1
    assert report.to_dict()["mean_entropy_nats"] is None


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (np.float32(1), r"logits\.npy: logits need 2 axes or more, .* has 0$"),
        (np.ones(5), "has 1$"),
        (np.ones((5, 0)), r"without classes: the shape is \(5, 0\)"),
        (np.ones((0, 0)), "without classes"),
        (np.ones((5, 2), np.complex64), "dtype complex64 is not supported; float16, bfloat16, "),
        (np.ones((5, 2), np.longdouble), r"dtype float\d+ is not supported"),
        (np.full((5, 2), "a"), "dtype <U1 is not supported"),
        (np.zeros((5, 2), "f4,f4"), "dtype .* is not supported"),
    ],
)
def test_logits_that_cannot_be_scored(files, logits, message):
    with pytest.raises(InputError, match=message):
        score_file(*files(logits))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (np.zeros(4, int), r"targets\.npy: labels of shape \(4,\) do not match .*\(6,\)$"),
        (np.zeros((7, 1), int), r"labels of shape \(7, 1\) do not match"),
        (np.int64(0), r"labels of shape \(\) do not match"),
        (np.zeros(6), "labels must hold integers, class indices, got float64"),
        (np.zeros(6, bool), "labels must hold integers, class indices, got bool"),
    ],
)
def test_labels_that_do_not_fit(files, targets, message):
    with pytest.raises(InputError, match=message):
        score_file(*files(make((6, 3))[0], targets))


@pytest.mark.parametrize(
    ("dtype", "label"),
    [("i8", 3), ("u1", 255), ("i1", -1), (">i4", -99), ("i8", -(2**63)), ("u8", 2**64 - 100)],
)
def test_label_out_of_range(files, tmp_path, dtype, label):
    logits, targets = make((6, 3))
    targets = targets.astype(dtype)
    targets[4:] = label
    message = (
        r"targets\.npy: labels must hold class indices from 0 to 2 or ignore_index=-100, "
        rf"got {label} in row 4$"
    )
    paths = files(logits, targets)
    with pytest.raises(LabelError, match=message) as caught:
        score_file(*paths, out=tmp_path / "out.npy", block_rows=2)
    assert isinstance(caught.value, IndexError)
    assert sorted(tmp_path.iterdir()) == paths


def test_label_out_of_range_is_placed_by_its_indices(files):
    logits, targets = make((2, 3, 4))
    targets[1, 2] = 4
    with pytest.raises(LabelError, match=r"got 4 in row 5, at \(1, 2\)$"):
        score_file(*files(logits, targets))


def test_label_out_of_range_is_placed_in_its_shard(files, tmp_path):
    logits, targets = make((6, 4))
    path, _ = files(logits, targets)
    targets[4] = 4
    (tmp_path / "shards").mkdir()
    for i, (start, stop) in enumerate([(0, 3), (3, 3), (3, 6)]):
        np.save(tmp_path / "shards" / f"{i}.npy", targets[start:stop])
    with pytest.raises(LabelError, match=r"shards: .*, got 4 in row 4 \(row 1 of .*2\.npy\)$"):
        score_file(path, tmp_path / "shards")
    candidates = np.zeros((6, 2), int)
    candidates[3, 1] = 9
    for i, part in enumerate(np.split(candidates, 3)):
        np.save(tmp_path / "shards" / f"{i}.npy", part)
    with pytest.raises(LabelError, match=r"got 9 in row 3 \(row 1 of .*1\.npy\)$"):
        score_file(path, candidates=tmp_path / "shards", out=tmp_path / "out.npy")


def test_options_out_of_range(files):
    paths = files(*make((6, 3)))
    with pytest.raises(InputError, match="ignore_index must fit in int64, got 9223"):
        score_file(*paths, ignore_index=2**63)
    with pytest.raises(InputError, match="block_rows must be at least 1, got 0"):
        score_file(*paths, block_rows=0)


def test_results_are_checked_before_the_labels(files, tmp_path):
    paths = files(make((6, 3))[0], np.full(6, 9))
    with pytest.raises(InputError, match="would replace the input"):
        score_file(*paths, out=paths[1])
    assert np.load(paths[1])[0] == 9


def test_progress_counts_bytes(files, tmp_path):
    paths = files(*make((10, 3)))
    calls = []

    def progress(done, total):
        calls.append((done, total))

    score_file(*paths, out=tmp_path / "out.csv", block_rows=4, progress=progress)
    assert calls == [(48, 120), (96, 120), (120, 120)]


@pytest.mark.parametrize(
    ("name", "perplexity"), [("base_logits", 64.344084), ("q4_logits", 65.250620)]
)
def test_perplexity_is_that_of_llama_cpp(name, perplexity):
    folder = EXAMPLES / "lm"
    report = score_file(folder / f"{name}.npy", folder / "targets.npy")
    # The tool's base file holds 16 bits per log-probability.
    assert report.summary.perplexity == pytest.approx(perplexity, rel=1e-5)
    assert report.summary.rows == 105


def test_digits():
    folder = EXAMPLES / "digits"
    logits, targets = np.load(folder / "logits.npy"), np.load(folder / "targets.npy")
    summary = score_file(folder / "logits.npy", folder / "targets.npy").summary
    assert summary.accuracy == np.mean(logits.argmax(-1) == targets)
    assert summary.mean_nll == pytest.approx(specification(logits, targets)["nll"].mean(), rel=1e-7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": "1MB"}, "memory must be an integer, got '1MB'"),
        ({"block_rows": 1.5}, "block_rows must be an integer, got 1.5"),
        ({"ignore_index": None}, "ignore_index must be an integer, got None"),
        ({"logits": np.zeros((2, 3))}, "logits must be a path or a URL, got a ndarray"),
        ({"targets": [1, 2]}, "targets must be a path or a URL, got a list"),
        ({"groups": ""}, "groups must name a file, got ''"),
        ({"out": 3}, "out must be a path or a URL, got a int"),
        ({"bytes_file": 3}, "bytes_file must be a path or a URL, got a int"),
        ({"words_file": ""}, "words_file must name a file, got ''"),
        ({"sequences_out": ""}, "sequences_out must name a file, got ''"),
    ],
)
def test_arguments_of_another_type_are_named(tmp_path, options, message):
    np.save(tmp_path / "x.npy", np.zeros((2, 3)))
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        score_file(**{"logits": tmp_path / "x.npy"} | options)


def test_arguments_of_the_other_functions_are_named(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((2, 3)))
    with pytest.raises(InputError, match=r"^q must be a path or a URL, got a ndarray$"):
        compare_file(tmp_path / "x.npy", np.zeros((2, 3)))
    with pytest.raises(InputError, match=r"^source must be a path or a URL, got a ndarray$"):
        convert_file(np.zeros((2, 3)), tmp_path / "y.zarr")
    with pytest.raises(InputError, match=r"^memory must be an integer, got '1MB'$"):
        convert_file(tmp_path / "x.npy", tmp_path / "y.zarr", memory="1MB")
