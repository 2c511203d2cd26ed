"""Dask arrays: a function of rows is called block by block, when the result is computed."""

from __future__ import annotations

import functools
import importlib
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

import numpy as np

from klce import _arrays, _validate

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")

#: What a function gives: a number for each row, a row for each, or an element for each.
Result = Literal["rows", "map", "elements"]

#: Options that speak of single rows, of which a block knows only its own.
_OF_ROWS = ("out", "sample_weight", "where", "b", "return_sign")


def lazily(result: Result, *names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function take Dask arrays for the operands that are named, and stay lazy.

    A `target` of one dimension less than the first operand holds labels, and no classes.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            # A loop, since the usual call is so short that a generator would show.
            values = (*args, *kwargs.values()) if kwargs else args
            for value in values:
                if _arrays.is_lazy(value):
                    break
            else:
                return function(*args, **kwargs)
            given = signature.bind(*args, **kwargs)
            given.apply_defaults()
            options = given.arguments
            operands = {name: options.pop(name) for name in names}
            lazy: R = _applied(wrapper, result, operands, options)
            return lazy

        return wrapper

    return decorate


@dataclass(frozen=True)
class _OnBlocks:
    """A function with its options, as Dask calls it: the classes on the last axis."""

    function: Callable[..., Any]
    options: dict[str, Any]

    def __call__(self, *blocks: Any) -> Any:
        return self.function(*blocks, **self.options)

    @property
    def __name__(self) -> str:
        return self.function.__name__


def _applied(
    function: Callable[..., Any], result: Result, operands: dict[str, Any], options: dict[str, Any]
) -> Any:
    dask: Any = importlib.import_module("dask.array")
    first = next(iter(operands))
    for name, option in options.items():
        if _arrays.is_lazy(option) or (
            name in _OF_ROWS and option is not None and option is not False
        ):
            raise TypeError(
                f"{name} must not be given as {type(option).__name__} where {first} is a Dask array"
            )
    if options.get("reduction", "none") != "none":
        raise ValueError(
            f'reduction must be "none" for a Dask array, whose rows are computed block by block, '
            f"got {options['reduction']!r}"
        )
    arrays = {}
    for name, operand in operands.items():
        if _arrays.is_lazy(operand) and not isinstance(operand, dask.Array):
            raise TypeError(
                f"{name} must be a Dask array to stay lazy, got a {type(operand).__name__}: "
                "xarray.apply_ufunc hands it over as one"
            )
        arrays[name] = operand if isinstance(operand, dask.Array) else _arrays.array(operand, name)
    # Labels are the one operand of rows that may have no classes.
    ndim = arrays[first].ndim
    floats = {k: a for k, a in arrays.items() if k != "target" or a.ndim == ndim}
    for name, array in floats.items():
        _arrays.check_dtype(array.dtype, name)
    axes: dict[str, tuple[int, ...]] = dict.fromkeys(arrays, ())
    if result != "elements":
        given = options["axis"]
        axes |= {name: (_validate.class_axis(given, a, name),) for name, a in floats.items()}
        options["axis"] = -1
    keepdims = options.pop("keepdims", False)
    dtype = _validate.option_dtype(options.get("dtype"), *floats.values())
    aligned = _aligned(dask, arrays, axes)
    out_axes = axes[first] if result == "map" else ()
    lazy = dask.apply_gufunc(
        _OnBlocks(function, options),
        ",".join("(n)" if axes[name] else "()" for name in arrays)
        + ("->(n)" if out_axes else "->()"),
        *aligned,
        axes=[*axes.values(), out_axes],
        output_dtypes=_arrays.computed(dtype) if result == "rows" else dtype,
    )
    return np.expand_dims(lazy, axes[first]) if keepdims else lazy


def _aligned(dask: Any, arrays: dict[str, Any], axes: dict[str, tuple[int, ...]]) -> list[Any]:
    """Return all operands as Dask arrays with the same chunks of rows; classes are in one."""
    chunks: dict[int, tuple[int, ...]] = {}  # by the rows' dimension, counted from the end
    outer = {
        name: [axis for axis in range(-array.ndim, 0) if axis not in axes[name]]
        for name, array in arrays.items()
    }
    for name, array in arrays.items():
        if not isinstance(array, dask.Array):
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
        if not isinstance(array, dask.Array):
            array = dask.from_array(array, chunks=-1)
        aligned.append(array.rechunk(wanted) if wanted else array)
    return aligned
