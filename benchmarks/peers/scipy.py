"""SciPy: ``scipy.special``, on Python threads."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.cases import HALVES, Array, Case
from benchmarks.peers import Contestant, LacksError, Peer, RowShares, widened


def _on_widened(way: Callable[..., Array]) -> Callable[..., Array]:
    return lambda *share: way(*widened(share))


class SciPy(Peer):
    """SciPy on blocks of rows."""

    name = "scipy"

    def __init__(self, threads: int) -> None:
        self.version = importlib.import_module("scipy").__version__
        self._special: Any = importlib.import_module("scipy.special")
        self._shares = RowShares(threads)

    def _way(self, case: Case) -> Callable[..., Array]:
        special, axis = self._special, case.layout.axis
        ways: dict[tuple[str, str], Callable[..., Array]] = {
            ("logsumexp", "logits"): functools.partial(special.logsumexp, axis=axis),
            ("softmax", "logits"): functools.partial(special.softmax, axis=axis),
            ("log_softmax", "logits"): functools.partial(special.log_softmax, axis=axis),
            ("entropy", "probs"): lambda p: special.entr(p).sum(axis=axis),
            ("kl_divergence", "probs"): lambda p, q: special.rel_entr(p, q).sum(axis=axis),
            ("js_divergence", "probs"): self._js,
        }
        way = ways.get((case.op.function, case.op.form))
        if way is None:
            raise LacksError(f"has no {case.op.function} of {case.op.form}")
        return functools.partial(way, axis=axis) if way == self._js else way

    def _js(self, p: Array, q: Array, axis: int) -> Array:
        middle = (p + q) / 2
        terms = self._special.rel_entr(p, middle)
        terms += self._special.rel_entr(q, middle)
        return terms.sum(axis=axis) / 2

    def contestant(self, case: Case) -> Contestant:
        way, layout, half = self._way(case), case.layout, case.dtype in HALVES
        shape = layout.shape if case.op.result == "map" else layout.row_shape
        edges = list(self._shares.blocks(layout))

        def value(parts: list[Array]) -> Array:
            """Put the blocks' results together, which is no part of the race."""
            whole = np.empty(shape, parts[0].dtype)
            for (axis, part), block in zip(edges, parts, strict=True):
                place = axis
                if case.op.result != "map":
                    place -= layout.axis % len(layout.shape) < axis
                whole[(slice(None),) * place + (part,)] = block
            return whole

        task = self._shares.over(layout, _on_widened(way) if half else way, *case.inputs)
        return Contestant(task, value=value)


PEERS = (SciPy,)
