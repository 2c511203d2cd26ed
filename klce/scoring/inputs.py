"""Logits and labels as scoring sees them: rows, whatever the file's format, shape and byte order.

Everything that can be wrong with them is found here, before a row is scored.
"""

import contextlib
import math
import os
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from klce._arrays import computed, element_dtype
from klce._validate import ignored, index_dtype, integer, no_class, no_label
from klce.scoring.errors import InputError, LabelError, in_one_sentence
from klce.scoring.readers import Location, Reader, StrPath, open_file, open_reader, spans
from klce.scoring.readers.base import Chunks


class Rows:
    """Rows of an array: its first `leading` axes count them.

    Attributes
    ----------
    path : str
        The array, as messages show it.
    rows : int
        How many there are.
    row_bytes : int
        Bytes of a row as it is read.
    file_row_bytes : int
        Bytes of a row in the file: of a base file of llama.cpp, about half of that.
    block_row_bytes : int
        Bytes of memory that a row of a block takes: none if it is a view of a map.
    ends : tuple of int
        Rows at which another map begins: a block with rows of both is no view.
    chunks : Chunks or None
        How they are cut into pieces that are read whole, if they are.
    """

    def __init__(self, reader: Reader, leading: int) -> None:
        self.path = reader.path
        self.rows = math.prod(reader.shape[:leading])
        self.row_bytes = max(1, math.prod(reader.shape[leading:]) * reader.dtype.itemsize)
        self.file_row_bytes = reader.layout.row_bytes if reader.layout else self.row_bytes
        self.chunks = Chunks.of(reader, leading)
        mapped = reader.mapped and (leading == 1 or reader.order == "C")
        view = mapped or (self.chunks is not None and self.chunks.kept)
        self.block_row_bytes = 0 if view else self.row_bytes
        item = math.prod(reader.shape[1:leading])
        self.ends = tuple(end * item for end in reader.ends) if mapped else ()


