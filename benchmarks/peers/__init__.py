"""The contestants: klce, and every peer at its best on a CPU; one file each.

A peer is set up once with a number of threads, and then makes a contestant for each case: a call
that returns the result in memory of its own, and one that writes it where it is told, if the peer
can. What a peer lacks (an operation, a dtype, a layout) it says in words, which the report repeats.
"""

from __future__ import annotations

import abc
import importlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from benchmarks.cases import Array, Case, Layout

Run = Callable[[], Any]

_MODULES = {
    "torch": "torch",
    "torch.compile": "torch",
    "jax": "jax",
    "numba": "numba",
    "onnxruntime": "onnxruntime",
    "numkong": "numkong",
    "scipy": "scipy",
    "numpy": "numpy",
}
NAMES = tuple(_MODULES)


class LacksError(Exception):
    """What a contestant does not have, in words."""


@dataclass(frozen=True)
class Contestant:
    """A case's result, in up to two ways, and how to look at what they return."""

    fresh: Run  # returns it in new memory
    into: Run | None = None  # writes it into memory that was there before
    value: Callable[[Any], Array] = np.asarray

    def ways(self) -> dict[str, Run]:
        """Return the calls by the name of their way."""
        return {"fresh": self.fresh} | ({} if self.into is None else {"into": self.into})


class Peer(abc.ABC):
    """A library that competes."""

    name: ClassVar[str]
    version: str
    remark = ""  # what a reader of its figures should know
    spins = 0.0  # seconds that its threads spin after a call, if more than turns.PAUSE

    @abc.abstractmethod
    def __init__(self, threads: int) -> None:
        """Set it up; ImportError if it is not installed."""

    @abc.abstractmethod
    def contestant(self, case: Case) -> Contestant:
        """Return how it does a case; LacksError if it cannot."""


def load(name: str, threads: int) -> Peer:
    """Return a peer, set up with that many threads; ImportError if it is not installed."""
    module = importlib.import_module(f"benchmarks.peers.{_MODULES[name]}")
    peer: Peer = next(peer for peer in module.PEERS if peer.name == name)(threads)
    return peer


class RowShares:
    """Calls on blocks of rows, on Python threads: for libraries that have no threads of their own.

    A block stays in the cache, so that what is between two of the library's calls does too.
    """

    _BLOCK = 1 << 17  # elements
    _ALONE = 1 << 16  # elements, below which a second thread costs more than it brings

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads)

    def blocks(self, layout: Layout) -> Iterator[tuple[int, slice]]:
        """Yield the axis and the slice of each block."""
        axis = layout.longest_row_axis
        length = layout.shape[axis]
        threads = 1 if layout.elements < self._ALONE else self._threads
        row = layout.elements // length
        count = min(length, max(threads, -(-row * length // self._BLOCK)))
        edges = [length * k // count for k in range(count + 1)]
        for start, stop in itertools.pairwise(edges):
            yield axis, slice(start, stop)

    def over(self, layout: Layout, task: Callable[..., object], *arrays: Array) -> Run:
        """Return a call of `task` on every block of `arrays`.

        They have the layout's shape, or that of its rows.
        """
        shares = [
            [_cut(array, layout, axis, part) for array in arrays]
            for axis, part in self.blocks(layout)
        ]
        if len(shares) == 1:
            return lambda: [task(*shares[0])]
        return lambda: list(self._pool.map(lambda share: task(*share), shares))


def widened(arrays: Iterable[Array]) -> list[Array]:
    """Return arrays with half types as float32: NumPy would convert them at every single step."""
    return [a.astype(np.float32) if a.dtype.itemsize == 2 else a for a in arrays]


def _cut(array: Array, layout: Layout, axis: int, part: slice) -> Array:
    if array.shape == layout.shape:
        return array[(slice(None),) * axis + (part,)]
    before = axis - (layout.axis % len(layout.shape) < axis)
    return array[(slice(None),) * before + (part,)]
