"""Eigenvalues as functions of a matrix: with a v = v diag(λ) and w = v⁻¹ they move by dλ_i = (w da v)_ii.

The eigenvectors may be scaled, and the rule leaves their lengths alone as far as it can: dv = v (g ∘ w da v) with
g_ij = 1 / (λ_j - λ_i) and zeros on the diagonal. Nothing but the eigenvalues is right then, and those to every order.
"""

from __future__ import annotations

import math
from typing import Any

from matsign.backends import Backend
from matsign.core.operations import Arrays, Rule, Solution, follow, shapes_of, solution
from matsign.iterations.differentiable_solves import inverse
from matsign.linalg.stacks import adjoint, column, eye, norm

Array = Any


def poles_move(be: Backend, a: Array, poles: Array, da: Array) -> Array:
    """How these eigenvalues of a move, in their order; NaN where an eigenvalue is not simple to working precision."""
    values, vectors, simple = follow(be, _EIGEN, a)
    moved = _diagonal(be, inverse(be, vectors) @ be.astype(da, be.kind(vectors)) @ vectors)
    return simple[:, None] * (_places(be, poles, values) @ moved[:, :, None])[:, :, 0]


def poles_pull(be: Backend, a: Array, poles: Array, bars: Array) -> Array:
    """The adjoint of `poles_move`; zero for zero cotangents, also where an eigenvalue is not simple."""
    values, vectors, simple = follow(be, _EIGEN, a)
    bars = be.xp.where(bars == 0, bars, simple[:, None] * bars)
    bars = (_places(be, poles, values).mT @ bars[:, :, None])[:, :, 0]
    return adjoint(inverse(be, vectors)) @ (bars[:, :, None] * adjoint(vectors))


def _places(be: Backend, poles: Array, values: Array) -> Array:
    """Which eigenvalue each pole is: the order of those computed anew is not guaranteed."""
    apart = be.xp.abs(poles[:, :, None] - values[:, None, :])
    return be.astype(be.constant(apart) <= be.xp.min(be.constant(apart), axis=-1, keepdims=True), be.kind(values))


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
    alone = xp.where(be.real(eye(be, vectors)) > 0, math.inf, xp.abs(_gaps(be, values)))
    gap = xp.min(alone, axis=(-1, -2))
    condition = norm(be, vectors) * norm(be, be.inv(vectors))
    simple = (condition * n * be.eps(a) < 1) & (gap > n * be.eps(a) * norm(be, a))
    stand_in = be.astype(xp.cumulative_sum(be.ones(a)[:, None] + 0 * be.real(values), axis=-1), be.kind(values))
    values = xp.where(simple[:, None], values, stand_in)
    vectors = xp.where(column(simple), vectors, eye(be, vectors))
    return solution(be, (values, vectors, xp.where(simple, be.ones(a), math.nan * be.ones(a))))


def _tangent(be: Backend, value: Arrays, arrays: Arrays, moves: Arrays) -> Arrays:
    values, vectors, simple = value
    turned = inverse(be, vectors) @ moves[0] @ vectors
    off = (1 - eye(be, vectors)) / _gaps(be, values)
    return _diagonal(be, turned), vectors @ (off * turned), 0 * simple


def _cotangent(be: Backend, value: Arrays, arrays: Arrays, bars: Arrays) -> Arrays:
    values, vectors, _ = value
    off = (1 - eye(be, vectors)) / _gaps(be, values)
    inner = eye(be, vectors) * bars[0][:, None, :] + off.conj() * (adjoint(vectors) @ bars[1])
    return (adjoint(inverse(be, vectors)) @ inner @ adjoint(vectors),)


_EIGEN = Rule(
    "eigenvalues",
    shapes_of("(n,n)"),
    (("n",), ("n", "n"), ()),
    solve=_solve,
    tangent=_tangent,
    cotangent=_cotangent,
    kinds=("complex", "complex", "real"),
)
