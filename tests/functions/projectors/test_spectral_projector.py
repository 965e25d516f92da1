"""spectral_projector beside any vertical line, on the lowest eigenvalues, and of pencils with an overlap."""

import mpmath as mp
import numpy as np
import pytest
import scipy.linalg as sl

import matsign
import truth
from matrices import definite, gaussian, graded, similar, similar_hermitian, splitting
from matsign import SpectrumError, certify, spectral_projector


def hermitian(rng, n, dtype="float64"):
    x = gaussian(rng, n, n, dtype=dtype)
    return x + x.conj().T


def exact_density(m, overlap, at, half_plane="left"):
    """The projector on the eigenvalues of overlap⁻¹ m left of `at`, times overlap⁻¹, in 80 digits."""
    one, inverse = truth.eye(len(m)), truth.inverse(truth.exact(overlap))
    s = truth.sign(inverse @ truth.exact(m) - mp.mpf(at) * one)
    return (one - s if half_plane == "left" else one + s) / 2 @ inverse


def between(h, overlap, k):
    levels = sl.eigvalsh(h, overlap)
    return (levels[k - 1] + levels[k]) / 2


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_a_line_is_the_axis_of_the_shifted_matrix(dtype, rng, eager):
    for m in (hermitian(rng, 5, dtype), splitting(rng, 5, dtype)):
        for at in (0.0, 0.5, -3.0, 1e6):
            for half_plane in ("right", "left"):
                shifted = spectral_projector(m - at * np.eye(5), half_plane=half_plane)
                np.testing.assert_array_equal(eager(spectral_projector, m, at=at, half_plane=half_plane), shifted)
    np.testing.assert_array_equal(eager(spectral_projector, m), eager(spectral_projector, m, at=0.0))


def test_one_line_for_each_member(rng, eager):
    m = np.stack([hermitian(rng, 4) for _ in range(3)])
    at = np.array([-1.0, 0.2, 1.5])
    p = eager(spectral_projector, m, None, at)
    for k in range(3):
        np.testing.assert_array_equal(p[k], spectral_projector(m[k], at=at[k]))
    p = eager(spectral_projector, m[0], None, at)  # leading axes broadcast
    assert p.shape == (3, 4, 4)
    np.testing.assert_array_equal(p[1], spectral_projector(m[0], at=0.2))


@pytest.mark.compiles
def test_another_line_needs_no_new_compilation(rng):
    jax = pytest.importorskip("jax")
    h, overlap, count = hermitian(rng, 3), definite(rng, 3), 0

    @jax.jit
    def density(h, overlap, mu):
        nonlocal count
        count += 1
        return spectral_projector(h, overlap, at=mu, half_plane="left")

    for mu in (-0.5, 0.1, 2.0):
        np.testing.assert_array_equal(density(h, overlap, mu), spectral_projector(h, overlap, at=mu, half_plane="left"))
    assert count == 1
    assert np.isnan(density(h, overlap, np.nan)).all()
    mus = jax.numpy.asarray([-0.5, 2.0])
    stacked = jax.vmap(lambda mu: spectral_projector(h, overlap, at=mu))(mus)
    np.testing.assert_array_equal(stacked, spectral_projector(h, overlap, at=np.asarray(mus)))
    gradient = jax.grad(lambda mu: spectral_projector(jax.numpy.asarray(h), at=mu).sum())(0.1)
    assert gradient == 0


@pytest.mark.parametrize("dtype", ["float64", "complex128", "float32"])
def test_occupied_eigenvectors_of_a_pencil(dtype, rng, on):
    """The sum of c cᴴ over the eigenvectors of SciPy, cᴴ S c = 1: D S D = D, tr(D S) electrons, tr(D H) their energy."""
    n, k, near = 6, 2, {"float32": 1e-5}.get(dtype, 1e-12)
    h, overlap = hermitian(rng, n, dtype), definite(rng, n, 100.0, dtype=dtype)
    levels, c = sl.eigh(h, overlap)
    expected, mu = c[:, :k] @ c[:, :k].conj().T, float((levels[k - 1] + levels[k]) / 2)
    for d in (
        on(spectral_projector, h, overlap, at=mu, half_plane="left"),
        on(spectral_projector, h, overlap, lowest=k),
    ):
        assert np.linalg.norm(d - expected) < near * np.linalg.norm(expected)
        np.testing.assert_array_equal(d, d.conj().T)
        np.testing.assert_allclose(d @ overlap @ d, d, atol=near * np.abs(d).max() * 100)
        assert abs(np.trace(d @ overlap) - k) < near
        assert abs(np.trace(d @ h) - levels[:k].sum()) < 10 * near * np.abs(levels).sum()


