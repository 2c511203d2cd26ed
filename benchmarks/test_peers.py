"""The same cases under pytest-benchmark: ``python -m pytest benchmarks``.

For a look at one operation, or to compare commits (``--benchmark-save``, ``--benchmark-compare``).
The contestants run one after the other here: for ratios between them take ``python -m benchmarks``.
"""

from __future__ import annotations

import functools

import pytest

from benchmarks.cases import OPS, RIVALS, SHAPES, Case, Shape, make_case


@functools.lru_cache(maxsize=1)  # the tests come case by case
def _checked_case(op: str, shape: Shape) -> Case:
    case = make_case(op, shape, threads=2)
    case.check()
    return case


@pytest.mark.parametrize("contestant", ["klce", *RIVALS])
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "{}x{}".format(*shape))
def test_contestant(benchmark, contestant: str, op: str, shape: Shape) -> None:
    case = _checked_case(op, shape)
    if contestant not in case.contestants:
        pytest.skip(f"{contestant} is not installed or has no {op}")
    benchmark.group = case.name
    benchmark.extra_info["elements"] = shape[0] * shape[1]
    benchmark(case.contestants[contestant])
