"""How singular values are clipped: by signs of Hermitian matrices, which are products alone, or by singular vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from matsign._typing import Arrays
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.members import Solution, solution
from matsign.core.operations import apply
from matsign.core.tolerances import rank_tolerance
from matsign.functions.polar import MSIGN
from matsign.functions.polar_methods import orthogonalise
from matsign.linalg.stacks import (
    adjoint,
    broadcast_scalar,
    can_widen,
    eye,
    hermitian,
    norm,
    scale_to_unit,
    to_double,
)

Array = Any


Threshold = Any  # a float, or one number for each member of a stack


Change = Callable[..., Array]


METHODS = ("auto", "svd", "sign")


# The exponents at which the dtypes end.
_TOP = {"float32": 128, "float64": 1024}


def solve_clip(
    be: Backend, m: Array, *, lower: Threshold, upper: Threshold, rtol: float | None, method: str
) -> Solution:
    if isinstance(lower, float) and isinstance(upper, float):
        if not lower <= upper:
            raise ValueError(f"mclip: lower must be at most upper, got lower={lower:g}, upper={upper:g}")
        return _clip_between(be, m, lower, upper, rtol, method)
    low, high = threshold_stack(be, m, lower), threshold_stack(be, m, upper)
    sound = (low >= 0) & (low <= high)
    # Where one is NaN both comparisons are false, and the first that is wrong is shown.
    wrong = be.xp.where((low >= 0) & ((low <= high) | be.xp.isnan(high)), high, low)
    lower = lower if isinstance(lower, float) else be.xp.where(sound, low, 0 * be.ones(m))
    high = be.xp.where(sound, high, be.xp.maximum(be.ones(m), threshold_stack(be, m, lower)))
    return _with_sound(be, _clip_between(be, m, lower, high, rtol, method), sound, wrong)


def _clip_between(
    be: Backend, m: Array, lower: Threshold, upper: Threshold, rtol: float | None, method: str
) -> Solution:
    rtol = rank_tolerance(be, m, rtol)
    if takes_svd(be, m, method):
        return solution(
            be, rebuild(be, m, (value_clipper(be, rtol, rank_tolerance(be, to_double(be, m), None)),), lower, upper)
        )
    found = clipped_parts(be, m, lower, upper, rtol)
    return found._replace(value=found.value[:1])


def value_clipper(be: Backend, rtol: float, rounding: float) -> Change:
    """What clipping does to singular values."""

    def clip_values(values: Array, least: Array, most: Array) -> Array:
        inside, top = be.xp.maximum(be.xp.minimum(values, most), least), values[:, :1]
        # With lower = 0 what is nearly zero stays what it is; only where `upper` is lost in the rounding of M would
        # zeros be made as large as all the rest.
        nothing = be.xp.where(least > 0, ~(values > rtol * top), (values > most) & ~(values > rounding * top))
        return be.xp.where(nothing, 0 * values, inside)

    return clip_values


def shrink(be: Backend, values: Array, t: Array) -> Array:
    return be.xp.where(values > t, values - be.xp.minimum(t, values), 0 * values)


def clipped_parts(be: Backend, m: Array, lower: Threshold, upper: Threshold, rtol: float) -> Solution:
    """`_clip_by_signs` of matrices tall or wide, with lower = 0 in some members and not in others."""
    if isinstance(lower, float):
        return _on_short_side(be, m, lambda m: _clip_by_signs(be, m, lower, upper, rtol))
    return be.masked_cond(
        lower > 0,
        lambda m, low, high: _on_short_side(be, m, lambda m: _clip_by_signs(be, m, low, high, rtol)),
        lambda m, low, high: _on_short_side(be, m, lambda m: _clip_by_signs(be, m, 0.0, high, rtol)),
        m,
        lower,
        threshold_stack(be, m, upper),
    )


def solve_soft(be: Backend, m: Array, *, t: Threshold, method: str) -> Solution:
    if isinstance(t, float):
        return soft_at(be, m, t, method)
    sound = t >= 0
    return _with_sound(be, soft_at(be, m, be.xp.where(sound, t, 0 * be.ones(m)), method), sound, t)


def soft_at(be: Backend, m: Array, t: Threshold, method: str) -> Solution:
    if takes_svd(be, m, method):
        return solution(be, rebuild(be, m, (lambda values, t: shrink(be, values, t),), t))
    return _on_short_side(be, m, lambda m: _soft_by_signs(be, m, threshold_stack(be, m, t)))


def threshold_stack(be: Backend, m: Array, threshold: Threshold) -> Array:
    """A threshold as one number for each member of m."""
    return threshold * be.ones(m) if isinstance(threshold, float) else threshold


def _with_sound(be: Backend, found: Solution, sound: Array, wrong: Array) -> Solution:
    """What was found, and a failure where the thresholds made no sense."""
    marked = solution(be, found.value, Failure.THRESHOLDS, ~sound, found.iterations, wrong)
    return marked._replace(failure=be.xp.where(sound, found.failure, marked.failure))


def takes_svd(be: Backend, m: Array, method: str) -> bool:
    """On a CPU LAPACK costs a fourth of two signs or less; but its single precision is eight times as wrong as they are."""
    return method == "svd" or (method == "auto" and be.on_cpu(m) and can_widen(be, m))


def rebuild(be: Backend, m: Array, changes: tuple[Change, ...], *thresholds: Threshold) -> Arrays:
    """U change(S, thresholds) Vᴴ for each of the changes, in double precision where there is one."""
    kind = be.dtype_name(m)
    m, e = scale_to_unit(be, to_double(be, m))
    u, values, vh = be.svd(m)
    # In true size, where the thresholds are: scaled the other way they might overflow. Only what lies at the end of the range
    # is taken a little smaller, with its thresholds.
    over = excess(be, m, e)
    near = [be.ldexp(be.astype(threshold_stack(be, m, t), be.dtype_name(values)), -over)[:, None] for t in thresholds]
    values = be.ldexp(values, (e - over)[:, None])
    found = (be.ldexp((u * f(values, *near)[:, None, :]) @ vh, broadcast_scalar(over)) for f in changes)
    return tuple(be.astype(x, kind) for x in found)


def excess(be: Backend, m: Array, e: Array) -> Array:
    """By how many powers of two entries below 2^e are too large for sums of their products with orthogonal matrices."""
    return be.xp.maximum(e - (_TOP[be.dtype_name(m.real)] - 16), 0 * e)


def _on_short_side(be: Backend, m: Array, f: Any) -> Solution:
    if m.shape[-2] >= m.shape[-1]:
        return f(m)
    found: Solution = f(adjoint(m))
    turned = [adjoint(x) for x in found.value]
    return found._replace(value=ClippedParts(*turned) if isinstance(found.value, ClippedParts) else tuple(turned))


def resolved_sign(be: Backend, h: Array) -> Array:
    """The sign of a Hermitian matrix by products alone, resolved as far as rounding allows."""
    found: Solution = be.shared_function(orthogonalise, be, h, tol=None, rtol=be.eps(h), method="polynomial")
    return hermitian(found.value[0])


def polar_factors(be: Backend, m: Array, rtol: float) -> tuple[Solution, Array, Array]:
    """How O was found, H, and a bound on its largest eigenvalue."""
    found: Solution = be.shared_function(orthogonalise, be, m, tol=None, rtol=rtol, method="polynomial")
    h = hermitian(adjoint(found.value[0]) @ m)
    return found, h, eigenvalue_bound(be, h)


def eigenvalue_bound(be: Backend, h: Array) -> Array:
    """The largest eigenvalue of a Hermitian matrix from above, by a factor of at most n^1/4."""
    h, e = scale_to_unit(be, h)
    return be.ldexp(be.xp.sqrt(norm(be, h @ h)), e)


def scaled_threshold(be: Backend, bound: Array, e: Array, top: Array) -> Array:
    """A threshold in units of 2^e: one above all there is counts as if it were the largest."""
    return be.xp.minimum(be.ldexp(bound, -e), top)


class ClippedParts(NamedTuple):
    """clip(M, lower, upper) by signs, and what it is made of: msign(M), soft(M, lower) where lower > 0, and soft(M, upper)."""

    clip: Array
    sign: Array
    within: Array
    over: Array


def _clip_by_signs(be: Backend, m: Array, lower: Threshold, upper: Threshold, rtol: float) -> Solution:
    """With a `lower` that is either 0, a float, or positive in every member: the `ClippedParts`."""
    lifts, upper = not isinstance(lower, float) or lower > 0, threshold_stack(be, m, upper)
    m, e = scale_to_unit(be, m)
    found, h, top = polar_factors(be, m, rtol if lifts else be.eps(m))
    (o,), unit = found.value, eye(be, h)
    bound = scaled_threshold(be, upper, e, top)
    high = broadcast_scalar(bound) * unit
    below, above = spectral_projectors(be, h - high)
    over = be.xp.where(broadcast_scalar(bound < top), above @ (h - high) @ above, be.xp.zeros_like(h))
    kept = high + below @ (h - high) @ below
    # What is squared away is eps² of the largest σ: too much only where the threshold is itself lost in its rounding.
    lost = broadcast_scalar((bound < be.eps(m) * top) & (top > 0))
    capped = broadcast_scalar(be.xp.minimum(upper, _largest_number(be, m))) * o
    x, within = o @ kept, m
    if lifts:
        lower = threshold_stack(be, m, lower)
        low = broadcast_scalar(scaled_threshold(be, lower, e, top)) * unit
        _, above = spectral_projectors(be, h - low)
        x, within = o @ (above @ (kept - low) @ above), o @ (above @ (h - low) @ above)
    x, within, over = (be.ldexp(y, broadcast_scalar(e)) for y in (x, within, o @ over))
    if lifts:
        x = x + broadcast_scalar(lower) * o
    return found._replace(value=ClippedParts(be.xp.where(lost, capped, x), o, within, over))


def spectral_projectors(be: Backend, h: Array) -> tuple[Array, Array]:
    """The projectors on what lies below zero and what lies above."""
    s, unit = resolved_sign(be, h), eye(be, h)
    return (unit - s) / 2, (unit + s) / 2


def _largest_number(be: Backend, m: Array) -> Array:
    return be.ldexp(be.ones(m), _TOP[be.dtype_name(m.real)] - 1 + 0 * be.int_zeros(m))


def _soft_by_signs(be: Backend, m: Array, t: Array) -> Solution:
    m, e = scale_to_unit(be, m)
    found, h, top = polar_factors(be, m, be.eps(m))
    bound = scaled_threshold(be, t, e, top)
    gap = h - broadcast_scalar(bound) * eye(be, h)
    _, above = spectral_projectors(be, gap)
    x = be.ldexp(found.value[0] @ above @ gap @ above, broadcast_scalar(e))
    return found._replace(value=(be.xp.where(broadcast_scalar(bound < top), x, be.xp.zeros_like(x)),))


def sign_in_rule(be: Backend, h: Array) -> Array:
    """The sign of a Hermitian matrix, in a rule."""
    s = hermitian(apply(be, MSIGN.operation, h, tol=None, rtol=0.0, method="auto")[0])
    # Eigenvalues near zero leave it turned, which symmetry makes a quadratic error; each step squares that.
    for _ in range(2):
        s = hermitian(s @ (3 * eye(be, s) - s @ s)) / 2
    return s
