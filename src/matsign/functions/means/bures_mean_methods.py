"""How the Bures mean M of semidefinite matrices A₁ … A_k is computed: Newton's method for the residual

    G(M) = Σ wᵢ Sᵢ - LᴴL = 0,    Sᵢ = (Lᴴ Aᵢ L)^{1/2},    M = L Lᴴ,    LᴴL = diag(m).

Tᵢ = L⁻ᴴ Sᵢ L⁻¹ is the optimal map from M to Aᵢ, and G = 0 says that the mean of these maps is the identity. A change L E Lᴴ of M
changes L⁻ᴴ G L⁻¹ by -L⁻ᴴ H(E) L⁻¹. With the eigenvectors Pᵢ and eigenvalues s of Sᵢ,

    H(E) = Σ wᵢ Pᵢ (C ∘ Pᵢᴴ E Pᵢ) Pᵢᴴ,    c_ab = s_a s_b / (s_a + s_b).

H is self-adjoint, and at most E → D ∘ E with d_ab = m_a m_b / (m_a + m_b), because such means are concave. With this as the
preconditioner conjugate gradients take few steps where the matrices are not far apart, however ill-conditioned they are. The
size of G is measured in its norm: it is the length of the gradient of the cost in the metric. With Aᵢ = Kᵢ Kᵢᴴ, the eigenvalues
of Sᵢ are the singular values of LᴴKᵢ.

The iteration starts from (Σ wᵢ Aᵢ^{1/2})², the mean of commuting matrices. Where a Newton step does not halve the residual, it
takes a step of the fixed point L ← L⁻ᴴ Σ wᵢ Sᵢ, which converges from everywhere, for commuting matrices in one step. Sources:
Álvarez-Esteban, del Barrio, Cuesta-Albertos & Matrán 2016, Bhatia, Jain & Lim 2019.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.members import Solution, overflow_failure, solution
from matsign.core.tolerances import rank_tolerance
from matsign.functions.distances import semidefinite_pairs as pairs
from matsign.functions.means.matrix_collections import (
    as_collections,
    first_index,
    flat,
    normalised_weights,
    of_first,
    refuse,
    refuse_weights,
    schur_product_in,
    weighted_sum,
)
from matsign.iterations.conjugate_gradients import LinearSolution, conjugate_gradients
from matsign.iterations.safeguarded_newton import Point, safeguarded_newton
from matsign.linalg.stacks import adjoint, broadcast_scalar, hermitian, inner, safe_divisor, scale_to_unit, to_double


class Roots(NamedTuple):
    """Eigenvectors Pᵢ (B, k, n, n) and eigenvalues s (B, k, n) of Sᵢ."""

    p: Array
    s: Array

    def matrices(self) -> Array:
        return self.p * self.s[:, :, None, :] @ adjoint(self.p)

    def sums(self) -> Array:
        return self.s[..., :, None] + self.s[..., None, :]


def half_harmonic(backend: Backend, s: Array) -> Array:
    """s_a s_b / (s_a + s_b), 0 for zeros."""
    left, right = s[..., :, None], s[..., None, :]
    return left * (right / safe_divisor(backend, left + right))


def preconditioner(backend: Backend, m: Array) -> Array:
    """(m_a + m_b) / (m_a m_b), and 0 on the null space, where m is 0."""
    one = backend.xp.ones_like(m)
    inverse = backend.xp.where(m > 0, one / safe_divisor(backend, m), 0 * one)
    both = (m > 0)[..., :, None] & (m > 0)[..., None, :]
    sums = inverse[..., :, None] + inverse[..., None, :]
    return backend.xp.where(both, sums, 0 * sums)


def _apply_hessian(backend: Backend, data: Arrays, x: Array) -> Array:
    p, kernel, w, _ = data
    return weighted_sum(backend, w, schur_product_in(p, kernel, x))


def solve_hessian_of(
    backend: Backend, roots: Roots, w: Array, m: Array, q: Array, tol: float | Array
) -> LinearSolution:
    """E with H(E) = q."""
    data = (roots.p, half_harmonic(backend, roots.s), w, preconditioner(backend, m))
    return conjugate_gradients(backend, _apply_hessian, lambda backend, data, r: data[3] * r, data, q, tol, 1000)


class Frame(NamedTuple):
    """U and m of M = U diag(m) Uᴴ, and L = U diag(√m)."""

    u: Array
    m: Array
    factor: Array


def frame_of(backend: Backend, factor: Array) -> Frame:
    """That of L Lᴴ for any L; eigenvalues of the size of rounding are zero."""
    u, values, _ = backend.svd(factor)
    kept = values > 10 * factor.shape[-2] * backend.eps(factor) * values[:, :1]
    values = backend.xp.where(kept, values, 0 * values)
    return Frame(u, values**2, u * values[:, None, :])


def roots_beside(backend: Backend, factor: Array, k: Array) -> Roots:
    """Those of Lᴴ Kᵢ Kᵢᴴ L, by singular values of Lᴴ Kᵢ where its square is ill-conditioned."""
    x = flat(adjoint(factor)[:, None] @ k)
    values, p = backend.eigh(hermitian(x @ adjoint(x)))
    good = values[:, 0] > _NARROW * values[:, -1]

    def by_singular_values(x: Array, p: Array, values: Array) -> tuple[Array, Array]:
        p, s, _ = backend.svd(x)
        return p, s

    def by_eigenvalues(x: Array, p: Array, values: Array) -> tuple[Array, Array]:
        return backend.xp.flip(p, axis=-1), backend.xp.sqrt(backend.xp.flip(values, axis=-1))

    p, s = backend.rare_cond(~good, by_singular_values, by_eigenvalues, x, p, values)
    return Roots(as_collections(p, k), as_collections(s, k))


# Eigenvalues of a matrix of this reciprocal condition number have enough digits.
_NARROW = 1e-3


def gap_beside(backend: Backend, roots: Roots, w: Array, m: Array) -> Array:
    """G, on the range of M."""
    diagonal = (backend.eye(m.shape[-1], m) + 0 * roots.p[:, 0]) * m[:, None, :]
    gap = hermitian(weighted_sum(backend, w, roots.matrices())) - diagonal
    return backend.xp.where(preconditioner(backend, m) > 0, gap, 0 * gap)


def size_of_gap(backend: Backend, gap: Array, m: Array) -> Array:
    """The norm of G in the metric at M, relative to the root of tr M."""
    square = inner(backend, gap, preconditioner(backend, m) * gap)
    return backend.xp.sqrt(abs(square) / safe_divisor(backend, backend.xp.sum(m, axis=-1)))


# The relative residual to which conjugate gradients solve for a Newton step.
_STEP_TOL = 1e-6
# No more is put down to rounding.
_LARGEST_ROUNDING = 1e-5


def _evaluate(backend: Backend, data: Arrays, factor: Array) -> Point:
    """The next factors are (I + X) L: by Newton's method with X M + M X = L E Lᴴ, by the fixed point with I + X = Σ wᵢ Tᵢ."""
    k, w = data
    f = frame_of(backend, factor)
    roots = roots_beside(backend, f.factor, k)
    gap = gap_beside(backend, roots, w, f.m)
    size, near = size_of_gap(backend, gap, f.m), rounding(backend, f.m)
    enough = backend.xp.minimum(near / 200, 10 * f.m.shape[-1] * backend.eps(near) + 0 * near)
    tol = backend.xp.where(size <= enough, backend.xp.ones_like(size), _STEP_TOL)
    e = hermitian(solve_hessian_of(backend, roots, w, f.m, gap, tol).x)
    root = backend.xp.sqrt(f.m)[:, None, :]
    x = e * root.mT * root / safe_divisor(backend, f.m[:, :, None] + f.m[:, None, :])
    inverse = backend.xp.where(root > 0, 1 / safe_divisor(backend, root), 0 * root)
    newton, safe = f.factor + f.u @ x * root, f.factor + f.u * inverse @ gap
    return Point(factor, size, newton, safe, near, enough)


