"""A run over files: what every one refuses, its blocks, its kept rows, and what is said of it."""

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from klce.scoring.blocks import Progress, plan_blocks, run_blocks
from klce.scoring.engines import open_engine
from klce.scoring.errors import InputError
from klce.scoring.files import Files
from klce.scoring.identity import Watch
from klce.scoring.inputs import check_places, local_inputs
from klce.scoring.journal import RowFile, open_rows
from klce.scoring.numbers import finite_or_none
from klce.scoring.outputs import check_outputs, check_results_path
from klce.scoring.page import check_page
from klce.scoring.readers import StrPath


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a run goes, and where its results go to: what `score_file` says of these parameters."""

    out: StrPath | None
    report: StrPath | None
    block_rows: int | None
    memory: int
    resume: bool
    engine: str
    scheduler: str | None
    progress: Progress | None

    @property
    def keeps_rows(self) -> bool:
        """Whether rows are kept until the end, for results or a page."""
        return self.out is not None or self.report is not None


def check(
    inputs: dict[str, StrPath | None],
    options: Options,
    asked: Mapping[str, object],
    **others: StrPath | None,
) -> Watch:
    """Refuse places that cannot be read from or written to, and begin to watch the inputs.

    What is `asked` of the results of rows needs a file for them. The `others` are the tables that
    are written beside them.
    """
    check_places({**inputs, "out": options.out, "report": options.report, **others})
    watch = Watch(inputs)
    for name, value in asked.items():
        if value is not None and options.out is None:
            raise InputError(f"{name} needs a file for the results (--out), got {value}")
    check_outputs(options.out, options.resume, inputs, (options.report, *others.values()))
    if options.report is not None:
        check_page(options.report, local_inputs(inputs))
    for other in others.values():
        if other is not None:
            check_results_path(other, local_inputs(inputs))
    return watch


@contextlib.contextmanager
def computed_rows(
    files: Files,
    watch: Watch,
    inputs: Mapping[str, StrPath | tuple[int, ...] | None],
    options: Options,
    words: dict[str, Any],
    *,
    consumers: Sequence[Callable[[NDArray[Any]], None]] = (),
    keep: bool = True,
) -> Iterator[tuple[RowFile, dict[str, Any]]]:
    """Compute all rows; yield those that are kept, and the attributes of a `Run` over them.

    The rows become the results if the block ends well. To resume a run, its inputs and the `words`
    that tell it from others have to be the same.
    """
    task, labels = files.task, files.labels
    plan = plan_blocks(
        files.logits,
        memory=options.memory,
        block_rows=options.block_rows,
        working_row_bytes=files.working_row_bytes,
    )
    with (
        open_engine(options.engine, options.scheduler) as engine,
        open_rows(
            options.out,
            files.shape[:-1],
            files.columns,
            inputs,
            words
            | ({"no_targets": True} if task.targets is False else {})
            | {
                "ignore_index": int(task.ignore_index),
                "temperature": float(task.temperature),
                "top_k": int(task.top_k),
                "arithmetic": engine.arithmetic,
            },
            resume=options.resume,
            written=files.written,
            keep=keep,
        ) as store,
    ):
        begin, resumed = time.perf_counter(), store.finished
        run_blocks(plan, engine, files, consumers, store, options.progress)
        watch.check()
        seconds = time.perf_counter() - begin
        said = {
            "targets": None if labels is None else str(task.targets or labels.path),
            "out": None if options.out is None else os.fspath(options.out),
            "shape": files.shape,
            "computed_in": files.dtype.name,
            "ignore_index": int(task.ignore_index),
            "engine": options.engine,
            "isas": engine.isas,
            "seconds": seconds,
            "resumed_rows": resumed,
            "read_bytes": (plan.rows - resumed) * plan.row_bytes,
        }
        yield store, said
        store.finish()


def named(place: StrPath | None) -> str | None:
    """Return a place as a report names it."""
    return None if place is None else os.fspath(place)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What is said of any run, beside its results.

    Attributes
    ----------
    targets, out : str or None
        The files of labels and of results, if there are any.
    asked : dict of str to plain values
        The other files of the run and what was asked of its rows, by the names of the parameters
        or, of files, of the command's options: None where there are none. The file of sequences is
        ``sequences_out``, since ``sequences`` counts them in the JSON.
    shape : tuple of int
        Shape of the logits, classes last.
    computed_in : str
        The dtype that they were computed in, float32 or float64.
    ignore_index : int
        The label of rows that do not count.
    engine : str
        Where they were computed: see `klce.scoring.engines`.
    isas : tuple of str
        The instruction sets that were in use there. All give the same bits.
    seconds : float
        From the first row to the last, reading and writing included.
    resumed_rows : int
        Rows that were taken over from an interrupted run.
    read_bytes : int
        Size in the files of the logits that were read.
    """

    targets: str | None
    out: str | None
    asked: dict[str, Any]
    shape: tuple[int, ...]
    computed_in: str
    ignore_index: int
    engine: str
    isas: tuple[str, ...]
    seconds: float
    resumed_rows: int
    read_bytes: int

    @property
    def rows(self) -> int:
        """Number of rows."""
        return math.prod(self.shape[:-1])

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.shape[-1]

    @property
    def rows_per_second(self) -> float:
        """Rows computed in a second."""
        return (self.rows - self.resumed_rows) / self.seconds

    @property
    def gigabytes_per_second(self) -> float:
        """Gigabytes (1e9 bytes) of logits read in a second."""
        return self.read_bytes / self.seconds / 1e9

    def _values(self, inputs: dict[str, Any], results: dict[str, Any]) -> dict[str, Any]:
        """Return all values of a run with these inputs and results, as `to_dict` does."""
        values = {
            **inputs,
            "targets": self.targets,
            "out": self.out,
            **self.asked,
            "shape": list(self.shape),
            "computed_in": self.computed_in,
            "rows": self.rows,
            "resumed_rows": self.resumed_rows,
            "classes": self.classes,
            "ignore_index": self.ignore_index,
            "engine": self.engine,
            "isas": list(self.isas),
            **results,
            "seconds": self.seconds,
            "rows_per_second": self.rows_per_second,
            "gigabytes_per_second": self.gigabytes_per_second,
        }
        return {name: finite_or_none(value) for name, value in values.items()}
