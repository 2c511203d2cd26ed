"""Large results: their memory is kept for the next ones, and is NumPy's to all that see it."""

import pickle
import sys

import numpy as np
import pytest
from numpy._core.multiarray import get_handler_name

import klce
from tests.kernels import run_script

SHAPE = 9, 1_000_000  # 36 MB of float32
ONE_ROW = np.random.default_rng(0).normal(size=SHAPE[1]).astype(np.float32)

kept = pytest.mark.skipif(sys.platform != "linux", reason="kept on Linux alone")


@pytest.fixture(scope="module")
def logits():
    return np.broadcast_to(ONE_ROW, SHAPE).copy()


@pytest.fixture(scope="module")
def expected():
    return klce.softmax(ONE_ROW)


def place(array):
    return array.ctypes.data


@kept
@pytest.mark.parametrize("layout", ["C", "F"])
@pytest.mark.parametrize("function", [klce.softmax, klce.log_softmax])
def test_the_place_of_what_went_is_taken(logits, function, layout):
    x = np.asarray(logits, order=layout)
    result = function(x)
    assert place(result) % (1 << 21) == 0
    assert result.flags.f_contiguous == (layout == "F")
    assert get_handler_name(result if result.base is None else result.base) == "klce"
    first = place(result)
    del result
    assert place(function(x)) == first


def test_results_that_live_are_apart(logits, expected):
    results = [klce.softmax(logits) for _ in range(4)]
    del results[1], results[0]
    results += [klce.softmax(logits), klce.softmax(logits)]
    for k, result in enumerate(results):
        assert (result == expected).all()
        assert not any(np.shares_memory(result, other) for other in results[:k])
        result[...] = k
    assert all((result == k).all() for k, result in enumerate(results))


def test_results_own_their_memory(logits, expected):
    result = klce.softmax(logits)
    assert result.flags.owndata
    assert result.flags.writeable
    assert result.base is None
    view = result[1:3]
    del result
    assert (view == expected).all()
    assert (pickle.loads(pickle.dumps(view)) == expected).all()


@pytest.mark.parametrize("rows", [2, 9, 20])
def test_results_can_be_resized(logits, expected, rows):
    result = klce.softmax(logits)
    before = place(result)
    result.resize((rows, SHAPE[1]), refcheck=False)
    assert (place(result) == before) == (rows == SHAPE[0])  # what is too large for it goes
    assert (result[: SHAPE[0]] == expected).all()
    assert not result[SHAPE[0] :].any()


def test_halves_with_a_wider_result(logits):
    x = logits.astype(np.float16)
    first = klce.softmax(x, dtype=np.float32)
    again = klce.softmax(x, dtype=np.float32)
    assert first.dtype == np.float32
    assert not np.shares_memory(first, again)
    assert (first == again).all()


def test_a_handler_of_the_users_stays():
    code = """
import ctypes
import numpy as np
from numpy._core import _multiarray_umath
from numpy._core.multiarray import get_handler_name
import klce

pointer = ctypes.pythonapi.PyCapsule_GetPointer
pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
new = ctypes.pythonapi.PyCapsule_New
new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
api = pointer(_multiarray_umath._ARRAY_API, None)
functions = ctypes.cast(api, ctypes.POINTER(ctypes.c_void_p))
set_handler = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(functions[304])
get_handler = ctypes.PYFUNCTYPE(ctypes.py_object)(functions[305])

x = np.zeros((9, 1_000_000), np.float32)
# NumPy's own by another name, which has 127 bytes of the 168.
numpys = ctypes.string_at(pointer(get_handler(), b"mem_handler"), 168)
own = ctypes.create_string_buffer(numpys, 168)
own[:127] = b"mine".ljust(127, bytes(1))
default = set_handler(new(ctypes.addressof(own), b"mem_handler", None))
assert get_handler_name(klce.softmax(x)) == "mine"
assert get_handler_name(np.empty(9)) == "mine"
set_handler(default)
assert get_handler_name(klce.softmax(x)) != "mine"
assert get_handler_name(np.empty(9)) == "default_allocator"
"""
    process = run_script(code)
    assert process.returncode == 0, process.stderr


@kept
def test_where_there_is_no_memory():
    code = """
import resource
import numpy as np
import klce

x = np.zeros((64, 1_000_000), np.float32)
klce.softmax(x[:20]), klce.softmax(x[:20])  # which are kept
with open("/proc/self/statm") as file:
    now = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + 2**27, now + 2**27))
assert klce.softmax(x).shape == x.shape  # in place of what was kept
resource.setrlimit(resource.RLIMIT_AS, (now, now))
held = klce.softmax(x)
try:
    klce.softmax(x)
except MemoryError:
    print("told")
assert held.sum() > 63
"""
    process = run_script(code)
    assert process.returncode == 0, process.stderr
    assert process.stdout == "told\n"


@kept
def test_a_child_has_its_own():
    code = """
import os
import numpy as np
import klce

x = np.random.default_rng(0).normal(size=(9, 1_000_000)).astype(np.float32)
expected = klce.softmax(x[0])
klce.softmax(np.zeros_like(x))  # is kept
pid = os.fork()
result = klce.softmax(x if pid else x[::-1].copy())
if pid:
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert (result[0 if pid else -1] == expected).all()
"""
    process = run_script(code)
    assert process.returncode == 0, process.stderr
