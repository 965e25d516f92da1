"""lqr and dlqr: gains against SciPy's solution, optimality of the cost, and poles of the closed loop."""

import mpmath as mp
import numpy as np
import pytest
import scipy.linalg as sl
from hypothesis import given
from hypothesis import strategies as st

import matsign
import truth
from matrices import DTYPES, adjoint, definite, gaussian
from matsign import Regulator, SpectrumError, dlqr, lqr

BOTH = pytest.mark.parametrize("f", [lqr, dlqr])
METHODS = ("auto", "doubling", "sign", "qz")
TOLERANCE = {"float32": 2e-4, "float64": 1e-11, "complex64": 2e-4, "complex128": 1e-11}


def model(rng, n=4, m=2, dtype="float64", extras=()):
    """(a, b, q, r, s, e) with a positive definite cost; s and e are None unless they are in `extras`."""
    a, b = gaussian(rng, n, n, dtype=dtype), gaussian(rng, n, m, dtype=dtype)
    cost = definite(rng, n + m, dtype=dtype)
    s = cost[:n, n:] if "s" in extras else None
    e = np.eye(n, dtype=dtype) + 0.1 * gaussian(rng, n, n, dtype=dtype) if "e" in extras else None
    return a, b, cost[:n, :n], cost[n:, n:], s, None if e is None else e.astype(dtype)


def by_scipy(f, a, b, q, r, s=None, e=None):
    """Gain and solution in double precision; e is inverted first, because SciPy refuses some good problems with e."""
    wide = [None if x is None else x.astype(np.result_type(x, "float64")) for x in (a, b, q, r, s, e)]
    a, b, q, r, s, e = wide
    back = np.eye(len(a)) if e is None else np.linalg.inv(e)
    price = adjoint(back) @ q @ back
    cross = None if s is None else adjoint(back) @ s
    x = (sl.solve_continuous_are if f is lqr else sl.solve_discrete_are)(
        a @ back, b, (price + adjoint(price)) / 2, r, None, cross
    )
    return gain_of(f, x, a, b, q, r, s, e), x


def gain_of(f, x, a, b, q, r, s=None, e=None):
    xe = x if e is None else x @ e
    inner = adjoint(b) @ (xe if f is lqr else x @ a)
    return np.linalg.solve(r if f is lqr else r + adjoint(b) @ x @ b, inner if s is None else inner + adjoint(s))


def distance(x, y):
    return np.linalg.norm(x - y) / np.linalg.norm(y)


def assert_poles(poles, a, b, gain, e, tol):
    """The eigenvalues of (a - b k, e), in any order."""
    left = list(sl.eigvals(a - b @ gain, e))
    size = np.linalg.norm(a) + np.linalg.norm(b) * np.linalg.norm(gain)
    for pole in poles:
        k = min(range(len(left)), key=lambda k: abs(left[k] - pole))
        assert abs(left.pop(k) - pole) <= tol * size


def check(f, library, plant, dtype):
    given = {name: x for name, x in zip("abqrse", plant, strict=True) if x is not None}
    names = list(given)
    result = library(lambda *xs: f(**dict(zip(names, xs, strict=True))), *given.values())
    assert isinstance(result, Regulator)
    gain, x = by_scipy(f, *plant)
    assert result.gain.dtype == result.solution.dtype == dtype
    assert result.poles.dtype == np.result_type(dtype, "complex64")
    assert distance(result.gain, gain) < TOLERANCE[dtype]
    assert distance(result.solution, x) < TOLERANCE[dtype]
    a, b, *_, e = plant
    assert_poles(result.poles, a, b, result.gain, e, TOLERANCE[dtype])
    inside = abs(result.poles) < 1 if f is dlqr else result.poles.real < 0
    assert inside.all()


@BOTH
@pytest.mark.parametrize("dtype", DTYPES)
def test_on_every_library(f, dtype, on, rng):
    check(f, on, model(rng, dtype=dtype, extras=("s", "e")), dtype)


