"""What can be wrong with what a user hands in: one sentence each, naming the file."""

import contextlib
from collections.abc import Iterator


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
