"""Weights of other problems than the regulator: games and H∞, bounded real, positive real, and least energy (q = 0)."""

import numpy as np
import pytest

import truth
from matrices import gaussian
from matsign import SpectrumError, certify, dlqr, extremal_solutions, lqr, solve_continuous_are, solve_discrete_are

ONE = np.eye(1)


def scalar_game(a, b1, b2, c, gamma):
    return a * ONE, np.array([[b1, b2]]), c * c * ONE, np.diag([-(gamma**2), 1.0])


@pytest.mark.parametrize("a", [-1.0, 0.5, 2.0])
def test_scalar_game(a):
    """2 a x - d x² + c² = 0 with d = b₂² - (b₁/γ)² (Başar & Bernhard 1995)."""
    b1, b2, c = 1.5, 1.0, 2.0
    optimum = c * b1 / np.hypot(a, c * b2) if a < 0 else b1 / b2
    for gamma in (1.001 * optimum, 2 * optimum, 100 * optimum):
        d = b2**2 - (b1 / gamma) ** 2
        x = solve_continuous_are(*scalar_game(a, b1, b2, c, gamma))[0, 0]
        root = np.sqrt(a * a + d * c * c)
        expected = c * c / (root - a) if a < 0 else (a + root) / d
        assert x == pytest.approx(expected, rel=1e-12)
        assert x > 0


def test_gamma_below_the_optimum():
    """Without a solution an error names the eigenvalue iω; of an unstable plant the solution may be negative."""
    a, b1, b2, c = -1.0, 1.5, 1.0, 2.0
    optimum = c * b1 / np.hypot(a, c * b2)
    for gamma in (0.999999 * optimum, 0.5 * optimum):
        with pytest.raises(
            SpectrumError,
            match=r"the closed loop keeps the eigenvalue .*an H∞ or bounded-real problem one for a larger γ",
        ):
            solve_continuous_are(*scalar_game(a, b1, b2, c, gamma))
    assert solve_continuous_are(*scalar_game(2.0, b1, b2, c, 1.45))[0, 0] < 0


@pytest.mark.parametrize("zeta", [0.01, 0.3, 0.7])
def test_bounded_real(zeta):
    """The norm of 1 / (s² + 2 ζ s + 1) is 1 / (2 ζ √(1 - ζ²)), at ω² = 1 - 2 ζ² (a textbook formula)."""
    a, b, q = np.array([[0.0, 1.0], [-1.0, -2 * zeta]]), np.array([[0.0], [1.0]]), np.diag([1.0, 0.0])
    norm = 1 / (2 * zeta * np.sqrt(1 - zeta**2))
    x = solve_continuous_are(a, b, q, -((norm * (1 + 1e-6)) ** 2) * ONE)
    assert np.linalg.eigvalsh(x)[0] > 0
    with pytest.raises(SpectrumError, match="a larger γ") as caught:
        solve_continuous_are(a, b, q, -((norm * (1 - 1e-6)) ** 2) * ONE)
    omega = abs(complex(str(caught.value).split("eigenvalue ")[1].split()[0]))
    assert omega == pytest.approx(np.sqrt(1 - 2 * zeta**2), abs=0.02)


def test_nearly_at_the_bound():
    """Just below it the iteration reaches a residual below √eps, which is not enough."""
    a, b, q = np.array([[0.0, 1.0], [-1.0, -0.2]]), np.array([[0.0], [1.0]]), np.diag([1.0, 0.0])
    norm = 1 / (0.2 * np.sqrt(0.99))
    for below in (1e-6, 1e-8):
        with pytest.raises(SpectrumError, match="a larger γ"):
            solve_continuous_are(a, b, q, -((norm * (1 - below)) ** 2) * ONE)


def test_positive_real():
    """1 + 1 / (s + 1): X² - 6 X + 1 = 0. For r ≺ 0 the stabilising solution is the least (Willems 1972)."""
    arguments = (-ONE, ONE, 0 * ONE, -2 * ONE, None, -ONE)
    least, largest = (x[0, 0] for x in extremal_solutions(*arguments))
    assert (least, largest) == (pytest.approx(3 - 8**0.5), pytest.approx(3 + 8**0.5))
    with pytest.raises(SpectrumError, match=r"there is no stabilising solution|not detectable"):
        solve_continuous_are(-ONE, ONE, 0 * ONE, -2 * ONE, None, 3 * ONE)  # 1 - 3 / (s + 1) is negative at s = 0


@pytest.mark.parametrize("kind", ["float64", "complex128"])
def test_indefinite_weights_against_70_digits(kind, rng):
    for f, exact in ((solve_continuous_are, truth.continuous_are), (solve_discrete_are, truth.discrete_are)):
        a, b = gaussian(rng, 4, 4, dtype=kind) / 4 - np.eye(4) / 2, gaussian(rng, 4, 3, dtype=kind)
        q, r = np.diag([2.0, 1.0, 1.0, -0.1]), np.diag([-50.0, 1.0, 1.0])
        x = f(a, b, q.astype(kind), r.astype(kind))
        assert truth.error(x, exact(a, b, q, r, np.eye(4), 0 * b)) < 1e-13


@pytest.mark.parametrize(("f", "exact"), [(lqr, truth.continuous_are), (dlqr, truth.discrete_are)])
@pytest.mark.parametrize("kind", ["float64", "complex128"])
def test_least_energy_mirrors_the_unstable_poles(f, exact, kind, rng):
    a, b = gaussian(rng, 5, 5, dtype=kind), gaussian(rng, 5, 2, dtype=kind)
    _, x, poles = f(a, b, np.zeros((5, 5)), np.eye(2))
    values = np.linalg.eigvals(a)
    unstable = values.real > 0 if f is lqr else abs(values) > 1
    mirrored = -values.conj() if f is lqr else 1 / values.conj()
    assert np.allclose(np.poly(poles), np.poly(np.where(unstable, mirrored, values)), atol=1e-9)
    assert np.linalg.matrix_rank(x, hermitian=True) == sum(unstable)
    assert truth.error(x, exact(a, b, np.zeros((5, 5)), np.eye(2), np.eye(5), 0 * b)) < 1e-12
    stable = 0.3 * a / abs(values).max() - (np.eye(5) / 2 if f is lqr else 0)
    assert not f(stable, b, np.zeros((5, 5)), np.eye(2)).gain.any()


@pytest.mark.parametrize("method", ["doubling", "sign", "auto"])
def test_tiny_uneven_weights_of_a_state_that_acts_on_no_other(method):
    """Balancing gives such a state a unit in which it hides the errors of the others."""
    c = np.array([0.5, 0.02, -0.04, 1])
    four = np.array([[-12.0, 0, 0, 0], [7, -9, -2, 0], [5, 0, -7, 1], [4, 0, 5, -2]])
    two = np.array([[-1.0, 0], [7, -2]])
    for a, b, q in (
        (four, np.array([[-2.0, 2], [-1, 0], [0, -3], [-1, 1]]), 1e-18 * np.outer(c, c)),
        (two, np.ones((2, 1)), np.diag([1e-18, 1e-22])),
    ):
        r = np.eye(b.shape[1])
        exact = truth.continuous_are(a, b, q, r, np.eye(len(a)), 0 * b).astype(float)
        x, certificate = certify(solve_continuous_are)(a, b, q, r, method=method)
        assert np.abs(x - exact).max() < 1e-14 * np.abs(exact).max()
        assert certificate.forward_error < 1e-14
