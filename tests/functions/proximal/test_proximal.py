"""mclip, soft_threshold, psd_project: shapes, ranks, scales; their characterisations; derivatives where the SVD has none."""

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import direct
import matsign
import truth
from conftest import JAX
from matrices import DTYPES, adjoint, gaussian, graded, unitary, with_singular_values
from matsign import certify, frechet, mclip, psd_project, soft_threshold

METHODS = ("svd", "sign")
SHAPES = [(1, 1), (2, 2), (3, 3), (1, 3), (3, 1), (7, 7), (9, 4), (4, 9), (20, 2)]
PRECISE = {"float32": 3e-6, "complex64": 3e-6, "float64": 1e-14, "complex128": 1e-14}
every_method = pytest.mark.parametrize("method", METHODS)
both = pytest.mark.parametrize("dtype", ["float64", "complex128"])
every_shape = pytest.mark.parametrize("shape", SHAPES)


def spectral(m):
    return np.linalg.norm(m, 2) if m.size else 0.0


@every_shape
@every_method
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_shape_and_dtype(shape, method, dtype, rng):
    m = gaussian(rng, 2, *shape, dtype=dtype)
    middle = np.median(np.linalg.svd(m, compute_uv=False)) * 1.1
    for f, reference in (
        (
            lambda x: mclip(x, 0.5 * middle, middle, method=method),
            lambda x: direct.mclip_by_svd(x, 0.5 * middle, middle),
        ),
        (lambda x: mclip(x, 0, middle, method=method), lambda x: direct.mclip_by_svd(x, 0, middle)),
        (lambda x: soft_threshold(x, middle, method=method), lambda x: direct.soft_threshold_by_svd(x, middle)),
    ):
        value = f(m)
        assert value.dtype == dtype
        for x, y in zip(value, m.astype(np.result_type(dtype, "float64")), strict=True):
            np.testing.assert_allclose(x, reference(y), atol=4 * PRECISE[dtype] * spectral(y))


@every_method
@pytest.mark.parametrize("shape", [(3, 3), (2, 4)])
@both
def test_eighty_digits(shape, method, dtype, eager, rng):
    m = with_singular_values(rng, *shape, [1e3, 0.7, 1e-2][: min(shape)], dtype)
    # M has errors of rounding times its largest singular value; lifting by a factor multiplies them.
    for f, expected, limit in (
        (lambda x: mclip(x, 0, 0.9, method=method), truth.mclip(m, 0, 0.9), 1e-11),
        (lambda x: mclip(x, 0.5, 0.9, method=method), truth.mclip(m, 0.5, 0.9), 1e-10),
        (lambda x: soft_threshold(x, 0.5, method=method), truth.soft_threshold(m, 0.5), 1e-11),
    ):
        assert truth.error(eager(f, m), expected) * float(truth.size(expected)) < limit
    a = gaussian(rng, 4, 4, dtype=dtype)
    value = eager(psd_project, a, method="sign" if method == "sign" else "eigh")
    assert truth.error(value, truth.psd_project(a)) < 1e-14


@every_method
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_six_decades_either_side_of_the_threshold(method, dtype, eager, rng):
    """LAPACK's SVD in single precision has a relative error of 3e-4 here."""
    m = with_singular_values(rng, 96, 96, np.geomspace(1e3, 1e-3, 96)).astype(dtype)
    x = eager(mclip, m, method=method)
    expected = direct.mclip_by_svd(m.astype("float64"), 0, 1)
    assert np.linalg.norm(x - expected) < (7e-5 if dtype == "float32" else 1e-12) * np.linalg.norm(expected)
    assert spectral(x.astype("float64")) < 1 + 8 * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["torch", JAX])
@every_method
def test_sixteen_bits(dtype, name, method, rng):
    """Computed in float32 and rounded once, with a singular value of 1000 too."""
    xp = pytest.importorskip({"torch": "torch", "jax": "jax.numpy"}[name])
    m = with_singular_values(rng, 6, 4, [1e3, 3, 0.5, 0.01])
    m = xp.asarray(m, dtype=getattr(xp, dtype))
    wide = (lambda x: x.double().numpy()) if name == "torch" else (lambda x: np.asarray(x, dtype="float64"))
    eps = {"bfloat16": 2**-8, "float16": 2**-11}[dtype]
    for value, expected in (
        (mclip(m, method=method), direct.mclip_by_svd(wide(m), 0, 1)),
        (mclip(m, 0.1, 1, rtol=1e-6, method=method), direct.mclip_by_svd(wide(m), 0.1, 1)),
        (soft_threshold(m, 1.0, method=method), direct.soft_threshold_by_svd(wide(m), 1)),
    ):
        assert value.dtype == m.dtype
        np.testing.assert_allclose(wide(value), expected, rtol=1.02 * eps, atol=2e-3)


