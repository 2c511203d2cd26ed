"""klce.score, klce.compare and klce.compare_top_k, beyond what the kernels compute."""

from __future__ import annotations

import functools
import itertools
import math
import sys

import ml_dtypes
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import klce
from klce import _ufuncs, reference
from tests.kernels import ISAS, on_isa
from tests.ulp import ulp_error

SCORES = list(_ufuncs.STATISTICS["score"])
COMPARISONS = list(_ufuncs.STATISTICS["compare"])
DTYPES = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16]


@pytest.fixture
def rng():
    return np.random.default_rng(20261124)


def rows(rng, shape=(6, 40), dtype=np.float64):
    return (3 * rng.normal(size=shape)).astype(dtype)


def assert_near(table, expected, rtol=1e-6, atol=1e-7):
    for name, column in table.items():
        want = np.asarray(expected[name])
        assert column.shape == want.shape, name
        if column.dtype.kind == "f":
            assert_allclose(column, want, rtol=rtol, atol=atol, err_msg=name)
        else:
            assert_array_equal(column, want, err_msg=name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_score_as_specified(dtype, rng):
    x, target = rows(rng, dtype=dtype), rng.integers(0, 40, 6)
    target[2] = -100
    options = {"top_k": 7, "candidates": [3, 0, 39], "temperature": 0.8}
    table = klce.score(x, target, want=SCORES, **options)
    assert list(table) == [*SCORES, "candidate_log_probs", "top_ids", "top_log_probs"]
    assert_near(table, reference.score(x.astype(np.float64), target, **options))
    number = np.float64 if dtype == np.float64 else np.float32
    kinds = {"rank": np.int64, "argmax": np.int64, "greedy_match": np.bool_, "top_ids": np.int64}
    assert {k: a.dtype for k, a in table.items()} == {
        k: np.dtype(kinds.get(k, number)) for k in table
    }


@pytest.mark.parametrize("dtype", DTYPES)
def test_compare_as_specified(dtype, rng):
    p, target = rows(rng, dtype=dtype), rng.integers(0, 40, 6)
    q = (p.astype(np.float64) + rng.normal(size=p.shape)).astype(dtype)
    target[4] = -100
    table = klce.compare(p, q, target, want=COMPARISONS, top_k=5)
    assert list(table) == COMPARISONS
    wide = p.astype(np.float64), q.astype(np.float64)
    assert_near(table, reference.compare(*wide, target, top_k=5))
    number = np.float64 if dtype == np.float64 else np.float32
    kinds = dict.fromkeys(["top_overlap", "argmax_p", "argmax_q"], np.int64)
    kinds |= dict.fromkeys(["same_argmax", "greedy_match_p", "greedy_match_q"], np.bool_)
    assert {k: a.dtype for k, a in table.items()} == {
        k: np.dtype(kinds.get(k, number)) for k in table
    }


@pytest.mark.parametrize("name", SCORES)
def test_each_score_alone_is_what_it_is_among_others(name, rng):
    for n in (1, 5, 300, 20000):
        x = rows(rng, (20, n), np.float32)
        target = rng.integers(0, n, 20)
        alone = klce.score(x, target, want=[name])
        assert list(alone) == [name]
        assert_array_equal(alone[name], klce.score(x, target, want=SCORES)[name])


# Which sweeps find these depends on what else is asked for, and their last bit with it.
OF_BOTH_ROWS = {
    "kl_divergence",
    "reverse_kl_divergence",
    "js_divergence",
    "cross_entropy",
    "reverse_cross_entropy",
    "target_log_prob_change",
    "target_prob_change",
    "expected_agreement",
}


@pytest.mark.parametrize("apart", [3, 0.01])
@pytest.mark.parametrize("name", COMPARISONS)
def test_each_comparison_alone_is_what_it_is_among_others(name, apart, rng):
    for n in (1, 5, 300, 20000):
        p = rows(rng, (20, n), np.float32)
        q = (p + apart * rng.normal(size=p.shape)).astype(np.float32)
        target = rng.integers(0, n, 20)
        top = {"top_k": 1} if name == "top_overlap" else {}
        alone = klce.compare(p, q, target, want=[name], **top)
        assert list(alone) == [name]
        among = klce.compare(p, q, target, want=COMPARISONS, top_k=1)
        if name in OF_BOTH_ROWS:
            assert_allclose(alone[name], among[name], rtol=1e-6, atol=1e-7)
        else:
            assert_array_equal(alone[name], among[name])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("rows_of", [1, 16])
def test_changes_at_a_maximum_beyond_all_digits(rows_of, isa):
    p = np.zeros((rows_of, 3), np.float32)
    p[:, 0] = 1e20
    q = np.tile(np.float32([50, 49, 0]), (rows_of, 1))
    with on_isa(isa):
        change = klce.compare(p, q, np.ones(rows_of, int), want=["target_prob_change"])
    expected = klce.softmax(q[0].astype(np.float64))[1]
    assert_allclose(change.target_prob_change, expected, rtol=1e-6)


# What compare tells of each row as score does.
OF_EACH = ["nll", "max_log_prob", "argmax", "greedy_match"]
OF_ONE = [f"{name}_{row}" for name in OF_EACH for row in "pq"]


def kinds_of_pairs(n, rng):
    """Pairs of rows of n classes: near, unlike, confident ones, and those that are none."""
    x = 3 * rng.standard_normal((40, n))
    y = x + np.geomspace(1e-6, 10, 40)[:, None] * rng.standard_normal(x.shape)
    for k, lead in enumerate((20, 46, 90)):
        x[k, n // 2] = y[k, -1] = lead
        x[3 + k, 0] = y[3 + k, 0] = lead
    for k, wrong in enumerate((np.nan, np.inf)):
        x[6 + k, n // 2] = y[8 + k, -1] = x[10 + k, 0] = y[10 + k, 0] = wrong
    x[12] = y[13] = x[14] = y[14] = -np.inf
    x[15, : n // 2] = y[16, n // 2 :] = -np.inf
    x[17:19, :1] = y[17:19, :1] = -np.inf
    return x, y


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 7, 100, 300, 2000, 40_000])
def test_what_is_of_one_row_is_what_score_tells(n, dtype, isa, rng):
    """To the bit, but for near rows, whose sums of KL divergence alone are others."""
    x, y = (a.astype(dtype) for a in kinds_of_pairs(n, rng))
    if n > 10_000:  # two of each kind are enough
        x, y = x[::2], y[::2]
    target = rng.integers(0, n, len(x))
    target[::3] = x.argmax(axis=1)[::3]
    target[1::6] = -100
    mask = rng.random((len(x), n)) < 0.8
    with on_isa(isa):
        for options in ({}, {"temperature": 0.7}, {"where": mask}):
            own = [klce.score(a, target, want=OF_EACH, **options) for a in (x, y)]
            for more in ([], ["js_divergence", "reverse_kl_divergence"], ["kl_divergence"]):
                table = klce.compare(x, y, target, want=[*OF_ONE, *more], **options)
                for name in OF_ONE:
                    expected = own[name.endswith("_q")][name[:-2]]
                    if more == ["kl_divergence"] and table[name].dtype.kind == "f":
                        rtol = 6 * np.finfo(expected.dtype).eps
                        assert_allclose(table[name], expected, rtol=rtol, err_msg=name)
                    else:
                        assert_array_equal(table[name], expected, err_msg=name)
                        assert table[name].dtype == expected.dtype


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("lead", [5, 46, 80])
@pytest.mark.parametrize("more", [[], ["kl_divergence"], ["js_divergence"]])
def test_what_is_left_of_confident_rows_keeps_its_digits(more, lead, dtype, isa, rng):
    """The loss of the likely class is all that the others have, down to 1e-35."""
    names = ["nll_p", "nll_q", "max_log_prob_p", "max_log_prob_q"]
    for n in (2, 100, 300, 2000):
        for noise in (1e-3, 0.3, 5):
            x = rng.standard_normal((20, n)).astype(dtype)
            y = (x + noise * rng.standard_normal(x.shape)).astype(dtype)
            x[:, 1] = y[:, 1] = lead
            target = np.ones(20, int)
            expected = reference.compare(x, y, target, want=names)
            assert lead < 46 or expected["nll_q"].max() < 1e-10
            with on_isa(isa):
                table = klce.compare(x, y, target, want=[*names, *more])
            bound = 4 if dtype == np.float32 else 8  # README.md
            for name in names:
                error = ulp_error(table[name], expected[name], 0, np.dtype(dtype), None)
                assert error.max() <= bound, name


def test_a_top_of_none_shares_nothing():
    x = np.zeros((40, 5))
    out = np.empty((40, 0)), np.empty((40, 1), np.int64)
    want = 1 << COMPARISONS.index("top_overlap")
    _ufuncs.compare(x, x, np.zeros(40, np.int64), -100, 1.0, want, 0, out=out)
    assert not out[1].any()


def test_the_same_bits_as_the_functions_of_one_thing(rng):
    for n in (3, 40, 3000, 40000):
        x, y = rows(rng, (19, n), np.float32), rows(rng, (19, n), np.float32)
        target = rng.integers(0, n, 19)
        table = klce.score(x, target, want=SCORES)
        assert_array_equal(table.logsumexp, klce.logsumexp(x))
        assert_array_equal(table.entropy, klce.entropy(x, form="logits"))
        assert_array_equal(table.nll, klce.cross_entropy(x, target, reduction="none"))
        both = klce.compare(x, y, want=["kl_divergence", "entropy_q"])
        assert_array_equal(both.entropy_q, klce.entropy(y, form="logits"))
        assert_allclose(both.kl_divergence, klce.kl_divergence(x, y, form="logits"), rtol=1e-6)


def test_what_is_told_without_want(rng):
    x, target = rows(rng), rng.integers(0, 40, 6)
    assert list(klce.score(x)) == ["logsumexp", "entropy", "argmax"]
    of_target = ["nll", "target_log_prob", "target_prob"]
    others = ["logsumexp", "entropy", "rank", "argmax", "greedy_match"]
    assert list(klce.score(x, target)) == of_target + others
    told = ["kl_divergence", "entropy_p", "entropy_q"]
    assert list(klce.compare(x, x)) == [*told, "same_argmax"]
    changes = ["target_log_prob_change", "target_prob_change"]
    assert list(klce.compare(x, x, target)) == [*told, *changes, "same_argmax"]
    assert list(klce.score(x, want=[])) == []
    assert list(klce.score(x, want=[], top_k=1)) == ["top_ids", "top_log_probs"]


def test_ties():
    x = np.array([[1.0, 3.0, 3.0, 3.0, 0.0]])
    table = klce.score(x, [2], want=["rank", "argmax", "margin", "greedy_match"], top_k=4)
    assert table.rank[0] == 3
    assert table.argmax[0] == 1
    assert table.margin[0] == 0
    assert not table.greedy_match[0]
    assert_array_equal(table.top_ids, [[1, 2, 3, 0]])
    # The second one of the first top is not in the other, where a lower index comes before it.
    both = klce.compare(x, np.array([[3.0, 3.0, 3.0, 0.0, 0.0]]), top_k=2)
    assert both.top_overlap[0] == 1


@pytest.mark.parametrize("top_k", [1, 2, 5, 20, 300, 1024])
@pytest.mark.parametrize("order", ["any", "up", "down", "equal"])
def test_the_top_is_that_of_a_stable_sort(top_k, order, rng):
    for n in (top_k, top_k + 1, 40_000):
        x = np.round(rows(rng, (3, n), np.float32), 1)
        x = {"up": np.sort(x), "down": -np.sort(-x), "equal": 0 * x}.get(order, x)
        table = klce.score(x, want=(), top_k=top_k)
        expected = np.argsort(-x, axis=-1, kind="stable")[:, :top_k]
        assert_array_equal(table.top_ids, expected)
        log_probs = np.take_along_axis(klce.log_softmax(x), expected, axis=-1)
        assert_allclose(table.top_log_probs, log_probs, rtol=3e-7)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("special", ["few", "masked first", "nan first", "all but a few", "alike"])
def test_the_top_of_rows_with_special_values(special, dtype, isa, rng):
    """Pieces of a row are passed over by their largest element, which may be none."""
    for n, top_k in itertools.product((500, 1000, 5000, 40_000, 70_001), (1, 7, 20)):
        x = np.round(rows(rng, (2, n), np.float32), 1)
        match special:
            case "few":
                x[:, ::7] = -np.inf
                x[:, 3::11] = np.nan
            case "masked first":
                x[:, : n // 2] = -np.inf
            case "nan first":
                x[:, : n // 2] = np.nan
            case "all but a few":
                x[:] = -np.inf
                x[:, n // 3 :: n // 5] = 1
            case "alike":
                x[:] = -np.inf
        x = x.astype(dtype)
        with on_isa(isa):
            found = klce.score(x, want=(), top_k=top_k).top_ids
        ranked = np.where(np.isnan(x), -np.inf, x).astype(np.float32)
        order = np.argsort(-ranked + 0.0, axis=-1, kind="stable")
        for ids, own, row in zip(found, order, x, strict=True):
            own = own[~np.isnan(row[own])][:top_k]  # nan is never among them
            assert_array_equal(ids, np.pad(own, (0, top_k - len(own)), constant_values=-1))


def test_rows_without_a_distribution():
    x = np.array([[0.0, np.nan, 5.0], [np.inf, 1.0, 0.0], [-np.inf] * 3, [-np.inf, 2.0, -np.inf]])
    table = klce.score(x, [2, 2, 2, 1], want=SCORES, top_k=3, candidates=[1])
    for name in ("nll", "target_prob", "max_log_prob", "margin", "entropy", "varentropy"):
        assert np.isnan(table[name][:3]).all(), name
    assert np.isnan(table.top_log_probs[:3]).all()
    assert np.isnan(table.candidate_log_probs[:3]).all()
    assert_array_equal(table.argmax, [1, 0, 0, 1])
    assert_array_equal(table.rank, [1, 3, 3, 1])
    assert_array_equal(table.logsumexp, [np.nan, np.inf, -np.inf, 2.0])
    assert_array_equal(table.top_ids, [[2, 0, -1], [0, 1, 2], [0, 1, 2], [1, 0, 2]])
    assert table.nll[3] == 0
    assert table.entropy[3] == 0
    assert table.margin[3] == np.inf
    both = klce.compare(x, np.zeros((4, 3)), want=COMPARISONS, target=[0] * 4, top_k=3)
    numbers = [k for k, a in both.items() if a.dtype.kind == "f" and not k.endswith("_q")]
    for name in numbers:
        assert np.isnan(both[name][:3]).all(), name
    assert_allclose(both.kl_divergence[3], np.log(3), rtol=1e-15)
    assert both.reverse_kl_divergence[3] == np.inf


def test_ignored_rows(rng):
    x = rows(rng)
    x[0] = np.nan
    target = np.array([7, 1, 7, 1, 7, 1])
    table = klce.score(x, target, want=SCORES, ignore_index=7)
    assert_array_equal(table.nll[::2], 0)
    assert_array_equal(table.rank[::2], 0)
    assert not table.greedy_match[::2].any()
    assert np.isnan(table.target_prob[::2]).all()
    assert np.isfinite(table.target_prob[1::2]).all()
    changes = ["target_log_prob_change", "target_prob_change"]
    both = klce.compare(x, x, target, want=COMPARISONS, top_k=1, ignore_index=7)
    assert_array_equal(both.nll_q, table.nll)
    assert_array_equal(both.greedy_match_p, table.greedy_match)
    assert_array_equal(both.argmax_p, table.argmax)
    for change in changes:
        assert_array_equal(both[change], [np.nan, 0] * 3)


def test_small_differences_keep_their_digits(rng):
    x = rows(rng, (5, 1000), np.float64)
    y = x + 1e-7 * rng.normal(size=x.shape)
    names = ["kl_divergence", "reverse_kl_divergence", "js_divergence", "total_variation"]
    table = klce.compare(x, y, want=names)
    expected = reference.compare(x, y, want=names)
    for name in names[:3]:
        assert expected[name].max() < 1e-12
        # Below 1e-12 the bound is absolute.
        assert np.abs(table[name] - expected[name]).max() < 1e-13 * 1e-12
    assert_array_equal(klce.compare(x, x, want=names).kl_divergence, 0)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("noise", [0.3, 1e-2, 1e-3, 1e-4, 1e-5])
@pytest.mark.parametrize("n", [3, 100, 1000, 40_000])
def test_what_hangs_on_the_difference_of_normalisers(n, noise, dtype, isa, rng):
    """Of near rows the rounding of either would be more than the difference."""
    count = 40 if n < 10_000 else 4
    p = (3 * rng.standard_normal((count, n))).astype(dtype)
    q = p + (noise * rng.standard_normal(p.shape)).astype(dtype)
    p[:, 1] = -np.inf
    q[: count // 2, 1] = -np.inf
    target = rng.integers(0, n, count)
    target[target == 1] = 0
    log_p, log_q = (x.astype(np.longdouble) for x in (p, q))
    log_p, log_q = (x - np.log(np.exp(x).sum(1, keepdims=True)) for x in (log_p, log_q))
    moved, rows = np.exp(log_q) - np.exp(log_p), (np.arange(count), target)
    expected = {
        "total_variation": np.abs(moved).sum(1) / 2,
        "target_log_prob_change": log_q[rows] - log_p[rows],
        "target_prob_change": moved[rows],
    }
    rtol = 1e-6 if dtype is np.float32 else 1e-12
    with on_isa(isa):
        for want in (tuple(expected), tuple(expected)[1:], tuple(expected)[:1]):
            found = klce.compare(p, q, target, want=want)
            for name in want:
                # A change may cancel: it is as good as the others.
                atol = rtol * float(np.abs(expected[name]).mean()) / 4
                np.testing.assert_allclose(found[name], expected[name], rtol=rtol, atol=atol)


OF_PAIRS = [
    "kl_divergence", "reverse_kl_divergence", "js_divergence", "total_variation",
    "expected_agreement",
]  # fmt: skip


def pairs_of_all_kinds(n, dtype, rng):
    """Rows of a quantized model and its own: shifted, with outliers, maxima that rise."""
    p = 3 * rng.standard_normal((24, n))
    q = p + np.geomspace(1e-4, 1, 24)[:, None] * rng.standard_normal(p.shape)
    q[::2] += 5
    for row, count in zip(range(1, 24, 4), (1, 3, 10, 30, 100, n), strict=True):
        q[row, rng.integers(0, n, count)] += 3 * rng.standard_normal(count)  # far from the rest
    for row in range(2, 24, 4):
        order = np.argsort(p[row])  # each block has a maximum of its own
        p[row], q[row] = p[row][order], q[row][order]
    p[3::8, n // 2] += 12
    q[3::8, n // 2] += 12.5
    return p.astype(dtype), q.astype(dtype)


@functools.lru_cache(maxsize=1)
def compared_pairs(n, dtype):
    """Return rows of two models, and what the specification finds at each temperature."""
    p, q = pairs_of_all_kinds(n, dtype, np.random.default_rng(20261124))
    if n > 10_000:  # some of each kind are enough
        p, q = p[:12], q[:12]
    wide = (p.astype(np.float64), q.astype(np.float64))
    return p, q, {t: reference.compare(*wide, want=OF_PAIRS, temperature=t) for t in (1.0, 2.5)}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [7, 100, 256, 257, 300, 1000, 5000, 70_000])
def test_divergences_whatever_the_sweep(n, dtype, isa):
    """From one sweep, from a second one, and from one of unlike rows."""
    p, q, expected_at = compared_pairs(n, dtype)
    rtol = 1e-12 if np.dtype(dtype) == np.float64 else 1e-6
    with on_isa(isa):
        for temperature, expected in expected_at.items():
            for want in (OF_PAIRS[:2], OF_PAIRS[1:2], OF_PAIRS[2:3], OF_PAIRS[3:], OF_PAIRS):
                found = klce.compare(p, q, want=want, temperature=temperature)
                for name in want:
                    assert_allclose(found[name], expected[name], rtol=rtol, err_msg=name)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("temperature", [0.7, 1.1, 1.7])
def test_few_classes_far_apart_among_near_ones(temperature, dtype, isa, rng):
    """They are most of the divergence then, at any temperature."""
    p = rng.standard_normal((12, 3000)).astype(dtype)
    q = p + (1e-3 * rng.standard_normal(p.shape)).astype(dtype)
    for row in range(12):
        q[row, rng.integers(0, 3000, 4)] += dtype(temperature * rng.uniform(3, 7.5))
    wide = (p.astype(np.float64), q.astype(np.float64))
    with on_isa(isa):
        found = klce.compare(p, q, want=OF_PAIRS[:2], temperature=temperature)
        alone = klce.kl_divergence(p, q, form="logits", temperature=temperature)
    expected = reference.compare(*wide, want=OF_PAIRS[:2], temperature=temperature)
    rtol = 1e-12 if dtype is np.float64 else 1e-6
    for name in OF_PAIRS[:2]:
        assert_allclose(found[name], expected[name], rtol=rtol, err_msg=name)
    assert_allclose(alone, expected["kl_divergence"], rtol=rtol)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_divergence_with_digits_and_the_other_without(dtype, isa, rng):
    """Of so many rows the first sweep has both of most, one of some, and of others neither."""
    p = rng.standard_normal((2000, 300))
    q = (p + 0.5 * rng.standard_normal(p.shape)).astype(dtype)
    q[:, ::50] += dtype(1.5)  # far from the rest
    p = p.astype(dtype)
    expected = reference.compare(p.astype(np.float64), q.astype(np.float64), want=OF_PAIRS[:2])
    with on_isa(isa):
        found = klce.compare(p, q, want=OF_PAIRS[:2])
    for name in OF_PAIRS[:2]:
        rtol = 1e-12 if dtype is np.float64 else 1e-6
        assert_allclose(found[name], expected[name], rtol=rtol, err_msg=name)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_near_rows_that_begin_with_impossible_classes(dtype, isa, rng):
    p = 3 * rng.standard_normal((6, 9000))
    p[:, :5000] = -np.inf
    q = p + 0.1 * rng.standard_normal(p.shape)
    p[3:], q[3:] = np.sort(p[3:]), np.sort(q[3:])
    p, q = p.astype(dtype), q.astype(dtype)
    expected = reference.compare(p.astype(np.float64), q.astype(np.float64), want=OF_PAIRS)
    with on_isa(isa):
        for want in (OF_PAIRS[:2], OF_PAIRS, OF_PAIRS[4:]):
            found = klce.compare(p, q, want=want)
            for name in want:
                rtol = 1e-12 if dtype is np.float64 else 1e-6
                assert_allclose(found[name], expected[name], rtol=rtol, err_msg=name)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n", [300, 40_000])
def test_the_agreement_of_unlike_rows_alone(n, isa, rng):
    p, q = (3 * rng.standard_normal((4, n)) for _ in range(2))
    expected = reference.compare(p, q, want=OF_PAIRS[4:])["expected_agreement"]
    with on_isa(isa):
        found = klce.compare(p, q, want=OF_PAIRS[4:]).expected_agreement
    assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2])
def test_axes(axis, rng):
    x, y = rows(rng, (3, 4, 5), np.float32), rows(rng, (3, 4, 5), np.float32)
    last = [np.ascontiguousarray(np.moveaxis(a, axis, -1)) for a in (x, y)]
    target = rng.integers(0, 3, last[0].shape[:-1])
    candidates = rng.integers(0, 3, (*target.shape, 2))
    mask = rng.random(x.shape) < 0.8
    for where in (None, mask):
        own = None if where is None else np.moveaxis(where, axis, -1)
        options = {"want": SCORES, "top_k": 2, "candidates": candidates}
        found = klce.score(x, target, axis=axis, where=where, **options)
        for name, column in klce.score(last[0], target, where=own, **options).items():
            assert_array_equal(found[name], column, err_msg=name)
        options = {"want": COMPARISONS, "top_k": 2}
        found = klce.compare(x, y, target, axis=axis, where=where, **options)
        for name, column in klce.compare(*last, target, where=own, **options).items():
            assert_array_equal(found[name], column, err_msg=name)


@pytest.mark.parametrize(
    ("axis", "of_q"), [(-1, (5,)), (-1, (4, 5)), (-1, (3, 1, 5)), (-2, (4, 5)), (1, (3, 4, 1))]
)
def test_operands_of_several_shapes(axis, of_q, rng):
    """In either order as kl_divergence takes them, and masked in the shape of both."""
    x, y = rows(rng, (3, 4, 5)), rows(rng, of_q)
    mask = rng.random(x.shape) < 0.8
    for where in (None, mask, mask[:1], mask[0]):
        options = {"axis": axis, "where": where}
        for pair in ((x, y), (y, x)):
            found = klce.compare(*pair, want=["kl_divergence"], **options).kl_divergence
            whole = klce.compare(*np.broadcast_arrays(*pair), want=["kl_divergence"], **options)
            assert_array_equal(found, whole.kl_divergence)
            expected = klce.kl_divergence(*pair, form="logits", **options)
            assert_allclose(found, expected, rtol=1e-12)


def test_one_row(rng):
    x = rows(rng, (7,))
    table = klce.score(x, 3, want=SCORES, top_k=2, candidates=[1])
    many = klce.score(x[None], [3], want=SCORES, top_k=2, candidates=[1])
    for name, column in many.items():
        assert_array_equal(table[name], column[0])
    assert table.to_structured().shape == ()
    pair = klce.compare(x, x[::-1], 2, want=COMPARISONS, top_k=2)
    known = klce.compare_top_k([0, 1], np.log([0.5, 0.25]), x)
    for columns in (table, pair, known):
        assert {type(column) for column in columns.values()} == {np.ndarray}
    assert pair.kl_divergence.shape == known.kl_divergence.shape == ()


def test_no_rows_and_no_classes():
    table = klce.score(np.zeros((0, 5)), np.zeros(0, int), want=SCORES, top_k=2, candidates=[1])
    assert {a.shape[0] for a in table.values()} == {0}
    empty = klce.score(np.zeros((2, 0)), want=["logsumexp", "argmax", "entropy"])
    assert_array_equal(empty.logsumexp, [-np.inf] * 2)
    assert_array_equal(empty.argmax, [-1, -1])
    both = klce.compare(np.zeros((2, 0)), np.zeros((2, 0)), want=["argmax_p", "max_log_prob_q"])
    assert_array_equal(both.argmax_p, [-1, -1])
    assert np.isnan(both.max_log_prob_q).all()
    assert np.isnan(empty.entropy).all()


def test_rows_are_broadcast(rng):
    p, q = rows(rng, (9,)), rows(rng, (3, 4, 9))
    table = klce.compare(p, q, want=COMPARISONS, target=np.zeros((3, 4), int), top_k=2)
    assert_near(table, reference.compare(p, q, np.zeros((3, 4), int), top_k=2), 1e-12, 1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_forms(dtype, rng):
    x, y = rows(rng, dtype=dtype), rows(rng, dtype=dtype)
    target = rng.integers(0, 40, 6)
    p, q = klce.softmax(x), klce.softmax(y)
    p[0, :5] = 0
    for form, pair in {"probs": (p, q), "log_probs": (np.log(q), np.log(klce.softmax(x)))}.items():
        table = klce.score(pair[0], target, want=SCORES, form=form, top_k=3)
        wide = [a.astype(np.float64) for a in pair]
        assert_near(table, reference.score(wide[0], target, form=form, top_k=3))
        assert table.entropy.dtype == dtype
        table = klce.compare(*pair, target, want=COMPARISONS, form=form, top_k=3)
        assert_near(table, reference.compare(*wide, target, form=form, top_k=3))
    with pytest.raises(ValueError, match=r'temperature belongs to form="logits", got 2'):
        klce.score(p, form="probs", temperature=2)


def test_probabilities_below_the_normal_numbers():
    """Computed in float64 and rounded to float32, whatever NumPy is told about such."""
    p = np.array([[1e-44, 1.0]], np.float32)
    with np.errstate(all="raise"):
        assert klce.score(p, [0], form="probs").target_prob == p[0, 0]


def test_negative_probabilities_are_none():
    table = klce.score([[0.5, -0.5, 1.0]], form="probs", want=["entropy", "logsumexp"])
    assert np.isnan(table.entropy[0])
    assert np.isnan(table.logsumexp[0])


@pytest.mark.parametrize("shape", [(40,), (6, 1), (6, 40)])
def test_where(shape, rng):
    x, y, mask = rows(rng), rows(rng), rng.random(shape) < 0.7
    mask[-1] = True
    target = rng.integers(0, 40, 6)
    if shape == (6, 1):  # rows that it leaves out have no target
        target = np.where(mask[:, 0], target, -100)
    kept = [np.where(mask, a, -np.inf) for a in (x, y)]
    table = klce.score(x, target, want=SCORES, where=mask, top_k=3)
    for name, column in klce.score(kept[0], target, want=SCORES, top_k=3).items():
        assert_array_equal(table[name], column, err_msg=name)
    table = klce.compare(x, y, target, want=COMPARISONS, where=mask, top_k=3)
    for name, column in klce.compare(*kept, target, want=COMPARISONS, top_k=3).items():
        assert_array_equal(table[name], column, err_msg=name)


@pytest.mark.parametrize("axis", [0, -1])
def test_a_row_that_a_mask_leaves_out_may_have_any_label(axis, rng):
    x, y = (np.moveaxis(rows(rng), -1, axis) for _ in range(2))
    target = np.array([3, 2**63, 4, 2**64 - 1, 0, 39], np.uint64)
    keep = target < 40
    options = {"axis": axis, "where": np.expand_dims(keep, axis)}
    found = klce.score(x, target, want=SCORES, top_k=2, **options)
    assert_near(found, reference.score(x, target, top_k=2, **options), 1e-12, 1e-14)
    left_out = {name: column[~keep][0] for name, column in found.items()}
    assert left_out["nll"] == left_out["rank"] == 0
    assert not left_out["greedy_match"]
    assert left_out["logsumexp"] == -np.inf
    assert np.isnan(left_out["target_prob"])
    assert np.isnan(left_out["entropy"])
    found = klce.compare(x, y, target, want=COMPARISONS, top_k=2, **options)
    assert_near(found, reference.compare(x, y, target, top_k=2, **options), 1e-12, 1e-14)
    assert np.isfinite(found.kl_divergence).tolist() == keep.tolist()
    with pytest.raises(IndexError, match="got 9223372036854775808 in row 1"):
        klce.compare(x, y, target, axis=axis)
    with pytest.raises(IndexError, match="holds 9223372036854775808 in row 1"):
        reference.compare(x, y, target, axis=axis)


def test_many_blocks_of_rows_that_are_made(rng):
    x = rows(rng, (300, 4000), np.float32)
    p, target = klce.softmax(x), rng.integers(0, 4000, 300)
    names = [name for name in SCORES if name != "logsumexp"]
    table = klce.score(p, target, form="probs", want=names, candidates=target[:, None])
    assert_near(table, klce.score(x, target, want=SCORES, candidates=target[:, None]), 3e-4, 3e-5)


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_no_bit(threads, rng):
    for shape in ((2, 70_000), (1, 200_000), (3000, 100)):
        x, y = rows(rng, shape, np.float32), rows(rng, shape, np.float32)
        target = rng.integers(0, shape[1], shape[0])
        found = []
        for count in (1, threads):
            with klce.threads(count):
                score = klce.score(x, target, want=SCORES, top_k=9)
                found.append(
                    [*score.values(), *klce.compare(x, y, want=["js_divergence"]).values()]
                )
        for a, b in zip(*found, strict=True):
            assert_array_equal(a, b)


# --- truncated distributions ----------------------------------------------------------------------


def test_compare_top_k(rng):
    p, q = rows(rng, (5, 60)), rows(rng, (5, 60))
    top = klce.score(p, want=(), top_k=8)
    table = klce.compare_top_k(top.top_ids, top.top_log_probs, q)
    mass_p, mass_q = klce.softmax(p), klce.softmax(q)
    known = np.take_along_axis(mass_p, top.top_ids, -1), np.take_along_axis(mass_q, top.top_ids, -1)
    tails = [1 - a.sum(-1, keepdims=True) for a in known]
    merged = [np.concatenate([a, b], axis=-1) for a, b in zip(known, tails, strict=True)]
    assert_allclose(table.kl_divergence, klce.kl_divergence(*merged), rtol=1e-10)
    assert_allclose(table.tail_p, tails[0][:, 0], rtol=1e-10)
    assert_allclose(table.tail_q, tails[1][:, 0], rtol=1e-10)
    assert (table.kl_divergence <= klce.kl_divergence(p, q, form="logits")).all()
    # All classes: the divergence itself.
    top = klce.score(p, want=(), top_k=60)
    whole = klce.compare_top_k(top.top_ids, top.top_log_probs, q).kl_divergence
    assert_allclose(whole, klce.kl_divergence(p, q, form="logits"), rtol=1e-10)


def test_compare_top_k_with_fewer_known(rng):
    q = rows(rng, (2, 10))
    ids = np.array([[3, 5, -1], [9, -1, -1]])
    log_probs = np.log([[0.5, 0.2, 1], [0.9, 1, 1]])
    padded = klce.compare_top_k(ids, log_probs, q)
    for row, count in ((0, 2), (1, 1)):
        alone = klce.compare_top_k(ids[row, :count], log_probs[row, :count], q[row])
        assert_allclose(padded.kl_divergence[row], alone.kl_divergence, rtol=1e-13)
    nothing = klce.compare_top_k([[], []], [[], []], q)  # lists of floats to NumPy
    assert_array_equal(nothing.kl_divergence, [0, 0])
    assert_array_equal(nothing.tail_q, [1, 1])


def test_compare_top_k_along_an_axis(rng):
    p, q = rows(rng, (2, 3, 7)), rows(rng, (2, 3, 7))
    top = klce.score(p, want=(), top_k=3)
    expected = klce.compare_top_k(top.top_ids, top.top_log_probs, q)
    for axis in (0, 1, -3):
        moved = np.moveaxis(q, -1, axis)
        found = klce.compare_top_k(top.top_ids, top.top_log_probs, moved, axis=axis)
        for name, column in expected.items():
            assert_array_equal(found[name], column)


def test_compare_top_k_at_a_temperature(rng):
    p, q = rows(rng, (4, 9)), rows(rng, (4, 9))
    top = klce.score(p, want=(), top_k=4)
    found = klce.compare_top_k(top.top_ids, top.top_log_probs, q, temperature=2.5)
    expected = klce.compare_top_k(top.top_ids, top.top_log_probs, q / 2.5)
    for name, column in expected.items():
        assert_allclose(found[name], column, rtol=1e-10)


@pytest.mark.parametrize(
    ("ids", "p", "q", "divergence", "tails"),
    [
        # A known class that p, or q, has not.
        ([0, 1], [0.0, 1.0], [0.5, 0.5], np.log(2), (0, 0)),
        ([0], [0.5], [0.0, 0.5, 0.5], np.inf, (0.5, 1)),
        # Nothing is known, and all of both is in one class.
        ([-1], [1.0], [0.5, 0.5], 0, (1, 1)),
        ([0], [1.0], [1.0, 0.0], 0, (0, 0)),
        ([0], [np.nan], [0.5, 0.5], np.nan, (np.nan, 0.5)),
        ([0], [0.5], [np.nan, 0.5], np.nan, (0.5, np.nan)),
    ],
)
def test_compare_top_k_of_special_values(ids, p, q, divergence, tails):
    with np.errstate(divide="ignore"):
        log_p, log_q = np.log(p), np.log(q)
    with np.errstate(all="raise"):
        table = klce.compare_top_k(ids, log_p, log_q)
    assert_allclose(table.kl_divergence, divergence, rtol=1e-15)
    assert_allclose((table.tail_p, table.tail_q), tails, rtol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_tail_of_q_that_may_be_rounding_is_no_infinity(dtype):
    """It counts as 8 roundings; where p has none either, as nothing."""
    q = np.array([0.0, -np.inf], dtype)
    table = klce.compare_top_k([0], np.log(np.array([0.75], dtype)), q)
    least = 8 * np.finfo(dtype).eps
    # Terms q - p + p log(p/q) of the class and of the tail: what is not in the logarithms cancels.
    expected = 0.75 * np.log(0.75) + 0.25 * np.log(0.25 / least)
    assert table.tail_q == 0
    assert_allclose(table.kl_divergence, expected, rtol=1e-6)
    rounded = np.array([-np.finfo(dtype).eps], dtype)
    assert klce.compare_top_k([0], rounded, q).kl_divergence < 2 * np.finfo(dtype).eps


# --- the table ------------------------------------------------------------------------------------


@pytest.fixture
def table(rng):
    x = rows(rng, (2, 3, 5), np.float32)
    return klce.score(x, np.zeros((2, 3), int), top_k=2)


def test_a_table_is_a_mapping(table):
    assert len(table) == len(list(table)) == 10
    assert table["nll"] is table.nll
    assert "rank" in table
    assert "rank" in dir(table)
    assert "top_ids: int64[2, 3, 2]" in repr(table)
    with pytest.raises(KeyError):
        table["margin"]
    with pytest.raises(AttributeError, match="no column 'margin', it has nll"):
        table.margin  # noqa: B018


def test_tables_are_equal_by_what_they_hold(rng):
    x = rows(rng, (2, 5))
    x[0, 0] = np.nan
    table, same = klce.score(x), klce.score(x.copy())
    assert np.isnan(table.entropy[0])
    assert table == same
    assert table != klce.score(x, want=["entropy"])
    assert table != klce.score(x[:, ::-1])
    assert klce.score(x, want=()) != klce.score(x[:1], want=())
    assert table != dict(table)
    with pytest.raises(TypeError, match="unhashable"):
        hash(table)


def test_to_structured(table):
    found = table.to_structured()
    assert found.shape == (2, 3)
    assert found.dtype.names == tuple(table)
    for name, column in table.items():
        assert_array_equal(found[name], column)


def test_to_arrow(table):
    pytest.importorskip("pyarrow")
    arrow = table.to_arrow()
    assert arrow.column_names == list(table)
    assert arrow.num_rows == 6
    assert arrow["top_ids"].to_pylist() == table.top_ids.reshape(6, 2).tolist()
    assert arrow["greedy_match"].to_pylist() == table.greedy_match.reshape(6).tolist()


def test_to_pandas(table):
    pytest.importorskip("pandas")
    frame = table.to_pandas()
    assert list(frame)[-2:] == ["top_log_probs_0", "top_log_probs_1"]
    assert_array_equal(frame["top_ids_1"], table.top_ids[..., 1].reshape(6))


@pytest.mark.parametrize("shape", [(6, 3), (2, 3, 4), (0, 3), (3,)])
def test_rows_without_columns(shape):
    rows = math.prod(shape[:-1])
    table = klce.score(np.ones(shape), want=())
    assert len(table) == 0
    assert table.to_structured().shape == shape[:-1]
    arrow = table.to_arrow()
    assert (arrow.num_rows, arrow.num_columns) == (rows, 0)
    assert table.to_pandas().shape == (rows, 0)


@pytest.mark.parametrize("package", ["pyarrow", "pandas"])
def test_a_package_that_is_missing_is_named(table, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    method = table.to_arrow if package == "pyarrow" else table.to_pandas
    with pytest.raises(ImportError, match=f"needs {package}, which is not installed"):
        method()


# --- wrong arguments ------------------------------------------------------------------------------

X = np.zeros((3, 4))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: klce.score(X, want=["nil"]),
            ValueError,
            "want must name statistics of nll.*'nil'",
        ),
        (lambda: klce.score(X, want="nll"), TypeError, "want must be a collection of names.*'nll'"),
        (lambda: klce.score(X, want=7), TypeError, "want must be a collection of names, got 7"),
        (lambda: klce.score(X, want=[["nll"]]), ValueError, "want must name .* got .'nll'."),
        (lambda: klce.score(X, want=["nll"]), ValueError, "'nll' without a target"),
        (lambda: klce.score(X, [0, 4, 0]), IndexError, "target must hold .* got 4 in row 1"),
        (lambda: klce.score(X, [0, 1]), ValueError, "target must have the shape of the rows"),
        (lambda: klce.score(X, top_k=5), ValueError, "top_k must be from 0 to the 4 classes.* 5"),
        (lambda: klce.score(np.zeros(2000), top_k=1025), ValueError, "at most 1024, got 1025"),
        (lambda: klce.score(X, top_k=-1), ValueError, "top_k must be from 0"),
        (lambda: klce.score(X, top_k=1.5), TypeError, "top_k must be an integer, got 1.5"),
        (lambda: klce.score(X, top_k=True), TypeError, "top_k must be an integer, got True"),
        (lambda: klce.score(X, candidates=[0, 4]), IndexError, "from 0 to 3, got 4 at 1$"),
        (
            lambda: klce.score(X, candidates=[[0], [1], [-1]]),
            IndexError,
            "candidates must hold class indices from 0 to 3, got -1 in row 2",
        ),
        (lambda: klce.score(X, candidates=[[0]]), ValueError, "candidates must be one-dimensional"),
        (lambda: klce.score(X, candidates=3), ValueError, r"one axis more, got \(\)$"),
        (lambda: klce.score(X[0], candidates=3), ValueError, r"one axis more, got \(\)$"),
        (lambda: klce.score(X, candidates=[0.5]), TypeError, "candidates must hold integers"),
        (lambda: klce.score(X, where=[1, 0, 1, 0]), TypeError, "where must hold bool, got int64"),
        (lambda: klce.score(X, where=[True] * 3), ValueError, "where must broadcast .*got .3,."),
        (lambda: klce.score(1.0), ValueError, "logits must have at least one dimension"),
        (lambda: klce.score(X, axis=2), ValueError, "axis 2 is out of bounds for logits"),
        (lambda: klce.score(X, form="odds"), ValueError, "form must be .*'odds'"),
        (lambda: klce.score(X, form=["probs"]), ValueError, "form must be .* got .'probs'."),
        (lambda: klce.score(X, temperature=0), ValueError, "temperature must be from 1e-6"),
        (lambda: klce.compare(X, X[:, :3]), ValueError, "same number of classes, got 4 and 3"),
        (lambda: klce.compare(X, X[:, :1]), ValueError, "same number of classes, got 4 and 1"),
        (lambda: klce.compare(X, X[:2]), ValueError, "p and q must have shapes that broadcast"),
        (lambda: klce.compare(X, X[:, 0], axis=0), ValueError, "axis must name the same axis of p"),
        (lambda: klce.compare(X, X[0], axis=1), ValueError, "axis 1 is out of bounds for q"),
        (lambda: klce.compare(X, X, want=["top_overlap"]), ValueError, "without top_k"),
        (lambda: klce.compare(X, X, want=["nll_q"]), ValueError, "'nll_q' without a target"),
        (lambda: klce.compare(X, X + 1j), TypeError, "q must be .*complex128"),
        (
            lambda: klce.compare_top_k([[0, 0]] * 3, X[:, :2] - 1, X),
            ValueError,
            "p_ids must hold each class once, got 0 twice in row 0",
        ),
        (
            lambda: klce.compare_top_k([[0]] * 3, [[-1.0], [0.5], [-1.0]], X),
            ValueError,
            "p_log_probs must not be above 0, got 0.5 in row 1",
        ),
        (
            lambda: klce.compare_top_k([[0, 1]] * 3, X[:, :2] - 0.1, X),
            ValueError,
            "probabilities that sum to 1 at most, got 1.8.* in row 0",
        ),
        (
            lambda: klce.compare_top_k([[0], [4], [0]], X[:, :1], X),
            IndexError,
            "^p_ids must hold class indices from 0 to 3, got 4 in row 1$",
        ),
        (lambda: klce.compare_top_k([[-2]] * 3, X[:, :1], X), IndexError, "^p_ids must .* got -2"),
        (lambda: klce.compare_top_k([0], X[:, :1], X), ValueError, "p_ids must have the shape"),
        (lambda: klce.compare_top_k([[0.0]] * 3, X[:, :1], X), TypeError, "p_ids must hold int"),
        (lambda: klce.compare_top_k([[0]] * 3, X, X), ValueError, "p_log_probs must have the"),
    ],
)
def test_wrong_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("isa", ISAS)
def test_varentropy_at_the_highest_temperature(isa):
    """Squares of distances in the logits' own units leave room above."""
    t = 1e6
    x = np.full((1, 16384), -5.9 * t)
    x[0, 16:272:32] = 0
    x = (x + 0.3465 * t).astype(np.float32)
    expected = reference.score(x, want=["varentropy"], temperature=t)["varentropy"]
    with on_isa(isa):
        found = klce.score(x, want=["varentropy"], temperature=t)["varentropy"]
    assert_allclose(found, expected, rtol=1e-5)


def spread(n, kind, rng):
    """A row whose mean, under its own distribution, is not where its first elements have it."""
    x = rng.standard_normal(n)
    match kind:
        case "ascending":
            return np.sort(x) * 5
        case "peaks":
            x[[n // 2, -1]] = 8, 12
        case "far ahead":
            x[: n // 2] -= 50
        case "masked first":
            x[: n // 2] = -np.inf
        case "one level":
            x[:] = -30
            x[[n // 3, -1]] = 0, -0.001
        case "late":
            x[: n // 4] = -30
            x[n // 4 :] = x[n // 4 :] * 1e-4 + 9
            x[5] = 10
        case "no spread":
            x[:] = 2.5
    return x


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "kind", ["ascending", "peaks", "far ahead", "masked first", "one level", "late", "no spread"]
)
def test_varentropy_wherever_the_mass_lies(kind, dtype, isa, rng):
    """Squares are summed about a guess of the mean, and anew where that was wrong."""
    for n in (300, 3000, 16384, 40000):
        x = np.array([spread(n, kind, rng)], dtype)
        expected = reference.score(x, want=["varentropy", "entropy", "max_log_prob"])
        # The mean that cancels is the entropy's distance from the surprise of the maximum.
        mean = expected["entropy"] + expected["max_log_prob"]
        size = np.sqrt(expected["varentropy"] * (expected["varentropy"] + mean**2))
        with on_isa(isa):
            found = klce.score(x, want=["varentropy"])["varentropy"]
        assert abs(found - expected["varentropy"])[0] <= 8 * np.finfo(dtype).eps * size[0] + 1e-30


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("dtype", "bound"), [(np.float32, 8), (np.float64, 12)])
def test_varentropy_of_classes_that_come_again(dtype, bound, isa, rng):
    """The roundings of equal terms are alike: eight are added before they go to a wider sum."""
    one = np.full(300, 11.09837335582196)
    one[0] = 2.701087364050033  # the worst of some thousands in float64
    for n in (300, 460, 804, 1900):
        level = np.full((40, n), 1.0) * rng.uniform(-20, 20, (40, 1))
        level[np.arange(40), rng.integers(0, 128, 40)] = rng.uniform(-20, 20, 40)
        repeated = np.repeat(rng.normal(size=(40, n)), 16, axis=1)[:, :n] * 3
        for x in (one[None], level, rng.integers(-50, 50, (40, n)), repeated):
            x = x.astype(dtype)
            expected = reference.score(x.astype(np.longdouble), want=["varentropy"])["varentropy"]
            with on_isa(isa):
                found = klce.score(x, want=["varentropy"]).varentropy
            assert (abs(found - expected) <= bound * np.spacing(expected.astype(dtype))).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_margin_and_rank_over_segments(dtype, rng):
    """A long row is looked at in parts, most of which need no look."""
    x = rng.standard_normal((6, 50000)).astype(dtype)
    x[0, [3, 45000]] = 9, 8
    x[1, [3, 45000]] = 9, 9
    x[2, [20000, 20001]] = 8, 9
    x[3, 40000] = np.inf
    x[4, 40000] = np.nan
    target = np.array([45000, 45000, 7, 7, 7, 49999])
    want = ["margin", "rank", "greedy_match"]
    found, expected = klce.score(x, target, want=want), reference.score(x, target, want=want)
    for name in want:
        assert_allclose(found[name], expected[name], rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("count", [1, 20])
def test_rows_that_are_no_distribution_are_compared(dtype, count, isa):
    """As the docstring says: nan counts as the largest, but in no rank."""
    names = ["nll", "target_prob", "rank", "argmax", "greedy_match"]
    for row, ranks, best in (
        ([0.0, np.nan, 1.0], [2, 0, 1], 1),
        ([np.nan, np.inf, 1.0], [0, 1, 2], 0),
        ([0.0, np.inf, 1.0], [3, 1, 2], 1),
        ([-np.inf] * 3, [3, 3, 3], 0),
    ):
        for target, rank in enumerate(ranks):
            with on_isa(isa):
                table = klce.score(np.array([row] * count, dtype), [target] * count, want=names)
            assert np.isnan([table.nll, table.target_prob]).all()
            assert (table["rank"] == rank).all()
            assert (table.argmax == best).all()
            assert (table.greedy_match == (target == best)).all()


@pytest.mark.parametrize("wrong", [[np.inf, 0.0], [np.nan, 0.0], [-np.inf, -np.inf]])
def test_the_entropy_of_a_row_is_its_own(wrong):
    names = ["kl_divergence", "js_divergence", "total_variation", "cross_entropy"]
    right = [0.0, 1.0]
    entropy = klce.entropy(right, form="logits")
    for want in ([*names, "entropy_p", "entropy_q"], ["entropy_p", "entropy_q"]):
        table = klce.compare(right, wrong, want=want)
        turned = klce.compare(wrong, right, want=want)
        np.testing.assert_allclose([table.entropy_p, turned.entropy_q], entropy, rtol=1e-15)
        assert np.isnan([table.entropy_q, turned.entropy_p]).all()
        assert np.isnan([t[name] for t in (table, turned) for name in want[:-2]]).all()


def test_no_probability_of_a_target_exceeds_one(rng):
    x = np.float32([7.238775253295898, -15.988688468933105])
    assert klce.score(x, 0, want=["target_prob"]).target_prob == 1
    rows = (rng.normal(size=(20000, 2)) * 20).astype(np.float32)
    assert klce.score(rows, rows.argmax(1), want=["target_prob"]).target_prob.max() == 1
