import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

import klce
from klce import cli
from klce.scoring import (
    columns,
    compare_columns,
    distribution,
    journal,
    score_file,
    scratch,
    tables,
)
from klce.scoring.inputs import Logits
from klce.scoring.results import CsvWriter

LM = Path(__file__).parents[1] / "examples" / "lm"


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Work in a folder with logits.npy (60 rows, 5 classes) and targets.npy."""
    rng = np.random.default_rng(1)
    np.save(tmp_path / "logits.npy", (3 * rng.standard_normal((60, 5))).astype(np.float32))
    np.save(tmp_path / "targets.npy", rng.integers(0, 5, 60))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments):
    """Run the command line in this process."""
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments], prog_name="klce")


def run_process(*arguments, code=None, **options):
    start = ["-m", "klce"] if code is None else ["-c", code]
    command = [sys.executable, *start, *map(str, arguments)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": 60} | options
    return subprocess.run(command, text=True, check=False, **options)


def expect_error(result, message):
    assert result.stdout == ""
    assert re.fullmatch(r"klce: [^\n]*\n", result.stderr)
    assert re.search(message, result.stderr)


# --- what it prints -------------------------------------------------------------------------------


def cells(stdout):
    """Return the table as a dict: label -> the words after it, of as many lines as it has."""
    rows, label = {}, None
    for line in stdout.splitlines()[1:]:
        words = re.split(r"\s{2,}", line.strip())
        if words[0].startswith("─"):
            continue
        label = words.pop(0) if line.startswith("  ") and line[2] != " " else label
        rows.setdefault(label, []).extend(words)
    return rows


def test_table(files):
    result = run("score", "logits.npy", "targets.npy")
    assert (result.exit_code, result.stderr) == (0, "")
    table = cells(result.stdout)
    assert list(table) == [
        "rows", "classes", "skipped rows",
        "mean NLL", "perplexity", "accuracy", "calibration error", "mean entropy", "speed",
    ]  # fmt: skip
    assert table["rows"] == ["60"]
    assert table["classes"] == ["5"]
    assert table["skipped rows"] == ["0", "ignore_index -100"]
    report = json.loads(run("score", "logits.npy", "targets.npy", "--json").stdout)
    assert table["mean NLL"] == [
        f"{report['mean_nll_nats']:#.5g}", f"± {report['mean_nll_nats_error']:.2g} nats",
        f"{report['mean_nll_bits']:#.5g}", "bits",
    ]  # fmt: skip
    assert table["perplexity"] == [
        f"{report['perplexity']:#.5g}", f"± {report['perplexity_error']:.2g}"
    ]  # fmt: skip
    assert table["accuracy"] == [
        f"{100 * report['accuracy']:.2f}", f"± {100 * report['accuracy_error']:.2g} %"
    ]  # fmt: skip
    assert table["calibration error"] == [
        f"{100 * report['expected_calibration_error']:.2f}", "%, expected"
    ]  # fmt: skip
    assert table["mean entropy"][1] == f"± {report['mean_entropy_nats_error']:.2g} nats"
    assert table["mean entropy"][::2] == [
        f"{report['mean_entropy_nats']:#.5g}", f"{report['mean_entropy_bits']:#.5g}"
    ]  # fmt: skip
    assert table["speed"][1::2] == ["rows/s", "GB/s"]
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_table_without_labels(files):
    result = run("score", "logits.npy")
    assert list(cells(result.stdout)) == [
        "rows", "classes", "mean entropy", "mean log-sum-exp", "speed"
    ]  # fmt: skip


def test_what_takes_the_rows_is_told_where_they_are_kept(files):
    np.save("logits.npy", np.random.default_rng(1).normal(size=(60, 9)))
    arguments = ("score", "logits.npy", "targets.npy")
    table = cells(run(*arguments, "--out", "out.npy").stdout)
    report = json.loads(run(*arguments, "--out", "out.npy", "--json").stdout)
    rank = np.load("out.npy")["rank"]
    assert report["top_accuracy"] == {f"{k}": np.mean(rank <= k) for k in (1, 2, 3, 5)}
    assert table["accuracy of the top 5"] == [f"{100 * np.mean(rank <= 5):.2f}", "%"]
    of_rows = ("top_accuracy", "nll_quantiles", "entropy_quantiles")
    paged = json.loads(run(*arguments, "--report", "r.html", "--json").stdout)
    assert {name: paged[name] for name in of_rows} == {name: report[name] for name in of_rows}
    plain = json.loads(run(*arguments, "--json").stdout)
    assert [plain[name] for name in of_rows] == [None, None, None]
    assert plain["expected_calibration_error"] == report["expected_calibration_error"] > 0
    unlabelled = json.loads(run(*arguments[:2], "--no-targets", "-o", "o.npy", "--json").stdout)
    assert unlabelled["expected_calibration_error"] is unlabelled["top_accuracy"] is None
    assert unlabelled["nll_quantiles"] is None
    assert unlabelled["entropy_quantiles"] == report["entropy_quantiles"]


def test_table_names_the_file_as_it_is(files):
    (files / "logits.npy").rename("[bold]x[red].npy")
    assert "[bold]x[red].npy" in run("score", "[bold]x[red].npy").stdout


def test_a_dtype_is_shown_as_it_is(files):
    np.save("times.npy", np.zeros(3, "datetime64[ns]"))
    assert "datetime64[ns]" in run("info", "times.npy").stdout


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f8"])
def test_json_is_a_float64_computation(files, dtype):
    logits = np.load("logits.npy").astype(dtype)
    np.save("logits.npy", logits)
    targets = np.load("targets.npy")
    targets[7:9] = -1
    np.save("targets.npy", targets)
    result = run(
        "score", "logits.npy", "targets.npy", "--ignore-index", -1, "--json", "--out", "out.csv"
    )
    assert result.exit_code == 0
    report = json.loads(result.stdout)

    x, kept = logits.astype(np.float64), targets != -1
    logsumexp = np.log(np.exp(x).sum(-1))
    log_p = x - logsumexp[:, None]
    nlls = -log_p[np.arange(60), targets][kept]
    entropies = -(np.exp(log_p) * log_p).sum(-1)[kept]
    right = (logits.argmax(-1) == targets)[kept]
    nll, entropy = nlls.mean(), entropies.mean()

    sure = np.exp(log_p.max(-1))[kept]
    gaps = [
        abs(right[some].sum() - sure[some].sum())
        for some in ((sure * 15).astype(int).clip(0, 14) == i for i in range(15))
    ]
    rank = (x >= x[np.arange(60), targets][:, None]).sum(-1)[kept]

    def quantiles(values):
        found = np.quantile(values, distribution.QUANTILES)
        names = (f"{fraction:g}" for fraction in distribution.QUANTILES)
        near = (pytest.approx(value, rel=1e-5, abs=1e-7) for value in found)
        return dict(zip(names, near, strict=True))

    def error(values):
        return pytest.approx(values.std(ddof=1) / 58**0.5, rel=1e-5)

    speed = ("seconds", "rows_per_second", "gigabytes_per_second")
    assert all(report.pop(name) > 0 for name in speed)
    assert report == {
        "logits": "logits.npy",
        "targets": "targets.npy",
        "out": "out.csv",
        "groups": None,
        "bytes": None,
        "words": None,
        "want": None,
        "top_k": 0,
        "candidates": None,
        "sequences_out": None,
        "report": None,
        "shape": [60, 5],
        "dtype": logits.dtype.name,
        "computed_in": "float64" if logits.itemsize == 8 else "float32",
        "rows": 60,
        "resumed_rows": 0,
        "classes": 5,
        "ignore_index": -1,
        "engine": "local",
        "isas": [klce.get_config()["isa"]],
        "temperature": 1.0,
        "ignored_rows": 2,
        "nan_rows": 0,
        "first_nan_row": None,
        "counted_rows": 58,
        "infinite_nll_rows": 0,
        "infinite_logsumexp_rows": 0,
        "saturated_rows": None,
        "floor_classes": None,
        "mean_nll_nats": pytest.approx(nll, rel=1e-6),
        "mean_nll_nats_error": error(nlls),
        "mean_nll_bits": pytest.approx(nll / np.log(2), rel=1e-6),
        "perplexity": pytest.approx(np.exp(nll), rel=1e-6),
        "perplexity_error": error(np.exp(nll) * nlls),
        "accuracy": np.mean(right),
        "accuracy_error": error(right),
        "expected_calibration_error": pytest.approx(sum(gaps) / 58, rel=1e-5),
        "top_accuracy": {f"{k}": np.mean(rank <= k) for k in (1, 2, 3, 5)},
        "mean_entropy_nats": pytest.approx(entropy, rel=1e-6),
        "mean_entropy_nats_error": error(entropies),
        "mean_entropy_bits": pytest.approx(entropy / np.log(2), rel=1e-6),
        "mean_logsumexp": pytest.approx(logsumexp[kept].mean(), rel=1e-6),
        "nll_quantiles": quantiles(nlls),
        "entropy_quantiles": quantiles(entropies),
    }


def test_json_names_what_the_run_was_asked(files):
    np.save("groups.npy", np.repeat([1, 2], 30))
    np.save("lengths.npy", [10, 20])
    np.save("ids.npy", [0, 3])
    common = ("--groups", "groups.npy", "--want", "nll", "--want", "rank,margin", "-o", "out.npy")
    arguments = (
        "score", "logits.npy", "targets.npy", *common, "--bytes", "lengths.npy", "--words",
        "lengths.npy", "--sequences", "s.csv", "--report", "r.html", "--top-k", 2, "--json",
    )  # fmt: skip
    report = json.loads(run(*arguments, "--candidates", "3,1").stdout)
    asked = {
        "groups": "groups.npy", "bytes": "lengths.npy", "words": "lengths.npy", "top_k": 2,
        "want": ["nll", "rank", "margin"], "candidates": [3, 1], "sequences_out": "s.csv",
        "report": "r.html", "sequences": 2, "resumed_rows": 0,
    }  # fmt: skip
    assert {name: report[name] for name in asked} == asked
    report = json.loads(run(*arguments, "--candidates", "ids.npy").stdout)
    assert report["candidates"] == "ids.npy"

    compare = ("compare", LM / "base.kld", LM / "q4_logits.npy", "--json")
    found = json.loads(
        run(*compare, "--want", "rank_p", "--report", "r.html", "-o", "o.npy").stdout
    )
    assert found["groups"] == f"{LM / 'base.kld'}::groups"
    assert (found["want"], found["report"], found["compat"]) == (["rank_p"], "r.html", None)
    assert json.loads(run(*compare, "--no-groups").stdout)["groups"] is None
    assert json.loads(run(*compare, "--compat", "llama.cpp").stdout)["compat"] == "llama.cpp"


def test_resumed_rows_are_told(files):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_file("logits.npy", "targets.npy", out="out.npy", block_rows=20, progress=stop)
    arguments = ("score", "logits.npy", "targets.npy", "--out", "out.npy", "--resume")
    table = cells(run(*arguments).stdout)
    assert table["resumed rows"] == ["20", "of the interrupted run"]


def test_json_holds_no_nan_and_no_infinity(files):
    np.save("logits.npy", np.array([[0.0, -np.inf], [1e4, 0]]))
    np.save("targets.npy", np.array([1, 0]))
    report = json.loads(
        run("score", "logits.npy", "targets.npy", "--json").stdout, parse_constant=pytest.fail
    )
    assert report["mean_nll_nats"] is None
    assert report["infinite_nll_rows"] == 1
    table = cells(run("score", "logits.npy", "targets.npy").stdout)
    assert table["rows of infinite NLL"] == ["1", "target of probability 0"]
    assert table["mean NLL"] == ["inf", "nats", "inf", "bits"]
    np.save("logits.npy", np.array([[1e308, 0.0], [1, 0]]))
    arguments = ("score", "logits.npy", "--temperature", 1e-6)
    report = json.loads(run(*arguments, "--json").stdout, parse_constant=pytest.fail)
    assert (report["mean_logsumexp"], report["infinite_logsumexp_rows"]) == (None, 1)
    assert cells(run(*arguments).stdout)["rows of infinite log-sum-exp"][0] == "1"


@pytest.mark.parametrize("rows", [[3], [3, 7]])
def test_nan_rows_are_a_warning(files, rows):
    logits = np.load("logits.npy")
    logits[rows, 0] = np.nan
    np.save("logits.npy", logits)
    for option in ("--json", "--quiet"):
        result = run("score", "logits.npy", "targets.npy", option)
        assert result.exit_code == 0
        count = "1 row gives" if len(rows) == 1 else "2 rows give"
        assert re.fullmatch(rf"klce: warning: {count} nan, first row 3; .*\n", result.stderr)
    report = json.loads(run("score", "logits.npy", "targets.npy", "--json").stdout)
    assert (report["nan_rows"], report["first_nan_row"]) == (len(rows), 3)
    table = cells(run("score", "logits.npy", "targets.npy").stdout)
    assert table["nan rows"] == [str(len(rows)), "not in the means"]


def test_no_rows(files):
    np.save("logits.npy", np.empty((0, 5)))
    np.save("targets.npy", np.empty(0, int))
    result = run("score", "logits.npy", "targets.npy")
    assert result.exit_code == 0
    assert cells(result.stdout)["perplexity"] == ["-"]


def test_quiet_prints_nothing_and_writes_the_results(files):
    result = run("score", "logits.npy", "targets.npy", "-q", "-o", "out.npy")
    assert (result.exit_code, result.output) == (0, "")
    assert np.load("out.npy").shape == (60,)
    assert json.loads(run("score", "logits.npy", "--quiet", "--json").stdout)["rows"] == 60


def test_help_and_version():
    for arguments in ([], ["--help"], ["-h"]):
        result = run(*arguments)
        assert result.exit_code == 0
        assert "score" in result.stdout
    both = ("--out", "--ignore-index", "--groups", "--memory", "--resume", "--json", "--quiet")
    for command, words in {
        "score": (
            "LOGITS",
            "TARGETS",
            "--want",
            "--top-k",
            "--candidates",
            "--temperature",
            "--bytes",
            "--words",
            "--sequences",
            "1e-6 to 1e6",
            "1024",
            *both,
        ),
        "compare": ("P", "Q", "TARGETS", "--want", "--temperature", "--report", "--compat", *both),
        "convert": ("IN", "OUT", "--tokens", "--cut", "--memory", "--quiet"),
        "info": ("FILE", "--json"),
    }.items():
        assert command in run("--help").stdout
        result = run(command, "--help")
        for word in words:
            assert word in result.stdout
    for command, shown in (("score", columns.SHOWN), ("compare", compare_columns.SHOWN)):
        text = " ".join(run(command, "--help").stdout.split())
        assert f"the summary and the page are made of: {', '.join(shown)}." in text
    assert run("--version").stdout == f"klce {klce.__version__}\n"


def test_sequences(files):
    np.save("groups.npy", [0, 20, 60])
    np.save("bytes.npy", [50, 60])
    result = run(
        "score", "logits.npy", "targets.npy", "--groups", "groups.npy", "--bytes", "bytes.npy",
        "--sequences", "sequences.jsonl",
    )  # fmt: skip
    assert (result.exit_code, result.stderr) == (0, "")
    table = cells(result.stdout)
    assert table["sequences"] == ["2"]
    lines = [json.loads(line) for line in (files / "sequences.jsonl").read_text().splitlines()]
    assert [line["tokens"] for line in lines] == [20, 40]
    total = sum(line["log_likelihood"] for line in lines)
    assert table["bits per byte"] == [f"{-total / np.log(2) / 110:#.5g}"]


def test_wanted(files):
    arguments = ("score", "logits.npy", "targets.npy", "--out", "out.csv", "--temperature", 2)
    wanted = ("--want", "margin, nll", "--want", "rank", "--top-k", 2, "--candidates", "4,0")
    assert run(*arguments, *wanted, "--quiet").output == ""
    heading = (files / "out.csv").read_text().splitlines()[0]
    assert heading == (
        "row,target,nll,margin,rank,candidate_log_probs_0,candidate_log_probs_1,"
        "top_ids_0,top_ids_1,top_log_probs_0,top_log_probs_1"
    )
    rows = np.genfromtxt("out.csv", delimiter=",", names=True)
    expected = klce.score(np.load("logits.npy"), np.load("targets.npy"), temperature=2)
    np.testing.assert_allclose(rows["nll"], expected.nll, rtol=1e-6)
    np.save("ids.npy", [4, 0])
    text = (files / "out.csv").read_text()
    assert run(*arguments, *wanted[:-1], "ids.npy", "--json").exit_code == 0
    assert (files / "out.csv").read_text() == text
    assert cells(run(*arguments[:3], "--temperature", 2).stdout)["temperature"] == ["2"]


def test_saturated_rows_are_named(files):
    table = cells(run("score", LM / "base.kld").stdout)
    assert table["saturated rows"] == ["0", "label cut off, NLL too small"]
    cut_off = table["classes cut off"]
    table = cells(run("compare", LM / "base.kld", LM / "base.kld").stdout)
    assert table["classes cut off in P"] == table["classes cut off in Q"] == cut_off
    assert table["saturated rows"] == ["0", "label cut off in P", "0", "label cut off in Q"]


def test_compare(files):
    arguments = ("compare", LM / "base.kld", LM / "q4_logits.npy")
    result = run(*arguments, "--out", "out.csv")
    assert (result.exit_code, result.stderr) == (0, "")
    report = json.loads(run(*arguments, "--json").stdout)
    table = cells(result.stdout)
    assert table["KL(P||Q)"][0] == f"{report['kl_divergence']['mean']:#.5g}"
    kl = report["kl_divergence"]
    assert table["KL(P||Q)"][1] == f"± {kl['error']:.2g}, ± {kl['clustered_error']:.2g} nats"
    assert table["sequences"] == ["3", "errors: by row, by sequence"]
    assert table["KL(P||Q)"][-2:] == [f"{report['kl_divergence_quantiles']['1']:#.5g}", "maximum"]
    assert table["perplexity of Q"] == [
        f"{report['perplexity_q']:#.5g}",
        f"± {report['perplexity_q_error']:.2g}, ± {report['perplexity_q_clustered_error']:.2g}",
    ]  # fmt: skip
    assert table["Q's / P's"][0] == f"{report['perplexity_ratio']:#.5g}"
    difference = [report[f"perplexity_difference{which}_error"] for which in ("", "_clustered")]
    assert table["Q's - P's"][1] == ", ".join(f"± {error:.2g}" for error in difference)
    alone = cells(run(*arguments, "--no-groups").stdout)
    assert alone["KL(P||Q)"][1] == f"± {kl['error']:.2g} nats"
    assert "sequences" not in alone
    assert table["correlation of NLLs"][0] == f"{100 * report['nll_correlation']:.2f}"
    for of in "PQ":
        calibration_error = report[f"expected_calibration_error_{of.lower()}"]
        assert table[f"calibration error of {of}"] == [
            f"{100 * calibration_error:.2f}", "%, expected"
        ]  # fmt: skip
    assert table["its change, %"][-2:] == [
        f"{100 * report['target_prob_change_quantiles']['1']:#.5g}", "maximum"
    ]  # fmt: skip
    for fraction in report["kl_divergence_quantiles"].values():
        assert f"{fraction:#.5g}" in table["KL(P||Q)"]
    assert table["same argmax"][0] == "92.381"
    assert table["saturated rows"][0] == "0"
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert len((files / "out.csv").read_text().splitlines()) == 106
    options = ("--want", "rank_q,cross_entropy", "--temperature", 2, "--out", "out.csv")
    table = cells(run(*arguments, *options).stdout)
    assert table["temperature"] == ["2"]
    heading, *_ = (files / "out.csv").read_text().splitlines()
    assert heading == "row,target,cross_entropy,rank_q,floor_classes,saturated"
    table = cells(run(*arguments, "--top-k", 10).stdout)
    report = json.loads(run(*arguments, "--top-k", 10, "--json").stdout)
    assert table["in the top 10 of both"][0] == f"{report['top_overlap']['mean']:#.5g}"


@pytest.mark.parametrize(
    ("q", "output"),
    [("q4_logits", "q4_tool_output"), ("base_logits", "base_against_itself_tool_output")],
)
def test_compare_prints_what_llama_cpp_does(q, output):
    result = run("compare", LM / "base.kld", LM / f"{q}.npy", "--compat", "llama.cpp")
    assert result.stdout == (LM / f"{output}.txt").read_text()


def test_convert_and_info(files):
    assert run("convert", "logits.npy", "logits.parquet").output == ""
    report = json.loads(run("info", "logits.parquet", "--json").stdout)
    assert (report["rows"], report["classes"], report["why_not"]) == (60, 5, None)
    assert report["arrays"] == [
        {"name": "logits", "shape": [60, 5], "dtype": "float32", "bytes": 1200}
    ]
    text = " ".join(run("info", "logits.parquet").stdout.split())
    assert "to be scored: 60 rows of 5 classes of logits.parquet" in text
    assert "not to be scored: targets.npy: logits need" in " ".join(
        run("info", "targets.npy").stdout.split()
    )
    assert "3 chunks of 71 tokens" in run("info", LM / "base.kld").stdout


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("256MB", 256e6),
        ("1GiB", 2**30),
        ("64k", 64e3),
        ("2.5 mib", 2.5 * 2**20),
        ("1000", 1000),
        ("10TB", 10e12),
        ("1.5TiB", 1.5 * 2**40),
        ("-5MB", -5e6),
        (400 * "9", 10**400 - 1),
    ],
)
def test_sizes(text, size):
    assert cli._bytes(text) == size


# --- what it refuses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score", "missing.npy"], r"missing\.npy: No such file or directory"),
        (["score", "missing.txt"], r"missing\.txt: No such file or directory"),
        (["score", "logits.npy", "missing.npy"], r"missing\.npy: No such file or directory"),
        (["score", "empty"], "empty: no files there that klce reads"),
        (["score", "text.npy"], r"text\.npy: not a \.npy file"),
        (["score", "object.npy"], r"object\.npy: holds Python objects"),
        (["score", "complex.npy"], "dtype complex64 is not supported"),
        (["score", "scalar.npy"], "logits need 2 axes or more"),
        (["score", "targets.npy"], "logits need 2 axes or more"),
        (["score", "cut.npy"], r"cut\.npy: truncated"),
        (["score", "empty.npy"], "rows without classes"),
        (["score", "logits.npy", "short.npy"], r"labels of shape \(59,\) do not match"),
        (["score", "logits.npy", "logits.npy"], "labels must hold integers, .* got float32"),
        (["score", "logits.npy", "high.npy"], r"high\.npy: labels must hold .*, got 5 in row 33$"),
        (["score", "logits.npy", "low.npy"], r"low\.npy: labels must hold .*, got -1 in row 0$"),
        (["score", "logits.npy", "-o", "logits.npy"], "results would replace the input"),
        (["score", "logits.npy", "-o", "out.txt"], "not a file type that klce writes"),
        (["score", "logits.npy", "-o", "o.npy", "--candidates", "7,-1"],
         r"^klce: --candidates must hold class indices from 0 to 4, got 7 at 0$"),
        (["score", "logits.npy", "-o", "o.npy", "--candidates", "9223372036854775808,-1"],
         r"^klce: --candidates must hold .* from 0 to 4, got 9223372036854775808 at 0$"),
        (["score", "logits.npy", "-o", "o.npy", "--candidates", "high.npy"],
         r"^klce: high\.npy: candidates must hold class indices from 0 to 4, got 5 at 33$"),
        (["score", "logits.npy", "-o", "o.npy", "--candidates", "no.npy"], r"no\.npy: No such"),
        (["score", "logits.npy", "-o", "no/out.npy"], "there is no folder no"),
        (["score", "logits.npy", "--ignore-index", "x"], "'--ignore-index': 'x' is not a valid"),
        (["score", "logits.npy", "--top-k", "1.5"], r"--top-k.*: '1\.5' is not a valid integer"),
        (["score", "logits.npy", "--temperature", "x"], "temperature.*: 'x' is not a valid float"),
        (["compare", "logits.npy", "logits.npy", "--top-k", "x"], "'x' is not a valid integer"),
        (["score", "logits.npy", "--frobnicate"], "--frobnicate"),
        (["score", "logits.npy", "targets.npy", "more.npy"], "more.npy.*a pattern .* in quotes"),
        (["score", "logits.npy", "-o", "o.npy", "--want", "nl"], "^klce: --want must name statis"),
        (["score", "logits.npy", "-o", "o.npy", "--want", ","], "^klce: --want must name at least"),
        (["score", "logits.npy", "--top-k", 2], "^klce: --top-k needs a file"),
        (
            ["score", "logits.npy", "-o", "o.npy", "--candidates", "1,a"],
            "^klce: --candidates must be class indices, such as 3,17, or a file, got '1,a'",
        ),
        (["score", "logits.npy", "--temperature", 0], "^klce: --temperature must be from 1e-6"),
        (
            ["score", "logits.npy", "--ignore-index", 2**63],
            "^klce: --ignore-index must fit in int64",
        ),
        (["score", "logits.npy", "--sequences", "s.npy"], "^klce: --sequences needs --groups: "),
        (["score", "logits.npy", "--bytes", "targets.npy"], "^klce: --bytes needs --groups: wi"),
        (["score", "logits.npy", "--scheduler", "a:1"], "^klce: --scheduler a:1 needs the engine"),
        (["score", "logits.npy", "--scheduler", ""], "an empty address names no scheduler, got ''"),
        (["score", "logits.npy", "--engine", "x"], "^klce: --engine must be local or dask, got x"),
        (["score", "logits.npy", "--out", ""], "'--out'.*: an empty path names no file, got ''"),
        (["score", "logits.npy", "--report", ""], "an empty path names no file, got ''"),
        (["score", "logits.npy", "--sequences", ""], "an empty path names no file, got ''"),
        (
            ["score", "logits.npy", "--report", "r.html/"],
            "^klce: r.html/: a slash at the end names a",
        ),
        (
            ["score", "logits.npy", "--sequences", "s.csv/"],
            "^klce: s.csv/: a slash at the end names a folder, not a file for results$",
        ),
        (
            ["compare", "logits.npy", "logits.npy", "--report", "r.html/"],
            "^klce: r.html/: a slash at the end names a folder, not a file for results$",
        ),
        (["score", ""], "'LOGITS'.*: an empty path names no file, got ''"),
        (["score", "logits.npy", ""], "TARGETS.*: an empty path names no file, got ''"),
        (["score", "logits.npy", "--groups", ""], "'--groups'.*: an empty path names no file"),
        (["score", "logits.npy", "--bytes", ""], "'--bytes'.*: an empty path names no file"),
        (["score", "logits.npy", "--words", ""], "'--words'.*: an empty path names no file"),
        (["score", "logits.npy", "--candidates", ""], "'--candidates'.*: an empty path names no"),
        (["compare", "logits.npy", ""], "'Q': an empty path names no file"),
        (["compare", "logits.npy", "logits.npy", ""], "TARGETS.*: an empty path names no file"),
        (["compare", "logits.npy", "logits.npy", "--want", "nll_p", "-o", "o.npy"],
         "^klce: --want must not name 'nll_p' without a target$"),
        (["compare", "logits.npy", "logits.npy", "--want", "top_overlap", "-o", "o.npy"],
         "^klce: --want must not name 'top_overlap' without --top-k$"),
        (["score", "logits.npy", "targets.npy", "--groups", "targets.npy", "--sequences", "s/"],
         "^klce: s/: a slash at the end names a folder, not a file for results$"),
        (["score", "logits.npy", "targets.npy", "--groups", "targets.npy", "--sequences", "s"],
         r"^klce: s: not a file type that klce writes results to \(.*\)$"),
        (["score"], r"Missing argument 'LOGITS' \(see klce score --help\)$"),
        (["score", "x.npy", "--top-k", "x"], r"is not a valid integer \(see klce score --help\)$"),
        (["scores"], r"'scores'.* \(see klce --help\)$"),
    ],
)  # fmt: skip
def test_errors_are_one_line(files, arguments, message):
    (files / "text.npy").write_text("1 2 3\n")
    np.save("object.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    (files / "empty").mkdir()
    np.save("complex.npy", np.ones((3, 2), np.complex64))
    np.save("scalar.npy", 1.0)
    np.save("empty.npy", np.ones((3, 0)))
    (files / "cut.npy").write_bytes((files / "logits.npy").read_bytes()[:500])
    targets = np.load("targets.npy")
    np.save("short.npy", targets[:-1])
    np.save("high.npy", np.where(np.arange(60) == 33, 5, targets))
    np.save("low.npy", np.where(np.arange(60) == 0, -1, targets))
    before = sorted(files.iterdir())

    result = run(*arguments, "--json") if len(arguments) > 1 else run(*arguments)
    assert result.exit_code == 2
    expect_error(result, message)
    assert sorted(files.iterdir()) == before


@pytest.mark.parametrize(
    ("command", "message", "typed"),
    [
        ("score", "words_file needs groups: without them", "--words needs --groups: without them"),
        ("score", "top_k needs a file, got 2", "--top-k needs a file, got 2"),
        ("compare", "want must not name 'top_overlap' without top_k",
         "--want must not name 'top_overlap' without --top-k"),
        ("compare", "scheduler a:1 needs the engine dask", "--scheduler a:1 needs the engine dask"),
        ("convert", "cut belongs to .kld files", "--cut belongs to .kld files"),
        ("convert", "top_k must be 2", None),  # which it has not
        ("score", "block_rows must be at least 1, got 0", None),
        ("score", "targets must be a path", None),
        ("score", "report 1.npy: logits need 2 axes or more", None),
        ("score", "want must not name 'nll' without a target", "--want must not name 'nll' without "
         "a target"),
    ],
)  # fmt: skip
def test_parameters_have_the_names_that_are_typed(command, message, typed):
    with click.Context(cli.app.commands[command]):
        assert cli._as_typed(message) == (typed or message)


def test_a_bug_is_not_dressed_as_a_user_error(files, monkeypatch):
    def broken(*args, **options):
        raise RuntimeError("broken")

    monkeypatch.setattr(cli, "score_file", broken)
    assert isinstance(run("score", "logits.npy").exception, RuntimeError)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "logits.npy"], "Q"),
        (["compare", "logits.npy", "targets.npy"], "logits need 2 axes or more"),
        (["compare", "logits.npy", "logits.npy", "--compat", "x"], "compat must be llama.cpp"),
        (["compare", "logits.npy", "logits.npy", "--report", "x.txt"], "ends in .html"),
        (["compare", "logits.npy", "logits.npy", "--resume"], "resume needs a file"),
        (["score", "logits.npy", "--memory", "lots"], "'lots' is not a size, such as 256MB"),
        (
            ["score", "logits.npy", "--memory", "0"],
            "^klce: --memory must be at least 1 byte, got 0",
        ),
        (
            ["score", "logits.npy", "--memory", "-5kB"],
            "--memory must be at least 1 byte, got -5000",
        ),
        (["convert", "", "x.npy"], "'IN': an empty path names no file, got ''"),
        (["convert", "logits.npy", "x.kld", "--tokens", ""], "'--tokens'.*: an empty path names"),
        (["info", ""], "'FILE': an empty path names no file, got ''"),
        (["convert", "logits.npy", ""], "an empty path names no file, got ''"),
        (["convert", "logits.npy", "x.npy/"], "^klce: x.npy/: a slash at the end names a folder"),
        (["score", "logits.npy", "--groups", "targets.npy"], "groups need labels"),
        (["convert", "logits.npy", "x.txt"], "not a file type that klce converts to"),
        (["convert", "logits.npy", "x.kld"], "holds the tokens too"),
        (["convert", "logits.npy", "logits.npy"], "would replace the input"),
        (["info", "missing.npy"], "missing.npy: No such file"),
        (["info", "text.npy"], "not a .npy file"),
        (["info", "memory://x.npy"], "memory://x.npy: No such file or directory"),
        (["score", "base.kld"], r"base.kld: truncated"),
    ],
)
def test_errors_of_the_other_commands(files, arguments, message):
    (files / "text.npy").write_text("1 2 3\n")
    (files / "base.kld").write_bytes((LM / "base.kld").read_bytes()[:9999])
    before = sorted(files.iterdir())
    result = run(*arguments)
    assert result.exit_code == 2
    expect_error(result, message)
    assert sorted(files.iterdir()) == before


def test_a_warning_is_one_line_too(files, monkeypatch):
    def warned(*arguments, **options):
        warnings.warn("chunks\nare large", stacklevel=2)
        return real(*arguments, **options)

    real = cli.file_info
    monkeypatch.setattr(cli, "file_info", warned)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        result = run("info", "logits.npy")
    assert (result.exit_code, result.stderr) == (0, "klce: warning: chunks are large\n")


# --- as a process ---------------------------------------------------------------------------------


def test_process(files):
    done = run_process("score", "logits.npy", "targets.npy", "--json", "--out", "out.npy")
    assert (done.returncode, done.stderr) == (0, "")
    inside = json.loads(run("score", "logits.npy", "targets.npy", "--json").stdout)
    assert json.loads(done.stdout)["mean_nll_nats"] == inside["mean_nll_nats"]
    assert len(np.load("out.npy")) == 60


def test_process_error(files):
    done = run_process("score", "missing.npy")
    assert done.returncode == 2
    expect_error(done, r"missing\.npy: No such file or directory")


@pytest.mark.parametrize("module", ["click", "rich"])
def test_process_without_the_extra_says_how_to_install_it(module):
    code = f"import sys; sys.modules[{module!r}] = None; from klce.__main__ import main; main()"
    done = run_process("score", "x.npy", code=code)
    assert done.returncode == 2
    expect_error(done, rf"needs {module}: pip install 'klce\[cli\]'")


@pytest.mark.parametrize(("name", "value"), [("KLCE_ISA", "foo"), ("KLCE_NUM_THREADS", "x")])
@pytest.mark.parametrize("installed", [False, True])
def test_process_in_a_bad_environment(files, name, value, installed):
    code = None
    if installed:  # as the script that pip writes does
        code = "import sys; sys.argv[0] = '/bin/klce'; from klce.__main__ import main; main()"
    done = run_process("info", "logits.npy", code=code, env=os.environ | {name: value})
    assert done.returncode == 2
    expect_error(done, f"{name}.*{value!r}")


def test_the_source_folder_without_its_compiled_part(files):
    here = Path(klce.__file__).parent
    shutil.copytree(here, files / "klce", ignore=shutil.ignore_patterns("*.so", "*.pyd"))
    # An editable install knows where the compiled part is.
    code = (
        "import sys; sys.path.insert(0, ''); "
        "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f)]; "
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for rest, status in [
        ("import klce", 1),
        ("import runpy; sys.argv[0] = '-m'; sys.orig_argv = ['klce']; runpy.run_module('klce')", 2),
        ("sys.argv[0] = '-m'; import klce", 1),  # of another package
    ]:
        done = run_process(code=code + rest, env=environment)
        assert done.returncode == status
        last = done.stderr.splitlines()[-1]
        assert f"{files / 'klce'}: this is the source folder of klce, without its compiled" in last


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "cp1252"},
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
@pytest.mark.parametrize("options", [["--compat", "llama.cpp"], ["--top-k", "2"], ["--help"]])
def test_process_whose_stdout_has_few_characters(files, environment, options):
    encoding = environment.get("PYTHONIOENCODING", "ascii")
    arguments = ["compare", LM / "base.kld", LM / "q4_logits.npy", *options]
    done = run_process(*arguments, env=os.environ | environment, encoding=encoding)
    assert (done.returncode, done.stderr) == (0, "")
    if "--compat" in options:
        expected = (LM / "q4_tool_output.txt").read_text()
        assert done.stdout == expected.encode(encoding, "replace").decode(encoding)


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS takes no such name")
def test_names_that_are_no_utf_8(files):
    name = os.fsdecode(b"b\xff.npy")
    shutil.copy("logits.npy", name)
    arguments = ["score", name, "targets.npy"]
    done = run_process(*arguments, "--report", "r.html", env=os.environ | {"PYTHONUTF8": "1"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0].strip() == "b?.npy"
    assert r"b\udcff.npy" in (files / "r.html").read_text(encoding="utf-8")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a file that is always full")
@pytest.mark.parametrize("arguments", [["info", "logits.npy"], ["score", "logits.npy", "--json"],
                                       ["--help"], ["--version"]])  # fmt: skip
def test_process_that_cannot_print(files, arguments):
    with open("/dev/full", "w") as full:
        done = run_process(*arguments, stdout=full)
    assert (done.returncode, done.stderr) == (2, "klce: stdout: No space left on device\n")


@pytest.mark.parametrize("arguments", [["info", "logits.npy"], ["info", "logits.npy", "--json"],
                                       ["score", "logits.npy"], ["score", "logits.npy", "--json"],
                                       ["--help"], ["--version"]])  # fmt: skip
def test_process_whose_reader_has_gone(files, arguments):
    read, write = os.pipe()
    os.close(read)
    done = run_process(*arguments, stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [["info", "logits.npy"], ["info", "logits.npy", "--json"],
                                       ["score", "logits.npy", "--out", "a.csv"],
                                       ["score", "logits.npy", "--quiet", "--json"],
                                       ["compare", "logits.npy", "logits.npy"],
                                       ["--help"], ["--version"]])  # fmt: skip
def test_process_without_stdout(files, arguments):
    done = run_process(*arguments, stdout=None, preexec_fn=lambda: os.close(1))
    assert (done.returncode, done.stderr) == (2, "klce: stdout: is closed\n")
    assert not (files / "a.csv").exists()


@pytest.mark.parametrize(
    "arguments", [["score", "logits.npy", "--quiet", "--out"], ["convert", "logits.npy"]]
)
def test_process_that_needs_no_stdout(files, arguments):
    done = run_process(*arguments, "a.npy", stdout=None, preexec_fn=lambda: os.close(1))
    assert (done.returncode, done.stderr) == (0, "")
    assert (files / "a.npy").exists()


@pytest.mark.parametrize(
    ("arguments", "status"), [(["info", "logits.npy"], 0), (["info", "nothing.npy"], 2)]
)
def test_process_without_stderr(files, arguments, status):
    done = run_process(*arguments, preexec_fn=lambda: os.close(2))
    assert (done.returncode, "nothing" in done.stdout) == (status, False)
    out = ["--out", "a.csv"]
    assert (
        run_process("score", *arguments[1:], *out, preexec_fn=lambda: os.close(2)).returncode
        == status
    )


def test_import_klce_does_not_load_the_command_line():
    code = "import klce, sys; print({'click', 'rich', 'klce.cli', 'klce.scoring'} & {*sys.modules})"
    assert run_process(code=code).stdout == "set()\n"


@pytest.mark.parametrize("command", ["score", "convert"])
@pytest.mark.parametrize("name", ["out.npy", "out.csv", "out.jsonl", "out.parquet", "out.arrow"])
def test_process_on_a_full_disk(files, name, command):
    np.save("logits.npy", np.random.default_rng(0).normal(size=(10_000, 2)))
    if command == "convert" and name in ("out.csv", "out.jsonl"):
        name = "out.kld"
        np.save("tokens.npy", np.zeros((1, 20_001), int))
        arguments = ["convert", "logits.npy", name, "--tokens", "tokens.npy"]
    else:
        arguments = ["score", "logits.npy", "--out", name]
        arguments = arguments if command == "score" else ["convert", "logits.npy", name]
    code = """
