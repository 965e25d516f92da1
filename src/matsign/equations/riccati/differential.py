"""The differential Riccati equation -ẋ = aᴴ x + x a - (x b + s) r⁻¹ (x b + s)ᴴ + q, with x = xf at the end of the horizon.

Method: doubling of its exact flow (`flow`, `differential_methods`). Differential: `differential_derivatives`.
"""

from __future__ import annotations

from typing import Any

from matsign._typing import Array, ArrayLike, Arrays, NumberLike, OptionalArrayLike, T, VectorLike
from matsign.backends import Backend
from matsign.core.members import Solution, overflow_failure, solution
from matsign.core.public import Residual, public_function
from matsign.equations.riccati.differential_certificates import horizon_errors
from matsign.equations.riccati.differential_derivatives import path_of, rate_of, solution_jvp, solution_vjp
from matsign.equations.riccati.march import solve_horizon
from matsign.equations.riccati.problem import RiccatiProblem
from matsign.linalg.stacks import broadcast_scalar, inner


def solution_of_horizon(backend: Backend, p: RiccatiProblem, xf: Array, t: Any) -> Solution:
    """x at the time t before the end."""
    start = solve_horizon(backend, p, xf, t * backend.ones(p.a))
    x = start.units.restore(backend, start.x)
    result = solution(backend, (x,), iterations=start.horizon.counts)
    return result._replace(failure=overflow_failure(backend, x, start.failure))


def _solve(
    backend: Backend, a: Array, b: Array, q: Array, r: Array, xf: Array, s: Array | None = None, *, t: Any
) -> Solution:
    return solution_of_horizon(backend, RiccatiProblem(a, b, q, r, None, s), xf, t)


def _residual(
    backend: Backend,
    value: Arrays,
    a: Array,
    b: Array,
    q: Array,
    r: Array,
    xf: Array,
    s: Array | None = None,
    *,
    t: Any,
) -> Residual:
    return horizon_errors(backend, value[0], RiccatiProblem(a, b, q, r, None, s), xf, t)


def _tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, t: Any) -> Arrays:
    (a, b, q, r, xf, s), (da, db, dq, dr, dxf, ds, *dt) = arrays, tangents
    p = RiccatiProblem(a, b, q, r, None, s)
    dx = solution_jvp(backend, path_of(backend, p, xf, t), RiccatiProblem(da, db, dq, dr, None, ds), dxf)
    if dt and dt[0] is not None:
        dx = dx + rate_of(backend, p, value[0]) * broadcast_scalar(dt[0])
    return (dx,)


def _cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, t: Any) -> Arrays:
    a, b, q, r, xf, s = arrays
    p = RiccatiProblem(a, b, q, r, None, s)
    bars, bar_xf = solution_vjp(backend, path_of(backend, p, xf, t), cotangents[0])
    bar_t = None if isinstance(t, float) else inner(backend, rate_of(backend, p, value[0]), cotangents[0])
    return bars.a, bars.b, bars.q, bars.r, bar_xf, bars.s, bar_t


def solve_differential_riccati(
    a: ArrayLike[T],
    b: VectorLike[T],
    q: VectorLike[T],
    r: VectorLike[T],
    xf: VectorLike[T],
    t: NumberLike[T],
    *,
    s: OptionalArrayLike[T] = None,
    errors: str = "raise",
) -> T:
    """Solve the differential Riccati equation backwards from the end of a horizon.

    -ẋ = aᴴ x + x a - (x b + s) r⁻¹ (x b + s)ᴴ + q with x = xf at the end. The result is x at the time t before the end:
    the least cost over a horizon of length t is zᴴ x z for the initial state z.

    Parameters
    ----------
    a : array_like (..., n, n)
        System matrices, of dtype float32, float64, complex64 or complex128.
    b : array_like (..., n, m)
        Input matrices.
    q : array_like (..., n, n)
        Weights of the states, Hermitian.
    r : array_like (..., m, m)
        Weights of the inputs, Hermitian and invertible.
    xf : array_like (..., n, n)
        Solutions at the end, Hermitian: the weight of the final state.
    t : float or array_like (...)
        Times to the end, at least 0: for the end T of a horizon and a time τ in it, T - τ. Its axes broadcast with the
        leading axes of the matrices: a vector of times gives a stack of solutions.
    s : array_like (..., n, m), optional
        Weights of the products of states and inputs. Default: 0.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no solution: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    array (..., n, n)
        The Hermitian x at the time t before the end.

    Raises
    ------
    SpectrumError
        If the solution escapes to infinity before the time t, which indefinite weights may cause, r is singular, t is
        negative, an input holds NaN or infinity, or rounding of the coefficients grows over the horizon until no digit
        is known; with ``errors="raise"``.
    ValueError
        If a shape does not fit, t is a negative number, the arrays lie on different devices, ``errors`` has another
        value, or q, r or xf in NumPy arrays is not Hermitian. On PyTorch and JAX their Hermitian parts are taken.
    TypeError
        If an argument is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    lqr_finite_horizon : The gains of the optimal control over the horizon.
    solve_continuous_are : The limit for long horizons.

    Notes
    -----
    The exponential of the Hamiltonian matrix [[a, -g], [-q, -aᴴ]], g = b r⁻¹ bᴴ, gives the exact solution [1]_, but
    overflows or loses all digits for long horizons. Here it is computed for a short time only. The states at the
    beginning and the costates at the end of an interval determine those between by three bounded matrices, and a
    doubling of the time needs their products and one inverse [2]_. So the time takes log₂(t ‖[[a, -g], [-q, -aᴴ]]‖)
    steps, there is no step size to choose, and long horizons reach the stabilising solution to working precision.

    With r ≻ 0, q ⪰ 0 and xf ⪰ 0 the solution exists for all t. Otherwise it may escape to infinity. Where r or the rate
    of change of x at the end is semidefinite, this is decided by the signs of eigenvalues; where neither is, the member
    fails.

    x is differentiable to any order with respect to all arrays, an array t among them. A member of a batch gives the
    same bits as in a call by itself. Numbers and vectors stand for matrices as in `solve_continuous_are`.

    References
    ----------
    .. [1] E. J. Davison and M. C. Maki, "The numerical solution of the matrix Riccati differential equation", IEEE
       Trans. Automat. Control 18(1), 1973, pp. 71-73, doi:10.1109/TAC.1973.1100210.
    .. [2] B. D. O. Anderson, "Second-order convergent algorithms for the steady-state Riccati equation", Int. J.
       Control 28(2), 1978, pp. 295-306, doi:10.1080/00207177808922455.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import solve_differential_riccati
    >>> one = np.eye(1)
    >>> x = solve_differential_riccati(0 * one, one, one, one, 0 * one, [0.0, 0.5, 50.0])  # -ẋ = 1 - x²
    >>> bool(np.abs(x[:, 0, 0] - np.tanh([0.0, 0.5, 50.0])).max() < 1e-15)
    True
    """
    return DIFFERENTIAL(a, b, q, r, xf, s, t=t, errors=errors)


DIFFERENTIAL = public_function(
    solve_differential_riccati,
    "(n,n),(n,m),(n,n),(m,m),(n,n),(n,m)->(n,n)",
    solve=_solve,
    residual=_residual,
    tangent=_tangent,
    cotangent=_cotangent,
    hermitian=("q", "r", "xf"),
    numbers=("t",),
    keyword_arrays=("s",),
    neutral={"m": 1.0},
    weights=("q", "r", "xf"),
    columns=("b", "s"),
)
