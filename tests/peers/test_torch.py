"""torch's own samples of its operators (OpInfo): klce's stand-ins against torch's results.

The bounds are those of ``torch.testing`` for the dtype, which torch's tests of these samples start
from; the looser ones that some operators have in single tests are not needed.  In the half types
torch rounds between its steps, which shows beyond these bounds (0.65 relative in a loss): there
klce is held to torch's float64 result of the same numbers, and to the half one's shape and dtype.
"""

from __future__ import annotations

from typing import Any

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
