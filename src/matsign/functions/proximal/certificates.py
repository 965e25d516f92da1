"""Residuals of clipped matrices: comparison with the same result computed with other rounding errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.public import Residual
from matsign.core.tolerances import rank_tolerance
from matsign.functions.proximal.methods import (
    ClippedParts,
    Threshold,
    clipped_parts,
    excess,
    rebuild,
    shrink,
    takes_svd,
    threshold_stack,
    value_clipper,
)
from matsign.linalg.stacks import (
    adjoint,
    broadcast_scalar,
    random_probe,
    rounding_probe,
    safe_divisor,
    scale_to_unit,
    scaled_norm,
    to_double,
)


def gap_of_sum(backend: Backend, value: Array, terms: Arrays, others: Arrays, m: Array, rounded: Array) -> Residual:
    """The residual of X = the sum of the terms, with the steps from X to the `others`, which are answers, too.

    The first step includes rounding of `rounded`; an answer that is zero is compared with M.
    """
    terms, steps = (
        tuple(backend.astype(x, backend.dtype_name(value)) for x in xs) for xs in (terms, (x - value for x in others))
    )
    *scaled, _ = scale_to_unit(backend, value, *terms)
    left = sum(scaled[1:]) - scaled[0]
    backward = backend.norm(left) / safe_divisor(backend, sum(backend.norm(x) for x in scaled))
    size, e = scaled_norm(backend, rounded)
    first = steps[0] + backend.ldexp(rounding_probe(backend, value, size), broadcast_scalar(e))
    return Residual(backward, (backend.xp.concat([first, *steps[1:]], axis=1),), zero=(m,))


def reflections(backend: Backend, m: Array, *, alike: bool = False, draw: int = 0) -> Callable[[Array], Array]:
    """x ↦ Q x P for x shaped like m, with random reflections Q and P: its own inverse, and it changes every rounding error.

    With `alike`, for Hermitian x, P = Q.
    """

    def reflect(x: Array, axis: int) -> Array:
        v = random_probe(backend, x.shape[-2], 2 * (draw + 1), m)[..., 2 * draw + axis][..., None]
        v = v / broadcast_scalar(backend.norm(v))
        return x - 2 * v @ (adjoint(v) @ x)

    return lambda x: adjoint(reflect(adjoint(reflect(x, 0)), 0 if alike else 1))


# So many pairs of reflections for matrices with at most _SMALL singular values.
_DRAWS, _SMALL = 3, 64


def _reflected_parts(
    backend: Backend, m: Array, lower: Threshold, upper: Threshold, rtol: float, method: str, draw: int = 0
) -> ClippedParts:
    """The `ClippedParts` by the same method from Q M P, whose rounding errors differ from those for M."""
    svd = takes_svd(backend, m, method)
    m = to_double(backend, m) if svd else m
    rounding = rank_tolerance(backend, m, None)
    over = excess(backend, m, scale_to_unit(backend, m)[1])
    reflect, scaled = reflections(backend, m, draw=draw), backend.ldexp(m, broadcast_scalar(-over))
    low, high = [
        backend.ldexp(backend.astype(threshold_stack(backend, m, t), backend.dtype_name(m.real)), -over)
        for t in (lower, upper)
    ]
    low = 0.0 if isinstance(lower, float) and lower == 0 else low
    if svd:
        parts = _parts_by_svd(backend, reflect(scaled), low, high, rtol, rounding)
    else:
        parts = cast("ClippedParts", clipped_parts(backend, reflect(scaled), low, high, rtol).value)
    clip, sign, within, beyond = (reflect(x) for x in parts)
    clip, within, beyond = (backend.ldexp(x, broadcast_scalar(over)) for x in (clip, within, beyond))
    return ClippedParts(clip, sign, within, beyond)


def _parts_by_svd(
    backend: Backend, m: Array, lower: Threshold, upper: Array, rtol: float, rounding: float
) -> ClippedParts:
    def soft(values: Array, least: Array, most: Array) -> Array:
        return shrink(backend, values, most)

    def rest(values: Array, least: Array, most: Array) -> Array:
        return shrink(backend, values, least)

    def unit(values: Array, least: Array, most: Array) -> Array:
        kept = (values > rtol * values[:, :1]) & (least > 0)
        return backend.xp.where(kept, backend.xp.ones_like(values), 0 * values)

    clip_values = value_clipper(backend, rtol, rounding)
    if isinstance(lower, float):
        x, over = rebuild(backend, m, (clip_values, soft), lower, upper)
        return ClippedParts(x, backend.xp.zeros_like(m), m, over)
    return ClippedParts(*rebuild(backend, m, (clip_values, unit, rest, soft), lower, upper))


def soft_residual(backend: Backend, value: tuple[Array], m: Array, *, t: Threshold, method: str) -> Residual:
    """X = M - clip(M, 0, t), with the clip of the reflected M."""
    parts = _reflected_parts(backend, m, 0.0, t, rank_tolerance(backend, m, None), method)
    return gap_of_sum(backend, value[0], (m, -parts.clip), (parts.over,), m, m)


def clip_residual(
    backend: Backend,
    value: tuple[Array],
    m: Array,
    *,
    lower: Threshold,
    upper: Threshold,
    rtol: float | None,
    method: str,
) -> Residual:
    """X = l msign(M) + soft(M, l) - soft(M, u), with the terms of the reflected M."""
    zero, lifts = rank_tolerance(backend, m, rtol), not (isinstance(lower, float) and lower == 0)
    # Rounding may turn the singular vectors of lifted values by any angle, of which one pair may show little by chance.
    draws = _DRAWS if lifts and min(m.shape[-2:]) <= _SMALL else 1
    parts, *more = (_reflected_parts(backend, m, lower, upper, zero, method, draw) for draw in range(draws))
    terms: Arrays = (parts.within, -parts.over)
    if lifts:
        terms = (broadcast_scalar(threshold_stack(backend, m, lower)) * parts.sign, *terms)
    # Where `upper` is below rounding of M, zero singular values might as well be `upper`.
    high, rounding = threshold_stack(backend, m, upper), rank_tolerance(backend, m, None)
    (clip, e), (size, f) = scaled_norm(backend, parts.clip), scaled_norm(backend, m)
    full = math.sqrt(min(m.shape[-2:]) - 0.5)
    doubt = (backend.ldexp(high, -f) < rounding * size) & (clip < full * backend.ldexp(high, -e))
    rounded = backend.xp.where(broadcast_scalar(doubt), value[0] / backend.eps(m), value[0])
    return gap_of_sum(backend, value[0], terms, (parts.clip, *(x.clip for x in more)), m, rounded)
