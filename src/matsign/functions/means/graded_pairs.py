"""Units of the rows and columns in which a graded positive definite pair is well conditioned.

D (A #_t B) D is the mean of D A D and D B D for every positive diagonal D. With dᵢ = (aᵢᵢ bᵢᵢ)^{-1/4} the diagonal of the mean
with t = 1/2 is at most 1. Powers of 2 cause no rounding.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.tolerances import rank_tolerance
from matsign.linalg.equilibration import rescale
from matsign.linalg.stacks import all_false, broadcast_scalar, eye, hermitian, is_nearly_hermitian

# Pairs are tried in other units if the condition number of one times √(n eps) is above this.
_HARD = 0.1


class CholeskyPair(NamedTuple):
    """Cholesky factors of A and B, and the roots of their condition numbers; NaN where a matrix is not positive definite."""

    k: Array
    low: Array
    spread: Array
    spread_b: Array

    def largest(self, backend: Backend) -> Array:
        """The larger one of the roots of both condition numbers."""
        return backend.xp.maximum(self.spread, self.spread_b)

    def definite(self, backend: Backend, zero: float) -> Array:
        """Whether both matrices are definite to working precision."""
        return self.largest(backend) * math.sqrt(zero) < 1

    def hard(self, backend: Backend, zero: float) -> Array:
        """Whether other units may be much better."""
        return ~(self.largest(backend) ** 2 * math.sqrt(zero) < _HARD)


def cholesky_pair(backend: Backend, a: Array, b: Array) -> CholeskyPair:
    k, low = backend.cholesky(hermitian(a)), backend.cholesky(hermitian(b))
    return CholeskyPair(k, low, *(backend.norm(x) * backend.norm(backend.inv(x)) for x in (k, low)))


class ScaledPair(NamedTuple):
    """A and B in units u of the rows and columns, 2^-(uᵢ + uⱼ) aᵢⱼ, and their Cholesky factors."""

    a: Array
    b: Array
    u: Array
    factors: CholeskyPair


def in_units_of_definite(backend: Backend, a: Array, b: Array, rtol: float | None) -> ScaledPair:
    factors = cholesky_pair(backend, a, b)
    u = _units_of_definite(backend, a, b, factors, rtol)
    a, b = rescale(backend, a, u, u), rescale(backend, b, u, u)
    factors = backend.rare_cond(
        (u != 0).any(-1),
        lambda a, b, _: cholesky_pair(backend, a, b),
        lambda a, b, factors: factors,
        *(a, b, factors),
    )
    return ScaledPair(a, b, u, factors)


def _units_of_definite(backend: Backend, a: Array, b: Array, factors: CholeskyPair, rtol: float | None) -> Array:
    """Exponents (B, n): in units of these the pair is definite to working precision and much better conditioned; else zeros.

    With an `rtol` the caller says which eigenvalues are zero, in the units of the arguments: then there are none.
    """
    none = backend.exponent(0 * _diagonal(backend, a))
    if rtol is not None:
        return none
    zero = rank_tolerance(backend, a, None)

    def units(a: Array, b: Array, spread: Array, none: Array) -> Array:
        u = common_units(backend, a, b)
        scaled = cholesky_pair(backend, *(rescale(backend, x, u, u) for x in (a, b)))
        better = scaled.definite(backend, zero) & ~(scaled.largest(backend) > spread / 2)
        return backend.xp.where(better[:, None], u, none)

    hermitian_pair = is_nearly_hermitian(backend, a) & is_nearly_hermitian(backend, b)
    hard = hermitian_pair & factors.hard(backend, zero)
    result: Array = backend.rare_cond(
        hard, units, lambda a, b, spread, none: none, a, b, factors.largest(backend), none
    )
    return result


def common_units(backend: Backend, a: Array, b: Array) -> Array:
    """Exponents (B, n) of the units in which the mean with t = 1/2 has a diagonal of at most 1."""
    return (backend.exponent(_diagonal(backend, a)) + backend.exponent(_diagonal(backend, b))) // 4


def graded_apart(backend: Backend, a: Array, b: Array, factors: CholeskyPair, rtol: float | None) -> Array:
    """Which pairs have much smaller condition numbers if A and B have units of their own, as no common units are good for both.

    `factors` are those in common units.
    """
    none = all_false(backend, a)
    if rtol is not None:
        return none
    zero, spread = rank_tolerance(backend, a, None), factors.largest(backend)
    hard = is_nearly_hermitian(backend, a) & is_nearly_hermitian(backend, b) & factors.hard(backend, zero)

    def is_better(a: Array, b: Array, spread: Array, none: Array) -> Array:
        units = (backend.exponent(_diagonal(backend, x)) // 2 for x in (a, b))
        own = cholesky_pair(backend, *(rescale(backend, x, u, u) for x, u in zip((a, b), units, strict=True)))
        better = ~(own.largest(backend) > 0.03 * spread)
        return own.definite(backend, zero) & better

    result: Array = backend.rare_cond(hard, is_better, lambda a, b, spread, none: none, a, b, spread, none)
    return result


def rounding_of_powers(backend: Backend, factors: CholeskyPair, t: float, zero: float) -> Array:
    """The size of the change of K (M Mᴴ)^t Kᴴ, M = K⁻¹ L, by rounding of its singular values (B, n, n); 0 for indefinite pairs.

    A change E of M changes the entry i, j of the power, in the singular vectors, by E times at most
    max(1, 2t) max(σᵢ, σⱼ)^{2t-1}, and on the diagonal by 2t σᵢ^{2t-1}. This is small beside the power, but K may magnify it.
    """
    xp = backend.xp

    def size(k: Array, low: Array, swap: Array) -> Array:
        first, second = xp.where(swap, low, k), xp.where(swap, k, low)
        u, values, _ = backend.svd(backend.solve(first, second))
        s = 2 * xp.where(swap[:, 0], (1 - t) * xp.ones_like(values), t * xp.ones_like(values))
        top, s = xp.maximum(values[:, :, None], values[:, None, :]), s[..., None]
        slope = xp.where(eye(backend, top) > 0, s, xp.maximum(s, xp.ones_like(s))) * top ** (s - 1)
        ku = xp.abs(first @ u)
        return ku @ (backend.eps(k) * values[:, :1, None] * slope) @ ku.mT

    swap = broadcast_scalar(factors.spread > factors.spread_b)
    result: Array = backend.masked_cond(
        factors.definite(backend, zero),
        size,
        lambda k, low, swap: xp.zeros_like(xp.abs(k)),
        *(factors.k, factors.low, swap),
    )
    return result


def _diagonal(backend: Backend, a: Array) -> Array:
    return abs(backend.xp.linalg.diagonal(a).real)
