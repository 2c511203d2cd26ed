"""Every format gives the same rows, whatever slices they are read in."""

import itertools
import math
import os
import subprocess
import sys
import zipfile

import fsspec
import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
import safetensors.numpy
import zarr

from klce.scoring import InputError, score_file
from klce.scoring.inputs import Logits
from klce.scoring.readers import READERS, Location, base, open_reader
from klce.scoring.readers.base import blocks_of
from klce.scoring.readers.npy import NpyReader
from klce.scoring.readers.npz import NpzFile


def save_npy(path, array):
    np.save(path, array)


def save_npz(path, array):
    np.savez(path, logits=array, other=np.arange(3))


def save_compressed(path, array):
    np.savez_compressed(path, logits=array)


def save_safetensors(path, array):
    safetensors.numpy.save_file({"logits": np.ascontiguousarray(array), "b": np.ones(2)}, path)


def save_zarr(path, array):
    chunks = tuple(max(1, length // 3) for length in array.shape)
    zarr.create_array(path, data=array, chunks=chunks)


def save_zarr_group(path, array):
    group = zarr.create_group(path)
    group.create_array("logits", data=array)
    group.create_group("deep").create_array("other", data=np.arange(3))


def lists(array, kind):
    values = pa.array(array.reshape(-1))
    if kind == "fixed":
        return pa.FixedSizeListArray.from_arrays(values, array.shape[1])
    offsets = np.arange(len(array) + 1) * array.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def save_parquet(path, array, kind="fixed"):
    table = pa.table({"logits": lists(array, kind), "other": np.arange(len(array))})
    pa.parquet.write_table(table, path, row_group_size=7)


def save_parquet_of_lists(path, array):
    save_parquet(path, array, "variable")


def save_arrow(path, array):
    table = pa.table({"logits": lists(array, "fixed"), "other": np.arange(len(array))})
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)


def save_arrow_stream(path, array):
    table = pa.table({"logits": lists(array, "fixed"), "other": np.arange(len(array))})
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)


def save_feather(path, array):
    pa.feather.write_feather(pa.table({"logits": lists(array, "fixed")}), path)


def save_table(path, table):
    """Write a table in the format that the suffix names."""
    if path.suffix == ".parquet":
        pa.parquet.write_table(table, path)
    else:
        new = pa.ipc.new_stream if path.suffix == ".arrows" else pa.ipc.new_file
        with new(path, table.schema) as writer:
            writer.write_table(table)


SAVERS = [
    (".npy", save_npy), (".npz", save_npz), (".npz", save_compressed),
    (".safetensors", save_safetensors), (".zarr", save_zarr), (".zarr", save_zarr_group),
    (".parquet", save_parquet), (".parquet", save_parquet_of_lists),
    (".arrow", save_arrow), (".arrow", save_arrow_stream), (".arrows", save_arrow_stream),
    (".feather", save_feather),
]  # fmt: skip
COLUMNS = (".parquet", ".arrow", ".arrows", ".feather")


def test_all_formats_are_tested():
    assert {suffix for suffix, _ in SAVERS} == set(READERS) - {".kld"}


def check_slices(reader, values):
    assert reader.shape == values.shape
    assert reader.dtype == values.dtype
    for leading in range(1, values.ndim + 1):
        items = values.reshape(math.prod(values.shape[:leading]), *values.shape[leading:])
        n = len(items)
        for start, stop in [(0, n), (3, 5), (2, n), (0, 1), (n, n), (n - 1, n), (5, 5), (1, n - 1)]:
            start, stop = min(start, n), min(stop, n)
            got = reader.read(start, stop, leading)
            np.testing.assert_array_equal(got, items[start:stop], strict=True)


