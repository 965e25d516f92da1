"""msign from an earlier state: as accurate as without one, whatever the state; and few steps for matrices that move slowly."""

import numpy as np
import pytest

import matsign
import truth
from matrices import DTYPES, gaussian
from matsign import certify, msign, warm_msign

ACCURACY = {"float64": 1e-12, "complex128": 1e-12, "float32": 2e-4, "complex64": 2e-4}


def moving(rng, *shape, dtype="float64", by=1e-6):
    """A matrix, and the matrix after a motion of this relative size."""
    m = gaussian(rng, *shape, dtype=dtype)
    return m, (m + by * gaussian(rng, *shape, dtype=dtype)).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (5, 3), (3, 5), (20, 20), (30, 12)], ids=str)
def test_a_near_start_gives_the_exact_answer(shape, dtype, eager, rng):
    m, moved = moving(rng, *shape, dtype=dtype)
    _, state = eager(warm_msign, m)
    (u, after), certificate = eager(certify(warm_msign), moved, state)
    assert u.dtype == after.dtype == dtype
    assert truth.error(u, truth.msign(moved)) < ACCURACY[dtype]
    assert 1 <= certificate.iterations <= 2
    n = shape[0]
    np.testing.assert_allclose(after[:n] @ after[n:].conj().T, u, atol=ACCURACY[dtype])


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_a_long_way_in_small_steps(dtype, rng):
    """Each step is right and starts again by itself where the singular vectors have turned too far."""
    m, state, steps = gaussian(rng, 12, 9, dtype=dtype), None, []
    way = gaussian(rng, 12, 9, dtype=dtype)
    for k in range(100):
        moved = m + 0.005 * k * way
        (u, state), certificate = certify(warm_msign)(moved, state, tol=1e-6)
        steps.append(int(certificate.iterations))
        assert certificate.backward_error < 3e-6
        assert np.abs(u - msign(moved)).max() < 1e-4
    assert 1 < steps.count(0) < 50
    assert np.abs(u - msign(m)).max() > 0.3


@pytest.mark.parametrize("tol", [1e-3, 1e-7])
def test_tolerance_is_met_in_fewer_steps(tol, rng):
    m, moved = moving(rng, 40, 40, by=tol)
    state = warm_msign(m).state
    _, loose = certify(warm_msign)(moved, state, tol=tol)
    _, exact = certify(warm_msign)(moved, state)
    assert loose.backward_error < 3 * tol
    assert 0 < loose.iterations < (exact.iterations or 4)


def hostile_states(rng, m):
    """Wrong starts: nothing, NaN, no orthonormal columns, vectors of another matrix, and reflected ones, which fit T = UᴴMV."""
    n, k = m.shape[-2], min(m.shape)
    good = warm_msign(m).state
    yield np.zeros_like(good)
    yield np.full_like(good, np.nan)
    yield np.full_like(good, 1e300)
    yield 2 * good
    yield rng.standard_normal(good.shape)
    yield warm_msign(rng.standard_normal(m.shape)).state
    yield np.concatenate([good[:n], good[n:] * np.linspace(1, 1.1, k)])
    yield good * np.where(np.arange(n + m.shape[1]) < n, -1, 1)[:, None]
    for column in range(k):
        reflected = good.copy()
        reflected[:n, column] *= -1
        yield reflected
    yield good[:, ::-1].copy()
    yield np.concatenate([good[:n, ::-1], good[n:]])


@pytest.mark.parametrize("shape", [(4, 4), (6, 3), (3, 6), (12, 12)], ids=str)
def test_no_start_gives_a_wrong_answer(shape, eager, rng):
    m = rng.standard_normal(shape)
    for state in hostile_states(rng, m):
        assert np.abs(eager(warm_msign, m, state).value - msign(m)).max() < 1e-12


