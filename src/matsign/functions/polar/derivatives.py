"""The derivatives of msign and of the polar decomposition M = U H: a Sylvester equation with H on both sides.

For n ≥ m (otherwise for Mᴴ), with H = UᴴM, P = UUᴴ, Q = UᴴU and s of the size of H: on the support of U, Ω solves

    H₀ Ω + Ω H₀ = Uᴴ dM Q - Q dMᴴ U,    H₀ = H + s (I - Q),

and  dU = U Ω + (I - P) dM Q H₀⁻¹ + U H₀⁻¹ Uᴴ dM (I - Q).
"""

from __future__ import annotations

import math
from typing import Any

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.functions.polar.methods import FINISH, has_fixed_steps
from matsign.iterations.block_structures import Dilation
from matsign.iterations.differentiable_solves import inverse, sylvester_symmetric
from matsign.iterations.minimax import PADE
from matsign.iterations.newton import run_schedule
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye, hermitian, safe_divisor, scale_to_unit


def _msign_jvp(backend: Backend, u: Array, m: Array, dm: Array) -> Array:
    """dU for dM, by the rule at the top of this file. The map is its own adjoint: msign is the gradient of the nuclear norm."""
    if m.shape[-2] < m.shape[-1]:
        return adjoint(_msign_jvp(backend, adjoint(u), adjoint(m), adjoint(dm)))
    m, e = scale_to_unit(backend, m)
    dm = backend.ldexp(dm, broadcast_scalar(-e))
    q = adjoint(u) @ u
    h = nonsingular(backend, hermitian(adjoint(u) @ m), q)
    outside, skew = parts_of_derivative(backend, u, q, inverse(backend, h), dm)
    del q
    return outside + u @ sylvester_symmetric(backend, h, skew)


def nonsingular(backend: Backend, h: Array, q: Array) -> Array:
    """H₀: H with s in place of its zero eigenvalues."""
    shift = safe_divisor(backend, backend.norm(backend.stop_gradient(h)) / math.sqrt(h.shape[-1]))
    return hermitian(h + broadcast_scalar(shift) * (eye(backend, h) - q))


def parts_of_derivative(backend: Backend, u: Array, q: Array, across: Array, dm: Array) -> tuple[Array, Array]:
    """dU - U Ω, and the right-hand side of the equation for Ω: twice the skew-Hermitian part of Uᴴ dM Q."""
    inside = adjoint(u) @ dm
    within = inside @ q
    out = (dm - u @ inside) @ (q @ across)
    return out + u @ (across @ (inside - within)), within - adjoint(within)


def _limit(backend: Backend, u: Array, options: dict[str, Any]) -> Array:
    """u, or the limit of its steps if their number was fixed: the rule needs an I - UᴴU that is a projector."""
    if not has_fixed_steps(**options):
        return u
    if u.shape[-2] < u.shape[-1]:
        return adjoint(_limit(backend, adjoint(u), options))
    return run_schedule(backend, Dilation(u), (PADE,) * FINISH).c


def msign_tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, **options: Any) -> Arrays:
    return (_msign_jvp(backend, _limit(backend, value[0], options), *arrays, *tangents),)


def polar_tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, **options: Any) -> Arrays:
    """dH is the Hermitian part of dUᴴ M + Uᴴ dM."""
    (u, _h), (m,), (dm,) = value, arrays, tangents
    u = _limit(backend, u, options)
    du = _msign_jvp(backend, u, m, dm)
    return du, hermitian(adjoint(du) @ m + adjoint(u) @ dm)


def polar_cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, **options: Any) -> Arrays:
    (u, _h), (m,), bar_h = value, arrays, hermitian(cotangents[1])
    u = _limit(backend, u, options)
    return (u @ bar_h + _msign_jvp(backend, u, m, cotangents[0] + m @ bar_h),)
