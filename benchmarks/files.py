"""Whole files: ``klce score`` against a plain read of the file, and against scripts that score it.

A float16 file of random logits, with targets, is written to the system's temporary folder (TMPDIR
chooses another), so that it is in the page cache.  Then whole processes take turns: a plain read of
it, by Python and by cat, of which the faster counts; ``klce score FILE TARGETS --json``; and the
scripts in ``scripts/``, which do with torch and with NumPy what its summary has.  A script that
would take longer than ten seconds gets fewer rows; the time for all is that of its start and end,
and that of its rows times as many as there are more.

The file goes when the command ends, by Ctrl-C too.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.metadata
import json
import math
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import klce
from benchmarks import environment, report, targets
from benchmarks.lines import Line, free_memory, make_line
from benchmarks.turns import Runner, take_turns
from klce import reference

CLASSES = 128256
SCRIPTS = ("torch", "numpy")
READ, CAT = "read", "cat"
LONGEST = 10.0  # seconds that a script may take for its rows
FIRST_ROWS = 64  # with which that is found out
PIECE = 1 << 23  # elements that are made, or scored here, at once
TOLERANCE = 1e-5  # of a mean NLL, relative: those of float32
MEAN_NLL = "mean_nll_nats"


@dataclass(frozen=True)
class Program:
    """A process that goes over the file, or over some of its rows."""

    command: tuple[str, ...]
    rows: int
    told: bool = True  # whether it prints JSON


@dataclass(frozen=True)
class Script:
    """A script that competes, as a peer does in the race."""

    version: str
    remark: str = ""


def write_files(folder: Path, rows: int, classes: int) -> tuple[Path, Path]:
    """Write logits at scale 3 and targets, piece by piece, until they are on the disk."""
    logits, labels = folder / "logits.npy", folder / "targets.npy"
    generator = np.random.default_rng(0)
    step = max(1, PIECE // classes)
    header = {"descr": "<f2", "fortran_order": False, "shape": (rows, classes)}
    with logits.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, rows, step):
            piece = generator.standard_normal((min(step, rows - start), classes), np.float32)
            piece *= 3
            file.write(piece.astype("<f2").data)
        file.flush()
        os.fsync(file.fileno())  # else it is being written while others are timed
    np.save(labels, generator.integers(0, classes, rows))
    return logits, labels


def programs(logits: Path, labels: Path, rows: int) -> dict[str, Program]:
    """Return the plain reads and klce's command."""
    cat = shutil.which("cat")
    bare = (sys.executable, "-I", "-S", os.fspath(_script("read")), os.fspath(logits))
    scored = ("score", os.fspath(logits), os.fspath(labels), "--json")
    return (
        {READ: Program(bare, rows, told=False)}
        | ({CAT: Program((cat, os.fspath(logits)), rows, told=False)} if cat else {})
        | {report.KLCE: Program((sys.executable, "-m", "klce", *scored), rows)}
    )


def script(name: str, logits: Path, labels: Path, rows: int) -> Program:
    """Return a script that scores the first rows."""
    place = os.fspath(_script(f"with_{name}"))
    arguments = (os.fspath(logits), os.fspath(labels), str(rows))
    return Program((sys.executable, place, *arguments), rows)


def _script(name: str) -> Path:
    return Path(__file__).parent / "scripts" / f"{name}.py"


def variables(threads: int, folder: Path) -> dict[str, str]:
    """Return the environment of all processes, which keep compiled modules in the folder.

    As all that is installed has them: a tree of sources may not.
    """
    compiled = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": os.fspath(folder)}
    wanted = environment.variables(threads, None) | {"KLCE_NUM_THREADS": str(threads)}
    return dict(os.environ) | compiled | wanted


