"""The derivatives of mclip and soft_threshold in the matrix and in the thresholds."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from matsign._typing import Arrays
from matsign.backends import Backend
from matsign.core.operations import apply
from matsign.functions.polar import MSIGN, POLAR
from matsign.functions.proximal_methods import Threshold, eigenvalue_bound, sign_in_rule, threshold_stack
from matsign.iterations.differentiable_solves import inverse, sylvester_symmetric
from matsign.linalg.stacks import (
    adjoint,
    broadcast_scalar,
    eye,
    hermitian,
    inner,
    safe_divisor,
    scale_to_unit,
    trace,
)

Array = Any


class _ClippedTangent(NamedTuple):
    """dD for dM, by the rule at the top of this file; dM - dD, how the clipped M moves; and K, the part of msign(M) above t."""

    soft: Array
    clip: Array
    above: Array


def _soft_jvp(backend: Backend, m: Array, dm: Array, threshold: Threshold) -> _ClippedTangent:
    nothing = backend.xp.zeros_like(dm)
    if isinstance(threshold, float) and threshold in (0, math.inf):
        return _ClippedTangent(*((dm, nothing) if threshold == 0 else (nothing, dm)), backend.xp.zeros_like(m))
    if m.shape[-2] < m.shape[-1]:
        return _ClippedTangent(*map(adjoint, _soft_jvp(backend, adjoint(m), adjoint(dm), threshold)))
    m, scale = scale_to_unit(backend, m)  # which changes no derivative, if t is scaled as well
    _, h = apply(backend, POLAR.operation, m, tol=None, rtol=None, method="auto")
    unit = eye(backend, h)
    t = backend.ldexp(threshold_stack(backend, m, threshold), -scale)
    zero, beyond, t, cut = cut_below(backend, h, t, m.shape[-2])
    t, cut = broadcast_scalar(t), broadcast_scalar(cut) * unit
    s = sign_in_rule(backend, h - cut)
    r, rest = (unit + s) / 2, (unit - s) / 2
    # Rounding of a projector on nothing would hide a slope as small as that of what is all far above t, or below.
    r, rest = (_or_nothing(backend, p) for p in (r, rest))
    g = hermitian(r @ (h - cut) @ r)
    high = g + cut
    across = inverse(backend, high)
    k, low = m @ across @ r, m @ rest
    a, e = adjoint(k) @ dm, dm @ r
    e = e - k @ (adjoint(k) @ e)
    inside = a @ r
    turn = sylvester_symmetric(backend, high, inside - adjoint(inside))
    # H - cut sign/2 has the sums of H between the two blocks, and is nowhere near singular.
    x = sylvester_symmetric(backend, hermitian(h - cut @ s / 2), h @ a @ rest + adjoint(e) @ low)
    # Projected once more: near t the equation has rounding within a block to divide by next to nothing.
    c = r @ sylvester_symmetric(backend, 2 * g - (h - cut), g @ x @ rest) @ rest
    # t itself: the cut lies above it where t is lost in the rounding of H.
    turned, out = t * turn, low @ adjoint(c)
    soft = k @ (inside - turned + c) + (e @ g + out) @ across
    # The same less dM, term by term: where t is small beside σ the two are nearly equal.
    beside = (dm - k @ (adjoint(k) @ dm)) @ rest
    clip = k @ (turned + a @ rest - c) + (t * e - out) @ across + beside
    soft, clip, k = (backend.xp.where(beyond, x, y) for x, y in ((nothing, soft), (dm, clip), (nothing, k)))
    if not isinstance(threshold, float):
        (u,) = apply(backend, MSIGN.operation, m, tol=None, rtol=None, method="auto")
        soft, clip, k = (backend.xp.where(zero, x, y) for x, y in ((dm, soft), (nothing, clip), (u, k)))
    return _ClippedTangent(soft, clip, k)


def _or_nothing(backend: Backend, p: Array) -> Array:
    """A projector, or zero if it projects on nothing."""
    return backend.xp.where(
        broadcast_scalar(trace(backend, backend.stop_gradient(p)).real > 0.5), p, backend.xp.zeros_like(p)
    )


def cut_below(backend: Backend, h: Array, t: Array, length: int) -> tuple[Array, Array, Array, Array]:
    """Whether t is zero, whether nothing lies above it, t (else), and where to cut: just below t, but not in the rounding of H.

    So what lies on t up to rounding counts as above it, and nothing does that is zero to working precision.
    """
    size = safe_divisor(backend, eigenvalue_bound(backend, backend.stop_gradient(h)))
    zero, beyond = ~(t > 0), ~(t < 2 * size)
    cut = t - backend.xp.minimum(32 * backend.eps(h) * size, backend.stop_gradient(t) / 2)
    cut = backend.xp.where(cut > length * backend.eps(h) * size, cut, length * backend.eps(h) * size)
    t, cut = (backend.xp.where(zero | beyond, size, x) for x in (t, cut))
    return broadcast_scalar(zero), broadcast_scalar(beyond), t, cut


def soft_tangent(
    backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, t: Threshold, **_: Any
) -> Arrays:
    moved = _soft_jvp(backend, arrays[0], tangents[0], t)
    return (moved.soft if tangents[1] is None else moved.soft - broadcast_scalar(tangents[1]) * moved.above,)


def soft_cotangent(
    backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, t: Threshold, **_: Any
) -> Arrays:
    moved = _soft_jvp(backend, arrays[0], cotangents[0], t)
    return moved.soft, None if isinstance(t, float) else -inner(backend, moved.above, cotangents[0])


def _clip_jvp(
    backend: Backend, m: Array, dm: Array, lower: Threshold, upper: Threshold, rtol: float | None
) -> tuple[Array, Array, Array]:
    """dX for dM, and dX/dlower and dX/dupper: the parts of msign(M) that lie at or below `lower` and above `upper`."""
    high = _soft_jvp(backend, m, dm, upper)
    if isinstance(lower, float) and lower == 0:
        return high.clip, backend.xp.zeros_like(m), high.above
    sign = MSIGN.operation
    assert sign.tangent is not None
    options: dict[str, Any] = {"tol": None, "rtol": rtol, "method": "auto"}
    u = apply(backend, sign, m, **options)
    (du,) = sign.tangent(backend, u, (m,), (dm,), **options)
    within, low, nothing = (
        _soft_jvp(backend, m, dm, lower),
        broadcast_scalar(threshold_stack(backend, m, lower)),
        backend.xp.zeros_like(m),
    )
    lifted = backend.xp.where(low > 0, low * du - within.clip, nothing)
    return high.clip + lifted, backend.xp.where(low > 0, u[0] - within.above, nothing), high.above


def clip_tangent(
    backend: Backend,
    value: Arrays,
    arrays: Arrays,
    tangents: Arrays,
    *,
    lower: Threshold,
    upper: Threshold,
    rtol: float | None,
    **_: Any,
) -> Arrays:
    moved, *parts = _clip_jvp(backend, arrays[0], tangents[0], lower, upper, rtol)
    for part, move in zip(parts, tangents[1:], strict=True):
        moved = moved if move is None else moved + broadcast_scalar(move) * part
    return (moved,)


def clip_cotangent(
    backend: Backend,
    value: Arrays,
    arrays: Arrays,
    cotangents: Arrays,
    *,
    lower: Threshold,
    upper: Threshold,
    rtol: float | None,
    **_: Any,
) -> Arrays:
    moved, *parts = _clip_jvp(backend, arrays[0], cotangents[0], lower, upper, rtol)
    known = (isinstance(x, float) for x in (lower, upper))
    return moved, *(None if k else inner(backend, part, cotangents[0]) for k, part in zip(known, parts, strict=True))
