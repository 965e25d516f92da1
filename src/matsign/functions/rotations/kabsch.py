"""Weighted alignment of point sets by a rotation and a translation, q ≈ R p + t: the algorithm of Kabsch.

With weights of sum 1, centres p₀ and q₀, x = p - p₀ and y = q - q₀,

    R = nearest_rotation(M),  M = Σ w y xᵀ,     t = q₀ - R p₀,     rmsd² = Σ w |r|²,  r = R x - y.

`kabsch_derivatives` has the differential. Sources: Kabsch 1976, 1978, Umeyama 1991.
"""

from __future__ import annotations

from typing import NamedTuple

from matsign._typing import Array, ArrayLike, Generic, OptionalArrayLike, T
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.members import Solution, overflow_failure, solution
from matsign.core.public import Residual, public_function
from matsign.core.tolerances import rank_tolerance
from matsign.functions.rotations.kabsch_derivatives import (
    PointSets,
    center,
    kabsch_cotangent,
    kabsch_tangent,
    residuals,
    scale_by_power,
    translation,
    weighted_norm,
)
from matsign.functions.rotations.rotation_certificates import residual_of_nearest
from matsign.functions.rotations.rotation_methods import nearest_rotations
from matsign.linalg.stacks import adjoint, broadcast_to_rank, safe_divisor, scale_to_unit, to_double


class Alignment(NamedTuple, Generic[T]):
    """Hold the motion that brings one point set nearest to another.

    The result of `kabsch`: a named tuple for ``P @ rotation.T + translation``, which is near to Q.

    Attributes
    ----------
    rotation : array (..., d, d)
        The rotation: q ≈ rotation p + translation for points p and q as columns.
    translation : array (..., d)
        The translation.
    rmsd : array (...)
        The root of the weighted mean of the squared distances that remain.

    See Also
    --------
    kabsch : Compute it.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import kabsch
    >>> P = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    >>> alignment = kabsch(P, P + 5.0)
    >>> alignment._fields
    ('rotation', 'translation', 'rmsd')
    >>> alignment.translation.round(12).tolist(), bool(alignment.rmsd < 1e-14)
    ([5.0, 5.0, 5.0], True)
    """

    rotation: T
    translation: T
    rmsd: T


def _kabsch(backend: Backend, p: Array, q: Array, weights: Array | None, *, rtol: float | None) -> Solution:
    sets = center(backend, p, q, weights)
    m, _ = scale_to_unit(backend, sets.m)
    r = nearest_rotations(backend, to_double(backend, m), rank_tolerance(backend, m, rtol))
    r = backend.astype(r, backend.dtype_name(m))
    t, rmsd = translation(backend, sets, r), _rmsd(backend, sets, r)
    result = solution(backend, (r, t, rmsd))
    failure = overflow_failure(backend, backend.xp.concat([t, rmsd[:, None]], axis=-1)[:, :, None], result.failure)
    if weights is not None:
        least, total = backend.xp.min(weights, axis=-1), sets.total
        result = solution(backend, result.value, Failure.WEIGHTS, ~((least >= 0) & (total > 0)), detail=least)
        failure = backend.xp.where(result.failure > 0, result.failure, failure)
    return result._replace(failure=failure)


def _rmsd(backend: Backend, sets: PointSets, r: Array) -> Array:
    return backend.ldexp(weighted_norm(backend, sets, residuals(backend, sets, r)), sets.e)


def _residual(
    backend: Backend, value: tuple[Array, Array, Array], p: Array, q: Array, weights: Array | None
) -> Residual:
    """That of the nearest rotation; the gap of the translation beside the centres, and of the rmsd beside the radii.

    Lengths are in units of 2^e, in which their squares neither overflow nor underflow.
    """
    (r, t, rmsd), xp, s = value, backend.xp, center(backend, p, q, weights)
    radius_p, radius_q = weighted_norm(backend, s, s.x), weighted_norm(backend, s, s.y)
    size_p, size_q = weighted_norm(backend, s, s.x + s.p0), weighted_norm(backend, s, s.y + s.q0)
    of_r = residual_of_nearest(backend, r, s.m, size_p * radius_q + radius_p * size_q, rotation=True)
    turned = scale_by_power(backend, s.p0 @ adjoint(of_r.correction[0]), s.e_p - s.e)[:, 0, :]
    size = backend.ldexp(size_p, s.e_p - s.e) + backend.ldexp(size_q, s.e_q - s.e)
    backward, correction = of_r.backward, [of_r.correction[0]]
    exact = translation(backend, s, r), _rmsd(backend, s, r)
    for x, y, step in ((t, exact[0], abs(turned)), (rmsd, exact[1], 0 * size)):
        e = broadcast_to_rank(s.e, x)
        x, gap = backend.ldexp(x, -e), backend.ldexp(x - y, -e)
        backward = xp.maximum(backward, backend.norm(gap) / safe_divisor(backend, size))
        length = backend.norm(x)
        share = xp.where(length > 0, length / safe_divisor(backend, size), 1 + 0 * length)
        error = abs(gap) + step + broadcast_to_rank(backend.eps(r) * size, x)
        correction.append(backend.ldexp(broadcast_to_rank(share, x) * error, e))
    size = backend.ldexp(size, s.e)
    separation = backend.ldexp(of_r.separation, s.e_p + s.e_q)
    return Residual(backward, tuple(correction), separation, zero=(r, size, size))


