"""Solvers for stacks of Lyapunov equations a x + x aᴴ = q and Stein equations a x aᴴ - d x + q = 0.

By one linear system for few unknowns, a sum by doubling, the sign iteration (Lyapunov), or Schur vectors.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.failures import Failure
from matsign.core.members import Solution, solution
from matsign.direct import bartels_stewart
from matsign.equations.lyapunov import descriptor_equations, descriptors
from matsign.iterations import few_unknowns, shared_sums
from matsign.iterations.newton import has_converged, lyapunov_by_sign
from matsign.iterations.refinement import (
    at_rounding,
    in_callers_units,
    relative_gap,
    total,
)
from matsign.iterations.separating_line import fields_of_values_separated
from matsign.iterations.smith import SmithSum, one_sided_lyapunov, smith
from matsign.linalg import balancing
from matsign.linalg.double_word import DoubleWord, dw_add, dw_adjoint, dw_neg, dw_product, times
from matsign.linalg.separation import ROUNDINGS, may_be_singular, spectral_norm
from matsign.linalg.stacks import (
    adjoint,
    all_false,
    broadcast_scalar,
    hermitian,
    inner,
    is_hermitian,
    norm,
    safe_divisor,
    trace,
)

METHODS = ("auto", "doubling", "newton", "schur")


# SciPy's names "direct" and "bilinear" of two other direct methods are accepted for "schur".
STEIN_METHODS = ("auto", "doubling", "schur", None, "direct", "bilinear")


def _exact_lyapunov_gap(backend: Backend, a: DoubleWord, x: DoubleWord, q: DoubleWord, d: Array) -> DoubleWord:
    left = dw_product(backend, a, x)
    right = backend.masked_cond(
        is_hermitian(x.high),
        lambda a, x, left: dw_adjoint(left),
        lambda a, x, left: dw_product(backend, x, dw_adjoint(a)),
        *(a, x, left),
    )
    return dw_add(q, dw_neg(dw_add(left, right)))


def _exact_stein_gap(backend: Backend, a: DoubleWord, x: DoubleWord, q: DoubleWord, d: Array) -> DoubleWord:
    return dw_add(
        dw_add(dw_product(backend, dw_product(backend, a, x), dw_adjoint(a)), times(-broadcast_scalar(d), x)), q
    )


class ScaledEquation(NamedTuple):
    """An equation with entries near 1, in units that balance a.

    The caller's x is 2^(outer + scale) times this x, the caller's operator 2^size times this one; outer None means 0.
    """

    a: Array
    q: Array
    d: Array
    outer: Array | None
    scale: Array
    size: Array


def scale_lyapunov(backend: Backend, a: Array, q: Array) -> ScaledEquation:
    e, a, k = scaling.balance_together(backend, a)
    outer = None if e is None else e[..., :, None] + e[..., None, :]
    q, scale = scaling.scale_right_side(backend, q, outer)
    return ScaledEquation(a, q, backend.ones(q), outer, broadcast_scalar(scale - k), k)


def scale_stein(backend: Backend, a: Array, q: Array) -> ScaledEquation:
    """If a has entries above 1, divide the equation by 2^2k, so that 2^-k a has none and d = 2^-2k."""
    e, a, k = scaling.balance_together(backend, a)
    above = backend.xp.maximum(k, 0 * k)
    a = backend.ldexp(a, broadcast_scalar(k - above))
    outer = None if e is None else e[..., :, None] + e[..., None, :]
    q, scale = scaling.scale_right_side(backend, q, outer)
    return ScaledEquation(
        a, q, backend.ldexp(backend.ones(q), -2 * above), outer, broadcast_scalar(scale - 2 * above), 2 * above
    )


class Equation(NamedTuple):
    """The Lyapunov or the Stein equation. d is the scale factor of `scale_stein` in a x aᴴ - d x + q = 0, else unused."""

    scale: Callable[[Backend, Array, Array], ScaledEquation]
    terms: Callable[..., Arrays]  # (a, x, q, d): terms whose sum is 0 for the solution
    exact_gap: Callable[
        [Backend, DoubleWord, DoubleWord, DoubleWord, Array], DoubleWord
    ]  # (a, x, q, d): the sum of the terms in double-word arithmetic
    differential: Callable[..., Array]  # (a, x, da): the first-order change of that sum
    size: Callable[..., Array]  # (backend, a, d, norm): a bound on the norm of the operator
    mixed: Callable[[Backend, Array], Array]  # members for which a sum is unlikely to converge
    by_system: Callable[..., few_unknowns.SystemSolution]  # (backend, a, q, d, symmetric=)
    by_sum: Callable[[Backend, Array, Array, Array], SmithSum]
    sums: Callable[[Backend, Array, Array], shared_sums.PowerSums]  # for several right-hand sides
    by_schur: Callable[..., tuple[Array, Array]]
    responses: Callable[..., tuple[Array, Array]]
    singular: Failure
    gramian_sign: int  # x is the Gramian of (a, b) for q = b bᴴ times this


def _looks_mixed(backend: Backend, a: Array) -> Array:
    """Whether the spectrum probably has real parts of both signs: (Σ Re λ)² small relative to Σ (Re λ)².

    For numbers of one sign (Σ r)² ≥ Σ r². For a normal matrix Σ (Re λ)² = ‖Hermitian part‖², for others it is less, so the
    test has a factor below 1.
    """
    n = a.shape[-1]
    scatter = (inner(backend, a, a) + inner(backend, adjoint(a), a)) / 2
    mean = trace(backend, a).real
    return mean * mean < min(0.2, 4 / n) * scatter


LYAPUNOV_EQUATION = Equation(
    scale_lyapunov,
    lambda a, x, q, d: (q, -(a @ x), -(x @ adjoint(a))),
    _exact_lyapunov_gap,
    lambda a, x, da: -(da @ x) - x @ adjoint(da),
    lambda backend, a, d, norm: 2 * norm(backend, a),
    _looks_mixed,
    lambda backend, a, q, d, symmetric: few_unknowns.lyapunov(backend, a, q, symmetric=symmetric),
    lambda backend, a, q, d: one_sided_lyapunov(backend, a, q),
    lambda backend, a, d: shared_sums.lyapunov(backend, a),
    bartels_stewart.lyapunov,
    bartels_stewart.lyapunov_responses,
    Failure.COMMON_EIGENVALUE,
    -1,
)


def _stein_by_sum(backend: Backend, a: Array, q: Array, d: Array) -> SmithSum:
    """The sum over the powers of a/√d, or over those of its inverse if |det(a/√d)| > 1, when the first cannot converge."""
    logarithm = backend.xp.log(d)  # the caller's a is a / √d

    def outside(a: Array, q: Array, d: Array) -> SmithSum:
        inverse = backend.inv(a)
        powers = broadcast_scalar(backend.xp.sqrt(d)) * inverse
        power_sum = smith(backend, q, lambda: (powers, -(inverse @ q @ adjoint(inverse))))
        size = norm(backend, inverse)
        return power_sum._replace(growth=power_sum.growth * (size * size))

    def inside(a: Array, q: Array, d: Array) -> SmithSum:
        power_sum = smith(backend, q, lambda: (a / broadcast_scalar(backend.xp.sqrt(d)), q / broadcast_scalar(d)))
        return power_sum._replace(growth=power_sum.growth / d)

    if backend.products_only(a):  # without a determinant only the first
        return inside(a, q, d)
    return backend.rare_cond(backend.log_determinant(a) > a.shape[-1] * logarithm / 2, outside, inside, a, q, d)


STEIN_EQUATION = Equation(
    scale_stein,
    lambda a, x, q, d: (q, a @ x @ adjoint(a), -(broadcast_scalar(d) * x)),
    _exact_stein_gap,
    lambda a, x, da: da @ x @ adjoint(a) + a @ x @ adjoint(da),
    lambda backend, a, d, norm: norm(backend, a) * norm(backend, a) + d,
    lambda backend, a: all_false(backend, a),
    few_unknowns.stein,
    _stein_by_sum,
    shared_sums.stein,
    bartels_stewart.stein,
    bartels_stewart.stein_responses,
    Failure.RECIPROCAL_EIGENVALUES,
    1,
)


def lyapunov(backend: Backend, a: Array, q: Array, e: Array | None = None, *, method: str) -> Solution:
    """x of a stack with a x + x aᴴ = q, or a x eᴴ + e x aᴴ = q."""
    if e is not None:
        return descriptors.solve_with_descriptor(backend, descriptor_equations.LYAPUNOV_EQUATION, a, q, e, method)
    return _solve(backend, LYAPUNOV_EQUATION, a, q, method)


def stein(backend: Backend, a: Array, q: Array, e: Array | None = None, *, method: str | None) -> Solution:
    """x of a stack with a x aᴴ - x + q = 0, or a x aᴴ - e x eᴴ + q = 0."""
    method = {"auto": "auto", None: "auto", "doubling": "doubling"}.get(method, "schur")
    if e is not None:
        return descriptors.solve_with_descriptor(backend, descriptor_equations.STEIN_EQUATION, a, q, e, method)
    return _solve(backend, STEIN_EQUATION, a, q, method)


def _solve(backend: Backend, equation: Equation, a: Array, q: Array, method: str) -> Solution:
    """x of a stack: "auto" takes one linear system for few unknowns, counted with symmetry where q is Hermitian."""

    def general(a: Array, q: Array, symmetric: Array) -> Solution:
        return _solve_scaled(backend, equation, a, q, symmetric, method)

    def small(a: Array, q: Array, symmetric: Array, *, symmetric_unknowns: bool) -> Solution:
        return _by_linear_system(backend, equation, general, a, q, symmetric, symmetric_unknowns)

    symmetric = is_hermitian(q)
    without_symmetry = (
        functools.partial(small, symmetric_unknowns=False)
        if method == "auto" and few_unknowns.has_few_unknowns(backend, q)
        else general
    )
    if method != "auto" or backend.is_complex(q) or not few_unknowns.has_few_unknowns(backend, q, symmetric=True):
        return without_symmetry(a, q, symmetric)
    return backend.masked_cond(
        symmetric, functools.partial(small, symmetric_unknowns=True), without_symmetry, a, q, symmetric
    )


def _by_linear_system(
    backend: Backend,
    equation: Equation,
    general: Callable[..., Solution],
    a: Array,
    q: Array,
    symmetric: Array,
    symmetric_unknowns: bool,
) -> Solution:
    """x from one linear system in the caller's units; scaled, or by `general`, where a is unbalanced or x inaccurate."""
    x, acceptable = _linear_system(backend, equation, a, q, backend.ones(q), symmetric_unknowns)
    balanced = ~balancing.is_unbalanced(backend, a)

    def accept(a: Array, q: Array, symmetric: Array, x: Array, balanced: Array) -> Solution:
        return solution(backend, (x if symmetric_unknowns else _as_hermitian(backend, x, symmetric),))

    def solve_scaled_system(a: Array, q: Array, symmetric: Array) -> Solution:
        scaled = equation.scale(backend, a, q)
        x, acceptable = _linear_system(backend, equation, scaled.a, scaled.q, scaled.d, symmetric_unknowns)
        return backend.masked_cond(
            acceptable,
            lambda a, q, symmetric, x, e: _restore(backend, solution(backend, (x,)), symmetric, e),
            lambda a, q, symmetric, *_: general(a, q, symmetric),
            *(a, q, symmetric, x, scaled.scale),
        )

    def otherwise(a: Array, q: Array, symmetric: Array, x: Array, balanced: Array) -> Solution:
        return backend.masked_cond(balanced, solve_scaled_system, general, a, q, symmetric)

    return backend.masked_cond(acceptable & balanced, accept, otherwise, a, q, symmetric, x, balanced)


