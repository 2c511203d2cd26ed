"""What wraps the public functions: a short way for plain calls, and the one of Dask arrays.

On a small array, a call costs what Python does around the kernel.  So a plain call, whose arrays
the kernel takes as they are and whose options are its parameters, goes to the kernel at once.
"""

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

# What checks the options that kernels have as parameters, and a base, as the long way does.  (None:
# weights that the long way has to look at.)
_CHECKS: dict[str, Callable[[Any], Any]] = {
    "temperature": _validate.temperature,
    "z_loss": _validate.z_loss,
    "label_smoothing": _validate.label_smoothing,
    "ignore_index": _validate.ignored,
    "weight": functools.partial(_validate.whole_weights, by_class=True),
    "sample_weight": _validate.whole_weights,
    "base": _reduce.unit,
}


class _Kernel:
    """A kernel and its parameters, which are numbers, and options by their names."""

    def __init__(self, name: str, *parameters: Any, defaults: dict[str, Any]) -> None:
        self.call = _ufuncs.Plain(name)
        self._names: Any = parameters
        self.options = frozenset(one for one in parameters if isinstance(one, str))
        values = [defaults[one] if isinstance(one, str) else one for one in parameters]
        #: The parameters where all options are the defaults; a weight that is not given is 1.
        self.defaults = tuple([1.0 if value is None else value for value in values])

    def parameters(self, options: dict[str, Any]) -> tuple[Any, ...]:
        """Return the parameters where some options are not the defaults."""
        return tuple(map(options.get, self._names, self.defaults))


def entry(
    result: Result, *names: str, plain: dict[str, list[tuple[Any, ...]]] | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function take plain calls at once, and Dask arrays for the operands that are named.

    `plain` says by ``form=``, "" where there is none, which kernels plain calls go to: their names,
    each with the parameters behind the arrays, which are numbers or options of the function, by
    name. The first that has all options that differ from their defaults takes the call, with its
    `out`, `reduction`, `axis`, `base` and `where`.  `result` is what the function gives, see
    ``klce._dask``.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        defaults = _defaults(function)
        form, reduction = defaults.get("form", ""), defaults.get("reduction", "none")
        last = defaults.get("axis", -1)
        by_form = {
            one: [_Kernel(*kernel, defaults=defaults) for kernel in kernels]
            for one, kernels in (plain or {}).items()
        }

        def short(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            asked, how, axis = form, reduction, last
            out, mask = None, None
            options: dict[str, Any] = {}
            for name, value in kwargs.items():
                if name not in defaults or type(value) not in _IN_MEMORY:
                    return None
                if name == "out":
                    out = value
                elif name == "axis" and type(value) is int and -64 <= value < 64:
                    axis = value
                elif name == "reduction":
                    how = value
                elif name == "form" and type(value) is str:
                    asked = value
                elif type(value) is type(defaults[name]) and value == defaults[name]:
                    continue
                elif name == "where":
                    mask = value
                elif name in _CHECKS:
                    try:
                        checked = _CHECKS[name](value)
                    except (TypeError, ValueError):  # as the long way will, if that is all
                        return None
                    if checked is None:
                        return None
                    if type(checked) is ndarray or checked != defaults[name]:
                        options[name] = checked
                else:
                    return None
            nats = options.pop("base", 1.0)
            for kernel in by_form.get(asked, ()):
                if not options or options.keys() <= kernel.options:
                    operands = args + (kernel.parameters(options) if options else kernel.defaults)
                    return kernel.call(operands, out, how, axis, mask, nats)
            return None

        first = by_form[form][0] if plain else None

        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            if first is not None:
                out = kwargs.get("out")
                found: R | None
                if len(kwargs) > (out is not None):
                    found = short(args, kwargs)
                else:
                    found = first.call(args + first.defaults, out, reduction, last)
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
