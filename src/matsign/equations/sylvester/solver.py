"""The Sylvester equation a x + x b = q.

The sign of [[A, C], [0, B]] with A negative stable and B positive stable is [[-I, 2X], [0, I]] where XB - AX = C
(`block_structures.Triangular`; Roberts 1980). Doubling a sum does the same as Newton's method on these blocks at a third of
the cost (`iterations.smith`). Because (a - sI) x + x (b + sI) = q for every s, both need only a vertical line that separates
the spectra of a and -b. If there is none: Schur vectors (Bartels & Stewart 1972) on a CPU, spectral divide and conquer on an
accelerator, and refined eigenvectors in programs whose shapes cannot depend on values. On a CPU a few unknowns are solved as
one linear system (`iterations.few_unknowns`). An equation whose separation (`linalg.separation`) is at rounding level fails.

Differential:  a dx + dx b = dq - da x - x db, the same equation for dx.
"""

from __future__ import annotations

from matsign._typing import Array, ArrayLike, Arrays, T
from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.operations import apply
from matsign.core.public import public_function
from matsign.equations.sylvester.certificates import sylvester_residual
from matsign.equations.sylvester.methods import WAYS, sylvester
from matsign.linalg.stacks import adjoint


def solve_differentiable(backend: Backend, a: Array, b: Array, q: Array) -> Array:
    return apply(backend, SYLVESTER.operation, a, b, q, method="auto")[0]


def _tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, method: str) -> Arrays:
    (x,), (a, b, _), (da, db, dq) = value, arrays, tangents
    return (solve_differentiable(backend, a, b, dq - da @ x - x @ db),)


def _cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, method: str) -> Arrays:
    """aᴴ y + y bᴴ = x̄ gives q̄ = y, ā = -y xᴴ and b̄ = -xᴴ y."""
    (x,), (a, b, _) = value, arrays
    y = solve_differentiable(backend, adjoint(a), adjoint(b), cotangents[0])
    return -(y @ adjoint(x)), -(adjoint(x) @ y), y


def _powers(backend: Backend, a: Array, b: Array, q: Array) -> scaling.Powers:
    of_operator, of_q = scaling.size_of(backend, a, b), scaling.size_of(backend, q)
    return scaling.Powers((of_operator, of_operator, of_q), (of_q - of_operator,))


def solve_sylvester(
    a: ArrayLike[T], b: ArrayLike[T], q: ArrayLike[T], *, method: str = "auto", errors: str = "raise"
) -> T:
    """Solve the Sylvester equation a x + x b = q.

    The arguments have the order and the sign of `scipy.linalg.solve_sylvester`.

    Parameters
    ----------
    a : array_like (..., n, n)
        Left coefficients, of dtype float32, float64, complex64 or complex128.
    b : array_like (..., m, m)
        Right coefficients.
    q : array_like (..., n, m)
        Right-hand sides.
    method : {"auto", "newton", "schur", "divide", "eigenvectors"}, default "auto"
        How the equation is solved:

        - "newton": by the sign of [[-a, q], [0, b]] [1]_, computed by blocks. It needs a vertical line in the complex
          plane that separates the eigenvalues of a from those of -b, and looks for one.
        - "schur": by the method of Bartels and Stewart [2]_ with a blocked triangular solver, on the CPU.
        - "divide": by spectral divide and conquer with projectors of this library, on any device, but not in a program
          that JAX compiles for an accelerator.
        - "eigenvectors": by the eigenvectors of a and b, with refinement; in batches, also in every compiled program.
        - "auto": by two Cayley transforms and a sum by doubling [3]_, which costs two inverses and then products, where
          a line between the means of the spectra separates them and the result reaches working precision. For b = aᴴ as
          `solve_continuous_lyapunov`. Other members go to "schur" on a CPU; elsewhere to "divide" in PyTorch, and in
          JAX to "eigenvectors" or, with at most 144 unknowns, to one linear system. On a CPU up to 25 unknowns (complex
          9) are one linear system, for any spectra.
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
        If a and -b share an eigenvalue to working precision, so that there is no solution or infinitely many, if the
        method fails, or if a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, or the arrays lie on different devices.
    TypeError
        If an argument is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    solve_continuous_lyapunov : The case b = aᴴ.
    solve_riccati : The quadratic equation x d x + x b - a x - c = 0.
    scipy.linalg.solve_sylvester : SciPy's function.

    Notes
    -----
    The equation X B - A X = C is ``solve_sylvester(-A, B, C)``.

    Which method: "auto" tries the fast method first and returns its result only if it is at working precision and the
    equation is not nearly singular. Choose another for comparison, or if you know which one your equations need.

    The solution is differentiable to any order in all three arguments; each derivative is one more Sylvester equation.
    A member of a batch gives the same bits as in a call by itself. Under ``jax.jit`` no error can be raised: a member
    without a solution is NaN.

    The backward error of `certify` is ‖a x + x b - q‖ / (‖a x‖ + ‖x b‖ + ‖q‖). The separation that it reports is the
    smallest ‖a y + y b‖ / ‖y‖, the distance to a singular equation. The forward error includes the effect of rounding
    in the arguments and in the residual.

    References
    ----------
    .. [1] J. D. Roberts, "Linear model reduction and solution of the algebraic Riccati equation by use of the sign
       function", Int. J. Control 32(4), 1980, pp. 677-687, doi:10.1080/00207178008922881.
    .. [2] R. H. Bartels and G. W. Stewart, "Algorithm 432: Solution of the matrix equation AX + XB = C", Commun. ACM
       15(9), 1972, pp. 820-826, doi:10.1145/361573.361582.
    .. [3] R. A. Smith, "Matrix equation XA + BX = C", SIAM J. Appl. Math. 16(1), 1968, pp. 198-201,
       doi:10.1137/0116017.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import solve_sylvester
    >>> a, b = np.array([[3.0, 1.0], [0.0, 2.0]]), np.array([[1.0]])
    >>> q = np.array([[4.0], [6.0]])
    >>> x = solve_sylvester(a, b, q)
    >>> bool(np.linalg.norm(a @ x + x @ b - q) < 1e-14)
    True
    """
    return SYLVESTER(a, b, q, method=method, errors=errors)


SYLVESTER = public_function(
    solve_sylvester,
    "(n,n),(m,m),(n,m)->(n,m)",
    solve=sylvester,
    residual=sylvester_residual,
    tangent=scaling.tangent_at_size(_powers, _tangent),
    cotangent=scaling.cotangent_at_size(_powers, _cotangent),
    linear=True,
    unstacked=lambda method: method == "auto",
    choices={"method": tuple(WAYS)},
)
