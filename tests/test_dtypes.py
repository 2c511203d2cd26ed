"""The table of docs/dtypes.md against what the functions do; 16-bit floats in and out."""

import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import klce
from klce import reference
from tests.kernels import HALVES, ISAS, RELATIVE, cast, finfo, on_isa, run_script, same_bits
from tests.ulp import ulp_error

DOC = (Path(__file__).parents[1] / "docs/dtypes.md").read_text()
TABLE = [
    tuple(cell.strip() for cell in line.strip("|").split("|"))
    for line in DOC.splitlines()
    if re.match(r"\| (float|bfloat|u?int|bool)", line)
]
LABELS = np.array([0, 2])
MAPS = {
    "softmax": lambda x: klce.softmax(x),
    "log_softmax": lambda x: klce.log_softmax(x),
    "information": lambda x: klce.information(x),
    "information, base": lambda x: klce.information(x, base=2),
    "binary_entropy": lambda x: klce.binary_entropy(x),
}
ROWS = {
    "logsumexp": lambda x: klce.logsumexp(x),
    "entropy": lambda x: klce.entropy(x),
    "entropy of logits": lambda x: klce.entropy(x, form="logits", base=2),
    "nll_loss": lambda x: klce.nll_loss(x, LABELS),
    "nll_loss, none": lambda x: klce.nll_loss(x, LABELS, reduction="none"),
    "cross_entropy": lambda x: klce.cross_entropy(x, LABELS),
    "cross_entropy, none": lambda x: klce.cross_entropy(x, LABELS, reduction="none", base=2),
}
PAIRS = {
    "probs": lambda p, q: klce.kl_divergence(p, q),
    "logits": lambda p, q: klce.kl_divergence(p, q, form="logits"),
    "mean": lambda p, q: klce.kl_divergence(p, q, reduction="mean"),
}


def dtype_of(name):
    return np.dtype(getattr(ml_dtypes, name, None) or name)


def probabilities(name):
    return np.array([[0, 1, 1], [1, 1, 0]]).astype(dtype_of(name))


def test_the_table_is_whole():
    single = {row[0] for row in TABLE if "," not in row[0]}
    integers = {np.dtype(code).name for code in "bhiqBHIQ"}
    assert single == {"float16", "bfloat16", "float32", "float64", "bool", *integers} | {
        "float8_e4m3fn",
        "float8_e5m2",
    }


@pytest.mark.parametrize(("rows", "computed", "mapped", "number"), TABLE)
def test_the_table(rows, computed, mapped, number):
    names = rows.split(", ")
    x = probabilities(names[0])
    if len(names) == 1:
        results = {key: f(x) for key, f in MAPS.items()}
        for key, result in results.items():
            assert result.dtype == dtype_of(mapped), key
        for key, f in ROWS.items():
            assert f(x).dtype == dtype_of(number), key
        wide = x.astype(dtype_of(computed))
        for key, f in MAPS.items():
            assert same_bits(results[key], cast(f(wide), dtype_of(mapped))), key
        for key, f in ROWS.items():
            assert same_bits(f(x), f(wide)), key
    pair = x, probabilities(names[-1])[::-1]
    for left, right in (pair, pair[::-1]):
        for key, f in PAIRS.items():
            result = f(left, right)
            assert result.dtype == dtype_of(number), key
            wide = (a.astype(dtype_of(computed)) for a in (left, right))
            assert same_bits(result, f(*wide)), key


