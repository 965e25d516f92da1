"""The polynomial steps of msign: by name, by coefficients, by number or by accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matsign._typing import Array
from matsign.backends import Backend
from matsign.backends.constants import as_constant, constant_when_compiled
from matsign.core.options import short_repr
from matsign.core.tolerances import accuracy
from matsign.iterations.minimax import (
    NAMED,
    Step,
    cached_design,
    max_on_unit_interval,
    polar_express,
    schedule_of_length,
)
from matsign.iterations.newton_schulz import Plan, rounding

Schedule = str | Sequence[Sequence[float]] | None

# Lower bounds on the smallest singular value that save steps, and the matrix size from which estimating it pays.
_LEVELS = (0.1, 0.03, 0.01, 3e-3, 1e-3)
_ESTIMATE_FROM = 96
# The error upwards of a step in half precision, in units of rounding.
_ERROR_IN_HALF = 3


def select_schedules(
    backend: Backend, m: Array, tol: float | None, rtol: float, schedule: Schedule, steps: int | None
) -> tuple[Plan, ...]:
    """The steps asked for by name, by coefficients, by number or by accuracy."""
    if schedule is None:
        eps, terms = rounding(backend, m)
        if steps is not None:
            return ((0.0, _counted_schedule(steps, tol, eps, terms)),)
        # Constants in a compiled program, as the schedule is designed for them.
        rtol, short = as_constant(rtol), as_constant(min(m.shape[-2:]))
        # m is divided by a bound, which may exceed its norm by this factor.
        lower = max(rtol, eps) * ((1 + math.sqrt(short)) / 2) ** -0.25
        estimates = backend.on_cpu(m) and not backend.is_traced(m) and short >= _ESTIMATE_FROM
        # Rounding errors in MᴴM are about √k eps: it does not show singular values below their square root.
        resolved = max(lower, math.sqrt(8 * eps * math.sqrt(short)))
        levels = (*(level for level in _LEVELS if estimates and level > resolved), lower)
        goal = accuracy(backend, m, tol)
        return tuple((level, polar_express(level, goal, eps, terms=terms)) for level in levels)
    return ((0.0, explicit_schedule(schedule, steps)),)


@constant_when_compiled
def explicit_schedule(schedule: str | Sequence[Sequence[float]], steps: int | None) -> tuple[Step, ...]:
    """The steps by name or by coefficients, the last one repeated up to `steps`."""
    if isinstance(schedule, str):
        if schedule not in NAMED:
            raise ValueError(
                f"msign: schedule must be one of {', '.join(NAMED)} or coefficients, got {short_repr(schedule)}"
            )
        plan = NAMED[schedule]
    else:
        try:
            plan = tuple(Step(*(float(x) for x in row)) for row in schedule)
        except (TypeError, ValueError, OverflowError):
            plan = ()
        if not plan or not all(math.isfinite(x) for row in plan for x in row):
            raise ValueError(f"msign: a schedule is rows of two or three coefficients, got {short_repr(schedule)}")
    count = len(plan) if steps is None else int(steps)
    return (plan + plan[-1:] * (count - len(plan)))[:count]


@cached_design
def half_precision_schedule(
    schedule: Schedule, steps: int | None, tol: float | None, eps: float, unit: tuple[float, int]
) -> tuple[Step, ...] | None:
    """The steps, or None if in half precision they would diverge or vanish."""
    plan = _counted_schedule(steps, tol, *unit) if schedule is None else explicit_schedule(schedule, steps)
    top = max_on_unit_interval(plan, 0.0)
    mild = 0.1 < top < 10 and max(abs(c) for step in plan for c in step) < 100
    return plan if mild and max_on_unit_interval(plan, _ERROR_IN_HALF * eps) < 1.1 * top else None


def _counted_schedule(steps: Any, tol: float | None, eps: float, terms: int) -> tuple[Step, ...]:
    return schedule_of_length(int(steps), max(tol or 0.2, 64 * eps), eps, terms)
