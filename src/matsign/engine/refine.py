"""Iterative refinement of Sylvester equations a x + x b = q: from a rough solver to working precision."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from matsign.backends import Backend
from matsign.engine.linear import adjoint, column, nonzero, norm
from matsign.engine.separation import separation, start

Array = Any


class Refined(NamedTuple):
    """A solution, its backward error, and the separation of the equation."""

    x: Array
    error: Array
    separation: Array


def sylvester(
    be: Backend,
    solve: Callable[[Array], Array],
    adjoint_solve: Callable[[Array], Array],
    a: Array,
    b: Array,
    q: Array,
    times: int,
) -> Refined:
    """x from a rough solver and one for the adjoint equation, corrected up to `times` times with a and b themselves.

    The same must lead to a small error for a random right-hand side, by corrections that shrink: where it does not, the rough
    solver is too far from a and b to tell whether their equation is singular, and a right-hand side may suit it by chance.
    If the equation is singular, each correction is as large as the solution.
    """
    x, error, _ = _corrected(be, solve, a, b, q, times)
    _, probed, shrunk = _corrected(be, solve, a, b, start(be, q), times)
    error = be.xp.where(shrunk < 0.5, be.xp.maximum(error, probed), math.inf + 0 * error)
    ah, bh = adjoint(a), adjoint(b)
    found = separation(
        be,
        lambda y: _corrected(be, solve, a, b, y, 1)[0],
        lambda y: _corrected(be, adjoint_solve, ah, bh, y, 1)[0],
        q,
    )
    return Refined(x, error, found.value)


def _corrected(
    be: Backend, solve: Callable[[Array], Array], a: Array, b: Array, q: Array, times: int
) -> tuple[Array, Array, Array]:
    """(x, backward error, size of the first correction beside x), where each correction is kept if the error drops by it."""
    x = solve(q)
    gap = q - a @ x - x @ b
    error = backward(be, a, b, q, x, gap)
    first = 0 * error
    for k in range(times):
        step = solve(gap)
        first = norm(be, step) / nonzero(be, norm(be, x)) if k == 0 else first
        new = x + step
        new_gap = q - a @ new - new @ b
        new_error = backward(be, a, b, q, new, new_gap)
        better = new_error < error
        x = be.xp.where(column(better), new, x)
        gap = be.xp.where(column(better), new_gap, gap)
        error = be.xp.where(better, new_error, error)
    return x, error, first


def backward(be: Backend, a: Array, b: Array, q: Array, x: Array, gap: Array) -> Array:
    """The residual beside the terms of the equation."""
    return norm(be, gap) / nonzero(be, (norm(be, a) + norm(be, b)) * norm(be, x) + norm(be, q))
