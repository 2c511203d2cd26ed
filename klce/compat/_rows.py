"""Axes as the peers take them: several of them, or all, joined to the one that klce works over."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

if TYPE_CHECKING:
    from klce._typing import Array, Axis


def join(x: Array, axis: Axis) -> tuple[Array, tuple[int, ...]]:
    """Return `x` with the named axes last and joined to one, and which they were (None: all)."""
    axes = tuple(range(x.ndim)) if axis is None else normalize_axis_tuple(axis, x.ndim)
    if axes == (x.ndim - 1,):
        return x, axes
    moved = np.moveaxis(x, axes, range(-len(axes), 0))
    kept = moved.shape[: x.ndim - len(axes)]
    return moved.reshape(*kept, math.prod(moved.shape[len(kept) :])), axes
