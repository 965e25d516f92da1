"""Roots of two matrices: A (BA)^{-1/2} with its inverse, and the geometric mean A # B that it is for B⁻¹.

Both solve a quadratic equation, C B C = A and G B⁻¹ G = A; for positive definite matrices G is the midpoint of the geodesic from
A to B. With W = B⁻¹ G the differential of the mean solves  Wᴴ dG + dG W = dA + Wᴴ dB W.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.operations import Arrays, Solution, overflow_failure, solution
from matsign.core.public import Residual, public_function
from matsign.core.tolerances import rank_tolerance
from matsign.functions.root_corrections import correct, probes, regular_root
from matsign.functions.square_roots import root_pair
from matsign.iterations.block_structures import AntiDiagonal
from matsign.iterations.differentiable_solves import inverse, sylvester_positive
from matsign.iterations.newton import has_converged, newton
from matsign.linalg.stacks import (
    adjoint,
    broadcast_scalar,
    eye,
    hermitian,
    is_hermitian,
    is_nearly_hermitian,
    largest,
    norm,
    safe_divisor,
    scale_to_unit,
    trace,
)

Array = Any


def _normalise_pair(be: Backend, a: Array, b: Array) -> tuple[Array, Array, Array, Array]:
    """`a` and `b` with entries below 1, and the logarithms of their factors, with an even difference.

    Which of the two gives way depends on their sizes and not on their order.
    """
    ea, eb = (be.exponent(largest(be, x)) for x in (a, b))
    odd = (ea - eb) % 2
    ea, eb = be.xp.where(ea > eb, ea + odd, ea), be.xp.where(ea > eb, eb, eb + odd)
    return be.ldexp(a, broadcast_scalar(-ea)), be.ldexp(b, broadcast_scalar(-eb)), ea, eb


def coupled_pair(be: Backend, a: Array, b: Array, *, rtol: float | None, spread: Array | None = None) -> Solution:
    """(C, C⁻¹) of a stack: Newton on the blocks; where they are singular or it loses digits, the best of it and two products.

    `spread` is the relative error of B over rounding, where it is more than that.
    """
    a, b, ea, eb = _normalise_pair(be, a, b)
    k = (ea - eb) // 2
    found = newton(be, AntiDiagonal(a, b))
    first = solution(be, found.value, Failure.NOT_CONVERGED, ~has_converged(be, found), found.steps)
    rtol = rank_tolerance(be, a, rtol)
    sure = found.condition**2 * rtol < 1
    doubtful = (first.failure > 0) | ~sure | ~(_gap(be, a, b, *first.value) < 8 * math.sqrt(a.shape[-1]) * be.eps(a))
    found = be.rare_cond(
        doubtful,
        lambda a, b, spread, first: _best(be, a, b, rtol, spread, first),
        lambda a, b, spread, first: first,
        *(a, b, be.ones(a) if spread is None else spread, first),
    )
    c, d = found.value
    figure = be.ldexp(found.detail, be.xp.where(found.failure == int(Failure.UNCLEAR_ZERO), 0 * ea, ea + eb)[:, None])
    return found._replace(value=(be.ldexp(c, broadcast_scalar(k)), be.ldexp(d, broadcast_scalar(-k))), detail=figure)


def _best(be: Backend, a: Array, b: Array, rtol: float, spread: Array, first: Solution) -> Solution:
    """The first of A (BA)^{-1/2}, (AB)^{-1/2} A and the blocks' own result whose residual is not four times another's.

    The roots of BA and AB may differ by many digits: only one of the products need have a benign condition. A and B say whether
    the result has full rank, and not their product, of which singular values may vanish in rounding.
    """
    xp, n = be.xp, a.shape[-1]
    products = (b @ a, a @ b)
    rounding = n * be.eps(a)
    noise = [rounding * spread * norm(be, a) * norm(be, b) / safe_divisor(be, norm(be, x)) for x in products]
    # The products are not known to better than n eps, whatever `rtol` says.
    by_ba, by_ab = (
        root_pair(be, x, rtol=max(rtol, rounding), method="auto", noise=error)
        for x, error in zip(products, noise, strict=True)
    )
    r, s = by_ba.value[1], by_ab.value[1]
    ways = [by_ba._replace(value=(a @ r, r @ b)), by_ab._replace(value=(s @ a, b @ s))]
    # BA and AB have the same eigenvalues: what one of them cannot tell from a negative one is none for the other.
    negative = [(way.failure == int(Failure.NEGATIVE)) | (way.failure == int(Failure.NEAR_NEGATIVE)) for way in ways]
    valid = [(way.failure == 0) & ~other for way, other in zip(ways, negative[::-1], strict=True)]
    full = [
        ok & (be.real(trace(be, way.value[0] @ way.value[1])) > n - 0.5) for ok, way in zip(valid, ways, strict=True)
    ]
    regular = _is_regular(be, a, rtol) & _is_regular(be, b, rtol)
    # Where the blocks have failed, a product whose eigenvalues drown in its rounding errors does not know better.
    blind = [
        regular & (first.failure > 0) & ~_is_regular(be, x, error) for x, error in zip(products, noise, strict=True)
    ]
    valid = [ok & ~drowned for ok, drowned in zip(valid, blind, strict=True)]
    valid = [ok & (mine | ~(other | regular)) for ok, mine, other in zip(valid, full, full[::-1], strict=True)]
    valid.append((first.failure == 0) & (regular | full[0] | full[1] | ~(valid[0] | valid[1])))
    best, least = be.masked_select(negative[0], ways[0], ways[1]), math.inf * be.ones(a)
    for way, ok in zip((*ways, first), valid, strict=True):
        c, d = way.value
        misfit = _misfits(be, a, b, c, d)
        better = ok & (4 * misfit < least) & (_gap(be, a, b, c, d) < math.sqrt(be.eps(a)))
        best = be.masked_select(better, way, best)
        least = xp.where(better, misfit, least)
    lost = (best.failure == 0) & ~xp.isfinite(least)
    lost = lost | (best.failure == int(Failure.NOT_CONVERGED))
    return best._replace(failure=xp.where(lost, int(Failure.LOST_PRODUCT) + 0 * best.failure, best.failure))


def _is_regular(be: Backend, a: Array, rtol: float | Array) -> Array:
    return norm(be, a) * norm(be, be.inv(a)) * rtol < 1


def _gap(be: Backend, a: Array, b: Array, c: Array, d: Array) -> Array:
    """The residuals beside what rounding of C and D alone does to their equations."""
    a_left, b_left = a @ _projector(d @ c), b @ _projector(c @ d)
    gap = norm(be, c @ b @ c - a_left) / safe_divisor(be, norm(be, c) ** 2 * norm(be, b))
    return gap + norm(be, d @ a @ d - b_left) / safe_divisor(be, norm(be, d) ** 2 * norm(be, a))


def _misfits(be: Backend, a: Array, b: Array, c: Array, d: Array) -> Array:
    """How far C B C = A (D C) and D A D = B (C D) are from true: D C and C D are the projectors off the null spaces, or I."""
    one, two = c @ b @ c, d @ a @ d
    a, b = a @ _projector(d @ c), b @ _projector(c @ d)
    return be.xp.maximum(
        norm(be, a - one) / safe_divisor(be, norm(be, a) + norm(be, one)),
        norm(be, b - two) / safe_divisor(be, norm(be, b) + norm(be, two)),
    )


def _projector(r: Array) -> Array:
    """3R² - 2R³, the projector that R is to first order, to second order."""
    return r @ (3 * r - 2 * r @ r)


def _both_probes(be: Backend, a: Array, b: Array) -> tuple[Array, Array]:
    """Changes of both by rounding, not the same for both."""
    return probes(be, a, norm(be, a)), be.xp.flip(probes(be, b, norm(be, b)), axis=(-2, -1))


def _coupled_in_range(be: Backend, a: Array, b: Array, **options: Any) -> Solution:
    found = coupled_pair(be, a, b, **options)
    c, d = found.value
    return found._replace(failure=overflow_failure(be, c, overflow_failure(be, d, found.failure)))


def _coupled_residual(be: Backend, value: tuple[Array, Array], a: Array, b: Array, *, rtol: float | None) -> Residual:
    """C B C = A (D C) and D A D = B (C D), and CB dC + dC BC for the gaps and for rounding of A and B."""
    c, d = value
    a, b, ea, eb = _normalise_pair(be, a, b)
    k = (ea - eb) // 2
    c, d = be.ldexp(c, broadcast_scalar(-k)), be.ldexp(d, broadcast_scalar(k))
    gap, gap_d = a @ _projector(d @ c) - c @ b @ c, b @ _projector(c @ d) - d @ a @ d
    da, db = _both_probes(be, a, b)
    zero = rank_tolerance(be, a, rtol)
    cb, bc = regular_root(be, c @ b, zero), regular_root(be, b @ c, zero)
    wide_c, wide_d = c[:, None], d[:, None]
    dc = correct(be, cb, bc, be.xp.concat([gap[:, None], da + wide_c @ db @ wide_c], axis=1))
    dd = correct(be, bc, cb, be.xp.concat([gap_d[:, None], db + wide_d @ da @ wide_d], axis=1))
    backward = _misfits(be, a, b, c, d)
    # Of an answer that leaves this much, whose parts are too far apart for the precision, a first-order step says little.
    vague = be.xp.where(backward > be.eps(a) ** 0.25, backward, 0 * backward)[:, None, None, None]
    dc, dd = (be.xp.concat([step, vague * wide], axis=1) for step, wide in ((dc, wide_c), (dd, wide_d)))
    return Residual(backward, (be.ldexp(dc, k[:, None, None, None]), be.ldexp(dd, -k[:, None, None, None])))


def _coupled_tangent(be: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, **_: Any) -> Arrays:
    """CB dC + dC BC = dA - C dB C, and dD = -D dC D for D = C⁻¹, with A and B brought to size."""
    _, b, ea, eb = _normalise_pair(be, *arrays)
    k = (ea - eb) // 2
    c, d = be.ldexp(value[0], broadcast_scalar(-k)), be.ldexp(value[1], broadcast_scalar(k))
    da, db = be.ldexp(tangents[0], broadcast_scalar(-ea)), be.ldexp(tangents[1], broadcast_scalar(-eb))
    dc = sylvester_positive(be, c @ b, b @ c, da - c @ db @ c)
    return be.ldexp(dc, broadcast_scalar(k)), -be.ldexp(d @ dc @ d, broadcast_scalar(-k))


def _coupled_cotangent(be: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, **_: Any) -> Arrays:
    _, b, ea, eb = _normalise_pair(be, *arrays)
    k = (ea - eb) // 2
    c, d = adjoint(be.ldexp(value[0], broadcast_scalar(-k))), adjoint(be.ldexp(value[1], broadcast_scalar(k)))
    b = adjoint(b)
    bar_c, bar_d = be.ldexp(cotangents[0], broadcast_scalar(k)), be.ldexp(cotangents[1], broadcast_scalar(-k))
    y = sylvester_positive(be, b @ c, c @ b, bar_c - d @ bar_d @ d)
    return be.ldexp(y, broadcast_scalar(-ea)), -be.ldexp(c @ y @ c, broadcast_scalar(-eb))


def _is_singular(be: Backend, value: Arrays, a: Array, b: Array) -> Array:
    """Where CB, the root of AB, has zero for an eigenvalue: as at zero itself, the root has no derivative in every direction."""
    a, b, ea, eb = _normalise_pair(be, a, b)
    return regular_root(
        be, be.ldexp(value[0], broadcast_scalar((eb - ea) // 2)) @ b, rank_tolerance(be, a, None)
    ).singular


def coupled_root(A: Array, B: Array, *, rtol: float | None = None, errors: str = "raise") -> tuple[Array, Array]:
    """Compute C = A (BA)^{-1/2} and its inverse.

    The sign of [[0, A], [B, 0]] is [[0, C], [C⁻¹, 0]]. With B = I this is the square root of A, and with B = A⁻¹ it is
    A.

    Parameters
    ----------
    A : array_like, shape (..., n, n)
        Square matrices of dtype float32, float64, complex64 or complex128.
    B : array_like, shape (..., n, n)
        Square matrices such that B A has no eigenvalue on the negative real axis.
    rtol : float, optional
        A singular value of at most ``rtol`` times the largest one counts as zero. Default: n eps.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no root: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    C : array, shape (..., n, n)
        The matrices A (BA)^{-1/2}.
    D : array, shape (..., n, n)
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
    unbounded=_is_singular,
)


