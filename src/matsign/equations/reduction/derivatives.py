"""Derivatives of the Hankel singular values and balancing projections of a stable model.

The projections are those of its two Gramians (`equations.reduction.pair_balancing`), in continuous or in discrete time.
"""

from __future__ import annotations

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.equations.reduction.pair_balancing import BalancingProjections, pair_jvp, pair_vjp
from matsign.equations.reduction.times import Time
from matsign.linalg.stacks import adjoint


def _gramians(backend: Backend, time: Time, a: Array, b: Array, c: Array) -> tuple[Array, Array]:
    return time.gramian(backend, a, b @ adjoint(b)), time.gramian(backend, adjoint(a), adjoint(c) @ c)


def gramians_jvp(backend: Backend, time: Time, system: Arrays, tangents: Arrays) -> tuple[Array, Array]:
    """(dx, dw)."""
    (a, b, c), (da, db, dc) = system, tangents
    x, w = _gramians(backend, time, a, b, c)
    dual = adjoint(a), adjoint(c), w, adjoint(da), adjoint(dc)
    return time.jvp(backend, a, b, x, da, db), time.jvp(backend, *dual)


def gramians_vjp(backend: Backend, time: Time, system: Arrays, bar_x: Array, bar_w: Array) -> Arrays:
    """The adjoint of `gramians_jvp`."""
    a, b, c = system
    x, w = _gramians(backend, time, a, b, c)
    by_x, bar_b = time.vjp(backend, a, b, x, bar_x)
    by_w, bar_c = time.vjp(backend, adjoint(a), adjoint(c), w, bar_w)
    return by_x + adjoint(by_w), bar_b, adjoint(bar_c)


def tangent(backend: Backend, time: Time, at: BalancingProjections, arrays: Arrays, tangents: Arrays) -> Arrays:
    """(dσ, dl, dt) of a stable model."""
    return pair_jvp(backend, at, _gramians(backend, time, *arrays), gramians_jvp(backend, time, arrays, tangents))


def cotangent(backend: Backend, time: Time, at: BalancingProjections, arrays: Arrays, cotangents: Arrays) -> Arrays:
    """The adjoint of `tangent`."""
    return gramians_vjp(backend, time, arrays, *pair_vjp(backend, at, _gramians(backend, time, *arrays), cotangents))
