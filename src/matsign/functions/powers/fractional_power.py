"""Real powers A^t of a matrix.  dX = L(A, dA), the Fréchet derivative (`power_derivatives`)."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from matsign._typing import Array, ArrayLike, Arrays, T
from matsign.backends import Backend
from matsign.core.members import Solution
from matsign.core.options import real_number, short_repr
from matsign.core.public import Residual, public_function
from matsign.functions.powers.clipped_eigenvalues import CLIPPED, tells_clipped
from matsign.functions.powers.power_certificates import is_singular, power_residual
from matsign.functions.powers.power_derivatives import function_cotangent, function_tangent
from matsign.functions.powers.power_methods import METHODS, matrix_function
from matsign.linalg.scalar_powers import exponent


def _check(*, t: Any, **_: Any) -> None:
    if isinstance(t, bool) or not math.isfinite(real_number(t)):
        raise ValueError(f"fractional_matrix_power: t must be a finite real number, got {short_repr(t)}")


def _solve(backend: Backend, a: Array, *, t: float, rtol: float | None, method: str) -> Solution:
    return matrix_function(backend, a, power=exponent(t), rtol=rtol, method=method)


def _residual(backend: Backend, value: tuple[Array], a: Array, *, t: float, rtol: float | None) -> Residual:
    return power_residual(backend, value[0], a, t=Fraction(float(t)), rtol=rtol)


def _tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, t: float, **options: Any) -> Arrays:
    return function_tangent(backend, arrays, tangents, power=exponent(t), **options)


def _cotangent(
    backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, t: float, **options: Any
) -> Arrays:
    return function_cotangent(backend, arrays, cotangents, power=exponent(t), **options)


def _is_unbounded(backend: Backend, value: Arrays, a: Array, *, t: float) -> Array:
    singular = is_singular(backend, a)
    return singular & (t < 1) & (t != 0)


def fractional_matrix_power(
    A: ArrayLike[T], t: float, *, rtol: float | None = None, method: str = "auto", errors: str = "raise"
) -> T:
    """Compute a real power of a matrix.

    X = A^t, on the principal branch: an eigenvalue r exp(iφ) of A with -π < φ ≤ π becomes r^t exp(i t φ).

    Parameters
    ----------
    A : array_like (..., n, n)
        Square matrices of dtype float32, float64, complex64 or complex128. Unless t is an integer, real ones must have
        no eigenvalue on the negative real axis. Matrices in float16 and bfloat16 are computed in float32.
    t : float
        The exponent, any finite real number.
    rtol : float, optional
        A singular value of at most ``rtol`` times the largest one counts as zero. Default: n eps.
    method : {"auto", "newton", "eigh", "schur"}, default "auto"
        How the power is computed:

        - "eigh": by eigenvectors, for Hermitian A.
        - "schur": by square roots of the Schur form, a Padé approximant and squarings [1]_ [2]_, on the CPU.
        - "newton": by a power series, by products alone, where the eigenvalues lie in a disc clear of zero, else by that of
          Newton's square roots, by inverses and products. A member that loses digits or, on a CPU, needs many roots is
          solved by "schur".
        - "auto": "eigh" for Hermitian members, "newton" for others.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no such power: raise `SpectrumError`, or return NaN for that member and
        the right result for the others.

    Returns
    -------
    X : array (..., n, n)
        The powers, in the library, on the device and in the dtype of A. The power of a real matrix is real.

    Raises
    ------
    SpectrumError
        If t is not an integer and a real A has an eigenvalue on the negative real axis, or within rounding of it; if
        zero is a defective eigenvalue; if the power overflows; or if a member holds NaN or infinity, and
        ``errors="raise"``.
    ValueError
        If t is not a finite number, a shape does not fit, or an option has a value other than those above.
    TypeError
        If A is not a dense array of numbers of a supported dtype, or t is a tensor that requires a gradient.

    See Also
    --------
    rootm : The root of order p.
    invrootm : The inverse root of order p.
    sqrtm : The square root.
    scipy.linalg.fractional_matrix_power : SciPy's.

    Notes
    -----
    A complex matrix may have eigenvalues on the negative real axis: they take the argument π, and so do eigenvalues
    that rounding may have moved below the axis. A real matrix with such an eigenvalue has no real principal power;
    convert it to a complex dtype for the complex one. Zero eigenvalues stay zero: for t < 0 the result is the power of
    A on its range. A singular matrix rounded to float16 or bfloat16 may have small negative eigenvalues; then give ``rtol``
    the rounding of that dtype.

    The derivative is the Fréchet derivative, to any order for nonsingular A, also at repeated eigenvalues. For a
    singular A it is that along directions that keep the rank. A member of a batch gives the same bits as in a call by
    itself, and the same up to rounding if it is real symmetric with two to four rows: many such members are solved by
    Jacobi rotations of all of them together [3]_. Under ``jax.jit`` no error can be raised: a member without a power is
    NaN.

    The backward error of `certify` is ‖X^{1/t} - A‖ / (‖X^{1/t}‖ + ‖A‖) for ``|t| < 1``. For larger t it is the larger of
    that of Y = A^{t/m}, m the next integer above ``|t|``, and ‖X - Y^m‖ / (‖X‖ + ‖Y^m‖). For an integer t > 0 it is that of
    X = A A^{t-1}, for t < 0 that of A^{-t} X A^{-t} = A^{-t}. For a small t, X is near I, and rounding its entries alone gives
    a backward error of about eps / ``|t|``. For a Hermitian A it also measures ``clipped``, the size of the negative
    eigenvalues that counted as zero, relative to the largest one.

    References
    ----------
    .. [1] N. J. Higham and L. Lin, "A Schur-Padé algorithm for fractional powers of a matrix", SIAM J. Matrix Anal.
       Appl. 32, 2011, pp. 1056-1078, doi:10.1137/10081232X.
    .. [2] N. J. Higham and L. Lin, "An improved Schur-Padé algorithm for fractional powers of a matrix and their
       Fréchet derivatives", SIAM J. Matrix Anal. Appl. 34, 2013, pp. 1341-1360, doi:10.1137/130906118.
    .. [3] G. H. Golub and C. F. Van Loan, "Matrix Computations", 4th edition, Johns Hopkins University Press, 2013,
       section 8.5.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import fractional_matrix_power
    >>> A = np.array([[4.0, 1.0], [0.0, 9.0]])
    >>> X = fractional_matrix_power(A, 0.75)
    >>> bool(np.linalg.norm(X @ X @ X @ X - A @ A @ A) < 1e-11)
    True
    """
    return FRACTIONAL_MATRIX_POWER(A, t=t, rtol=rtol, method=method, errors=errors)


FRACTIONAL_MATRIX_POWER = public_function(
    fractional_matrix_power,
    "(n,n)->(n,n)",
    solve=_solve,
    residual=tells_clipped(_residual),
    measures=CLIPPED,
    tangent=_tangent,
    cotangent=_cotangent,
    unbounded=_is_unbounded,
    choices={"method": METHODS},
    halves=True,
    check=_check,
    neutral={"n": 1.0},
)
