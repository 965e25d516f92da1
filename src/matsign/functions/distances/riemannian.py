"""The affine-invariant Riemannian distance of two positive definite matrices; `riemannian_methods` has the formulas."""

from __future__ import annotations

from matsign._typing import Array, ArrayLike, Arrays, T
from matsign.backends import Backend
from matsign.core.members import Solution, solution
from matsign.core.public import Residual, public_function
from matsign.core.tolerances import rank_tolerance
from matsign.functions.distances.riemannian_derivatives import gradients, gradients_in_units
from matsign.functions.distances.riemannian_methods import (
    in_units,
    logarithms,
    not_definite,
    or_identity,
    spectrum,
    squared_norm,
)
from matsign.functions.distances.riemannian_quick import quick_squared
from matsign.linalg.stacks import broadcast_scalar, hermitian, inner, safe_divisor


def _solve(backend: Backend, a: Array, b: Array, *, squared: bool) -> Solution:
    quick = quick_squared(backend, a, b, rank_tolerance(backend, a, None))
    result: Solution = backend.masked_cond(
        quick.accurate,
        lambda a, b, value: _solution(backend, value, a, squared=squared),
        lambda a, b, value: _by_factors(backend, a, b, squared=squared),
        *(a, b, quick.squared),
    )
    return result


def _solution(backend: Backend, value: Array, like: Array, *, squared: bool) -> Solution:
    value = value if squared else backend.xp.sqrt(value)
    return solution(backend, (backend.astype(value, backend.dtype_name(like.real)),))


def _by_factors(backend: Backend, a: Array, b: Array, *, squared: bool) -> Solution:
    p = in_units(backend, a, b)
    good = p.definite(backend, rank_tolerance(backend, a, None))
    regular = or_identity(backend, p, good[0] & good[1])
    value = squared_norm(backend, regular, logarithms(backend, regular))
    return not_definite(backend, p, good, _solution(backend, value, a, squared=squared))


def _slope(backend: Backend, d: Array, a: Array) -> Array:
    """1 / (2 d), and 0 where d is a rounding error of A and B."""
    return backend.xp.where(d > 8 * a.shape[-1] * backend.eps(a), 0.5 / safe_divisor(backend, d), 0 * d)


def _tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, squared: bool) -> Arrays:
    g, h = gradients(backend, arrays)
    da, db = (hermitian(x) for x in tangents)
    step = inner(backend, g, da) + inner(backend, h, db)
    return (step if squared else step * _slope(backend, value[0], arrays[0]),)


def _cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, squared: bool) -> Arrays:
    bar = cotangents[0] if squared else cotangents[0] * _slope(backend, value[0], arrays[0])
    return tuple(broadcast_scalar(bar) * g for g in gradients(backend, arrays))


def _residual(backend: Backend, value: tuple[Array], a: Array, b: Array, *, squared: bool) -> Residual:
    """The distance of B from A, by other factors, and the effect of rounding of A and B."""
    kind, p = backend.dtype_name(value[0]), in_units(backend, b, a)
    good = p.definite(backend, 0.0)
    p = or_identity(backend, p, good[0] & good[1])
    s = spectrum(backend, p)
    d = backend.xp.sqrt(squared_norm(backend, p, s.logs))
    slopes = gradients_in_units(backend, p, s)
    sizes = (backend.norm(g) * backend.norm(x) for g, x in zip(slopes, (p.a, p.b), strict=True))
    # Of near matrices the difference is exact, so that only its relative error matters.
    noise = backend.eps(p.a) * sum(sizes) * 0.5 / backend.xp.maximum(d, 1 + 0 * d)
    exact, noise = (backend.astype(x, kind) for x in (d, noise))
    noise = noise + backend.eps(a) * exact
    if squared:
        exact, noise = exact**2, 2 * exact * noise
    gap = abs(value[0] - exact)
    return Residual(gap / safe_divisor(backend, backend.xp.maximum(exact, value[0])), (gap + noise,))


def riemannian_distance(A: ArrayLike[T], B: ArrayLike[T], *, squared: bool = False, errors: str = "raise") -> T:
    """Compute the affine-invariant Riemannian distance of two positive definite matrices.

    d = ‖log(A^{-1/2} B A^{-1/2})‖ in the Frobenius norm, the root of the sum of log² λ over the eigenvalues λ of A⁻¹B
    [1]_, [2]_. It does not change if both matrices become M A Mᴴ and M B Mᴴ, for any nonsingular M.

    Parameters
    ----------
    A : array_like (..., n, n)
        Hermitian positive definite matrices of dtype float32, float64, complex64 or complex128.
    B : array_like (..., n, n)
        Matrices of the same kind and size.
    squared : bool, default False
        Return d², which is differentiable also where A = B.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no answer: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    d : array (...)
        The distances, or their squares; real.

    Raises
    ------
    SpectrumError
        If A or B is not positive definite to working precision, as singular matrices are infinitely far from definite
        ones, or if a member holds NaN or infinity; and ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, the arrays lie on different devices, or a
        NumPy array is not Hermitian.
    TypeError
        If A or B is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    bures_distance : A distance of semidefinite matrices of any rank.
    geometric_mean : The points of the geodesic from A to B.

    Notes
    -----
    With a Cholesky factor A = K Kᴴ, the λ are 1 plus the eigenvalues of K⁻¹(B - A)K⁻ᴴ, where these are accurate: for near
    matrices, whose distances have all their digits (0 for A = B), and for well-conditioned ones. Otherwise they are the
    squares of the singular values of K⁻¹L with B = L Lᴴ. Graded pairs, D A D and D B D with a diagonal D, are as
    accurate as A and B.

    The gradient of d² in A is -2 A^{-1/2} log(A^{-1/2} B A^{-1/2}) A^{-1/2}, which is 0 where A = B. The gradient of d is
    returned as 0 where d is 0 to rounding of A and B. Both have derivatives of any order. A member of a batch gives the
    same bits as in a call by itself. Under ``jax.jit`` no error can be raised: a member without an answer is NaN.

    The backward error of `certify` is the relative difference from the distance of B from A, which other factors give.
    The forward error adds the effect of rounding of A and B, for near matrices of their difference.

    References
    ----------
    .. [1] R. Bhatia, "Positive Definite Matrices", Princeton University Press, 2007, doi:10.1515/9781400827787.
    .. [2] X. Pennec, P. Fillard and N. Ayache, "A Riemannian framework for tensor computing", Int. J. Comput. Vis. 66(1),
       2006, pp. 41-66, doi:10.1007/s11263-005-3222-z.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import riemannian_distance
    >>> A, B = np.diag([1.0, 1.0]), np.diag([np.e**3, np.e**-4])
    >>> round(float(riemannian_distance(A, B)), 12), round(float(riemannian_distance(A, B, squared=True)), 12)
    (5.0, 25.0)
    """
    return RIEMANNIAN_DISTANCE(A, B, squared=squared, errors=errors)


RIEMANNIAN_DISTANCE = public_function(
    riemannian_distance,
    "(n,n),(n,n)->()",
    solve=_solve,
    residual=_residual,
    tangent=_tangent,
    cotangent=_cotangent,
    kinds=("real",),
    hermitian=("A", "B"),
    neutral={"n": 1.0},
)
