"""The nonsymmetric algebraic Riccati equation x d x + x b - a x - c = 0.

X is a solution if and only if [[A, C], [D, B]] [X; I] = [X; I] (B + DX), so that [X; I] spans an invariant subspace:

    [[A, C], [D, B]] = V [[B + DX, -D], [0, A - XD]] V⁻¹,    V = [[X, -I], [I, 0]].

For the solution with B + DX positive stable and A - XD negative stable this is the invariant subspace of the right half
plane. With W = mcsgn([[A, C], [D, B]]) it satisfies (W - I)[X; I] = 0, an overdetermined linear system (Roberts 1980).

The solution with B + DX negative stable is that of the equation times -1. If [[-B, -D], [C, A]] is an M-matrix, this is the
minimal nonnegative solution of transport theory and queueing (Guo 2001). Doubling (Guo, Lin & Xu 2006) computes it without
cancellation, also if the matrix is singular and an eigenvalue lies on the axis.

Differential:  (XD - A) dX + dX (B + DX) = dA X + dC - X dD X - X dB, with positive stable XD - A and B + DX. Newton's method
for X solves the same equation with the residual on the right-hand side.
"""

from __future__ import annotations

import functools

from matsign._typing import Array, ArrayLike, Arrays, T
from matsign.backends import Backend
from matsign.core.public import Residual, public_function
from matsign.direct import schur_functions
from matsign.equations.riccati.nonsymmetric_methods import (
    METHODS,
    Problem,
    empty_solution,
    gap_of_equation,
    riccati,
    scale_equation,
    size_of_terms,
)
from matsign.iterations.block_structures import Triangular
from matsign.iterations.differentiable_solves import sylvester_positive
from matsign.iterations.newton import has_converged, newton, separable_sylvester
from matsign.linalg.double_word import dw_add, dw_neg, dw_product, from_double
from matsign.linalg.separation import separation
from matsign.linalg.stacks import adjoint, all_false, assemble, broadcast_scalar, random_probe, safe_divisor, trace


def _residual(backend: Backend, value: tuple[Array], a: Array, b: Array, c: Array, d: Array) -> Residual:
    """Backward error, one Newton step for the residual and one for rounding, separation, and whether x is on the boundary.

    The sign of the trace of the closed loops b + d x and x d - a tells which half plane x belongs to.
    """
    xp = backend.xp
    (x,) = value
    (a, b, c, d), k, e = scale_equation(backend, Problem(a, b, c, d))
    x = backend.ldexp(x, broadcast_scalar(-k))
    gap = gap_of_equation(a, b, c, d, x)
    terms = size_of_terms(backend, a, b, c, d, x)
    left, right = x @ d - a, b + d @ x
    side = xp.where(trace(backend, right).real + trace(backend, left).real >= 0, backend.ones(x), -backend.ones(x))
    left, right = broadcast_scalar(side) * left, broadcast_scalar(side) * right

    def solve(q: Array) -> Array:
        return separable_sylvester(backend, left, right, q)

    correction = newton(backend, Triangular(-left, -gap, right))
    start = random_probe(backend, x.shape[-2], x.shape[-1], x) + 0 * x
    sizes = [xp.abs(y) for y in (a, b, c, d, x)]
    term_sizes = sizes[4] @ (sizes[3] @ sizes[4] + sizes[1]) + sizes[0] @ sizes[4] + sizes[2]
    rounding_error = solve(backend.eps(x) * term_sizes * xp.sign(start.real) + 0 * gap)
    sep = separation(
        backend, solve, lambda y: separable_sylvester(backend, adjoint(left), adjoint(right), y), start
    ).value
    uncertain = ~has_converged(backend, correction) | ~(
        sep > backend.eps(x) ** 0.25 * (backend.norm(left) + backend.norm(right))
    )
    for m in (left, right):
        uncertain = uncertain | ~(backend.norm(m) * backend.norm(backend.inv(m)) < backend.eps(x) ** -0.5)

    def touches_axis(a: Array, b: Array, c: Array, d: Array) -> Array:
        return backend.host_callback(schur_functions.touches_axis, backend.ones(a) > 0, assemble(backend, a, c, d, b))

    boundary = backend.rare_cond(uncertain, touches_axis, lambda a, *_: all_false(backend, a), a, b, c, d)
    step = xp.abs(correction.value.c / 2) + xp.abs(rounding_error)
    step = backend.rare_cond(
        backend.norm(step) > 1024 * backend.eps(x) * backend.norm(x),
        functools.partial(_double_word_step, backend),
        lambda *arrays: arrays[-1],
        *(a, b, c, d, x, left, right, step),
    )
    backward = backend.norm(gap) / safe_divisor(backend, terms)
    return Residual(backward, (backend.ldexp(step, broadcast_scalar(k)),), backend.ldexp(sep, e), boundary)


def _double_word_step(backend: Backend, *arrays: Array) -> Array:
    """The Newton step for the residual in double-word arithmetic, plus those for two random roundings of the data."""
    a, b, c, d, x, left, right, rough = arrays
    y = from_double(x)
    inner = dw_add(dw_product(backend, from_double(d), y), from_double(b))
    residual = dw_add(
        dw_add(dw_product(backend, y, inner), dw_neg(dw_product(backend, from_double(a), y))), dw_neg(from_double(c))
    )
    step = backend.xp.abs(separable_sylvester(backend, left, right, residual.high))
    for draw in range(_SAMPLES):
        da, db, dc, dd = (backend.eps(m) * m * _noise(backend, m, draw) for m in (a, b, c, d))
        step = step + backend.xp.abs(separable_sylvester(backend, left, right, gap_of_equation(da, db, dc, dd, x)))
    return backend.xp.where(backend.xp.isfinite(step), step, rough)


