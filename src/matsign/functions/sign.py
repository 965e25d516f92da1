"""The matrix sign function of square matrices, and what is one product away from it: |M| and spectral projectors.

mcsgn sends every eigenvalue to the sign of its real part and keeps the invariant subspaces. Its differential follows from
what characterises it, S² = I and SM = MS. With N = SM, which is M with its spectrum folded to the right,

    N dS + dS N = dM - S dM S,

an equation that the sign iteration itself solves, N being positive stable. Where M is singular, P₀ = I - S² is the
projector on the eigenvalue zero, and the same equation holds off P₀ (N₀ is N with zero moved to s, and Nᴰ its inverse off P₀):

    N₀ X + X N₀ = (I - P₀) dM (I - P₀) - S dM S,    dS = X + Nᴰ dM P₀ + P₀ dM Nᴰ.

S does not change along M, so the same rule at dM = M measures how wrong an S is: that is its correction step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.operations import Arrays, Solution, apply, overflow_failure, solution
from matsign.core.public import Residual, public_function
from matsign.core.tolerances import accuracy, rank_tolerance
from matsign.direct import schur_functions
from matsign.functions.constant_units import constant_units
from matsign.iterations.block_structures import Dense
from matsign.iterations.differentiable_solves import inverse, sylvester_positive, sylvester_symmetric
from matsign.iterations.minimax import polar_express
from matsign.iterations.newton import Iterate, finish, has_converged, newton, run_schedule
from matsign.linalg import balancing
from matsign.linalg.deflation import deflate
from matsign.linalg.nullity import nullities
from matsign.linalg.stacks import (
    adjoint,
    broadcast_scalar,
    eye,
    hermitian,
    inner,
    is_hermitian,
    is_nearly_hermitian,
    largest,
    norm,
    relative_norm,
    rounding_probe,
    safe_divisor,
    scale_to_unit,
)

Array = Any

_METHODS = ("auto", "newton", "polynomial", "schur", "eigh")

# A condition number this part of the one at which a matrix counts as singular is a reason to look: it is an estimate, by rounded
# inverses and norms.
_MARGIN = 0.1
# A correction of this part of the value and more says that no digit of the value is sure: an estimate of it may be this much off.
_LARGE = 1 / 30


def sign(
    be: Backend, m: Array, *, tol: float | None, rtol: float | None, method: str, of: _FromSign | None = None
) -> Solution:
    """mcsgn of a stack, or what `of` makes of it: Hermitian members by eigenvectors where cheap, singular ones deflated.

    All is computed in units that balance M, and only the end is brought back into the caller's.
    """
    whole = _eigh if method == "eigh" else _sign_in_units
    units = _units(be, m, method)
    found = whole(be, units.matrix, accuracy(be, m, tol), rtol, method)
    (value,), degree = found.value, 0
    if of is not None:
        value, degree = of.product(units.matrix, value), of.degree
    value = units.mask_unreachable(be, units.outward(be, value, degree, exact=True))
    # What was finite in balanced units may be too large for the dtype in the caller's.
    return found._replace(value=(value,), failure=overflow_failure(be, value, found.failure))


class _FromSign(NamedTuple):
    """What is made of M and its sign, homogeneous in M of this degree."""

    product: Callable[[Array, Array], Array]
    degree: int


def _units(be: Backend, m: Array, method: str = "auto") -> balancing.BalancedMatrix:
    """`balance.units`; eigenvectors of a Hermitian matrix want it as it is, only brought to size."""
    if method != "eigh":
        return balancing.balance(be, m)
    matrix, k = scale_to_unit(be, m)
    return balancing.BalancedMatrix(matrix, None, k, None)


def _sign_in_units(be: Backend, m: Array, tol: float, rtol: float | None, method: str) -> Solution:
    def by_eigh(m: Array) -> Solution:
        return _eigh(be, m, tol, rtol, method)

    def by_iteration(m: Array) -> Solution:
        return _one_sided(be, _general(be, m, tol, rtol, method))

    if method == "auto" and be.on_cpu(m) and not be.is_traced(m):
        # Seven products' worth on a CPU, exact for normal input; on an accelerator the iterations win.
        return be.masked_cond(is_hermitian(m) & ~_hangs_on_rounding(be, m, rtol), by_eigh, by_iteration, m)
    return by_iteration(m)


def _hangs_on_rounding(be: Backend, m: Array, rtol: float | None) -> Array:
    """Where an rtol below rounding has eigenvectors tell zero from what rounding makes of it; zeros are to be counted then."""
    least = m.shape[-1] * be.eps(m)
    if rtol is None or rtol >= least:
        return be.ones(m) < 0
    values = be.xp.linalg.svdvals(m)
    return values[:, -1] <= least * values[:, 0]


def _one_sided(be: Backend, found: Solution) -> Solution:
    """I or -I without its rounding errors, where the trace says that all eigenvalues lie on one side."""
    (s,) = found.value
    n = s.shape[-1]
    count = broadcast_scalar(be.real(be.trace(s)))
    if not be.is_traced(s) and not (abs(count) > n - 0.5).any():
        return found
    s = be.xp.where(count > n - 0.5, eye(be, s), be.xp.where(count < 0.5 - n, -eye(be, s), s))
    return found._replace(value=(s,))


def _eigh(be: Backend, m: Array, tol: float, rtol: float | None, method: str) -> Solution:
    values, vectors = be.eigh(m)
    top = be.xp.maximum(-values[:, :1], values[:, -1:])
    keep = be.xp.abs(values) > rank_tolerance(be, m, rtol) * top
    signs = be.xp.sign(values) * be.xp.astype(keep, values.dtype)
    value = hermitian((vectors * signs[:, None, :]) @ adjoint(vectors))
    found = solution(be, (value,), Failure.NOT_HERMITIAN, ~is_nearly_hermitian(be, m))
    return _one_sided(be, found)


def _general(be: Backend, m: Array, tol: float, rtol: float | None, method: str) -> Solution:
    """Iterate, and deflate the members that may have a zero eigenvalue."""
    n = m.shape[-1]
    if method == "auto":
        few = n <= 48 and n * len(m) <= 96 and be.on_cpu(m) and not be.is_traced(m)
        method = "schur" if few else "guarded newton"
    found, condition = _regular(be, m, tol, method)
    smallest = rank_tolerance(be, m, rtol)

    def sign_of_deflation(m: Array, *_: Array) -> Solution:
        zero = deflate(be, m, smallest)
        found, _ = _regular(be, zero.matrix, tol, method)
        if method in ("newton", "polynomial"):
            found = _confirm(be, zero.matrix, found)
        # A chain that is there but for rounding may as well be eigenvalues that rounding hides; that is for the caller to say.
        clear = zero.sound & (zero.null | ~zero.defective) if rtol is None else zero.sound
        unclear = ~clear & (found.failure != int(Failure.AXIS))
        failure = be.xp.where(unclear, int(Failure.UNDECIDED_ZERO) + 0 * found.failure, found.failure)
        value = found.value[0] - zero.projector
        nilpotent = broadcast_scalar(be.real(be.trace(zero.projector)) > n - 0.5)
        return found._replace(value=(be.xp.where(nilpotent, 0 * value, value),), failure=failure)

    def keep(m: Array, s: Array, *rest: Array) -> Solution:
        return Solution((s,), *rest)

    # Singular as it stands, whatever is to count as zero, or singular to what is.
    limit = max(smallest, n * be.eps(m))
    return be.rare_cond(~(condition * limit < _MARGIN), sign_of_deflation, keep, m, *found.value, *found[1:])


def _regular(be: Backend, m: Array, tol: float, method: str) -> tuple[Solution, Array]:
    """The sign of nonsingular members by one method, what to believe of it, and their condition numbers."""
    x = Dense(m)
    if method == "schur":
        return _schur(be, m), norm(be, m) * norm(be, be.inv(m))
    if method == "polynomial":
        found = _polynomial(be, x, tol)
        lost = ~(found.defect < 0.05)
        return solution(be, found.value, Failure.NOT_REAL, lost, found.steps), norm(be, m) * norm(be, be.inv(m))
    found = newton(be, x)
    s = found.value.m
    gap = norm(be, m @ s - s @ m) / (norm(be, m) * norm(be, s))
    slow = ~has_converged(be, found)
    if method == "newton":
        # An exact eigenvalue on the axis is moved off it by rounding, and the iteration then converges to noise.
        judged = be.rare_cond(
            slow,
            lambda m, s, k: _confirm(be, m, solution(be, (s,), iterations=k)),
            lambda m, s, k: solution(be, (s,), iterations=k),
            *(m, s, found.steps),
        )
        # A sign has a whole trace and commutes with m; one that was lost to rounding on the way has neither.
        count = be.real(be.trace(s))
        lost = ~(gap < be.eps(m) ** 0.25) | ~(be.xp.abs(count - be.xp.round(count)) < 0.1)
        failure = be.xp.where(
            lost & (judged.failure == 0), int(Failure.NOT_CONVERGED) + 0 * judged.failure, judged.failure
        )
        return judged._replace(failure=failure), found.condition
    # A small commutator is a small backward error; where rounding left a large one, Schur vectors do better.
    doubtful = slow | ~(gap < 8 * math.sqrt(m.shape[-1]) * be.eps(m))
    judged = be.rare_cond(
        doubtful,
        lambda m, s, k: _schur(be, m),
        lambda m, s, k: solution(be, (s,), iterations=k),
        *(m, s, found.steps),
    )
    return judged, found.condition


def _schur(be: Backend, m: Array) -> Solution:
    code = be.int_zeros(m)
    value, failure = be.host_callback(schur_functions.sign, (m, code), m)
    return solution(be, (value,))._replace(failure=failure)


def _confirm(be: Backend, m: Array, found: Solution) -> Solution:
    """A result that hangs on how an iteration rounds, where Schur vectors agree with it; they also see an eigenvalue on the axis.

    No residual does: I satisfies all that a sign must, and is none of a matrix with an eigenvalue on the left.
    """
    if be.unrolls_loops(m):
        return found
    (s,), other = found.value, _schur(be, m)
    same = norm(be, s - other.value[0]) < 0.1 * norm(be, other.value[0])
    lost = be.xp.where(same, found.failure, int(Failure.NOT_CONVERGED) + 0 * found.failure)
    return found._replace(failure=be.xp.where(other.failure != 0, other.failure, lost))


# How small the smallest eigenvalue may be beside √tr(M²). A schedule for smaller ones than there are is not only longer: its
# slopes multiply what little imaginary part rounding left.
_LEVELS = (1e-1, 1e-2, 1e-4, 1e-8, 0.0)


def _polynomial(be: Backend, x: Dense, tol: float) -> Iterate:
    """The article's iteration: X₀ = M/√tr(M²), whose eigenvalues lie in [-1, 1] if they are real."""
    square = be.xp.abs(inner(be, adjoint(x.m), x.m))
    start = x.m / broadcast_scalar(be.xp.sqrt(safe_divisor(be, square)))
    lower = 1 / norm(be, be.inv(start))

    def attempt(levels: tuple[float, ...], start: Array, lower: Array) -> Iterate:
        level, *rest = levels

        def at_level(start: Array, lower: Array) -> Iterate:
            schedule = polar_express(max(level, start.shape[-1] * be.eps(start)), max(tol, 1e-4), be.eps(start))
            return finish(be, run_schedule(be, Dense(start), schedule), len(schedule) * be.ones(start))

        if not rest:
            return at_level(start, lower)
        return be.masked_cond(lower > level, at_level, lambda *args: attempt(tuple(rest), *args), start, lower)

    return attempt(_LEVELS, start, lower)


