"""Modes that nothing moves or sees: eigenvalues λ of (a, e) for which [a - λ e, c] loses its row rank (Hautus 1969).

Rows are compared at length 1, the blocks at norm 1, because rank has no units. A multiple eigenvalue is computed to a root of the
working precision only, where the matrix is not singular at all; so λ is corrected: the smallest singular value σ, with the
singular vectors u and v, moves by -Re uᴴ e v dλ, and is zero at λ + σ / uᴴ e v.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from matsign._typing import NDArray as Array

_CORRECTIONS = 8


class Mode(NamedTuple):
    """An eigenvalue, and by what relative change of the matrices nothing moves it."""

    value: complex
    distance: float


def independence(m: Array) -> float:
    """The smallest singular value of a wide matrix beside the largest, its rows brought to length 1."""
    return _smallest_singular(m)[-1]


def limit(m: Array, eps: float) -> float:
    """What of the independence of the rows of a matrix may be rounding."""
    return 4 * max(m.shape) * eps


def weakest_mode(
    a: Array, e: Array, c: Array, suspects: Iterable[complex], project: Callable[[complex], complex | None]
) -> Mode | None:
    """Of the modes near the suspects the one that c is nearest to not moving; `onto` says where λ may be, None for nowhere."""
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
    """(u, v, uᴴ m v, how small that is beside the largest) with m v as short as can be when the rows have length 1."""
    sizes = np.abs(m).max(axis=1)  # whose squares do not underflow
    if not sizes.all():
        return np.where(sizes == 0, 1.0, 0.0), np.zeros(m.shape[1]), 0.0, 0.0
    sizes = sizes * np.linalg.norm(m / sizes[:, None], axis=1)
    u, values, vh = np.linalg.svd(m / sizes[:, None], full_matrices=len(m) > m.shape[1])
    if len(values) < len(m):
        return u[:, -1] / sizes, np.zeros(m.shape[1]), 0.0, 0.0
    return u[:, -1] / sizes, vh[-1].conj(), float(values[-1]), float(values[-1] / values[0])
