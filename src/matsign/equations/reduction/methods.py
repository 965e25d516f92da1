"""How a system is balanced: square roots of its Gramians, and the singular values of their product."""

from __future__ import annotations

from typing import NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.members import Solution, solution
from matsign.equations.lyapunov.factors import Gramians, System, gramians, in_units
from matsign.iterations.smith_factored import phases, zero_nonfinite_members
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye, safe_divisor


class BalancedSystem(NamedTuple):
    """yᴴ z = u diag(values) vᴴ, in the units of `system`."""

    system: System
    gramians: Gramians
    u: Array
    values: Array
    v: Array


def balance_system(be: Backend, a: Array, b: Array, c: Array) -> BalancedSystem:
    system = in_units(be, a, b, c)
    found = gramians(be, system)
    u, values, vh = be.svd(zero_nonfinite_members(be, adjoint(found.y) @ found.z))
    return BalancedSystem(system, found, u, values, adjoint(vh))


def values_of_system(be: Backend, found: BalancedSystem) -> Array:
    s = found.system
    return be.ldexp(found.values, (s.b_scale + s.c_scale - 2 * s.half)[:, None])


def solve_hankel(be: Backend, a: Array, b: Array, c: Array) -> Solution:
    found = balance_system(be, a, b, c)
    steps, failure = found.gramians.steps, found.gramians.failure
    result = solution(be, (values_of_system(be, found),), iterations=steps)._replace(failure=failure)
    return scaling.check_range(be, result)


def reduced_order(known: dict[str, int], *, order: int) -> dict[str, int]:
    """How many states the reduced model has; that of a model without states has none."""
    n = known["n"]
    if isinstance(order, bool) or not isinstance(order, int) or not 1 <= order <= max(n, 1):
        raise ValueError(f"balanced_truncation: order must be a whole number from 1 to {n}, got {order!r}")
    return {"r": min(order, n)}


def solve_truncation(be: Backend, a: Array, b: Array, c: Array, *, order: int) -> Solution:
    reduced_order({"n": a.shape[-1]}, order=order)
    found = balance_system(be, a, b, c)
    s, steps, failure = found.system, found.gramians.steps, found.gramians.failure
    left, right, known = balancing_projections(be, found, order)
    # States that no input reaches or no output shows to working precision decay on their own.
    filler = be.xp.where(known, 0 * found.values[:, :order], -1 + 0 * found.values[:, :order])
    reduced = adjoint(left) @ s.a @ right + eye(be, right) * filler[:, None, :]
    share = broadcast_scalar((s.b_scale + s.c_scale) // 2)
    model = (
        be.ldexp(reduced, broadcast_scalar(2 * s.half)),
        be.ldexp(adjoint(left) @ s.b, share),
        be.ldexp(s.c @ right, share),
    )
    value = (*model, values_of_system(be, found))
    return scaling.check_range(be, solution(be, value, iterations=steps)._replace(failure=failure))


def balancing_projections(be: Backend, found: BalancedSystem, order: int) -> tuple[Array, Array, Array]:
    """(y U S^-1/2, z V S^-1/2, which values are above rounding), zero columns for the values that are not."""
    xp, values = be.xp, found.values[:, :order]
    known = values > found.values.shape[-1] * be.eps(values) * found.values[:, :1]
    scale = xp.where(known, 1 / xp.sqrt(safe_divisor(be, values)), 0 * values)[:, None, :]
    left = (found.gramians.y @ found.u[:, :, :order]) * scale
    right = (found.gramians.z @ found.v[:, :, :order]) * scale
    turn = phases(be, right)
    return left * turn, right * turn, known
