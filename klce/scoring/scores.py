"""What a scored file says: its summary, with what was scored and how fast."""

import math
from dataclasses import dataclass
from typing import Any

from klce.scoring.accuracy import TOP, Ranks
from klce.scoring.distribution import by_fraction
from klce.scoring.groups import Sequences
from klce.scoring.numbers import finite_or_none
from klce.scoring.run import Run
from klce.scoring.summary import Summary


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores(Run):
    """The result of scoring one file: a `klce.scoring.run.Run`, and these.

    Attributes
    ----------
    logits, dtype : str
        The file, and the dtype that it has.
    temperature : float
        What divided its logits.
    summary : Summary
        Counts and means.
    ranks : Ranks or None
        How often the label is among the k largest logits. It takes longer than the summary, and is
        None where no rows are kept, for results or a page; and without labels.
    nll_quantiles, entropy_quantiles : tuple of float or None
        Quantiles at `klce.scoring.distribution.QUANTILES`, over the rows that count; None where
        none are kept, and of NLL without labels.
    sequences : Sequences or None
        Sums over sequences, if there are groups.
    """

    logits: str
    dtype: str
    temperature: float
    summary: Summary
    ranks: Ranks | None
    nll_quantiles: tuple[float, ...] | None
    entropy_quantiles: tuple[float, ...] | None
    sequences: Sequences | None

    @property
    def top_accuracy(self) -> dict[int, float] | None:
        """The accuracy of the top k, for the k in `klce.scoring.accuracy.TOP` up to the classes."""
        if self.ranks is None:
            return None
        shares = zip(self.ranks.k, self.ranks.share, strict=True)
        return {k: share for k, share in shares if k in TOP}

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
            "infinite_logsumexp_rows": summary.infinite_logsumexp,
            "saturated_rows": summary.saturated,
            "floor_classes": summary.floor_classes,
            "mean_nll_nats": summary.mean_nll,
            "mean_nll_nats_error": summary.mean_nll_error,
            "mean_nll_bits": summary.mean_nll / math.log(2),
            "perplexity": summary.perplexity,
            "perplexity_error": summary.perplexity_error,
            "accuracy": summary.accuracy,
            "accuracy_error": summary.accuracy_error,
            "expected_calibration_error": summary.calibration.error,
            "top_accuracy": _by_k(self.top_accuracy),
            "mean_entropy_nats": summary.mean_entropy,
            "mean_entropy_nats_error": summary.mean_entropy_error,
            "mean_entropy_bits": summary.mean_entropy / math.log(2),
            "mean_logsumexp": summary.mean_logsumexp,
            "nll_quantiles": by_fraction(self.nll_quantiles),
            "entropy_quantiles": by_fraction(self.entropy_quantiles),
        }
        if self.sequences is not None:
            results |= _sequence_values(self.sequences)
        return self._values({"logits": self.logits, "dtype": self.dtype}, results)


def _by_k(accuracy: dict[int, float] | None) -> dict[str, Any] | None:
    if accuracy is None:
        return None
    return {f"{k}": finite_or_none(share) for k, share in accuracy.items()}


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
