"""msign of a matrix that moves slowly, from the singular vectors U and V of an earlier one.

For n ≥ m, T = Uᴴ M V is nearly diagonal and positive. Without any gap between singular values, the unitary factor of T
is I + X up to X², with

    Xᵢⱼ = (T - Tᴴ)ᵢⱼ / (dᵢ + dⱼ),    d the diagonal of T,

and U ← U (I + X) + (I - UUᴴ) M V D⁻¹ is nearer to the factor of M V, with the error squared. Later steps have
(T - Tᴴ + (I - UᴴU) D)ᵢⱼ above the line, which makes U an isometry again. V stays as it is, so that off-diagonal entries of T
grow with the way of M; msign(M) = U Vᴴ.

A step is accepted by what it satisfies and not by how it came about. For an isometry U with range(U) = range(M), UᴴMV is
Hermitian if and only if U Vᴴ is msign(M) with some signs changed; the entries of T exclude these. Deviations are measured on
a few fixed random vectors.
"""

from __future__ import annotations

from typing import NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.members import Solution, solution
from matsign.core.tolerances import rank_tolerance, working_precision
from matsign.functions.polar.methods import at_size, newton_schulz_step
from matsign.linalg.stacks import adjoint, eye, hermitian, random_probe, safe_divisor, scale_to_unit, to_double

# Each step squares the error. A start that needs more of them is so far away that an SVD costs less.
_STEPS = 3

# So many random vectors measure a matrix: its norm is underestimated by a factor of 10 with a probability of about 1e-7.
_PROBES = 8

# H = UᴴMV stays positive definite in a step X if ‖D^{-1/2} T D^{-1/2} - I‖ + ‖D^{-1/2} X D^{1/2}‖ is at most this.
_POSITIVE = 0.5


class Iterate(NamedTuple):
    """B = M V, the isometry U, the error of U as the factor of B, and whether U may be any other isometry than that."""

    b: Array
    u: Array
    error: Array
    stale: Array
    steps: Array


def warm_or_cold(backend: Backend, m: Array, state: Array | None, *, tol: float | None, rtol: float | None) -> Solution:
    """msign and the state for the next matrix: the left singular vectors above the right ones."""
    m, _ = scale_to_unit(backend, m)
    if state is None:
        return solution(backend, _cold(backend, m, rtol))
    if m.shape[-2] < m.shape[-1]:
        result = _tall(backend, adjoint(m), _exchange(backend, state, m.shape[-2]), tol, rtol)
        value = adjoint(result.value[0]), _exchange(backend, result.value[1], m.shape[-1])
        return result._replace(value=value)
    return _tall(backend, m, state, tol, rtol)


def _exchange(backend: Backend, state: Array, rows: int) -> Array:
    """The state with its first rows last."""
    return backend.xp.concat([state[..., rows:, :], state[..., :rows, :]], axis=-2)


def _cold(backend: Backend, m: Array, rtol: float | None) -> Arrays:
    """msign and a state without a start, by the way that is fast on the device."""
    if backend.fast_svd(m) or backend.is_traced(m):
        return _by_svd(backend, m, rtol)
    return _by_products(backend, m, rtol)


def _by_products(backend: Backend, m: Array, rtol: float | None) -> Arrays:
    """M = Q H by products, and the eigenvectors V of H: M = (Q V) S Vᴴ. A wide M has H on its left side."""
    q = at_size(backend, m, None, rtol, "polynomial").value[0]
    wide = m.shape[-2] < m.shape[-1]
    h = m @ adjoint(q) if wide else adjoint(q) @ m
    v = backend.eigh(hermitian(h))[1]
    return q, backend.xp.concat([v, adjoint(q) @ v] if wide else [q @ v, v], axis=-2)


def _by_svd(backend: Backend, m: Array, rtol: float | None) -> Arrays:
    rtol, kind = rank_tolerance(backend, m, rtol), backend.dtype_name(m)
    u, values, vh = backend.svd(to_double(backend, m))
    kept = backend.astype(values > rtol * values[..., :1], backend.dtype_name(values))
    q = (u * kept[..., None, :]) @ vh
    q = newton_schulz_step(backend, q) if backend.eps(q) > 1e-8 else q
    state = backend.xp.concat([u, adjoint(vh)], axis=-2)
    return backend.astype(q, kind), backend.astype(state, kind)


