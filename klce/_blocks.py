"""Kernels on arrays whose elements they do not take: converted block by block, never as a whole.

NumPy itself would copy all of an operand, or of an output, to convert it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from klce import _ufuncs
from klce._arrays import computed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from klce._typing import Array, Axes, DType


#: About how many bytes of an operand are converted at a time: some rows, or one that is longer.
BLOCK_BYTES = 1 << 22


def call(
    kernel: np.ufunc,
    args: tuple[Any, ...],
    dtype: DType,
    axis: int,
    out: Array | tuple[Array, ...] | None,
) -> Any:
    """Call a kernel with all its rows in `dtype`.

    Parameters
    ----------
    kernel : ufunc
        One of ``klce._ufuncs``.
    args : tuple
        Its inputs; those that hold rows are arrays of any dtype that casts to `dtype`.
    dtype : dtype
        What the rows are converted to.
    axis : int
        The axis of the classes, counted from the end.
    out : ndarray or tuple of ndarray, optional
        Where to put the results.

    Returns
    -------
    ndarray, scalar or tuple
        As the kernel gives.
    """
    operands = [np.asarray(arg) for arg in args]
    axes = axes_of(kernel, operands, axis)
    if out is not None:
        outs = out if isinstance(out, tuple) else (out,)
        _call(kernel, apart(operands, outs), dtype, axes, outs)
        return out
    out = _results(kernel, operands, dtype, axes)
    _call(kernel, operands, dtype, axes, out)
    results = tuple(result[()] for result in out)  # a scalar for a single row
    return results if kernel.nout > 1 else results[0]


def apart(arrays: Sequence[Any], outs: Sequence[Array | None]) -> list[Any]:
    """Copy the arrays that share memory with an output, which is written while they are read.

    But for one that is the output itself: in place, a block is read before it is written.
    """

    def shares(array: Array) -> bool:
        return any(
            array is not out and np.may_share_memory(array, out) for out in outs if out is not None
        )

    return [array.copy() if array is not None and shares(array) else array for array in arrays]


def axes_of(kernel: np.ufunc, operands: Sequence[Any], axis: int) -> list[Axes]:
    """Return the axes of the classes of each operand, as a gufunc takes them.

    What has one dimension has them there; several values of a row are on the last axis.
    """
    inputs, outputs = _ufuncs.OPS[kernel.__name__].split(">")
    letters = inputs.ljust(kernel.nin, "v") + outputs  # a mask is as the rows are
    own = {"v": (axis,), "g": (axis,), "w": (axis,), "S": (-1,), "L": (-1,)}
    axes: list[Axes] = [own.get(letter, ()) for letter in letters]
    for k, operand in enumerate(operands):
        if axes[k] and operand.ndim == 1:
            axes[k] = (-1,)
    return axes


def converted(array: Array, dtype: DType) -> Array:
    """Return an array in another dtype."""
    if dtype.kind == "f" and dtype.itemsize > array.itemsize == 2:
        array = _widened(array)
    return array.astype(dtype, copy=False)


def _widened(array: Array) -> Array:
    """Return 16-bit numbers on the way to a wider dtype: by kernels, faster than NumPy does."""
    wide = _ufuncs.widened(array)
    return array if wide is None else wide


def _outer(array: Array, core: tuple[int, ...]) -> list[int]:
    """Return the axes of an array, counted from the end, that are not those of the classes."""
    return [axis for axis in range(-array.ndim, 0) if axis not in core]


def _results(
    kernel: np.ufunc, operands: list[Array], dtype: DType, axes: list[Axes]
) -> tuple[Array, ...]:
    letters = _ufuncs.OPS[kernel.__name__].split(">")[1]
    shape = np.broadcast_shapes(
        *(
            tuple(operand.shape[axis] for axis in _outer(operand, core))
            for operand, core in zip(operands, axes, strict=False)
        )
    )
    dtypes = {"s": computed(dtype), "l": np.dtype(np.int64), "e": dtype}
    return tuple(np.empty(shape, dtypes[letter]) for letter in letters)


def _call(
    kernel: np.ufunc,
    operands: list[Array],
    dtype: DType,
    axes: list[Axes],
    out: tuple[Array, ...],
) -> None:
    letters = _ufuncs.OPS[kernel.__name__]
    wanted = {
        k: computed(dtype) if letter == "w" else dtype
        for k, letter in zip(range(kernel.nin), letters, strict=False)
        if letter in "vgew"
    }
    outer = _outer(out[0], axes[kernel.nin])
    longest = max(range(-len(outer), 0), key=lambda axis: out[0].shape[outer[axis]], default=0)
    is_row = not outer or out[0].shape[outer[longest]] < 2

    def at_once(array: Array, kind: DType) -> bool:
        return is_row or array.size * kind.itemsize <= BLOCK_BYTES

    with np.errstate(all="ignore"):  # a number may be beyond the dtype
        operands = [
            converted(operand, wanted[k]) if k in wanted and at_once(operand, dtype) else operand
            for k, operand in enumerate(operands)
        ]
    fits = all(operands[k].dtype == wanted[k] for k in wanted)
    wider = letters.endswith(">v") and out[0].dtype != dtype
    if fits and (not wider or at_once(out[0], out[0].dtype)):
        by_axes = {} if kernel.signature is None else {"axes": axes}
        results = (_ufuncs.new_like(out[0], dtype),) if wider else out
        kernel(*operands, out=results, **by_axes)
        if wider:
            out[0][...] = _widened(results[0])
        return
    half = out[0].shape[outer[longest]] // 2
    for part in (slice(half), slice(half, None)):
        _call(
            kernel,
            [_cut(a, core, longest, part) for a, core in zip(operands, axes, strict=False)],
            dtype,
            axes,
            tuple(_cut(a, c, longest, part) for a, c in zip(out, axes[kernel.nin :], strict=True)),
        )


def _cut(array: Array, core: tuple[int, ...], longest: int, part: slice) -> Array:
    """Take part of one of the outer axes, unless the array is broadcast along it."""
    outer = _outer(array, core)
    if len(outer) < -longest or array.shape[outer[longest]] == 1:
        return array
    index = [slice(None)] * array.ndim
    index[outer[longest]] = part
    return array[tuple(index)]
