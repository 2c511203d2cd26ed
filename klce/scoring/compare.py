"""Comparing two files of logits of the same rows: how far Q is from P."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import klce
from klce._arrays import computed
from klce.scoring import kld, llama_cpp
from klce.scoring.blocks import MEMORY, Progress
from klce.scoring.columns import computed_and_written, names_of
from klce.scoring.compare_columns import (
    COMPARED,
    CUT_OFF,
    SHOWN,
    compared_of,
    comparison_columns,
    own_of,
)
from klce.scoring.compare_page import write_comparison_page
from klce.scoring.compare_summary import summarize
from klce.scoring.comparison import Comparison
from klce.scoring.errors import InputError
from klce.scoring.files import Files, Task
from klce.scoring.groups import Groups
from klce.scoring.inputs import Labels, beside, open_named
from klce.scoring.readers import StrPath, spans
from klce.scoring.run import Options, check, computed_rows, named

COMPATIBLE = ("llama.cpp",)
"""The tools whose arithmetic and output ``compat=`` follows."""


@np.errstate(over="ignore", invalid="ignore")  # what is not finite, the summary tells
def compare_file(
    p: StrPath,
    q: StrPath,
    targets: StrPath | Literal[False] | None = None,
    *,
    out: StrPath | None = None,
    want: Iterable[str] | None = None,
    top_k: int = 0,
    temperature: float = 1.0,
    report: StrPath | None = None,
    compat: str | None = None,
    ignore_index: int = -100,
    groups: StrPath | Literal[False] | None = None,
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
    targets : path or URL, or False, optional
        Class indices, one per row. Without it, the array ``targets`` of the file of P, if it has
        one: llama.cpp's base file does. False takes none; ``compat=`` needs some.
    out : path, optional
        File for the results row by row, whose suffix is one of `klce.scoring.results.WRITERS`; or,
        with a slash at its end, a folder for Parquet files of them: see `klce.scoring.parts`.
    want : iterable of str, optional
        The statistics of each row that `out` is to have, by the names of `klce.compare` and, with
        ``_p`` and ``_q`` behind, of `klce.score`. Without it, not those of `klce.compare` but what
        the summary and a page are made of: `klce.scoring.compare_columns.SHOWN`. With labels,
        ``target`` is there too, and where P or Q is llama.cpp's base file, what it cuts off:
        `klce.scoring.columns.cut_off_columns`.
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
    groups : path or URL, or False, optional
        The sequence of each row, for errors clustered by sequence; see
        `klce.scoring.groups.Groups`. Without it, the array ``groups`` of the file of P, if it has
        one: of llama.cpp's base file, the chunks; False takes none. With ``compat=``, the chunks of
        the tool's table.
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
    if compat is not None:
        if compat not in COMPATIBLE:
            raise InputError(f"compat must be {' or '.join(COMPATIBLE)}, got {compat}")
        for name, value in (
            ("want", want), ("top_k", top_k or None),
            ("temperature", None if temperature == 1 else temperature),
        ):  # fmt: skip
            if value is not None:
                raise InputError(f"{name} belongs to the exact comparison, not to that of {compat}")
        if targets is False:
            raise InputError(f"{compat}'s statistics need labels, got targets=False (--no-targets)")
        if report is not None:
            raise InputError(f"{report}: a report shows the exact comparison, not that of {compat}")
    inputs = {
        "p": p, "q": q, "targets": None if targets is False else targets,
        "groups": None if groups is False else groups,
    }  # fmt: skip
    options = Options(
        out=out,
        report=report,
        block_rows=block_rows,
        memory=memory,
        resume=resume,
        engine=engine,
        scheduler=scheduler,
        progress=progress,
    )
    watch = check(inputs, options, {"want": want})
    files = Comparing(
        p=p,
        q=q,
        targets=targets,
        compat=compat,
        ignore_index=ignore_index,
        kept=options.keeps_rows,
        want=names_of(want),
        top_k=top_k,
        temperature=temperature,
    ).open()
    files.check()
    with beside("groups", groups):
        reader = open_named("groups", groups, p)
        found_groups = None if reader is None else Groups(reader, files.shape[:-1])
        ends = None if compat is None or found_groups is None else found_groups.ends()

    words = {"command": "compare", "compat": compat}
    with computed_rows(files, watch, inputs, options, words) as (store, said):
        rows = store.rows()
        comparison = Comparison(
            **said,
            p=os.fspath(p),
            q=os.fspath(q),
            dtype_p=files.logits[0].file_dtype.name,
            dtype_q=files.logits[1].file_dtype.name,
            asked={
                "groups": None if reader is None else named(groups or reader.path),
                "want": None if files.task.want is None else list(files.task.want),
                "compat": compat,
                "report": named(report),
            },
            top_k=int(top_k),
            temperature=float(temperature),
            sequences=None if found_groups is None else len(found_groups),
            summary=summarize(rows, ignore_index, found_groups) if compat is None else None,
            output=llama_cpp.output(rows, ends) if compat is not None else None,
        )
        if report is not None:
            write_comparison_page(Path(report), comparison, rows, found_groups)
    return comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparing(Task):
    """The task of comparing two files."""

    PLACES = ("p", "q", "targets")

    p: StrPath
    q: StrPath
    compat: str | None = None

    def open(self) -> Files:
        """Open the files."""
        return _Exact(self) if self.compat is None else _LlamaCpp(self)


class _Exact(Files):
    """Files to compare exactly: by klce's functions, block by block."""

    def __init__(self, task: Comparing) -> None:
        super().__init__(task, task.p, task.q)
        p, q = self.logits
        cut_off = tuple(suffix for suffix, x in zip(CUT_OFF, (p, q), strict=True) if x.cut_off)
        labelled = self.labels is not None
        self.columns, self.written = computed_and_written(
            comparison_columns,
            self.dtype,
            labelled=labelled,
            want=task.want,
            needed=SHOWN if labelled or task.kept else COMPARED,
            top_k=task.top_k,
            cut_off=cut_off,
            classes=p.classes,
            temperature=task.temperature,
        )
        # The results twice, as they come and in a table; a flag for each class that is cut off.
        self.working_row_bytes = 2 * self.columns.itemsize + 4 * bool(cut_off) * p.classes
        if p.dtype != q.dtype:  # and one of the two in the other's dtype
            self.working_row_bytes += p.classes * self.dtype.itemsize

    def block(self, start: int, stop: int) -> NDArray[Any]:
        """Compare rows `start` to `stop`."""
        p, q = (logits.block(start, stop) for logits in self.logits)
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
        for suffix, logits, x in zip(CUT_OFF, self.logits, (p, q), strict=True):
            if logits.cut_off:
                kld.tell_cut_off(table, x, target, self.task.ignore_index, suffix)
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
    """Compare rows of logits into a table of `klce.scoring.compare_columns.comparison_columns`."""
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


