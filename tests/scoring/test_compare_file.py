import json
import re
from pathlib import Path

import numpy as np
import pytest

import klce
from klce.scoring import InputError, LabelError, compare_file, score_file
from klce.scoring.distribution import QUANTILES
from klce.scoring.groups import clustered_error
from klce.scoring.readers import open_reader

EXAMPLE = Path(__file__).parents[2] / "examples" / "lm"
BASE, P, Q = (EXAMPLE / name for name in ("base.kld", "base_logits.npy", "q4_logits.npy"))
TARGETS = EXAMPLE / "targets.npy"


def specification(p, q, target=None):
    """Compare rows in float64, term by term."""
    p, q = p.astype(np.float64), q.astype(np.float64)
    rows = np.arange(len(p))
    log_p, log_q = (x - x.max(1, keepdims=True) for x in (p, q))
    log_p, log_q = (x - np.log(np.exp(x).sum(1, keepdims=True)) for x in (log_p, log_q))
    prob_p, prob_q = np.exp(log_p), np.exp(log_q)
    log_m = np.log((prob_p + prob_q) / 2)
    found = {
        "kl_divergence": (prob_p * (log_p - log_q)).sum(1),
        "reverse_kl_divergence": (prob_q * (log_q - log_p)).sum(1),
        "js_divergence": (prob_p * (log_p - log_m) + prob_q * (log_q - log_m)).sum(1) / 2,
        "total_variation": np.abs(prob_p - prob_q).sum(1) / 2,
        "expected_agreement": (prob_p * prob_q).sum(1),
        "entropy_p": -(prob_p * log_p).sum(1),
        "entropy_q": -(prob_q * log_q).sum(1),
        "max_log_prob_p": log_p.max(1),
        "max_log_prob_q": log_q.max(1),
        "argmax_p": p.argmax(1),
        "argmax_q": q.argmax(1),
        "same_argmax": p.argmax(1) == q.argmax(1),
    }
    if target is not None:
        found |= {
            "target": target,
            "nll_p": -log_p[rows, target],
            "nll_q": -log_q[rows, target],
            "target_log_prob_change": (log_q - log_p)[rows, target],
            "target_prob_change": (prob_q - prob_p)[rows, target],
        }
    return found


