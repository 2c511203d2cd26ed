"""Columns of rows as other libraries have them, where a row has several values too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from klce._typing import Array


def arrow_array(arrow: Any, column: Array) -> Any:
    """Return a column as an array of Arrow, several values a row as a list of a fixed size."""
    values = arrow.array(np.ascontiguousarray(column).reshape(-1))
    if column.ndim == 1:
        return values
    lists = arrow.list_(values.type, column.shape[1])
    if not column.shape[1]:  # whose number of rows nothing else would tell
        return arrow.array([[]] * len(column), lists)
    return arrow.FixedSizeListArray.from_arrays(values, type=lists)


def one_each(columns: Iterable[tuple[str, Array]]) -> dict[str, Array]:
    """Return columns of a value a row each: those of several are ``top_ids_0`` and so on."""
    found: dict[str, Array] = {}
    for name, column in columns:
        if column.ndim == 1:
            found[name] = column
        else:
            found |= {f"{name}_{i}": column[:, i] for i in range(column.shape[1])}
    return found
