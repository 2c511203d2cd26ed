"""Arguments, checked and brought into the kernels' shape before anything is computed.

Every public function comes through here, so that the same mistake gets the same sentence
everywhere.  Errors name the argument and its value.
"""

from __future__ import annotations

import functools
import math
import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from klce import _arrays, _axes, _ufuncs

if TYPE_CHECKING:
    from collections.abc import Container

    from klce._typing import Array, ArrayLike, Axes, DType, Form, Labels, Mask

_FORMS = ("probs", "log_probs", "logits")
_INT64 = np.dtype(np.int64)


def option_dtype(dtype: Any, *operands: Array) -> DType:
    """Return the dtype in which to take the operands: ``dtype=`` if it is given."""
    if dtype is None:
        return _arrays.map_dtype(*operands)
    known = "dtype must be float16, bfloat16, float32 or float64"
    try:
        wanted = _arrays.dtype_of(dtype)
    except (TypeError, ValueError):
        raise TypeError(f"{known}, got {dtype!r}") from None
    if _arrays.element_dtype(wanted) != wanted:
        raise TypeError(f"{known}, got {wanted}")
    return wanted


def class_axis(axis: Any, array: Array, name: str) -> int:
    """Return `axis` counted from the end, as -ndim to -1."""
    if array.ndim == 0:
        raise ValueError(f"{name} must have at least one dimension, the classes, got a scalar")
    index = integer(axis, "axis")
    if not -array.ndim <= index < array.ndim:
        raise np.exceptions.AxisError(
            f"axis {index} is out of bounds for {name} of {array.ndim} dimensions"
        )
    return index if index < 0 else index - array.ndim


def class_axes(axis: Any, array: Array, name: str) -> tuple[int, ...]:
    """Return `axis`, one, several or None for all, in order and counted from the end.

    A scalar has no axis, and as with NumPy's reductions its axis 0 or -1 is that.
    """
    if axis is None:
        return tuple(range(-array.ndim, 0))
    if isinstance(axis, tuple):
        axes = sorted(class_axis(one, array, name) for one in axis)
        if len(set(axes)) < len(axes):
            raise ValueError(f"axis must name each axis once, got {axis}")
        return tuple(axes)
    if array.ndim == 0 and integer(axis, "axis") in (0, -1):
        return ()
    return (class_axis(axis, array, name),)


def pair_axes(axis: Any, p: Array, q: Array) -> Axes:
    """Return the axes of the classes of both arrays, as `class_axes` does of one."""
    of_p, of_q = class_axes(axis, p, "p"), class_axes(axis, q, "q")
    if of_p != of_q:
        raise ValueError(
            f"axis must name the same axis of p and q, counted from the end, got {axis} "
            f"for shapes {p.shape} and {q.shape}"
        )
    for one in of_p:
        if p.shape[one] != q.shape[one]:
            raise ValueError(
                f"p and q must have the same number of classes, got {p.shape[one]} and "
                f"{q.shape[one]}"
            )
    return of_p


def pair_axis(axis: Any, p: Array, q: Array) -> int:
    """Return the axis of the classes of both arrays, as `class_axis` does of one."""
    class_axis(axis, p, "p")
    class_axis(axis, q, "q")
    return pair_axes(axis, p, q)[0]


def form(value: Any, allowed: tuple[str, ...] = _FORMS) -> None:
    """Check ``form=``."""
    one_of(value, allowed, "form")


def one_of(value: Any, allowed: tuple[str, ...], name: str) -> None:
    """Check one of several words."""
    if not isinstance(value, str) or value not in allowed:
        *names, last = (f'"{one}"' for one in allowed)
        raise ValueError(f"{name} must be {', '.join(names)} or {last}, got {told(value)}")


def forms(value: Any) -> tuple[Form, Form]:
    """Return the forms of a pair: ``form=`` is one for both, or one for each."""
    pair = value if isinstance(value, tuple) else (value, value)
    if len(pair) != 2 or any(not isinstance(one, str) or one not in _FORMS for one in pair):
        raise ValueError(
            'form must be "probs", "log_probs" or "logits", or a pair of them, one for p and one '
            f"for q, got {told(value)}"
        )
    return pair