@every_method
@both
@pytest.mark.parametrize(
    "values",
    [[2, 2, 2, 2], [2, 2, 0.5, 0.5], [1, 1, 1, 1], [3, 1, 0.5, 0], [3, 0, 0, 0], [0] * 4, [1e3, 1, 1e-6, 0]],
    ids=str,
)
def test_repeated_singular_values_low_rank_and_thresholds_that_are_met(values, method, dtype, rng):
    u, v, values = unitary(rng, 6, dtype)[:, :4], unitary(rng, 4, dtype), np.array(values, float)
    m, size = (u * values) @ v, max(values.max(), 1)
    for lower, upper in ((0, 1), (0.75, 1), (1, 1), (0, 0), (0.75, np.inf), (0, np.inf)):
        kept = np.where((lower == 0) | (values > 0), values.clip(lower, upper), 0)
        # Lifting 1e-6 magnifies its rounding errors.
        limit = 2e-14 * size * (1e6 if lower and size == 1e3 else 1)
        np.testing.assert_allclose(mclip(m, lower, upper, method=method), (u * kept) @ v, atol=limit)
    for t in (0, 1, 2, np.inf):
        found = soft_threshold(m, t, method=method)
        np.testing.assert_allclose(found, (u * np.maximum(values - t, 0)) @ v, atol=2e-14 * size)


@every_method
@pytest.mark.parametrize("scale", [1e100, 1e-100])
def test_scales(scale, method, eager, rng):
    m = gaussian(rng, 5, 4)
    for ours, reference in (
        (lambda x, s: mclip(x, 0.5 * s, 2 * s, method=method), direct.mclip_by_svd(m, 0.5, 2)),
        (lambda x, s: mclip(x, 0, 2 * s, method=method), direct.mclip_by_svd(m, 0, 2)),
        (lambda x, s: soft_threshold(x, s, method=method), direct.soft_threshold_by_svd(m, 1)),
    ):
        np.testing.assert_allclose(eager(lambda x, f=ours: f(x, scale), m * scale) / scale, reference, atol=1e-13)
    u = direct.msign_by_svd(m)
    beyond = u if scale > 1 else m * scale
    np.testing.assert_allclose(eager(mclip, m * scale, method=method), beyond, atol=1e-13 * np.abs(beyond).max())
    beyond = 1e3 * u if scale > 1 else u  # both thresholds on one side
    value = eager(lambda x: mclip(x, 1.0, 1e3, method=method), m * scale)
    np.testing.assert_allclose(value, beyond, atol=1e-13 * np.abs(beyond).max())


@every_method
def test_rtol_decides_what_is_lifted(method, eager, rng):
    u, v = unitary(rng, 6), unitary(rng, 6)
    values = np.array([1, 0.5, 1e-5, 3e-6, 3e-7, 1e-7])
    found = eager(mclip, (u * values) @ v, lower=0.1, rtol=1e-6, method=method)
    np.testing.assert_allclose(found, (u * np.where(values > 1e-6, values.clip(0.1), 0)) @ v, atol=1e-9)
    np.testing.assert_allclose(eager(mclip, (u * values) @ v, rtol=1e-2, method=method), (u * values) @ v, atol=1e-14)


def test_thresholds_that_mean_nothing(on, rng):
    m = on.array(gaussian(rng, 3, 2))
    for bad in (-1.0, np.nan, True, "one", None, 1j):
        with pytest.raises(ValueError, match=r"^mclip: lower must be a number of at least 0, got"):
            mclip(m, bad)
        with pytest.raises(ValueError, match=r"^soft_threshold: t must be a number of at least 0, got"):
            soft_threshold(m, bad)
    with pytest.raises(ValueError, match=r"^mclip: lower must be at most upper, got lower=2, upper=1"):
        mclip(m, 2, 1)
    with pytest.raises(TypeError, match=r"^soft_threshold\(\) missing .*'t'"):
        soft_threshold(m)
    with pytest.raises(ValueError, match=r"^psd_project: A has shape \(3, 2\), expected \(\.\.\., n, n\)"):
        psd_project(m)


@given(st.integers(0, 2**32 - 1), st.integers(0, 7), st.integers(0, 7), st.sampled_from(METHODS), st.floats(0, 3))
def test_what_characterises_clipping(seed, n, m, method, t):
    """The parts below and above t add up; the part below is the projection on a ball, idempotent and nonexpansive."""
    rng = np.random.default_rng(seed)
    a, b = gaussian(rng, n, m), gaussian(rng, n, m)
    small = 3e-14 * (1 + spectral(a))
    below, above = mclip(a, 0, t, method=method), soft_threshold(a, t, method=method)
    np.testing.assert_allclose(below + above, a, atol=small)
    assert spectral(below) <= t + small
    np.testing.assert_allclose(mclip(below, 0, t, method=method), below, atol=small)
    assert np.linalg.norm(mclip(b, 0, t, method=method) - below) <= np.linalg.norm(a - b) + small
    # ⟨above, below⟩ = t ‖above‖ in the nuclear norm: the condition of the proximal step.
    nuclear = np.linalg.svd(above, compute_uv=False).sum() if above.size else 0
    np.testing.assert_allclose((above * below).sum(), t * nuclear, atol=20 * small * (1 + nuclear))
    np.testing.assert_allclose(mclip(a.T, 0, t, method=method), below.T, atol=small)


