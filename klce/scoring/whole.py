"""Files and folders that appear under their names only when they are whole.

Until then they are in the same folder under a hidden name.
"""

import contextlib
import errno
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from klce.scoring.errors import naming
from klce.scoring.locks import alone, lock


@contextlib.contextmanager
def open_whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write, which appears under its name if the block ends well."""
    final = path.resolve()  # a symbolic link stays one
    temporary = final.with_name(f".{final.name}.part")
    with naming(path, temporary), open(temporary, "wb", opener=_not_emptied) as file:
        lock(file, temporary, path)
        try:
            file.truncate()
            yield file
            to_disk(file)
            if sys.platform == "win32":  # where no open file is renamed; elsewhere, the lock lasts
                file.close()
            give_name(temporary, final)
        except BaseException:
            with contextlib.suppress(OSError):  # another error says why it is not there
                temporary.unlink()
            raise


def to_disk(file: BinaryIO) -> None:
    """Let all of a file reach the disk: under its name it is whole even if power is lost."""
    file.flush()
    _sync(file.fileno())


def give_name(source: Path, target: Path) -> None:
    """Give a file or a folder its name, on the disk too: what it was made of may go then."""
    os.replace(source, target)
    if sys.platform != "win32":  # where no folder can be opened
        try:
            folder = os.open(target.parent, os.O_RDONLY)
        except PermissionError:  # it can be written but not listed, and the name is there already
            return
        try:
            _sync(folder)
        finally:
            os.close(folder)


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system without it
            raise


def _not_emptied(path: str, flags: int) -> int:
    """Open a file that another run may be writing."""
    return os.open(path, flags & ~os.O_TRUNC, 0o666)


@contextlib.contextmanager
def open_whole_folder(path: Path) -> Iterator[Path]:
    """Make a folder, which appears under its name if the block ends well; yield it until then."""
    temporary = path.with_name(f".{path.name}.part")
    with alone(path):
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            with naming(path, temporary):
                yield temporary
                give_name(temporary, path)
        finally:
            _remove(temporary)


def _remove(folder: Path) -> None:
    """Remove a folder to which threads of Zarr may for a moment write on, whatever stopped it."""
    for _ in range(100):
        if not folder.exists():
            return
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.02)  # enough for a chunk on its way to make the folder anew
