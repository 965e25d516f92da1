"""Iterations that move a block structure to its sign, each written once for all structures."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from matsign.backends import Backend
from matsign.engine.blocks import Structure, Triangular, distance, newton_step, odd_step, polynomial_times
from matsign.engine.linear import norm
from matsign.engine.schedules import PADE, POLISH, PURIFY, Step

Array = Any


class Iterate(NamedTuple):
    """Where an iteration ended: the structure, its steps, how far its square was from I before the last one; and the
    condition number of the start, where an inverse was at hand."""

    value: Any
    steps: Array
    defect: Array
    condition: Array


# Newton hands over to products when its step changed every block by less than this: the error is then below 1e-2, and two
# steps of order three finish. One more inverse would cost more than the second of them.
_HANDOVER = 0.1
# Scaling moves a far iterate; near the sign it would spoil quadratic convergence.
_SCALED_UNTIL = 1e-2


def newton(be: Backend, x: Structure, limit: int = 0) -> Iterate:
    """Newton's iteration with norm scaling (Higham 2008, section 5.5), finished by products alone.

    It takes at most `limit` inverses, by default as many as an eigenvalue at the distance of rounding from the imaginary
    axis needs. It does not judge its result: a member without a sign ends anywhere, and the caller looks at residuals.
    """
    xp, one = be.xp, be.ones(x[0])
    limit = limit or 8 - round(math.log2(be.eps(x[0])))

    def step(state: Any) -> Any:
        x, steps, change, scaled, condition = state
        inverse = x.inverse(be)
        size, inverse_size = x.size(be), inverse.size(be)
        condition = xp.where(steps == 0, size * inverse_size, condition)
        mu = xp.sqrt(inverse_size / size)
        new = newton_step(be, x, inverse, xp.where(scaled > 0, mu, xp.ones_like(mu)))
        moved = distance(be, x, new)
        # Once close and unscaled, no progress means that rounding has taken over.
        stalled = (moved < 0.1) & (moved > 0.5 * change) & (scaled == 0)
        scaled = xp.where(moved < _SCALED_UNTIL, 0 * scaled, scaled)
        active = (moved > _HANDOVER) & ~stalled & xp.isfinite(moved)
        return (new, steps + 1, moved, scaled, condition), active

    x, steps, _, _, condition = be.loop(step, (x, 0 * one, math.inf * one, one, one), limit)
    return finish(be, x, steps)._replace(condition=condition)


def finish(be: Backend, x: Structure, steps: Array, limit: int = 6) -> Iterate:
    """Order-three steps by products alone, from near the sign to it, until a step has nothing left to gain."""
    enough = be.eps(x[0]) ** (1 / 3) / 4  # one more step cubes this below rounding

    def step(state: Any) -> Any:
        x, steps, before = state
        square = x.square()
        defect = _defect(be, x, square)
        active = (defect > enough) & (defect < 0.5 * before)
        return (polynomial_times(be, x, square, *PADE), steps + 1, defect), active

    one = be.ones(x[0])
    x, steps, defect = be.loop(step, (x, steps, math.inf * one), limit)
    return Iterate(x, steps, defect, math.nan * one)


def _defect(be: Backend, x: Structure, square: Any) -> Array:
    """How far x² is from I: the worst block, relative to the blocks of x."""
    gaps = [norm(be, block) for block in square.plus_identity(be, -1.0)]
    one = be.ones(x[0])
    sizes = [norm(be, block) for block in x] if type(square) is type(x) else [one * math.sqrt(square[0].shape[-1])]
    worst = 0 * one
    for gap, size in zip(gaps, sizes, strict=True):
        worst = be.xp.maximum(worst, gap / be.xp.where(size > 0, size, one))
    return worst


def run(be: Backend, x: Structure, schedule: Iterable[Step]) -> Structure:
    """The odd polynomials of a schedule, one after the other."""
    for step in schedule:
        x = odd_step(be, x, *step)
    return x


def purify(be: Backend, x: Structure, steps: Array, limit: int = 30) -> Iterate:
    """Send what lies above √(2/3) to 1 and what lies below to 0 (`schedules.PURIFY`), then polish."""
    one = be.ones(x[0])
    small = be.eps(x[0]) ** (1 / 2) / 4

    def step(state: Any) -> Any:
        x, steps, _ = state
        new = odd_step(be, x, *PURIFY)
        moved = distance(be, x, new)
        return (new, steps + 1, moved), moved > small

    x, steps, moved = be.loop(step, (x, steps, one), limit)
    return Iterate(odd_step(be, x, *POLISH), steps + 1, moved, math.nan * one)


def separable_sylvester(be: Backend, a: Array, b: Array, q: Array) -> Array:
    """x with a x + x b = q for positive-stable a and b: the corner of the sign of [[-a, q], [0, b]] is 2 x.

    This is the equation that every derivative and every correction step in the library ends in.
    """
    return newton(be, Triangular(-a, q, b)).value.c / 2
