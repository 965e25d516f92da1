"""The Lyapunov equation a x + x aᴴ = q and the Stein equation a x aᴴ - x + q = 0.

Both come down to a sum of congruences. For a inside the unit circle the second is x = Σ aᵏ q (aᵏ)ᴴ; one step of doubling,
x ← x + c x cᴴ, c ← c², adds as many terms as there are (`iterations.smith`). The first becomes such a sum by a Cayley
transform of a, where squaring c is the Newton step for the sign of a; the block iteration itself
(`block_structures.Lyapunov`) is method="newton". A sum exists where the spectrum of a lies on one side of the axis or the circle.
What has no sum goes to Schur vectors.

Differential:  a dx + dx aᴴ = dq - da x - x daᴴ, and a dx aᴴ - dx = -(da x aᴴ + a x daᴴ + dq), the same equations again.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.failures import Failure
from matsign.core.operations import Arrays, Solution, apply, solution
from matsign.core.public import Residual, public_function
from matsign.direct import bartels_stewart
from matsign.iterations import few_unknowns, shared_sums
from matsign.iterations.newton import has_converged, lyapunov_by_sign
from matsign.iterations.refinement import (
    at_rounding,
    backward,
    correction,
    each_in_callers_units,
    in_callers_units,
    relative_gap,
    solve_weighed,
    total,
)
from matsign.iterations.separating_line import fields_of_values_separated
from matsign.iterations.smith import SmithSum, one_sided_lyapunov, smith
from matsign.linalg import balancing
from matsign.linalg.double_word import DoubleWord, dw_add, dw_adjoint, dw_neg, dw_product, from_double, times
from matsign.linalg.separation import ROUNDINGS, may_be_singular, separation, spectral_norm
from matsign.linalg.stacks import (
    adjoint,
    broadcast_scalar,
    hermitian,
    inner,
    is_hermitian,
    norm,
    random_probe,
    safe_divisor,
    scale_to_unit,
    trace,
)

Array = Any

_METHODS = ("auto", "doubling", "newton", "schur")
# "direct" and "bilinear" are SciPy's names of two direct methods; ours is a third.
_STEIN_METHODS = ("auto", "doubling", "schur", None, "direct", "bilinear")


def _exact_lyapunov_gap(be: Backend, a: DoubleWord, x: DoubleWord, q: DoubleWord, d: Array) -> DoubleWord:
    left = dw_product(be, a, x)
    right = be.masked_cond(
        is_hermitian(x.high),
        lambda a, x, left: dw_adjoint(left),
        lambda a, x, left: dw_product(be, x, dw_adjoint(a)),
        *(a, x, left),
    )
    return dw_add(q, dw_neg(dw_add(left, right)))


def _exact_stein_gap(be: Backend, a: DoubleWord, x: DoubleWord, q: DoubleWord, d: Array) -> DoubleWord:
    return dw_add(dw_add(dw_product(be, dw_product(be, a, x), dw_adjoint(a)), times(-broadcast_scalar(d), x)), q)


class _ScaledEquation(NamedTuple):
    """An equation near one in size and in units that balance a.

    The caller's x is 2^(scaling.plus(outer, scale)) times this one, the operator 2^size times.
    """

    a: Array
    q: Array
    d: Array
    outer: Array | None
    scale: Array
    size: Array


def _scale_lyapunov(be: Backend, a: Array, q: Array) -> _ScaledEquation:
    e, a, k = scaling.balance_together(be, a)
    outer = None if e is None else e[..., :, None] + e[..., None, :]
    q, scale = scaling.scale_right_side(be, q, outer)
    return _ScaledEquation(a, q, be.ones(q), outer, broadcast_scalar(scale - k), k)


def _scale_stein(be: Backend, a: Array, q: Array) -> _ScaledEquation:
    """An a above one in size is brought to it: 2^2k x solves the equation for 2^-k a with d = 2^-2k."""
    e, a, k = scaling.balance_together(be, a)
    above = be.xp.maximum(k, 0 * k)
    a = be.ldexp(a, broadcast_scalar(k - above))
    outer = None if e is None else e[..., :, None] + e[..., None, :]
    q, scale = scaling.scale_right_side(be, q, outer)
    return _ScaledEquation(
        a, q, be.ldexp(be.ones(q), -2 * above), outer, broadcast_scalar(scale - 2 * above), 2 * above
    )


class _Equation(NamedTuple):
    """What tells the two equations apart. d belongs to the second, a x aᴴ - d x + q = 0, for an a that was brought to size."""

    posed: Callable[[Backend, Array, Array], _ScaledEquation]
    terms: Callable[..., Arrays]  # (a, x, q, d): what should add up to zero
    exact_gap: Callable[
        [Backend, DoubleWord, DoubleWord, DoubleWord, Array], DoubleWord
    ]  # (a, x, q, d): their sum in twice the precision
    moved: Callable[..., Array]  # (a, x, da): how a change of a moves it
    size: Callable[..., Array]  # (be, a, d, norm): of the operator
    mixed: Callable[[Backend, Array], Array]  # where a sum is hardly worth a try
    by_system: Callable[..., few_unknowns.SystemSolution]  # (be, a, q, d, symmetric=)
    by_sum: Callable[[Backend, Array, Array, Array], SmithSum]
    sums: Callable[[Backend, Array, Array], shared_sums.PowerSums]  # for several right-hand sides
    by_schur: Callable[..., tuple[Array, Array]]
    responses: Callable[..., tuple[Array, Array]]
    singular: Failure


def _looks_mixed(be: Backend, a: Array) -> Array:
    """Whether the real parts of the eigenvalues look too scattered for their mean to lie on one side.

    Numbers of one sign have a sum no smaller than the root of the sum of their squares. For a normal matrix that is the norm
    of its Hermitian part, for others less; the factor leaves room for them.
    """
    n = a.shape[-1]
    scatter = (inner(be, a, a) + inner(be, adjoint(a), a)) / 2
    mean = be.real(trace(be, a))
    return mean * mean < min(0.2, 4 / n) * scatter


_LYAPUNOV = _Equation(
    _scale_lyapunov,
    lambda a, x, q, d: (q, -(a @ x), -(x @ adjoint(a))),
    _exact_lyapunov_gap,
    lambda a, x, da: -(da @ x) - x @ adjoint(da),
    lambda be, a, d, norm: 2 * norm(be, a),
    _looks_mixed,
    lambda be, a, q, d, symmetric: few_unknowns.lyapunov(be, a, q, symmetric=symmetric),
    lambda be, a, q, d: one_sided_lyapunov(be, a, q),
    lambda be, a, d: shared_sums.lyapunov(be, a),
    bartels_stewart.lyapunov,
    bartels_stewart.lyapunov_responses,
    Failure.COMMON_EIGENVALUE,
)


def _stein_by_sum(be: Backend, a: Array, q: Array, d: Array) -> SmithSum:
    """The sum over the powers of a, or of its inverse where the determinant says that only that one can converge."""
    logarithm = be.xp.log(d)  # a in the caller's size is a / √d

    def outside(a: Array, q: Array, d: Array) -> SmithSum:
        inverse = be.inv(a)
        powers = broadcast_scalar(be.xp.sqrt(d)) * inverse
        found = smith(be, q, lambda: (powers, -(inverse @ q @ adjoint(inverse))))
        size = norm(be, inverse)
        return found._replace(growth=found.growth * (size * size))

    def inside(a: Array, q: Array, d: Array) -> SmithSum:
        found = smith(be, q, lambda: (a / broadcast_scalar(be.xp.sqrt(d)), q / broadcast_scalar(d)))
        return found._replace(growth=found.growth / d)

    return be.rare_cond(be.log_determinant(a) > a.shape[-1] * logarithm / 2, outside, inside, a, q, d)


_STEIN = _Equation(
    _scale_stein,
    lambda a, x, q, d: (q, a @ x @ adjoint(a), -(broadcast_scalar(d) * x)),
    _exact_stein_gap,
    lambda a, x, da: da @ x @ adjoint(a) + a @ x @ adjoint(da),
    lambda be, a, d, norm: norm(be, a) * norm(be, a) + d,
    lambda be, a: be.ones(a) < 0,
    few_unknowns.stein,
    _stein_by_sum,
    shared_sums.stein,
    bartels_stewart.stein,
    bartels_stewart.stein_responses,
    Failure.RECIPROCAL_EIGENVALUES,
)


def lyapunov(be: Backend, a: Array, q: Array, *, method: str) -> Solution:
    """x of a stack with a x + x aᴴ = q."""

    return _solve(be, _LYAPUNOV, a, q, method)


def stein(be: Backend, a: Array, q: Array, *, method: str | None) -> Solution:
    """x of a stack with a x aᴴ - x + q = 0."""
    return _solve(be, _STEIN, a, q, {"auto": "auto", None: "auto", "doubling": "doubling"}.get(method, "schur"))


def _solve(be: Backend, equation: _Equation, a: Array, q: Array, method: str) -> Solution:
    """x of a stack: from one linear system where the unknowns are few, which they may be by symmetry alone."""

    def usual(a: Array, q: Array, symmetric: Array) -> Solution:
        return _in_good_units(be, equation, a, q, symmetric, method)

    def small(a: Array, q: Array, symmetric: Array, *, halved: bool) -> Solution:
        return _by_linear_system(be, equation, usual, a, q, symmetric, halved)

    symmetric = is_hermitian(q)
    whole = (
        functools.partial(small, halved=False) if method == "auto" and few_unknowns.has_few_unknowns(be, q) else usual
    )
    if method != "auto" or be.is_complex(q) or not few_unknowns.has_few_unknowns(be, q, symmetric=True):
        return whole(a, q, symmetric)
    return be.masked_cond(symmetric, functools.partial(small, halved=True), whole, a, q, symmetric)


def _by_linear_system(
    be: Backend, equation: _Equation, usual: Callable[..., Solution], a: Array, q: Array, symmetric: Array, halved: bool
) -> Solution:
    """A few unknowns from one linear system in the caller's units, where these are good and so is the answer."""
    x, fine = _as_system(be, equation, a, q, be.ones(q), halved)
    even = ~balancing.is_unbalanced(be, a)

    def done(a: Array, q: Array, symmetric: Array, x: Array, even: Array) -> Solution:
        return solution(be, (x if halved else _as_hermitian(be, x, symmetric),))

    def at_size(a: Array, q: Array, symmetric: Array) -> Solution:
        posed = equation.posed(be, a, q)
        x, fine = _as_system(be, equation, posed.a, posed.q, posed.d, halved)
        return be.masked_cond(
            fine,
            lambda a, q, symmetric, x, e: _restore(be, solution(be, (x,)), symmetric, e),
            lambda a, q, symmetric, *_: usual(a, q, symmetric),
            *(a, q, symmetric, x, posed.scale),
        )

    def otherwise(a: Array, q: Array, symmetric: Array, x: Array, even: Array) -> Solution:
        return be.masked_cond(even, at_size, usual, a, q, symmetric)

    return be.masked_cond(fine & even, done, otherwise, a, q, symmetric, x, even)