import resource
from klce import cli
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
cli.app(prog_name="klce")
"""
    done = run_process(*arguments, code=code)
    assert done.returncode == 2
    if command == "convert":
        expect_error(done, rf"{name}: File too large")
        assert not [path for path in files.iterdir() if "out" in path.name]
        return
    # The rows that it took are kept, though not under the name of the results.
    kept = rf"1,\d\d\d of 10,000 rows are finished; go on with: klce .* --out {name} --resume"
    again = run_process(*arguments, "--resume", code=code)  # where there is no room still
    for full in (done, again):
        expect_error(full, rf"{name}: File too large; {kept}")
    assert not (files / name).exists()
    result = run(*arguments, "--resume", "--quiet")
    assert (result.exit_code, result.output) == (0, "")
    assert run("score", "logits.npy", "--out", f"whole_{name}").exit_code == 0
    assert (files / name).read_bytes() == (files / f"whole_{name}").read_bytes()
    assert not [path for path in files.iterdir() if path.name.startswith(".")]


def disk_full(*arguments):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_is_full_for_the_last_file(files, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(CsvWriter, "write", disk_full)
        result = run("score", "logits.npy", "--out", "out.csv")
    assert result.exit_code == 2
    advice = "60 of 60 rows are finished; free space and go on with: klce .*--resume"
    expect_error(result, rf"out\.csv: No space left on device; {advice}")
    assert not (files / "out.csv").exists()
    assert run("score", "logits.npy", "--out", "out.csv", "--resume").exit_code == 0


def out_of_memory(*arguments):
    raise MemoryError("Unable to allocate 9 GiB")


def test_a_lack_of_memory_is_one_line(files, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(CsvWriter, "write", out_of_memory)
        result = run("score", "logits.npy", "--out", "out.csv")
    assert result.exit_code == 2
    advice = "a smaller --memory may help; 60 of 60 rows are finished; go on with: klce .*--resume"
    expect_error(result, rf"^klce: out of memory: Unable to allocate 9 GiB; {advice}$")
    assert run("score", "logits.npy", "--out", "out.csv", "--resume").exit_code == 0
    monkeypatch.setattr(cli, "file_info", out_of_memory)  # which takes no --memory
    result = run("info", "logits.npy")
    assert result.exit_code == 2
    expect_error(result, "^klce: out of memory: Unable to allocate 9 GiB$")


@pytest.mark.parametrize("module", [journal, distribution])
def test_a_full_folder_of_temporary_files_is_named(files, monkeypatch, module):
    def scratch_file():
        with scratch.scratch_errors():
            return open("/dev/full", "wb")

    monkeypatch.setattr(module, "scratch_file", scratch_file)
    monkeypatch.setattr(tempfile, "tempdir", str(files))
    result = run("compare", "logits.npy", "logits.npy")
    assert result.exit_code == 2
    expect_error(result, f"{files}: No space left on device for temporary files; TMPDIR can name")


@pytest.mark.parametrize(
    ("arguments", "out"),
    [
        (["score", "logits.npy", "-o", "out.npy", "--report"], "folder/r.html"),
        (["score", "logits.npy", "targets.npy", "--groups", "targets.npy", "--sequences"],
         "folder/s.csv"),
        (["compare", "logits.npy", "logits.npy", "--report"], "folder/r.html"),
        (["convert", "logits.npy"], "folder/x.zarr"),
    ],
)  # fmt: skip
def test_an_output_that_cannot_be_written_is_found_first(files, monkeypatch, arguments, out):
    (files / "folder").symlink_to("/proc")  # which takes no file, of root neither
    monkeypatch.setattr(Logits, "block", pytest.fail)
    before = sorted(files.iterdir())
    result = run(*arguments, out)
    assert result.exit_code == 2
    expect_error(result, rf"{out}: No such file or directory")
    assert sorted(files.iterdir()) == before


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize(
    ("arguments", "out"),
    [
        (["score", "logits.npy", "-o"], "r.csv"),
        (["score", "logits.npy", "targets.npy", "--report"], "r.html"),
        (["score", "logits.npy", "targets.npy", "--groups", "targets.npy", "--sequences"], "s.csv"),
        (["compare", "logits.npy", "logits.npy", "-o"], "r.npy"),
        (["convert", "logits.npy"], "x.parquet"),
    ],
)
def test_pipes_and_devices_are_not_replaced(files, monkeypatch, arguments, out, link):
    if link:
        (files / out).symlink_to("/dev/null")
    else:
        os.mkfifo(out)
    monkeypatch.setattr(Logits, "block", pytest.fail)
    result = run(*arguments, out)
    assert result.exit_code == 2
    expect_error(result, f"^klce: {out}: is a pipe or a device, not a file for results$")
    assert not (files / out).is_file()


@pytest.mark.parametrize(
    ("arguments", "out"),
    [
        (["score", "logits.npy", "-o"], "r.csv"),
        (["score", "logits.npy", "-o"], "rows/"),
        (["score", "logits.npy", "--report"], "r.html"),
        (["score", "logits.npy", "-o", "out.npy", "--report"], "r.html"),
        (["score", "logits.npy", "targets.npy", "--groups", "targets.npy", "--sequences"], "s.csv"),
        (["convert", "logits.npy"], "x.parquet"),
        (["convert", "logits.npy"], "x.zarr"),
    ],
)
def test_links_that_lead_in_a_circle_are_named(files, monkeypatch, arguments, out):
    (files / out).symlink_to(out.rstrip("/"))
    monkeypatch.setattr(Logits, "block", pytest.fail)
    before = sorted(files.iterdir())
    result = run(*arguments, out)
    assert result.exit_code == 2
    expect_error(result, f"^klce: {out.rstrip('/')}: Too many levels of symbolic links$")
    assert sorted(files.iterdir()) == before


INTERRUPTED = """
import os, signal
from klce import cli
cli.ProgressBar.update = lambda self, done, total: os.kill(os.getpid(), signal.SIGINT)
cli.app(prog_name="klce")
"""


def test_process_interrupted(files):
    done = run_process("score", "logits.npy", "--out", "out.npy", code=INTERRUPTED)
    assert done.returncode == 128 + signal.SIGINT
    advice = (
        r"60 of 60 rows are finished; go on with: klce score logits\.npy --out out\.npy --resume"
    )
    expect_error(done, f"interrupted: {advice}")
    assert not (files / "out.npy").exists()
    done = run_process("score", "logits.npy", "--out", "out.npy", "--resume", "--json")
    assert json.loads(done.stdout)["rows"] == 60
    assert sorted(path.name for path in files.iterdir()) == ["logits.npy", "out.npy", "targets.npy"]


def test_process_interrupted_whose_files_stand_behind_dashes(files):
    (files / "logits.npy").rename("-x.npy")
    done = run_process("score", "-o", "out.npy", "--", "-x.npy", code=INTERRUPTED)
    expect_error(done, r"; go on with: klce score -o out\.npy --resume -- -x\.npy$")
    arguments = done.stderr.partition("klce score ")[2].split()
    assert run("score", *arguments).exit_code == 0


@pytest.mark.parametrize(
    "command", [["score", "logits.npy"], ["compare", "logits.npy", "logits.npy"]]
)
@pytest.mark.parametrize("engine", ["local", pytest.param("dask", marks=pytest.mark.slow)])
def test_process_interrupted_without_results(files, command, engine):
    done = run_process(*command, "--engine", engine, code=INTERRUPTED)
    assert done.returncode == 128 + signal.SIGINT
    expect_error(done, "^klce: interrupted: no rows are kept; a run with --out can be resumed$")


INTERRUPTED_COROUTINES = """
import asyncio, gc
from klce import cli

