"""What the public functions refuse, in which words, and that they write nothing then."""

import inspect
import re
import typing

import ml_dtypes
import numpy as np
import pytest

import klce
from klce import _typing
from tests.functions import ELEMENTWISE

X = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]))
P = np.exp(X)
LABELS = np.array([0, 2])

# One right call of each function: its name, its arguments and the name of its first one.
CALLS = {
    "logsumexp": ((X,), "x"),
    "softmax": ((X,), "x"),
    "log_softmax": ((X,), "x"),
    "information": ((P,), "p"),
    "binary_entropy": ((P,), "p"),
    "entropy": ((P,), "p"),
    "nll_loss": ((X, LABELS), "log_probs"),
    "cross_entropy": ((X, LABELS), "q"),
    "kl_divergence": ((P, P[::-1]), "p"),
    "js_divergence": ((P, P[::-1]), "p"),
    "rel_entr": ((P, P[::-1]), "p"),
}
MAPS = ("softmax", "log_softmax")
PAIRS = ("kl_divergence", "js_divergence")
SEVERAL_AXES = ("logsumexp", *MAPS, "entropy", *PAIRS)
LOSSES = ("nll_loss", "cross_entropy")
WITH_MASK = (*SEVERAL_AXES, *LOSSES)

EACH = pytest.mark.parametrize("name", CALLS)
BY_ROWS = pytest.mark.parametrize("name", [n for n in CALLS if n not in ELEMENTWISE])


def call(name, *changed, **kwargs):
    """Call a function; arguments that are not given are the right ones."""
    args, _ = CALLS[name]
    return getattr(klce, name)(*changed, *args[len(changed) :], **kwargs)


def refuses(error, message, name, *changed, **kwargs):
    """Check the error, and that it is one sentence."""
    with pytest.raises(error) as caught:
        call(name, *changed, **kwargs)
    # Of that type and not of a subclass, but for NumPy's own.
    assert caught.type in (error, np.exceptions.AxisError)
    text = str(caught.value)
    assert re.search(message, text), text
    assert "\n" not in text
    assert not text.endswith(".")


# --- arrays ---------------------------------------------------------------------------------------


@EACH
@pytest.mark.parametrize(
    "dtype",
    ["complex64", "longdouble", "U3", "S2", "T", "datetime64[s]", "O", "int4", "float6_e2m3fn"],
)
def test_dtypes(name, dtype):
    argument = CALLS[name][1]
    wrong = np.ones((2, 3)).astype(getattr(ml_dtypes, dtype, dtype))
    got = re.escape(str(wrong.dtype))
    refuses(
        TypeError, rf"^{argument} must be float16, bfloat16, .* or bool, got {got}$", name, wrong
    )
    if name in (*PAIRS, "rel_entr"):
        refuses(TypeError, r"^q must be float16", name, P, wrong)
    if name == "logsumexp":
        refuses(TypeError, r"^b must be float16", name, b=wrong)


@EACH
def test_scalars_have_no_classes(name):
    if name in ELEMENTWISE:
        assert (call(name, 0.5) > 0).any()
        return
    argument = CALLS[name][1]
    if name in SEVERAL_AXES:
        # As with NumPy's reductions, but for any other axis.
        scalars = (1.0, 1.0) if name in PAIRS else (1.0,)
        for axis in (-1, 0, None, ()):
            assert call(name, *scalars, axis=axis) == (name in ("logsumexp", "softmax"))
        message = rf"^{argument} must have at least one dimension"
        refuses(ValueError, message, name, *scalars, axis=1)
        if name in PAIRS:
            message = r"^axis must name the same axis of p and q, .* shapes \(2, 3\) and \(\)$"
            refuses(ValueError, message, name, P, 1.0)
        return
    refuses(ValueError, rf"^{argument} must have at least one dimension", name, 1.0)


