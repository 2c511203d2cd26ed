"""What a file holds, and what would be scored of it."""

import math
from dataclasses import dataclass
from typing import Any

from klce.scoring import kld
from klce.scoring.errors import InputError
from klce.scoring.inputs import Logits
from klce.scoring.readers import (
    ArrayFile,
    Location,
    Reader,
    StrPath,
    kinds_of,
    open_file,
    open_reader,
)

_CUT_ROWS = 1000
_CUT_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayInfo:
    """One array of a file.

    Attributes
    ----------
    name : str
        Empty if it has none.
    shape, dtype, bytes
        Of the array as it is read; None where klce does not read its dtype.
    """

    name: str
    shape: tuple[int, ...] | None
    dtype: str | None
    bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInfo:
    """What a file holds.

    Attributes
    ----------
    file : str
        The path or URL.
    arrays : tuple of ArrayInfo
        Its arrays.
    scored : str or None
        The array that `klce score` would read as logits.
    rows, classes : int or None
        How many it has.
    why_not : str or None
        Why nothing would be scored.
    kld : dict or None
        Of llama.cpp's base file: n_ctx, n_vocab, n_chunk, and the nats at which its rows are cut.
    """

    file: str
    arrays: tuple[ArrayInfo, ...]
    scored: str | None
    rows: int | None
    classes: int | None
    why_not: str | None
    kld: dict[str, int | None] | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "file": self.file,
            "arrays": [
                {
                    "name": array.name or None,
                    "shape": None if array.shape is None else list(array.shape),
                    "dtype": array.dtype,
                    "bytes": array.bytes,
                }
                for array in self.arrays
            ],
            "scored": self.scored,
            "rows": self.rows,
            "classes": self.classes,
            "why_not": self.why_not,
            "kld": self.kld,
        }


def file_info(place: StrPath) -> FileInfo:
    """Look at a file, a folder or a pattern of files.

    Parameters
    ----------
    place : path or URL
        As `klce.scoring.score_file` takes it.

    Returns
    -------
    FileInfo
        Its arrays, and what would be scored.

    Raises
    ------
    InputError, OSError
        Where nothing can be read.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from klce.scoring import file_info
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/logits.npy", np.zeros((4, 3), np.float32))
    ...     info = file_info(f"{folder}/logits.npy")
    >>> info.rows, info.classes, info.arrays[0].dtype
    (4, 3, 'float32')
    """
    location = Location.parse(place)
    file = open_file(location)
    arrays = _arrays(file)
    scored = rows = classes = why_not = layout = None
    try:
        logits = Logits(reader := open_reader(place))
        logits.check()
    except InputError as error:
        why_not = str(error)
    else:
        scored, rows, classes = logits.path, logits.rows, logits.classes
        if reader.layout is not None:
            layout = {
                "n_ctx": reader.layout.n_ctx,
                "n_vocab": reader.layout.n_vocab,
                "n_chunk": reader.layout.n_chunk,
                "cut": _cut(reader, logits.rows, logits.row_bytes),
            }
    return FileInfo(
        file=location.file,
        arrays=arrays,
        scored=scored,
        rows=rows,
        classes=classes,
        why_not=why_not,
        kld=layout,
    )


def _arrays(file: ArrayFile) -> tuple[ArrayInfo, ...]:
    kinds = kinds_of(file, file.names)
    arrays = []
    for name in file.names:
        shape, dtype = kinds[name] or (None, None)
        size = None if shape is None or dtype is None else math.prod(shape) * dtype.itemsize
        text = None if dtype is None else str(dtype)
        arrays.append(ArrayInfo(name=name, shape=shape, dtype=text, bytes=size))
    return tuple(arrays)


def _cut(reader: Reader, rows: int, row_bytes: int) -> int | None:
    """Return at how many nats the first of a base file's rows are cut off, if any of them is."""
    rows, step = min(rows, _CUT_ROWS), max(1, _CUT_BYTES // row_bytes)
    found = (
        kld.cut_of(reader.read(start, min(start + step, rows), 1)) for start in range(0, rows, step)
    )
    return next((cut for cut in found if cut is not None), None)
