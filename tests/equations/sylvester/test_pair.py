"""`solve_sylvester_pair`, with sylvester_pair in every name: against 80 digits, and pairs without a solution."""

import numpy as np
import pytest
import scipy.linalg as sl

import truth
from matrices import gaussian
from matsign import SpectrumError, certify, condition, solve_sylvester, solve_sylvester_pair


def residual(a, b, c, d, e, f, x, y):
    """Relative to what rounding of x and y alone leaves."""
    norm = np.linalg.norm
    size = (norm(a) + norm(d)) * norm(x) + (norm(b) + norm(e)) * norm(y) + norm(c) + norm(f)
    return np.hypot(norm(a @ x - y @ b - c), norm(d @ x - y @ e - f)) / size


def system(a, b, d, e):
    one, other = np.eye(len(a)), np.eye(len(b))
    return np.block([[np.kron(a, other), -np.kron(one, b.T)], [np.kron(d, other), -np.kron(one, e.T)]])


def hard(rng, n=4, m=3):
    """Coefficients by name."""
    a, b, d, e = gaussian(rng, n, n), gaussian(rng, m, m), gaussian(rng, n, n), gaussian(rng, m, m)
    some_n, some_m = np.arange(n) > 0, np.arange(m) > 0
    return {
        "random": (a, b, d, e),
        "separable": (a + 9 * np.eye(n), b - 9 * np.eye(m), d + 9 * np.eye(n), e + 9 * np.eye(m)),
        "singular d": (a, b, d * some_n, e),
        "singular a and e": (a * some_n, b, d, e * some_m),
        "small singular values": (a, b * 10.0 ** -np.arange(0, 2 * m, 2), d * 10.0 ** -np.arange(0, 2 * n, 2), e),
        "complex": (a + 1j * d, b, d, e - 1j * b),
        "a Sylvester equation": (a, b, np.eye(n), np.eye(m)),
        "graded equations": tuple(10.0 ** -np.arange(0, 3 * len(x), 3)[:, None] * x for x in (a, b, d, e)),
        "one large coefficient": (a, 1e13 * b, d, e),
    }


@pytest.mark.parametrize("method", ["auto", "standard", "qz"])
def test_sylvester_pair_is_as_accurate_as_rounding_allows(method, rng):
    for name, (a, b, d, e) in hard(rng).items():
        c, f = gaussian(rng, 2, len(a), len(b))
        (x, y), certificate = certify(solve_sylvester_pair)(a, b, c, d, e, f, method=method, errors="nan")
        if method == "standard" and np.isnan(x).any():
            continue
        exact = np.concatenate(truth.sylvester_pair(a, b, c, d, e, f))
        error = float(truth.error(np.concatenate([x, y]), exact))
        assert method == "standard" or residual(a, b, c, d, e, f, x, y) < 1e-15, name
        k = system(a, b, d, e)
        kronecker = np.linalg.solve(k, np.concatenate([c, f]).ravel()).reshape(exact.shape)
        best = float(truth.error(kronecker, exact))
        assert method == "standard" or error < 10 * best + 4e-15, (name, error, best)
        assert error < 10 * certificate.forward_error + 1e-15, (name, error, certificate.forward_error)
        least = np.linalg.svd(k, compute_uv=False)[-1]
        assert least < 1e-13 * np.linalg.norm(k) or least * 0.99 < certificate.separation < 20 * least, (
            name,
            least,
            certificate.separation,
        )


def test_sylvester_pair_contains_the_sylvester_equation(rng):
    """With d = I, e = 0: x = f, and y b = a f - c."""
    a, b, f = gaussian(rng, 5, 5), gaussian(rng, 4, 4), gaussian(rng, 5, 4)
    x, y = solve_sylvester_pair(a, np.eye(4), 0 * f, np.eye(5), -b, f)  # y = a x, x + a x b = f
    np.testing.assert_allclose(y, a @ x, atol=1e-12)
    np.testing.assert_allclose(x + a @ x @ b, f, atol=1e-12)
    x, y = solve_sylvester_pair(a, -b, f, np.eye(5), np.eye(4), 0 * f)  # y = x
    np.testing.assert_allclose(x, solve_sylvester(a, b, f), rtol=1e-9, atol=1e-11)