# name: (Hermitian M and an overlap from rng, the number of states below the line)
HARD = {
    "overlap of condition 1e8": (lambda rng: (hermitian(rng, 6), definite(rng, 6, 1e8)), 3),
    "functions of any norm": (lambda rng: rescale(np.logspace(-40, 40, 6), hermitian(rng, 6), definite(rng, 6)), 3),
    "graded levels": (lambda rng: (similar_hermitian(rng, -graded(6, 1e8)), definite(rng, 6)), 3),
    "levels far from 0": (lambda rng: (1e6 * np.eye(6) + hermitian(rng, 6), np.eye(6)), 2),
    "small gap": (lambda rng: (similar_hermitian(rng, [-1.0, 0, 1e-6, 2]), np.eye(4)), 2),
    "tiny": (lambda rng: (1e-150 * hermitian(rng, 4), 1e-120 * definite(rng, 4)), 1),
    "huge": (lambda rng: (1e200 * hermitian(rng, 4), 1e150 * definite(rng, 4)), 1),
}


def rescale(norms, *pencil):
    return tuple((x * norms) * norms[:, None] for x in pencil)


@pytest.mark.parametrize("case", HARD)
def test_as_accurate_as_eigenvectors(case, rng):
    make, k = HARD[case]
    h, overlap = make(rng)
    h, overlap = (h + h.T) / 2, (overlap + overlap.T) / 2
    units = np.sqrt(np.diagonal(overlap))
    plain = h / units / units[:, None], overlap / units / units[:, None]
    mu = between(*plain, k)
    expected = exact_density(h, overlap, mu)
    _, c = sl.eigh(*plain)
    c = c[:, :k] / units[:, None]
    weights = truth.exact(units)
    compare = lambda d: truth.error(d * units * units[:, None], expected * weights * weights[:, None])  # noqa: E731
    peer = compare(c @ c.T)
    for options in ({"at": mu, "half_plane": "left"}, {"lowest": k}):
        d, certificate = certify(spectral_projector)(h, overlap, **options)
        assert compare(d) <= max(10 * peer, 1e-14)
        assert certificate.backward_error < 1e-14
        assert compare(d) < 30 * certificate.forward_error < 1e6 * max(compare(d), 1e-16)


def test_pencils_that_are_not_hermitian(rng, eager):
    m, overlap = splitting(rng, 5), definite(rng, 5, 100.0)
    for half_plane in ("left", "right"):
        d = eager(spectral_projector, m, overlap, at=0.1, half_plane=half_plane)
        assert truth.error(d, exact_density(m, overlap, 0.1, half_plane)) < 1e-12


def test_a_larger_value_of_a_huge_matrix_does_not_overflow():
    m = np.diag([1.6e308, -1.6e308])
    np.testing.assert_array_equal(spectral_projector(m, at=-1e308), np.diag([1.0, 0]))
    np.testing.assert_array_equal(spectral_projector(m, at=1e308, half_plane="left"), np.diag([0.0, 1]))


def test_the_lowest_of_all_and_of_none(rng, eager):
    h, overlap = hermitian(rng, 3), definite(rng, 3)
    assert not eager(spectral_projector, h, lowest=0).any()
    np.testing.assert_allclose(eager(spectral_projector, h, lowest=3), np.eye(3), atol=1e-15)
    np.testing.assert_allclose(eager(spectral_projector, h, overlap, lowest=3), np.linalg.inv(overlap), atol=1e-13)
    assert spectral_projector(np.zeros((2, 0, 0)), lowest=0).shape == (2, 0, 0)


def test_a_level_on_the_line_belongs_to_neither_side(rng):
    h = similar_hermitian(rng, [-1.0, 0.5, 3.0])
    below, above = (spectral_projector(h, at=0.5, half_plane=side) for side in ("left", "right"))
    assert round(np.trace(below)) == round(np.trace(above)) == 1


