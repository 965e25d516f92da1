"""The linear-quadratic regulator: the gain k of the optimal control u = -k x, from an algebraic Riccati equation."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.members import Solution, as_details
from matsign.core.public import Residual, public_function
from matsign.equations.riccati.care import CONTINUOUS
from matsign.equations.riccati.certificates import error_estimate
from matsign.equations.riccati.dare import DISCRETE
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
from matsign.equations.riccati.pole_derivatives import poles_jvp, poles_vjp
from matsign.equations.riccati.problem import RiccatiProblem, round_by_one
from matsign.equations.riccati.solver import METHODS, solver_of, zero_nonfinite_entries
from matsign.linalg.stacks import adjoint, hermitian
from matsign.linalg.stacks import scale_to_unit as normalise_size


class Regulator(NamedTuple):
    """Hold a linear-quadratic regulator.

    The result of `lqr` and `dlqr`: a named tuple for the control u = -gain @ x.

    Attributes
    ----------
    gain : array (..., m, n)
        The gain of least cost.
    solution : array (..., n, n)
        The stabilising solution of the Riccati equation.
    poles : array (..., n)
        The eigenvalues of the closed loop, complex.

    See Also
    --------
    lqr : Compute it in continuous time.
    dlqr : Compute it in discrete time.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import lqr
    >>> regulator = lqr(np.zeros((1, 1)), np.eye(1), np.eye(1), np.eye(1))
    >>> regulator._fields
    ('gain', 'solution', 'poles')
    >>> bool(abs(regulator.gain - 1) < 1e-14), bool(abs(regulator.poles + 1) < 1e-14)
    (True, True)
    """

    gain: Array
    solution: Array
    poles: Array


def _regulate(equation: Equation) -> Callable[..., Solution]:
    riccati = solver_of(equation)

    def solve(
        backend: Backend, a: Array, b: Array, q: Array, r: Array, s: Array | None, e: Array | None, *, method: str
    ) -> Solution:
        q, r = hermitian(q), hermitian(r)
        result = riccati(backend, a, b, q, r, e, s, method=method)
        x = result.value[0]
        p = RiccatiProblem(a, b, q, r, e, s)
        gain, f = gain_at(backend, equation, x, p)
        # r + bᴴ x b may overflow where x does not.
        overflowed = (result.failure == 0) & ~(backend.xp.isfinite(gain).all((-1, -2)))
        failure = Failure.OVERFLOW.where(backend, overflowed, result.failure)
        result = result._replace(
            value=(gain, x, backend.eig(zero_nonfinite_entries(backend, _loop(backend, f, e)))[0]), failure=failure
        )
        if equation.discrete:
            result = _mark_indefinite(backend, result, hermitian(r + adjoint(b) @ x @ b))
        return _mark_indefinite(backend, result, r)

    return solve


def _loop(backend: Backend, f: Array, e: Array | None) -> Array:
    return f if e is None else backend.solve(e, f)


def _mark_indefinite(backend: Backend, result: Solution, weight: Array) -> Solution:
    """Set NOT_A_MINIMUM where weight (r or r + bᴴ x b) has a negative eigenvalue.

    The cost exceeds that of u = -k x by (u + k x)ᴴ weight (u + k x): if that can be negative, no control has the least cost.
    The inputs are scaled so that the diagonal of weight is near 1, so rounding of large entries does not hide small ones.
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
            Failure.NOT_A_MINIMUM.where(backend, negative, failure),
            xp.where(negative[:, None], least_eigenvalue, detail),
        )

    failure, detail = backend.rare_cond(
        ~xp.isfinite(backend.norm(backend.cholesky(weight))),
        check_definiteness,
        lambda weight, *unchanged: unchanged,
        *(weight, result.failure, result.detail),
    )
    return result._replace(failure=failure, detail=detail)


# The largest exponents of units of inputs, in single and in double precision.
_UNIT_LIMITS = (30, 250)


def _least_of_diagonal(backend: Backend, x: Array) -> Array:
    return backend.xp.min(backend.xp.linalg.diagonal(x).real, axis=-1)


