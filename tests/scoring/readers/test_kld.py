import struct
from pathlib import Path

import numpy as np
import pytest

from klce.scoring import InputError, compare_file, convert_file, file_info, kld, score_file
from klce.scoring.readers import open_reader

EXAMPLE = Path(__file__).parents[3] / "examples" / "lm"
BASE = EXAMPLE / "base.kld"


def test_log_probabilities_are_those_of_the_logits():
    reader = open_reader(BASE)
    assert reader.shape == (105, 3001)
    got = reader.read(0, 105, 1)
    x = np.load(EXAMPLE / "base_logits.npy").astype(np.float64)
    expected = x - np.log(np.exp(x).sum(1, keepdims=True))
    above = expected > expected.max(1, keepdims=True) - 16
    step = 16 / 65535
    np.testing.assert_allclose(got[above], expected[above], atol=step / 2 + 1e-5)
    assert (got[~above] >= expected[~above]).all()
    np.testing.assert_array_equal(reader.read(7, 9, 1), got[7:9])
    np.testing.assert_array_equal(reader.read(5000, 9000, 2), got.reshape(-1)[5000:9000])


def test_targets_and_groups():
    np.testing.assert_array_equal(
        open_reader(f"{BASE}::targets").read(0, 105, 1), np.load(EXAMPLE / "targets.npy")
    )
    np.testing.assert_array_equal(
        open_reader(f"{BASE}::groups").read(0, 105, 1), np.repeat(range(3), 35)
    )
    assert open_reader(f"{BASE}::tokens").shape == (3, 71)


@pytest.fixture
def shards(tmp_path):
    """Return a folder of the base file twice."""
    (tmp_path / "shards").mkdir()
    for i in range(2):
        (tmp_path / "shards" / f"{i}.kld").write_bytes(BASE.read_bytes())
    return tmp_path / "shards"


def test_shards_are_one_file_whose_chunks_are_numbered_through(shards):
    for name in ("log_probs", "targets", "tokens"):
        one, both = open_reader(f"{BASE}::{name}"), open_reader(f"{shards}::{name}")
        rows = one.read(0, one.shape[0], 1)
        assert both.shape == (2 * one.shape[0], *one.shape[1:])
        np.testing.assert_array_equal(both.read(0, both.shape[0], 1), np.concatenate([rows, rows]))
    groups = open_reader(f"{shards}/*.kld::groups").read(0, 210, 1)
    np.testing.assert_array_equal(groups, np.repeat(range(6), 35))
    scores = score_file(shards, groups=f"{shards}::groups")
    assert scores.sequences.tokens.tolist() == [35] * 6
    info = file_info(shards)
    assert info.kld == {"n_ctx": 71, "n_vocab": 3001, "n_chunk": 6, "cut": 16}


def test_shards_of_other_chunks_are_refused(shards):
    layout = kld.Layout(5, 3001, 1)
    with (shards / "2.kld").open("wb") as file:
        kld.write_header(file, layout, np.zeros((1, 5), int))
        file.write(bytes(layout.size - layout.rows_offset))
    message = (
        r"2\.kld: chunks of 5 tokens of 3,001 do not continue those of .*0\.kld, of 71 of 3,001"
    )
    with pytest.raises(InputError, match=message):
        open_reader(shards)


def test_scored_with_its_own_targets():
    report = score_file(BASE)
    assert report.targets == f"{BASE}::targets"
    assert report.summary.perplexity == pytest.approx(64.344084, rel=1e-5)


def test_bytes_that_are_read_are_those_of_the_file(tmp_path):
    def told(run, *places):
        calls = []
        report = run(BASE, *places, progress=lambda *call: calls.append(call))
        (size,) = {size for _, size in calls}
        assert calls[-1] == (size, size)
        return size, report

    size = 105 * open_reader(BASE).layout.row_bytes
    for times, run, *places in ((1, score_file), (2, compare_file, BASE)):
        total, report = told(run, *places)
        assert total == report.read_bytes == times * size
    assert told(convert_file, tmp_path / "a.zarr")[0] == size


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BASE.read_bytes()[:-1], "truncated: 632,131 bytes, where its header needs 632,132"),
        (BASE.read_bytes()[:5000], "truncated: 5,000 bytes"),
        (BASE.read_bytes() + b"x", "too long: 632,133 bytes"),
        (BASE.read_bytes()[:12], "header is damaged or truncated"),
        (b"_logits_" + struct.pack("<3i", 71, -3, 1), "header is damaged"),
        (b"_logits_" + struct.pack("<3i", 71, 2**31 - 1, 1), "damaged .* n_vocab 2147483647"),
        (b"_logits_" + struct.pack("<3i", 2, 2**30, 0), "damaged .* n_vocab 1073741824"),
        (b"_logitz_" + BASE.read_bytes()[8:], "not a base file of llama.cpp"),
    ],
)
def test_damaged(tmp_path, content, message):
    (tmp_path / "a.kld").write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_reader(tmp_path / "a.kld")
