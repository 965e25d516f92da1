"""Riccati equations with coefficients over the whole range of numbers: one state, against its quadratic equation."""

import itertools

import mpmath as mp
import numpy as np
import pytest

import matsign
from matrices import definite, gaussian
from matsign import SpectrumError, solve_continuous_are, solve_discrete_are

EXPONENTS = (-323, -300, -200, -100, 0, 100, 200, 300)
LIMIT = float(np.finfo(float).max)


def continuous(a, b, q, r):
    """The stabilising solution of 2 a x - (b x)² / r + q = 0, or None."""
    a, b, q, r = map(mp.mpf, (a, b, q, r))
    g = b * b / r
    if g == 0:
        return -q / (2 * a) if a < 0 else None
    root = mp.sqrt(a * a + g * q)
    return (a + root) / g if a > 0 else q / (root - a)


def discrete(a, b, q, r):
    """The stabilising solution of a² x - x - (a b x)² / (r + b² x) + q = 0, or None."""
    a, b, q, r = map(mp.mpf, (a, b, q, r))
    if b == 0:
        return q / (1 - a * a) if abs(a) < 1 else None
    half = (r - a * a * r - b * b * q) / 2
    root = mp.sqrt(half * half + b * b * q * r)
    return (root - half) / (b * b) if half < 0 else q * r / (root + half)


CASES = [
    *((matsign.solve_continuous_are, continuous, a, b) for a in (-1.0, 1.0) for b in (1.0, 0.0, 1e-100, 1e200)),
    *((matsign.solve_continuous_are, continuous, a, 1.0) for a in (0.0, -1e-150, 1e150)),
    *((matsign.solve_discrete_are, discrete, a, b) for a in (-0.5, 0.9, 3.0) for b in (1.0, 0.0, 1e-100, 1e200)),
    (matsign.solve_discrete_are, discrete, 0.0, 1.0),
]


@pytest.mark.slow
@pytest.mark.parametrize(("f", "truth", "a", "b"), CASES, ids=lambda x: getattr(x, "__name__", str(x)))
@pytest.mark.filterwarnings("error")
def test_one_state(f, truth, a, b, eager):
    hopeless = b == 0 and truth(a, b, 1.0, 1.0) is None  # no cost has a solution: all members use decimal arithmetic
    costs = [float(f"1e{e}") for e in (EXPONENTS[::4] if hopeless else EXPONENTS)]
    q, r = (np.reshape(x, (-1, 1, 1)) for x in zip(*itertools.product(costs, costs), strict=True))
    x, certificate = eager(matsign.certify(f), [[a]], [[b]], q, r, errors="nan")
    with mp.workdps(2000):
        for k in range(len(q)):
            wanted = truth(a, b, q[k, 0, 0], r[k, 0, 0])
            if wanted is None or wanted > LIMIT:
                assert not certificate.converged[k]
            else:
                error = abs(mp.mpf(float(x[k, 0, 0])) - wanted)
                assert error <= 1e-14 * wanted + 2 * mp.mpf(2) ** -1074, (q[k], r[k], x[k], float(wanted))
                if wanted > 1e-300:
                    assert certificate.forward_error[k] < 1e-13


def test_what_does_not_fit_is_an_error(eager):
    with pytest.raises(SpectrumError, match="larger than the largest number"):
        eager(matsign.solve_continuous_are, [[1.0]], [[1e-200]], [[1.0]], [[1.0]])
    with pytest.raises(SpectrumError, match="larger than the largest number"):
        eager(matsign.solve_discrete_are, [[3.0]], [[1e-200]], [[1.0]], [[1.0]])


