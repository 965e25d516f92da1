"""Distances of semidefinite pairs: any rank, equal arguments, gradients, indefinite matrices, beside formulas and samples."""

import numpy as np
import pytest
import scipy.linalg as sl

import matsign
from conftest import JAX
from gradients import gradient
from matrices import adjoint, definite, gaussian
from matsign import SpectrumError, backends, bures_distance, certify, condition, fidelity, frechet, frechet_distance
from matsign.functions.distances import semidefinite_pairs

SQUARED = pytest.mark.parametrize(
    ("f", "options"),
    [(bures_distance, {}), (bures_distance, {"squared": True}), (fidelity, {}), (fidelity, {"squared": False})],
    ids=["bures", "bures²", "fidelity", "root"],
)


def semidefinite(rng, n, rank, dtype="float64"):
    x = gaussian(rng, n, rank, dtype=dtype)
    return (x @ adjoint(x) + adjoint(x @ adjoint(x))) / 2


def root_by_scipy(a, b):
    """tr (A^{1/2} B A^{1/2})^{1/2}."""
    r = sl.sqrtm(a)
    return np.trace(sl.sqrtm(r @ b @ r)).real


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_equal_the_formulas(everywhere, dtype, rng):
    if everywhere.jit and dtype != "float64":
        pytest.skip("compiling takes long")
    a, b = (np.stack([definite(rng, 4, dtype=dtype) for _ in range(3)]) for _ in range(2))
    mu1, mu2 = gaussian(rng, 2, 3, 4, dtype=dtype)
    roots = np.array([root_by_scipy(x.astype("complex128"), y.astype("complex128")) for x, y in zip(a, b, strict=True)])
    traces = np.trace(a + b, axis1=-2, axis2=-1).real
    tolerance = {"rtol": 1e-5 if dtype in ("float32", "complex64") else 1e-12}
    for f, arrays, expected in (
        (bures_distance, (a, b), np.sqrt(traces - 2 * roots)),
        (fidelity, (a, b), roots**2),
        (frechet_distance, (mu1, a, mu2, b), traces - 2 * roots + np.linalg.norm(mu1 - mu2, axis=-1) ** 2),
    ):
        value, certificate = everywhere(certify(f), *arrays)
        np.testing.assert_allclose(value, expected, **tolerance)
        assert value.dtype == np.zeros(0, dtype).real.dtype
        assert (certificate.backward_error < 1e2 * np.finfo(dtype).eps).all()
        assert (certificate.forward_error < 1e3 * np.finfo(dtype).eps).all()
        assert (certificate.measures["clipped"] == 0).all()


def test_any_rank(on, rng):
    """Pure states, orthogonal ranges, zero, one rank less than full; the usual code is complex or NaN here."""
    u, v = (x / np.linalg.norm(x) for x in gaussian(rng, 2, 5))
    pure = np.outer(u, u), np.outer(v, v)
    np.testing.assert_allclose(on(fidelity, *pure), (u @ v) ** 2, rtol=1e-13)
    assert on(fidelity, np.diag([1.0, 0.0, 0.0]), np.diag([0.0, 2.0, 0.0])) < 1e-30
    np.testing.assert_allclose(on(bures_distance, np.zeros((3, 3)), np.diag([4.0, 0.0, 5.0])), 3.0)
    assert on(bures_distance, np.zeros((3, 3)), np.zeros((3, 3))) == 0
    for rank, other in ((1, 5), (2, 3), (4, 4)):
        a, b = semidefinite(rng, 5, rank), semidefinite(rng, 5, other)
        k, m = (np.linalg.svd(x)[0] * np.sqrt(np.linalg.svd(x)[1]) for x in (a, b))
        root = np.linalg.svd(k[:, :rank].T @ m[:, :other], compute_uv=False).sum()
        np.testing.assert_allclose(on(fidelity, a, b), root**2, rtol=1e-12)
        np.testing.assert_allclose(on(bures_distance, a, b, squared=True), np.trace(a + b) - 2 * root, rtol=1e-12)


def test_near_matrices_keep_their_digits(on, rng):
    """The formula with traces has half of them: an error of 1e-8 in the distance."""
    a = definite(rng, 6)
    assert on(bures_distance, a, a) < 1e-14
    for small in (1e-4, 1e-8, 1e-12):
        b = a @ (np.eye(6) + small * np.diag([1.0, 0, 0, 0, 0, 0])) @ a.T
        plain = a @ a.T
        # To first order, with T = I + dT: the distance is the norm of dT A^{1/2}, dT A + A dT = dA.
        t = sl.solve_continuous_lyapunov(plain, b - plain)
        expected = np.sqrt(np.trace(t @ plain @ t))
        np.testing.assert_allclose(on(bures_distance, plain, b), expected, rtol=max(1e-13 / small, 2 * small))


