"""The coupled root C = A (BA)^{-1/2} with its inverse: the sign of [[0, A], [B, 0]].

It solves C B C = A, so that its differential solves  CB dC + dC BC = dA - C dB C,  where CB and BC are positive stable.
"""

from __future__ import annotations

import math
from typing import Any

from matsign._typing import Array, ArrayLike, Arrays, T
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.members import Solution, overflow_failure, solution
from matsign.core.public import Residual, public_function
from matsign.core.tolerances import rank_tolerance, working_precision
from matsign.functions.powers.root_corrections import correct, probes, regular_root
from matsign.functions.powers.square_root_methods import root_pair
from matsign.iterations.block_structures import AntiDiagonal
from matsign.iterations.differentiable_solves import sylvester_positive
from matsign.iterations.newton import has_converged, newton
from matsign.linalg.stacks import adjoint, broadcast_scalar, largest, safe_divisor, trace


def normalise_pair(backend: Backend, a: Array, b: Array) -> tuple[Array, Array, Array, Array]:
    """`a` and `b` with entries below 1, and the logarithms of their factors, with an even difference.

    The larger factor is doubled if need be, whichever argument it belongs to.
    """
    ea, eb = (backend.exponent(largest(backend, x)) for x in (a, b))
    odd = (ea - eb) % 2
    ea, eb = backend.xp.where(ea > eb, ea + odd, ea), backend.xp.where(ea > eb, eb, eb + odd)
    return backend.ldexp(a, broadcast_scalar(-ea)), backend.ldexp(b, broadcast_scalar(-eb)), ea, eb


def coupled_pair(backend: Backend, a: Array, b: Array, *, rtol: float | None, spread: Array | None = None) -> Solution:
    """(C, C⁻¹) of a stack by Newton's method on the blocks; `best_of_products` where they are singular or digits are lost.

    `spread` is the relative error of B in units of rounding, if it is above 1.
    """
    a, b, ea, eb = normalise_pair(backend, a, b)
    k = (ea - eb) // 2
    iterate = newton(backend, AntiDiagonal(a, b))
    first = solution(backend, iterate.value, Failure.NOT_CONVERGED, ~has_converged(backend, iterate), iterate.steps)
    rtol = rank_tolerance(backend, a, rtol)
    sure = iterate.condition**2 * rtol < 1
    doubtful = (first.failure > 0) | ~sure | ~(pair_gap(backend, a, b, *first.value) < working_precision(backend, a))
    result = backend.rare_cond(
        doubtful,
        lambda a, b, spread, first: best_of_products(backend, a, b, rtol, spread, first),
        lambda a, b, spread, first: first,
        *(a, b, backend.ones(a) if spread is None else spread, first),
    )
    c, d = result.value
    figure = backend.ldexp(
        result.detail, backend.xp.where(result.failure == int(Failure.UNCLEAR_ZERO), 0 * ea, ea + eb)[:, None]
    )
    negative = (result.failure == int(Failure.NEGATIVE)) | (result.failure == int(Failure.NEAR_NEGATIVE))
    return result._replace(
        value=(backend.ldexp(c, broadcast_scalar(k)), backend.ldexp(d, broadcast_scalar(-k))),
        failure=Failure.NEGATIVE_PRODUCT.where(backend, negative, result.failure),
        detail=figure,
    )


def best_of_products(backend: Backend, a: Array, b: Array, rtol: float, spread: Array, first: Solution) -> Solution:
    """The first of A (BA)^{-1/2}, (AB)^{-1/2} A and the result of the blocks, unless a later residual is four times smaller.

    The accuracy of the roots of BA and AB may differ by many digits: perhaps only one of the products is well conditioned.
    A and B tell whether the result has full rank, and not their product, whose singular values rounding may hide.
    """
    xp, n = backend.xp, a.shape[-1]
    products = (b @ a, a @ b)
    rounding = n * backend.eps(a)
    noise = [
        rounding * spread * backend.norm(a) * backend.norm(b) / safe_divisor(backend, backend.norm(x)) for x in products
    ]
    # The products have errors of n eps, whatever `rtol` is.
    by_ba, by_ab = (
        root_pair(backend, x, rtol=max(rtol, rounding), method="auto", noise=error)
        for x, error in zip(products, noise, strict=True)
    )
    r, s = by_ba.value[1], by_ab.value[1]
    roots = [by_ba._replace(value=(a @ r, r @ b)), by_ab._replace(value=(s @ a, b @ s))]
    # BA and AB have the same eigenvalues: a negative one of either rules out both.
    negative = [
        (root.failure == int(Failure.NEGATIVE)) | (root.failure == int(Failure.NEAR_NEGATIVE)) for root in roots
    ]
    valid = [(root.failure == 0) & ~other for root, other in zip(roots, negative[::-1], strict=True)]
    full = [
        ok & (trace(backend, root.value[0] @ root.value[1]).real > n - 0.5)
        for ok, root in zip(valid, roots, strict=True)
    ]
    regular = _is_regular(backend, a, rtol) & _is_regular(backend, b, rtol)
    # Where the blocks have failed, a product that is singular up to its rounding errors is not reliable either.
    unreliable = [
        regular & (first.failure > 0) & ~_is_regular(backend, x, error)
        for x, error in zip(products, noise, strict=True)
    ]
    valid = [ok & ~bad for ok, bad in zip(valid, unreliable, strict=True)]
    valid = [ok & (own | ~(other | regular)) for ok, own, other in zip(valid, full, full[::-1], strict=True)]
    valid.append((first.failure == 0) & (regular | full[0] | full[1] | ~(valid[0] | valid[1])))
    best, least = backend.masked_select(negative[0], roots[0], roots[1]), math.inf * backend.ones(a)
    for root, ok in zip((*roots, first), valid, strict=True):
        c, d = root.value
        error = _backward_error(backend, a, b, c, d)
        better = ok & (4 * error < least) & (pair_gap(backend, a, b, c, d) < math.sqrt(backend.eps(a)))
        best = backend.masked_select(better, root, best)
        least = xp.where(better, error, least)
    failed = (best.failure == 0) & ~xp.isfinite(least)
    failed = failed | (best.failure == int(Failure.NOT_CONVERGED))
    return best._replace(failure=Failure.LOST_PRODUCT.where(backend, failed, best.failure))


