"""How inputs are cut into blocks."""

import math

import numpy as np
import pytest
import zarr

from klce.scoring.blocks import plan_blocks
from klce.scoring.inputs import Logits
from klce.scoring.readers import base, open_reader
from klce.scoring.readers.base import Chunks


@pytest.mark.parametrize(
    ("shape", "chunks", "rows"),
    [
        ((100, 5), (30, 5), 30),
        ((100, 5), (30, 2), 30),
        ((4, 50, 5), (2, 50, 5), 100),
        ((4, 50, 5), (4, 20, 1), 200),
        ((4, 50, 5), (1, 10, 5), 10),
        ((4, 50, 5), (1, 20, 5), 50),
        ((100, 5), (1, 5), 1),
    ],
)
@pytest.mark.parametrize("finished", [0, 7])
def test_each_chunk_is_decoded_once(tmp_path, monkeypatch, shape, chunks, rows, finished):
    values = np.random.default_rng(0).normal(size=shape)
    zarr.create_array(tmp_path / "a.zarr", data=values, chunks=chunks)
    logits = Logits(open_reader(tmp_path / "a.zarr"))
    assert logits.chunks == Chunks(rows, 8 * math.prod(chunks), kept=False)
    assert logits.chunks.decoding_bytes == 16 << 20
    held = 2 * 8 * 5
    for room in (rows, 2.5 * rows, 1000):
        memory = logits.chunks.decoding_bytes + int(room * held)
        plan = plan_blocks([logits], memory=memory, block_rows=None)
        assert plan.block_rows % rows == 0
        spans = list(plan.spans(finished))
        assert [start for start, _ in spans] == [finished, *(stop for _, stop in spans[:-1])]
        assert all(stop % rows == 0 for _, stop in spans[:-1])
        assert spans[-1][1] == logits.rows
        for start, stop in spans:
            np.testing.assert_array_equal(
                logits.block(start, stop), values.reshape(-1, 5)[start:stop]
            )


def test_chunks_too_large_for_the_memory_are_a_warning(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", shape=(3000, 32000), chunks=(3000, 4000), dtype="f4")
    logits = Logits(open_reader(tmp_path / "a.zarr"))
    held, decoding = 2 * 4 * 32000, 2 * 4 * 3000 * 4000
    plan = plan_blocks([logits], memory=decoding + 3000 * held, block_rows=None)
    assert plan.block_rows == 3000
    message = (
        rf"^{tmp_path}/a\.zarr: chunks of 3,000 rows and 48MB are too large for memory 250MB: each "
        r"is decoded 5 times; with --memory 864MB it is once$"
    )
    with pytest.warns(UserWarning, match=message):
        plan = plan_blocks([logits], memory=250_000_000, block_rows=None)
    assert list(plan.spans(100))[:2] == [(100, 700), (700, 1300)]
    assert {stop - start for start, stop in plan.spans()} == {600}
    over = "is decoded 31 times and the run takes up to 121MB; with --memory 864MB it is once$"
    with pytest.warns(UserWarning, match=over):
        plan_blocks([logits], memory=100_000_000, block_rows=None)

    for memory, shown in ((1, "1 byte"), (9999, "9,999 bytes"), (1_500_001, "1501kB")):
        with pytest.warns(UserWarning, match=f"are too large for memory {shown}: each is decoded"):
            plan_blocks([logits], memory=memory, block_rows=None)

    zarr.create_array(tmp_path / "b.zarr", shape=(3000, 32000), chunks=(3000, 32000), dtype="f4")
    logits = Logits(open_reader(tmp_path / "b.zarr"))
    over = "3,000 rows and 384MB are too large for memory 250MB: the run takes up to 1153MB$"
    with pytest.warns(UserWarning, match=over):
        plan_blocks([logits], memory=250_000_000, block_rows=None)


def test_chunks_of_both_inputs_are_decoded_once(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", data=np.ones((100, 5)), chunks=(6, 5))
    zarr.create_array(tmp_path / "b.zarr", data=np.ones((100, 5)), chunks=(4, 5))
    inputs = [Logits(open_reader(tmp_path / f"{name}.zarr")) for name in "ab"]
    assert plan_blocks(inputs, memory=256 << 20, block_rows=None).chunk_rows == 12


@pytest.mark.parametrize("item", [(3,), (2, 3)])
def test_blocks_of_mapped_files_are_views(tmp_path, item):
    """So that the memory of a run, which does not count copies, holds; small files are joined."""
    rows = 1000 * math.prod(item[:-1])
    array = np.random.default_rng(0).normal(size=(1000, *item))
    for i, part in enumerate(np.split(array, [400, 404, 404, 409, 410, 690, 995])):
        np.save(tmp_path / f"{i}.npy", part)
    logits = Logits(open_reader(tmp_path))
    per = rows // 1000
    assert logits.ends == tuple(per * end for end in (400, 404, 409, 410, 690, 995))
    joined = 10 * per * logits.row_bytes
    for block_rows in (None, 100 * per, 7 * per, 1):
        plan = plan_blocks([logits], memory=8 * joined, block_rows=block_rows)
        blocks = list(plan.spans(9 * per))
        assert [start for start, _ in blocks] == [9 * per, *(stop for _, stop in blocks[:-1])]
        assert blocks[-1][1] == rows
        for start, stop in blocks:
            block = logits.block(start, stop)
            np.testing.assert_array_equal(block, array.reshape(-1, 3)[start:stop])
            is_view = not any(start < end < stop for end in logits.ends)
            assert is_view or (stop - start) * logits.row_bytes <= joined
            assert stop - start <= plan.block_rows
        if block_rows is None:
            ends = [400, 410, 690, 995, 1000]
            assert [stop for _, stop in blocks] == [per * end for end in ends]


def test_blocks_of_two_folders_are_views_of_both(tmp_path):
    for name, ends in (("p", [300, 600]), ("q", [500])):
        (tmp_path / name).mkdir()
        for i, part in enumerate(np.split(np.zeros((1000, 3)), ends)):
            np.save(tmp_path / name / f"{i}.npy", part)
    inputs = [Logits(open_reader(tmp_path / name)) for name in "pq"]
    plan = plan_blocks(inputs, memory=1000, block_rows=None)
    assert list(plan.spans()) == [(0, 300), (300, 500), (500, 600), (600, 1000)]


def test_blocks_of_whole_chunks_do_not_end_with_files(tmp_path, monkeypatch):
    """Beside them, what spans mapped files is a copy that counts."""
    (tmp_path / "p").mkdir()
    for i, part in enumerate(np.split(np.zeros((1000, 3)), [333])):
        np.save(tmp_path / "p" / f"{i}.npy", part)
    zarr.create_array(tmp_path / "q.zarr", data=np.zeros((1000, 3)), chunks=(100, 1))
    monkeypatch.setattr(base, "DECODED_BYTES", 0)
    inputs = [Logits(open_reader(tmp_path / name)) for name in ("p", "q.zarr")]
    decoding = inputs[1].chunks.decoding_bytes
    plan = plan_blocks(inputs, memory=decoding + 2 * 200 * 2 * 24, block_rows=None)
    assert list(plan.spans()) == [(start, start + 200) for start in range(0, 1000, 200)]
