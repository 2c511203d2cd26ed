"""The benchmarks' machinery, on tiny shapes: nothing here says how fast anything is."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import klce
from benchmarks import (
    environment,
    files,
    instructions,
    limits,
    lines,
    page,
    race,
    report,
    rows,
    targets,
)
from benchmarks.cases import (
    BASICS,
    DTYPES,
    HALVES,
    OPS,
    OUT_OF_CACHE,
    Layout,
    WrongError,
    check_klce,
    difference,
    forget,
    grid,
    make_case,
)
from benchmarks.peers import Contestant, LacksError, Peer, RowShares
from benchmarks.peers.klce import Klce
from benchmarks.peers.numpy import NumPy
from benchmarks.turns import Runner, take_turns

TINY = Layout((6, 10))
LAYOUTS = (TINY, Layout((10, 6), 0), Layout((3, 10, 4), 1))
ROOT = Path(__file__).parents[1]


def bfloat16_or(dtype: str) -> str:
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    return dtype


# Cases


@pytest.mark.parametrize("text", ["8192x1000", "1000x8192@0", "64x1000x128@1"])
def test_a_layout_is_read_as_it_is_written(text: str) -> None:
    layout = Layout.parse(text)
    assert layout.name == text
    assert layout.classes == 1000
    assert layout.rows == 8192
    assert layout.elements == 8192000


@pytest.mark.parametrize("text", ["10", "axb", "5x-1", "3x4@2", "0x4", ""])
def test_a_layout_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"invalid literal|must look like"):
        Layout.parse(text)


def test_the_grid_has_every_layout_of_every_dtype() -> None:
    for dtype in DTYPES:
        assert len(set(grid(dtype))) == 12
        assert (OUT_OF_CACHE in grid(dtype)) == (dtype not in HALVES)
        rows = [layout.rows for layout in grid(dtype) if layout.classes == 1000]
        assert rows == [8192, 8192, 8192]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
@pytest.mark.parametrize("op", OPS)
def test_klce_and_numpy_agree_in_every_case(op: str, layout: Layout, dtype: str) -> None:
    case = make_case(op, layout, bfloat16_or(dtype))
    expected = NumPy(2).contestant(case)
    results = {name: expected.value(run()) for name, run in expected.ways().items()}
    own = Klce(2).contestant(case)
    check_klce(case)
    results |= {f"klce {name}": own.value(run()) for name, run in own.ways().items()}
    for result in results.values():
        assert difference(result, own.fresh(), race.TOLERANCES[dtype]) <= 1
    shapes = {"map": layout.shape, "rows": layout.row_shape, "scalar": ()}
    assert {np.shape(result) for result in results.values()} == {shapes[case.op.result]}


def test_basics_are_ops() -> None:
    assert set(BASICS) <= set(OPS)


def test_the_head_of_a_case_is_its_first_rows() -> None:
    case = make_case("cross_entropy sample_weight", Layout((3, 10, 40), 1), "float32")
    few = case.head(8)
    assert few.inputs[0].shape == (3, 10, 8)
    np.testing.assert_array_equal(few.inputs[0], case.inputs[0][:, :, :8])
    np.testing.assert_array_equal(few.target, case.target[:, :8])
    assert few.extras["sample_weight"].shape == (3, 8)


def test_soft_targets_are_read_too() -> None:
    assert len(make_case("cross_entropy soft", TINY, "float32").floats) == 2
    assert len(make_case("cross_entropy", TINY, "float32").floats) == 1
    assert len(make_case("kl logits", TINY, "float32").floats) == 2


def test_a_wrong_klce_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        klce, "logsumexp", lambda x, axis, out=None: 1.001 * np.log(np.exp(x).sum(axis))
    )
    case = make_case("logsumexp", TINY, "float64")
    with pytest.raises(WrongError, match="from its specification"):
        check_klce(case)
    record = race.contest(case, {}, threads=1, rounds=1)
    with pytest.raises(SystemExit, match="logsumexp 6x10 float64: klce is"):
        report.exit_if_wrong({"cases": [record]})


def test_float16_probabilities_too_small_for_digits_are_no_errors() -> None:
    check_klce(make_case("softmax", Layout((2, 128256)), "float16"))


def test_difference_counts_tolerances() -> None:
    expected = np.array([1.0, -1.0])
    assert difference(expected, expected, 1e-3) == 0
    assert difference(expected + 4e-3, expected, 1e-3) == pytest.approx(2)
    assert difference(np.array([np.inf, np.nan]), np.array([np.inf, np.nan]), 1e-3) == 0
    assert difference(np.array([np.nan, 1.0]), np.ones(2), 1e-3) == np.inf
    assert difference(np.ones(3), np.ones(2), 1e-3) == np.inf


@pytest.mark.parametrize("layout", [*LAYOUTS, Layout((7, 50000)), Layout((50000, 7), 0)])
def test_blocks_cover_every_row_once(layout: Layout) -> None:
    x = np.zeros(layout.shape)
    rows = np.zeros(layout.row_shape)

    def add(x: Any, rows: Any) -> None:
        assert x.size == rows.size * layout.classes
        x += 1
        rows += 1

    RowShares(2).over(layout, add, x, rows)()
    assert (x == 1).all()
    assert (rows == 1).all()


# Turns and limits


def test_every_runner_takes_its_turn_in_each_round() -> None:
    seen: list[str] = []
    runners = {
        name: Runner(lambda name=name: (seen.append(name), time.sleep(0.002))) for name in "abc"
    }
    seconds = take_turns(runners, rounds=3, pause=0, turn=0)
    assert {name: len(values) for name, values in seconds.items()} == dict.fromkeys("abc", 3)
    assert all(value >= 0.002 for values in seconds.values() for value in values)
    last = seen[-18:]  # a turn is a call untimed and one timed
    assert [sorted(last[k : k + 6]) for k in (0, 6, 12)] == [list("aabbcc")] * 3


def test_who_spins_gets_the_time_to_stop() -> None:
    ends: dict[str, float] = {"spinner": 0.0}
    gaps: list[float] = []

    def spinner() -> None:
        ends["spinner"] = time.perf_counter()

    def other() -> None:
        gaps.append(time.perf_counter() - ends["spinner"])

    runners = {"spinner": Runner(spinner, spins=0.05), "other": Runner(other)}
    take_turns(runners, rounds=3, pause=0, turn=0)
    assert min(gaps) >= 0.05


def test_repeats_share_the_time_of_a_call() -> None:
    runners = {"ten": Runner(lambda: time.sleep(0.02), repeats=10)}
    (value,) = take_turns(runners, rounds=1, pause=0, turn=0)["ten"]
    assert 0.002 <= value < 0.02


def test_a_hopeless_rival_takes_one_turn() -> None:
    runners = {"fast": Runner(lambda: None), "slow": Runner(lambda: time.sleep(0.03))}
    counts = {
        name: len(values)
        for name, values in take_turns(runners, 3, list(runners), pause=0, turn=0).items()
    }
    assert counts == {"fast": 3, "slow": 1}


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_limits_read_every_byte_and_copy_it(threads: int) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 255, 1 << 18, np.uint8) for _ in range(2)]
    runners = limits.runners(arrays, threads, copies=True)
    assert list(runners) == [limits.READ, limits.COPY, limits.COPY_CACHED]
    for runner in runners.values():
        runner.run()
        assert runner.repeats >= 1
    compiled = limits._compiled()
    for copy in (compiled.copy_streaming, compiled.copy_cached):
        target = limits._aligned(1 << 18)
        copy(arrays[0].ctypes.data, target.ctypes.data, 1 << 18, 1)
        np.testing.assert_array_equal(target, arrays[0])
    addresses = (limits.ctypes.c_void_p * 2)(*(array.ctypes.data for array in arrays))
    words = sum(int(array.view(np.uint64).sum(dtype=np.uint64)) for array in arrays)
    assert compiled.read_arrays(addresses, 2, 1 << 18, 3) == 3 * words % (1 << 64)


def test_no_limit_without_a_compiler_or_for_next_to_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert limits.runners([np.zeros(10, np.float32)], 1, copies=True) == {}
    monkeypatch.setattr(limits, "_compiled", lambda: None)
    assert limits.runners([np.zeros(1 << 20)], 1, copies=True) == {}


def test_the_best_round_of_the_right_limit_counts() -> None:
    assert limits.best({limits.READ: [3.0, 2.0]}) == 2
    seconds = {limits.READ: [1.0], limits.COPY: [5.0, 4.0], limits.COPY_CACHED: [6.0]}
    assert limits.best(seconds) == 4


# Targets


@pytest.mark.parametrize(
    ("op", "shape", "dtype", "isa", "ratio"),
    [
        ("logsumexp", "8192x1000", "float32", "avx512", 2.5),
        ("cross_entropy weight", "8192x1000", "float32", "avx2", 0.7 * 2.5),
        ("entropy logits", "8192x1000", "float64", "avx512", 2),
        ("entropy probs", "8192x1000", "float32", "avx2", 1),
        ("softmax", "8192x1000", "float32", "avx512", 1.3),
        ("log_softmax", "65536x32", "float32", "avx512", 2.5),
        ("softmax", "65536x32", "float64", "avx512", 2),
        ("js logits", "8192x1000", "float32", "avx512", 2),
        ("kl probs", "4096x128256", "bfloat16", "avx512", 2),
        ("nll_loss", "8192x1000", "float16", "avx512", 1),
        ("kl probs", "8192x1000", "float32", "baseline", 1),
    ],
)
def test_ratio_of_a_cell(op: str, shape: str, dtype: str, isa: str, ratio: float) -> None:
    target = targets.of_cell(OPS[op], Layout.parse(shape), dtype, isa)
    assert target.ratio == pytest.approx(ratio)
    assert target.against == ("numpy" if isa == "baseline" else None)


def test_shares_are_asked_of_float32_in_and_out_of_cache() -> None:
    def share(op: str, shape: str, dtype: str = "float32") -> float | None:
        return targets.of_cell(OPS[op], Layout.parse(shape), dtype, "avx512").share

    assert share("logsumexp", "1024x128256") == 0.8
    assert share("kl logits", "1024x128256") == 0.7
    assert share("softmax", "1024x128256") == 0.75
    assert share("logsumexp", "64x128256") == 0.55
    assert share("softmax", "8192x1000") == 0.5
    assert share("softmax", "1024x128256", "float64") is None
    assert share("logsumexp", "65536x10") is None


@pytest.mark.parametrize(
    ("ratio", "share", "met"),
    [
        (2, 0.6, True),
        (1.9, 0.6, False),
        (1, 0.8, True),
        (3, 0.5, False),
        (None, 0.5, False),
        (None, 0.6, None),
        (3, None, None),
        (1, None, False),
    ],
)
def test_a_target_is_met(ratio: float | None, share: float | None, met: bool | None) -> None:
    assert targets.Target(2, None, 0.8, 0.55).met(ratio, share) is met


def test_the_geometric_mean() -> None:
    assert targets.geometric_mean([1, 2, 4]) == pytest.approx(2)
    assert targets.of_mean(OPS["softmax"], "float32", "avx512") == 2
    assert targets.of_mean(OPS["softmax"], "float32", "avx2") is None


# The race


class Broken(Peer):
    """A peer that says what it lacks, fails, or returns something else."""

    def __init__(self, answer: Any) -> None:
        self.version = "0"
        self._answer = answer

    def contestant(self, case: Any) -> Contestant:
        if isinstance(self._answer, Exception):
            raise self._answer
        return Contestant(lambda: np.full(case.layout.row_shape, self._answer))


def test_peers_that_lack_fail_or_differ_are_named() -> None:
    rivals = {
        "numpy": NumPy(2),
        "lacking": Broken(LacksError("has no rows")),
        "failing": Broken(RuntimeError("out of order")),
        "wrong": Broken(3.0),
    }
    case = make_case("logsumexp", TINY, "float32")
    record = race.contest(case, rivals, threads=2, rounds=2)
    assert record["lacks"] == {
        "lacking": "has no rows",
        "failing": "fails: RuntimeError: out of order",
    }
    assert set(record["differs"]) == {"wrong"}
    assert set(record["seconds"]) == {"klce", "numpy", "wrong"}
    assert len(record["seconds"]["klce"]["into"]) == 2
    without, into = report.cells(record, "avx2")
    assert (without.out, into.out) == (False, True)
    assert without.fastest == into.fastest == "numpy"  # a wrong result is no rival
    assert without.ratio == without.ratios["numpy"]


def test_the_small_table_names_them_too(capsys: pytest.CaptureFixture[str]) -> None:
    rivals = {"numpy": NumPy(2), "lacking": Broken(LacksError("has none")), "wrong": Broken(3.0)}
    case = make_case("logsumexp", TINY, "float32")
    told = report.about(rivals, {}, 2, 1) | {"cases": [race.contest(case, rivals, 2, 1)]}
    report.print_basics(told, tuple(rivals))
    text = capsys.readouterr().out
    row = next(line for line in text.splitlines() if line.split()[:1] == ["logsumexp"])
    assert [cell.startswith("(") for cell in row.split()[3:6]] == [False, False, True]
    assert "lacking: has none: logsumexp at 6x10 float32" in text
    assert "wrong: differs from klce beyond its tolerance" in text


def test_the_verdict_of_a_cell() -> None:
    record = {
        "op": "logsumexp",
        "shape": "8192x1000",
        "dtype": "float32",
        "seconds": {
            "klce": {"fresh": [1.0, 9.0, 1.0], "into": [2.0]},
            "a": {"fresh": [4.0], "into": [3.0]},
            "b": {"fresh": [7.0]},
        },
        "limits": {limits.READ: [0.9, 0.6]},
        "lacks": {},
        "differs": {},
        "wrong": None,
    }
    without, into = report.cells(record, "avx512")
    assert (without.fastest, without.ratio, without.share) == ("a", 4.0, 0.6)
    assert without.met
    assert (into.ratios, into.share) == ({"a": 1.5, "b": 3.5}, 0.3)
    assert not into.met
    assert without.gelem == pytest.approx(8.192e-3)


# The lines beside the grid

SETTING = lines.Setting({"numpy": NumPy(2)}, threads=2, rounds=1)


def test_overhead_has_a_line_for_each_bound() -> None:
    found = lines.overhead(SETTING)
    assert [line["subject"] for line in found] == [f"{op} 1x10" for op in targets.OVERHEAD]
    assert all(line["value"] > 0 for line in found)


def test_scaling_compares_bits() -> None:
    found = lines.scaling(SETTING, [(Layout((1, 40000)), 1.6)])
    assert len(found) == 5
    assert all(line["same bits"] for line in found)


def test_imports_are_timed_in_new_processes() -> None:
    (line,) = lines.imports(SETTING)
    assert line["value"] > 0


def test_the_sweep_has_every_count_and_its_worst_step(tmp_path: Path) -> None:
    found = lines.classes(SETTING, range(2, 9), elements=1 << 10)
    assert len(found) == 4
    for line in found:
        times = [line["ns per element"][str(count)] for count in range(2, 9)]
        steps = [max(a / b, b / a) for a, b in itertools.pairwise(times)]
        assert line["value"] == pytest.approx(max(steps))
        assert len(line["cliffs"]) == sum(step > targets.NEIGHBOURS for step in steps)
    pytest.importorskip("matplotlib")
    report.plot_classes(found, tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").stat().st_size > 1000


def test_special_values_and_growth_have_their_lines() -> None:
    assert len(lines.special(SETTING, [TINY])) == 12
    found = lines.growth(SETTING, (10**4, 10**5, 10**15))
    assert [line["does not fit into memory"] for line in found] == [[10**15]] * 2
    assert [list(line["ns per element"]) for line in found] == [["10000", "100000"]] * 2
    forget()


@pytest.mark.parametrize(("value", "met"), [(1.0, True), (2.0, True), (2.1, False)])
def test_a_bound_from_above(value: float, met: bool) -> None:
    assert lines.make_line("part", "subject", value, "x", 2.0, at_most=True)["met"] is met


# Rows, and whole files


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
@pytest.mark.parametrize("name", rows.QUESTIONS)
def test_every_question_is_answered_rightly(name: str, layout: Layout, dtype: str) -> None:
    question = rows.QUESTIONS[name]
    operands = rows._operands(question, layout, bfloat16_or(dtype))
    assert len(operands) == (2 if question.function == "compare" else 1)
    assert list(rows.wrong(question, layout, dtype, operands)) == []


def test_a_wrong_table_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = klce.score

    def off_by_one(*args: Any, **options: Any) -> dict[str, Any]:
        return {name: column + 1 for name, column in right(*args, **options).items()}

    monkeypatch.setattr(klce, "score", off_by_one)
    record = rows.measure("score", TINY, "float64", threads=1, rounds=1)
    assert "logsumexp is" in record["wrong"]
    assert "argmax is not what" in record["wrong"]
    with pytest.raises(SystemExit, match="score 6x10 float64: klce's"):
        report.exit_if_wrong({"cases": [record]})


def test_near_rows_are_near_and_unlike_ones_are_not() -> None:
    layout = Layout((4, 2000))
    near, unlike = (
        klce.compare(*rows._operands(rows.QUESTIONS[f"compare {q}"], layout, "float32"))
        for q in (rows.NEAR, rows.UNLIKE)
    )
    assert (abs(near.kl_divergence - rows.NOISE**2 / 2) < 0.005).all()
    assert (unlike.kl_divergence > 3).all()


def test_the_share_that_rows_have_to_reach() -> None:
    for dtype in DTYPES:
        size = rows.out_of_cache(dtype).elements * (8 if dtype == "float64" else 4)
        if dtype in HALVES:
            size //= 2
        assert targets.of_rows(size, top_k=False) == 0.7
        assert targets.of_rows(size, top_k=True) == 0.5
    assert targets.of_rows(10**8, top_k=False) is None


def test_more_rows_take_more_time_but_not_more_starts() -> None:
    assert files.whole(3.0, 2.0, 1.0) == 3
    assert files.whole(3.0, 2.0, 0.25) == 9
    assert files.rows_within(0.5, 1000) == 20
    assert files.rows_within(1e-3, 1000) == 1000
    assert files.rows_within(100, 1000) == 1


def test_scripts_that_are_not_installed_or_fail_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(files, "_script", lambda name: tmp_path / "none.py")
    present, missing = files.present_scripts(["numpy", "a package that is not"])
    assert list(present) == ["numpy"]
    written = files.write_files(tmp_path, 3, 50)
    assert list(files._with_scripts(present, missing, written, 3, os.environ)) == []
    assert present == {}
    assert missing["a package that is not"] == "not installed"
    assert missing["numpy"].startswith("fails: ")


def program(name: str, whole: float, from_disk: float = 0.0) -> dict[str, Any]:
    return {"name": name, "whole": whole, "from disk": from_disk}


def test_the_verdicts_of_a_file() -> None:
    names = {"read": 1.5, "cat": 1.3, "klce": 2.0, "torch": 9.0, "numpy": 50.0}
    told = {
        "programs": [program(name, whole) for name, whole in names.items()],
        "differs": {"torch": 0.1},
        "peak": 300 << 20,
    }
    found = files.verdicts(told)
    assert [(line["subject"], line["value"], line["met"]) for line in found] == [
        ("klce score", 0.65, True),
        ("numpy script", 25.0, True),
        ("klce score", 300.0, False),
        ("any of them", 0.0, True),
    ]


# The commands


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_environment_holds_peers_to_threads_and_isa() -> None:
    wanted = environment.variables(2, "avx2")
    assert wanted["OMP_NUM_THREADS"] == wanted["PJRT_NPROC"] == "2"
    assert wanted["KLCE_ISA"] == wanted["ATEN_CPU_CAPABILITY"] == "avx2"
    assert "AVX2" not in wanted["NPY_DISABLE_CPU_FEATURES"].split()
    assert "KLCE_ISA" not in environment.variables(2, None)


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_of_a_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", os.fspath(tmp_path.parent))
    assert environment.commit(tmp_path) is None

    def git(*arguments: str) -> str:
        own = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
        return subprocess.check_output(["git", *own, *arguments], cwd=tmp_path, text=True).strip()

    git("init", "-q")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-q", "-m", "a")
    git("tag", "-a", "v1", "-m", "v1")
    (tmp_path / "b").write_text("of no commit")
    assert environment.commit(tmp_path) == git("rev-parse", "HEAD")
    (tmp_path / "a").write_text("2")
    assert environment.commit(tmp_path) == f"{git('rev-parse', 'HEAD')}-dirty"
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    assert environment.commit(tmp_path) is None


def test_the_race_writes_json_and_a_table(tmp_path: Path) -> None:
    path = tmp_path / "race.json"
    options = "grid --rounds 1 --shape 6x10 --dtype float32 --op softmax --peer numpy"
    done = run("benchmarks.race", *options.split(), "--isa", "baseline", "--json", os.fspath(path))
    assert done.returncode == 0, done.stderr
    assert "softmax" in done.stdout
    assert "klce" in done.stdout
    told = json.loads(path.read_text())
    assert told["isa"] == "baseline"
    assert told["commit"] == environment.commit()
    assert [cell["out"] for cell in told["cells"]] == [False, True]
    assert all(cell["fastest"] == "numpy" for cell in told["cells"])


def race_of(path: Path, cells: str) -> None:
    options = f"{cells} --rounds 1 --dtype float32 --peer numpy --isa baseline"
    done = run("benchmarks.race", "grid", *options.split(), "--json", os.fspath(path))
    assert done.returncode == 0, done.stderr


def test_races_become_a_page(tmp_path: Path) -> None:
    first, second, counts = (tmp_path / name for name in ("1.json", "2.json", "counts.json"))
    race_of(first, "--shape 6x10 --op softmax --op logsumexp")
    race_of(second, "--shape 6x10 --shape 9x7 --op logsumexp")
    counted = {"op": "softmax", "shape": "99x10", "dtype": "float32", "per vector": 123.4}
    counts.write_text(json.dumps({"isa": "baseline", "instructions": [counted]}))
    races = [os.fspath(path) for path in (first, second)]
    done = run("benchmarks.page", *races, "--instructions", os.fspath(counts))
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if "| no |" in line]
    assert [row[:2] for row in rows] == [
        ["| logsumexp", "6x10"],
        ["| logsumexp", "9x7"],
        ["| softmax", "6x10"],
    ]
    assert [row[6] for row in rows] == ["-", "-", "123.4"]
    assert all("numpy" in row[4] for row in rows)
    assert "was asked in" not in done.stdout  # it was in all cases


def test_a_page_says_who_was_asked(tmp_path: Path) -> None:
    path, other = tmp_path / "1.json", tmp_path / "2.json"
    race_of(path, "--shape 6x10 --op softmax --op logsumexp")
    told = json.loads(path.read_text())
    told["processor"], told["remarks"] = "a slow one", {"numkong": "loses digits"}
    told["peers"]["numkong"] = "0"
    told["cases"][0]["lacks"] = {"numkong": "has none"}
    other.write_text(json.dumps(told))
    done = run("benchmarks.page", os.fspath(other))
    assert done.returncode == 0, done.stderr
    assert " on a slow one, against " in done.stdout
    assert "\nnumkong loses digits.\n" in done.stdout
    assert "Every peer was asked in 1 of the 2 cases" in done.stdout
    assert ": numpy in 1; numpy, numkong in 1." in done.stdout
    told["cases"][1] |= {"wrong": "klce is wrong", "seconds": {}}
    other.write_text(json.dumps(told))
    done = run("benchmarks.page", os.fspath(other))
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "klce is wrong\n")


@pytest.mark.parametrize(
    ("ratio", "share", "short"),
    [
        (2.0, 0.4, 1.25),
        (2.0, 0.7, 0.8 / 0.7),
        (None, 0.5, 1.6),
        (5.0, 0.4, 0.5),
        (None, None, None),
    ],
)
def test_how_short_a_cell_falls(ratio, share, short) -> None:
    assert targets.Target(2.5, None, 0.8, None).short(ratio, share) == (
        short if short is None else pytest.approx(short)
    )


def test_a_share_that_is_asked_besides_counts_too() -> None:
    assert targets.Target(2.5, None, 0.8, 0.6).short(5.0, 0.4) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("seconds", "share", "counted", "word"),
    [
        (1e-5, 0.9, 100.0, "calls"),
        (1e-3, 0.9, 100.0, "memory"),
        (1e-3, 0.3, None, ""),
        (1e-3, 0.3, 70.0, "instructions"),
        (1e-3, None, 20.0, "waits"),
    ],
)
def test_what_binds_a_cell(seconds, share, counted, word) -> None:
    target = targets.Target(2.5, None, 0.8, None)
    cell = report.Cell(
        "softmax", "9x9", "float32", False, seconds, 1.0, {}, (), "jax", 1.0, share, target, False
    )
    assert page.binds(cell, counted, 50.0) == word
    short = target.short(1.0, share)
    assert page.verdict(cell, counted, 50.0) == f"missed {short:.2f} {word}".rstrip()


def test_races_of_two_instruction_sets_are_no_page(tmp_path: Path) -> None:
    path, other = tmp_path / "1.json", tmp_path / "2.json"
    race_of(path, "--shape 6x10 --op softmax")
    other.write_text(path.read_text().replace('"isa": "baseline"', '"isa": "avx2"'))
    done = run("benchmarks.page", os.fspath(path), os.fspath(other))
    assert done.returncode == 1
    assert done.stderr == "races differ in isa: baseline and avx2\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux steps through a process this way")
def test_instructions_are_counted() -> None:
    few, many = (
        min(instructions.executed(lambda n=n: sum(range(n))) for _ in range(3)) for n in (0, 300)
    )
    assert few + 300 < many  # the least: now and then Python has more to do


@pytest.mark.parametrize(
    ("text", "sampled"),
    [("8192x1000", "3x1000"), ("64x128256", "3x32768"), ("64x1000x128@1", "1x1000x3@1")],
)
def test_instructions_are_counted_on_a_few_rows(text: str, sampled: str) -> None:
    assert instructions.sample(Layout.parse(text), 3).name == sampled


def test_a_missing_peer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numkong", None)
    present, missing = race.load_peers(["numkong", "numpy"], 2)
    assert list(present) == ["numpy"]
    assert missing["numkong"].startswith("not installed")


def test_rows_write_json_and_a_table(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    options = "--rounds 1 --shape 6x10 --shape 8x9000 --dtype float16 --isa baseline"
    done = run("benchmarks.rows", *options.split(), "--json", os.fspath(path))
    assert done.returncode == 0, done.stderr
    told = json.loads(path.read_text())
    assert told["isa"] == "baseline"
    assert [record["op"] for record in told["rows"]] == [*rows.QUESTIONS] * 2
    for record in told["rows"]:
        assert record["op"] in done.stdout
        assert (record["dtype"], record["wrong"], record["target"]) == ("float16", None, None)
        assert len(record["seconds"]) == 1
        assert record["gelem"] > 0
        large = record["bytes"] >= 2 * 8 * 9000  # else there is no limit
        assert list(record["limits"]) == ([limits.READ] if large and limits.available() else [])
        assert (record["share"] is None) == (record["limits"] == {})


def run_files(folder: Path, *options: str) -> tuple[dict[str, Any], str]:
    path = folder / "files.json"
    done = run(
        "benchmarks.files",
        "--gigabytes",
        "0.003",
        "--rounds",
        "1",
        "--json",
        os.fspath(path),
        *options,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text()), done.stdout


def test_files_write_json_and_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", os.fspath(temporary))
    told, printed = run_files(tmp_path, "--peer", "numpy")
    assert list(temporary.iterdir()) == []
    assert told["file"]["rows"] == 12
    assert told["file"]["bytes"] == pytest.approx(12 * 2 * 128256, rel=1e-3)
    records = {record["name"]: record for record in told["programs"]}
    assert set(records) | set(told["missing"]) == {"read", "cat", "klce", "numpy"}
    for name, record in records.items():
        assert name in printed
        assert record["rows"] == 12
        assert record["whole"] == record["seconds"][0] > 0
    assert records["klce"]["mean_nll_nats"] == pytest.approx(records["numpy"]["mean_nll_nats"])
    assert told["differs"] == {}
    bounds = [line["bound"] for line in told["lines"]]
    assert bounds == [0.6, 20, *([] if told["peak"] is None else [256]), 0.01]


@pytest.mark.slow
def test_the_script_of_torch_agrees(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    told, _ = run_files(tmp_path, "--peer", "torch")
    assert (list(told["peers"]), told["differs"]) == (["torch"], {})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_file_goes_whatever_ends_the_command(tmp_path: Path, number: int) -> None:
    command = [sys.executable, "-m", "benchmarks.files", "--gigabytes", "0.1", "--rounds", "1000"]
    env = os.environ | {"TMPDIR": os.fspath(tmp_path)}
    with subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while not list(tmp_path.glob("*/*.npy")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
    assert process.returncode != 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", ["0", "-1", "nan", "1e9"])
def test_a_file_of_no_size_or_beyond_memory_is_an_error(size: str) -> None:
    done = run("benchmarks.files", "--gigabytes", size)
    assert done.returncode == 2
    assert "--gigabytes" in done.stderr


def test_the_limits_are_printed_for_each_number_of_threads(tmp_path: Path) -> None:
    path = tmp_path / "limits.json"
    arguments = ["--threads", "2", "--size", "1e5", "--rounds", "1", "--json", os.fspath(path)]
    done = run("benchmarks.limits", *arguments)
    assert done.returncode == 0, done.stderr
    records = json.loads(path.read_text())["limits"]
    assert [record["threads"] for record in records] == [1, 1, 1, 2, 2, 2]
    assert all(record["GB/s"] > 0 for record in records)


@pytest.mark.parametrize("command", ["", ".race", ".rows", ".files", ".limits"])
@pytest.mark.parametrize("option", ["--threads", "--rounds"])
def test_no_threads_or_rounds_are_an_error(command: str, option: str) -> None:
    done = run(f"benchmarks{command}", option, "0")
    assert done.returncode == 2
    assert f"argument {option}: a number must be 1 or more, got '0'" in done.stderr


def test_an_unknown_part_is_an_error() -> None:
    done = run("benchmarks.race", "gird")
    assert done.returncode == 2
    assert "no such part: gird" in done.stderr
