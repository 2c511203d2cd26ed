"""What can be wrong with what a user hands in: one sentence each, naming the file; and warnings."""

import contextlib
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType


class InputError(ValueError):
    """A file or an option that cannot be scored."""


class LabelError(InputError, IndexError):
    """A label that names no class (an IndexError too, as everywhere in klce)."""


class Interrupted(KeyboardInterrupt):
    """A run was stopped by Ctrl-C; the rows that it had finished are kept.

    Attributes
    ----------
    finished, rows : int
        Rows finished, and rows in all.
    """

    def __init__(self, finished: int, rows: int) -> None:
        super().__init__(f"{finished:,} of {rows:,} rows are finished")
        self.finished, self.rows = finished, rows


@contextlib.contextmanager
def in_one_sentence() -> Iterator[None]:
    """Say what klce's functions refuse of an option in their words, as an `InputError`."""
    try:
        yield
    except (IndexError, TypeError, ValueError) as error:
        raise InputError(str(error)) from None


_PASSED_THROUGH = ("klce", "numpy", "contextlib")
"""What a call of klce passes through: NumPy and contextlib have functions that decorate its own."""


def warn(text: str) -> None:
    """Warn in the name of whoever called klce, from however deep within."""
    frame: FrameType | None = sys._getframe()
    level = 1
    while frame and frame.f_globals.get("__name__", "").partition(".")[0] in _PASSED_THROUGH:
        frame, level = frame.f_back, level + 1
    warnings.warn(text, stacklevel=level)


_LONGEST = 300
"""Characters of what another library says: some quote the bytes that they could not make out."""


def one_line(error: BaseException) -> str:
    """Return what another library says of an error, as part of a sentence."""
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


@contextlib.contextmanager
def naming(place: Path | str, hidden: Path | None = None) -> Iterator[None]:
    """Let errors of the system name `place`, where they name no file or the `hidden` one behind it.

    A full disk names none, and whoever knows `place` need not know of `hidden`: a file or a folder.
    """
    try:
        yield
    except OSError as error:
        named = error.filename is not None and not (
            hidden is not None and Path(str(error.filename)).is_relative_to(hidden)
        )
        if named or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(place)) from error
