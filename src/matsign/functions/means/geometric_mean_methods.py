"""How weighted geometric means A #_t B = A (A⁻¹B)^t are computed.

Positive definite pairs by factors, A = K Kᴴ and B = L Lᴴ: with K⁻¹L = U Σ Vᴴ the mean is K U Σ^{2t} Uᴴ Kᴴ. Semidefinite ones in
the same way on the larger range. Others by the coupled root of A and B⁻¹ for t = 1/2, else by a power of A⁻¹B. Everywhere
A #_t B = B #_{1-t} A, so that the better conditioned one comes first.
"""

from __future__ import annotations

import math
from typing import Any

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.members import Solution, solution
from matsign.core.options import short_repr
from matsign.core.tolerances import rank_tolerance
from matsign.functions.means.decimal_mean import decimal_means_of
from matsign.functions.means.geodesic import solve_geodesic
from matsign.functions.means.graded_pairs import graded_apart, in_units_of_definite
from matsign.functions.means.semidefinite_mean import (
    MIDPOINT,
    between,
    refuse_indefinite,
    semidefinite_mean,
    swap_members,
    weights_of_second,
)
from matsign.functions.powers.coupled_root import coupled_pair, normalise_pair
from matsign.functions.powers.power_methods import Units, balance_units, matrix_function
from matsign.iterations.differentiable_solves import inverse
from matsign.linalg.equilibration import rescale
from matsign.linalg.scalar_powers import exponent
from matsign.linalg.stacks import (
    broadcast_scalar,
    eye,
    hermitian,
    is_hermitian,
    is_nearly_hermitian,
    safe_divisor,
)


def check_weight(*, t: Any, **_: object) -> None:
    """Raise for a number; the solver checks the entries of arrays."""
    if isinstance(t, float) and not 0 <= t <= 1:
        raise ValueError(f"geometric_mean: t must be a number from 0 to 1, got {short_repr(t)}")


def solve_mean(backend: Backend, a: Array, b: Array, *, t: Any, rtol: float | None) -> Solution:
    """A for t = 0 and B for t = 1, whatever they are; between them the mean."""
    if not isinstance(t, float):
        return solve_geodesic(backend, a, b, t=t, rtol=rtol)
    if t in (0, 1):
        return solution(backend, (b + 0 * a if t else a + 0 * b,))
    return mean(backend, a, b, t=float(t), rtol=rtol)


