import math
import re
from pathlib import Path

import numpy as np
import pytest

from klce.reference import KERNELS
from klce.scoring import InputError, compare_file, score_file
from klce.scoring.groups import Groups, GroupSums, clustered_error
from klce.scoring.readers import open_reader


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Work in a folder with logits and labels of 40 rows, and groups of them as ids and offsets."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    logits = (4 * rng.standard_normal((40, 6))).astype(np.float32)
    targets = logits.argmax(1)
    targets[10:] = rng.integers(0, 6, 30)
    targets[[2, 33]] = -100
    np.save("logits.npy", logits)
    np.save("targets.npy", targets)
    np.save("offsets.npy", [0, 10, 10, 25, 40])
    np.save("ids.npy", np.repeat([7, -3, 9], [10, 15, 15]))
    np.save("bytes.npy", [30, 5, 50, 70])
    np.save("words.npy", [6, 1, 12, 11])
    return logits, targets


def expected_sums(logits, targets):
    nll = KERNELS["cross_entropy"](logits, targets, -100)
    kept = targets != -100
    parts = [slice(0, 10), slice(10, 10), slice(10, 25), slice(25, 40)]
    return [nll[part][kept[part]] for part in parts]


def test_errors_do_not_cancel(files):
    """Of equal rows there are none; where two classes are far from 0, compare has the same."""
    np.save("zeros.npy", np.zeros((40, 6)))
    zero = score_file("zeros.npy", "targets.npy", groups="ids.npy")
    assert zero.sequences.token_error == zero.summary.mean_nll_error == 0
    far = 1e4 + 1e-5 * np.random.default_rng(0).standard_normal((40, 2))
    np.save("far.npy", far)
    np.save("zero.npy", np.zeros(40, int))
    scores = score_file("far.npy", "zero.npy", groups="ids.npy")
    expected = compare_file("far.npy", "far.npy", "zero.npy").summary
    for block_rows in (1, 7):
        again = score_file("far.npy", "zero.npy", groups="ids.npy", block_rows=block_rows)
        assert again.summary == scores.summary
        assert again.sequences.token_error == scores.sequences.token_error
    assert scores.sequences.token_error == pytest.approx(
        expected.estimates["nll_p"].error, rel=1e-12
    )
    assert scores.summary.perplexity_error == pytest.approx(expected.perplexity_p.error, rel=1e-12)


def test_sequences(files):
    report = score_file(
        "logits.npy", "targets.npy", groups="offsets.npy", bytes_file="bytes.npy",
        words_file="words.npy", sequences_out="sequences.npy",
    )  # fmt: skip
    parts = expected_sums(*files)
    table = np.load("sequences.npy")
    assert table["sequence"].tolist() == [0, 1, 2, 3]
    assert table["tokens"].tolist() == [9, 0, 15, 14]
    assert table["greedy"].tolist() == [True, False, False, False]
    assert not table["nan_rows"].any()
    sums = np.array([part.sum() for part in parts])
    np.testing.assert_allclose(table["log_likelihood"], -sums, rtol=1e-6)
    bits = np.where(table["tokens"] > 0, sums, np.nan) / np.log(2)
    np.testing.assert_allclose(table["bits_per_byte"], bits / [30, 5, 50, 70], rtol=1e-6)
    np.testing.assert_allclose(table["bits_per_word"], bits / [6, 1, 12, 11], rtol=1e-6)
    assert math.isnan(table["perplexity"][1])
    np.testing.assert_allclose(
        table["perplexity"][[0, 2, 3]], [np.exp(parts[i].mean()) for i in (0, 2, 3)], rtol=1e-6
    )

    nll = np.concatenate(parts)
    values = report.to_dict()
    assert values["sequences"] == 4
    assert values["mean_log_likelihood_nats"] == pytest.approx(-sums.sum() / 3, rel=1e-6)
    assert values["standard_error_tokens_nats"] == pytest.approx(
        nll.std() / np.sqrt(len(nll) - 1), rel=1e-6
    )
    residuals = [part.sum() - nll.mean() * len(part) for part in parts if len(part)]
    assert values["standard_error_sequences_nats"] == pytest.approx(
        np.sqrt(3 / 2 * np.sum(np.square(residuals))) / len(nll), rel=1e-6
    )
    assert values["bits_per_byte"] == pytest.approx(nll.sum() / np.log(2) / 150, rel=1e-6)
    assert values["bits_per_word"] == pytest.approx(nll.sum() / np.log(2) / 29, rel=1e-6)


