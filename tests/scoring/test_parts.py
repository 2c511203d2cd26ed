"""Results as a folder of Parquet parts: the same files whatever the run, and no folder lost."""

import errno
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from klce import cli
from klce.scoring import InputError, Interrupted, parts, results, score_file
from klce.scoring.outputs import check_outputs
from tests.scoring.runs import content, run, said, stop_after

PART = 240
"""Rows of a part here, so that 1000 rows make four and the better part of a fifth."""


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(results, "_ROWS_IN_GROUP", PART // parts._GROUPS)


def names(folder=""):
    return sorted(path.name for path in Path(folder).iterdir())


def is_the_table(folder, file):
    """Check that a folder is read as the table that a file is, rows in order."""
    expected = pq.read_table(file)
    table = ds.dataset(folder).to_table()
    assert table.equals(expected)
    assert table["row"].to_pylist() == list(range(len(table)))
    frame = pd.read_parquet(folder)
    pd.testing.assert_frame_equal(frame, pd.read_parquet(file))
    return True


# --- what is written ------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["score", "compare", "compat"])
def test_one_table_in_parts_of_fixed_rows(files, command):
    before = names()
    run(command, "rows.parquet")
    found = run(command, "rows/")
    assert found.out == "rows/"
    assert names() == sorted([*before, "rows", "rows.parquet"])
    assert names("rows") == [f"part-{i:06}.parquet" for i in range(5)]
    assert [pq.read_metadata(f"rows/{name}").num_rows for name in names("rows")] == [
        PART, PART, PART, PART, 1000 - 4 * PART
    ]  # fmt: skip
    assert pq.read_table("rows/part-000001.parquet")["row"][0].as_py() == PART
    assert is_the_table("rows", "rows.parquet")


def test_the_rows_of_a_part_follow_from_the_columns(files, monkeypatch):
    monkeypatch.setattr(results, "_BYTES_IN_GROUP", 1000)
    options = {"top_k": 20, "want": ()}
    run("score", "rows.parquet", **options)
    run("score", "rows/", **options)
    groups = [pq.ParquetFile(f"rows/{name}").num_row_groups for name in names("rows")]
    assert set(groups[:-1]) == {parts._GROUPS}
    assert is_the_table("rows", "rows.parquet")


def test_no_rows_are_a_part_too(files):
    np.save("none.npy", np.zeros((0, 3)))
    score_file("none.npy", out="rows/")
    assert names("rows") == ["part-000000.parquet"]
    assert ds.dataset("rows").to_table().column_names[:2] == ["row", "max_log_prob"]


def test_whole_parts_only(files):
    np.save("two.npy", np.zeros((2 * PART, 3)))
    score_file("two.npy", out="rows/")
    assert names("rows") == ["part-000000.parquet", "part-000001.parquet"]


def test_klce_reads_them(files):
    run("score", "rows/")
    found = score_file("logits.npy", "rows::target", out="again.npy")
    assert said(found)["mean_nll_nats"] == said(run("score"))["mean_nll_nats"]


@pytest.mark.parametrize("block_rows", [1, 7, PART, 999, 1000])
def test_blocks_change_no_byte(files, block_rows):
    run("score", "whole/")
    run("score", "rows/", block_rows=block_rows)
    assert content("rows") == content("whole")


def test_parts_are_written_as_blocks_come_in(files):
    seen = []

    def progress(done, total):
        seen.append(len(names(".rows.parts")))
        assert not Path("rows").exists()

    run("score", "rows/", block_rows=100, progress=progress)
    assert seen == [100 * (i + 1) // PART for i in range(10)]


def test_options_of_the_command_line(files):
    arguments = ["score", "logits.npy", "targets.npy", "--quiet", "--out"]
    assert CliRunner().invoke(cli.app, [*arguments, "rows/"]).exit_code == 0
    assert CliRunner().invoke(cli.app, [*arguments, "rows"]).exit_code == 2
    assert len(names("rows")) == 5
    help_text = " ".join(CliRunner().invoke(cli.app, ["compare", "--help"]).stdout.split())
    assert "FOLDER/" in help_text


# --- interrupted, and resumed ---------------------------------------------------------------------


@pytest.mark.parametrize("command", ["score", "compare", "compat"])
def test_resumed_is_as_uninterrupted(files, command):
    whole = run(command, "whole/")
    before = names()
    with pytest.raises(Interrupted, match=r"^600 of 1,000 rows are finished$"):
        run(command, "rows/", block_rows=100, progress=stop_after(600))
    hidden = [".rows.parts", ".rows.rows.crc", ".rows.rows.npy", ".rows.run.json"]
    assert names() == sorted([*before, *hidden])
    kept = {name: Path(".rows.parts", name).stat().st_mtime_ns for name in names(".rows.parts")}
    assert len(kept) == 2
    resumed = run(command, "rows/", resume=True)
    assert resumed.resumed_rows == 600
    assert said(resumed) == said(whole)
    assert content("rows") == content("whole")
    assert {name: Path("rows", name).stat().st_mtime_ns for name in kept} == kept
    assert names() == sorted([*before, "rows"])


def test_damaged_parts_and_those_of_other_columns_are_written_again(files):
    run("score", "whole/", want=["rank", "nll"])

    def interrupted(**options):
        with pytest.raises(Interrupted):
            run("score", "rows/", block_rows=100, progress=stop_after(800), **options)
        assert len(names(".rows.parts")) == 3

    def resumed():
        assert run("score", "rows/", resume=True, want=["rank", "nll"]).resumed_rows == 800
        assert content("rows") == content("whole")

    interrupted(want=["nll"])
    Path(".rows.parts/.part-000004.parquet.part").touch()
    resumed()
    interrupted(want=["rank", "nll"])
    Path(".rows.parts/part-000001.parquet").write_bytes(b"PAR1")
    resumed()
    interrupted(want=["rank", "nll"])
    Path(".rows.parts/part-000000.parquet").unlink()
    resumed()


def test_without_resume_a_run_starts_anew(files):
    run("score", "whole/")
    with pytest.raises(Interrupted):
        run("score", "rows/", block_rows=100, progress=stop_after(800), ignore_index=3)
    with pytest.warns(UserWarning, match=r"^rows/: 800 finished rows .* are given up$"):
        assert run("score", "rows/").resumed_rows == 0
    assert content("rows") == content("whole")


def test_an_interrupt_before_the_first_row_leaves_nothing(files):
    before = names()

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("klce.scoring.score.score_block", stop)
        with pytest.raises(KeyboardInterrupt):
            run("score", "rows/")
    assert names() == before


def test_an_interrupt_as_a_folder_is_replaced_loses_nothing(files, monkeypatch):
    run("score", "whole/")
    run("score", "rows/", ignore_index=3)
    before = content("rows")
    real, calls = os.replace, []

    def replace(source, target):
        if Path(source).name == ".rows.parts":
            raise KeyboardInterrupt
        calls.append(target)
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(Interrupted, match=r"^1,000 of 1,000"):
            run("score", "rows/")
    assert content(".rows.old") == before
    run("score", "rows/", resume=True)
    assert content("rows") == content("whole")
    assert not [name for name in names() if name.startswith(".")]


@pytest.mark.parametrize("when", ["as it comes", "at the end"])
def test_a_full_disk(files, monkeypatch, when):
    run("score", "whole/")
    real = results.ParquetWriter.write

    def write(writer, table):
        if writer._next_row == (PART if when == "as it comes" else 4 * PART):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(writer, table)

    arguments = ["score", "logits.npy", "targets.npy", "--quiet", "--memory", "40kB", "-o", "rows/"]
    arguments += ["--groups", "groups.npy"]
    with monkeypatch.context() as patch:
        patch.setattr(results.ParquetWriter, "write", write)
        done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 2
    kept = "1,000" if when == "at the end" else r"\d\d\d"
    assert re.fullmatch(
        rf"klce: rows/: No space left on device; {kept} of 1,000 rows are finished; free space "
        r"and go on with: klce .*--resume\n",
        done.stderr,
    )
    assert not Path("rows").exists()
    assert run("score", "rows/", resume=True).resumed_rows > 0
    assert content("rows") == content("whole")


KILLED = """
import sys, time
from klce.scoring import results, score_file

def progress(done, total):
    print(done, flush=True)
    time.sleep(0.01)

results._ROWS_IN_GROUP = 30
score_file("logits.npy", "targets.npy", out="rows/", block_rows=50, resume=True,
           progress=progress)
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*no interrupted run to resume:UserWarning")  # all was done
def test_killed_at_random_moments(files):
    score_file("logits.npy", "targets.npy", out="whole/")
    before = names()
    moments = random.Random(1)
    kills = 0
    for _ in range(60):
        with subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(moments.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
            kills += process.wait() != 0
        if Path("rows").exists():
            break
    assert kills > 2
    score_file("logits.npy", "targets.npy", out="rows/", resume=True)
    assert content("rows") == content("whole")
    assert names() == sorted([*before, "rows"])


# --- what is replaced, and what is not ------------------------------------------------------------


def test_parts_of_an_earlier_run_are_replaced(files):
    np.save("small.npy", np.load("logits.npy")[:300])
    run("score", "rows/")
    before = names()
    score_file("small.npy", out="rows/")
    assert names("rows") == ["part-000000.parquet", "part-000001.parquet"]
    assert names() == before
    (files / "elsewhere").mkdir()
    (files / "link").symlink_to("elsewhere")
    score_file("small.npy", out="link/")
    assert Path("link").is_symlink()
    assert content("elsewhere") == content("rows")


def a_file_of_mine(folder):
    (folder / "mine.txt").write_text("x")
    return "mine.txt"


def a_hidden_file(folder):
    (folder / ".hidden").touch()
    return ".hidden"


def a_part_of_another_tool(folder):
    pd.DataFrame({"row": [0]}).to_parquet(folder / "part-000005.parquet")
    return "part-000005.parquet"


def a_part_of_another_name(folder):
    (folder / "part-000000.parquet").rename(folder / "keep.parquet")
    return "keep.parquet"


def a_damaged_part(folder):
    (folder / "part-000000.parquet").write_bytes(b"PAR1")
    return "part-000000.parquet"


def a_folder(folder):
    (folder / "part-000009.parquet").mkdir()
    return "part-000009.parquet"


@pytest.mark.parametrize(
    "put",
    [
        a_file_of_mine,
        a_hidden_file,
        a_part_of_another_tool,
        a_part_of_another_name,
        a_damaged_part,
        a_folder,
    ],
)
@pytest.mark.parametrize("command", ["score", "compare"])
def test_no_other_folder_is_replaced(files, monkeypatch, command, put):
    run("score", "rows/")
    entry = put(files / "rows")
    before = names("rows")
    monkeypatch.setattr("klce.scoring.inputs.Logits.block", pytest.fail)
    message = (
        "^rows/: --out replaces a folder only if it has nothing but parts that klce wrote, "
        f"and {re.escape(entry)} is none$"
    )
    with pytest.raises(InputError, match=message):
        run(command, "rows/")
    assert names("rows") == before


def test_a_file_put_there_meanwhile_is_kept(files):
    run("score", "rows/")

    def progress(done, total):
        a_file_of_mine(files / "rows")

    with pytest.raises(InputError, match=r"mine\.txt is none") as caught:
        run("score", "rows/", progress=progress)
    assert caught.value.__notes__ == ["1,000 of 1,000 rows are finished"]
    Path("rows/mine.txt").unlink()
    assert run("score", "rows/", resume=True).resumed_rows == 1000


@pytest.mark.parametrize("place", [".", "..", "/", "/dev/shm"])
def test_no_mount_point_and_no_working_folder(files, monkeypatch, place):
    (files / "inside").mkdir()
    monkeypatch.chdir("inside")
    out = place.rstrip("/") + "/"
    with pytest.raises(InputError, match=rf"^{out}: --out replaces no mount point, nor the folder"):
        check_outputs(out, False, {})
    assert (files / "inside").exists()


@pytest.mark.parametrize(
    ("out", "source", "message"),
    [
        ("rows", "logits.npy", "rows: not a file type .*; an --out that ends in a slash is"),
        ("targets.npy/", "logits.npy", r"^targets\.npy/: is a file, where --out with a slash at"),
        ("no/rows/", "logits.npy", "there is no folder no"),
        ("s3://bucket/rows/", "logits.npy", "^s3://bucket/rows: output goes to local files only"),
        ("shards/", "shards", r"^shards: results would replace the input shards/0\.npy"),
        ("shards/", "shards/0.npy", r"^shards: results would replace the input shards/0\.npy"),
        ("old/", "old::target", "would replace the input old/part-000000"),
        ("old/", "link.parquet::target", "would replace the input link"),
        ("a.zarr/rows/", "a.zarr", "would become a part of the input a.zarr"),
        ("new/", "*/part-*::target", r"^new/: .* become a part of the input \*/part"),
        ("new/", "**/part-*::target", "become a part of the input"),
        ("ox/", "o*/*.parquet", "become a part of the input"),
        ("old.parquet/", "*.parquet", "become a part of the input"),
    ],
)
def test_refused(files, out, source, message):
    run("score", "old/")
    (files / "link.parquet").symlink_to("old/part-000000.parquet")
    (files / "shards").mkdir()
    np.save("shards/0.npy", np.load("logits.npy"))
    (files / "a.zarr").mkdir()
    before = names()
    with pytest.raises(InputError, match=message):
        check_outputs(out, False, {"logits": source})
    assert names() == before


def test_a_folder_that_cannot_be_emptied(files, monkeypatch):
    run("score", "old/")
    before = names()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # which root always may
    with pytest.raises(PermissionError, match="Permission denied: 'old/'"):
        run("score", "old/")
    assert names() == before


@pytest.mark.parametrize(
    ("out", "source"),
    [("new/", "o*/part-*"), ("new/", "old"), ("deep/new/", "*/*.parquet"), ("new/", "deep/**")],
)
def test_a_folder_that_no_input_takes_in(files, out, source):
    run("score", "old/")
    (files / "deep").mkdir()
    np.save("deep/0.npy", np.zeros(3))
    check_outputs(out, False, {"logits": source})


@pytest.mark.parametrize("option", ["sequences_out", "report"])
def test_no_other_output_is_within(files, option):
    run("score", "rows/")
    other = "rows/other.html"
    with pytest.raises(InputError, match=f"^rows/: the outputs need a place each, and {other} is"):
        run("score", "rows/", **{option: other})


def test_needs_pyarrow(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"^rows/: writing a folder .* needs pyarrow: pip install"):
        run("score", "rows/")
