"""Distances of factors and of samples: beside those of the matrices, few and many columns, gradients, scales, bad input."""

import numpy as np
import pytest

from conftest import JAX
from gradients import gradient
from matrices import adjoint, gaussian
from matsign import (
    SpectrumError,
    bures_distance,
    bures_distance_of_factors,
    certify,
    condition,
    fidelity,
    fidelity_of_factors,
    frechet_distance,
    frechet_distance_of_samples,
)

COLUMNS = [(4, 2, 3), (4, 3, 1), (4, 6, 2), (3, 4, 5), (3, 3, 3)]


def hermitian_square(f):
    a = f @ adjoint(f)
    return (a + adjoint(a)) / 2


def of_moments(x, y):
    return frechet_distance(x.mean(0), np.cov(x.T), y.mean(0), np.cov(y.T), rtol=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
def test_equal_those_of_the_matrices(eager, dtype, rng):
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    for n, k, m in COLUMNS:
        f, g = gaussian(rng, 2, n, k, dtype=dtype), gaussian(rng, 2, n, m, dtype=dtype)
        wide = [x.astype(np.result_type(x, np.float64)) for x in (f, g)]
        a, b = map(hermitian_square, wide)
        for of_factors, of_matrices in ((bures_distance_of_factors, bures_distance), (fidelity_of_factors, fidelity)):
            value, certificate = eager(certify(of_factors), f, g)
            assert value.dtype == np.zeros(0, dtype).real.dtype
            np.testing.assert_allclose(value, of_matrices(a, b, rtol=1e-13), rtol=tolerance)
            assert (certificate.backward_error < 1e2 * np.finfo(dtype).eps).all()
            assert (certificate.forward_error < 1e3 * np.finfo(dtype).eps).all()
        if k > 1 < m:
            value, certificate = eager(certify(frechet_distance_of_samples), f.mT, g.mT)
            expected = [of_moments(x.T, y.T) for x, y in zip(*wide, strict=True)]
            np.testing.assert_allclose(value, expected, rtol=tolerance)
            assert (certificate.forward_error < 1e3 * np.finfo(dtype).eps).all()


@pytest.mark.compiles
def test_in_jax(rng):
    jax = pytest.importorskip("jax")
    f, g = rng.standard_normal((4, 2)), rng.standard_normal((4, 3))
    x, y = rng.standard_normal((3, 4)), rng.standard_normal((5, 4))

    @jax.jit
    def all_of(f, g, x, y):
        values = jax.value_and_grad(bures_distance_of_factors)(f, g), fidelity_of_factors(f, g)
        return *values, jax.value_and_grad(frechet_distance_of_samples)(x, y)

    (b, db), fidelity, (d2, dx) = all_of(f, g, x, y)
    np.testing.assert_allclose(b, bures_distance_of_factors(f, g), rtol=1e-13)
    np.testing.assert_allclose(fidelity, fidelity_of_factors(f, g), rtol=1e-13)
    np.testing.assert_allclose(d2, frechet_distance_of_samples(x, y), rtol=1e-13)
    np.testing.assert_allclose(db, gradient("torch", bures_distance_of_factors, f, g), rtol=1e-11)
    np.testing.assert_allclose(dx, gradient("torch", frechet_distance_of_samples, x, y), rtol=1e-11)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize(("n", "k", "m"), COLUMNS[:1] + COLUMNS[2:])
def test_derivatives(n, k, m, dtype, rng):
    torch = pytest.importorskip("torch")
    factors = [torch.from_numpy(gaussian(rng, n, j, dtype=dtype)).requires_grad_() for j in (k, m)]
    samples = [x.detach().mT.clone().requires_grad_() for x in factors]
    for f, arguments in (
        (bures_distance_of_factors, factors),
        (lambda f, g: bures_distance_of_factors(f, g, squared=True), factors),
        (fidelity_of_factors, factors),
        (lambda f, g: fidelity_of_factors(f, g, squared=False), factors),
        (frechet_distance_of_samples, samples),
    ):
        assert torch.autograd.gradcheck(f, arguments, fast_mode=True)
        assert torch.autograd.gradgradcheck(f, arguments, fast_mode=True, atol=1e-4)
    assert 0.1 < condition(bures_distance_of_factors)(*(x.detach().numpy() for x in factors)) < 1000


@pytest.mark.parametrize("library", ["torch", JAX])
@pytest.mark.parametrize("shape", [(2, 4), (6, 4)])
def test_equal_samples_have_no_distance_and_no_gradient(library, shape, rng):
    x = rng.standard_normal(shape)
    assert frechet_distance_of_samples(x, x) < 1e-28
    assert np.abs(gradient(library, frechet_distance_of_samples, x, x)).max() < 1e-12
    assert not gradient(library, bures_distance_of_factors, x.T, x.T).any()


def test_gradients_of_singular_factors_are_finite(rng):
    full, low, zero = gaussian(rng, 4, 4), gaussian(rng, 4, 2) @ gaussian(rng, 2, 4), np.zeros((4, 4))
    apart = np.diag([0.0, 0, 1, 1]), np.diag([1.0, 1, 0, 0])
    for f, g in ((full, low), (low, full), (zero, low), (low, zero), (zero, zero), apart):
        for of_pair in (bures_distance_of_factors, fidelity_of_factors, frechet_distance_of_samples):
            assert np.isfinite(gradient("torch", of_pair, f, g)).all()


def test_near_factors_keep_their_digits(rng):
    f, e = gaussian(rng, 5, 2), gaussian(rng, 5, 2)
    f = np.linalg.qr(f)[0]
    e -= f @ (f.T @ e)  # out of the range: the unitary matrix stays I to first order
    for small in (1e-4, 1e-8, 1e-12):
        expected = small * np.linalg.norm(e)
        np.testing.assert_allclose(
            bures_distance_of_factors(f, f + small * e), expected, rtol=max(1e-15 / small, small)
        )


@pytest.mark.parametrize("columns", [(2, 3), (5, 6)])
def test_scales(columns, rng):
    f, g = (rng.standard_normal((4, k)) for k in columns)
    for one, two in ((1e200, 1e200), (1e-200, 1e-200), (1e150, 1e-150)):
        value, certificate = certify(bures_distance_of_factors)(one * f, two * g)
        expected = bures_distance_of_factors(f, g) * one if one == two else np.linalg.norm(one * f)
        np.testing.assert_allclose(value, expected, rtol=1e-12)
        assert certificate.forward_error < 1e-12
        root = fidelity_of_factors(f, g, squared=False)
        if one != two:
            np.testing.assert_allclose(fidelity_of_factors(one * f, two * g, squared=False), root, rtol=1e-12)
    with pytest.raises(SpectrumError, match=r"^frechet_distance_of_samples: the answer is larger"):
        frechet_distance_of_samples(1e200 * f, 1e200 * (g[:, : f.shape[1]] + 1))


def test_states_and_features_in_many_dimensions(rng):
    """State vectors; 20 000 features would need covariances of 3 GB."""
    psi, phi = (x / np.linalg.norm(x) for x in gaussian(rng, 2, 7, 1, dtype="complex128"))
    np.testing.assert_allclose(fidelity_of_factors(psi, phi), abs(np.vdot(psi, phi)) ** 2, rtol=1e-13)
    x, y = rng.standard_normal((5, 20_000)), 1 + rng.standard_normal((4, 20_000))
    assert 2e4 < frechet_distance_of_samples(x, y) < 1e5
    assert np.isfinite(gradient("torch", frechet_distance_of_samples, x, y)).all()


@pytest.mark.parametrize("count", [0, 1])
def test_one_sample_has_no_covariance(on, count, rng):
    few, many = np.zeros((count, 3)), rng.standard_normal((4, 3))
    for name, arrays in (("X", (few, many)), ("Y", (many, few))):
        with pytest.raises(SpectrumError, match=f"^frechet_distance_of_samples: {name} has fewer than 2 samples"):
            on(frechet_distance_of_samples, *arrays)
        assert np.isnan(on(frechet_distance_of_samples, *arrays, errors="nan"))


def test_empty_and_other_bad_input(rng):
    f = rng.standard_normal((3, 2))
    np.testing.assert_allclose(bures_distance_of_factors(f, np.zeros((3, 0))), np.linalg.norm(f))
    assert bures_distance_of_factors(np.zeros((0, 2)), np.zeros((0, 1))) == 0
    assert frechet_distance_of_samples(np.zeros((4, 0)), np.zeros((5, 0))) == 0
    with pytest.raises(ValueError, match=r"^bures_distance_of_factors: G has shape \(4, 2\)"):
        bures_distance_of_factors(f, np.zeros((4, 2)))
    with pytest.raises(ValueError, match=r"^frechet_distance_of_samples: Y has shape \(4, 2\)"):
        frechet_distance_of_samples(np.zeros((4, 3)), np.zeros((4, 2)))
    x = np.stack([f, f])
    x[1, 0, 0] = np.nan
    assert np.isnan(fidelity_of_factors(x, f, errors="nan")).tolist() == [False, True]
