"""Factors of Gramians, Hankel singular values and reduced models of e ẋ = a x + b u: compared with those of e⁻¹ a and e⁻¹ b."""

import numpy as np
import pytest

import matsign
from matrices import DTYPES, adjoint, gaussian, stable, unitary
from matsign import (
    SpectrumError,
    balanced_truncation,
    certify,
    discrete_lyapunov_factor,
    hankel_singular_values,
    lyapunov_factor,
)

EPS = {"float32": 1.2e-7, "float64": 2.3e-16, "complex64": 1.2e-7, "complex128": 2.3e-16}


def model(rng, n, dtype="float64"):
    """(a, b, c, e), and the model (s, h, c) with e = I."""
    s, h, c = -stable(rng, n, dtype), gaussian(rng, n, 2, dtype=dtype), gaussian(rng, 2, n, dtype=dtype)
    e = (np.eye(n) + gaussian(rng, n, n, dtype=dtype) / (4 * n**0.5)).astype(dtype)
    return (e @ s, e @ h, c, e), (s, h, c)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [4, 70])
def test_models_with_a_descriptor_equal_those_in_standard_form(n, dtype, rng):
    (a, b, c, e), (s, h, _) = model(rng, n, dtype)
    size = np.linalg.norm(s, 2) * 1.5
    for f, shrink in ((lyapunov_factor, 1), (discrete_lyapunov_factor, size)):
        (z, certificate), expected = certify(f)(a / shrink, b, e=e), f(s / shrink, h)
        gap = np.linalg.norm(z @ adjoint(z) - expected @ adjoint(expected))
        assert gap < 1000 * EPS[dtype] * np.linalg.norm(expected) ** 2
        assert certificate.backward_error < 20 * EPS[dtype]
        assert 0 < certificate.forward_error < 1e4 * EPS[dtype]
    values, certificate = certify(hankel_singular_values)(a, b, c, e=e)
    np.testing.assert_allclose(values, hankel_singular_values(s, h, c), rtol=0, atol=1000 * EPS[dtype] * values[0])
    assert certificate.backward_error < 20 * EPS[dtype]
    small, expected = balanced_truncation(a, b, c, 2, e=e), balanced_truncation(s, h, c, 2)
    for x, y in zip(small, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e4 * EPS[dtype] * np.abs(y).max())


def test_units_of_rows_and_states_do_not_matter(rng):
    (a, b, c, e), _ = model(rng, 6)
    rows, columns = (2.0 ** rng.integers(-60, 60, 6) for _ in range(2))
    units = rows[:, None] * a * columns, rows[:, None] * b, c * columns
    scaled = rows[:, None] * e * columns
    expected = balanced_truncation(a, b, c, 3, e=e)
    for x, y in zip(balanced_truncation(*units, 3, e=scaled), expected, strict=True):
        np.testing.assert_allclose(np.abs(x), np.abs(y), rtol=0, atol=1e-11 * np.abs(y).max())
    z = columns[:, None] * lyapunov_factor(*units[:2], e=scaled)
    x = lyapunov_factor(a, b, e=e)
    np.testing.assert_allclose(z @ z.T, x @ x.T, rtol=0, atol=1e-12 * np.abs(x @ x.T).max())


def test_a_model_with_an_ill_conditioned_mass_matrix(rng):
    n, u = 30, unitary(rng, 30)
    mass, w = u @ np.diag(np.geomspace(1, 1e-8, n)) @ u.T, gaussian(rng, n, n)
    mass, a = (mass + mass.T) / 2, -(w @ w.T / n + np.eye(n) / 10) + (w - w.T) / 4
    b, c = gaussian(rng, n, 2), gaussian(rng, 2, n)
    _, certificate = certify(lyapunov_factor)(a, b, e=mass)
    assert certificate.backward_error < 1e-13
    x, w = (matsign.solve_continuous_lyapunov(m, -r @ r.T, e=e) for m, r, e in ((a, b, mass), (a.T, c.T, mass.T)))
    values = hankel_singular_values(a, b, c, e=mass)
    expected = np.sqrt(np.sort(np.linalg.eigvals(x @ mass.T @ w @ mass).real)[::-1][:5])
    np.testing.assert_allclose(values[:5], expected, rtol=1e-6)


@pytest.mark.parametrize("f", [lyapunov_factor, discrete_lyapunov_factor, hankel_singular_values, balanced_truncation])
def test_singular_descriptors_and_unstable_pencils_are_named(f, rng):
    (a, b, c, e), _ = model(rng, 5)
    rest = {"hankel_singular_values": (c,), "balanced_truncation": (c, 2)}.get(f.__name__, ())
    with pytest.raises(SpectrumError, match=r"e is singular .* condition number being"):
        f(a, b, *rest, e=e @ np.diag([1.0, 1.0, 1.0, 1.0, 0.0]))
    if not rest:
        with pytest.raises(SpectrumError, match="a is not stable"):
            f(10 * a if f is discrete_lyapunov_factor else -a, b, e=e)


def test_derivatives_with_respect_to_all_arrays(rng):
    arrays, _ = model(rng, 4)
    directions = [gaussian(rng, *x.shape) for x in arrays]
    ahead, behind = ([x + h * d for x, d in zip(arrays, directions, strict=True)] for h in (1e-5, -1e-5))

    def moved(xs):
        return *xs[:3], None, xs[3]  # without d

    found = matsign.frechet(balanced_truncation)(*moved(arrays), *moved(directions), order=2)
    pairs = zip(
        balanced_truncation(*ahead[:3], 2, e=ahead[3]), balanced_truncation(*behind[:3], 2, e=behind[3]), strict=True
    )
    for x, (y, z) in zip(found, pairs, strict=True):
        np.testing.assert_allclose(x, (y - z) / 2e-5, atol=1e-6 * max(1, np.abs(x).max()))


@pytest.mark.slow
def test_second_derivatives(rng):
    torch = pytest.importorskip("torch")
    arrays = [torch.tensor(x, requires_grad=True) for x in model(rng, 2)[0]]
    assert torch.autograd.gradgradcheck(lambda a, b, c, e: hankel_singular_values(a, b, c, e=e), arrays)
    assert torch.autograd.gradgradcheck(lambda a, b, c, e: balanced_truncation(a, b, c, 1, e=e).b, arrays)
    arrays = [torch.tensor(x, requires_grad=True) for x in model(rng, 2, "complex128")[0]]
    assert torch.autograd.gradcheck(lambda a, b, c, e: tuple(balanced_truncation(a, b, c, 1, e=e)), arrays)
    assert torch.autograd.gradcheck(lambda a, b, _, e: lyapunov_factor(a, b, e=e).abs().square().sum(), arrays)
