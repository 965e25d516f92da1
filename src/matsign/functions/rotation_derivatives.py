"""The derivative of the nearest rotation R of M: with the symmetric S = RᵀM, the skew-symmetric Ω = RᵀdR solves

    S Ω + Ω S = RᵀdM - dMᵀR.

In the eigenvectors of S this is a division by sums of two different eigenvalues, which are positive where R is unique, although
one eigenvalue may be zero or negative. For 3 × 3 it is a linear equation for the vector of Ω: (tr(S) I - S) ω = x.

tangent(M, dM):
    S = sym(RᵀM)
    Ω = skew_lyapunov(S, RᵀdM - dMᵀR)
    return R Ω

R is the gradient of the maximum of tr(RᵀM), so that its derivative is symmetric: the cotangent is the same map.
"""

from __future__ import annotations

import math
from typing import Any

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.members import Solution, solution
from matsign.core.operations import Operation, apply, shapes_of
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye, hermitian, scale_to_unit


def rotation_tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, **_: Any) -> Arrays:
    (r,), (m,), (dm,) = value, arrays, tangents
    m, e = scale_to_unit(backend, m)
    x = adjoint(r) @ backend.ldexp(dm, broadcast_scalar(-e))
    return (r @ skew_lyapunov(backend, hermitian(adjoint(r) @ m), x - adjoint(x)),)


def skew_lyapunov(backend: Backend, s: Array, q: Array) -> Array:
    """The skew-symmetric x with s x + x s = q, for the symmetric part of s and the skew-symmetric part of q.

    NaN where the sum of the two smallest eigenvalues of s is not positive to working precision.
    """
    return apply(backend, _SKEW_LYAPUNOV, s, q)[0]


def _solve(backend: Backend, s: Array, q: Array) -> Solution:
    solve = _by_vectors if s.shape[-1] == 3 else _by_eigenvectors
    return solution(backend, (solve(backend, hermitian(s), (q - adjoint(q)) / 2),))


def _by_eigenvectors(backend: Backend, s: Array, q: Array) -> Array:
    xp, (values, v) = backend.xp, backend.eigh(s)
    sums = values[:, :, None] + values[:, None, :]
    smallest = s.shape[-1] * backend.eps(s) * xp.max(xp.abs(values), axis=-1)
    sums = xp.where(sums > broadcast_scalar(smallest), sums, math.nan)
    sums = xp.where(eye(backend, s) > 0, math.inf, sums)
    return v @ (adjoint(v) @ q @ v / sums) @ adjoint(v)


def _by_vectors(backend: Backend, s: Array, q: Array) -> Array:
    xp = backend.xp
    a = broadcast_scalar(backend.trace(s)) * eye(backend, s) - s
    inverse = backend.inv(a)
    unique = 3 * backend.eps(s) * backend.norm(a) * backend.norm(inverse) < 1
    w = (inverse @ xp.stack([q[:, 2, 1], q[:, 0, 2], q[:, 1, 0]], axis=-1)[:, :, None])[:, :, 0]
    w = xp.where(unique[:, None], w, math.nan)
    x, y, z = (w[:, k] for k in range(3))
    zero = xp.zeros_like(x)
    return xp.reshape(xp.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1), s.shape)


def _tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays) -> Arrays:
    (x,), (s, _), (ds, dq) = value, arrays, tangents
    return (skew_lyapunov(backend, s, dq - ds @ x - x @ ds),)


def _cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays) -> Arrays:
    (x,), (s, _) = value, arrays
    y = skew_lyapunov(backend, s, cotangents[0])
    return -(y @ adjoint(x)) - adjoint(x) @ y, y


_SKEW_LYAPUNOV = Operation(
    "skew-symmetric Lyapunov equation",
    shapes_of("(n,n),(n,n)"),
    shapes_of("(n,n)"),
    solve=_solve,
    tangent=_tangent,
    cotangent=_cotangent,
    linear=True,
)
