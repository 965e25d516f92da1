"""Gramians: definite to the last bits, accurate where the factor or the solution of the equation is not, unstable systems."""

import numpy as np
import pytest

import truth
from matrices import DTYPES, contraction, gaussian, stable
from matsign import SpectrumError, certify, discrete_gramian, gramian

EPS = {"float32": 1.2e-7, "float64": 2.3e-16, "complex64": 1.2e-7, "complex128": 2.3e-16}
KINDS = {
    "continuous": (gramian, truth.gramian, lambda rng, n, dtype: -stable(rng, n, dtype)),
    "discrete": (discrete_gramian, truth.discrete_gramian, contraction),
}
both = pytest.mark.parametrize("kind", KINDS)


@both
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "m"), [(1, 3), (8, 1), (70, 2)])
def test_semidefinite_hermitian_and_accurate(kind, dtype, n, m, eager, rng):
    f, _, make = KINDS[kind]
    x, certificate = eager(certify(f), make(rng, n, dtype), gaussian(rng, n, m, dtype=dtype))
    assert np.array_equal(x, x.conj().T)
    values = np.linalg.eigvalsh(x.astype(complex))
    assert values[0] > -16 * EPS[dtype] * values[-1]
    assert certificate.backward_error < 20 * EPS[dtype]


def test_a_mode_near_the_axis_that_b_does_not_reach(eager):
    """Rounding errors in this mode, the difference of the states, grow by 1e12."""
    a, b = -np.ones((2, 2)) - 2.0**-39 * np.eye(2), np.ones((2, 1))
    x, certificate = eager(certify(gramian), a, b)
    assert truth.error(x, truth.gramian(a, b)) < 1e-14
    assert certificate.forward_error < 1e-14


@both
def test_states_in_other_units(kind, eager, rng):
    f, exact, make = KINDS[kind]
    a, b, units = make(rng, 4, "float64"), gaussian(rng, 4, 1), 2.0 ** np.array([0, 200, -300, 100])
    a, b = a * units[:, None] / units, b * units[:, None]
    x, certificate = eager(certify(f), a, b)
    expected = exact(a, b)
    for k, y in np.ndenumerate(x):
        assert abs(y - expected[k]) < 1e-12 * abs(expected[k[0], k[0]] * expected[k[1], k[1]]) ** 0.5
    assert certificate.forward_error < 1e-12


@both
def test_what_is_not_stable_is_an_error(kind, eager, rng):
    f, _, make = KINDS[kind]
    a, b = np.stack([make(rng, 3, "float64"), 2 * np.eye(3)]), gaussian(rng, 3, 1)
    with pytest.raises(SpectrumError, match="batch members 1: a is not stable, so the integral"):
        eager(f, a, b)
    x = eager(f, a, b, errors="nan")
    assert np.isnan(x[1]).all()
    assert np.array_equal(x[0], eager(f, a[0], b))