def run(program: Program, env: Mapping[str, str]) -> dict[str, Any]:
    """Run a program to its end, and return what it prints."""
    done = subprocess.run(
        program.command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if program.told else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    try:
        done.check_returncode()
    except subprocess.CalledProcessError as error:
        error.add_note(done.stderr.decode(errors="replace"))
        raise
    return json.loads(done.stdout) if program.told else {}


def present_scripts(names: Sequence[str]) -> tuple[dict[str, Script], dict[str, str]]:
    """Return the scripts whose library is installed, and why the others are not here."""
    present: dict[str, Script] = {}
    missing: dict[str, str] = {}
    for name in names:
        try:
            remark = "" if name == "torch" else "one thread: NumPy has no others"
            present[name] = Script(importlib.metadata.version(name), remark)
        except importlib.metadata.PackageNotFoundError:
            missing[name] = "not installed"
    return present, missing


def rows_within(seconds_per_row: float, rows: int) -> int:
    """Return how many rows a script is given."""
    return max(1, min(rows, int(LONGEST / seconds_per_row)))


def whole(seconds: float, within: float, share: float) -> float:
    """Return the time for all rows of what took so long for a share of them, within its loop."""
    return seconds + within * (1 / share - 1)


def peak_memory(program: Program, env: Mapping[str, str]) -> int | None:
    """Return the bytes beyond the maps of files that a process ever has; None where none can tell.

    It is looked at every two milliseconds.
    """
    most = None
    with subprocess.Popen(program.command, env=env, stdout=subprocess.DEVNULL) as process:
        try:
            while process.poll() is None:
                with contextlib.suppress(OSError):
                    status = Path(f"/proc/{process.pid}/status").read_text()
                    for found in re.findall(r"^RssAnon:\s+(\d+) kB$", status, re.MULTILINE):
                        most = max(most or 0, int(found) * 1024)
                time.sleep(0.002)
        finally:
            process.kill()
    return most


def mean_nll(logits: Path, labels: Path) -> Callable[[int], float]:
    """Return what tells klce's mean NLL of the first rows, from arrays; checked on some of them."""
    x, y = np.load(logits, mmap_mode="r"), np.load(labels)
    step = max(1, PIECE // x.shape[1])
    nll = np.concatenate(
        [
            klce.score(x[start : start + step], y[start : start + step], want=["nll"]).nll
            for start in range(0, len(x), step)
        ]
    ).astype(np.float64)
    few = slice(min(len(x), 8))
    expected = reference.score(x[few].astype(np.float64), y[few], want=["nll"])["nll"]
    if not np.allclose(nll[few], expected, rtol=TOLERANCE, atol=0):
        raise SystemExit("klce.score: the NLL is not what its specification says")
    return lambda rows: math.fsum(nll[:rows]) / rows


def _with_scripts(
    present: dict[str, Script],
    missing: dict[str, str],
    files: tuple[Path, Path],
    rows: int,
    env: Mapping[str, str],
) -> Iterator[tuple[str, Program]]:
    """Yield the scripts with their rows; one that fails is moved from those present to missing."""
    for name in tuple(present):
        few = min(rows, FIRST_ROWS)
        try:
            taken = run(script(name, *files, few), env)["seconds"] / few
        except subprocess.CalledProcessError as error:
            last = error.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            missing[name] = f"fails: {last[:160]}"
            del present[name]
        else:
            yield name, script(name, *files, rows_within(taken, rows))


def contest(
    everyone: Mapping[str, Program], rows: int, size: int, rounds: int, env: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return a record of each program: its seconds in each round, and what they make for all rows.

    ``from disk`` is the most that one of its processes had to read there, as a share of the file;
    the first, for which even Python may come from there, does not count.
    """
    printed: dict[str, list[dict[str, Any]]] = {name: [] for name in everyone}
    blocks: dict[str, list[int]] = {name: [] for name in everyone}

    def turn(name: str) -> None:
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_inblock
        printed[name].append(run(everyone[name], env))
        after = resource.getrusage(resource.RUSAGE_CHILDREN).ru_inblock
        blocks[name].append(after - before)

    runners = {name: Runner(functools.partial(turn, name)) for name in everyone}
    turn(READ)  # what was not in the page cache is, from now on
    seconds = take_turns(runners, rounds)
    records = []
    for name, program in everyone.items():
        share = program.rows / rows
        within = median(told.get("seconds", 0.0) for told in printed[name])
        records.append(
            {
                "name": name,
                "rows": program.rows,
                "seconds": seconds[name],
                "within": within,
                "whole": whole(median(seconds[name]), within, share),
                "from disk": max(blocks[name][1:]) * 512 / size,
                MEAN_NLL: printed[name][-1].get(MEAN_NLL),
            }
        )
    return records


def verdicts(told: Mapping[str, Any]) -> list[Line]:
    """Return the lines with their targets; rivals whose NLL differs have none."""
    found = {record["name"]: record for record in told["programs"]}
    own = found[report.KLCE]["whole"]
    read = min((record for name, record in found.items() if name in (READ, CAT)), key=_whole)
    unit = f"of the speed of a plain read ({read['name']})"
    lines = [make_line("files", "klce score", _whole(read) / own, unit, targets.FILE_SHARE, False)]
    for name, bound in targets.FILE_RATIOS.items():
        if name in found and name not in told["differs"]:
            unit, ratio = "its time over klce's", _whole(found[name]) / own
            lines.append(make_line("files", f"{name} script", ratio, unit, bound, False))
    if told["peak"] is not None:
        unit = "MiB beyond the map of the file, at most"
        value = told["peak"] / 2**20
        lines.append(make_line("files", "klce score", value, unit, targets.FILE_MIB, True))
    disk = max(record["from disk"] for record in told["programs"])
    unit = "of the file read from the disk in spite of the page cache"
    lines.append(make_line("files", "any of them", disk, unit, targets.FROM_DISK, True))
    return lines


def _whole(record: Mapping[str, Any]) -> float:
    seconds: float = record["whole"]
    return seconds


def measure(
    folder: Path,
    rows: int,
    classes: int,
    options: argparse.Namespace,
    step: Callable[[str], object],
) -> dict[str, Any]:
    """Return all figures of a file of so many rows, written to a folder."""
    env = variables(options.threads, folder)
    present, missing = present_scripts(options.peer or SCRIPTS)
    step("writing the file ...")
    files = write_files(folder, rows, classes)
    size = files[0].stat().st_size
    step("checking ...")
    expected = mean_nll(*files)
    everyone = programs(*files, rows)
    everyone |= dict(_with_scripts(present, missing, files, rows, env))
    if CAT not in everyone:
        missing[CAT] = "not installed"
    told: dict[str, Any] = report.about(present, missing, options.threads, options.rounds)
    told["file"] = {"rows": rows, "classes": classes, "dtype": "float16", "bytes": size}
    step("taking turns ...")
    told["programs"] = contest(everyone, rows, size, options.rounds, env)
    told["peak"] = peak_memory(everyone[report.KLCE], env)
    told["differs"] = {}
    for record in told["programs"]:
        if record[MEAN_NLL] is not None:
            off = abs(record[MEAN_NLL] / expected(record["rows"]) - 1)
            if not off <= TOLERANCE:
                told["differs"][record["name"]] = off
    told["lines"] = verdicts(told)
    return told


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"must be positive, got {text}")
    return number


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.files",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--gigabytes", type=_positive, default=8.0, help="of the file (default 8)")
    environment.add_counts(parser, 3, "for each process")
    parser.add_argument("--peer", action="append", choices=SCRIPTS, help="may be repeated")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    options = parser.parse_args()
    size = options.gigabytes * 1e9
    folder = tempfile.gettempdir()
    for what, room in (
        ("memory, which has to hold the file,", free_memory()),
        (f"disk of {folder}", shutil.disk_usage(folder).free),
    ):
        if room < size + 1e9:  # and something besides
            parser.error(f"--gigabytes {options.gigabytes:g}: the {what} has {room / 1e9:.1f} free")
    return options


def main() -> None:
    """Write the file, measure, print."""
    options = _parse()
    environment.keep_to(options.threads)
    klce.set_num_threads(options.threads)
    rows = max(1, round(options.gigabytes * 1e9 / (2 * CLASSES)))
    # As Ctrl-C does, so that the file goes.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with (
        tempfile.TemporaryDirectory(prefix="klce-") as folder,
        report.console().status("") as status,
    ):
        told = measure(Path(folder), rows, CLASSES, options, status.update)
    report.print_files(told)
    report.print_lines(told["lines"], "Whole processes")
    report.print_about(told)
    if options.json:
        report.write(options.json, told)
    if report.KLCE in told["differs"]:
        raise SystemExit(f"klce score: the mean NLL is off by {told['differs'][report.KLCE]:.2g}")


if __name__ == "__main__":
    main()
