"""A folder or a pattern of files, whose arrays follow one another along the first axis."""

import contextlib
import functools
import glob
import math
import os
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from klce.scoring.errors import InputError
from klce.scoring.readers.base import ArrayFile, Reader
from klce.scoring.readers.location import Location

Kind = tuple[tuple[int, ...], np.dtype[Any]]
"""An array's shape and dtype."""

OPEN_SHARDS = 16
"""Files of a folder or a pattern that are open at a time: of its arrays, and in each thread."""


def natural_order(name: str) -> tuple[tuple[int, str], ...]:
    """Return a key that sorts numbers in names by value.

    Examples
    --------
    >>> sorted(["x10.npy", "x9.npy"], key=natural_order)
    ['x9.npy', 'x10.npy']
    """
    parts = re.split(r"(\d+)", name)
    return tuple((int(part), part) if part.isdecimal() else (-1, part) for part in parts)


def find_shards(location: Location, suffixes: tuple[str, ...]) -> list[Location] | None:
    """Return the files, in natural order, that a folder or a pattern stands for.

    None if `location` is neither. All have to be of one format.
    """
    if location.suffix in suffixes and not _is_pattern(location):
        return None
    found = _remote(location) if location.remote else _local(location)
    if found is None:
        return None
    shards = [Location(name) for name in sorted(found, key=natural_order)]
    shards = [shard for shard in shards if _is_shard(shard, suffixes)]
    if not shards:
        if not found and _is_pattern(location):
            raise InputError(f"{location.file}: the pattern matches no file")
        known = ", ".join(suffixes)
        raise InputError(f"{location.file}: no files there that klce reads ({known})")
    formats = sorted({shard.suffix for shard in shards})
    if len(formats) > 1:
        raise InputError(
            f"{location.file}: files of several formats ({', '.join(formats)}); "
            f"name the ones to read by a pattern, such as '*{formats[0]}'"
        )
    return shards


def takes_in(location: Location, path: Path, suffixes: tuple[str, ...]) -> bool:
    """Tell whether a local file is or would be one of those that a folder or a pattern stands for.

    Any file in a `.zarr` would be.
    """
    folder = path.parent.resolve()
    if Path(location.file).is_dir():
        place = Path(location.file).resolve()
        if location.suffix in suffixes:
            return folder.is_relative_to(place)
        return folder == place and _is_shard(Location(str(path)), suffixes)
    if not _is_pattern(location) or not _is_shard(Location(str(path)), suffixes):
        return False
    parents, name = os.path.split(location.file)
    if name == "**":
        parents, name = location.file, "*"
    return fnmatch(path.name, name) and _matches(parents, folder)


def _matches(pattern: str, folder: Path) -> bool:
    """Tell whether a pattern of folders takes in one that need not be there yet."""
    if folder.exists():
        found = glob.glob(pattern, recursive=True) + ["."] * (pattern in ("", "**"))
        return any(Path(place).resolve() == folder for place in found)
    parents, name = os.path.split(pattern)
    return (name == "**" or fnmatch(folder.name, name)) and _matches(
        pattern if name == "**" else parents, folder.parent
    )


def _is_shard(location: Location, suffixes: tuple[str, ...]) -> bool:
    name = location.file.rstrip("/").rpartition("/")[2]
    return location.suffix in suffixes and not name.startswith((".", "_"))


def _is_pattern(location: Location) -> bool:
    if location.remote:
        return "*" in location.file  # the other signs have a meaning in URLs
    return glob.has_magic(location.file) and not os.path.exists(location.file)


def _local(location: Location) -> list[str] | None:
    path = Path(location.file)
    if path.is_dir():
        return [str(entry) for entry in path.iterdir()]
    return glob.glob(location.file, recursive=True) if _is_pattern(location) else None


def _remote(location: Location) -> list[str] | None:
    system, path = location.filesystem()
    with location.remote_errors():
        if _is_pattern(location):
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
        self._location, self._shards, self._open_file = location, shards, open_file
        self.names = tuple(open_file(shards[0]).names)

    def array(self, name: str) -> Reader:
        """Open an array of that name in each."""
        opened = functools.partial(self._open, name)
        return ShardsReader(self._location.file, self._shards, opened)

    def survey(self, names: Iterable[str]) -> dict[str, Kind | None]:
        """Return what some arrays are, None where one is not read, and open each file once."""
        found: dict[str, list[_Shard] | None] = {name: [] for name in names}
        for location in self._shards:
            file, state = self._open_alike(location), location.state()
            for name, shards in found.items():
                try:
                    if shards is not None:
                        shards.append(_Shard.of(file.array(name), location, state))
                except InputError:
                    found[name] = None
        told: dict[str, Kind | None] = dict.fromkeys(found)
        for name, shards in found.items():
            with contextlib.suppress(InputError):
                if shards is not None:
                    first, rows = _joined(shards)
                    told[name] = (rows, *first.shape[1:]), first.dtype
        return told

    def _open(self, name: str, shard: Location) -> Reader:
        return self._open_alike(shard).array(name)

    def _open_alike(self, shard: Location) -> ArrayFile:
        file = self._open_file(shard)
        if tuple(file.names) != self.names:
            raise InputError(
                f"{shard}: its arrays are {', '.join(file.names)}, "
                f"those of {self._shards[0]} {', '.join(self.names)}"
            )
        return file


