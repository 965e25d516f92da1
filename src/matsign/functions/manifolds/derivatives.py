"""The derivatives of steps along manifolds, of first order.

The normals are L(X) = B X or x B, for B = msign(W) on the Stiefel manifold, and for the mean Θ of the uᵢvᵢᴴ on the spectral
sphere. With the multiplier X for G, and the map S(E, C) of `tangent_derivatives`:

tangent(W, G, dW, dG):
    dB = B'[dW]
    return S(dG + dB X, Herm(dBᴴ A))

cotangent(W, G, Ā):
    T, Y = S(Ā, 0)
    return B'[T X + A Y], T

since B' is self-adjoint; on the sphere Re tr(dBᴴA) takes the place of the Hermitian part. Where W has several largest singular
values, B' leaves out the part of dW that parts them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.members import Solution, solution
from matsign.core.operations import Operation, apply, shapes_of
from matsign.functions.manifolds.methods import (
    Task,
    TopVectors,
    sphere_task,
    stated_gap,
    stiefel_task,
    top_vectors,
)
from matsign.iterations.tangent_ascent import Ascent, ascend, central
from matsign.iterations.tangent_derivatives import Sensitivity, jump, response, sensitivity
from matsign.linalg.stacks import (
    adjoint,
    broadcast_scalar,
    hermitian,
    random_probe,
    rounding_probe,
    scale_to_unit,
    to_double,
)


class Point(NamedTuple):
    """What the derivatives at W and G need: those of the base, and the multiplier X for G; W and G were scaled by 2^-e.

    `edge` are the members whose base has no derivative.
    """

    edge: Array
    base_derivative: Callable[[Array], Array]
    at: Sensitivity
    x: Array
    step: Array
    w_exponent: Array
    g_exponent: Array


def _of_msign(backend: Backend, w: Array) -> Callable[[Array], Array]:
    return central(backend, w, 1e-3 * backend.eps(w) * backend.ones(w)).apply


def _of_theta(backend: Backend, at: TopVectors) -> Callable[[Array], Array]:
    """dΘ for dW, by the divided differences of 1/k at the k largest singular values and 0 at others."""
    f, s = at.top / at.count[:, None], at.values
    jumps, apart = f[:, :, None] - f[:, None, :], s[:, :, None] - s[:, None, :]
    even = backend.xp.where(jumps == 0, 0 * apart, jumps / backend.xp.where(jumps == 0, 1 + 0 * apart, apart))
    odd = (f[:, :, None] + f[:, None, :]) / (s[:, :, None] + s[:, None, :] + 1e-300)
    outside = f / s[:, :1]

    def derivative(dw: Array) -> Array:
        right = dw @ adjoint(at.vh)
        d = adjoint(at.u) @ right
        h = hermitian(d)
        return (at.u @ (even * h + odd * (d - h)) + (right - at.u @ d) * outside[:, None, :]) @ at.vh

    return derivative


def _found(backend: Backend, task: Task) -> Ascent:
    """Near the multiplier for the tangent part of G; for a square W this is 0 by symmetry."""
    if not task.has_closed_form:
        return ascend(backend, task.normals, task.g, stated_gap(backend, task.g))
    size = backend.norm(task.g)
    return Ascent(task.normals, task.g, 0 * task.g, size, 0 * task.g, 1 + 0 * size, 0 * size)


def _stiefel_point(backend: Backend, w: Array, g: Array) -> Point:
    task = stiefel_task(backend, w, g)
    g, e = scale_to_unit(backend, to_double(backend, g))
    at = sensitivity(backend, _found(backend, task))
    x = at.x + task.normals.start(backend, g)
    no_edge = task.number < 0
    return Point(no_edge, _of_msign(backend, to_double(backend, w)), at, x, at.slope.step(), 0 * e, e)


def _sphere_point(backend: Backend, w: Array, g: Array) -> Point:
    task, top = sphere_task(backend, w, g), top_vectors(backend, w)
    g, e = scale_to_unit(backend, to_double(backend, g))
    at = sensitivity(backend, _found(backend, task))
    x, of_w = at.x + task.normals.start(backend, g), scale_to_unit(backend, to_double(backend, w))[1]
    return Point(top.count > 1, _of_theta(backend, top), at, x, at.slope.step(), of_w, e)


class Rules(NamedTuple):
    """For one manifold: the two derivatives, the mask of members without one, and the change by rounding errors of W and G."""

    tangent: Callable[..., Arrays]
    cotangent: Callable[..., Arrays]
    unbounded: Callable[..., Array]
    rounding: Callable[..., Array]


def rules(name: str, point_of: Callable[..., Point]) -> Rules:
    """By two operations without derivatives of their own."""

    def push(backend: Backend, w: Array, g: Array, dw: Array, dg: Array) -> Solution:
        point = point_of(backend, w, g)
        db = point.base_derivative(_scale(backend, dw, point.w_exponent))
        step = _change(backend, point, db, _scale(backend, dg, point.g_exponent))
        return solution(backend, (backend.astype(step, backend.dtype_name(g)),))

    def pull(backend: Backend, w: Array, g: Array, bar: Array) -> Solution:
        point = point_of(backend, w, g)
        bar = to_double(backend, bar)
        t, y = response(backend, point.at, bar, 0 * point.x)
        kind = type(point.at.normals)
        bar_w = point.base_derivative(kind(t).lift(point.x) + kind(point.step).lift(y))
        both = _scale(backend, bar_w, point.w_exponent), _scale(backend, t, point.g_exponent)
        return solution(backend, tuple(backend.astype(x, backend.dtype_name(g)) for x in both))

    tangent_of = Operation(
        f"the derivative of {name}", shapes_of("(n,m),(n,m),(n,m),(n,m)"), shapes_of("(n,m)"), solve=push
    )
    cotangent_of = Operation(
        f"the gradient of {name}", shapes_of("(n,m),(n,m),(n,m)"), shapes_of("(n,m),(n,m)"), solve=pull
    )

    def tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, **_: Any) -> Arrays:
        return *_tall(backend, tangent_of, *arrays, *tangents), 0 * value[1]

    def cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, **_: Any) -> Arrays:
        return _tall(backend, cotangent_of, *arrays, cotangents[0])

    def unbounded(backend: Backend, value: Arrays, w: Array, g: Array) -> Array:
        if w.shape[-2] < w.shape[-1]:
            return unbounded(backend, value, adjoint(w), adjoint(g))
        point = point_of(backend, w, g)
        n, m = w.shape[-2:]
        probe = random_probe(backend, n, m, point.step)
        left = backend.norm(jump(backend, point.at, probe + 0 * point.step))
        return point.edge | (left > _JUMP * backend.norm(probe))

    def rounding(backend: Backend, w: Array, g: Array) -> Array:
        point, size = point_of(backend, w, g), backend.ones(w) * w.shape[-1] ** 0.5
        g, _ = scale_to_unit(backend, g)
        changes = rounding_probe(backend, w, size), rounding_probe(backend, g, backend.norm(g))
        db, dg = (to_double(backend, x) for x in changes)
        return _change(backend, point, point.base_derivative(db), dg)

    return Rules(tangent, cotangent, unbounded, rounding)


def _change(backend: Backend, point: Point, db: Array, dg: Array) -> Array:
    """dA for changes of the base and of the scaled G."""
    normals = type(point.at.normals)(db)
    step, _ = response(backend, point.at, dg + normals.lift(point.x), normals.restrict(backend, point.step))
    return step


# A part of a random change above this, relative to the change, has no derivative.
_JUMP = 1e-6


def _tall(backend: Backend, operation: Operation, *arrays: Array) -> Arrays:
    if arrays[0].shape[-2] >= arrays[0].shape[-1]:
        return apply(backend, operation, *arrays)
    return tuple(adjoint(x) for x in apply(backend, operation, *(adjoint(x) for x in arrays)))


def _scale(backend: Backend, x: Array, e: Array) -> Array:
    return backend.ldexp(to_double(backend, x), broadcast_scalar(-e))


STIEFEL = rules("stiefel_step", _stiefel_point)
SPHERE = rules("spectral_sphere_step", _sphere_point)
