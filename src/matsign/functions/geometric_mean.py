"""Roots of two matrices: A (BA)^{-1/2} with its inverse, and the geometric mean A # B that it is for B⁻¹.

Both solve a quadratic equation, C B C = A and G B⁻¹ G = A; for positive definite matrices G is the midpoint of the geodesic from
A to B. With W = B⁻¹ G the differential of the mean solves  Wᴴ dG + dG W = dA + Wᴴ dB W.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from matsign._typing import Arrays
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.members import Solution, solution
from matsign.core.public import Residual, public_function
from matsign.core.tolerances import rank_tolerance
from matsign.functions.coupled_root import both_probes, coupled_pair, normalise_pair
from matsign.functions.root_corrections import correct, regular_root
from matsign.iterations.differentiable_solves import inverse, sylvester_positive
from matsign.linalg.stacks import (
    adjoint,
    broadcast_scalar,
    eye,
    hermitian,
    is_hermitian,
    is_nearly_hermitian,
    safe_divisor,
    scale_to_unit,
)

Array = Any


def _mean(backend: Backend, a: Array, b: Array, *, rtol: float | None) -> Solution:
    """By factors where both are Hermitian and none is indefinite, by A (A⁻¹B)^{1/2} through the blocks otherwise."""
    zero = rank_tolerance(backend, a, rtol)
    a, b, ea, eb = normalise_pair(backend, a, b)
    k, low = backend.cholesky(hermitian(a)), backend.cholesky(hermitian(b))
    spread, spread_b = (
        backend.norm(k) * backend.norm(backend.inv(k)),
        backend.norm(low) * backend.norm(backend.inv(low)),
    )
    matched = is_hermitian(a) & is_hermitian(b)
    definite = matched & (backend.xp.maximum(spread, spread_b) * math.sqrt(zero) < 1)
    # Rounding leaves products of the form L Lᴴ only nearly Hermitian, and of the singular ones nothing else can be made.
    nearly = is_nearly_hermitian(backend, a) & is_nearly_hermitian(backend, b)
    matched = matched | (nearly & ~(backend.xp.maximum(spread, spread_b) * math.sqrt(zero) < 1))
    swap = spread > spread_b

    def by_cholesky(a: Array, b: Array, k: Array, low: Array, swap: Array, _: Array) -> Solution:
        k, low = _swap(backend, swap, k, low)
        return solution(backend, (_between(backend, k, backend.solve(k, low)),))

    def otherwise(a: Array, b: Array, k: Array, low: Array, swap: Array, matched: Array) -> Solution:
        # With ones for those that are not Hermitian: eigenvectors of anything else mean nothing.
        one = eye(backend, a) + 0 * a
        x, y = (backend.xp.where(broadcast_scalar(matched), hermitian(m), one) for m in (a, b))
        found, semidefinite = _semidefinite(backend, x, y, zero)
        return backend.masked_cond(
            matched & semidefinite,
            lambda a, b, found: found,
            lambda a, b, found: _by_blocks(backend, a, b, zero),
            *(a, b, found),
        )

    found = backend.rare_cond(~definite, otherwise, by_cholesky, a, b, k, low, swap, matched)
    units = backend.xp.where(found.failure == int(Failure.NOT_DEFINITE), ea - eb, 0 * ea)
    return found._replace(
        value=(backend.ldexp(found.value[0], broadcast_scalar((ea + eb) // 2)),),
        detail=backend.ldexp(found.detail, units[:, None]),
    )


def _swap(backend: Backend, swap: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """(b, a) for the members in `swap`: the mean is symmetric in its arguments, and the better conditioned one comes first."""
    mask = swap.reshape((len(swap),) + (1,) * (a.ndim - 1))
    return backend.xp.where(mask, b, a), backend.xp.where(mask, a, b)


def _between(backend: Backend, k: Array, m: Array) -> Array:
    """K (M Mᴴ)^{1/2} Kᴴ, the mean of K Kᴴ and K M Mᴴ Kᴴ. Nothing is squared, so no digits are lost that the data had."""
    u, values, _ = backend.svd(m)
    half = k @ u * backend.xp.sqrt(values)[:, None, :]
    return half @ adjoint(half)


class _Factor(NamedTuple):
    """L of a semidefinite L Lᴴ, the inverse of L on its range, the projector on that, and least and number of its eigenvalues."""

    factor: Array
    inverse: Array
    projector: Array
    least: Array
    rank: Array
    semidefinite: Array


def _factor(backend: Backend, a: Array, rtol: float) -> _Factor:
    values, v = backend.eigh(a)
    xp, top = backend.xp, backend.xp.maximum(-values[:, :1], values[:, -1:])
    kept = values > rtol * top
    root = xp.sqrt(xp.where(kept, values, xp.ones_like(values)))
    ones = xp.astype(kept, values.dtype)
    base = v * ones[:, None, :]
    least = xp.min(xp.where(kept, values, math.inf * xp.ones_like(values)), axis=-1) / safe_divisor(backend, top[:, 0])
    return _Factor(
        base * root[:, None, :],
        adjoint(base / root[:, None, :]),
        base @ adjoint(base),
        least,
        xp.sum(ones, axis=-1),
        values[:, 0] >= -rtol * top[:, 0],
    )


def _semidefinite(backend: Backend, a: Array, b: Array, rtol: float) -> tuple[Solution, Array]:
    """The mean of semidefinite matrices, the range of one of which holds that of the other, and whether they are semidefinite.

    On the larger range the other one is definite, and the mean is the limit of the means of definite matrices.
    """
    xp = backend.xp
    f, g = _factor(backend, a, rtol), _factor(backend, b, rtol)
    swap = (g.rank > f.rank) | ((g.rank == f.rank) & (g.least > f.least))
    first, second = (_Factor(*(_swap(backend, swap, x, y)[i] for x, y in zip(f, g, strict=True))) for i in (0, 1))
    outside = second.factor - first.projector @ second.factor
    leaves = backend.norm(outside) / safe_divisor(backend, backend.norm(second.factor))
    # By rounding a range turns by eps over the smallest eigenvalue that counts.
    turned = 10 * a.shape[-1] * backend.eps(a) * (1 + 1 / xp.minimum(first.least, second.least))
    value = _between(backend, first.factor, first.inverse @ second.factor)
    found = solution(
        backend, (value,), Failure.RANGES_DIFFER, ~(leaves <= xp.maximum(turned, rtol * backend.ones(a))), detail=leaves
    )
    return found, f.semidefinite & g.semidefinite


def _by_blocks(backend: Backend, a: Array, b: Array, rtol: float) -> Solution:
    """C for A and B⁻¹, or for B and A⁻¹ where that is the better conditioned inverse."""
    xp = backend.xp
    swap = _better_first(backend, a, b)
    base, other = _swap(backend, swap, b, a)
    back = backend.inv(base)
    singular = ~xp.isfinite(backend.norm(back))
    spread = xp.where(singular, backend.ones(a), backend.norm(base) * backend.norm(back))
    root = coupled_pair(
        backend, other, xp.where(broadcast_scalar(singular), eye(backend, a), back), rtol=rtol, spread=spread
    )
    negative = (root.failure == int(Failure.NEGATIVE)) | (root.failure == int(Failure.NEAR_NEGATIVE))
    failure = Failure.NOT_DEFINITE.where(backend, negative, root.failure)
    failure = Failure.BOTH_SINGULAR.where(backend, singular, failure)
    # The eigenvalue of inv(b) a, which is the inverse of that of inv(a) b.
    size = safe_divisor(backend, xp.sum(root.detail**2, axis=-1))[:, None]
    flipped = xp.concat([root.detail[:, :1], -root.detail[:, 1:]], axis=-1) / size
    detail = xp.where((swap & negative)[:, None], flipped, root.detail)
    return root._replace(value=root.value[:1], failure=failure, detail=detail)


def _better_first(backend: Backend, a: Array, b: Array) -> Array:
    """Where A and not B is to be inverted, the one of the smaller condition number."""
    # By steps of their own: this stands in a derivative rule, too, where nothing may be factorised in a compiled program.
    back_a, back_b = inverse(backend, a), inverse(backend, b)
    return ~(backend.norm(b) * backend.norm(back_b) <= backend.norm(a) * backend.norm(back_a)) & backend.xp.isfinite(
        backend.norm(back_a)
    )


def _inverse_on_range(backend: Backend, base: Array, other: Array, rtol: float) -> Array:
    """base⁻¹; for a singular semidefinite pair that on the range of the base."""
    back = backend.inv(base)
    poor = (
        is_nearly_hermitian(backend, base)
        & is_nearly_hermitian(backend, other)
        & ~(backend.norm(base) * backend.norm(back) * rtol < 1)
    )

    def on_range(base: Array, back: Array) -> Array:
        inverse = _factor(backend, hermitian(base), rtol).inverse
        return adjoint(inverse) @ inverse

    return backend.rare_cond(poor, on_range, lambda base, back: back, base, back)


def _mean_residual(backend: Backend, value: tuple[Array], a: Array, b: Array, *, rtol: float | None) -> Residual:
    """G B⁻¹ G = A, or the same with A and B exchanged, and V dG + dG W = the gap and rounding of both, V = G B⁻¹, W = B⁻¹ G."""
    zero = rank_tolerance(backend, a, rtol)
    a, b, ea, eb = normalise_pair(backend, a, b)
    half = (ea + eb) // 2
    g = backend.ldexp(value[0], broadcast_scalar(-half))
    base, other = _swap(backend, _better_first(backend, a, b), b, a)
    back = _inverse_on_range(backend, base, other, zero)
    v, w = g @ back, back @ g
    # G B⁻¹ G by a Cholesky factor where there is one, which halves the digits that an ill-conditioned B costs.
    low = backend.cholesky(hermitian(base))
    half_term = backend.solve(low, g)
    factored = is_hermitian(base) & is_hermitian(g) & backend.xp.isfinite(backend.norm(half_term))
    term = backend.xp.where(broadcast_scalar(factored), adjoint(half_term) @ half_term, v @ g)
    gap = other - term
    da, db = both_probes(backend, other, base)
    step = correct(
        backend,
        regular_root(backend, v, zero),
        regular_root(backend, w, zero),
        backend.xp.concat([gap[:, None], da + v[:, None] @ db @ w[:, None]], axis=1),
    )
    backward = backend.norm(gap) / safe_divisor(backend, backend.norm(other) + backend.norm(term))
    return Residual(backward, (backend.ldexp(step, half[:, None, None, None]),))


def _mean_tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, **_: Any) -> Arrays:
    """V dG + dG W = dA + V dB W with V = G B⁻¹ and W = B⁻¹ G, the adjoint of V for a Hermitian pair; or A and B exchanged."""
    (g,), swap = value, _better_first(backend, *(backend.stop_gradient(x) for x in arrays))
    base, _other = _swap(backend, swap, *arrays[::-1])
    moved_base, moved = _swap(backend, swap, *tangents[::-1])
    back = inverse(backend, base)
    v, w = g @ back, back @ g
    return (sylvester_positive(backend, v, w, moved + v @ moved_base @ w),)


def _mean_cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, **_: Any) -> Arrays:
    (g,), swap = value, _better_first(backend, *(backend.stop_gradient(x) for x in arrays))
    base, _other = _swap(backend, swap, *arrays[::-1])
    back = inverse(backend, base)
    v, w = adjoint(g @ back), adjoint(back @ g)
    y = sylvester_positive(backend, v, w, *cotangents)
    return _swap(backend, swap, y, v @ y @ w)


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
    unbounded=lambda backend, value, a, b: (
        regular_root(backend, scale_to_unit(backend, value[0])[0], rank_tolerance(backend, a, None)).singular
    ),
)