@pytest.mark.parametrize(("suffix", "save"), SAVERS)
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i4", "i8", "?"])
@pytest.mark.parametrize("shape", [(40, 6), (3, 4, 5), (2, 3, 2, 4)])
def test_slices(tmp_path, suffix, save, dtype, shape):
    if len(shape) > 2 and suffix in COLUMNS:
        shape = (math.prod(shape[:-1]), shape[-1])
    values = np.random.default_rng(0).integers(-9, 9, shape).astype(dtype)
    path = tmp_path / f"a{suffix}"
    save(path, values)
    check_slices(open_reader(path), values)


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS takes no such name")
@pytest.mark.parametrize(("suffix", "save"), SAVERS)
def test_names_that_are_no_utf_8(tmp_path, suffix, save):
    values = np.random.default_rng(0).normal(size=(40, 6))
    save(tmp_path / f"a{suffix}", values)
    path = tmp_path / os.fsdecode(b"b\xff" + suffix.encode())
    (tmp_path / f"a{suffix}").rename(path)
    check_slices(open_reader(path), values)


@pytest.mark.parametrize(("suffix", "save"), SAVERS)
def test_scores_are_those_of_the_npy_file(tmp_path, suffix, save):
    values = np.random.default_rng(1).normal(size=(50, 6)).astype(np.float32)
    np.save(tmp_path / "logits.npy", values)
    path = tmp_path / f"other{suffix}"
    save(path, values)
    expected = score_file(tmp_path / "logits.npy", out=tmp_path / "a.npy")
    assert score_file(path, out=tmp_path / "b.npy", block_rows=9).summary == expected.summary
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


def test_bfloat16(tmp_path):
    values = np.random.default_rng(1).normal(size=(50, 6)).astype(ml_dtypes.bfloat16)
    safetensors.numpy.save_file({"x": values}, tmp_path / "a.safetensors")
    check_slices(open_reader(tmp_path / "a.safetensors"), values)
    np.save(tmp_path / "a.npy", values.astype(np.float32))
    report = score_file(tmp_path / "a.safetensors")
    assert report.summary == score_file(tmp_path / "a.npy").summary
    assert (report.dtype, report.computed_in) == ("bfloat16", "float32")
    assert report.read_bytes == values.nbytes


def test_columns_of_numbers_are_labels(tmp_path):
    table = pa.table({"logits": lists(np.ones((5, 3)), "fixed"), "targets": np.arange(5) % 3})
    pa.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    check_slices(open_reader(tmp_path / "a.parquet::targets"), np.arange(5) % 3)
    report = score_file(tmp_path / "a.parquet")
    assert report.targets == f"{tmp_path}/a.parquet::targets"
    assert report.summary.perplexity == pytest.approx(3)


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("suffix", READERS)
def test_pipes_and_devices_are_not_opened(tmp_path, suffix, link):
    path = tmp_path / f"b{suffix}"
    if link:
        path.symlink_to("/dev/null")
    else:
        os.mkfifo(path)
    for place in (path, f"{path}::logits", tmp_path, f"{tmp_path}/*{suffix}"):
        with pytest.raises(InputError, match=rf"^{path}: is a pipe or a device, [^\n]+$"):
            open_reader(place)


def test_blocks_of_cover_the_items_in_order():
    axes = (3, 4, 2)
    numbers = np.arange(24).reshape(axes)
    for start in range(25):
        for stop in range(start, 25):
            parts = [numbers[block].ravel() for block in blocks_of(start, stop, axes)]
            assert np.concatenate([[], *parts]).tolist() == list(range(start, stop))
            assert len(parts) <= 5


# --- names ---------------------------------------------------------------------------------------


def test_names(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros((2, 2)), y=np.ones((2, 2)))
    assert open_reader(f"{path}::y").read(0, 1, 2)[0] == 1
    assert open_reader(f"{path}::y").path == f"{path}::y"
    save_zarr_group(tmp_path / "a.zarr", np.ones((2, 2)))
    assert open_reader(f"{tmp_path}/a.zarr::deep/other").shape == (3,)
    with pytest.raises(InputError, match=r"a\.npz: holds 2 arrays \('x', 'y'\); name one, as in "):
        open_reader(path)
    with pytest.raises(InputError, match=r"holds 2 arrays \('x', 'y'\), not 'z'$"):
        open_reader(f"{path}::z")
    np.save(tmp_path / "a.npy", np.ones(3))
    with pytest.raises(InputError, match="holds one array, which has no name, not 'x'"):
        open_reader(f"{tmp_path}/a.npy::x")
    np.savez(path)
    with pytest.raises(InputError, match="holds no arrays"):
        open_reader(path)
    (tmp_path / "b::c.npy").write_bytes((tmp_path / "a.npy").read_bytes())
    assert open_reader(tmp_path / "b::c.npy").shape == (3,)