def _as_system(be: Backend, equation: _Equation, a: Array, q: Array, d: Array, halved: bool) -> tuple[Array, Array]:
    """(x, where it is to be relied on) from one linear system for its entries."""
    found = equation.by_system(be, a, q, d, symmetric=halved)
    size = equation.size(be, a, d, norm)
    return found.x, few_unknowns.reliable(be, found, size, *equation.terms(a, found.x, q, d))


def _restore(be: Backend, found: Solution, symmetric: Array, e: Array) -> Solution:
    """The answer in the caller's units, 2^e larger, Hermitian to the last bit where q is."""
    return scaling.restore(be, found._replace(value=(_as_hermitian(be, found.value[0], symmetric),)), e)


def _as_hermitian(be: Backend, x: Array, symmetric: Array) -> Array:
    """x, Hermitian to the last bit where it shall be."""
    sure = not be.is_traced(x) and be.all_true(symmetric)
    return hermitian(x) if sure else be.xp.where(broadcast_scalar(symmetric), hermitian(x), x)


def _in_good_units(be: Backend, equation: _Equation, a: Array, q: Array, symmetric: Array, method: str) -> Solution:
    posed = equation.posed(be, a, q)
    found = _by_method(be, equation, posed.a, posed.q, posed.d, method)
    x = in_callers_units(
        be,
        lambda gap, a, q, d: _by_method(be, equation, a, gap, d, method).value[0],
        lambda x, a, q, d: equation.terms(a, x, q, d),
        *(found.value[0], posed.outer, posed.a, posed.q, posed.d),
    )
    return _restore(be, found._replace(value=(x,)), symmetric, scaling.add_exponents(posed.outer, posed.scale))


