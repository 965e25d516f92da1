"""Algebraic Riccati equations that working precision cannot solve: in double, or by `decimal_doubling` on the CPU."""

from __future__ import annotations

import functools
import math
from typing import Any

from matsign._typing import Array
from matsign.backends import Backend
from matsign.equations.riccati import decimal_doubling
from matsign.equations.riccati.decimal_doubling import DecimalSolution
from matsign.equations.riccati.newton_kleinman import Candidate, Equation, correct, is_acceptable, refine
from matsign.equations.riccati.problem import RiccatiProblem, standard_form, unpack, with_shift
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye, hermitian, to_double


def affordable(backend: Backend, x: Array, times: int = 1) -> bool:
    """Whether decimal arithmetic is possible `times` times: not for traced arrays, not for large plants."""
    return not backend.is_traced(x) and decimal_doubling.affordable(
        x.shape[-1], is_complex=backend.is_complex(x), times=times
    )


def solve_in_decimals(backend: Backend, equation: Equation, p: RiccatiProblem) -> DecimalSolution:
    """The solutions in decimal arithmetic; stabilising ones of plants in single precision in double, where that suffices."""
    if equation.stabilising is not None or not _has_double(backend, p):
        return _in_decimals(backend, equation, p)
    in_double = _in_double(backend, equation, p)
    return DecimalSolution(
        *backend.masked_cond(
            in_double.found,
            lambda p, in_double: in_double,
            lambda p, in_double: _in_decimals(backend, equation, p),
            p,
            in_double,
        )
    )


def replace_by_double(backend: Backend, equation: Equation, p: RiccatiProblem, c: Candidate) -> Candidate:
    """Candidates in single precision that are not proven, replaced by the solutions in double where these are reliable."""
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
            functools.partial(_host_solve, equation.discrete, equation.stabilising is not None, p.layout()),
            (p.q, p.a, p.b.mT, backend.int_zeros(p.a), backend.ones(p.a) > 0),
            *p.present(),
        )
    )


def _in_double(backend: Backend, equation: Equation, p: RiccatiProblem) -> DecimalSolution:
    """By doubling and Newton's method in double precision; `found` marks the members where that is accurate enough."""
    wide = RiccatiProblem(*(None if m is None else to_double(backend, m) for m in p))
    simple = standard_form(backend, wide, discrete=equation.discrete)
    x, steps = equation.doubling(backend, simple)
    c = refine(backend, equation, wide, correct(backend, equation, wide, with_shift(backend, simple, x), steps))
    at = equation.gap(backend, wide, c.x)
    x, closed, gain = (backend.astype(m, backend.dtype_name(p.a)) for m in (c.x, at.closed, at.gain))
    known = c.stable & c.sure & (c.move <= equation.trust * backend.eps(c.x)) & ~outside_cone(backend, wide, c.x)
    known = known & backend.xp.isfinite(backend.norm(x) + backend.norm(gain))
    return DecimalSolution(x, closed, gain, backend.xp.astype(steps, backend.xp.int32), known)


def _host_solve(discrete: bool, backwards: bool, layout: tuple[bool, ...], *arrays: Any) -> Any:
    return decimal_doubling.solve(discrete, backwards, *unpack(layout, arrays))


def replace_by_decimals(backend: Backend, equation: Equation, p: RiccatiProblem, c: Candidate) -> Candidate:
    """The solution in decimal arithmetic where it is stabilising, else the candidate unchanged."""
    return _better(backend, solve_in_decimals(backend, equation, p), c)


def _better(backend: Backend, replacement: DecimalSolution, c: Candidate) -> Candidate:
    xp = backend.xp
    accepted = replacement.found & replacement.stable
    rounding = backend.eps(c.x) * backend.ones(c.x)
    # The residual of the rounded solution may be large and says nothing about its error.
    return Candidate(
        xp.where(broadcast_scalar(accepted), replacement.x, c.x),
        xp.where(accepted, rounding, c.residual),
        xp.where(accepted, rounding, c.move),
        c.stable | accepted,
        c.steps + 1,
        c.sure | accepted,
        c.next,
    )


def outside_cone(backend: Backend, p: RiccatiProblem, x: Array) -> Array:
    """Whether x is not positive semidefinite although q and r, or q and g, require it."""
    outside = ~backend.shared_function(positive, backend, x, roundings=64)
    if not backend.is_traced(outside) and not backend.any_true(outside):
        return outside
    convex = backend.shared_function(positive, backend, p.q, roundings=1)
    if p.s is not None:
        # The cost is convex only if q - s r⁻¹ sᴴ ⪰ 0.
        convex = convex & positive(backend, hermitian(p.q - p.s @ backend.solve(p.r, adjoint(p.s))), 1)
    if p.r is None:
        return outside & convex & positive(backend, p.b, 1)
    return outside & convex & backend.xp.isfinite(backend.norm(backend.cholesky(p.r)))


def positive(backend: Backend, x: Array, roundings: float) -> Array:
    """Whether x + roundings · n eps ‖x‖ I has a Cholesky factor; negative `roundings` ask for more than definiteness."""
    shift = roundings * x.shape[-1] * backend.eps(x) * backend.norm(x)
    shift = backend.xp.where(shift != 0, shift, math.copysign(1.0, roundings) * backend.ones(x))
    return backend.xp.isfinite(backend.norm(backend.cholesky(x + broadcast_scalar(shift) * eye(backend, x))))
