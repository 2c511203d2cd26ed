"""The report page, as it is written and as a browser shows it."""

import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import klce
from klce.scoring import (
    InputError,
    Interrupted,
    compare_file,
    compare_page,
    page,
    score_file,
    score_page,
)
from klce.scoring.accuracy import TOP, Ranks
from klce.scoring.compare_page import gather
from klce.scoring.distribution import QUANTILES
from klce.scoring.histograms import Histogram
from klce.scoring.numbers import number
from klce.scoring.readers import open_reader
from klce.scoring.score_page import gather as gather_scores

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[2] / "examples" / "lm"
GROUPS = f"{EXAMPLE / 'base.kld'}::groups"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The pages of a comparison and of a scored file, by the commands."""
    folder = tmp_path_factory.mktemp("pages")
    paths = {name: folder / f"{name}.html" for name in ("compare", "score")}
    compare_file(EXAMPLE / "base.kld", EXAMPLE / "q4_logits.npy", report=paths["compare"])
    score_file(EXAMPLE / "base.kld", groups=GROUPS, report=paths["score"])
    return paths


@pytest.fixture
def one_theme(monkeypatch):
    """Draw each picture once: the themes differ in colours alone."""
    real, drawn = page._image, {}

    def image(draw, colours):
        if draw not in drawn:
            drawn[draw] = real(draw, colours)
        return drawn[draw]

    monkeypatch.setattr(page, "_image", image)


class Parser(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.tags, self.urls, self.text = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.urls += [value for name, value in attributes if name in ("src", "srcset", "href")]
        if tag not in ("meta", "img", "br", "source"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parse(path):
    parser = Parser()
    parser.feed(path.read_text())
    assert not parser.open
    return parser


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            "compare",
            (
                "mean KL(P||Q), nats 0.00685",
                "Calibration",
                "The worst rows",
                "base.kld",
                "q4_logits.npy",
            ),
        ),
        ("score", ("NLL", "Calibration", "Accuracy of the top k", "The worst rows", "base.kld")),
    ],
)
def test_page_holds_everything_itself(pages, command, said):
    parser = parse(pages[command])
    assert parser.tags.count("picture") == 5
    assert len(parser.urls) == 10
    assert all(url.startswith("data:image/svg+xml;base64,") for url in parser.urls)
    assert "script" not in parser.tags
    assert "url(" not in pages[command].read_text()
    text = " ".join(" ".join(parser.text).split())
    for words in said:
        assert words in text


def test_same_rows_give_the_same_page(pages, tmp_path):
    compare_file(
        EXAMPLE / "base.kld", EXAMPLE / "q4_logits.npy", report=tmp_path / "c.html", block_rows=10
    )
    assert (tmp_path / "c.html").read_bytes() == pages["compare"].read_bytes()
    score_file(EXAMPLE / "base.kld", groups=GROUPS, report=tmp_path / "s.html", block_rows=10)
    assert (tmp_path / "s.html").read_bytes() == pages["score"].read_bytes()


@pytest.mark.parametrize(("command", "pictures"), [("compare", 3), ("score", 2)])
def test_without_targets(tmp_path, one_theme, command, pictures):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "<p>.npy", rng.normal(size=(4, 9, 7)))
    np.save(tmp_path / "q.npy", rng.normal(size=(4, 9, 7)))
    if command == "compare":
        compare_file(tmp_path / "<p>.npy", tmp_path / "q.npy", report=tmp_path / "r.html")
    else:
        score_file(tmp_path / "<p>.npy", report=tmp_path / "r.html")
    parser = parse(tmp_path / "r.html")  # the name is text, not a tag
    assert parser.tags.count("picture") == pictures
    text = " ".join(parser.text)
    assert "<p>.npy" in text
    assert "label" not in text
    assert "position along the last axis of rows" in text


@pytest.mark.parametrize("case", ["equal", "infinite", "nan", "none", "one", "huge"])
def test_rows_that_are_hard_to_draw(tmp_path, one_theme, case):
    rng = np.random.default_rng(0)
    p = rng.normal(size=(0 if case == "none" else 1 if case == "one" else 20, 7))
    q = p.copy()
    if case == "infinite":
        q[:, 0] = -np.inf
    if case == "nan":
        p[:] = np.nan
    if case == "huge":
        q[:, 0] = np.finfo(float).min
    np.save(tmp_path / "p.npy", p)
    np.save(tmp_path / "q.npy", q)
    np.save(tmp_path / "t.npy", np.ones(len(p), int))
    compare_file(*(tmp_path / f"{name}.npy" for name in "pqt"), report=tmp_path / "c.html")
    # The first class is impossible, where it can be.
    np.save(tmp_path / "t.npy", np.zeros(len(p), int))
    scored = tmp_path / ("p.npy" if case == "nan" else "q.npy")
    score_file(scored, tmp_path / "t.npy", report=tmp_path / "s.html")
    for name in ("c.html", "s.html"):
        parser = parse(tmp_path / name)
        assert parser.tags.count("picture") == 5
        assert not any(re.search(r"(?<!rows of )\bnan\b", text) for text in parser.text)


def test_a_score_page_is_refused_before_any_work(tmp_path):
    with pytest.raises(InputError, match=r"x\.pdf: a report is a page"):
        score_file(EXAMPLE / "base.kld", report=tmp_path / "x.pdf", out=tmp_path / "o.npy")
    with pytest.raises(InputError, match="no folder"):
        score_file(EXAMPLE / "base.kld", report=tmp_path / "a" / "x.html")
    assert not list(tmp_path.iterdir())


def test_a_page_changes_no_byte_of_the_results(tmp_path, one_theme):
    plain, pictured = tmp_path / "plain.npy", tmp_path / "pictured.npy"
    for want in (None, ["margin"]):
        score_file(EXAMPLE / "base.kld", out=plain, want=want)
        score_file(EXAMPLE / "base.kld", out=pictured, want=want, report=tmp_path / "r.html")
        assert plain.read_bytes() == pictured.read_bytes()
        assert "Calibration" in (tmp_path / "r.html").read_text()


def test_what_the_page_takes_of_a_row(tmp_path):
    score_file(EXAMPLE / "base.kld", out=tmp_path / "rows.npy")
    rows = np.load(tmp_path / "rows.npy")
    x = open_reader(EXAMPLE / "base.kld").read(0, len(rows), 1).astype(np.float64)
    own = x[np.arange(len(x)), rows["target"]]
    assert rows["rank"].tolist() == (x >= own[:, None]).sum(1).tolist()
    np.testing.assert_allclose(rows["max_log_prob"], klce.log_softmax(x).max(1), rtol=1e-6)


def told(values):
    """Return all numbers in values for JSON, as a page may show them."""
    if isinstance(values, dict):
        return set().union(*map(told, values.values()))
    if isinstance(values, int | float):
        shown = {number(values), number(values, ".2g"), number(values, "+.4f"), f"{values:,}"}
        return shown | {number(100 * values, ".2f")}
    return {"-"} if values is None else set()


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("command", ["compare", "score"])
def test_numbers_of_a_page_are_in_the_json(tmp_path, one_theme, monkeypatch, command, labelled):
    written = {}
    of = compare_page if command == "compare" else score_page
    monkeypatch.setattr(of, "write_page", lambda path, **parts: written.update(parts))
    options = {"targets": None if labelled else False, "report": tmp_path / "r.html"}
    if command == "compare":
        found = compare_file(EXAMPLE / "base.kld", EXAMPLE / "q4_logits.npy", **options)
    else:
        found = score_file(EXAMPLE / "base.kld", groups=GROUPS if labelled else None, **options)
    numbers = told(json.loads(json.dumps(found.to_dict())))
    for name, value in written["counts"]:
        assert value in numbers, name
    for table in written["tables"]:
        for label, *cells in table.lines:
            assert {*cells} <= numbers, (table.title, label)
    titles = ["Means", "Percentiles"] if command == "compare" else ["Percentiles"]
    if labelled and command == "score":
        titles.append("Accuracy of the top k")
    assert [table.title for table in written["tables"]] == titles
    captions = [figure.caption for figure in written["figures"] if figure.title == "Calibration"]
    assert len(captions) == labelled
    for caption in captions:
        errors = re.findall(r"([\d.]+) %", caption)
        assert len(errors) == (2 if command == "compare" else 1)
        assert {*errors} <= numbers


@pytest.mark.parametrize("asked", ["at first", "later"])
def test_a_page_of_a_resumed_run(pages, tmp_path, asked):
    def stop(done, total):
        raise KeyboardInterrupt

    options = {"groups": GROUPS, "out": tmp_path / "o.npy"}
    report = {"report": tmp_path / "r.html"}
    first = options | report if asked == "at first" else options
    with pytest.raises(Interrupted):
        score_file(EXAMPLE / "base.kld", block_rows=10, progress=stop, **first)
    assert not (tmp_path / "r.html").exists()
    assert score_file(EXAMPLE / "base.kld", resume=True, **options, **report).resumed_rows == 10
    assert (tmp_path / "r.html").read_bytes() == pages["score"].read_bytes()


def test_pictures_of_scores_count_the_rows_that_count(tmp_path, one_theme, monkeypatch):
    monkeypatch.setattr("klce.scoring.distribution.ROWS_AT_ONCE", 32)
    rng = np.random.default_rng(0)
    logits, targets = 3 * rng.normal(size=(200, 30)), rng.integers(0, 30, 200)
    targets[::7], logits[5, 2], logits[8, targets[8]] = -100, np.nan, -np.inf
    np.save(tmp_path / "x.npy", logits)
    np.save(tmp_path / "y.npy", targets)
    paths = {"out": tmp_path / "out.npy", "report": tmp_path / "r.html"}
    scores = score_file(tmp_path / "x.npy", tmp_path / "y.npy", **paths)
    summary, calibration, ranks = scores.summary, scores.summary.calibration, scores.ranks
    rows = np.load(tmp_path / "out.npy")
    found = gather_scores(rows, (200,), -100, None)
    assert summary.infinite == 1
    for picture, rows_shown in (
        (found.nll, summary.counted - 1),
        (found.by_position, summary.counted - 1),
        (found.entropy, summary.counted),
    ):
        assert picture.counts.sum() == rows_shown < 200
    assert ranks.rows == sum(calibration.counts) == summary.counted
    assert np.isfinite(found.by_position.mean[found.by_position.counts.any(axis=1)]).all()
    text = (tmp_path / "r.html").read_text()
    assert text.count("1 row of infinite NLL left out.") == 2 * 2  # captions, and texts of images
    counted = rows[(targets != -100) & ~np.isnan(rows["entropy"])]
    for k, share in zip(ranks.k, ranks.share, strict=True):
        assert share == pytest.approx(np.mean(counted["rank"] <= k))
    assert ranks.share[0] == pytest.approx(summary.accuracy)
    assert (ranks.k[0], ranks.k[-1]) == (1, 30)
    assert found.worst[0] == 8
    assert np.all(np.diff(rows["nll"][found.worst]) <= 0)
    assert sum(calibration.right) == summary.correct
    sure = np.nansum(calibration.confidence * calibration.counts)
    assert sure == pytest.approx(np.exp(counted["max_log_prob"]).sum(), rel=1e-8)
    expected = np.quantile(counted["entropy"], QUANTILES)
    np.testing.assert_allclose(scores.entropy_quantiles, expected, rtol=1e-12)
    assert scores.nll_quantiles[-1] == np.inf


def test_the_top_of_a_single_class(tmp_path, one_theme):
    np.save(tmp_path / "logits.npy", np.zeros((3, 1)))
    np.save(tmp_path / "targets.npy", np.zeros(3, int))
    page = tmp_path / "r.html"
    score_file(tmp_path / "logits.npy", tmp_path / "targets.npy", report=page)
    cells = re.findall(r"<t[dh][^>]*>([^<]*)</t[dh]>", page.read_text(encoding="utf-8"))
    at = cells.index("accuracy, %")
    assert cells[at + 1 : at + 3] == ["1", "100.00"]


def test_pictures_count_all_rows(tmp_path):
    paths = [EXAMPLE / name for name in ("base_logits.npy", "q4_logits.npy", "targets.npy")]
    summary = compare_file(*paths, out=tmp_path / "out.npy").summary
    rows = np.load(tmp_path / "out.npy")
    found = gather(rows, (105,), -100, None)
    assert found.kl.counts.sum() == 105
    assert found.change.counts.sum() == 105
    for density in (found.by_entropy, found.by_position):
        assert density.counts.sum() == 105
        weights = density.counts.sum(1)
        total = np.nansum(density.mean * weights)
        assert total == pytest.approx(rows["kl_divergence"].astype(float).sum(), rel=1e-9)
    for calibration, suffix in ((summary.calibration_p, "_p"), (summary.calibration_q, "_q")):
        assert sum(calibration.counts) == 105
        sure = np.nansum(calibration.confidence * calibration.counts)
        expected = np.exp(rows["max_log_prob" + suffix].astype(float)).sum()
        assert sure == pytest.approx(expected, rel=1e-8)
        assert sum(calibration.right) == (rows["argmax" + suffix] == rows["target"]).sum()
    assert found.worst.tolist() == np.argsort(-rows["kl_divergence"], kind="stable")[:20].tolist()


def test_infinite_divergences_are_left_out_of_the_pictures(tmp_path, one_theme):
    rng = np.random.default_rng(0)
    p = 3 * rng.normal(size=(400, 9))
    q = p + rng.normal(size=p.shape) * rng.exponential(2, size=(400, 1))
    q[::4, 0] = -np.inf
    for name, logits in (("p", p), ("q", q)):
        np.save(tmp_path / f"{name}.npy", logits)
    paths = {"out": tmp_path / "out.npy", "report": tmp_path / "c.html"}
    summary = compare_file(tmp_path / "p.npy", tmp_path / "q.npy", **paths).summary
    assert summary.infinite == 100
    rows = np.load(tmp_path / "out.npy")
    found = gather(rows, (400,), -100, None)
    finite = rows["kl_divergence"][np.isfinite(rows["kl_divergence"])]
    assert finite.max() > 1
    assert found.kl.edges[-1] == pytest.approx(finite.max())
    assert found.kl.counts.sum() == 300
    for density in (found.by_entropy, found.by_position):
        assert density.counts.sum() == 300
        shown = density.counts.sum(axis=1)
        assert np.isfinite(density.mean[shown > 0]).all()
        assert np.nansum(density.mean * shown) == pytest.approx(finite.sum())
    text = (tmp_path / "c.html").read_text()
    assert text.count("100 rows of infinite KL(P||Q) left out.") == 3 * 2


def test_rows_that_are_equal_are_told_of(tmp_path, one_theme):
    p = np.random.default_rng(0).normal(size=(30, 9))
    q = p.copy()
    q[:4] += np.random.default_rng(1).normal(size=(4, 9))
    for name, logits in (("p", p), ("q", q)):
        np.save(tmp_path / f"{name}.npy", logits)
    paths = {"out": tmp_path / "out.npy", "report": tmp_path / "r.html"}
    compare_file(tmp_path / "p.npy", tmp_path / "q.npy", **paths)
    found = gather(np.load(tmp_path / "out.npy"), (30,), -100, None)
    assert (found.below, found.kl.counts[0], found.kl.counts.sum()) == (26, 26, 30)
    text = (tmp_path / "r.html").read_text()
    assert text.count("26 rows of less than 1e-12, or 0, shown there.") == 3 * 2
    compare_file(tmp_path / "p.npy", tmp_path / "p.npy", **paths)
    assert "30 rows of less than 1e-12, or 0" in (tmp_path / "r.html").read_text()
    compare_file(EXAMPLE / "base.kld", EXAMPLE / "q4_logits.npy", **paths)
    assert "rows of less than" not in (tmp_path / "r.html").read_text()


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ((0.0, 0.0, 0.0, 0.0), ["median, 90 %, 99 %, 99.9 %"]),
        ((0.1, 0.5, 0.52, 0.9), ["median", "90 %, 99 %", "99.9 %"]),
        ((0.1, 0.3, 0.5, np.inf), ["median", "90 %", "99 %"]),
    ],
)
def test_names_of_percentiles_do_not_overprint(values, names):
    figure = pytest.importorskip("matplotlib.figure").Figure(figsize=(6.4, 4.0))
    axes, shown = figure.subplots(), (0.5, 0.9, 0.99, 0.999)
    quantiles = np.zeros(len(QUANTILES))
    for fraction, value in zip(shown, values, strict=True):
        quantiles[QUANTILES.index(fraction)] = value
    histogram = Histogram(np.linspace(0, 1, 61), np.ones(60, int))
    page.draw_histogram(axes, page._THEMES["light"], histogram, "x", quantiles, shown)
    assert [text.get_text() for text in axes.texts] == names


@pytest.mark.parametrize(
    ("classes", "ticks"), [(2, [1, 2]), (7, [1, 2, 3, 5]), (100, TOP), (3001, [1, 10, 100, 1000])]
)
def test_ranks_have_a_scale(classes, ticks):
    figure = pytest.importorskip("matplotlib.figure").Figure()
    axes = figure.subplots()
    ranks = Ranks.of(np.arange(1, classes + 1), classes)
    score_page._draw_ranks(axes, page._THEMES["light"], ranks)
    figure.draw_without_rendering()
    low, high = axes.get_xlim()
    shown = axes.get_xticks(), axes.get_xticklabels()
    texts = [text.get_text() for at, text in zip(*shown, strict=True) if low <= at <= high]
    assert texts == [f"{tick:,}" for tick in ticks]


PROBE = """
<script>addEventListener('load', () => {
  const fits = document.documentElement.scrollWidth <= innerWidth;
  const drawn = [...document.images].every(i => i.complete && i.naturalWidth > 0);
  if (!fits || !drawn || document.images.length != 5) document.body.replaceChildren();
})</script></body>
"""
"""Empties a page that is wider than its window, or has not all of its pictures."""

WIDTH, HEIGHT = 1000, 1400


@pytest.fixture(scope="module", params=["light", "dark"])
def shot(pages, request, tmp_path_factory):
    """A theme, and the pages side by side in it as a browser shows them."""
    image = pytest.importorskip("matplotlib.image")
    folder = tmp_path_factory.mktemp("shot")
    frames = ""
    for name, path in pages.items():
        (folder / f"{name}.html").write_text(path.read_text().replace("</body>", PROBE))
        frames += f"<iframe src={name}.html width={WIDTH} height={HEIGHT} frameborder=0></iframe>"
    both = folder / "both.html"
    both.write_text(
        f"<meta name=color-scheme content='light dark'><body style='margin:0;display:flex'>{frames}"
    )
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            f"--user-data-dir={folder / 'profile'}", f"--window-size={2 * WIDTH},{HEIGHT}",
            f"--blink-settings=preferredColorScheme={0 if request.param == 'dark' else 1}",
            f"--screenshot={folder / 'shot.png'}", both.as_uri(),
        ],
        capture_output=True, check=True, timeout=120,
    )  # fmt: skip
    assert b"written to file" in done.stderr + done.stdout
    pixels = image.imread(folder / "shot.png")[..., :3]
    return request.param, {"compare": pixels[:, :WIDTH], "score": pixels[:, WIDTH:]}


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("command", ["compare", "score"])
def test_page_in_a_browser(shot, command):
    """The paper and the pictures are of the theme, and nothing is wider than the window."""
    theme, shown = shot
    brightness = shown[command].mean(axis=2)
    paper = np.median(brightness)
    assert (paper < 0.15) if theme == "dark" else (paper > 0.95)
    # Bars, lines and text stand out against the paper.
    assert 0.03 < np.mean(np.abs(brightness - paper) > 0.25) < 0.5
