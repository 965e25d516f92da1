"""kabsch and procrustes: beside SciPy, weights, few points, mirror images, scales, derivatives at a perfect fit."""

import numpy as np
import pytest
import scipy.linalg as sl
import scipy.spatial.transform as st

import matsign
from conftest import JAX
from matrices import gaussian, unitary
from matsign import SpectrumError, certify, kabsch, procrustes


def rotation(rng, n=3):
    q = unitary(rng, n)
    q[:, 0] *= np.linalg.det(q)
    return q


def by_scipy(p, q, w):
    """Rotation, translation and rmsd of one pair."""
    share = w / w.sum()
    p0, q0 = share @ p, share @ q
    turn, rssd = st.Rotation.align_vectors(q - q0, p - p0, w)
    r = turn.as_matrix()
    return r, q0 - r @ p0, rssd / np.sqrt(w.sum())


def test_equals_scipy_for_each_pair(everywhere, rng):
    p, q, w = gaussian(rng, 6, 8, 3), gaussian(rng, 6, 8, 3), rng.random((6, 8))
    w[0, :2] = 0
    found, certificate = everywhere(certify(kabsch), p, q, w)
    for k in range(6):
        for x, y in zip(found, by_scipy(p[k], q[k], w[k]), strict=True):
            np.testing.assert_allclose(x[k], y, atol=1e-13)
    assert (certificate.backward_error < 1e-14).all()
    assert (certificate.forward_error < 1e-12).all()
    assert (certificate.separation > 0).all()
    assert found.translation.shape == (6, 3)
    assert found.rmsd.shape == (6,)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_finds_the_motion(on, dtype, rng):
    """In two and three dimensions and in five; for points in a plane, far from the origin, on every library."""
    for d in (2, 3, 5):
        r, t = rotation(rng, d), 100 * gaussian(rng, d)
        p = gaussian(rng, 9, d)
        p[:, -1] = 1.0
        q = p @ r.T + t
        found = on(kabsch, p.astype(dtype), q.astype(dtype))
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(found.rotation, r, atol=2e3 * eps)
        np.testing.assert_allclose(found.translation, t, atol=1e4 * eps)
        assert found.rmsd < 1e4 * eps
        assert found.rmsd.dtype == dtype


def test_weights_are_relative_and_none_means_equal(rng):
    p, q = gaussian(rng, 2, 7, 3)
    w = rng.random(7)
    for scale in (1.0, 1e-300, 1e300):
        np.testing.assert_allclose(kabsch(p, q, scale * w).rmsd, by_scipy(p, q, w)[2], rtol=1e-13)
    for x, y in zip(kabsch(p, q), kabsch(p, q, np.full(7, 3.0)), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-14)
    twice = np.concatenate([p, p[:1]]), np.concatenate([q, q[:1]])
    for x, y in zip(kabsch(*twice), kabsch(p, q, [2, 1, 1, 1, 1, 1, 1]), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-13)


def test_one_set_of_weights_for_many_pairs(on, rng):
    p, q, w = gaussian(rng, 4, 2, 7, 3), gaussian(rng, 7, 3), rng.random(7)
    found = on(kabsch, p, q, w)
    assert found.translation.shape == (4, 2, 3)
    assert found.rmsd.shape == (4, 2)
    np.testing.assert_allclose(found.rotation[3, 1], kabsch(p[3, 1], q, w).rotation, atol=1e-14)


def test_weights_that_are_no_weights(on, rng):
    p, q = gaussian(rng, 2, 3, 5, 3)
    w = np.ones((3, 5))
    w[0, 2], w[2] = -0.5, 0
    with pytest.raises(SpectrumError, match=r"^kabsch: batch members 0, 2: the weights must be .*smallest is -0.5, 0$"):
        on(kabsch, p, q, w)
    found = on(kabsch, p, q, w, errors="nan")
    assert np.isnan(found.rmsd).tolist() == [True, False, True]
    assert np.isnan(found.rotation[0]).all()
    w[0, 2] = np.nan
    with pytest.raises(SpectrumError, match="batch members 0: the input holds NaN"):
        on(kabsch, p, q, w)


def test_shapes_that_do_not_fit(rng):
    p = gaussian(rng, 5, 3)
    for arguments, text in (
        ((p, p[:4]), r"Q has shape \(4, 3\), expected \(\.\.\., k, d\) with k = 5 from P"),
        ((p, p, np.ones(4)), r"weights has shape \(4,\), expected \(\.\.\., k\) with k = 5 from P"),
        ((p, p, 1.0), r"weights has shape \(\), expected \(\.\.\., k\)"),
        ((p, p[:, :2]), r"Q has shape \(5, 2\)"),
        ((p[0], p[0]), r"P has shape \(3,\), expected \(\.\.\., k, d\)"),
    ):
        with pytest.raises(ValueError, match=f"^kabsch: {text}"):
            kabsch(*arguments)
    with pytest.raises(TypeError, match=r"^kabsch: Q has dtype complex128; .*procrustes takes complex points"):
        kabsch(p, p + 0j)


