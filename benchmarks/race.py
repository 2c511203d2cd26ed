"""The race: klce against every peer, turn by turn in one process, in every cell of a grid.

A cell is an operation on a layout in a dtype, with and without ``out=``. Results are checked first:
klce's against its specification, every peer's against klce's. The memory limits are measured in
the same turns. Beside the grid there are lines of single questions (``lines.py``). All of it goes
into a JSON file, cell by cell as it is measured, and into tables.

Compare figures of one run only.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import klce
from benchmarks import environment, limits, lines, peers, report
from benchmarks.cases import (
    DTYPES,
    OPS,
    TOLERANCES,
    Case,
    Layout,
    WrongError,
    check_klce,
    difference,
    forget,
    grid,
    make_cases,
)
from benchmarks.peers import Contestant, LacksError, Peer
from benchmarks.peers.klce import Klce
from benchmarks.turns import Runner, take_turns

PARTS = ("grid", *lines.PARTS)


def load_peers(names: Sequence[str], threads: int) -> tuple[dict[str, Peer], dict[str, str]]:
    """Return the peers that are installed, set up, and why the others are not here."""
    present: dict[str, Peer] = {}
    missing: dict[str, str] = {}
    for name in names:
        try:
            present[name] = peers.load(name, threads)
        except ImportError as error:
            missing[name] = f"not installed ({error})"
    return present, missing


def _contestants(
    case: Case, rivals: Mapping[str, Peer], record: dict[str, Any]
) -> dict[str, Contestant]:
    """Return klce and the rivals that have the case, and write down why others do not run."""
    own = Klce(klce.get_num_threads()).contestant(case)
    check_klce(case)
    expected = own.value(own.fresh())
    found = {Klce.name: own}
    for name, peer in rivals.items():
        try:
            contestant = peer.contestant(case)
            off = 0.0
            for run in contestant.ways().values():
                # Who writes nothing must not find the right result in memory that was freed.
                np.full_like(expected, np.nan)
                result = contestant.value(run())
                off = max(off, difference(result, expected, TOLERANCES[case.dtype], case.spacing))
        except LacksError as error:
            record["lacks"][name] = str(error)
        except Exception as error:  # whatever a peer raises is its own affair, and is told
            record["lacks"][name] = f"fails: {type(error).__name__}: {str(error)[:160]}"
        else:
            found[name] = contestant
            if off > 1:
                record["differs"][name] = off
    return found


def contest(case: Case, rivals: Mapping[str, Peer], threads: int, rounds: int) -> dict[str, Any]:
    """Return the record of a case: the seconds of every contestant and limit in each round."""
    record: dict[str, Any] = {
        "op": case.name,
        "shape": case.layout.name,
        "dtype": case.dtype,
        "seconds": {},  # by contestant and way
        "limits": {},
        "lacks": {},  # who has no such thing, in words
        "differs": {},  # whose result is another one, in tolerances
        "wrong": None,  # or how klce's own result is
    }
    try:
        contestants = _contestants(case, rivals, record)
    except WrongError as error:
        record["wrong"] = str(error)
        return record
    runners = {
        f"{name} {way}": Runner(run, spins=rivals[name].spins if name in rivals else 0.0)
        for name, contestant in contestants.items()
        for way, run in contestant.ways().items()
    }
    own = {f"{Klce.name} {way}" for way in contestants[Klce.name].ways()}
    bounds = limits.runners(case.floats, threads, copies=case.op.result == "map")
    seconds = take_turns(runners | bounds, rounds, rivals=runners.keys() - own)
    for name, contestant in contestants.items():
        record["seconds"][name] = {way: seconds[f"{name} {way}"] for way in contestant.ways()}
    record["limits"] = {name: seconds[name] for name in bounds}
    return record


def run_grid(
    names: Sequence[str],
    layouts: Callable[[str], Sequence[Layout]],
    dtypes: Sequence[str],
    rivals: Mapping[str, Peer],
    threads: int,
    rounds: int,
) -> Iterator[dict[str, Any]]:
    """Yield the record of each case of a grid; `layouts` gives those of a dtype."""
    for dtype in dtypes:
        for case in make_cases(names, layouts(dtype), [dtype]):
            yield contest(case, rivals, threads, rounds)


def layout(text: str) -> Layout:
    """Read a layout from the command line."""
    try:
        return Layout.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_options(parser: argparse.ArgumentParser, rounds: int) -> None:
    """Add the options that both commands have."""
    environment.add_counts(parser, rounds, "for each contestant")
    parser.add_argument("--op", action="append", choices=OPS, help="only this; may be repeated")
    parser.add_argument(
        "--shape",
        action="append",
        type=layout,
        metavar="SHAPE",
        help="instead of the usual ones: 8192x1000, or 64x1000x128@1 for classes on axis 1",
    )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.race",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "part", nargs="*", help=f"what to measure (default: all): {', '.join(PARTS)}"
    )
    add_options(parser, rounds=7)
    parser.add_argument("--dtype", action="append", choices=DTYPES)
    parser.add_argument("--peer", action="append", choices=peers.NAMES)
    parser.add_argument(
        "--isa", choices=environment.ISAS, help="hold klce to it, and the peers that can be"
    )
    parser.add_argument("--json", type=Path, default=Path("race.json"), metavar="FILE")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw the sweep over class counts (matplotlib)"
    )
    options = parser.parse_args()
    if unknown := set(options.part) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    return options


def main() -> None:
    """Run what the command line asks for."""
    options = _parse()
    environment.pin(options.threads, options.isa)
    wanted = options.part or PARTS
    klce.set_num_threads(options.threads)
    rivals, missing = load_peers(options.peer or peers.NAMES, options.threads)
    told: dict[str, Any] = report.about(rivals, missing, options.threads, options.rounds)
    told |= {"isa asked for": options.isa, "cases": [], "lines": []}
    console = report.console()
    with console.status("") as status:
        if "grid" in wanted:
            layouts = (lambda _: options.shape) if options.shape else grid
            dtypes, names = options.dtype or DTYPES, options.op or tuple(OPS)
            for record in run_grid(names, layouts, dtypes, rivals, options.threads, options.rounds):
                told["cases"].append(record)
                report.write(options.json, told)
                status.update(report.progress(record))
        for name, line in lines.PARTS.items():
            if name in wanted:
                status.update(f"{name} ...")
                setting = lines.Setting(
                    rivals, options.threads, options.rounds, options.op, options.dtype
                )
                found = line(setting)
                if not found:
                    console.print(f"{name}: measures none of {', '.join(setting.ops or ())}")
                told["lines"].extend(found)
                report.write(options.json, told)
                forget()
    if told["cases"]:
        report.print_race(told)
    if told["lines"]:
        report.print_lines(told["lines"])
    report.print_about(told)
    if options.plot:
        report.plot_classes(told["lines"], options.plot)
    console.print(f"all figures: {os.fspath(options.json)}")
    report.exit_if_wrong(told)


if __name__ == "__main__":
    main()
