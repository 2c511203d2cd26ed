"""What `klce.scoring` exports."""

import typing

from klce import scoring


def test_what_results_hold_is_exported():
    held = {"Summary", "Sequences", "ComparisonSummary", "Estimate", "Calibration", "Ranks"}
    assert held <= {*scoring.__all__}
    of_scores = typing.get_type_hints(scoring.Scores)
    assert of_scores["summary"] is scoring.Summary
    assert of_scores["sequences"] == scoring.Sequences | None
    assert of_scores["ranks"] == scoring.Ranks | None
    assert typing.get_type_hints(scoring.Summary)["calibration"] is scoring.Calibration
    assert typing.get_type_hints(scoring.Comparison)["summary"] == scoring.ComparisonSummary | None
    of_summary = typing.get_type_hints(scoring.ComparisonSummary)
    assert of_summary["estimates"] == dict[str, scoring.Estimate]
    assert of_summary["calibration_p"] is scoring.Calibration
