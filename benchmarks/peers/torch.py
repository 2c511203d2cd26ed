"""PyTorch, eager and compiled: the same formulas, as its users write them.

Of probabilities p log(p/q) is several times as fast as ``kl_div``, ``entr`` and ``xlogy``, which
ask each element whether it is 0.  Steps write into memory that is at hand, for what runs kernel by
kernel; the compiler does without it.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

from benchmarks.cases import IGNORED, Array, Case
from benchmarks.peers import Contestant, LacksError, Peer, Run


class Torch(Peer):
    """PyTorch, eager: kernel after kernel."""

    name = "torch"

    def __init__(self, threads: int) -> None:
        self._torch: Any = importlib.import_module("torch")
        self._torch.set_num_threads(threads)
        self._torch.set_grad_enabled(False)
        self.version = self._torch.__version__

    def contestant(self, case: Case) -> Contestant:
        arrays = tuple(map(self._tensor, case.arrays))
        way = self._formula(case)
        return Contestant(lambda: way(*arrays), self._into(case, arrays, way), self._value)

    def _into(self, case: Case, arrays: tuple[Any, ...], way: Callable[..., Any]) -> Run | None:
        """Return the call that writes into a tensor, for what has one kernel with ``out=``."""
        torch, axis = self._torch, case.layout.axis
        function = {
            "logsumexp": torch.logsumexp,
            "softmax": torch.softmax,
            "log_softmax": torch.log_softmax,
        }.get(case.op.function)
        if function is None:
            return None
        out = way(*arrays)
        x = arrays[0]
        return lambda: function(x, axis, out=out)

    def _tensor(self, array: Array) -> Any:
        torch = self._torch
        if array.dtype.name == "bfloat16":  # which from_numpy does not know
            return torch.from_numpy(array.view("int16")).view(torch.bfloat16)
        return torch.from_numpy(array)

    def _value(self, tensor: Any) -> Array:
        torch = self._torch
        wide: Array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        return wide

    def _formula(self, case: Case) -> Callable[..., Any]:
        torch, axis, op = self._torch, case.layout.axis, case.op
        functional = torch.nn.functional

        def kl_probs(p: Any, q: Any) -> Any:
            return p.div(q).log_().mul_(p).sum(axis)

        def entropy_logits(x: Any) -> Any:
            log_p = functional.log_softmax(x, axis)
            return log_p.exp().mul_(log_p).sum(axis).neg_()

        def kl_logits(x: Any, y: Any) -> Any:
            log_p, log_q = functional.log_softmax(x, axis), functional.log_softmax(y, axis)
            return log_q.neg_().add_(log_p).mul_(log_p.exp_()).sum(axis)

        def js_probs(p: Any, q: Any) -> Any:
            middle = p.add(q).mul_(0.5)
            return kl_probs(p, middle).add_(kl_probs(q, middle)).mul_(0.5)

        def js_logits(x: Any, y: Any) -> Any:
            wide = torch.float32 if x.dtype.itemsize == 2 else None  # in 16 bits some would be 0
            return js_probs(torch.softmax(x, axis, wide), torch.softmax(y, axis, wide))

        def nll(log_probs: Any, target: Any) -> Any:
            return functional.nll_loss(log_probs.movedim(axis, 1), target)

        ways: dict[tuple[str, str], Callable[..., Any]] = {
            ("logsumexp", "logits"): lambda x: torch.logsumexp(x, axis),
            ("softmax", "logits"): lambda x: torch.softmax(x, axis),
            ("log_softmax", "logits"): lambda x: torch.log_softmax(x, axis),
            ("entropy", "probs"): lambda p: p.log().mul_(p).sum(axis).neg_(),
            ("entropy", "logits"): entropy_logits,
            ("kl_divergence", "probs"): kl_probs,
            ("kl_divergence", "logits"): kl_logits,
            ("js_divergence", "probs"): js_probs,
            ("js_divergence", "logits"): js_logits,
            ("nll_loss", "log_probs"): nll,
            ("cross_entropy", "logits"): self._cross_entropy(case),
        }
        way = ways.get((op.function, op.form))
        if way is None:
            raise LacksError(f"has no {op.function} of {op.form}")
        return way

    def _cross_entropy(self, case: Case) -> Callable[..., Any]:
        torch, axis, keywords, option = (
            self._torch,
            case.layout.axis,
            case.op.keywords,
            case.op.option,
        )
        function = torch.nn.functional.cross_entropy
        reduction = keywords.get("reduction", "mean")
        moved = axis % len(case.layout.shape) != 1  # torch has the classes on axis 1
        temperature = keywords.get("temperature", 1.0)
        smoothing = keywords.get("label_smoothing", 0.0)
        z_loss = keywords.get("z_loss", 0.0)
        unit = math.log(keywords.get("base", math.e))
        soft = case.op.target == "soft"

        def loss(x: Any, y: Any, extra: Any = None) -> Any:
            if option == "where":
                x = x.masked_fill(~extra, -math.inf)
            if moved:
                x = x.movedim(axis, 1)
                y = y.movedim(axis, 1) if soft else y
            if temperature != 1:
                x = x / temperature
            if option == "sample_weight":
                return (function(x, y, reduction="none") * extra).sum() / extra.sum()
            if option == "weight":
                return function(x, y, weight=extra)
            if soft:
                return function(x, y)
            result = function(
                x, y, ignore_index=IGNORED, label_smoothing=smoothing, reduction=reduction
            )
            if z_loss:
                result = result + z_loss * torch.logsumexp(x, 1).square().mean()
            return result if unit == 1 else result / unit

        return loss


class Compiled(Torch):
    """PyTorch with the formula compiled for the shape at hand."""

    name = "torch.compile"

    def contestant(self, case: Case) -> Contestant:
        self._torch.compiler.reset()  # else it gives up on a formula after eight cases
        arrays = tuple(map(self._tensor, case.arrays))
        way = self._torch.compile(self._formula(case), fullgraph=True, dynamic=False)
        return Contestant(lambda: way(*arrays), value=self._value)


PEERS = (Torch, Compiled)