def make(rows, classes, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    p = 3 * rng.standard_normal((rows, classes))
    q = p + 0.3 * rng.standard_normal((rows, classes))
    return p.astype(dtype), q.astype(dtype), rng.integers(0, classes, rows)


@pytest.fixture
def files(tmp_path):
    """Return a function that saves arrays and returns their paths."""

    def save(*arrays):
        paths = [tmp_path / name for name in ("p.npy", "q.npy", "targets.npy")]
        for path, array in zip(paths, arrays, strict=False):
            np.save(path, array)
        return paths[: len(arrays)]

    return save


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("labelled", [False, True])
def test_rows_are_those_of_a_float64_computation(files, tmp_path, labelled, dtype):
    p, q, target = make(50, 300, dtype=dtype)
    comparison = compare_file(
        *files(p, q, target)[: 3 if labelled else 2], out=tmp_path / "out.npy"
    )
    table = np.load(tmp_path / "out.npy")
    expected = specification(p, q, target if labelled else None)
    assert set(table.dtype.names) == set(expected)
    assert comparison.dtype_p == comparison.dtype_q == np.dtype(dtype).name
    assert comparison.computed_in == table["kl_divergence"].dtype.name
    tolerance = 1e-12 if dtype == np.float64 else 1e-6
    for name, values in expected.items():
        # A change may cancel to next to nothing.
        places = 1e-15 if dtype == np.float64 else 3e-8
        absolute = places if name.endswith("_change") else 0
        np.testing.assert_allclose(table[name], values, rtol=tolerance, atol=absolute, err_msg=name)
    summary = comparison.summary
    for name in ("kl_divergence", "js_divergence", "entropy_q"):
        estimate = summary.estimates[name]
        assert estimate.mean == pytest.approx(expected[name].mean(), rel=tolerance)
        error = expected[name].std() / np.sqrt(len(p) - 1)
        assert estimate.error == pytest.approx(error, rel=1e-5)
        assert estimate.clustered_error is None
    assert summary.estimates["same_argmax"].mean == np.mean(p.argmax(1) == q.argmax(1))
    assert ("nll_p" in summary.estimates) == labelled
    if labelled:
        change = np.exp(-expected["nll_q"]) - np.exp(-expected["nll_p"])
        assert summary.estimates["target_prob_change"].mean == pytest.approx(
            change.mean(), rel=1e-5
        )
        assert summary.rms_target_prob_change.mean == pytest.approx(
            np.sqrt(np.mean(change**2)), rel=1e-5
        )
        assert summary.perplexity_q.mean == pytest.approx(
            np.exp(expected["nll_q"].mean()), rel=1e-5
        )


@pytest.mark.parametrize("kinds", [(np.float64, np.float32), (np.float16, np.float64)])
def test_two_dtypes_are_computed_in_that_of_both(files, tmp_path, kinds):
    p, q, target = make(50, 300)
    paths = files(p.astype(kinds[0]), q.astype(kinds[1]), target)
    comparison = compare_file(*paths, out=tmp_path / "out.npy")
    assert comparison.computed_in == "float64"
    table = np.load(tmp_path / "out.npy")
    expected = specification(*map(np.load, paths))
    for name in ("nll_p", "nll_q", "max_log_prob_p", "max_log_prob_q"):
        np.testing.assert_allclose(table[name], expected[name], rtol=1e-12)
    summary = comparison.summary
    difference = summary.perplexity_q.mean - summary.perplexity_p.mean
    assert summary.perplexity_difference.mean == pytest.approx(difference, rel=1e-12)


def delta_method(nll_p, nll_q):
    """Return what follows from mean NLLs, and its errors, by the covariance of the means."""
    (var_p, cov), (_, var_q) = np.cov(nll_p, nll_q, bias=True) / (len(nll_p) - 1)
    p, q = np.exp(nll_p.mean()), np.exp(nll_q.mean())
    return {
        "perplexity_p": (p, p * np.sqrt(var_p)),
        "perplexity_q": (q, q * np.sqrt(var_q)),
        "perplexity_ratio": (q / p, q / p * np.sqrt(var_p + var_q - 2 * cov)),
        "perplexity_difference": (
            q - p,
            np.sqrt(p * p * var_p + q * q * var_q - 2 * p * q * cov),
        ),
    }, cov / np.sqrt(var_p * var_q)


@pytest.mark.parametrize("noise", [2.0, 0.3, 1e-3])
def test_what_follows_from_the_means(files, noise):
    rng = np.random.default_rng(3)
    p, target = 3 * rng.standard_normal((300, 50)), rng.integers(0, 50, 300)
    q = p + noise * rng.standard_normal(p.shape)
    summary = compare_file(*files(p, q, target)).summary
    expected = specification(p, q, target)
    found, correlation = delta_method(expected["nll_p"], expected["nll_q"])
    square = expected["target_prob_change"] ** 2
    root = np.sqrt(square.mean())
    found["rms_target_prob_change"] = root, square.std() / np.sqrt(299) / (2 * root)
    assert summary.following.keys() == found.keys()
    for name, (value, error) in found.items():
        estimate = summary.following[name]
        assert estimate.mean == pytest.approx(value, rel=1e-9), name
        assert estimate.error == pytest.approx(error, rel=1e-6), name
        assert estimate.clustered_error is None
    assert summary.nll_correlation == pytest.approx(correlation, rel=1e-12)
    values = compare_file(*files(p, q, target)).to_dict()
    assert values["nll_correlation"] == summary.nll_correlation
    for name, estimate in summary.following.items():
        assert [values[name], values[f"{name}_error"]] == [estimate.mean, estimate.error]


def test_what_follows_is_clustered_by_sequence_as_the_means_are(files, tmp_path):
    p, q, target = make(200, 30, dtype=np.float64)
    np.save(tmp_path / "groups.npy", np.arange(0, 201, 8))
    summary = compare_file(*files(p, q, target), groups=tmp_path / "groups.npy").summary
    nll = specification(p, q, target)
    slopes = np.exp(nll["nll_q"].mean()) * nll["nll_q"] - np.exp(nll["nll_p"].mean()) * nll["nll_p"]
    for name, values in (
        ("nll_change", nll["nll_q"] - nll["nll_p"]), ("nll_p", nll["nll_p"])
    ):  # fmt: skip
        error = clustered_error(values.reshape(25, 8).sum(1), np.full(25, 8))
        assert summary.estimates[name].clustered_error == pytest.approx(error, rel=1e-9)
    error = clustered_error(slopes.reshape(25, 8).sum(1), np.full(25, 8))
    assert summary.perplexity_difference.clustered_error == pytest.approx(error, rel=1e-9)
    ratio, change = summary.perplexity_ratio, summary.estimates["nll_change"]
    assert ratio.clustered_error == pytest.approx(ratio.mean * change.clustered_error)


def test_errors_by_sequence_do_not_depend_on_how_many_are_summed_at_once(
    files, tmp_path, monkeypatch
):
    np.save(tmp_path / "groups.npy", np.random.default_rng(1).integers(0, 9, 200))
    paths = files(*make(200, 30))
    found = []
    for most in (1 << 20, 4 * 8 * 9, 1):
        monkeypatch.setattr("klce.scoring.compare_summary._SUMS_BYTES", most)
        found.append(compare_file(*paths, groups=tmp_path / "groups.npy").summary)
    assert found[0] == found[1] == found[2]


def test_equal_models_and_impossible_labels_have_what_there_is(files):
    p, _, target = make(40, 6, dtype=np.float64)
    summary = compare_file(*files(p, p, target)).summary
    assert summary.nll_correlation == pytest.approx(1)
    assert summary.perplexity_difference.mean == summary.perplexity_difference.error == 0
    assert summary.perplexity_ratio.mean == 1
    assert summary.rms_target_prob_change.mean == 0
    q = p.copy()
    q[3, target[3]] = -np.inf
    comparison = compare_file(*files(p, q, target))
    assert comparison.summary.perplexity_q.mean == np.inf
    json.dumps(comparison.to_dict(), allow_nan=False)


@pytest.mark.parametrize("labelled", [False, True])
def test_each_model_is_read_for_itself_only_for_what_both_do_not_have(
    files, tmp_path, monkeypatch, labelled
):
    asked = []
    real = klce.score

    def score(logits, *args, want, **options):
        asked.append({*want} if len(logits) else set())
        return real(logits, *args, want=want, **options)

    monkeypatch.setattr(klce, "score", score)
    paths = files(*make(20, 5, dtype=np.float64))[: 3 if labelled else 2]
    compare_file(*paths)
    compare_file(*paths, out=tmp_path / "out.npy", report=tmp_path / "report.html")
    assert not any(asked)
    compare_file(*paths, out=tmp_path / "out.npy", want=["margin_p", "argmax_p", "kl_divergence"])
    assert [want for want in asked if want] == [{"margin"}]


def test_overlap_of_the_top_k(files, tmp_path):
    p, q, _ = make(200, 30)
    comparison = compare_file(*files(p, q), top_k=5, out=tmp_path / "out.npy")
    best_p, best_q = (np.argsort(-x, axis=1, kind="stable")[:, :5] for x in (p, q))
    expected = [len({*a} & {*b}) for a, b in zip(best_p.tolist(), best_q.tolist(), strict=True)]
    assert np.load(tmp_path / "out.npy")["top_overlap"].tolist() == expected
    assert comparison.summary.estimates["top_overlap"].mean == pytest.approx(np.mean(expected))
    values = comparison.to_dict()
    assert (values["top_k"], values["top_overlap"]["mean"]) == (5, pytest.approx(np.mean(expected)))
    assert "top_overlap" not in compare_file(*files(p, q)).to_dict()


@pytest.mark.parametrize("noise", [1e-5, 1e-3, 1e-2])
def test_near_rows_keep_their_digits(files, tmp_path, noise):
    rng = np.random.default_rng(1)
    p = 3 * rng.standard_normal((50, 300)).astype(np.float32)
    q = p + (noise * rng.standard_normal(p.shape)).astype(np.float32)
    compare_file(*files(p, q), out=tmp_path / "out.npy")
    table, expected = np.load(tmp_path / "out.npy"), specification(p, q)
    np.testing.assert_allclose(table["total_variation"], expected["total_variation"], rtol=1e-6)
    # The specification takes the difference of logarithms: of a small divergence it keeps less.
    np.testing.assert_allclose(
        table["kl_divergence"], expected["kl_divergence"], rtol=1e-6, atol=1e-15
    )


@pytest.mark.parametrize("noise", [1e-2, 1e-3, 1e-4, 1e-5])
def test_changes_of_near_models_to_a_millionth(files, tmp_path, noise):
    rng = np.random.default_rng(0)
    p = (3 * rng.standard_normal((200, 1000))).astype(np.float32)
    q = p + (noise * rng.standard_normal(p.shape)).astype(np.float32)
    target = rng.integers(0, 1000, len(p))
    summary = compare_file(*files(p, q, target)).summary
    log_p, log_q = (x.astype(np.longdouble) for x in (p, q))
    log_p, log_q = (x - np.log(np.exp(x).sum(1, keepdims=True)) for x in (log_p, log_q))
    rows = np.arange(len(p)), target
    nll_change = (log_p - log_q)[rows].astype(float)
    change = (np.exp(log_q) - np.exp(log_p))[rows].astype(float)
    for name, values in (("nll_change", nll_change), ("target_prob_change", change)):
        estimate = summary.estimates[name]
        # A mean may cancel: it is as good as its terms.
        places = 1e-6 * np.abs(values).mean()
        assert estimate.mean == pytest.approx(values.mean(), rel=1e-6, abs=places), name
        assert estimate.error == pytest.approx(values.std() / np.sqrt(len(p) - 1), rel=1e-6), name
    assert summary.rms_target_prob_change.mean == pytest.approx(
        np.sqrt(np.mean(change * change)), rel=1e-6
    )
    places = 1e-6 * np.abs(change).mean()
    np.testing.assert_allclose(
        summary.target_prob_change_quantiles, np.quantile(change, QUANTILES), rtol=1e-6, atol=places
    )
    ratio = summary.perplexity_ratio.mean
    assert ratio == pytest.approx(np.exp(nll_change.mean()), rel=1e-9)
    assert summary.perplexity_difference.mean == pytest.approx(
        summary.perplexity_p.mean * np.expm1(summary.estimates["nll_change"].mean), rel=1e-6
    )


def test_equal_models_have_no_change(files, tmp_path):
    p, _, target = make(50, 300)
    p[0, target[0]] = -np.inf
    compare_file(*files(p, p, target), out=tmp_path / "out.npy")
    table = np.load(tmp_path / "out.npy")
    assert not table["total_variation"].any()
    assert np.isnan(table["target_log_prob_change"][0])  # both are impossible
    for name in ("target_log_prob_change", "target_prob_change"):
        assert not table[name][1:].any()


def test_real_logits():
    p, q, target = (np.load(path) for path in (P, Q, TARGETS))
    comparison = compare_file(P, Q, TARGETS)
    expected = specification(p, q, target)
    summary = comparison.summary
    assert summary.estimates["kl_divergence"].mean == pytest.approx(
        expected["kl_divergence"].mean(), rel=1e-6
    )
    fractions = [0, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1]
    np.testing.assert_allclose(
        summary.kl_divergence_quantiles,
        np.quantile(expected["kl_divergence"], fractions),
        rtol=1e-6,
    )
    change = np.exp(-expected["nll_q"]) - np.exp(-expected["nll_p"])
    assert summary.target_prob_change_quantiles[0] == pytest.approx(change.min(), rel=1e-5)
    assert comparison.sequences is None
    assert summary.saturated is None


def test_base_file_brings_targets_and_groups_and_counts_its_floor(tmp_path):
    comparison = compare_file(BASE, Q, out=tmp_path / "out.npy")
    table = np.load(tmp_path / "out.npy")
    np.testing.assert_array_equal(table["target"], np.load(TARGETS))
    encoded = open_reader(BASE).encoded(0, 105)
    reach = 65535 * encoded["scale"] > 15.99
    np.testing.assert_array_equal(table["floor_classes"], (encoded["q"] == 0).sum(1) * reach)
    assert reach.any()
    assert comparison.summary.floor_classes == table["floor_classes"].sum()
    assert comparison.summary.saturated == table["saturated"].sum() == 0
    assert comparison.sequences == 3
    kl = table["kl_divergence"].astype(np.float64)
    assert comparison.summary.estimates["kl_divergence"].clustered_error == pytest.approx(
        clustered_error(kl.reshape(3, 35).sum(1), np.full(3, 35)), rel=1e-9
    )


@pytest.fixture
def saturated(tmp_path):
    """Return a base file whose row 4 has a label that is cut off."""
    tokens = open_reader(f"{BASE}::tokens").read(0, 3, 1).copy()
    encoded = open_reader(BASE).encoded(0, 105)
    data = bytearray(BASE.read_bytes())
    lowest = int((encoded["q"][4] == 0).argmax())  # a class at the floor becomes row 4's label
    position = 71 // 2 + 1 + 4
    assert tokens[0, position] == np.load(TARGETS)[4]
    at = 20 + 4 * position
    data[at : at + 4] = int(lowest).to_bytes(4, "little")
    (tmp_path / "base.kld").write_bytes(data)
    return tmp_path / "base.kld"


def test_saturated_rows(saturated, tmp_path):
    comparison = compare_file(saturated, Q, out=tmp_path / "out.npy")
    assert np.flatnonzero(np.load(tmp_path / "out.npy")["saturated"]).tolist() == [4]
    assert comparison.summary.saturated == 1
    for want in (None, ["nll"]):
        scores = score_file(saturated, out=tmp_path / "scores.npy", want=want)
        table = np.load(tmp_path / "scores.npy")
        assert np.flatnonzero(table["saturated"]).tolist() == [4]
        assert scores.summary.saturated == scores.to_dict()["saturated_rows"] == 1
        floor = table["floor_classes"]
        assert scores.summary.floor_classes == scores.to_dict()["floor_classes"] == floor.sum() > 0
    np.testing.assert_array_equal(floor, np.load(tmp_path / "out.npy")["floor_classes"])
    assert score_file(saturated, block_rows=3).summary.saturated == 1
    assert score_file(BASE).summary.saturated == 0
    assert score_file(P, TARGETS).summary.saturated is None


def test_what_the_file_of_q_cuts_off_is_counted_too(saturated, tmp_path):
    """A label that Q cuts off makes its NLL a lower bound, as one that P does."""
    of_p = compare_file(saturated, Q, out=tmp_path / "p.npy").summary
    assert (of_p.saturated_q, of_p.floor_classes_q) == (None, None)
    targets = f"{saturated}::targets"
    comparison = compare_file(Q, saturated, targets, out=tmp_path / "q.npy", block_rows=3)
    p, q = np.load(tmp_path / "p.npy"), np.load(tmp_path / "q.npy")
    assert q.dtype.names[-2:] == ("floor_classes_q", "saturated_q")
    for name in ("floor_classes", "saturated"):
        np.testing.assert_array_equal(q[f"{name}_q"], p[name])
    summary, values = comparison.summary, comparison.to_dict()
    assert (summary.saturated, summary.floor_classes) == (None, None)
    assert summary.saturated_q == values["saturated_rows_q"] == 1
    assert summary.floor_classes_q == values["floor_classes_q"] == of_p.floor_classes > 0
    both = compare_file(saturated, BASE, out=tmp_path / "both.npy").summary
    assert (both.saturated, both.saturated_q) == (1, 1)
    assert both.floor_classes == both.floor_classes_q == of_p.floor_classes
    unlabelled = compare_file(Q, f"{BASE}::log_probs", out=tmp_path / "out.npy").summary
    assert (unlabelled.saturated_q, unlabelled.floor_classes_q) == (None, of_p.floor_classes)
    assert np.load(tmp_path / "out.npy").dtype.names[-1] == "floor_classes_q"


def test_rows_that_do_not_count(files, tmp_path):
    p, q, target = make(30, 5, dtype=np.float64)
    p[3, 2] = np.nan
    q[5, 1] = np.inf
    target[::10] = -1
    q[7, 4] = -np.inf
    summary = compare_file(*files(p, q, target), ignore_index=-1).summary
    assert (summary.rows, summary.ignored, summary.nan, summary.first_nan) == (30, 3, 2, 3)
    assert (summary.counted, summary.infinite) == (25, 1)
    assert summary.estimates["kl_divergence"].mean == np.inf
    assert np.isnan(summary.estimates["kl_divergence"].error)
    assert np.isfinite(summary.kl_divergence_quantiles[6])
    assert summary.kl_divergence_quantiles[-1] == np.inf
    counted = [row for row in range(30) if row % 10 and row not in (3, 5)]
    expected = specification(p[counted], p[counted], target[counted])
    assert summary.estimates["nll_p"].mean == pytest.approx(expected["nll_p"].mean(), rel=1e-12)
    values = compare_file(*files(p, q, target), ignore_index=-1).to_dict()
    json.dumps(values, allow_nan=False)
    assert values["kl_divergence"]["mean"] is None


@pytest.mark.parametrize("rows", [2, 3])
def test_means_of_sums_beyond_the_range_of_float64(files, rows):
    """As `klce score` has them: no sum of finite numbers is infinite."""
    p = np.zeros((rows, 2))
    p[:, 1] = -1e308
    p[0, 1] = -1.5e308
    paths = files(p, p, np.ones(rows, int))
    found = compare_file(*paths).summary.estimates
    summary = score_file(paths[0], paths[2]).summary
    for name in ("nll_p", "nll_q"):
        assert (found[name].mean, found[name].error) == (summary.mean_nll, summary.mean_nll_error)
    assert 1e308 < summary.mean_nll < 1.5e308
    assert found["nll_change"].mean == found["nll_change"].error == 0
    values = json.loads(json.dumps(compare_file(*paths).to_dict(), allow_nan=False))
    assert values["nll_p"]["mean"] == summary.mean_nll


def test_calibration_is_that_of_each_model(files, tmp_path):
    p, q, target = make(200, 5)
    target[::7] = -100
    p[3, 0] = np.nan
    paths = files(p, q, target)
    comparison = compare_file(*paths)
    kept = compare_file(*paths, out=tmp_path / "out.npy", want=["total_variation"])
    assert kept.summary == comparison.summary
    assert sum(comparison.summary.calibration_p.counts) == comparison.summary.counted
    values, of_q = comparison.to_dict(), score_file(paths[1], paths[2])
    target[3] = -100  # P has no result there
    np.save(paths[2], target)
    for model, path in zip("pq", paths, strict=False):
        scores = score_file(path, paths[2])
        found = getattr(comparison.summary, f"calibration_{model}")
        assert found.counts == scores.summary.calibration.counts
        assert found.error == pytest.approx(scores.summary.calibration.error, rel=1e-6)
        assert values[f"expected_calibration_error_{model}"] == found.error
    assert of_q.summary.counted == scores.summary.counted + 1
    unlabelled = compare_file(*paths[:2])
    assert not any(unlabelled.summary.calibration_q.counts)
    assert not [name for name in unlabelled.to_dict() if "calibration" in name]


@pytest.mark.parametrize("rows", [0, 1])
def test_few_rows(files, tmp_path, rows):
    p, q, target = make(rows, 4)
    comparison = compare_file(*files(p, q, target), out=tmp_path / "out.csv")
    assert comparison.summary.counted == rows
    assert np.isnan(comparison.summary.estimates["kl_divergence"].error)
    json.dumps(comparison.to_dict(), allow_nan=False)
    assert len((tmp_path / "out.csv").read_text().splitlines()) == rows + 1


def test_the_size_of_a_block_changes_no_bit(files, tmp_path):
    paths = files(*make(500, 33))
    whole = compare_file(*paths, out=tmp_path / "whole.npy")
    for options in ({"block_rows": 7}, {"block_rows": 101}, {"memory": 20_000}):
        parts = compare_file(*paths, out=tmp_path / "parts.npy", **options)
        assert parts.summary == whole.summary
        assert (tmp_path / "parts.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"q": "short.npy"}, r"short\.npy: 19 rows of 5 classes, where .*p\.npy has 20 of 5"),
        ({"q": "narrow.npy"}, "20 rows of 4 classes"),
        ({"top_k": 6}, "top_k must be from 0 to the 5 classes"),
        ({"top_k": 2, "compat": "llama.cpp"}, "top_k belongs to the exact comparison"),
        ({"temperature": 2, "compat": "llama.cpp"}, "temperature belongs to the exact comparison"),
        ({"want": ["nll_p"], "out": "o.npy", "compat": "llama.cpp"}, "want belongs to the exact"),
        ({"compat": "torch"}, r"compat must be llama\.cpp, got torch"),
        ({"resume": True}, "resume needs a file for the results"),
        ({"out": "x.txt"}, "not a file type that klce writes"),
        ({"out": "q.npy"}, "would replace the input"),
        ({"report": "x.pdf"}, "its file ends in .html"),
        ({"report": "x.html", "compat": "llama.cpp"}, "shows the exact comparison"),
        ({"compat": "llama.cpp"}, "need labels"),
        ({"groups": "short.npy"}, "groups must be integers"),
        ({"memory": 0}, "memory must be at least 1 byte"),
        ({"ignore_index": 2**63}, "ignore_index must fit in int64"),
    ],
)
def test_refused(files, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    p, q, _ = make(20, 5)
    files(p, q)
    np.save("short.npy", q[:-1])
    np.save("narrow.npy", q[:, :-1])
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=message):
        compare_file(**{"p": "p.npy", "q": "q.npy"} | options)
    assert sorted(tmp_path.iterdir()) == before


