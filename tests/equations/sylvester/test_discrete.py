"""`solve_discrete_sylvester`, with discrete_sylvester in every name: against 80 digits, and equations without a solution."""

import numpy as np
import pytest
import scipy.linalg as sl

import truth
from matrices import gaussian
from matsign import SpectrumError, certify, solve_discrete_lyapunov, solve_discrete_sylvester
from matsign.backends import lapack
from matsign.direct import triangular_pairs


def residual(a, b, q, x):
    """Relative to what rounding of x alone leaves."""
    scale = np.linalg.norm(a) * np.linalg.norm(x) * np.linalg.norm(b) + np.linalg.norm(x) + np.linalg.norm(q)
    return np.linalg.norm(a @ x @ b - x + q) / scale


def by_cayley(a, b, q):
    """SciPy's shortest route: with u = (a - t I)⁻¹ and v = (t b - I)⁻¹, u x + x b v = -u q v."""
    u, v = np.linalg.inv(a - 0.777 * np.eye(len(a))), np.linalg.inv(0.777 * b - np.eye(len(b)))
    return sl.solve_sylvester(u, b @ v, -u @ q @ v)


def radius(a):
    return abs(np.linalg.eigvals(a)).max()


def hard(rng, n=6, m=4):
    """Pairs of matrices by name."""
    a, b = gaussian(rng, n, n), gaussian(rng, m, m)
    jordan = 0.9 * np.eye(n) + np.diag(np.ones(n - 1), 1)
    grades_n, grades_m = 10.0 ** np.arange(n), 10.0 ** -np.arange(m)
    return {
        "mixed": (a, b),
        "inside": (0.9 * a / radius(a), 0.99 * b / radius(b)),
        "outside": (1.5 * np.linalg.inv(a) * radius(a), np.linalg.inv(b) * radius(b)),
        "one of them large": (1e-3 * a / radius(a), 900 * b / radius(b)),
        "a Jordan block": (jordan, 0.5 * jordan[:m, :m]),
        "eigenvalues at 1 and -1": (np.diag([1.0, -1, 1, -1, 0.5, 2]) + np.triu(a, 1), np.diag([-1.01, 3, 0, 7])),
        "other units": (grades_n[:, None] * a / grades_n, grades_m[:, None] * b / grades_m),
        "graded": (grades_n[:, None] * a, grades_m[:, None] * b),
        "singular a": (a * (np.arange(n) > 1), b),
        "a rotation": (sl.qr(a)[0], 1.1 * sl.qr(b)[0]),
        "not normal": (np.triu(a, 1) * 100 + 0.5 * np.eye(n), np.triu(b, 1) * 100 + 0.9 * np.eye(m)),
    }


@pytest.mark.parametrize("method", ["auto", "schur"])
def test_discrete_sylvester_is_as_accurate_as_rounding_allows(method, rng):
    for name, (a, b) in hard(rng).items():
        q = gaussian(rng, len(a), len(b))
        x, certificate = certify(solve_discrete_sylvester)(a, b, q, method=method)
        exact = truth.discrete_sylvester(a, b, q)
        error = float(truth.error(x, exact))
        assert residual(a, b, q, x) < 1e-15, name
        kronecker = np.linalg.solve(np.eye(q.size) - np.kron(a, b.T), q.ravel()).reshape(q.shape)
        best = min(float(truth.error(y, exact)) for y in (kronecker, by_cayley(a, b, q)))
        assert error < 10 * best + 1e-15, (name, error, best)
        assert error < 4 * certificate.forward_error + 1e-15, (name, error, certificate.forward_error)