def _fold(be: Backend, s: Array, m: Array) -> tuple[Array, Array]:
    """N with zero moved away, and the projector on the eigenvalue zero."""
    zero = eye(be, m) - s @ s
    # Its trace counts zero eigenvalues; where there are none it is rounding, and would be multiplied by N⁻¹ below.
    none = broadcast_scalar(be.real(be.trace(zero)) < 0.5)
    zero = be.xp.where(none, be.xp.zeros_like(zero), zero)
    shift = broadcast_scalar(safe_divisor(be, norm(be, be.stop_gradient(m)) / math.sqrt(m.shape[-1])))
    n = s @ m
    return n - n @ zero + shift * zero, zero


def _between(s: Array, zero: Array, x: Array) -> Array:
    """Twice the part of x that maps the two other invariant subspaces into each other; its own adjoint, as a map of x."""
    x = x - zero @ x
    return x - x @ zero - s @ x @ s


def _from_zero(be: Backend, n: Array, zero: Array, x: Array) -> Array:
    """The part that joins the eigenvalue zero to the rest."""
    across = inverse(be, n)
    across = across - across @ zero
    return across @ x @ zero + zero @ x @ across


def _sign_change(
    be: Backend,
    s: Array,
    n: Array,
    zero: Array,
    dm: Array,
    solve: Callable[[Backend, Array, Array], Array] = sylvester_symmetric,
) -> Array:
    first = _from_zero(be, n, zero, dm)
    # dS maps each of the two subspaces into the other; the rest is rounding, amplified.
    return first + _between(s, zero, solve(be, n, _between(s, zero, dm))) / 2