def test_singular_values_that_pass_zero(rng):
    """The sign of a singular vector changes, or the rank: the isometry of a moment before is another one."""
    q, p = (np.linalg.qr(rng.standard_normal((5, 5)))[0] for _ in range(2))
    state = None
    for small in (1e-1, 1e-3, 1e-9, 1e-17, 0.0, -1e-17, -1e-9, -1e-3, -1e-1):
        m = (q * [3, 2, 1, 0.5, small]) @ p
        u, state = warm_msign(m, state, rtol=1e-14)
        # 1e-9 is only known to eps of the largest singular value.
        assert np.abs(u - msign(m, rtol=1e-14)).max() < (1e-5 if small else 1e-12)


def test_rank_deficient_and_equal_singular_values(rng):
    q = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    for values in ([1] * 6, [2, 2, 2, 1, 1, 1], [1, 1, 0, 0, 0, 0], [0] * 6):
        m = (q * np.array(values, float)) @ q.T
        moved = m * (1 + 1e-7)
        (u, _), certificate = certify(warm_msign)(moved, warm_msign(m).state)
        assert np.abs(u - msign(moved)).max() < 1e-13
        assert (certificate.iterations > 0) == (0 not in values)


def test_stale_members_do_not_disturb_the_others(eager, rng):
    m, moved = moving(rng, 5, 6, 4, by=1e-7)
    state = np.array(eager(warm_msign, m).state)
    state[1], state[3] = np.nan, rng.standard_normal(state[3].shape)
    together, certificate = eager(certify(warm_msign), moved, state)
    assert (np.asarray(certificate.iterations) > 0).tolist() == [True, False, True, False, True]
    for k in range(5):
        alone = eager(warm_msign, moved[k : k + 1], state[k : k + 1])
        np.testing.assert_array_equal(together.value[k], alone.value[0])
        np.testing.assert_array_equal(together.state[k], alone.state[0])


def test_a_failed_member_starts_again(rng):
    m = rng.standard_normal((3, 4, 4))
    broken = m.copy()
    broken[1, 0, 0] = np.nan
    u, state = warm_msign(broken, errors="nan")
    assert np.isnan(u[1]).all()
    assert np.isnan(state[1]).all()
    assert np.abs(warm_msign(m, state).value - msign(m)).max() < 1e-13


def test_scales_and_broadcasts(rng):
    m, moved = moving(rng, 5, 4)
    state = warm_msign(m).state
    for s in (2.0**900, 2.0**-900):
        np.testing.assert_array_equal(warm_msign(s * moved, state).value, warm_msign(moved, state).value)
    u, after = warm_msign(np.stack([m, moved]), state)
    assert u.shape == (2, 5, 4)
    assert after.shape == (2, 9, 4)
    kept = state.copy()
    kept.flags.writeable = m.flags.writeable = False
    warm_msign(m, kept)
    np.testing.assert_array_equal(kept, state)


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (2, 0, 3)], ids=str)
def test_empty(shape):
    n, m = shape[-2:]
    u, state = warm_msign(np.zeros(shape))
    assert u.shape == shape
    assert state.shape == (*shape[:-2], n + m, 0)
    assert warm_msign(np.zeros(shape), state).value.shape == shape


def test_states_that_do_not_fit(rng):
    m = rng.standard_normal((4, 3))
    for state in (np.zeros((4, 3)), np.zeros((7, 4)), np.zeros(7), 1.0):
        with pytest.raises(ValueError, match=r"warm_msign: state must have the shape \(..., 7, 3\)"):
            warm_msign(m, state)
    with pytest.raises(ValueError, match="state"):
        warm_msign(np.zeros((2, 4, 3)), np.zeros((3, 7, 3)))
    with pytest.raises(ValueError, match="tol"):
        warm_msign(m, tol=1e-30)


WARM = {
    "warm_msign": warm_msign,
    "warm_mclip": lambda m, state=None: matsign.warm_mclip(m, state=state),
    "warm_soft_threshold": lambda m, state=None: matsign.warm_soft_threshold(m, 1.0, state=state),
    "warm_svd": lambda m, state=None: matsign.warm_svd(m, 2, state=state),
}


