"""Files without a name, for as long as a run takes: in the folder of temporary files."""

import contextlib
import tempfile
from collections.abc import Iterator
from typing import BinaryIO


def scratch_file() -> BinaryIO:
    """Open such a file."""
    with scratch_errors():
        return tempfile.TemporaryFile()


@contextlib.contextmanager
def scratch_errors() -> Iterator[None]:
    """Let errors of the system name the folder, and how to have another."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        reason = f"{error.strerror} for temporary files; TMPDIR can name another folder"
        raise OSError(error.errno, reason, tempfile.gettempdir()) from error


def give_up(file: BinaryIO) -> None:
    """Close a file whose content is no longer wanted: what a full disk did not take, neither."""
    with contextlib.suppress(OSError):
        file.close()
