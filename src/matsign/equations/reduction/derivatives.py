"""Derivatives of the Hankel singular values and balancing projections of a stable model.

For the Gramians x and w of x' = a x + b u, y = c x, in continuous or in discrete time, the projections l and t satisfy
x l = t S, w t = l S and lᴴ t = I. With m = lᴴ dx l, n = tᴴ dw t and the projector g = I - t lᴴ,

    dS = ½ diag(m + n),    dt = t o + g (dx l S⁻¹ + x dw t S⁻²),    dl = -l oᴴ + gᴴ (dw t S⁻¹ + w dx l S⁻²),

    o_ij = (σ_j m_ij + σ_i n_ij) / (σ_j² - σ_i²),    o_ii = (m_ii - n_ii) / 4σ_i.

For complex systems, phase changes dt = t iθ and dl = l iθ are added that keep the largest entry of each column of t real.
Columns for values at rounding level are zero and have zero derivatives.
"""

from __future__ import annotations

from typing import NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.equations.reduction.times import Time
from matsign.linalg.stacks import adjoint, eye


class BalancingProjections(NamedTuple):
    """Hankel singular values (B, n), projections l and t, and a matrix with 1 at the largest entry of each column of t."""

    values: Array
    left: Array
    right: Array
    anchor: Array


def _gramians(backend: Backend, time: Time, a: Array, b: Array, c: Array) -> tuple[Array, Array]:
    return time.gramian(backend, a, b @ adjoint(b)), time.gramian(backend, adjoint(a), adjoint(c) @ c)


def gramians_jvp(backend: Backend, time: Time, system: Arrays, tangents: Arrays) -> tuple[Array, Array]:
    """(dx, dw)."""
    (a, b, c), (da, db, dc) = system, tangents
    x, w = _gramians(backend, time, a, b, c)
    dual = adjoint(a), adjoint(c), w, adjoint(da), adjoint(dc)
    return time.jvp(backend, a, b, x, da, db), time.jvp(backend, *dual)


def gramians_vjp(backend: Backend, time: Time, system: Arrays, bar_x: Array, bar_w: Array) -> Arrays:
    """The adjoint of `gramians_jvp`."""
    a, b, c = system
    x, w = _gramians(backend, time, a, b, c)
    by_x, bar_b = time.vjp(backend, a, b, x, bar_x)
    by_w, bar_c = time.vjp(backend, adjoint(a), adjoint(c), w, bar_w)
    return by_x + adjoint(by_w), bar_b, adjoint(bar_c)


def values_jvp(backend: Backend, at: BalancingProjections, dx: Array, dw: Array) -> Array:
    """dσ."""
    along = at.left.conj() * (dx @ at.left) + at.right.conj() * (dw @ at.right)
    return backend.xp.sum(along, axis=-2).real / 2


def values_vjp(at: BalancingProjections, cotangents: Array) -> tuple[Array, Array]:
    """The adjoint of `values_jvp`."""
    half = cotangents[:, None, :] / 2
    return (at.left * half) @ adjoint(at.left), (at.right * half) @ adjoint(at.right)


class _Parts(NamedTuple):
    """Factors in the formulas above; divisors without a meaning, as for zero columns, are 1."""

    s: Array  # (B, 1, n), σ
    of_m: Array  # o = of_m ∘ m + of_n ∘ n
    of_n: Array
    off: Array  # g


def _parts(backend: Backend, at: BalancingProjections) -> _Parts:
    xp = backend.xp
    known = (backend.stop_gradient(at.right) != 0).any(-2)
    values = xp.where(known, at.values, xp.ones_like(at.values))
    row, col = values[:, None, :], values[:, :, None]
    diagonal = eye(backend, at.right).real
    both = (known[:, None, :] & known[:, :, None]) & ~(diagonal > 0)
    divisor = xp.where(both, (row - col) * (row + col), xp.ones_like(row * col))
    diagonal_part = diagonal / (4 * row)
    some_missing = backend.astype(~known.all(-1), backend.dtype_name(at.right))
    off = some_missing[:, None, None] * (eye(backend, at.right) - at.right @ adjoint(at.left))
    rest = 1 - diagonal
    return _Parts(row, rest * row / divisor + diagonal_part, rest * col / divisor - diagonal_part, off)


def tangent(backend: Backend, time: Time, at: BalancingProjections, arrays: Arrays, tangents: Arrays) -> Arrays:
    """(dσ, dl, dt) of a stable model."""
    (left, right), p = (at.left, at.right), _parts(backend, at)
    x, w = _gramians(backend, time, *arrays)
    dx, dw = gramians_jvp(backend, time, arrays, tangents)
    m, n = adjoint(left) @ dx @ left, adjoint(right) @ dw @ right
    o = p.of_m * m + p.of_n * n
    dx_left, dw_right = dx @ left / p.s, dw @ right / p.s
    dt = right @ o + p.off @ (dx_left + x @ dw_right / p.s)
    dl = -(left @ adjoint(o)) + adjoint(p.off) @ (dw_right + w @ dx_left / p.s)
    if backend.is_complex(right):
        phase_change = -1j * backend.xp.sum(at.anchor * dt, axis=-2, keepdims=True).imag / _largest(backend, at)
        dt, dl = dt + right * phase_change, dl + left * phase_change
    return values_jvp(backend, at, dx, dw), dl, dt


def _largest(backend: Backend, at: BalancingProjections) -> Array:
    """The largest entry of each column of t, real; 1 for a column of zeros."""
    entry = backend.xp.sum(at.anchor * at.right.real, axis=-2, keepdims=True)
    return backend.xp.where(entry == 0, backend.xp.ones_like(entry), entry)


def cotangent(backend: Backend, time: Time, at: BalancingProjections, arrays: Arrays, cotangents: Arrays) -> Arrays:
    """The adjoint of `tangent`, line by line in reverse order."""
    (left, right), p, (bar_values, bar_l, bar_t) = (at.left, at.right), _parts(backend, at), cotangents
    x, w = _gramians(backend, time, *arrays)
    if backend.is_complex(right):
        phase_cotangent = backend.xp.sum(bar_t.conj() * right + bar_l.conj() * left, axis=-2, keepdims=True)
        bar_t = bar_t + 1j * at.anchor * (phase_cotangent.imag / _largest(backend, at))
    bar_o = adjoint(right) @ bar_t - adjoint(bar_l) @ left
    off_t, off_l = adjoint(p.off) @ bar_t, p.off @ bar_l
    # The cotangents of dx_left and dw_right in `tangent`.
    bar_dx_left, bar_dw_right = off_t + w @ off_l / p.s, off_l + x @ off_t / p.s
    bar_x, bar_w = values_vjp(at, bar_values)
    bar_x = bar_x + (left @ (p.of_m * bar_o) + bar_dx_left / p.s) @ adjoint(left)
    bar_w = bar_w + (right @ (p.of_n * bar_o) + bar_dw_right / p.s) @ adjoint(right)
    return gramians_vjp(backend, time, arrays, bar_x, bar_w)
