"""The Lyapunov equation a x eᴴ + e x aᴴ = q and the Stein equation a x aᴴ - e x eᴴ + q = 0; e is the identity if not given.

If all eigenvalues of a lie inside the unit circle, the Stein equation has the solution x = Σ aᵏ q (aᵏ)ᴴ; one step of doubling,
x ← x + c x cᴴ, c ← c², doubles the number of terms (`iterations.smith`). A Cayley transform of a turns the Lyapunov equation
into such a sum; squaring c is then the Newton step for the sign of a. method="newton" runs that Newton iteration on blocks
(`block_structures.Lyapunov`). The sum exists if the spectrum of a lies on one side of the axis or the circle; other equations
are solved with Schur vectors. `equations.lyapunov.descriptors` has the methods for an e.

Differential:  a dx eᴴ + e dx aᴴ = dq - da x eᴴ - e x daᴴ - a x deᴴ - de x aᴴ
               a dx aᴴ - e dx eᴴ = -(dq + da x aᴴ + a x daᴴ - de x eᴴ - e x deᴴ):  the same equations for dx.
Cotangent:     aᴴ y e + eᴴ y a = x̄ gives q̄ = y, ā = -(y e xᴴ + yᴴ e x) and ē = -(y a xᴴ + yᴴ a x);
               aᴴ y a - eᴴ y e = -x̄ gives q̄ = y, ā = y a xᴴ + yᴴ a x and ē = -(y e xᴴ + yᴴ e x).
"""

from __future__ import annotations

from matsign._typing import Array, ArrayLike, Arrays, OptionalArrayLike, T
from matsign.backends import Backend
from matsign.core.operations import apply
from matsign.core.public import public_function
from matsign.equations.lyapunov.certificates import lyapunov_certificate, stein_certificate
from matsign.equations.lyapunov.methods import METHODS, STEIN_METHODS, lyapunov, stein
from matsign.linalg.stacks import adjoint


def lyapunov_differentiable(backend: Backend, a: Array, q: Array, e: Array | None = None) -> Array:
    """x with a x eᴴ + e x aᴴ = q; NaN for members without a solution."""
    return apply(backend, CONTINUOUS_LYAPUNOV.operation, a, q, e, method="auto")[0]


def _lyapunov_tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, method: str) -> Arrays:
    (x,), (a, _, e), (da, dq, de) = value, arrays, tangents
    if e is None:
        return (lyapunov_differentiable(backend, a, dq - da @ x - x @ adjoint(da)),)
    change = da @ x @ adjoint(e) + e @ x @ adjoint(da) + a @ x @ adjoint(de) + de @ x @ adjoint(a)
    return (lyapunov_differentiable(backend, a, dq - change, e),)


def _lyapunov_cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, method: str) -> Arrays:
    (x,), (a, _, e) = value, arrays
    if e is None:
        y = lyapunov_differentiable(backend, adjoint(a), cotangents[0])
        return -(y @ adjoint(x) + adjoint(y) @ x), y, None
    y = lyapunov_differentiable(backend, adjoint(a), cotangents[0], adjoint(e))
    return -_two_products(y, e, x), y, -_two_products(y, a, x)


def _two_products(y: Array, a: Array, x: Array) -> Array:
    """y a xᴴ + yᴴ a x."""
    return y @ a @ adjoint(x) + adjoint(y) @ a @ x


def stein_differentiable(backend: Backend, a: Array, q: Array, e: Array | None = None) -> Array:
    """x with a x aᴴ - e x eᴴ + q = 0; NaN for members without a solution."""
    return apply(backend, DISCRETE_LYAPUNOV.operation, a, q, e, method="auto")[0]


def _stein_tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, method: str | None) -> Arrays:
    (x,), (a, _, e), (da, dq, de) = value, arrays, tangents
    change = dq + da @ x @ adjoint(a) + a @ x @ adjoint(da)
    if e is not None:
        change = change - de @ x @ adjoint(e) - e @ x @ adjoint(de)
    return (stein_differentiable(backend, a, change, e),)


def _stein_cotangent(
    backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, method: str | None
) -> Arrays:
    (x,), (a, _, e) = value, arrays
    y = stein_differentiable(backend, adjoint(a), cotangents[0], None if e is None else adjoint(e))
    return _two_products(y, a, x), y, None if e is None else -_two_products(y, e, x)


