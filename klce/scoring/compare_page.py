"""The page of a comparison: what it shows, and the counts that its pictures are drawn from."""

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from klce.scoring.compare_summary import (
    FOLLOWING,
    MEASURES,
    ComparisonSummary,
    Estimate,
    counted_rows,
)
from klce.scoring.comparison import Comparison
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

if TYPE_CHECKING:
    from klce.scoring.page import Cell

LEAST_KL = 1e-12
"""Divergences below it are shown at it: they are 0, or the last digits of the logits."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """What pictures are drawn from, beside the summary; of the labels None where there are none.

    Attributes
    ----------
    kl : Histogram
        Rows by KL(P||Q), in bins that are equally wide on a logarithmic scale.
    below : int
        Rows of a KL(P||Q) below these bins, such as 0, which are counted in the first.
    by_entropy, by_position : Density
        KL(P||Q) against the entropy of P and along the position.
    change : Histogram or None
        Rows by the label's change of probability.
    worst : ndarray
        The numbers of the rows of the largest KL(P||Q), in descending order.
    positions : str
        What a position is.
    """

    kl: Histogram
    below: int
    by_entropy: Density
    by_position: Density
    change: Histogram | None
    worst: NDArray[np.int64]
    positions: str


def gather(
    rows: NDArray[Any],
    leading_shape: tuple[int, ...],
    ignore_index: int,
    groups: Groups | None,
) -> Pictures:
    """Count rows of a comparison into the bins of all pictures."""
    labelled = "target" in (rows.dtype.names or ())
    counting = functools.partial(counted_rows, ignore_index=ignore_index)

    positions, worst = Positions(leading_shape, groups), Worst()
    entropy_top = change_top = largest_kl = 0.0
    smallest_kl = math.inf
    last = 0
    for start, table, counts in pieces(rows, counting):
        places = positions.block(start, start + len(table))
        last = max(last, int(places.max(initial=0)))
        entropy_top = max(entropy_top, float(table["entropy_p"][counts].max(initial=0)))
        if labelled:
            change = np.abs(table["target_prob_change"][counts])
            change_top = max(change_top, float(change.max(initial=0)))
        divergences = table["kl_divergence"][counts]
        worst.add(start + np.flatnonzero(counts), divergences)
        divergences = divergences[np.isfinite(divergences)]
        smallest_kl = min(smallest_kl, float(divergences.min(initial=math.inf)))
        largest_kl = max(largest_kl, float(divergences.max(initial=0)))

    top = min(largest_kl, MOST) if largest_kl > LEAST_KL else 1.0
    least = smallest_kl if LEAST_KL < smallest_kl < top / 10 else min(LEAST_KL, top / 10)
    kl_edges = np.geomspace(least, top, BINS + 1)
    change_top = change_top or 1.0

    kl = HistogramSums(kl_edges)
    entropy = DensitySums(np.linspace(0, entropy_top or 1.0, BINS + 1), kl_edges)
    position = DensitySums(position_edges(last), kl_edges)
    changes = HistogramSums(np.linspace(-change_top, change_top, 2 * BINS + 2))
    positions = Positions(leading_shape, groups)
    below = 0
    for start, table, counts in pieces(rows, counting):
        places = positions.block(start, start + len(table))[counts]
        table = table[counts]
        below += int((table["kl_divergence"] < kl_edges[0]).sum())
        kl.add(table["kl_divergence"])
        entropy.add(table["entropy_p"], table["kl_divergence"])
        position.add(places, table["kl_divergence"])
        if labelled:
            changes.add(table["target_prob_change"])
    return Pictures(
        kl=kl.finish(),
        below=below,
        by_entropy=entropy.finish(),
        by_position=position.finish(),
        change=changes.finish() if labelled else None,
        worst=worst.rows,
        positions=positions.name,
    )


def write_comparison_page(
    path: Path, comparison: Comparison, rows: NDArray[Any], groups: Groups | None
) -> None:
    """Write the page of a comparison, given its rows and their sequences, if there are any."""
    summary = comparison.summary
    assert summary is not None
    pictures = gather(rows, comparison.shape[:-1], comparison.ignore_index, groups)
    write_page(
        path,
        heading="How far Q is from P",
        places=[("P", comparison.p), ("Q", comparison.q), ("labels", comparison.targets)],
        counts=_counts(comparison, summary),
        figures=_figures(summary, pictures),
        tables=[_means(summary, comparison.sequences is not None), _quantiles(summary)],
        worst=_worst(rows, pictures.worst, groups),
        computed_in=comparison.computed_in,
    )


def _counts(comparison: Comparison, summary: ComparisonSummary) -> list[tuple[str, str]]:
    counts = [
        ("rows", f"{summary.rows:,}"),
        ("classes", f"{comparison.classes:,}"),
        ("rows that count", f"{summary.counted:,}"),
    ]
    if comparison.sequences is not None:
        counts.append(("sequences", f"{comparison.sequences:,}"))
    if summary.nan:
        counts.append(("rows of nan", f"{summary.nan:,}"))
    if summary.infinite:
        counts.append(("rows of infinite KL", f"{summary.infinite:,}"))
    for of, saturated in (("P", summary.saturated), ("Q", summary.saturated_q)):
        if saturated is not None:
            counts.append((f"rows whose label {of}'s file cut off", f"{saturated:,}"))
    found = summary.estimates
    counts.append(("mean KL(P||Q), nats", number(found["kl_divergence"].mean)))
    counts.append(("same argmax, %", number(100 * found["same_argmax"].mean, ".2f")))
    if "nll_p" in found:
        counts.append(("perplexity of P", number(summary.perplexity_p.mean)))
        counts.append(("perplexity of Q", number(summary.perplexity_q.mean)))
    return counts


def _means(summary: ComparisonSummary, grouped: bool) -> Table:
    def line(label: str, estimate: Estimate) -> tuple[str, ...]:
        errors = [number(estimate.error, ".2g")]
        if estimate.clustered_error is not None:
            errors.append(number(estimate.clustered_error, ".2g"))
        return (label, number(estimate.mean), *errors)

    return Table(
        "Means",
        "With their standard errors"
        + (", as if rows were independent and clustered by sequence." if grouped else ".")
        + (" What follows from those of the labels is last." if summary.following else ""),
        ("value of a row", "mean", "error", *(["clustered"] if grouped else [])),
        [
            *(
                line(label, summary.estimates[name])
                for name, label in MEASURES.items()
                if name in summary.estimates and name != "squared_target_prob_change"
            ),
            *(line(FOLLOWING[name], found) for name, found in summary.following.items()),
        ],
    )


def _quantiles(summary: ComparisonSummary) -> Table:
    heading: tuple[str, ...] = ("percentile", "KL(P||Q), nats")
    lines: list[tuple[str, ...]] = [
        (quantile_name(fraction), number(kl))
        for fraction, kl in zip(QUANTILES, summary.kl_divergence_quantiles, strict=True)
    ]
    if summary.target_prob_change_quantiles is not None:
        heading += ("change of the label's probability",)
        lines = [
            (*line, number(change, "+.4f"))
            for line, change in zip(lines, summary.target_prob_change_quantiles, strict=True)
        ]
    return Table("Percentiles", "Over rows that count, linear between values.", heading, lines)


def _worst(rows: NDArray[Any], worst: NDArray[np.int64], groups: Groups | None) -> Table:
    columns: dict[str, Cell] = {
        "KL(P||Q)": lambda values: number(float(values["kl_divergence"])),
        "KL(Q||P)": lambda values: number(float(values["reverse_kl_divergence"])),
        "entropy of P": lambda values: number(float(values["entropy_p"])),
        "argmax of P": lambda values: top_class(values, "_p"),
        "argmax of Q": lambda values: top_class(values, "_q"),
    }
    if "target" in (rows.dtype.names or ()):
        columns |= {
            "label": lambda values: str(values["target"]),
            "NLL of P": lambda values: number(float(values["nll_p"])),
            "NLL of Q": lambda values: number(float(values["nll_q"])),
        }
    return worst_table("The worst rows", "The largest KL(P||Q).", columns, rows, worst, groups)


def _figures(summary: ComparisonSummary, pictures: Pictures) -> list[Figure]:
    notes = left_out(summary.infinite, "KL(P||Q)")
    if pictures.below:
        least, rows = pictures.kl.edges[0], "row" if pictures.below == 1 else "rows"
        notes += f" {pictures.below:,} {rows} of less than {least:.0e}, or 0, shown there."
    found = [
        draw(
            "How far apart the rows are",
            f"Rows by their KL(P||Q), on a logarithmic scale, and its percentiles.{notes}",
            lambda axes, colours: _draw_kl(
                axes, colours, pictures.kl, summary.kl_divergence_quantiles
            ),
        ),
        draw(
            "Divergence against entropy",
            "KL(P||Q) by the entropy of P: is Q wrong where P is sure, or where P is in doubt? "
            f"The line is the mean.{notes}",
            lambda axes, colours: _draw_density(
                axes, colours, pictures.by_entropy, "entropy of P (nats)"
            ),
        ),
        draw(
            "Divergence along the position",
            f"KL(P||Q) by the {pictures.positions}. The line is the mean.{notes}",
            lambda axes, colours: _draw_density(
                axes, colours, pictures.by_position, pictures.positions
            ),
        ),
    ]
    change, quantiles = pictures.change, summary.target_prob_change_quantiles
    if change is not None and quantiles is not None:
        found.append(
            draw(
                "Change of the label's probability",
                "Rows by the label's probability in Q less that in P, and its percentiles. The "
                "number of rows is on a logarithmic scale.",
                lambda axes, colours: _draw_change(axes, colours, change, quantiles),
            )
        )
        found.append(calibration_figure({"P": summary.calibration_p, "Q": summary.calibration_q}))
    return found


def _draw_kl(axes: Any, colours: Colours, kl: Histogram, quantiles: tuple[float, ...]) -> None:
    axes.set_xscale("log")
    draw_histogram(axes, colours, kl, "KL(P||Q) (nats)", quantiles, (0.5, 0.9, 0.99, 0.999))


def _draw_change(
    axes: Any, colours: Colours, change: Histogram, quantiles: tuple[float, ...]
) -> None:
    axes.set_ylim(0.5, 1.5 * max(1, int(change.counts.max())))
    axes.set_yscale("log")
    draw_histogram(
        axes,
        colours,
        Histogram(100 * change.edges, change.counts),
        "probability of the label in Q - in P (percentage points)",
        [100 * value for value in quantiles],
        (0.01, 0.5, 0.99),
    )


def _draw_density(axes: Any, colours: Colours, density: Density, label: str) -> None:
    axes.set_yscale("log")
    draw_density(axes, colours, density, label, "KL(P||Q) (nats)")
