"""The separation of a linear matrix equation: its distance to a singular one.

The separation of an equation T(x) = q is the smallest singular value of T. A change of T of that size makes it singular, and
rounding of size eps ‖T‖ changes x by up to eps ‖T‖ ‖x‖ / sep. Its reciprocal ‖T⁻¹‖ is estimated by power iteration with T⁻¹
and its adjoint.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.linalg.stacks import broadcast_scalar, random_probe, safe_divisor


class Separation(NamedTuple):
    """`value`: an upper estimate of the separation per member. `worst`: the unit x for which ‖T(x)‖ is nearly smallest."""

    value: Array
    worst: Array


def separation(
    backend: Backend,
    solve: Callable[[Array], Array],
    adjoint_solve: Callable[[Array], Array],
    like: Array,
    steps: int = 3,
) -> Separation:
    """Estimate the separation from above, within a few percent after three steps; 0 if a solution is not finite.

    `solve` applies the inverse of T and `adjoint_solve` the inverse of its adjoint, to stacks shaped like `like`.
    """

    def update_estimate(least: Array, size: Array) -> Array:
        # ‖T⁻¹ y‖ = size for a unit y gives sep ≤ 1/size; a size that is not finite counts as sep = 0.
        bound = backend.xp.where(backend.xp.isfinite(size) & (size > 0), 1 / size, 0 * backend.ones(size))
        return backend.xp.minimum(least, bound)

    def step(state: Any) -> Any:
        _, y, least = state
        x, size = _unit(backend, solve(y))
        y, adjoint_size = _unit(backend, adjoint_solve(x))
        # All members take all steps, so `solve` may hold the whole stack in a closure.
        return (x, y, update_estimate(update_estimate(least, size), adjoint_size)), least == least

    first = _unit(backend, random_right_side(backend, like))[0]
    worst, _, least = backend.loop(step, (first, first, math.inf * backend.ones(like)), steps)
    return Separation(least, worst)


def separation_of_response(
    backend: Backend, right: Array, x: Array, adjoint_solve: Callable[[Array], tuple[Array, Array]]
) -> tuple[Array, Array]:
    """(an upper estimate of the separation, mask) from one solution x = T⁻¹ right and one solve with the adjoint of T.

    The estimates are ‖right‖ / ‖x‖, and 1 / ‖T⁻ᴴ y‖ for the unit y along x. `adjoint_solve` also tells which of its solutions,
    stacks (B, 1, n, m), are reliable.
    """
    size = safe_divisor(backend, backend.norm(x))
    back, reliable = adjoint_solve((x / broadcast_scalar(size))[:, None])
    by_adjoint = 1 / safe_divisor(backend, backend.norm(back))
    return backend.xp.minimum(safe_divisor(backend, backend.norm(right)) / size, by_adjoint), reliable


def may_be_singular(backend: Backend, least: Array, like: Array, limit: Array) -> Array:
    """Whether the separation may be below `limit`, given the estimate `least` from one random right-hand side or one sum.

    A random unit vector has a component of about 1/√(n m) in the worst direction, rarely less than a hundredth of that.
    """
    return ~(least > 100 * math.sqrt(math.prod(like.shape[-2:])) * limit)


def random_right_side(backend: Backend, like: Array) -> Array:
    """A random right-hand side, the same for every member."""
    n, m = like.shape[-2:]
    return backend.xp.broadcast_to(random_probe(backend, n, m, like), like.shape)


def _unit(backend: Backend, x: Array) -> tuple[Array, Array]:
    size = backend.norm(x)
    return x / broadcast_scalar(backend.xp.where(size > 0, size, backend.ones(x))), size


# Steps of power iteration in `spectral_norm`.
_NORM_STEPS = 6

# Rounding may change a singular value of an operator by this times eps times its norm: two products for a similarity that
# gave the caller's entries, two for the Schur form.
ROUNDINGS = 4


def rounding_separation(backend: Backend, a: Array, b: Array) -> Array:
    """If the separation of x ↦ a x + x b is below this, it may be singular to within rounding errors in a and b."""
    return ROUNDINGS * backend.eps(a) * (spectral_norm(backend, a) + spectral_norm(backend, b))


def spectral_norm(backend: Backend, a: Array) -> Array:
    """‖a‖₂ within a few percent, from below, by power iteration."""
    n = a.shape[-1]
    y = backend.xp.broadcast_to(random_probe(backend, n, 1, a), (*a.shape[:-1], 1))
    size = 0 * backend.ones(a)
    for _ in range(_NORM_STEPS):
        y, _ = _unit(backend, y)
        y, size = _unit(backend, a @ y)
        y = y.mT.conj() @ a
        y = y.mT.conj()
    return size