def _sign_jvp(be: Backend, s: Array, m: Array, dm: Array) -> Array:
    """dS for dM, by the rule at the top of this file, in units that balance M."""
    units = constant_units(be, m)
    s = units.inward(be, s)
    return units.outward(be, _sign_change(be, s, *_fold(be, s, units.matrix), units.inward(be, dm, 1)))


def _sign_vjp(be: Backend, s: Array, m: Array, bar: Array) -> Array:
    """M̄ for S̄: the same map of the adjoints, whose units are the inverse ones."""
    units = constant_units(be, m)
    s = units.inward(be, s)
    n, zero = _fold(be, s, units.matrix)
    turned = _sign_change(be, adjoint(s), adjoint(n), adjoint(zero), units.outward(be, bar, -1))
    return units.inward(be, turned)


def _tangent(be: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, **_: Any) -> Arrays:
    return (_sign_jvp(be, *value, *arrays, *tangents),)


def _cotangent(be: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, **_: Any) -> Arrays:
    return (_sign_vjp(be, *value, *arrays, *cotangents),)


def _residual(
    be: Backend,
    value: tuple[Array],
    m: Array,
    *,
    tol: float | None = None,
    rtol: float | None = None,
    method: str = "auto",
) -> Residual:
    """What S leaves of S M = M S and of S³ = S, and how S moves when M is changed by that and by rounding."""
    units = _units(be, m, method)
    m, s = units.matrix, units.inward(be, *value)
    size = norm(be, s)
    cube = norm(be, s @ s @ s - s) / safe_divisor(be, size**3 + size)
    backward = be.xp.maximum(_commutator(be, s, m), be.xp.maximum(cube, _not_nilpotent(be, s, m)))
    step = units.outward(be, _correction(be, s, units))
    return Residual(backward, (_credible(be, step, *value, _may_flip(be, s, m, rtol)),))


