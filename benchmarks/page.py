"""The race as a page: every cell, with what it is bound by, from the JSON of races.

    python -m benchmarks.race grid --json race.json
    python -m benchmarks.instructions --json instructions.json
    python -m benchmarks.page race.json --instructions instructions.json > docs/race/avx512.md

Several races become one page if klce had the same version, instruction set and threads in them.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import report, targets
from benchmarks.cases import DTYPES, GRID, OPS, OUT_OF_CACHE_HALVES, Layout
from benchmarks.instructions import VECTOR_BYTES, sample
from benchmarks.report import Cell

Key = tuple[str, str, str]  # operation, shape, dtype

HOW_TO_READ = """\
A cell is the time of the fastest peer over klce's: above 1, klce is the faster. **Bold** is a cell
that klce loses. Two numbers are the call without `out=`, where every contestant returns new memory,
and with it. Every figure is a median of rounds within one run, in which all took turns.

- *memory*: the time that the machine's memory or caches need at least (reading the input once; of a
  map, the faster of two copies), as a share of klce's time.
- *instructions*: what klce executes for a vector of its input, all told. *cycles*: what that takes,
  of a core.
- *target*: met by the ratio or by 80 % of the memory's speed; some have to reach a share of that
  besides.
- *missed*: how many times as fast the cell would have to be, and what binds it. *memory* needs
  60 % of its time or more. *instructions* would take 60 % or more at two a cycle, as many vectors
  of 64 bytes as an Intel core starts (Zen 5 of AMD starts up to four: some of these wait there).
  Else it *waits*, for caches or for one step on another. *calls* are of less than 20 us. Where
  nothing was counted, only the first and the last are told.
"""

BOUND = 0.6  # of the time, by what is said to bind a cell
PER_CYCLE = 2  # vector instructions that can start
A_CALL = 20e-6  # seconds


def merged(races: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return several races as one; a case that two have measured is that of the later."""
    first = races[0]
    for race in races[1:]:
        for what in ("isa", "threads"):
            if race[what] != first[what]:
                raise SystemExit(f"races differ in {what}: {first[what]} and {race[what]}")
    cases = {(c["op"], c["shape"], c["dtype"]): c for race in races for c in race["cases"]}
    peers = {name: version for race in races for name, version in race["peers"].items()}
    remarks = {name: words for race in races for name, words in race.get("remarks", {}).items()}
    lines = {(n["part"], n["subject"], n["unit"]): n for race in races for n in race["lines"]}
    return {
        **first,
        "cases": sorted(cases.values(), key=_place),
        "peers": peers,
        "remarks": remarks,
        "lines": [*lines.values()],
        # What disturbs a clock makes it slower.
        "GHz": max((race["GHz"] for race in races if race.get("GHz")), default=None),
    }


def _place(case: Mapping[str, Any]) -> tuple[int, ...]:
    """Return what sorts cases by dtype, shape and operation."""
    shapes = [layout.name for layout in (*GRID, OUT_OF_CACHE_HALVES)]
    shape = case["shape"]
    place = shapes.index(shape) if shape in shapes else len(shapes)
    return DTYPES.index(case["dtype"]), place, list(OPS).index(case["op"])


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of Markdown: its first column to the left, the others to the right."""
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _ratio(cell: Cell) -> str:
    if cell.ratio is None:
        return "-"
    return f"{cell.ratio:.2f}" if cell.ratio >= 1 else f"**{cell.ratio:.2f}**"


def _pairs(cells: Iterable[Cell]) -> dict[Key, tuple[Cell, Cell]]:
    """Return the cells without and with ``out=``, together."""
    found: dict[Key, list[Cell]] = {}
    for cell in cells:
        found.setdefault((cell.op, cell.shape, cell.dtype), []).append(cell)
    return {key: (fresh, into) for key, (fresh, into) in found.items()}


def overview(pairs: Mapping[Key, tuple[Cell, Cell]], dtype: str) -> str:
    """Return the table of a dtype: an operation a row, a shape a column."""
    keys = [key for key in pairs if key[2] == dtype]
    ops = [op for op in OPS if any(op == key[0] for key in keys)]
    shapes = list(dict.fromkeys(key[1] for key in keys))

    def ratios(op: str, shape: str) -> str:
        pair = pairs.get((op, shape, dtype))
        return "" if pair is None else " ".join(map(_ratio, pair))

    return table(["", *shapes], ([op, *(ratios(op, shape) for shape in shapes)] for op in ops))


def _counted(key: Key) -> Key:
    """Return the key of a cell's count: rows of as many classes are alike."""
    op, shape, dtype = key
    return op, sample(Layout.parse(shape), 1).name, dtype


