"""The header of a `.npy` file."""

import threading
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

# NumPy parses a header as Python, and CPython counts how deep it is within a syntax tree for all
# threads together: two that parse at once can fail with a SystemError (python/cpython#106905).
_one_at_a_time = threading.Lock()


def read_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return the shape, whether the order is Fortran's, and the dtype; `file` is at its start.

    A damaged header raises ValueError, SyntaxError or tokenize.TokenError.
    """
    version = npy.read_magic(file)
    # Version 3 is version 2 with UTF-8 names of fields, and arrays with fields are refused.
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    with _one_at_a_time:
        return read(file)
