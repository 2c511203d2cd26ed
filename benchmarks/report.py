"""What is shown and what is kept: cells with their verdicts, tables, a plot, JSON."""

from __future__ import annotations

import importlib
import json
import os
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

import klce
from benchmarks import environment, limits, targets
from benchmarks.cases import OPS, Layout

KLCE = "klce"


def console() -> Console:
    """Return where tables go; a file is as wide as they need."""
    found = Console()
    return found if found.is_terminal else Console(width=200)


@dataclass(frozen=True)
class Cell:
    """A case with or without ``out=``, and what came of it."""

    op: str
    shape: str
    dtype: str
    out: bool
    seconds: float  # klce's, the median of the rounds
    gelem: float  # 1e9 elements of one input per second
    ratios: dict[str, float]  # each peer's time over klce's
    differs: tuple[str, ...]  # peers whose result is another one: no rivals
    fastest: str | None  # the peer that the target is about
    ratio: float | None  # its ratio
    share: float | None  # the limit's best time over klce's
    target: targets.Target
    met: bool | None  # None: what decides was not measured


def cells(record: Mapping[str, Any], isa: str) -> Iterator[Cell]:
    """Yield the two cells of a case's record; none if klce has no time."""
    own = record["seconds"].get(KLCE)
    if own is None:
        return
    op, layout = OPS[record["op"]], Layout.parse(record["shape"])
    target = targets.of_cell(op, layout, record["dtype"], isa)
    differs = tuple(record["differs"])
    limit = limits.best(record["limits"]) if record["limits"] else None
    for out in (False, True):
        way = "into" if out else "fresh"
        seconds = median(own[way])
        ratios = {
            # Who cannot write into an array returns a new one in both cells.
            name: median(ways.get(way, ways["fresh"])) / seconds
            for name, ways in record["seconds"].items()
            if name != KLCE
        }
        rivals = {name: ratio for name, ratio in ratios.items() if name not in differs}
        if target.against is not None:
            rivals = {k: v for k, v in rivals.items() if k == target.against}
        fastest = min(rivals, key=rivals.__getitem__, default=None)
        ratio = None if fastest is None else rivals[fastest]
        share = None if limit is None else limit / seconds
        yield Cell(
            record["op"],
            record["shape"],
            record["dtype"],
            out,
            seconds,
            layout.elements / seconds / 1e9,
            ratios,
            differs,
            fastest,
            ratio,
            share,
            target,
            target.met(ratio, share),
        )


def about(
    rivals: Mapping[str, Any], missing: Mapping[str, str], threads: int, rounds: int
) -> dict[str, Any]:
    """Return what a reader of the figures has to know."""
    return {
        "klce": {key: str(value) for key, value in klce.get_config().items()},
        "commit": environment.commit(),
        "isa": klce.get_config()["isa"],
        "peers": {name: peer.version for name, peer in rivals.items()},
        "remarks": {name: peer.remark for name, peer in rivals.items() if peer.remark},
        "missing": dict(missing),
        "machine": platform.machine(),
        "processor": environment.processor(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "numpy": np.__version__,
        "threads": threads,
        "rounds": rounds,
        "limits": limits.available(),
        "GHz": limits.clock(threads),
    }


def write(path: Path, told: Mapping[str, Any]) -> None:
    """Write JSON, with the cells derived from the records; whole at any moment."""
    if "cases" in told:
        derived = [asdict(cell) for record in told["cases"] for cell in cells(record, told["isa"])]
        told = {**told, "cells": derived}
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(told, indent=1) + "\n")
    part.replace(path)


def progress(record: Mapping[str, Any]) -> str:
    """Return a line about a case that is done."""
    return "done: {op} {shape} {dtype}".format(**record)


