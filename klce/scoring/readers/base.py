"""What a reader is, and what readers share."""

import contextlib
import math
import mmap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from klce.scoring.errors import InputError, naming, one_line
from klce.scoring.kld import Layout
from klce.scoring.scratch import scratch_errors, scratch_file

DECODED_BYTES = 8 << 20
"""Bytes of the chunks of a file that are decoded at once, unless a single one has more."""


NUMBERS_AT_ONCE = 1 << 20
"""Labels and the like that are read at once, where all of them are looked at."""

_COPIED_AT_ONCE = 4 << 20
"""Bytes that are copied from one file to another at once."""


class Reader(Protocol):
    """An array in a file, read a slice at a time.

    Attributes
    ----------
    path : str
        The file, and the array's name if it has one, as messages show it.
    shape, dtype
        The array's.
    mapped : bool
        Are slices views of a memory map, which cost no memory of this process?
    order : {"C", "F"}
        How the elements lie: in Fortran's order, slices over several leading axes are copies.
    chunks : tuple of int or None
        The shape of the pieces that are read whole, if there are such.
    sized : bool
        Is the length of all axes known? Without rows, that of lists is not, and is 0 in the shape.
    ends : tuple of int
        Where the next one of several files begins, counted along the first axis.
    layout : Layout or None
        How a base file of llama.cpp holds them, if that is where these log-probabilities are from.
    """

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    mapped: bool = False
    order: Literal["C", "F"] = "C"
    chunks: tuple[int, ...] | None = None
    sized: bool = True
    ends: tuple[int, ...] = ()
    layout: Layout | None = None

    def read(self, start: int, stop: int, leading: int) -> NDArray[Any]:
        """Return items `start` to `stop`, numbered in C order over the first `leading` axes."""
        ...

    def check_whole(self) -> None:
        """Refuse an array of which a part is not there, where opening it does not."""
        return

    def in_shard(self, item: int, leading: int) -> str:
        """Say in an error, beside an item's number, where it is among several files."""
        return ""


@dataclass(frozen=True, slots=True)
class Chunks:
    """What it takes to read rows of an array in chunks.

    Attributes
    ----------
    rows : int
        Rows whose chunks hold no others: blocks of so many decode each chunk once.
    chunk_bytes : int
        Bytes of a chunk.
    kept : bool
        Is a chunk kept when it was decoded, for the blocks that follow? So are large ones of whole
        rows, of which blocks are views.
    """

    rows: int
    chunk_bytes: int
    kept: bool

    @classmethod
    def of(cls, array: "Reader", leading: int) -> "Chunks | None":
        """Return that of an array whose first `leading` axes count rows, if it has chunks."""
        if array.chunks is None:
            return None
        rows = _rows_of_chunks(array.chunks[:leading], array.shape[:leading])
        itemsize = array.dtype.itemsize
        chunk_bytes = math.prod(array.chunks) * itemsize
        whole = rows * math.prod(array.shape[leading:]) * itemsize <= chunk_bytes
        return cls(rows, chunk_bytes, whole and chunk_bytes > DECODED_BYTES)

    @property
    def decoding_bytes(self) -> int:
        """Bytes of memory for chunks while they are read: as in the file, decoded, and kept."""
        return 3 * self.chunk_bytes if self.kept else 2 * max(self.chunk_bytes, DECODED_BYTES)


def _rows_of_chunks(chunks: tuple[int, ...], axes: tuple[int, ...]) -> int:
    for axis, (chunk, length) in enumerate(zip(chunks, axes, strict=True)):
        if chunk > 1:  # those before it have a chunk for each of their items
            # Where chunks do not fill an axis, the last is shorter: only the whole axis repeats.
            whole = axis > 0 and length % chunk
            return (length if whole else min(chunk, length)) * math.prod(axes[axis + 1 :])
    return 1


class ArrayFile(Protocol):
    """A file that holds arrays by name."""

    @property
    def names(self) -> Sequence[str]:
        """The names of its arrays; a single one without a name has the empty string."""
        ...

    def array(self, name: str) -> Reader:
        """Open one of them."""
        ...


class SingleArray:
    """A file that holds one array, which needs no name."""

    names = ("",)

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def array(self, name: str) -> Reader:
        """Return it."""
        return self._reader


class FileMap:
    """A map of a local file, and whether the file still is as large as it was.

    To read what a file no longer has ends the process (SIGBUS), so that `check` comes before each
    block. Who cuts a file off between that and the last byte of the block still ends it, or leaves
    zeros up to the end of a page: no more could be had but by a handler of the signal, of which a
    process has one, or by copies in the place of maps.
    """

    def __init__(self, file: BinaryIO, path: str) -> None:
        with naming(path):
            self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._path = path

    def check(self) -> None:
        """Refuse a file that was cut off since."""
        size, mapped = self.data.size(), len(self.data)
        if size < mapped:
            raise InputError(
                f"{self._path}: cut off while it was read: {size:,} bytes are left of {mapped:,}"
            )