def _linear_system(
    backend: Backend, equation: Equation, a: Array, q: Array, d: Array, symmetric_unknowns: bool
) -> tuple[Array, Array]:
    """(x from one linear system for its entries, members where x is reliable)."""
    result = equation.by_system(backend, a, q, d, symmetric=symmetric_unknowns)
    size = equation.size(backend, a, d, norm)
    return result.x, few_unknowns.reliable(backend, result, size, *equation.terms(a, result.x, q, d))


def _restore(backend: Backend, result: Solution, symmetric: Array, e: Array) -> Solution:
    """The solution times 2^e, in the caller's units, exactly Hermitian where q is."""
    return scaling.restore(backend, result._replace(value=(_as_hermitian(backend, result.value[0], symmetric),)), e)


def _as_hermitian(backend: Backend, x: Array, symmetric: Array) -> Array:
    """x, replaced by its Hermitian part in the members marked `symmetric`."""
    sure = not backend.is_traced(x) and backend.all_true(symmetric)
    return hermitian(x) if sure else backend.xp.where(broadcast_scalar(symmetric), hermitian(x), x)


def _solve_scaled(backend: Backend, equation: Equation, a: Array, q: Array, symmetric: Array, method: str) -> Solution:
    scaled = equation.scale(backend, a, q)
    result = _by_method(backend, equation, scaled.a, scaled.q, scaled.d, method)
    x = in_callers_units(
        backend,
        lambda gap, a, q, d: _by_method(backend, equation, a, gap, d, method).value[0],
        lambda x, a, q, d: equation.terms(a, x, q, d),
        *(result.value[0], scaled.outer, scaled.a, scaled.q, scaled.d),
    )
    return _restore(backend, result._replace(value=(x,)), symmetric, scaling.add_exponents(scaled.outer, scaled.scale))