def _by_method(be: Backend, equation: _Equation, a: Array, q: Array, d: Array, method: str | None) -> Solution:
    """The sum where it converges to an answer at working precision, Schur vectors for the rest."""
    if method == "schur":
        return _by_schur(be, equation, a, q, d)
    if method == "newton":
        return _by_newton(be, equation, a, q, d)
    if method == "doubling":
        return _by_doubling(be, equation, a, q, d)
    if be.is_traced(a) or not be.on_cpu(a):
        return _sum_or_schur(be, equation, a, q, d)
    return be.masked_cond(
        equation.mixed(be, a),
        lambda a, q, d: _by_schur(be, equation, a, q, d),
        lambda a, q, d: _sum_or_schur(be, equation, a, q, d),
        *(a, q, d),
    )


def _sum_or_schur(be: Backend, equation: _Equation, a: Array, q: Array, d: Array) -> Solution:
    """The sum, and Schur vectors for the members where it has not converged, its residual is too large or there is doubt."""
    found = equation.by_sum(be, a, q, d)
    fine = found.converged & at_rounding(be, equation.terms, a, found.x, q, d)
    fine = fine & ~_doubtful(be, equation, a, q, d, found.x, 1 / found.growth)
    x = _correct(be, equation, fine & (found.steps > _SLOW), found.x, a, q, d)
    return be.rare_cond(
        ~fine,
        lambda a, q, d, *_: _by_schur(be, equation, a, q, d),
        lambda a, q, d, x, steps: solution(be, (x,), iterations=steps),
        *(a, q, d, x, found.steps),
    )


