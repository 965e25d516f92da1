"""The linear-quadratic regulator over a finite horizon: the gain k(t) of the optimal u = -k(t) x at the time t before the end.

k = r⁻¹(bᴴ x + sᴴ) with x of the differential Riccati equation.

Differential: that of x (`differential_derivatives`), and dk = r⁻¹(dbᴴ x + bᴴ dx + dsᴴ - dr k).
"""

from __future__ import annotations

from typing import Any, NamedTuple, overload

from matsign._typing import (
    Array,
    ArrayLike,
    Arrays,
    Generic,
    NDArray,
    NumberLike,
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
from matsign.equations.riccati.derivatives import add_present
from matsign.equations.riccati.differential import solution_of_horizon
from matsign.equations.riccati.differential_certificates import horizon_errors
from matsign.equations.riccati.differential_derivatives import path_of, rate_of, solution_jvp, solution_vjp
from matsign.equations.riccati.problem import RiccatiProblem
from matsign.equations.riccati.regulation import mark_indefinite
from matsign.iterations.differentiable_solves import inverse
from matsign.linalg.stacks import adjoint, broadcast_scalar, hermitian, inner, scale_to_unit


class FiniteHorizonRegulator(NamedTuple, Generic[T]):
    """Hold a linear-quadratic regulator over a finite horizon.

    The result of `lqr_finite_horizon`: a named tuple for the control u = -gain @ x.

    Attributes
    ----------
    gain : array (..., m, n)
        The gains of least cost at the given times.
    solution : array (..., n, n)
        The solutions of the Riccati equation: xᴴ solution x is the least cost from the state x to the end.

    See Also
    --------
    lqr_finite_horizon : Compute it in continuous time.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import lqr_finite_horizon
    >>> regulator = lqr_finite_horizon(np.zeros((1, 1)), np.eye(1), np.eye(1), np.eye(1), 0.0)
    >>> regulator._fields
    ('gain', 'solution')
    >>> float(regulator.gain[0, 0])
    0.0
    """

    gain: T
    solution: T


def _problem(
    a: Array, b: Array, q: Array, r: Array, qf: Array | None = None, s: Array | None = None
) -> tuple[RiccatiProblem, Array]:
    return RiccatiProblem(a, b, q, r, None, s), 0 * a if qf is None else qf


def _gain(backend: Backend, p: RiccatiProblem, x: Array) -> Array:
    """r⁻¹(bᴴ x + sᴴ), from matrices with entries near 1."""
    (b, b_size), (x, x_size), (r, r_size) = (scale_to_unit(backend, y) for y in (p.b, x, hermitian(p.r)))
    right, size = adjoint(b) @ x, b_size + x_size
    if p.s is not None:
        s, s_size = scale_to_unit(backend, p.s)
        top = backend.xp.maximum(size, s_size)
        right = backend.ldexp(right, broadcast_scalar(size - top))
        right, size = right + backend.ldexp(adjoint(s), broadcast_scalar(s_size - top)), top
    return backend.ldexp(backend.solve(r, right), broadcast_scalar(size - r_size))


def _solve(backend: Backend, *arrays: Array, t: Any) -> Solution:
    p, xf = _problem(*arrays)
    result = solution_of_horizon(backend, p, xf, t)
    (x,) = result.value
    gain = _gain(backend, p, x)
    overflowed = (result.failure == 0) & ~backend.xp.isfinite(gain).all((-1, -2))
    failure = Failure.OVERFLOW.where(backend, overflowed, result.failure)
    return mark_indefinite(
        backend, result._replace(value=(gain, x), failure=failure), hermitian(p.r), Failure.NOT_A_MINIMUM
    )


def _residual(backend: Backend, value: Arrays, *arrays: Array, t: Any) -> Residual:
    (gain, x), (p, xf) = value, _problem(*arrays)
    errors = horizon_errors(backend, x, p, xf, t)
    (dx,) = errors.correction
    size = backend.xp.abs
    right = size(adjoint(p.b)) @ (dx + backend.eps(x) * size(x)) + backend.eps(x) * size(p.r) @ size(gain)
    bound = size(backend.inv(hermitian(p.r))) @ right
    return errors._replace(correction=(bound + size(_gain(backend, p, x) - gain) + backend.eps(x) * size(gain), dx))


def _tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, t: Any) -> Arrays:
    (gain, x), (p, xf), (da, db, dq, dr, dqf, ds, *dt) = value, _problem(*arrays), tangents
    d = RiccatiProblem(da, db, dq, dr, None, ds)
    dx = solution_jvp(backend, path_of(backend, p, xf, t), d, 0 * x if dqf is None else dqf)
    if dt and dt[0] is not None:
        dx = dx + rate_of(backend, p, x) * broadcast_scalar(dt[0])
    right = adjoint(db) @ x + adjoint(p.b) @ dx - hermitian(dr) @ gain
    right = right if ds is None else right + adjoint(ds)
    return inverse(backend, hermitian(p.r)) @ right, dx


