"""The best rational approximations of x^{-1/r} with few poles, c + b x + Σ residue/(x + pole): all poles are negative numbers.

With m poles the error on [low, 1] is about 4 sin(π/r) exp(-π² (2m + 2)/log(16/low)), as for r = 2 (Nakatsukasa & Freund 2016).
Poles and coefficients are found by Newton's method for errors of alternating signs at 2m + 3 points, and these by Remez exchange.
For the approach see also Hale, Higham & Trefethen 2008.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from matsign.iterations.minimax import cached_design
from matsign.iterations.root_schedules import extrema

_POINTS = 2000
_MOST_EXCHANGES = 30
# The largest error is at most this much larger than the smallest one at the points.
_EVEN = 1.02
# The largest change of the logarithm of a pole in a step.
_LARGEST_CHANGE = 1.0
# An error of this share of the goal or more is close to it, within so many attempts.
_CLOSE, _MOST_ATTEMPTS = 0.98, 6
# Below this error rounding hides the extrema.
_SMALLEST_ERROR = 1e-11


class RationalRoot(NamedTuple):
    """constant + slope x + Σ residue/(x + pole), within `error` of x^{-1/r} on [low, 1] relative to it."""

    constant: float
    slope: float
    residues: tuple[float, ...]
    poles: tuple[float, ...]
    low: float
    error: float


@cached_design
def widest_root(order: int, count: int, goal: float) -> RationalRoot | None:
    """The approximation with `count` poles and an error of at most `goal` that has the smallest `low`; None if there is none.

    >>> from matsign.iterations.rational_roots import widest_root
    >>> root = widest_root(4, 3, 1e-4)
    >>> x = root.low
    >>> value = root.constant + root.slope * x + sum(c / (x + s) for c, s in zip(root.residues, root.poles))
    >>> abs(value * x**0.25 - 1) < 1e-4 and root.low < 0.01
    True
    """
    best = None
    size, decay = 4 * math.sin(math.pi / order), math.pi**2 * (2 * count + 2)
    for _ in range(_MOST_ATTEMPTS if goal > _SMALLEST_ERROR else 0):
        root = rational_root(order, count, min(16 * math.exp(-decay / math.log(max(size / goal, 2.0))), 0.5))
        if root is None:
            break
        best = root if root.error <= goal else best
        if _CLOSE * goal <= root.error <= goal:
            break
        # The error at this place tells the factor that it differs by from the formula.
        size = root.error * math.exp(decay / math.log(16 / root.low)) * (1 + (1 - _CLOSE) / 2)
    return best


@cached_design
def rational_root(order: int, count: int, low: float) -> RationalRoot | None:
    """The best approximation with `count` poles on [low, 1]; None if rounding hides it."""
    x = np.exp(np.linspace(math.log(low), 0, _POINTS))
    weight, poles = x ** (1 / order), _poles_of_square_root(count, low)
    signs = (-1.0) ** np.arange(2 * count + 3)
    points = np.round((1 - np.cos(np.linspace(0, math.pi, len(signs)))) / 2 * (_POINTS - 1)).astype(int)
    coefficients = np.linalg.lstsq(_terms(x, weight, poles), np.ones(_POINTS), rcond=None)[0]
    for _ in range(_MOST_EXCHANGES):
        coefficients, poles = _newton_step(x[points], weight[points], signs, coefficients, poles)
        gap = _terms(x, weight, poles) @ coefficients - 1
        found = extrema(gap, len(signs))
        if not np.isfinite(gap).all() or (coefficients[2:] <= 0).any():
            return None
        if found is not None:
            points, error = found, float(np.abs(gap).max())
            if error < _EVEN * np.abs(gap[points]).min():
                constant, slope, *residues = coefficients.tolist()
                return RationalRoot(constant, slope, tuple(residues), tuple(poles.tolist()), low, error)
    return None


def _newton_step(
    x: np.ndarray, weight: np.ndarray, signs: np.ndarray, coefficients: np.ndarray, poles: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients and poles nearer to an error of alternating signs; the unknowns are logarithms of the poles."""
    terms, count = _terms(x, weight, poles), len(coefficients)
    by_pole = -weight[:, None] * coefficients[2:] * poles / (x[:, None] + poles) ** 2
    rows = np.concatenate([terms, by_pole, signs[:, None]], axis=1)
    change = np.linalg.lstsq(rows, 1 - terms @ coefficients, rcond=None)[0][:-1]
    change *= min(1.0, _LARGEST_CHANGE / np.abs(change[count:]).max())
    return coefficients + change[:count], poles * np.exp(change[count:])


def _terms(x: np.ndarray, weight: np.ndarray, poles: np.ndarray) -> np.ndarray:
    """The columns 1, x and 1/(x + pole), times the weight."""
    return weight[:, None] * np.column_stack([np.ones_like(x), x, 1 / (x[:, None] + poles)])


def _poles_of_square_root(count: int, low: float) -> np.ndarray:
    """About those of the best approximation for r = 2, low sc(u)² for the elliptic function sc; for a small `low` it is sinh."""
    quarter = math.log(4 / math.sqrt(low))
    u = quarter * np.arange(1, 2 * count, 2) / (2 * count + 2)
    return np.where(u < quarter / 2, low * np.sinh(u) ** 2, 1 / np.sinh(quarter - u) ** 2)