# Sums with more steps are of equations whose error may be far above their residual.
_SLOW = 12


def _correct(be: Backend, equation: _Equation, mask: Array, x: Array, a: Array, q: Array, d: Array) -> Array:
    """The sum x with one correction in these members: where an equation has blocks of its own, each gets its own digits."""

    def correct(x: Array, a: Array, q: Array, d: Array) -> Array:
        return x + equation.by_sum(be, a, total(equation.terms(a, x, q, d)), d).x

    return be.rare_cond(mask, correct, lambda x, *_: x, x, a, q, d)


def _doubtful(be: Backend, equation: _Equation, a: Array, q: Array, d: Array, x: Array, least: Array) -> Array:
    """Where the equation may be singular, by a bound on its separation, or by a solution as large as only that can make it."""
    limit = ROUNDINGS * be.eps(a) * equation.size(be, a, d, norm)
    return may_be_singular(be, least, q, limit) | ~(norm(be, x) * limit < safe_divisor(be, norm(be, q)))


def _by_schur(be: Backend, equation: _Equation, a: Array, q: Array, d: Array) -> Solution:
    value, failure = be.host_callback(equation.by_schur, (q, be.int_zeros(q)), a, q, d)
    return solution(be, (value,))._replace(failure=failure)


def _by_doubling(be: Backend, equation: _Equation, a: Array, q: Array, d: Array) -> Solution:
    """The sum alone."""
    found = equation.by_sum(be, a, q, d)
    lost = ~(found.converged & (relative_gap(be, equation.terms, a, found.x, q, d) < be.eps(q) ** 0.75))
    result = solution(be, (found.x,), Failure.NOT_CONVERGED, lost, found.steps)
    return _classify(be, equation, a, d, result, _doubtful(be, equation, a, q, d, found.x, 1 / found.growth))


