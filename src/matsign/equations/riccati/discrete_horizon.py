"""The linear-quadratic regulator over a finite horizon in discrete time: the gains k of the optimal uₜ = -kₜ xₜ, step by step.

Method: the backward Riccati recursion (`recursion`). Differential: one more recursion (`recursion_derivatives`).
"""

from __future__ import annotations

from typing import overload

from matsign._typing import Array, ArrayLike, Arrays, NDArray, OptionalArrayLike, StateSpace, T, VectorLike
from matsign.backends import Backend
from matsign.core.members import Solution
from matsign.core.objects import takes_model
from matsign.core.options import short_repr
from matsign.core.public import Residual, public_function
from matsign.equations.riccati.finite_horizon import FiniteHorizonRegulator
from matsign.equations.riccati.problem import RiccatiProblem
from matsign.equations.riccati.recursion import ByTime, all_steps, solve_recursion
from matsign.equations.riccati.recursion_certificates import recursion_errors
from matsign.equations.riccati.recursion_derivatives import path_of, recursion_jvp, recursion_vjp


def _sizes(known: dict[str, int], *, steps: int) -> dict[str, int]:
    """The numbers of gains and of solutions."""
    return {"k": steps, "l": steps + 1}


def _check(*, steps: int) -> None:
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise ValueError(f"dlqr_finite_horizon: steps must be a whole number of at least 0, got {short_repr(steps)}")


def _problem(
    a: Array, b: Array, q: Array, r: Array, qf: Array | None = None, s: Array | None = None
) -> tuple[RiccatiProblem, Array]:
    return RiccatiProblem(a, b, q, r, None, s), 0 * a if qf is None else qf


def _repeat(backend: Backend, steps: int) -> ByTime:
    """The same coefficients for all steps."""
    return lambda x: backend.xp.broadcast_to(x[None], (steps, *x.shape))


def _solve(backend: Backend, *arrays: Array, steps: int) -> Solution:
    return solve_recursion(backend, *_problem(*arrays), _repeat(backend, steps))


def _residual(backend: Backend, value: Arrays, *arrays: Array, steps: int) -> Residual:
    return recursion_errors(backend, value, *_problem(*arrays), _repeat(backend, steps))


def _tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, steps: int) -> Arrays:
    d, dxf = _problem(*tangents)
    by_time = _repeat(backend, steps)
    return recursion_jvp(backend, path_of(backend, _problem(*arrays)[0], value, by_time), all_steps(d, by_time), dxf)


def _cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, steps: int) -> Arrays:
    path = path_of(backend, _problem(*arrays)[0], value, _repeat(backend, steps))
    bars, bar_qf = recursion_vjp(backend, path, cotangents)
    a, b, q, r, _, s = (None if x is None else backend.xp.sum(x, axis=0) for x in bars)
    return a, b, q, r, None if arrays[4] is None else bar_qf, s


