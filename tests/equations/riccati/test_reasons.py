"""Reasons why a regulator has no solution: plants with exactly one defect, in random coordinates; no errors of LAPACK."""

import numpy as np
import pytest

import matsign
from matrices import definite, gaussian, unitary
from matsign import SpectrumError
from matsign.core.failures import Failure
from matsign.direct import qz

BOTH = pytest.mark.parametrize(
    "f", [matsign.solve_continuous_are, matsign.solve_discrete_are], ids=lambda f: f.__name__
)
DRAWS = 40


def discrete(f):
    return f is matsign.solve_discrete_are


def coordinates(rng, n, draw):
    """A signed permutation, an orthogonal matrix, or a general one."""
    if draw % 3 == 0:
        return np.eye(n)[rng.permutation(n)] * rng.choice([-1.0, 1.0], n)
    return unitary(rng, n) if draw % 3 == 1 else gaussian(rng, n, n)


def reason(f, *plant):
    with pytest.raises(SpectrumError) as caught:
        f(*plant)
    return str(caught.value)


def figures(text):
    """The numbers in a text."""
    found = []
    for word in text.replace(",", " ").replace(";", " ").split():
        try:
            found.append(complex(word))
        except ValueError:
            continue
    return found


@BOTH
@pytest.mark.parametrize("jordan", [False, True])
def test_not_stabilisable(f, jordan, rng):
    """Uncontrollable modes, simple or in Jordan blocks, whose eigenvalues have only a root of the working precision."""
    for draw in range(DRAWS):
        n = int(rng.integers(2, 8))
        k, m = int(rng.integers(1, n)), int(rng.integers(1, n + 1))
        a, b = np.zeros((n, n)), np.zeros((n, m))
        a[:k], b[:k] = gaussian(rng, k, n), gaussian(rng, k, m)
        value = 1.5 if discrete(f) else 0.75
        a[k:, k:] = value * np.eye(n - k) + (np.diag(np.ones(n - k - 1), 1) if jordan else 0)
        t = coordinates(rng, n, draw)
        text = reason(f, t @ a @ np.linalg.inv(t), t @ b, np.eye(n), np.eye(m))
        assert "(a, b) is not stabilisable: no input moves the eigenvalue" in text
        assert min(abs(x - value) for x in figures(text)) < 0.01


@BOTH
def test_time_is_that_of_the_caller(f):
    for scale in (1e-3, 1.0, 1e6, 1e150):
        if discrete(f) and scale != 1e6:
            continue
        a = np.diag([scale, -scale]) if not discrete(f) else np.diag([1e6, 0.5])
        text = reason(f, a, np.array([[0.0], [1.0]]), np.eye(2), np.eye(1))
        assert f"eigenvalue {scale:.4g} of a" in text


@BOTH
@pytest.mark.parametrize("jordan", [False, True])
def test_not_detectable(f, jordan, rng):
    """A mode on the boundary without cost is the reason if no limit of solutions was found."""
    for draw in range(DRAWS):
        n = int(rng.integers(3, 7))
        a, q = np.zeros((n, n)), np.zeros((n, n))
        value = (-1.0 if draw % 2 else 1.0) * discrete(f)
        a[0, 0], a[1:, 1:] = value, gaussian(rng, n - 1, n - 1)
        if jordan:
            a[:2, :2], a[2:, :2] = [[value, 1.0], [0.0, value]], 0.0
        q[1:, 1:] = definite(rng, n - 1)
        t = coordinates(rng, n, draw)
        back = np.linalg.inv(t)
        plant = [x[None] for x in (t @ a @ back, t @ gaussian(rng, n, 2), back.T @ q @ back, np.eye(2))]
        found = qz.diagnose(discrete(f), *plant, None, None, plant[0], np.zeros(1, bool))
        assert found == [Failure.NOT_DETECTABLE], draw
        again, figure = qz.explain_failures(discrete(f), *plant, None, None, found)
        assert again == found
        assert abs(complex(*figure[0]) - value) < 1e-6


@BOTH
def test_healthy_plants_are_not_accused(f, rng):
    """If the methods fail without a defect of the plant, the message names none, also for strongly unstable plants."""
    for draw in range(DRAWS):
        n, m = int(rng.integers(2, 9)), int(rng.integers(1, 3))
        a = gaussian(rng, n, n) + (draw % 3) * 2 * np.eye(n)
        plant = [x[None] for x in (a, gaussian(rng, n, m), definite(rng, n), definite(rng, m))]
        found = qz.diagnose(discrete(f), *plant, None, None, plant[0], np.zeros(1, bool))
        assert found == [Failure.NOT_CONVERGED]
        again, _ = qz.explain_failures(discrete(f), *plant, None, None, found)
        assert again[0] in (Failure.LOST, Failure.HARDLY_STABILISABLE)


