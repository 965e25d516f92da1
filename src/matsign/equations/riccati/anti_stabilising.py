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
from matsign.equations.riccati.decimal_fallback import affordable, solve_in_decimals
from matsign.equations.riccati.newton_kleinman import Equation, correct, is_acceptable, refine
from matsign.equations.riccati.problem import RiccatiProblem
from matsign.equations.riccati.solver import in_good_units, is_eigenvalue, solver_of
from matsign.equations.riccati.time_reversal import reverse, zero_pencil
from matsign.iterations.structured_doubling import ClosedLoopSolution
from matsign.linalg.stacks import broadcast_scalar, eye, hermitian, safe_divisor

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
        options = {"method": method, "balanced": balanced}
        p = RiccatiProblem(a, b, hermitian(q), hermitian(r), e, s)
        if not equation.discrete:
            mirror = reverse(backend, p, discrete=False)
            result = solve_reversed(backend, *mirror, start=None if start is None else -start, **options)
            return _in_own_words(backend, equation, result._replace(value=(-result.value[0],)))
        problem = in_good_units(backend, equation, p, balanced)
        plant = problem.plant
        mirror = reverse(backend, plant, discrete=True)
        start = None if start is None else -problem.units.apply(backend, start)
        result = solve_reversed(backend, *mirror, start=start, **options)
        x = _correct(backend, equation, plant, -result.value[0], result.iterations)
        x = hermitian(problem.units.restore(backend, x))
        result = _in_own_words(backend, equation, result._replace(value=(x,)))
        return _mark_singular(backend, plant, result)

    return solve


def _correct(backend: Backend, equation: Equation, p: RiccatiProblem, x: Array, steps: Array) -> Array:
    """x after Newton's method on the original equation; where that does not converge, from decimal arithmetic if affordable."""
    c = refine(backend, equation, p, correct(backend, equation, p, x, steps + 0 * backend.ones(x)))
    converged = is_acceptable(backend, c)
    x = backend.xp.where(broadcast_scalar(converged), c.x, x)
    if not affordable(backend, x):
        return x
    in_decimals = functools.partial(_in_decimals, backend, equation)
    result: Array = backend.masked_cond(
        ~converged & backend.xp.isfinite(backend.norm(x)), in_decimals, lambda p, x: x, p, x
    )
    return result


def _in_decimals(backend: Backend, equation: Equation, p: RiccatiProblem, x: Array) -> Array:
    """The anti-stabilising solution in decimal arithmetic, where it is found, else x."""
    solution = solve_in_decimals(backend, equation, p)
    return backend.xp.where(broadcast_scalar(solution.found & solution.stable), solution.x, x)


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
