"""Solvers for stacks of Sylvester equations a x + x b = q.

By one linear system for few unknowns, or by a sum by doubling if a vertical line separates the spectra of a and -b; else by
Schur vectors, divide and conquer, or eigenvectors.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.failures import Failure
from matsign.core.members import Solution, solution
from matsign.core.tolerances import working_precision
from matsign.direct import schur_functions
from matsign.equations.lyapunov.methods import lyapunov
from matsign.equations.sylvester import diagonalisation, divide_and_conquer
from matsign.iterations import few_unknowns, separating_line
from matsign.iterations.refinement import (
    RefinedSolution,
    at_rounding,
    in_callers_units,
    relative_gap,
    terms,
)
from matsign.linalg import balancing
from matsign.linalg.separation import rounding_separation
from matsign.linalg.stacks import adjoint, all_false, broadcast_scalar, plus_identity, scale_to_unit, trace

_LINE_TRIES = 4


def sylvester(backend: Backend, a: Array, b: Array, q: Array, *, method: str) -> Solution:
    """x of a stack by `method`; what "auto" takes depends on the sizes, the device and the member, not on other members."""
    if method == "auto" and few_unknowns.has_few_unknowns(backend, q):
        return _by_linear_system(backend, a, b, q)
    if method == "auto" and a.shape == b.shape and not backend.is_traced(q):
        # If b = aᴴ, one Cayley transform or one Schur form suffices.
        adjoint_pair = (b == adjoint(a)).all((-1, -2))
        return backend.masked_cond(
            adjoint_pair,
            lambda a, b, q: lyapunov(backend, a, q, method="auto"),
            lambda a, b, q: _sylvester(backend, a, b, q, method),
            *(a, b, q),
        )
    return _sylvester(backend, a, b, q, method)


def _by_linear_system(backend: Backend, a: Array, b: Array, q: Array) -> Solution:
    """x from one linear system in the caller's units; scaled, or by "auto", where a or b is unbalanced or x inaccurate."""
    x, acceptable = _linear_system(backend, a, b, q)
    balanced = ~(balancing.is_unbalanced(backend, a) | balancing.is_unbalanced(backend, b))

    def accept(a: Array, b: Array, q: Array, x: Array, balanced: Array) -> Solution:
        return solution(backend, (x,))

    def fallback(a: Array, b: Array, q: Array, x: Array, balanced: Array) -> Solution:
        return backend.masked_cond(
            balanced, functools.partial(_by_scaled_system, backend), functools.partial(_by_method, backend), a, b, q
        )

    return backend.masked_cond(acceptable & balanced, accept, fallback, a, b, q, x, balanced)


def _by_method(backend: Backend, a: Array, b: Array, q: Array) -> Solution:
    return _sylvester(backend, a, b, q, "auto")


def _by_scaled_system(backend: Backend, a: Array, b: Array, q: Array) -> Solution:
    """x from one linear system for the equation scaled to entries near 1; by "auto" where it is inaccurate."""
    a_near, b_near, size = scale_to_unit(backend, a, b)
    q_near, scale = scale_to_unit(backend, q)
    x, acceptable = _linear_system(backend, a_near, b_near, q_near)

    def accept(a: Array, b: Array, q: Array, x: Array, e: Array) -> Solution:
        return scaling.restore(backend, solution(backend, (x,)), broadcast_scalar(e))

    return backend.masked_cond(
        acceptable, accept, lambda a, b, q, *_: _by_method(backend, a, b, q), a, b, q, x, scale - size
    )


def _linear_system(backend: Backend, a: Array, b: Array, q: Array) -> tuple[Array, Array]:
    """(x from one linear system for its entries, members where x is reliable)."""
    result = few_unknowns.sylvester(backend, a, b, q)
    return result.x, few_unknowns.reliable(
        backend, result, backend.norm(a) + backend.norm(b), *terms(a, b, q, result.x)
    )


def _sylvester(backend: Backend, a: Array, b: Array, q: Array, method: str) -> Solution:
    scaled = scale_equation(backend, a, b, q)
    result = WAYS[method](backend, scaled.a, scaled.b, scaled.q)
    x = in_callers_units(
        backend,
        lambda gap, a, b, q: WAYS[method](backend, a, b, gap).value[0],
        lambda x, a, b, q: terms(a, b, q, x),
        *(result.value[0], scaled.outer, scaled.a, scaled.b, scaled.q),
    )
    return scaling.restore(backend, result._replace(value=(x,)), scaling.add_exponents(scaled.outer, scaled.scale))


class _ScaledEquation(NamedTuple):
    """An equation with entries near 1, in units that balance a and b.

    The caller's x is 2^(outer + scale) times this x, the caller's operator 2^size times this one; outer None means 0.
    """

    a: Array
    b: Array
    q: Array
    outer: Array | None
    scale: Array
    size: Array


