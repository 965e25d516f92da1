"""The stationary Kalman filter: the gain l of the estimator x̂' = a x̂ + b u + l (y - c x̂), from an algebraic Riccati equation.

It is the regulator of the dual plant,

    a → aᴴ,  b → cᴴ,  q → g qn gᴴ,  r → rn,  s → g nn,      l = kᴴ,

and so are its derivatives, with

    d(g qn gᴴ) = t + tᴴ + g dqn gᴴ,  t = dg qn gᴴ,      d(g nn) = dg nn + g dnn.

The filter gain x cᴴ (c x cᴴ + rn)⁻¹ is that of the dual plant with a delayed copy of its states (`delayed_copy`).

Sources: Kalman & Bucy 1961, Kalman 1960, Anderson & Moore 1979.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, overload

from matsign._typing import (
    Array,
    ArrayLike,
    Arrays,
    Generic,
    NDArray,
    OptionalArrayLike,
    StateSpace,
    T,
    VectorLike,
)
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.members import Solution
from matsign.core.objects import takes_model
from matsign.core.public import Residual, public_function
from matsign.equations.riccati.care import CONTINUOUS
from matsign.equations.riccati.dare import DISCRETE
from matsign.equations.riccati.newton_kleinman import Equation
from matsign.equations.riccati.problem import RiccatiProblem
from matsign.equations.riccati.regulation import (
    mark_indefinite,
    regulate,
    regulation_cotangent,
    regulation_errors,
    regulation_tangent,
)
from matsign.equations.riccati.solver import METHODS, zero_nonfinite_entries
from matsign.linalg.stacks import adjoint, hermitian, rounding_probe

# The reasons of the dual regulator, in the words of the estimator.
_REASONS = {
    Failure.NOT_STABILISABLE: Failure.NOT_MEASURED,
    Failure.NOT_DETECTABLE: Failure.NOT_DISTURBED,
    Failure.NOT_STABILISING: Failure.NO_ESTIMATOR,
    Failure.SINGULAR_R: Failure.SINGULAR_RN,
    Failure.HARDLY_STABILISABLE: Failure.HARDLY_MEASURED,
    Failure.HARDLY_STABILISED: Failure.HARDLY_ESTIMATED,
}


class Estimator(NamedTuple, Generic[T]):
    """Hold a stationary Kalman filter.

    The result of `lqe` and `dlqe`: a named tuple for the correction gain @ (y - c @ x) of an estimate x.

    Attributes
    ----------
    gain : array (..., n, p)
        The gain of least error.
    solution : array (..., n, n)
        The covariance of the error of the estimate: the stabilising solution of the Riccati equation.
    poles : array (..., n)
        The eigenvalues of the estimator, complex.

    See Also
    --------
    lqe : Compute it in continuous time.
    dlqe : Compute it in discrete time.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import lqe
    >>> estimator = lqe(np.zeros((1, 1)), np.eye(1), np.eye(1), np.eye(1), np.eye(1))
    >>> estimator._fields
    ('gain', 'solution', 'poles')
    >>> bool(abs(estimator.gain - 1) < 1e-14), bool(abs(estimator.poles + 1) < 1e-14)
    (True, True)
    """

    gain: T
    solution: T
    poles: T


class Model(NamedTuple):
    """The arguments: x' = a x + g w, y = c x + v, with the covariances qn of w, rn of v and nn of w with v (or None)."""

    a: Array
    g: Array
    c: Array
    qn: Array
    rn: Array
    nn: Array | None


def _dual(m: Model) -> RiccatiProblem:
    q = hermitian(m.g @ hermitian(m.qn) @ adjoint(m.g))
    return RiccatiProblem(adjoint(m.a), adjoint(m.c), q, hermitian(m.rn), None, None if m.nn is None else m.g @ m.nn)


