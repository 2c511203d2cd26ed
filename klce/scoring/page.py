"""A comparison as a page: pictures by matplotlib, put into a template by Jinja.

The page is one file without scripts. Each picture is there twice, for a light and for a dark
screen.
"""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from klce import __version__
from klce.scoring.comparison import MEASURES, QUANTILES
from klce.scoring.histograms import gather
from klce.scoring.optional import library
from klce.scoring.results import open_whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from klce.scoring.compare import Comparison  # which writes pages
    from klce.scoring.comparison import ComparisonSummary, Estimate
    from klce.scoring.groups import Groups
    from klce.scoring.histograms import Calibration, Density, Pictures

_TEMPLATE = Path(__file__).with_name("page.html.j2")

_THEMES = {
    "light": {
        "ink": "#1f2328", "faint": "#d5d9de", "p": "#1f6feb", "q": "#c2410c", "low": "#dbe9fd",
        "high": "#0b3d91",
    },
    "dark": {
        "ink": "#d7dce2", "faint": "#3d444d", "p": "#6cb0ff", "q": "#ff9a5c", "low": "#1b3355",
        "high": "#cfe4ff",
    },
}  # fmt: skip

Colours = dict[str, str]


def check_libraries(path: Path) -> None:
    """Refuse, before any work, a page that cannot be made for want of a library."""
    library("jinja2", f"{path}: writing a report")
    library("matplotlib", f"{path}: writing a report")


def write_page(
    path: Path, comparison: Comparison, rows: NDArray[Any], groups: Groups | None
) -> None:
    """Write the page of a comparison, given its rows and their sequences, if there are any."""
    summary = comparison.summary
    assert summary is not None
    pictures = gather(
        rows,
        comparison.shape[:-1],
        comparison.ignore_index,
        groups,
        (summary.kl_quantiles[0], summary.kl_quantiles[-1]),
    )
    jinja2 = library("jinja2", f"{path}: writing a report")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    page = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        comparison=comparison,
        summary=summary,
        counts=_counts(comparison, summary),
        measures=[
            (label, *_estimate(summary.estimates[name]))
            for name, label in MEASURES.items()
            if name in summary.estimates and name != "squared_probability_change"
        ],
        quantiles=_quantiles(summary),
        figures=_figures(summary, pictures),
        worst=_worst(rows, pictures.worst, groups),
        version=__version__,
    )
    with open_whole(path) as file:
        file.write(page.encode())


def _counts(comparison: Comparison, summary: ComparisonSummary) -> list[tuple[str, str]]:
    counts = [
        ("rows", f"{summary.rows:,}"),
        ("classes", f"{comparison.shape[-1]:,}"),
        ("rows that count", f"{summary.counted:,}"),
    ]
    if comparison.groups is not None:
        counts.append(("sequences", f"{comparison.groups:,}"))
    if summary.nan:
        counts.append(("rows of nan", f"{summary.nan:,}"))
    if summary.infinite:
        counts.append(("rows of infinite KL", f"{summary.infinite:,}"))
    if summary.saturated is not None:
        counts.append(("rows whose label P's file cut off", f"{summary.saturated:,}"))
    if "nll" in summary.estimates:
        counts.append(("perplexity of P", _number(summary.perplexity("nll"))))
        counts.append(("perplexity of Q", _number(summary.perplexity("nll_q"))))
    return counts


def _estimate(estimate: Estimate) -> tuple[str, str, str]:
    clustered = estimate.clustered_error
    return (
        _number(estimate.mean),
        _number(estimate.error, ".2g"),
        "" if clustered is None else _number(clustered, ".2g"),
    )


def _quantiles(summary: ComparisonSummary) -> list[tuple[str, str, str]]:
    change = summary.change_quantiles or (math.nan,) * len(QUANTILES)
    names = {0.0: "minimum", 0.5: "median", 1.0: "maximum"}
    return [
        (names.get(fraction, f"{100 * fraction:g} %"), _number(kl), _number(difference, "+.4f"))
        for fraction, kl, difference in zip(QUANTILES, summary.kl_quantiles, change, strict=True)
    ]