@given(st.integers(0, 2**32 - 1), st.integers(0, 7), st.sampled_from(("eigh", "sign")), st.sampled_from(DTYPES))
def test_what_characterises_the_projection(seed, n, method, dtype):
    """A = X - Y with X and Y positive semidefinite and X Y = 0."""
    a = gaussian(np.random.default_rng(seed), n, n, dtype=dtype)
    x, y = psd_project(a, method=method), psd_project(-a, method=method)
    small = PRECISE[dtype] * (1 + spectral(a))
    np.testing.assert_array_equal(x, adjoint(x))
    np.testing.assert_allclose(x - y, (a + adjoint(a)) / 2, atol=small)
    np.testing.assert_allclose(x @ y, 0 * a, atol=4 * small * (1 + spectral(a)))
    assert not n or np.linalg.eigvalsh(x)[0] > -2 * small
    np.testing.assert_allclose(psd_project(x, method=method), x, atol=small)


def test_a_batch_of_mixed_ranks(eager, rng):
    stack = np.stack([with_singular_values(rng, 6, 4, np.where(np.arange(4) < r, graded(4, 10), 0)) for r in range(5)])
    for method in METHODS:
        for x, m in zip(eager(mclip, stack, upper=0.5, method=method), stack, strict=True):
            np.testing.assert_allclose(x, direct.mclip_by_svd(m, 0, 0.5), atol=1e-14)


def test_certificates(rng):
    m = with_singular_values(rng, 8, 5, graded(5, 1e6))
    for f, options in ((mclip, {"lower": 1e-3, "upper": 0.1}), (mclip, {"upper": 0.1}), (soft_threshold, {"t": 0.1})):
        for method in METHODS:
            value, certificate = certify(f)(m, **options, method=method)
            assert certificate.backward_error < 1e-12
            assert certificate.forward_error < 1e-10
            assert np.linalg.norm(value - f(m, **options)) < 30 * max(certificate.forward_error, 1e-16)


# Derivatives.

CASES = {
    "mclip, square": (mclip, {"lower": 0.5, "upper": 1.5}, (4, 4), [3, 2, 1, 0.2]),
    "mclip, tall": (mclip, {}, (5, 3), [3, 0.5, 0.2]),
    "mclip, wide": (mclip, {"lower": 0.5, "upper": np.inf}, (2, 4), [3, 0.2]),
    "mclip, rank 2": (mclip, {}, (4, 4), [3, 0.5, 0, 0]),
    "mclip, repeated": (mclip, {"lower": 0.5, "upper": 1.5}, (4, 4), [2, 2, 0.25, 0.25]),
    "mclip, all below": (mclip, {}, (4, 3), [0.5, 0.2, 0]),
    "soft_threshold, square": (soft_threshold, {"t": 1.0}, (3, 3), [3, 2, 0.2]),
    "soft_threshold, wide, rank 1": (soft_threshold, {"t": 1.0}, (3, 4), [3, 0, 0]),
    "soft_threshold, repeated": (soft_threshold, {"t": 1.0}, (4, 4), [3, 3, 0.5, 0.5]),
    "soft_threshold, graded": (soft_threshold, {"t": 1.0}, (4, 4), [1e3, 2, 0.5, 1e-9]),
    "psd_project": (psd_project, {}, (4, 4), [3, 2, 1, 0.2]),
}
every_case = pytest.mark.parametrize("case", CASES)


def drawn(case, rng, dtype="float64"):
    f, options, shape, values = CASES[case]
    return f, options, with_singular_values(rng, *shape, values, dtype)


@every_case
@both
def test_tangent_equals_differences(case, dtype, rng):
    f, options, m = drawn(case, rng, dtype)
    dm = gaussian(rng, *m.shape, dtype=dtype)
    h = 3e-4
    ahead, back, far, farther = (f(m + s * h * dm, **options) for s in (1, -1, 2, -2))
    difference = (8 * (ahead - back) - (far - farther)) / (12 * h)
    tangent = frechet(f)(m, dm, **options)
    assert np.linalg.norm(tangent - difference) < 1e-8 * max(1, np.linalg.norm(difference))


