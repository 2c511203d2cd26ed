"""What a run computes: a task, which every process can open, and its files, once they are open."""

import abc
import contextlib
import functools
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from klce.scoring.errors import InputError
from klce.scoring.inputs import Labels, Logits, beside, check_ignore_index, open_named, same_rows
from klce.scoring.readers import StrPath, absolute, open_reader


@dataclass(frozen=True, slots=True, kw_only=True)
class Task(abc.ABC):
    """What a run computes, in words: small, and the same in every process.

    Attributes
    ----------
    kept : bool
        Are the rows kept, for results or a page? Then they have all that either shows unasked,
        whatever is wanted: the run that resumes this one may want something else. If not, they have
        but what the summary needs.
    """

    PLACES: ClassVar[tuple[str, ...]]
    """The attributes that name inputs."""

    targets: StrPath | Literal[False] | None
    ignore_index: int
    kept: bool = False
    want: tuple[str, ...] | None = None
    top_k: int = 0
    temperature: float = 1.0

    def _named(self) -> dict[str, StrPath]:
        places = {name: getattr(self, name) for name in self.PLACES}
        return {name: place for name, place in places.items() if place not in (None, False)}

    def places(self) -> tuple[StrPath, ...]:
        """Return the inputs, those that are named."""
        return tuple(self._named().values())

    def absolute(self) -> Self:
        """Return the task for a process in another folder."""
        places: dict[str, Any] = {name: absolute(place) for name, place in self._named().items()}
        return replace(self, **places)

    @abc.abstractmethod
    def open(self) -> "Files":
        """Open the files."""


class Files(abc.ABC):
    """A run's files, open, and what is done with their rows.

    Attributes
    ----------
    task : Task
        What opened them.
    logits : tuple of Logits
        Of the same rows.
    labels : Labels or None
        Those of the rows.
    shape : tuple of int
        Shape of the logits, classes last.
    dtype : numpy.dtype
        What is computed in: float32 or float64.
    columns, written : numpy.dtype
        What is computed of a row, and those of it that results are to have.
    working_row_bytes : int
        Bytes of memory that computing a row takes.
    """

    NEEDS_LABELS: ClassVar[bool] = False
    """Whether nothing can be computed without labels."""

    columns: np.dtype[Any]
    written: np.dtype[Any]
    working_row_bytes: int

    def __init__(self, task: Task, *logits: StrPath) -> None:
        self.task = task
        self.logits = tuple(Logits(open_reader(place)) for place in logits)
        first, *others = self.logits
        for other in others:
            if (other.rows, other.classes) != (first.rows, first.classes):
                raise InputError(
                    f"{other.path}: {other.rows:,} rows of {other.classes:,} classes, where "
                    f"{first.path} has {first.rows:,} of {first.classes:,}"
                )
            if not same_rows(first.leading_shape, other.leading_shape):
                raise InputError(
                    f"{other.path}: rows of shape {other.leading_shape} are not those of "
                    f"{first.path}, which has rows of shape {first.leading_shape}"
                )
        self.shape = (*first.leading_shape, first.classes)
        self.dtype = functools.reduce(np.promote_types, (some.dtype for some in self.logits))
        check_ignore_index(task.ignore_index)
        with self._labels_beside():
            targets = open_named("targets", task.targets, logits[0])
            self.labels = None if targets is None else Labels(targets, first, task.ignore_index)

    def check(self) -> None:
        """Refuse logits with a part missing, and labels that are no classes.

        It reads all labels.
        """
        for some in self.logits:
            some.check()
        if self.labels is not None:
            with self._labels_beside():
                self.labels.check()

    def _labels_beside(self) -> contextlib.AbstractContextManager[None]:
        """Say of labels beside the logits that are refused how to go on without, if that can be."""
        if self.NEEDS_LABELS:
            return contextlib.nullcontext()
        return beside("targets", self.task.targets)

    @abc.abstractmethod
    def block(self, start: int, stop: int) -> NDArray[Any]:
        """Return the results of rows `start` to `stop`."""
