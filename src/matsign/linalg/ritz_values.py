"""Estimates of the smallest and the largest eigenvalue of Hermitian matrices by Lanczos' method, from products with vectors."""

from __future__ import annotations

from matsign._typing import Array
from matsign.backends import Backend
from matsign.linalg.stacks import adjoint, broadcast_scalar, random_probe, safe_divisor

# A residual of more than this share of its Ritz value tells nothing.
_UNKNOWN = 1.25


def spectrum_ends(backend: Backend, a: Array, steps: int) -> tuple[Array, Array]:
    """Estimates of the smallest and the largest eigenvalue, from the outermost Ritz values and the norms of their residuals.

    The largest is the Ritz value plus its residual. The smallest is the Ritz value minus its residual, but at least half of the
    Ritz value; where the residual is much larger, nothing is known, and it is 0. There is an eigenvalue within the residual of
    each Ritz value, but no certainty that none lies beyond. The vectors are rows: a product of a matrix with one column is
    slow in several libraries.
    """
    xp, count = backend.xp, min(steps, a.shape[-1])
    v = adjoint(random_probe(backend, a.shape[-1], 1, a)) + 0 * a[..., :1, :]
    size = backend.norm(v)
    before = 0 * v
    diagonal: list[Array] = []
    beside: list[Array] = []
    for _ in range(count):
        v = v / broadcast_scalar(safe_divisor(backend, size))
        w = v @ a - broadcast_scalar(size) * before
        quotient = (w @ adjoint(v))[..., 0, 0].real
        w = w - broadcast_scalar(quotient) * v
        # After a breakdown v is zero. Its entry must not be an outermost value.
        diagonal.append(xp.where(size > 0, quotient, diagonal[0]) if diagonal else quotient)
        before, v, size = v, w, backend.norm(w)
        beside.append(size)
    quotients, norms = xp.stack(diagonal, axis=-1), xp.stack(beside, axis=-1)
    one = xp.astype(backend.eye(count, a).real, quotients.dtype)
    above = norms[..., :, None] * xp.concat([one[1:], 0 * one[:1]], axis=0)
    values, vectors = backend.eigh(quotients[..., None, :] * one + above + adjoint(above))
    gaps = norms[..., -1:] * xp.abs(vectors[..., -1, :])
    low, gap = values[..., 0], gaps[..., 0]
    known = gap < _UNKNOWN * low
    return xp.where(known, xp.maximum(low - gap, low / 2), 0 * low), values[..., -1] + gaps[..., -1]
