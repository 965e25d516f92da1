"""The derivatives of square roots: X dX + dX X = dA, also where a root is singular."""

from __future__ import annotations

from typing import Any

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.functions.powers.root_corrections import regular_root
from matsign.iterations.differentiable_solves import sylvester_symmetric
from matsign.linalg.stacks import (
    adjoint,
    broadcast_scalar,
    eye,
    scale_to_unit,
)


def root_tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, **_: Any) -> Arrays:
    return (sylvester_symmetric(backend, *value, *tangents),)


def root_cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, **_: Any) -> Arrays:
    return (sylvester_symmetric(backend, adjoint(value[0]), *cotangents),)


def _null_projector(backend: Backend, x: Array, z: Array) -> Array:
    """I - Z X, and zero exactly where X is regular."""
    zero = eye(backend, x) - z @ x
    none = broadcast_scalar(backend.trace(zero).real < 0.5)
    return backend.xp.where(none, backend.xp.zeros_like(zero), zero)


def inverse_jvp(z: Array, zero: Array, dx: Array) -> Array:
    """dZ for the inverse Z of X off its null space: -Z dX Z, and the part from the change of that space."""
    square = z @ z
    return -(z @ dx @ z) + square @ dx @ zero + zero @ dx @ square


def pair_tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, **_: Any) -> Arrays:
    x, z = value
    dx = sylvester_symmetric(backend, x, *tangents)
    return dx, inverse_jvp(z, _null_projector(backend, x, z), dx)


def pair_cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, **_: Any) -> Arrays:
    x, z = value
    bar = cotangents[0] + inverse_jvp(adjoint(z), adjoint(_null_projector(backend, x, z)), cotangents[1])
    return (sylvester_symmetric(backend, adjoint(x), bar),)


def inverse_tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, **_: Any) -> Arrays:
    (z,), (a,) = value, arrays
    return pair_tangent(backend, (a @ z, z), arrays, tangents)[1:]


def inverse_cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, **_: Any) -> Arrays:
    (z,), (a,), (bar,) = value, arrays, cotangents
    return pair_cotangent(backend, (a @ z, z), arrays, (backend.xp.zeros_like(bar), bar))


def is_singular_root(backend: Backend, x: Array) -> Array:
    """Where a root has a zero eigenvalue: √t has no derivative there, and the inverse is discontinuous at a change of rank."""
    return regular_root(backend, scale_to_unit(backend, x)[0], x.shape[-1] * backend.eps(x)).singular
