"""Truncated models by the projections of `riccati_balancing`: solver, differential and error estimates.

    a_r = lᴴ a t,    b_r = lᴴ b,    c_r = c t,    d_r = d,

with the columns of l and t for the largest characteristic values. A bound γ other than 1 scales b and c by γ^-1/2 and d by γ^-1.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.members import Solution
from matsign.core.options import real_number, short_repr
from matsign.core.public import Residual
from matsign.equations.reduction.pair_balancing import BalancingProjections
from matsign.equations.reduction.riccati_balancing import (
    Model,
    balance_by_riccati,
    powers,
    projections_at,
    projections_cotangent,
    projections_tangent,
    solution_errors,
)
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye, safe_divisor

SIGNATURE = "(n,n),(n,m),(p,n),(p,m)->(r,r),(r,m),(p,r),(p,m),(n)"
KINDS = ("same", "same", "same", "same", "real")


def check_bound(*, gamma: Any, **options: Any) -> None:
    number = math.nan if isinstance(gamma, bool) else real_number(gamma)
    if not (0 < number < math.inf):
        raise ValueError(f"bounded_real_balanced_truncation: gamma must be a positive number, got {short_repr(gamma)}")


def reduced_order(name: str) -> Callable[..., dict[str, int]]:
    """The number of states of the reduced model: `order`, but 0 for a model without states."""

    def sizes(known: dict[str, int], *, order: int, **options: Any) -> dict[str, int]:
        n = known["n"]
        if isinstance(order, bool) or not isinstance(order, int) or not 1 <= order <= max(n, 1):
            raise ValueError(f"{name}: order must be a whole number from 1 to {n}, got {order!r}")
        return {"r": min(order, n)}

    return sizes


def _in_units(backend: Backend, model: Arrays, gamma: float) -> tuple[Model, scaling.Powers]:
    """The model with entries of at most about 1 and the bound 1."""
    a, b, c, d = model
    d = backend.zeros((len(a), c.shape[-2], b.shape[-1]), a) if d is None else d
    share = gamma**-0.5
    bounded = a, share * b, share * c, d / gamma
    by = powers(backend, *bounded)
    scaled = (backend.ldexp(x, -broadcast_scalar(k)) for x, k in zip(bounded, by.arrays, strict=True))
    return Model(*scaled), by


def _restore(backend: Backend, value: Arrays, by: scaling.Powers, gamma: float) -> Arrays:
    """The reduced a, b and c for the bound 1 in the caller's units."""
    share = gamma**0.5
    a, b, c = (backend.ldexp(x, broadcast_scalar(k)) for x, k in zip(value, by.value, strict=False))
    return a, share * b, share * c


def _project(m: Model, at: BalancingProjections, order: int) -> Arrays:
    left, right = adjoint(at.left[:, :, :order]), at.right[:, :, :order]
    return left @ m.a @ right, left @ m.b, m.c @ right


def _with_decoupled_states(backend: Backend, m: Model, at: BalancingProjections, order: int) -> Arrays:
    """The projected model; a column of zeros, for a value at rounding level, becomes a decoupled state with the pole -1."""
    a, b, c = _project(m, at, order)
    missing = backend.astype((at.right[:, :, :order] == 0).all(-2), backend.dtype_name(a))
    return a - missing[:, None, :] * eye(backend, a), b, c


def solver_of(sigma: float, sizes: Callable[..., dict[str, int]]) -> Callable[..., Solution]:
    def solve(
        backend: Backend, a: Array, b: Array, c: Array, d: Array | None, *, order: int, gamma: float = 1.0
    ) -> Solution:
        sizes({"n": a.shape[-1]}, order=order)
        m, by = _in_units(backend, (a, b, c, d), gamma)
        balanced, _ = balance_by_riccati(backend, m, sigma)
        at = BalancingProjections(*balanced.value)
        model = _restore(backend, _with_decoupled_states(backend, m, at, order), by, gamma)
        direct = backend.xp.zeros_like(m.d) if d is None else d
        detail = backend.ldexp(balanced.detail, by.value[0][:, None])  # an eigenvalue
        return scaling.check_range(backend, balanced._replace(value=(*model, direct, at.values), detail=detail))

    return solve


def tangent_of(sigma: float) -> Callable[..., Arrays]:
    def tangent(
        backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, order: int, gamma: float = 1.0
    ) -> Arrays:
        m, by = _in_units(backend, arrays, gamma)
        t = _direction_in_units(backend, m, tangents, by, gamma)
        at = projections_at(backend, tuple(m), sigma)
        dvalues, dl, dt = projections_tangent(backend, at, m, t, sigma)
        left, right = adjoint(at.left)[:, :order], at.right[:, :, :order]
        dl, dt = adjoint(dl)[:, :order], dt[:, :, :order]
        moved = (
            dl @ m.a @ right + left @ (t.a @ right + m.a @ dt),
            dl @ m.b + left @ t.b,
            t.c @ right + m.c @ dt,
        )
        dd = backend.xp.zeros_like(m.d) if tangents[3] is None else tangents[3]
        return (*_restore(backend, moved, by, gamma), dd, dvalues)

    return tangent


