"""Singular values cut off: mclip and soft_threshold, and the projection on positive semidefinite matrices.

What is cut off here comes from projectors, and those from signs. With M = O H (`polar`), R = (I + sign(H - t I))/2 and P = I - R,

    soft(M, t) = O R (H - t I) R,        clip(M, 0, u) = O (u I + P (H - u I) P),

projected from both sides, so that an error of R enters squared and where σ = t it does not matter at all.

Differential of D = soft(M, t), n ≥ m (otherwise of Mᴴ). The singular values above t form the block B on both sides; there
K = O R, G = (H - t I)₊, H = G + t I, and M' = M (I - R) is the rest of M. With A = Kᴴ dM and E = (I - KKᴴ) dM R,

    dD = K (A R - t Ω + C) + F,    H Ω + Ω H = A R - (A R)ᴴ on B,
    H X + X H = H A (I - R) + Eᴴ M',    |H - t I| C + C |H - t I| = G X,    F = (E G + M' Cᴴ) H⁻¹ on B.

All sums that are divided by are those of H or of |H - t I|: no gap between singular values, and nothing of 1/σ below t, so that
rank and repetition do not matter. In terms of singular values, dD between σᵢ in B and σⱼ outside is (σᵢ - t)/(σᵢ² - σⱼ²) times
σᵢ dMᵢⱼ + σⱼ conj(dMⱼᵢ), in two steps because squares would cost half of the digits. With it, for σ > 0,

    clip(M, l, u) = l msign(M) + soft(M, l) - soft(M, u),        clip(M, 0, u) = M - soft(M, u).

What clip(M, 0, t) = M - D moves by is not taken as dM - dD, where digits cancel if t is small beside σ, but term by term,

    dM - dD = K (t Ω + A (I - R) - C) + (t E - M' Cᴴ) H⁻¹ + (I - KKᴴ) dM (I - R).

The thresholds move D by d soft/dt = -K(t), d clip/du = K(u) and d clip/dl = msign(M) - K(l), where K(t) = O R is the part of
msign(M) that lies above t.

Every map here but the one with l > 0 is the gradient of a convex function, that one of a difference of two: each
derivative is its own adjoint.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, cast

from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.operations import Arrays, Solution, apply, solution
from matsign.core.public import Residual, public_function
from matsign.core.tolerances import rank_tolerance
from matsign.functions.polar import MSIGN, POLAR, orthogonalise
from matsign.iterations.differentiable_solves import inverse, sylvester_symmetric
from matsign.linalg.stacks import (
    adjoint,
    broadcast_scalar,
    can_widen,
    eye,
    hermitian,
    inner,
    norm,
    random_probe,
    rounding_probe,
    safe_divisor,
    scale_to_unit,
    scaled_norm,
    to_double,
    trace,
)

Array = Any

Threshold = Any  # a float, or one number for each member of a stack

Change = Callable[..., Array]

_METHODS = ("auto", "svd", "sign")
# The exponents at which the dtypes end.
_TOP = {"float32": 128, "float64": 1024}


def _clip(be: Backend, m: Array, *, lower: Threshold, upper: Threshold, rtol: float | None, method: str) -> Solution:
    if isinstance(lower, float) and isinstance(upper, float):
        if not lower <= upper:
            raise ValueError(f"mclip: lower must be at most upper, got lower={lower:g}, upper={upper:g}")
        return _clip_between(be, m, lower, upper, rtol, method)
    low, high = _stack(be, m, lower), _stack(be, m, upper)
    sound = (low >= 0) & (low <= high)
    # Where one is NaN both comparisons are false, and the first that is wrong is shown.
    wrong = be.xp.where((low >= 0) & ((low <= high) | be.xp.isnan(high)), high, low)
    lower = lower if isinstance(lower, float) else be.xp.where(sound, low, 0 * be.ones(m))
    high = be.xp.where(sound, high, be.xp.maximum(be.ones(m), _stack(be, m, lower)))
    return _with_sound(be, _clip_between(be, m, lower, high, rtol, method), sound, wrong)


def _clip_between(
    be: Backend, m: Array, lower: Threshold, upper: Threshold, rtol: float | None, method: str
) -> Solution:
    rtol = rank_tolerance(be, m, rtol)
    if _by_svd(be, m, method):
        return solution(
            be, _rebuild(be, m, (_clip_values(be, rtol, rank_tolerance(be, to_double(be, m), None)),), lower, upper)
        )
    found = _parts(be, m, lower, upper, rtol)
    return found._replace(value=found.value[:1])


def _clip_values(be: Backend, rtol: float, rounding: float) -> Change:
    """What clipping does to singular values."""

    def clip_values(values: Array, least: Array, most: Array) -> Array:
        inside, top = be.xp.maximum(be.xp.minimum(values, most), least), values[:, :1]
        # With lower = 0 what is nearly zero stays what it is; only where `upper` is lost in the rounding of M would
        # zeros be made as large as all the rest.
        nothing = be.xp.where(least > 0, ~(values > rtol * top), (values > most) & ~(values > rounding * top))
        return be.xp.where(nothing, 0 * values, inside)

    return clip_values


def _shrink(be: Backend, values: Array, t: Array) -> Array:
    return be.xp.where(values > t, values - be.xp.minimum(t, values), 0 * values)


def _parts(be: Backend, m: Array, lower: Threshold, upper: Threshold, rtol: float) -> Solution:
    """`_clip_by_signs` of matrices tall or wide, with lower = 0 in some members and not in others."""
    if isinstance(lower, float):
        return _on_short_side(be, m, lambda m: _clip_by_signs(be, m, lower, upper, rtol))
    return be.masked_cond(
        lower > 0,
        lambda m, low, high: _on_short_side(be, m, lambda m: _clip_by_signs(be, m, low, high, rtol)),
        lambda m, low, high: _on_short_side(be, m, lambda m: _clip_by_signs(be, m, 0.0, high, rtol)),
        m,
        lower,
        _stack(be, m, upper),
    )


def _soft(be: Backend, m: Array, *, t: Threshold, method: str) -> Solution:
    if isinstance(t, float):
        return _soft_at(be, m, t, method)
    sound = t >= 0
    return _with_sound(be, _soft_at(be, m, be.xp.where(sound, t, 0 * be.ones(m)), method), sound, t)


def _soft_at(be: Backend, m: Array, t: Threshold, method: str) -> Solution:
    if _by_svd(be, m, method):
        return solution(be, _rebuild(be, m, (lambda values, t: _shrink(be, values, t),), t))
    return _on_short_side(be, m, lambda m: _soft_by_signs(be, m, _stack(be, m, t)))


def _stack(be: Backend, m: Array, threshold: Threshold) -> Array:
    """A threshold as one number for each member of m."""
    return threshold * be.ones(m) if isinstance(threshold, float) else threshold


def _with_sound(be: Backend, found: Solution, sound: Array, wrong: Array) -> Solution:
    """What was found, and a failure where the thresholds made no sense."""
    marked = solution(be, found.value, Failure.THRESHOLDS, ~sound, found.iterations, wrong)
    return marked._replace(failure=be.xp.where(sound, found.failure, marked.failure))


def _by_svd(be: Backend, m: Array, method: str) -> bool:
    """On a CPU LAPACK costs a fourth of two signs or less; but its single precision is eight times as wrong as they are."""
    return method == "svd" or (method == "auto" and be.on_cpu(m) and can_widen(be, m))


def _rebuild(be: Backend, m: Array, changes: tuple[Change, ...], *thresholds: Threshold) -> Arrays:
    """U change(S, thresholds) Vᴴ for each of the changes, in double precision where there is one."""
    kind = be.dtype_name(m)
    m, e = scale_to_unit(be, to_double(be, m))
    u, values, vh = be.svd(m)
    # In true size, where the thresholds are: scaled the other way they might overflow. Only what lies at the end of the range
    # is taken a little smaller, with its thresholds.
    over = _excess(be, m, e)
    near = [be.ldexp(be.astype(_stack(be, m, t), be.dtype_name(values)), -over)[:, None] for t in thresholds]
    values = be.ldexp(values, (e - over)[:, None])
    found = (be.ldexp((u * f(values, *near)[:, None, :]) @ vh, broadcast_scalar(over)) for f in changes)
    return tuple(be.astype(x, kind) for x in found)


def _excess(be: Backend, m: Array, e: Array) -> Array:
    """By how many powers of two entries below 2^e are too large for sums of their products with orthogonal matrices."""
    return be.xp.maximum(e - (_TOP[be.dtype_name(be.real(m))] - 16), 0 * e)


def _on_short_side(be: Backend, m: Array, f: Any) -> Solution:
    if m.shape[-2] >= m.shape[-1]:
        return f(m)
    found: Solution = f(adjoint(m))
    turned = [adjoint(x) for x in found.value]
    return found._replace(value=_Parts(*turned) if isinstance(found.value, _Parts) else tuple(turned))


def _sign(be: Backend, h: Array) -> Array:
    """The sign of a Hermitian matrix by products alone, resolved as far as rounding allows."""
    found: Solution = be.shared_function(orthogonalise, be, h, tol=None, rtol=be.eps(h), method="polynomial")
    return hermitian(found.value[0])


def _factors(be: Backend, m: Array, rtol: float) -> tuple[Solution, Array, Array]:
    """How O was found, H, and a bound on its largest eigenvalue."""
    found: Solution = be.shared_function(orthogonalise, be, m, tol=None, rtol=rtol, method="polynomial")
    h = hermitian(adjoint(found.value[0]) @ m)
    return found, h, _size(be, h)


def _size(be: Backend, h: Array) -> Array:
    """The largest eigenvalue of a Hermitian matrix from above, by a factor of at most n^1/4."""
    h, e = scale_to_unit(be, h)
    return be.ldexp(be.xp.sqrt(norm(be, h @ h)), e)


def _within(be: Backend, bound: Array, e: Array, top: Array) -> Array:
    """A threshold in units of 2^e: one above all there is counts as if it were the largest."""
    return be.xp.minimum(be.ldexp(bound, -e), top)


class _Parts(NamedTuple):
    """clip(M, lower, upper) by signs, and what it is made of: msign(M), soft(M, lower) where lower > 0, and soft(M, upper)."""

    clip: Array
    sign: Array
    within: Array
    over: Array


def _clip_by_signs(be: Backend, m: Array, lower: Threshold, upper: Threshold, rtol: float) -> Solution:
    """With a `lower` that is either 0, a float, or positive in every member: the `_Parts`."""
    lifts, upper = not isinstance(lower, float) or lower > 0, _stack(be, m, upper)
    m, e = scale_to_unit(be, m)
    found, h, top = _factors(be, m, rtol if lifts else be.eps(m))
    (o,), unit = found.value, eye(be, h)
    bound = _within(be, upper, e, top)
    high = broadcast_scalar(bound) * unit
    below, above = _sides(be, h - high)
    over = be.xp.where(broadcast_scalar(bound < top), above @ (h - high) @ above, be.xp.zeros_like(h))
    kept = high + below @ (h - high) @ below
    # What is squared away is eps² of the largest σ: too much only where the threshold is itself lost in its rounding.
    lost = broadcast_scalar((bound < be.eps(m) * top) & (top > 0))
    capped = broadcast_scalar(be.xp.minimum(upper, _largest_number(be, m))) * o
    x, within = o @ kept, m
    if lifts:
        lower = _stack(be, m, lower)
        low = broadcast_scalar(_within(be, lower, e, top)) * unit
        _, above = _sides(be, h - low)
        x, within = o @ (above @ (kept - low) @ above), o @ (above @ (h - low) @ above)
    x, within, over = (be.ldexp(y, broadcast_scalar(e)) for y in (x, within, o @ over))
    if lifts:
        x = x + broadcast_scalar(lower) * o
    return found._replace(value=_Parts(be.xp.where(lost, capped, x), o, within, over))


def _sides(be: Backend, h: Array) -> tuple[Array, Array]:
    """The projectors on what lies below zero and what lies above."""
    s, unit = _sign(be, h), eye(be, h)
    return (unit - s) / 2, (unit + s) / 2


def _largest_number(be: Backend, m: Array) -> Array:
    return be.ldexp(be.ones(m), _TOP[be.dtype_name(be.real(m))] - 1 + 0 * be.int_zeros(m))


def _soft_by_signs(be: Backend, m: Array, t: Array) -> Solution:
    m, e = scale_to_unit(be, m)
    found, h, top = _factors(be, m, be.eps(m))
    bound = _within(be, t, e, top)
    gap = h - broadcast_scalar(bound) * eye(be, h)
    _, above = _sides(be, gap)
    x = be.ldexp(found.value[0] @ above @ gap @ above, broadcast_scalar(e))
    return found._replace(value=(be.xp.where(broadcast_scalar(bound < top), x, be.xp.zeros_like(x)),))


def _side(be: Backend, h: Array) -> Array:
    """The sign of a Hermitian matrix, in a rule."""
    s = hermitian(apply(be, MSIGN.operation, h, tol=None, rtol=0.0, method="auto")[0])
    # Eigenvalues near zero leave it turned, which symmetry makes a quadratic error; each step squares that.
    for _ in range(2):
        s = hermitian(s @ (3 * eye(be, s) - s @ s)) / 2
    return s


class _ClippedTangent(NamedTuple):
    """dD for dM, by the rule at the top of this file; dM - dD, how the clipped M moves; and K, the part of msign(M) above t."""

    soft: Array
    clip: Array
    above: Array


def _soft_jvp(be: Backend, m: Array, dm: Array, threshold: Threshold) -> _ClippedTangent:
    nothing = be.xp.zeros_like(dm)
    if isinstance(threshold, float) and threshold in (0, math.inf):
        return _ClippedTangent(*((dm, nothing) if threshold == 0 else (nothing, dm)), be.xp.zeros_like(m))
    if m.shape[-2] < m.shape[-1]:
        return _ClippedTangent(*map(adjoint, _soft_jvp(be, adjoint(m), adjoint(dm), threshold)))
    m, scale = scale_to_unit(be, m)  # which changes no derivative, if t is scaled as well
    _, h = apply(be, POLAR.operation, m, tol=None, rtol=None, method="auto")
    unit = eye(be, h)
    t = be.ldexp(_stack(be, m, threshold), -scale)
    zero, beyond, t, cut = _cut_below(be, h, t, m.shape[-2])
    t, cut = broadcast_scalar(t), broadcast_scalar(cut) * unit
    s = _side(be, h - cut)
    r, rest = (unit + s) / 2, (unit - s) / 2
    # Rounding of a projector on nothing would hide a slope as small as that of what is all far above t, or below.
    r, rest = (_or_nothing(be, p) for p in (r, rest))
    g = hermitian(r @ (h - cut) @ r)
    high = g + cut
    across = inverse(be, high)
    k, low = m @ across @ r, m @ rest
    a, e = adjoint(k) @ dm, dm @ r
    e = e - k @ (adjoint(k) @ e)
    inside = a @ r
    turn = sylvester_symmetric(be, high, inside - adjoint(inside))
    # H - cut sign/2 has the sums of H between the two blocks, and is nowhere near singular.
    x = sylvester_symmetric(be, hermitian(h - cut @ s / 2), h @ a @ rest + adjoint(e) @ low)
    # Projected once more: near t the equation has rounding within a block to divide by next to nothing.
    c = r @ sylvester_symmetric(be, 2 * g - (h - cut), g @ x @ rest) @ rest
    # t itself: the cut lies above it where t is lost in the rounding of H.
    turned, out = t * turn, low @ adjoint(c)
    soft = k @ (inside - turned + c) + (e @ g + out) @ across
    # The same less dM, term by term: where t is small beside σ the two are nearly equal.
    beside = (dm - k @ (adjoint(k) @ dm)) @ rest
    clip = k @ (turned + a @ rest - c) + (t * e - out) @ across + beside
    soft, clip, k = (be.xp.where(beyond, x, y) for x, y in ((nothing, soft), (dm, clip), (nothing, k)))
    if not isinstance(threshold, float):
        (u,) = apply(be, MSIGN.operation, m, tol=None, rtol=None, method="auto")
        soft, clip, k = (be.xp.where(zero, x, y) for x, y in ((dm, soft), (nothing, clip), (u, k)))
    return _ClippedTangent(soft, clip, k)


def _or_nothing(be: Backend, p: Array) -> Array:
    """A projector, or zero if it projects on nothing."""
    return be.xp.where(broadcast_scalar(be.real(trace(be, be.stop_gradient(p))) > 0.5), p, be.xp.zeros_like(p))


def _cut_below(be: Backend, h: Array, t: Array, length: int) -> tuple[Array, Array, Array, Array]:
    """Whether t is zero, whether nothing lies above it, t (else), and where to cut: just below t, but not in the rounding of H.

    So what lies on t up to rounding counts as above it, and nothing does that is zero to working precision.
    """
    size = safe_divisor(be, _size(be, be.stop_gradient(h)))
    zero, beyond = ~(t > 0), ~(t < 2 * size)
    cut = t - be.xp.minimum(32 * be.eps(h) * size, be.stop_gradient(t) / 2)
    cut = be.xp.where(cut > length * be.eps(h) * size, cut, length * be.eps(h) * size)
    t, cut = (be.xp.where(zero | beyond, size, x) for x in (t, cut))
    return broadcast_scalar(zero), broadcast_scalar(beyond), t, cut


def _soft_tangent(be: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, t: Threshold, **_: Any) -> Arrays:
    moved = _soft_jvp(be, arrays[0], tangents[0], t)
    return (moved.soft if tangents[1] is None else moved.soft - broadcast_scalar(tangents[1]) * moved.above,)


def _soft_cotangent(
    be: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, t: Threshold, **_: Any
) -> Arrays:
    moved = _soft_jvp(be, arrays[0], cotangents[0], t)
    return moved.soft, None if isinstance(t, float) else -inner(be, moved.above, cotangents[0])


def _clip_jvp(
    be: Backend, m: Array, dm: Array, lower: Threshold, upper: Threshold, rtol: float | None
) -> tuple[Array, Array, Array]:
    """dX for dM, and dX/dlower and dX/dupper: the parts of msign(M) that lie at or below `lower` and above `upper`."""
    high = _soft_jvp(be, m, dm, upper)
    if isinstance(lower, float) and lower == 0:
        return high.clip, be.xp.zeros_like(m), high.above
    sign = MSIGN.operation
    assert sign.tangent is not None
    options: dict[str, Any] = {"tol": None, "rtol": rtol, "method": "auto"}
    u = apply(be, sign, m, **options)
    (du,) = sign.tangent(be, u, (m,), (dm,), **options)
    within, low, nothing = _soft_jvp(be, m, dm, lower), broadcast_scalar(_stack(be, m, lower)), be.xp.zeros_like(m)
    lifted = be.xp.where(low > 0, low * du - within.clip, nothing)
    return high.clip + lifted, be.xp.where(low > 0, u[0] - within.above, nothing), high.above


def _clip_tangent(
    be: Backend,
    value: Arrays,
    arrays: Arrays,
    tangents: Arrays,
    *,
    lower: Threshold,
    upper: Threshold,
    rtol: float | None,
    **_: Any,
) -> Arrays:
    moved, *parts = _clip_jvp(be, arrays[0], tangents[0], lower, upper, rtol)
    for part, move in zip(parts, tangents[1:], strict=True):
        moved = moved if move is None else moved + broadcast_scalar(move) * part
    return (moved,)


def _clip_cotangent(
    be: Backend,
    value: Arrays,
    arrays: Arrays,
    cotangents: Arrays,
    *,
    lower: Threshold,
    upper: Threshold,
    rtol: float | None,
    **_: Any,
) -> Arrays:
    moved, *parts = _clip_jvp(be, arrays[0], cotangents[0], lower, upper, rtol)
    known = (isinstance(x, float) for x in (lower, upper))
    return moved, *(None if k else inner(be, part, cotangents[0]) for k, part in zip(known, parts, strict=True))


def _residual(be: Backend, value: Array, terms: Arrays, others: Arrays, m: Array, rounded: Array) -> Residual:
    """What is left of X = the sum of the terms, and the `others`, answers too, less X.

    The step is never smaller than rounding of `rounded`; an answer that is zero is measured against M.
    """
    terms, steps = (
        tuple(be.astype(x, be.dtype_name(value)) for x in xs) for xs in (terms, (x - value for x in others))
    )
    *scaled, _ = scale_to_unit(be, value, *terms)
    left = sum(scaled[1:]) - scaled[0]
    backward = norm(be, left) / safe_divisor(be, sum(norm(be, x) for x in scaled))
    size, e = scaled_norm(be, rounded)
    first = steps[0] + be.ldexp(rounding_probe(be, value, size), broadcast_scalar(e))
    return Residual(backward, (be.xp.concat([first, *steps[1:]], axis=1),), zero=(m,))


def _mirror(be: Backend, m: Array, *, alike: bool = False, draw: int = 0) -> Callable[[Array], Array]:
    """x ↦ Q x P for x shaped like m, with reflections Q and P: its own inverse, after which every rounding error is another.

    For Hermitian x `alike`.
    """

    def reflect(x: Array, axis: int) -> Array:
        v = random_probe(be, x.shape[-2], 2 * (draw + 1), m)[..., 2 * draw + axis][..., None]
        v = v / broadcast_scalar(norm(be, v))
        return x - 2 * v @ (adjoint(v) @ x)

    return lambda x: adjoint(reflect(adjoint(reflect(x, 0)), 0 if alike else 1))


# So many mirrors for matrices with at most so many singular values.
_DRAWS, _SMALL = 3, 64


def _mirror_parts(
    be: Backend, m: Array, lower: Threshold, upper: Threshold, rtol: float, method: str, draw: int = 0
) -> _Parts:
    """The `_Parts` by the same method, from Q M P: what rounding does to them differs from what it does to those of M."""
    svd = _by_svd(be, m, method)
    m = to_double(be, m) if svd else m
    rounding = rank_tolerance(be, m, None)
    over = _excess(be, m, scale_to_unit(be, m)[1])
    mirror, down = _mirror(be, m, draw=draw), be.ldexp(m, broadcast_scalar(-over))
    small = [be.ldexp(be.astype(_stack(be, m, t), be.dtype_name(be.real(m))), -over) for t in (lower, upper)]
    low: Threshold = 0.0 if isinstance(lower, float) and lower == 0 else small[0]
    if svd:
        parts = _parts_by_svd(be, mirror(down), low, small[1], rtol, rounding)
    else:
        parts = cast("_Parts", _parts(be, mirror(down), low, small[1], rtol).value)
    clip, sign, within, beyond = (mirror(x) for x in parts)
    clip, within, beyond = (be.ldexp(x, broadcast_scalar(over)) for x in (clip, within, beyond))
    return _Parts(clip, sign, within, beyond)


def _parts_by_svd(be: Backend, m: Array, lower: Threshold, upper: Array, rtol: float, rounding: float) -> _Parts:
    def soft(values: Array, least: Array, most: Array) -> Array:
        return _shrink(be, values, most)

    def rest(values: Array, least: Array, most: Array) -> Array:
        return _shrink(be, values, least)

    def unit(values: Array, least: Array, most: Array) -> Array:
        kept = (values > rtol * values[:, :1]) & (least > 0)
        return be.xp.where(kept, be.xp.ones_like(values), 0 * values)

    clip_values = _clip_values(be, rtol, rounding)
    if isinstance(lower, float):
        x, over = _rebuild(be, m, (clip_values, soft), lower, upper)
        return _Parts(x, be.xp.zeros_like(m), m, over)
    return _Parts(*_rebuild(be, m, (clip_values, unit, rest, soft), lower, upper))


def _soft_residual(be: Backend, value: tuple[Array], m: Array, *, t: Threshold, method: str) -> Residual:
    """X = M - clip(M, 0, t), those of the mirrored M."""
    parts = _mirror_parts(be, m, 0.0, t, rank_tolerance(be, m, None), method)
    return _residual(be, value[0], (m, -parts.clip), (parts.over,), m, m)


def _clip_residual(
    be: Backend,
    value: tuple[Array],
    m: Array,
    *,
    lower: Threshold,
    upper: Threshold,
    rtol: float | None,
    method: str,
) -> Residual:
    """X = l msign(M) + soft(M, l) - soft(M, u), those of the mirrored M."""
    zero, lifts = rank_tolerance(be, m, rtol), not (isinstance(lower, float) and lower == 0)
    # Rounding turns the singular vectors of what is lifted by any factor. A small matrix may hide most of that by chance.
    draws = _DRAWS if lifts and min(m.shape[-2:]) <= _SMALL else 1
    parts, *more = (_mirror_parts(be, m, lower, upper, zero, method, draw) for draw in range(draws))
    terms: Arrays = (parts.within, -parts.over)
    if lifts:
        terms = (broadcast_scalar(_stack(be, m, lower)) * parts.sign, *terms)
    # Where `upper` is lost in the rounding of M, what is zero might as well be `upper`.
    high, rounding = _stack(be, m, upper), rank_tolerance(be, m, None)
    (clip, e), (size, f) = scaled_norm(be, parts.clip), scaled_norm(be, m)
    full = math.sqrt(min(m.shape[-2:]) - 0.5)
    doubt = (be.ldexp(high, -f) < rounding * size) & (clip < full * be.ldexp(high, -e))
    rounded = be.xp.where(broadcast_scalar(doubt), value[0] / be.eps(m), value[0])
    return _residual(be, value[0], terms, (parts.clip, *(x.clip for x in more)), m, rounded)


def mclip(
    M: Array,
    lower: float | Array = 0.0,
    upper: float | Array = 1.0,
    *,
    rtol: float | None = None,
    method: str = "auto",
    errors: str = "raise",
) -> Array:
    """Clip the singular values of M to an interval.

    mclip(M) = U min(max(S, lower), upper) Vᴴ for the singular value decomposition M = U S Vᴴ; the singular vectors do
    not change. With ``lower=0`` this is the matrix nearest to M, in the Frobenius norm, of spectral norm at most
    `upper`.

    Parameters
    ----------
    M : array_like, shape (..., n, m)
        Matrices of any shape and rank, of dtype float32, float64, complex64 or complex128. Matrices in float16 and
        bfloat16 are computed in float32.
    lower : float or array_like, shape (...), default 0.0
        The smallest singular value of the result, at least 0: one number, or an array with one for every member, whose
        axes broadcast with the leading axes of M. Arrays are converted to the precision of M.
    upper : float or array_like, shape (...), default 1.0
        The largest singular value of the result, at least `lower`; it may be infinite.
    rtol : float, optional
        Where lower > 0, a singular value of at most ``rtol`` times the largest one counts as zero and stays zero,
        because rounding has decided its singular vectors. With lower = 0 it has no effect. Default: max(n, m) eps.
    method : {"auto", "svd", "sign"}, default "auto"
        How the result is computed:

        - "svd": by a singular value decomposition in double precision; results in float32 are then right to the last
          digits.
        - "sign": by matrix products alone, with the projector (I - sign(H - upper I))/2 on the singular values below
          `upper`, where M = O H is the polar decomposition; in the spirit of [1]_, but with the projector on both
          sides.
        - "auto": "svd" on a CPU, "sign" on an accelerator.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no answer: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    X : array, shape (..., n, m)
        The matrices with clipped singular values, in the library, on the device and in the dtype of M.

    Raises
    ------
    SpectrumError
        If thresholds in arrays do not satisfy 0 ≤ lower ≤ upper, or a member holds NaN or infinity, and
        ``errors="raise"``.
    ValueError
        If thresholds that are numbers do not satisfy 0 ≤ lower ≤ upper, a shape does not fit, or an option has a value
        other than those above.
    TypeError
        If M is not a dense array of numbers of a supported dtype, or a threshold in an array is not real.

    See Also
    --------
    soft_threshold : Subtract a threshold from the singular values.
    msign : Replace all singular values by 1.
    psd_project : Clip the eigenvalues of a Hermitian matrix at 0.

    Notes
    -----
    On a CPU one singular value decomposition is several times as fast as two signs. On an accelerator the signs are
    products.

    With lower = 0, singular values that are zero to working precision stay zero even where `upper` is below max(n, m)
    eps times the largest one.

    Derivatives, also those by the thresholds, exist to any order where no singular value is at a threshold; one that
    equals a threshold up to rounding is treated as if it were above it. With lower = 0 they exist at every rank; with
    lower > 0 see `msign` for zero singular values. A member of a batch gives the same bits as in a call by itself.
    Under ``jax.jit`` no error can be raised: a member without an answer is NaN.

    The backward error of `certify` is ‖X + soft(M, upper) - M‖ / (‖X‖ + ‖soft(M, upper)‖ + ‖M‖); with lower > 0 it is
    the same for the equation X = lower msign(M) + soft(M, lower) - soft(M, upper).

    References
    ----------
    .. [1] J. Su, "Singular value clipping mclip by msign, part 1" (in Chinese), 2025, https://kexue.fm/archives/11006.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import mclip
    >>> M = np.array([[3.0, 0.0], [4.0, 0.0], [0.0, 0.25]])
    >>> X = mclip(M, 0.0, 1.0)
    >>> X.round(12)
    array([[0.6 , 0.  ],
           [0.8 , 0.  ],
           [0.  , 0.25]])
    >>> bool(np.linalg.norm(mclip(X) - X) < 1e-15)
    True
    """
    return MCLIP(M, lower=lower, upper=upper, rtol=rtol, method=method, errors=errors)


MCLIP = public_function(
    mclip,
    "(n,m)->(n,m)",
    solve=_clip,
    residual=_clip_residual,
    tangent=_clip_tangent,
    cotangent=_clip_cotangent,
    choices={"method": _METHODS},
    halves=True,
    numbers=("lower", "upper"),
)


def soft_threshold(M: Array, t: float | Array, *, method: str = "auto", errors: str = "raise") -> Array:
    """Subtract a threshold from the singular values of M.

    soft(M, t) = U max(S - t, 0) Vᴴ for the singular value decomposition M = U S Vᴴ. This is the X that minimises ‖X -
    M‖²/2 + t ‖X‖ with the Frobenius norm first and the nuclear norm second: the proximal step of matrix completion and
    of robust principal component analysis [1]_.

    Parameters
    ----------
    M : array_like, shape (..., n, m)
        Matrices of any shape and rank, of dtype float32, float64, complex64 or complex128. Matrices in float16 and
        bfloat16 are computed in float32.
    t : float or array_like, shape (...)
        The threshold, at least 0: one number, or an array with one for every member, whose axes broadcast with the
        leading axes of M. Arrays are converted to the precision of M.
    method : {"auto", "svd", "sign"}, default "auto"
        How the result is computed; the methods are those of `mclip`, with `t` as the threshold.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no answer: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    X : array, shape (..., n, m)
        The matrices with reduced singular values, in the library, on the device and in the dtype of M.

    Raises
    ------
    SpectrumError
        If a threshold in an array is negative or NaN, or a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a threshold that is a number is negative, a shape does not fit, or an option has a value other than those
        above.
    TypeError
        If M is not a dense array of numbers of a supported dtype, or a threshold in an array is not real.

    See Also
    --------
    mclip : Clip the singular values.
    psd_project : Clip the eigenvalues of a Hermitian matrix at 0.

    Notes
    -----
    The two thresholds complement each other: ``soft_threshold(M, t) + mclip(M, 0, t)`` is M.

    Derivatives, also those by t, exist at every rank and to any order where no singular value is at t; one that equals
    t up to rounding is treated as if it were above it. A member of a batch gives the same bits as in a call by itself.
    Under ``jax.jit`` no error can be raised: a member without an answer is NaN.

    The backward error of `certify` is ‖X + clip(M, 0, t) - M‖ / (‖X‖ + ‖clip(M, 0, t)‖ + ‖M‖).

    References
    ----------
    .. [1] J.-F. Cai, E. J. Candès and Z. Shen, "A singular value thresholding algorithm for matrix completion", SIAM J.
       Optim. 20(4), 2010, pp. 1956-1982, doi:10.1137/080738970.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import mclip, soft_threshold
    >>> M = np.array([[3.0, 0.0], [4.0, 0.0], [0.0, 0.25]])
    >>> X = soft_threshold(M, 1.0)
    >>> X.round(12)
    array([[2.4, 0. ],
           [3.2, 0. ],
           [0. , 0. ]])
    >>> bool(np.linalg.norm(X + mclip(M, 0.0, 1.0) - M) < 1e-14)
    True
    """
    return SOFT_THRESHOLD(M, t=t, method=method, errors=errors)


SOFT_THRESHOLD = public_function(
    soft_threshold,
    "(n,m)->(n,m)",
    solve=_soft,
    residual=_soft_residual,
    tangent=_soft_tangent,
    cotangent=_soft_cotangent,
    choices={"method": _METHODS},
    halves=True,
    numbers=("t",),
)


def _hermitian_part(be: Backend, a: Array) -> tuple[Array, Array]:
    """(a + aᴴ)/2 scaled to size, and the log2 of its scale; scaled before, or the sum might overflow or lose its last digits."""
    a, e = scale_to_unit(be, a)
    h, f = scale_to_unit(be, hermitian(a))
    return h, e + f


def _project(be: Backend, a: Array, *, method: str) -> Solution:
    h, e = _hermitian_part(be, a)
    (x,) = _halves(be, h, method, (1,))
    return solution(be, (be.ldexp(hermitian(x), broadcast_scalar(e)),))


def _halves(be: Backend, h: Array, method: str, signs: tuple[int, ...] = (1, -1)) -> Arrays:
    """The positive parts of H and of -H."""
    if method == "eigh" or (method == "auto" and be.on_cpu(h)):
        values, vectors = be.eigh(h)
        sizes = (be.xp.where(s * values > 0, s * values, 0 * values) for s in signs)
        return tuple((vectors * x[:, None, :]) @ adjoint(vectors) for x in sizes)
    below, above = _sides(be, h)
    return tuple(above @ h @ above if s > 0 else -below @ h @ below for s in signs)


def _project_tangent(be: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, **_: Any) -> Arrays:
    """dX = R dH R + C + Cᴴ with |H| C + C |H| = X dH P: between eigenvalues of both signs it takes λᵢ / (λᵢ - λⱼ) times dH."""
    (h, e), dh = _hermitian_part(be, arrays[0]), hermitian(tangents[0])
    x = be.ldexp(value[0], broadcast_scalar(-e))  # no derivative changes with the scale
    unit, size = eye(be, h), safe_divisor(be, _size(be, be.stop_gradient(h)))
    s = _side(be, h + broadcast_scalar(32 * be.eps(h) * size) * unit)
    r, rest = (unit + s) / 2, (unit - s) / 2
    c = r @ sylvester_symmetric(be, hermitian(2 * x - h), x @ dh @ rest) @ rest
    return (r @ dh @ r + c + adjoint(c),)


def _project_residual(be: Backend, value: tuple[Array], a: Array, *, method: str) -> Residual:
    """X = (H + |H|)/2, and X by the same method from Q H Q."""
    h, e = _hermitian_part(be, a)
    mirror = _mirror(be, h, alike=True)
    other, rest = (mirror(x) for x in _halves(be, hermitian(mirror(h)), method))
    terms = tuple(be.ldexp(x, broadcast_scalar(e - 1)) for x in (h, other + rest))
    return _residual(be, value[0], terms, (be.ldexp(other, broadcast_scalar(e)),), a, a)


def psd_project(A: Array, *, method: str = "auto", errors: str = "raise") -> Array:
    """Project a matrix on the Hermitian positive semidefinite matrices.

    psd(A) = (H + abs(H))/2 with H = (A + Aᴴ)/2: the positive semidefinite matrix nearest to A in the Frobenius norm
    [1]_.

    Parameters
    ----------
    A : array_like, shape (..., n, n)
        Square matrices, Hermitian or not, of dtype float32, float64, complex64 or complex128.
    method : {"auto", "eigh", "sign"}, default "auto"
        How the projection is computed:

        - "eigh": by eigenvectors.
        - "sign": by matrix products alone, as R H R with the projector R = (I + sign(H))/2.
        - "auto": "eigh" on a CPU, "sign" on an accelerator.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no answer: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    X : array, shape (..., n, n)
        The projections, in the library, on the device and in the dtype of A.

    Raises
    ------
    SpectrumError
        If a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a shape does not fit, or an option has a value other than those above.
    TypeError
        If A is not a dense array of numbers of a supported dtype.

    See Also
    --------
    matrix_abs : The absolute value.
    mclip : Clip singular values.

    Notes
    -----
    The cost on a CPU is that of one Hermitian eigenvalue problem.

    Derivatives exist to any order where H is nonsingular. A zero eigenvalue is treated as a positive one, so the
    derivative at a positive semidefinite A is the identity on Hermitian directions. A member of a batch gives the same
    bits as in a call by itself. Under ``jax.jit`` no error can be raised: a member without an answer is NaN.

    The backward error of `certify` is ‖X - (H + H sign(H))/2‖ / (‖X‖ + ‖H/2‖ + ‖H sign(H)/2‖).

    References
    ----------
    .. [1] N. J. Higham, "Computing a nearest symmetric positive semidefinite matrix", Linear Algebra Appl. 103, 1988,
       pp. 103-118, doi:10.1016/0024-3795(88)90223-6.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import psd_project
    >>> A = np.array([[1.0, 2.0], [2.0, 1.0]])
    >>> X = psd_project(A)
    >>> X.round(12)
    array([[1.5, 1.5],
           [1.5, 1.5]])
    >>> bool(np.linalg.norm(X - psd_project(-A) - A) < 1e-14)
    True
    """
    return PSD_PROJECT(A, method=method, errors=errors)


PSD_PROJECT = public_function(
    psd_project,
    "(n,n)->(n,n)",
    solve=_project,
    residual=_project_residual,
    tangent=_project_tangent,
    cotangent=_project_tangent,
    choices={"method": ("auto", "eigh", "sign")},
)