def _by_newton(be: Backend, equation: _Equation, a: Array, q: Array, d: Array) -> Solution:
    """The corner of the sign of [[a, -q], [0, -aᴴ]], which is 2x for a stable a and -2x for a stable -a."""
    found, x = lyapunov_by_sign(be, a, q)
    mean = be.real(trace(be, found.value.a)) / a.shape[-1]
    x = broadcast_scalar(-mean) * x
    one_side = has_converged(be, found) & (be.xp.abs(be.xp.abs(mean) - 1) * a.shape[-1] < 0.1)
    lost = ~(one_side & (relative_gap(be, equation.terms, a, x, q, d) < be.eps(q) ** 0.75))
    # A field of values on one side proves that the equation is not singular.
    distance = 2 * math.sqrt(be.eps(a)) * norm(be, a)
    proven = fields_of_values_separated(
        be, broadcast_scalar(be.xp.where(mean < 0, -be.ones(a), be.ones(a))) * a, distance
    )
    return _classify(be, equation, a, d, solution(be, (x,), Failure.NO_LINE, lost, found.steps), ~proven)


def _classify(be: Backend, equation: _Equation, a: Array, d: Array, found: Solution, doubtful: Array) -> Solution:
    """`found`, where there is doubt or no answer with the verdict of the Schur form on whether the equation is singular."""

    def look(a: Array, d: Array) -> Array:
        least = be.host_callback(equation.responses, (a[:, None][:, :0], be.ones(a)), a, a[:, None][:, :0], d)[1]
        return ~(least > ROUNDINGS * be.eps(a) * equation.size(be, a, d, spectral_norm))

    singular = be.rare_cond(doubtful | (found.failure > 0), look, lambda a, d: be.ones(a) < 0, a, d)
    return found._replace(failure=be.xp.where(singular, int(equation.singular) + 0 * found.failure, found.failure))


_SAMPLES = 2


def _error_estimate(
    be: Backend, equation: _Equation, value: Array, posed: _ScaledEquation, *, rounded: bool = False
) -> Residual:
    """What is left of the equation beside its terms; a correction for it and for what rounding can hide; the separation.

    What is left is computed in twice the working precision, because its rounding would look like an error of an answer that is
    right. Its correction is joined by those for random changes of the data by rounding: what is wrong, and what cannot be known
    (Kenney & Laub 1994). Large matrices have one such change, in one right-hand side with what is left: each of its
    many directions tells. An x that is `rounded`, a product itself, has no more digits to show than working precision sees there.
    """
    xp, (a, q, d, outer, scale, size) = be.xp, posed
    x, large = be.ldexp(value, -scaling.add_exponents(outer, scale)), a.shape[-1] > shared_sums.SMALL
    if large and rounded:
        gap = total(equation.terms(a, x, q, d))
    else:
        gap = equation.exact_gap(be, from_double(a), from_double(x), from_double(q), d).high
    if large:
        rights = (gap + _rounding_change(be, equation, a, x, q, 0))[:, None]
    else:
        rights = xp.stack([gap, *(_rounding_change(be, equation, a, x, q, k) for k in range(_SAMPLES))], axis=1)
    # A positive semidefinite right-hand side shows much of the separation, where a general one does not.
    known = norm(be, q) / safe_divisor(be, norm(be, x)) if rounded else None
    solved, least = _responses(be, equation, a, rights, d, known)
    solved = each_in_callers_units(
        be,
        lambda gap, a, d: _responses(be, equation, a, gap[:, None], d, be.ones(d))[0][:, 0],
        lambda x, right, a, d: equation.terms(a, x, right, d),
        *(solved, outer, rights, a, d),
    )
    # In the caller's units all terms weigh as the caller sees them.
    left = backward(be, *solve_weighed(be, outer, gap, *equation.terms(a, x, q, d)))
    step = scaling.at_least_rounded(be, be.ldexp(correction(be, solved), scaling.add_exponents(outer, scale)), value)
    return Residual(left, (step,), be.ldexp(least, size))


