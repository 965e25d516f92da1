"""Lyapunov and Stein equations with a descriptor: ill-conditioned and singular e, spectra of all kinds, derivatives."""

import numpy as np
import pytest
import scipy.linalg as sl

import matsign
import truth
from lyapunov_collection import graded_case, triangular_case
from matrices import DTYPES, adjoint, contraction, definite, gaussian, stable, unitary
from matsign import SpectrumError, certify, gramian, lyapunov_factor, solve_continuous_lyapunov, solve_discrete_lyapunov

EPS = {"float32": 1.2e-7, "float64": 2.3e-16, "complex64": 1.2e-7, "complex128": 2.3e-16}
SOLVERS = (solve_continuous_lyapunov, solve_discrete_lyapunov)


def exact(f, a, q, e):
    if f is solve_discrete_lyapunov:
        return truth.generalized_sylvester(e, adjoint(e), -a, adjoint(a), q)
    return truth.generalized_sylvester(a, adjoint(e), e, adjoint(a), q)


def backward(f, a, q, e, x):
    """The relative change of a, e and q that explains the residual."""
    size = np.linalg.norm
    if f is solve_discrete_lyapunov:
        gap = a @ x @ adjoint(a) - e @ x @ adjoint(e) + q
        terms = size(a, 2) * size(a @ x) + size(e, 2) * size(e @ x)
    else:
        gap = a @ x @ adjoint(e) + e @ x @ adjoint(a) - q
        terms = size(a, 2) * size(e @ x) + size(e, 2) * size(a @ x)
    return size(gap) / (2 * terms + size(q))


def ill_conditioned(rng, n, condition):
    return unitary(rng, n) @ np.diag(np.geomspace(1, 1 / condition, n)) @ unitary(rng, n)


def pencils(rng, n):
    """Pencils (a, e) with cond(e) = 1e8: stable by a field of values, stable as e times a stable matrix, and mixed."""
    e, u = ill_conditioned(rng, n, 1e8), unitary(rng, n)
    mass = u @ np.diag(np.geomspace(1, 1e-8, n)) @ u.T
    damping = gaussian(rng, n, n)
    yield "definite", -(damping @ damping.T / n + np.eye(n) / 10) + (damping - damping.T) / 4, (mass + mass.T) / 2
    yield "e times a stable matrix", e @ (gaussian(rng, n, n) / n**0.5 / 2 - 1.5 * np.eye(n)), e
    yield "mixed", gaussian(rng, n, n), e


def standard_form(a, q, e):
    """SciPy's shortest route, with LU factors of e."""
    factors = sl.lu_factor(e)
    half = sl.lu_solve(factors, q).conj().T
    return sl.solve_continuous_lyapunov(sl.lu_solve(factors, a), sl.lu_solve(factors, half).conj().T)


def test_residuals_are_at_working_precision_for_an_ill_conditioned_descriptor(rng):
    for n in (4, 8):
        for name, a, e in pencils(rng, n):
            b = gaussian(rng, n, 2)
            q = -b @ b.T
            x, certificate = certify(solve_continuous_lyapunov)(a, q, e=e)
            assert backward(solve_continuous_lyapunov, a, q, e, x) < 1e-15, name
            assert certificate.backward_error < 1e-15, name
            reference = exact(solve_continuous_lyapunov, a, q, e)
            error = truth.error(x, reference)
            assert error < 10 * max(truth.error(standard_form(a, q, e), reference), 1e-15), name
            assert error < 10 * certificate.forward_error, name


def test_factors_and_gramians_are_at_working_precision_for_an_ill_conditioned_descriptor(rng):
    for n in (4, 8, 40):
        for name, a, e in list(pencils(rng, n))[:2]:
            b = gaussian(rng, n, 2)
            z, certificate = certify(lyapunov_factor)(a, b, e=e)
            for x in (z @ z.T, gramian(a, b, e=e)):
                assert backward(solve_continuous_lyapunov, a, -b @ b.T, e, x) < 1e-15, name
                if n < 40:
                    reference = exact(solve_continuous_lyapunov, a, -b @ b.T, e)
                    assert truth.error(x, reference) < 10 * certificate.forward_error, name
                    assert name != "definite" or truth.error(x, reference) < 1e-14


