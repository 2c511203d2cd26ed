"""The command line: it parses, calls `klce.scoring` and prints. Needs the extra ``cli``."""

import contextlib
import errno
import json
import os
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, Literal

import click
import rich  # what it has for tables is imported where one is shown

import klce
from klce._terminal import (
    ProgressBar,
    check_stdout,
    complain,
    end_at_interrupt,
    interrupt_in_one_line,
    prepare_stdout,
    stop_printing,
)
from klce._ufuncs import MAX_TOP, STATISTICS
from klce.scoring import (
    InputError,
    Interrupted,
    columns,
    compare_columns,
    compare_file,
    convert_file,
    file_info,
    score_file,
)
from klce.scoring.compare import COMPATIBLE
from klce.scoring.convert import SUFFIXES
from klce.scoring.engines import ENGINES
from klce.scoring.readers import READERS, Location
from klce.scoring.readers.location import EMPTY_PATH
from klce.scoring.results import WRITERS


class _Commands(click.Group):
    """Reports mistakes in the arguments in one line, as `_errors_in_one_line` does the others."""

    def main(self, *args: Any, **options: Any) -> Any:
        standalone_mode = options.get("standalone_mode", True)
        prepare_stdout()
        try:
            status = super().main(*args, **options | {"standalone_mode": False})
            sys.stdout.flush()
        except OSError as error:  # of printing, since commands report their own
            status = stop_printing(error)
        except SystemExit:  # how Click ends where the reader of stdout has gone
            status = stop_printing(BrokenPipeError())
        except click.ClickException as error:
            if not standalone_mode:
                raise
            text = " ".join(error.format_message().split())
            if "unexpected extra argument" in text:  # a shell may have put files for a pattern
                text += "; a pattern of files stands in quotes, as in 'part-*.npy'"
            context = getattr(error, "ctx", None)
            command = "klce" if context is None else context.command_path
            complain(f"{text.rstrip('.')} (see {command} --help)")
            status = 2
        return sys.exit(status) if standalone_mode else status

    def list_commands(self, _: click.Context) -> list[str]:
        """Return the commands in the order in which they stand here."""
        return list(self.commands)

    def make_context(self, *args: Any, **options: Any) -> Any:
        """Parse the arguments."""
        with interrupt_in_one_line():
            return super().make_context(*args, **options)

    def invoke(self, *args: Any) -> Any:
        """Run the command."""
        with interrupt_in_one_line():
            return super().invoke(*args)


