"""Results that appear under their names when they are whole."""

import errno
import os
import stat
import sys
from pathlib import Path

import numpy as np
import pytest

from klce.scoring import score_file


@pytest.mark.skipif(sys.platform == "win32", reason="no folder can be opened there")
@pytest.mark.parametrize("name", ["rows.npy", "rows.csv", "rows/"])
def test_the_name_of_results_reaches_the_disk(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name.endswith("/"):
        pytest.importorskip("pyarrow")
    np.save(tmp_path / "logits.npy", np.eye(3))
    place = tmp_path / "results" / name
    place.parent.mkdir()
    synced: list[tuple[int, bool]] = []
    sync = os.fsync

    def note(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            synced.append((os.fstat(descriptor).st_ino, place.exists()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    score_file(tmp_path / "logits.npy", out=f"{tmp_path}/results/{name}")
    assert (place.parent.stat().st_ino, True) in synced


@pytest.mark.skipif(sys.platform == "win32", reason="no folder can be opened there")
@pytest.mark.parametrize("name", ["rows.npy", "rows.csv", "rows/"])
def test_results_in_a_folder_that_cannot_be_listed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can be written to, but not opened to be synced; the superuser can open any."""
    if name.endswith("/"):
        pytest.importorskip("pyarrow")
    np.save(tmp_path / "logits.npy", np.eye(3))
    folder = tmp_path / "results"
    folder.mkdir()
    refused = []
    open_file = os.open

    def refuse(path: str | Path, flags: int, *mode: int, **options: int) -> int:
        if Path(path) == folder and not flags & (os.O_WRONLY | os.O_RDWR):
            refused.append(path)
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
        return open_file(path, flags, *mode, **options)

    monkeypatch.setattr(os, "open", refuse)
    score_file(tmp_path / "logits.npy", out=f"{folder}/{name}")
    assert refused
    assert [path.name for path in folder.iterdir()] == [name.rstrip("/")]
