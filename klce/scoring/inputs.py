"""Logits and labels as scoring sees them: rows, whatever the file's format, shape and byte order.

Everything that can be wrong with them is found here, before a row is scored.
"""

import math
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klce._arrays import computed, element_dtype
from klce._validate import integer
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
        Bytes of a row in the file.
    block_row_bytes : int
        Bytes of memory that a row of a block takes: none if it is a view of a map.
    chunks : Chunks or None
        How they are cut into pieces that are read whole, if they are.
    """

    def __init__(self, reader: Reader, leading: int) -> None:
        self.path = reader.path
        self.rows = math.prod(reader.shape[:leading])
        self.row_bytes = max(1, math.prod(reader.shape[leading:]) * reader.dtype.itemsize)
        self.chunks = Chunks.of(reader, leading)
        view = reader.mapped or (self.chunks is not None and self.chunks.kept)
        self.block_row_bytes = 0 if view else self.row_bytes


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
        if reader.dtype.kind not in "iu":
            raise InputError(f"{reader.path}: labels must be integers, got {reader.dtype}")
        if reader.shape != logits.leading_shape:
            raise InputError(
                f"{reader.path}: labels of shape {reader.shape} do not match "
                f"{logits.path}, which has rows of shape {logits.leading_shape}"
            )
        self.path = reader.path
        self._logits = logits
        self._reader = reader
        self._ignore_index = ignore_index

    def block(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the labels of rows `start` to `stop`."""
        return self._read(start, stop).astype(np.int64, copy=False)

    def first(self, label: int) -> int | None:
        """Return the first row with a label."""
        for start, stop in spans(self._logits.rows):
            equal = self._read(start, stop) == label
            if equal.any():
                return start + int(equal.argmax())
        return None

    def _read(self, start: int, stop: int) -> NDArray[Any]:
        return self._reader.read(start, stop, len(self._reader.shape))

    def check(self) -> None:
        """Refuse a label out of range. It reads them all."""
        classes = self._logits.classes
        for start, stop in spans(self._logits.rows):
            labels = self._read(start, stop)
            at = out_of_range(labels, classes, self._ignore_index)
            if at is not None:
                place = name_row(start + at, self._logits.leading_shape)
                raise no_label(self.path, labels[at], place, classes, self._ignore_index)


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
        self._file: str | None = None
        if isinstance(given, tuple):
            self.count, self._all = len(given), np.array(given)
        else:
            self._file, shape = given.path, given.shape
            if given.dtype.kind not in "iu":
                raise InputError(f"{self._file}: candidates must be integers, got {given.dtype}")
            if len(shape) == 1:
                self._all = given.read(0, shape[0], 1)
            elif shape[:-1] == logits.leading_shape:
                self._reader = given
            else:
                raise InputError(f"{self._file}: {no_candidates(shape, logits.leading_shape)}")
            self.count = shape[-1]
        if not self.count:
            named = "candidates" if self._file is None else self._file
            raise InputError(f"{named}: there must be at least one candidate")

    def check(self) -> None:
        """Refuse a candidate that is no class. It reads them all."""
        if self._reader is None:
            self._check(self._all, "")
            return
        for start, stop in spans(self._logits.rows, self.count):
            rows = self._read(start, stop)
            at = out_of_range(rows.reshape(-1), self._logits.classes)
            if at is not None:
                row = at // self.count
                place = name_row(start + row, self._logits.leading_shape)
                self._check(rows[row], f" in {place}")

    def _check(self, candidates: NDArray[Any], place: str) -> None:
        check_candidates(candidates, self._logits.classes, self._file, place)

    def block(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the candidates of rows `start` to `stop`, one-dimensional if all have the same."""
        rows = self._all if self._reader is None else self._read(start, stop)
        return rows.astype(np.int64, copy=False)

    def _read(self, start: int, stop: int) -> NDArray[Any]:
        assert self._reader is not None
        return self._reader.read(start, stop, len(self._logits.leading_shape))


def out_of_range(labels: NDArray[Any], classes: int, ignore_index: int | None = None) -> int | None:
    """Return the place of the first label that is neither a class nor `ignore_index`."""
    # In the labels' own dtype: as int64, a large uint64 would wrap around to a valid label.
    outside = (labels < 0) | (labels >= classes)
    if ignore_index is not None:
        outside &= labels != ignore_index
    return int(outside.argmax()) if outside.any() else None


def no_label(path: str, label: Any, place: str, classes: int, ignore_index: int) -> LabelError:
    """Return the error of a label that is out of range."""
    return LabelError(
        f"{path}: label {label} in {place} is neither a class (0 to {classes - 1}) nor "
        f"ignore_index ({ignore_index})"
    )


def check_candidates(
    candidates: NDArray[Any], classes: int, file: str | None = None, place: str = ""
) -> None:
    """Refuse a candidate that is no class, of a file or of the argument."""
    at = out_of_range(candidates, classes)
    if at is None:
        return
    if file is None:
        raise LabelError(
            f"candidates must be classes (0 to {classes - 1}), got {candidates[at]}{place}"
        )
    raise LabelError(
        f"{file}: candidate {candidates[at]} at position {at}{place} is not a class "
        f"(0 to {classes - 1})"
    )


def no_candidates(shape: tuple[int, ...], leading_shape: tuple[int, ...]) -> str:
    """Say of a shape of candidates that it is none."""
    return (
        f"candidates of shape {shape} are neither one axis for all rows "
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
    check_integer("ignore_index", ignore_index)
    if not -(2**63) <= ignore_index < 2**63:
        raise InputError(f"ignore_index must be a 64-bit integer, got {ignore_index}")


def name_row(row: int, shape: tuple[int, ...]) -> str:
    """Return a row as messages name it."""
    if len(shape) == 1:
        return f"row {row}"
    index = ", ".join(str(i) for i in np.unravel_index(row, shape))
    return f"row {row}, at ({index}),"


def open_targets(targets: StrPath | None, logits: StrPath) -> Reader | None:
    """Open the labels: those that are named, or those that the file of logits has beside them."""
    if targets is not None:
        return open_reader(targets, ("targets",))
    return open_beside(logits, "targets")


def open_beside(logits: StrPath, name: str) -> Reader | None:
    """Open the array called `name` of the file of logits, if it has one."""
    location = Location.parse(logits)
    if location.name == name:
        return None
    file = open_file(location)
    return file.array(name) if name in file.names else None


def local_inputs(inputs: dict[str, StrPath | None]) -> list[Location]:
    """Return those inputs that are on this machine."""
    locations = [Location.parse(place) for place in inputs.values() if place is not None]
    return [location for location in locations if not location.remote]