def _commutator(be: Backend, s: Array, m: Array) -> Array:
    return norm(be, s @ m - m @ s) / safe_divisor(be, 2 * norm(be, s) * norm(be, m))


def _credible(be: Backend, step: Array, value: Array, doubt: Array) -> Array:
    """A correction step, infinite in doubt and where it is no small part of the value, which then has no digit to go by."""
    unknown = (~(relative_norm(be, step, value) < _LARGE) & (largest(be, value) > 0)) | doubt
    return be.xp.where(broadcast_scalar(unknown), be.xp.full_like(step, math.inf), step)


def _not_nilpotent(be: Backend, s: Array, m: Array) -> Array:
    """How far the part of m that s has as zero is from nilpotent: ‖Zᵖ‖ / (‖Z‖ᵖ⁻¹ ‖m‖) for Z = (I - S²) m and a power p ≥ n."""

    def measure(s: Array, m: Array) -> Array:
        power = m - s @ (s @ m)
        size = norm(be, power)
        share = size / safe_divisor(be, norm(be, m))
        power = power / broadcast_scalar(safe_divisor(be, size))
        for _ in range((m.shape[-1] - 1).bit_length()):
            power = power @ power
        return norm(be, power) * share

    singular = be.real(be.trace(eye(be, m) - s @ s)) > 0.5
    return be.rare_cond(singular, measure, lambda s, m: 0 * be.ones(m), s, m)


def _correction(be: Backend, s: Array, units: balancing.BalancedMatrix) -> Array:
    """How S moves along what is left of its equations, with what rounding of M may have hidden, in balanced units."""
    m = units.matrix
    cube = s @ s @ s - s
    n, zero = _fold(be, s, m)
    step = _sign_change(be, s, n, zero, m + rounding_probe(be, m, norm(be, m)), _sensitive) - cube / 2
    return units.mask_unreachable(be, step)


