"""Derivatives of a reduced model: those of the balancing projections, then of the projection, and of the part that is kept."""

from __future__ import annotations

import functools
from typing import Any

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core import scaling
from matsign.equations.reduction.balancing import Balancing, cotangent_of_model, tangent_of_model
from matsign.equations.reduction.kept import Bases, Kept, bases, first_columns, placing
from matsign.equations.reduction.kept_derivatives import bases_jvp, bases_vjp
from matsign.equations.reduction.projection import (
    Projections,
    steady_jvp,
    steady_vjp,
    truncate_jvp,
    truncate_vjp,
)
from matsign.iterations.differentiable_solves import inverse
from matsign.linalg.stacks import adjoint, broadcast_scalar


def _place(backend: Backend, kept: Kept | None, x: Array, order: int) -> Array:
    """As many columns of x as the reduced model has, behind those of the kept part."""
    return x[:, :, :order] if kept is None else x @ backend.astype(placing(backend, kept, order), backend.dtype_name(x))


def _place_adjoint(backend: Backend, kept: Kept | None, bar: Array, size: int) -> Array:
    order = bar.shape[-1]
    if kept is None:
        return bar if order == size else backend.xp.concat([bar, _zero_columns(backend, bar, size - order)], axis=-1)
    return bar @ adjoint(backend.astype(placing(backend, kept, order), backend.dtype_name(bar)))


def _zero_columns(backend: Backend, like: Array, count: int) -> Array:
    return backend.zeros((*like.shape[:-1], count), like)


def values_jvp(backend: Backend, kept: Kept | None, dvalues: Array) -> Array:
    """The tangents of all Hankel singular values, those of kept poles zero, from those of the stable part."""
    return _place(backend, kept, dvalues[:, None, :], dvalues.shape[-1])[:, 0]


def values_vjp(backend: Backend, kept: Kept | None, bar: Array) -> Array:
    """The adjoint of `values_jvp`."""
    return _place_adjoint(backend, kept, bar[:, None, :], bar.shape[-1])[:, 0]


def _projections(backend: Backend, balancing: Balancing, order: int) -> Projections:
    at, kept = balancing.at, balancing.kept
    left, right = (_place(backend, kept, x, order) for x in (at.left, at.right))
    known = (backend.stop_gradient(right) != 0).any(-2)
    return Projections(left, right, known, known & ~known if kept is None else first_columns(backend, kept, order))


def _kept_part(backend: Backend, kept: Kept, order: int) -> tuple[Bases, Projections]:
    at = bases(backend, kept, order, functools.partial(inverse, backend))
    return at, Projections(at.left, at.right, at.right, at.right)


def _in_units(backend: Backend, at: Balancing, model: Arrays) -> Arrays:
    """The tangents of the kept part in the units of the value; its own adjoint, too."""
    if at.unit is None:
        return model
    unit, (a, b, c) = broadcast_scalar(at.unit), model
    return a, backend.ldexp(b, unit), backend.ldexp(c, -unit)


def _tangent(backend: Backend, at: Balancing, tangents: Arrays, *, order: int, method: str, **_: Any) -> Arrays:
    dp, of_stable = at.split_jvp(backend, tangents)
    dvalues, dl, dt = at.jvp(backend, of_stable)
    p, dl, dt = _projections(backend, at, order), *(_place(backend, at.kept, x, order) for x in (dl, dt))
    if method == "matchdc":
        reduced = steady_jvp(backend, at.time.steady, at.stable, of_stable, p, dl, dt)
    else:
        reduced = *truncate_jvp(at.stable, of_stable, p, dl, dt), 0 * (at.stable[2] @ at.stable[1])
    if at.kept is not None:
        q, projections = _kept_part(backend, at.kept, order)
        others = _in_units(backend, at, truncate_jvp(at.model, tangents, projections, *bases_jvp(at.kept, q, dp)))
        reduced = *(x + y for x, y in zip(reduced[:3], others, strict=True)), reduced[3]
    return *reduced, values_jvp(backend, at.kept, dvalues)


def _cotangent(backend: Backend, at: Balancing, bars: Arrays, *, order: int, method: str, **_: Any) -> Arrays:
    p, size = _projections(backend, at, order), at.model[0].shape[-1]
    if method == "matchdc":
        by_stable, bar_l, bar_t = steady_vjp(backend, at.time.steady, at.stable, p, bars[:4])
    else:
        by_stable, bar_l, bar_t = truncate_vjp(at.stable, p, bars[:3])
    bar_l, bar_t = (_place_adjoint(backend, at.kept, x, size) for x in (bar_l, bar_t))
    by_projections = at.vjp(backend, (values_vjp(backend, at.kept, bars[4]), bar_l, bar_t))
    by_stable = tuple(x + y for x, y in zip(by_stable, by_projections, strict=True))
    if at.kept is None:
        return by_stable
    q, projections = _kept_part(backend, at.kept, order)
    by_model, *bar_bases = truncate_vjp(at.model, projections, _in_units(backend, at, bars[:3]))
    by_split = at.split_vjp(backend, bases_vjp(at.kept, q, *bar_bases), by_stable)
    return tuple(x + y for x, y in zip(by_model, by_split, strict=True))


def _powers(half: Array, of_b: Array, of_c: Array) -> scaling.Powers:
    share = (of_b + of_c) // 2
    of_values = 2 * (share - half)
    return scaling.Powers((2 * half, of_b, of_c), (2 * half, share, share, of_values, of_values))


_MODEL_TANGENT = tangent_of_model(_powers, _tangent)
_MODEL_COTANGENT = cotangent_of_model(_powers, _cotangent)


def truncate_tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, **options: Any) -> Arrays:
    """The tangent for (a, b, c, d, e); d is added to the result."""
    model, of_model = ((*x[:3], x[4]) for x in (arrays, tangents))
    a, b, c, d, values = _MODEL_TANGENT(backend, value, model, of_model, **options)
    return a, b, c, d if tangents[3] is None else d + tangents[3], values


def truncate_cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, **options: Any) -> Arrays:
    """The adjoint of `truncate_tangent`."""
    a, b, c, e = _MODEL_COTANGENT(backend, value, (*arrays[:3], arrays[4]), cotangents, **options)
    return a, b, c, None if arrays[3] is None else cotangents[3], e
