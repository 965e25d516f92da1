"""Derivatives of a reduced model: those of the balancing projections, then of the projection, and of the part that is kept."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

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


class _Places(NamedTuple):
    """Where the columns of the projections stand in a reduced model: behind those of the kept part, if there is one."""

    order: int
    matrix: Array | None

    @classmethod
    def of(cls, backend: Backend, kept: Kept | None, order: int, like: Array) -> _Places:
        if kept is None:
            return cls(order, None)
        return cls(order, backend.astype(placing(backend, kept, order), backend.dtype_name(like)))

    def place(self, x: Array) -> Array:
        """As many columns of x as the reduced model has."""
        return x[:, :, : self.order] if self.matrix is None else x @ self.matrix

    def place_adjoint(self, backend: Backend, bar: Array, size: int) -> Array:
        if self.matrix is not None:
            return bar @ adjoint(self.matrix)
        if self.order == size:
            return bar
        return backend.xp.concat([bar, _zero_columns(backend, bar, size - self.order)], axis=-1)


def _zero_columns(backend: Backend, like: Array, count: int) -> Array:
    return backend.zeros((*like.shape[:-1], count), like)


def values_jvp(backend: Backend, kept: Kept | None, dvalues: Array) -> Array:
    """The tangents of all Hankel singular values, those of kept poles zero, from those of the stable part."""
    return _Places.of(backend, kept, dvalues.shape[-1], dvalues).place(dvalues[:, None, :])[:, 0]


def values_vjp(backend: Backend, kept: Kept | None, bar: Array) -> Array:
    """The adjoint of `values_jvp`."""
    size = bar.shape[-1]
    return _Places.of(backend, kept, size, bar).place_adjoint(backend, bar[:, None, :], size)[:, 0]


def _projections(backend: Backend, balancing: Balancing, places: _Places) -> Projections:
    at, kept = balancing.at, balancing.kept
    left, right = places.place(at.left), places.place(at.right)
    known = (backend.stop_gradient(right) != 0).any(-2)
    return Projections(left, right, known, None if kept is None else first_columns(backend, kept, places.order))


def _kept_part(backend: Backend, kept: Kept, order: int) -> tuple[Bases, Projections]:
    at = bases(backend, kept, order, functools.partial(inverse, backend))
    return at, Projections(at.left, at.right, at.right, at.right)


def _in_units(backend: Backend, at: Balancing, model: Arrays) -> Arrays:
    """The tangents of the kept part in the units of the value; its own adjoint, too."""
    if at.unit is None:
        return model
    (a, b, c), unit = model, broadcast_scalar(backend.ldexp(backend.ones(model[0]), at.unit))
    return a, b * unit, c / unit


def _tangent(backend: Backend, at: Balancing, tangents: Arrays, *, order: int, method: str, **_: Any) -> Arrays:
    dp, of_stable = at.split_jvp(backend, tangents)
    dvalues, dl, dt = at.jvp(backend, of_stable)
    places = _Places.of(backend, at.kept, order, dl)
    p, dl, dt = _projections(backend, at, places), places.place(dl), places.place(dt)
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
    places, size = _Places.of(backend, at.kept, order, at.at.left), at.model[0].shape[-1]
    p = _projections(backend, at, places)
    if method == "matchdc":
        by_stable, bar_l, bar_t = steady_vjp(backend, at.time.steady, at.stable, p, bars[:4])
    else:
        by_stable, bar_l, bar_t = truncate_vjp(at.stable, p, bars[:3])
    bar_l, bar_t = (places.place_adjoint(backend, x, size) for x in (bar_l, bar_t))
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
