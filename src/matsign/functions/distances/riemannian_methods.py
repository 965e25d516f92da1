"""The generalised eigenvalues of a positive definite pair, as logarithms, and its derivatives.

With A = K Kᴴ, B = L Lᴴ and K⁻¹L = U Σ Wᴴ, the eigenvalues of A⁻¹B are λ = σ², and

    d² = Σ log² λ,    d(d²) = tr(G dA) + tr(H dB),
    G = -2 P(A, B),   H = -2 P(B, A),   P(A, B) = A^{-1/2} log(Y) A^{-1/2} = V log(Λ) Vᴴ,   Y = A^{-1/2} B A^{-1/2},   V = K⁻ᴴ U.

P has the differential, with E = A^{-1/2} dA A^{-1/2} and the Fréchet derivative L of the logarithm at Y (`power_derivatives`),

    dP = A^{-1/2} (L(A^{-1/2} dB A^{-1/2} - (E Y + Y E)/2) - (E log Y + log Y E)/2) A^{-1/2}.

For near matrices the eigenvalues of K⁻¹(B - A)K⁻ᴴ are λ - 1: nothing is lost in the difference. Units of the rows and columns,
which d does not depend on, make graded pairs well conditioned. Source: Bhatia 2007, chapter 6.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.members import Solution, solution
from matsign.linalg.equilibration import rescale
from matsign.linalg.stacks import (
    adjoint,
    broadcast_scalar,
    eye,
    hermitian,
    safe_divisor,
    scale_to_unit,
    to_double,
)

# Exponents of A and B that differ by less are made equal, so that B - A is exact for near matrices.
_NEAR = 3
# From this spread of the singular values on, the smaller ones are taken from the inverse.
_WIDE = 1e3


class Factors(NamedTuple):
    """K and L of A = K Kᴴ and B = L Lᴴ, and their inverses; NaN where a matrix is not definite."""

    k: Array
    low: Array
    k_inverse: Array
    low_inverse: Array


class Pair(NamedTuple):
    """2^-ea A and 2^-eb B in units of rows and columns, 2^-(uᵢ + uⱼ) aᵢⱼ; λ of the arguments is e^shift times theirs."""

    a: Array
    b: Array
    u: Array
    ea: Array
    eb: Array
    factors: Factors

    def shift(self, backend: Backend) -> Array:
        return backend.astype(self.eb - self.ea, backend.dtype_name(self.a.real)) * math.log(2)

    def definite(self, backend: Backend, zero: float) -> Arrays:
        """Whether A is definite to working precision, and B: False also for NaN."""
        f = self.factors
        return (
            _is_definite(backend, self.a, f.k, f.k_inverse, zero),
            _is_definite(backend, self.b, f.low, f.low_inverse, zero),
        )


def _is_definite(backend: Backend, a: Array, k: Array, inverse: Array, zero: float) -> Array:
    """Whether the smallest eigenvalue of A = K Kᴴ is more than `zero` times the largest one."""
    # The root of tr A tr A⁻¹, which is at least the condition and at most n times that.
    bound = backend.norm(k) * backend.norm(inverse)
    clear = bound * math.sqrt(zero) < 1

    def by_values(a: Array, clear: Array) -> Array:
        values, _ = backend.eigh(a)
        return values[:, 0] > zero * values[:, -1]

    result: Array = backend.rare_cond(~clear & backend.xp.isfinite(bound), by_values, lambda a, clear: clear, a, clear)
    return result


def units(backend: Backend, a: Array, b: Array) -> Array:
    """Exponents (B, n) for which the diagonals of A and B have products near 1."""
    diagonals = (backend.exponent(abs(backend.xp.linalg.diagonal(x).real)) for x in (a, b))
    return sum(diagonals) // 4


def in_units(backend: Backend, a: Array, b: Array) -> Pair:
    """In double precision."""
    (a, ea), (b, eb) = (scale_to_unit(backend, to_double(backend, x)) for x in (a, b))
    near = backend.xp.abs(ea - eb) < _NEAR
    b, eb = backend.ldexp(b, broadcast_scalar(backend.xp.where(near, eb - ea, 0 * eb))), backend.xp.where(near, ea, eb)
    u = units(backend, a, b)
    a, b = (hermitian(rescale(backend, x, u, u)) for x in (a, b))
    k, low = (backend.cholesky(x) for x in (a, b))
    return Pair(a, b, u, ea, eb, Factors(k, low, backend.inv(k), backend.inv(low)))


class Spectrum(NamedTuple):
    """log λ of A⁻¹B in the units of a pair, and V and W with A⁻¹ = V Vᴴ and B⁻¹ = W Wᴴ, whose columns are the eigenvectors."""

    logs: Array
    v: Array
    w: Array


def _near(backend: Backend, p: Pair) -> tuple[Array, Array]:
    """K⁻¹(B - A)K⁻ᴴ, and where it is small."""
    inverse = p.factors.k_inverse
    gap = hermitian(inverse @ (p.b - p.a) @ adjoint(inverse))
    return gap, (p.ea == p.eb) & (backend.norm(gap) < 0.5)


def logarithms(backend: Backend, p: Pair) -> Array:
    """log λ in the units of a pair, (B, n): by the difference of A and B where they are near, else by singular values."""
    gap, near = _near(backend, p)
    logs: Array = backend.masked_cond(
        near,
        lambda gap, f: backend.xp.log1p(backend.xp.linalg.eigvalsh(gap)),
        lambda gap, f: _logarithms(backend, backend.xp.linalg.svdvals(f.k_inverse @ f.low), f),
        *(gap, p.factors),
    )
    return logs


def spectrum(backend: Backend, p: Pair) -> Spectrum:
    """The same with the eigenvectors."""
    gap, near = _near(backend, p)

    def by_difference(gap: Array, f: Factors) -> Spectrum:
        values, u = backend.eigh(gap)
        v = adjoint(f.k_inverse) @ u
        return Spectrum(backend.xp.log1p(values), v, v / backend.xp.sqrt(1 + values)[:, None, :])

    def by_factors(gap: Array, f: Factors) -> Spectrum:
        u, values, wh = backend.svd(f.k_inverse @ f.low)
        logs = _logarithms(backend, values, f)
        return Spectrum(logs, adjoint(f.k_inverse) @ u, adjoint(f.low_inverse) @ adjoint(wh))

    result: Spectrum = backend.masked_cond(near, by_difference, by_factors, gap, p.factors)
    return result


def _logarithms(backend: Backend, values: Array, f: Factors) -> Array:
    """2 log σ. The relative error of σ is eps σmax/σ, that of 1/σ from the inverse is eps σ/σmin: each σ is the better one."""
    xp = backend.xp
    values = xp.where(values > 0, values, xp.ones_like(values))

    def from_both(values: Array, f: Factors) -> Array:
        inverses = xp.flip(xp.linalg.svdvals(f.low_inverse @ f.k), axis=-1)
        inverses = xp.where(inverses > 0, inverses, xp.ones_like(inverses))
        large = (values / values[:, :1]) * (values * inverses[:, -1:]) >= 1
        return xp.where(large, xp.log(values), -xp.log(inverses))

    wide = ~(values[:, 0] < _WIDE * values[:, -1])
    return 2 * backend.rare_cond(wide, from_both, lambda values, f: xp.log(values), values, f)


def squared_norm(backend: Backend, p: Pair, logs: Array) -> Array:
    """d²."""
    return backend.xp.sum((logs + p.shift(backend)[:, None]) ** 2, axis=-1)


def or_identity(backend: Backend, p: Pair, good: Array) -> Pair:
    """The pair, with I in place of A and B for the members that are not good: LAPACK must not get a NaN."""
    one, mask = eye(backend, p.a) + 0 * p.a, broadcast_scalar(good)
    a, b, *factors = (backend.xp.where(mask, x, one) for x in (p.a, p.b, *p.factors))
    return p._replace(a=a, b=b, factors=Factors(*factors))


def not_definite(backend: Backend, p: Pair, good: Arrays, result: Solution) -> Solution:
    """The solution with a failure where A or B is not good; the detail is its smallest eigenvalue over the largest."""

    def ratio(x: Array) -> Array:
        values, _ = backend.eigh(x)
        return values[:, 0] / safe_divisor(backend, backend.xp.max(abs(values), axis=-1))

    for x, definite, reason in zip((p.a, p.b), good, (Failure.NOT_DEFINITE_A, Failure.NOT_DEFINITE_B), strict=True):
        detail = backend.rare_cond(~definite, ratio, backend.ones, x)
        bad = ~definite & (result.failure == 0)
        mark = solution(backend, result.value, reason, bad, detail=detail)
        result = result._replace(
            failure=backend.xp.where(bad, mark.failure, result.failure),
            detail=backend.xp.where(bad[:, None], mark.detail, result.detail),
        )
    return result
