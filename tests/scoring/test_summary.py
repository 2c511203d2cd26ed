import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klce.scoring.accuracy import NO_ROWS, Calibration
from klce.scoring.columns import score_columns
from klce.scoring.moments import NO_VALUES
from klce.scoring.summary import CHUNK_ROWS, Summarizer, Summary


def make_table(rows, dtype=np.float32, labelled=True, seed=0):
    rng = np.random.default_rng(seed)
    table = np.zeros(rows, dtype=score_columns(dtype, labelled=labelled))
    table["argmax"] = rng.integers(0, 3, rows)
    table["entropy"] = rng.exponential(size=rows)
    table["logsumexp"] = rng.normal(10, 100, size=rows)
    if labelled:
        table["target"] = rng.choice([0, 1, 2, -100], rows)
        table["nll"] = rng.exponential(size=rows) * (table["target"] != -100)
        table["max_log_prob"] = -rng.exponential(size=rows)
    return table


def summarize(table, block=None, first_row=0):
    summarizer = Summarizer(ignore_index=-100, first_row=first_row)
    block = block or max(1, len(table))
    for start in range(0, len(table), block):
        summarizer.add(table[start : start + block])
    return summarizer.finish()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [1, 100, CHUNK_ROWS, 3 * CHUNK_ROWS + 5])
def test_means(rows, dtype):
    table = make_table(rows, dtype)
    counted = table[table["target"] != -100]
    summary = summarize(table)
    assert summary.rows == rows
    assert summary.ignored == rows - len(counted)
    assert summary.counted == summary.labelled == len(counted)
    mean_nll = counted["nll"].mean(dtype=np.float64)
    assert summary.mean_nll == pytest.approx(mean_nll, rel=1e-14)
    assert summary.perplexity == pytest.approx(np.exp(mean_nll), rel=1e-13)
    assert summary.accuracy == np.mean(counted["argmax"] == counted["target"])
    entropy = counted["entropy"].mean(dtype=np.float64)
    assert summary.mean_entropy == pytest.approx(entropy, rel=1e-14)
    logsumexp = counted["logsumexp"].mean(dtype=np.float64)
    assert summary.mean_logsumexp == pytest.approx(logsumexp, rel=1e-12)


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("block", [1, 1000, CHUNK_ROWS - 1, CHUNK_ROWS, CHUNK_ROWS + 1, 10000])
def test_blocks_change_no_bit(block, labelled):
    table = make_table(3 * CHUNK_ROWS + 17, labelled=labelled)
    table["entropy"][5000] = np.nan
    table["logsumexp"][[0, CHUNK_ROWS]] = np.inf
    if labelled:
        table["nll"][[10, 6000]] = np.nan, np.inf
    assert summarize(table, block) == summarize(table)


@given(st.permutations(range(5)), st.integers(0, 4))
def test_merge_in_any_order_and_grouping(order, cut):
    table = make_table(4 * CHUNK_ROWS + 99)
    table["entropy"][[CHUNK_ROWS + 1, 2 * CHUNK_ROWS]] = np.nan
    parts = [
        summarize(table[start : start + CHUNK_ROWS], first_row=start)
        for start in range(0, len(table), CHUNK_ROWS)
    ]
    left = right = Summary()
    for i in order[:cut]:
        left = left.merge(parts[i])
    for i in order[cut:]:
        right = right.merge(parts[i])
    assert left.merge(right) == summarize(table)


def test_nothing_counts():
    for summary in (Summary(), summarize(make_table(0))):
        assert summary.rows == 0
        means = [summary.mean_nll, summary.perplexity, summary.accuracy, summary.mean_entropy]
        assert all(map(math.isnan, [*means, summary.mean_logsumexp]))
    table = make_table(3)
    table["target"] = -100
    assert math.isnan(summarize(table).mean_entropy)


def test_means_keep_the_digits_in_which_values_differ():
    """They are exact sums rounded once, as near as a float64 holds them."""
    table = make_table(3 * CHUNK_ROWS + 17, np.float64)
    table["target"] = 0
    table["nll"] = table["nll"] * 2.0**-30 + 1e6
    exact = sum(map(Fraction, table["nll"].tolist())) / len(table)
    assert summarize(table).mean_nll == float(exact)


def test_calibration_is_of_rows_that_count():
    table = make_table(1000)
    table["nll"][17] = np.nan
    counted = table[(table["target"] != -100) & ~np.isnan(table["nll"])]
    expected = Calibration.of(counted["max_log_prob"], counted["argmax"] == counted["target"])
    summary = summarize(table)
    assert summary.calibration == expected
    assert (sum(expected.counts), sum(expected.right)) == (summary.counted, summary.correct)
    assert summarize(make_table(10, labelled=False)).calibration == NO_ROWS


def test_counts_are_plain_integers():
    summary = summarize(make_table(100))
    counts = ("rows", "ignored", "nan", "labelled", "infinite", "correct", "infinite_logsumexp")
    assert {type(getattr(summary, name)) for name in counts} == {int}


