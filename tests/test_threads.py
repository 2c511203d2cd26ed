"""The number of threads changes no bit; other Python threads go on while a kernel runs."""

import functools
import sys
import threading
import time

import numpy as np
import pytest

import klce
from klce import _ufuncs
from tests.kernels import (
    DTYPES,
    EXTENTS,
    HALVES,
    ISAS,
    KERNELS,
    call,
    describe,
    letters,
    on_isa,
    operands_in_turn,
    outputs_of,
    same_bits,
    take_rows,
)

DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=str)
KERNEL = pytest.mark.parametrize("kernel", KERNELS)
ISA = pytest.mark.parametrize("isa", ISAS)

THREADS = (1, 2, 3, 7)
# Of more elements than THRESHOLD of src_c/rows.c, so for several threads: many rows, in several
# chunks; few long ones, which are split by segments, KLCE_SEGMENT of src_c/klce.h.
SHAPES = [(66_001, 1), (8201, 9), (67, 1000), (1, 65537), (2, 32769), (4, 16385)]
# Of many rows few are drawn, and come again in turn.
DISTINCT = 997


@functools.lru_cache(maxsize=1)
def calls(kernel, dtype):
    """A call of each shape, the parameters in turn."""
    # 16-bit elements are computed in float32, which sees every shape.
    shapes = SHAPES[::2] if dtype in HALVES else SHAPES
    drawn = operands_in_turn(kernel, [(min(count, DISTINCT), n) for count, n in shapes], dtype)
    return [
        take_rows(kernel, args, np.arange(count) % DISTINCT)
        for args, (count, _) in zip(drawn, shapes, strict=True)
    ]


@ISA
@DTYPE
@KERNEL
def test_the_number_of_threads_changes_no_bit(kernel, dtype, isa):
    # Rows are shared out in the same way whatever the dtype: one of them sees all numbers.
    numbers = THREADS if dtype == DTYPES[0] else (1, 3)
    with on_isa(isa):
        for args in calls(kernel, dtype):
            results = []
            for n in numbers:
                with klce.threads(n):
                    results.append(call(kernel, args))
            for n, result in zip(numbers[1:], results[1:], strict=True):
                for a, b in zip(results[0], result, strict=True):
                    assert same_bits(a, b), f"{n} threads on {isa}: {describe(kernel, args)}"


@DTYPE
@KERNEL
def test_a_split_row_is_that_row_among_many(kernel, dtype):
    # A row is split that has more elements than THRESHOLD and is alone; four to a thread are not.
    for drawn in operands_in_turn(kernel, [(2, 65537), (2, 70000)], dtype):
        args = take_rows(kernel, drawn, np.arange(12) % 2)
        with klce.threads(3):
            many = call(kernel, args)
            for row in range(2):
                one = call(kernel, take_rows(kernel, args, slice(row, row + 1)))
                for a, b in zip(many, one, strict=True):
                    for place in range(row, 12, 2):
                        assert same_bits(a[place : place + 1], b), describe(kernel, args)


@DTYPE
@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss", "kl_divergence"])
def test_reductions_do_not_depend_on_threads(name, dtype):
    rng = np.random.default_rng(0)
    # More rows than THRESHOLD of src_c/sum.c: their results are added up by several threads too.
    x = rng.normal(size=(100_003, 5)).astype(dtype)
    second = rng.integers(0, 5, len(x)) if name != "kl_divergence" else x[::-1].copy()
    extra = {"form": "logits"} if name == "kl_divergence" else {}
    for reduction in ("mean", "sum"):
        kept = getattr(klce, name)(x, second, reduction="none", **extra)
        total = _ufuncs.sum_of(kept) / (len(x) if reduction == "mean" else 1)
        results = {kept.dtype.type(total).tobytes()}
        for n in THREADS:
            with klce.threads(n):
                result = getattr(klce, name)(x, second, reduction=reduction, **extra)
                results.add(result.tobytes())
        assert len(results) == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("count", [32_768, 100_003, 300_007])