def temperature(value: float, form: Any = "logits") -> float:
    """Check ``temperature=``, which only logits have; `form` may be a pair."""
    t = real(value, "temperature")
    if not (1e-6 <= t <= 1e6):
        raise ValueError(f"temperature must be from 1e-6 to 1e6, got {value!r}")
    if "logits" not in (form if isinstance(form, tuple) else (form,)) and t != 1:
        raise ValueError(f'temperature belongs to form="logits", got {value!r} with form={form!r}')
    return t


def z_loss(value: float, form: Any = "logits") -> float:
    """Check ``z_loss=``, which only logits have."""
    z = number(value, "z_loss")
    if z < 0:
        raise ValueError(f"z_loss must not be negative, got {value!r}")
    if z != 0 and form != "logits":
        raise ValueError(f'z_loss belongs to form="logits", got {value!r} with form={form!r}')
    return z


def normalize(value: bool, form: Any) -> bool:
    """Check ``normalize=``: logits are unnormalised by nature; `form` may be a pair."""
    normalize = flag(value, "normalize")
    if not normalize and "logits" in (form if isinstance(form, tuple) else (form,)):
        raise ValueError(
            f'normalize=False belongs to form="probs" and form="log_probs", got form={form!r}'
        )
    return normalize


def keeps_rows(keepdims: bool, how: Any) -> None:
    """Check ``keepdims=``, for which there have to be rows."""
    if flag(keepdims, "keepdims") and how != "none":
        raise ValueError(f'keepdims belongs to reduction="none", got reduction={how!r}')


def told(value: Any) -> str:
    """Say in an error what was given; an array in short, whose numbers may take many lines."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    return repr(value)


def flag(value: Any, name: str) -> bool:
    """Check a bool, Python's or NumPy's: of other values, truth is often not what was meant."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {told(value)}")
    return bool(value)


def real(value: Any, name: str, what: str = "a number") -> float:
    """Check a number, be it infinite or nan."""
    if type(value) is float:
        return value
    try:
        if isinstance(value, (str, bytes)) or np.iscomplexobj(value):  # NumPy's drop a part
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be {what}, got {told(value)}") from None
    except OverflowError:
        from decimal import Decimal

        raise ValueError(
            f"{name} must be in the range of float64, got {Decimal(int(value)):.3e}"
        ) from None


def integer(value: Any, name: str) -> int:
    """Check an integer, which a bool is not meant as."""
    if type(value) is int:
        return value
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {told(value)}") from None


def number(value: float, name: str) -> float:
    """Check a finite number."""
    x = real(value, name)
    if not math.isfinite(x):
        raise ValueError(f"{name} must be finite, got {value!r}")
    return x


def output(out: Any, shape: tuple[int, ...], dtype: DType) -> Array | None:
    """Check ``out=``: the very shape, and a dtype that holds the result."""
    if out is None:
        return None
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a NumPy array, got {type(out).__name__}")
    if out.shape != shape:
        raise ValueError(f"out must have the result's shape {shape}, got {out.shape}")
    if not np.can_cast(dtype, out.dtype):
        raise TypeError(f"out must hold {dtype}, got {out.dtype}")
    if not out.flags.writeable:
        raise ValueError("out must be writable, got a read-only array")
    return out


def ignored(ignore_index: int) -> int:
    """Check ``ignore_index=``."""
    label = integer(ignore_index, "ignore_index")
    if not -(2**63) <= label < 2**63:
        raise ValueError(f"ignore_index must fit in int64, got {ignore_index!r}")
    return label


def class_indices(x: ArrayLike, name: str, shape: tuple[int, ...] | None = None) -> Array:
    """Return an array of integers, of whatever range; `shape` is that of labels."""
    given = _arrays.array(x, name)
    if given.size:  # an empty list is of floats
        labels = given.shape == shape and is_floating(given.dtype)
        index_dtype(given.dtype, name, f": pass {name}.astype(int)" if labels else "")
    return given


