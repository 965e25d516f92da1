"""The linear-quadratic regulator: the gain k of the optimal control u = -k x, from an algebraic Riccati equation."""

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
from matsign.equations.riccati.solver import METHODS
from matsign.linalg.stacks import adjoint, hermitian


class Regulator(NamedTuple, Generic[T]):
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

    gain: T
    solution: T
    poles: T


def _problem(
    a: Array, b: Array, q: Array, r: Array, s: Array | None, e: Array | None, x0: Array | None
) -> RiccatiProblem:
    return RiccatiProblem(a, b, q, r, e, s)


def _solver_of(equation: Equation) -> Callable[..., Solution]:
    def solve(backend: Backend, *arrays: Array, method: str) -> Solution:
        p = _problem(*arrays).hermitian_parts()
        result = regulate(backend, equation, p, method, start=arrays[-1])
        # The cost exceeds that of u = -k x by (u + k x)ᴴ w (u + k x) with w = r or r + bᴴ x b: w must not be negative.
        if equation.discrete:
            weight = hermitian(p.r + adjoint(p.b) @ result.value[1] @ p.b)
            result = mark_indefinite(backend, result, weight, Failure.NOT_A_MINIMUM)
        return mark_indefinite(backend, result, p.r, Failure.NOT_A_MINIMUM)

    return solve


def _residual_of(equation: Equation) -> Callable[..., Residual]:
    def residual(backend: Backend, value: Arrays, *arrays: Array) -> Residual:
        p = _problem(*arrays)
        return regulation_errors(backend, equation, value, p)

    return residual


def _tangent_of(equation: Equation) -> Callable[..., Arrays]:
    def tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, method: str) -> Arrays:
        p, d = _problem(*arrays), _problem(*tangents)
        return regulation_tangent(backend, equation, value, p, d)

    return tangent


def _cotangent_of(equation: Equation) -> Callable[..., Arrays]:
    def cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, method: str) -> Arrays:
        p = _problem(*arrays)
        a, b, q, r, e, s = regulation_cotangent(backend, equation, value, p, cotangents)
        return a, b, q, r, s, e, None if arrays[-1] is None else backend.xp.zeros_like(arrays[-1])

    return cotangent


_LQR = "(n,n),(n,m),(n,n),(m,m),(n,m),(n,n),(n,n)->(m,n),(n,n),(n)"
_LQR_KINDS = ("same", "same", "complex")


@overload
def lqr(
    a: ArrayLike[T],
    b: VectorLike[T],
    q: VectorLike[T],
    r: VectorLike[T],
    s: OptionalArrayLike[T] = None,
    e: OptionalArrayLike[T] = None,
    *,
    x0: OptionalArrayLike[T] = None,
    method: str = "auto",
    errors: str = "raise",
) -> Regulator[T]: ...
@overload
def lqr(
    sys: StateSpace,
    /,
    q: VectorLike[NDArray],
    r: VectorLike[NDArray],
    s: OptionalArrayLike[NDArray] = None,
    e: OptionalArrayLike[NDArray] = None,
    *,
    x0: OptionalArrayLike[NDArray] = None,
    method: str = "auto",
    errors: str = "raise",
) -> Regulator[NDArray]: ...
@takes_model("AB", discrete=False, other="dlqr")
def lqr(
    a: ArrayLike[T],
    b: VectorLike[T],
    q: VectorLike[T],
    r: VectorLike[T],
    s: OptionalArrayLike[T] = None,
    e: OptionalArrayLike[T] = None,
    *,
    x0: OptionalArrayLike[T] = None,
    method: str = "auto",
    errors: str = "raise",
) -> Regulator[T]:
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
    x0 : array_like (..., n, n), optional
        Estimates of the solution, from which Newton's method starts; as for `solve_continuous_are`.
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
    solve_continuous_are : The Riccati equation, also where its solution is not a minimum.
    Regulator : The form of the result.

    Notes
    -----
    The gain of a stationary Kalman filter is the adjoint of the gain for aᴴ, cᴴ and the intensities of the noise in
    place of a, b and the weights.

    Gain and solution are differentiable to any order; derivatives of the poles are NaN where a pole is multiple.
    Batches and ``jax.jit`` are as for `solve_continuous_are`.

    ``lqr(sys, q, r)`` takes a and b from a model ``sys``, a ``scipy.signal.StateSpace`` or a ``control.StateSpace``;
    one in discrete time is an error. A number c as q or r stands for c I, a vector for a diagonal matrix, and a vector
    as b for a column.

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
    return LQR(a, b, q, r, s, e, x0, method=method, errors=errors)


