"""Newton's method for algebraic Riccati equations (Kleinman 1968; Hewer 1971), safeguarded, and the choice between results.

A step from x solves a Lyapunov or Stein equation with the closed loop of x. It is kept only if the residual decreases and the
closed loop stays stable: a residual at rounding level does not prove stability (one had a pole at +3e6).
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
from matsign.linalg.stacks import adjoint, all_false, broadcast_scalar, eye, hermitian, rounding_probe, safe_divisor

_STEPS = 6
# The limit on refinement steps: far from the solution a Newton step only halves the error.
_REFINEMENTS = 40
LASTING = 16
# Diagonal entries of x whose roots differ by more than this power of two hide a loss of digits from the norm of x.
_UNEVEN = 4
# A relative residual above this costs more Newton steps than doubling takes time.
_PROMISING = 0.03


class Gap(NamedTuple):
    """At some x: the residual of the equation, the closed loop a - b k, the gain k, and the sum of the norms of the terms."""

    gap: Array
    closed: Array
    gain: Array
    terms: Array


class Equation(NamedTuple):
    """The continuous or discrete algebraic Riccati equation, as the functions that the solver needs.

    trust : a next Newton step above this many eps asks for refinement with double-word residuals
    hidden : rounding errors assumed in a residual, in eps times the terms
    gap(backend, plant, x) : residual, closed loop and gain at x
    exact_gap(backend, plant, x) : the same in double-word arithmetic
    steps(backend, plant, closed, *gaps) : Newton step dx for each residual, whether the closed loop is stable, doublings
    operator(plant, closed, x) : the linear operator that `steps` inverts
    dual(backend, plant, closed, c) : the adjoint of ``gap ↦ dx``
    doubling(backend, standard) : (x, steps) by structure-preserving doubling
    hamiltonian(backend, standard) : blocks (1,1), (1,2), (2,1), (2,2) of a matrix with [I; x] as its left invariant subspace
    stabilising : None; for anti-stabilising solutions (`anti_stabilising`) the equation of which this one is the mirror image
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
    stabilising: Any = None

    def step(self, backend: Backend, p: RiccatiProblem, closed: Array, gap: Array) -> ClosedLoopSolution:
        """The Newton step for one residual."""
        return self.steps(backend, p, closed, gap).only()


def solve_weighted(backend: Backend, weight: Array, inner: Array) -> Array:
    """weight⁻¹ inner; if that is not finite because weight is singular, its diagonal is first increased by 2 eps."""

    def solve_regularised(weight: Array, inner: Array, _: Array) -> Array:
        diagonal = backend.xp.abs(backend.xp.linalg.diagonal(weight))
        return backend.solve(weight + 2 * backend.eps(weight) * diagonal[..., None, :] * eye(backend, weight), inner)

    gain = backend.solve(weight, inner)
    if backend.is_traced(gain):
        return gain
    regular = backend.xp.isfinite(backend.norm(gain))
    if backend.all_true(regular):
        return gain
    singular = ~regular & backend.xp.isfinite(backend.norm(weight) + backend.norm(inner))
    return backend.masked_cond(singular, solve_regularised, lambda weight, inner, gain: gain, weight, inner, gain)


class Candidate(NamedTuple):
    """A solution x with its relative residual, relative next Newton step (`move`), stability of the closed loop, and steps.

    `sure`: rounding of the closed loop cannot change stability or the last step. `next`: the following Newton iterate, which
    may be better than x, but working precision cannot tell.
    """

    x: Array
    residual: Array
    move: Array
    stable: Array
    steps: Array
    sure: Array
    next: Array


def no_candidate(backend: Backend, x: Array) -> Candidate:
    """Candidates that are no solutions."""
    one, nothing = backend.ones(x), all_false(backend, x)
    return Candidate(x, math.inf * one, math.inf * one, nothing, 0 * one, nothing, x)


