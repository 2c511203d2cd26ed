"""Special values of SciPy's and torch's functions, on grids, beside those of the stand-ins."""

from __future__ import annotations

import importlib
import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

Array = NDArray[Any]
INF, NAN = np.inf, np.nan
NUMBERS = [-INF, -3.0, -1.0, -0.0, 0.0, 1e-310, 2e-308, 1e-200, 0.25, 1.0, 3.0, 1e200, INF, NAN]
ROWS = np.array(list(itertools.product([-INF, -1.0, 0.0, 1.0, 3.0, INF, NAN], repeat=3)))
FACTORS = np.array(list(itertools.product([-1.0, 0.0, 2.5], repeat=3)))


def same(ours: Any, theirs: Any, rtol: float, atol: float = 0.0) -> None:
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=rtol, atol=atol)


@pytest.fixture(autouse=True)
def _infinities_are_results() -> Any:
    with np.errstate(all="ignore"):
        yield


# --- SciPy ----------------------------------------------------------------------------------------


def scipy_pair(module: str, name: str) -> tuple[Any, Any]:
    pytest.importorskip("scipy")
    theirs = getattr(importlib.import_module(f"scipy.{module}"), name)
    return getattr(importlib.import_module("klce.compat.scipy"), name), theirs


@pytest.mark.parametrize("name", ["xlogy", "rel_entr", "kl_div"])
def test_pairs(name: str) -> None:
    ours, theirs = scipy_pair("special", name)
    x, y = np.meshgrid(NUMBERS, NUMBERS)
    expected = theirs(x, y)
    if name == "kl_div":  # SciPy's quotient over- or underflows
        extreme = np.isinf(expected) & (x > 0) & (y > 0)
        exact = x * (np.log(x) - np.log(y)) - x + y
        expected = np.where(extreme, exact, expected)
    same(ours(x, y), expected, 1e-14)


def test_entr() -> None:
    ours, theirs = scipy_pair("special", "entr")
    same(ours(NUMBERS), theirs(NUMBERS), 1e-15)


@pytest.mark.parametrize("name", ["logsumexp", "softmax", "log_softmax"])
def test_rows(name: str) -> None:
    ours, theirs = scipy_pair("special", name)
    same(ours(ROWS, axis=1), theirs(ROWS, axis=1), 1e-14, 1e-15)


def test_factors() -> None:
    ours, theirs = scipy_pair("special", "logsumexp")
    a, b = np.repeat(ROWS, len(FACTORS), axis=0), np.tile(FACTORS, (len(ROWS), 1))
    # What has the factor 0 does not count; SciPy forgets that where the sum is infinite or 0.
    kept = ~((b == 0) & ~np.isfinite(a)).any(axis=1)
    a, b = a[kept], b[kept]
    same(ours(a, axis=1, b=b), theirs(a, axis=1, b=b), 1e-14, 1e-15)
    for mine, other in zip(
        ours(a, axis=1, b=b, return_sign=True),
        theirs(a, axis=1, b=b, return_sign=True),
        strict=True,
    ):
        same(mine, other, 1e-14, 1e-15)


def test_entropy() -> None:
    ours, theirs = scipy_pair("stats", "entropy")
    same(ours(ROWS, axis=1), theirs(ROWS, axis=1), 1e-14, 1e-15)
    p, q = np.repeat(ROWS, len(ROWS), axis=0), np.tile(ROWS, (len(ROWS), 1))
    same(ours(p, q, axis=1), theirs(p, q, axis=1), 1e-13, 1e-15)
    same(
        ours(ROWS, axis=1, nan_policy="omit"), theirs(ROWS, axis=1, nan_policy="omit"), 1e-14, 1e-15
    )


def test_jensenshannon() -> None:
    ours, theirs = scipy_pair("spatial.distance", "jensenshannon")
    p, q = np.repeat(ROWS, len(ROWS), axis=0), np.tile(ROWS, (len(ROWS), 1))
    same(ours(p, q, axis=1), theirs(p, q, axis=1), 1e-12, 1e-7)  # the root of what cancels


