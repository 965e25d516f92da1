"""Clipping and soft thresholding of a matrix that moves slowly, from the leading singular vectors of an earlier one.

If only the p singular values of U S Vᴴ may be above the threshold t, these suffice,

    soft(M, t) = U (S - t)₊ Vᴴ,    clip(M, 0, t) = M - soft(M, t),

and ‖M - U₊ S₊ V₊ᴴ‖ ≤ t for the part above t decides whether they do. Both functions are nonexpansive in the Frobenius norm: the
error of the result is at most that of the singular vectors, ‖R‖ in `leading_subspaces`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.members import Solution, solution
from matsign.core.tolerances import rank_tolerance, working_precision
from matsign.functions.proximal.methods import (
    Threshold,
    clipped_parts,
    shrink,
    soft_at,
    threshold_stack,
    value_clipper,
    with_threshold_failures,
)
from matsign.iterations.leading_subspaces import follow, rest_is_below
from matsign.linalg.stacks import adjoint, broadcast_scalar, scale_to_unit, to_double


class Nonexpansive(NamedTuple):
    """soft(M, t) or clip(M, 0, t): from M, its leading U, S, V and t, for singular values, and from M and t by products."""

    of_vectors: Callable[[Array, Array, Array, Array, Array], Array]
    of_values: Callable[[Array, Array], Array]
    by_products: Callable[[Array, Array], Array]


def solve_warm_soft(
    backend: Backend, m: Array, state: Array | None, *, t: Threshold, tol: float | None, rank: int | None
) -> Solution:
    """soft(M, t), and the leading singular vectors of the short side of M."""

    def soft(m: Array, u: Array, values: Array, v: Array, t: Array) -> Array:
        return (u * shrink(backend, values, t[..., None])[..., None, :]) @ adjoint(v)

    def by_products(m: Array, t: Array) -> Array:
        return soft_at(backend, m, t, "sign").value[0]

    f = Nonexpansive(soft, lambda values, t: shrink(backend, values, t), by_products)
    return _with_valid_threshold(backend, m, state, t, f, tol, rank)


def solve_warm_clip(
    backend: Backend, m: Array, state: Array | None, *, upper: Threshold, tol: float | None, rank: int | None
) -> Solution:
    """clip(M, 0, upper), and the leading singular vectors of the short side of M."""
    clip_values = value_clipper(backend, 0.0, rank_tolerance(backend, to_double(backend, m), None))

    def clip(m: Array, u: Array, values: Array, v: Array, t: Array) -> Array:
        return _clip(backend, m, u, values, v, t)

    def by_products(m: Array, t: Array) -> Array:
        return clipped_parts(backend, m, 0.0, t, rank_tolerance(backend, m, None)).value[0]

    f = Nonexpansive(clip, lambda values, t: clip_values(values, 0 * t, t), by_products)
    return _with_valid_threshold(backend, m, state, upper, f, tol, rank)


def _clip(backend: Backend, m: Array, u: Array, values: Array, v: Array, t: Array) -> Array:
    """clip(M, 0, t). The rest of M is projected once more, as its rounding errors may be large compared with t."""
    above = values > t[..., None]
    kept = backend.astype(above, backend.dtype_name(values))[..., None, :]
    rest, v = m - (u * (kept * values[..., None, :])) @ adjoint(v), v * kept
    return rest + (broadcast_scalar(t) * u - rest @ v) @ adjoint(v)


def state_columns(smaller: int, rank: int | None) -> int:
    """The number of singular vectors in a state, for matrices with so many rows or columns, whichever are fewer."""
    return min(smaller, smaller // 16 + 8 if rank is None else rank)


def _with_valid_threshold(
    backend: Backend,
    m: Array,
    state: Array | None,
    t: Threshold,
    f: Nonexpansive,
    tol: float | None,
    rank: int | None,
) -> Solution:
    stack = threshold_stack(backend, m, t)
    valid = stack >= 0
    columns = state_columns(min(m.shape[-2:]), rank) if state is None else state.shape[-1]
    result = _on_short_side(backend, m, state, backend.xp.where(valid, stack, 0 * stack), f, tol, columns)
    return result if isinstance(t, float) else with_threshold_failures(backend, result, valid, stack)


def _on_short_side(
    backend: Backend, m: Array, state: Array | None, t: Array, f: Nonexpansive, tol: float | None, columns: int
) -> Solution:
    """The solution from a matrix with at least as many rows as columns, which is M or its adjoint in units near its size."""
    wide = m.shape[-2] < m.shape[-1]
    m, e = scale_to_unit(backend, adjoint(m) if wide else m)
    t = backend.xp.minimum(backend.ldexp(t, -e), 2 * math.sqrt(m.shape[-2] * m.shape[-1]) * backend.ones(m))

    def cold(m: Array, t: Array, *_: Array) -> Arrays:
        if backend.fast_svd(m) or backend.is_traced(m):
            return _by_svd(backend, m, t, f, columns)
        return f.by_products(m, t), _leading_vectors(backend, m, columns)

    if state is None:
        result = solution(backend, cold(m, t))
    else:
        result = _warm_or_cold(backend, m, state, t, f, max(tol or 0.0, working_precision(backend, m)), cold)
    x = backend.ldexp(result.value[0], broadcast_scalar(e))
    return result._replace(value=(adjoint(x) if wide else x, result.value[1]))


def _leading_vectors(backend: Backend, m: Array, columns: int) -> Array:
    """Right singular vectors as eigenvectors of MᴴM, which are accurate enough for a start."""
    wide = to_double(backend, m)
    v = backend.eigh(backend.hermitian_product(adjoint(wide), wide))[1]
    return backend.astype(backend.xp.flip(v, axis=-1)[..., :columns], backend.dtype_name(m))


def _by_svd(backend: Backend, m: Array, t: Array, f: Nonexpansive, columns: int) -> Arrays:
    kind = backend.dtype_name(m)
    u, values, vh = backend.svd(to_double(backend, m))
    t = backend.astype(t, backend.dtype_name(values))
    x = (u * f.of_values(values, t[..., None])[..., None, :]) @ vh
    return backend.astype(x, kind), backend.astype(adjoint(vh)[..., :columns], kind)


def _warm_or_cold(
    backend: Backend, m: Array, state: Array, t: Array, f: Nonexpansive, tol: float, cold: Callable[..., Arrays]
) -> Solution:
    last = follow(backend, m, state, t, lambda values, t: values > t[..., None], tol)
    # Where t is below the error that is allowed, all digits of the result would be wrong.
    unknown = last.stale | ~(t > tol * backend.norm(m))
    stale = backend.masked_cond(
        unknown,
        lambda *x: x[-1] >= 0,
        lambda *x: ~_holds_all_above(backend, *x, tol=tol),
        *(m, last.u, last.values, last.v, t),
    )

    def warm(m: Array, t: Array, u: Array, values: Array, v: Array) -> Arrays:
        return f.of_vectors(m, u, values, v, t), v

    value = backend.masked_cond(stale, cold, warm, m, t, last.u, last.values, last.v)
    return solution(backend, value, iterations=backend.xp.where(stale, 0 * t, 1 + last.steps))


def _holds_all_above(backend: Backend, m: Array, u: Array, values: Array, v: Array, t: Array, *, tol: float) -> Array:
    """Whether no other singular value is above t, or only by so little that the error stays below tol ‖m‖."""
    above = backend.xp.where(values > t[..., None], values, 0 * values)
    return rest_is_below(backend, m, u, above, v, t + tol * backend.norm(m) / math.sqrt(m.shape[-1]))