def _may_flip(be: Backend, s: Array, m: Array, rtol: float | None) -> Array:
    """Where rounding may move an eigenvalue to the other side of zero, which no correction step shows."""
    n, _ = _fold(be, s, m)
    return _has_chains_by_rounding(be, s, m, rtol) | ~(
        norm(be, n) * norm(be, be.inv(n)) * n.shape[-1] * be.eps(n) < _MARGIN
    )


def _has_chains_by_rounding(be: Backend, s: Array, m: Array, rtol: float | None) -> Array:
    """Where m has null vectors as it stands, but Jordan chains of zero only to rounding, and nobody asked for that by `rtol`."""
    if rtol is not None or be.unrolls_loops(m):
        return be.ones(m) < 0

    def look(s: Array, m: Array) -> Array:
        zero = eye(be, m) - s @ s
        chained = norm(be, zero @ m) > 10 * rank_tolerance(be, m, None) * norm(be, zero) * norm(be, m)
        counts = be.host_callback(nullities, be.xp.zeros_like(be.real(m[:, 0]), dtype=be.xp.int32), be.stop_gradient(m))
        short = be.astype(counts[:, -1], be.dtype_name(be.real(m))) < be.real(be.trace(zero)) - 0.5
        return chained & (counts[:, 0] > 0) & short

    singular = be.real(be.trace(eye(be, m) - s @ s)) > 0.5
    return be.rare_cond(singular, look, lambda s, m: be.ones(m) < 0, s, m)


def _sensitive(be: Backend, n: Array, q: Array) -> Array:
    """x with n x + x n = q, as `sylvester_symmetric` has it, where no small eigenvalue of n is taken for zero: it is what errors come from."""

    def by_eigenvectors(n: Array, q: Array) -> Array:
        values, v = be.eigh(n)
        least = be.eps(n) ** 2 * values[:, -1:]
        values = be.xp.where(values > least, values, least)
        return v @ (adjoint(v) @ q @ v / (values[:, :, None] + values[:, None, :])) @ adjoint(v)

    def general(n: Array, q: Array) -> Array:
        return sylvester_positive(be, n, n, q)

    if be.on_cpu(q) and not be.is_traced(q):
        return be.masked_cond(is_hermitian(n), by_eigenvectors, general, n, q)
    return general(n, q)


