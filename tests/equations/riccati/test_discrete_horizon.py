"""dlqr_finite_horizon, dlqr_time_varying: exact recursions, singular and indefinite weights, the limit, loops in JAX."""

import numpy as np
import pytest

import matsign
import truth
from matrices import DTYPES, adjoint, definite, gaussian
from matsign import SpectrumError, dlqr, dlqr_finite_horizon, dlqr_time_varying

TOLERANCE = {"float32": 5e-6, "float64": 1e-14, "complex64": 5e-6, "complex128": 1e-14}
I = np.eye(2)  # noqa: E741
ONE = np.eye(1)
CART = np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([[0.0], [1.0]])


def plant(rng, n=3, m=2, dtype="float64"):
    """a, b, q, r, s, and a weight at the end."""
    cost = definite(rng, n + m, dtype=dtype)
    a, b = gaussian(rng, n, n, dtype=dtype), gaussian(rng, n, m, dtype=dtype)
    return a, b, cost[:n, :n], cost[n:, n:], cost[:n, n:], definite(rng, n, dtype=dtype)


def exact(a, b, q, r, steps, qf=None, s=None):
    qf, s = 0 * a if qf is None else qf, 0 * b if s is None else s
    return truth.discrete_horizon(*([x] * steps for x in (a, b, q, r)), qf, [s] * steps)


def errors(value, expected):
    """The relative errors of the gains and of the solutions, each of all steps together."""
    pairs = zip(value, expected, strict=True)
    return [np.linalg.norm((x - y).astype(complex)) / np.linalg.norm(y.astype(complex)) for x, y in pairs]


@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_the_recursion(dtype, rng):
    a, b, q, r, s, end = plant(rng, dtype=dtype)
    value, certificate = matsign.certify(dlqr_finite_horizon)(a, b, q, r, 5, qf=end, s=s)
    assert value.gain.shape == (5, 2, 3)
    assert value.solution.shape == (6, 3, 3)
    assert value.gain.dtype == value.solution.dtype == dtype
    assert np.array_equal(value.solution[-1], end)
    assert np.array_equal(value.solution, adjoint(value.solution))
    error = max(errors(value, exact(a, b, q, r, 5, end, s)))
    assert error < TOLERANCE[dtype]
    assert error <= certificate.forward_error
    assert certificate.backward_error < 10 * np.finfo(dtype).eps
    assert certificate.converged


# a, b, q, r, the weight at the end: inputs without a weight, units of states and of inputs, weak modes, a cheap control.
HARD = [
    (np.array([[1, 2.0], [3, 4]]), I, I, 0 * I, I),
    (*CART, 0 * I, 0 * ONE, I),
    (np.diag([1e80, 1e-80]) @ np.array([[1, 2], [3, 4]]) @ np.diag([1e-80, 1e80]), np.array([[1e80], [1e-80]]),
     np.diag([1e-160, 1e160]), ONE, 0 * I),
    (np.array([[2, 1.0], [0, 0.5]]), np.array([[1.0, 1e-100], [1, -1e-100]]), I, np.diag([1, 1e-200]), 0 * I),
    (*CART, 1e300 * I, 1e300 * ONE, 0 * I),
    (*CART, I, 1e-14 * ONE, I),
    (np.array([[3, 0.1], [0, 0.5]]), np.array([[1e-6], [1]]), np.diag([0, 1.0]), ONE, np.diag([1e-9, 0])),
    (*CART, np.diag([-0.1, 1]), ONE, I),
]  # fmt: skip


@pytest.mark.parametrize(("a", "b", "q", "r", "end"), HARD)
def test_hard_recursions(a, b, q, r, end):
    steps = 2 if not r.any() and b.shape[1] == 1 else 6
    value, certificate = matsign.certify(dlqr_finite_horizon)(a, b, q, r, steps, qf=end)
    for k, expected in enumerate(exact(a, b, q, r, steps, end)):
        wrong = np.abs((value[k] - expected).astype(float))
        assert (wrong <= 1e-13 * np.abs(expected).astype(float).max(0)).all()
    assert certificate.backward_error < 1e-15
    assert certificate.forward_error < 1e-12


def test_many_steps_lead_to_the_stationary_regulator(rng):
    a, b, q, r, s, _ = plant(rng)
    regulator = dlqr_finite_horizon(a, b, q, r, 400, s=s)
    stationary = dlqr(a, b, q, r, s)
    assert np.linalg.norm(regulator.gain[0] - stationary.gain) < 1e-13 * np.linalg.norm(stationary.gain)
    assert np.linalg.norm(regulator.solution[0] - stationary.solution) < 1e-13 * np.linalg.norm(stationary.solution)