@pytest.mark.parametrize("f", [matsign.solve_continuous_are, matsign.solve_discrete_are])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cost_in_any_unit(f, dtype, eager, rng):
    """Scaling q, r and x together, or b and r together (units of the inputs), changes nothing."""
    a, b, q, r = gaussian(rng, 3, 3), gaussian(rng, 3, 2), definite(rng, 3), definite(rng, 2)
    a, b, q, r = (x.astype(dtype) for x in (a, b, q, r))
    x = eager(f, a, b, q, r)
    top = 100 if dtype == "float32" else 1000
    for k in (-top, -top // 2, top // 2, top):
        s = 2.0 ** np.array(k, dtype)
        np.testing.assert_array_equal(eager(f, a, b, q * s, r * s), x * s)
        half = 2.0 ** np.array(k // 2, dtype)
        np.testing.assert_array_equal(eager(f, a, b * half, q, r * half * half), x)


@pytest.mark.parametrize("ratio", [-600, -400, 400, 600])
@pytest.mark.parametrize("stable", [True, False])
def test_gains_at_the_edge(ratio, stable, eager):
    """Limits of the ratio q / r: no control, the least stabilising control, and the largest gain."""
    a = np.diag([-1.0, -3.0]) if stable else np.diag([1.0, 3.0])
    q, r = np.eye(2) * 10.0 ** (ratio // 2), np.eye(2) * 10.0 ** (-ratio // 2)
    gain, x, poles = eager(matsign.lqr, a, np.eye(2), q, r)
    with mp.workdps(1000):
        for k in range(2):
            wanted = continuous(a[k, k], 1.0, q[k, k], r[k, k])
            assert abs(x[k, k] - wanted) <= 1e-14 * wanted + 1e-323
            assert abs(gain[k, k] - wanted / mp.mpf(r[k, k])) <= 1e-14 * wanted / mp.mpf(r[k, k]) + 1e-323
    assert (poles.real < 0).all()


@pytest.mark.parametrize(("a", "b"), [(-1.0, 1.0), (1.0, -1.0), (-2.0, -1.0), (1.0, 3.0)])
@pytest.mark.filterwarnings("error")
def test_one_unknown(a, b, eager):
    """d x² + (b - a) x - c = 0 over the whole range of c and d, the solution with b + d x > 0 > a - x d."""
    sizes = [float(f"1e{e}") for e in EXPONENTS]
    c, d = (np.reshape(x, (-1, 1, 1)) for x in zip(*itertools.product(sizes, [*sizes, -1.0, -1e-200]), strict=True))
    x, certificate = eager(matsign.certify(matsign.solve_riccati), [[a]], [[b]], c, d, errors="nan")
    with mp.workdps(2000):
        for k in range(len(c)):
            ck, dk = mp.mpf(c[k, 0, 0]), mp.mpf(d[k, 0, 0])
            root = (mp.mpf(a) - b) ** 2 + 4 * ck * dk
            top, bottom = ((a + b + s * mp.sqrt(root)) / 2 if root >= 0 else mp.mpf(0) for s in (1, -1))
            if root < 1e-6 or not top > mp.mpf(2) ** -40 * abs(bottom) > 0 > bottom:
                continue  # no solution, or one that rounding may remove
            wanted = (top - b) / dk if abs(top - b) > abs(top - a) else ck / (top - a)
            if abs(wanted) > LIMIT:
                assert not certificate.converged[k]
            elif -bottom > mp.mpf(2) ** -40 * top:
                error = abs(mp.mpf(float(x[k, 0, 0])) - wanted)
                assert error <= 1e-13 * abs(wanted) + 2 * mp.mpf(2) ** -1074, (c[k], d[k], x[k], float(wanted))


def test_what_is_too_near_the_axis_says_how_near():
    with pytest.raises(SpectrumError, match=r"real part of \S+ times the largest") as caught:
        matsign.solve_riccati([[-1e150]], [[1e-150]], [[1e-323]], [[1e300]])
    assert "another method" not in str(caught.value)


@pytest.mark.parametrize("f", [solve_continuous_are, solve_discrete_are])
@pytest.mark.parametrize("with_input", [False, True])
@pytest.mark.parametrize(("unit_r", "unit_s"), [(1, 1), (1e-8, 1e-13), (1e8, 1e-9), (1e-2, 1e12), (1, 1e-16)])
def test_without_q_the_cross_term_sets_the_units(f, with_input, unit_r, unit_s, rng):
    """q = 0: the constant term of the equation is -s r⁻¹ sᴴ, whose square of s may leave the range of single precision."""
    a = gaussian(rng, 3, 3) / 6 - (np.eye(3) if f is solve_continuous_are else 0)
    r, s = np.diag([1.0, 2.0, 3.0]), 1e-3 * gaussian(rng, 3, 3)
    b = 0.1 * gaussian(rng, 3, 3) if with_input else np.zeros((3, 3))
    expected = f(a, b, np.zeros((3, 3)), r, s=s)  # of size 1: no unit is needed
    # b = b₀ t, r = r₀ u and s = s₀ v leave the equation for x u⁻¹ v² if t = u / v.
    single = [z.astype("float32") for z in (a, b * (unit_r / unit_s), np.zeros((3, 3)), unit_r * r, unit_s * s)]
    x = f(*single[:4], s=single[4])
    np.testing.assert_allclose(x / (unit_s**2 / unit_r), expected, atol=2e-5 * np.abs(expected).max())