@BOTH
def test_everywhere(f, everywhere, rng):
    """Also under ``jax.jit``, in one case: compiling takes seconds, for complex numbers twice as long."""
    if everywhere.jit and f is dlqr:
        pytest.skip("the certificates compile its equation, and lqr the rest")
    dtype = "float64" if everywhere.jit else "complex128"
    check(f, everywhere, model(rng, dtype=dtype, extras=("s", "e")), dtype)


@BOTH
@pytest.mark.parametrize("extras", [(), ("s",), ("e",)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_may_be_left_out(f, extras, dtype, eager, rng):
    check(f, eager, model(rng, dtype=dtype, extras=extras), dtype)


@BOTH
@pytest.mark.parametrize("method", METHODS)
def test_methods(f, method, rng):
    plant = model(rng, 6, 3, extras=("s", "e"))
    gain, x = by_scipy(f, *plant)
    result = f(*plant, method=method)
    assert distance(result.gain, gain) < 1e-12
    assert distance(result.solution, x) < 1e-12


@BOTH
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 5), m=st.integers(1, 3), dtype=st.sampled_from(DTYPES[1::2]))
def test_no_gain_costs_less(f, seed, n, m, dtype):
    """The cost of a stable closed loop solves a Lyapunov or Stein equation: it is x for k, and larger for any other gain."""
    rng = np.random.default_rng(seed)
    a, b, q, r, s, _ = model(rng, n, m, dtype, extras=("s",))
    k, x, _ = f(a, b, q, r, s)

    def cost(k):
        closed, price = a - b @ k, q - s @ k - adjoint(k) @ adjoint(s) + adjoint(k) @ r @ k
        if f is lqr:
            return sl.solve_continuous_lyapunov(adjoint(closed), -price)
        return sl.solve_discrete_lyapunov(adjoint(closed), price)

    size = np.linalg.norm(x)
    assert np.linalg.norm(cost(k) - x) < 1e-9 * size
    other = k + 1e-3 * gaussian(rng, m, n, dtype=dtype)
    poles = np.linalg.eigvals(a - b @ other)
    if (poles.real.max() if f is lqr else abs(poles).max() - 1) < -1e-3:
        more = cost(other) - x
        assert np.linalg.eigvalsh(more + adjoint(more)).min() > -1e-9 * size


def test_double_integrator():
    """q = diag(p, 0), r = 1: the closed loop is a Butterworth filter, λ² + √2 p^¼ λ + √p = 0."""
    a, b = np.array([[0.0, 1.0], [0.0, 0.0]]), np.array([[0.0], [1.0]])
    for p in (1e-8, 1.0, 16.0, 1e8):
        gain, x, poles = lqr(a, b, np.diag([p, 0.0]), np.eye(1))
        np.testing.assert_allclose(gain, [[p**0.5, 2**0.5 * p**0.25]], rtol=1e-14)
        np.testing.assert_allclose(x, [[2**0.5 * p**0.75, p**0.5], [p**0.5, 2**0.5 * p**0.25]], rtol=1e-14)
        expected = np.array([-1 - 1j, -1 + 1j]) * (p**0.25 / 2**0.5)
        np.testing.assert_allclose(sorted(poles, key=lambda z: z.imag), expected, rtol=1e-14)


def test_first_order():
    """One state: the discrete equation is b²x² + (r - a²r - b²q) x - q r = 0."""
    for a, b, q, r in [(0.5, 1.0, 1.0, 1.0), (2.0, 1.0, 0.0, 3.0), (-1.5, 0.1, 2.0, 0.5), (1.0, 1e-3, 1e-6, 1.0)]:
        gain, x, poles = dlqr(*(np.array([[v]]) for v in (a, b, q, r)))
        half = (r - a * a * r - b * b * q) / 2
        root = np.hypot(half, b * (q * r) ** 0.5)
        expected = (root - half) / (b * b) if half < 0 else q * r / (root + half)
        np.testing.assert_allclose(x, [[expected]], rtol=1e-9)
        np.testing.assert_allclose(gain, [[a * b * expected / (r + b * b * expected)]], rtol=1e-9)
        np.testing.assert_allclose(poles, [a - b * gain[0, 0]], rtol=1e-14)