class Logits(Rows):
    """Rows of logits: the last axis of an array is the classes, the others count rows.

    Attributes
    ----------
    leading_shape : tuple of int
        The axes that count rows.
    classes : int
        How many there are.
    file_dtype, block_dtype, dtype : numpy.dtype
        What the array has, what a block comes in, and what it is computed in: float32 or float64.
    cut_off : bool
        Are they log-probabilities of which the file has cut off the smallest?
    """

    def __init__(self, reader: Reader) -> None:
        path, shape, dtype = reader.path, reader.shape, reader.dtype
        if len(shape) < 2:
            raise InputError(
                f"{path}: logits need 2 axes or more, the last one the classes; "
                f"this array has {len(shape)}"
            )
        if not reader.sized:
            raise InputError(
                f"{path}: has no rows, and lists without rows do not tell the number of classes"
            )
        if shape[-1] == 0:
            raise InputError(f"{path}: rows without classes: the shape is {shape}")
        taken = element_dtype(dtype)
        if taken is None:
            lost = " (a float8 loses its type in .npy; widen it first)" if dtype == "V1" else ""
            raise InputError(
                f"{path}: dtype {dtype}{lost} is not supported; "
                "float16, bfloat16, float32, float64 and integers are"
            )
        super().__init__(reader, len(shape) - 1)
        self.file_dtype, self.block_dtype, self.dtype = dtype, taken, computed(taken)
        self.leading_shape = shape[:-1]
        self.classes = shape[-1]
        self.cut_off = reader.layout is not None
        if taken != dtype:  # the block is converted
            self.block_row_bytes += self.classes * taken.itemsize
        self._reader = reader

    def check(self) -> None:
        """Refuse logits of which a part is not there, as of an upload that has not ended."""
        self._reader.check_whole()

    def block(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows `start` to `stop` as a (rows, classes) array; a view where possible."""
        rows = self._reader.read(start, stop, len(self.leading_shape))
        return rows.astype(self.block_dtype, copy=False)


class Labels:
    """The class index of each row of `logits`, or `ignore_index` where a row is not to count."""

    def __init__(self, reader: Reader, logits: Logits, ignore_index: int) -> None:
        check_index_dtype(reader.dtype, f"{reader.path}: labels")
        if not same_rows(reader.shape, logits.leading_shape):
            raise InputError(
                f"{reader.path}: labels of shape {reader.shape} do not match "
                f"{logits.path}, which has rows of shape {logits.leading_shape}"
            )
        self.path = reader.path
        self._logits = logits
        self._reader = reader
        self._ignore_index = ignore_index

    def block(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the labels of rows `start` to `stop`, or refuse one that is out of range."""
        axes, classes = self._reader.shape, self._logits.classes
        # A copy, which nobody changes behind the check, as a file may be while it is read.
        labels = self._reader.read(start, stop, len(axes)).copy()
        at = out_of_range(labels, classes, self._ignore_index)
        if at is not None:
            place = in_row(start + at, axes, self._reader)
            name = f"{self.path}: labels"
            raise LabelError(no_label(name, labels[at], classes, self._ignore_index, place))
        return labels.astype(np.int64, copy=False)

    def check(self) -> None:
        """Refuse a label out of range. It reads them all."""
        for start, stop in spans(self._logits.rows):
            self.block(start, stop)


class Candidates:
    """Classes whose log-probabilities are wanted: the same for all rows, or some for each.

    Attributes
    ----------
    count : int
        How many they are.
    """

    def __init__(self, given: Reader | tuple[int, ...], logits: Logits) -> None:
        self._logits = logits
        self._reader: Reader | None = None
        self._name = "candidates"
        if isinstance(given, tuple):
            # As they are: NumPy would make floats of integers that no dtype holds together.
            self.count, self._all = len(given), np.array(given, object)
        else:
            self._name, shape = f"{given.path}: candidates", given.shape
            check_index_dtype(given.dtype, self._name)
            if len(shape) == 1:
                self._all = given.read(0, shape[0], 1).copy()
            elif same_rows(shape[:-1], logits.leading_shape):
                self._reader = given
            else:
                raise InputError(no_candidates(self._name, shape, logits.leading_shape))
            self.count = shape[-1]
        if not self.count:
            raise InputError(f"{self._name}: there must be at least one candidate")

    def check(self) -> None:
        """Refuse a candidate that is no class. It reads them all."""
        if self._reader is None:
            check_candidates(self._all, self._logits.classes, self._name)
            return
        for start, stop in spans(self._logits.rows, self.count):
            self.block(start, stop)

    def block(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the candidates of rows `start` to `stop`, one-dimensional if all have the same.

        One of a row that is no class is refused, as a label is.
        """
        if self._reader is None:
            return self._all.astype(np.int64, copy=False)
        axes, classes = self._reader.shape[:-1], self._logits.classes
        rows = self._reader.read(start, stop, len(axes)).copy()
        at = out_of_range(rows.reshape(-1), classes)
        if at is not None:
            row = at // self.count
            place = in_row(start + row, axes, self._reader)
            check_candidates(rows[row], classes, self._name, place)
        return rows.astype(np.int64, copy=False)


def same_rows(axes: tuple[int, ...], others: tuple[int, ...]) -> bool:
    """Tell whether axes count the same rows as others: in the same shape, or either on one axis."""
    return axes == others or (
        min(len(axes), len(others)) == 1 and math.prod(axes) == math.prod(others)
    )


def out_of_range(labels: NDArray[Any], classes: int, ignore_index: int | None = None) -> int | None:
    """Return the place of the first label that is neither a class nor `ignore_index`."""
    # In the labels' own dtype: as int64, a large uint64 would wrap around to a valid label.
    outside = (labels < 0) | (labels >= classes)
    if ignore_index is not None:
        outside &= labels != ignore_index
    return int(outside.argmax()) if outside.any() else None


def check_index_dtype(dtype: np.dtype[Any], name: str) -> None:
    """Refuse class indices that are no integers."""
    with in_one_sentence():
        index_dtype(dtype, name)


def check_candidates(
    candidates: NDArray[Any], classes: int, name: str = "candidates", place: str = ""
) -> None:
    """Refuse a candidate that is no class: of all rows, or in one `place`."""
    at = out_of_range(candidates, classes)
    if at is not None:
        raise LabelError(no_class(name, candidates[at], classes, place or f" at {at}"))


def no_candidates(name: str, shape: tuple[int, ...], leading_shape: tuple[int, ...]) -> str:
    """Say of a shape of candidates that it is none."""
    return (
        f"{name} of shape {shape} are neither one axis for all rows "
        f"nor some for each of the rows of shape {leading_shape}"
    )


def check_integer(name: str, value: object) -> None:
    """Refuse an option that is no integer."""
    with in_one_sentence():
        integer(value, name)


def check_places(places: dict[str, StrPath | None]) -> None:
    """Refuse what names no file, by the names of the arguments."""
    for name, place in places.items():
        if place is not None and not isinstance(place, (str, os.PathLike)):
            raise InputError(f"{name} must be a path or a URL, got a {type(place).__name__}")
        if place is not None and not os.fspath(place):
            raise InputError(f"{name} must name a file, got ''")


def check_ignore_index(ignore_index: int) -> None:
    """Refuse a label that no file of labels can hold."""
    with in_one_sentence():
        ignored(ignore_index)


def in_row(row: int, shape: tuple[int, ...], reader: Reader | None = None) -> str:
    """Say in an error which row it is: by its number, of several axes its index, in which shard."""
    index = f", at ({', '.join(map(str, np.unravel_index(row, shape)))})" if len(shape) > 1 else ""
    shard = "" if reader is None else reader.in_shard(row, len(shape))
    return f" in row {row}{index}{shard}"


@contextlib.contextmanager
def beside(name: str, place: StrPath | Literal[False] | None) -> Iterator[None]:
    """Say of an array beside the logits that is refused, since no other is named, how to go on."""
    try:
        yield
    except InputError as error:
        if place is not None:
            raise
        message = f"{error}; it is taken since it is beside the logits, unless {name}=False"
        raise type(error)(f"{message} (--no-{name})") from None


def open_named(name: str, place: StrPath | Literal[False] | None, logits: StrPath) -> Reader | None:
    """Open the array at a place; without one, that of such a name beside the logits, if any.

    False is no place, and none beside the logits either.
    """
    if place is False:
        return None
    if place is not None:
        return open_reader(place, (name,))
    location = Location.parse(logits)
    if location.name == name:
        return None
    file = open_file(location)
    return file.array(name) if name in file.names else None


def local_inputs(inputs: dict[str, StrPath | None]) -> list[Location]:
    """Return those inputs that are on this machine."""
    locations = [Location.parse(place) for place in inputs.values() if place is not None]
    return [location for location in locations if not location.remote]