def _residual_of(equation: Equation) -> Callable[..., Residual]:
    def residual(
        backend: Backend,
        value: tuple[Array, ...],
        a: Array,
        b: Array,
        q: Array,
        r: Array,
        s: Array | None,
        e: Array | None,
    ) -> Residual:
        gain, x, poles = value
        p = RiccatiProblem(a, b, q, r, e, s)
        riccati_residual = error_estimate(backend, equation, x, p)
        (dx,) = riccati_residual.correction
        # The error of the gain: its change for x + dx, and its distance to the gain recomputed from x.
        recomputed, _ = gain_at(backend, equation, x, p)
        perturbed, f = gain_at(backend, equation, x + zero_nonfinite_entries(backend, dx), p, perturb=True)
        # The error of the poles: their change when the closed loop is computed from the perturbed gain and rounded.
        shifted = backend.eig(round_by_one(backend, zero_nonfinite_entries(backend, _loop(backend, f, e))))[0]
        nearest = backend.xp.min(backend.xp.abs(poles[:, :, None] - shifted[:, None, :]), axis=-1)
        # If rounding changes the poles by more than half of their norm, no error bound holds.
        known = backend.norm(nearest) <= backend.norm(poles) / 2
        nearest = backend.xp.where(known[:, None], nearest, backend.xp.full_like(nearest, backend.xp.inf))
        # Rounding of the data limits the accuracy of the gain, for example if two inputs act almost alike.
        size = backend.xp.abs
        step = size(perturbed - recomputed) + size(recomputed - gain) + gain_spread(backend, equation, x, p)
        return riccati_residual._replace(correction=(step, dx, nearest))

    return residual


def _problem_of(a: Array, b: Array, q: Array, r: Array, s: Array | None, e: Array | None) -> RiccatiProblem:
    return RiccatiProblem(a, b, q, r, e, s)


def _tangent_of(equation: Equation) -> Callable[..., Arrays]:
    """dx by the Riccati equation, dk by the formula of the gain, and the differentials of the poles by the closed loop's."""

    def tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, method: str) -> Arrays:
        _, x, poles = value
        d, at = _problem_of(*tangents), close(backend, equation, _problem_of(*arrays), x)
        dx = solution_jvp(backend, at, d)
        dk = gain_jvp(at, d, dx)
        return dk, dx, poles_jvp(backend, at.matrix(), poles, matrix_jvp(at, d, dk))

    return tangent


def _cotangent_of(equation: Equation) -> Callable[..., Arrays]:
    def cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, method: str) -> Arrays:
        _, x, poles = value
        at = close(backend, equation, _problem_of(*arrays), x)
        bar_matrix = poles_vjp(backend, at.matrix(), poles, cotangents[2])
        if not backend.is_complex(x):
            bar_matrix = bar_matrix.real
        by_matrix, bar_gain = matrix_vjp(at, bar_matrix)
        by_gain, bar_x = gain_vjp(at, cotangents[0] + bar_gain)
        a, b, q, r, e, s = add_present(by_matrix, by_gain, solution_vjp(backend, at, cotangents[1] + bar_x))
        return a, b, q, r, s, e

    return cotangent


_LQR = "(n,n),(n,m),(n,n),(m,m),(n,m),(n,n)->(m,n),(n,n),(n)"
_LQR_KINDS = ("same", "same", "complex")


def lqr(
    a: Array,
    b: Array,
    q: Array,
    r: Array,
    s: Array | None = None,
    e: Array | None = None,
    *,
    method: str = "auto",
    errors: str = "raise",
) -> Regulator:
    """Compute the linear-quadratic regulator in continuous time.

    The control u = -k x that steers e ẋ = a x + b u at the least cost ∫ xᴴ q x + 2 Re xᴴ s u + uᴴ r u dt. The order of
    the arguments and results is that of python-control.

    Parameters
    ----------
    a : array_like (..., n, n)
        System matrices, of dtype float32, float64, complex64 or complex128.
    b : array_like (..., n, m)
        Input matrices.
    q : array_like (..., n, n)
        Weights of the states, Hermitian.
    r : array_like (..., m, m)
        Weights of the inputs, Hermitian positive definite.
    s : array_like (..., n, m), optional
        Weights of the products of states and inputs. Default: 0.
    e : array_like (..., n, n), optional
        Descriptor matrices, invertible. Default: I.
    method : {"auto", "doubling", "sign", "qz"}, default "auto"
        How the Riccati equation is solved; the methods are those of `solve_continuous_are`.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no regulator: raise `SpectrumError`, or return NaN for that member and
        the right result for the others.

    Returns
    -------
    gain : array (..., m, n)
        The gain k = r⁻¹(bᴴ x e + sᴴ).
    solution : array (..., n, n)
        The solution x of `solve_continuous_are`.
    poles : array (..., n)
        The poles of the closed loop, complex. The three are the fields of the named tuple `Regulator`.

    Raises
    ------
    SpectrumError
        As for `solve_continuous_are`, and if r is not positive definite, because then no control has the least cost;
        with ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, the arrays lie on different devices, or q
        or r in NumPy arrays is not Hermitian.
    TypeError
        If an argument is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    dlqr : The regulator in discrete time.
    solve_continuous_are : The Riccati equation, also where its solution is no minimum.
    Regulator : The form of the result.

    Notes
    -----
    The gain of a stationary Kalman filter is the adjoint of the gain for aᴴ, cᴴ and the intensities of the noise in
    place of a, b and the weights.

    Gain and solution are differentiable to any order; derivatives of the poles are NaN where a pole is multiple.
    Batches and ``jax.jit`` are as for `solve_continuous_are`.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import lqr
    >>> a, b = np.array([[0.0, 1.0], [0.0, 0.0]]), np.array([[0.0], [1.0]])
    >>> gain, x, poles = lqr(a, b, np.eye(2), np.eye(1))
    >>> gain.round(12)
    array([[1.        , 1.73205081]])
    >>> bool(abs(np.poly(a - b @ gain) - [1, 3**0.5, 1]).max() < 1e-14)
    True
    """
    return LQR(a, b, q, r, s, e, method=method, errors=errors)


