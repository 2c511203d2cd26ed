"""Arguments, checked and brought into the kernels' shape before anything is computed.

Every public function comes through here, so that the same mistake gets the same sentence
everywhere.  Errors name the argument and its value.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from klce import _ufuncs

Floats = NDArray[Any]
Form = Literal["probs", "log_probs", "logits"]
FORMS = ("probs", "log_probs", "logits")

_FLOAT32 = np.dtype(np.float32)
_FLOAT64 = np.dtype(np.float64)


def floats(x: ArrayLike, name: str) -> Floats:
    """Return `x` as a native float32 or float64 array: integers and bool become float64."""
    array = np.asarray(x)
    dtype = array.dtype
    if dtype in (_FLOAT32, _FLOAT64):  # in native byte order: another is unequal
        return array
    if dtype.kind in "iub":
        return array.astype(_FLOAT64)
    if dtype.kind == "f" and dtype.itemsize in (4, 8):
        return array.astype(dtype.newbyteorder("="))
    raise TypeError(f"{name} must be float32, float64, integer or bool, got {dtype}")


def same_floats(p: ArrayLike, q: ArrayLike) -> tuple[Floats, Floats]:
    """Return two arrays as one dtype, float64 if either is."""
    a, b = floats(p, "p"), floats(q, "q")
    if a.dtype != b.dtype:
        return a.astype(_FLOAT64, copy=False), b.astype(_FLOAT64, copy=False)
    return a, b


def result_dtype(x: Floats, dtype: Any) -> Floats:
    """Return `x` in the dtype in which to compute, ``dtype=`` if it is given."""
    if dtype is None:
        return x
    wanted = np.dtype(dtype)
    if wanted not in (_FLOAT32, _FLOAT64):
        raise TypeError(f"dtype must be float32 or float64, got {wanted}")
    return x.astype(wanted, copy=False)


def class_axis(axis: Any, array: Floats, name: str) -> int:
    """Return `axis` counted from the end, as -ndim to -1."""
    if array.ndim == 0:
        raise ValueError(f"{name} must have at least one dimension, the classes, got a scalar")
    try:
        index = axis.__index__()
    except AttributeError:
        raise TypeError(f"axis must be an integer, got {axis!r}") from None
    if not -array.ndim <= index < array.ndim:
        raise np.exceptions.AxisError(
            f"axis {index} is out of bounds for {name} of {array.ndim} dimensions"
        )
    return int(index if index < 0 else index - array.ndim)


def form(value: str) -> None:
    """Check ``form=``."""
    if value not in FORMS:
        raise ValueError(f'form must be "probs", "log_probs" or "logits", got {value!r}')


def temperature(value: float, form: str = "logits") -> float:
    """Check ``temperature=``, which only logits have."""
    try:
        t = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"temperature must be a number, got {value!r}") from None
    if not (1e-6 <= t <= 1e6):
        raise ValueError(f"temperature must be from 1e-6 to 1e6, got {value!r}")
    if form != "logits" and t != 1:
        raise ValueError(f'temperature belongs to form="logits", got {value!r} with form={form!r}')
    return t


def normalize(value: bool, form: str) -> bool:
    """Check ``normalize=``: logits are unnormalised by nature."""
    if not value and form == "logits":
        raise ValueError('normalize=False belongs to form="probs" and form="log_probs"')
    return bool(value)


def unit(base: float | None) -> float:
    """Return how many nats a unit in logarithms of `base` is: results are divided by it."""
    if base is None:
        return 1.0
    try:
        b = float(base)
    except (TypeError, ValueError):
        raise TypeError(f"base must be a number or None, got {base!r}") from None
    if not (0 < b < math.inf) or b == 1:
        raise ValueError(f"base must be positive, finite and not 1, got {base!r}")
    return math.log(b)


def reduction(value: str, allowed: tuple[str, ...]) -> str:
    """Check ``reduction=``."""
    if value not in allowed:
        names = ", ".join(f'"{name}"' for name in allowed[:-1])
        raise ValueError(f'reduction must be {names} or "{allowed[-1]}", got {value!r}')
    return value


def number(value: float, name: str) -> float:
    """Check a finite number."""
    try:
        x = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {value!r}") from None
    if not math.isfinite(x):
        raise ValueError(f"{name} must be finite, got {value!r}")
    return x


def output(
    out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], name: str = "out"
) -> Floats | None:
    """Check ``out=``: the very shape, and a dtype that holds the result."""
    if out is None:
        return None
    if not isinstance(out, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array, got {type(out).__name__}")
    if out.shape != shape:
        raise ValueError(f"{name} must have the result's shape {shape}, got {out.shape}")
    if not np.can_cast(dtype, out.dtype):
        raise TypeError(f"{name} must hold {dtype}, got {out.dtype}")
    if not out.flags.writeable:
        raise ValueError(f"{name} must be writable, got a read-only array")
    return out


def labels(
    target: ArrayLike, shape: tuple[int, ...], classes: int, ignore_index: int
) -> tuple[NDArray[np.int64], int, int]:
    """Return the labels as int64, the ignored one, and how many labels are not ignored.

    Raises
    ------
    IndexError
        For the first label out of range, with its row.
    """
    array = np.asarray(target)
    if array.dtype.kind not in "iu":
        raise TypeError(f"target must hold integers, class indices, got {array.dtype}")
    if array.shape != shape:
        raise ValueError(
            f"target must have the shape of the rows, {shape}, one label a row, got {array.shape}"
        )
    try:
        ignored = ignore_index.__index__()
    except AttributeError:
        raise TypeError(f"ignore_index must be an integer, got {ignore_index!r}") from None
    if not -(2**63) <= ignored < 2**63:
        raise ValueError(f"ignore_index must fit in int64, got {ignore_index!r}")
    if array.dtype == np.uint64:
        # Beyond int64 they would wrap to negative ones; the largest is out of range all the same.
        native = np.minimum(array, np.uint64(2**63 - 1)).astype(np.int64)
    else:
        native = np.asarray(array, dtype=np.int64, order="C")
    bad, counted = _ufuncs.check_labels(native.reshape(-1), classes, ignored)
    if bad >= 0:
        row = np.unravel_index(bad, shape) if shape else ()
        where = f" in row {', '.join(str(int(i)) for i in row)}" if row else ""
        raise IndexError(
            f"target must hold class indices below {classes} or ignore_index={ignored}, "
            f"got {array[row]}{where}"
        )
    return native, ignored, counted


def rows_of(x: Floats, axis: int) -> tuple[int, ...]:
    """Return the shape of `x` without its class axis (counted from the end)."""
    return x.shape[:axis] + x.shape[x.ndim + axis + 1 :]


def in_unit(values: Any, nats: float) -> Any:
    """Divide fresh values, an array in place, by the unit that they are wanted in."""
    if nats == 1:
        return values
    with np.errstate(all="ignore"):
        return np.divide(values, nats, out=values if isinstance(values, np.ndarray) else None)


def reduced(
    losses: Any, how: str, counted: int, nats: float, out: Floats | None, batch: int = 1
) -> Any:
    """Reduce per-row values and change their unit; ``"none"`` came with its `out` filled."""
    if how == "none":
        return in_unit(losses, nats)
    array = np.asarray(losses)
    total = _ufuncs.sum_of(array.reshape(-1)) / nats
    if how != "sum":
        count = counted if how == "mean" else batch
        total = total / count if count else math.nan
    with np.errstate(all="ignore"):  # a sum may be beyond float32
        value = array.dtype.type(total)
    if out is None:
        return value
    out[...] = value
    return out


def called(kernel: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a kernel and raise what its loop could not."""
    result = kernel(*args, **kwargs)
    _ufuncs.raise_trouble()
    return result
