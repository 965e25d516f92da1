"""The geometric mean G = A # B: the coupled root of A and B⁻¹, A (B⁻¹A)^{-1/2}. `weighted_mean` has other weights.

It solves G B⁻¹ G = A; for positive definite matrices it is the midpoint of the geodesic from A to B. With V = G B⁻¹ and
W = B⁻¹ G its differential solves  V dG + dG W = dA + V dB W.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from matsign._typing import Array, ArrayLike, Arrays, NumberLike, T
from matsign.backends import Backend
from matsign.core.public import Residual, public_function
from matsign.core.tolerances import rank_tolerance
from matsign.functions.means.decimal_derivatives import decimal_cotangents, decimal_tangent
from matsign.functions.means.geodesic import geodesic_cotangent, geodesic_residual, geodesic_tangent
from matsign.functions.means.geometric_mean_methods import (
    better_first,
    check_weight,
    solve_mean,
)
from matsign.functions.means.graded_certificates import with_graded_residual
from matsign.functions.means.graded_pairs import in_units_of_definite, rounding_of_powers
from matsign.functions.means.mean_reduction import RegularPair, graded_members, regular_pair
from matsign.functions.means.semidefinite_mean import MIDPOINT, factor_on_range, swap_members
from matsign.functions.means.weighted_mean import weighted_cotangent, weighted_residual, weighted_tangent
from matsign.functions.powers.clipped_eigenvalues import CLIPPED, clipped_share
from matsign.functions.powers.coupled_root import both_probes, normalise_pair
from matsign.functions.powers.power_certificates import is_singular
from matsign.functions.powers.root_corrections import correct, regular_root
from matsign.iterations.differentiable_solves import inverse, sylvester_positive
from matsign.linalg.equilibration import rescale
from matsign.linalg.stacks import (
    adjoint,
    all_false,
    broadcast_scalar,
    eye,
    hermitian,
    is_hermitian,
    is_nearly_hermitian,
    safe_divisor,
    scale_to_unit,
)


def _inverse_on_range(backend: Backend, base: Array, other: Array, rtol: float) -> Array:
    """base⁻¹; for a singular semidefinite pair the inverse on the range of the base."""
    base_inverse = backend.inv(base)
    singular = (
        is_nearly_hermitian(backend, base)
        & is_nearly_hermitian(backend, other)
        & ~(backend.norm(base) * backend.norm(base_inverse) * rtol < 1)
    )

    def on_range(base: Array, base_inverse: Array) -> Array:
        inverse = factor_on_range(backend, hermitian(base), rtol).inverse
        return adjoint(inverse) @ inverse

    return backend.rare_cond(singular, on_range, lambda base, base_inverse: base_inverse, base, base_inverse)


def _residual(backend: Backend, value: tuple[Array], a: Array, b: Array, *, t: Any, rtol: float | None) -> Residual:
    measured = _errors(backend, value, a, b, t=t, rtol=rtol)
    return measured._replace(measures=(_clipped_share(backend, a, b, t, rtol),))


def _clipped_share(backend: Backend, a: Array, b: Array, t: Any, rtol: float | None) -> Array:
    """The negative eigenvalues that counted as zero; none of a pair that is definite in other units, or where t is 0 or 1."""
    a, b, _, _ = normalise_pair(backend, a, b)
    x, y, _, factors = in_units_of_definite(backend, a, b, rtol)
    share = backend.xp.maximum(*(clipped_share(backend, m, rtol) for m in (x, y)))
    definite = factors.definite(backend, rank_tolerance(backend, a, rtol))
    return backend.xp.where(definite | (t == 0) | (t == 1), backend.xp.zeros_like(share), share)


def _errors(backend: Backend, value: tuple[Array], a: Array, b: Array, *, t: Any, rtol: float | None) -> Residual:
    if not isinstance(t, float):
        return geodesic_residual(backend, value, a, b, t=t, rtol=rtol)
    if t not in (0, 1):
        by_number = partial(_midpoint_residual if t == MIDPOINT else weighted_residual, t=float(t))
        measured = by_number(backend, value, a, b, rtol=rtol)
        return with_graded_residual(backend, measured, value[0], a, b, float(t), rtol)
    end = b if t else a
    gap = value[0] - end
    return Residual(backend.norm(gap) / safe_divisor(backend, backend.norm(end)), (gap,))


def _midpoint_residual(
    backend: Backend, value: tuple[Array], a: Array, b: Array, *, t: float, rtol: float | None
) -> Residual:
    """G B⁻¹ G = A, or with A and B exchanged, and V dG + dG W = g for the residual and for rounding, V = G B⁻¹, W = B⁻¹ G."""
    zero = rank_tolerance(backend, a, rtol)
    a, b, ea, eb = normalise_pair(backend, a, b)
    half = (ea + eb) // 2
    a, b, u, factors = in_units_of_definite(backend, a, b, rtol)
    g = rescale(backend, backend.ldexp(value[0], broadcast_scalar(-half)), u, u)
    base, other = swap_members(backend, better_first(backend, a, b), b, a)
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
    rounding = rounding_of_powers(backend, factors, MIDPOINT, zero)[:, None]
    step = rescale(backend, backend.xp.concat([step, rounding + 0 * step[:, :1]], axis=1), -u[:, None], -u[:, None])
    return Residual(backward, (backend.ldexp(step, half[:, None, None, None]),))


def _tangent(
    backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, t: Any, rtol: float | None
) -> Arrays:
    if isinstance(t, float) and t in (0, 1):
        return (tangents[1 if t else 0],)
    apart = graded_members(backend, arrays[0], arrays[1], t, rtol)
    p = regular_pair(backend, *value, *arrays[:2], t=t, rtol=rtol, apart=apart)
    steps = (*p.inward(backend, *tangents[:2]), *tangents[2:])
    step = p.outward(backend, _regular_tangent(backend, p, steps, t, rtol))
    if apart is None:
        return (step,)
    graded = decimal_tangent(backend, *_or_identity(backend, apart, arrays), tangents, t)
    return (backend.xp.where(broadcast_scalar(apart), graded, step),)


def _or_identity(backend: Backend, apart: Array, arrays: Arrays) -> tuple[Array, Array]:
    """A and B, with I for the members that are not graded apart."""
    a, b = (backend.xp.where(broadcast_scalar(apart), x, eye(backend, x)) for x in arrays[:2])
    return a, b


def _regular_tangent(backend: Backend, p: RegularPair, steps: Arrays, t: Any, rtol: float | None) -> Array:
    value, pair = (p.value,), (p.a, p.b)
    if not isinstance(t, float):
        return geodesic_tangent(backend, value, pair, steps, t=t)[0]
    if t == MIDPOINT:
        return _midpoint_tangent(backend, value, pair, steps[:2])[0]
    return weighted_tangent(backend, value, pair, steps[:2], t=t, rtol=rtol)[0]


def _midpoint_tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays) -> Arrays:
    """V dG + dG W = dA + V dB W with V = G B⁻¹ and W = B⁻¹ G; or the same with A and B exchanged."""
    (g,), swap = value, better_first(backend, *(backend.stop_gradient(x) for x in arrays))
    base, _other = swap_members(backend, swap, *arrays[::-1])
    d_base, d_other = swap_members(backend, swap, *tangents[::-1])
    base_inverse = inverse(backend, base)
    v, w = g @ base_inverse, base_inverse @ g
    return (sylvester_positive(backend, v, w, d_other + v @ d_base @ w),)


def _cotangent(
    backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, t: Any, rtol: float | None
) -> Arrays:
    (bar,) = cotangents
    if isinstance(t, float) and t in (0, 1):
        zero = backend.xp.zeros_like(bar)
        return (zero, bar) if t else (bar, zero)
    apart = graded_members(backend, arrays[0], arrays[1], t, rtol)
    p = regular_pair(backend, *value, *arrays[:2], t=t, rtol=rtol, apart=apart)
    bar_a, bar_b, *of_t = _regular_cotangent(backend, p, p.adjoint_outward(backend, bar), t, rtol)
    bars = p.adjoint_inward(backend, bar_a, bar_b)
    if apart is None:
        return (*bars, *of_t)
    graded = decimal_cotangents(backend, *_or_identity(backend, apart, arrays), bar, t)
    return tuple(backend.xp.where(broadcast_scalar(apart), x, y) for x, y in zip(graded, bars, strict=True))


def _regular_cotangent(backend: Backend, p: RegularPair, bar: Array, t: Any, rtol: float | None) -> Arrays:
    value, pair = (p.value,), (p.a, p.b)
    if not isinstance(t, float):
        return geodesic_cotangent(backend, value, pair, (bar,), t=t)
    if t == MIDPOINT:
        return _midpoint_cotangent(backend, value, pair, (bar,))
    return weighted_cotangent(backend, value, pair, (bar,), t=t, rtol=rtol)


def _midpoint_cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays) -> Arrays:
    (g,), swap = value, better_first(backend, *(backend.stop_gradient(x) for x in arrays))
    base, _other = swap_members(backend, swap, *arrays[::-1])
    base_inverse = inverse(backend, base)
    v, w = adjoint(g @ base_inverse), adjoint(base_inverse @ g)
    y = sylvester_positive(backend, v, w, *cotangents)
    return swap_members(backend, swap, y, v @ y @ w)


def geometric_mean(
    A: ArrayLike[T], B: ArrayLike[T], t: NumberLike[T] = 0.5, *, rtol: float | None = None, errors: str = "raise"
) -> T:
    """Compute the weighted geometric mean of two matrices.

    A #_t B = A (A⁻¹B)^t. For positive definite matrices this is the point at t of the geodesic from A to B, and for t =
    1/2, the geometric mean A # B, its midpoint, which is symmetric in A and B.

    Parameters
    ----------
    A : array_like (..., n, n)
        Square matrices of dtype float32, float64, complex64 or complex128.
    B : array_like (..., n, n)
        Square matrices; A and B are Hermitian positive definite, or such that B⁻¹A has no eigenvalue on the closed
        negative real axis.
    t : float or array_like (...), default 0.5
        The weight of B, from 0 to 1; that of A is 1 - t. An array has one for every member, its axes broadcast with the
        leading axes, and A and B must then be Hermitian positive semidefinite.
    rtol : float, optional
        A singular value of at most ``rtol`` times the largest one counts as zero. Default: n eps, and none if the pair
        is positive definite to working precision in other units of its rows and columns.
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
        singular and not semidefinite, one of two Hermitian matrices is singular and the other one indefinite beyond
        rounding, or they are semidefinite and the range of neither contains that of the other; if an entry of t is not
        from 0 to 1, or a pair with t in an array is not semidefinite; if A and B are definite but graded too differently
        (see Notes); or if a member holds NaN or infinity; and ``errors="raise"``.
    ValueError
        If t is not a number from 0 to 1, a shape does not fit, an option has a value other than those above, or the
        arrays lie on different devices.
    TypeError
        If A or B is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    coupled_root : Also for products that are not means.
    sqrtm : The mean of A and I.
    fractional_matrix_power : The weighted mean of I and A.

    Notes
    -----
    The equation for t = 1/2 is::

        G B⁻¹ G = A.

    A positive definite pair is solved by two Cholesky factorisations and one singular value decomposition (for the
    theory see [1]_), other pairs by the sign of [[0, A], [B⁻¹, 0]], where the better conditioned of A and B takes the
    place of B, and for t other than 1/2 by a power of A⁻¹B or B⁻¹A. A semidefinite pair has the limit of the means of
    definite ones, if the range of one contains that of the other; for t = 0 the result is A, for t = 1 it is B. Graded
    pairs, D A D and D B D with a diagonal D, are as accurate as A and B. Definite pairs that are graded differently, so
    that no D makes both well conditioned, are solved in decimal arithmetic up to 24 rows (12 of complex matrices); larger
    ones, those in compiled programs and those with t in an array are refused where digits of small eigenvalues would be
    lost.

    The mean is differentiable by A and B to any order where both are nonsingular, and by a t that is an array. For a
    semidefinite pair the derivative is that along directions that keep both ranges, to any order. For pairs in decimal
    arithmetic it is of first order; the second is NaN. A member of a batch gives the same bits as in a call by itself,
    but with t in an array only up to rounding if it has two to four rows, as `fractional_matrix_power` says.
    Under ``jax.jit`` no error can be raised: a member without a mean is NaN.

    The backward error of `certify` is ‖G B⁻¹ G - A‖ / (‖G B⁻¹ G‖ + ‖A‖), with A and B exchanged where A has the smaller
    condition number. For other t it is the backward error of `fractional_matrix_power` for X = F₁⁻¹ G F₂⁻¹, the power t
    of F₁⁻¹ B F₂⁻¹, with F₁ = F₂ᴴ for Hermitian A = F₁F₂, else F₂ = I; or with A and B exchanged. With t in an array it is
    that of `karcher_mean` with the weights 1 - t and t. For pairs in decimal arithmetic it is the difference from the
    mean of B and A with 1 - t, relative to the mean. For semidefinite pairs it also measures ``clipped``, the size of
    the negative eigenvalues that counted as zero, relative to the largest one of their matrix.

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
    >>> quarter = geometric_mean(A, G)
    >>> bool(np.linalg.norm(geometric_mean(A, B, t=0.25) - quarter) < 1e-14)
    True
    >>> path = geometric_mean(A, B, t=np.linspace(0.0, 1.0, 5))
    >>> path.shape, bool(np.linalg.norm(path[1] - quarter) < 1e-14)
    ((5, 2, 2), True)
    """
    return GEOMETRIC_MEAN(A, B, t=t, rtol=rtol, errors=errors)


def _is_unbounded(backend: Backend, value: Arrays, a: Array, b: Array, *, t: Any) -> Array:
    if not isinstance(t, float):
        return all_false(backend, a)
    if t == MIDPOINT:
        return regular_root(backend, scale_to_unit(backend, value[0])[0], rank_tolerance(backend, a, None)).singular
    return (is_singular(backend, a) | is_singular(backend, b)) & (t not in (0, 1))


GEOMETRIC_MEAN = public_function(
    geometric_mean,
    "(n,n),(n,n)->(n,n)",
    solve=solve_mean,
    residual=_residual,
    measures=CLIPPED,
    tangent=_tangent,
    cotangent=_cotangent,
    unbounded=_is_unbounded,
    check=check_weight,
    numbers=("t",),
)
