"""The inverse of a matrix by products alone (Schulz 1933): v ← v + v (I - a v), which squares I - a v.

From v = aᴴ/σ² with σ ≥ σmax(a) it converges for every nonsingular a, in about 2 log2(condition) steps; from an inverse of a
matrix near a, in few. References: Ben-Israel & Cohen 1966; Pan & Schreiber 1991.
"""

from __future__ import annotations

import math
from typing import Any

from matsign._typing import Array

# From a start with ‖I - a v‖ below this in the Frobenius norm convergence is certain, and fast.
_NEAR = 0.9


def inverse(backend: Any, a: Array, guess: Array | None = None) -> Array:
    """a⁻¹ of a stack, NaN for members that are singular to working precision; `guess` may be near it, or far from it."""
    xp, eps = backend.xp, backend.eps(a)
    one = backend.eye(a.shape[-1], a)[None]
    start = _start(backend, a)
    if guess is not None:
        near = backend.norm(one - a @ guess) < _NEAR
        start = backend.masked_select(near, guess, start)

    def step(state: Any) -> Any:
        v, before = state
        error = one - a @ v
        gap = backend.norm(error)
        # A step squares the error: from 1/2 on it halves it at least, unless rounding stops it.
        active = (gap > math.sqrt(eps)) & ((gap > 0.3) | (gap < 0.6 * before))
        return (v + v @ error, gap), active

    v, gap = backend.loop(step, (start, math.inf * backend.ones(a)), 12 - 2 * round(math.log2(eps)))
    return xp.where((gap < 0.5)[:, None, None], v, math.nan * xp.ones_like(v))


def _start(backend: Any, a: Array) -> Array:
    """aᴴ/σ², with a bound σ² on the largest eigenvalue of aᴴa from the means of all and of their squares."""
    xp, n = backend.xp, a.shape[-1]
    adjoint = a.mT.conj()
    gram = adjoint @ a
    mean, size = backend.trace(gram).real / n, backend.norm(gram)
    bound = mean + xp.sqrt((n - 1) * xp.maximum(size * size / n - mean * mean, 0 * mean))
    return adjoint / xp.where(bound > 0, bound, 1.0)[:, None, None]
