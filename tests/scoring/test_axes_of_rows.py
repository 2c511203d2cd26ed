"""Rows on one axis beside the same rows on several."""

import re

import numpy as np
import pytest
import zarr

from klce.scoring import InputError, LabelError, compare_file, score_file


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Work in a folder with logits and all that goes with them, on one axis and on two."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5, 10, 7)).astype(np.float32)
    arrays = {
        "logits": logits,
        "q": logits + rng.normal(size=logits.shape).astype(np.float32),
        "targets": rng.integers(0, 7, (5, 10)),
        "groups": rng.integers(3, 6, (5, 10)),
        "candidates": rng.integers(0, 7, (5, 10, 2)),
    }
    for name, array in arrays.items():
        classes = array.shape[2:]
        np.save(f"{name}.npy", array)
        np.save(f"flat_{name}.npy", array.reshape(50, *classes))
        np.save(f"other_{name}.npy", array.reshape(10, 5, *classes))
    return tmp_path


@pytest.mark.parametrize("logits", ["", "flat_"])
@pytest.mark.parametrize("others", ["", "flat_"])
def test_either_may_be_flat(files, logits, others):
    def scored(logits, others):
        groups, candidates = f"{others}groups.npy", f"{others}candidates.npy"
        scores = score_file(
            f"{logits}logits.npy", f"{others}targets.npy", groups=groups, candidates=candidates,
            out="out.npy", sequences_out="sequences.npy",
        )  # fmt: skip
        rows, sequences = np.load("out.npy"), np.load("sequences.npy")
        assert rows.shape == scores.shape[:-1]
        return scores.summary, rows.tobytes(), sequences.tobytes()

    assert scored(logits, others) == scored("", "")
    comparison = compare_file(f"{logits}logits.npy", f"{others}q.npy", f"{others}targets.npy")
    assert comparison.summary == compare_file("logits.npy", "q.npy", "targets.npy").summary


def test_two_shapes_of_several_axes_are_not_the_same_rows(files):
    options = {"groups": "other_groups.npy"}, {"candidates": "other_candidates.npy", "out": "o.npy"}
    for some in options:
        with pytest.raises(InputError, match=r"of shape \(10, 5.* of shape \(5, 10\)"):
            score_file("logits.npy", "targets.npy", **some)
    with pytest.raises(InputError, match=r"labels of shape \(10, 5\) do not match .*\(5, 10\)$"):
        score_file("logits.npy", "other_targets.npy")
    message = (
        r"^other_q\.npy: rows of shape \(10, 5\) are not those of logits\.npy, which has rows of "
        r"shape \(5, 10\)$"
    )
    for compat in (None, "llama.cpp"):
        with pytest.raises(InputError, match=message):
            compare_file("logits.npy", "other_q.npy", "targets.npy", compat=compat)


@pytest.mark.parametrize(("others", "place"), [("", r"row 13, at \(1, 3\)"), ("flat_", "row 13")])
def test_a_label_out_of_range_is_where_its_file_has_it(files, others, place):
    for name in ("targets", "candidates"):
        array = np.load(f"{others}{name}.npy")
        array[np.unravel_index(13, (5, 10)) if not others else 13] = 7
        np.save("wrong.npy", array)
        arguments = ("wrong.npy",) if name == "targets" else ()
        options = {} if name == "targets" else {"candidates": "wrong.npy", "out": "out.npy"}
        for logits in ("logits.npy", "flat_logits.npy"):
            with pytest.raises(LabelError, match=rf"got 7 in {place}$"):
                score_file(logits, *arguments, **options)


def test_ids_on_one_axis_that_may_be_offsets_are_refused(files):
    np.save("offsets.npy", np.r_[np.zeros(49, int), 50])
    with pytest.raises(InputError, match="may be an id for each row or offsets"):
        score_file("logits.npy", "targets.npy", groups="offsets.npy")


@pytest.mark.parametrize("suffix", [".npy", ".zarr"])
@pytest.mark.parametrize("logits", [(1, 7), (1, 1, 7)])
def test_a_single_number_is_no_array_of_one_row(files, suffix, logits):
    np.save("one.npy", np.zeros(logits, np.float32))
    np.save("zero.npy", np.zeros(logits[:-1], int))
    if suffix == ".npy":
        np.save("number.npy", 3)
    else:
        zarr.create_array("number.zarr", data=np.array(3))
    number, rows = f"number{suffix}", re.escape(str(logits[:-1]))
    for arguments, options, told in (
        ((number,), {}, rf"labels of shape \(\) do not match .* rows of shape {rows}$"),
        (("zero.npy",), {"groups": number}, r"groups of shape \(\) are neither an id for each"),
        ((), {"candidates": number, "out": "o.npy"}, r"candidates of shape \(\) are neither one"),
    ):
        with pytest.raises(InputError, match=rf"^number\{suffix}: {told}"):
            score_file("one.npy", *arguments, **options)