class _LlamaCpp(Files):
    """Files to compare as llama.cpp's perplexity tool does."""

    NEEDS_LABELS = True

    columns = written = llama_cpp.COLUMNS
    labels: Labels

    def __init__(self, task: Comparing) -> None:
        super().__init__(task, task.p, task.q)
        p, _ = self.logits
        if self.labels is None:
            raise InputError(
                f"{p.path}: llama.cpp's statistics need labels, which its base file has; "
                "name a file of them"
            )
        if not p.rows:
            raise InputError(f"{p.path}: llama.cpp's statistics need rows, there are none")
        self.dtype = np.dtype(np.float32)
        self.working_row_bytes = 6 * 8 * p.classes + 2 * self.columns.itemsize

    def check(self) -> None:
        """Refuse labels that cannot be compared with. It reads them all."""
        super().check()
        for start, stop in spans(self.logits[0].rows):
            self._targets(start, stop)

    def _targets(self, start: int, stop: int) -> NDArray[np.int64]:
        target = self.labels.block(start, stop)
        ignored = target == self.task.ignore_index
        if ignored.any():
            row = start + int(ignored.argmax())
            raise InputError(
                f"{self.labels.path}: row {row} is ignored (label {self.task.ignore_index}); "
                "llama.cpp scores every row"
            )
        return target

    def block(self, start: int, stop: int) -> NDArray[Any]:
        """Compare rows `start` to `stop`."""
        p, q = self.logits
        log_p = p.block(start, stop)
        if not p.cut_off:
            log_p = llama_cpp.as_base(log_p, p.path, start)
        return llama_cpp.compare_rows(log_p, q.block(start, stop), self._targets(start, stop))
