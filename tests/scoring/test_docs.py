"""The commands of docs/scoring.md run, each as it stands there."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import klce
from klce._ufuncs import STATISTICS
from klce.cli import app
from klce.scoring import llama_cpp
from klce.scoring.columns import score_columns
from klce.scoring.compare_columns import CUT_OFF, OWN, comparison_columns
from klce.scoring.optional import EXTRAS
from klce.scoring.readers import READERS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "scoring.md").read_text()


@pytest.mark.slow
def test_commands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    commands = [line for line in lines if not line.startswith("pip ")]
    assert len(commands) > 12
    for command in commands:
        words = shlex.split(command, comments=True)
        if words[0] == "klce":  # in this process, which has all libraries by then
            with klce.threads(1):  # one worker of Dask
                done = CliRunner().invoke(app, words[1:])
            assert (done.exit_code, done.stderr) == (0, ""), command
        else:
            subprocess.run(words, check=True)
    assert_ignored(tmp_path)


def assert_ignored(folder):
    """Check that git does not take for sources what the examples wrote."""
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {f"/{path.name}" for path in folder.iterdir()} - {"/examples"} <= {*ignored}


def test_python(tmp_path):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 3
    for code in blocks:
        run = [sys.executable, "-W", "error", "-c", code]
        subprocess.run(run, cwd=tmp_path, env=os.environ, check=True)
    assert_ignored(tmp_path)


def test_the_environment_is_activated():
    assert ". .venv/bin/activate" in PAGE
    assert "python3 -m venv .venv" in (ROOT / "README.md").read_text()


def test_installs_are_in_place():
    """Elsewhere, the folder `klce/` of the repository would hide what was installed."""
    names = ("README.md", "CONTRIBUTING.md", "benchmarks/README.md", "tests/peers/README.md")
    for page in (PAGE, *((ROOT / name).read_text() for name in names)):
        installs = re.findall(r"pip install (.*?)(?:\s*[`#&\n])", page)
        klces = [what for what in installs if what != "torch"]
        assert klces
        for what in klces:
            assert re.fullmatch(r"-e '\.\[[a-z,]+\]'", what), what


def test_every_extra_for_users_is_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    for extra in {*EXTRAS.values(), "cli"}:
        assert f"`{extra}`" in readme


def test_every_option_is_documented():
    options = {
        option
        for command in app.commands.values()
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("--")
    }
    assert {option for option in options if option not in PAGE} <= {"--help"}


def test_every_format_is_documented_and_whether_urls_have_it():
    table, _, _ = PAGE.split("| suffix | what | URL |")[1].partition("\n\n")
    documented = {}
    for line in table.splitlines()[2:]:
        suffixes, *_, url = line.strip("| ").split(" | ")
        documented |= dict.fromkeys(re.findall(r"`(\.\w+)`", suffixes), url == "yes")
    assert documented == {suffix: found.remote for suffix, found in READERS.items()}


def test_every_column_is_documented_with_its_dtype():
    _, score, compare, compat = PAGE.split("| column of `--out` | dtype | unit | |")
    everything = {"want": tuple(STATISTICS["score"]), "top_k": 2, "candidates": 2, "classes": 3}
    compared = {"want": (*STATISTICS["compare"], *OWN), "top_k": 2, "classes": 3}
    for text, columns in (
        (score, score_columns("f4", labelled=True, cut_off=True, **everything)),
        (compare, comparison_columns("f4", labelled=True, cut_off=CUT_OFF, **compared)),
        (compat, llama_cpp.COLUMNS),
    ):
        table, _, _ = text.partition("\n\n")
        documented = {}
        for line in table.splitlines()[2:]:
            names, dtype, _ = line.split(" | ", 2)
            documented |= dict.fromkeys(re.findall(r"`(\w+)`", names), dtype)
        assert documented.keys() == set(columns.names)
        for name in columns.names:  # "float" stands for both
            dtype = columns[name].base.name
            assert dtype in documented[name] or (dtype == "float32" and "float" in documented[name])