def mcsgn(
    M: Array, *, tol: float | None = None, rtol: float | None = None, method: str = "auto", errors: str = "raise"
) -> Array:
    """Compute the matrix sign function.

    mcsgn(M) = M (M²)^{-1/2}: every eigenvalue becomes the sign of its real part, +1 or -1, and the invariant subspaces
    do not change. Zero eigenvalues stay zero.

    Parameters
    ----------
    M : array_like, shape (..., n, n)
        Square matrices of dtype float32, float64, complex64 or complex128.
    tol : float, optional
        The accuracy asked of ``method="polynomial"``. Default: the rounding of the dtype.
    rtol : float, optional
        A singular value of at most ``rtol`` times the largest one, after balancing, counts as zero. Default: n eps.
        With ``rtol=0`` the matrix counts as it stands; a larger `rtol` counts as zero every eigenvalue that a relative
        change of M by that much may have moved from zero.
    method : {"auto", "newton", "polynomial", "schur", "eigh"}, default "auto"
        How the sign is computed:

        - "newton": by a scaled Newton iteration [1]_ [2]_, for every spectrum off the imaginary axis.
        - "polynomial": by matrix products alone, from X₀ = M / √tr(M²), for a real spectrum.
        - "schur": by a Schur form, with LAPACK on the CPU.
        - "eigh": by eigenvectors, for Hermitian M.
        - "auto": on a CPU by eigenvectors for Hermitian members and by Schur forms for a few small ones; else by
          Newton's method, and by Schur forms for members whose result does not commute with M to working precision.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no sign: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    S : array, shape (..., n, n)
        The signs, in the library, on the device and in the dtype of M.

    Raises
    ------
    SpectrumError
        If a nonzero eigenvalue lies on the imaginary axis to working precision, if rounding decides whether an
        eigenvalue is zero, or if a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a shape does not fit, or an option has a value other than those above.
    TypeError
        If M is not a dense array of numbers of a supported dtype.

    See Also
    --------
    msign : The sign by singular values in place of eigenvalues.
    matrix_abs : The product of M and its sign.
    spectral_projector : The projector on one half plane.
    scipy.linalg.signm : SciPy's, for a single matrix.

    Notes
    -----
    The equations are::

        S M = M S,    S³ = S.

    M is balanced first by a diagonal scaling, so that the sign of [[1, 1e8], [0, -1]] is this matrix itself. A Newton
    step costs one inverse, which costs as much as two or three products of n × n matrices.

    Zero eigenvalues stay zero in the sense of the Drazin inverse: the spectral projector on the generalised null space
    of M splits it off. The sign of [[1, 5], [0, 0]] is this matrix itself, and that of a nilpotent matrix is 0. Where
    the entries of M form a singular matrix exactly, the lengths of the Jordan chains of zero are counted exactly. Where
    M has null vectors but rounding hides the rest of their chains, singular values decide, and the forward error of
    `certify` is infinite. If rounding has moved whole chains off zero, or a matrix that is far from normal in every
    scaling has small eigenvalues, the error says so, and `rtol` decides.

    Derivatives: for nonsingular M the sign is differentiable to any order. For singular M the derivative is that along
    directions that keep the rank. Near the imaginary axis the derivative grows as the inverse of the distance.

    A member of a batch gives the same bits as in a call by itself. Under ``jax.jit`` no error can be raised: a member
    without a sign is NaN.

    The backward error of `certify` is the largest of ‖S M - M S‖ / (2 ‖S‖ ‖M‖), ‖S³ - S‖ / (‖S‖³ + ‖S‖) and, where S is
    singular, ‖Zᵖ‖ / (‖Z‖ᵖ⁻¹ ‖M‖) with Z = (I - S²) M and a power p ≥ n, in the scaling that balances M.

    References
    ----------
    .. [1] J. D. Roberts, "Linear model reduction and solution of the algebraic Riccati equation by use of the sign
       function", Int. J. Control 32(4), 1980, pp. 677-687, doi:10.1080/00207178008922881.
    .. [2] N. J. Higham, "Functions of Matrices: Theory and Computation", SIAM, 2008, chapter 5,
       doi:10.1137/1.9780898717778.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import mcsgn
    >>> M = np.array([[4.0, 3.0], [0.0, -2.0]])
    >>> S = mcsgn(M)
    >>> S
    array([[ 1.,  1.],
           [ 0., -1.]])
    >>> bool(np.linalg.norm(S @ M - M @ S) + np.linalg.norm(S @ S - np.eye(2)) < 1e-14)
    True
    """
    return MCSGN(M, tol=tol, rtol=rtol, method=method, errors=errors)


MCSGN = public_function(
    mcsgn,
    "(n,n)->(n,n)",
    solve=sign,
    residual=_residual,
    tangent=_tangent,
    cotangent=_cotangent,
    choices={"method": _METHODS},
)


_ABS = _FromSign(lambda m, s: m @ s, 1)


def _abs(be: Backend, m: Array, **options: Any) -> Solution:
    return sign(be, m, of=_ABS, **options)


def _abs_tangent(be: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, **options: Any) -> Arrays:
    """dN = dM S + M dS, which unlike N dN + dN N = dM M + M dM knows what to do at zero."""
    (m,), (dm,) = arrays, tangents
    (s,) = apply(be, MCSGN.operation, m, **options)
    return (dm @ s + m @ _sign_jvp(be, s, m, dm),)


def _abs_cotangent(be: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, **options: Any) -> Arrays:
    (m,), (bar,) = arrays, cotangents
    (s,) = apply(be, MCSGN.operation, m, **options)
    return (bar @ adjoint(s) + _sign_vjp(be, s, m, adjoint(m) @ bar),)


def _abs_residual(
    be: Backend,
    value: tuple[Array],
    m: Array,
    *,
    tol: float | None = None,
    rtol: float | None = None,
    method: str = "auto",
) -> Residual:
    """N² = M², and what separates N from M S for a sign S that is itself corrected."""
    units = _units(be, m, method)
    m, n = units.matrix, units.inward(be, *value, 1)
    s = sign(be, m, tol=tol, rtol=rtol, method=method).value[0]
    # An eigenvalue that rounding may move to the other side is no larger than rounding, and so is what that does to N.
    step = m @ s - n + rounding_probe(be, n, norm(be, m) * norm(be, s)) + _abs_correction(be, s, units)
    step = units.outward(be, units.mask_unreachable(be, step), 1)
    backward = norm(be, n @ n - m @ m) / safe_divisor(be, norm(be, n) ** 2 + norm(be, m) ** 2)
    return Residual(backward, (_credible(be, step, *value, _has_chains_by_rounding(be, s, m, rtol)),))