_SAMPLES = 2


def _noise(backend: Backend, like: Array, draw: int) -> Array:
    return random_probe(backend, like.shape[-2], _SAMPLES * like.shape[-1], like)[..., draw::_SAMPLES]


def _closed_loops(value: Arrays, arrays: Arrays, half_plane: str) -> tuple[int, Array, Array]:
    """(σ, σ (x d - a), σ (b + d x)); the two matrices are positive stable."""
    (x,), (a, b, _, d), side = value, arrays, 1 if half_plane == "right" else -1
    return side, side * (x @ d - a), side * (b + d @ x)


def _tangent(
    backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, half_plane: str, method: str
) -> Arrays:
    (x,), (da, db, dc, dd) = value, tangents
    side, left, right = _closed_loops(value, arrays, half_plane)
    return (sylvester_positive(backend, left, right, side * (da @ x + dc - x @ (dd @ x + db))),)


def _cotangent(
    backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, half_plane: str, method: str
) -> Arrays:
    """(x d - a)ᴴ y + y (b + d x)ᴴ = x̄ gives c̄ = y, ā = y xᴴ, b̄ = -xᴴ y and d̄ = -xᴴ y xᴴ."""
    side, left, right = _closed_loops(value, arrays, half_plane)
    xh = adjoint(value[0])
    y = side * sylvester_positive(backend, adjoint(left), adjoint(right), cotangents[0])
    return y @ xh, -(xh @ y), y, -(xh @ y @ xh)


def solve_riccati(
    a: ArrayLike[T],
    b: ArrayLike[T],
    c: ArrayLike[T],
    d: ArrayLike[T],
    *,
    half_plane: str = "right",
    method: str = "auto",
    errors: str = "raise",
) -> T:
    """Solve the nonsymmetric Riccati equation x d x + x b - a x - c = 0.

    The solution returned is the one for which all eigenvalues of b + d x lie in the right half plane and those of a - x
    d in the left half plane (or the other way round, see ``half_plane``).

    Parameters
    ----------
    a : array_like (..., n, n)
        Coefficients, of dtype float32, float64, complex64 or complex128.
    b : array_like (..., m, m)
        Coefficients.
    c : array_like (..., n, m)
        Constant terms.
    d : array_like (..., m, n)
        Quadratic coefficients.
    half_plane : {"right", "left"}, default "right"
        The half plane of the eigenvalues of b + d x; those of a - x d lie in the other one.
    method : {"auto", "newton", "schur", "doubling"}, default "auto"
        How the equation is solved:

        - "newton": by the sign of [[a, c], [d, b]] [1]_, one inverse of size n + m a step.
        - "schur": by an ordered Schur form [2]_, on the CPU.
        - "doubling": by structure-preserving doubling [3]_, for M-matrices.
        - "auto": by doubling where the signs of the coefficients are those of an M-matrix, else by Newton's method, and
          by Schur forms for members where the sign fails.
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
        If [[a, c], [d, b]] does not have m eigenvalues in the half plane ``half_plane`` and n in the other one (the
        message says how many were found), if their invariant subspace is not the graph of a matrix, if no method
        reaches working precision, or if a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, or the arrays lie on different devices.
    TypeError
        If an argument is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    solve_continuous_are : The symmetric equation of optimal control.
    solve_sylvester : The linear case, d = 0.
    spectral_projector : The projector on the invariant subspace.

    Notes
    -----
    The columns of [x; I] span an invariant subspace::

        [[a, c], [d, b]] [x; I] = [x; I] (b + d x).

    The solution exists and is unique if [[a, c], [d, b]] has m eigenvalues in the open half plane ``half_plane`` and n
    in the other one, and the invariant subspace of the first m is a graph. Newton's method on the equation itself
    corrects the result; a step is kept only if the residual decreases.

    For an M-matrix [[-b, -d], [c, a]], also a singular one, ``half_plane="left"`` gives the minimal nonnegative
    solution.

    The solution is differentiable to any order in all arguments; each derivative is one Sylvester equation. A member of
    a batch gives the same bits as in a call by itself. Under ``jax.jit`` no error can be raised: a member without a
    solution is NaN.

    The backward error of `certify` is the norm of the left side divided by ‖x d x‖ + ‖x b‖ + ‖a x‖ + ‖c‖.

    References
    ----------
    .. [1] J. D. Roberts, "Linear model reduction and solution of the algebraic Riccati equation by use of the sign
       function", Int. J. Control 32(4), 1980, pp. 677-687, doi:10.1080/00207178008922881.
    .. [2] A. J. Laub, "A Schur method for solving algebraic Riccati equations", IEEE Trans. Automat. Control 24(6),
       1979, pp. 913-921, doi:10.1109/TAC.1979.1102178.
    .. [3] X.-X. Guo, W.-W. Lin and S.-F. Xu, "A structure-preserving doubling algorithm for nonsymmetric algebraic
       Riccati equation", Numer. Math. 103, 2006, pp. 393-412.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import solve_riccati
    >>> a, b = -np.eye(2), np.array([[2.0]])
    >>> c, d = np.array([[1.0], [2.0]]), np.array([[0.5, 0.1]])
    >>> x = solve_riccati(a, b, c, d)
    >>> bool(np.linalg.norm(x @ d @ x + x @ b - a @ x - c) < 1e-14)
    True
    """
    return RICCATI(a, b, c, d, half_plane=half_plane, method=method, errors=errors)


RICCATI = public_function(
    solve_riccati,
    "(n,n),(m,m),(n,m),(m,n)->(n,m)",
    solve=riccati,
    residual=_residual,
    tangent=_tangent,
    cotangent=_cotangent,
    choices={"method": METHODS, "half_plane": ("right", "left")},
    empty_result=empty_solution,
)
