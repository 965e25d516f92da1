"""The product of a matrix with an inverse root, Y = G A^{-s/p}.

With Z = A^{-s/p} and the Fréchet derivative L of this power (`power_derivatives`),  dY = dG Z + G L(A, dA);  the cotangents are
Ȳ Zᴴ for G and L(Aᴴ, Gᴴ Ȳ) for A.
"""

from __future__ import annotations

from numbers import Integral
from typing import Any

from matsign._typing import Array, ArrayLike, Arrays, T
from matsign.backends import Backend
from matsign.core.options import short_repr
from matsign.core.public import Residual, public_function
from matsign.functions.powers.clipped_eigenvalues import CLIPPED, tells_clipped
from matsign.functions.powers.power_certificates import in_units, is_singular, relative_norm, steps
from matsign.functions.powers.power_derivatives import frechet_derivative, power_inside
from matsign.functions.powers.power_methods import matrix_function
from matsign.functions.powers.root_product_methods import METHODS, solve_invroot_product
from matsign.functions.powers.roots import check_order
from matsign.linalg.scalar_powers import exponent
from matsign.linalg.stacks import adjoint, scale_to_unit


def _check(*, p: Any, s: Any, **_: Any) -> None:
    check_order("invroot_product", p)
    if isinstance(s, bool) or not isinstance(s, Integral) or s < 1:
        raise ValueError(f"invroot_product: s must be a positive integer, got {short_repr(s)}")


def _tangent(
    backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, p: int, s: int, rtol: float | None, **_: Any
) -> Arrays:
    (g, a), (dg, da), power = arrays, tangents, exponent(-s, p)
    z = power_inside(backend, a, power=power, rtol=rtol)
    return (dg @ z + g @ frechet_derivative(backend, a, da, power=power, rtol=rtol),)


def _cotangent(
    backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, p: int, s: int, rtol: float | None, **_: Any
) -> Arrays:
    (g, a), (bar,), power = arrays, cotangents, exponent(-s, p)
    z = power_inside(backend, a, power=power, rtol=rtol)
    return bar @ adjoint(z), frechet_derivative(backend, adjoint(a), adjoint(g) @ bar, power=power, rtol=rtol)


def _residual(
    backend: Backend, value: tuple[Array], g: Array, a: Array, *, p: int, s: int, rtol: float | None
) -> Residual:
    """Y A^{s/p} = G, on the range of A; the correction is that of the residual, and G L(A, dA) for rounding in A."""
    power = exponent(-s, p)
    units, a = in_units(backend, a)
    if units.e is not None:  # Y D and G D belong to the balanced D⁻¹ A D
        columns = units.e[:, None, :]
        g, y = backend.ldexp(g, columns), backend.ldexp(value[0], columns)
    else:
        y = value[0]
    g, k = scale_to_unit(backend, g)
    whole, factor = units.factor(backend, power, a.real)
    y = backend.ldexp(y, -(whole + k)[:, None, None]) / factor[:, None, None]
    root = matrix_function(backend, a, power=exponent(s, p), rtol=rtol, method="auto").value[0]
    inverse = matrix_function(backend, a, power=power, rtol=rtol, method="auto").value[0]
    projector = root @ inverse
    gap, terms = (g - y @ root) @ projector, (g @ projector, y @ root)
    changes = g[:, None] @ steps(backend, a, 0 * a, power=power, rtol=rtol)
    correction = backend.xp.concat([(gap @ inverse)[:, None], changes], axis=1) * factor[:, None, None, None]
    shift = (whole + k)[:, None, None, None]
    if units.e is not None:
        shift = shift - units.e[:, None, None, :]
    return Residual(relative_norm(backend, gap, *terms), (backend.ldexp(correction, shift),))


