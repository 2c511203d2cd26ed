"""What wraps the public functions: a short way for plain calls, and the one of Dask arrays.

On a small array, a call costs what Python does around the kernel.  So a plain call, whose options
are the defaults and whose arrays the kernel takes as they are, goes to the kernel at once.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

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
    result: Result, *names: str, plain: Plain | dict[str, Plain] | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function take plain calls at once, and Dask arrays for the operands that are named.

    `plain`, one for each ``form=`` that there is, takes the arrays of a call, `out`, `reduction`
    and `axis`, where all other options are the defaults; None says that there is more to look at.
    `result` is what the function gives, see ``klce._dask``.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        defaults = _defaults(function)
        taken = defaults.keys() & {"out", "reduction", "form"}
        form, reduction = defaults.get("form", ""), defaults.get("reduction", "none")
        last = defaults.get("axis", -1)
        kernels = plain if isinstance(plain, dict) else {form: plain}

        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            asked = kwargs.get("form", form)
            kernel = kernels.get(asked) if type(asked) is str and args else None
            if kernel is not None:
                for name, value in kwargs.items():
                    if name not in taken and not _changes_nothing(name, value, defaults):
                        break
                else:
                    how = kwargs.get("reduction", reduction)
                    axis: Any = kwargs.get("axis", last)
                    found: R | None = kernel(args, kwargs.get("out"), how, axis)
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


def _defaults(function: Callable[..., Any]) -> dict[str, Any]:
    values = getattr(function, "__defaults__", None) or ()
    count = function.__code__.co_argcount
    named = zip(function.__code__.co_varnames[count - len(values) : count], values, strict=True)
    return dict(named) | (function.__kwdefaults__ or {})


def _changes_nothing(name: str, value: Any, defaults: dict[str, Any]) -> bool:
    """Whether an option is what holds without it, or an axis such as an array may have."""
    default = defaults.get(name, defaults)  # of an unknown name a dict, which none is
    if type(value) is not type(default) or type(value) not in _IN_MEMORY:
        return False
    return -64 <= value < 64 if name == "axis" else bool(value == default)
