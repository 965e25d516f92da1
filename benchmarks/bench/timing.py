"""How the times of two functions are compared.

In each round both are called for equally long, one after the other, in the other order in the next round. A round has one ratio;
the result is the median and the quartiles of the ratios, so that a slow moment of the machine hits both sides or one round.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from statistics import median, quantiles
from typing import Any, NamedTuple

ROUNDS = 9
LEAST_ROUNDS = 3
Thunk = Callable[[], Any]


class Comparison(NamedTuple):
    """Median seconds of a call of each, and the lower quartile, median and upper quartile of ours / theirs."""

    ours: float
    theirs: float
    ratio: tuple[float, float, float]
    rounds: int


def compare(ours: Thunk, theirs: Thunk, seconds: float, pause: float = 0.0) -> Comparison:
    """Both functions have been called once before.

    `pause` is slept before each turn: the threads of OpenBLAS keep their processor busy for 30 ms after a call, and NumPy and
    SciPy have one each.
    """
    sides = [Side(ours, seconds / (2 * ROUNDS), pause), Side(theirs, seconds / (2 * ROUNDS), pause)]
    rounds = min(ROUNDS, max(LEAST_ROUNDS, int(seconds / sum(side.cost for side in sides))))
    times: list[tuple[float, float]] = []
    for k in range(rounds):
        if k % 2:
            theirs_took, ours_took = sides[1].turn(), sides[0].turn()
        else:
            ours_took, theirs_took = sides[0].turn(), sides[1].turn()
        times.append((ours_took, theirs_took))
    return Comparison(
        median(x for x, _ in times), median(y for _, y in times), spread([x / y for x, y in times]), rounds
    )


def spread(ratios: list[float]) -> tuple[float, float, float]:
    lower, middle, upper = quantiles(ratios, n=4, method="inclusive")
    return lower, middle, upper


class Side:
    """A function, and how often it is called in a turn."""

    def __init__(self, f: Thunk, share: float, pause: float) -> None:
        self.f, self.pause = f, pause
        once = max(seconds_of(f, 1), 1e-7)
        self.calls = max(1, round(share / once))
        self.cost = pause + once * (self.calls + (self.calls > 1))

    def turn(self) -> float:
        """Seconds of a call."""
        if self.pause:
            time.sleep(self.pause)
        if self.calls > 1:
            self.f()  # brings its data and code into the caches
        return seconds_of(self.f, self.calls)


def seconds_of(f: Thunk, calls: int) -> float:
    """Mean seconds of a call, without the garbage collector."""
    on = gc.isenabled()
    gc.disable()
    try:
        start = time.perf_counter()
        for _ in range(calls):
            f()
        return (time.perf_counter() - start) / calls
    finally:
        if on:
            gc.enable()
