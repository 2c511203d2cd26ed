"""Runs that stop, and go on."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

from klce.scoring import InputError, Interrupted, journal, page, score_file
from klce.scoring import score as score_module
from klce.scoring.columns import score_columns
from klce.scoring.identity import fingerprint
from klce.scoring.journal import Journal
from klce.scoring.results import WRITERS
from tests.scoring.runs import run, said, stop_after

SUFFIXES = sorted(WRITERS)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("command", ["score", "compare", "compat"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_resumed_is_as_uninterrupted(files, command, suffix):
    whole = run(command, f"whole{suffix}")
    before = names(files)
    with pytest.raises(Interrupted, match=r"^400 of 1,000 rows are finished$"):
        run(command, f"parts{suffix}", block_rows=100, progress=stop_after(400))
    hidden = [f".parts{suffix}.{name}" for name in ("rows.npy", "rows.crc", "run.json")]
    assert names(files) == sorted([*before, *hidden])
    with pytest.raises(Interrupted, match=r"^750 of 1,000"):
        run(command, f"parts{suffix}", block_rows=50, progress=stop_after(720), resume=True)
    parts = run(command, f"parts{suffix}", resume=True)
    assert parts.resumed_rows == 750
    assert said(parts) == said(whole)
    assert (files / f"parts{suffix}").read_bytes() == (files / f"whole{suffix}").read_bytes()
    assert names(files) == sorted([*before, f"parts{suffix}"])


@pytest.mark.skipif(sys.platform == "win32", reason="where no file that is mapped can be cut off")
def test_rows_before_an_input_was_cut_off_are_kept(files):
    logits = Path("logits.npy")
    whole, stat = logits.read_bytes(), logits.stat()
    run("score", "whole.npy")

    def cut(done, total):
        if done == total * 4 // 10:
            os.truncate(logits, len(whole) // 2)

    with pytest.raises(InputError, match=r"^logits\.npy: cut off while it was read: ") as caught:
        run("score", "out.npy", block_rows=100, progress=cut)
    assert caught.value.__notes__ == ["400 of 1,000 rows are finished"]
    logits.write_bytes(whole)
    os.utime(logits, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert run("score", "out.npy", resume=True).resumed_rows == 400
    assert Path("out.npy").read_bytes() == Path("whole.npy").read_bytes()


def test_finished_rows_are_not_computed_again(files, monkeypatch):
    with pytest.raises(Interrupted):
        run("score", "out.csv", block_rows=100, progress=stop_after(400))
    computed = []

    def score_block(x, *arguments, **options):
        computed.append(len(x))
        return real(x, *arguments, **options)

    real = score_module.score_block
    monkeypatch.setattr(score_module, "score_block", score_block)
    run("score", "out.csv", resume=True)
    assert computed == [600]


@pytest.mark.parametrize(("command", "more"), [("score", set()), ("compare", {"compat"})])
def test_what_is_not_asked_is_not_said_of_a_run(files, command, more):
    """Else no run that was interrupted before there was such an option could go on."""
    common = {"command", "ignore_index", "temperature", "top_k", "arithmetic"}
    common |= {"inputs", "shape", "klce", "columns"}
    with pytest.raises(Interrupted):
        run(command, "out.npy", block_rows=100, progress=stop_after(400))
    found = json.loads(Path(".out.npy.run.json").read_text())
    assert found.keys() == common | more


def test_nothing_to_resume_is_a_new_run(files):
    assert run("score", "out.npy", resume=True).resumed_rows == 0
    assert len(np.load("out.npy")) == 1000


def test_results_beside_the_shards_are_replaced(files):
    (files / "shards").mkdir()
    (files / "logits.npy").rename("shards/0.npy")
    for _ in range(2):
        score_file("shards", out="shards/out.csv")
    with pytest.raises(InputError, match="would replace the input"):
        score_file("shards", out="shards/0.npy")


def test_without_resume_a_run_starts_anew(files):
    """It tells of the rows that are given up, and of --resume where that would have kept them."""
    told = r"^out\.npy: 400 finished rows of an interrupted run are given up"
    for options, more in (({}, "; --resume would have kept them"), ({"temperature": 2.0}, "")):
        with pytest.raises(Interrupted):
            run("score", "out.npy", block_rows=100, progress=stop_after(400))
        with pytest.warns(UserWarning, match=told + more + "$"):
            assert run("score", "out.npy", **options).resumed_rows == 0
    assert run("score", "out.npy").resumed_rows == 0  # none are left to be given up


def test_an_interrupt_before_the_first_row_leaves_nothing(files, monkeypatch):
    before = names(files)

    def score_block(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(score_module, "score_block", score_block)
    with pytest.raises(KeyboardInterrupt) as caught:
        run("score", "out.npy")
    assert not isinstance(caught.value, Interrupted)
    assert names(files) == before


@pytest.mark.parametrize("command", ["score", "compare"])
def test_an_interrupt_of_the_report_keeps_all_rows(files, monkeypatch, command):
    def stop(*arguments):
        raise KeyboardInterrupt

    options = {"out": "out.csv", "report": "report.html"}
    monkeypatch.setattr(page, "_image", stop)
    with pytest.raises(Interrupted, match=r"^1,000 of 1,000 rows are finished$"):
        run(command, **options)
    assert not {"out.csv", "report.html"} & set(names(files))
    monkeypatch.setattr(page, "_image", lambda *arguments: "data:,")
    assert run(command, resume=True, **options).resumed_rows == 1000
    assert {"out.csv", "report.html"} < set(names(files))


def test_an_error_keeps_what_is_finished(files):
    def progress(done, total):
        raise RuntimeError("no such luck")

    with pytest.raises(RuntimeError) as caught:
        run("score", "out.npy", block_rows=100, progress=progress)
    assert caught.value.__notes__ == ["100 of 1,000 rows are finished"]
    assert run("score", "out.npy", resume=True).resumed_rows == 100


def test_a_part_of_a_row_is_computed_again(files):
    whole = run("score", "whole.npy")
    with pytest.raises(Interrupted):
        run("score", "out.npy", block_rows=100, progress=stop_after(400))
    path = files / ".out.npy.rows.npy"
    data = path.read_bytes()
    for cut in (1, 50, len(data) - 100):  # within the last row, rows before, within the header
        path.write_bytes(data[:-cut])
        with pytest.raises(Interrupted), pytest.warns(UserWarning, match="not what they were"):
            run("score", "out.npy", block_rows=100, progress=stop_after(0), resume=True)
    assert said(run("score", "out.npy", resume=True)) == said(whole)
    assert (files / "out.npy").read_bytes() == (files / "whole.npy").read_bytes()


def test_rows_that_are_not_what_they_were_are_computed_again(files):
    run("score", "whole.npy")
    rows, sums = files / ".out.npy.rows.npy", files / ".out.npy.rows.crc"

    def interrupt():
        with pytest.raises(Interrupted):
            run("score", "out.npy", block_rows=100, progress=stop_after(400))
        return rows.read_bytes(), sums.read_bytes()

    def damage(path, data, kept):
        path.write_bytes(data)
        told = pytest.warns(
            UserWarning, match=rf"^out\.npy: finished rows from {kept} on are not what"
        )
        with told if kept is not None else contextlib.nullcontext():
            return run("score", "out.npy", resume=True).resumed_rows

    row_bytes = np.load(files / "whole.npy").dtype.itemsize
    for path, changed, kept, is_told in (
        (rows, lambda data, _: data[: -150 * row_bytes] + bytes(10) + data[10 - 150 * row_bytes :],
         200, True),
        (rows, lambda data, _: data[: -90 * row_bytes] + bytes(90 * row_bytes), 300, True),
        (rows, lambda data, _: data[: -190 * row_bytes], 200, True),
        (rows, lambda data, _: data + bytes(1000 * row_bytes), 400, False),
        (rows, lambda data, _: data.replace(b"(1000,", b"(1001,", 1), 0, False),
        (rows, lambda data, _: data.replace(b"entropy", b"entrupy", 1), 0, False),
        (sums, lambda _, data: data[:-1], 300, False),
        (sums, lambda _, data: data[:12] + bytes(12) + data[24:], 100, True),
        (sums, lambda _, data: data * 2, 400, True),
        (sums, lambda *_: b"", 0, False),
    ):  # fmt: skip
        assert damage(path, changed(*interrupt()), kept if is_told else None) == kept
        assert (files / "out.npy").read_bytes() == (files / "whole.npy").read_bytes()
        (files / "out.npy").unlink()


def test_sums_of_another_run_are_none(files):
    rows, sums = files / ".out.npy.rows.npy", files / ".out.npy.rows.crc"

    def interrupted(temperature):
        with pytest.raises(Interrupted):
            run("score", "out.npy", block_rows=100, progress=stop_after(400),
                temperature=temperature)  # fmt: skip
        return rows.read_bytes(), sums.read_bytes()

    before = interrupted(2.0)
    with pytest.warns(UserWarning, match="400 finished rows of an interrupted run are given up$"):
        interrupted(1.0)
    rows.write_bytes(before[0])
    sums.write_bytes(before[1])
    with pytest.warns(UserWarning, match="finished rows from 0 on are not what they were"):
        assert run("score", "out.npy", resume=True).resumed_rows == 0


def test_nothing_to_resume_is_told_where_something_is_replaced(files):
    assert run("score", "out.npy", resume=True).resumed_rows == 0
    with pytest.warns(UserWarning, match=r"^out\.npy: no interrupted run to resume, made anew$"):
        run("score", "out.npy", resume=True)
    with pytest.raises(Interrupted):
        run("score", "new.npy", block_rows=100, progress=stop_after(400))
    (files / ".new.npy.run.json").unlink()
    with pytest.warns(UserWarning, match="no interrupted run to resume"):
        assert run("score", "new.npy", resume=True).resumed_rows == 0


@pytest.mark.parametrize("command", ["score", "compare"])
def test_an_input_that_changes_meanwhile_is_told(files, command):
    name = "LOGITS" if command == "score" else "P"

    def touch(done, total):
        os.utime("logits.npy")

    told = rf"^{name} has changed while it was read \(.*logits\.npy\): results may be of"
    with pytest.warns(UserWarning, match=told):
        run(command, "out.npy", progress=touch)

    def remove(done, total):
        Path("logits.npy").unlink(missing_ok=True)

    if sys.platform != "win32":
        run(command, "gone.npy", progress=remove)  # what is mapped is there still
        assert (files / "gone.npy").read_bytes() == (files / "out.npy").read_bytes()


@pytest.mark.parametrize("change", ["replace", "unlink"])
def test_a_chunk_that_is_replaced_meanwhile_is_told(files, change):
    """Zarr replaces the files of chunks, of which nothing stays open."""
    zarr.create_array("p.zarr", data=np.load("logits.npy"), chunks=(100, 20))
    chunk = Path("p.zarr/c/2/0")

    def progress(done, total):
        if change == "unlink":
            chunk.unlink(missing_ok=True)
        else:
            Path("new").write_bytes(chunk.read_bytes())
            Path("new").replace(chunk)

    with pytest.warns(
        UserWarning, match=r"^LOGITS has changed while it was read \(p\.zarr/c/2/0\)"
    ):
        score_file("p.zarr", block_rows=500, progress=progress)


def touched(name):
    os.utime(name, ns=(0, 0))
    return {}


def another_run_file(**values):
    path = Path(".out.npy.run.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return {}


@pytest.mark.parametrize(
    ("change", "command", "told"),
    [
        (lambda: touched("logits.npy"), "score", r"LOGITS has changed since \(/.*/logits\.npy\)"),
        (lambda: touched("targets.npy"), "score", r"TARGETS has changed since"),
        (lambda: {"groups": None}, "score", "--groups was given"),
        (lambda: {"groups": "targets.npy"}, "score", r"--groups was /.*/groups\.npy"),
        (lambda: {"ignore_index": -1}, "score", "--ignore-index was -100"),
        (lambda: another_run_file(ignore_index=1), "score", "--ignore-index was 1"),
        (lambda: {"temperature": 2}, "score", r"--temperature was 1\.0"),
        (lambda: {"temperature": 2, "ignore_index": -1}, "score",
         r"--ignore-index was -100, --temperature was 1\.0"),
        (dict, "compare", "the command was klce score"),
        (lambda: another_run_file(klce="0.0.1"), "score", r"klce was 0\.0\.1, not \d.*"),
        (lambda: another_run_file(arithmetic="x"), "score", "its instruction set gives other bits"),
    ],
)  # fmt: skip
def test_another_run_is_not_resumed(files, change, command, told):
    with pytest.raises(Interrupted):
        run("score", "out.npy", block_rows=100, progress=stop_after(400))
    message = rf"^out\.npy: the interrupted run was another: {told}[^,]*; .* without --resume$"
    with pytest.raises(InputError, match=message):
        run(command, **{"out": "out.npy", "resume": True} | change())
    assert ".out.npy.rows.npy" in names(files)


@pytest.mark.parametrize("content", ["", "{", "[]", "\x00"])
def test_a_damaged_description_of_the_run_keeps_the_rows(files, content):
    with pytest.raises(Interrupted):
        run("score", "out.npy", block_rows=100, progress=stop_after(400))
    rows = (files / ".out.npy.rows.npy").read_bytes()
    (files / ".out.npy.run.json").write_text(content)
    with pytest.raises(
        InputError, match=r"^out\.npy: \.out\.npy\.run\.json, .* is damaged; start anew"
    ):
        run("score", "out.npy", resume=True)
    assert (files / ".out.npy.rows.npy").read_bytes() == rows
    with pytest.warns(UserWarning, match="400 finished rows of an interrupted run are given up$"):
        assert run("score", "out.npy").resumed_rows == 0


def test_two_runs_with_one_output(files):
    columns = score_columns("f4", labelled=True)
    with Journal(files / "out.npy", (1000,), columns, {}, resume=False) as first:
        first.append(np.zeros(3, columns))
        with pytest.raises(InputError, match=r"out\.npy: another run is writing it"):
            Journal(files / "out.npy", (1000,), columns, {}, resume=True)
        with pytest.raises(InputError, match="another run"):
            Journal(files / "out.npy", (1000,), columns, {}, resume=False)
        assert first.finished == len(first.rows()) == 3


@pytest.mark.skipif(sys.platform == "win32", reason="needs locks")
def test_a_run_that_begins_while_another_ends(files, monkeypatch):
    """It is refused, or what it begins with stays."""
    columns = score_columns("f4", labelled=True)
    begun, steps = [], []

    def journal_of(rows):
        return Journal(files / "out.npy", (rows,), columns, {}, resume=False)

    def then_another_begins(step):
        def stepped(*arguments, **options):
            step(*arguments, **options)
            steps.append(step)
            if not begun:
                with contextlib.suppress(InputError):
                    begun.append(journal_of(5))

        return stepped

    with journal_of(3) as first, monkeypatch.context() as patch:
        first.append(np.zeros(3, columns))
        for owner, name in ((journal, "give_name"), (journal, "give_up"), (Path, "unlink")):
            patch.setattr(owner, name, then_another_begins(getattr(owner, name)))
        first.finish()
    assert len(steps) > 4
    (second,) = begun
    second.append(np.zeros(5, columns))
    second.finish()
    assert np.load("out.npy").shape == (5,)


KILLED = """
import os, sys, time
from klce.scoring import score_file

