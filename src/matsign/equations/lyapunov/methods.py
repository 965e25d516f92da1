"""How Lyapunov and Stein equations are solved on stacks: sums by doubling, the sign iteration, Schur vectors."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from matsign._typing import Arrays
from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.failures import Failure
from matsign.core.members import Solution, solution
from matsign.direct import bartels_stewart
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

Array = Any


METHODS = ("auto", "doubling", "newton", "schur")


# "direct" and "bilinear" are SciPy's names of two direct methods; ours is a third.
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
    """An equation near one in size and in units that balance a.

    The caller's x is 2^(scaling.plus(outer, scale)) times this one, the operator 2^size times.
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
    """An a above one in size is brought to it: 2^2k x solves the equation for 2^-k a with d = 2^-2k."""
    e, a, k = scaling.balance_together(backend, a)
    above = backend.xp.maximum(k, 0 * k)
    a = backend.ldexp(a, broadcast_scalar(k - above))
    outer = None if e is None else e[..., :, None] + e[..., None, :]
    q, scale = scaling.scale_right_side(backend, q, outer)
    return ScaledEquation(
        a, q, backend.ldexp(backend.ones(q), -2 * above), outer, broadcast_scalar(scale - 2 * above), 2 * above
    )


class Equation(NamedTuple):
    """What tells the two equations apart. d belongs to the second, a x aᴴ - d x + q = 0, for an a that was brought to size."""

    posed: Callable[[Backend, Array, Array], ScaledEquation]
    terms: Callable[..., Arrays]  # (a, x, q, d): what should add up to zero
    exact_gap: Callable[
        [Backend, DoubleWord, DoubleWord, DoubleWord, Array], DoubleWord
    ]  # (a, x, q, d): their sum in twice the precision
    moved: Callable[..., Array]  # (a, x, da): how a change of a moves it
    size: Callable[..., Array]  # (backend, a, d, norm): of the operator
    mixed: Callable[[Backend, Array], Array]  # where a sum is hardly worth a try
    by_system: Callable[..., few_unknowns.SystemSolution]  # (backend, a, q, d, symmetric=)
    by_sum: Callable[[Backend, Array, Array, Array], SmithSum]
    sums: Callable[[Backend, Array, Array], shared_sums.PowerSums]  # for several right-hand sides
    by_schur: Callable[..., tuple[Array, Array]]
    responses: Callable[..., tuple[Array, Array]]
    singular: Failure


