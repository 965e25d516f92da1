"""The solution of a differential Riccati equation at the beginning of a horizon, also where the flow from 0 escapes or grows.

There the doubling ends while ‖f‖ ≤ 64, and steps of this length follow, x ← h + fᴴ x (I + g x)⁻¹ f, in which rounding errors do
not grow. An unstable mode that the cost hardly sees grows by up to 64 in a step until it has its limit, so few steps suffice. If
x is then nearly constant, h of the flow from w = x corrects it. If it is not after all steps, f grows like a power of t, and the
flow from 0 is accurate; where there is none, the rest of the time has w = x.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.equations.riccati.classification import zero_nonfinite_entries
from matsign.equations.riccati.differential_methods import (
    Horizon,
    Signs,
    Solved,
    definiteness,
    escapes_at_doubling,
    escapes_to,
    flow_from,
    scaled_standard_form,
    value_at_start,
)
from matsign.equations.riccati.flow import MAX_DOUBLINGS, Flow, double, select, short_flow, transition
from matsign.equations.riccati.problem import RiccatiProblem, StandardForm, Units
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye, hermitian, plus_identity

_GROWTH = 64
MAX_STEPS = 64


class March(NamedTuple):
    """Steps at the end of a horizon, with w = 0: how many, and how many doublings of the time t 2^-division each has."""

    steps: Array
    counts: Array
    division: Array


class Start(NamedTuple):
    """The steps and the rest of a horizon with its units; x at its beginning in these units, and the states at its end from those
    at its beginning.
    """

    march: March
    horizon: Horizon
    units: Units
    x: Array
    transition: Array
    failure: Array


class _Rest(NamedTuple):
    march: March
    solved: Solved
    moved: Array


def solve_horizon(backend: Backend, p: RiccatiProblem, xf: Array, t: Array) -> Start:
    """x at the time t before the end, where it is xf."""
    p, xf = p._replace(q=hermitian(p.q), r=hermitian(p.r)), hermitian(xf)
    simple, units, sound = scaled_standard_form(backend, p)
    rest = _solve(backend, simple, units, units.apply(backend, xf), t)
    (horizon, flow, escaped, _), xp = rest.solved, backend.xp
    x = horizon.start + value_at_start(backend, flow, horizon.end)
    failure = Failure.ESCAPE.where(backend, escaped, backend.int_zeros(x))
    failure = Failure.LONG_HORIZON.where(backend, (failure == 0) & ~xp.isfinite(backend.norm(x)), failure)
    failure = xp.where(horizon.failure > 0, horizon.failure, failure)
    failure = Failure.SINGULAR_R.where(backend, ~sound, failure)
    failure = Failure.NEGATIVE_TIME.where(backend, t < 0, failure)
    failure = Failure.NONFINITE.where(backend, ~xp.isfinite(t), failure)
    moved = rest.moved @ transition(backend, flow, horizon.end, backend.inv)
    return Start(rest.march, horizon, units, x, moved, failure)


def _solve(backend: Backend, p: StandardForm, units: Units, xf: Array, t: Array) -> _Rest:
    g_sign, q_sign = definiteness(backend, p.g), definiteness(backend, p.q)
    one_signed = g_sign != 0
    w = backend.xp.where(broadcast_scalar(one_signed), 0 * xf, xf)
    solved = flow_from(backend, p, units, xf, t, w)
    uncertain = one_signed & (solved.escaped | ~(solved.growth <= _GROWTH))
    late = escapes_to(backend, solved.flow, solved.horizon.end, solved.horizon.signs)
    solved = solved._replace(escaped=solved.escaped | late)
    none = 0 * solved.horizon.counts
    plain = _Rest(March(none, none, none), solved, eye(backend, xf) + 0 * xf)
    result: _Rest = backend.rare_cond(
        uncertain,
        functools.partial(_march_and_rest, backend),
        lambda p, units, xf, t, plain: plain,
        *(p, units, xf, t, plain),
    )
    safe = (g_sign > 0) & (q_sign > 0) & (definiteness(backend, xf) > 0)
    return result._replace(solved=result.solved._replace(escaped=result.solved.escaped & ~safe))


class _Part(NamedTuple):
    flow: Flow
    left: Array
    signs: Signs


def _double_while_bounded(backend: Backend, part: _Part) -> tuple[_Part, Array]:
    flow, left, signs = part
    new = double(backend, flow, backend.inv)
    active = (left > 0) & (backend.norm(new.f) <= _GROWTH) & ~escapes_at_doubling(backend, flow, signs, left > 0)
    return _Part(select(active, backend, new, flow), left - backend.astype(active, "int32"), signs), active & (left > 1)


class _Steps(NamedTuple):
    flow: Flow
    x: Array
    moved: Array
    left: Array
    signs: Signs
    escaped: Array


def _step(backend: Backend, state: _Steps) -> tuple[_Steps, Array]:
    flow, x, moved, left, signs, escaped = state
    escaped = escaped | escapes_to(backend, flow, x, signs)
    moved = moved @ transition(backend, flow, x, backend.inv)
    x = zero_nonfinite_entries(backend, value_at_start(backend, flow, x))
    return _Steps(flow, x, moved, left - 1, signs, escaped), (left > 1) & ~escaped


def _march_and_rest(backend: Backend, p: StandardForm, units: Units, xf: Array, t: Array, plain: _Rest) -> _Rest:
    xp, horizon = backend.xp, plain.solved.horizon
    part = _Part(short_flow(backend, horizon.m, backend.inv), horizon.counts, horizon.signs)
    part = backend.loop(lambda part: _double_while_bounded(backend, part), part, MAX_DOUBLINGS)
    steps = 2 ** xp.clip(part.left, None, 7)
    all_steps, steps = steps <= MAX_STEPS, xp.clip(steps, None, MAX_STEPS)
    end = _Steps(part.flow, xf, plain.moved, steps, part.signs, steps < 0)
    end = backend.loop(lambda state: _step(backend, state), end, MAX_STEPS)
    # Over a long time, the whole of it from w = x.
    limit = flow_from(backend, p, units, xf, t, end.x)
    forgets = ~end.escaped & ~limit.escaped & _forgets_end(backend, limit, end.x)
    time = backend.ldexp(backend.astype(steps, backend.dtype_name(t)), -part.left) * t
    rest = flow_from(backend, p, units, end.x, xp.where(all_steps, 0 * t, t - time), end.x)
    rest = rest._replace(escaped=rest.escaped | end.escaped)
    march = March(steps, horizon.counts - part.left, horizon.counts)
    marched = _Rest(march, rest, end.moved)
    from_zero = ~(all_steps | plain.solved.escaped) & xp.isfinite(plain.solved.growth)
    marched = backend.masked_select(from_zero, plain, marched)
    none = March(0 * steps, 0 * steps, 0 * steps)
    result: _Rest = backend.masked_select(forgets, _Rest(none, limit, plain.moved), marched)
    return result


def _forgets_end(backend: Backend, solved: Solved, x: Array) -> Array:
    """Whether h is a small correction of w = x, and the part that depends on xf - w has errors below rounding of x."""
    (f, g, h), end = solved.flow, solved.horizon.end
    matrix = plus_identity(backend, 1.0, g @ end)
    inverse = backend.inv(matrix)
    part = backend.norm(adjoint(f) @ (end @ (inverse @ f)))
    size = backend.norm(x)
    return (1024 * backend.norm(h) < size) & (part * backend.norm(matrix) * backend.norm(inverse) < size)