def solve_continuous_lyapunov(
    a: ArrayLike[T],
    q: ArrayLike[T],
    *,
    e: OptionalArrayLike[T] = None,
    method: str = "auto",
    errors: str = "raise",
) -> T:
    """Solve the continuous-time Lyapunov equation a x + x aᴴ = q, or a x eᴴ + e x aᴴ = q.

    The arguments have the order and the sign of `scipy.linalg.solve_continuous_lyapunov`. The covariance x of
    ẋ = a x + noise, for example, is the solution for q = -(intensity of the noise).

    Parameters
    ----------
    a : array_like (..., n, n)
        Coefficients, of dtype float32, float64, complex64 or complex128.
    q : array_like (..., n, n)
        Right-hand sides, Hermitian or not.
    e : array_like (..., n, n), optional
        Descriptor matrices, invertible, of the equation a x eᴴ + e x aᴴ = q. Default: I.
    method : {"auto", "doubling", "newton", "schur"}, default "auto"
        How the equation is solved:

        - "doubling": by a Cayley transform and a sum by doubling [1]_; one inverse, then products. It needs all
          eigenvalues of a in the left half plane, or all in the right one.
        - "newton": by the sign of [[a, -q], [0, -aᴴ]] [2]_, with e as in [4]_; one inverse a step. It needs the same.
        - "schur": by the method of Bartels and Stewart [3]_, with one Schur form and a blocked triangular solver, on
          the CPU; for an ill-conditioned e by the QZ algorithm.
        - "auto": by doubling, and by Schur forms for the members where doubling does not reach working precision; on a
          CPU by one linear system for the entries of x where they are few (n up to 6 for a real symmetric q, else 5,
          for complex ones 3).
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no solution: raise `SpectrumError`, or return NaN for that member and
        the right result for the others.

    Returns
    -------
    x : array (..., n, n)
        The solutions; Hermitian to the last bit where q is.

    Raises
    ------
    SpectrumError
        If a and -aᴴ share an eigenvalue to working precision, so that there is no solution or infinitely many, if e is
        singular (the message has its reciprocal condition number), if the method fails, or if a member holds NaN or
        infinity, and ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, or the arrays lie on different devices.
    TypeError
        If an argument is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    solve_discrete_lyapunov : The equation in discrete time.
    lyapunov_factor : The solution in factored form, for q = -b bᴴ.
    solve_sylvester : The equation a x + x b = q.
    scipy.linalg.solve_continuous_lyapunov : SciPy's function.

    Notes
    -----
    The states are balanced first, so their units do not matter. A step of doubling costs three products of
    n × n matrices, and a typical model takes 10 to 25 of them.

    For the descriptor model e ẋ = a x + noise the eigenvalues are those of the pencil a - λ e. The Cayley transform needs
    the LU factors of a - p e for one number p and never the inverse of e, so that the residual is at working precision for
    an ill-conditioned e, too. The few members for which that does not suffice are solved by Schur forms on the CPU.

    The solution is differentiable to any order in all arguments; each derivative is one more Lyapunov equation. A
    member of a batch gives the same bits as in a call by itself. Under ``jax.jit`` no error can be raised: a member
    without a solution is NaN.

    The backward error of `certify` is ‖a x + x aᴴ - q‖ / (‖a x‖ + ‖x aᴴ‖ + ‖q‖), with e ‖a x eᴴ + e x aᴴ - q‖ /
    (‖a‖₂ ‖x eᴴ‖ + ‖a‖₂ ‖e x‖ + ‖e‖₂ ‖a x‖ + ‖e‖₂ ‖x aᴴ‖ + ‖q‖): the relative change of a, e and q that explains the residual.

    References
    ----------
    .. [1] R. A. Smith, "Matrix equation XA + BX = C", SIAM J. Appl. Math. 16(1), 1968, pp. 198-201,
       doi:10.1137/0116017.
    .. [2] J. D. Roberts, "Linear model reduction and solution of the algebraic Riccati equation by use of the sign
       function", Int. J. Control 32(4), 1980, pp. 677-687, doi:10.1080/00207178008922881.
    .. [3] R. H. Bartels and G. W. Stewart, "Algorithm 432: Solution of the matrix equation AX + XB = C", Commun. ACM
       15(9), 1972, pp. 820-826, doi:10.1145/361573.361582.
    .. [4] P. Benner and E. S. Quintana-Ortí, "Solving stable generalized Lyapunov equations with the matrix sign
       function", Numer. Algorithms 20(1), 1999, pp. 75-100, doi:10.1023/A:1019191431273.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import solve_continuous_lyapunov
    >>> a, q = np.array([[-1.0, 2.0], [0.0, -3.0]]), np.array([[-2.0, 0.0], [0.0, -6.0]])
    >>> x = solve_continuous_lyapunov(a, q)
    >>> bool(np.linalg.norm(a @ x + x @ a.T - q) < 1e-14)
    True
    >>> mass = np.array([[2.0, 1.0], [1.0, 2.0]])
    >>> x = solve_continuous_lyapunov(a, q, e=mass)
    >>> bool(np.linalg.norm(a @ x @ mass.T + mass @ x @ a.T - q) < 1e-14)
    True
    """
    return CONTINUOUS_LYAPUNOV(a, q, e, method=method, errors=errors)


