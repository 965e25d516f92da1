"""Newton's method for the mean of positive definite matrices, M = L Lᴴ, which starts from anywhere.

``evaluate(backend, data, factor)`` gives the size g of the residual at M, 0 at the mean, and the Newton step E, Hermitian: the
next factor is L exp(s E/2). E is a direction of descent for g, which decreases like 1 - s. The length s is 1, or a fourth of the
last one where g has not decreased by a half of what s promises.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.linalg.stacks import adjoint, broadcast_scalar

# Below this size of the residual a step that does not decrease it shows that only rounding is left.
_NEAR = 1e-5
_SHORTEST, _LIMIT = 2.0**-24, 200


class Minimum(NamedTuple):
    """The factor L of the best iterate, the size of its residual, and the number of steps."""

    factor: Array
    gap: Array
    steps: Array


def damped_newton(
    backend: Backend, evaluate: Callable[[Backend, Arrays, Array], tuple[Array, Array]], data: Arrays, factor: Array
) -> Minimum:
    xp = backend.xp

    def step(state: tuple[Arrays, Arrays]) -> tuple[tuple[Arrays, Arrays], Array]:
        data, (factor, e, gap, s, count) = state
        trial = factor @ half_exponential(backend, e, s)
        new_gap, new_e = evaluate(backend, data, trial)
        better = new_gap <= (1 - s / 2) * gap
        wide = broadcast_scalar(better)
        factor, e, gap = xp.where(wide, trial, factor), xp.where(wide, new_e, e), xp.where(better, new_gap, gap)
        s = xp.where(better, xp.ones_like(s), s / 4)
        finished = (gap == 0) | (~better & (gap < _NEAR)) | (s < _SHORTEST)
        return (data, (factor, e, gap, s, count + 1)), ~finished

    gap, e = evaluate(backend, data, factor)
    start = (data, (factor, e, gap, 1 + 0 * gap, 0 * gap))
    _, (factor, _, gap, _, count) = backend.loop(step, start, _LIMIT)
    return Minimum(factor, gap, count)


def half_exponential(backend: Backend, e: Array, s: Array) -> Array:
    """exp(s E/2) of a Hermitian E."""
    values, v = backend.eigh(e)
    return v * backend.xp.exp(s[:, None] * values / 2)[:, None, :] @ adjoint(v)
