"""The Sylvester equation a x + x b = q.

The sign of [[A, C], [0, B]] with A negative stable and B positive stable is [[-I, 2X], [0, I]] where XB - AX = C
(`blocks.Triangular`; Roberts 1980); what a Newton step does to the blocks, doubling a sum does at a third of the price
(`iterations.smith`). A shift s leaves the equation alone, (a - sI) x + x (b + sI) = q, so a vertical line between
the spectra of a and -b is all that these need. Where there is none, there are three ways, one for each place to compute
in: Schur vectors (Bartels & Stewart 1972) on a CPU, spectral divide and conquer on an accelerator, and refined
eigenvectors where sizes cannot depend on values. A few unknowns on a CPU are one linear system (`iterations.few_unknowns`). Whichever
it is, an equation whose separation (`separation.py`) is at the level of rounding has no answer.

Differential:  a dx + dx b = dq - da x - x db, the same equation again.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.failures import Failure
from matsign.core.operations import Arrays, Solution, apply, solution
from matsign.core.public import Residual, public_function
from matsign.direct import schur_functions
from matsign.equations.lyapunov.solver import lyapunov
from matsign.equations.sylvester import diagonalisation, divide_and_conquer
from matsign.iterations import few_unknowns, separating_line, shared_sums
from matsign.iterations.refinement import (
    RefinedSolution,
    at_rounding,
    backward,
    correction,
    each_in_callers_units,
    in_callers_units,
    relative_gap,
    rounding,
    solve_weighed,
    terms,
    total,
)
from matsign.linalg import balancing
from matsign.linalg.separation import ROUNDINGS, rounding_separation, separation
from matsign.linalg.stacks import adjoint, broadcast_scalar, norm, plus_identity, random_probe, scale_to_unit, trace

Array = Any

_TRIES = 4
_SAMPLES = 3


def sylvester(be: Backend, a: Array, b: Array, q: Array, *, method: str) -> Solution:
    """x of a stack, by the method called so; which one "auto" takes depends on sizes, on the place and on the member alone."""
    if method == "auto" and few_unknowns.has_few_unknowns(be, q):
        return _by_linear_system(be, a, b, q)
    if method == "auto" and a.shape == b.shape and not be.is_traced(q):
        # One transform, or one Schur form, does for both.
        alike = (b == adjoint(a)).all((-1, -2))
        return be.masked_cond(
            alike,
            lambda a, b, q: lyapunov(be, a, q, method="auto"),
            lambda a, b, q: _sylvester(be, a, b, q, method),
            *(a, b, q),
        )
    return _sylvester(be, a, b, q, method)


def _by_linear_system(be: Backend, a: Array, b: Array, q: Array) -> Solution:
    """A few unknowns from one linear system in the caller's units, where these are good and so is the answer."""
    x, fine = _as_system(be, a, b, q)
    even = ~(balancing.is_unbalanced(be, a) | balancing.is_unbalanced(be, b))

    def done(a: Array, b: Array, q: Array, x: Array, even: Array) -> Solution:
        return solution(be, (x,))

    def otherwise(a: Array, b: Array, q: Array, x: Array, even: Array) -> Solution:
        return be.masked_cond(even, functools.partial(_system_at_size, be), functools.partial(_by_method, be), a, b, q)

    return be.masked_cond(fine & even, done, otherwise, a, b, q, x, even)


def _by_method(be: Backend, a: Array, b: Array, q: Array) -> Solution:
    return _sylvester(be, a, b, q, "auto")


def _system_at_size(be: Backend, a: Array, b: Array, q: Array) -> Solution:
    """The same for an equation brought near one in size."""
    a_near, b_near, size = scale_to_unit(be, a, b)
    q_near, scale = scale_to_unit(be, q)
    x, fine = _as_system(be, a_near, b_near, q_near)

    def done(a: Array, b: Array, q: Array, x: Array, e: Array) -> Solution:
        return scaling.restore(be, solution(be, (x,)), broadcast_scalar(e))

    return be.masked_cond(fine, done, lambda a, b, q, *_: _by_method(be, a, b, q), a, b, q, x, scale - size)


