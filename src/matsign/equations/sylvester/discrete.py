"""The discrete Sylvester equation a x b - x + q = 0.

If every product of an eigenvalue of a and one of b is inside the unit circle, the solution is x = Σ aᵏ q bᵏ; one step of
doubling, x ← x + c x d, c ← c², d ← d², doubles the number of terms (`iterations.smith`). If all are outside, the same holds
for the inverses. Other equations are solved with Schur vectors on the CPU: x - r x s = f for triangular r and s is the pair
r x - y = 0, x - y s = f of LAPACK's tgsyl (`direct.triangular_pairs`), which no Cayley transform precedes.

Differential:  a dx b - dx = -(da x b + a x db + dq), the same equation for dx.
Cotangent:     aᴴ y bᴴ - y = -x̄ gives q̄ = y, ā = y (x b)ᴴ and b̄ = (a x)ᴴ y.
"""

from __future__ import annotations

from matsign._typing import Array, ArrayLike, Arrays, T
from matsign.backends import Backend
from matsign.core.operations import apply
from matsign.core.public import public_function
from matsign.equations.sylvester.discrete_certificates import discrete_sylvester_residual
from matsign.equations.sylvester.discrete_methods import METHODS, discrete_sylvester
from matsign.linalg.stacks import adjoint


def _solve_differentiable(backend: Backend, a: Array, b: Array, q: Array) -> Array:
    return apply(backend, DISCRETE_SYLVESTER.operation, a, b, q, method="auto")[0]


def _tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, method: str) -> Arrays:
    (x,), (a, b, _), (da, db, dq) = value, arrays, tangents
    return (_solve_differentiable(backend, a, b, dq + da @ x @ b + a @ x @ db),)


def _cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, method: str) -> Arrays:
    (x,), (a, b, _) = value, arrays
    y = _solve_differentiable(backend, adjoint(a), adjoint(b), cotangents[0])
    return y @ adjoint(x @ b), adjoint(a @ x) @ y, y


def solve_discrete_sylvester(
    a: ArrayLike[T],
    b: ArrayLike[T],
    q: ArrayLike[T],
    *,
    method: str = "auto",
    errors: str = "raise",
) -> T:
    """Solve the discrete-time Sylvester equation a x b - x + q = 0.

    The sign is that of `solve_discrete_lyapunov`, the case b = aᴴ.

    Parameters
    ----------
    a : array_like (..., n, n)
        Left coefficients, of dtype float32, float64, complex64 or complex128.
    b : array_like (..., m, m)
        Right coefficients.
    q : array_like (..., n, m)
        Constant terms.
    method : {"auto", "doubling", "schur"}, default "auto"
        How the equation is solved:

        - "doubling": by the sum of aᵏ q bᵏ, or the same for the inverses of a and b, whose number of terms each step
          doubles [1]_; products alone. It needs all products λ μ of an eigenvalue of a with one of b inside the unit
          circle, or all outside.
        - "schur": by the Schur forms of a and b and a blocked solver of pairs of triangular equations [2]_, on the
          CPU, for any spectra.
        - "auto": by doubling, and by Schur forms for the members where doubling does not reach working precision; on a
          CPU up to 25 unknowns (complex 9) are one linear system, for any spectra.
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
        If an eigenvalue of a times one of b is 1 to working precision, so that there is no solution or infinitely many
        (the message has the separation), if the method fails, or if a member holds NaN or infinity, and
        ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, or the arrays lie on different devices.
    TypeError
        If an argument is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    solve_discrete_lyapunov : The case b = aᴴ.
    solve_sylvester : The equation a x + x b = q.

    Notes
    -----
    The matrices are balanced first, so the units of the rows and columns of x do not matter. A step of doubling costs
    four products, and typical equations take 5 to 12 of them.

    The equation x - a x b = q of other libraries is the same one, and x + a x b = q is
    ``solve_discrete_sylvester(-a, b, q)``.

    The solution is differentiable to any order in all three arguments; each derivative is one more equation of this
    form. A member of a batch gives the same bits as in a call by itself. Under ``jax.jit`` no error can be raised: a
    member without a solution is NaN.

    The backward error of `certify` is ‖a x b - x + q‖ / (‖a x b‖ + ‖x‖ + ‖q‖). The separation that it reports is the
    smallest ‖a y b - y‖ / ‖y‖, the distance to a singular equation.

    References
    ----------
    .. [1] R. A. Smith, "Matrix equation XA + BX = C", SIAM J. Appl. Math. 16(1), 1968, pp. 198-201,
       doi:10.1137/0116017.
    .. [2] B. Kågström and P. Poromaa, "LAPACK-style algorithms and software for solving the generalized Sylvester
       equation and estimating the separation between regular matrix pairs", ACM Trans. Math. Softw. 22(1), 1996,
       pp. 78-103, doi:10.1145/225545.225552.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import solve_discrete_sylvester
    >>> a, b = np.array([[0.5, 1.0], [0.0, -0.8]]), np.array([[3.0]])
    >>> q = np.array([[1.0], [2.0]])
    >>> x = solve_discrete_sylvester(a, b, q)
    >>> bool(np.linalg.norm(a @ x @ b - x + q) < 1e-14)
    True
    """
    return DISCRETE_SYLVESTER(a, b, q, method=method, errors=errors)


DISCRETE_SYLVESTER = public_function(
    solve_discrete_sylvester,
    "(n,n),(m,m),(n,m)->(n,m)",
    solve=discrete_sylvester,
    residual=discrete_sylvester_residual,
    tangent=_tangent,
    cotangent=_cotangent,
    linear=True,
    unstacked=lambda method: method == "auto",
    choices={"method": METHODS},
)
