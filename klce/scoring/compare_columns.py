"""The columns of compared rows: of the summary and the page, and of what is asked for."""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

import klce
from klce import _validate
from klce._ufuncs import STATISTICS
from klce.scoring.columns import OF_LABELS, cut_off_columns, those_of
from klce.scoring.errors import in_one_sentence

COMPARED = (
    "kl_divergence",
    "reverse_kl_divergence",
    "js_divergence",
    "total_variation",
    "expected_agreement",
    "entropy_p",
    "entropy_q",
    "target_log_prob_change",
    "target_prob_change",
    "same_argmax",
)
"""The statistics of both models that the summary is made of: all of it without labels."""

SHOWN = (
    *COMPARED, "nll_p", "nll_q", "max_log_prob_p", "max_log_prob_q", "argmax_p", "argmax_q"
)  # fmt: skip
"""Those and what the summary takes of each model's labels.

They are what a page shows, with labels and without, and what results have if no others are asked
for.
"""

_OF_ONE = tuple(
    name + suffix for suffix in ("_p", "_q") for name in STATISTICS["score"] if name != "entropy"
)
"""What stands behind all else in a row: of P alone, and of Q."""

CUT_OFF = ("", "_q")
"""The suffixes of the columns that tell what the files of P and of Q cut off."""

_ORDER = (*(name for name in STATISTICS["compare"] if name not in _OF_ONE), *_OF_ONE)

OWN = tuple(name for name in _OF_ONE if name not in STATISTICS["compare"])
"""What `klce.score` tells of P and of Q, and `klce.compare` does not."""


def compared_of(names: tuple[str, ...]) -> list[str]:
    """Return those of the columns that `klce.compare` tells."""
    return [name for name in names if name in STATISTICS["compare"]]


def own_of(names: tuple[str, ...], suffix: str) -> list[str]:
    """Return what `klce.score` tells of P (suffix ``_p``) or Q for those of the columns."""
    return [name.removesuffix(suffix) for name in names if name in OWN and name.endswith(suffix)]


def comparison_columns(
    dtype: DTypeLike,
    *,
    labelled: bool,
    cut_off: tuple[str, ...] = (),
    classes: int = 1,
    want: tuple[str, ...] | None = None,
    top_k: int = 0,
    temperature: float = 1.0,
) -> np.dtype[Any]:
    """Return the columns of a comparison's per-row results, in nats, for logits of `dtype`.

    They are those of `klce.compare` and, with ``_p`` and ``_q`` behind, of `klce.score`: the
    statistics that are wanted, by default `SHOWN`. Where there are labels, ``target`` is the first.
    Of each file that cuts off log-probabilities, there are the columns of `cut_off_columns` with
    its suffix, one of `CUT_OFF`, behind.
    """
    names = those_of(SHOWN, labelled=labelled) if want is None else want
    none = np.empty((0, classes), dtype)
    target = np.empty(0, np.int64) if labelled else None
    with in_one_sentence():
        _validate.statistics(names, (*STATISTICS["compare"], *OWN), OF_LABELS, labelled=labelled)
        told = {
            **klce.compare(
                none, none, target, want=compared_of(names), top_k=top_k, temperature=temperature
            )
        }
        for suffix in ("_p", "_q"):
            scored = klce.score(none, target, want=own_of(names, suffix), temperature=temperature)
            told |= {name + suffix: column for name, column in scored.items()}
    columns: list[Any] = [("target", np.int64)] if labelled else []
    columns += [(name, told[name].dtype) for name in _ORDER if name in told]
    for suffix in cut_off:
        columns += cut_off_columns(suffix, labelled=labelled)
    return np.dtype(columns)
