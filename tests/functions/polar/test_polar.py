"""msign and polar: every shape, rank and method; sixteen bits; the polynomial compared with the SVD."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import direct
import matsign
import truth
from accuracy import assert_accurate
from conftest import JAX
from matrices import DTYPES, adjoint, gaussian, graded, unitary, with_singular_values
from matsign import SpectrumError, msign, polar

METHODS = ("polynomial", "newton", "svd", "gram", "auto")
SHAPES = [(1, 1), (1, 3), (3, 1), (2, 2), (3, 3), (7, 7), (9, 4), (4, 9), (20, 2), (2, 20)]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape(shape, method, rng):
    for dtype in DTYPES:
        m = gaussian(rng, *shape, dtype=dtype)
        u = msign(m, method=method)
        assert u.shape == shape
        assert u.dtype == dtype
        assert truth.error(u, truth.msign(m)) < (1e-12 if np.finfo(dtype).eps < 1e-10 else 1e-4)


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (3, 5)])
@pytest.mark.parametrize("method", METHODS)
def test_shapes_on_every_library(shape, method, on, rng):
    m = gaussian(rng, 2, *shape, dtype="complex128")
    u = on(msign, m, method=method)
    for x, y in zip(u, m, strict=True):
        np.testing.assert_allclose(x, direct.msign_by_svd(y), atol=1e-12)
    u, h = on(polar, m, method=method)
    np.testing.assert_allclose(u @ h, m, atol=1e-12)
    np.testing.assert_array_equal(h, adjoint(h))
    assert np.linalg.eigvalsh(h).min() > -1e-12


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(6, 6), (9, 5), (5, 9)])
@pytest.mark.parametrize("condition", [1e3, 1e10, 1e14])
@pytest.mark.parametrize("method", METHODS)
def test_accuracy_beside_the_svd(method, condition, shape, rng):
    """Errors against the exact answer: the polynomial's at most 3 times that of the SVD, 10 times for other methods."""
    values = graded(min(shape), condition)
    make = lambda: (with_singular_values(rng, *shape, values),)  # noqa: E731
    f = lambda m: msign(m, method=method, rtol=1e-15)  # noqa: E731
    svd = lambda m: direct.msign_by_svd(m, 1e-15)  # noqa: E731
    assert_accurate(f, truth.msign, [svd], make, condition, factor=3 if method == "polynomial" else 10)


