"""Minimal realizations: their order, their transfer function and its derivatives, whatever the units and the stability."""

import numpy as np
import pytest
import scipy.signal

import matsign
from conftest import HAVE
from matrices import gaussian
from matsign import certify, minimal_realization


def hidden(rng, n, reached, both, dtype="float64", m=2, p=2):
    """A model of n states in random coordinates, and a minimal one of its transfer function with `both` states."""
    a, b, c = gaussian(rng, n, n, dtype=dtype), gaussian(rng, n, m, dtype=dtype), gaussian(rng, p, n, dtype=dtype)
    a[reached:, :reached], b[reached:] = 0, 0
    unseen = reached - both
    a[unseen:, :unseen], c[:, :unseen] = 0, 0
    part = slice(unseen, reached)
    q, _ = np.linalg.qr(gaussian(rng, n, n, dtype=dtype))
    q = q * np.geomspace(1, 8, n).astype(q.real.dtype)
    small = a[part, part], b[part], c[:, part]
    return (np.linalg.solve(q, a @ q), np.linalg.solve(q, b), c @ q), small


def transfer(a, b, c, d=0, s=0.7 + 2j):
    return c @ np.linalg.solve(s * np.eye(a.shape[-1]) - a, b) + d


def gap(model, other):
    """The largest relative distance at a few points."""
    points = (0.7 + 2j, -1.5 - 4j, 30j)
    return max(
        np.linalg.norm(transfer(*model, s=s) - transfer(*other, s=s)) / np.linalg.norm(transfer(*other, s=s))
        for s in points
    )


@pytest.mark.parametrize("dtype", ["float64", "complex128", "float32"])
@pytest.mark.parametrize("sizes", [(2, 1, 1), (3, 2, 1), (5, 4, 4), (6, 6, 3), (20, 15, 10)])
def test_order_and_transfer_function(sizes, dtype, rng):
    model, small = hidden(rng, *sizes, dtype)
    found, certificate = certify(minimal_realization)(*model)
    assert found.a.shape == small[0].shape
    assert found.a.dtype == dtype
    eps = np.finfo(dtype).eps
    assert gap(found, small) < 3000 * eps
    assert certificate.measures["order"] == sizes[2]
    assert certificate.backward_error < 10 * sizes[0] * eps
    assert certificate.forward_error < 1e5 * eps


def test_many_steps_that_magnify_rounding(rng):
    """Each step of a staircase with one input is of one state: here the last one would be kept."""
    model, small = hidden(rng, 40, 30, 20, m=1, p=1)
    assert minimal_realization(*model).a.shape == (20, 20)
    assert gap(minimal_realization(*model), small) < 1e-9


def test_units_do_not_matter(rng):
    model, small = hidden(rng, 6, 4, 3)
    states, inputs = np.exp2(rng.integers(-60, 60, 6)), np.array([1e-200, 1e90])
    a, b, c = model[0] * states / states[:, None] * 1e80, model[1] / states[:, None] * inputs, model[2] * states
    found = minimal_realization(a, b, c)
    assert found.a.shape == (3, 3)
    assert gap((found.a / 1e80, found.b / inputs, found.c), small) < 1e-11
    # Two states that only look uncontrollable and unobservable.
    assert minimal_realization(np.diag([-1.0, -2.0]), [1.0, 1e-20], [1.0, 1e20]).a.shape == (2, 2)
    # Modes without input, or in no output, whatever their units are.
    modes = (
        np.diag([-1.0, -2.0, -3.0, 4.0]),
        np.array([[1e-30], [0], [1e15], [1e30]]),
        np.array([[1e30, 1e15, 0, 1e-30]]),
    )
    found = minimal_realization(*modes)
    assert found.a.shape == (2, 2)
    assert gap(found[:3], modes) < 1e-14


