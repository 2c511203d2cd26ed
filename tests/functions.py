"""What the tests of the public functions share: their kinds, arrays of any shape, closeness."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.ulp import ulp_error

# The functions that have no axis.
ELEMENTWISE = ("information", "binary_entropy", "rel_entr")
FLOATS = [np.float32, np.float64]
TEMPERATURES = st.sampled_from([1.0, 0.5, 0.7, 3.0])
SPECIAL = (-np.inf, np.inf, np.nan, -1e9)


def close(actual, expected, dtype, size=0.0):
    """Within 10 ULP of the result, or of the size at which its terms cancel.

    The bounds proper are those of tests/test_kernels.py; base, sums and means come on top here.
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    error = ulp_error(actual, expected, 0, dtype, np.full(expected.shape, size))
    assert error.max(initial=0) <= 10, (actual, expected)


@st.composite
def arrays(draw, special=(), low=-60.0, high=60.0, min_side=1):
    """An array of either dtype, of values that both hold, and one of its axes."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=min_side, max_side=9))
    values = st.floats(low, high, width=32)
    if special:
        values = st.one_of(values, values, values, st.sampled_from(special))
    x = draw(hnp.arrays(draw(st.sampled_from(FLOATS)), shape, elements=values))
    return x, draw(st.integers(-x.ndim, x.ndim - 1))


def masks(data, shape):
    """A mask of elements, of some axes alone, or none."""
    some = tuple(n if data.draw(st.booleans()) else 1 for n in shape)
    return data.draw(st.one_of(st.none(), hnp.arrays(bool, some)))
