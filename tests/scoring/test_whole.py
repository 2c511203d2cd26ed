"""Results that appear under their names when they are whole."""

import errno
import os
import stat
import sys
from pathlib import Path

import numpy as np
import pytest

from klce.scoring import score_file

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no folder can be opened there")


@pytest.fixture(params=["rows.npy", "rows.csv", "rows/"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return a place for results, in a folder of their own."""
    (tmp_path / "results").mkdir()
    return f"{tmp_path}/results/{request.param}"


def score(out: str) -> None:
    folder = Path(out).parent
    np.save(folder.with_name("logits.npy"), np.eye(3))
    score_file(folder.with_name("logits.npy"), out=out)


def test_the_name_of_results_reaches_the_disk(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[int, bool]] = []
    sync = os.fsync

    def note(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            synced.append((os.fstat(descriptor).st_ino, Path(out).exists()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    score(out)
    assert (Path(out).parent.stat().st_ino, True) in synced


def test_results_in_a_folder_that_cannot_be_listed(
    out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can be written to, but not opened to be synced; the superuser can open any."""
    folder = Path(out).parent
    refused = []
    open_file = os.open

    def refuse(path: str | Path, flags: int, *mode: int, **options: int) -> int:
        if Path(path) == folder and not flags & (os.O_WRONLY | os.O_RDWR):
            refused.append(path)
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
        return open_file(path, flags, *mode, **options)

    monkeypatch.setattr(os, "open", refuse)
    score(out)
    assert refused
    assert [path.name for path in folder.iterdir()] == [Path(out).name]
