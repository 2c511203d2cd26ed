"""The command line: it parses, calls `klce.scoring` and prints. Needs the extra ``cli``."""

import contextlib
import errno
import json
import os
import re
import shlex
import sys
import time
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import Annotated, Any

import typer
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
from typer.core import TyperGroup

import klce
from klce._ufuncs import MAX_TOP, STATISTICS
from klce.scoring import (
    InputError,
    Interrupted,
    compare_file,
    convert_file,
    file_info,
    score_file,
)
from klce.scoring.columns import SHOWN
from klce.scoring.compare import COMPATIBLE
from klce.scoring.convert import SUFFIXES
from klce.scoring.engines import ENGINES
from klce.scoring.readers import READERS, Location
from klce.scoring.readers.location import EMPTY_PATH
from klce.scoring.results import WRITERS
from klce.scoring.tables import comparison_table, info_table, score_table

_PROGRESS_AFTER_SECONDS = 1.0


def _stop_printing(error: OSError) -> int:
    """Give up stdout, so that Python does not try once more at its end; return the status."""
    with contextlib.suppress(OSError):  # it may be no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):  # whom it was for has seen enough, as `head` has
        return 0
    _complain(f"stdout: {error.strerror}")
    return 2


def _print_whatever_comes() -> None:
    """Let stdout show what its encoding cannot, as a name that is no UTF-8, by question marks.

    One for each character, so that tables keep their columns. stderr has escapes of its own.
    """
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None and sys.stdout.errors in ("strict", "surrogateescape"):
        reconfigure(errors="replace")


class _Commands(TyperGroup):
    """Reports mistakes in the arguments in one line, as `_errors_in_one_line` does the others."""

    def main(self, *args: Any, **options: Any) -> Any:
        standalone_mode = options.get("standalone_mode", True)
        _print_whatever_comes()
        try:
            status = super().main(*args, **options | {"standalone_mode": False})
            if sys.stdout is not None:
                sys.stdout.flush()
        except OSError as error:  # of printing, since commands report their own
            status = _stop_printing(error)
        except SystemExit:  # how Click and Rich end where the reader of stdout has gone
            status = _stop_printing(BrokenPipeError())
        except Exception as error:
            # Their class lives in Click or in Typer, depending on Typer's release.
            message = getattr(error, "format_message", None)
            if message is None or not standalone_mode:
                raise
            text = " ".join(message().split())
            if "unexpected extra argument" in text:  # a shell may have put files for a pattern
                text += "; a pattern of files stands in quotes, as in 'part-*.npy'"
            context = getattr(error, "ctx", None)
            command = "klce" if context is None else context.command_path
            _complain(f"{text.rstrip('.')} (see {command} --help)")
            status = 2
        return sys.exit(status) if standalone_mode else status

    def make_context(self, *args: Any, **options: Any) -> Any:
        """Parse the arguments."""
        with _interrupt_in_one_line():
            return super().make_context(*args, **options)

    def invoke(self, *args: Any) -> Any:
        """Run the command."""
        with _interrupt_in_one_line():
            return super().invoke(*args)


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
    """Scores and comparisons of files of logits, of any size: perplexity, entropy, KL divergence.

    klce COMMAND --help says what a command reads and writes; docs/scoring.md has examples of all.
    """
    if context.invoked_subcommand is None:
        print(context.get_help())


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not an integer") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number") from None


_UNITS = {
    "": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12,
    "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40,
}  # fmt: skip


def _bytes(text: str) -> int:
    """Return the number of bytes that a text such as 256MB means."""
    parts = re.fullmatch(r"(-?\d+(?:\.\d+)?) ?([kmgt]i?)?b?", text.strip().lower())
    if parts is None:
        raise typer.BadParameter(f"{text!r} is not a size, such as 256MB or 1GiB")
    return int(float(parts[1]) * _UNITS[parts[2] or ""])


def _place(text: str) -> str:
    if not text:
        raise typer.BadParameter(EMPTY_PATH)
    return text


