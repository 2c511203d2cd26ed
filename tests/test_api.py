"""The public functions against their specification: every option, any shape, layout and dtype."""

import inspect
import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import klce
from klce import reference
from tests.functions import ELEMENTWISE, FLOATS, SPECIAL, TEMPERATURES, arrays, close, masks
from tests.kernels import same_bits

FUNCTIONS = [
    "logsumexp",
    "softmax",
    "log_softmax",
    "information",
    "binary_entropy",
    "entropy",
    "nll_loss",
    "cross_entropy",
    "kl_divergence",
    "js_divergence",
    "rel_entr",
]
LOSSES = ("nll_loss", "cross_entropy")
PAIRS = ("kl_divergence", "js_divergence", "rel_entr")

# --- signatures -----------------------------------------------------------------------------------

DIVERGENCE = (
    "p, q, axis=-1, *, form='probs', normalize=True, temperature=1.0, where=None, base=None, "
    "reduction='none', keepdims=False, out=None"
)
SIGNATURES = {
    "RowTable": "columns, shape",
    "score": (
        "logits, target=None, *, axis=-1, want=None, top_k=0, candidates=None, form='logits', "
        "temperature=1.0, where=None, ignore_index=-100"
    ),
    "compare": (
        "p, q, target=None, *, axis=-1, want=None, top_k=0, form='logits', temperature=1.0, "
        "where=None, ignore_index=-100"
    ),
    "compare_top_k": "p_ids, p_log_probs, q, *, axis=-1, temperature=1.0",
    "logsumexp": (
        "x, axis=-1, *, b=None, where=None, keepdims=False, return_sign=False, dtype=None, out=None"
    ),
    "softmax": "x, axis=-1, *, temperature=1.0, where=None, dtype=None, out=None",
    "log_softmax": "x, axis=-1, *, temperature=1.0, where=None, dtype=None, out=None",
    "information": "p, *, base=None, out=None",
    "binary_entropy": "p, *, base=None, out=None",
    "entropy": (
        "p, axis=-1, *, form='probs', normalize=True, temperature=1.0, base=None, "
        "where=None, keepdims=False, out=None"
    ),
    "nll_loss": (
        "log_probs, target, *, axis=-1, weight=None, ignore_index=-100, sample_weight=None, "
        "where=None, base=None, reduction='mean', out=None"
    ),
    "cross_entropy": (
        "q, target, *, axis=-1, form='logits', weight=None, ignore_index=-100, "
        "label_smoothing=0.0, z_loss=0.0, temperature=1.0, sample_weight=None, where=None, "
        "base=None, reduction='mean', out=None"
    ),
    "binary_cross_entropy": (
        "q, target, *, form='probs', weight=None, pos_weight=None, reduction='mean', out=None"
    ),
    "kl_divergence": DIVERGENCE,
    "js_divergence": DIVERGENCE,
    "rel_entr": "p, q, *, base=None, out=None",
    "set_num_threads": "n",
    "get_num_threads": "",
    "threads": "n",
    "show_config": "",
    "get_config": "",
}


def test_signatures():
    assert set(klce.__all__) == set(SIGNATURES)
    for name, expected in SIGNATURES.items():
        signature = inspect.signature(getattr(klce, name))
        bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
        assert str(inspect.Signature(bare)) == f"({expected})", name
        assert getattr(klce, name).__doc__


# --- any shape and value --------------------------------------------------------------------------


BASES = st.sampled_from([None, 2, 10, 0.5])


def probabilities(x, axis):
    """Probabilities that sum to 1 but for rounding, from any numbers.

    None is subnormal: sums may drop those.
    """
    p = reference.softmax(x, axis).astype(x.dtype)
    return np.where(p < np.finfo(x.dtype).tiny, x.dtype.type(0), p)


@given(arrays((0.0, 1.0, -1.0, np.nan), 0.0, 1.0, min_side=0), BASES)
def test_elementwise(given_array, base):
    p, _ = given_array
    for name in ("information", "binary_entropy"):
        result = getattr(klce, name)(p, base=base)
        assert (result.dtype, result.shape) == (p.dtype, p.shape)
        close(result, getattr(reference, name)(p, base=base), p.dtype)


