"""What stands before the public functions: plain calls, which have nothing to validate, and Dask.

A call of a small array costs what Python does around the kernel.  So one without options, on arrays
that the kernel takes as they are, goes to it at once.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from numpy import asarray, ndarray

from klce import _validate
from klce._arrays import NATIVE, is_lazy
from klce._ufuncs import check_labels, raise_trouble, sum_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy import ufunc

    from klce._dask import Result

    #: A call without keywords, or None for arguments that are to be looked at.
    Plain = Callable[[tuple[Any, ...]], Any]

__all__ = ["entry", "mean_of_losses", "of_array", "of_pair"]

P = ParamSpec("P")
R = TypeVar("R")

# Of most arguments the type alone tells that they are not lazy, and sooner.
_IN_MEMORY = frozenset({ndarray, type(None), bool, int, float, str, tuple, list})


def entry(
    result: Result, *names: str, plain: Plain | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function take plain calls at once, and Dask arrays for the operands that are named.

    `plain` takes the arguments of a call without keywords; None says that there is more to look at.
    `result` is what the function gives, see ``klce._dask``.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            if plain is not None and not kwargs:
                found: R | None = plain(args)
                if found is not None:
                    return found
            for value in (*args, *kwargs.values()):
                if type(value) not in _IN_MEMORY and is_lazy(value):
                    from klce import _dask

                    lazy: R = _dask.applied(wrapper, result, names, args, kwargs)
                    return lazy
            return function(*args, **kwargs)

        return wrapper

    return decorate


def _is_plain(x: Any) -> Any:
    """Whether kernels take an array as it stands, and it has rows that are not empty."""
    return type(x) is ndarray and x.dtype in NATIVE and x.flags.c_contiguous and x.size and x.ndim


def of_array(kernel: ufunc, parameter: float | None = None) -> Plain:
    """Return the plain call of a kernel on an array, and its parameter as by default, if any."""
    given = None if parameter is None else asarray(parameter)  # as it would be made each time

    def call(args: tuple[Any, ...]) -> Any:
        if len(args) != 1 or not _is_plain(args[0]):
            return None
        result = kernel(args[0]) if given is None else kernel(args[0], given)
        raise_trouble()
        return result

    return call


def of_pair(kernel: ufunc, *parameters: float) -> Plain:
    """Return the plain call of a kernel on two arrays of one shape and dtype."""
    given = tuple(map(asarray, parameters))

    def call(args: tuple[Any, ...]) -> Any:
        if len(args) != 2 or not _is_plain(args[0]) or not _is_plain(args[1]):
            return None
        p, q = args
        if p.shape != q.shape or p.dtype != q.dtype:
            return None
        result = kernel(p, q, *given)
        raise_trouble()
        return result

    return call


def mean_of_losses(kernel: ufunc, ignored: int, *parameters: float) -> Plain:
    """Return the plain call of a loss on rows and a line of labels: the mean."""
    given = tuple(map(asarray, (ignored, *parameters)))

    def call(args: tuple[Any, ...]) -> Any:
        if len(args) != 2 or not _is_plain(args[0]) or args[0].ndim != 2:
            return None
        rows, labels = args
        try:
            bad, counted = check_labels(labels, rows.shape[1], ignored)
        except (TypeError, ValueError):  # no line of int64
            return None
        if bad >= 0 or len(labels) != len(rows):
            return None
        losses = kernel(rows, labels, *given)
        raise_trouble()
        return _validate.reduction_of(sum_of(losses), "mean", counted, 1.0, 1, losses.dtype)

    return call
