"""Newton's method for the mean of positive definite matrices, M = L Lᴴ, which starts from anywhere.

``evaluate(backend, data, factor)`` gives the size g of the residual at M, 0 at the mean, the size that rounding leaves of it, and
the Newton step E, Hermitian: the next factor is L exp(s E/2). E is a direction of descent for g, which decreases like 1 - s. The
length s is 1, or a fourth of the last one where g has not decreased by a half of what s promises.
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


class Descent(NamedTuple):
    """What ``evaluate`` gives: the sizes of the residual and of the rounding in it, and the step E."""

    gap: Array
    noise: Array
    step: Array


class Minimum(NamedTuple):
    """The factor L of the best iterate, the size of its residual and of the rounding in it, and the number of steps."""

    factor: Array
    gap: Array
    noise: Array
    steps: Array


def damped_newton(
    backend: Backend, evaluate: Callable[[Backend, Arrays, Array], Descent], data: Arrays, factor: Array
) -> Minimum:
    xp, n = backend.xp, factor.shape[-1]

    def step(state: tuple[Arrays, Arrays]) -> tuple[tuple[Arrays, Arrays], Array]:
        data, (factor, e, gap, noise, s, count) = state
        trial = factor @ half_exponential(backend, e, s)
        new = evaluate(backend, data, trial)
        better = new.gap <= (1 - s / 2) * gap
        wide = broadcast_scalar(better)
        factor, e = xp.where(wide, trial, factor), xp.where(wide, new.step, e)
        gap, noise = xp.where(better, new.gap, gap), xp.where(better, new.noise, noise)
        s = xp.where(better, xp.ones_like(s), s / 4)
        finished = is_rounding(backend, gap, noise, n) | (~better & (gap < _NEAR)) | (s < _SHORTEST)
        return (data, (factor, e, gap, noise, s, count + 1)), ~finished

    at = evaluate(backend, data, factor)
    start = (data, (factor, at.step, at.gap, at.noise, 1 + 0 * at.gap, 0 * at.gap))
    _, (factor, _, gap, noise, _, count) = backend.loop(step, start, _LIMIT)
    return Minimum(factor, gap, noise, count)


def is_rounding(backend: Backend, gap: Array, noise: Array, n: int) -> Array:
    """Where a residual needs no step. A larger one may be rounding, too, but only a step that does not decrease it shows that."""
    return gap <= backend.xp.minimum(noise, 10 * n * backend.eps(gap) + 0 * noise)


def half_exponential(backend: Backend, e: Array, s: Array) -> Array:
    """exp(s E/2) of a Hermitian E."""
    values, v = backend.eigh(e)
    return v * backend.xp.exp(s[:, None] * values / 2)[:, None, :] @ adjoint(v)
