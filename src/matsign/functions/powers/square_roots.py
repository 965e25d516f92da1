"""The principal square root X of a matrix and its inverse Z, separately or together.

The sign of [[0, A], [I, 0]] is [[0, X], [Z, 0]] (`block_structures.AntiDiagonal`). X X = A, so that the differential of the root
solves  X dX + dX X = dA.
"""

from __future__ import annotations

from matsign._typing import ArrayLike, T
from matsign.core.public import public_function
from matsign.functions.powers.branch_cut import solve_inverse_root, solve_pair, solve_root
from matsign.functions.powers.clipped_eigenvalues import CLIPPED, tells_clipped
from matsign.functions.powers.square_root_certificates import inverse_residual, pair_residual, root_residual
from matsign.functions.powers.square_root_derivatives import (
    inverse_cotangent,
    inverse_tangent,
    is_singular_root,
    pair_cotangent,
    pair_tangent,
    root_cotangent,
    root_tangent,
)
from matsign.functions.powers.square_root_methods import (
    METHODS,
    root_pair_by_products,
    takes_single,
)


def sqrtm_pair(
    A: ArrayLike[T], *, rtol: float | None = None, method: str = "auto", errors: str = "raise"
) -> tuple[T, T]:
    """Compute the principal square root and its inverse together.

    A^{1/2} and A^{-1/2}, at the cost of one of them.

    Parameters
    ----------
    A : array_like (..., n, n)
        Square matrices of dtype float32, float64, complex64 or complex128; real ones without eigenvalues on the negative
        real axis. Matrices in float16 and bfloat16 are computed in float32.
    rtol : float, optional
        A singular value of at most ``rtol`` times the largest one counts as zero, in both results and by every method.
        Default: n eps.
    method : {"auto", "newton", "polynomial", "schur", "eigh"}, default "auto"
        How the roots are computed:

        - "newton": by the coupled iteration of Denman and Beavers [1]_, which is Newton's method on [[0, A], [I, 0]],
          scaled.
        - "polynomial": by coupled steps of products alone, for a real positive spectrum.
        - "schur": by the method of Björck and Hammarling [2]_, which is SciPy's, on the CPU.
        - "eigh": by eigenvectors, for Hermitian A.
        - "auto": on a CPU by eigenvectors for Hermitian members and by Schur forms up to n = 48; else by Newton's
          method, and by Schur forms for members whose residual is not at working precision.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no root: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    X : array (..., n, n)
        The principal square roots.
    Z : array (..., n, n)
        Their inverses; where A is singular, the inverse on the range of A.

    Raises
    ------
    SpectrumError
        If a real A has an eigenvalue on the negative real axis, or within rounding of it, if zero is a defective
        eigenvalue, or if a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a shape does not fit, or an option has a value other than those above.
    TypeError
        If A is not a dense array of numbers of a supported dtype.

    See Also
    --------
    sqrtm : The root alone.
    invsqrtm : The inverse root alone.
    coupled_root : The same of a product of two matrices.
    geometric_mean : The square root between two positive definite matrices.

    Notes
    -----
    The equations are::

        X X = A,    Z A Z = I.

    A complex matrix may have eigenvalues on the negative real axis: their roots have positive imaginary parts, and so
    have those of eigenvalues that rounding may have moved below the axis. Such members are computed by eigenvectors or
    Schur vectors. Zero eigenvalues stay zero in both results. A general matrix is balanced first. A Newton step costs
    two inverses of n × n matrices, and a polynomial step four products.

    Derivatives: for nonsingular A both roots are differentiable to any order, also at repeated eigenvalues. For
    singular A the slope is infinite along directions that change the rank, and the derivative is that along directions
    that keep it.

    A member of a batch gives the same bits as in a call by itself, but for symmetric ones as `fractional_matrix_power`
    says. Under ``jax.jit`` no error can be raised: a member without a root is NaN.

    In PyTorch, A may be a DTensor sharded over batch axes or along one axis of its matrices, which is then solved by
    products alone; docs/howto/many_devices.md has the communication and the memory.

    The backward error of `certify` is the larger of ‖X X - A‖ / (‖X X‖ + ‖A‖) and ‖Z A Z - P‖ / (‖Z A Z‖ + ‖P‖), with P
    the projector on the range of A (I if A is nonsingular), in the scaling that balances A. For a Hermitian A it also
    measures ``clipped``, the size of the negative eigenvalues that counted as zero, relative to the largest one.

    References
    ----------
    .. [1] E. D. Denman and A. N. Beavers, "The matrix sign function and computations in systems", Appl. Math. Comput.
       2(1), 1976, pp. 63-94, doi:10.1016/0096-3003(76)90020-5.
    .. [2] Å. Björck and S. Hammarling, "A Schur method for the square root of a matrix", Linear Algebra Appl. 52-53,
       1983, pp. 127-140, doi:10.1016/0024-3795(83)80010-X.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import sqrtm_pair
    >>> A = np.array([[4.0, 1.0], [0.0, 9.0]])
    >>> X, Z = sqrtm_pair(A)
    >>> bool(np.linalg.norm(X @ X - A) + np.linalg.norm(X @ Z - np.eye(2)) < 1e-14)
    True
    """
    return SQRTM_PAIR(A, rtol=rtol, method=method, errors=errors)


