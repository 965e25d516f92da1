"""Iterations from a block structure to its sign, each written once for all structures."""

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

# Polynomial steps follow Newton's when the change in its last step is below this: with new = mu x + change,
# new² = I + change² exactly, and steps of order three converge from there.
_HANDOVER = 0.5


class Iterate(NamedTuple):
    """The result of an iteration: the structure, the number of steps, and how far x² was from I before the last one.

    Newton also returns the condition number of its start, and the `doublings` of the angle between an eigenvalue and the
    imaginary axis, at most: as many as the dtype has bits mean that rounding has decided the half plane.
    """

    value: Any
    steps: Array
    defect: Array
    condition: Array
    doublings: Array


def has_converged(backend: Backend, iterate: Iterate) -> Array:
    """Which members converged, to a sign that rounding has not decided."""
    return (iterate.defect < NEAR_SIGN) & (iterate.doublings < -0.6 * math.log2(backend.eps(iterate.value[0])))


def newton(backend: Backend, x: Structure, limit: int = 0) -> Iterate:
    """Newton's iteration with norm scaling (Higham 2008, section 5.5), followed by polynomial steps.

    It takes at most `limit` inverses, by default as many as an eigenvalue within rounding of the imaginary axis needs. The
    result is not checked, and arbitrary for a member without a sign: see `has_converged`.
    """
    xp, one = backend.xp, backend.ones(x[0])
    limit = limit or 8 - round(math.log2(backend.eps(x[0])))

    def step(state: Any) -> Any:
        x, last_inverse, steps, last, condition, last_size, doublings = state
        del state
        inverse = x.inverse(backend, last_inverse)
        size, inverse_size = x.size(backend), inverse.size(backend)
        condition = xp.where(steps == 0, size * inverse_size, condition)
        # A step multiplies the angle of an eigenvalue i y to the axis by (y² + 1)/|y² - 1|. This counts as a factor of 2, and
        # more near y = 1, where x and its inverse cancel and the next inverse is larger than mu x was.
        growth = inverse_size / last_size
        doublings = doublings + 1 + xp.log2(xp.where(growth > 1, growth, xp.ones_like(growth)))
        mu = xp.sqrt(inverse_size / size)
        new = newton_step(backend, x, inverse, mu)
        last_inverse = None if last_inverse is None else inverse
        del inverse
        gap = combine(1.0, new, broadcast_scalar(-mu), x).size(backend)
        # Where rounding alone exceeds _HANDOVER, stop at the first step without progress.
        stalled = (gap > 0.9 * last) & (gap < 0.01 * mu * size)
        active = (gap > _HANDOVER) & ~stalled & xp.isfinite(gap)
        return (new, last_inverse, steps + 1, gap, condition, mu * size, doublings), active

    # An inverse by products starts from the last one.
    last_inverse = combine(0.0, x, 0.0, x) if backend.products_only(x[0]) else None
    start = (x, last_inverse, 0 * one, math.inf * one, one, math.inf * one, 0 * one)
    x, _, steps, _, condition, _, doublings = backend.loop(step, start, limit)
    return finish(backend, x, steps)._replace(condition=condition, doublings=doublings)


def finish(backend: Backend, x: Structure, steps: Array, limit: int = 6) -> Iterate:
    """Order-three steps by products alone, from near the sign to rounding.

    A member so far from its sign that they would diverge is not changed; its defect shows this.
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
    """How far x² is from I: the norm, or that of a corner of x² - I over that of x if it is larger."""
    gap = square.plus_identity(backend, -1.0)
    defect = gap.size(backend)
    if isinstance(x, (Triangular, Lyapunov)):  # the corner comes second in both
        defect = backend.xp.maximum(defect, backend.norm(gap[1]) / safe_divisor(backend, backend.norm(x[1])))
    return defect


def run_schedule(backend: Backend, x: Structure, schedule: Iterable[Step]) -> Structure:
    """The odd polynomials of a schedule, one after the other."""
    result: Structure = backend.fold_rows(schedule, lambda x, a, b, c: odd_step(backend, x, a, b, c), x)
    return result


def purify(backend: Backend, x: Structure, steps: Array, limit: int = 30) -> Iterate:
    """Send singular values above √(2/3) to 1 and those below to 0 by the step `PURIFY`, then apply `POLISH`."""
    one = backend.ones(x[0])
    small = backend.eps(x[0]) ** (1 / 2) / 4

    def step(state: Any) -> Any:
        x, steps, _ = state
        new = odd_step(backend, x, *PURIFY)
        change = distance(backend, x, new)
        return (new, steps + 1, change), change > small

    x, steps, change = backend.loop(step, (x, steps, one), limit)
    return Iterate(odd_step(backend, x, *POLISH), steps + 1, change, math.nan * one, 0 * one)


def separable_sylvester(backend: Backend, a: Array, b: Array, q: Array) -> Array:
    """x with a x + x b = q for positive-stable a and b: the corner of the sign of [[-a, q], [0, b]] is 2 x.

    Every derivative and every correction step in the library ends in this equation.
    """
    return newton(backend, Triangular(-a, q, b)).value.c / 2


def lyapunov_by_sign(backend: Backend, a: Array, q: Array) -> tuple[Iterate, Array]:
    """(iterate, x) with a x + x aᴴ = q for a stable `a`: the corner of the sign of [[a, -q], [0, -aᴴ]] is 2 x.

    x is a solution only where ``has_converged(backend, iterate)`` and the trace of ``iterate.value.a``, the sign of a, is -n.
    """
    iterate = newton(backend, Lyapunov(a, -q))
    return iterate, iterate.value.q / 2
