"""Coefficients for inverse roots by products alone: P ← P q(P)^r and G ← G q(P) lead to P = I and G P^{-1/r}. No arrays.

An eigenvalue y^r of P becomes (y q(y^r))^r. So each q is designed such that y q(y^r) is nearest to 1 on the image of the interval
of y under the steps before it: the design of `minimax` for the powers y, y^{1+r}, y^{1+2r}, … of which r = 2 are the odd ones.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from matsign.iterations.minimax import CUSHION, cached_design

# Degrees of q, which need one product and two.
_DEGREES = (2, 4)
# More steps than the smallest interval in double precision needs.
_MOST_STEPS = 60
_POINTS = 1000
# How much larger an error between these points may be.
_BETWEEN = 1e-4
# Below this width of the interval of y^r the design is a Taylor polynomial.
_NARROW = 1e-2


class RootSchedule(NamedTuple):
    """The coefficients of each q, and the number of products for one matrix."""

    steps: tuple[tuple[float, ...], ...]
    products: int


@cached_design
def root_schedule(order: int, lower: float, tol: float, room: float) -> RootSchedule:
    """The cheapest steps that bring y from [lower, 1] to within `tol` of 1, with an error of at most `room` in each.

    >>> from matsign.iterations.root_schedules import root_schedule
    >>> steps, products = root_schedule(4, 0.1, 1e-6, 1e-15)
    >>> y = 0.1
    >>> for q in steps:
    ...     y *= sum(c * y ** (4 * k) for k, c in enumerate(q))
    >>> abs(y - 1) < 1e-6
    True
    """
    plans = (_greedy(order, degree, lower, max(tol, 4 * room), room) for degree in _DEGREES)
    return min(plans, key=lambda plan: plan.products)


def _greedy(order: int, degree: int, lower: float, tol: float, room: float) -> RootSchedule:
    steps: list[tuple[float, ...]] = []
    low, high = lower, 1 + room
    while max(1 - low, high - 1) > tol and len(steps) < _MOST_STEPS:
        fit, error = _minimax(order, degree, max(low / high, CUSHION))
        q = [c / high ** (1 + order * k) for k, c in enumerate(fit)]
        low, high = sum(c * low ** (1 + order * k) for k, c in enumerate(q)), 1 + error
        centre = 2 / (low + high)
        low, high = low * centre * (1 - room), high * centre * (1 + room)
        steps.append(tuple(c * centre for c in q))
    # q(P), its r-th power and the product with P; the last step needs q alone, and the first no product with G.
    each = degree // 2 + powering_products(order) + 2
    return RootSchedule(tuple(steps), max(0, each * len(steps) - powering_products(order) - 2))


def powering_products(k: int) -> int:
    """The products of a k-th power by squarings."""
    return k.bit_length() - 1 + bin(k).count("1") - 1


@cached_design
def _minimax(order: int, degree: int, ratio: float) -> tuple[tuple[float, ...], float]:
    """The coefficients of y^{1+kr} for the nearest polynomial to 1 on [ratio, 1], and its error, by Remez exchange."""
    if (1 - ratio) * order < _NARROW:
        return _taylor(order, degree, ratio)
    exponents = 1 + order * np.arange(degree + 1)
    y = ratio + (1 - ratio) * (1 - np.cos(np.linspace(0, math.pi, _POINTS))) / 2
    powers = y[:, None] ** exponents
    count = degree + 2
    points = np.linspace(0, _POINTS - 1, count).round().astype(int)
    signs = (-1.0) ** np.arange(count)
    for _ in range(50):
        rows = np.concatenate([powers[points], signs[:, None]], axis=1)
        fit = np.linalg.lstsq(rows, np.ones(count), rcond=None)[0][:-1]
        gap = powers @ fit - 1
        exchanged = _extrema(gap, count)
        if exchanged is None or (exchanged == points).all():
            break
        points = exchanged
    return tuple(fit.tolist()), float(np.abs(gap).max()) * (1 + _BETWEEN)


def _taylor(order: int, degree: int, ratio: float) -> tuple[tuple[float, ...], float]:
    """As `_minimax` on a narrow interval, where rounding hides its extrema: the Taylor polynomial of z^{-1/r} at the middle."""
    middle = ((1 + ratio) / 2) ** order
    series, coefficient = np.polynomial.Polynomial([0.0]), middle ** (-1 / order)
    for k in range(degree + 1):
        series = series + coefficient * np.polynomial.Polynomial([-1.0, 1 / middle]) ** k
        coefficient *= -(1 / order + k) / (k + 1)
    return tuple(series.coef.tolist()), max(abs(y * float(series(y**order)) - 1) for y in (ratio, 1.0))


def _extrema(gap: np.ndarray, count: int) -> np.ndarray | None:
    """The places of `count` largest errors of alternating signs; None if rounding hides them."""
    chosen: list[int] = []
    turns = np.flatnonzero(np.diff(np.sign(np.diff(gap)))) + 1
    for k in (0, *turns.tolist(), len(gap) - 1):
        if chosen and gap[k] * gap[chosen[-1]] > 0:
            chosen[-1] = max(chosen[-1], k, key=lambda i: abs(gap[i]))
        else:
            chosen.append(k)
    while len(chosen) > count:
        chosen.pop(0 if abs(gap[chosen[0]]) < abs(gap[chosen[-1]]) else -1)
    return np.array(chosen) if len(chosen) == count else None
