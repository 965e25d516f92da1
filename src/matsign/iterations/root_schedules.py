"""Coefficients for inverse roots by products alone: P ← P q(P)^r and G ← G q(P) lead to P = I and G P^{-1/r}. No arrays.

An eigenvalue y^r of P becomes (y q(y^r))^r. So each q is designed such that y q(y^r) is nearest to 1 on the image of the interval
of y under the steps before it: the design of `minimax` for the powers y, y^{1+r}, y^{1+2r}, … of which r = 2 are the odd ones.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from matsign.iterations.minimax import CUSHION, cached_design

# Degrees of q, which need one product and two, and of the last polynomial.
_DEGREES = (2, 4)
_LAST_DEGREES = (2, 4, 6, 9, 12, 15)
# More steps than the smallest interval in double precision needs.
_MOST_STEPS = 60
_POINTS = 1000
# How much larger an error between these points may be.
_BETWEEN = 1e-4
# Below this width of the interval of y^r the design is a Taylor polynomial.
_NARROW = 1e-2
# Coefficients in powers of z in [-1, 1] may have this sum: it multiplies rounding errors.
_LARGEST_SUM = 100


class Stage(NamedTuple):
    """The coefficients of q, and the interval of y after this step."""

    q: tuple[float, ...]
    low: float
    high: float


class RootSchedule(NamedTuple):
    """The coefficients of each q in powers of P, and those of the last polynomial.

    After the steps the eigenvalues of P lie in [low, high]. The last polynomial is one in powers of the
    z in [-1, 1] that corresponds to this interval. `products` counts those for one matrix.
    """

    steps: tuple[tuple[float, ...], ...]
    last: tuple[float, ...]
    low: float
    high: float
    products: int


@cached_design
def root_schedule(order: int, lower: float, tol: float, room: float) -> RootSchedule:
    """The cheapest steps that bring y from [lower, 1] to within `tol` of 1, with an error of at most `room` in each.

    >>> from matsign.iterations.root_schedules import root_schedule
    >>> import numpy as np
    >>> steps, last, low, high, products = root_schedule(4, 0.1, 1e-6, 1e-15)
    >>> y = 0.1
    >>> for q in steps:
    ...     y *= sum(c * y ** (4 * k) for k, c in enumerate(q))
    >>> z = (2 * y**4 - low - high) / (high - low)
    >>> bool(abs(y * np.polyval(last[::-1], z) - 1) < 1e-6)
    True
    """
    plans = [_finish(order, degree, lower, max(tol, 4 * room), room) for degree in _DEGREES]
    return min(plans, key=lambda plan: plan.products)


def _finish(order: int, degree: int, lower: float, tol: float, room: float) -> RootSchedule:
    """The cheapest schedule of steps of one degree and a last polynomial."""
    stages = [Stage((), lower, 1 + room), *narrow(order, degree, lower, tol, room)]
    # q(P), its r-th power, the product with P, and from the second step on that with G.
    each = degree // 2 + powering_products(order) + 2
    plans = []
    for k, stage in enumerate(stages[:-1]):
        low, high = stage.low**order, stage.high**order
        for last in _LAST_DEGREES:
            polynomial, error = last_polynomial(order, last, low, high)
            small = sum(abs(c) for c in polynomial) < _LARGEST_SUM * high ** (-1 / order)
            if last == degree or (error <= tol and small):
                products = each * k + polynomial_products(last)
                steps = tuple(stage.q for stage in stages[1 : k + 1])
                plans.append((error > tol, RootSchedule(steps, polynomial, low, high, products)))
    complete = [plan for fails, plan in plans if not fails] or [plans[-1][1]]
    return min(complete, key=lambda plan: plan.products)


def narrow(order: int, degree: int, lower: float, tol: float, room: float) -> list[Stage]:
    """Steps of one degree, each the best on the interval that the steps before it leave."""
    stages: list[Stage] = []
    low, high = lower, 1 + room
    while max(1 - low, high - 1) > tol and len(stages) < _MOST_STEPS:
        fit, error = _minimax(order, degree, max(low / high, CUSHION))
        q = [c / high ** (1 + order * k) for k, c in enumerate(fit)]
        low, high = sum(c * low ** (1 + order * k) for k, c in enumerate(q)), 1 + error
        centre = 2 / (low + high)
        low, high = low * centre * (1 - room), high * centre * (1 + room)
        stages.append(Stage(tuple(c * centre for c in q), low, high))
    return stages


@cached_design
def last_polynomial(order: int, degree: int, low: float, high: float) -> tuple[tuple[float, ...], float]:
    """The minimax polynomial of x^{-1/r} on [low, high], relative to it, in powers of z, and its error."""
    z = -np.cos(np.linspace(0, math.pi, _POINTS))
    root = ((low + high + (high - low) * z) / 2) ** (1 / order)
    basis = np.polynomial.chebyshev.chebvander(z, degree) * root[:, None]
    fit, error = _exchange(basis)
    return tuple(np.polynomial.chebyshev.cheb2poly(fit).tolist()), error


def polynomial_products(degree: int) -> int:
    """The products of matrices for a polynomial of one of the degrees above (`powers_of`)."""
    powers = powers_of(degree)
    return powers - 1 + degree // powers - 1


def powers_of(degree: int) -> int:
    """How many powers a polynomial is evaluated from, in blocks of this degree (Paterson & Stockmeyer 1973)."""
    return 2 if degree <= max(_DEGREES) else 3


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
    fit, error = _exchange(y[:, None] ** exponents)
    return tuple(fit.tolist()), error


def _exchange(basis: np.ndarray) -> tuple[np.ndarray, float]:
    """The combination of the columns that is nearest to 1 in the largest error, and this error, by Remez exchange."""
    count = basis.shape[1] + 1
    points = np.linspace(0, _POINTS - 1, count).round().astype(int)
    signs = (-1.0) ** np.arange(count)
    for _ in range(50):
        rows = np.concatenate([basis[points], signs[:, None]], axis=1)
        fit = np.linalg.lstsq(rows, np.ones(count), rcond=None)[0][:-1]
        gap = basis @ fit - 1
        exchanged = extrema(gap, count)
        if exchanged is None or (exchanged == points).all():
            break
        points = exchanged
    return fit, float(np.abs(gap).max()) * (1 + _BETWEEN)


def _taylor(order: int, degree: int, ratio: float) -> tuple[tuple[float, ...], float]:
    """As `_minimax` on a narrow interval, where rounding hides its extrema: the Taylor polynomial of z^{-1/r} at the middle."""
    middle = ((1 + ratio) / 2) ** order
    series, coefficient = np.polynomial.Polynomial([0.0]), middle ** (-1 / order)
    for k in range(degree + 1):
        series = series + coefficient * np.polynomial.Polynomial([-1.0, 1 / middle]) ** k
        coefficient *= -(1 / order + k) / (k + 1)
    return tuple(series.coef.tolist()), max(abs(y * float(series(y**order)) - 1) for y in (ratio, 1.0))


def extrema(gap: np.ndarray, count: int) -> np.ndarray | None:
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
