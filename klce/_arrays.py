"""What is taken as an array of floating-point numbers, and in which dtype it is computed.

Nothing is copied here: arrays of other libraries come in through DLPack, and what no kernel takes
as it stands is converted later, in blocks (``klce._blocks``).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

from klce import _ufuncs

if TYPE_CHECKING:
    from klce._typing import Array, ArrayLike, DType


FLOAT16 = np.dtype(np.float16)
FLOAT32 = np.dtype(np.float32)
FLOAT64 = np.dtype(np.float64)
#: In native byte order; a dtype of the other order is not in here, since it compares unequal.
NATIVE: frozenset[DType] = frozenset({FLOAT16, FLOAT32, FLOAT64})

#: DLPack's device types whose memory the CPU reads: its own, and what CUDA and ROCm pin in it.
_IN_CPU_MEMORY = (1, 3, 11)


#: What to do instead of masking elements, where there is ``where=``.
WHERE = "where= leaves classes out"


def array(x: ArrayLike, name: str, instead: str = "") -> Array:
    """Return `x` as a NumPy array, sharing its memory where it has any.

    `instead` says what to do about masked elements.

    Raises
    ------
    TypeError
        For an array on another device, a tensor that requires grad, and a lazy one.
    ValueError
        For nested lists whose rows differ in length, and masked elements.
    """
    if type(x) is np.ndarray:
        return x
    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        if name == "target":
            instead = (
                "fill labels with ignore_index, and their rows are left out"
                if x.dtype.kind in "iu"
                else "a weight of 0 leaves elements and rows out"
            )
        raise ValueError(
            f"{name} must have no masked elements, got {np.ma.getmaskarray(x).sum()} of {x.size}"
            + (f": {instead}" if instead else "")
        )
    if isinstance(x, (np.ndarray, np.generic)):
        return np.asarray(x)
    if hasattr(type(x), "__dlpack_device__"):
        return _from_dlpack(x, name)
    what = type(x).__name__
    if is_lazy(x):
        raise TypeError(f"{name} must be an array in memory, got a lazy {what}")
    try:
        return np.asarray(x)
    except ValueError:
        if not isinstance(x, (list, tuple)):
            raise
        raise ValueError(
            f"{name} must be rectangular, got a {what} whose rows differ in length"
        ) from None
    except (RuntimeError, TypeError) as error:
        raise _unreadable(what, name, error) from error


def _unreadable(what: str, name: str, error: Exception) -> TypeError:
    """Return what to raise for what NumPy does not make an array of."""
    return TypeError(f"{name} must be what NumPy takes as an array, got a {what}: {error}")


def is_lazy(x: Any) -> bool:
    """Whether `x` is a collection of Dask's, whose values are yet to be computed."""
    return hasattr(type(x), "__dask_graph__") and x.__dask_graph__() is not None


class _Exporter:
    """Another library's array, with the floats that NumPy does not know as integers."""

    def __init__(self, x: Any) -> None:
        self._x = x
        self.dtype = ""  # ml_dtypes' name for them

    def __dlpack__(self, **options: Any) -> Any:
        capsule = self._x.__dlpack__(**options)
        self.dtype = _ufuncs.as_integers(capsule)
        return capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        kind, number = self._x.__dlpack_device__()
        return int(kind), int(number)


def _from_dlpack(x: Any, name: str) -> Array:
    exporter = _Exporter(x)
    what = type(x).__name__
    try:
        kind, number = exporter.__dlpack_device__()
    except (BufferError, RuntimeError, ValueError) as error:
        raise TypeError(f"{name} must be in CPU memory, got a {what}: {error}") from error
    if kind not in _IN_CPU_MEMORY:
        device = getattr(x, "device", f"DLPack device {kind}:{number}")
        raise TypeError(f"{name} must be in CPU memory, got a {what} on {device}")
    if getattr(x, "requires_grad", False) is True:
        raise TypeError(
            f"{name} must not require grad, which klce does not record: pass {name}.detach()"
        )
    try:
        numbers = np.from_dlpack(exporter)
    except (BufferError, RuntimeError, TypeError, ValueError):
        # Not what DLPack describes (strings, missing values): maybe what NumPy can copy.
        try:
            return np.asarray(x)
        except (RuntimeError, TypeError, ValueError) as error:
            raise _unreadable(what, name, error) from error
    if not exporter.dtype:
        return numbers
    try:
        package: Any = importlib.import_module("ml_dtypes")
    except ImportError:
        raise TypeError(
            f"{name} must be of a dtype that NumPy has unless ml_dtypes is installed, "
            f"got {exporter.dtype}"
        ) from None
    return numbers.view(getattr(package, exporter.dtype))


def dtype_of(given: Any) -> DType:
    """Return what ``dtype=`` names: as NumPy does, and bfloat16, which another package has."""
    if isinstance(given, str) and given == "bfloat16":
        try:
            given = importlib.import_module("ml_dtypes").bfloat16
        except ImportError:
            raise ImportError("bfloat16 needs ml_dtypes, which is not installed") from None
    wanted: DType = np.dtype(given)
    return wanted


def floats(x: ArrayLike, name: str, instead: str = "") -> Array:
    """Return `x` as an array whose elements kernels take, or blocks of it once converted."""
    numbers = array(x, name, instead)
    check_dtype(numbers.dtype, name)
    return numbers


def check_dtype(dtype: DType, name: str) -> None:
    """Check that kernels take a dtype, as it stands or converted."""
    if element_dtype(dtype) is None:
        raise TypeError(
            f"{name} must be float16, bfloat16, float32, float64, float8, integer or bool, "
            f"got {dtype}"
        )


def element_dtype(dtype: DType) -> DType | None:
    """Return the dtype in which kernels take elements of a dtype; None if it is not taken."""
    if dtype in NATIVE:
        return dtype
    if dtype.kind in "iub":
        return FLOAT64
    if dtype.type.__module__ == "ml_dtypes":
        if dtype.name == "bfloat16":
            _ufuncs.register_bfloat16(dtype)
            return dtype
        if dtype.name.startswith("float8_"):
            return FLOAT32
        return None
    if dtype.kind != "f":
        return None  # text of any length has no byte order
    native = dtype.newbyteorder("=")
    return native if native in NATIVE else None


def map_dtype(first: Array, *others: Array) -> DType:
    """Return the dtype in which kernels take these together, and in which maps give results."""
    dtype = element_dtype(first.dtype)
    assert dtype is not None
    for operand in others:
        other = element_dtype(operand.dtype)
        if other != dtype:
            dtype = FLOAT64 if FLOAT64 in (dtype, other) else FLOAT32
    return dtype


def row_dtype(*operands: Array) -> DType:
    """Return the dtype of a result for each row: what halves are computed in, too."""
    return computed(map_dtype(*operands))


def computed(dtype: DType) -> DType:
    """Return the dtype in which kernels compute with elements of one that they take."""
    return FLOAT64 if dtype == FLOAT64 else FLOAT32