@given(arrays(), BASES, TEMPERATURES, st.booleans(), st.booleans())
def test_entropy(given_array, base, temperature, normalize, keepdims):
    x, axis = given_array
    p = probabilities(x, axis)
    logs = reference.log_softmax(x, axis).astype(x.dtype)
    options = {"base": base, "keepdims": keepdims}
    for q, more in (
        (x, {"form": "logits", "temperature": temperature}),
        (p, {"form": "probs", "normalize": normalize}),
        (logs, {"form": "log_probs", "normalize": normalize}),
    ):
        result = klce.entropy(q, axis, **options, **more)
        assert result.dtype == x.dtype
        expected = reference.entropy(q, axis, **options, **more)
        # Where a log-probability is rounded to more than 0, terms of the plain sum cancel.
        close(result, expected, x.dtype, 0 if more.get("normalize", True) else 1e-6)


@st.composite
def labelled(draw):
    x, axis = draw(arrays((-np.inf, np.nan, -1e9)))
    rows = tuple(np.delete(x.shape, axis).tolist())
    classes = x.shape[axis]
    labels = st.one_of(st.integers(0, classes - 1), st.just(-100))
    target = draw(
        hnp.arrays(draw(st.sampled_from([np.int64, np.int32, np.int8])), rows, elements=labels)
    )
    return x, target, axis


@given(labelled(), BASES, TEMPERATURES, st.sampled_from(["none", "mean", "sum"]))
def test_losses(case, base, temperature, reduction):
    x, target, axis = case
    options = {"axis": axis, "base": base, "reduction": reduction}
    p = np.where(np.isnan(x), np.nan, np.exp(-np.abs(x))).astype(x.dtype)
    for name, q, more in (
        ("cross_entropy", x, {"temperature": temperature, "z_loss": 0.25}),
        ("cross_entropy", x, {"temperature": temperature}),
        ("cross_entropy", p, {"form": "probs"}),
        ("cross_entropy", x, {"form": "log_probs"}),
        ("nll_loss", x, {}),
    ):
        result = getattr(klce, name)(q, target, **options, **more)
        assert result.dtype == x.dtype
        expected = getattr(reference, name)(q, target, **options, **more)
        assert np.shape(result) == np.shape(expected)
        # Values of either sign may cancel in a sum; the squared logsumexp is up to 1e18/T^2.
        size = 1e3 if np.isfinite(q).all() and not (q < -1e8).any() else 1e12
        if more.get("z_loss") and (x < -1e8).any():
            size = 1e21
        close(result, expected, x.dtype, size if reduction != "none" or "z_loss" in more else 0)


FORMS = ["probs", "log_probs", "logits"]


def in_form(x, axis, form):
    """Logits as a distribution in a form."""
    if form == "logits":
        return x
    return (
        probabilities(x, axis)
        if form == "probs"
        else reference.log_softmax(x, axis).astype(x.dtype)
    )


@pytest.mark.parametrize("name", ["kl_divergence", "js_divergence"])
@given(
    arrays(),
    BASES,
    st.sampled_from(["none", "mean", "sum", "batchmean"]),
    st.sampled_from(list(itertools.product(FORMS, FORMS))),
    st.data(),
)
def test_divergences(name, given_array, base, reduction, forms, data):
    x, axis = given_array
    y = data.draw(hnp.arrays(x.dtype, x.shape, elements=st.floats(-60, 60, width=32)))
    form = forms[0] if forms[0] == forms[1] and data.draw(st.booleans()) else forms
    options = {"base": base, "reduction": reduction, "form": form, "where": masks(data, x.shape)}
    if reduction == "none":
        options["keepdims"] = data.draw(st.booleans())
    if "logits" in forms:
        options["temperature"] = data.draw(TEMPERATURES)
    else:
        options["normalize"] = data.draw(st.booleans())
    pair = [in_form(z, axis, f) for z, f in zip((x, y), forms, strict=True)]
    relative = 1e-6 if x.dtype == np.float32 else 1e-13
    result = getattr(klce, name)(*pair, axis, **options)
    expected = getattr(reference, name)(*pair, axis, **options)
    assert result.dtype == x.dtype
    # Plain sums of small terms of both signs cancel.
    atol = 1e-12 * relative if options.get("normalize", True) else 10 * relative
    np.testing.assert_allclose(result, expected, rtol=10 * relative, atol=atol)


