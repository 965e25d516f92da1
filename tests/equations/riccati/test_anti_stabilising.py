"""Anti-stabilising solutions, against 70 digits; their errors, derivatives and the reasons why there is none."""

import numpy as np
import pytest
import scipy.linalg as sl

import matsign
import truth
from matrices import DTYPES, adjoint, definite, gaussian
from matsign import SpectrumError, solve_continuous_are, solve_discrete_are

RIGHT, OUTSIDE = {"half_plane": "right"}, {"circle": "outside"}
BOTH = pytest.mark.parametrize(("f", "side"), [(solve_continuous_are, RIGHT), (solve_discrete_are, OUTSIDE)])


def plant(rng, n=4, m=2, dtype="float64"):
    """a, b, q, r, e, s with a positive definite cost."""
    cost = definite(rng, n + m, dtype=dtype)
    a, b = (gaussian(rng, n, k, dtype=dtype) for k in (n, m))
    e = (np.eye(n) + 0.1 * gaussian(rng, n, n, dtype=dtype)).astype(dtype)
    return a, b, cost[:n, :n], cost[n:, n:], e, cost[:n, n:]


def poles(f, x, a, b, q, r, e, s):
    """The eigenvalues of the closed loop, those that are stable negative."""
    if f is solve_continuous_are:
        gain = np.linalg.solve(r, adjoint(b) @ x @ e + adjoint(s))
        return sl.eigvals(a - b @ gain, e).real
    gain = np.linalg.solve(r + adjoint(b) @ x @ b, adjoint(b) @ x @ a + adjoint(s))
    return abs(sl.eigvals(a - b @ gain, e)) - 1


@BOTH
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_pole_is_on_the_other_side(f, side, dtype, rng):
    p = plant(rng, dtype=dtype)
    reference = truth.continuous_are if f is solve_continuous_are else truth.discrete_are
    exact = reference(*p, 1)
    for method in ("auto", "sign"):
        x, certificate = matsign.certify(f)(*p, method=method, **side)
        assert poles(f, x, *p).min() > 0
        error = truth.error(x, exact)
        assert error < 300 * np.finfo(dtype).eps
        assert error < 30 * certificate.forward_error
        assert certificate.converged
        assert certificate.separation > 0
    assert np.linalg.eigvalsh(x)[-1] < 0  # x₋ is negative definite here, x₊ positive definite


@BOTH
def test_poles_are_mirror_images_of_the_stabilising_ones(f, side, rng):
    p = plant(rng)
    one, other = (np.sort(poles(f, f(*p, **options), *p)) for options in ({}, side))
    mirrored = -one if f is solve_continuous_are else 1 / (1 + one) - 1
    assert np.allclose(np.sort(mirrored), other)


def test_scalar_equations_have_two_solutions():
    one = np.ones((1, 1))
    assert solve_continuous_are(one, one, one, one, **RIGHT)[0, 0] == pytest.approx(1 - 2**0.5)
    # x = 4 x / (1 + x) + 1: x² - 4 x - 1 = 0
    assert solve_discrete_are(2 * one, one, one, one, **OUTSIDE)[0, 0] == pytest.approx(2 - 5**0.5)
    # With a = r = 0 and s = 1: x = q - 1 / x, whose closed loops are 1 / x.
    x = solve_discrete_are(0 * one, one, 3 * one, 0 * one, None, one, **OUTSIDE)
    assert x[0, 0] == pytest.approx((3 - 5**0.5) / 2)


@pytest.mark.parametrize("n", [1, 30])
def test_weights_and_units_far_apart(n, rng):
    """The unitary transformation mixes weights; Newton's method on the original equation restores the digits."""
    a, b, q, r, *_ = plant(rng, n, 2)
    units = 10.0 ** rng.integers(-4, 5, n)
    scaled = (a * units[:, None] / units, b * units[:, None], q / units[:, None] / units, r)
    for f, side in ((solve_continuous_are, RIGHT), (solve_discrete_are, OUTSIDE)):
        x, y = f(a, b, q, r, **side), f(*scaled, **side)
        assert np.linalg.norm(x - y * units[:, None] * units) < 1e-9 * np.linalg.norm(x)


