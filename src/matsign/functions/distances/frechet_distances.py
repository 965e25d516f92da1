"""The squared Fréchet distance of Gaussians, ‖μ₁ - μ₂‖² + b², with the Bures distance b of their covariances.

d(value) = 2 Re (μ₁ - μ₂)ᴴ (dμ₁ - dμ₂) + d(b²)
"""

from __future__ import annotations

from matsign._typing import Array, ArrayLike, Arrays, T
from matsign.backends import Backend
from matsign.core.members import Solution
from matsign.core.public import Residual, public_function
from matsign.functions.distances import semidefinite_pairs as pairs
from matsign.functions.distances.bures import CHECKED, finish, residual_of_number
from matsign.functions.distances.semidefinite_values import compute
from matsign.linalg.stacks import safe_divisor


def _frechet(backend: Backend, mu1: Array, a: Array, mu2: Array, b: Array, *, rtol: float | None) -> Solution:
    p = compute(backend, a, b, rtol)
    return finish(backend, _value(backend, mu1, mu2, p.distance), p, a, b, rtol)


def _value(backend: Backend, mu1: Array, mu2: Array, distance: Array) -> Array:
    shift = mu1 - mu2
    return backend.astype(backend.inner(shift, shift), backend.dtype_name(distance)) + distance**2


def _frechet_tangent(
    backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, rtol: float | None
) -> Arrays:
    (mu1, a, mu2, b), (dmu1, da, dmu2, db) = arrays, tangents
    step = pairs.squared_tangent(backend, (a, b), (da, db), rtol)
    return (2 * backend.inner(mu1 - mu2, dmu1 - dmu2) + step,)


def _frechet_cotangent(
    backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, rtol: float | None
) -> Arrays:
    (mu1, a, mu2, b), (bar,) = arrays, cotangents
    shift = 2 * bar[:, None] * (mu1 - mu2)
    g, h = (bar[:, None, None] * x for x in pairs.gradients(backend, (a, b), rtol))
    return shift, g, -shift, h


def _frechet_residual(
    backend: Backend, value: tuple[Array], mu1: Array, a: Array, mu2: Array, b: Array, *, rtol: float | None
) -> Residual:
    p, shift = pairs.compare(backend, b, a, rtol), mu1 - mu2
    length = backend.norm(shift)
    size = pairs.size(backend, a, b)
    scale = size**2 + length**2
    share = p.distance / safe_divisor(backend, size)
    share = backend.xp.where((shift != 0).any(-1), backend.xp.ones_like(share), share)
    noise = pairs.rounding_of_squared(backend, a, b, rtol)
    noise = noise + 2 * backend.eps(a) * (length * (backend.norm(mu1) + backend.norm(mu2)) + 2 * p.distance * size)
    return residual_of_number(backend, value[0], _value(backend, mu1, mu2, p.distance), noise, scale, p, share)


def frechet_distance(
    mu1: ArrayLike[T],
    A: ArrayLike[T],
    mu2: ArrayLike[T],
    B: ArrayLike[T],
    *,
    rtol: float | None = None,
    errors: str = "raise",
) -> T:
    """Compute the squared Fréchet distance of two Gaussians, as in the FID.

    ‖mu1 - mu2‖² + tr A + tr B - 2 tr (A^{1/2} B A^{1/2})^{1/2} [1]_: the squared 2-Wasserstein distance of N(mu1, A) and
    N(mu2, B). The Fréchet inception distance [2]_ is this number for the means and covariances of two sets of features.

    Parameters
    ----------
    mu1 : array_like (..., n)
        Means, of dtype float32, float64, complex64 or complex128.
    A : array_like (..., n, n)
        Covariances: Hermitian positive semidefinite matrices of any rank.
    mu2 : array_like (..., n)
        Means of the second Gaussians.
    B : array_like (..., n, n)
        Covariances of the second Gaussians.
    rtol : float, optional
        An eigenvalue of at most ``rtol`` times the largest one counts as zero; negative ones are refused below -10
        times that. Default: n eps.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no answer: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    d2 : array (...)
        The squared distances, real.

    Raises
    ------
    SpectrumError
        If A or B has a negative eigenvalue, beyond rounding; if the result overflows, or a member holds NaN or infinity;
        and ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, the arrays lie on different devices, or A
        or B in NumPy arrays is not Hermitian.
    TypeError
        If an argument is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    bures_distance : Of equal means, and its root.

    Notes
    -----
    The usual code takes ``sqrtm(A @ B)``, which need not exist where A or B is singular, as covariances of fewer samples
    than features are, and is then computed as a complex matrix. Here the last term is a sum of singular values, or of
    the roots of the eigenvalues of Kᴴ B K for a Cholesky factor K of A where these are accurate; where its difference
    from the traces is small, the norm of a difference of factors replaces it, so that nothing cancels.

    The derivative of the covariances is that of `bures_distance` with ``squared=True``: finite at any rank, and 0 for
    equal nonsingular covariances. Batches and ``jax.jit`` are as there. The backward error of `certify` is the difference
    from a second computation, relative to tr A + tr B + ‖mu1 - mu2‖². The forward error adds the effect of rounding of the
    arguments. It also measures ``clipped``, the size of the negative eigenvalues that counted as zero, relative to the
    largest one.

    References
    ----------
    .. [1] D. C. Dowson and B. V. Landau, "The Fréchet distance between multivariate normal distributions", J.
       Multivariate Anal. 12(3), 1982, pp. 450-455, doi:10.1016/0047-259X(82)90077-X.
    .. [2] M. Heusel, H. Ramsauer, T. Unterthiner, B. Nessler and S. Hochreiter, "GANs trained by a two time-scale update
       rule converge to a local Nash equilibrium", 2017, arXiv:1706.08500.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import frechet_distance
    >>> A, B = np.diag([4.0, 0.0]), np.diag([1.0, 9.0])
    >>> round(float(frechet_distance(np.zeros(2), A, np.array([2.0, 0.0]), B)), 12)  # 2² + (2 - 1)² + (0 - 3)²
    14.0
    """
    return FRECHET_DISTANCE(mu1, A, mu2, B, rtol=rtol, errors=errors)


FRECHET_DISTANCE = public_function(
    frechet_distance,
    "(n),(n,n),(n),(n,n)->()",
    solve=_frechet,
    residual=_frechet_residual,
    tangent=_frechet_tangent,
    cotangent=_frechet_cotangent,
    **CHECKED,
)
