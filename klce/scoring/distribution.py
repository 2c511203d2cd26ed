"""Columns of results too long for memory: their order and their quantiles."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from klce.scoring.numbers import finite_or_none
from klce.scoring.scratch import give_up, scratch_errors, scratch_file

QUANTILES = (0.0, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)
"""The fractions at which quantiles are given, from the minimum to the maximum."""

ROWS_AT_ONCE = 1 << 16

Counting = Callable[[NDArray[Any]], NDArray[np.bool_]]
"""Tells which rows of a table count."""


def pieces(
    rows: NDArray[Any], counted: Counting
) -> Iterator[tuple[int, NDArray[Any], NDArray[np.bool_]]]:
    """Yield rows of results by pieces: where one begins, the rows, and which of them count."""
    for start in range(0, len(rows), ROWS_AT_ONCE):
        table = rows[start : start + ROWS_AT_ONCE]
        yield start, table, counted(table)


@contextlib.contextmanager
def in_order(
    rows: NDArray[Any], column: Callable[[NDArray[Any]], NDArray[Any]], dtype: DTypeLike
) -> Iterator[NDArray[Any]]:
    """Give a column that follows from rows of results, in ascending order and without nan.

    It lives in a temporary file, mapped, so that it takes no memory that cannot be given back.
    """
    file = scratch_file()
    try:
        count = 0
        with scratch_errors():
            for start in range(0, len(rows), ROWS_AT_ONCE):
                values = column(rows[start : start + ROWS_AT_ONCE]).astype(dtype, copy=False)
                values = values[~np.isnan(values)]
                file.write(values.tobytes())
                count += len(values)
            file.flush()
        if not count:
            yield np.empty(0, dtype)
            return
        ordered: NDArray[Any] = np.memmap(file, dtype, "r+", shape=(count,))
        ordered.sort()
        yield ordered
    finally:
        give_up(file)


def quantiles_of(
    rows: NDArray[Any], column: Callable[[NDArray[Any]], NDArray[Any]], dtype: DTypeLike
) -> tuple[float, ...]:
    """Return the quantiles at `QUANTILES` of a column that follows from rows."""
    with in_order(rows, column, dtype) as ordered:
        return tuple(quantiles(ordered, QUANTILES))


def quantile_name(fraction: float) -> str:
    """Return a quantile as tables and pages name it."""
    names = {0.0: "minimum", 0.5: "median", 1.0: "maximum"}
    return names.get(fraction, f"{100 * fraction:g} %")


def by_fraction(values: tuple[float, ...] | None) -> dict[str, float | None] | None:
    """Return the quantiles at `QUANTILES` by their fractions, as JSON has them; None of none."""
    if values is None:
        return None
    return {
        f"{fraction:g}": finite_or_none(value)
        for fraction, value in zip(QUANTILES, values, strict=True)
    }


def quantiles(ordered: NDArray[Any], fractions: Sequence[float]) -> list[float]:
    """Return quantiles, linear between values: the fraction f is at f (n - 1), counted from 0.

    Examples
    --------
    >>> import numpy as np
    >>> quantiles(np.array([0.0, 1.0, 3.0]), (0, 0.25, 1))
    [0.0, 0.5, 3.0]
    """
    if not len(ordered):
        return [float("nan")] * len(fractions)
    found = []
    for fraction in fractions:
        position = fraction * (len(ordered) - 1)
        below = int(position)
        low, high = float(ordered[below]), float(ordered[min(below + 1, len(ordered) - 1)])
        # An infinite neighbour has no part in a quantile that falls on a value.
        between = position - below
        found.append(low if not between or low == high else low + between * (high - low))
    return found
