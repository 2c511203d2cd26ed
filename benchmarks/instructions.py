"""Instructions a vector: what a kernel executes, counted one by one.

A call runs in a child process step by step (ptrace), on some rows and on twice as many. What the
second call takes more is the rows' own, all of it: loads, arithmetic, stores, loops, and what each
row costs. Divided by the vectors that those rows are, it is the number to hold against the cycles
a vector that a race shows. Counts are for one thread, and the same however busy a machine is.

Linux alone has what this needs.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import itertools
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import klce
from benchmarks import environment, report
from benchmarks.cases import BASICS, DTYPES, OPS, Layout, forget, make_case
from benchmarks.peers.klce import Klce
from benchmarks.race import layout as layout_of
from benchmarks.targets import ONE_CALL

VECTOR_BYTES = {"baseline": 16, "avx2": 32, "avx512": 64}
LAYOUTS = tuple(map(Layout.parse, ("100000x3", "65536x10", "65536x32", "8192x1000", "64x128256")))
LONGEST = 32768  # classes of a row that is counted: longer ones go by such segments
TRIES = 2  # Python's own instructions vary a little: the least counts
MANY = 200_000  # instructions, among which that is nothing

_TRACEME, _SINGLESTEP = 0, 9  # of ptrace(2)


def executed(run: Callable[[], object]) -> int:
    """Return how many instructions a call executes, Python's own among them."""
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
    ptrace.restype = ctypes.c_long
    child = os.fork()
    if child == 0:
        gc.disable()
        if ptrace(_TRACEME, 0, None, None) == 0:
            os.kill(os.getpid(), signal.SIGUSR1)
            run()
            os.kill(os.getpid(), signal.SIGUSR1)
        os._exit(1)
    count = marks = 0
    while True:
        _, status = os.waitpid(child, 0)
        if not os.WIFSTOPPED(status):
            raise OSError("this system does not let a process be stepped through (ptrace)")
        marks += os.WSTOPSIG(status) == signal.SIGUSR1
        if marks == 2:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return count
        count += 1
        ptrace(_SINGLESTEP, child, None, None)


def least(run: Callable[[], object]) -> int:
    """Return the least of some counts of a call, unless it is long."""
    count = executed(run)
    return count if count > MANY else min(count, *(executed(run) for _ in range(TRIES - 1)))


def sample(layout: Layout, rows: int) -> Layout:
    """Return a layout like that one, of a few of its rows on one axis."""
    shape = [1] * len(layout.shape)
    shape[layout.axis] = min(layout.classes, LONGEST)
    shape[layout.longest_row_axis] = rows
    return Layout(tuple(shape), layout.axis)


def per_vector(name: str, layout: Layout, dtype: str, isa: str) -> float:
    """Return the instructions that an operation executes for a vector of its input, with ``out=``.

    A vector has as many elements as the instruction set computes at once: float16 and bfloat16 as
    many as float32.
    """
    if layout.axis != -1:
        rows = 64  # as many as are taken side by side
    else:
        rows = 32 if layout.classes <= 256 else 16 if layout.classes <= 2048 else 1
    counts = []
    for k in (1, 2):
        run = Klce(1).contestant(make_case(name, sample(layout, k * rows), dtype)).into
        assert run is not None
        for _ in range(16):  # Python has settled on how to run it
            run()
        counts.append(least(run))
        forget()
    lanes = VECTOR_BYTES[isa] // (8 if dtype == "float64" else 4)
    return (counts[1] - counts[0]) / (sample(layout, rows).elements / lanes)


def count(names: Sequence[str], layouts: Sequence[Layout], dtypes: Sequence[str]) -> dict[str, Any]:
    """Return a record of counts, in the order of dtype, layout and operation."""
    isa = klce.get_config()["isa"]
    records = [
        {
            "op": name,
            "shape": layout.name,
            "dtype": dtype,
            "per vector": per_vector(name, layout, dtype, isa),
        }
        for dtype, layout, name in itertools.product(dtypes, layouts, names)
        if layout != ONE_CALL  # which is Python's
    ]
    return {"isa": isa, "instructions": records}


def print_counts(told: Mapping[str, Any]) -> None:
    """Print a row for each operation and dtype, a column for each layout."""
    shapes = list(dict.fromkeys(record["shape"] for record in told["instructions"]))
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for record in told["instructions"]:
        rows.setdefault((record["op"], record["dtype"]), {})[record["shape"]] = record["per vector"]
    table = report.make_table(f"Instructions a vector ({told['isa']})", ("op", "dtype"), shapes)
    for (name, dtype), found in rows.items():
        table.add_row(name, dtype, *(f"{found[shape]:.1f}" for shape in shapes))
    report.console().print(table)


def main() -> None:
    """Count what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.instructions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--op", action="append", choices=OPS, help="only this; may be repeated")
    parser.add_argument("--shape", action="append", type=layout_of, metavar="SHAPE")
    parser.add_argument("--dtype", action="append", choices=DTYPES, help="default: float32")
    parser.add_argument("--isa", choices=environment.ISAS)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts here")
    options = parser.parse_args()
    environment.pin(1, options.isa)
    told = count(options.op or BASICS, options.shape or LAYOUTS, options.dtype or ("float32",))
    print_counts(told)
    if options.json:
        report.write(options.json, told)


if __name__ == "__main__":
    main()