def test_label_out_of_range(files):
    p, q, target = make(20, 5)
    target[8] = 5
    with pytest.raises(LabelError, match=r"got 5 in row 8$"):
        compare_file(*files(p, q, target))


# --- llama.cpp -----------------------------------------------------------------------------------


def printed(name):
    return (EXAMPLE / f"{name}.txt").read_text()


@pytest.mark.parametrize(
    ("q", "output"),
    [(Q, "q4_tool_output"), (P, "base_against_itself_tool_output")],
)
def test_llama_cpp_output_line_for_line(q, output):
    comparison = compare_file(BASE, q, compat="llama.cpp")
    assert "".join(line + "\n" for line in comparison.lines) == printed(output)


def test_shards_of_base_files_are_compared_as_one(tmp_path):
    (tmp_path / "shards").mkdir()
    for i in range(2):
        (tmp_path / "shards" / f"{i}.kld").write_bytes(BASE.read_bytes())
    q = np.load(Q)
    np.save(tmp_path / "q.npy", np.concatenate([q, q]))
    one, both = compare_file(BASE, Q), compare_file(tmp_path / "shards", tmp_path / "q.npy")
    assert (one.sequences, both.sequences) == (3, 6)
    assert both.summary.floor_classes == 2 * one.summary.floor_classes > 0
    assert both.summary.saturated == 0
    lines = compare_file(tmp_path / "shards", tmp_path / "q.npy", compat="llama.cpp").lines
    assert [line[:4] for line in lines[1:8]] == [*(f"{chunk:4d}" for chunk in range(1, 7)), ""]
    chunks, _, _ = printed("q4_tool_output").partition("\n\n")
    assert "\n".join(lines).startswith(chunks)


