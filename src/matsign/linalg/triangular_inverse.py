"""The inverse of a lower triangular matrix, by halves: [[K, 0], [M, L]]⁻¹ = [[K⁻¹, 0], [-L⁻¹ M K⁻¹, L⁻¹]]."""

from __future__ import annotations

from matsign._typing import Array
from matsign.backends import Backend

# Smaller matrices have no gain from halves.
_SMALL = 48


def inverse_of_lower(backend: Backend, k: Array) -> Array:
    n = k.shape[-1]
    if n <= _SMALL:
        return backend.inv(k)
    half = n // 2
    above = backend.zeros((*k.shape[:-2], half, n - half), k)
    first, last = (inverse_of_lower(backend, x) for x in (k[..., :half, :half], k[..., half:, half:]))
    below = -(last @ k[..., half:, :half] @ first)
    rows = (backend.xp.concat([first, above], axis=-1), backend.xp.concat([below, last], axis=-1))
    return backend.xp.concat(rows, axis=-2)
