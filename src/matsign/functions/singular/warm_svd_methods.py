"""The leading singular values and vectors of a matrix that moves slowly, from those of an earlier one."""

from __future__ import annotations

import math

import numpy as np

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.members import Solution, solution
from matsign.core.tolerances import working_precision
from matsign.iterations.leading_subspaces import follow, rest_is_below
from matsign.linalg.stacks import adjoint, safe_divisor, scale_to_unit, to_double


def solve_warm_svd(backend: Backend, m: Array, state: Array | None, *, k: int, tol: float | None) -> Solution:
    """U, S, Vᴴ, and the leading singular vectors of the short side of M."""
    wide = m.shape[-2] < m.shape[-1]
    m, e = scale_to_unit(backend, adjoint(m) if wide else m)
    if state is None:
        result = solution(backend, _by_svd(backend, m, state_columns(m.shape[-1], k)))
    else:
        result = _warm_or_cold(backend, m, state, k, max(tol or 0.0, working_precision(backend, m)))
    u, values, v = result.value
    if state is not None:
        phase = _phase(backend, state, v)[..., None, :]
        u, v = u * phase, v * phase
    u, v, rest, values = u[..., :k], v[..., :k], v[..., k:], backend.ldexp(values[..., :k], e[..., None])
    state = backend.xp.concat([v, rest], axis=-1)  # a copy: the vectors may be changed in place
    return result._replace(value=(v, values, adjoint(u), state) if wide else (u, values, adjoint(v), state))


def state_columns(smaller: int, k: int) -> int:
    """The number of singular vectors in a state, for matrices with so many rows or columns, whichever are fewer."""
    return min(smaller, k + max(k // 2, 8))


def _by_svd(backend: Backend, m: Array, columns: int) -> Arrays:
    kind = backend.dtype_name(m)
    u, values, vh = backend.svd(to_double(backend, m))
    values = backend.astype(values[..., :columns], backend.dtype_name(m.real))
    return backend.astype(u[..., :columns], kind), values, backend.astype(adjoint(vh)[..., :columns], kind)


def _warm_or_cold(backend: Backend, m: Array, state: Array, k: int, tol: float) -> Solution:
    columns = state.shape[-1]
    first = backend.asarray(np.arange(columns) < k, m)

    def wanted(values: Array, _: Array) -> Array:
        return first

    last = follow(backend, m, state, backend.ones(m), wanted, tol)
    stale = backend.masked_cond(
        last.stale,
        lambda *x: backend.ones(x[0]) > 0,
        lambda *x: ~_leads(backend, *x, tol=tol),
        *(m, last.u[..., :k], last.values[..., :k], last.v[..., :k]),
    )
    value = backend.masked_cond(
        stale, lambda m, *_: _by_svd(backend, m, columns), lambda m, *x: x, m, last.u, last.values, last.v
    )
    return solution(backend, value, iterations=backend.xp.where(stale, 0 * last.steps, 1 + last.steps))


def _leads(backend: Backend, m: Array, u: Array, values: Array, v: Array, *, tol: float) -> Array:
    """Whether no other singular value is above these, or only by so little that it counts as equal."""
    share = tol * backend.norm(m) / math.sqrt(m.shape[-1])
    return rest_is_below(backend, m, u, values, v, values[..., -1] + share)


def _phase(backend: Backend, state: Array, v: Array) -> Array:
    """Factors of modulus 1 that turn each column of v to the side of that of the state."""
    along = backend.xp.sum(v.conj() * state, axis=-2)
    size = backend.xp.abs(along)
    known = (size > 0.1) & (size < 10)
    return backend.xp.where(known, along / safe_divisor(backend, size), backend.xp.ones_like(along))
