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

# r counts as positive definite if its least eigenvalue exceeds this many roundings of its norm.
_REGULAR_ROUNDINGS = 16


METHODS = ("auto", "doubling", "sign", "qz")


def solver_of(equation: Equation) -> Callable[..., Solution]:
    """The solver of a public function. Where `start` is near a solution, Newton's method from it takes the place of `method`."""

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
        start: Array | None = None,
    ) -> Solution:
        # `hermitian` does not change a bit of a Hermitian matrix.
        problem = in_good_units(backend, equation, RiccatiProblem(a, b, hermitian(q), hermitian(r), e, s), balanced)
        candidate = refine(backend, equation, problem.plant, _candidate(backend, equation, problem, method, start))
        x, failure, steps, known = _classify(backend, equation, problem.plant, candidate)
        singular = (failure == 0) & ~known & is_singular(backend, equation, problem.plant, x)
        if equation.discrete and affordable(backend, x, 2):
            singular = backend.masked_cond(
                singular,
                functools.partial(_singular_because_of_r, backend),
                lambda p, x, singular: singular,
                problem.plant,
                x,
                singular,
            )
        if not nothing_failed(backend, singular):
            failure = Failure.SINGULAR_R.where(backend, singular, failure)
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
    c = correct(backend, equation, problem.plant, _where_sound(backend, problem.sound, x), 0 * backend.ones(x))
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
        functools.partial(_host_qz, equation.discrete, p.e is not None, p.s is not None),
        (p.q, backend.ones(p.a) > 0),
        *(m for m in p if m is not None),
    )
    return correct(backend, equation, p, _where_sound(backend, solved, x), backend.ones(x))


def _host_qz(discrete: bool, with_e: bool, with_s: bool, *arrays: Any) -> Any:
    return qz.riccati(discrete, *unpack(with_e, with_s, arrays))


def _where_sound(backend: Backend, sound: Array, x: Array) -> Array:
    return backend.rare_cond(~sound, lambda x: backend.xp.full_like(x, backend.xp.nan), lambda x: x, x)


def _classify(
    backend: Backend, equation: Equation, p: RiccatiProblem, c: Candidate
) -> tuple[Array, Array, Array, Array]:
    """(x, failure, steps, whether x comes from decimal arithmetic).

    A stable solution passes unchanged. For other members, x is the limit of stable solutions, or there is a reason why not.
    """
    tolerance = backend.eps(c.x) ** 0.5
    # A limit of stable solutions, with half of the digits, has a residual near eps. Where eigenvalues of the pencil lie on the
    # boundary and there is no limit, iterates come as near as the distance of these eigenvalues squared.
    limit_tolerance = backend.eps(c.x) ** 0.75

    def usable(c: Candidate) -> Array:
        # If the Newton step is as large as x, a small residual proves nothing: parts of x differ too much in size for one norm.
        return c.stable & (c.residual < tolerance) & (c.move < 1)

    if backend.is_traced(c.x):
        failure = backend.xp.where(
            usable(c) & ~outside_cone(backend, p, c.x), int(Failure.NONE), int(Failure.NOT_CONVERGED)
        )
        return c.x, backend.xp.astype(failure, backend.xp.int32), c.steps, c.stable & ~c.stable

    def verify_in_decimals(p: RiccatiProblem, c: Candidate) -> tuple[Candidate, Array, Array]:
        """For candidates that look stable but are not proven or not positive semidefinite: (candidate, wrong, known)."""
        unproven, was_sure = outside_cone(backend, p, c.x), c.sure
        if affordable(backend, c.x):
            reason = _diagnose(backend, equation, p, equation.gap(backend, p, c.x).closed, c.stable & ~c.stable)
            tried = _open_to_decimals(reason)
            c = backend.masked_cond(
                tried, functools.partial(replace_by_decimals, backend, equation), lambda p, c: c, p, c
            )
            # If a reason against a solution was found, a candidate with a Newton step above eps^(1/4) is not accepted.
            excluded = ~tried & (reason != int(Failure.NONE)) & ~(c.move < backend.eps(c.x) ** 0.25)
            unproven, was_sure = unproven | tried | excluded, was_sure & ~tried
        return c, unproven & ~c.sure, c.sure & ~was_sure

    def boundary_or_failure(p: RiccatiProblem, c: Candidate, wrong: Array, known: Array) -> tuple[Array, ...]:
        limit = polish(backend, equation, p, c.x, c.steps)
        near = (limit.residual < limit_tolerance) & _holds_in_every_state(backend, equation, p, limit.x) & ~wrong
        failure = _diagnose(backend, equation, p, equation.gap(backend, p, limit.x).closed, near)
        if not affordable(backend, c.x):
            return limit.x, failure, limit.steps, known
        undecided = limit.x, failure, limit.steps, known
        return backend.masked_cond(
            _open_to_decimals(failure), retry_in_decimals, lambda p, *undecided: undecided, p, *undecided
        )

    def retry_in_decimals(p: RiccatiProblem, x: Array, failure: Array, steps: Array, known: Array) -> tuple[Array, ...]:
        decimals = solve_in_decimals(backend, equation, p)
        at = equation.exact_gap(backend, p, decimals.x)
        # A stabilising solution needs no residual test: rounded, it may have a large residual.
        near = decimals.found & (decimals.stable | (backend.norm(at.gap) < limit_tolerance * at.terms))
        again = _diagnose(backend, equation, p, decimals.closed, near)
        again = backend.xp.where(near & decimals.stable, backend.int_zeros(x), again)
        return (
            backend.xp.where(broadcast_scalar(near), decimals.x, x),
            backend.xp.where(near, again, failure),
            steps + 1,
            known | near,
        )

    def keep_solution(p: RiccatiProblem, c: Candidate, wrong: Array, known: Array) -> tuple[Array, ...]:
        return c.x, backend.int_zeros(c.x), c.steps, known

    def accept(p: RiccatiProblem, c: Candidate) -> tuple[Candidate, Array, Array]:
        return c, c.stable & ~c.stable, c.stable & ~c.stable

    if p.s is not None and affordable(backend, c.x):
        # If r (or r + bᴴ x b) is singular to working precision, the term s r⁻¹ sᴴ of the equation is inaccurate, too.
        c = c._replace(sure=c.sure & ~is_singular(backend, equation, p, c.x))
    suspicious = c.stable & (~c.sure | outside_cone(backend, p, c.x))
    c, wrong, known = backend.masked_cond(suspicious, verify_in_decimals, accept, p, c)
    return backend.masked_cond(~usable(c) | wrong, boundary_or_failure, keep_solution, p, c, wrong, known)