@pytest.mark.parametrize("f", SOLVERS)
@pytest.mark.parametrize("n", [1, 4, 7])
def test_every_method_solves_every_dtype(f, n, rng):
    for dtype in DTYPES:
        e = (np.eye(n) + 0.1 * gaussian(rng, n, n, dtype=dtype)).astype(dtype)
        a = e @ (-stable(rng, n, dtype) if f is solve_continuous_lyapunov else contraction(rng, n, dtype))
        for q in (definite(rng, n, dtype=dtype), gaussian(rng, n, n, dtype=dtype)):
            reference = exact(f, a, q, e)
            for method in ("auto", "doubling", "newton", "schur"):
                if method in f.spec.parameters.choices["method"]:
                    x = f(a, q, e=e, method=method)
                    assert x.dtype == dtype
                    assert truth.error(x, reference) < 300 * EPS[dtype], (dtype, method)
                    assert (q != adjoint(q)).any() or (x == adjoint(x)).all()


@pytest.mark.parametrize("f", SOLVERS)
def test_iterations_fail_on_mixed_spectra(f, rng):
    for n in (4, 9, 70):
        for method in set(f.spec.parameters.choices["method"]) & {"doubling", "newton"}:
            with pytest.raises(SpectrumError, match="did not converge"):
                f(np.diag(np.geomspace(0.1, 10, n) * (-1) ** np.arange(n)), np.eye(n), e=2 * np.eye(n), method=method)


@pytest.mark.parametrize("f", SOLVERS)
def test_antistable_mixed_and_large_pencils(f, rng):
    for n in (5, 9, 70):
        inside = contraction(rng, n) if f is solve_discrete_lyapunov else -stable(rng, n)
        outside = np.linalg.inv(inside) if f is solve_discrete_lyapunov else -inside
        mixed = gaussian(rng, n, n)
        e, q = np.eye(n) + gaussian(rng, n, n) / (5 * n**0.5), definite(rng, n)
        for s in (inside, outside, mixed):
            x, certificate = certify(f)(e @ s, q, e=e)
            assert backward(f, e @ s, q, e, x) < 1e-14
            assert certificate.backward_error < 1e-14
            assert 0 < certificate.forward_error < 1e-8
            assert certificate.separation > 0


def test_collections_with_descriptors():
    for f, discrete in zip(SOLVERS, (False, True), strict=True):
        for a, q, e in (
            *(triangular_case(8, t, discrete=discrete) for t in (10, 1, 20, 40)),
            *(graded_case(3, t, discrete=discrete) for t in (1.5, 10.0, 100.0)),
        ):
            x, certificate = certify(f)(a, q, e=e)
            assert backward(f, a, q, e, x) < 1e-15
            error = truth.error(x, exact(f, a, q, e))
            assert error < 1e-14
            assert error < 10 * max(certificate.forward_error, 1e-15)


@pytest.mark.parametrize("f", SOLVERS)
def test_a_singular_descriptor_is_named_with_its_condition(f, rng):
    for n in (1, 3, 8, 70):
        for smallest in (0.0, 1e-17):
            e = unitary(rng, n) @ np.diag([1.0] * (n - 1) + [smallest]) @ unitary(rng, n) if n > 1 else np.zeros((1, 1))
            for method in ("auto", "doubling", "schur"):
                with pytest.raises(SpectrumError, match=r"e is singular .* its reciprocal condition number being"):
                    f(-stable(rng, n), np.eye(n), e=e, method=method)


