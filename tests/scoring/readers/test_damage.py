"""Damage that a library finds, while it reads, is told by the file and the rows."""

import os
import re
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import safetensors.numpy
import zarr

from klce.scoring import InputError
from klce.scoring.readers import open_reader

NOISE = np.random.default_rng(0).bytes(2000)


def logits(*shape):
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def column(values):
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[-1])


def read(path):
    reader = open_reader(path)
    leading = len(reader.shape) - 1
    return reader.read(0, int(np.prod(reader.shape[:-1])), leading)


def overwrite(path, at):
    with path.open("r+b") as file:
        file.seek(at)
        file.write(NOISE)


@pytest.mark.parametrize(
    ("shape", "chunks", "chunk", "rows"),
    [
        ((500, 40), (100, 40), "c/2/0", "200 to 299"),
        ((500, 40), (100, 20), "c/4/1", "400 to 499"),
        ((4, 50, 40), (1, 30, 40), "c/3/1/0", "180 to 199"),
    ],
)
def test_zarr(tmp_path, shape, chunks, chunk, rows):
    zarr.create_array(tmp_path / "a.zarr", data=logits(*shape), chunks=chunks)
    (tmp_path / "a.zarr" / chunk).write_bytes(NOISE)
    fault = rf"^{tmp_path}/a\.zarr: damaged within rows {rows}: [^\n]+$"
    with pytest.raises(InputError, match=fault):
        read(tmp_path / "a.zarr")


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b'{"node_type": "group"}', b"[]"])
def test_metadata_of_zarr(tmp_path, content):
    zarr.create_array(tmp_path / "a.zarr", data=logits(5, 4))
    (tmp_path / "a.zarr" / "zarr.json").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.zarr: not a Zarr array or group, or a damaged one$"):
        read(tmp_path / "a.zarr")


