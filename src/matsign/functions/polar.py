"""The other sign, msign: singular values become 1. With it the polar decomposition M = U H.

msign is the sign of the dilation [[0, M], [Mᴴ, 0]] read off its corner, for M of any shape and rank: the eigenvalues of the
dilation are the singular values of M with both signs, and zeros. Every iteration below is an iteration of
`blocks.Dilation`.

Differential (n ≥ m; otherwise of Mᴴ), with H = UᴴM, P = UUᴴ, Q = UᴴU and s of the size of H: on the support of U, Ω solves

    H₀ Ω + Ω H₀ = Uᴴ dM Q - Q dMᴴ U,    H₀ = H + s (I - Q),

and  dU = U Ω + (I - P) dM Q H₀⁻¹ + U H₀⁻¹ Uᴴ dM (I - Q).
"""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any, NamedTuple

from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.operations import Arrays, Solution, overflow_failure, solution
from matsign.core.options import short_repr
from matsign.core.public import Residual, public_function
from matsign.core.tolerances import accuracy, rank_tolerance
from matsign.functions.msign_schedules import Schedule, half_precision_schedule, select_schedules
from matsign.iterations.block_structures import Dilation
from matsign.iterations.differentiable_solves import inverse, sylvester_symmetric
from matsign.iterations.minimax import PADE, lifting, polar_express
from matsign.iterations.newton import newton, purify, run_schedule
from matsign.iterations.newton_schulz import Plan, orthogonal, rounding, to_half
from matsign.linalg.stacks import (
    adjoint,
    broadcast_scalar,
    eye,
    hermitian,
    inner,
    norm,
    rounding_probe,
    safe_divisor,
    scale_to_unit,
    to_double,
    trace,
)

Array = Any

_METHODS = ("auto", "polynomial", "newton", "svd", "gram")
# The smallest eigenvalue of MᴴM beside its largest from which its eigenvectors do: condition 300, error 2e-13.
_GRAM, _GRAM_SINGLE = 1e-5, 4e-3
# Singular values that MᴴM in double precision tells from zero, beside the largest.
_RESOLVED = 1e-6
# The norm that a matrix is divided by is an estimate from below, by this factor at the most.
_OVERSHOOT = 2.0
# More steps than this are a mistake: from the smallest number that a dtype has to its rounding it takes some hundreds.
_MOST_STEPS = 1000
# Steps of order three that finish what lies between 0.02 and 1.3.
_FINISH = 9


