"""The terminal of the command line: what is printed to it, a bar of progress, and Ctrl-C."""

import contextlib
import errno
import io
import os
import sys
import time
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.progress import Progress

PROGRESS_AFTER_SECONDS = 1.0
"""How long a run takes before there is a bar."""


def complain(message: str) -> None:
    """Say on stderr what is wrong."""
    print(f"klce: {message}", file=sys.stderr)


class _Closed(io.TextIOBase):
    """Stands for a stdout that is closed, of which Python makes None and prints nothing to."""

    def write(self, _: str) -> int:
        raise OSError(errno.EBADF, "is closed", "stdout")


def prepare_stdout() -> None:
    """Let stdout say that it is closed, and show what its encoding cannot by question marks.

    There is one for each character, as of a name that is no UTF-8, so that tables keep their
    columns. stderr has escapes of its own.
    """
    if sys.stdout is None:
        sys.stdout = _Closed()
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None and sys.stdout.errors in ("strict", "surrogateescape"):
        reconfigure(errors="replace")


def check_stdout() -> None:
    """Refuse a stdout that is closed before what it is to show is computed."""
    if isinstance(sys.stdout, _Closed):
        sys.stdout.write("")


def stop_printing(error: OSError) -> int:
    """Give up stdout, so that Python does not try once more at its end; return the status."""
    with contextlib.suppress(OSError):  # it may be no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):  # whom it was for has seen enough, as `head` has
        return 0
    complain(f"stdout: {error.strerror}")
    return 2


@contextlib.contextmanager
def interrupt_in_one_line() -> Iterator[None]:
    """End at Ctrl-C with the status of that."""
    try:
        yield
    except KeyboardInterrupt:  # of which Click says nothing, or an empty line
        end_at_interrupt("")
        raise click.exceptions.Exit(130) from None


def end_at_interrupt(what: str) -> None:
    """Say in one line what was interrupted: libraries that are stopped midway would say more."""
    import logging

    complain(f"interrupted{what}")
    warnings.simplefilter("ignore")  # as Zarr's, of a coroutine that was never awaited
    logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)  # or of a task still pending


def _make_bar() -> "Progress":
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


class ProgressBar:
    """A bar on stderr, if that is a terminal, once a run has taken a second."""

    def __init__(self, task: str, *, enabled: bool) -> None:
        self._task = task
        self._enabled = enabled and sys.stderr.isatty()
        self._begin = time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> "ProgressBar":
        return self

    def update(self, done: int, total: int) -> None:
        """Show that `done` bytes of `total` are done: after the last, results are to be written."""
        if not self._enabled:
            return
        if self._bar is None:
            if time.monotonic() - self._begin < PROGRESS_AFTER_SECONDS:
                return
            self._bar = _make_bar()
            self._bar.add_task(self._task, total=total)
            self._bar.start()
        task = "finishing" if done == total else self._task
        self._bar.update(self._bar.task_ids[0], completed=done, description=task)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
