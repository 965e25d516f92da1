"""Anti-stabilising solutions x, with all eigenvalues of the closed loop (a - b k, e) outside the boundary of stability.

-x is the stabilising solution of the problem with time reversed (`time_reversal`). In discrete time Newton's method corrects it
on the original equation, because the reversed problem mixes weights that may differ much in size.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.members import Solution, as_details, overflow_failure
from matsign.equations.riccati.classification import diagnose
from matsign.equations.riccati.decimal_fallback import affordable, solve_in_decimals
from matsign.equations.riccati.newton_kleinman import Equation, correct, is_acceptable, refine
from matsign.equations.riccati.problem import RiccatiProblem
from matsign.equations.riccati.solver import explain, in_good_units, is_eigenvalue, solver_of
from matsign.equations.riccati.time_reversal import reverse, zero_pencil
from matsign.iterations.structured_doubling import ClosedLoopSolution
from matsign.linalg.stacks import all_false, broadcast_scalar, eye, hermitian, safe_divisor

# The reasons of the reversed problem, in the words of the original one.
_REASONS = {
    Failure.NOT_STABILISABLE: Failure.NOT_ANTI_STABILISABLE,
    Failure.NOT_DETECTABLE: Failure.NOT_WEIGHTED,
    Failure.NOT_STABILISING: Failure.NOT_ANTI_STABILISING,
    Failure.HARDLY_STABILISABLE: Failure.HARDLY_ANTI_STABILISABLE,
    Failure.HARDLY_STABILISED: Failure.HARDLY_ANTI_STABILISED,
    Failure.LOST: Failure.ANTI_LOST,
}


def anti_stabilising(equation: Equation) -> Equation:
    """The same equation with Newton steps for anti-stabilising solutions."""

    def steps(backend: Backend, p: RiccatiProblem, closed: Array, *gaps: Array) -> ClosedLoopSolution:
        return equation.steps(backend, *_reverse_loop(backend, equation, p, closed), *(-gap for gap in gaps))

    def dual(backend: Backend, p: RiccatiProblem, closed: Array, c: Array) -> Array:
        return equation.dual(backend, *_reverse_loop(backend, equation, p, closed), -c)

    return equation._replace(steps=steps, dual=dual, stabilising=equation)


def _reverse_loop(
    backend: Backend, equation: Equation, p: RiccatiProblem, closed: Array
) -> tuple[RiccatiProblem, Array]:
    """(plant, closed loop) whose Newton step is minus that of the anti-stabilising solution."""
    if not equation.discrete:
        return p, -closed
    return p._replace(e=closed), eye(backend, closed) + 0 * closed if p.e is None else p.e


def anti_solver_of(equation: Equation) -> Callable[..., Solution]:
    """The solver for anti-stabilising solutions; `equation` is one of `anti_stabilising`."""
    solve_reversed = solver_of(equation.stabilising)

    def solve(
        backend: Backend,
        p: RiccatiProblem,
        *,
        method: str,
        balanced: bool = True,
        start: Array | None = None,
    ) -> Solution:
        options = {"method": method, "balanced": balanced}
        p = p.hermitian_parts()
        if not equation.discrete:
            mirror = reverse(backend, p, discrete=False)
            result = solve_reversed(backend, mirror, start=None if start is None else -start, **options)
            return _in_own_words(backend, equation, result._replace(value=(-result.value[0],)))
        problem = in_good_units(backend, equation, p, balanced)
        plant = problem.plant
        mirror = reverse(backend, plant, discrete=True)
        start = None if start is None else -problem.units.apply(backend, start)
        result = solve_reversed(backend, mirror, start=start, **options)
        if plant.r is None:
            result = _name_uncontrollable_modes(backend, equation, plant, result)
        result = _correct(backend, equation, plant, result._replace(value=(-result.value[0],)))
        x = hermitian(problem.units.restore(backend, result.value[0]))
        result = _in_own_words(backend, equation, result._replace(value=(x,)))
        return _mark_singular(backend, plant, result)

    return solve


def _correct(backend: Backend, equation: Equation, p: RiccatiProblem, result: Solution) -> Solution:
    """Newton's method on the original equation; where that does not converge, decimal arithmetic if affordable."""
    x = result.value[0]
    c = refine(backend, equation, p, correct(backend, equation, p, x, result.iterations + 0 * backend.ones(x)))
    converged = is_acceptable(backend, c)
    x, failure = backend.xp.where(broadcast_scalar(converged), c.x, x), result.failure
    if affordable(backend, x):
        in_decimals = functools.partial(_in_decimals, backend, equation)
        x, failure = backend.masked_cond(
            ~converged | (failure > 0), in_decimals, lambda p, *unchanged: unchanged, p, x, failure
        )
    return result._replace(value=(x,), failure=failure)


