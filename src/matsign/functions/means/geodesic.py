"""Points A #_t B of the geodesic between definite matrices, with a weight t of its own for each member, and derivatives by t.

With A = K Kᴴ, B = L Lᴴ and K⁻¹L = U Σ Vᴴ the point is K U Σ^{2t} Uᴴ Kᴴ. It is the Karcher mean of A and B with the weights 1 - t
and t: derivatives and errors are those of that mean.
"""

from __future__ import annotations

from typing import Any

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.members import Solution, overflow_failure, solution
from matsign.core.public import Residual
from matsign.core.tolerances import rank_tolerance
from matsign.functions.means.graded_pairs import graded_apart, in_units_of_definite
from matsign.functions.means.karcher_certificates import karcher_residual
from matsign.functions.means.karcher_derivatives import karcher_cotangent, karcher_tangent
from matsign.functions.means.karcher_methods import in_own_units, is_indefinite
from matsign.functions.means.matrix_collections import refuse
from matsign.functions.means.mean_reduction import regular_pair
from matsign.functions.means.semidefinite_mean import refuse_indefinite, semidefinite_mean
from matsign.functions.powers.coupled_root import normalise_pair
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye, hermitian, is_nearly_hermitian


def _pair(backend: Backend, a: Array, b: Array, t: Array) -> tuple[Array, Array]:
    """The collection of A and B, and its weights."""
    return backend.xp.stack([a, b], axis=1), backend.xp.stack([1 - t, t], axis=1)


def solve_geodesic(backend: Backend, a: Array, b: Array, *, t: Array, rtol: float | None) -> Solution:
    xp = backend.xp
    valid = (t >= 0) & (t <= 1)
    c = in_own_units(backend, *_pair(backend, a, b, xp.where(valid, t, 0 * t)))
    indefinite, least = is_indefinite(backend, a, c)
    definite = is_nearly_hermitian(backend, a) & is_nearly_hermitian(backend, b) & ~indefinite.any(-1)
    one = eye(backend, a) + 0 * c.a[:, 0]
    k, low = (xp.where(broadcast_scalar(definite), c.factors[:, i], one) for i in (0, 1))
    # The better conditioned of the two comes first.
    swap = least[:, 0] < least[:, 1]
    first, second = (xp.where(broadcast_scalar(swap), x, y) for x, y in ((low, k), (k, low)))
    weight = xp.where(swap, c.w[:, 0], c.w[:, 1])
    u, values, _ = backend.svd(backend.solve(first, second))
    half = first @ u * (values ** weight[:, None])[:, None, :]
    value = backend.astype(c.outward(backend, hermitian(half @ adjoint(half))), backend.dtype_name(a))
    value = xp.where(broadcast_scalar(t == 0), a, xp.where(broadcast_scalar(t == 1), b, value))
    result = _with_semidefinite(backend, a, b, t, rtol, definite, solution(backend, (value,)))
    failure = overflow_failure(backend, result.value[0], result.failure)
    lost = _without_common_units(backend, a, b, rtol) & ~_is_end(t)
    result = result._replace(failure=Failure.GRADED_APART.where(backend, lost, failure))
    return refuse(backend, result, Failure.MEAN_WEIGHT, ~valid, t)


def _is_end(t: Array) -> Array:
    return (t == 0) | (t == 1)


def _without_common_units(backend: Backend, a: Array, b: Array, rtol: float | None) -> Array:
    """The definite pairs that are graded too differently for common units of rows and columns."""
    a, b, _, _ = normalise_pair(backend, a, b)
    a, b, _, factors = in_units_of_definite(backend, a, b, rtol)
    return graded_apart(backend, a, b, factors, rtol) & ~factors.definite(backend, rank_tolerance(backend, a, None))


def _with_semidefinite(
    backend: Backend, a: Array, b: Array, t: Array, rtol: float | None, definite: Array, result: Solution
) -> Solution:
    """The result, with means of semidefinite matrices for the other members."""

    def on_range(a: Array, b: Array, t: Array, result: Solution) -> Solution:
        return _semidefinite(backend, a, b, t, rtol)

    return backend.rare_cond(
        ~definite & ~_is_end(t), on_range, lambda a, b, t, result: result, a, b, backend.xp.clip(t, 0, 1), result
    )


def _semidefinite(backend: Backend, a: Array, b: Array, t: Array, rtol: float | None) -> Solution:
    zero, one = rank_tolerance(backend, a, rtol), eye(backend, a) + 0 * a
    nearly = is_nearly_hermitian(backend, a) & is_nearly_hermitian(backend, b)
    a, b, ea, eb = normalise_pair(backend, a, b)
    a, b = (backend.xp.where(broadcast_scalar(nearly), hermitian(x), one) for x in (a, b))
    result, semidefinite = semidefinite_mean(backend, a, b, zero, t)
    e = backend.astype(eb - ea, backend.dtype_name(t)) * t
    whole = backend.xp.floor(e)
    value = result.value[0] * broadcast_scalar(2.0 ** (e - whole))
    value = backend.ldexp(value, broadcast_scalar(ea + backend.xp.astype(whole, ea.dtype)))
    failure = Failure.NOT_A_GEODESIC.where(backend, ~(nearly & semidefinite), result.failure)
    result = result._replace(value=(value,), failure=failure)
    return refuse_indefinite(backend, result, (a, b), (ea, eb), zero, always=True)


def geodesic_residual(
    backend: Backend, value: tuple[Array], a: Array, b: Array, *, t: Array, rtol: float | None
) -> Residual:
    """That of the Karcher mean, on the common range; the rest of G is an error."""
    ends = (broadcast_scalar(t == 0), broadcast_scalar(t == 1))
    a, b = backend.xp.where(ends[1], b, a), backend.xp.where(ends[0], a, b)
    p = regular_pair(backend, *value, a, b, t=t, rtol=rtol, apart=None)
    measured = karcher_residual(backend, (p.value,), *_pair(backend, p.a, p.b, t))
    (steps,) = measured.correction
    inside = [p.outward(backend, steps[:, k])[:, None] for k in range(steps.shape[1])]
    outside = value[0] - p.projector @ value[0] @ p.projector
    return measured._replace(correction=(backend.xp.concat([*inside, outside[:, None]], axis=1),))


def geodesic_tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, t: Array) -> Arrays:
    (a, b), (da, db, dt) = arrays, tangents
    pairs: Any = _pair(backend, a, b, t), (backend.xp.stack([da, db], axis=1), backend.xp.stack([-dt, dt], axis=1))
    return karcher_tangent(backend, value, *pairs)


def geodesic_cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, t: Array) -> Arrays:
    a, b = arrays
    bar, bar_w = karcher_cotangent(backend, value, _pair(backend, a, b, t), cotangents)
    return bar[:, 0], bar[:, 1], bar_w[:, 1] - bar_w[:, 0]
