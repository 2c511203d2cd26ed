"""What counts as an array: other libraries', through DLPack, without a copy."""

import array
import ctypes
import re

import ml_dtypes
import numpy as np
import pytest

import klce
from klce import _arrays
from tests.kernels import run_script, same_bits

X = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
LABELS = np.array([0, 4, 1, 2, 3, 0])

BFLOAT, FLOAT8_E4M3FN, FLOAT8_E5M2 = 4, 10, 12


class Tensor:
    """An array of a library that is not there: NumPy's memory under another dtype or device."""

    def __init__(self, bits, code=None, device=(1, 0), requires_grad=False):
        self.bits, self.code, self.kind = bits, code, device
        self.requires_grad = requires_grad

    def __dlpack_device__(self):
        return self.kind

    def __dlpack__(self, **options):
        capsule = self.bits.__dlpack__(**options)
        if self.code is not None:
            name = ctypes.pythonapi.PyCapsule_GetName
            name.restype, name.argtypes = ctypes.c_char_p, [ctypes.py_object]
            pointer = ctypes.pythonapi.PyCapsule_GetPointer
            pointer.restype, pointer.argtypes = (
                ctypes.c_void_p,
                [ctypes.py_object, ctypes.c_char_p],
            )
            versioned = name(capsule) == b"dltensor_versioned"
            start = pointer(capsule, name(capsule)) + (32 if versioned else 0)
            # Behind the data's address, the device and the number of dimensions.
            ctypes.c_uint8.from_address(start + 20).value = self.code
        return capsule


class Old(Tensor):
    """A library of before the protocol had options."""

    def __dlpack__(self, *, stream=None):
        return super().__dlpack__()


class Numeric(Tensor):
    """A library whose arrays NumPy can also take as they are, like every well-known one's.

    DLPack could not tell that memory is read-only before its version 1 (NumPy 2.1).
    """

    def __array__(self, dtype=None, copy=None):
        return self.bits


@pytest.mark.parametrize(
    "ragged", [[[1, 2], [3]], ([1.0, 2.0], 3.0), [[[1], [2, 3]], [[4], [5]]], [X, X[:, :2]]]
)
def test_lists_whose_rows_differ_in_length(ragged):
    calls = {
        "x": lambda: klce.softmax(ragged),
        "q": lambda: klce.kl_divergence(X, ragged),
        "target": lambda: klce.cross_entropy(X, ragged),
        "where": lambda: klce.entropy(X, where=ragged),
        "candidates": lambda: klce.score(X, candidates=ragged),
        "p_ids": lambda: klce.compare_top_k(ragged, X, X),
    }
    for name, call in calls.items():
        message = f"^{name} must be rectangular, got a (list|tuple) whose rows differ in length$"
        with pytest.raises(ValueError, match=message):
            call()


def test_masked_elements():
    """They are refused, and without any the array is what it holds."""
    masked, labels = np.ma.masked_greater(X, 1), np.ma.masked_equal(LABELS, 4)
    count = np.count_nonzero(masked.mask)
    of_classes = [
        ("x", lambda: klce.softmax(masked)),
        ("b", lambda: klce.logsumexp(X, b=masked)),
        ("p", lambda: klce.entropy(masked)),
        ("q", lambda: klce.kl_divergence(X, masked)),
        ("logits", lambda: klce.score(masked)),
    ]
    others = [
        ("where", lambda: klce.entropy(X, where=masked > 0)),
        ("p", lambda: klce.information(masked)),
        ("p", lambda: klce.binary_entropy(masked)),
        ("q", lambda: klce.rel_entr(X, masked)),
        ("q", lambda: klce.binary_cross_entropy(masked, X)),
        ("candidates", lambda: klce.score(X, candidates=masked)),
        ("p_ids", lambda: klce.compare_top_k(masked, X, X)),
        ("q", lambda: klce.compare_top_k(X, X, masked)),
        ("sample_weight", lambda: klce.cross_entropy(X, LABELS, sample_weight=masked)),
    ]
    for instead, calls in ((": where= leaves classes out", of_classes), ("", others)):
        for name, call in calls:
            message = rf"^{name} must have no masked elements, got {count} of 30{instead}$"
            with pytest.raises(ValueError, match=message):
                call()
    message = r"^target must have no masked elements, got 1 of 6: fill labels with ignore_index"
    for call in (klce.cross_entropy, klce.nll_loss, klce.score):
        with pytest.raises(ValueError, match=message):
            call(X, labels)
    message = r"^target must .* of 30: a weight of 0 leaves elements and rows out$"
    for call in (klce.cross_entropy, klce.binary_cross_entropy):
        with pytest.raises(ValueError, match=message):
            call(X, masked)
    whole = np.ma.array(X, mask=False)
    assert type(klce.softmax(whole)) is np.ndarray
    assert same_bits(klce.softmax(whole), klce.softmax(X))


