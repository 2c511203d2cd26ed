"""Dask arrays: a function of rows is called block by block, when the result is computed."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from klce import _arrays, _reduce, _validate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from klce._typing import Axes, DType

da: Any = importlib.import_module("dask.array")  # whose functions have no types

#: What a function gives: "rows", a number for each row; "map", a row for each row, in the dtype of
#: maps; "elements", a number for each element, likewise; "losses", the same in the dtype of "rows".
Result = Literal["rows", "map", "elements", "losses"]

#: Operands that are taken in the dtype of the first.
_OF_FIRST = ("target", "weight", "pos_weight")

#: Options that speak of single rows, of which a block knows only its own.
_OF_ROWS = ("out", "sample_weight", "where", "b", "return_sign")


@dataclass(frozen=True)
class _OnBlocks:
    """A function with its options, as Dask calls it: the classes on the last axis."""

    function: Callable[..., Any]
    names: tuple[str, ...]
    options: dict[str, Any]

    def __call__(self, *blocks: Any) -> Any:
        return self.function(**dict(zip(self.names, blocks, strict=True)), **self.options)

    @property
    def __name__(self) -> str:
        return self.function.__name__


def applied(
    function: Callable[..., Any],
    result: Result,
    names: tuple[str, ...],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Any:
    """Return what a function gives for Dask arrays, lazily: a Dask array.

    `names` are the operands that may be Dask arrays.  A `target` of one dimension less than the
    first holds labels, and no classes.
    """
    given = inspect.signature(function).bind(*args, **kwargs)
    given.apply_defaults()
    options = given.arguments
    operands = {name: options.pop(name) for name in names if options[name] is not None}
    first = names[0]
    for name, option in options.items():
        if _arrays.is_lazy(option) or (
            name in _OF_ROWS and option is not None and option is not False
        ):
            raise TypeError(
                f"{name} must not be given as {type(option).__name__} where {first} is a Dask array"
            )
    arrays = {}
    for name, operand in operands.items():
        if _arrays.is_lazy(operand) and not isinstance(operand, da.Array):
            raise TypeError(
                f"{name} must be a Dask array to stay lazy, got a {type(operand).__name__}: "
                "xarray.apply_ufunc hands it over as one"
            )
        arrays[name] = operand if isinstance(operand, da.Array) else _arrays.array(operand, name)
    # Labels are the one operand of rows that may have no classes.
    ndim = arrays[first].ndim
    floats = {k: a for k, a in arrays.items() if k != "target" or a.ndim == ndim}
    for name, array in floats.items():
        _arrays.check_dtype(array.dtype, name)
    axes: dict[str, Axes] = dict.fromkeys(arrays, ())
    if "axis" in options:
        axis = options["axis"]
        axes |= {name: (_validate.class_axis(axis, a, name),) for name, a in floats.items()}
        options["axis"] = -1
    keepdims = _validate.flag(options.pop("keepdims", False), "keepdims")
    dtype = _validate.option_dtype(
        options.get("dtype"), *(a for name, a in floats.items() if name not in _OF_FIRST)
    )
    of_result = dtype if result in ("map", "elements") else _arrays.computed(dtype)
    aligned = _aligned(arrays, axes)
    how = _reduce.reduction(options.get("reduction", "none"), batchmean="target" not in names)
    if how != "none":
        _validate.keeps_rows(keepdims, how)
        nats = _reduce.unit(options.pop("base", None))
        options["reduction"] = _reduce.Sums
        call = _OnBlocks(function, tuple(arrays), options)
        return _reduced(call, aligned, list(axes.values()), how, nats, of_result)
    out_axes = axes[first] if result == "map" else ()
    lazy = da.apply_gufunc(
        _OnBlocks(function, tuple(arrays), options),
        ",".join("(n)" if axes[name] else "()" for name in arrays)
        + ("->(n)" if out_axes else "->()"),
        *aligned,
        axes=[*axes.values(), out_axes],
        output_dtypes=of_result,
    )
    return np.expand_dims(lazy, axes[first]) if keepdims else lazy


def _reduced(
    call: _OnBlocks, arrays: list[Any], axes: list[Axes], how: str, nats: float, dtype: DType
) -> Any:
    """Return a sum or mean over all rows, from the sums of each block."""
    arrays = [da.moveaxis(a, own, -1) if own else a for a, own in zip(arrays, axes, strict=True)]
    outer = [a.shape[: a.ndim - len(own)] for a, own in zip(arrays, axes, strict=True)]
    rows = np.broadcast_shapes(*outer)
    # In Dask's notation, rows have the first indices, and the classes, and the sums, one each.
    row, classes, sums = tuple(range(len(rows))), len(rows), len(rows) + 1
    operands = []
    for array, shape, own in zip(arrays, outer, axes, strict=True):
        operands += [array, (*row[len(rows) - len(shape) :], *(classes for _ in own))]
    of_blocks = da.blockwise(
        _sums_of_block,
        (*row, sums),
        *operands,
        call=call,
        shape=(*(1 for _ in rows), 2),
        new_axes={sums: 2},
        adjust_chunks=dict.fromkeys(row, 1),
        concatenate=True,
        meta=np.empty((0,) * (sums)),
    )
    return da.blockwise(
        _of_sums,
        (),
        of_blocks,
        (*row, sums),
        how=how,
        nats=nats,
        batch=rows[0] if rows else 1,
        wanted=dtype,
        concatenate=True,
        meta=np.empty((), dtype),
    )


def _sums_of_block(*blocks: Any, call: _OnBlocks, shape: tuple[int, ...]) -> Any:
    return np.reshape(call(*blocks), shape)


def _of_sums(sums: Any, how: str, nats: float, batch: int, wanted: DType) -> Any:
    total, counted = (_reduce.total(sums[..., i]) for i in (0, 1))
    return _reduce.reduction_of(total, how, counted, nats, batch, wanted)


def _aligned(arrays: dict[str, Any], axes: dict[str, Axes]) -> list[Any]:
    """Return all operands as Dask arrays with the same chunks of rows; classes are in one."""
    chunks: dict[int, tuple[int, ...]] = {}  # by the rows' dimension, counted from the end
    outer = {
        name: [axis for axis in range(-array.ndim, 0) if axis not in axes[name]]
        for name, array in arrays.items()
    }
    for name, array in arrays.items():
        if not isinstance(array, da.Array):
            continue
        for axis in axes[name]:
            if len(array.chunks[axis]) > 1:
                raise ValueError(
                    f"{name} must have its classes in one chunk, got {len(array.chunks[axis])} on "
                    f"axis {axis}: rechunk it"
                )
        for i, axis in enumerate(reversed(outer[name])):
            if array.shape[axis] != 1:
                chunks.setdefault(-1 - i, array.chunks[axis])
    aligned = []
    for name, array in arrays.items():
        wanted: dict[int, Any] = {axis % array.ndim: -1 for axis in axes[name]}
        for i, axis in enumerate(reversed(outer[name])):
            known = chunks.get(-1 - i, ())
            wanted[axis % array.ndim] = known if sum(known) == array.shape[axis] else -1
        if not isinstance(array, da.Array):
            array = da.from_array(array, chunks=-1)
        aligned.append(array.rechunk(wanted) if wanted else array)
    return aligned
