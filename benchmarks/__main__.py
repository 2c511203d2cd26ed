"""The small table, of float32 and three peers: ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import klce
from benchmarks import environment, report
from benchmarks.cases import BASICS, SHAPES
from benchmarks.race import add_options, load_peers, run_grid

RIVALS = ("numpy", "torch", "scipy")


def main() -> None:
    """Race the basic operations, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add_options(parser, rounds=15)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    options = parser.parse_args()
    environment.pin(options.threads, isa=None)
    klce.set_num_threads(options.threads)
    rivals, missing = load_peers(RIVALS, options.threads)
    told: dict[str, Any] = report.about(rivals, missing, options.threads, options.rounds)
    told["cases"] = []
    ops, shapes = options.op or BASICS, options.shape or SHAPES
    with report.console().status("") as status:
        for record in run_grid(
            ops, lambda _: shapes, ["float32"], rivals, options.threads, options.rounds
        ):
            told["cases"].append(record)
            status.update(report.progress(record))
    report.print_basics(told, RIVALS)
    report.print_about(told)
    if options.json:
        report.write(options.json, told)
    report.exit_if_wrong(told)


if __name__ == "__main__":
    main()