def test_the_cost_is_that_of_a_simulation(rng):
    a, b, q, r, s, end = plant(rng)
    gain, x = dlqr_finite_horizon(a, b, q, r, 4, qf=end, s=s)
    z = start = rng.standard_normal(3)
    total = 0.0
    for k in gain:
        u = -k @ z
        total += z @ q @ z + 2 * z @ s @ u + u @ r @ u
        z = a @ z + b @ u
    assert total + z @ end @ z == pytest.approx(start @ x[0] @ start, rel=1e-12)


def test_other_matrices_in_each_step(on, rng):
    """The exact recursion; a matrix, a number or a vector for all steps; a batch; the same bits as for one plant."""
    plants = [plant(rng) for _ in range(4)]
    a, b, q, r, s, end = (np.stack(x) for x in zip(*plants, strict=True))
    value, certificate = matsign.certify(dlqr_time_varying)(a, b, q, r, qf=end[0], s=s)
    error = max(errors(value, truth.discrete_horizon(a, b, q, r, end[0], s)))
    assert error < 1e-14
    assert error <= certificate.forward_error
    assert certificate.backward_error < 1e-15
    one = on(dlqr_time_varying, a, b[0, :, 0], 2.0, [3.0])
    for _ in range(2):  # the second call is not checked again
        same = on(dlqr_time_varying, np.stack([a, a]), np.stack([b[:1, :, :1]] * 4, 1)[0], 2 * np.eye(3), 3 * ONE)
    assert np.array_equal(one.gain, same.gain[1])
    constant = dlqr_time_varying(np.stack([a[0]] * 3), b[0], q[0], r[0], qf=end[0], s=s[0])
    for x, y in zip(constant, dlqr_finite_horizon(a[0], b[0], q[0], r[0], 3, qf=end[0], s=s[0]), strict=True):
        assert np.array_equal(x, y)


def test_names_of_axes(rng):
    """In DataArrays the axis of time keeps its name; that of the solutions is one longer and has its own."""
    xarray = pytest.importorskip("xarray")
    a, b = (xarray.DataArray(x, dims=list(dims)) for x, dims in ((gaussian(rng, 2, 4, 2, 2), "btij"), (CART[1], "iu")))
    value = dlqr_time_varying(a, b.expand_dims(t=4), 1, 1)
    assert value.gain.dims == ("b", "t", "u", "i")
    assert value.solution.dims == ("b", "l", "i", "i2")
    assert np.array_equal(value.gain, dlqr_time_varying(a.values, b.values, 1, 1).gain)
    assert dlqr_finite_horizon(a[0, 0], b, 1, 1, 3).solution.dims == ("l", "i", "i2")


def test_no_steps_and_wrong_numbers_of_steps(rng):
    a, b, q, r, _, end = plant(rng)
    for function in (dlqr_time_varying, lambda *xs, **kw: matsign.certify(dlqr_time_varying)(*xs, **kw)[0]):
        none = function(np.zeros((0, 3, 3)), b, q, r, qf=end)
        assert none.gain.shape == (0, 2, 3)
        assert np.array_equal(none.solution, end[None])
    assert dlqr_time_varying(a[None], b[:, :0], q, r[:0, :0]).gain.shape == (1, 0, 3)
    assert dlqr_time_varying(np.zeros((4, 0, 0)), b[:0], q[:0, :0], r).solution.shape == (5, 0, 0)
    for bad in ((a, b, q, r), (np.stack([a] * 3), np.stack([b] * 2), q, r), (a[None], b, q, np.stack([r] * 2))):
        with pytest.raises(ValueError, match=r"has shape .*, expected \(\.\.\., k, "):
            dlqr_time_varying(*bad)


WITHOUT = [
    ((*CART, I, -ONE, 3), "step and the smallest eigenvalue there are 2 and -1;"),
    ((*CART, I, 0 * ONE, 3), "step and the smallest eigenvalue there are 2 and 0;"),
    ((*CART, -I, ONE, 3), "are 1 and 0;"),
    ((I, np.ones((2, 2)), I, 0 * I, 2), "are 1 and 0;"),
    ((np.nan * I, I, I, I, 2), "NaN or infinity"),
    ((1e200 * I, 0 * I, I, I, 3), "larger than the largest number"),
]


@pytest.mark.parametrize(("arguments", "text"), WITHOUT)
def test_what_has_no_least_cost(arguments, text):
    with pytest.raises(SpectrumError, match=text):
        dlqr_finite_horizon(*arguments)


@pytest.mark.parametrize("steps", [-1, 1.0, True, None, "3", [2]])
def test_steps_that_are_no_number(steps):
    with pytest.raises(ValueError, match="steps must be a whole number of at least 0"):
        dlqr_finite_horizon(*CART, 1, 1, steps)


