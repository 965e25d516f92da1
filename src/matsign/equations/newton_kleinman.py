"""Newton's method for algebraic Riccati equations (Kleinman 1968; Hewer 1971), guarded, and how to choose between its results.

A step from x solves a Lyapunov or Stein equation with the closed loop of x. It is taken back unless the residual drops and the
closed loop stays stable: a residual at rounding alone has been seen beside a closed loop with a pole at +3e6.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from matsign.backends import Backend
from matsign.engine.linear import column, hermitian, nonzero, norm
from matsign.equations.plant import Plant

Array = Any

_STEPS = 6


class Gap(NamedTuple):
    """What is left of the equation at some x, the closed loop and the gain there, and the size of the terms added up."""

    gap: Array
    closed: Array
    gain: Array
    terms: Array


class Equation(NamedTuple):
    """An algebraic Riccati equation by what is asked of it.

    gap(be, plant, x) : the equation at x
    step(be, plant, closed, gap) : Newton's dx, and whether the closed loop is stable
    dual(be, plant, closed, c) : the adjoint of ``gap ↦ dx``
    doubling(be, standard) : (x, steps) by structure-preserving doubling
    hamiltonian(be, standard) : blocks (1,1), (1,2), (2,1), (2,2) of a matrix with [I; x] as its left invariant subspace
    """

    discrete: bool
    gap: Callable[..., Gap]
    step: Callable[..., tuple[Array, Array]]
    dual: Callable[..., Array]
    doubling: Callable[..., tuple[Array, Array]]
    hamiltonian: Callable[..., tuple[Array, Array, Array, Array]]


class Candidate(NamedTuple):
    """A solution with its relative residual, whether its closed loop is stable, and the steps it took."""

    x: Array
    residual: Array
    stable: Array
    steps: Array


def correct(be: Backend, equation: Equation, p: Plant, x: Array, steps: Array) -> Candidate:
    """The best of the Newton iterates from x whose closed loop is stable; x itself where there is none."""
    xp, eps = be.xp, be.eps(x)

    def look(p: Plant, x: Array, count: Array) -> tuple[Array, Gap, Array]:
        at = equation.gap(be, p, x)
        return x, at, norm(be, at.gap) / nonzero(be, at.terms)

    def step(state: Any) -> Any:
        p, x, at, size, best, count = state
        dx, stable = equation.step(be, p, at.closed, at.gap)
        better = stable & ((size < best.residual) | ~best.stable)
        best = Candidate(
            xp.where(column(better), x, best.x),
            xp.where(better, size, best.residual),
            best.stable | stable,
            best.steps + 1,
        )
        # At rounding there is nothing left to gain.
        x, at, new_size = be.split(
            stable & (size > 2 * eps),
            lambda p, x, at, size, dx: look(p, hermitian(x + dx), size),
            lambda p, x, at, size, dx: (x, at, size),
            *(p, x, at, size, dx),
        )
        # The last step that still gains is worth its price only if it gains much.
        return (p, x, at, new_size, best, count + 1), new_size < 0.5 * size

    x, at, size = look(p, x, steps)
    start = Candidate(x, size, size < 0, steps)
    *_, best, _ = be.loop(step, (p, x, at, size, start, 0 * size), _STEPS)
    return best


def polish(be: Backend, equation: Equation, p: Plant, x: Array, steps: Array) -> Candidate:
    """Newton from x for as long as the residual drops, the closed loop not asked: for solutions on the boundary of stability."""
    xp = be.xp
    at = equation.gap(be, p, x)
    size = norm(be, at.gap) / nonzero(be, at.terms)

    def step(state: Any) -> Any:
        p, x, at, size, steps = state
        dx, _ = equation.step(be, p, at.closed, at.gap)
        new = hermitian(x + dx)
        new_at = equation.gap(be, p, new)
        new_size = norm(be, new_at.gap) / nonzero(be, new_at.terms)
        better = new_size < size
        kept = Gap(*(xp.where(_like(better, u), u, v) for u, v in zip(new_at, at, strict=True)))
        state = (p, xp.where(column(better), new, x), kept, xp.where(better, new_size, size), steps + 1)
        return state, better

    _, x, _, size, steps = be.loop(step, (p, x, at, size, steps), _STEPS)
    return Candidate(x, size, size < 0, steps)


def _like(mask: Array, x: Array) -> Array:
    return column(mask) if x.ndim == 3 else mask


def fair(be: Backend, c: Candidate) -> Array:
    """Which candidates another start would not improve: where Newton stands still above rounding, it does so from anywhere."""
    return c.stable & (c.residual < be.eps(c.x) ** (2 / 3))


def better_of(be: Backend, one: Candidate, other: Candidate) -> Candidate:
    """Member by member: the stable one, of two stable ones that with the smaller residual."""
    xp = be.xp
    second = (other.stable & ~one.stable) | ((other.stable == one.stable) & (other.residual < one.residual))
    return Candidate(
        xp.where(column(second), other.x, one.x),
        xp.where(second, other.residual, one.residual),
        one.stable | other.stable,
        one.steps + other.steps,
    )
