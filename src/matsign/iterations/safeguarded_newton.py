"""Newton's method beside a slower iteration that converges from everywhere.

``evaluate(backend, data, x)`` gives a `Point`. A Newton step is kept if it halves the smallest residual so far; otherwise the
next step is the safe one. As only finitely many steps can halve a residual that stays away from zero, the iteration converges
from wherever the safe one does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.linalg.stacks import broadcast_scalar

_LIMIT = 500


class Point(NamedTuple):
    """An iterate x, the size of its residual, the next iterates by Newton's method and by the safe one.

    Where a Newton step from a residual of at most `near` fails, only rounding is left. A residual of at most `enough` needs no
    step.
    """

    x: Array
    gap: Array
    newton: Array
    safe: Array
    near: Array
    enough: Array


class Root(NamedTuple):
    """The last iterate, the size of its residual, and the number of steps."""

    x: Array
    gap: Array
    steps: Array


def safeguarded_newton(
    backend: Backend, evaluate: Callable[[Backend, Arrays, Array], Point], data: Arrays, x: Array
) -> Root:
    xp = backend.xp

    def step(state: tuple[Arrays, Point, Arrays]) -> tuple[tuple[Arrays, Point, Arrays], Array]:
        data, at, (best, is_newton, count) = state
        trial = evaluate(backend, data, xp.where(broadcast_scalar(is_newton > 0), at.newton, at.safe))
        failed = (is_newton > 0) & ~(trial.gap <= best / 2)
        at = Point(*backend.masked_select(failed, tuple(at), tuple(trial)))
        one = xp.ones_like(best)
        state = (data, at, (xp.minimum(best, at.gap), xp.where(failed, 0 * one, one), count + one))
        return state, ~((at.gap <= at.enough) | (failed & (at.gap <= at.near)))

    at = evaluate(backend, data, x)
    start = (data, at, (at.gap, 1 + 0 * at.gap, 0 * at.gap))
    _, at, (_, _, count) = backend.loop(step, start, _LIMIT)
    return Root(at.x, at.gap, count)