def _in_decimals(
    backend: Backend, equation: Equation, p: RiccatiProblem, x: Array, failure: Array
) -> tuple[Array, Array]:
    """(x, failure) from the anti-stabilising solution in decimal arithmetic where it is found."""
    solution = solve_in_decimals(backend, equation, p)
    accepted = solution.found & solution.stable
    return (
        backend.xp.where(broadcast_scalar(accepted), solution.x, x),
        backend.xp.where(accepted, 0 * failure, failure),
    )


def _name_uncontrollable_modes(backend: Backend, equation: Equation, p: RiccatiProblem, result: Solution) -> Solution:
    """The result with the failures of modes on which g does not act: the inputs of the reversed problem reach all of them."""
    if backend.is_traced(result.failure) or not backend.any_true(result.failure):
        return result

    def name(p: RiccatiProblem, failure: Array, detail: Array) -> tuple[Array, Array]:
        reason_of_g = diagnose(backend, equation.stabilising, p, p.a, all_false(backend, p.a))
        uncontrollable = reason_of_g == int(Failure.NOT_STABILISABLE)
        reason, eigenvalue = explain(backend, equation.stabilising, p, p, reason_of_g)
        return (
            backend.xp.where(uncontrollable, reason, failure),
            backend.xp.where(uncontrollable[..., None], eigenvalue, detail),
        )

    backwards = p._replace(a=eye(backend, p.a) + 0 * p.a if p.e is None else p.e, e=p.a)
    failure, detail = backend.masked_cond(
        result.failure > 0, name, lambda p, *known: known, backwards, result.failure, result.detail
    )
    return result._replace(failure=failure, detail=detail)


def _in_own_words(backend: Backend, equation: Equation, result: Solution) -> Solution:
    """The result with the failures and eigenvalues of the original problem."""
    failure, (real, imag) = result.failure, (result.detail[..., 0], result.detail[..., 1])
    original = (-real, -imag)
    if equation.discrete:
        square = safe_divisor(backend, real**2 + imag**2)
        original = (real / square, -imag / square)
    detail = backend.xp.where(is_eigenvalue(failure)[..., None], backend.xp.stack(original, axis=-1), result.detail)
    for reason, own in _REASONS.items():
        failure = own.where(backend, failure == int(reason), failure)
    return result._replace(failure=overflow_failure(backend, result.value[0], failure), detail=detail)


def _mark_singular(backend: Backend, p: RiccatiProblem, result: Solution) -> Solution:
    """The result with the failures ZERO_LOOP and SINGULAR_E of discrete equations."""
    xp = backend.xp
    for matrix, reason in ((p.e, Failure.SINGULAR_E), (zero_pencil(backend, p), Failure.ZERO_LOOP)):
        if matrix is None:
            continue
        inverse_condition = _reciprocal_condition(backend, matrix)
        singular = ~(inverse_condition > 4 * matrix.shape[-1] * backend.eps(matrix))
        result = result._replace(
            failure=reason.where(backend, singular, result.failure),
            detail=xp.where(singular[..., None], as_details(backend, matrix, inverse_condition), result.detail),
        )
    return result


def _reciprocal_condition(backend: Backend, m: Array) -> Array:
    """1 / (‖m‖ ‖m⁻¹‖), with columns and then rows divided by their largest entries; 0 if there is no inverse."""
    xp = backend.xp
    for axis in (-2, -1):
        m = m / safe_divisor(backend, xp.max(xp.abs(m), axis=axis, keepdims=True))
    condition = backend.norm(m) * backend.norm(backend.inv(m))
    return xp.where(condition > 0, 1 / safe_divisor(backend, condition), 0 * backend.ones(m))