def _rounding_change(be: Backend, equation: _Equation, a: Array, x: Array, q: Array, k: int) -> Array:
    """How a random change of each entry of a and q by rounding moves what is left of the equation; the k-th such change."""
    n = q.shape[-1]
    noise = be.eps(q) * random_probe(be, _SAMPLES * n, n, q)[:, k * n : (k + 1) * n]
    change = be.xp.where(broadcast_scalar(is_hermitian(q)), math.sqrt(2) * hermitian(noise), noise)
    return equation.moved(a, x, a * noise) + q * change


def _responses(
    be: Backend, equation: _Equation, a: Array, rights: Array, d: Array, known: Array | None
) -> tuple[Array, Array]:
    """The solutions for right-hand sides (B, k, n, n), and the separation, of which a bound from above may be known."""
    if be.on_cpu(a) and not be.is_traced(a) and a.shape[-1] > shared_sums.SMALL:
        ranges = [slice(k, k + 1) for k in range(len(a))]
        parts = [_of_member(be, equation, a[k], rights[k], d[k], None if known is None else known[k]) for k in ranges]
        return be.xp.concat([x for x, _ in parts]), be.xp.concat([least for _, least in parts])
    if be.on_cpu(a):
        return be.host_callback(equation.responses, (rights, be.ones(a)), a, rights, d)

    def solve(a: Array, q: Array) -> Array:
        q, scale = scale_to_unit(be, q)
        return be.ldexp(_sum_or_schur(be, equation, a, q, d).value[0], broadcast_scalar(scale))

    solved = be.xp.stack([solve(a, rights[:, k]) for k in range(rights.shape[1])], axis=1)
    least = separation(be, lambda y: solve(a, y), lambda y: solve(adjoint(a), y), rights[:, 0], steps=1).value
    return solved, least


def _of_member(
    be: Backend, equation: _Equation, a: Array, rights: Array, d: Array, known: Array | None
) -> tuple[Array, Array]:
    """Those of one large member: from the powers of a sum where there is one to rely on, else from a Schur form."""
    if not bool(equation.mixed(be, a)[0]):
        sums = equation.sums(be, a, d)
        if sums.is_reliable(be, ROUNDINGS * be.eps(a) * equation.size(be, a, d, norm)):
            return sums.responses(be, rights, known)
    return be.host_callback(equation.responses, (rights, be.ones(a)), a, rights, d)


def lyapunov_residual(be: Backend, value: tuple[Array], a: Array, q: Array, *, rounded: bool = False) -> Residual:
    return _error_estimate(be, _LYAPUNOV, value[0], _scale_lyapunov(be, a, q), rounded=rounded)


def stein_residual(be: Backend, value: tuple[Array], a: Array, q: Array, *, rounded: bool = False) -> Residual:
    return _error_estimate(be, _STEIN, value[0], _scale_stein(be, a, q), rounded=rounded)


def _lyapunov_certificate(be: Backend, value: tuple[Array], a: Array, q: Array) -> Residual:
    return lyapunov_residual(be, value, a, q)


def _stein_certificate(be: Backend, value: tuple[Array], a: Array, q: Array) -> Residual:
    return stein_residual(be, value, a, q)


def _lyapunov_differentiable(be: Backend, a: Array, q: Array) -> Array:
    return apply(be, CONTINUOUS_LYAPUNOV.operation, a, q, method="auto")[0]


def _lyapunov_tangent(be: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, method: str) -> Arrays:
    (x,), (a, _), (da, dq) = value, arrays, tangents
    return (_lyapunov_differentiable(be, a, dq - da @ x - x @ adjoint(da)),)


def _lyapunov_cotangent(be: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, method: str) -> Arrays:
    """aᴴ y + y a = x̄ gives q̄ = y and ā = -(y xᴴ + yᴴ x)."""
    (x,), (a, _) = value, arrays
    y = _lyapunov_differentiable(be, adjoint(a), cotangents[0])
    return -(y @ adjoint(x) + adjoint(y) @ x), y


def _stein_differentiable(be: Backend, a: Array, q: Array) -> Array:
    return apply(be, DISCRETE_LYAPUNOV.operation, a, q, method="auto")[0]


