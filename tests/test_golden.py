"""Every kernel on every instruction set against high-precision results, in ULP.

The bounds are the numerics contract's, from ``tests/kernels.py``; ``tests/ulp.py`` says what a ULP
is.
"""

import inspect

import numpy as np
import pytest

from klce import _ufuncs
from klce.reference import KERNELS
from tests.golden import calls, load
from tests.kernels import RELATIVE, bounds_of_output, by_output, call, has_divergence, on_isa
from tests.ulp import ulp_error

pytestmark = pytest.mark.matrix


def test_golden_data_covers_every_kernel():
    assert {case.kernel for case in load()} == set(_ufuncs.OPS)


def call_as_specified(kernel, given):
    """Call a kernel; what only an output's size tells it goes there."""
    if kernel == "score":
        own = [given.arguments[k] for k in given.arguments if k not in ("candidates", "top_k")]
        result = call(kernel, (*own, np.empty(0, np.int64)))
    else:
        result = call(kernel, given.args)
    return result if len(result) > 1 else result[0]


def wrong(case, actual):
    """Say what is wrong with the results for a case, if anything is."""
    hi, lo = case.expected_hi, case.expected_lo
    if has_divergence(case.kernel):
        finite = np.isfinite(hi)
        if not np.array_equal(actual[~finite], hi[~finite].astype(actual.dtype), equal_nan=True):
            return f"{actual[~finite]}, not {hi[~finite]}"
        error = np.abs((actual[finite].astype(np.float64) - hi[finite]) - lo[finite])
        # Below 1e-12 the bound is absolute.
        size = np.maximum(np.abs(hi[finite]), 1e-12)
        if case.scale is not None:
            # The terms of a plain sum differ in sign and cancel: rounding one moves the sum by a
            # part of it, so the bound is relative to the sum of their sizes.
            size = np.maximum(size, case.scale[finite])
        bound = RELATIVE[case.dtype == np.float64] * size
        worst = float(np.max(error / bound, initial=0))
        return None if worst <= 1 else f"{worst:.3f} of the bound"
    else:
        error = ulp_error(actual, hi, lo, case.dtype, case.scale)
        worst = float(np.max(error, initial=0))
        bound = bounds_of_output(case.kernel, case.output)[case.dtype == np.float64]
        # A correctly rounded result is within half a ULP, so a bound of n allows n + 1/2.
        right = worst <= bound + 0.5 if bound == 0 else worst <= bound
        return None if right else f"{worst:.3f} ULP"


@pytest.mark.parametrize("isa", _ufuncs.available_isas())
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kernel", sorted(_ufuncs.OPS))
def test_golden(kernel, dtype, isa):
    errors = {}
    for cases in calls(kernel, np.dtype(dtype)):
        # The specification's defaults stand for the parameters that a case leaves out.
        given = inspect.signature(KERNELS[kernel]).bind(*cases[0].inputs, **cases[0].params)
        given.apply_defaults()
        with on_isa(isa):
            result = by_output(kernel, call_as_specified(kernel, given))
        errors |= {case.id: error for case in cases if (error := wrong(case, case.pick(result)))}
    assert not errors