def test_llama_cpp_output_from_plain_logits(files):
    comparison = compare_file(P, Q, TARGETS, compat="llama.cpp")
    statistics = printed("q4_tool_output")
    statistics = statistics[statistics.index("====== Perplexity") :]
    assert "".join(line + "\n" for line in comparison.lines) == statistics


@pytest.mark.parametrize("kind", ["ids", "offsets"])
def test_llama_cpp_chunks_are_the_groups(tmp_path, kind):
    ids = np.repeat([5, -1, 7], 35)
    np.save(tmp_path / "groups.npy", ids if kind == "ids" else [0, 35, 35, 70, 105])
    options = {"compat": "llama.cpp", "groups": tmp_path / "groups.npy"}
    assert "".join(f"{line}\n" for line in compare_file(BASE, Q, **options).lines) == printed(
        "q4_tool_output"
    )
    lines = compare_file(P, Q, TARGETS, **options).lines
    assert "".join(f"{line}\n" for line in lines) == printed("q4_tool_output")
    np.save(tmp_path / "groups.npy", [0, 50, 105])
    lines = compare_file(BASE, Q, **options).lines
    assert [line[:4] for line in lines[1:4]] == ["   1", "   2", ""]


def test_llama_cpp_chunks_follow_one_another(tmp_path, monkeypatch):
    monkeypatch.setattr("klce.scoring.readers.base.NUMBERS_AT_ONCE", 16)
    ids = np.repeat([5, -1, 7], 35)
    ids[77] = 5
    np.save(tmp_path / "ids.npy", ids)
    with pytest.raises(InputError, match=r"ids\.npy: chunks have .* but 5 goes on in row 77"):
        compare_file(BASE, Q, compat="llama.cpp", groups=tmp_path / "ids.npy")


