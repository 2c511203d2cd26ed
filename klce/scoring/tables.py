"""Reports as tables for a terminal. Needs rich, which the command line has."""

import math
from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from klce.scoring.accuracy import Calibration
from klce.scoring.compare_summary import Estimate
from klce.scoring.comparison import Comparison
from klce.scoring.distribution import QUANTILES, quantile_name
from klce.scoring.groups import Sequences
from klce.scoring.info import FileInfo
from klce.scoring.numbers import number
from klce.scoring.run import Run
from klce.scoring.scores import Scores

_TOP = 5
"""The k of the top-k accuracy that is shown; reports have more."""


def score_table(scores: Scores) -> Table:
    """Return the summary of a scored file."""
    summary = scores.summary
    labelled = scores.targets is not None
    table = _empty(scores.logits)
    table.add_row("rows", f"{summary.rows:,}")
    table.add_row("classes", f"{scores.classes:,}")
    if labelled:
        table.add_row("skipped rows", f"{summary.ignored:,}", f"ignore_index {scores.ignore_index}")
    if summary.nan:
        table.add_row("nan rows", f"{summary.nan:,}", "not in the means")
    if summary.infinite:
        table.add_row("rows of infinite NLL", f"{summary.infinite:,}", "target of probability 0")
    if summary.infinite_logsumexp:
        table.add_row(
            "rows of infinite log-sum-exp", f"{summary.infinite_logsumexp:,}", "beyond the dtype"
        )
    if summary.floor_classes is not None:
        share = _share(summary.floor_classes, summary.counted * scores.classes)
        table.add_row("classes cut off", share, "%")
    if summary.saturated is not None:
        table.add_row("saturated rows", f"{summary.saturated:,}", "label cut off, NLL too small")
    if scores.temperature != 1:
        table.add_row("temperature", f"{scores.temperature:g}")
    table.add_section()
    if labelled:
        table.add_row("mean NLL", number(summary.mean_nll), _error(summary.mean_nll_error, "nats"))
        table.add_row("", number(summary.mean_nll / math.log(2)), "bits")
        table.add_row("perplexity", number(summary.perplexity), _error(summary.perplexity_error))
        error = _error(100 * summary.accuracy_error, "%")
        table.add_row("accuracy", number(100 * summary.accuracy, ".2f"), error)
        top = scores.top_accuracy or {}
        if _TOP in top:
            table.add_row(f"accuracy of the top {_TOP}", number(100 * top[_TOP], ".2f"), "%")
        _add_calibration(table, "calibration error", summary.calibration)
    error = _error(summary.mean_entropy_error, "nats")
    table.add_row("mean entropy", number(summary.mean_entropy), error)
    table.add_row("", number(summary.mean_entropy / math.log(2)), "bits")
    if not labelled:
        table.add_row("mean log-sum-exp", number(summary.mean_logsumexp), "nats")
    if scores.sequences is not None:
        _add_sequences(table, scores.sequences)
    _add_speed(table, scores)
    return table


def _add_calibration(table: Table, label: str, found: Calibration) -> None:
    table.add_row(label, number(100 * found.error, ".2f"), "%, expected")


def _add_sequences(table: Table, sequences: Sequences) -> None:
    table.add_section()
    table.add_row("sequences", f"{len(sequences.labels):,}")
    table.add_row("mean log-likelihood", number(sequences.mean_log_likelihood), "nats a sequence")
    table.add_row("error of the mean NLL", number(sequences.token_error, ".2g"), "nats, by token")
    table.add_row("", number(sequences.clustered_error, ".2g"), "nats, by sequence")
    for unit, lengths in (("byte", sequences.bytes), ("word", sequences.words)):
        bits = sequences.bits_per(lengths)
        if bits is not None:
            table.add_row(f"bits per {unit}", number(bits))