def _dual_tangent(m: Model, d: Model) -> RiccatiProblem:
    t = d.g @ hermitian(m.qn) @ adjoint(m.g)
    q = t + adjoint(t) + m.g @ hermitian(d.qn) @ adjoint(m.g)
    s = None if m.nn is None else d.g @ m.nn + m.g @ d.nn
    return RiccatiProblem(adjoint(d.a), adjoint(d.c), q, hermitian(d.rn), None, s)


def _dual_cotangent(m: Model, bar: RiccatiProblem) -> Model:
    """The adjoint of `_dual_tangent`."""
    bar_q = hermitian(bar.q)
    g = 2 * (bar_q @ m.g @ hermitian(m.qn))
    if m.nn is not None:
        g = g + bar.s @ adjoint(m.nn)
    qn = hermitian(adjoint(m.g) @ bar_q @ m.g)
    nn = None if m.nn is None else adjoint(m.g) @ bar.s
    return Model(adjoint(bar.a), g, adjoint(bar.b), qn, hermitian(bar.r), nn)


def _of_dual(backend: Backend, gain: Array, x: Array, poles: Array) -> Arrays:
    # Those of real matrices are conjugate pairs.
    return adjoint(gain), x, backend.xp.conj(poles) if backend.is_complex(x) else poles


def _is_filter(options: dict[str, str]) -> bool:
    return options.get("gain") == "filter"


def _solver_of(equation: Equation) -> Callable[..., Solution]:
    def solve(backend: Backend, *arrays: Array, method: str, **options: str) -> Solution:
        m = Model(*arrays)
        p = _dual(m)
        overflowed = ~backend.xp.isfinite(backend.norm(p.q))
        p = p._replace(q=zero_nonfinite_entries(backend, p.q))
        result = regulate(backend, equation, p, method, filtering=_is_filter(options))
        failure = Failure.OVERFLOW.where(backend, overflowed, result.failure)
        for of_regulator, of_estimator in _REASONS.items():
            failure = of_estimator.where(backend, failure == int(of_regulator), failure)
        detail = backend.xp.stack(
            (result.detail[:, 0], -result.detail[:, 1]), axis=-1
        )  # aᴴ has the conjugate eigenvalues
        result = result._replace(value=_of_dual(backend, *result.value), failure=failure, detail=detail)
        if not equation.discrete:
            result = mark_indefinite(backend, result, p.r, Failure.SINGULAR_RN)
        return mark_indefinite(backend, result, _covariance(backend, m), Failure.NOT_A_COVARIANCE)

    return solve


def _covariance(backend: Backend, m: Model) -> Array:
    """[[qn, nn], [nnᴴ, rn]]."""
    xp, nn = backend.xp, m.nn
    if nn is None:
        nn = backend.zeros((m.qn.shape[0], m.qn.shape[-1], m.rn.shape[-1]), m.qn)
    upper = xp.concat((hermitian(m.qn), nn), axis=-1)
    return xp.concat((upper, xp.concat((adjoint(nn), hermitian(m.rn)), axis=-1)), axis=-2)


def _errors(equation: Equation, backend: Backend, value: Arrays, *arrays: Array, **options: str) -> Residual:
    m, value = Model(*arrays), _of_dual(backend, *value)
    p, filtering = _dual(m), _is_filter(options)
    result = regulation_errors(backend, equation, value, p, filtering=filtering)
    step, dx, nearest = result.correction
    # The rounding errors of g qn gᴴ, which are large beside it where its terms cancel.
    size = backend.norm(m.g) ** 2 * backend.norm(m.qn)
    noise = hermitian(rounding_probe(backend, p.q, size))
    d = RiccatiProblem(*(None if x is None else 0 * x for x in p))._replace(q=noise)
    by_noise = regulation_tangent(backend, equation, value, p, d, filtering=filtering)
    return result._replace(correction=(adjoint(step + abs(by_noise[0])), abs(dx) + abs(by_noise[1]), nearest))


def _continuous_errors(backend: Backend, value: Arrays, *arrays: Array) -> Residual:
    return _errors(CONTINUOUS, backend, value, *arrays)


