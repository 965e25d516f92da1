"""Backward errors and correction steps of msign and of the polar decomposition."""

from __future__ import annotations

import math

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.public import Residual
from matsign.functions.polar.derivatives import nonsingular, parts_of_derivative
from matsign.functions.polar.methods import FINISH
from matsign.iterations.block_structures import Dilation
from matsign.iterations.minimax import PADE
from matsign.iterations.newton import run_schedule
from matsign.linalg.stacks import (
    adjoint,
    broadcast_scalar,
    hermitian,
    inner,
    rounding_probe,
    safe_divisor,
    scale_to_unit,
    trace,
)


def _correction(backend: Backend, u: Array, h: Array, dm: Array) -> tuple[Array, Array]:
    """The eigenvalues of H₀, and an estimate of dU by its eigenvectors: one decomposition, whatever the condition."""
    q = adjoint(u) @ u
    values, vectors = backend.eigh(nonsingular(backend, h, q))
    positive = backend.xp.maximum(values, backend.eps(h) * values[:, -1:])
    outside, skew = parts_of_derivative(backend, u, q, (vectors / positive[:, None, :]) @ adjoint(vectors), dm)
    omega = (adjoint(vectors) @ skew @ vectors) / (positive[:, :, None] + positive[:, None, :])
    # Where an eigenvalue of H is below rounding, U times its eigenvector is arbitrary: an error of 1.
    arbitrary = backend.astype(values < 4 * backend.eps(h) * values[:, -1:], backend.dtype_name(values))
    return values, outside + u @ ((vectors @ omega + vectors * arbitrary[:, None, :]) @ adjoint(vectors))


def msign_residual(backend: Backend, value: tuple[Array], m: Array) -> Residual:
    """‖M - U H‖ and ‖U - U UᴴU‖: an exactly orthogonal U may still be the factor of another matrix."""
    (u,) = value
    m, _ = scale_to_unit(backend, m)
    if m.shape[-2] < m.shape[-1]:
        result = msign_residual(backend, (adjoint(u),), adjoint(m))
        return result._replace(correction=(adjoint(result.correction[0]),))
    h = hermitian(adjoint(u) @ m)
    backward, gap = _gap(backend, m, u @ h)
    isometry, defect = _gap(backend, u, u @ (adjoint(u) @ u))
    orthogonality = backend.norm(defect) / safe_divisor(backend, backend.norm(u))
    values, du = _correction(backend, u, h, gap)
    measures = (orthogonality, *_extremal(backend, u, m, values, orthogonality))
    return Residual(backend.xp.maximum(backward, isometry), (du + defect / 2,), measures=measures)


def _gap(backend: Backend, x: Array, y: Array) -> tuple[Array, Array]:
    """‖x - y‖ / (‖x‖ + ‖y‖), and x - y with a random rounding error, in case those of x and y cancel."""
    gap, size = x - y, backend.norm(x) + backend.norm(y)
    return backend.norm(gap) / safe_divisor(backend, size), gap + rounding_probe(backend, x, size)


def _extremal(backend: Backend, u: Array, m: Array, values: Array, defect: Array) -> Arrays:
    """(dual_gap, overshoot): how far ⟨M, U⟩ is below its maximum over ‖U‖ ≤ 1, the nuclear norm of M; and σmax(U) - 1.

    M = U H + gap: the nuclear norm of U H is at most σmax(U) times that of H, and that of the gap √k times its Frobenius norm.
    The nuclear norm of H is its trace less twice its negative eigenvalues. These are among the `values` of H₀ if U is an
    isometry; else more steps bring U to one first.
    """
    top = norm_near_one(backend, u)

    def nuclear_bound(u: Array, m: Array, top: Array, values: Array) -> Array:
        h = hermitian(adjoint(u) @ m)
        negative = backend.xp.sum(backend.xp.minimum(values, 0 * values), axis=-1)
        size = trace(backend, h).real - 2 * negative
        return top * size + math.sqrt(m.shape[-1]) * backend.norm(m - u @ h)

    def finish(u: Array, m: Array, *_: Array) -> Array:
        u = run_schedule(backend, Dilation(u), (PADE,) * FINISH).c
        return nuclear_bound(u, m, norm_near_one(backend, u), backend.eigh(hermitian(adjoint(u) @ m))[0])

    bound = backend.rare_cond(defect > 1e4 * backend.eps(m), finish, nuclear_bound, u, m, top, values)
    reached = inner(backend, m, u) / backend.xp.maximum(top, backend.ones(u))
    return (bound - reached) / safe_divisor(backend, bound), top - 1


def norm_near_one(backend: Backend, u: Array) -> Array:
    """σmax of a u that is nearly an isometry; 1 for u = 0."""
    return backend.xp.sqrt(safe_divisor(backend, backend.eigh(adjoint(u) @ u)[0][:, -1]))


def polar_residual(backend: Backend, value: tuple[Array, Array], m: Array) -> Residual:
    """As for msign, and ‖M - U H‖ with the given H; dH is the Hermitian part of dUᴴ M + Uᴴ (M + gap), less H."""
    u, h = value
    m, h, e = scale_to_unit(backend, m, h)
    result = msign_residual(backend, (u,), m)
    (du,) = result.correction
    backward, gap = _gap(backend, m, u @ h)
    dh = hermitian(adjoint(du) @ m + adjoint(u) @ (m + gap)) - h
    return Residual(backend.xp.maximum(result.backward, backward), (du, backend.ldexp(dh, broadcast_scalar(e))))
