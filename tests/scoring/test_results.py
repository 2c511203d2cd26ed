import errno
import gc
import io
import json
import signal

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from klce.scoring import results
from klce.scoring.columns import score_columns
from klce.scoring.results import (
    WRITERS,
    CsvWriter,
    JsonLinesWriter,
    open_results,
)


def make_table(dtype=np.float32):
    want = ("nll", "argmax", "logsumexp")
    table = np.zeros(6, dtype=score_columns(dtype, labelled=True, want=want))
    table["target"] = [0, 1, -100, 3, 2**40, 5]
    table["nll"] = [0.1, 1e-30, 0, np.inf, np.nan, 1 / 3]
    table["argmax"] = range(6)
    table["logsumexp"] = [-1.5, 1e20, 3, 123456.789, 0, -np.inf]
    return table


def test_columns():
    assert score_columns("f4", labelled=True).names == (
        "target", "nll", "max_log_prob", "logsumexp", "entropy", "rank", "argmax"
    )  # fmt: skip
    columns = score_columns("f8", labelled=False)
    assert columns.names == ("max_log_prob", "logsumexp", "entropy", "argmax")
    assert columns["entropy"] == np.float64
    columns = score_columns(
        "f4", labelled=True, cut_off=True, classes=9, want=("margin",), top_k=3, candidates=2
    )
    assert columns.descr == [
        ("target", "<i8"),
        ("margin", "<f4"),
        ("candidate_log_probs", "<f4", (2,)),
        ("top_ids", "<i8", (3,)),
        ("top_log_probs", "<f4", (3,)),
        ("floor_classes", "<i8"),
        ("saturated", "|b1"),
    ]