CONTINUOUS_LYAPUNOV = public_function(
    solve_continuous_lyapunov,
    "(n,n),(n,n),(n,n)->(n,n)",
    keyword_arrays=("e",),
    solve=lyapunov,
    residual=lyapunov_certificate,
    tangent=_lyapunov_tangent,
    cotangent=_lyapunov_cotangent,
    linear=True,
    linear_array=1,
    unstacked=lambda method: method in ("auto", None),
    choices={"method": METHODS},
)


def solve_discrete_lyapunov(
    a: ArrayLike[T],
    q: ArrayLike[T],
    method: str | None = "auto",
    *,
    e: OptionalArrayLike[T] = None,
    errors: str = "raise",
) -> T:
    """Solve the discrete-time Lyapunov (Stein) equation a x aᴴ - x + q = 0, or a x aᴴ - e x eᴴ + q = 0.

    The arguments have the order and the sign of `scipy.linalg.solve_discrete_lyapunov`.

    Parameters
    ----------
    a : array_like (..., n, n)
        Coefficients, of dtype float32, float64, complex64 or complex128.
    q : array_like (..., n, n)
        Constant terms, Hermitian or not.
    method : {"auto", "doubling", "schur", "direct", "bilinear"} or None, default "auto"
        How the equation is solved:

        - "doubling": by the sum of aᵏ q (aᵏ)ᴴ, or the same for the inverse of a, whose number of terms each step
          doubles [1]_; products alone. It needs all eigenvalues of a inside the unit circle, or all outside.
        - "schur": by one Schur form, whose Cayley transform gives a triangular Lyapunov equation, and one correction;
          on the CPU, for an ill-conditioned e by the QZ algorithm. SciPy's "direct" and "bilinear" select it, too.
        - "auto": by doubling, and by Schur forms for the members where doubling does not reach working precision; on a
          CPU by one linear system for the entries of x where they are few (n up to 6 for a real symmetric q, else 5,
          for complex ones 3). SciPy's None selects it, too.
    e : array_like (..., n, n), optional
        Descriptor matrices, invertible, of the equation a x aᴴ - e x eᴴ + q = 0. Default: I.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no solution: raise `SpectrumError`, or return NaN for that member and
        the right result for the others.

    Returns
    -------
    x : array (..., n, n)
        The solutions; Hermitian to the last bit where q is.

    Raises
    ------
    SpectrumError
        If a has two eigenvalues with λ conj(μ) = 1 to working precision, so that there is no solution or infinitely
        many, if e is singular (the message has its reciprocal condition number), if the method fails, or if a member
        holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, or the arrays lie on different devices.
    TypeError
        If an argument is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    solve_continuous_lyapunov : The equation in continuous time.
    discrete_lyapunov_factor : The solution in factored form, for q = b bᴴ.
    solve_generalized_sylvester : The equation a x b + c x d = q.
    scipy.linalg.solve_discrete_lyapunov : SciPy's function.

    Notes
    -----
    The states are balanced first, so their units do not matter. A step of doubling costs three products of
    n × n matrices.

    With e the eigenvalues are those of the pencil a - λ e; doubling takes the LU factors of e, or of a where the
    eigenvalues lie outside the unit circle. A singular e is refused also where the equation has one solution:
    `solve_generalized_sylvester` solves it, ``solve_generalized_sylvester(e, eᴴ, -a, aᴴ, q)``.

    The solution is differentiable to any order in all arguments; each derivative is one more Stein equation. A member
    of a batch gives the same bits as in a call by itself. Under ``jax.jit`` no error can be raised: a member without a
    solution is NaN.

    The backward error of `certify` is ‖a x aᴴ - x + q‖ / (‖a x aᴴ‖ + ‖x‖ + ‖q‖), with e ‖a x aᴴ - e x eᴴ + q‖ /
    (‖a‖₂ ‖a x‖ + ‖a‖₂ ‖x aᴴ‖ + ‖e‖₂ ‖e x‖ + ‖e‖₂ ‖x eᴴ‖ + ‖q‖): the relative change of a, e and q that explains the residual.

    References
    ----------
    .. [1] R. A. Smith, "Matrix equation XA + BX = C", SIAM J. Appl. Math. 16(1), 1968, pp. 198-201,
       doi:10.1137/0116017.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import solve_discrete_lyapunov
    >>> a, q = np.array([[0.5, 1.0], [0.0, -0.8]]), np.eye(2)
    >>> x = solve_discrete_lyapunov(a, q)
    >>> bool(np.linalg.norm(a @ x @ a.T - x + q) < 1e-14)
    True
    """
    return DISCRETE_LYAPUNOV(a, q, e, method=method, errors=errors)


DISCRETE_LYAPUNOV = public_function(
    solve_discrete_lyapunov,
    "(n,n),(n,n),(n,n)->(n,n)",
    keyword_arrays=("e",),
    solve=stein,
    residual=stein_certificate,
    tangent=_stein_tangent,
    cotangent=_stein_cotangent,
    linear=True,
    linear_array=1,
    unstacked=lambda method: method in ("auto", None),
    choices={"method": STEIN_METHODS},
)
