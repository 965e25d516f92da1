"""The differential Riccati equation by doubling of its flow, and whether its solution escapes before the given time.

With y = x - w for a constant w the equation keeps its form: a - g w and the rate of change of w take the places of a and q. The
flow starts at y = 0. With w = 0, g ⪰ 0 and q ⪰ 0 no solution from 0 escapes, and all sums are of positive matrices. If the flow
from 0 escapes or grows, because the cost hardly sees an unstable mode, its doubling ends before (`riccati.march`). If g is
indefinite, w = xf.

Finite escape: if g or the rate of w is semidefinite, then so is g(t) or h(t), and it is monotone in t. Hence the solution escapes
during the second half of an interval if and only if an eigenvalue of I + g(t) h(t), all of which are real, is not positive. A
short interval has no escape: exp(m) - I is below 1 there. If neither is semidefinite, whether there is an escape is not decided.
"""

from __future__ import annotations

from typing import NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.equations.riccati.classification import zero_nonfinite_entries
from matsign.equations.riccati.flow import MAX_DOUBLINGS, Flow, double, select, short_flow, transition
from matsign.equations.riccati.problem import (
    RiccatiProblem,
    StandardForm,
    Units,
    scale_problem,
    standard_form,
    standard_in_units,
    state_units,
)
from matsign.linalg.stacks import (
    adjoint,
    assemble,
    broadcast_scalar,
    hermitian,
    scale_to_unit,
)


class Horizon(NamedTuple):
    """A problem whose flow starts at 0: m is the Hamiltonian matrix times a short time, which is doubled `counts` times.

    `start` is w, `end` is xf - w, both in the units of the problem; `failure` tells why there is none.
    """

    m: Array
    counts: Array
    start: Array
    end: Array
    signs: Signs
    failure: Array


class Signs(NamedTuple):
    """1, -1 or 0 for each member: g and the rate of w are positive semidefinite, negative semidefinite, or neither."""

    g: Array
    rate: Array


def scaled_standard_form(backend: Backend, p: RiccatiProblem) -> tuple[StandardForm, Units, Array]:
    """The plant without cross term, in units that balance its coefficients, the units, and whether r has an inverse."""
    p, whole, operator = scale_problem(backend, p, discrete=False)
    simple = standard_form(backend, p, discrete=False)
    sound = backend.xp.isfinite(simple.a + simple.g + simple.q).all((-1, -2))
    a, g, q = (zero_nonfinite_entries(backend, x) for x in simple[:3])
    simple = StandardForm(a, g, q, None)
    states = state_units(backend, simple, 7)
    return standard_in_units(backend, simple, states), Units(whole, states, operator), sound


def _prepare(backend: Backend, p: StandardForm, units: Units, xf: Array, t: Array, w: Array, signs: Signs) -> Horizon:
    """The `Horizon` for this w; `signs` are those for it."""
    m, counts, far = _short_time(backend, with_start(p, w), t, units)
    failure = backend.int_zeros(xf)
    failure = Failure.UNDECIDED_ESCAPE.where(backend, (signs.g == 0) & (signs.rate == 0), failure)
    failure = Failure.LONG_HORIZON.where(backend, far, failure)
    return Horizon(m, counts, w, xf - w, signs, failure)


def with_start(p: StandardForm, w: Array) -> StandardForm:
    """The problem of x - w."""
    return StandardForm(p.a - p.g @ w, p.g, rate(p, w), None)


def rate(p: StandardForm, x: Array) -> Array:
    """q + aᴴ x + x a - x g x."""
    half = x @ p.a
    return hermitian(p.q + half + adjoint(half) - x @ p.g @ x)


def rate_terms(backend: Backend, p: StandardForm, x: Array) -> Array:
    """The sum of the norms of the terms of `rate`."""
    return backend.norm(p.q) + 2 * backend.norm(x @ p.a) + backend.norm(x @ p.g @ x)


def _signs(backend: Backend, p: StandardForm, w: Array) -> Signs:
    return Signs(definiteness(backend, p.g), definiteness(backend, rate(p, w), rate_terms(backend, p, w)))


def definiteness(backend: Backend, x: Array, size: Array | None = None) -> Array:
    """1 where x is positive, -1 where it is negative semidefinite, up to rounding of terms of this size; 0 elsewhere."""
    xp = backend.xp
    values = backend.eigh(zero_nonfinite_entries(backend, x))[0]
    largest = xp.max(xp.abs(values), axis=-1) if size is None else zero_nonfinite_entries(backend, size)
    rounding = 16 * x.shape[-1] * backend.eps(x) * largest
    positive, negative = values[..., 0] >= -rounding, values[..., -1] <= rounding
    one = backend.int_zeros(x) + 1
    return xp.where(positive, one, xp.where(negative, -one, 0 * one))


