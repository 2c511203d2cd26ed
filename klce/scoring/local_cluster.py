"""A Dask cluster on this machine for one run, whose workers end with it: at once if it stops."""

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker
from typing import Any

from klce.scoring.optional import library

_CLOSE_SECONDS = 10
_LOOK_AGAIN_SECONDS = 0.05


@contextlib.contextmanager
def local_cluster(workers: int) -> Iterator[str]:
    """Start a scheduler in this process and workers in processes of a thread each.

    Yields the scheduler's address. The workers may still be on their way. If the block ends by an
    exception, Ctrl-C above all, they are killed: asked to close, each would finish its block; and
    Dask stays silent.
    """
    distributed = library("distributed", "engine dask")
    nannies: list[Any] = []
    # A cluster that is closed lets its loggers speak again, of connections it has yet to lose.
    logger = logging.getLogger("distributed")
    level = logger.level
    logger.setLevel(logging.CRITICAL)

    class Nanny(distributed.Nanny):  # type: ignore[misc, name-defined]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            nannies.append(self)

    with _interrupts_held_back():
        cluster = distributed.LocalCluster(
            n_workers=0,
            threads_per_worker=1,
            worker_class=Nanny,
            # Pages of a mapped file would count, and the system takes those back by itself.
            memory_limit=0,
            dashboard_address="localhost:0",  # a free port, for the server of pages without them
            scheduler_kwargs={"dashboard": False},
            silence_logs=logging.CRITICAL,  # of the workers too
        )
    try:
        cluster.scale(workers)
        yield cluster.scheduler_address
    except BaseException:
        closing = threading.Thread(target=_close, args=(cluster,), daemon=True)
        closing.start()
        while closing.is_alive():  # a worker may have been about to start
            _kill(nannies)
            closing.join(_LOOK_AGAIN_SECONDS)
        raise
    cluster.close()
    logger.setLevel(level)


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Let threads that begin now, and so the processes that they start, not hear of Ctrl-C.

    A terminal sends it to the workers too. They would die of it with a traceback each, and others
    be started in their place, while the run is closing its cluster.
    """
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # it lets the thread that starts it hear again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _close(cluster: Any) -> None:
    with contextlib.suppress(Exception):  # a worker that died on its way is none to complain of
        cluster.close(_CLOSE_SECONDS)


def _kill(nannies: list[Any]) -> None:
    for nanny in nannies:
        if nanny.status.name == "running":
            nanny.close_gracefully()  # or it would start its worker again
        if nanny.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(nanny.pid, signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
