"""What `want`, `top_k`, `candidates` and `temperature` bring into the results of files."""

import json
from pathlib import Path

import distributed
import numpy as np
import pyarrow.parquet as pq
import pytest

import klce
from klce.scoring import InputError, Interrupted, LabelError, compare_file, score_file
from klce.scoring.results import WRITERS
from tests.scoring.runs import stop_after

ALL = {
    "want": (
        "nll", "target_log_prob", "target_prob", "max_log_prob", "margin", "logsumexp", "entropy",
        "varentropy", "rank", "argmax", "greedy_match",
    ),
    "top_k": 4,
    "candidates": (3, 0),
    "temperature": 1.7,
}  # fmt: skip
SUFFIXES = sorted(WRITERS)
BASE = Path(__file__).parents[2] / "examples" / "lm" / "base.kld"


def score(out, **options):
    return score_file("logits.npy", "targets.npy", out=out, **options)


def test_rows_are_those_of_klce_score_to_the_bit(files):
    summary = score("out.npy", **ALL).summary
    rows = np.load("out.npy")
    x, y = np.load("logits.npy"), np.load("targets.npy")
    expected = klce.score(x, y, **ALL)
    assert rows.dtype.names == ("target", *expected)
    for name, column in expected.items():
        assert rows[name].dtype == column.dtype
        assert rows[name].tobytes() == column.tobytes(), name
    assert summary.mean_nll == pytest.approx(expected.nll.mean(dtype=float), rel=1e-12)


BOTH = {
    "want": ("total_variation", "cross_entropy", "target_log_prob_change", "same_argmax"),
    "top_k": 4,
    "temperature": 1.7,
}
EACH = ("rank", "margin", "entropy")


def compare(out, **options):
    return compare_file("logits.npy", "q.npy", "targets.npy", out=out, **options)


def test_rows_of_two_are_those_of_klce_compare_and_of_klce_score(files):
    own = tuple(f"{name}_{model}" for model in "pq" for name in EACH)
    compare("out.npy", **BOTH | {"want": (*BOTH["want"], *own)})
    rows = np.load("out.npy")
    p, q, target = (np.load(f"{name}.npy") for name in ("logits", "q", "targets"))
    expected = {
        **klce.compare(p, q, target, **BOTH | {"want": (*BOTH["want"], "entropy_p", "entropy_q")})
    }
    for x, suffix in ((p, "_p"), (q, "_q")):
        scored = klce.score(x, target, want=("rank", "margin"), temperature=1.7)
        expected |= {name + suffix: column for name, column in scored.items()}
    assert {*rows.dtype.names} == {"target", *expected}
    for name, column in expected.items():
        assert rows[name].dtype == column.dtype
        np.testing.assert_allclose(rows[name], column, rtol=1e-6, err_msg=name)


def test_columns_of_two_stand_in_one_order(files):
    compare("out.npy")
    both = (
        "kl_divergence", "reverse_kl_divergence", "js_divergence", "total_variation", "entropy_p",
        "entropy_q", "expected_agreement", "target_log_prob_change", "target_prob_change",
        "same_argmax",
    )  # fmt: skip
    each = ("nll_p", "max_log_prob_p", "argmax_p", "nll_q", "max_log_prob_q", "argmax_q")
    assert np.load("out.npy").dtype.names == ("target", *both, *each)
    each = ("nll_p", "margin_p", "argmax_p", "greedy_match_p", "target_prob_q", "argmax_q")
    compare("out.npy", top_k=1, want=[*reversed(each), "entropy_q", "cross_entropy"])
    both = ("cross_entropy", "entropy_q", "top_overlap")
    assert np.load("out.npy").dtype.names == ("target", *both, *each)


def test_the_summary_of_two_does_not_depend_on_what_is_wanted(files):
    plain = compare("out.npy").summary
    assert compare("out.npy", want=["rank_q"]).summary == plain
    assert compare_file("logits.npy", "q.npy", "targets.npy").summary == plain
    assert compare("out.npy", temperature=2.0).summary != plain
    assert compare("out.npy", temperature=2.0).to_dict()["temperature"] == 2


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_comparison_resumed_is_as_uninterrupted(files, suffix):
    compare(f"whole{suffix}", **BOTH)
    with pytest.raises(Interrupted):
        compare(f"parts{suffix}", block_rows=100, progress=stop_after(400), **BOTH)
    with pytest.raises(InputError, match=r"--temperature was 1\.7"):
        compare(f"parts{suffix}", resume=True, **BOTH | {"temperature": 1.0})
    assert compare(f"parts{suffix}", resume=True, block_rows=70, **BOTH).resumed_rows == 400
    assert (files / f"parts{suffix}").read_bytes() == (files / f"whole{suffix}").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"want": ["nll"]}, "want must name statistics of kl_divergence, .*, got 'nll'"),
        ({"want": "nll_p"}, "want must be a collection of names, got the string 'nll_p'"),
        ({"want": []}, "want must name at least one statistic"),
        ({"want": ["top_overlap"]}, "want must not name 'top_overlap' without top_k"),
        ({"want": ["target_prob_change"], "targets": None}, "without a target"),
        ({"want": ["rank_q"], "targets": None}, "without a target"),
        ({"temperature": 0}, "temperature must be from 1e-6 to 1e6, got 0"),
        ({"out": None, "want": ["nll_p"]}, "want needs a file for the results"),
    ],
)
def test_a_comparison_refused(files, options, message):
    before = sorted(files.iterdir())
    with pytest.raises(InputError, match=message):
        compare_file(
            **{"p": "logits.npy", "q": "q.npy", "targets": "targets.npy", "out": "out.npy"}
            | options
        )
    assert sorted(files.iterdir()) == before


