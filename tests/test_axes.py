"""Several axes of classes as one: views, blocks of copies, outputs and overlaps."""

import itertools
import math

import numpy as np
import pytest

import klce
from klce import _axes
from tests.kernels import same_bits

MAPS = [klce.softmax, klce.log_softmax]
X = np.random.default_rng(11).normal(size=(3, 4, 5, 6))


def every_axis(ndim):
    for count in range(ndim + 1):
        yield from itertools.combinations(range(ndim), count)


def flat(x, axes):
    """The classes as one contiguous axis, by a copy."""
    moved = np.moveaxis(x, axes, range(x.ndim - len(axes), x.ndim))
    rows = moved.shape[: x.ndim - len(axes)]
    return np.ascontiguousarray(moved).reshape(*rows, math.prod(moved.shape[len(rows) :])), moved


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("block", [1, 7, 40, _axes.BLOCK])
def test_axes(block, order, monkeypatch):
    """Whatever is copied in which blocks, the bits are those of contiguous rows."""
    monkeypatch.setattr(_axes, "BLOCK", block)
    for x in (np.asarray(X, order=order), X[::-1, :, ::2], X[:, :, :1]):
        mask = np.broadcast_to(X[0, 0, 0] > -0.5, x.shape)
        for axes in every_axis(x.ndim):
            rows, moved = flat(x, axes)
            where, _ = flat(mask, axes)
            given = axes if len(axes) != x.ndim else None
            expected = klce.logsumexp(rows, where=where)
            assert same_bits(klce.logsumexp(x, given, where=mask), expected)
            out = np.zeros(expected.shape)
            assert klce.logsumexp(x, given, where=mask, out=out) is out
            assert same_bits(out, np.asarray(expected))
            kept = klce.logsumexp(x, given, where=mask, keepdims=True)
            assert kept.shape == tuple(1 if i in axes else n for i, n in enumerate(x.shape))
            assert same_bits(kept.reshape(expected.shape), np.asarray(expected))
            entropy = klce.entropy(np.exp(x), given, where=mask)
            assert same_bits(entropy, klce.entropy(np.exp(rows), where=where))
            for form, f in (("logits", klce.kl_divergence), ("probs", klce.js_divergence)):
                p = x if form == "logits" else np.exp(x)
                q = p[::-1]
                wanted = f(*(flat(z, axes)[0] for z in (p, q)), form=form, where=where)
                if all(n == 1 for i, n in enumerate(mask.shape) if i in axes):
                    wanted = np.where(where[..., 0], wanted, 0)  # it is a mask of rows
                assert same_bits(f(p, q, given, form=form, where=mask), wanted)
                out = np.zeros(wanted.shape)
                assert f(p, q, given, form=form, where=mask, out=out) is out
                assert same_bits(out, np.asarray(wanted))
            log, sign = klce.logsumexp(x, given, b=x[0, 0], return_sign=True)
            factors, _ = flat(np.broadcast_to(x[0, 0], x.shape), axes)
            expected = klce.logsumexp(rows, b=factors, return_sign=True)
            assert same_bits(log, expected[0])
            assert same_bits(sign, expected[1])
            for f in MAPS:
                wanted = f(rows, where=where).reshape(moved.shape)
                wanted = np.moveaxis(wanted, range(x.ndim - len(axes), x.ndim), axes)
                assert same_bits(f(x, given, where=mask), wanted)
                y = x.copy(order="K")
                assert f(y, given, where=mask, out=y) is y
                assert same_bits(y, wanted)


def test_pairs_of_several_shapes():
    """Rows broadcast, the classes on two axes of both, counted in their own shapes."""
    p, q = np.exp(X), np.exp(X[0, ::-1])
    for f in (klce.kl_divergence, klce.js_divergence):
        expected = f(flat(p, (1, 3))[0], flat(np.broadcast_to(q, p.shape), (1, 3))[0])
        assert same_bits(f(p, q, (-3, -1)), expected)
        assert same_bits(f(q, p[0], axis=None), f(q.ravel(), p[0].ravel()))
        kept = f(p, q, (-1, -3), keepdims=True)
        assert kept.shape == (3, 1, 5, 1)
        assert same_bits(kept[:, 0, :, 0], expected)
        total = f(p, q, (-1, -3), reduction="batchmean")
        np.testing.assert_allclose(total, expected.sum() / 3, rtol=1e-14)


def test_an_output_that_overlaps():
    """As without the overlap, though blocks are written while others are still to be read."""
    for axes in ((0, 1), (0, 2), (1, 2)):
        for f in MAPS:
            room = np.zeros((5, 5, 6))
            room[1:] = X[0]
            assert same_bits(f(room[1:], axes, out=room[:-1]), f(X[0], axes))
        room = X[0].copy()
        out = room[0, 0, : X[0].sum(axis=axes).size]
        assert same_bits(klce.logsumexp(room, axes, out=out), klce.logsumexp(X[0], axes))


def test_an_output_that_overlaps_the_mask(monkeypatch):
    monkeypatch.setattr(_axes, "BLOCK", 1)
    x = X[0].copy()
    for axes in ((0, 2), ()):
        for f in (klce.logsumexp, *MAPS):
            shape = f(x, axes).shape
            room = np.zeros(x.size)
            out = room[: math.prod(shape)].reshape(shape)
            mask = room.view(bool)[: x.size].reshape(x.shape)
            mask[...] = x > -0.5
            expected = f(x, axes, where=mask.copy())
            assert same_bits(f(x, axes, where=mask, out=out), expected)


