"""Both extremal solutions: their order, their difference, and members that lack one of them."""

import itertools

import numpy as np
import pytest
import scipy.linalg as sl

import darex
import matsign
import truth
from carex import cases
from matrices import definite, gaussian
from matsign import (
    SpectrumError,
    discrete_extremal_solutions,
    extremal_solutions,
    solve_continuous_are,
    solve_discrete_are,
)


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


def test_every_solution_lies_between_in_discrete_time(rng):
    a, b, q, r = plant(rng, 2)
    g, one, zero = b @ np.linalg.solve(r, b.T), np.eye(2), np.zeros((2, 2))
    largest, least = discrete_extremal_solutions(a, b, q, r)
    _, v = sl.eig(np.block([[a, zero], [-q, one]]), np.block([[one, g], [zero, a.T]]))
    count = 0
    for pair in itertools.combinations(range(4), 2):
        x = v[2:, pair] @ np.linalg.inv(v[:2, pair])
        if max(abs(np.imag(x)).max(), abs(x - x.conj().T).max()) < 1e-9 * abs(x).max():
            count += 1
            assert np.linalg.eigvalsh(largest - x.real)[0] > -1e-9
            assert np.linalg.eigvalsh(x.real - least)[0] > -1e-9
    assert count >= 2


@pytest.mark.parametrize("name", ["DAREX 2, ρ = 1e+08", "DAREX 6", "DAREX 7", "DAREX 8", "DAREX 9"])
def test_discrete_benchmarks(name):
    case = next(c for c in darex.cases() if c.name == name)
    both = discrete_extremal_solutions(*case.plant)
    for x, side in zip(both, (-1, 1), strict=True):
        assert truth.error(x, truth.discrete_are(*without_none(*case.plant), side)) < 1e-14


def without_none(a, b, q, r, e, s):
    return a, b, q, r, np.eye(len(a)) if e is None else e, np.zeros_like(b) if s is None else s


def test_weights_far_apart():
    """The problem with time reversed mixes q and r; in decimal arithmetic it does not matter."""
    a, b, q, r = (np.array([[x]]) for x in (0.9, 10.0, 1e10, 0.1))
    (_, least), certificate = matsign.certify(discrete_extremal_solutions)(a, b, q, r)
    exact = truth.discrete_are(*without_none(a, b, q, r, None, None), 1)
    assert truth.error(least, exact) < 1e-15
    assert certificate.forward_error < 1e-13


@pytest.mark.parametrize("singular", ["a", "r"])
def test_discrete_member_without_the_second(singular):
    a = np.stack([np.diag([3.0, 2.0]), np.diag([0.0 if singular == "a" else 4.0, 2.0])])
    r = np.stack([np.eye(2), np.diag([0.0 if singular == "r" else 1.0, 1.0])])
    with pytest.raises(SpectrumError, match="the closed loop of every solution has the eigenvalue 0") as caught:
        discrete_extremal_solutions(a, np.eye(2), np.eye(2), r)
    assert "batch members 1" in str(caught.value)
    largest, least = discrete_extremal_solutions(a, np.eye(2), np.eye(2), r, errors="nan")
    assert np.isnan(largest[1]).all()
    assert np.isnan(least[1]).all()
    assert np.allclose(least[0], solve_discrete_are(a[0], np.eye(2), np.eye(2), r[0], circle="outside"))
