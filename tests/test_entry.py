"""Calls that go to the kernel at once, of which all else is plain: as if they did not."""

import itertools

import ml_dtypes
import numpy as np
import pytest

import klce
from klce import _ufuncs
from tests.functions import ELEMENTWISE
from tests.kernels import same_bits

P = np.random.default_rng(3).random((4, 6)) + 0.1
LABELS = np.array([0, 5, -100, 3])
W = np.array([0.5, 1.0, 2.0, 0.0, 1.0, 3.0])

OF_TWO = ("rel_entr", "kl_divergence", "js_divergence")
LOSSES = ("cross_entropy", "nll_loss")
ALL = (
    *("logsumexp", "softmax", "log_softmax", "entropy", *LOSSES),
    *(*ELEMENTWISE, "kl_divergence", "js_divergence"),
)
FORMS = ("cross_entropy", "entropy", "kl_divergence", "js_divergence")
REDUCTIONS = (*LOSSES, "kl_divergence", "js_divergence")


def the_long_way(name, *args, **options):
    return getattr(klce, name).__wrapped__(*args, **options)


def arguments(name, x):
    """Arrays that a function takes, the first of which is x."""
    if name in OF_TWO:
        return [x, np.flip(x, -1).copy()]
    if name in LOSSES:
        return [x, np.resize(np.maximum(LABELS, 0) % x.shape[-1], x.shape[:-1])]
    return [x]


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


DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64, np.int8]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("name", ALL)
def test_as_the_long_way(name, dtype):
    for x in layouts(dtype):
        args = arguments(name, x)
        same(getattr(klce, name)(*args), the_long_way(name, *args))


@pytest.mark.parametrize("name", FORMS)
def test_forms(name):
    for form in ("probs", "log_probs", "logits"):
        args = arguments(name, P)
        same(getattr(klce, name)(*args, form=form), the_long_way(name, *args, form=form))
    for wrong in ("prob", None, 3, ["probs"], ("probs", "prob", "probs")):
        with pytest.raises(ValueError, match=r"^form must be"):
            getattr(klce, name)(*args, form=wrong)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name):
    for how in ("none", "mean", "sum", "batchmean"):
        for x in (P, P.astype(np.float32), P[0], P.reshape(2, 2, 6), P[:0]):
            args = arguments(name, x)
            if how == "batchmean" and name in LOSSES:
                with pytest.raises(ValueError, match=r"^reduction must be"):
                    getattr(klce, name)(*args, reduction=how)
            else:
                result = getattr(klce, name)(*args, reduction=how)
                same(result, the_long_way(name, *args, reduction=how))
    for wrong in ("none ", None, np.array(["mean"]), ["mean"]):
        with pytest.raises(ValueError, match=r"^reduction must be"):
            getattr(klce, name)(*arguments(name, P), reduction=wrong)
    large = np.array([[-3e38, 0.0], [-3e38, 0.0]], np.float32)  # whose sum is beyond float32
    args = [large, np.array([0, 0])] if name in LOSSES else [large, large[:, ::-1].copy()]
    form = {} if name == "nll_loss" else {"form": "logits"}
    result = getattr(klce, name)(*args, reduction="sum", **form)
    same(result, the_long_way(name, *args, reduction="sum", **form))


@pytest.mark.parametrize("name", ALL)
def test_defaults_by_name(name):
    f = getattr(klce, name)
    args = arguments(name, P)
    options = dict(f.__wrapped__.__kwdefaults__)
    same(f(*args, **options), the_long_way(name, *args))
    for option in options.keys() & {"axis", "form", "reduction", "temperature", "ignore_index"}:
        with pytest.raises((TypeError, ValueError), match=rf"^{option} must be"):
            f(*args, **{option: object()})
    for unknown in ({"reduction": "mean"}, {"form": "probs"}, {"axes": -1}, {"out_": None}):
        if not unknown.keys() & options.keys():
            with pytest.raises(TypeError, match="unexpected keyword argument"):
                f(*args, **unknown)


