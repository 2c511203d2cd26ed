"""Numbers of summaries, which may be infinite or nan."""

import math
from typing import Any


def finite_or_none(value: Any) -> Any:
    """Return a value as JSON has it: without nan and inf."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
