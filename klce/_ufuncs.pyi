from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

OPS: dict[str, str]
FILLS: dict[str, str]
STATISTICS: dict[str, dict[str, str]]
OF_TARGET: dict[str, tuple[str, ...]]
MAX_TOP: int
DTYPES: tuple[str, ...]
ISAS: tuple[str, ...]
COMPILER: str
MASKED: dict[str, np.ufunc]

logsumexp: np.ufunc
logsumexp_scaled: np.ufunc
softmax: np.ufunc
log_softmax: np.ufunc
cross_entropy: np.ufunc
nll: np.ufunc
nll_probs: np.ufunc
weighted_nll: np.ufunc
weighted_nll_probs: np.ufunc
loss_logits: np.ufunc
loss_log_probs: np.ufunc
loss_probs: np.ufunc
entropy_probs: np.ufunc
entropy_log_probs: np.ufunc
entropy_logits: np.ufunc
kl_probs: np.ufunc
kl_log_probs: np.ufunc
kl_logits: np.ufunc
kl_probs_logits: np.ufunc
kl_logits_probs: np.ufunc
kl_logits_logits: np.ufunc
js_probs_probs: np.ufunc
js_probs_logits: np.ufunc
js_logits_logits: np.ufunc
rel_entr: np.ufunc
information: np.ufunc
binary_entropy: np.ufunc
binary_cross_entropy_probs: np.ufunc
binary_cross_entropy_logits: np.ufunc
score: np.ufunc
compare: np.ufunc

class Plain:
    def __init__(self, name: str) -> None: ...
    def __call__(
        self,
        operands: tuple[Any, ...],
        out: Any = None,
        how: Any = "none",
        axis: int = -1,
        mask: Any = None,
        nats: float = 1,
        /,
    ) -> Any: ...
    def results(
        self, operands: tuple[Any, ...], outs: tuple[Any, ...], axis: int, mask: Any = None, /
    ) -> tuple[NDArray[Any], ...] | None: ...
    def totals(
        self, operands: tuple[Any, ...], axis: int, mask: Any = None, /
    ) -> tuple[float, ...] | None: ...

class ShortWay:
    def __init__(
        self,
        defaults: dict[str, Any],
        kernels: dict[str, list[tuple[Any, ...]]],
        checks: dict[str, Callable[[Any], Any]],
    ) -> None: ...
    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any], /) -> Any: ...

def register_bfloat16(dtype: np.dtype[Any]) -> None: ...
def as_integers(capsule: Any) -> str: ...
def raise_trouble() -> None: ...
def check_labels(labels: NDArray[np.int64], classes: int, ignore: int) -> tuple[int, int]: ...
def are_weights(values: NDArray[Any]) -> bool: ...
def sum_of(values: NDArray[Any]) -> float: ...
def new_like(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]: ...
def widened(halves: NDArray[Any]) -> NDArray[np.float32] | None: ...
def active_isa() -> str: ...
def available_isas() -> tuple[str, ...]: ...
def select_isa(name: str | None = None) -> None: ...
def cpu_count() -> int: ...
def get_num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
def set_thread_override(n: int) -> int: ...