LQR = public_function(
    lqr,
    _LQR,
    kinds=_LQR_KINDS,
    solve=_solver_of(CONTINUOUS),
    residual=_residual_of(CONTINUOUS),
    tangent=_tangent_of(CONTINUOUS),
    cotangent=_cotangent_of(CONTINUOUS),
    choices={"method": METHODS},
    wrap=lambda backend, *parts: Regulator(*parts),
    hermitian=("q", "r"),
    neutral={"m": 1.0},
    keyword_arrays=("x0",),
    estimates=("x0",),
    weights=("q", "r"),
    columns=("b", "s"),
)


@overload
def dlqr(
    a: ArrayLike[T],
    b: VectorLike[T],
    q: VectorLike[T],
    r: VectorLike[T],
    s: OptionalArrayLike[T] = None,
    e: OptionalArrayLike[T] = None,
    *,
    x0: OptionalArrayLike[T] = None,
    method: str = "auto",
    errors: str = "raise",
) -> Regulator[T]: ...
@overload
def dlqr(
    sys: StateSpace,
    /,
    q: VectorLike[NDArray],
    r: VectorLike[NDArray],
    s: OptionalArrayLike[NDArray] = None,
    e: OptionalArrayLike[NDArray] = None,
    *,
    x0: OptionalArrayLike[NDArray] = None,
    method: str = "auto",
    errors: str = "raise",
) -> Regulator[NDArray]: ...
@takes_model("AB", discrete=True, other="lqr")
def dlqr(
    a: ArrayLike[T],
    b: VectorLike[T],
    q: VectorLike[T],
    r: VectorLike[T],
    s: OptionalArrayLike[T] = None,
    e: OptionalArrayLike[T] = None,
    *,
    x0: OptionalArrayLike[T] = None,
    method: str = "auto",
    errors: str = "raise",
) -> Regulator[T]:
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
    x0 : array_like (..., n, n), optional
        Estimates of the solution, from which Newton's method starts; as for `solve_discrete_are`.
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
    solve_discrete_are : The Riccati equation, also where its solution is not a minimum.
    Regulator : The form of the result.

    Notes
    -----
    Gain and solution are differentiable to any order; derivatives of the poles are NaN where a pole is multiple.
    Batches and ``jax.jit`` are as for `solve_discrete_are`.

    ``dlqr(sys, q, r)`` takes a and b from a model ``sys`` in discrete time, a ``scipy.signal.StateSpace`` or a
    ``control.StateSpace``. Numbers and vectors are as for `lqr`.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import dlqr
    >>> a, b = np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([[0.0], [1.0]])
    >>> gain, x, poles = dlqr(a, b, np.eye(2), np.eye(1))
    >>> bool(np.linalg.norm((np.eye(1) + b.T @ x @ b) @ gain - b.T @ x @ a) < 1e-13), bool((abs(poles) < 1).all())
    (True, True)
    """
    return DLQR(a, b, q, r, s, e, x0, method=method, errors=errors)


DLQR = public_function(
    dlqr,
    _LQR,
    kinds=_LQR_KINDS,
    solve=_solver_of(DISCRETE),
    residual=_residual_of(DISCRETE),
    tangent=_tangent_of(DISCRETE),
    cotangent=_cotangent_of(DISCRETE),
    choices={"method": METHODS},
    wrap=lambda backend, *parts: Regulator(*parts),
    hermitian=("q", "r"),
    neutral={"m": 1.0},
    keyword_arrays=("x0",),
    estimates=("x0",),
    weights=("q", "r"),
    columns=("b", "s"),
)
