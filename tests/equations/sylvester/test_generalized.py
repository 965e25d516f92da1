"""`solve_generalized_sylvester`, with generalized_sylvester in every name: against 80 digits; equations without a solution."""

import numpy as np
import pytest
import scipy.linalg as sl

import truth
from matrices import gaussian
from matsign import (
    SpectrumError,
    certify,
    solve_discrete_sylvester,
    solve_generalized_sylvester,
    solve_sylvester,
)


def residual(a, b, c, d, q, x):
    """Relative to what rounding of x alone leaves."""
    norm = np.linalg.norm
    return norm(a @ x @ b + c @ x @ d - q) / ((norm(a) * norm(b) + norm(c) * norm(d)) * norm(x) + norm(q))


def hard(rng, n=6, m=5):
    """Coefficients by name."""
    a, b, c, d = gaussian(rng, n, n), gaussian(rng, m, m), gaussian(rng, n, n), gaussian(rng, m, m)
    half_n, half_m = np.arange(n) < n // 2, np.arange(m) < m // 2
    jordan = np.eye(n) + np.diag(np.ones(n - 1), 1)
    return {
        "random": (a, b, c, d),
        "separable": (a + 9 * np.eye(n), b + 9 * np.eye(m), c + 9 * np.eye(n), d + 9 * np.eye(m)),
        "singular c": (a, b, c * half_n, d),
        "singular a and b": (a * half_n, b * half_m, c, d),
        "singular a and c": (a * half_n, b, c * (np.arange(n) > 0), d),
        "c with graded columns": (a, b, c * 10.0 ** -np.arange(0, 2 * n, 2), d),
        "b and d with small singular values": (a, b * 10.0 ** -np.arange(m), c, d),
        "Jordan blocks": (jordan, b, np.eye(n), d),
        "complex": (a + 1j * c, b, c, d - 1j * b),
        "one term": (a, b, 0 * c, d),
        "graded equations": tuple(10.0 ** -np.arange(0, 2 * len(x), 2)[:, None] * x for x in (a, b, c, d)),
    }


@pytest.mark.parametrize("method", ["auto", "standard", "qz"])
def test_generalized_sylvester_is_as_accurate_as_rounding_allows(method, rng):
    for name, (a, b, c, d) in hard(rng).items():
        q = gaussian(rng, len(a), len(b))
        x, certificate = certify(solve_generalized_sylvester)(a, b, c, d, q, method=method, errors="nan")
        if method == "standard" and np.isnan(x).any():
            continue
        exact = truth.generalized_sylvester(a, b, c, d, q)
        error = float(truth.error(x, exact))
        assert method == "standard" or residual(a, b, c, d, q, x) < 1e-15, name
        assert method == "standard" or certificate.backward_error < 2e-15, name
        system = np.kron(a, b.T) + np.kron(c, d.T)
        kronecker = np.linalg.solve(system, q.ravel()).reshape(q.shape)
        best = float(truth.error(kronecker, exact))
        assert method == "standard" or error < 10 * best + 4e-15, (name, error, best)
        assert error < 10 * certificate.forward_error + 1e-15, (name, error, certificate.forward_error)
        least = np.linalg.svd(system, compute_uv=False)[-1]
        assert name == "graded equations" or least * 0.99 < certificate.separation < 20 * least, (
            name,
            least,
            certificate.separation,
        )


def test_generalized_sylvester_contains_the_other_equations(rng):
    a, b, q = gaussian(rng, 9, 9), gaussian(rng, 7, 7), gaussian(rng, 9, 7)
    for x, y in (
        (solve_generalized_sylvester(a, np.eye(7), np.eye(9), b, q), solve_sylvester(a, b, q)),
        (solve_generalized_sylvester(a, b, -np.eye(9), np.eye(7), -q), solve_discrete_sylvester(a, b, q)),
    ):
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-10)


def test_generalized_sylvester_that_is_singular_reports_its_separation(on, rng):
    n, m = 4, 3
    u, v, w, z = (sl.qr(gaussian(rng, k, k))[0] for k in (n, n, m, m))
    # a - λ c has the eigenvalues 1, 2, 3, 4, and d + λ b has -0.3, 2, 7.
    a, c = u @ np.diag([1.0, 2, 3, 4]) @ v, u @ v
    b, d = w @ z, -w @ np.diag([-0.3, 2.0, 7]) @ z
    q = np.ones((n, m))
    with pytest.raises(SpectrumError, match=r"pencils .* share an eigenvalue.* is at most [0-9.]+e-1[5-8]"):
        on(solve_generalized_sylvester, a, b, c, d, q)
    fine = d + 0.01 * b
    out = on(solve_generalized_sylvester, np.stack([a, a]), np.stack([b, b]), c, np.stack([d, fine]), q, errors="nan")
    assert np.isnan(out[0]).all()
    assert residual(a, b, c, fine, q, out[1]) < 1e-15
    singular_pencil = a * [0, 1, 1, 1], b, c * [0, 1, 1, 1], d
    for method in ("auto", "qz", "standard"):
        with pytest.raises(SpectrumError, match=r"singular to working precision"):
            solve_generalized_sylvester(*singular_pencil, q, method=method)


