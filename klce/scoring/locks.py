"""Two runs with one output: the second is refused, wherever the file system has locks."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from klce.scoring.errors import InputError, naming
from klce.scoring.readers import StrPath

if sys.platform != "win32":  # where such runs are not noticed
    import fcntl


def lock(file: BinaryIO, path: Path, place: StrPath) -> None:
    """Lock the open file `path` of the output `place`, or refuse: for as long as it is open.

    Where the other run ended just before, it has taken the name from the file, or given it another.
    """
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        alone = os.path.samestat(os.fstat(file.fileno()), path.stat())
    except (BlockingIOError, FileNotFoundError):
        alone = False
    except OSError:
        return  # a file system without locks
    if not alone:
        file.close()
        raise InputError(f"{place}: another run is writing it")


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Refuse a second run with the output `path`, a folder: for as long as the block takes.

    The lock is of a hidden file beside it, as a folder that is removed and made anew keeps none.
    """
    if sys.platform == "win32":
        yield
        return
    guard = path.with_name(f".{path.name}.lock")
    with naming(path, guard), guard.open("ab") as file:
        lock(file, guard, path)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # another error says what is wrong
                guard.unlink()