def test_empty_horizons_models_and_inputs(on, rng):
    a, b, q, r, _, end = plant(rng)
    none = on(lambda *xs: dlqr_finite_horizon(*xs[:4], 0, qf=xs[4]), a, b, q, r, end)
    assert none.gain.shape == (0, 2, 3)
    assert np.array_equal(none.solution, end[None])
    assert matsign.certify(dlqr_finite_horizon)(a, b, q, r, 0)[1].forward_error == 0
    gain, x = dlqr_finite_horizon(a, b[:, :0], q, r[:0, :0], 2)
    assert gain.shape == (2, 0, 3)
    assert np.allclose(x[0], q + a.T @ q @ a)
    gain, x = dlqr_finite_horizon(a[:0, :0], b[:0], q[:0, :0], r, 2)
    assert (gain.shape, x.shape) == ((2, 2, 0), (3, 0, 0))
    assert dlqr_finite_horizon(np.zeros((0, 3, 3)), b, q, r, 2).gain.shape == (0, 2, 2, 3)


def test_one_bad_member_leaves_the_others(on, rng):
    a, b, q, r, *_ = (np.stack([x] * 4) for x in plant(rng))
    a[1, 0, 0], r[2] = np.nan, -r[2]
    gain, x = on(dlqr_finite_horizon, a, b, q, r, steps=3, errors="nan")
    assert np.isnan(gain[1:3]).all()
    assert np.isnan(x[1:3]).all()
    single = on(dlqr_finite_horizon, a[0], b[0], q[0], r[0], steps=3)
    for k in (0, 3):
        assert np.array_equal(gain[k], single.gain)
        assert np.array_equal(x[k], single.solution)


def test_models_and_broadcasting(rng):
    signal = pytest.importorskip("scipy.signal")
    model = signal.StateSpace(*CART, I, np.zeros((2, 1)), dt=1.0)
    gain = dlqr_finite_horizon(model, 1, 1, 3).gain
    assert np.array_equal(gain, dlqr_finite_horizon(*CART, I, ONE, 3).gain)
    with pytest.raises(ValueError, match="use lqr_finite_horizon"):
        dlqr_finite_horizon(signal.StateSpace(*CART, I, np.zeros((2, 1))), 1, 1, 3)
    weights = rng.random((4, 1, 1, 1))
    assert dlqr_finite_horizon(np.stack([CART[0]] * 5), CART[1], weights * I, ONE, 3).gain.shape == (4, 5, 3, 1, 2)


@pytest.mark.slow
@pytest.mark.compiles
def test_derivatives_of_order_two_in_jax(rng):
    """Those of PyTorch, by one compiled program, whose length does not depend on the number of steps."""
    jax, torch = pytest.importorskip("jax"), pytest.importorskip("torch")
    from jax import export

    a, *others = plant(rng, n=2, m=1)

    def cost(library, a, steps):
        b, q, r, s, end = map(library.asarray, others)
        gain, x = dlqr_finite_horizon(a, b, q, r, steps, qf=end, s=s)
        return (gain**2).sum() + (x**2).sum()

    def slope(a):
        return (jax.grad(lambda a: cost(jax.numpy, a, 3))(a) ** 2).sum()

    found = jax.jit(jax.grad(slope))(jax.numpy.asarray(a))
    at = torch.tensor(a, requires_grad=True)
    (once,) = torch.autograd.grad(cost(torch, at, 3), at, create_graph=True)
    assert np.allclose(found, torch.autograd.grad((once**2).sum(), at)[0], rtol=1e-11)
    programs = (
        export.export(jax.jit(jax.grad(lambda a, k=k: cost(jax.numpy, a, k))), platforms=["cuda"])(a) for k in (3, 100)
    )
    short, long = (len(p.mlir_module().splitlines()) for p in programs)
    assert long < short + 50


def test_derivative_where_the_closed_loop_cancels():
    """x = q + f x⁺ a with f = a r / (r + b² x⁺) near 1e-11: dx/da = 2 f x⁺, and dx/dx⁺ = f²."""
    a, b, q, r, end = (np.array([[x]]) for x in (0.7, 0.3, 1.0, 1e-3, 1e9))
    f = a * r / (r + b**2 * end)
    for direction, exact in ((0, 2 * f * end), (4, f**2)):
        change = [np.eye(1) if k == direction else None for k in range(5)]
        _, x = matsign.frechet(matsign.dlqr_finite_horizon)(a, b, q, r, end, None, *change, None, steps=1)
        np.testing.assert_allclose(x[0], exact, rtol=1e-12)


def test_tiny_coefficients_beside_a_tiny_cost(rng):
    """With r = 0 the gain is b⁻¹ a, in any units: x b a must not underflow."""
    a, b = gaussian(rng, 2, 3, 3)
    q, end = definite(rng, 3), definite(rng, 3)
    gain, _ = dlqr_finite_horizon(1e-299 * a, 1e-299 * b, 1e-290 * q, 0 * q, 1, qf=1e-290 * end)
    np.testing.assert_allclose(gain[0], np.linalg.solve(b, a), rtol=1e-10, atol=1e-13)
