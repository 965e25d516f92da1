"""DAREX, a collection of benchmarks for discrete-time algebraic Riccati equations (Benner, Laub & Mehrmann 1995), 1 to 15.

The families have their default parameters, which come last, and some milder or smaller; 1 and 2 have the parameter of a later
edition. They are computed by sums and products of numbers, so that every machine gets the same bits.
"""

import numpy as np

from carex import reflected
from collection import Case, stored


def cases():
    return [*_families((1, 2)), *_data(), *_families((12, 13, 14)), *_sizes()]


def _data():
    """3 to 11; r is singular in 3 and 4; 4 and 10 are given with and without their cross term."""
    for k in range(3, 12):
        found = stored(f"DAREX {k}", "a", "b", "q", "r")
        yield Case(f"DAREX {k}", **{"r": np.eye(found["b"].shape[1]), **found})
        cross = stored(f"DAREX {k}", "s")
        if cross:
            yield Case(f"DAREX {k}, with s", **found, **cross)


PARAMETERS = {
    1: (1e8, 1e4, 1e2, 1.0),
    2: (1e8, 1e4, 1e2, 1.0),
    12: (1.0, 1e2, 1e4, 1e6),
    13: (1.0, 1e2, 1e4, 1e6),
    14: (2.0, 1e2, 1e4, 1e6, 1e8),
}


def _families(numbers):
    families = {1: _1, 2: _2, 12: _12, 13: _13, 14: _14}
    letters = {1: "r", 2: "ρ", 12: "ε", 13: "ε", 14: "τ"}
    for k in numbers:
        for value in PARAMETERS[k]:
            yield Case(f"DAREX {k}, {letters[k]} = {value:g}", *(np.array(x, float) for x in families[k](value)))


def _1(r):
    return [[4, 3], [-4.5, -3.5]], [[1], [-1]], [[9, 6], [6, 4]], [[r]]


def _2(rho):
    """Inputs whose weights differ by many orders of magnitude."""
    a, b = [[0.9512, 0], [0, 0.9048]], [[4.877, 4.877], [-1.1895, 3.569]]
    return a, b, np.diag([0.005, 0.02]), np.diag([1 / (3 * rho), 3 * rho])


def _12(eps):
    """x = diag(1, 1 + ε²)."""
    return [[0, eps], [0, 0]], [[0], [1]], np.eye(2), [[1]]


def _13(eps):
    return reflected(0, 1, 3) / 9, np.eye(3), eps * np.eye(3), eps * np.eye(3)


def _14(tau):
    """A process with time constant τ and three delays, sampled at 1: a pole of the closed loop near the circle."""
    a = [[1 - 1 / tau, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
    return a, [[1 / tau], [0], [0], [0]], np.diag([0, 0, 0, 1]), [[0.25]]


def _sizes():
    """A chain of delays: x = diag(1, ..., n)."""
    for n, r in ((10, 1e4), (100, 1e4), (10, 1.0), (100, 1.0)):
        yield Case(f"DAREX 15, n = {n}, r = {r:g}", np.eye(n, k=1), np.eye(n)[:, -1:], np.eye(n), np.array([[r]]))
