"""Pairs of Sylvester equations, a x - y b = c and d x - y e = f.

For orthonormal columns z with [b, e] z = 0, x solves the generalised Sylvester equation a x z₁ + d x z₂ = c z₁ + f z₂, and y
follows from y [b, e] = [a x - c, d x - f]. Where that fails, generalised Schur forms of (a, d) and (b, e) give a pair of
triangular equations (`direct.triangular_pairs`), as in LAPACK's tgsyl.

The adjoint pair, aᴴ u + dᴴ v = g and -u bᴴ - v eᴴ = h, is an operation of its own, solved in the same two ways.

Differential:  a dx - dy b = dc - da x + y db,  d dx - dy e = df - dd x + y de, the same pair for dx and dy.
Cotangent:     the adjoint pair for g = x̄, h = ȳ gives c̄ = u, f̄ = v, ā = -u xᴴ, d̄ = -v xᴴ, b̄ = yᴴ u and ē = yᴴ v.
"""

from __future__ import annotations

from matsign._typing import Array, ArrayLike, Arrays, T
from matsign.backends import Backend
from matsign.core.operations import Operation, apply, shapes_of
from matsign.core.public import public_function
from matsign.equations.sylvester.pair_certificates import sylvester_pair_residual
from matsign.equations.sylvester.pair_methods import METHODS, adjoint_sylvester_pair, sylvester_pair
from matsign.linalg.stacks import adjoint


def _solve_pair(backend: Backend, *arrays: Array) -> Arrays:
    return apply(backend, SYLVESTER_PAIR.operation, *arrays, method="auto")


def _solve_adjoint_pair(backend: Backend, *arrays: Array) -> Arrays:
    return apply(backend, _ADJOINT_PAIR, *arrays)


def _tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, method: str) -> Arrays:
    (x, y), (a, b, _, d, e, _) = value, arrays
    da, db, dc, dd, de, df = tangents
    return _solve_pair(backend, a, b, dc - da @ x + y @ db, d, e, df - dd @ x + y @ de)


def _cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, method: str) -> Arrays:
    (x, y), (a, b, _, d, e, _) = value, arrays
    u, v = _solve_adjoint_pair(backend, a, b, d, e, *cotangents)
    xh, yh = adjoint(x), adjoint(y)
    return -(u @ xh), yh @ u, u, -(v @ xh), yh @ v, v


def _adjoint_tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays) -> Arrays:
    (u, v), (a, b, d, e, _, _) = value, arrays
    da, db, dd, de, dg, dh = tangents
    first = dg - adjoint(da) @ u - adjoint(dd) @ v
    return _solve_adjoint_pair(backend, a, b, d, e, first, dh + u @ adjoint(db) + v @ adjoint(de))


def _adjoint_cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays) -> Arrays:
    """The pair for c = ū, f = v̄ gives ḡ = x, h̄ = y, ā = -u xᴴ, d̄ = -v xᴴ, b̄ = yᴴ u and ē = yᴴ v."""
    (u, v), (a, b, d, e, _, _) = value, arrays
    x, y = _solve_pair(backend, a, b, cotangents[0], d, e, cotangents[1])
    xh, yh = adjoint(x), adjoint(y)
    return -(u @ xh), yh @ u, -(v @ xh), yh @ v, x, y


_ADJOINT_PAIR = Operation(
    "adjoint pair of Sylvester equations",
    shapes_of("(n,n),(m,m),(n,n),(m,m),(n,m),(n,m)"),
    shapes_of("(n,m),(n,m)"),
    solve=adjoint_sylvester_pair,
    tangent=_adjoint_tangent,
    cotangent=_adjoint_cotangent,
)


