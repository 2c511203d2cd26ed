"""Dtypes that no kernel takes are converted in blocks of rows, and nothing shows of that."""

import itertools
import tracemalloc

import ml_dtypes
import numpy as np
import pytest

import klce
from klce import _blocks, _ufuncs
from tests.kernels import EXTENTS, KERNELS, call, letters, on_isa, operands, same_bits

FOREIGN = {
    "bool": np.float64,
    "int8": np.float64,
    "uint64": np.float64,
    ">f4": np.float32,
    ">f8": np.float64,
    ">f2": np.float16,
    "float8_e4m3fn": np.float32,
    "float8_e5m2": np.float32,
}
BY_DTYPE = pytest.mark.parametrize("name", FOREIGN)


def dtype_of(name):
    return np.dtype(getattr(ml_dtypes, name) if name.startswith("float8") else name)


@pytest.fixture(params=[1, 1000, 1 << 22])
def block_bytes(request, monkeypatch):
    monkeypatch.setattr(_blocks, "BLOCK_BYTES", request.param)


@BY_DTYPE
@pytest.mark.usefixtures("block_bytes")
class TestFunctions:
    """To the bit what the converted array gives, whatever the size of a block."""

    X = 3 * np.random.default_rng(0).normal(size=(4, 9, 7))
    LABELS = np.random.default_rng(1).integers(0, 7, (4, 9))

    def both(self, name, x=X):
        with np.errstate(invalid="ignore"):  # a negative number as an unsigned one
            foreign = (
                np.abs(x).astype(dtype_of(name)) if name == "uint64" else x.astype(dtype_of(name))
            )
        return foreign, foreign.astype(FOREIGN[name])

    def test_of_rows(self, name):
        x, native = self.both(name)
        for axis, keepdims in itertools.product((-1, 0, 1), (False, True)):
            result = klce.logsumexp(x, axis, keepdims=keepdims)
            assert same_bits(result, klce.logsumexp(native, axis, keepdims=keepdims))
            out = np.empty_like(result)
            assert klce.entropy(x, axis, form="logits", keepdims=keepdims, out=out) is out
            assert same_bits(out, klce.entropy(native, axis, form="logits", keepdims=keepdims))
        assert klce.logsumexp(x[0, 0]) == klce.logsumexp(native[0, 0])
        assert np.ndim(klce.logsumexp(x[0, 0])) == 0

    def test_maps(self, name):
        x, native = self.both(name)
        for axis in range(3):
            result = klce.softmax(x, axis)
            assert result.dtype == FOREIGN[name]
            assert same_bits(result, klce.softmax(native, axis))
        p, native = self.both(name, np.abs(self.X) / 20)
        assert same_bits(klce.information(p), klce.information(native))
        assert same_bits(klce.information(p, base=2), klce.information(native, base=2))

    def test_losses(self, name):
        x, native = self.both(name)
        for reduction in ("none", "mean"):
            result = klce.cross_entropy(x, self.LABELS, reduction=reduction)
            assert same_bits(result, klce.cross_entropy(native, self.LABELS, reduction=reduction))
        turned = np.moveaxis(x, -1, 1)
        assert klce.cross_entropy(turned, self.LABELS, axis=1) == result

    def test_pairs(self, name):
        """Of one dtype and of two, one of them broadcast."""
        x, native = self.both(name)
        expected = klce.kl_divergence(native, native[::-1], form="logits")
        assert same_bits(klce.kl_divergence(x, x[::-1], form="logits"), expected)
        expected = klce.kl_divergence(native[0, 0], native, form="logits")
        assert same_bits(klce.kl_divergence(x[0, 0], x, form="logits"), expected)
        wide = native.astype(np.float64)
        expected = klce.kl_divergence(wide, wide[:, :1], form="logits")
        result = klce.kl_divergence(x, wide[:, :1], form="logits")
        assert same_bits(result, expected)
        assert same_bits(klce.kl_divergence(wide, x[:, :1], form="logits"), expected)


