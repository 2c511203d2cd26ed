"""Zarr arrays and groups of them: `.zarr`, local or behind a URL."""

import contextlib
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klce.scoring.errors import InputError
from klce.scoring.optional import library
from klce.scoring.readers.base import DECODED_BYTES, Chunks, Reader, blocks_of, damage_named
from klce.scoring.readers.location import Location


class ZarrFile:
    """An array, or a group with named arrays at any depth."""

    def __init__(self, location: Location) -> None:
        zarr = library("zarr", f"{location.file}: reading .zarr")
        self._location = location
        if location.remote:
            location.filesystem()  # for an error that says what is missing
        try:
            node = zarr.open(location.file, mode="r")
            if isinstance(node, zarr.Array):
                self._arrays = {"": node}
            else:
                members = node.members(max_depth=None)
                self._arrays = {name: a for name, a in members if isinstance(a, zarr.Array)}
        except Exception as error:  # of damaged metadata, of any class
            if isinstance(error, OSError) and error.errno is not None:
                raise
            fault = "not a Zarr array or group, or a damaged one"
            raise InputError(f"{location.file}: {fault}") from None
        self.names = tuple(sorted(self._arrays))

    def array(self, name: str) -> Reader:
        """Open one of the arrays."""
        path = f"{self._location.file}::{name}" if name else self._location.file
        return ZarrReader(self._arrays[name], path, self._location, name)


class ZarrReader(Reader):
    """An array in chunks."""

    def __init__(self, array: Any, path: str, store: Location, name: str) -> None:
        self.path = path
        self._store, self._name = store, name
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.dtype: np.dtype[Any] = np.dtype(array.dtype)
        self.chunks: tuple[int, ...] = tuple(array.chunks)
        self._array = array
        self._kept: tuple[int, int, NDArray[Any]] | None = None  # leading axes, first row, rows

    def read(self, start: int, stop: int, leading: int) -> NDArray[Any]:
        """Return items `start` to `stop`, numbered in C order over the first `leading` axes."""
        chunks = Chunks.of(self, leading)
        if start == stop or chunks is None or not chunks.kept:
            return self._decoded(start, stop, leading)
        rows, parts = math.prod(self.shape[:leading]), []
        while start < stop:
            first = start // chunks.rows * chunks.rows
            if self._kept is None or self._kept[:2] != (leading, first):
                self._kept = None  # the last one goes before the next one comes
                values = self._decoded(first, min(first + chunks.rows, rows), leading)
                self._kept = (leading, first, values)
            values = self._kept[2]
            parts.append(values[start - first : stop - first])
            start = min(stop, first + len(values))
            if start == rows:
                self._kept = None
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def check_whole(self) -> None:
        """Refuse an array with chunks that are not stored: Zarr takes such for the fill value."""
        stored = self._array.shards or self.chunks
        grid = (range(-(-n // step)) for n, step in zip(self.shape, stored, strict=True))
        keys = map(self._array.metadata.encode_chunk_key, itertools.product(*grid))
        is_stored = self._stored_keys()
        missing = [key for key in keys if not is_stored(key)]
        if missing:
            raise InputError(
                f"{self.path}: chunk {missing[0]} is missing, the first of {len(missing):,}: the "
                "array is not there as a whole, or was written without chunks of the fill value "
                "(write_empty_chunks)"
            )

    def _stored_keys(self) -> Callable[[str], bool]:
        """Return what tells whether a key of the array is stored."""
        if not self._store.remote:
            folder = Path(self._store.file, self._name)
            return lambda key: (folder / key).exists()
        system, path = self._store.filesystem()
        place = "/".join(part for part in (path.rstrip("/"), self._name) if part)
        found: set[str] = set()
        with contextlib.suppress(Exception):  # a store that does not list
            found = {*system.find(place)}
        listed = not found.isdisjoint(f"{place}/{name}" for name in ("zarr.json", ".zarray"))
        return lambda key: not listed or f"{place}/{key}" in found

    def _decoded(self, start: int, stop: int, leading: int) -> NDArray[Any]:
        axes, item = self.shape[:leading], self.shape[leading:]
        values = np.empty((stop - start, *item), self.dtype)
        if start == stop:
            return values
        done = 0
        for block in blocks_of(start, stop, axes):
            region = (*block, *(slice(0, length) for length in item))
            shape = tuple(at.stop - at.start for at in region)
            count = math.prod(shape[:leading])
            self._fill(values[done : done + count].reshape(shape), region, leading)
            done += count
        return values

    def _fill(self, values: NDArray[Any], region: tuple[slice, ...], leading: int) -> None:
        """Read a region: by halves, cut between chunks, where it has many or a damaged one."""
        grid = list(zip(region, self.chunks, strict=True))
        counts = [-(-at.stop // chunk) - at.start // chunk for at, chunk in grid]
        axis = counts.index(max(counts))
        decoded = math.prod(counts) * math.prod(self.chunks) * self.dtype.itemsize
        if counts[axis] == 1:
            with damage_named(self.path, self._fault(region[:leading])):
                values[...] = self._array[region]
            return
        if decoded <= DECODED_BYTES:
            with contextlib.suppress(Exception):  # each codec has its own; the halves tell which
                values[...] = self._array[region]
                return
        at, chunk = grid[axis]
        middle = (at.start // chunk + counts[axis] // 2) * chunk
        for half in (slice(at.start, middle), slice(middle, at.stop)):
            within = slice(half.start - at.start, half.stop - at.start)
            self._fill(
                values[(slice(None),) * axis + (within,)],
                (*region[:axis], half, *region[axis + 1 :]),
                leading,
            )

    def _fault(self, region: tuple[slice, ...]) -> str:
        axes = self.shape[: len(region)]
        first = np.ravel_multi_index([at.start for at in region], axes)
        last = np.ravel_multi_index([at.stop - 1 for at in region], axes)
        return f"damaged within rows {first} to {last}"