def correct(backend: Backend, equation: Equation, p: RiccatiProblem, x: Array, steps: Array) -> Candidate:
    """The best Newton iterate from x whose closed loop is stable, or x if there is none."""
    xp, eps, untraced = backend.xp, backend.eps(x), not backend.is_traced(x)
    rounding = 8 * x.shape[-1] * eps

    def evaluate(backend: Backend, p: RiccatiProblem, x: Array) -> tuple[Array, ...]:
        gap, closed, _, terms = backend.shared_function(equation.gap, backend, p, x)
        size = _relative(backend, gap, terms)
        if equation.hidden:
            # If the residual is at rounding level, the step is only a measure of the error: add assumed rounding errors.
            last = backend.astype(size <= 2 * eps, backend.dtype_name(size))
            gap = gap + hermitian(rounding_probe(backend, x, equation.hidden * last * terms))
        return x, gap, closed, size

    def step(state: Any) -> Any:
        p, x, gap, closed, size, best, count = state
        del state
        dx, stable, doublings = equation.step(backend, p, closed, gap)
        del closed, gap
        move = backend.norm(dx) / safe_divisor(backend, backend.norm(x))
        # A closed loop whose powers decay this slowly amplifies rounding errors, however small this step is.
        move = xp.where(doublings > LASTING, math.inf, move)
        better = stable & ((size < best.residual) | ~best.stable)
        best = _keep(backend, better, Candidate(x, size, move, stable, best.steps, stable, x), best)
        # Members with a residual at rounding level are finished; they leave the loop, so their new residual is not needed.
        moving = stable & (size > 2 * eps)
        if backend.is_traced(x):
            *at, new_size = backend.masked_select(
                moving, backend.shared_function(evaluate, backend, p, hermitian(x + dx)), (x, dx, dx, size)
            )
        else:
            *at, new_size = backend.masked_cond(
                moving,
                lambda p, x, dx, size: evaluate(backend, p, hermitian(x + dx)),
                lambda p, x, dx, size: (x, dx, dx, size),
                *(p, x, dx, size),
            )
        # Continue only while a step at least halves the residual.
        active = new_size < 0.5 * size
        if untraced:
            # At rounding level the next step is about move · new_size / size; if that is too large, `refine` takes over.
            needs_refinement = better & active & (new_size < rounding) & (move * new_size > equation.trust * eps * size)
            needs_refinement = needs_refinement & (size < _acceptable(backend, x))
            best = best._replace(next=backend.masked_select(needs_refinement, at[0], best.next))
            active = active & ~needs_refinement
        return (p, *at, new_size, best, count + 1), active

    def start() -> Any:
        x0, gap, closed, size = backend.shared_function(evaluate, backend, p, x)
        return p, x0, gap, closed, size, Candidate(x0, size, 0 * size, size < 0, steps, size < 0, x0), 0 * size

    *_, best, _ = backend.loop(step, start(), _STEPS)
    return best


def refine(backend: Backend, equation: Equation, p: RiccatiProblem, c: Candidate) -> Candidate:
    """Newton's method with double-word residuals, for members whose next step exceeds `trust` eps, or whose residual is above
    rounding in units that show all entries of x.
    """
    # A program for an accelerator leaves refinement to the host, so it refines only above eps^(3/4).
    tolerance = max(equation.trust * backend.eps(c.x), backend.eps(c.x) ** 0.75 if backend.is_traced(c.x) else 0.0)
    uncertain = c.stable & ~(c.move <= tolerance)
    if not backend.is_traced(c.x):
        uncertain = uncertain | (c.stable & _hides_residual(backend, equation, p, c))
    return backend.rare_cond(uncertain, lambda p, c: _refine(backend, equation, p, c), lambda p, c: c, p, c)


def _hides_residual(backend: Backend, equation: Equation, p: RiccatiProblem, c: Candidate) -> Array:
    """Whether a diagonal of x that differs much in size hides a residual above rounding, which other units of the states show."""
    states = solution_units(backend, c.x)
    uneven = backend.xp.max(states, axis=-1) - backend.xp.min(states, axis=-1) > _UNEVEN

    def measure(p: RiccatiProblem, x: Array, states: Array) -> Array:
        units = Units(backend.int_zeros(x), states, backend.int_zeros(x))
        at = equation.gap(backend, in_units(backend, p, states), units.apply(backend, x))
        return ~(_relative(backend, at.gap, at.terms) <= 8 * x.shape[-1] * backend.eps(x))

    result: Array = backend.masked_cond(uneven, measure, lambda p, x, states: all_false(backend, x), p, c.x, states)
    return result


def _refine(backend: Backend, equation: Equation, p: RiccatiProblem, c: Candidate) -> Candidate:
    """Newton's method with double-word residuals, with the states in units that bring the diagonal of x near 1."""
    units = Units(backend.int_zeros(c.x), solution_units(backend, c.x), backend.int_zeros(c.x))
    p, c = (
        in_units(backend, p, units.states),
        c._replace(x=units.apply(backend, c.x), next=units.apply(backend, c.next)),
    )
    if backend.is_traced(c.x):
        c = _by_steps(backend, equation, p, c)
    else:
        c, known = _one_proven_step(backend, equation, p, c)
        c = backend.masked_cond(~known, functools.partial(_by_steps, backend, equation), lambda p, c: c, p, c)
    return c._replace(x=units.restore(backend, c.x))


