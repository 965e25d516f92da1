"""The geometric mean G = A # B: the coupled root of A and B⁻¹, A (B⁻¹A)^{-1/2}.

It solves G B⁻¹ G = A; for positive definite matrices it is the midpoint of the geodesic from A to B. With V = G B⁻¹ and
W = B⁻¹ G its differential solves  V dG + dG W = dA + V dB W.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from matsign._typing import Array, ArrayLike, Arrays, T
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


def _mean(backend: Backend, a: Array, b: Array, *, rtol: float | None) -> Solution:
    """By factors if A and B are Hermitian and semidefinite, else as a coupled root by blocks."""
    zero = rank_tolerance(backend, a, rtol)
    a, b, ea, eb = normalise_pair(backend, a, b)
    k, low = backend.cholesky(hermitian(a)), backend.cholesky(hermitian(b))
    spread, spread_b = (
        backend.norm(k) * backend.norm(backend.inv(k)),
        backend.norm(low) * backend.norm(backend.inv(low)),
    )
    hermitian_pair = is_hermitian(a) & is_hermitian(b)
    definite = hermitian_pair & (backend.xp.maximum(spread, spread_b) * math.sqrt(zero) < 1)
    # Computed products L Lᴴ are only nearly Hermitian, and for singular ones no other method applies.
    nearly = is_nearly_hermitian(backend, a) & is_nearly_hermitian(backend, b)
    hermitian_pair = hermitian_pair | (nearly & ~(backend.xp.maximum(spread, spread_b) * math.sqrt(zero) < 1))
    swap = spread > spread_b

    def by_cholesky(a: Array, b: Array, k: Array, low: Array, swap: Array, _: Array) -> Solution:
        k, low = _swap(backend, swap, k, low)
        return solution(backend, (_between(backend, k, backend.solve(k, low)),))

    def not_definite(a: Array, b: Array, k: Array, low: Array, swap: Array, hermitian_pair: Array) -> Solution:
        # With I for members that are not Hermitian, as `eigh` does not apply to them.
        one = eye(backend, a) + 0 * a
        x, y = (backend.xp.where(broadcast_scalar(hermitian_pair), hermitian(m), one) for m in (a, b))
        result, semidefinite = _semidefinite(backend, x, y, zero)
        return backend.masked_cond(
            hermitian_pair & semidefinite,
            lambda a, b, result: result,
            lambda a, b, result: _by_blocks(backend, a, b, zero),
            *(a, b, result),
        )

    result = backend.rare_cond(~definite, not_definite, by_cholesky, a, b, k, low, swap, hermitian_pair)
    units = backend.xp.where(result.failure == int(Failure.NOT_DEFINITE), ea - eb, 0 * ea)
    return result._replace(
        value=(backend.ldexp(result.value[0], broadcast_scalar((ea + eb) // 2)),),
        detail=backend.ldexp(result.detail, units[:, None]),
    )


def _swap(backend: Backend, swap: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """(b, a) for the members in `swap`: the mean is symmetric in its arguments, and the better conditioned one comes first."""
    mask = swap.reshape((len(swap),) + (1,) * (a.ndim - 1))
    return backend.xp.where(mask, b, a), backend.xp.where(mask, a, b)


def _between(backend: Backend, k: Array, m: Array) -> Array:
    """K (M Mᴴ)^{1/2} Kᴴ, the mean of K Kᴴ and K M Mᴴ Kᴴ, without squares, which would lose digits."""
    u, values, _ = backend.svd(m)
    half = k @ u * backend.xp.sqrt(values)[:, None, :]
    return half @ adjoint(half)


class _Factor(NamedTuple):
    """L of a semidefinite L Lᴴ, the inverse of L on its range, the projector on the range, smallest and number of eigenvalues."""

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
    """The mean of semidefinite matrices where one range contains the other, and whether both are semidefinite.

    On the larger range one of the two is definite, and the mean is the limit of the means of definite matrices.
    """
    xp = backend.xp
    f, g = _factor(backend, a, rtol), _factor(backend, b, rtol)
    swap = (g.rank > f.rank) | ((g.rank == f.rank) & (g.least > f.least))
    first, second = (_Factor(*(_swap(backend, swap, x, y)[i] for x, y in zip(f, g, strict=True))) for i in (0, 1))
    outside = second.factor - first.projector @ second.factor
    share = backend.norm(outside) / safe_divisor(backend, backend.norm(second.factor))
    # Rounding turns a range by eps over its smallest nonzero eigenvalue.
    angle = 10 * a.shape[-1] * backend.eps(a) * (1 + 1 / xp.minimum(first.least, second.least))
    value = _between(backend, first.factor, first.inverse @ second.factor)
    result = solution(
        backend, (value,), Failure.RANGES_DIFFER, ~(share <= xp.maximum(angle, rtol * backend.ones(a))), detail=share
    )
    return result, f.semidefinite & g.semidefinite


def _by_blocks(backend: Backend, a: Array, b: Array, rtol: float) -> Solution:
    """The coupled root of A and B⁻¹, or of B and A⁻¹ where A is better conditioned."""
    xp = backend.xp
    swap = _better_first(backend, a, b)
    base, other = _swap(backend, swap, b, a)
    base_inverse = backend.inv(base)
    singular = ~xp.isfinite(backend.norm(base_inverse))
    spread = xp.where(singular, backend.ones(a), backend.norm(base) * backend.norm(base_inverse))
    root = coupled_pair(
        backend, other, xp.where(broadcast_scalar(singular), eye(backend, a), base_inverse), rtol=rtol, spread=spread
    )
    negative = root.failure == int(Failure.NEGATIVE_PRODUCT)
    failure = Failure.NOT_DEFINITE.where(backend, negative, root.failure)
    failure = Failure.BOTH_SINGULAR.where(backend, singular, failure)
    # The eigenvalue of inv(b) a, which is the inverse of that of inv(a) b.
    size = safe_divisor(backend, xp.sum(root.detail**2, axis=-1))[:, None]
    inverse_eigenvalue = xp.concat([root.detail[:, :1], -root.detail[:, 1:]], axis=-1) / size
    detail = xp.where((swap & negative)[:, None], inverse_eigenvalue, root.detail)
    return root._replace(value=root.value[:1], failure=failure, detail=detail)


def _better_first(backend: Backend, a: Array, b: Array) -> Array:
    """Where A is better conditioned than B, so that A is to be inverted."""
    # By the operation `inverse`: derivative rules use this, too, and must not factorise in a compiled program.
    inverse_a, inverse_b = inverse(backend, a), inverse(backend, b)
    return ~(
        backend.norm(b) * backend.norm(inverse_b) <= backend.norm(a) * backend.norm(inverse_a)
    ) & backend.xp.isfinite(backend.norm(inverse_a))


def _inverse_on_range(backend: Backend, base: Array, other: Array, rtol: float) -> Array:
    """base⁻¹; for a singular semidefinite pair the inverse on the range of the base."""
    base_inverse = backend.inv(base)
    singular = (
        is_nearly_hermitian(backend, base)
        & is_nearly_hermitian(backend, other)
        & ~(backend.norm(base) * backend.norm(base_inverse) * rtol < 1)
    )

    def on_range(base: Array, base_inverse: Array) -> Array:
        inverse = _factor(backend, hermitian(base), rtol).inverse
        return adjoint(inverse) @ inverse

    return backend.rare_cond(singular, on_range, lambda base, base_inverse: base_inverse, base, base_inverse)


def _mean_residual(backend: Backend, value: tuple[Array], a: Array, b: Array, *, rtol: float | None) -> Residual:
    """G B⁻¹ G = A, or with A and B exchanged, and V dG + dG W = g for the residual and for rounding, V = G B⁻¹, W = B⁻¹ G."""
    zero = rank_tolerance(backend, a, rtol)
    a, b, ea, eb = normalise_pair(backend, a, b)
    half = (ea + eb) // 2
    g = backend.ldexp(value[0], broadcast_scalar(-half))
    base, other = _swap(backend, _better_first(backend, a, b), b, a)
    base_inverse = _inverse_on_range(backend, base, other, zero)
    v, w = g @ base_inverse, base_inverse @ g
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
    """V dG + dG W = dA + V dB W with V = G B⁻¹ and W = B⁻¹ G; or the same with A and B exchanged."""
    (g,), swap = value, _better_first(backend, *(backend.stop_gradient(x) for x in arrays))
    base, _other = _swap(backend, swap, *arrays[::-1])
    d_base, d_other = _swap(backend, swap, *tangents[::-1])
    base_inverse = inverse(backend, base)
    v, w = g @ base_inverse, base_inverse @ g
    return (sylvester_positive(backend, v, w, d_other + v @ d_base @ w),)


def _mean_cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, **_: Any) -> Arrays:
    (g,), swap = value, _better_first(backend, *(backend.stop_gradient(x) for x in arrays))
    base, _other = _swap(backend, swap, *arrays[::-1])
    base_inverse = inverse(backend, base)
    v, w = adjoint(g @ base_inverse), adjoint(base_inverse @ g)
    y = sylvester_positive(backend, v, w, *cotangents)
    return _swap(backend, swap, y, v @ y @ w)


def geometric_mean(A: ArrayLike[T], B: ArrayLike[T], *, rtol: float | None = None, errors: str = "raise") -> T:
    """Compute the geometric mean of two matrices.

    A # B = A (A⁻¹B)^{1/2}. It is symmetric in A and B, and for positive definite matrices the midpoint of the geodesic
    between them.

    Parameters
    ----------
    A : array_like (..., n, n)
        Square matrices of dtype float32, float64, complex64 or complex128.
    B : array_like (..., n, n)
        Square matrices; A and B are Hermitian positive definite, or such that B⁻¹A has no eigenvalue on the closed
        negative real axis.
    rtol : float, optional
        A singular value of at most ``rtol`` times the largest one counts as zero. Default: n eps.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no mean: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    G : array (..., n, n)
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
