"""Both extremal solutions from one sign: their order, their difference, and members that lack one of them."""

import itertools

import numpy as np
import pytest
import scipy.linalg as sl

import matsign
from carex import cases
from matrices import definite, gaussian
from matsign import SpectrumError, extremal_solutions, solve_continuous_are


def plant(rng, n=4, m=2):
    return gaussian(rng, n, n), gaussian(rng, n, m), definite(rng, n), definite(rng, m)


def test_every_solution_lies_between(rng):
    """Every choice of n = 2 eigenvectors of the Hamiltonian matrix that gives a real solution."""
    a, b, q, r = plant(rng, 2)
    largest, least = extremal_solutions(a, b, q, r)
    _, v = np.linalg.eig(np.block([[a, -b @ np.linalg.solve(r, b.T)], [-q, -a.T]]))
    count = 0
    for pair in itertools.combinations(range(4), 2):
        x = v[2:, pair] @ np.linalg.inv(v[:2, pair])
        if max(abs(np.imag(x)).max(), abs(x - x.T).max()) < 1e-9 * abs(x).max():
            count += 1
            assert np.linalg.eigvalsh(largest - x.real)[0] > -1e-9
            assert np.linalg.eigvalsh(x.real - least)[0] > -1e-9
    assert count >= 2


def test_the_difference_is_an_inverse_gramian(rng):
    a, b, q, r = plant(rng)
    largest, least = extremal_solutions(a, b, q, r)
    g = b @ np.linalg.solve(r, b.T)
    loop = a - g @ largest
    assert np.linalg.norm((largest - least) @ sl.solve_continuous_lyapunov(loop, -g) - np.eye(4)) < 1e-10


@pytest.mark.parametrize(
    "name", ["CAREX 3", "CAREX 5", "CAREX 11, ε = 0.0001", "CAREX 13, ε = 1e-06", "CAREX 17, n = 5"]
)
def test_benchmarks(name):
    """Also nearly on the boundary (11), badly scaled (13), and where the sign is inaccurate (17)."""
    case = next(c for c in cases() if c.name == name)
    (largest, least), certificate = matsign.certify(extremal_solutions)(*case.plant)
    assert case.error(largest) < 1e-14
    assert case.residual(least) < 1e-15
    assert case.poles(largest).real.max() < 0 < case.poles(least).real.min()
    assert certificate.converged


def test_a_member_without_one_of_them():
    a = np.stack([np.diag([1.0, 2.0]), np.diag([1.0, -2.0]), np.diag([1.0, 2.0])])
    b = np.stack([np.eye(2), np.diag([1.0, 0.0]), np.diag([1.0, 0.0])])
    arguments = (a, b, np.eye(2), np.eye(2))
    with pytest.raises(SpectrumError) as caught:
        extremal_solutions(*arguments)
    first, second = str(caught.value).splitlines()
    assert "batch members 2: the pair (a, b) is not stabilisable: no input moves the eigenvalue 2" in first
    assert "batch members 1: the pair (a, b) has no anti-stabilising gain: no input moves the eigenvalue -2" in second
    largest, least = extremal_solutions(*arguments, errors="nan")
    assert np.isnan(largest[1:]).all()
    assert np.isnan(least[1:]).all()
    assert np.array_equal(largest[0], extremal_solutions(a[0], b[0], np.eye(2), np.eye(2))[0])
    assert np.allclose(least[0], solve_continuous_are(a[0], b[0], np.eye(2), np.eye(2), half_plane="right"))
