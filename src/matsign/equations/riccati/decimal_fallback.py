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
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye, hermitian, to_double


def affordable(backend: Backend, x: Array, times: int = 1) -> bool:
    """Whether this can be asked for so many times: not under a trace, and not of large plants."""
    return not backend.is_traced(x) and decimal_doubling.affordable(
        x.shape[-1], is_complex=backend.is_complex(x), times=times
    )


def solve_in_decimals(backend: Backend, equation: Equation, p: RiccatiProblem) -> DecimalSolution:
    """The plants in as many digits as they need: those of single precision in double, where that is enough."""
    if not _has_double(backend, p):
        return _in_decimals(backend, equation, p)
    found = _in_double(backend, equation, p)
    return DecimalSolution(
        *backend.masked_cond(
            found.found, lambda p, found: found, lambda p, found: _in_decimals(backend, equation, p), p, found
        )
    )


def replace_by_double(backend: Backend, equation: Equation, p: RiccatiProblem, c: Candidate) -> Candidate:
    """The candidates of single precision that it leaves open in double, where that settles them."""
    if backend.is_traced(c.x) or not _has_double(backend, p):
        return c
    proven = is_acceptable(backend, c) & (c.move <= equation.trust * backend.eps(c.x))
    return backend.masked_cond(
        proven, lambda p, c: c, lambda p, c: _better(backend, _in_double(backend, equation, p), c), p, c
    )


def _has_double(backend: Backend, p: RiccatiProblem) -> bool:
    return p.s is None and backend.dtype_name(to_double(backend, p.a)) != backend.dtype_name(p.a)


def _in_decimals(backend: Backend, equation: Equation, p: RiccatiProblem) -> DecimalSolution:
    return DecimalSolution(
        *backend.host_callback(
            functools.partial(_host_solve, equation.discrete, p.e is not None, p.s is not None),
            (p.q, p.a, p.b.mT, backend.int_zeros(p.a), backend.ones(p.a) > 0),
            *(m for m in p if m is not None),
        )
    )


def _in_double(backend: Backend, equation: Equation, p: RiccatiProblem) -> DecimalSolution:
    """By doubling and Newton's method; not found are those that have no more than the digits asked for there, too."""
    wide = RiccatiProblem(*(None if m is None else to_double(backend, m) for m in p))
    simple = standard_form(backend, wide, discrete=equation.discrete)
    x, steps = equation.doubling(backend, simple)
    c = refine(backend, equation, wide, correct(backend, equation, wide, with_shift(backend, simple, x), steps))
    at = equation.gap(backend, wide, c.x)
    x, closed, gain = (backend.astype(m, backend.dtype_name(p.a)) for m in (c.x, at.closed, at.gain))
    known = c.stable & c.sure & (c.move <= equation.trust * backend.eps(c.x)) & ~outside_cone(backend, wide, c.x)
    known = known & backend.xp.isfinite(backend.norm(x) + backend.norm(gain))
    return DecimalSolution(x, closed, gain, backend.xp.astype(steps, backend.xp.int32), known)


def _host_solve(discrete: bool, with_e: bool, with_s: bool, *arrays: Any) -> Any:
    return decimal_doubling.solve(discrete, *unpack(with_e, with_s, arrays))


def unpack(with_e: bool, with_s: bool, arrays: tuple[Any, ...]) -> Any:
    """Plant arrays with None back in the places of what is missing, and what follows them."""
    head, rest = arrays[:4], list(arrays[4:])
    e = rest.pop(0) if with_e else None
    s = rest.pop(0) if with_s else None
    return (*head, e, s, *rest)


def replace_by_decimals(backend: Backend, equation: Equation, p: RiccatiProblem, c: Candidate) -> Candidate:
    """The candidate in more digits, where these end in a stabilising solution; elsewhere the candidate as it is."""
    return _better(backend, solve_in_decimals(backend, equation, p), c)


def _better(backend: Backend, found: DecimalSolution, c: Candidate) -> Candidate:
    xp = backend.xp
    good = found.found & found.stable
    rounding = backend.eps(c.x) * backend.ones(c.x)
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


def outside_cone(backend: Backend, p: RiccatiProblem, x: Array) -> Array:
    """Whether q and r force a solution to be positive semidefinite that is not."""
    outside = ~backend.shared_function(positive, backend, x, roundings=64)
    if not backend.is_traced(outside) and not backend.any_true(outside):
        return outside
    convex = backend.shared_function(positive, backend, p.q, roundings=1)
    if p.s is not None:
        # A cross term whose square is beyond q r makes the cost indefinite.
        convex = convex & positive(backend, hermitian(p.q - p.s @ backend.solve(p.r, adjoint(p.s))), 1)
    return outside & convex & backend.xp.isfinite(backend.norm(backend.cholesky(p.r)))


def positive(backend: Backend, x: Array, roundings: float) -> Array:
    """Whether x has a Cholesky factor, but for roundings of its norm; less than none are asked for in addition."""
    room = roundings * x.shape[-1] * backend.eps(x) * backend.norm(x)
    room = backend.xp.where(room != 0, room, math.copysign(1.0, roundings) * backend.ones(x))
    return backend.xp.isfinite(backend.norm(backend.cholesky(x + broadcast_scalar(room) * eye(backend, x))))
