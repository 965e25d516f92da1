"""Errors of a factor z of the solution x = z zᴴ of aᴴ x + x a - x b bᴴ x + cᴴ c = 0.

For a large a without x: the residual is w s wᴴ with w = [aᴴ z, z, cᴴ] and a small s, so its norm is that of r s rᴴ with the
triangular r of w. Its positive and its negative part have factors, and so has the Newton step that each gives. The separation
comes from solutions for right-hand sides u uᴴ: the inverse of the Lyapunov operator of a stable closed loop, which keeps
matrices positive semidefinite, is largest at one of them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.public import Residual
from matsign.equations.riccati.care import EQUATIONS
from matsign.equations.riccati.certificates import error_estimate
from matsign.equations.riccati.factor_methods import (
    LARGE,
    ScaledModel,
    closed_loop_gain,
    in_balanced_units,
    in_units_of,
    in_units_of_time,
    with_weights,
)
from matsign.iterations.smith import Cayley, cayley_at
from matsign.iterations.smith_factored import smith_factors, width
from matsign.iterations.structured_doubling_factored import shift
from matsign.linalg.stacks import adjoint, broadcast_scalar, random_probe, safe_divisor


class _Errors(NamedTuple):
    """Of x for each member: backward and relative error, separation, and whether the closed loop is on the boundary."""

    backward: Array
    relative: Array
    separation: Array
    boundary: Array


def factor_residual(backend: Backend, value: Arrays, a: Array, b: Array, c: Array) -> Residual:
    """The errors of z zᴴ; the relative error of z is half of that of z zᴴ."""
    if a.shape[-1] < LARGE or backend.is_traced(a):
        errors = _by_solution(backend, value[0], a, b, c)
    else:
        members = [_of_member(backend, *(x[k : k + 1] for x in (value[0], a, b, c))) for k in range(len(a))]
        errors = _Errors(*(backend.xp.concat(part) for part in zip(*members, strict=True)))
    known = backend.xp.isfinite(errors.relative)
    correction = (
        broadcast_scalar(backend.xp.where(known, errors.relative, backend.xp.zeros_like(errors.relative)) / 2)
        * value[0]
    )
    correction = backend.xp.where(broadcast_scalar(known), correction, backend.xp.full_like(correction, math.inf))
    correction = scaling.at_least_rounded(backend, correction, value[0])
    return Residual(errors.backward, (correction,), errors.separation, errors.boundary)


def _of_member(backend: Backend, z: Array, a: Array, b: Array, c: Array) -> _Errors:
    """By factors, and where these do not show that the closed loop is stable, by the solution."""
    errors = _by_factors(backend, z, a, b, c)
    if not backend.any_true(errors.boundary):
        return errors
    dense = _by_solution(backend, z, a, b, c)
    return dense if backend.all_true(dense.relative < math.inf) else errors


def _by_solution(backend: Backend, z: Array, a: Array, b: Array, c: Array) -> _Errors:
    s = in_units_of_time(backend, a, b, c)
    z = in_units_of(backend, s, z)
    x = z @ adjoint(z)
    errors = error_estimate(backend, EQUATIONS["left"], x, with_weights(backend, s.a, s.b, s.c))
    relative = backend.norm(errors.correction[0]) / safe_divisor(backend, backend.norm(x))
    assert errors.separation is not None
    assert errors.boundary is not None
    return _Errors(errors.backward, relative, backend.ldexp(errors.separation, s.time), errors.boundary)


def _by_factors(backend: Backend, z: Array, a: Array, b: Array, c: Array) -> _Errors:
    """The errors of one member."""
    s = in_balanced_units(backend, a, b, c)
    z = in_units_of(backend, s, z)
    z = z[..., : width(backend, z)]
    q, small, terms = _residual_parts(backend, s, z)
    closed = adjoint(s.a - s.b @ closed_loop_gain(s, z))
    loop = cayley_at(backend, closed, shift(backend, closed))
    values, v = backend.eigh(small)
    parts = tuple(q @ (v * backend.xp.sqrt(backend.xp.clip(x, 0, None))[:, None, :]) for x in (values, -values))
    positive, negative, stable = _responses(backend, loop, parts, dual=False)
    step = _difference_norm(backend, positive, negative) / safe_divisor(backend, _square_norm(backend, z))
    relative = backend.xp.where(stable, step + backend.eps(z), math.inf)
    backward = backend.norm(small) / safe_divisor(backend, terms)
    separation = backend.xp.where(stable, _separation(backend, loop), 0 * step)
    return _Errors(backward, relative, backend.ldexp(separation, s.time), ~stable)


def _residual_parts(backend: Backend, s: ScaledModel, z: Array) -> tuple[Array, Array, Array]:
    """(q, h, terms): the residual is q h qᴴ for orthonormal columns q, and `terms` the sum of the norms of its terms."""
    k, bz = z.shape[-1], adjoint(s.b) @ z
    q, r = backend.xp.linalg.qr(backend.xp.concat([adjoint(s.a) @ z, z, adjoint(s.c)], axis=-1))
    left, middle, last = r[..., :k], r[..., k : 2 * k], r[..., 2 * k :]
    half, inner = left @ adjoint(middle), middle @ adjoint(bz)
    quadratic_term, weight = inner @ adjoint(inner), last @ adjoint(last)
    terms = 2 * backend.norm(half) + backend.norm(quadratic_term) + backend.norm(weight)
    return q, half + adjoint(half) - quadratic_term + weight, terms


def _responses(backend: Backend, loop: Cayley, rights: Arrays, *, dual: bool) -> Arrays:
    """(*factors, converged): factors of the x with fᴴ x + x f + u uᴴ = 0, or f x + x fᴴ + u uᴴ = 0 if `dual`, for each u."""
    m = adjoint(loop.m) if dual else loop.m
    root = broadcast_scalar(backend.xp.sqrt(2 * loop.p))
    factors = smith_factors(backend, loop.c, tuple(root * (m @ u) for u in rights), (dual,) * len(rights))
    return *(z[..., : width(backend, z)] for z in factors.z), factors.converged


def _separation(backend: Backend, loop: Cayley) -> Array:
    """An estimate of the separation from above, by one step of power iteration on factors: with the operator and its adjoint."""
    u = random_probe(backend, loop.c.shape[-1], 1, loop.c) + 0 * loop.c[..., :1]
    x = _responses(backend, loop, (u,), dual=False)[0]
    x = x / broadcast_scalar(safe_divisor(backend, backend.norm(x)))
    y = _responses(backend, loop, (x,), dual=True)[0]
    return _square_norm(backend, x) / safe_divisor(backend, _square_norm(backend, y))


def _square_norm(backend: Backend, z: Array) -> Array:
    """‖z zᴴ‖."""
    return backend.norm(adjoint(z) @ z)


def _difference_norm(backend: Backend, one: Array, other: Array) -> Array:
    """‖one oneᴴ - other otherᴴ‖."""
    r = backend.xp.linalg.qr(backend.xp.concat([one, other], axis=-1))[1]
    first, second = r[..., : one.shape[-1]], r[..., one.shape[-1] :]
    return backend.norm(first @ adjoint(first) - second @ adjoint(second))