@pytest.mark.parametrize("wanted", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("given", ["float16", "bfloat16", "float32", "float64", "int8", ">f4"])
def test_the_dtype_option(given, wanted):
    x = (3 * np.random.default_rng(0).normal(size=(3, 9))).astype(dtype_of(given))
    for f in (klce.softmax, klce.log_softmax):
        result = f(x, dtype=dtype_of(wanted))
        assert result.dtype == dtype_of(wanted)
        assert same_bits(result, f(x.astype(dtype_of(wanted))))
    sums = klce.logsumexp(x, dtype=dtype_of(wanted))
    assert sums.dtype == (np.float64 if wanted == "float64" else np.float32)
    assert same_bits(sums, klce.logsumexp(x.astype(dtype_of(wanted))))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
class TestHalves:
    @pytest.fixture
    def x(self, dtype):
        return (4 * np.random.default_rng(2).normal(size=(200, 50))).astype(dtype)

    def test_losses_and_divergences_are_as_good_as_of_float32(self, x, dtype):
        """Against the specification, for the numbers that the rows hold."""
        labels = np.random.default_rng(3).integers(0, 50, len(x))
        probs = klce.softmax(x)
        for actual, expected, bound in (
            (klce.logsumexp(x), reference.logsumexp(x), 2),
            (
                klce.cross_entropy(x, labels, reduction="none"),
                reference.cross_entropy(x, labels, reduction="none"),
                2,
            ),
            (klce.entropy(x, form="logits"), reference.entropy(x, form="logits"), 4),
            (klce.entropy(probs), reference.entropy(probs), 4),
        ):
            assert ulp_error(actual, expected, 0, np.float32).max() <= bound
        for form, p in (("logits", x), ("probs", probs)):
            near = cast(p.astype(float) * 1.01, dtype)
            for q in (p[::-1], near):
                actual = klce.kl_divergence(p, q, form=form)
                expected = reference.kl_divergence(p, q, form=form)
                np.testing.assert_allclose(actual, expected, rtol=RELATIVE[0], atol=1e-18)

    def test_maps_round_once(self, x, dtype):
        for result, expected in (
            (klce.softmax(x), reference.softmax(x)),
            (klce.log_softmax(x), reference.log_softmax(x)),
            (
                klce.information(klce.softmax(x), base=3),
                reference.information(klce.softmax(x), base=3),
            ),
        ):
            error = ulp_error(result, expected, 0, dtype)
            assert error.max() <= 0.5 + 4 * finfo(np.float32).eps / float(finfo(dtype).eps)

    def test_in_place(self, x):
        expected = klce.softmax(x)
        assert klce.softmax(x, out=x) is x
        assert same_bits(x, expected)

    def test_out(self, x, dtype):
        expected = klce.logsumexp(x)
        for wider in (np.float32, np.float64):
            out = np.zeros(len(x), wider)
            assert klce.logsumexp(x, out=out) is out
            assert same_bits(out, expected.astype(wider))
        with pytest.raises(TypeError, match=r"^out must hold float32, got "):
            klce.logsumexp(x, out=np.zeros(len(x), dtype))
        wide = np.zeros(x.shape, np.float32)
        assert same_bits(klce.softmax(x, out=wide), klce.softmax(x).astype(np.float32))
        assert klce.information(abs(x), base=2, out=wide) is wide
        assert same_bits(wide, klce.information(abs(x), base=2).astype(np.float32))


@pytest.mark.parametrize("wider", [np.float64, ">f4", np.longdouble, np.complex128])
def test_a_wider_out_holds_the_same_numbers_in_another_unit(wider):
    x = np.random.default_rng(4).normal(size=(50, 7)).astype(np.float32)
    labels = np.arange(50) % 7
    for f in (
        lambda **out: klce.cross_entropy(x, labels, reduction="none", base=10, **out),
        lambda **out: klce.nll_loss(-(x**2), labels, reduction="none", base=10, **out),
        lambda **out: klce.entropy(x, form="logits", base=10, **out),
        lambda **out: klce.kl_divergence(x, x[::-1], form="logits", base=10, **out),
        lambda **out: klce.js_divergence(x, x[::-1], form="logits", base=10, **out),
    ):
        out = np.zeros(50, wider)
        assert f(out=out) is out
        np.testing.assert_array_equal(out, f())


def test_a_map_beyond_float16():
    """In another unit it is infinite, without a warning."""
    with np.errstate(all="raise"):
        assert klce.information(np.array([1e-7], np.float16), base=1.0001) == np.inf


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("n", [33, 300, 2500])
def test_maxima_by_bits_are_those_by_values(n, dtype, isa):
    """The kernels compare the bits of 16-bit elements, and the values of float32."""
    rng = np.random.default_rng(n)
    every = rng.integers(0, 1 << 16, (40, n), np.uint16)
    below_zero = every | 0x8000
    zeros = every & 0x8000
    zeros[:10] = 0x8000
    zeros[:10, -1] = 0  # the first maximum is a zero of the other sign
    rows = np.concatenate([every, below_zero, zeros, np.full((1, n), 0x8000, np.uint16)])
    rows = rows.view(dtype)
    finite = np.where(np.isfinite(rows.astype(np.float32)), rows, dtype.type(-1))
    specials = np.repeat(finite[40:44], 16, axis=0)
    nans = np.array([np.nan, -np.nan], np.float32).astype(dtype)
    for row, value in zip(specials, np.tile([*nans, -np.inf, np.inf], 16), strict=True):
        row[rng.integers(0, n, rng.integers(1, 5))] = value
    specials[:16][:, rng.random(n) < 0.9] = nans[1]
    x = np.concatenate([rows, finite, specials, np.full((1, n), nans[1])])
    labels = rng.integers(0, n, len(x))
    with on_isa(isa):
        for f in (
            klce.logsumexp,
            lambda x: klce.entropy(x, form="logits"),
            lambda x: klce.kl_divergence(x, x[::-1].copy(), form="log_probs"),
            *(
                lambda x, name=name: klce.score(x, labels, want=[name])[name]
                for name in ("argmax", "margin", "rank", "nll", "varentropy")
            ),
        ):
            assert same_bits(f(x), f(x.astype(np.float32)))


# What each process prints: the dtypes of a map and of a reduction of bfloat16.
PRINT = (
    "x = np.ones((2, 3), ml_dtypes.bfloat16)\n"
    "print(klce.softmax(x).dtype, klce.logsumexp(x).dtype, klce.cross_entropy(x, [0, 1]).dtype)\n"
)


class TestWhenBfloat16ComesIn:
    """NumPy keeps what it once chose for a dtype, so each order gets a process of its own."""

    @pytest.mark.parametrize(
        "before",
        [
            "import ml_dtypes, numpy as np, klce\n",
            "import numpy as np, klce, ml_dtypes\n",
            "import numpy as np, klce\nklce.softmax(np.ones(3, np.float16))\nimport ml_dtypes\n",
            "import numpy as np, klce\nklce.softmax(np.ones(3, np.int8))\nimport ml_dtypes\n",
        ],
    )
    def test_imports_in_any_order(self, before):
        process = run_script(before + PRINT)
        assert process.stdout.split() == ["bfloat16", "float32", "float32"], process.stderr

    def test_it_is_asked_for_by_its_name(self):
        code = (
            "import numpy as np, klce, klce.compat.torch\n"
            "for f in (klce.softmax, klce.log_softmax, klce.compat.torch.softmax):\n"
            "    print(f(np.zeros((2, 3)), 0, dtype='bfloat16').dtype)\n"
        )
        process = run_script(code)
        assert process.stdout.split() == ["bfloat16"] * 3, process.stderr

    def test_it_is_not_imported(self):
        code = (
            "import sys, klce, klce._arrays\n"
            "optional = {'ml_dtypes', 'torch', 'dask', 'xarray', 'scipy', 'sklearn'}\n"
            "print(optional & set(sys.modules))\n"
        )
        assert run_script(code).stdout == "set()\n"

    def test_another_process_unpickles(self):
        code = (
            "import pickle, sys\n"
            "f, x = pickle.loads(bytes.fromhex(sys.argv[1]))\n"
            "print(f(x).dtype, x.dtype)\n"
        )
        x = np.ones((2, 3), ml_dtypes.bfloat16)
        import pickle

        for f in (klce.softmax, klce.log_softmax):
            process = run_script(code, pickle.dumps((f, x)).hex())
            assert process.stdout.split() == ["bfloat16", "bfloat16"], process.stderr