def solve_sylvester_pair(
    a: ArrayLike[T],
    b: ArrayLike[T],
    c: ArrayLike[T],
    d: ArrayLike[T],
    e: ArrayLike[T],
    f: ArrayLike[T],
    *,
    method: str = "auto",
    errors: str = "raise",
) -> tuple[T, T]:
    """Solve the pair of Sylvester equations a x - y b = c and d x - y e = f.

    The arguments have the order and the signs of LAPACK's tgsyl, but need no generalised Schur form.

    Parameters
    ----------
    a : array_like (..., n, n)
        Left coefficients of the first equation, of dtype float32, float64, complex64 or complex128.
    b : array_like (..., m, m)
        Right coefficients of the first equation.
    c : array_like (..., n, m)
        Right-hand sides of the first equation.
    d : array_like (..., n, n)
        Left coefficients of the second equation.
    e : array_like (..., m, m)
        Right coefficients of the second equation.
    f : array_like (..., n, m)
        Right-hand sides of the second equation.
    method : {"auto", "standard", "qz"}, default "auto"
        How the equations are solved:

        - "standard": y is eliminated with an orthonormal basis of the null space of [b, e], and the generalised
          Sylvester equation for x solved as by `solve_generalized_sylvester`; corrected with the residual.
        - "qz": by the QZ algorithm and a blocked solver of pairs of triangular equations [1]_, on the CPU; for any
          pencils.
        - "auto": as "standard", and by QZ for the members where that does not reach working precision.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no solution: raise `SpectrumError`, or return NaN for that member and
        the right result for the others.

    Returns
    -------
    x : array (..., n, m)
        The first unknowns, in the library, on the device and in the common dtype of the arguments.
    y : array (..., n, m)
        The second unknowns.

    Raises
    ------
    SpectrumError
        If the pencils a - λ d and b - λ e share an eigenvalue to working precision, or one of them is singular for
        every λ, so that there is no solution or infinitely many (the message has the separation), if the method fails,
        or if a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, or the arrays lie on different devices.
    TypeError
        If an argument is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    solve_generalized_sylvester : The equation a x b + c x d = q.
    solve_sylvester : The case d = I, e = 0, apart from signs.

    Notes
    -----
    With [[I, y], [0, I]] and [[I, x], [0, I]] the solution makes the pencil [[a, -c], [0, b]] - λ [[d, -f], [0, e]]
    block diagonal: the equations separate deflating subspaces.

    The solution is differentiable to any order in all six arguments; each derivative is one more pair or one adjoint
    pair. A member of a batch gives the same bits as in a call by itself. Under ``jax.jit`` no error can be raised: a
    member without a solution is NaN.

    The backward error of `certify` is the norm of both residuals, over the sum of the norms of (a x, d x), (y b, y e)
    and (c, f). The separation that it reports is the smallest ‖(a x - y b, d x - y e)‖ / ‖(x, y)‖, the distance to a
    singular pair. In bad units it may be below rounding though rounding of no coefficient makes the pair singular: with
    n m up to 64 it is then solved as one linear system in units of each row and column.

    References
    ----------
    .. [1] B. Kågström and P. Poromaa, "LAPACK-style algorithms and software for solving the generalized Sylvester
       equation and estimating the separation between regular matrix pairs", ACM Trans. Math. Softw. 22(1), 1996,
       pp. 78-103, doi:10.1145/225545.225552.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import solve_sylvester_pair
    >>> a, d = np.array([[3.0, 1.0], [0.0, 2.0]]), np.eye(2)
    >>> b, e = np.array([[-1.0]]), np.array([[2.0]])
    >>> c, f = np.array([[1.0], [2.0]]), np.array([[3.0], [4.0]])
    >>> x, y = solve_sylvester_pair(a, b, c, d, e, f)
    >>> bool(np.linalg.norm(a @ x - y @ b - c) < 1e-14), bool(np.linalg.norm(d @ x - y @ e - f) < 1e-14)
    (True, True)
    """
    return SYLVESTER_PAIR(a, b, c, d, e, f, method=method, errors=errors)


SYLVESTER_PAIR = public_function(
    solve_sylvester_pair,
    "(n,n),(m,m),(n,m),(n,n),(m,m),(n,m)->(n,m),(n,m)",
    solve=sylvester_pair,
    residual=sylvester_pair_residual,
    tangent=_tangent,
    cotangent=_cotangent,
    choices={"method": METHODS},
)