def index_dtype(dtype: DType, name: str, hint: str = "") -> None:
    """Check the dtype of class indices."""
    if dtype.kind not in "iu":
        raise TypeError(f"{name} must hold integers, class indices, got {dtype}{hint}")


def labels(
    target: ArrayLike,
    shape: tuple[int, ...],
    classes: int,
    ignored: int,
    kept: Mask | None = None,
) -> tuple[Labels, int]:
    """Return the labels as int64, and how many are not the ignored one.

    Those of rows that are not `kept` are ignored, whatever they are.

    Raises
    ------
    IndexError
        For the first label out of range, with its row.
    """
    given = class_indices(target, "target", shape)
    if given.shape != shape:
        raise ValueError(
            f"target must have the shape of the rows, {shape}, one label a row, got {given.shape}"
        )
    if given.dtype == _INT64 and given.flags.c_contiguous:
        native = given
    else:
        native = given.astype(np.int64, order="C")
        if given.dtype.kind == "u" and given.dtype.itemsize == 8:
            # Those beyond int64 have wrapped, maybe to the ignored one.
            native[given > np.iinfo(np.int64).max] = -1 if ignored != -1 else -2
    if kept is not None:
        native = np.where(kept, native, np.int64(ignored))
    bad, counted = _ufuncs.check_labels(native.reshape(-1), classes, ignored)
    if bad >= 0:
        row = tuple(map(int, np.unravel_index(bad, shape))) if shape else ()
        raise IndexError(no_label("target", given[row], classes, ignored, in_row(row)))
    return native, counted


def indices(classes: int) -> str:
    """Say in an error what class indices there are."""
    return f"class indices {f'from 0 to {classes - 1}' if classes else 'of no classes'}"


def no_class(name: str, index: Any, classes: int, place: str) -> str:
    """Say of a class index that it is out of range."""
    return f"{name} must hold {indices(classes)}, got {index}{place}"


def no_label(name: str, label: Any, classes: int, ignored: int, place: str) -> str:
    """Say of a label that it is out of range."""
    return f"{name} must hold {indices(classes)} or ignore_index={ignored}, got {label}{place}"


def in_row(row: tuple[Any, ...]) -> str:
    """Say in an error which row it is, unless there is but one."""
    return f" in row {', '.join(map(str, row))}" if row else ""


def names(want: Any) -> tuple[str, ...]:
    """Check that ``want=`` is several names."""
    if isinstance(want, str):
        raise TypeError(f"want must be a collection of names, got the string {want!r}")
    try:
        return tuple(want)
    except TypeError:
        raise TypeError(f"want must be a collection of names, got {want!r}") from None


def statistics(
    want: tuple[str, ...], known: tuple[str, ...], of_target: Container[str], *, labelled: bool
) -> None:
    """Check the names of ``want=``: those known, and those of a target only with one."""
    for name in want:
        if name not in known:
            raise ValueError(f"want must name statistics of {', '.join(known)}, got {name!r}")
        if name in of_target and not labelled:
            raise ValueError(f"want must not name {name!r} without a target")


def distribution(target: ArrayLike, q: Array) -> Array:
    """Check probabilities as a target: of the very shape of the predictions."""
    array = _arrays.floats(target, "target")
    if array.shape != q.shape:
        raise ValueError(
            f"target must have the shape of q, {q.shape}, if it holds probabilities, "
            f"got {array.shape}"
        )
    return array


def is_floating(dtype: DType) -> bool:
    """Whether a dtype is one of floats that are taken."""
    return dtype.kind not in "iub" and _arrays.element_dtype(dtype) is not None


