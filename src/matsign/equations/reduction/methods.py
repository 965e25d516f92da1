"""Balancing a system ẋ = a x + b u, y = c x: factors z and y of its Gramians, and the singular values of yᴴ z."""

from __future__ import annotations

from typing import NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.members import Solution, solution
from matsign.equations.lyapunov.factors import gramians, in_units
from matsign.equations.lyapunov.system import Gramians, System
from matsign.iterations.smith_factored import phases, zero_nonfinite_members
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye, safe_divisor


class BalancedSystem(NamedTuple):
    """The SVD yᴴ z = u diag(values) vᴴ of the factors of the Gramians (with a descriptor of yᴴ e z), in the units of `system`."""

    system: System
    gramians: Gramians
    u: Array
    values: Array
    v: Array


def balance_system(backend: Backend, a: Array, b: Array, c: Array, e: Array | None = None) -> BalancedSystem:
    system = in_units(backend, a, b, c, e)
    factors = gramians(backend, system)
    z = factors.z if system.descriptor is None else system.descriptor @ factors.z
    u, values, vh = backend.svd(zero_nonfinite_members(backend, adjoint(factors.y) @ z))
    return BalancedSystem(system, factors, u, values, adjoint(vh))


def values_of_system(backend: Backend, balanced: BalancedSystem) -> Array:
    s = balanced.system
    return backend.ldexp(balanced.values, (s.b_scale + s.c_scale - 2 * s.half)[:, None])


def with_failure(result: Solution, factors: Gramians) -> Solution:
    """The solution with the failures of the Gramians."""
    result = result._replace(failure=factors.failure)
    return result if factors.detail is None else result._replace(detail=factors.detail)


def solve_hankel(backend: Backend, a: Array, b: Array, c: Array, e: Array | None) -> Solution:
    balanced = balance_system(backend, a, b, c, e)
    result = solution(backend, (values_of_system(backend, balanced),), iterations=balanced.gramians.steps)
    return scaling.check_range(backend, with_failure(result, balanced.gramians))


def reduced_order(known: dict[str, int], *, order: int) -> dict[str, int]:
    """The number of states of the reduced model: `order`, but 0 for a model without states."""
    n = known["n"]
    if isinstance(order, bool) or not isinstance(order, int) or not 1 <= order <= max(n, 1):
        raise ValueError(f"balanced_truncation: order must be a whole number from 1 to {n}, got {order!r}")
    return {"r": min(order, n)}


def solve_truncation(backend: Backend, a: Array, b: Array, c: Array, e: Array | None, *, order: int) -> Solution:
    reduced_order({"n": a.shape[-1]}, order=order)
    balanced = balance_system(backend, a, b, c, e)
    s, steps = balanced.system, balanced.gramians.steps
    left, right, known = balancing_projections(backend, balanced, order)
    # Uncontrollable or unobservable states, to working precision, get the decoupled diagonal entry -1.
    decoupled_diagonal = backend.xp.where(known, 0 * balanced.values[:, :order], -1 + 0 * balanced.values[:, :order])
    reduced = adjoint(left) @ s.a @ right + eye(backend, right) * decoupled_diagonal[:, None, :]
    share = broadcast_scalar((s.b_scale + s.c_scale) // 2)
    model = (
        backend.ldexp(reduced, broadcast_scalar(2 * s.half)),
        backend.ldexp(adjoint(left) @ s.b, share),
        backend.ldexp(s.c @ right, share),
    )
    value = (*model, values_of_system(backend, balanced))
    result = solution(backend, value, iterations=steps)
    return scaling.check_range(backend, with_failure(result, balanced.gramians))


def balancing_projections(backend: Backend, balanced: BalancedSystem, order: int) -> tuple[Array, Array, Array]:
    """(y U S^-1/2, z V S^-1/2, which values are above rounding), with zero columns for the other values."""
    xp, values = backend.xp, balanced.values[:, :order]
    known = values > balanced.values.shape[-1] * backend.eps(values) * balanced.values[:, :1]
    scale = xp.where(known, 1 / xp.sqrt(safe_divisor(backend, values)), 0 * values)[:, None, :]
    left = (balanced.gramians.y @ balanced.u[:, :, :order]) * scale
    right = (balanced.gramians.z @ balanced.v[:, :, :order]) * scale
    phase = phases(backend, right)
    return left * phase, right * phase, known