@given(arrays(SPECIAL), TEMPERATURES, st.data())
def test_where_and_several_axes(given_array, temperature, data):
    x, _ = given_array
    axes = st.lists(st.integers(0, x.ndim - 1), unique=True).map(tuple)
    axis = data.draw(st.one_of(st.none(), axes, st.integers(-x.ndim, x.ndim - 1)))
    x = np.asarray(x, order=data.draw(st.sampled_from("CF")))
    options = {"axis": axis, "where": masks(data, x.shape)}
    size = 1e9 if -1e9 in x else 60
    keepdims = data.draw(st.booleans())
    result = klce.logsumexp(x, keepdims=keepdims, **options)
    close(result, reference.logsumexp(x, keepdims=keepdims, **options), x.dtype, size)
    for name in ("softmax", "log_softmax"):
        expected = getattr(reference, name)(x, temperature=temperature, **options)
        result = getattr(klce, name)(x, temperature=temperature, **options)
        close(result, expected, x.dtype)
        y = x.copy(order="K")
        assert getattr(klce, name)(y, temperature=temperature, out=y, **options) is y
        assert same_bits(y, result)
    options |= {"form": "logits", "temperature": temperature, "keepdims": keepdims}
    close(klce.entropy(x, **options), reference.entropy(x, **options), x.dtype)


@given(arrays((0.0, np.nan, np.inf, -1.0), 0.0, 2.0, min_side=0), BASES, st.data())
def test_rel_entr(given_array, base, data):
    p, _ = given_array
    near = st.floats(0, 2, width=32)
    q = data.draw(hnp.arrays(p.dtype, p.shape[-1:], elements=near))
    result = klce.rel_entr(p, q, base=base)
    assert (result.dtype, result.shape) == (p.dtype, p.shape)
    close(result, reference.rel_entr(p, q, base=base), p.dtype)


# --- dtypes and kinds of input --------------------------------------------------------------------

X = np.random.default_rng(5).normal(size=(4, 6))
LABELS = np.array([0, 5, -100, 3])


def call(name, x, **options):
    if name in LOSSES:
        return getattr(klce, name)(x, LABELS, **options)
    if name in PAIRS:
        return getattr(klce, name)(x, x[::-1], **options)
    return getattr(klce, name)(x, **options)


def numbers(name):
    return klce.softmax(X) if name in ("information", "binary_entropy", "entropy", *PAIRS) else X


@pytest.mark.parametrize("name", FUNCTIONS)
class TestInputs:
    def test_integers_and_bool_become_float64(self, name):
        ones = np.ones((4, 6))
        ones[:, 2] = 0
        expected = call(name, ones)
        for dtype in "?bBhHiIlLqQ":
            result = call(name, ones.astype(dtype))
            assert result.dtype == np.float64
            assert same_bits(result, expected)

    def test_byte_order(self, name):
        for dtype in FLOATS:
            x = numbers(name).astype(dtype)
            result = call(name, x.astype(x.dtype.newbyteorder()))
            assert result.dtype == dtype
            assert result.dtype.isnative
            assert same_bits(result, call(name, x))

    def test_lists_and_read_only_arrays(self, name):
        x = numbers(name)
        expected = call(name, x)
        frozen = x.copy()
        frozen.flags.writeable = False
        assert same_bits(call(name, frozen), expected)
        if name not in PAIRS:
            assert same_bits(call(name, x.tolist()), expected)

    def test_float32_stays_float32(self, name):
        assert call(name, numbers(name).astype(np.float32)).dtype == np.float32

    def test_out(self, name):
        rows = {"reduction": "none"} if name in LOSSES else {}
        for dtype in FLOATS:
            x = numbers(name).astype(dtype)
            expected = call(name, x, **rows)
            # A float64 out of float32 input holds what float32 gives.
            for other in {dtype, np.float64}:
                for out in (
                    np.full(expected.shape, 99, other),
                    np.full(expected.shape, 99, other, order="F"),
                    np.full((2 * expected.shape[0], *expected.shape[1:]), 99, other)[::-2],
                ):
                    assert call(name, x, out=out, **rows) is out
                    assert same_bits(out, expected.astype(other))
                    if "base" in inspect.signature(getattr(klce, name)).parameters:
                        assert call(name, x, out=out, base=2, **rows) is out
                        close(out, expected / np.log(2), dtype)


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name not in ELEMENTWISE])
def test_other_axes(name):
    x = numbers(name)
    expected = call(name, x, **({"reduction": "none"} if name in LOSSES else {}))
    for block, axis in itertools.product(((4, 6), (2, 2, 6), (1, 4, 6)), range(3)):
        if axis >= len(block):
            continue
        turned = np.moveaxis(x.reshape(block), -1, axis)
        if name in LOSSES:
            labels = LABELS.reshape(block[:-1])
            result = getattr(klce, name)(turned, labels, axis=axis, reduction="none")
        elif name in PAIRS:
            other = np.moveaxis(x[::-1].reshape(block), -1, axis)
            result = getattr(klce, name)(turned, other, axis)
        else:
            result = getattr(klce, name)(turned, axis)
        if name in ("softmax", "log_softmax"):
            result = np.moveaxis(result, axis, -1)
        assert same_bits(result.reshape(expected.shape), expected)