def _ratio(value: float | None, least: float = 1.0) -> Text:
    if value is None:
        return Text("-", style="dim")
    return Text(f"{value:.2f}x", style="bold red" if value < least else "green")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def make_table(title: str, left: Sequence[str], right: Sequence[str], caption: str = "") -> Table:
    table = Table(title=title, caption=caption, box=box.SIMPLE)
    for heading in left:
        table.add_column(heading, no_wrap=True)
    for heading in right:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _title(told: Mapping[str, Any]) -> str:
    version = told["klce"]["version"]
    return f"klce {version} ({told['isa']}), {told['threads']} threads each"


def print_basics(told: Mapping[str, Any], rivals: Sequence[str]) -> None:
    """Print the small table: klce against a few, with ``out=`` where they can."""
    table = make_table(
        f"{_title(told)}, float32",
        ("op", "shape"),
        ("Gelem/s", *(f"/{name}" for name in rivals), "/read"),
        "Gelem/s: classes x rows of one input, per second of klce. /rival: its time over"
        " klce's (below 1, in red, klce is slower), in brackets if its result differs. /read: the"
        " time of reading the input once over klce's (a softmax also writes).",
    )
    before = None
    for record in told["cases"]:
        if before not in (None, record["shape"]):
            table.add_section()
        before = record["shape"]
        read = record["limits"].get(limits.READ)
        for cell in cells(record, told["isa"]):
            if cell.out:
                table.add_row(
                    cell.op,
                    cell.shape,
                    f"{cell.gelem:.2f}",
                    *(_peer(cell, name) for name in rivals),
                    _percent(min(read) / cell.seconds if read else None),
                )
    to = console()
    to.print(table)
    _print_absences(told["cases"], to)


def print_race(told: Mapping[str, Any]) -> None:
    """Print the grid, cell by cell, then the means, then what is missing."""
    everything = [cell for record in told["cases"] for cell in cells(record, told["isa"])]
    names = [name for name in told["peers"] if any(name in cell.ratios for cell in everything)]
    table = make_table(
        _title(told),
        ("op", "shape", "dtype", "out="),
        ("Gelem/s", *(f"/{name}" for name in names), "/fastest", "target", "limit", "met"),
        "/peer: its time over klce's; in brackets if its result differs, then it is no rival."
        " /fastest: that of the fastest. limit: the time that memory needs at least, over klce's."
        " met: by the ratio or by the share of the limit, and by what is asked of the share.",
    )
    before: tuple[str, str] | None = None
    for cell in everything:
        if before not in (None, (cell.shape, cell.dtype)):
            table.add_section()
        before = (cell.shape, cell.dtype)
        table.add_row(
            cell.op,
            cell.shape,
            cell.dtype,
            "yes" if cell.out else "no",
            f"{cell.gelem:.3g}",
            *(_peer(cell, name) for name in names),
            _ratio(cell.ratio, cell.target.ratio),
            asked(cell.target),
            _percent(cell.share),
            _verdict(cell.met),
        )
    to = console()
    to.print(table)
    _print_means(everything, told["isa"], to)
    count = sum(cell.met is True for cell in everything)
    open_ones = sum(cell.met is None for cell in everything)
    to.print(
        f"{count} of {len(everything)} cells meet their target"
        + (f"; {open_ones} lack a peer or a limit to be judged by" if open_ones else "")
    )
    _print_absences(told["cases"], to)


def _print_absences(cases: Iterable[Mapping[str, Any]], to: Console) -> None:
    """Print who has no time in which cells and why, alike ones together."""
    groups: dict[tuple[str, str], dict[str, list[str]]] = {}
    for record in cases:
        where = f"{record['shape']} {record['dtype']}"
        for name, reason in record["lacks"].items():
            groups.setdefault((name, reason), {}).setdefault(where, []).append(record["op"])
        for name, off in record["differs"].items():
            reason = "differs from klce beyond its tolerance, so it is no rival"
            what = f"{record['op']} ({off:.2g} times)"
            groups.setdefault((name, reason), {}).setdefault(where, []).append(what)
    for (name, reason), places in sorted(groups.items()):
        alike: dict[str, list[str]] = {}
        for where, ops in places.items():
            alike.setdefault(", ".join(ops), []).append(where)
        where = "; ".join(f"{ops} at {', '.join(found)}" for ops, found in alike.items())
        to.print(f"[bold]{name}[/]: {reason}: {where}", highlight=False)