@overload
def dlqr_finite_horizon(
    a: ArrayLike[T],
    b: VectorLike[T],
    q: VectorLike[T],
    r: VectorLike[T],
    steps: int,
    *,
    qf: OptionalArrayLike[T] = None,
    s: OptionalArrayLike[T] = None,
    errors: str = "raise",
) -> FiniteHorizonRegulator[T]: ...
@overload
def dlqr_finite_horizon(
    sys: StateSpace,
    /,
    q: VectorLike[NDArray],
    r: VectorLike[NDArray],
    steps: int,
    *,
    qf: OptionalArrayLike[NDArray] = None,
    s: OptionalArrayLike[NDArray] = None,
    errors: str = "raise",
) -> FiniteHorizonRegulator[NDArray]: ...
@takes_model("AB", discrete=True, other="lqr_finite_horizon")
def dlqr_finite_horizon(
    a: ArrayLike[T],
    b: VectorLike[T],
    q: VectorLike[T],
    r: VectorLike[T],
    steps: int,
    *,
    qf: OptionalArrayLike[T] = None,
    s: OptionalArrayLike[T] = None,
    errors: str = "raise",
) -> FiniteHorizonRegulator[T]:
    """Compute the linear-quadratic regulator over a finite horizon, in discrete time.

    The controls uₜ = -kₜ xₜ that steer xₜ₊₁ = a xₜ + b uₜ from t = 0 to t = ``steps`` at the least cost
    ∑ xₜᴴ q xₜ + 2 Re xₜᴴ s uₜ + uₜᴴ r uₜ + xᴴ qf x, the last x being that at the end.

    Parameters
    ----------
    a : array_like (..., n, n)
        System matrices, of dtype float32, float64, complex64 or complex128.
    b : array_like (..., n, m)
        Input matrices.
    q : array_like (..., n, n)
        Weights of the states, Hermitian.
    r : array_like (..., m, m)
        Weights of the inputs, Hermitian; they may be singular, even 0, where r + bᴴ x b is positive definite.
    steps : int
        Number of steps to the end, at least 0.
    qf : array_like (..., n, n), optional
        Weights of the state at the end, Hermitian. Default: 0.
    s : array_like (..., n, m), optional
        Weights of the products of states and inputs. Default: 0.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no least cost: raise `SpectrumError`, or return NaN for that member and
        the right result for the others.

    Returns
    -------
    gain : array (..., steps, m, n)
        The gains: ``gain[..., t, :, :]`` is that of the step from t to t + 1.
    solution : array (..., steps + 1, n, n)
        The Hermitian solutions of the recursion: xᴴ ``solution[..., t, :, :]`` x is the least cost from the state x at t
        to the end; the last one is qf. The two are the fields of the named tuple `FiniteHorizonRegulator`.

    Raises
    ------
    SpectrumError
        If r + bᴴ x b is not positive definite at a step, because then no control has the least cost, an input holds NaN
        or infinity, or the result overflows; with ``errors="raise"``.
    ValueError
        If a shape does not fit, ``steps`` is not a whole number of at least 0, ``errors`` has another value, the arrays
        lie on different devices, or q, r or qf in NumPy arrays is not Hermitian. On PyTorch and JAX their Hermitian parts
        are taken.
    TypeError
        If an argument is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    lqr_finite_horizon : The same in continuous time.
    dlqr : The regulator without an end, the limit for many steps.
    FiniteHorizonRegulator : The form of the result.

    Notes
    -----
    The recursion runs backwards from x = qf [1]_: k = (r + bᴴxb)⁻¹(bᴴxa + sᴴ), and x of the step before is
    fᴴxf + kᴴrk + q - sk - kᴴsᴴ with f = a - bk, the form of Joseph [2]_. It squares the error of k, and keeps x positive
    semidefinite where the weights are.

    Weights may be indefinite as long as r + bᴴ x b is positive definite at each step. That is judged in units of the
    inputs in which its diagonal is near 1.

    Gains and solutions are differentiable to any order with respect to all arrays, by one more recursion. A member of a
    batch gives the same bits as in a call by itself. ``dlqr_finite_horizon(sys, q, r, steps)`` takes a and b from a model
    ``sys``, a ``scipy.signal.StateSpace`` or a ``control.StateSpace``; a model in continuous time is an error. Numbers
    and vectors stand for matrices as in `dlqr`.

    References
    ----------
    .. [1] B. D. O. Anderson and J. B. Moore, "Optimal Control: Linear Quadratic Methods", Prentice-Hall, 1990.
    .. [2] R. S. Bucy and P. D. Joseph, "Filtering for Stochastic Processes with Applications to Guidance", Interscience,
       1968.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import dlqr, dlqr_finite_horizon
    >>> a, b = np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([[0.0], [1.0]])
    >>> gain, x = dlqr_finite_horizon(a, b, 1, 1, 100)
    >>> gain.shape, x.shape, bool(np.abs(gain[0] - dlqr(a, b, 1, 1).gain).max() < 1e-14)
    ((100, 1, 2), (101, 2, 2), True)
    """
    return DLQR_FINITE_HORIZON(a, b, q, r, qf, s, steps=steps, errors=errors)


DLQR_FINITE_HORIZON = public_function(
    dlqr_finite_horizon,
    "(n,n),(n,m),(n,n),(m,m),(n,n),(n,m)->(k,m,n),(l,n,n)",
    solve=_solve,
    residual=_residual,
    tangent=_tangent,
    cotangent=_cotangent,
    wrap=lambda backend, *parts: FiniteHorizonRegulator(*parts),
    hermitian=("q", "r", "qf"),
    keyword_arrays=("qf", "s"),
    neutral={"m": 1.0},
    weights=("q", "r", "qf"),
    columns=("b", "s"),
    sizes=_sizes,
    check=_check,
)