def _asked(case: Mapping[str, Any], told: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the peers that were asked to race in a case, those that lack it included."""
    return tuple(name for name in told["peers"] if name in case["seconds"] or name in case["lacks"])


def asked(told: Mapping[str, Any], dtype: str) -> str:
    """Return who was asked to race in how many cases of a dtype, in words."""
    peers = Counter(_asked(case, told) for case in told["cases"] if case["dtype"] == dtype)
    words = (f"{', '.join(names)} in {count}" for names, count in peers.most_common())
    return f"Cases by who was asked, be it without the operation: {'; '.join(words)}.\n"


def asked_in_all(told: Mapping[str, Any]) -> str:
    """Say in how many cases every peer was asked, unless it was in all of them."""
    count = sum(_asked(case, told) == tuple(told["peers"]) for case in told["cases"])
    if count == len(told["cases"]):
        return ""
    return (
        f" Every peer was asked in {count} of the {len(told['cases'])} cases, of two cells each;"
        " above each dtype stands who was in the others."
    )


def cycles(cell: Cell, told: Mapping[str, Any]) -> float | None:
    """Return the cycles of a core for a vector of the input; None where the clock is not known."""
    if not told.get("GHz"):
        return None
    lanes = VECTOR_BYTES[told["isa"]] / (8 if cell.dtype == "float64" else 4)
    return told["threads"] * told["GHz"] * lanes / cell.gelem


def binds(cell: Cell, counted: float | None, taken: float | None) -> str:
    """Return what binds a cell, in a word; none if that is not known."""
    if cell.seconds < A_CALL:
        return "calls"
    if cell.share is not None and cell.share >= BOUND:
        return "memory"
    if counted is None or taken is None:
        return ""
    return "instructions" if counted / PER_CYCLE >= BOUND * taken else "waits"


def verdict(cell: Cell, counted: float | None, taken: float | None) -> str:
    """Return whether a cell meets its target, or by how much and why it does not."""
    if cell.met is not False:
        return "met" if cell.met else "?"
    short = cell.target.short(cell.ratio, cell.share)
    told = "" if short is None else f" {short:.2f}"
    return f"missed{told} {binds(cell, counted, taken)}".rstrip()


def details(
    pairs: Mapping[Key, tuple[Cell, Cell]],
    dtype: str,
    told: Mapping[str, Any],
    counts: Mapping[Key, float],
) -> str:
    """Return the table of a dtype with a row for each cell of it."""

    def rows() -> Iterator[list[str]]:
        for (op, shape, _), (fresh, into) in pairs.items():
            if fresh.dtype != dtype:
                continue
            for cell in (fresh, into):
                counted, taken = counts.get(_counted((op, shape, dtype))), cycles(cell, told)
                small = Layout.parse(shape) == targets.ONE_CALL
                yield [
                    op,
                    shape,
                    "yes" if cell.out else "no",
                    f"{cell.seconds * 1e6:.2f} us" if small else f"{cell.gelem:.3g}",
                    f"{_ratio(cell)} {cell.fastest or ''}",
                    "-" if cell.share is None else f"{cell.share:.0%}",
                    "-" if counted is None or small else f"{counted:.1f}",
                    "-" if taken is None or small else f"{taken:.1f}",
                    report.asked(cell.target),
                    verdict(cell, counted, taken),
                ]

    headings = ("op", "shape", "out=", "Gelem/s", "fastest peer", "memory")
    return table([*headings, "instructions", "cycles", "target", ""], rows())


def missed(cells: Iterable[Cell], told: Mapping[str, Any], counts: Mapping[Key, float]) -> str:
    """Return the table of what binds the cells that miss their target."""
    short: dict[str, list[float]] = {}
    for cell in cells:
        lacks = cell.target.short(cell.ratio, cell.share) if cell.met is False else None
        if lacks is not None:
            counted = counts.get(_counted((cell.op, cell.shape, cell.dtype)))
            short.setdefault(binds(cell, counted, cycles(cell, told)), []).append(lacks)
    rows = (
        [word or "not told", f"{len(values)}", f"{median(values):.2f}", f"{max(values):.2f}"]
        for word, values in sorted(short.items(), key=lambda item: -len(item[1]))
    )
    return table(("bound by", "cells", "times as fast to meet: median", "most"), rows)


def means(cells: Iterable[Cell], isa: str) -> str:
    """Return the table of the geometric means over the shapes."""
    rows = []
    for (op, dtype), ratios in report.by_op_and_dtype(cells).items():
        target = targets.of_mean(OPS[op], dtype, isa)
        met = [cell.met for cell in cells if (cell.op, cell.dtype) == (op, dtype)]
        rows.append(
            [
                op,
                dtype,
                f"{targets.geometric_mean(ratios):.2f}",
                "-" if target is None else f"{target:.2f}",
                f"{min(ratios):.2f}",
                f"{sum(ratio >= 1 for ratio in ratios)} of {len(ratios)}",
                f"{met.count(True)} of {len(met)}",
            ]
        )
    headings = ("op", "dtype", "mean", "its target", "worst", "cells ahead", "targets met")
    return table(headings, rows)


def page(told: Mapping[str, Any], counts: Mapping[Key, float]) -> str:
    """Return the page."""
    cells = [cell for record in told["cases"] for cell in report.cells(record, told["isa"])]
    pairs = _pairs(cells)
    judged = [cell for cell in cells if cell.ratio is not None]
    ahead = sum(cell.ratio >= 1 for cell in judged if cell.ratio is not None)
    met = sum(cell.met is True for cell in cells)
    clock = f" at {told['GHz']:.1f} GHz" if told.get("GHz") else ""
    if told.get("processor"):
        clock += f" on {told['processor']}"
    peers = ", ".join(f"{name} {version}" for name, version in told["peers"].items())
    parts = [
        "# The race, cell by cell\n",
        "<!-- Written by `python -m benchmarks.page`; edit that. -->\n",
        f"klce {told['klce']['version']} with {told['isa']}, {told['threads']} threads{clock},"
        f" against {peers}, each with as many threads. `benchmarks/README.md` has the rules.\n",
        f"In {ahead} of {len(judged)} cells klce is ahead of all that raced, {met} meet their"
        f" target.{asked_in_all(told)}\n",
        *(f"{name} {words}.\n" for name, words in told["remarks"].items()),
        HOW_TO_READ,
        "## Means\n",
        means(cells, told["isa"]),
    ]
    parts += ["## Missed\n", missed(cells, told, counts)]
    for dtype in dict.fromkeys(cell.dtype for cell in cells):
        parts += [f"## {dtype}\n", asked(told, dtype), overview(pairs, dtype)]
    for dtype in dict.fromkeys(cell.dtype for cell in cells):
        parts += [f"## {dtype}, each cell\n", details(pairs, dtype, told, counts)]
    if told["lines"]:
        rows = (
            [
                line["part"],
                f"{line['subject']}: {line['unit']}",
                f"{line['value']:.2f}",
                f"{'at most' if line['at most'] else 'at least'} {line['bound']:g}",
                "met" if line["met"] else "missed",
            ]
            for line in told["lines"]
        )
        parts += ["## Beside the grid\n", table(("part", "what", "value", "bound", ""), rows)]
    return "\n".join(parts)


def main() -> None:
    """Write the page of the races that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.page",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("race", nargs="+", type=Path, help="JSON of benchmarks.race")
    parser.add_argument("--instructions", type=Path, help="JSON of benchmarks.instructions")
    options = parser.parse_args()
    told = merged([json.loads(path.read_text()) for path in options.race])
    report.exit_if_wrong(told)
    counts: dict[Key, float] = {}
    if options.instructions:
        counted = json.loads(options.instructions.read_text())
        if counted["isa"] != told["isa"]:
            parser.error(f"--instructions: counted with {counted['isa']}, raced with {told['isa']}")
        counts = {
            _counted((record["op"], record["shape"], record["dtype"])): record["per vector"]
            for record in counted["instructions"]
        }
    print(page(told, counts), end="")


if __name__ == "__main__":
    main()
