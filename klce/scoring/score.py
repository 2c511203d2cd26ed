"""Scoring a file: blocks of rows through the kernel, into the summary and the results."""

import functools
import operator
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import klce
from klce._ufuncs import STATISTICS
from klce.scoring import kld
from klce.scoring.accuracy import Ranks
from klce.scoring.blocks import MEMORY, Progress
from klce.scoring.columns import SHOWN, SUMMED, computed_and_written, names_of, score_columns
from klce.scoring.distribution import pieces, quantiles_of
from klce.scoring.errors import InputError
from klce.scoring.files import Files, Task
from klce.scoring.groups import Groups, GroupSums, Sequences, read_lengths
from klce.scoring.inputs import Candidates, Logits
from klce.scoring.readers import StrPath, open_reader
from klce.scoring.results import open_results
from klce.scoring.run import Options, check, computed_rows, named
from klce.scoring.score_page import write_score_page
from klce.scoring.scores import Scores
from klce.scoring.summary import Summarizer, counted


@np.errstate(over="ignore", invalid="ignore")  # what is not finite, the summary tells
def score_file(
    logits: StrPath,
    targets: StrPath | Literal[False] | None = None,
    *,
    out: StrPath | None = None,
    want: Iterable[str] | None = None,
    top_k: int = 0,
    candidates: StrPath | Iterable[int] | None = None,
    temperature: float = 1.0,
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
    targets : path or URL, or False, optional
        Class indices, one per row: integers of the logits' leading shape. Without it, the array
        ``targets`` of the file of logits, if it has one; False takes none.
    out : path, optional
        File for the results row by row, whose suffix is one of `klce.scoring.results.WRITERS`; or,
        with a slash at its end, a folder for Parquet files of them: see `klce.scoring.parts`.
    want : iterable of str, optional
        The statistics of each row that `out` is to have, by the names of `klce.score`. Without it,
        not those of `klce.score` but what the summary and a page are made of:
        `klce.scoring.columns.SHOWN`. With labels, ``target`` is there too, and for llama.cpp's base
        file ``floor_classes`` and ``saturated``.
    top_k : int, default 0
        How many of the largest classes of each row to write: ``top_ids`` and ``top_log_probs``.
    candidates : path or URL, or iterable of int, optional
        Classes whose log-probabilities to write, ``candidate_log_probs``: the same for all rows;
        or, from a file of the rows' shape and one axis more, those of each row.
    temperature : float, default 1.0
        Divides the logits; from 1e-6 to 1e6.
    report : path, optional
        File for a page of pictures (``.html``).
    ignore_index : int, default -100
        Label of rows that do not count.
    groups : path or URL, optional
        The sequence of each row, as ids or offsets: see `klce.scoring.groups.Groups`. Needs labels.
    bytes_file, words_file : path or URL, optional
        The length of each sequence in bytes or words, for bits per byte or word, in the order in
        which the sequences first appear. Need `groups`.
    sequences_out : path, optional
        File for the results sequence by sequence. Needs `groups`.
    block_rows : int, optional
        Rows to score at once. It changes no bit of any result.
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
    place, ids = _place_or_ids(candidates)
    inputs = {
        "logits": logits, "targets": None if targets is False else targets, "groups": groups,
        "bytes_file": bytes_file, "words_file": words_file, "candidates": place,
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
    asked = {"want": want, "top_k": top_k or None, "candidates": candidates}
    watch = check(inputs, options, asked, sequences_out=sequences_out)
    files = Scoring(
        logits=logits,
        targets=targets,
        ignore_index=ignore_index,
        kept=options.keeps_rows,
        want=names_of(want),
        top_k=top_k,
        candidates=place,
        candidate_ids=ids,
        temperature=temperature,
    ).open()
    files.check()
    sequences = _open_sequences(files, groups, bytes_file, words_file, sequences_out)
    summarizer = Summarizer(ignore_index)
    consumers = [summarizer.add]
    if sequences is not None:
        consumers.append(lambda table: sequences.add(table, ignore_index))

    with computed_rows(
        files,
        watch,
        inputs if ids is None else inputs | {"candidates": ids},
        options,
        {"command": "score"},
        consumers=consumers,
        keep=options.keeps_rows,
    ) as (store, said):
        summary = summarizer.finish()
        rows = store.rows() if options.keeps_rows else None
        found = Scores(
            **said,
            logits=os.fspath(logits),
            dtype=files.logits[0].file_dtype.name,
            asked={
                "groups": named(groups),
                "bytes": named(bytes_file),
                "words": named(words_file),
                "want": None if files.task.want is None else list(files.task.want),
                "top_k": int(top_k),
                "candidates": named(place) if ids is None else list(ids),
                "sequences_out": named(sequences_out),
                "report": named(report),
            },
            temperature=float(temperature),
            summary=summary,
            ranks=_ranks(rows, files.shape[-1], ignore_index),
            nll_quantiles=_quantiles(rows, "nll", ignore_index),
            entropy_quantiles=_quantiles(rows, "entropy", ignore_index),
            sequences=None if sequences is None else sequences.finish(summary.mean_nll_error),
        )
        if report is not None:
            known = None if sequences is None else sequences.groups
            write_score_page(Path(report), found, store.rows(), known)
        if found.sequences is not None and sequences_out is not None:
            table = found.sequences.table()
            with open_results(Path(sequences_out), table.shape, table.dtype) as writer:
                writer.write(table)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring(Task):
    """The task of scoring a file."""

    PLACES = ("logits", "targets", "candidates")

    logits: StrPath
    candidates: StrPath | None = None
    candidate_ids: tuple[int, ...] | None = None

    def open(self) -> "Scorer":
        """Open the files."""
        return Scorer(self)


class Scorer(Files):
    """A file to score, with its labels and candidates."""

    task: Scoring

    def __init__(self, task: Scoring) -> None:
        super().__init__(task, task.logits)
        (logits,) = self.logits
        self._candidates = _open_candidates(task, logits)
        self.columns, self.written = computed_and_written(
            score_columns,
            logits.dtype,
            labelled=self.labels is not None,
            want=task.want,
            needed=SHOWN if task.kept else SUMMED,
            top_k=task.top_k,
            cut_off=logits.cut_off,
            classes=logits.classes,
            candidates=None if self._candidates is None else self._candidates.count,
            temperature=task.temperature,
        )
        # The results twice, as they come and in a table; a flag for each class that is cut off.
        self.working_row_bytes = 2 * self.columns.itemsize + 4 * logits.cut_off * logits.classes

    def check(self) -> None:
        """Refuse logits with a part missing, and labels and candidates that are no classes.

        It reads all labels and candidates.
        """
        super().check()
        if self._candidates is not None:
            self._candidates.check()

    def block(self, start: int, stop: int) -> NDArray[Any]:
        """Score rows `start` to `stop`."""
        (logits,) = self.logits
        x = logits.block(start, stop)
        target = None if self.labels is None else self.labels.block(start, stop)
        table = np.empty(stop - start, self.columns)
        score_block(
            table,
            x,
            target,
            self.task.ignore_index,
            top_k=self.task.top_k,
            candidates=None if self._candidates is None else self._candidates.block(start, stop),
            temperature=self.task.temperature,
        )
        if logits.cut_off:
            kld.tell_cut_off(table, x, target, self.task.ignore_index)
        return table


def _place_or_ids(
    candidates: StrPath | Iterable[int] | None,
) -> tuple[StrPath | None, tuple[int, ...] | None]:
    if candidates is None:
        return None, None
    if isinstance(candidates, (str, os.PathLike)):
        return candidates, None
    try:
        return None, tuple(map(operator.index, candidates))
    except TypeError:
        raise InputError(f"candidates must be a file or integers, got {candidates!r}") from None


def _open_candidates(task: Scoring, logits: Logits) -> Candidates | None:
    if task.candidates is not None:
        return Candidates(open_reader(task.candidates, ("candidates",)), logits)
    return None if task.candidate_ids is None else Candidates(task.candidate_ids, logits)


def _ranks(rows: NDArray[Any] | None, classes: int, ignore_index: int) -> Ranks | None:
    """Return those of rows that are kept and have labels."""
    if rows is None or "rank" not in (rows.dtype.names or ()):
        return None
    ranks = Ranks.of(np.empty(0, np.int64), classes)
    for _, table, counts in pieces(rows, functools.partial(counted, ignore_index=ignore_index)):
        ranks = ranks.merge(Ranks.of(table["rank"][counts], classes))
    return ranks


def _quantiles(rows: NDArray[Any] | None, name: str, ignore_index: int) -> tuple[float, ...] | None:
    """Return those of a column of the rows that are kept and count, if they have it."""
    if rows is None or name not in (rows.dtype.names or ()):
        return None

    def column(table: NDArray[Any]) -> NDArray[Any]:
        values: NDArray[Any] = table[name][counted(table, ignore_index)]
        return values

    return quantiles_of(rows, column, rows.dtype[name])


class _Sequences:
    """Adds up the rows of sequences."""

    def __init__(
        self, groups: Groups, bytes_file: StrPath | None, words_file: StrPath | None
    ) -> None:
        self.groups, self._sums = groups, GroupSums(groups)
        self._row, self._nan = 0, np.zeros(len(groups), np.int64)
        self._bytes = _lengths(bytes_file, "bytes", groups)
        self._words = _lengths(words_file, "words", groups)

    def add(self, table: NDArray[Any], ignore_index: int) -> None:
        values = {"nll": table["nll"], "correct": table["argmax"] == table["target"]}
        counts = counted(table, ignore_index)
        self._sums.add(values, counts)
        nan = ~counts & (table["target"] != ignore_index)
        if nan.any():
            np.add.at(self._nan, self.groups.block(self._row, self._row + len(table))[nan], 1)
        self._row += len(table)

    def finish(self, token_error: float) -> Sequences:
        return Sequences(
            labels=self.groups.labels,
            tokens=self._sums.counts,
            correct=self._sums.of("correct").astype(np.int64),
            nan=self._nan,
            nll=self._sums.of("nll"),
            token_error=token_error,
            bytes=self._bytes,
            words=self._words,
        )


def _open_sequences(
    files: Scorer,
    groups: StrPath | None,
    bytes_file: StrPath | None,
    words_file: StrPath | None,
    sequences_out: StrPath | None,
) -> _Sequences | None:
    if groups is None:
        for name, value in (
            ("bytes_file", bytes_file), ("words_file", words_file),
            ("sequences_out", sequences_out),
        ):  # fmt: skip
            if value is not None:
                raise InputError(f"{name} needs groups: without them there are no sequences")
        return None
    if files.labels is None:
        raise InputError(f"{os.fspath(groups)}: groups need labels, whose likelihood is added up")
    found = Groups(open_reader(groups, ("groups",)), files.shape[:-1])
    return _Sequences(found, bytes_file, words_file)


def _lengths(place: StrPath | None, name: str, groups: Groups) -> NDArray[np.float64] | None:
    return None if place is None else read_lengths(open_reader(place, (name,)), groups)


def score_block(
    table: NDArray[Any],
    x: NDArray[Any],
    target: NDArray[np.int64] | None,
    ignore_index: int,
    *,
    top_k: int = 0,
    candidates: NDArray[np.int64] | None = None,
    temperature: float = 1.0,
) -> None:
    """Score rows of logits in one read into a table of `klce.scoring.columns.score_columns`."""
    scored = klce.score(
        x,
        target,
        want=[name for name in table.dtype.names or () if name in STATISTICS["score"]],
        top_k=top_k,
        candidates=candidates,
        temperature=temperature,
        ignore_index=ignore_index,
    )
    for name, column in scored.items():
        table[name] = column
    if target is not None:
        table["target"] = target
