"""Algebraic Riccati equations, continuous and discrete alike: scale, solve, correct, judge, and say how wrong it is."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.members import Solution, as_details, no_details, nothing_failed, overflow_failure, solution
from matsign.direct import qz
from matsign.equations.riccati.decimal_fallback import (
    affordable,
    outside_cone,
    positive,
    replace_by_decimals,
    replace_by_double,
    solve_in_decimals,
    unpack,
)
from matsign.equations.riccati.newton_kleinman import (
    Candidate,
    Equation,
    better_of,
    correct,
    is_acceptable,
    polish,
    refine,
)
from matsign.equations.riccati.nonsymmetric_methods import graph_by_sign
from matsign.equations.riccati.problem import (
    RiccatiProblem,
    StandardForm,
    Units,
    in_units,
    scale_problem,
    standard_form,
    standard_in_units,
    state_units,
    time_exponent,
    with_shift,
)
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye, hermitian, safe_divisor

# By so many roundings of its norm the least eigenvalue of a regular r is positive.
_REGULAR = 16


METHODS = ("auto", "doubling", "sign", "qz")


def solver_of(equation: Equation) -> Callable[..., Solution]:
    """The solver of a public function."""

    def solve(
        backend: Backend,
        a: Array,
        b: Array,
        q: Array,
        r: Array,
        e: Array | None,
        s: Array | None,
        *,
        method: str,
        balanced: bool = True,
    ) -> Solution:
        # One that is Hermitian stays as it is, to the last bit.
        problem = in_good_units(backend, equation, RiccatiProblem(a, b, hermitian(q), hermitian(r), e, s), balanced)
        found = refine(backend, equation, problem.plant, _candidate(backend, equation, problem, method))
        x, failure, steps, known = _classify(backend, equation, problem.plant, found)
        lost = (failure == 0) & ~known & is_singular(backend, equation, problem.plant, x)
        if equation.discrete and affordable(backend, x, 2):
            lost = backend.masked_cond(
                lost, functools.partial(_is_lost, backend), lambda p, x, lost: lost, problem.plant, x, lost
            )
        if not nothing_failed(backend, lost):
            failure = Failure.SINGULAR_R.where(backend, lost, failure)
        failure, detail = _explain(backend, equation, RiccatiProblem(a, b, q, r, e, s), problem.plant, failure)
        if not backend.is_traced(failure) and backend.any_true(failure):
            is_lost = failure == int(Failure.LOST)
            detail = backend.masked_cond(
                is_lost,
                functools.partial(_iterate_error, backend, equation),
                lambda p, x, d: d,
                problem.plant,
                x,
                detail,
            )
        x = hermitian(problem.units.restore(backend, x))
        return solution(backend, (x,), iterations=steps)._replace(
            failure=overflow_failure(backend, x, failure), detail=detail
        )

    return solve


def _iterate_error(backend: Backend, equation: Equation, p: RiccatiProblem, x: Array, detail: Array) -> Array:
    """The backward error of an iterate that is no solution, as the figure of an error."""
    at = equation.gap(backend, p, x)
    return as_details(backend, x, backend.norm(at.gap) / safe_divisor(backend, at.terms))


class Problem(NamedTuple):
    """A plant in good units, its standard form (something harmless where it has none, and `sound` false), and the units."""

    plant: RiccatiProblem
    simple: StandardForm
    sound: Array
    units: Units


def in_good_units(backend: Backend, equation: Equation, p: RiccatiProblem, balanced: bool) -> Problem:
    p, whole, operator = scale_problem(backend, p, discrete=equation.discrete)
    found = standard_form(backend, p, discrete=equation.discrete)
    sound = backend.xp.isfinite(backend.norm(found.a) + backend.norm(found.g) + backend.norm(found.q))
    simple = backend.rare_cond(~sound, lambda p: _harmless(backend, p), lambda p: p, found)
    states = state_units(backend, simple) if balanced else None
    return Problem(
        in_units(backend, p, states), standard_in_units(backend, simple, states), sound, Units(whole, states, operator)
    )


def _harmless(backend: Backend, p: StandardForm) -> StandardForm:
    """A problem of this shape that has a solution."""
    one = backend.xp.zeros_like(p.a) + eye(backend, p.a)
    return StandardForm(-one, one, one, None if p.short is None else backend.xp.zeros_like(p.short))


def _candidate(backend: Backend, equation: Equation, problem: Problem, method: str) -> Candidate:
    """The best solution that a method finds, or that all find between them."""

    def by_doubling(problem: Problem) -> Candidate:
        x, steps = equation.doubling(backend, problem.simple)
        return _correct(backend, equation, problem, x, steps)

    def by_hamiltonian(problem: Problem) -> Candidate:
        h11, h12, h21, h22 = equation.hamiltonian(backend, problem.simple)
        x, _, found = graph_by_sign(backend, -h22, -h11, -h21, -h12)
        return _correct(backend, equation, problem, hermitian(x), found.steps)

    def by_qz(problem: Problem) -> Candidate:
        return _by_qz(backend, equation, problem.plant)

    one_way = {"doubling": by_doubling, "sign": by_hamiltonian, "qz": by_qz}
    if method != "auto":
        return one_way[method](problem)

    def keep(problem: Problem, c: Candidate) -> Candidate:
        return c

    c = replace_by_double(backend, equation, problem.plant, by_doubling(problem))
    c = backend.rare_cond(
        ~is_acceptable(backend, c), lambda problem, c: better_of(backend, c, by_hamiltonian(problem)), keep, problem, c
    )
    if backend.is_traced(c.x):
        # A third way would take as long to compile as the first two; what these miss is NaN.
        return c
    return backend.masked_cond(
        ~is_acceptable(backend, c), lambda problem, c: better_of(backend, c, by_qz(problem)), keep, problem, c
    )


def _correct(backend: Backend, equation: Equation, problem: Problem, y: Array, steps: Array) -> Candidate:
    """From a solution of the standard form."""
    y = with_shift(backend, problem.simple, y)
    return correct(backend, equation, problem.plant, _where_sound(backend, problem.sound, y), steps)


def _by_qz(backend: Backend, equation: Equation, p: RiccatiProblem) -> Candidate:
    x, found = backend.host_callback(
        functools.partial(_host_qz, equation.discrete, p.e is not None, p.s is not None),
        (p.q, backend.ones(p.a) > 0),
        *(m for m in p if m is not None),
    )
    return correct(backend, equation, p, _where_sound(backend, found, x), backend.ones(x))


def _host_qz(discrete: bool, with_e: bool, with_s: bool, *arrays: Any) -> Any:
    return qz.riccati(discrete, *unpack(with_e, with_s, arrays))


def _where_sound(backend: Backend, sound: Array, x: Array) -> Array:
    return backend.rare_cond(~sound, lambda x: backend.xp.full_like(x, backend.xp.nan), lambda x: x, x)


def _classify(
    backend: Backend, equation: Equation, p: RiccatiProblem, c: Candidate
) -> tuple[Array, Array, Array, Array]:
    """(x, failure, steps, whether more digits have settled it): a stable solution as it is; of the rest, why there is none, or
    the limit of stable ones.
    """
    enough = backend.eps(c.x) ** 0.5

    def usable(c: Candidate) -> Array:
        # With a step of Newton's as long as x, the residual says nothing: the equation has parts too far apart for one norm.
        return c.stable & (c.residual < enough) & (c.move < 1)

    if backend.is_traced(c.x):
        lost = backend.xp.where(
            usable(c) & ~outside_cone(backend, p, c.x), int(Failure.NONE), int(Failure.NOT_CONVERGED)
        )
        return c.x, backend.xp.astype(lost, backend.xp.int32), c.steps, c.stable & ~c.stable

    def open_question(p: RiccatiProblem, c: Candidate) -> tuple[Candidate, Array, Array]:
        """Stable as it seems, and not proven, or impossible: the answer in more digits, and whether there is none."""
        unsettled, before = outside_cone(backend, p, c.x), c.sure
        if affordable(backend, c.x):
            reason = _diagnose(backend, equation, p, equation.gap(backend, p, c.x).closed, c.stable & ~c.stable)
            tried = _without_reason(reason)
            c = backend.masked_cond(
                tried, functools.partial(replace_by_decimals, backend, equation), lambda p, c: c, p, c
            )
            # With a reason against it, one that Newton's method would move by a digit is none.
            vague = ~tried & (reason != int(Failure.NONE)) & ~(c.move < backend.eps(c.x) ** 0.25)
            unsettled, before = unsettled | tried | vague, before & ~tried
        return c, unsettled & ~c.sure, c.sure & ~before

    def doubtful(p: RiccatiProblem, c: Candidate, wrong: Array, known: Array) -> tuple[Array, ...]:
        limit = polish(backend, equation, p, c.x, c.steps)
        near = (limit.residual < enough) & _holds_in_every_state(backend, equation, p, limit.x) & ~wrong
        failure = _diagnose(backend, equation, p, equation.gap(backend, p, limit.x).closed, near)
        if not affordable(backend, c.x):
            return limit.x, failure, limit.steps, known
        found = limit.x, failure, limit.steps, known
        return backend.masked_cond(_without_reason(failure), more_digits, lambda p, *found: found, p, *found)

    def more_digits(p: RiccatiProblem, x: Array, failure: Array, steps: Array, known: Array) -> tuple[Array, ...]:
        found = solve_in_decimals(backend, equation, p)
        at = equation.exact_gap(backend, p, found.x)
        # Of a stabilising one nothing more is asked: rounded, it may be that of no plant nearby.
        near = found.found & (found.stable | (backend.norm(at.gap) < enough * at.terms))
        again = _diagnose(backend, equation, p, found.closed, near)
        again = backend.xp.where(near & found.stable, backend.int_zeros(x), again)
        return (
            backend.xp.where(broadcast_scalar(near), found.x, x),
            backend.xp.where(near, again, failure),
            steps + 1,
            known | near,
        )

    def fine(p: RiccatiProblem, c: Candidate, wrong: Array, known: Array) -> tuple[Array, ...]:
        return c.x, backend.int_zeros(c.x), c.steps, known

    def nothing_open(p: RiccatiProblem, c: Candidate) -> tuple[Candidate, Array, Array]:
        return c, c.stable & ~c.stable, c.stable & ~c.stable

    if p.s is not None and affordable(backend, c.x):
        # Where r is lost, so is what the cross term asks for along inputs that b hides.
        c = c._replace(sure=c.sure & ~is_singular(backend, equation, p, c.x))
    suspicious = c.stable & (~c.sure | outside_cone(backend, p, c.x))
    c, wrong, known = backend.masked_cond(suspicious, open_question, nothing_open, p, c)
    return backend.masked_cond(~usable(c) | wrong, doubtful, fine, p, c, wrong, known)


def _without_reason(failure: Array) -> Array:
    """Where working precision has not found a reason that more digits do not remove."""
    there = failure != failure
    for reason in (Failure.NONE, Failure.NOT_CONVERGED, Failure.NOT_DETECTABLE, Failure.NOT_STABILISING):
        there = there | (failure == int(reason))
    return there


def _diagnose(backend: Backend, equation: Equation, p: RiccatiProblem, closed: Array, near: Array) -> Array:
    return backend.host_callback(
        functools.partial(_host_diagnose, equation.discrete, p.e is not None, p.s is not None),
        backend.int_zeros(p.a),
        *(m for m in p if m is not None),
        zero_nonfinite_entries(backend, closed),
        near,
    )


def _holds_in_every_state(backend: Backend, equation: Equation, p: RiccatiProblem, x: Array) -> Array:
    """Whether what is left of the equation is small on its diagonal beside the terms there, which no unit of a state changes.

    In one norm for all the equations of fast modes hide those of slow ones.
    """
    xp, at = backend.xp, equation.gap(backend, p, x)
    a, b, size = (xp.abs(m) for m in (p.a, p.b, x))
    e, s = (None if m is None else xp.abs(m) for m in (p.e, p.s))
    xe = size if e is None else size @ e
    past = size @ a if equation.discrete else xe
    inner = b.mT @ past if s is None else b.mT @ past + s.mT
    kept = (xe if e is None else e.mT @ xe) + a.mT @ past if equation.discrete else 2 * (a.mT @ past)
    terms = kept + xp.abs(p.q) + xp.abs(at.gain).mT @ inner
    left, terms = (xp.linalg.diagonal(m) for m in (xp.abs(at.gap), terms))
    return (left <= backend.eps(x) ** 0.5 * terms).all(-1)


def zero_nonfinite_entries(backend: Backend, x: Array) -> Array:
    """x with zeros for what is not finite: LAPACK and the host do not want to see it."""
    return backend.xp.where(backend.xp.isfinite(x), x, backend.xp.zeros_like(x))


def _host_diagnose(discrete: bool, with_e: bool, with_s: bool, *arrays: Any) -> Any:
    return qz.diagnose(discrete, *unpack(with_e, with_s, arrays))


def is_singular(backend: Backend, equation: Equation, p: RiccatiProblem, x: Array) -> Array:
    """Whether r (or r + bᴴ x b) may be regular by rounding alone, whatever the units of its rows: no digit of a gain is known."""
    weight = p.r + adjoint(p.b) @ x @ p.b if equation.discrete else p.r
    longest = backend.xp.max(backend.xp.abs(weight), axis=-1)
    weight = weight / safe_divisor(backend, longest)[..., :, None]
    return ~(backend.norm(weight) * backend.norm(backend.inv(weight)) * (4 * weight.shape[-1] * backend.eps(x)) < 1)


def _is_lost(backend: Backend, p: RiccatiProblem, x: Array, lost: Array) -> Array:
    """Of singular r + bᴴ x b, which are so by r: beside a positive definite r, x ⪰ 0 makes none singular but by its size, and
    more digits give its gain.
    """
    return lost & ~(positive(backend, x, 1) & positive(backend, p.r, -_REGULAR))


def _explain(
    backend: Backend, equation: Equation, given: RiccatiProblem, p: RiccatiProblem, failure: Array
) -> tuple[Array, Array]:
    """(failure, figure) of the members without a solution, in the units of the plant given; what is compiled never says why."""
    nothing = no_details(backend, p.a)
    if backend.is_traced(failure) or not backend.any_true(failure):
        return failure, nothing

    def why(given: RiccatiProblem, p: RiccatiProblem, failure: Array, nothing: Array) -> tuple[Array, Array]:
        failure, figure = backend.host_callback(
            functools.partial(_host_explain, equation.discrete, p.e is not None, p.s is not None),
            (failure, nothing),
            *(m for m in p if m is not None),
            failure,
        )
        pace = time_exponent(backend, given, discrete=equation.discrete)
        return failure, backend.ldexp(figure, backend.xp.where(_is_eigenvalue(failure), pace, 0 * pace)[..., None])

    def silent(given: RiccatiProblem, p: RiccatiProblem, failure: Array, nothing: Array) -> tuple[Array, Array]:
        return failure, nothing

    found: tuple[Array, Array] = backend.masked_cond(failure > 0, why, silent, given, p, failure, nothing)
    return found


def _host_explain(discrete: bool, with_e: bool, with_s: bool, *arrays: Any) -> Any:
    return qz.explain_failures(discrete, *unpack(with_e, with_s, arrays))


def _is_eigenvalue(failure: Array) -> Array:
    """Whether the figure of a failure is an eigenvalue, in the time of the plant."""
    there = failure != failure
    for reason in (
        Failure.NOT_STABILISABLE,
        Failure.NOT_DETECTABLE,
        Failure.NOT_STABILISING,
        Failure.HARDLY_STABILISED,
    ):
        there = there | (failure == int(reason))
    return there
