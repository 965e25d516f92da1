"""Steps along the Stiefel manifold and the spectral sphere: feasible, optimal to the gap, on every hostile gradient."""

import numpy as np
import pytest
import scipy.optimize as so

from matrices import adjoint, gaussian, unitary
from matsign import SpectrumError, certify, msign
from matsign.optim import spectral_sphere_step, stiefel_step

both = pytest.mark.parametrize("f", [stiefel_step, spectral_sphere_step])


def frame(rng, n, m, dtype="float64"):
    """Orthonormal columns, or rows of a wide matrix."""
    q = np.linalg.qr(gaussian(rng, max(n, m), min(n, m), dtype=dtype))[0]
    return q if n >= m else adjoint(q)


def weight(f, rng, n, m, dtype="float64"):
    """A point of the manifold, on the sphere with one largest singular value."""
    w = frame(rng, n, m, dtype)
    return w if f is stiefel_step else np.linspace(2, 1, n).astype(w.real.dtype)[:, None] * w


def nuclear(x):
    return np.linalg.svd(x, compute_uv=False).sum()


def dual_minimum(lift, unknowns, g):
    """The least ‖G + L(X)‖_* by BFGS, for a minimum at a matrix of full rank."""
    found = so.minimize(lambda x: nuclear(g + lift(x)), np.zeros(unknowns), method="BFGS", tol=1e-10)
    return found.fun


def assert_tangent(f, w, a, tol=1e-13):
    """‖A‖₂ ≤ 1, and no change of WᴴW or of the largest singular value of W to first order."""
    assert np.linalg.norm(a, 2, axis=(-2, -1)).max() <= 1 + tol
    if f is stiefel_step:
        tall = (w, a) if w.shape[-2] >= w.shape[-1] else (adjoint(w), adjoint(a))
        product = adjoint(tall[0]) @ tall[1]
        assert np.linalg.norm(product + adjoint(product)) < 10 * tol
    else:
        u, _, vh = np.linalg.svd(w)
        assert np.max(abs((adjoint(u[..., :, :1]) @ a @ adjoint(vh[..., :1, :])).real)) < 10 * tol


@both
def test_attains_the_minimum_of_the_dual(f, everywhere, rng):
    w = np.stack([frame(rng, 7, 3) for _ in range(2)])
    w = w if f is stiefel_step else w * [3.0, 2.0, 1.0]
    g = gaussian(rng, 2, 7, 3)
    step, gap = everywhere(f, w, g)
    assert gap.shape == (2,)
    assert (gap < 1e-8).all()
    for k in range(2):
        assert_tangent(f, w[k], step[k])
        if f is stiefel_step:
            minimum = dual_minimum(lambda x, k=k: w[k] @ (x.reshape(3, 3) + x.reshape(3, 3).T), 9, g[k])
        else:
            minimum = dual_minimum(lambda x, k=k: x * np.outer(w[k][:, 0], [1 / 3, 0, 0]), 1, g[k])
        assert (1 - 2e-8) * minimum < np.sum(g[k] * step[k]) < (1 + 1e-12) * minimum


@pytest.mark.parametrize("n", [2, 5, 6])
def test_square_weights_have_a_closed_form(n, rng):
    w, g = unitary(rng, n), gaussian(rng, n, n)
    step, gap = stiefel_step(w, g)
    assert np.linalg.norm(step - w @ msign((w.T @ g - g.T @ w) / 2)) < 1e-13
    assert gap < 1e-14


@both
def test_a_vector_moves_along_its_sphere(f, rng):
    w, g = frame(rng, 5, 1), gaussian(rng, 5, 1)
    tangent = g - w * (w.T @ g)
    for shape in ((5, 1), (1, 5)):
        step = f(w.reshape(shape), g.reshape(shape)).step.reshape(5, 1)
        assert np.linalg.norm(step - tangent / np.linalg.norm(tangent)) < 1e-8


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shape", [(5, 4), (10, 8), (13, 6), (4, 9)])
def test_any_rank_and_grading(shape, dtype, rng):
    """Where the dual has a kink (as mostly for 5 × 4), no smooth method comes near the gap."""
    n, m = shape
    w, g = frame(rng, n, m, dtype), gaussian(rng, n, m, dtype=dtype)
    hostile = [g, g * 10.0 ** -np.arange(m), 10.0 ** -np.arange(n)[:, None] * g, g[:, :1] @ g[:1], g[:, :2] @ g[:2]]
    hostile += [np.sign(g.real) + 0 * g, w @ adjoint(w) @ g + 1e-9 * g, np.eye(n, m) + 0 * g, 1e200 * g, 1e-200 * g]
    for f in (stiefel_step, spectral_sphere_step):
        at = w if f is stiefel_step else weight(f, rng, n, m, dtype)
        step, gap = f(at, np.stack(hostile))
        assert (gap < 1e-8).all()
        assert_tangent(f, at, step)
    alone = stiefel_step(w, hostile[3])
    np.testing.assert_array_equal(stiefel_step(w, np.stack(hostile)).step[3], alone.step)


