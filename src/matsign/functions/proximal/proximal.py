"""Clipping and soft thresholding of singular values: mclip and soft_threshold.

Without singular vectors they come from projectors, and these from signs. With M = O H (`polar`), R = (I + sign(H - t I))/2 and
P = I - R,

    soft(M, t) = O R (H - t I) R,        clip(M, 0, u) = O (u I + P (H - u I) P),
    clip(M, l, u) = l msign(M) + soft(M, l) - soft(M, u).

The projectors stand on both sides, so that an error of R enters squared, and not at all where σ = t. `proximal_derivatives` has
the differentials.
"""

from __future__ import annotations

from matsign._typing import ArrayLike, NumberLike, T
from matsign.core.public import public_function
from matsign.functions.proximal.certificates import clip_residual, soft_residual
from matsign.functions.proximal.derivatives import clip_cotangent, clip_tangent, soft_cotangent, soft_tangent
from matsign.functions.proximal.methods import METHODS, check_interval, solve_clip, solve_soft


def mclip(
    M: ArrayLike[T],
    lower: NumberLike[T] = 0.0,
    upper: NumberLike[T] = 1.0,
    *,
    rtol: float | None = None,
    method: str = "auto",
    errors: str = "raise",
) -> T:
    """Clip the singular values of M to an interval.

    mclip(M) = U min(max(S, lower), upper) Vᴴ for the singular value decomposition M = U S Vᴴ; the singular vectors do
    not change. With ``lower=0`` this is the matrix nearest to M, in the Frobenius norm, of spectral norm at most
    ``upper``.

    Parameters
    ----------
    M : array_like (..., n, m)
        Matrices of any shape and rank, of dtype float32, float64, complex64 or complex128. Matrices in float16 and
        bfloat16 are computed in float32.
    lower : float or array_like (...), default 0.0
        The smallest singular value of the result, at least 0: one number, or an array with one for every member, whose
        axes broadcast with the leading axes of M. Arrays are converted to the precision of M.
    upper : float or array_like (...), default 1.0
        The largest singular value of the result, at least ``lower``; it may be infinite.
    rtol : float, optional
        Where lower > 0, a singular value of at most ``rtol`` times the largest one counts as zero and stays zero,
        because rounding has decided its singular vectors. With lower = 0 it has no effect. Default: max(n, m) eps.
    method : {"auto", "svd", "sign"}, default "auto"
        How the result is computed:

        - "svd": by a singular value decomposition in double precision; results in float32 are then right to the last
          digits.
        - "sign": by matrix products alone, with the projector (I - sign(H - upper I))/2 on the singular values below
          ``upper``, where M = O H is the polar decomposition; in the spirit of [1]_, but with the projector on both
          sides.
        - "auto": "svd" on a CPU, "sign" on an accelerator.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no answer: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    X : array (..., n, m)
        The matrices with clipped singular values, in the library, on the device and in the dtype of M.

    Raises
    ------
    SpectrumError
        If thresholds in arrays do not satisfy 0 ≤ lower ≤ upper, or a member holds NaN or infinity, and
        ``errors="raise"``.
    ValueError
        If thresholds that are numbers do not satisfy 0 ≤ lower ≤ upper, a shape does not fit, or an option has a value
        other than those above.
    TypeError
        If M is not a dense array of numbers of a supported dtype, or a threshold in an array is not real.

    See Also
    --------
    soft_threshold : Subtract a threshold from the singular values.
    msign : Replace all singular values by 1.
    psd_project : Clip the eigenvalues of a Hermitian matrix at 0.

    Notes
    -----
    On a CPU one singular value decomposition is several times as fast as two signs. On an accelerator the signs are
    products.

    With lower = 0, singular values that are zero to working precision stay zero even where ``upper`` is below max(n, m)
    eps times the largest one.

    Derivatives, also those by the thresholds, exist to any order where no singular value is at a threshold; one that
    equals a threshold up to rounding is treated as if it were above it. With lower = 0 they exist at every rank; with
    lower > 0 see the notes of `msign` for zero singular values. A member of a batch gives the same bits as in a call by
    itself. Under ``jax.jit`` no error can be raised: a member without an answer is NaN.

    The backward error of `certify` is ‖X + soft(M, upper) - M‖ / (‖X‖ + ‖soft(M, upper)‖ + ‖M‖); with lower > 0 it is
    the same for the equation X = lower msign(M) + soft(M, lower) - soft(M, upper).

    References
    ----------
    .. [1] J. Su, "Singular value clipping mclip by msign, part 1" (in Chinese), 2025, https://kexue.fm/archives/11006.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import mclip
    >>> M = np.array([[3.0, 0.0], [4.0, 0.0], [0.0, 0.25]])
    >>> X = mclip(M, 0.0, 1.0)
    >>> X.round(12)
    array([[0.6 , 0.  ],
           [0.8 , 0.  ],
           [0.  , 0.25]])
    >>> bool(np.linalg.norm(mclip(X) - X) < 1e-15)
    True
    """
    return MCLIP(M, lower=lower, upper=upper, rtol=rtol, method=method, errors=errors)


