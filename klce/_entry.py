"""What wraps the public functions: a short way for plain calls, and the one of Dask arrays."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from numpy import ndarray

from klce import _reduce, _ufuncs, _validate
from klce._arrays import is_lazy

if TYPE_CHECKING:
    from collections.abc import Callable

    from klce._dask import Result

__all__ = ["entry"]

P = ParamSpec("P")
R = TypeVar("R")

# Of most arguments the type alone tells that they are not lazy, and sooner.
_IN_MEMORY = frozenset({ndarray, type(None), bool, int, float, str, tuple, list})

# What checks the options that kernels have as parameters, and a base, as the long way does.
_CHECKS: dict[str, Callable[[Any], Any]] = {
    "temperature": _validate.temperature,
    "z_loss": _validate.z_loss,
    "label_smoothing": _validate.label_smoothing,
    "ignore_index": _validate.ignored,
    "weight": functools.partial(_validate.whole_weights, by_class=True),
    "sample_weight": _validate.whole_weights,
    "base": _reduce.unit,
}


def entry(
    result: Result, *names: str, plain: dict[str, list[tuple[Any, ...]]] | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function take plain calls at once, and Dask arrays for the operands that are named.

    `plain` says by ``form=`` which kernels plain calls go to, with which parameters: see
    ``_ufuncs.ShortWay``.  `result` is what the function gives, see ``klce._dask``.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        short = _ufuncs.ShortWay(_defaults(function), plain, _CHECKS) if plain else None

        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            if short is not None:
                found: R | None = short(args, kwargs)
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
