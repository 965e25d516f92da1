"""Square roots and their inverses, one or two matrices at a time.

The sign of [[0, A], [B, 0]] is [[0, C], [C⁻¹, 0]] with C = A (BA)^{-1/2} (`blocks.AntiDiagonal`); with B = I that is the square
root of A and its inverse together. C is characterised by C B C = A, so its differential solves

    CB dC + dC BC = dA - C dB C,

positive stable on both sides: X dX + dX X = dA for the square root.
"""

from __future__ import annotations

import math
from typing import Any

from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.failures import Failure
from matsign.core.operations import Arrays, Solution, figures, no_figures, nothing_failed, solution
from matsign.core.public import Residual, public_function
from matsign.core.tolerances import rank_tolerance
from matsign.direct import schur_functions
from matsign.functions.root_corrections import correct, probes, regular_root
from matsign.iterations.block_structures import AntiDiagonal
from matsign.iterations.differentiable_solves import sylvester_symmetric
from matsign.iterations.minimax import polar_express
from matsign.iterations.newton import finish, has_converged, newton, run_schedule
from matsign.linalg.null_space import split_null_space
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
)

Array = Any
Units = tuple[Any, Any]

_METHODS = ("auto", "newton", "polynomial", "schur", "eigh")


def root_pair(
    be: Backend, a: Array, *, rtol: float | None, method: str, inverse: bool = True, noise: Array | None = None
) -> Solution:
    """(A^{1/2}, A^{-1/2}) of a stack; zero eigenvalues stay zero in both. Without `inverse` the second is anything.

    `noise` is the relative error that each member may have, by default n eps: an eigenvalue so near the negative axis may lie
    on it.
    """
    rtol = rank_tolerance(be, a, rtol)

    def by_eigh(a: Array, *noise: Array) -> Solution:
        a, half = _normalise_even(be, a)
        return _in_callers_units(be, _eigh(be, a, rtol, inverse), half, None, inverse)

    def by_iteration(a: Array, *noise: Array) -> Solution:
        given = noise[0] if noise else a.shape[-1] * be.eps(a) * be.ones(a)
        return _general(be, a, given, rtol, method, inverse)

    arrays = (a,) if noise is None else (a, noise)
    if method == "auto" and be.on_cpu(a) and not be.is_traced(a):
        return be.masked_cond(is_hermitian(a), by_eigh, by_iteration, *arrays)
    if method != "eigh":
        return by_iteration(*arrays)
    found = by_eigh(*arrays)
    other = int(Failure.NOT_HERMITIAN) + 0 * found.failure
    return found._replace(failure=be.xp.where(is_nearly_hermitian(be, a), found.failure, other))


def _shift(e: Array | None) -> Array | None:
    return None if e is None else e[..., :, None] - e[..., None, :]


def _in_callers_units(be: Backend, found: Solution, half: Array, shift: Array | None, inverse: bool) -> Solution:
    """The roots in the caller's units from those in units 2^(2 half) times as large, balanced by `shift`."""
    x, z = found.value
    z = be.ldexp(z, scaling.add_exponents(shift, -broadcast_scalar(half))) if inverse else z
    found = found._replace(value=(be.ldexp(x, scaling.add_exponents(shift, broadcast_scalar(half))), z))
    if nothing_failed(be, found.failure):
        return found
    unclear = found.failure == int(Failure.UNCLEAR_ZERO)
    return found._replace(detail=be.ldexp(found.detail, be.xp.where(unclear, 0 * half, 2 * half)[..., None]))


def _normalise_even(be: Backend, a: Array) -> tuple[Array, Array]:
    """`a` with its largest entry in [1/4, 1), and half the logarithm of the factor, a whole number."""
    e = be.exponent(largest(be, a))
    e = e + e % 2
    return be.ldexp(a, broadcast_scalar(-e)), e // 2


def _eigh(be: Backend, a: Array, rtol: float, inverse: bool) -> Solution:
    xp = be.xp
    values, vectors = be.eigh(a)
    top = xp.maximum(-values[..., :1], values[..., -1:])
    kept = values > rtol * top
    root = xp.sqrt(xp.where(kept, values, 0 * values))
    x = z = hermitian((vectors * root[..., None, :]) @ adjoint(vectors))
    if inverse:
        factor = xp.astype(kept, values.dtype) / xp.where(kept, root, xp.ones_like(root))
        z = hermitian((vectors * factor[..., None, :]) @ adjoint(vectors))
    return solution(be, (x, z), Failure.NEGATIVE, values[..., 0] < -rtol * top[..., 0], detail=values[..., 0])


