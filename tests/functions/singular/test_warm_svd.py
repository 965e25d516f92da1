"""Leading singular values and vectors from an earlier state: as accurate as without one, whatever the state is."""

import numpy as np
import pytest

import matsign
from keyword_arrays import by_position
from matrices import DTYPES, adjoint, gaussian, unitary, with_singular_values
from matsign import certify, warm_svd
from problems import bound

ACCURACY = {"float64": 3e-13, "complex128": 3e-13, "float32": 1e-4, "complex64": 1e-4}
VALUES = np.array([9, 5, 3, 1.2, *np.linspace(1, 0, 20)])
THREE = bound(by_position(warm_svd), k=3)


def moving(rng, n, m, dtype="float64", by=1e-5):
    """A matrix with three large singular values, and the matrix after a motion of this relative size."""
    a = with_singular_values(rng, n, m, VALUES[: min(n, m)], dtype)
    return a.astype(dtype), (a + by * gaussian(rng, n, m, dtype=dtype)).astype(dtype)


def product(u, s, vh):
    return (u * s[..., None, :]) @ vh


def error(result, m):
    """The largest error of the singular values and of u diag(s) vh, and the loss of orthogonality."""
    u, s, vh = result[:3]
    k = len(s)
    exact = np.linalg.svd(m.astype("complex128" if np.iscomplexobj(m) else "float64"), full_matrices=False)
    best = product(exact[0][:, :k], exact[1][:k], exact[2][:k])
    isometric = [abs(x @ adjoint(x) - np.eye(k)).max() for x in (adjoint(u), vh)]
    return max(abs(s - exact[1][:k]).max(), abs(product(u, s, vh) - best).max(), *isometric)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(4, 4), (24, 30), (40, 24)], ids=str)
def test_a_near_start_gives_the_exact_answer(shape, dtype, eager, rng):
    m, moved = moving(rng, *shape, dtype=dtype)
    before = eager(THREE, m)
    assert error(before, m) < ACCURACY[dtype]
    after, certificate = eager(certify(THREE), moved, before.state)
    assert error(after, moved) < ACCURACY[dtype]
    assert after.u.dtype == after.state.dtype == dtype
    assert abs(after.u - before.u).max() < 1e-3  # without jumps of the signs
    assert 1 <= certificate.iterations <= 3
    assert certificate.backward_error < ACCURACY[dtype]


def test_no_start_gives_a_wrong_answer(eager, rng):
    m, _ = moving(rng, 24, 20)
    good, vh = THREE(m).state, np.linalg.svd(m)[2]
    states = (
        *(
            0 * good,
            good + np.nan,
            good + 1e300,
            2 * good,
            good[:, ::-1],
            -good,
            good[::-1],
            rng.standard_normal((20, 6)),
        ),
        *(vh[k : k + 4].T for k in range(4)),  # exact singular vectors without the leading ones
        *(vh[[0, 1, 3, 4, 5]].T, np.eye(20), np.eye(20)[:, :3]),
    )
    for state in states:
        assert error(eager(THREE, m, state), m) < 1e-12


def test_singular_values_that_pass_each_other(rng):
    q, p = unitary(rng, 24), unitary(rng, 24)
    state, steps = None, []
    for x in np.linspace(0, 1, 21):
        m = (q * [9, 6 - 2 * x, 4 + 2 * x, *np.linspace(1, 0, 21)]) @ p
        result, certificate = certify(warm_svd)(m, 2, state=state, tol=1e-9)
        state = result.state
        assert abs(result.s - [9, max(6 - 2 * x, 4 + 2 * x)]).max() < 1e-8
        assert certificate.backward_error < 1e-9
        steps.append(int(certificate.iterations))
    assert steps.count(0) == 1  # the first


@pytest.mark.parametrize("values", [[2] * 20, [0] * 20, [5, *[0] * 19], [1e6, 1, 1e-6, *[0] * 17]], ids=str)
def test_equal_and_zero_singular_values(values, rng):
    m = with_singular_values(rng, 20, 20, values)
    for state in (None, warm_svd(m, 3).state):
        u, s, vh, _ = warm_svd(m, 3, state=state)
        assert abs(s - values[:3]).max() < 1e-14 * max(10, 10 * values[0])
        assert np.linalg.norm(m @ adjoint(vh) - u * s) < 1e-14 * max(10, 10 * values[0])
    assert (matsign.condition(warm_svd)(m, 3) == np.inf) == (values[1] == values[2])