def _mean(be: Backend, a: Array, b: Array, *, rtol: float | None) -> Solution:
    """By factors where both are Hermitian and none is indefinite, by A (A⁻¹B)^{1/2} through the blocks otherwise."""
    zero = rank_tolerance(be, a, rtol)
    a, b, ea, eb = _normalise_pair(be, a, b)
    k, low = be.cholesky(hermitian(a)), be.cholesky(hermitian(b))
    spread, spread_b = norm(be, k) * norm(be, be.inv(k)), norm(be, low) * norm(be, be.inv(low))
    matched = is_hermitian(a) & is_hermitian(b)
    definite = matched & (be.xp.maximum(spread, spread_b) * math.sqrt(zero) < 1)
    # Rounding leaves products of the form L Lᴴ only nearly Hermitian, and of the singular ones nothing else can be made.
    nearly = is_nearly_hermitian(be, a) & is_nearly_hermitian(be, b)
    matched = matched | (nearly & ~(be.xp.maximum(spread, spread_b) * math.sqrt(zero) < 1))
    swap = spread > spread_b

    def by_cholesky(a: Array, b: Array, k: Array, low: Array, swap: Array, _: Array) -> Solution:
        k, low = _swap(be, swap, k, low)
        return solution(be, (_between(be, k, be.solve(k, low)),))

    def otherwise(a: Array, b: Array, k: Array, low: Array, swap: Array, matched: Array) -> Solution:
        # With ones for those that are not Hermitian: eigenvectors of anything else mean nothing.
        one = eye(be, a) + 0 * a
        x, y = (be.xp.where(broadcast_scalar(matched), hermitian(m), one) for m in (a, b))
        found, semidefinite = _semidefinite(be, x, y, zero)
        return be.masked_cond(
            matched & semidefinite,
            lambda a, b, found: found,
            lambda a, b, found: _by_blocks(be, a, b, zero),
            *(a, b, found),
        )

    found = be.rare_cond(~definite, otherwise, by_cholesky, a, b, k, low, swap, matched)
    units = be.xp.where(found.failure == int(Failure.NOT_DEFINITE), ea - eb, 0 * ea)
    return found._replace(
        value=(be.ldexp(found.value[0], broadcast_scalar((ea + eb) // 2)),),
        detail=be.ldexp(found.detail, units[:, None]),
    )


def _swap(be: Backend, swap: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """(b, a) for the members in `swap`: the mean is symmetric in its arguments, and the better conditioned one comes first."""
    mask = swap.reshape((len(swap),) + (1,) * (a.ndim - 1))
    return be.xp.where(mask, b, a), be.xp.where(mask, a, b)


def _between(be: Backend, k: Array, m: Array) -> Array:
    """K (M Mᴴ)^{1/2} Kᴴ, the mean of K Kᴴ and K M Mᴴ Kᴴ. Nothing is squared, so no digits are lost that the data had."""
    u, values, _ = be.svd(m)
    half = k @ u * be.xp.sqrt(values)[:, None, :]
    return half @ adjoint(half)


class _Factor(NamedTuple):
    """L of a semidefinite L Lᴴ, the inverse of L on its range, the projector on that, and least and number of its eigenvalues."""

    factor: Array
    inverse: Array
    projector: Array
    least: Array
    rank: Array
    semidefinite: Array


def _factor(be: Backend, a: Array, rtol: float) -> _Factor:
    values, v = be.eigh(a)
    xp, top = be.xp, be.xp.maximum(-values[:, :1], values[:, -1:])
    kept = values > rtol * top
    root = xp.sqrt(xp.where(kept, values, xp.ones_like(values)))
    ones = xp.astype(kept, values.dtype)
    base = v * ones[:, None, :]
    least = xp.min(xp.where(kept, values, math.inf * xp.ones_like(values)), axis=-1) / safe_divisor(be, top[:, 0])
    return _Factor(
        base * root[:, None, :],
        adjoint(base / root[:, None, :]),
        base @ adjoint(base),
        least,
        xp.sum(ones, axis=-1),
        values[:, 0] >= -rtol * top[:, 0],
    )


def _semidefinite(be: Backend, a: Array, b: Array, rtol: float) -> tuple[Solution, Array]:
    """The mean of semidefinite matrices, the range of one of which holds that of the other, and whether they are semidefinite.

    On the larger range the other one is definite, and the mean is the limit of the means of definite matrices.
    """
    xp = be.xp
    f, g = _factor(be, a, rtol), _factor(be, b, rtol)
    swap = (g.rank > f.rank) | ((g.rank == f.rank) & (g.least > f.least))
    first, second = (_Factor(*(_swap(be, swap, x, y)[i] for x, y in zip(f, g, strict=True))) for i in (0, 1))
    outside = second.factor - first.projector @ second.factor
    leaves = norm(be, outside) / safe_divisor(be, norm(be, second.factor))
    # By rounding a range turns by eps over the smallest eigenvalue that counts.
    turned = 10 * a.shape[-1] * be.eps(a) * (1 + 1 / xp.minimum(first.least, second.least))
    value = _between(be, first.factor, first.inverse @ second.factor)
    found = solution(
        be, (value,), Failure.RANGES_DIFFER, ~(leaves <= xp.maximum(turned, rtol * be.ones(a))), detail=leaves
    )
    return found, f.semidefinite & g.semidefinite


def _by_blocks(be: Backend, a: Array, b: Array, rtol: float) -> Solution:
    """C for A and B⁻¹, or for B and A⁻¹ where that is the better conditioned inverse."""
    xp = be.xp
    swap = _better_first(be, a, b)
    base, other = _swap(be, swap, b, a)
    back = be.inv(base)
    singular = ~xp.isfinite(norm(be, back))
    spread = xp.where(singular, be.ones(a), norm(be, base) * norm(be, back))
    root = coupled_pair(be, other, xp.where(broadcast_scalar(singular), eye(be, a), back), rtol=rtol, spread=spread)
    negative = (root.failure == int(Failure.NEGATIVE)) | (root.failure == int(Failure.NEAR_NEGATIVE))
    failure = xp.where(negative, int(Failure.NOT_DEFINITE) + 0 * root.failure, root.failure)
    failure = xp.where(singular, int(Failure.BOTH_SINGULAR) + 0 * failure, failure)
    # The eigenvalue of inv(b) a, which is the inverse of that of inv(a) b.
    size = safe_divisor(be, xp.sum(root.detail**2, axis=-1))[:, None]
    flipped = xp.concat([root.detail[:, :1], -root.detail[:, 1:]], axis=-1) / size
    detail = xp.where((swap & negative)[:, None], flipped, root.detail)
    return root._replace(value=root.value[:1], failure=failure, detail=detail)


def _better_first(be: Backend, a: Array, b: Array) -> Array:
    """Where A and not B is to be inverted, the one of the smaller condition number."""
    # By steps of their own: this stands in a derivative rule, too, where nothing may be factorised in a compiled program.
    back_a, back_b = inverse(be, a), inverse(be, b)
    return ~(norm(be, b) * norm(be, back_b) <= norm(be, a) * norm(be, back_a)) & be.xp.isfinite(norm(be, back_a))


def _inverse_on_range(be: Backend, base: Array, other: Array, rtol: float) -> Array:
    """base⁻¹; for a singular semidefinite pair that on the range of the base."""
    back = be.inv(base)
    poor = (
        is_nearly_hermitian(be, base) & is_nearly_hermitian(be, other) & ~(norm(be, base) * norm(be, back) * rtol < 1)
    )

    def on_range(base: Array, back: Array) -> Array:
        inverse = _factor(be, hermitian(base), rtol).inverse
        return adjoint(inverse) @ inverse

    return be.rare_cond(poor, on_range, lambda base, back: back, base, back)


def _mean_residual(be: Backend, value: tuple[Array], a: Array, b: Array, *, rtol: float | None) -> Residual:
    """G B⁻¹ G = A, or the same with A and B exchanged, and V dG + dG W = the gap and rounding of both, V = G B⁻¹, W = B⁻¹ G."""
    zero = rank_tolerance(be, a, rtol)
    a, b, ea, eb = _normalise_pair(be, a, b)
    half = (ea + eb) // 2
    g = be.ldexp(value[0], broadcast_scalar(-half))
    base, other = _swap(be, _better_first(be, a, b), b, a)
    back = _inverse_on_range(be, base, other, zero)
    v, w = g @ back, back @ g
    # G B⁻¹ G by a Cholesky factor where there is one, which halves the digits that an ill-conditioned B costs.
    low = be.cholesky(hermitian(base))
    half_term = be.solve(low, g)
    factored = is_hermitian(base) & is_hermitian(g) & be.xp.isfinite(norm(be, half_term))
    term = be.xp.where(broadcast_scalar(factored), adjoint(half_term) @ half_term, v @ g)
    gap = other - term
    da, db = _both_probes(be, other, base)
    step = correct(
        be,
        regular_root(be, v, zero),
        regular_root(be, w, zero),
        be.xp.concat([gap[:, None], da + v[:, None] @ db @ w[:, None]], axis=1),
    )
    backward = norm(be, gap) / safe_divisor(be, norm(be, other) + norm(be, term))
    return Residual(backward, (be.ldexp(step, half[:, None, None, None]),))


def _mean_tangent(be: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, **_: Any) -> Arrays:
    """V dG + dG W = dA + V dB W with V = G B⁻¹ and W = B⁻¹ G, the adjoint of V for a Hermitian pair; or A and B exchanged."""
    (g,), swap = value, _better_first(be, *(be.stop_gradient(x) for x in arrays))
    base, _other = _swap(be, swap, *arrays[::-1])
    moved_base, moved = _swap(be, swap, *tangents[::-1])
    back = inverse(be, base)
    v, w = g @ back, back @ g
    return (sylvester_positive(be, v, w, moved + v @ moved_base @ w),)


def _mean_cotangent(be: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, **_: Any) -> Arrays:
    (g,), swap = value, _better_first(be, *(be.stop_gradient(x) for x in arrays))
    base, _other = _swap(be, swap, *arrays[::-1])
    back = inverse(be, base)
    v, w = adjoint(g @ back), adjoint(back @ g)
    y = sylvester_positive(be, v, w, *cotangents)
    return _swap(be, swap, y, v @ y @ w)


def geometric_mean(A: Array, B: Array, *, rtol: float | None = None, errors: str = "raise") -> Array:
    """Compute the geometric mean of two matrices.

    A # B = A (A⁻¹B)^{1/2}. It is symmetric in A and B, and for positive definite matrices the midpoint of the geodesic
    between them.

    Parameters
    ----------
    A : array_like, shape (..., n, n)
        Square matrices of dtype float32, float64, complex64 or complex128.
    B : array_like, shape (..., n, n)
        Square matrices; A and B are Hermitian positive definite, or such that B⁻¹A has no eigenvalue on the closed
        negative real axis.
    rtol : float, optional
        A singular value of at most ``rtol`` times the largest one counts as zero. Default: n eps.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no mean: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    G : array, shape (..., n, n)
        The means, Hermitian where A and B are.

    Raises
    ------
    SpectrumError
        If there is no mean: B⁻¹A has an eigenvalue on the negative real axis or within rounding of it, A and B are both
        singular and not semidefinite, or they are semidefinite and the range of neither contains that of the other; or
        if a member holds NaN or infinity; and ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, or the arrays lie on different devices.
    TypeError
        If A or B is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    coupled_root : Also for products that are not means.
    sqrtm : The mean of A and I.

    Notes
    -----
    The equation is::

        G B⁻¹ G = A.

    A positive definite pair is solved by two Cholesky factorisations and one singular value decomposition (for the
    theory see [1]_), other pairs by the sign of [[0, A], [B⁻¹, 0]], where the better conditioned of A and B takes the
    place of B. A semidefinite pair has the limit of the means of definite ones, if the range of one contains that of
    the other.

    The mean is differentiable to any order where A and B are nonsingular. A member of a batch gives the same bits as in
    a call by itself. Under ``jax.jit`` no error can be raised: a member without a mean is NaN.

    The backward error of `certify` is ‖G B⁻¹ G - A‖ / (‖G B⁻¹ G‖ + ‖A‖), with A and B exchanged where A has the smaller
    condition number.

    References
    ----------
    .. [1] R. Bhatia, "Positive Definite Matrices", Princeton University Press, 2007, doi:10.1515/9781400827787.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import geometric_mean
    >>> A, B = np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([[5.0, 0.0], [0.0, 1.0]])
    >>> G = geometric_mean(A, B)
    >>> bool(np.linalg.norm(G @ np.linalg.inv(B) @ G - A) < 1e-14)
    True
    """
    return GEOMETRIC_MEAN(A, B, rtol=rtol, errors=errors)


GEOMETRIC_MEAN = public_function(
    geometric_mean,
    "(n,n),(n,n)->(n,n)",
    solve=_mean,
    residual=_mean_residual,
    tangent=_mean_tangent,
    cotangent=_mean_cotangent,
    unbounded=lambda be, value, a, b: (
        regular_root(be, scale_to_unit(be, value[0])[0], rank_tolerance(be, a, None)).singular
    ),
)