def _discrete_errors(backend: Backend, value: Arrays, *arrays: Array, gain: str) -> Residual:
    return _errors(DISCRETE, backend, value, *arrays, gain=gain)


def _tangent_of(equation: Equation) -> Callable[..., Arrays]:
    def tangent(
        backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, method: str, **options: str
    ) -> Arrays:
        m = Model(*arrays)
        p, d, value = _dual(m), _dual_tangent(m, Model(*tangents)), _of_dual(backend, *value)
        moved = regulation_tangent(backend, equation, value, p, d, filtering=_is_filter(options))
        return _of_dual(backend, *moved)

    return tangent


def _cotangent_of(equation: Equation) -> Callable[..., Arrays]:
    def cotangent(
        backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, method: str, **options: str
    ) -> Arrays:
        m = Model(*arrays)
        value, bar = (_of_dual(backend, *x) for x in (value, cotangents))
        dual = regulation_cotangent(backend, equation, value, _dual(m), bar, filtering=_is_filter(options))
        return tuple(_dual_cotangent(m, dual))

    return cotangent


_ESTIMATOR = "(n,n),(n,w),(p,n),(w,w),(p,p),(w,p)->(n,p),(n,n),(n)"
_KINDS = ("same", "same", "complex")
_NO_D = "the noise of its inputs would reach the measurements directly: pass a, g, c with the cross term nn"


@overload
def lqe(
    a: ArrayLike[T],
    g: VectorLike[T],
    c: VectorLike[T],
    qn: VectorLike[T],
    rn: VectorLike[T],
    nn: OptionalArrayLike[T] = None,
    *,
    method: str = "auto",
    errors: str = "raise",
) -> Estimator[T]: ...
@overload
def lqe(
    sys: StateSpace,
    /,
    qn: VectorLike[NDArray],
    rn: VectorLike[NDArray],
    nn: OptionalArrayLike[NDArray] = None,
    *,
    method: str = "auto",
    errors: str = "raise",
) -> Estimator[NDArray]: ...
@takes_model("ABC", discrete=False, other="dlqe", why_no_d=_NO_D)
def lqe(
    a: ArrayLike[T],
    g: VectorLike[T],
    c: VectorLike[T],
    qn: VectorLike[T],
    rn: VectorLike[T],
    nn: OptionalArrayLike[T] = None,
    *,
    method: str = "auto",
    errors: str = "raise",
) -> Estimator[T]:
    """Compute the stationary Kalman filter in continuous time.

    The model is ẋ = a x + b u + g w, y = c x + v with white noise w and v; the estimator with the least error is
    dx̂/dt = a x̂ + b u + gain (y - c x̂). The order of the arguments and results is that of python-control.

    Parameters
    ----------
    a : array_like (..., n, n)
        System matrices, of dtype float32, float64, complex64 or complex128.
    g : array_like (..., n, w)
        Matrices through which the noise w enters.
    c : array_like (..., p, n)
        Output matrices.
    qn : array_like (..., w, w)
        Intensities of the noise w, Hermitian positive semidefinite.
    rn : array_like (..., p, p)
        Intensities of the noise v of the measurements, Hermitian positive definite.
    nn : array_like (..., w, p), optional
        Cross intensities of w and v. Default: 0.
    method : {"auto", "doubling", "sign", "qz"}, default "auto"
        How the Riccati equation is solved; the methods are those of `solve_continuous_are`.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no estimator: raise `SpectrumError`, or return NaN for that member and
        the right result for the others.

    Returns
    -------
    gain : array (..., n, p)
        The gain (x cᴴ + g nn) rn⁻¹.
    solution : array (..., n, n)
        The covariance x of the error of the estimate.
    poles : array (..., n)
        The eigenvalues of a - gain c, complex. The three are the fields of the named tuple `Estimator`.

    Raises
    ------
    SpectrumError
        If (a, c) is not detectable, rn is not positive definite, [[qn, nn], [nnᴴ, rn]] is not positive semidefinite, an
        input holds NaN or infinity, or the iteration does not converge; with ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, the arrays lie on different devices, or
        qn or rn in NumPy arrays is not Hermitian.
    TypeError
        If an argument is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    dlqe : The estimator in discrete time.
    lqr : The regulator, its dual; with it an estimator makes an LQG controller.
    Estimator : The form of the result.

    Notes
    -----
    x is the stabilising solution of

        a x + x aᴴ - (x cᴴ + g nn) rn⁻¹ (x cᴴ + g nn)ᴴ + g qn gᴴ = 0,

    the equation of the regulator for aᴴ, cᴴ, g qn gᴴ, rn and g nn [1]_, [2]_. An eigenvalue of a on the imaginary axis
    that the noise does not excite remains a pole, and ``boundary`` of the `Certificate` is set. Gain and solution are
    differentiable to any order; derivatives of the poles are NaN where a pole is multiple. Batches and ``jax.jit`` are
    as for `solve_continuous_are`.

    References
    ----------
    .. [1] R. E. Kalman and R. S. Bucy, "New results in linear filtering and prediction theory", J. Basic Eng. 83(1),
       1961, pp. 95-108, doi:10.1115/1.3658902.
    .. [2] B. D. O. Anderson and J. B. Moore, "Optimal Filtering", Prentice-Hall, 1979.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import lqe
    >>> a, g, c = np.array([[0.0, 1.0], [0.0, 0.0]]), np.array([[0.0], [1.0]]), np.array([[1.0, 0.0]])
    >>> gain, x, poles = lqe(a, g, c, np.eye(1), 0.01 * np.eye(1))
    >>> bool(np.linalg.norm(a @ x + x @ a.T - gain @ c @ x + g @ g.T) < 1e-13), bool((poles.real < 0).all())
    (True, True)
    """
    return LQE(a, g, c, qn, rn, nn, method=method, errors=errors)