REAL = ["bool", "float16", "float32", "float64"]
REAL += [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]


@pytest.mark.parametrize(
    ("module", "name", "axis"),
    [
        ("special", "logsumexp", 1),
        ("special", "entr", None),
        ("special", "xlogy", None),
        ("special", "rel_entr", None),
        ("special", "kl_div", None),
        ("stats", "entropy", 0),
        ("stats", "entropy", None),
        ("spatial.distance", "jensenshannon", 0),
        ("spatial.distance", "jensenshannon", None),
    ],
)
def test_dtypes(module: str, name: str, axis: int | None) -> None:
    ours, theirs = scipy_pair(module, name)
    options = {} if module == "special" and name != "logsumexp" else {"axis": axis}
    for one, other in itertools.product(REAL, REAL):
        x, y = np.ones((2, 3), one), np.ones((2, 3), other)
        if name in ("logsumexp", "entr"):
            assert ours(x, **options).dtype == theirs(x, **options).dtype, one
        elif name == "xlogy" or {one, other} not in ({"int8", "uint16"}, {"int16", "uint16"}):
            assert ours(x, y, **options).dtype == theirs(x, y, **options).dtype, (one, other)


# --- torch ----------------------------------------------------------------------------------------


def torch_pair(name: str) -> tuple[Any, Any, Any]:
    torch = pytest.importorskip("torch", reason="torch is not installed: see tests/peers/README.md")
    theirs = torch.logsumexp if name == "logsumexp" else getattr(torch.nn.functional, name)
    return torch, getattr(importlib.import_module("klce.compat.torch"), name), theirs


@pytest.mark.parametrize("name", ["logsumexp", "softmax", "softmin", "log_softmax"])
def test_torch_rows(name: str) -> None:
    torch, ours, theirs = torch_pair(name)
    rows = torch.from_numpy(ROWS)
    same(ours(rows, 1), theirs(rows, 1), 1e-14, 1e-15)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("name", ["nll_loss", "cross_entropy"])
def test_torch_losses(name: str, reduction: str) -> None:
    torch, ours, theirs = torch_pair(name)
    for weight in (None, torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)):
        for label in (0, 1, 2, -100):
            for row in torch.from_numpy(ROWS):
                arguments = row[None], torch.tensor([label]), weight
                options = {"reduction": reduction}
                same(ours(*arguments, **options), theirs(*arguments, **options), 1e-14, 1e-15)


@pytest.mark.parametrize("log_target", [False, True])
def test_torch_kl_div(log_target: bool) -> None:
    torch, ours, theirs = torch_pair("kl_div")
    # No infinite p, nor an infinite q, which klce calls nan as it does in every measure.
    targets = [-INF, -600.0, -3.0, 0.0, 3.0, NAN] if log_target else [-1, 0, 0.25, 1, 3, NAN]
    grid = np.meshgrid([-INF, -800.0, -3.0, -1e-200, 0.0, 0.25, 3.0, NAN], targets)
    log_q, p = map(torch.from_numpy, grid)
    options = {"reduction": "none", "log_target": log_target}
    same(ours(log_q, p, **options), theirs(log_q, p, **options), 1e-14)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_torch_binary(reduction: str) -> None:
    torch, ours, theirs = torch_pair("binary_cross_entropy")
    grid = np.meshgrid([0.0, 1e-310, 1e-44, 1e-43, 0.25, 1 - 1e-16, 1.0], [0.0, 0.25, 1.0])
    p, y = map(torch.from_numpy, grid)
    same(ours(p, y, reduction=reduction), theirs(p, y, reduction=reduction), 1e-14)


def test_torch_binary_logits() -> None:
    torch, ours, theirs = torch_pair("binary_cross_entropy_with_logits")
    # Infinite logits have a limit, where torch's formula gives nan.
    x, y = map(torch.from_numpy, np.meshgrid([-800.0, -1.0, 0.0, 30.0, 800.0, NAN], [0.0, 0.25, 1]))
    same(ours(x, y, reduction="none"), theirs(x, y, reduction="none"), 1e-14)
