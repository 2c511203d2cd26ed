"""The columns of scored rows: of the summary and the page, and of what is asked for beside them."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

import klce
from klce import _validate
from klce._ufuncs import OF_TARGET
from klce.scoring.errors import InputError, in_one_sentence

SUMMED = ("nll", "logsumexp", "entropy", "argmax", "max_log_prob")
"""The statistics that the summary is made of."""

SHOWN = (*SUMMED, "rank")
"""The statistics that a page shows, and that results have if no others are asked for.

`klce.score` has others by default: not ``max_log_prob``, which the calibration takes, but what
would only make files larger, since it follows from the rest: ``target_log_prob``, ``target_prob``
and ``greedy_match``.
"""

OF_LABELS = frozenset(
    (
        *OF_TARGET["score"],
        *OF_TARGET["compare"],
        *(name + suffix for name in OF_TARGET["score"] for suffix in ("_p", "_q")),
    )
)
"""The statistics that rows have by their labels alone."""


def names_of(want: Iterable[str] | None) -> tuple[str, ...] | None:
    """Return the names of statistics that are wanted, if any are named."""
    if want is None:
        return None
    with in_one_sentence():
        return _validate.names(want)


def those_of(statistics: tuple[str, ...], *, labelled: bool) -> tuple[str, ...]:
    """Return the statistics that rows have, with labels or without."""
    return tuple(name for name in statistics if labelled or name not in OF_LABELS)


def computed_and_written(
    columns: Callable[..., np.dtype[Any]],
    dtype: DTypeLike,
    *,
    labelled: bool,
    want: tuple[str, ...] | None,
    needed: tuple[str, ...],
    top_k: int,
    **options: Any,
) -> tuple[np.dtype[Any], np.dtype[Any]]:
    """Return the columns of a run's rows: those to compute, and those that results have.

    `columns` is `score_columns` or `comparison_columns`, which takes the options; `needed` are the
    statistics of the summary and the page, of which rows without labels have some.
    """
    having = functools.partial(columns, dtype, labelled=labelled, top_k=top_k, **options)
    written = having(want=want)
    if want == () and not top_k and options.get("candidates") is None:
        raise InputError("want must name at least one statistic, got none")
    return having(want=(*those_of(needed, labelled=labelled), *(want or ()))), written


def score_columns(
    dtype: DTypeLike,
    *,
    labelled: bool,
    cut_off: bool = False,
    classes: int = 1,
    want: tuple[str, ...] | None = None,
    top_k: int = 0,
    candidates: int | None = None,
    temperature: float = 1.0,
) -> np.dtype[Any]:
    """Return the columns of per-row results, in nats, for logits of `dtype`.

    They are those of `klce.score`, which refuses what it does not know: the statistics that are
    wanted, by default `SHOWN`, and what it tells of the top k and of so many candidates. Where
    there are labels, ``target`` is the first, the label as the file has it. Where the logits come
    from a file whose log-probabilities are cut off, the last are those of `cut_off_columns`.
    """
    with in_one_sentence():
        told = klce.score(
            np.empty((0, classes), dtype),
            np.empty(0, np.int64) if labelled else None,
            want=those_of(SHOWN, labelled=labelled) if want is None else want,
            top_k=top_k,
            candidates=None if candidates is None else np.zeros(candidates, np.int64),
            temperature=temperature,
        )
    columns: list[Any] = [("target", np.int64)] if labelled else []
    columns += [(name, column.dtype, column.shape[1:]) for name, column in told.items()]
    if cut_off:
        columns += cut_off_columns(labelled=labelled)
    return np.dtype(columns)


def cut_off_columns(suffix: str = "", *, labelled: bool) -> list[tuple[str, Any]]:
    """Return the columns of rows whose file cuts off log-probabilities, as llama.cpp's does.

    ``floor_classes`` counts those that are; where there are labels, a row is ``saturated`` if its
    own is one of them, so that its NLL is a lower bound.
    """
    columns: list[tuple[str, Any]] = [("floor_classes" + suffix, np.int64)]
    return [*columns, ("saturated" + suffix, np.bool_)] if labelled else columns