def _worst(
    rows: NDArray[Any], worst: NDArray[np.int64], groups: Groups | None
) -> list[dict[str, str]]:
    found = []
    for row in worst.tolist():
        values = rows[row]
        line = {"row": f"{row:,}"}
        if groups is not None:
            line["sequence"] = str(groups.labels[groups.block(row, row + 1)[0]])
        line |= {
            "KL(P||Q)": _number(float(values["kl"])),
            "KL(Q||P)": _number(float(values["reverse_kl"])),
            "entropy of P": _number(float(values["entropy"])),
            "argmax of P": f"{values['argmax']} ({100 * values['top']:.1f} %)",
            "argmax of Q": f"{values['argmax_q']} ({100 * values['top_q']:.1f} %)",
        }
        if "target" in (rows.dtype.names or ()):
            line |= {
                "label": str(values["target"]),
                "NLL of P": _number(float(values["nll"])),
                "NLL of Q": _number(float(values["nll_q"])),
            }
        found.append(line)
    return found


def _figures(summary: ComparisonSummary, pictures: Pictures) -> list[dict[str, str]]:
    def figure(title: str, caption: str, draw: Callable[[Any, Colours], None]) -> dict[str, str]:
        images = {theme: _image(draw, colours) for theme, colours in _THEMES.items()}
        return {"title": title, "caption": caption, **images}

    found = [
        figure(
            "How far apart the rows are",
            "Rows by their KL(P||Q), on a logarithmic scale, and its percentiles.",
            lambda axes, colours: _draw_kl(axes, colours, pictures, summary),
        ),
        figure(
            "Divergence against entropy",
            "KL(P||Q) by the entropy of P: is Q wrong where P is sure, or where P is in doubt? "
            "The line is the mean.",
            lambda axes, colours: _draw_density(
                axes, colours, pictures.by_entropy, "entropy of P (nats)"
            ),
        ),
        figure(
            "Divergence along the position",
            f"KL(P||Q) by the {pictures.positions}. The line is the mean.",
            lambda axes, colours: _draw_density(
                axes, colours, pictures.by_position, pictures.positions
            ),
        ),
    ]
    if pictures.calibration is not None:
        p, q = pictures.calibration
        found += [
            figure(
                "Change of the label's probability",
                "Rows by the label's probability in Q less that in P, and its percentiles. The "
                "number of rows is on a logarithmic scale.",
                lambda axes, colours: _draw_change(axes, colours, pictures, summary),
            ),
            figure(
                "Calibration",
                "How often the most probable class is the label, by its probability; below the "
                "line a model is too sure. The expected calibration error is "
                f"{100 * p.error:.2f} % for P and {100 * q.error:.2f} % for Q.",
                lambda axes, colours: _draw_calibration(axes, colours, p, q),
            ),
        ]
    return found


def _image(draw: Callable[[Any, Colours], None], colours: Colours) -> str:
    """Draw a picture; return it as the URL of an SVG image, the same for the same rows."""
    matplotlib = library("matplotlib", "writing a report")
    figures = library("matplotlib.figure", "writing a report")
    style = {
        "svg.hashsalt": "klce",
        "font.size": 10,
        "text.color": colours["ink"],
        "axes.labelcolor": colours["ink"],
        "axes.edgecolor": colours["faint"],
        "xtick.color": colours["ink"],
        "ytick.color": colours["ink"],
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
    }
    with matplotlib.rc_context(style):
        figure = figures.Figure(figsize=(6.4, 4.0), layout="constrained")
        draw(figure.subplots(), colours)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", transparent=True, dpi=144, metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _draw_kl(axes: Any, colours: Colours, pictures: Pictures, summary: ComparisonSummary) -> None:
    axes.stairs(pictures.kl_counts, pictures.kl_edges, fill=True, color=colours["p"], alpha=0.75)
    axes.set_xscale("log")
    axes.set_xlabel("KL(P||Q) (nats)")
    axes.set_ylabel("rows")
    _mark_quantiles(
        axes, colours, summary.kl_quantiles, {0.5: "median", 0.9: "90 %", 0.99: "99 %",
        0.999: "99.9 %"}, pictures.kl_edges,
    )  # fmt: skip


