"""Errors of a Bures mean M with L = M^{1/2} and Sᵢ = (L Aᵢ L)^{1/2}, in the eigenvectors of M.

The backward error is ‖M - Σ wᵢ Sᵢ‖ / (2 ‖M‖). A correction is L E L with H(E) = Σ wᵢ Sᵢ - M, or with the change of that for
rounding of all Aᵢ in its place.
"""

from __future__ import annotations

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.public import Residual
from matsign.functions.means.bures_mean_methods import (
    Roots,
    Semidefinite,
    gap_beside,
    in_one_unit,
    roots_beside,
    solve_hessian_of,
)
from matsign.functions.means.matrix_collections import rounding_of_collection, schur_product_in, weighted_sum
from matsign.linalg.stacks import adjoint, broadcast_scalar, hermitian, safe_divisor, to_double


def bures_mean_residual(
    backend: Backend, value: tuple[Array], stack: Array, weights: Array | None, *, rtol: float | None
) -> Residual:
    xp, c = backend.xp, in_one_unit(backend, stack, weights, rtol)
    mean = backend.ldexp(hermitian(to_double(backend, value[0])), broadcast_scalar(-c.e))
    m, u = backend.eigh(mean)
    # Eigenvalues of the size of rounding are zero.
    m = xp.where(m > 4 * m.shape[-1] * backend.eps(stack) * m[:, -1:], m, xp.zeros_like(m))
    factor = u * xp.sqrt(m)[:, None, :]
    roots = roots_beside(backend, factor, c.k)
    gap = gap_beside(backend, roots, c.w, m)
    steps = []
    for q in (gap, _change_by_rounding(backend, stack, c, roots, factor)):
        e = solve_hessian_of(backend, roots, c.w, m, q, backend.eps(q)).x
        steps.append(backend.ldexp(hermitian(factor @ e @ adjoint(factor)), broadcast_scalar(c.e))[:, None])
    size = safe_divisor(backend, 2 * backend.norm(mean))
    backward = backend.astype(backend.norm(gap) / size, backend.dtype_name(stack.real))
    clipped = xp.max(xp.maximum(-c.least, xp.zeros_like(c.least)), axis=-1)
    return Residual(
        backward,
        (backend.astype(xp.concat(steps, axis=1), backend.dtype_name(stack)),),
        measures=(backend.astype(clipped, backend.dtype_name(stack.real)),),
    )


def _change_by_rounding(backend: Backend, stack: Array, c: Semidefinite, roots: Roots, factor: Array) -> Array:
    """The change of Σ wᵢ Sᵢ by a fixed random rounding error in each Aᵢ, along directions that keep the ranges."""
    change = adjoint(factor)[:, None] @ rounding_of_collection(backend, stack, c.a) @ factor[:, None]
    sums = roots.sums()
    zero = sums <= stack.shape[-1] * backend.eps(sums) * roots.s[:, :, :1, None]
    slopes = backend.xp.where(zero, backend.xp.zeros_like(sums), 1 / backend.xp.where(zero, 1 + 0 * sums, sums))
    return hermitian(weighted_sum(backend, c.w, schur_product_in(roots.p, slopes, change)))