def _is_regular(backend: Backend, a: Array, rtol: float | Array) -> Array:
    return backend.norm(a) * backend.norm(backend.inv(a)) * rtol < 1


def pair_gap(backend: Backend, a: Array, b: Array, c: Array, d: Array) -> Array:
    """The residuals relative to ‖C‖² ‖B‖ and ‖D‖² ‖A‖, the effects of rounding C and D."""
    a_left, b_left = a @ projector_to_second_order(d @ c), b @ projector_to_second_order(c @ d)
    gap = backend.norm(c @ b @ c - a_left) / safe_divisor(backend, backend.norm(c) ** 2 * backend.norm(b))
    return gap + backend.norm(d @ a @ d - b_left) / safe_divisor(backend, backend.norm(d) ** 2 * backend.norm(a))


def _backward_error(backend: Backend, a: Array, b: Array, c: Array, d: Array) -> Array:
    """The larger for C B C = A (D C) and D A D = B (C D), where D C and C D are I or the projectors off the null spaces."""
    one, two = c @ b @ c, d @ a @ d
    a, b = a @ projector_to_second_order(d @ c), b @ projector_to_second_order(c @ d)
    return backend.xp.maximum(
        backend.norm(a - one) / safe_divisor(backend, backend.norm(a) + backend.norm(one)),
        backend.norm(b - two) / safe_divisor(backend, backend.norm(b) + backend.norm(two)),
    )


def projector_to_second_order(r: Array) -> Array:
    """3R² - 2R³: a projector to second order if R is one to first order."""
    return r @ (3 * r - 2 * r @ r)


def both_probes(backend: Backend, a: Array, b: Array) -> tuple[Array, Array]:
    """Random changes of A and B of the size of rounding, different for A and B."""
    return probes(backend, a, backend.norm(a)), backend.xp.flip(probes(backend, b, backend.norm(b)), axis=(-2, -1))


def _coupled_in_range(backend: Backend, a: Array, b: Array, **options: Any) -> Solution:
    result = coupled_pair(backend, a, b, **options)
    c, d = result.value
    return result._replace(failure=overflow_failure(backend, c, overflow_failure(backend, d, result.failure)))


def _coupled_residual(
    backend: Backend, value: tuple[Array, Array], a: Array, b: Array, *, rtol: float | None
) -> Residual:
    """C B C = A (D C) and D A D = B (C D), and CB dC + dC BC = g for the residuals and for rounding of A and B."""
    c, d = value
    a, b, ea, eb = normalise_pair(backend, a, b)
    k = (ea - eb) // 2
    c, d = backend.ldexp(c, broadcast_scalar(-k)), backend.ldexp(d, broadcast_scalar(k))
    gap, gap_d = a @ projector_to_second_order(d @ c) - c @ b @ c, b @ projector_to_second_order(c @ d) - d @ a @ d
    da, db = both_probes(backend, a, b)
    zero = rank_tolerance(backend, a, rtol)
    cb, bc = regular_root(backend, c @ b, zero), regular_root(backend, b @ c, zero)
    wide_c, wide_d = c[:, None], d[:, None]
    dc = correct(backend, cb, bc, backend.xp.concat([gap[:, None], da + wide_c @ db @ wide_c], axis=1))
    dd = correct(backend, bc, cb, backend.xp.concat([gap_d[:, None], db + wide_d @ da @ wide_d], axis=1))
    backward = _backward_error(backend, a, b, c, d)
    # For a backward error this large, as eigenvalues of too different sizes cause, a first-order step is not reliable.
    extra = backend.xp.where(backward > backend.eps(a) ** 0.25, backward, 0 * backward)[:, None, None, None]
    dc, dd = (backend.xp.concat([step, extra * wide], axis=1) for step, wide in ((dc, wide_c), (dd, wide_d)))
    return Residual(backward, (backend.ldexp(dc, k[:, None, None, None]), backend.ldexp(dd, -k[:, None, None, None])))


