"""The Bures mean of positive semidefinite matrices: the M for which M = Σ wᵢ (M^{1/2} Aᵢ M^{1/2})^{1/2}.

`bures_mean_methods` has the method, `bures_mean_derivatives` the differential.
"""

from __future__ import annotations

from matsign._typing import ArrayLike, OptionalArrayLike, T
from matsign.core.public import public_function
from matsign.functions.means.bures_mean_certificates import bures_mean_residual
from matsign.functions.means.bures_mean_derivatives import bures_mean_cotangent, bures_mean_tangent
from matsign.functions.means.bures_mean_methods import solve_bures
from matsign.functions.means.matrix_collections import check_collection


def bures_mean(
    stack: ArrayLike[T],
    weights: OptionalArrayLike[T] = None,
    *,
    rtol: float | None = None,
    errors: str = "raise",
) -> T:
    """Compute the Bures mean of positive semidefinite matrices.

    The covariance matrix of the 2-Wasserstein barycentre of the Gaussians N(0, Aᵢ) [1]_: the M with the least Σ wᵢ b(M,
    Aᵢ)², b being the `bures_distance`.

    Parameters
    ----------
    stack : array_like (..., k, n, n)
        Collections of k Hermitian positive semidefinite matrices A₁ … A_k, of dtype float32, float64, complex64 or
        complex128. One of them must be definite, or have the range of all together.
    weights : array_like (..., k), optional
        Weights of at least 0, of which only the ratios matter. Default: all equal.
    rtol : float, optional
        An eigenvalue of at most ``rtol`` times the largest one of its matrix counts as zero; negative ones are refused
        below -10 times that. Default: n eps.
    errors : {"raise", "nan"}, default "raise"
        What to do if a collection has no mean: raise `SpectrumError`, or return NaN for that collection and the right
        result for the others.

    Returns
    -------
    M : array (..., n, n)
        The means, Hermitian positive semidefinite.

    Raises
    ------
    SpectrumError
        If a matrix has a negative eigenvalue beyond rounding, none has the range of all together, a weight is negative
        or all are 0, the iteration stops before the residual is as small as rounding errors, the result overflows, or
        a collection holds NaN or infinity; and ``errors="raise"``.
    ValueError
        If a shape does not fit, the matrices have different shapes, there are none, an option has a value other than
        those above, the arrays lie on different devices, or a NumPy array is not Hermitian.
    TypeError
        If an argument is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    karcher_mean : The mean for the affine-invariant distance.
    bures_distance : The distance whose squares it minimises.

    Notes
    -----
    The mean solves::

        M = Σ wᵢ (M^{1/2} Aᵢ M^{1/2})^{1/2}.

    It is unique where a matrix is definite. Commuting matrices have the mean (Σ wᵢ Aᵢ^{1/2})². It is found
    by Newton's method, whose linear equation is solved by conjugate gradients, with steps of the fixed point of [2]_, which
    converges from everywhere, where a Newton step fails. The computation is in double precision.

    A matrix of weight 0 does not change the mean; zero matrices of weight 0 can fill up shorter collections.

    Derivatives by matrices and weights exist to any order where all matrices are definite; each is one linear equation at
    the mean, so that the steps of the iteration are not stored. By a singular matrix it is the derivative along
    directions that keep its range; where the mean is singular, it is NaN. A collection gives the same bits in every
    batch. Under ``jax.jit`` no error can be raised: a collection without a mean is NaN.

    The backward error of `certify` is ‖M - Σ wᵢ (M^{1/2} Aᵢ M^{1/2})^{1/2}‖ / (2 ‖M‖). It also measures ``clipped``, the
    size of the negative eigenvalues that counted as zero, relative to the largest one of their matrix.

    References
    ----------
    .. [1] M. Agueh and G. Carlier, "Barycenters in the Wasserstein space", SIAM J. Math. Anal. 43(2), 2011, pp. 904-924,
       doi:10.1137/100805741.
    .. [2] P. C. Álvarez-Esteban, E. del Barrio, J. A. Cuesta-Albertos and C. Matrán, "A fixed-point approach to
       barycenters in Wasserstein space", J. Math. Anal. Appl. 441(2), 2016, pp. 744-762,
       doi:10.1016/j.jmaa.2016.04.045.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import bures_mean, sqrtm
    >>> A, B = np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([[5.0, 0.0], [0.0, 0.0]])
    >>> M = bures_mean(np.stack([A, B]))
    >>> R = sqrtm(M)
    >>> bool(np.linalg.norm(M - (sqrtm(R @ A @ R) + sqrtm(R @ B @ R)) / 2) < 1e-13)
    True
    """
    check_collection("bures_mean", stack)
    return BURES_MEAN(stack, weights, rtol=rtol, errors=errors)


BURES_MEAN = public_function(
    bures_mean,
    "(k,n,n),(k)->(n,n)",
    solve=solve_bures,
    residual=bures_mean_residual,
    tangent=bures_mean_tangent,
    cotangent=bures_mean_cotangent,
    measures=("clipped",),
    hermitian=("stack",),
)
