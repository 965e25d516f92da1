"""Means A #_t B of semidefinite matrices, if the range of one contains that of the other: limits of means of definite ones.

With A = K Kᴴ on the larger range and B = L Lᴴ on the smaller one the mean is K (M Mᴴ)^t Kᴴ, M = K⁺L.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.members import Solution, as_details, solution
from matsign.linalg.stacks import adjoint, safe_divisor

MIDPOINT = 0.5


def swap_members(backend: Backend, swap: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """(b, a) for the members in `swap`: the mean is symmetric in its arguments, and the better conditioned one comes first."""
    mask = swap.reshape((len(swap),) + (1,) * (a.ndim - 1))
    return backend.xp.where(mask, b, a), backend.xp.where(mask, a, b)


def weights_of_second(backend: Backend, swap: Array, t: float | Array, like: Array) -> Array | None:
    """t, or 1 - t for the members in `swap`, (B,); None for the number 1/2."""
    one = backend.ones(like)
    return None if isinstance(t, float) and t == MIDPOINT else backend.xp.where(swap, (1 - t) * one, t * one)


def between(backend: Backend, k: Array, m: Array, t: Array | None, rank: Array | None = None) -> Array:
    """K (M Mᴴ)^t Kᴴ, the mean of K Kᴴ and K M Mᴴ Kᴴ, without squares, which would lose digits.

    All but `rank` singular values of M are zero: a small power would magnify their rounding errors.
    """
    u, values, _ = backend.svd(m)
    if rank is not None and t is not None:
        index = backend.astype(backend.asarray(np.arange(values.shape[-1]), values), backend.dtype_name(values))
        values = backend.xp.where(index < rank[:, None], values, backend.xp.zeros_like(values))
    powers = backend.xp.sqrt(values) if t is None else values ** t[:, None]
    half = k @ u * powers[:, None, :]
    return half @ adjoint(half)


class Factor(NamedTuple):
    """L of a semidefinite L Lᴴ, the inverse of L on its range, the projector on the range, smallest and number of eigenvalues."""

    factor: Array
    inverse: Array
    projector: Array
    least: Array
    rank: Array
    semidefinite: Array


def factor_on_range(backend: Backend, a: Array, rtol: float) -> Factor:
    values, v = backend.eigh(a)
    xp, top = backend.xp, backend.xp.maximum(-values[:, :1], values[:, -1:])
    kept = values > rtol * top
    root = xp.sqrt(xp.where(kept, values, xp.ones_like(values)))
    ones = xp.astype(kept, values.dtype)
    base = v * ones[:, None, :]
    least = xp.min(xp.where(kept, values, math.inf * xp.ones_like(values)), axis=-1) / safe_divisor(backend, top[:, 0])
    return Factor(
        base * root[:, None, :],
        adjoint(base / root[:, None, :]),
        base @ adjoint(base),
        least,
        xp.sum(ones, axis=-1),
        values[:, 0] >= -rtol * top[:, 0],
    )


class FactoredPair(NamedTuple):
    """The factor on the larger range, that on the smaller one, and whether this is that of A."""

    large: Factor
    small: Factor
    swap: Array

    def semidefinite(self) -> Array:
        return self.large.semidefinite & self.small.semidefinite


def factor_pair(backend: Backend, a: Array, b: Array, rtol: float) -> FactoredPair:
    """Of matrices that are exactly Hermitian; of equal ranges the better conditioned one is `large`."""
    f, g = factor_on_range(backend, a, rtol), factor_on_range(backend, b, rtol)
    swap = (g.rank > f.rank) | ((g.rank == f.rank) & (g.least > f.least))
    both = [swap_members(backend, swap, x, y) for x, y in zip(f, g, strict=True)]
    large, small = (Factor(*(pair[i] for pair in both)) for i in (0, 1))
    return FactoredPair(large, small, swap)


def semidefinite_mean(backend: Backend, a: Array, b: Array, rtol: float, t: float | Array) -> tuple[Solution, Array]:
    """The mean of semidefinite matrices where one range contains the other, and whether both are semidefinite.

    On the larger range one of the two is definite, and the mean is the limit of the means of definite matrices.
    """
    xp, pair = backend.xp, factor_pair(backend, a, b, rtol)
    first, second, swap = pair
    outside = second.factor - first.projector @ second.factor
    share = backend.norm(outside) / safe_divisor(backend, backend.norm(second.factor))
    # Rounding turns a range by eps over its smallest nonzero eigenvalue.
    angle = 10 * a.shape[-1] * backend.eps(a) * (1 + 1 / xp.minimum(first.least, second.least))
    weights = weights_of_second(backend, swap, t, a)
    value = between(backend, first.factor, first.inverse @ second.factor, weights, second.rank)
    result = solution(
        backend, (value,), Failure.RANGES_DIFFER, ~(share <= xp.maximum(angle, rtol * backend.ones(a))), detail=share
    )
    return result, pair.semidefinite()


def refuse_indefinite(
    backend: Backend,
    result: Solution,
    pair: tuple[Array, Array],
    units: tuple[Array, Array],
    rtol: float,
    *,
    always: bool,
) -> Solution:
    """A failure with the eigenvalue of an indefinite Hermitian matrix, in 2^units: if the other one is singular, or `always`."""
    spectra = [backend.eigh(x)[0] for x in pair]
    tops = [backend.xp.max(backend.xp.abs(values), axis=-1) for values in spectra]
    singular = [(abs(values) <= rtol * top[:, None]).any(-1) for values, top in zip(spectra, tops, strict=True)]
    refused = singular[0] | singular[1] | always
    reasons = (Failure.INDEFINITE_B, Failure.INDEFINITE_A)  # that of A is told where both are
    for values, top, e, reason in zip(spectra[::-1], tops[::-1], units[::-1], reasons, strict=True):
        bad = refused & (values[:, 0] < -rtol * top)
        failure = reason.where(backend, bad, result.failure)
        detail = as_details(backend, pair[0], backend.ldexp(values[:, 0], e))
        result = result._replace(failure=failure, detail=backend.xp.where(bad[:, None], detail, result.detail))
    return result