class Polar(NamedTuple):
    """Hold the polar decomposition M = u h.

    The result of `polar`: a named tuple, so ``u, h = polar(M)`` works.

    Attributes
    ----------
    u : array, shape (..., n, m)
        The unitary factor: orthonormal rows or columns on the support of M, zero elsewhere.
    h : array, shape (..., m, m)
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

    u: Array
    h: Array


def orthogonalise(
    be: Backend,
    m: Array,
    *,
    tol: float | None,
    rtol: float | None,
    method: str,
    schedule: Schedule = None,
    steps: int | None = None,
    precision: str | None = None,
) -> Solution:
    """msign of a stack, tall or wide."""
    if _is_fixed(tol=tol, method=method, schedule=schedule, steps=steps):
        if precision == "half" and (schedule is not None or steps is not None):
            found = _in_half(be, m, tol, schedule, steps)
            if found is not None:
                return found
        plans = select_schedules(be, m, tol, rank_tolerance(be, m, rtol), schedule, steps)
        return _in_steps(be, m, plans, tol or 0.1, bounded=schedule is None)
    m, _ = scale_to_unit(be, m)  # LAPACK scales by itself, but singular values that overflow it cannot tell
    return _at_size(be, m, tol, rtol, method)


def _at_size(be: Backend, m: Array, tol: float | None, rtol: float | None, method: str) -> Solution:
    """By a method that goes on until it is right, for a stack that is near one in size."""
    tol, rtol = accuracy(be, m, tol), rank_tolerance(be, m, rtol)
    if method == "auto":
        method = _method(be, m)
    if method == "svd":
        return solution(be, (_svd(be, m, rtol),))
    if m.shape[-2] < m.shape[-1]:
        found = _tall(be, adjoint(m), tol, rtol, method)
        return found._replace(value=(adjoint(found.value[0]),))
    return _tall(be, m, tol, rtol, method)


def _method(be: Backend, m: Array) -> str:
    """Measured on two cores (benchmarks/): products win on accelerators, LAPACK elsewhere."""
    long, short = max(m.shape[-2:]), min(m.shape[-2:])
    if not be.on_cpu(m):
        return "polynomial"
    # LAPACK's single precision is ten times as wrong as the dtype allows, and no faster than eigenvectors in double.
    single = be.dtype_name(m) != be.dtype_name(to_double(be, m[..., :1, :1]))
    return "gram" if single or long >= 1.5 * short else "svd"


def _tall(be: Backend, m: Array, tol: float, rtol: float, method: str) -> Solution:
    if method == "gram":
        return _gram(be, m, rtol)
    if method == "newton":
        return _newton(be, m, rtol)
    return _polynomial(be, m, tol, rtol)


def _svd(be: Backend, m: Array, rtol: float) -> Array:
    u, values, vh = be.svd(m)
    kept = values > rtol * values[..., :1]
    if be.is_traced(kept) or not be.all_true(kept):
        u = u * kept[..., None, :]
    return _polish(be, u @ vh) if be.eps(m) > 1e-8 else u @ vh


def _polish(be: Backend, u: Array) -> Array:
    """One Newton-Schulz step, which squares how far u is from orthogonal."""
    return u + u @ (eye(be, u) - adjoint(u) @ u) / 2


def _gram(be: Backend, m: Array, rtol: float) -> Solution:
    """Eigenvectors of MᴴM, and one Newton-Schulz step that squares the error; where its condition does not allow that the SVD."""
    kind, m = be.dtype_name(m), to_double(be, m)
    if be.dtype_name(m) != kind:
        # In double precision MᴴM resolves what single precision can tell from zero.
        u = _wide_gram(be, m, rtol) if rtol >= _RESOLVED else _svd(be, m, rtol)
        return solution(be, (be.astype(u, kind),))
    values, vectors = be.eigh(adjoint(m) @ m)
    # Squaring costs the condition number twice; up to here the step repairs it.
    fine = values[..., 0] > (_GRAM if be.eps(m) < 1e-8 else _GRAM_SINGLE) * values[..., -1]

    def quick(m: Array, values: Array, vectors: Array) -> Array:
        inverse_root = (vectors * (1 / be.xp.sqrt(values))[..., None, :]) @ adjoint(vectors)
        return _polish(be, m @ inverse_root)

    return solution(be, (be.rare_cond(~fine, lambda m, *_: _svd(be, m, rtol), quick, m, values, vectors),))


def _wide_gram(be: Backend, m: Array, rtol: float) -> Array:
    values, vectors = be.eigh(adjoint(m) @ m)
    kept = values > rtol**2 * values[..., -1:]
    scale = be.xp.where(kept, 1 / be.xp.sqrt(be.xp.where(kept, values, be.xp.ones_like(values))), 0 * values)
    return _polish(be, m @ ((vectors * scale[..., None, :]) @ adjoint(vectors)))


def _newton(be: Backend, m: Array, rtol: float) -> Solution:
    """Scaled Newton on the triangular factor (Higham 1986); a singular member has no inverse to iterate with."""
    q, r = be.xp.linalg.qr(m)
    condition = norm(be, r) * norm(be, be.inv(r))

    def iterate(q: Array, r: Array, m: Array) -> Solution:
        found = newton(be, Dilation(r))
        return solution(be, (q @ found.value.c,), Failure.NOT_CONVERGED, ~(found.defect < 0.05), found.steps)

    def direct(q: Array, r: Array, m: Array) -> Solution:
        return solution(be, (_svd(be, m, rtol),))

    return be.rare_cond(~(condition * rtol < 1), direct, iterate, q, r, m)


def _polynomial(be: Backend, m: Array, tol: float, rtol: float) -> Solution:
    """Products alone: lift what is above rtol to near 1, then let purification send the rest back to 0."""
    eps = be.eps(m)
    x = Dilation(m / broadcast_scalar(safe_divisor(be, _scale(be, m))))
    lower = max(rtol, eps)
    if rtol == 0:
        schedule = polar_express(lower, tol, eps, _OVERSHOOT)
        (u,) = run_schedule(be, x, schedule)
        # What rounding has taken for nearly nothing of a singular value below the schedule's, is neither lifted to 1 nor 0.
        defect = norm(be, u - u @ (adjoint(u) @ u)) / safe_divisor(be, norm(be, u))
        lost = ~(defect < 4 * tol + 1e3 * eps)
        return solution(be, (u,), Failure.NOT_CONVERGED, lost, len(schedule) * be.ones(m))
    schedule = lifting(lower, eps, _OVERSHOOT, terms=max(m.shape[-2:]))
    found = purify(be, run_schedule(be, x, schedule), len(schedule) * be.ones(m))
    return solution(be, tuple(found.value), Failure.NOT_CONVERGED, ~(found.defect < 0.05), found.steps)


def _is_fixed(*, tol: float | None, method: str, schedule: Schedule = None, steps: int | None = None, **_: Any) -> bool:
    """Whether the number of steps follows from the options alone."""
    if schedule is None and steps is None:
        return ((tol or 0) >= 1e-3 and method == "polynomial") or ((tol or 0) >= 1e-2 and method == "auto")
    if steps is not None and not (
        isinstance(steps, Integral) and not isinstance(steps, bool) and 0 < steps <= _MOST_STEPS
    ):
        raise ValueError(f"msign: steps must be a positive whole number up to {_MOST_STEPS}, got {short_repr(steps)}")
    if method not in ("auto", "polynomial"):
        raise ValueError(f"msign: a schedule and a number of steps are for method='polynomial', got {method!r}")
    return True


def takes_single(*, method: str, **options: Any) -> bool:
    """Whether it is a matter of one decomposition, as far as the options tell."""
    return method in ("auto", "svd", "gram") and not _is_fixed(method=method, **options)


def _in_steps(be: Backend, m: Array, plans: tuple[Plan, ...], tol: float, *, bounded: bool) -> Solution:
    wide = m.shape[-2] < m.shape[-1]
    x, count = orthogonal(be, adjoint(m) if wide else m, plans, tol=tol, bounded=bounded)
    return solution(be, (adjoint(x) if wide else x,), iterations=count)


def _in_half(be: Backend, m: Array, tol: float | None, schedule: Schedule, steps: int | None) -> Solution | None:
    """The same by products in half precision, if the device has units for them and the steps bear its rounding."""
    short = None if be.is_complex(m) else be.fast_half_dtype(m)
    if short is None:
        return None
    x = to_half(be, m, short)
    plan = half_precision_schedule(schedule, steps, tol, be.eps(x), rounding(be, x))
    if plan is None:
        return None
    found = _in_steps(be, x, ((0.0, plan),), tol or 0.1, bounded=schedule is None)
    return found._replace(value=(be.astype(found.value[0], be.dtype_name(m)),))


def _scale(be: Backend, m: Array) -> Array:
    """σmax from below by power iteration, and so close that m divided by it stays below `_OVERSHOOT`."""
    xp, size = be.xp, norm(be, m)
    m = m / broadcast_scalar(safe_divisor(be, size))  # σmax in [1/√k, 1]: no eighth power below overflows
    gram = adjoint(m) @ m

    def step(v: Array) -> Array:
        v = gram @ v
        return v / broadcast_scalar(safe_divisor(be, norm(be, v)))

    estimate = norm(be, m @ be.fold_rows([()] * 24, step, _start(be, m)))
    # λmax of a k × k matrix with nonnegative eigenvalues is at most their mean plus √(k - 1) standard deviations.
    square = gram @ gram
    k = m.shape[-1]
    mean, second = norm(be, gram) ** 2 / k, norm(be, square) ** 2 / k
    bound_member = (mean + xp.sqrt((k - 1) * xp.maximum(second - mean**2, 0 * mean))) ** 0.25
    return size * xp.maximum(estimate, bound_member * (1.0 / _OVERSHOOT))


def _start(be: Backend, m: Array) -> Array:
    """One fixed vector without symmetry, for power iteration."""
    k = be.xp.cumsum(be.real(be.xp.ones_like(m[:, :1, :])), axis=-1)
    return be.xp.astype(be.xp.cos(1.7 * k * k), m.dtype).mT


def _msign_jvp(be: Backend, u: Array, m: Array, dm: Array) -> Array:
    """dU for dM, by the rule at the top of this file. The map is its own adjoint: msign is the gradient of the nuclear norm."""
    if m.shape[-2] < m.shape[-1]:
        return adjoint(_msign_jvp(be, adjoint(u), adjoint(m), adjoint(dm)))
    m, e = scale_to_unit(be, m)
    dm = be.ldexp(dm, broadcast_scalar(-e))
    q = adjoint(u) @ u
    h = _nonsingular(be, hermitian(adjoint(u) @ m), q)
    beyond, turning = _parts(be, u, q, inverse(be, h), dm)
    del q
    return beyond + u @ sylvester_symmetric(be, h, turning)


def _nonsingular(be: Backend, h: Array, q: Array) -> Array:
    """H₀: H with s in place of its zeros."""
    shift = safe_divisor(be, norm(be, be.stop_gradient(h)) / math.sqrt(h.shape[-1]))
    return hermitian(h + broadcast_scalar(shift) * (eye(be, h) - q))


def _parts(be: Backend, u: Array, q: Array, across: Array, dm: Array) -> tuple[Array, Array]:
    """What of dU leaves the range and the support of U, and twice the skew part of UᴴdM, which turns the range in itself."""
    inside = adjoint(u) @ dm
    within = inside @ q
    out = (dm - u @ inside) @ (q @ across)
    return out + u @ (across @ (inside - within)), within - adjoint(within)


def _correction(be: Backend, u: Array, h: Array, dm: Array) -> tuple[Array, Array]:
    """The eigenvalues of H₀, and dU by its eigenvectors: for an estimate, one decomposition whatever the condition."""
    q = adjoint(u) @ u
    values, vectors = be.eigh(_nonsingular(be, h, q))
    positive = be.xp.maximum(values, be.eps(h) * values[:, -1:])
    beyond, turning = _parts(be, u, q, (vectors / positive[:, None, :]) @ adjoint(vectors), dm)
    turned = (adjoint(vectors) @ turning @ vectors) / (positive[:, :, None] + positive[:, None, :])
    # Rounding alone says where U takes a direction in which H has none of its size left.
    lost = be.astype(values < 4 * be.eps(h) * values[:, -1:], be.dtype_name(values))
    return values, beyond + u @ ((vectors @ turned + vectors * lost[:, None, :]) @ adjoint(vectors))


def _is_finished(be: Backend, u: Array, options: dict[str, Any]) -> Array:
    """u, or what few steps were on the way to: the rule takes I - UᴴU for a projector, which it is of a finished u alone."""
    if not _is_fixed(**options):
        return u
    if u.shape[-2] < u.shape[-1]:
        return adjoint(_is_finished(be, adjoint(u), options))
    return run_schedule(be, Dilation(u), (PADE,) * _FINISH).c


def _tangent(be: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, **options: Any) -> Arrays:
    return (_msign_jvp(be, _is_finished(be, value[0], options), *arrays, *tangents),)


def _residual(be: Backend, value: tuple[Array], m: Array) -> Residual:
    """‖M - U H‖ and ‖U - U UᴴU‖: U may be orthogonal to 16 digits and still belong to another matrix."""
    (u,) = value
    m, _ = scale_to_unit(be, m)
    if m.shape[-2] < m.shape[-1]:
        found = _residual(be, (adjoint(u),), adjoint(m))
        return found._replace(correction=(adjoint(found.correction[0]),))
    h = hermitian(adjoint(u) @ m)
    backward, gap = _gap(be, m, u @ h)
    isometry, defect = _gap(be, u, u @ (adjoint(u) @ u))
    orthogonality = norm(be, defect) / safe_divisor(be, norm(be, u))
    values, du = _correction(be, u, h, gap)
    measures = (orthogonality, *_extremal(be, u, m, values, orthogonality))
    return Residual(be.xp.maximum(backward, isometry), (du + defect / 2,), measures=measures)


def _gap(be: Backend, x: Array, y: Array) -> tuple[Array, Array]:
    """‖x - y‖ / (‖x‖ + ‖y‖), and x - y with the rounding of both, which x = y may hide."""
    gap, size = x - y, norm(be, x) + norm(be, y)
    return norm(be, gap) / safe_divisor(be, size), gap + rounding_probe(be, x, size)


def _extremal(be: Backend, u: Array, m: Array, values: Array, defect: Array) -> Arrays:
    """How far U is from the best of ⟨M, U⟩ over ‖U‖ ≤ 1, which is the nuclear norm of M, and how far outside that ball.

    M = U H + gap: the nuclear norm of the one part is at most σmax(U) times that of H, of the other √k its Frobenius norm. That
    of H is its trace less twice its negative eigenvalues, which it has in common with H₀, whose `values` are known, if U is an
    isometry; else the one that the steps to U were on the way to takes its place.
    """
    top = _norm(be, u)

    def bound_member(u: Array, m: Array, top: Array, values: Array) -> Array:
        h = hermitian(adjoint(u) @ m)
        negative = be.xp.sum(be.xp.minimum(values, 0 * values), axis=-1)
        size = be.real(trace(be, h)) - 2 * negative
        return top * size + math.sqrt(m.shape[-1]) * norm(be, m - u @ h)

    def finish(u: Array, m: Array, *_: Array) -> Array:
        u = run_schedule(be, Dilation(u), (PADE,) * _FINISH).c
        return bound_member(u, m, _norm(be, u), be.eigh(hermitian(adjoint(u) @ m))[0])

    most = be.rare_cond(defect > 1e4 * be.eps(m), finish, bound_member, u, m, top, values)
    reached = inner(be, m, u) / be.xp.maximum(top, be.ones(u))
    return (most - reached) / safe_divisor(be, most), top - 1


def _norm(be: Backend, u: Array) -> Array:
    """σmax of what is nearly an isometry, or zero; then 1."""
    return be.xp.sqrt(safe_divisor(be, be.eigh(adjoint(u) @ u)[0][:, -1]))


def msign(
    M: Array,
    *,
    tol: float | None = None,
    rtol: float | None = None,
    method: str = "auto",
    schedule: Schedule = None,
    steps: int | None = None,
    precision: str | None = None,
    errors: str = "raise",
) -> Array:
    """Replace every nonzero singular value of M by 1.

    msign(M) = M (MᴴM)^{-1/2} = U Vᴴ for the reduced singular value decomposition M = U S Vᴴ; the singular vectors do
    not change. This is the unitary factor of the polar decomposition, and the direction of a step of the Muon
    optimiser.

    Parameters
    ----------
    M : array_like, shape (..., n, m)
        Matrices of any shape and rank, of dtype float32, float64, complex64 or complex128. Matrices in float16 and
        bfloat16 are computed in float32 (see `precision`).
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
        Polynomial steps in place of `tol`: rows (a, b, c) of the coefficients of x ← a x + b x³ + c x⁵, or the name of
        published ones: "muon" [3]_, "you" (Jiacheng You, who let the coefficients differ from step to step), "su" [4]_,
        "cans" [5]_ or "polar_express" ([1]_ with l = 1e-3). They start, as their authors start them, from M divided by
        its Frobenius norm.
    steps : int, optional
        The number of steps: of the `schedule`, whose last row is repeated where it is shorter, or without a schedule of
        the one that brings the widest interval to within `tol` (then 0.2 by default).
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
    U : array, shape (..., n, m)
        The matrices with singular values 0 and 1, in the library, on the device and in the dtype of M.

    Raises
    ------
    SpectrumError
        If a member holds NaN or infinity, or an iteration does not converge, and ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, or `tol` is below what the dtype can
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
    is right to working precision. On an accelerator it takes products. For optimisers `steps` or `schedule` is the
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
    residual=_residual,
    tangent=_tangent,
    cotangent=_tangent,
    adjoint=True,
    fixed=_is_fixed,
    alone=takes_single,
    choices={"method": _METHODS, "precision": (None, "half", "full")},
    halves=True,
)