def test_discrete_sylvester_takes_schur_forms_only_where_products_lie_on_both_sides(rng):
    pairs = hard(rng)
    steps = {k: int(certify(solve_discrete_sylvester)(*pairs[k], np.ones((6, 4)))[1].iterations) for k in pairs}
    # 24 unknowns are one linear system.
    assert not any(steps.values())
    a, b = gaussian(rng, 2, 12, 12)
    for scale, sums in ((0.9, True), (1.0, False), (1e3, True)):
        f = 1 / radius(b) if scale < 1 else 1.0
        arguments = (scale * a / radius(a) if scale < 1 else scale * a, f * b, np.ones((12, 12)))
        x, certificate = certify(solve_discrete_sylvester)(*arguments)
        assert (certificate.iterations > 0) == sums
        assert residual(*arguments, x) < 1e-15


def test_discrete_sylvester_that_is_singular_reports_its_separation(on, rng):
    v, w = gaussian(rng, 4, 4), gaussian(rng, 3, 3)
    values, others = np.array([2.0, 3.0, 0.5, 1.0]), np.array([0.25, 1 / 3, 7.0])
    a, b = (x @ np.diag(d) @ np.linalg.inv(x) for x, d in ((v, values), (w, others)))
    with pytest.raises(SpectrumError, match=r"an eigenvalue of a times one of b is 1.*at most [0-9.]+e-1[4-8]"):
        on(solve_discrete_sylvester, a, b, np.ones((4, 3)))
    fine = 0.1 * b
    out = on(solve_discrete_sylvester, np.stack([a, a]), np.stack([b, fine]), np.ones((2, 4, 3)), errors="nan")
    assert np.isnan(out[0]).all()
    assert residual(a, fine, np.ones((4, 3)), out[1]) < 1e-15


def test_discrete_sylvester_of_long_jordan_chains_is_singular_though_no_product_is_near_one():
    n = 40
    a = 0.5 * np.eye(n) + 20 * np.diag(np.ones(n - 1), 1)
    for method in ("auto", "schur", "doubling"):
        with pytest.raises(SpectrumError, match=r"separation|did not converge"):
            solve_discrete_sylvester(a, a, np.ones((n, n)), method=method)


def test_discrete_sylvester_of_any_size(rng):
    a, b, q = gaussian(rng, 7, 7), gaussian(rng, 7, 7), gaussian(rng, 7, 7)
    x = solve_discrete_sylvester(a, b, q)
    for s in (1e100, 1e-100, 1e200):
        for y in (solve_discrete_sylvester(a * s, b / s, q), solve_discrete_sylvester(a, b, q * s) / s):
            assert np.linalg.norm(y - x) < 1e-11 * np.linalg.norm(x)
        big = solve_discrete_sylvester(a * s, b, q)
        assert np.linalg.norm(s * (a @ big @ b) + q) < 1e-12 * np.linalg.norm(q) or s < 1


def test_discrete_sylvester_with_the_adjoint_is_stein(rng):
    a, q = gaussian(rng, 9, 9), gaussian(rng, 9, 9)
    np.testing.assert_allclose(solve_discrete_sylvester(a, a.T, q), solve_discrete_lyapunov(a, q), rtol=1e-10)


@pytest.mark.parametrize("dtype", ["float64", "complex128", "float32"])
def test_pairs_of_triangular_equations_for_discrete_sylvester(dtype, rng):
    """Blocks of size 2 at the middle, and both kinds of halving."""
    eps = np.finfo(dtype).eps
    for n, m in ((3, 70), (67, 40)):
        a, b, f = (gaussian(rng, *s, dtype=dtype) / 8 for s in ((n, n), (m, m), (n, m)))
        r, s = lapack.schur(a)[0], lapack.schur(b)[0]
        pair = triangular_pairs.discrete(r, s, 1.0)
        y, _ = pair.solve(0 * f, f)
        assert np.linalg.norm(y - r @ y @ s - f) < 20 * n * eps * np.linalg.norm(y)
        _, g = pair.adjoint_solve(f, 0 * f)
        assert np.linalg.norm(g - r.conj().T @ g @ s.conj().T - f) < 20 * n * eps * np.linalg.norm(g)
