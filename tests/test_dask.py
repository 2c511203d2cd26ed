"""Dask arrays stay lazy, and come to the bits that NumPy arrays give; xarray hands them over."""

import pickle

import dask
import dask.array as da
import ml_dtypes
import numpy as np
import pytest
import xarray as xr

import klce
from tests.kernels import same_bits
from tests.ulp import ulp_error

RNG = np.random.default_rng(0)
X = 2 * RNG.normal(size=(10, 6, 7))
LABELS = RNG.integers(0, 7, (10, 6))
DTYPES = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.int16, ml_dtypes.float8_e5m2]
CALLS = {
    "logsumexp": lambda x, p, y: klce.logsumexp(x),
    "logsumexp, keepdims": lambda x, p, y: klce.logsumexp(x, keepdims=True),
    "logsumexp, dtype": lambda x, p, y: klce.logsumexp(x, dtype=np.float64),
    "softmax": lambda x, p, y: klce.softmax(x, temperature=0.7),
    "softmax, dtype": lambda x, p, y: klce.softmax(x, dtype=np.float32),
    "log_softmax": lambda x, p, y: klce.log_softmax(x, axis=2),
    "information": lambda x, p, y: klce.information(p, base=2),
    "binary_entropy": lambda x, p, y: klce.binary_entropy(p),
    "entropy": lambda x, p, y: klce.entropy(p),
    "entropy, logits": lambda x, p, y: klce.entropy(x, form="logits", keepdims=True),
    "nll_loss": lambda x, p, y: klce.nll_loss(x, y, reduction="none"),
    "cross_entropy": lambda x, p, y: klce.cross_entropy(x, y, reduction="none", z_loss=0.1),
    "cross_entropy, soft": lambda x, p, y: klce.cross_entropy(
        x, p.astype(np.float32), reduction="none"
    ),
    "cross_entropy, soft float64": lambda x, p, y: klce.cross_entropy(
        x, p.astype(float), reduction="none"
    ),
    "binary_cross_entropy": lambda x, p, y: klce.binary_cross_entropy(p, p > 0.1, reduction="none"),
    "binary_cross_entropy, weights": lambda x, p, y: klce.binary_cross_entropy(
        x, p, form="logits", weight=p[0], pos_weight=2.0, reduction="none"
    ),
    "kl_divergence": lambda x, p, y: klce.kl_divergence(p, p[::-1]),
    "kl_divergence, broadcast": lambda x, p, y: klce.kl_divergence(p[0, :1], p, base=2),
    "kl_divergence, logits": lambda x, p, y: klce.kl_divergence(x, x[:1], form="logits"),
}
OF_LABELS = ("nll_loss", "cross_entropy")

# Reductions over all rows: of each function, each of its reductions, and what has its own divisor.
# Terms of one sign: the bound is relative.
REDUCED = {
    "cross_entropy": lambda x, p, y, **o: klce.cross_entropy(x, y, **o),
    "cross_entropy, weight": lambda x, p, y, **o: klce.cross_entropy(
        x, y, weight=np.arange(7), label_smoothing=0.1, z_loss=0.1, base=2, **o
    ),
    "cross_entropy, soft": lambda x, p, y, **o: klce.cross_entropy(
        x, p.astype(np.float32), weight=np.arange(7), **o
    ),
    "nll_loss": lambda x, p, y, **o: klce.nll_loss(p, y, **o),
    "nll_loss, ignored": lambda x, p, y, **o: klce.nll_loss(
        p, y, ignore_index=3, weight=np.arange(7), base=10, **o
    ),
    "binary_cross_entropy": lambda x, p, y, **o: klce.binary_cross_entropy(p, p, **o),
    "binary_cross_entropy, weights": lambda x, p, y, **o: klce.binary_cross_entropy(
        x, p, form="logits", weight=p[0], pos_weight=p[:, :1], **o
    ),
    "kl_divergence": lambda x, p, y, **o: klce.kl_divergence(p, p[::-1], base=2, **o),
    "kl_divergence, broadcast": lambda x, p, y, **o: klce.kl_divergence(
        x[0, 0], x, form="logits", temperature=0.7, **o
    ),
    "js_divergence": lambda x, p, y, **o: klce.js_divergence(p[:1], p, **o),
}


@pytest.fixture(autouse=True)
def in_this_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