def kabsch(
    P: ArrayLike[T],
    Q: ArrayLike[T],
    weights: OptionalArrayLike[T] = None,
    *,
    rtol: float | None = None,
    errors: str = "raise",
) -> Alignment[T]:
    """Align point sets by a rotation and a translation.

    R and t minimise Σ wᵢ ‖R pᵢ + t - qᵢ‖² over all rotations R, of determinant 1, and translations t [1]_, [2]_: rigid
    bodies and molecules are not mirrored.

    Parameters
    ----------
    P : array_like (..., k, d)
        Real points pᵢ as rows, of dtype float32 or float64.
    Q : array_like (..., k, d)
        The points qᵢ to which they belong, in the same order.
    weights : array_like (..., k), optional
        Numbers wᵢ of at least 0, not all 0. Only their ratios matter. Default: 1 for each point.
    rtol : float, optional
        A singular value of the covariance of the points of at most ``rtol`` times the largest one counts as zero.
        Default: d eps.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no answer: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    rotation : array (..., d, d)
        The rotation R of points as columns: ``P @ rotation.mT + translation`` is near to Q.
    translation : array (..., d)
        The translation t; for several sets write ``translation[..., None, :]`` in that sum.
    rmsd : array (...)
        The root of Σ wᵢ ‖R pᵢ + t - qᵢ‖² / Σ wᵢ. The three are the fields of the named tuple `Alignment`.

    Raises
    ------
    SpectrumError
        If a weight is negative or all are 0, the result overflows, or a member holds NaN or infinity; and
        ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, or the arrays lie on different devices.
    TypeError
        If an argument is not a dense array of real numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    nearest_rotation : The rotation from the covariance Σ wᵢ (qᵢ - q₀)(pᵢ - p₀)ᵀ.
    procrustes : The best orthogonal or unitary matrix, without translation.
    scipy.spatial.transform.Rotation.align_vectors : SciPy's, for one pair of centred sets of three-dimensional points.

    Notes
    -----
    Points in a plane have one best rotation, too. Where several rotations are best, as for points on a line, for one
    point, or for a mirror image of a symmetric body, the choice is that of `nearest_rotation`: the one by the smallest
    angle. The residuals are summed as they are, so that the rmsd has all its digits where it is small.

    Derivatives of the rotation and the translation exist to any order where the rotation is unique, also at repeated
    singular values; elsewhere they are NaN. That of the rmsd exists where it is positive, and is returned as 0 where it
    is 0 to rounding. A member of a batch gives the same bits as in a call by itself. Under ``jax.jit`` no error can be
    raised: a member without an answer is NaN.

    The backward error of `certify` is the largest of that of `nearest_rotation` for the covariance, and of the errors of
    translation and rmsd relative to the sizes of the sets. The forward error is the largest of the relative error of
    the rotation and of the errors of the other two relative to these sizes, because both may be 0. The separation is
    that of `nearest_rotation`.

    References
    ----------
    .. [1] W. Kabsch, "A discussion of the solution for the best rotation to relate two sets of vectors", Acta Cryst.
       A34, 1978, pp. 827-828, doi:10.1107/S0567739478001680.
    .. [2] S. Umeyama, "Least-squares estimation of transformation parameters between two point patterns", IEEE Trans.
       Pattern Anal. Mach. Intell. 13(4), 1991, pp. 376-380, doi:10.1109/34.88573.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import kabsch
    >>> P = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 3.0]])
    >>> turn = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    >>> R, t, rmsd = kabsch(P, P @ turn.T + [1.0, 2.0, 3.0])
    >>> bool(np.linalg.norm(R - turn) < 1e-14), t.round(12).tolist(), bool(rmsd < 1e-14)
    (True, [1.0, 2.0, 3.0], True)
    """
    return KABSCH(P, Q, weights, rtol=rtol, errors=errors)


KABSCH = public_function(
    kabsch,
    "(k,d),(k,d),(k)->(d,d),(d),()",
    solve=_kabsch,
    residual=_residual,
    tangent=kabsch_tangent,
    cotangent=kabsch_cotangent,
    wrap=lambda backend, *parts: Alignment(*parts),
    real_only="a rotation is a real matrix; procrustes takes complex points",
)