def comparison_table(comparison: Comparison) -> Table:
    """Return the summary of a comparison."""
    summary = comparison.summary
    assert summary is not None
    found = summary.estimates
    table = _empty(f"{comparison.p} against {comparison.q}")
    table.add_row("rows", f"{summary.rows:,}")
    table.add_row("classes", f"{comparison.classes:,}")
    if "nll_p" in found:
        skipped = f"ignore_index {comparison.ignore_index}"
        table.add_row("skipped rows", f"{summary.ignored:,}", skipped)
    if comparison.sequences is not None:
        table.add_row("sequences", f"{comparison.sequences:,}", "errors: by row, by sequence")
    if summary.nan:
        table.add_row("nan rows", f"{summary.nan:,}", "not in the means")
    if summary.infinite:
        table.add_row("rows of infinite KL", f"{summary.infinite:,}", "Q gives 0 where P does not")
    for of, floor_classes, saturated in (
        ("P", summary.floor_classes, summary.saturated),
        ("Q", summary.floor_classes_q, summary.saturated_q),
    ):
        if floor_classes is not None:
            share = _share(floor_classes, summary.counted * comparison.classes)
            table.add_row(f"classes cut off in {of}", share, "%")
        if saturated is not None:
            table.add_row("saturated rows", f"{saturated:,}", f"label cut off in {of}")
    if comparison.temperature != 1:
        table.add_row("temperature", f"{comparison.temperature:g}")

    def add(estimate: Estimate, label: str, unit: str = "", scale: float = 1.0) -> None:
        text = _error(scale * estimate.error, unit)
        if estimate.clustered_error is not None:
            errors = (estimate.error, estimate.clustered_error)
            by_row, by_sequence = (number(scale * error, ".2g") for error in errors)
            text = f"± {by_row}, ± {by_sequence} {unit}".rstrip()
        table.add_row(label, number(scale * estimate.mean), text)

    table.add_section()
    add(found["kl_divergence"], "KL(P||Q)", "nats")
    add(found["reverse_kl_divergence"], "KL(Q||P)", "nats")
    add(found["js_divergence"], "Jensen-Shannon", "nats")
    add(found["total_variation"], "total variation")
    add(found["expected_agreement"], "samples agree", "%", 100)
    add(found["same_argmax"], "same argmax", "%", 100)
    if comparison.top_k:
        add(found["top_overlap"], f"in the top {comparison.top_k:,} of both", "classes")
    add(found["entropy_p"], "entropy of P", "nats")
    add(found["entropy_q"], "entropy of Q", "nats")
    _add_quantiles(table, "KL(P||Q)", summary.kl_divergence_quantiles)
    if summary.target_prob_change_quantiles is not None:
        table.add_section()
        add(summary.perplexity_p, "perplexity of P")
        add(summary.perplexity_q, "perplexity of Q")
        add(summary.perplexity_ratio, "Q's / P's")
        add(summary.perplexity_difference, "Q's - P's")
        add(found["nll_change"], "log of their ratio", "nats")
        correlation = number(100 * summary.nll_correlation, ".2f")
        table.add_row("correlation of NLLs", correlation, "%")
        add(found["greedy_match_p"], "accuracy of P", "%", 100)
        add(found["greedy_match_q"], "accuracy of Q", "%", 100)
        _add_calibration(table, "calibration error of P", summary.calibration_p)
        _add_calibration(table, "calibration error of Q", summary.calibration_q)
        add(found["target_prob_change"], "label's probability", "%, change", 100)
        add(summary.rms_target_prob_change, "", "%, RMS of the change", 100)
        changes = [100 * change for change in summary.target_prob_change_quantiles]
        _add_quantiles(table, "its change, %", changes)
    _add_speed(table, comparison)
    return table


def _error(error: float, unit: str = "") -> str:
    return unit if math.isnan(error) else f"± {number(error, '.2g')} {unit}".rstrip()


def _share(part: int, whole: int) -> str:
    return number(100 * part / whole if whole else math.nan, ".2f")


def _add_quantiles(table: Table, label: str, values: Sequence[float]) -> None:
    table.add_section()
    for fraction, value in zip(QUANTILES, values, strict=True):
        table.add_row(label, number(value), quantile_name(fraction))
        label = ""


def info_table(found: FileInfo) -> Table:
    """Return what a file holds."""
    table = Table(
        title=Text(f" {found.file}"),
        title_justify="left",
        title_style="bold",
        box=box.HORIZONTALS,
    )
    table.add_column("array", overflow="fold")
    table.add_column("shape", justify="right", overflow="fold")
    table.add_column("dtype", overflow="fold")
    table.add_column("bytes", justify="right", overflow="fold")
    for array in found.arrays:
        if array.shape is None or array.dtype is None or array.bytes is None:
            table.add_row(Text(array.name), "", "not read", "")
        else:
            shape = " x ".join(f"{length:,}" for length in array.shape)
            table.add_row(Text(array.name), shape, Text(array.dtype), f"{array.bytes:,}")
    if found.kld is not None:
        cut = "none is cut" if found.kld["cut"] is None else f"cut at {found.kld['cut']} nats"
        caption = (
            f"{found.kld['n_chunk']:,} chunks of {found.kld['n_ctx']:,} tokens, "
            f"{found.kld['n_vocab']:,} in the vocabulary; {cut}\n"
        )
    else:
        caption = ""
    if found.scored is None:
        caption += f"not to be scored: {found.why_not}"
    else:
        caption += f"to be scored: {found.rows:,} rows of {found.classes:,} classes"
        caption += f" of {found.scored}"
    table.caption, table.caption_justify = Text(caption), "left"
    return table


def _empty(title: str) -> Table:
    table = Table(
        title=Text(f" {title}"),  # not a str: brackets in a name are not markup
        title_justify="left",
        title_style="bold",
        box=box.HORIZONTALS,
        show_header=False,
    )
    # Where a terminal is narrow, words are broken, and no number loses its digits.
    table.add_column(overflow="fold")
    table.add_column(justify="right", style="bold", no_wrap=True)
    table.add_column(style="dim", overflow="fold")
    return table


def _add_speed(table: Table, run: Run) -> None:
    table.add_section()
    table.add_row("speed", f"{run.rows_per_second:,.0f}", "rows/s")
    table.add_row("", f"{run.gigabytes_per_second:.3g}", "GB/s")
    if run.resumed_rows:
        table.add_row("resumed rows", f"{run.resumed_rows:,}", "of the interrupted run")