def operands(dtype, chunks):
    """The same operands lazy and in memory."""
    x = X[:4, :3].astype(dtype)
    p = np.abs(X[:4, :3] / 20).astype(dtype)
    return (
        [da.from_array(x, chunks=(*chunks, -1)), da.from_array(p, chunks=(*chunks, -1))],
        [x, p],
    )


@pytest.mark.parametrize("chunks", [(4, 3), (3, 2), (1, 1)])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("name", CALLS)
def test_lazy_is_the_same(name, dtype, chunks):
    lazy, eager = operands(dtype, chunks)
    own = LABELS[:4, :3]
    expected = CALLS[name](*eager, own)
    for labels in (own, da.from_array(own, chunks=(3, 3)), own.tolist()):
        result = CALLS[name](*lazy, labels)
        assert isinstance(result, da.Array)
        values = result.compute()
        assert result.dtype == values.dtype == expected.dtype
        assert result.shape == values.shape == expected.shape
        assert same_bits(values, expected)
        if name not in OF_LABELS:
            break


@pytest.mark.parametrize("chunks", [(4, 3), (3, 2), (1, 1)])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("name", REDUCED)
def test_reductions(name, dtype, chunks):
    """Sums are in float64 across blocks: at most the last place of float64 tells them apart."""
    lazy, eager = operands(dtype, chunks)
    own = LABELS[:4, :3]
    labels = da.from_array(own, chunks=(3, 3))
    for how in ("mean", "sum", *(["batchmean"] if "divergence" in name else [])):
        expected = REDUCED[name](*eager, own, reduction=how)
        result = REDUCED[name](*lazy, labels, reduction=how)
        assert isinstance(result, da.Array)
        values = result.compute()
        assert result.dtype == values.dtype == expected.dtype
        assert result.shape == values.shape == ()
        assert ulp_error(values, expected, 0, expected.dtype).max() <= 2


def test_reductions_by_default():
    """As in memory: losses are means."""
    x = da.from_array(X, chunks=(3, 4, 7))
    for f, target in (
        (klce.cross_entropy, LABELS),
        (klce.nll_loss, LABELS),
        (klce.binary_cross_entropy, X > 0),
    ):
        options = {"form": "logits"} if f is klce.binary_cross_entropy else {}
        assert f(x, target, **options).compute() == pytest.approx(
            f(X, target, **options), rel=1e-15
        )


def test_reductions_along_other_axes():
    labels = LABELS.T
    turned = da.from_array(X.transpose(1, 2, 0).copy(), chunks=(4, 7, 3))
    for how in ("mean", "sum"):
        expected = klce.cross_entropy(X.transpose(1, 2, 0), labels, axis=1, reduction=how)
        result = klce.cross_entropy(turned, labels, axis=1, reduction=how)
        assert result.compute() == pytest.approx(expected, rel=1e-15)
    expected = klce.kl_divergence(X, X[::-1], 0, form="logits", reduction="batchmean")
    x = da.from_array(X, chunks=(10, 2, 2))
    result = klce.kl_divergence(x, x[::-1], 0, form="logits", reduction="batchmean")
    assert result.compute() == pytest.approx(expected, rel=1e-15)


def test_reductions_of_one_row_and_of_none():
    row, labels = da.from_array(X[0, 0], chunks=-1), LABELS[0, 0]
    assert klce.cross_entropy(row, labels).compute() == klce.cross_entropy(X[0, 0], labels)
    p = abs(row)
    expected = klce.kl_divergence(abs(X[0, 0]), abs(X[0, 1]), reduction="batchmean")
    assert klce.kl_divergence(p, abs(X[0, 1]), reduction="batchmean").compute() == expected
    none = da.zeros((0, 3), chunks=(1, 3))
    assert np.isnan(klce.cross_entropy(none, np.zeros(0, int)).compute())
    assert klce.cross_entropy(none, np.zeros(0, int), reduction="sum").compute() == 0
    # No row counts.
    x = da.from_array(X, chunks=(3, 6, 7))
    assert np.isnan(klce.cross_entropy(x, np.full((10, 6), -100)).compute())


