"""The linear-quadratic regulator in discrete time with other matrices in each step, over a finite horizon.

Method and differential are those of `discrete_horizon`; the matrices of all steps are sequences.
"""

from __future__ import annotations

from matsign._typing import Array, ArrayLike, Arrays, OptionalArrayLike, T, VectorLike
from matsign.backends import Backend
from matsign.core.members import Solution
from matsign.core.public import Residual, public_function
from matsign.equations.riccati.finite_horizon import FiniteHorizonRegulator
from matsign.equations.riccati.problem import RiccatiProblem
from matsign.equations.riccati.recursion import ByTime, all_steps, solve_recursion
from matsign.equations.riccati.recursion_certificates import recursion_errors
from matsign.equations.riccati.recursion_derivatives import path_of, recursion_jvp, recursion_vjp


def _sizes(known: dict[str, int]) -> dict[str, int]:
    """The number of solutions."""
    return {"l": known["k"] + 1}


def _problem(
    a: Array, b: Array, q: Array, r: Array, qf: Array | None = None, s: Array | None = None
) -> tuple[RiccatiProblem, Array]:
    return RiccatiProblem(a, b, q, r, None, s), 0 * a[..., 0, :, :] if qf is None else qf


def _by_time(backend: Backend) -> ByTime:
    """The matrices of each step."""
    return lambda x: backend.xp.moveaxis(x, -3, 0)


def _solve(backend: Backend, *arrays: Array) -> Solution:
    return solve_recursion(backend, *_problem(*arrays), _by_time(backend))


def _residual(backend: Backend, value: Arrays, *arrays: Array) -> Residual:
    return recursion_errors(backend, value, *_problem(*arrays), _by_time(backend))


def _tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays) -> Arrays:
    (d, dxf), by_time = _problem(*tangents), _by_time(backend)
    return recursion_jvp(backend, path_of(backend, _problem(*arrays)[0], value, by_time), all_steps(d, by_time), dxf)


def _cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays) -> Arrays:
    bars, bar_qf = recursion_vjp(backend, path_of(backend, _problem(*arrays)[0], value, _by_time(backend)), cotangents)
    a, b, q, r, _, s = (None if x is None else backend.xp.moveaxis(x, 0, -3) for x in bars)
    return a, b, q, r, None if arrays[4] is None else bar_qf, s


def dlqr_time_varying(
    a: ArrayLike[T],
    b: VectorLike[T],
    q: VectorLike[T],
    r: VectorLike[T],
    *,
    qf: OptionalArrayLike[T] = None,
    s: OptionalArrayLike[T] = None,
    errors: str = "raise",
) -> FiniteHorizonRegulator[T]:
    """Compute the linear-quadratic regulator of a time-varying model over a finite horizon, in discrete time.

    The controls uₜ = -kₜ xₜ that steer xₜ₊₁ = aₜ xₜ + bₜ uₜ from t = 0 to the end t = k at the least cost
    ∑ xₜᴴ qₜ xₜ + 2 Re xₜᴴ sₜ uₜ + uₜᴴ rₜ uₜ + xᴴ qf x, the last x being that at the end: the regulator along a
    trajectory, at which a nonlinear model is linearised (TVLQR).

    Parameters
    ----------
    a : array_like (..., k, n, n)
        System matrices of the k steps, of dtype float32, float64, complex64 or complex128. The third axis from the end is
        time, the axes before are a batch.
    b : array_like (..., k, n, m)
        Input matrices. For these and the following arrays, one matrix (two axes) stands for that of all steps.
    q : array_like (..., k, n, n)
        Weights of the states, Hermitian.
    r : array_like (..., k, m, m)
        Weights of the inputs, Hermitian; they may be singular, even 0, where r + bᴴ x b is positive definite.
    qf : array_like (..., n, n), optional
        Weights of the state at the end, Hermitian. Default: 0.
    s : array_like (..., k, n, m), optional
        Weights of the products of states and inputs. Default: 0.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no least cost: raise `SpectrumError`, or return NaN for that member and
        the right result for the others.

    Returns
    -------
    gain : array (..., k, m, n)
        The gains: ``gain[..., t, :, :]`` is that of the step from t to t + 1.
    solution : array (..., k + 1, n, n)
        The Hermitian solutions of the recursion: xᴴ ``solution[..., t, :, :]`` x is the least cost from the state x at t
        to the end; the last one is qf. The two are the fields of the named tuple `FiniteHorizonRegulator`.

    Raises
    ------
    SpectrumError
        If r + bᴴ x b is not positive definite at a step, because then no control has the least cost, an input holds NaN
        or infinity, or the result overflows; with ``errors="raise"``.
    ValueError
        If a shape does not fit, ``errors`` has another value, the arrays lie on different devices, or q, r or qf in NumPy
        arrays is not Hermitian. On PyTorch and JAX their Hermitian parts are taken.
    TypeError
        If an argument is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    dlqr_finite_horizon : The same for a constant model.
    FiniteHorizonRegulator : The form of the result.

    Notes
    -----
    The recursion is that of `dlqr_finite_horizon`, with the matrices of each step [1]_. An array with three axes or more
    is never taken for a batch of constant matrices: give it an axis of time, too.

    Gains and solutions are differentiable to any order with respect to all arrays, by one more recursion. A member of a
    batch gives the same bits as in a call by itself. A number for q, r or qf stands for that multiple of the identity,
    a vector for a diagonal matrix, and a vector b or s for one column, the same in all steps.

    References
    ----------
    .. [1] B. D. O. Anderson and J. B. Moore, "Optimal Control: Linear Quadratic Methods", Prentice-Hall, 1990.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import dlqr_time_varying
    >>> angles = np.linspace(0, 1, 50)
    >>> a = np.stack([[[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]] for t in angles])  # turns faster and faster
    >>> gain, x = dlqr_time_varying(a, [0.0, 1.0], 1, 1)
    >>> gain.shape, x.shape
    ((50, 1, 2), (51, 2, 2))
    """
    return DLQR_TIME_VARYING(a, b, q, r, qf, s, errors=errors)


DLQR_TIME_VARYING = public_function(
    dlqr_time_varying,
    "(k,n,n),(k,n,m),(k,n,n),(k,m,m),(n,n),(k,n,m)->(k,m,n),(l,n,n)",
    solve=_solve,
    residual=_residual,
    tangent=_tangent,
    cotangent=_cotangent,
    wrap=lambda backend, *parts: FiniteHorizonRegulator(*parts),
    hermitian=("q", "r", "qf"),
    keyword_arrays=("qf", "s"),
    neutral={0: 1.0, "m": 1.0},
    weights=("q", "r", "qf"),
    columns=("b", "s"),
    sizes=_sizes,
)
