"""The race: klce against its rivals in one process, turn by turn, and one table of the outcome.

Every contestant's result is checked against klce's before anything is timed. A turn is: a pause in
which the thread pools of the others stop spinning, one call untimed (it wakes the contestant's own
threads and leaves the caches as it leaves them), then as many timed calls as fill a few
milliseconds. The contestants take turns, in another order each round; a cell shows medians over
the rounds. Compare figures of one run only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

import klce
from benchmarks import limits
from benchmarks.cases import OPS, RIVALS, SHAPES, Case, make_cases, peer

PAUSE = 0.02  # seconds; OpenMP's workers spin for some milliseconds
TURN = 0.01  # seconds of timed calls in a turn
LIMIT = "read limit"


def _time(run: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


def race(case: Case, rounds: int, threads: int) -> dict[str, list[float]]:
    """Return the seconds per call of each contestant, and of the read limit, in each round."""
    runners: dict[str, Callable[[], object]] = dict(case.contestants)
    if read := limits.reader(case.floats, threads):
        runners[LIMIT] = read
    for run in runners.values():
        run()
    calls = {name: max(1, round(TURN / _time(run, 1))) for name, run in runners.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    order = list(runners)
    shuffle = random.Random(0).shuffle
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            time.sleep(PAUSE)
            runners[name]()
            seconds[name].append(_time(runners[name], calls[name]))
    if LIMIT in seconds:
        seconds[LIMIT] = [value / limits.TIMES for value in seconds[LIMIT]]
    return seconds


def _ratio(value: float | None) -> Text:
    if value is None:
        return Text("-", style="dim")
    return Text(f"{value:.2f}x", style="bold red" if value < 1 else "green")


def _row(case: Case, seconds: dict[str, list[float]]) -> list[Text | str]:
    rows, classes = case.shape
    middle = {name: median(values) for name, values in seconds.items()}
    own = middle["klce"]
    ratios = [_ratio(middle[name] / own if name in middle else None) for name in RIVALS]
    limit = f"{middle[LIMIT] / own:.0%}" if LIMIT in middle else "-"
    return [case.op, f"{rows}x{classes}", f"{rows * classes / own / 1e9:.2f}", *ratios, limit]


def _shape(text: str) -> tuple[int, int]:
    rows, classes = text.split("x")
    return int(rows), int(classes)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--threads", type=int, default=2, help="for each contestant (default 2)")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each (default 15)")
    parser.add_argument("--op", action="append", choices=OPS, help="only this; may be repeated")
    parser.add_argument(
        "--shape", action="append", type=_shape, metavar="ROWSxCLASSES", help="instead of the three"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw seconds here")
    return parser.parse_args()


def main() -> None:
    """Run the race that the command line asks for."""
    options = _parse()
    console = Console()
    config = klce.get_config()
    versions = {name: module.__version__ for name in RIVALS if (module := peer(name))}
    table = Table(
        title=f"klce {klce.__version__} ({config['isa']}), float32, {options.threads} threads each",
        caption="Gelem/s: classes x rows of one input, per second of klce. /rival: its time over"
        " klce's (below 1, in red, klce is slower). /read: the time of reading the input once over"
        " klce's (a softmax also writes).",
        box=box.SIMPLE,
    )
    for heading in ("op", "shape"):
        table.add_column(heading, no_wrap=True)
    for heading in ("Gelem/s", *(f"/{name}" for name in RIVALS), "/read"):
        table.add_column(heading, justify="right", no_wrap=True)

    records: list[dict[str, Any]] = []
    cases = make_cases(
        tuple(options.op or OPS), tuple(options.shape or SHAPES), threads=options.threads
    )
    with console.status("") as status:
        for case in cases:
            status.update(f"{case.name}: checking results")
            case.check()
            status.update(f"{case.name}: timing")
            seconds = race(case, options.rounds, options.threads)
            if records and records[-1]["shape"] != case.shape:
                table.add_section()
            table.add_row(*_row(case, seconds))
            records.append({"op": case.op, "shape": case.shape, "seconds": seconds})

    console.print(table)
    console.print("rivals:", ", ".join(f"{name} {version}" for name, version in versions.items()))
    for name in RIVALS:
        if name not in versions:
            console.print(f"[bold]{name} is not installed[/]: its column is empty")
    if LIMIT not in records[0]["seconds"]:
        console.print(f"[bold]no C compiler[/]: the {LIMIT} was not measured")
    if options.json:
        report = {
            "klce": {key: str(value) for key, value in config.items()},
            "rivals": versions,
            "machine": platform.machine(),
            "python": platform.python_version(),
            "cpus": os.cpu_count(),
            "numpy": np.__version__,
            "threads": options.threads,
            "cases": records,
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n")
