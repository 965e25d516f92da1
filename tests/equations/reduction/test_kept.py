"""Models with poles that are not stable: these poles stay, the rest is reduced."""

import numpy as np
import pytest

import matsign
from matrices import gaussian, transfer
from matsign import balanced_truncation, certify, hankel_singular_values

# Poles that are kept, on the boundary and outside, and others.
POLES = {None: ([1.0, 0.0], [-0.5, -1.0, -3.0]), 0.1: ([-1.5, 1.0], [0.5, -0.3, 0.1])}
times = pytest.mark.parametrize("dt", [None, 0.1])


def parts(rng, dt):
    """The part that is kept, the rest, and their sum in other coordinates."""
    kept, rest = ((np.diag(x), gaussian(rng, len(x), 2), gaussian(rng, 2, len(x))) for x in POLES[dt])
    t = np.eye(5) + gaussian(rng, 5, 5) / 4
    a = np.block([[kept[0], np.zeros((2, 3))], [np.zeros((3, 2)), rest[0]]])
    b, c = np.vstack([kept[1], rest[1]]), np.hstack([kept[2], rest[2]])
    return kept, rest, (t @ a @ np.linalg.inv(t), t @ b, c @ np.linalg.inv(t))


@times
@pytest.mark.parametrize("method", ["truncate", "matchdc"])
def test_only_the_stable_part_is_reduced(dt, method, rng):
    kept, rest, model = parts(rng, dt)
    small, certificate = certify(balanced_truncation)(*model, 4, dt=dt, method=method)
    expected = balanced_truncation(*rest, 2, dt=dt, method=method)
    assert np.isposinf(small.hsv[:2]).all()
    np.testing.assert_allclose(small.hsv[2:], expected.hsv, rtol=1e-12)
    np.testing.assert_array_equal(hankel_singular_values(*model, dt=dt), small.hsv)
    assert not small.a[:2, 2:].any()
    assert not small.a[2:, :2].any()
    np.testing.assert_allclose(np.sort(np.linalg.eigvals(small.a[:2, :2])), np.sort(POLES[dt][0]), atol=1e-13)
    for s in (0.3 + 2j, -4.0, 1j):
        np.testing.assert_allclose(transfer(s, *small[:4]), transfer(s, *kept) + transfer(s, *expected[:4]), rtol=1e-11)
    assert 1e-16 < certificate.forward_error < 1e-10


@times
def test_with_a_descriptor(dt, rng):
    _, _, (a, b, c) = parts(rng, dt)
    e = np.eye(5) + gaussian(rng, 5, 5) / 4
    small, same = balanced_truncation(e @ a, e @ b, c, 3, e=e, dt=dt), balanced_truncation(a, b, c, 3, dt=dt)
    np.testing.assert_allclose(small.hsv, same.hsv, rtol=1e-10)
    np.testing.assert_allclose(transfer(0.3 + 2j, *small[:4]), transfer(0.3 + 2j, *same[:4]), rtol=1e-10)


def test_a_double_integrator_stays(rng):
    a, t = np.diag([0.0, 0, -1, -2, -4]), np.eye(5) + gaussian(rng, 5, 5) / 4
    a[0, 1] = 1
    small = balanced_truncation(t @ a @ np.linalg.inv(t), gaussian(rng, 5, 1), gaussian(rng, 1, 5), 3)
    assert np.isposinf(small.hsv).sum() == 2
    assert np.abs(small.a[:2, :2] @ small.a[:2, :2]).max() < 1e-13


def test_members_with_different_numbers_of_kept_poles(on, rng):
    diagonals = [[-1.0, -2, -3], [2, 1, 0], [0, -1, -2], [np.nan, -1, -2]]
    stacks = np.stack([np.diag(x) for x in diagonals]), gaussian(rng, 4, 3, 1), gaussian(rng, 4, 1, 3)
    small = on(lambda *x: balanced_truncation(*x, order=2, errors="nan"), *stacks)
    assert [np.isposinf(x).sum() for x in small.hsv] == [0, 0, 1, 0]
    assert np.isnan([*(x[1] for x in small.hsv[[1, 3]])]).all()
    for k in (0, 2):
        for x, y in zip(small, balanced_truncation(*(x[k] for x in stacks), 2), strict=True):
            np.testing.assert_allclose(x[k], y, rtol=1e-12, atol=1e-13)
    if not on.jit:
        message = "members 1: the model has 3 poles that are not stable, which are kept; order counts them"
        with pytest.raises(matsign.SpectrumError, match=message):
            on(lambda *x: balanced_truncation(*x, order=2), *(x[:3] for x in stacks))


def test_an_unstable_model_at_any_size(rng):
    _, _, (a, b, c) = parts(rng, None)
    expected = balanced_truncation(a, b, c, 4)
    for s in (1e-100, 1e100):
        small = balanced_truncation(s * a, b, s * c, 4)
        np.testing.assert_allclose(small.hsv, expected.hsv, rtol=1e-12)
        np.testing.assert_allclose(
            np.sort(np.linalg.eigvals(small.a) / s), np.sort(np.linalg.eigvals(expected.a)), atol=1e-12
        )


def test_poles_that_rounding_decides_on_are_an_error():
    a = np.diag([-1e-3] * 12) + np.diag(np.ones(11), 1)  # far from normal
    with pytest.raises(matsign.SpectrumError, match="not stable to working precision"):
        hankel_singular_values(a, np.ones((12, 1)), np.ones((1, 12)))


@pytest.mark.compiles
def test_gradients_in_jax(rng):
    jax = pytest.importorskip("jax")
    _, _, arrays = parts(rng, None)
    directions = [gaussian(rng, *x.shape) for x in arrays]
    expected = matsign.frechet(balanced_truncation)(*arrays, *directions, order=3)

    def reduce(*arrays):
        return balanced_truncation(*arrays, 3)[:3]

    _, found = jax.jit(lambda x, dx: jax.jvp(reduce, x, dx))(arrays, tuple(directions))
    for x, y in zip(found, expected, strict=False):
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(("dt", "method"), [(None, "matchdc"), (0.1, "truncate")])
def test_second_derivatives(dt, method, rng):
    torch = pytest.importorskip("torch")
    t = np.eye(3) + gaussian(rng, 3, 3) / 5
    a = t @ np.diag([1.3, 0.6, -0.4] if dt else [0.7, -1, -2.5]) @ np.linalg.inv(t)
    arrays = [torch.tensor(x, requires_grad=True) for x in (a, gaussian(rng, 3, 1), gaussian(rng, 1, 3))]
    direct = torch.zeros((1, 1), dtype=torch.float64, requires_grad=True)

    def reduce(a, b, c, d):
        small = balanced_truncation(a, b, c, 2, d=d, dt=dt, method=method)
        return (*small[:4], small.hsv[1:])

    assert torch.autograd.gradcheck(reduce, (*arrays, direct), fast_mode=True)
    assert torch.autograd.gradgradcheck(reduce, (*arrays, direct), fast_mode=True)
