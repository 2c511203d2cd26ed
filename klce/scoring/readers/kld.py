"""llama.cpp's base file: `.kld`, and the arrays that it holds."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from klce.scoring import kld
from klce.scoring.readers.base import Elements, Reader, closed_on_error, within_rows
from klce.scoring.readers.location import Location


class KldFile:
    """A base file: rows of log-probabilities, and what follows from its tokens.

    ``targets`` are the tokens that the rows predict, ``groups`` the chunks that they are of.
    """

    names = ("log_probs", "targets", "groups", "tokens")

    def __init__(self, location: Location) -> None:
        self._path = location.file
        file = location.open()
        with closed_on_error(file):
            self.layout, self.tokens = kld.read_header(file, self._path)
        self._rows = Elements(
            file,
            self._path,
            (self.layout.rows,),
            self.layout.row_dtype,
            self.layout.rows_offset,
            mapped=not location.remote,
        )

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


class KldReader:
    """The log-probabilities, decoded to float32."""

    mapped = False
    chunks: tuple[int, ...] | None = None
    dtype: np.dtype[Any] = np.dtype(np.float32)

    def __init__(self, path: str, layout: kld.Layout, rows: Elements) -> None:
        self.path = path
        self.layout = layout
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


class InMemory:
    """A small array that is computed from a file."""

    mapped = True
    chunks: tuple[int, ...] | None = None

    def __init__(self, path: str, array: NDArray[Any]) -> None:
        self.path = path
        self.shape: tuple[int, ...] = array.shape
        self.dtype: np.dtype[Any] = array.dtype
        self._array = array

    def read(self, start: int, stop: int, leading: int) -> NDArray[Any]:
        """Return items `start` to `stop`, numbered in C order over the first `leading` axes."""
        return self._array.reshape(-1, *self.shape[leading:])[start:stop]