def _by_method(backend: Backend, equation: Equation, a: Array, q: Array, d: Array, method: str | None) -> Solution:
    """Solve by `method`; "auto" takes the sum where it reaches working precision, Schur vectors for the other members."""
    if method == "schur":
        return _by_schur(backend, equation, a, q, d)
    if method == "newton":
        return _by_newton(backend, equation, a, q, d)
    if method == "doubling":
        return _by_doubling(backend, equation, a, q, d)
    if backend.is_traced(a) or not backend.on_cpu(a):
        return sum_or_schur(backend, equation, a, q, d)
    return backend.masked_cond(
        equation.mixed(backend, a),
        lambda a, q, d: _by_schur(backend, equation, a, q, d),
        lambda a, q, d: sum_or_schur(backend, equation, a, q, d),
        *(a, q, d),
    )


def sum_or_schur(backend: Backend, equation: Equation, a: Array, q: Array, d: Array) -> Solution:
    """The sum; Schur vectors for members where it diverged, left a large residual, or the equation may be singular."""
    power_sum = equation.by_sum(backend, a, q, d)
    acceptable = power_sum.converged & at_rounding(backend, equation.terms, a, power_sum.x, q, d)
    acceptable = acceptable & ~_may_be_singular(backend, equation, a, q, d, power_sum.x, 1 / power_sum.growth)
    x = _correct(backend, equation, acceptable & (power_sum.steps > _SLOW_STEPS), power_sum.x, a, q, d)
    return backend.rare_cond(
        ~acceptable,
        lambda a, q, d, *_: _by_schur(backend, equation, a, q, d),
        lambda a, q, d, x, steps: solution(backend, (x,), iterations=steps),
        *(a, q, d, x, power_sum.steps),
    )


