import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from klce.scoring import InputError, convert_file, file_info, kld, score_file
from klce.scoring.convert import SUFFIXES
from klce.scoring.readers import open_reader

EXAMPLE = Path(__file__).parents[2] / "examples" / "lm"
BASE = EXAMPLE / "base.kld"
FORMATS = [suffix for suffix in SUFFIXES if suffix != ".kld"]


def read(path):
    reader = open_reader(path)
    return reader.read(0, reader.shape[0], 1)


def test_the_docstring_names_every_suffix():
    for suffix in SUFFIXES:
        assert f"``{suffix}``" in convert_file.__doc__


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i4", ">f8", "?"])
@pytest.mark.parametrize("shape", [(40, 6), (4, 5, 3), (17,)])
def test_there_and_back(tmp_path, suffix, dtype, shape):
    values = np.random.default_rng(0).integers(-9, 9, shape).astype(dtype)
    np.save(tmp_path / "a.npy", values)
    calls = []
    columns = suffix in (".parquet", ".arrow")
    message = rf"b{suffix}: {suffix} files have rows on one axis: the shape \(4, 5, 3\) becomes"
    told = pytest.warns(UserWarning, match=message) if columns and len(shape) > 2 else nullcontext()
    with told:
        reader = convert_file(
            tmp_path / "a.npy", tmp_path / f"b{suffix}", memory=500,
            progress=lambda done, total: calls.append((done, total)),
        )  # fmt: skip
    expected = values.reshape(-1, *shape[-1:]) if columns and len(shape) > 1 else values
    assert reader.shape == expected.shape
    np.testing.assert_array_equal(read(tmp_path / f"b{suffix}"), expected)
    assert calls[-1] == (values.nbytes, values.nbytes)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["a.npy", f"b{suffix}"])


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8"])
def test_parquet_of_logits_is_no_larger_than_they_are(tmp_path, dtype):
    values = np.random.default_rng(0).normal(size=(3, 100_000)).astype(dtype)
    np.save(tmp_path / "a.npy", values)
    convert_file(tmp_path / "a.npy", tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 1.02 * values.nbytes


def test_parquet_of_labels_has_a_dictionary_of_them(tmp_path):
    values = np.random.default_rng(0).integers(0, 100, 100_000)
    np.save(tmp_path / "a.npy", values)
    convert_file(tmp_path / "a.npy", tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 0.25 * values.nbytes


def test_bfloat16_becomes_float32(tmp_path):
    values = np.random.default_rng(0).normal(size=(8, 3)).astype(ml_dtypes.bfloat16)
    safetensors.numpy.save_file({"x": values}, tmp_path / "a.safetensors")
    for suffix in FORMATS:
        convert_file(tmp_path / "a.safetensors", tmp_path / f"b{suffix}")
        got = read(tmp_path / f"b{suffix}")
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, values.astype(np.float32))


def test_base_file_of_llama_cpp_from_plain_logits(tmp_path):
    convert_file(
        EXAMPLE / "base_logits.npy", tmp_path / "a.kld", tokens=f"{BASE}::tokens", memory=400_000
    )
    assert (tmp_path / "a.kld").read_bytes() == BASE.read_bytes()


def test_base_file_with_24_nats(tmp_path):
    logits = EXAMPLE / "base_logits.npy"
    convert_file(logits, tmp_path / "a.kld", tokens=f"{BASE}::tokens", cut=24)
    assert file_info(tmp_path / "a.kld").kld == {
        "n_ctx": 71, "n_vocab": 3001, "n_chunk": 3, "cut": 24
    }  # fmt: skip
    wide, narrow = score_file(tmp_path / "a.kld").summary, score_file(BASE).summary
    exact = score_file(logits, EXAMPLE / "targets.npy").summary
    assert abs(wide.mean_entropy - exact.mean_entropy) < 1e-5
    assert abs(wide.mean_entropy - exact.mean_entropy) < abs(
        narrow.mean_entropy - exact.mean_entropy
    )


@pytest.mark.parametrize("cut", [16, 24])
def test_base_file_to_base_file(tmp_path, cut):
    first, again = tmp_path / "a.kld", tmp_path / "b.kld"
    convert_file(EXAMPLE / "base_logits.npy", first, tokens=f"{BASE}::tokens", cut=cut)
    np.save(tmp_path / "tokens.npy", read(f"{BASE}::tokens"))
    convert_file(first, again, tokens=tmp_path / "tokens.npy", memory=400_000)
    assert again.read_bytes() == first.read_bytes()
    (tmp_path / "shards").mkdir()
    for i in range(2):
        shutil.copy(first, tmp_path / "shards" / f"{i}.kld")
    convert_file(tmp_path / "shards", again)
    rows, twice = (open_reader(path) for path in (first, again))
    assert twice.encoded(0, 210).tobytes() == 2 * rows.encoded(0, 105).tobytes()


def test_base_file_to_another_format_and_back(tmp_path):
    convert_file(BASE, tmp_path / "a.npy")
    convert_file(BASE, tmp_path / "b.kld", cut=16)  # with the tokens of its source
    np.testing.assert_allclose(read(tmp_path / "b.kld"), read(tmp_path / "a.npy"), atol=1e-3)
    with (tmp_path / "b.kld").open("rb") as file:
        assert kld.read_header(file, "")[0] == kld.Layout(71, 3001, 3)


FULL = """
import resource
from klce.scoring import convert_file
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
try:
    convert_file("a.npy", "a.zarr")
except OSError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of the size of files")
def test_a_zarr_that_cannot_be_written_leaves_nothing(tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(8000, 512)))
    told = subprocess.check_output([sys.executable, "-c", FULL], cwd=tmp_path, text=True)
    assert told == "[Errno 27] File too large: 'a.zarr'\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs locks")
def test_two_runs_with_one_zarr(tmp_path):
    path = tmp_path / "a.zarr"
    np.save(tmp_path / "a.npy", np.eye(3))
    np.save(tmp_path / "b.npy", np.ones((3, 3)))

    def second(done, rows):
        with pytest.raises(InputError, match=rf"^{path}: another run is writing it$"):
            convert_file(tmp_path / "b.npy", path)

    convert_file(tmp_path / "a.npy", path, progress=second)
    np.testing.assert_array_equal(read(path), np.eye(3))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.npy", "a.zarr", "b.npy"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs locks")
def test_what_a_killed_run_has_left_of_a_zarr_is_written_over(tmp_path):
    np.save(tmp_path / "a.npy", np.eye(3))
    (tmp_path / ".a.zarr.part").mkdir()
    (tmp_path / ".a.zarr.part" / "zarr.json").write_text("another")
    (tmp_path / ".a.zarr.lock").touch()
    convert_file(tmp_path / "a.npy", tmp_path / "a.zarr")
    np.testing.assert_array_equal(read(tmp_path / "a.zarr"), np.eye(3))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.npy", "a.zarr"]


def test_a_zarr_may_be_named_as_the_folder_that_it_is(tmp_path):
    np.save(tmp_path / "a.npy", np.eye(3))
    convert_file(tmp_path / "a.npy", f"{tmp_path}/a.zarr/")
    np.testing.assert_array_equal(read(tmp_path / "a.zarr"), np.eye(3))


@pytest.mark.parametrize(
    ("source", "out", "options", "message"),
    [
        ("a.npy", "b.npz", {}, "not a file type that klce converts to"),
        ("a.npy", "b.kld", {}, r"a\.npy: a \.kld file holds the tokens too: .* --tokens"),
        ("cube.npy", "b.kld", {}, "holds the tokens too"),  # and no warning of its shape
        ("a.npy", "b.kld", {"tokens": "t.npy"}, "4 rows, where 2 chunks of 8 tokens have 6"),
        ("a.npy", "b.kld", {"tokens": "a.npy"}, "tokens must be integers of shape"),
        ("a.npy", "b.kld", {"tokens": "t.npy", "cut": 12}, "cut must be 16 or 24 nats, got 12"),
        ("t1.npy", "b.kld", {"tokens": "t.npy"}, "logits need 2 axes"),
        ("nan.npy", "b.kld", {"tokens": "t.npy"}, "nan.npy: row 4 has the largest logit nan"),
        (
            "six.npy", "b.kld", {"tokens": "high.npy"},
            r"^high\.npy: token 3 at position 5 of chunk 1 is not in the vocabulary \(0 to 2\)$",
        ),
        ("six.npy", "b.kld", {"tokens": "low.npy"}, "token -1 at position 0 of chunk 0 is not"),
        ("a.npy", "b.npy", {"tokens": "t.npy"}, r"tokens belongs to \.kld files, not to b\.npy"),
        ("a.npy", "b.npy", {"cut": 17}, r"cut belongs to \.kld files, not to b\.npy"),
        ("a.npy", "s3://b/b.npy", {}, r"^s3://b/b\.npy: output goes to local files only"),
        ("a.npy", "a.npy", {}, "would replace the input"),
        ("shards", "shards/1.npy", {}, "would replace the input"),
        ("shards/*.npy", "shards/1.npy", {}, "would replace the input"),
        ("a.npy", "no/b.npy", {}, "there is no folder no"),
        ("one.npy", "b.npy", {}, "a single number"),
        ("text.npy", "b.npy", {}, r"^text\.npy: dtype <U1 cannot be converted"),
        ("complex.npy", "b.npy", {}, r"^complex\.npy: dtype complex64 cannot be converted"),
        ("long.npy", "b.parquet", {}, r"^long\.npy: dtype .* cannot be converted"),
        ("none.npy", "b.parquet", {}, r"none\.npy: rows of no numbers, .* shape is \(50, 0\)$"),
        ("none.npy", "b.arrow", {}, r"rows of no numbers, which \.arrow files cannot hold"),
        ("none.npy", "b.kld", {"tokens": "t.npy"}, "rows of no numbers"),
        ("shards", "shards/3.npy", {}, "would become a part of the input shards"),
        ("shards", "shards/3.zarr", {}, "would become a part of the input shards"),
        ("a.npy", "old.zarr", {}, r"old\.zarr: exists already; klce replaces files"),
    ],
)  # fmt: skip
def test_refused(tmp_path, monkeypatch, source, out, options, message):
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.ones((4, 3), np.float32))
    np.save("t.npy", np.ones((2, 8), int))
    np.save("six.npy", np.ones((6, 3), np.float32))
    tokens = np.arange(16).reshape(2, 8)
    np.save("high.npy", np.where(tokens == 13, 3, 2).astype(np.uint64))
    np.save("low.npy", np.where(tokens == 0, -1, 0))
    np.save("t1.npy", np.ones(6))
    np.save("one.npy", 1.0)
    np.save("text.npy", np.array(["a", "b"]))
    np.save("complex.npy", np.ones((2, 3), np.complex64))
    np.save("long.npy", np.ones((2, 3), np.longdouble))
    np.save("cube.npy", np.ones((2, 3, 4)))
    np.save("none.npy", np.ones((50, 0)))
    np.save("nan.npy", np.where(np.arange(6) == 4, np.nan, 0)[:, None] + np.zeros((6, 3)))
    (tmp_path / "old.zarr").mkdir()
    (tmp_path / "shards").mkdir()
    for i in range(3):
        np.save(f"shards/{i}.npy", np.ones((4, 3)))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=message):
        convert_file(source, out, **options)
    assert sorted(tmp_path.iterdir()) == before


def test_the_file_of_tokens_is_not_replaced(tmp_path):
    path = tmp_path / "base.kld"
    shutil.copy(BASE, path)
    with pytest.raises(InputError, match=r"would replace the input .*base\.kld$"):
        convert_file(EXAMPLE / "base_logits.npy", path, tokens=f"{path}::tokens")
    assert path.read_bytes() == BASE.read_bytes()


@pytest.mark.parametrize("suffix", [suffix for suffix in FORMATS if suffix != ".zarr"])
def test_an_existing_file_is_replaced(tmp_path, suffix):
    np.save(tmp_path / "a.npy", np.ones((4, 3), np.float32))
    (tmp_path / f"b{suffix}").write_text("old")
    convert_file(tmp_path / "a.npy", tmp_path / f"b{suffix}")
    assert read(tmp_path / f"b{suffix}").shape == (4, 3)


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".zarr"])
def test_a_missing_library_is_found_first(tmp_path, monkeypatch, suffix):
    np.save(tmp_path / "a.npy", np.ones((4, 3), np.float32))
    package = "zarr" if suffix == ".zarr" else "pyarrow"
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"b{suffix}: writing {suffix} files needs {package}: "):
        convert_file(tmp_path / "a.npy", tmp_path / f"b{suffix}")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


def test_info(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.ones((2, 3), np.float32), y=np.ones(2, int))
    found = file_info(tmp_path / "a.npz")
    assert [(a.name, a.shape, a.dtype, a.bytes) for a in found.arrays] == [
        ("x", (2, 3), "float32", 24),
        ("y", (2,), "int64", 16),
    ]
    assert found.scored is None
    assert "name one" in found.why_not
    named = file_info(f"{tmp_path}/a.npz::x")
    assert (named.scored, named.rows, named.classes) == (f"{tmp_path}/a.npz::x", 2, 3)