@BY_ROWS
def test_axis(name):
    argument = CALLS[name][1]
    for axis in (2, -3, 10**30):
        message = rf"^axis {axis} is out of bounds for {argument} of 2 dimensions"
        refuses(ValueError, message, name, axis=axis)
    if name in SEVERAL_AXES:
        refuses(ValueError, r"^axis must name each axis once, got \(0, -2\)$", name, axis=(0, -2))
        refuses(ValueError, r"^axis 2 is out of bounds", name, axis=(0, 2))
        refuses(TypeError, r"^axis must be an integer, got 1.0", name, axis=(0, 1.0))
    for axis in (1.0, "1", [1], True, *([] if name in SEVERAL_AXES else [None, (0, 1)])):
        refuses(
            TypeError, r"^axis must be an integer, got " + re.escape(repr(axis)), name, axis=axis
        )
    # Any integer will do.
    call(name, axis=np.int8(1))


@pytest.mark.parametrize("name", MAPS)
def test_maps_need_a_class(name):
    refuses(ValueError, r"^x must have at least one class .* \(3, 0\)", name, np.zeros((3, 0)))
    message = r"^x must have at least one class .* \(0, 3\)"
    refuses(ValueError, message, name, np.zeros((0, 3)), axis=0)
    assert call(name, np.zeros((0, 3))).shape == (0, 3)


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_of_shapes(name):
    refuses(
        ValueError,
        r"^p and q must have the same number of classes, got 3 and 4$",
        name,
        P,
        np.ones((2, 4)),
    )
    refuses(ValueError, r"^p and q .* classes, got 3 and 1$", name, P, np.ones((2, 1)))
    message = r"^p and q must have shapes that broadcast, got \(2, 3\) and \(4, 3\)$"
    refuses(ValueError, message, name, P, np.ones((4, 3)))
    message = r"^axis must name the same axis of p and q"
    refuses(ValueError, message, name, P, np.ones(2), axis=0)
    refuses(ValueError, message, name, P, P[0], axis=None)
    message = r"^p and q must have the same number of classes, got 2 and 1$"
    refuses(ValueError, message, name, P, P[:1], axis=(0, 1))


def test_operands_that_broadcast():
    message = r"^p and q must have shapes that broadcast, got \(2, 3\) and \(4, 3\)$"
    refuses(ValueError, message, "rel_entr", P, np.ones((4, 3)))
    message = r"^x and b must have shapes that broadcast, got \(2, 3\) and \(4,\)$"
    refuses(ValueError, message, "logsumexp", b=np.ones(4))


@pytest.mark.parametrize("name", WITH_MASK)
def test_where(name):
    argument = "p and q" if name in PAIRS else CALLS[name][1]
    for wrong in ([1, 0, 1], [1.0, 0.0, 1.0], "all", np.array([True, None])):
        got = re.escape(str(np.asarray(wrong).dtype))
        refuses(TypeError, rf"^where must hold bool, got {got}$", name, where=wrong)
    for shape in ((2,), (4, 3), (1, 2, 3)):
        hint = r": np\.expand_dims\(where, -1\) is a mask of rows" if shape == (2,) else ""
        message = (
            rf"^where must broadcast to the shape of {argument}, \(2, 3\), "
            rf"got {re.escape(str(shape))}{hint}$"
        )
        refuses(ValueError, message, name, where=np.ones(shape, bool))
    if name == "logsumexp":
        message = r"^where must broadcast to the shape of x and b, \(4, 2, 3\), got \(5,\)$"
        refuses(ValueError, message, name, b=np.ones((4, 1, 1)), where=np.ones(5, bool))


# --- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["logsumexp", *MAPS])
def test_dtype_option(name):
    for dtype in (int, "complex128", "longdouble", ml_dtypes.float8_e5m2):
        message = rf"^dtype must be float16, bfloat16, float32 or float64, got {np.dtype(dtype)}$"
        refuses(TypeError, message, name, dtype=dtype)
    refuses(TypeError, r"^dtype must be .* or float64, got StringDType\(\)$", name, dtype="T")
    for dtype in ("foo", {"a": 1}, 3.5):
        message = rf"^dtype must be .* or float64, got {re.escape(repr(dtype))}$"
        refuses(TypeError, message, name, dtype=dtype)


