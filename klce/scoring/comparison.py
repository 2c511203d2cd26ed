"""What two files that are compared say: the summary, with what was compared and how fast."""

from dataclasses import dataclass
from typing import Any

from klce.scoring.compare_summary import MEASURES, ComparisonSummary
from klce.scoring.distribution import by_fraction
from klce.scoring.llama_cpp import Output
from klce.scoring.numbers import finite_or_none
from klce.scoring.run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison(Run):
    """The result of comparing two files: a `klce.scoring.run.Run`, and these.

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
    output: Output | None

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
        "saturated_rows_q": summary.saturated_q,
        "floor_classes_q": summary.floor_classes_q,
    }
    for name in MEASURES:
        if name in summary.estimates:
            estimate = summary.estimates[name]
            values[name] = {
                "mean": finite_or_none(estimate.mean),
                "error": finite_or_none(estimate.error),
                "clustered_error": finite_or_none(estimate.clustered_error),
            }
    values["kl_divergence_quantiles"] = by_fraction(summary.kl_divergence_quantiles)
    if "nll_p" in summary.estimates:
        values["nll_correlation"] = summary.nll_correlation
        values["expected_calibration_error_p"] = summary.calibration_p.error
        values["expected_calibration_error_q"] = summary.calibration_q.error
        for name, estimate in summary.following.items():
            values[name] = estimate.mean
            values[f"{name}_error"] = estimate.error
            values[f"{name}_clustered_error"] = estimate.clustered_error
        values["target_prob_change_quantiles"] = by_fraction(summary.target_prob_change_quantiles)
    return values
