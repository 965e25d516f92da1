"""Newton's method for algebraic Riccati equations (Kleinman 1968; Hewer 1971), guarded, and how to choose between its results.

A step from x solves a Lyapunov or Stein equation with the closed loop of x. It is taken back unless the residual drops and the
closed loop stays stable: a residual at rounding alone has been seen beside a closed loop with a pole at +3e6.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from matsign._typing import Array
from matsign.backends import Backend
from matsign.equations.riccati.problem import RiccatiProblem, Units, in_units, solution_units
from matsign.iterations.structured_doubling import ClosedLoopSolution
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye, hermitian, rounding_probe, safe_divisor

_STEPS = 6
# Far from the solution a step of Newton's method halves the error, near it it squares it.
_REFINEMENTS = 40
LASTING = 16


class Gap(NamedTuple):
    """What is left of the equation at some x, the closed loop and the gain there, and the size of the terms added up."""

    gap: Array
    closed: Array
    gain: Array
    terms: Array


class Equation(NamedTuple):
    """An algebraic Riccati equation by what is asked of it.

    trust : how many roundings the next step may move a solution before it is looked at in twice the precision
    hidden : the rounding errors of a gap that the size of the next step allows for, in eps times the terms
    gap(backend, plant, x) : the equation at x
    exact_gap(backend, plant, x) : the same in twice the precision
    steps(backend, plant, closed, *gaps) : Newton's dx of each gap, whether the closed loop is stable, and the doublings taken
    operator(plant, closed, x) : what the steps invert
    dual(backend, plant, closed, c) : the adjoint of ``gap ↦ dx``
    doubling(backend, standard) : (x, steps) by structure-preserving doubling
    hamiltonian(backend, standard) : blocks (1,1), (1,2), (2,1), (2,2) of a matrix with [I; x] as its left invariant subspace
    """

    discrete: bool
    trust: float
    hidden: float
    gap: Callable[..., Gap]
    exact_gap: Callable[..., Gap]
    steps: Callable[..., ClosedLoopSolution]
    operator: Callable[..., Array]
    dual: Callable[..., Array]
    doubling: Callable[..., tuple[Array, Array]]
    hamiltonian: Callable[..., tuple[Array, Array, Array, Array]]

    def step(self, backend: Backend, p: RiccatiProblem, closed: Array, gap: Array) -> ClosedLoopSolution:
        """Of one gap."""
        return self.steps(backend, p, closed, gap).only()


def solve_weighted(backend: Backend, weight: Array, inner: Array) -> Array:
    """weight⁻¹ inner; of a weight that rounding has made singular, with one rounding of its diagonal put back."""

    def solve_moved(weight: Array, inner: Array, _: Array) -> Array:
        diagonal = backend.xp.abs(backend.xp.linalg.diagonal(weight))
        return backend.solve(weight + 2 * backend.eps(weight) * diagonal[..., None, :] * eye(backend, weight), inner)

    gain = backend.solve(weight, inner)
    if backend.is_traced(gain):
        return gain
    regular = backend.xp.isfinite(backend.norm(gain))
    if backend.all_true(regular):
        return gain
    singular = ~regular & backend.xp.isfinite(backend.norm(weight) + backend.norm(inner))
    return backend.masked_cond(singular, solve_moved, lambda weight, inner, gain: gain, weight, inner, gain)


class Candidate(NamedTuple):
    """A solution with its relative residual, how far rounding may have moved it, whether its closed loop is stable, steps, and
    whether what rounding does to the closed loop is too little to make that verdict or the last step wrong. The `next` iterate
    of Newton's may be better, or be x itself: working precision tells no more.
    """

    x: Array
    residual: Array
    move: Array
    stable: Array
    steps: Array
    sure: Array
    next: Array


def correct(backend: Backend, equation: Equation, p: RiccatiProblem, x: Array, steps: Array) -> Candidate:
    """The best of the Newton iterates from x whose closed loop is stable; x itself where there is none."""
    xp, eps, early = backend.xp, backend.eps(x), not backend.is_traced(x)
    rounding = 8 * x.shape[-1] * eps

    def look(backend: Backend, p: RiccatiProblem, x: Array) -> tuple[Array, ...]:
        gap, closed, _, terms = backend.shared_function(equation.gap, backend, p, x)
        size = _relative(backend, gap, terms)
        if equation.hidden:
            # Of an x that is not moved any more only the length of this step is asked for.
            last = backend.astype(size <= 2 * eps, backend.dtype_name(size))
            gap = gap + hermitian(rounding_probe(backend, x, equation.hidden * last * terms))
        return x, gap, closed, size

    def step(state: Any) -> Any:
        p, x, gap, closed, size, best, count = state
        del state
        dx, stable, doublings = equation.step(backend, p, closed, gap)
        del closed, gap
        move = backend.norm(dx) / safe_divisor(backend, backend.norm(x))
        # A closed loop that takes this long to die out turns rounding into errors, whatever this one step says.
        move = xp.where(doublings > LASTING, math.inf, move)
        better = stable & ((size < best.residual) | ~best.stable)
        best = _keep(backend, better, Candidate(x, size, move, stable, best.steps, stable, x), best)
        # At rounding there is nothing left to gain.
        # A member that stays where it is leaves the loop, and nobody asks for its gap and closed loop.
        moving = stable & (size > 2 * eps)
        if backend.is_traced(x):
            *at, new_size = backend.masked_select(
                moving, backend.shared_function(look, backend, p, hermitian(x + dx)), (x, dx, dx, size)
            )
        else:
            *at, new_size = backend.masked_cond(
                moving,
                lambda p, x, dx, size: look(backend, p, hermitian(x + dx)),
                lambda p, x, dx, size: (x, dx, dx, size),
                *(p, x, dx, size),
            )
        # The last step that still gains is worth its price only if it gains much.
        active = new_size < 0.5 * size
        if early:
            # Of what rounding leaves, the step is about as long as the last one was: too long, it is one for more digits.
            blind = better & active & (new_size < rounding) & (move * new_size > equation.trust * eps * size)
            best = best._replace(next=backend.masked_select(blind, at[0], best.next))
            active = active & ~blind
        return (p, *at, new_size, best, count + 1), active

    def start() -> Any:
        x0, gap, closed, size = backend.shared_function(look, backend, p, x)
        return p, x0, gap, closed, size, Candidate(x0, size, 0 * size, size < 0, steps, size < 0, x0), 0 * size

    *_, best, _ = backend.loop(step, start(), _STEPS)
    return best


def refine(backend: Backend, equation: Equation, p: RiccatiProblem, c: Candidate) -> Candidate:
    """Newton in twice the precision, for solutions that rounding in what is left of the equation moves by more than a little."""
    # A program for an accelerator has no room for twice the precision: it leaves to the host what is moved by more digits.
    enough = max(equation.trust * backend.eps(c.x), backend.eps(c.x) ** 0.75 if backend.is_traced(c.x) else 0.0)
    doubtful = c.stable & ~(c.move <= enough)
    return backend.rare_cond(doubtful, lambda p, c: _refine(backend, equation, p, c), lambda p, c: c, p, c)


def _refine(backend: Backend, equation: Equation, p: RiccatiProblem, c: Candidate) -> Candidate:
    """Newton in twice the precision, with the states in units that make the diagonal of x about 1."""
    units = Units(backend.int_zeros(c.x), solution_units(backend, c.x), backend.int_zeros(c.x))
    p, c = (
        in_units(backend, p, units.states),
        c._replace(x=units.apply(backend, c.x), next=units.apply(backend, c.next)),
    )
    if backend.is_traced(c.x):
        c = _by_steps(backend, equation, p, c)
    else:
        c, known = _in_one_step(backend, equation, p, c)
        c = backend.masked_cond(~known, functools.partial(_by_steps, backend, equation), lambda p, c: c, p, c)
    return c._replace(x=units.restore(backend, c.x))


def _in_one_step(backend: Backend, equation: Equation, p: RiccatiProblem, c: Candidate) -> tuple[Candidate, Array]:
    """The next iterate after a step in twice the precision, and where that is known to be right to rounding.

    The solution of the step's equation for I bounds the error of the step: that of its own solution, of the rounding errors of
    the closed loop, and of second order in the gain. It also proves that the closed loop stays stable.
    """
    eps = backend.eps(c.x)
    x, at = c.next, equation.exact_gap(backend, p, c.next)
    one = eye(backend, x) + 0 * x
    rights = (
        (at.gap, one, residual_and_rounding(backend, equation, at, eps) - at.gap) if equation.hidden else (at.gap, one)
    )
    (dx, y, *hidden), stable, _ = equation.steps(backend, p, at.closed, *rights)
    new = hermitian(x + dx)
    length, inverse = safe_divisor(backend, backend.norm(new)), backend.norm(y)
    beside, across = (at.closed if equation.discrete else p.e), adjoint(p.b) @ dx
    solve_moved = equation.gap(backend, p, new).gain - at.gain
    rounding = 2 * backend.norm(_rounding(backend, p, at))
    turned = 2 * backend.norm(p.b @ solve_moved)
    if beside is not None:
        across = across @ beside
        rounding, turned = rounding * backend.norm(beside), turned * backend.norm(beside)
    left = backend.norm(at.gap + equation.operator(p, at.closed, dx)) + backend.norm(solve_moved) * backend.norm(across)
    error = inverse * (left + rounding * backend.norm(dx))
    move = eps + sum(backend.norm(h) for h in hidden) / length
    known = stable & (inverse * (rounding + turned) < 0.1) & (error <= eps / 4 * length)
    known = known & (move <= equation.trust * eps)
    found = Candidate(new, _relative(backend, at.gap, at.terms), move, stable, c.steps + 1, known, new)
    return backend.masked_select(known, found, c), known


def _by_steps(backend: Backend, equation: Equation, p: RiccatiProblem, c: Candidate) -> Candidate:
    """Newton in twice the precision while its steps shrink.

    The steps are the errors here. The residual no longer tells: that of an x with all digits right is rounding of x.
    """
    xp, eps = backend.xp, backend.eps(c.x)

    def step(state: Any) -> Any:
        p, x, best, last = state
        at = equation.exact_gap(backend, p, x)
        dx, stable, _ = equation.step(backend, p, at.closed, at.gap)
        move = backend.norm(dx) / safe_divisor(backend, backend.norm(x))
        size = _relative(backend, at.gap, at.terms)
        better = stable & (move < 0.7 * last)
        best = _keep(backend, better, Candidate(x, size, move, stable, best.steps, best.sure, x), best)
        return (p, hermitian(x + dx), best, xp.where(better, move, last)), better & (move > eps)

    unknown = math.inf * backend.ones(c.x)
    limit = _STEPS if backend.unrolls_loops(c.x) else _REFINEMENTS
    _, _, best, _ = backend.loop(step, (p, c.x, c._replace(residual=unknown), unknown), limit)
    at, move = equation.gap(backend, p, best.x), best.move
    if equation.hidden:
        hidden = equation.step(backend, p, at.closed, residual_and_rounding(backend, equation, at, eps) - at.gap).x
        move = xp.maximum(move, backend.norm(hidden) / safe_divisor(backend, backend.norm(best.x)))
    return best._replace(sure=(move <= equation.trust * eps) & certain(backend, equation, p, at))


def residual_and_rounding(backend: Backend, equation: Equation, at: Gap, precision: float = 1.0) -> Array:
    """What is left of an equation, and the rounding errors of its terms that it may hide: where these cancel, a small sum, or
    none, says little. `precision` is beside that of the numbers.
    """
    return at.gap + hermitian(rounding_probe(backend, at.gap, equation.hidden * precision * at.terms))


def certain(
    backend: Backend,
    equation: Equation,
    p: RiccatiProblem,
    at: Gap,
    solve_moved: Array | None = None,
    dense: bool = False,
) -> Array:
    """Whether the closed loop is stable, and a step from it right to a digit, whatever rounding has done to the closed loop.

    The solution of the step's equation for I tells: with rounding errors put into every entry, always the same ones and some
    larger than they are, it must not change by more than a tenth. With `solve_moved` the gain is changed by as much, too. `dense`
    errors may be anywhere, as large as those of the largest entry.
    """
    one = eye(backend, at.closed) + 0 * at.closed
    rounding = _rounding(backend, p, at)
    if solve_moved is not None:
        rounding = rounding + backend.xp.abs(p.b) @ backend.xp.abs(solve_moved)
    signs = np.random.default_rng(0).choice((-1.0, 1.0), p.a.shape[-2:])
    shaken = at.closed + rounding * backend.astype(backend.asarray(signs, rounding), backend.dtype_name(rounding))
    (y, stable, _), (z, also, _) = (equation.step(backend, p, closed, one) for closed in (at.closed, shaken))
    sure = stable & also & (backend.norm(y - z) < 0.1 * backend.norm(y))
    if not dense:
        return sure
    # The operator is positive, so ‖y‖ is the norm of its inverse.
    beside = at.closed if equation.discrete else one if p.e is None else p.e
    return sure & (32 * backend.eps(y) * backend.norm(p.a) * backend.norm(beside) * backend.norm(y) < 0.1)


def _rounding(backend: Backend, p: RiccatiProblem, at: Gap) -> Array:
    """What rounding may have done to each entry of the closed loop."""
    return 16 * backend.eps(at.closed) * (backend.xp.abs(p.a) + backend.xp.abs(p.b) @ backend.xp.abs(at.gain))


def _keep(backend: Backend, better: Array, new: Candidate, old: Candidate) -> Candidate:
    found: Candidate = backend.masked_select(better, new, old)
    return found._replace(steps=old.steps + 1)


def polish(backend: Backend, equation: Equation, p: RiccatiProblem, x: Array, steps: Array) -> Candidate:
    """Newton from x for as long as the residual drops, the closed loop not asked: for solutions on the boundary of stability."""
    xp = backend.xp
    at = equation.gap(backend, p, x)
    size = _relative(backend, at.gap, at.terms)

    def step(state: Any) -> Any:
        p, x, at, size, steps = state
        dx = equation.step(backend, p, at.closed, at.gap).x
        new = hermitian(x + dx)
        new_at = equation.gap(backend, p, new)
        new_size = _relative(backend, new_at.gap, new_at.terms)
        better = new_size < size
        kept = Gap(*(xp.where(_like(better, u), u, v) for u, v in zip(new_at, at, strict=True)))
        state = (p, xp.where(broadcast_scalar(better), new, x), kept, xp.where(better, new_size, size), steps + 1)
        return state, better

    _, x, _, size, steps = backend.loop(step, (p, x, at, size, steps), _STEPS)
    return Candidate(x, size, 0 * size, size < 0, steps, size < 0, x)


def _relative(backend: Backend, gap: Array, terms: Array) -> Array:
    """What is left of an equation beside its terms; infinite where these overflow."""
    return backend.xp.where(terms < math.inf, backend.norm(gap) / safe_divisor(backend, terms), math.inf)


def _like(mask: Array, x: Array) -> Array:
    return broadcast_scalar(mask) if x.ndim == 3 else mask


def is_acceptable(backend: Backend, c: Candidate) -> Array:
    """Which candidates another start would not improve: where Newton stands still above rounding, it does so from anywhere."""
    return c.stable & (c.residual < backend.eps(c.x) ** (2 / 3))


def better_of(backend: Backend, one: Candidate, other: Candidate) -> Candidate:
    """Member by member: the stable one, of two stable ones that with the smaller residual."""
    xp = backend.xp
    second = (other.stable & ~one.stable) | ((other.stable == one.stable) & (other.residual < one.residual))
    return Candidate(
        xp.where(broadcast_scalar(second), other.x, one.x),
        xp.where(second, other.residual, one.residual),
        xp.where(second, other.move, one.move),
        one.stable | other.stable,
        one.steps + other.steps,
        xp.where(second, other.sure, one.sure),
        xp.where(broadcast_scalar(second), other.next, one.next),
    )