@pytest.mark.slow
@BOTH
def test_indefinite_costs(f, rng):
    for draw in range(DRAWS):
        c, s = np.cos(1.0), np.sin(1.0)
        a = np.array([[c, s], [-s, c]]) if discrete(f) else np.array([[0.0, 1.0], [-1.0, 0.0]])
        t = coordinates(rng, 2, draw)
        back = np.linalg.inv(t)
        text = reason(f, t @ a @ back, t @ np.ones((2, 1)), -0.1 * back.T @ back, np.eye(1))
        assert "no stabilising solution: the closed loop keeps the eigenvalue" in text
        assert "is indefinite" in text


def test_singular_r(rng):
    """r of rank one in any coordinates, also if rounding has made it invertible."""
    for draw in range(DRAWS):
        n, m = 3, int(rng.integers(2, 5))
        v = gaussian(rng, m, 1) * 10.0 ** rng.integers(-3, 4, (m, 1))
        r = v @ v.T
        text = reason(matsign.solve_continuous_are, gaussian(rng, n, n), gaussian(rng, n, m), np.eye(n), r)
        assert "r is singular to working precision" in text
        assert max(abs(x) for x in figures(text)) < 1e-14, draw


def test_a_singular_r_in_discrete_time():
    """r + bᴴ x b is singular for every x: an input without effect, and one whose states have no cost."""
    solve = matsign.solve_discrete_are
    assert "r is singular" in reason(solve, np.eye(2) / 2, np.diag([1.0, 0.0]), np.eye(2), np.diag([1.0, 0.0]))
    assert "r is singular" in reason(solve, np.eye(2) / 2, np.eye(2), np.diag([1.0, 0.0]), np.diag([1.0, 0.0]))
    x = solve(np.eye(2) / 2, np.eye(2), np.eye(2), np.zeros((2, 2)))
    np.testing.assert_allclose(x, np.eye(2), rtol=1e-14)


@BOTH
def test_singular_e(f, rng):
    for _ in range(DRAWS):
        n = int(rng.integers(2, 6))
        e = gaussian(rng, n, n)
        e[0] = e[1:].sum(0)
        text = reason(f, gaussian(rng, n, n), gaussian(rng, n, n), np.eye(n), np.eye(n), e)
        assert "e is singular to working precision" in text
        assert max(abs(x) for x in figures(text)) < 1e-13


@BOTH
def test_what_has_a_solution_is_not_refused(f, rng):
    """Definite costs and an input for every unstable mode: no condition fails."""
    for draw in range(DRAWS):
        n, m = int(rng.integers(1, 7)), int(rng.integers(1, 4))
        t = coordinates(rng, n, draw)
        a = t @ (gaussian(rng, n, n) - 2 * np.eye(n) * (not discrete(f))) @ np.linalg.inv(t)
        x = f(a / (3 if discrete(f) else 1), gaussian(rng, n, m), definite(rng, n), definite(rng, m))
        assert np.linalg.eigvalsh(x).min() > 0


@BOTH
@pytest.mark.filterwarnings("error")
def test_one_hopeless_member_is_that_alone(f, eager, rng):
    """No exception or warning of LAPACK for any defect; the other members are right."""
    plants = [
        (gaussian(rng, 2, 2), gaussian(rng, 2, 1), np.eye(2), np.eye(1)),
        (np.full((2, 2), 1e200), np.full((2, 1), 1e-200), np.full((2, 2), 1e300), np.full((1, 1), 1e-300)),
        (np.zeros((2, 2)), np.zeros((2, 1)), np.zeros((2, 2)), np.zeros((1, 1))),
        (np.diag([1e308, 1e-308]), np.array([[1e308], [1e-308]]), np.diag([1e308, 1e-308]), np.full((1, 1), 5e-324)),
        (np.array([[0.0, 1.0], [0.0, 0.0]]), np.array([[1.0], [0.0]]), np.eye(2) * 1e-323, np.eye(1) * 1e308),
        (np.diag([1e-320, 3.0]), np.array([[0.0], [1.0]]), -np.eye(2), -np.eye(1)),
        (np.full((2, 2), np.inf), np.ones((2, 1)), np.eye(2), np.eye(1)),
        (gaussian(rng, 2, 2), gaussian(rng, 2, 1), np.eye(2), np.eye(1)),
    ]
    batch = [np.stack(x) for x in zip(*plants, strict=True)]
    x, certificate = eager(matsign.certify(f), *batch, errors="nan")
    for k in (0, 7):
        np.testing.assert_array_equal(x[k], eager(f, *plants[k]))
        assert certificate.converged[k]
    assert np.isnan(x[6]).all()
    for k in range(1, 7):
        if certificate.converged[k]:
            assert np.isfinite(x[k]).all()
        else:
            with pytest.raises(SpectrumError):
                eager(f, *plants[k])
