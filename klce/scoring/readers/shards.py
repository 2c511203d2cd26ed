"""A folder or a pattern of files, whose arrays follow one another along the first axis."""

import glob
import math
import re
from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klce.scoring.errors import InputError
from klce.scoring.readers.base import ArrayFile, Reader
from klce.scoring.readers.location import Location


def natural_order(name: str) -> tuple[tuple[int, str], ...]:
    """Return a key that sorts numbers in names by value.

    Examples
    --------
    >>> sorted(["x10.npy", "x9.npy"], key=natural_order)
    ['x9.npy', 'x10.npy']
    """
    parts = re.split(r"(\d+)", name)
    return tuple((int(part), part) if part.isdigit() else (-1, part) for part in parts)


def find_shards(location: Location, suffixes: tuple[str, ...]) -> list[Location] | None:
    """Return the files, in natural order, that a folder or a pattern stands for.

    None if `location` is neither. All have to be of one format.
    """
    found = _remote(location) if location.remote else _local(location)
    if found is None:
        return None
    shards = [
        Location(name)
        for name in sorted(found, key=natural_order)
        if not name.rstrip("/").rpartition("/")[2].startswith((".", "_"))
    ]
    shards = [shard for shard in shards if shard.suffix in suffixes]
    if not shards:
        known = ", ".join(suffixes)
        raise InputError(f"{location.file}: no files there that klce reads ({known})")
    formats = sorted({shard.suffix for shard in shards})
    if len(formats) > 1:
        raise InputError(
            f"{location.file}: files of several formats ({', '.join(formats)}); "
            f"name the ones to read by a pattern, such as '*{formats[0]}'"
        )
    return shards


def _local(location: Location) -> list[str] | None:
    path = Path(location.file)
    if path.is_dir():
        return [str(entry) for entry in path.iterdir()]
    if glob.has_magic(location.file) and not path.exists():
        return glob.glob(location.file, recursive=True)
    return None


def _remote(location: Location) -> list[str] | None:
    system, path = location.filesystem()
    with location.remote_errors():
        if glob.has_magic(path):
            found = system.glob(path)
        elif not location.suffix and system.isdir(path):
            found = system.ls(path, detail=False)
        else:
            return None
    return [system.unstrip_protocol(name) for name in found]


class ShardsFile:
    """Files of one format with arrays of the same names."""

    def __init__(
        self, location: Location, shards: list[Location], open_file: Callable[[Location], ArrayFile]
    ) -> None:
        self._location = location
        self._files = [open_file(shard) for shard in shards]
        self.names = tuple(self._files[0].names)
        for shard, file in zip(shards, self._files, strict=True):
            if tuple(file.names) != self.names:
                raise InputError(
                    f"{shard}: its arrays are {', '.join(file.names)}, "
                    f"those of {shards[0]} {', '.join(self.names)}"
                )

    def array(self, name: str) -> Reader:
        """Open an array of that name in each."""
        return ShardsReader(str(self._location), [file.array(name) for file in self._files])


class ShardsReader(Reader):
    """Arrays one after the other."""

    def __init__(self, path: str, readers: list[Reader]) -> None:
        first = readers[0]
        for reader in readers:
            if not reader.shape:
                raise InputError(f"{reader.path}: a single number, not rows")
            if (reader.shape[1:], reader.dtype) != (first.shape[1:], first.dtype):
                raise InputError(
                    f"{reader.path}: {_kind(reader)} does not continue {first.path}, "
                    f"which has {_kind(first)}"
                )
        self.path = path
        self.dtype = first.dtype
        self.mapped = all(reader.mapped for reader in readers)
        # Shards need not begin at a chunk: at worst, one is read twice.
        self.chunks = first.chunks
        self.readers = readers
        self.shape = (sum(reader.shape[0] for reader in readers), *first.shape[1:])

    def read(self, start: int, stop: int, leading: int) -> NDArray[Any]:
        """Return items `start` to `stop`, numbered in C order over the first `leading` axes."""
        ends = list(accumulate(math.prod(reader.shape[:leading]) for reader in self.readers))
        parts = []
        shard = bisect_right(ends, start)
        while start < stop:
            begin = ends[shard - 1] if shard else 0
            end = min(stop, ends[shard])
            if start < end:
                parts.append(self.readers[shard].read(start - begin, end - begin, leading))
            start, shard = end, shard + 1
        if not parts:
            return np.empty((0, *self.shape[leading:]), self.dtype)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _kind(reader: Reader) -> str:
    return f"{reader.dtype} of shape {reader.shape}"
