"""The solver that continuous and discrete algebraic Riccati equations (`Equation`) share.

Scale, solve by one method or several, correct by Newton's method, and classify: a solution, or the reason why there is none.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.members import Solution, as_details, no_details, overflow_failure, solution
from matsign.direct import qz
from matsign.equations.riccati.classification import classify, weight_is_singular
from matsign.equations.riccati.decimal_fallback import replace_by_double
from matsign.equations.riccati.newton_kleinman import (
    Candidate,
    Equation,
    better_of,
    correct,
    is_acceptable,
    is_promising,
    no_candidate,
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
    unpack,
    with_shift,
)
from matsign.linalg.stacks import eye, hermitian, safe_divisor

METHODS = ("auto", "doubling", "sign", "qz")


def solver_of(equation: Equation) -> Callable[..., Solution]:
    """The solver of a public function. Where `start` is near a solution, Newton's method from it takes the place of `method`."""

    def solve(
        backend: Backend,
        p: RiccatiProblem,
        *,
        method: str,
        balanced: bool = True,
        start: Array | None = None,
    ) -> Solution:
        problem = in_good_units(backend, equation, p.hermitian_parts(), balanced)
        candidate = refine(backend, equation, problem.plant, _candidate(backend, equation, problem, method, start))
        x, failure, steps, known = classify(backend, equation, problem.plant, candidate)
        singular = (failure == 0) & ~known & weight_is_singular(backend, equation, problem.plant, x)
        failure = Failure.SINGULAR_R.where(backend, singular, failure)
        failure, detail = explain(backend, equation, p, problem.plant, failure)
        detail = _with_error_of_iterate(backend, equation, problem.plant, x, failure, detail)
        x = hermitian(problem.units.restore(backend, x))
        return solution(backend, (x,), iterations=steps)._replace(
            failure=overflow_failure(backend, x, failure), detail=detail
        )

    return solve


def _with_error_of_iterate(
    backend: Backend, equation: Equation, p: RiccatiProblem, x: Array, failure: Array, detail: Array
) -> Array:
    """The details, with the backward errors of the best iterates of members whose iteration failed."""
    if backend.is_traced(failure) or not backend.any_true(failure):
        return detail
    error = functools.partial(_iterate_error, backend, equation)
    is_lost = failure == int(Failure.LOST)
    result: Array = backend.masked_cond(is_lost, error, lambda p, x, detail: detail, p, x, detail)
    return result


def _iterate_error(backend: Backend, equation: Equation, p: RiccatiProblem, x: Array, detail: Array) -> Array:
    """The backward error of the best iterate of a failed member, for its error message."""
    at = equation.gap(backend, p, x)
    return as_details(backend, x, backend.norm(at.gap) / safe_divisor(backend, at.terms))


class Problem(NamedTuple):
    """A scaled plant, its standard form and the units. If there is none, `sound` is False and `simple` a solvable stand-in."""

    plant: RiccatiProblem
    simple: StandardForm
    sound: Array
    units: Units


def in_good_units(backend: Backend, equation: Equation, p: RiccatiProblem, balanced: bool) -> Problem:
    p, whole, operator = scale_problem(backend, p, discrete=equation.discrete)
    standard = standard_form(backend, p, discrete=equation.discrete)
    sound = backend.xp.isfinite(backend.norm(standard.a) + backend.norm(standard.g) + backend.norm(standard.q))
    simple = backend.rare_cond(~sound, lambda p: _solvable_stand_in(backend, p), lambda p: p, standard)
    states = state_units(backend, simple) if balanced else None
    return Problem(
        in_units(backend, p, states), standard_in_units(backend, simple, states), sound, Units(whole, states, operator)
    )


def _solvable_stand_in(backend: Backend, p: StandardForm) -> StandardForm:
    """A problem of this shape that has a solution: a = -I, g = q = I."""
    one = backend.xp.zeros_like(p.a) + eye(backend, p.a)
    return StandardForm(-one, one, one, None if p.shift is None else backend.xp.zeros_like(p.shift))


def _candidate(backend: Backend, equation: Equation, problem: Problem, method: str, start: Array | None) -> Candidate:
    """The solution by Newton's method from `start`, or by `method` where that does not find it."""
    if start is None:
        return _by_method(backend, equation, problem, method)
    x = hermitian(problem.units.apply(backend, start))
    promising = problem.sound & is_promising(backend, equation, problem.plant, x)
    c = backend.masked_cond(
        promising,
        lambda p, x: correct(backend, equation, p, x, 0 * backend.ones(x)),
        lambda p, x: no_candidate(backend, x),
        *(problem.plant, x),
    )
    return backend.rare_cond(
        ~is_acceptable(backend, c),
        lambda problem, c: better_of(backend, c, _by_method(backend, equation, problem, method)),
        lambda problem, c: c,
        *(problem, c),
    )


