"""msign, the sign by singular values, which become 1; and with it the polar decomposition M = U H.

msign(M) is the upper right block of the sign of the dilation [[0, M], [Mᴴ, 0]], for M of any shape and rank: the eigenvalues of
the dilation are the singular values of M with both signs, and zeros. The iterations of `polar_methods` are those of
`block_structures.Dilation`; `polar_derivatives` has the differential.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from matsign._typing import Array, ArrayLike, Generic, T
from matsign.backends import Backend
from matsign.core.members import Solution, overflow_failure
from matsign.core.public import public_function
from matsign.functions.polar.certificates import msign_residual, polar_residual
from matsign.functions.polar.derivatives import msign_tangent, polar_cotangent, polar_tangent
from matsign.functions.polar.methods import METHODS, at_size, check_steps, has_fixed_steps, orthogonalise, takes_single
from matsign.functions.polar.msign_schedules import Schedule
from matsign.linalg.stacks import (
    adjoint,
    broadcast_scalar,
    hermitian,
    scale_to_unit,
)


class Polar(NamedTuple, Generic[T]):
    """Hold the polar decomposition M = u h.

    The result of `polar`: a named tuple, so ``u, h = polar(M)`` works.

    Attributes
    ----------
    u : array (..., n, m)
        The unitary factor: orthonormal rows or columns on the support of M, zero elsewhere.
    h : array (..., m, m)
        The Hermitian positive semidefinite factor.

    See Also
    --------
    polar : Compute the decomposition.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import polar
    >>> M = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> factors = polar(M)
    >>> factors._fields
    ('u', 'h')
    >>> bool(np.linalg.norm(factors.u @ factors.h - M) < 1e-14)
    True
    """

    u: T
    h: T


def msign(
    M: ArrayLike[T],
    *,
    tol: float | None = None,
    rtol: float | None = None,
    method: str = "auto",
    schedule: Schedule = None,
    steps: int | None = None,
    precision: str | None = None,
    errors: str = "raise",
) -> T:
    """Replace every nonzero singular value of M by 1.

    msign(M) = M (MᴴM)^{-1/2} = U Vᴴ for the reduced singular value decomposition M = U S Vᴴ; the singular vectors do
    not change. This is the unitary factor of the polar decomposition, and the direction of a step of the Muon
    optimiser.

    Parameters
    ----------
    M : array_like (..., n, m)
        Matrices of any shape and rank, of dtype float32, float64, complex64 or complex128. Matrices in float16 and
        bfloat16 are computed in float32 (see ``precision``).
    tol : float, optional
        How far from 1 the singular values of the result may be. Default: the rounding of the dtype.
    rtol : float, optional
        A singular value of at most ``rtol`` times the largest one counts as zero and stays zero. Default: max(n, m)
        eps.
    method : {"auto", "polynomial", "newton", "svd", "gram"}, default "auto"
        How the result is computed:

        - "polynomial": by matrix products alone. A minimax schedule [1]_ brings the singular values in [rtol, 1] near
          1, then purification steps bring them to 1 and all smaller ones to 0.
        - "newton": by scaled Newton steps on the triangular factor of a QR factorisation [2]_.
        - "svd": by a singular value decomposition.
        - "gram": by the eigenvectors of MᴴM and one step that squares the error, where the condition number of M is
          small enough for that (for single precision, in double precision), else by "svd".
        - "auto": by products on an accelerator and where tol ≥ 1e-2, else by "gram" or "svd".
    schedule : str or sequence of (float, float, float), optional
        Polynomial steps in place of ``tol``: rows (a, b, c) of the coefficients of x ← a x + b x³ + c x⁵, or the name
        of published ones: "muon" [3]_, "you" (Jiacheng You, who let the coefficients differ from step to step), "su"
        [4]_, "cans" [5]_ or "polar_express" ([1]_ with l = 1e-3). As published, they start from M divided by its
        Frobenius norm.
    steps : int, optional
        The number of steps. If the ``schedule`` has fewer rows, its last row is repeated. Without a schedule, the steps
        are those that bring the widest possible interval of singular values to within ``tol`` of 1; then ``tol`` is 0.2
        by default.
    precision : {"half", "full"}, optional
        Precision of products where the number of steps is fixed and the matrices are real. "half" takes products in
        half precision with sums in float32, after scaling, where the device has units for it (float16 on GPUs, bfloat16
        on TPUs and on CPUs with AMX). Elsewhere, and where the steps would amplify the rounding too much, this is
        "full". Default: "half" for float16 and bfloat16, else "full".
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no answer: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    U : array (..., n, m)
        The matrices with singular values 0 and 1, in the library, on the device and in the dtype of M.

    Raises
    ------
    SpectrumError
        If a member holds NaN or infinity, or an iteration does not converge, and ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, or ``tol`` is below what the dtype can
        hold.
    TypeError
        If M is not a dense array of numbers of a supported dtype.

    See Also
    --------
    polar : Also return the Hermitian factor.
    mcsgn : The sign by eigenvalues in place of singular values.
    each : Apply a function to many matrices of different shapes.
    matsign.optim.Muon : The optimiser for PyTorch.
    matsign.optim.scale_by_msign : The same step for JAX.

    Notes
    -----
    Which method: on a CPU "auto" takes a direct method, which costs about as much as 15 products of n × n matrices and
    is right to working precision. On an accelerator it takes products. For optimisers ``steps`` or ``schedule`` is the
    fastest: the number of steps is fixed, no step waits for a value on the device, and tall and wide matrices take the
    Gram form, whose products are as small as the shorter side. The same holds for tol ≥ 1e-2; only on a CPU a tolerance
    first estimates the smallest singular value, and takes fewer steps where it is not small. With tol ≥ 1e-3 or
    ``rtol=0`` the polynomial method does not purify: a singular value below ``rtol`` ends between 0 and 1.

    Derivatives: where M has full rank msign is differentiable to any order, also at repeated singular values. Where M
    is rank-deficient, the derivative is that along directions that keep the rank. The derivative of a result of few
    steps is that of the msign which the steps approach.

    A member of a batch gives the same bits as in a call by itself. Under ``jax.jit`` no error can be raised: a member
    without an answer is NaN. ``torch.compile`` compiles a call whole if its number of steps is fixed; otherwise the
    call is a graph break.

    In PyTorch, M may be a DTensor sharded over batch axes or along one axis of its matrices, which is then solved by
    products alone; docs/howto/many_devices.md has the communication and the memory.

    The backward error of `certify` is the larger of ‖M - U H‖ / (‖M‖ + ‖U H‖), with H the Hermitian part of UᴴM, and
    ‖U - UUᴴU‖ / (‖U‖ + ‖UUᴴU‖), in Frobenius norms. It also measures ``orthogonality``, ‖U - UUᴴU‖ / ‖U‖; ``dual_gap``,
    the share by which ⟨M, U⟩ may fall short of the nuclear norm of M, which is its largest value over all U of spectral
    norm 1; and ``overshoot``, σmax(U) - 1.

    References
    ----------
    .. [1] N. Amsel, D. Persson, C. Musco and R. M. Gower, "The Polar Express: Optimal matrix sign methods and their
       application to the Muon algorithm", 2025, arXiv:2505.16932.
    .. [2] N. J. Higham, "Computing the polar decomposition - with applications", SIAM J. Sci. Stat. Comput. 7(4), 1986,
       pp. 1160-1174, doi:10.1137/0907079.
    .. [3] K. Jordan and others, "Muon: An optimizer for hidden layers in neural networks", 2024,
       https://kellerjordan.github.io/posts/muon/.
    .. [4] J. Su, "Newton-Schulz iterations for the msign operator, part 1" (in Chinese), 2025,
       https://kexue.fm/archives/10922.
    .. [5] E. Grishina, M. Smirnov and M. Rakhuba, "Accelerating Newton-Schulz iteration for orthogonalization via
       Chebyshev-type polynomials", 2025, arXiv:2506.10935.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import msign
    >>> M = np.array([[3.0, 0.0], [4.0, 0.0], [0.0, 1e-3]])
    >>> U = msign(M)
    >>> U.round(12)
    array([[0.6, 0. ],
           [0.8, 0. ],
           [0. , 1. ]])
    >>> bool(np.linalg.norm(U.T @ U - np.eye(2)) < 1e-15)
    True
    """
    return MSIGN(
        M, tol=tol, rtol=rtol, method=method, schedule=schedule, steps=steps, precision=precision, errors=errors
    )


MSIGN = public_function(
    msign,
    "(n,m)->(n,m)",
    measures=("orthogonality", "dual_gap", "overshoot"),
    solve=orthogonalise,
    by_products=orthogonalise,
    residual=msign_residual,
    tangent=msign_tangent,
    cotangent=msign_tangent,
    adjoint=True,
    check=check_steps,
    fixed=has_fixed_steps,
    unstacked=takes_single,
    choices={"method": METHODS, "precision": (None, "half", "full")},
    halves=True,
)


def _polar(backend: Backend, m: Array, **options: Any) -> Solution:
    scaled, e = scale_to_unit(backend, m)
    result = orthogonalise(backend, m, **options) if has_fixed_steps(**options) else at_size(backend, scaled, **options)
    (u,) = result.value
    h = backend.exact_ldexp(hermitian(adjoint(u) @ scaled), broadcast_scalar(e))
    return result._replace(value=(u, h), failure=overflow_failure(backend, h, result.failure))


def polar(
    M: ArrayLike[T], *, tol: float | None = None, rtol: float | None = None, method: str = "auto", errors: str = "raise"
) -> Polar[T]:
    """Compute the polar decomposition M = U H.

    U = msign(M), and H = (MᴴM)^{1/2} is Hermitian positive semidefinite.

    Parameters
    ----------
    M : array_like (..., n, m)
        Matrices of any shape and rank, of dtype float32, float64, complex64 or complex128. Matrices in float16 and
        bfloat16 are computed in float32.
    tol : float, optional
        How far from 1 the singular values of U may be. Default: the rounding of the dtype.
    rtol : float, optional
        A singular value of at most ``rtol`` times the largest one counts as zero: U is zero there. Default:
        max(n, m) eps.
    method : {"auto", "polynomial", "newton", "svd", "gram"}, default "auto"
        How U is computed; the methods are those of `msign`.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no answer: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    u : array (..., n, m)
        The unitary factor; for singular M the partial isometry with the null space of M.
    h : array (..., m, m)
        The Hermitian factor. Both are the fields of the named tuple `Polar`.

    Raises
    ------
    SpectrumError
        If a member holds NaN or infinity, or an iteration does not converge, and ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, or ``tol`` is below what the dtype can
        hold.
    TypeError
        If M is not a dense array of numbers of a supported dtype.

    See Also
    --------
    msign : The unitary factor alone, with more options.
    matrix_abs : The absolute value by eigenvalues.
    scipy.linalg.polar : SciPy's, which completes U to a unitary matrix.

    Notes
    -----
    The cost is that of `msign` and one product. For singular M SciPy completes U to a unitary matrix, which M does not
    determine; here U is zero on the null space of M.

    Derivatives, batches, DTensors and ``jax.jit`` are as for `msign`. The backward error of `certify` is the larger of that of
    `msign` and ‖M - U H‖ / (‖M‖ + ‖U H‖) with the H that is returned.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import polar
    >>> M = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> u, h = polar(M)
    >>> bool(np.linalg.norm(u @ h - M) < 1e-14)
    True
    """
    return POLAR(M, tol=tol, rtol=rtol, method=method, errors=errors)


POLAR = public_function(
    polar,
    "(n,m)->(n,m),(m,m)",
    solve=_polar,
    by_products=_polar,
    residual=polar_residual,
    tangent=polar_tangent,
    cotangent=polar_cotangent,
    unstacked=takes_single,
    wrap=lambda backend, u, h: Polar(u, h),
    halves=True,
    choices={"method": METHODS},
)
