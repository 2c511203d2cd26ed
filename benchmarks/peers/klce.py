"""klce as it comes: of probabilities, it also normalises them, as no peer does."""

from __future__ import annotations

import importlib

import numpy as np

import klce
from benchmarks.cases import Case
from benchmarks.peers import Contestant, Peer, Run


class Klce(Peer):
    """The one that the others are measured against."""

    name = "klce"

    def __init__(self, threads: int) -> None:
        klce.set_num_threads(threads)
        self.version = klce.__version__

    def contestant(self, case: Case) -> Contestant:
        function = getattr(klce, case.op.function)
        fresh = case.call(function, *case.arrays)
        into = case.call(function, *case.arrays)
        into.keywords["out"] = np.asarray(fresh())
        return Contestant(fresh, into)


def bare_call(case: Case) -> Run:
    """Return a call of the gufunc behind logsumexp, which does all its work."""
    ufuncs = importlib.import_module("klce._ufuncs")
    x = case.inputs[0]
    return lambda: ufuncs.logsumexp(x)


PEERS = (Klce,)