def test_views_are_not_copied(monkeypatch):
    """Axes that are one in memory go to the kernel as they are, broadcast ones too."""
    shapes = []
    joined = _axes.joined

    def watched(call, arrays, axes, outs, *, maps):
        def seen(*parts, out):
            shapes.append(
                [
                    np.shares_memory(p, a)
                    for p, a in zip(parts, arrays, strict=True)
                    if a is not None
                ]
            )
            return call(*parts, out=out)

        return joined(seen, arrays, axes, outs, maps=maps)

    monkeypatch.setattr(_axes, "joined", watched)
    klce.logsumexp(X, axis=None)
    klce.logsumexp(X, axis=(1, 2, 3))
    klce.logsumexp(X[:, ::2], axis=(2, 3))
    klce.logsumexp(np.asfortranarray(X).T, axis=(0, 1))
    klce.logsumexp(X, axis=(2, 3), b=2.0)
    klce.softmax(X, axis=(0, 1))
    assert all(all(shared) for shared in shapes)
    assert len(shapes) == 6


def test_a_scalar():
    for x in (1.5, np.float32(1.5), np.array(1.5)):
        for axis in (-1, 0, None, ()):
            assert klce.logsumexp(x, axis) == 1.5
            assert klce.logsumexp(x, axis, b=-2.0, return_sign=True)[1] == -1
            assert klce.logsumexp(x, axis, where=False) == -np.inf
            assert klce.softmax(x, axis) == 1
            assert klce.logsumexp(x, axis).dtype == np.asarray(x).dtype
            out = np.zeros((), np.asarray(x).dtype)
            assert klce.softmax(x, axis, out=out) is out
            assert out == 1


def test_nothing():
    for shape in ((0,), (0, 3), (3, 0), (2, 0, 3)):
        x = np.zeros(shape)
        assert klce.logsumexp(x, axis=None) == -np.inf
        for axes in every_axis(len(shape)):
            expected = np.full(np.sum(x, axis=axes).shape, -np.inf)
            assert same_bits(np.asarray(klce.logsumexp(x, axes)), expected)
            log, sign = klce.logsumexp(x, axes, b=1.0, return_sign=True)
            assert same_bits(np.asarray(log), expected)
            assert (sign == 0).all()


def last(x):
    """Put the classes of axis 1 last, together."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


def losses_of(x, target, q, weight, rows):
    """Calls with options on classes along an axis, of which plain calls know nothing."""
    some = {"reduction": "none", "temperature": 2.0}
    f = klce.cross_entropy
    return {
        "ignored": lambda axis: f(x, target, axis=axis, ignore_index=0, **some),
        "weight": lambda axis: f(x, target, axis=axis, weight=weight, **some),
        "a weight for all": lambda axis: f(
            x, target, axis=axis, weight=np.broadcast_to(weight[:1], weight.shape), **some
        ),
        "reversed": lambda axis: f(x, target, axis=axis, weight=weight[::-1], **some),
        "rows": lambda axis: f(x, target, axis=axis, sample_weight=rows, **some),
        "a row for all": lambda axis: f(x, target, axis=axis, sample_weight=rows[:1, :1], **some),
        "smooth": lambda axis: f(x, target, axis=axis, label_smoothing=0.1, z_loss=0.1, **some),
        "soft": lambda axis: f(x, q, axis=axis, **some),
        "strided": lambda axis: f(x, np.repeat(target, 2, axis=0)[::2], axis=axis, **some),
        "softmax": lambda axis: np.moveaxis(klce.softmax(x, axis, temperature=2.0), axis, -1),
        "kl": lambda axis: klce.kl_divergence(x, q, axis, form=("logits", "probs"), base=2),
        "kl of one": lambda axis: klce.kl_divergence(x, q[:1], axis, form=("logits", "probs")),
    }


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16], ids=lambda d: d.__name__)
@pytest.mark.parametrize("n", [9, 40, 300])
def test_options_by_slabs(n, dtype):
    """Classes on a middle axis: as if they were on the last."""
    rng = np.random.default_rng(n)
    x = rng.standard_normal((30, n, 37)).astype(dtype)
    q = klce.softmax(rng.standard_normal(x.shape).astype(dtype), axis=1)
    weight = rng.random(n).astype(np.float64 if dtype is np.float64 else np.float32)
    rows = rng.random((30, 37)).astype(weight.dtype)
    target = rng.integers(0, n, rows.shape)
    there = losses_of(x, target, q, weight, rows)
    here = losses_of(last(x), target, last(q), weight, rows)
    with klce.threads(3):
        for name, f in there.items():
            assert same_bits(f(1), here[name](-1)), name


def test_outputs_by_slabs():
    """In place, and into memory that the input has in common with it."""
    x = np.random.default_rng(2).standard_normal((5, 40, 37))
    expected = klce.softmax(x, axis=1, temperature=2.0)
    out = x.copy()
    assert klce.softmax(out, axis=1, temperature=2.0, out=out) is out
    assert same_bits(out, expected)
    room = np.empty((6, 40, 37))
    for source, target in ((room[:5], room[1:]), (room[1:], room[:5])):
        source[...] = x
        klce.softmax(source, axis=1, temperature=2.0, out=target)
        assert same_bits(target, expected)
    turned = np.empty((37, 40, 5)).T
    klce.softmax(x, axis=1, temperature=2.0, out=turned)
    assert same_bits(turned, expected)
    results = np.empty((5, 37))
    assert klce.entropy(x, 1, form="logits", base=2, out=results) is results
    assert same_bits(results, klce.entropy(last(x), form="logits", base=2))
    with pytest.raises(IndexError, match=r"got 40 in row 4, 36$"):
        klce.cross_entropy(x, np.full((5, 37), 39) + (np.arange(185).reshape(5, 37) == 184), axis=1)