@pytest.mark.slow
@pytest.mark.parametrize("condition", [10, 100, 1e4, 1e6])
@pytest.mark.parametrize("n", [8, 20])
def test_polynomial_is_as_accurate_as_the_svd(n, condition, rng):
    """Within a factor of 3, without the floor of 1e-12 that other methods have."""
    ours = theirs = 0.0
    for _ in range(2):
        m = with_singular_values(rng, n, n // 2, graded(n // 2, condition))
        expected = truth.msign(m)
        ours = max(ours, truth.error(msign(m, method="polynomial"), expected))
        theirs = max(theirs, truth.error(direct.msign_by_svd(m), expected))
    assert ours <= 3 * theirs


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_accuracy_in_single_precision(method, eager, rng):
    for shape, condition in (((6, 6), 10), ((6, 6), 1e3), ((6, 6), 1e5)):
        values = graded(min(shape), condition)
        assert_accurate(
            lambda m: eager(msign, m, method=method),
            truth.msign,
            [direct.msign_by_svd],
            lambda s=shape, v=values: (with_singular_values(rng, *s, v).astype("float32"),),
            condition,
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["graded rows", "graded columns", "repeated", "clustered", "permutation", "triangular"]
)
@pytest.mark.parametrize("method", METHODS)
def test_hard_matrices(name, method, rng):
    def make():
        g = gaussian(rng, 6, 6)
        return (
            {
                "graded rows": graded(6, 1e6)[:, None] * g,
                "graded columns": g * graded(6, 1e6),
                "repeated": with_singular_values(rng, 6, 6, [1, 1, 1, 0.5, 0.5, 0.5]),
                "clustered": with_singular_values(rng, 6, 6, 1 + 1e-10 * rng.random(6)),
                "permutation": np.eye(6)[rng.permutation(6)],
                "triangular": np.triu(np.ones((6, 6))),
            }[name],
        )

    condition = np.linalg.cond(make()[0])
    assert_accurate(lambda m: msign(m, method=method), truth.msign, [direct.msign_by_svd], make, condition)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(6, 6), (9, 5), (5, 9)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
@pytest.mark.parametrize("rank", [0, 1, 3])
def test_zero_singular_values_stay_zero(rank, dtype, shape, method, rng):
    """The sign of a matrix of lower rank is the partial isometry of its own rank (Moore and Penrose)."""
    k = min(shape)
    u, vh = unitary(rng, shape[0], dtype)[:, :k], unitary(rng, shape[1], dtype)[:k]
    values = np.where(np.arange(k) < rank, graded(k, 10), 0)
    m = ((u * values) @ vh).astype(dtype)
    expected = u[:, :rank] @ vh[:rank]
    np.testing.assert_allclose(msign(m, method=method), expected, atol=2e-5 if dtype == "float32" else 1e-13)
    found, h = polar(m, method=method)
    np.testing.assert_allclose(found, expected, atol=2e-5 if dtype == "float32" else 1e-13)
    np.testing.assert_allclose(h, adjoint(vh) * values @ vh, atol=2e-5 if dtype == "float32" else 1e-13)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rtol", [1e-9, 1e-6, 1e-3])
def test_rtol_decides_what_is_zero(method, rtol, eager, rng):
    u, v = unitary(rng, 6), unitary(rng, 6)
    values = np.array([1, 0.5, 10 * rtol, 3 * rtol, rtol / 3, rtol / 10])
    m = (u * values) @ v
    expected = (u * (values > rtol)) @ v
    # A singular value of 3 rtol, which is kept, means a condition of 1 / (3 rtol).
    np.testing.assert_allclose(eager(msign, m, method=method, rtol=rtol), expected, atol=1e-14 / rtol)


@pytest.mark.parametrize("method", METHODS)
def test_rtol_zero_keeps_everything(method, rng):
    m = with_singular_values(rng, 5, 5, graded(5, 1e10))
    error = np.linalg.norm(msign(m, method=method, rtol=0.0) - msign(m, method="svd", rtol=0.0))
    assert error < 1e-4


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_of_mixed_ranks(method, on, rng):
    stack = np.stack([with_singular_values(rng, 6, 4, np.where(np.arange(4) < r, graded(4, 10), 0)) for r in range(5)])
    u = on(msign, stack, method=method)
    ranks = np.linalg.norm(u, axis=(1, 2)) ** 2
    np.testing.assert_allclose(ranks, range(5), atol=1e-12)
    for x, m in zip(u, stack, strict=True):
        np.testing.assert_allclose(x, direct.msign_by_svd(m), atol=1e-13)


@pytest.mark.parametrize("tol", [0.3, 0.1, 1e-2, 1e-4, 1e-6, 1e-10])
@pytest.mark.parametrize("method", ["polynomial", "auto"])
@pytest.mark.parametrize("shape", [(12, 12), (30, 8)])
def test_tol_is_met(tol, method, shape, rng):
    """Every singular value above rtol ends within tol of 1, and the singular vectors stay."""
    m = with_singular_values(rng, *shape, graded(min(shape), 1e2))
    u = msign(m, method=method, tol=tol, rtol=1e-4)
    values = np.linalg.svd(u, compute_uv=False)
    assert np.abs(values - 1).max() <= tol + 1e-14
    h = u.T @ m
    np.testing.assert_allclose(h, h.T, atol=1e-12)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["torch", JAX])
