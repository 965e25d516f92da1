"""CAREX and DAREX, the benchmark collections for Riccati equations, with their parameters: residual, error, certificate."""

import functools
import warnings

import numpy as np
import pytest
import scipy.linalg as sl

import carex
import darex
import matsign

CASES = [*carex.cases(), *darex.cases()]
LARGE = 200  # cases of this size or more are solved only once, without a certificate
METHODS = ("doubling", "sign", "qz")
BOUNDARY = "CAREX 11, ε = 0"

every_case = pytest.mark.parametrize("case", [c for c in CASES if len(c.a) < LARGE], ids=lambda c: c.name)
every_large_case = pytest.mark.parametrize("case", [c for c in CASES if len(c.a) >= LARGE], ids=lambda c: c.name)


def solver(case):
    return matsign.solve_discrete_are if case.discrete else matsign.solve_continuous_are


@functools.cache
def _certified(k, method):
    return matsign.certify(solver(CASES[k]))(*CASES[k].plant, method=method, errors="nan")


def certified(case, method="auto"):
    return _certified([c.name for c in CASES].index(case.name), method)


def by_scipy(case):
    solve = sl.solve_discrete_are if case.discrete else sl.solve_continuous_are
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return solve(*case.plant)
        except np.linalg.LinAlgError:
            return np.full_like(case.a, np.nan)


def moved(case, x, rng):
    """The change of the solution under rounding of the data: its differential for changes of each entry by up to eps/2."""

    def change(m):
        return 0 * m if m is None else rng.uniform(-1, 1, m.shape) * np.finfo(float).epsneg * abs(m)

    a, b, q, r, s = (
        change(m) for m in (case.a, case.b, case.q, case.r, np.zeros_like(case.b) if case.s is None else case.s)
    )
    k = case.gain(x)[0]
    closed, closed_change = case.a - case.b @ k, a - b @ k
    price = q - s @ k - (s @ k).T + k.T @ r @ k
    if case.discrete:
        right = closed.T @ x @ closed_change
        dx = sl.solve_discrete_lyapunov(closed.T, (right + right.T) + (price + price.T) / 2)
    else:
        right = x @ closed_change
        dx = sl.solve_continuous_lyapunov(closed.T, -(right + right.T + (price + price.T) / 2))
    return np.linalg.norm(dx) / np.linalg.norm(x)


def test_both_collections_are_whole():
    numbers = {int(case.name.split(",")[0].split()[1]) for case in CASES if not case.discrete}
    assert numbers == set(range(1, 21))
    numbers = {int(case.name.split(",")[0].split()[1]) for case in CASES if case.discrete}
    assert numbers == set(range(1, 16))


@every_case
def test_residual(case):
    """In CAREX 8 and in DAREX 4 with s, the exact solution, rounded, has the residuals 6e-11 and 6e-15."""
    x, certificate = certified(case)
    tol = 1e-15 if case.discrete else 1e-10 if case.name.startswith("CAREX 8,") else 1e-13
    tol = 1e-14 if case.name == "DAREX 4, with s" else tol
    assert certificate.converged
    assert case.residual(x) <= tol
    np.testing.assert_array_equal(x, x.T)


@every_case
def test_stabilising(case):
    x, certificate = certified(case)
    assert certificate.boundary == (case.name == BOUNDARY)
    if certificate.boundary:
        assert case.poles(x).real.max() < 1e-6
    else:
        assert case.stable(x)


@pytest.mark.slow
@every_large_case
def test_large(case):
    x = solver(case)(*case.plant)
    assert case.residual(x) <= 1e-13
    np.testing.assert_array_equal(x, x.T)
    assert case.stable(x)


@pytest.mark.filterwarnings("ignore:An ill-conditioned matrix")  # SciPy warns of graded matrices, too
@every_case
@pytest.mark.slow
def test_every_method(case):
    """Certificates, and an error within a factor of ten of the best of four solvers, or as rounding of the data allows."""
    for method in METHODS:
        check_certificate(case, method)
    x, _ = certified(case)
    best = min(
        case.error(y) for y in (by_scipy(case), *(certified(case, m)[0] for m in METHODS)) if np.isfinite(y).all()
    )
    data = max(moved(case, x, np.random.default_rng(seed)) for seed in range(3))
    assert case.error(x) <= max(1e-14, 10 * best, 10 * data)


@every_case
def test_certificate(case):
    check_certificate(case, "auto")


def check_certificate(case, method):
    """It reports every error above 1e-8, is at most 30 times too small, and is large only if rounding of the data matters."""
    x, certificate = certified(case, method)
    if not certificate.converged:
        return  # no answer
    error, estimate = case.error(x), certificate.forward_error
    assert estimate > 1e-8 or error <= 1e-8, method
    assert error <= max(30 * estimate, 3e-16), method
    if error < 1e-12:
        data = max(moved(case, x, np.random.default_rng(seed)) for seed in range(3)) if estimate > 1e-8 else 0
        assert estimate <= max(1e-8, 10 * data), method
