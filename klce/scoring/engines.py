"""Where the blocks of a run are computed: in this process, or on the workers of Dask distributed.

An engine hands over the blocks' results in the order of the rows, whatever the order they were
finished in. So all that comes behind it is the same for each: the summary, the journal and the
files. A worker opens the files itself and reads the rows of its blocks, no others; only results
travel. The result of a row depends on the row alone, so who computed it cannot be told, and what a
lost worker had is computed again by another.
"""

import contextlib
import functools
import hashlib
import threading
import uuid
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

import klce
from klce import _ufuncs
from klce.scoring.compare_columns import COMPARED
from klce.scoring.errors import InputError, one_line
from klce.scoring.files import Files, Task
from klce.scoring.identity import Identity
from klce.scoring.optional import library

ENGINES = ("local", "dask")
"""Where a run can compute."""

_CONNECT_SECONDS = 10
_WORKERS_SECONDS = 30
_BLOCKS_PER_THREAD = 2  # one to compute, and one that waits for it


class Engine(Protocol):
    """Computes blocks.

    Attributes
    ----------
    isas : tuple of str
        The instruction sets in use.
    arithmetic : str
        What names the bits of their results: see `Arithmetic`.
    """

    isas: tuple[str, ...]
    arithmetic: str

    def tables(self, files: Files, spans: Iterable[tuple[int, int]]) -> Generator[NDArray[Any]]:
        """Yield the results of the blocks, in their order."""
        ...


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """How a process computes.

    Attributes
    ----------
    version : str
        Of klce.
    isa : str
        Its instruction set.
    digest : str
        Of the bits of some results. Instruction sets that agree bit for bit (AVX2, AVX-512 and
        NEON) have the same, the baseline of x86-64 has another.
    """

    version: str
    isa: str
    digest: str

    @classmethod
    def here(cls) -> "Arithmetic":
        """Return that of this process."""
        isa = _ufuncs.active_isa()
        return cls(klce.__version__, isa, _digest(isa))

    def __str__(self) -> str:
        return f"klce {self.version} with {self.isa}"


@functools.cache
def _digest(isa: str) -> str:
    # Whole numbers scattered by a multiplication: the same on any machine, without a generator.
    scattered = np.arange(1, 2 * 64 * 203 + 1, dtype=np.uint64) * np.uint64(2654435761)
    p, q = (scattered % np.uint64(1 << 20) / (1 << 15) - 16).reshape(2, 64, 203)
    target = np.arange(64)
    bits = hashlib.sha256()
    for x, y in ((p, q), (p.astype(np.float32), q.astype(np.float32))):
        results = [*klce.score(x, want=("logsumexp", "entropy", "max_log_prob")).values()]
        results += klce.compare(x, y, target, want=COMPARED).values()
        for result in results:
            bits.update(result.tobytes())
    return bits.hexdigest()[:16]


class LocalEngine:
    """Computes in this process, with klce's threads."""

    def __init__(self) -> None:
        arithmetic = Arithmetic.here()
        self.isas: tuple[str, ...] = (arithmetic.isa,)
        self.arithmetic = arithmetic.digest

    def tables(self, files: Files, spans: Iterable[tuple[int, int]]) -> Generator[NDArray[Any]]:
        """Yield the results of the blocks, in their order."""
        for start, stop in spans:
            yield files.block(start, stop)


class DaskEngine:
    """Computes on the workers of a Dask cluster, a block at a time in each of their threads."""

    def __init__(self, client: Any) -> None:
        self._client = client
        found = self._workers()
        first, *_ = found
        for worker, arithmetic in found.items():
            if _differ(found[first], arithmetic):
                raise InputError(
                    f"worker {worker} computes other bits than worker {first}: "
                    f"{arithmetic}, where that has {found[first]}"
                )
        self._expected = found[first]
        self.isas = tuple(sorted({arithmetic.isa for arithmetic in found.values()}))
        self.arithmetic = self._expected.digest

    def _workers(self) -> dict[str, Arithmetic]:
        try:
            self._client.wait_for_workers(1, timeout=_WORKERS_SECONDS)
        except TimeoutError:
            raise InputError(
                f"scheduler {self._client.scheduler.address}: no worker within {_WORKERS_SECONDS} s"
            ) from None
        try:
            found: dict[str, Arithmetic] = self._client.run(Arithmetic.here)
        except ImportError as error:
            raise InputError(f"a worker cannot import klce: {one_line(error)}") from None
        return dict(sorted(found.items()))

    def tables(self, files: Files, spans: Iterable[tuple[int, int]]) -> Generator[NDArray[Any]]:
        """Yield the results of the blocks, in their order.

        Blocks are handed out a few ahead, as many as keep all threads busy: so the results that
        wait for an earlier block stay few, and workers that join are put to use.
        """
        job = _Job(
            uuid.uuid4().hex,
            files.task.absolute(),
            tuple(map(Identity.of, files.task.places())),
            self._expected,
        )
        remaining = iter(spans)
        ahead: deque[Any] = deque()
        answering = False  # of a cluster that may be lost, and at Ctrl-C, nothing is waited for
        try:
            while True:
                wanted = _BLOCKS_PER_THREAD * max(1, sum(self._client.nthreads().values()))
                for start, stop in islice(remaining, max(0, wanted - len(ahead))):
                    key = f"klce-{job.run}-{start}"
                    ahead.append(self._client.submit(job.compute, start, stop, key=key))
                if not ahead:
                    break
                yield self._result(ahead.popleft())
            answering = True
        except InputError:
            answering = True
            raise
        finally:
            with contextlib.suppress(Exception):  # the cluster may be what was lost
                self._client.cancel(list(ahead))
                if answering:
                    self._client.run(_close, job.run)

    def _result(self, future: Any) -> NDArray[Any]:
        distributed = library("distributed", "")
        try:
            table: NDArray[Any] = future.result()
        except distributed.KilledWorker as error:
            raise OSError(f"too many workers died: {one_line(error)}") from None
        except distributed.client.FutureCancelledError:
            raise OSError(f"scheduler {self._client.scheduler.address}: connection lost") from None
        return table