@pytest.mark.parametrize("name", ALL)
def test_the_last_axis_by_name(name):
    """As without it, where there is an axis to choose; one that only looks like -1 is refused."""
    f = getattr(klce, name)
    args = arguments(name, P)
    if name in ELEMENTWISE:
        with pytest.raises(TypeError, match=r"unexpected keyword argument 'axis'"):
            f(*args, axis=-1)
        return
    for axis in (-1, 1):
        same(f(*args, axis=axis), the_long_way(name, *args))
    with pytest.raises(TypeError, match=r"^axis must be an integer"):
        f(*args, axis=-1.0)


def on_axis(name, shape, axis, dtype):
    """Arguments with their classes on an axis; of the labels one is ignored."""
    x = (10 * np.random.default_rng(6).random(shape) + 0.1).astype(dtype)
    if name in OF_TWO:
        return [x, x[::-1].copy()]
    if name in LOSSES:
        rows = np.delete(shape, axis)
        target = np.arange(np.prod(rows)).reshape(rows) % shape[axis]
        target.reshape(-1)[len(target) // 2] = -100
        return [x, target]
    return [x]


@pytest.mark.parametrize("dtype", DTYPES[:4], ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("name", [name for name in ALL if name not in ELEMENTWISE])
def test_any_axis(name, dtype):
    """Few classes and many, rows in several slabs, on threads as well."""
    f = getattr(klce, name)
    for shape in ((3, 5, 4), (2, 40, 33), (2, 7, 3, 11), (20, 1, 30), (150, 9, 40), (5, 300, 70)):
        for axis in range(-1, len(shape)):
            args = on_axis(name, shape, axis, dtype)
            expected = the_long_way(name, *args, axis=axis)
            with klce.threads(3):
                same(f(*args, axis=axis), expected)
            if np.ndim(expected):
                out = np.empty_like(expected)
                assert f(*args, axis=axis, out=out) is out
                assert same_bits(out, expected)
            for how in ("none", "mean", "sum") if name in REDUCTIONS else ():
                result = f(*args, axis=axis, reduction=how)
                same(result, the_long_way(name, *args, axis=axis, reduction=how))
    for axis in (4, -5, 10**30):
        with pytest.raises((ValueError, OverflowError), match=r"axis"):
            f(*on_axis(name, (2, 7, 3, 11), 1, dtype), axis=axis)


@pytest.mark.parametrize("name", LOSSES)
def test_targets(name):
    """Whatever holds them; the ignored one does not count."""
    f = getattr(klce, name)
    expected = the_long_way(name, P, LABELS)
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
    assert _ufuncs.Plain("softmax")((P, 1.0), None, "mean") is None
    plain = _ufuncs.Plain("logsumexp")
    assert plain((P,)) is not None
    assert plain(()) is None
    assert plain((P[:, ::2],)) is None
    loss = _ufuncs.Plain("nll")
    args = (P, LABELS, -100)
    assert loss(args) is not None
    assert loss(args, None, "mean") is not None
    for how, shape in (("none", 4), ("sum", ())):
        out = np.zeros(shape)
        assert loss(args, out, how) is out
        assert loss(args, np.zeros(2), how) is None
    assert loss(args, None, "batchmean") is None
    assert loss((P, LABELS.astype(np.int32), -100)) is None
    assert loss(args, None, "none", -1, None, 2.0) is None
    mask = np.ones(P.shape, bool)
    assert loss(args, None, "mean", -1, mask) is not None
    assert loss(args, None, "mean", -1, mask[0]) is None
    assert loss((P[:, :1].copy(), LABELS, 5), None, "mean", -1, mask[:, :1].copy()) is None
    pair = _ufuncs.Plain("kl_probs")
    assert pair((P, P, 1)) is not None
    assert pair((P, P[:1], 1)) is None
    assert pair((P, P.astype(np.float32), 1)) is None
    weighted = _ufuncs.Plain("weighted_nll")
    for weight in (2.0, W, np.broadcast_to(2.0, 6)):
        assert weighted((P, LABELS, -100, weight, 1.0), None, "mean") is not None
    for weight in (W[:5], W[::-1], W.astype(np.float32), np.broadcast_to(2.0, 5), np.array(2.0)):
        assert weighted((P, LABELS, -100, weight, 1.0), None, "mean") is None


def test_labels_that_are_one_for_all():
    """The mean divides by those that are not ignored."""
    loss = _ufuncs.Plain("nll")
    two, bad = np.broadcast_to(2, 4), np.broadcast_to(6, 4)
    assert loss((P, two, -100), None, "mean") == loss((P, two.copy(), -100), None, "mean")
    assert np.isnan(loss((P, two, 2), None, "mean"))
    for target in (bad, two[:3], np.array(2), 2):
        assert loss((P, target, -100), None, "mean") is None


def spaced(args):
    """The same arrays in a layout of which none is plain."""
    return [np.repeat(a, 2, axis=-1)[..., ::2] if a.ndim else a for a in args]


OPTIONS = {
    "temperature": [0.5, 3, 1e-6, 1],
    "z_loss": [0.25],
    "label_smoothing": [0.1, 1, 0, np.float64(0)],
    "ignore_index": [2, 10**6, np.int8(2)],
    "weight": [W, W.tolist(), W.astype(np.float32), np.array([0.0, 0, 0, 0, 0, 1])],
    "sample_weight": [np.array([0.5, 2, 0, 1]), np.array([0.5, 2, 0, 1], np.float32), 2.0],
    "base": [2, 10.0],
    "where": [P > 0.5, P[0] > 0.5, (P > 0.5)[:, :1]],
    "normalize": [False],
    "keepdims": [True],
}
WRONG = {
    "temperature": [0.0, np.nan, "1"],
    "z_loss": [-1.0, np.inf],
    "label_smoothing": [1.5, np.nan],
    "ignore_index": [2**63, 1.0],
    "weight": [W[:5], -W, W * np.nan, np.broadcast_to(W, (4, 6)).copy(), "w"],
    "sample_weight": [np.ones(3), -np.ones(4), np.full(4, np.inf), np.ones((4, 1))],
    "base": [1, -2, "2"],
    "where": [P, np.ones((3, 6), bool)],
}


@pytest.mark.parametrize("name", ALL)
def test_options(name):
    """The same bits as where nothing is plain; and of pairs of options, with what they do."""
    f = getattr(klce, name)
    forms = ("probs", "log_probs", "logits") if name in FORMS else ("",)
    for form, dtype in itertools.product(forms, DTYPES[:4]):
        args = arguments(name, P.astype(dtype))
        singles = [
            {option: value}
            for option in sorted(OPTIONS.keys() & f.__wrapped__.__kwdefaults__.keys())
            for value in OPTIONS[option]
            if not (option in ("temperature", "z_loss") and form in ("probs", "log_probs"))
            and not (option == "normalize" and form == "logits")
        ]
        pairs = [a | b for a, b in itertools.combinations(singles, 2)]
        reductions = [{"reduction": how} for how in ("mean", "none", "sum") if name in LOSSES]
        for given, reduction in itertools.product(singles + pairs, reductions or [{}]):
            kwargs = given | reduction | ({"form": form} if form else {})
            same(f(*args, **kwargs), f(*spaced(args), **kwargs))


@pytest.mark.parametrize("name", ALL)
def test_wrong_options(name):
    """They are refused with one sentence, whether the arrays are plain or not."""
    f = getattr(klce, name)
    args = arguments(name, P)
    for option in WRONG.keys() & f.__wrapped__.__kwdefaults__.keys():
        for value in WRONG[option]:
            form = {"form": "logits"} if name in FORMS else {}
            with pytest.raises((TypeError, ValueError), match=rf"^{option} ") as plain:
                f(*args, **{option: value}, **form)
            with pytest.raises(plain.type) as long:
                f(*spaced(args), **{option: value}, **form)
            assert str(plain.value) == str(long.value)


@pytest.mark.parametrize("name", ALL)
def test_out(name):
    """As the long way: the very array, whatever its layout, also where it overlaps."""
    f = getattr(klce, name)
    for dtype in (np.float32, np.float64):
        args = arguments(name, P.astype(dtype))
        expected = np.asarray(f(*args))
        spread = np.zeros(tuple(2 * n for n in expected.shape), expected.dtype)
        for out in (
            np.zeros_like(expected),
            spread[(*(slice(None, None, 2) for _ in expected.shape), ...)],
            np.zeros(expected.shape, np.float64),
        ):
            assert f(*args, out=out) is out
            assert same_bits(out.astype(dtype), expected)
            assert same_bits(out, the_long_way(name, *args, out=np.zeros_like(out)))
        for wrong in (np.zeros(7, dtype), np.zeros(expected.shape, np.int32), [0.0]):
            with pytest.raises((TypeError, ValueError), match=r"^out must"):
                f(*args, out=wrong)
        frozen = np.zeros_like(expected)
        frozen.flags.writeable = False
        with pytest.raises(ValueError, match=r"^out must be writable"):
            f(*args, out=frozen)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_out_of_reductions(name):
    f = getattr(klce, name)
    for how in ("none", "mean", "sum"):
        for x in (P, P.astype(np.float32), P.astype(np.float16), P.reshape(2, 2, 6)):
            args = arguments(name, x)
            out = np.zeros_like(f(*args, reduction=how))
            assert f(*args, reduction=how, out=out) is out
            same(out, np.asarray(the_long_way(name, *args, reduction=how)))
            with pytest.raises(ValueError, match=r"^out must"):
                f(*args, reduction=how, out=np.zeros(3))


@pytest.mark.parametrize("name", LOSSES)
def test_a_bad_label_leaves_out_as_it_was(name):
    for how, options in itertools.product(("none", "mean", "sum"), ({}, {"weight": W})):
        out = np.full(4 if how == "none" else (), 7.0)
        for target, row in ((np.array([0, 1, 6, 0]), 2), (np.broadcast_to(6, 4), 0)):
            with pytest.raises(IndexError, match=rf"^target must hold .* got 6 in row {row}$"):
                getattr(klce, name)(P, target, reduction=how, out=out, **options)
            assert np.all(out == 7)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp", "entropy"])
def test_out_that_overlaps_the_mask(name):
    f = getattr(klce, name)
    x = np.random.default_rng(4).random((40, 80))
    for axis in (0, 1):
        out = np.zeros_like(f(x, axis=axis))
        memory = out if out.ndim == 2 else np.zeros(400)
        out = memory if out.ndim == 2 else memory[: out.size]
        mask = memory.view(bool).reshape(-1)[: x.size].reshape(x.shape)
        mask[...] = x > 0.3
        expected = f(x, axis=axis, where=mask.copy())
        assert f(x, axis=axis, where=mask, out=out) is out
        assert same_bits(out, expected)


def test_out_that_overlaps_the_weights():
    """A weight that is one of the outputs is not in its place."""
    rng = np.random.default_rng(4)
    x, labels = rng.random((100, 6)), np.zeros(100, np.int64)
    for weights in (lambda out: out[:1], lambda out: out, lambda out: out[:1].reshape(())):
        for target in (
            rng.random((100, 6)),
            labels,
            labels.astype(np.int32),
            labels[:1].repeat(100),
        ):
            for f in (klce.cross_entropy, klce.nll_loss):
                if target.ndim == 2 and f is klce.nll_loss:
                    continue
                out = np.full(100, 0.5)
                expected = f(x, target, sample_weight=np.full(100, 0.5), reduction="none")
                f(x, target, sample_weight=weights(out), reduction="none", out=out)
                assert same_bits(out, expected)
                if target.ndim == 1:
                    out = np.full(100, 0.5)
                    by_axis = {"axis": 0, "reduction": "none", "out": out}
                    f(x.T.copy(), target, sample_weight=weights(out), **by_axis)
                    assert same_bits(out, expected)


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