def _direction_in_units(backend: Backend, m: Model, tangents: Arrays, by: scaling.Powers, gamma: float) -> Model:
    a, b, c, d = tangents
    share = gamma**-0.5
    bounded = a, share * b, share * c, backend.xp.zeros_like(m.d) if d is None else d / gamma
    return Model(*(backend.ldexp(x, -broadcast_scalar(k)) for x, k in zip(bounded, by.arrays, strict=True)))


def cotangent_of(sigma: float) -> Callable[..., Arrays]:
    """The adjoint of `tangent_of`."""

    def cotangent(
        backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, order: int, gamma: float = 1.0
    ) -> Arrays:
        m, by = _in_units(backend, arrays, gamma)
        at = projections_at(backend, tuple(m), sigma)
        left, right = at.left[:, :, :order], at.right[:, :, :order]
        bar_a, bar_b, bar_c = _restore(backend, cotangents[:3], by, gamma)
        bar_left = m.a @ right @ adjoint(bar_a) + m.b @ adjoint(bar_b)
        bar_right = adjoint(m.a) @ left @ bar_a + adjoint(m.c) @ bar_c
        bars = (cotangents[4], *(_pad_columns(backend, x, at) for x in (bar_left, bar_right)))
        moved = projections_cotangent(backend, at, m, bars, sigma)
        direct = left @ bar_a @ adjoint(right), left @ bar_b, bar_c @ adjoint(right), backend.xp.zeros_like(m.d)
        total = Model(*(x + y for x, y in zip(moved, direct, strict=True)))
        by_model = _direction_in_units(backend, m, tuple(total), by, gamma)
        return (*by_model[:3], None if arrays[3] is None else by_model.d + cotangents[3])

    return cotangent


def _pad_columns(backend: Backend, x: Array, at: BalancingProjections) -> Array:
    return backend.xp.concat([x, backend.xp.zeros_like(at.left[:, :, x.shape[-1] :])], axis=-1)


def residual_of(sigma: float) -> Callable[..., Residual]:
    def residual(
        backend: Backend,
        value: Arrays,
        a: Array,
        b: Array,
        c: Array,
        d: Array | None = None,
        *,
        order: int,
        gamma: float = 1.0,
    ) -> Residual:
        m, by = _in_units(backend, (a, b, c, d), gamma)
        balanced, sides = balance_by_riccati(backend, m, sigma)
        at = BalancingProjections(*balanced.value)
        errors = solution_errors(backend, m, sigma, sides)
        value_errors = _value_errors(backend, at, errors)
        recomputed = _restore(backend, _with_decoupled_states(backend, m, at, order), by, gamma)
        relative = value_errors[:, :order] / safe_divisor(backend, at.values[:, :order])
        error = broadcast_scalar(backend.xp.max(relative, axis=-1))
        correction = tuple(
            backend.xp.abs(x - y) + error * broadcast_scalar(k) * backend.xp.abs(x)
            for x, y, k in zip(value, recomputed, _cancellation(backend, m, at, order), strict=False)
        )
        direct = value[3] - (backend.xp.zeros_like(m.d) if d is None else d)
        values = backend.xp.abs(value[4] - at.values) + value_errors
        backward = functools.reduce(backend.xp.maximum, [x.backward for x in errors])
        separation = functools.reduce(backend.xp.minimum, [x.separation for x in errors])
        return Residual(backward, (*correction, direct, values), backend.ldexp(separation, by.value[0]))

    return residual


def _value_errors(backend: Backend, at: BalancingProjections, errors: tuple[Residual, Residual]) -> Array:
    """dσ = ½ (lᴴ dx l + tᴴ dw t) for the corrections dx and dw, in absolute values, and rounding."""
    xp = backend.xp

    def along(directions: Array, correction: Array) -> Array:
        size = xp.abs(directions)
        return xp.sum(size * (xp.abs(correction) @ size), axis=-2)

    x, w = errors
    bound = (along(at.left, x.correction[0]) + along(at.right, w.correction[0])) / 2
    return bound + backend.eps(at.values) * at.values[:, :1]


def _cancellation(backend: Backend, m: Model, at: BalancingProjections, order: int) -> Arrays:
    """For each product of `_project` the norm of the product of moduli over that of the product."""
    left, right = adjoint(at.left[:, :, :order]), at.right[:, :, :order]

    def ratio(*factors: Array) -> Array:
        plain = functools.reduce(operator.matmul, factors)
        moduli = functools.reduce(operator.matmul, (backend.xp.abs(x) for x in factors))
        return backend.norm(moduli) / safe_divisor(backend, backend.norm(plain))

    return ratio(left, m.a, right), ratio(left, m.b), ratio(m.c, right)