def test_one_point_and_points_on_a_line(on, rng):
    """One point does not tell a rotation: it is moved. A line is turned by the smallest angle."""
    p, q = gaussian(rng, 2, 1, 3)
    found = on(kabsch, p, q)
    np.testing.assert_array_equal(found.rotation, np.eye(3))
    np.testing.assert_allclose(found.translation, (q - p)[0], atol=1e-14)
    assert found.rmsd < 1e-14
    a, b = (x / np.linalg.norm(x) for x in gaussian(rng, 2, 3))
    steps = np.arange(5.0)[:, None]
    found = on(kabsch, steps * a, 2 + steps * b)
    assert found.rmsd < 1e-13
    angle = np.linalg.norm(st.Rotation.from_matrix(found.rotation).as_rotvec())
    np.testing.assert_allclose(angle, np.arccos(a @ b), atol=1e-7)


def test_the_rmsd_of_lines_has_a_gradient():
    torch = pytest.importorskip("torch")
    p = torch.arange(5.0, dtype=torch.float64)[:, None] * torch.eye(3, dtype=torch.float64)[:1]
    q = (2 * p.flip(0)).requires_grad_()
    (gradient,) = torch.autograd.grad(kabsch(p, q).rmsd, q)
    assert gradient.isfinite().all()
    assert gradient.norm() > 0.1


def test_a_mirror_image_is_not_mirrored_back(rng):
    p = gaussian(rng, 8, 3)
    found = kabsch(p, p * [1, 1, -1])
    np.testing.assert_allclose(np.linalg.det(found.rotation), 1)
    assert found.rmsd > 0.1
    assert np.linalg.det(procrustes(p, p * [1, 1, -1]).q) < 0


@pytest.mark.parametrize(("one", "two"), [(1e150, 1e-150), (1e-200, 1e-200), (1e300, 1e300)])
def test_scales(one, two, on, rng):
    p = gaussian(rng, 6, 3)
    r = rotation(rng)
    found = on(kabsch, one * p, two * p @ r.T)
    np.testing.assert_allclose(found.rotation, r, atol=1e-13)
    expected = np.linalg.norm((one - two) * (p - p.mean(0)) / max(one, two)) / 6**0.5
    np.testing.assert_allclose(found.rmsd / max(one, two), expected, atol=1e-14)


@pytest.mark.parametrize("library", ["torch", JAX])
def test_gradients_at_a_perfect_fit(library, rng):
    """A cube has equal singular values, where the derivative of an SVD is NaN; and the rmsd is 0."""
    p = np.array([[x, y, z] for x in (-1.0, 1) for y in (-1.0, 1) for z in (-1.0, 1)])
    v = gaussian(rng, 3, 3)

    def loss(xp, q):
        r, t, rmsd = kabsch(xp(p), q)
        return (xp(v) * r).sum() + t.sum() + rmsd

    if library == "torch":
        torch = pytest.importorskip("torch")
        q = torch.from_numpy(p.copy()).requires_grad_()
        loss(torch.from_numpy, q).backward()
        gradient = q.grad.numpy()
    else:
        jax = pytest.importorskip("jax")
        gradient = np.asarray(jax.grad(lambda q: loss(jax.numpy.asarray, q))(p))
    skew = (v - v.T) / 2
    np.testing.assert_allclose(gradient, p @ skew.T / 8 + 1 / 8, atol=1e-14)


def test_procrustes_equals_scipy(everywhere, rng):
    a, b = gaussian(rng, 3, 7, 4, dtype="complex128"), gaussian(rng, 3, 7, 4, dtype="complex128")
    q, scale = everywhere(procrustes, a, b)
    for k in range(3):
        expected, size = sl.orthogonal_procrustes(a[k], b[k])
        np.testing.assert_allclose(q[k], expected, atol=1e-13)
        np.testing.assert_allclose(scale[k], size, rtol=1e-14)
    assert scale.dtype == "float64"


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_procrustes_completes_low_ranks_by_what_is_nearest_to_the_identity(dtype, rng):
    for rank in range(4):
        a, b = gaussian(rng, 6, rank, dtype=dtype), gaussian(rng, 6, rank, dtype=dtype)
        a, b = (x @ gaussian(rng, rank, 4, dtype=dtype) for x in (a, b))
        q, scale = procrustes(a, b)
        np.testing.assert_allclose(q.conj().T @ q, np.eye(4), atol=1e-14)
        np.testing.assert_allclose(scale, np.linalg.svd(a.conj().T @ b, compute_uv=False).sum(), rtol=1e-12)
        null = np.linalg.svd(a)[2][rank:].conj().T
        for _ in range(10):
            other = q + null @ (unitary(rng, 4 - rank, dtype) - np.eye(4 - rank)) @ null.conj().T @ q
            np.testing.assert_allclose(np.linalg.norm(a @ other - b), np.linalg.norm(a @ q - b), rtol=1e-12)
            assert np.trace(other).real <= np.trace(q).real + 1e-12


