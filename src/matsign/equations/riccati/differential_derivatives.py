"""Derivatives of solutions of the differential Riccati equation.

With the states z and costates λ = x z of the optimal control u = -k₀ z - k₁ λ, k₀ = r⁻¹ sᴴ and k₁ = r⁻¹ bᴴ, the least cost
changes by

    z₀ᴴ dx z₀ = ∫ zᴴ dq z + 2 Re λᴴ (da z + db u) + 2 Re zᴴ ds u + uᴴ dr u dt + z₁ᴴ dxf z₁,

since it is stationary in z, λ and u. The integral is that of `flow`, and so is its adjoint. The rate of change of x is dx/dt.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.members import Solution, solution
from matsign.core.operations import Operation, apply, shapes_of
from matsign.equations.riccati.differential_methods import hamiltonian, rate, with_start
from matsign.equations.riccati.flow import (
    MAX_DOUBLINGS,
    Flow,
    Level,
    integral,
    interior,
    levels,
    lift,
    lower,
    short_flow,
    transition,
)
from matsign.equations.riccati.march import MAX_STEPS, March, solve_horizon
from matsign.equations.riccati.problem import RiccatiProblem, StandardForm, Units
from matsign.iterations.differentiable_solves import inverse
from matsign.linalg.stacks import adjoint, assemble, broadcast_scalar, eye, hermitian


class Control(NamedTuple):
    """The plant without cross term, and k₀ (None for 0) and k₁."""

    simple: StandardForm
    by_state: Array | None
    by_costate: Array


class Segment(NamedTuple):
    """The flow along a part of the horizon, in the units of the problem; `step` is the time that is doubled.

    The flow after all levels is repeated.
    """

    shear: Array
    m: Array
    step: Array
    first: Flow
    levels: Level
    repetitions: Repetitions


class Repetitions(NamedTuple):
    """For each repetition the maps from z₀ to (z₀, λ₁) and to z₁, and the members that have it, stacked along a leading axis."""

    boundary: Array
    transition: Array
    mask: Array


class Path(NamedTuple):
    """The one or two segments of a horizon, stacked along a leading axis, the last one first."""

    control: Control
    units: Units
    segments: Segment


def control_of(backend: Backend, p: RiccatiProblem) -> Control:
    """The `Control` of a plant."""
    r_inverse = inverse(backend, hermitian(p.r))
    k1 = r_inverse @ adjoint(p.b)
    k0 = None if p.s is None else r_inverse @ adjoint(p.s)
    q = hermitian(p.q)
    simple = StandardForm(p.a, p.b @ k1, q, None)
    if k0 is not None:
        simple = StandardForm(p.a - p.b @ k0, p.b @ k1, q - p.s @ k0, None)
    return Control(simple, k0, k1)


def in_units(backend: Backend, units: Units, p: StandardForm) -> StandardForm:
    """The coefficients for the time and the states of the units."""
    whole, time = broadcast_scalar(units.whole), broadcast_scalar(units.operator)
    rows, columns = (0, 0) if units.states is None else (units.states[..., :, None], units.states[..., None, :])
    return StandardForm(
        backend.ldexp(p.a, rows - columns - time),
        backend.ldexp(p.g, rows + columns + whole - time),
        backend.ldexp(p.q, -rows - columns - whole - time),
        None,
    )


def _solve_division(
    backend: Backend, a: Array, b: Array, q: Array, r: Array, xf: Array, s: Array | None, *, t: Array
) -> Solution:
    march, horizon, units, *_ = solve_horizon(backend, RiccatiProblem(a, b, q, r, None, s), xf, t)
    kind = backend.dtype_name(a.real)
    states = 0 * a[..., 0].real if units.states is None else backend.astype(units.states, kind)
    numbers = (backend.astype(x, kind) for x in (units.whole, units.operator, *march, horizon.counts))
    return solution(backend, (horizon.start, states, *numbers))


# An operation, so that JAX does not compile it on a CPU.
_DIVISION = Operation(
    "division of a horizon",
    shapes_of("(n,n),(n,m),(n,n),(m,m),(n,n),(n,m)"),
    shapes_of("(n,n),(n),(),(),(),(),(),()"),
    solve=_solve_division,
    kinds=("same", *("real",) * 7),
    numbers=("t",),
)


class Division(NamedTuple):
    """What the solver chooses and x does not depend on: w, the units, the steps at the end, the doublings of the rest."""

    w: Array
    units: Units
    march: March
    counts: Array


def _division(backend: Backend, p: RiccatiProblem, xf: Array, t: Array) -> Division:
    arrays = (None if x is None else backend.stop_gradient(x) for x in (p.a, p.b, p.q, p.r, xf, p.s, t))
    w, *numbers = (backend.stop_gradient(x) for x in apply(backend, _DIVISION, *arrays))
    states, whole, operator, steps, inner, outer, counts = (backend.astype(x, "int32") for x in numbers)
    return Division(w, Units(whole, states, operator), March(steps, inner, outer), counts)


def path_of(backend: Backend, p: RiccatiProblem, xf: Array, t: Any) -> Path:
    """The `Path` of a problem."""
    t = t * backend.ones(p.a)
    w, units, (steps, inner, outer), counts = _division(backend, p, xf, t)
    control = control_of(backend, p)
    simple, end = in_units(backend, units, control.simple), units.apply(backend, hermitian(xf))
    rest = t * (1 - backend.ldexp(backend.astype(steps, backend.dtype_name(t)), inner - outer))
    early = _Section(0 * w, backend.ldexp(t, units.operator - outer), inner, steps)
    late = _Section(w, backend.ldexp(rest, units.operator - counts), counts, 0 * counts + 1)
    parts = (early, late) if backend.is_traced(steps) or backend.any_true(steps) else (late,)
    sections = _Section(*(backend.xp.stack(x) for x in zip(*parts, strict=True)))
    most = _most(backend, sections.counts, MAX_DOUBLINGS), _most(backend, sections.times, MAX_STEPS)

    def step(end: Array, section: _Section) -> tuple[Array, Segment]:
        return _segment(backend, simple, end, section, most)

    return Path(control, units, backend.scan(step, end, sections)[1])


class _Section(NamedTuple):
    """w, the time that is doubled, the number of doublings, and of repetitions of the flow."""

    w: Array
    step: Array
    counts: Array
    times: Array


def _most(backend: Backend, numbers: Array, limit: int) -> int:
    """The largest number, at least 1; a bound of it under a trace."""
    return max(1, int(backend.xp.max(numbers))) if backend.dynamic_shapes(numbers) else limit


def _segment(
    backend: Backend, p: StandardForm, end: Array, section: _Section, most: tuple[int, int]
) -> tuple[Array, Segment]:
    """x at the beginning of a section with x = `end` at its end, and the segment."""
    (w, step, counts, times), invert = section, functools.partial(inverse, backend)
    step = broadcast_scalar(step)
    m = hamiltonian(backend, with_start(p, w)) * step
    first = short_flow(backend, m, invert)
    last, before = levels(backend, first, counts, invert, most[0])
    one = eye(backend, w) + 0 * w

    def repeat(y: Array, k: Any) -> tuple[Array, Repetitions]:
        moved = transition(backend, last, y, invert)
        boundary, mask = backend.xp.concat([one, y @ moved], axis=-2), k < times
        new = hermitian(last.h + adjoint(last.f) @ y @ moved)
        return backend.xp.where(broadcast_scalar(mask), new, y), Repetitions(boundary, moved, mask)

    y, repetitions = backend.scan(repeat, end - w, range(most[1]))
    return w + y, Segment(assemble(backend, one, 0 * w, w, one), m, step, first, before, repetitions)


def solution_jvp(backend: Backend, at: Path, d: RiccatiProblem, dxf: Array) -> Array:
    """dx for a change d of the plant and dxf."""
    k = in_units(backend, at.units, _standard_jvp(at.control, d))
    dx, change = at.units.apply(backend, hermitian(dxf)), assemble(backend, k.q, adjoint(k.a), k.a, -k.g)
    dx = backend.scan(lambda dx, segment: (_segment_jvp(backend, segment, change, dx), None), dx, at.segments)[0]
    return hermitian(at.units.restore(backend, dx))


def _segment_jvp(backend: Backend, at: Segment, change: Array, dx: Array) -> Array:
    ends = interior(backend, at.first)
    dv = adjoint(ends) @ integral(backend, at.m, adjoint(at.shear) @ change @ at.shear * at.step) @ ends
    dv = lift(backend, at.levels, dv, functools.partial(inverse, backend))

    def repeat(dx: Array, once: Repetitions) -> tuple[Array, None]:
        new = adjoint(once.boundary) @ dv @ once.boundary + adjoint(once.transition) @ dx @ once.transition
        return backend.xp.where(broadcast_scalar(once.mask), new, dx), None

    return backend.scan(repeat, dx, at.repetitions)[0]


def _standard_jvp(at: Control, d: RiccatiProblem) -> StandardForm:
    k0, k1 = at.by_state, at.by_costate
    half = d.b @ k1
    dg = half + adjoint(half) - adjoint(k1) @ hermitian(d.r) @ k1
    if k0 is None:
        return StandardForm(d.a, dg, hermitian(d.q), None)
    across = hermitian(d.r) @ k0 - adjoint(d.s)
    return StandardForm(
        d.a - d.b @ k0 + adjoint(k1) @ across, dg, hermitian(d.q - d.s @ k0 + adjoint(k0) @ across), None
    )


def solution_vjp(backend: Backend, at: Path, bar: Array) -> tuple[RiccatiProblem, Array]:
    """The adjoint of `solution_jvp`: the cotangents of the plant and of xf."""
    bar = at.units.restore(backend, hermitian(bar))

    def step(state: tuple[Array, Array], segment: Segment) -> tuple[tuple[Array, Array], None]:
        part, bar = _segment_vjp(backend, segment, state[1])
        return (state[0] + part, bar), None

    p, bar = backend.scan(step, (0 * at.segments.m[0], bar), at.segments, reverse=True)[0]
    n = bar.shape[-1]
    blocks = in_units(backend, at.units, StandardForm(p[..., n:, :n], p[..., n:, n:], p[..., :n, :n], None))
    return _standard_vjp(at.control, blocks), at.units.apply(backend, bar)


def _segment_vjp(backend: Backend, at: Segment, bar: Array) -> tuple[Array, Array]:
    """The products of states and costates, integrated, and the cotangent of x at the end."""

    def repeat(state: tuple[Array, Array], once: Repetitions) -> tuple[tuple[Array, Array], None]:
        p, bar = state
        mask = broadcast_scalar(once.mask)
        new = p + once.boundary @ bar @ adjoint(once.boundary), once.transition @ bar @ adjoint(once.transition)
        return tuple(backend.xp.where(mask, x, y) for x, y in zip(new, state, strict=True)), None

    p, bar = backend.scan(repeat, (0 * at.m, bar), at.repetitions, reverse=True)[0]
    ends, p = interior(backend, at.first), lower(backend, at.levels, p, functools.partial(inverse, backend))
    p = integral(backend, adjoint(at.m), ends @ p @ adjoint(ends)) * at.step
    return at.shear @ p @ adjoint(at.shear), bar


def _standard_vjp(at: Control, p: StandardForm) -> RiccatiProblem:
    """The adjoint of `_standard_jvp` at 2 a, -g and q of p, which holds products of states and costates."""
    k0, k1 = at.by_state, at.by_costate
    costate_input = -(p.g @ adjoint(k1))
    state_input = -(adjoint(p.a) @ adjoint(k1))
    if k0 is not None:
        costate_input = costate_input - p.a @ adjoint(k0)
        state_input = state_input - p.q @ adjoint(k0)
    inputs = -(k1 @ costate_input)
    if k0 is not None:
        inputs = inputs - k0 @ state_input
    s = None if k0 is None else 2 * state_input
    return RiccatiProblem(2 * p.a, 2 * costate_input, hermitian(p.q), hermitian(inputs), None, s)


def rate_of(backend: Backend, p: RiccatiProblem, x: Array) -> Array:
    """The derivative of x with respect to the time before the end."""
    return rate(control_of(backend, p).simple, x)