@SQUARED
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_derivatives(f, options, dtype, rng):
    torch = pytest.importorskip("torch")
    a, b = definite(rng, 3, dtype=dtype), definite(rng, 3, dtype=dtype)
    x, y = (torch.from_numpy(m).requires_grad_() for m in (a, b))
    assert torch.autograd.gradcheck(lambda x, y: f(x, y, **options), (x, y))
    assert torch.autograd.gradgradcheck(lambda x, y: f(x, y, **options), (x, y), fast_mode=True, atol=1e-4)
    da, db = (definite(rng, 3, dtype=dtype) - np.eye(3) / 2 for _ in range(2))
    h = 1e-4
    difference = (f(a + h * da, b + h * db, **options) - f(a - h * da, b - h * db, **options)) / (2 * h)
    np.testing.assert_allclose(frechet(f)(a, b, da, db, **options), difference, rtol=1e-6, atol=1e-7)
    assert 0.1 < condition(f)(a, b, **options) < 100


@SQUARED
def test_derivatives_of_singular_pairs_along_directions_that_keep_the_rank(f, options, rng):
    k, m, dk, dl = gaussian(rng, 5, 2), gaussian(rng, 5, 3), gaussian(rng, 5, 2), gaussian(rng, 5, 3)

    def at(t):
        return tuple(y @ y.T for y in (k + t * dk, m + t * dl))

    h = 1e-4
    found = frechet(f)(*at(0), dk @ k.T + k @ dk.T, dl @ m.T + m @ dl.T, **options)
    difference = (f(*at(h), **options) - f(*at(-h), **options)) / (2 * h)
    np.testing.assert_allclose(found, difference, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("library", ["torch", JAX])
def test_gradients_at_equal_arguments(library, rng):
    """0 for nonsingular ones, where the formula with roots gives NaN; outside of a common range, the slope of the trace."""

    def squared(x, y):
        return bures_distance(x, y, squared=True)

    a, low = definite(rng, 4), semidefinite(rng, 4, 2)
    assert np.abs(gradient(library, squared, a, a)).max() < 1e-13
    assert not gradient(library, bures_distance, a, a).any()
    projector = np.linalg.pinv(low) @ low
    np.testing.assert_allclose(gradient(library, squared, low, low), np.eye(4) - projector, atol=1e-12)
    np.testing.assert_allclose(
        gradient(library, lambda x, y: fidelity(x, y, squared=False), low, low), projector / 2, atol=1e-12
    )
    out = np.linalg.svd(low)[0][:, -1]
    np.testing.assert_allclose(squared(low + 1e-3 * np.outer(out, out), low), 1e-3, rtol=1e-10)


def test_gradients_of_singular_arguments_are_finite(rng):
    for ranks in ((1, 4), (4, 1), (0, 2), (2, 2)):
        a, b = (semidefinite(rng, 4, r) for r in ranks)
        for f in (bures_distance, fidelity):
            for x, y in ((a, b), (b, a)):
                assert np.isfinite(gradient("torch", f, x, y)).all()


@pytest.mark.parametrize("name", ["A", "B"])
def test_indefinite_matrices(on, name, rng):
    good = np.stack([np.eye(2)] * 3)
    bad = good.copy()
    bad[1] = np.diag([2.0, -0.25])
    arguments = (bad, good) if name == "A" else (good, bad)
    text = rf"batch members 1: {name} is not positive semidefinite: it has the eigenvalue -0.25;"
    for f, arrays in (
        (bures_distance, arguments),
        (fidelity, arguments),
        (frechet_distance, (np.zeros((3, 2)), arguments[0], np.zeros((3, 2)), arguments[1])),
    ):
        with pytest.raises(SpectrumError, match=f"^{f.__name__}: {text}"):
            on(f, *arrays)
        assert np.isnan(on(f, *arrays, errors="nan")).tolist() == [False, True, False]
    assert on(bures_distance, bad[1], np.eye(2), rtol=0.1) > 0


def test_rounding_below_zero_is_clipped_and_told(on):
    _, certificate = certify(bures_distance)(on.array(np.diag([1.0, -1e-16])), on.array(np.eye(2)))
    assert certificate.measures["clipped"] == pytest.approx(1e-16)
    with pytest.raises(ValueError, match=r"^fidelity: B is not Hermitian"):
        fidelity(np.eye(2), np.array([[1.0, 0.5], [0.0, 1.0]]))


def test_a_distance_of_equal_matrices_is_told_to_be_rounding(rng):
    k = gaussian(rng, 20, 3, 3) * np.logspace(0, -4, 3)
    a = k @ k.mT
    found, certificate = certify(bures_distance)(a, a)
    assert (found < 1e-14).all()
    assert ((certificate.forward_error > 0.5) | (found == 0)).all()
    factors = certify(matsign.bures_distance_of_factors)(k, k)
    assert ((factors[1].forward_error > 0.5) | (factors[0] == 0)).all()


@pytest.mark.parametrize(("one", "two"), [(1e300, 1e300), (1e-300, 1e-300), (1e150, 1e-150)])
def test_scales(one, two, on, rng):
    a, b = definite(rng, 3), definite(rng, 3)
    np.testing.assert_allclose(
        on(fidelity, one * a, two * b, squared=False), one**0.5 * two**0.5 * root_by_scipy(a, b), rtol=1e-12
    )
    expected = bures_distance(a, b) * one**0.5 if one == two else np.sqrt(one * np.trace(a))
    np.testing.assert_allclose(on(bures_distance, one * a, two * b), expected, rtol=1e-12)


def test_too_large_answers_say_so(on):
    with pytest.raises(SpectrumError, match=r"^fidelity: the answer is larger"):
        on(fidelity, 1e200 * np.eye(2), 1e200 * np.eye(2))


def test_numbers_that_underflow_have_an_honest_error(rng):
    a, b = definite(rng, 2), definite(rng, 2)
    number, certificate = matsign.certify(matsign.fidelity)(1e-160 * a, 1e-160 * b)
    assert abs(number / 1e-300 / matsign.fidelity(a, b) / 1e-20 - 1) <= certificate.forward_error < 1e-2
    for f in (matsign.fidelity, matsign.fidelity_of_factors, matsign.frechet_distance_of_samples):
        number, certificate = matsign.certify(f)(1e-200 * a, 1e-200 * b)
        assert (number, certificate.forward_error) == (0, np.inf)
        assert matsign.certify(f)(0 * a, 0 * b)[1].forward_error == 0


def test_shapes_that_do_not_fit(rng):
    a, mu = np.eye(3), np.zeros(3)
    for arguments, text in (
        ((mu, a, np.zeros(2), a), r"mu2 has shape \(2,\), expected \(\.\.\., n\) with n = 3 from"),
        ((mu, np.eye(2), mu, a), r"A has shape \(2, 2\)"),
        ((0.0, a, mu, a), r"mu1 has shape \(\), expected \(\.\.\., n\)"),
    ):
        with pytest.raises(ValueError, match=f"^frechet_distance: {text}"):
            frechet_distance(*arguments)
    with pytest.raises(ValueError, match=r"^bures_distance: squared must be True or False"):
        bures_distance(a, a, squared="yes")


def test_features_of_few_samples(rng):
    """Fewer samples than features, where the usual root of the product is complex."""
    x, y = rng.standard_normal((20, 30)), 1.3 * rng.standard_normal((25, 30))
    a, b = np.cov(x.T), np.cov(y.T)
    value, certificate = certify(frechet_distance)(x.mean(0), a, y.mean(0), b)
    k, m = ((z - z.mean(0)) / (len(z) - 1) ** 0.5 for z in (x, y))
    root = np.linalg.svd(k @ m.T, compute_uv=False).sum()
    expected = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(a + b) - 2 * root
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    assert 0 < certificate.measures["clipped"] < 1e-14
    assert abs(frechet_distance(x.mean(0), a, x.mean(0), a)) < 1e-13


def test_the_distance_is_that_of_the_optimal_map(rng):
    a, b = definite(rng, 4), definite(rng, 4)
    t, _ = matsign.coupled_root(b, a)
    np.testing.assert_allclose(
        bures_distance(a, b), np.sqrt(np.trace((np.eye(4) - t) @ a @ (np.eye(4) - t))), rtol=1e-12
    )


def spread(rng, n, digits):
    q = np.linalg.qr(gaussian(rng, n, n))[0]
    a = (q * np.logspace(0, -digits, n)) @ q.T
    return (a + a.T) / 2


def test_large_matrices_by_each_of_the_ways(eager, rng):
    """Well and ill-conditioned, near, singular and indefinite members of one batch, beside the difference of factors."""
    n = 64
    well, ill, low = spread(rng, n, 1), spread(rng, n, 7), semidefinite(rng, n, 20)
    indefinite = np.diag([-1.0] + [1.0] * (n - 1))
    a = np.stack([well, ill, well, low, low, indefinite, 1e150 * well])
    b = np.stack([spread(rng, n, 1), spread(rng, n, 7), well, well, low, well, 1e-150 * ill])
    backend = backends.load("numpy")
    expected = semidefinite_pairs.compare(backend, a, b, None)
    found = eager(bures_distance, a, b, errors="nan")
    assert np.isnan(found).tolist() == [False] * 5 + [True, False]
    np.testing.assert_allclose(found[[0, 1, 3, 6]], expected.distance[[0, 1, 3, 6]], rtol=1e-12)
    assert (found[[2, 4]] < 1e-13).all()
    roots = eager(fidelity, a, b, squared=False, errors="nan")
    np.testing.assert_allclose(roots[[0, 1, 2, 3, 4, 6]], expected.root[[0, 1, 2, 3, 4, 6]], rtol=1e-12)
    for k in range(5):
        assert eager(bures_distance, a[k], b[k]) == found[k]


def test_large_matrices_have_the_same_gradient(rng):
    a, b = spread(rng, 64, 1), spread(rng, 64, 1)
    t, _ = matsign.coupled_root(b, a)
    np.testing.assert_allclose(
        gradient("torch", lambda x, y: bures_distance(x, y, squared=True), a, b), np.eye(64) - t, atol=1e-11
    )
