"""The environment that a race runs in: threads and instruction sets, pinned before anything loads.

Most libraries read these variables once, when they load. So a command that needs others than it was
started with runs itself again, in a child process that has them.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
from pathlib import Path

ISAS = ("baseline", "avx2", "avx512")

_ATEN = {"baseline": "default", "avx2": "avx2", "avx512": "avx512"}
_XLA = {"baseline": "SSE4_2", "avx2": "AVX2", "avx512": "AVX512"}
_LLVM = {"baseline": "x86-64", "avx2": "haswell", "avx512": "skylake-avx512"}


def variables(threads: int, isa: str | None) -> dict[str, str]:
    """Return what has to be set for so many threads and no more than that instruction set."""
    count = str(threads)
    wanted = dict.fromkeys(
        ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "PJRT_NPROC", "NPROC"), count
    )
    if isa is not None:
        wanted |= {
            "KLCE_ISA": isa,
            "ATEN_CPU_CAPABILITY": _ATEN[isa],
            "XLA_FLAGS": f"--xla_cpu_max_isa={_XLA[isa]}",
            "NUMBA_CPU_NAME": _LLVM[isa],
            "NUMBA_CPU_FEATURES": "",
            "NPY_DISABLE_CPU_FEATURES": _numpy_features_beyond(isa),
        }
    return wanted


def _numpy_features_beyond(isa: str) -> str:
    """Return what NumPy would pick at run time although the instruction set does not have it."""
    disabled = os.environ.get("NPY_DISABLE_CPU_FEATURES")
    if disabled:  # by this very function, in the parent: what is disabled no longer shows
        return disabled
    if isa == "avx512":
        return ""
    core = importlib.import_module("numpy._core._multiarray_umath")
    within = ("AVX", "AVX2", "F16C", "FMA3", "X86_V3") if isa == "avx2" else ()
    return " ".join(
        name
        for name in core.__cpu_dispatch__
        if core.__cpu_features__.get(name) and name not in within
    )


def pin(threads: int, isa: str | None) -> None:
    """Go on in an environment with these threads and ISA: here if it is that, else in a child."""
    wanted = variables(threads, isa)
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        command = [sys.executable, *sys.orig_argv[1:]]
        sys.exit(subprocess.run(command, env=os.environ | wanted, check=False).returncode)
    keep_to(threads)


def keep_to(threads: int) -> None:
    """Leave this process, and those that it starts, no more CPUs than threads."""
    if hasattr(os, "sched_setaffinity"):  # some count the CPUs they may use, and nothing else
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def add_counts(parser: argparse.ArgumentParser, rounds: int, whose: str, threads: int = 2) -> None:
    """Add the options --threads and --rounds, with these defaults."""
    parser.add_argument(
        "--threads", type=_positive, default=threads, help=f"{whose} (default {threads})"
    )
    parser.add_argument(
        "--rounds", type=_positive, default=rounds, help=f"turns of each (default {rounds})"
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a number must be 1 or more, got {text!r}")
    return int(text)


def processor() -> str | None:
    """Return the name of the processor, as far as Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, None)


def commit(folder: Path = Path(__file__).parents[1]) -> str | None:
    """Return the git commit of a clone, with -dirty where files differ from it; else None."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]  # no tags
    try:
        told = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return told.stdout.strip()