def test_readers_go_by_suffix(tmp_path):
    np.save(tmp_path / "a.npy", np.ones(2))
    (tmp_path / "a.npy").rename(tmp_path / "A.NPY")
    assert open_reader(tmp_path / "A.NPY").shape == (2,)
    (tmp_path / "a.txt").touch()
    with pytest.raises(InputError, match=r"a\.txt: not a file type that klce reads \(\.npy, "):
        open_reader(tmp_path / "a.txt")
    for name in ("missing.txt", *(f"missing{suffix}" for suffix in READERS)):
        with pytest.raises(FileNotFoundError):
            open_reader(tmp_path / name)


# --- damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", sorted(set(READERS) - {".npy", ".zarr"}))
@pytest.mark.parametrize("content", [b"", b"no such format" * 100])
def test_not_the_format(tmp_path, suffix, content):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"^{path}: not a [^\n]*$"):
        open_reader(path)


def test_not_zarr(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(InputError, match=r"a\.zarr: not a Zarr array or group"):
        open_reader(tmp_path / "a.zarr")


@pytest.mark.parametrize(
    ("suffix", "save"), [pair for pair in SAVERS if pair[0] not in (".npy", ".zarr")]
)
def test_truncated(tmp_path, suffix, save):
    path = tmp_path / f"a{suffix}"
    save(path, np.ones((30, 8), np.float32))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=rf"^{path}: not a [^\n]*$"):
        open_reader(path)


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".arrows"])
def test_columns_of_one_name(tmp_path, suffix):
    table = pa.table([[1.0, 2.0], [3.0, 4.0], [5, 6]], names=["x", "x", "y"])
    path = tmp_path / f"file{suffix}"
    save_table(path, table)
    with pytest.raises(InputError, match=r"file\.\w+: 2 columns are named 'x'$"):
        open_reader(f"{path}::x")
    assert open_reader(f"{path}::y").read(0, 2, 0).tolist() == [5, 6]


def test_columns_that_are_not_rows(tmp_path):
    path = tmp_path / "a.parquet"
    for column, message in [
        (pa.array(["a", "b"]), "a column of string, not of numbers"),
        (pa.array([[1.0, 2.0], [3.0]]), "row 1 has 1 numbers, row 0 has 2"),
        (pa.array([[1.0, 2.0], None]), "row 1 is null"),
        (pa.array([None, [1.0, 2.0]]), "row 0 is null"),
        (pa.array([[1.0, 2.0], [3.0, None]]), "row 1 has a null in it"),
    ]:
        pa.parquet.write_table(pa.table({"x": column}), path)
        with pytest.raises(InputError, match=message):
            open_reader(path).read(0, 2, 1)


@pytest.mark.parametrize("rows", [0, 3])
@pytest.mark.parametrize("suffix", COLUMNS)
def test_lists_without_numbers(tmp_path, suffix, rows):
    path = tmp_path / f"a{suffix}"
    table = pa.table({"x": pa.array([[]] * rows, pa.list_(pa.float32()))})
    save_table(path, table)
    reader = open_reader(path)
    assert reader.dtype == np.float32
    assert reader.read(0, rows, 1).shape == reader.shape == (rows, 0)
    assert reader.read(0, 0, 2).shape == (0,)
    unknown = "has no rows, and lists without rows do not tell the number of classes"
    fault = r"rows without classes: the shape is \(3, 0\)" if rows else unknown
    with pytest.raises(InputError, match=rf"^{path}: {fault}$"):
        score_file(path)