def _peer(cell: Cell, name: str) -> Text:
    if name in cell.differs:
        return Text(f"({cell.ratios[name]:.2f}x)", style="dim")
    return _ratio(cell.ratios.get(name))


def asked(target: targets.Target) -> str:
    """Return what a target asks, in words."""
    text = f"{target.ratio:.2f}x"
    if target.enough_share is not None:
        text += f" or {target.enough_share:.0%}"
    if target.share is not None:
        text += f", and {target.share:.0%}"
    return text


def _verdict(met: bool | None) -> Text:
    if met is None:
        return Text("?", style="bold")
    return Text("yes", style="green") if met else Text("NO", style="bold red")


def by_op_and_dtype(everything: Iterable[Cell]) -> dict[tuple[str, str], list[float]]:
    """Return the ratios that means are of: not those of a single call's cost."""
    groups: dict[tuple[str, str], list[float]] = {}
    for cell in everything:
        if cell.ratio is not None and Layout.parse(cell.shape) != targets.ONE_CALL:
            groups.setdefault((cell.op, cell.dtype), []).append(cell.ratio)
    return groups


def _print_means(everything: Iterable[Cell], isa: str, to: Console) -> None:
    table = make_table(
        "Geometric means of the ratio to the fastest peer",
        ("op", "dtype"),
        ("cells", "mean", "target", "met"),
    )
    for (op, dtype), ratios in by_op_and_dtype(everything).items():
        mean, target = targets.geometric_mean(ratios), targets.of_mean(OPS[op], dtype, isa)
        asked = "-" if target is None else f"{target:.2f}x"
        verdict = Text("-") if target is None else _verdict(mean >= target)
        table.add_row(op, dtype, str(len(ratios)), f"{mean:.2f}x", asked, verdict)
    to.print(table)


def print_rows(told: Mapping[str, Any]) -> None:
    """Print what is asked of rows, and how near to a read of them it is answered."""
    table = make_table(
        _title(told),
        ("op", "shape", "dtype"),
        ("Gelem/s", "GB/s", "read, GB/s", "limit", "target", "met"),
        "GB/s: of all operands. read: that of reading them once. limit: its time over klce's."
        " target: out of cache alone.",
    )
    before = None
    for record in told["rows"]:
        if before not in (None, (record["shape"], record["dtype"])):
            table.add_section()
        before = (record["shape"], record["dtype"])
        if record["wrong"]:
            continue
        read = limits.best(record["limits"]) if record["limits"] else None
        target = record["target"]
        table.add_row(
            record["op"],
            record["shape"],
            record["dtype"],
            f"{record['gelem']:.3g}",
            f"{record['bytes'] / median(record['seconds']) / 1e9:.1f}",
            "-" if read is None else f"{record['bytes'] / read / 1e9:.1f}",
            _percent(record["share"]),
            _percent(target),
            Text("-") if target is None else _verdict(record["met"]),
        )
    to = console()
    to.print(table)
    asked = [record for record in told["rows"] if record["target"] is not None]
    met = sum(record["met"] is True for record in asked)
    if asked:
        to.print(f"{met} of {len(asked)} that are out of cache meet their target")


def print_files(told: Mapping[str, Any]) -> None:
    """Print what each process took, for the rows that it had and for all of them."""
    file = told["file"]
    table = make_table(
        f"{_title(told)}: {file['rows']} rows of {file['classes']} classes, {file['dtype']},"
        f" {file['bytes'] / 1e9:.3g} GB",
        ("process",),
        ("rows", "s", "s for all", "GB/s", "klce", "mean NLL"),
        "s: the whole process, the median. s for all: start and end as they are, the rows' time by"
        " their number. klce: that time over klce's. mean NLL: of its rows.",
    )
    own = next(record["whole"] for record in told["programs"] if record["name"] == KLCE)
    for record in told["programs"]:
        nll = record["mean_nll_nats"]
        table.add_row(
            record["name"],
            str(record["rows"]),
            f"{median(record['seconds']):.2f}",
            f"{record['whole']:.2f}",
            f"{file['bytes'] / record['whole'] / 1e9:.2f}",
            f"{record['whole'] / own:.2f}x",
            "-" if nll is None else f"{nll:.6f}",
        )
    to = console()
    to.print(table)
    for name, off in told["differs"].items():
        to.print(f"[bold]{name}[/]: its mean NLL differs by {off:.2g}, so it is no rival")
    if told["peak"] is None:
        to.print("[bold]memory[/]: this system does not tell what a process has beyond maps")


