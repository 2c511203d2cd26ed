"""JAX: ``jax.jit`` of the formulas that its users write.

Without ``entr`` and ``xlogy``, which ask each element whether it is 0 and are several times as
slow.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.cases import IGNORED, Case
from benchmarks.peers import Contestant, LacksError, Peer


class Jax(Peer):
    """JAX on its CPU backend; ``environment.py`` sets its threads before it starts."""

    name = "jax"

    def __init__(self, threads: int) -> None:
        self._jax: Any = importlib.import_module("jax")
        self._jax.config.update("jax_platforms", "cpu")
        self._jax.config.update("jax_enable_x64", True)
        self.version = self._jax.__version__

    def contestant(self, case: Case) -> Contestant:
        jax = self._jax
        arrays = [jax.block_until_ready(jax.numpy.asarray(array)) for array in case.arrays]
        way = jax.jit(self._formula(case))
        return Contestant(lambda: way(*arrays).block_until_ready(), value=np.asarray)

    def _formula(self, case: Case) -> Callable[..., Any]:
        jax, axis, op = self._jax, case.layout.axis, case.op
        jnp, nn, special = jax.numpy, jax.nn, jax.scipy.special

        def kl_logits(x: Any, y: Any) -> Any:
            log_p, log_q = nn.log_softmax(x, axis), nn.log_softmax(y, axis)
            return (jnp.exp(log_p) * (log_p - log_q)).sum(axis)

        def entropy_logits(x: Any) -> Any:
            log_p = nn.log_softmax(x, axis)
            return -(jnp.exp(log_p) * log_p).sum(axis)

        def js_probs(p: Any, q: Any) -> Any:
            middle = (p + q) / 2
            return (p * jnp.log(p / middle) + q * jnp.log(q / middle)).sum(axis) / 2

        def js_logits(x: Any, y: Any) -> Any:
            if x.dtype.itemsize == 2:  # in which some probabilities would be 0
                x, y = x.astype(jnp.float32), y.astype(jnp.float32)
            return js_probs(nn.softmax(x, axis), nn.softmax(y, axis))

        def nll(log_probs: Any, target: Any) -> Any:
            return -self._picked(log_probs, target, axis).mean()

        ways: dict[tuple[str, str], Callable[..., Any]] = {
            ("logsumexp", "logits"): lambda x: special.logsumexp(x, axis),
            ("softmax", "logits"): lambda x: nn.softmax(x, axis),
            ("log_softmax", "logits"): lambda x: nn.log_softmax(x, axis),
            ("entropy", "probs"): lambda p: -(p * jnp.log(p)).sum(axis),
            ("entropy", "logits"): entropy_logits,
            ("kl_divergence", "probs"): lambda p, q: (p * jnp.log(p / q)).sum(axis),
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

    def _picked(self, x: Any, target: Any, axis: int) -> Any:
        jnp = self._jax.numpy
        return jnp.take_along_axis(x, jnp.expand_dims(target, axis), axis).squeeze(axis)

    def _cross_entropy(self, case: Case) -> Callable[..., Any]:
        jnp, axis, keywords, option = (
            self._jax.numpy,
            case.layout.axis,
            case.op.keywords,
            case.op.option,
        )
        logsumexp = self._jax.scipy.special.logsumexp
        temperature = keywords.get("temperature", 1.0)
        smoothing = keywords.get("label_smoothing", 0.0)
        z_loss = keywords.get("z_loss", 0.0)
        unit = math.log(keywords.get("base", math.e))

        def loss(x: Any, y: Any, extra: Any = None) -> Any:
            if option == "where":
                x = jnp.where(extra, x, -jnp.inf)
            if temperature != 1:
                x = x / temperature
            total = logsumexp(x, axis)
            if case.op.target == "soft":
                return (total - (x * y).sum(axis)).mean()
            taken = jnp.where(y == IGNORED, 0, y) if option == "ignore_index" else y
            picked = self._picked(x, taken, axis)
            if smoothing:
                picked = (1 - smoothing) * picked + smoothing * x.mean(axis)
            losses = total - picked
            if z_loss:
                losses = losses + z_loss * total**2
            if unit != 1:
                losses = losses / unit
            if option == "ignore_index":
                counted = y != IGNORED
                return jnp.where(counted, losses, 0).sum() / counted.sum()
            if option == "weight":
                weights = extra[y]
                return (losses * weights).sum() / weights.sum()
            if option == "sample_weight":
                return (losses * extra).sum() / extra.sum()
            return losses if keywords.get("reduction") == "none" else losses.mean()

        return loss


PEERS = (Jax,)