@pytest.mark.parametrize(
    ("suffix", "module", "extra"),
    [
        (".parquet", "pyarrow", "formats"), (".arrow", "pyarrow", "formats"),
        (".zarr", "zarr", "formats"), (".safetensors", "safetensors", "formats"),
    ],
)  # fmt: skip
def test_a_missing_library_is_named_with_its_extra(tmp_path, suffix, module, extra):
    (tmp_path / f"a{suffix}").touch()
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from klce.scoring import InputError\n"
        "from klce.scoring.readers import open_reader\n"
        f"try: open_reader({str(tmp_path / f'a{suffix}')!r})\n"
        "except InputError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith(f"needs {module}: pip install 'klce[{extra}]'\n")
    assert done.stdout.count("\n") == 1


def test_importing_scoring_imports_numpy_alone():
    code = (
        "import sys, klce.scoring, klce.scoring.readers\n"
        "print({'pyarrow', 'zarr', 'fsspec', 'safetensors', 'ml_dtypes'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# --- streams and URLs ----------------------------------------------------------------------------


def test_members_of_an_archive_are_streams(tmp_path):
    values = np.arange(24.0).reshape(6, 4)
    np.savez(tmp_path / "a.npz", x=values)
    reader = open_reader(tmp_path / "a.npz")
    assert not reader.mapped
    assert NpyReader(save_to(tmp_path / "x.npy", values)).mapped


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("shape", [(6, 4), (3, 5, 4), (2, 1, 3), (7,)])
def test_streams_in_fortran_order(tmp_path, save, shape):
    values = np.asfortranarray(np.random.default_rng(0).normal(size=shape))
    save(tmp_path / "a.npz", x=values)
    check_slices(open_reader(tmp_path / "a.npz"), values)


def test_a_stream_in_fortran_order_that_is_damaged(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.asfortranarray(np.ones((600, 40))))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "a.npz").write_bytes(data)
    reader = open_reader(tmp_path / "a.npz")
    with pytest.raises(InputError, match=r"a\.npz::x: cannot be read: .*CRC"):
        reader.read(0, 1, 1)


def test_advice_names_an_array_that_may_be_logits(tmp_path):
    np.savez(tmp_path / "a.npz", ids=np.arange(3), wide=np.ones((3, 2)), more=np.ones((3, 2)))
    with pytest.raises(InputError, match=r"holds 3 arrays \(.*\); name one, as in .*::wide$"):
        open_reader(tmp_path / "a.npz")
    with pytest.raises(InputError, match=r"name one, as in .*::ids$"):
        open_reader(tmp_path / "a.npz", ("targets",))
    np.savez(tmp_path / "b.npz", c0=np.arange(3.0), c1=np.arange(3.0))
    with pytest.raises(InputError, match=r"holds 2 arrays \(.*\); logits need 2 axes or more, of"):
        open_reader(tmp_path / "b.npz")


def save_to(path, array):
    np.save(path, array)
    return path


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    ("suffix", "save"),
    [(".npy", save_npy), (".npz", save_npz), (".zarr", save_zarr), (".parquet", save_parquet)],
)
def test_urls(suffix, save, order, tmp_path):
    values = np.asarray(np.random.default_rng(0).normal(size=(40, 6)), np.float32, order=order)
    path = tmp_path / f"a{suffix}"
    save(path, values)
    memory = fsspec.filesystem("memory")
    memory.put(str(path), f"/urls/a{suffix}", recursive=True)
    check_slices(open_reader(f"memory://urls/a{suffix}"), values)
    check_slices(open_reader(path.as_uri()), values)


def test_shards_behind_a_url(tmp_path):
    values = np.arange(24.0).reshape(12, 2)
    for i in range(12):
        np.save(tmp_path / f"x{i}.npy", values[i : i + 1])
    fsspec.filesystem("memory").put(str(tmp_path), "/shards", recursive=True)
    for url in ("memory://shards", "memory://shards/*.npy"):
        check_slices(open_reader(url), values)


