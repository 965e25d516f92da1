"""Error estimates for solutions of continuous and discrete algebraic Riccati equations."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.public import Residual
from matsign.direct import qz
from matsign.equations.riccati.classification import is_singular, zero_nonfinite_entries
from matsign.equations.riccati.decimal_fallback import (
    affordable,
    solve_in_decimals,
)
from matsign.equations.riccati.newton_kleinman import (
    LASTING,
    Equation,
    certain,
    residual_and_rounding,
)
from matsign.equations.riccati.perturbations import in_odd_units, round_by_one, round_randomly
from matsign.equations.riccati.problem import RiccatiProblem, Units, in_units, scale_problem, solution_units, unpack
from matsign.equations.riccati.solver import Problem, in_good_units
from matsign.linalg.separation import separation
from matsign.linalg.stacks import all_false, broadcast_scalar, hermitian, safe_divisor


def error_estimate(backend: Backend, equation: Equation, x: Array, p: RiccatiProblem) -> Residual:
    """Backward error, correction, separation, and whether x is on the boundary of stability.

    The correction is a Newton step for the residual, plus steps for its rounding errors, measured as the difference between
    residuals in two systems of units. If it exceeds a few digits, the residual is computed in double-word arithmetic, and
    perturbed data replace the rounding errors. If rounding of the closed loop makes the Newton step unreliable, x is compared
    with the solution in decimal arithmetic.
    """
    xp = backend.xp
    plain, whole, _ = scale_problem(backend, p, discrete=equation.discrete)
    backward = equation.gap(backend, plain, backend.ldexp(x, broadcast_scalar(-whole)))
    problem = in_good_units(backend, equation, p, True)
    p, y, units = _in_solution_units(backend, problem, x)
    at = equation.gap(backend, p, y)
    # At a fixed point of the iteration the residual may be 0 in all units: add the rounding of x, eps/4.
    newton_step = equation.step(
        backend, p, at.closed, residual_and_rounding(backend, equation, at) + backend.eps(x) / 4 * y
    )
    size = xp.abs(newton_step.x)
    for draw in range(2):
        odd = in_odd_units(backend, p, y, draw)
        hidden = odd.gap * equation.gap(backend, odd.plant, odd.x).gap - at.gap
        size = size + xp.abs(equation.step(backend, p, at.closed, hidden).x)
    first = Judgement(size, newton_step.stable, ~newton_step.stable, at.closed)
    uncertain = ~(
        newton_step.stable
        & (newton_step.doublings <= LASTING)
        & (backend.norm(size) < 1024 * backend.eps(x) * backend.norm(y))
    )
    if equation.discrete and affordable(backend, y, 2):
        uncertain = uncertain | is_singular(backend, equation, p, y)
    size, stable, edge, closed = backend.masked_cond(
        uncertain, functools.partial(_double_word_judgement, backend, equation), lambda p, y, first: first, p, y, first
    )
    size = xp.where(broadcast_scalar(stable), size, xp.full_like(size, xp.inf))
    sep = _separation(backend, equation, p, closed, units)
    near = sep < backend.eps(x) ** 0.25 * backend.norm(backward.closed)
    near = backend.masked_cond(
        near,
        functools.partial(_may_reach_boundary, backend, equation),
        lambda p, y, size: backend.norm(y) < 0,
        p,
        y,
        size,
    )

    def on_boundary(p: RiccatiProblem, closed: Array, states: Array) -> Array:
        return backend.host_callback(
            functools.partial(_host_boundary, equation.discrete, p.layout()),
            backend.ones(p.a) > 0,
            *p.present(),
            backend.ldexp(zero_nonfinite_entries(backend, closed), states[..., None, :] - states[..., :, None]),
        )

    balancing_states = problem.units.states
    states_change = units.states if balancing_states is None else units.states - balancing_states
    boundary = edge | backend.masked_cond(
        near, on_boundary, lambda p, closed, _: all_false(backend, closed), problem.plant, closed, states_change
    )
    # If the terms overflow in the caller's units, take the backward error in the scaled units.
    backward_error, relative = (backend.norm(y.gap) / safe_divisor(backend, y.terms) for y in (backward, at))
    backward_error = xp.where(xp.isfinite(backward.terms), backward_error, relative)
    sep = backend.ldexp(sep, units.operator)
    return Residual(backward_error, (units.restore(backend, size),), sep, boundary)


def _may_reach_boundary(backend: Backend, equation: Equation, p: RiccatiProblem, y: Array, size: Array) -> Array:
    """Whether the closed loop may reach the boundary of stability if y changes by `size`, and its gain accordingly."""
    at = equation.gap(backend, p, y)
    gain = equation.gap(backend, p, y + zero_nonfinite_entries(backend, size)).gain
    cannot_reach = backend.xp.isfinite(backend.norm(size)) & certain(
        backend, equation, p, at, gain - at.gain, dense=True
    )
    return ~cannot_reach


class Judgement(NamedTuple):
    """`size`: estimated error of each entry. `stable`: a stabilising solution is near. `edge`: the closed loop is on the boundary
    of stability to within rounding. `closed`: the closed loop.
    """

    size: Array
    stable: Array
    edge: Array
    closed: Array


def _in_solution_units(backend: Backend, problem: Problem, x: Array) -> tuple[RiccatiProblem, Array, Units]:
    """(plant, x, units) with the states in units that bring the diagonal of the solution near 1."""
    states = solution_units(backend, problem.units.apply(backend, x))
    units = problem.units.finer(states)
    return in_units(backend, problem.plant, states), units.apply(backend, x), units


def _double_word_judgement(
    backend: Backend, equation: Equation, p: RiccatiProblem, y: Array, first: Judgement
) -> Judgement:
    """Newton steps for the residual in double-word arithmetic and for a random rounding of the data."""
    at = equation.exact_gap(backend, p, y)
    rounded = equation.exact_gap(backend, round_randomly(backend, p), y).gap
    gaps = (residual_and_rounding(backend, equation, at, backend.eps(y)), rounded - at.gap)
    step, perturbed_step = (equation.step(backend, p, at.closed, gap) for gap in gaps)
    judgement = Judgement(
        backend.xp.abs(step.x) + backend.xp.abs(perturbed_step.x), step.stable, ~step.stable, at.closed
    )
    if not affordable(backend, y, 2):
        return judgement
    # Rounding of y itself may change the closed loop so much that a Newton step from it is unreliable.
    gain_change = equation.gap(backend, p, round_by_one(backend, y)).gain - at.gain
    sure = certain(backend, equation, p, at, gain_change) & (
        backend.norm(judgement.size) < 1e5 * backend.eps(y) * backend.norm(y)
    )
    # The double-word residual is accurate only if r (or r + bᴴ y b) is not singular to working precision.
    sure = sure & ~is_singular(backend, equation, p, y)
    return backend.masked_cond(
        sure,
        lambda p, y, judgement: judgement,
        functools.partial(_decimal_judgement, backend, equation),
        p,
        y,
        judgement,
    )


def _decimal_judgement(
    backend: Backend, equation: Equation, p: RiccatiProblem, y: Array, judgement: Judgement
) -> Judgement:
    """The distance to the solution in decimal arithmetic, plus the change of that solution under rounding of the data."""
    exact, perturbed = (solve_in_decimals(backend, equation, plant) for plant in (p, round_randomly(backend, p)))
    known = exact.found & perturbed.found
    # With so many doublings, the bits of the significand less 3, the closed loop is on the boundary to within rounding.
    boundary_doublings = -math.log2(backend.eps(y)) - 3
    size = backend.xp.abs(y - exact.x) + backend.xp.abs(perturbed.x - exact.x)
    return Judgement(
        backend.xp.where(broadcast_scalar(known), size, judgement.size),
        backend.xp.where(known, exact.stable & perturbed.stable, judgement.stable),
        backend.xp.where(
            known, backend.xp.maximum(exact.doublings, perturbed.doublings) > boundary_doublings, judgement.edge
        ),
        backend.xp.where(broadcast_scalar(known), exact.closed, judgement.closed),
    )


def _host_boundary(discrete: bool, layout: tuple[bool, ...], *arrays: Any) -> Any:
    return qz.on_boundary(discrete, *unpack(layout, arrays))


def _separation(backend: Backend, equation: Equation, p: RiccatiProblem, closed: Array, units: Units) -> Array:
    """The separation of the Lyapunov or Stein operator of the closed loop, in the caller's units of the states."""
    units = units._replace(whole=backend.int_zeros(closed))
    return separation(
        backend,
        lambda y: units.restore(backend, equation.step(backend, p, closed, units.apply(backend, y)).x),
        lambda y: units.apply(backend, equation.dual(backend, p, closed, units.restore(backend, y))),
        hermitian(closed),
    ).value
