"""Comparing two files of logits of the same rows: how far Q is from P."""

import abc
import contextlib
import functools
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import klce
from klce._arrays import computed
from klce.scoring import kld, llama_cpp
from klce.scoring.blocks import MEMORY, Progress, plan_blocks, run_blocks
from klce.scoring.columns import computed_and_written, names_of, those_of
from klce.scoring.compare_columns import SHOWN, SUMMED, compared_of, own_of, row_dtype
from klce.scoring.compare_page import write_comparison_page
from klce.scoring.comparison import MEASURES, ComparisonSummary, summarize
from klce.scoring.distribution import QUANTILES
from klce.scoring.engines import open_engine
from klce.scoring.errors import InputError
from klce.scoring.groups import Groups
from klce.scoring.identity import Watch
from klce.scoring.inputs import (
    Labels,
    Logits,
    check_ignore_index,
    check_places,
    local_inputs,
    open_beside,
    open_targets,
)
from klce.scoring.journal import check_outputs, open_rows
from klce.scoring.page import check_page
from klce.scoring.readers import StrPath, absolute, open_reader
from klce.scoring.scores import Run, finite_or_none

COMPATIBLE = ("llama.cpp",)
"""The tools whose arithmetic and output ``compat=`` follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison(Run):
    """The result of comparing two files: a `klce.scoring.scores.Run`, and these.

    Attributes
    ----------
    p, q, dtype_p, dtype_q : str
        The files, and the dtypes that they have.
    top_k : int
        How many of the largest classes were held against each other.
    temperature : float
        What divided the logits of both.
    sequences : int or None
        Number of sequences, if they are known.
    summary : ComparisonSummary or None
        None with ``compat=``.
    output : klce.scoring.llama_cpp.Output or None
        With ``compat=``, what the tool prints.
    """

    p: str
    q: str
    dtype_p: str
    dtype_q: str
    top_k: int
    temperature: float
    sequences: int | None
    summary: ComparisonSummary | None
    output: llama_cpp.Output | None

    @property
    def lines(self) -> tuple[str, ...]:
        """What the tool prints, line by line; nothing without ``compat=``."""
        return () if self.output is None else self.output.lines

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, which has no nan or inf: they are None."""
        results: dict[str, Any] = {}
        if self.output is not None:
            results = {"lines": list(self.lines)} | self.output.values
        if self.summary is not None:
            results = _summary_values(self.summary)
        results = {
            "top_k": self.top_k,
            "temperature": self.temperature,
            "sequences": self.sequences,
        } | results
        inputs = {"p": self.p, "q": self.q, "dtype_p": self.dtype_p, "dtype_q": self.dtype_q}
        return self._values(inputs, results)


def _summary_values(summary: ComparisonSummary) -> dict[str, Any]:
    values: dict[str, Any] = {
        "ignored_rows": summary.ignored,
        "nan_rows": summary.nan,
        "first_nan_row": summary.first_nan,
        "counted_rows": summary.counted,
        "infinite_kl_divergence_rows": summary.infinite,
        "saturated_rows": summary.saturated,
        "floor_classes": summary.floor_classes,
    }
    for name in MEASURES:
        if name in summary.estimates:
            estimate = summary.estimates[name]
            values[name] = {
                "mean": finite_or_none(estimate.mean),
                "error": finite_or_none(estimate.error),
                "clustered_error": finite_or_none(estimate.clustered_error),
            }
    if "nll_p" in summary.estimates:
        values["nll_correlation"] = summary.nll_correlation
        for name, estimate in summary.following.items():
            values[name] = estimate.mean
            values[f"{name}_error"] = estimate.error
            values[f"{name}_clustered_error"] = estimate.clustered_error
    for name, quantiles in (
        ("kl_divergence_quantiles", summary.kl_divergence_quantiles),
        ("target_prob_change_quantiles", summary.target_prob_change_quantiles),
    ):
        if quantiles is not None:
            values[name] = {
                f"{fraction:g}": finite_or_none(value)
                for fraction, value in zip(QUANTILES, quantiles, strict=True)
            }
    return values


