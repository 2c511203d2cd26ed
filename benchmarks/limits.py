"""What memory allows: how fast an array can be read at all, and copied.

Loops in C (``memory.c``, built here by the machine's compiler for the machine's instruction set),
each thread on an equal share of the bytes:

- ``read`` adds up the arrays as 64-bit integers;
- ``copy`` reads one array and writes one with non-temporal stores, which go past the caches;
- ``copy, cached`` does so with plain stores: faster where both arrays stay in a cache.

Within one call the threads go over their share several times, so that waking them, some 20 us, is
no part of the limit. ``python -m benchmarks.limits`` prints them for 1 to n threads and several
sizes; the race measures its own, at each case's arrays, in turn with the contestants.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import environment, report
from benchmarks.turns import Runner, take_turns

READ, COPY, COPY_CACHED = "read", "copy", "copy, cached"
LEAST = 1 << 16  # bytes; below, starting threads is all there is to measure
ENOUGH = 2e8  # bytes that a call goes over: some milliseconds
SIZES = (1 << 20, 1 << 23, 1 << 25, 1 << 27, 1 << 30)  # bytes


@functools.cache
def _compiled() -> ctypes.CDLL | None:
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "memory.so")
        flags = ["-O3", "-march=native", "-shared", "-fPIC", "-o", str(library)]
        source = Path(__file__).with_name("memory.c")
        subprocess.run([*compiler.split(), *flags, str(source)], check=True)
        compiled = ctypes.CDLL(str(library))
    address, size, count = ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int
    compiled.read_arrays.argtypes = [address, count, size, count]
    compiled.read_arrays.restype = ctypes.c_uint64
    compiled.chain.argtypes = [ctypes.c_uint64]
    compiled.chain.restype = ctypes.c_uint64
    for copy in (compiled.copy_streaming, compiled.copy_cached):
        copy.argtypes = [address, address, size, count]
        copy.restype = None
    return compiled


def available() -> bool:
    """Whether there is a compiler to build the loops with."""
    return _compiled() is not None


def _aligned(size: int) -> np.ndarray:
    """Return that many bytes, touched, at an address that non-temporal stores take."""
    memory = np.zeros(size + 4096, np.uint8)
    memory[::4096] = 1
    start = -memory.ctypes.data % 4096
    return memory[start : start + size]


def _shared_out(task: Callable[[int], object], threads: int) -> Callable[[], None]:
    """Return a call of `task` with each thread's number, on as many Python threads."""
    if threads == 1:
        return lambda: (task(0), None)[1]
    pool = ThreadPoolExecutor(threads)  # ctypes releases the GIL around a call
    return lambda: list(pool.map(task, range(threads))).clear()


def runners(inputs: Sequence[np.ndarray], threads: int, copies: bool) -> dict[str, Runner]:
    """Return what reads `inputs`, equal in size, and what copies the first of them if `copies`.

    Nothing without a compiler, nor for arrays that are too small for a limit.
    """
    compiled, size = _compiled(), inputs[0].nbytes
    if compiled is None or size < LEAST:
        return {}
    share = size // threads // 256 * 256
    times = int(min(64, max(1, ENOUGH / size / len(inputs))))
    starts: list[Any] = [
        (ctypes.c_void_p * len(inputs))(*(array.ctypes.data + k * share for array in inputs))
        for k in range(threads)
    ]

    def read(k: int) -> None:
        compiled.read_arrays(starts[k], len(inputs), share, times)

    result = {READ: Runner(_shared_out(read, threads), times)}
    if copies:
        source, target = inputs[0].ctypes.data, _aligned(size)
        for name, function in (
            (COPY, compiled.copy_streaming),
            (COPY_CACHED, compiled.copy_cached),
        ):

            def copy(k: int, function: Any = function) -> None:
                start = k * share
                function(source + start, target.ctypes.data + start, share, times)

            result[name] = Runner(_shared_out(copy, threads), times)
    return result


def clock(threads: int) -> float | None:
    """Return the GHz of a core when that many threads are at work; None without a compiler."""
    compiled, steps = _compiled(), 20_000_000
    if compiled is None:
        return None
    runner = Runner(_shared_out(lambda _: compiled.chain(steps), threads))
    return 2 * steps / min(take_turns({"chain": runner}, 3)["chain"]) / 1e9


def best(seconds: Mapping[str, Sequence[float]]) -> float:
    """Return the limit's time: the best round of reading or, if there are copies, of copying."""
    copies = [min(values) for name, values in seconds.items() if name != READ]
    return min(copies) if copies else min(seconds[READ])


def measure(
    sizes: Sequence[int], threads: Sequence[int], rounds: int
) -> list[dict[str, str | int | float]]:
    """Return a record for each size, number of threads and limit: the best round's speed."""
    records: list[dict[str, str | int | float]] = []
    for size in sizes:
        array = _aligned(size)
        everyone = {
            (count, name): runner
            for count in threads
            for name, runner in runners([array], count, copies=True).items()
        }
        seconds = take_turns({f"{c} {name}": r for (c, name), r in everyone.items()}, rounds)
        for count, name in everyone:
            best = min(seconds[f"{count} {name}"])
            speed = size / best / 1e9
            records.append({"limit": name, "bytes": size, "threads": count, "GB/s": speed})
    return records


def _sizes(text: str) -> int:
    size = int(float(text))
    if size < LEAST:
        raise argparse.ArgumentTypeError(f"a size must be at least {LEAST} bytes, got {text}")
    return size


def main() -> None:
    """Measure the limits that the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.limits",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cpus = len(os.sched_getaffinity(0))
    environment.add_counts(parser, 15, "from 1 to this", cpus)
    parser.add_argument("--size", type=_sizes, action="append", metavar="BYTES")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the records here")
    options = parser.parse_args()
    if not available():
        parser.error("there is no C compiler (CC, cc or gcc) to build the loops with")
    threads = range(1, options.threads + 1)
    records = measure(options.size or SIZES, threads, options.rounds)
    report.print_limits(records)
    if options.json:
        report.write(options.json, {"rounds": options.rounds, "limits": records})


if __name__ == "__main__":
    main()
