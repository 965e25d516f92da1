"""Balancing a model: factors z and y of its Gramians, the singular values of yᴴ z, and the models that they lead to."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.failures import Failure
from matsign.core.members import Solution, as_details, solution
from matsign.core.options import short_repr
from matsign.equations.lyapunov.system import Gramians, System
from matsign.equations.reduction.kept import (
    Kept,
    bases,
    first_columns,
    nothing_kept,
    placing,
    positions,
    size_of_pole,
    split,
    stable_model,
)
from matsign.equations.reduction.projection import (
    Projections,
    decoupled_diagonal,
    keep_steady_state,
    steady_model,
    truncate,
)
from matsign.equations.reduction.times import Time, system_in_units, time_of
from matsign.iterations.smith_factored import phases, zero_nonfinite_members
from matsign.linalg.stacks import adjoint, broadcast_scalar, safe_divisor


class BalancedSystem(NamedTuple):
    """The SVD yᴴ z = u diag(values) vᴴ of the factors of the Gramians (with a descriptor of yᴴ e z), in the units of `system`.

    If poles of the model are kept, `stable` is the system without them, to which these belong.
    """

    system: System
    gramians: Gramians
    u: Array
    values: Array
    v: Array
    stable: System
    kept: Kept | None


def balance_system(
    backend: Backend, time: Time, a: Array, b: Array, c: Array, e: Array | None = None
) -> BalancedSystem:
    system = system_in_units(backend, time, a, b, c, e)
    factors, kept = _gramians(backend, time, system)
    stable = system if kept is None else _stable_system(backend, time, system, kept)
    z = factors.z if system.descriptor is None else system.descriptor @ factors.z
    u, values, vh = backend.svd(zero_nonfinite_members(backend, adjoint(factors.y) @ z))
    if kept is not None:  # the values of the states that replace the kept ones are zero
        n = values.shape[-1]
        last = positions(backend, values, n)[None, :] + kept.count[:, None] > n - 0.5
        values = backend.xp.where(last, 0 * values, values)
    return BalancedSystem(system, factors, u, values, adjoint(vh), stable, kept)


def _gramians(backend: Backend, time: Time, system: System) -> tuple[Gramians, Kept | None]:
    """The Gramians, where a model is not stable those of its stable part."""
    factors = time.gramians(backend, system)
    unstable = (factors.failure == int(Failure.UNSTABLE)) | (factors.failure == int(Failure.BARELY_STABLE))
    if not backend.is_traced(unstable) and not backend.any_true(unstable):
        return factors, None

    def separate(s: Any, _: Gramians) -> tuple[Gramians, Kept]:
        s = System(*s)
        kept = split(backend, time, _standard(backend, s, s.a))
        return time.gramians(backend, _stable_system(backend, time, s, kept)), kept

    def leave(s: Any, factors: Gramians) -> tuple[Gramians, Kept]:
        nothing.append(nothing_kept(backend, time, System(*s).a))
        return factors, nothing[-1]

    nothing: list[Kept] = []
    factors, kept = backend.rare_cond(unstable, separate, leave, tuple(system), factors)
    # A program for an accelerator leaves these members to the host: it returns what `leave` returns.
    left_to_host = any(kept is x for x in nothing)
    return factors, None if left_to_host or not kept.any_in(backend) else kept


def _standard(backend: Backend, s: System, x: Array) -> Array:
    """e⁻¹ x."""
    return x if s.descriptor is None else backend.solve(s.descriptor, x)


def _stable_system(backend: Backend, time: Time, s: System, kept: Kept) -> System:
    """The stable part; without kept poles the same matrices to the last bit."""
    if s.descriptor is None:
        a, b, c = stable_model(backend, time, kept, s.a, s.b, s.c)
        return s._replace(a=a, b=b, c=c)
    p, e = kept.projector, s.descriptor
    pole = size_of_pole(backend, time, s.a)
    return s._replace(a=s.a - s.a @ p - pole * (e @ p), b=s.b - e @ (p @ _standard(backend, s, s.b)), c=s.c - s.c @ p)


def values_of_system(backend: Backend, balanced: BalancedSystem) -> Array:
    """The Hankel singular values of the stable part, and zeros for the kept poles."""
    return backend.ldexp(balanced.values, exponent_of_values(balanced.system)[:, None])


def exponent_of_values(s: System) -> Array:
    """The exponent of the unit of Hankel singular values and of transfer functions."""
    return s.b_scale + s.c_scale - 2 * s.half


def place_values(backend: Backend, kept: Kept | None, values: Array, first: float = math.inf) -> Array:
    """The values of the stable part behind those of the kept poles, which are infinite."""
    if kept is None:
        return values
    n = values.shape[-1]
    moved = (values[:, None, :] @ placing(backend, kept, n))[:, 0]
    return backend.xp.where(first_columns(backend, kept, n), first + 0 * moved, moved)


def _solution(backend: Backend, balanced: BalancedSystem, *model: Array) -> Solution:
    """The solution with these arrays and the Hankel singular values, with the failures of the Gramians."""
    values, factors = values_of_system(backend, balanced), balanced.gramians
    result = solution(backend, (*model, values), iterations=factors.steps)._replace(failure=factors.failure)
    result = scaling.check_range(backend, result if factors.detail is None else result._replace(detail=factors.detail))
    return result._replace(value=(*model, place_values(backend, balanced.kept, values)))


def solve_hankel(backend: Backend, a: Array, b: Array, c: Array, e: Array | None, *, dt: Any) -> Solution:
    return _solution(backend, balance_system(backend, time_of(dt), a, b, c, e))


def reduced_order(known: dict[str, int], *, order: Any, tol: Any, method: str, dt: Any) -> dict[str, int]:
    """The number of states of the reduced model: `order`, but 0 for a model without states."""
    n = known["n"]
    if order is None:
        raise ValueError(
            "balanced_truncation: tol needs the values of the arrays, which are not known here; give order"
        )
    if isinstance(order, bool) or not isinstance(order, int) or not 1 <= order <= max(n, 1):
        raise ValueError(f"balanced_truncation: order must be a whole number from 1 to {n}, got {short_repr(order)}")
    return {"r": min(order, n)}


def solve_truncation(
    backend: Backend,
    a: Array,
    b: Array,
    c: Array,
    d: Array | None,
    e: Array | None,
    *,
    order: int,
    tol: None,
    method: str,
    dt: Any,
) -> Solution:
    reduced_order({"n": a.shape[-1]}, order=order, tol=tol, method=method, dt=dt)
    time = time_of(dt)
    balanced = balance_system(backend, time, a, b, c, e)
    model = _restore(backend, balanced.system, reduce_system(backend, time, balanced, order, method))
    result = _solution(backend, balanced, *model[:3], _direct_term(backend, b, c, d, *model[3:]))
    return _check_order(backend, result, balanced.kept, order)


def _direct_term(backend: Backend, b: Array, c: Array, d: Array | None, *change: Array) -> Array:
    """d plus its change."""
    if d is None:
        return change[0] if change else backend.zeros((len(b), c.shape[-2], b.shape[-1]), b)
    return d + change[0] if change else d


def _check_order(backend: Backend, result: Solution, kept: Kept | None, order: int) -> Solution:
    """A failure for members that have more kept poles than states."""
    if kept is None:
        return result
    too_many = (result.failure == 0) & (kept.count > order + 0.5)
    failure = Failure.MORE_KEPT_POLES.where(backend, too_many, result.failure)
    count = as_details(backend, result.value[0], kept.count)
    return result._replace(
        failure=failure, detail=backend.xp.where(broadcast_scalar(too_many)[:, 0], count, result.detail)
    )


def _restore(backend: Backend, s: System, model: Arrays) -> Arrays:
    """The reduced model, with or without d, in the units of the caller."""
    share = broadcast_scalar((s.b_scale + s.c_scale) // 2)
    rate = broadcast_scalar(2 * s.half)
    exponents = (rate, share, share, 2 * share - rate)
    return tuple(backend.ldexp(x, k) for x, k in zip(model, exponents, strict=False))


def reduce_system(backend: Backend, time: Time, balanced: BalancedSystem, order: int, method: str) -> Arrays:
    """(a, b, c) or (a, b, c, change of d) with this many states, in the units of the system."""
    s, p = balanced.stable, projections_of(backend, balanced, order)
    model = s.a, s.b, s.c
    if method == "matchdc":
        steady = keep_steady_state(backend, time.steady, model, p, s.descriptor)
        reduced = steady_model(backend, time.steady, p, steady)
    else:
        a, b, c = truncate(model, p)
        reduced = a + decoupled_diagonal(backend, p, time.steady - 1), b, c
    if balanced.kept is None:
        return reduced
    others = truncate_kept(backend, balanced, order)
    return (*(x + y for x, y in zip(reduced, others, strict=False)), *reduced[3:])


def truncate_kept(backend: Backend, balanced: BalancedSystem, order: int) -> Arrays:
    """The part of the kept poles, with zeros for the other states; its states are in the units of the caller."""
    s, kept = balanced.system, balanced.kept
    assert kept is not None
    p = bases(backend, kept, order, backend.inv)
    model = _standard(backend, s, s.a), _standard(backend, s, s.b), s.c
    a, b, c = truncate(model, Projections(p.left, p.right, p.right, p.right))
    share = (s.b_scale + s.c_scale) // 2
    unit = _units(backend, s, kept)[:, :order]
    row, column = unit + (s.b_scale - share)[:, None], (s.c_scale - share)[:, None] - unit
    a = backend.ldexp(a, unit[:, :, None] - unit[:, None, :])
    return a, backend.ldexp(b, row[:, :, None]), backend.ldexp(c, column[:, None, :])


def _units(backend: Backend, s: System, kept: Kept) -> Array:
    """The exponents (B, n) of the states whose columns of the projector are the basis of the kept part."""
    chosen = (kept.columns.real * backend.astype(s.e, backend.dtype_name(s.a.real))[:, :, None]).sum(-2)
    return backend.xp.astype(backend.xp.round(chosen), backend.xp.int32)


def projections_of(backend: Backend, balanced: BalancedSystem, order: int) -> Projections:
    """The projections on this many states, with zero columns for those of kept poles."""
    left, right, known = balancing_projections(backend, balanced, order)
    kept = balanced.kept
    if kept is None:
        return Projections(left, right, known, None)
    place = placing(backend, kept, order)[:, :order]  # of as many columns as `left` has
    moved = (backend.astype(known, backend.dtype_name(place))[:, None, :] @ place)[:, 0] > 0
    place = backend.astype(place, backend.dtype_name(left))
    return Projections(left @ place, right @ place, moved, first_columns(backend, kept, order))


def balancing_projections(backend: Backend, balanced: BalancedSystem, order: int) -> tuple[Array, Array, Array]:
    """(y U S^-1/2, z V S^-1/2, which values are above rounding), with zero columns for the other values."""
    xp, values = backend.xp, balanced.values[:, :order]
    known = values > balanced.values.shape[-1] * backend.eps(values) * balanced.values[:, :1]
    scale = xp.where(known, 1 / xp.sqrt(safe_divisor(backend, values)), 0 * values)[:, None, :]
    left = (balanced.gramians.y @ balanced.u[:, :, :order]) * scale
    right = (balanced.gramians.z @ balanced.v[:, :, :order]) * scale
    phase = phases(backend, right)
    return left * phase, right * phase, known
