"""fermi_occupation beside 80 digits, by both methods; numbers of electrons, low temperatures, free energies, limits."""

import numpy as np
import pytest
import scipy.linalg as sl

import matsign
import truth
from matrices import adjoint, definite, gaussian, similar_hermitian
from matsign import SpectrumError, certify, fermi_occupation, frechet, spectral_projector

METHODS = ("eigh", "polynomial")
LEVELS = np.diag([1.0, 2.0, 4.0])


def hermitian(rng, n, dtype="float64"):
    x = gaussian(rng, n, n, dtype=dtype)
    return x + adjoint(x)


def certified(h, overlap, **options):
    return certify(fermi_occupation)(h, overlap=overlap, **options)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_equals_eighty_digits(method, dtype, rng, eager):
    """Also with an overlap whose units differ, and the certificate covers the error."""
    eps, units = np.finfo(dtype).eps, np.array([1e3, 1, 1e-3, 10])
    for overlap in (None, (units[:, None] * definite(rng, 4, dtype=dtype) * units).astype(dtype)):
        h = hermitian(rng, 4, dtype)
        h = h if overlap is None else (units[:, None] * h * units).astype(dtype)
        for kt, filling in (
            (3.0, {"mu": 0.2}),
            (0.1, {"mu": 0.2}),
            (0.3, {"electrons": 1.0}),
            (0.05, {"electrons": 2.3}),
        ):
            found, certificate = eager(certified, h, overlap, kT=kt, method=method, **filling)
            exact = truth.fermi(h, kt, overlap=overlap, **filling)
            errors = [truth.error(x, y) for x, y in zip(found, exact, strict=True)]
            assert min(max(errors), 1) < max(50 * certificate.forward_error, 20 * eps)
            assert errors[0] < 1e3 * eps
            # Products find tiny entropies, and mu in a gap, only to the rounding of other numbers.
            assert method == "polynomial" or certificate.forward_error < 2e4 * eps
            assert certificate.backward_error < 20 * eps


def test_in_jax_compiled_once_for_all_numbers(rng):
    jax = pytest.importorskip("jax")
    h, count = hermitian(rng, 3), 0

    @jax.jit
    def free_energy(h, kt, electrons):
        nonlocal count
        count += 1
        density, _, entropy = fermi_occupation(h, kt, electrons=electrons, method="polynomial")
        return (density * h).sum() - kt * entropy

    gradient = jax.grad(free_energy, (0, 1, 2))
    for kt, electrons in ((0.3, 1.0), (0.7, 1.6)):
        found = gradient(h, kt, electrons)
        density, mu, entropy = fermi_occupation(h, kt, electrons=electrons)
        for x, y in zip(found, (density, -entropy, mu), strict=True):
            np.testing.assert_allclose(x, y, atol=1e-13)
    assert count <= 2


def test_twice_with_an_overlap(rng):
    torch = pytest.importorskip("torch")
    arrays = [
        torch.from_numpy(x).requires_grad_()
        for x in (hermitian(rng, 3), definite(rng, 3), np.array(0.5), np.array(1.3))
    ]

    def f(h, overlap, kt, electrons):
        return fermi_occupation((h + h.mT) / 2, kt, electrons=electrons, overlap=(overlap + overlap.mT) / 2)

    assert torch.autograd.gradcheck(f, arrays)
    assert torch.autograd.gradgradcheck(f, arrays, fast_mode=True)


def test_in_a_gap_the_chemical_potential_and_its_derivative_have_all_digits(rng, eager):
    """With kT a thousandth of the gap all other occupations round to 0 and 1; mu is the middle, and moves with its neighbours."""
    h = similar_hermitian(rng, [-2.0, -1.0, 1.0, 3.0])
    _, v = np.linalg.eigh(h)
    for kt in (0.03, 2e-3, 1e-5):
        density, mu, entropy = eager(fermi_occupation, h, kt, electrons=2)
        assert abs(mu) < 1e-15 + 2 * np.finfo(float).eps
        np.testing.assert_allclose(density, spectral_projector(h, lowest=2), atol=1e-14)
        assert 0 <= entropy < 1e-12
        _, change, _ = frechet(fermi_occupation)(h, np.outer(v[:, 1], v[:, 1]), kT=kt, electrons=2)
        np.testing.assert_allclose(change, 0.5, rtol=1e-10)
    # A degenerate level above the gap draws mu down by kT log(2) / 2.
    _, mu, _ = eager(fermi_occupation, np.diag([-1.0, 1, 1]), 0.01, electrons=1)
    np.testing.assert_allclose(mu, -0.01 * np.log(2) / 2, rtol=1e-10)


def test_a_shell_that_is_half_full_and_the_free_energy(rng, eager):
    """Equal levels share their electrons, which spectral_projector refuses."""
    density, mu, entropy = eager(fermi_occupation, np.diag([0.0, 1, 1]), 0.02, electrons=2)
    np.testing.assert_allclose(density, np.diag([1, 0.5, 0.5]), atol=1e-14)
    np.testing.assert_allclose((mu, entropy), (1, 2 * np.log(2)), rtol=1e-13)
    h, overlap, kt = hermitian(rng, 5), definite(rng, 5), 0.4
    (density, mu, entropy), _ = eager(certified, h, overlap, kT=kt, mu=0.3)
    grand = np.trace(density @ h) - kt * entropy - mu * np.trace(density @ overlap)
    levels = sl.eigvalsh(h, overlap)
    np.testing.assert_allclose(grand, -kt * np.log1p(np.exp(-(levels - mu) / kt)).sum(), rtol=1e-13)


