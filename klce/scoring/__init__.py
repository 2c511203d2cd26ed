"""Score and compare files of logits: readers, the block loop, per-row results and the summary.

A file is read in blocks of rows, each block goes through the kernels, and its results are added to
a summary and, when asked for, kept for a results file. Memory is bounded by the block.
"""

from klce.scoring.accuracy import Calibration, Ranks
from klce.scoring.compare import compare_file
from klce.scoring.compare_summary import ComparisonSummary, Estimate
from klce.scoring.comparison import Comparison
from klce.scoring.convert import convert_file
from klce.scoring.dask_comparisons import DaskComparison, compare_dask
from klce.scoring.dask_scores import DaskScores, score_dask
from klce.scoring.errors import InputError, Interrupted, LabelError
from klce.scoring.groups import Sequences
from klce.scoring.info import FileInfo, file_info
from klce.scoring.score import score_file
from klce.scoring.scores import Scores
from klce.scoring.summary import Summary

__all__ = [
    "Calibration",
    "Comparison",
    "ComparisonSummary",
    "DaskComparison",
    "DaskScores",
    "Estimate",
    "FileInfo",
    "InputError",
    "Interrupted",
    "LabelError",
    "Ranks",
    "Scores",
    "Sequences",
    "Summary",
    "compare_dask",
    "compare_file",
    "convert_file",
    "file_info",
    "score_dask",
    "score_file",
]
