"""What the tolerances of the callers mean where they are left out."""

from __future__ import annotations

from matsign._typing import Array
from matsign.backends import Backend


def rank_tolerance(backend: Backend, m: Array, rtol: float | None) -> float:
    """What counts as zero beside the largest singular value: `rtol`, or the dtype's rounding times the larger size."""
    return max(m.shape[-2:]) * backend.eps(m) if rtol is None else float(rtol)


def accuracy(backend: Backend, m: Array, tol: float | None) -> float:
    """How accurate the answer shall be: `tol`, or the dtype's rounding where that is larger."""
    return max(tol or 0.0, backend.eps(m))