def test_a_closed_loop_of_the_textbook():
    """G/(1 + G H) with G = 1/(s - 1), H = (2 s + 1)/s, as (1 + G H)⁻¹ times G, is s/(s² + s + 1)."""
    a = np.array([[-1.0, -1, 1], [1, 0, 0], [0, 0, 1]])  # the states of G in the loop, of H, and of the G in front
    b, c = np.array([[0.0], [0], [1]]), np.array([[-2.0, -1, 1]])
    small = minimal_realization(a, b, c)
    np.testing.assert_allclose(
        np.sort_complex(np.linalg.eigvals(small.a)), np.sort_complex(np.roots([1, 1, 1])), atol=1e-14
    )
    for s in (2.0, 1j, -3 + 1j):
        np.testing.assert_allclose(transfer(*small, s=s), s / (s**2 + s + 1), rtol=1e-13)


def test_parallel_copies_and_no_transfer():
    one = np.array([[0.0, 1.0], [2.0, 0.3]]), np.array([[0.0], [1.0]]), np.array([[1.0, 0.5]])
    twice = np.kron(np.eye(2), one[0]), np.vstack([one[1], one[1]]), np.hstack([one[2], one[2]])
    small = minimal_realization(*twice)
    assert small.a.shape == (2, 2)
    np.testing.assert_allclose(transfer(*small), 2 * transfer(*one), rtol=1e-14)
    for b, c in ((np.zeros((4, 2)), twice[2]), (twice[1], np.zeros((3, 4))), (np.zeros((4, 0)), twice[2])):
        assert [x.shape for x in minimal_realization(twice[0], b, c)] == [
            (0, 0),
            (0, b.shape[1]),
            (len(c), 0),
            (len(c), b.shape[1]),
        ]
    assert [x.shape for x in minimal_realization(np.zeros((0, 0)), np.zeros((0, 2)), np.zeros((1, 0)))] == [
        (0, 0),
        (0, 2),
        (1, 0),
        (1, 2),
    ]


def test_minimal_models_are_unchanged(rng):
    model = gaussian(rng, 4, 4) * 1e-150, gaussian(rng, 4, 1), gaussian(rng, 1, 4) * 5e-324
    for x, y in zip(minimal_realization(*model, [[3.0]]), (*model, [[3.0]]), strict=True):
        np.testing.assert_array_equal(x, y)


def test_batches(rng):
    (first, small), (second, _) = hidden(rng, 4, 3, 2), hidden(rng, 4, 4, 4)
    both = [np.stack([x, y, np.nan * x]) for x, y in zip(first, second, strict=True)]
    found = minimal_realization(*both, errors="nan")
    assert found.a.shape == (3, 4, 4)
    for x, y in zip(found, (*second, np.zeros((2, 2))), strict=True):
        np.testing.assert_array_equal(x[1], y)
        assert np.isnan(x[2]).all()
    np.testing.assert_array_equal(found.a[0, 2:], np.diag([-0.5, -0.5])[:, [0, 0, 0, 1]] * [0, 0, 1, 1])
    assert gap([x[0] for x in found], small) < 1e-12
    alone = minimal_realization(*first)
    np.testing.assert_array_equal(found.a[0, :2, :2], alone.a)
    with pytest.raises(np.linalg.LinAlgError, match="batch members 1: the model needs 4 states, more than order"):
        minimal_realization(*(x[:2] for x in both), order=3)
    assert minimal_realization(*(x[:1] for x in both), order=3).a.shape == (1, 2, 2)
    with pytest.raises(np.linalg.LinAlgError, match="NaN"):
        minimal_realization(*both)
    for order in (0, 5, True, 2.0):
        with pytest.raises(ValueError, match="order must be None or a whole number from 1 to 4"):
            minimal_realization(*first, order=order)


def test_rtol_is_the_relative_change(rng):
    model, _ = hidden(rng, 4, 3, 3)
    noisy = [x * (1 + 1e-6 * gaussian(rng, *x.shape)) for x in model]
    assert minimal_realization(*noisy).a.shape == (4, 4)
    small, certificate = certify(minimal_realization)(*noisy, rtol=1e-4)
    assert small.a.shape == (3, 3)
    assert 1e-8 < certificate.backward_error < 1e-4
    assert 1e-8 < certificate.forward_error < 1e-2
    assert gap(small, model) < 1e-3