def test_generalized_sylvester_of_any_size(rng):
    a, b, c, d, q = (gaussian(rng, 7, 7) for _ in range(5))
    x = solve_generalized_sylvester(a, b, c, d, q)
    for s in (1e100, 1e-100, 1e250):
        for arguments, back in (
            ((a * s, b, c * s, d, q * s), 1),
            ((a * s, b / s, c, d, q), 1),
            ((a, b, c, d, q * s), s),
            ((a, b * s, c * s, d, q), 1 / s),
        ):
            y = solve_generalized_sylvester(*arguments) / back
            assert np.linalg.norm(y - x) < 1e-11 * np.linalg.norm(x)


def test_generalized_sylvester_with_rows_and_columns_in_units_far_apart(eager, rng):
    """Entries from 1e-240 to 1e240: in one unit the least would underflow before the rows and columns get their own."""
    units = np.array([1e120, 1, 1e-120])
    others = np.roll(units, 1)
    a, b, c, d, q = gaussian(rng, 5, 3, 3)
    x = solve_generalized_sylvester(a, b, c, d, q)
    far = (units[:, None] * y * others for y in (a, b, c, d, q))
    found = others[:, None] * np.asarray(eager(solve_generalized_sylvester, *far)) * units
    np.testing.assert_allclose(found, x, rtol=0, atol=1e-13 * np.abs(x).max())


def test_generalized_sylvester_that_only_a_norm_calls_singular(rng):
    """In no units all coefficients are even; but terms that cancel to rounding errors are a singular equation in any units."""

    def coefficients(n):
        left, right = 10.0 ** rng.uniform(-8, 8, (2, n))
        return left[:, None] * gaussian(rng, n, n) * right

    for _ in range(8):
        a, b, c, d = (coefficients(n) for n in (3, 4, 3, 4))
        q = gaussian(rng, 3, 4)
        x, certificate = certify(solve_generalized_sylvester)(a, b, c, d, q)
        error = float(truth.error(x, truth.generalized_sylvester(a, b, c, d, q)))
        assert error < 1e-6
        assert error < 10 * certificate.forward_error + 1e-15
    third = np.diag([1 / 3, 2.0]), np.diag([0.3, 1.0]), np.diag([1.0, 3]), np.diag([-0.1, 5])
    assert third[0][0, 0] * third[1][0, 0] != -third[2][0, 0] * third[3][0, 0]
    with pytest.raises(SpectrumError, match="share an eigenvalue"):
        solve_generalized_sylvester(*third, np.ones((2, 2)))


def test_generalized_sylvester_has_no_small_error_from_a_wrong_correction():
    """A nearly singular a and a singular b: the standard form gives random right-hand sides a solution, the residual none."""
    a = np.array([[0.43524, 0.51189, 0.49913], [-0.30766, -0.3622, -0.35319], [0.36753, 0.43255, 0.42188]])
    c = np.array(
        [
            [0.96, -9.4e-10, -8.6e-11],
            [-499999999.99999994, 0.29, -0.020999999999999998],
            [2099999999.9999998, 3.0, -0.3],
        ]
    )
    b, d = np.array([[12.0, 27], [-8, -18]]), np.array([[1.1, -0.04], [0.07, 0.52]])
    q = np.array([[7.0, 4], [8, -9], [9, -2]])
    x, certificate = certify(solve_generalized_sylvester)(a, b, c, d, q, errors="nan")
    error = float(truth.error(x, truth.generalized_sylvester(a, b, c, d, q)))
    assert np.isnan(x).all() or error < 10 * certificate.forward_error


@pytest.mark.slow
def test_generalized_sylvester_of_larger_matrices_of_both_kinds(rng):
    for shift, n, m in ((0, 60, 70), (20, 90, 40)):
        a, b, c, d = (gaussian(rng, k, k) + shift * np.eye(k) for k in (n, m, n, m))
        for kind in ("float64", "complex64"):
            arguments = [x.astype(kind) for x in (a, b, c, d, gaussian(rng, n, m))]
            for method in ("auto", "qz"):
                x = solve_generalized_sylvester(*arguments, method=method)
                assert residual(*arguments, x) < 4 * np.finfo(kind).eps


@pytest.mark.parametrize("method", ["auto", "qz"])
def test_generalized_sylvester_with_one_pencil_in_units_that_do_not_suit_the_other(method, rng):
    """No units make a and D c D⁻¹ even: corrections bring the small entries of x to the accuracy of the large ones."""
    units = 10.0 ** -np.arange(0, 15, 3)
    for _ in range(3):
        a, c = gaussian(rng, 5, 5), units[:, None] * gaussian(rng, 5, 5) / units
        b, d, q = gaussian(rng, 2, 2), gaussian(rng, 2, 2), gaussian(rng, 5, 2)
        x, certificate = certify(solve_generalized_sylvester)(a, b, c, d, q, method=method)
        error = float(truth.error(x, truth.generalized_sylvester(a, b, c, d, q)))
        assert error < 1e-12
        assert error < 10 * certificate.forward_error + 1e-15
