"""The Karcher mean of positive definite matrices: the M for which Σ wᵢ log(M^{-1/2} Aᵢ M^{-1/2}) = 0.

`karcher_methods` has the method, `karcher_derivatives` the differential.
"""

from __future__ import annotations

from matsign._typing import ArrayLike, OptionalArrayLike, T
from matsign.core.public import public_function
from matsign.functions.means.karcher_certificates import karcher_residual
from matsign.functions.means.karcher_derivatives import karcher_cotangent, karcher_tangent
from matsign.functions.means.karcher_methods import solve_karcher
from matsign.functions.means.matrix_collections import check_collection


def karcher_mean(stack: ArrayLike[T], weights: OptionalArrayLike[T] = None, *, errors: str = "raise") -> T:
    """Compute the Karcher mean of positive definite matrices.

    The Riemannian barycentre [1]_, also called the geometric mean of k matrices: the M with the least Σ wᵢ δ(M, Aᵢ)²,
    where δ(M, A) = ‖log(M^{-1/2} A M^{-1/2})‖ is the affine-invariant distance of covariance matrices.

    Parameters
    ----------
    stack : array_like (..., k, n, n)
        Collections of k Hermitian positive definite matrices A₁ … A_k, of dtype float32, float64, complex64 or
        complex128.
    weights : array_like (..., k), optional
        Weights of at least 0, of which only the ratios matter. Default: all equal.
    errors : {"raise", "nan"}, default "raise"
        What to do if a collection has no mean: raise `SpectrumError`, or return NaN for that collection and the right
        result for the others.

    Returns
    -------
    M : array (..., n, n)
        The means, Hermitian positive definite.

    Raises
    ------
    SpectrumError
        If a matrix is not positive definite to working precision, a weight is negative or all are 0, the iteration
        stops before the residual is as small as rounding errors, the result overflows, or a collection holds NaN or
        infinity; and ``errors="raise"``.
    ValueError
        If a shape does not fit, the matrices have different shapes, there are none, an option has a value other than
        those above, the arrays lie on different devices, or a NumPy array is not Hermitian.
    TypeError
        If an argument is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    geometric_mean : The weighted mean of two matrices, without iteration.

    Notes
    -----
    The mean solves::

        Σ wᵢ log(M^{-1/2} Aᵢ M^{-1/2}) = 0.

    It is unique, and that of the matrices C Aᵢ Cᴴ is C M Cᴴ; commuting matrices have the mean exp(Σ wᵢ log Aᵢ), and two
    have `geometric_mean`. Newton's method finds it from everywhere (for the equation and other methods see [2]_). The
    linear equation of a step has eigenvalues between 1 and half the logarithm of a condition number, and is solved by
    conjugate gradients in a few steps. Units of rows and columns, and of each matrix, do not matter. The computation is
    in double precision.

    A matrix of weight 0 does not change the mean, but must be positive definite, too; identity matrices of weight 0 can
    fill up shorter collections.

    Derivatives by matrices and weights exist to any order; each is one linear equation at the mean, so that the steps of
    the iteration are not stored. A collection gives the same bits in every batch. Under ``jax.jit`` no error can be
    raised: a collection without a mean is NaN.

    The backward error of `certify` is the largest ‖Aᵢ' - Aᵢ‖ / ‖Aᵢ‖ for matrices Aᵢ' near Aᵢ whose exact mean is M, in
    units of rows and columns in which Σ wᵢ Aᵢ has a diagonal near 1.

    References
    ----------
    .. [1] M. Moakher, "A differential geometric approach to the geometric mean of symmetric positive-definite matrices",
       SIAM J. Matrix Anal. Appl. 26(3), 2005, pp. 735-747, doi:10.1137/S0895479803436937.
    .. [2] D. A. Bini and B. Iannazzo, "Computing the Karcher mean of symmetric positive definite matrices", Linear
       Algebra Appl. 438(4), 2013, pp. 1700-1710, doi:10.1016/j.laa.2011.08.052.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import geometric_mean, karcher_mean
    >>> A, B = np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([[5.0, 0.0], [0.0, 1.0]])
    >>> C = np.array([[3.0, -1.0], [-1.0, 1.0]])
    >>> M = karcher_mean(np.stack([A, B, C]))
    >>> bool(abs(np.linalg.det(M) ** 3 - np.linalg.det(A) * np.linalg.det(B) * np.linalg.det(C)) < 1e-12)
    True
    >>> two = karcher_mean(np.stack([A, B, C]), [3.0, 1.0, 0.0])
    >>> bool(np.linalg.norm(two - geometric_mean(A, B, t=0.25)) < 1e-14)
    True
    """
    check_collection("karcher_mean", stack)
    return KARCHER_MEAN(stack, weights, errors=errors)


KARCHER_MEAN = public_function(
    karcher_mean,
    "(k,n,n),(k)->(n,n)",
    solve=solve_karcher,
    residual=karcher_residual,
    tangent=karcher_tangent,
    cotangent=karcher_cotangent,
    hermitian=("stack",),
)