def test_a_row_of_nan_makes_its_sequence_nan(files):
    """The sum would be too large without it; the means over all rows leave it out."""
    logits, targets = files
    whole = score_file(
        "logits.npy", "targets.npy", groups="ids.npy", sequences_out="whole.npy"
    ).sequences
    logits[[3, 30, 31]] = np.nan
    targets[31] = -100  # it counts as ignored
    np.save("logits.npy", logits)
    np.save("targets.npy", targets)
    np.save("words.npy", [6, 12, 11])
    found = []
    for block_rows in (1, 7, 40):
        scores = score_file(
            "logits.npy", "targets.npy", groups="ids.npy", words_file="words.npy",
            sequences_out="sequences.npy", block_rows=block_rows,
        )  # fmt: skip
        found.append(Path("sequences.npy").read_bytes())
    assert len({*found}) == 1
    table, before = np.load("sequences.npy"), np.load("whole.npy")
    assert table["nan_rows"].tolist() == [1, 0, 1]
    assert table["tokens"].tolist() == [8, 15, 12]
    assert table["greedy"].tolist() == [False, False, False]
    assert before["greedy"].tolist() == [True, False, False]
    for name in ("log_likelihood", "perplexity", "bits_per_word"):
        assert np.isnan(table[name]).tolist() == [True, False, True]
    assert table["log_likelihood"][1] == before["log_likelihood"][1]
    assert math.isfinite(scores.sequences.mean_log_likelihood)
    assert (whole.nan == 0).all()


@pytest.mark.parametrize("skipped", ["ignored", "nan"])
def test_sequences_without_tokens_are_left_out(files, skipped):
    logits, targets = files
    lengths = {"bytes_file": "bytes.npy", "words_file": "words.npy"}
    np.save("offsets.npy", [0, 10, 25, 40])
    np.save("bytes.npy", [30, 50, 70])
    np.save("words.npy", [6, 12, 11])
    if skipped == "ignored":
        targets[10:25] = -100
    else:
        logits[10:25] = np.nan
    np.save("logits.npy", logits)
    np.save("targets.npy", targets)
    some = score_file("logits.npy", "targets.npy", groups="offsets.npy", **lengths).to_dict()
    np.save("logits.npy", np.delete(logits, np.s_[10:25], 0))
    np.save("targets.npy", np.delete(targets, np.s_[10:25]))
    np.save("offsets.npy", [0, 10, 25])
    np.save("bytes.npy", [30, 70])
    np.save("words.npy", [6, 11])
    others = score_file("logits.npy", "targets.npy", groups="offsets.npy", **lengths).to_dict()
    assert (some["sequences"], others["sequences"]) == (3, 2)
    for name in (
        "mean_log_likelihood_nats", "standard_error_tokens_nats", "standard_error_sequences_nats",
        "bits_per_byte", "bits_per_word",
    ):  # fmt: skip
        assert some[name] == pytest.approx(others[name], rel=1e-12)


def test_no_sequence_has_tokens(files):
    np.save("targets.npy", np.full(40, -100))
    report = score_file(
        "logits.npy", "targets.npy", groups="offsets.npy", bytes_file="bytes.npy",
        sequences_out="sequences.npy",
    )  # fmt: skip
    values = report.to_dict()
    assert (values["mean_log_likelihood_nats"], values["bits_per_byte"]) == (None, None)
    assert np.isnan(np.load("sequences.npy")["bits_per_byte"]).all()