@pytest.mark.parametrize("name", [*MAPS, "entropy", "cross_entropy", *PAIRS])
def test_temperature(name):
    logits = {} if name in (*MAPS, "cross_entropy") else {"form": "logits"}
    for wrong in (0, -1, np.nan, np.inf, 1e-7, 1e7):
        message = rf"^temperature must be from 1e-6 to 1e6, got {re.escape(repr(wrong))}$"
        refuses(ValueError, message, name, temperature=wrong, **logits)
    for wrong in ("warm", "1", b"1", None, [1, 2]):
        refuses(
            TypeError, r"^temperature must be a number, got ", name, temperature=wrong, **logits
        )
    message = r"^temperature must be a number, got an array of shape \(3, 4\) and dtype float64$"
    refuses(TypeError, message, name, temperature=np.ones((3, 4)), **logits)
    for wrong, told in ((10**400, "1.000e+400"), (-(10**5000), "-1.000e+5000")):
        message = rf"^temperature must be in the range of float64, got {re.escape(told)}$"
        refuses(ValueError, message, name, temperature=wrong, **logits)
    for form in ("probs", "log_probs") if name not in MAPS else ():
        message = rf'^temperature belongs to form="logits", got 2 with form={form!r}$'
        refuses(ValueError, message, name, temperature=2, form=form)
        call(name, temperature=1, form=form)


@pytest.mark.parametrize("name", ["entropy", "cross_entropy", *PAIRS])
def test_form(name):
    pair = ", or a pair of them, one for p and one for q" if name in PAIRS else ""
    message = rf'^form must be "probs", "log_probs" or "logits"{pair}, got '
    for wrong in ("prob", "", None, "Logits", 1, ["logits"], {"probs"}):
        refuses(ValueError, message + re.escape(repr(wrong)), name, form=wrong)
    refuses(ValueError, message + "an array of shape", name, form=np.array(["probs"]))
    if name in PAIRS:
        wrong = ("probs", "odds")
        refuses(ValueError, rf"^form must be .* got {re.escape(repr(wrong))}$", name, form=wrong)
        refuses(ValueError, r"^form must be .* got \('probs',\)$", name, form=("probs",))
        pair = ("probs", "log_probs")
        message = rf"^temperature belongs to .*, got 2 with form={re.escape(repr(pair))}$"
        refuses(ValueError, message, name, form=pair, temperature=2)
        call(name, form=("probs", "logits"), temperature=2)


def test_form_of_binary_cross_entropy():
    for wrong in ("log_probs", None, ["probs"], {}):
        message = rf'^form must be "probs" or "logits", got {re.escape(repr(wrong))}$'
        with pytest.raises(ValueError, match=message):
            klce.binary_cross_entropy(P, P, form=wrong)


@pytest.mark.parametrize("name", ["entropy", *PAIRS])
def test_normalize(name):
    for form in ("logits", ("probs", "logits")) if name in PAIRS else ("logits",):
        message = rf"^normalize=False belongs to .*, got form={re.escape(repr(form))}$"
        refuses(ValueError, message, name, form=form, normalize=False)


@pytest.mark.parametrize(
    ("name", "option"),
    [
        *(("logsumexp", option) for option in ("keepdims", "return_sign")),
        *((name, option) for name in ("entropy", *PAIRS) for option in ("keepdims", "normalize")),
    ],
)
def test_flags(name, option):
    for wrong in ("no", 1, 0.0, None, []):
        message = rf"^{option} must be True or False, got {re.escape(repr(wrong))}$"
        refuses(TypeError, message, name, **{option: wrong})
    message = rf"^{option} must be True or False, got an array of shape \(2,\) and dtype bool$"
    refuses(TypeError, message, name, **{option: np.array([True, False])})
    for value in (True, False):
        a, b = (call(name, **{option: kind(value)}) for kind in (bool, np.bool_))
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", SEVERAL_AXES)
def test_a_bool_is_no_axis(name):
    refuses(TypeError, r"^axis must be an integer, got False$", name, axis=(0, False))
    refuses(TypeError, r"^axis must be an integer, got False$", name, 1.0, axis=False)


