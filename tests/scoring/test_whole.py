"""Results that appear under their names when they are whole."""

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