def test_sums_over_many_blocks_lose_nothing():
    """A million small losses beside a large one, in float64 although they are float32."""
    losses = np.full((1_000_000, 1), -1e-4, np.float32)
    losses[500] = -1e6
    labels = np.zeros(len(losses), int)
    lazy = da.from_array(losses, chunks=(10_000, 1))
    result = klce.nll_loss(lazy, labels, reduction="sum").compute()
    assert result == klce.nll_loss(losses, labels, reduction="sum")
    assert result == np.float32(-losses.astype(np.longdouble).sum())


def test_a_mean_of_weighted_losses_divides_once():
    """By all weights: not a mean of the means of blocks, which weigh differently."""
    x = np.log([[0.5, 0.5], [0.25, 0.75], [0.25, 0.75]])
    labels = [0, 1, 1]
    weight = [4.0, 1.0]
    lazy = da.from_array(x, chunks=(1, 2))
    result = klce.nll_loss(lazy, labels, weight=weight).compute()
    assert result == pytest.approx((4 * np.log(2) - 2 * np.log(0.75)) / 6, rel=1e-15)


def test_nothing_is_computed_before_it_is_asked_for():
    def fail(block):
        raise AssertionError("computed")

    never = da.ones((4, 3), chunks=(2, 3)).map_blocks(fail, dtype=float, meta=np.empty((0, 0)))
    results = [
        CALLS[name](never[None], never[None], np.zeros((1, 4), int))
        for name in CALLS
        if "broadcast" not in name and "::-1" not in name
    ]
    for f in (klce.kl_divergence, klce.js_divergence, klce.binary_cross_entropy):
        results.append(f(never, never, reduction="mean"))
    results.append(klce.cross_entropy(never, np.zeros(4, int)))
    with pytest.raises(AssertionError, match="computed"):
        results[0].compute()
    with pytest.raises(AssertionError, match="computed"):
        results[-1].compute()


def test_other_axes():
    expected = klce.softmax(X)
    for axis in range(-3, 3):
        turned = da.from_array(np.moveaxis(X, -1, axis), chunks=3).rechunk({axis: -1})
        result = klce.softmax(turned, axis).compute()
        assert same_bits(np.moveaxis(result, axis, -1), expected)
        lse = klce.logsumexp(turned, axis, keepdims=True)
        assert lse.shape == tuple(np.moveaxis(X[..., :1], -1, axis).shape)
        assert same_bits(np.moveaxis(lse.compute(), axis, -1)[..., 0], klce.logsumexp(X))


def test_only_the_labels_lazy():
    labels = da.from_array(LABELS, chunks=(3, 2))
    losses = klce.cross_entropy(X, labels, reduction="none")
    assert isinstance(losses, da.Array)
    assert same_bits(losses.compute(), klce.cross_entropy(X, LABELS, reduction="none"))


def test_a_wrong_label_is_named_when_it_is_met():
    labels = LABELS.copy()
    labels[4, 5] = 7
    losses = klce.cross_entropy(da.from_array(X, chunks=(3, 6, 7)), labels, reduction="none")
    with pytest.raises(IndexError, match=r"^target must hold .* got 7 in row 1, 5$"):
        losses.compute()


