"""What users are told: whose line of code a warning names."""

import os
from pathlib import Path

import numpy as np
import pytest
import zarr

from klce.scoring import Interrupted, compare_file, convert_file, score_file
from tests.scoring.runs import stop_after


def nothing_to_resume():
    score_file("logits.npy", out="out.npy")
    score_file("logits.npy", out="out.npy", resume=True)


def damaged_rows():
    with pytest.raises(Interrupted):
        score_file("logits.npy", out="out.npy", block_rows=100, progress=stop_after(400))
    rows = Path(".out.npy.rows.npy")
    rows.write_bytes(rows.read_bytes()[:-1])
    score_file("logits.npy", out="out.npy", resume=True)


def changed(run, *files):
    run(*files, progress=lambda done, total: os.utime("logits.npy"))


def large_chunks(run, *others):
    zarr.create_array("x.zarr", data=np.ones((3000, 2000)), chunks=(3000, 2000))
    run("x.zarr", *others, memory=1 << 20)


def another_shape():
    np.save("logits.npy", np.zeros((2, 3, 4)))
    convert_file("logits.npy", "out.parquet")


@pytest.mark.parametrize(
    ("warned", "message"),
    [
        (nothing_to_resume, "no interrupted run"),
        (damaged_rows, "not what they were"),
        (lambda: changed(score_file, "logits.npy"), "has changed"),
        (lambda: changed(compare_file, "q.npy", "logits.npy"), "has changed"),
        (lambda: changed(convert_file, "logits.npy", "out.npy"), "has changed"),
        (lambda: large_chunks(score_file), "too large"),
        (lambda: large_chunks(compare_file, "x.zarr"), "too large"),
        (lambda: large_chunks(convert_file, "out.npy"), "too large"),
        (another_shape, "rows on one axis"),
    ],
)
def test_warnings_name_the_caller(files, warned, message):
    with pytest.warns(UserWarning, match=message) as caught:
        warned()
    assert [warning.filename for warning in caught] == [__file__]
