"""Runs on Dask distributed: files and summary of a local run, whatever becomes of workers."""

import contextlib
import functools
import gc
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import count
from pathlib import Path

import distributed
import numpy as np
import psutil
import pytest
from click.testing import CliRunner

from klce import _ufuncs, cli
from klce.scoring import InputError, Interrupted, compare_file, engines, results, score_file
from klce.scoring.engines import Arithmetic, open_engine
from klce.scoring.identity import Identity
from klce.scoring.readers import shards
from klce.scoring.results import WRITERS
from klce.scoring.score import Scoring
from tests.scoring import runs
from tests.scoring.runs import content, said, stop_after

run = functools.partial(runs.run, block_rows=50)

KILLS = int(os.environ.get("KLCE_TEST_KILLS", "3"))
"""Runs that are killed at random moments."""


def start_cluster(**options):
    """Start workers on this machine."""
    return distributed.LocalCluster(
        dashboard_address="localhost:0", scheduler_kwargs={"dashboard": False}, **options
    )


@pytest.fixture(scope="module")
def scheduler():
    """The address of a scheduler with two workers of two threads in this process."""
    with start_cluster(n_workers=2, threads_per_worker=2, processes=False) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="module")
def processes():
    """A cluster of two worker processes."""
    with start_cluster(n_workers=2, threads_per_worker=1, silence_logs=50) as cluster:
        yield cluster


# --- the same results -----------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["score", "compare", "compat"])
@pytest.mark.parametrize("suffix", sorted(WRITERS))
def test_as_the_local_engine(files, scheduler, command, suffix):
    local = run(command, f"local{suffix}", block_rows=None)
    dask = run(command, f"dask{suffix}", engine="dask", scheduler=scheduler)
    assert said(dask) == said(local)
    assert (local.engine, dask.engine) == ("local", "dask")
    assert local.summary == dask.summary
    assert (files / f"dask{suffix}").read_bytes() == (files / f"local{suffix}").read_bytes()


@pytest.mark.parametrize("command", ["score", "compare", "compat"])
def test_parts_as_of_the_local_engine(files, scheduler, monkeypatch, command):
    monkeypatch.setattr(results, "_ROWS_IN_GROUP", 30)  # parts of 240 rows
    run(command, "local/", block_rows=None)
    written = []

    def progress(done, total):
        written.append(len(list(Path(".dask.parts").iterdir())))

    run(command, "dask/", engine="dask", scheduler=scheduler, progress=progress)
    assert sorted({*written}) == [0, 1, 2, 3, 4]  # as the blocks come in
    assert len(content("dask")) == 5
    assert content("dask") == content("local")


@pytest.mark.parametrize("kind", ["shards", "npz", "kld"])
def test_places_that_workers_open(files, scheduler, kind):
    if kind == "kld":
        shutil.copy(Path(__file__).parents[2] / "examples" / "lm" / "base.kld", "base.kld")
        place = "base.kld::log_probs"
    elif kind == "npz":
        np.savez_compressed("all.npz", logits=np.load("logits.npy"), targets=np.load("targets.npy"))
        place = "all.npz"
    else:
        (files / "shards").mkdir()
        for i, part in enumerate(np.array_split(np.load("logits.npy"), 3)):
            np.save(f"shards/part-{i}.npy", part)
        place = "shards/part-*.npy"
    local, dask = (
        score_file(place, out=f"{engine}.npy", block_rows=17, engine=engine, scheduler=address)
        for engine, address in (("local", None), ("dask", scheduler))
    )
    assert said(dask) == said(local)
    assert (files / "dask.npy").read_bytes() == (files / "local.npy").read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="open files are not listed in time")
def test_workers_have_nothing_open_after_a_run(files, scheduler):
    run("compare", engine="dask", scheduler=scheduler)
    gc.collect()
    assert not [file for file in psutil.Process().open_files() if str(files) in file.path]
    with open_engine("dask", scheduler) as engine:
        with pytest.raises(InputError, match="no such row"):
            list(engine.tables(_Failing(), [(0, 1)]))
        assert not any(isinstance(opened, _Failing) for _, opened in engines._open.values())


def test_results_come_in_the_order_of_the_rows(scheduler):
    with open_engine("dask", scheduler) as engine:
        tables = engine.tables(_Slow(), [(i, i + 1) for i in range(30)])
        assert [int(table[0]) for table in tables] == list(range(30))