def test_a_sequence_without_rows_may_have_no_bytes(files):
    found = []
    for length in (5, 0):
        np.save("bytes.npy", [30, length, 50, 70])
        report = score_file(
            "logits.npy", "targets.npy", groups="offsets.npy", bytes_file="bytes.npy",
            sequences_out="sequences.npy",
        )  # fmt: skip
        bits = np.load("sequences.npy")["bits_per_byte"]
        assert np.isnan(bits).tolist() == [False, True, False, False]
        found.append((report.to_dict()["bits_per_byte"], *bits[[0, 2, 3]]))
    assert found[0] == found[1]


def test_ids_are_sequences_in_the_order_of_their_first_rows(files):
    options = {"words_file": "words.npy", "sequences_out": "a.npy"}
    score_file("logits.npy", "targets.npy", groups="offsets.npy", **options)
    np.save("words.npy", np.load("words.npy")[[0, 2, 3]])
    options["sequences_out"] = "b.npy"
    score_file("logits.npy", "targets.npy", groups="ids.npy", **options)
    offsets, ids = np.load("a.npy"), np.load("b.npy")
    assert ids["sequence"].tolist() == [7, -3, 9]
    for name in ("log_likelihood", "bits_per_word"):
        assert ids[name].tolist() == offsets[name][[0, 2, 3]].tolist()


def test_the_order_of_ids_that_come_again(tmp_path, monkeypatch):
    monkeypatch.setattr("klce.scoring.readers.base.NUMBERS_AT_ONCE", 7)
    ids = np.random.default_rng(0).integers(-20, 20, 300)
    np.save(tmp_path / "ids.npy", ids)
    groups = Groups(open_reader(tmp_path / "ids.npy"), (300,))
    assert groups.labels.tolist() == list(dict.fromkeys(ids.tolist()))
    np.testing.assert_array_equal(groups.labels[groups.block(11, 250)], ids[11:250])


def test_rows_of_a_sequence_need_not_be_neighbours(files):
    logits, targets = files
    order = np.random.default_rng(1).permutation(40)
    np.save("logits2.npy", logits[order])
    np.save("targets2.npy", targets[order])
    np.save("ids2.npy", np.load("ids.npy")[order])
    score_file("logits.npy", "targets.npy", groups="ids.npy", sequences_out="a.npy")
    score_file("logits2.npy", "targets2.npy", groups="ids2.npy", sequences_out="b.npy")
    a, b = (np.sort(np.load(name), order="sequence") for name in ("a.npy", "b.npy"))
    assert a["tokens"].tolist() == b["tokens"].tolist()
    np.testing.assert_allclose(a["log_likelihood"], b["log_likelihood"], rtol=1e-12)


