"""Logits and probabilities to numbers: log-sum-exp, softmax, cross-entropy, entropy, divergence.

Every function works over the rows of an array (``axis=-1`` unless said otherwise), in the dtype of
its input (shorter floats in float32, integers in float64), on all the CPUs that the process may
use.  Units are nats, or those of ``base=`` where a function has it.

A *distribution* comes in one of three forms: ``"probs"``, ``"log_probs"`` and ``"logits"``
(unnormalised log-probabilities); what measures distributions takes ``form=``.
"""

from klce._refusal import end_at_interrupt, refuse, require_numpy_2

try:
    end_at_interrupt()
    require_numpy_2()
    from klce.config import (
        get_config,
        get_num_threads,
        set_num_threads,
        show_config,
        threads,
    )
except ImportError as error:
    refuse(error)
from klce.divergences import (
    binary_entropy,
    entropy,
    information,
    js_divergence,
    kl_divergence,
    rel_entr,
)
from klce.losses import binary_cross_entropy, cross_entropy, nll_loss
from klce.normalizers import log_softmax, logsumexp, softmax
from klce.rows import RowTable, compare, compare_top_k, score

__version__ = "0.1.0"

__all__ = [
    "RowTable",
    "binary_cross_entropy",
    "binary_entropy",
    "compare",
    "compare_top_k",
    "cross_entropy",
    "entropy",
    "get_config",
    "get_num_threads",
    "information",
    "js_divergence",
    "kl_divergence",
    "log_softmax",
    "logsumexp",
    "nll_loss",
    "rel_entr",
    "score",
    "set_num_threads",
    "show_config",
    "softmax",
    "threads",
]