@dataclass(frozen=True, slots=True)
class _Job:
    """A task as its run sends it to workers, with what a worker has to find there."""

    run: str
    task: Task
    inputs: tuple[Identity, ...]
    arithmetic: Arithmetic

    def compute(self, start: int, stop: int) -> NDArray[Any]:
        """Return the results of a block. Runs on a worker."""
        try:
            # Once more, since this worker may have joined after the run began.
            if _differ(self.arithmetic, Arithmetic.here()):
                raise InputError(f"it has {Arithmetic.here()}, where the run has {self.arithmetic}")
            files = self._opened()
            with klce.threads(1):  # a worker's threads have a block each
                return files.block(start, stop)
        except (InputError, OSError) as error:
            raise InputError(f"worker {_address()}: {error}") from None

    def _opened(self) -> Files:
        thread = threading.get_ident()
        run, files = _open.get(thread, ("", None))
        if files is None or run != self.run:
            for place, expected in zip(self.task.places(), self.inputs, strict=True):
                difference = expected.difference(Identity.of(place))
                if difference is not None:
                    raise InputError(f"{place}: another file of that name: {difference}")
            files = self.task.open()
            _open[thread] = self.run, files
        return files


_open: dict[int, tuple[str, Files]] = {}
"""What each thread of this worker has open, and for which run: readers are not for several at once.

A run that was stopped leaves its files here, until another one has a block in that thread.
"""


def _close(run: str) -> None:
    """Let go of the files of a run. Runs on a worker."""
    for thread, (of, _) in list(_open.items()):
        if of == run:
            _open.pop(thread, None)


def _differ(a: Arithmetic, b: Arithmetic) -> bool:
    return (a.version, a.digest) != (b.version, b.digest)


def _address() -> str:
    address: str = library("distributed", "").get_worker().address
    return address


@contextlib.contextmanager
def open_engine(engine: str, scheduler: str | None) -> Iterator[Engine]:
    """Open an engine by its name.

    Parameters
    ----------
    engine : {"local", "dask"}
        Where to compute.
    scheduler : str, optional
        Address of Dask's scheduler. Without it, a cluster is started on this machine, of as many
        processes as klce has threads.

    Raises
    ------
    InputError
        For an unknown engine, a missing library, a scheduler that does not answer or has no
        workers, and workers whose results would differ in their bits.
    """
    if engine not in ENGINES:
        raise InputError(f"engine must be {' or '.join(ENGINES)}, got {engine}")
    if scheduler == "":
        raise InputError("an empty address names no scheduler, got ''")
    if engine == "local":
        if scheduler is not None:
            raise InputError(f"scheduler {scheduler} needs the engine dask, got {engine}")
        yield LocalEngine()
        return
    with contextlib.ExitStack() as stack:
        yield DaskEngine(stack.enter_context(_client(stack, scheduler)))


def _client(stack: contextlib.ExitStack, scheduler: str | None) -> Any:
    distributed = library("distributed", "engine dask")
    if scheduler is None:
        from klce.scoring.local_cluster import local_cluster  # which loads multiprocessing

        scheduler = stack.enter_context(local_cluster(klce.get_num_threads()))
    try:
        distributed.comm.resolve_address(scheduler)  # a client of a bad one is slow to give up
        return distributed.Client(scheduler, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(f"scheduler {scheduler}: cannot connect: {one_line(error)}") from None
