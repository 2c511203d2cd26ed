"""torch's own samples of its operators (OpInfo): klce's stand-ins against torch's results.

The bounds are those of ``torch.testing`` for the dtype, which torch's tests of these samples start
from; the looser ones that some operators have in single tests are not needed.  In the half types
torch rounds between its steps, which shows beyond these bounds (0.65 relative in a loss): there
klce is held to torch's float64 result of the same numbers, and to the half one's shape and dtype.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: see tests/peers/README.md")
from torch.testing._internal.common_methods_invocations import op_db  # noqa: E402

import klce.compat.torch as ours  # noqa: E402

HALVES = (torch.float16, torch.bfloat16)
DTYPES = (torch.float32, torch.float64, *HALVES)
FUNCTIONS = {
    "softmax": ours.softmax,
    "log_softmax": ours.log_softmax,
    "nn.functional.softmin": ours.softmin,
    "logsumexp": ours.logsumexp,
    "nn.functional.nll_loss": ours.nll_loss,
    "nn.functional.cross_entropy": ours.cross_entropy,
    "nn.functional.kl_div": ours.kl_div,
    "nn.functional.binary_cross_entropy": ours.binary_cross_entropy,
    "nn.functional.binary_cross_entropy_with_logits": ours.binary_cross_entropy_with_logits,
}
OPERATORS = [op for op in op_db if op.name in FUNCTIONS]


def operators() -> list[Any]:
    assert {op.name for op in OPERATORS} == set(FUNCTIONS)
    return [pytest.param(op, id=op.full_name) for op in OPERATORS]


def samples(op: Any, dtype: Any) -> list[Any]:
    torch.manual_seed(0)
    return list(op.sample_inputs("cpu", dtype, requires_grad=False))


def widened(x: Any) -> Any:
    """Return float64 for a half type, of a tensor or as ``dtype=``."""
    if x in HALVES if isinstance(x, torch.dtype) else isinstance(x, torch.Tensor):
        return x.double() if isinstance(x, torch.Tensor) and x.dtype in HALVES else x
    return x


@pytest.mark.filterwarnings("ignore:reduction")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("op", operators())
def test_samples(op: Any, dtype: Any) -> None:
    assert samples(op, dtype)
    for sample in samples(op, dtype):
        expected = op(sample.input, *sample.args, **sample.kwargs)
        if dtype in HALVES:
            wide = sample.transform(widened)
            exact = op(wide.input, *wide.args, **wide.kwargs)
            assert exact.shape == expected.shape
            expected = exact.to(expected.dtype)
        actual = FUNCTIONS[op.name](sample.input, *sample.args, **sample.kwargs)
        torch.testing.assert_close(
            actual, expected, equal_nan=True, msg=lambda text, s=sample: f"{s}: {text}"
        )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_same_kind_back(dtype: Any) -> None:
    x = torch.randn(4, 5, dtype=torch.float64).to(dtype)
    target = torch.tensor([0, 1, 2, 4])
    as_tensor = ours.cross_entropy(x, target)
    assert isinstance(as_tensor, torch.Tensor)
    assert (as_tensor.dtype, as_tensor.shape) == (dtype, ())
    assert ours.softmax(x, 1).dtype == dtype
    array = x.float().numpy() if dtype == torch.bfloat16 else x.numpy()
    as_array = ours.cross_entropy(array, target.numpy())
    assert isinstance(as_array, np.generic)
    assert float(as_array) == pytest.approx(float(as_tensor), rel=1e-2)


@pytest.mark.parametrize("target", [torch.uint8, torch.int64], ids=str)
def test_targets(target: Any) -> None:
    x = torch.randn(3, 4)
    labels = torch.tensor([0, 3, 1], dtype=target)
    torch.testing.assert_close(
        ours.cross_entropy(x, labels), torch.nn.functional.cross_entropy(x, labels)
    )


@pytest.mark.parametrize("name", ["nll_loss", "cross_entropy"])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_nothing(name: str, reduction: str) -> None:
    """No rows, or all of them ignored."""
    theirs = getattr(torch.nn.functional, name)
    for rows in (0, 3):
        x, target = torch.randn(rows, 4), torch.full((rows,), -100)
        torch.testing.assert_close(
            getattr(ours, name)(x, target, reduction=reduction),
            theirs(x, target, reduction=reduction),
            equal_nan=True,
        )


def test_views_are_read_as_they_are() -> None:
    x = torch.randn(6, 8)
    for view in (x.T, x[::2, 1::3], x.expand(2, 6, 8), x[:, :0]):
        torch.testing.assert_close(ours.softmax(view, 0), torch.softmax(view, 0))


def test_out() -> None:
    x, out = torch.randn(3, 4), torch.empty(3)
    assert ours.logsumexp(x, 1, out=out) is out
    torch.testing.assert_close(out, torch.logsumexp(x, 1))


def test_a_gradient_is_refused() -> None:
    x = torch.randn(3, 4, requires_grad=True)
    with pytest.raises(TypeError, match=r"input must not require grad.*input\.detach\(\)"):
        ours.softmax(x, 1)
    with torch.no_grad():
        torch.testing.assert_close(ours.softmax(x, 1), torch.softmax(x, 1))


def test_another_device_is_refused() -> None:
    with pytest.raises(TypeError, match="input must be in CPU memory, got a Tensor"):
        ours.softmax(torch.empty(3, 4, device="meta"), 1)
