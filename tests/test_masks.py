"""A mask does what filling the masked classes does, in every kernel that takes one, to the bit."""

from functools import lru_cache

import numpy as np
import pytest

import klce
from klce import _ufuncs
from tests.kernels import (
    DTYPES,
    EXTENTS,
    ISAS,
    call,
    letters,
    on_isa,
    operands,
    outputs_of,
    same_bits,
)
from tests.test_layouts import LAYOUTS

FILL = {"-": -np.inf, "0": 0.0}
KERNEL = pytest.mark.parametrize("kernel", sorted(_ufuncs.MASKED))
DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=str)
SHAPES = [(19, 1), (19, 2), (40, 10), (19, 33), (5, 600), (3, 2050), (2, 40000), (3, 0)]


def masks(count, n):
    """Random ones, of the classes of each row, of all rows, and of whole rows; by their kind."""
    rng = np.random.default_rng((count, n))
    each = rng.random((count, n)) < rng.random((count, 1))
    return {
        "each": each,
        "classes": np.broadcast_to(each[-1:], each.shape),
        "rows": np.broadcast_to(rng.random((count, 1)) < 0.5, each.shape),
        "all": np.ones_like(each),
        "none": np.zeros_like(each),
    }


def filled(kernel, args, mask):
    """The operands with the fill where they are masked."""
    fills = iter(_ufuncs.FILLS[kernel])
    return tuple(
        np.where(mask, arg, arg.dtype.type(FILL[next(fills)])) if letter in "vg" else arg
        for letter, arg in zip(letters(kernel)[0], args, strict=True)
    )


def call_masked(kernel, args, mask, **kwargs):
    if kernel in EXTENTS:
        first = np.broadcast_to(args[0], np.broadcast_shapes(np.shape(args[0]), mask.shape))
        kwargs["out"] = outputs_of(kernel, (first, *args[1:]))
    result = _ufuncs.MASKED[kernel](*args, mask, **kwargs)
    return result if isinstance(result, tuple) else (result,)


def calls(kernel, shapes, dtype):
    """Yield the operands of a call of each shape, the sets of parameters in turn."""
    for i, shape in enumerate(shapes):
        if "l" in letters(kernel)[0] and shape[1] == 0:
            continue
        choice = list(operands(kernel, *shape, dtype))
        if kernel.startswith("loss_"):
            # Smoothing gives masked classes no share: tests/test_losses.py.
            choice = [args for args in choice if args[7] == 0]
        yield choice[i % len(choice)]


@lru_cache(maxsize=1)
def cases(kernel, dtype):
    """Calls, masks and operands that are filled instead; made once for all instruction sets."""
    return [
        (args, mask, filled(kernel, args, mask), f"{kernel} {dtype} {args[0].shape} {kind}")
        for args in calls(kernel, SHAPES, dtype)
        for kind, mask in masks(*args[0].shape).items()
    ]


def assert_same(actual, expected, about):
    for a, b in zip(actual, expected, strict=True):
        assert same_bits(a, b), about


@pytest.mark.parametrize("isa", ISAS)
@DTYPE
@KERNEL
def test_masks(kernel, dtype, isa):
    with on_isa(isa):
        for args, mask, instead, about in cases(kernel, dtype):
            assert_same(call_masked(kernel, args, mask), call(kernel, instead), about)


@DTYPE
@KERNEL
def test_layouts_and_threads(kernel, dtype):
    """One shape is shared among threads: it has more elements than THRESHOLD of src_c/rows.c."""
    for args in calls(kernel, [(50, 1500), (19, 7)], dtype):
        mask = masks(*args[0].shape)["each"]
        expected = call(kernel, filled(kernel, args, mask))
        for layout in ("transposed", "strided", "both reversed"):
            turned = tuple(
                LAYOUTS[layout](arg) if letter in "vg" else arg
                for letter, arg in zip(letters(kernel)[0], args, strict=True)
            )
            where = LAYOUTS[layout](mask)
            for threads in (1, 3):
                about = kernel, dtype, args[0].shape, layout, threads
                with klce.threads(threads):
                    assert_same(call_masked(kernel, turned, mask), expected, about)
                    assert_same(call_masked(kernel, args, where), expected, about)
                    assert_same(call_masked(kernel, turned, where), expected, about)


@DTYPE
@KERNEL
def test_one_row_against_many(kernel, dtype):
    inputs, _ = letters(kernel)
    for shape in ((40, 10), (3, 3000)):
        for args in operands(kernel, *shape, dtype):
            if kernel.startswith("loss_") and args[7] != 0:
                continue
            for kind, mask in masks(*shape).items():
                one = tuple(
                    arg[:1] if letter in "vg" else arg
                    for letter, arg in zip(inputs, args, strict=True)
                )
                many = tuple(
                    np.broadcast_to(arg, shape) if letter in "vg" else arg
                    for letter, arg in zip(inputs, one, strict=True)
                )
                expected = call(kernel, filled(kernel, many, mask))
                assert_same(call_masked(kernel, one, mask), expected, (kind, shape))


@DTYPE
@pytest.mark.parametrize("kernel", ["softmax", "log_softmax"])
def test_in_place(kernel, dtype):
    for args, mask, instead, about in cases(kernel, dtype):
        x = args[0].copy()
        call_masked(kernel, (x, *args[1:]), mask, out=x)
        assert same_bits(x, call(kernel, instead)[0]), about


@DTYPE
@KERNEL
def test_a_parameter_for_each_row(kernel, dtype):
    inputs, _ = letters(kernel)
    for args in operands(kernel, 5, 33, dtype):
        mask = masks(5, 33)["each"]
        varied = tuple(
            np.full(5, arg) if letter in "id" else arg
            for letter, arg in zip(inputs, args, strict=True)
        )
        expected = call_masked(kernel, args, mask)
        assert_same(call_masked(kernel, varied, mask), expected, kernel)


def test_the_labels_class_may_be_masked():
    x, mask = np.zeros((2, 3)), np.array([True, True, False])
    for kernel, rest in (("cross_entropy", (1.0, 0.0)), ("nll", ()), ("nll_probs", ())):
        x = np.full((2, 3), 0.25)
        loss = _ufuncs.MASKED[kernel](x, [0, 2], -100, *rest, mask)
        assert loss[1] == np.inf
        assert np.isfinite(loss[0])
