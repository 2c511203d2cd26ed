"""Zarr arrays and groups of them: `.zarr`, local or behind a URL."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from klce.scoring.errors import InputError
from klce.scoring.optional import library
from klce.scoring.readers.base import Reader, read_blocks
from klce.scoring.readers.location import Location


class ZarrFile:
    """An array, or a group with named arrays at any depth."""

    def __init__(self, location: Location) -> None:
        zarr = library("zarr", f"{location.file}: reading .zarr")
        self._location = location
        try:
            node = zarr.open(location.file, mode="r")
        except (FileNotFoundError, ValueError):
            raise InputError(f"{location.file}: not a Zarr array or group") from None
        if isinstance(node, zarr.Array):
            self._arrays = {"": node}
        else:
            members = node.members(max_depth=None)
            self._arrays = {name: a for name, a in members if isinstance(a, zarr.Array)}
        self.names = tuple(sorted(self._arrays))

    def array(self, name: str) -> Reader:
        """Open one of the arrays."""
        path = f"{self._location.file}::{name}" if name else self._location.file
        return ZarrReader(self._arrays[name], path)


class ZarrReader(Reader):
    """An array in chunks."""

    def __init__(self, array: Any, path: str) -> None:
        self.path = path
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.dtype: np.dtype[Any] = np.dtype(array.dtype)
        self.chunks = tuple(array.chunks)
        self._array = array

    def read(self, start: int, stop: int, leading: int) -> NDArray[Any]:
        """Return items `start` to `stop`, numbered in C order over the first `leading` axes."""
        axes, item = self.shape[:leading], self.shape[leading:]
        if start == stop:
            return np.empty((0, *item), self.dtype)
        return read_blocks(self._array, start, stop, axes, item)
