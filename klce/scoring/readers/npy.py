"""NumPy's own file format, memory-mapped."""

import math
import mmap
import tokenize
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from klce.scoring.errors import InputError


class NpyReader:
    """A `.npy` file: its header, and its elements as a read-only map.

    Slices are views of the map where the layout allows it, so reading them costs no memory of
    this process; Fortran-ordered arrays of three axes and more are gathered slice by slice.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            self.shape, fortran_order, self.dtype = _read_header(path, file)
            offset = file.tell()
            needed = offset + math.prod(self.shape) * self.dtype.itemsize
            size = file.seek(0, 2)
            if size < needed:
                raise InputError(
                    f"{path}: truncated: {size:,} bytes, where its header needs {needed:,}"
                )
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if hasattr(data, "madvise") and not fortran_order:
            data.madvise(mmap.MADV_SEQUENTIAL)  # read ahead further: rows come in order
        self._array: NDArray[Any] = np.ndarray(
            self.shape, self.dtype, data, offset, order="F" if fortran_order else "C"
        )

    def read(self, start: int, stop: int, leading: int) -> NDArray[Any]:
        """Return items `start` to `stop`, numbered in C order over the first `leading` axes."""
        if leading == 1:
            return self._array[start:stop]
        axes, item = self.shape[:leading], self.shape[leading:]
        if self._array.flags.c_contiguous:
            return self._array.reshape(math.prod(axes), *item)[start:stop]
        # To reshape would copy the whole file.
        return self._array[np.unravel_index(np.arange(start, stop), axes)]


def _read_header(path: Path, file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    if file.read(len(npy.MAGIC_PREFIX)) != npy.MAGIC_PREFIX:
        raise InputError(f"{path}: not a .npy file")
    file.seek(0)
    try:
        version = npy.read_magic(file)
        # Version 3 is version 2 with UTF-8 names of fields, and arrays with fields are refused.
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran_order, dtype = read(file)
    except (ValueError, SyntaxError, tokenize.TokenError):  # NumPy parses it as Python
        raise InputError(f"{path}: the .npy header is damaged or truncated") from None
    if dtype.hasobject:
        raise InputError(f"{path}: holds Python objects (dtype {dtype}), not numbers")
    if any(length < 0 for length in shape):
        raise InputError(f"{path}: the .npy header is damaged: its shape is {shape}")
    return shape, fortran_order, dtype
