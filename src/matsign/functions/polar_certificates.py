"""How wrong a polar decomposition may be."""

from __future__ import annotations

import math
from typing import Any

from matsign._typing import Arrays
from matsign.backends import Backend
from matsign.core.public import Residual
from matsign.functions.polar_derivatives import nonsingular, parts_of_derivative
from matsign.functions.polar_methods import FINISH
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

Array = Any


def _correction(backend: Backend, u: Array, h: Array, dm: Array) -> tuple[Array, Array]:
    """The eigenvalues of H₀, and dU by its eigenvectors: for an estimate, one decomposition whatever the condition."""
    q = adjoint(u) @ u
    values, vectors = backend.eigh(nonsingular(backend, h, q))
    positive = backend.xp.maximum(values, backend.eps(h) * values[:, -1:])
    beyond, turning = parts_of_derivative(backend, u, q, (vectors / positive[:, None, :]) @ adjoint(vectors), dm)
    turned = (adjoint(vectors) @ turning @ vectors) / (positive[:, :, None] + positive[:, None, :])
    # Rounding alone says where U takes a direction in which H has none of its size left.
    lost = backend.astype(values < 4 * backend.eps(h) * values[:, -1:], backend.dtype_name(values))
    return values, beyond + u @ ((vectors @ turned + vectors * lost[:, None, :]) @ adjoint(vectors))


def msign_residual(backend: Backend, value: tuple[Array], m: Array) -> Residual:
    """‖M - U H‖ and ‖U - U UᴴU‖: U may be orthogonal to 16 digits and still belong to another matrix."""
    (u,) = value
    m, _ = scale_to_unit(backend, m)
    if m.shape[-2] < m.shape[-1]:
        found = msign_residual(backend, (adjoint(u),), adjoint(m))
        return found._replace(correction=(adjoint(found.correction[0]),))
    h = hermitian(adjoint(u) @ m)
    backward, gap = _gap(backend, m, u @ h)
    isometry, defect = _gap(backend, u, u @ (adjoint(u) @ u))
    orthogonality = backend.norm(defect) / safe_divisor(backend, backend.norm(u))
    values, du = _correction(backend, u, h, gap)
    measures = (orthogonality, *_extremal(backend, u, m, values, orthogonality))
    return Residual(backend.xp.maximum(backward, isometry), (du + defect / 2,), measures=measures)


def _gap(backend: Backend, x: Array, y: Array) -> tuple[Array, Array]:
    """‖x - y‖ / (‖x‖ + ‖y‖), and x - y with the rounding of both, which x = y may hide."""
    gap, size = x - y, backend.norm(x) + backend.norm(y)
    return backend.norm(gap) / safe_divisor(backend, size), gap + rounding_probe(backend, x, size)


def _extremal(backend: Backend, u: Array, m: Array, values: Array, defect: Array) -> Arrays:
    """How far U is from the best of ⟨M, U⟩ over ‖U‖ ≤ 1, which is the nuclear norm of M, and how far outside that ball.

    M = U H + gap: the nuclear norm of the one part is at most σmax(U) times that of H, of the other √k its Frobenius norm. That
    of H is its trace less twice its negative eigenvalues, which it has in common with H₀, whose `values` are known, if U is an
    isometry; else the one that the steps to U were on the way to takes its place.
    """
    top = norm_near_one(backend, u)

    def bound_member(u: Array, m: Array, top: Array, values: Array) -> Array:
        h = hermitian(adjoint(u) @ m)
        negative = backend.xp.sum(backend.xp.minimum(values, 0 * values), axis=-1)
        size = trace(backend, h).real - 2 * negative
        return top * size + math.sqrt(m.shape[-1]) * backend.norm(m - u @ h)

    def finish(u: Array, m: Array, *_: Array) -> Array:
        u = run_schedule(backend, Dilation(u), (PADE,) * FINISH).c
        return bound_member(u, m, norm_near_one(backend, u), backend.eigh(hermitian(adjoint(u) @ m))[0])

    most = backend.rare_cond(defect > 1e4 * backend.eps(m), finish, bound_member, u, m, top, values)
    reached = inner(backend, m, u) / backend.xp.maximum(top, backend.ones(u))
    return (most - reached) / safe_divisor(backend, most), top - 1


def norm_near_one(backend: Backend, u: Array) -> Array:
    """σmax of what is nearly an isometry, or zero; then 1."""
    return backend.xp.sqrt(safe_divisor(backend, backend.eigh(adjoint(u) @ u)[0][:, -1]))


def polar_residual(backend: Backend, value: tuple[Array, Array], m: Array) -> Residual:
    """As for msign, and dH from Uᴴ dM: H is as good as the part of M that U H misses."""
    u, h = value
    m, h, e = scale_to_unit(backend, m, h)
    found = msign_residual(backend, (u,), m)
    (du,) = found.correction
    backward, gap = _gap(backend, m, u @ h)
    dh = hermitian(adjoint(du) @ m + adjoint(u) @ (m + gap)) - h
    return Residual(backend.xp.maximum(found.backward, backward), (du, backend.ldexp(dh, broadcast_scalar(e))))