@every_case
@both
def test_the_derivative_is_its_own_adjoint(case, dtype, rng):
    torch = pytest.importorskip("torch")
    f, options, m = drawn(case, rng, dtype)
    d, bar = (gaussian(rng, *m.shape, dtype=dtype) for _ in range(2))
    x = torch.from_numpy(m).requires_grad_()
    (gradient,) = torch.autograd.grad(f(x, **options), x, torch.from_numpy(bar))
    size = np.linalg.norm(d) * np.linalg.norm(bar)
    assert abs(np.vdot(gradient.numpy(), d).real - np.vdot(bar, frechet(f)(m, d, **options)).real) < 1e-13 * size


@pytest.mark.slow
@every_case
@both
def test_twice_in_torch(case, dtype, rng):
    """Also at repeated singular values and low rank: derivatives of every order are right there."""
    torch = pytest.importorskip("torch")
    f, options, m = drawn(case, rng, dtype)
    x = (torch.from_numpy(m).requires_grad_(),)
    assert torch.autograd.gradcheck(lambda x: f(x, **options), x, fast_mode="graded" in case)
    assert torch.autograd.gradgradcheck(lambda x: f(x, **options), x, atol=1e-5, fast_mode=True)


@pytest.mark.compiles
def test_in_jax(rng):
    jax = pytest.importorskip("jax")
    from jax.test_util import check_grads

    f, options, m = drawn("soft_threshold, repeated", rng)
    check_grads(psd_project, (jax.numpy.asarray(gaussian(rng, 3, 3)),), order=1, modes=["fwd", "rev"], rtol=1e-4)
    weight = gaussian(rng, 4, 4)
    compiled = jax.jit(jax.grad(lambda x: (f(x, **options) * weight).sum()))(m)
    np.testing.assert_allclose(compiled, frechet(f)(m, weight, **options), atol=1e-11)


@every_method
def test_by_signs_the_derivative_is_the_same(method, rng):
    m, dm = gaussian(rng, 2, 5, 4)
    for f, options in ((mclip, {"lower": 0.5, "upper": 1.5}), (soft_threshold, {"t": 1.0})):
        plain = frechet(f)(m, dm, **options)
        np.testing.assert_allclose(frechet(f)(m, dm, **options, method=method), plain, atol=1e-12)


def test_on_a_threshold_it_counts_as_above(rng):
    for m in (np.eye(3), with_singular_values(rng, 4, 3, [2, 1, 1]), with_singular_values(rng, 4, 4, [2, 1, 0.5, 0.2])):
        dm = gaussian(rng, *m.shape)
        for f, options in ((mclip, {}), (mclip, {"lower": 1.0, "upper": 3.0}), (soft_threshold, {"t": 1.0})):
            above = frechet(f)(m * (1 + 1e-9), dm, **options)
            np.testing.assert_allclose(frechet(f)(m, dm, **options), above, atol=1e-7)
    # For M = I and upper = 1 that is the derivative of msign, the skew part.
    np.testing.assert_allclose(frechet(mclip)(np.eye(3), dm[:3, :3]), (dm[:3, :3] - dm[:3, :3].T) / 2, atol=1e-14)


def test_at_zero_and_at_semidefinite_matrices(rng):
    dm = gaussian(rng, 4, 4)
    np.testing.assert_allclose(frechet(mclip)(np.zeros((4, 4)), dm), dm, atol=1e-14)
    np.testing.assert_allclose(frechet(soft_threshold)(np.zeros((4, 4)), dm, t=1.0), 0 * dm, atol=1e-14)
    half = (dm + dm.T) / 2
    low = gaussian(rng, 4, 2)
    for a in (np.zeros((4, 4)), low @ low.T, np.eye(4)):
        np.testing.assert_allclose(frechet(psd_project)(a, dm), half, atol=1e-13)


@pytest.mark.parametrize("scale", [1e100, 1e-100])
def test_derivatives_of_scaled_matrices(scale, rng):
    m, dm = gaussian(rng, 2, 5, 4)
    for f, names in ((mclip, {"lower": 0.5, "upper": 1.5}), (soft_threshold, {"t": 1.0}), (psd_project, {})):
        x, d = (m[:4], dm[:4]) if f is psd_project else (m, dm)
        scaled = frechet(f)(x * scale, d, **{k: v * scale for k, v in names.items()})
        np.testing.assert_allclose(scaled, frechet(f)(x, d, **names), atol=1e-12)


def test_gradients_of_sixteen_bits_and_of_batches(rng):
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(gaussian(rng, 3, 4, 3)).bfloat16().requires_grad_()
    mclip(x).float().pow(3).sum().backward()
    assert x.grad.dtype == torch.bfloat16
    wide = x.detach().double().requires_grad_()
    torch.vmap(mclip)(wide).pow(3).sum().backward()
    assert (x.grad.double() - wide.grad).abs().max() < 0.05 * wide.grad.abs().max()