def _general(be: Backend, a: Array, noise: Array, rtol: float, method: str, inverse: bool) -> Solution:
    """Iterate on the balanced matrix, and split zero off in the members that are singular or whose root turns out wrong."""
    if method == "auto":
        small = a.shape[-1] <= 48 and be.on_cpu(a) and not be.is_traced(a)
        method = "schur" if small else "guarded newton"
    (half, e), a = _units(be, a)
    found = _classify(be, a, noise, rtol, method)
    return _in_callers_units(be, found, half, _shift(e), inverse)


def _classify(be: Backend, a: Array, noise: Array, rtol: float, method: str) -> Solution:
    found = _regular(be, a, noise, method)
    x, z = found.value
    size, size_z = norm(be, x), norm(be, z)
    right = (found.failure == 0) & _is_root(be, a, x, z, size, size_z)
    sure = right & (size * size_z * math.sqrt(rtol) < 1)
    return be.rare_cond(
        ~sure,
        lambda a, noise, right, regular: _singular(be, a, noise, rtol, method, right, regular),
        lambda a, noise, right, regular: regular,
        *(a, noise, right, found),
    )


def _is_root(be: Backend, a: Array, x: Array, z: Array, size: Array, size_z: Array) -> Array:
    """Whether the residuals leave no more than half the digits in doubt, and the root is no larger than a root should be."""
    square = size * size
    gap = norm(be, x @ x - a) / square
    gap_z = norm(be, x @ z - eye(be, a)) / (size * size_z)
    # A root far larger than it should be is what a Jordan block at zero, moved apart by rounding, leaves.
    large = square * be.eps(a) ** 0.75 > norm(be, a)
    half = math.sqrt(be.eps(a))
    return ~large & (gap < half) & (gap_z < half)


def _singular(
    be: Backend, a: Array, noise: Array, rtol: float, method: str, right: Array, regular: Solution
) -> Solution:
    """The root of what is left of `a` when its small singular values are dropped, or the regular root where that is better.

    Dropping them is a backward error, but it moves a zero eigenvalue by the norm of its projector times as much; where
    that reaches the other eigenvalues, a regular root with a small residual is to be believed rather.
    """
    xp = be.xp
    zero = split_null_space(be, a, rtol)
    found = _regular(be, zero.shifted, noise, method)
    root = broadcast_scalar(xp.astype(xp.sqrt(zero.shift), a.dtype))
    rest = eye(be, a) - zero.projector
    # In the basis of the split the root is [[x, z across], [0, 0]] and its inverse on the range [[z, z³ across], [0, 0]].
    x, z = (rest @ y @ rest for y in (found.value[0] - root * zero.projector, found.value[1] - zero.projector / root))
    y = z @ zero.across
    x, z = x + y, z + z @ z @ y
    # Of the inverse and not of the root, which there may not be.
    inverse = be.inv(zero.shifted) - zero.projector / broadcast_scalar(xp.astype(zero.shift, a.dtype))
    reach = norm(be, a) * xp.hypot(norm(be, inverse @ zero.across), be.ones(a)) * norm(be, inverse)
    blur = zero.dropped * reach
    square = norm(be, x) * norm(be, x)
    good = norm(be, x @ x - a) < (math.sqrt(be.eps(a)) + rtol) * square
    good = good & ~(square * be.eps(a) ** 0.75 > norm(be, a))
    none = 0 * regular.failure
    singular = zero.count > 0
    use = singular & (zero.defective | (blur < 0.1) | (~right & good & (found.failure == 0)))
    code = xp.where(zero.defective, int(Failure.DEFECTIVE_ZERO) + none, found.failure)
    split = found._replace(value=(x, z), failure=code)
    unclear = int(Failure.UNCLEAR_ZERO) + none
    lost = xp.where(regular.failure > 0, regular.failure, int(Failure.NOT_CONVERGED) + none)
    kept = regular._replace(failure=xp.where(right, none, xp.where(singular, unclear, lost)))
    kept = kept._replace(
        detail=xp.where((singular & ~right)[..., None], figures(be, a, 1 / safe_divisor(be, reach)), kept.detail)
    )
    return be.masked_select(use, split, kept)