def test_llama_cpp_numbers_by_name():
    exact = compare_file(BASE, Q).to_dict()
    comparison = compare_file(BASE, Q, compat="llama.cpp")
    values = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    assert values["lines"] == list(comparison.lines)
    text = "\n".join(comparison.lines)
    for line in (
        f"Mean PPL(Q)                   : {values['perplexity_q']:10.6f} "
        f"± {values['perplexity_q_error']:10.6f}",
        f"Cor(ln(PPL(Q)), ln(PPL(base))): {100 * values['nll_correlation']:6.2f}%",
        f"Mean    KLD: {values['kl_divergence']['mean']:10.6f} "
        f"± {values['kl_divergence']['error']:10.6f}",
        f"99.9%   KLD: {values['kl_divergence_quantiles']['0.999']:10.6f}",
        f"Minimum Δp: {100 * values['target_prob_change_quantiles']['0']:6.3f}%",
        f"Same top p: {100 * values['same_argmax']['mean']:6.3f} "
        f"± {100 * values['same_argmax']['error']:5.3f} %",
    ):
        assert line in text
    assert [len(values["chunks"]), values["chunks"][-1]["kl_divergence"]] == [
        3, values["kl_divergence"]
    ]  # fmt: skip
    # What both comparisons have, they have by the same name, in the same form and nearly the same.
    assert {"kl_divergence", "nll_change", "perplexity_p", "same_argmax"} < exact.keys()
    for name in exact.keys() & values.keys() - {"seconds", "compat"}:
        assert isinstance(values[name], type(exact[name])), name
    assert values["kl_divergence"]["mean"] == pytest.approx(
        exact["kl_divergence"]["mean"], rel=0.05
    )
    assert compare_file(P, Q, TARGETS, compat="llama.cpp").to_dict().get("chunks") is None


