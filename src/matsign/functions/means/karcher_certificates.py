"""Errors of a Karcher mean M = L Lᴴ with Bᵢ = L⁻¹ Aᵢ L⁻ᴴ and the residual S = Σ wᵢ log Bᵢ.

M is the exact mean of the matrices Aᵢ' = L exp(log Bᵢ - S) Lᴴ, whose differences from Aᵢ are to first order

    -L Vᵢ (F ∘ Vᵢᴴ S Vᵢ) Vᵢᴴ Lᴴ,    f_ab = (λ_a - λ_b)/(log λ_a - log λ_b):

the backward error is the largest of them relative to ‖Aᵢ‖. A correction is L E Lᴴ with H(E) = S, or with S replaced by its change
for rounding of all Aᵢ, by two random errors: one may miss the directions to which the mean is sensitive.
"""

from __future__ import annotations

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.public import Residual
from matsign.functions.means.karcher_methods import Logarithms, in_own_units, logarithms_beside, solve_hessian_of
from matsign.functions.means.matrix_collections import (
    as_collections,
    flat,
    rounding_of_collection,
    schur_product_in,
    weighted_sum,
)
from matsign.linalg.stacks import adjoint, hermitian, to_double


def karcher_residual(backend: Backend, value: tuple[Array], stack: Array, weights: Array | None) -> Residual:
    c = in_own_units(backend, stack, weights)
    factor = backend.cholesky(hermitian(c.inward(backend, to_double(backend, value[0]))))
    parts = logarithms_beside(backend, factor, c.factors)
    s = hermitian(weighted_sum(backend, c.w, parts.matrices()))
    steps = []
    noise = rounding_of_collection(backend, stack, c.a)
    changes = (
        _change_of_gap(backend, x, c.a, c.w, parts, factor) for x in (noise, backend.xp.flip(noise, axis=(-2, -1)))
    )
    for q in (s, *changes):
        e = solve_hessian_of(backend, parts, c.w, q, backend.eps(q)).x
        steps.append(c.outward(backend, hermitian(factor @ e @ adjoint(factor)))[:, None])
    backward = _backward(backend, c.a, parts, factor, s)
    kind = backend.dtype_name(stack)
    correction = backend.astype(backend.xp.concat(steps, axis=1), kind)
    return Residual(backend.astype(backward, backend.dtype_name(stack.real)), (correction,))


def _exponential_kernel(backend: Backend, parts: Logarithms) -> Array:
    """(λ_a - λ_b)/(log λ_a - log λ_b)."""
    xp, d = backend.xp, parts.half_differences()
    one = xp.ones_like(d)
    safe = xp.where(d == 0, one, d)
    mean = (parts.logs[..., :, None] + parts.logs[..., None, :]) / 2
    return xp.exp(mean) * xp.where(d == 0, one, xp.sinh(safe) / safe)


def _backward(backend: Backend, a: Array, parts: Logarithms, factor: Array, s: Array) -> Array:
    change = (
        factor[:, None] @ schur_product_in(parts.v, _exponential_kernel(backend, parts), s) @ adjoint(factor)[:, None]
    )
    sizes = backend.norm(flat(change)) / backend.norm(flat(a))
    return backend.xp.max(sizes.reshape(a.shape[:2]), axis=-1)


def _change_of_gap(backend: Backend, change: Array, a: Array, w: Array, parts: Logarithms, factor: Array) -> Array:
    """The change of S by one of all Aᵢ."""
    wide = factor[:, None] + 0 * change
    inside = backend.solve(flat(wide), flat(change))
    inside = backend.solve(flat(wide), adjoint(inside))
    slopes = schur_product_in(parts.v, 1 / _exponential_kernel(backend, parts), as_collections(inside, a))
    return hermitian(weighted_sum(backend, w, slopes))