def _looks_mixed(backend: Backend, a: Array) -> Array:
    """Whether the real parts of the eigenvalues look too scattered for their mean to lie on one side.

    Numbers of one sign have a sum no smaller than the root of the sum of their squares. For a normal matrix that is the norm
    of its Hermitian part, for others less; the factor leaves room for them.
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
)


def _stein_by_sum(backend: Backend, a: Array, q: Array, d: Array) -> SmithSum:
    """The sum over the powers of a, or of its inverse where the determinant says that only that one can converge."""
    logarithm = backend.xp.log(d)  # a in the caller's size is a / √d

    def outside(a: Array, q: Array, d: Array) -> SmithSum:
        inverse = backend.inv(a)
        powers = broadcast_scalar(backend.xp.sqrt(d)) * inverse
        found = smith(backend, q, lambda: (powers, -(inverse @ q @ adjoint(inverse))))
        size = norm(backend, inverse)
        return found._replace(growth=found.growth * (size * size))

    def inside(a: Array, q: Array, d: Array) -> SmithSum:
        found = smith(backend, q, lambda: (a / broadcast_scalar(backend.xp.sqrt(d)), q / broadcast_scalar(d)))
        return found._replace(growth=found.growth / d)

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
)


def lyapunov(backend: Backend, a: Array, q: Array, *, method: str) -> Solution:
    """x of a stack with a x + x aᴴ = q."""

    return _solve(backend, LYAPUNOV_EQUATION, a, q, method)


def stein(backend: Backend, a: Array, q: Array, *, method: str | None) -> Solution:
    """x of a stack with a x aᴴ - x + q = 0."""
    return _solve(
        backend, STEIN_EQUATION, a, q, {"auto": "auto", None: "auto", "doubling": "doubling"}.get(method, "schur")
    )


def _solve(backend: Backend, equation: Equation, a: Array, q: Array, method: str) -> Solution:
    """x of a stack: from one linear system where the unknowns are few, which they may be by symmetry alone."""

    def usual(a: Array, q: Array, symmetric: Array) -> Solution:
        return _in_good_units(backend, equation, a, q, symmetric, method)

    def small(a: Array, q: Array, symmetric: Array, *, halved: bool) -> Solution:
        return _by_linear_system(backend, equation, usual, a, q, symmetric, halved)

    symmetric = is_hermitian(q)
    whole = (
        functools.partial(small, halved=False)
        if method == "auto" and few_unknowns.has_few_unknowns(backend, q)
        else usual
    )
    if method != "auto" or backend.is_complex(q) or not few_unknowns.has_few_unknowns(backend, q, symmetric=True):
        return whole(a, q, symmetric)
    return backend.masked_cond(symmetric, functools.partial(small, halved=True), whole, a, q, symmetric)


def _by_linear_system(
    backend: Backend,
    equation: Equation,
    usual: Callable[..., Solution],
    a: Array,
    q: Array,
    symmetric: Array,
    halved: bool,
) -> Solution:
    """A few unknowns from one linear system in the caller's units, where these are good and so is the answer."""
    x, fine = _as_system(backend, equation, a, q, backend.ones(q), halved)
    even = ~balancing.is_unbalanced(backend, a)

    def done(a: Array, q: Array, symmetric: Array, x: Array, even: Array) -> Solution:
        return solution(backend, (x if halved else _as_hermitian(backend, x, symmetric),))

    def at_size(a: Array, q: Array, symmetric: Array) -> Solution:
        posed = equation.posed(backend, a, q)
        x, fine = _as_system(backend, equation, posed.a, posed.q, posed.d, halved)
        return backend.masked_cond(
            fine,
            lambda a, q, symmetric, x, e: _restore(backend, solution(backend, (x,)), symmetric, e),
            lambda a, q, symmetric, *_: usual(a, q, symmetric),
            *(a, q, symmetric, x, posed.scale),
        )

    def otherwise(a: Array, q: Array, symmetric: Array, x: Array, even: Array) -> Solution:
        return backend.masked_cond(even, at_size, usual, a, q, symmetric)

    return backend.masked_cond(fine & even, done, otherwise, a, q, symmetric, x, even)


def _as_system(backend: Backend, equation: Equation, a: Array, q: Array, d: Array, halved: bool) -> tuple[Array, Array]:
    """(x, where it is to be relied on) from one linear system for its entries."""
    found = equation.by_system(backend, a, q, d, symmetric=halved)
    size = equation.size(backend, a, d, norm)
    return found.x, few_unknowns.reliable(backend, found, size, *equation.terms(a, found.x, q, d))


def _restore(backend: Backend, found: Solution, symmetric: Array, e: Array) -> Solution:
    """The answer in the caller's units, 2^e larger, Hermitian to the last bit where q is."""
    return scaling.restore(backend, found._replace(value=(_as_hermitian(backend, found.value[0], symmetric),)), e)


def _as_hermitian(backend: Backend, x: Array, symmetric: Array) -> Array:
    """x, Hermitian to the last bit where it shall be."""
    sure = not backend.is_traced(x) and backend.all_true(symmetric)
    return hermitian(x) if sure else backend.xp.where(broadcast_scalar(symmetric), hermitian(x), x)


def _in_good_units(backend: Backend, equation: Equation, a: Array, q: Array, symmetric: Array, method: str) -> Solution:
    posed = equation.posed(backend, a, q)
    found = _by_method(backend, equation, posed.a, posed.q, posed.d, method)
    x = in_callers_units(
        backend,
        lambda gap, a, q, d: _by_method(backend, equation, a, gap, d, method).value[0],
        lambda x, a, q, d: equation.terms(a, x, q, d),
        *(found.value[0], posed.outer, posed.a, posed.q, posed.d),
    )
    return _restore(backend, found._replace(value=(x,)), symmetric, scaling.add_exponents(posed.outer, posed.scale))


