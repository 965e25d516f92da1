"""Gain, solution and poles of a plant, with their errors and derivatives: what regulators and estimators share.

With `filtering` the gain is (r + bᴴ x b)⁻¹ bᴴ x instead, that of the plant with a delayed copy of the states (`delayed_copy`).

    dx by the Riccati equation (`derivatives`)
    d gain by the formula of the gain
    d poles by d(e⁻¹(a - b k)) (`pole_derivatives`)
"""

from __future__ import annotations

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.members import Solution, as_details
from matsign.core.public import Residual
from matsign.equations.riccati.certificates import error_estimate
from matsign.equations.riccati.classification import zero_nonfinite_entries
from matsign.equations.riccati.delayed_copy import (
    extend,
    extend_gain,
    extend_square,
    filter_part,
    restrict,
    with_copy,
)
from matsign.equations.riccati.derivatives import (
    add_present,
    close,
    gain_jvp,
    gain_vjp,
    matrix_jvp,
    matrix_vjp,
    solution_jvp,
    solution_vjp,
)
from matsign.equations.riccati.gain import gain_at, gain_spread
from matsign.equations.riccati.newton_kleinman import Equation
from matsign.equations.riccati.perturbations import round_by_one
from matsign.equations.riccati.pole_derivatives import poles_jvp, poles_vjp
from matsign.equations.riccati.problem import RiccatiProblem
from matsign.equations.riccati.solver import solver_of
from matsign.linalg.stacks import scale_to_unit as normalise_size

# The largest exponents of units of inputs, in single and in double precision.
_UNIT_LIMITS = (30, 250)


def regulate(
    backend: Backend,
    equation: Equation,
    p: RiccatiProblem,
    method: str,
    *,
    start: Array | None = None,
    filtering: bool = False,
) -> Solution:
    """The gain, the solution and the poles of the plant; `start` is an estimate of the solution."""
    result = solver_of(equation)(backend, p, method=method, start=start)
    x = result.value[0]
    gain, f = gain_at(backend, equation, x, p)
    if filtering:
        gain = _filter_gain(backend, equation, x, p)
    # r + bᴴ x b may overflow where x does not.
    overflowed = (result.failure == 0) & ~(backend.xp.isfinite(gain).all((-1, -2)))
    poles = backend.eig(zero_nonfinite_entries(backend, _loop(backend, f, p.e)))[0]
    return result._replace(value=(gain, x, poles), failure=Failure.OVERFLOW.where(backend, overflowed, result.failure))


def _filter_gain(backend: Backend, equation: Equation, x: Array, p: RiccatiProblem, *, perturb: bool = False) -> Array:
    gain, _ = gain_at(backend, equation, extend_square(backend, x), with_copy(backend, p), perturb=perturb)
    return filter_part(gain)


def _loop(backend: Backend, f: Array, e: Array | None) -> Array:
    return f if e is None else backend.solve(e, f)