def _cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, t: Any) -> Arrays:
    (gain, x), (bar_gain, bar_x), (p, xf) = value, cotangents, _problem(*arrays)
    bar_right = inverse(backend, hermitian(p.r)) @ bar_gain
    bar_x = hermitian(bar_x + p.b @ bar_right)
    b, r = x @ adjoint(bar_right), -hermitian(bar_right @ adjoint(gain))
    by_gain = RiccatiProblem(0 * p.a, b, 0 * p.q, r, None, None if p.s is None else adjoint(bar_right))
    by_solution, bar_xf = solution_vjp(backend, path_of(backend, p, xf, t), bar_x)
    bars = add_present(by_gain, by_solution)
    bar_t = None if isinstance(t, float) else inner(backend, rate_of(backend, p, x), bar_x)
    return bars.a, bars.b, bars.q, bars.r, None if arrays[4] is None else bar_xf, bars.s, bar_t


@overload
def lqr_finite_horizon(
    a: ArrayLike[T],
    b: VectorLike[T],
    q: VectorLike[T],
    r: VectorLike[T],
    t: NumberLike[T],
    *,
    qf: OptionalArrayLike[T] = None,
    s: OptionalArrayLike[T] = None,
    errors: str = "raise",
) -> FiniteHorizonRegulator[T]: ...
@overload
def lqr_finite_horizon(
    sys: StateSpace,
    /,
    q: VectorLike[NDArray],
    r: VectorLike[NDArray],
    t: NumberLike[NDArray],
    *,
    qf: OptionalArrayLike[NDArray] = None,
    s: OptionalArrayLike[NDArray] = None,
    errors: str = "raise",
) -> FiniteHorizonRegulator[NDArray]: ...
@takes_model("AB", discrete=False)
def lqr_finite_horizon(
    a: ArrayLike[T],
    b: VectorLike[T],
    q: VectorLike[T],
    r: VectorLike[T],
    t: NumberLike[T],
    *,
    qf: OptionalArrayLike[T] = None,
    s: OptionalArrayLike[T] = None,
    errors: str = "raise",
) -> FiniteHorizonRegulator[T]:
    """Compute the linear-quadratic regulator over a finite horizon, in continuous time.

    The control u = -k(t) x that steers ẋ = a x + b u at the least cost
    ∫ xᴴ q x + 2 Re xᴴ s u + uᴴ r u dτ + x(T)ᴴ qf x(T) over the time that is left to the end T.

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
    t : float or array_like (...)
        Times to the end, at least 0: for the end T and a time τ, T - τ. Its axes broadcast with the leading axes of the
        matrices: a vector of times gives a stack of gains.
    qf : array_like (..., n, n), optional
        Weights of the state at the end, Hermitian. Default: 0.
    s : array_like (..., n, m), optional
        Weights of the products of states and inputs. Default: 0.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no regulator: raise `SpectrumError`, or return NaN for that member and
        the right result for the others.

    Returns
    -------
    gain : array (..., m, n)
        The gains k = r⁻¹(bᴴ x + sᴴ).
    solution : array (..., n, n)
        The solutions x of `solve_differential_riccati`. The two are the fields of the named tuple
        `FiniteHorizonRegulator`.

    Raises
    ------
    SpectrumError
        As for `solve_differential_riccati`, and if r is not positive definite, because then no control has the least
        cost; with ``errors="raise"``.
    ValueError
        If a shape does not fit, t is a negative number, ``errors`` has another value, the arrays lie on different
        devices, or q, r or qf in NumPy arrays is not Hermitian.
    TypeError
        If an argument is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    solve_differential_riccati : The solution alone, also for an indefinite r.
    lqr : The regulator without an end.
    FiniteHorizonRegulator : The form of the result.

    Notes
    -----
    The gains are exact in t: no equation is integrated step by step, and a time costs the same near the end and far from
    it. Far from the end they are those of `lqr`, if qf gives every unstable mode a weight that q does not see [1]_.

    Gain and solution are differentiable to any order with respect to all arrays, an array t among them.
    ``lqr_finite_horizon(sys, q, r, t)`` takes a and b from a model ``sys``, a ``scipy.signal.StateSpace`` or a
    ``control.StateSpace``; a model in discrete time is an error. Numbers and vectors stand for matrices as in `lqr`.

    References
    ----------
    .. [1] B. D. O. Anderson and J. B. Moore, "Optimal Control: Linear Quadratic Methods", Prentice-Hall, 1990.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import lqr, lqr_finite_horizon
    >>> a, b = np.array([[0.0, 1.0], [0.0, 0.0]]), np.array([[0.0], [1.0]])
    >>> gain, x = lqr_finite_horizon(a, b, 1, 1, [0.0, 1.0, 100.0])  # at the end, 1 and 100 before it
    >>> gain.shape, bool(np.abs(gain[2] - lqr(a, b, 1, 1).gain).max() < 1e-14)
    ((3, 1, 2), True)
    """
    return LQR_FINITE_HORIZON(a, b, q, r, qf, s, t=t, errors=errors)


LQR_FINITE_HORIZON = public_function(
    lqr_finite_horizon,
    "(n,n),(n,m),(n,n),(m,m),(n,n),(n,m)->(m,n),(n,n)",
    solve=_solve,
    residual=_residual,
    tangent=_tangent,
    cotangent=_cotangent,
    wrap=lambda backend, *parts: FiniteHorizonRegulator(*parts),
    hermitian=("q", "r", "qf"),
    numbers=("t",),
    keyword_arrays=("qf", "s"),
    neutral={"m": 1.0},
    weights=("q", "r", "qf"),
    columns=("b", "s"),
)