def scale_equation(backend: Backend, a: Array, b: Array, q: Array) -> _ScaledEquation:
    """Scale and balance; if the means of the spectra of a and -b are close to each other but far from 0, shift both to 0."""
    e, f, a, b, size = scaling.balance_together(backend, a, b)
    outer = None if e is None else e[..., :, None] - f[..., None, :]
    q, scale_q = scaling.scale_right_side(backend, q, outer)
    mean_a, mean_b = trace(backend, a) / a.shape[-1], trace(backend, b) / b.shape[-1]
    shift = (mean_a - mean_b) / 2
    a, b = backend.rare_cond(
        backend.xp.abs(shift) > 8 * backend.xp.abs(mean_a + mean_b),
        lambda a, b, s: (
            plus_identity(backend, broadcast_scalar(-s), a),
            plus_identity(backend, broadcast_scalar(s), b),
        ),
        lambda a, b, s: (a, b),
        *(a, b, shift),
    )
    return _ScaledEquation(a, b, q, outer, broadcast_scalar(scale_q - size), size)


def auto(backend: Backend, a: Array, b: Array, q: Array) -> Solution:
    """The sum where a line is found; for other members Schur vectors on a CPU, else `_fallback`."""
    if backend.is_traced(q) or not backend.on_cpu(q):
        return _sum_or_fallback(backend, a, b, q, _fallback(backend, q))
    return backend.masked_cond(
        separating_line.likely_inseparable(backend, a, b),
        lambda a, b, q: by_schur(backend, a, b, q),
        lambda a, b, q: _sum_or_fallback(backend, a, b, q, by_schur),
        *(a, b, q),
    )


def _sum_or_fallback(backend: Backend, a: Array, b: Array, q: Array, fallback: Callable[..., Solution]) -> Solution:
    """The sum where a line is found and the result is at working precision; `fallback` for other members."""
    # The limit on steps is low: for a sum that converges slowly the fallback is faster.
    by_sum, uncertain = separating_line.solve_by_doubling(backend, a, b, q, 26)
    x = by_sum.x
    acceptable = by_sum.sound & ~uncertain & at_rounding(backend, terms, a, b, q, x)
    return backend.rare_cond(
        ~acceptable,
        lambda a, b, q, *_: fallback(backend, a, b, q),
        lambda a, b, q, x, k: solution(backend, (x,), iterations=k),
        *(a, b, q, x, by_sum.steps),
    )


def _fallback(backend: Backend, q: Array) -> Callable[..., Solution]:
    """The method for members without a sum where LAPACK is not available."""
    return _divide if divide_and_conquer.is_leaf(q) or backend.dynamic_shapes(q) else _eigenvectors


def _newton(backend: Backend, a: Array, b: Array, q: Array) -> Solution:
    """x by Newton's iteration on a separating line; where the equation may be singular, another method decides that."""
    line_search = separating_line.find_separating_line(backend, a, b, q, _LINE_TRIES, 0)
    none = backend.int_zeros(q)
    failed = ~(relative_gap(backend, terms, a, b, q, line_search.x) < backend.eps(q) ** 0.75)
    failure = Failure.NOT_CONVERGED.where(backend, failed, none)
    failure = backend.xp.where(line_search.sound, failure, none + int(Failure.NO_LINE))
    fallback = by_schur if backend.on_cpu(q) else _fallback(backend, q)
    singular = backend.rare_cond(
        separating_line.unproven_line(backend, line_search, a, b) | (failure > 0),
        lambda a, b, q, x: fallback(backend, a, b, q).failure == int(Failure.COMMON_EIGENVALUE),
        lambda a, b, q, x: all_false(backend, x),
        *(a, b, q, line_search.x),
    )
    failure = Failure.COMMON_EIGENVALUE.where(backend, singular, failure)
    return solution(backend, (line_search.x,), iterations=line_search.steps)._replace(failure=failure)


def by_schur(backend: Backend, a: Array, b: Array, q: Array) -> Solution:
    code = backend.int_zeros(q)
    value, failure = backend.host_callback(schur_functions.sylvester, (q, code), a, b, q)
    return solution(backend, (value,))._replace(failure=failure)


def _divide(backend: Backend, a: Array, b: Array, q: Array) -> Solution:
    return _classify(backend, divide_and_conquer.sylvester(backend, a, b, q), a, b)


def _eigenvectors(backend: Backend, a: Array, b: Array, q: Array) -> Solution:
    return _classify(backend, diagonalisation.sylvester(backend, a, b, q, working_precision(backend, q)), a, b)


def _classify(backend: Backend, result: RefinedSolution, a: Array, b: Array) -> Solution:
    """`result` with failures: an equation that is singular to within rounding, or a residual that stayed large."""
    xp, none = backend.xp, backend.int_zeros(result.x)
    # The tolerance must be close to rounding: with matrices perturbed by 1e-11, a singular equation has errors of 1e-12.
    failed = ~(result.error < 4 * working_precision(backend, result.x))
    failure = Failure.NOT_CONVERGED.where(backend, failed, none)
    separated = result.separation > rounding_separation(backend, a, b)
    return solution(backend, (result.x,))._replace(
        failure=xp.where(separated, failure, none + int(Failure.COMMON_EIGENVALUE))
    )


WAYS = {
    "auto": auto,
    "newton": _newton,
    "schur": by_schur,
    "divide": _divide,
    "eigenvectors": _eigenvectors,
}
