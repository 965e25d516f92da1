"""Roots of order p and their inverses, X = A^{1/p} and Z = A^{-1/p}.

The differential of the root solves  Σₖ Xᵏ dX X^{p-1-k} = dA; here it is the Fréchet derivative L(A, dA) (`power_derivatives`).
"""

from __future__ import annotations

from fractions import Fraction
from numbers import Integral
from typing import Any

from matsign._typing import ArrayLike, T
from matsign.core.options import short_repr
from matsign.core.public import public_function
from matsign.functions.powers.clipped_eigenvalues import CLIPPED, tells_clipped
from matsign.functions.powers.power_certificates import is_singular, power_residual
from matsign.functions.powers.power_derivatives import function_cotangent, function_tangent
from matsign.functions.powers.power_methods import METHODS, matrix_function
from matsign.functions.powers.root_product_methods import METHODS as INVERSE_METHODS
from matsign.functions.powers.root_product_methods import solve_invroot_product
from matsign.linalg.scalar_powers import exponent


def check_order(name: str, p: Any) -> None:
    """Raise unless p is a positive integer."""
    if isinstance(p, bool) or not isinstance(p, Integral) or p < 1:
        raise ValueError(f"{name}: p must be a positive integer, got {short_repr(p)}")


def rootm(A: ArrayLike[T], p: int, *, rtol: float | None = None, method: str = "auto", errors: str = "raise") -> T:
    """Compute the principal root of order p of a matrix.

    X = A^{1/p}: X^p = A, and the arguments of the eigenvalues of X lie between -π/p and π/p.

    Parameters
    ----------
    A : array_like (..., n, n)
        Square matrices of dtype float32, float64, complex64 or complex128; real ones without eigenvalues on the negative
        real axis. Matrices in float16 and bfloat16 are computed in float32.
    p : int
        The order of the root, at least 1.
    rtol : float, optional
        A singular value of at most ``rtol`` times the largest one counts as zero. Default: n eps.
    method : {"auto", "newton", "eigh", "schur"}, default "auto"
        How the root is computed; the methods are those of `fractional_matrix_power`.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no root: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    X : array (..., n, n)
        The roots, in the library, on the device and in the dtype of A. The root of a real matrix is real.

    Raises
    ------
    SpectrumError
        If a real A has an eigenvalue on the negative real axis, or within rounding of it; if zero is a defective
        eigenvalue; or if a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If p is not a positive integer, a shape does not fit, or an option has a value other than those above.
    TypeError
        If A is not a dense array of numbers of a supported dtype.

    See Also
    --------
    invrootm : The inverse root.
    invroot_product : The product of a matrix with an inverse root.
    fractional_matrix_power : Any real power.
    sqrtm : The case p = 2.

    Notes
    -----
    A complex matrix may have eigenvalues on the negative real axis; their roots have the argument π/p. A real matrix
    with such an eigenvalue has no real principal root, and is an error; convert it to a complex dtype for the complex
    root. Zero eigenvalues stay zero.

    Methods, derivatives, batches and ``jax.jit`` are as for `fractional_matrix_power`. The backward error of `certify`
    is ‖X^p - A‖ / (‖X^p‖ + ‖A‖). For a Hermitian A it also measures ``clipped``, the size of the negative eigenvalues
    that counted as zero, relative to the largest one.

    References
    ----------
    .. [1] N. J. Higham, "Functions of Matrices: Theory and Computation", SIAM, 2008, chapter 7.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import rootm
    >>> A = np.array([[2.0, 1.0], [1.0, 2.0]])
    >>> X = rootm(A, 3)
    >>> bool(np.linalg.norm(X @ X @ X - A) < 1e-14)
    True
    """
    return ROOTM(A, p=p, rtol=rtol, method=method, errors=errors)