@pytest.mark.parametrize("kind", [Tensor, Old])
@pytest.mark.parametrize(
    ("dtype", "code"),
    [
        (ml_dtypes.bfloat16, BFLOAT),
        (ml_dtypes.float8_e4m3fn, FLOAT8_E4M3FN),
        (ml_dtypes.float8_e5m2, FLOAT8_E5M2),
    ],
)
def test_floats_that_numpy_does_not_know(dtype, code, kind):
    x = X.astype(dtype)
    bits = x.view(f"u{x.itemsize}")
    for view in (np.s_[:], np.s_[::2, 1:], np.s_[:0]):
        found = _arrays.array(kind(bits[view], code), "x")
        assert found.dtype == dtype
        assert same_bits(found, x[view])
        assert found.size == 0 or np.shares_memory(found, bits)
    assert same_bits(klce.logsumexp(kind(bits, code)), klce.logsumexp(x))
    assert same_bits(klce.softmax(kind(bits, code)), klce.softmax(x))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint64", "bool"])
def test_dtypes_that_numpy_knows(dtype):
    x = (4 * X).astype(dtype)
    found = _arrays.array(Tensor(x), "x")
    assert found.dtype == dtype
    assert np.shares_memory(found, x)
    assert same_bits(klce.entropy(Tensor(x), form="logits"), klce.entropy(x, form="logits"))


def test_read_only_memory():
    x = X.copy()
    x.flags.writeable = False
    assert np.shares_memory(_arrays.array(Numeric(x), "x"), x)


def test_labels():
    expected = klce.cross_entropy(X, LABELS)
    assert klce.cross_entropy(X, Tensor(LABELS)) == expected
    assert klce.cross_entropy(Tensor(X), Tensor(LABELS.astype(np.uint8))) == expected


class TestRefusals:
    @pytest.mark.parametrize("device", [(2, 0), (10, 1), (8, 0)])
    def test_another_device(self, device):
        """CUDA, ROCm, Metal: nothing of such an array may be read."""
        on_device = Tensor(None, device=device)
        where = f"DLPack device {device[0]}:{device[1]}"
        message = rf"^x must be in CPU memory, got a Tensor on {where}$"
        with pytest.raises(TypeError, match=message):
            klce.logsumexp(on_device)
        on_device.device = "cuda:1"
        with pytest.raises(TypeError, match=r"^q must be in CPU memory, got a Tensor on cuda:1$"):
            klce.kl_divergence(X, on_device)
        with pytest.raises(TypeError, match=r"^target must be in CPU memory"):
            klce.cross_entropy(X, on_device)

    def test_no_device_at_all(self):
        class Meta(Tensor):
            def __dlpack_device__(self):
                raise ValueError("no such device")

        message = r"^x must be in CPU memory, got a Meta: no such device$"
        with pytest.raises(TypeError, match=message):
            klce.logsumexp(Meta(None))

    def test_pinned_memory_is_the_cpus(self):
        for kind in (3, 11):
            assert np.shares_memory(_arrays.array(Tensor(X, device=(kind, 0)), "x"), X)

    def test_a_gradient_that_would_be_lost(self):
        message = re.escape("p must not require grad, which klce does not record: pass p.detach()")
        with pytest.raises(TypeError, match=message):
            klce.entropy(Tensor(X, requires_grad=True))

    def test_bfloat16_without_its_package(self):
        code = (
            "import sys; sys.modules['ml_dtypes'] = None\n"
            "import numpy as np, klce, types\n"
            "from klce import _arrays\n"
            "_arrays._ufuncs = types.SimpleNamespace(as_integers=lambda capsule: 'bfloat16')\n"
            "class Other:\n"
            "    def __dlpack_device__(self): return 1, 0\n"
            "    def __dlpack__(self, **options): return np.ones(3, 'u2').__dlpack__(**options)\n"
            "try: _arrays.array(Other(), 'x')\n"
            "except TypeError as error: print(error)\n"
            "print(klce.logsumexp(np.zeros(1, np.float16)))\n"
            "import klce.compat.torch\n"
            "for f in (klce.softmax, klce.compat.torch.softmax):\n"
            "    try: f(np.zeros(2), 0, dtype='bfloat16')\n"
            "    except ImportError as error: print(error)\n"
        )
        process = run_script(code)
        assert process.returncode == 0, process.stderr
        message, result, *asked_for = process.stdout.splitlines()
        assert message == (
            "x must be of a dtype that NumPy has unless ml_dtypes is installed, got bfloat16"
        )
        assert result == "0.0"
        assert asked_for == ["bfloat16 needs ml_dtypes, which is not installed"] * 2