def test_arrow(tmp_path):
    path, values = tmp_path / "a.arrow", column(logits(500, 40))
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    schema = pa.schema([("logits", values.type)])
    with pa.ipc.new_file(path, schema, options=options) as writer:
        for start in range(0, 500, 100):
            writer.write_batch(pa.record_batch([values[start : start + 100]], schema=schema))
    overwrite(path, path.stat().st_size // 2)
    with pytest.raises(InputError, match=rf"^{path}: damaged from row 200 on: [^\n]+$"):
        read(path)


def save_arrow(path, new):
    values = column(logits(500, 40))
    schema = pa.schema([("logits", values.type)])
    with new(path, schema) as writer:
        for start in range(0, 500, 100):
            writer.write_batch(pa.record_batch([values[start : start + 100]], schema=schema))


SAVE = {
    ".npy": lambda path: np.save(path, logits(500, 40)),
    ".safetensors": lambda path: safetensors.numpy.save_file({"a": logits(500, 40)}, path),
    ".arrow": lambda path: save_arrow(path, pa.ipc.new_file),
    ".arrows": lambda path: save_arrow(path, pa.ipc.new_stream),
}


@pytest.mark.skipif(sys.platform == "win32", reason="where no file that is mapped can be cut off")
@pytest.mark.parametrize("suffix", SAVE)
def test_a_file_that_is_cut_off_while_it_is_read(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    SAVE[suffix](path)
    reader, size = open_reader(path), path.stat().st_size
    np.testing.assert_array_equal(reader.read(0, 10, 1), logits(500, 40)[:10])
    os.truncate(path, 20000)
    told = rf"^{path}: cut off while it was read: 20,000 bytes are left of {size:,}$"
    with pytest.raises(InputError, match=told):
        reader.read(400, 500, 1)


ARROW = [(".arrow", pa.ipc.new_file), (".arrow", pa.ipc.new_stream), (".arrows", pa.ipc.new_stream)]
OFFSETS = 7 * np.arange(101, dtype=np.int32)


def save_lists(path, new):
    values = pa.ListArray.from_arrays(pa.array(OFFSETS), pa.array(logits(100, 7).reshape(-1)))
    batch = pa.record_batch([values], names=["logits"])
    with new(path, batch.schema) as writer:
        writer.write_batch(batch)


@pytest.mark.parametrize(("suffix", "new"), ARROW)
@pytest.mark.parametrize(
    "change",
    [
        lambda offsets: offsets - 7,
        lambda offsets: offsets + 3,
        lambda offsets: offsets + 7,
        lambda offsets: offsets + 10**8,
        lambda offsets: np.where(offsets == 0, 10**6, offsets),
        lambda offsets: np.where(offsets == 350, 700, offsets),
    ],
)
def test_offsets_of_lists_in_arrow(tmp_path, suffix, new, change):
    path = tmp_path / f"a{suffix}"
    save_lists(path, new)
    assert read(path).shape == (100, 7)
    whole = path.read_bytes()
    damaged = whole.replace(OFFSETS.tobytes(), change(OFFSETS).astype(np.int32).tobytes())
    path.write_bytes(damaged)
    with pytest.raises(InputError, match=rf"^{path}: damaged from row 0 on: Offset [^\n]+$"):
        read(path)


@pytest.mark.parametrize(("suffix", "new"), ARROW)
def test_names_in_arrow_that_are_no_utf_8(tmp_path, suffix, new):
    path = tmp_path / f"a{suffix}"
    save_lists(path, new)
    path.write_bytes(path.read_bytes().replace(b"logits", b"log\xffts"))
    with pytest.raises(InputError, match=rf"^{path}: not a whole Arrow file[^\n]*: 'utf-8' codec"):
        read(path)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("batches", [0, 1, 3])
def test_cut_arrow_stream(tmp_path, legacy, batches):
    path, values = tmp_path / "a.arrows", column(logits(300, 40))
    schema = pa.schema([("logits", values.type)])
    options = pa.ipc.IpcWriteOptions(use_legacy_format=legacy)
    with pa.ipc.new_stream(path, schema, options=options) as writer:
        for start in range(0, 100 * batches, 100):
            writer.write_batch(pa.record_batch([values[start : start + 100]], schema=schema))
    assert open_reader(path).shape == (100 * batches, 40)
    whole = path.read_bytes()
    mark = 4 if legacy else 8
    path.write_bytes(whole[:-mark])
    fault = f"ends without the mark of a stream's end, after {100 * batches} rows: it is cut off"
    with pytest.raises(InputError, match=rf"^{path}: {fault}, or [^\n]+$"):
        open_reader(path)
    path.write_bytes(whole[: 1 - mark])
    with pytest.raises(InputError, match=rf"^{path}: not a whole Arrow file or stream: [^\n]+$"):
        open_reader(path)


@pytest.mark.parametrize("group", [0, 3])
def test_parquet(tmp_path, group):
    path = tmp_path / "a.parquet"
    table = pa.table({"logits": column(logits(500, 40))})
    pa.parquet.write_table(table, path, compression="zstd", row_group_size=100)
    at = pa.parquet.ParquetFile(path).metadata.row_group(group).column(0)
    overwrite(path, at.dictionary_page_offset or at.data_page_offset + 500)
    with pytest.raises(InputError, match=rf"^{path}: damaged from row 0 on: [^\n]+$"):
        read(path)


@pytest.mark.parametrize("checksums", [False, True])
def test_checksums_of_parquet(tmp_path, checksums):
    path, values = tmp_path / "a.parquet", logits(50, 7)
    table = pa.table({"logits": column(values)})
    pa.parquet.write_table(
        table, path, compression="none", use_dictionary=False, write_page_checksum=checksums
    )
    data = bytearray(path.read_bytes())
    data[data.index(values[30].tobytes())] ^= 1
    path.write_bytes(data)
    if not checksums:
        assert (read(path) != values).sum() == 1
        return
    with pytest.raises(InputError, match=rf"^{path}: damaged from row 0 on: [^\n]*CRC[^\n]*$"):
        read(path)


def test_npz(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=logits(500, 40))
    overwrite(path, 40_000)
    fault = rf"^{path}::x: cannot be read from row 0 on: Bad CRC-32 [^\n]+$"
    with pytest.raises(InputError, match=fault):
        read(path)


def test_a_name_in_npz_that_would_be_long(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=logits(50, 400))
    data = bytearray(path.read_bytes())
    data[26:28] = b"\xff\xff"  # of the length of the name, where the array begins
    path.write_bytes(data)
    with pytest.raises(
        InputError, match=rf"^{path}::x: cannot be read: File name in .*\.\.\.$"
    ) as no:
        read(path)
    assert len(str(no.value)) < 500


def test_directory_of_npz(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=logits(5, 40))
    data = bytearray(path.read_bytes())
    data[-4] ^= 0x40  # of the place of the directory: zipfile takes what is amiss for a prefix
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"^{path}: damaged: arrays begin before the archive"):
        read(path)


def test_npz_of_another_version(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=logits(5, 40))
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 6] = 99
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"^{path}: not a \.npz file, or a truncated or damaged"):
        read(path)


@pytest.mark.parametrize("name", ["x.npy", "x.parquet", "x.npz", "x.kld"])
def test_nothing_behind_a_url(name):
    with pytest.raises(FileNotFoundError, match=re.escape(f"'memory://{name}'")) as caught:
        open_reader(f"memory://{name}")
    assert caught.value.strerror == "No such file or directory"
