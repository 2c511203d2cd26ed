"""How klce runs: the instruction set (ISA) and the threads, and what was built.

Two environment variables are read when klce is imported: ``KLCE_ISA`` forces an instruction set,
``KLCE_NUM_THREADS`` the number of threads.

Results do not depend on the threads, to the last bit.  AVX2, AVX-512 and NEON give the same bits,
too; ``baseline`` of x86-64, which has no fused multiply-add, differs from them in last places.
"""

from __future__ import annotations

import os
from _thread import get_ident  # threading is more to import
from typing import TYPE_CHECKING, TypedDict

from klce import _ufuncs, _validate

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["get_config", "get_num_threads", "set_num_threads", "show_config", "threads"]


#: What the thread pool has room for: KLCE_MAX_THREADS of src_c/cpus.h.
MAX_THREADS = 256


class Config(TypedDict):
    """What :func:`get_config` returns."""

    version: str
    compiler: str
    isas_available: tuple[str, ...]
    isa: str
    threads: int
    cpus: int


def get_config() -> Config:
    """Return how klce was built and how it runs.

    Returns
    -------
    dict
        ``version`` of klce; ``compiler`` of its C code; ``isas_available``, the instruction sets
        this machine can run, worst first; ``isa``, the one in use (``KLCE_ISA`` forces one), on
        which last places depend where it is ``baseline``;
        ``threads``, the number a call from here uses at most; ``cpus``, the number this process
        may use, by its affinity and its cgroup's quota.

    Examples
    --------
    >>> import klce
    >>> klce.get_config()["isa"] in klce.get_config()["isas_available"]
    True
    """
    from klce import __version__

    return {
        "version": __version__,
        "compiler": _ufuncs.COMPILER,
        "isas_available": _ufuncs.available_isas(),
        "isa": _ufuncs.active_isa(),
        "threads": _ufuncs.get_num_threads(),
        "cpus": _ufuncs.cpu_count(),
    }


def show_config() -> None:
    """Print what :func:`get_config` returns, a line each.

    Examples
    --------
    >>> import klce
    >>> klce.show_config()  # doctest: +ELLIPSIS
    version         ...
    compiler        ...
    isas_available  ...
    isa             ...
    threads         ...
    cpus            ...
    """
    for key, value in get_config().items():
        print(f"{key:15} {' '.join(value) if isinstance(value, tuple) else value}")


def _thread_count(n: int, name: str) -> int:
    count = _validate.integer(n, name)
    if not 1 <= count <= MAX_THREADS:
        raise ValueError(f"{name} must be from 1 to {MAX_THREADS}, got {n!r}")
    return count


def get_num_threads() -> int:
    """Return the largest number of threads that a call from this thread uses.

    Returns
    -------
    int
        What :class:`threads` set for this thread, else what :func:`set_num_threads` set, else
        ``KLCE_NUM_THREADS``, else the number of CPUs this process may use.

    Examples
    --------
    >>> import klce
    >>> with klce.threads(3):
    ...     klce.get_num_threads()
    3
    """
    return _ufuncs.get_num_threads()


def set_num_threads(n: int) -> None:
    """Set the largest number of threads that a call uses, for the whole process.

    Results do not depend on it, to the last bit.

    Parameters
    ----------
    n : int
        From 1 to ``klce.config.MAX_THREADS``.

    Raises
    ------
    TypeError, ValueError
        If `n` is no integer, or out of range.

    Examples
    --------
    >>> import klce
    >>> before = klce.get_num_threads()
    >>> klce.set_num_threads(1)
    >>> klce.get_num_threads()
    1
    >>> klce.set_num_threads(before)
    """
    _ufuncs.set_num_threads(_thread_count(n, "n"))


class threads:
    """Use at most `n` threads for calls from this thread, within a ``with`` block.

    Parameters
    ----------
    n : int
        From 1 to ``klce.config.MAX_THREADS``.

    Raises
    ------
    TypeError, ValueError
        If `n` is no integer, or out of range.

    Examples
    --------
    >>> import klce
    >>> with klce.threads(1):
    ...     klce.get_num_threads()
    1
    """

    def __init__(self, n: int) -> None:
        self._n = _thread_count(n, "n")
        # Of each thread that is in the block: what it goes back to.
        self._previous: dict[int, list[int]] = {}

    def __enter__(self) -> threads:
        previous = _ufuncs.set_thread_override(self._n)
        self._previous.setdefault(get_ident(), []).append(previous)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        previous = self._previous[get_ident()]
        _ufuncs.set_thread_override(previous.pop())
        if not previous:
            del self._previous[get_ident()]


def _read_environment() -> None:
    """Apply ``KLCE_ISA`` and ``KLCE_NUM_THREADS``; a bad value stops the import."""
    try:
        _ufuncs.select_isa(os.environ.get("KLCE_ISA") or None)
    except ValueError as error:
        raise ImportError(f"KLCE_ISA: {error}") from None
    wanted = os.environ.get("KLCE_NUM_THREADS")
    if wanted:
        try:
            set_num_threads(int(wanted))
        except ValueError:
            raise ImportError(
                f"KLCE_NUM_THREADS must be an integer from 1 to {MAX_THREADS}, got {wanted!r}"
            ) from None


_read_environment()