@pytest.mark.parametrize("name", [n for n in CALLS if n not in ("logsumexp", *MAPS)])
def test_base(name):
    for wrong in (0, 1, 1.0, -2, np.inf, np.nan):
        message = rf"^base must be positive, finite and not 1, got {re.escape(repr(wrong))}$"
        refuses(ValueError, message, name, base=wrong)
    for wrong in ("two", "2", [2, 3]):
        refuses(TypeError, r"^base must be a number or None, got ", name, base=wrong)
    message = r"^base must be in the range of float64, got 1.000e\+400$"
    refuses(ValueError, message, name, base=10**400)


@pytest.mark.parametrize("name", [*LOSSES, *PAIRS])
def test_reduction(name):
    allowed = '"none", "mean" or "sum"'
    if name in PAIRS:
        allowed = '"none", "mean", "batchmean" or "sum"'
    others = ["batchmean"] if name in LOSSES else []
    for wrong in ("max", None, True, ["mean"], {"sum"}, *others):
        with pytest.raises(ValueError, match=r"^reduction must be ") as caught:
            call(name, reduction=wrong)
        named = re.search(r"must be (.*), got", str(caught.value))[1]
        assert sorted(re.findall(r'"\w+"', named)) == sorted(re.findall(r'"\w+"', allowed))
        assert str(caught.value).endswith(f"got {wrong!r}")


@pytest.mark.parametrize("name", [*LOSSES, *PAIRS, "binary_cross_entropy", "entropy"])
def test_annotations_name_the_words_that_are_taken(name):
    """So that a type checker and an editor tell the choices."""
    function, args = getattr(klce, name), CALLS.get(name, ((P, P), "q"))[0]
    for option in ("form", "reduction"):
        parameter = inspect.signature(function).parameters.get(option)
        if parameter is None:
            continue
        named = typing.get_args(getattr(_typing, parameter.annotation.partition(" |")[0]))
        assert parameter.default in named
        with pytest.raises(ValueError, match=rf"^{option} must be ") as caught:
            function(*args, **{option: "other"})
        taken = re.findall(r'"(\w+)"', str(caught.value).partition(", got")[0])
        assert sorted(taken) == sorted(named)


@pytest.mark.parametrize("name", PAIRS)
def test_keepdims_belongs_to_rows(name):
    for reduction in ("mean", "sum", "batchmean"):
        message = rf'^keepdims belongs to reduction="none", got reduction={reduction!r}$'
        refuses(ValueError, message, name, reduction=reduction, keepdims=True)


def test_z_loss():
    name = "cross_entropy"
    for wrong in (np.nan, np.inf, -1e-3):
        refuses(ValueError, r"^z_loss must (be finite|not be negative), got ", name, z_loss=wrong)
    refuses(TypeError, r"^z_loss must be a number, got 'much'$", name, z_loss="much")
    for form in ("probs", "log_probs"):
        message = rf'^z_loss belongs to form="logits", got 0.1 with form={form!r}$'
        refuses(ValueError, message, name, form=form, z_loss=0.1)
        call(name, form=form, z_loss=0)


@EACH
def test_options_of_other_functions_are_absent(name):
    others = {"weight", "where", "label_smoothing", "sample_weight", "b", "return_sign"}
    if name in WITH_MASK:
        others.discard("where")
    if name == "logsumexp":
        others -= {"b", "return_sign"}
    if name in LOSSES:
        others -= {"weight", "sample_weight"}
    if name == "cross_entropy":
        others.discard("label_smoothing")
    if name == "binary_cross_entropy":
        others.discard("weight")
    for option in sorted(others):
        with pytest.raises(TypeError, match=option):
            call(name, **{option: None})


