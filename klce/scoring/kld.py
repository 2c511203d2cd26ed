"""llama.cpp's base file of log-probabilities, which its perplexity tool writes and compares with.

Little-endian: the bytes ``_logits_``; int32 n_ctx, n_vocab, n_chunk; int32 tokens of all chunks,
n_ctx each; then, for the second half of each chunk, a row for every position that predicts the next
token: float32 scale, float32 min_log_prob, and n_vocab uint16 q, padded to an even number of them.
A row's log-probabilities are ``scale * q + min_log_prob``, cut off 16 nats below the largest (a
variant has 24): q = 0 there means "this or anything below".
"""

import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from klce.scoring.errors import InputError

CUTS = (16, 24)
"""Nats below the largest log-probability at which the variants of the format cut a row off."""

_MAGIC = b"_logits_"
_COUNTS = struct.Struct("<3i")
_LARGEST_ROW = 2**31 - 1  # bytes, of what NumPy has as one element

_quiet = np.errstate(over="ignore", invalid="ignore")
"""For the log-probabilities of a damaged row, whose scale is inf or nan: they are no numbers."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a file's header says, and where its parts are."""

    n_ctx: int
    n_vocab: int
    n_chunk: int

    @property
    def rows_per_chunk(self) -> int:
        """Rows of a chunk: its second half but the last position, which predicts nothing."""
        return self.n_ctx - 1 - self.n_ctx // 2

    @property
    def rows(self) -> int:
        """Rows in all."""
        return self.n_chunk * self.rows_per_chunk

    @property
    def tokens_offset(self) -> int:
        """Where the tokens begin."""
        return len(_MAGIC) + _COUNTS.size

    @property
    def rows_offset(self) -> int:
        """Where the rows begin."""
        return self.tokens_offset + 4 * self.n_chunk * self.n_ctx

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return 8 + 2 * (self.n_vocab + self.n_vocab % 2)

    @property
    def row_dtype(self) -> np.dtype[Any]:
        """A row as it stands in the file."""
        return np.dtype(
            [
                ("scale", "<f4"),
                ("min_log_prob", "<f4"),
                ("q", "<u2", (self.n_vocab,)),
                ("pad", "<u2", (self.n_vocab % 2,)),
            ]
        )

    @property
    def size(self) -> int:
        """Bytes of a whole file."""
        return self.rows_offset + self.rows * self.row_bytes

    def targets(self, tokens: NDArray[Any]) -> NDArray[np.int64]:
        """Return the token that each row predicts, of `tokens` of shape (n_chunk, n_ctx)."""
        return tokens[:, self.n_ctx // 2 + 1 :].astype(np.int64).reshape(-1)

    def chunks(self) -> NDArray[np.int64]:
        """Return the number of the chunk that each row is of."""
        return np.repeat(np.arange(self.n_chunk), self.rows_per_chunk)


def read_header(file: BinaryIO, path: str) -> tuple[Layout, NDArray[np.int32]]:
    """Read the layout, checked against the file's size, and the tokens, (n_chunk, n_ctx)."""
    size = file.seek(0, 2)
    file.seek(0)
    if file.read(len(_MAGIC)) != _MAGIC:
        raise InputError(f"{path}: not a base file of llama.cpp (.kld)")
    counts = file.read(_COUNTS.size)
    layout = Layout(*_COUNTS.unpack(counts)) if len(counts) == _COUNTS.size else Layout(0, 0, 0)
    possible = layout.n_ctx >= 2 and layout.n_vocab >= 1 and layout.n_chunk >= 0
    if not possible or layout.row_bytes > _LARGEST_ROW:
        raise InputError(
            f"{path}: the header is damaged or truncated: n_ctx {layout.n_ctx}, "
            f"n_vocab {layout.n_vocab}, n_chunk {layout.n_chunk}"
        )
    if size != layout.size:
        fault = "truncated" if size < layout.size else "too long"
        raise InputError(f"{path}: {fault}: {size:,} bytes, where its header needs {layout.size:,}")
    tokens = np.frombuffer(file.read(4 * layout.n_chunk * layout.n_ctx), "<i4")
    return layout, tokens.astype(np.int32).reshape(layout.n_chunk, layout.n_ctx)


def write_header(file: BinaryIO, layout: Layout, tokens: NDArray[Any]) -> None:
    """Write all that stands before the rows."""
    file.write(_MAGIC + _COUNTS.pack(layout.n_ctx, layout.n_vocab, layout.n_chunk))
    file.write(tokens.astype("<i4").tobytes())


@_quiet
def decode(rows: NDArray[Any]) -> NDArray[np.float32]:
    """Return the log-probabilities of rows of `Layout.row_dtype`."""
    log_probs = rows["q"].astype(np.float32)
    log_probs *= rows["scale"][:, None]
    log_probs += rows["min_log_prob"][:, None]
    return log_probs


def encode(
    logits: NDArray[Any], cut: int, *, path: str = "logits", first_row: int = 0
) -> NDArray[Any]:
    """Return rows of `Layout.row_dtype` for logits, computed in float32 as the tool does.

    `path` and `first_row` are for an error to name.

    Raises
    ------
    InputError
        For a row without a finite maximum, which has no log-probabilities to write.
    """
    with np.errstate(over="ignore"):
        x = logits.astype(np.float32, copy=False)
    largest = x.max(axis=1)
    if not np.isfinite(largest).all():
        row = int(np.isfinite(largest).argmin())
        raise InputError(
            f"{path}: row {first_row + row} has the largest logit {largest[row]}; "
            "llama.cpp's base file holds rows of a finite one"
        )
    smallest = np.maximum(x.min(axis=1), largest - np.float32(cut))
    total = exponential(x - largest[:, None]).sum(axis=1, dtype=np.float64)
    log_total = np.log(total).astype(np.float32)
    scale = (largest - smallest) / np.float32(65535)
    with np.errstate(divide="ignore"):
        steps = np.where(scale > 0, 1 / scale, 0).astype(np.float32)

    rows = np.zeros(len(x), Layout(2, x.shape[1], 0).row_dtype)
    rows["scale"] = scale
    rows["min_log_prob"] = smallest - largest - log_total
    above = np.maximum(x, smallest[:, None]) - smallest[:, None]
    rows["q"] = np.rint(above * steps[:, None])
    return rows


def exponential(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return exp(x) rounded right, as C's ``expf`` all but does and NumPy's does not."""
    with np.errstate(over="ignore"):
        return np.exp(x, dtype=np.float64).astype(np.float32)


@_quiet
def at_floor(log_probs: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Tell which decoded log-probabilities stand where their row was cut off, if it was."""
    smallest = log_probs.min(axis=1, keepdims=True)
    reach = log_probs.max(axis=1, keepdims=True) - smallest
    cut_off = np.logical_or.reduce([_is_cut(reach, cut) for cut in CUTS])
    floor: NDArray[np.bool_] = (log_probs == smallest) & cut_off
    return floor


def saturated(
    floor: NDArray[np.bool_], target: NDArray[np.int64], ignore_index: int
) -> NDArray[np.bool_]:
    """Tell of which rows the label stands at the floor, given `at_floor` of them."""
    kept = target != ignore_index
    found: NDArray[np.bool_] = floor[np.arange(len(floor)), np.where(kept, target, 0)] & kept
    return found


def tell_cut_off(
    table: NDArray[Any],
    log_probs: NDArray[np.float32],
    target: NDArray[np.int64] | None,
    ignore_index: int,
    suffix: str = "",
) -> None:
    """Fill the columns of what a base file cut off: how many classes, and whether the label."""
    floor = at_floor(log_probs)
    table["floor_classes" + suffix] = floor.sum(axis=1)
    if target is not None:
        table["saturated" + suffix] = saturated(floor, target, ignore_index)


@_quiet
def cut_of(log_probs: NDArray[np.float32]) -> int | None:
    """Return at how many nats decoded rows are cut off; None if none reaches so far down."""
    reach = log_probs.max(axis=1) - log_probs.min(axis=1)
    return next((cut for cut in CUTS if _is_cut(reach, cut).any()), None)


def _is_cut(reach: NDArray[np.float32], cut: int) -> NDArray[np.bool_]:
    # Decoding rounds; a row that is cut reaches down its 16 or 24 nats but for that.
    found: NDArray[np.bool_] = np.isclose(reach, cut, rtol=0, atol=1e-3)
    return found