def test_models_of_both_kinds_of_time(rng):
    model, small = hidden(rng, 4, 3, 2, m=1, p=1)
    for time in ({}, {"dt": 0.1}):
        found = minimal_realization(scipy.signal.StateSpace(*model, [[3.0]], **time))
        assert (found.A.shape, found.D.tolist(), found.dt) == ((2, 2), [[3.0]], time.get("dt"))
        assert gap((found.A, found.B, found.C), small) < 1e-12


def _family(rng):
    """Matrices (a, b, c) of the powers t⁰, t¹, t² of a model of 4 states, 3 of them controllable and 2 of these observable."""
    q, _ = np.linalg.qr(rng.standard_normal((4, 4)))
    a, b, c = rng.standard_normal((3, 4, 4)), rng.standard_normal((3, 4, 1)), rng.standard_normal((3, 1, 4))
    a[:, 3:, :3], a[:, 1:, :1], b[:, 3], c[:, :, 0] = 0, 0, 0, 0
    # Coordinates that move, too: i + k t and its inverse, for a nilpotent k.
    k = np.kron([[0, 1], [0, 0]], rng.standard_normal((2, 2)))
    return a, b, c, q, k


def _loss(t, family, reduce):
    """Of the Markov parameters, which depend on the transfer function only."""
    a, b, c, q, k = family
    a, b, c = (x[0] + t * x[1] + t**2 * x[2] for x in (a, b, c))
    a, b, c = a + t * (a @ k - k @ a) - t**2 * k @ a @ k, b - t * k @ b, c + t * c @ k  # (i - k t) a (i + k t)
    a, b, c = q @ a @ q.T, q @ b, c @ q.T
    if reduce:
        a, b, c, _ = minimal_realization(a, b, c)
    return (c @ a @ b).sum() + (c @ a @ a @ b).sum() ** 2


@pytest.mark.skipif(not HAVE["torch"], reason="needs torch")
def test_derivatives_of_the_transfer_function_in_torch(rng):
    import torch

    family = [torch.asarray(x) for x in _family(rng)]
    t = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def derivatives(reduce):
        (first,) = torch.autograd.grad(_loss(t, family, reduce), t, create_graph=True)
        (second,) = torch.autograd.grad(first, t)
        return [first.item(), second.item()]

    np.testing.assert_allclose(derivatives(True), derivatives(False), rtol=1e-10)


@pytest.mark.compiles
@pytest.mark.slow
@pytest.mark.skipif(not HAVE["jax"], reason="needs JAX")
def test_derivatives_of_the_transfer_function_in_jax(rng):
    import jax

    family = [jax.numpy.asarray(x) for x in _family(rng)]

    @jax.jit
    def twice(t):
        return [jax.jvp(jax.grad(lambda s, r=r: _loss(s, family, r)), (t,), (1.0,)) for r in (True, False)]

    found, expected = twice(0.3)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_the_derivative_and_its_adjoint(dtype, rng):
    """In any direction, also those in which the order grows: ⟨x̄, dx⟩ is the same both ways."""
    backend = matsign.backends.load("numpy")
    arrays = tuple(x[None] for x in (*hidden(rng, 5, 4, 2, dtype)[0], gaussian(rng, 2, 2, dtype=dtype)))
    spec, options = minimal_realization.spec, {"order": None, "rtol": None}
    value = spec.operation.solve(backend, *arrays, **options).value
    directions, bars = ([gaussian(rng, *x.shape, dtype=dtype) for x in xs] for xs in (arrays, value))
    moved = spec.operation.tangent(backend, value, arrays, directions, **options)
    pulled = spec.operation.cotangent(backend, value, arrays, bars, **options)
    inner = [
        sum(np.vdot(x, y).real for x, y in zip(u, v, strict=True)) for u, v in ((bars, moved), (pulled, directions))
    ]
    assert abs(inner[0] - inner[1]) < 1e-11 * abs(inner[0])
