"""How msign of a stack is computed: by polynomial steps, by Newton's iteration or by a decomposition."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.members import Solution, solution
from matsign.core.options import short_repr
from matsign.core.tolerances import NEAR_SIGN, accuracy, rank_tolerance
from matsign.functions.polar.msign_schedules import (
    Schedule,
    explicit_schedule,
    half_precision_schedule,
    select_schedules,
)
from matsign.iterations.block_structures import Dilation
from matsign.iterations.minimax import lifting, polar_express
from matsign.iterations.newton import newton, purify, run_schedule
from matsign.iterations.newton_schulz import Plan, orthogonal, rounding, to_half
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye, safe_divisor, scale_to_unit, to_double

METHODS = ("auto", "polynomial", "newton", "svd", "gram")


# The eigenvectors of MᴴM are accurate enough if λmin/λmax is above this: condition of M up to 300, error 2e-13.
_GRAM, GRAM_SINGLE = 1e-5, 4e-3


# The smallest singular value, relative to the largest, that MᴴM in double precision resolves.
_RESOLVED = 1e-6


# Matrices are divided by a lower bound on their norm, which is at most this factor below it.
_OVERSHOOT = 2.0


# More steps than this are a mistake: some hundreds lift the smallest number of a dtype to 1.
_MOST_STEPS = 1000


# So many steps of order three bring singular values between 0.02 and 1.3 to 1.
FINISH = 9


def orthogonalise(
    backend: Backend,
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
    if has_fixed_steps(tol=tol, method=method, schedule=schedule, steps=steps):
        if precision == "half" and (schedule is not None or steps is not None):
            result = _in_half(backend, m, tol, schedule, steps)
            if result is not None:
                return result
        plans = select_schedules(backend, m, tol, rank_tolerance(backend, m, rtol), schedule, steps)
        return _in_steps(backend, m, plans, tol or 0.1, bounded=schedule is None)
    m, _ = scale_to_unit(backend, m)  # LAPACK scales internally, but cannot return singular values that overflow
    return at_size(backend, m, tol, rtol, method)


def at_size(backend: Backend, m: Array, tol: float | None, rtol: float | None, method: str) -> Solution:
    """By a method that runs to convergence, for a scaled stack."""
    tol, rtol = accuracy(backend, m, tol), rank_tolerance(backend, m, rtol)
    if method == "auto":
        method = _method(backend, m)
    if method == "svd":
        return solution(backend, (_svd(backend, m, rtol),))
    if m.shape[-2] < m.shape[-1]:
        result = _tall(backend, adjoint(m), tol, rtol, method)
        return result._replace(value=(adjoint(result.value[0]),))
    return _tall(backend, m, tol, rtol, method)


def _method(backend: Backend, m: Array) -> str:
    """Measured on two cores and on an H200 (benchmarks/)."""
    long, short = max(m.shape[-2:]), min(m.shape[-2:])
    if not backend.fast_svd(m):
        return "polynomial"
    # LAPACK's SVD in single precision has ten times the error of the dtype, and is no faster than eigenvectors in double.
    single = backend.dtype_name(m) != backend.dtype_name(to_double(backend, m[..., :1, :1]))
    return "gram" if single or long >= 1.5 * short else "svd"


def _tall(backend: Backend, m: Array, tol: float, rtol: float, method: str) -> Solution:
    if method == "gram":
        return _gram(backend, m, rtol)
    if method == "newton":
        return _newton(backend, m, rtol)
    return _polynomial(backend, m, tol, rtol)


def _svd(backend: Backend, m: Array, rtol: float) -> Array:
    u, values, vh = backend.svd(m)
    kept = values > rtol * values[..., :1]
    if backend.is_traced(kept) or not backend.all_true(kept):
        u = u * kept[..., None, :]
    return newton_schulz_step(backend, u @ vh) if backend.eps(m) > 1e-8 else u @ vh


def newton_schulz_step(backend: Backend, u: Array) -> Array:
    """One Newton-Schulz step, which squares the distance of u from orthogonality."""
    return u + u @ (eye(backend, u) - adjoint(u) @ u) / 2


def _gram(backend: Backend, m: Array, rtol: float) -> Solution:
    """By eigenvectors of MᴴM, and one Newton-Schulz step that squares the error; by the SVD if MᴴM is too ill-conditioned."""
    kind, m = backend.dtype_name(m), to_double(backend, m)
    if backend.dtype_name(m) != kind:
        # In double precision MᴴM resolves the singular values that are not zero in single precision.
        u = _wide_gram(backend, m, rtol) if rtol >= _RESOLVED else _svd(backend, m, rtol)
        return solution(backend, (backend.astype(u, kind),))
    values, vectors = backend.eigh(adjoint(m) @ m)
    # MᴴM squares the condition number; up to this bound the step removes the error.
    accurate = values[..., 0] > (_GRAM if backend.eps(m) < 1e-8 else GRAM_SINGLE) * values[..., -1]

    def by_eigenvectors(m: Array, values: Array, vectors: Array) -> Array:
        inverse_root = (vectors * (1 / backend.xp.sqrt(values))[..., None, :]) @ adjoint(vectors)
        return newton_schulz_step(backend, m @ inverse_root)

    return solution(
        backend,
        (backend.rare_cond(~accurate, lambda m, *_: _svd(backend, m, rtol), by_eigenvectors, m, values, vectors),),
    )


def _wide_gram(backend: Backend, m: Array, rtol: float) -> Array:
    values, vectors = backend.eigh(adjoint(m) @ m)
    kept = values > rtol**2 * values[..., -1:]
    scale = backend.xp.where(
        kept, 1 / backend.xp.sqrt(backend.xp.where(kept, values, backend.xp.ones_like(values))), 0 * values
    )
    return newton_schulz_step(backend, m @ ((vectors * scale[..., None, :]) @ adjoint(vectors)))


def _newton(backend: Backend, m: Array, rtol: float) -> Solution:
    """Scaled Newton on the triangular factor (Higham 1986); singular members, which have no inverse, by SVD."""
    q, r = backend.xp.linalg.qr(m)
    condition = backend.norm(r) * backend.norm(backend.inv(r))

    def by_newton(q: Array, r: Array, m: Array) -> Solution:
        iterate = newton(backend, Dilation(r))
        return solution(
            backend, (q @ iterate.value.c,), Failure.NOT_CONVERGED, ~(iterate.defect < NEAR_SIGN), iterate.steps
        )

    def by_svd(q: Array, r: Array, m: Array) -> Solution:
        return solution(backend, (_svd(backend, m, rtol),))

    return backend.rare_cond(~(condition * rtol < 1), by_svd, by_newton, q, r, m)


def _polynomial(backend: Backend, m: Array, tol: float, rtol: float) -> Solution:
    """By products alone: lift singular values above rtol to near 1, then purification sends the others to 0."""
    eps = backend.eps(m)
    x = Dilation(m / broadcast_scalar(safe_divisor(backend, spectral_scale(backend, m))))
    lower = max(rtol, eps)
    if rtol == 0:
        schedule = polar_express(lower, tol, eps, _OVERSHOOT)
        (u,) = run_schedule(backend, x, schedule)
        # A singular value below the interval of the schedule ends between 0 and 1.
        defect = backend.norm(u - u @ (adjoint(u) @ u)) / safe_divisor(backend, backend.norm(u))
        failed = ~(defect < 4 * tol + 1e3 * eps)
        return solution(backend, (u,), Failure.NOT_CONVERGED, failed, len(schedule) * backend.ones(m))
    schedule = lifting(lower, eps, _OVERSHOOT, terms=max(m.shape[-2:]))
    iterate = purify(backend, run_schedule(backend, x, schedule), len(schedule) * backend.ones(m))
    return solution(backend, tuple(iterate.value), Failure.NOT_CONVERGED, ~(iterate.defect < NEAR_SIGN), iterate.steps)


def has_fixed_steps(
    *, tol: float | None, method: str, schedule: Schedule = None, steps: int | None = None, **_: Any
) -> bool:
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


def check_steps(*, schedule: Schedule, steps: int | None, **options: Any) -> None:
    """Raise a ValueError for steps that no method takes."""
    if has_fixed_steps(schedule=schedule, steps=steps, **options) and schedule is not None:
        explicit_schedule(schedule, steps)


def takes_single(*, method: str, **options: Any) -> bool:
    """Whether the options allow a single decomposition."""
    return method in ("auto", "svd", "gram") and not has_fixed_steps(method=method, **options)


def _in_steps(backend: Backend, m: Array, plans: tuple[Plan, ...], tol: float, *, bounded: bool) -> Solution:
    wide = m.shape[-2] < m.shape[-1]
    x, count = orthogonal(backend, adjoint(m) if wide else m, plans, tol=tol, bounded=bounded)
    return solution(backend, (adjoint(x) if wide else x,), iterations=count)


def _in_half(backend: Backend, m: Array, tol: float | None, schedule: Schedule, steps: int | None) -> Solution | None:
    """The same by products in half precision, or None if the device has no units for them or the steps amplify rounding."""
    half_dtype = None if backend.is_complex(m) else backend.fast_half_dtype(m)
    if half_dtype is None:
        return None
    x = to_half(backend, m, half_dtype)
    plan = half_precision_schedule(schedule, steps, tol, backend.eps(x), rounding(backend, x))
    if plan is None:
        return None
    result = _in_steps(backend, x, ((0.0, plan),), tol or 0.1, bounded=schedule is None)
    return result._replace(value=(backend.astype(result.value[0], backend.dtype_name(m)),))


def spectral_scale(backend: Backend, m: Array) -> Array:
    """A lower bound on σmax by power iteration, so close that the norm of m over it is at most `_OVERSHOOT`."""
    xp, size = backend.xp, backend.norm(m)
    m = m / broadcast_scalar(safe_divisor(backend, size))  # σmax in [1/√k, 1]: no eighth power below overflows
    gram = adjoint(m) @ m

    # λmax of a k × k matrix with nonnegative eigenvalues is at most their mean plus √(k - 1) standard deviations.
    square = gram @ gram
    k = m.shape[-1]
    mean, second = backend.norm(gram) ** 2 / k, backend.norm(square) ** 2 / k
    bound = (mean + xp.sqrt((k - 1) * xp.maximum(second - mean**2, 0 * mean))) ** 0.25
    if backend.products_only(m):  # a distributed matrix times a vector takes as long to begin as times a matrix
        return size * bound * (1.0 / _OVERSHOOT)

    def step(v: Array) -> Array:
        v = gram @ v
        return v / broadcast_scalar(safe_divisor(backend, backend.norm(v)))

    estimate = backend.norm(m @ backend.fold_rows([()] * 24, step, start_of_power_iteration(backend, gram)))
    return size * xp.maximum(estimate, bound * (1.0 / _OVERSHOOT))


def start_of_power_iteration(backend: Backend, m: Array) -> Array:
    """One fixed vector without symmetry, for power iteration."""
    k = backend.xp.cumsum(backend.xp.ones_like(m[:, :1, :]).real, axis=-1)
    return backend.xp.astype(backend.xp.cos(1.7 * k * k), m.dtype).mT
