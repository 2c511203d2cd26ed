"""No layout of an operand in memory changes a bit of a result, nor does working in place."""

import functools
import re
from functools import lru_cache

import numpy as np
import pytest

import klce
from tests.kernels import (
    DTYPES,
    ISAS,
    KERNELS,
    call,
    describe,
    letters,
    on_isa,
    operands,
    operands_in_turn,
    same_bits,
)

pytestmark = pytest.mark.matrix

KERNEL = pytest.mark.parametrize("kernel", KERNELS)
DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=str)
ISA = pytest.mark.parametrize("isa", ISAS)
MAPS = [k for k in KERNELS if letters(k)[1] in ("v", "e")]

SHAPES = [*((19, n) for n in (1, 2, 3, 7, 16, 33, 300)), (3, 2050), (2, 17000)]


def strided(x):
    """Every second row and every third class of an array of other numbers."""
    wide = np.full((2 * x.shape[0], 3 * x.shape[1], *x.shape[2:]), 7, x.dtype)
    wide[1::2, 2::3] = x
    return wide[1::2, 2::3]


def padded(x):
    """Rows that are contiguous but apart."""
    wide = np.full((x.shape[0], x.shape[1] + 5), 7, x.dtype)
    wide[:, 2:-3] = x
    return wide[:, 2:-3]


