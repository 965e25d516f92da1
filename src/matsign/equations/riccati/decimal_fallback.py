"""What working precision leaves open of an algebraic Riccati equation, settled by `decimal_doubling` on the CPU."""

from __future__ import annotations

import functools
import math
from typing import Any

from matsign._typing import Array
from matsign.backends import Backend
from matsign.equations.riccati import decimal_doubling
from matsign.equations.riccati.decimal_doubling import DecimalSolution
from matsign.equations.riccati.newton_kleinman import Candidate, Equation, correct, is_acceptable, refine
from matsign.equations.riccati.problem import RiccatiProblem, standard_form, with_shift
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye, hermitian, norm, to_double


def affordable(be: Backend, x: Array, times: int = 1) -> bool:
    """Whether this can be asked for so many times: not under a trace, and not of large plants."""
    return not be.is_traced(x) and decimal_doubling.affordable(x.shape[-1], is_complex=be.is_complex(x), times=times)


def solve_in_decimals(be: Backend, equation: Equation, p: RiccatiProblem) -> DecimalSolution:
    """The plants in as many digits as they need: those of single precision in double, where that is enough."""
    if not _has_double(be, p):
        return _in_decimals(be, equation, p)
    found = _in_double(be, equation, p)
    return DecimalSolution(
        *be.masked_cond(found.found, lambda p, found: found, lambda p, found: _in_decimals(be, equation, p), p, found)
    )


def replace_by_double(be: Backend, equation: Equation, p: RiccatiProblem, c: Candidate) -> Candidate:
    """The candidates of single precision that it leaves open in double, where that settles them."""
    if be.is_traced(c.x) or not _has_double(be, p):
        return c
    replace_by_decimals = is_acceptable(be, c) & (c.move <= equation.trust * be.eps(c.x))
    return be.masked_cond(
        replace_by_decimals, lambda p, c: c, lambda p, c: _better(be, _in_double(be, equation, p), c), p, c
    )


def _has_double(be: Backend, p: RiccatiProblem) -> bool:
    return p.s is None and be.dtype_name(to_double(be, p.a)) != be.dtype_name(p.a)


def _in_decimals(be: Backend, equation: Equation, p: RiccatiProblem) -> DecimalSolution:
    return DecimalSolution(
        *be.host_callback(
            functools.partial(_host_solve, equation.discrete, p.e is not None, p.s is not None),
            (p.q, p.a, p.b.mT, be.int_zeros(p.a), be.ones(p.a) > 0),
            *(m for m in p if m is not None),
        )
    )


def _in_double(be: Backend, equation: Equation, p: RiccatiProblem) -> DecimalSolution:
    """By doubling and Newton's method; not found are those that have no more than the digits asked for there, too."""
    wide = RiccatiProblem(*(None if m is None else to_double(be, m) for m in p))
    simple = standard_form(be, wide, discrete=equation.discrete)
    x, steps = equation.doubling(be, simple)
    c = refine(be, equation, wide, correct(be, equation, wide, with_shift(be, simple, x), steps))
    at = equation.gap(be, wide, c.x)
    x, closed, gain = (be.astype(m, be.dtype_name(p.a)) for m in (c.x, at.closed, at.gain))
    known = c.stable & c.sure & (c.move <= equation.trust * be.eps(c.x)) & ~outside_cone(be, wide, c.x)
    known = known & be.xp.isfinite(norm(be, x) + norm(be, gain))
    return DecimalSolution(x, closed, gain, be.xp.astype(steps, be.xp.int32), known)


def _host_solve(discrete: bool, with_e: bool, with_s: bool, *arrays: Any) -> Any:
    return decimal_doubling.solve(discrete, *unpack(with_e, with_s, arrays))


def unpack(with_e: bool, with_s: bool, arrays: tuple[Any, ...]) -> Any:
    """Plant arrays with None back in the places of what is missing, and what follows them."""
    head, rest = arrays[:4], list(arrays[4:])
    e = rest.pop(0) if with_e else None
    s = rest.pop(0) if with_s else None
    return (*head, e, s, *rest)


def replace_by_decimals(be: Backend, equation: Equation, p: RiccatiProblem, c: Candidate) -> Candidate:
    """The candidate in more digits, where these end in a stabilising solution; elsewhere the candidate as it is."""
    return _better(be, solve_in_decimals(be, equation, p), c)


def _better(be: Backend, found: DecimalSolution, c: Candidate) -> Candidate:
    xp = be.xp
    good = found.found & found.stable
    rounding = be.eps(c.x) * be.ones(c.x)
    # What is left of the equation at a rounded solution says nothing about it any more.
    return Candidate(
        xp.where(broadcast_scalar(good), found.x, c.x),
        xp.where(good, rounding, c.residual),
        xp.where(good, rounding, c.move),
        c.stable | good,
        c.steps + 1,
        c.sure | good,
        c.next,
    )


def outside_cone(be: Backend, p: RiccatiProblem, x: Array) -> Array:
    """Whether q and r force a solution to be positive semidefinite that is not."""
    outside = ~be.shared_function(positive, be, x, roundings=64)
    if not be.is_traced(outside) and not be.any_true(outside):
        return outside
    convex = be.shared_function(positive, be, p.q, roundings=1)
    if p.s is not None:
        # A cross term whose square is beyond q r makes the cost indefinite.
        convex = convex & positive(be, hermitian(p.q - p.s @ be.solve(p.r, adjoint(p.s))), 1)
    return outside & convex & be.xp.isfinite(norm(be, be.cholesky(p.r)))


def positive(be: Backend, x: Array, roundings: float) -> Array:
    """Whether x has a Cholesky factor, but for roundings of its norm; less than none are asked for in addition."""
    room = roundings * x.shape[-1] * be.eps(x) * norm(be, x)
    room = be.xp.where(room != 0, room, math.copysign(1.0, roundings) * be.ones(x))
    return be.xp.isfinite(norm(be, be.cholesky(x + broadcast_scalar(room) * eye(be, x))))
