"""Matrices of several shapes in one call: columns of zeros change rounding errors alone."""

import numpy as np
import pytest

from matsign.backends import load
from matsign.iterations.minimax import headroom
from matsign.iterations.newton_schulz import _TALL, form, rounding
from matsign.optim import batching as module
from matsign.optim.batching import msign_batched, msign_config, orthogonalise

CHOICES = {
    "steps": msign_config(),
    "newton_schulz": msign_config(ns_steps=5),
    "name": msign_config(schedule="you"),
    "tolerance": msign_config(tol=1e-2),
    "purified": msign_config(tol=1e-6),
}


@pytest.fixture
def shapes_called(monkeypatch):
    calls = []

    def counted(x, how):
        calls.append(tuple(x.shape))
        return orthogonalise(x, how)

    monkeypatch.setattr(module, "orthogonalise", counted)
    return calls


def gaussians(rng, *shapes, dtype=np.float64):
    return [rng.standard_normal((1, *shape)).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("how", CHOICES.values(), ids=CHOICES)
def test_the_answer_is_that_of_each_alone(how, rng, shapes_called):
    shapes = [(16, n) for n in (16, 20, 27, 28, 31, 40, 64, 100, 115)] + [(50, 16), (16, 40)]
    stacks = gaussians(rng, *shapes)
    found = msign_batched(stacks, [how] * len(stacks))
    assert len(shapes_called) == 4
    for x, y in zip(stacks, found, strict=True):
        assert y.shape == x.shape
        expected = orthogonalise(x, how)
        # Gaussian matrices of 16 rows have condition numbers up to some hundreds.
        assert np.linalg.norm(y - expected) < 1e-11 * np.linalg.norm(expected)


def test_in_single_precision(rng):
    stacks = gaussians(rng, *((12, n) for n in range(21, 33)), dtype=np.float32)
    how = msign_config()
    for x, y in zip(stacks, msign_batched(stacks, [how] * len(stacks)), strict=True):
        assert np.linalg.norm(y - orthogonalise(x, how)) < 1e-4


def test_many_shapes_take_few_calls(rng, shapes_called):
    stacks = gaussians(rng, *((16, 16 + k) for k in range(100)), dtype=np.float32)
    msign_batched(stacks, [msign_config()] * 100)
    assert len(shapes_called) <= 6


def test_one_shape_has_the_bits_that_it_has_alone(rng):
    """With any other shapes that are too different to share a call."""
    stacks, how = gaussians(rng, (16, 40), (40, 16), (9, 40), (16, 500)), msign_config()
    for x, y in zip(stacks, msign_batched(stacks, [how] * 4), strict=True):
        np.testing.assert_array_equal(y, orthogonalise(x, how))


def test_zeros_that_cost_more_than_a_call_are_not_added(rng, monkeypatch, shapes_called):
    monkeypatch.setattr(module, "ZEROS_ON_CPU", 4 * 4 * 10)
    msign_batched(gaussians(rng, (4, 20), (4, 17), (4, 30), (25, 4), (4, 22)), [msign_config()] * 5)
    assert shapes_called == [(1, 1, 1), (2, 4, 30), (3, 4, 22)]


def test_a_bad_matrix_spoils_no_other(rng, shapes_called):
    stacks = gaussians(rng, (6, 20), (6, 30), (25, 6), (6, 22))
    stacks[0][0, 2, 3], stacks[3] = np.nan, 0 * stacks[3]
    bad, *good, zero = msign_batched(stacks, [msign_config()] * 4)
    assert len(shapes_called) == 2  # the first checks the options
    assert np.isnan(bad).all()
    assert not zero.any()
    for x, y in zip(stacks[1:3], good, strict=True):
        np.testing.assert_allclose(y, orthogonalise(x, msign_config()), atol=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_matrices_of_one_form_take_the_same_steps(dtype):
    backend = load("numpy")
    for short in (3, 16, 100):
        seen = {}
        for long in range(short, 5000, 7):
            room = headroom(*rounding(backend, np.empty((1, long, short), dtype)))
            assert seen.setdefault(form(short, long), (room, long >= _TALL * short)) == (room, long >= _TALL * short)


@pytest.mark.compiles
def test_of_jax(rng, shapes_called):
    jax = pytest.importorskip("jax")
    stacks = gaussians(rng, (5, 12), (10, 5))
    found = jax.jit(lambda xs: msign_batched(xs, [msign_config()] * 2))(list(map(jax.numpy.asarray, stacks)))
    assert (2, 5, 12) in shapes_called
    for x, y in zip(stacks, found, strict=True):
        np.testing.assert_allclose(y, orthogonalise(x, msign_config()), atol=1e-12)