# Thresholds as arrays: one for every member, traced, differentiated.

THRESHOLDS = [(0.0, 1.0), (0.3, 1.5), (0.0, np.inf), (0.75, 0.75), (0.0, 0.0), (5.0, 6.0)]


def split_of(m, low, high):
    """The parts of msign(M) between 0 and `low`, and above `high`."""
    u, values, vh = np.linalg.svd(m, full_matrices=False)
    return (u * ((values < low) & (values > 0))) @ vh, (u * (values > high)) @ vh


@every_method
@pytest.mark.parametrize("shape", [(5, 4), (3, 5), (1, 1)])
@pytest.mark.parametrize("dtype", ["float64", "complex128", "float32"])
def test_one_threshold_for_every_member(shape, dtype, method, everywhere, rng):
    if everywhere.jit and (method == "sign" or dtype != "float64"):
        pytest.skip("compiling takes long, and on a CPU these are products alone")
    m = gaussian(rng, len(THRESHOLDS), *shape, dtype=dtype)
    low, high = np.array(THRESHOLDS).T
    clipped = np.stack([mclip(x, *pair, method=method) for x, pair in zip(m, THRESHOLDS, strict=True)])
    found = everywhere(lambda m, low, high: mclip(m, low, high, method=method), m, low, high)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, clipped, atol=30 * PRECISE[dtype])
    soft = np.stack([soft_threshold(x, t, method=method) for x, t in zip(m, high, strict=True)])
    found = everywhere(lambda m, t: soft_threshold(m, t, method=method), m, high)
    np.testing.assert_allclose(found, soft, atol=30 * PRECISE[dtype])


def test_thresholds_broadcast_and_take_the_precision_of_the_matrix(on, rng):
    m = gaussian(rng, 3, 5, 4)
    path = np.linspace(0, 2, 7)[:, None]
    found = on(soft_threshold, m, path)
    assert found.shape == (7, 3, 5, 4)
    for k, t in enumerate(path[:, 0]):
        np.testing.assert_allclose(found[k], soft_threshold(m, float(t)), atol=1e-14)
    assert on(mclip, m[0], np.zeros(2), np.ones((3, 1))).shape == (3, 2, 5, 4)
    for t in (0.5, np.float64(0.5), 1, on.array(np.full(3, 0.5)), on.array(np.full(3, 1))):
        for dtype in ("float32", "complex64"):
            assert on(lambda m, t=t: soft_threshold(m, t), m.astype(dtype)).dtype == dtype
            assert on(lambda m, t=t: mclip(m, 0.0, t), m.astype(dtype)).dtype == dtype
    np.testing.assert_array_equal(mclip(m, [0.1, 0.2, 0.3], 1), mclip(m, np.array([0.1, 0.2, 0.3])))
    assert on(mclip, np.zeros((0, 3, 2)), np.zeros(0)).shape == (0, 3, 2)
    assert on(soft_threshold, np.zeros((2, 0, 3)), np.ones(2)).shape == (2, 0, 3)


@both
def test_derivatives_with_respect_to_thresholds(dtype, rng):
    """d/d lower is the part of msign(M) below it, d/d upper that above it, d/dt of the soft threshold minus that above t."""
    m = gaussian(rng, 5, 6, 4, dtype=dtype)
    low, high = np.linspace(0.5, 1, 5), np.linspace(1.5, 3, 5)
    below, above = map(np.stack, zip(*map(split_of, m, low, high), strict=True))
    one, zero = np.ones(5), None
    np.testing.assert_allclose(frechet(mclip)(m, low, high, zero, one, zero), below, atol=1e-13)
    np.testing.assert_allclose(frechet(mclip)(m, low, high, zero, zero, one), above, atol=1e-13)
    np.testing.assert_allclose(frechet(soft_threshold)(m, high, zero, one), -above, atol=1e-13)
    np.testing.assert_allclose(frechet(mclip)(m[0], 0.0, 1.5, None, None, -2.0), -2 * above[0], atol=1e-13)
    # All together, and with the matrix.
    dm, h = gaussian(rng, 5, 6, 4, dtype=dtype), 1e-6
    moved = frechet(mclip)(m, low, high, dm, one, -one)
    difference = (mclip(m + h * dm, low + h, high - h) - mclip(m - h * dm, low - h, high + h)) / (2 * h)
    np.testing.assert_allclose(moved, difference, atol=1e-7)
    plain = frechet(mclip)(m, low, high, dm, None, None)
    np.testing.assert_allclose(frechet(mclip)(m, dm, lower=low, upper=high), plain, atol=1e-14)


