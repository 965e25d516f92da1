"""The matrices of the cases, in float64. `shape` is that of the batch, n and n."""

from __future__ import annotations

import numpy as np

Random = np.random.Generator


def gaussian(rng: Random, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape)


def right(rng: Random, *shape: int, shift: float = 2.5) -> np.ndarray:
    """Eigenvalues in a disc of radius about 1 around `shift`."""
    n = shape[-1]
    return gaussian(rng, *shape) / np.sqrt(n) + shift * np.eye(n)


def both_sides(rng: Random, *shape: int) -> np.ndarray:
    """Eigenvalues around -2.5 and 2.5, half of them each, and a random basis."""
    *batch, n = shape[:-1]
    k = n // 2
    m = np.zeros(shape)
    m[..., :k, :k], m[..., k:, k:] = right(rng, *batch, k, k), -right(rng, *batch, n - k, n - k)
    m[..., :k, k:] = gaussian(rng, *batch, k, n - k) / np.sqrt(n)
    u = np.linalg.qr(gaussian(rng, *shape))[0]
    return u @ m @ u.mT


def definite(rng: Random, *shape: int) -> np.ndarray:
    """Symmetric, with eigenvalues from 1 to about 5."""
    g = gaussian(rng, *shape)
    a = g @ g.mT / shape[-1] + np.eye(shape[-1])
    return (a + a.mT) / 2


def with_radius(a: np.ndarray, radius: float) -> np.ndarray:
    """`a` scaled to this spectral radius."""
    return a * (radius / np.abs(np.linalg.eigvals(a)).max(axis=-1))[..., None, None]


def plant(rng: Random, *shape: int) -> tuple[np.ndarray, ...]:
    """a, b, q, r of a regulator: Gaussian, half as many inputs as states, each state and input at the same cost."""
    *batch, n = shape[:-1]
    m = max(n // 2, 1)
    q, r = (np.broadcast_to(np.eye(k), (*batch, k, k)).copy() for k in (n, m))
    return gaussian(rng, *shape), gaussian(rng, *batch, n, m), q, r
