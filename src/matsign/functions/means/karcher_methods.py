"""How the Karcher mean M of definite matrices A₁ … A_k is computed: Newton's method for the residual

    S(M) = Σ wᵢ log Bᵢ = 0,    Bᵢ = L⁻¹ Aᵢ L⁻ᴴ,    M = L Lᴴ.

A step L (I + E/2) changes Bᵢ by -(E Bᵢ + Bᵢ E)/2 and S by -H(E). With the eigenvectors Vᵢ and the logarithms l of the eigenvalues
of Bᵢ,

    H(E) = Σ wᵢ Vᵢ (C ∘ Vᵢᴴ E Vᵢ) Vᵢᴴ,    c_ab = d coth d,    d = (l_a - l_b)/2.

H is self-adjoint with eigenvalues from 1 to max c, about half the logarithm of the largest condition number of a Bᵢ. So conjugate
gradients solve H(E) = S in few steps, and Newton's step decreases ‖S‖ from everywhere. With Aᵢ = Kᵢ Kᵢᴴ the eigenvalues of Bᵢ are
the squares of the singular values of L⁻¹Kᵢ, which keeps digits of small ones.

Each Aᵢ has a unit 2^eᵢ of its own, as the mean is homogeneous, and rows and columns have common units, as it is congruent.
Sources: Moakher 2005, Bini & Iannazzo 2013 (equation and operator), Jeuris, Vandebril & Vandereycken 2012 (methods).
"""

from __future__ import annotations

import math
from typing import NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.members import Solution, overflow_failure, solution
from matsign.core.tolerances import rank_tolerance
from matsign.functions.means.matrix_collections import (
    as_collections,
    diagonal_units,
    first_index,
    flat,
    normalised_weights,
    of_first,
    refuse,
    refuse_weights,
    schur_product_in,
    spread_units,
    weighted_sum,
)
from matsign.iterations.conjugate_gradients import LinearSolution, conjugate_gradients
from matsign.iterations.damped_newton import Descent, damped_newton, is_rounding
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye, hermitian, safe_divisor, scale_to_unit, to_double


class Logarithms(NamedTuple):
    """Eigenvectors Vᵢ (B, k, n, n) of Bᵢ and the logarithms of its eigenvalues (B, k, n)."""

    v: Array
    logs: Array

    def matrices(self) -> Array:
        """log Bᵢ."""
        return self.v * self.logs[:, :, None, :] @ adjoint(self.v)

    def half_differences(self) -> Array:
        return (self.logs[..., :, None] - self.logs[..., None, :]) / 2


def hessian_kernel(backend: Backend, parts: Logarithms) -> Array:
    """d coth d."""
    d = parts.half_differences()
    one = backend.xp.ones_like(d)
    safe = backend.xp.where(d == 0, one, d)
    return backend.xp.where(d == 0, one, safe / backend.xp.tanh(safe))


def _hessian(backend: Backend, data: Arrays, x: Array) -> Array:
    v, kernel, w = data
    return weighted_sum(backend, w, schur_product_in(v, kernel, x))


def solve_hessian_of(backend: Backend, parts: Logarithms, w: Array, q: Array, tol: float | Array) -> LinearSolution:
    """E with H(E) = q."""
    data = (parts.v, hessian_kernel(backend, parts), w)
    return conjugate_gradients(backend, _hessian, lambda backend, data, r: r, data, q, tol, 400)


def logarithms_beside(backend: Backend, factor: Array, k: Array) -> Logarithms:
    """Those of L⁻¹ Kᵢ Kᵢᴴ L⁻ᴴ."""
    b, count, n, _ = k.shape
    wide = backend.xp.permute_dims(k, (0, 2, 1, 3)).reshape((b, n, count * n))
    inside = backend.solve(factor, wide).reshape((b, n, count, n))
    u, logs = _logarithms(backend, flat(backend.xp.permute_dims(inside, (0, 2, 1, 3))))
    return Logarithms(as_collections(u, k), as_collections(logs, k))


def _logarithms(backend: Backend, x: Array) -> tuple[Array, Array]:
    """The eigenvectors of x xᴴ and the logarithms of its eigenvalues; by singular values of x where it is ill-conditioned."""
    values, u = backend.eigh(hermitian(x @ adjoint(x)))
    good = values[:, 0] > _NARROW * values[:, -1]

    def by_singular_values(x: Array, u: Array, values: Array) -> tuple[Array, Array]:
        u, values, _ = backend.svd(x)
        return u, 2 * backend.xp.log(values)

    result: tuple[Array, Array] = backend.rare_cond(
        ~good, by_singular_values, lambda x, u, values: (u, backend.xp.log(values)), x, u, values
    )
    return result


# Eigenvalues of a matrix of this reciprocal condition number have enough digits.
_NARROW = 1e-3
# The relative residual to which conjugate gradients solve for a Newton step.
_STEP_TOL = 1e-4


def _evaluate(backend: Backend, data: Arrays, factor: Array) -> Descent:
    k, w = data
    parts = logarithms_beside(backend, factor, k)
    s = hermitian(weighted_sum(backend, w, parts.matrices()))
    s = backend.xp.where(backend.xp.isfinite(s), s, backend.xp.full_like(s, math.nan))
    gap, noise = backend.norm(s), _noise(backend, parts)
    done = is_rounding(backend, gap, noise, s.shape[-1])
    tol = backend.xp.where(done, backend.xp.ones_like(gap), _STEP_TOL)
    return Descent(gap, noise, solve_hessian_of(backend, parts, w, s, tol).x)


