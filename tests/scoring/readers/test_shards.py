"""Folders of any number of files: a few are open at a time."""

import os
import subprocess
import sys
import weakref

import fsspec
import numpy as np
import pyarrow as pa
import pytest
import zarr

from klce.scoring import InputError, convert_file, file_info, score_file
from klce.scoring.readers import Location, column, open_reader, parquet, shards
from tests.scoring.readers.test_formats import SAVERS, save_table, save_zarr

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


def test_a_file_that_was_replaced_is_refused_each_time(tmp_path, logits, two_at_a_time):
    save(tmp_path / "x", logits, 10)
    reader = open_reader(tmp_path / "x")
    np.save(tmp_path / "new.npy", np.zeros((10, 3), np.float32))
    os.replace(tmp_path / "new.npy", tmp_path / "x" / "5.npy")
    for _ in range(2):
        with pytest.raises(InputError, match=r"5\.npy: changed or replaced"):
            reader.read(50, 60, 1)
    np.testing.assert_array_equal(reader.read(60, 70, 1), logits[60:70])


def test_a_file_behind_a_url_that_is_replaced(tmp_path, logits, two_at_a_time):
    memory = fsspec.filesystem("memory")
    save(tmp_path / "x", logits, 10)
    memory.put(str(tmp_path / "x"), "/replaced", recursive=True)
    reader = open_reader("memory://replaced")
    np.testing.assert_array_equal(reader.read(0, 100, 1), logits)
    memory.pipe("/replaced/5.npy", (tmp_path / "x" / "4.npy").read_bytes())
    for _ in range(2):
        with pytest.raises(InputError, match=r"5\.npy: changed or replaced"):
            reader.read(50, 60, 1)


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ({"size": 1, "ETag": "a", "LastModified": 1}, {"size": 1, "ETag": "a"}, True),
        ({"size": 1, "ETag": "a"}, {"size": 1, "ETag": "b"}, False),
        ({"size": 1, "ETag": "a"}, {"size": 2, "ETag": "a"}, False),
        ({"size": 1, "mtime": 1.0}, {"size": 1, "mtime": 2.0}, False),
        ({"size": None}, {}, True),
    ],
)
def test_what_stores_tell_of_a_file(monkeypatch, before, after, same):
    memory = fsspec.filesystem("memory")
    told, forgotten = iter([before, after]), []
    monkeypatch.setattr(memory, "info", lambda path: next(told))
    monkeypatch.setattr(memory, "invalidate_cache", forgotten.append)
    location = Location("memory://a.npy")
    state = location.state()
    assert not forgotten
    assert (location.state(again=True) == state) == same
    assert forgotten == ["/a.npy"]


def test_missing_chunks_are_looked_for_in_all_files(tmp_path, logits, two_at_a_time):
    save(tmp_path / "x", logits, 10, ".zarr", save_zarr)
    (tmp_path / "x" / "0.zarr" / "c" / "2" / "0").unlink()
    with pytest.raises(InputError, match=r"0\.zarr: chunk c/2/0 is missing"):
        score_file(tmp_path / "x")


def test_files_with_other_arrays_are_refused_as_such(tmp_path):
    """And not for what the first of them lacks."""
    np.savez(tmp_path / "0.npz", a=np.ones((2, 3)), b=np.ones((2, 3)))
    np.savez(tmp_path / "1.npz", logits=np.ones((2, 3)))
    told = r"1\.npz: its arrays are logits, those of .*0\.npz a, b$"
    for look, place in ((open_reader, ""), (open_reader, "::logits"), (file_info, "")):
        with pytest.raises(InputError, match=told):
            look(f"{tmp_path}{place}")
    np.savez(tmp_path / "1.npz", a=np.ones((2, 3)), b=np.ones((2, 4)))
    with pytest.raises(InputError, match=r": holds 2 arrays \('a', 'b'\), not 'c'$"):
        open_reader(f"{tmp_path}::c")
    with pytest.raises(InputError, match=r": holds 2 arrays \('a', 'b'\); name one, as in .*::a$"):
        open_reader(tmp_path)
    a, b = file_info(tmp_path).arrays
    assert (a.shape, a.dtype, a.bytes) == ((4, 3), "float64", 96)
    assert (b.shape, b.dtype, b.bytes) == (None, None, None)  # they do not continue one another


@pytest.mark.parametrize(
    ("suffix", "saver", "shown"),
    [
        (".npz", lambda path, array: np.savez(path, logits=array), "::logits"),
        (".zarr", lambda path, array: zarr.save_group(path, logits=array), "::logits"),
        (".npy", np.save, ""),
    ],
)
def test_arrays_of_a_folder_are_named_as_those_of_a_file(tmp_path, suffix, saver, shown):
    folder = tmp_path / "x"
    save(folder, np.ones((10, 3)), 2, suffix, saver)
    for file in (f"{folder}", f"{folder}/*{suffix}", f"{folder}/0{suffix}"):
        for place in (file, f"{file}{shown}"):
            assert open_reader(place).path == f"{file}{shown}"
            assert file_info(place).scored == f"{file}{shown}"


def test_info_opens_each_file_of_tables_twice(tmp_path, monkeypatch):
    for i in range(3):
        save_table(tmp_path / f"{i}.parquet", pa.table({name: [1.0, 2.0] for name in "abcdefghij"}))
    opened, real = [], parquet.ParquetFile.__init__
    monkeypatch.setattr(
        parquet.ParquetFile,
        "__init__",
        lambda self, location: opened.append(location.file) or real(self, location),
    )
    assert {array.shape for array in file_info(tmp_path).arrays} == {(6,)}
    assert len(opened) == 3 * 2 + 2


@pytest.mark.parametrize("step", [1, 3, 4, 7, 10])
def test_a_stream_that_was_read_to_its_end_decodes_no_longer(step):
    """As those of files that stay open after it, of which each would keep what it decodes with."""
    array = np.arange(10)
    groups, opened = [pa.array(part) for part in np.split(array, [4, 4, 7])], []

    def open_at(group):
        batches = (batch for batch in groups[group:])
        opened.append(weakref.ref(batches))
        return batches

    stream = column.Stream(open_at, [4, 4, 7, 10])
    for begin in (0, 5, 0):
        for start in range(begin, 10, step):
            assert begin == start or opened[-1]() is not None
            stop, values = min(start + step, 10), []
            parts = stream.parts(start, stop)
            while sum(map(len, values)) < stop - start:  # and no further, as a column is read
                values.append(next(parts))
            np.testing.assert_array_equal(np.concatenate(values), array[start:stop])
            del parts
        assert opened.pop()() is None
        assert not opened