def test_stale_members_do_not_disturb_the_others(eager, rng):
    pairs = [moving(rng, 24, 24) for _ in range(4)]
    m, moved = (np.stack(x) for x in zip(*pairs, strict=True))
    state = np.array(THREE(m).state)
    state[1] = np.nan
    moved[3, 0, 0] = np.nan
    together, certificate = eager(certify(THREE), moved, state, errors="nan")
    assert (certificate.iterations > 0).tolist()[:3] == [True, False, True]
    assert np.isnan(together.u[3]).all()
    for k in range(3):
        for x, y in zip(together, eager(THREE, moved[k : k + 1], state[k : k + 1]), strict=True):
            np.testing.assert_array_equal(x[k], y[0])


@pytest.mark.parametrize(("n", "m"), [(6, 4), (4, 6)])
def test_vectors_may_be_changed_in_place(n, m, rng):
    result = warm_svd(rng.standard_normal((n, m)), 4)
    for _ in range(2):
        assert not any(np.shares_memory(x, result.state) for x in result[:3])
        result = warm_svd(rng.standard_normal((n, m)), 4, state=result.state)


def test_scales(rng):
    m, moved = moving(rng, 24, 20)
    u, s, vh, state = THREE(moved, THREE(m).state)
    for scale in (2.0**900, 2.0**-900):
        for x, y in zip(THREE(scale * moved, THREE(m).state), (u, scale * s, vh, state), strict=True):
            np.testing.assert_array_equal(x, y)


def test_arguments_that_do_not_fit(rng):
    m = rng.standard_normal((4, 3))
    for k in (0, -1, 1.5, True, "2"):
        with pytest.raises(ValueError, match="warm_svd: k must be an integer of at least 1"):
            warm_svd(m, k)
    with pytest.raises(ValueError, match="k must be at most 3 for 4 x 3 matrices, got 4"):
        warm_svd(m, 4)
    for state in (np.zeros((4, 3)), np.zeros((3, 1)), np.zeros((3, 4)), np.zeros(3), 1.0):
        with pytest.raises(ValueError, match=r"warm_svd: state must have the shape \(..., 3, p\).*2 <= p <= 3"):
            warm_svd(m, 2, state=state)
    with pytest.raises(ValueError, match="tol"):
        warm_svd(m, 2, tol=1e-30)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_derivatives(dtype, rng):
    """Against differences; the cotangent against the tangent, and both once more, by torch."""
    torch = pytest.importorskip("torch")
    for shape in ((4, 3), (3, 4), (3, 3)):
        m, direction = gaussian(rng, *shape, dtype=dtype), gaussian(rng, *shape, dtype=dtype)
        state, h = THREE(m).state, 1e-6
        change = matsign.frechet(THREE)(m, state, direction, state)
        ahead, behind = (THREE(m + step * direction, state) for step in (h, -h))
        for x, y, z in zip(ahead[:3], behind[:3], change[:3], strict=True):
            assert abs((x - y) / (2 * h) - z).max() < 1e-7
        assert not change.state.any()
    m = m[:, :2] if dtype == "complex128" else m  # quicker
    x, start = torch.tensor(m, requires_grad=True), torch.tensor(warm_svd(m, 2).state)
    if dtype == "complex128":  # `gradcheck` cannot know that the phases follow the state
        assert torch.autograd.gradcheck(lambda x: (lambda u, s, vh, _: u * s @ vh)(*warm_svd(x, 2, state=start)), x)
    else:
        assert torch.autograd.gradgradcheck(lambda x: warm_svd(x, 2, state=start)[:3], x)


@pytest.mark.compiles
@pytest.mark.slow
def test_scan_in_jax(rng):
    """One compiled program: a scan, in which the state starts as zeros, and its derivative."""
    jax = pytest.importorskip("jax")
    m, way = with_singular_values(rng, 6, 5, [9, 5, 1, 0.5, 0.1]), rng.standard_normal((6, 5))

    def after(m):
        def step(state, t):
            u, s, vh, state = warm_svd(m + 1e-4 * t * way, 2, state=state)
            return state, (s, product(u, s, vh))

        _, (s, best) = jax.lax.scan(step, jax.numpy.zeros((5, 3), m.dtype), jax.numpy.arange(4.0))
        return (s**2).sum() - (best**2).sum() + best[:, 0, 0].sum(), s

    (_, s), gradient = jax.jit(jax.value_and_grad(after, has_aux=True))(jax.numpy.asarray(m))
    assert max(abs(s[t] - np.linalg.svd(m + 1e-4 * t * way)[1][:2]).max() for t in range(4)) < 1e-12
    h, direction = 1e-5, rng.standard_normal((6, 5))
    corner = [sum(product(*two_by_svd(m + 1e-4 * t * way + x * direction))[0, 0] for t in range(4)) for x in (h, -h)]
    assert abs((gradient * direction).sum() - (corner[0] - corner[1]) / (2 * h)) < 1e-8


def two_by_svd(m):
    u, s, vh = np.linalg.svd(m, full_matrices=False)
    return u[:, :2], s[:2], vh[:2]
