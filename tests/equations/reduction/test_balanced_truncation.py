"""Hankel singular values and balanced truncation: exact arithmetic, the error bound, systems that are not minimal."""

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import matsign
import truth
from matrices import DTYPES, gaussian, similar, stable, transfer
from matsign import balanced_truncation, certify, hankel_singular_values
from problems import TOLERANCE


def system(rng, n, m=2, p=1, dtype="float64"):
    return -stable(rng, n, dtype), gaussian(rng, n, m, dtype=dtype), gaussian(rng, p, n, dtype=dtype)


def exact_values(a, b, c):
    """√λ(x w) in many digits: λ(x w) = λ(lᴴ w l) for x = l lᴴ."""
    b, c = truth.exact(b), truth.exact(c)
    half = truth.principal_factor(truth.lyapunov(a, -b @ truth.adjoint(b)))
    w = truth.lyapunov(a.conj().T, -truth.adjoint(c) @ c)
    values = mp.eighe(mp.matrix((truth.adjoint(half) @ w @ half).tolist()), eigvals_only=True)
    return np.array([float(mp.sqrt(abs(mp.re(v)))) for v in reversed(list(values))])


def largest_gap(full, small):
    return max(
        np.linalg.norm(transfer(1j * w, *full) - transfer(1j * w, *small), 2)
        for w in np.concatenate([-np.geomspace(1e-3, 1e3, 60), [0], np.geomspace(1e-3, 1e3, 60)])
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_equal_the_exact_ones(dtype, everywhere, rng):
    if everywhere.jit and dtype != "float64":
        pytest.skip("compiling takes long")
    arguments = system(rng, 4, dtype=dtype)
    values = everywhere(hankel_singular_values, *arguments)
    exact = exact_values(*arguments)
    assert values.dtype == np.zeros(1, dtype).real.dtype
    assert np.abs(values - exact).max() < TOLERANCE[dtype] * exact[0]


def test_values_far_below_the_first_are_right(rng):
    """Products of Gramians lose values below √eps of the first one; factors keep them down to eps."""
    n = 12
    a = np.diag(-np.arange(1.0, n + 1))
    b, c = np.ones((n, 1)), np.ones((1, n))
    values, exact = hankel_singular_values(a, b, c), exact_values(a, b, c)
    for k in range(n):
        assert abs(values[k] - exact[k]) < 1e-15 * exact[0]
    tiny = np.flatnonzero(exact < 1e-10 * exact[0])[0]
    assert abs(values[tiny] / exact[tiny] - 1) < 1e-4
    products = matsign.solve_continuous_lyapunov(a, -b @ b.T) @ matsign.solve_continuous_lyapunov(a.T, -c.T @ c)
    assert abs(np.sort(np.sqrt(np.abs(np.linalg.eigvals(products))))[::-1][tiny] / exact[tiny] - 1) > 1


@pytest.mark.parametrize("n", [6, 80])
def test_the_bound_holds_and_the_model_is_balanced(n, rng):
    full = system(rng, n)
    for order in (1, 3, 5):
        small = balanced_truncation(*full, order)
        assert small.hsv.shape == (n,)
        x = np.diag(small.hsv[:order])
        for gap in (
            small.a @ x + x @ small.a.T + small.b @ small.b.T,
            small.a.T @ x + x @ small.a + small.c.T @ small.c,
        ):
            assert np.linalg.norm(gap) < 1e-9 * np.linalg.norm(small.a) * small.hsv[0]
        assert np.linalg.eigvals(small.a).real.max() < 0
        assert largest_gap(full, small[:4]) <= 2 * small.hsv[order:].sum() + 1e-12 * small.hsv[0]


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_keeping_everything_keeps_the_transfer_function(dtype, everywhere, rng):
    if everywhere.jit:
        pytest.skip("the next test has it")
    full = system(rng, 4, dtype=dtype)
    small = everywhere(lambda *x: balanced_truncation(*x, order=4), *full)
    assert largest_gap(full, small[:4]) < 1e-11


@pytest.mark.compiles
def test_under_jit(rng):
    jax = pytest.importorskip("jax")
    full = [np.stack(x) for x in zip(*(system(rng, 4) for _ in range(3)), strict=True)]
    small = jax.jit(lambda a, b, c: balanced_truncation(a, b, c, 2))(*full)
    plain = balanced_truncation(*full, 2)
    assert type(small) is type(plain)
    for x, y in zip(small, plain, strict=True):
        assert np.abs(np.asarray(x) - y).max() <= 1e-10 * np.abs(y).max()


def test_states_that_nobody_reaches_are_left_out(on, rng):
    """A model with one relevant state and four others: order 3 has the transfer function of order 1."""
    a, b, c = np.diag([-1.0, -2.0, -3.0, -4.0, -5.0]), np.eye(5)[:, :1], np.ones((1, 5))
    small = on(lambda *x: balanced_truncation(*x, order=3), a, b, c)
    assert (small.hsv[1:] < 1e-15).all()
    assert largest_gap((a, b, c), small[:4]) < 1e-14
    assert np.linalg.eigvals(small.a).real.max() < 0


@given(seed=st.integers(0, 2**32 - 1), dtype=st.sampled_from(DTYPES))
def test_a_member_has_the_bits_that_it_has_alone(seed, dtype):
    rng = np.random.default_rng(seed)
    stacks = [np.stack(x) for x in zip(*(system(rng, 4, dtype=dtype) for _ in range(4)), strict=True)]
    values, models = hankel_singular_values(*stacks), balanced_truncation(*stacks, 2)
    for k in range(4):
        np.testing.assert_array_equal(values[k], hankel_singular_values(*(x[k] for x in stacks)))
        for x, y in zip(models, balanced_truncation(*(x[k] for x in stacks), 2), strict=True):
            np.testing.assert_array_equal(x[k], y)


@pytest.mark.parametrize("order", [0, 4, -1, 1.0, True, None])
def test_an_order_that_is_none(order, rng):
    with pytest.raises(ValueError, match="order"):
        balanced_truncation(*system(rng, 3), order)


@pytest.mark.parametrize("s", [2.0**64, 2.0**-64])
def test_scaling_input_and_output(s, rng):
    a, b, c = system(rng, 4)
    values = hankel_singular_values(a, b, c)
    np.testing.assert_array_equal(hankel_singular_values(a, s * b, c), s * values)
    np.testing.assert_array_equal(hankel_singular_values(s * a, b, s * c), values)
    small, scaled = balanced_truncation(a, b, c, 2), balanced_truncation(a, s * b, c, 2)
    np.testing.assert_array_equal(scaled.a, small.a)
    np.testing.assert_array_equal(scaled.b, np.sqrt(s) * small.b)
    np.testing.assert_array_equal(scaled.c, np.sqrt(s) * small.c)


@pytest.mark.parametrize("exponent", [-300, -155, 155, 300])
@pytest.mark.filterwarnings("error")
def test_the_whole_range_of_numbers(exponent, eager, rng):
    (a, b, c), s = system(rng, 4), 4.0 ** round(exponent * 1.66)
    values, model = hankel_singular_values(a, b, c), balanced_truncation(a, b, c, 2)
    for arguments, scale, of_a in (((a, s * b, c), s, 1.0), ((s * a, b, c), 1 / s, s), ((s * a, s * b, c), 1.0, s)):
        found, certificate = eager(certify(hankel_singular_values), *arguments)
        assert np.linalg.norm(found / scale - values) < 1e-13 * values[0]
        assert 0 < certificate.forward_error < 1e-12
        assert certificate.backward_error < 1e-13
        small, certificate = eager(certify(balanced_truncation), *arguments, 2)
        assert np.linalg.norm(small.a / of_a - model.a) < 1e-11 * np.linalg.norm(model.a)
        assert 0 < certificate.forward_error < 1e-11
    if exponent < 0:
        with pytest.raises(matsign.SpectrumError, match="larger than the largest number"):
            eager(hankel_singular_values, s * a, b / s, c)


def test_values_at_the_level_of_rounding_are_not_given_up():
    """The error bound of a small value is at most that of yᴴ z."""
    a = -58.0 * np.eye(5) + np.diag([0, 1e-10, 75.0, 0], 1)
    _, certificate = certify(hankel_singular_values)(a, np.ones((5, 5)), np.arange(25.0).reshape(5, 5) - 9)
    assert certificate.forward_error < 1e-12


@pytest.mark.parametrize("distance", [1e-3, 1e-7])
def test_certificate_sees_what_is_near_the_axis(distance, rng):
    a = similar(rng, np.diag([-distance, -1.0, -2.0]))
    b, c = gaussian(rng, 3, 1), gaussian(rng, 1, 3)
    values, certificate = certify(hankel_singular_values)(a, b, c)
    exact = exact_values(a, b, c)
    error = np.linalg.norm(values - exact) / np.linalg.norm(exact)
    assert error < 30 * certificate.forward_error
    assert certificate.forward_error < 1e4 * error + 1e-13
    _, certificate = certify(balanced_truncation)(a, b, c, 2)
    assert error < 30 * certificate.forward_error


@pytest.mark.parametrize("size", [1e-8, 1e-4])
def test_residual_sees_wrong_values(size, rng):
    a, b, c = (x[None] for x in system(rng, 4))
    wrong = hankel_singular_values(a, b, c) * (1 + size)
    residual = hankel_singular_values.spec.residual(matsign.backends.load("numpy"), (wrong,), a, b, c, dt=None)
    assert np.linalg.norm(residual.correction[0]) == pytest.approx(size * np.linalg.norm(wrong), rel=0.1)


def test_inputs_stay_as_they_were(rng):
    arguments = system(rng, 5)
    before = [x.copy() for x in arguments]
    balanced_truncation(*arguments, 2)
    for x, y in zip(arguments, before, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("f", [hankel_singular_values, lambda *system: matsign.balanced_truncation(*system, 1).hsv])
def test_complex_systems_without_states_are_quiet(f):
    values = f(np.zeros((0, 0), complex), np.zeros((0, 2), complex), np.zeros((3, 0), complex))
    assert values.shape == (0,)
    assert values.dtype == np.float64


def test_what_cancels_in_a_reduced_model_counts_in_its_certificate():
    """The rate of the kept state is a thousand times smaller than the entries that it is computed from."""
    turned = np.array([[0.8, -0.6], [0.6, 0.8]])
    a = turned @ np.diag([-2.4e-4, -1e-7]) @ turned.T
    b, c = np.array([[3.0, 1.0], [1.0, -2.0]]), np.array([[1.0, 0.5]])
    small, certificate = certify(matsign.balanced_truncation)(a, b, c, 1)
    other, _ = certify(matsign.balanced_truncation)(turned.T @ a @ turned, turned.T @ b, c @ turned, 1)
    assert abs(small.a - other.a) < 30 * certificate.forward_error * abs(small.a)
    assert 1e-14 < certificate.forward_error < 1e-9
