from pathlib import Path

import numpy as np
import pytest

from klce.scoring import InputError, convert_file, file_info, kld
from klce.scoring.readers import open_reader

EXAMPLE = Path(__file__).parents[2] / "examples" / "lm"
BASE = EXAMPLE / "base.kld"


def test_layout_of_a_base_file_is_even():
    assert kld.Layout(71, 3001, 3).row_dtype.itemsize == 2 * (2 * ((3001 + 1) // 2) + 4)
    assert kld.Layout(71, 3000, 3).row_dtype.itemsize == 2 * (3000 + 4)


def test_encoding_gives_the_bytes_of_the_tool():
    reader = open_reader(BASE)
    rows = kld.encode(np.load(EXAMPLE / "base_logits.npy"), 16)
    expected = reader.encoded(0, 105)
    assert rows.dtype == expected.dtype
    # The tool's exponential rounds otherwise than NumPy's, which may show in the last bit.
    np.testing.assert_array_max_ulp(rows["min_log_prob"], expected["min_log_prob"], 1)
    np.testing.assert_array_equal(rows["scale"], expected["scale"])
    np.testing.assert_array_equal(rows["q"], expected["q"])
    assert not rows["pad"].any()


@pytest.mark.parametrize("cut", kld.CUTS)
def test_cut(cut):
    x = np.linspace(0, 40, 50, dtype=np.float32)[None] + np.array([[0], [100]], np.float32)
    rows = kld.encode(x, cut)
    log_probs = kld.decode(rows)
    exact = x - np.log(np.exp(x - x.max(1, keepdims=True)).sum(1, keepdims=True)) - 40
    exact -= np.array([[0], [100]])
    expected = np.maximum(exact, exact.max(1, keepdims=True) - cut)
    np.testing.assert_allclose(log_probs, expected, atol=cut / 65535)
    assert kld.cut_of(log_probs) == cut
    np.testing.assert_array_equal(kld.at_floor(log_probs), x <= x.max(1, keepdims=True) - cut)


def test_rows_within_the_cut_have_no_floor():
    rows = kld.encode(np.linspace(0, 5, 8, dtype=np.float32)[None], 16)
    assert kld.cut_of(kld.decode(rows)) is None
    assert not kld.at_floor(kld.decode(rows)).any()
    flat = kld.encode(np.zeros((1, 4), np.float32), 16)
    np.testing.assert_allclose(kld.decode(flat), np.log(0.25), rtol=1e-6)


def test_rows_that_cannot_be_encoded():
    with pytest.raises(InputError, match="x: row 12 has the largest logit nan"):
        kld.encode(np.array([[0, 1], [0, np.nan]], np.float32), 16, path="x", first_row=11)
    with pytest.raises(InputError, match="x: row 0 has the largest logit inf"):
        kld.encode(np.full((1, 3), 1e300), 16, path="x")


@pytest.mark.parametrize("scale", [np.inf, -np.inf, np.nan, np.finfo("f4").max])
def test_a_damaged_row_is_no_numbers_without_a_warning(tmp_path, scale):
    with BASE.open("rb") as file:
        layout, tokens = kld.read_header(file, "")
    rows = np.fromfile(BASE, layout.row_dtype, offset=layout.rows_offset)
    rows["scale"][[3, 5]] = scale
    rows["q"][5] = 7  # of which none is 0
    path = tmp_path / "a.kld"
    with path.open("wb") as file:
        kld.write_header(file, layout, tokens)
        file.write(rows.tobytes())
    assert file_info(path).kld["cut"] == 16
    convert_file(path, tmp_path / "a.npy")
    finite = np.isfinite(np.load(tmp_path / "a.npy")).all(axis=1)
    assert np.flatnonzero(~finite).tolist() == [3, 5]
    assert kld.cut_of(kld.decode(rows[5:6])) is None
    assert not kld.at_floor(kld.decode(rows[5:6])).any()