def _tall(backend: Backend, m: Array, state: Array, tol: float | None, rtol: float | None) -> Solution:
    rows = m.shape[-2]
    u, v = state[..., :rows, :], state[..., rows:, :]
    last = _follow(backend, m, u, v, _tolerance(backend, m, tol), rank_tolerance(backend, m, rtol))
    q = last.u @ adjoint(v)

    def cold(m: Array, *_: Array) -> Arrays:
        return _cold(backend, m, rtol)

    def warm(m: Array, q: Array, u: Array, v: Array) -> Arrays:
        return q, backend.xp.concat([u, v], axis=-2)

    value = backend.masked_cond(last.stale, cold, warm, m, q, last.u, v)
    return solution(backend, value, iterations=last.steps)


def _tolerance(backend: Backend, m: Array, tol: float | None) -> float:
    return max(tol or 0.0, working_precision(backend, m))


def _follow(backend: Backend, m: Array, u: Array, v: Array, tol: float, rtol: float) -> Iterate:
    """The last iterate of each member; stale members have none that is certified."""
    xp, ones = backend.xp, backend.ones(m)
    turned = _deviation(backend, v) > working_precision(backend, m)
    start = Iterate(m @ v, u, ones, turned, 0 * ones)
    first = _step(backend, start, tol, rtol, isometric=True)

    def step(x: Iterate) -> tuple[Iterate, Array]:
        new = _step(backend, x, tol, rtol, isometric=False)
        return new, ~(new.error <= tol) & ~new.stale

    open_members = ~(first.error <= tol) & ~first.stale
    last: Iterate = backend.masked_cond(
        open_members, lambda *x: backend.loop(step, Iterate(*x), _STEPS - 1), lambda *x: Iterate(*x), *first
    )
    stale = last.stale | ~(last.error <= tol)
    return last._replace(stale=stale, steps=xp.where(stale, 0 * ones, last.steps))


def _step(backend: Backend, last: Iterate, tol: float, rtol: float, *, isometric: bool) -> Iterate:
    """One step; `isometric` if UᴴU = I so nearly that the step need not correct it."""
    xp, b, u = backend.xp, last.b, last.u
    t = adjoint(u) @ b
    d = xp.linalg.diagonal(t).real
    usable = xp.min(d, axis=-1) > rtol * xp.max(d, axis=-1)
    d = xp.where(usable[..., None], d, xp.ones_like(d))
    root, unit = xp.sqrt(d)[..., None, :], eye(backend, t)
    inverse_root = 1 / root.mT
    x, within = t - adjoint(t), t
    if not isometric:
        lost = (unit - adjoint(u) @ u) * d[..., None, :]
        x, within = x + lost, t + lost
    x = x / (d[..., :, None] + d[..., None, :])
    size = backend.norm(inverse_root * t / root - unit)
    size = size + backend.norm(inverse_root * x * root) * (1 + size)
    if u.shape[-2] > u.shape[-1]:
        u = u + u @ (x - within / d[..., None, :]) + b / d[..., None, :]
    else:
        u = u + u @ x
    error = _error(backend, b, u)
    ratio = xp.minimum(error / safe_divisor(backend, last.error), backend.ones(t))
    # At best each further step squares the ratio of the one before.
    hopeless = error * ratio ** (2.0 ** (_STEPS - last.steps) - 2) > tol
    stale = last.stale | hopeless | ~usable | ~(size < _POSITIVE)
    return Iterate(b, u, error, stale, last.steps + 1)


def _probes(backend: Backend, x: Array) -> Array:
    """Vectors whose products measure a matrix with as many columns as x: all unit vectors of a small one."""
    k = x.shape[-1]
    return eye(backend, x) if k <= _PROBES else random_probe(backend, k, _PROBES, x)


def _deviation(backend: Backend, x: Array) -> Array:
    """‖(xᴴx - I) P‖ / ‖P‖ for the probes P."""
    p = _probes(backend, x)
    return backend.norm(adjoint(x) @ (x @ p) - p) / backend.norm(p)


def _error(backend: Backend, b: Array, u: Array) -> Array:
    """The backward error of u as the unitary factor of b, from products with the probes."""
    p = _probes(backend, u)
    bp, up = b @ p, u @ p
    hp, size = adjoint(u) @ bp, safe_divisor(backend, backend.norm(bp))
    skew = backend.norm(hp - adjoint(b) @ up) / (2 * size)
    outside = backend.norm(bp - u @ hp) / size
    isometry = backend.norm(adjoint(u) @ up - p) / backend.norm(p)
    return backend.xp.maximum(backend.xp.maximum(skew, outside), isometry)