def test_blocks_change_no_bit(files):
    score_file("logits.npy", "targets.npy", groups="ids.npy", sequences_out="a.csv")
    for block_rows in (1, 7, 11):
        score_file(
            "logits.npy", "targets.npy", groups="ids.npy", sequences_out="b.csv",
            block_rows=block_rows,
        )  # fmt: skip
        with open("a.csv") as a, open("b.csv") as b:
            assert a.read() == b.read()


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".jsonl", ".parquet"])
def test_ids_beyond_int64(files, suffix):
    ids = np.repeat(np.array([2**64 - 1, 3, 2**63], np.uint64), [10, 15, 15])
    np.save("ids.npy", ids)
    name = f"sequences{suffix}"
    score_file("logits.npy", "targets.npy", groups="ids.npy", sequences_out=name)
    if suffix == ".npy":
        written = np.load(name)["sequence"].tolist()
    elif suffix == ".parquet":
        written = open_reader(f"{name}::sequence").read(0, 3, 1).tolist()
    else:
        lines = re.findall(r"^\D*\d+\D+(\d+)", Path(name).read_text(), re.MULTILINE)
        written = [int(found) for found in lines]
    assert written == [2**64 - 1, 3, 2**63]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": "targets.npy", "targets": None}, "groups need labels"),
        ({"groups": "logits.npy"}, "groups must be integers, got float32"),
        ({"groups": "late.npy"}, "go from 0 to 40, not down, but go from 1 to 40"),
        ({"groups": "down.npy"}, "from 0 to 40, not down, but offset 2 goes down from 20 to 10$"),
        (
            {"groups": "either.npy"},
            r"40 groups that go up from 0 to 40 may be an id for each row or",
        ),
        ({"groups": "column.npy"}, r"of shape \(41, 1\) are neither an id for each of the 40 rows"),
        ({"groups": "matrix.npy"}, r"groups of shape \(2, 3\) are neither an id"),
        ({"bytes_file": "bytes.npy"}, "^bytes_file needs groups: without them"),
        ({"words_file": "bytes.npy"}, "^words_file needs groups: without them"),
        ({"sequences_out": "x.npy"}, "^sequences_out needs groups: without them"),
        ({"groups": "ids.npy", "bytes_file": "bytes.npy"}, "one integer for each of the 3 seq"),
        ({"groups": "offsets.npy", "bytes_file": "zero.npy"}, "length of sequence 2 is 0"),
        ({"groups": "ids.npy", "sequences_out": "bytes.txt"}, "not a file type that klce writes"),
        ({"groups": "ids.npy", "sequences_out": "ids.npy"}, "would replace the input"),
        ({"groups": "ids.npy", "sequences_out": "o.npy", "out": "o.npy"}, "need a place each"),
    ],
)
def test_refused(files, tmp_path, options, message):
    np.save("late.npy", [1, 20, 40])
    np.save("down.npy", [0, 20, 10, 40])
    np.save("either.npy", [*range(39), 40])
    np.save("column.npy", np.zeros((41, 1), int))
    np.save("matrix.npy", np.zeros((2, 3), int))
    np.save("zero.npy", [1, 2, 0, 3])
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=message):
        score_file(**{"logits": "logits.npy", "targets": "targets.npy"} | options)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("ids", [[0, 2, 1, 4], [1, 2, 3, 4], [0, 1, 2, 3], [0, 1, 4, 3]])
def test_ids_that_are_no_offsets(tmp_path, monkeypatch, ids):
    monkeypatch.setattr("klce.scoring.readers.base.NUMBERS_AT_ONCE", 2)
    np.save(tmp_path / "g.npy", ids)
    assert Groups(open_reader(tmp_path / "g.npy"), (4,)).labels.tolist() == ids


def test_offsets_of_no_rows(tmp_path):
    np.save(tmp_path / "g.npy", [0, 0])
    groups = Groups(open_reader(tmp_path / "g.npy"), (0,))
    assert len(groups) == 1
    assert math.isnan(GroupSums(groups).clustered_error("nll"))


def test_clusters_of_one_row_have_the_usual_error():
    values = np.random.default_rng(0).normal(size=50)
    usual = values.std(ddof=1) / np.sqrt(50)
    assert clustered_error(values, np.ones(50, int)) == pytest.approx(usual, rel=1e-12)


def test_clusters_without_rows_do_not_count():
    values = np.random.default_rng(0).normal(size=50)
    some = np.arange(50) % 3 > 0
    expected = clustered_error(values[some], np.ones(some.sum(), int))
    found = clustered_error(np.where(some, values, 0), some.astype(int))
    assert found == pytest.approx(expected, rel=1e-12)
    assert math.isnan(clustered_error(np.array([0.0, 1.0]), np.array([0, 3])))


def test_equal_rows_in_clusters_have_the_error_of_the_clusters():
    values = np.random.default_rng(0).normal(size=10)
    usual = values.std(ddof=1) / np.sqrt(10)
    assert clustered_error(7 * values, np.full(10, 7)) == pytest.approx(usual, rel=1e-12)