def test_options_may_be_numbers_of_numpy(files):
    score("a.npy", top_k=2, temperature=0.5, candidates=[3], ignore_index=-1)
    two, minus_one = np.int64(2), np.int64(-1)
    values = score(
        "b.npy",
        top_k=two,
        temperature=np.float32(0.5),
        candidates=np.array([3]),
        ignore_index=minus_one,
    ).to_dict()
    assert (files / "a.npy").read_bytes() == (files / "b.npy").read_bytes()
    found = json.loads(json.dumps(values))
    assert (found["temperature"], found["ignore_index"]) == (0.5, -1)
    values = compare_file(
        "logits.npy", "q.npy", top_k=two, ignore_index=minus_one, out="c.npy"
    ).to_dict()
    found = json.loads(json.dumps(values))
    assert (found["top_k"], found["ignore_index"]) == (2, -1)


@pytest.mark.parametrize("name", ALL["want"])
def test_one_statistic_and_no_other(files, name):
    score("out.npy", want=[name])
    x, y = np.load("logits.npy"), np.load("targets.npy")
    rows = np.load("out.npy")
    assert rows.dtype.names == ("target", name)
    assert rows[name].tobytes() == klce.score(x, y, want=[name])[name].tobytes()


def test_the_summary_does_not_depend_on_what_is_wanted(files):
    plain = score("out.npy").summary
    assert score("out.npy", want=["margin"], top_k=2).summary == plain
    assert score_file("logits.npy", "targets.npy").summary == plain


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("options", [ALL, {"want": ["margin"], "top_k": 1}])
def test_resumed_is_as_uninterrupted(files, suffix, options):
    score(f"whole{suffix}", **options)
    with pytest.raises(Interrupted):
        score(f"parts{suffix}", block_rows=100, progress=stop_after(400), **options)
    assert score(f"parts{suffix}", resume=True, block_rows=70, **options).resumed_rows == 400
    assert (files / f"parts{suffix}").read_bytes() == (files / f"whole{suffix}").read_bytes()


@pytest.mark.parametrize(
    ("before", "change", "told"),
    [
        ({}, {"temperature": 1.0}, r"--temperature was 1\.7"),
        ({}, {"top_k": 3}, "--top-k was 4"),
        ({}, {"candidates": (3, 1)}, "--candidates was 3,0"),
        ({}, {"candidates": "c.npy"}, "--candidates was 3,0"),
        ({}, {"candidates": None}, "--candidates was given"),
        ({"candidates": None}, {}, "--candidates was not given"),
        ({"candidates": "c.npy"}, {}, r"--candidates was /.*/c\.npy"),
        ({"candidates": "c.npy"}, {"candidates": "c.npy"}, "--candidates has changed since"),
        ({"want": ["nll"]}, {}, r"its rows have other columns \(--want\)"),
    ],
)
def test_another_run_is_not_resumed(files, before, change, told):
    np.save("c.npy", [3, 0])
    with pytest.raises(Interrupted):
        score("out.npy", block_rows=100, progress=stop_after(400), **ALL | before)
    np.save("c.npy", [3, 1])
    with pytest.raises(InputError, match=rf"the interrupted run was another: {told}[^,]*; start"):
        score("out.npy", resume=True, **ALL | change)


def test_what_results_do_not_have_may_change_when_resumed(files):
    score("whole.npy", want=["rank", "nll"])
    with pytest.raises(Interrupted):
        score("out.npy", block_rows=100, progress=stop_after(400), want=["nll"])
    assert score("out.npy", resume=True, want=["rank", "nll"]).resumed_rows == 400
    assert (files / "out.npy").read_bytes() == (files / "whole.npy").read_bytes()


