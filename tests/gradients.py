"""Gradients of numbers by PyTorch and JAX."""

import numpy as np
import pytest


def gradient(library, f, m, *others):
    """The gradient of f in its first argument, as a NumPy array."""
    if library == "torch":
        torch = pytest.importorskip("torch")
        x = torch.from_numpy(m.copy()).requires_grad_()
        f(x, *map(torch.from_numpy, others)).backward()
        return x.grad.numpy()
    jax = pytest.importorskip("jax")
    return np.asarray(jax.grad(f)(*map(jax.numpy.asarray, (m, *others))))


def assert_differentiates_twice(f, arrays, tol=1e-6, step=1e-5):
    """PyTorch's first and second derivatives against central differences, along one move of all arrays and cotangents.

    The move is random, so that an error in any part of a derivative shows. ``gradcheck`` and ``gradgradcheck`` move one array
    after the other, which takes several times as long.
    """
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(0)

    def like(xs):
        return [torch.randn(x.shape, dtype=x.dtype, generator=generator) for x in xs]

    def results(xs):
        ys = f(*xs)
        return [y for y in (ys if isinstance(ys, tuple) else (ys,)) if y.requires_grad]

    def inner(xs, ys):
        return sum((x.conj() * y).real.sum() for x, y in zip(xs, ys, strict=True))

    start = [*arrays, *like(results(arrays))]
    along, move = like(arrays), like(start)

    def at(t):
        """The point, a linear functional of the results, and its derivative in the arrays."""
        point = [(x.detach() + t * d).requires_grad_() for x, d in zip(start, move, strict=True)]
        xs, weights = point[: len(arrays)], point[len(arrays) :]
        value = inner(weights, results(xs))
        return point, value, inner(torch.autograd.grad(value, xs, create_graph=True), along)

    (point, *here), (_, *ahead), (_, *back) = map(at, (0, step, -step))
    for number, one, other in zip(here, ahead, back, strict=True):
        found = torch.autograd.grad(number, point, retain_graph=True, materialize_grads=True)
        error = inner(found, move) - (one - other) / (2 * step)
        assert abs(error.item()) <= tol * sum((x.norm() * d.norm()).item() for x, d in zip(found, move, strict=True))