@pytest.mark.parametrize("method", METHODS)
def test_sixteen_bits(dtype, name, method, rng):
    """Computed in float32 and rounded once: the sixteen-bit matrix nearest to the sign; the input is not changed."""
    xp = pytest.importorskip({"torch": "torch", "jax": "jax.numpy"}[name])
    if name == "torch":
        m = xp.asarray(rng.standard_normal((2, 6, 4)), dtype=getattr(xp, dtype))
        copy, wide, back = m.clone(), lambda x: x.double().numpy(), lambda x: x.dtype == getattr(xp, dtype)
    else:
        m = xp.asarray(rng.standard_normal((2, 6, 4)), dtype=dtype)
        copy, wide, back = m, lambda x: np.asarray(x, dtype="float64"), lambda x: x.dtype.name == dtype
    u = msign(m, method=method)
    expected = np.stack([direct.msign_by_svd(x) for x in wide(m)])
    eps = {"bfloat16": 2**-8, "float16": 2**-11}[dtype]
    assert back(u)
    assert np.abs(wide(u) - expected).max() <= 0.51 * eps
    np.testing.assert_array_equal(wide(m), wide(copy))
    u, h = polar(m, method=method)
    assert back(u)
    assert back(h)
    assert np.abs(wide(u) @ wide(h) - wide(m)).max() < 16 * eps


@pytest.mark.parametrize("scale", [1e4, 6e4, 1e-6])
def test_float16_neither_overflows_nor_underflows(scale):
    torch = pytest.importorskip("torch")
    m = torch.tensor([[1.0, 0.5], [0.25, -1.0]], dtype=torch.float64).mul(scale).to(torch.float16)
    expected = direct.msign_by_svd(m.double().numpy())
    np.testing.assert_allclose(msign(m).double().numpy(), expected, atol=1e-3)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e30])
@pytest.mark.parametrize("method", ["polynomial", "newton", "gram"])
def test_scale_invariance_in_single_precision(scale, method, eager, rng):
    """No clamp and no absolute eps: a gradient of 1e-12 gives the same sign as a larger one."""
    m = gaussian(rng, 5, 4)
    u = eager(msign, (m * scale).astype("float32"), method=method)
    np.testing.assert_allclose(u, direct.msign_by_svd(m), atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [2.0**-1040, 1e-312, 2.0**1020])
def test_denormals_and_nearly_infinite(scale, method, rng):
    m = np.array([[3.0, 1, 2], [1, -2, 1], [0, 1, 2]]) * scale
    expected = direct.msign_by_svd(m / m[0, 1])
    np.testing.assert_allclose(msign(m, method=method), expected, atol=1e-10)
    torch = pytest.importorskip("torch")
    np.testing.assert_allclose(msign(torch.from_numpy(m), method=method), expected, atol=1e-10)


@given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.integers(1, 7), st.sampled_from(METHODS))
def test_what_characterises_the_polar_decomposition(seed, n, m, method):
    a = gaussian(np.random.default_rng(seed), n, m)
    u, h = polar(a, method=method)
    size, condition = np.linalg.norm(a), np.linalg.cond(a)
    assert np.linalg.norm(u @ h - a) < 1e-13 * size
    assert np.linalg.norm(u - u @ u.T @ u) < 1e-13 * np.sqrt(min(n, m))
    np.testing.assert_array_equal(h, h.T)
    assert np.linalg.eigvalsh(h).min() >= -1e-13 * size
    np.testing.assert_array_equal(u, msign(a, method=method))
    if condition < 1e3:
        np.testing.assert_allclose(h, direct.root_by_eigh(a.T @ a) if n >= m else h, atol=1e-9 * size)


def test_polar_is_a_named_tuple_on_every_library(on, rng):
    m = on.array(gaussian(rng, 3, 2))
    result = polar(m)
    assert isinstance(result, matsign.Polar)
    assert result._fields == ("u", "h")
    assert type(result.u) is type(m)


def test_complex_results_can_be_used_at_once(rng):
    """Results are not lazily conjugated tensors: ``.numpy()`` works."""
    torch = pytest.importorskip("torch")
    for shape in ((3, 5), (5, 3), (4, 4)):
        for method in METHODS:
            for x in (msign(torch.from_numpy(gaussian(rng, *shape, dtype="complex128")), method=method),):
                assert not x.is_conj()
                x.numpy()


def test_what_a_step_with_too_little_headroom_would_lose(rng):
    """Singular values at the very top of the schedule's interval, many of them: a quintic without headroom gives inf."""
    for n in (2, 5, 16, 33):
        u = msign(np.stack([unitary(rng, n) for _ in range(40)]), method="polynomial")
        defect = np.linalg.norm(u @ adjoint(u) - np.eye(n), axis=(1, 2))
        assert defect.max() < 1e-14 * n