def test_procrustes_scale_of_a_multiple(rng):
    a, turn = gaussian(rng, 9, 4), unitary(rng, 4)
    q, scale = procrustes(a, 2.5 * a @ turn)
    np.testing.assert_allclose(q, turn, atol=1e-13)
    np.testing.assert_allclose(scale / np.sum(a * a), 2.5)


def test_the_scale_has_a_gradient_at_any_rank():
    torch = pytest.importorskip("torch")
    a = torch.zeros(5, 3, dtype=torch.float64)
    a[:, 0] = 1
    a.requires_grad_()
    scale = procrustes(a, a.detach()).scale
    (gradient,) = torch.autograd.grad(scale, a)
    torch.testing.assert_close(gradient, a.detach())  # half of that of ‖a‖², as only one argument changes
    assert torch.isnan(torch.autograd.grad(procrustes(a, a.detach()).q[0, 1], a)[0]).all()


def test_vector_arguments_in_transforms(rng):
    """Weights are vectors: they are mapped, differentiated, spread in chunks and named as matrices are."""
    torch, da = pytest.importorskip("torch"), pytest.importorskip("dask.array")
    p, q, w = gaussian(rng, 4, 6, 3), gaussian(rng, 6, 3), 1 + rng.random((4, 6))
    plain = kabsch(p, q, w)
    tensors = [torch.from_numpy(x) for x in (p, q, w)]
    mapped = torch.func.vmap(lambda x, y: kabsch(x, tensors[1], y).rmsd)(tensors[0], tensors[2])
    np.testing.assert_allclose(mapped, plain.rmsd, rtol=1e-14)
    chunks = kabsch(da.from_array(p, chunks=(2, 6, 3)), q, da.from_array(w, chunks=(2, 6)))
    np.testing.assert_array_equal(chunks.translation.compute(), plain.translation)
    dw = gaussian(rng, 4, 6)
    step = matsign.frechet(kabsch)(p, q, w, None, None, dw)
    ahead, back = kabsch(p, q, w + 1e-5 * dw), kabsch(p, q, w - 1e-5 * dw)
    np.testing.assert_allclose(step.translation, (ahead.translation - back.translation) / 2e-5, atol=1e-8)
    assert matsign.condition(kabsch)(p, q, w).shape == (4,)


@pytest.mark.compiles
def test_weights_under_vmap_and_jit(rng):
    jax = pytest.importorskip("jax")
    p, q, w = gaussian(rng, 4, 6, 3), gaussian(rng, 6, 3), 1 + rng.random((4, 6))
    mapped = jax.jit(jax.vmap(kabsch, in_axes=(0, None, 0)))(p, q, w)
    for x, y in zip(mapped, kabsch(p, q, w), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-13)
    hessian = jax.jit(jax.hessian(lambda y: kabsch(jax.numpy.asarray(p[0]), jax.numpy.asarray(q), y).rmsd))(w[0])
    assert np.isfinite(hessian).all()


def test_gradients_of_a_large_stack_are_those_with_a_graph(rng):
    """Without a graph NumPy computes them in chunks, here of 1 500 members."""
    torch = pytest.importorskip("torch")
    p, q, w = (
        torch.from_numpy(x).requires_grad_()
        for x in (gaussian(rng, 1600, 7, 3), gaussian(rng, 1600, 7, 3), rng.uniform(size=(1600, 7)))
    )
    turn, shift, rmsd = kabsch(p, q, w)
    loss = (turn**3).sum() + (shift**2).sum() + rmsd.sum()
    with_graph = torch.autograd.grad(loss, (p, q, w), create_graph=True)
    for x, y in zip(torch.autograd.grad(loss, (p, q, w)), with_graph, strict=True):
        torch.testing.assert_close(x, y.detach(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_certificate_of_points_whose_squares_overflow_or_underflow(scale, rng):
    p, q = scale * rng.standard_normal((2, 5, 3))
    _, certificate = certify(kabsch)(p, q)
    assert max(certificate.forward_error, certificate.backward_error) < 1e-13


def test_equal_points_are_not_turned_and_a_perfect_fit_has_no_slope(rng):
    """Rounding of the means is no direction, and a distance that is a rounding error has none."""
    torch = pytest.importorskip("torch")
    p, weights = np.repeat(gaussian(rng, 5, 1, 3), 9, axis=1), rng.random((5, 9))
    far = p.copy()
    far[:, 0], light = 1e6, weights * (np.arange(9) > 0)
    for points, w in ((p, None), (p, weights), (far, light)):
        np.testing.assert_array_equal(kabsch(points, gaussian(rng, 5, 9, 3), w).rotation, [np.eye(3)] * 5)
    points, turn = (torch.tensor(x, requires_grad=True) for x in (gaussian(rng, 9, 3), rotation(rng)))
    (slope,) = torch.autograd.grad(kabsch(points, (points @ turn.mT).detach()).rmsd, points)
    assert not slope.any()
