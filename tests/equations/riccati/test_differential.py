"""solve_differential_riccati and lqr_finite_horizon: long horizons, escapes to infinity, modes without cost, times as arrays."""

import numpy as np
import pytest
import scipy.integrate

import matsign
import truth
from matrices import DTYPES, adjoint, definite, gaussian
from matsign import SpectrumError, lqr, lqr_finite_horizon, solve_continuous_are, solve_differential_riccati

TOLERANCE = {"float32": 5e-6, "float64": 1e-13, "complex64": 5e-6, "complex128": 1e-13}
I = np.eye(2)  # noqa: E741
ONE = np.eye(1)


def plant(rng, n=3, m=2, dtype="float64"):
    cost = definite(rng, n + m, dtype=dtype)
    return gaussian(rng, n, n, dtype=dtype), gaussian(rng, n, m, dtype=dtype), cost[:n, :n], cost[n:, n:], cost[:n, n:]


def distance(x, expected):
    expected = np.asarray(expected, complex)
    return np.linalg.norm(x - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_near_the_end_and_far_from_it(dtype, rng):
    a, b, q, r, s = plant(rng, dtype=dtype)
    end = definite(rng, 3, dtype=dtype)
    x, certificate = matsign.certify(solve_differential_riccati)(a, b, q, r, end, [0.0, 0.02, 0.7, 1e9], s=s)
    assert x.dtype == dtype
    assert np.array_equal(x[0], end)
    for k, t in ((1, 0.02), (2, 0.7)):
        expected = truth.differential_riccati(a, b, q, r, end, np.array(t, "float32" if "32" in dtype else float), s)
        assert distance(x[k], expected) < TOLERANCE[dtype]
    assert distance(x[3], solve_continuous_are(a, b, q, r, s=s)) < TOLERANCE[dtype]
    assert (certificate.backward_error < 20 * np.finfo(dtype).eps).all()
    assert certificate.converged.all()


# a, b, q, the weight at the end, times: no control, modes that the cost does not see, integrators, a heavy end, a stiff plant.
HARD = [
    (np.diag([1.0, -2.0]), np.zeros((2, 1)), I, I, (3.0,)),
    (np.array([[1, 0.3], [0.2, 0.5]]), np.array([[1.0], [0.5]]), 0 * I, 1e-6 * I, (1.0, 10.0, 50.0)),
    (np.array([[1, 0.3], [0.2, -0.5]]), np.array([[1.0], [0.5]]), np.diag([0, 1e-8]), np.diag([0, 1.0]), (10.0, 50.0)),
    (np.array([[0, 1.0], [0, 0]]), np.array([[0], [1.0]]), 0 * I, I, (0.1, 50.0)),
    (np.array([[0, 1.0], [-1, 0]]), np.array([[0], [1.0]]), I, 1e8 * I, (1.0, 10.0)),
    (np.diag([-40.0, 1]), np.array([[1.0], [1]]), np.array([[100, 1], [1, 1e-2]]), I, (0.5,)),
]


@pytest.mark.parametrize(("a", "b", "q", "end", "times"), HARD)
def test_hard_horizons(a, b, q, end, times):
    for t in times:
        x, certificate = matsign.certify(solve_differential_riccati)(a, b, q, ONE, end, t)
        error = distance(x, truth.differential_riccati(a, b, q, ONE, end, np.array(t)))
        assert error < 2e-14
        assert error <= certificate.forward_error


def test_modes_without_cost_over_a_long_horizon():
    """The limit stabilises the unstable modes with least energy if the end gives them any weight, however little."""
    a, b = np.array([[1, 0.3], [0.2, 0.5]]), np.array([[1.0], [0.5]])
    x = solve_differential_riccati(a, b, 0 * I, ONE, 1e-6 * I, [1e3, 1e6])
    assert np.linalg.norm(x - solve_continuous_are(a, b, 0 * I, ONE)) < 5e-14 * np.linalg.norm(x)
    with pytest.raises(SpectrumError, match="rounding of the coefficients grows"):
        solve_differential_riccati(a, b, 0 * I, ONE, 0 * I, 1e4)


def test_escape_of_a_number():
    """-x' = -1 - x²: x = -tan(t) until π/2."""
    x = solve_differential_riccati(0 * ONE, ONE, -ONE, ONE, 0 * ONE, [0, 1, 1.57, 1.58, 4.0, 100], errors="nan")[
        :, 0, 0
    ]
    assert np.allclose(x[:3], -np.tan([0, 1, 1.57]), rtol=1e-12)
    assert np.isnan(x[3:]).all()
    with pytest.raises(SpectrumError, match="escapes to infinity before the time t") as caught:
        solve_differential_riccati(0 * ONE, ONE, -ONE, ONE, 0 * ONE, [1.0, 1.58, 3.2])
    assert caught.value.members == [(1,), (2,)]


def test_escapes_are_those_of_an_integrator(rng):
    """Indefinite weights, with r of either sign: an integrator in steps blows up exactly where the call fails."""
    escaped = 0
    for _ in range(30):
        a, b, q, _, _ = plant(rng, n=2)
        q, end, r = q - I, gaussian(rng, 2, 2), I * rng.choice([-1.0, 1.0])
        end, g, t = end + end.T, b @ b.T * r[0, 0], 10.0 ** rng.uniform(-1.5, 0.7)

        def rate(_, x, a=a, g=g, q=q):
            x = x.reshape(2, 2)
            return (a.T @ x + x @ a - x @ g @ x + q).ravel()

        def too_large(_, x):
            return np.abs(x).max() - 1e7

        too_large.terminal = True
        found = scipy.integrate.solve_ivp(rate, (0, t), end.ravel(), "DOP853", rtol=1e-10, atol=1e-10, events=too_large)
        x = solve_differential_riccati(a, b, q, r, end, t, errors="nan").ravel()
        assert np.isnan(x).any() == (found.status != 0)
        escaped += found.status != 0
        if found.status == 0:
            assert distance(x, found.y[:, -1]) < 1e-6
    assert 5 < escaped < 25


def test_a_game():
    """r of both signs: decided from an end whose rate of change is semidefinite, as from 0; not from any end."""
    b, r = np.array([[1.0, 0.5]]), np.diag([1.0, -1.0])
    x = solve_differential_riccati(0 * ONE, b, ONE, r, 0 * ONE, 2.0)
    assert x[0, 0] == pytest.approx(np.tanh(2 * 0.75**0.5) / 0.75**0.5, rel=1e-14)  # g = 1 - 1/4
    with pytest.raises(SpectrumError, match="is not decided"):
        solve_differential_riccati(np.diag([1.0, -1]), I, np.diag([1.0, -9]), r, 0 * I, 1.0)


WITHOUT = [
    ((-I, I, I, 0 * I, I, 1.0), "r is singular"),
    ((-I, I, I, I, I, [1.0, np.nan]), "NaN or infinity"),
    ((-I, I, I, I, I, np.array([1.0, -1.0])), "is negative"),
    ((0 * I, I, 0 * I, I, I, 1e40), "rounding of the coefficients"),
    ((I, 0 * I, I, I, I, 1e4), "overflows"),
]


@pytest.mark.parametrize(("arguments", "text"), WITHOUT)
def test_what_has_no_solution(arguments, text):
    with pytest.raises(SpectrumError, match=text):
        solve_differential_riccati(*arguments)


def test_regulator(rng):
    a, b, q, r, s = plant(rng)
    times, end = np.linspace(0, 3, 4), definite(rng, 3)
    (gain, x), certificate = matsign.certify(lqr_finite_horizon)(a, b, q, r, times, qf=end, s=s)
    assert np.array_equal(x, solve_differential_riccati(a, b, q, r, end, times, s=s))
    assert np.linalg.norm(r @ gain - b.T @ x - s.T) < 1e-13 * np.linalg.norm(gain)
    assert certificate.converged.all()
    assert np.linalg.norm(lqr_finite_horizon(a, b, q, r, 1e5, s=s).gain - lqr(a, b, q, r, s).gain) < 1e-12
    assert not lqr_finite_horizon(a, b, q, r, 0.0).solution.any()
    assert lqr_finite_horizon(a, b[:, :0], q, r[:0, :0], 1.0).gain.shape == (0, 3)
    with pytest.raises(SpectrumError, match="no gain has the least cost"):
        lqr_finite_horizon(a, b, q, -r, 0.01)


def test_the_least_cost_is_that_of_a_simulation():
    """The gains along the way, each from its time to the end, cost xᴴ solution x."""
    a, b, q, r, end = np.array([[0, 1.0], [1, 0]]), np.array([[0], [1.0]]), I, 0.1 * ONE, 3 * I
    length, start = 2.0, np.array([1.0, -1.0])

    def rate(t, state):
        u = -lqr_finite_horizon(a, b, q, r, length - t, qf=end).gain @ state[:2]
        return np.concatenate([a @ state[:2] + b @ u, [state[:2] @ q @ state[:2] + u @ r @ u]])

    found = scipy.integrate.solve_ivp(rate, (0, length), [*start, 0], rtol=1e-8, atol=1e-8).y[:, -1]
    x = lqr_finite_horizon(a, b, q, r, length, qf=end).solution
    assert found[2] + found[:2] @ end @ found[:2] == pytest.approx(start @ x @ start, rel=1e-6)


def test_one_bad_member_leaves_the_others(rng):
    a, b, q, r, _ = (np.stack([x, x]) for x in plant(rng))
    b[1, 0, 0] = np.nan
    gain, x = lqr_finite_horizon(a, b, q, r, np.array([[1.0], [2.0]]), errors="nan")
    assert gain.shape == (2, 2, 2, 3)
    assert np.isnan(x[:, 1]).all()
    for k, t in enumerate((1.0, 2.0)):
        assert np.array_equal(gain[k, 0], lqr_finite_horizon(a[0], b[0], q[0], r[0], t).gain)


def test_models_and_units():
    model = pytest.importorskip("scipy.signal").StateSpace([[0, 1.0], [0, 0]], [[0], [1.0]], I, np.zeros((2, 1)))
    gain = lqr_finite_horizon(model, 1, 1, 2.0).gain
    assert np.array_equal(gain, lqr_finite_horizon(model.A, model.B, I, ONE, 2.0).gain)
    fast = lqr_finite_horizon(model.A * 1e100, model.B * 1e100, 1, 1, 2e-100)  # another unit of time
    assert np.allclose(fast.gain, gain, rtol=1e-13)
    small = lqr_finite_horizon(model.A, model.B * 1e-100, 1, 1e-200, 2.0)  # another unit of inputs
    assert np.allclose(small.gain * 1e-100, gain, rtol=1e-13)


def test_states_in_units_far_apart(rng):
    """They are scaled as far as the solution can be: not only as far as its squares can."""
    for dtype, units, tolerance in (("float64", (1e40, 1, 1e-40), 1e-12), ("float32", (1e9, 1, 1e-9), 1e-5)):
        d = np.array(units, dtype)
        a, b = gaussian(rng, 3, 3, dtype=dtype), gaussian(rng, 3, 1, dtype=dtype)
        q, r = np.eye(3, dtype=dtype), np.eye(1, dtype=dtype)
        weight = q / d / d[:, None]
        x = solve_differential_riccati(a, b, q, r, q, 1.5)
        found = solve_differential_riccati(d[:, None] * a / d, d[:, None] * b, weight, r, weight, 1.5)
        np.testing.assert_allclose(d[:, None] * found * d, x, atol=tolerance * np.abs(x).max())


def test_derivative_in_time_in_torch(rng):
    torch = pytest.importorskip("torch")
    a, b, q, r, _ = (torch.tensor(x) for x in plant(rng))
    times = torch.tensor([0.3, 1.0], dtype=torch.float64, requires_grad=True)

    def gain(times):
        return lqr_finite_horizon(a, b, q, r, times, qf=q).gain

    assert torch.autograd.gradcheck(gain, times, fast_mode=True)
    assert torch.autograd.gradgradcheck(gain, times, fast_mode=True)


@pytest.mark.slow
@pytest.mark.compiles
def test_derivatives_of_order_two_in_jax(rng):
    """One loop for each use of the flow: those of PyTorch, by one compiled program."""
    jax, torch = pytest.importorskip("jax"), pytest.importorskip("torch")
    a, b, q, r, _ = plant(rng, n=2, m=1)

    def cost(library, a, t):
        return (solve_differential_riccati(a, *(library.asarray(x) for x in (b, q, r, q)), t) ** 2).sum()

    def slope(a):
        return (jax.grad(lambda a: cost(jax.numpy, a, 0.8))(a) ** 2).sum()

    found = jax.jit(jax.grad(slope))(jax.numpy.asarray(a))
    at = torch.tensor(a, requires_grad=True)
    (once,) = torch.autograd.grad(cost(torch, at, 0.8), at, create_graph=True)
    assert np.allclose(found, torch.autograd.grad((once**2).sum(), at)[0], rtol=1e-11)


def test_results_are_hermitian_to_the_last_bit(rng):
    a, b, q, r, _ = plant(rng, dtype="complex128")
    x = solve_differential_riccati(a, b, q, r, q, [0.1, 5.0])
    assert np.array_equal(x, adjoint(x))
