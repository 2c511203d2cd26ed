"""The row statistics against memory: how near ``klce.score`` and ``klce.compare`` are to a read.

Each question, as a user asks it, takes turns with reading its rows once: those of ``score``, and
both models' of ``compare``.  ``near`` rows are q = p and some noise, such as a quantized model's (a
divergence of 0.005 nats); ``unlike`` ones have nothing to do with one another.  Results are checked
first, against the specification.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import klce
from benchmarks import environment, limits, report, targets
from benchmarks.cases import (
    DTYPES,
    HALVES,
    KLCE_TOLERANCES,
    OUT_OF_CACHE,
    OUT_OF_CACHE_HALVES,
    Array,
    Layout,
    difference,
    forget,
    random_values,
)
from benchmarks.race import layout as layout_of
from benchmarks.turns import Runner, take_turns
from klce import reference

TOP_K = 20
CANDIDATES = 20  # classes, the same for all rows
NOISE = 0.1  # nats, of near rows
CHECKED = 8  # rows
NEAR, UNLIKE = "near", "unlike"


@dataclass(frozen=True)
class Question:
    """What is asked of the rows: a function of klce's, its options, its operands."""

    function: str
    keywords: Mapping[str, Any] = field(default_factory=dict)
    labelled: bool = False
    q: str = ""  # what the second operand of a comparison is to the first


_SCORE = ("logsumexp", "entropy", "argmax", "nll", "rank", "greedy_match", "max_log_prob", "margin")
_COMPARE = ("kl_divergence", "entropy_p", "entropy_q", "same_argmax")
_MORE = {
    "js": ("js_divergence",),
    "reverse": ("reverse_kl_divergence",),
    "tv": ("total_variation",),
    "js reverse tv": ("js_divergence", "reverse_kl_divergence", "total_variation"),
}


def _comparisons(q: str) -> dict[str, Question]:
    asked: dict[str, Mapping[str, Any]] = {"": {}}
    asked |= {f" {name}": {"want": (*_COMPARE, *more)} for name, more in _MORE.items()}
    asked[f" top-k {TOP_K}"] = {"top_k": TOP_K}
    return {f"compare {q}{name}": Question("compare", kw, q=q) for name, kw in asked.items()}


QUESTIONS: dict[str, Question] = {
    "score": Question("score"),
    "score target": Question("score", labelled=True),
    "score logsumexp": Question("score", {"want": ("logsumexp",)}),
    "score entropy": Question("score", {"want": ("entropy",)}),
    "score varentropy": Question("score", {"want": ("varentropy",)}),
    "score nll": Question("score", {"want": ("nll",)}, labelled=True),
    "score rank": Question("score", {"want": ("rank",)}, labelled=True),
    "score candidates": Question("score", {"want": (), "candidates": CANDIDATES}),
    "score all": Question("score", {"want": (*_SCORE, "varentropy")}, labelled=True),
    f"score top-k {TOP_K}": Question("score", {"want": (), "top_k": TOP_K}),
    f"score target top-k {TOP_K}": Question("score", {"top_k": TOP_K}, labelled=True),
    **_comparisons(NEAR),
    **_comparisons(UNLIKE),
}


def out_of_cache(dtype: str) -> Layout:
    """Return the layout that has a dtype out of cache."""
    return OUT_OF_CACHE_HALVES if dtype in HALVES else OUT_OF_CACHE


@functools.lru_cache(maxsize=1)
def near_values(layout: Layout, dtype: str) -> Array:
    """Return rows near the first operand's."""
    result = random_values(layout, dtype, "logits", 0).copy()
    generator = np.random.default_rng(8)
    wide = np.float64 if dtype == "float64" else np.float32
    flat = result.reshape(-1)
    for start in range(0, flat.size, 1 << 22):  # in parts: half types are widened
        part = flat[start : start + (1 << 22)]
        noise: Array = generator.standard_normal(part.size, wide)
        noise *= wide(NOISE)
        noise += part
        part[...] = noise
    return result


def _operands(question: Question, layout: Layout, dtype: str) -> tuple[Array, ...]:
    first = random_values(layout, dtype, "logits", 0)
    if not question.q:
        return (first,)
    if question.q == NEAR:
        return first, near_values(layout, dtype)
    return first, random_values(layout, dtype, "logits", 1)


