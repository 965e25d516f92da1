"""Derivatives of the Bures mean M of A₁ … A_k: one linear equation, that of Newton's method, at the solution.

With R = M^{1/2}, Sᵢ = (R Aᵢ R)^{1/2} and weights of sum 1,

    H(E) = Σ wᵢ Yᵢ,    Sᵢ Yᵢ + Yᵢ Sᵢ = Sᵢ E Sᵢ      self-adjoint and positive definite

tangent(A, w, dA, dw):     H(E) = Σ wᵢ Xᵢ + dwᵢ Sᵢ,    Sᵢ Xᵢ + Xᵢ Sᵢ = R dAᵢ R,      dM = R E R
cotangent(A, w, M̄):        H(Y) = R M̄ R,    Sᵢ Zᵢ + Zᵢ Sᵢ = Y,      Āᵢ = wᵢ R Zᵢ R,      w̄ᵢ = Re tr(Sᵢ Y)

H⁻¹ is an operation of its own, for second derivatives:

    H(dE) = dQ - Σ dwᵢ Yᵢ + wᵢ dYᵢ,    Sᵢ dYᵢ + dYᵢ Sᵢ = dSᵢ E Sᵢ + Sᵢ E dSᵢ - dSᵢ Yᵢ - Yᵢ dSᵢ.

They hold where M is definite. For a singular Aᵢ, Xᵢ is the change along directions that keep its range.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.members import Solution, solution
from matsign.core.operations import Operation, apply, shapes_of
from matsign.functions.means.bures_mean_methods import Roots, solve_hessian_of
from matsign.functions.means.matrix_collections import (
    Weights,
    as_collections,
    cotangent_of_weights,
    flat,
    inner_products,
    normalised_weights,
    tangent_of_weights,
    weighted_sum,
)
from matsign.functions.powers.square_roots import SQRTM
from matsign.iterations.differentiable_solves import sylvester_symmetric
from matsign.linalg.stacks import adjoint, broadcast_scalar, hermitian, to_double


class _AtMean(NamedTuple):
    """R, the collection Sᵢ, and the weights, in units 2^e of M and of all Aᵢ, e even."""

    root: Array
    s: Array
    weights: Weights
    e: Array

    def inside(self, backend: Backend, x: Array) -> Array:
        """R x R for one matrix or each of a collection."""
        root = self.root if x.ndim == 3 else self.root[:, None]
        return root @ hermitian(x) @ root

    def half_inverse(self, backend: Backend, q: Array) -> Array:
        """Xᵢ with Sᵢ Xᵢ + Xᵢ Sᵢ = qᵢ."""
        return as_collections(sylvester_symmetric(backend, flat(self.s), flat(q)), self.s)


def _root(backend: Backend, a: Array) -> Array:
    """The root of matrices that are exactly Hermitian, with the derivative of what they are computed from."""
    fixed = backend.stop_gradient(a)
    return apply(backend, SQRTM.operation, hermitian(fixed) + (a - fixed), rtol=None, method="auto")[0]


def _at_mean(backend: Backend, m: Array, stack: Array, weights: Array | None) -> _AtMean:
    e = backend.exponent(abs(backend.trace(backend.stop_gradient(m)).real))
    e = broadcast_scalar(e + e % 2)
    root = _root(backend, backend.ldexp(hermitian(m), -e))
    inside = root[:, None] @ backend.ldexp(hermitian(stack), -e[:, None]) @ root[:, None]
    return _AtMean(
        root, as_collections(_root(backend, flat(inside)), stack), normalised_weights(backend, weights, stack), e
    )


def bures_mean_tangent(
    backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, rtol: float | None
) -> Arrays:
    (stack, weights), (da, dw) = arrays, tangents
    at = _at_mean(backend, value[0], stack, weights)
    change = at.half_inverse(backend, at.inside(backend, backend.ldexp(da, -at.e[:, None])))
    q = weighted_sum(backend, at.weights.w, change)
    if dw is not None:
        q = q + weighted_sum(backend, tangent_of_weights(backend, at.weights, dw), at.s)
    e = apply(backend, _HESSIAN, at.s, at.weights.w, hermitian(q))[0]
    return (backend.ldexp(at.inside(backend, e), at.e),)


def bures_mean_cotangent(
    backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, rtol: float | None
) -> Arrays:
    stack, weights = arrays
    at = _at_mean(backend, value[0], stack, weights)
    y = apply(backend, _HESSIAN, at.s, at.weights.w, at.inside(backend, cotangents[0]))[0]
    z = at.half_inverse(backend, y[:, None] + 0 * at.s)
    bar = at.inside(backend, z) * at.weights.w[:, :, None, None]
    if weights is None:
        return bar, None
    bar_w = backend.ldexp(inner_products(backend, at.s, y), at.e[:, :, 0])
    return bar, cotangent_of_weights(backend, at.weights, bar_w, backend.dtype_name(weights))


# The operation E = H⁻¹(Q).


def _solve_hessian(backend: Backend, s: Array, w: Array, q: Array) -> Solution:
    """In the eigenvectors of Σ wᵢ Sᵢ = M."""
    kind = backend.dtype_name(q)
    s, w, q = (to_double(backend, x) for x in (s, w, q))
    m, u = backend.eigh(hermitian(weighted_sum(backend, w, s)))
    values, p = backend.eigh(flat(hermitian(s)))
    roots = Roots(adjoint(u)[:, None] @ as_collections(p, s), as_collections(backend.xp.clip(values, 0, None), s))
    found = solve_hessian_of(backend, roots, w, m, adjoint(u) @ q @ u, 4 * backend.eps(q))
    definite = m[:, 0] > 10 * m.shape[-1] * backend.eps(m) * m[:, -1]
    solved = broadcast_scalar(definite & (found.gap < 1e-3))
    x = backend.xp.where(solved, u @ found.x @ adjoint(u), backend.xp.full_like(q, math.nan))
    return solution(backend, (backend.astype(x, kind),))


def _halves(backend: Backend, s: Array, q: Array) -> Array:
    """Yᵢ with Sᵢ Yᵢ + Yᵢ Sᵢ = qᵢ."""
    return as_collections(sylvester_symmetric(backend, flat(s), flat(q)), s)


def _hessian_tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays) -> Arrays:
    (e,), (s, w, _), (ds, dw, dq) = value, arrays, tangents
    ds, e = hermitian(ds), e[:, None]
    y = _halves(backend, s, s @ e @ s)
    dy = _halves(backend, s, ds @ e @ s + s @ e @ ds - ds @ y - y @ ds)
    q = dq - weighted_sum(backend, w, dy) - weighted_sum(backend, dw, y)
    return (apply(backend, _HESSIAN, s, w, q)[0],)


def _hessian_cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays) -> Arrays:
    (e,), (s, w, _) = value, arrays
    q = apply(backend, _HESSIAN, s, w, cotangents[0])[0]
    y, z = _halves(backend, s, s @ e[:, None] @ s), _halves(backend, s, q[:, None] + 0 * s)
    across = adjoint(e)[:, None] @ s @ z - adjoint(y) @ z
    other = z @ s @ adjoint(e)[:, None] - z @ adjoint(y)
    bar_s = hermitian(across + other) * w[:, :, None, None]
    return -bar_s, -inner_products(backend, y, q), q


_HESSIAN = Operation(
    "Hessian of the cost of the Bures mean",
    shapes_of("(k,n,n),(k),(n,n)"),
    shapes_of("(n,n)"),
    solve=_solve_hessian,
    tangent=_hessian_tangent,
    cotangent=_hessian_cotangent,
    linear=True,
)
