"""How wrong the solution of an algebraic Riccati equation may be."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.public import Residual
from matsign.direct import qz
from matsign.equations.riccati.decimal_fallback import (
    affordable,
    solve_in_decimals,
    unpack,
)
from matsign.equations.riccati.newton_kleinman import (
    LASTING,
    Equation,
    certain,
    residual_and_rounding,
)
from matsign.equations.riccati.problem import (
    RiccatiProblem,
    Units,
    in_odd_units,
    in_units,
    round_by_one,
    round_randomly,
    scale_problem,
    solution_units,
)
from matsign.equations.riccati.solver import Problem, in_good_units, is_singular, zero_nonfinite_entries
from matsign.linalg.separation import separation
from matsign.linalg.stacks import all_false, broadcast_scalar, hermitian, safe_divisor


def residual_of(equation: Equation) -> Callable[..., Residual]:
    """The residual of a public function."""

    def residual(
        backend: Backend,
        value: tuple[Array, ...],
        a: Array,
        b: Array,
        q: Array,
        r: Array,
        e: Array | None,
        s: Array | None,
    ) -> Residual:
        return error_estimate(backend, equation, value[0], RiccatiProblem(a, b, q, r, e, s))

    return residual


def error_estimate(backend: Backend, equation: Equation, x: Array, p: RiccatiProblem) -> Residual:
    """How wrong x is.

    The correction is a Newton step for what is left of the equation, and one for what rounding hides in that: what is left of
    the same equation in other units, where all rounding falls differently, beside it. Where that is more than a few digits,
    the equation is looked at in twice the precision, and rounding of the data takes the place of rounding on the way; and
    where rounding of the closed loop makes the step itself doubtful, in as many digits as it takes.
    """
    xp = backend.xp
    plain, whole, _ = scale_problem(backend, p, discrete=equation.discrete)
    backward = equation.gap(backend, plain, backend.ldexp(x, broadcast_scalar(-whole)))
    problem = in_good_units(backend, equation, p, True)
    p, y, units = _in_solution_units(backend, problem, x)
    at = equation.gap(backend, p, y)
    # At its fixed point an x may leave nothing, and so in all units.
    found = equation.step(backend, p, at.closed, residual_and_rounding(backend, equation, at) + backend.eps(x) / 4 * y)
    size = xp.abs(found.x)
    for draw in range(2):
        odd = in_odd_units(backend, p, y, draw)
        hidden = odd.gap * equation.gap(backend, odd.plant, odd.x).gap - at.gap
        size = size + xp.abs(equation.step(backend, p, at.closed, hidden).x)
    first = Judgement(size, found.stable, ~found.stable, at.closed)
    doubtful = ~(
        found.stable & (found.doublings <= LASTING) & (backend.norm(size) < 1024 * backend.eps(x) * backend.norm(y))
    )
    size, stable, edge, closed = backend.masked_cond(
        doubtful, functools.partial(_close_look, backend, equation), lambda p, y, first: first, p, y, first
    )
    size = xp.where(broadcast_scalar(stable), size, xp.full_like(size, xp.inf))
    apart = _separation(backend, equation, p, closed, units)
    near = apart < backend.eps(x) ** 0.25 * backend.norm(backward.closed)
    near = backend.masked_cond(
        near, functools.partial(_may_reach, backend, equation), lambda p, y, size: backend.norm(y) < 0, p, y, size
    )

    def look(p: RiccatiProblem, closed: Array, states: Array) -> Array:
        return backend.host_callback(
            functools.partial(_host_boundary, equation.discrete, p.e is not None, p.s is not None),
            backend.ones(p.a) > 0,
            *(m for m in p if m is not None),
            backend.ldexp(zero_nonfinite_entries(backend, closed), states[..., None, :] - states[..., :, None]),
        )

    before = problem.units.states
    moved = units.states if before is None else units.states - before
    boundary = edge | backend.masked_cond(
        near, look, lambda p, closed, _: all_false(backend, closed), problem.plant, closed, moved
    )
    # Where the terms overflow, the error in good units has to do.
    backward_error, relative = (backend.norm(y.gap) / safe_divisor(backend, y.terms) for y in (backward, at))
    backward_error = xp.where(xp.isfinite(backward.terms), backward_error, relative)
    apart = backend.ldexp(apart, units.operator)
    return Residual(backward_error, (units.restore(backend, size),), apart, boundary)


def _may_reach(backend: Backend, equation: Equation, p: RiccatiProblem, y: Array, size: Array) -> Array:
    """Whether the closed loop may come to the boundary of stability when y moves by `size` and its gain with it."""
    at = equation.gap(backend, p, y)
    gain = equation.gap(backend, p, y + zero_nonfinite_entries(backend, size)).gain
    far = backend.xp.isfinite(backend.norm(size)) & certain(backend, equation, p, at, gain - at.gain, dense=True)
    return ~far


class Judgement(NamedTuple):
    """How far a solution is from the right one, entry by entry; whether there is a stabilising one nearby, and one as near the
    boundary as rounding may have put it; its closed loop.
    """

    size: Array
    stable: Array
    edge: Array
    closed: Array


def _in_solution_units(backend: Backend, problem: Problem, x: Array) -> tuple[RiccatiProblem, Array, Units]:
    """The plant and its solution x with the states in units that make the diagonal of the solution about 1."""
    states = solution_units(backend, problem.units.apply(backend, x))
    units = problem.units.finer(states)
    return in_units(backend, problem.plant, states), units.apply(backend, x), units


def _close_look(backend: Backend, equation: Equation, p: RiccatiProblem, y: Array, first: Judgement) -> Judgement:
    """A Newton step for what is left of the equation in twice the precision, and one for a rounding of its data."""
    at = equation.exact_gap(backend, p, y)
    rounded = equation.exact_gap(backend, round_randomly(backend, p), y).gap
    gaps = (residual_and_rounding(backend, equation, at, backend.eps(y)), rounded - at.gap)
    left, moved = (equation.step(backend, p, at.closed, gap) for gap in gaps)
    found = Judgement(backend.xp.abs(left.x) + backend.xp.abs(moved.x), left.stable, ~left.stable, at.closed)
    if not affordable(backend, y, 2):
        return found
    # Rounding of y itself may move the closed loop so far that a step from it says little.
    moved = equation.gap(backend, p, round_by_one(backend, y)).gain - at.gain
    sure = certain(backend, equation, p, at, moved) & (
        backend.norm(found.size) < 1e5 * backend.eps(y) * backend.norm(y)
    )
    # What the gap in twice the precision takes for small is so only where it can solve with r (or r + bᴴ y b).
    sure = sure & ~is_singular(backend, equation, p, y)
    return backend.masked_cond(
        sure, lambda p, y, found: found, functools.partial(_in_digits, backend, equation), p, y, found
    )


def _in_digits(backend: Backend, equation: Equation, p: RiccatiProblem, y: Array, found: Judgement) -> Judgement:
    """The distance to the solution itself, and how far that moves when the data are rounded."""
    right, shaken = (
        solve_in_decimals(backend, equation, p),
        solve_in_decimals(backend, equation, round_randomly(backend, p)),
    )
    known = right.found & shaken.found
    most = -math.log2(backend.eps(y)) - 3  # as many as there are digits
    size = backend.xp.abs(y - right.x) + backend.xp.abs(shaken.x - right.x)
    return Judgement(
        backend.xp.where(broadcast_scalar(known), size, found.size),
        backend.xp.where(known, right.stable & shaken.stable, found.stable),
        backend.xp.where(known, backend.xp.maximum(right.doublings, shaken.doublings) > most, found.edge),
        backend.xp.where(broadcast_scalar(known), right.closed, found.closed),
    )


def _host_boundary(discrete: bool, with_e: bool, with_s: bool, *arrays: Any) -> Any:
    return qz.on_boundary(discrete, *unpack(with_e, with_s, arrays))


def _separation(backend: Backend, equation: Equation, p: RiccatiProblem, closed: Array, units: Units) -> Array:
    """Of the Lyapunov or Stein operator of the closed loop, in the states of the caller."""
    units = units._replace(whole=backend.int_zeros(closed))
    return separation(
        backend,
        lambda y: units.restore(backend, equation.step(backend, p, closed, units.apply(backend, y)).x),
        lambda y: units.apply(backend, equation.dual(backend, p, closed, units.restore(backend, y))),
        hermitian(closed),
    ).value