def progress(done, total):
    print(done, flush=True)
    time.sleep(0.01)

score_file("logits.npy", "targets.npy", out=sys.argv[1], block_rows=50, resume=True,
           progress=progress)
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*no interrupted run to resume:UserWarning")  # all was done
@pytest.mark.parametrize("suffix", [".npy", ".csv", ".parquet"])
def test_killed_at_random_moments(files, suffix):
    score_file("logits.npy", "targets.npy", out=f"whole{suffix}")
    before = names(files)
    moments = random.Random(1)
    kills = 0
    for _ in range(60):
        command = [sys.executable, "-c", KILLED, f"out{suffix}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(moments.uniform(0, 0.02))
            process.send_signal(signal.SIGKILL)
            kills += process.wait() != 0
        if (files / f"out{suffix}").exists():
            break
    assert kills > 2
    score_file("logits.npy", "targets.npy", out=f"out{suffix}", resume=True)
    assert (files / f"out{suffix}").read_bytes() == (files / f"whole{suffix}").read_bytes()
    assert names(files) == sorted([*before, f"out{suffix}"])


def test_an_unwritable_folder(files):
    (files / "folder").mkdir(mode=0o500)
    if os.access(files / "folder", os.W_OK):  # as root
        (files / "folder").rmdir()
        (files / "folder").symlink_to("/proc")
    with pytest.raises(OSError, match=r"folder/out\.npy'$"):
        run("score", "folder/out.npy")


def test_fingerprints_see_every_shard(files):
    (files / "shards").mkdir()
    for i in range(3):
        np.save(f"shards/{i}.npy", np.ones((4, 3)))
    for place in ("shards", "shards/*.npy", "sh*/*.npy", "shards::x"):
        before = fingerprint(place)
        assert fingerprint(place) == before
        os.utime("shards/1.npy", ns=(0, time.time_ns()))
        assert fingerprint(place) != before
    assert fingerprint("shards")[1] == fingerprint("shards/*.npy")[1]
    assert len(fingerprint("shards")[1]) == 3
    assert fingerprint(None) is None


def test_a_file_behind_a_url_that_has_changed(files):
    memory = pytest.importorskip("fsspec").filesystem("memory")
    memory.put("logits.npy", "/journal/a.npy")
    memory.put("logits.npy", "/journal/b.npy")

    def score(url, **options):
        return score_file(url, "targets.npy", out="out.npy", block_rows=100, **options)

    with pytest.raises(Interrupted):
        score("memory://journal/a.npy", progress=stop_after(400))
    with pytest.raises(InputError, match=r"LOGITS was memory://journal/a\.npy; start anew"):
        score("memory://journal/b.npy", resume=True)
    with memory.open("/journal/a.npy", "ab") as file:
        file.write(b"more")
    with pytest.raises(InputError, match=r"LOGITS has changed since \(memory://journal/a\.npy\)"):
        score("memory://journal/a.npy", resume=True)
    memory.put("logits.npy", "/journal/a.npy")
    assert score("memory://journal/a.npy", resume=True).resumed_rows > 0
