"""mclip and soft_threshold from an earlier state: as accurate as without one, whatever the state is, and warm where it fits."""

import numpy as np
import pytest

import direct
import matsign
from keyword_arrays import by_position
from matrices import DTYPES, gaussian, with_singular_values
from matsign import certify, mclip, soft_threshold, warm_mclip, warm_soft_threshold
from problems import bound

ACCURACY = {"float64": 3e-13, "complex128": 3e-13, "float32": 1e-4, "complex64": 1e-4}
T = 1.5
VALUES = np.array([9, 5, 3, 1.2, *np.linspace(1, 0, 20)])
SOFT, CLIP = (bound(by_position(f), **{name: T}) for f, name in ((warm_soft_threshold, "t"), (warm_mclip, "upper")))
BOTH = pytest.mark.parametrize(
    ("warm", "cold"),
    [(SOFT, lambda m: direct.soft_threshold_by_svd(m, T)), (CLIP, lambda m: direct.mclip_by_svd(m, 0, T))],
    ids=["soft_threshold", "mclip"],
)


def moving(rng, n, m, dtype="float64", by=1e-5):
    """A matrix with three singular values above T, and the matrix after a motion of this relative size."""
    a = with_singular_values(rng, n, m, VALUES[: min(n, m)], dtype)
    return a.astype(dtype), (a + by * gaussian(rng, n, m, dtype=dtype)).astype(dtype)


def error(x, y):
    return np.abs(x - y).max(initial=0)


@BOTH
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(4, 4), (24, 30), (24, 24), (40, 24)], ids=str)
def test_a_near_start_gives_the_exact_answer(warm, cold, shape, dtype, eager, rng):
    m, moved = moving(rng, *shape, dtype=dtype)
    x, state = eager(warm, m, rank=6)
    assert error(x, cold(m)) < ACCURACY[dtype]
    assert state.shape == (min(shape), min(min(shape), 6))
    (x, after), certificate = eager(certify(warm), moved, state)
    assert x.dtype == after.dtype == dtype
    assert error(x, cold(moved)) < ACCURACY[dtype]
    assert 1 <= certificate.iterations <= 3
    assert certificate.backward_error < ACCURACY[dtype]


@BOTH
def test_a_long_way_on_which_singular_values_pass_the_threshold(warm, cold, rng):
    m, _ = moving(rng, 24, 20)
    way, state, steps, above = gaussian(rng, 24, 20), None, [], set()
    for k in range(60):
        moved = m + 0.005 * k * way
        (x, state), certificate = certify(warm)(moved, state, rank=10, tol=1e-6)
        steps.append(int(certificate.iterations))
        assert np.linalg.norm(x - cold(moved)) < 1e-6 * np.linalg.norm(moved)
        above.add((np.linalg.svd(moved, compute_uv=False) > T).sum())
    assert len(above) > 3
    assert 1 <= steps.count(0) < 20


@BOTH
def test_no_start_gives_a_wrong_answer(warm, cold, eager, rng):
    m, _ = moving(rng, 24, 20)
    good = warm(m, rank=6).state
    vh = np.linalg.svd(m)[2]
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
        *(vh[[0, 1, 3, 4, 5]].T, np.eye(20), np.eye(20)[:, :1]),
    )
    for state in states:
        assert error(eager(warm, m, state).value, cold(m)) < 1e-12


@BOTH
def test_thresholds_and_matrices_that_need_a_cold_start(warm, cold, rng):
    """Rank deficient and zero matrices, and more values above the threshold than the state has columns."""
    for values, rank, is_warm in (
        ((9, 5, *[0] * 18), 4, True),
        ((1e6, 3, *[1e-3] * 18), 4, True),
        ([2] * 4 + [1] * 16, 6, True),
        ((1, *[0.5] * 19), 3, True),  # nothing above
        ([2] * 20, 6, False),
        ([0] * 20, 3, True),
    ):
        m = with_singular_values(rng, 20, 20, values)
        (x, _), certificate = certify(warm)(m, warm(m, rank=rank).state)
        assert error(x, cold(m)) < 3e-14 * max(1, values[0])
        assert (certificate.iterations > 0) == is_warm


def test_extreme_thresholds(rng):
    m, moved = moving(rng, 20, 20)
    state = warm_mclip(m).state
    for t in (0.0, 1e-300, 1e-13, 100.0, 1e300, np.inf):
        soft, clip = warm_soft_threshold(moved, t, state=state).value, warm_mclip(moved, t, state=state).value
        assert error(soft, soft_threshold(moved, t)) < 1e-12
        assert error(clip, mclip(moved, 0.0, t)) <= 1e-12 * min(t, 1)


def test_stale_members_do_not_disturb_the_others(eager, rng):
    pairs = [moving(rng, 24, 24) for _ in range(4)]
    m, moved = (np.stack(x) for x in zip(*pairs, strict=True))
    t = np.array([T, T, 2.0, T])
    state = np.array(warm_soft_threshold(m, t, rank=5).state)
    state[1] = np.nan
    moved[3, 0, 0] = np.nan

    def warm(m, t, state):
        return certify(warm_soft_threshold)(m, t, state=state, errors="nan")

    together, certificate = eager(warm, moved, t, state)
    assert (certificate.iterations > 0).tolist()[:3] == [True, False, True]
    assert np.isnan(together.value[3]).all()
    for k in range(3):
        alone, _ = eager(warm, moved[k : k + 1], t[k : k + 1], state[k : k + 1])
        np.testing.assert_array_equal(together.value[k], alone.value[0])
        np.testing.assert_array_equal(together.state[k], alone.state[0])


