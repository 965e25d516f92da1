"""Backward errors and correction steps of the nearest rotation and the nearest unitary matrix."""

from __future__ import annotations

import math

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.public import Residual
from matsign.linalg.stacks import (
    adjoint,
    broadcast_scalar,
    eye,
    hermitian,
    safe_divisor,
    scale_to_unit,
)


def rotation_residual(backend: Backend, value: tuple[Array], m: Array) -> Residual:
    """That of `nearest_rotation`."""
    m, e = scale_to_unit(backend, m)
    result = residual_of_nearest(backend, value[0], m, 2 * backend.norm(m), rotation=True)
    return result._replace(separation=backend.ldexp(result.separation, e))


def residual_of_nearest(backend: Backend, r: Array, m: Array, noise: Array, *, rotation: bool) -> Residual:
    """‖M - R S‖ with S = herm(RᴴM), ‖RᴴR - I‖ and, where R is no maximum of Re tr(RᴴM), what says so.

    That is for a unitary R a negative eigenvalue of S, for a rotation a negative sum of two of them, or det R - 1. The correction
    is R Ω with S Ω + Ω S = RᴴE - EᴴR, for the residual E and for rounding errors of norm eps `noise`. Where rounding decides
    between several Ω, it is 1.
    """
    xp, one = backend.xp, eye(backend, r)
    s = hermitian(adjoint(r) @ m)
    gap, defect = m - r @ s, adjoint(r) @ r - one
    values, v = backend.eigh(s)
    top = safe_divisor(backend, xp.max(xp.abs(values), axis=-1))
    sums = (values[:, :, None] + values[:, None, :]) / broadcast_scalar(top)
    same = one.real > 0
    # A real Ω has no diagonal, but without the condition on the determinant an eigenvector may have the other sign.
    pairs = xp.where(same, math.inf, sums) if rotation else sums
    shortfall = xp.maximum(-xp.min(xp.min(pairs, axis=-1), axis=-1), 0 * top)
    x = adjoint(v) @ adjoint(r) @ gap @ v / broadcast_scalar(top)
    # Each entry of the error gets its share of the rounding: a random one may miss the pair with the smallest sum.
    rounding = (
        backend.eps(s) * broadcast_scalar(noise / top) * backend.astype(pairs < math.inf, backend.dtype_name(s.real))
    )
    arbitrary = backend.astype(pairs < 4 * backend.eps(s), backend.dtype_name(s))
    omega = (x - adjoint(x) + rounding / m.shape[-1] ** 0.5) / xp.maximum(sums, backend.eps(s) + 0 * sums) + arbitrary
    reflection = xp.abs(xp.linalg.det(r) - 1) if rotation else 0 * top
    correction = r @ (v @ omega @ adjoint(v) + defect / 2) + broadcast_scalar(reflection) * r
    backward = xp.maximum(
        backend.norm(gap) / safe_divisor(backend, 2 * backend.norm(m)), backend.norm(defect) / (2 * r.shape[-1] ** 0.5)
    )
    separation = sums if backend.is_complex(r) else xp.where(same, math.inf, sums)
    return Residual(
        xp.maximum(xp.maximum(backward, reflection), shortfall),
        (correction,),
        xp.maximum(xp.min(xp.min(separation, axis=-1), axis=-1), 0 * top) * top,
    )
