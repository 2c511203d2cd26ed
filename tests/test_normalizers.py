"""Log-sum-exp, softmax and log-softmax against their specification: any shape and option."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import klce
from klce import reference
from tests.functions import FLOATS, SPECIAL, TEMPERATURES, arrays, close, masks
from tests.kernels import ISAS, on_isa, same_bits


@given(arrays(SPECIAL, min_side=0), st.booleans())
def test_logsumexp(given_array, keepdims):
    x, axis = given_array
    result = klce.logsumexp(x, axis, keepdims=keepdims)
    assert result.dtype == x.dtype
    close(
        result, reference.logsumexp(x, axis, keepdims=keepdims), x.dtype, 1e9 if -1e9 in x else 60
    )


@given(arrays(SPECIAL), TEMPERATURES)
def test_maps(given_array, temperature):
    x, axis = given_array
    before = x.copy()
    for name in ("softmax", "log_softmax"):
        result = getattr(klce, name)(x, axis, temperature=temperature)
        assert (result.dtype, result.shape) == (x.dtype, x.shape)
        close(result, getattr(reference, name)(x, axis, temperature=temperature), x.dtype)
        assert same_bits(x, before)
        # In place, and in the layout of x.
        for order in "CF":
            y = np.array(x, order=order)
            assert getattr(klce, name)(y, axis, temperature=temperature, out=y) is y
            assert same_bits(y, result)


@given(arrays((-np.inf, np.nan), min_side=0), st.booleans(), st.data())
def test_logsumexp_with_factors(given_array, signed, data):
    x, axis = given_array
    factors = st.one_of(st.floats(0.125, 8, width=32), st.floats(-8, -0.125, width=32))
    elements = st.one_of(factors, st.just(0.0)) if data.draw(st.booleans()) else factors
    some = x.shape if data.draw(st.booleans()) else x.shape[-1:]
    b = data.draw(hnp.arrays(data.draw(st.sampled_from(FLOATS)), some, elements=elements))
    options = {"axis": axis, "b": b, "where": masks(data, x.shape)}
    log, sign = klce.logsumexp(x, return_sign=True, **options)
    expected, expected_sign = reference.logsumexp(x, return_sign=True, **options)
    assert log.dtype == sign.dtype == np.result_type(x, b)
    # Where terms cancel so does the sum: the tests of the kernels say by how much.
    whole = reference.logsumexp(x, axis, b=np.abs(b), where=options["where"])
    with np.errstate(invalid="ignore"):
        kept = ~(expected < whole - 3)
    np.testing.assert_array_equal(sign[kept], expected_sign[kept])
    close(log[kept], expected[kept], log.dtype, 200)
    if not signed:
        unsigned = klce.logsumexp(x, **options)
        assert same_bits(unsigned, np.where(sign < 0, np.nan, log).astype(log.dtype))


@pytest.mark.parametrize("name", ["logsumexp", "softmax", "log_softmax"])
def test_dtype_option(name):
    f, normal = getattr(klce, name), np.random.default_rng(5).normal(size=(4, 6))
    for source, wanted in itertools.product(FLOATS, FLOATS):
        x = normal.astype(source)
        result = f(x, dtype=wanted)
        assert result.dtype == wanted
        assert same_bits(result, f(x.astype(wanted)))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n", [2, 700])
def test_what_terms_of_both_signs_leave_keeps_its_digits(n, isa):
    """exp(a) (1 - b), and terms that are nothing beside it, before and behind the largest."""
    for a, b in itertools.product((-1e4, 1e-3, 10.0, 1e4), (0.9, 0.999, 0.999999, -0.5)):
        for first, second in ((1, -b), (-b, 1)):
            x, factors = np.full(n, a - 2000), np.ones(n)
            x[0] = x[-1] = a
            factors[0], factors[-1] = first, second
            with on_isa(isa):
                found, sign = klce.logsumexp(x, b=factors, return_sign=True)
            expected = float(a + np.log1p(-np.longdouble(b)))
            places = np.spacing(max(abs(a), abs(expected)))
            np.testing.assert_allclose(found, expected, rtol=0, atol=4 * places)
            assert sign == 1
