"""How the balancing projections of a system move with it.

For the Gramians x and w of ẋ = a x + b u, y = c x the columns of the projections l and t satisfy x l = t S, w t = l S and
lᴴ t = I. With m = lᴴ dx l, n = tᴴ dw t and g the projector off the columns of t, along those of l,

    dS = ½ diag(m + n),    dt = t o + g (dx l S⁻¹ + x dw t S⁻²),    dl = -l oᴴ + gᴴ (dw t S⁻¹ + w dx l S⁻²),

    o_ij = (σ_j m_ij + σ_i n_ij) / (σ_j² - σ_i²),    o_ii = (m_ii - n_ii) / 4σ_i.

For complex systems columns may still turn, dt = t iθ and dl = l iθ, as it takes to keep the largest entry of each of t real.
The columns for values at the level of rounding are zero, and stay so.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from matsign._typing import Arrays
from matsign.backends import Backend
from matsign.equations.lyapunov.factor_derivatives import gramian_jvp, gramian_vjp
from matsign.iterations.differentiable_solves import solve_stable_lyapunov
from matsign.linalg.stacks import adjoint, eye

Array = Any


class BalancingProjections(NamedTuple):
    """Hankel singular values (B, n), the projections l and t, and 1 in the place of the largest entry of each column of t."""

    values: Array
    left: Array
    right: Array
    anchor: Array


def _gramians(be: Backend, a: Array, b: Array, c: Array) -> tuple[Array, Array]:
    return solve_stable_lyapunov(be, a, b @ adjoint(b)), solve_stable_lyapunov(be, adjoint(a), adjoint(c) @ c)


def gramians_jvp(be: Backend, system: Arrays, tangents: Arrays) -> tuple[Array, Array]:
    """(dx, dw)."""
    (a, b, c), (da, db, dc) = system, tangents
    x, w = _gramians(be, a, b, c)
    return gramian_jvp(be, a, b, x, da, db), gramian_jvp(be, adjoint(a), adjoint(c), w, adjoint(da), adjoint(dc))


def gramians_vjp(be: Backend, system: Arrays, bar_x: Array, bar_w: Array) -> Arrays:
    """The adjoint of `gramians_jvp`."""
    a, b, c = system
    x, w = _gramians(be, a, b, c)
    by_x, bar_b = gramian_vjp(be, a, b, x, bar_x)
    by_w, bar_c = gramian_vjp(be, adjoint(a), adjoint(c), w, bar_w)
    return by_x + adjoint(by_w), bar_b, adjoint(bar_c)


def values_jvp(be: Backend, at: BalancingProjections, dx: Array, dw: Array) -> Array:
    """dσ."""
    along = at.left.conj() * (dx @ at.left) + at.right.conj() * (dw @ at.right)
    return be.xp.sum(along, axis=-2).real / 2


def values_vjp(at: BalancingProjections, cotangents: Array) -> tuple[Array, Array]:
    """The adjoint of `values_jvp`."""
    half = cotangents[:, None, :] / 2
    return (at.left * half) @ adjoint(at.left), (at.right * half) @ adjoint(at.right)


class _Parts(NamedTuple):
    """What the formulas above share; a divisor where there is none is 1."""

    s: Array  # (B, 1, n), σ
    of_m: Array  # what m and n are multiplied with in o
    of_n: Array
    off: Array  # g


def _parts(be: Backend, at: BalancingProjections) -> _Parts:
    xp = be.xp
    known = (be.stop_gradient(at.right) != 0).any(-2)
    values = xp.where(known, at.values, xp.ones_like(at.values))
    row, col = values[:, None, :], values[:, :, None]
    diagonal = eye(be, at.right).real
    both = (known[:, None, :] & known[:, :, None]) & ~(diagonal > 0)
    apart = xp.where(both, (row - col) * (row + col), xp.ones_like(row * col))
    own = diagonal / (4 * row)
    some_missing = be.astype(~known.all(-1), be.dtype_name(at.right))
    off = some_missing[:, None, None] * (eye(be, at.right) - at.right @ adjoint(at.left))
    rest = 1 - diagonal
    return _Parts(row, rest * row / apart + own, rest * col / apart - own, off)


def tangent(be: Backend, value: Arrays, arrays: Arrays, tangents: Arrays) -> Arrays:
    at = BalancingProjections(*value)
    (left, right), p = (at.left, at.right), _parts(be, at)
    x, w = _gramians(be, *arrays)
    dx, dw = gramians_jvp(be, arrays, tangents)
    m, n = adjoint(left) @ dx @ left, adjoint(right) @ dw @ right
    o = p.of_m * m + p.of_n * n
    seen_x, seen_w = dx @ left / p.s, dw @ right / p.s
    dt = right @ o + p.off @ (seen_x + x @ seen_w / p.s)
    dl = -(left @ adjoint(o)) + adjoint(p.off) @ (seen_w + w @ seen_x / p.s)
    if be.is_complex(right):
        turn = -1j * be.xp.sum(at.anchor * dt, axis=-2, keepdims=True).imag / _largest(be, at)
        dt, dl = dt + right * turn, dl + left * turn
    return values_jvp(be, at, dx, dw), dl, dt, be.xp.zeros_like(at.anchor)


def _largest(be: Backend, at: BalancingProjections) -> Array:
    """The largest entry of each column of t, real; 1 for a column of zeros."""
    entry = be.xp.sum(at.anchor * at.right.real, axis=-2, keepdims=True)
    return be.xp.where(entry == 0, be.xp.ones_like(entry), entry)


def cotangent(be: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays) -> Arrays:
    """The adjoint of `tangent`, its lines in reverse."""
    at = BalancingProjections(*value)
    (left, right), p, (bar_values, bar_l, bar_t, _) = (at.left, at.right), _parts(be, at), cotangents
    x, w = _gramians(be, *arrays)
    if be.is_complex(right):
        whole = be.xp.sum(bar_t.conj() * right + bar_l.conj() * left, axis=-2, keepdims=True)
        bar_t = bar_t + 1j * at.anchor * (whole.imag / _largest(be, at))
    bar_o = adjoint(right) @ bar_t - adjoint(bar_l) @ left
    off_t, off_l = adjoint(p.off) @ bar_t, p.off @ bar_l
    # Of seen_x and seen_w.
    seen_x, seen_w = off_t + w @ off_l / p.s, off_l + x @ off_t / p.s
    bar_x, bar_w = values_vjp(at, bar_values)
    bar_x = bar_x + (left @ (p.of_m * bar_o) + seen_x / p.s) @ adjoint(left)
    bar_w = bar_w + (right @ (p.of_n * bar_o) + seen_w / p.s) @ adjoint(right)
    return gramians_vjp(be, arrays, bar_x, bar_w)
