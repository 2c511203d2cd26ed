"""What a run reads is what it is known by."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from klce.scoring import InputError, Interrupted, blocks, score_file
from klce.scoring.identity import Identity, fingerprint
from tests.scoring.runs import stop_after


@pytest.fixture
def shards(files):
    """Work in a folder with the logits in two files of a folder."""
    (files / "shards").mkdir()
    for i, part in enumerate(np.array_split(np.load("logits.npy"), 2)):
        np.save(f"shards/{i}.npy", part)
    return files / "shards"


def score(**options):
    return score_file("shards", "targets.npy", out="shards/out.csv", block_rows=100, **options)


def test_a_run_with_its_results_among_the_shards_goes_on(shards):
    with pytest.raises(Interrupted):
        score(progress=stop_after(400))
    (shards / "log.txt").write_text("of another program")
    (shards / "deep").mkdir()
    np.save("shards/deep/2.npy", np.ones((3, 20)))
    assert score(resume=True).resumed_rows == 400


def test_a_file_that_is_new_gone_or_changed_is_named(shards):
    with pytest.raises(Interrupted):
        score(progress=stop_after(400))
    np.save("shards/2.npy", np.ones((0, 20), np.float32))
    with pytest.raises(InputError, match=rf": LOGITS has a new file \({shards}/2\.npy\); start"):
        score(resume=True)
    Path("shards/2.npy").unlink()
    Path("shards/0.npy").rename("0.npy")
    np.save("targets.npy", np.zeros(500, int))
    with pytest.raises(InputError, match=rf": LOGITS has lost a file \({shards}/0\.npy\), TARG"):
        score(resume=True)
    Path("0.npy").rename("shards/0.npy")
    os.utime("shards/1.npy", ns=(0, 0))
    np.save("targets.npy", np.zeros(1000, int))
    with pytest.raises(InputError, match=rf": LOGITS has changed since \({shards}/1\.npy\), TARG"):
        score(resume=True)


def test_a_file_that_was_copied_back_with_its_time_is_the_same(shards):
    with pytest.raises(Interrupted):
        score(progress=stop_after(400))
    shutil.copy2("shards/1.npy", "copy.npy")
    Path("copy.npy").replace("shards/1.npy")
    Path("shards/0.npy").chmod(0o600)
    assert score(resume=True).resumed_rows == 400


def test_only_what_is_read_counts(shards):
    zarr.create_array("a.zarr", data=np.ones((4, 3)), chunks=(2, 3))
    for folder in ("shards", "shards/*", f"file://{shards}"):
        before, identity = fingerprint(folder), Identity.of(folder)
        for name in ("log.txt", ".hidden.npy", "_part.npy"):
            (shards / name).write_text("new")
        assert (fingerprint(folder), Identity.of(folder)) == (before, identity)
        assert [Path(path).name for path, *_ in before[1]] == ["0.npy", "1.npy"]
    before, identity = fingerprint("a.zarr"), Identity.of("a.zarr")
    Path("a.zarr/c/1/0").unlink()
    assert fingerprint("a.zarr") != before
    assert Identity.of("a.zarr") != identity


def test_only_what_is_read_counts_behind_a_url(shards):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    zarr.create_array("a.zarr", data=np.ones((4, 3)), chunks=(2, 3))
    memory.put("shards", "/identity/shards", recursive=True)
    memory.put("a.zarr", "/identity/a.zarr", recursive=True)
    for place, other, counts in (
        ("memory://identity/shards", "/identity/shards/log.txt", False),
        ("memory://identity/shards/*.npy", "/identity/shards/log.txt", False),
        ("memory://identity/shards", "/identity/shards/2.npy", True),
        ("memory://identity/a.zarr", "/identity/a.zarr/c/0/0", True),
    ):
        before = Identity.of(place)
        memory.pipe(other, b"new")
        assert (Identity.of(place) != before) == counts


@pytest.mark.parametrize("engine", ["local", "dask"])
def test_where_files_end_changes_no_bits(files, monkeypatch, engine):
    """Though blocks end there, before a run is interrupted and after."""
    (files / "p").mkdir()
    for i, part in enumerate(np.split(np.load("logits.npy"), [1, 3, 300, 450, 451, 999])):
        np.save(f"p/{i}.npy", part)
    monkeypatch.setattr(blocks, "_JOINED_BYTES", 200)
    one = score_file("logits.npy", "targets.npy", out="one.npy", engine=engine)
    with pytest.raises(Interrupted, match=r"^450 of 1,000"):
        score_file("p", "targets.npy", out="p.npy", engine=engine, progress=stop_after(450))
    several = score_file("p", "targets.npy", out="p.npy", engine=engine, resume=True)
    assert several.resumed_rows == 450
    assert several.summary == one.summary
    assert Path("p.npy").read_bytes() == Path("one.npy").read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="needs folders whose open files are renamed")
def test_a_file_whose_folder_is_no_more_stays_what_it_was(files):
    Path("folder").mkdir()
    Path("logits.npy").rename("folder/logits.npy")

    def replace(done, total):
        Path("folder").rename("renamed")
        Path("folder").write_text("a file")

    assert score_file("folder/logits.npy", progress=replace).rows == 1000