def test_a_single_row_gives_a_scalar():
    x, p = X[0], klce.softmax(X[0])
    for result in (
        klce.logsumexp(x),
        klce.entropy(p),
        klce.entropy(p, base=2),
        klce.kl_divergence(p, p[::-1]),
        klce.kl_divergence(p, p[::-1], reduction="batchmean", base=2),
        klce.cross_entropy(x, 3),
        klce.cross_entropy(x, 3, reduction="none"),
        klce.cross_entropy(x, np.int8(3), reduction="none", base=2),
        klce.nll_loss(x, 3, reduction="none"),
        klce.information(0.25),
        klce.binary_entropy(0.25, base=2),
    ):
        assert isinstance(result, np.float64)
    assert klce.cross_entropy(x, 3) == klce.cross_entropy(x, 3, reduction="none")
    assert klce.entropy(p, keepdims=True).shape == (1,)


def test_a_single_row_into_out():
    x, p = X[0], klce.softmax(X[0])
    for f in (
        lambda **o: klce.logsumexp(x, **o),
        lambda **o: klce.entropy(p, base=2, **o),
        lambda **o: klce.kl_divergence(p, p[::-1], **o),
        lambda **o: klce.kl_divergence(p, p[::-1], reduction="sum", base=2, **o),
        lambda **o: klce.cross_entropy(x, 3, **o),
        lambda **o: klce.cross_entropy(x, 3, reduction="none", **o),
        lambda **o: klce.cross_entropy(x, 3, reduction="none", base=2, **o),
        lambda **o: klce.nll_loss(x, 3, base=2, **o),
        lambda **o: klce.information(0.25, base=2, **o),
    ):
        out = np.zeros(())
        assert f(out=out) is out
        assert out == f()


def test_keepdims_and_out():
    p = klce.softmax(X.reshape(2, 2, 6))
    for axis in (-1, 1, 0):
        for f in (
            lambda **o: klce.logsumexp(p, **o),
            lambda **o: klce.entropy(p, base=2, **o),
            lambda **o: klce.kl_divergence(p, p[::-1], **o),
        ):
            expected = f(axis=axis)
            kept = f(axis=axis, keepdims=True)
            assert same_bits(kept, np.expand_dims(expected, axis))
            out = np.zeros_like(kept)
            assert f(axis=axis, keepdims=True, out=out) is out
            assert same_bits(out, kept)


def test_rows_of_a_divergence_broadcast():
    p, q = klce.softmax(X), klce.softmax(X[::-1])
    expected = klce.kl_divergence(p, np.broadcast_to(q[1], p.shape))
    assert same_bits(klce.kl_divergence(p, q[1]), expected)
    table = klce.kl_divergence(p[:, np.newaxis], q)
    assert table.shape == (4, 4)
    for i, j in np.ndindex(4, 4):
        assert table[i, j] == klce.kl_divergence(p[i], q[j])
    # Of unlike dtypes: float64.
    mixed = klce.kl_divergence(p.astype(np.float32), q)
    assert mixed.dtype == np.float64
    assert same_bits(mixed, klce.kl_divergence(p.astype(np.float32).astype(float), q))