def _coupled_tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, **_: Any) -> Arrays:
    """CB dC + dC BC = dA - C dB C, and dD = -D dC D for D = C⁻¹, for the scaled A and B."""
    _, b, ea, eb = normalise_pair(backend, *arrays)
    k = (ea - eb) // 2
    c, d = backend.ldexp(value[0], broadcast_scalar(-k)), backend.ldexp(value[1], broadcast_scalar(k))
    da, db = backend.ldexp(tangents[0], broadcast_scalar(-ea)), backend.ldexp(tangents[1], broadcast_scalar(-eb))
    dc = sylvester_positive(backend, c @ b, b @ c, da - c @ db @ c)
    return backend.ldexp(dc, broadcast_scalar(k)), -backend.ldexp(d @ dc @ d, broadcast_scalar(-k))


def _coupled_cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, **_: Any) -> Arrays:
    _, b, ea, eb = normalise_pair(backend, *arrays)
    k = (ea - eb) // 2
    c, d = adjoint(backend.ldexp(value[0], broadcast_scalar(-k))), adjoint(backend.ldexp(value[1], broadcast_scalar(k)))
    b = adjoint(b)
    bar_c, bar_d = backend.ldexp(cotangents[0], broadcast_scalar(k)), backend.ldexp(cotangents[1], broadcast_scalar(-k))
    y = sylvester_positive(backend, b @ c, c @ b, bar_c - d @ bar_d @ d)
    return backend.ldexp(y, broadcast_scalar(-ea)), -backend.ldexp(c @ y @ c, broadcast_scalar(-eb))


def has_singular_root(backend: Backend, value: Arrays, a: Array, b: Array) -> Array:
    """Where CB, the root of AB, has a zero eigenvalue: there the root has no derivative in some directions."""
    a, b, ea, eb = normalise_pair(backend, a, b)
    return regular_root(
        backend, backend.ldexp(value[0], broadcast_scalar((eb - ea) // 2)) @ b, rank_tolerance(backend, a, None)
    ).singular


def coupled_root(A: ArrayLike[T], B: ArrayLike[T], *, rtol: float | None = None, errors: str = "raise") -> tuple[T, T]:
    """Compute C = A (BA)^{-1/2} and its inverse.

    The sign of [[0, A], [B, 0]] is [[0, C], [C⁻¹, 0]]. With B = I this is the square root of A, and with B = A⁻¹ it is
    A.

    Parameters
    ----------
    A : array_like (..., n, n)
        Square matrices of dtype float32, float64, complex64 or complex128.
    B : array_like (..., n, n)
        Square matrices such that B A has no eigenvalue on the negative real axis.
    rtol : float, optional
        A singular value of at most ``rtol`` times the largest one counts as zero. Default: n eps.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no root: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    C : array (..., n, n)
        The matrices A (BA)^{-1/2}.
    D : array (..., n, n)
        Their inverses; where B A is singular, (BA)^{-1/2} B.

    Raises
    ------
    SpectrumError
        If B A has a negative eigenvalue or a Jordan block at zero, or a member holds NaN or infinity, and
        ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, or the arrays lie on different devices.
    TypeError
        If A or B is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    geometric_mean : The mean of A and B, which is the first result for A and B⁻¹.
    sqrtm_pair : The case B = I.

    Notes
    -----
    The equations are::

        C B C = A,    D A D = B,    D = C⁻¹.

    Newton's method on the two blocks [1]_ costs two inverses a step. For members that are singular or lose digits the
    inverse roots of B A and of A B are computed as well, and of the three results the one with the smallest residual is
    returned. Where B A is singular the inverse root is the one in the sense of the Drazin inverse.

    Both results are differentiable to any order where B A is nonsingular. A member of a batch gives the same bits as in
    a call by itself. Under ``jax.jit`` no error can be raised: a member without a root is NaN.

    The backward error of `certify` is the larger of ‖C B C - A P‖ / (‖C B C‖ + ‖A P‖) and
    ‖D A D - B Q‖ / (‖D A D‖ + ‖B Q‖), with the projectors P = D C and Q = C D, which are I where B A is nonsingular.

    References
    ----------
    .. [1] N. J. Higham, D. S. Mackey, N. Mackey and F. Tisseur, "Functions preserving matrix groups and iterations for
       the matrix square root", SIAM J. Matrix Anal. Appl. 26, 2005, pp. 849-877.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import coupled_root
    >>> A, B = np.array([[2.0, 1.0], [0.0, 3.0]]), np.array([[5.0, 0.0], [1.0, 4.0]])
    >>> C, D = coupled_root(A, B)
    >>> bool(np.linalg.norm(C @ B @ C - A) + np.linalg.norm(C @ D - np.eye(2)) < 1e-13)
    True
    """
    return COUPLED_ROOT(A, B, rtol=rtol, errors=errors)


COUPLED_ROOT = public_function(
    coupled_root,
    "(n,n),(n,n)->(n,n),(n,n)",
    solve=_coupled_in_range,
    residual=_coupled_residual,
    tangent=_coupled_tangent,
    cotangent=_coupled_cotangent,
    unbounded=has_singular_root,
)
