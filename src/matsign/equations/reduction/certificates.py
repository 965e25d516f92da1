"""Error estimates for Hankel singular values and for reduced models of ẋ = a x + b u, y = c x."""

from __future__ import annotations

import functools
import operator

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.public import Residual
from matsign.equations.lyapunov.certificates import lyapunov_residual
from matsign.equations.lyapunov.descriptor_certificates import descriptor_residual
from matsign.equations.lyapunov.descriptor_equations import LYAPUNOV_EQUATION
from matsign.equations.lyapunov.system import Gramians, System
from matsign.equations.reduction.methods import (
    BalancedSystem,
    balance_system,
    balancing_projections,
    solve_truncation,
    values_of_system,
)
from matsign.linalg.stacks import adjoint, broadcast_scalar, safe_divisor


def _gramian_residuals(backend: Backend, s: System, g: Gramians) -> tuple[Residual, Residual]:
    """The residuals of both Gramians; they get their residuals in working precision."""
    x, w, q, p = g.z @ adjoint(g.z), g.y @ adjoint(g.y), -(s.b @ adjoint(s.b)), -(adjoint(s.c) @ s.c)
    if s.descriptor is not None:
        dual = adjoint(s.a), p, adjoint(s.descriptor)
        return (
            descriptor_residual(backend, LYAPUNOV_EQUATION, x, s.a, q, s.descriptor),
            descriptor_residual(backend, LYAPUNOV_EQUATION, w, *dual),
        )
    return (
        lyapunov_residual(backend, (x,), s.a, q, rounded=True),
        lyapunov_residual(backend, (w,), adjoint(s.a), p, rounded=True),
    )


def _recompute(
    backend: Backend, a: Array, b: Array, c: Array, e: Array | None
) -> tuple[BalancedSystem, Array, Array, Array]:
    """(recomputed balanced system, backward error, error bound of each Hankel singular value, separation).

    With l and t the k-th columns of the projections, dσ = ½(lᴴ dx l + tᴴ dw t), where dx and dw are the corrections of the
    two Gramians. The error is also at most that of yᴴ z in norm, a sharper bound for small values. With a descriptor e stands
    between y and z, and eᴴ l and e t in place of l and t.
    """
    xp = backend.xp
    balanced = balance_system(backend, a, b, c, e)
    s, g = balanced.system, balanced.gramians
    control, observe = _gramian_residuals(backend, s, g)
    left, right, known = balancing_projections(backend, balanced, a.shape[-1])
    if s.descriptor is not None:
        left, right = adjoint(s.descriptor) @ left, s.descriptor @ right

    def along(direction: Array, correction: Array) -> Array:
        return xp.abs(xp.sum(direction.conj() * (correction @ direction), axis=-2))

    value_errors = (along(left, control.correction[0]) + along(right, observe.correction[0])) / 2
    product_error = sum(
        backend.norm(r.correction[0]) / safe_divisor(backend, backend.norm(f)) ** 2
        for r, f in ((control, g.z), (observe, g.y))
    )
    product_error = product_error * backend.norm(g.z) * backend.norm(g.y) / 2
    if s.descriptor is not None:
        product_error = product_error * backend.norm(s.descriptor)
    value_errors = xp.minimum(value_errors, product_error[:, None])
    noise = backend.eps(value_errors) * balanced.values[:, :1] + 0 * value_errors
    separation = backend.ldexp(xp.minimum(control.separation, observe.separation), 2 * s.half)
    return balanced, xp.maximum(control.backward, observe.backward), xp.where(known, value_errors, noise), separation


def hankel_residual(
    backend: Backend, value: tuple[Array], a: Array, b: Array, c: Array, e: Array | None = None
) -> Residual:
    """The distance to the recomputed values plus the error bounds of these."""
    balanced, backward, value_errors, separation = _recompute(backend, a, b, c, e)
    recomputed = balanced._replace(values=balanced.values + value_errors)
    correction = backend.xp.abs(value[0] - values_of_system(backend, balanced)) + (
        values_of_system(backend, recomputed) - values_of_system(backend, balanced)
    )
    return Residual(backward, (scaling.at_least_rounded(backend, correction, value[0]),), separation)


def _cancellation(backend: Backend, balanced: BalancedSystem, order: int) -> tuple[Array, ...]:
    """The cancellation in the products for the reduced a, b and c: the norm of the product of moduli over that of the product."""
    s, (left, right, _) = balanced.system, balancing_projections(backend, balanced, order)
    left = adjoint(left)

    def ratio(*factors: Array) -> Array:
        plain = functools.reduce(operator.matmul, factors)
        moduli = functools.reduce(operator.matmul, (backend.xp.abs(x) for x in factors))
        return backend.norm(moduli) / safe_divisor(backend, backend.norm(plain))

    return ratio(left, s.a, right), ratio(left, s.b), ratio(s.c, right)


def truncate_residual(
    backend: Backend, value: tuple[Array, ...], a: Array, b: Array, c: Array, e: Array | None = None
) -> Residual:
    """The distance to the recomputed model plus the relative error of the kept Hankel singular values.

    The projections have the same relative error; cancellation in the products with them amplifies it.
    """
    balanced, backward, value_errors, separation = _recompute(backend, a, b, c, e)
    order = value[0].shape[-1]
    kept = balanced.values[:, :order]
    error = broadcast_scalar(backend.xp.max(value_errors[:, :order] / safe_divisor(backend, kept), axis=-1))
    recomputed = solve_truncation(backend, a, b, c, e, order=order).value
    cancellation = (broadcast_scalar(k) for k in _cancellation(backend, balanced, order))
    correction = tuple(x - y + error * k * x for x, y, k in zip(value[:3], recomputed[:3], cancellation, strict=True))
    return Residual(backward, (*correction, value[3] - recomputed[3] + error[:, 0] * value[3]), separation)
