"""Derivatives of the Karcher mean M of A₁ … A_k: one linear equation, that of Newton's method, at the solution.

With R = M^{1/2}, Bᵢ = R⁻¹ Aᵢ R⁻¹, L(B, ·) the Fréchet derivative of the logarithm and weights of sum 1,

    H(E) = Σ wᵢ L(Bᵢ, (E Bᵢ + Bᵢ E)/2)      self-adjoint and positive definite

tangent(A, w, dA, dw):     H(E) = Σ wᵢ L(Bᵢ, R⁻¹ dAᵢ R⁻¹) + dwᵢ log Bᵢ,      dM = R E R
cotangent(A, w, M̄):        H(Y) = R M̄ R,      Āᵢ = wᵢ R⁻¹ L(Bᵢ, Y) R⁻¹,      w̄ᵢ = Re tr(log Bᵢ Y)

H⁻¹ is an operation of its own, for second derivatives: with Yᵢ = L(Bᵢ, Xᵢ), Xᵢ = (E Bᵢ + Bᵢ E)/2,

    H(dE) = dQ - Σ dwᵢ Yᵢ + wᵢ dYᵢ.

All is in units of rows and columns that make the diagonal of M about 1.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.members import Solution, solution
from matsign.core.operations import Operation, apply, shapes_of
from matsign.functions.means.karcher_methods import Logarithms, solve_hessian_of
from matsign.functions.means.matrix_collections import (
    Weights,
    as_collections,
    cotangent_of_weights,
    diagonal_units,
    flat,
    inner_products,
    normalised_weights,
    spread_units,
    tangent_of_weights,
    weighted_sum,
)
from matsign.functions.powers.power_derivatives import (
    frechet_cotangent,
    frechet_derivative,
    frechet_tangent,
    power_inside,
)
from matsign.functions.powers.square_roots import SQRTM_PAIR
from matsign.linalg.scalar_powers import LOGARITHM
from matsign.linalg.stacks import adjoint, broadcast_scalar, hermitian, to_double

_LOG: dict[str, Any] = {"power": LOGARITHM, "rtol": 0.0}


class _AtMean(NamedTuple):
    """Units u, R and R⁻¹ in these, the collection Bᵢ, and the weights."""

    u: Array
    root: Array
    inverse: Array
    b: Array
    weights: Weights

    def inward(self, backend: Backend, x: Array) -> Array:
        """R⁻¹ x R⁻¹ of one matrix or of each of a collection."""
        inverse = self.inverse if x.ndim == 3 else self.inverse[:, None]
        return inverse @ backend.ldexp(hermitian(x), -spread_units(x, self.u)) @ inverse

    def adjoint_inward(self, backend: Backend, bar: Array) -> Array:
        """The cotangent of each of a collection for that of R⁻¹ x R⁻¹."""
        inverse = self.inverse[:, None]
        return backend.ldexp(hermitian(inverse @ bar @ inverse), -spread_units(bar, self.u))

    def adjoint_outward(self, backend: Backend, bar: Array) -> Array:
        """The cotangent R M̄ R of E for that of dM = R E R."""
        return self.root @ backend.ldexp(hermitian(bar), spread_units(bar, self.u)) @ self.root

    def logarithms(self, backend: Backend) -> Array:
        return as_collections(power_inside(backend, flat(self.b), **_LOG), self.b)


def _at_mean(backend: Backend, m: Array, stack: Array, weights: Array | None) -> _AtMean:
    u = diagonal_units(backend, backend.stop_gradient(m))
    scaled = backend.ldexp(hermitian(m), -spread_units(m, u))
    root, inverse = apply(backend, SQRTM_PAIR.operation, scaled, rtol=None, method="auto")
    at = _AtMean(u, root, inverse, stack, normalised_weights(backend, weights, stack))
    b = at.inward(backend, stack)
    # The value of an exactly Hermitian matrix, and the derivative of the product.
    fixed = backend.stop_gradient(b)
    return at._replace(b=hermitian(fixed) + (b - fixed))


def karcher_tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays) -> Arrays:
    (stack, weights), (da, dw) = arrays, tangents
    at = _at_mean(backend, value[0], stack, weights)
    change = frechet_derivative(backend, flat(at.b), flat(at.inward(backend, da)), **_LOG)
    q = weighted_sum(backend, at.weights.w, as_collections(change, at.b))
    if dw is not None:
        q = q + weighted_sum(backend, tangent_of_weights(backend, at.weights, dw), at.logarithms(backend))
    e = apply(backend, _HESSIAN, at.b, at.weights.w, hermitian(q))[0]
    return (backend.ldexp(at.root @ e @ at.root, spread_units(e, at.u)),)


def karcher_cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays) -> Arrays:
    stack, weights = arrays
    at = _at_mean(backend, value[0], stack, weights)
    y = apply(backend, _HESSIAN, at.b, at.weights.w, at.adjoint_outward(backend, cotangents[0]))[0]
    change = frechet_derivative(backend, flat(at.b), flat(y[:, None] + 0 * at.b), **_LOG)
    bar = as_collections(change, at.b) * at.weights.w[:, :, None, None]
    bar = at.adjoint_inward(backend, bar)
    if weights is None:
        return bar, None
    bar_w = inner_products(backend, at.logarithms(backend), y)
    return bar, cotangent_of_weights(backend, at.weights, bar_w, backend.dtype_name(weights))


# The operation E = H⁻¹(Q).


def _solve_hessian(backend: Backend, b: Array, w: Array, q: Array) -> Solution:
    kind = backend.dtype_name(q)
    b, w, q = (to_double(backend, x) for x in (b, w, q))
    values, v = backend.eigh(flat(hermitian(b)))
    parts = Logarithms(as_collections(v, b), as_collections(backend.xp.log(values), b))
    found = solve_hessian_of(backend, parts, w, q, 4 * backend.eps(q))
    x = backend.xp.where(broadcast_scalar(found.gap < 1e-3), found.x, backend.xp.full_like(found.x, math.nan))
    return solution(backend, (backend.astype(x, kind),))


def _symmetric(e: Array, b: Array) -> Array:
    """(E Bᵢ + Bᵢ E)/2."""
    return (e[:, None] @ b + b @ e[:, None]) / 2


def _terms(backend: Backend, b: Array, e: Array) -> Array:
    """Yᵢ = L(Bᵢ, (E Bᵢ + Bᵢ E)/2)."""
    return as_collections(frechet_derivative(backend, flat(b), flat(_symmetric(e, b)), **_LOG), b)


def _hessian_tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays) -> Arrays:
    (e,), (b, w, _), (db, dw, dq) = value, arrays, tangents
    db = hermitian(db)
    change = frechet_tangent(backend, (flat(b), flat(_symmetric(e, b))), (flat(db), flat(_symmetric(e, db))), **_LOG)
    q = dq - weighted_sum(backend, w, as_collections(change, b)) - weighted_sum(backend, dw, _terms(backend, b, e))
    return (apply(backend, _HESSIAN, b, w, q)[0],)


def _hessian_cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays) -> Arrays:
    (e,), (b, w, _) = value, arrays
    y = apply(backend, _HESSIAN, b, w, cotangents[0])[0]
    bar_b, bar_x = (
        as_collections(x, b)
        for x in frechet_cotangent(backend, (flat(b), flat(_symmetric(e, b))), flat(y[:, None] + 0 * b), **_LOG)
    )
    bar_b = hermitian(bar_b + _symmetric(adjoint(e), bar_x)) * w[:, :, None, None]
    return -bar_b, -inner_products(backend, _terms(backend, b, e), y), y


_HESSIAN = Operation(
    "Hessian of the cost of the Karcher mean",
    shapes_of("(k,n,n),(k),(n,n)"),
    shapes_of("(n,n)"),
    solve=_solve_hessian,
    tangent=_hessian_tangent,
    cotangent=_hessian_cotangent,
    linear=True,
)