@pytest.mark.parametrize("dtype", ["int64", ">f8", "float64"])
@pytest.mark.usefixtures("block_bytes")
class TestOutputsThatOverlap:
    """As without the overlap, though blocks are written while others are still to be read."""

    X = np.random.default_rng(2).integers(0, 5, (40, 6))
    Q = np.random.default_rng(3).integers(0, 5, (40, 6)).astype(np.int8)
    LABELS = np.random.default_rng(4).integers(0, 6, 40)

    def check(self, f, args, k):
        """Let operand `k` lie in one room with the output, before it and after it."""
        operand, expected = args[k], np.asarray(f(*args))
        for at, start in itertools.product((0, 3, 40, operand.size), repeat=2):
            room = np.zeros(2 * operand.size + 40)
            shared = room.view(operand.dtype)[at : at + operand.size].reshape(operand.shape)
            shared[...] = operand
            out = room[start : start + expected.size].reshape(expected.shape)
            given = [shared if i == k else arg for i, arg in enumerate(args)]
            assert f(*given, out=out) is out
            assert same_bits(out, expected), (at, start)

    def test_of_rows(self, dtype):
        x = self.X.astype(dtype)
        self.check(klce.logsumexp, (x,), 0)
        self.check(lambda x, out=None: klce.entropy(x, 0, out=out), (x,), 0)
        self.check(klce.kl_divergence, (x, self.Q), 0)
        self.check(klce.kl_divergence, (self.Q, x), 1)

    def test_maps(self, dtype):
        x = self.X.astype(dtype)
        self.check(klce.softmax, (x,), 0)
        self.check(lambda x, out=None: klce.softmax(x, 0, out=out), (x,), 0)
        self.check(klce.rel_entr, (x, self.Q), 0)
        self.check(klce.rel_entr, (self.Q, x), 1)

    def test_losses(self, dtype):
        def loss(x, labels, out=None):
            return klce.cross_entropy(x, labels, reduction="none", out=out)

        x = self.X.astype(dtype)
        self.check(loss, (x, self.LABELS), 0)
        self.check(loss, (x, self.LABELS), 1)

    def test_maps_of_a_narrower_dtype(self, dtype):
        x = self.X.astype(dtype)
        self.check(lambda x, out=None: klce.softmax(x, dtype=np.float32, out=out), (x,), 0)
        self.check(lambda x, out=None: klce.softmax(x, 0, dtype=np.float16, out=out), (x,), 0)

    def test_in_place(self, dtype):
        x = np.asarray(self.X, dtype).astype(">f8")
        expected = klce.softmax(x)
        assert klce.softmax(x, out=x) is x
        assert same_bits(x.astype(float), expected)


# klce.score and klce.compare, whose kernels give several values a row, have blocks of their own.
@pytest.mark.parametrize("kernel", [kernel for kernel in KERNELS if kernel not in EXTENTS])
@pytest.mark.usefixtures("block_bytes")
def test_every_kernel(kernel):
    inputs, outputs = letters(kernel)
    for args in operands(kernel, 9, 12, np.dtype(np.float32)):
        foreign = tuple(
            arg.astype(">f4") if letter in "vgew" else arg
            for letter, arg in zip(inputs, args, strict=True)
        )
        expected = call(kernel, args)
        out = tuple(np.empty_like(result) for result in expected) if "v" in outputs else None
        result = _blocks.call(
            getattr(_ufuncs, kernel),
            foreign,
            np.dtype(np.float32),
            -1,
            out,
        )
        for a, b in zip(result if isinstance(result, tuple) else (result,), expected, strict=True):
            assert same_bits(a, b)


def test_numbers_beyond_the_dtype():
    """They are infinite or 0 then, without a warning, whatever NumPy is told about such."""
    large, small = np.array([[1e300, 0.0]]), np.array([[1e-300, 1.0]])
    narrow = np.zeros((1, 2), np.float32)
    with np.errstate(all="raise"):
        assert np.isnan(klce.softmax(large, dtype=np.float32)).all()
        assert klce.softmax(small, dtype=np.float16)[0, 1] == np.float16(0.731)
        assert np.isnan(klce.cross_entropy(narrow, large))
        assert klce.cross_entropy(narrow, small) == pytest.approx(np.log(2))
        assert np.isnan(klce.binary_cross_entropy(narrow + 0.5, large)).all()


@pytest.mark.parametrize("name", ["int8", ">f4", "float8_e5m2"])
def test_memory(name):
    """No copy of the whole array: some blocks, and the results."""
    x = np.zeros((64, 64, 8192), np.int8).astype(dtype_of(name))
    labels = np.zeros((64, 64), np.int64)
    for f, args in (
        (klce.logsumexp, (x,)),
        (klce.cross_entropy, (x, labels)),
        (klce.kl_divergence, (x[0, 0], x)),
        (klce.kl_divergence, (x, x[0, 0].astype(np.float32))),
    ):
        tracemalloc.start()
        f(*args)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 3 * _blocks.BLOCK_BYTES, f.__name__