def _one_proven_step(backend: Backend, equation: Equation, p: RiccatiProblem, c: Candidate) -> tuple[Candidate, Array]:
    """One Newton step with a double-word residual, and the members where the result is proven right to rounding.

    The norm of the inverse operator, from its solution for I, bounds the error of the step: its own residual, rounding errors
    of the closed loop, and the second-order term in the gain. It also proves that the closed loop stays stable.
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
    factor, input_change = (at.closed if equation.discrete else p.e), adjoint(p.b) @ dx
    gain_change = equation.gap(backend, p, new).gain - at.gain
    rounding = 2 * backend.norm(_rounding(backend, p, at))
    gain_error = 2 * backend.norm(p.b @ gain_change)
    if factor is not None:
        input_change = input_change @ factor
        rounding, gain_error = rounding * backend.norm(factor), gain_error * backend.norm(factor)
    left = backend.norm(at.gap + equation.operator(p, at.closed, dx)) + backend.norm(gain_change) * backend.norm(
        input_change
    )
    error = inverse * (left + rounding * backend.norm(dx))
    move = eps + sum(backend.norm(h) for h in hidden) / length
    known = stable & (inverse * (rounding + gain_error) < 0.1) & (error <= eps / 4 * length)
    known = known & (move <= equation.trust * eps)
    candidate = Candidate(new, _relative(backend, at.gap, at.terms), move, stable, c.steps + 1, known, new)
    return backend.masked_select(known, candidate, c), known


def _by_steps(backend: Backend, equation: Equation, p: RiccatiProblem, c: Candidate) -> Candidate:
    """Newton steps with double-word residuals while the steps shrink.

    The steps measure the error. The residual does not: for an x with all digits right it is the effect of rounding x.
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
    """The residual plus a random matrix of the size of the rounding errors of the terms, in units of `precision` · eps: where
    the terms cancel, a small residual alone proves little.
    """
    return at.gap + hermitian(rounding_probe(backend, at.gap, equation.hidden * precision * at.terms))


def certain(
    backend: Backend,
    equation: Equation,
    p: RiccatiProblem,
    at: Gap,
    gain_change: Array | None = None,
    dense: bool = False,
) -> Array:
    """Whether the closed loop is stable and a Newton step right to a digit in spite of rounding of the closed loop.

    Test: the solution of the step's equation for I must change by less than a tenth if every entry of the closed loop is
    perturbed by a multiple of its rounding error, with fixed random signs. `gain_change` is an additional change of the gain.
    `dense`: also allow errors in every entry as large as those of the largest.
    """
    one = eye(backend, at.closed) + 0 * at.closed
    rounding = _rounding(backend, p, at)
    if gain_change is not None:
        rounding = rounding + backend.xp.abs(p.b) @ backend.xp.abs(gain_change)
    signs = np.random.default_rng(0).choice((-1.0, 1.0), p.a.shape[-2:])
    perturbed = at.closed + rounding * backend.astype(backend.asarray(signs, rounding), backend.dtype_name(rounding))
    (y, stable, _), (z, perturbed_stable, _) = (
        equation.step(backend, p, closed, one) for closed in (at.closed, perturbed)
    )
    sure = stable & perturbed_stable & (backend.norm(y - z) < 0.1 * backend.norm(y))
    if not dense:
        return sure
    # The inverse operator is positive, so ‖y‖, its value at I, measures its norm.
    factor = at.closed if equation.discrete else one if p.e is None else p.e
    return sure & (32 * backend.eps(y) * backend.norm(p.a) * backend.norm(factor) * backend.norm(y) < 0.1)


def _rounding(backend: Backend, p: RiccatiProblem, at: Gap) -> Array:
    """A bound on the rounding error of each entry of the closed loop."""
    return 16 * backend.eps(at.closed) * (backend.xp.abs(p.a) + backend.xp.abs(p.b) @ backend.xp.abs(at.gain))


def _keep(backend: Backend, better: Array, new: Candidate, old: Candidate) -> Candidate:
    best: Candidate = backend.masked_select(better, new, old)
    return best._replace(steps=old.steps + 1)


def polish(backend: Backend, equation: Equation, p: RiccatiProblem, x: Array, steps: Array) -> Candidate:
    """Newton steps while the residual decreases, without a test of stability: for solutions on the boundary of stability."""
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
        kept = Gap(*(xp.where(_broadcast_mask(better, u), u, v) for u, v in zip(new_at, at, strict=True)))
        state = (p, xp.where(broadcast_scalar(better), new, x), kept, xp.where(better, new_size, size), steps + 1)
        return state, better

    _, x, _, size, steps = backend.loop(step, (p, x, at, size, steps), _STEPS)
    return Candidate(x, size, 0 * size, size < 0, steps, size < 0, x)


def _relative(backend: Backend, gap: Array, terms: Array) -> Array:
    """‖residual‖ / terms; infinite if the terms overflow."""
    return backend.xp.where(terms < math.inf, backend.norm(gap) / safe_divisor(backend, terms), math.inf)


def _broadcast_mask(mask: Array, x: Array) -> Array:
    return broadcast_scalar(mask) if x.ndim == 3 else mask


def is_acceptable(backend: Backend, c: Candidate) -> Array:
    """Which candidates are stable with a residual below eps^(2/3); if Newton stagnates there, another start does not help."""
    return c.stable & (c.residual < _acceptable(backend, c.x))


def _acceptable(backend: Backend, x: Array) -> float:
    return float(backend.eps(x) ** (2 / 3))


def is_promising(backend: Backend, equation: Equation, p: RiccatiProblem, x: Array) -> Array:
    """Whether x is so near a solution that Newton's method from it takes a few steps."""
    at = equation.gap(backend, p, x)
    return _relative(backend, at.gap, at.terms) < _PROMISING


def better_of(backend: Backend, one: Candidate, other: Candidate) -> Candidate:
    """For each member the stable candidate; if both or neither are stable, the one with the smaller residual."""
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