def test_reductions_of_nothing():
    none, no_labels = np.zeros((0, 3)), np.zeros(0, np.int64)
    for f in (klce.cross_entropy, klce.nll_loss):
        assert np.isnan(f(none, no_labels))
        assert f(none, no_labels, reduction="sum") == 0
        assert f(none, no_labels, reduction="none").shape == (0,)
    for reduction in ("mean", "batchmean"):
        assert np.isnan(klce.kl_divergence(none, none, reduction=reduction))
    assert klce.kl_divergence(none, none, reduction="sum") == 0
    assert klce.kl_divergence(none, none).shape == (0,)


@pytest.mark.parametrize("dtype", FLOATS)
def test_sums_over_many_rows_lose_nothing(dtype):
    """Sums are compensated: a million small losses beside a large one."""
    losses = np.full((1_000_001, 1), -1e-4, dtype)
    losses[500] = -1e6
    labels = np.zeros(len(losses), np.int64)
    expected = float(-losses.astype(np.longdouble).sum())
    result = klce.nll_loss(losses, labels, reduction="sum")
    assert result == dtype(expected)
    assert klce.nll_loss(losses, labels) == pytest.approx(expected / len(losses), rel=1e-7)


@pytest.mark.parametrize("dtype", FLOATS)
def test_infinite_results(dtype):
    """Of a divergence, a loss and their sums; without a warning."""
    p, q = np.array([[1, 0], [0.5, 0.5]], dtype), np.array([[0, 1], [0.5, 0.5]], dtype)
    logs = {"form": "logits"}
    with np.errstate(all="raise"):
        a, b = np.log(p + q * 0, where=p > 0, out=np.full_like(p, -np.inf)), None
        b = np.log(q, where=q > 0, out=np.full_like(q, -np.inf))
        for base in (None, 2):
            assert klce.kl_divergence(p, q, base=base).tolist() == [np.inf, 0]
            assert klce.kl_divergence(p, q, normalize=False, base=base).tolist() == [np.inf, 0]
            assert klce.kl_divergence(a, b, base=base, **logs).tolist() == [np.inf, 0]
            plain = {"form": "log_probs", "normalize": False}
            assert klce.kl_divergence(a, b, base=base, **plain).tolist() == [np.inf, 0]
            for reduction in ("mean", "sum", "batchmean"):
                assert klce.kl_divergence(p, q, reduction=reduction, base=base) == np.inf
            for reduction in ("mean", "sum"):
                loss = klce.cross_entropy(q, [0, 0], form="probs", reduction=reduction, base=base)
                assert loss == np.inf
                assert klce.cross_entropy(b, [0, 0], reduction=reduction, base=base) == np.inf


def test_results_beyond_the_range_are_infinite_without_a_warning():
    """Sums and other bases, of numbers that are near the largest."""
    low = np.full((4, 2), -3e38, np.float32)
    with np.errstate(all="raise"):
        assert klce.nll_loss(low, [0] * 4, reduction="sum") == np.inf
        assert klce.nll_loss(low, [0] * 4, base=1.5) == np.inf
        assert (klce.nll_loss(low, [0] * 4, base=1.5, reduction="none") == np.inf).all()
        assert klce.cross_entropy(-low, [0] * 4, z_loss=1.0) == np.inf


def test_a_nan_of_the_data_is_a_nan_of_the_sum():
    x = X.copy()
    x[1, 2] = np.nan
    rows = klce.cross_entropy(x, LABELS, reduction="none")
    assert np.isnan(rows).tolist() == [False, True, False, False]
    assert np.isnan(klce.cross_entropy(x, LABELS))
    assert np.isfinite(klce.cross_entropy(x, [0, -100, 2, 3]))


def test_results_are_arrays_of_their_own():
    x = np.ma.masked_array(X)
    assert type(klce.softmax(x)) is np.ndarray


def test_the_kernels_pickle_by_name():
    for name in klce._ufuncs.OPS:
        kernel = getattr(klce._ufuncs, name)
        assert isinstance(kernel, np.ufunc)
        assert kernel.__name__ == name
        assert kernel.__doc__
    assert pickle.loads(pickle.dumps(klce.softmax)) is klce.softmax