def _regular(be: Backend, a: Array, noise: Array, method: str) -> Solution:
    """Root and inverse root of nonsingular members by one method."""
    if method == "schur":
        return _schur(be, a, noise)
    if method == "polynomial":
        return _polynomial(be, a)
    found = newton(be, AntiDiagonal(a, eye(be, a) + 0 * a))
    x, z = found.value
    lost = ~has_converged(be, found)
    if method == "newton":
        return be.rare_cond(
            lost,
            lambda a, noise, x, z, k: _diagnose(be, a, noise, (x, z), k),
            lambda a, noise, x, z, k: solution(be, (x, z), iterations=k),
            *(a, noise, x, z, found.steps),
        )
    size = norm(be, x)
    gap = norm(be, x @ x - a) / (size * size)
    doubtful = lost | ~(gap < 8 * math.sqrt(a.shape[-1]) * be.eps(a))
    return be.rare_cond(
        doubtful,
        lambda a, noise, *_: _schur(be, a, noise),
        lambda a, noise, x, z, k: solution(be, (x, z), iterations=k),
        *(a, noise, x, z, found.steps),
    )


def _schur(be: Backend, a: Array, noise: Array) -> Solution:
    root, failure, figure = be.host_callback(
        schur_functions.square_root, (a, be.int_zeros(a), no_figures(be, a)), a, noise
    )
    return solution(be, (root, be.inv(root)))._replace(failure=failure, detail=figure)


def _diagnose(be: Backend, a: Array, noise: Array, value: Arrays, steps: Array) -> Solution:
    """Why the iteration did not arrive: a negative eigenvalue, or it is not known."""
    failure, figure = be.host_callback(
        schur_functions.negative_eigenvalues, (be.int_zeros(a), no_figures(be, a)), a, noise
    )
    failure = be.xp.where(failure > 0, failure, int(Failure.NOT_CONVERGED) + 0 * failure)
    return solution(be, value, iterations=steps)._replace(failure=failure, detail=figure)


# How small the smallest eigenvalue of the root may be beside the largest. A schedule for smaller ones than there are is not only
# longer: its slopes multiply what little imaginary part rounding left.
_LEVELS = (0.3, 1e-1, 1e-2, 1e-4, 0.0)


def _polynomial(be: Backend, a: Array) -> Solution:
    """Products alone, with a schedule for the spread of the spectrum; a result that has drifted from the root is none."""
    size = norm(be, a)
    start = AntiDiagonal(a / broadcast_scalar(safe_divisor(be, size)), eye(be, a) + 0 * a)
    lower = be.xp.sqrt(1 / norm(be, be.inv(start.a)))

    def attempt(levels: tuple[float, ...], lower: Array, x: Array, unit: Array) -> Any:
        level, *rest = levels

        def at_level(lower: Array, x: Array, unit: Array) -> Any:
            schedule = polar_express(max(level, math.sqrt(x.shape[-1] * be.eps(x))), 1e-4, be.eps(x))
            return finish(be, run_schedule(be, AntiDiagonal(x, unit), schedule), len(schedule) * be.ones(x))

        if not rest:
            return at_level(lower, x, unit)
        return be.masked_cond(lower > level, at_level, lambda *args: attempt(tuple(rest), *args), lower, x, unit)

    found = attempt(_LEVELS, lower, *start)
    x, z = found.value
    root = broadcast_scalar(be.xp.sqrt(safe_divisor(be, size)))
    x, z = x * root, z / root
    # The coupled iteration leaves a residual that grows with the condition of the root.
    spread = norm(be, x) * norm(be, z)
    limit = be.xp.minimum(100 * a.shape[-1] * be.eps(a) * spread, math.sqrt(be.eps(a)) * be.ones(a))
    gap = be.xp.maximum(norm(be, x @ x - a) / norm(be, x) ** 2, norm(be, x @ z - eye(be, a)) / spread)
    drifted = ~(found.defect < 0.05) | ~(gap < limit)
    return solution(be, (x, z), Failure.NOT_REAL, drifted, found.steps)