LQE = public_function(
    lqe,
    _ESTIMATOR,
    kinds=_KINDS,
    solve=_solver_of(CONTINUOUS),
    residual=_continuous_errors,
    tangent=_tangent_of(CONTINUOUS),
    cotangent=_cotangent_of(CONTINUOUS),
    choices={"method": METHODS},
    wrap=lambda backend, *parts: Estimator(*parts),
    hermitian=("qn", "rn"),
    neutral={"p": 1.0},
    weights=("qn", "rn"),
    columns=("g",),
    rows=("c",),
)


@overload
def dlqe(
    a: ArrayLike[T],
    g: VectorLike[T],
    c: VectorLike[T],
    qn: VectorLike[T],
    rn: VectorLike[T],
    nn: OptionalArrayLike[T] = None,
    *,
    gain: str = "predictor",
    method: str = "auto",
    errors: str = "raise",
) -> Estimator[T]: ...
@overload
def dlqe(
    sys: StateSpace,
    /,
    qn: VectorLike[NDArray],
    rn: VectorLike[NDArray],
    nn: OptionalArrayLike[NDArray] = None,
    *,
    gain: str = "predictor",
    method: str = "auto",
    errors: str = "raise",
) -> Estimator[NDArray]: ...
@takes_model("ABC", discrete=True, other="lqe", why_no_d=_NO_D)
def dlqe(
    a: ArrayLike[T],
    g: VectorLike[T],
    c: VectorLike[T],
    qn: VectorLike[T],
    rn: VectorLike[T],
    nn: OptionalArrayLike[T] = None,
    *,
    gain: str = "predictor",
    method: str = "auto",
    errors: str = "raise",
) -> Estimator[T]:
    """Compute the stationary Kalman filter in discrete time.

    The model is x⁺ = a x + b u + g w, y = c x + v with white noise w and v. The order of the arguments and results is
    that of python-control.

    Parameters
    ----------
    a : array_like (..., n, n)
        System matrices, of dtype float32, float64, complex64 or complex128.
    g : array_like (..., n, w)
        Matrices through which the noise w enters.
    c : array_like (..., p, n)
        Output matrices.
    qn : array_like (..., w, w)
        Covariances of the noise w, Hermitian positive semidefinite.
    rn : array_like (..., p, p)
        Covariances of the noise v of the measurements, Hermitian positive semidefinite.
    nn : array_like (..., w, p), optional
        Covariances of w with v. Default: 0.
    gain : {"predictor", "filter"}, default "predictor"
        Which gain is returned. "predictor": x̂⁺ = a x̂ + b u + gain (y - c x̂) estimates the next state.
        "filter": x̂ + gain (y - c x̂) corrects an estimate by the measurement at the same time.
    method : {"auto", "doubling", "sign", "qz"}, default "auto"
        How the Riccati equation is solved; the methods are those of `solve_discrete_are`.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no estimator: raise `SpectrumError`, or return NaN for that member and
        the right result for the others.

    Returns
    -------
    gain : array (..., n, p)
        The gain (a x cᴴ + g nn)(c x cᴴ + rn)⁻¹ of the predictor, or x cᴴ (c x cᴴ + rn)⁻¹ of the filter.
    solution : array (..., n, n)
        The covariance x of the error of the estimate before the measurement.
    poles : array (..., n)
        The eigenvalues of a - k c with the gain k of the predictor, complex. The three are the fields of the named
        tuple `Estimator`.

    Raises
    ------
    SpectrumError
        If (a, c) is not detectable, c x cᴴ + rn is singular, [[qn, nn], [nnᴴ, rn]] is not positive semidefinite, an
        input holds NaN or infinity, or the iteration does not converge; with ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, the arrays lie on different devices, or
        qn or rn in NumPy arrays is not Hermitian.
    TypeError
        If an argument is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    lqe : The estimator in continuous time.
    dlqr : The regulator, its dual; with it an estimator makes an LQG controller.
    Estimator : The form of the result.

    Notes
    -----
    x is the stabilising solution of

        a x aᴴ - x - (a x cᴴ + g nn)(c x cᴴ + rn)⁻¹(a x cᴴ + g nn)ᴴ + g qn gᴴ = 0,

    the equation of the regulator for aᴴ, cᴴ, g qn gᴴ, rn and g nn [1]_, [2]_. The covariance after the measurement is
    x - k c x with the gain k of the filter; without nn, the gain of the predictor is a k. Gain and solution are
    differentiable to any order; derivatives of the poles are NaN where a pole is multiple. Batches and ``jax.jit`` are
    as for `solve_discrete_are`.

    References
    ----------
    .. [1] R. E. Kalman, "A new approach to linear filtering and prediction problems", J. Basic Eng. 82(1), 1960,
       pp. 35-45, doi:10.1115/1.3662552.
    .. [2] B. D. O. Anderson and J. B. Moore, "Optimal Filtering", Prentice-Hall, 1979.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import dlqe
    >>> a, g, c = np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([[0.5], [1.0]]), np.array([[1.0, 0.0]])
    >>> k, x, poles = dlqe(a, g, c, 0.1 * np.eye(1), np.eye(1), gain="filter")
    >>> after = x - k @ c @ x
    >>> bool(np.linalg.norm(a @ after @ a.T + 0.1 * g @ g.T - x) < 1e-13), bool((abs(poles) < 1).all())
    (True, True)
    """
    return DLQE(a, g, c, qn, rn, nn, gain=gain, method=method, errors=errors)


DLQE = public_function(
    dlqe,
    _ESTIMATOR,
    kinds=_KINDS,
    solve=_solver_of(DISCRETE),
    residual=_discrete_errors,
    tangent=_tangent_of(DISCRETE),
    cotangent=_cotangent_of(DISCRETE),
    choices={"method": METHODS, "gain": ("predictor", "filter")},
    wrap=lambda backend, *parts: Estimator(*parts),
    hermitian=("qn", "rn"),
    neutral={"p": 1.0},
    weights=("qn", "rn"),
    columns=("g",),
    rows=("c",),
)
