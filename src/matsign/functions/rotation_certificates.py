"""Backward errors and correction steps of the nearest rotation."""

from __future__ import annotations

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.public import Residual
from matsign.linalg.stacks import (
    adjoint,
    broadcast_scalar,
    eye,
    hermitian,
    rounding_probe,
    safe_divisor,
    scale_to_unit,
)


def rotation_residual(backend: Backend, value: tuple[Array], m: Array) -> Residual:
    """‖M - R S‖ with S = sym(RᵀM), ‖RᵀR - I‖, |det R - 1|, and a negative sum of two eigenvalues of S, where R is no maximum.

    The correction is R Ω with S Ω + Ω S = RᵀE - EᵀR for the residual E and its rounding errors. A sum of two eigenvalues below
    rounding leaves Ω arbitrary: an error of 1.
    """
    (r,), xp = value, backend.xp
    m, e = scale_to_unit(backend, m)
    s = hermitian(adjoint(r) @ m)
    gap, size = m - r @ s, backend.norm(m)
    defect = adjoint(r) @ r - eye(backend, r)
    reflection = xp.abs(xp.linalg.det(r) - 1)
    values, v = backend.eigh(s)
    top = safe_divisor(backend, xp.max(xp.abs(values), axis=-1))
    sums = (values[:, :, None] + values[:, None, :]) / broadcast_scalar(top)
    off_diagonal = 1 - eye(backend, r)
    shortfall = xp.max(xp.max(-sums * off_diagonal, axis=-1), axis=-1)
    x = adjoint(v) @ adjoint(r) @ (gap + rounding_probe(backend, m, 2 * size)) @ v / broadcast_scalar(top)
    arbitrary = backend.astype(sums < 4 * backend.eps(s), backend.dtype_name(s))
    omega = ((x - adjoint(x)) / xp.maximum(sums, backend.eps(s) + 0 * sums) + arbitrary) * off_diagonal
    correction = r @ (v @ omega @ adjoint(v) + defect / 2) + broadcast_scalar(reflection) * r
    backward = xp.maximum(
        backend.norm(gap) / safe_divisor(backend, 2 * size), backend.norm(defect) / (2 * r.shape[-1] ** 0.5)
    )
    separation = None if r.shape[-1] == 1 else backend.ldexp(xp.maximum(values[:, 0] + values[:, 1], 0 * top), e)
    return Residual(
        xp.maximum(xp.maximum(backward, reflection), xp.maximum(shortfall, 0 * top)), (correction,), separation
    )