@dataclass(frozen=True, slots=True)
class _Shard:
    """What is known of one of the arrays while it is not open."""

    location: Location
    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    sized: bool
    mapped: bool
    order: Literal["C", "F"]
    chunks: tuple[int, ...] | None
    state: tuple[int | str, ...]

    @classmethod
    def of(cls, reader: Reader, location: Location, state: tuple[int | str, ...]) -> "_Shard":
        return cls(
            location, reader.path, reader.shape, reader.dtype, reader.sized, reader.mapped,
            reader.order, reader.chunks, state,
        )  # fmt: skip


class ShardsReader(Reader):
    """Arrays one after the other, in any number of files, of which a few are open at a time."""

    def __init__(
        self, path: str, locations: list[Location], open_array: Callable[[Location], Reader]
    ) -> None:
        self._open_array = open_array
        self._open: dict[int, Reader] = {}  # by number, the one that was read last at the end
        self._shards: list[_Shard] = []
        for i, location in enumerate(locations):
            state = location.state()  # before it is opened: of one that is replaced meanwhile
            self._shards.append(_Shard.of(self._keep(i, open_array(location)), location, state))
        first, rows = _joined(self._shards)
        self.path = path + first.path.removeprefix(first.location.file)  # with the array's name
        self.dtype = first.dtype
        self.sized = first.sized
        self.mapped = all(shard.mapped for shard in self._shards)
        self.order = "F" if any(shard.order == "F" for shard in self._shards) else "C"
        # Shards need not begin at a chunk: at worst, one is read twice.
        self.chunks = first.chunks
        self.shape = (rows, *first.shape[1:])
        self.ends = tuple(sorted({*self._ends(1)} - {0, self.shape[0]}))

    def _keep(self, i: int, reader: Reader) -> Reader:
        """Return an array that stays open, and close the one that was not read for longest."""
        self._open.pop(i, None)
        while len(self._open) >= OPEN_SHARDS:
            del self._open[next(iter(self._open))]
        self._open[i] = reader
        return reader

    def _reader(self, i: int) -> Reader:
        """Return one of the arrays, which has to be the one that it was."""
        shard, reader = self._shards[i], self._open.get(i)
        if reader is None:
            while len(self._open) >= OPEN_SHARDS:  # before there is one more
                del self._open[next(iter(self._open))]
            state = shard.location.state(again=True)
            reader = self._open_array(shard.location)
            if _Shard.of(reader, shard.location, state) != shard:
                raise InputError(f"{shard.path}: changed or replaced while others were read")
        return self._keep(i, reader)

    def read(self, start: int, stop: int, leading: int) -> NDArray[Any]:
        """Return items `start` to `stop`, numbered in C order over the first `leading` axes."""
        ends = self._ends(leading)
        values: NDArray[Any] = np.empty((0, *self.shape[leading:]), self.dtype)
        at, shard = start, bisect_right(ends, start)
        while at < stop:
            begin = ends[shard - 1] if shard else 0
            end = min(stop, ends[shard])
            if at < end:
                part = self._reader(shard).read(at - begin, end - begin, leading)
                if len(part) == stop - start:
                    return part
                if not len(values):
                    values = np.empty((stop - start, *self.shape[leading:]), self.dtype)
                values[at - start : end - start] = part  # a view would keep its file open
            at, shard = end, shard + 1
        return values

    def in_shard(self, item: int, leading: int) -> str:
        """Say in an error, beside an item's number, where it is among several files."""
        ends = self._ends(leading)
        shard = bisect_right(ends, item)
        return f" (row {item - (ends[shard - 1] if shard else 0)} of {self._shards[shard].path})"

    def _ends(self, leading: int) -> list[int]:
        return list(accumulate(math.prod(reader.shape[:leading]) for reader in self._shards))

    def check_whole(self) -> None:
        """Refuse an array of which a part is not there, where opening it does not."""
        if self.chunks is not None:  # others are opened as a whole
            for i in range(len(self._shards)):
                self._reader(i).check_whole()


def _joined(shards: list[_Shard]) -> tuple[_Shard, int]:
    """Return one of the arrays, which all the others continue, and the length of all."""
    first = next((shard for shard in shards if shard.sized), shards[0])
    for shard in shards:
        if not shard.shape:
            raise InputError(f"{shard.path}: a single number, not rows")
        if not _continues(shard, first):
            raise InputError(
                f"{shard.path}: {_kind(shard)} does not continue {first.path}, "
                f"which has {_kind(first)}"
            )
    return first, sum(shard.shape[0] for shard in shards)


def _continues(shard: _Shard, first: _Shard) -> bool:
    item = shard.shape[1:] if shard.sized else first.shape[1:]
    alike = len(shard.shape) == len(first.shape) and shard.dtype == first.dtype
    return alike and item == first.shape[1:]


def _kind(shard: _Shard) -> str:
    return f"{shard.dtype} of shape {shard.shape}"