def _as_system(be: Backend, a: Array, b: Array, q: Array) -> tuple[Array, Array]:
    """(x, where it is to be relied on) from one linear system for its entries."""
    found = few_unknowns.sylvester(be, a, b, q)
    return found.x, few_unknowns.reliable(be, found, norm(be, a) + norm(be, b), *terms(a, b, q, found.x))


def _sylvester(be: Backend, a: Array, b: Array, q: Array, method: str) -> Solution:
    posed = _scale(be, a, b, q)
    found = _WAYS[method](be, posed.a, posed.b, posed.q)
    x = in_callers_units(
        be,
        lambda gap, a, b, q: _WAYS[method](be, a, b, gap).value[0],
        lambda x, a, b, q: terms(a, b, q, x),
        *(found.value[0], posed.outer, posed.a, posed.b, posed.q),
    )
    return scaling.restore(be, found._replace(value=(x,)), scaling.add_exponents(posed.outer, posed.scale))


class _ScaledEquation(NamedTuple):
    """An equation near one in size and in units that balance a and b.

    The caller's x is 2^(outer + scale) times this one, the operator 2^size times.
    """

    a: Array
    b: Array
    q: Array
    outer: Array | None
    scale: Array
    size: Array


def _scale(be: Backend, a: Array, b: Array, q: Array) -> _ScaledEquation:
    """Where a and -b lie close to each other and far from zero, they are moved to zero, which changes nothing else."""
    e, f, a, b, size = scaling.balance_together(be, a, b)
    outer = None if e is None else e[..., :, None] - f[..., None, :]
    q, scale_q = scaling.scale_right_side(be, q, outer)
    mean_a, mean_b = trace(be, a) / a.shape[-1], trace(be, b) / b.shape[-1]
    shift = (mean_a - mean_b) / 2
    a, b = be.rare_cond(
        be.xp.abs(shift) > 8 * be.xp.abs(mean_a + mean_b),
        lambda a, b, s: (plus_identity(be, broadcast_scalar(-s), a), plus_identity(be, broadcast_scalar(s), b)),
        lambda a, b, s: (a, b),
        *(a, b, shift),
    )
    return _ScaledEquation(a, b, q, outer, broadcast_scalar(scale_q - size), size)


def _auto(be: Backend, a: Array, b: Array, q: Array) -> Solution:
    """The sum where a line is found, and what the place has for the rest."""
    if be.is_traced(q) or not be.on_cpu(q):
        return _between(be, a, b, q, _fallback(be, q))
    return be.masked_cond(
        separating_line.likely_inseparable(be, a, b),
        lambda a, b, q: _schur(be, a, b, q),
        lambda a, b, q: _between(be, a, b, q, _schur),
        *(a, b, q),
    )


def _between(be: Backend, a: Array, b: Array, q: Array, otherwise: Callable[..., Solution]) -> Solution:
    """The sum where a line is found and the result is at working precision, another method for the rest."""
    # With another method behind it, one that is slow to converge is not worth waiting for.
    found, doubtful = separating_line.solve_by_doubling(be, a, b, q, 26)
    x = found.x
    fine = found.sound & ~doubtful & at_rounding(be, terms, a, b, q, x)
    return be.rare_cond(
        ~fine,
        lambda a, b, q, *_: otherwise(be, a, b, q),
        lambda a, b, q, x, k: solution(be, (x,), iterations=k),
        *(a, b, q, x, found.steps),
    )


def _fallback(be: Backend, q: Array) -> Callable[..., Solution]:
    """What takes over from the sum away from the CPU's LAPACK."""
    return _divide if divide_and_conquer.is_leaf(q) or be.dynamic_shapes(q) else _eigenvectors