def test_singular_equations_are_reported_with_their_separation(rng):
    for n in (1, 3, 9):
        for method in ("auto", "schur"):
            with pytest.raises(SpectrumError, match=r"is singular to working precision.* is at most 0"):
                solve_continuous_lyapunov(np.zeros((n, n)), np.eye(n), e=2 * np.eye(n), method=method)
    e = np.eye(4) + 0.1 * gaussian(rng, 4, 4)
    with pytest.raises(SpectrumError, match=r"two eigenvalues with λ \+ conj\(μ\) = 0, .* is at most"):
        solve_continuous_lyapunov(e @ np.diag([1.0, -1.0, 2.0, 3.0]), np.eye(4), e=e)
    with pytest.raises(SpectrumError, match=r"two eigenvalues with λ conj\(μ\) = 1, .* is at most"):
        solve_discrete_lyapunov(e @ np.diag([2.0, 0.5, 0.1, 0.2]), np.eye(4), e=e)


@pytest.mark.parametrize("f", SOLVERS)
def test_units_of_states_and_equations_do_not_matter(f, rng):
    a = contraction(rng, 7) if f is solve_discrete_lyapunov else -stable(rng, 7)
    e, q = np.eye(7) + 0.1 * gaussian(rng, 7, 7), definite(rng, 7)
    x = f(a, q, e=e)
    rows, columns = (2.0 ** rng.integers(-60, 60, 7) for _ in range(2))
    y = f(rows[:, None] * a * columns, rows[:, None] * q * rows, e=rows[:, None] * e * columns)
    np.testing.assert_allclose(columns[:, None] * y * columns, x, rtol=0, atol=1e-13 * np.abs(x).max())
    for scale in (1e-100, 1e100):
        y = f(scale * a, scale**2 * q, e=scale * e)
        np.testing.assert_allclose(y, x, rtol=0, atol=1e-14 * np.abs(x).max())


@pytest.mark.parametrize("f", SOLVERS)
def test_batches_libraries_and_chunks(f, eager, rng):
    a = 0.3 * contraction(rng, 6) - (0 if f is solve_discrete_lyapunov else 1) * np.eye(6)
    a = np.stack([a, gaussian(rng, 6, 6), a.T])
    e, q = np.eye(6) + 0.1 * gaussian(rng, 6, 6), definite(rng, 6)
    together = eager(f, a, q, e=eager.array(e))
    for k in range(3):
        np.testing.assert_array_equal(together[k], f(a[k], q, e=e))
    da = pytest.importorskip("dask.array")
    np.testing.assert_array_equal(f(da.from_array(a, chunks=(1, 6, 6)), q, e=e).compute(), f(a, q, e=e))


@pytest.mark.parametrize("f", SOLVERS)
def test_derivatives_with_respect_to_the_descriptor(f, rng):
    a, e, q = 0.4 * gaussian(rng, 3, 3), np.eye(3) + 0.1 * gaussian(rng, 3, 3), gaussian(rng, 3, 3)
    arrays = (a - 2 * np.eye(3) if f is solve_continuous_lyapunov else a / 4, q, e)
    directions = [gaussian(rng, 3, 3) for _ in arrays]
    ahead, behind = ([x + h * d for x, d in zip(arrays, directions, strict=True)] for h in (1e-5, -1e-5))
    difference = (f(*ahead[:2], e=ahead[2]) - f(*behind[:2], e=behind[2])) / 2e-5
    np.testing.assert_allclose(matsign.frechet(f)(*arrays, *directions), difference, atol=1e-8)
    along_q = matsign.frechet(f)(*arrays[:2], 0 * q, directions[1], e=e)
    np.testing.assert_allclose(along_q, f(arrays[0], directions[1], e=e), atol=1e-13)
    assert matsign.condition(f)(arrays[0], q, e=e) > 1
    with pytest.raises(TypeError, match="two values of e"):
        matsign.frechet(f)(*arrays, *directions, e=e)