def test_what_dlpack_does_not_describe_goes_the_usual_way():
    class Nulls(Tensor):
        def __dlpack__(self, **options):
            raise BufferError("values are missing")

        def __array__(self, dtype=None, copy=None):
            return np.array([1.0, np.nan])

    assert np.isnan(klce.logsumexp(Nulls(None)))


@pytest.mark.parametrize("error", [RuntimeError, TypeError])
def test_what_numpy_does_not_read_is_told_by_name(error):
    class Sparse:
        def __array__(self, dtype=None, copy=None):
            raise error("to_dense() first")

    class SparseTensor(Sparse, Tensor):
        def __dlpack__(self, **options):
            raise BufferError("not strided")

    for x in (Sparse(), SparseTensor(None), [Sparse()]):
        message = f"x must be what NumPy takes as an array, got a {type(x).__name__}: to_dense"
        with pytest.raises(TypeError, match=f"^{message}"):
            klce.logsumexp(x)


def test_other_sequences(tmp_path):
    expected = klce.logsumexp(X.astype(np.float64))
    assert same_bits(klce.logsumexp(X.astype(float).tolist()), expected)
    assert same_bits(klce.logsumexp(tuple(map(tuple, X.astype(float)))), expected)
    row = array.array("f", X[0])
    assert klce.logsumexp(row) == klce.logsumexp(X[0])
    assert klce.logsumexp(memoryview(row)) == klce.logsumexp(X[0])
    for dtype in ("float16", "float32", ">f4", "int16"):
        values = np.memmap(tmp_path / "x", dtype, "w+", shape=X.shape)
        values[...] = 4 * X
        frozen = np.memmap(tmp_path / "x", dtype, "r", shape=X.shape)
        result = klce.softmax(frozen)
        assert type(result) is np.ndarray
        assert same_bits(result, klce.softmax(np.array(values)))


class TestTorch:
    """The real thing, where it is installed."""

    @pytest.fixture
    def torch(self):
        return pytest.importorskip("torch")

    @pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
    def test_no_copy(self, torch, dtype):
        tensor = torch.tensor(X, dtype=getattr(torch, dtype))
        for view in (tensor, tensor.T, tensor[::2, 1:]):
            found = _arrays.array(view, "x")
            assert found.ctypes.data == view.data_ptr()
            assert same_bits(found.astype(np.float64), view.double().numpy())
        result = klce.cross_entropy(tensor, torch.tensor(LABELS))
        expected = torch.nn.functional.cross_entropy(tensor.double(), torch.tensor(LABELS))
        np.testing.assert_allclose(result, expected.item(), rtol=1e-6)

    def test_float8(self, torch):
        for name in ("float8_e4m3fn", "float8_e5m2"):
            tensor = torch.tensor(X).to(getattr(torch, name))
            found = klce.logsumexp(tensor)
            assert same_bits(found, klce.logsumexp(tensor.float().numpy()))

    def test_refusals(self, torch):
        with pytest.raises(TypeError, match=r"^x must not require grad"):
            klce.logsumexp(torch.tensor(X, requires_grad=True))
        with pytest.raises(TypeError, match=r"^x must be in CPU memory, got a Tensor"):
            klce.logsumexp(torch.empty(3, 3, device="meta"))
        for tensor in (torch.eye(3).to_sparse(), torch.ones(3, dtype=torch.complex64).conj()):
            with pytest.raises(TypeError, match=r"^x must be what NumPy takes as an array"):
                klce.logsumexp(tensor)
