"""The Riemannian distance: beside 60 digits, near and graded pairs, units, gradients, matrices that are not definite."""

import mpmath as mp
import numpy as np
import pytest

from conftest import JAX
from gradients import gradient
from matrices import definite, gaussian
from matsign import SpectrumError, certify, condition, frechet, geometric_mean, riemannian_distance


def exact(a, b):
    """In 60 digits, by the eigenvalues of K⁻¹ B K⁻ᴴ."""
    with mp.workdps(60):
        a, b = (mp.matrix(x.tolist()) for x in (a, b))
        inverse = mp.inverse(mp.cholesky(a, tol=0))
        values = mp.eighe(inverse * b * inverse.H)[0]
        return float(mp.sqrt(sum(mp.log(x) ** 2 for x in values)))


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_equals_the_formula(everywhere, dtype, rng):
    if everywhere.jit and dtype != "float64":
        pytest.skip("compiling takes long")
    a, b = (np.stack([definite(rng, 3, dtype=dtype) for _ in range(3)]) for _ in range(2))
    b[2] = a[2]
    value, certificate = everywhere(certify(riemannian_distance), a, b)
    expected = [exact(x, y) for x, y in zip(a, b, strict=True)]
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(value[:2], expected[:2], rtol=1e2 * eps)
    assert value[2] == 0
    assert value.dtype == np.zeros(0, dtype).real.dtype
    assert (certificate.backward_error < 1e2 * eps).all()
    assert (certificate.forward_error < 1e3 * eps).all()
    np.testing.assert_array_equal(riemannian_distance(a, b, squared=True) ** 0.5, riemannian_distance(a, b))


def graded(a, b, units):
    return units[:, None] * a * units, units[:, None] * b * units


def test_near_graded_and_scaled_pairs_keep_their_digits(on, rng):
    a, b, e = (definite(rng, 4) for _ in range(3))
    pairs = [(a, a + t * e) for t in (1e-3, 1e-8, 1e-13)]
    pairs += [(1e150 * a, 1e-150 * b), (1e-150 * a, 1e-150 * (a + 1e-9 * e))]
    pairs += [graded(a, b, 2.0 ** np.array([0, -90, 60, 7]))]
    for x, y in pairs:
        np.testing.assert_allclose(on(riemannian_distance, x, y), exact(x, y), rtol=1e-12)
    x = np.diag([1e-28, 1e-14, 1.0, 3.0])  # wide spectra: half from the inverse
    np.testing.assert_allclose(on(riemannian_distance, x, np.eye(4)), np.linalg.norm(np.log(np.diag(x))), rtol=1e-14)


def test_invariance_and_the_length_of_the_geodesic(rng):
    a, b, m = definite(rng, 4), definite(rng, 4), gaussian(rng, 4, 4)
    d = riemannian_distance(a, b)
    np.testing.assert_allclose(riemannian_distance(m @ a @ m.T, m @ b @ m.T), d, rtol=1e-11)
    np.testing.assert_allclose(riemannian_distance(np.linalg.inv(a), np.linalg.inv(b)), d, rtol=1e-11)
    np.testing.assert_allclose(riemannian_distance(a, geometric_mean(a, b, t=0.3)), 0.3 * d, rtol=1e-11)


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_derivatives(squared, dtype, rng):
    torch = pytest.importorskip("torch")
    a, b = definite(rng, 3, dtype=dtype), definite(rng, 3, dtype=dtype)

    def f(x, y):
        return riemannian_distance(x, y, squared=squared)

    x, y = (torch.from_numpy(m).requires_grad_() for m in (a, b))
    assert torch.autograd.gradcheck(f, (x, y))
    assert torch.autograd.gradgradcheck(f, (x, y), fast_mode=True, atol=1e-4)
    da, db = (definite(rng, 3, dtype=dtype) - np.eye(3) / 2 for _ in range(2))
    h = 1e-4
    difference = (f(a + h * da, b + h * db) - f(a - h * da, b - h * db)) / (2 * h)
    slope = frechet(riemannian_distance)(a, b, da, db, squared=squared)
    np.testing.assert_allclose(slope, difference, rtol=1e-6)
    assert 0.1 < condition(riemannian_distance)(a, b, squared=squared) < 100


@pytest.mark.parametrize("library", ["torch", JAX])
def test_gradients_at_equal_arguments_are_zero(library, rng):
    a = definite(rng, 3)
    assert not gradient(library, lambda x, y: riemannian_distance(x, y, squared=True), a, a).any()
    assert not gradient(library, riemannian_distance, a, a).any()


def test_second_derivatives_in_jax_and_at_equal_arguments(rng):
    """At A = B the Hessian of d²/2 is the metric, E → tr (A⁻¹E)²."""
    jax, torch = pytest.importorskip("jax"), pytest.importorskip("torch")
    a, b = definite(rng, 2), definite(rng, 2)
    e = definite(rng, 2)

    def along(library, x, y):
        return lambda t: riemannian_distance(
            library.asarray(x) + t * library.asarray(e), library.asarray(y), squared=True
        )

    h = 1e-4
    f = along(np, a, b)
    second = jax.jit(jax.grad(jax.grad(along(jax.numpy, a, b))))(0.0)
    np.testing.assert_allclose(second, (f(h) - 2 * f(0) + f(-h)) / h**2, rtol=1e-5)
    curvature = torch.autograd.functional.hessian(along(torch, a, a), torch.zeros((), dtype=torch.float64))
    np.testing.assert_allclose(curvature / 2, np.trace(np.linalg.matrix_power(np.linalg.solve(a, e), 2)), rtol=1e-12)


@pytest.mark.parametrize("name", ["A", "B"])
@pytest.mark.parametrize(("entry", "ratio"), [(0.0, "0"), (-2.0, "-1")])
def test_matrices_that_are_not_definite(on, name, entry, ratio):
    good = np.stack([np.eye(2)] * 3)
    bad = good.copy()
    bad[1] = np.diag([1.0, entry])
    arrays = (bad, good) if name == "A" else (good, bad)
    text = f"batch members 1: {name} is not positive definite to working precision: its smallest eigenvalue is {ratio} times"
    with pytest.raises(SpectrumError, match=f"^riemannian_distance: {text}"):
        on(riemannian_distance, *arrays)
    assert np.isnan(on(riemannian_distance, *arrays, errors="nan")).tolist() == [False, True, False]


def test_sizes_zero_and_one_and_bad_input():
    assert riemannian_distance(np.zeros((0, 0)), np.zeros((0, 0))) == 0
    assert riemannian_distance([[1]], [[3]]) == pytest.approx(np.log(3))
    with pytest.raises(ValueError, match=r"^riemannian_distance: B is not Hermitian"):
        riemannian_distance(np.eye(2), np.array([[1.0, 0.5], [0.0, 1.0]]))
    with pytest.raises(ValueError, match=r"^riemannian_distance: squared must be True or False"):
        riemannian_distance(np.eye(2), np.eye(2), squared="yes")


def test_large_matrices_of_moderate_condition_are_definite():
    """The bound of the condition that traces give is n times the condition."""
    one, mean = np.eye(256, dtype=np.float32), np.full((256, 256), 1 / 256, np.float32)
    a, b = one - (1 - 1e-3) * mean, one - (1 - 4e-3) * mean
    assert abs(riemannian_distance(a, b) / np.log(4) - 1) < 1e-3
    with pytest.raises(SpectrumError, match="not positive definite to working precision"):
        riemannian_distance(one - (1 - 1e-5) * mean, b)  # below n eps