@np.errstate(over="ignore", invalid="ignore")  # what is not finite, the summary tells
def compare_file(
    p: StrPath,
    q: StrPath,
    targets: StrPath | None = None,
    *,
    out: StrPath | None = None,
    want: Iterable[str] | None = None,
    top_k: int = 0,
    temperature: float = 1.0,
    report: StrPath | None = None,
    compat: str | None = None,
    ignore_index: int = -100,
    groups: StrPath | None = None,
    block_rows: int | None = None,
    memory: int = MEMORY,
    resume: bool = False,
    engine: str = "local",
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Compare two files of logits of the same rows, with or without labels.

    Parameters
    ----------
    p, q : path or URL
        Arrays of as many rows and classes, as `klce.scoring.score_file` takes them; P is the one to
        measure by, such as the model in full precision.
    targets : path or URL, optional
        Class indices, one per row. Without it, the array ``targets`` of the file of P, if it has
        one: llama.cpp's base file does.
    out : path, optional
        File for the results row by row, whose suffix is one of `klce.scoring.results.WRITERS`; or,
        with a slash at its end, a folder for Parquet files of them: see `klce.scoring.parts`.
    want : iterable of str, optional
        The statistics of each row that `out` is to have, by the names of `klce.compare` and, with
        ``_p`` and ``_q`` behind, of `klce.score`. Without it, not those of `klce.compare` but what
        the summary and a page are made of: `klce.scoring.compare_columns.SHOWN`. With labels,
        ``target`` is there too, and for llama.cpp's base file ``floor_classes`` and ``saturated``.
    top_k : int, default 0
        How many of the largest classes of P and of Q to hold against each other: ``top_overlap``.
    temperature : float, default 1.0
        Divides the logits of both; from 1e-6 to 1e6.
    report : path, optional
        File for a page of pictures (``.html``).
    compat : {"llama.cpp"}, optional
        Follow the formulas and the arithmetic of that tool; `Comparison.lines` is its output.
    ignore_index : int, default -100
        Label of rows that do not count.
    groups : path or URL, optional
        The sequence of each row, for errors clustered by sequence; see
        `klce.scoring.groups.Groups`. Without it, the array ``groups`` of the file of P, if it has
        one: of llama.cpp's base file, the chunks. With ``compat=``, the chunks of the tool's table.
    block_rows : int, optional
        Rows to compare at once. It changes no bit of any result.
    memory : int, default 256 MiB
        Bytes to stay within, beyond the maps of files.
    resume : bool, default False
        Go on with what an interrupted run to the same `out` has finished.
    engine : {"local", "dask"}, default "local"
        Where to compute: in this process, or on Dask distributed, whose workers open the files by
        the same paths. It changes no bit of any result.
    scheduler : str, optional
        Address of Dask's scheduler; without it, a cluster on this machine.
    progress : callable, optional
        Called after each block with the bytes of both files done and those in all.

    Returns
    -------
    Comparison
        Summary and speed.

    Raises
    ------
    InputError
        Where the files cannot be compared, before anything is written. For a label out of range it
        is a LabelError, which is an IndexError too.
    OSError
        Where a file cannot be read or written.
    Interrupted
        After Ctrl-C, when finished rows are kept for `resume`; it is a KeyboardInterrupt.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from klce.scoring import compare_file
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/p.npy", np.log([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]]))
    ...     np.save(f"{folder}/q.npy", np.log([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]]))
    ...     comparison = compare_file(f"{folder}/p.npy", f"{folder}/q.npy")
    >>> round(comparison.summary.estimates["kl_divergence"].mean, 6)
    0.086643
    """
    if compat is not None and compat not in COMPATIBLE:
        raise InputError(f"compat must be {' or '.join(COMPATIBLE)}, got {compat}")
    inputs = {"p": p, "q": q, "targets": targets, "groups": groups}
    check_places({**inputs, "out": out, "report": report})
    watch = Watch(inputs)
    check_outputs(out, resume, inputs, (report,))
    if want is not None and out is None:
        raise InputError(f"want needs a file for the results (--out), got {want}")
    for name, value in (
        ("want", want), ("top_k", top_k or None),
        ("temperature", None if temperature == 1 else temperature),
    ):  # fmt: skip
        if compat is not None and value is not None:
            raise InputError(f"{name} belongs to the exact comparison, not to that of {compat}")
    if report is not None:
        if compat is not None:
            raise InputError(f"{report}: a report shows the exact comparison, not that of {compat}")
        check_page(report, local_inputs(inputs))
    computation = Comparing(
        p,
        q,
        targets,
        compat,
        ignore_index,
        kept=out is not None or report is not None,
        want=None if want is None else names_of(want),
        top_k=top_k,
        temperature=temperature,
    ).open()
    rows_p, rows_q = computation.p, computation.q
    computation.check()
    groups_reader = open_beside(p, "groups") if groups is None else open_reader(groups, ("groups",))
    found_groups = None
    if groups_reader is not None:
        found_groups = Groups(groups_reader, rows_p.leading_shape)
    ends = None if compat is None or found_groups is None else found_groups.ends()
    plan = plan_blocks(
        [rows_p, rows_q],
        memory=memory,
        block_rows=block_rows,
        working_row_bytes=computation.working_row_bytes,
    )

    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(open_engine(engine, scheduler))
        run = {
            "command": "compare",
            "compat": compat,
            "ignore_index": int(ignore_index),
            "temperature": float(temperature),
            "top_k": int(top_k),
            "arithmetic": opened.arithmetic,
        }
        store = stack.enter_context(
            open_rows(
                out,
                rows_p.leading_shape,
                computation.columns,
                inputs,
                run,
                resume=resume,
                written=computation.written,
            )
        )
        begin = time.perf_counter()
        resumed = store.finished
        run_blocks(plan, opened, computation, [], store, progress)
        watch.check()
        seconds = time.perf_counter() - begin
        rows, labels = store.rows(), computation.labels
        comparison = Comparison(
            p=os.fspath(p),
            q=os.fspath(q),
            dtype_p=rows_p.file_dtype.name,
            dtype_q=rows_q.file_dtype.name,
            top_k=int(top_k),
            temperature=float(temperature),
            targets=None if labels is None else str(targets or labels.path),
            out=None if out is None else os.fspath(out),
            shape=computation.shape,
            computed_in=computation.dtype.name,
            ignore_index=int(ignore_index),
            sequences=None if found_groups is None else len(found_groups),
            engine=engine,
            isas=opened.isas,
            summary=summarize(rows, ignore_index, found_groups) if compat is None else None,
            output=llama_cpp.output(rows, ends) if compat is not None else None,
            seconds=seconds,
            resumed_rows=resumed,
            read_bytes=(rows_p.rows - resumed) * (rows_p.row_bytes + rows_q.row_bytes),
        )
        if report is not None:
            write_comparison_page(Path(report), comparison, rows, found_groups)
        store.finish()
    return comparison


@dataclass(frozen=True, slots=True)
class Comparing:
    """The task of comparing two files: see `klce.scoring.engines.Task`.

    Attributes
    ----------
    kept : bool
        Are the rows kept, for results or a page? If not, they have but what the summary needs.
    """

    p: StrPath
    q: StrPath
    targets: StrPath | None
    compat: str | None
    ignore_index: int
    kept: bool = False
    want: tuple[str, ...] | None = None
    top_k: int = 0
    temperature: float = 1.0

    def absolute(self) -> "Comparing":
        """Return the task for a process in another folder."""
        targets = self.targets and absolute(self.targets)
        return replace(self, p=absolute(self.p), q=absolute(self.q), targets=targets)

    def places(self) -> tuple[StrPath, ...]:
        """Return the inputs."""
        return (self.p, self.q) if self.targets is None else (self.p, self.q, self.targets)

    def open(self) -> "_Files":
        """Open the files."""
        return _Exact(self) if self.compat is None else _LlamaCpp(self)


class _Files(abc.ABC):
    """Files of the same rows: see `klce.scoring.engines.Computation`.

    Attributes
    ----------
    columns, written : numpy.dtype
        What is computed of a row, and those of it that results are to have.
    """

    columns: np.dtype[Any]
    written: np.dtype[Any]
    dtype: np.dtype[Any]
    working_row_bytes: int

    def __init__(self, task: Comparing) -> None:
        self.task = task
        self.reader = open_reader(task.p)
        self.p, self.q = Logits(self.reader), Logits(open_reader(task.q))
        p, q = self.p, self.q
        if (p.rows, p.classes) != (q.rows, q.classes):
            raise InputError(
                f"{q.path}: {q.rows:,} rows of {q.classes:,} classes, where "
                f"{p.path} has {p.rows:,} of {p.classes:,}"
            )
        self.shape = (*p.leading_shape, p.classes)
        check_ignore_index(task.ignore_index)
        targets = open_targets(task.targets, task.p)
        self.labels = None if targets is None else Labels(targets, p, task.ignore_index)

    def check(self) -> None:
        """Refuse logits with a part missing, and labels that are no classes.

        It reads all labels.
        """
        self.p.check()
        self.q.check()
        if self.labels is not None:
            self.labels.check()

    @abc.abstractmethod
    def block(self, start: int, stop: int) -> NDArray[Any]:
        """Compare rows `start` to `stop`."""


class _Exact(_Files):
    """The exact comparison: klce's functions, block by block."""

    def __init__(self, task: Comparing) -> None:
        super().__init__(task)
        p, q = self.p, self.q
        self.dtype = np.promote_types(p.dtype, q.dtype)
        self._cut_off = self.reader.layout is not None
        labelled = self.labels is not None
        columns = functools.partial(
            row_dtype,
            self.dtype,
            labelled=labelled,
            cut_off=self._cut_off,
            classes=p.classes,
            top_k=task.top_k,
            temperature=task.temperature,
        )
        self.columns, self.written = computed_and_written(
            columns,
            task.want,
            those_of((*SUMMED, *(SHOWN if task.kept else ())), labelled=labelled),
            more=bool(task.top_k),
        )
        # The results twice, as they come and in a table; a flag for each class that is cut off.
        self.working_row_bytes = 2 * self.columns.itemsize + 4 * self._cut_off * p.classes
        if p.dtype != q.dtype:  # and one of the two in the other's dtype
            self.working_row_bytes += p.classes * self.dtype.itemsize

    def block(self, start: int, stop: int) -> NDArray[Any]:
        """Compare rows `start` to `stop`."""
        p, q = self.p.block(start, stop), self.q.block(start, stop)
        target = None if self.labels is None else self.labels.block(start, stop)
        table = np.empty(stop - start, self.columns)
        compare_block(
            table,
            p,
            q,
            target,
            self.task.ignore_index,
            top_k=self.task.top_k,
            temperature=self.task.temperature,
        )
        if self._cut_off:
            floor = kld.at_floor(p)
            table["floor_classes"] = floor.sum(axis=1)
            if target is not None:
                table["saturated"] = kld.saturated(floor, target, self.task.ignore_index)
        return table


