"""Numbers of summaries, which may be infinite or nan, and how they are told."""

import math
from typing import Any


def exp(value: float) -> float:
    """Return the exponential, which is inf beyond the range of float64."""
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def number(value: float, form: str = "#.5g") -> str:
    """Return a number as tables and pages show it, and a dash for nan."""
    return "-" if math.isnan(value) else format(value, form)


def finite_or_none(value: Any) -> Any:
    """Return a value as JSON has it: without nan and inf."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
