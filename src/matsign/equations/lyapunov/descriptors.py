"""Solvers for stacks of Lyapunov and Stein equations with a descriptor e (`equations.lyapunov.descriptor_equations`).

By one linear system for few unknowns, or by a sum by doubling, corrected with the residual of the original equation. Members for
which these do not reach working precision are solved by Schur forms on the CPU (`direct.descriptor_lyapunov`). method="newton" is
the sign iteration of Benner & Quintana-Ortí (1999).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from matsign._typing import Array
from matsign.backends import Backend, load
from matsign.core import scaling
from matsign.core.failures import Failure
from matsign.core.members import Solution, as_details, solution
from matsign.equations.lyapunov.descriptor_equations import (
    DescriptorEquation,
    Transform,
    cayley,
    equilibrate,
    scale_equation,
)
from matsign.iterations import few_unknowns, shared_sums
from matsign.iterations.refinement import at_rounding, in_callers_units, refine_entries, relative_gap, total
from matsign.iterations.smith import smith
from matsign.linalg.double_word import from_double
from matsign.linalg.separation import ROUNDINGS, separation
from matsign.linalg.stacks import adjoint, broadcast_scalar, hermitian, is_hermitian, safe_divisor


class Attempt(NamedTuple):
    """x by an iteration, whether that converged, and whether x is reliable: at working precision, the equation surely regular."""

    x: Array
    converged: Array
    reliable: Array
    steps: Array


def solve_with_descriptor(
    backend: Backend, equation: DescriptorEquation, a: Array, q: Array, e: Array, method: str
) -> Solution:
    """x of a stack; Hermitian to the last bit where q is."""
    scaled = equilibrate(backend, equation, scale_equation(backend, equation, a, q, e))
    result = _METHODS[method](backend, equation, *scaled[:3])
    x = in_callers_units(
        backend,
        lambda gap, a, q, e: _METHODS[method](backend, equation, a, gap, e).value[0],
        lambda x, a, q, e: equation.terms(a, x, q, e),
        *(result.value[0], scaled.right, scaled.a, scaled.q, scaled.e),
    )
    x = refine_entries(
        backend,
        lambda gap, a, e, q: _METHODS[method](backend, equation, a, gap, e).value[0],
        lambda a, e, q, x: equation.terms(a, x, q, e),
        *(x, scaled.a, scaled.e, scaled.q),
    )
    x = backend.xp.where(broadcast_scalar(is_hermitian(q)), hermitian(x), x)
    return scaling.restore(backend, result._replace(value=(x,)), scaled.outer + scaled.scale)


def solve_gap(backend: Backend, equation: DescriptorEquation, a: Array, gap: Array, e: Array) -> Array:
    """x for a right-hand side gap, of an equation in units."""
    return _auto(backend, equation, a, gap, e).value[0]


# One linear system for all entries of x loses the digits of equations that are ill-conditioned by their rows alone. It is not
# taken if the separation is below this times the norm of the operator.
_WELL_CONDITIONED = 1e-4


def _auto(backend: Backend, equation: DescriptorEquation, a: Array, q: Array, e: Array) -> Solution:
    if few_unknowns.has_few_unknowns(backend, q):
        result = equation.by_system(backend, a, q, e)
        size, parts = equation.size(backend, a, e), equation.terms(a, result.x, q, e)
        reliable = few_unknowns.reliable(backend, result, size, *parts) & (result.least > _WELL_CONDITIONED * size)
        attempt = Attempt(result.x, reliable, reliable & ~equation.refuses(backend, e), 0 * backend.int_zeros(q))
    else:
        attempt = by_sum(backend, equation, a, q, e)
    return backend.rare_cond(
        ~attempt.reliable,
        lambda a, q, e, *_: _by_schur(backend, equation, a, q, e),
        lambda a, q, e, x, steps: solution(backend, (x,), iterations=steps),
        *(a, q, e, attempt.x, attempt.steps),
    )


def by_sum(backend: Backend, equation: DescriptorEquation, a: Array, q: Array, e: Array) -> Attempt:
    """x by a sum, corrected once where its residual is above rounding.

    A residual at rounding is not corrected: where e is ill-conditioned, the correction for rounding errors may exceed the error.
    """
    if backend.on_cpu(a) and not backend.is_traced(a) and a.shape[-1] > shared_sums.SMALL:
        if a.ndim == 2:
            one = _member_by_sum(load("numpy"), equation, a[None], q[None], e[None])
            return Attempt(*(x[0] for x in one))
        members = [slice(k, k + 1) for k in range(len(a))]
        parts = [_member_by_sum(backend, equation, a[k], q[k], e[k]) for k in members]
        return Attempt(*(backend.xp.concat(x) for x in zip(*parts, strict=True)))

    def solve(q: Array, t: Transform) -> Any:
        return smith(backend, q, lambda: (t.c, t.right_side(backend, q)))

    t = equation.transform(backend, a, e)
    right = t.right_side(backend, q)
    sums = smith(backend, q, lambda: (t.c, right))

    def correct(x: Array, a: Array, q: Array, e: Array, *t: Array) -> Array:
        return x + solve(total(equation.terms(a, x, q, e)), Transform(*t)).x

    x = backend.masked_cond(
        at_rounding(backend, equation.terms, a, sums.x, q, e), lambda x, *_: x, correct, sums.x, a, q, e, *t
    )
    if not backend.is_traced(a):
        x = _refine(backend, equation, t, sums.growth, x, a, q, e)
    reliable = sums.converged & surely_regular(backend, t, sums.growth, sums.x, right)
    reliable = reliable & at_rounding(backend, equation.terms, a, x, q, e) & ~equation.refuses(backend, e)
    return Attempt(x, sums.converged, reliable, sums.steps)


# x is corrected by exact residuals where a bound on its relative error exceeds this times eps, and at most this often.
_IMPRECISE, _CORRECTIONS = 1e5, 2


def _refine(
    backend: Backend, equation: DescriptorEquation, t: Transform, growth: Array, x: Array, a: Array, q: Array, e: Array
) -> Array:
    """x of ill-conditioned members corrected by residuals in double-word arithmetic, if the corrections decrease fast."""

    def solve(gap: Array, t: Transform) -> Array:
        solved: Array = smith(backend, gap, lambda: (t.c, t.right_side(backend, gap))).x
        return solved

    def correct(x: Array, a: Array, q: Array, e: Array, *t: Array) -> Array:
        start, before, good = x, backend.norm(x), backend.norm(x) >= 0
        for _ in range(_CORRECTIONS):
            wide = (from_double(y) for y in (a, x, q, e))
            step = solve(equation.exact_gap(backend, *wide).high, Transform(*t))
            size = backend.norm(step)
            good = good & (size <= before / 4)
            x, before = x + step, size
        return backend.xp.where(broadcast_scalar(good), x, start)

    precise = ~(growth * t.rounding > _IMPRECISE)
    return backend.masked_cond(precise, lambda x, *_: x, correct, x, a, q, e, *t)


def _member_by_sum(backend: Backend, equation: DescriptorEquation, a: Array, q: Array, e: Array) -> Attempt:
    """`by_sum` of one large member, which keeps the powers of c: a correction then costs two products a step."""
    t = equation.transform(backend, a, e)
    sums = power_sums(backend, t)
    right = t.right_side(backend, q)
    symmetric = backend.all_true(is_hermitian(q))
    terms = equation.symmetric_terms if symmetric else equation.terms

    def solve(right: Array) -> Array:
        x = sums.solve(backend, right)
        return hermitian(x) if symmetric else x

    x = solve(right)
    reliable = member_is_regular(backend, t, sums, x, right) & ~equation.refuses(backend, e)
    if backend.all_true(reliable):
        accurate = at_rounding(backend, terms, a, x, q, e)
        if not backend.all_true(accurate):
            x = x + solve(t.right_side(backend, total(terms(a, x, q, e))))
            accurate = at_rounding(backend, terms, a, x, q, e)
        reliable = accurate
    return Attempt(x, backend.xp.isfinite(sums.growth), reliable, backend.int_zeros(q) + len(sums.left))


# The most powers of c that are stored for a large member; with more steps Schur vectors cost less.
_MOST_POWERS = 24


def power_sums(backend: Backend, t: Transform) -> shared_sums.PowerSums:
    """x - c x cᴴ = q of one large member for several q."""
    return shared_sums.congruence_sums(backend, t.c, None, broadcast_scalar(backend.ones(t.c)), _MOST_POWERS)


def member_is_regular(backend: Backend, t: Transform, sums: shared_sums.PowerSums, x: Array, right: Array) -> Array:
    """`surely_regular` of one large member; where the bound does not tell, power iteration with the sum estimates the norm."""
    converged = backend.xp.isfinite(sums.growth)
    surely = converged & surely_regular(backend, t, sums.growth, x, right)
    if backend.all_true(surely | ~converged):
        return surely
    one = converged & surely_regular(backend, t, 0 * sums.growth, x, right)
    least = separation(
        backend, lambda y: sums.solve(backend, y), lambda y: sums.adjoint_solve(backend, y), x, steps=1
    ).value
    return one & (least > _MARGIN * ROUNDINGS * backend.eps(x) * t.rounding)


# How far above rounding an estimate of the separation by two steps of power iteration must be.
_MARGIN = 100


def surely_regular(backend: Backend, t: Transform, growth: Array, x: Array, right: Array) -> Array:
    """Whether rounding errors in a and e surely change the x for a transformed right-hand side by less than a hundredth.

    `growth` is a bound on the inverse of the transformed operator.
    """
    limit = ROUNDINGS * backend.eps(x) * t.rounding
    return (growth * limit < 0.01) & (backend.norm(x) * limit < safe_divisor(backend, backend.norm(right)))


def _by_schur(backend: Backend, equation: DescriptorEquation, a: Array, q: Array, e: Array) -> Solution:
    value, failure, detail = backend.host_callback(
        equation.by_schur, (q, backend.int_zeros(q), backend.ones(q)), a, q, e
    )
    return solution(backend, (value,))._replace(failure=failure, detail=as_details(backend, q, detail))


def _by_doubling(backend: Backend, equation: DescriptorEquation, a: Array, q: Array, e: Array) -> Solution:
    """The sum; Schur forms only tell whether the equation is singular, where it failed or is uncertain."""
    return _classify(backend, equation, by_sum(backend, equation, a, q, e), a, q, e)


def _by_newton(backend: Backend, equation: DescriptorEquation, a: Array, q: Array, e: Array) -> Solution:
    """The sign iteration of Benner & Quintana-Ortí (1999), corrected with the residual where it is above rounding."""
    side = broadcast_scalar(cayley(backend, a, e).side)

    def solve(a: Array, q: Array, e: Array, side: Array) -> tuple[Array, Array, Array]:
        return _sign_iteration(backend, side * a, side * q, e)

    def correct(x: Array, *arrays: Array) -> Array:
        a, q, e, side = arrays
        return x + solve(a, total(equation.terms(a, x, q, e)), e, side)[0]

    x, converged, steps = solve(a, q, e, side)
    for _ in range(2):
        accurate = at_rounding(backend, equation.terms, a, x, q, e)
        x = backend.masked_cond(accurate, lambda x, *_: x, correct, x, a, q, e, side)
    attempt = by_sum(backend, equation, a, q, e)  # tells whether the equation is surely not singular
    return _classify(backend, equation, attempt._replace(x=x, converged=converged, steps=steps), a, q, e)


def _sign_iteration(backend: Backend, a: Array, q: Array, e: Array) -> tuple[Array, Array, Array]:
    """(x, whether it converged, steps) for a pencil with its spectrum in the left half plane.

    A step is a ← ½(a/s + s e a⁻¹ e), q ← ½(q/s + s e a⁻¹ q a⁻ᴴ eᴴ); a converges to -e, and q to -2 e x eᴴ. The scaling
    s = (|det a| / |det e|)^(1/n) speeds up the first steps. The iteration stops when a change is so small that the next one is
    below rounding, or when changes no longer decrease.
    """
    n, enough = a.shape[-1], math.sqrt(backend.eps(q)) / 10

    def step(state: Any) -> Any:
        a, q, e, of_e, before, steps = state
        s = backend.xp.exp((backend.log_determinant(a) - of_e) / n)
        s = broadcast_scalar(backend.xp.where(before < 0.1, backend.ones(a), s))
        u = adjoint(backend.solve(adjoint(a), adjoint(e)))
        new, q = (a / s + s * (u @ e)) / 2, (q / s + s * (u @ q @ adjoint(u))) / 2
        gap = backend.norm(new - a) / safe_divisor(backend, backend.norm(new))
        active = (gap > enough) & ((gap > 0.1) | (gap < before / 2))
        return (new, q, e, of_e, gap, steps + 1), active

    one = backend.ones(q)
    start = a, q, e, backend.log_determinant(e), 10 * one, 0 * one
    limit = backend.loop(step, start, math.ceil(-math.log2(backend.eps(q))))
    half = adjoint(backend.solve(e, limit[1]))
    converged = backend.norm(limit[0] + e) < 0.01 * backend.norm(e)
    return -adjoint(backend.solve(e, half)) / 2, converged, limit[-1]


# The largest residual of an iteration that counts as converged: this times eps times the norm of the moduli of the terms.
_ACCURATE = 64


def _classify(
    backend: Backend, equation: DescriptorEquation, attempt: Attempt, a: Array, q: Array, e: Array
) -> Solution:
    accurate = relative_gap(backend, equation.terms, a, attempt.x, q, e) < _ACCURATE * backend.eps(q)
    failed = ~(attempt.converged & accurate)
    result = solution(backend, (attempt.x,), Failure.NOT_CONVERGED, failed, attempt.steps)
    failure, detail = backend.rare_cond(
        failed | ~attempt.reliable,
        lambda a, q, e, *_: _by_schur(backend, equation, a, q, e)[1::2],
        lambda a, q, e, *none: none,
        *(a, q, e, 0 * result.failure, 0 * result.detail),
    )
    failure = backend.xp.where(failure > 0, failure, result.failure)
    return result._replace(failure=failure, detail=detail)


_METHODS = {"auto": _auto, "doubling": _by_doubling, "newton": _by_newton, "schur": _by_schur}
