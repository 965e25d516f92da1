"""The derivatives of mclip and soft_threshold in the matrix and in the thresholds.

Let D = soft(M, t) with n ≥ m (otherwise for Mᴴ), M = O H and R = (I + sign(H - t I))/2. The singular values above t form the
block B on both sides; there K = O R, G = (H - t I)₊, H = G + t I, and M' = M (I - R) is the rest of M. With A = Kᴴ dM and
E = (I - KKᴴ) dM R,

    dD = K (A R - t Ω + C) + F,    H Ω + Ω H = A R - (A R)ᴴ on B,
    H X + X H = H A (I - R) + Eᴴ M',    |H - t I| C + C |H - t I| = G X,    F = (E G + M' Cᴴ) H⁻¹ on B.

All divisors are sums of eigenvalues of H or of |H - t I|: no gap between singular values and no 1/σ for a σ below t, so that
neither rank nor repeated singular values matter. In terms of singular values, dD between σᵢ in B and σⱼ outside is
(σᵢ - t)/(σᵢ² - σⱼ²) times σᵢ dMᵢⱼ + σⱼ conj(dMⱼᵢ), computed in two steps because squares would lose half of the digits.

For clip(M, 0, t) = M - D, dM - dD is computed term by term, as the difference would cancel where t is small compared with σ,

    dM - dD = K (t Ω + A (I - R) - C) + (t E - M' Cᴴ) H⁻¹ + (I - KKᴴ) dM (I - R).

For the thresholds d soft/dt = -K(t), d clip/du = K(u) and d clip/dl = msign(M) - K(l), where K(t) = O R is the part of msign(M)
for singular values above t.

soft, and clip with l = 0, are gradients of convex functions, clip with l > 0 of a difference of two: each derivative is
its own adjoint.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.operations import apply
from matsign.functions.polar.polar import MSIGN, POLAR
from matsign.functions.proximal.methods import Threshold, eigenvalue_bound, sign_in_rule, threshold_stack
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


class _ClippedTangent(NamedTuple):
    """dD for dM, by the rule at the top of this file; dM - dD, for the clipped M; and K, the part of msign(M) above t."""

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
    # If all σ are far above t or far below, rounding errors of the zero projector would hide the small derivative.
    r, rest = (_or_zero(backend, p) for p in (r, rest))
    g = hermitian(r @ (h - cut) @ r)
    high = g + cut
    across = inverse(backend, high)
    k, low = m @ across @ r, m @ rest
    a, e = adjoint(k) @ dm, dm @ r
    e = e - k @ (adjoint(k) @ e)
    inside = a @ r
    omega = sylvester_symmetric(backend, high, inside - adjoint(inside))
    # Between the two blocks H - cut S/2 has the same sums of eigenvalues as H, and it is far from singular.
    x = sylvester_symmetric(backend, hermitian(h - cut @ s / 2), h @ a @ rest + adjoint(e) @ low)
    # Projected again: near t the equation divides rounding errors within a block by almost zero.
    c = r @ sylvester_symmetric(backend, 2 * g - (h - cut), g @ x @ rest) @ rest
    # t and not the cut, which is above t where t is below rounding of H.
    t_omega, out = t * omega, low @ adjoint(c)
    soft = k @ (inside - t_omega + c) + (e @ g + out) @ across
    # dM - dD term by term: where t is small compared with σ, dM and dD are nearly equal.
    outside = (dm - k @ (adjoint(k) @ dm)) @ rest
    clip = k @ (t_omega + a @ rest - c) + (t * e - out) @ across + outside
    soft, clip, k = (backend.xp.where(beyond, x, y) for x, y in ((nothing, soft), (dm, clip), (nothing, k)))
    if not isinstance(threshold, float):
        (u,) = apply(backend, MSIGN.operation, m, tol=None, rtol=None, method="auto")
        soft, clip, k = (backend.xp.where(zero, x, y) for x, y in ((dm, soft), (nothing, clip), (u, k)))
    return _ClippedTangent(soft, clip, k)


def _or_zero(backend: Backend, p: Array) -> Array:
    """A projector, or exactly zero if its rank is zero."""
    return backend.xp.where(
        broadcast_scalar(trace(backend, backend.stop_gradient(p)).real > 0.5), p, backend.xp.zeros_like(p)
    )


def cut_below(backend: Backend, h: Array, t: Array, length: int) -> tuple[Array, Array, Array, Array]:
    """Whether t is zero, whether no σ is above it, t (else), and the cut: just below t, but above rounding of H.

    So a σ that equals t up to rounding counts as above t, and none that is zero to working precision does.
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
    change = _soft_jvp(backend, arrays[0], tangents[0], t)
    return (change.soft if tangents[1] is None else change.soft - broadcast_scalar(tangents[1]) * change.above,)


def soft_cotangent(
    backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, t: Threshold, **_: Any
) -> Arrays:
    change = _soft_jvp(backend, arrays[0], cotangents[0], t)
    return change.soft, None if isinstance(t, float) else -inner(backend, change.above, cotangents[0])


def _clip_jvp(
    backend: Backend, m: Array, dm: Array, lower: Threshold, upper: Threshold, rtol: float | None
) -> tuple[Array, Array, Array]:
    """dX for dM, dX/dlower and dX/dupper, which are the parts of msign(M) for σ ≤ lower and for σ > upper."""
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
    dx, *parts = _clip_jvp(backend, arrays[0], tangents[0], lower, upper, rtol)
    for part, dt in zip(parts, tangents[1:], strict=True):
        dx = dx if dt is None else dx + broadcast_scalar(dt) * part
    return (dx,)


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
    bar_m, *parts = _clip_jvp(backend, arrays[0], cotangents[0], lower, upper, rtol)
    known = (isinstance(x, float) for x in (lower, upper))
    return bar_m, *(None if k else inner(backend, part, cotangents[0]) for k, part in zip(known, parts, strict=True))
