"""The page of a scored file: what it shows, and the counts that its pictures are drawn from."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from klce.scoring.accuracy import TOP, Ranks
from klce.scoring.distribution import QUANTILES, pieces, quantile_name
from klce.scoring.groups import Groups
from klce.scoring.histograms import (
    BINS,
    MOST,
    Density,
    DensitySums,
    Histogram,
    HistogramSums,
    Positions,
    Worst,
    position_edges,
)
from klce.scoring.numbers import number
from klce.scoring.page import (
    Colours,
    Figure,
    Table,
    calibration_figure,
    draw,
    draw_density,
    draw_histogram,
    left_out,
    top_class,
    worst_table,
    write_page,
)
from klce.scoring.scores import Scores
from klce.scoring.summary import counted

if TYPE_CHECKING:
    from klce.scoring.page import Cell


@dataclass(frozen=True, slots=True)
class Pictures:
    """What pictures are drawn from, beside the `Scores`; of the labels None where there are none.

    Attributes
    ----------
    entropy, nll : Histogram
        Rows by entropy and by NLL.
    by_position : Density
        NLL along the position; entropy, where there are no labels.
    worst : ndarray
        The numbers of the rows of the largest NLL, or entropy, in descending order.
    positions : str
        What a position is.
    """

    entropy: Histogram
    nll: Histogram | None
    by_position: Density
    worst: NDArray[np.int64]
    positions: str


def gather(
    rows: NDArray[Any],
    leading_shape: tuple[int, ...],
    ignore_index: int,
    groups: Groups | None,
) -> Pictures:
    """Count scored rows of a shape into the bins of all pictures."""
    labelled = "target" in (rows.dtype.names or ())
    measure = "nll" if labelled else "entropy"
    counting = functools.partial(counted, ignore_index=ignore_index)

    positions, worst = Positions(leading_shape, groups), Worst()
    tops = {"entropy": 0.0, "nll": 0.0}
    last = 0
    for start, table, counts in pieces(rows, counting):
        last = max(last, int(positions.block(start, start + len(table)).max(initial=0)))
        for name in {"entropy", measure}:
            values = table[name][counts]
            tops[name] = max(tops[name], float(values[np.isfinite(values)].max(initial=0)))
        worst.add(start + np.flatnonzero(counts), table[measure][counts])

    edges = {name: np.linspace(0, min(top, MOST) or 1.0, BINS + 1) for name, top in tops.items()}
    histograms = {name: HistogramSums(edges[name]) for name in edges}
    position = DensitySums(position_edges(last), edges[measure])
    positions = Positions(leading_shape, groups)
    for start, table, counts in pieces(rows, counting):
        places = positions.block(start, start + len(table))[counts]
        for name in {"entropy", measure}:
            histograms[name].add(table[name][counts])
        position.add(places, table[measure][counts])
    return Pictures(
        entropy=histograms["entropy"].finish(),
        nll=histograms["nll"].finish() if labelled else None,
        by_position=position.finish(),
        worst=worst.rows,
        positions=positions.name,
    )


def write_score_page(path: Path, scores: Scores, rows: NDArray[Any], groups: Groups | None) -> None:
    """Write the page of a scored file, given its rows and their sequences, if there are any."""
    labelled = scores.targets is not None
    pictures = gather(rows, scores.shape[:-1], scores.ignore_index, groups)
    tables = [_percentiles(scores)]
    if scores.top_accuracy is not None:
        tables.append(_top(scores.top_accuracy))
    write_page(
        path,
        heading="How well the labels were predicted" if labelled else "How sure the rows are",
        places=[("logits", scores.logits), ("labels", scores.targets)],
        counts=_counts(scores),
        figures=_figures(scores, pictures),
        tables=tables,
        worst=_worst(rows, pictures.worst, groups),
        computed_in=scores.computed_in,
    )


def _counts(scores: Scores) -> list[tuple[str, str]]:
    summary = scores.summary
    counts = [
        ("rows", f"{summary.rows:,}"),
        ("classes", f"{scores.classes:,}"),
        ("rows that count", f"{summary.counted:,}"),
    ]
    if scores.sequences is not None:
        counts.append(("sequences", f"{len(scores.sequences.labels):,}"))
    if summary.nan:
        counts.append(("rows of nan", f"{summary.nan:,}"))
    if summary.infinite:
        counts.append(("rows of infinite NLL", f"{summary.infinite:,}"))
    if summary.saturated is not None:
        counts.append(("rows whose label the file cut off", f"{summary.saturated:,}"))
    if scores.temperature != 1:
        counts.append(("temperature", f"{scores.temperature:g}"))
    if scores.targets is not None:
        counts += [
            ("mean NLL, nats", number(summary.mean_nll)),
            ("perplexity", number(summary.perplexity)),
            ("accuracy, %", number(100 * summary.accuracy, ".2f")),
        ]
    if scores.sequences is not None:
        counts += [
            ("error of the mean NLL by token", number(scores.sequences.token_error, ".2g")),
            ("by sequence", number(scores.sequences.clustered_error, ".2g")),
        ]
    counts.append(("mean entropy, nats", number(summary.mean_entropy)))
    return counts


def _percentiles(scores: Scores) -> Table:
    found = {
        name: values
        for name, values in (
            ("NLL, nats", scores.nll_quantiles), ("entropy, nats", scores.entropy_quantiles)
        )
        if values is not None
    }  # fmt: skip
    lines = [
        (quantile_name(fraction), *map(number, values))
        for fraction, *values in zip(QUANTILES, *found.values(), strict=True)
    ]
    heading = ("percentile", *found)
    return Table("Percentiles", "Over rows that count, linear between values.", heading, lines)


def _top(accuracy: dict[int, float]) -> Table:
    lines: list[tuple[str, ...]] = [
        (f"{k:,}", number(100 * share, ".2f")) for k, share in accuracy.items()
    ]
    return Table(
        "Accuracy of the top k",
        "How often the label is among the k largest logits. Classes that tie with it count "
        "against it.",
        ("k", "accuracy, %"),
        lines,
    )


def _worst(rows: NDArray[Any], worst: NDArray[np.int64], groups: Groups | None) -> Table:
    columns: dict[str, Cell] = {}
    labelled = "target" in (rows.dtype.names or ())
    if labelled:
        columns |= {
            "NLL": lambda values: number(float(values["nll"])),
            "label": lambda values: str(values["target"]),
            "its rank": lambda values: f"{values['rank']:,}",
        }
    columns |= {
        "entropy": lambda values: number(float(values["entropy"])),
        "argmax": top_class,
    }
    title, measure = ("The worst rows", "NLL") if labelled else ("The least sure rows", "entropy")
    return worst_table(title, f"The largest {measure}.", columns, rows, worst, groups)


def _figures(scores: Scores, pictures: Pictures) -> list[Figure]:
    figures, without = [], left_out(scores.summary.infinite, "NLL")
    for name, histogram, values, left in (
        ("NLL", pictures.nll, scores.nll_quantiles, without),
        ("entropy", pictures.entropy, scores.entropy_quantiles, ""),
    ):
        if histogram is not None and values is not None:
            figures.append(_distribution(name, histogram, values, left))
    measure = "entropy" if pictures.nll is None else "NLL"
    figures.append(
        draw(
            f"{measure[0].upper()}{measure[1:]} along the position",
            f"{measure[0].upper()}{measure[1:]} by the {pictures.positions}. The line is the mean."
            f"{without}",
            lambda axes, colours: draw_density(
                axes, colours, pictures.by_position, pictures.positions, f"{measure} (nats)"
            ),
        )
    )
    ranks = scores.ranks
    if ranks is not None:
        figures.append(
            draw(
                "Accuracy of the top k",
                "How often the label is among the k largest logits.",
                lambda axes, colours: _draw_ranks(axes, colours, ranks),
            )
        )
        figures.append(calibration_figure({"": scores.summary.calibration}))
    return figures


def _distribution(
    name: str, histogram: Histogram, values: tuple[float, ...], without: str = ""
) -> Figure:
    def picture(axes: Any, colours: Colours) -> None:
        draw_histogram(axes, colours, histogram, f"{name} (nats)", values, (0.5, 0.9, 0.99))

    return draw(f"Rows by {name}", f"Rows by their {name}, and its percentiles.{without}", picture)


def _draw_ranks(axes: Any, colours: Colours, ranks: Ranks) -> None:
    axes.plot(ranks.k, [100 * share for share in ranks.share], color=colours["p"], linewidth=1.5,
              marker="o", markersize=3)  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_minor_formatter("")
    if ranks.k[-1] <= TOP[-1]:  # a scale of few powers of ten, or of one
        axes.set_xticks([k for k in TOP if k <= ranks.k[-1]])
    axes.set_ylim(0, 102)
    axes.set_xlabel("k")
    axes.set_ylabel("accuracy (%)")