# A sum that takes more steps is corrected once: its error may be far above its residual.
_SLOW_STEPS = 12


def _correct(backend: Backend, equation: Equation, mask: Array, x: Array, a: Array, q: Array, d: Array) -> Array:
    """One correction of x in the members of `mask`: small decoupled blocks of x become accurate relative to their own size."""

    def correct(x: Array, a: Array, q: Array, d: Array) -> Array:
        return x + equation.by_sum(backend, a, total(equation.terms(a, x, q, d)), d).x

    return backend.rare_cond(mask, correct, lambda x, *_: x, x, a, q, d)


def _may_be_singular(
    backend: Backend, equation: Equation, a: Array, q: Array, d: Array, x: Array, least: Array
) -> Array:
    """Whether the equation may be singular: the bound `least` on its separation is near rounding, or x is very large."""
    limit = ROUNDINGS * backend.eps(a) * equation.size(backend, a, d, norm)
    return may_be_singular(backend, least, q, limit) | ~(
        norm(backend, x) * limit < safe_divisor(backend, norm(backend, q))
    )


def _by_schur(backend: Backend, equation: Equation, a: Array, q: Array, d: Array) -> Solution:
    value, failure = backend.host_callback(equation.by_schur, (q, backend.int_zeros(q)), a, q, d)
    return solution(backend, (value,))._replace(failure=failure)


