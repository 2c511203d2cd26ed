"""What a scored file says: its summary, with what was scored and how fast."""

import math
from dataclasses import dataclass
from typing import Any

from klce.scoring.groups import Sequences
from klce.scoring.summary import Summary


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What is said of any run, beside its results.

    Attributes
    ----------
    targets, out : str or None
        The files of labels and of results, if there are any.
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
            "shape": list(self.shape),
            "computed_in": self.computed_in,
            "rows": self.rows,
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores(Run):
    """The result of scoring one file: a `Run`, and these.

    Attributes
    ----------
    logits, dtype : str
        The file, and the dtype that it has.
    temperature : float
        What divided its logits.
    summary : Summary
        Counts and means.
    sequences : Sequences or None
        Sums over sequences, if there are groups.
    """

    logits: str
    dtype: str
    temperature: float
    summary: Summary
    sequences: Sequences | None

    def to_dict(self) -> dict[str, Any]:
        """Return them as plain values for JSON, which has no nan or inf: they are None."""
        summary = self.summary
        results: dict[str, Any] = {
            "temperature": self.temperature,
            "ignored_rows": summary.ignored,
            "nan_rows": summary.nan,
            "first_nan_row": summary.first_nan,
            "counted_rows": summary.counted,
            "infinite_nll_rows": summary.infinite,
            "saturated_rows": summary.saturated,
            "mean_nll_nats": summary.mean_nll,
            "mean_nll_bits": summary.mean_nll / math.log(2),
            "perplexity": summary.perplexity,
            "accuracy": summary.accuracy,
            "mean_entropy_nats": summary.mean_entropy,
            "mean_entropy_bits": summary.mean_entropy / math.log(2),
            "mean_logsumexp": summary.mean_logsumexp,
        }
        if self.sequences is not None:
            results |= _sequence_values(self.sequences)
        return self._values({"logits": self.logits, "dtype": self.dtype}, results)


def _sequence_values(sequences: Sequences) -> dict[str, Any]:
    values: dict[str, Any] = {
        "sequences": len(sequences.labels),
        "mean_log_likelihood_nats": sequences.mean_log_likelihood,
        "standard_error_tokens_nats": sequences.token_error,
        "standard_error_sequences_nats": sequences.clustered_error,
    }
    for unit, lengths in (("byte", sequences.bytes), ("word", sequences.words)):
        if lengths is not None:
            values[f"bits_per_{unit}"] = sequences.bits_per(lengths)
    return values


def finite_or_none(value: Any) -> Any:
    """Return a value as JSON has it: without nan and inf."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
