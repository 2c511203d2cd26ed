"""Score files of logits: readers, the block loop, per-row results and the summary.

A file is read in blocks of rows, each block goes through one kernel call, and its results are added
to a summary and, when asked for, appended to a results file. Memory is bounded by the block.
"""

from klce.scoring.blocks import Interrupted
from klce.scoring.errors import InputError, LabelError
from klce.scoring.report import Report
from klce.scoring.score import score_file
from klce.scoring.summary import Summary

__all__ = ["InputError", "Interrupted", "LabelError", "Report", "Summary", "score_file"]
