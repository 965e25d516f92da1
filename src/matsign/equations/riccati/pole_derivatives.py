"""Eigenvalues as functions of a matrix: with a v = v diag(λ) and w = v⁻¹ they move by dλ_i = (w da v)_ii.

The eigenvectors may be scaled, and the rule leaves their lengths alone as far as it can: dv = v (g ∘ w da v) with
g_ij = 1 / (λ_j - λ_i) and zeros on the diagonal. Nothing but the eigenvalues is right then, and those to every order.
"""

from __future__ import annotations

import math
from typing import Any

from matsign._typing import Arrays
from matsign.backends import Backend
from matsign.core.members import Solution, solution
from matsign.core.operations import Operation, apply, shapes_of
from matsign.iterations.differentiable_solves import inverse
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye, norm

Array = Any


def poles_jvp(be: Backend, a: Array, poles: Array, da: Array) -> Array:
    """How these eigenvalues of a move, in their order; NaN where an eigenvalue is not simple to working precision."""
    values, vectors, simple = apply(be, _EIGEN, a)
    moved = _diagonal(be, inverse(be, vectors) @ be.astype(da, be.dtype_name(vectors)) @ vectors)
    return simple[:, None] * (_places(be, poles, values) @ moved[:, :, None])[:, :, 0]


def poles_vjp(be: Backend, a: Array, poles: Array, cotangents: Array) -> Array:
    """The adjoint of `poles_jvp`; zero for zero cotangents, also where an eigenvalue is not simple."""
    values, vectors, simple = apply(be, _EIGEN, a)
    cotangents = be.xp.where(cotangents == 0, cotangents, simple[:, None] * cotangents)
    cotangents = (_places(be, poles, values).mT @ cotangents[:, :, None])[:, :, 0]
    return adjoint(inverse(be, vectors)) @ (cotangents[:, :, None] * adjoint(vectors))


def _places(be: Backend, poles: Array, values: Array) -> Array:
    """Which eigenvalue each pole is: the order of those computed anew is not guaranteed."""
    apart = be.xp.abs(poles[:, :, None] - values[:, None, :])
    return be.astype(
        be.stop_gradient(apart) <= be.xp.min(be.stop_gradient(apart), axis=-1, keepdims=True), be.dtype_name(values)
    )


def _diagonal(be: Backend, x: Array) -> Array:
    return be.xp.sum(eye(be, x) * x, axis=-2)


def _gaps(be: Backend, values: Array) -> Array:
    """λ_j - λ_i, and 1 on the diagonal."""
    return values[:, None, :] - values[:, :, None] + be.eye(values.shape[-1], values)[None]


def _solve(be: Backend, a: Array) -> Solution:
    """Eigenvalues, eigenvectors, and 1 where all are simple.

    Elsewhere that is NaN, and the others are those of some diagonal matrix, so that what does not ask for the derivatives of the
    eigenvalues stays finite.
    """
    xp, n = be.xp, a.shape[-1]
    values, vectors = be.eig(a)
    alone = xp.where(eye(be, vectors).real > 0, math.inf, xp.abs(_gaps(be, values)))
    gap = xp.min(alone, axis=(-1, -2))
    condition = norm(be, vectors) * norm(be, be.inv(vectors))
    simple = (condition * n * be.eps(a) < 1) & (gap > n * be.eps(a) * norm(be, a))
    stand_in = be.astype(xp.cumulative_sum(be.ones(a)[:, None] + 0 * values.real, axis=-1), be.dtype_name(values))
    values = xp.where(simple[:, None], values, stand_in)
    vectors = xp.where(broadcast_scalar(simple), vectors, eye(be, vectors))
    return solution(be, (values, vectors, xp.where(simple, be.ones(a), math.nan * be.ones(a))))


def _tangent(be: Backend, value: Arrays, arrays: Arrays, tangents: Arrays) -> Arrays:
    values, vectors, simple = value
    turned = inverse(be, vectors) @ tangents[0] @ vectors
    off = (1 - eye(be, vectors)) / _gaps(be, values)
    return _diagonal(be, turned), vectors @ (off * turned), 0 * simple


def _cotangent(be: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays) -> Arrays:
    values, vectors, _ = value
    off = (1 - eye(be, vectors)) / _gaps(be, values)
    inner = eye(be, vectors) * cotangents[0][:, None, :] + off.conj() * (adjoint(vectors) @ cotangents[1])
    return (adjoint(inverse(be, vectors)) @ inner @ adjoint(vectors),)


_EIGEN = Operation(
    "eigenvalues",
    shapes_of("(n,n)"),
    (("n",), ("n", "n"), ()),
    solve=_solve,
    tangent=_tangent,
    cotangent=_cotangent,
    kinds=("complex", "complex", "real"),
)