def _stein_tangent(be: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, method: str | None) -> Arrays:
    (x,), (a, _), (da, dq) = value, arrays, tangents
    return (_stein_differentiable(be, a, dq + da @ x @ adjoint(a) + a @ x @ adjoint(da)),)


def _stein_cotangent(be: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, method: str | None) -> Arrays:
    """aᴴ y a - y = -x̄ gives q̄ = y and ā = y a xᴴ + yᴴ a x."""
    (x,), (a, _) = value, arrays
    y = _stein_differentiable(be, adjoint(a), cotangents[0])
    return y @ a @ adjoint(x) + adjoint(y) @ a @ x, y


def solve_continuous_lyapunov(a: Array, q: Array, *, method: str = "auto", errors: str = "raise") -> Array:
    """Solve the continuous-time Lyapunov equation a x + x aᴴ = q.

    The arguments have the order and the sign of `scipy.linalg.solve_continuous_lyapunov`. The covariance x of
    ẋ = a x + noise, for example, is the solution for q = -(intensity of the noise).

    Parameters
    ----------
    a : array_like, shape (..., n, n)
        Coefficients, of dtype float32, float64, complex64 or complex128.
    q : array_like, shape (..., n, n)
        Right-hand sides, Hermitian or not.
    method : {"auto", "doubling", "newton", "schur"}, default "auto"
        How the equation is solved:

        - "doubling": by a Cayley transform and a sum by doubling [1]_; one inverse, then products. It needs all
          eigenvalues of a on one side of the imaginary axis.
        - "newton": by the sign of [[a, -q], [0, -aᴴ]] [2]_; one inverse a step. It needs the same.
        - "schur": by the method of Bartels and Stewart [3]_, with one Schur form and a blocked triangular solver, on
          the CPU.
        - "auto": by doubling, and by Schur forms for the members where doubling does not reach working precision; on a
          CPU by one linear system for the entries of x where they are few (n up to 6 for a real symmetric q, else 5,
          for complex ones 3).
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no solution: raise `SpectrumError`, or return NaN for that member and
        the right result for the others.

    Returns
    -------
    x : array, shape (..., n, n)
        The solutions; Hermitian to the last bit where q is.

    Raises
    ------
    SpectrumError
        If a and -aᴴ share an eigenvalue to working precision, so that there is no solution or infinitely many, if the
        method fails, or if a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, or the arrays lie on different devices.
    TypeError
        If an argument is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    solve_discrete_lyapunov : The equation in discrete time.
    lyapunov_factor : The solution in factored form, for q = -b bᴴ.
    solve_sylvester : The equation with another matrix on the right.
    scipy.linalg.solve_continuous_lyapunov : SciPy's.

    Notes
    -----
    States in unlike units are balanced first, so the units do not matter. A step of doubling costs three products of
    n × n matrices, and a typical model takes 10 to 25 of them.

    The solution is differentiable to any order in both arguments; each derivative is one more Lyapunov equation. A
    member of a batch gives the same bits as in a call by itself. Under ``jax.jit`` no error can be raised: a member
    without a solution is NaN.

    The backward error of `certify` is ‖a x + x aᴴ - q‖ / (‖a x‖ + ‖x aᴴ‖ + ‖q‖).

    References
    ----------
    .. [1] R. A. Smith, "Matrix equation XA + BX = C", SIAM J. Appl. Math. 16(1), 1968, pp. 198-201,
       doi:10.1137/0116017.
    .. [2] J. D. Roberts, "Linear model reduction and solution of the algebraic Riccati equation by use of the sign
       function", Int. J. Control 32(4), 1980, pp. 677-687, doi:10.1080/00207178008922881.
    .. [3] R. H. Bartels and G. W. Stewart, "Algorithm 432: Solution of the matrix equation AX + XB = C", Commun. ACM
       15(9), 1972, pp. 820-826, doi:10.1145/361573.361582.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import solve_continuous_lyapunov
    >>> a, q = np.array([[-1.0, 2.0], [0.0, -3.0]]), np.array([[-2.0, 0.0], [0.0, -6.0]])
    >>> x = solve_continuous_lyapunov(a, q)
    >>> bool(np.linalg.norm(a @ x + x @ a.T - q) < 1e-14)
    True
    """
    return CONTINUOUS_LYAPUNOV(a, q, method=method, errors=errors)


