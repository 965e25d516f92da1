"""Factors of Gramians: z with x = z zᴴ, where a x + x aᴴ + b bᴴ = 0 or a x aᴴ - x + b bᴴ = 0 for a stable a.

x is the covariance of the states under white noise through b; its range is the controllable subspace. A doubling step of
`iterations.smith` for the factor is z ← [z, c z], c ← c². Compressed after each step, z keeps as many columns as x has
eigenvalues above rounding (`iterations.smith_factored`). The cost is one inverse, then one large product a step.

Differential:  dx solves a dx + dx aᴴ = -(da x + x daᴴ + db bᴴ + b dbᴴ). x determines z up to a unitary factor on the right.
Of all dz with d(z zᴴ) = dx the rule takes the one of least norm, z⁺ dz Hermitian: dz = (I - ½ z z⁺) dx z⁺ᴴ. It gives functions
of z zᴴ their derivatives to every order, because for the factor z u, u unitary, it gives dz u. If x is singular,
(I - z z⁺) dx (I - z z⁺) = 0: x stays singular to first order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import overload

from matsign._typing import Array, ArrayLike, NDArray, OptionalArrayLike, StateSpace, T, VectorLike
from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.failures import Failure
from matsign.core.members import Solution, solution
from matsign.core.objects import takes_model
from matsign.core.public import public_function
from matsign.direct import bartels_stewart
from matsign.equations.lyapunov.descriptor_factors import (
    continuous_descriptor_factor,
    descriptor_gramians,
    descriptor_in_units,
    discrete_descriptor_factor,
    discrete_descriptor_gramians,
    with_descriptor_cotangent,
    with_descriptor_tangent,
)
from matsign.equations.lyapunov.descriptor_gramians import CONTINUOUS, DISCRETE, correct_factor
from matsign.equations.lyapunov.factor_certificates import continuous_factor_residual, discrete_factor_residual
from matsign.equations.lyapunov.factor_derivatives import (
    continuous_cotangent,
    continuous_tangent,
    cotangent_in_units,
    discrete_cotangent,
    discrete_tangent,
    tangent_in_units,
)
from matsign.equations.lyapunov.system import Gramians, ScaledFactor, System
from matsign.iterations.smith import Cayley, cayley
from matsign.iterations.smith_factored import Factors, smith_factors, width
from matsign.linalg.separation import ROUNDINGS, may_be_singular, spectral_norm
from matsign.linalg.stacks import adjoint, broadcast_scalar, norm


def in_units(backend: Backend, a: Array, b: Array, c: Array, e: Array | None = None) -> System:
    """The system in balanced units; a is scaled by a power of 4, so the factors are scaled by a power of 2."""
    return _in_balanced_units(backend, a, b, c) if e is None else descriptor_in_units(backend, a, b, c, e)


def _in_balanced_units(backend: Backend, a: Array, b: Array, c: Array) -> System:
    e, a, scale = scaling.balance_together(backend, a)
    e = backend.xp.zeros_like(a[:, 0, :], dtype=backend.xp.int32) if e is None else e
    half = -(-scale // 2)
    b, b_scale = scaling.scale_right_side(backend, b, backend.xp.broadcast_to(e[:, :, None], b.shape))
    c, c_scale = scaling.scale_right_side(backend, c, backend.xp.broadcast_to(-e[:, None, :], c.shape))
    odd = (b_scale + c_scale) % 2  # make b_scale + c_scale even: half of it scales each of the reduced b and c
    c, c_scale = backend.ldexp(c, broadcast_scalar(-odd)), c_scale + odd
    return System(backend.ldexp(a, broadcast_scalar(scale - 2 * half)), b, c, e, b_scale, c_scale, half)


def gramians(backend: Backend, s: System) -> Gramians:
    """Both Gramians of a continuous-time system; they share the powers of the Cayley transform of a."""
    if s.descriptor is not None:
        return descriptor_gramians(backend, s)
    transformed = cayley(backend, s.a)
    size = broadcast_scalar(backend.xp.sqrt(2 * transformed.p))
    starts = size * (transformed.m @ s.b), size * (adjoint(transformed.m) @ adjoint(s.c))
    factors = smith_factors(backend, transformed.c, starts, (False, True))
    z, y = factors.z
    return Gramians(z, y, factors.steps, _continuous_failure(backend, factors, transformed, s.a))


def _continuous_failure(backend: Backend, factors: Factors, transformed: Cayley, a: Array) -> Array:
    growth = factors.growth * 2 * transformed.p * norm(backend, transformed.m) ** 2
    return _failure(backend, factors.converged, growth, a, backend.ones(a), discrete=False)


def _failure(backend: Backend, converged: Array, growth: Array, a: Array, d: Array, *, discrete: bool) -> Array:
    """UNSTABLE or BARELY_STABLE (stability depends on rounding) for members whose sum diverged or grew large, else 0."""
    xp, none = backend.xp, backend.int_zeros(a)

    def size(measure: Callable[[Backend, Array], Array], a: Array, d: Array) -> Array:
        """A bound on the norm of the operator, from a norm of a."""
        return measure(backend, a) ** 2 + d if discrete else 2 * measure(backend, a)

    def diagnose(converged: Array, a: Array, d: Array, none: Array) -> Array:
        values = backend.eig(a)[0]
        outermost = xp.max(xp.abs(values), axis=-1) - xp.sqrt(d) if discrete else xp.max(values.real, axis=-1)
        responses = bartels_stewart.stein_responses if discrete else bartels_stewart.lyapunov_responses
        nothing = a[:, None][:, :0]
        least = backend.host_callback(responses, (nothing, backend.ones(a)), a, nothing, d)[1]
        barely_stable = ~converged | ~(least > ROUNDINGS * backend.eps(a) * size(spectral_norm, a, d))
        failure = Failure.BARELY_STABLE.where(backend, barely_stable, none)
        return xp.where(outermost < 0, failure, int(Failure.UNSTABLE) + none)

    uncertain = ~converged | may_be_singular(backend, 1 / growth, a, ROUNDINGS * backend.eps(a) * size(norm, a, d))
    return backend.rare_cond(uncertain, diagnose, lambda converged, a, d, none: none, converged, a, d, none)


def discrete_gramians(backend: Backend, s: System) -> Gramians:
    """`gramians` in discrete time."""
    if s.descriptor is not None:
        return discrete_descriptor_gramians(backend, s)
    a = backend.ldexp(s.a, broadcast_scalar(2 * s.half))
    factors = smith_factors(backend, a, (s.b, adjoint(s.c)), (False, True))
    failure = _failure(backend, factors.converged, factors.growth, a, backend.ones(a), discrete=True)
    return Gramians(factors.z[0], factors.z[1], factors.steps, failure)


def continuous_factor(backend: Backend, s: System) -> ScaledFactor:
    if s.descriptor is not None:
        return continuous_descriptor_factor(backend, s)
    transformed = cayley(backend, s.a)
    size = broadcast_scalar(backend.xp.sqrt(2 * transformed.p))
    factors = smith_factors(backend, transformed.c, (size * (transformed.m @ s.b),), (False,))
    return ScaledFactor(factors, s.e, s.b_scale - s.half, _continuous_failure(backend, factors, transformed, s.a))


def discrete_factor(backend: Backend, s: System) -> ScaledFactor:
    if s.descriptor is not None:
        return discrete_descriptor_factor(backend, s)
    a = backend.ldexp(s.a, broadcast_scalar(2 * s.half))
    factors = smith_factors(backend, a, (s.b,), (False,))
    failure = _failure(backend, factors.converged, factors.growth, a, backend.ones(a), discrete=True)
    return ScaledFactor(factors, s.e, s.b_scale, failure)


def _restore(backend: Backend, f: ScaledFactor) -> Solution:
    """z in the caller's units, its columns not orthogonalised again: that would lose the digits of states in small units."""
    result = solution(backend, (f.z,), iterations=f.factors.steps)._replace(failure=f.failure)
    result = result if f.detail is None else result._replace(detail=f.detail)
    return scaling.restore(backend, result, f.e[:, :, None] + broadcast_scalar(f.scale))


