"""The derivatives of msign and of the polar decomposition: a Sylvester equation with H on both sides."""

from __future__ import annotations

import math
from typing import Any

from matsign._typing import Arrays
from matsign.backends import Backend
from matsign.functions.polar_methods import FINISH, has_fixed_steps
from matsign.iterations.block_structures import Dilation
from matsign.iterations.differentiable_solves import inverse, sylvester_symmetric
from matsign.iterations.minimax import PADE
from matsign.iterations.newton import run_schedule
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye, hermitian, safe_divisor, scale_to_unit

Array = Any


def _msign_jvp(backend: Backend, u: Array, m: Array, dm: Array) -> Array:
    """dU for dM, by the rule at the top of this file. The map is its own adjoint: msign is the gradient of the nuclear norm."""
    if m.shape[-2] < m.shape[-1]:
        return adjoint(_msign_jvp(backend, adjoint(u), adjoint(m), adjoint(dm)))
    m, e = scale_to_unit(backend, m)
    dm = backend.ldexp(dm, broadcast_scalar(-e))
    q = adjoint(u) @ u
    h = nonsingular(backend, hermitian(adjoint(u) @ m), q)
    beyond, turning = parts_of_derivative(backend, u, q, inverse(backend, h), dm)
    del q
    return beyond + u @ sylvester_symmetric(backend, h, turning)


def nonsingular(backend: Backend, h: Array, q: Array) -> Array:
    """H₀: H with s in place of its zeros."""
    shift = safe_divisor(backend, backend.norm(backend.stop_gradient(h)) / math.sqrt(h.shape[-1]))
    return hermitian(h + broadcast_scalar(shift) * (eye(backend, h) - q))


def parts_of_derivative(backend: Backend, u: Array, q: Array, across: Array, dm: Array) -> tuple[Array, Array]:
    """What of dU leaves the range and the support of U, and twice the skew part of UᴴdM, which turns the range in itself."""
    inside = adjoint(u) @ dm
    within = inside @ q
    out = (dm - u @ inside) @ (q @ across)
    return out + u @ (across @ (inside - within)), within - adjoint(within)


def _is_finished(backend: Backend, u: Array, options: dict[str, Any]) -> Array:
    """u, or what few steps were on the way to: the rule takes I - UᴴU for a projector, which it is of a finished u alone."""
    if not has_fixed_steps(**options):
        return u
    if u.shape[-2] < u.shape[-1]:
        return adjoint(_is_finished(backend, adjoint(u), options))
    return run_schedule(backend, Dilation(u), (PADE,) * FINISH).c


def msign_tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, **options: Any) -> Arrays:
    return (_msign_jvp(backend, _is_finished(backend, value[0], options), *arrays, *tangents),)


def polar_tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, **options: Any) -> Arrays:
    """dH is the Hermitian part of dUᴴ M + Uᴴ dM."""
    (u, _h), (m,), (dm,) = value, arrays, tangents
    u = _is_finished(backend, u, options)
    du = _msign_jvp(backend, u, m, dm)
    return du, hermitian(adjoint(du) @ m + adjoint(u) @ dm)


def polar_cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, **options: Any) -> Arrays:
    (u, _h), (m,), bar_h = value, arrays, hermitian(cotangents[1])
    u = _is_finished(backend, u, options)
    return (u @ bar_h + _msign_jvp(backend, u, m, cotangents[0] + m @ bar_h),)