def _by_method(backend: Backend, equation: Equation, a: Array, q: Array, d: Array, method: str | None) -> Solution:
    """The sum where it converges to an answer at working precision, Schur vectors for the rest."""
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
    """The sum, and Schur vectors for the members where it has not converged, its residual is too large or there is doubt."""
    found = equation.by_sum(backend, a, q, d)
    fine = found.converged & at_rounding(backend, equation.terms, a, found.x, q, d)
    fine = fine & ~_doubtful(backend, equation, a, q, d, found.x, 1 / found.growth)
    x = _correct(backend, equation, fine & (found.steps > _SLOW), found.x, a, q, d)
    return backend.rare_cond(
        ~fine,
        lambda a, q, d, *_: _by_schur(backend, equation, a, q, d),
        lambda a, q, d, x, steps: solution(backend, (x,), iterations=steps),
        *(a, q, d, x, found.steps),
    )


# Sums with more steps are of equations whose error may be far above their residual.
_SLOW = 12


def _correct(backend: Backend, equation: Equation, mask: Array, x: Array, a: Array, q: Array, d: Array) -> Array:
    """The sum x with one correction in these members: where an equation has blocks of its own, each gets its own digits."""

    def correct(x: Array, a: Array, q: Array, d: Array) -> Array:
        return x + equation.by_sum(backend, a, total(equation.terms(a, x, q, d)), d).x

    return backend.rare_cond(mask, correct, lambda x, *_: x, x, a, q, d)


def _doubtful(backend: Backend, equation: Equation, a: Array, q: Array, d: Array, x: Array, least: Array) -> Array:
    """Where the equation may be singular, by a bound on its separation, or by a solution as large as only that can make it."""
    limit = ROUNDINGS * backend.eps(a) * equation.size(backend, a, d, norm)
    return may_be_singular(backend, least, q, limit) | ~(
        norm(backend, x) * limit < safe_divisor(backend, norm(backend, q))
    )


def _by_schur(backend: Backend, equation: Equation, a: Array, q: Array, d: Array) -> Solution:
    value, failure = backend.host_callback(equation.by_schur, (q, backend.int_zeros(q)), a, q, d)
    return solution(backend, (value,))._replace(failure=failure)


def _by_doubling(backend: Backend, equation: Equation, a: Array, q: Array, d: Array) -> Solution:
    """The sum alone."""
    found = equation.by_sum(backend, a, q, d)
    lost = ~(found.converged & (relative_gap(backend, equation.terms, a, found.x, q, d) < backend.eps(q) ** 0.75))
    result = solution(backend, (found.x,), Failure.NOT_CONVERGED, lost, found.steps)
    return _classify(backend, equation, a, d, result, _doubtful(backend, equation, a, q, d, found.x, 1 / found.growth))


def _by_newton(backend: Backend, equation: Equation, a: Array, q: Array, d: Array) -> Solution:
    """The corner of the sign of [[a, -q], [0, -aᴴ]], which is 2x for a stable a and -2x for a stable -a."""
    found, x = lyapunov_by_sign(backend, a, q)
    mean = trace(backend, found.value.a).real / a.shape[-1]
    x = broadcast_scalar(-mean) * x
    one_side = has_converged(backend, found) & (backend.xp.abs(backend.xp.abs(mean) - 1) * a.shape[-1] < 0.1)
    lost = ~(one_side & (relative_gap(backend, equation.terms, a, x, q, d) < backend.eps(q) ** 0.75))
    # A field of values on one side proves that the equation is not singular.
    distance = 2 * math.sqrt(backend.eps(a)) * norm(backend, a)
    proven = fields_of_values_separated(
        backend, broadcast_scalar(backend.xp.where(mean < 0, -backend.ones(a), backend.ones(a))) * a, distance
    )
    return _classify(backend, equation, a, d, solution(backend, (x,), Failure.NO_LINE, lost, found.steps), ~proven)


def _classify(backend: Backend, equation: Equation, a: Array, d: Array, found: Solution, doubtful: Array) -> Solution:
    """`found`, where there is doubt or no answer with the verdict of the Schur form on whether the equation is singular."""

    def look(a: Array, d: Array) -> Array:
        least = backend.host_callback(
            equation.responses, (a[:, None][:, :0], backend.ones(a)), a, a[:, None][:, :0], d
        )[1]
        return ~(least > ROUNDINGS * backend.eps(a) * equation.size(backend, a, d, spectral_norm))

    singular = backend.rare_cond(doubtful | (found.failure > 0), look, lambda a, d: all_false(backend, a), a, d)
    return found._replace(failure=backend.xp.where(singular, int(equation.singular) + 0 * found.failure, found.failure))