def _newton(be: Backend, a: Array, b: Array, q: Array) -> Solution:
    """Newton alone; whether the equation is singular, where that is not plain, says what takes over from the sum."""
    found = separating_line.find_separating_line(be, a, b, q, _TRIES, 0)
    none = be.int_zeros(q)
    lost = ~(relative_gap(be, terms, a, b, q, found.x) < be.eps(q) ** 0.75)
    failure = be.xp.where(lost, none + int(Failure.NOT_CONVERGED), none)
    failure = be.xp.where(found.sound, failure, none + int(Failure.NO_LINE))
    otherwise = _schur if be.on_cpu(q) else _fallback(be, q)
    singular = be.rare_cond(
        separating_line.unproven_line(be, found, a, b) | (failure > 0),
        lambda a, b, q, x: otherwise(be, a, b, q).failure == int(Failure.COMMON_EIGENVALUE),
        lambda a, b, q, x: be.ones(x) < 0,
        *(a, b, q, found.x),
    )
    failure = be.xp.where(singular, none + int(Failure.COMMON_EIGENVALUE), failure)
    return solution(be, (found.x,), iterations=found.steps)._replace(failure=failure)


def _schur(be: Backend, a: Array, b: Array, q: Array) -> Solution:
    code = be.int_zeros(q)
    value, failure = be.host_callback(schur_functions.sylvester, (q, code), a, b, q)
    return solution(be, (value,))._replace(failure=failure)


def _divide(be: Backend, a: Array, b: Array, q: Array) -> Solution:
    return _classify(be, divide_and_conquer.sylvester(be, a, b, q), a, b)


def _eigenvectors(be: Backend, a: Array, b: Array, q: Array) -> Solution:
    return _classify(be, diagonalisation.sylvester(be, a, b, q, _working_precision(be, q)), a, b)


def _classify(be: Backend, found: RefinedSolution, a: Array, b: Array) -> Solution:
    """An answer, or why it is none: an equation that rounding may have made singular, or a residual that stayed large."""
    xp, none = be.xp, be.int_zeros(found.x)
    # Close to the best there is: with matrices changed by 1e-11, a singular equation has errors of 1e-12.
    lost = ~(found.error < 4 * _working_precision(be, found.x))
    failure = xp.where(lost, none + int(Failure.NOT_CONVERGED), none)
    apart = found.separation > rounding_separation(be, a, b)
    return solution(be, (found.x,))._replace(failure=xp.where(apart, failure, none + int(Failure.COMMON_EIGENVALUE)))


_WAYS = {
    "auto": _auto,
    "newton": _newton,
    "schur": _schur,
    "divide": _divide,
    "eigenvectors": _eigenvectors,
}


def _working_precision(be: Backend, q: Array) -> float:
    """A backward error that leaves nothing to wish for."""
    return 8 * math.sqrt(max(q.shape[-2:])) * be.eps(q)


def _residual(be: Backend, value: tuple[Array], a: Array, b: Array, q: Array) -> Residual:
    """q - a x - x b beside its terms; the same equation for that gap, and for what rounding may have hidden in it.

    The gap is itself computed with rounding, and the data were rounded before, by up to eps of each term of each entry. The
    correction is lengthened by what that does to x, measured at random.
    """
    given, posed = value[0], _scale(be, a, b, q)
    x, xp = be.ldexp(given, -scaling.add_exponents(posed.outer, posed.scale)), be.xp
    arrays = posed.a, posed.b, posed.q, x
    (n, m), parts = q.shape[-2:], terms(*arrays)
    reach = be.eps(x) * rounding(be, terms, *arrays)
    if max(n, m) > shared_sums.SMALL:
        # Each of the many directions of one large change tells.
        rights = (total(parts) + reach * random_probe(be, n, m, x))[:, None]
    else:
        noise = reach[:, None] * xp.reshape(random_probe(be, _SAMPLES * n, m, x), (1, _SAMPLES, n, m))
        rights = xp.concat([total(parts)[:, None], noise], axis=1)
    solved, least = _solutions(be, posed.a, posed.b, rights)
    solved = each_in_callers_units(
        be,
        lambda gap, a, b: _solutions(be, a, b, gap[:, None])[0][:, 0],
        lambda x, right, a, b: terms(a, b, right, x),
        *(solved, posed.outer, rights, posed.a, posed.b),
    )
    # In the caller's units all terms weigh as the caller sees them.
    left = backward(be, *solve_weighed(be, posed.outer, total(parts), *parts))
    step = scaling.at_least_rounded(
        be, be.ldexp(correction(be, solved), scaling.add_exponents(posed.outer, posed.scale)), given
    )
    return Residual(left, (step,), be.ldexp(least, posed.size))


