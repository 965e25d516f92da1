"""Backward errors and correction steps of the sign and of |M|."""

from __future__ import annotations

import math

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.public import Residual
from matsign.core.tolerances import rank_tolerance
from matsign.functions.sign.derivatives import fold_to_right, sign_change
from matsign.functions.sign.methods import LARGE, MARGIN, sign, units_for_method
from matsign.iterations.differentiable_solves import sylvester_positive
from matsign.linalg import balancing
from matsign.linalg.nullity import nullities
from matsign.linalg.stacks import (
    adjoint,
    all_false,
    broadcast_scalar,
    eye,
    is_hermitian,
    largest,
    relative_norm,
    rounding_probe,
    safe_divisor,
)


def sign_residual(
    backend: Backend,
    value: tuple[Array],
    m: Array,
    *,
    tol: float | None = None,
    rtol: float | None = None,
    method: str = "auto",
) -> Residual:
    """The residuals of S M = M S and S³ = S, and the change of S for these and for rounding of M."""
    units = units_for_method(backend, m, method)
    m, s = units.matrix, units.inward(backend, *value)
    size = backend.norm(s)
    cube = backend.norm(s @ s @ s - s) / safe_divisor(backend, size**3 + size)
    backward = backend.xp.maximum(commutator(backend, s, m), backend.xp.maximum(cube, _not_nilpotent(backend, s, m)))
    step = units.outward(backend, sign_correction(backend, s, units))
    return Residual(backward, (credible(backend, step, *value, may_flip(backend, s, m, rtol)),))


def commutator(backend: Backend, s: Array, m: Array) -> Array:
    return backend.norm(s @ m - m @ s) / safe_divisor(backend, 2 * backend.norm(s) * backend.norm(m))


def credible(backend: Backend, step: Array, value: Array, doubt: Array) -> Array:
    """A correction step, infinite in `doubt` and where it is not small beside the value, which then has no sure digit."""
    unknown = (~(relative_norm(backend, step, value) < LARGE) & (largest(backend, value) > 0)) | doubt
    return backend.xp.where(broadcast_scalar(unknown), backend.xp.full_like(step, math.inf), step)


def _not_nilpotent(backend: Backend, s: Array, m: Array) -> Array:
    """How far the part of m for the eigenvalue 0 of s is from nilpotent: ‖Zᵖ‖ / (‖Z‖ᵖ⁻¹ ‖m‖), Z = (I - S²) m, a power p ≥ n."""

    def measure(s: Array, m: Array) -> Array:
        power = m - s @ (s @ m)
        size = backend.norm(power)
        share = size / safe_divisor(backend, backend.norm(m))
        power = power / broadcast_scalar(safe_divisor(backend, size))
        for _ in range((m.shape[-1] - 1).bit_length()):
            power = power @ power
        return backend.norm(power) * share

    singular = backend.trace(eye(backend, m) - s @ s).real > 0.5
    return backend.rare_cond(singular, measure, lambda s, m: 0 * backend.ones(m), s, m)


def sign_correction(backend: Backend, s: Array, units: balancing.BalancedMatrix) -> Array:
    """The change of S for the residuals of its equations and for rounding of M, in balanced units."""
    m = units.matrix
    cube = s @ s @ s - s
    n, zero = fold_to_right(backend, s, m)
    step = (
        sign_change(backend, s, n, zero, m + rounding_probe(backend, m, backend.norm(m)), _solve_nonsingular) - cube / 2
    )
    return units.mask_unreachable(backend, step)


def may_flip(backend: Backend, s: Array, m: Array, rtol: float | None) -> Array:
    """Where rounding may move an eigenvalue to the other side of zero, which no correction step shows."""
    n, _ = fold_to_right(backend, s, m)
    return _has_chains_by_rounding(backend, s, m, rtol) | ~(
        backend.norm(n) * backend.norm(backend.inv(n)) * n.shape[-1] * backend.eps(n) < MARGIN
    )


def _has_chains_by_rounding(backend: Backend, s: Array, m: Array, rtol: float | None) -> Array:
    """Where m has exact null vectors, but Jordan chains of zero only up to rounding, and no `rtol` is given."""
    if rtol is not None or backend.unrolls_loops(m):
        return all_false(backend, m)

    def compare(s: Array, m: Array) -> Array:
        zero = eye(backend, m) - s @ s
        chained = backend.norm(zero @ m) > 10 * rank_tolerance(backend, m, None) * backend.norm(zero) * backend.norm(m)
        counts = backend.host_callback(
            nullities, backend.xp.zeros_like(m[:, 0].real, dtype=backend.xp.int32), backend.stop_gradient(m)
        )
        short = backend.astype(counts[:, -1], backend.dtype_name(m.real)) < backend.trace(zero).real - 0.5
        return chained & (counts[:, 0] > 0) & short

    singular = backend.trace(eye(backend, m) - s @ s).real > 0.5
    return backend.rare_cond(singular, compare, lambda s, m: all_false(backend, m), s, m)


def _solve_nonsingular(backend: Backend, n: Array, q: Array) -> Array:
    """x with n x + x n = q; unlike in `sylvester_symmetric`, no small eigenvalue of n counts as zero."""

    def by_eigenvectors(n: Array, q: Array) -> Array:
        values, v = backend.eigh(n)
        least = backend.eps(n) ** 2 * values[:, -1:]
        values = backend.xp.where(values > least, values, least)
        return v @ (adjoint(v) @ q @ v / (values[:, :, None] + values[:, None, :])) @ adjoint(v)

    def general(n: Array, q: Array) -> Array:
        return sylvester_positive(backend, n, n, q)

    if backend.on_cpu(q) and not backend.is_traced(q):
        return backend.masked_cond(is_hermitian(n), by_eigenvectors, general, n, q)
    return general(n, q)


def abs_residual(
    backend: Backend,
    value: tuple[Array],
    m: Array,
    *,
    tol: float | None = None,
    rtol: float | None = None,
    method: str = "auto",
) -> Residual:
    """The residual of N² = M², and the difference between N and M S for a corrected sign S."""
    units = units_for_method(backend, m, method)
    m, n = units.matrix, units.inward(backend, *value, 1)
    s = sign(backend, m, tol=tol, rtol=rtol, method=method).value[0]
    # An eigenvalue that rounding may move to the other side is no larger than rounding, and neither is the effect on N.
    step = (
        m @ s - n + rounding_probe(backend, n, backend.norm(m) * backend.norm(s)) + _abs_correction(backend, s, units)
    )
    step = units.outward(backend, units.mask_unreachable(backend, step), 1)
    backward = backend.norm(n @ n - m @ m) / safe_divisor(backend, backend.norm(n) ** 2 + backend.norm(m) ** 2)
    return Residual(backward, (credible(backend, step, *value, _has_chains_by_rounding(backend, s, m, rtol)),))


def _abs_correction(backend: Backend, s: Array, units: balancing.BalancedMatrix) -> Array:
    """The change of M S with S; for a Hermitian M, whose |M| changes no more than M, only that for the residuals of S."""
    m = units.matrix

    def for_residuals(s: Array, m: Array, change: Array) -> Array:
        return (m @ (s @ s @ s - s) + m @ s - s @ m) / 2

    change = m @ sign_correction(backend, s, units)
    return backend.masked_cond(is_hermitian(m), for_residuals, lambda s, m, change: change, s, m, change)
