"""What stands before the public functions: plain calls, which have nothing to validate, and Dask.

A call of a small array costs what Python does around the kernel.  So one without options, on arrays
that the kernel takes as they are, goes to it at once.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from numpy import ndarray

from klce._arrays import is_lazy

if TYPE_CHECKING:
    from collections.abc import Callable

    from klce._dask import Result
    from klce._ufuncs import Plain

__all__ = ["entry"]

P = ParamSpec("P")
R = TypeVar("R")

# Of most arguments the type alone tells that they are not lazy, and sooner.
_IN_MEMORY = frozenset({ndarray, type(None), bool, int, float, str, tuple, list})


def entry(
    result: Result, *names: str, plain: Plain | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function take plain calls at once, and Dask arrays for the operands that are named.

    `plain` takes the arguments of a call without keywords, but for axis=-1, and `out`; None says
    that there is more to look at. `result` is what the function gives, see ``klce._dask``.
    """
    takes_axis = result != "elements"

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            if plain is not None:
                out = kwargs.get("out")
                # axis=-1 is what holds without it.
                options = len(kwargs) - (out is not None)
                axis = kwargs.get("axis") if options == 1 and takes_axis else None
                if type(axis) is int and axis == -1:
                    options = 0
                if options == 0:
                    found: R | None = plain(args, out)
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