_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=_Commands, invoke_without_command=True, context_settings=_SETTINGS)
@click.version_option(klce.__version__, prog_name="klce", message="%(prog)s %(version)s")
@click.pass_context
def app(context: click.Context) -> None:
    """Scores and comparisons of files of logits, of any size: perplexity, entropy, KL divergence.

    klce COMMAND --help says what a command reads and writes; docs/scoring.md has examples of all.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


_UNITS = {
    "": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12,
    "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40,
}  # fmt: skip


def _bytes(text: str) -> int:
    """Return the number of bytes that a text such as 256MB means."""
    parts = re.fullmatch(r"(-?\d+(?:\.\d+)?) ?([kmgt]i?)?b?", text.strip().lower())
    if parts is None:
        raise click.BadParameter(f"{text!r} is not a size, such as 256MB or 1GiB")
    return int(Fraction(parts[1]) * _UNITS[parts[2] or ""])


def _place(text: str) -> str:
    if not text:
        raise click.BadParameter(EMPTY_PATH)
    return text


def _names(context: click.Context, option: click.Parameter, texts: tuple[str, ...]) -> Any:
    """Return the names that options of comma-separated ones give together, None without one."""
    if not texts:
        return None
    return [name for text in texts for name in map(str.strip, text.split(",")) if name]


_Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def _argument(name: str, **options: Any) -> _Decorator:
    return click.argument(name, type=_place, **options)


def _file(name: str, help_text: str, metavar: str = "FILE") -> _Decorator:
    return click.option(*name.split(), metavar=metavar, type=_place, help=help_text)


def _flag(name: str, help_text: str) -> _Decorator:
    return click.option(*name.split(), is_flag=True, help=help_text)


def _want(help_text: str) -> _Decorator:
    return click.option(
        "--want", metavar="NAME,...", multiple=True, callback=_names, help=help_text
    )


def _top_k(help_text: str) -> _Decorator:
    return click.option(
        "--top-k", metavar="K", type=int, default=0, show_default=True, help=help_text
    )


_out = _file(
    "--out -o",
    f"Write the results of each row, in nats, to FILE ({', '.join(WRITERS)}), or to Parquet parts "
    "in a folder, which is named with a slash at the end.",
    "FILE|FOLDER/",
)
_report = _file("--report", "Write a page of pictures to FILE (.html).")
_temperature = click.option(
    "--temperature",
    metavar="T",
    type=float,
    default=1.0,
    show_default=True,
    help="Divide the logits by it first; from 1e-6 to 1e6.",
)
_ignore_index = click.option(
    "--ignore-index",
    metavar="LABEL",
    type=int,
    default=-100,
    show_default=True,
    help="Ignore the rows with this label.",
)
_groups = _file(
    "--groups",
    "The sequence of each row, for results by sequence: an id per row, or the offsets of all "
    "sequences.",
)
_no_targets = _flag("--no-targets", "Take no labels, also if there are some beside the logits.")
_memory = click.option(
    "--memory",
    metavar="SIZE",
    type=_bytes,
    default="256MB",
    show_default=True,
    help="Keep memory within this, not counting mapped files.",
)
_resume = _flag("--resume", "Continue an interrupted run to the same --out.")
_engine = click.option(
    "--engine",
    metavar="ENGINE",
    default="local",
    show_default=True,
    help=f"Where to compute ({', '.join(ENGINES)}): in this process, or on Dask distributed, "
    "whose workers read the files by the same paths.",
)
_scheduler = click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Dask's scheduler, as in tcp://host:8786; without it, a cluster on this machine.",
)
_json = _flag("--json as_json", "Print the summary as JSON instead of a table.")
_quiet = _flag("--quiet -q", "Print no table and no progress.")


def _run(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a run over whole files: its last ones."""
    for option in reversed((_memory, _resume, _engine, _scheduler, _json, _quiet)):
        command = option(command)
    return command


_SCORE_HELP = f"""Score logits: loss, perplexity, accuracy and entropy, overall, by row and by
sequence.

LOGITS is an array whose last axis is the classes: a file ({", ".join(READERS)}), a folder or a
'pattern' of files, or a URL; FILE::NAME in a file of several arrays.

TARGETS is an array of class indices, one per row of logits; without it, the array 'targets' beside
the logits, if there is one, unless --no-targets. Without any, only what needs no labels: entropy,
log-sum-exp and, with --out, argmax.
"""