class TestRefusals:
    X = da.from_array(X, chunks=(5, 6, 7))

    def test_reductions(self):
        with pytest.raises(ValueError, match=r"^reduction must be .*, got 'batchmean'$"):
            klce.cross_entropy(self.X, LABELS, reduction="batchmean")
        with pytest.raises(ValueError, match=r"^keepdims belongs to .*='mean'$"):
            klce.kl_divergence(self.X, self.X, reduction="mean", keepdims=True)
        with pytest.raises(TypeError, match=r"^keepdims must be True or False, got 'no'$"):
            klce.logsumexp(self.X, keepdims="no")
        with pytest.raises(ValueError, match=r"^base must be positive, finite and not 1, got 1$"):
            klce.kl_divergence(self.X, self.X, reduction="mean", base=1)

    def test_chunked_classes(self):
        message = r"^q must have its classes in one chunk, got 2 on axis -1: rechunk it$"
        with pytest.raises(ValueError, match=message):
            klce.kl_divergence(X, self.X.rechunk({2: 4}))

    def test_out(self):
        with pytest.raises(TypeError, match=r"^out must not be given as ndarray where x is"):
            klce.softmax(self.X, out=np.zeros(X.shape))

    def test_lazy_options(self):
        with pytest.raises(TypeError, match=r"^temperature must not be given as Array where x"):
            klce.softmax(self.X, temperature=da.ones(()))
        for option in ("temperature", "base"):
            with pytest.raises(TypeError, match=rf"^{option} must not be given as Array where"):
                klce.entropy(X, form="logits", **{option: da.ones(())})

    def test_dtypes_and_axes(self):
        with pytest.raises(TypeError, match=r"^p must be float16, .* got complex128$"):
            klce.entropy(self.X.astype(complex))
        with pytest.raises(ValueError, match=r"^axis 3 is out of bounds for x of 3 dimensions"):
            klce.softmax(self.X, axis=3)

    def test_several_axes(self):
        for axis in (None, (0, 2)):
            with pytest.raises(TypeError, match=r"^axis must be an integer, got "):
                klce.logsumexp(self.X, axis)

    @pytest.mark.parametrize("name", ["score", "compare", "compare_top_k"])
    def test_functions_of_arrays_in_memory(self, name):
        first = {
            "score": (self.X,),
            "compare": (X, self.X),
            "compare_top_k": (
                np.zeros((*X.shape[:-1], 1), int),
                np.zeros((*X.shape[:-1], 1)),
                self.X,
            ),
        }[name]
        message = r"^(logits|q) must be an array in memory, got a lazy Array$"
        with pytest.raises(TypeError, match=message):
            getattr(klce, name)(*first)

    def test_lazy_data_under_names(self):
        named = xr.DataArray(self.X)
        with pytest.raises(
            TypeError, match=r"^x must be a Dask array .* got a DataArray: xarray\."
        ):
            klce.logsumexp(named)

    def test_other_collections(self):
        with pytest.raises(TypeError, match=r"^x must be a Dask array .* got a Delayed"):
            klce.logsumexp(dask.delayed(X))


def test_results_travel():
    """Pickled here, computed in another process; the same graph has the same name."""
    x = da.from_array(X.astype(ml_dtypes.bfloat16), chunks=(5, 6, 7))
    result = klce.softmax(x)
    assert result.name == klce.softmax(x).name
    assert result.name != klce.softmax(x, temperature=2).name
    assert same_bits(pickle.loads(pickle.dumps(result)).compute(), result.compute())


@pytest.mark.slow
def test_in_worker_processes():
    """What a worker unpickles, klce and bfloat16 among it, it has not imported before."""
    x = X.astype(ml_dtypes.bfloat16)
    lazy = da.from_array(x, chunks=(5, 6, 7))
    with dask.config.set(scheduler="processes", num_workers=2):
        maps, losses = dask.compute(
            klce.softmax(lazy), klce.cross_entropy(lazy, LABELS, reduction="none")
        )
    assert same_bits(maps, klce.softmax(x))
    assert maps.dtype == x.dtype
    assert same_bits(losses, klce.cross_entropy(x, LABELS, reduction="none"))


class TestXarray:
    NAMED = xr.DataArray(X, dims=("group", "sample", "class"))

    @pytest.mark.parametrize("chunks", [None, {"group": 3}])
    def test_apply_ufunc(self, chunks):
        named = self.NAMED.chunk(chunks) if chunks else self.NAMED
        labels = xr.DataArray(LABELS, dims=("group", "sample"))
        rows = {"input_core_dims": [["class"]], "dask": "allowed"}
        entropy = xr.apply_ufunc(klce.entropy, named, kwargs={"form": "logits"}, **rows)
        assert entropy.dims == ("group", "sample")
        assert same_bits(entropy.values, klce.entropy(X, form="logits"))
        softmax = xr.apply_ufunc(klce.softmax, named, output_core_dims=[["class"]], **rows)
        assert softmax.dims == named.dims
        losses = xr.apply_ufunc(
            klce.cross_entropy,
            named,
            labels,
            input_core_dims=[["class"], []],
            kwargs={"reduction": "none"},
            dask="allowed",
        )
        assert same_bits(losses.values, klce.cross_entropy(X, LABELS, reduction="none"))
        for result, expected in ((softmax, klce.softmax(X)), (entropy, None)):
            assert isinstance(result.data, da.Array if chunks else np.ndarray)
            assert expected is None or same_bits(result.values, expected)

    def test_in_memory_it_is_an_array(self):
        assert same_bits(klce.logsumexp(self.NAMED), klce.logsumexp(X))
