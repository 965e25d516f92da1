"""Projections that make two positive semidefinite matrices x = z zᴴ and w = y yᴴ equal to the same diagonal matrix S.

From yᴴ z = U S Vᴴ: l = y U S^-1/2 and t = z V S^-1/2 satisfy x l = t S, w t = l S and lᴴ t = I. With m = lᴴ dx l, n = tᴴ dw t
and the projector g = I - t lᴴ,

    dS = ½ diag(m + n),    dt = t o + g (dx l S⁻¹ + x dw t S⁻²),    dl = -l oᴴ + gᴴ (dw t S⁻¹ + w dx l S⁻²),

    o_ij = (σ_j m_ij + σ_i n_ij) / (σ_j² - σ_i²),    o_ii = (m_ii - n_ii) / 4σ_i.

For complex matrices a change of phase keeps the largest entry of each column of t real. Columns for values at rounding level are
zero and have zero derivatives.
"""

from __future__ import annotations

from typing import NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.iterations.smith_factored import phases, zero_nonfinite_members
from matsign.linalg.stacks import adjoint, eye, safe_divisor


class BalancingProjections(NamedTuple):
    """The values (B, n), the projections l and t, and a matrix with 1 at the largest entry of each column of t."""

    values: Array
    left: Array
    right: Array
    anchor: Array


def balance_pair(backend: Backend, z: Array, y: Array) -> BalancingProjections:
    xp = backend.xp
    u, values, vh = backend.svd(zero_nonfinite_members(backend, adjoint(y) @ z))
    known = values > values.shape[-1] * backend.eps(values) * values[:, :1]
    scale = xp.where(known, 1 / xp.sqrt(safe_divisor(backend, values)), 0 * values)[:, None, :]
    left, right = (y @ u) * scale, (z @ adjoint(vh)) * scale
    phase = phases(backend, right)
    anchor = backend.eye(right.shape[-2], right)[xp.argmax(xp.abs(right), axis=-2)].mT.real
    return BalancingProjections(values, left * phase, right * phase, anchor)


class _Divisors(NamedTuple):
    """Factors in the formulas above; divisors without a meaning, as for zero columns, are 1."""

    s: Array  # (B, 1, n), σ
    of_m: Array  # o = of_m ∘ m + of_n ∘ n
    of_n: Array
    off: Array  # g
    largest: Array  # the largest entry of each column of t

    @classmethod
    def of(cls, backend: Backend, at: BalancingProjections) -> _Divisors:
        xp = backend.xp
        known = (backend.stop_gradient(at.right) != 0).any(-2)
        values = xp.where(known, at.values, xp.ones_like(at.values))
        row, col = values[:, None, :], values[:, :, None]
        diagonal = eye(backend, at.right).real
        both = (known[:, None, :] & known[:, :, None]) & ~(diagonal > 0)
        divisor = xp.where(both, (row - col) * (row + col), xp.ones_like(row * col))
        on, rest = diagonal / (4 * row), 1 - diagonal
        entry = xp.sum(at.anchor * at.right.real, axis=-2, keepdims=True)
        largest = xp.where(entry == 0, xp.ones_like(entry), entry)
        some_missing = backend.astype(~known.all(-1), backend.dtype_name(at.right))
        off = some_missing[:, None, None] * (eye(backend, at.right) - at.right @ adjoint(at.left))
        return cls(row, rest * row / divisor + on, rest * col / divisor - on, off, largest)


def values_jvp(backend: Backend, at: BalancingProjections, dx: Array, dw: Array) -> Array:
    """dσ."""
    along = at.left.conj() * (dx @ at.left) + at.right.conj() * (dw @ at.right)
    return backend.xp.sum(along, axis=-2).real / 2


def values_vjp(at: BalancingProjections, cotangents: Array) -> tuple[Array, Array]:
    """The adjoint of `values_jvp`."""
    half = cotangents[:, None, :] / 2
    return (at.left * half) @ adjoint(at.left), (at.right * half) @ adjoint(at.right)


def pair_jvp(backend: Backend, at: BalancingProjections, pair: Arrays, tangents: Arrays) -> Arrays:
    """(dσ, dl, dt) for changes (dx, dw) of the pair (x, w)."""
    (left, right), (x, w), (dx, dw), p = (at.left, at.right), pair, tangents, _Divisors.of(backend, at)
    m, n = adjoint(left) @ dx @ left, adjoint(right) @ dw @ right
    o = p.of_m * m + p.of_n * n
    dx_left, dw_right = dx @ left / p.s, dw @ right / p.s
    dt = right @ o + p.off @ (dx_left + x @ dw_right / p.s)
    dl = -(left @ adjoint(o)) + adjoint(p.off) @ (dw_right + w @ dx_left / p.s)
    if backend.is_complex(right):
        phase = -1j * backend.xp.sum(at.anchor * dt, axis=-2, keepdims=True).imag / p.largest
        dt, dl = dt + right * phase, dl + left * phase
    return values_jvp(backend, at, dx, dw), dl, dt


def pair_vjp(backend: Backend, at: BalancingProjections, pair: Arrays, cotangents: Arrays) -> Arrays:
    """The adjoint of `pair_jvp`, line by line in reverse order."""
    (left, right), (x, w), p = (at.left, at.right), pair, _Divisors.of(backend, at)
    bar_values, bar_l, bar_t = cotangents
    if backend.is_complex(right):
        phase = backend.xp.sum(bar_t.conj() * right + bar_l.conj() * left, axis=-2, keepdims=True)
        bar_t = bar_t + 1j * at.anchor * (phase.imag / p.largest)
    bar_o = adjoint(right) @ bar_t - adjoint(bar_l) @ left
    off_t, off_l = adjoint(p.off) @ bar_t, p.off @ bar_l
    bar_dx_left, bar_dw_right = off_t + w @ off_l / p.s, off_l + x @ off_t / p.s
    bar_x, bar_w = values_vjp(at, bar_values)
    bar_x = bar_x + (left @ (p.of_m * bar_o) + bar_dx_left / p.s) @ adjoint(left)
    bar_w = bar_w + (right @ (p.of_n * bar_o) + bar_dw_right / p.s) @ adjoint(right)
    return bar_x, bar_w
