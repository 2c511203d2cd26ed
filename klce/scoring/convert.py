"""Arrays from one file format to another, block by block.

A format is a `klce.scoring.results.Writer` and one row in `ARRAY_WRITERS`: those whose files can be
written piece by piece.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
from numpy.typing import NDArray

from klce._arrays import element_dtype
from klce._columns import arrow_array
from klce.scoring import kld
from klce.scoring.blocks import MEMORY, Plan, Progress, plan_blocks
from klce.scoring.errors import InputError, warn
from klce.scoring.identity import Watch
from klce.scoring.inputs import Rows, check_integer, check_places, local_inputs, out_of_range
from klce.scoring.optional import library
from klce.scoring.outputs import check_library, check_output_path
from klce.scoring.readers import Location, Reader, StrPath, open_file, open_reader
from klce.scoring.readers.kld import KldReader
from klce.scoring.results import NpyWriter, Writer, open_parquet, open_writer
from klce.scoring.whole import open_whole, open_whole_folder

_BLOCK_BYTES = 16 << 20

_COPIES = 3
"""Copies of a block that writing it takes: as it is read and as it is stored, and a library's."""

_CHUNK_BYTES = 4 << 20
"""Bytes of a chunk that is written, at most, if it is more than one item."""


class _ArrowArray:
    """A column ``logits`` of lists of a fixed size; or of numbers, for an array of one axis."""

    needs: ClassVar[str | None] = "pyarrow"

    def __init__(self, file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        pa = self._pa = library("pyarrow", "writing .arrow files")
        value = pa.from_numpy_dtype(dtype.newbyteorder("="))
        lists = len(shape) > 1
        column = pa.list_(value, shape[-1]) if lists else value
        self._schema = pa.schema([("logits" if lists else "values", column)])
        self._floats = dtype.kind == "f"
        self._writer = self._open(file)

    def _open(self, file: BinaryIO) -> Any:
        return library("pyarrow.ipc", "writing .arrow files").new_file(file, self._schema)

    def write(self, table: NDArray[Any]) -> None:
        column = arrow_array(self._pa, table.astype(table.dtype.newbyteorder("="), copy=False))
        self._writer.write_table(self._pa.table([column], schema=self._schema))

    def close(self) -> None:
        self._writer.close()


class _ParquetArray(_ArrowArray):
    """The same column. Floats seldom come again: a dictionary of them would be larger than they."""

    def _open(self, file: BinaryIO) -> Any:
        return open_parquet(file, self._schema, dictionary=not self._floats)


ARRAY_WRITERS: dict[str, type[Writer]] = {
    ".npy": NpyWriter,
    ".parquet": _ParquetArray,
    ".arrow": _ArrowArray,
}
#: Of files that can be written: the others have functions of their own.
SUFFIXES = (*ARRAY_WRITERS, ".zarr", ".kld")


def convert_file(
    source: StrPath,
    out: StrPath,
    *,
    tokens: StrPath | None = None,
    cut: int | None = None,
    memory: int = MEMORY,
    progress: Progress | None = None,
) -> Reader:
    """Write an array to a file of another format, and return a reader of it.

    Parameters
    ----------
    source : path or URL
        The array, as `klce.scoring.score_file` takes it.
    out : path
        The file to write, by its suffix: ``.npy``, ``.parquet``, ``.arrow``, ``.zarr``
        or ``.kld``. The columnar ones have a list for each row, whatever the axes before the last.
        bfloat16 becomes float32, which all of them know.
    tokens : path or URL, optional
        For ``.kld``: the tokens of all chunks, integers of shape (n_chunk, n_ctx). Without it, the
        array ``tokens`` of the source, if that has one.
    cut : {16, 24}, optional
        For ``.kld``: the nats below each row's largest log-probability at which it is cut off; 16
        unless given. A ``.kld`` source keeps its rows as they stand, unless given.
    memory : int, default 256 MiB
        Bytes to stay within, beyond the maps of files.
    progress : callable, optional
        Called after each block with the bytes done and those in all.

    Returns
    -------
    Reader
        Of the file that was written: its `shape` and `dtype`, and ``read(start, stop, leading)``.

    Raises
    ------
    InputError
        Where a file cannot be converted.
    OSError
        Where a file cannot be read or written.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from klce.scoring import convert_file
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/a.npz", logits=np.eye(3))
    ...     reader = convert_file(f"{folder}/a.npz::logits", f"{folder}/b.npy")
    ...     reader.read(0, 2, leading=1)
    array([[1., 0., 0.],
           [0., 1., 0.]])
    """
    check_places({"source": source, "out": out, "tokens": tokens})
    check_integer("memory", memory)
    watch = Watch({"source": source, "tokens": tokens})
    reader, path = open_reader(source), Path(out)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise InputError(f"{path}: not a file type that klce converts to ({known})")
    if not reader.shape:
        raise InputError(f"{reader.path}: a single number, not an array")
    for name, value in (("tokens", tokens), ("cut", cut)):
        if value is not None and suffix != ".kld":
            raise InputError(f"{name} belongs to .kld files, not to {path}")
    if suffix == ".zarr" and path.exists():
        raise InputError(f"{path}: exists already; klce replaces files, never folders")
    dtype = _stored(reader)
    if dtype.kind == "f":  # labels may have chunks that were left out for being zeros
        reader.check_whole()
    if reader.shape[-1] == 0 and len(reader.shape) > 1 and suffix not in (".npy", ".zarr"):
        raise InputError(
            f"{reader.path}: rows of no numbers, which {suffix} files cannot hold: the shape is "
            f"{reader.shape}"
        )
    make = ARRAY_WRITERS.get(suffix)
    if make is not None:
        check_library(path, make)
    location = Location.parse(source)
    place = path if suffix == ".zarr" else out  # a slash at the end is right for a folder
    check_output_path(place, local_inputs({"source": source, "tokens": tokens}))
    leading = max(1, len(reader.shape) - 1)
    rows = math.prod(reader.shape[:leading])
    shape = reader.shape if suffix in (".npy", ".zarr") else (rows, *reader.shape[leading:])
    if make is not None:
        with open_writer(path, lambda file: make(file, shape, dtype)) as writer:
            for start, stop in _spans(_plan(reader, leading, memory, _COPIES), progress):
                writer.write(reader.read(start, stop, leading).astype(dtype, copy=False))
    elif suffix == ".kld":
        _write_kld(reader, path, _open_tokens(tokens, location), cut, memory, progress)
    else:
        _write_zarr(reader, path, memory, progress)
    watch.check()
    if shape != reader.shape:
        warn(
            f"{path}: {suffix} files have rows on one axis: the shape {reader.shape} becomes "
            f"{shape}"
        )
    return open_reader(path)


def _stored(reader: Reader) -> np.dtype[Any]:
    """Return the dtype that an array is written in: one that every format holds and klce reads."""
    dtype = reader.dtype
    if dtype.name == "bfloat16":
        return np.dtype(np.float32)
    if dtype.kind not in "iufb" or element_dtype(dtype) is None:
        raise InputError(
            f"{reader.path}: dtype {dtype} cannot be converted; "
            "bool, integers, float16, bfloat16, float32 and float64 can"
        )
    return dtype


def _plan(reader: Reader, leading: int, memory: int, copies: int) -> Plan:
    """Return how an array is cut into blocks, of which writing takes so many copies."""
    rows = Rows(reader, leading)
    return plan_blocks(
        [rows],
        memory=memory,
        block_rows=None,
        working_row_bytes=copies * rows.row_bytes,
        block_bytes=_BLOCK_BYTES,
    )


def _spans(plan: Plan, progress: Progress | None) -> Iterator[tuple[int, int]]:
    """Yield where the blocks begin and end, and tell of those that are done."""
    for start, stop in plan.spans():
        yield start, stop
        if progress is not None:
            progress(stop * plan.row_bytes, plan.rows * plan.row_bytes)


def _write_zarr(reader: Reader, path: Path, memory: int, progress: Progress | None) -> None:
    zarr = library("zarr", f"{path}: writing .zarr files")
    plan = _plan(reader, 1, memory, _COPIES)
    # Chunks of a few MB, of whole items of the first axis; a block is whole chunks, where its size
    # is free, so that none is written twice.
    chunk = max(1, min(plan.block_rows, plan.rows, _CHUNK_BYTES // Rows(reader, 1).row_bytes))
    if plan.chunk_rows == 1:
        plan = replace(plan, block_rows=plan.block_rows // chunk * chunk)
    with open_whole_folder(path) as folder:
        array = zarr.create_array(
            folder,
            shape=reader.shape,
            chunks=(chunk, *(max(1, length) for length in reader.shape[1:])),
            dtype=_stored(reader),
            config={"write_empty_chunks": True},  # one that is missing is not taken for zeros
        )
        for start, stop in _spans(plan, progress):
            array[start:stop] = reader.read(start, stop, 1)


def _open_tokens(tokens: StrPath | None, source: Location) -> Reader:
    if tokens is not None:
        return open_reader(tokens, ("tokens",))
    file = open_file(source)
    if "tokens" not in file.names:
        raise InputError(
            f"{source}: a .kld file holds the tokens too: name a file of integers of shape "
            "(n_chunk, n_ctx) by --tokens"
        )
    return file.array("tokens")


def _write_kld(
    reader: Reader,
    path: Path,
    tokens: Reader,
    cut: int | None,
    memory: int,
    progress: Progress | None,
) -> None:
    if cut not in (None, *kld.CUTS):
        raise InputError(f"cut must be {' or '.join(map(str, kld.CUTS))} nats, got {cut}")
    if len(reader.shape) < 2:
        raise InputError(f"{reader.path}: logits need 2 axes or more, this array has 1")
    if len(tokens.shape) != 2 or tokens.dtype.kind not in "iu":
        raise InputError(
            f"{tokens.path}: tokens must be integers of shape (n_chunk, n_ctx), "
            f"got {tokens.dtype} of shape {tokens.shape}"
        )
    chunks, n_ctx = tokens.shape
    layout = kld.Layout(n_ctx, reader.shape[-1], chunks)
    rows = math.prod(reader.shape[:-1])
    if rows != layout.rows:
        raise InputError(
            f"{reader.path}: {rows:,} rows, where {chunks} chunks of {n_ctx} tokens have "
            f"{layout.rows:,} ({layout.rows_per_chunk} each)"
        )
    ids = tokens.read(0, chunks, 1)
    at = out_of_range(ids.reshape(-1), layout.n_vocab)
    if at is not None:
        chunk, position = divmod(at, n_ctx)
        raise InputError(
            f"{tokens.path}: token {ids[chunk, position]} at position {position} of chunk {chunk} "
            f"is not in the vocabulary (0 to {layout.n_vocab - 1})"
        )
    leading = len(reader.shape) - 1

    def encoded(start: int, stop: int) -> NDArray[Any]:
        if cut is None and isinstance(reader, KldReader):  # to encode anew would round once more
            return reader.encoded(start, stop)
        logits = reader.read(start, stop, leading)
        return kld.encode(logits, cut or kld.CUTS[0], path=reader.path, first_row=start)

    with open_whole(path) as file:
        kld.write_header(file, layout, ids)
        # An encoded block takes several times its size on the way.
        for start, stop in _spans(_plan(reader, leading, memory, 5 * _COPIES), progress):
            file.write(encoded(start, stop).tobytes())
