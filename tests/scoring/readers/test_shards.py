"""Folders of any number of files: a few are open at a time."""

import os
import subprocess
import sys

import numpy as np
import pytest

from klce.scoring import InputError, convert_file, score_file
from klce.scoring.readers import open_reader, shards
from tests.scoring.readers.test_formats import SAVERS, save_zarr

SHARDS = 100

MANY = """
import os, resource, sys
from klce.scoring import compare_file, file_info, score_file

def run(shards):
    assert file_info(f"p/{shards}").rows == 100
    scores = score_file(f"p/{shards}", f"targets/{shards}")
    comparison = compare_file(f"p/{shards}", f"q/{shards}", block_rows=7)
    return scores.summary, comparison.summary

one = run(1)  # which opens what libraries keep open
allowed = len(os.listdir("/dev/fd")) + 80
resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, allowed))
assert run(100) == one
"""


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(size=(SHARDS, 3)).astype(np.float32)


@pytest.fixture
def two_at_a_time(monkeypatch):
    monkeypatch.setattr(shards, "OPEN_SHARDS", 2)


def save(folder, array, count=SHARDS, suffix=".npy", saver=np.save):
    folder.mkdir(parents=True)
    for i, part in enumerate(np.array_split(array, count)):
        saver(folder / f"{i}{suffix}", part)


@pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="descriptors are not listed")
@pytest.mark.parametrize(("suffix", "saver"), SAVERS)
def test_more_files_than_a_process_may_open(tmp_path, logits, suffix, saver):
    for count in (1, SHARDS):
        save(tmp_path / f"p/{count}", logits, count, suffix, saver)
        save(tmp_path / f"q/{count}", 2 * logits, count, suffix, saver)
        save(tmp_path / f"targets/{count}", np.arange(SHARDS) % 3, count)
    done = subprocess.run(
        [sys.executable, "-c", MANY], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.stderr, done.returncode) == ("", 0)


@pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="descriptors are not listed")
def test_more_base_files_than_a_process_may_open(tmp_path, logits):
    np.save(tmp_path / "tokens.npy", np.arange(SHARDS * 4).reshape(SHARDS, 4) % 3)
    for name, array in (("p", logits), ("q", 2 * logits)):
        np.save(tmp_path / "x.npy", array)
        for count in (1, SHARDS):
            folder = tmp_path / name / str(count)
            folder.mkdir(parents=True)
            for i in range(count):
                part = slice(i, i + 1) if count > 1 else slice(None)
                np.save(tmp_path / "x.npy", array[part])
                np.save(tmp_path / "tokens.npy", np.arange(SHARDS * 4).reshape(-1, 4)[part] % 3)
                convert_file(
                    tmp_path / "x.npy", folder / f"{i}.kld", tokens=tmp_path / "tokens.npy"
                )
    code = MANY.replace('f"targets/{shards}"', "None")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.stderr, done.returncode) == ("", 0)


def test_files_are_read_in_any_order(tmp_path, logits, two_at_a_time):
    save(tmp_path / "x", logits, 7)
    reader = open_reader(tmp_path / "x")
    for start, stop in ((0, 100), (90, 100), (3, 20), (50, 51), (0, 100)):
        np.testing.assert_array_equal(reader.read(start, stop, 1), logits[start:stop])


def test_a_view_outlives_its_file(tmp_path, logits, two_at_a_time):
    save(tmp_path / "x", logits, 10)
    reader = open_reader(tmp_path / "x")
    first = reader.read(0, 10, 1)
    reader.read(10, 100, 1)
    np.testing.assert_array_equal(first, logits[:10])


@pytest.mark.parametrize("other", [np.float32, np.float64])
def test_a_file_that_is_replaced_before_its_rows_are_read(tmp_path, logits, two_at_a_time, other):
    """One whose rows are mixed with those of another is nobody's."""
    save(tmp_path / "x", logits, 10)

    def progress(done, total):
        np.save(tmp_path / "new.npy", np.zeros((10, 3), other))
        os.replace(tmp_path / "new.npy", tmp_path / "x" / "5.npy")

    message = r"5\.npy: changed or replaced while others were read$"
    with pytest.raises(InputError, match=message):
        score_file(tmp_path / "x", block_rows=20, progress=progress)


def test_missing_chunks_are_looked_for_in_all_files(tmp_path, logits, two_at_a_time):
    save(tmp_path / "x", logits, 10, ".zarr", save_zarr)
    (tmp_path / "x" / "0.zarr" / "c" / "2" / "0").unlink()
    with pytest.raises(InputError, match=r"0\.zarr: chunk c/2/0 is missing"):
        score_file(tmp_path / "x")
