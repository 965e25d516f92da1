"""Iterations that move a block structure to its sign, each written once for all structures."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.tolerances import NEAR_SIGN
from matsign.iterations.block_structures import (
    Lyapunov,
    Structure,
    Triangular,
    combine,
    distance,
    newton_step,
    odd_step,
    polynomial_times,
)
from matsign.iterations.minimax import PADE, POLISH, PURIFY, Step
from matsign.linalg.stacks import broadcast_scalar, safe_divisor

# Newton hands over to products when the move of its last step is below this: with new = mu x + move, new² = I + move²
# exactly, and order-three steps converge from there.
_HANDOVER = 0.5


class Iterate(NamedTuple):
    """Where an iteration ended: the structure, its steps, and how far its square was from I before the last one.

    Newton also tells the condition number of its start, and by how many factors of two it may have turned an eigenvalue
    away from the imaginary axis: as many as there are digits means that rounding has chosen the side.
    """

    value: Any
    steps: Array
    defect: Array
    condition: Array
    doublings: Array


def has_converged(backend: Backend, found: Iterate) -> Array:
    """Which members arrived, and not by the choice of rounding."""
    return (found.defect < NEAR_SIGN) & (found.doublings < -0.6 * math.log2(backend.eps(found.value[0])))


def newton(backend: Backend, x: Structure, limit: int = 0) -> Iterate:
    """Newton's iteration with norm scaling (Higham 2008, section 5.5), finished by products alone.

    It takes at most `limit` inverses, by default as many as an eigenvalue at the distance of rounding from the imaginary
    axis needs. It does not judge its result: a member without a sign ends anywhere; `has_converged` tells.
    """
    xp, one = backend.xp, backend.ones(x[0])
    limit = limit or 8 - round(math.log2(backend.eps(x[0])))

    def step(state: Any) -> Any:
        x, steps, last, condition, reach, doublings = state
        del state
        inverse = x.inverse(backend)
        size, inverse_size = x.size(backend), inverse.size(backend)
        condition = xp.where(steps == 0, size * inverse_size, condition)
        # At i y the angle to the axis grows by (y² + 1)/|y² - 1|: twofold far from 1, without bound near it, where the step
        # before has cancelled and left an inverse larger than what went in.
        grown = inverse_size / reach
        doublings = doublings + 1 + xp.log2(xp.where(grown > 1, grown, xp.ones_like(grown)))
        mu = xp.sqrt(inverse_size / size)
        new = newton_step(backend, x, inverse, mu)
        del inverse
        gap = combine(1.0, new, broadcast_scalar(-mu), x).size(backend)
        # Where rounding alone is larger than the hand-over, no progress is the end.
        stalled = (gap > 0.9 * last) & (gap < 0.01 * mu * size)
        active = (gap > _HANDOVER) & ~stalled & xp.isfinite(gap)
        return (new, steps + 1, gap, condition, mu * size, doublings), active

    start = (x, 0 * one, math.inf * one, one, math.inf * one, 0 * one)
    x, steps, _, condition, _, doublings = backend.loop(step, start, limit)
    return finish(backend, x, steps)._replace(condition=condition, doublings=doublings)


def finish(backend: Backend, x: Structure, steps: Array, limit: int = 6) -> Iterate:
    """Order-three steps by products alone, from near the sign to it, until a step has nothing left to gain.

    A member so far from its sign that they would diverge is left as it is; its defect tells.
    """
    xp, eps = backend.xp, backend.eps(x[0])
    enough = eps ** (1 / 3) / 4  # one more step cubes this below rounding

    def step(state: Any) -> Any:
        x, steps, before = state
        del state
        square = x.square()
        defect = _defect(backend, x, square)
        better = polynomial_times(backend, x, square, *PADE)
        near = broadcast_scalar(defect < 0.9)
        x = type(x)(*(xp.where(near, new, old) for new, old in zip(better, x, strict=True)))
        active = (defect > enough) & (defect < 0.5 * before) & (defect < 0.9)
        return (x, steps + 1, defect), active

    one = backend.ones(x[0])
    x, steps, defect = backend.loop(step, (x, steps, math.inf * one), limit)
    return Iterate(x, steps, defect, math.nan * one, 0 * one)


def _defect(backend: Backend, x: Structure, square: Any) -> Array:
    """How far x² is from I: its size, and a corner that should vanish beside the corner of x."""
    gap = square.plus_identity(backend, -1.0)
    defect = gap.size(backend)
    if isinstance(x, (Triangular, Lyapunov)):  # the corner comes second in both
        defect = backend.xp.maximum(defect, backend.norm(gap[1]) / safe_divisor(backend, backend.norm(x[1])))
    return defect


def run_schedule(backend: Backend, x: Structure, schedule: Iterable[Step]) -> Structure:
    """The odd polynomials of a schedule, one after the other."""
    found: Structure = backend.fold_rows(schedule, lambda x, a, b, c: odd_step(backend, x, a, b, c), x)
    return found


def purify(backend: Backend, x: Structure, steps: Array, limit: int = 30) -> Iterate:
    """Send what lies above √(2/3) to 1 and what lies below to 0 (`schedules.PURIFY`), then polish."""
    one = backend.ones(x[0])
    small = backend.eps(x[0]) ** (1 / 2) / 4

    def step(state: Any) -> Any:
        x, steps, _ = state
        new = odd_step(backend, x, *PURIFY)
        moved = distance(backend, x, new)
        return (new, steps + 1, moved), moved > small

    x, steps, moved = backend.loop(step, (x, steps, one), limit)
    return Iterate(odd_step(backend, x, *POLISH), steps + 1, moved, math.nan * one, 0 * one)


def separable_sylvester(backend: Backend, a: Array, b: Array, q: Array) -> Array:
    """x with a x + x b = q for positive-stable a and b: the corner of the sign of [[-a, q], [0, b]] is 2 x.

    This is the equation that every derivative and every correction step in the library ends in.
    """
    return newton(backend, Triangular(-a, q, b)).value.c / 2


def lyapunov_by_sign(backend: Backend, a: Array, q: Array) -> tuple[Iterate, Array]:
    """(found, x) with a x + x aᴴ = q for a stable `a`: the corner of the sign of [[a, -q], [0, -aᴴ]] is 2 x.

    x means something only where ``settled(backend, found)`` and the trace of ``found.value.a``, the sign of a, is -n.
    """
    found = newton(backend, Lyapunov(a, -q))
    return found, found.value.q / 2
