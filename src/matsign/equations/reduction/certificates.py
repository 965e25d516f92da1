"""Error estimates for Hankel singular values and for reduced models of linear systems."""

from __future__ import annotations

import functools
import math
import operator
from typing import Any

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.public import Residual
from matsign.equations.lyapunov.system import Gramians, System
from matsign.equations.reduction.methods import (
    BalancedSystem,
    balance_system,
    balancing_projections,
    exponent_of_values,
    place_values,
    projections_of,
    solve_truncation,
    values_of_system,
)
from matsign.equations.reduction.projection import keep_steady_state
from matsign.equations.reduction.times import Time, time_of
from matsign.linalg.stacks import adjoint, broadcast_scalar, safe_divisor


def _gramian_residuals(backend: Backend, time: Time, s: System, g: Gramians) -> tuple[Residual, Residual]:
    """The residuals of both Gramians; they get their residuals in working precision."""
    x, w = g.z @ adjoint(g.z), g.y @ adjoint(g.y)
    dual = None if s.descriptor is None else adjoint(s.descriptor)
    return time.error(backend, x, s.a, s.b, s.descriptor), time.error(backend, w, adjoint(s.a), adjoint(s.c), dual)


def _recompute(
    backend: Backend, time: Time, a: Array, b: Array, c: Array, e: Array | None
) -> tuple[BalancedSystem, Array, Array, Array]:
    """(recomputed balanced system, backward error, error bound of each Hankel singular value, separation).

    With l and t the k-th columns of the projections, dσ = ½(lᴴ dx l + tᴴ dw t), where dx and dw are the corrections of the
    two Gramians. The error is also at most that of yᴴ z in norm, a sharper bound for small values. With a descriptor e stands
    between y and z, and eᴴ l and e t in place of l and t.
    """
    xp = backend.xp
    balanced = balance_system(backend, time, a, b, c, e)
    s, g = balanced.stable, balanced.gramians
    control, observe = _gramian_residuals(backend, time, s, g)
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
    backend: Backend, value: tuple[Array], a: Array, b: Array, c: Array, e: Array | None = None, *, dt: Any
) -> Residual:
    """The distance to the recomputed values plus the error bounds of these."""
    balanced, backward, value_errors, separation = _recompute(backend, time_of(dt), a, b, c, e)
    error = backend.ldexp(value_errors, exponent_of_values(balanced.system)[:, None])
    error = place_values(backend, balanced.kept, error, 0.0)
    correction = _distance(backend, balanced, value[0]) + error
    largest = backend.xp.max(value[0], axis=-1), backend.xp.max(balanced.values, axis=-1)
    backward = scaling.backward_unless_underflow(backend, backward, *largest)
    return Residual(backward, (scaling.at_least_rounded(backend, correction, value[0]),), separation)


def _distance(backend: Backend, balanced: BalancedSystem, values: Array) -> Array:
    """The distance of Hankel singular values to those of the system; infinite values are exact."""
    expected, xp = place_values(backend, balanced.kept, values_of_system(backend, balanced)), backend.xp
    return xp.where(values == expected, 0 * xp.abs(balanced.values), xp.abs(values - expected))


def _ratio(backend: Backend, *factors: Array) -> Array:
    """The cancellation in a product: the norm of the product of moduli over that of the product."""
    plain = functools.reduce(operator.matmul, factors)
    moduli = functools.reduce(operator.matmul, (backend.xp.abs(x) for x in factors))
    return backend.norm(moduli) / safe_divisor(backend, backend.norm(plain))


def _cancellation(backend: Backend, time: Time, balanced: BalancedSystem, order: int, method: str) -> Arrays:
    """The amplification of relative errors of the projections in the reduced a, b and c, and their size and the noise in d."""
    s, p = balanced.stable, projections_of(backend, balanced, order)
    left = adjoint(p.left)
    if method == "truncate":
        of_b, of_c = _ratio(backend, left, s.b), _ratio(backend, s.c, p.right)
        return _ratio(backend, left, s.a, p.right), of_b, of_c, 0 * of_b, 0 * of_b
    steady = keep_steady_state(backend, time.steady, (s.a, s.b, s.c), p, s.descriptor)
    growth = backend.norm(steady.k) * backend.norm(steady.core)
    of_d = growth * backend.norm(steady.core) * backend.norm(steady.b) * backend.norm(steady.c)
    return growth, growth, growth, of_d, steady.noise


def truncate_residual(
    backend: Backend,
    value: tuple[Array, ...],
    a: Array,
    b: Array,
    c: Array,
    d: Array | None = None,
    e: Array | None = None,
    *,
    order: int,
    method: str,
    dt: Any,
) -> Residual:
    """The distance to the recomputed model plus the relative error of the kept Hankel singular values.

    The projections have the same relative error; cancellation in the products with them amplifies it.
    """
    time = time_of(dt)
    balanced, backward, value_errors, separation = _recompute(backend, time, a, b, c, e)
    kept = balanced.values[:, :order]
    error = broadcast_scalar(backend.xp.max(value_errors[:, :order] / safe_divisor(backend, kept), axis=-1))
    model = a, b, c, d, e
    recomputed = solve_truncation(backend, *model, order=order, tol=None, method=method, dt=dt).value
    *growth, of_d, noise = map(broadcast_scalar, _cancellation(backend, time, balanced, order, method))
    correction = tuple(x - y + error * k * x for x, y, k in zip(value[:3], recomputed[:3], growth, strict=True))
    size = backend.ldexp(error * of_d + noise, broadcast_scalar(exponent_of_values(balanced.system)))
    of_d = backend.xp.abs(value[3] - recomputed[3]) + size / math.sqrt(max(math.prod(value[3].shape[1:]), 1))
    finite = backend.xp.where(backend.xp.isinf(value[4]), 0 * error[:, 0], value[4])
    correction = (*correction, of_d, _distance(backend, balanced, value[4]) + error[:, 0] * finite)
    return Residual(backward, correction, separation)
