"""The generalised Sylvester equation a x b + c x d = q.

With the inverses of c and b it is the Sylvester equation (c⁻¹ a) x + x (d b⁻¹) = c⁻¹ q b⁻¹. If these are ill-conditioned, a and d
are inverted instead, or a ± c and b ∓ d, because a x b + c x d is the same for (a - c, a + c)/√2 and (b - d, b + d)/√2. The
result is corrected with the residual of the original equation, and kept if it is at working precision. Other equations are solved
by QZ on the CPU: [a x, c x] [b; d] = q leads to a pair of triangular equations (`direct.generalized_schur`), without the inverse
of a coefficient.

Differential:  a dx b + c dx d = dq - da x b - a x db - dc x d - c x dd, the same equation for dx.
Cotangent:     aᴴ y bᴴ + cᴴ y dᴴ = x̄ gives q̄ = y, ā = -y (x b)ᴴ, b̄ = -(a x)ᴴ y, c̄ = -y (x d)ᴴ and d̄ = -(c x)ᴴ y.
"""

from __future__ import annotations

from matsign._typing import Array, ArrayLike, Arrays, T
from matsign.backends import Backend
from matsign.core.operations import apply
from matsign.core.public import public_function
from matsign.equations.sylvester.generalized_certificates import generalized_sylvester_residual
from matsign.equations.sylvester.generalized_methods import METHODS, generalized_sylvester
from matsign.linalg.stacks import adjoint


def _solve_differentiable(backend: Backend, *arrays: Array) -> Array:
    return apply(backend, GENERALIZED_SYLVESTER.operation, *arrays, method="auto")[0]


def _tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, method: str) -> Arrays:
    (x,), (a, b, c, d, _), (da, db, dc, dd, dq) = value, arrays, tangents
    change = da @ x @ b + a @ x @ db + dc @ x @ d + c @ x @ dd
    return (_solve_differentiable(backend, a, b, c, d, dq - change),)


def _cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, method: str) -> Arrays:
    (x,), (a, b, c, d, _) = value, arrays
    y = _solve_differentiable(backend, adjoint(a), adjoint(b), adjoint(c), adjoint(d), cotangents[0])
    return -(y @ adjoint(x @ b)), -(adjoint(a @ x) @ y), -(y @ adjoint(x @ d)), -(adjoint(c @ x) @ y), y


def solve_generalized_sylvester(
    a: ArrayLike[T],
    b: ArrayLike[T],
    c: ArrayLike[T],
    d: ArrayLike[T],
    q: ArrayLike[T],
    *,
    method: str = "auto",
    errors: str = "raise",
) -> T:
    """Solve the generalised Sylvester equation a x b + c x d = q.

    No coefficient needs an inverse.

    Parameters
    ----------
    a : array_like (..., n, n)
        Left coefficients of the first term, of dtype float32, float64, complex64 or complex128.
    b : array_like (..., m, m)
        Right coefficients of the first term.
    c : array_like (..., n, n)
        Left coefficients of the second term.
    d : array_like (..., m, m)
        Right coefficients of the second term.
    q : array_like (..., n, m)
        Right-hand sides.
    method : {"auto", "standard", "qz"}, default "auto"
        How the equation is solved:

        - "standard": by a Sylvester equation with one coefficient on each side, which needs the inverses of c and b, of
          a and d, or of their sums and differences, whichever are well-conditioned first; corrected with the residual
          of the original equation.
        - "qz": by the QZ algorithm and a blocked solver of pairs of triangular equations [1]_, on the CPU; for any
          pencils.
        - "auto": by the standard form, and by QZ for the members where that does not reach working precision; on a CPU
          up to 25 unknowns (complex 9) are one linear system.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no solution: raise `SpectrumError`, or return NaN for that member and
        the right result for the others.

    Returns
    -------
    x : array (..., n, m)
        The solutions, in the library, on the device and in the common dtype of the arguments.

    Raises
    ------
    SpectrumError
        If the pencils a - λ c and d + λ b share an eigenvalue to working precision, or one of them is singular for
        every λ, so that there is no solution or infinitely many (the message has the separation), if the method fails,
        or if a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, or the arrays lie on different devices.
    TypeError
        If an argument is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    solve_sylvester : The case b = I, c = I.
    solve_discrete_sylvester : The case c = -I, d = I.

    Notes
    -----
    The names follow the order in which the coefficients occur in the equation.

    The solution is differentiable to any order in all five arguments; each derivative is one more equation of this
    form. A member of a batch gives the same bits as in a call by itself. Under ``jax.jit`` no error can be raised: a
    member without a solution is NaN.

    The backward error of `certify` is ‖a x b + c x d - q‖ / (‖a x b‖ + ‖c x d‖ + ‖q‖). The separation that it reports
    is the smallest ‖a y b + c y d‖ / ‖y‖, the distance to a singular equation. In bad units it may be below rounding
    though rounding of no coefficient makes the equation singular: up to 128 unknowns it is then solved as one linear
    system in units of each row and column.

    References
    ----------
    .. [1] B. Kågström and P. Poromaa, "LAPACK-style algorithms and software for solving the generalized Sylvester
       equation and estimating the separation between regular matrix pairs", ACM Trans. Math. Softw. 22(1), 1996,
       pp. 78-103, doi:10.1145/225545.225552.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import solve_generalized_sylvester
    >>> a, c = np.array([[3.0, 1.0], [0.0, 2.0]]), np.array([[1.0, 0.0], [2.0, 1.0]])
    >>> b, d, q = np.array([[2.0]]), np.array([[0.5]]), np.array([[4.0], [6.0]])
    >>> x = solve_generalized_sylvester(a, b, c, d, q)
    >>> bool(np.linalg.norm(a @ x @ b + c @ x @ d - q) < 1e-14)
    True
    """
    return GENERALIZED_SYLVESTER(a, b, c, d, q, method=method, errors=errors)


GENERALIZED_SYLVESTER = public_function(
    solve_generalized_sylvester,
    "(n,n),(m,m),(n,n),(m,m),(n,m)->(n,m)",
    solve=generalized_sylvester,
    residual=generalized_sylvester_residual,
    tangent=_tangent,
    cotangent=_cotangent,
    linear=True,
    choices={"method": METHODS},
)