def test_llama_cpp_rows_and_blocks(tmp_path):
    whole = compare_file(BASE, Q, compat="llama.cpp", out=tmp_path / "a.npy")
    parts = compare_file(BASE, Q, compat="llama.cpp", out=tmp_path / "b.npy", block_rows=11)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    assert parts.lines == whole.lines
    table = np.load(tmp_path / "a.npy")
    assert re.search(rf"Same top p: {100 * table['same_argmax'].mean():.3f} ", whole.lines[-2])


def test_llama_cpp_scores_every_row(files):
    p, q, target = make(20, 5)
    target[3] = -100
    with pytest.raises(InputError, match="row 3 is ignored"):
        compare_file(*files(p, q, target), compat="llama.cpp")
    p, q, target = make(0, 5)
    with pytest.raises(InputError, match="need rows"):
        compare_file(*files(p, q, target), compat="llama.cpp")


def test_llama_cpp_few_rows_have_no_errors(files):
    lines = compare_file(*files(*make(9, 5)), compat="llama.cpp").lines
    assert "Cor(ln(PPL(Q)), ln(PPL(base))):   -nan%" in lines
    assert any(re.fullmatch(r"Mean PPL\(Q\) +: +\d+\.\d{6} ±   0\.000000", line) for line in lines)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_llama_cpp_rows_of_nan(files, bad):
    p, q, target = make(40, 5)
    q[[7, 20], 2] = bad
    comparison = compare_file(*files(p, q, target), compat="llama.cpp")
    assert (comparison.output.nan, comparison.output.first_nan) == (2, 7)
    values = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    assert (values["nan_rows"], values["first_nan_row"]) == (2, 7)
    assert values["kl_divergence"]["mean"] is values["nll_correlation"] is None
    assert values["kl_divergence_quantiles"]["1"] > 0
    assert not any("inf" in line for line in comparison.lines)

    q[:, 2] = bad
    lines = compare_file(*files(p, q, target), compat="llama.cpp").lines
    assert any(re.fullmatch(r"Maximum KLD: +nan", line) for line in lines)


def test_llama_cpp_quantile_beside_an_infinite_one(files):
    p, q, target = make(11, 5)
    q[3, target[3] - 1] = -np.inf  # 0.9 of 10 intervals is the ninth value, just below it
    lines = compare_file(*files(p, q, target), compat="llama.cpp").lines
    assert any(re.fullmatch(r"Maximum KLD: +inf", line) for line in lines)
    assert any(re.fullmatch(r"90\.0%   KLD: +-?nan", line) for line in lines)