ROTATION = np.array([[3.0, 1.0], [-1.0, 3.0]])
LEVELS = np.diag([1.0, 2, 2])
ERRORS = (
    (lambda: spectral_projector(ROTATION, at=3.0), r"lies on the line Re λ = 3 to working precision"),
    (lambda: spectral_projector(ROTATION, 2 * np.eye(2), at=1.5), r"lies on the line Re λ = 1\.5 "),
    (lambda: spectral_projector(LEVELS, lowest=2), r"both sides of the gap, 2 and 2, are equal"),
    (lambda: spectral_projector(1e100 * LEVELS, 2 * np.eye(3), lowest=2), r"the gap, 1e\+100 and 1e\+100, are equal"),
    (lambda: spectral_projector(ROTATION, lowest=1), "lowest needs a Hermitian matrix"),
    (lambda: spectral_projector(LEVELS, LEVELS - np.eye(3)), "overlap is not positive definite .* eigenvalue is 0;"),
    (
        lambda: spectral_projector(LEVELS, np.diag([1.0, 1, -1])),
        "overlap is not positive definite .* eigenvalue is -1;",
    ),
    (lambda: spectral_projector(LEVELS, np.full((3, 3), np.nan)), "NaN or infinity"),
    (lambda: spectral_projector(LEVELS, at=np.array([np.inf])), "batch members 0: at is inf"),
    (lambda: spectral_projector(LEVELS, at=np.inf), "at must be a finite real number, got inf"),
    (lambda: spectral_projector(LEVELS, at="mu"), "at must be a finite real number, got 'mu'"),
    (lambda: spectral_projector(LEVELS, at=True), "at must be a finite real number, got True"),
    (lambda: spectral_projector(LEVELS, at=[1.0, 2.0], lowest=1), "either at or lowest"),
    (lambda: spectral_projector(LEVELS, at=1.0, lowest=1), "either at or lowest"),
    (lambda: spectral_projector(LEVELS, lowest=4), "lowest must be a whole number from 0 to 3, got 4"),
    (lambda: spectral_projector(LEVELS, lowest=-1), "lowest must be a whole number from 0 to 3, got -1"),
    (lambda: spectral_projector(LEVELS, lowest=1.0), "lowest must be a whole number, got 1.0"),
    (lambda: spectral_projector(LEVELS, lowest=1, half_plane="right"), 'those of half_plane="left"'),
    (lambda: spectral_projector(LEVELS, lowest=1, method="newton"), 'lowest needs method="eigh" or "auto"'),
    (lambda: spectral_projector(LEVELS, np.triu(np.ones((3, 3)))), "overlap is not Hermitian"),
)


@pytest.mark.parametrize(("call", "text"), ERRORS, ids=[text for _, text in ERRORS])
def test_errors(call, text):
    with pytest.raises((ValueError, SpectrumError), match=rf"^spectral_projector: (?s:.*){text}"):
        call()


def test_a_bad_member_spoils_no_other(rng, eager):
    h, overlap = np.stack([LEVELS, hermitian(rng, 3), LEVELS]), np.stack([np.eye(3), definite(rng, 3), -np.eye(3)])
    d = eager(spectral_projector, h, overlap, lowest=2, errors="nan")
    assert np.isnan(d[[0, 2]]).all()
    np.testing.assert_array_equal(d[1], spectral_projector(h[1], overlap[1], lowest=2))


def test_response_is_that_of_perturbation_theory(rng):
    """The derivative in a direction that keeps S: the sum over pairs of an occupied and an empty state."""
    h, overlap, v = hermitian(rng, 5), definite(rng, 5), hermitian(rng, 5)
    levels, c = sl.eigh(h, overlap)
    coupling = c.T @ v @ c
    weights = np.zeros((5, 5))
    weights[:2, 2:] = 1 / (levels[:2, None] - levels[2:])
    mixed = c @ (weights * coupling) @ c.T
    response = matsign.frechet(spectral_projector)(h, overlap, v, None, lowest=2)
    np.testing.assert_allclose(response, mixed + mixed.T, atol=1e-12)


def test_derivatives_of_the_lowest(rng):
    torch = pytest.importorskip("torch")
    h, overlap = (torch.from_numpy(x).requires_grad_() for x in (hermitian(rng, 3), definite(rng, 3)))

    def density(h, overlap):
        return spectral_projector((h + h.mT) / 2, overlap, lowest=1)

    assert torch.autograd.gradcheck(density, (h, overlap))
    assert torch.autograd.gradgradcheck(density, (h, overlap), atol=1e-5, fast_mode=True)


def test_each_takes_a_line(rng):
    h = {"a": hermitian(rng, 3), "b": hermitian(rng, 3)}
    p = matsign.each(spectral_projector)(h, at=0.5)
    np.testing.assert_array_equal(p["b"], spectral_projector(h["b"], at=0.5))


def test_the_sign_of_a_pencil(rng):
    m, overlap = similar(rng, np.diag([1.0, -2, 3])), definite(rng, 3)
    d = spectral_projector(m, overlap, half_plane="left")
    s = matsign.mcsgn(np.linalg.solve(overlap, m))
    np.testing.assert_allclose(np.eye(3) - 2 * d @ overlap, s, atol=1e-12)
