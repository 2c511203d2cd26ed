"""Names for annotations.  Type checkers alone import them: at run time they would cost time.

So a module has what only its annotations name under ``if TYPE_CHECKING:``.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

__all__ = [
    "Array",
    "ArrayLike",
    "Axes",
    "Axis",
    "BinaryForm",
    "DType",
    "DTypeLike",
    "DivergenceReduction",
    "Form",
    "Labels",
    "Mask",
    "Reduction",
]

#: What holds numbers, of any dtype.
Array = NDArray[Any]
DType = np.dtype[Any]
#: ``where=``: of classes, or of rows.
Mask = NDArray[np.bool_]
#: Class indices as the kernels take them.
Labels = NDArray[np.int64]

#: What a distribution is given as.
Form = Literal["probs", "log_probs", "logits"]
#: The same of binary outcomes.
BinaryForm = Literal["probs", "logits"]
#: ``reduction=`` of losses.
Reduction = Literal["none", "mean", "sum"]
#: ``reduction=`` of divergences.
DivergenceReduction = Literal["none", "mean", "batchmean", "sum"]
#: ``axis=`` where it may name several.
Axis = int | tuple[int, ...] | None
#: Axes once checked, counted from the end.
Axes = tuple[int, ...]
