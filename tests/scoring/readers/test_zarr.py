"""A chunk that is not there is not taken for zeros."""

import re
import shutil

import numpy as np
import pytest
import zarr

from klce.scoring import InputError, compare_file, convert_file, file_info, score_file

FORMATS = [
    (2, None, "2.0"),
    (3, None, "c/2/0"),
    (3, (100, 20), "c/2/0"),
]


@pytest.fixture
def folder(files):
    """Work in a folder of logits and labels of 1000 rows, the first labels 0."""
    np.save("targets.npy", np.where(np.arange(1000) < 200, 0, np.load("targets.npy")))
    return files


def save(path, values, zarr_format=3, shards=None, name=""):
    if name:
        zarr.create_group(path, zarr_format=zarr_format)
    zarr.create_array(
        path,
        name=name or None,
        data=values,
        chunks=(50, 20),
        shards=shards,
        zarr_format=zarr_format,
    )


@pytest.mark.parametrize(("zarr_format", "shards", "chunk"), FORMATS)
@pytest.mark.parametrize("name", ["", "deep/logits"])
def test_a_missing_chunk_of_logits_is_refused(folder, zarr_format, shards, chunk, name):
    save("a.zarr", np.load("logits.npy"), zarr_format, shards, name)
    place = f"a.zarr::{name}" if name else "a.zarr"
    whole = score_file(place, out="whole.npy")
    assert whole.summary == score_file("logits.npy").summary
    (folder / "a.zarr" / name / chunk).unlink()
    before = sorted(folder.iterdir())
    message = rf"^{place}: chunk {chunk} is missing, the first of 1: [^\n]*$"
    for run in (
        lambda: score_file(place, out="out.npy"),
        lambda: compare_file("logits.npy", place),
        lambda: compare_file(place, "logits.npy"),
        lambda: convert_file(place, "b.npy"),
    ):
        with pytest.raises(InputError, match=message):
            run()
    assert sorted(folder.iterdir()) == before
    assert re.match(message, file_info(place).why_not)


def test_a_missing_chunk_of_a_shard_is_refused(folder):
    for i in range(2):
        save(f"{i}.zarr", np.load("logits.npy"))
    (folder / "1.zarr/c/7/0").unlink()
    with pytest.raises(InputError, match=r"^1\.zarr: chunk c/7/0 is missing"):
        score_file("?.zarr")


def test_a_missing_chunk_behind_a_url_is_refused(folder):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    save("a.zarr", np.load("logits.npy"), name="x")
    memory.put("a.zarr", "/missing/a.zarr", recursive=True)
    place = "memory://missing/a.zarr"
    assert score_file(place).rows == 1000
    memory.rm("/missing/a.zarr/x/c/3/0")
    with pytest.raises(InputError, match=rf"^{place}::x: chunk c/3/0 is missing"):
        score_file(place)


def test_a_store_that_does_not_list_is_read(folder, monkeypatch):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    save("a.zarr", np.load("logits.npy"))
    memory.put("a.zarr", "/unlisted/a.zarr", recursive=True)

    def find(*arguments, **options):
        raise PermissionError("no")

    for found in (find, lambda *arguments, **options: []):
        monkeypatch.setattr(type(memory), "find", found)
        assert score_file("memory://unlisted/a.zarr").rows == 1000


def test_labels_may_lack_chunks_of_zeros(folder):
    zarr.create_array("targets.zarr", data=np.load("targets.npy"), chunks=(50,))
    assert not (folder / "targets.zarr/c/0").exists()
    scores = score_file("logits.npy", "targets.zarr")
    assert scores.summary == score_file("logits.npy", "targets.npy").summary
    convert_file("targets.zarr", "again.npy")
    np.testing.assert_array_equal(np.load("again.npy"), np.load("targets.npy"))


def test_logits_of_zeros_are_converted_with_all_chunks(folder):
    np.save("zeros.npy", np.zeros((1000, 20), np.float32))
    convert_file("zeros.npy", "zeros.zarr")
    assert score_file("zeros.zarr").summary == score_file("zeros.npy").summary
    shutil.rmtree("zeros.zarr/c")
    with pytest.raises(InputError, match="is missing"):
        score_file("zeros.zarr")
