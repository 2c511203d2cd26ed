"""llama.cpp's base file: `.kld`, and the arrays that it holds."""

from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from klce.scoring import kld
from klce.scoring.errors import InputError
from klce.scoring.readers.base import Elements, Reader, closed_on_error, within_rows
from klce.scoring.readers.location import Location
from klce.scoring.readers.shards import ShardsReader


class KldFile:
    """A base file: rows of log-probabilities, and what follows from its tokens.

    ``targets`` are the tokens that the rows predict, ``groups`` the chunks that they are of.
    Files that follow one another, the `shards` of a location, are one with the chunks of all.
    """

    names = ("log_probs", "targets", "groups", "tokens")

    def __init__(self, location: Location, shards: list[Location] | None = None) -> None:
        self._path = location.file
        shards = shards or [location]
        headers = [_open(shard)[:2] for shard in shards]
        first, _ = headers[0]
        for shard, (layout, _) in zip(shards, headers, strict=True):
            if (layout.n_ctx, layout.n_vocab) != (first.n_ctx, first.n_vocab):
                raise InputError(
                    f"{shard}: chunks of {layout.n_ctx} tokens of {layout.n_vocab:,} do not "
                    f"continue those of {shards[0]}, of {first.n_ctx} of {first.n_vocab:,}"
                )
        self.layout = replace(first, n_chunk=sum(layout.n_chunk for layout, _ in headers))
        self.tokens = np.concatenate([tokens for _, tokens in headers])
        self._rows = ShardsReader(self._path, shards, lambda shard: _open(shard)[2])

    def array(self, name: str) -> Reader:
        """Open one of the arrays."""
        path = f"{self._path}::{name}"
        if name == "targets":
            return InMemory(path, self.layout.targets(self.tokens))
        if name == "groups":
            return InMemory(path, self.layout.chunks())
        if name == "tokens":
            return InMemory(path, self.tokens)
        return KldReader(self._path, self.layout, self._rows)


def _open(location: Location) -> tuple[kld.Layout, NDArray[np.int32], Reader]:
    file: BinaryIO = location.open()
    with closed_on_error(file):
        layout, tokens = kld.read_header(file, location.file)
        shape, dtype, mapped = (layout.rows,), layout.row_dtype, not location.remote
        rows = Elements(file, location.file, shape, dtype, layout.rows_offset, mapped=mapped)
    return layout, tokens, rows


class KldReader(Reader):
    """The log-probabilities, decoded to float32."""

    dtype: np.dtype[Any] = np.dtype(np.float32)

    def __init__(self, path: str, layout: kld.Layout, rows: Reader) -> None:
        self.path = path
        self.layout: kld.Layout = layout
        self.shape: tuple[int, ...] = (layout.rows, layout.n_vocab)
        self._rows = rows

    def read(self, start: int, stop: int, leading: int) -> NDArray[Any]:
        """Return items `start` to `stop`, numbered in C order over the first `leading` axes."""
        if leading == 1:
            return kld.decode(self.encoded(start, stop))
        return within_rows(lambda a, b: self.read(a, b, 1), start, stop, self.shape[1])

    def encoded(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows as they stand in the file."""
        return self._rows.read(start, stop, 1)


class InMemory(Reader):
    """A small array that is computed from a file."""

    mapped = True

    def __init__(self, path: str, array: NDArray[Any]) -> None:
        self.path = path
        self.shape: tuple[int, ...] = array.shape
        self.dtype: np.dtype[Any] = array.dtype
        self._array = array

    def read(self, start: int, stop: int, leading: int) -> NDArray[Any]:
        """Return items `start` to `stop`, numbered in C order over the first `leading` axes."""
        return self._array.reshape(-1, *self.shape[leading:])[start:stop]
