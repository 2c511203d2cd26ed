"""The targets of the grid and of the lines beside it: the one place where they stand.

They are for two threads on a machine with AVX-512.  A *ratio* is the fastest peer's time over
klce's; a *share* is the time of the memory limit over klce's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.cases import HALVES, OUT_OF_CACHE, Layout, Op

#: Ratio in every cell, and as a geometric mean, by function; what is not here: ahead of all peers.
RATIOS = {
    ("logsumexp", "logits"): (2.5, 4.0),
    ("cross_entropy", "logits"): (2.5, 4.0),
    ("entropy", "logits"): (2.5, 4.0),
    ("kl_divergence", "probs"): (2.0, 4.0),
    ("kl_divergence", "logits"): (2.0, 4.0),
    ("js_divergence", "probs"): (2.0, 4.0),
    ("js_divergence", "logits"): (2.0, 4.0),
    ("softmax", "logits"): (1.3, 2.0),
    ("log_softmax", "logits"): (1.3, 2.0),
}
AHEAD = (1.0, 1.0)
FEW_CLASSES, FEW_CLASSES_RATIO = 32, 2.5  # of a softmax or log-softmax
FLOAT64_RATIOS = (2.0, 4.0)
HALVES_RATIOS = (2.0, 3.0)
ISA_FACTORS = {"avx512": 1.0, "avx2": 0.7}  # others: never slower than NumPy

#: The share of its limit with which a cell is met whatever the peers do.
ENOUGH_SHARE = 0.8

#: Shares that float32 has to reach besides, out of cache and in the last-level cache.
OUT_OF_CACHE_SHARES = {"rows": 0.8, "kl": 0.7, "map": 0.75}
IN_CACHE_SHARES = {"rows": 0.55, "map": 0.5}
IN_CACHE_BYTES = (16_000_000, 34_000_000)  # beyond L2, within the last level where this was set

# The lines beside the grid.
OVERHEAD = {"logsumexp": 2.0, "softmax": 2.0, "cross_entropy": 3.0}  # times the bare gufunc
IMPORT_MS = 15.0  # over `import numpy`
SPLIT_ROW_SPEEDUP = 1.6  # one row of 128256 classes, from one thread to two
SPEEDUP = 1.85  # 8192 rows of 1000, where memory does not bind
NEIGHBOURS = 1.5  # time per element at class counts next to one another
GROWTH = 2.0  # time per element, from 1e4 elements to 1e9
SPECIAL = 1.5  # special values over the plain cell

# Row statistics, and whole files, of which klce makes a summary.
ROWS_SHARE, TOP_K_SHARE = 0.7, 0.5  # out of cache, without a top k and with one
OUT_OF_CACHE_BYTES = 4 * OUT_OF_CACHE.elements  # of an operand, at least
FILE_SHARE = 0.6  # a plain read's time over klce's, whole processes
FILE_RATIOS = {"torch": 5.0, "numpy": 20.0}  # the scripts' time over klce's
FILE_MIB = 256.0  # the most memory beyond the map of the file
FROM_DISK = 0.01  # of the file: what may have left the page cache

ONE_CALL = Layout((1, 10))  # not measured by ratio: ahead of torch


@dataclass(frozen=True)
class Target:
    """What a cell has to reach; None where nothing is asked."""

    ratio: float
    against: str | None  # the one peer that counts; None: the fastest
    enough_share: float | None  # or this, instead of the ratio
    share: float | None  # and this

    def met(self, ratio: float | None, share: float | None) -> bool | None:
        """Whether the figures reach it; None if what decides was not measured."""
        enough = self.enough_share is not None and share is not None and share >= self.enough_share
        verdicts = [
            True if enough else None if ratio is None else ratio >= self.ratio,
            True if self.share is None else None if share is None else share >= self.share,
        ]
        return False if False in verdicts else None if None in verdicts else True

    def short(self, ratio: float | None, share: float | None) -> float | None:
        """Return how many times as fast the figures would have to be to reach it."""
        ways = [] if ratio is None else [self.ratio / ratio]
        if self.enough_share is not None and share is not None:
            ways.append(self.enough_share / share)
        if not ways:
            return None
        besides = 0.0 if self.share is None or share is None else self.share / share
        return max(min(ways), besides)


def of_cell(op: Op, layout: Layout, dtype: str, isa: str) -> Target:
    """Return the target of a cell of the grid."""
    if layout == ONE_CALL:
        return Target(1.0, "torch", None, None)
    if isa not in ISA_FACTORS:
        return Target(1.0, "numpy", None, None)
    if op.function == "nll_loss":
        return Target(1.0, None, None, None)  # a gather: it reads a value a row
    ratio = _ratios(op, dtype)[0]
    if dtype not in HALVES and dtype != "float64" and _few(op, layout):
        ratio = FEW_CLASSES_RATIO
    if ratio != AHEAD[0]:
        ratio *= ISA_FACTORS[isa]
    return Target(ratio, None, ENOUGH_SHARE, _share(op, layout, dtype))


def of_rows(operand_bytes: int, top_k: bool) -> float | None:
    """Return the share of the limit that row statistics have to reach; None in the cache."""
    if operand_bytes < OUT_OF_CACHE_BYTES:
        return None
    return TOP_K_SHARE if top_k else ROWS_SHARE


def of_mean(op: Op, dtype: str, isa: str) -> float | None:
    """Return the target of the geometric mean of an operation's cells; only AVX-512 has one."""
    if isa != "avx512" or op.function == "nll_loss":
        return None
    return _ratios(op, dtype)[1]


def geometric_mean(values: Iterable[float]) -> float:
    """Return the geometric mean of ratios."""
    logarithms = [math.log(value) for value in values]
    return math.exp(sum(logarithms) / len(logarithms))


def _ratios(op: Op, dtype: str) -> tuple[float, float]:
    if dtype == "float64":
        return FLOAT64_RATIOS
    if dtype in HALVES:
        return HALVES_RATIOS
    return RATIOS.get((op.function, op.form), AHEAD)


def _few(op: Op, layout: Layout) -> bool:
    return op.result == "map" and layout.classes <= FEW_CLASSES


def _share(op: Op, layout: Layout, dtype: str) -> float | None:
    if dtype != "float32":
        return None
    if layout == OUT_OF_CACHE:
        kind = {"map": "map"}.get(op.result, "kl" if op.inputs == 2 else "rows")
        return OUT_OF_CACHE_SHARES[kind]
    lowest, highest = IN_CACHE_BYTES
    if op.inputs == 1 and lowest <= 4 * layout.elements <= highest:
        return IN_CACHE_SHARES["map" if op.result == "map" else "rows"]
    return None
