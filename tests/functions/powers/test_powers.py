"""Roots, powers and the logarithm: hard matrices, the branch cut, ranks, products alone."""

import numpy as np
import pytest
import scipy.linalg as sl

import matsign
import truth
from conftest import JAX
from matrices import adjoint, definite, gaussian, graded, jordan, similar, unitary
from matsign import (
    SpectrumError,
    backends,
    certify,
    condition,
    fractional_matrix_power,
    frechet,
    invroot_product,
    invrootm,
    invsqrtm,
    logm,
    rootm,
    sqrtm,
)

EXPONENTS = (1 / 3, -1 / 3, 0.25, -0.25, 0.75, -0.75, 0.1, 2.5)


def frank(n):
    i, j = np.indices((n, n))
    return np.where(j >= i - 1, n - np.maximum(i, j), 0).astype(float)


def lotkin(n):
    """Its eigenvalues but one are negative; so are those of a Frank matrix shifted."""
    x = sl.hilbert(n)
    x[0] = 1
    return x @ x


def kahan(n, angle=1.2):
    return np.diag(np.sin(angle) ** np.arange(n)) @ (np.eye(n) - np.cos(angle) * np.triu(np.ones((n, n)), 1))


def grcar(n):
    return np.eye(n) - np.eye(n, k=-1) + sum(np.eye(n, k=k) for k in (1, 2, 3))


def hard():
    rng = np.random.default_rng(0)
    d = np.diag(graded(5, 1e8))
    return {
        "frank": frank(7),
        "lotkin": lotkin(4),
        "kahan": kahan(7),
        "grcar": grcar(6),
        "graded": d @ (np.eye(5) + 0.2 * gaussian(rng, 5, 5)) @ np.linalg.inv(d),
        "graded, definite": definite(rng, 5, 1e10),
        "defective": similar(rng, sl.block_diag(jordan(2.0, 3), jordan(0.5, 2)), 4),
        "clustered": np.eye(5) + 1e-5 * gaussian(rng, 5, 5),
        "complex": similar(rng, np.diag([1j, -0.5 + 1e-3j, 2, -1j]), 5),
    }


HARD = hard()
every_hard = pytest.mark.parametrize("name", HARD)


def accurate(f, a, exact, *options, by_scipy):
    """As accurate as its condition number allows, or at most ten times less so than SciPy; and certified to be."""
    value, certificate = certify(f)(a, *options)
    error = truth.error(value, exact)
    allowed = 10 * np.finfo(float).eps * max(1, float(condition(f)(a, *options)))
    assert error < max(allowed, 10 * truth.error(by_scipy, exact)), (f.__name__, options, error, allowed)
    assert certificate.forward_error > error / 20
    # A negative power does not determine A where A is nearly singular.
    assert certificate.backward_error < 1e-13 * max(1, np.linalg.cond(a))


@pytest.mark.slow
@every_hard
def test_hard_matrices(name):
    a = HARD[name]
    for t in EXPONENTS:
        accurate(fractional_matrix_power, a, truth.power(a, t), t, by_scipy=sl.fractional_matrix_power(a, t))
    for p in range(2, 13):
        by_scipy = sl.fractional_matrix_power(a, 1 / p)
        accurate(rootm, a, truth.power(a, 1, p), p, by_scipy=by_scipy)
        accurate(invrootm, a, truth.power(a, -1, p), p, by_scipy=np.linalg.inv(by_scipy))
    accurate(logm, a, truth.logarithm(a), by_scipy=sl.logm(a))


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-100, 1e100])
def test_scales(scale, eager, rng):
    a = similar(rng, np.diag([1.0, 2, 3]), 5)
    for p in (3, 7):
        assert truth.error(eager(rootm, scale * a, p=p), truth.power(scale * a, 1, p)) < 1e-14
        assert truth.error(eager(invrootm, scale * a, p=p), truth.power(scale * a, -1, p)) < 1e-14
    assert truth.error(eager(logm, scale * a), truth.logarithm(scale * a)) < 1e-14
    far = np.array([[1.0, 1e9], [1e-9, 2.0]]) * scale
    assert truth.error(eager(logm, far), truth.logarithm(far)) < 1e-14


