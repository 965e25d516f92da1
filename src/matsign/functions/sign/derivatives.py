"""The derivative of the matrix sign function: a Sylvester equation with N = S M.

It follows from S² = I and SM = MS. All eigenvalues of N have positive real parts, and

    N dS + dS N = dM - S dM S,

which the sign iteration itself solves. Where M is singular, P₀ = I - S² is the projector on the eigenvalue zero, and the same
equation holds off P₀ (N₀ is N with zero shifted to s, and Nᴰ its inverse off P₀):

    N₀ X + X N₀ = (I - P₀) dM (I - P₀) - S dM S,    dS = X + Nᴰ dM P₀ + P₀ dM Nᴰ.

S does not change along M, so that this rule with dM = M gives a correction step for an inexact S.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.functions.sign.constant_units import constant_units
from matsign.iterations.differentiable_solves import inverse, sylvester_symmetric
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye, safe_divisor


def fold_to_right(backend: Backend, s: Array, m: Array) -> tuple[Array, Array | None]:
    """N₀, and the projector on the eigenvalue zero; None by products alone, which find no sign of a singular matrix."""
    if backend.products_only(m):
        return s @ m, None
    zero = eye(backend, m) - s @ s
    # Its trace counts zero eigenvalues; without any it is a rounding error, which N⁻¹ would magnify.
    none = broadcast_scalar(backend.trace(zero).real < 0.5)
    zero = backend.xp.where(none, backend.xp.zeros_like(zero), zero)
    shift = broadcast_scalar(safe_divisor(backend, backend.norm(backend.stop_gradient(m)) / math.sqrt(m.shape[-1])))
    n = s @ m
    return n - n @ zero + shift * zero, zero


def between_subspaces(s: Array, zero: Array | None, x: Array) -> Array:
    """Twice the part of x that maps the invariant subspaces for S = 1 and S = -1 into each other."""
    if zero is None:
        return x - s @ x @ s
    x = x - zero @ x
    return x - x @ zero - s @ x @ s


def _from_zero(backend: Backend, n: Array, zero: Array, x: Array) -> Array:
    """The part of dS between the eigenvalue zero and the others."""
    across = inverse(backend, n)
    across = across - across @ zero
    return across @ x @ zero + zero @ x @ across


def sign_change(
    backend: Backend,
    s: Array,
    n: Array,
    zero: Array | None,
    dm: Array,
    solve: Callable[[Backend, Array, Array], Array] = sylvester_symmetric,
) -> Array:
    # dS maps each of the two subspaces into the other; the rest are magnified rounding errors.
    change = between_subspaces(s, zero, solve(backend, n, between_subspaces(s, zero, dm))) / 2
    return change if zero is None else _from_zero(backend, n, zero, dm) + change


def sign_jvp(backend: Backend, s: Array, m: Array, dm: Array) -> Array:
    """dS for dM, by the rule at the top of this file, in units that balance M."""
    units = constant_units(backend, m)
    s = units.inward(backend, s)
    return units.outward(
        backend, sign_change(backend, s, *fold_to_right(backend, s, units.matrix), units.inward(backend, dm, 1))
    )


def sign_vjp(backend: Backend, s: Array, m: Array, bar: Array) -> Array:
    """M̄ for S̄: the same map of the adjoints, in the inverse units."""
    units = constant_units(backend, m)
    s = units.inward(backend, s)
    n, zero = fold_to_right(backend, s, units.matrix)
    zero = None if zero is None else adjoint(zero)
    bar_m = sign_change(backend, adjoint(s), adjoint(n), zero, units.outward(backend, bar, -1))
    return units.inward(backend, bar_m)


def sign_tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, **_: Any) -> Arrays:
    return (sign_jvp(backend, *value, *arrays, *tangents),)


def sign_cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, **_: Any) -> Arrays:
    return (sign_vjp(backend, *value, *arrays, *cotangents),)
