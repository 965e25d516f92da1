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

from matsign.backends.constants import constant_when_compiled, power_of_two

P = ParamSpec("P")
R = TypeVar("R")


# How many designs are kept: a tolerance that changes with every call must not fill the memory.
_KEPT = 1024


def cached_design(design: Callable[P, R]) -> Callable[P, R]:
    """As functools.cache, of which torch.compile takes the result as a constant instead of following the design."""
    known: dict[object, R] = {}

    @wraps(design)
    def cached(*args: P.args, **kwargs: P.kwargs) -> R:
        key = (args, tuple(sorted(kwargs.items())))
        if key not in known:
            if len(known) >= _KEPT:
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


# With more headroom than this no schedule is designed: two steps later little would be left of an interval's symmetry.
MOST_HEADROOM = 1 / 16


@constant_when_compiled
def headroom(eps: float, terms: int) -> float:
    """By what share a step with sums of this many terms may end too high; a power of two, so that few schedules do for all."""
    return eps * max(HEADROOM, power_of_two(terms) / 4)


def minimax_quintic(lower: float, upper: float) -> tuple[Step, float]:
    """The odd quintic nearest to 1 on [lower, upper], and its error: four points of equal error, by Remez exchange."""
    step, error = _minimax(lower / upper)
    return Step(step.a / upper, step.b / upper**3, step.c / upper**5), error


@cached_design
def _minimax(ratio: float) -> tuple[Step, float]:
    """The same on [ratio, 1]."""
    if 1 - ratio < 1e-3:
        # The exchange loses its points to rounding here, and order three at the middle is as good.
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
    # Written so that all wide intervals ask for the fit on the same ratio, which is then known.
    ratio = max(lower / upper, cushion)
    fit, error = _minimax(ratio)
    step = Step(fit.a / upper, fit.b / upper**3, fit.c / upper**5)
    low, high = step(lower), 1 + error  # below the fitted interval the quintic rises, so its image starts at p(lower)
    centre = 2 / (low + high)
    return Step(step.a * centre, step.b * centre, step.c * centre), low * centre, high * centre


def _greedy(
    lower: float, upper: float, *, room: float, goal: float, cushion: float = CUSHION, count: int | None = None
) -> tuple[Step, ...]:
    """The best step again and again, each on the image of the one before with `room` for rounding at both ends.

    It ends when that lies within `goal` of 1, or after `count` steps. Where `room` fills more than half of the goal, the image
    has to lie within the other half: no further step would remove what rounding does in the last one.
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
    """How many steps at most bring an interval whose ends have this ratio to within max(1e-15, 3 room³) of 1.

    Let E(ρ) be the error of the best quintic on [ρ, 1], c the cushion or 0.1 if that is larger, and w = (1 - room)/(1 + room).
    On the fitted interval p ≥ 1 - E(c), and below it p(x)/x falls, so that p(x) ≥ (1 - E(c)) x/c. While ρ < c, one step so
    takes ρ to at least g w ρ with g = (1 - E(c)) / (c (1 + E(c))), which is 3.7 for c = 0.1; a smaller cushion is better
    still, for the fit on [ρ, 1] has the largest ratio of all. From c on ρ goes to w (1 - E)/(1 + E): with room = 1/16 that
    is 0.33, 0.73, 0.87, and the error after that below 3 room³; with none it is 0.38, 0.88, 0.9997, and two more reach rounding.
    """
    if not (ratio > 0 and 0 <= room <= MOST_HEADROOM):
        raise ValueError(
            f"no schedule for an interval of ratio {ratio:.3g} with {room:.3g} of room for rounding in a step"
        )
    wide = max(cushion, CUSHION)
    error = _minimax(min(wide, 1.0))[1]
    growth = (1 - error) / (wide * (1 + error)) * (1 - room) / (1 + room)
    rising = max(0, math.ceil(math.log(wide / ratio) / math.log(growth))) if ratio < wide else 0
    return rising + 6


@constant_when_compiled
def polar_express(
    lower: float, tol: float, eps: float, upper: float = 1.0, cushion: float = CUSHION, terms: int = 1
) -> tuple[Step, ...]:
    """Quintic steps that bring [lower, upper] to within `tol` of 1, in arithmetic with unit roundoff `eps`, sums of `terms`.

    What rounding leaves in the last step, at most `headroom`, comes on top of that.

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
    # A schedule designed to tol exactly misses it by rounding; what is left above 1e-8 squares itself away in POLISH.
    goal = max(tol / 3, 1e-8 if tol < 1e-12 else 0.0, 64 * eps, 6 * room**3)
    steps = _greedy(lower, upper, room=room, goal=goal, cushion=cushion)
    return (*steps, POLISH) if tol < goal else steps


def _room(eps: float, terms: int) -> float:
    """The headroom of a schedule; a ValueError where rounding is so large that there is none."""
    room = headroom(eps, terms)
    if room > MOST_HEADROOM:
        raise ValueError(
            f"msign: sums of {terms} terms with a unit of rounding of {eps:.2g} may be off by {room:.2g}, which no number of "
            f"steps corrects (at most {MOST_HEADROOM:g}); convert to a wider dtype"
        )
    return room


@constant_when_compiled
def schedule_of_length(count: int, tol: float, eps: float, terms: int = 1) -> tuple[Step, ...]:
    """The `count` steps that bring the widest interval [l, 1] to within `tol` of 1, but for rounding."""
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


def max_on_unit_interval(steps: Sequence[Step], error: float) -> float:
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


@constant_when_compiled
def lifting(rtol: float, eps: float, upper: float, terms: int = 1) -> tuple[Step, ...]:
    """Steps after which purification sends [rtol, upper] to 1 and [0, rtol) to 0.

    They are designed for `rtol` rounded down to a power of two, so that few schedules do for all sizes; the first step takes
    what is lacking, a factor in (1/2, 1], before its polynomial.
    """
    cached = 2.0 ** math.floor(math.log2(rtol))
    first, *others = _lifting(cached, eps, upper, _room(eps, terms))
    t = cached / rtol
    return Step(first.a * t, first.b * t**3, first.c * t**5), *others


@cached_design
def _lifting(rtol: float, eps: float, upper: float, room: float) -> tuple[Step, ...]:
    """The divide of a schedule for [l, upper] lies somewhat below l; with the number of steps fixed it rises with l, so l is
    found by bisection, in scalars.
    """

    def lift(lower: float, count: int | None = None) -> tuple[Step, ...]:
        return _greedy(lower, upper, room=room, goal=LIFTED[1] - 1, count=count)

    count = len(lift(rtol))
    low, high = rtol, 8 * rtol
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if _divide(lift(middle, count), middle) > rtol else (middle, high)
    return lift(low, count)


def _divide(steps: tuple[Step, ...], lower: float) -> float:
    """The x below `lower`, where the composed steps still rise, that they send to √(2/3)."""
    low, high = 0.0, lower
    for _ in range(60):
        x = middle = (low + high) / 2
        for step in steps:
            x = step(x)
        low, high = (low, middle) if x > DIVIDE else (middle, high)
    return high