@pytest.mark.slow
def test_a_graded_gradient_takes_many_conjugate_gradients():
    """With at most 100 in each Newton step the gap of this one stays above 1e-8."""
    rng = np.random.default_rng(2)
    w = frame(rng, 26, 23)
    g = 10.0 ** -rng.uniform(0, 10, (26, 1)) * gaussian(rng, 26, 23)
    assert stiefel_step(w, g).gap < 1e-8


@both
def test_a_stated_gap(f, rng):
    w, g = frame(rng, 9, 5), gaussian(rng, 9, 5)
    best = np.sum(g * f(w, g, gap=1e-12).step)
    for gap in (0.5, 1e-2, 1e-5):
        found = f(w, g, gap=gap)
        assert found.gap <= gap
        assert best * (1 - gap) <= np.sum(g * found.step) <= best * (1 + 1e-12)


def test_no_tangent_increases_a_normal_gradient(rng):
    w, s = frame(rng, 6, 3), gaussian(rng, 3, 3)
    for g in (w @ (s + s.T), 0 * w):
        step, gap = stiefel_step(w, g)
        assert not step.any()
        assert gap == 0
    step, gap = spectral_sphere_step(np.diag([3.0, 2.0, 1.0]), np.diag([5.0, 0.0, 0.0]))
    assert not step.any()
    assert gap == 0


def test_copies_of_the_largest_singular_value_keep_their_mean(rng):
    w, g = frame(rng, 6, 3), gaussian(rng, 6, 3)
    step, gap = spectral_sphere_step(w, g)
    assert gap < 1e-8
    assert abs(np.sum(w * step)) < 1e-13
    single = spectral_sphere_step(w.astype("float32"), g.astype("float32")).step
    assert abs(np.sum(w * single)) < 1e-5


@both
def test_single_precision(f, eager, rng):
    w, g = weight(f, rng, 8, 4).astype("float32"), gaussian(rng, 8, 4).astype("float32")
    step, gap = eager(f, w, g)
    assert step.dtype == gap.dtype == "float32"
    assert gap < 1e-8
    assert_tangent(f, w, step, 1e-6)


def test_members_without_an_answer(eager, rng):
    w, g = np.stack([frame(rng, 4, 2)] * 3), gaussian(rng, 3, 4, 2)
    w[1] *= 2
    with pytest.raises(
        SpectrumError, match=r"^stiefel_step: batch members 1: W has neither orthonormal.* is 4\.\d+; msign"
    ):
        eager(stiefel_step, w, g)
    step, gap = eager(stiefel_step, w, g, errors="nan")
    assert np.isnan(gap).tolist() == np.isnan(step).all((1, 2)).tolist() == [False, True, False]
    g[2, 0, 0] = np.nan
    with pytest.raises(SpectrumError, match=r"^spectral_sphere_step: batch members 2: .*NaN or inf"):
        eager(spectral_sphere_step, w, g)
    with pytest.raises(SpectrumError, match="W is zero, and so on no sphere"):
        eager(spectral_sphere_step, 0 * w[0], g[0])
    with pytest.raises(SpectrumError, match=r"the best one has the gap \d\.\d+e-1\d; choose a larger one"):
        eager(spectral_sphere_step, w[0], g[0], gap=1e-25)


@both
@pytest.mark.parametrize("gap", [0, 1, -1e-3, float("nan"), "small", True])
def test_gaps_that_are_refused(f, gap):
    with pytest.raises(ValueError, match=f"^{f.spec.name}: gap must be a number between 0 and 1, got "):
        f(np.eye(3, 2), np.ones((3, 2)), gap=gap)


@both
def test_what_there_is_not(f):
    torch = pytest.importorskip("torch")
    w, g = torch.eye(3, 2, dtype=torch.float64), torch.ones((3, 2), dtype=torch.float64, requires_grad=True)
    with pytest.raises(NotImplementedError, match="has no derivative here"):
        f(w, g).step.sum().backward()
    with pytest.raises(NotImplementedError, match="has its certificate in the result"):
        certify(f)(w, g.detach())


@pytest.mark.compiles
@pytest.mark.slow
def test_program_for_an_accelerator(monkeypatch, rng):
    jax = pytest.importorskip("jax")
    from matsign.backends import jax_host

    w, g = frame(rng, 5, 4), gaussian(rng, 2, 5, 4)
    expected = stiefel_step(w, g)
    monkeypatch.setattr(jax_host, "calls_numpy", lambda module: False)
    step, gap = jax.jit(stiefel_step)(w, g)
    assert np.linalg.norm(step - expected.step) < 1e-4  # both to the gap; the step is not determined better
    assert (np.asarray(gap) < 1e-8).all()
    jax.clear_caches()
