"""Solvers for stacks of discrete Sylvester equations a x b - d x + q = 0, by one linear system for few unknowns, by a sum by
doubling, or by Schur vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.failures import Failure
from matsign.core.members import Solution, as_details, solution
from matsign.direct import generalized_schur
from matsign.iterations import few_unknowns
from matsign.iterations.refinement import at_rounding, in_callers_units, relative_gap, total
from matsign.iterations.smith import SmithSum, two_sided_stein
from matsign.linalg import balancing
from matsign.linalg.separation import ROUNDINGS, may_be_singular
from matsign.linalg.stacks import broadcast_scalar, broadcast_to_rank, safe_divisor

METHODS = ("auto", "doubling", "schur")
# A sum that takes more steps is corrected once: its error may be far above its residual.
_SLOW_STEPS = 13


class ScaledEquation(NamedTuple):
    """a x b - d x + q = 0 with entries of at most 1, in units that balance a and b.

    The caller's x is 2^(outer + scale) times this x, the caller's operator 2^size times this one; outer None means 0.
    """

    a: Array
    b: Array
    q: Array
    d: Array
    outer: Array | None
    scale: Array
    size: Array


def scale_discrete(backend: Backend, a: Array, b: Array, q: Array) -> ScaledEquation:
    """If the entries of a times those of b are above 1, divide the equation by a power of 2, so that d is below 1."""
    e, a, k = scaling.balance_together(backend, a)
    f, b, h = scaling.balance_together(backend, b)
    outer = None
    if e is not None or f is not None:
        outer = 0 * backend.exponent(q.real)
        outer = outer if e is None else outer + e[..., :, None]
        outer = outer if f is None else outer - f[..., None, :]
    above = backend.xp.maximum(k + h, 0 * k)
    a = backend.ldexp(a, broadcast_scalar(k + h - above))
    q, scale = scaling.scale_right_side(backend, q, outer)
    d = backend.ldexp(backend.ones(q), -above)
    return ScaledEquation(a, b, q, d, outer, broadcast_scalar(scale - above), above)


def terms(a: Array, b: Array, q: Array, d: Array, x: Array) -> Arrays:
    """The terms, which add up to zero for the solution."""
    return q, (a @ x) @ b, -(broadcast_scalar(d) * x)


def operator_size(backend: Backend, a: Array, b: Array, d: Array) -> Array:
    """A bound on the norm of x ↦ a x b - d x."""
    return backend.norm(a) * backend.norm(b) + d


def discrete_sylvester(backend: Backend, a: Array, b: Array, q: Array, *, method: str) -> Solution:
    """x of a stack by `method`; what "auto" takes depends on the sizes, the device and the member, not on other members."""
    if method != "auto" or backend.name != "numpy":
        return _solve_scaled(backend, a, b, q, method)
    # Scaling takes as long as solving a small equation, and most equations need none.
    attempt = _attempt(backend, a, b, q)
    balanced = ~(balancing.is_unbalanced(backend, a) | balancing.is_unbalanced(backend, b))

    def otherwise(a: Array, b: Array, q: Array, x: Array, steps: Array, diverged: Array) -> Solution:
        return backend.masked_cond(
            diverged,
            lambda a, b, q: _solve_scaled(backend, a, b, q, "schur"),
            lambda a, b, q: _solve_scaled(backend, a, b, q, "auto"),
            *(a, b, q),
        )

    return backend.masked_cond(
        attempt.reliable & balanced,
        lambda a, b, q, x, steps, diverged: solution(backend, (x,), iterations=steps),
        otherwise,
        *(a, b, q, attempt.x, attempt.steps, balanced & ~attempt.converged),
    )


def _solve_scaled(backend: Backend, a: Array, b: Array, q: Array, method: str) -> Solution:
    scaled = scale_discrete(backend, a, b, q)
    arrays = scaled.a, scaled.b, scaled.q, scaled.d
    solve = _METHODS[method]
    result = solve(backend, *arrays)
    x = in_callers_units(
        backend,
        lambda gap, a, b, q, d: solve(backend, a, b, gap, d).value[0],
        lambda x, a, b, q, d: terms(a, b, q, d, x),
        *(result.value[0], scaled.outer, *arrays),
    )
    size = backend.ldexp(backend.ones(q), scaled.size)
    result = result._replace(value=(x,), detail=result.detail * size[..., None])
    return scaling.restore(backend, result, scaling.add_exponents(scaled.outer, scaled.scale))


class _Attempt(NamedTuple):
    """x by one linear system for few unknowns, else by a sum, whether that converged and is reliable, and its steps."""

    x: Array
    converged: Array
    reliable: Array
    steps: Array


def _attempt(backend: Backend, a: Array, b: Array, q: Array) -> _Attempt:
    one = backend.ones(q)
    if few_unknowns.has_few_unknowns(backend, q):
        x, reliable = _linear_system(backend, a, b, q, one)
        return _Attempt(x, one > 0, reliable, 0 * one)
    sums = _corrected_sum(backend, a, b, q, one, _unscaled_sum)
    reliable = _reliable(backend, a, b, q, one, few_unknowns.SystemSolution(sums.x, 1 / sums.growth))
    return _Attempt(sums.x, sums.converged, sums.converged & reliable, sums.steps)


def _linear_system(backend: Backend, a: Array, b: Array, q: Array, d: Array) -> tuple[Array, Array]:
    """(x from one linear system for its entries, members where x is reliable)."""
    result = few_unknowns.discrete_sylvester(backend, a, b, q, d)
    return result.x, _reliable(backend, a, b, q, d, result)


def _reliable(backend: Backend, a: Array, b: Array, q: Array, d: Array, result: few_unknowns.SystemSolution) -> Array:
    return few_unknowns.reliable(backend, result, operator_size(backend, a, b, d), *terms(a, b, q, d, result.x))


def auto(backend: Backend, a: Array, b: Array, q: Array, d: Array) -> Solution:
    """One linear system for few unknowns; else the sum; Schur vectors where that is inaccurate."""
    if not few_unknowns.has_few_unknowns(backend, q):
        return _sum_or_schur(backend, a, b, q, d)
    x, reliable = _linear_system(backend, a, b, q, d)
    return backend.masked_cond(
        reliable,
        lambda a, b, q, d, x: solution(backend, (x,)),
        lambda a, b, q, d, x: by_schur(backend, a, b, q, d),
        *(a, b, q, d, x),
    )


def by_sum(backend: Backend, a: Array, b: Array, rights: Array, d: Array) -> SmithSum:
    """x with d x - a x b = rights for right-hand sides (B, k, n, m), as a sum."""
    # d = 2^-k as a product of two powers of 2: dividing by them causes no rounding and no overflow.
    of_a = backend.ldexp(d / d, backend.exponent(d) // 2)
    of_b = d / of_a
    a, b = a / broadcast_scalar(of_a), b / broadcast_scalar(of_b)
    result = _unscaled_sum(backend, a, b, rights / broadcast_to_rank(d, rights))
    return result._replace(growth=result.growth / d)


def _unscaled_sum(backend: Backend, a: Array, b: Array, rights: Array, d: Array | None = None) -> SmithSum:
    """The same for d = 1: the sum of aᵏ q bᵏ, or where it diverges that with the inverses of a and b."""

    def outside(a: Array, b: Array, rights: Array, *_: Array) -> SmithSum:
        left, right = backend.inv(a), backend.inv(b)
        first = -((left[..., None, :, :] @ rights) @ right[..., None, :, :])
        result = two_sided_stein(backend, left, right, first)
        return result._replace(growth=result.growth * (backend.norm(left) * backend.norm(right)))

    result = two_sided_stein(backend, a, b, rights)
    result = backend.rare_cond(
        ~result.converged, outside, lambda a, b, rights, *inside: SmithSum(*inside), a, b, rights, *result
    )
    return result


def may_be_close_to_singular(
    backend: Backend, a: Array, b: Array, q: Array, d: Array, x: Array, growth: Array
) -> Array:
    """Whether the equation may be singular: the bound 1/growth on its separation is near rounding, or x is very large."""
    limit = ROUNDINGS * backend.eps(a) * operator_size(backend, a, b, d)
    large = ~(backend.norm(x) * limit < safe_divisor(backend, backend.norm(q)))
    return may_be_singular(backend, 1 / growth, q, limit) | large


def _corrected_sum(
    backend: Backend, a: Array, b: Array, q: Array, d: Array, by_sum: Callable[..., SmithSum] = by_sum
) -> SmithSum:
    """The sum for one right-hand side, corrected once if it took many steps."""
    sums = by_sum(backend, a, b, q[..., None, :, :], d)

    def correct(x: Array, a: Array, b: Array, q: Array, d: Array) -> Array:
        gap = total(terms(a, b, q, d, x))
        return x + by_sum(backend, a, b, gap[..., None, :, :], d).x[..., 0, :, :]

    slow = sums.converged & (sums.steps > _SLOW_STEPS)
    return sums._replace(x=backend.rare_cond(slow, correct, lambda x, *_: x, sums.x[..., 0, :, :], a, b, q, d))


def _sum_or_schur(backend: Backend, a: Array, b: Array, q: Array, d: Array) -> Solution:
    sums = _corrected_sum(backend, a, b, q, d)
    acceptable = sums.converged & ~may_be_close_to_singular(backend, a, b, q, d, sums.x, sums.growth)
    acceptable = acceptable & at_rounding(backend, terms, a, b, q, d, sums.x)
    return backend.rare_cond(
        ~acceptable,
        lambda a, b, q, d, *_: by_schur(backend, a, b, q, d),
        lambda a, b, q, d, x, steps: solution(backend, (x,), iterations=steps),
        *(a, b, q, d, sums.x, sums.steps),
    )


def by_schur(backend: Backend, a: Array, b: Array, q: Array, d: Array) -> Solution:
    value, failure, least = backend.host_callback(
        generalized_schur.discrete, (q, backend.int_zeros(q), backend.ones(q)), a, b, q, d
    )
    return solution(backend, (value,))._replace(failure=failure, detail=as_details(backend, q, least))


def _by_doubling(backend: Backend, a: Array, b: Array, q: Array, d: Array) -> Solution:
    """The sum; Schur vectors only tell whether the equation is singular, where the sum failed or is uncertain."""
    sums = by_sum(backend, a, b, q[..., None, :, :], d)
    x = sums.x[..., 0, :, :]
    failed = ~(sums.converged & (relative_gap(backend, terms, a, b, q, d, x) < backend.eps(q) ** 0.75))
    result = solution(backend, (x,), Failure.NOT_CONVERGED, failed, sums.steps)
    none = result.failure * 0, 0 * result.detail
    failure, detail = backend.rare_cond(
        failed | may_be_close_to_singular(backend, a, b, q, d, x, sums.growth),
        lambda a, b, q, d, *_: by_schur(backend, a, b, q, d)[1::2],
        lambda a, b, q, d, *none: none,
        *(a, b, q, d, *none),
    )
    singular = failure == int(Failure.RECIPROCAL_PAIR)
    return result._replace(failure=Failure.RECIPROCAL_PAIR.where(backend, singular, result.failure), detail=detail)


_METHODS = {"auto": auto, "doubling": _by_doubling, "schur": by_schur}