def print_lines(lines: Iterable[Mapping[str, Any]], title: str = "Beside the grid") -> None:
    """Print the single questions and their answers."""
    table = make_table(
        title, ("part", "what"), ("value", "bound", "met"), "value: see what it is of"
    )
    for line in lines:
        bound = f"{'at most' if line['at most'] else 'at least'} {line['bound']:g}"
        what = f"{line['subject']}: {line['unit']}"
        if line.get("same bits") is False:
            what += ", with OTHER BITS"
        if "share" in line:
            what += f", {line['share']:.0%} of the limit"
        if len(line.get("cliffs", ())) > 1:
            what += f"; {len(line['cliffs'])} such steps"
        if line.get("does not fit into memory"):
            what += f"; no memory for {', '.join(map(str, line['does not fit into memory']))}"
        table.add_row(line["part"], what, f"{line['value']:.2f}", bound, _verdict(line["met"]))
    console().print(table)


def print_about(told: Mapping[str, Any]) -> None:
    """Print who took part, and who did not and why."""
    to = console()
    if told["processor"]:
        to.print(f"on {told['processor']}")
    if told["peers"]:
        to.print(
            "peers:", ", ".join(f"{name} {version}" for name, version in told["peers"].items())
        )
    for name, remark in told["remarks"].items():
        to.print(f"{name}: {remark}")
    for name, reason in told["missing"].items():
        to.print(f"[bold]{name}[/] took no part: {reason}")
    if not told["limits"]:
        to.print("[bold]no C compiler[/]: the limits of memory were not measured")


def exit_if_wrong(told: Mapping[str, Any]) -> None:
    """End the process with an error if any of klce's results was wrong."""
    wrong = [record["wrong"] for record in told["cases"] if record["wrong"]]
    if wrong:
        raise SystemExit("\n".join(wrong))


def print_limits(records: Sequence[Mapping[str, Any]]) -> None:
    """Print the limits: a row for each size and kind, a column for each number of threads."""
    counts = sorted({record["threads"] for record in records})
    table = make_table(
        "Limits of memory, GB/s of the array that is read",
        ("limit", "MB"),
        [f"{count} thread{'s' * (count > 1)}" for count in counts],
        "copy writes as many bytes as it reads. Divide by the bytes of an element for Gelem/s.",
    )
    speeds = {(r["bytes"], r["limit"], r["threads"]): r["GB/s"] for r in records}
    for size, name in dict.fromkeys((r["bytes"], r["limit"]) for r in records):
        row = [f"{speeds[size, name, count]:.1f}" for count in counts]
        table.add_row(str(name), f"{size / 1e6:.1f}", *row)
    console().print(table)


def plot_classes(lines: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Draw the sweep over class counts, a curve for each operation and dtype."""
    sweeps = [line for line in lines if line["part"] == "classes"]
    if not sweeps:
        raise SystemExit(f"--plot {path}: the part `classes`, which is drawn, was not measured")
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    figure, axes = importlib.import_module("matplotlib.pyplot").subplots(figsize=(10, 6))
    for line in sweeps:
        counts = [int(count) for count in line["ns per element"]]
        axes.plot(counts, list(line["ns per element"].values()), lw=0.8, label=line["subject"])
    axes.set(xscale="log", yscale="log", xlabel="classes", ylabel="ns per element")
    axes.legend()
    axes.grid(visible=True, which="both", alpha=0.3)
    figure.savefig(path)
