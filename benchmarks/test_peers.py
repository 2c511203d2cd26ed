"""The same cases under pytest-benchmark: ``python -m pytest benchmarks``.

For a look at one operation, or to compare commits (``--benchmark-save``, ``--benchmark-compare``).
The contestants run one after the other here: for ratios between them take ``python -m benchmarks``.
"""

from __future__ import annotations

import functools

import pytest

from benchmarks import peers
from benchmarks.__main__ import RIVALS
from benchmarks.cases import BASICS, SHAPES, TOLERANCES, Layout, check_klce, difference, make_case
from benchmarks.peers import LacksError, Peer
from benchmarks.peers.klce import Klce

THREADS = 2


@functools.cache
def _peer(name: str) -> Peer:
    return Klce(THREADS) if name == Klce.name else peers.load(name, THREADS)


@pytest.mark.parametrize("name", [Klce.name, *RIVALS])
@pytest.mark.parametrize("op", BASICS)
@pytest.mark.parametrize("layout", SHAPES, ids=lambda layout: layout.name)
def test_contestant(benchmark, name: str, op: str, layout: Layout) -> None:
    case = make_case(op, layout, "float32")
    try:
        contestant = _peer(name).contestant(case)
    except (ImportError, LacksError) as error:
        pytest.skip(f"{name}: {error}")
    run = contestant.ways().get("into", contestant.fresh)
    if name == Klce.name:
        check_klce(case)
    else:
        own = _peer(Klce.name).contestant(case)
        assert difference(contestant.value(run()), own.fresh(), TOLERANCES[case.dtype]) <= 1
    benchmark.group = case.title
    benchmark.extra_info["elements"] = layout.elements
    benchmark(run)