def test_a_folder_behind_a_url_whose_name_has_signs_of_patterns(tmp_path):
    memory = fsspec.filesystem("memory")
    values = np.arange(24.0).reshape(12, 2)
    for i, part in enumerate(np.split(values, 3)):
        np.save(tmp_path / "x.npy", part)
        memory.pipe(f"/shards[1]?/{i}.npy", (tmp_path / "x.npy").read_bytes())
    check_slices(open_reader("memory://shards[1]?"), values)


def test_formats_of_local_files_only(tmp_path):
    told = r"read from local files only; .* use \.npy, \.npz, \.zarr, \.parquet or \.kld$"
    for suffix in (".safetensors", ".arrow", ".arrows", ".feather"):
        assert not READERS[suffix].remote
        with pytest.raises(InputError, match=rf"^memory://x/a{suffix}: this format is {told}"):
            open_reader(f"memory://x/a{suffix}")
    with pytest.raises(InputError, match=r"nosuch://a\.npy: Protocol not known"):
        open_reader("nosuch://a.npy")
    for url in ("zip://a.npy::file:///b.zip", "zip://a.npy::b.zip", "tar://a.zarr::s3://x/b.tar"):
        with pytest.raises(InputError, match=f"^{url}: files in an archive are not read; extract"):
            open_reader(url)
    for url in ("memory://none/a.npy", "memory://none"):
        with pytest.raises(FileNotFoundError):
            open_reader(url)


def test_queries_of_urls_are_no_part_of_the_suffix(tmp_path):
    for url in ("https://host/a.b/x.NPY?sign=a/b.c&x=1", "simplecache::http://host/x.npy#1.2"):
        assert Location.parse(url).suffix == ".npy"
    assert Location.parse("a?b#c.npy").suffix == Location.parse("s3://a/b#c.npy").suffix == ".npy"


# --- shards --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(23, 3), (23, 2, 3)])
def test_shards_in_natural_order(tmp_path, shape):
    values = np.random.default_rng(0).normal(size=shape)
    for i, part in enumerate(np.split(values, [2, 5, 5, 6, 7, 8, 9, 10, 12, 20])):
        np.save(tmp_path / f"part-{i}.npy", part)
    (tmp_path / ".hidden.npy").touch()
    (tmp_path / "_SUCCESS").touch()
    check_slices(open_reader(tmp_path), values)
    check_slices(open_reader(f"{tmp_path}/part-*.npy"), values)


def test_digits_that_are_no_decimals_in_names(tmp_path):
    names = ("1²2.npy", "1²10.npy", "1²³10.npy")
    for i, name in enumerate(names):
        np.save(tmp_path / name, np.full((2, 3), float(i)))
    check_slices(open_reader(tmp_path), np.repeat([0.0, 1, 2], 6).reshape(6, 3))


def test_all_signs_of_patterns(tmp_path):
    for i in range(3):
        np.save(tmp_path / f"part-{i}.npy", np.full((2, 3), float(i)))
    np.save(tmp_path / "part-[1].npy", np.ones((5, 3)))
    check_slices(open_reader(f"{tmp_path}/part-?.npy"), np.repeat([0.0, 1, 2], 6).reshape(6, 3))
    check_slices(open_reader(f"{tmp_path}/part-[12].npy"), np.repeat([1.0, 2], 6).reshape(4, 3))
    check_slices(open_reader(f"{tmp_path}/part-[1].npy"), np.ones((5, 3)))


def test_shards_of_named_arrays(tmp_path):
    for i in range(2):
        np.savez(tmp_path / f"{i}.npz", logits=np.full((2, 2), i), targets=np.full(2, i))
    check_slices(open_reader(tmp_path), np.repeat([[0, 0], [1, 1]], 2, axis=0))
    check_slices(open_reader(f"{tmp_path}::targets"), np.repeat([0, 1], 2))
    assert score_file(tmp_path).summary.labelled == 4