async def work():
    await asyncio.sleep(9)

def stop(*arguments, **options):
    loop = asyncio.new_event_loop()
    task, coroutine = loop.create_task(work()), work()
    loop.run_until_complete(asyncio.sleep(0))
    raise KeyboardInterrupt

cli.convert_file = stop
cli.app(prog_name="klce")
"""


def test_process_interrupted_with_coroutines(files):
    done = run_process("convert", "logits.npy", "a.zarr", code=INTERRUPTED_COROUTINES)
    assert (done.returncode, done.stderr) == (130, "klce: interrupted\n")


def test_process_terminated(files):
    code = INTERRUPTED.replace("SIGINT", "SIGTERM").replace(
        'cli.app(prog_name="klce")', "from klce.__main__ import main; main()"
    )
    done = run_process("score", "logits.npy", "--out", "out.npy", code=code)
    assert done.returncode == 128 + signal.SIGTERM
    expect_error(done, r"interrupted: 60 of 60 rows are finished; go on with: klce score .*")
    done = run_process("score", "logits.npy", code=code)
    assert done.returncode == 128 + signal.SIGTERM
    expect_error(done, "interrupted: no rows are kept; a run with --out can be resumed")


LOST_INTERRUPT = """
import os, signal, time, weakref
from klce import cli
from klce.__main__ import main