# --- labels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
class TestLabels:
    def test_every_integer_dtype(self, name):
        expected = call(name)
        for dtype in "bBhHiIlLqQ":
            assert call(name, X, LABELS.astype(dtype)) == expected
            assert call(name, X, LABELS.astype(np.dtype(dtype).newbyteorder())) == expected
        assert call(name, X, LABELS.tolist()) == expected

    @pytest.mark.parametrize("dtype", "bBhHiIlLqQ")
    def test_every_integer_dtype_with_a_mask_of_rows(self, name, dtype):
        """The masked row's label is no class, and in uint64 beyond int64."""
        keep = np.array([[True], [False]])
        labels = np.array([0, np.iinfo(dtype).max], dtype)
        expected = call(name, X[:1], LABELS[:1])
        assert call(name, X, labels, where=keep) == expected
        assert call(name, X, labels.astype(labels.dtype.newbyteorder()), where=keep) == expected
        message = rf"got {labels[1]} in row 1$"
        refuses(IndexError, message, name, X, labels, where=~keep)

    @pytest.mark.parametrize("label", [3, -1, -3, 100, -99, 2**31, -(2**31), 2**63 - 1, -(2**63)])
    def test_out_of_range(self, name, label):
        indices = "class indices from 0 to 2 or ignore_index=-100"
        message = rf"^target must hold {indices}, got {label} in row 1$"
        refuses(IndexError, message, name, X, np.array([0, label]))
        refuses(IndexError, message, name, X, np.array([0, label]), reduction="none")
        # The first one is named, with its row in an array of rows.
        x = np.zeros((2, 3, 4, 3))
        labels = np.zeros((2, 3, 4), np.int64)
        labels[1, 0, 3] = labels[1, 2, 0] = label
        refuses(IndexError, rf"got {label} in row 1, 0, 3$", name, x, labels)
        refuses(IndexError, rf"got {label}$", name, np.zeros(3), label)

    @pytest.mark.parametrize("label", [2**63, 2**64 - 1, 2**64 - 100, 2**64 - 3, 2**63 + 1])
    def test_beyond_int64(self, name, label):
        """None of them wraps to a class, or to the label that is ignored."""
        labels = np.array([0, label], np.uint64)
        wrapped = label - 2**64
        for given in (labels, labels.astype(labels.dtype.newbyteorder())):
            refuses(IndexError, rf"got {label} in row 1$", name, X, given)
            for ignored in (wrapped, -1, 2**63 - 1):
                message = rf"ignore_index={ignored}, got {label} in row 1$"
                refuses(IndexError, message, name, X, given, ignore_index=ignored)

    def test_ignored(self, name):
        x = np.zeros((4, 3))
        for ignored in (-100, -1, 0, 3, 2**63 - 1, -(2**63)):
            labels = np.array([1, ignored, ignored, 2])
            rows = call(name, x, labels, ignore_index=ignored, reduction="none")
            assert (rows[1:3] == 0).all()
            total = call(name, x, labels, ignore_index=ignored, reduction="sum")
            assert call(name, x, labels, ignore_index=ignored) == pytest.approx(total / 2)
        assert np.isnan(call(name, x, [-100] * 4))
        assert call(name, x, [-100] * 4, reduction="sum") == 0

    def test_dtypes(self, name):
        for wrong in ([True, False], ["0", "1"], [None, 1], [0, 2**70], [0.0], [[0.0]]):
            got = re.escape(str(np.asarray(wrong).dtype))
            message = rf"^target must hold integers, class indices, got {got}$"
            if np.shape(wrong) != (1, 1) or name == "nll_loss":  # else it is a distribution
                refuses(TypeError, message, name, X, wrong)
        for dtype in ("float64", "float16", ml_dtypes.bfloat16):
            message = rf"class indices, got {np.dtype(dtype)}: pass target\.astype\(int\)$"
            refuses(TypeError, message, name, X, np.array([0, 1]).astype(dtype))

    def test_shapes(self, name):
        for wrong in (0, [0], [0, 1, 2], [[0, 1]], [[0], [1]]):
            got = re.escape(str(np.shape(wrong)))
            message = rf"^target must have the shape of the rows, \(2,\), .*, got {got}$"
            refuses(ValueError, message, name, X, wrong)
        message = r"the shape of the rows, \(2, 4\), .*, got \(2, 3\)$"
        refuses(ValueError, message, name, np.zeros((2, 3, 4)), np.zeros((2, 3), int), axis=1)

    @pytest.mark.parametrize("where", [None, [[True], [False]], [True, False, True]])
    def test_ignore_index(self, name, where):
        for wrong in (1.0, "1", "a", None):
            message = rf"^ignore_index must be an integer, got {re.escape(repr(wrong))}$"
            refuses(TypeError, message, name, ignore_index=wrong, where=where)
        for wrong in (2**63, -(2**63) - 1, 2**70):
            message = rf"^ignore_index must fit in int64, got {wrong}$"
            refuses(ValueError, message, name, ignore_index=wrong, where=where)

    def test_no_rows(self, name):
        """An empty list, which NumPy takes for floats, is one of labels."""
        none = np.zeros((0, 3))
        assert np.isnan(call(name, none, []))
        assert call(name, none, [], reduction="sum") == 0
        assert call(name, none, [], reduction="none").shape == (0,)
        refuses(ValueError, r"^target must have the shape of the rows", name, X, [])

    def test_no_class_to_name(self, name):
        message = r"class indices of no classes or .* got 0 in row 0$"
        refuses(IndexError, message, name, np.zeros((1, 0)), [0])
        assert call(name, np.zeros((1, 0)), [-100], reduction="none") == 0