def test_deadbeat():
    """r = 0: the gain that makes every observed state zero in one step."""
    a, b = np.array([[2.0, -1.0], [1.0, 0.0]]), np.array([[1.0], [0.0]])
    gain, x, poles = dlqr(a, b, np.diag([0.0, 1.0]), np.zeros((1, 1)))
    np.testing.assert_allclose(gain, [[2.0, -1.0]], atol=1e-14)
    np.testing.assert_allclose(x, np.eye(2), atol=1e-14)
    np.testing.assert_allclose(poles, 0, atol=1e-7)


@BOTH
def test_units(f, rng):
    """Inputs, states and cost in other units change the gain only by these units, up to rounding."""
    a, b, q, r, s, _ = model(rng, extras=("s",))
    gain, x, poles = f(a, b, q, r, s)
    t, u = np.diag(2.0 ** np.array([30, -20, 0, 7])), np.diag(2.0 ** np.array([-25, 12]))
    back = np.diag(1 / np.diag(t))
    other = f(t @ a @ back, t @ b @ u, back @ q @ back * 2.0**40, u @ r @ u * 2.0**40, back @ s @ u * 2.0**40)
    assert distance(u @ other.gain @ t, gain) < 1e-11
    assert distance(t @ other.solution @ t / 2.0**40, x) < 1e-11
    assert_poles(other.poles, a, b, gain, None, 1e-9)
    assert_poles(poles, a, b, gain, None, 1e-13)


@BOTH
def test_a_batch_with_a_bad_member(f, eager, rng):
    members = [model(rng, 3, 2) for _ in range(4)]
    a, b, q, r, *_ = (np.stack(x) if x[0] is not None else None for x in zip(*members, strict=True))
    a[2], b[2] = np.diag([2.0, 0.5, 0.1]), [[0, 0], [1, 0], [0, 1]]  # the eigenvalue 2 is not controllable
    gain, x, poles = eager(f, a, b, q, r, errors="nan")
    assert gain.shape == (4, 2, 3)
    assert poles.shape == (4, 3)
    for k in range(4):
        if k == 2:
            assert all(np.isnan(y[k]).all() for y in (gain, x, poles))
        else:
            expected, solution = by_scipy(f, a[k], b[k], q[k], r[k])
            assert distance(gain[k], expected) < 1e-11
            assert distance(x[k], solution) < 1e-11
            assert_poles(poles[k], a[k], b[k], gain[k], None, 1e-11)
    with pytest.raises(SpectrumError, match=r"2.*not stabilisable"):
        eager(f, a, b, q, r)


@BOTH
def test_certificate(f, rng):
    plant = model(rng, 5, 2, extras=("s", "e"))
    (gain, x, _), certificate = matsign.certify(f)(*plant)
    expected, solution = by_scipy(f, *plant)
    assert certificate.converged
    assert certificate.backward_error < 1e-14
    assert not certificate.boundary
    assert certificate.forward_error < 1e-8
    assert max(distance(gain, expected), distance(x, solution)) < 1e-11
    assert certificate.separation > 0


@BOTH
def test_the_certificate_sees_a_lost_gain(f, rng):
    """A closed loop with an eigenvalue ever closer to the boundary of stability: the estimate stays above the error."""
    for delta in (1e-2, 1e-5, 1e-8):
        if f is lqr:
            a, exact = np.array([[delta]]), delta + np.hypot(delta, delta)  # x² - 2δx - δ² = 0
            args = a, np.eye(1), np.array([[delta * delta]]), np.eye(1)
        else:
            a, exact = np.array([[1.0]]), (delta**2 + delta * np.sqrt(delta**2 + 4)) / 2  # x² - δ²x - δ² = 0
            args = a, np.eye(1), np.array([[delta * delta]]), np.eye(1)
        (_, x, _), certificate = matsign.certify(f)(*args)
        assert abs(x[0, 0] / exact - 1) <= max(30 * certificate.forward_error, 1e-15)


