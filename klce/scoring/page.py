"""Pages of pictures: drawn by matplotlib, put into a template by Jinja.

A page is one file without scripts. Each picture is there twice, for a light and for a dark screen.
"""

import base64
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klce import __version__
from klce.scoring.accuracy import Calibration
from klce.scoring.distribution import QUANTILES, quantile_name
from klce.scoring.errors import InputError
from klce.scoring.groups import Groups
from klce.scoring.histograms import Density, Histogram
from klce.scoring.interrupts import interrupts_later
from klce.scoring.optional import library
from klce.scoring.outputs import check_output_path
from klce.scoring.readers import Location, StrPath
from klce.scoring.whole import open_whole

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

_LABEL_WIDTH = 1 / 20
"""What the name of a line takes of the width of a picture."""

Colours = dict[str, str]


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture, as the URL of an image for each theme."""

    title: str
    caption: str
    light: str
    dark: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table of texts. The first column holds names if it is not numbered."""

    title: str
    caption: str
    heading: tuple[str, ...]
    lines: list[tuple[str, ...]]


def check_page(place: StrPath, inputs: list[Location]) -> None:
    """Refuse, before any work, a page that cannot be written, or not for want of a library."""
    path = Path(place)
    if path.suffix.lower() != ".html":
        raise InputError(f"{path}: a report is a page, its file ends in .html")
    check_output_path(place, inputs)
    library("jinja2", f"{path}: writing a report")
    library("matplotlib", f"{path}: writing a report")


def write_page(
    path: Path,
    *,
    heading: str,
    places: list[tuple[str, str | None]],
    counts: list[tuple[str, str]],
    figures: list[Figure],
    tables: list[Table],
    worst: Table,
    computed_in: str,
) -> None:
    """Write a page: what was read, by names of the files; numbers, pictures and tables."""
    jinja2 = library("jinja2", f"{path}: writing a report")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    page = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        heading=heading,
        places=[(name, place) for name, place in places if place is not None],
        counts=counts,
        figures=figures,
        tables=tables,
        worst=worst,
        computed_in=computed_in,
        version=__version__,
    )
    with open_whole(path) as file:
        file.write(page.encode(errors="backslashreplace"))  # of names of files that are no UTF-8


Cell = Callable[[Any], str]
"""What stands in a column of a table of rows, by a row's results."""


def worst_table(
    title: str,
    caption: str,
    columns: dict[str, Cell],
    rows: NDArray[Any],
    worst: NDArray[np.int64],
    groups: Groups | None,
) -> Table:
    """Return a table of the worst rows: their numbers, their sequences if known, and columns."""
    lines = []
    for row in worst.tolist():
        line = [f"{row:,}"]
        if groups is not None:
            line.append(str(groups.labels[groups.block(row, row + 1)[0]]))
        lines.append((*line, *(cell(rows[row]) for cell in columns.values())))
    return Table(
        title,
        f"{caption} Rows and classes are counted from 0.",
        ("row", *(["sequence"] if groups is not None else []), *columns),
        lines,
    )


def draw(title: str, caption: str, draw: Callable[[Any, Colours], None]) -> Figure:
    """Draw a picture in each theme, by a function of its axes and the theme's colours."""
    images = {theme: _image(draw, colours) for theme, colours in _THEMES.items()}
    return Figure(title, caption, **images)


@interrupts_later()
def _image(draw: Callable[[Any, Colours], None], colours: Colours) -> str:
    """Draw a picture; return it as the URL of an SVG image, the same for the same rows.

    matplotlib would lose Ctrl-C in the callback of a weak reference, or take it for a bad matrix.
    """
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


def draw_histogram(
    axes: Any,
    colours: Colours,
    histogram: Histogram,
    label: str,
    quantiles: Sequence[float],
    shown: Sequence[float],
) -> None:
    """Draw rows in bins, and those of the quantiles at `QUANTILES` that are to be shown.

    Where lines are so near that their names would overprint, one place has them all.
    """
    edges = histogram.edges
    axes.stairs(histogram.counts, edges, fill=True, color=colours["p"], alpha=0.75)
    axes.set_xlabel(label)
    axes.set_ylabel("rows")
    if not histogram.counts.any():
        axes.set_yticks([])  # a scale of none would go below 0
    labels: list[tuple[float, float, str]] = []
    for fraction in shown:
        value = quantiles[QUANTILES.index(fraction)]
        if not math.isfinite(value):
            continue
        value = min(max(value, float(edges[0])), float(edges[-1]))
        axes.axvline(value, color=colours["q"], linewidth=1.2)
        # Bins are equally wide on the axis, so that places are counted in them.
        place = float(np.interp(value, edges, np.linspace(0, 1, len(edges))))
        name = quantile_name(fraction)
        if labels and place - labels[-1][0] < _LABEL_WIDTH:
            name = f"{labels[-1][2]}, {name}"
            place, value, _ = labels.pop()
        labels.append((place, value, name))
    for _, value, name in labels:
        axes.text(
            value, 1.01, name, transform=axes.get_xaxis_transform(), rotation=45, ha="left",
            va="bottom", fontsize=9, color=colours["q"],
        )  # fmt: skip


def draw_density(axes: Any, colours: Colours, density: Density, x_label: str, y_label: str) -> None:
    """Draw rows in cells, and the mean along x as a line."""
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
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    bar = axes.figure.colorbar(mesh, ax=axes)
    ticks = sorted({*(10**power for power in range(len(str(most)))), most})
    bar.set_ticks(ticks, labels=[f"{tick:,}" for tick in ticks], minor=False)
    bar.minorticks_off()
    bar.set_label("rows")
    bar.outline.set_visible(False)


def calibration_figure(models: dict[str, Calibration]) -> Figure:
    """Draw the calibration of one model, or of two by their names."""
    caption = (
        "How often the most probable class is the label, by its probability; below the line "
        f"{'a' if len(models) > 1 else 'the'} model is too sure."
    )
    errors = [
        f"{100 * found.error:.2f} %{f' for {name}' if name else ''}"
        for name, found in models.items()
        if not math.isnan(found.error)
    ]
    if errors:
        bins = len(next(iter(models.values())).counts)
        told = " and ".join(errors)
        caption += f" The expected calibration error, over {bins} bins of probability, is {told}."
    return draw(
        "Calibration", caption, lambda axes, colours: _draw_calibration(axes, colours, models)
    )


def _draw_calibration(axes: Any, colours: Colours, models: dict[str, Calibration]) -> None:
    axes.plot([0, 100], [0, 100], color=colours["faint"], linewidth=1)
    for (name, found), colour, marker in zip(models.items(), ("p", "q"), ("o", "s"), strict=False):
        some = np.array(found.counts) > 0
        axes.plot(
            100 * found.confidence[some], 100 * found.accuracy[some], color=colours[colour],
            marker=marker, markersize=5, linewidth=1.2, label=name, clip_on=False,
        )  # fmt: skip
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    axes.set_xlabel("largest probability (%)")
    axes.set_ylabel("accuracy (%)")
    if len(models) > 1:
        axes.legend(loc="upper left")


def left_out(infinite: int, measure: str) -> str:
    """Return what a caption says of rows whose measure is infinite, which no picture shows."""
    if not infinite:
        return ""
    return f" {infinite:,} {'row' if infinite == 1 else 'rows'} of infinite {measure} left out."


def top_class(values: Any, suffix: str = "") -> str:
    """Return the first class of the largest logit of a row, with its probability."""
    return f"{values['argmax' + suffix]} ({100 * math.exp(values['max_log_prob' + suffix]):.1f} %)"