def test_scales_and_broadcasts(rng):
    m, moved = moving(rng, 24, 20)
    state = warm_mclip(m).state
    x = warm_mclip(moved, T, state=state).value
    for s in (2.0**900, 2.0**-900):
        np.testing.assert_array_equal(warm_mclip(s * moved, s * T, state=state).value, s * x)
    both = warm_mclip(np.stack([m, moved]), T, state=state)
    assert both.value.shape == (2, 24, 20)
    assert both.state.shape == (2, *state.shape)
    kept = state.copy()
    kept.flags.writeable = m.flags.writeable = False
    warm_mclip(m, state=kept)
    np.testing.assert_array_equal(kept, state)


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (2, 0, 3)], ids=str)
def test_empty(shape):
    x, state = warm_mclip(np.zeros(shape))
    assert x.shape == shape
    assert state.shape == (*shape[:-2], 0, 0)
    assert warm_mclip(np.zeros(shape), state=state).value.shape == shape


def test_arguments_that_do_not_fit(rng):
    m = rng.standard_normal((4, 3))
    for state in (np.zeros((4, 3)), np.zeros((3, 4)), np.zeros((3, 0)), np.zeros(3), 1.0):
        with pytest.raises(ValueError, match=r"warm_mclip: state must have the shape \(..., 3, p\)"):
            warm_mclip(m, state=state)
    for rank in (0, -1, 1.5, True, "2"):
        with pytest.raises(ValueError, match="warm_mclip: rank must be an integer of at least 1"):
            warm_mclip(m, rank=rank)
    with pytest.raises(ValueError, match="upper must be a number of at least 0"):
        warm_mclip(m, -1)
    with pytest.raises(matsign.SpectrumError):
        warm_soft_threshold(m, np.array([-1.0]))
    with pytest.raises(ValueError, match="tol"):
        warm_mclip(m, tol=1e-30)


def test_derivatives_are_those_of_the_cold_functions(rng):
    m, moved = moving(rng, 6, 5)
    state, direction = warm_mclip(m).state, rng.standard_normal((6, 5))
    for warm, cold, thresholds in ((warm_soft_threshold, soft_threshold, (T,)), (warm_mclip, mclip, (0.0, T))):
        change = matsign.frechet(warm)(moved, state, T, direction, state, 0.5)
        no_lower = (None,) * (len(thresholds) - 1)
        expected = matsign.frechet(cold)(moved, *thresholds, direction, *no_lower, 0.5)
        assert error(change.value, expected) < 1e-12
        assert not change.state.any()
        ratio = matsign.condition(warm)(moved, T, state=state) / matsign.condition(cold)(moved, *thresholds)
        assert abs(ratio - 1) < 1e-6


def test_gradients_of_second_order_in_torch(rng):
    torch = pytest.importorskip("torch")
    m, moved = moving(rng, 4, 3)
    state = torch.tensor(warm_mclip(m).state, requires_grad=True)
    x, t = torch.tensor(moved, requires_grad=True), torch.tensor([T], dtype=torch.float64, requires_grad=True)
    for warm in (
        lambda x, t, s: warm_soft_threshold(x[None], t, state=s),
        lambda x, t, s: warm_mclip(x[None], t, state=s),
    ):
        assert torch.autograd.gradgradcheck(lambda x, t, warm=warm: warm(x, t, state.detach()).value, (x, t))
        result = warm(x, t, state)
        (by_state,) = torch.autograd.grad((result.value**3).sum() + result.state.sum(), state)
        assert not by_state.any()


@pytest.mark.compiles
@pytest.mark.slow
def test_scan_in_jax(rng):
    """One compiled program: a scan, in which the state starts as zeros, and its derivative."""
    jax = pytest.importorskip("jax")
    m, way = with_singular_values(rng, 6, 5, [9, 5, 1, 0.5, 0.1]), rng.standard_normal((6, 5))

    def after(m):
        def step(state, k):
            x, state = warm_mclip(m + 1e-4 * k * way, T, state=state)
            return state, x

        _, xs = jax.lax.scan(step, jax.numpy.zeros((5, 3), m.dtype), jax.numpy.arange(4.0))
        return (xs**3).sum(), xs

    (_, xs), gradient = jax.jit(jax.value_and_grad(after, has_aux=True))(jax.numpy.asarray(m))
    steps = [m + 1e-4 * k * way for k in range(4)]
    assert max(error(np.asarray(x), mclip(s, 0.0, T)) for x, s in zip(xs, steps, strict=True)) < 1e-12
    expected = sum(matsign.frechet(mclip)(s, 0.0, T, 3 * mclip(s, 0.0, T) ** 2, None, None) for s in steps)
    assert abs(gradient - expected).max() < 1e-11


@pytest.mark.compiles
@pytest.mark.slow
def test_a_program_for_an_accelerator(rng, monkeypatch):
    """The same program, whose branches are XLA's, runs on the CPU."""
    jax = pytest.importorskip("jax")
    from matsign.backends import jax_host

    m, moved = (np.stack([x, x]) for x in moving(rng, 20, 20))
    state = warm_mclip(m, rank=5).state
    state[1] = 0
    monkeypatch.setattr(jax_host, "calls_numpy", lambda module: False)
    x = jax.jit(lambda m, state: warm_mclip(m, T, state=state).value)(moved, state)
    assert error(np.asarray(x), mclip(moved, 0.0, T)) < 1e-12
