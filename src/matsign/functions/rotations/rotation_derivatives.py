"""The derivative of the nearest rotation or unitary matrix R of M: with S = RᴴM = Sᴴ, the skew-Hermitian Ω = RᴴdR solves

    S Ω + Ω S = RᴴdM - dMᴴR.

In the eigenvectors of S this is a division by sums of eigenvalues; of two different ones for real matrices, which are positive
where R is unique, although one eigenvalue may be zero or negative. For real 3 × 3 matrices it is a linear equation for the vector
of Ω: (tr(S) I - S) ω = x.

tangent(M, dM):
    S = herm(RᴴM)
    Ω = skew_lyapunov(S, RᴴdM - dMᴴR)
    return R Ω

R is the gradient of the maximum of Re tr(RᴴM), so that its derivative is symmetric: the cotangent is the same map.
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
    """x with s x + x s = q for a Hermitian s; of real arrays for the symmetric part of s and the skew-symmetric part of q.

    NaN where a sum of two eigenvalues of s, for real arrays of two different ones, is not positive to working precision and q is
    not 0.
    """
    return apply(backend, _SKEW_LYAPUNOV, s, q)[0]


def _solve(backend: Backend, s: Array, q: Array) -> Solution:
    if not backend.is_complex(s):  # of complex arrays these parts are not linear
        s, q = hermitian(s), (q - adjoint(q)) / 2
    solve = _by_eigenvectors if backend.is_complex(s) or s.shape[-1] != 3 else _by_vectors
    x = solve(backend, s, q)
    return solution(backend, (backend.xp.where(broadcast_scalar(backend.norm(q) > 0), x, 0 * q),))


def _by_eigenvectors(backend: Backend, s: Array, q: Array) -> Array:
    xp, (values, v) = backend.xp, backend.eigh(s)
    sums = values[:, :, None] + values[:, None, :]
    smallest = s.shape[-1] * backend.eps(s) * xp.max(xp.abs(values), axis=-1)
    sums = xp.where(sums > broadcast_scalar(smallest), sums, math.nan)
    if not backend.is_complex(s):
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
    "skew-Hermitian Lyapunov equation",
    shapes_of("(n,n),(n,n)"),
    shapes_of("(n,n)"),
    solve=_solve,
    tangent=_tangent,
    cotangent=_cotangent,
    linear=True,
)
