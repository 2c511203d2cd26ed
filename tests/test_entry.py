"""Calls without options, which go to the kernel at once: as if they did not."""

import numpy as np
import pytest

import klce
from klce import _ufuncs
from tests.kernels import same_bits

P = np.random.default_rng(3).random((4, 6)) + 0.1
LABELS = np.array([0, 5, -100, 3])

# Of each function, an option that changes nothing, and how many arrays it takes.
LOSSES = {"cross_entropy": {"base": None}, "nll_loss": {"base": None}}
OPTIONS = {
    "logsumexp": {"keepdims": False},
    "softmax": {"temperature": 1.0},
    "log_softmax": {"temperature": 1.0},
    "information": {"base": None},
    "binary_entropy": {"base": None},
    "entropy": {"normalize": True},
    "rel_entr": {"base": None},
    "kl_divergence": {"base": None},
    "js_divergence": {"base": None},
    **LOSSES,
}
OF_TWO = ("rel_entr", "kl_divergence", "js_divergence")


def layouts(dtype):
    """Plain arrays, and those that only look so."""
    p = (10 * P).astype(dtype)
    yield from (p, p[0], p.reshape(2, 2, 6), p[:1, :1])
    yield from (np.asfortranarray(p), p[:, ::2], p.astype(p.dtype.newbyteorder()), p[:0])
    yield np.ma.masked_array(p)


def same(a, b):
    assert type(a) is type(b)
    assert (a.dtype, a.strides) == (b.dtype, b.strides)
    assert same_bits(a, b)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8])
@pytest.mark.parametrize("name", OPTIONS)
def test_as_with_an_option(name, dtype):
    f = getattr(klce, name)
    for x in layouts(dtype):
        args = [x]
        if name in OF_TWO:
            args.append(np.flip(x, -1).copy())
        elif name in LOSSES:
            args.append(np.resize(np.maximum(LABELS, 0) % x.shape[-1], x.shape[:-1]))
        same(f(*args), f(*args, **OPTIONS[name]))


@pytest.mark.parametrize("name", OPTIONS)
def test_the_last_axis_by_name(name):
    """As without it, where there is an axis to choose; one that only looks like -1 is refused."""
    f = getattr(klce, name)
    args = [P, np.flip(P, -1).copy()] if name in OF_TWO else [P, LABELS] if name in LOSSES else [P]
    if name in ("information", "binary_entropy", "rel_entr"):
        with pytest.raises(TypeError, match=r"unexpected keyword argument 'axis'"):
            f(*args, axis=-1)
        return
    same(f(*args, axis=-1), f(*args, axis=1))
    with pytest.raises(TypeError, match=r"^axis must be an integer"):
        f(*args, axis=-1.0)


@pytest.mark.parametrize("name", LOSSES)
def test_targets(name):
    """Whatever holds them; the ignored one does not count."""
    f = getattr(klce, name)
    expected = f(P, LABELS, base=None)
    for target in (
        LABELS,
        LABELS.tolist(),
        LABELS.astype(np.int16),
        LABELS.astype(">i8"),
        np.repeat(LABELS, 2)[::2],
    ):
        same(f(P, target), expected)
    assert np.isnan(f(P, np.full(4, -100)))


@pytest.mark.parametrize("name", LOSSES)
def test_errors(name):
    """The same sentences as for any call."""
    f = getattr(klce, name)
    with pytest.raises(IndexError, match=r"^target must hold .* got 6 in row 1$"):
        f(P, np.array([0, 6, 0, 0]))
    for wrong in (LABELS[:3], np.append(LABELS, 0), LABELS[:, np.newaxis], LABELS[:1]):
        with pytest.raises(ValueError, match=r"^target must have the shape of the rows, \(4,\)"):
            f(P, wrong)
    with pytest.raises(TypeError, match=r"^target must hold integers, class indices, got bool$"):
        f(P, LABELS > 0)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'target'"):
        f(P)


def test_no_argument_and_no_classes():
    with pytest.raises(ValueError, match=r"^x must have at least one class on axis -1"):
        klce.softmax(np.zeros((3, 0)))
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        klce.softmax()


def test_plain_calls_are_taken():
    """Or the tests above would hold a way against itself."""
    plain = _ufuncs.Plain("logsumexp")
    assert plain((P,)) is not None
    assert plain((P[:, ::2],)) is None
    loss = _ufuncs.Plain("nll", -100)
    assert loss((P, LABELS)) is not None
    assert loss((P, LABELS.astype(np.int32))) is None
    pair = _ufuncs.Plain("kl_probs", 1)
    assert pair((P, P)) is not None
    assert pair((P, P[:1])) is None
    assert pair((P, P.astype(np.float32))) is None


@pytest.mark.parametrize("name", OPTIONS)
def test_out(name):
    """As with an option beside it: the very array, whatever its layout, also where it overlaps."""
    f, options = getattr(klce, name), OPTIONS[name]
    for dtype in (np.float32, np.float64):
        p = P.astype(dtype)
        args = (
            [p, np.flip(p, -1).copy()] if name in OF_TWO else [p, LABELS] if name in LOSSES else [p]
        )
        expected = np.asarray(f(*args))
        spread = np.zeros(tuple(2 * n for n in expected.shape), expected.dtype)
        for out in (
            np.zeros_like(expected),
            spread[(*(slice(None, None, 2) for _ in expected.shape), ...)],
            np.zeros(expected.shape, np.float64),
        ):
            assert f(*args, out=out) is out
            assert same_bits(out.astype(dtype), expected)
            assert same_bits(out, f(*args, out=np.zeros_like(out), **options))
        for wrong in (np.zeros(7, dtype), np.zeros(expected.shape, np.int32), [0.0]):
            with pytest.raises((TypeError, ValueError), match=r"^out must"):
                f(*args, out=wrong)
        frozen = np.zeros_like(expected)
        frozen.flags.writeable = False
        with pytest.raises(ValueError, match=r"^out must be writable"):
            f(*args, out=frozen)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "information", "binary_entropy"])
def test_out_that_overlaps(name):
    f = getattr(klce, name)
    for low in (0, 6, 3):
        memory = np.concatenate([P.ravel(), P.ravel()])
        x, out = memory[:24].reshape(4, 6), memory[low : low + 24].reshape(4, 6)
        expected = f(x.copy())
        assert f(x, out=out) is out
        assert same_bits(out, expected)
    x = P.copy()
    expected = f(P)
    assert f(x, out=x) is x
    assert same_bits(x, expected)
