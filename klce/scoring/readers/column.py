"""A column as an array, whether Arrow's format or Parquet's has it.

A column of numbers is an array of one axis, one of lists (of a fixed size, or all as long as the
first) an array of two.
"""

from bisect import bisect_right
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klce.scoring.errors import InputError
from klce.scoring.optional import library
from klce.scoring.readers.base import Reader, damage_named, within_rows


def column_path(path: str, names: tuple[str, ...], name: str) -> str:
    """Return what names a column in errors, of which there is one of that name."""
    if names.count(name) > 1:
        raise InputError(f"{path}: {names.count(name)} columns are named {name!r}")
    return f"{path}::{name}" if len(names) > 1 else path


class Stream:
    """Slices of a stream that can be opened at each group of rows, which end at `ends`."""

    def __init__(self, open_at: Any, ends: list[int]) -> None:
        self._open_at, self._ends = open_at, ends
        self._batches: Iterator[Any] = iter(())
        self._batch: Any = None
        self._position = 0  # of the batch
        self._opened = False

    def parts(self, start: int, stop: int) -> Iterator[Any]:
        """Yield the rows from `start` to `stop`, in one part or more."""
        if start < stop and (not self._opened or start < self._position):
            group = bisect_right(self._ends, start)
            self._position = self._ends[group - 1] if group else 0
            self._batches, self._batch, self._opened = self._open_at(group), None, True
        while start < stop:
            if self._batch is None:
                self._batch = next(self._batches, None)
            if self._batch is None:
                raise OSError(f"there are {self._ends[-1] - self._position} rows less than it says")
            position, batch = self._position, self._batch
            end = position + len(batch)
            if stop >= end:  # before the yield, behind which nobody need come
                self._position, self._batch = end, None
            if stop >= end == self._ends[-1]:
                self._batches, self._opened = iter(()), False  # and what decodes them goes
            if start < end:
                first, start = start, min(stop, end)
                yield batch.slice(first - position, start - first)
            del batch


class Column:
    """What a column's type means as an array."""

    def __init__(self, path: str, kind: Any) -> None:
        pa = library("pyarrow", path)
        self.path = path
        self.lists = (
            pa.types.is_fixed_size_list(kind)
            or pa.types.is_list(kind)
            or pa.types.is_large_list(kind)
        )
        self._size = kind.list_size if pa.types.is_fixed_size_list(kind) else None
        self.of_any_length = self.lists and self._size is None
        value = kind.value_type if self.lists else kind
        kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
        if not any(is_kind(value) for is_kind in kinds):
            raise InputError(f"{path}: a column of {kind}, not of numbers or of lists of them")
        self.dtype: np.dtype[Any] = np.dtype(value.to_pandas_dtype())

    def width(self, first: Any) -> int:
        """Return the numbers in a row, given the first row, if there is one."""
        if not self.lists:
            return 1
        if self._size is not None:
            return int(self._size)
        if first is not None and first.null_count:
            raise InputError(f"{self.path}: row 0 is null")
        return 0 if first is None else len(first.flatten())

    def numbers(self, part: Any, row: int, width: int) -> NDArray[Any]:
        """Return the numbers of rows, the first of which is number `row`, as a flat array."""
        if part.null_count:
            at = int(np.argmax(part.is_null().to_numpy(zero_copy_only=False)))
            raise InputError(f"{self.path}: row {row + at} is null")
        if not self.lists:
            return _numpy(part)
        if self._size is None:
            lengths = _numpy(part.value_lengths())
            if (lengths != width).any():
                at = int((lengths != width).argmax())
                raise InputError(
                    f"{self.path}: row {row + at} has {lengths[at]} numbers, row 0 has {width}"
                )
        values = part.flatten()
        if values.null_count:
            at = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
            raise InputError(f"{self.path}: row {row + at // width} has a null in it")
        return _numpy(values)


class ColumnReader(Reader):
    """A column."""

    def __init__(self, column: Column, rows: int, first: Any, parts: Any) -> None:
        self.path, self.dtype = column.path, column.dtype
        self._width = column.width(first)
        self.shape: tuple[int, ...] = (rows, self._width) if column.lists else (rows,)
        self.sized = rows > 0 or not column.of_any_length
        self._column, self._parts = column, parts

    def read(self, start: int, stop: int, leading: int) -> NDArray[Any]:
        """Return items `start` to `stop`, numbered in C order over the first `leading` axes."""
        if leading > 1:
            return within_rows(lambda a, b: self.read(a, b, 1), start, stop, self._width)
        values, row = np.empty((stop - start, *self.shape[1:]), self.dtype), start
        remaining = self._parts(start, stop)
        while row < stop:
            with damage_named(self.path, f"damaged from row {row} on"):
                part = next(remaining)
            numbers = self._column.numbers(part, row, self._width)
            numbers = numbers.reshape(len(part), *self.shape[1:])
            if len(part) == len(values):  # a view of the map, where there is one
                return numbers
            values[row - start :][: len(part)] = numbers  # and no part is held any longer
            row += len(part)
        return values


def _numpy(values: Any) -> NDArray[Any]:
    array: NDArray[Any] = values.to_numpy(zero_copy_only=False)
    return array
