"""Golden cases: how they are stored, and the long rows that are generated instead of stored.

Long rows come from raw bits of PCG64, a stream that NumPy keeps, by single IEEE operations in a
fixed order, so they are the same bits on every machine; a CRC in the data makes sure.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
FOLDER = Path(__file__).parent

# The error of a stored result is kept in these parts of its spacing in float64.
PARTS = 2**16


@dataclass(frozen=True)
class Case:
    """One call of a kernel on rows of one kind, and the true results.

    The call is ``kernel(*inputs, **params)``, on the last axis of each input but a target.
    """

    id: str
    kernel: str
    dtype: np.dtype[Any]  # of the inputs (but a target) and of the result
    inputs: tuple[Array, ...]
    params: dict[str, Any]
    output: int | str | None  # which of several outputs the results are for
    positions: NDArray[np.int64] | None  # where in the raveled output; None is everywhere
    expected_hi: Array  # the true values rounded to float64 ...
    expected_lo: Array  # ... and what that rounding left out
    scale: Array | None  # count ULP at this size where it is larger than the result

    def pick(self, result: Any) -> Array:
        """Choose the values of what the kernel returned that the expected ones are for."""
        values = np.asarray(result if self.output is None else result[self.output]).ravel()
        return values if self.positions is None else values[self.positions]


# --- rows that are not stored ---------------------------------------------------------------------


def fields(seed: int, n: int) -> Array:
    """(4, n) random integers of 16 bits."""
    words = np.random.PCG64(seed).random_raw(n)
    return np.stack([(words >> np.uint64(16 * k)) & np.uint64(0xFFFF) for k in range(4)])


def bell(seed: int, n: int) -> Array:
    """Numbers of a bell curve with mean 0, deviation 1 and limits of +-3.46."""
    return (fields(seed, n).sum(axis=0).astype(np.float64) - 131070) / 37837


def logits(
    seed: int,
    n: int,
    dtype: str,
    *,
    scale: float = 1.0,
    offset: float = 0.0,
    order: str | None = None,
    lead: float | None = None,
    mask: list[Any] | None = None,
    perturb: float = 0.0,
) -> Array:
    """Logits in one row.

    ``order`` sorts them up or down, ``lead`` puts the one in the middle that far ahead of the rest,
    ``mask`` is [start, stop, value], ``perturb`` adds noise of that size.
    """
    x = scale * bell(seed, n)
    if order is not None:
        x = np.sort(x)[:: {"up": 1, "down": -1}[order]]
    if lead is not None:
        x[n // 2] = x.max() + lead
    if perturb:
        x = x + perturb * bell(seed + 1, n)
    x = (x + offset).astype(dtype)
    if mask is not None:
        start, stop, value = mask
        x[start:stop] = np.finfo(dtype).min if value == "min" else float(value)
    return x[np.newaxis]


def probs(seed: int, n: int, dtype: str, *, perturb: float = 0.0) -> Array:
    """Probabilities in one row: products of four numbers, over their sum."""
    a, b, c, d = fields(seed, n).astype(np.float64) + 1
    p = a * b * c * d
    if perturb:
        p = p * (1 + perturb * bell(seed + 1, n))
    return (p / math.fsum(p)).astype(dtype)[np.newaxis]


RECIPES: dict[str, Callable[..., Array]] = {"logits": logits, "probs": probs}


def make(recipe: str, crc: int | None = None, **arguments: Any) -> Array:
    row = RECIPES[recipe](**arguments)
    if crc is not None and checksum(row) != crc:
        raise RuntimeError(f"{recipe}({arguments}) is not the row that the golden data was made of")
    return row


def checksum(row: Array) -> int:
    return zlib.crc32(row.astype(row.dtype.newbyteorder("<")).tobytes())


# --- loading --------------------------------------------------------------------------------------


@cache
def load() -> tuple[Case, ...]:
    """Return every golden case."""
    return tuple(case for file in sorted(FOLDER.glob("*.npz")) for case in load_file(file))


@cache
def calls(kernel: str, dtype: np.dtype[Any]) -> tuple[tuple[Case, ...], ...]:
    """Return the golden cases of a kernel, those of one call together: they are for its outputs."""
    found: dict[Any, list[Case]] = {}
    for case in load():
        if (case.kernel, case.dtype) == (kernel, dtype):
            same = (tuple(map(id, case.inputs)), json.dumps(case.params, sort_keys=True))
            found.setdefault(same, []).append(case)
    return tuple(map(tuple, found.values()))


def load_file(file: Path) -> list[Case]:
    """Return the cases of one file."""
    with np.load(file) as stored:
        pools = {name: stored[name] for name in stored.files}
    index = json.loads(pools["index"].tobytes())

    def constant(values: Array) -> Array:
        values.flags.writeable = False
        return values

    def read(spec: dict[str, Any]) -> Array:
        if "recipe" in spec:
            return constant(make(**spec))
        start, shape = spec["start"], spec["shape"]
        return constant(pools[spec["pool"]][start : start + math.prod(shape)].reshape(shape))

    def cut(pool: str, span: list[int] | None) -> Array | None:
        return None if span is None else constant(pools[pool][span[0] : span[1]])

    inputs = [read(spec) for spec in index["inputs"]]
    # np.spacing would overflow at the largest number.
    last_bit = np.maximum(np.frexp(pools["hi"])[1] - 53, -1074)
    pools["lo"] = np.ldexp(pools["lo"] / PARTS, last_bit)
    return tuple(
        Case(
            id=case["id"],
            kernel=case["kernel"],
            dtype=np.dtype(case["dtype"]),
            inputs=tuple(inputs[i] for i in case["inputs"]),
            params=case["params"],
            output=case["output"],
            positions=cut("positions", case["positions"]),
            expected_hi=cut("hi", case["expected"]),
            expected_lo=cut("lo", case["expected"]),
            scale=cut("scale", case["scale"]),
        )
        for case in index["cases"]
    )
