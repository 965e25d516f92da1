"""The H₂ norm of ẋ = a x + b u, y = c x, or of x⁺ = a x + b u, y = c x + d u, for a stable a.

With the Gramians of a x + x aᴴ + b bᴴ = 0 and aᴴ w + w a + cᴴ c = 0 (discrete: a x aᴴ - x + b bᴴ = 0 and aᴴ w a - w + cᴴ c = 0)

    ν² = tr c x cᴴ (+ ‖d‖²) = ‖c z‖² (+ ‖d‖²),    x = z zᴴ.

From the factor z it has all digits, where the root of tr c x cᴴ would lose half of them if its terms cancel.

Differential:  ν dν = Re tr (c x)ᴴ dc + (w g)ᴴ da + (w b)ᴴ db (+ dᴴ dd),  g = x (discrete: a x).

With a descriptor, for the Gramians of a x eᴴ + e x aᴴ + b bᴴ = 0 and aᴴ w e + eᴴ w a + cᴴ c = 0 (discrete: a x aᴴ - e x eᴴ and
aᴴ w a - eᴴ w e), g = e x (discrete: a x), and (w a x)ᴴ de (discrete: -(w e x)ᴴ de) is added.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, overload

from matsign._typing import Array, ArrayLike, Arrays, NDArray, OptionalArrayLike, StateSpace, T, VectorLike
from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.members import Solution
from matsign.core.objects import takes_model
from matsign.core.public import Residual
from matsign.equations.lyapunov import descriptor_gramians
from matsign.equations.lyapunov.certificates import lyapunov_residual, stein_residual
from matsign.equations.lyapunov.descriptor_certificates import descriptor_gramian_residual
from matsign.equations.lyapunov.descriptor_equations import LYAPUNOV_EQUATION, STEIN_EQUATION
from matsign.equations.lyapunov.descriptor_gramians import DescriptorTime
from matsign.equations.lyapunov.factors import continuous_factor, discrete_factor, in_units
from matsign.equations.lyapunov.system import ScaledFactor, System
from matsign.equations.norms.models import norm_of_model, norm_solution
from matsign.iterations.differentiable_solves import solve_stable_lyapunov, solve_stable_stein
from matsign.iterations.smith_factored import zero_nonfinite_members
from matsign.linalg.stacks import adjoint, broadcast_scalar, inner, safe_divisor, scaled_norm


class Time(NamedTuple):
    """Continuous or discrete time: the factor, the Gramian and the error of a Gramian."""

    factor: Callable[[Backend, System], ScaledFactor]
    gramian: Callable[[Backend, Array, Array], Array]  # (a, q): x for q in place of b bᴴ
    error: Callable[[Backend, System, Array], Residual]  # of x in the units of the system
    moved: Callable[[Array, Array], Array]  # (a, x): the g of ν dν = Re tr (w g)ᴴ da + …
    descriptor: DescriptorTime


class Parts(NamedTuple):
    """ν as the norm of c z, whose size is 2^scale, and of d."""

    system: System
    factor: ScaledFactor
    output: Array  # c z
    scale: Array


def _parts(backend: Backend, time: Time, a: Array, b: Array, c: Array, e: Array | None) -> Parts:
    s = in_units(backend, a, b, c, e)
    f = time.factor(backend, s)
    return Parts(s, f, s.c @ zero_nonfinite_members(backend, f.z), f.scale + s.c_scale)


def _norm(backend: Backend, p: Parts, d: Array | None) -> Array:
    """√(‖2^scale c z‖² + ‖d‖²)."""
    (size, e), xp = scaled_norm(backend, p.output), backend.xp
    if d is None:
        return backend.ldexp(size, e + p.scale)
    other, f = scaled_norm(backend, d)
    e = xp.where(size > 0, e + p.scale, f)
    f = xp.where(other > 0, f, e)
    top = xp.maximum(e, f)
    return backend.ldexp(xp.hypot(backend.ldexp(size, e - top), backend.ldexp(other, f - top)), top)


def _solver_of(time: Time) -> Callable[..., Solution]:
    def solve(backend: Backend, a: Array, b: Array, c: Array, *d_and_e: Array | None) -> Solution:
        d, e = _direct_and_descriptor(d_and_e)
        p = _parts(backend, time, a, b, c, e)
        norm, f = _norm(backend, p, d), p.factor
        return norm_solution(backend, (norm,), backend.xp.isfinite(norm), f.failure, f.factors.steps, f.detail)

    return solve


def _direct_and_descriptor(arrays: tuple[Array | None, ...]) -> tuple[Array | None, Array | None]:
    """(d, e) of the arrays behind c; there is no d in continuous time."""
    d, e = (None, None, *arrays)[-2:]
    return d, e


def _continuous_error(backend: Backend, s: System, x: Array) -> Residual:
    if s.descriptor is None:
        error = lyapunov_residual(backend, (x,), s.a, -(s.b @ adjoint(s.b)), rounded=True)
    else:
        error = descriptor_gramian_residual(backend, LYAPUNOV_EQUATION, x, (s.a, s.b, s.descriptor))
    return error._replace(separation=backend.ldexp(error.separation, 2 * s.half))


def _discrete_error(backend: Backend, s: System, x: Array) -> Residual:
    a = backend.ldexp(s.a, broadcast_scalar(2 * s.half))
    if s.descriptor is None:
        return stein_residual(backend, (x,), a, s.b @ adjoint(s.b), rounded=True)
    return descriptor_gramian_residual(backend, STEIN_EQUATION, x, (a, s.b, s.descriptor))


CONTINUOUS = Time(
    continuous_factor, solve_stable_lyapunov, _continuous_error, lambda a, x: x, descriptor_gramians.CONTINUOUS
)
DISCRETE = Time(discrete_factor, solve_stable_stein, _discrete_error, lambda a, x: a @ x, descriptor_gramians.DISCRETE)


def _residual_of(time: Time) -> Callable[..., Residual]:
    """The distance to the recomputed norm, and its error by that of the Gramian.

    A change dx of x changes ν² by tr c dx cᴴ; and it changes c z, which is shorter by cancellation, at most by the change of z.
    """

    def residual(backend: Backend, value: Arrays, a: Array, b: Array, c: Array, *d_and_e: Array | None) -> Residual:
        d, e = _direct_and_descriptor(d_and_e)
        p = _parts(backend, time, a, b, c, e)
        z, c = zero_nonfinite_members(backend, p.factor.z), p.system.c
        error = time.error(backend, p.system, z @ adjoint(z))
        dx, size = error.correction[0], backend.norm(p.output)
        change = backend.xp.abs(inner(backend, c, c @ dx)) / (2 * safe_divisor(backend, size))
        length = backend.norm(c) * (
            backend.norm(dx) / (2 * safe_divisor(backend, backend.norm(z))) + backend.eps(z) * backend.norm(z)
        )
        change = backend.xp.where(size > 0, backend.xp.minimum(change, length), length)
        correction = backend.xp.abs(value[0] - _norm(backend, p, d)) + backend.ldexp(change, p.scale)
        backward = scaling.backward_unless_underflow(backend, error.backward, value[0], size)
        return Residual(backward, (scaling.at_least_rounded(backend, correction, value[0]),), error.separation)

    return residual


def _gradient(backend: Backend, time: Time, a: Array, b: Array, c: Array, *d_and_e: Array | None) -> Arrays:
    """The gradients of ν² / 2."""
    (*d, e), h = d_and_e, adjoint
    if e is None:
        x, w = time.gramian(backend, a, b @ h(b)), time.gramian(backend, h(a), h(c) @ c)
        return w @ time.moved(a, x), w @ b, c @ x, *d, None
    x = time.descriptor.gramian(backend, a, b @ h(b), e)
    w = time.descriptor.gramian(backend, h(a), h(c) @ c, h(e))
    by_a, by_e = time.descriptor.bars(w, a, x, e)
    return by_a, w @ b, c @ x, *d, by_e


def _inverse(backend: Backend, norm: Array) -> Array:
    """1/ν, and 0 for ν = 0, where 0 is a subgradient."""
    return backend.xp.where(norm > 0, 1 / safe_divisor(backend, norm), 0 * norm)


def _tangent_of(time: Time) -> Callable[..., Arrays]:
    def tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays) -> Arrays:
        pairs = zip(_gradient(backend, time, *arrays), tangents, strict=True)
        change: Any = sum(inner(backend, g, dx) for g, dx in pairs if g is not None)
        return (change * _inverse(backend, value[0]),)

    return tangent


def _cotangent_of(time: Time) -> Callable[..., Arrays]:
    def cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays) -> Arrays:
        factor = broadcast_scalar(cotangents[0] * _inverse(backend, value[0]))
        return tuple(None if g is None else factor * g for g in _gradient(backend, time, *arrays))

    return cotangent


def _continuous_powers(backend: Backend, a: Array, b: Array, c: Array, e: Array | None) -> scaling.Powers:
    """An even difference of the exponents of a and e: ν is of degree -1/2 in both."""
    of_e = 0 * scaling.size_of(backend, a) if e is None else scaling.size_of(backend, e)
    half = -(-(scaling.size_of(backend, a) + of_e) // 2)
    of_b, of_c = scaling.size_of(backend, b), scaling.size_of(backend, c)
    return scaling.Powers((2 * half - of_e, of_b, of_c, of_e), (of_b + of_c - half,))


@overload
def h2_norm(
    a: ArrayLike[T], b: VectorLike[T], c: VectorLike[T], *, e: OptionalArrayLike[T] = None, errors: str = "raise"
) -> T: ...
@overload
def h2_norm(sys: StateSpace, /, *, errors: str = "raise") -> NDArray: ...
@takes_model("ABC", discrete=False, other="discrete_h2_norm", why_no_d="its H₂ norm is infinite")
def h2_norm(
    a: ArrayLike[T], b: VectorLike[T], c: VectorLike[T], *, e: OptionalArrayLike[T] = None, errors: str = "raise"
) -> T:
    """Compute the H₂ norm of a linear system in continuous time.

    For the stable system ẋ = a x + b u, y = c x: the root of the power of y under white noise u of intensity I.

    Parameters
    ----------
    a : array_like (..., n, n)
        System matrices with all eigenvalues in the open left half plane; float32, float64, complex64 or complex128.
    b : array_like (..., n, m)
        Input matrices.
    c : array_like (..., p, n)
        Output matrices.
    e : array_like (..., n, n), optional
        Descriptor matrices, invertible, of the model e ẋ = a x + b u. Default: I.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no norm: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    norm : array (...)
        The norms, real.

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
    discrete_h2_norm : The norm in discrete time.
    hinf_norm : The largest gain over all frequencies.
    gramian : The covariance of the states.

    Notes
    -----
    The square of the norm is the integral over t ≥ 0 of ‖c exp(a t) b‖², and that over all frequencies ω of ‖G(iω)‖² /
    2π, with the transfer function G(s) = c (s I - a)⁻¹ b and Frobenius norms [1]_. A direct term d would make it
    infinite, so there is none.

    It is computed as ‖c z‖ from a factor z of the Gramian (`lyapunov_factor`); the root of tr(c x cᴴ) has half as many
    digits where terms cancel. The norm is differentiable to any order where it is not 0; there the derivative returned
    is 0, a subgradient. Batches and ``jax.jit`` are as for `lyapunov_factor`. The backward error of `certify` is that
    of the Gramian, in the scaling that balances a.

    With e, for the model e ẋ = a x + b u, the eigenvalues of the pencil a - λ e must lie in the left half plane. Neither
    the norm nor its derivatives need the inverse of e.

    ``h2_norm(sys)`` takes the matrices of a model ``sys``, a ``scipy.signal.StateSpace`` or a ``control.StateSpace``
    with D = 0. A vector as b is a column, as c a row.

    References
    ----------
    .. [1] K. Zhou, J. C. Doyle and K. Glover, "Robust and Optimal Control", Prentice-Hall, 1996, section 4.5.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import h2_norm
    >>> a, b, c = np.array([[-2.0]]), np.array([[1.0]]), np.array([[1.0]])
    >>> h2_norm(a, b, c)  # ∫ exp(-4 t) dt = 1/4
    array(0.5)
    """
    return H2_NORM(a, b, c, e, errors=errors)


H2_NORM = norm_of_model(
    h2_norm,
    *("(n,n),(n,m),(p,n)", "()"),
    discrete=False,
    solve=_solver_of(CONTINUOUS),
    residual=_residual_of(CONTINUOUS),
    tangent=scaling.tangent_at_size(_continuous_powers, _tangent_of(CONTINUOUS)),
    cotangent=scaling.cotangent_at_size(_continuous_powers, _cotangent_of(CONTINUOUS)),
)


@overload
def discrete_h2_norm(
    a: ArrayLike[T],
    b: VectorLike[T],
    c: VectorLike[T],
    d: OptionalArrayLike[T] = None,
    *,
    e: OptionalArrayLike[T] = None,
    errors: str = "raise",
) -> T: ...
@overload
def discrete_h2_norm(sys: StateSpace, /, *, errors: str = "raise") -> NDArray: ...
@takes_model("ABCD", discrete=True, other="h2_norm")
def discrete_h2_norm(
    a: ArrayLike[T],
    b: VectorLike[T],
    c: VectorLike[T],
    d: OptionalArrayLike[T] = None,
    *,
    e: OptionalArrayLike[T] = None,
    errors: str = "raise",
) -> T:
    """Compute the H₂ norm of a linear system in discrete time.

    For the stable system x⁺ = a x + b u, y = c x + d u: the root of the power of y under white noise u of covariance I.

    Parameters
    ----------
    a : array_like (..., n, n)
        System matrices with all eigenvalues inside the unit circle; float32, float64, complex64 or complex128.
    b : array_like (..., n, m)
        Input matrices.
    c : array_like (..., p, n)
        Output matrices.
    d : array_like (..., p, m), optional
        Direct terms. Default: 0.
    e : array_like (..., n, n), optional
        Descriptor matrices, invertible, of the model e x⁺ = a x + b u. Default: I.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no norm: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    norm : array (...)
        The norms, real.

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
    h2_norm : The norm in continuous time.
    discrete_hinf_norm : The largest gain over all frequencies.
    discrete_gramian : The covariance of the states.

    Notes
    -----
    The square of the norm is ‖d‖² + Σ ‖c aᵏ b‖² over k ≥ 0, with Frobenius norms. The method, derivatives, batches and
    ``jax.jit`` are as for `h2_norm`. The backward error of `certify` is that of the Gramian, in the scaling that
    balances a.

    ``discrete_h2_norm(sys)`` takes the matrices of a model in discrete time, as `h2_norm` does in continuous time.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import discrete_h2_norm
    >>> a, b, c = np.array([[0.6]]), np.array([[0.8]]), np.array([[3.0]])
    >>> bool(abs(discrete_h2_norm(a, b, c, np.array([[4.0]])) - 5) < 1e-14)
    True
    """
    return DISCRETE_H2_NORM(a, b, c, d, e, errors=errors)


def _discrete_powers(
    backend: Backend, a: Array, b: Array, c: Array, d: Array | None, e: Array | None
) -> scaling.Powers:
    """c and d are scaled together, b by 1: ν is linear in (c, d), and so it is in (b, d). a and e are scaled together, too."""
    of_b, of_c = scaling.size_of(backend, b), scaling.size_of(backend, c)
    of_e = 0 * of_b if e is None else scaling.size_of(backend, a, e)
    top = of_b + of_c - of_e
    top = top if d is None else backend.xp.maximum(top, scaling.size_of(backend, d))
    return scaling.Powers((of_e, of_b, top + of_e - of_b, top, of_e), (top,))


DISCRETE_H2_NORM = norm_of_model(
    discrete_h2_norm,
    *("(n,n),(n,m),(p,n),(p,m)", "()"),
    discrete=True,
    solve=_solver_of(DISCRETE),
    residual=_residual_of(DISCRETE),
    tangent=scaling.tangent_at_size(_discrete_powers, _tangent_of(DISCRETE)),
    cotangent=scaling.cotangent_at_size(_discrete_powers, _cotangent_of(DISCRETE)),
)