def test_sums_do_not_depend_on_threads(count, dtype):
    """From THRESHOLD of src_c/sum.c to more than one of its rounds."""
    rng = np.random.default_rng(2)
    x = (rng.normal(size=2 * count) * 10.0 ** rng.uniform(-9, 9, 2 * count)).astype(dtype)
    for values in (x[:count], x[::2], x[::-2]):
        results = set()
        for n in THREADS:
            with klce.threads(n):
                results.add(_ufuncs.sum_of(values))
        assert len(results) == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_output_a_little_behind_its_input(dtype):
    """One thread reads where another writes: 20 times, since it is a race."""
    size = 400_000
    numbers = np.random.default_rng(0).uniform(0.01, 0.99, size + 1).astype(dtype)
    q = numbers[::-1][:size].copy()
    functions = {
        "information": klce.information,
        "binary_entropy": klce.binary_entropy,
        "rel_entr": lambda x, out=None: klce.rel_entr(x, q, out=out),
        "binary_cross_entropy": lambda x, out=None: klce.binary_cross_entropy(
            x, q, reduction="none", out=out
        ),
    }
    with klce.threads(4):
        for name, function in functions.items():
            expected = function(numbers[1:])
            for _ in range(20):
                memory = numbers.copy()
                result = function(memory[1:], out=memory[:-1])
                assert same_bits(result, expected), name


def test_calls_from_many_python_threads():
    """Some find the pool busy and compute by themselves."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2000, 200)).astype(np.float32)
    labels = rng.integers(0, 200, len(x))
    work = [
        (klce.logsumexp, (x,), {}),
        (klce.softmax, (x,), {"axis": 0}),
        (klce.cross_entropy, (x, labels), {"reduction": "none"}),
        (klce.kl_divergence, (x, x[::-1]), {"form": "logits"}),
        (klce.logsumexp, (x.reshape(2, -1),), {}),
    ]
    expected = [f(*args, **kwargs) for f, args, kwargs in work]
    wrong = []

    def run(start):
        try:
            for i in range(40):
                k = (start + i) % len(work)
                f, args, kwargs = work[k]
                with klce.threads(1 + (start + i) % 4):
                    if not same_bits(f(*args, **kwargs), expected[k]):
                        wrong.append(f.__name__)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_an_instruction_set_selected_meanwhile_waits_for_the_next_call():
    """A call's constants are made for the kernels that it began with, of few 16-bit classes too."""
    x = np.random.default_rng(2).normal(scale=8, size=(40_000, 10)).astype(np.float16)
    pair, expected, wrong = (ISAS[0], ISAS[-1]), [], 0
    for isa in pair:
        with on_isa(isa):
            expected.append(_ufuncs.logsumexp(x))
    done = threading.Event()

    def alternate():
        while not done.wait(1e-4):
            _ufuncs.select_isa(pair[0])
            time.sleep(1e-4)
            _ufuncs.select_isa(pair[1])

    with on_isa(pair[1]):
        thread = threading.Thread(target=alternate)
        thread.start()
        try:
            for _ in range(200):
                result = _ufuncs.logsumexp(x)
                wrong += not any(same_bits(result, bits) for bits in expected)
        finally:
            done.set()
            thread.join()
    assert wrong == 0


@pytest.fixture
def counter():
    """A thread that counts, and gets the interpreter only from a thread that lets go of it."""
    count, stop = [0], threading.Event()

    def work():
        while not stop.is_set():
            count[0] += 1
            time.sleep(0)

    thread = threading.Thread(target=work)
    interval = sys.getswitchinterval()
    thread.start()
    while not count[0]:
        time.sleep(0.001)
    # From here on a running thread is not asked to make room for another.
    sys.setswitchinterval(1000)
    yield count
    sys.setswitchinterval(interval)
    stop.set()
    thread.join()


@pytest.fixture(scope="module")
def numbers():
    return np.tile(np.linspace(0.001, 0.999, 4096, dtype=np.float32), 501)


@KERNEL
@pytest.mark.parametrize("shape", [(16, 128256), (3, 680_000), (128_000, 16)], ids=str)
def test_another_thread_advances_while_a_kernel_runs(kernel, shape, counter, numbers):
    inputs, _ = letters(kernel)
    if "g" in inputs:
        # These read one number a row: with few rows there is no time to advance in.
        shape = (500_000, 4)
    x = numbers[: shape[0] * shape[1]].reshape(shape)
    labels = np.zeros(shape[0], np.int64)
    chosen = np.zeros((shape[0], 1), np.int64)
    parameters = {"i": -100, "d": 1.0, "l": labels, "s": x[:, 0], "L": chosen}
    args = tuple(parameters.get(letter, x) for letter in inputs)
    out = {"out": outputs_of(kernel, args)} if kernel in EXTENTS else {}
    function = functools.partial(getattr(_ufuncs, kernel), **out)
    with klce.threads(1):
        # A machine with something else to do may not run the other thread at once.
        for _ in range(200):
            before = counter[0]
            function(*args)
            after = counter[0]
            if after > before:
                return
    raise AssertionError(f"no other thread advanced while {kernel} ran on {shape}")