class Elements(Reader):
    """An array's elements, one after the other in a file from `offset` on.

    A local file is mapped: slices are views where the layout allows it. From any other, the bytes
    of a slice are read; in Fortran order, where a slice is everywhere, it is copied to a temporary
    file, which is mapped, when the first is asked for.
    """

    def __init__(
        self,
        file: BinaryIO,
        path: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        offset: int,
        *,
        order: Literal["C", "F"] = "C",
        mapped: bool,
    ) -> None:
        self._is_copied = not mapped and order == "F" and len(shape) > 1
        self.path, self.shape, self.dtype, self.order = path, shape, dtype, order
        self.mapped = mapped or self._is_copied
        self._file, self._offset = file, offset
        self._map: FileMap | None = None
        if mapped:
            self._map_file(file, offset)

    def _map_file(self, file: BinaryIO, offset: int) -> FileMap:
        with file:
            self._map = FileMap(file, self.path)
        data = self._map.data
        if hasattr(data, "madvise") and self.order == "C":
            data.madvise(mmap.MADV_SEQUENTIAL)  # read ahead further: rows come in order
        self._array: NDArray[Any] = np.ndarray(
            self.shape, self.dtype, data, offset, order=self.order
        )
        return self._map

    def read(self, start: int, stop: int, leading: int) -> NDArray[Any]:
        """Return items `start` to `stop`, numbered in C order over the first `leading` axes."""
        axes, item = self.shape[:leading], self.shape[leading:]
        source = self._map
        if source is None and self._is_copied:
            size = math.prod(self.shape) * self.dtype.itemsize
            source = self._map_file(_copied(self._file, self.path, self._offset, size), 0)
        if source is None:
            return self._read_bytes(start, stop, item)
        source.check()
        if leading == 1:
            return self._array[start:stop]
        if self._array.flags.c_contiguous:
            return self._array.reshape(math.prod(axes), *item)[start:stop]
        # To reshape would copy the whole file.
        return self._array[np.unravel_index(np.arange(start, stop), axes)]

    def _read_bytes(self, start: int, stop: int, item: tuple[int, ...]) -> NDArray[Any]:
        item_bytes = math.prod(item) * self.dtype.itemsize
        wanted = (stop - start) * item_bytes
        # A member of an archive, or behind a URL: their libraries raise what they will.
        fault = f"cannot be read from row {start} on"
        with damage_named(self.path, fault), closed_on_error(self._file):
            self._file.seek(self._offset + start * item_bytes)
            data = self._file.read(wanted)
        if len(data) < wanted:
            raise InputError(f"{self.path}: ends within row {start + len(data) // item_bytes}")
        return np.frombuffer(data, self.dtype).reshape(stop - start, *item)


def _copied(file: BinaryIO, path: str, offset: int, size: int) -> BinaryIO:
    """Return a temporary file with `size` bytes of a file from `offset` on, one at least."""
    copy = scratch_file()
    with closed_on_error(copy), file, damage_named(path, "cannot be read"):
        file.seek(offset)
        left = size
        while left:
            data = file.read(min(left, _COPIED_AT_ONCE))
            if not data:
                raise InputError(f"{path}: ends {left:,} bytes early")
            with scratch_errors():
                copy.write(data)
            left -= len(data)
        with scratch_errors():
            copy.truncate(max(1, size))  # a map of nothing there is not
            copy.flush()
    return copy


@contextlib.contextmanager
def damage_named(path: str, fault: str) -> Iterator[None]:
    """Say of which file, and where in it, what a library finds wrong, in an error of any class.

    Those of the system, which have a number, stay what they are.
    """
    try:
        with naming(path):
            yield
    except Exception as error:
        if isinstance(error, InputError) or getattr(error, "errno", None) is not None:
            raise
        raise InputError(f"{path}: {fault}: {one_line(error)}") from None


@contextlib.contextmanager
def closed_on_error(file: BinaryIO) -> Iterator[None]:
    """Close a file that turns out not to be what it should."""
    try:
        yield
    except BaseException:
        file.close()
        raise


def blocks_of(start: int, stop: int, axes: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Cut items `start` to `stop`, in C order over `axes`, into blocks that slices can name.

    For formats that read rectangles only.

    Examples
    --------
    >>> [block for block in blocks_of(1, 7, (4, 2))]
    [(slice(0, 1, None), slice(1, 2, None)), (slice(1, 3, None), slice(0, 2, None)),
     (slice(3, 4, None), slice(0, 1, None))]
    """
    if len(axes) == 1:
        yield (slice(start, stop),)
        return
    inner = math.prod(axes[1:])
    while start < stop:
        at, within = divmod(start, inner)
        whole = (stop - start) // inner
        if within == 0 and whole:
            yield (slice(at, at + whole), *(slice(0, length) for length in axes[1:]))
            start += whole * inner
        else:
            end = min(stop - at * inner, inner)
            for block in blocks_of(within, end, axes[1:]):
                yield (slice(at, at + 1), *block)
            start = at * inner + end


def spans(rows: int, width: int = 1) -> Iterator[tuple[int, int]]:
    """Yield where blocks of all rows begin and end, of as many as are read at once.

    `width` is the numbers of a row.
    """
    step = max(1, NUMBERS_AT_ONCE // width)
    return ((start, min(start + step, rows)) for start in range(0, rows, step))


def within_rows(
    read_rows: Callable[[int, int], NDArray[Any]], start: int, stop: int, width: int
) -> NDArray[Any]:
    """Read elements of a matrix, from the rows of `width` that they are in.

    For formats that read whole rows only.
    """
    width = max(1, width)  # of rows without elements, none are asked for
    first, last = start // width, -(-stop // width)
    return read_rows(first, last).reshape(-1)[start - first * width : stop - first * width]


def read_blocks(
    array: Any, start: int, stop: int, axes: tuple[int, ...], item: tuple[int, ...]
) -> NDArray[Any]:
    """Read items by slicing `array`, an object of another library."""
    parts = [
        np.asarray(array[block[0] if len(block) == 1 else block]).reshape(-1, *item)
        for block in blocks_of(start, stop, axes)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
