"""The squared Fréchet distance of the Gaussians of two sets of samples; `factored_pairs` has the formulas.

The covariance of N samples, the rows of X with the mean μ, is F Fᴴ with F = (X - μ)ᵀ / √(N - 1). With the gradient g of b² in F

    d(value) = 2 Re (μ₁ - μ₂)ᴴ (dμ₁ - dμ₂) + d(b²),    cotangent of X:  (gᵀ - its mean) / √(N - 1) + 2 (μ₁ - μ₂)ᵀ / N.
"""

from __future__ import annotations

import math

from matsign._typing import Array, ArrayLike, Arrays, T
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.members import Solution
from matsign.core.public import Residual, public_function
from matsign.functions.distances import factored_pairs as factored
from matsign.functions.distances.factored_distances import finish, residual_of_number
from matsign.linalg.stacks import broadcast_scalar, scale_to_unit


def _mean(backend: Backend, x: Array) -> Array:
    """The mean of the samples, (B, 1, n)."""
    return backend.xp.sum(x, axis=-2, keepdims=True) / x.shape[-2]


def _factor(backend: Backend, x: Array) -> Array:
    """F for samples or for their tangents."""
    return (x - _mean(backend, x)).mT / math.sqrt(max(1, x.shape[-2] - 1))


def _shift(backend: Backend, x: Array, y: Array) -> Array:
    return (_mean(backend, x) - _mean(backend, y))[:, 0, :]


def _distance(backend: Backend, x: Array, y: Array) -> Array:
    """Its square is the value, in the precision of the factors."""
    b = factored.compare(backend, _factor(backend, x), _factor(backend, y)).distance
    length = backend.norm(_shift(backend, x, y))
    return backend.xp.hypot(b, backend.astype(length, backend.dtype_name(b)))


def _solve(backend: Backend, x: Array, y: Array) -> Solution:
    scaled_x, scaled_y, e = scale_to_unit(backend, x, y)
    d2 = backend.ldexp(_distance(backend, scaled_x, scaled_y) ** 2, 2 * e)
    result = finish(backend, d2, x)
    for samples, reason in ((x, Failure.FEW_SAMPLES_X), (y, Failure.FEW_SAMPLES_Y)):
        if samples.shape[-2] < 2:
            result = result._replace(failure=reason.where(backend, result.failure == 0, result.failure))
    return result


def _tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays) -> Arrays:
    factors, changes = ([_factor(backend, x) for x in xs] for xs in (arrays, tangents))
    step = factored.squared_tangent(backend, tuple(factors), tuple(changes))
    return (2 * backend.inner(_shift(backend, *arrays), _shift(backend, *tangents)) + step,)


def _cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays) -> Arrays:
    x, y = arrays
    bar, shift = broadcast_scalar(cotangents[0]), 2 * _shift(backend, x, y)[:, None, :]
    slopes = factored.squared_gradients(backend, _factor(backend, x), _factor(backend, y))
    result = []
    for samples, slope, change in ((x, slopes[0], shift), (y, slopes[1], -shift)):
        count = samples.shape[-2]
        of_factor = (slope.mT - _mean(backend, slope.mT)) / math.sqrt(max(1, count - 1))
        result.append(bar * (of_factor + change / count))
    return tuple(result)


def _residual(backend: Backend, value: tuple[Array], x: Array, y: Array) -> Residual:
    x, y, e = scale_to_unit(backend, x, y)
    f, g = _factor(backend, x), _factor(backend, y)
    length = backend.norm(_shift(backend, x, y))
    scale = factored.size(backend, f, g) ** 2 + length**2
    noise = factored.rounding(backend, factored.squared_gradients(backend, f, g), f, g) + backend.eps(x) * scale
    noise = noise + 2 * backend.eps(x) * length * sum(backend.norm(_mean(backend, z)) for z in (x, y))
    exact = _distance(backend, y, x) ** 2
    return residual_of_number(backend, value[0], exact, noise, scale, 2 * e)


def frechet_distance_of_samples(X: ArrayLike[T], Y: ArrayLike[T], *, errors: str = "raise") -> T:
    """Compute the squared Fréchet distance of the Gaussians of two sets of samples, as in the FID.

    ``frechet_distance(mu1, A, mu2, B)`` for the means and covariances of the samples X and Y. For fewer samples than
    features this takes no n × n matrix.

    Parameters
    ----------
    X : array_like (..., k, n)
        Samples, of dtype float32, float64, complex64 or complex128: each row is one, with n features. At least 2.
    Y : array_like (..., m, n)
        The other samples, with the same features.
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
        If X or Y has fewer than 2 samples, if the result overflows, or a member holds NaN or infinity; and
        ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, or the arrays lie on different devices.
    TypeError
        If X or Y is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    frechet_distance : The same for means and covariances.
    bures_distance_of_factors : Of equal means, for any factors of the covariances.

    Notes
    -----
    The covariance of N samples is the sum of their squares after centring, divided by N - 1, as in `numpy.cov` and
    pytorch-fid. The centred samples are a factor of it, and the last term of the distance [1]_ is the sum of the
    singular values of one k × m product. For more samples than features the factor is the triangular one of a QR
    decomposition, which is more accurate than the covariance, and takes longer. The distance of Gaussians of few
    samples is biased upwards: compare values for equal numbers of samples only.

    The gradient in X is finite for any samples, and 0 where X = Y. Second derivatives exist where small changes of
    the samples do not change the ranks of the covariances. A member of a batch gives the same bits as in a call by
    itself. Under ``jax.jit`` no error can be raised: a member without an answer is NaN.

    The backward error of `certify` is the difference from the distance of Y from X, relative to the sum of the traces of
    the covariances and ‖mu1 - mu2‖². The forward error adds the effect of rounding of X and Y.

    References
    ----------
    .. [1] D. C. Dowson and B. V. Landau, "The Fréchet distance between multivariate normal distributions", J.
       Multivariate Anal. 12(3), 1982, pp. 450-455, doi:10.1016/0047-259X(82)90077-X.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import frechet_distance, frechet_distance_of_samples
    >>> rng = np.random.default_rng(0)
    >>> X, Y = rng.standard_normal((20, 100)), 2 + rng.standard_normal((30, 100))
    >>> d2 = frechet_distance_of_samples(X, Y)
    >>> bool(abs(d2 - frechet_distance(X.mean(0), np.cov(X.T), Y.mean(0), np.cov(Y.T))) < 1e-10 * d2)
    True
    """
    return FRECHET_DISTANCE_OF_SAMPLES(X, Y, errors=errors)


FRECHET_DISTANCE_OF_SAMPLES = public_function(
    frechet_distance_of_samples,
    "(k,n),(m,n)->()",
    solve=_solve,
    residual=_residual,
    tangent=_tangent,
    cotangent=_cotangent,
    kinds=("real",),
)
