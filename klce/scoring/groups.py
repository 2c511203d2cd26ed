"""Sequences of rows: which one each row is of, and what its tokens add up to."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klce.scoring.errors import InputError
from klce.scoring.inputs import same_rows
from klce.scoring.readers import Reader, spans


class Groups:
    """The sequence that each row is of.

    A file of groups holds integers: as many as there are rows, the *id* of each row's sequence; or
    the *offsets* of sequences that follow one another, from 0 to the number of rows.

    Attributes
    ----------
    labels : ndarray
        The ids in the order in which they first appear; for offsets, the numbers from 0 on.
    """

    def __init__(self, reader: Reader, leading_shape: tuple[int, ...]) -> None:
        path, shape, rows = reader.path, reader.shape, math.prod(leading_shape)
        if reader.dtype.kind not in "iu":
            raise InputError(f"{path}: groups must be integers, got {reader.dtype}")
        self._reader, self._rows = reader, rows
        self._offsets: NDArray[np.int64] | None = None
        if same_rows(shape, leading_shape):
            self._check_no_offsets()
            self.labels = self._distinct(rows)
            self._ascending = np.argsort(self.labels)
            return
        if len(shape) != 1 or not shape[0]:
            raise InputError(
                f"{path}: groups of shape {shape} are neither an id for each of the "
                f"{rows:,} rows of shape {leading_shape} nor offsets"
            )
        offsets = reader.read(0, shape[0], 1).astype(np.int64)
        down = np.diff(offsets) < 0
        if offsets[0] != 0 or offsets[-1] != rows or down.any():
            how = f"go from {offsets[0]} to {offsets[-1]}"
            if down.any():
                at = int(down.argmax())
                how = f"offset {at + 1} goes down from {offsets[at]} to {offsets[at + 1]}"
            raise InputError(
                f"{path}: {shape[0]:,} groups are not an id for each of the {rows:,} rows of shape "
                f"{leading_shape}, and as offsets they have to go from 0 to {rows}, not down, but "
                f"{how}"
            )
        self._offsets = offsets
        self.labels = np.arange(len(offsets) - 1)

    def _check_no_offsets(self) -> None:
        """Refuse ids that would be offsets as well: which they are, nothing tells."""
        if len(self._reader.shape) != 1 or not self._rows:
            return
        first, last = (int(self._ids(at, at + 1)[0]) for at in (0, self._rows - 1))
        if first != 0 or last != self._rows:
            return
        for start, stop in spans(self._rows):  # with the last of the ones before
            ids = self._ids(max(0, start - 1), stop)
            if (ids[1:] < ids[:-1]).any():
                return
        raise InputError(
            f"{self._reader.path}: {self._rows:,} groups that go up from 0 to {last} may be an id "
            "for each row or offsets: number ids from 1 on, or give an id for each row, not offsets"
        )

    def __len__(self) -> int:
        """Return the number of sequences."""
        return len(self.labels)

    @property
    def empty(self) -> NDArray[np.bool_]:
        """Which of them have no rows: of ids none."""
        if self._offsets is None:
            return np.zeros(len(self), np.bool_)
        empty: NDArray[np.bool_] = np.diff(self._offsets) == 0
        return empty

    def block(self, start: int, stop: int) -> NDArray[np.intp]:
        """Return the place in `labels` of the sequence of rows `start` to `stop`."""
        if self._offsets is not None:
            rows = np.arange(start, stop)
            return np.searchsorted(self._offsets, rows, side="right") - 1
        ids = self._ids(start, stop)
        return self._ascending[np.searchsorted(self.labels, ids, sorter=self._ascending)]

    def ends(self) -> NDArray[np.int64]:
        """Return the row behind the last one of each sequence that has rows, as chunks end.

        Raises
        ------
        InputError
            Where a sequence goes on after another one has begun.
        """
        counts, last = np.zeros(len(self), np.int64), 0
        for start, stop in spans(self._rows):
            of = self.block(start, stop)
            back = np.diff(of, prepend=last) < 0
            if back.any():
                at = int(back.argmax())
                raise InputError(
                    f"{self._reader.path}: chunks have to follow one another, but "
                    f"{self.labels[of[at]]} goes on in row {start + at}"
                )
            last = int(of[-1])
            counts += np.bincount(of, minlength=len(self))
        ends: NDArray[np.int64] = np.cumsum(counts[counts > 0])
        return ends

    def _ids(self, start: int, stop: int) -> NDArray[Any]:
        return self._reader.read(start, stop, len(self._reader.shape))

    def _distinct(self, rows: int) -> NDArray[Any]:
        found: NDArray[Any] = np.empty(0, self._reader.dtype)
        for start, stop in spans(rows):
            ids, first = np.unique(self._ids(start, stop), return_index=True)
            new = ~np.isin(ids, found, assume_unique=True)
            found = np.concatenate([found, ids[new][np.argsort(first[new])]])
        return found


def read_lengths(reader: Reader, groups: Groups) -> NDArray[np.float64]:
    """Return the length of each sequence in bytes or words, in the order of `Groups.labels`."""
    if reader.dtype.kind not in "iu" or reader.shape != (len(groups),):
        raise InputError(
            f"{reader.path}: {reader.dtype} of shape {reader.shape}, where lengths are one integer "
            f"for each of the {len(groups):,} sequences"
        )
    lengths = reader.read(0, len(groups), 1)
    no_length = (lengths < 0) | ((lengths == 0) & ~groups.empty)
    if no_length.any():
        at = int(no_length.argmax())
        raise InputError(
            f"{reader.path}: the length of sequence {at} is {lengths[at]}, not positive"
        )
    return lengths.astype(np.float64)


class GroupSums:
    """Sums over the rows of each sequence, in the order of the rows, whatever the blocks."""

    def __init__(self, groups: Groups) -> None:
        self._groups = groups
        self._row = 0
        self.counts = np.zeros(len(groups), np.int64)
        self._sums: dict[str, NDArray[np.float64]] = {}

    def add(self, values: dict[str, NDArray[Any]], counts: NDArray[np.bool_]) -> None:
        """Add the values of the rows that follow, those that count."""
        of = self._groups.block(self._row, self._row + len(counts))[counts]
        self._row += len(counts)
        np.add.at(self.counts, of, 1)
        for name, column in values.items():
            total = self._sums.setdefault(name, np.zeros(len(self.counts)))
            np.add.at(total, of, column[counts].astype(np.float64))

    def of(self, name: str) -> NDArray[np.float64]:
        """Return the sums of one of the values."""
        return self._sums.get(name, np.zeros(len(self.counts)))

    def clustered_error(self, name: str) -> float:
        """Return the standard error of the mean of a value, clustered by sequence."""
        return clustered_error(self.of(name), self.counts)


def clustered_error(sums: NDArray[np.float64], counts: NDArray[np.int64]) -> float:
    r"""Return the standard error of a mean over rows that are correlated within their clusters.

    With G clusters of sum :math:`s_g` and :math:`n_g` rows, and the mean m of all n rows,
    :math:`\sqrt{G/(G-1) \sum_g (s_g - m n_g)^2} / n`; Liang and Zeger, "Longitudinal data analysis
    using generalized linear models", 1986. With one row each it is the usual error of a mean.

    Examples
    --------
    >>> import numpy as np
    >>> round(clustered_error(np.array([1.0, 2.0, 6.0]), np.array([1, 1, 1])) ** 2, 6)
    2.333333
    """
    clusters, n = int(np.count_nonzero(counts)), int(counts.sum())
    if clusters < 2:
        return math.nan
    with np.errstate(invalid="ignore"):
        residuals = counts * (-sums.sum() / n)  # one array beside the sums; 0 of no rows
        residuals += sums
        return math.sqrt(clusters / (clusters - 1) * float(residuals @ residuals)) / n


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequences:
    """What the tokens of each sequence add up to.

    Sequences none of whose tokens count are there with 0 of them, and are left out of the means;
    so are rows of nan.

    Attributes
    ----------
    labels : ndarray
        Ids of the sequences.
    tokens, correct, nan : ndarray of int64
        Rows that count, those of them whose argmax is the label, and rows whose result is nan.
    nll : ndarray of float64
        Sums of the negative log-likelihood, in nats.
    token_error : float
        Standard error of the mean NLL, as if tokens were independent.
    bytes, words : ndarray of float64 or None
        Lengths of the sequences, where given.
    """

    labels: NDArray[Any]
    tokens: NDArray[np.int64]
    correct: NDArray[np.int64]
    nan: NDArray[np.int64]
    nll: NDArray[np.float64]
    token_error: float
    bytes: NDArray[np.float64] | None = None
    words: NDArray[np.float64] | None = None

    def table(self) -> NDArray[Any]:
        """Return a row for each sequence, to be written as results are.

        ``greedy``: the argmax of all of its rows is the label, and there are some. Perplexity is
        over tokens. What a row of nan is a part of is nan.
        """
        signed = np.can_cast(self.labels.dtype, np.int64)
        nll = np.where(self.nan > 0, np.nan, self.nll)
        right = (self.correct == self.tokens) & (self.tokens > 0) & (self.nan == 0)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            columns: dict[str, NDArray[Any]] = {
                "sequence": self.labels.astype(np.int64 if signed else np.uint64),
                "tokens": self.tokens,
                "nan_rows": self.nan,
                "log_likelihood": 0 - nll,
                "greedy": right,
                "perplexity": np.exp(nll / self.tokens),
            }
            bits = np.where(self.tokens > 0, nll, np.nan) / math.log(2)
            if self.bytes is not None:
                columns["bits_per_byte"] = bits / self.bytes
            if self.words is not None:
                columns["bits_per_word"] = bits / self.words
        table = np.empty(len(self.labels), [(name, c.dtype) for name, c in columns.items()])
        for name, column in columns.items():
            table[name] = column
        return table

    @property
    def mean_log_likelihood(self) -> float:
        """Mean over sequences with tokens of the sum of log-probabilities, in nats."""
        count = int(np.count_nonzero(self.tokens))
        return (0 - float(self.nll.sum())) / count if count else math.nan

    @property
    def clustered_error(self) -> float:
        """Standard error of the mean NLL, clustered by sequence."""
        return clustered_error(self.nll, self.tokens)

    def bits_per(self, lengths: NDArray[np.float64] | None) -> float | None:
        """Return the bits per byte or word of all sequences with tokens together."""
        if lengths is None:
            return None
        length = float(lengths[self.tokens > 0].sum())
        return float(self.nll.sum()) / math.log(2) / length if length else math.nan
