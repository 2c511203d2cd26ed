"""NumPy's own file format: `.npy`."""

import math
import tokenize
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from klce.scoring.errors import InputError
from klce.scoring.optional import library
from klce.scoring.readers.base import Elements, Reader, closed_on_error
from klce.scoring.readers.location import Location, StrPath
from klce.scoring.readers.npy_header import read_header


class NpyReader(Reader):
    """An array in NumPy's format: a header, and the elements, which are mapped where they can be.

    Fortran-ordered arrays of three axes and more are gathered slice by slice.
    """

    def __init__(self, place: StrPath | Location) -> None:
        location = place if isinstance(place, Location) else Location(str(place))
        file = location.open()
        with closed_on_error(file):
            self._open(file, str(location), None, mapped=not location.remote)

    @classmethod
    def from_stream(cls, stream: BinaryIO, path: str, size: int) -> "NpyReader":
        """Read from an open stream of `size` bytes, such as a member of an archive."""
        reader = cls.__new__(cls)
        reader._open(stream, path, size, mapped=False)
        return reader

    def _open(self, file: BinaryIO, path: str, size: int | None, *, mapped: bool) -> None:
        self.path = path
        self.shape, fortran_order, self.dtype = _read_header(path, file)
        offset = file.tell()
        needed = offset + math.prod(self.shape) * self.dtype.itemsize
        size = file.seek(0, 2) if size is None else size
        if size < needed:
            raise InputError(
                f"{path}: truncated: {size:,} bytes, where its header needs {needed:,}"
            )
        order: Literal["F", "C"] = "F" if fortran_order else "C"
        self._elements = Elements(
            file, path, self.shape, self.dtype, offset, order=order, mapped=mapped
        )
        self.mapped, self.order = self._elements.mapped, order

    def read(self, start: int, stop: int, leading: int) -> NDArray[Any]:
        """Return items `start` to `stop`, numbered in C order over the first `leading` axes."""
        return self._elements.read(start, stop, leading)


def _read_header(path: str, file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    if file.read(len(npy.MAGIC_PREFIX)) != npy.MAGIC_PREFIX:
        raise InputError(f"{path}: not a .npy file")
    file.seek(0)
    try:
        shape, fortran_order, dtype = read_header(file)
        end = file.tell()
    except (ValueError, SyntaxError, tokenize.TokenError):  # NumPy parses it as Python
        raise InputError(f"{path}: the .npy header is damaged or truncated") from None
    if dtype == np.dtype("V2"):  # as NumPy reads bfloat16, which alone is saved with an order
        file.seek(0)
        if b"'<V2'" in file.read(end):
            dtype = np.dtype(library("ml_dtypes", f"{path}: bfloat16").bfloat16)
    if dtype.hasobject:
        raise InputError(f"{path}: holds Python objects (dtype {dtype}), not numbers")
    if any(type(length) is not int or length < 0 for length in shape):  # NumPy lets True through
        raise InputError(f"{path}: the .npy header is damaged: its shape is {shape}")
    return shape, fortran_order, dtype