def _abs_correction(be: Backend, s: Array, units: balancing.BalancedMatrix) -> Array:
    """How M S moves with S; of a Hermitian M, whose absolute value moves by no more than M does, for what S leaves alone."""
    m = units.matrix

    def normal(s: Array, m: Array, moved: Array) -> Array:
        return (m @ (s @ s @ s - s) + m @ s - s @ m) / 2

    moved = m @ _correction(be, s, units)
    return be.masked_cond(is_hermitian(m), normal, lambda s, m, moved: moved, s, m, moved)


def matrix_abs(
    M: Array, *, tol: float | None = None, rtol: float | None = None, method: str = "auto", errors: str = "raise"
) -> Array:
    """Compute the absolute value of a matrix by its eigenvalues.

    abs(M) = (M²)^{1/2} = M mcsgn(M): the eigenvalues with a negative real part are multiplied by -1, the others stay.

    Parameters
    ----------
    M : array_like, shape (..., n, n)
        Square matrices of dtype float32, float64, complex64 or complex128.
    tol : float, optional
        The accuracy asked of ``method="polynomial"``. Default: the rounding of the dtype.
    rtol : float, optional
        A singular value of at most ``rtol`` times the largest one, after balancing, counts as zero. Default: n eps.
    method : {"auto", "newton", "polynomial", "schur", "eigh"}, default "auto"
        How the sign is computed; the methods are those of `mcsgn`.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no answer: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    N : array, shape (..., n, n)
        The absolute values, in the library, on the device and in the dtype of M.

    Raises
    ------
    SpectrumError
        As for `mcsgn`: if a nonzero eigenvalue lies on the imaginary axis to working precision, if rounding decides
        whether an eigenvalue is zero, or if a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a shape does not fit, or an option has a value other than those above.
    TypeError
        If M is not a dense array of numbers of a supported dtype.

    See Also
    --------
    mcsgn : The sign.
    polar : Its Hermitian factor is the absolute value by singular values.

    Notes
    -----
    The equation is N² = M², and all eigenvalues of N have a nonnegative real part. For Hermitian M this is the absolute
    value by singular values, too; for other matrices it is not.

    The cost is that of `mcsgn` and one product. Derivatives, batches and ``jax.jit`` are as for `mcsgn`. The backward
    error of `certify` is ‖N² - M²‖ / (‖N‖² + ‖M‖²), in the scaling that balances M.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import matrix_abs
    >>> M = np.array([[1.0, 2.0], [2.0, 1.0]])
    >>> N = matrix_abs(M)
    >>> N.round(12)
    array([[2., 1.],
           [1., 2.]])
    >>> bool(np.linalg.norm(N @ N - M @ M) < 1e-14)
    True
    """
    return MATRIX_ABS(M, tol=tol, rtol=rtol, method=method, errors=errors)


MATRIX_ABS = public_function(
    matrix_abs,
    "(n,n)->(n,n)",
    solve=_abs,
    residual=_abs_residual,
    tangent=_abs_tangent,
    cotangent=_abs_cotangent,
    choices={"method": _METHODS},
)


# S² and not I, so that a zero eigenvalue belongs to neither side.
_PROJECTORS = {
    "right": _FromSign(lambda m, s: (s @ s + s) / 2, 0),
    "left": _FromSign(lambda m, s: (s @ s - s) / 2, 0),
}


def _projector(be: Backend, m: Array, *, half_plane: str, **options: Any) -> Solution:
    return sign(be, m, of=_PROJECTORS[half_plane], **options)


def _projector_tangent(
    be: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, half_plane: str, **options: Any
) -> Arrays:
    """dP = (dS S + S dS ± dS)/2."""
    (s,) = apply(be, MCSGN.operation, *arrays, **options)
    ds = _sign_jvp(be, s, *arrays, *tangents)
    return ((ds @ s + s @ ds + (ds if half_plane == "right" else -ds)) / 2,)