LQR = public_function(
    lqr,
    _LQR,
    kinds=_LQR_KINDS,
    solve=_regulate(CONTINUOUS),
    residual=_residual_of(CONTINUOUS),
    tangent=_tangent_of(CONTINUOUS),
    cotangent=_cotangent_of(CONTINUOUS),
    choices={"method": METHODS},
    wrap=lambda backend, *parts: Regulator(*parts),
    hermitian=("q", "r"),
    neutral={"m": 1.0},
)


def dlqr(
    a: Array,
    b: Array,
    q: Array,
    r: Array,
    s: Array | None = None,
    e: Array | None = None,
    *,
    method: str = "auto",
    errors: str = "raise",
) -> Regulator:
    """Compute the linear-quadratic regulator in discrete time.

    The control u = -k x that steers e x⁺ = a x + b u at the least cost Σ xᴴ q x + 2 Re xᴴ s u + uᴴ r u. The order of
    the arguments and results is that of python-control.

    Parameters
    ----------
    a : array_like (..., n, n)
        System matrices, of dtype float32, float64, complex64 or complex128.
    b : array_like (..., n, m)
        Input matrices.
    q : array_like (..., n, n)
        Weights of the states, Hermitian.
    r : array_like (..., m, m)
        Weights of the inputs, Hermitian positive semidefinite.
    s : array_like (..., n, m), optional
        Weights of the products of states and inputs. Default: 0.
    e : array_like (..., n, n), optional
        Descriptor matrices, invertible. Default: I.
    method : {"auto", "doubling", "sign", "qz"}, default "auto"
        How the Riccati equation is solved; the methods are those of `solve_discrete_are`.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no regulator: raise `SpectrumError`, or return NaN for that member and
        the right result for the others.

    Returns
    -------
    gain : array (..., m, n)
        The gain k = (r + bᴴ x b)⁻¹(bᴴ x a + sᴴ).
    solution : array (..., n, n)
        The solution x of `solve_discrete_are`.
    poles : array (..., n)
        The poles of the closed loop, complex. The three are the fields of the named tuple `Regulator`.

    Raises
    ------
    SpectrumError
        As for `solve_discrete_are`, and if r is not positive semidefinite or r + bᴴ x b is not positive definite,
        because then no control has the least cost; with ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, the arrays lie on different devices, or q
        or r in NumPy arrays is not Hermitian.
    TypeError
        If an argument is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    lqr : The regulator in continuous time.
    solve_discrete_are : The Riccati equation, also where its solution is no minimum.
    Regulator : The form of the result.

    Notes
    -----
    Gain and solution are differentiable to any order; derivatives of the poles are NaN where a pole is multiple.
    Batches and ``jax.jit`` are as for `solve_discrete_are`.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import dlqr
    >>> a, b = np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([[0.0], [1.0]])
    >>> gain, x, poles = dlqr(a, b, np.eye(2), np.eye(1))
    >>> bool(np.linalg.norm((np.eye(1) + b.T @ x @ b) @ gain - b.T @ x @ a) < 1e-13), bool((abs(poles) < 1).all())
    (True, True)
    """
    return DLQR(a, b, q, r, s, e, method=method, errors=errors)


DLQR = public_function(
    dlqr,
    _LQR,
    kinds=_LQR_KINDS,
    solve=_regulate(DISCRETE),
    residual=_residual_of(DISCRETE),
    tangent=_tangent_of(DISCRETE),
    cotangent=_cotangent_of(DISCRETE),
    choices={"method": METHODS},
    wrap=lambda backend, *parts: Regulator(*parts),
    hermitian=("q", "r"),
    neutral={"m": 1.0},
)