@BOTH
@pytest.mark.parametrize(
    ("r", "figure"),
    [
        ([[-1.0, 0.0], [0.0, -1.0]], "-1"),
        ([[1.0, 2.0], [2.0, 1.0]], "-1"),
        ([[1e20, 0.0], [0.0, -3.0]], "-3"),
        ([[1.0, 0.0], [0.0, -1e-20]], "-1e-20"),
        ([[0.0, 1e-8], [1e-8, 0.0]], "-1e-08"),
    ],
)
def test_there_is_no_least_cost_without_a_positive_r(f, r, figure, eager):
    """A stabilising solution may exist, but it is a saddle point of the cost."""
    a, b, q = np.diag([0.5, 2.0]), np.eye(2), 30 * np.eye(2)
    with pytest.raises(SpectrumError, match=rf"r .* is not positive definite: its smallest eigenvalue is {figure};"):
        eager(f, a, b, q, np.array(r))
    batch = (np.stack([a, a]), b, q, np.stack([np.array(r), np.eye(2)]))
    result = eager(f, *batch, errors="nan")
    expected = eager(f, a, b, q, np.eye(2))
    for x, y in zip(result, expected, strict=True):
        assert np.isnan(x[0]).all()
        np.testing.assert_array_equal(x[1], y)


def test_the_equations_stay_general():
    """With r = -1 both have stabilising solutions: x² - 2 x ∓ 2 = 0, and x² - 7 x + 10 = 0."""
    one = np.eye(1)
    np.testing.assert_allclose(matsign.solve_continuous_are(one, one, -2 * one, -one), [[-1 - 3**0.5]], rtol=1e-14)
    np.testing.assert_allclose(matsign.solve_discrete_are(2 * one, one, 10 * one, -one), [[5.0]], rtol=1e-14)


def test_a_saddle_in_discrete_time_with_a_positive_r():
    """r > 0 but r + b x b < 0: x = -5 for a = 2, b = 1, q = -10, r = 1."""
    one = np.eye(1)
    np.testing.assert_allclose(matsign.solve_discrete_are(2 * one, one, -10 * one, one), [[-5.0]], rtol=1e-14)
    with pytest.raises(SpectrumError, match="not positive definite: its smallest eigenvalue is -4;"):
        dlqr(2 * one, one, -10 * one, one)


@pytest.mark.parametrize("growth", [1e6, 1e12])
def test_a_gain_that_the_digits_of_the_solution_do_not_hold(growth, rng):
    """x is so much larger than r in one direction that r + bᴴ x b, rounded, is singular; the gain must be accurate anyway."""
    a, b = np.array([[1.0, growth], [0.0, 1.0]]), gaussian(rng, 2, 3)
    plant = a, b, np.eye(2), np.eye(3)
    (gain, x, poles), certificate = matsign.certify(dlqr)(*plant)
    exact = truth.discrete_are(*plant, np.eye(2), 0 * b)
    wide = [truth.exact(y) for y in plant]
    right = truth.inverse(wide[3] + wide[1].T @ exact @ wide[1]) @ (wide[1].T @ exact @ wide[0])
    assert truth.error(gain, right) < 1e-14
    assert truth.error(x, exact) < 1e-14
    # The closed loop is far from normal, so its rounding may change the poles by any factor.
    exact_poles = [complex(y) for y in mp.eig(mp.matrix((wide[0] - wide[1] @ right).tolist()))[0]]
    wrong = [min(abs(pole - y) for y in exact_poles) for pole in poles]
    assert certificate.forward_error > np.linalg.norm(wrong) / np.linalg.norm(exact_poles) / 30
    assert certificate.forward_error < 1 or growth > 1e6
    assert np.abs(poles).max() < 1


def test_a_gain_beyond_the_range_of_single_precision_is_an_error():
    plant = np.array([[1e8]]), np.array([[1e-32]]), np.array([[1e10]]), np.zeros((1, 1))
    np.testing.assert_allclose(dlqr(*plant)[0], 1e40)
    with pytest.raises(SpectrumError, match="larger than the largest"):
        dlqr(*(x.astype("float32") for x in plant))


