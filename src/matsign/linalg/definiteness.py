"""Whether the eigenvalues of Hermitian matrices are clearly positive, by one Cholesky decomposition."""

from __future__ import annotations

from matsign._typing import Array
from matsign.backends import Backend
from matsign.linalg.stacks import broadcast_scalar, eye, hermitian, random_probe, safe_divisor

# The power method with so many vectors and steps finds more than 1 / _MARGIN of the largest eigenvalue.
_VECTORS, _STEPS, _MARGIN = 8, 6, 1.5


def clearly_definite(backend: Backend, a: Array, zero: float) -> Array:
    """Whether the smallest eigenvalue is more than `zero` times the largest one, with room: False also for NaN."""
    top = _MARGIN * _largest_eigenvalue(backend, a)
    factor = backend.cholesky(hermitian(a - broadcast_scalar(zero * top) * eye(backend, a)))
    return backend.xp.isfinite(backend.norm(factor))


def _largest_eigenvalue(backend: Backend, a: Array) -> Array:
    """An estimate from below."""
    x = random_probe(backend, a.shape[-1], _VECTORS, a)
    for _ in range(_STEPS):
        x = a @ x
        size = safe_divisor(backend, backend.norm(x))
        x = x / broadcast_scalar(size)
    return backend.norm(a @ x)
