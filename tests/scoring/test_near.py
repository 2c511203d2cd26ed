"""Rows that are near: what is computed of them in float64, against NumPy's longdouble."""

from pathlib import Path

import numpy as np
import pytest

from klce.scoring import compare_file, near
from klce.scoring.distribution import QUANTILES

LM = Path(__file__).parents[2] / "examples" / "lm"
COLUMNS = ("total_variation", "target_log_prob_change", "target_prob_change")


def specification(p, q, target, temperature=1.0):
    p, q = (x.astype(np.longdouble) / temperature for x in (p, q))
    log_p, log_q = (x - x.max(1, keepdims=True) for x in (p, q))
    log_p, log_q = (x - np.log(np.exp(x).sum(1, keepdims=True)) for x in (log_p, log_q))
    prob_p, prob_q = np.exp(log_p), np.exp(log_q)
    rows = np.arange(len(p))
    with np.errstate(invalid="ignore"):
        change = (log_q - log_p)[rows, target]
    return {
        "total_variation": np.abs(prob_q - prob_p).sum(1) / 2,
        "target_log_prob_change": change,
        "target_prob_change": (prob_q - prob_p)[rows, target],
    }


def make(noise, rows=200, classes=1000, seed=0):
    rng = np.random.default_rng(seed)
    p = (3 * rng.standard_normal((rows, classes))).astype(np.float32)
    q = p + (noise * rng.standard_normal(p.shape)).astype(np.float32)
    return p, q, rng.integers(0, classes, rows)


def compare(folder, p, q, target, **options):
    for name, array in (("p", p), ("q", q), ("t", target)):
        np.save(folder / f"{name}.npy", array)
    paths = (folder / f"{name}.npy" for name in "pqt")
    found = compare_file(*paths, out=folder / "out.npy", **options)
    return found.summary, np.load(folder / "out.npy")


@pytest.mark.parametrize("noise", [1e-2, 1e-3, 1e-4, 1e-5])
def test_rows_and_summary_to_a_millionth(tmp_path, noise):
    p, q, target = make(noise)
    summary, table = compare(tmp_path, p, q, target)
    expected = specification(p, q, target)
    for name in COLUMNS:
        np.testing.assert_allclose(table[name], expected[name], rtol=1e-6, err_msg=name)
    change = expected["target_prob_change"].astype(float)
    for name, values in (
        ("total_variation", expected["total_variation"]),
        ("nll_change", -expected["target_log_prob_change"]),
        ("target_prob_change", change),
    ):
        estimate = summary.estimates[name]
        assert estimate.mean == pytest.approx(float(values.mean()), rel=1e-6), name
        error = float(values.std()) / np.sqrt(len(p) - 1)
        assert estimate.error == pytest.approx(error, rel=1e-6), name
    assert summary.rms_target_prob_change.mean == pytest.approx(
        np.sqrt(np.mean(change * change)), rel=1e-6
    )
    np.testing.assert_allclose(
        summary.target_prob_change_quantiles, np.quantile(change, QUANTILES), rtol=1e-6
    )
    mean = float(-expected["target_log_prob_change"].mean())
    assert np.log(summary.perplexity_ratio.mean) == pytest.approx(mean, rel=1e-6)
    assert summary.perplexity_difference.mean == pytest.approx(
        summary.perplexity_p.mean * np.expm1(mean), rel=1e-6
    )


@pytest.mark.parametrize("at_once", [300, 1500, 999, 7000])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_pieces_of_rows_and_of_classes(tmp_path, monkeypatch, at_once, temperature):
    monkeypatch.setattr(near, "_CLASSES_AT_ONCE", at_once)
    p, q, target = make(1e-3, rows=20)
    p[3, :400] = q[3, :400] = -np.inf  # a piece of impossible classes
    p[4, :400] = -np.inf
    q[4, :400] -= 60
    target[:5] = [0, 299, 300, 500, 600]
    target[6] = -100
    _, table = compare(tmp_path, p, q, target, temperature=temperature)
    expected = specification(p, q, target, temperature)
    counted = target != -100
    for name in COLUMNS:
        expected[name] = expected[name][counted]
        np.testing.assert_allclose(table[name][counted], expected[name], rtol=1e-6, err_msg=name)
    assert np.isnan(table["target_prob_change"][6])
    assert np.isnan(table["target_log_prob_change"][6])
    assert table["total_variation"][6] > 0


def test_equal_rows_have_no_change(tmp_path):
    p, _, target = make(0)
    p[0, target[0]] = -np.inf
    _, table = compare(tmp_path, p, p, target)
    for name in ("total_variation", "target_prob_change"):
        assert not table[name].any()
    assert np.isnan(table["target_log_prob_change"][0])  # both are impossible
    assert not table["target_log_prob_change"][1:].any()


def test_an_ignored_label_may_be_a_class(tmp_path):
    p, q, target = make(1e-3, rows=30)
    target[::3] = 5
    _, table = compare(tmp_path, p, q, target, ignore_index=5)
    np.testing.assert_array_equal(np.isnan(table["target_prob_change"]), target == 5)


@pytest.mark.parametrize("noise", [0, 0.05])
def test_real_logits_to_a_millionth(tmp_path, noise):
    p, q, target = (
        np.load(LM / name) for name in ("base_logits.npy", "q4_logits.npy", "targets.npy")
    )
    if noise:
        q = p + (noise * np.random.default_rng(0).standard_normal(p.shape)).astype(np.float32)
    _, table = compare(tmp_path, p, q, target)
    expected = specification(p, q, target)
    assert 5 < len(near.near_rows(table)) < len(p)
    np.testing.assert_allclose(table["total_variation"], expected["total_variation"], rtol=1e-6)


@pytest.mark.parametrize("classes", [3, 300])
@pytest.mark.parametrize("scale", [1, 3, 8])
def test_rows_that_are_not_near_are_good_to_a_millionth(tmp_path, classes, scale):
    rng = np.random.default_rng(0)
    p = (scale * rng.standard_normal((3000, classes))).astype(np.float32)
    spread = rng.uniform(0.01, 0.2, (3000, 1))
    q = p + (spread * rng.standard_normal(p.shape)).astype(np.float32)
    target = np.zeros(3000, int)
    _, table = compare(tmp_path, p, q, target)
    far = np.setdiff1d(np.arange(3000), near.near_rows(table))
    assert 300 < len(far) < 2900
    expected = specification(p[far], q[far], target[far])["total_variation"]
    np.testing.assert_allclose(table["total_variation"][far], expected, rtol=1e-6)
