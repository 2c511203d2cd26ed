"""Kernels called: their masked twins for a mask, conversion by blocks for other dtypes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from klce import _arrays, _blocks, _ufuncs

if TYPE_CHECKING:
    import numpy as np

    from klce._typing import Array, DType, Mask

#: The operands of each kernel that hold rows, as it takes them and as it computes with them.
_OPERANDS = {
    name: [
        [k for k, letter in enumerate(signature.split(">")[0]) if letter in letters]
        for letters in ("vge", "w")
    ]
    for name, signature in _ufuncs.OPS.items()
}
#: Those that give rows.
_MAPS = {name for name, signature in _ufuncs.OPS.items() if signature.endswith(">v")}


# Each kernel on whole arrays.
_WHOLE = {name: _ufuncs.Plain(name) for name in _ufuncs.OPS}


def called(
    kernel: np.ufunc,
    *args: Any,
    axis: int = -1,
    dtype: DType | None = None,
    where: Mask | None = None,
    out: Array | tuple[Array, ...] | None = None,
) -> Any:
    """Call a kernel and raise what its loop could not.

    Rows that are not of the dtype in which the kernel is to take them, the promoted one without
    ``dtype=``, are converted in blocks, and so are those that it gives, to the dtype of `out`.
    With a mask, whose classes are on the axis of those of the first operand, the call goes to the
    kernel's masked twin.
    """
    rows, weights = _OPERANDS[kernel.__name__]
    if dtype is None:
        dtype = _arrays.map_dtype(*[args[k] for k in rows])
    fits = {args[k].dtype for k in rows} == {dtype}
    if weights:
        fits = fits and {args[k].dtype for k in weights} == {_arrays.computed(dtype)}
    outs = out if isinstance(out, tuple) else (out,) * kernel.nout
    if kernel.__name__ in _MAPS and outs[0] is not None:
        fits = fits and outs[0].dtype == dtype
    masked, operands = kernel, args
    if where is not None:
        masked, operands = _ufuncs.MASKED[kernel.__name__], (*args, where)
    if not fits:
        result = _blocks.call(masked, operands, dtype, axis, out)
    elif out is not None and kernel.signature is None:
        # NumPy leaves elements that lie ahead of those of `out`; but threads take parts of them.
        result = kernel(*_blocks.apart(args, outs), out=out)
    elif axis == -1:
        result = masked(*operands, out=out)
    else:
        whole = _WHOLE[kernel.__name__].results(args, outs, axis, where)
        if whole is None:
            axes = _blocks.axes_of(masked, operands, axis)
            result = masked(*operands, out=out, axes=axes)
        else:
            result = whole if kernel.nout > 1 else whole[0]
    _ufuncs.raise_trouble()
    return result


def whole_loss(
    kernel: np.ufunc,
    operands: tuple[Any, ...],
    axis: int,
    where: Mask | None,
    how: Any,
    nats: float,
    out: Any,
) -> Any:
    """Return a loss, reduced or not, of operands that nobody has looked at: see _ufuncs.Plain."""
    return _WHOLE[kernel.__name__](operands, out, how, axis, where, nats)


def totals(
    kernel: np.ufunc, *args: Any, axis: int = -1, where: Mask | None = None
) -> tuple[float, ...] | None:
    """Return the sums of each output that `called` gives, a number a row, which are not kept.

    None for arrays that are not whole ones as the kernel takes them.
    """
    sums = _WHOLE[kernel.__name__].totals(args, axis, where)
    _ufuncs.raise_trouble()
    return sums