def test_a_weight_that_single_precision_loses_is_solved_with_in_double():
    a, b, q, r = np.diag([3e5, 0.5]), np.array([[1e14], [1e14]]), np.diag([1e20, 1.0]), np.array([[1e-3]])
    plant = [x.astype("float32") for x in (a, b, q, r)]
    exact = dlqr(*(x.astype(float) for x in plant))
    gain, x, _ = dlqr(*plant)
    np.testing.assert_allclose(gain, exact[0], rtol=1e-6)
    np.testing.assert_allclose(x, exact[1], rtol=1e-6)


@pytest.mark.slow
def test_certificate_of_a_gain_where_two_inputs_do_the_same(eager, rng):
    """r + bᴴ x b has the condition number ‖bᴴ x b‖ / r, which magnifies rounding in the difference of the two gains."""
    for _ in range(10):
        a, b = gaussian(rng, 5, 5), np.zeros((5, 2))
        b[4] = 1.0
        plant = a, b, 100 * np.eye(5), 1e-5 * np.eye(2)
        (gain, _, _), certificate = eager(matsign.certify(dlqr), *plant)
        exact = truth.discrete_are(*plant, np.eye(5), 0 * b)
        wide = [truth.exact(y) for y in plant]
        right = truth.inverse(wide[3] + wide[1].T @ exact @ wide[1]) @ (wide[1].T @ exact @ wide[0])
        assert truth.error(gain, right) < 1e-12
        assert truth.error(gain, right) < 30 * certificate.forward_error


def test_gain_of_inputs_that_do_the_same_beside_a_tiny_weight(eager, rng):
    """In 1 + 1e-12 digits are lost, also if the 1 changes by eps: only computing in other units shows it."""
    for size in 10.0 ** rng.uniform(-14, -9, 10):
        r = definite(rng, 2)
        plant = np.array([[-1.0 - 1e-3 * rng.random()]]), np.ones((1, 2)), np.eye(1), size * (r + r.T) / 2
        (gain, _, _), certificate = eager(matsign.certify(dlqr), *plant)
        a, b, _, weight = map(truth.exact, plant)
        exact = truth.discrete_are(*plant, np.eye(1), 0 * plant[1])
        right = truth.inverse(weight + b.T @ exact @ b) @ (b.T @ exact @ a)
        assert truth.error(gain, right) < 1e-12
        assert truth.error(gain, right) < 30 * max(certificate.forward_error, 2.0**-52)


@pytest.mark.slow
def test_gain_where_rounding_alone_makes_the_weight_regular(eager, rng):
    """If single precision loses r, for inputs in very different units, the gains are near zero in all systems of units."""
    a = np.array(
        [[3.76, 1.23, -0.25, -0.4], [-1.51, 3.84, 0.29, 0.56], [-0.72, 0.03, 4.16, 1.5], [-1.03, 0.51, 0.37, 4.72]]
    )
    b = np.array(
        [
            [6.71e-4, -5.76e-3, 0.106, -0.297],
            [-4.67e3, -1.5e4, -5.21e-5, -1.94e6],
            [-3.56e-5, 2.46e-6, -1.69e-6, -0.0548],
            [0.0112, -3.98e7, -5.23e-9, 1.61e-7],
        ]
    )
    for size in (0, *[0.1] * 9):
        moved = [x * (1 + size * gaussian(rng, 4, 4)) for x in (a, b)]
        plant = [x.astype("float32") for x in (*moved, 100 * np.eye(4), np.eye(4))]
        (gain, _, _), certificate = eager(matsign.certify(dlqr), *plant)
        exact = truth.discrete_are(*plant, np.eye(4), 0 * b)
        wide = [truth.exact(y) for y in plant]
        right = truth.inverse(wide[3] + wide[1].T @ exact @ wide[1]) @ (wide[1].T @ exact @ wide[0])
        assert truth.error(gain, right) < 30 * max(certificate.forward_error, 2.0**-23)