@app.command(help=_SCORE_HELP, short_help="Score logits: perplexity, accuracy, entropy.")
@_argument("logits")
@_argument("targets", required=False)
@_out
@_want(
    f"The statistics that --out has: {', '.join(STATISTICS['score'])}; without it, "
    f"not those of klce.score in Python but what the summary and the page are made of: "
    f"{', '.join(columns.SHOWN)}."
)
@_top_k(f"Write the K largest classes of each row too, up to {MAX_TOP}: top_ids, top_log_probs.")
@_file(
    "--candidates",
    "Write the log-probabilities of these classes too, candidate_log_probs: indices such as 3,17, "
    "or a file of them, for all rows or some for each.",
    "IDS|FILE",
)
@_temperature
@_report
@_ignore_index
@_no_targets
@_groups
@_file(
    "--bytes bytes_file",
    "Number of bytes of each sequence of --groups, in the order of their first rows, for bits per "
    "byte.",
)
@_file(
    "--words words_file",
    "Number of words of each sequence of --groups likewise, for bits per word.",
)
@_file(
    "--sequences sequences_out",
    "Write the results of each sequence of --groups to FILE, in the formats of --out.",
)
@_run
def score(
    logits: str,
    targets: str | None,
    *,
    no_targets: bool,
    candidates: str | None,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Print the summary of a file that is scored."""
    with (
        _errors_in_one_line(kept=options["out"] is not None),
        ProgressBar("scoring", enabled=not quiet) as bar,
    ):
        if as_json or not quiet:
            check_stdout()
        ids = None if candidates is None else _ids(candidates)
        labels = _unless(no_targets, "targets", targets)
        scored = score_file(logits, labels, candidates=ids, progress=bar.update, **options)
    _warn(scored.summary.nan, scored.summary.first_nan)
    if as_json:
        print(json.dumps(scored.to_dict(), indent=2))
    elif not quiet:
        from klce.scoring.tables import score_table

        rich.print(score_table(scored))


def _unless(no: bool, name: str, place: str | None) -> str | Literal[False] | None:
    """Return the place of an array, False where it is not to be taken from beside the logits."""
    if no and place is not None:
        raise InputError(f"--no-{name} takes none, got {place}")
    return False if no else place


def _ids(text: str) -> str | list[int]:
    """Return class indices, or the file of them that a text names."""
    if re.fullmatch(r"\s*-?\d+\s*(,\s*-?\d+\s*)*", text):
        return [int(part) for part in text.split(",")]
    location = Location.parse(text)
    if not (location.suffix in READERS or location.remote or os.path.exists(location.file)):
        raise InputError(f"candidates must be class indices, such as 3,17, or a file, got {text!r}")
    return text


_COMPARE_HELP = """Compare two models' logits of the same rows: KL divergence and more, overall and
by row.

P is the logits of the reference model, read as klce score reads them, or llama.cpp's base file
(.kld), as its perplexity tool writes it. Q is the logits of the model to compare with it, of the
same rows.

TARGETS is an array of class indices, one per row; without it, the array 'targets' beside P, if
there is one, as in llama.cpp's base file, unless --no-targets.
"""


@app.command(help=_COMPARE_HELP, short_help="Compare two models' logits: KL divergence and more.")
@_argument("p")
@_argument("q")
@_argument("targets", required=False)
@_out
@_report
@_want(
    f"The statistics that --out has: {', '.join(STATISTICS['compare'])}; and of each model, with "
    "the endings _p and _q, those of klce score; without it, not those of klce.compare in Python "
    f"but what the summary and the page are made of: {', '.join(compare_columns.SHOWN)}."
)
@_top_k(f"Count the classes that are among the K largest of both, up to {MAX_TOP}: top_overlap.")
@_temperature
@click.option(
    "--compat",
    metavar="TOOL",
    help=f"Compute and print as another tool does ({', '.join(COMPATIBLE)}: what its perplexity "
    "tool prints with --kl-divergence).",
)
@_ignore_index
@_no_targets
@_groups
@_flag("--no-groups", "Take no groups, also if there are some beside P.")
@_run
def compare(
    p: str,
    q: str,
    targets: str | None,
    *,
    no_targets: bool,
    groups: str | None,
    no_groups: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Print the summary of two files that are compared."""
    with (
        _errors_in_one_line(kept=options["out"] is not None),
        ProgressBar("comparing", enabled=not quiet) as bar,
    ):
        if as_json or not quiet:
            check_stdout()
        comparison = compare_file(
            p, q, _unless(no_targets, "targets", targets),
            groups=_unless(no_groups, "groups", groups), progress=bar.update, **options,
        )  # fmt: skip
    if comparison.summary is not None:
        _warn(comparison.summary.nan, comparison.summary.first_nan)
    if comparison.output is not None:
        _warn(
            comparison.output.nan,
            comparison.output.first_nan,
            "the means are nan then, and percentiles leave such rows out",
        )
    if as_json:
        print(json.dumps(comparison.to_dict(), indent=2))
    elif not quiet and comparison.summary is None:  # --compat
        print("\n".join(comparison.lines))
    elif not quiet:
        from klce.scoring.tables import comparison_table

        rich.print(comparison_table(comparison))


_CONVERT_HELP = f"""Write an array to a file of another format.

IN is the array to read, as klce score reads logits. OUT is the file to write, by its suffix:
{", ".join(SUFFIXES)}.
"""


@app.command(help=_CONVERT_HELP)
@_argument("source", metavar="IN")
@_argument("out")
@_file("--tokens", "For .kld: the tokens of all chunks, of shape (n_chunk, n_ctx).")
@click.option(
    "--cut",
    metavar="NATS",
    type=int,
    help="For .kld: where rows are cut off below the top, 16 (unless given) or 24; without it, the "
    "rows of a .kld stay as they are.",
)
@_memory
@_quiet
def convert(source: str, out: str, *, quiet: bool, **options: Any) -> None:
    """Write a file of another format."""
    with _errors_in_one_line(), ProgressBar("converting", enabled=not quiet) as bar:
        convert_file(source, out, progress=bar.update, **options)


_INFO_HELP = """Show which arrays a file holds, and what would be scored.

FILE is a file, a folder, a 'pattern' of files or a URL.
"""


@app.command(help=_INFO_HELP)
@_argument("file")
@_flag("--json as_json", "Print JSON instead of a table.")
def info(file: str, *, as_json: bool) -> None:
    """Print what a file holds."""
    with _errors_in_one_line():
        check_stdout()
        found = file_info(file)
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        from klce.scoring.tables import info_table

        rich.print(info_table(found))


@contextlib.contextmanager
def _errors_in_one_line(*, kept: bool = True) -> Iterator[None]:
    """Report errors and interrupts; say of rows that are not `kept` how they would be."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: complain(
                f"warning: {' '.join(str(message).split())}"
            )
            yield
    except (InputError, OSError, MemoryError) as error:
        message, full = _as_typed(str(error)), False
        if isinstance(error, MemoryError):
            message = _out_of_memory(message)
        if isinstance(error, OSError):
            if error.filename and error.strerror:
                message = f"{error.filename}: {error.strerror}"
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        for finished in getattr(error, "__notes__", ()):
            message += f"; {finished}; {'free space and ' if full else ''}{_how_to_go_on()}"
        complain(message)
        raise click.exceptions.Exit(2) from None
    except Interrupted as stop:
        end_at_interrupt(f": {stop}; {_how_to_go_on()}")
        raise click.exceptions.Exit(130) from None
    except KeyboardInterrupt:
        if kept:
            raise
        end_at_interrupt(": no rows are kept; a run with --out can be resumed")
        raise click.exceptions.Exit(130) from None


def _as_typed(message: str) -> str:
    """Return what `klce.scoring` says of parameters by the names that the options have here."""
    options = {
        parameter.name: option
        for parameter in click.get_current_context().command.params
        for option in parameter.opts
        if option.startswith("--")
    }
    return re.sub(
        r"^\w+(?= (?:\S+ )?(?:must|needs|belongs) )|(?<= without )\w+$|(?<= needs )\w+(?=: )",
        lambda found: options.get(found[0], found[0]),
        message,
    )


def _out_of_memory(what: str) -> str:
    limited = "memory" in click.get_current_context().params
    advice = "; a smaller --memory may help" if limited else ""
    return f"out of memory{what and f': {what}'}{advice}"


def _how_to_go_on() -> str:
    arguments = sys.argv[1:]
    end = arguments.index("--") if "--" in arguments else len(arguments)  # of the options
    options = [argument for argument in arguments[:end] if argument != "--resume"]
    return f"go on with: klce {shlex.join([*options, '--resume', *arguments[end:]])}"


def _warn(nan: int, first_nan: int | None, then: str = "the means leave such rows out") -> None:
    if nan:
        rows = "1 row gives" if nan == 1 else f"{nan:,} rows give"
        complain(
            f"warning: {rows} nan, first row {first_nan}; "
            f"{then} (logits with nan or +inf, or all -inf)"
        )