NARROW = pytest.mark.parametrize("narrow", [np.float16, ml_dtypes.bfloat16, np.float32])


@NARROW
@pytest.mark.parametrize("wider", [np.float32, np.float64, ">f4", np.longdouble, np.complex128])
@pytest.mark.usefixtures("block_bytes")
def test_a_wider_out_of_a_map(narrow, wider):
    """It holds the numbers of the narrow one, in any layout, masked or not."""
    x = 3 * np.random.default_rng(0).normal(size=(4, 9, 70))
    x[1, 2, 3], x[1, 4] = np.inf, -np.inf
    x = x.astype(narrow)
    mask = np.random.default_rng(1).random((9, 70)) < 0.7
    for f, where in itertools.product((klce.softmax, klce.log_softmax), (None, mask)):
        for axis in (-1, 0, 1, (0, 1), None):
            expected = f(x, axis, where=where).astype(wider)
            for out in np.zeros(x.shape, wider), np.zeros(x.shape[::-1], wider).T:
                assert f(x, axis, where=where, out=out) is out
                np.testing.assert_array_equal(out, expected)
    row = np.zeros(70, wider)
    np.testing.assert_array_equal(klce.softmax(x[0, 0], out=row), klce.softmax(x[0, 0]))


@NARROW
def test_memory_of_a_wider_out(narrow):
    """No map of its size: some blocks."""
    x = np.zeros((2048, 8192), narrow)
    out = np.zeros(x.shape)
    tracemalloc.start()
    klce.softmax(x, out=out)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * _blocks.BLOCK_BYTES


HALVES = pytest.mark.parametrize("halves", [np.float16, ml_dtypes.bfloat16])


@pytest.mark.parametrize("isa", _ufuncs.available_isas())
@HALVES
def test_every_16_bit_number_is_widened(halves, isa):
    numbers = np.arange(1 << 16, dtype=np.uint16).view(halves)
    with on_isa(isa), np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(_ufuncs.widened(numbers), numbers.astype(np.float32))
        for dtype in (np.float32, np.float64):
            wide = _blocks.converted(numbers, np.dtype(dtype))
            assert wide.dtype == dtype
            np.testing.assert_array_equal(wide, numbers.astype(dtype))


@HALVES
def test_what_is_widened_lies_as_it_lay(halves):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 70, 300)).astype(halves)
    for view in (
        *(x, x.T, x[::2, 1:, ::-3], x.transpose(1, 2, 0), x[:, :, 7], x[:0], x[0, 0, 0]),
        *(np.broadcast_to(x[0], x.shape), x[1:, ::-1]),
    ):
        wide = _ufuncs.widened(np.asarray(view))
        assert wide.strides == np.asarray(view).astype(np.float32).strides
        np.testing.assert_array_equal(wide, view.astype(np.float32))


def test_what_is_not_widened():
    bits = np.zeros(9, np.uint8)[1:].view(np.float16)  # not aligned
    for array in (bits, np.zeros(3, ">f2"), np.zeros(3, np.int16), np.zeros(3, np.float32)):
        assert _ufuncs.widened(array) is None
        converted = _blocks.converted(array, np.dtype(np.float64))
        np.testing.assert_array_equal(converted, array.astype(np.float64))


@HALVES
@pytest.mark.usefixtures("block_bytes")
def test_16_bit_numbers_in_another_dtype(halves):
    """By ``dtype=``, and beside rows that are wider: as those converted beforehand."""
    x = np.random.default_rng(0).normal(size=(40, 50)).astype(halves)
    wide, double = x.astype(np.float32), x.astype(np.float64)
    for axis in (0, 1):
        found = klce.softmax(x, axis=axis, dtype=np.float32)
        assert same_bits(found, klce.softmax(wide, axis=axis))
        for other in (wide, double):
            found = klce.kl_divergence(x, other[::-1], form="logits", axis=axis)
            rows = x.astype(other.dtype)
            expected = klce.kl_divergence(rows, other[::-1], form="logits", axis=axis)
            assert same_bits(found, expected)