@BOTH
@pytest.mark.parametrize("sizes", [(3, 0), (0, 2)])
def test_without_inputs_or_states(f, side, sizes, rng):
    n, m = sizes
    a = np.diag([1.5, 2.0, 3.0])[:n, :n]
    x = f(a, np.zeros((n, m)), np.eye(n), np.eye(m), **side)
    discrete = f is solve_discrete_are
    assert np.allclose(a.T @ x @ a - x if discrete else a.T @ x + x @ a, -np.eye(n))
    if n:
        with pytest.raises(
            SpectrumError,
            match=r"no input moves the eigenvalue (0\.3333|-3|0\.5|-2|0\.6667|-1\.5) of a, which is stable",
        ):
            f(np.linalg.inv(a) if discrete else -a, np.zeros((n, m)), np.eye(n), np.eye(m), **side)


HALF, ZERO, ONE = 0.5 * np.eye(1), np.zeros((1, 1)), np.eye(1)


@pytest.mark.parametrize(
    ("f", "arguments", "text"),
    [
        (solve_continuous_are, (-ONE, ZERO, ONE, ONE), "no input moves the eigenvalue -1 of a, which is stable"),
        (solve_discrete_are, (HALF, ZERO, ONE, ONE), "no input moves the eigenvalue 0.5 of a, which is stable"),
        (solve_discrete_are, (ZERO, ONE, ONE, ONE), "the closed loop of every solution has the eigenvalue 0"),
        (solve_discrete_are, (ONE, ONE, ONE, ZERO), "the closed loop of every solution has the eigenvalue 0"),
        (solve_discrete_are, (ONE, ONE, ONE, ONE, ZERO), "e is singular"),
        (solve_continuous_are, (ONE, ONE, ONE, ONE, ZERO), "e is singular"),
        (solve_continuous_are, (ONE, ONE, ONE, ZERO), "r is singular"),
        # x = x / (1 + x) - 3 and 2 x - x² - 4 = 0 have no real solutions.
        (
            solve_continuous_are,
            (ONE, ONE, -4 * ONE, ONE),
            "there is no anti-stabilising solution: the closed loop keeps",
        ),
        (solve_discrete_are, (ONE, ONE, -3 * ONE, ONE), "there is no anti-stabilising solution: the closed loop keeps"),
    ],
)
def test_reasons(f, arguments, text):
    side = RIGHT if f is solve_continuous_are else OUTSIDE
    with pytest.raises(SpectrumError, match=text):
        f(*arguments, **side)
    batch = [np.stack([x, ONE, 2 * ONE]) for x in arguments]
    x = f(*batch, errors="nan", **side)
    assert np.isnan(x[0]).all()
    assert np.isfinite(x[1:]).all()


@BOTH
def test_of_a_member_it_does_not_depend_on_the_others(f, side, rng):
    members = [plant(rng, 3) for _ in range(3)]
    together = f(*map(np.stack, zip(*members, strict=True)), **side)
    for x, member in zip(together, members, strict=True):
        assert np.array_equal(x, f(*member, **side))


@BOTH
def test_every_library(f, side, on, rng):
    p = plant(rng, 3)
    x = on(f, *p, **side)
    assert np.linalg.norm(x - f(*p, **side)) < 1e-12 * np.linalg.norm(x)


def test_sides_that_do_not_exist():
    with pytest.raises(ValueError, match="half_plane must be one of left, right"):
        solve_continuous_are(*[np.eye(2)] * 4, half_plane="outside")
    with pytest.raises(ValueError, match="circle must be one of inside, outside"):
        solve_discrete_are(*[np.eye(2)] * 4, circle="left")