def test_derivatives_at_thresholds_that_are_zero_infinite_or_met(rng):
    m = np.stack([gaussian(rng, 4, 3), with_singular_values(rng, 4, 3, [2, 1, 0]), np.zeros((4, 3))])
    for f in (
        lambda t: frechet(soft_threshold)(m, t, None, np.ones(3)),
        lambda t: -frechet(mclip)(m, 0.0, t, None, None, np.ones(3)),
    ):
        np.testing.assert_allclose(f(np.full(3, np.inf)), 0 * m, atol=0)
        u = np.stack([direct.msign_by_svd(x) if x.any() else x for x in m])
        np.testing.assert_allclose(f(np.zeros(3)), -u, atol=1e-13)
    dm = gaussian(rng, 3, 4, 3)
    np.testing.assert_array_equal(frechet(soft_threshold)(m, dm, t=np.zeros(3)), dm)
    np.testing.assert_allclose(
        frechet(mclip)(m, dm, lower=np.zeros(3), upper=np.ones(3)), frechet(mclip)(m, dm), atol=1e-13
    )
    # A singular value at the threshold counts as above it.
    met = frechet(mclip)(np.eye(3), 0.0, 1.0, None, None, 1.0)
    np.testing.assert_allclose(met, np.eye(3), atol=1e-14)


@pytest.mark.parametrize("scale", [1e300, 1e-300])
def test_derivatives_with_respect_to_scaled_thresholds(scale, rng):
    m = gaussian(rng, 5, 4)
    for f, names, d in ((mclip, (0.5, 1.5), (None, 1.0, 1.0)), (soft_threshold, (1.0,), (None, 1.0))):
        scaled = frechet(f)(m * scale, *(t * scale for t in names), *d)
        np.testing.assert_allclose(scaled, frechet(f)(m, *names, *d), atol=1e-12)


@pytest.mark.slow
@both
def test_thresholds_twice_in_torch(dtype, rng):
    torch = pytest.importorskip("torch")
    variable = lambda x: torch.from_numpy(np.asarray(x)).requires_grad_()  # noqa: E731
    m = variable(gaussian(rng, 2, 4, 3, dtype=dtype))
    low, high = variable(np.array([0.3, 0.5])), variable(np.array([1.0, 1.5]))
    for f, x in (
        (mclip, (m, low, high)),
        (lambda m, high: mclip(m, 0.0, high), (m, high)),
        (lambda m, low: mclip(m, low), (m, low)),
        (soft_threshold, (m, high)),
        (soft_threshold, (m, variable(1.0))),
    ):
        assert torch.autograd.gradcheck(f, x, fast_mode=True)
        assert torch.autograd.gradgradcheck(f, x, atol=1e-5, fast_mode=True)


@pytest.mark.compiles
def test_thresholds_in_jax(rng):
    jax = pytest.importorskip("jax")
    from jax.test_util import check_grads

    m, t = gaussian(rng, 2, 3, 2), np.array([0.8, 1.2])
    check_grads(jax.jit(soft_threshold), (m, t), order=1, modes=["fwd", "rev"], rtol=1e-3)
    gradient = jax.jit(lambda t: jax.grad(lambda x: (soft_threshold(x, t) ** 2).sum())(m[0]).sum())
    twice = jax.jit(jax.grad(gradient))(1.0)
    first = [gradient(t) for t in (1 + 1e-5, 1 - 1e-5)]
    np.testing.assert_allclose(twice, (first[0] - first[1]) / 2e-5, rtol=1e-6)
    slope = jax.jit(jax.grad(lambda t: mclip(m[0], 0.0, t).sum()))
    for high in (0.5, 1.0, 2.0):
        np.testing.assert_allclose(slope(high), split_of(m[0], 0, high)[1].sum(), atol=1e-12)
    mapped = jax.vmap(lambda t: mclip(m[0], t, 1.5))(jax.numpy.asarray(t))
    np.testing.assert_allclose(mapped, mclip(m[0], t, 1.5), atol=1e-14)


def test_thresholds_mapped_over_and_gathered_in_torch(rng):
    torch = pytest.importorskip("torch")
    m, t = torch.from_numpy(gaussian(rng, 3, 4, 3)), torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64)
    torch.testing.assert_close(torch.vmap(lambda m, t: mclip(m, 0.0, t))(m, t), mclip(m, 0.0, t))
    slopes = torch.vmap(torch.func.grad(lambda t: soft_threshold(m[0], t).sum()))(t)
    expected = [-split_of(m[0].numpy(), 0, float(x))[1].sum() for x in t]
    np.testing.assert_allclose(slopes.numpy(), expected, atol=1e-13)
    t.requires_grad_()
    both = matsign.each(soft_threshold)([m[0], m[1]], t=t[1])
    (gradient,) = torch.autograd.grad(sum(x.sum() for x in both), t)
    expected = -sum(split_of(x.numpy(), 0, 1.0)[1].sum() for x in m[:2])
    np.testing.assert_allclose(gradient.numpy(), [0, expected, 0], atol=1e-13)
    half = m.bfloat16()
    mclip(half, 0.0, t).float().sum().backward()
    assert t.grad.dtype == torch.float64


