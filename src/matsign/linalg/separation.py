"""How far a linear matrix equation is from a singular one.

The separation of an equation T(x) = q is the smallest singular value of T. A change of T of that size makes it singular, and
rounding of size eps ‖T‖ moves x by up to eps ‖T‖ ‖x‖ / sep. Its reciprocal is the norm of the inverse, which is found by power
iteration on the inverse operator and its adjoint.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.linalg.stacks import broadcast_scalar, random_probe


class Separation(NamedTuple):
    """The separation, at most, per member, and the unit vector in which a change of the right-hand side shows most."""

    value: Array
    worst: Array


def separation(
    backend: Backend,
    solve: Callable[[Array], Array],
    adjoint_solve: Callable[[Array], Array],
    like: Array,
    steps: int = 3,
) -> Separation:
    """The separation from above, within a few percent after three steps, and 0 for an operator that cannot be solved with.

    `solve` is the inverse of T and `adjoint_solve` that of its adjoint, both on stacks shaped like `like`.
    """

    def least_of(least: Array, size: Array) -> Array:
        # Of a unit vector; NaN and infinity are a separation of nothing.
        found = backend.xp.where(backend.xp.isfinite(size) & (size > 0), 1 / size, 0 * backend.ones(size))
        return backend.xp.minimum(least, found)

    def step(state: Any) -> Any:
        _, y, least = state
        x, size = _unit(backend, solve(y))
        y, adjoint_size = _unit(backend, adjoint_solve(x))
        # Everyone stays for all steps, so the solvers may hold the whole stack.
        return (x, y, least_of(least_of(least, size), adjoint_size)), least == least

    first = _unit(backend, random_right_side(backend, like))[0]
    worst, _, least = backend.loop(step, (first, first, math.inf * backend.ones(like)), steps)
    return Separation(least, worst)


def may_be_singular(backend: Backend, least: Array, like: Array, limit: Array) -> Array:
    """Whether the separation may be below `limit`, by one bound on it: of a random right-hand side, or of a growing sum.

    The worst direction is in a random one with 1/√(n m) of its length on average, and hardly ever with a hundredth of that.
    """
    return ~(least > 100 * math.sqrt(math.prod(like.shape[-2:])) * limit)


def random_right_side(backend: Backend, like: Array) -> Array:
    """A random right-hand side, the same for every member."""
    n, m = like.shape[-2:]
    return backend.xp.broadcast_to(random_probe(backend, n, m, like), like.shape)


def _unit(backend: Backend, x: Array) -> tuple[Array, Array]:
    size = backend.norm(x)
    return x / broadcast_scalar(backend.xp.where(size > 0, size, backend.ones(x))), size


# Of power iteration for a norm.
_STEPS = 6

# What rounding may do to a singular value of an operator, beside eps times its norm: a similarity of two products may be behind
# the entries, another is the Schur form.
ROUNDINGS = 4


def rounding_separation(backend: Backend, a: Array, b: Array) -> Array:
    """The separation of x ↦ a x + x b below which rounding in a and b alone may have made it singular."""
    return ROUNDINGS * backend.eps(a) * (spectral_norm(backend, a) + spectral_norm(backend, b))


def spectral_norm(backend: Backend, a: Array) -> Array:
    """‖a‖₂ within a few percent, from below, by power iteration."""
    n = a.shape[-1]
    y = backend.xp.broadcast_to(random_probe(backend, n, 1, a), (*a.shape[:-1], 1))
    size = 0 * backend.ones(a)
    for _ in range(_STEPS):
        y, _ = _unit(backend, y)
        y, size = _unit(backend, a @ y)
        y = y.mT.conj() @ a
        y = y.mT.conj()
    return size
