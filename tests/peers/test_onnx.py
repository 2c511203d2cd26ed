"""ONNX's node tests through klce's own functions, with the classes on axis 1 (for losses)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import klce

onnx = pytest.importorskip("onnx")
from onnx.backend.test.case.node import collect_testcases  # noqa: E402
from onnx.backend.test.case.test_case import TestCase  # noqa: E402

Array = NDArray[Any]
# A label that no test has, for losses without an attribute ignore_index.
NONE = np.iinfo(np.int64).min


def softmax(x: Array, *, axis: int = -1) -> tuple[Array]:
    return (klce.softmax(x, axis),)


def log_softmax(x: Array, *, axis: int = -1) -> tuple[Array]:
    return (klce.log_softmax(x, axis),)


def reduce_log_sum_exp(
    x: Array, axes: Array | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> tuple[Array]:
    if axes is None or not axes.size:
        # For one element alone, the logarithm of its exponential is itself.
        axis: tuple[int, ...] | None = () if noop_with_empty_axes else None
    else:
        axis = tuple(axes.tolist())
    return (klce.logsumexp(x, axis, keepdims=bool(keepdims)),)


def negative_log_likelihood_loss(
    x: Array,
    target: Array,
    weight: Array | None = None,
    *,
    ignore_index: int = NONE,
    reduction: str = "mean",
) -> tuple[Array]:
    loss = klce.nll_loss(
        x, target, axis=1, weight=weight, ignore_index=ignore_index, reduction=reduction
    )
    return (loss,)


def softmax_cross_entropy_loss(
    x: Array,
    target: Array,
    weight: Array | None = None,
    *,
    ignore_index: int = NONE,
    reduction: str = "mean",
) -> tuple[Array, Array]:
    loss = klce.cross_entropy(
        x, target, axis=1, weight=weight, ignore_index=ignore_index, reduction=reduction
    )
    return loss, klce.log_softmax(x, 1)


OPERATORS: dict[str, Callable[..., tuple[Array, ...]]] = {
    "Softmax": softmax,
    "LogSoftmax": log_softmax,
    "ReduceLogSumExp": reduce_log_sum_exp,
    "NegativeLogLikelihoodLoss": negative_log_likelihood_loss,
    "SoftmaxCrossEntropyLoss": softmax_cross_entropy_loss,
}


def cases() -> list[Any]:
    """List the cases of one node: those whose names end in _expanded test a runtime's expansion."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # making the data of all operators
        everything = collect_testcases(None)
    nodes = [(case, case.model.graph.node) for case in everything if case.model is not None]
    found = [case for case, node in nodes if len(node) == 1 and node[0].op_type in OPERATORS]
    assert {case.model.graph.node[0].op_type for case in found} == set(OPERATORS)
    return [pytest.param(case, id=case.name) for case in found]


@pytest.mark.parametrize("case", cases())
def test_node(case: TestCase) -> None:
    (node,) = case.model.graph.node
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    options = {k: v.decode() if isinstance(v, bytes) else v for k, v in attributes.items()}
    assert case.data_sets
    for inputs, outputs in case.data_sets:
        results = OPERATORS[node.op_type](*inputs, **options)[: len(outputs)]
        for result, expected in zip(results, outputs, strict=True):
            np.testing.assert_allclose(result, expected, rtol=case.rtol, atol=case.atol)
            assert np.shape(result) == expected.shape
            assert np.asarray(result).dtype == expected.dtype