# The branch cut.

PAULI = {"x": np.array([[0, 1], [1, 0]]), "y": np.array([[0, -1j], [1j, 0]]), "z": np.diag([1, -1])}
SWAP = np.eye(4)[[0, 2, 1, 3]]


def on_the_cut(rng):
    u = unitary(rng, 4, "complex128")
    core = sl.block_diag(jordan(-2.0, 2), jordan(-0.5, 1), np.eye(1))
    return {
        **{name: x.astype(complex) for name, x in PAULI.items()},
        "swap": SWAP.astype(complex),
        "unitary": (u * [-1, -1, 1, 1j]) @ adjoint(u),
        "defective": u @ core @ adjoint(u),
        "non-normal": similar(rng, np.diag([-1.0 + 0j, -3, 2, 1j]), 10),
    }


def test_negative_eigenvalues_of_complex_matrices_have_the_argument_pi(eager, rng):
    for name, a in on_the_cut(rng).items():
        for p in (2, 3, 7):
            x = eager(rootm, a, p=p)
            assert np.linalg.norm(np.linalg.matrix_power(x, p) - a) < 1e-13 * np.linalg.norm(a), name
            arguments = np.angle(np.linalg.eigvals(x)) * p
            assert (arguments > -0.5).all(), name
            z = eager(invrootm, a, p=p)
            assert np.linalg.norm(x @ z - np.eye(len(a))) < 1e-12, name
        logarithm = eager(logm, a)
        assert np.linalg.norm(sl.expm(logarithm) - a) < 1e-13 * np.linalg.norm(a), name
        assert (np.linalg.eigvals(logarithm).imag > -0.5).all(), name
        assert certify(rootm)(a, 3)[1].backward_error < 1e-13


def test_a_small_eigenvalue_far_below_the_cut_stays_there():
    """It is within rounding of the axis only because it is within rounding of zero."""
    a = np.diag([1, -1e-6 - 4e-7j, 1, 1, 1]).astype("complex64")
    a[0, 1] = 1
    assert truth.error(rootm(a, 3), truth.power(a.astype(complex), 1, 3)) < 1e-6


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rounding_moves_long_jordan_blocks_far_from_the_cut(dtype, rng):
    u = unitary(rng, 10, "complex128")
    core = sl.block_diag(jordan(-2.0, 8), jordan(3.0, 2))
    a = (u @ core @ adjoint(u)).astype(f"complex{2 * int(dtype[5:])}")
    eps, q = np.finfo(dtype).eps, unitary(rng, 10)
    for f, options, back in (
        (matsign.sqrtm, (), lambda x: x @ x),
        (rootm, (3,), lambda x: x @ x @ x),
        (logm, (), lambda x: sl.expm(x.astype(complex))),
    ):
        x = f(a, *options)
        assert np.linalg.norm(back(x) - a) < 100 * eps * np.linalg.norm(a)
        assert np.linalg.norm(x) < 20
        with pytest.raises(SpectrumError, match="negative real axis"):
            f((q @ core @ q.T).astype(dtype), *options)


def test_a_real_matrix_without_a_real_root_says_so():
    for a in (np.diag([1.0, -2.0]), np.array([[1.0, 5.0], [0.0, -2.0]]), -np.eye(2)):
        for f, options in ((rootm, {"p": 3}), (invrootm, {"p": 2}), (logm, {}), (fractional_matrix_power, {"t": 0.3})):
            with pytest.raises(SpectrumError, match=r"eigenvalue -[12] lies on the negative .* complex dtype"):
                f(a, **options)
    turned = np.array([[-1.0, 1e-17], [-1e-17, -1.0]])
    with pytest.raises(SpectrumError, match="near the negative real axis"):
        rootm(turned, 3)
    np.testing.assert_array_equal(fractional_matrix_power(np.diag([1.0, -2.0]), 3), np.diag([1.0, -8.0]))


# Ranks.