def _projector_cotangent(
    be: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, half_plane: str, **options: Any
) -> Arrays:
    (m,), (bar,) = arrays, cotangents
    (s,) = apply(be, MCSGN.operation, m, **options)
    sh = adjoint(s)
    return (_sign_vjp(be, s, m, (bar @ sh + sh @ bar + (bar if half_plane == "right" else -bar)) / 2),)


def _projector_residual(
    be: Backend,
    value: tuple[Array],
    m: Array,
    *,
    half_plane: str = "right",
    tol: float | None = None,
    rtol: float | None = None,
    method: str = "auto",
) -> Residual:
    """P² = P and P M = M P, and what separates P from the projector by a sign S that is itself corrected."""
    units = _units(be, m, method)
    m, p = units.matrix, units.inward(be, *value)
    s = sign(be, m, tol=tol, rtol=rtol, method=method).value[0]
    ds = _correction(be, s, units)
    step = _PROJECTORS[half_plane].product(m, s) - p + (ds @ s + s @ ds + (ds if half_plane == "right" else -ds)) / 2
    size = norm(be, p)
    square = norm(be, p @ p - p) / safe_divisor(be, size**2 + size)
    backward = be.xp.maximum(_commutator(be, p, m), square)
    return Residual(backward, (_credible(be, units.outward(be, step), *value, _may_flip(be, s, m, rtol)),))


def spectral_projector(
    M: Array,
    *,
    half_plane: str = "right",
    tol: float | None = None,
    rtol: float | None = None,
    method: str = "auto",
    errors: str = "raise",
) -> Array:
    """Compute the spectral projector of an open half plane.

    P = (S² + S)/2 with S = mcsgn(M), or P = (S² - S)/2 for the left half plane. The range of P is the invariant
    subspace of M for the eigenvalues in that half plane, its null space that for all other eigenvalues.

    Parameters
    ----------
    M : array_like, shape (..., n, n)
        Square matrices of dtype float32, float64, complex64 or complex128.
    half_plane : {"right", "left"}, default "right"
        The half plane: eigenvalues with a positive or with a negative real part.
    tol : float, optional
        The accuracy asked of ``method="polynomial"``. Default: the rounding of the dtype.
    rtol : float, optional
        A singular value of at most ``rtol`` times the largest one, after balancing, counts as zero. Default: n eps.
    method : {"auto", "newton", "polynomial", "schur", "eigh"}, default "auto"
        How the sign is computed; the methods are those of `mcsgn`.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no answer: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    P : array, shape (..., n, n)
        The projectors, in the library, on the device and in the dtype of M.

    Raises
    ------
    SpectrumError
        As for `mcsgn`: if a nonzero eigenvalue lies on the imaginary axis to working precision, if rounding decides
        whether an eigenvalue is zero, or if a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a shape does not fit, or an option has a value other than those above.
    TypeError
        If M is not a dense array of numbers of a supported dtype.

    See Also
    --------
    mcsgn : The sign.

    Notes
    -----
    The equations are P² = P and P M = M P. The trace of P is the number of eigenvalues in the half plane. A zero
    eigenvalue belongs to neither half plane. In electronic structure, ``spectral_projector(h - mu * eye,
    half_plane="left")`` is the density matrix of the orbitals below the chemical potential mu.

    The cost is that of `mcsgn` and one product. Derivatives, batches and ``jax.jit`` are as for `mcsgn`. The backward
    error of `certify` is the larger of ‖P M - M P‖ / (2 ‖P‖ ‖M‖) and ‖P² - P‖ / (‖P‖² + ‖P‖), in the scaling that
    balances M.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import spectral_projector
    >>> M = np.array([[4.0, 3.0], [0.0, -2.0]])
    >>> P = spectral_projector(M)
    >>> P
    array([[1. , 0.5],
           [0. , 0. ]])
    >>> bool(np.linalg.norm(P @ P - P) + np.linalg.norm(P @ M - M @ P) < 1e-14)
    True
    """
    return SPECTRAL_PROJECTOR(M, half_plane=half_plane, tol=tol, rtol=rtol, method=method, errors=errors)


SPECTRAL_PROJECTOR = public_function(
    spectral_projector,
    "(n,n)->(n,n)",
    solve=_projector,
    residual=_projector_residual,
    tangent=_projector_tangent,
    cotangent=_projector_cotangent,
    choices={"method": _METHODS, "half_plane": ("left", "right")},
)
