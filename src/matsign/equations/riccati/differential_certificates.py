"""Errors of solutions of the differential Riccati equation.

The rate of change of x at the time t is that of xf, carried by the closed loop: rate(x) = fᴴ rate(xf) f, f from the states at
the time t to those at the end. For long horizons this is the algebraic equation rate(x) = 0.
"""

from __future__ import annotations

from typing import Any

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.public import Residual
from matsign.equations.riccati.differential_methods import rate, rate_terms, scaled_standard_form
from matsign.equations.riccati.march import Start, solve_horizon
from matsign.equations.riccati.perturbations import round_by_one, round_randomly
from matsign.equations.riccati.problem import RiccatiProblem
from matsign.linalg.stacks import adjoint, broadcast_scalar, hermitian, safe_divisor

# Where the horizon is cut in two to solve it again.
_CUT = 0.38196601125010515


def _backward_error(backend: Backend, p: RiccatiProblem, xf: Array, x: Array, start: Start) -> Array:
    """‖rate(x) - fᴴ rate(xf) f‖ relative to its terms."""
    simple = scaled_standard_form(backend, p)[0]
    x, xf = (start.units.apply(backend, hermitian(y)) for y in (x, xf))
    f = start.transition
    carried = adjoint(f) @ rate(simple, xf) @ f
    terms = rate_terms(backend, simple, x) + backend.norm(f) ** 2 * rate_terms(backend, simple, xf)
    return backend.norm(rate(simple, x) - carried) / safe_divisor(backend, terms)


def _in_two_parts(backend: Backend, p: RiccatiProblem, xf: Array, t: Array) -> Array:
    """x of coefficients with a random rounding, by another division of the time."""
    p = round_randomly(backend, p)
    middle = solve_horizon(backend, p, hermitian(round_by_one(backend, xf, 6)), _CUT * t)
    middle_x = middle.units.restore(backend, middle.x)
    start = solve_horizon(backend, p, middle_x, t - _CUT * t)
    return start.units.restore(backend, start.x)


def horizon_errors(backend: Backend, x: Array, p: RiccatiProblem, xf: Array, t: Any) -> Residual:
    """The residual of the identity above, and the change of x by rounded coefficients and another division of the time."""
    p, xf, t = p._replace(q=hermitian(p.q), r=hermitian(p.r)), hermitian(xf), t * backend.ones(p.a)
    start = solve_horizon(backend, p, xf, t)
    backward = _backward_error(backend, p, xf, x, start)
    size = backend.xp.abs
    rounding = backend.eps(x) * (1 + backend.astype(start.horizon.counts, backend.dtype_name(x.real)))
    change = size(_in_two_parts(backend, p, xf, t) - x) + broadcast_scalar(rounding) * size(x)
    change = backend.xp.where(backend.xp.isfinite(change), change, backend.xp.inf)
    return Residual(backward, (change,))
