"""The report page, as it is written and as a browser shows it."""

import html.parser
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from klce.scoring import compare_file
from klce.scoring.compare_page import gather
from klce.scoring.histograms import Calibration

EXAMPLE = Path(__file__).parents[2] / "examples" / "lm"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    compare_file(EXAMPLE / "base.kld", EXAMPLE / "q4_logits.npy", report=path)
    return path


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


def test_page_holds_everything_itself(page):
    parser = parse(page)
    assert parser.tags.count("picture") == 5
    assert len(parser.urls) == 10
    assert all(url.startswith("data:image/svg+xml;base64,") for url in parser.urls)
    assert "script" not in parser.tags
    assert "url(" not in page.read_text()
    text = " ".join(" ".join(parser.text).split())
    for words in ("KL(P||Q)", "Calibration", "The worst rows", "base.kld", "q4_logits.npy"):
        assert words in text


def test_same_rows_give_the_same_page(page, tmp_path):
    compare_file(
        EXAMPLE / "base.kld", EXAMPLE / "q4_logits.npy", report=tmp_path / "r.html", block_rows=10
    )
    assert (tmp_path / "r.html").read_bytes() == page.read_bytes()


def test_without_targets(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "<p>.npy", rng.normal(size=(4, 9, 7)))
    np.save(tmp_path / "q.npy", rng.normal(size=(4, 9, 7)))
    compare_file(tmp_path / "<p>.npy", tmp_path / "q.npy", report=tmp_path / "r.html")
    parser = parse(tmp_path / "r.html")  # the name is text, not a tag
    assert parser.tags.count("picture") == 3
    text = " ".join(parser.text)
    assert "<p>.npy" in text
    assert "label" not in text
    assert "position along the last axis of rows" in text


@pytest.mark.parametrize("case", ["equal", "infinite", "nan", "none", "one"])
def test_rows_that_are_hard_to_draw(tmp_path, case):
    rng = np.random.default_rng(0)
    p = rng.normal(size=(0 if case == "none" else 1 if case == "one" else 20, 7))
    q = p.copy()
    if case == "infinite":
        q[:, 0] = -np.inf
    if case == "nan":
        p[:] = np.nan
    np.save(tmp_path / "p.npy", p)
    np.save(tmp_path / "q.npy", q)
    np.save(tmp_path / "t.npy", np.ones(len(p), int))
    paths = [tmp_path / name for name in ("p.npy", "q.npy", "t.npy")]
    compare_file(*paths, report=tmp_path / "r.html")
    assert parse(tmp_path / "r.html").tags.count("picture") == 5


def test_pictures_count_all_rows(tmp_path):
    paths = [EXAMPLE / name for name in ("base_logits.npy", "q4_logits.npy", "targets.npy")]
    summary = compare_file(*paths, out=tmp_path / "out.npy").summary
    rows = np.load(tmp_path / "out.npy")
    found = gather(rows, (105,), -100, None, (summary.kl_quantiles[0], summary.kl_quantiles[-1]))
    assert found.kl.counts.sum() == 105
    assert found.change.counts.sum() == 105
    for density in (found.by_entropy, found.by_position):
        assert density.counts.sum() == 105
        weights = density.counts.sum(1)
        total = np.nansum(density.mean * weights)
        assert total == pytest.approx(rows["kl"].astype(float).sum(), rel=1e-9)
    for calibration, suffix in zip(found.calibration, ("", "_q"), strict=True):
        assert calibration.counts.sum() == 105
        right = np.nansum(calibration.accuracy * calibration.counts)
        assert right == pytest.approx((rows["argmax" + suffix] == rows["target"]).sum())
    assert found.worst.tolist() == np.argsort(-rows["kl"], kind="stable")[:20].tolist()


def test_expected_calibration_error():
    calibration = Calibration(
        np.array([2, 0, 6]), np.array([0.2, np.nan, 0.9]), np.array([0.5, np.nan, 0.7])
    )
    assert calibration.error == pytest.approx((2 * 0.3 + 6 * 0.2) / 8)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_page_in_a_browser(page, tmp_path, theme):
    """The paper and the pictures are of the theme, and nothing is wider than the window."""
    matplotlib_image = pytest.importorskip("matplotlib.image")
    shot = tmp_path / "shot.png"
    probe = tmp_path / "probe.html"
    script = (
        "<script>addEventListener('load', () => { document.title = ['loaded',"
        "document.documentElement.scrollWidth <= innerWidth,"
        "[...document.images].every(i => i.complete && i.naturalWidth > 0),"
        "document.images.length].join(' ') })</script></body>"
    )
    probe.write_text(page.read_text().replace("</body>", script))
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1000,1400",
        f"--blink-settings=preferredColorScheme={0 if theme == 'dark' else 1}",
    ]  # fmt: skip
    done = subprocess.run(
        [*command, "--dump-dom", probe.as_uri()], capture_output=True, check=True, timeout=120
    )
    assert re.search(rb"<title>(.*?)</title>", done.stdout)[1] == b"loaded true true 5"
    subprocess.run(
        [*command, f"--screenshot={shot}", page.as_uri()],
        capture_output=True, check=True, timeout=120,
    )  # fmt: skip
    image = matplotlib_image.imread(shot)[..., :3]
    brightness = image.mean(axis=2)
    paper = np.median(brightness)
    assert (paper < 0.15) if theme == "dark" else (paper > 0.95)
    # Bars, lines and text stand out against the paper.
    assert 0.03 < np.mean(np.abs(brightness - paper) > 0.25) < 0.5
