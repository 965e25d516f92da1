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
from matsign.functions.means.karcher_certificates import karcher_residual
from matsign.functions.means.karcher_derivatives import karcher_cotangent, karcher_tangent
from matsign.functions.means.karcher_methods import in_own_units, is_indefinite
from matsign.functions.means.matrix_collections import refuse
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye, hermitian, is_nearly_hermitian


def _pair(backend: Backend, a: Array, b: Array, t: Array) -> tuple[Array, Array]:
    """The collection of A and B, and its weights."""
    return backend.xp.stack([a, b], axis=1), backend.xp.stack([1 - t, t], axis=1)


def solve_geodesic(backend: Backend, a: Array, b: Array, *, t: Array) -> Solution:
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
    result = solution(backend, (value,))
    result = result._replace(failure=overflow_failure(backend, value, result.failure))
    result = refuse(backend, result, Failure.NOT_A_GEODESIC, ~definite, 0 * t)
    return refuse(backend, result, Failure.MEAN_WEIGHT, ~valid, t)


def geodesic_residual(backend: Backend, value: tuple[Array], a: Array, b: Array, *, t: Array) -> Residual:
    return karcher_residual(backend, value, *_pair(backend, a, b, t))


def geodesic_tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, t: Array) -> Arrays:
    (a, b), (da, db, dt) = arrays, tangents
    pairs: Any = _pair(backend, a, b, t), (backend.xp.stack([da, db], axis=1), backend.xp.stack([-dt, dt], axis=1))
    return karcher_tangent(backend, value, *pairs)


def geodesic_cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, t: Array) -> Arrays:
    a, b = arrays
    bar, bar_w = karcher_cotangent(backend, value, _pair(backend, a, b, t), cotangents)
    return bar[:, 0], bar[:, 1], bar_w[:, 1] - bar_w[:, 0]
