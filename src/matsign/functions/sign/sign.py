"""The matrix sign function of square matrices, and |M|, which takes one more product.

mcsgn sends every eigenvalue to the sign of its real part and keeps the invariant subspaces: S² = I and SM = MS. The differential
is in `sign_derivatives`.
"""

from __future__ import annotations

from typing import Any

from matsign._typing import Array, ArrayLike, Arrays, T
from matsign.backends import Backend
from matsign.core.members import Solution
from matsign.core.operations import apply
from matsign.core.public import public_function
from matsign.functions.sign.certificates import abs_residual, sign_residual
from matsign.functions.sign.derivatives import sign_cotangent, sign_jvp, sign_tangent, sign_vjp
from matsign.functions.sign.methods import ABS, METHODS, sign
from matsign.linalg.stacks import (
    adjoint,
)


def mcsgn(
    M: ArrayLike[T], *, tol: float | None = None, rtol: float | None = None, method: str = "auto", errors: str = "raise"
) -> T:
    """Compute the matrix sign function.

    mcsgn(M) = M (M²)^{-1/2}: every eigenvalue becomes the sign of its real part, +1 or -1, and the invariant subspaces
    do not change. Zero eigenvalues stay zero.

    Parameters
    ----------
    M : array_like (..., n, n)
        Square matrices of dtype float32, float64, complex64 or complex128.
    tol : float, optional
        The accuracy asked of ``method="polynomial"``. Default: the rounding of the dtype.
    rtol : float, optional
        A singular value of at most ``rtol`` times the largest one, after balancing, counts as zero. Default: n eps.
        With ``rtol=0`` the entries of M are taken to be exact; with a larger ``rtol``, every eigenvalue that a relative
        change of M by that much may have moved from zero counts as zero.
    method : {"auto", "newton", "polynomial", "schur", "eigh"}, default "auto"
        How the sign is computed:

        - "newton": by a scaled Newton iteration [1]_ [2]_, for every spectrum off the imaginary axis.
        - "polynomial": by matrix products alone, from X₀ = M / √tr(M²), for a real spectrum.
        - "schur": by a Schur form, with LAPACK on the CPU.
        - "eigh": by eigenvectors, for Hermitian M.
        - "auto": on a CPU by eigenvectors for Hermitian members and by Schur forms for a few small ones; else by
          Newton's method, and by Schur forms for members whose result does not commute with M to working precision.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no sign: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    S : array (..., n, n)
        The signs, in the library, on the device and in the dtype of M.

    Raises
    ------
    SpectrumError
        If a nonzero eigenvalue lies on the imaginary axis to working precision, if rounding decides whether an
        eigenvalue is zero, or if a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a shape does not fit, or an option has a value other than those above.
    TypeError
        If M is not a dense array of numbers of a supported dtype.

    See Also
    --------
    msign : The sign by singular values in place of eigenvalues.
    matrix_abs : The product of M and its sign.
    spectral_projector : The projector on one half plane.
    scipy.linalg.signm : SciPy's, for a single matrix.

    Notes
    -----
    The equations are::

        S M = M S,    S³ = S.

    M is balanced first by a diagonal scaling, so that the sign of [[1, 1e8], [0, -1]] is this matrix itself. A Newton
    step costs one inverse, which costs as much as two or three products of n × n matrices.

    Zero eigenvalues stay zero in the sense of the Drazin inverse: the spectral projector on the generalised null space
    of M splits it off. The sign of [[1, 5], [0, 0]] is this matrix itself, and that of a nilpotent matrix is 0. Where
    the entries of M form a singular matrix exactly, the lengths of the Jordan chains of zero are counted exactly. Where
    M has null vectors but rounding hides the rest of their chains, singular values decide, and the forward error of
    `certify` is infinite. If rounding has moved whole chains off zero, or a matrix that is far from normal in every
    scaling has small eigenvalues, the error says so, and ``rtol`` decides.

    Derivatives: for nonsingular M the sign is differentiable to any order. For singular M the derivative is that along
    directions that keep the rank. Near the imaginary axis the derivative grows as the inverse of the distance.

    A member of a batch gives the same bits as in a call by itself. Under ``jax.jit`` no error can be raised: a member
    without a sign is NaN.

    The backward error of `certify` is the largest of ‖S M - M S‖ / (2 ‖S‖ ‖M‖), ‖S³ - S‖ / (‖S‖³ + ‖S‖) and, where S is
    singular, ‖Zᵖ‖ / (‖Z‖ᵖ⁻¹ ‖M‖) with Z = (I - S²) M and a power p ≥ n, in the scaling that balances M.

    References
    ----------
    .. [1] J. D. Roberts, "Linear model reduction and solution of the algebraic Riccati equation by use of the sign
       function", Int. J. Control 32(4), 1980, pp. 677-687, doi:10.1080/00207178008922881.
    .. [2] N. J. Higham, "Functions of Matrices: Theory and Computation", SIAM, 2008, chapter 5,
       doi:10.1137/1.9780898717778.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import mcsgn
    >>> M = np.array([[4.0, 3.0], [0.0, -2.0]])
    >>> S = mcsgn(M)
    >>> S
    array([[ 1.,  1.],
           [ 0., -1.]])
    >>> bool(np.linalg.norm(S @ M - M @ S) + np.linalg.norm(S @ S - np.eye(2)) < 1e-14)
    True
    """
    return MCSGN(M, tol=tol, rtol=rtol, method=method, errors=errors)