def _polar(be: Backend, m: Array, **options: Any) -> Solution:
    scaled, e = scale_to_unit(be, m)
    found = orthogonalise(be, m, **options) if _is_fixed(**options) else _at_size(be, scaled, **options)
    (u,) = found.value
    h = be.exact_ldexp(hermitian(adjoint(u) @ scaled), broadcast_scalar(e))
    return found._replace(value=(u, h), failure=overflow_failure(be, h, found.failure))


def _polar_tangent(be: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, **options: Any) -> Arrays:
    """dH is the Hermitian part of dUᴴ M + Uᴴ dM."""
    (u, _h), (m,), (dm,) = value, arrays, tangents
    u = _is_finished(be, u, options)
    du = _msign_jvp(be, u, m, dm)
    return du, hermitian(adjoint(du) @ m + adjoint(u) @ dm)


def _polar_cotangent(be: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, **options: Any) -> Arrays:
    (u, _h), (m,), bar_h = value, arrays, hermitian(cotangents[1])
    u = _is_finished(be, u, options)
    return (u @ bar_h + _msign_jvp(be, u, m, cotangents[0] + m @ bar_h),)


def _polar_residual(be: Backend, value: tuple[Array, Array], m: Array) -> Residual:
    """As for msign, and dH from Uᴴ dM: H is as good as the part of M that U H misses."""
    u, h = value
    m, h, e = scale_to_unit(be, m, h)
    found = _residual(be, (u,), m)
    (du,) = found.correction
    backward, gap = _gap(be, m, u @ h)
    dh = hermitian(adjoint(du) @ m + adjoint(u) @ (m + gap)) - h
    return Residual(be.xp.maximum(found.backward, backward), (du, be.ldexp(dh, broadcast_scalar(e))))


def polar(
    M: Array, *, tol: float | None = None, rtol: float | None = None, method: str = "auto", errors: str = "raise"
) -> Polar:
    """Compute the polar decomposition M = U H.

    U = msign(M), and H = (MᴴM)^{1/2} is Hermitian positive semidefinite.

    Parameters
    ----------
    M : array_like, shape (..., n, m)
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
    u : array, shape (..., n, m)
        The unitary factor; for singular M the partial isometry with the null space of M.
    h : array, shape (..., m, m)
        The Hermitian factor. Both are the fields of the named tuple `Polar`.

    Raises
    ------
    SpectrumError
        If a member holds NaN or infinity, or an iteration does not converge, and ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, or `tol` is below what the dtype can
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

    Derivatives, batches and ``jax.jit`` are as for `msign`. The backward error of `certify` is the larger of that of
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
    residual=_polar_residual,
    tangent=_polar_tangent,
    cotangent=_polar_cotangent,
    alone=takes_single,
    wrap=lambda be, u, h: Polar(u, h),
    halves=True,
    choices={"method": _METHODS},
)