@pytest.mark.parametrize("method", METHODS)
def test_scales_and_cold_and_hot(method, eager, rng):
    h = hermitian(rng, 4)
    expected = fermi_occupation(h, 0.3, electrons=1.5)
    for s in (1e-300, 1e-100, 1e100, 1e300):
        found = eager(fermi_occupation, s * h, 0.3 * s, electrons=1.5, method=method)
        np.testing.assert_allclose(found.density, expected.density, atol=1e-13)
        np.testing.assert_allclose((found.mu / s, found.entropy), expected[1:], rtol=1e-12)
    cold = eager(fermi_occupation, h, 1e-200, 0.1, method=method)
    np.testing.assert_allclose(cold.density, spectral_projector(h, at=0.1, half_plane="left"), atol=1e-14)
    assert cold.entropy < 1e-290
    hot = eager(fermi_occupation, h, 1e200, method=method)
    np.testing.assert_allclose(hot.density, np.eye(4) / 2, atol=1e-15)
    np.testing.assert_allclose(hot.entropy, 4 * np.log(2))


def test_batches_of_numbers_and_failed_members(eager, rng):
    h = np.stack([hermitian(rng, 3) for _ in range(4)])
    kt, electrons = np.array([0.1, 1, -1, 2]), np.array([1, 2.5, 1, 3])
    h[0, 0, 0] = np.nan
    found = eager(fermi_occupation, h, kt, None, electrons, errors="nan")
    assert [bool(np.isnan(x)) for x in found.mu] == [True, False, True, True]
    alone = fermi_occupation(h[1], 1.0, electrons=2.5)
    for x, y in zip(found, alone, strict=True):
        np.testing.assert_array_equal(x[1], y)
    spread = eager(fermi_occupation, LEVELS, np.array([0.1, 0.2]), np.array([[0.0], [1], [2]]))
    assert [x.shape for x in spread] == [(3, 2, 3, 3), (3, 2), (3, 2)]


def test_empty_matrices_and_numbers(eager):
    density, mu, entropy = eager(fermi_occupation, np.zeros((2, 0, 0)), 1.0, 0.5)
    assert density.shape == (2, 0, 0)
    np.testing.assert_array_equal((mu, entropy), [[0.5, 0.5], [0, 0]])
    np.testing.assert_allclose(eager(fermi_occupation, 2 * np.eye(1), 1.0, 2.0).density, [[0.5]])


ERRORS = [
    ({"kT": 0}, "kT must be positive and finite, got 0; spectral_projector is the limit"),
    ({"kT": -1}, "kT must be a number of at least 0, got -1"),
    ({"kT": "hot"}, "kT must be a number of at least 0, got 'hot'"),
    ({"kT": [1.0, 0.0]}, "batch members 1: kT is 0, which is not a positive finite number"),
    ({"kT": 1, "mu": 0.5, "electrons": 1}, "give either mu or electrons, got both"),
    ({"kT": 1, "mu": [0, np.inf]}, "batch members 1: mu is inf"),
    ({"kT": 1, "electrons": 3}, "electrons is 3; .* less than n electrons"),
    ({"kT": 1, "electrons": [1, -1]}, "batch members 1: electrons is -1"),
    ({"kT": 1, "electrons": np.nan}, "electrons must be a finite real number, got nan"),
    ({"kT": 1, "overlap": np.diag([1.0, 1, -1])}, "overlap is not positive definite .* eigenvalue is -1;"),
    ({"kT": 1, "overlap": np.triu(np.ones((3, 3)))}, "overlap is not Hermitian"),
    ({"kT": 1, "method": "newton"}, "method must be one of auto, eigh, polynomial"),
]


@pytest.mark.parametrize(("options", "text"), ERRORS, ids=[text for _, text in ERRORS])
def test_errors_say_what_is_wrong(options, text):
    with pytest.raises((ValueError, SpectrumError), match=rf"^fermi_occupation: (?s:.*){text}"):
        fermi_occupation(LEVELS, **options)


def test_a_matrix_that_is_not_hermitian():
    with pytest.raises(ValueError, match=r"^fermi_occupation: H is not Hermitian"):
        fermi_occupation(np.triu(np.ones((2, 2))), 1.0)


def test_certificate_of_a_wrong_answer(rng, monkeypatch):
    """A density matrix for another temperature has a large backward error."""
    h = hermitian(rng, 4)
    spec = matsign.fermi_occupation.spec
    wrong = fermi_occupation(h, 0.5, electrons=2)
    value, numpy = tuple(x[None] for x in wrong), matsign.backends.load("numpy")
    residual = spec.residual(numpy, value, h[None], None, kT=0.4, electrons=2, method="auto")
    assert residual.backward[0] > 1e-3


def test_errors_of_few_electrons(rng):
    """The density is as wrong as rounding of μ beside kT makes it, and products know it to rounding of I."""
    h = rng.standard_normal((50, 1, 1))
    for kT in (1e-4, 0.1):
        found, certificate = certify(fermi_occupation)(h, kT, electrons=1e-9)
        error = abs(found.density[:, 0, 0] - 1e-9) / 1e-9
        assert (certificate.backward_error < 1e-10).all()
        assert (error / 2 < certificate.forward_error).all()
        assert (certificate.forward_error < 1e-10).all()