def weights(values: ArrayLike | None, name: str, dtype: DType) -> Array:
    """Return weights in the dtype of what they weigh: not negative, and finite; 1 for None."""
    if values is None:
        return repeated(1, (), dtype)
    given = array = _arrays.floats(values, name)
    if array.dtype != dtype:
        with np.errstate(all="ignore"):
            array = array.astype(dtype)
    if not _ufuncs.are_weights(array):
        first = np.argwhere(~((array >= 0) & (array < math.inf)))[0].tolist()
        value, where = given[tuple(first)], f" at {', '.join(map(str, first))}" if first else ""
        finite = "finite" if not 0 <= value < math.inf else f"finite in {dtype}"
        raise ValueError(f"{name} must be {finite} and not negative, got {value}{where}")
    return array


@functools.lru_cache(64)
def repeated(value: float, shape: tuple[int, ...], dtype: DType) -> Array:
    """Return one number as an array of many, by strides of 0; read-only."""
    return np.broadcast_to(np.array(value, dtype), shape)


def whole_weights(values: Any, *, by_class: bool = False) -> Array | None:
    """Return weights that kernels may take as they are; None where there is more to look at.

    Those of classes have one dimension: with more, they would pass for a distribution a row.
    """
    if type(values) is not np.ndarray or values.dtype not in (_arrays.FLOAT32, _arrays.FLOAT64):
        return None
    if by_class and values.ndim != 1:
        return None
    return values if values.flags.c_contiguous and _ufuncs.are_weights(values) else None


def class_weights(values: ArrayLike | None, classes: int, dtype: DType) -> Array:
    """Return ``weight=``, one for each class; a single number, repeated by stride 0, for None."""
    array = weights(values, "weight", dtype)
    if values is None:
        return repeated(1, (classes,), dtype)
    if array.shape != (classes,):
        raise ValueError(f"weight must have one number a class, ({classes},), got {array.shape}")
    return np.ascontiguousarray(array)


def spread(
    values: ArrayLike | None, name: str, shape: tuple[int, ...], dtype: DType, what: str
) -> Array:
    """Return weights in the shape of what they weigh, to which they broadcast; 0-d for None."""
    array = weights(values, name, dtype)
    if values is None or array.shape == shape:
        return array
    try:
        return np.broadcast_to(array, shape)
    except ValueError:
        raise ValueError(
            f"{name} must broadcast to the shape of {what}, {shape}, got {array.shape}"
        ) from None


def label_smoothing(value: float) -> float:
    """Check ``label_smoothing=``."""
    x = number(value, "label_smoothing")
    if not 0 <= x <= 1:
        raise ValueError(f"label_smoothing must be from 0 to 1, got {value!r}")
    return x


def broadcast(a: Array, b: Array, names: str = "p and q") -> tuple[int, ...]:
    """Return the shape that two arrays have together."""
    try:
        return np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        raise ValueError(
            f"{names} must have shapes that broadcast, got {a.shape} and {b.shape}"
        ) from None


def mask(where: Any, shape: tuple[int, ...], axes: Axes, name: str) -> Mask | None:
    """Return ``where=`` as a view in the shape of the array called `name`; None for None.

    `axes` are those of the classes.
    """
    if where is None:
        return None
    array = _arrays.array(where, "where")
    if array.dtype != np.bool_:
        raise TypeError(f"where must hold bool, got {array.dtype}")
    if array.shape == shape:
        return array
    try:
        return np.broadcast_to(array, shape)
    except ValueError:
        of_rows = array.shape == _axes.without(shape, axes)
        axis = axes[0] if len(axes) == 1 else axes
        hint = f": np.expand_dims(where, {axis}) is a mask of rows" if of_rows else ""
        raise ValueError(
            f"where must broadcast to the shape of {name}, {shape}, got {array.shape}{hint}"
        ) from None


def kept_rows(where: Any, shape: tuple[int, ...], axes: Axes) -> Mask | None:
    """Return ``where=`` in the shape of the rows where it is a mask of rows; else None.

    It is one if it has length one on the axes of the classes, or too few dimensions to have them.
    """
    if where is None:
        return None
    array = _arrays.array(where, "where")
    if any(array.ndim >= -axis and array.shape[axis] != 1 for axis in axes):
        return None
    return np.broadcast_to(array, _axes.kept(shape, axes)).squeeze(axes)