def shifted(x, by):
    """A contiguous copy that starts `by` bytes after a multiple of 64."""
    room = np.zeros(x.nbytes + 128, np.uint8)
    start = -room.ctypes.data % 64 + by
    y = room[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    y[...] = x
    return y


LAYOUTS = {
    "classes reversed": lambda x: x[:, ::-1].copy()[:, ::-1],
    "rows reversed": lambda x: x[::-1].copy()[::-1],
    "both reversed": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
    "transposed": np.asfortranarray,
    "transposed and reversed": lambda x: np.asfortranarray(x[::-1, ::-1])[::-1, ::-1],
    "strided": strided,
    "padded": padded,
    "middle axis": lambda x: np.stack([x, x], axis=2)[:, :, 1],
    "one element off": lambda x: shifted(x, x.itemsize),
    "one element short": lambda x: shifted(x, 64 - x.itemsize),
    "one byte off": lambda x: shifted(x, 1),
    "read-only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
    "byte-swapped": lambda x: x.astype(x.dtype.newbyteorder()),
}


def laid_out(kernel, args, layout, which=None):
    """The operands that hold rows in another layout: all, or one of them."""
    inputs, _ = letters(kernel)
    rows = [k for k, letter in enumerate(inputs) if letter in "vgew"]
    chosen = rows if which is None else rows[which : which + 1]
    return tuple(LAYOUTS[layout](arg) if k in chosen else arg for k, arg in enumerate(args))


def assert_same(kernel, args, actual, expected, about):
    for a, b in zip(actual, expected, strict=True):
        assert same_bits(a, b), f"{about}: {describe(kernel, args)}"


@lru_cache(maxsize=1)
def cases(kernel, dtype):
    """A call of each shape and its operands by layout, made once for all instruction sets."""
    return [
        (args, {layout: laid_out(kernel, args, layout) for layout in LAYOUTS})
        for args in operands_in_turn(kernel, SHAPES, dtype)
    ]


@ISA
@DTYPE
@KERNEL
def test_inputs(kernel, dtype, isa):
    with on_isa(isa):
        for args, laid in cases(kernel, dtype):
            expected = call(kernel, args)
            for layout, given in laid.items():
                assert_same(kernel, args, call(kernel, given), expected, layout)


@DTYPE
@pytest.mark.parametrize("kernel", [k for k in KERNELS if re.search("[vw].*[vw]", letters(k)[0])])
def test_inputs_of_different_layouts(kernel, dtype):
    for args in operands_in_turn(kernel, SHAPES, dtype):
        expected = call(kernel, args)
        for layout in LAYOUTS:
            for which in (0, 1):
                given = laid_out(kernel, args, layout, which)
                assert_same(kernel, args, call(kernel, given), expected, (layout, which))


@DTYPE
@KERNEL
def test_packed_rows_on_several_threads(kernel, dtype):
    """Of more elements than THRESHOLD of src_c/rows.c: else one thread does it all."""
    for args in operands_in_turn(kernel, [(8201, 9), (50, 1500), (2, 40000), (1, 65537)], dtype):
        with klce.threads(1):
            expected = call(kernel, args)
        for layout in ("transposed", "strided", "both reversed"):
            given = laid_out(kernel, args, layout)
            for threads in (1, 3):
                with klce.threads(threads):
                    assert_same(kernel, args, call(kernel, given), expected, (layout, threads))


@DTYPE
def test_squares_and_what_they_leave(dtype):
    """Rows that lie side by side are packed, and unpacked, by squares of 2, 4 or 8."""
    whole = np.random.default_rng(5).standard_normal((65, 1031)).astype(dtype)
    for n in (*range(1, 19), 255, 1024, 1031):
        for count in (*range(2, 19), 33, 65):
            x = whole[:count, :n].copy()
            y = np.asfortranarray(x)
            out = np.empty_like(y)
            klce.log_softmax(y, out=out)
            assert same_bits(out, klce.log_softmax(x)), (count, n)


@ISA
@DTYPE
@pytest.mark.parametrize("kernel", [k for k in KERNELS if re.search("[vw]", letters(k)[0])])
def test_what_is_special_side_by_side(kernel, dtype, isa):
    """Rows that a tile of few classes cannot settle, or settles apart."""
    rng = np.random.default_rng(8)
    for n in (2, 21, 64, 200, 270):
        for args in operands(kernel, 67, n, dtype):
            changed = []
            for arg, letter in zip(args, letters(kernel)[0], strict=True):
                x = arg.copy() if letter in "vw" else arg
                if letter in "vw":
                    x[3, n // 2], x[5], x[7], x[20, 0] = np.nan, -np.inf, 0, np.inf
                    x[23] = x[23] * x.dtype.type(100)
                    x[9], x[9, 0], x[10] = -np.inf, np.nan, np.nan
                    x[11, ::3] = x[12, n // 3 :] = np.nanmax(x[11])
                    x[33:50][rng.random((17, n)) < 0.5] = 0 if (arg >= 0).all() else -np.inf
                    x[50:] = x[50:] * x.dtype.type(1e-3)
                changed.append(x)
            with on_isa(isa), np.errstate(all="ignore"):
                expected = call(kernel, tuple(changed))
                given = laid_out(kernel, changed, "transposed")
                assert_same(kernel, args, call(kernel, given), expected, "transposed")


def unlike_rows(rng, count, n, dtype):
    """Return two rows of probabilities for each, near ones in some rows and unlike in others."""
    x = rng.normal(size=(count, n))
    y = x + rng.normal(size=(count, n)) * np.where(np.arange(count) % 3 == 1, 0.01, 4)[:, None]
    return [(np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)).astype(dtype) for z in (x, y)]


@ISA
@DTYPE
@pytest.mark.parametrize("kernel", ["entropy_probs", "kl_probs", "js_probs_probs"])
def test_many_classes_side_by_side(kernel, dtype, isa):
    """Rows that are taken as they lie, where one of them has to be settled otherwise."""
    rng = np.random.default_rng(9)
    count = letters(kernel)[0].count("v")
    for n in (257, 700):
        pair = unlike_rows(rng, 67, n, dtype)
        pairs = [pair, [x[1::3] for x in pair], [np.repeat(x[::3], 3, axis=0) for x in pair]]
        for value in (0, 1e-40, np.nan, np.inf, -0.25, 1.5):
            pairs.append([x.copy() for x in pair])
            for i, x in enumerate(pairs[-1]):
                x[11 + i, n // 2] = value
        for factor in (0, 2**-12, 3):
            pairs.append([x.copy() for x in pair])
            pairs[-1][-1][40] *= x.dtype.type(factor)
        for rows in pairs:
            for args in operands(kernel, len(rows[0]), n, dtype):
                given = (*rows[-count:], *args[count:])
                with on_isa(isa), np.errstate(all="ignore"):
                    expected = call(kernel, given)
                    laid = laid_out(kernel, given, "transposed")
                    assert_same(kernel, given, call(kernel, laid), expected, "transposed")


@DTYPE
@pytest.mark.parametrize("name", ["entropy", "kl_divergence", "js_divergence"])
@pytest.mark.parametrize("shape", [(1, 64), (3, 127), (2, 129), (5, 200), (1, 1040), (1, 1555)])
def test_pieces_of_many_classes_side_by_side(name, shape, dtype):
    """Tasks of several pieces, some rows of which are in two, from any place of a cache line on."""
    slabs, count = shape
    function = getattr(klce, name)
    rng = np.random.default_rng(10)
    pair = unlike_rows(rng, slabs * count, 272, dtype)
    pair[0][7::200, 3] = 1e-40
    pair[1][50] *= pair[1].dtype.type(0.25)
    pair = [x.reshape(slabs, count, -1) for x in pair][: 1 + (name != "entropy")]
    expected = function(*pair, axis=-1)
    for by in (0, 16):
        laid = [shifted(np.ascontiguousarray(x.swapaxes(1, 2)), by) for x in pair]
        for threads in (1, 2, 5):
            with klce.threads(threads):
                assert same_bits(function(*laid, axis=1), expected), (by, threads)


IN_BLOCKS = {
    "logsumexp": klce.logsumexp,
    "softmax": klce.softmax,
    "log_softmax": functools.partial(klce.log_softmax, temperature=0.7),
    "entropy": functools.partial(klce.entropy, form="logits"),
    "cross_entropy": functools.partial(klce.cross_entropy, z_loss=0.1, ignore_index=2),
    "cross_entropy of each": functools.partial(klce.cross_entropy, reduction="none"),
}


@DTYPE
@pytest.mark.parametrize("name", IN_BLOCKS)
@pytest.mark.parametrize("shape", [(1, 64), (3, 128), (2, 129), (5, 200), (1, 1040), (2, 1555)])
def test_blocks_of_many_classes_side_by_side(name, shape, dtype):
    """Blocks that are read, summed and stored in turn, from slab to slab, and in place too."""
    slabs, count = shape
    function = IN_BLOCKS[name]
    rng = np.random.default_rng(11)
    for n in (257, 291, 515):
        rows = (rng.standard_normal((slabs, count, n)) * 9).astype(dtype)
        rows[:, ::7] *= rows.dtype.type(60)
        labels = [rng.integers(n, size=(slabs, count))] if "cross" in name else []
        expected = function(rows, *labels, axis=-1)
        is_map = expected.shape == rows.shape
        for by in (0, 16):
            laid = shifted(np.ascontiguousarray(rows.swapaxes(1, 2)), by)
            given = laid.copy()
            for threads in (1, 2, 5):
                with klce.threads(threads):
                    result = function(laid, *labels, axis=1)
                    result = result.swapaxes(1, 2) if is_map else result
                    assert same_bits(result, expected), (n, by, threads)
                    if is_map:
                        function(laid, axis=1, out=laid)
                        assert same_bits(laid.swapaxes(1, 2), expected), (n, by, threads)
                        laid[:] = given


@ISA
@DTYPE
def test_long_blocks_side_by_side(dtype, isa):
    """Softmax takes more classes so than the others; three blocks of rows, on every ISA."""
    rng = np.random.default_rng(12)
    for n in (1030, 4097, 8193):
        x = (rng.standard_normal((3 * 64, n)) * 9).astype(dtype)
        x[60:70, 5] = np.nan, np.inf, -np.inf, 0, 1, 2, 3, 4, 5, 6
        x[130] = -np.inf
        with on_isa(isa), klce.threads(1), np.errstate(invalid="ignore"):
            for function in (klce.softmax, klce.log_softmax, klce.logsumexp):
                expected = function(x, axis=-1)
                result = function(np.asfortranarray(x), axis=-1)
                assert same_bits(result, expected), (function, n)


BETWEEN = {
    "logsumexp": klce.logsumexp,
    "softmax": klce.softmax,
    "log_softmax": klce.log_softmax,
    "entropy": functools.partial(klce.entropy, form="logits"),
    "kl_divergence": functools.partial(klce.kl_divergence, form="logits"),
    "js_divergence": functools.partial(klce.js_divergence, form="logits"),
}


@ISA
@DTYPE
@pytest.mark.parametrize("name", BETWEEN)
@pytest.mark.parametrize("shape", [(8, 17, 8), (5, 40, 3), (3, 130, 9), (2, 300, 7)])
def test_classes_between_other_axes(name, shape, dtype, isa):
    """Many random rows, of classes that are strided, next to each other, or apart in all axes."""
    function, rng = BETWEEN[name], np.random.default_rng(13)
    for draw in range(12):
        scale = 10.0 ** rng.uniform(-1, 1.5)
        x, y = (rng.standard_normal((2, *shape)) * scale).astype(dtype)
        if draw % 3 == 1:
            y = x + (rng.standard_normal(shape) * 1e-2).astype(dtype)
        pair = [x, y][: 1 + ("divergence" in name)]
        given = {
            "as they lie": pair,
            "apart": [np.repeat(np.repeat(a, 2, axis=1), 3, axis=2)[:, ::2, ::3] for a in pair],
            "reversed": [a[:, ::-1, ::-1].copy()[:, ::-1, ::-1] for a in pair],
            "Fortran": [np.asfortranarray(a) for a in pair],
        }
        turned = [np.ascontiguousarray(np.moveaxis(a, 1, -1)) for a in pair]
        with on_isa(isa):
            expected = function(*turned, axis=-1)
            if expected.shape == turned[0].shape:
                expected = np.moveaxis(expected, -1, 1)
            for layout, rows in given.items():
                assert same_bits(function(*rows, axis=-2), expected), (layout, draw)


@DTYPE
@KERNEL
def test_other_operands(kernel, dtype):
    """Labels and parameters: strided, reversed, of a smaller or foreign integer type."""
    inputs, _ = letters(kernel)
    for args in operands(kernel, 19, 40, dtype):
        expected = call(kernel, args)
        for change in (
            lambda x: np.repeat(x, 3)[1::3],
            lambda x: x[::-1].copy()[::-1],
            lambda x: x.astype(np.int8),
            lambda x: x.astype(np.uint16),
            lambda x: x.astype(">i8"),
        ):
            given = tuple(
                change(arg) if letter == "l" else arg
                for letter, arg in zip(inputs, args, strict=True)
            )
            assert_same(kernel, args, call(kernel, given), expected, "labels")


@DTYPE
@KERNEL
def test_broadcast_operands(kernel, dtype):
    """A row for all, and a number for all classes of a row: strides of 0."""
    inputs, _ = letters(kernel)
    for n in (1, 2, 5, 33, 300, 17000):
        for args in operands(kernel, 19 if n < 1000 else 2, n, dtype):
            for k, letter in enumerate(inputs):
                if letter not in "vgelw":
                    continue
                one = np.broadcast_to(args[k][:1], args[k].shape)
                views = (
                    [one] if letter == "l" else [one, np.broadcast_to(args[k][:, :1], one.shape)]
                )
                for view in views:
                    given = (*args[:k], view, *args[k + 1 :])
                    copied = (*args[:k], view.copy(), *args[k + 1 :])
                    assert_same(kernel, args, call(kernel, given), call(kernel, copied), k)
                # A row that NumPy itself broadcasts.
                given = (*args[:k], args[k][:1], *args[k + 1 :])
                copied = (*args[:k], one.copy(), *args[k + 1 :])
                if "e" not in inputs and (inputs.count("v") > 1 or letter in "lw"):
                    assert_same(kernel, args, call(kernel, given), call(kernel, copied), k)


@DTYPE
@KERNEL
def test_axes(kernel, dtype):
    """The classes along any axis of a block of rows, in C and in Fortran order."""
    inputs, outputs = letters(kernel)
    for n in (1, 5, 33, 500):
        for args in operands(kernel, 12, n, dtype):
            expected = call(kernel, args)
            if "e" in inputs:
                continue
            for axis in range(3):

                def turned(x, letter, axis=axis, n=n):
                    if letter in "vgw":
                        x = x.reshape(3, 4, n)
                        return np.ascontiguousarray(np.moveaxis(x, -1, axis))
                    if letter in "SL":
                        return x.reshape(3, 4, -1)
                    return x.reshape(3, 4) if letter in "ls" else x

                core = dict.fromkeys("vgw", (axis,)) | dict.fromkeys("SL", (-1,))
                axes = [core.get(letter, ()) for letter in inputs + outputs]
                given = tuple(map(turned, args, inputs))
                wanted = tuple(map(turned, expected, outputs))
                for order in "CF":
                    found = tuple(np.asarray(a, order=order) for a in given)
                    result = call(kernel, found, axes=axes)
                    assert_same(kernel, args, result, wanted, f"axis {axis} order {order}")


OUTPUTS = [name for name in LAYOUTS if name not in ("read-only", "byte-swapped", "one byte off")]


@DTYPE
@KERNEL
def test_outputs(kernel, dtype):
    _, outputs = letters(kernel)
    for args in operands_in_turn(kernel, SHAPES, dtype):
        expected = call(kernel, args)
        for layout in OUTPUTS:
            out = []
            for result in expected:
                filled = np.full_like(result, 99)
                # The outputs of one number a row are a column of the array laid out.
                if filled.ndim == 1:
                    out.append(LAYOUTS[layout](np.stack([filled] * 2, axis=1))[:, 0])
                else:
                    out.append(LAYOUTS[layout](filled))
            result = call(kernel, args, out=tuple(out))
            assert all(a is b for a, b in zip(result, out, strict=True))
            assert_same(kernel, args, result, expected, layout)
        assert len(outputs) == len(expected)


@DTYPE
@pytest.mark.parametrize("kernel", MAPS)
def test_in_place(kernel, dtype):
    for shape in (*SHAPES, (40, 1500), (1, 70000)):
        for args in operands(kernel, *shape, dtype):
            expected = call(kernel, args)
            for layout in OUTPUTS:
                x = LAYOUTS[layout](args[0].copy())
                with klce.threads(3):
                    result = call(kernel, (x, *args[1:]), out=x)
                assert result[0] is x
                assert_same(kernel, args, result, expected, layout)


@DTYPE
@pytest.mark.parametrize("kernel", MAPS)
def test_an_output_that_overlaps_its_input(kernel, dtype):
    for shape in ((19, 7), (40, 1500)):
        for args in operands(kernel, *shape, dtype):
            (expected,) = call(kernel, args)
            room = np.zeros((shape[0] + 1, shape[1] + 1), dtype)
            for source, target in (
                (np.s_[1:, 1:], np.s_[:-1, :-1]),
                (np.s_[:-1, :-1], np.s_[1:, 1:]),
                (np.s_[1:, 1:], np.s_[1:, :-1]),
                (np.s_[1:, 1:], np.s_[-1:0:-1, -1:0:-1]),
            ):
                room[source] = args[0]
                (result,) = call(kernel, (room[source], *args[1:]), out=room[target])
                assert same_bits(result, expected), (kernel, shape, source, target)
