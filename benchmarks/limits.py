"""The measured read limit: how fast the same bytes can be read at all.

A loop in C (``read.c``, built here by the machine's compiler for the machine's instruction set)
adds up the arrays as 64-bit integers, each thread an equal share of them. The threads go over their
share several times within one call, so that waking them, some 20 us, is no part of the limit. An
operation that also writes its result cannot reach it.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

TIMES = 8


@functools.cache
def _compiled() -> Callable[..., int] | None:
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "read.so")
        flags = ["-O3", "-march=native", "-shared", "-fPIC", "-o", str(library)]
        source = Path(__file__).with_name("read.c")
        subprocess.run([*compiler.split(), *flags, str(source)], check=True)
        read_arrays = ctypes.CDLL(str(library)).read_arrays
    read_arrays.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_ssize_t, ctypes.c_int]
    read_arrays.restype = ctypes.c_uint64
    return read_arrays


def reader(arrays: Sequence[np.ndarray], threads: int) -> Callable[[], None] | None:
    """Return a function that reads `arrays`, equal in size, TIMES over; None without a compiler."""
    read_arrays = _compiled()
    if read_arrays is None:
        return None
    share = arrays[0].nbytes // threads
    pointers: list[Any] = [
        (ctypes.c_void_p * len(arrays))(*(array.ctypes.data + k * share for array in arrays))
        for k in range(threads)
    ]
    pool = ThreadPoolExecutor(threads)

    def run() -> None:
        # ctypes releases the GIL around the call.
        list(pool.map(lambda start: read_arrays(start, len(arrays), share, TIMES), pointers))

    return run