def scale_mean(backend: Backend, g: Array, ea: Array, eb: Array, t: float, sign: int = 1) -> Array:
    """The mean of 2^ea A and 2^eb B from that of A and B, or with the sign -1 the reverse."""
    if t == MIDPOINT:
        return backend.ldexp(g, broadcast_scalar(sign * ((ea + eb) // 2)))
    whole, factor = Units(sign * (eb - ea), None).factor(backend, exponent(t), g.real)
    return backend.ldexp(g * broadcast_scalar(factor), broadcast_scalar(sign * ea + whole))


def mean(backend: Backend, a: Array, b: Array, *, t: float, rtol: float | None) -> Solution:
    """By factors if A and B are Hermitian and semidefinite, else as a coupled root by blocks."""
    zero = rank_tolerance(backend, a, rtol)
    a, b, ea, eb = normalise_pair(backend, a, b)
    a, b, u, factors = in_units_of_definite(backend, a, b, rtol)
    k, low, spread, spread_b = factors
    hermitian_pair = is_hermitian(a) & is_hermitian(b)
    definite = hermitian_pair & (backend.xp.maximum(spread, spread_b) * math.sqrt(zero) < 1)
    # Computed products L Lᴴ are only nearly Hermitian, and for singular ones no other method applies.
    nearly = is_nearly_hermitian(backend, a) & is_nearly_hermitian(backend, b)
    hermitian_pair = hermitian_pair | (nearly & ~(backend.xp.maximum(spread, spread_b) * math.sqrt(zero) < 1))
    swap = spread > spread_b

    def by_cholesky(a: Array, b: Array, k: Array, low: Array, swap: Array, *_: Array) -> Solution:
        k, low = swap_members(backend, swap, k, low)
        return solution(backend, (between(backend, k, backend.solve(k, low), weights_of_second(backend, swap, t, a)),))

    def not_definite(
        a: Array, b: Array, k: Array, low: Array, swap: Array, hermitian_pair: Array, ea: Array, eb: Array
    ) -> Solution:
        # With I for members that are not Hermitian, as `eigh` does not apply to them.
        one = eye(backend, a) + 0 * a
        x, y = (backend.xp.where(broadcast_scalar(hermitian_pair), hermitian(m), one) for m in (a, b))
        result, semidefinite = semidefinite_mean(backend, x, y, zero, t)
        result = backend.masked_cond(
            hermitian_pair & semidefinite,
            lambda a, b, result: result,
            lambda a, b, result: _general(backend, a, b, zero, t),
            *(a, b, result),
        )
        return refuse_indefinite(backend, result, (x, y), (ea, eb), zero, always=False)

    result = backend.rare_cond(~definite, not_definite, by_cholesky, a, b, k, low, swap, hermitian_pair, ea, eb)
    result = _with_graded(backend, a, b, t, graded_apart(backend, a, b, factors, rtol), definite, result)
    units = backend.xp.where(result.failure == int(Failure.NOT_DEFINITE), ea - eb, 0 * ea)
    return result._replace(
        value=(scale_mean(backend, rescale(backend, result.value[0], -u, -u), ea, eb, t),),
        detail=backend.ldexp(result.detail, units[:, None]),
    )


def _with_graded(
    backend: Backend, a: Array, b: Array, t: float, apart: Array, definite: Array, result: Solution
) -> Solution:
    """The result, with means in decimal arithmetic of pairs that are graded apart, or a failure where these are too large."""
    means = decimal_means_of(backend, apart, a, b, t)
    solved = apart & backend.xp.isfinite(backend.norm(means))
    failure = Failure.GRADED_APART.where(backend, apart & ~definite, result.failure)
    return result._replace(
        value=(backend.xp.where(broadcast_scalar(solved), means, result.value[0]),),
        failure=backend.xp.where(solved, 0 * failure, failure),
    )


def _general(backend: Backend, a: Array, b: Array, rtol: float, t: float) -> Solution:
    """The coupled root for t = 1/2; for other t, where that exists, A (A⁻¹B)^t or B (B⁻¹A)^{1-t}."""
    result = _by_blocks(backend, a, b, rtol)
    if t == MIDPOINT:
        return result

    def powers(base: Array, other: Array, t: float) -> Solution:
        quotient = backend.inv(base) @ other
        quotient = backend.xp.where(backend.xp.isfinite(quotient), quotient, backend.xp.zeros_like(quotient))
        result = matrix_function(backend, quotient, power=exponent(t), rtol=rtol, method="auto")
        # Where rounding of the quotient hides its smallest eigenvalues, they are not zero unless a factor is singular.
        lost = _is_singular(backend, balance_units(backend, quotient)[1], rtol) & ~_is_singular(backend, other, rtol)
        failure = Failure.LOST_PRODUCT.where(backend, lost, result.failure)
        return result._replace(value=(base @ result.value[0],), failure=failure)

    weighted = backend.masked_cond(
        better_first(backend, a, b),
        lambda a, b: powers(a, b, t),
        lambda a, b: powers(b, a, 1 - t),
        *(a, b),
    )
    negative = (weighted.failure == int(Failure.NEGATIVE)) | (weighted.failure == int(Failure.NEAR_NEGATIVE))
    failure = Failure.NOT_DEFINITE.where(backend, negative, weighted.failure)
    failed = result.failure > 0
    return weighted._replace(
        failure=backend.xp.where(failed, result.failure, failure),
        detail=backend.xp.where(failed[:, None], result.detail, weighted.detail),
    )


def _is_singular(backend: Backend, x: Array, rtol: float) -> Array:
    return ~(backend.norm(x) * backend.norm(backend.inv(x)) * rtol < 1)


def _by_blocks(backend: Backend, a: Array, b: Array, rtol: float) -> Solution:
    """The coupled root of A and B⁻¹, or of B and A⁻¹ where A is better conditioned."""
    xp = backend.xp
    swap = better_first(backend, a, b)
    base, other = swap_members(backend, swap, b, a)
    base_inverse = backend.inv(base)
    singular = ~xp.isfinite(backend.norm(base_inverse))
    spread = xp.where(singular, backend.ones(a), backend.norm(base) * backend.norm(base_inverse))
    root = coupled_pair(
        backend, other, xp.where(broadcast_scalar(singular), eye(backend, a), base_inverse), rtol=rtol, spread=spread
    )
    negative = root.failure == int(Failure.NEGATIVE_PRODUCT)
    failure = Failure.NOT_DEFINITE.where(backend, negative, root.failure)
    failure = Failure.BOTH_SINGULAR.where(backend, singular, failure)
    # The eigenvalue of inv(b) a, which is the inverse of that of inv(a) b.
    size = safe_divisor(backend, xp.sum(root.detail**2, axis=-1))[:, None]
    inverse_eigenvalue = xp.concat([root.detail[:, :1], -root.detail[:, 1:]], axis=-1) / size
    detail = xp.where((swap & negative)[:, None], inverse_eigenvalue, root.detail)
    return root._replace(value=root.value[:1], failure=failure, detail=detail)


def better_first(backend: Backend, a: Array, b: Array) -> Array:
    """Where A is better conditioned than B, so that A is to be inverted."""
    # By the operation `inverse`: derivative rules use this, too, and must not factorise in a compiled program.
    inverse_a, inverse_b = inverse(backend, a), inverse(backend, b)
    return ~(
        backend.norm(b) * backend.norm(inverse_b) <= backend.norm(a) * backend.norm(inverse_a)
    ) & backend.xp.isfinite(backend.norm(inverse_a))