def scaled_to_the_edge(dtype):
    largest, smallest = float(np.finfo(dtype).max), float(np.finfo(dtype).smallest_subnormal)
    return [0.99 * largest, largest / 1e8, 1e-30, float(np.finfo(dtype).tiny), 8 * smallest, smallest]


@pytest.mark.parametrize(
    "options", [{}, *({"method": m} for m in METHODS[:-1]), {"tol": 0.01}, {"steps": 6, "tol": 0.01}]
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (5, 3), (40, 40), (9, 120)])
def test_entries_at_the_edge_of_the_dtype(shape, dtype, options, eager):
    """Equal moduli, at the largest or smallest numbers of the dtype, where norms overflow or squares underflow."""
    rng = np.random.default_rng(1)
    for base in (np.ones(shape), np.sign(rng.standard_normal(shape))):
        expected = eager(msign, base.astype(dtype), **options)
        for scale in scaled_to_the_edge(dtype):
            u = eager(msign, base.astype(dtype) * np.array(scale, dtype), **options)
            # The singular value of a matrix of rank one is where polynomials are steepest.
            rough = 0.02 if "tol" in options or "steps" in options else 2e-13 if dtype == "float64" else 2e-4
            np.testing.assert_allclose(u, expected, atol=rough)


@pytest.mark.compiles
@pytest.mark.parametrize("options", [{}, {"method": "polynomial"}, {"steps": 6, "tol": 0.01}])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_denormal_numbers_in_jax(dtype, options):
    """On a CPU XLA's programs flush them to zero: eager ones, and compiled sequences of products."""
    jax = pytest.importorskip("jax")
    base = np.array([[3.0, 1, 2], [1, -2, 1], [0, 1, 2], [5, 0, 0]], dtype)
    eager, compiled = lambda x: msign(x, **options), jax.jit(lambda x: msign(x, **options))
    for scale in scaled_to_the_edge(dtype):
        m = jax.numpy.asarray((base / 8 if scale > 1 else base) * np.array(scale, dtype))
        for f in (eager, compiled):
            np.testing.assert_allclose(f(m), direct.msign_by_svd(base), atol=0.015 if "tol" in options else 1e-5)
    m = jax.numpy.asarray(np.full((4, 4), np.finfo(dtype).smallest_subnormal * 8))
    np.testing.assert_array_equal(polar(m).h, m)


def test_polar_at_the_edge_of_the_dtype(eager):
    for dtype in ("float32", "float64"):
        for scale in scaled_to_the_edge(dtype):
            m = np.full((4, 4), scale, dtype)
            u, h = eager(polar, m)
            np.testing.assert_allclose(u, np.full((4, 4), 0.25), rtol=1e-5)
            np.testing.assert_allclose(h, m, rtol=1e-5)
        tall = np.full((9, 4), 0.9 * float(np.finfo(dtype).max), dtype)
        with pytest.raises(SpectrumError, match="larger than the largest number"):
            eager(polar, tall)
        u, h = eager(polar, np.stack([tall, np.ones((9, 4), dtype)]), errors="nan")
        assert np.isnan(h[0]).all()
        np.testing.assert_allclose(h[1], np.full((4, 4), 1.5), rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-300, 1e-12, 1.0, 1e4, 1e300])
@pytest.mark.parametrize("method", ["auto", "polynomial"])
def test_certificates_do_not_depend_on_the_scale(scale, method, rng):
    """Scaled by a power of two they have the same bits, for any rank."""
    scale = 2.0 ** np.round(np.log2(scale))
    for m in (
        gaussian(rng, 6, 4),
        gaussian(rng, 5, 2) @ gaussian(rng, 2, 7),
        gaussian(rng, 3, 3) @ np.diag([1, 1e-5, 0]),
    ):
        for f in (msign, polar):
            one, other = (matsign.certify(f)(x, method=method)[1] for x in (m, scale * m))
            assert one == other or repr(one) == repr(other)