def _draw_change(
    axes: Any, colours: Colours, pictures: Pictures, summary: ComparisonSummary
) -> None:
    assert pictures.change_edges is not None
    assert pictures.change_counts is not None
    assert summary.change_quantiles is not None
    edges = 100 * pictures.change_edges
    axes.stairs(pictures.change_counts, edges, fill=True, color=colours["p"], alpha=0.75)
    axes.set_ylim(0.5, 1.5 * max(1, int(pictures.change_counts.max())))
    axes.set_yscale("log")
    axes.set_xlabel("probability of the label in Q - in P (percentage points)")
    axes.set_ylabel("rows")
    quantiles = tuple(100 * value for value in summary.change_quantiles)
    _mark_quantiles(axes, colours, quantiles, {0.01: "1 %", 0.5: "median", 0.99: "99 %"}, edges)


def _mark_quantiles(
    axes: Any,
    colours: Colours,
    quantiles: tuple[float, ...],
    shown: dict[float, str],
    edges: NDArray[np.float64],
) -> None:
    for fraction, name in shown.items():
        value = quantiles[QUANTILES.index(fraction)]
        if not math.isfinite(value):
            continue
        value = min(max(value, float(edges[0])), float(edges[-1]))
        axes.axvline(value, color=colours["q"], linewidth=1.2)
        axes.text(
            value, 1.01, name, transform=axes.get_xaxis_transform(), rotation=45, ha="left",
            va="bottom", fontsize=9, color=colours["q"],
        )  # fmt: skip


def _draw_density(axes: Any, colours: Colours, density: Density, x_label: str) -> None:
    colors = library("matplotlib.colors", "writing a report")
    shades = colors.LinearSegmentedColormap.from_list("", [colours["low"], colours["high"]])
    counts = np.ma.masked_equal(density.counts.T, 0)
    most = max(2, int(density.counts.max(initial=0)))
    mesh = axes.pcolormesh(
        density.x, density.y, counts, cmap=shades, norm=colors.LogNorm(1, most), rasterized=True
    )
    centres = (density.x[:-1] + density.x[1:]) / 2
    axes.plot(centres, density.mean, color=colours["q"], linewidth=1.5)
    axes.set_ylim(density.y[0], density.y[-1])
    axes.set_yscale("log")
    axes.set_xlabel(x_label)
    axes.set_ylabel("KL(P||Q) (nats)")
    bar = axes.figure.colorbar(mesh, ax=axes)
    ticks = sorted({*(10**power for power in range(len(str(most)))), most})
    bar.set_ticks(ticks, labels=[f"{tick:,}" for tick in ticks], minor=False)
    bar.minorticks_off()
    bar.set_label("rows")
    bar.outline.set_visible(False)


def _draw_calibration(axes: Any, colours: Colours, p: Calibration, q: Calibration) -> None:
    axes.plot([0, 100], [0, 100], color=colours["faint"], linewidth=1)
    for name, found, colour, marker in (("P", p, "p", "o"), ("Q", q, "q", "s")):
        some = found.counts > 0
        axes.plot(
            100 * found.confidence[some], 100 * found.accuracy[some], color=colours[colour],
            marker=marker, markersize=5, linewidth=1.2, label=name,
        )  # fmt: skip
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    axes.set_xlabel("largest probability (%)")
    axes.set_ylabel("accuracy (%)")
    axes.legend(loc="upper left")


def _number(value: float, form: str = "#.5g") -> str:
    return "" if math.isnan(value) else format(value, form)
