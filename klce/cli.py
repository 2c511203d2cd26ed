"""The command line: it parses, calls `klce.scoring` and prints. Needs the extra ``cli``."""

import contextlib
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

import klce
from klce.scoring import InputError, Report, score_file

_PROGRESS_AFTER_SECONDS = 1.0


class _Commands(TyperGroup):
    """Reports mistakes in the arguments in one line, as `_errors_in_one_line` does the others."""

    def main(self, *args: Any, **options: Any) -> Any:
        standalone_mode = options.get("standalone_mode", True)
        try:
            status = super().main(*args, **options | {"standalone_mode": False})
        except Exception as error:
            # Their class lives in Click or in Typer, depending on Typer's release.
            message = getattr(error, "format_message", None)
            if message is None or not standalone_mode:
                raise
            _complain(f"{' '.join(message().split())} (see klce --help)")
            status = 2
        return sys.exit(status) if standalone_mode else status


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"klce {klce.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _klce(
    context: typer.Context,
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Cross-entropy, entropy and perplexity of files of logits."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def score(
    logits: Annotated[
        Path,
        typer.Argument(
            metavar="LOGITS", help="Array file (.npy) of logits; its last axis is the classes."
        ),
    ],
    targets: Annotated[
        Path | None,
        typer.Argument(
            metavar="TARGETS", help="Array file (.npy) of class indices, one per row of logits."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="Write the results of each row to FILE (.npy or .csv), in nats.",
        ),
    ] = None,
    ignore_index: Annotated[
        int, typer.Option(metavar="LABEL", help="Skip the rows with this label.")
    ] = -100,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON instead of a table.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print no table and no progress.")
    ] = False,
) -> None:
    """Score a file of logits: loss, perplexity, accuracy and entropy.

    Without TARGETS, only what needs no labels: entropy, log-sum-exp and, with --out, argmax.
    """
    with _errors_in_one_line(), _ProgressBar(enabled=not quiet) as bar:
        report = score_file(
            logits, targets, out=out, ignore_index=ignore_index, progress=bar.update
        )
    _warn(report)
    if as_json:
        print(json.dumps(report.to_dict(), indent=2))
    elif not quiet:
        Console().print(_table(report))


@contextlib.contextmanager
def _errors_in_one_line() -> Iterator[None]:
    try:
        yield
    except InputError as error:
        _complain(str(error))
        raise typer.Exit(2) from None
    except OSError as error:
        _complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        _complain("interrupted")
        raise typer.Exit(130) from None


def _complain(message: str) -> None:
    print(f"klce: {message}", file=sys.stderr)


def _warn(report: Report) -> None:
    summary = report.summary
    if summary.nan:
        rows = "1 row gives" if summary.nan == 1 else f"{summary.nan:,} rows give"
        _complain(
            f"warning: {rows} nan, first row {summary.first_nan}; "
            "the means leave such rows out (logits with nan or +inf, or all -inf)"
        )


class _ProgressBar:
    """A bar on stderr, if that is a terminal, once a run has taken a second."""

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled and sys.stderr.isatty()
        self._begin = time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> "_ProgressBar":
        return self

    def update(self, done: int, total: int) -> None:
        """Show that `done` bytes of `total` are scored."""
        if not self._enabled:
            return
        if self._bar is None:
            if time.monotonic() - self._begin < _PROGRESS_AFTER_SECONDS:
                return
            self._bar = Progress(
                TextColumn("scoring"),
                BarColumn(),
                TaskProgressColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.add_task("scoring", total=total)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=done)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def _table(report: Report) -> Table:
    summary = report.summary
    labelled = report.targets is not None
    table = Table(
        title=Text(f" {report.logits}"),  # not a str: brackets in a name are not markup
        title_justify="left",
        title_style="bold",
        box=box.HORIZONTALS,
        show_header=False,
    )
    table.add_column()
    table.add_column(justify="right", style="bold")
    table.add_column(style="dim")

    table.add_row("rows", f"{summary.rows:,}")
    table.add_row("classes", f"{report.classes:,}")
    if labelled:
        table.add_row("skipped rows", f"{summary.ignored:,}", f"ignore_index {report.ignore_index}")
    if summary.nan:
        table.add_row("nan rows", f"{summary.nan:,}", "not in the means")
    if summary.infinite:
        table.add_row("rows of infinite NLL", f"{summary.infinite:,}", "target of probability 0")
    table.add_section()
    if labelled:
        table.add_row("mean NLL", _number(summary.mean_nll), "nats")
        table.add_row("", _number(summary.mean_nll / math.log(2)), "bits")
        table.add_row("perplexity", _number(summary.perplexity))
        table.add_row("accuracy", _number(100 * summary.accuracy, ".2f"), "%")
    table.add_row("mean entropy", _number(summary.mean_entropy), "nats")
    table.add_row("", _number(summary.mean_entropy / math.log(2)), "bits")
    if not labelled:
        table.add_row("mean log-sum-exp", _number(summary.mean_logsumexp), "nats")
    table.add_section()
    table.add_row("speed", f"{report.rows_per_second:,.0f}", "rows/s")
    table.add_row("", f"{report.gigabytes_per_second:.3g}", "GB/s")
    return table


def _number(value: float, form: str = "#.5g") -> str:
    return "-" if math.isnan(value) else format(value, form)