def test_zero_eigenvalues(eager, rng):
    v = gaussian(rng, 4, 2)
    a = v @ v.T
    values, u = np.linalg.eigh(a)
    values[:2] = 0
    for p in (2, 3, 5):
        x, z = eager(rootm, a, p=p), eager(invrootm, a, p=p)
        np.testing.assert_allclose(x, (u * values ** (1 / p)) @ u.T, atol=1e-13)
        inverse = np.where(values > 0, values.clip(1e-300) ** (-1 / p), 0)
        np.testing.assert_allclose(z, (u * inverse) @ u.T, atol=1e-12 * np.abs(z).max())
        np.testing.assert_allclose(eager(invroot_product, a, a, p=p, s=p), u[:, 2:] @ u[:, 2:].T, atol=1e-12)
    general = similar(rng, np.diag([0.0, 0, 1, 4]), 5)
    x = eager(fractional_matrix_power, general, t=-0.5)
    np.testing.assert_allclose(x @ x @ general @ x @ x, x @ x, atol=1e-12)
    with pytest.raises(SpectrumError, match="singular"):
        logm(a)
    with pytest.raises(SpectrumError, match="defective"):
        rootm(np.array([[0.0, 1.0], [0.0, 0.0]]), 3)


def test_derivative_along_directions_that_keep_the_rank(rng):
    v, dv = gaussian(rng, 4, 2), gaussian(rng, 4, 2)
    a, da = v @ v.T, v @ dv.T + dv @ v.T
    moved = [(v + h * dv) @ (v + h * dv).T for h in (1e-5, -1e-5)]
    for f, options in ((rootm, {"p": 3}), (invrootm, {"p": 4}), (fractional_matrix_power, {"t": 1.5})):
        difference = (f(moved[0], **options) - f(moved[1], **options)) / 2e-5
        np.testing.assert_allclose(frechet(f)(a, da, **options), difference, rtol=1e-6, atol=1e-7)
    assert condition(rootm)(a, 3) == np.inf


def test_derivatives_at_repeated_eigenvalues(rng):
    e = gaussian(rng, 3, 3)
    np.testing.assert_allclose(frechet(rootm)(8 * np.eye(3), e, p=3), e / 12, rtol=1e-14)
    np.testing.assert_allclose(frechet(logm)(4 * np.eye(3), e), e / 4, rtol=1e-14)
    twice = frechet(fractional_matrix_power)(jordan(2.0, 3), e, t=2.0)
    np.testing.assert_allclose(twice, jordan(2.0, 3) @ e + e @ jordan(2.0, 3), rtol=1e-14)


# Products alone.


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
def test_products_alone(dtype, eager, rng):
    g = gaussian(rng, 3, 40, dtype=dtype)
    for p, s, spread in ((2, 1, 10), (3, 2, 60), (4, 1, 1e3), (12, 5, 1e5), (1, 3, 10)):
        a = definite(rng, 40, spread, dtype)
        values, u = np.linalg.eigh(a.astype(complex))
        exact = g @ (u * values ** (-s / p)) @ adjoint(u)
        for tol in (1e-3, 1e-5):
            y = eager(invroot_product, g, a, p=p, s=s, tol=tol, rtol=0.0, method="polynomial")
            rounding = 4 * spread * np.finfo(dtype).eps
            assert np.linalg.norm(y - exact) < (tol + rounding) * np.linalg.norm(exact)


