"""Balancing: powers of two that undo a bad choice of units, and no change of balanced matrices."""

import numpy as np
import pytest

from matrices import gaussian
from matsign import backends
from matsign.linalg import balancing


def test_a_matrix_in_alike_units_is_left_alone(on, rng):
    backend = backends.load(on.name)
    assert not np.asarray(balancing.balancing_exponents(backend, on.array(gaussian(rng, 3, 6, 6)))).any()


def test_units_are_found_by_member(on, rng):
    backend = backends.load(on.name)
    a = gaussian(rng, 3, 6, 6)
    units = 2.0 ** rng.integers(-30, 30, 6)
    a[1] = units[:, None] * a[1] / units
    e = on.in_one_program(lambda a: balancing.balancing_exponents(backend, a), a)
    assert np.asarray(e)[1].any()
    assert not np.asarray(e)[[0, 2]].any()
    balanced = np.asarray(balancing.rescale(backend, on.array(a), e))
    assert np.abs(balanced[1]).max() < 100
    assert not np.asarray(balancing.is_unbalanced(backend, on.array(balanced))).any()
    back = 2.0 ** np.asarray(e)[1]
    np.testing.assert_array_equal(back[:, None] * balanced[1] / back, a[1])


def test_zero_rows_and_columns_are_no_reason_to_balance(on):
    backend = backends.load(on.name)
    a = np.array([[[0.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    same = on.in_one_program(lambda a: balancing.rescale(backend, a, balancing.balancing_exponents(backend, a)), a)
    np.testing.assert_array_equal(same, a)


HARD = {
    "corner": np.array([[1, 1e9], [0, -1.0]]),
    "far corner": np.array([[1, 1.7e308], [0, -1.0]]),
    "lower corner": np.array([[1, 0], [1e20, -2.0]]),
    "graded": np.array([[3, 1e9], [1e-9, -3]]),
    "blocks": np.array([[1, 2, 1e100, 0], [3, -1, 0, 1e90], [0, 0, 2, 1], [0, 0, 1, -3.0]]),
    "permuted": np.array([[-1, 0, 1e30], [1e40, 2, 1e50], [0, 0, 3.0]]),
    "long chain": np.diag([1.0, -1.0] * 10) + 1e3 * np.eye(20, k=1),
    "long cycle": np.diag([1.0, -1.0] * 10) + 1e3 * np.eye(20, k=1) + 1e-4 * np.eye(20, k=-1),
}


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("size", [1.0, 1e-100])
def test_units_of_coupled_blocks(name, size, eager):
    check_units(name, size, eager)


@pytest.mark.parametrize(
    ("name", "size"), [("far corner", 1.0), ("graded", 1e-100), ("blocks", 1.0), ("blocks", 1e-100)]
)
def test_units_of_coupled_blocks_in_jax(name, size, in_jax):
    check_units(name, size, in_jax)


def check_units(name, size, on):
    backend = backends.load(on.name)
    m = size * HARD[name]
    b, e, k, reached = (np.asarray(x) for x in on.in_one_program(lambda m: balancing.balance(backend, m), m[None]))
    assert 0.5 <= np.abs(b).max() < 1
    assert np.linalg.cond(b[0]) < (1e7 if len(m) == 20 else 1e3)
    with np.errstate(under="ignore"):
        back = np.ldexp(b[0], e[0][:, None] - e[0][None, :] + k[0])
    np.testing.assert_array_equal(back, m)
    powers = np.linalg.matrix_power((m != 0) + np.eye(len(m)), len(m))
    np.testing.assert_array_equal(reached[0], powers > 0)


def test_units_of_alike_rows_and_columns_are_left_alone(on, rng):
    backend = backends.load(on.name)
    for a in (gaussian(rng, 3, 6, 6), np.stack([np.eye(3, k=1), np.zeros((3, 3)), np.eye(3)])):
        e = on.in_one_program(lambda a: balancing.balance(backend, a).e, a)
        assert e is None or not np.asarray(e).any()


def test_no_cycle_no_units(rng):
    """A nilpotent pattern has no cycle, so its entries could be made arbitrarily small: e must be 0."""
    a = np.triu(10.0 ** rng.uniform(-9, 9, (6, 6)), 1)
    weight = np.where(a > 0, np.frexp(a)[1], -np.inf)
    assert not balancing.potentials(weight).any()
