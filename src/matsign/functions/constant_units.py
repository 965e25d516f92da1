"""The units that balance a matrix as an operation of its own, for rules that must not look at values.

Units are whole numbers: they have no derivative.
"""

from __future__ import annotations

from typing import Any

from matsign.backends import Backend
from matsign.core.operations import Arrays, Rule, Solution, follow, shapes_of, solution
from matsign.linalg.balancing import Balanced, units
from matsign.linalg.stacks import column

Array = Any


def constant_units(be: Backend, m: Array) -> Balanced:
    """`units` inside a rule, which may not look at values: found by a step of their own, and without derivatives."""
    e, k, reached = follow(be, _UNITS, be.constant(m))
    e, k = (be.xp.astype(x, be.xp.int32) for x in (e, k))
    shift = e[:, None, :] - e[:, :, None]
    return Balanced(be.ldexp(m, shift - column(k)), e, k, reached > 0)


def _solve_units(be: Backend, m: Array) -> Solution:
    found, like = units(be, m), be.real(m)
    e = 0 * like[:, 0] if found.e is None else found.e
    reached = m == m if found.reached is None else found.reached
    return solution(be, tuple(be.astype(x, be.kind(like)) for x in (e, found.k, reached)))


def _no_derivative(be: Backend, value: Arrays, arrays: Arrays, moves: Arrays) -> Arrays:
    return tuple(be.xp.zeros_like(x) for x in value)


_UNITS = Rule(
    "units",
    shapes_of("(n,n)"),
    (("n",), (), ("n", "n")),
    solve=_solve_units,
    tangent=_no_derivative,
    cotangent=lambda be, value, arrays, bars: (be.xp.zeros_like(arrays[0]),),
    kinds=("real", "real", "real"),
    unrolled=True,
)
