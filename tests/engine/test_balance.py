"""Balancing: units by powers of two that undo the caller's, and nothing where there is nothing to do."""

import numpy as np

from matrices import gaussian
from matsign import backends
from matsign.engine import balance


def test_a_matrix_in_alike_units_is_left_alone(on, rng):
    be = backends.load(on.name)
    assert not np.asarray(balance.exponents(be, on.array(gaussian(rng, 3, 6, 6)))).any()


def test_units_are_found_by_member(on, rng):
    be = backends.load(on.name)
    a = gaussian(rng, 3, 6, 6)
    units = 2.0 ** rng.integers(-30, 30, 6)
    a[1] = units[:, None] * a[1] / units
    e = balance.exponents(be, on.array(a))
    assert np.asarray(e)[1].any()
    assert not np.asarray(e)[[0, 2]].any()
    balanced = np.asarray(balance.rescale(be, on.array(a), e))
    assert np.abs(balanced[1]).max() < 100
    assert not np.asarray(balance.unbalanced(be, on.array(balanced))).any()
    back = 2.0 ** np.asarray(e)[1]
    np.testing.assert_array_equal(back[:, None] * balanced[1] / back, a[1])


def test_zero_rows_and_columns_are_no_reason_to_balance(on):
    be = backends.load(on.name)
    a = np.array([[[0.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    np.testing.assert_array_equal(balance.rescale(be, on.array(a), balance.exponents(be, on.array(a))), a)
