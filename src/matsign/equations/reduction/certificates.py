"""How wrong Hankel singular values and reduced models may be."""

from __future__ import annotations

import functools
import operator

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.public import Residual
from matsign.equations.lyapunov.certificates import lyapunov_residual
from matsign.equations.reduction.methods import (
    BalancedSystem,
    balance_system,
    balancing_projections,
    solve_truncation,
    values_of_system,
)
from matsign.linalg.stacks import adjoint, broadcast_scalar, safe_divisor


def _recompute(backend: Backend, a: Array, b: Array, c: Array) -> tuple[BalancedSystem, Array, Array, Array]:
    """(the balanced system anew, backward error, how far each Hankel singular value may be wrong, separation).

    With w and v the k-th columns of the projections, σ moves by ½(wᴴ dx w + vᴴ dw v), where dx and dw are the corrections of
    the two Gramians. No value moves by more than yᴴ z does, which for small ones is the sharper bound.
    """
    xp = backend.xp
    found = balance_system(backend, a, b, c)
    s, g = found.system, found.gramians
    control = lyapunov_residual(backend, (g.z @ adjoint(g.z),), s.a, -(s.b @ adjoint(s.b)), rounded=True)
    observe = lyapunov_residual(backend, (g.y @ adjoint(g.y),), adjoint(s.a), -(adjoint(s.c) @ s.c), rounded=True)
    left, right, known = balancing_projections(backend, found, a.shape[-1])

    def along(direction: Array, correction: Array) -> Array:
        return xp.abs(xp.sum(direction.conj() * (correction @ direction), axis=-2))

    moved = (along(left, control.correction[0]) + along(right, observe.correction[0])) / 2
    whole = sum(
        backend.norm(r.correction[0]) / safe_divisor(backend, backend.norm(f)) ** 2
        for r, f in ((control, g.z), (observe, g.y))
    )
    whole = whole * backend.norm(g.z) * backend.norm(g.y) / 2
    moved = xp.minimum(moved, whole[:, None])
    noise = backend.eps(moved) * found.values[:, :1] + 0 * moved
    separation = backend.ldexp(xp.minimum(control.separation, observe.separation), 2 * s.half)
    return found, xp.maximum(control.backward, observe.backward), xp.where(known, moved, noise), separation


def hankel_residual(backend: Backend, value: tuple[Array], a: Array, b: Array, c: Array) -> Residual:
    """The distance from the values computed anew, and how far those may be wrong."""
    found, backward, moved, separation = _recompute(backend, a, b, c)
    anew = found._replace(values=found.values + moved)
    correction = backend.xp.abs(value[0] - values_of_system(backend, found)) + (
        values_of_system(backend, anew) - values_of_system(backend, found)
    )
    return Residual(backward, (scaling.at_least_rounded(backend, correction, value[0]),), separation)


def _cancellation(backend: Backend, found: BalancedSystem, order: int) -> tuple[Array, ...]:
    """By how much the products that make up the reduced a, b and c are shorter than those of the moduli."""
    s, (left, right, _) = found.system, balancing_projections(backend, found, order)
    left = adjoint(left)

    def ratio(*factors: Array) -> Array:
        plain = functools.reduce(operator.matmul, factors)
        moduli = functools.reduce(operator.matmul, (backend.xp.abs(x) for x in factors))
        return backend.norm(moduli) / safe_divisor(backend, backend.norm(plain))

    return ratio(left, s.a, right), ratio(left, s.b), ratio(s.c, right)


def truncate_residual(backend: Backend, value: tuple[Array, ...], a: Array, b: Array, c: Array) -> Residual:
    """The distance from the model computed anew, and the relative error of the Hankel singular values that it keeps.

    The projections have it too, and what cancels in the products with them lengthens it.
    """
    found, backward, moved, separation = _recompute(backend, a, b, c)
    order = value[0].shape[-1]
    kept = found.values[:, :order]
    error = broadcast_scalar(backend.xp.max(moved[:, :order] / safe_divisor(backend, kept), axis=-1))
    anew = solve_truncation(backend, a, b, c, order=order).value
    grown = (broadcast_scalar(k) for k in _cancellation(backend, found, order))
    correction = tuple(x - y + error * k * x for x, y, k in zip(value[:3], anew[:3], grown, strict=True))
    return Residual(backward, (*correction, value[3] - anew[3] + error[:, 0] * value[3]), separation)