class Plotted:
    pass

def stop(*arguments, **options):
    plotted = Plotted()
    callback = lambda _: (os.kill(os.getpid(), signal.SIGINT), time.sleep(0))
    kept = weakref.ref(plotted, callback)
    del plotted
    time.sleep(30)

cli.file_info = stop
main()
"""


def test_an_interrupt_in_the_callback_of_a_weak_reference(files):
    done = run_process("info", "logits.npy", code=LOST_INTERRUPT, timeout=20)
    assert (done.returncode, done.stderr) == (130, "klce: interrupted\n")


def test_an_interrupt_while_the_results_are_printed(files, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(tables, "score_table", stop)
    result = run("score", "logits.npy")
    assert (result.exit_code, result.stderr) == (130, "klce: interrupted\n")


INTERRUPTED_IMPORT = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, *rest):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
"""


@pytest.mark.parametrize(
    "module",
    ["numpy", "datetime", "klce.config", "klce.rows", "klce.cli", "click", "rich"],
)
def test_process_interrupted_while_it_starts(files, module):
    code = INTERRUPTED_IMPORT.format(module=module)
    command = "sys.argv[0] = '/bin/klce'; from klce.__main__ import main; main()"
    done = run_process("info", "logits.npy", code=code + command)
    assert (done.returncode, done.stderr) == (130, "klce: interrupted\n")


