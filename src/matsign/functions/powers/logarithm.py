"""The principal logarithm of a matrix.  dX = L(A, dA), the Fréchet derivative (`power_derivatives`)."""

from __future__ import annotations

from functools import partial

from matsign._typing import ArrayLike, T
from matsign.core.public import public_function
from matsign.functions.powers.power_certificates import logarithm_residual
from matsign.functions.powers.power_derivatives import function_cotangent, function_tangent
from matsign.functions.powers.power_methods import METHODS, matrix_function
from matsign.linalg.scalar_powers import LOGARITHM


def logm(A: ArrayLike[T], *, rtol: float | None = None, method: str = "auto", errors: str = "raise") -> T:
    """Compute the principal logarithm of a matrix.

    X = log A: exp(X) = A, and the imaginary parts of the eigenvalues of X lie between -π and π.

    Parameters
    ----------
    A : array_like (..., n, n)
        Nonsingular square matrices of dtype float32, float64, complex64 or complex128; real ones without eigenvalues on
        the negative real axis.
    rtol : float, optional
        A matrix with a singular value of at most ``rtol`` times the largest one is singular. Default: n eps.
    method : {"auto", "newton", "eigh", "schur"}, default "auto"
        How the logarithm is computed:

        - "eigh": by eigenvectors, for Hermitian A.
        - "schur": by square roots of the Schur form and a Padé approximant [1]_, on the CPU.
        - "newton": by a power series, by products alone, where the eigenvalues lie in a disc clear of zero, else by that of
          Newton's square roots, by inverses and products. A member that loses digits or, on a CPU, needs many roots is
          solved by "schur".
        - "auto": "eigh" for Hermitian members, "newton" for others.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no logarithm: raise `SpectrumError`, or return NaN for that member and
        the right result for the others.

    Returns
    -------
    X : array (..., n, n)
        The logarithms, in the library, on the device and in the dtype of A. The logarithm of a real matrix is real.

    Raises
    ------
    SpectrumError
        If A is singular, if a real A has an eigenvalue on the negative real axis, or within rounding of it, or if a
        member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a shape does not fit, or an option has a value other than those above.
    TypeError
        If A is not a dense array of numbers of a supported dtype.

    See Also
    --------
    fractional_matrix_power : Real powers.
    scipy.linalg.logm : SciPy's.

    Notes
    -----
    A complex matrix may have eigenvalues on the negative real axis: their logarithms have the imaginary part π. A real
    matrix with such an eigenvalue has no real principal logarithm; convert it to a complex dtype for the complex one.

    The derivative is the Fréchet derivative, to any order, also at repeated eigenvalues. A member of a batch gives the
    same bits as in a call by itself, but for symmetric ones as `fractional_matrix_power` says. Under ``jax.jit`` no error
    can be raised: a member without a logarithm is NaN.

    The backward error of `certify` is ‖exp(X) - A‖ / (‖exp(X)‖ + ‖A‖), in the scaling that gives A the size 1.

    References
    ----------
    .. [1] A. H. Al-Mohy and N. J. Higham, "Improved inverse scaling and squaring algorithms for the matrix logarithm",
       SIAM J. Sci. Comput. 34, 2012, pp. C153-C169, doi:10.1137/110852553.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import logm
    >>> rotation = np.array([[0.0, -1.0], [1.0, 0.0]])
    >>> bool(np.linalg.norm(logm(rotation) - np.pi / 2 * rotation) < 1e-14)
    True
    """
    return LOGM(A, rtol=rtol, method=method, errors=errors)


LOGM = public_function(
    logm,
    "(n,n)->(n,n)",
    solve=partial(matrix_function, power=LOGARITHM),
    residual=logarithm_residual,
    tangent=lambda backend, value, arrays, tangents, **o: function_tangent(
        backend, arrays, tangents, power=LOGARITHM, **o
    ),
    cotangent=lambda backend, value, arrays, cotangents, **o: function_cotangent(
        backend, arrays, cotangents, power=LOGARITHM, **o
    ),
    choices={"method": METHODS},
    neutral={"n": 1.0},
)