@pytest.mark.parametrize("seed", range(40))
def test_certificates_are_of_the_size_of_the_error(seed):
    """Against singular values in 60 digits: graded, clustered, repeated, of lower rank, with graded rows or columns."""
    rng = np.random.default_rng(seed)
    n, k = rng.integers(1, 7, 2)
    r = min(n, k)
    rank = rng.integers(1, r + 1)
    least = 10.0 ** -rng.uniform(0, 11)
    values = [
        np.geomspace(1, least, r),
        np.r_[1, least * np.ones(r - 1)],
        np.where(np.arange(r) < rank, graded(r, 100), 0),
    ]
    makers = [
        *(lambda v=v: with_singular_values(rng, n, k, v) for v in values),
        lambda: rng.integers(-4, 5, (n, k)).astype(float),
        lambda: 10.0 ** rng.integers(-5, 6, n)[:, None] * gaussian(rng, n, k),
        lambda: gaussian(rng, n, k, dtype="complex128") * 10.0 ** rng.integers(-5, 6, k),
    ]
    for make in makers:
        m = make()
        expected = truth_of_polar(m)
        if expected is None:
            continue
        for method in METHODS:
            (u, h), certificate = matsign.certify(polar)(m, method=method)
            errors = [
                truth.error(x, y) if np.any(y) else np.linalg.norm(x) for x, y in zip((u, h), expected, strict=True)
            ]
            _, alone = matsign.certify(msign)(m, method=method)
            assert max(errors) / 30 <= certificate.forward_error < 1
            assert errors[0] / 30 <= alone.forward_error < 1
            assert certificate.backward_error < 1e-14
            assert alone.backward_error < 1e-14


def truth_of_polar(m):
    """U and H of the rank that follows from rtol, in 60 digits; None if a singular value is too near rtol."""
    import mpmath

    if m.shape[0] < m.shape[1]:
        found = truth_of_polar(adjoint(m))
        if found is None:
            return None
        u = truth.adjoint(found[0])
        h = truth.adjoint(u) @ truth.exact(m)
        return u, (h + truth.adjoint(h)) / 2
    with mpmath.workdps(60):
        u, s, vh = (np.array(x.tolist(), object) for x in mpmath.svd_c(mpmath.matrix(m.tolist())))
        s = s.ravel()
        cut = max(m.shape) * np.finfo(float).eps * max(s[0], mpmath.mpf(1) / 10**300)
        if any(cut / 100 < x < cut * 100 for x in s):
            return None
        kept = np.array([mpmath.mpf(int(x > cut)) for x in s], object)
        return (u * kept) @ vh, (truth.adjoint(vh) * (kept * s)) @ vh


def test_the_backward_error_is_what_the_docstring_says(rng):
    for shape in ((5, 3), (3, 5)):
        m = gaussian(rng, *shape).astype("float32")
        (u, h), certificate = matsign.certify(polar)(m, tol=0.3)
        size = np.linalg.norm
        own = (u.T @ m + m.T @ u) / 2 if shape[0] >= shape[1] else (m @ u.T + u @ m.T) / 2
        product = u @ own if shape[0] >= shape[1] else own @ u
        cube = u @ u.T @ u
        isometry = size(u - cube) / (size(u) + size(cube))
        first = max(size(m - product) / (size(m) + size(product)), isometry)
        assert abs(certificate.backward_error - max(first, size(m - u @ h) / (size(m) + size(u @ h)))) < 1e-6
        assert abs(matsign.certify(msign)(m, tol=0.3)[1].backward_error - first) < 1e-6


def test_polynomial_without_a_tolerance_leaves_no_singular_value_on_its_way(rng):
    """A singular value at rounding may be lifted to anything between 0 and 1: that is an error, not a unitary factor."""
    seen = [  # lifted to 9e-4, with a certificate of 3e-4
        [0.00029541648109443486, 9.692084859125316e-05, 0.0001349772937828675],
        [-0.4250653088092804, -0.13945631682872772, -0.19421452283859253],
    ]
    random = [with_singular_values(rng, 2, 3, [1.0, s], "float32") for s in 10.0 ** rng.uniform(-7.5, -6, 30)]
    for m in [np.array(seen, "float32"), *random]:
        try:
            u, certificate = matsign.certify(msign)(m, method="polynomial", rtol=0.0)
        except matsign.SpectrumError:
            continue
        values = np.linalg.svd(u, compute_uv=False)
        assert (abs(values - 1) < 1e-3).all() or certificate.forward_error > 1e-2
