"""Array files, by suffix. A new format is one module here and one row in `READERS`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from klce.scoring.errors import InputError
from klce.scoring.readers.npy import NpyReader

__all__ = ["READERS", "Reader", "open_reader"]


class Reader(Protocol):
    """An array in a file, read a slice at a time."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def read(self, start: int, stop: int, leading: int) -> NDArray[Any]:
        """Return items `start` to `stop`, numbered in C order over the first `leading` axes."""
        ...


READERS: dict[str, Callable[[Path], Reader]] = {
    ".npy": NpyReader,
}


def open_reader(path: Path) -> Reader:
    """Open an array file by the format that its suffix names."""
    path.stat()  # a missing file is reported as missing, whatever its suffix
    try:
        reader = READERS[path.suffix.lower()]
    except KeyError:
        known = ", ".join(READERS)
        raise InputError(f"{path}: not a file type that klce reads ({known})") from None
    return reader(path)