_Out = Annotated[
    str | None,
    typer.Option(
        "--out",
        "-o",
        parser=_place,
        metavar="FILE|FOLDER/",
        help=f"Write the results of each row, in nats, to FILE ({', '.join(WRITERS)}), or to "
        "Parquet parts in a folder, which is named with a slash at the end.",
    ),
]
_Report = Annotated[
    str | None,
    typer.Option(
        "--report",
        parser=_place,
        metavar="FILE",
        help="Write a page of pictures to FILE (.html).",
    ),
]
_Temperature = Annotated[
    float,
    typer.Option(
        parser=_number, metavar="T", help="Divide the logits by it first; from 1e-6 to 1e6."
    ),
]
_IgnoreIndex = Annotated[
    int,
    typer.Option(parser=_integer, metavar="LABEL", help="Skip the rows with this label."),
]
_Groups = Annotated[
    str | None,
    typer.Option(
        parser=_place,
        metavar="FILE",
        help="The sequence of each row, for results by sequence: an id per row, or the offsets "
        "of all sequences.",
    ),
]
_Memory = Annotated[
    int,
    typer.Option(
        parser=_bytes, metavar="SIZE", help="Stay within this, beyond the maps of the files."
    ),
]
_Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with an interrupted run to the same --out.")
]
_Engine = Annotated[
    str,
    typer.Option(
        metavar="ENGINE",
        help=f"Where to compute ({', '.join(ENGINES)}): in this process, or on Dask distributed, "
        "whose workers read the files by the same paths.",
    ),
]
_Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Dask's scheduler, as in tcp://host:8786; without it, a cluster on this machine.",
    ),
]
_AsJson = Annotated[
    bool, typer.Option("--json", help="Print the summary as JSON instead of a table.")
]
_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no table and no progress.")]
_MEMORY: Any = "256MB"


@app.command()
def score(
    logits: Annotated[
        str,
        typer.Argument(
            parser=_place,
            metavar="LOGITS",
            help=f"Array of logits, its last axis the classes: a file ({', '.join(READERS)}), a "
            "folder or a 'pattern' of files, or a URL; FILE::NAME in a file of several arrays.",
        ),
    ],
    targets: Annotated[
        str | None,
        typer.Argument(
            parser=_place,
            metavar="TARGETS",
            help="Array of class indices, one per row of logits; without it, the array 'targets' "
            "beside the logits, if there is one.",
        ),
    ] = None,
    out: _Out = None,
    want: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME,...",
            help=f"The statistics that --out has: {', '.join(STATISTICS['score'])}; without it, "
            f"{', '.join(SHOWN)}.",
        ),
    ] = None,
    top_k: Annotated[
        int,
        typer.Option(
            parser=_integer,
            metavar="K",
            help=f"Write the K largest classes of each row too, up to {MAX_TOP}: top_ids, "
            "top_log_probs.",
        ),
    ] = 0,
    candidates: Annotated[
        str | None,
        typer.Option(
            parser=_place,
            metavar="IDS|FILE",
            help="Write the log-probabilities of these classes too, candidate_log_probs: indices "
            "such as 3,17, or a file of them, for all rows or some for each.",
        ),
    ] = None,
    temperature: _Temperature = 1.0,
    report: _Report = None,
    ignore_index: _IgnoreIndex = -100,
    groups: _Groups = None,
    bytes_file: Annotated[
        str | None,
        typer.Option(
            "--bytes",
            parser=_place,
            metavar="FILE",
            help="Bytes of each of --groups, in the order of their first rows, for bits per byte.",
        ),
    ] = None,
    words_file: Annotated[
        str | None,
        typer.Option(
            "--words",
            parser=_place,
            metavar="FILE",
            help="Words of each of --groups likewise, for bits per word.",
        ),
    ] = None,
    sequences: Annotated[
        str | None,
        typer.Option(
            parser=_place,
            metavar="FILE",
            help="Write the results of each of --groups to FILE, as --out.",
        ),
    ] = None,
    memory: _Memory = _MEMORY,
    resume: _Resume = False,
    engine: _Engine = "local",
    scheduler: _Scheduler = None,
    as_json: _AsJson = False,
    quiet: _Quiet = False,
) -> None:
    """Score logits: loss, perplexity, accuracy and entropy, in all, by row and by sequence.

    Without TARGETS, only what needs no labels: entropy, log-sum-exp and, with --out, argmax.
    """
    with (
        _errors_in_one_line(kept=out is not None),
        _ProgressBar("scoring", enabled=not quiet) as bar,
    ):
        scored = score_file(
            logits,
            targets,
            out=out,
            want=None if want is None else _names(want),
            top_k=top_k,
            candidates=None if candidates is None else _ids(candidates),
            temperature=temperature,
            report=report,
            ignore_index=ignore_index,
            groups=groups,
            bytes_file=bytes_file,
            words_file=words_file,
            sequences_out=sequences,
            memory=memory,
            resume=resume,
            engine=engine,
            scheduler=scheduler,
            progress=bar.update,
        )
    _warn(scored.summary.nan, scored.summary.first_nan)
    if as_json:
        print(json.dumps(scored.to_dict(), indent=2))
    elif not quiet:
        Console().print(score_table(scored))