@pytest.mark.parametrize("library", ["torch", JAX])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_float32_rounded(dtype, library, rng):
    pytest.importorskip(library)
    backend = backends.load(library)
    a = backend.astype(backend.asarray(definite(rng, 8, 10).astype("float32")), dtype)
    values, v = np.linalg.eigh(np.asarray(backend.astype(a, "float32"), "float64"))
    calls = [
        (sqrtm, {}, 0.5),
        (invsqrtm, {}, -0.5),
        (rootm, {"p": 3}, 1 / 3),
        (fractional_matrix_power, {"t": 0.7}, 0.7),
    ]
    for options in ({}, {"tol": 1e-2, "method": "polynomial"}) if library == "torch" else ({},):
        calls.append((invrootm, {"p": 4, **options}, -0.25))
    for f, options, t in calls:
        x, certificate = certify(f)(a, **options)
        assert backend.dtype_name(x) == dtype
        full = f(backend.astype(a, "float32"), **options)
        assert bool((x == backend.astype(full, dtype)).all())
        exact = (v * values**t) @ v.T
        error = np.linalg.norm(np.asarray(backend.astype(x, "float32"), "float64") - exact) / np.linalg.norm(exact)
        assert error < {"bfloat16": 2**-8, "float16": 2**-11}[dtype] + options.get("tol", 0.0)
        assert error < 2 * np.max(certificate.forward_error)


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_inverses_of_shifted_matrices(dtype, rng):
    """One call decides for each member: few inverses, more of them, or eigenvectors."""
    lowest = np.array([0.5, 0.1, 1e-2, 1e-3, 1e-4 if dtype == "float32" else 1e-9])
    values = np.linspace(1, lowest, 131).T
    u = np.stack([unitary(rng, 131, dtype) for _ in lowest])
    a = (u * values[:, None]) @ adjoint(u)
    a = ((a + adjoint(a)) / 2).astype(dtype)
    values, u = np.linalg.eigh(a.astype(complex))
    g = gaussian(rng, 2, 131, dtype=dtype)
    for f, p, s in (
        (lambda x: invrootm(x, 4, tol=1e-4), 4, 1),
        (lambda x: invroot_product(g, x, 3, 2, tol=1e-4), 3, 2),
    ):
        exact = (u * values[:, None] ** (-s / p)) @ adjoint(u)
        exact = exact if s == 1 else g @ exact
        stack = f(a)
        assert (np.linalg.norm(stack - exact, axis=(1, 2)) < 1e-4 * np.linalg.norm(exact, axis=(1, 2))).all()
        assert all((f(member) == result).all() for member, result in zip(a, stack, strict=True))
    inverses = certify(invrootm)(a, 4, tol=1e-4)[1].iterations
    assert inverses[0] < inverses[2] < inverses[3]
    assert inverses[4] == 0
    # What rtol takes for zero stays zero, also where few inverses are enough.
    np.testing.assert_allclose(invrootm(a[2], 4, tol=1e-4, rtol=0.3), invrootm(a[2], 4, rtol=0.3), atol=1e-5)
    with pytest.raises(SpectrumError):
        invrootm(np.diag(np.linspace(-0.1, 1, 131)).astype(a.real.dtype), 4, tol=1e-4)


def test_the_estimate_of_the_spectrum_saves_steps(rng):
    """Where the condition number is small, and an eigenvalue that the estimate does not see changes nothing in the result."""
    values = np.linspace(0.2, 1, 100)
    for last in (0.2, 0.02, 1e-5):
        u = np.linalg.qr(gaussian(rng, 100, 100))[0]
        values[0] = last
        a = (u * values) @ u.T
        a = (a + a.T) / 2
        exact = (u * values**-0.25) @ u.T
        for tol in (1e-2, 1e-4, 1e-9):
            assert np.linalg.norm(invrootm(a, 4, tol=tol) - exact, 2) < tol * np.linalg.norm(exact, 2)


def test_products_fall_back_to_eigenvectors_or_tell(eager):
    a = np.stack([np.diag(np.r_[np.ones(20), x]) for x in (1e-12, 0.0, 1.0)])
    z = eager(invrootm, a, p=4, method="polynomial")
    np.testing.assert_allclose(z[:, -1, -1], [1e3, 0, 1], rtol=1e-10)
    with pytest.raises(SpectrumError, match="batch members 1: the eigenvalue -3 "):
        invrootm(np.stack([np.eye(2), np.diag([1.0, -3.0])]), 4, method="polynomial")


def test_rounding_below_zero_is_clipped_and_told():
    a, general = np.diag([2.0, 1.0, -1e-16]), np.array([[1.0, 1.0], [0.0, 2.0]])
    calls = [(f, ()) for f in (sqrtm, invsqrtm, matsign.sqrtm_pair)]
    calls += [(fractional_matrix_power, (0.3,)), (rootm, (3,)), (invrootm, (4,))]
    for f, options in calls:
        assert certify(f)(a, *options)[1].measures["clipped"] == 5e-17, f
        assert certify(f)(np.stack([np.eye(2), general]), *options)[1].measures["clipped"].tolist() == [0, 0], f
    assert certify(invroot_product)(np.eye(3), a, 4)[1].measures["clipped"] == 5e-17
    assert certify(sqrtm)(np.diag([1.0, -4.0]) + 0j)[1].measures["clipped"] == 0  # its root is imaginary
    for t in (0.5, 0.3, [0.3]):
        assert certify(matsign.geometric_mean)(a, np.eye(3), t)[1].measures["clipped"] == 5e-17


