import sys

import pytest

from klce.scoring import InputError
from klce.scoring.locks import lock
from klce.scoring.whole import open_whole

if sys.platform == "win32":
    pytest.skip("needs locks", allow_module_level=True)


def test_two_runs_with_one_file(tmp_path):
    path = tmp_path / "a.npy"
    with open_whole(path) as file:
        file.write(b"one")
        with pytest.raises(InputError, match=rf"^{path}: another run is writing it$"):
            open_whole(path).__enter__()
        file.write(b"two")
    assert path.read_bytes() == b"onetwo"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("becomes", ["a.npy", None])
def test_a_run_that_ended_before_its_file_was_locked(tmp_path, becomes):
    path = tmp_path / ".a.npy.part"
    with path.open("a+b") as file:
        path.rename(tmp_path / becomes) if becomes else path.unlink()
        with pytest.raises(InputError, match=r"^a\.npy: another run is writing it$"):
            lock(file, path, "a.npy")


def test_what_a_killed_run_has_left_is_written_over(tmp_path):
    (tmp_path / ".a.npy.part").write_bytes(b"much longer")
    with open_whole(tmp_path / "a.npy") as file:
        file.write(b"one")
    assert (tmp_path / "a.npy").read_bytes() == b"one"