# --- out ------------------------------------------------------------------------------------------


def result_of(name):
    rows = {"reduction": "none"} if name in LOSSES else {}
    return call(name, **rows), rows


@EACH
def test_out(name):
    result, rows = result_of(name)
    for shape in ((), (1,), (3, 2), (*result.shape, 1)):
        message = rf"^out must have the result's shape .*, got {re.escape(str(shape))}$"
        refuses(ValueError, message, name, out=np.zeros(shape), **rows)
    for dtype in ("float32", "int64", "bool"):
        message = rf"^out must hold float64, got {dtype}$"
        refuses(TypeError, message, name, out=np.zeros(result.shape, dtype), **rows)
    for wrong in ([0.0, 0.0], 1.0, "out"):
        message = rf"^out must be a NumPy array, got {type(wrong).__name__}$"
        refuses(TypeError, message, name, out=wrong, **rows)
    frozen = np.zeros(result.shape)
    frozen.flags.writeable = False
    refuses(ValueError, r"^out must be writable", name, out=frozen, **rows)


@pytest.mark.parametrize("name", [*LOSSES, *PAIRS])
def test_out_of_a_reduction(name):
    for reduction in ("mean", "sum"):
        message = r"^out must have the result's shape \(\), got \(1,\)$"
        refuses(ValueError, message, name, out=np.zeros(1), reduction=reduction)


@EACH
def test_nothing_is_written_by_a_call_that_fails(name):
    result, rows = result_of(name)
    wrong = [{"base": 1}] if name not in ("logsumexp", *MAPS) else [{"dtype": "int8"}]
    if name not in ELEMENTWISE:
        wrong.append({"axis": 5})
    if name in WITH_MASK:
        wrong.append({"where": [True, False]})
    if name in ("entropy", "cross_entropy", *PAIRS):
        wrong += [{"temperature": 0, "form": "logits"}, {"form": "odds"}]
    for options in wrong:
        out = np.full(result.shape, 99.0)
        with pytest.raises((ValueError, TypeError)):
            call(name, out=out, **{**rows, **options})
        assert (out == 99).all()
    if name in LOSSES:
        # The last label of many is the wrong one.
        x = np.zeros((70_000, 3))
        labels = np.zeros(len(x), np.int64)
        labels[-1] = 3
        for reduction in ("none", "mean"):
            out = np.full(len(x) if reduction == "none" else (), 99.0)
            with pytest.raises(IndexError, match=r"in row 69999$"):
                call(name, x, labels, out=out, reduction=reduction)
            assert (out == 99).all()