def _names(texts: list[str]) -> list[str]:
    """Return the names that options of comma-separated ones give together."""
    return [name for text in texts for name in map(str.strip, text.split(",")) if name]


def _ids(text: str) -> str | list[int]:
    """Return class indices, or the file of them that a text names."""
    if re.fullmatch(r"\s*-?\d+\s*(,\s*-?\d+\s*)*", text):
        return [int(part) for part in text.split(",")]
    location = Location.parse(text)
    if not (location.suffix in READERS or location.remote or os.path.exists(location.file)):
        raise InputError(f"candidates must be class indices, such as 3,17, or a file, got {text!r}")
    return text


@app.command()
def compare(
    p: Annotated[
        str,
        typer.Argument(
            parser=_place, metavar="P", help="Logits to measure by, as klce score reads them."
        ),
    ],
    q: Annotated[
        str,
        typer.Argument(parser=_place, metavar="Q", help="Logits of the same rows to compare."),
    ],
    targets: Annotated[
        str | None,
        typer.Argument(
            parser=_place,
            metavar="TARGETS",
            help="Array of class indices, one per row; without it, the array 'targets' beside P, "
            "if there is one, as in llama.cpp's base file.",
        ),
    ] = None,
    out: _Out = None,
    report: _Report = None,
    want: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME,...",
            help=f"The statistics that --out has: {', '.join(STATISTICS['compare'])}; and of each "
            "model, with _p and _q behind, those of klce score.",
        ),
    ] = None,
    top_k: Annotated[
        int,
        typer.Option(
            parser=_integer,
            metavar="K",
            help=f"Count the classes that are among the K largest of both, up to {MAX_TOP}: "
            "top_overlap.",
        ),
    ] = 0,
    temperature: _Temperature = 1.0,
    compat: Annotated[
        str | None,
        typer.Option(
            metavar="TOOL",
            help=f"Compute and print as another tool does ({', '.join(COMPATIBLE)}: what its "
            "perplexity tool prints with --kl-divergence).",
        ),
    ] = None,
    ignore_index: _IgnoreIndex = -100,
    groups: _Groups = None,
    memory: _Memory = _MEMORY,
    resume: _Resume = False,
    engine: _Engine = "local",
    scheduler: _Scheduler = None,
    as_json: _AsJson = False,
    quiet: _Quiet = False,
) -> None:
    """Compare two models' logits of the same rows: KL divergence and more, in all and by row.

    P may be llama.cpp's base file (.kld), as its perplexity tool writes it.
    """
    with (
        _errors_in_one_line(kept=out is not None),
        _ProgressBar("comparing", enabled=not quiet) as bar,
    ):
        comparison = compare_file(
            p,
            q,
            targets,
            out=out,
            want=None if want is None else _names(want),
            top_k=top_k,
            temperature=temperature,
            report=report,
            compat=compat,
            ignore_index=ignore_index,
            groups=groups,
            memory=memory,
            resume=resume,
            engine=engine,
            scheduler=scheduler,
            progress=bar.update,
        )
    if comparison.summary is not None:
        _warn(comparison.summary.nan, comparison.summary.first_nan)
    if as_json:
        print(json.dumps(comparison.to_dict(), indent=2))
    elif not quiet and compat is not None:
        print("\n".join(comparison.lines))
    elif not quiet:
        Console().print(comparison_table(comparison))


