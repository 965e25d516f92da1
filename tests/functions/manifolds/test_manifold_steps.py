"""Steps along the Stiefel manifold and the spectral sphere: feasible, optimal to the gap, on every hostile gradient."""

import itertools

import numpy as np
import pytest
import scipy.linalg as sl
import scipy.optimize as so

from gradients import gradient
from matrices import adjoint, gaussian, unitary
from matsign import SpectrumError, certify, condition, frechet, msign, spectral_sphere_step, stiefel_step
from matsign.backends import load

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


def tangents(f, w):
    """An orthonormal basis of the tangents at W, as columns."""
    n, m = w.shape
    if f is stiefel_step:
        normals = [w @ (x + x.T) for x in np.eye(m * m).reshape(-1, m, m)]
    else:
        u, _, vh = np.linalg.svd(w)
        normals = [np.outer(u[:, 0], vh[0])]
    return sl.null_space(np.reshape(normals, (-1, n * m)))


def maximum_by_barrier(basis, g):
    """The largest tr(GᵀA) over A in the span of the basis with ‖A‖₂ ≤ 1, by Newton's method for logarithmic barriers."""
    y, mu, directions = np.zeros(basis.shape[1]), 1.0, basis.T.reshape(-1, *g.shape)
    while mu > 1e-8:
        for _ in range(12):
            a = (basis @ y).reshape(g.shape)
            r = np.linalg.inv(np.eye(g.shape[1]) - a.T @ a)
            change = directions @ r + a @ r @ (directions.mT @ a + a.T @ directions) @ r
            slope = basis.T @ (2 * a @ r - g / mu).ravel()
            move = np.linalg.solve(2 * np.tensordot(directions, change, ((1, 2), (1, 2))), -slope)
            y = y + move / (1 + np.sqrt(max(-slope @ move, 0)))
        mu /= 8
    return g.ravel() @ basis @ y


@both
@pytest.mark.parametrize(("n", "m"), [(3, 2), (4, 3), (4, 4)])
def test_equals_the_maximum_of_a_general_convex_solver(f, n, m):
    """At kinks of the dual, too: most of these are."""
    rng = np.random.default_rng(10 * n + m)
    w = weight(f, rng, n, m)
    for g in (gaussian(rng, n, m), np.outer(gaussian(rng, n, 1), gaussian(rng, 1, m))):
        step, gap = f(w, g)
        assert gap < 1e-8
        maximum = maximum_by_barrier(tangents(f, w), g)
        assert -1e-8 < np.sum(g * step) / maximum - 1 < 1e-6


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize(("f", "shape", "limit"), [
    (stiefel_step, (6, 3), 1e-9), (stiefel_step, (2, 5), 1e-9), (stiefel_step, (4, 4), 1e-9), (stiefel_step, (5, 4), 1e-6),
    (spectral_sphere_step, (5, 4), 1e-9), (spectral_sphere_step, (2, 5), 1e-9), (spectral_sphere_step, (3, 3), 1e-6),
])  # fmt: skip
def test_derivatives(f, shape, limit, dtype):
    """The tangent against differences along the manifold, and the cotangent as its adjoint."""
    rng = np.random.default_rng(1)
    w, g, dw, dg, bar = weight(f, rng, *shape, dtype), *(gaussian(rng, *shape, dtype=dtype) for _ in range(4))
    h = 1e-2 if limit > 1e-7 else 1e-3

    def difference(h):
        ends = [(msign(w + s * dw) if f is stiefel_step else w + s * dw, g + s * dg) for s in (h, -h)]
        return np.subtract(*(f(*end).step for end in ends)) / (2 * h)

    rows = [difference(h / 2**k) for k in range(4)]
    for j in range(1, 4):
        rows = [(4**j * new - old) / (4**j - 1) for old, new in itertools.pairwise(rows)]
    tangent, of_gap = frechet(f)(w, g, dw, dg)
    assert of_gap == 0
    assert np.linalg.norm(tangent - rows[0]) < limit * np.linalg.norm(tangent)
    bar_w, bar_g = f.spec.operation.cotangent(
        load("numpy"), (tangent[None], 0), (w[None], g[None]), (bar[None], 0), gap=None
    )
    left, right = np.vdot(bar, tangent).real, (np.vdot(bar_w, dw) + np.vdot(bar_g, dg)).real
    assert abs(left - right) < 0.1 * limit * abs(left)


@pytest.mark.compiles
@pytest.mark.slow
def test_gradients_of_both_libraries_agree(rng):
    w, g, c = frame(rng, 5, 2), gaussian(rng, 5, 2), gaussian(rng, 5, 2)
    bars = [
        gradient(library, lambda g, w, c: (c * stiefel_step(w, g).step).sum(), g, w, c) for library in ("torch", "jax")
    ]
    assert np.linalg.norm(bars[0] - bars[1]) < 1e-12 * np.linalg.norm(bars[0])


@both
@pytest.mark.parametrize("shape", [(3, 0), (0, 3)])
def test_empty_matrices(f, shape):
    step, gap = f(np.zeros(shape), np.zeros(shape))
    assert step.shape == shape
    assert gap == 0


@both
def test_no_second_derivatives(f):
    torch = pytest.importorskip("torch")
    w, g = torch.eye(4, 2, dtype=torch.float64), torch.arange(8.0, dtype=torch.float64).reshape(4, 2).requires_grad_()
    (bar,) = torch.autograd.grad((f(w, g).step ** 3).sum(), g, create_graph=True)
    with pytest.raises(NotImplementedError, match=f"^the gradient of {f.spec.name} has no derivative"):
        bar.sum().backward()


def test_where_a_step_jumps_its_condition_is_infinite(rng):
    w, g = frame(rng, 6, 2), gaussian(rng, 6, 2)
    assert 0.1 < condition(stiefel_step)(w, g) < 100
    assert condition(stiefel_step)(w, np.outer(g[:, 0], [1.0, 1.0])) == np.inf
    assert condition(spectral_sphere_step)(w, g) == np.inf
    tangent = frechet(stiefel_step)(w, 0 * g, w, g).step
    assert not tangent.any()


@both
@pytest.mark.parametrize("dtype", ["float64", "complex64"])
def test_a_certificate_sees_a_wrong_step(f, dtype, rng):
    w, g = weight(f, rng, 6, 3, dtype), gaussian(rng, 2, 6, 3, dtype=dtype)
    eps = np.finfo(dtype).eps
    value, certificate = certify(f)(w, g)
    assert (certificate.backward_error < 20 * eps).all()
    assert (certificate.forward_error < 50 * eps).all()
    other = certify(f)(w, g, gap=1e-3)
    apart = np.linalg.norm(other[0].step - value.step, axis=(1, 2)) / np.linalg.norm(value.step, axis=(1, 2))
    assert (apart < 3 * other[1].forward_error + 1e-5).all()
    assert (abs(other[1].measures["duality_gap"] - other[0].gap) < 1e-3).all()
    wrong = (1.5 * value.step, value.gap)
    measured = f.spec.residual(load("numpy"), wrong, np.stack([w, w]), g).measures
    assert (abs(measured[2] - 0.5) < 1e-5).all()


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