def test_npy_has_the_shape_of_the_rows(tmp_path):
    table = make_table()
    with open_results(tmp_path / "r.npy", (2, 3), table.dtype) as writer:
        writer.write(table[:4])
        writer.write(table[4:])
    got = np.load(tmp_path / "r.npy")
    assert got.dtype == table.dtype
    assert got.tobytes() == table.tobytes()
    assert got.shape == (2, 3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_csv_reads_back_as_the_same_numbers(tmp_path, dtype):
    table = make_table(dtype)
    with open_results(tmp_path / "r.csv", (6,), table.dtype) as writer:
        writer.write(table[:4])
        writer.write(table[4:])
    got = np.genfromtxt(tmp_path / "r.csv", delimiter=",", names=True, dtype=None, encoding="ascii")
    assert got.dtype.names == ("row", *table.dtype.names)
    np.testing.assert_array_equal(got["row"], range(6))
    for name in table.dtype.names:
        np.testing.assert_array_equal(got[name].astype(table.dtype[name]), table[name])


def test_csv_lines_are_short(tmp_path):
    table = make_table()
    with open_results(tmp_path / "r.csv", (6,), table.dtype) as writer:
        writer.write(table[:2])
    assert (tmp_path / "r.csv").read_bytes() == (
        b"row,target,nll,logsumexp,argmax\n0,0,0.1,-1.5,0\n1,1,1e-30,1e+20,1\n"
    )


def read_back(path):
    """Return the columns of a file, null as nan."""
    if path.suffix == ".jsonl":
        lines = [
            json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()
        ]
        columns = {name: [line[name] for line in lines] for name in lines[0]}
    elif path.suffix == ".parquet":
        columns = pa.parquet.read_table(path).to_pydict()
    else:
        columns = pa.ipc.open_file(path).read_all().to_pydict()
    return {name: [np.nan if v is None else v for v in values] for name, values in columns.items()}


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".arrow"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_reads_back_as_the_same_numbers(tmp_path, dtype, suffix):
    table = make_table(dtype)
    with open_results(tmp_path / f"r{suffix}", (6,), table.dtype) as writer:
        writer.write(table[:4])
        writer.write(table[4:])
    got = read_back(tmp_path / f"r{suffix}")
    assert list(got) == ["row", *table.dtype.names]
    assert got["row"] == list(range(6))
    for name in table.dtype.names:
        expected = table[name]
        if suffix == ".jsonl" and expected.dtype.kind == "f":
            expected = np.where(np.isfinite(expected), expected, np.nan)
        np.testing.assert_array_equal(np.array(got[name], table.dtype[name]), expected)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer")
@pytest.mark.parametrize("make", [CsvWriter, JsonLinesWriter])
def test_no_interrupt_is_lost_while_texts_are_made(make):
    table = np.zeros(1 << 17, [(f"x{i}", "f4") for i in range(8)])
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        for i in range(20):
            writer = make(io.BytesIO(), table.shape, table.dtype)
            signal.setitimer(signal.ITIMER_REAL, 0.01 + 0.001 * i)
            with pytest.raises(KeyboardInterrupt):
                writer.write(table)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_json_lines_are_short(tmp_path):
    table = make_table()
    with open_results(tmp_path / "r.jsonl", (6,), table.dtype) as writer:
        writer.write(table[:1])
    assert (tmp_path / "r.jsonl").read_text() == (
        '{"row": 0, "target": 0, "nll": 0.1, "logsumexp": -1.5, "argmax": 0}\n'
    )


def test_several_values_a_row(tmp_path):
    table = np.zeros(3, [("a", "f4"), ("ids", "i8", (2,)), ("x", "f4", (1,)), ("ok", "?")])
    table["ids"], table["x"] = [[1, 2], [3, 4], [5, -1]], [[0.1], [np.nan], [-np.inf]]
    for suffix in WRITERS:
        with open_results(tmp_path / f"r{suffix}", (3,), table.dtype) as writer:
            writer.write(table[:1])
            writer.write(table[1:])
    assert np.load(tmp_path / "r.npy").tobytes() == table.tobytes()
    assert (tmp_path / "r.csv").read_text().splitlines()[::3] == [
        "row,a,ids_0,ids_1,x_0,ok", "2,0.0,5,-1,-inf,False"
    ]  # fmt: skip
    for suffix in (".jsonl", ".parquet", ".arrow"):
        got = read_back(tmp_path / f"r{suffix}")
        assert got["ids"] == table["ids"].tolist()
        assert got["x"][0] == [pytest.approx(0.1)]
    assert read_back(tmp_path / "r.jsonl")["x"][1:] == [[None], [None]]
    schema = pa.parquet.read_schema(tmp_path / "r.parquet")
    assert str(schema.field("ids").type) == "fixed_size_list<element: int64>[2]"


def test_columns_keep_their_types(tmp_path):
    columns = np.dtype([("a", "f4"), ("b", "f8"), ("c", "i8"), ("d", "?")])
    with open_results(tmp_path / "r.parquet", (0,), columns):
        pass
    schema = pa.parquet.read_schema(tmp_path / "r.parquet")
    assert [str(field.type) for field in schema] == ["int64", "float", "double", "int64", "bool"]


def test_parquet_has_dictionaries_of_classes_alone(tmp_path):
    columns = score_columns("f4", labelled=True, classes=9, top_k=2)
    path = tmp_path / "a.parquet"
    with open_results(path, (100,), columns) as writer:
        writer.write(np.zeros(100, columns))
    group = pa.parquet.read_metadata(path).row_group(0)
    found = [group.column(i) for i in range(group.num_columns)]
    with_one = [column.path_in_schema for column in found if column.has_dictionary_page]
    assert with_one == ["target", "rank", "argmax", "top_ids.list.element"]


@pytest.mark.parametrize("suffix", sorted(WRITERS))
def test_blocks_change_no_byte(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(results, "_ROWS_IN_GROUP", 50)
    table = np.resize(make_table(), 180)
    for name, size in (("a", 180), ("b", 7), ("c", 50)):
        with open_results(tmp_path / (name + suffix), (180,), table.dtype) as writer:
            for start in range(0, 180, size):
                writer.write(table[start : start + size])
    first = (tmp_path / f"a{suffix}").read_bytes()
    assert (tmp_path / f"b{suffix}").read_bytes() == first
    assert (tmp_path / f"c{suffix}").read_bytes() == first


@pytest.mark.parametrize("name", [f"r{suffix}" for suffix in WRITERS])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_file_appears_only_when_whole(tmp_path, name, error):
    path = tmp_path / name
    path.write_text("old")
    table = make_table()

    def write():
        with open_results(path, (6,), table.dtype) as writer:
            writer.write(table)
            assert path.read_text() == "old"
            raise error

    with pytest.raises(error):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_an_interrupt_while_the_last_rows_are_written(tmp_path, monkeypatch, suffix):
    def interrupt(writer):
        raise KeyboardInterrupt

    monkeypatch.setattr("klce.scoring.results.ArrowWriter._flush", interrupt)
    path, table = tmp_path / f"a{suffix}", np.zeros(3, [("x", np.float32)])
    with (
        pytest.raises(KeyboardInterrupt),
        open_results(path, table.shape, table.dtype) as writer,
    ):
        writer.write(table)
    assert list(tmp_path.iterdir()) == []
    del writer
    gc.collect()  # whose complaints are errors here


def test_a_full_disk_is_reported_by_the_name_of_the_results(tmp_path):
    def write():
        with open_results(tmp_path / "r.npy", (6,), make_table().dtype):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"No space left on device: '.*/r\.npy'") as caught:
        write()
    assert caught.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())


def test_a_file_system_that_is_read_only_does_not_hide_it(tmp_path, monkeypatch):
    def unlink(path, missing_ok=False):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(results.Path, "unlink", unlink)
    (tmp_path / "folder").symlink_to("/proc")
    with (
        pytest.raises(OSError, match=r"'.*/folder/r\.npy'$"),
        open_results(tmp_path / "folder" / "r.npy", (6,), make_table().dtype),
    ):
        pass


def test_an_error_of_another_file_keeps_its_name(tmp_path):
    def write():
        with open_results(tmp_path / "r.npy", (6,), make_table().dtype):
            (tmp_path / "missing").read_text()

    with pytest.raises(FileNotFoundError, match="missing"):
        write()


def test_a_symbolic_link_stays_one(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "r.npy").symlink_to("folder/real.npy")
    with open_results(tmp_path / "r.npy", (6,), make_table().dtype) as writer:
        writer.write(make_table())
    assert (tmp_path / "r.npy").is_symlink()
    assert len(np.load(tmp_path / "folder/real.npy")) == 6
