"""No kernel touches memory beyond its operands: they lie against pages that nobody may touch.

Each dtype runs in a process of its own. That process says what it is about to call, so that a fault
names the kernel.
"""

import ctypes
import itertools
import mmap

import numpy as np
import pytest

import klce
from tests.kernels import (
    DTYPES,
    ISAS,
    KERNELS,
    call,
    letters,
    on_isa,
    operands,
    run_script,
    same_bits,
)

PAGE = mmap.PAGESIZE
ROOM = 64 * 4096
FILL = 0xA5


class Guarded:
    """Memory between two pages that may be neither read nor written."""

    def __init__(self):
        self.memory = mmap.mmap(-1, ROOM + 2 * PAGE)
        self.bytes = np.frombuffer(self.memory, np.uint8)
        address = self.bytes.ctypes.data
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        for page in (address, address + PAGE + ROOM):
            assert protect(ctypes.c_void_p(page), ctypes.c_size_t(PAGE), 0) == 0
        self.inner = self.bytes[PAGE:-PAGE]

    def hold(self, x, at_end, stride=1):
        """Place a copy of x against one of the pages, in each `stride`-th place of the memory."""
        # The last element touches the page: nothing of the stride is behind it.
        size = ((x.size - 1) * stride + 1) * x.itemsize
        start = ROOM - size if at_end else 0
        self.around = self.inner[max(start - PAGE, 0) : start + size + PAGE]
        self.around[...] = FILL
        part = self.inner[start : start + size].view(x.dtype)[::stride]
        part[...] = x.ravel()
        y = part.reshape(x.shape)
        assert np.shares_memory(y, part)
        return y

    def untouched(self, y):
        """Whether the memory about a contiguous y is as it was."""
        copy = y.copy()
        y.view(np.uint8)[...] = FILL
        same = bool((self.around == FILL).all())
        y[...] = copy
        return same


def shapes():
    # All that a group (32 elements at most) leaves over, after none of them, one and two.
    yield from ((1 + n % 4, n) for n in (*range(1, 42), 63, 64, 65, 70))
    # As many rows as a kernel may take at once, and one more.
    yield from itertools.product((16, 32, 33, 48, 65), (1, 2, 3, 5, 8, 10, 17, 32))
    # Few enough classes that a load goes on into the next rows, and rows around what it may take.
    yield from itertools.product((17, 18, 19, 20, 34, 35), (1, 2, 3))
    yield from itertools.product((1, 3), (127, 129, 257, 513, 1000, 2047, 2049))
    yield from itertools.product((9,), (257, 300, 1000, 2047))  # more than a pipeline holds
    yield 1, 16385
    yield from SIDE_BY_SIDE


# More rows of many classes than are taken at once, which lie side by side.
SIDE_BY_SIDE = [(64, 257), (70, 300)]


def results_of(kernel, args):
    """What each instruction set gives, by its name."""
    results = {}
    for isa in ISAS:
        with on_isa(isa):
            results[isa] = call(kernel, args)
    return results


def main(name):
    (dtype,) = (dtype for dtype in DTYPES if dtype.name == name)
    guards = [Guarded() for _ in range(16)]
    for kernel, (count, n) in itertools.product(KERNELS, shapes()):
        inputs, _ = letters(kernel)
        *_, args = operands(kernel, count, n, dtype)
        expected = results_of(kernel, args)
        strides = (1, 3) if n < 40 else (1,)
        turned = (count, n) in SIDE_BY_SIDE
        for at_end, stride in itertools.product((True, False), strides):
            held = tuple(
                guard.hold(arg.T, at_end).T
                if turned and letter in "vgw"
                else guard.hold(np.asarray(arg), at_end, stride if letter in "vgew" else 1)
                for guard, arg, letter in zip(guards, args, inputs, strict=False)
            )
            others = guards[len(held) :]
            for isa in ISAS:
                print(kernel, name, (count, n), isa, flush=True)
                outputs = tuple(
                    guard.hold(np.full_like(x, 99), at_end)
                    for guard, x in zip(others, expected[isa], strict=False)
                )
                with on_isa(isa):
                    result = call(kernel, held, out=outputs)
                for a, b in zip(result, expected[isa], strict=True):
                    assert same_bits(a, b), "the result differs"
                for guard, out in zip(others, outputs, strict=False):
                    assert guard.untouched(out), "written beyond the output"
    hide_a_maximum(dtype, guards)
    print("done", flush=True)


def hide_a_maximum(dtype, guards):
    """A nan in the lane of the last row's maximum, so that it is not found where it should be."""
    rng = np.random.default_rng(0)
    x, y = (4 * rng.normal(size=(8, 300)) for _ in range(2))
    x[-1, [3, 131]] = 60, np.nan
    held = [guard.hold(z.astype(dtype), True) for guard, z in zip(guards, (x, y), strict=False)]
    for isa in ISAS:
        print("a hidden maximum", dtype.name, isa, flush=True)
        with on_isa(isa):
            assert np.isnan(klce.kl_divergence(*held, form="logits")[-1])


SCRIPT = "import sys; from tests.test_guard_pages import main; main(sys.argv[1])"


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_kernels_keep_within_their_operands(dtype):
    process = run_script(SCRIPT, dtype.name)
    last = process.stdout.splitlines()[-1:] or ["nothing"]
    assert (process.returncode, last) == (0, ["done"]), f"{last[0]}\n{process.stderr[-2000:]}"


SOFT = """
import sys
import numpy as np
import klce
from tests.kernels import DTYPES, ISAS, computed, on_isa
from tests.test_guard_pages import Guarded, shapes

(dtype,) = (dtype for dtype in DTYPES if dtype.name == sys.argv[1])
guards = Guarded(), Guarded()
for shape in shapes():
    rng = np.random.default_rng(shape)
    x = rng.random(shape).astype(dtype)
    q = rng.random(shape).astype(computed(dtype))
    for at_end in (True, False):
        held = [guard.hold(a, at_end) for guard, a in zip(guards, (x, q), strict=True)]
        for isa in ISAS:
            print(shape, isa, flush=True)
            with on_isa(isa):
                klce.cross_entropy(*held, label_smoothing=0.1)
print("done", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_soft_targets_keep_within_their_operands(dtype):
    """Whose rows share their weights, so that they are taken side by side."""
    process = run_script(SOFT, dtype.name)
    last = process.stdout.splitlines()[-1:] or ["nothing"]
    assert (process.returncode, last) == (0, ["done"]), f"{last[0]}\n{process.stderr[-2000:]}"


def test_the_guards_guard():
    """Reading one element too many does end the process."""
    code = (
        "import numpy as np\n"
        "from tests.test_guard_pages import Guarded\n"
        "x = Guarded().hold(np.zeros(8), {at_end})\n"
        "y = np.lib.stride_tricks.as_strided(x[{edge}:], (2,), (8 * {step},))\n"
        "print(y[0], flush=True)\n"
        "print(y.sum())\n"
    )
    for at_end, edge, step in ((True, 7, 1), (False, 0, -1)):
        process = run_script(code.format(at_end=at_end, edge=edge, step=step))
        assert process.stdout.splitlines() == ["0.0"]
        assert process.returncode < 0