def _open_to_decimals(failure: Array) -> Array:
    """Whether the failure is one that decimal arithmetic may remove."""
    result = failure != failure
    for reason in (Failure.NONE, Failure.NOT_CONVERGED, Failure.NOT_DETECTABLE, Failure.NOT_STABILISING):
        result = result | (failure == int(reason))
    return result


def _diagnose(backend: Backend, equation: Equation, p: RiccatiProblem, closed: Array, near: Array) -> Array:
    return backend.host_callback(
        functools.partial(_host_diagnose, equation.discrete, p.e is not None, p.s is not None),
        backend.int_zeros(p.a),
        *(m for m in p if m is not None),
        zero_nonfinite_entries(backend, closed),
        near,
    )


def _holds_in_every_state(backend: Backend, equation: Equation, p: RiccatiProblem, x: Array) -> Array:
    """Whether each diagonal entry of the residual is small relative to its own terms, a ratio that no scaling of states changes.

    In a norm of the whole residual, errors in the equations of slow modes would be hidden by the terms of fast ones.
    """
    xp, at = backend.xp, equation.gap(backend, p, x)
    a, b, size = (xp.abs(m) for m in (p.a, p.b, x))
    e, s = (None if m is None else xp.abs(m) for m in (p.e, p.s))
    xe = size if e is None else size @ e
    xa_or_xe = size @ a if equation.discrete else xe
    inner = b.mT @ xa_or_xe if s is None else b.mT @ xa_or_xe + s.mT
    linear_terms = (xe if e is None else e.mT @ xe) + a.mT @ xa_or_xe if equation.discrete else 2 * (a.mT @ xa_or_xe)
    terms = linear_terms + xp.abs(p.q) + xp.abs(at.gain).mT @ inner
    left, terms = (xp.linalg.diagonal(m) for m in (xp.abs(at.gap), terms))
    return (left <= backend.eps(x) ** 0.5 * terms).all(-1)


def zero_nonfinite_entries(backend: Backend, x: Array) -> Array:
    """Replace non-finite entries by 0 before calling LAPACK."""
    return backend.xp.where(backend.xp.isfinite(x), x, backend.xp.zeros_like(x))


def _host_diagnose(discrete: bool, with_e: bool, with_s: bool, *arrays: Any) -> Any:
    return qz.diagnose(discrete, *unpack(with_e, with_s, arrays))


def is_singular(backend: Backend, equation: Equation, p: RiccatiProblem, x: Array) -> Array:
    """Whether r (or r + bᴴ x b), its rows scaled, is singular to within rounding: then no digit of the gain is reliable."""
    weight = p.r + adjoint(p.b) @ x @ p.b if equation.discrete else p.r
    longest = backend.xp.max(backend.xp.abs(weight), axis=-1)
    weight = weight / safe_divisor(backend, longest)[..., :, None]
    return ~(backend.norm(weight) * backend.norm(backend.inv(weight)) * (4 * weight.shape[-1] * backend.eps(x)) < 1)


def _singular_because_of_r(backend: Backend, p: RiccatiProblem, x: Array, singular: Array) -> Array:
    """Which members have a singular r + bᴴ x b because of r. If r ≻ 0 and x ⪰ 0, it is only ill-conditioned by the size of x,
    and decimal arithmetic gives the gain.
    """
    return singular & ~(positive(backend, x, 1) & positive(backend, p.r, -_REGULAR_ROUNDINGS))


def _explain(
    backend: Backend, equation: Equation, original: RiccatiProblem, p: RiccatiProblem, failure: Array
) -> tuple[Array, Array]:
    """(failure, detail) of the members without a solution, in the units of `original`; traced programs report no reasons."""
    nothing = no_details(backend, p.a)
    if backend.is_traced(failure) or not backend.any_true(failure):
        return failure, nothing

    def explain(original: RiccatiProblem, p: RiccatiProblem, failure: Array, nothing: Array) -> tuple[Array, Array]:
        failure, detail = backend.host_callback(
            functools.partial(_host_explain, equation.discrete, p.e is not None, p.s is not None),
            (failure, nothing),
            *(m for m in p if m is not None),
            failure,
        )
        exponent = time_exponent(backend, original, discrete=equation.discrete)
        return failure, backend.ldexp(
            detail, backend.xp.where(is_eigenvalue(failure), exponent, 0 * exponent)[..., None]
        )

    def unchanged(original: RiccatiProblem, p: RiccatiProblem, failure: Array, nothing: Array) -> tuple[Array, Array]:
        return failure, nothing

    result: tuple[Array, Array] = backend.masked_cond(failure > 0, explain, unchanged, original, p, failure, nothing)
    return result


def _host_explain(discrete: bool, with_e: bool, with_s: bool, *arrays: Any) -> Any:
    return qz.explain_failures(discrete, *unpack(with_e, with_s, arrays))


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
