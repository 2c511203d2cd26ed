"""Several axes of classes as one: a view where strides allow it, else copies of blocks of rows."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from klce import _arrays, _blocks, _call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from klce._typing import Array, Axes, DType, Mask


# Elements of a block, whose copy stays in cache.
BLOCK = 1 << 16


def moved(array: Array, axes: Axes) -> Array:
    """Return a view with the axes last, in their order."""
    last = tuple(range(-len(axes), 0))
    return array if axes == last else np.moveaxis(array, axes, last)


def without(shape: tuple[int, ...], axes: Axes) -> tuple[int, ...]:
    """Return the shape of the rows: that of an array less the axes (counted from the end)."""
    if len(axes) == 1:
        at = len(shape) + axes[0]
        return shape[:at] + shape[at + 1 :]
    return tuple([n for i, n in enumerate(shape, -len(shape)) if i not in axes])


def kept(shape: tuple[int, ...], axes: Axes) -> tuple[int, ...]:
    """Return the shape of the rows with the axes of length one."""
    return tuple([1 if i in axes else n for i, n in enumerate(shape, -len(shape))])


def _joins(array: Array, count: int) -> bool:
    """Whether the last `count` axes are one in memory, so that reshaping them makes a view."""
    first = array.ndim - count
    long = [
        (n, step)
        for n, step in zip(array.shape[first:], array.strides[first:], strict=True)
        if n != 1
    ]
    return array.size == 0 or all(step == n * s for (_, step), (n, s) in pairwise(long))


def blocks(rows: tuple[int, ...], n: int, most: int) -> Iterator[tuple[int | slice, ...]]:
    """Yield indices that together are all rows, each of one row or of at most `most` elements."""
    if math.prod(rows) * n <= most or not rows:
        yield ()
        return
    inner = math.prod(rows[1:]) * n
    if inner > most:
        for i in range(rows[0]):
            for rest in blocks(rows[1:], n, most):
                yield (i, *rest)
    else:
        step = most // inner
        for low in range(0, rows[0], step):
            yield (slice(low, low + step),)


def _flat(array: Array, count: int) -> Array:
    """Join the last `count` axes."""
    first = array.ndim - count
    return array.reshape(*array.shape[:first], math.prod(array.shape[first:]))


def joined(
    call: Callable[..., Any],
    arrays: Sequence[Array | None],
    axes: Axes,
    outs: Sequence[Array],
    *,
    maps: bool,
) -> None:
    """Run ``call(*arrays, out=outs)`` with the axes as one, the last.

    The arrays have one shape, which the outputs of a map have too; those of a reduction have that
    of the rows.  Outputs that overlap an array are that array.
    """
    count = len(axes)
    views = [None if array is None else moved(array, axes) for array in arrays]
    targets = [moved(out, axes) for out in outs] if maps else list(outs)
    some = next(view for view in views if view is not None)
    first = some.ndim - count
    flat = [view for view in (*views, *(targets if maps else ())) if view is not None]
    whole = all(_joins(view, count) for view in flat)
    n = math.prod(some.shape[first:])
    for index in [()] if whole else blocks(some.shape[:first], n, BLOCK):
        parts = [None if view is None else _flat(view[index], count) for view in views]
        chosen = [target[(*index, ...)] for target in targets]
        results = [_flat(part, count) for part in chosen] if maps else chosen
        call(*parts, out=tuple(results))
        if maps and not whole:
            for part, result in zip(chosen, results, strict=True):
                part[...] = result.reshape(part.shape)


def over_rows(
    kernel: np.ufunc,
    arrays: tuple[Array, ...],
    parameters: tuple[float, ...],
    axes: Axes,
    *,
    where: Mask | None,
    keepdims: bool,
    outs: tuple[Array | None, ...],
    dtype: DType | None = None,
) -> tuple[Any, ...]:
    """Run a reduction over the axes (counted from the end), and return its outputs.

    Arrays broadcast over one axis, for one output; else they have one shape.  They are taken in
    `dtype`, without it in the one that they have together.
    """
    taken = _arrays.map_dtype(*arrays) if dtype is None else dtype
    results: tuple[Any, ...]
    if len(axes) == 1 == len(outs):
        (out,) = outs
        if out is not None and keepdims:
            out = np.squeeze(out, axis=axes)
        results = (
            _call.called(
                kernel, *arrays, *parameters, axis=axes[0], dtype=taken, where=where, out=out
            ),
        )
    else:
        rows, kind = without(arrays[0].shape, axes), _arrays.computed(taken)
        results = tuple(np.empty(rows, kind) if out is None else out.reshape(rows) for out in outs)

        def call(*parts: Any, out: tuple[Array, ...]) -> None:
            *given, mask = parts
            _call.called(kernel, *given, *parameters, dtype=taken, where=mask, out=out)

        joined(call, _blocks.apart((*arrays, where), outs), axes, results, maps=False)
    return tuple(
        _shaped(result, out, axes if keepdims else None)
        for result, out in zip(results, outs, strict=True)
    )


def _shaped(result: Any, out: Array | None, kept_axes: Axes | None) -> Any:
    if out is not None:
        return out
    return result[()] if kept_axes is None else np.expand_dims(result, kept_axes)


def over_classes(
    kernel: np.ufunc,
    array: Array,
    parameters: tuple[float, ...],
    axes: Axes,
    where: Mask | None,
    out: Array,
    dtype: DType,
) -> None:
    """Run a map over the axes (counted from the end) into `out`."""
    if len(axes) == 1:
        _call.called(kernel, array, *parameters, axis=axes[0], dtype=dtype, where=where, out=out)
        return

    def call(part: Array, mask: Mask | None, out: tuple[Array, ...]) -> None:
        _call.called(kernel, part, *parameters, dtype=dtype, where=mask, out=out)

    joined(call, _blocks.apart((array, where), (out,)), axes, (out,), maps=True)
