"""Spectral projectors of half planes, of M and of pencils (M, S), as density matrices.

The differential is in `projector_derivatives`.
"""

from __future__ import annotations

from matsign._typing import ArrayLike, NumberLike, OptionalArrayLike, T
from matsign.core.public import public_function
from matsign.functions.projectors.projector_certificates import projector_residual
from matsign.functions.projectors.projector_derivatives import projector_cotangent, projector_tangent
from matsign.functions.projectors.projector_methods import check_count, check_line, solve_projector
from matsign.functions.sign.methods import METHODS


def spectral_projector(
    M: ArrayLike[T],
    overlap: OptionalArrayLike[T] = None,
    at: NumberLike[T] | None = None,
    *,
    lowest: int | None = None,
    half_plane: str | None = None,
    tol: float | None = None,
    rtol: float | None = None,
    method: str = "auto",
    errors: str = "raise",
) -> T:
    """Compute the spectral projector of an open half plane.

    The range of P is the invariant subspace of M for the eigenvalues in the half plane right or left of the line Re λ =
    at, its null space that for all other eigenvalues. P = (Z² ± Z)/2 with Z = mcsgn(M - at I).

    Parameters
    ----------
    M : array_like (..., n, n)
        Square matrices of dtype float32, float64, complex64 or complex128.
    overlap : array_like (..., n, n), optional
        The overlap matrices S of a basis, Hermitian positive definite. The eigenvalues are then those of M c = λ S c,
        and the result is the density matrix D with D S D = D: the projector times S⁻¹. Default: I.
    at : float or array_like (...), optional
        The line: one real number, or an array with one for every member, whose axes broadcast with the leading axes of
        M. Default: 0, the imaginary axis.
    lowest : int, optional
        Project on this many of the lowest eigenvalues, of Hermitian M, in place of those on one side of a given line.
    half_plane : {"right", "left"}, optional
        The half plane: eigenvalues with a real part larger than ``at``, or smaller. Default: "right", or "left" with
        ``lowest``.
    tol : float, optional
        The accuracy asked of ``method="polynomial"``. Default: the rounding of the dtype.
    rtol : float, optional
        A singular value of M - at I of at most ``rtol`` times the largest one, after balancing, counts as zero.
        Default: n eps.
    method : {"auto", "newton", "polynomial", "schur", "eigh"}, default "auto"
        How the sign is computed; the methods are those of `mcsgn`. With ``lowest`` it is "eigh".
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no answer: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    P : array (..., n, n)
        The projectors, or with ``overlap`` the density matrices, in the library, on the device and in the dtype of M.

    Raises
    ------
    SpectrumError
        As for `mcsgn`: if an eigenvalue other than ``at`` lies on the line to working precision, or rounding decides
        whether an eigenvalue equals ``at``; if ``at`` in an array is not finite, ``overlap`` is not positive definite
        to working precision, the lowest eigenvalues are not determined because the next one equals the last of them to
        working precision, or M is not Hermitian with ``lowest``; or if a member holds NaN or infinity; and
        ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, options exclude each other, the arrays
        lie on different devices, or ``overlap`` in NumPy arrays is not Hermitian.
    TypeError
        If M is not a dense array of numbers of a supported dtype, ``at`` in an array is not real, or the arrays belong
        to different libraries.

    See Also
    --------
    mcsgn : The sign.
    invsqrtm : The orthonormal basis of Löwdin.
    scipy.linalg.eigh : SciPy's eigenvectors of (M, S).

    Notes
    -----
    The equations are P² = P and P M = M P. tr(P), the sum of its diagonal, is the number of eigenvalues in the half
    plane. An eigenvalue that equals ``at`` belongs to neither half plane: the result is that of M - at I, without an
    overlap.

    In electronic structure, ``spectral_projector(H, at=mu, half_plane="left")`` is the density matrix: the projector on
    the occupied orbitals, those below the chemical potential mu, without a factor for spin. With an overlap, the
    equations are::

        D S D = D,    S D H = H D S,

    and D is the sum of c cᴴ over the occupied eigenvectors H c = λ S c with cᴴ S c = 1, as in the programs of quantum
    chemistry [1]_: tr(D S) is the number of electrons and tr(D H) their energy. D S projects on the occupied
    eigenvectors, and I - 2 D S is the sign of S⁻¹H - mu I. S must not be nearly singular: errors grow with its
    condition number.

    The cost is that of `mcsgn` and one product; an overlap adds a Cholesky factorisation, an inverse and four
    products. With ``lowest`` it is that of all eigenvectors. Derivatives by M and ``overlap``, batches and ``jax.jit`` are
    as for `mcsgn`. Derivatives by ``at`` are zero. An array ``at`` may be traced by ``jax.jit``.

    The backward error of `certify` is the larger of ‖P M - M P‖ / (2 ‖P‖ ‖M‖) and ‖P² - P‖ / (‖P‖² + ‖P‖), with M - at I
    for M, in the scaling that balances it; with an overlap the larger of ‖S D M - M D S‖ / (2 ‖S‖ ‖D‖ ‖M‖) and
    ‖D S D - D‖ / (‖D‖² ‖S‖ + ‖D‖), in a scaling that brings the diagonal of S near 1.

    References
    ----------
    .. [1] R. McWeeny, "Some recent advances in density matrix theory", Rev. Mod. Phys. 32, 1960, pp. 335-369,
       doi:10.1103/RevModPhys.32.335.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import spectral_projector
    >>> M = np.array([[4.0, 3.0], [0.0, -2.0]])
    >>> P = spectral_projector(M)
    >>> P
    array([[1. , 0.5],
           [0. , 0. ]])
    >>> bool(np.linalg.norm(P @ P - P) + np.linalg.norm(P @ M - M @ P) < 1e-14)
    True

    A molecule with two levels, of which one is occupied:

    >>> H, S = np.array([[0.0, -1.0], [-1.0, 0.0]]), np.array([[1.0, 0.25], [0.25, 1.0]])
    >>> D = spectral_projector(H, S, at=0.5, half_plane="left")
    >>> D.round(12)
    array([[0.4, 0.4],
           [0.4, 0.4]])
    >>> bool(np.linalg.norm(D - spectral_projector(H, S, lowest=1)) < 1e-14)
    True
    """
    return SPECTRAL_PROJECTOR(
        M, overlap, at=at, lowest=lowest, half_plane=half_plane, tol=tol, rtol=rtol, method=method, errors=errors
    )


SPECTRAL_PROJECTOR = public_function(
    spectral_projector,
    "(n,n),(n,n)->(n,n)",
    solve=solve_projector,
    residual=projector_residual,
    tangent=projector_tangent,
    cotangent=projector_cotangent,
    choices={"method": METHODS, "half_plane": (None, "left", "right")},
    numbers=("at",),
    signed=("at",),
    hermitian=("overlap",),
    check=check_line,
    sizes=check_count,
)