# Bad input.


@pytest.mark.parametrize("p", [0, -2, 2.5, True, None, "3"])
def test_bad_orders(p):
    for f, arrays in ((rootm, (np.eye(2),)), (invrootm, (np.eye(2),)), (invroot_product, (np.eye(2), np.eye(2)))):
        with pytest.raises((ValueError, TypeError), match=f"^{f.__name__}: p must be a positive integer"):
            f(*arrays, p)


@pytest.mark.parametrize("t", [np.nan, np.inf, 1j, "1", None, [0.5]])
def test_bad_exponents(t):
    with pytest.raises(ValueError, match="t must be a finite real number"):
        fractional_matrix_power(np.eye(2), t)


def test_exponents_without_a_derivative():
    torch = pytest.importorskip("torch")
    t = torch.tensor(0.3, requires_grad=True)
    with pytest.raises(TypeError, match="no derivative in t"):
        fractional_matrix_power(torch.eye(2), t)
    assert torch.equal(fractional_matrix_power(torch.eye(2), t.detach()), torch.eye(2))


def test_extreme_exponents():
    a = np.array([[2.0, 1.0], [0.0, 3.0]])
    np.testing.assert_array_equal(fractional_matrix_power(a, 0), np.eye(2))
    np.testing.assert_allclose(fractional_matrix_power(a, 1e-300), np.eye(2), atol=1e-15)
    np.testing.assert_allclose(fractional_matrix_power(a, 100.5), sl.expm(100.5 * sl.logm(a)), rtol=1e-11)
    np.testing.assert_allclose(rootm(a, 10**6), np.eye(2) + sl.logm(a) / 1e6, atol=1e-11)
    with pytest.raises(SpectrumError, match="larger than the largest number"):
        fractional_matrix_power(a, 5000.5)
    assert not fractional_matrix_power(a, -5000.5).any()
    assert matsign.fractional_matrix_power(a.astype("float32"), 0.5).dtype == np.float32


def test_zero_rows_and_columns_stay_zero(eager):
    a = np.array([[1.0, 1], [0, 0]])
    for f, options in (
        (rootm, {"p": 3}),
        (invrootm, {"p": 3}),
        (sqrtm, {}),
        (invsqrtm, {}),
        (fractional_matrix_power, {"t": -2}),
    ):
        x = eager(f, np.stack([a, a.T]), **options)
        np.testing.assert_allclose(x, np.stack([a, a.T]), rtol=1e-15, atol=0)


# Derivatives.


@pytest.mark.parametrize("f", [rootm, logm, fractional_matrix_power], ids=lambda f: f.__name__)
def test_second_derivatives_of_ill_conditioned_matrices(f, rng):
    """Since L((1 + x) A, G) = (1 + x)^{t-1} L(A, G), its derivative along A is t - 1 times L(A, G); t = 0 for the logarithm."""
    torch = pytest.importorskip("torch")
    options, t = {rootm: ({"p": 3}, 1 / 3), logm: ({}, 0), fractional_matrix_power: ({"t": 2.5}, 2.5)}[f]
    q = np.linalg.qr(gaussian(rng, 3, 3))[0]
    a = (q * [1, 1e-9, 1e-10]) @ q.T
    a = torch.tensor((a + a.T) / 2, requires_grad=True)
    g, w = (torch.tensor(gaussian(rng, 3, 3)) for _ in range(2))
    (gradient,) = torch.autograd.grad((w * f(a, **options)).sum(), a, create_graph=True)
    first = (gradient * g).sum()
    (second,) = torch.autograd.grad(first, a)
    assert abs((second * a).sum() / ((t - 1) * first) - 1) < 1e-4
