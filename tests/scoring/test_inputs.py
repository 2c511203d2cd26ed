"""Rows of logits in memory or on a map; labels and candidates, while their files are read."""

import os

import numpy as np
import pytest

from klce.scoring import InputError, LabelError, score_file
from klce.scoring.inputs import Logits
from klce.scoring.readers import open_reader
from tests.scoring.runs import run


def written_over(name, value):
    """Return a callback of progress that changes a file in its place."""

    def progress(done, total):
        np.load(name, mmap_mode="r+")[700] = value
        os.utime(name, ns=(0, 0))  # not every file system tells of writing to a map

    return progress


@pytest.mark.parametrize("label", [99, -1])
@pytest.mark.parametrize("command", ["score", "compare", "compat"])
def test_labels_that_are_written_over_meanwhile(files, command, label):
    told = rf"^targets\.npy: labels must hold .*, got {label} in row 700$"
    with pytest.raises(LabelError, match=told):
        run(command, block_rows=100, progress=written_over("targets.npy", label))


def test_a_label_that_is_ignored_meanwhile_is_not_llama_cpps(files):
    with pytest.raises(InputError, match=r"^targets\.npy: row 700 is ignored \(label -100\)"):
        run("compat", block_rows=100, progress=written_over("targets.npy", -100))


@pytest.mark.parametrize("candidate", [99, -1])
def test_candidates_that_are_written_over_meanwhile(files, candidate):
    def score(out, **options):
        score_file("logits.npy", candidates="ids.npy", out=out, block_rows=100, **options)
        return np.load(out)["candidate_log_probs"]

    progress = written_over("ids.npy", candidate)
    np.save("ids.npy", np.zeros((1000, 2), int))
    told = rf"^ids\.npy: candidates must hold .*, got {candidate} in row 700\n700 of 1,000 rows are"
    with pytest.raises(LabelError, match=told):
        score("each.npy", progress=progress)

    np.save("ids.npy", np.arange(1000) % 20)  # of all rows: those that there were
    with pytest.warns(UserWarning, match="--candidates has changed while it was read"):
        changed = score("all.npy", progress=progress)
    np.save("ids.npy", np.arange(1000) % 20)
    np.testing.assert_array_equal(changed, score("again.npy"))


@pytest.mark.parametrize("shape", [(4, 3), (4, 2, 3)])
@pytest.mark.parametrize("orders", ["CC", "CF", "FF"])
def test_blocks_of_maps_are_views_but_of_several_axes_in_fortran_order(tmp_path, shape, orders):
    """Where they take memory, of which they have a share."""
    for i, order in enumerate(orders):
        np.save(tmp_path / f"{i}.npy", np.ones(shape, order=order))
    logits = Logits(open_reader(tmp_path))
    copied = len(shape) > 2 and "F" in orders
    assert logits.block_row_bytes == 24 * copied
    assert logits.ends == (() if copied else (logits.rows // 2,))


@pytest.mark.parametrize("shape", [(4, 3), (4, 2, 3)])
def test_blocks_of_streams_in_fortran_order_are_those_of_a_map(tmp_path, shape):
    """That of their copy."""
    np.savez(tmp_path / "a.npz", np.ones(shape, order="F"))
    assert Logits(open_reader(tmp_path / "a.npz")).block_row_bytes == 24 * (len(shape) > 2)


def test_files_that_are_not_mapped_tell_no_ends_of_maps(tmp_path):
    for i in range(2):
        np.savez(tmp_path / f"{i}.npz", np.zeros((5, 3)))
    reader = open_reader(tmp_path)
    assert (reader.ends, Logits(reader).ends) == ((5,), ())
