"""Derivatives of the poles, eigenvalues of a matrix: with a v = v diag(λ) and w = v⁻¹, dλ_i = (w da v)_ii.

The scaling of the eigenvectors is free; the rule is dv = v (g ∘ w da v) with g_ij = 1 / (λ_j - λ_i), g_ii = 0. It gives
derivatives of the eigenvalues to every order, but none for the normalisation of the eigenvectors.
"""

from __future__ import annotations

import math

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.members import Solution, solution
from matsign.core.operations import Operation, apply, shapes_of
from matsign.iterations.differentiable_solves import inverse
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye


def poles_jvp(backend: Backend, a: Array, poles: Array, da: Array) -> Array:
    """dλ for the eigenvalues `poles` of a, in their order; NaN where an eigenvalue is not simple to working precision."""
    values, vectors, simple = apply(backend, _EIGEN, a)
    dvalues = _diagonal(backend, inverse(backend, vectors) @ backend.astype(da, backend.dtype_name(vectors)) @ vectors)
    return simple[:, None] * (_matches(backend, poles, values) @ dvalues[:, :, None])[:, :, 0]


def poles_vjp(backend: Backend, a: Array, poles: Array, cotangents: Array) -> Array:
    """The adjoint of `poles_jvp`; zero for zero cotangents, also where an eigenvalue is not simple."""
    values, vectors, simple = apply(backend, _EIGEN, a)
    cotangents = backend.xp.where(cotangents == 0, cotangents, simple[:, None] * cotangents)
    cotangents = (_matches(backend, poles, values).mT @ cotangents[:, :, None])[:, :, 0]
    return adjoint(inverse(backend, vectors)) @ (cotangents[:, :, None] * adjoint(vectors))


def _matches(backend: Backend, poles: Array, values: Array) -> Array:
    """A 0-1 matrix that maps each pole to the nearest recomputed eigenvalue: their order may differ."""
    distances = backend.xp.abs(poles[:, :, None] - values[:, None, :])
    return backend.astype(
        backend.stop_gradient(distances) <= backend.xp.min(backend.stop_gradient(distances), axis=-1, keepdims=True),
        backend.dtype_name(values),
    )


def _diagonal(backend: Backend, x: Array) -> Array:
    return backend.xp.sum(eye(backend, x) * x, axis=-2)


def _gaps(backend: Backend, values: Array) -> Array:
    """λ_j - λ_i, and 1 on the diagonal."""
    return values[:, None, :] - values[:, :, None] + backend.eye(values.shape[-1], values)[None]


def _solve(backend: Backend, a: Array) -> Solution:
    """(eigenvalues, eigenvectors, 1) where all eigenvalues are simple to working precision.

    Else (1, 2, …; I; NaN): finite stand-ins, so that derivatives that do not depend on the poles stay finite.
    """
    xp, n = backend.xp, a.shape[-1]
    values, vectors = backend.eig(a)
    distances = xp.where(eye(backend, vectors).real > 0, math.inf, xp.abs(_gaps(backend, values)))
    gap = xp.min(distances, axis=(-1, -2))
    condition = backend.norm(vectors) * backend.norm(backend.inv(vectors))
    simple = (condition * n * backend.eps(a) < 1) & (gap > n * backend.eps(a) * backend.norm(a))
    stand_in = backend.astype(
        xp.cumulative_sum(backend.ones(a)[:, None] + 0 * values.real, axis=-1), backend.dtype_name(values)
    )
    values = xp.where(simple[:, None], values, stand_in)
    vectors = xp.where(broadcast_scalar(simple), vectors, eye(backend, vectors))
    return solution(backend, (values, vectors, xp.where(simple, backend.ones(a), math.nan * backend.ones(a))))


def _tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays) -> Arrays:
    values, vectors, simple = value
    in_eigenbasis = inverse(backend, vectors) @ tangents[0] @ vectors
    off = (1 - eye(backend, vectors)) / _gaps(backend, values)
    return _diagonal(backend, in_eigenbasis), vectors @ (off * in_eigenbasis), 0 * simple


def _cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays) -> Arrays:
    values, vectors, _ = value
    off = (1 - eye(backend, vectors)) / _gaps(backend, values)
    inner = eye(backend, vectors) * cotangents[0][:, None, :] + off.conj() * (adjoint(vectors) @ cotangents[1])
    return (adjoint(inverse(backend, vectors)) @ inner @ adjoint(vectors),)


_EIGEN = Operation(
    "eigenvalues",
    shapes_of("(n,n)"),
    (("n",), ("n", "n"), ()),
    solve=_solve,
    tangent=_tangent,
    cotangent=_cotangent,
    kinds=("complex", "complex", "real"),
)