def _call(
    module: Any, question: Question, layout: Layout, operands: Sequence[Array]
) -> functools.partial[Any]:
    """Return the call of klce's function, or its specification's, on the layout's first rows."""
    generator = np.random.default_rng(9)
    keywords: dict[str, Any] = {"axis": layout.axis, **question.keywords}
    if question.labelled:
        labels = generator.integers(0, layout.classes, layout.row_shape)
        keywords["target"] = labels[tuple(map(slice, np.delete(operands[0].shape, layout.axis)))]
    if "candidates" in keywords:
        keywords["candidates"] = generator.integers(0, layout.classes, keywords["candidates"])
    if "top_k" in keywords:
        keywords["top_k"] = min(layout.classes, keywords["top_k"])
    return functools.partial(getattr(module, question.function), *operands, **keywords)


def wrong(
    question: Question, layout: Layout, dtype: str, operands: Sequence[Array]
) -> Iterator[str]:
    """Yield how klce's results on some of the rows are not what its specification says."""
    few = [x[tuple(map(slice, layout.head(CHECKED).shape))] for x in operands]
    result = _call(klce, question, layout, few)()
    expected = _call(reference, question, layout, [x.astype(np.float64) for x in few])()
    for name, column in result.items():
        if column.dtype.kind == "f":
            off = difference(column, expected[name], KLCE_TOLERANCES[dtype])
            if not off <= 1:
                yield f"{name} is {off:.3g} tolerances from its specification"
        elif not np.array_equal(column, expected[name]):
            yield f"{name} is not what its specification says"


def measure(name: str, layout: Layout, dtype: str, threads: int, rounds: int) -> dict[str, Any]:
    """Return the record of a question: the seconds of klce and of the limit in each round."""
    question = QUESTIONS[name]
    operands = _operands(question, layout, dtype)
    record: dict[str, Any] = {
        "op": name,
        "shape": layout.name,
        "dtype": dtype,
        "bytes": sum(x.nbytes for x in operands),
        "seconds": [],
        "limits": {},
        "wrong": None,
        "gelem": None,
        "share": None,
        "target": targets.of_rows(operands[0].nbytes, "top_k" in question.keywords),
        "met": None,
    }
    if found := list(wrong(question, layout, dtype, operands)):
        record["wrong"] = f"{name} {layout.name} {dtype}: klce's {'; '.join(found)}"
        return record
    bounds = limits.runners(operands, threads, copies=False)
    own = Runner(_call(klce, question, layout, operands))
    seconds = take_turns({report.KLCE: own} | bounds, rounds)
    record["seconds"] = seconds.pop(report.KLCE)
    record["limits"] = seconds
    middle = median(record["seconds"])
    record["gelem"] = layout.elements / middle / 1e9
    if seconds:
        record["share"] = limits.best(seconds) / middle
        if record["target"] is not None:
            record["met"] = record["share"] >= record["target"]
    return record


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rows",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    environment.add_counts(parser, 7, "of klce and of reading")
    parser.add_argument(
        "--op", action="append", choices=QUESTIONS, help="only this; may be repeated"
    )
    parser.add_argument(
        "--shape",
        action="append",
        type=layout_of,
        metavar="SHAPE",
        help="instead of 1024x128256, and 4096x128256 of half types; may be repeated",
    )
    parser.add_argument("--dtype", action="append", choices=DTYPES, help="may be repeated")
    parser.add_argument("--isa", choices=environment.ISAS, help="hold klce to it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    return parser.parse_args()


def main() -> None:
    """Ask what the command line asks for."""
    options = _parse()
    environment.pin(options.threads, options.isa)
    klce.set_num_threads(options.threads)
    told: dict[str, Any] = report.about({}, {}, options.threads, options.rounds)
    told |= {"isa asked for": options.isa, "rows": []}
    with report.console().status("") as status:
        for dtype in options.dtype or DTYPES:
            for layout in options.shape or [out_of_cache(dtype)]:
                for name in options.op or QUESTIONS:
                    record = measure(name, layout, dtype, options.threads, options.rounds)
                    told["rows"].append(record)
                    if options.json:
                        report.write(options.json, told)
                    status.update(report.progress(record))
                near_values.cache_clear()
                forget()
    report.print_rows(told)
    report.print_about(told)
    report.exit_if_wrong({"cases": told["rows"]})


if __name__ == "__main__":
    main()
