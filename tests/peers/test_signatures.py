"""The stand-ins have the names, the order and the defaults of the peers' parameters."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import pytest

WHERE = {
    "scipy.special": ("logsumexp", "softmax", "log_softmax"),
    "scipy.stats": ("entropy",),
    "scipy.spatial.distance": ("jensenshannon",),
    "sklearn.metrics": ("log_loss", "d2_log_loss_score"),
    "torch.nn.functional": (
        "softmax",
        "softmin",
        "log_softmax",
        "nll_loss",
        "cross_entropy",
        "kl_div",
        "binary_cross_entropy",
        "binary_cross_entropy_with_logits",
    ),
}


def parameters(function: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    found = inspect.signature(function).parameters.values()
    return [(p.name, p.kind, p.default) for p in found]


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in WHERE.items() for name in names]
)
def test_signature(module: str, name: str) -> None:
    peer = module.partition(".")[0]
    pytest.importorskip(peer)
    theirs = getattr(importlib.import_module(module), name)
    ours = getattr(importlib.import_module(f"klce.compat.{peer}"), name)
    assert parameters(ours) == parameters(theirs)


def test_every_function_is_compared() -> None:
    # Those without a signature in Python: SciPy's ufuncs, and torch.logsumexp.
    without = {"entr", "kl_div", "rel_entr", "xlogy"}, {"logsumexp"}
    for peer, rest in zip(("scipy", "torch"), without, strict=True):
        names = {
            name for module, names in WHERE.items() if module.startswith(peer) for name in names
        }
        assert names | rest == set(importlib.import_module(f"klce.compat.{peer}").__all__)
