import gc
import time
from concurrent.futures import ThreadPoolExecutor

import fsspec
import ml_dtypes
import numpy as np
import pytest

from klce.scoring import InputError
from klce.scoring.readers import open_reader
from klce.scoring.readers.npy import NpyReader


def save(path, array, version=None):
    with path.open("wb") as file:
        np.lib.format.write_array(file, array, version)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.npy"


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i2", ">u8"])
@pytest.mark.parametrize(
    "shape", [(7,), (7, 3), (2, 5, 3), (2, 3, 2, 4), (0, 3), (2, 0, 3), (1, 1)]
)
def test_items_in_c_order_over_the_leading_axes(path, shape, dtype, order):
    values = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    reader = NpyReader(save(path, np.asarray(values, order=order)))
    assert reader.shape == shape
    assert reader.dtype == np.dtype(dtype)
    for leading in range(1, len(shape) + 1):
        items = values.reshape(int(np.prod(shape[:leading])), *shape[leading:])
        for start in range(len(items)):
            for stop in (start, start + 1, len(items)):
                got = reader.read(start, stop, leading)
                np.testing.assert_array_equal(got, items[start:stop], strict=True)


@pytest.mark.parametrize("order", ["C", "F"])
def test_rows_of_a_matrix_are_not_copied(path, order):
    reader = NpyReader(save(path, np.ones((4, 3), order=order)))
    assert not reader.read(1, 3, 1).flags.owndata
    assert not reader.read(1, 3, 1).flags.writeable


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_format(path, version):
    reader = NpyReader(save(path, np.arange(6.0).reshape(2, 3), version))
    np.testing.assert_array_equal(reader.read(1, 2, 1), [[3, 4, 5]])


def test_fields_with_names_beyond_latin_1_are_read_as_far_as_their_dtype(path):
    array = np.zeros(2, dtype=[("κλ", "f4")])
    with pytest.warns(UserWarning, match="format 3.0"):
        save(path, array)
    assert NpyReader(path).dtype.names is not None


def test_truncated(path):
    save(path, np.ones((10, 3)))
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(InputError, match=r"a\.npy: truncated: 367 bytes, .* needs 368$"):
        NpyReader(path)


def test_any_truncated_header(path):
    save(path, np.ones((10, 3)))
    data = path.read_bytes()
    for size in range(128):
        path.write_bytes(data[:size])
        with pytest.raises(InputError, match=r"not a \.npy file|header is damaged or truncated"):
            NpyReader(path)


@pytest.mark.parametrize("shape", ["(-1, 3)", "(True, 7)", "(2, 'a')", "2", "(2, 3"])
def test_damaged_header(path, shape):
    save(path, np.ones((2, 3)))
    data = path.read_bytes()
    path.write_bytes(data.replace(b"(2, 3)", shape.encode(), 1))
    with pytest.raises(InputError, match="header is damaged"):
        NpyReader(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04" * 40, b"1,2,3\n4,5,6\n"])
def test_not_a_npy_file(path, content):
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.npy: not a \.npy file$"):
        NpyReader(path)


def test_objects_are_never_loaded(path):
    np.save(path, np.array([{}, []], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"Python objects \(dtype object\)"):
        NpyReader(path)


def test_bfloat16_as_numpy_saves_it(tmp_path):
    values = np.arange(12).reshape(4, 3).astype(ml_dtypes.bfloat16)
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "a.npz", x=values)
    url = f"memory://{tmp_path}/a.npy"
    fsspec.filesystem("memory").pipe(f"{tmp_path}/a.npy", (tmp_path / "a.npy").read_bytes())
    for place in (tmp_path / "a.npy", tmp_path / "a.npz", url):
        reader = open_reader(place)
        assert reader.dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(reader.read(1, 4, 1), values[1:])
    np.save(tmp_path / "b.npy", values.view("V2"))  # two bytes that may be anything
    assert open_reader(tmp_path / "b.npy").dtype == np.dtype("V2")


def test_headers_are_read_by_threads_at_once(path):
    """Also where one thread gives way to another within a header, as for a callback of gc's."""
    save(path, np.zeros((2, 3)))
    gc.callbacks.append(lambda *_: time.sleep(0))
    threshold = gc.get_threshold()
    gc.set_threshold(20)
    try:
        with ThreadPoolExecutor(4) as threads:
            shapes = list(threads.map(lambda _: NpyReader(path).shape, range(200)))
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.pop()
    assert set(shapes) == {(2, 3)}