def test_nan_rows_are_left_out_unless_ignored():
    table = make_table(6)
    table["target"] = [0, -100, 1, 2, 0, 1]
    table["nll"] = [1, 0, np.nan, 2, 3, 6]
    table["entropy"] = [1, np.nan, np.nan, 2, np.nan, 6]
    table["logsumexp"] = [1, np.nan, np.inf, 2, -np.inf, 6]
    summary = summarize(table, block=2)
    assert (summary.ignored, summary.nan, summary.first_nan, summary.counted) == (1, 2, 2, 3)
    assert (summary.mean_nll, summary.mean_entropy, summary.mean_logsumexp) == (3, 3, 3)


def test_infinite_loss():
    table = make_table(3)
    table["target"] = 0
    table["nll"] = [1, np.inf, 3]
    summary = summarize(table)
    assert (summary.infinite, summary.nan, summary.nll.total) == (1, 0, 4)
    assert summary.mean_nll == summary.perplexity == math.inf


def test_what_is_cut_off_is_of_rows_that_count():
    table = np.zeros(5, score_columns("f4", labelled=True, cut_off=True))
    table["target"] = [0, -100, 0, 0, 0]
    table["nll"] = [1, 0, np.nan, 2, 3]
    table["saturated"] = [True, False, True, True, False]
    assert summarize(table).saturated == summarize(table, block=2).saturated == 2
    table["floor_classes"] = [1, 2, 4, 8, 16]
    assert summarize(table).floor_classes == summarize(table, block=2).floor_classes == 25
    assert summarize(make_table(3)).saturated is summarize(make_table(3)).floor_classes is None


def test_without_labels():
    summary = summarize(make_table(10, labelled=False))
    assert (summary.counted, summary.labelled, summary.ignored) == (10, 0, 0)
    assert summary.nll == NO_VALUES  # none are summed
    assert math.isnan(summary.mean_nll)
    assert math.isnan(summary.accuracy)
    assert summary.mean_entropy > 0


def test_sums_beyond_the_range_of_float64():
    table = make_table(4, np.float64)
    table["target"] = 0
    table["nll"] = 1.5e308
    table["logsumexp"] = [1.5e308, 1.5e308, -1.5e308, -1.5e308]
    summary = summarize(table)
    assert summary.mean_nll == 1.5e308
    assert summary.perplexity == math.inf
    assert summary.logsumexp == Fraction(0)


@pytest.mark.parametrize(
    ("values", "mean"), [([1, np.inf, 3], math.inf), ([-np.inf, 1, 2], -math.inf)]
)
def test_infinite_logsumexp(values, mean):
    table = make_table(3, labelled=False)
    table["logsumexp"] = values
    summary = summarize(table)
    assert summary.mean_logsumexp == mean
    assert summary.infinite_logsumexp == 1
    assert (summary.counted, summary.nan) == (3, 0)
    assert summarize(table, block=1) == summary.merge(Summary()) == summary


def test_logsumexp_of_both_infinities_has_no_mean():
    table = make_table(3, labelled=False)
    table["logsumexp"] = [np.inf, 1, -np.inf]
    assert math.isnan(summarize(table).mean_logsumexp)
    assert math.isnan(summarize(table, block=1).mean_logsumexp)


def test_standard_errors():
    """They are the usual ones, of rows that count."""
    table = make_table(10_000)
    summary = summarize(table)
    kept = table["target"] != -100
    nll, entropy = (table[name][kept].astype(np.longdouble) for name in ("nll", "entropy"))
    right = (table["argmax"] == table["target"])[kept]
    for error, values in (
        (summary.mean_nll_error, nll), (summary.mean_entropy_error, entropy),
        (summary.accuracy_error, right),
    ):  # fmt: skip
        expected = float(values.std() / np.sqrt(len(values) - np.longdouble(1)))
        assert error == pytest.approx(expected, rel=1e-14)
    assert summary.perplexity_error == summary.perplexity * summary.mean_nll_error
    assert summarize(table, block=7) == summary


def test_errors_of_equal_and_of_near_values():
    """Where all digits but the last are the same, and of one far away, nothing cancels."""
    table = make_table(10_000, np.float64)
    table["target"], table["entropy"] = 0, math.log(3)
    table["nll"] = 1e4 + 1e-8 * np.arange(10_000)
    summary = summarize(table)
    assert summary.mean_entropy_error == 0
    nll = table["nll"] - table["nll"][0]
    assert summary.mean_nll_error == pytest.approx(nll.std() / math.sqrt(9999), rel=1e-12)
    table["nll"][0] = 1e12
    exact = [Fraction(value) for value in table["nll"].tolist()]
    mean = sum(exact) / len(exact)
    expected = float(sum((value - mean) ** 2 for value in exact) / len(exact) / 9999) ** 0.5
    assert summarize(table).mean_nll_error == pytest.approx(expected, rel=1e-14)


def test_errors_beyond_the_range_of_float64():
    table = make_table(2, np.float64)
    table["target"], table["nll"] = 0, [1.5e308, 1e308]
    assert summarize(table).mean_nll_error == pytest.approx(0.25e308, rel=1e-14)
    table["nll"][0] = np.inf
    assert math.isnan(summarize(table).mean_nll_error)


@pytest.mark.parametrize("rows", [0, 1])
def test_no_errors_of_less_than_two_rows(rows):
    summary = summarize(make_table(rows))
    assert math.isnan(summary.mean_nll_error)
    assert math.isnan(summary.accuracy_error)
    assert math.isnan(summary.mean_entropy_error)
    assert math.isnan(summarize(make_table(9, labelled=False)).mean_nll_error)