MCSGN = public_function(
    mcsgn,
    "(n,n)->(n,n)",
    solve=sign,
    residual=sign_residual,
    tangent=sign_tangent,
    cotangent=sign_cotangent,
    choices={"method": METHODS},
)


def _abs(backend: Backend, m: Array, **options: Any) -> Solution:
    return sign(backend, m, of=ABS, **options)


def _abs_tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, **options: Any) -> Arrays:
    """dN = dM S + M dS, which is also determined for zero eigenvalues, unlike N dN + dN N = dM M + M dM."""
    (m,), (dm,) = arrays, tangents
    (s,) = apply(backend, MCSGN.operation, m, **options)
    return (dm @ s + m @ sign_jvp(backend, s, m, dm),)


def _abs_cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, **options: Any) -> Arrays:
    (m,), (bar,) = arrays, cotangents
    (s,) = apply(backend, MCSGN.operation, m, **options)
    return (bar @ adjoint(s) + sign_vjp(backend, s, m, adjoint(m) @ bar),)


def matrix_abs(
    M: ArrayLike[T], *, tol: float | None = None, rtol: float | None = None, method: str = "auto", errors: str = "raise"
) -> T:
    """Compute the absolute value of a matrix by its eigenvalues.

    abs(M) = (M²)^{1/2} = M mcsgn(M): the eigenvalues with a negative real part are multiplied by -1, the others stay.

    Parameters
    ----------
    M : array_like (..., n, n)
        Square matrices of dtype float32, float64, complex64 or complex128.
    tol : float, optional
        The accuracy asked of ``method="polynomial"``. Default: the rounding of the dtype.
    rtol : float, optional
        A singular value of at most ``rtol`` times the largest one, after balancing, counts as zero. Default: n eps.
    method : {"auto", "newton", "polynomial", "schur", "eigh"}, default "auto"
        How the sign is computed; the methods are those of `mcsgn`.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no answer: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    N : array (..., n, n)
        The absolute values, in the library, on the device and in the dtype of M.

    Raises
    ------
    SpectrumError
        As for `mcsgn`: if a nonzero eigenvalue lies on the imaginary axis to working precision, if rounding decides
        whether an eigenvalue is zero, or if a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a shape does not fit, or an option has a value other than those above.
    TypeError
        If M is not a dense array of numbers of a supported dtype.

    See Also
    --------
    mcsgn : The sign.
    polar : Its Hermitian factor is the absolute value by singular values.

    Notes
    -----
    The equation is N² = M², and all eigenvalues of N have a nonnegative real part. For Hermitian M this is the absolute
    value by singular values, too; for other matrices it is not.

    The cost is that of `mcsgn` and one product. Derivatives, batches and ``jax.jit`` are as for `mcsgn`. The backward
    error of `certify` is ‖N² - M²‖ / (‖N‖² + ‖M‖²), in the scaling that balances M.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import matrix_abs
    >>> M = np.array([[1.0, 2.0], [2.0, 1.0]])
    >>> N = matrix_abs(M)
    >>> N.round(12)
    array([[2., 1.],
           [1., 2.]])
    >>> bool(np.linalg.norm(N @ N - M @ M) < 1e-14)
    True
    """
    return MATRIX_ABS(M, tol=tol, rtol=rtol, method=method, errors=errors)


MATRIX_ABS = public_function(
    matrix_abs,
    "(n,n)->(n,n)",
    solve=_abs,
    residual=abs_residual,
    tangent=_abs_tangent,
    cotangent=_abs_cotangent,
    choices={"method": METHODS},
)
