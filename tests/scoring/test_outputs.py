"""Places of outputs that are refused before any work."""

import errno
import re
from pathlib import Path

import pytest

from klce.scoring import InputError
from klce.scoring.outputs import check_outputs, check_results_path
from klce.scoring.readers import Location


def test_refused_paths(tmp_path):
    source = tmp_path / "in.npy"
    source.touch()
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "link.npy").symlink_to(source)
    (tmp_path / "hard.npy").hardlink_to(source)
    for name, message in [
        ("r.txt", r"r\.txt: not a file type .* \(\.npy, \.csv, .*\)"),
        ("r", "not a file type"),
        ("folder.csv", "is a folder"),
        ("nowhere/r.npy", "there is no folder .*nowhere"),
        ("in.npy", r"results would replace the input .*in\.npy"),
        ("link.npy", "results would replace the input"),
        ("hard.npy", "results would replace the input"),
    ]:
        with pytest.raises(InputError, match=message):
            check_results_path(tmp_path / name, [Location(str(source))])
    check_results_path(tmp_path / "new.npy", [Location(str(source))])


def test_results_are_no_part_of_an_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("shards/deep/er", "a.zarr/c", "a.zarr/_d"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("shards/1.npy", "shards/deep/er/1.npy", "part-1.npy"):
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to("shards")
    for place, taken, free in [
        ("shards", ["shards/out.npy", "link/out.parquet"],
         ["shards/out.csv", "shards/.o.npy", "shards/_o.npy", "shards/deep/out.npy", "out.npy"]),
        ("link/*.npy", ["shards/out.npy", "link/out.npy"], ["shards/out.arrow", "out.npy"]),
        ("part-?.npy", ["part-2.npy"], ["part-10.npy", "shards/part-2.npy"]),
        ("shards/**/1*", ["shards/deep/12.npy", "shards/12.npy"], ["shards/deep/2.npy", "12.npy"]),
        ("**/part-1*", ["part-10.npy", "shards/part-1.npy"], ["part-2.npy"]),
        ("shards/**", ["shards/deep/er/out.npy"], ["out.npy", "shards/deep/out.csv"]),
        ("a.zarr", ["a.zarr/out.csv", "a.zarr/c/out.npy"], ["out.npy"]),
        ("part-1.npy", [], ["part-2.npy"]),
    ]:  # fmt: skip
        for name in taken:
            message = rf"^{name}: results would become a part of the input {re.escape(place)}$"
            with pytest.raises(InputError, match=message):
                check_results_path(Path(name), [Location(place)])
        for name in free:
            check_results_path(Path(name), [Location(place)])


def test_urls_are_named_as_they_were_written():
    for url in ("s3://bucket/r.npy", "file:///folder/r.npy"):
        with pytest.raises(InputError, match=f"^{url}: output goes to local files only"):
            check_results_path(Path(url), [])


@pytest.mark.parametrize("place", ["loop.csv", "there.csv"])
def test_links_that_lead_in_a_circle(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    Path("loop.csv").symlink_to("loop.csv")
    Path("there.csv").symlink_to("back.csv")
    Path("back.csv").symlink_to("there.csv")
    for check in (
        lambda: check_results_path(place, []),
        lambda: check_outputs(place, False, {}),
        lambda: check_outputs("out.csv", False, {}, [place]),
        lambda: check_outputs("rows/", False, {}, [f"{place}/r.html"]),
    ):
        with pytest.raises(OSError, match=re.escape(place)) as caught:
            check()
        assert caught.value.errno == errno.ELOOP


def test_links_to_what_is_not_there_yet(tmp_path):
    (tmp_path / "link.csv").symlink_to("real.csv")
    check_results_path(tmp_path / "link.csv", [])
    check_outputs(tmp_path / "link.csv", False, {}, [tmp_path / "no" / "r.html"])
    with pytest.raises(InputError, match="the outputs need a place each"):
        check_outputs(tmp_path / "link.csv", False, {}, [tmp_path / "real.csv"])