def compare_block(
    table: NDArray[Any],
    p: NDArray[Any],
    q: NDArray[Any],
    target: NDArray[np.int64] | None,
    ignore_index: int,
    *,
    top_k: int = 0,
    temperature: float = 1.0,
) -> None:
    """Compare rows of logits into a table of `klce.scoring.compare_columns.row_dtype`."""
    names = table.dtype.names or ()
    compared = klce.compare(
        p,
        q,
        target,
        want=compared_of(names),
        top_k=top_k,
        temperature=temperature,
        ignore_index=ignore_index,
    )
    for name, column in compared.items():
        table[name] = column
    # What klce.compare does not tell of either: nothing, unless it is asked for. It is computed as
    # the rest, in the dtype of both, or the label's log-probabilities would not differ by their
    # change.
    dtype = np.promote_types(computed(p.dtype), computed(q.dtype))
    for logits, suffix in ((p, "_p"), (q, "_q")):
        own = own_of(names, suffix)
        if own:
            scored = klce.score(
                logits if computed(logits.dtype) == dtype else logits.astype(dtype),
                target,
                want=own,
                temperature=temperature,
                ignore_index=ignore_index,
            )
            for name, column in scored.items():
                table[name + suffix] = column
    if target is not None:
        table["target"] = target


class _LlamaCpp(_Files):
    """The comparison of llama.cpp's perplexity tool."""

    columns = written = llama_cpp.COLUMNS
    dtype = np.dtype(np.float32)

    def __init__(self, task: Comparing) -> None:
        super().__init__(task)
        if self.labels is None:
            raise InputError(
                f"{self.p.path}: llama.cpp's statistics need labels, which its base file has; "
                "name a file of them"
            )
        if not self.p.rows:
            raise InputError(f"{self.p.path}: llama.cpp's statistics need rows, there are none")
        self.labels: Labels
        self._decoded = self.reader.layout is not None
        self.working_row_bytes = 6 * 8 * self.p.classes + 2 * self.columns.itemsize

    def check(self) -> None:
        """Refuse labels that cannot be compared with. It reads them all."""
        super().check()
        ignored = self.labels.first(self.task.ignore_index)
        if ignored is not None:
            raise InputError(
                f"{self.labels.path}: row {ignored} is ignored (label {self.task.ignore_index}); "
                "llama.cpp scores every row"
            )

    def block(self, start: int, stop: int) -> NDArray[Any]:
        """Compare rows `start` to `stop`."""
        p = self.p.block(start, stop)
        log_p = p if self._decoded else llama_cpp.as_base(p, self.p.path, start)
        return llama_cpp.compare_rows(
            log_p, self.q.block(start, stop), self.labels.block(start, stop)
        )