def in_units_of_states(backend: Backend, a: Array, b: Array, e: Array | None = None) -> System:
    """`in_units` for a model without outputs."""
    return in_units(backend, a, b, adjoint(b)[:, :1], e)


def _continuous(backend: Backend, a: Array, b: Array, e: Array | None) -> Solution:
    s = in_units_of_states(backend, a, b, e)
    f = continuous_factor(backend, s)
    return _restore(backend, f if e is None else correct_factor(backend, CONTINUOUS, s, f))


def _discrete(backend: Backend, a: Array, b: Array, e: Array | None) -> Solution:
    s = in_units_of_states(backend, a, b, e)
    f = discrete_factor(backend, s)
    return _restore(backend, f if e is None else correct_factor(backend, DISCRETE, s, f))


def _continuous_powers(backend: Backend, a: Array, b: Array) -> scaling.Powers:
    half, of_b = -(-scaling.size_of(backend, a) // 2), scaling.size_of(backend, b)
    return scaling.Powers((2 * half, of_b), (of_b - half,))


def _discrete_powers(backend: Backend, a: Array, b: Array) -> scaling.Powers:
    of_b = scaling.size_of(backend, b)
    return scaling.Powers((0 * of_b, of_b), (of_b,))


def drop_zero_columns(backend: Backend, z: Array) -> Array:
    """z without the columns that are zero in every member; a traced z keeps them, because shapes cannot depend on values."""
    return z if backend.is_traced(z) else z[..., : width(backend, z)]


@overload
def lyapunov_factor(
    a: ArrayLike[T], b: VectorLike[T], *, e: OptionalArrayLike[T] = None, errors: str = "raise"
) -> T: ...
@overload
def lyapunov_factor(sys: StateSpace, /, *, errors: str = "raise") -> NDArray: ...
@takes_model("AB", discrete=False, other="discrete_lyapunov_factor")
def lyapunov_factor(a: ArrayLike[T], b: VectorLike[T], *, e: OptionalArrayLike[T] = None, errors: str = "raise") -> T:
    """Compute a factor of the controllability Gramian in continuous time.

    The z with a x + x aᴴ + b bᴴ = 0 for x = z zᴴ and a stable a; x itself is never formed.

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
    z : array (..., n, k)
        The factors. Their columns are orthogonal, the longest first, and the largest entry of each is real and
        positive: column k is an eigenvector of x times the square root of its eigenvalue. The number k of columns is
        the largest number above rounding in the batch (n under ``jax.jit``), with zeros where a member has fewer.

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
    solve_continuous_lyapunov : The Gramian itself.
    discrete_lyapunov_factor : The factor in discrete time.
    hankel_singular_values : What both factors together give.

    Notes
    -----
    The other Gramian, with aᴴ x + x a + cᴴ c = 0, has the factor ``lyapunov_factor(aᴴ, cᴴ)``.

    With e, for the model e ẋ = a x + b u, the eigenvalues of the pencil a - λ e must lie in the left half plane. Only
    a - p e for one number p is factorised, never e; derivatives are those of the model (e⁻¹ a, e⁻¹ b).

    The method is Smith's iteration [1]_ on the Cayley transform of a, in factors [2]_: one inverse, then one large
    product a step. The columns are accurate to rounding relative to the first one, where a factor of a computed x would
    lose half of the digits. For states in units of very different size this holds in the units that balance a, so no
    state loses digits.

    Derivatives are right for functions of z zᴴ: the derivative omits changes of z by a unitary factor on its right, on
    which such functions do not depend. Where z zᴴ is singular the first derivatives are right. A member of a batch
    gives the same bits as in a call by itself. Under ``jax.jit`` no error can be raised: a member without a Gramian is
    NaN.

    The backward error of `certify` is ‖a x + x aᴴ + b bᴴ‖ / (‖a x‖ + ‖x aᴴ‖ + ‖b bᴴ‖) for x = z zᴴ.

    A vector as b is a column. ``lyapunov_factor(sys)`` takes a and b from a model, as `gramian` does.

    References
    ----------
    .. [1] R. A. Smith, "Matrix equation XA + BX = C", SIAM J. Appl. Math. 16(1), 1968, pp. 198-201,
       doi:10.1137/0116017.
    .. [2] T. Penzl, "A cyclic low-rank Smith method for large sparse Lyapunov equations", SIAM J. Sci. Comput. 21(4),
       1999, pp. 1401-1418, doi:10.1137/S1064827598347666.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import lyapunov_factor
    >>> a, b = np.array([[-1.0, 2.0], [0.0, -3.0]]), np.array([[1.0], [1.0]])
    >>> z = lyapunov_factor(a, b)
    >>> x = z @ z.T
    >>> bool(np.linalg.norm(a @ x + x @ a.T + b @ b.T) < 1e-14)
    True
    """
    return LYAPUNOV_FACTOR(a, b, e, errors=errors)


LYAPUNOV_FACTOR = public_function(
    lyapunov_factor,
    "(n,n),(n,m),(n,n)->(n,k)",
    keyword_arrays=("e",),
    solve=_continuous,
    residual=continuous_factor_residual,
    tangent=with_descriptor_tangent(scaling.tangent_at_size(_continuous_powers, tangent_in_units(continuous_tangent))),
    cotangent=with_descriptor_cotangent(
        scaling.cotangent_at_size(_continuous_powers, cotangent_in_units(continuous_cotangent))
    ),
    wrap=drop_zero_columns,
    largest={"k": "n"},
    columns=("b",),
)


@overload
def discrete_lyapunov_factor(
    a: ArrayLike[T], b: VectorLike[T], *, e: OptionalArrayLike[T] = None, errors: str = "raise"
) -> T: ...
@overload
def discrete_lyapunov_factor(sys: StateSpace, /, *, errors: str = "raise") -> NDArray: ...
@takes_model("AB", discrete=True, other="lyapunov_factor")
def discrete_lyapunov_factor(
    a: ArrayLike[T], b: VectorLike[T], *, e: OptionalArrayLike[T] = None, errors: str = "raise"
) -> T:
    """Compute a factor of the controllability Gramian in discrete time.

    The z with a x aᴴ - x + b bᴴ = 0 for x = z zᴴ and an a with all eigenvalues inside the unit circle; x itself is
    never formed.

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
    z : array (..., n, k)
        The factors, in the form that `lyapunov_factor` returns.

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
    solve_discrete_lyapunov : The Gramian itself.
    lyapunov_factor : The factor in continuous time.

    Notes
    -----
    x is the sum of aᵏ b bᴴ (aᵏ)ᴴ. Each step doubles the number of its terms [1]_ by one large product. Derivatives,
    batches and ``jax.jit`` are as for `lyapunov_factor`. The backward error of `certify` is ‖a x aᴴ - x + b bᴴ‖ / (‖a x
    aᴴ‖ + ‖x‖ + ‖b bᴴ‖) for x = z zᴴ.

    A vector as b is a column. ``discrete_lyapunov_factor(sys)`` takes a and b from a model in discrete time.

    References
    ----------
    .. [1] R. A. Smith, "Matrix equation XA + BX = C", SIAM J. Appl. Math. 16(1), 1968, pp. 198-201,
       doi:10.1137/0116017.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import discrete_lyapunov_factor
    >>> a, b = np.array([[0.5, 1.0], [0.0, -0.8]]), np.array([[1.0], [1.0]])
    >>> z = discrete_lyapunov_factor(a, b)
    >>> x = z @ z.T
    >>> bool(np.linalg.norm(a @ x @ a.T - x + b @ b.T) < 1e-14)
    True
    """
    return DISCRETE_LYAPUNOV_FACTOR(a, b, e, errors=errors)


DISCRETE_LYAPUNOV_FACTOR = public_function(
    discrete_lyapunov_factor,
    "(n,n),(n,m),(n,n)->(n,k)",
    keyword_arrays=("e",),
    solve=_discrete,
    residual=discrete_factor_residual,
    tangent=with_descriptor_tangent(scaling.tangent_at_size(_discrete_powers, tangent_in_units(discrete_tangent))),
    cotangent=with_descriptor_cotangent(
        scaling.cotangent_at_size(_discrete_powers, cotangent_in_units(discrete_cotangent))
    ),
    wrap=drop_zero_columns,
    largest={"k": "n"},
    columns=("b",),
)