@pytest.mark.parametrize("shape", [(1000, 20), (20, 50, 20)])
def test_candidates_of_all_rows_and_of_each(files, shape):
    x = np.load("logits.npy").reshape(shape)
    np.save("x.npy", x)
    each = np.random.default_rng(1).integers(0, 20, (*shape[:-1], 3))
    for candidates in (np.array([7, 7, 1]), each):
        np.savez("c.npz", candidates=candidates.astype(np.uint8), other=each)
        score_file("x.npy", out="out.npy", want=(), candidates="c.npz", block_rows=33)
        rows = np.load("out.npy")
        expected = klce.score(x, candidates=candidates)["candidate_log_probs"]
        assert rows.dtype.names == ("candidate_log_probs",)
        assert rows["candidate_log_probs"].tobytes() == expected.tobytes()


def test_dask(files):
    np.save("c.npy", np.random.default_rng(1).integers(0, 20, (1000, 2)))
    cluster = {"n_workers": 1, "threads_per_worker": 2, "processes": False}
    with distributed.LocalCluster(
        dashboard_address="localhost:0", scheduler_kwargs={"dashboard": False}, **cluster
    ) as found:
        for candidates in ((3, 0), "c.npy"):
            options = ALL | {"candidates": candidates}
            score("local.npy", **options)
            address = found.scheduler_address
            score("dask.npy", engine="dask", scheduler=address, block_rows=99, **options)
            assert (files / "dask.npy").read_bytes() == (files / "local.npy").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"want": ["nl"]}, "want must name statistics of nll, .*, got 'nl'"),
        ({"want": "nll"}, "want must be a collection of names, got the string 'nll'"),
        ({"want": 3}, "want must be a collection of names, got 3"),
        ({"want": []}, "want must name at least one statistic"),
        ({"top_k": 21}, "top_k must be from 0 to the 20 classes"),
        ({"temperature": 0}, "temperature must be from 1e-6 to 1e6, got 0"),
        ({"candidates": [2, 20]}, "candidates must hold class indices from 0 to 19, got 20 at 1$"),
        ({"candidates": [2**70]}, f"candidates must hold class .*, got {2**70} at 0$"),
        ({"candidates": [-1]}, "candidates must hold class .*, got -1 at 0$"),
        ({"candidates": ""}, "^candidates must name a file, got ''$"),
        ({"candidates": [0.5]}, "candidates must be a file or integers"),
        ({"candidates": []}, "at least one candidate"),
        (
            {"candidates": "logits.npy"},
            r"logits\.npy: candidates must hold integers, .* got float32",
        ),
        ({"candidates": "odd.npy"}, r"candidates of shape \(3, 2\) are neither"),
        (
            {"candidates": "high.npy"},
            r"high\.npy: candidates must hold class indices from 0 to 19, got 20 in row 7$",
        ),
        ({"out": None, "want": ["nll"]}, "want needs a file for the results"),
        ({"out": None, "top_k": 2}, "top_k needs a file for the results"),
        ({"out": None, "candidates": [2]}, "candidates needs a file for the results"),
    ],
)
def test_refused(files, options, message):
    np.save("odd.npy", np.zeros((3, 2), int))
    np.save("high.npy", np.where(np.arange(2000).reshape(1000, 2) == 15, 20, 0))
    before = sorted(files.iterdir())
    with pytest.raises(InputError, match=message) as caught:
        score_file("logits.npy", "targets.npy", **{"out": "out.npy"} | options)
    assert isinstance(caught.value, LabelError) == ("must hold class" in str(caught.value))
    assert sorted(files.iterdir()) == before


def test_columns_of_a_base_file_alone_are_no_results(tmp_path):
    """It has labels, so that rows would have ``target`` and what is cut off."""
    with pytest.raises(InputError, match=r"^want must name at least one statistic, got none$"):
        score_file(BASE, out=tmp_path / "out.npy", want=())
    assert not [*tmp_path.iterdir()]
    score_file(BASE, out=tmp_path / "out.npy", want=(), top_k=1)
    names = np.load(tmp_path / "out.npy").dtype.names
    assert names == ("target", "top_ids", "top_log_probs", "floor_classes", "saturated")


def test_a_statistic_of_labels_needs_them(files):
    for name in ("nll", "rank", "greedy_match"):
        with pytest.raises(InputError, match=f"want must not name '{name}' without a target"):
            score_file("logits.npy", out="out.npy", want=[name])


def test_a_wide_result_stays_within_the_memory(files):
    few = {"memory": 100_000, "top_k": 20, "candidates": range(20)}
    score("few.npy", **few)
    score("all.npy", **few | {"memory": 1 << 28})
    assert (files / "few.npy").read_bytes() == (files / "all.npy").read_bytes()


def test_groups_of_a_file_do_not_grow_with_the_columns(files, monkeypatch):
    monkeypatch.setattr("klce.scoring.results._BYTES_IN_GROUP", 20_000)
    score("out.parquet", top_k=20, want=())
    groups = pq.ParquetFile("out.parquet").metadata
    assert max(groups.row_group(i).num_rows for i in range(groups.num_row_groups)) < 100
    assert sum(groups.row_group(i).num_rows for i in range(groups.num_row_groups)) == 1000
