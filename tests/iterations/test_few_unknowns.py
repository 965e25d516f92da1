"""Small equations as one linear system: against Kronecker products, and when the answer is reliable."""

import numpy as np
import pytest

from matrices import DTYPES, adjoint, gaussian
from matsign import solve_continuous_lyapunov, solve_discrete_lyapunov, solve_sylvester
from matsign.backends import load
from matsign.direct import bartels_stewart, schur_functions
from matsign.iterations import few_unknowns

NUMPY = load("numpy")
EPS = {dtype: float(np.finfo(dtype).eps) for dtype in DTYPES}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (3, 2), (4, 4), (5, 5)])
def test_sylvester(shape, dtype, rng):
    n, m = shape
    a, b, q = (gaussian(rng, 3, *size, dtype=dtype) for size in ((n, n), (m, m), (n, m)))
    x, least = few_unknowns.sylvester(NUMPY, a, b, q)
    for k in range(3):
        system = np.kron(a[k], np.eye(m)) + np.kron(np.eye(n), b[k].T)
        smallest = np.linalg.svd(system, compute_uv=False)[-1]
        exact = np.linalg.solve(system.astype("complex128"), q[k].ravel()).reshape(n, m)
        np.testing.assert_allclose(x[k], exact, atol=1e3 * EPS[dtype] * np.abs(exact).max() / min(smallest, 1))
        assert least[k] > 0.99 * smallest


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6])
def test_lyapunov_and_stein(n, symmetric, rng):
    a, q, d = gaussian(rng, 3, n, n), gaussian(rng, 3, n, n), np.array([1.0, 0.5, 2.0])
    q = q + q.mT if symmetric else q
    x, least = few_unknowns.lyapunov(NUMPY, a, q, symmetric=symmetric)
    y, least_of_stein = few_unknowns.stein(NUMPY, a, q, d, symmetric=symmetric)
    one = np.eye(n)
    for k in range(3):
        pairs = (
            (np.kron(a[k], one) + np.kron(one, a[k]), x[k], least[k]),
            (d[k] * np.eye(n * n) - np.kron(a[k], a[k]), y[k], least_of_stein[k]),
        )
        for system, found, bound in pairs:
            np.testing.assert_allclose(
                found, np.linalg.solve(system, q[k].ravel()).reshape(n, n), rtol=1e-9, atol=1e-11
            )
            assert bound > 0.99 * np.linalg.svd(system, compute_uv=False)[-1]
    if symmetric:
        np.testing.assert_array_equal(x, x.mT)


def test_how_many_are_few():
    assert few_unknowns.has_few_unknowns(NUMPY, np.ones((1, 5, 5)))
    assert not few_unknowns.has_few_unknowns(NUMPY, np.ones((1, 6, 6)))
    assert few_unknowns.has_few_unknowns(NUMPY, np.ones((1, 6, 6)), symmetric=True)
    assert not few_unknowns.has_few_unknowns(NUMPY, np.ones((1, 4, 4), "complex128"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ordinary_equations_are_solved_so(dtype, monkeypatch, rng):
    """Without the sum and without a Schur form."""
    for module in (bartels_stewart, schur_functions):
        monkeypatch.setattr(module.lapack, "schur", None)
    monkeypatch.setattr("matsign.iterations.smith.cayley", None)
    monkeypatch.setattr("matsign.equations.lyapunov.methods.smith", None)
    monkeypatch.setattr("matsign.iterations.separating_line.solve_by_doubling", None)
    a, q = gaussian(rng, 20, 4, 4, dtype=dtype) - 8 * np.eye(4, dtype=dtype), gaussian(rng, 20, 4, 4, dtype=dtype)
    for right in (q + q.mT, q):
        x = solve_continuous_lyapunov(a, right)
        np.testing.assert_allclose(a @ x + x @ a.mT, right, atol=100 * EPS[dtype])
        y = solve_discrete_lyapunov(a / 20, right)
        np.testing.assert_allclose(y - a / 20 @ y @ a.mT / 20, right, atol=100 * EPS[dtype])
    z = solve_sylvester(a, a[::-1], q)
    np.testing.assert_allclose(a @ z + z @ a[::-1], q, atol=100 * EPS[dtype])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_not_relied_on(dtype, rng):
    a = np.stack([np.diag([1.0, -1.0]), np.diag([1.0, 1e-9]), np.eye(2), 1e12 * np.eye(2)]).astype(dtype)
    q = np.ones((4, 2, 2), dtype)
    with NUMPY.full_precision(a):
        found = few_unknowns.lyapunov(NUMPY, a, q, symmetric=True)
    size = 2 * NUMPY.norm(a)
    fine = few_unknowns.reliable(NUMPY, found, size, q, -(a @ found.x), -(found.x @ adjoint(a)))
    np.testing.assert_array_equal(fine, [False, dtype == "float64", True, dtype == "float64"])
    wrong = found._replace(x=found.x * (1 + 64 * EPS[dtype]))
    fine = few_unknowns.reliable(NUMPY, wrong, size, q, -(a @ wrong.x), -(wrong.x @ adjoint(a)))
    assert not fine.any()