CONTINUOUS_LYAPUNOV = public_function(
    solve_continuous_lyapunov,
    "(n,n),(n,n)->(n,n)",
    solve=lyapunov,
    residual=_lyapunov_certificate,
    tangent=_lyapunov_tangent,
    cotangent=_lyapunov_cotangent,
    linear=True,
    alone=lambda method: method in ("auto", None),
    choices={"method": _METHODS},
)


def solve_discrete_lyapunov(a: Array, q: Array, method: str | None = "auto", *, errors: str = "raise") -> Array:
    """Solve the discrete-time Lyapunov (Stein) equation a x aᴴ - x + q = 0.

    The arguments have the order and the sign of `scipy.linalg.solve_discrete_lyapunov`.

    Parameters
    ----------
    a : array_like, shape (..., n, n)
        Coefficients, of dtype float32, float64, complex64 or complex128.
    q : array_like, shape (..., n, n)
        Constant terms, Hermitian or not.
    method : {"auto", "doubling", "schur", "direct", "bilinear"} or None, default "auto"
        How the equation is solved:

        - "doubling": by the sum of aᵏ q (aᵏ)ᴴ, or the same for the inverse of a, whose number of terms each step
          doubles [1]_; products alone. It needs all eigenvalues of a on one side of the unit circle.
        - "schur": by one Schur form, whose Cayley transform gives a triangular Lyapunov equation, and one correction;
          on the CPU. For SciPy's "direct" and "bilinear", too.
        - "auto": by doubling, and by Schur forms for the members where doubling does not reach working precision; on a
          CPU by one linear system for the entries of x where they are few (n up to 6 for a real symmetric q, else 5,
          for complex ones 3). For SciPy's None, too.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no solution: raise `SpectrumError`, or return NaN for that member and
        the right result for the others.

    Returns
    -------
    x : array, shape (..., n, n)
        The solutions; Hermitian to the last bit where q is.

    Raises
    ------
    SpectrumError
        If a has two eigenvalues with λ conj(μ) = 1 to working precision, so that there is no solution or infinitely
        many, if the method fails, or if a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, or the arrays lie on different devices.
    TypeError
        If an argument is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    solve_continuous_lyapunov : The equation in continuous time.
    discrete_lyapunov_factor : The solution in factored form, for q = b bᴴ.
    scipy.linalg.solve_discrete_lyapunov : SciPy's.

    Notes
    -----
    States in unlike units are balanced first, so the units do not matter. A step of doubling costs three products of
    n × n matrices.

    The solution is differentiable to any order in both arguments; each derivative is one more Stein equation. A member
    of a batch gives the same bits as in a call by itself. Under ``jax.jit`` no error can be raised: a member without a
    solution is NaN.

    The backward error of `certify` is ‖a x aᴴ - x + q‖ / (‖a x aᴴ‖ + ‖x‖ + ‖q‖).

    References
    ----------
    .. [1] R. A. Smith, "Matrix equation XA + BX = C", SIAM J. Appl. Math. 16(1), 1968, pp. 198-201,
       doi:10.1137/0116017.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import solve_discrete_lyapunov
    >>> a, q = np.array([[0.5, 1.0], [0.0, -0.8]]), np.eye(2)
    >>> x = solve_discrete_lyapunov(a, q)
    >>> bool(np.linalg.norm(a @ x @ a.T - x + q) < 1e-14)
    True
    """
    return DISCRETE_LYAPUNOV(a, q, method=method, errors=errors)


DISCRETE_LYAPUNOV = public_function(
    solve_discrete_lyapunov,
    "(n,n),(n,n)->(n,n)",
    solve=stein,
    residual=_stein_certificate,
    tangent=_stein_tangent,
    cotangent=_stein_cotangent,
    linear=True,
    alone=lambda method: method in ("auto", None),
    choices={"method": _STEIN_METHODS},
)