def test_shards_that_do_not_fit(tmp_path):
    np.save(tmp_path / "0.npy", np.ones((2, 3)))
    with pytest.raises(InputError, match=r"x\*: the pattern matches no file$"):
        open_reader(f"{tmp_path}/x*")
    np.save(tmp_path / "1.npy", np.ones((2, 4)))
    with pytest.raises(InputError, match=r"1\.npy: float64 of shape \(2, 4\) does not continue"):
        open_reader(tmp_path)
    np.save(tmp_path / "1.npy", 1.0)
    with pytest.raises(InputError, match=r"1\.npy: a single number"):
        open_reader(tmp_path)
    np.savez(tmp_path / "1.npz", x=np.ones(1))
    with pytest.raises(InputError, match=r"several formats \(\.npy, \.npz\)"):
        open_reader(tmp_path)
    np.savez(tmp_path / "2.npz", y=np.ones(1))
    with pytest.raises(InputError, match=r"2\.npz: its arrays are y, those of .*1\.npz x"):
        open_reader(f"{tmp_path}/*.npz")


@pytest.mark.parametrize("suffix", COLUMNS)
@pytest.mark.parametrize("empty", [(0,), (1,), (2,), (0, 2)])
def test_shards_without_rows_of_lists(tmp_path, suffix, empty):
    values = np.arange(18.0).reshape(6, 3)
    parts = [values[:0] if i in empty else values[2 * i : 2 * i + 2] for i in range(3)]
    for i, part in enumerate(parts):
        table = pa.table({"logits": lists(part, "variable"), "targets": np.arange(len(part)) % 3})
        save_table(tmp_path / f"{i}{suffix}", table)
    check_slices(open_reader(tmp_path), np.concatenate(parts))
    check_slices(open_reader(f"{tmp_path}/*{suffix}"), np.concatenate(parts))
    assert score_file(tmp_path).summary.labelled == 6 - 2 * len(empty)


def test_shards_without_rows_that_do_not_fit(tmp_path):
    def save(name, values, dtype):
        table = pa.table({"logits": pa.array(values, dtype)})
        pa.parquet.write_table(table, tmp_path / f"{name}.parquet")

    save(0, [], pa.list_(pa.float32()))
    save(1, [], pa.list_(pa.float32()))
    with pytest.raises(InputError, match=rf"^{tmp_path}: has no rows, and lists without rows"):
        score_file(tmp_path)
    for dtype, value in ((pa.list_(pa.float64()), [1.0]), (pa.float32(), 1.0)):
        save(1, [value], dtype)
        with pytest.raises(InputError, match=r"0\.parquet: .* does not continue .*1\.parquet"):
            open_reader(tmp_path)


def test_archive_without_arrays_of_numpy(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert NpzFile(Location(str(tmp_path / "a.npz"))).names == ()


@pytest.mark.parametrize(("shape", "chunks"), [((100, 5), (30, 5)), ((4, 50, 5), (2, 50, 5))])
def test_large_chunks_of_whole_rows_are_kept(tmp_path, monkeypatch, shape, chunks):
    values = np.random.default_rng(0).normal(size=shape)
    zarr.create_array(tmp_path / "a.zarr", data=values, chunks=chunks)
    monkeypatch.setattr(base, "DECODED_BYTES", 1000)
    reader = open_reader(tmp_path / "a.zarr")
    logits = Logits(reader)
    assert logits.chunks.kept
    assert logits.block_row_bytes == 0  # blocks are views
    real, decoded = reader._decoded, []
    monkeypatch.setattr(
        reader, "_decoded", lambda *span: decoded.append(span[:2]) or real(*span)
    )  # fmt: skip
    for start in range(0, logits.rows, 7):  # across chunks, too
        stop = min(start + 7, logits.rows)
        np.testing.assert_array_equal(logits.block(start, stop), values.reshape(-1, 5)[start:stop])
    ends = [*range(0, logits.rows, logits.chunks.rows), logits.rows]
    assert decoded == list(itertools.pairwise(ends))
    assert reader._kept is None  # of the last, nothing
    assert logits.block(3, 3).shape == (0, 5)
    np.testing.assert_array_equal(logits.block(1, 2), values.reshape(-1, 5)[1:2])
