"""The README: its example, to the digits it prints and to the last ones, its calls and links."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

import klce

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCS = sorted((ROOT / "docs").glob("*.md"))

P = np.array([1.0, 0.0, 0.0])
Q = np.array([0.7, 0.2, 0.1])
FIRST = np.array([[0.7, 0.2, 0.1], [0.3, 0.5, 0.2], [0.2, 0.2, 0.6]])
SECOND = np.array([[0.2, 0.7, 0.1], [0.3, 0.2, 0.5], [0.6, 0.2, 0.2]])
TARGET = np.array([0, 1, 2])

# The loss of a row is log(1 + the sum of exp(x - x[target]) over the other classes).
FIRST_LOSSES = [
    math.log1p(math.exp(-0.5) + math.exp(-0.6)),
    math.log1p(math.exp(-0.2) + math.exp(-0.3)),
    math.log1p(2 * math.exp(-0.4)),
]
SECOND_LOSSES = [
    math.log1p(math.exp(0.5) + math.exp(-0.1)),
    math.log1p(math.exp(0.1) + math.exp(0.3)),
    math.log1p(math.exp(0.4) + 1),
]


def exactly(expected):
    return pytest.approx(expected, rel=0, abs=1e-15)


def test_divergence_of_a_certain_prediction():
    divergence = klce.kl_divergence(P, Q)
    assert f"{divergence:.4f}" == "0.3567"
    assert divergence == exactly(math.log(10 / 7))
    assert klce.kl_divergence(P, Q, base=2) == exactly(math.log2(10 / 7))
    assert klce.information(Q[0]) == exactly(math.log(10 / 7))


def test_divergence_is_cross_entropy_less_entropy():
    assert klce.entropy(P) == 0
    cross_entropy = klce.cross_entropy(Q[np.newaxis], [0], form="probs")
    assert klce.kl_divergence(P, Q) == exactly(cross_entropy - klce.entropy(P))
    # And for a p that leaves some doubt: the expected information of q, less that of p.
    p = np.array([0.5, 0.3, 0.2])
    cross_entropy = np.sum(p * klce.information(Q))
    assert klce.kl_divergence(p, Q) == exactly(cross_entropy - klce.entropy(p))
    by_hand = 0.5 * math.log(5 / 7) + 0.3 * math.log(3 / 2) + 0.2 * math.log(2)
    assert klce.kl_divergence(p, Q) == exactly(by_hand)


@pytest.mark.parametrize(
    ("logits", "printed", "losses"),
    [(FIRST, "0.8527", FIRST_LOSSES), (SECOND, "1.2527", SECOND_LOSSES)],
    ids=["first", "second"],
)
def test_cross_entropy_of_the_tables(logits, printed, losses):
    loss = klce.cross_entropy(logits, TARGET)
    assert f"{loss:.4f}" == printed
    assert loss == exactly(math.fsum(losses) / 3)
    rows = klce.cross_entropy(logits, TARGET, reduction="none")
    assert rows.tolist() == exactly(losses)
    assert klce.cross_entropy(logits, TARGET, reduction="sum") == exactly(math.fsum(losses))


@pytest.mark.parametrize("logits", [FIRST, SECOND], ids=["first", "second"])
def test_likelihood_of_log_softmax_is_the_cross_entropy(logits):
    loss = klce.cross_entropy(logits, TARGET)
    assert klce.nll_loss(klce.log_softmax(logits), TARGET) == exactly(loss)
    assert klce.nll_loss(np.log(klce.softmax(logits)), TARGET) == exactly(loss)
    probs = klce.softmax(logits)
    assert klce.cross_entropy(probs, TARGET, form="probs") == exactly(loss)


def test_likelihood_of_a_table_takes_it_as_it_is():
    rows = klce.nll_loss(FIRST, TARGET, reduction="none")
    assert rows.tolist() == [-0.7, -0.5, -0.6]
    assert klce.nll_loss(FIRST, TARGET) == exactly(-0.6)


def test_binary_entropy():
    assert klce.binary_entropy(0.5) == exactly(math.log(2))
    assert klce.binary_entropy(0.5, base=2) == exactly(1.0)
    assert klce.binary_entropy([0.0, 1.0]).tolist() == [0.0, 0.0]
    coin = klce.binary_entropy(0.7)
    assert coin == exactly(-0.7 * math.log(0.7) - 0.3 * math.log(0.3))
    assert coin == exactly(klce.entropy([0.7, 0.3]))
    assert coin == exactly(klce.binary_entropy(0.3))


# --- the rest of the page -------------------------------------------------------------------------


def test_the_calls_run(monkeypatch):
    monkeypatch.chdir(ROOT)
    (code,) = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    found = {}
    exec(code, found)
    assert found["logits"].shape == (105, 3001)
    assert_allclose(found["logits"].sum(axis=-1), 1, rtol=1e-5)  # softmax, in place


def test_every_name_is_there():
    for name in klce.__all__:
        assert f"`{name}`" in README, name


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in DOCS)]
)
def test_links_lead_somewhere(page):
    place = ROOT / page
    for link in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", place.read_text()):
        assert (place.parent / link).exists(), link


def test_every_page_is_linked():
    for path in DOCS:
        assert f"](docs/{path.name})" in README, path.name