def test_sylvester_pair_makes_a_pencil_block_diagonal(rng):
    a, b, d, e = gaussian(rng, 3, 3), gaussian(rng, 2, 2), gaussian(rng, 3, 3), gaussian(rng, 2, 2)
    c, f = gaussian(rng, 2, 3, 2)
    x, y = solve_sylvester_pair(a, b, c, d, e, f)
    zero = np.zeros((2, 3))
    left, right = np.block([[np.eye(3), -y], [zero, np.eye(2)]]), np.block([[np.eye(3), x], [zero, np.eye(2)]])
    for first, corner, last in ((a, c, b), (d, f, e)):
        whole = left @ np.block([[first, -corner], [zero, last]]) @ right
        assert np.abs(whole[:3, 3:]).max() < 1e-12


def test_sylvester_pair_that_is_singular_reports_its_separation(on, rng):
    n, m = 3, 2
    u, v, w, z = (sl.qr(gaussian(rng, k, k))[0] for k in (n, n, m, m))
    a, d = u @ np.diag([1.0, 2, 3]) @ v, u @ v
    b, e = w @ np.diag([7.0, 2.0]) @ z, w @ z
    c, f = np.ones((2, n, m))
    with pytest.raises(SpectrumError, match=r"pencils .* share an eigenvalue.* is at most [0-9.]+e-1[5-8]"):
        on(solve_sylvester_pair, a, b, c, d, e, f)
    fine = b + 0.1 * e
    x, y = on(solve_sylvester_pair, a, np.stack([b, fine]), c, d, e, f, errors="nan")
    assert np.isnan(x[0]).all()
    assert np.isnan(y[0]).all()
    assert residual(a, fine, c, d, e, f, x[1], y[1]) < 1e-15
    for method in ("auto", "qz", "standard"):
        with pytest.raises(SpectrumError, match=r"singular to working precision"):
            solve_sylvester_pair(a * [0, 1, 1], fine, c, d * [0, 1, 1], e, f, method=method)


def test_sylvester_pair_of_any_size(rng):
    a, d, b, e = gaussian(rng, 2, 4, 4).tolist() + gaussian(rng, 2, 3, 3).tolist()
    a, d, b, e = map(np.array, (a, d, b, e))
    c, f = gaussian(rng, 2, 4, 3)
    x, y = solve_sylvester_pair(a, b, c, d, e, f)
    for s in (1e100, 1e-100, 1e200):
        for arguments, of_x, of_y in (
            ((a * s, b * s, c * s, d, e, f), 1, 1),
            ((a * s, b, c, d * s, e, f), 1 / s, 1),
            ((a, b, c * s, d, e, f * s), s, s),
            ((a, b * s, c, d, e * s, f), 1, 1 / s),
        ):
            new_x, new_y = solve_sylvester_pair(*arguments)
            assert np.linalg.norm(new_x / of_x - x) < 1e-11 * np.linalg.norm(x)
            assert np.linalg.norm(new_y / of_y - y) < 1e-11 * np.linalg.norm(y)


def test_sylvester_pair_with_rows_and_columns_in_units_far_apart(eager, rng):
    """Entries from 1e-240 to 1e240: in one unit the least would underflow before the rows and columns get their own."""
    units = np.array([1e120, 1, 1e-120])
    others = np.roll(units, 1)
    arguments = gaussian(rng, 6, 3, 3)
    x, y = solve_sylvester_pair(*arguments)
    far_x, far_y = eager(solve_sylvester_pair, *(units[:, None] * z * others for z in arguments))
    for found, z in ((others[:, None] * far_x / others, x), (far_y / units[:, None] * units, y)):
        np.testing.assert_allclose(found, z, rtol=0, atol=1e-13 * np.abs(z).max())


def test_sylvester_pair_whose_coefficients_have_units_of_their_own(rng):
    """In no units of x and y all coefficients are even: in the norm some of these pairs are singular to working precision."""

    def coefficients(n):
        left, right = 10.0 ** rng.uniform(-8, 8, (2, n))
        return left[:, None] * gaussian(rng, n, n) * right

    for _ in range(8):
        a, b, d, e = (coefficients(n) for n in (3, 4, 3, 4))
        c, f = gaussian(rng, 2, 3, 4)
        z, certificate = certify(solve_sylvester_pair)(a, b, c, d, e, f)
        error = max(float(truth.error(*xs)) for xs in zip(z, truth.sylvester_pair(a, b, c, d, e, f), strict=True))
        assert error < 1e-6
        assert error < 10 * certificate.forward_error + 1e-15


def test_condition_of_a_sylvester_pair(rng):
    a, b, d, e = hard(rng)["random"]
    assert 1 < condition(solve_sylvester_pair)(a, b, np.ones((4, 3)), d, e, np.ones((4, 3))) < 1e6