class _Slow:
    """A computation whose first blocks are the last to be finished; its own task."""

    @property
    def task(self):
        return self

    def absolute(self):
        return self

    def places(self):
        return ()

    def open(self):
        return self

    def block(self, start, stop):
        time.sleep(0.02 * (start % 5 == 0))
        return np.array([start])


class _Failing(_Slow):
    """A computation of rows that are not there."""

    def block(self, start, stop):
        raise InputError("no such row")


def test_the_next_blocks_are_few(scheduler):
    taken = count()
    with open_engine("dask", scheduler) as engine:
        spans = ((next(taken), 1) for _ in range(1000))
        tables = engine.tables(_Slow(), spans)
        next(tables)
        assert next(taken) == 2 * 4  # two for each of four threads
        tables.close()


# --- interrupted, and resumed ---------------------------------------------------------------------


@pytest.mark.parametrize("command", ["score", "compare"])
@pytest.mark.parametrize("first", ["local", "dask"])
@pytest.mark.parametrize("suffix", [".csv", "/"])
def test_one_engine_goes_on_with_the_rows_of_another(
    files, scheduler, monkeypatch, command, first, suffix
):
    monkeypatch.setattr(results, "_ROWS_IN_GROUP", 30)  # parts of 240 rows
    whole = run(command, f"whole{suffix}")
    addresses = {"local": None, "dask": scheduler}
    second = "dask" if first == "local" else "local"
    out = f"out{suffix}"
    with pytest.raises(Interrupted, match=r"^400 of 1,000 rows"):
        run(command, out, engine=first, scheduler=addresses[first], progress=stop_after(400))
    resumed = run(command, out, engine=second, scheduler=addresses[second], resume=True)
    assert resumed.resumed_rows == 400
    assert said(resumed) == said(whole)
    assert content(out) == content(f"whole{suffix}")


@pytest.mark.slow
def test_a_worker_is_killed(files, processes):
    run("compare", "local.parquet")
    killed = []

    def progress(done, total):
        if not killed and done > total // 4:
            killed.append(next(iter(processes.workers.values())).pid)
            os.kill(killed[0], signal.SIGKILL)

    dask = run(
        "compare", "dask.parquet", block_rows=5, progress=progress,
        engine="dask", scheduler=processes.scheduler_address,
    )  # fmt: skip
    assert killed
    assert said(dask) == said(run("compare"))
    assert (files / "dask.parquet").read_bytes() == (files / "local.parquet").read_bytes()


def test_files_of_which_each_thread_has_a_few_open(files, scheduler, monkeypatch):
    monkeypatch.setattr(shards, "OPEN_SHARDS", 2)
    for name in ("logits", "q", "targets"):
        os.mkdir(name)
        for i, part in enumerate(np.array_split(np.load(f"{name}.npy"), 20)):
            np.save(f"{name}/{i}.npy", part)
    for out, options in (
        ("local.npy", {}),
        ("dask.npy", {"engine": "dask", "scheduler": scheduler}),
    ):
        compare_file("logits", "q", "targets", out=out, block_rows=30, **options)
    assert content("dask.npy") == content("local.npy")
    run("compare", "whole.npy")
    assert content("whole.npy") == content("local.npy")