def _noise(backend: Backend, parts: Logarithms) -> Array:
    """The size of ‖S‖ that rounding leaves: errors of L⁻¹Kᵢ are magnified by its condition number."""
    xp, logs = backend.xp, parts.logs
    spread = xp.exp((xp.max(logs, axis=-1) - xp.min(logs, axis=-1)) / 2)
    return logs.shape[-1] * backend.eps(parts.v) * xp.max(spread, axis=-1) / 2


class Collection(NamedTuple):
    """Definite matrices 2^eᵢ D Aᵢ D with a diagonal D of powers 2^u, in double precision, and weights of sum 1.

    `factors` are the Cholesky factors of Aᵢ. The mean has the unit 2^whole 2^fraction beside D.
    """

    a: Array
    factors: Array
    w: Array
    u: Array
    whole: Array
    fraction: Array

    def inward(self, backend: Backend, m: Array) -> Array:
        """A mean in units of the caller, in those of the collection."""
        m = backend.ldexp(m, -(spread_units(m, self.u) + broadcast_scalar(self.whole)))
        return m / broadcast_scalar(2.0**self.fraction)

    def outward(self, backend: Backend, m: Array) -> Array:
        m = m * broadcast_scalar(2.0**self.fraction)
        return backend.ldexp(m, spread_units(m, self.u) + broadcast_scalar(self.whole))


def in_own_units(backend: Backend, stack: Array, weights: Array | None) -> Collection:
    a = hermitian(to_double(backend, stack))
    weight = normalised_weights(backend, None if weights is None else to_double(backend, weights), a)
    scaled, e = scale_to_unit(backend, flat(a))
    u = diagonal_units(backend, weighted_sum(backend, weight.w, as_collections(scaled, a)))
    scaled = backend.ldexp(as_collections(scaled, a), -spread_units(a, u))
    scaled, more = scale_to_unit(backend, flat(scaled))
    whole, fraction = _mean_exponent(backend, weight.given, weight.total, (e + more).reshape(a.shape[:2]))
    return Collection(
        as_collections(scaled, a), as_collections(backend.cholesky(scaled), a), weight.w, u, whole, fraction
    )


def _mean_exponent(backend: Backend, given: Array, total: Array, e: Array) -> tuple[Array, Array]:
    """Σ wᵢ eᵢ as an integer and the rest, which is exact for equal weights."""
    first = e[:, :1]
    away = backend.xp.sum(given * backend.astype(e - first, backend.dtype_name(given)), axis=-1)
    whole = backend.xp.floor(away / safe_divisor(backend, total))
    fraction = (away - whole * total) / safe_divisor(backend, total)
    finite = backend.xp.where(backend.xp.isfinite(whole), whole, 0 * total)
    return first[:, 0] + backend.xp.astype(finite, first.dtype), fraction


def _smallest_eigenvalues(backend: Backend, c: Collection) -> Array:
    """The smallest eigenvalue (B, k) of Aᵢ in units that make its diagonal 1, where that is positive; NaN if it is not finite."""
    xp = backend.xp
    diagonal = flat(c.a.real) * eye(backend, c.a.real[:, 0])
    diagonal = xp.sum(diagonal, axis=-1)
    root = xp.sqrt(xp.where(diagonal > 0, diagonal, xp.ones_like(diagonal)))
    values = xp.linalg.eigvalsh(flat(c.a) / (root[:, :, None] * root[:, None, :]))
    return values[:, 0].reshape(c.a.shape[:2])


def is_indefinite(backend: Backend, stack: Array, c: Collection) -> tuple[Array, Array]:
    """Which matrices (B, k) are not definite to the precision of the stack, and their `_smallest_eigenvalues`."""
    least = _smallest_eigenvalues(backend, c)
    finite = backend.xp.isfinite(c.factors).all((-1, -2))
    return ~(least > rank_tolerance(backend, stack, None)) | ~finite, least


def solve_karcher(backend: Backend, stack: Array, weights: Array | None) -> Solution:
    xp, c = backend.xp, in_own_units(backend, stack, weights)
    indefinite, least = is_indefinite(backend, stack, c)
    bad = indefinite.any(-1)
    # Members without an answer are replaced by identity matrices of equal weights.
    one = eye(backend, c.a[:, 0])[:, None] + 0 * c.a
    a, factors = (xp.where(bad[:, None, None, None], one, x) for x in (c.a, c.factors))
    usable = (c.w >= 0).all(-1) & (xp.sum(c.w, axis=-1) > 0.5)
    w = xp.where(usable[:, None], c.w, xp.ones_like(c.w) / c.w.shape[-1])
    start = backend.cholesky(hermitian(weighted_sum(backend, w, a)))
    factor, gap, noise, steps = damped_newton(backend, _evaluate, (factors, w), start)
    value = backend.astype(c.outward(backend, hermitian(factor @ adjoint(factor))), backend.dtype_name(stack))
    failed = ~(gap <= _rounding(backend, stack, noise, least))
    result = solution(backend, (value,), Failure.NO_KARCHER_MEAN, failed, steps, gap)
    result = result._replace(failure=overflow_failure(backend, value, result.failure))
    which = first_index(backend, indefinite)
    detail = which + 1j * of_first(backend, which, least)
    result = refuse(backend, result, Failure.NOT_A_POINT, bad, detail)
    return refuse_weights(backend, weights, result)


def _rounding(backend: Backend, stack: Array, noise: Array, least: Array) -> Array:
    """What rounding may leave of ‖S‖ at most: errors are magnified by the condition number of L⁻¹Kᵢ or of Kᵢ."""
    xp, n = backend.xp, stack.shape[-1]
    of_factors = 100 * n * backend.eps(noise) * xp.max(1 / xp.sqrt(least), axis=-1)
    return xp.maximum(xp.maximum(200 * noise, of_factors), 10 * n * backend.eps(stack) + 0 * noise)
