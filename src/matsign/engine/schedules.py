"""Coefficients of odd polynomial steps x ← a x + b x³ + c x⁵, as Python floats. No arrays.

A schedule is designed once for an interval [l, 1] of singular values (or moduli of real eigenvalues), in plain numbers,
by equioscillation: each step is the odd quintic nearest to 1 on the interval that the steps before it left. Choosing each
step best for its own interval is best for all of them together (Amsel, Persson, Musco & Gower 2025, "The Polar Express").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import NamedTuple, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def designed_once(design: Callable[P, R]) -> Callable[P, R]:
    """As functools.cache, which torch.compile looks through: it would follow the design again, for minutes."""
    known: dict[object, R] = {}

    @wraps(design)
    def designed(*args: P.args, **kwargs: P.kwargs) -> R:
        key = (args, tuple(sorted(kwargs.items())))
        if key not in known:
            known[key] = design(*args, **kwargs)
        return known[key]

    return designed


class Step(NamedTuple):
    """x ← a x + b x³ + c x⁵."""

    a: float
    b: float
    c: float = 0.0

    def __call__(self, x: float) -> float:
        return x * (self.a + x * x * (self.b + x * x * self.c))


# The last steps: order three at 1, and the fall-back when an interval is already tiny.
PADE = Step(15 / 8, -10 / 8, 3 / 8)
POLISH = Step(1.5, -0.5)

# 0 and 1 attract, √(2/3) between them does not: what was lifted goes to 1, what was noise goes to 0 cubically.
PURIFY = Step(0.0, 2.5, -1.5)
DIVIDE = math.sqrt(2 / 3)
# Purification takes over once the signal lies in this interval: from there no signal falls below the divide.
LIFTED = (0.86, 1.14)

# Below this fraction of the upper end the minimax step does not look: it would send large values to 8 l, and they would
# come back with their rounding error multiplied. A wider fit at the low end costs about one step and no digits.
CUSHION = 0.1

# Room above the interval, in units of rounding per step: x = u (1 + eps) is otherwise outside, where a quintic explodes. Sums of
# equal terms round the same way every time, so that long ones need more.
HEADROOM = 8.0


def headroom(eps: float, terms: int) -> float:
    """By what share a step with sums of this many terms may end too high; a power of two, so that few schedules do for all."""
    return eps * max(HEADROOM, 2.0 ** math.ceil(math.log2(max(terms, 1))) / 4)


def minimax_quintic(lower: float, upper: float) -> tuple[Step, float]:
    """The odd quintic nearest to 1 on [lower, upper], and its error: four points of equal error, by Remez exchange."""
    if upper - lower < 1e-3 * upper:
        # The exchange loses its points to rounding here, and order three at the middle is as good.
        middle = 0.5 * (lower + upper)
        step = Step(PADE.a / middle, PADE.b / middle**3, PADE.c / middle**5)
        return step, max(abs(1 - step(lower)), abs(1 - step(upper)))
    q, r = (3 * lower + upper) / 4, (lower + 3 * upper) / 4
    step, error, last = PADE, 1.0, math.inf
    for _ in range(100):
        step, error = _interpolate(lower, q, r, upper)
        if abs(error - last) <= 1e-15:
            break
        last = error
        root = math.sqrt(max(9 * step.b**2 - 20 * step.a * step.c, 0.0))
        q, r = (math.sqrt((-3 * step.b + s * root) / (10 * step.c)) for s in (-1, 1))
    return step, abs(error)


def _interpolate(*points: float) -> tuple[Step, float]:
    """a, b, c, e with p(x_i) = 1 - (-1)^i e at four points, by elimination."""
    rows = [[x, x**3, x**5, (-1.0) ** i, 1.0] for i, x in enumerate(points)]
    for i in range(4):
        pivot = max(range(i, 4), key=lambda k: abs(rows[k][i]))
        rows[i], rows[pivot] = rows[pivot], rows[i]
        for k in range(i + 1, 4):
            factor = rows[k][i] / rows[i][i]
            rows[k] = [v - factor * w for v, w in zip(rows[k], rows[i], strict=True)]
    x = [0.0] * 4
    for i in reversed(range(4)):
        x[i] = (rows[i][4] - sum(rows[i][j] * x[j] for j in range(i + 1, 4))) / rows[i][i]
    return Step(x[0], x[1], x[2]), x[3]


def _advance(lower: float, upper: float, cushion: float, room: float) -> tuple[Step, float, float]:
    """The best step on [lower, upper], scaled so that its image is symmetric about 1, and that image with headroom."""
    step, error = minimax_quintic(max(lower, cushion * upper), upper)
    low, high = step(lower), 1 + error  # below the fitted interval the quintic rises, so its image starts at p(lower)
    centre = 2 / (low + high)
    step = Step(step.a * centre, step.b * centre, step.c * centre)
    return step, low * centre * (1 - room), high * centre * (1 + room)


@designed_once
def polar_express(
    lower: float, tol: float, eps: float, upper: float = 1.0, cushion: float = CUSHION, terms: int = 1
) -> tuple[Step, ...]:
    """Quintic steps that bring [lower, upper] to within `tol` of 1, in arithmetic with unit roundoff `eps`, sums of `terms`.

    >>> from matsign.engine.schedules import polar_express
    >>> steps = polar_express(1e-3, 1e-6, 1e-16)
    >>> worst = 0.0
    >>> for x in (1e-3, 0.01, 0.1, 0.5, 1.0):
    ...     for step in steps:
    ...         x = step(x)
    ...     worst = max(worst, abs(x - 1))
    >>> len(steps), worst < 1e-6
    (7, True)
    """
    steps: list[Step] = []
    # A schedule designed to tol exactly misses it by rounding; what is left above 1e-8 squares itself away in POLISH.
    goal = max(tol / 3, 1e-8 if tol < 1e-12 else 0.0, 64 * eps)
    while max(1 - lower, upper - 1) > goal:
        step, lower, upper = _advance(lower, upper, cushion, headroom(eps, terms))
        steps.append(step)
    return (*steps, POLISH) if tol < goal else tuple(steps)


@designed_once
def counted(count: int, tol: float, eps: float, terms: int = 1) -> tuple[Step, ...]:
    """The `count` steps that bring the widest interval [l, 1] to within `tol` of 1, but for rounding."""
    low, high = 1e-16, 1.0
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if len(polar_express(middle, 3 * tol, eps, terms=terms)) <= count else (middle, high)
    steps = polar_express(high, 3 * tol, eps, terms=terms)
    return steps + (PADE,) * (count - len(steps))


def _steps(*rows: tuple[float, float, float]) -> tuple[Step, ...]:
    return tuple(Step(*row) for row in rows)


# Steps in use, as their authors give them; all want σmax ≤ 1, and the generated ones explode a little above it.
NAMED = {
    "muon": _steps((3.4445, -4.7750, 2.0315)) * 5,  # Keller Jordan (2024)
    "you": _steps(  # Jiacheng You (2024)
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ),
    "su": _steps(  # Jianlin Su (2025)
        (4.6182, -12.9582, 9.3299),
        (3.8496, -7.9585, 4.3052),
        (3.5204, -7.2918, 4.0606),
        (3.2067, -6.8243, 4.2802),
        (3.2978, -5.7848, 3.8917),
    ),
    "cans": _steps(  # Grishina, Smirnov & Rakhuba (2025)
        (8.4703, -25.1081, 18.6293),
        (4.1828, -3.1087, 0.5806),
        (3.9619, -2.9541, 0.5630),
        (3.2866, -2.4647, 0.5074),
        (2.2737, -1.6447, 0.4162),
    ),
    "polar_express": (  # Amsel, Persson, Musco & Gower (2025), with their factor 1.01 of safety worked in
        *(
            Step(a / 1.01, b / 1.01**3, c / 1.01**5)
            for a, b, c in _steps(
                (8.28721201814563, -23.595886519098837, 17.300387312530933),
                (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
                (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
                (3.3184196573706015, -2.488488024314874, 0.51004894012372),
                (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
                (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
                (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
            )
        ),
        PADE,
    ),
}


def reach(steps: Sequence[Step], error: float) -> float:
    """The largest value that some x in [0, 1] comes to if every step may leave it too large by this share."""
    top = 1.0
    for step in steps:
        top = (1 + error) * max(abs(step(x)) for x in (top, *_turns(step, top)))
        if top > 100:
            return math.inf
    return top


def _turns(step: Step, top: float) -> list[float]:
    """Where in (0, top) the step has an extremum: a + 3 b x² + 5 c x⁴ = 0."""
    a, b, c = step.a, 3 * step.b, 5 * step.c
    if c == 0:
        squares = [-a / b] if b else []
    else:
        root = b * b - 4 * a * c
        squares = [(-b + s * math.sqrt(root)) / (2 * c) for s in (-1, 1)] if root >= 0 else []
    return [math.sqrt(x) for x in squares if 0 < x < top * top]


@designed_once
def lifting(rtol: float, eps: float, upper: float) -> tuple[Step, ...]:
    """Steps after which purification sends [rtol, upper] to 1 and [0, rtol) to 0.

    The divide of a schedule for [l, upper] lies somewhat below l; with the number of steps fixed it rises with l, so l is
    found by bisection, in scalars.
    """
    count = len(_lift(rtol, eps, upper))
    low, high = rtol, 8 * rtol
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if _divide(_lift(middle, eps, upper, count), middle) > rtol else (middle, high)
    return _lift(low, eps, upper, count)


def _lift(lower: float, eps: float, upper: float, count: int | None = None) -> tuple[Step, ...]:
    """The greedy schedule until the image lies in `LIFTED`, or of `count` steps."""
    steps: list[Step] = []
    while len(steps) < count if count is not None else lower < LIFTED[0] or upper > LIFTED[1]:
        step, lower, upper = _advance(lower, upper, CUSHION, HEADROOM * eps)
        steps.append(step)
    return tuple(steps)


def _divide(steps: tuple[Step, ...], lower: float) -> float:
    """The x below `lower`, where the composed steps still rise, that they send to √(2/3)."""
    low, high = 0.0, lower
    for _ in range(60):
        x = middle = (low + high) / 2
        for step in steps:
            x = step(x)
        low, high = (low, middle) if x > DIVIDE else (middle, high)
    return high