def mark_indefinite(backend: Backend, result: Solution, weight: Array, reason: Failure) -> Solution:
    """The result with the failure `reason` where weight has a negative eigenvalue.

    The rows and columns of weight are scaled so that its diagonal is near 1: rounding of large entries does not hide small ones.
    """
    xp = backend.xp
    weight = zero_nonfinite_entries(backend, weight)

    def check_definiteness(weight: Array, failure: Array, detail: Array) -> tuple[Array, Array]:
        weight, whole = normalise_size(backend, weight)
        units = -(backend.exponent(xp.abs(xp.linalg.diagonal(weight).real)) // 2)
        limit = _UNIT_LIMITS[backend.eps(weight) < 1e-10]
        units = xp.clip(units, -limit, limit)
        values = backend.eigh(backend.ldexp(weight, units[:, :, None] + units[:, None, :]))[0]
        rounding = 8 * weight.shape[-1] * backend.eps(weight)
        negative = xp.min(values, axis=-1) < -rounding * xp.max(xp.abs(values), axis=-1)
        least = xp.minimum(xp.min(backend.eigh(weight)[0], axis=-1), _least_of_diagonal(backend, weight))
        least_eigenvalue = as_details(backend, weight, backend.ldexp(least, whole))
        return (
            reason.where(backend, negative, failure),
            xp.where(negative[:, None], least_eigenvalue, detail),
        )

    failure, detail = backend.rare_cond(
        ~xp.isfinite(backend.norm(backend.cholesky(weight))),
        check_definiteness,
        lambda weight, *unchanged: unchanged,
        *(weight, result.failure, result.detail),
    )
    return result._replace(failure=failure, detail=detail)


def _least_of_diagonal(backend: Backend, x: Array) -> Array:
    return backend.xp.min(backend.xp.linalg.diagonal(x).real, axis=-1)


def regulation_errors(
    backend: Backend, equation: Equation, value: Arrays, p: RiccatiProblem, *, filtering: bool = False
) -> Residual:
    """The `Residual` of gain, solution and poles."""
    gain, x, poles = value
    riccati_residual = error_estimate(backend, equation, x, p)
    (dx,) = riccati_residual.correction
    # The error of the gain: its change for x + dx, and its distance to the gain recomputed from x.
    moved = x + zero_nonfinite_entries(backend, dx)
    perturbed, f = gain_at(backend, equation, moved, p, perturb=True)
    if filtering:
        recomputed = _filter_gain(backend, equation, x, p)
        perturbed = _filter_gain(backend, equation, moved, p, perturb=True)
        spread = filter_part(gain_spread(backend, equation, extend_square(backend, x), with_copy(backend, p)))
    else:
        recomputed, _ = gain_at(backend, equation, x, p)
        spread = gain_spread(backend, equation, x, p)
    # The error of the poles: their change when the closed loop is computed from the perturbed gain and rounded.
    shifted = backend.eig(round_by_one(backend, zero_nonfinite_entries(backend, _loop(backend, f, p.e))))[0]
    nearest = backend.xp.min(backend.xp.abs(poles[:, :, None] - shifted[:, None, :]), axis=-1)
    # If rounding changes the poles by more than half of their norm, no error bound holds.
    known = backend.norm(nearest) <= backend.norm(poles) / 2
    nearest = backend.xp.where(known[:, None], nearest, backend.xp.full_like(nearest, backend.xp.inf))
    # Rounding of the data limits the accuracy of the gain (spread), for example if two inputs act almost alike.
    size = backend.xp.abs
    step = size(perturbed - recomputed) + size(recomputed - gain) + spread
    return riccati_residual._replace(correction=(step, dx, nearest))


def regulation_tangent(
    backend: Backend,
    equation: Equation,
    value: Arrays,
    p: RiccatiProblem,
    d: RiccatiProblem,
    *,
    filtering: bool = False,
) -> Arrays:
    """The differentials of gain, solution and poles for a change d of the plant."""
    _, x, poles = value
    at = close(backend, equation, p, x)
    dx = solution_jvp(backend, at, d)
    dk = gain_jvp(at, d, dx)
    gain = dk
    if filtering:
        copied = close(backend, equation, with_copy(backend, p), extend_square(backend, x))
        gain = filter_part(gain_jvp(copied, extend(backend, d), extend_square(backend, dx)))
    return gain, dx, poles_jvp(backend, at.matrix(), poles, matrix_jvp(at, d, dk))


def regulation_cotangent(
    backend: Backend,
    equation: Equation,
    value: Arrays,
    p: RiccatiProblem,
    cotangents: Arrays,
    *,
    filtering: bool = False,
) -> RiccatiProblem:
    """The adjoint of `regulation_tangent`."""
    _, x, poles = value
    bar_gain, bar_x, bar_poles = cotangents
    at = close(backend, equation, p, x)
    bar_matrix = poles_vjp(backend, at.matrix(), poles, bar_poles)
    if not backend.is_complex(x):
        bar_matrix = bar_matrix.real
    by_matrix, bar_k = matrix_vjp(at, bar_matrix)
    if not filtering:
        by_gain, bar_x_by_gain = gain_vjp(at, bar_gain + bar_k)
        return add_present(by_matrix, by_gain, solution_vjp(backend, at, bar_x + bar_x_by_gain))
    copied = close(backend, equation, with_copy(backend, p), extend_square(backend, x))
    by_filter, bar_x_by_filter = restrict(*gain_vjp(copied, extend_gain(backend, bar_gain)))
    by_k, bar_x_by_k = gain_vjp(at, bar_k)
    by_solution = solution_vjp(backend, at, bar_x + bar_x_by_k + bar_x_by_filter)
    return add_present(by_matrix, by_k, by_filter, by_solution)
