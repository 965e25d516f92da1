"""The rotation nearest to a square matrix: the msign whose determinant is +1.

For M = U S Vᵀ with singular values σ₁ ≥ … ≥ σₙ and d = det(U Vᵀ), it is

    R = U diag(1, …, 1, d) Vᵀ,

which maximises tr(RᵀM), so that RᵀM is symmetric with the eigenvalues σ₁, …, σₙ₋₁, d σₙ. It is unique where σₙ₋₁ + d σₙ > 0.
`rotation_methods` has the choice where it is not, `rotation_derivatives` the differential. Sources: Kabsch 1978, Umeyama 1991.
"""

from __future__ import annotations

from matsign._typing import Array, ArrayLike, T
from matsign.backends import Backend
from matsign.core.members import Solution, solution
from matsign.core.public import public_function
from matsign.core.tolerances import rank_tolerance
from matsign.functions.rotations.rotation_certificates import rotation_residual
from matsign.functions.rotations.rotation_derivatives import rotation_tangent
from matsign.functions.rotations.rotation_methods import nearest_rotations
from matsign.linalg.stacks import scale_to_unit, to_double


def _nearest_rotation(backend: Backend, m: Array, *, rtol: float | None) -> Solution:
    zero, kind = rank_tolerance(backend, m, rtol), backend.dtype_name(m)
    scaled, _ = scale_to_unit(backend, m)
    r = nearest_rotations(backend, to_double(backend, scaled), zero)
    return solution(backend, (backend.astype(r, kind),))


def nearest_rotation(M: ArrayLike[T], *, rtol: float | None = None, errors: str = "raise") -> T:
    """Compute the rotation nearest to a real square matrix.

    R minimises ‖M - R‖ over all real R with RᵀR = I and det R = 1. It is msign(M) where the determinant of M is
    positive; else the singular vectors of the smallest singular value enter with the other sign [1]_, [2]_.

    Parameters
    ----------
    M : array_like (..., n, n)
        Real square matrices of any rank, of dtype float32 or float64.
    rtol : float, optional
        A singular value of at most ``rtol`` times the largest one counts as zero. Default: n eps.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no answer: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    R : array (..., n, n)
        The rotations, in the library, on the device and in the dtype of M.

    Raises
    ------
    SpectrumError
        If a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a shape does not fit, or an option has a value other than those above.
    TypeError
        If M is not a dense array of real numbers of a supported dtype.

    See Also
    --------
    msign : The nearest matrix with orthonormal rows or columns, of any determinant.
    polar : Also return the symmetric factor.

    Notes
    -----
    Let σ₁ ≥ … ≥ σₙ be the singular values of M, and d = ±1 the sign of the determinant of M (for a singular M, d σₙ is
    0). The nearest rotation is unique where σₙ₋₁ + d σₙ > 0, so also for M of rank n - 1, as from points in a plane.
    Where the rank is below n - 1, as from points on a line, the result is, of all nearest rotations, the one nearest to
    I: the rotation by the smallest angle. If several of these are equally near to I, as between opposite directions, a
    fixed rule takes one of them, which prefers axes of small index to be kept. Where σₙ₋₁ = σₙ > 0 and d = -1, as for
    a mirror image of a symmetric body, the result is one of the nearest rotations, which depends on rounding.

    Derivatives exist to any order where the rotation is unique, also at repeated singular values; elsewhere they are
    NaN. The condition number is 2‖M‖ / (√n (σₙ₋₁ + d σₙ)). A member of a batch gives the same bits as in a call by
    itself. Under ``jax.jit`` no error can be raised: a member without an answer is NaN.

    Complex matrices are refused: `msign` of a complex matrix is the nearest unitary one, and for the nearest one of
    determinant 1 there is no closed formula.

    The backward error of `certify` is the largest of ‖M - R S‖ / (2‖M‖) with S the symmetric part of RᵀM, ‖RᵀR - I‖ / (2√n),
    \\|det R - 1\\|, and the size of a negative sum of two eigenvalues of S, relative to the largest one, with which R would not
    be nearest. The separation is σₙ₋₁ + d σₙ.

    References
    ----------
    .. [1] W. Kabsch, "A discussion of the solution for the best rotation to relate two sets of vectors", Acta Cryst.
       A34, 1978, pp. 827-828, doi:10.1107/S0567739478001680.
    .. [2] S. Umeyama, "Least-squares estimation of transformation parameters between two point patterns", IEEE Trans.
       Pattern Anal. Mach. Intell. 13(4), 1991, pp. 376-380, doi:10.1109/34.88573.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import nearest_rotation
    >>> M = np.diag([3.0, 2.0, -1.0])  # msign(M) is a reflection
    >>> nearest_rotation(M).round(12)
    array([[1., 0., 0.],
           [0., 1., 0.],
           [0., 0., 1.]])
    >>> line = np.outer([0.0, 1.0, 0.0], [1.0, 0.0, 0.0])  # from the first axis to the second one
    >>> nearest_rotation(line).round(12) + 0.0
    array([[ 0., -1.,  0.],
           [ 1.,  0.,  0.],
           [ 0.,  0.,  1.]])
    """
    return NEAREST_ROTATION(M, rtol=rtol, errors=errors)


NEAREST_ROTATION = public_function(
    nearest_rotation,
    "(n,n)->(n,n)",
    solve=_nearest_rotation,
    residual=rotation_residual,
    tangent=rotation_tangent,
    cotangent=rotation_tangent,
    real_only="a rotation is a real matrix; msign is the nearest unitary one",
)