@pytest.mark.parametrize("f", SOLVERS)
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_second_derivatives(f, dtype, rng):
    torch = pytest.importorskip("torch")
    a = 0.2 * gaussian(rng, 2, 2, dtype=dtype) - (2 * np.eye(2) if f is solve_continuous_lyapunov else 0)
    numbers = (a, gaussian(rng, 2, 2, dtype=dtype), np.eye(2) + 0.1 * gaussian(rng, 2, 2, dtype=dtype))
    arrays = [torch.tensor(x, requires_grad=True) for x in numbers]
    assert torch.autograd.gradcheck(lambda a, q, e: f(a, q, e=e), arrays)
    assert torch.autograd.gradgradcheck(lambda a, q, e: f(a, q, e=e), arrays)


@pytest.mark.compiles
def test_jax_differentiates_compiles_and_transposes(rng):
    jax = pytest.importorskip("jax")
    a, q, e = (
        jax.numpy.asarray(x) for x in (-stable(rng, 4), gaussian(rng, 4, 4), np.eye(4) + 0.1 * gaussian(rng, 4, 4))
    )

    def solve(a, q, e):
        return solve_continuous_lyapunov(a, q, e=e)

    np.testing.assert_array_equal(jax.jit(solve)(a, q, e), solve(*map(np.asarray, (a, q, e))))
    transposed = jax.linear_transpose(lambda q: solve(a, q, e), q)(q)[0]
    np.testing.assert_allclose(transposed, solve(a.T, q, e.T), atol=1e-13)
    _, change = jax.jvp(solve, (a, q, e), (a, q, e))  # of degree -1 in a and in e, 1 in q
    np.testing.assert_allclose(change, -solve(a, q, e), atol=1e-13)
    second = jax.hessian(lambda t: solve(a, q, t * e).sum())(1.0)
    np.testing.assert_allclose(second, 2 * solve(a, q, e).sum(), rtol=1e-12)
    assert np.isnan(jax.jit(solve)(a, q, 0 * e)).all()


def test_a_descriptor_in_units_that_do_not_suit_a(rng):
    """No units make a and D e D⁻¹ even: corrections bring the small entries of x to the accuracy of the large ones."""
    units = 10.0 ** -np.arange(0, 9, 3)
    for _ in range(4):
        a, e, q = gaussian(rng, 3, 3), units[:, None] * gaussian(rng, 3, 3) / units, gaussian(rng, 3, 3)
        x, certificate = certify(solve_continuous_lyapunov)(a, q, e=e)
        error = float(truth.error(x, exact(solve_continuous_lyapunov, a, q, e)))
        assert error < 1e-13
        assert error < 10 * certificate.forward_error + 1e-15


def test_rows_and_columns_in_units_far_apart(eager, rng):
    """Entries from 1e-200 to 1e200: in one unit the least would underflow before the rows and columns get their own."""
    n, columns, rows = 4, np.array([1e100, 1, 1e-100, 1]), np.array([1, 1e100, 1, 1e-100])
    a, e, b = gaussian(rng, n, n) - 5 * np.eye(n), np.eye(n) + 0.1 * gaussian(rng, n, n), gaussian(rng, n, 2)

    def pencil(x):
        return x * columns * rows[:, None]

    q, far_q = -(b @ b.T), -(b @ b.T) * rows * rows[:, None]
    x = matsign.solve_continuous_lyapunov(a, q, e=e)
    stein = matsign.solve_discrete_lyapunov(a / 20, -q, e=e)
    found = [
        (eager(solve_continuous_lyapunov, pencil(a), far_q, e=eager.array(pencil(e))), x),
        (eager(solve_discrete_lyapunov, pencil(a / 20), -far_q, e=eager.array(pencil(e))), stein),
        (eager(gramian, pencil(a), b * rows[:, None], e=eager.array(pencil(e))), x),
    ]
    z, certificate = certify(lyapunov_factor)(pencil(a), b * rows[:, None], e=pencil(e))
    assert max(certificate.forward_error, certificate.backward_error) < 1e-13
    found.append((z @ z.T, x))
    for far, near in found:
        np.testing.assert_allclose(far * columns * columns[:, None], near, rtol=0, atol=1e-13 * np.abs(near).max())
