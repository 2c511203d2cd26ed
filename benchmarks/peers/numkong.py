"""NumKong (SimSIMD before): divergences of probabilities, on Python threads."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from benchmarks.cases import Array, Case
from benchmarks.peers import Contestant, LacksError, Peer, RowShares

_NAMES = {"float32": "f32", "float64": "f64", "float16": "f16", "bfloat16": "bf16"}


class NumKong(Peer):
    """NumKong on blocks of rows."""

    name = "numkong"
    remark = "adds 1e-7 or so to probabilities, and loses digits by it"

    def __init__(self, threads: int) -> None:
        self._numkong: Any = importlib.import_module("numkong")
        self.version = self._numkong.__version__
        self._shares = RowShares(threads)

    def contestant(self, case: Case) -> Contestant:
        functions = {
            "kl_divergence": self._numkong.kullbackleibler,
            "js_divergence": self._numkong.jensenshannon,
        }
        function = functions.get(case.op.function)
        if function is None or case.op.form != "probs":
            raise LacksError(f"has no {case.op.function} of {case.op.form}")
        if case.layout.axis != -1:
            raise LacksError("takes classes on the last axis alone")
        result = np.zeros(case.layout.row_shape)
        dtype = _NAMES[case.dtype]
        inputs = case.inputs
        if case.dtype == "bfloat16":
            inputs = tuple(array.view(np.uint16) for array in inputs)

        def into(p: Array, q: Array, out: Array) -> None:
            function(p, q, dtype, out=out)

        def fresh(p: Array, q: Array) -> Any:
            return function(p, q, dtype)

        def value(parts: list[Any]) -> Array:
            whole = result
            if parts[0] is not None:
                whole = np.concatenate([np.atleast_1d(np.asarray(part)) for part in parts])
            # Its Jensen-Shannon is the distance, the divergence's root.
            return whole**2 if case.op.function == "js_divergence" else whole

        layout = case.layout
        return Contestant(
            self._shares.over(layout, fresh, *inputs),
            self._shares.over(layout, into, *inputs, result),
            value,
        )


PEERS = (NumKong,)
