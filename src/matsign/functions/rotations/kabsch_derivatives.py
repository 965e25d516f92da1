"""The derivative of an alignment q ≈ R p + t, and the sums over points from which both are computed.

Weights w have the sum 1 here; x = p - p₀ and y = q - q₀ have the weighted mean 0, so that changes of the centres do not change M.
At the optimum, changes of R and t do not change the rmsd to first order. With the rule R(M, dM) of `rotation_derivatives`:

tangent(p, q, w, dp, dq, dw):    Σ dw = 0 after normalisation
    dM = Σ w (dq xᵀ + y dpᵀ) + dw y xᵀ
    dR = R(M, dM)
    dp₀ = Σ w dp + dw x,  dq₀ = Σ w dq + dw y
    dt = dq₀ - dR p₀ - R dp₀
    d rmsd = Σ (dw |r|²/2 + w r·(R dp - dq)) / rmsd, or 0 where rmsd is 0

cotangent(p, q, w, R̄, t̄, s̄):
    M̄ = R(M, R̄ - t̄ p₀ᵀ),  u = s̄ r / rmsd
    p̄ = w (M̄ᵀ y - Rᵀ t̄ + Rᵀ u),  q̄ = w (M̄ x + t̄ - u)
    g = yᵀ M̄ x - t̄ · R x + t̄ · y + u · r / 2,  w̄ = g - Σ w g
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.functions.rotations.rotation_derivatives import rotation_tangent
from matsign.linalg.stacks import adjoint, broadcast_scalar, inner, safe_divisor, scale_to_unit


class PointSets(NamedTuple):
    """Two point sets with means 0, their centres, and M, in powers of two as units: p = 2^e_p (x + p₀), q = 2^e_q (y + q₀).

    The weights w (B, k, 1) have the sum 1; `total` 2^e_w is that of the given ones. Residuals have the larger unit, 2^e.
    """

    x: Array
    y: Array
    p0: Array
    q0: Array
    e_p: Array
    e_q: Array
    e: Array
    w: Array
    total: Array
    e_w: Array
    m: Array


def center(backend: Backend, p: Array, q: Array, weights: Array | None) -> PointSets:
    (p, e_p), (q, e_q) = scale_to_unit(backend, p), scale_to_unit(backend, q)
    w, e_w = scale_to_unit(backend, backend.xp.ones_like(p[:, :, :1]) if weights is None else weights[:, :, None])
    total = mean(w, backend.xp.ones_like(w))[:, 0, 0]
    w = w / broadcast_scalar(safe_divisor(backend, total))
    (x, p0), (y, q0) = (_centre(backend, z, w, weights is not None) for z in (p, q))
    return PointSets(x, y, p0, q0, e_p, e_q, backend.xp.maximum(e_p, e_q), w, total, e_w, adjoint(w * y) @ x)


def _centre(backend: Backend, p: Array, w: Array, weighted: bool) -> tuple[Array, Array]:
    """The points without their mean, and the mean; the former are exactly 0 where all points are the same."""
    anchor = backend.stop_gradient(_anchor(backend, p, w) if weighted else p[:, :1])
    x = p - anchor if p.shape[-2] else p
    shift = mean(w, x)
    return x - shift, anchor + shift if p.shape[-2] else shift


def _anchor(backend: Backend, p: Array, w: Array) -> Array:
    """The upper corner of the box around the points that have a weight: of equal points, this is the point."""
    xp = backend.xp
    corner = xp.max(xp.where(w > 0, p, -math.inf + 0 * p), axis=1, keepdims=True) if p.shape[-2] else p
    return xp.where(xp.isfinite(corner), corner, xp.zeros_like(corner))


def mean(w: Array, x: Array) -> Array:
    """Σ w x over the points, (B, 1, d): a product, because sums along a short axis take five times as long in NumPy."""
    return adjoint(w) @ x


def scale_by_power(backend: Backend, x: Array, e: Array) -> Array:
    """2^e x."""
    return backend.ldexp(x, broadcast_scalar(e))


def translation(backend: Backend, s: PointSets, r: Array) -> Array:
    p0, q0 = scale_by_power(backend, s.p0, s.e_p - s.e), scale_by_power(backend, s.q0, s.e_q - s.e)
    return scale_by_power(backend, q0 - p0 @ adjoint(r), s.e)[:, 0, :]


def residuals(backend: Backend, s: PointSets, r: Array) -> Array:
    """R x - y in units of 2^e."""
    return scale_by_power(backend, s.x, s.e_p - s.e) @ adjoint(r) - scale_by_power(backend, s.y, s.e_q - s.e)


def weighted_norm(backend: Backend, s: PointSets, x: Array) -> Array:
    """The root of Σ w |x|²."""
    return backend.norm(backend.xp.sqrt(s.w) * x)


def _directions_of_residuals(backend: Backend, s: PointSets, r: Array, rmsd: Array) -> tuple[Array, Array]:
    """r in units of 2^e, and r / rmsd, 0 where the rmsd is 0."""
    gaps = residuals(backend, s, r)
    return gaps, gaps * _inverse_of_rmsd(backend, s, r, rmsd)


def _inverse_of_rmsd(backend: Backend, s: PointSets, r: Array, rmsd: Array) -> Array:
    """1 / rmsd in units of 2^-e, (B, 1, 1), and 0 where it is a rounding error of the points: tr(RᵀM) is then their square."""
    size, zero = backend.ldexp(rmsd, -s.e), backend.xp.zeros_like(rmsd)
    square = backend.ldexp(
        inner(backend, backend.stop_gradient(r), backend.stop_gradient(s.m)), s.e_p + s.e_q - 2 * s.e
    )
    smallest = 8 * backend.eps(r) * backend.xp.sqrt(backend.xp.maximum(square, zero))
    inverse = 1 / safe_divisor(backend, size)
    return broadcast_scalar(backend.xp.where(size > smallest, inverse, zero))


def kabsch_tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, **_: Any) -> Arrays:
    xp, (r, _t, rmsd), (dp, dq, dw) = backend.xp, value, tangents
    s = center(backend, *arrays)
    dp, dq = scale_by_power(backend, dp, -s.e_p), scale_by_power(backend, dq, -s.e_q)
    dm = adjoint(s.w * dq) @ s.x + adjoint(s.w * s.y) @ dp
    dp0, dq0 = mean(s.w, dp), mean(s.w, dq)
    if dw is not None:
        dw = scale_by_power(backend, dw[:, :, None] / broadcast_scalar(s.total), -s.e_w)
        dw = dw - s.w * mean(dw, xp.ones_like(dw))
        dm = dm + adjoint(dw * s.y) @ s.x
        dp0, dq0 = dp0 + mean(dw, s.x), dq0 + mean(dw, s.y)
    (dr,) = rotation_tangent(backend, (r,), (s.m,), (dm,))
    dt = scale_by_power(backend, dq0, s.e_q) - scale_by_power(backend, s.p0 @ adjoint(dr) + dp0 @ adjoint(r), s.e_p)
    gaps, u = _directions_of_residuals(backend, s, r, rmsd)
    moved = scale_by_power(backend, dp, s.e_p - s.e) @ adjoint(r) - scale_by_power(backend, dq, s.e_q - s.e)
    d_rmsd = xp.sum(s.w * u * moved, axis=(1, 2))
    if dw is not None:
        d_rmsd = d_rmsd + xp.sum(dw * u * gaps, axis=(1, 2)) / 2
    return dr, dt[:, 0, :], backend.ldexp(d_rmsd, s.e)


def kabsch_cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, **_: Any) -> Arrays:
    """As above, with R x - y in place of r, so that each point takes two small products."""
    xp, (r, _t, rmsd), (bar_r, bar_t, bar_s) = backend.xp, value, cotangents
    s = center(backend, *arrays)
    bar_t = bar_t[:, None, :]
    (bar_m,) = rotation_tangent(backend, (r,), (s.m,), (bar_r - adjoint(bar_t) @ scale_by_power(backend, s.p0, s.e_p),))
    of_gaps = broadcast_scalar(bar_s) * _inverse_of_rmsd(backend, s, r, rmsd)
    of_p, of_q = (scale_by_power(backend, of_gaps, e - s.e) for e in (s.e_p, s.e_q))
    back = bar_t @ r
    bar_p = s.w * (s.y @ (scale_by_power(backend, bar_m, -s.e_p) - of_q * r) + of_p * s.x - back)
    bar_q = s.w * (s.x @ adjoint(scale_by_power(backend, bar_m, -s.e_q) - of_p * r) + of_q * s.y + bar_t)
    if arrays[2] is None:
        return bar_p, bar_q, None
    gaps = residuals(backend, s, r)
    g = (
        (s.x @ adjoint(bar_m)) * s.y
        - scale_by_power(backend, back * s.x, s.e_p)
        + scale_by_power(backend, bar_t * s.y, s.e_q)
    )
    g = xp.sum(g + scale_by_power(backend, of_gaps * gaps * gaps, s.e) / 2, axis=-1, keepdims=True)
    bar_w = (g - mean(s.w, g)) / broadcast_scalar(s.total)
    return bar_p, bar_q, scale_by_power(backend, bar_w, -s.e_w)[:, :, 0]