SQRTM_PAIR = public_function(
    sqrtm_pair,
    "(n,n)->(n,n),(n,n)",
    solve=solve_pair,
    by_products=root_pair_by_products,
    residual=tells_clipped(pair_residual),
    measures=CLIPPED,
    tangent=pair_tangent,
    cotangent=pair_cotangent,
    unbounded=lambda backend, value, a: is_singular_root(backend, value[0]),
    unstacked=takes_single,
    choices={"method": METHODS},
    halves=True,
)


def sqrtm(A: ArrayLike[T], *, rtol: float | None = None, method: str = "auto", errors: str = "raise") -> T:
    """Compute the principal square root of a matrix.

    X = A^{1/2}: X X = A, and every eigenvalue of X has a nonnegative real part.

    Parameters
    ----------
    A : array_like (..., n, n)
        Square matrices of dtype float32, float64, complex64 or complex128; real ones without eigenvalues on the negative
        real axis. Matrices in float16 and bfloat16 are computed in float32.
    rtol : float, optional
        A singular value of at most ``rtol`` times the largest one counts as zero. Default: n eps.
    method : {"auto", "newton", "polynomial", "schur", "eigh"}, default "auto"
        How the root is computed; the methods are those of `sqrtm_pair`.
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
        If a real A has an eigenvalue on the negative real axis, or within rounding of it, if zero is a defective
        eigenvalue, or if a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a shape does not fit, or an option has a value other than those above.
    TypeError
        If A is not a dense array of numbers of a supported dtype.

    See Also
    --------
    sqrtm_pair : Also return the inverse root, for the price of one.
    invsqrtm : The inverse root alone.
    scipy.linalg.sqrtm : SciPy's.

    Notes
    -----
    Zero eigenvalues stay zero. A real matrix with a negative eigenvalue has no real root, and is an error; convert it
    to a complex dtype for the complex root.

    Methods, cost, derivatives, batches and ``jax.jit`` are as for `sqrtm_pair`. The backward error of `certify` is
    ‖X X - A‖ / (‖X X‖ + ‖A‖), in the scaling that balances A. For a Hermitian A it also measures ``clipped``, as for
    `sqrtm_pair`.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import sqrtm
    >>> A = np.array([[2.0, 1.0], [1.0, 2.0]])
    >>> X = sqrtm(A)
    >>> bool(np.linalg.norm(X @ X - A) < 1e-14)
    True
    """
    return SQRTM(A, rtol=rtol, method=method, errors=errors)


SQRTM = public_function(
    sqrtm,
    "(n,n)->(n,n)",
    solve=solve_root,
    residual=tells_clipped(root_residual),
    measures=CLIPPED,
    tangent=root_tangent,
    cotangent=root_cotangent,
    unbounded=lambda backend, value, a: is_singular_root(backend, value[0]),
    unstacked=takes_single,
    choices={"method": METHODS},
    halves=True,
)


def invsqrtm(A: ArrayLike[T], *, rtol: float | None = None, method: str = "auto", errors: str = "raise") -> T:
    """Compute the inverse of the principal square root.

    Z = A^{-1/2}: Z A Z = I. Applied to data, the inverse root of their covariance makes the covariance I (whitening).

    Parameters
    ----------
    A : array_like (..., n, n)
        Square matrices of dtype float32, float64, complex64 or complex128; real ones without eigenvalues on the negative
        real axis. Matrices in float16 and bfloat16 are computed in float32.
    rtol : float, optional
        A singular value of at most ``rtol`` times the largest one counts as zero. Default: n eps.
    method : {"auto", "newton", "polynomial", "schur", "eigh"}, default "auto"
        How the root is computed; the methods are those of `sqrtm_pair`.
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
        If a real A has an eigenvalue on the negative real axis, or within rounding of it, if zero is a defective
        eigenvalue, or if a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a shape does not fit, or an option has a value other than those above.
    TypeError
        If A is not a dense array of numbers of a supported dtype.

    See Also
    --------
    sqrtm_pair : Both roots, for the price of one.
    sqrtm : The root alone.

    Notes
    -----
    Methods, cost, derivatives, batches and ``jax.jit`` are as for `sqrtm_pair`. The backward error of `certify` is
    ‖Z A Z - P‖ / (‖Z A Z‖ + ‖P‖) with P the projector on the range of A (I if A is nonsingular), in the scaling that
    balances A. For a Hermitian A it also measures ``clipped``, as for `sqrtm_pair`.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import invsqrtm
    >>> A = np.array([[2.0, 1.0], [1.0, 2.0]])
    >>> Z = invsqrtm(A)
    >>> bool(np.linalg.norm(Z @ A @ Z - np.eye(2)) < 1e-14)
    True
    """
    return INVSQRTM(A, rtol=rtol, method=method, errors=errors)


INVSQRTM = public_function(
    invsqrtm,
    "(n,n)->(n,n)",
    solve=solve_inverse_root,
    residual=tells_clipped(inverse_residual),
    measures=CLIPPED,
    tangent=inverse_tangent,
    cotangent=inverse_cotangent,
    unbounded=lambda backend, value, a: is_singular_root(backend, value[0]),
    unstacked=takes_single,
    choices={"method": METHODS},
    halves=True,
)