def test_members_whose_thresholds_make_no_sense(on, rng):
    m = gaussian(rng, 4, 3, 2)
    low, high = np.array([-1.0, 0.5, 2.0, np.nan]), np.array([1.0, 1.0, 1.0, 1.0])
    with pytest.raises(
        matsign.SpectrumError, match=r"^mclip: batch members 0, 2, 3: a threshold is -1, 2, nan"
    ) as error:
        on(mclip, m, low, high)
    assert error.value.members == [(0,), (2,), (3,)]
    found = on(lambda m, low: mclip(m, low, errors="nan"), m, low)
    assert np.isnan(found[[0, 2, 3]]).all()
    np.testing.assert_allclose(found[1], mclip(m[1], 0.5), atol=1e-14)
    with pytest.raises(matsign.SpectrumError, match=r"^mclip: batch members 1: a threshold is nan"):
        on(lambda m, high: mclip(m, 0.0, high), m, np.array([1.0, np.nan, 1, 1]))
    with pytest.raises(matsign.SpectrumError, match=r"^soft_threshold: batch members 2: a threshold is -3"):
        on(soft_threshold, m, np.array([1.0, 2, -3, np.inf]))
    # The value of a single number is known in NumPy, and not in PyTorch and JAX.
    wrong = ValueError if on.name == "numpy" else matsign.SpectrumError
    with pytest.raises(wrong, match=r"^soft_threshold: .*-1"):
        soft_threshold(on.array(m[0]), on.array(np.array(-1.0)))


def test_what_is_no_threshold(rng):
    m = gaussian(rng, 3, 2)
    for bad, text in (
        (np.array([1j]), "has dtype complex128; expected real numbers"),
        (np.array([True]), "has dtype bool; expected real numbers"),
        (["one"], r"holds text"),
        ([None], "has dtype object"),
    ):
        with pytest.raises(TypeError, match=f"^mclip: upper {text}"):
            mclip(m, upper=bad)
    with pytest.raises(ValueError, match=r"^mclip: the leading axes do not broadcast: M \(5, 3, 2\), upper \(4,\)"):
        mclip(np.stack([m] * 5), upper=np.ones(4))
    np.testing.assert_array_equal(mclip(m, upper=10**400), mclip(m, upper=np.inf))
    assert not soft_threshold(m, 10**400).any()


@every_method
def test_at_the_ends_of_the_range(method, eager):
    """All entries 1.7e308, rank one: zero singular values are not raised to a threshold below rounding."""
    ones, lowest = np.ones((3, 3)), 5e-324
    for size in (1e20, 1e200, 1.7e308):
        np.testing.assert_allclose(eager(mclip, size * ones, method=method), ones / 3, rtol=1e-14)
    big = 1.7e308 * ones
    np.testing.assert_allclose(eager(lambda x: mclip(x, 1.0, 2.0, method=method), big), ones * 2 / 3, rtol=1e-14)
    np.testing.assert_allclose(eager(lambda x: mclip(x, upper=np.inf, method=method), big), big, rtol=1e-14)
    np.testing.assert_allclose(
        eager(lambda x: soft_threshold(x, 1.7e308, method=method), big), big * (2 / 3), rtol=1e-14
    )
    np.testing.assert_allclose(eager(lambda x: mclip(x, upper=1e-20, method=method), 1e300 * ones), 1e-20 / 3 * ones)
    tiny = 2.0**-1060 * np.array([[3.0, 1.0], [1.0, 3.0]])
    for found, expected in (
        (eager(lambda x: mclip(x, upper=2.0**-1059, method=method), tiny), 2.0**-1059 * np.eye(2)),
        (eager(lambda x: soft_threshold(x, 2.0**-1059, method=method), tiny), 2.0**-1060 * np.ones((2, 2))),
        (eager(psd_project, tiny), tiny),
        (eager(psd_project, big), big),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-13, atol=2 * lowest)


