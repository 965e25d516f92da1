"""Coefficients of odd polynomial steps x ← a x + b x³ + c x⁵, as Python floats. No arrays.

A schedule is designed once for an interval [l, 1] of singular values (or moduli of real eigenvalues), in plain numbers,
by equioscillation: each step is the odd quintic nearest to 1 on the image of the interval under the steps before it. Steps
that are each optimal for their own interval are optimal together (Amsel, Persson, Musco & Gower 2025, "The Polar Express").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import NamedTuple, ParamSpec, TypeVar

from matsign.backends.constants import constant_when_compiled, power_of_two

P = ParamSpec("P")
R = TypeVar("R")


# Designs in the cache: a tolerance that changes with every call must not fill the memory.
_CACHE_SIZE = 1024


def cached_design(design: Callable[P, R]) -> Callable[P, R]:
    """As functools.cache, but torch.compile takes the result as a constant and does not trace the design."""
    known: dict[object, R] = {}

    @wraps(design)
    def cached(*args: P.args, **kwargs: P.kwargs) -> R:
        key = (args, tuple(sorted(kwargs.items())))
        if key not in known:
            if len(known) >= _CACHE_SIZE:
                known.clear()
            known[key] = design(*args, **kwargs)
        return known[key]

    return constant_when_compiled(cached)


class Step(NamedTuple):
    """x ← a x + b x³ + c x⁵."""

    a: float
    b: float
    c: float = 0.0

    def __call__(self, x: float) -> float:
        return x * (self.a + x * x * (self.b + x * x * self.c))


# Steps near 1: of order three, also the fallback for a tiny interval, and of order two.
PADE = Step(15 / 8, -10 / 8, 3 / 8)
POLISH = Step(1.5, -0.5)

# Its fixed points 0 and 1 attract, √(2/3) repels: values above √(2/3) converge to 1, values below it to 0, cubically.
PURIFY = Step(0.0, 2.5, -1.5)
DIVIDE = math.sqrt(2 / 3)
# Purification starts when the singular values to keep lie in this interval: it then keeps them above √(2/3).
LIFTED = (0.861, 1.139)

# A minimax fit starts no lower than at this fraction of the upper end: a wider one would send large values to 8 l, and later
# steps would magnify their rounding errors. This costs about one step and no digits.
CUSHION = 0.1

# Margin above the interval, in units of rounding per step: otherwise x = u (1 + eps) is outside, where a quintic diverges.
# Rounding errors of a sum of equal terms have the same sign, so that long sums need more.
HEADROOM = 8.0


# With more headroom than this no schedule is designed: after two steps the interval would not be symmetric about 1.
MOST_HEADROOM = 1 / 16


@constant_when_compiled
def headroom(eps: float, terms: int) -> float:
    """The relative error upwards of a step with sums of this many terms; a power of two, so that few schedules suffice."""
    return eps * max(HEADROOM, power_of_two(terms) / 4)


@cached_design
def minimax_quintic(ratio: float) -> tuple[Step, float]:
    """The odd quintic nearest to 1 on [ratio, 1], and its error: four points of equal error, by Remez exchange."""
    if 1 - ratio < 1e-3:
        # Rounding makes the exchange fail here, and the step of order three at the middle is as good.
        middle = 0.5 * (ratio + 1)
        step = Step(PADE.a / middle, PADE.b / middle**3, PADE.c / middle**5)
        return step, max(abs(1 - step(ratio)), abs(1 - step(1.0)))
    q, r = (3 * ratio + 1) / 4, (ratio + 3) / 4
    step, error, last = PADE, 1.0, math.inf
    for _ in range(100):
        step, error = _interpolate(ratio, q, r, 1.0)
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


def _advance(lower: float, upper: float, cushion: float) -> tuple[Step, float, float]:
    """The best step on [lower, upper], scaled so that its image is symmetric about 1, and that image."""
    # All wide intervals have the same ratio, so that their fit is in the cache.
    ratio = max(lower / upper, cushion)
    fit, error = minimax_quintic(ratio)
    step = Step(fit.a / upper, fit.b / upper**3, fit.c / upper**5)
    low, high = step(lower), 1 + error  # below the fitted interval the quintic rises, so its image starts at p(lower)
    centre = 2 / (low + high)
    return Step(step.a * centre, step.b * centre, step.c * centre), low * centre, high * centre


def _greedy(
    lower: float, upper: float, *, room: float, goal: float, cushion: float = CUSHION, count: int | None = None
) -> tuple[Step, ...]:
    """Best steps, each for the image of the interval under the step before, widened by `room` for rounding at both ends.

    It stops when the image lies within `goal` of 1, or after `count` steps. Where `room` is more than half of the goal, the
    image must lie within the other half: no further step removes the rounding errors of the last one.
    """
    steps: list[Step] = []
    low, high = lower, upper
    goal = max((goal - room) / (1 + room), goal / 2)
    for _ in range(longest(lower / upper, room, cushion) if count is None else count):
        if count is None and max(1 - low, high - 1) <= goal:
            break
        step, low, high = _advance(lower, upper, cushion)
        lower, upper = low * (1 - room), high * (1 + room)
        steps.append(step)
    return tuple(steps)


def longest(ratio: float, room: float, cushion: float = CUSHION) -> int:
    """A bound on the steps that bring an interval whose ends have this ratio to within max(1e-15, 3 room³) of 1.

    Let E(ρ) be the error of the best quintic on [ρ, 1], c the cushion or 0.1 if that is larger, and w = (1 - room)/(1 + room).
    On the fitted interval p ≥ 1 - E(c), and below it p(x)/x decreases, so that p(x) ≥ (1 - E(c)) x/c. While ρ < c, one step
    takes ρ to at least g w ρ with g = (1 - E(c)) / (c (1 + E(c))), which is 3.7 for c = 0.1; a smaller cushion gives more,
    for the fit on [ρ, 1] gives the largest ratio of all. From c on ρ goes to w (1 - E)/(1 + E): with room = 1/16 that is 0.33,
    0.73, 0.87, and the error is then below 3 room³; with room = 0 it is 0.38, 0.88, 0.9997, and two more steps reach rounding.
    """
    if not (ratio > 0 and 0 <= room <= MOST_HEADROOM):
        raise ValueError(
            f"no schedule for an interval of ratio {ratio:.3g} with {room:.3g} of room for rounding in a step"
        )
    wide = max(cushion, CUSHION)
    error = minimax_quintic(min(wide, 1.0))[1]
    growth = (1 - error) / (wide * (1 + error)) * (1 - room) / (1 + room)
    rising = max(0, math.ceil(math.log(wide / ratio) / math.log(growth))) if ratio < wide else 0
    return rising + 6


@constant_when_compiled
def polar_express(
    lower: float, tol: float, eps: float, upper: float = 1.0, cushion: float = CUSHION, terms: int = 1
) -> tuple[Step, ...]:
    """Quintic steps that bring [lower, upper] to within `tol` of 1, in arithmetic with unit roundoff `eps`, sums of `terms`.

    The rounding error of the last step, at most `headroom`, is not part of `tol`.

    >>> from matsign.iterations.minimax import polar_express
    >>> steps = polar_express(1e-3, 1e-6, 1e-16)
    >>> worst = 0.0
    >>> for x in (1e-3, 0.01, 0.1, 0.5, 1.0):
    ...     for step in steps:
    ...         x = step(x)
    ...     worst = max(worst, abs(x - 1))
    >>> len(steps), worst < 1e-6
    (7, True)
    """
    return _polar_express(lower, tol, eps, upper, cushion, _room(eps, terms))


@cached_design
def _polar_express(lower: float, tol: float, eps: float, upper: float, cushion: float, room: float) -> tuple[Step, ...]:
    # A schedule designed for exactly tol would miss it by rounding; POLISH squares an error of up to 1e-8.
    goal = max(tol / 3, 1e-8 if tol < 1e-12 else 0.0, 64 * eps, 6 * room**3)
    steps = _greedy(lower, upper, room=room, goal=goal, cushion=cushion)
    return (*steps, POLISH) if tol < goal else steps


def _room(eps: float, terms: int) -> float:
    """The headroom of a schedule; a ValueError where rounding is too large for any schedule."""
    room = headroom(eps, terms)
    if room > MOST_HEADROOM:
        raise ValueError(
            f"msign: sums of {terms} terms with a unit of rounding of {eps:.2g} may be off by {room:.2g}, which no number of "
            f"steps corrects (at most {MOST_HEADROOM:g}); convert to a wider dtype"
        )
    return room


@constant_when_compiled
def schedule_of_length(count: int, tol: float, eps: float, terms: int = 1) -> tuple[Step, ...]:
    """The `count` steps that bring the widest interval [l, 1] to within `tol` of 1, apart from rounding."""
    return _schedule_of_length(count, tol, eps, _room(eps, terms))


@cached_design
def _schedule_of_length(count: int, tol: float, eps: float, room: float) -> tuple[Step, ...]:
    def from_lower(lower: float) -> tuple[Step, ...]:
        return _polar_express(lower, 3 * tol, eps, 1.0, CUSHION, room)

    low, high = 1e-16, 1.0
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if len(from_lower(middle)) <= count else (middle, high)
    steps = from_lower(high)
    return steps + (PADE,) * (count - len(steps))


def _steps(*rows: tuple[float, float, float]) -> tuple[Step, ...]:
    return tuple(Step(*row) for row in rows)


# Published steps, with their authors' coefficients; all need σmax ≤ 1, and minimax steps diverge slightly above it.
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
    "polar_express": (  # Amsel, Persson, Musco & Gower (2025), their safety factor 1.01 included
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


def max_on_unit_interval(steps: Sequence[Step], error: float) -> float:
    """The largest value that an x in [0, 1] reaches if every step may have this relative error upwards."""
    top = 1.0
    for step in steps:
        top = (1 + error) * max(abs(step(x)) for x in (top, *_extrema(step, top)))
        if top > 100:
            return math.inf
    return top


def _extrema(step: Step, top: float) -> list[float]:
    """The extrema of the step in (0, top): a + 3 b x² + 5 c x⁴ = 0."""
    a, b, c = step.a, 3 * step.b, 5 * step.c
    if c == 0:
        squares = [-a / b] if b else []
    else:
        root = b * b - 4 * a * c
        squares = [(-b + s * math.sqrt(root)) / (2 * c) for s in (-1, 1)] if root >= 0 else []
    return [math.sqrt(x) for x in squares if 0 < x < top * top]


@constant_when_compiled
def lifting(rtol: float, eps: float, upper: float, terms: int = 1) -> tuple[Step, ...]:
    """Steps after which purification sends [rtol, upper] to 1 and [0, rtol) to 0.

    They are designed for `rtol` rounded down to a power of two, so that few schedules suffice for all sizes; the first step
    multiplies x by the remaining factor, in (1/2, 1].
    """
    power = 2.0 ** math.floor(math.log2(rtol))
    first, *others = _lifting(power, eps, upper, _room(eps, terms))
    t = power / rtol
    return Step(first.a * t, first.b * t**3, first.c * t**5), *others


@cached_design
def _lifting(rtol: float, eps: float, upper: float, room: float) -> tuple[Step, ...]:
    """By bisection in l: a schedule for [l, upper] sends some x < l to √(2/3), and that x is to be rtol.

    For a fixed number of steps this x increases with l.
    """

    def lift(lower: float, count: int | None = None) -> tuple[Step, ...]:
        return _greedy(lower, upper, room=room, goal=LIFTED[1] - 1, count=count)

    count = len(lift(rtol))
    low, high = rtol, 8 * rtol
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if _preimage_of_divide(lift(middle, count), middle) > rtol else (middle, high)
    return lift(low, count)


def _preimage_of_divide(steps: tuple[Step, ...], lower: float) -> float:
    """The x below `lower` that the steps send to √(2/3); there their composition increases."""
    low, high = 0.0, lower
    for _ in range(60):
        x = middle = (low + high) / 2
        for step in steps:
            x = step(x)
        low, high = (low, middle) if x > DIVIDE else (middle, high)
    return high
