"""Gramians: the x with a x + x aᴴ + b bᴴ = 0 or a x aᴴ - x + b bᴴ = 0 for a stable a.

x = z zᴴ for the factor z of `factors`, so x is positive semidefinite; it is corrected once where rounding in z is large.

Differential, with c = da x + db bᴴ (discrete: da x aᴴ + db bᴴ):

    a dx + dx aᴴ + c + cᴴ = 0          a dx aᴴ - dx + c + cᴴ = 0
    aᴴ y + y a + x̄ = 0                 aᴴ y a - y + x̄ = 0
    ā = 2 y x,  b̄ = 2 y b              ā = 2 y a x,  b̄ = 2 y b
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast, overload

from matsign._typing import Array, ArrayLike, Arrays, NDArray, OptionalArrayLike, StateSpace, T, VectorLike
from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.members import Solution, solution
from matsign.core.objects import takes_model
from matsign.core.public import Residual, public_function
from matsign.equations.lyapunov import descriptor_gramians
from matsign.equations.lyapunov.certificates import exact_residual, gramian_residual
from matsign.equations.lyapunov.descriptor_certificates import descriptor_gramian_residual
from matsign.equations.lyapunov.factor_derivatives import (
    discrete_gramian_jvp,
    discrete_gramian_vjp,
    gramian_jvp,
    gramian_vjp,
)
from matsign.equations.lyapunov.factors import continuous_factor, discrete_factor, in_units_of_states
from matsign.equations.lyapunov.methods import LYAPUNOV_EQUATION, STEIN_EQUATION, Equation, ScaledEquation, sum_or_schur
from matsign.equations.lyapunov.system import ScaledFactor, System
from matsign.iterations.refinement import at_rounding, in_callers_units
from matsign.linalg.stacks import adjoint, broadcast_scalar, hermitian


class Time(NamedTuple):
    """Continuous or discrete time."""

    factor: Callable[[Backend, System], ScaledFactor]
    equation: Equation
    scale: Callable[[Backend, System], ScaledEquation]
    descriptor: descriptor_gramians.DescriptorTime


def _scale_lyapunov(backend: Backend, s: System) -> ScaledEquation:
    outer, scale = s.e[:, :, None] + s.e[:, None, :], broadcast_scalar(2 * (s.b_scale - s.half))
    return ScaledEquation(s.a, -(s.b @ adjoint(s.b)), backend.ones(s.a), outer, scale, 2 * s.half)


def _scale_stein(backend: Backend, s: System) -> ScaledEquation:
    """a x aᴴ - d x + b bᴴ = 0, with no entry of a above 1."""
    k = 2 * s.half
    above = backend.xp.maximum(k, 0 * k)
    a, d = backend.ldexp(s.a, broadcast_scalar(k - above)), backend.ldexp(backend.ones(s.a), -2 * above)
    outer, scale = s.e[:, :, None] + s.e[:, None, :], broadcast_scalar(2 * (s.b_scale - above))
    return ScaledEquation(a, s.b @ adjoint(s.b), d, outer, scale, 2 * above)


CONTINUOUS = Time(continuous_factor, LYAPUNOV_EQUATION, _scale_lyapunov, descriptor_gramians.CONTINUOUS)
DISCRETE = Time(discrete_factor, STEIN_EQUATION, _scale_stein, descriptor_gramians.DISCRETE)


def _solver_of(time: Time) -> Callable[..., Solution]:
    def solve(backend: Backend, a: Array, b: Array, e: Array | None = None) -> Solution:
        s = in_units_of_states(backend, a, b, e)
        f = time.factor(backend, s)
        if e is None:
            scaled = time.scale(backend, s)
            x = _correct(backend, time.equation, _from_factor(backend, f, scaled.scale), scaled, s.b, f.failure)
            return _restore(backend, f, x, scaled.outer + scaled.scale)
        d = time.descriptor
        units = d.scale(backend, s)
        x = descriptor_gramians.correct_gramian(
            backend, d.equation, _from_factor(backend, f, units.scale), units, s.b, f.failure
        )
        return _restore(backend, f, x, units.outer + units.scale)

    return solve


def _from_factor(backend: Backend, f: ScaledFactor, scale: Array) -> Array:
    """z zᴴ in the units of the equation; 0 for members without a factor."""
    z = backend.xp.where(broadcast_scalar(f.failure > 0), backend.xp.zeros_like(f.z), f.z)
    return hermitian(backend.ldexp(z @ adjoint(z), broadcast_scalar(2 * f.scale) - scale))


def _restore(backend: Backend, f: ScaledFactor, x: Array, exponents: Array) -> Solution:
    result = solution(backend, (x,), iterations=f.factors.steps)._replace(failure=f.failure)
    result = result if f.detail is None else result._replace(detail=f.detail)
    return scaling.restore(backend, result, exponents)


def _correct(backend: Backend, equation: Equation, x: Array, scaled: ScaledEquation, b: Array, failure: Array) -> Array:
    """x corrected where its residual exceeds rounding, in these units and then in the caller's.

    The first correction is for the exact residual: rounding errors of the residual in modes that b does not reach would grow.
    """
    arrays = scaled.a, scaled.q, scaled.d

    def terms(x: Array, a: Array, q: Array, d: Array) -> Arrays:
        return equation.terms(a, x, q, d)

    def solve(gap: Array, a: Array, q: Array, d: Array) -> Array:
        return hermitian(sum_or_schur(backend, equation, a, hermitian(gap), d).value[0])

    x = backend.rare_cond(
        (failure == 0) & ~at_rounding(backend, terms, x, *arrays),
        lambda x, b, a, q, d: x + solve(exact_residual(backend, equation, a, x, q, d, b), a, q, d),
        lambda x, *_: x,
        *(x, b, *arrays),
    )
    return in_callers_units(backend, solve, terms, x, scaled.outer, *arrays)


def _residual_of(time: Time) -> Callable[..., Residual]:
    def residual(backend: Backend, value: Arrays, a: Array, b: Array, e: Array | None = None) -> Residual:
        s = in_units_of_states(backend, a, b, e)
        if e is None:
            return gramian_residual(backend, time.equation, (value[0],), time.scale(backend, s), s.b)
        d = time.descriptor
        return descriptor_gramian_residual(backend, d.equation, value[0], (a, b, e), d.scale(backend, s), s.b)

    return residual


def _continuous_powers(backend: Backend, a: Array, b: Array) -> scaling.Powers:
    half, of_b = -(-scaling.size_of(backend, a) // 2), scaling.size_of(backend, b)
    return scaling.Powers((2 * half, of_b), (2 * (of_b - half),))


def _discrete_powers(backend: Backend, a: Array, b: Array) -> scaling.Powers:
    of_b = scaling.size_of(backend, b)
    return scaling.Powers((0 * of_b, of_b), (2 * of_b,))


def _tangent_of(
    powers: Callable[..., scaling.Powers], jvp: Callable[..., Array], with_e: Callable[..., Arrays]
) -> Callable[..., Arrays]:
    """The tangent for (a, b, e), by another rule with a descriptor."""

    def standard(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays) -> Arrays:
        return (jvp(backend, *arrays, value[0], *tangents),)

    at_size = scaling.tangent_at_size(powers, standard)

    def tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays) -> Arrays:
        if arrays[-1] is None:
            return cast("Arrays", at_size(backend, value, arrays[:-1], tangents[:-1]))
        return with_e(backend, value, arrays, tangents)

    return tangent


def _cotangent_of(
    powers: Callable[..., scaling.Powers], vjp: Callable[..., Arrays], with_e: Callable[..., Arrays]
) -> Callable[..., Arrays]:
    """The adjoint of `_tangent_of`."""

    def standard(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays) -> Arrays:
        return vjp(backend, *arrays, value[0], cotangents[0])

    at_size = scaling.cotangent_at_size(powers, standard)

    def cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays) -> Arrays:
        if arrays[-1] is None:
            return (*at_size(backend, value, arrays[:-1], cotangents), None)
        return with_e(backend, value, arrays, cotangents)

    return cotangent


@overload
def gramian(a: ArrayLike[T], b: VectorLike[T], *, e: OptionalArrayLike[T] = None, errors: str = "raise") -> T: ...
@overload
def gramian(sys: StateSpace, /, *, errors: str = "raise") -> NDArray: ...
@takes_model("AB", discrete=False, other="discrete_gramian")
def gramian(a: ArrayLike[T], b: VectorLike[T], *, e: OptionalArrayLike[T] = None, errors: str = "raise") -> T:
    """Compute the controllability Gramian in continuous time.

    The positive semidefinite x with a x + x aᴴ + b bᴴ = 0 for a stable a.

    Parameters
    ----------
    a : array_like (..., n, n)
        System matrices with all eigenvalues in the open left half plane; float32, float64, complex64 or complex128.
    b : array_like (..., n, m)
        Input matrices.
    e : array_like (..., n, n), optional
        Descriptor matrices, invertible, of the equation a x eᴴ + e x aᴴ + b bᴴ = 0. Default: I.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no Gramian: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    x : array (..., n, n)
        The Gramians, Hermitian to the last bit.

    Raises
    ------
    SpectrumError
        If a is not stable, or stable only by rounding, if e is singular (the message has its reciprocal condition
        number), or if a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, or the arrays lie on different devices.
    TypeError
        If an argument is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    discrete_gramian : The Gramian in discrete time.
    lyapunov_factor : A factor of it, which has twice as many digits.
    solve_continuous_lyapunov : The equation for any right-hand side and any a.
    h2_norm : The norm of a model, from its Gramian.

    Notes
    -----
    x is the integral of exp(a t) b bᴴ exp(aᴴ t) over t ≥ 0: the covariance of the states under white noise through b.
    The observability Gramian, with aᴴ w + w a + cᴴ c = 0, is ``gramian(aᴴ, cᴴ)``.

    It is computed as z zᴴ from the z of `lyapunov_factor` [1]_, and corrected by the equation for its residual if that
    is above rounding. `solve_continuous_lyapunov` with -b bᴴ solves the same equation for any a, so an a that is not
    stable goes unnoticed there; here it is an error. x is differentiable to any order. Batches and ``jax.jit`` are as
    for `lyapunov_factor`. The backward error of `certify` is ‖a x + x aᴴ + b bᴴ‖ / (‖a x‖ + ‖x aᴴ‖ + ‖b bᴴ‖), with e
    that of `solve_continuous_lyapunov`.

    With e, x is the covariance of the states of e ẋ = a x + b u. The eigenvalues of the pencil a - λ e must lie in the
    left half plane. Neither x nor its derivatives need the inverse of e. The observability Gramian w of that model is
    eᴴ v e for ``v = gramian(aᴴ, cᴴ, e=eᴴ)``.

    ``gramian(sys)`` takes a and b from a model ``sys``, a ``scipy.signal.StateSpace`` or a ``control.StateSpace``. A
    vector as b is a column.

    References
    ----------
    .. [1] T. Penzl, "A cyclic low-rank Smith method for large sparse Lyapunov equations", SIAM J. Sci. Comput. 21(4),
       1999, pp. 1401-1418, doi:10.1137/S1064827598347666.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import gramian
    >>> a, b = np.array([[-1.0, 2.0], [0.0, -3.0]]), np.array([[1.0], [1.0]])
    >>> x = gramian(a, b)
    >>> bool(np.linalg.norm(a @ x + x @ a.T + b @ b.T) < 1e-14)
    True
    """
    return GRAMIAN(a, b, e, errors=errors)


GRAMIAN = public_function(
    gramian,
    "(n,n),(n,m),(n,n)->(n,n)",
    keyword_arrays=("e",),
    solve=_solver_of(CONTINUOUS),
    residual=_residual_of(CONTINUOUS),
    tangent=_tangent_of(_continuous_powers, gramian_jvp, descriptor_gramians.CONTINUOUS_TANGENT),
    cotangent=_cotangent_of(_continuous_powers, gramian_vjp, descriptor_gramians.CONTINUOUS_COTANGENT),
    columns=("b",),
)


@overload
def discrete_gramian(
    a: ArrayLike[T], b: VectorLike[T], *, e: OptionalArrayLike[T] = None, errors: str = "raise"
) -> T: ...
@overload
def discrete_gramian(sys: StateSpace, /, *, errors: str = "raise") -> NDArray: ...
@takes_model("AB", discrete=True, other="gramian")
def discrete_gramian(a: ArrayLike[T], b: VectorLike[T], *, e: OptionalArrayLike[T] = None, errors: str = "raise") -> T:
    """Compute the controllability Gramian in discrete time.

    The positive semidefinite x with a x aᴴ - x + b bᴴ = 0 for an a with all eigenvalues inside the unit circle.

    Parameters
    ----------
    a : array_like (..., n, n)
        System matrices with all eigenvalues inside the unit circle; float32, float64, complex64 or complex128.
    b : array_like (..., n, m)
        Input matrices.
    e : array_like (..., n, n), optional
        Descriptor matrices, invertible, of the equation a x aᴴ - e x eᴴ + b bᴴ = 0. Default: I.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no Gramian: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    x : array (..., n, n)
        The Gramians, Hermitian to the last bit.

    Raises
    ------
    SpectrumError
        If a has an eigenvalue on the unit circle or outside, or is stable only by rounding, if e is singular (the
        message has its reciprocal condition number), or if a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, or the arrays lie on different devices.
    TypeError
        If an argument is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    gramian : The Gramian in continuous time.
    discrete_lyapunov_factor : A factor of it, which has twice as many digits.
    solve_discrete_lyapunov : The equation for any right-hand side and any a.

    Notes
    -----
    x is the sum of aᵏ b bᴴ (aᵏ)ᴴ. The method, derivatives, batches and ``jax.jit`` are as for `gramian`. The backward
    error of `certify` is ‖a x aᴴ - x + b bᴴ‖ / (‖a x aᴴ‖ + ‖x‖ + ‖b bᴴ‖), with e that of `solve_discrete_lyapunov`.

    ``discrete_gramian(sys)`` takes a and b from a model in discrete time, as `gramian` does in continuous time.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import discrete_gramian
    >>> a, b = np.array([[0.5, 1.0], [0.0, -0.8]]), np.array([[1.0], [1.0]])
    >>> x = discrete_gramian(a, b)
    >>> bool(np.linalg.norm(a @ x @ a.T - x + b @ b.T) < 1e-14)
    True
    """
    return DISCRETE_GRAMIAN(a, b, e, errors=errors)


DISCRETE_GRAMIAN = public_function(
    discrete_gramian,
    "(n,n),(n,m),(n,n)->(n,n)",
    keyword_arrays=("e",),
    solve=_solver_of(DISCRETE),
    residual=_residual_of(DISCRETE),
    tangent=_tangent_of(_discrete_powers, discrete_gramian_jvp, descriptor_gramians.DISCRETE_TANGENT),
    cotangent=_cotangent_of(_discrete_powers, discrete_gramian_vjp, descriptor_gramians.DISCRETE_COTANGENT),
    columns=("b",),
)