@pytest.mark.parametrize("method", ["svd", "sign"])
@pytest.mark.parametrize("dtype", ["float64", "complex64"])
def test_certificates_of_many_draws(method, dtype, rng):
    """Never far below the true error, nor far above it for well-conditioned matrices; at any scale."""
    eps = np.finfo(dtype).eps
    for scale in (1.0, 1e30 if dtype == "complex64" else 1e300, 1e-30 if dtype == "complex64" else 1e-300):
        for _ in range(10):
            shape = tuple(rng.integers(2, 6, 2))
            values = rng.uniform(1, 3, min(shape))
            m = (with_singular_values(rng, *shape, values, dtype) * scale).astype(dtype)
            wide = m.astype("complex128")
            for f, thresholds, exact in (
                (mclip, (0.0, 2 * scale), direct.mclip_by_svd),
                (mclip, (0.5 * scale, 1.5 * scale), direct.mclip_by_svd),
                (mclip, (0.0, 1e-3 * scale), direct.mclip_by_svd),
                (soft_threshold, (0.7 * scale,), direct.soft_threshold_by_svd),
            ):
                value, certificate = certify(f)(m, *thresholds, method=method)
                expected = exact(wide / scale, *(t / scale for t in thresholds))
                true = np.linalg.norm(value / scale - expected) / np.linalg.norm(expected)
                assert true / 30 - 8 * np.finfo(float).eps < certificate.forward_error < 1e3 * max(true, eps)
                assert certificate.backward_error < 30 * eps


def test_certificates_of_one_threshold_for_every_member(everywhere, rng):
    if everywhere.jit:
        pytest.skip("compiling takes long")
    m, low, high = gaussian(rng, 3, 4, 3), np.array([0.0, 0.5, 0.7]), np.array([1.0, np.inf, 0.7])
    _, certificate = everywhere(certify(mclip), m, low, high)
    for x in certificate[:2]:
        assert ((np.asarray(x) > 0) & (np.asarray(x) < 1e-13)).all()
    _, certificate = everywhere(lambda m, low: certify(mclip)(m, low, errors="nan"), m, -low)
    assert np.asarray(certificate.converged).tolist() == [True, False, False]
    assert np.isnan(np.asarray(certificate.forward_error)).tolist() == [False, True, True]


@pytest.mark.parametrize("shape", [(1, 5), (4, 3), (3, 3)])
def test_derivatives_far_below_all_singular_values(shape, rng):
    """There clipping is a multiple of msign, and so is its derivative, however small compared with dM."""
    m, dm = gaussian(rng, 2, *shape)
    for size in (1e6, 1e28, 1e200):
        for lower in (0.0, 0.5):
            expected = 2 * frechet(matsign.msign)(m, dm)
            found = frechet(mclip)(size * m, dm, lower=lower, upper=2.0) * size
            np.testing.assert_allclose(found, expected, atol=1e-9 * np.abs(expected).max())
        assert not frechet(soft_threshold)(m, dm, t=size).any()
    a = np.array([[1e300, 1e300], [1e300, 1e300]])
    for t in (1.0, 1e300):
        assert np.isfinite(matsign.condition(soft_threshold)(a, t))


def test_graded_in_single_precision(eager, rng):
    """Computed in double precision: singular values far below rounding of float32 are right, or the certificate is large."""
    m = np.diag(np.float32([1e7, 1e3, 1, 1e-2]))
    value, certificate = eager(certify(mclip), m, upper=0.5)
    np.testing.assert_allclose(np.diag(value), [0.5, 0.5, 0.5, 0.01], rtol=1e-6)
    m = unitary(rng, 3) @ np.diag([1.0, 1e-3, 1e-17]) @ unitary(rng, 3)  # rank two, up to rounding
    _, certificate = certify(mclip)(m, upper=1e-20)
    assert certificate.forward_error > 0.03


SEEN = [  # error 5.6e-13, with a certificate of 8.8e-15 from one random change by rounding
    [2.3210373413716324e-09, 1.9562868818611665e-09, -9.315587892438145e-10],
    [6.763577859665959e-09, 5.7047101327529e-09, -2.7156879942295433e-09],
    [-3.270812052432247e-09, -2.756662069824536e-09, 1.3127230938418686e-09],
]


def test_certificate_of_small_matrices_with_singular_vectors_that_rounding_turns(rng):
    """A single random change by rounding misses most of the error in one of a hundred matrices."""
    random = [with_singular_values(rng, 3, 3, 10.0 ** rng.uniform(-14, -5, 3), "float64") for _ in range(50)]
    for m in [np.array(SEEN), *random]:
        value, certificate = certify(mclip)(m, 0.5, 0.5)
        error = np.linalg.norm(value - 0.5 * _nearest_unitary(m)) / np.linalg.norm(value)
        assert error < 30 * max(certificate.forward_error, 2.0**-52)


def _nearest_unitary(m):
    """By Newton's iteration in 60 digits, rounded."""
    with mp.workdps(60):
        x = mp.matrix(m.tolist())
        for _ in range(120):
            scale = mp.sqrt(mp.norm(x**-1) / mp.norm(x))
            x, before = (scale * x + (x**-1).T / scale) / 2, x
            if mp.norm(x - before) < mp.mpf(10) ** -40:
                break
        return np.array(x.tolist(), float)