@app.command()
def convert(
    source: Annotated[
        str,
        typer.Argument(
            parser=_place, metavar="IN", help="Array to read, as klce score reads logits."
        ),
    ],
    out: Annotated[
        str,
        typer.Argument(
            parser=_place,
            metavar="OUT",
            help=f"File to write, by its suffix: {', '.join(SUFFIXES)}.",
        ),
    ],
    tokens: Annotated[
        str | None,
        typer.Option(
            parser=_place,
            metavar="FILE",
            help="For .kld: the tokens of all chunks, of shape (n_chunk, n_ctx).",
        ),
    ] = None,
    cut: Annotated[
        int | None,
        typer.Option(
            parser=_integer,
            metavar="NATS",
            help="For .kld: where rows are cut off below the top, 16 (unless given) or 24; without "
            "it, the rows of a .kld stay as they are.",
        ),
    ] = None,
    memory: _Memory = _MEMORY,
    quiet: _Quiet = False,
) -> None:
    """Write an array to a file of another format."""
    with _errors_in_one_line(), _ProgressBar("converting", enabled=not quiet) as bar:
        convert_file(source, out, tokens=tokens, cut=cut, memory=memory, progress=bar.update)


@app.command()
def info(
    file: Annotated[
        str,
        typer.Argument(
            parser=_place, metavar="FILE", help="A file, a folder, a 'pattern' of files or a URL."
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show what a file holds, and what would be scored of it."""
    with _errors_in_one_line():
        found = file_info(file)
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        Console().print(info_table(found))


@contextlib.contextmanager
def _interrupt_in_one_line() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:  # of which Click and Typer say nothing, or an empty line
        _complain("interrupted")
        raise typer.Exit(130) from None


@contextlib.contextmanager
def _errors_in_one_line(*, kept: bool = True) -> Iterator[None]:
    """Report errors and interrupts; say of rows that are not `kept` how they would be."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: _complain(
                f"warning: {' '.join(str(message).split())}"
            )
            yield
    except (InputError, OSError) as error:
        message, full = _as_typed(str(error)), False
        if isinstance(error, OSError):
            if error.filename and error.strerror:
                message = f"{error.filename}: {error.strerror}"
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        for finished in getattr(error, "__notes__", ()):
            message += f"; {finished}; {'free space and ' if full else ''}{_how_to_go_on()}"
        _complain(message)
        raise typer.Exit(2) from None
    except Interrupted as stop:
        _complain(f"interrupted: {stop}; {_how_to_go_on()}")
        raise typer.Exit(130) from None
    except KeyboardInterrupt:
        if kept:
            raise
        _complain("interrupted: no rows are kept; a run with --out can be resumed")
        raise typer.Exit(130) from None


def _as_typed(message: str) -> str:
    """Return what `klce.scoring` says of a parameter by the name that the option has here."""
    return re.sub(
        r"^[a-z_]+(?= (?:\S+ )?(?:must|needs?|belongs) )|(?<= without )top_k$",
        lambda found: "--" + found[0].replace("_", "-"),
        message,
    )


def _how_to_go_on() -> str:
    arguments = [argument for argument in sys.argv[1:] if argument != "--resume"]
    return f"go on with: klce {shlex.join(arguments)} --resume"


def _complain(message: str) -> None:
    print(f"klce: {message}", file=sys.stderr)


def _warn(nan: int, first_nan: int | None) -> None:
    if nan:
        rows = "1 row gives" if nan == 1 else f"{nan:,} rows give"
        _complain(
            f"warning: {rows} nan, first row {first_nan}; "
            "the means leave such rows out (logits with nan or +inf, or all -inf)"
        )


class _ProgressBar:
    """A bar on stderr, if that is a terminal, once a run has taken a second."""

    def __init__(self, task: str, *, enabled: bool) -> None:
        self._task = task
        self._enabled = enabled and sys.stderr.isatty()
        self._begin = time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> "_ProgressBar":
        return self

    def update(self, done: int, total: int) -> None:
        """Show that `done` bytes of `total` are done: after the last, results are to be written."""
        if not self._enabled:
            return
        if self._bar is None:
            if time.monotonic() - self._begin < _PROGRESS_AFTER_SECONDS:
                return
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.add_task(self._task, total=total)
            self._bar.start()
        task = "finishing" if done == total else self._task
        self._bar.update(self._bar.task_ids[0], completed=done, description=task)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