def _count(backend: Backend, mask: Array) -> Array:
    return backend.xp.sum(backend.astype(mask, "float32"), axis=-1)


class Semidefinite(NamedTuple):
    """Factors Kᵢ of 2^-e Aᵢ with an even e, 0 for weights of 0, in double precision, and weights of sum 1.

    `least` are the smallest eigenvalues relative to the largest, `top` the largest, `rank` their numbers.
    """

    a: Array
    k: Array
    w: Array
    e: Array
    least: Array
    top: Array
    rank: Array


def in_one_unit(backend: Backend, stack: Array, weights: Array | None, rtol: float | None) -> Semidefinite:
    xp, a = backend.xp, hermitian(to_double(backend, stack))
    w = normalised_weights(backend, None if weights is None else to_double(backend, weights), a).w
    a = xp.where((w == 0)[:, :, None, None], xp.zeros_like(a), a)
    b, count, n, _ = a.shape
    scaled, e = scale_to_unit(backend, a.reshape((b, count * n, n)))
    scaled = backend.ldexp(scaled, broadcast_scalar(-(e % 2))).reshape(a.shape)
    f = pairs.factor(backend, flat(scaled), rank_tolerance(backend, stack, rtol))
    k = backend.ldexp(f.factor, broadcast_scalar(f.e // 2))
    rank = _count(backend, xp.sum(xp.abs(k), axis=-2) > 0)
    parts = (x.reshape((b, count)) for x in (f.least, backend.ldexp(f.top, f.e), rank))
    return Semidefinite(scaled, as_collections(k, a), w, e + e % 2, *parts)


def _square_roots(backend: Backend, k: Array) -> Array:
    """Aᵢ^{1/2} for factors Kᵢ with orthogonal columns."""
    lengths = backend.xp.sqrt(backend.xp.sum(backend.xp.abs(k) ** 2, axis=-2, keepdims=True))
    half = k / backend.xp.sqrt(safe_divisor(backend, lengths))
    return half @ adjoint(half)


def solve_bures(backend: Backend, stack: Array, weights: Array | None, *, rtol: float | None) -> Solution:
    xp, c = backend.xp, in_one_unit(backend, stack, weights, rtol)
    n = c.a.shape[-1]
    roots = weighted_sum(backend, c.w, _square_roots(backend, c.k))
    factor, size, steps = safeguarded_newton(backend, _evaluate, (c.k, c.w), frame_of(backend, roots).factor)
    f = frame_of(backend, factor)
    failed = ~(size <= xp.maximum(rounding(backend, f.m), 10 * n * backend.eps(stack) + 0 * size))
    value = backend.ldexp(hermitian(f.factor @ adjoint(f.factor)), broadcast_scalar(c.e))
    value = backend.astype(value, backend.dtype_name(stack))
    result = solution(backend, (value,), Failure.NO_BURES_MEAN, failed, steps, size)
    result = result._replace(failure=overflow_failure(backend, value, result.failure))
    result = _without_definite(backend, c, _count(backend, f.m > 0), result)
    bad = c.least < pairs.largest_negative(backend, stack, rtol)
    which = first_index(backend, bad)
    eigenvalue = backend.ldexp(of_first(backend, which, c.least * c.top), c.e)
    result = refuse(backend, result, Failure.NOT_SEMIDEFINITE, bad.any(-1), which + 1j * eigenvalue)
    return refuse_weights(backend, weights, result)


def rounding(backend: Backend, m: Array) -> Array:
    """What rounding may leave of the size of G: it is magnified by the root of the condition number of M."""
    xp, n = backend.xp, m.shape[-1]
    smallest = xp.min(xp.where(m > 0, m, math.inf * xp.ones_like(m)), axis=-1)
    noise = 100 * n * backend.eps(m) * xp.sqrt(m[:, 0] / safe_divisor(backend, smallest))
    return xp.minimum(noise, _LARGEST_ROUNDING + 0 * noise)


def _without_definite(backend: Backend, c: Semidefinite, rank: Array, result: Solution) -> Solution:
    """The failure where no matrix has the range of all together: there may be several means."""
    largest = backend.xp.max(c.rank, axis=-1)
    return refuse(backend, result, Failure.NO_DEFINITE_MATRIX, largest < rank, largest + 1j * rank)