def _corrections(
    be: Backend, units: Units, a: Array, x: Array, z: Array, gaps: tuple[Array, ...], rtol: float
) -> tuple[Array, Array, Array]:
    """For each gap g, and for a few changes of A by rounding, y with X y + y X = g; and how Z moves with the latter.

    All are stacks (B, k, n, n). Of a Hermitian matrix they come in the basis of its eigenvectors: what is wanted is their norms.
    """
    wanted = be.xp.concat([gap[:, None] for gap in gaps], axis=1)
    noise = probes(be, a, be.xp.maximum(norm(be, a), norm(be, x) ** 2))

    def by_eigenvectors(a: Array, x: Array, z: Array, wanted: Array, noise: Array) -> tuple[Array, Array, Array]:
        values, v = be.eigh(a)
        kept = values > rtol * be.xp.maximum(-values[:, :1], values[:, -1:])
        roots = be.xp.sqrt(be.xp.where(kept, values, 0 * values))
        sums, one = roots[:, None, :, None] + roots[:, None, None, :], be.xp.ones_like(roots)
        sums = be.xp.where(sums > 0, sums, math.inf * be.xp.ones_like(sums))
        y, moved = adjoint(v)[:, None] @ wanted @ v[:, None] / sums, noise / sums
        # As `_inverse_jvp`, with diagonal matrices: 1/(ri rj), and 1/r² where the other is zero.
        r = be.xp.where(kept, 1 / be.xp.where(kept, roots, one), 0 * roots)
        z = r[:, :, None] * r[:, None, :]
        turned = (r**2)[:, :, None] * (1 - be.xp.astype(kept, r.dtype))[:, None, :]
        return y, moved, moved * (turned + turned.mT - z)[:, None]

    def by_equation(a: Array, x: Array, z: Array, wanted: Array, noise: Array) -> tuple[Array, Array, Array]:
        sylvester_symmetric = regular_root(be, x, rtol)
        y = correct(be, sylvester_symmetric, sylvester_symmetric, be.xp.concat([wanted, noise], axis=1))
        y, moved = y[:, : len(gaps)], y[:, len(gaps) :]
        return y, moved, _inverse_jvp(z[:, None], sylvester_symmetric.projector[:, None], moved)

    arrays = (a, x, z, wanted, noise)
    if be.on_cpu(a) and not be.is_traced(a):
        # One that is Hermitian as it came: it was balanced, and its norms are those of the answer in any basis.
        plain = is_hermitian(a) if units[1] is None else is_hermitian(a) & (units[1] == 0).all(-1)
        return be.masked_cond(plain, by_eigenvectors, by_equation, *arrays)
    return by_equation(*arrays)


def _misfit(be: Backend, gap: Array, *terms: Array) -> Array:
    return norm(be, gap) / safe_divisor(be, sum(norm(be, x) for x in terms))


def _pair_residual(be: Backend, value: tuple[Array, Array], a: Array, *, rtol: float | None) -> Residual:
    """X X = A, and Z A Z = the projector on the range of A, to second order 3R² - 2R³ for R = Z A Z."""
    units, a = _units(be, a)
    x, z = _in_units(be, value[0], units, -1), _in_units(be, value[1], units, 1)
    square, r = x @ x, z @ a @ z
    identity = r @ (3 * r - 2 * r @ r)
    y, dx, dz = _corrections(be, units, a, x, z, (a - square, identity - r), rank_tolerance(be, a, rtol))
    backward = be.xp.maximum(_misfit(be, a - square, square, a), _misfit(be, identity - r, r, identity))
    return Residual(backward, (_both(be, y[:, :1], dx, units, 1), _both(be, y[:, 1:], dz, units, -1)))


def _root_residual(be: Backend, value: tuple[Array], a: Array, *, rtol: float | None) -> Residual:
    units, a = _units(be, a)
    x = _in_units(be, value[0], units, -1)
    square = x @ x
    y, dx, _ = _corrections(be, units, a, x, x, (a - square,), rank_tolerance(be, a, rtol))
    return Residual(_misfit(be, a - square, square, a), (_both(be, y, dx, units, 1),))