RUN = """
import sys, time
from klce.scoring import compare_file, results, score_file

def progress(done, total):
    print(done, flush=True)
    time.sleep(0.005)

if __name__ == "__main__":
    command, out, engine, scheduler = sys.argv[1:]
    results._ROWS_IN_GROUP = 30
    options = dict(out=out, block_rows=10, resume=True, engine=engine, scheduler=scheduler or None,
                   groups="groups.npy", progress=progress)
    if command == "score":
        score_file("logits.npy", "targets.npy", **options)
    else:
        compare_file("logits.npy", "q.npy", "targets.npy", **options)
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(KILLS))
@pytest.mark.parametrize("command", ["score", "compare"])
def test_killed_at_random_moments(files, processes, monkeypatch, command, seed):
    """The run, a worker or both are killed, each time it is resumed, and it ends with the same."""
    moments = random.Random(seed)
    suffix = moments.choice([".npy", ".csv", ".parquet", "/"])
    monkeypatch.setattr(results, "_ROWS_IN_GROUP", 30)
    run(command, f"whole{suffix}")
    before = sorted(os.listdir())
    address = processes.scheduler_address
    kills = 0
    for _ in range(30):
        engine = moments.choice(["local", "dask", "dask"])
        processes.scale(2)  # a worker that was killed as it started is given up
        words = [command, f"out{suffix}", engine, address if engine == "dask" else ""]
        with subprocess.Popen(
            [sys.executable, "-c", RUN, *words], stdout=subprocess.PIPE
        ) as process:
            process.stdout.readline()
            time.sleep(moments.uniform(0, 0.3))
            if engine == "dask" and moments.random() < 0.5:
                worker = moments.choice([*processes.workers.values()]).pid
                with contextlib.suppress(ProcessLookupError, TypeError):  # it is down already
                    os.kill(worker, signal.SIGKILL)
                    kills += 1
            if kills < 3 or moments.random() < 0.3:
                process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
        if (files / f"out{suffix}").exists():
            break
    assert kills
    assert content(f"out{suffix}") == content(f"whole{suffix}")
    assert sorted(os.listdir()) == sorted([*before, f"out{suffix}".rstrip("/")])


@pytest.mark.slow
def test_a_cluster_of_its_own(files):
    """Ctrl-C, which a terminal sends to the workers too, ends it with one line; a run ends well."""
    np.save("many.npy", np.random.default_rng(1).normal(size=(200_000, 20)).astype(np.float32))
    score_file("many.npy", out="local.npy")
    command = [sys.executable, "-m", "klce", "score", "many.npy", "--engine", "dask"]
    command += ["--out", "out.npy", "--json"]
    options = {"env": os.environ | {"KLCE_NUM_THREADS": "2"}, "stderr": subprocess.PIPE}
    with subprocess.Popen(
        [*command, "--memory", "8kB"],  # blocks of 51 rows
        start_new_session=True, **options,
    ) as process:  # fmt: skip
        rows = files / ".out.npy.rows.npy"
        while not rows.exists() or rows.stat().st_size < 1000:
            assert process.poll() is None
            time.sleep(0.01)
        workers = psutil.Process(process.pid).children(recursive=True)
        assert len(workers) >= 2
        begin = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        complaint = process.stderr.read().decode()
        assert process.wait() == 130
    assert time.monotonic() - begin < 20
    assert re.fullmatch(r"klce: interrupted: .* of 200,000 rows are finished; go .*\n", complaint)
    assert psutil.wait_procs(workers, timeout=20)[1] == []

    done = subprocess.run([*command, "--resume"], stdout=subprocess.PIPE, check=True, **options)
    assert done.stderr == b""
    report = json.loads(done.stdout)
    assert (report["engine"], report["counted_rows"]) == ("dask", 200_000)
    assert (files / "out.npy").read_bytes() == (files / "local.npy").read_bytes()


# --- refused --------------------------------------------------------------------------------------


def complains(message, *options):
    result = CliRunner().invoke(cli.app, ["score", "logits.npy", *options, "--out", "out.npy"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("klce: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert not list(Path().glob("*out.npy*"))


def test_mistakes_are_one_line(files, monkeypatch):
    complains("--engine must be local or dask, got spark", "--engine", "spark")
    complains("--scheduler tcp://a:1 needs the engine dask", "--scheduler", "tcp://a:1")
    dask = ("--engine", "dask", "--scheduler")
    complains("scheduler nowhere: cannot connect: missing port", *dask, "nowhere")
    complains("scheduler carrier://pigeon: cannot connect: unknown", *dask, "carrier://pigeon")
    monkeypatch.setattr(engines, "_CONNECT_SECONDS", 1)
    complains("scheduler tcp://127.0.0.1:1: cannot connect: Timed out", *dask, "tcp://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "distributed", None)
    complains("--engine dask needs distributed: pip install 'klce[dask]'", *dask[:2])


def test_no_workers(files, monkeypatch):
    monkeypatch.setattr(engines, "_WORKERS_SECONDS", 0.5)
    with start_cluster(n_workers=0, processes=False) as cluster:
        complains(
            "no worker within 0.5 s", "--engine", "dask", "--scheduler", cluster.scheduler_address
        )


def test_a_worker_without_the_file(files, scheduler, monkeypatch):
    monkeypatch.setattr(Scoring, "absolute", lambda task: replace(task, logits="/nowhere.npy"))
    complains("/nowhere.npy", "--engine", "dask", "--scheduler", scheduler)


@pytest.mark.parametrize("which", ["logits", "targets"])
def test_a_worker_with_another_file(files, scheduler, monkeypatch, which):
    there = files / "there"
    there.mkdir()
    other = there / f"{which}.npy"
    monkeypatch.setattr(Scoring, "absolute", lambda task: replace(task, **{which: str(other)}))
    options = ("--engine", "dask", "--scheduler", scheduler)
    array = np.load(f"{which}.npy")

    np.save(other, array[:-1])
    complains(f"{other}: another file of that name: ", "targets.npy", *options)
    array[700:] = array[700:][::-1]
    np.save(other, array)
    complains(
        f"{other}: another file of that name: as many bytes as in the run, but other ones",
        "targets.npy", *options,
    )  # fmt: skip
    shutil.copy(f"{which}.npy", other)
    assert score_file("logits.npy", "targets.npy", engine="dask", scheduler=scheduler).rows == 1000


def test_identities(files):
    (files / "folder").mkdir()
    for i in range(3):
        shutil.copy("logits.npy", f"folder/part-{i}.npy")
    for place, changed in (
        ("logits.npy", "logits.npy"),
        ("folder", "folder/part-1.npy"),
        ("folder/*.npy::x", "folder/part-2.npy"),
        (f"file://{files}/folder", "folder/part-0.npy"),
        (f"file://{files}/folder/*.npy", "folder/part-0.npy"),
    ):
        before = Identity.of(place)
        assert before == Identity.of(place)
        data = Path(changed).read_bytes()
        if "://" not in place:  # of which only the store could tell
            Path(changed).write_bytes(data[:-1] + b"x")
            assert "other ones" in before.difference(Identity.of(place))
        Path(changed).write_bytes(data + b"x")
        assert f"{before.size + 1:,} bytes, where" in before.difference(Identity.of(place))
        Path(changed).write_bytes(data)
        assert before.difference(Identity.of(place)) is None


def test_a_worker_that_joins_with_other_bits(files, scheduler, monkeypatch):
    with open_engine("dask", scheduler) as engine:
        other = Arithmetic("0.0", "abacus", "5")
        monkeypatch.setattr(Arithmetic, "here", lambda: other)
        with pytest.raises(InputError, match=r"worker inproc.*klce 0\.0 with abacus, where the"):
            list(engine.tables(_Slow(), [(0, 1)]))


@pytest.fixture
def any_isa():
    """Let a test select the instruction set."""
    before = _ufuncs.active_isa()
    yield
    _ufuncs.select_isa(before)


def test_classes_of_instruction_sets(any_isa):
    digests = {}
    for isa in _ufuncs.available_isas():
        _ufuncs.select_isa(isa)
        digests[isa] = Arithmetic.here().digest
    baseline = digests.pop("baseline")
    assert len(set(digests.values())) <= 1
    assert baseline not in digests.values()


def test_rows_of_another_class_are_not_resumed(files, any_isa):
    if len(_ufuncs.available_isas()) == 1:
        pytest.skip("this machine has one instruction set")
    with pytest.raises(Interrupted):
        run("score", "out.npy", progress=stop_after(400))
    _ufuncs.select_isa("baseline")
    with pytest.raises(InputError, match=r"instruction set gives other bits .*; start anew"):
        run("score", "out.npy", resume=True)


@pytest.mark.slow
def test_workers_of_different_classes(files):
    isas = _ufuncs.available_isas()
    if len(isas) == 1:
        pytest.skip("this machine has one instruction set")
    workers = {
        isa: {"cls": distributed.Nanny, "options": {"env": {"KLCE_ISA": isa}, "nthreads": 1}}
        for isa in ("baseline", isas[-1])
    }
    options = {"dashboard": False, "dashboard_address": "localhost:0"}
    scheduler = {"cls": distributed.Scheduler, "options": options}
    with distributed.SpecCluster(workers=workers, scheduler=scheduler) as cluster:
        address = cluster.scheduler_address
        complains("computes other bits than worker", "--engine", "dask", "--scheduler", address)
