"""Default tolerances of public functions, and tolerances that several solvers share."""

from __future__ import annotations

import math

from matsign._typing import Array
from matsign.backends import Backend

# An iterate with ‖x² - I‖ below this converges quadratically to the sign.
NEAR_SIGN = 0.05
# Up to this size LAPACK is faster for one matrix than an iteration, whose Python overhead dominates.
LAPACK_SIZE = 48


def rank_tolerance(backend: Backend, m: Array, rtol: float | None) -> float:
    """The relative size below which a singular value counts as zero: `rtol`, by default max(n, m) eps."""
    return max(m.shape[-2:]) * backend.eps(m) if rtol is None else float(rtol)


def accuracy(backend: Backend, m: Array, tol: float | None) -> float:
    """The accuracy to reach: `tol`, or eps if that is larger."""
    return max(tol or 0.0, backend.eps(m))


def working_precision(backend: Backend, m: Array) -> float:
    """8 √n eps: a relative residual below it is rounding."""
    return 8 * math.sqrt(max(m.shape[-2:])) * backend.eps(m)