def invroot_product(
    G: ArrayLike[T],
    A: ArrayLike[T],
    p: int,
    s: int = 1,
    *,
    tol: float | None = None,
    rtol: float | None = None,
    method: str = "auto",
    errors: str = "raise",
) -> T:
    """Compute the product of a matrix with an inverse root of another.

    Y = G A^{-s/p}. For Hermitian positive definite A the root itself need not be formed.

    Parameters
    ----------
    G : array_like (..., m, n)
        Matrices of dtype float32, float64, complex64 or complex128. Matrices in float16 and bfloat16 are computed in
        float32.
    A : array_like (..., n, n)
        Square matrices, usually Hermitian positive semidefinite; real ones without eigenvalues on the negative real
        axis.
    p : int
        The order of the root, at least 1.
    s : int, default 1
        The power of the inverse root, at least 1.
    tol : float, optional
        The largest relative error in the Frobenius norm that "auto" and "polynomial" may leave to save time; no smaller than
        128 eps. Default: as small as rounding allows.
    rtol : float, optional
        A singular value of A of at most ``rtol`` times the largest one counts as zero. Default: n eps.
    method : {"auto", "polynomial", "newton", "eigh", "schur"}, default "auto"
        How the product is computed:

        - "polynomial": by the coupled iteration G ← G q(P)^s, P ← P q(P)^p with polynomials q from a minimax design
          [1]_ [2]_, products alone, for Hermitian positive definite A. A member for which this does not reach ``tol``,
          because its eigenvalues differ too much, is solved by eigenvectors.
        - "eigh": by eigenvectors, for Hermitian A.
        - "newton", "schur": by the root, with these methods of `fractional_matrix_power`.
        - "auto": "polynomial" for Hermitian members on an accelerator, but in PyTorch for a hundred thousand of up to four
          rows. On a CPU, for a large A and a ``tol`` well above rounding, the best rational approximation to x^{-1/p} on the
          interval of the eigenvalues: one to seven inverses of A + σI; a member that does not reach ``tol`` is solved by
          eigenvectors. Else as for `fractional_matrix_power`.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no root: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    Y : array (..., m, n)
        The products, in the library, on the device and in the dtype of G. Where A is singular, A^{-s/p} is the power on
        the range of A, and zero elsewhere.

    Raises
    ------
    SpectrumError
        If a real A has an eigenvalue on the negative real axis, or within rounding of it; if zero is a defective
        eigenvalue of A; or if a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If p or s is not a positive integer, a shape does not fit, an option has a value other than those above, or the
        arrays lie on different devices.
    TypeError
        If G or A is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    invrootm : The inverse root itself.
    invsqrtm : The inverse square root.
    msign : The case A = GᴴG, p = 2.

    Notes
    -----
    With the statistics A = GᴴG of gradients and p = 4, applied from both sides, this is the preconditioner of Shampoo.

    Derivatives in G and A exist to any order where A is nonsingular, also at repeated eigenvalues. A member of a batch
    gives the same bits as in a call by itself, but for symmetric ones as `fractional_matrix_power` says. Under ``jax.jit``
    no error can be raised: a member without a root is NaN.

    The backward error of `certify` is ‖(Y A^{s/p} - G) P‖ / (‖Y A^{s/p}‖ + ‖G P‖), with the projector P on the range of A (I
    if A is nonsingular), in the scaling that balances A. For a Hermitian A it also measures ``clipped``, the size of
    the negative eigenvalues that counted as zero, relative to the largest one.

    References
    ----------
    .. [1] N. Amsel, D. Persson, C. Musco and R. M. Gower, "The Polar Express: optimal matrix sign methods and their
       application to the Muon algorithm", 2025, arXiv:2505.16932.
    .. [2] C.-H. Guo and N. J. Higham, "A Schur-Newton method for the matrix pth root and its inverse", SIAM J. Matrix
       Anal. Appl. 28, 2006, pp. 788-804, doi:10.1137/050643374.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import invroot_product
    >>> A, G = np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([[3.0, 1.0]])
    >>> Y = invroot_product(invroot_product(G, A, 4), A, 4, 3)
    >>> bool(np.linalg.norm(Y @ A - G) < 1e-14)
    True
    """
    return INVROOT_PRODUCT(G, A, p=p, s=s, tol=tol, rtol=rtol, method=method, errors=errors)


INVROOT_PRODUCT = public_function(
    invroot_product,
    "(m,n),(n,n)->(m,n)",
    solve=solve_invroot_product,
    residual=tells_clipped(_residual),
    measures=CLIPPED,
    tangent=_tangent,
    cotangent=_cotangent,
    unbounded=lambda backend, value, g, a: is_singular(backend, a),
    choices={"method": METHODS},
    halves=True,
    members=16,
    check=_check,
)
