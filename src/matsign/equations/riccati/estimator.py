"""The stationary Kalman filter: the gain l of the estimator x̂' = a x̂ + b u + l (y - c x̂), from an algebraic Riccati equation.

It is the regulator of the dual plant; `equations.riccati.estimation` has the solver and the derivatives.

Sources: Kalman & Bucy 1961, Kalman 1960, Anderson & Moore 1979.
"""

from __future__ import annotations

from typing import NamedTuple, overload

from matsign._typing import ArrayLike, Generic, NDArray, OptionalArrayLike, StateSpace, T, VectorLike
from matsign.core.objects import takes_model
from matsign.core.public import public_function
from matsign.equations.riccati.care import CONTINUOUS
from matsign.equations.riccati.dare import DISCRETE
from matsign.equations.riccati.estimation import (
    continuous_errors,
    discrete_errors,
    estimator_cotangent,
    estimator_solver,
    estimator_tangent,
)
from matsign.equations.riccati.solver import METHODS


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


_ESTIMATOR = "(n,n),(n,w),(p,n),(w,w),(p,p),(w,p),(n,n)->(n,p),(n,n),(n)"
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
    x0: OptionalArrayLike[T] = None,
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
    x0: OptionalArrayLike[NDArray] = None,
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
    x0: OptionalArrayLike[T] = None,
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
    x0 : array_like (..., n, n), optional
        Estimates of the solution, from which Newton's method starts; as for `solve_continuous_are`.
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

    ``lqe(sys, qn, rn)`` takes a, g and c from the A, B and C of a model ``sys``, a ``scipy.signal.StateSpace`` or a
    ``control.StateSpace`` with D = 0, so that the noise enters by its inputs; a model in discrete time is an error. A
    number c as qn or rn stands for c I, a vector for a diagonal matrix; a vector as g is a column, as c a row.

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
    return LQE(a, g, c, qn, rn, nn, x0, method=method, errors=errors)


LQE = public_function(
    lqe,
    _ESTIMATOR,
    kinds=_KINDS,
    solve=estimator_solver(CONTINUOUS),
    residual=continuous_errors,
    tangent=estimator_tangent(CONTINUOUS),
    cotangent=estimator_cotangent(CONTINUOUS),
    choices={"method": METHODS},
    wrap=lambda backend, *parts: Estimator(*parts),
    hermitian=("qn", "rn"),
    neutral={"p": 1.0},
    keyword_arrays=("x0",),
    estimates=("x0",),
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
    x0: OptionalArrayLike[T] = None,
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
    x0: OptionalArrayLike[NDArray] = None,
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
    x0: OptionalArrayLike[T] = None,
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
    x0 : array_like (..., n, n), optional
        Estimates of the solution, from which Newton's method starts; as for `solve_discrete_are`.
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

    ``dlqe(sys, qn, rn)`` takes a, g and c from a model ``sys`` in discrete time with D = 0. Models, numbers and vectors
    are as for `lqe`.

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
    return DLQE(a, g, c, qn, rn, nn, x0, gain=gain, method=method, errors=errors)


DLQE = public_function(
    dlqe,
    _ESTIMATOR,
    kinds=_KINDS,
    solve=estimator_solver(DISCRETE),
    residual=discrete_errors,
    tangent=estimator_tangent(DISCRETE),
    cotangent=estimator_cotangent(DISCRETE),
    choices={"method": METHODS, "gain": ("predictor", "filter")},
    wrap=lambda backend, *parts: Estimator(*parts),
    hermitian=("qn", "rn"),
    neutral={"p": 1.0},
    keyword_arrays=("x0",),
    estimates=("x0",),
    weights=("qn", "rn"),
    columns=("g",),
    rows=("c",),
)