def _member_solutions(be: Backend, a: Array, b: Array, q: Array) -> tuple[Array, Array]:
    """Those of one large member: from the powers of a sum where there is one to rely on, else from Schur forms."""
    if not bool(separating_line.likely_inseparable(be, a, b)[0]):
        sums = shared_sums.sylvester(be, a, b)
        if sums.is_reliable(be, ROUNDINGS * be.eps(a) * (norm(be, a) + norm(be, b))):
            return sums.responses(be, q, None)
    return be.host_callback(schur_functions.solutions, (q, be.ones(q)), a, b, q)


def _solutions(be: Backend, a: Array, b: Array, q: Array) -> tuple[Array, Array]:
    """The solutions for right-hand sides (B, k, n, m), and the separation."""
    if be.on_cpu(q) and not be.is_traced(q) and max(q.shape[-2:]) > shared_sums.SMALL:
        parts = [_member_solutions(be, *(x[k : k + 1] for x in (a, b, q))) for k in range(len(q))]
        return be.xp.concat([x for x, _ in parts]), be.xp.concat([least for _, least in parts])
    if be.on_cpu(q):
        return be.host_callback(schur_functions.solutions, (q, be.ones(q)), a, b, q)
    count, k, n, m = q.shape

    def repeat(x: Array) -> Array:
        return be.xp.reshape(be.xp.stack([x] * k, axis=1), (count * k, *x.shape[-2:]))

    x = _auto(be, repeat(a), repeat(b), be.xp.reshape(q, (count * k, n, m))).value[0]
    ah, bh = adjoint(a), adjoint(b)
    found = separation(be, lambda y: _auto(be, a, b, y).value[0], lambda y: _auto(be, ah, bh, y).value[0], q[:, 0])
    return be.xp.reshape(x, q.shape), found.value


def _solve_differentiable(be: Backend, a: Array, b: Array, q: Array) -> Array:
    return apply(be, SYLVESTER.operation, a, b, q, method="auto")[0]


def _tangent(be: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, method: str) -> Arrays:
    (x,), (a, b, _), (da, db, dq) = value, arrays, tangents
    return (_solve_differentiable(be, a, b, dq - da @ x - x @ db),)


def _cotangent(be: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, method: str) -> Arrays:
    """aᴴ y + y bᴴ = x̄ gives q̄ = y, ā = -y xᴴ and b̄ = -xᴴ y."""
    (x,), (a, b, _) = value, arrays
    y = _solve_differentiable(be, adjoint(a), adjoint(b), cotangents[0])
    return -(y @ adjoint(x)), -(adjoint(x) @ y), y


def _powers(be: Backend, a: Array, b: Array, q: Array) -> scaling.Powers:
    of_operator, of_q = scaling.size_of(be, a, b), scaling.size_of(be, q)
    return scaling.Powers((of_operator, of_operator, of_q), (of_q - of_operator,))