MCLIP = public_function(
    mclip,
    "(n,m)->(n,m)",
    check=check_interval,
    solve=solve_clip,
    residual=clip_residual,
    tangent=clip_tangent,
    cotangent=clip_cotangent,
    choices={"method": METHODS},
    halves=True,
    numbers=("lower", "upper"),
)


def soft_threshold(M: ArrayLike[T], t: NumberLike[T], *, method: str = "auto", errors: str = "raise") -> T:
    """Subtract a threshold from the singular values of M.

    soft(M, t) = U max(S - t, 0) Vᴴ for the singular value decomposition M = U S Vᴴ. This is the X that minimises ‖X -
    M‖²/2 + t ‖X‖ with the Frobenius norm first and the nuclear norm second: the proximal step of matrix completion and
    of robust principal component analysis [1]_.

    Parameters
    ----------
    M : array_like (..., n, m)
        Matrices of any shape and rank, of dtype float32, float64, complex64 or complex128. Matrices in float16 and
        bfloat16 are computed in float32.
    t : float or array_like (...)
        The threshold, at least 0: one number, or an array with one for every member, whose axes broadcast with the
        leading axes of M. Arrays are converted to the precision of M.
    method : {"auto", "svd", "sign"}, default "auto"
        How the result is computed; the methods are those of `mclip`, with ``t`` as the threshold.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no answer: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    X : array (..., n, m)
        The matrices with reduced singular values, in the library, on the device and in the dtype of M.

    Raises
    ------
    SpectrumError
        If a threshold in an array is negative or NaN, or a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a threshold that is a number is negative, a shape does not fit, or an option has a value other than those
        above.
    TypeError
        If M is not a dense array of numbers of a supported dtype, or a threshold in an array is not real.

    See Also
    --------
    mclip : Clip the singular values.
    psd_project : Clip the eigenvalues of a Hermitian matrix at 0.

    Notes
    -----
    The two thresholds complement each other: ``soft_threshold(M, t) + mclip(M, 0, t)`` is M.

    Derivatives, also those by t, exist at every rank and to any order where no singular value is at t; one that equals
    t up to rounding is treated as if it were above it. A member of a batch gives the same bits as in a call by itself.
    Under ``jax.jit`` no error can be raised: a member without an answer is NaN.

    The backward error of `certify` is ‖X + clip(M, 0, t) - M‖ / (‖X‖ + ‖clip(M, 0, t)‖ + ‖M‖).

    References
    ----------
    .. [1] J.-F. Cai, E. J. Candès and Z. Shen, "A singular value thresholding algorithm for matrix completion", SIAM J.
       Optim. 20(4), 2010, pp. 1956-1982, doi:10.1137/080738970.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import mclip, soft_threshold
    >>> M = np.array([[3.0, 0.0], [4.0, 0.0], [0.0, 0.25]])
    >>> X = soft_threshold(M, 1.0)
    >>> X.round(12)
    array([[2.4, 0. ],
           [3.2, 0. ],
           [0. , 0. ]])
    >>> bool(np.linalg.norm(X + mclip(M, 0.0, 1.0) - M) < 1e-14)
    True
    """
    return SOFT_THRESHOLD(M, t=t, method=method, errors=errors)


SOFT_THRESHOLD = public_function(
    soft_threshold,
    "(n,m)->(n,m)",
    solve=solve_soft,
    residual=soft_residual,
    tangent=soft_tangent,
    cotangent=soft_cotangent,
    choices={"method": METHODS},
    halves=True,
    numbers=("t",),
)
