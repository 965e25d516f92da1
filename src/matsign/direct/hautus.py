"""Uncontrollable modes: eigenvalues λ of (a, e) for which [a - λ e, c] has deficient row rank (Hautus 1969).

Rows are scaled to length 1 and blocks to norm 1, so that units do not matter. A multiple eigenvalue is computed only to a root
of eps, where the matrix is not singular; so λ is corrected: the smallest singular value σ, with the singular vectors u and v,
changes by -Re uᴴ e v dλ, and is zero at λ + σ / uᴴ e v to first order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from matsign._typing import NDArray as Array

_CORRECTIONS = 8


class Mode(NamedTuple):
    """An eigenvalue, and the relative change of the matrices that makes it uncontrollable."""

    value: complex
    distance: float


def independence(m: Array) -> float:
    """The ratio of the smallest to the largest singular value of a wide matrix with rows scaled to length 1."""
    return _smallest_singular(m)[-1]


def limit(m: Array, eps: float) -> float:
    """The independence of rows below which they are dependent to working precision."""
    return 4 * max(m.shape) * eps


def weakest_mode(
    a: Array, e: Array, c: Array, suspects: Iterable[complex], project: Callable[[complex], complex | None]
) -> Mode | None:
    """Of the modes near the suspects the one nearest to uncontrollable; `project` maps λ to the allowed set or to None."""
    modes = [_refine_mode(a, e, c, x, project) for x in suspects]
    return min((x for x in modes if x is not None), key=lambda mode: mode.distance, default=None)


def _refine_mode(
    a: Array, e: Array, c: Array, value: complex, project: Callable[[complex], complex | None]
) -> Mode | None:
    best, at = None, project(value)
    for _ in range(_CORRECTIONS):
        if at is None:
            break
        size = (np.linalg.norm(a) + abs(at) * np.linalg.norm(e)) or 1.0
        sizes = np.abs(c).max(axis=0, initial=0)
        u, v, value, distance = _smallest_singular(
            np.hstack([(a - at * e) / size, c / np.where(sizes > 0, sizes, 1.0)])
        )
        if best is not None and not distance < best.distance:
            break
        best = Mode(at, distance)
        slope = complex(u.conj() @ e @ v[: a.shape[1]]) / size
        at = project(complex(at + value / slope)) if slope else None
    return best


def _smallest_singular(m: Array) -> tuple[Array, Array, float, float]:
    """(u, v, σ, σ / σmax) for the smallest singular value σ of m with rows scaled to length 1: σ = uᴴ m v."""
    sizes = np.abs(m).max(axis=1)  # whose squares do not underflow
    if not sizes.all():
        return np.where(sizes == 0, 1.0, 0.0), np.zeros(m.shape[1]), 0.0, 0.0
    sizes = sizes * np.linalg.norm(m / sizes[:, None], axis=1)
    u, values, vh = np.linalg.svd(m / sizes[:, None], full_matrices=len(m) > m.shape[1])
    if len(values) < len(m):
        return u[:, -1] / sizes, np.zeros(m.shape[1]), 0.0, 0.0
    return u[:, -1] / sizes, vh[-1].conj(), float(values[-1]), float(values[-1] / values[0])
