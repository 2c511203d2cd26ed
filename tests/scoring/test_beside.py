"""Arrays `targets` and `groups` in the file of logits, which are taken without being named."""

import json

import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner

from klce.cli import app
from klce.scoring import InputError, LabelError, compare_file, score_file


@pytest.fixture
def save(tmp_path, monkeypatch):
    """Work in a folder, and save logits with arrays beside them."""
    monkeypatch.chdir(tmp_path)
    logits = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
    np.save("alone.npy", logits)
    return lambda **beside: np.savez("x.npz", logits=logits, **beside)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (np.zeros(3, int), r"labels of shape \(3,\) do not match x\.npz::logits, .*\(12,\)"),
        (np.zeros(12), "labels must hold integers, class indices, got float64"),
        (
            np.full(12, 5),
            "labels must hold class indices from 0 to 4 or ignore_index=-100, got 5 in row 0",
        ),
    ],
)
def test_labels_that_do_not_fit(save, targets, message):
    save(targets=targets)
    unless = r"; it is taken since it is beside the logits, unless targets=False \(--no-targets\)$"
    error = LabelError if targets.max() else InputError
    for place in ("x.npz", "x.npz::logits"):
        with pytest.raises(error, match=rf"^x\.npz::targets: {message}{unless}"):
            score_file(place)
        with pytest.raises(error, match=rf"^x\.npz::targets: {message}{unless}"):
            compare_file(place, "alone.npy")
        with pytest.raises(error, match=rf"^x\.npz::targets: {message}$"):
            score_file(place, "x.npz::targets")
    assert score_file("x.npz", targets=False).summary == score_file("alone.npy").summary
    assert compare_file("x.npz", "alone.npy", False).targets is None


@pytest.mark.parametrize("targets", [np.zeros(3, int), np.full(12, 5)])
def test_no_advice_to_do_without_labels_that_are_needed(save, targets):
    save(targets=targets)
    with pytest.raises(InputError, match=r"^x\.npz::targets: labels (?!.*no-targets)"):
        compare_file("x.npz", "alone.npy", compat="llama.cpp")
    message = r"^llama\.cpp's statistics need labels, got targets=False \(--no-targets\)$"
    with pytest.raises(InputError, match=message):
        compare_file("x.npz", "alone.npy", False, compat="llama.cpp")


def test_groups_that_do_not_fit(save):
    save(groups=np.zeros((3, 4)))
    unless = r"; it is taken since it is beside the logits, unless groups=False \(--no-groups\)$"
    with pytest.raises(InputError, match=rf"^x\.npz::groups: groups must be integers.*{unless}"):
        compare_file("x.npz", "alone.npy")
    assert compare_file("x.npz", "alone.npy", groups=False).sequences is None


def test_a_run_is_resumed_as_it_began(save):
    arrays = {"logits": np.load("alone.npy"), "targets": np.arange(12) % 5}
    safetensors.numpy.save_file(arrays, "x.safetensors")

    def stop(done, total):
        raise KeyboardInterrupt

    for first, then, message in (
        (False, None, "--no-targets was given"),
        (None, False, "--no-targets was not given"),
    ):
        with pytest.raises(KeyboardInterrupt):
            score_file("x.safetensors", first, out=f"{first}.npy", block_rows=4, progress=stop)
        with pytest.raises(InputError, match=message):
            score_file("x.safetensors", then, out=f"{first}.npy", resume=True)
    assert score_file("x.safetensors", out="None.npy", resume=True).resumed_rows == 4


def test_options_of_the_commands(save):
    save(targets=np.arange(12) % 5, groups=np.arange(12) // 4)

    def run(*arguments):
        return CliRunner().invoke(app, [*arguments, "--json"])

    assert json.loads(run("score", "x.npz").stdout)["targets"] == "x.npz::targets"
    assert json.loads(run("score", "x.npz", "--no-targets").stdout)["targets"] is None
    compare = ("compare", "x.npz", "alone.npy")
    found = json.loads(run(*compare).stdout)
    assert (found["targets"], found["sequences"]) == ("x.npz::targets", 3)
    found = json.loads(run(*compare, "--no-targets", "--no-groups").stdout)
    assert (found["targets"], found["sequences"]) == (None, None)
    done = run(*compare, "x.npz::targets", "--no-targets")
    assert done.exit_code == 2
    assert done.stderr == "klce: --no-targets takes none, got x.npz::targets\n"