def solve_sylvester(a: Array, b: Array, q: Array, *, method: str = "auto", errors: str = "raise") -> Array:
    """Solve the Sylvester equation a x + x b = q.

    The arguments have the order and the sign of `scipy.linalg.solve_sylvester`.

    Parameters
    ----------
    a : array_like, shape (..., n, n)
        Left coefficients, of dtype float32, float64, complex64 or complex128.
    b : array_like, shape (..., m, m)
        Right coefficients.
    q : array_like, shape (..., n, m)
        Right-hand sides.
    method : {"auto", "newton", "schur", "divide", "eigenvectors"}, default "auto"
        How the equation is solved:

        - "newton": by the sign of [[-a, q], [0, b]] [1]_, computed by blocks. It needs a vertical line in the complex
          plane that separates the eigenvalues of a from those of -b, and looks for one.
        - "schur": by the method of Bartels and Stewart [2]_ with a blocked triangular solver, on the CPU.
        - "divide": by spectral divide and conquer with projectors of this library, on any device, but not in a program
          that JAX compiles for one.
        - "eigenvectors": by the eigenvectors of a and b, with refinement; for whole batches and in every program.
        - "auto": by two Cayley transforms and a sum by doubling [3]_, which costs two inverses and then products, where
          a line between the means of the spectra separates them and the result reaches working precision. For b = aᴴ as
          `solve_continuous_lyapunov`. Other members go to "schur" on a CPU; elsewhere to "divide" in PyTorch, and in
          JAX to "eigenvectors" or, with at most 144 unknowns, to one linear system. On a CPU up to 25 unknowns (complex
          9) are one linear system, whatever the spectra.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no solution: raise `SpectrumError`, or return NaN for that member and
        the right result for the others.

    Returns
    -------
    x : array, shape (..., n, m)
        The solutions, in the library, on the device and in the common dtype of the arguments.

    Raises
    ------
    SpectrumError
        If a and -b share an eigenvalue to working precision, so that there is no solution or infinitely many, if the
        method fails, or if a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, or the arrays lie on different devices.
    TypeError
        If an argument is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    solve_continuous_lyapunov : The case b = aᴴ.
    solve_riccati : The quadratic equation x d x + x b - a x - c = 0.
    scipy.linalg.solve_sylvester : SciPy's.

    Notes
    -----
    The equation X B - A X = C is ``solve_sylvester(-A, B, C)``.

    Which method: "auto" tries the fast method first and returns its result only if it is at working precision and the
    equation is not nearly singular. The others are for comparison, and where you know which one your equations need.

    The solution is differentiable to any order in all three arguments; each derivative is one more Sylvester equation.
    A member of a batch gives the same bits as in a call by itself. Under ``jax.jit`` no error can be raised: a member
    without a solution is NaN.

    The backward error of `certify` is ‖a x + x b - q‖ / (‖a x‖ + ‖x b‖ + ‖q‖). The separation that it reports is the
    smallest ‖a y + y b‖ / ‖y‖, the distance to a singular equation. The forward error counts what rounding in the
    arguments and in the residual may hide.

    References
    ----------
    .. [1] J. D. Roberts, "Linear model reduction and solution of the algebraic Riccati equation by use of the sign
       function", Int. J. Control 32(4), 1980, pp. 677-687, doi:10.1080/00207178008922881.
    .. [2] R. H. Bartels and G. W. Stewart, "Algorithm 432: Solution of the matrix equation AX + XB = C", Commun. ACM
       15(9), 1972, pp. 820-826, doi:10.1145/361573.361582.
    .. [3] R. A. Smith, "Matrix equation XA + BX = C", SIAM J. Appl. Math. 16(1), 1968, pp. 198-201,
       doi:10.1137/0116017.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import solve_sylvester
    >>> a, b = np.array([[3.0, 1.0], [0.0, 2.0]]), np.array([[1.0]])
    >>> q = np.array([[4.0], [6.0]])
    >>> x = solve_sylvester(a, b, q)
    >>> bool(np.linalg.norm(a @ x + x @ b - q) < 1e-14)
    True
    """
    return SYLVESTER(a, b, q, method=method, errors=errors)


SYLVESTER = public_function(
    solve_sylvester,
    "(n,n),(m,m),(n,m)->(n,m)",
    solve=sylvester,
    residual=_residual,
    tangent=scaling.tangent_at_size(_powers, _tangent),
    cotangent=scaling.cotangent_at_size(_powers, _cotangent),
    linear=True,
    alone=lambda method: method == "auto",
    choices={"method": tuple(_WAYS)},
)
