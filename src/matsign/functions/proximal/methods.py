"""How singular values are clipped: by signs of Hermitian matrices, from products alone, or by singular vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.members import Solution, solution
from matsign.core.operations import apply
from matsign.core.tolerances import rank_tolerance
from matsign.functions.polar.methods import orthogonalise
from matsign.functions.polar.polar import MSIGN
from matsign.linalg.stacks import adjoint, broadcast_scalar, can_widen, eye, hermitian, scale_to_unit, to_double

Threshold = Any  # a float, or one number for each member of a stack


Change = Callable[..., Array]


METHODS = ("auto", "svd", "sign")


# The numbers of these dtypes are below 2 to this power.
_TOP = {"float32": 128, "float64": 1024}


def check_interval(*, lower: Threshold, upper: Threshold, **_: Any) -> None:
    """Raise a ValueError for thresholds in the wrong order; the solver checks the entries of arrays."""
    if isinstance(lower, float) and isinstance(upper, float) and not lower <= upper:
        raise ValueError(f"mclip: lower must be at most upper, got lower={lower:g}, upper={upper:g}")


def solve_clip(
    backend: Backend, m: Array, *, lower: Threshold, upper: Threshold, rtol: float | None, method: str
) -> Solution:
    if isinstance(lower, float) and isinstance(upper, float):
        return _clip_between(backend, m, lower, upper, rtol, method)
    low, high = threshold_stack(backend, m, lower), threshold_stack(backend, m, upper)
    valid = (low >= 0) & (low <= high)
    # NaN makes both comparisons false; the first wrong threshold is the one to report.
    wrong = backend.xp.where((low >= 0) & ((low <= high) | backend.xp.isnan(high)), high, low)
    lower = lower if isinstance(lower, float) else backend.xp.where(valid, low, 0 * backend.ones(m))
    high = backend.xp.where(valid, high, backend.xp.maximum(backend.ones(m), threshold_stack(backend, m, lower)))
    return with_threshold_failures(backend, _clip_between(backend, m, lower, high, rtol, method), valid, wrong)


def _clip_between(
    backend: Backend, m: Array, lower: Threshold, upper: Threshold, rtol: float | None, method: str
) -> Solution:
    rtol = rank_tolerance(backend, m, rtol)
    if takes_svd(backend, m, method):
        return solution(
            backend,
            rebuild(
                backend,
                m,
                (value_clipper(backend, rtol, rank_tolerance(backend, to_double(backend, m), None)),),
                lower,
                upper,
            ),
        )
    result = clipped_parts(backend, m, lower, upper, rtol)
    return result._replace(value=result.value[:1])


def value_clipper(backend: Backend, rtol: float, rounding: float) -> Change:
    """What clipping does to singular values."""

    def clip_values(values: Array, least: Array, most: Array) -> Array:
        inside, top = backend.xp.maximum(backend.xp.minimum(values, most), least), values[:, :1]
        # With lower = 0 small values stay; but where `upper` is below rounding of M, zeros would become as large as
        # all the rest.
        is_zero = backend.xp.where(least > 0, ~(values > rtol * top), (values > most) & ~(values > rounding * top))
        return backend.xp.where(is_zero, 0 * values, inside)

    return clip_values


def shrink(backend: Backend, values: Array, t: Array) -> Array:
    return backend.xp.where(values > t, values - backend.xp.minimum(t, values), 0 * values)


def clipped_parts(backend: Backend, m: Array, lower: Threshold, upper: Threshold, rtol: float) -> Solution:
    """`_clip_by_signs` of tall or wide matrices, where lower may be 0 in some members and not in others."""
    if isinstance(lower, float):
        return _on_short_side(backend, m, lambda m: _clip_by_signs(backend, m, lower, upper, rtol))
    return backend.masked_cond(
        lower > 0,
        lambda m, low, high: _on_short_side(backend, m, lambda m: _clip_by_signs(backend, m, low, high, rtol)),
        lambda m, low, high: _on_short_side(backend, m, lambda m: _clip_by_signs(backend, m, 0.0, high, rtol)),
        m,
        lower,
        threshold_stack(backend, m, upper),
    )


def solve_soft(backend: Backend, m: Array, *, t: Threshold, method: str) -> Solution:
    if isinstance(t, float):
        return soft_at(backend, m, t, method)
    valid = t >= 0
    return with_threshold_failures(
        backend, soft_at(backend, m, backend.xp.where(valid, t, 0 * backend.ones(m)), method), valid, t
    )


def soft_at(backend: Backend, m: Array, t: Threshold, method: str) -> Solution:
    if takes_svd(backend, m, method):
        return solution(backend, rebuild(backend, m, (lambda values, t: shrink(backend, values, t),), t))
    return _on_short_side(backend, m, lambda m: _soft_by_signs(backend, m, threshold_stack(backend, m, t)))


def threshold_stack(backend: Backend, m: Array, threshold: Threshold) -> Array:
    """A threshold as one number for each member of m."""
    return threshold * backend.ones(m) if isinstance(threshold, float) else threshold


def with_threshold_failures(backend: Backend, result: Solution, valid: Array, wrong: Array) -> Solution:
    """The solution, with a failure where the thresholds are invalid."""
    invalid = solution(backend, result.value, Failure.THRESHOLDS, ~valid, result.iterations, wrong)
    return invalid._replace(failure=backend.xp.where(valid, result.failure, invalid.failure))


def takes_svd(backend: Backend, m: Array, method: str) -> bool:
    """An SVD that is fast costs at most a fourth of two signs; but in single precision its error is eight times theirs."""
    return method == "svd" or (method == "auto" and backend.fast_svd(m) and can_widen(backend, m))


def rebuild(backend: Backend, m: Array, changes: tuple[Change, ...], *thresholds: Threshold) -> Arrays:
    """U change(S, thresholds) Vᴴ for each of the changes, in double precision where there is one."""
    kind = backend.dtype_name(m)
    m, e = scale_to_unit(backend, to_double(backend, m))
    u, values, vh = backend.svd(m)
    # In the caller's units, as scaled thresholds might overflow. Only values at the end of the range are scaled down, with
    # their thresholds.
    over = excess(backend, m, e)
    near = [
        backend.ldexp(backend.astype(threshold_stack(backend, m, t), backend.dtype_name(values)), -over)[:, None]
        for t in thresholds
    ]
    values = backend.ldexp(values, (e - over)[:, None])
    results = (backend.ldexp((u * f(values, *near)[:, None, :]) @ vh, broadcast_scalar(over)) for f in changes)
    return tuple(backend.astype(x, kind) for x in results)


def excess(backend: Backend, m: Array, e: Array) -> Array:
    """The power of two by which entries below 2^e may overflow in products with orthogonal matrices."""
    return backend.xp.maximum(e - (_TOP[backend.dtype_name(m.real)] - 16), 0 * e)


def _on_short_side(backend: Backend, m: Array, f: Any) -> Solution:
    if m.shape[-2] >= m.shape[-1]:
        return f(m)
    result: Solution = f(adjoint(m))
    parts = [adjoint(x) for x in result.value]
    return result._replace(value=ClippedParts(*parts) if isinstance(result.value, ClippedParts) else tuple(parts))


def resolved_sign(backend: Backend, h: Array) -> Array:
    """The sign of a Hermitian matrix by products alone, resolved as far as rounding allows."""
    result: Solution = backend.shared_function(
        orthogonalise, backend, h, tol=None, rtol=backend.eps(h), method="polynomial"
    )
    return hermitian(result.value[0])


def polar_factors(backend: Backend, m: Array, rtol: float) -> tuple[Solution, Array, Array]:
    """The solution with O, H, and a bound on the largest eigenvalue of H."""
    result: Solution = backend.shared_function(orthogonalise, backend, m, tol=None, rtol=rtol, method="polynomial")
    h = hermitian(adjoint(result.value[0]) @ m)
    return result, h, eigenvalue_bound(backend, h)


def eigenvalue_bound(backend: Backend, h: Array) -> Array:
    """The largest eigenvalue of a Hermitian matrix from above, by a factor of at most n^1/4."""
    h, e = scale_to_unit(backend, h)
    return backend.ldexp(backend.xp.sqrt(backend.norm(h @ h)), e)


def scaled_threshold(backend: Backend, bound: Array, e: Array, top: Array) -> Array:
    """A threshold in units of 2^e, at most `top`."""
    return backend.xp.minimum(backend.ldexp(bound, -e), top)


class ClippedParts(NamedTuple):
    """clip(M, lower, upper), and its parts: msign(M), soft(M, lower) where lower > 0, and soft(M, upper)."""

    clip: Array
    sign: Array
    within: Array
    over: Array


def _clip_by_signs(backend: Backend, m: Array, lower: Threshold, upper: Threshold, rtol: float) -> Solution:
    """The `ClippedParts`, for a `lower` that is the float 0 or positive in every member."""
    lifts, upper = not isinstance(lower, float) or lower > 0, threshold_stack(backend, m, upper)
    m, e = scale_to_unit(backend, m)
    result, h, top = polar_factors(backend, m, rtol if lifts else backend.eps(m))
    (o,), unit = result.value, eye(backend, h)
    bound = scaled_threshold(backend, upper, e, top)
    high = broadcast_scalar(bound) * unit
    below, above = spectral_projectors(backend, h - high)
    over = backend.xp.where(broadcast_scalar(bound < top), above @ (h - high) @ above, backend.xp.zeros_like(h))
    kept = high + below @ (h - high) @ below
    # The squared error of R is eps² of the largest σ: too much only where the threshold is below eps times that.
    below_rounding = broadcast_scalar((bound < backend.eps(m) * top) & (top > 0))
    at_upper = broadcast_scalar(backend.xp.minimum(upper, _largest_number(backend, m))) * o
    x, within = o @ kept, m
    if lifts:
        lower = threshold_stack(backend, m, lower)
        low = broadcast_scalar(scaled_threshold(backend, lower, e, top)) * unit
        _, above = spectral_projectors(backend, h - low)
        x, within = o @ (above @ (kept - low) @ above), o @ (above @ (h - low) @ above)
    x, within, over = (backend.ldexp(y, broadcast_scalar(e)) for y in (x, within, o @ over))
    if lifts:
        x = x + broadcast_scalar(lower) * o
    return result._replace(value=ClippedParts(backend.xp.where(below_rounding, at_upper, x), o, within, over))


def spectral_projectors(backend: Backend, h: Array) -> tuple[Array, Array]:
    """The projectors on the negative and on the positive eigenvalues."""
    s, unit = resolved_sign(backend, h), eye(backend, h)
    return (unit - s) / 2, (unit + s) / 2


def _largest_number(backend: Backend, m: Array) -> Array:
    return backend.ldexp(backend.ones(m), _TOP[backend.dtype_name(m.real)] - 1 + 0 * backend.int_zeros(m))


def _soft_by_signs(backend: Backend, m: Array, t: Array) -> Solution:
    m, e = scale_to_unit(backend, m)
    result, h, top = polar_factors(backend, m, backend.eps(m))
    bound = scaled_threshold(backend, t, e, top)
    gap = h - broadcast_scalar(bound) * eye(backend, h)
    _, above = spectral_projectors(backend, gap)
    x = backend.ldexp(result.value[0] @ above @ gap @ above, broadcast_scalar(e))
    return result._replace(value=(backend.xp.where(broadcast_scalar(bound < top), x, backend.xp.zeros_like(x)),))


def sign_in_rule(backend: Backend, h: Array) -> Array:
    """The sign of a Hermitian matrix, for a derivative rule."""
    s = hermitian(apply(backend, MSIGN.operation, h, tol=None, rtol=0.0, method="auto")[0])
    # Eigenvalues near zero turn its eigenvectors; in the Hermitian part this error is quadratic, and each step squares it.
    for _ in range(2):
        s = hermitian(s @ (3 * eye(backend, s) - s @ s)) / 2
    return s