def hamiltonian(backend: Backend, p: StandardForm) -> Array:
    """[[a, -g], [-q, -aᴴ]]."""
    return assemble(backend, p.a, -p.g, -p.q, -adjoint(p.a))


def _short_time(backend: Backend, p: StandardForm, t: Array, units: Units) -> tuple[Array, Array, Array]:
    """(m, number of doublings, whether t is too long)."""
    xp = backend.xp
    h, whole = scale_to_unit(backend, hamiltonian(backend, p))
    h = zero_nonfinite_entries(backend, h)
    t = xp.where(xp.isfinite(t) & (t > 0), t, 0 * t)
    e = backend.exponent(t)
    size = whole + units.operator + e
    counts = size + backend.exponent(backend.norm(h)) + 1
    counts = xp.where(t > 0, xp.clip(counts, 0, None), 0 * counts)
    far = counts > MAX_DOUBLINGS
    counts = xp.clip(counts, None, MAX_DOUBLINGS)
    m = backend.ldexp(h * broadcast_scalar(backend.ldexp(t, -e)), broadcast_scalar(size - counts))
    return xp.where(broadcast_scalar(far), 0 * m, m), counts, far


def escapes(backend: Backend, g: Array, h: Array, signs: Signs) -> Array:
    """Whether I + g h has an eigenvalue that is not positive, for g or h semidefinite with the sign in `signs`."""
    xp = backend.xp
    by_g = signs.g != 0
    sign = broadcast_scalar(backend.astype(xp.where(by_g, signs.g, signs.rate), backend.dtype_name(g.real)))
    by_g = broadcast_scalar(by_g)
    definite, other = (sign * zero_nonfinite_entries(backend, x) for x in (xp.where(by_g, g, h), xp.where(by_g, h, g)))
    values, vectors = backend.eigh(definite)
    root = vectors * xp.sqrt(xp.clip(values, 0, None))[..., None, :]
    inner = hermitian(adjoint(root) @ other @ root)
    values = 1 + backend.eigh(zero_nonfinite_entries(backend, inner))[0]
    rounding = g.shape[-1] * backend.eps(g) * (1 + xp.max(xp.abs(values), axis=-1))
    finite = xp.isfinite(backend.norm(g) + backend.norm(h)) & xp.isfinite(backend.norm(inner))
    return finite & ~(values[..., 0] > rounding)


class _State(NamedTuple):
    flow: Flow
    left: Array
    signs: Signs
    escaped: Array
    growth: Array


def _double(backend: Backend, state: _State) -> tuple[_State, Array]:
    """One doubling of the members that are not at their end."""
    flow, left, signs, escaped, growth = state
    active = (left > 0) & ~escaped
    escaped = escaped | escapes_at_doubling(backend, flow, signs, active)
    flow = select(active, backend, double(backend, flow, backend.inv), flow)
    growth = backend.xp.maximum(growth, backend.norm(flow.f))
    return _State(flow, left - 1, signs, escaped, growth), (left > 1) & ~escaped


def escapes_at_doubling(backend: Backend, flow: Flow, signs: Signs, active: Array) -> Array:
    """Whether the solution from 0 escapes in the second half of the double time."""
    return backend.rare_cond(
        active & ~((signs.g > 0) & (signs.rate > 0)),
        lambda g, h, signs: escapes(backend, g, h, signs),
        lambda g, h, signs: backend.ones(g) < 0,
        *(flow.g, flow.h, signs),
    )


def escapes_to(backend: Backend, flow: Flow, end: Array, signs: Signs) -> Array:
    """Whether the solution escapes that starts at `end` and not at 0."""
    return backend.rare_cond(
        (definiteness(backend, end) != signs.g) & (backend.norm(end) > 0),
        lambda g, end, signs: escapes(backend, g, end, signs),
        lambda g, end, signs: backend.ones(g) < 0,
        *(flow.g, end, signs),
    )


class Solved(NamedTuple):
    """A horizon, the flow for its time, whether the solution escapes, and the largest ‖f‖ on the way."""

    horizon: Horizon
    flow: Flow
    escaped: Array
    growth: Array


def flow_from(backend: Backend, p: StandardForm, units: Units, xf: Array, t: Array, w: Array) -> Solved:
    """The flow for the time t, from w."""
    horizon = _prepare(backend, p, units, xf, t, w, _signs(backend, p, w))
    one = backend.ones(horizon.m)
    start = _State(short_flow(backend, horizon.m, backend.inv), horizon.counts, horizon.signs, one < 0, one)
    end = backend.loop(lambda state: _double(backend, state), start, MAX_DOUBLINGS)
    return Solved(horizon, end.flow, end.escaped, end.growth)


def value_at_start(backend: Backend, flow: Flow, end: Array) -> Array:
    """h + fᴴ end (I + g end)⁻¹ f."""
    return hermitian(flow.h + adjoint(flow.f) @ (end @ transition(backend, flow, end, backend.inv)))