def _by_method(backend: Backend, equation: Equation, problem: Problem, method: str) -> Candidate:
    """The solution by `method`; for "auto" the best of doubling, sign and QZ, stopping at the first acceptable one."""

    def by_doubling(problem: Problem) -> Candidate:
        x, steps = equation.doubling(backend, problem.simple)
        return _correct(backend, equation, problem, x, steps)

    def by_sign(problem: Problem) -> Candidate:
        h11, h12, h21, h22 = equation.hamiltonian(backend, problem.simple)
        x, _, iterate = graph_by_sign(backend, -h22, -h11, -h21, -h12)
        return _correct(backend, equation, problem, hermitian(x), iterate.steps)

    def by_qz(problem: Problem) -> Candidate:
        return _by_qz(backend, equation, problem.plant)

    solvers = {"doubling": by_doubling, "sign": by_sign, "qz": by_qz}
    if method != "auto":
        return solvers[method](problem)

    def keep(problem: Problem, c: Candidate) -> Candidate:
        return c

    c = replace_by_double(backend, equation, problem.plant, by_doubling(problem))
    c = backend.rare_cond(
        ~is_acceptable(backend, c), lambda problem, c: better_of(backend, c, by_sign(problem)), keep, problem, c
    )
    if backend.is_traced(c.x):
        # QZ would take as long to compile as doubling and sign together; members that these do not solve are NaN.
        return c
    return backend.masked_cond(
        ~is_acceptable(backend, c), lambda problem, c: better_of(backend, c, by_qz(problem)), keep, problem, c
    )


def _correct(backend: Backend, equation: Equation, problem: Problem, y: Array, steps: Array) -> Candidate:
    """Newton's method from the solution y of the standard form."""
    y = with_shift(backend, problem.simple, y)
    return correct(backend, equation, problem.plant, _where_sound(backend, problem.sound, y), steps)


def _by_qz(backend: Backend, equation: Equation, p: RiccatiProblem) -> Candidate:
    x, solved = backend.host_callback(
        functools.partial(_host_qz, equation.discrete, p.layout()),
        (p.q, backend.ones(p.a) > 0),
        *p.present(),
    )
    return correct(backend, equation, p, _where_sound(backend, solved, x), backend.ones(x))


def _host_qz(discrete: bool, layout: tuple[bool, ...], *arrays: Any) -> Any:
    return qz.riccati(discrete, *unpack(layout, arrays))


def _where_sound(backend: Backend, sound: Array, x: Array) -> Array:
    return backend.rare_cond(~sound, lambda x: backend.xp.full_like(x, backend.xp.nan), lambda x: x, x)


def explain(
    backend: Backend, equation: Equation, original: RiccatiProblem, p: RiccatiProblem, failure: Array
) -> tuple[Array, Array]:
    """(failure, detail) of the members without a solution, in the units of `original`; traced programs report no reasons."""
    nothing = no_details(backend, p.a)
    if backend.is_traced(failure) or not backend.any_true(failure):
        return failure, nothing

    def find_reasons(
        original: RiccatiProblem, p: RiccatiProblem, failure: Array, nothing: Array
    ) -> tuple[Array, Array]:
        failure, detail = backend.host_callback(
            functools.partial(_host_explain, equation.discrete, p.layout()),
            (failure, nothing),
            *p.present(),
            failure,
        )
        exponent = time_exponent(backend, original, discrete=equation.discrete)
        return failure, backend.ldexp(
            detail, backend.xp.where(is_eigenvalue(failure), exponent, 0 * exponent)[..., None]
        )

    def keep(original: RiccatiProblem, p: RiccatiProblem, failure: Array, nothing: Array) -> tuple[Array, Array]:
        return failure, nothing

    result: tuple[Array, Array] = backend.masked_cond(failure > 0, find_reasons, keep, original, p, failure, nothing)
    return result


def _host_explain(discrete: bool, layout: tuple[bool, ...], *arrays: Any) -> Any:
    return qz.explain_failures(discrete, *unpack(layout, arrays))


def is_eigenvalue(failure: Array) -> Array:
    """Whether the detail of the failure is an eigenvalue, which scales with time."""
    result = failure != failure
    for reason in (
        Failure.NOT_STABILISABLE,
        Failure.NOT_DETECTABLE,
        Failure.NOT_STABILISING,
        Failure.HARDLY_STABILISED,
    ):
        result = result | (failure == int(reason))
    return result
