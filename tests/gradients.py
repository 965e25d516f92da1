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