@pytest.mark.parametrize("name", WARM)
def test_a_state_sets_no_dtype_and_is_no_whole_result(name, rng):
    warm, m = WARM[name], rng.standard_normal((5, 3))
    single, start = m.astype("float32"), warm(m)
    for state in (start.state, 1e300 * start.state, np.zeros_like(start.state, dtype=int)):
        result, cold = warm(single, state), warm(single)
        assert {x.dtype.name for x in result} == {"float32"}
        assert np.abs(result[0] - cold[0]).max() < 1e-5 or name == "warm_svd"
    with pytest.raises(TypeError, match=f"{name}: state has dtype complex128, but the matrices are real"):
        warm(m, start.state + 0j)
    with pytest.raises(TypeError, match=f"{name}: state is a whole {type(start).__name__}; pass its field state"):
        warm(m, start)


@pytest.mark.parametrize("name", WARM)
def test_each_step_of_a_loop_may_be_differentiated_by_itself(name, rng):
    """A graph through the state would lead to earlier steps, which are freed by then."""
    torch = pytest.importorskip("torch")
    x, state = torch.tensor(rng.standard_normal((4, 3)), requires_grad=True), None
    for _ in range(2):
        result = WARM[name](x, state)
        state = result.state
        result[0].sum().backward()
    assert not state.requires_grad


def test_derivatives_are_those_of_msign(rng):
    m, moved = moving(rng, 4, 3)
    state, direction = warm_msign(m).state, rng.standard_normal((4, 3))
    change = matsign.frechet(warm_msign)(moved, state, direction, state)
    expected = matsign.frechet(msign)(moved, direction)
    assert np.abs(change.value - expected).max() < 1e-12
    assert not change.state.any()
    assert abs(matsign.condition(warm_msign)(moved, state) / matsign.condition(msign)(moved) - 1) < 1e-6


def test_gradients_of_second_order_in_torch(rng):
    torch = pytest.importorskip("torch")
    m, moved = moving(rng, 4, 3)
    state = torch.tensor(warm_msign(m).state, requires_grad=True)
    x = torch.tensor(moved, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: warm_msign(x, state.detach()).value, x)
    result = warm_msign(x, state)
    by_m, by_state = torch.autograd.grad((result.value**3).sum() + result.state.sum(), (x, state))
    (expected,) = torch.autograd.grad((msign(x) ** 3).sum(), x)
    assert (by_m - expected).abs().max() < 1e-12
    assert not by_state.any()


@pytest.mark.compiles
@pytest.mark.slow
def test_scan_in_jax(rng):
    """One compiled program: a scan, in which the state starts as zeros, and its derivative."""
    jax = pytest.importorskip("jax")
    m, way = rng.standard_normal((2, 4, 3))

    def after(m):
        def step(state, k):
            u, state = warm_msign(m + 1e-4 * k * way, state)
            return state, u

        _, us = jax.lax.scan(step, jax.numpy.zeros((7, 3), m.dtype), jax.numpy.arange(4.0))
        return (us**3).sum(), us

    (_, us), gradient = jax.jit(jax.value_and_grad(after, has_aux=True))(jax.numpy.asarray(m))
    steps = [m + 1e-4 * k * way for k in range(4)]
    assert max(abs(np.asarray(u) - msign(x)).max() for u, x in zip(us, steps, strict=True)) < 1e-12
    expected = sum(matsign.frechet(msign)(x, 3 * msign(x) ** 2) for x in steps)
    assert abs(gradient - expected).max() < 1e-11


@pytest.mark.compiles
@pytest.mark.slow
def test_a_program_for_an_accelerator(rng, monkeypatch):
    """The same program, whose branches are XLA's, runs on the CPU."""
    jax = pytest.importorskip("jax")
    from matsign.backends import jax_host

    m, moved = moving(rng, 2, 4, 3)
    state = warm_msign(m).state
    state[1] = 0
    monkeypatch.setattr(jax_host, "calls_numpy", lambda module: False)
    u = jax.jit(lambda m, state: warm_msign(m, state).value)(moved, state)
    assert abs(np.asarray(u) - msign(moved)).max() < 1e-12
