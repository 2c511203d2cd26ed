"""Dask arrays of logits: rows of results that stay lazy, and summaries merged where they are."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

import klce
from klce._arrays import computed, element_dtype
from klce._validate import no_label
from klce.scoring.distribution import ROWS_AT_ONCE
from klce.scoring.errors import InputError, LabelError
from klce.scoring.inputs import (
    check_candidates,
    check_ignore_index,
    check_index_dtype,
    in_row,
    no_candidates,
    out_of_range,
)
from klce.scoring.optional import library
from klce.scoring.results import with_columns
from klce.scoring.summary import CHUNK_ROWS

_PART_ROWS = math.lcm(32 * CHUNK_ROWS, ROWS_AT_ONCE)
"""Rows that are summed up in one task: whole pieces of either summary, so that they merge."""

_PARTS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class LazyRows:
    """Results of a Dask array's rows.

    Attributes
    ----------
    table : dask.array.Array
        All that is computed of each row, for the results and the summary: a lazy structured array
        in the leading shape of the logits.
    written : numpy.dtype
        The columns that results have.
    ignore_index : int
        The label of rows that do not count.
    """

    table: Any
    written: np.dtype[Any]
    ignore_index: int

    @property
    def rows(self) -> Any:
        """The results row by row: a lazy structured array, in the leading shape of the logits."""
        if self.table.dtype == self.written:
            return self.table
        meta = np.empty((0,) * self.table.ndim, self.written)
        return self.table.map_blocks(with_columns, self.written, meta=meta)

    def persist(self) -> Self:
        """Compute the rows and keep them where they are, for `rows` and the summary to share."""
        return dataclasses.replace(self, table=self.table.persist())

    def _parts(self) -> Iterator[tuple[int, Any]]:
        """Yield parts of the rows, delayed: where one begins, and its table."""
        parts = self.table.reshape(-1).rechunk(_PART_ROWS).to_delayed()
        return ((i * _PART_ROWS, part) for i, part in enumerate(parts))


def merged(parts: list[Any], merge: Callable[[Any, Any], Any]) -> Any:
    """Return, delayed, what all parts make when neighbours are merged, a few at a time."""
    delayed = library("dask", "taking Dask arrays").delayed
    while len(parts) > 1:
        starts = range(0, len(parts), _PARTS_AT_ONCE)
        some = (parts[start : start + _PARTS_AT_ONCE] for start in starts)
        parts = [delayed(functools.reduce)(merge, neighbours) for neighbours in some]
    return parts[0]


class Operands:
    """Dask arrays of logits, and what is known of their rows.

    Parameters
    ----------
    logits : dict of str to dask.array.Array
        By the names of the arguments.
    targets, candidates : dask.array.Array or array_like of int, optional
        Labels, and candidates for all rows or for each.
    ignore_index : int
        Label of rows that do not count.

    Attributes
    ----------
    classes : int
        How many there are.
    dtype : numpy.dtype
        What is computed in: float32 or float64.
    """

    def __init__(
        self,
        logits: dict[str, Any],
        targets: ArrayLike | None,
        ignore_index: int,
        candidates: ArrayLike | None = None,
    ) -> None:
        array = library("dask.array", "taking Dask arrays")
        check_ignore_index(ignore_index)
        self._taken = [_check_logits(x, name) for name, x in logits.items()]
        self._logits = [*logits.values()]
        first, *others = logits
        for name in others:
            if logits[name].shape != logits[first].shape:
                raise InputError(
                    f"{name} of shape {logits[name].shape} does not match {first} of shape "
                    f"{logits[first].shape}"
                )
        *leading, self.classes = logits[first].shape
        self._shape, self._ignore_index = tuple(leading), ignore_index
        self.dtype = functools.reduce(np.promote_types, map(computed, self._taken))
        self._targets = None if targets is None else array.asarray(targets)
        if self._targets is not None:
            self._check_targets(self._targets)
        self._all: NDArray[np.int64] | None = None
        self._each: Any = None
        if candidates is not None:
            self._take_candidates(array.asarray(candidates))

    def _check_targets(self, targets: Any) -> None:
        check_index_dtype(targets.dtype, "targets")
        if targets.shape != self._shape:
            raise InputError(
                f"targets of shape {targets.shape} do not match logits with rows of shape "
                f"{self._shape}"
            )

    def _take_candidates(self, candidates: Any) -> None:
        if candidates.shape[-1:] == (0,):
            raise InputError("candidates: there must be at least one candidate")
        check_index_dtype(candidates.dtype, "candidates")
        if candidates.ndim == 1:
            given = candidates.compute()
            check_candidates(given, self.classes)
            self._all = given.astype(np.int64)
        elif candidates.shape[:-1] == self._shape:
            self._each = candidates.rechunk({-1: -1})
        else:
            raise InputError(no_candidates("candidates", candidates.shape, self._shape))

    @property
    def labelled(self) -> bool:
        """Whether there are labels."""
        return self._targets is not None

    @property
    def candidates(self) -> int | None:
        """How many candidates a row has, if any are given."""
        if self._each is not None:
            return int(self._each.shape[-1])
        return None if self._all is None else len(self._all)

    def table(self, fill: Callable[..., None], columns: np.dtype[Any], **options: Any) -> Any:
        """Return a lazy table of the rows.

        `fill` is called for each block with a table to fill, its logits, the labels, the
        `ignore_index` and the options; with the candidates too, if there are any.
        """
        array = library("dask.array", "taking Dask arrays")
        axes = tuple(range(len(self._shape)))
        classes, several = len(axes), len(axes) + 1
        operands: list[tuple[Any, tuple[int, ...]]] = [(x, (*axes, classes)) for x in self._logits]
        if self._targets is not None:
            operands.append((self._targets, axes))
        if self._each is not None:
            operands.append((self._each, (*axes, several)))
        if len(operands) > len(self._logits):  # for an error to name the row
            for axis, chunks in enumerate(self._logits[0].chunks[:-1]):
                operands.append((array.arange(self._shape[axis], chunks=(chunks,)), (axis,)))
        if self._all is not None:
            options["candidates"] = self._all
        return array.blockwise(
            _Block(
                fill,
                tuple(self._taken),
                columns,
                self._shape,
                self._ignore_index,
                self.labelled,
                self._each is not None,
                options,
            ),
            axes,
            *(word for operand in operands for word in operand),
            concatenate=True,
            meta=np.empty((0,) * len(axes), columns),
        )


def _check_logits(logits: Any, name: str) -> np.dtype[Any]:
    """Refuse what are no logits; return the dtype that blocks of them are taken in."""
    array = library("dask.array", "taking Dask arrays")
    if not isinstance(logits, array.Array):
        raise TypeError(f"{name} must be a Dask array, got a {type(logits).__name__}")
    if logits.ndim < 2 or logits.shape[-1] == 0:
        raise InputError(
            f"{name} must have 2 axes or more, the last one at least one class; "
            f"their shape is {logits.shape}"
        )
    if any(map(math.isnan, logits.shape)):
        raise InputError(
            f"{name} must have a known shape, got {logits.shape}: call compute_chunk_sizes() first"
        )
    if logits.numblocks[-1] > 1:
        raise InputError(
            f"{name} must have the classes in one chunk, got {logits.numblocks[-1]}: rechunk them"
        )
    taken = element_dtype(logits.dtype)
    if taken is None:
        raise InputError(
            f"{name} must be of float16, bfloat16, float32, float64 or integers, got {logits.dtype}"
        )
    return taken


@dataclass(frozen=True, slots=True)
class _Block:
    """Fills the table of a block, as Dask calls it: with its operands in order."""

    fill: Callable[..., None]
    taken: tuple[np.dtype[Any], ...]
    columns: np.dtype[Any]
    shape: tuple[int, ...]
    ignore_index: int
    labelled: bool
    each: bool
    options: dict[str, Any]

    @property
    def __name__(self) -> str:  # of the tasks, as Dask shows them
        return self.fill.__name__

    def __call__(self, *blocks: NDArray[Any]) -> NDArray[Any]:
        leading, classes = blocks[0].shape[:-1], blocks[0].shape[-1]
        rows = math.prod(leading)
        count = len(self.taken)
        logits = [
            np.asarray(block).astype(taken, copy=False).reshape(rows, classes)
            for block, taken in zip(blocks[:count], self.taken, strict=True)
        ]
        rest = [np.asarray(block) for block in blocks[count:]]
        labels = rest.pop(0).reshape(rows) if self.labelled else None
        each = rest.pop(0) if self.each else None
        options = self.options
        if labels is not None:
            at = out_of_range(labels, classes, self.ignore_index)
            if at is not None:
                place = self._in_row(at, leading, rest)
                raise LabelError(no_label("targets", labels[at], classes, self.ignore_index, place))
            labels = labels.astype(np.int64, copy=False)
        if each is not None:
            each = each.reshape(rows, each.shape[-1])
            at = out_of_range(each.reshape(-1), classes)
            if at is not None:
                row = at // each.shape[1]
                place = self._in_row(row, leading, rest)
                check_candidates(each[row], classes, place=place)
            options = options | {"candidates": each.astype(np.int64, copy=False)}
        table = np.empty(rows, self.columns)
        with klce.threads(1):  # Dask's threads have a chunk each
            self.fill(table, *logits, labels, self.ignore_index, **options)
        return table.reshape(leading)

    def _in_row(self, row: int, leading: tuple[int, ...], indices: list[NDArray[np.int64]]) -> str:
        place = zip(indices, np.unravel_index(row, leading), strict=True)
        whole = np.ravel_multi_index([int(index[i]) for index, i in place], self.shape)
        return in_row(int(whole), self.shape)