def _by_doubling(backend: Backend, equation: Equation, a: Array, q: Array, d: Array) -> Solution:
    """The sum by doubling, without Schur vectors for members where it fails."""
    power_sum = equation.by_sum(backend, a, q, d)
    failed = ~(
        power_sum.converged & (relative_gap(backend, equation.terms, a, power_sum.x, q, d) < backend.eps(q) ** 0.75)
    )
    result = solution(backend, (power_sum.x,), Failure.NOT_CONVERGED, failed, power_sum.steps)
    return _classify(
        backend, equation, a, d, result, _may_be_singular(backend, equation, a, q, d, power_sum.x, 1 / power_sum.growth)
    )


def _by_newton(backend: Backend, equation: Equation, a: Array, q: Array, d: Array) -> Solution:
    """x from the sign of [[a, -q], [0, -aᴴ]], whose (1, 2) block is 2x for a stable a and -2x for a stable -a."""
    iterate, x = lyapunov_by_sign(backend, a, q)
    mean = trace(backend, iterate.value.a).real / a.shape[-1]
    x = broadcast_scalar(-mean) * x
    one_side = has_converged(backend, iterate) & (backend.xp.abs(backend.xp.abs(mean) - 1) * a.shape[-1] < 0.1)
    failed = ~(one_side & (relative_gap(backend, equation.terms, a, x, q, d) < backend.eps(q) ** 0.75))
    # If the field of values of a lies on one side of the axis, the equation is not singular.
    distance = 2 * math.sqrt(backend.eps(a)) * norm(backend, a)
    certainly_regular = fields_of_values_separated(
        backend, broadcast_scalar(backend.xp.where(mean < 0, -backend.ones(a), backend.ones(a))) * a, distance
    )
    return _classify(
        backend, equation, a, d, solution(backend, (x,), Failure.NO_LINE, failed, iterate.steps), ~certainly_regular
    )


def _classify(backend: Backend, equation: Equation, a: Array, d: Array, result: Solution, uncertain: Array) -> Solution:
    """`result`; the Schur form decides whether the equation is singular, for members that failed or are uncertain."""

    def may_be_singular_by_schur(a: Array, d: Array) -> Array:
        least = backend.host_callback(
            equation.responses, (a[:, None][:, :0], backend.ones(a)), a, a[:, None][:, :0], d
        )[1]
        return ~(least > ROUNDINGS * backend.eps(a) * equation.size(backend, a, d, spectral_norm))

    singular = backend.rare_cond(
        uncertain | (result.failure > 0), may_be_singular_by_schur, lambda a, d: all_false(backend, a), a, d
    )
    return result._replace(
        failure=backend.xp.where(singular, int(equation.singular) + 0 * result.failure, result.failure)
    )