def test_an_interrupted_import_of_the_library_is_an_exception():
    code = INTERRUPTED_IMPORT.format(module="klce.rows") + (
        "try: import klce\nexcept KeyboardInterrupt: print('caught')"
    )
    done = run_process(code=code)
    assert (done.returncode, done.stdout) == (0, "caught\n")


SLOW_BLOCKS = """
import sys, time
from klce import cli
from klce.scoring import blocks
blocks._BLOCK_ROWS = 1

def update(self, done, total):
    print(done, file=sys.stdout, flush=True)
    time.sleep(0.01)

cli.ProgressBar.update = update
cli.app(prog_name="klce")
"""


@pytest.mark.slow
def test_ctrl_c_stops_within_a_second(files):
    command = [sys.executable, "-c", SLOW_BLOCKS, "score", "logits.npy", "-o", "out.csv"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        for _ in range(5):
            process.stdout.readline()
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        stderr = process.communicate(timeout=30)[1]
        assert time.monotonic() - begin < 1
    assert process.returncode == 128 + signal.SIGINT
    assert re.fullmatch(r"klce: interrupted: \d+ of 60 rows .* -o out\.csv --resume\n", stderr)


@pytest.mark.parametrize(
    "command", [("score", "logits.npy", "targets.npy"), ("info", "logits.npy")]
)
def test_narrow_tables_lose_nothing(files, command):
    wide, narrow = (
        run_process(*command, env=os.environ | {"COLUMNS": str(columns)}).stdout
        for columns in (80, 30)
    )
    assert max(map(len, narrow.splitlines())) <= 30
    assert "…" not in narrow
    if command[0] == "score":  # but for the speed, which is of the run
        for number in re.findall(r"[\d.,]{4,}(?=  )", wide.partition("speed")[0]):
            assert number in narrow


def run_on_terminal(seconds, *arguments):
    """Run with a terminal as stderr and a bar after `seconds`; return stdout and stderr."""
    code = (
        f"from klce import _terminal, cli; _terminal.PROGRESS_AFTER_SECONDS = {seconds}; "
        "cli.app(prog_name='klce')"
    )
    terminal, end = os.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80"}
    try:
        done = run_process(*arguments, code=code, stderr=end, env=environment)
        os.close(end)
        shown = b""
        while True:
            try:
                shown += os.read(terminal, 1 << 16)
            except OSError:  # how Linux tells that nobody holds the other end any more
                return done.stdout, shown.decode()
    finally:
        os.close(terminal)


def test_progress_on_a_terminal(files):
    stdout, stderr = run_on_terminal(0, "score", "logits.npy", "--json")
    assert stderr.index("scoring") < stderr.index("finishing")
    assert json.loads(stdout)["rows"] == 60


@pytest.mark.parametrize(("seconds", "option"), [(60, "--json"), (0, "--quiet")])
def test_no_progress_in_a_short_or_quiet_run(files, seconds, option):
    assert run_on_terminal(seconds, "score", "logits.npy", option)[1] == ""


def test_no_progress_without_a_terminal(files):
    code = "from klce import _terminal, cli; _terminal.PROGRESS_AFTER_SECONDS = 0; cli.app()"
    assert run_process("score", "logits.npy", code=code).stderr == ""
