"""Tolerances: those of the callers where they are left out, and those that several solvers share."""

from __future__ import annotations

import math

from matsign._typing import Array
from matsign.backends import Backend

# An iteration has reached the sign where its square is this near to I: its error then squares itself with each further step.
NEAR_SIGN = 0.05
# Up to this size one matrix takes LAPACK less time than an iteration needs for its steps in Python.
LAPACK_SIZE = 48


def rank_tolerance(backend: Backend, m: Array, rtol: float | None) -> float:
    """What counts as zero beside the largest singular value: `rtol`, or the dtype's rounding times the larger size."""
    return max(m.shape[-2:]) * backend.eps(m) if rtol is None else float(rtol)


def accuracy(backend: Backend, m: Array, tol: float | None) -> float:
    """How accurate the answer shall be: `tol`, or the dtype's rounding where that is larger."""
    return max(tol or 0.0, backend.eps(m))


def working_precision(backend: Backend, m: Array) -> float:
    """8 √n eps: a relative residual below it is rounding."""
    return 8 * math.sqrt(max(m.shape[-2:])) * backend.eps(m)