def _inverse_residual(be: Backend, value: tuple[Array], a: Array, *, rtol: float | None) -> Residual:
    units, a = _units(be, a)
    z = _in_units(be, value[0], units, 1)
    x = a @ z
    r = z @ x
    identity = r @ (3 * r - 2 * r @ r)
    y, _, dz = _corrections(be, units, a, x, z, (identity - r,), rank_tolerance(be, a, rtol))
    return Residual(_misfit(be, identity - r, r, identity), (_both(be, y, dz, units, -1),))


def _units(be: Backend, a: Array) -> tuple[Units, Array]:
    """Half the logarithm of the size of A and the exponents that balance it, and A without either."""
    e, a, k = scaling.balance_together(be, a)
    half = -(-k // 2)
    return (half, e), be.ldexp(a, broadcast_scalar(k - 2 * half))


def _in_units(be: Backend, x: Array, units: Units, power: int) -> Array:
    half, e = units
    shift = None if e is None else e[:, None, :] - e[:, :, None]
    return be.exact_ldexp(x, scaling.add_exponents(shift, broadcast_scalar(power * half)))


def _both(be: Backend, step: Array, probed: Array, units: Units, power: int) -> Array:
    """The steps for the residual and for rounding, side by side and in the units of the answer: one norm measures both."""
    half, e = units
    shift = None if e is None else e[:, None, :, None] - e[:, None, None, :]
    return be.ldexp(
        be.xp.concat([step, probed], axis=1), scaling.add_exponents(shift, power * half[:, None, None, None])
    )


def _root(be: Backend, a: Array, **options: Any) -> Solution:
    found = root_pair(be, a, **options, inverse=False)
    return found._replace(value=found.value[:1])


def _inverse_root(be: Backend, a: Array, **options: Any) -> Solution:
    found = root_pair(be, a, **options)
    return found._replace(value=found.value[1:])


def takes_single(*, method: str, **options: Any) -> bool:
    return method in ("auto", "eigh")


def _root_tangent(be: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, **_: Any) -> Arrays:
    return (sylvester_symmetric(be, *value, *tangents),)


def _root_cotangent(be: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, **_: Any) -> Arrays:
    return (sylvester_symmetric(be, adjoint(value[0]), *cotangents),)


def _null_projector(be: Backend, x: Array, z: Array) -> Array:
    """I - Z X, and zero exactly where X is regular."""
    zero = eye(be, x) - z @ x
    none = broadcast_scalar(be.real(be.trace(zero)) < 0.5)
    return be.xp.where(none, be.xp.zeros_like(zero), zero)


def _inverse_jvp(z: Array, zero: Array, dx: Array) -> Array:
    """dZ for the inverse Z of X off its null space: -Z dX Z, and what turns that space."""
    square = z @ z
    return -(z @ dx @ z) + square @ dx @ zero + zero @ dx @ square


def _pair_tangent(be: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, **_: Any) -> Arrays:
    x, z = value
    dx = sylvester_symmetric(be, x, *tangents)
    return dx, _inverse_jvp(z, _null_projector(be, x, z), dx)


def _pair_cotangent(be: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, **_: Any) -> Arrays:
    x, z = value
    bar = cotangents[0] + _inverse_jvp(adjoint(z), adjoint(_null_projector(be, x, z)), cotangents[1])
    return (sylvester_symmetric(be, adjoint(x), bar),)


def _inverse_tangent(be: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, **_: Any) -> Arrays:
    (z,), (a,) = value, arrays
    return _pair_tangent(be, (a @ z, z), arrays, tangents)[1:]


def _inverse_cotangent(be: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, **_: Any) -> Arrays:
    (z,), (a,), (bar,) = value, arrays, cotangents
    return _pair_cotangent(be, (a @ z, z), arrays, (be.xp.zeros_like(bar), bar))


def _is_singular(be: Backend, x: Array) -> Array:
    """Where a root has zero for an eigenvalue: √t has no derivative there, and a change of rank makes the inverse jump."""
    return regular_root(be, scale_to_unit(be, x)[0], x.shape[-1] * be.eps(x)).singular


def sqrtm_pair(
    A: Array, *, rtol: float | None = None, method: str = "auto", errors: str = "raise"
) -> tuple[Array, Array]:
    """Compute the principal square root and its inverse together.

    A^{1/2} and A^{-1/2}, for the price of one of them.

    Parameters
    ----------
    A : array_like, shape (..., n, n)
        Square matrices without eigenvalues on the negative real axis, of dtype float32, float64, complex64 or
        complex128.
    rtol : float, optional
        A singular value of at most ``rtol`` times the largest one counts as zero, in both results and by every method.
        Default: n eps.
    method : {"auto", "newton", "polynomial", "schur", "eigh"}, default "auto"
        How the roots are computed:

        - "newton": by the coupled iteration of Denman and Beavers [1]_, which is Newton's method on [[0, A], [I, 0]],
          scaled.
        - "polynomial": by coupled steps of products alone, for a real positive spectrum.
        - "schur": by the method of Björck and Hammarling [2]_, which is SciPy's, on the CPU.
        - "eigh": by eigenvectors, for Hermitian A.
        - "auto": on a CPU by eigenvectors for Hermitian members and by Schur forms up to n = 48; else by Newton's
          method, and by Schur forms for members whose residual is not at working precision.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no root: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    X : array, shape (..., n, n)
        The principal square roots.
    Z : array, shape (..., n, n)
        Their inverses; where A is singular, the inverse on the range of A.

    Raises
    ------
    SpectrumError
        If an eigenvalue lies on the negative real axis or within rounding of it, if zero is a defective eigenvalue, or
        if a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a shape does not fit, or an option has a value other than those above.
    TypeError
        If A is not a dense array of numbers of a supported dtype.

    See Also
    --------
    sqrtm : The root alone.
    invsqrtm : The inverse root alone.
    coupled_root : The same of a product of two matrices.
    geometric_mean : The square root between two positive definite matrices.

    Notes
    -----
    The equations are::

        X X = A,    Z A Z = I.

    Zero eigenvalues stay zero in both results. A general matrix is balanced first. A Newton step costs two inverses of
    n × n matrices, and a polynomial step four products.

    Derivatives: for nonsingular A both roots are differentiable to any order, also at repeated eigenvalues. For
    singular A the slope is infinite along directions that change the rank, and the derivative is that along directions
    that keep it.

    A member of a batch gives the same bits as in a call by itself. Under ``jax.jit`` no error can be raised: a member
    without a root is NaN.

    The backward error of `certify` is the larger of ‖X X - A‖ / (‖X X‖ + ‖A‖) and ‖Z A Z - P‖ / (‖Z A Z‖ + ‖P‖), with P
    the projector on the range of A (I if A is nonsingular), in the scaling that balances A.

    References
    ----------
    .. [1] E. D. Denman and A. N. Beavers, "The matrix sign function and computations in systems", Appl. Math. Comput.
       2(1), 1976, pp. 63-94, doi:10.1016/0096-3003(76)90020-5.
    .. [2] Å. Björck and S. Hammarling, "A Schur method for the square root of a matrix", Linear Algebra Appl. 52-53,
       1983, pp. 127-140, doi:10.1016/0024-3795(83)80010-X.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import sqrtm_pair
    >>> A = np.array([[4.0, 1.0], [0.0, 9.0]])
    >>> X, Z = sqrtm_pair(A)
    >>> bool(np.linalg.norm(X @ X - A) + np.linalg.norm(X @ Z - np.eye(2)) < 1e-14)
    True
    """
    return SQRTM_PAIR(A, rtol=rtol, method=method, errors=errors)


SQRTM_PAIR = public_function(
    sqrtm_pair,
    "(n,n)->(n,n),(n,n)",
    solve=root_pair,
    residual=_pair_residual,
    tangent=_pair_tangent,
    cotangent=_pair_cotangent,
    unbounded=lambda be, value, a: _is_singular(be, value[0]),
    alone=takes_single,
    choices={"method": _METHODS},
)


def sqrtm(A: Array, *, rtol: float | None = None, method: str = "auto", errors: str = "raise") -> Array:
    """Compute the principal square root of a matrix.

    X = A^{1/2}: X X = A, and every eigenvalue of X has a nonnegative real part.

    Parameters
    ----------
    A : array_like, shape (..., n, n)
        Square matrices without eigenvalues on the negative real axis, of dtype float32, float64, complex64 or
        complex128.
    rtol : float, optional
        A singular value of at most ``rtol`` times the largest one counts as zero. Default: n eps.
    method : {"auto", "newton", "polynomial", "schur", "eigh"}, default "auto"
        How the root is computed; the methods are those of `sqrtm_pair`.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no root: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    X : array, shape (..., n, n)
        The roots, in the library, on the device and in the dtype of A. The root of a real matrix is real.

    Raises
    ------
    SpectrumError
        If an eigenvalue lies on the negative real axis or within rounding of it, if zero is a defective eigenvalue, or
        if a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a shape does not fit, or an option has a value other than those above.
    TypeError
        If A is not a dense array of numbers of a supported dtype.

    See Also
    --------
    sqrtm_pair : Also return the inverse root, for the price of one.
    invsqrtm : The inverse root alone.
    scipy.linalg.sqrtm : SciPy's.

    Notes
    -----
    Zero eigenvalues stay zero. Where the root of a real matrix would be complex, the matrix has a negative eigenvalue,
    and the error says so.

    Methods, cost, derivatives, batches and ``jax.jit`` are as for `sqrtm_pair`. The backward error of `certify` is
    ‖X X - A‖ / (‖X X‖ + ‖A‖), in the scaling that balances A.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import sqrtm
    >>> A = np.array([[2.0, 1.0], [1.0, 2.0]])
    >>> X = sqrtm(A)
    >>> bool(np.linalg.norm(X @ X - A) < 1e-14)
    True
    """
    return SQRTM(A, rtol=rtol, method=method, errors=errors)


SQRTM = public_function(
    sqrtm,
    "(n,n)->(n,n)",
    solve=_root,
    residual=_root_residual,
    tangent=_root_tangent,
    cotangent=_root_cotangent,
    unbounded=lambda be, value, a: _is_singular(be, value[0]),
    alone=takes_single,
    choices={"method": _METHODS},
)


def invsqrtm(A: Array, *, rtol: float | None = None, method: str = "auto", errors: str = "raise") -> Array:
    """Compute the inverse of the principal square root.

    Z = A^{-1/2}: Z A Z = I. Applied to data, the inverse root of their covariance makes the covariance I (whitening).

    Parameters
    ----------
    A : array_like, shape (..., n, n)
        Square matrices without eigenvalues on the negative real axis, of dtype float32, float64, complex64 or
        complex128.
    rtol : float, optional
        A singular value of at most ``rtol`` times the largest one counts as zero. Default: n eps.
    method : {"auto", "newton", "polynomial", "schur", "eigh"}, default "auto"
        How the root is computed; the methods are those of `sqrtm_pair`.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no root: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    Z : array, shape (..., n, n)
        The inverse roots, in the library, on the device and in the dtype of A. Where A is singular, Z is the inverse
        root on the range of A and zero elsewhere.

    Raises
    ------
    SpectrumError
        If an eigenvalue lies on the negative real axis or within rounding of it, if zero is a defective eigenvalue, or
        if a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a shape does not fit, or an option has a value other than those above.
    TypeError
        If A is not a dense array of numbers of a supported dtype.

    See Also
    --------
    sqrtm_pair : Both roots, for the price of one.
    sqrtm : The root alone.

    Notes
    -----
    Methods, cost, derivatives, batches and ``jax.jit`` are as for `sqrtm_pair`. The backward error of `certify` is
    ‖Z A Z - P‖ / (‖Z A Z‖ + ‖P‖) with P the projector on the range of A (I if A is nonsingular), in the scaling that
    balances A.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import invsqrtm
    >>> A = np.array([[2.0, 1.0], [1.0, 2.0]])
    >>> Z = invsqrtm(A)
    >>> bool(np.linalg.norm(Z @ A @ Z - np.eye(2)) < 1e-14)
    True
    """
    return INVSQRTM(A, rtol=rtol, method=method, errors=errors)


INVSQRTM = public_function(
    invsqrtm,
    "(n,n)->(n,n)",
    solve=_inverse_root,
    residual=_inverse_residual,
    tangent=_inverse_tangent,
    cotangent=_inverse_cotangent,
    unbounded=lambda be, value, a: _is_singular(be, value[0]),
    alone=takes_single,
    choices={"method": _METHODS},
)