ROOTM = public_function(
    rootm,
    "(n,n)->(n,n)",
    solve=lambda backend, a, *, p, **o: matrix_function(backend, a, power=exponent(1, p), **o),
    residual=tells_clipped(
        lambda backend, value, a, *, p, rtol: power_residual(backend, value[0], a, t=Fraction(1, int(p)), rtol=rtol)
    ),
    measures=CLIPPED,
    tangent=lambda backend, value, arrays, tangents, *, p, **o: function_tangent(
        backend, arrays, tangents, power=exponent(1, p), **o
    ),
    cotangent=lambda backend, value, arrays, cotangents, *, p, **o: function_cotangent(
        backend, arrays, cotangents, power=exponent(1, p), **o
    ),
    unbounded=lambda backend, value, a, *, p: is_singular(backend, a) & (p > 1),
    choices={"method": METHODS},
    halves=True,
    check=lambda *, p, **_: check_order("rootm", p),
    neutral={"n": 1.0},
)


def invrootm(
    A: ArrayLike[T],
    p: int,
    *,
    tol: float | None = None,
    rtol: float | None = None,
    method: str = "auto",
    errors: str = "raise",
) -> T:
    """Compute the inverse of the principal root of order p.

    Z = A^{-1/p}: Z^p A = I. The orders 2 and 4 precondition gradients.

    Parameters
    ----------
    A : array_like (..., n, n)
        Square matrices of dtype float32, float64, complex64 or complex128; real ones without eigenvalues on the negative
        real axis. Matrices in float16 and bfloat16 are computed in float32.
    p : int
        The order of the root, at least 1.
    tol : float, optional
        The largest relative error in the Frobenius norm that "auto" and "polynomial" may leave to save time; no smaller than
        128 eps. Default: as small as rounding allows.
    rtol : float, optional
        A singular value of at most ``rtol`` times the largest one counts as zero. Default: n eps.
    method : {"auto", "polynomial", "newton", "eigh", "schur"}, default "auto"
        How the root is computed; the methods are those of `invroot_product`.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no root: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    Z : array (..., n, n)
        The inverse roots, in the library, on the device and in the dtype of A. Where A is singular, Z is the inverse
        root on the range of A and zero elsewhere.

    Raises
    ------
    SpectrumError
        If a real A has an eigenvalue on the negative real axis, or within rounding of it; if zero is a defective
        eigenvalue; or if a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If p is not a positive integer, a shape does not fit, or an option has a value other than those above.
    TypeError
        If A is not a dense array of numbers of a supported dtype.

    See Also
    --------
    rootm : The root.
    invroot_product : The product of a matrix with an inverse root.
    invsqrtm : The case p = 2.

    Notes
    -----
    Eigenvalues on the negative real axis are treated as by `rootm`. Derivatives, batches and ``jax.jit`` are as
    for `fractional_matrix_power`. The backward error of `certify` is ‖Z^{-p} - A‖ / (‖Z^{-p}‖ + ‖A‖), with the inverse on
    the range where A is singular. For a Hermitian A it also measures ``clipped``, as for `rootm`.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import invrootm
    >>> A = np.array([[2.0, 1.0], [1.0, 2.0]])
    >>> Z = invrootm(A, 3)
    >>> bool(np.linalg.norm(Z @ Z @ Z @ A - np.eye(2)) < 1e-14)
    True
    """
    return INVROOTM(A, p=p, tol=tol, rtol=rtol, method=method, errors=errors)


INVROOTM = public_function(
    invrootm,
    "(n,n)->(n,n)",
    solve=lambda backend, a, **o: solve_invroot_product(backend, None, a, s=1, **o),
    residual=tells_clipped(
        lambda backend, value, a, *, p, rtol: power_residual(backend, value[0], a, t=Fraction(-1, int(p)), rtol=rtol)
    ),
    measures=CLIPPED,
    tangent=lambda backend, value, arrays, tangents, *, p, **o: function_tangent(
        backend, arrays, tangents, power=exponent(-1, p), **o
    ),
    cotangent=lambda backend, value, arrays, cotangents, *, p, **o: function_cotangent(
        backend, arrays, cotangents, power=exponent(-1, p), **o
    ),
    unbounded=lambda backend, value, a: is_singular(backend, a),
    choices={"method": INVERSE_METHODS},
    halves=True,
    members=16,
    check=lambda *, p, **_: check_order("invrootm", p),
    neutral={"n": 1.0},
)
