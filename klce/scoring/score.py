"""Scoring a file: blocks of rows through the kernel, into the summary and the results."""

import contextlib
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import klce
from klce._arrays import computed
from klce.scoring.blocks import MEMORY, Progress, plan_blocks, run_blocks
from klce.scoring.engines import open_engine
from klce.scoring.errors import InputError
from klce.scoring.groups import Groups, GroupSums, Sequences, read_lengths
from klce.scoring.inputs import (
    Labels,
    Logits,
    check_ignore_index,
    local_files,
    open_targets,
)
from klce.scoring.journal import check_outputs, open_rows
from klce.scoring.page import check_page
from klce.scoring.readers import StrPath, absolute, open_reader
from klce.scoring.results import check_results_path, open_results, row_dtype
from klce.scoring.score_page import write_score_page
from klce.scoring.scores import Scores
from klce.scoring.summary import Summarizer, counted


def score_file(
    logits: StrPath,
    targets: StrPath | None = None,
    *,
    out: StrPath | None = None,
    report: StrPath | None = None,
    ignore_index: int = -100,
    groups: StrPath | None = None,
    bytes_file: StrPath | None = None,
    words_file: StrPath | None = None,
    sequences_out: StrPath | None = None,
    block_rows: int | None = None,
    memory: int = MEMORY,
    resume: bool = False,
    engine: str = "local",
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Score a file of logits, with or without labels.

    Parameters
    ----------
    logits : path or URL
        An array, whose last axis is the classes: ``FILE``, or ``FILE::NAME`` in a file of several;
        a folder or a pattern of files is their rows one after the other. See
        `klce.scoring.readers`.
    targets : path or URL, optional
        Class indices, one per row: integers of the logits' leading shape. Without it, the array
        ``targets`` of the file of logits, if it has one.
    out : path, optional
        File for the results row by row; its suffix is one of `klce.scoring.results.WRITERS`.
    report : path, optional
        File for a page of pictures (``.html``). What it takes of each row is in `out` too.
    ignore_index : int
        Label of rows that do not count.
    groups : path or URL, optional
        The sequence of each row, as ids or offsets: see `klce.scoring.groups.Groups`. Needs labels.
    bytes_file, words_file : path or URL, optional
        The length of each sequence in bytes or words, for bits per byte or word. Need `groups`.
    sequences_out : path, optional
        File for the results sequence by sequence. Needs `groups`.
    block_rows : int, optional
        Rows to score at once. It changes no bit of any result.
    memory : int
        Bytes to stay within, beyond the maps of files.
    resume : bool
        Go on with what an interrupted run to the same `out` has finished.
    engine : {"local", "dask"}
        Where to compute: in this process, or on Dask distributed, whose workers open the files by
        the same paths. It changes no bit of any result.
    scheduler : str, optional
        Address of Dask's scheduler; without it, a cluster on this machine.
    progress : callable, optional
        Called after each block with the bytes of logits done and those in all.

    Returns
    -------
    Scores
        Summary and speed.

    Raises
    ------
    InputError
        Where a file cannot be scored, before anything is written. For a label out of range it is
        a LabelError, which is an IndexError too.
    OSError
        Where a file cannot be read or written.
    Interrupted
        After Ctrl-C, when finished rows are kept for `resume`; it is a KeyboardInterrupt.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from klce.scoring import score_file
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/logits.npy", np.log([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]]))
    ...     np.save(f"{folder}/targets.npy", [0, 1])
    ...     scores = score_file(f"{folder}/logits.npy", f"{folder}/targets.npy")
    >>> round(scores.summary.perplexity, 6), scores.summary.accuracy
    (2.828427, 0.5)
    """
    scorer = Scoring(logits, targets, ignore_index, pictured=report is not None).open()
    rows, labels = scorer.logits, scorer.labels
    plan = plan_blocks([rows], memory=memory, block_rows=block_rows)
    inputs = {
        "logits": logits, "targets": targets, "groups": groups,
        "bytes": bytes_file, "words": words_file,
    }  # fmt: skip
    check_outputs(out, resume, inputs)
    if report is not None:
        check_page(Path(report), local_files(inputs))
    if labels is not None:
        labels.check()
    sequences = _open_sequences(rows, labels, groups, bytes_file, words_file, sequences_out)
    if sequences_out is not None:
        check_results_path(Path(sequences_out), local_files(inputs))
        if out is not None and Path(sequences_out).resolve() == Path(out).resolve():
            raise InputError(f"{out}: the results of rows and of sequences need a file each")

    summarizer = Summarizer(ignore_index)
    consumers = [summarizer.add]
    if sequences is not None:
        consumers.append(lambda table: sequences.add(table, ignore_index))

    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(open_engine(engine, scheduler))
        store = None
        if out is not None or report is not None:
            run = {"command": "score", "ignore_index": ignore_index}
            run |= {"arithmetic": opened.arithmetic}
            shape, columns = rows.leading_shape, scorer.columns
            store = stack.enter_context(open_rows(out, shape, columns, inputs, run, resume=resume))
        begin = time.perf_counter()
        resumed = 0 if store is None else store.finished
        run_blocks(plan, opened, scorer, consumers, store, progress)
        seconds = time.perf_counter() - begin
        found = Scores(
            logits=os.fspath(logits),
            targets=None if labels is None else str(targets or labels.path),
            out=None if out is None else os.fspath(out),
            shape=scorer.shape,
            dtype=rows.dtype.name,
            engine=engine,
            isas=opened.isas,
            ignore_index=ignore_index,
            summary=summarizer.finish(),
            sequences=None if sequences is None else sequences.finish(),
            seconds=seconds,
            resumed_rows=resumed,
            read_bytes=(rows.rows - resumed) * rows.row_bytes,
        )
        if report is not None and store is not None:
            write_score_page(
                Path(report), found, store.rows(), None if sequences is None else sequences.groups
            )
        if found.sequences is not None and sequences_out is not None:
            table = found.sequences.table()
            with open_results(Path(sequences_out), table.shape, table.dtype) as writer:
                writer.write(table)
        if store is not None:
            store.finish()
    return found


@dataclass(frozen=True, slots=True)
class Scoring:
    """The task of scoring a file: see `klce.scoring.engines.Task`."""

    logits: StrPath
    targets: StrPath | None
    ignore_index: int
    pictured: bool = False

    def absolute(self) -> "Scoring":
        """Return the task for a process in another folder."""
        targets = self.targets and absolute(self.targets)
        return replace(self, logits=absolute(self.logits), targets=targets)

    def places(self) -> tuple[StrPath, ...]:
        """Return the inputs."""
        return (self.logits,) if self.targets is None else (self.logits, self.targets)

    def open(self) -> "Scorer":
        """Open the files."""
        return Scorer(self)


class Scorer:
    """Files to score: see `klce.scoring.engines.Computation`."""

    def __init__(self, task: Scoring) -> None:
        self.task = task
        self.logits = Logits(open_reader(task.logits))
        self.shape = (*self.logits.leading_shape, self.logits.classes)
        check_ignore_index(task.ignore_index)
        reader = open_targets(task.targets, task.logits)
        self.labels = None if reader is None else Labels(reader, self.logits, task.ignore_index)
        self.columns = row_dtype(
            self.logits.dtype, labelled=reader is not None, pictured=task.pictured
        )

    def block(self, start: int, stop: int) -> NDArray[Any]:
        """Score rows `start` to `stop`."""
        target = None if self.labels is None else self.labels.block(start, stop)
        return score_block(
            self.logits.block(start, stop),
            target,
            self.task.ignore_index,
            pictured=self.task.pictured,
        )


class _Sequences:
    """Adds up the rows of sequences."""

    def __init__(
        self, groups: Groups, bytes_file: StrPath | None, words_file: StrPath | None
    ) -> None:
        self.groups, self._sums = groups, GroupSums(groups)
        self._bytes = _lengths(bytes_file, "bytes", groups)
        self._words = _lengths(words_file, "words", groups)

    def add(self, table: NDArray[Any], ignore_index: int) -> None:
        nll = table["nll"].astype(np.float64)
        correct = table["argmax"] == table["target"]
        values = {"nll": nll, "squares": nll * nll, "correct": correct}
        self._sums.add(values, counted(table, ignore_index))

    def finish(self) -> Sequences:
        return Sequences(
            labels=self.groups.labels,
            tokens=self._sums.counts,
            correct=self._sums.of("correct").astype(np.int64),
            nll=self._sums.of("nll"),
            squares=self._sums.of("squares"),
            bytes=self._bytes,
            words=self._words,
        )


def _open_sequences(
    rows: Logits,
    labels: Labels | None,
    groups: StrPath | None,
    bytes_file: StrPath | None,
    words_file: StrPath | None,
    sequences_out: StrPath | None,
) -> _Sequences | None:
    if groups is None:
        for name, value in (
            ("bytes", bytes_file), ("words", words_file), ("sequences", sequences_out)
        ):  # fmt: skip
            if value is not None:
                raise InputError(f"{name} need groups: without them there are no sequences")
        return None
    if labels is None:
        raise InputError(f"{os.fspath(groups)}: groups need labels, whose likelihood is added up")
    found = Groups(open_reader(groups, ("groups",)), rows.rows)
    return _Sequences(found, bytes_file, words_file)


def _lengths(place: StrPath | None, name: str, groups: Groups) -> NDArray[np.float64] | None:
    return None if place is None else read_lengths(open_reader(place, (name,)), groups)


def score_block(
    x: NDArray[Any],
    target: NDArray[np.int64] | None,
    ignore_index: int,
    *,
    pictured: bool = False,
) -> NDArray[Any]:
    """Score rows of logits in one read; return a table of `klce.scoring.results.row_dtype`."""
    columns = row_dtype(computed(x.dtype), labelled=target is not None, pictured=pictured)
    table = np.empty(len(x), columns)
    want = [name for name in columns.names or () if name != "target"]
    scored = klce.score(x, target, want=want, ignore_index=ignore_index)
    for name, column in scored.items():
        table[name] = column
    if target is not None:
        table["target"] = target
    return table
