"""How square roots of a stack are computed: by eigenvectors, polynomial steps, Newton's iteration or Schur vectors."""

from __future__ import annotations

import math
from typing import Any

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.failures import Failure
from matsign.core.members import Solution, as_details, no_details, nothing_failed, solution
from matsign.core.tolerances import LAPACK_SIZE, NEAR_SIGN, rank_tolerance, working_precision
from matsign.direct import schur_functions
from matsign.functions.powers.square_root_certificates import balanced_units
from matsign.iterations.block_structures import AntiDiagonal
from matsign.iterations.minimax import polar_express
from matsign.iterations.newton import finish, has_converged, newton, run_schedule
from matsign.linalg.conditioning import is_well_conditioned
from matsign.linalg.jacobi_rotations import eigenvectors, spectral_product
from matsign.linalg.null_space import keep_zero_rows, split_null_space
from matsign.linalg.stacks import (
    broadcast_scalar,
    eye,
    is_hermitian,
    is_nearly_hermitian,
    largest,
    safe_divisor,
)

METHODS = ("auto", "newton", "polynomial", "schur", "eigh")


def root_pair(
    backend: Backend, a: Array, *, rtol: float | None, method: str, inverse: bool = True, noise: Array | None = None
) -> Solution:
    """(A^{1/2}, A^{-1/2}) of a stack; zero eigenvalues stay zero in both. Without `inverse` the second is arbitrary.

    `noise` is the relative error that each member may have, by default n eps: an eigenvalue within it of the negative axis may
    lie on it.
    """
    rtol = rank_tolerance(backend, a, rtol)

    def by_eigh(a: Array, *noise: Array) -> Solution:
        a, half = _normalise_even(backend, a)
        return _in_callers_units(backend, _eigh(backend, a, rtol, inverse), half, None, inverse)

    def by_iteration(a: Array, *noise: Array) -> Solution:
        given = noise[0] if noise else a.shape[-1] * backend.eps(a) * backend.ones(a)
        return _general(backend, a, given, rtol, method, inverse)

    arrays = (a,) if noise is None else (a, noise)
    if method == "auto" and backend.fast_eigh(a) and not backend.is_traced(a):
        return backend.masked_cond(is_hermitian(a), by_eigh, by_iteration, *arrays)
    if method != "eigh":
        return by_iteration(*arrays)
    result = by_eigh(*arrays)
    other = int(Failure.NOT_HERMITIAN) + 0 * result.failure
    return result._replace(failure=backend.xp.where(is_nearly_hermitian(backend, a), result.failure, other))


def state_shift(e: Array | None) -> Array | None:
    return None if e is None else e[..., :, None] - e[..., None, :]


def _in_callers_units(backend: Backend, result: Solution, half: Array, shift: Array | None, inverse: bool) -> Solution:
    """The roots in the caller's units from those in units 2^(2 half) times as large, balanced by `shift`."""
    x, z = result.value
    z = backend.ldexp(z, scaling.add_exponents(shift, -broadcast_scalar(half))) if inverse else z
    result = result._replace(value=(backend.ldexp(x, scaling.add_exponents(shift, broadcast_scalar(half))), z))
    if nothing_failed(backend, result.failure):
        return result
    unclear = result.failure == int(Failure.UNCLEAR_ZERO)
    return result._replace(
        detail=backend.ldexp(result.detail, backend.xp.where(unclear, 0 * half, 2 * half)[..., None])
    )


def _normalise_even(backend: Backend, a: Array) -> tuple[Array, Array]:
    """`a` with its largest entry in [1/4, 1), and half the logarithm of the factor, an integer."""
    e = backend.exponent(largest(backend, a))
    e = e + e % 2
    return backend.ldexp(a, broadcast_scalar(-e)), e // 2


def _eigh(backend: Backend, a: Array, rtol: float, inverse: bool) -> Solution:
    xp = backend.xp
    values, vectors = eigenvectors(backend, a)
    top = xp.maximum(-values[..., :1], values[..., -1:])
    kept = values > rtol * top
    root = xp.sqrt(xp.where(kept, values, 0 * values))
    x = z = spectral_product(backend, vectors, root)
    if inverse:
        factor = xp.astype(kept, values.dtype) / xp.where(kept, root, xp.ones_like(root))
        z = spectral_product(backend, vectors, factor)
    return solution(backend, (x, z), Failure.NEGATIVE, values[..., 0] < -rtol * top[..., 0], detail=values[..., 0])


def _general(backend: Backend, a: Array, noise: Array, rtol: float, method: str, inverse: bool) -> Solution:
    """Solve for the balanced matrix, and split off zero eigenvalues in members that are singular or whose root is wrong."""
    if method == "auto" and backend.products_only(a):
        return backend.masked_cond(
            is_hermitian(a),
            lambda a, noise: _general(backend, a, noise, rtol, "polynomial", inverse),
            lambda a, noise: _general(backend, a, noise, rtol, "newton", inverse),
            *(a, noise),
        )
    if method == "auto":
        small = a.shape[-1] <= LAPACK_SIZE and backend.on_cpu(a) and not backend.is_traced(a)
        method = "schur" if small else "guarded newton"
    (half, e), a = balanced_units(backend, a)
    result = _classify(backend, a, noise, rtol, method)
    return _in_callers_units(backend, result, half, state_shift(e), inverse)


def _classify(backend: Backend, a: Array, noise: Array, rtol: float, method: str) -> Solution:
    result = _regular(backend, a, noise, method)
    x, z = result.value
    size, size_z = backend.norm(x), backend.norm(z)
    right = (result.failure == 0) & _is_root(backend, a, x, z, size, size_z)
    sure = right & is_well_conditioned(backend, size * size_z, math.sqrt(rtol), lambda x, z: (x, z), x, z)
    return backend.rare_cond(
        ~sure,
        lambda a, noise, right, regular: _singular(backend, a, noise, rtol, method, right, regular),
        lambda a, noise, right, regular: regular,
        *(a, noise, right, result),
    )


def _is_root(backend: Backend, a: Array, x: Array, z: Array, size: Array, size_z: Array) -> Array:
    """Whether the residuals are below √eps, and the root is not too large for a root of `a`."""
    square = size * size
    gap = backend.norm(x @ x - a) / square
    gap_z = backend.norm(x @ z - eye(backend, a)) / (size * size_z)
    # A root that is far too large is the result of a Jordan block at zero whose eigenvalues rounding has separated.
    large = square * backend.eps(a) ** 0.75 > backend.norm(a)
    half = math.sqrt(backend.eps(a))
    return ~large & (gap < half) & (gap_z < half)


def _singular(
    backend: Backend, a: Array, noise: Array, rtol: float, method: str, right: Array, regular: Solution
) -> Solution:
    """The root of `a` without its small singular values, or the regular root where that is more accurate.

    Dropping singular values is a small backward error, but it moves a zero eigenvalue by that times the norm of its
    projector; where this reaches the other eigenvalues, a regular root with a small residual is more reliable.
    """
    xp = backend.xp
    zero = split_null_space(backend, a, rtol)
    shifted_root = _regular(backend, zero.shifted, noise, method)
    root = broadcast_scalar(xp.astype(xp.sqrt(zero.shift), a.dtype))
    rest = eye(backend, a) - zero.projector
    # In the basis of the split the root is [[x, z across], [0, 0]] and its inverse on the range [[z, z³ across], [0, 0]].
    x, z = (
        rest @ y @ rest
        for y in (shifted_root.value[0] - root * zero.projector, shifted_root.value[1] - zero.projector / root)
    )
    y = z @ zero.across
    x, z = (keep_zero_rows(backend, f, a) for f in (x + y, z + z @ z @ y))
    # From the inverse and not from the root, which may not exist.
    inverse = backend.inv(zero.shifted) - zero.projector / broadcast_scalar(xp.astype(zero.shift, a.dtype))
    amplification = (
        backend.norm(a) * xp.hypot(backend.norm(inverse @ zero.across), backend.ones(a)) * backend.norm(inverse)
    )
    perturbation = zero.dropped * amplification
    square = backend.norm(x) * backend.norm(x)
    good = backend.norm(x @ x - a) < (math.sqrt(backend.eps(a)) + rtol) * square
    good = good & ~(square * backend.eps(a) ** 0.75 > backend.norm(a))
    none = 0 * regular.failure
    singular = zero.count > 0
    use = singular & (zero.defective | (perturbation < 0.1) | (~right & good & (shifted_root.failure == 0)))
    code = Failure.DEFECTIVE_ZERO.where(backend, zero.defective, shifted_root.failure)
    split = shifted_root._replace(value=(x, z), failure=code)
    unclear = int(Failure.UNCLEAR_ZERO) + none
    failed = xp.where(regular.failure > 0, regular.failure, int(Failure.NOT_CONVERGED) + none)
    kept = regular._replace(failure=xp.where(right, none, xp.where(singular, unclear, failed)))
    kept = kept._replace(
        detail=xp.where(
            (singular & ~right)[..., None],
            as_details(backend, a, 1 / safe_divisor(backend, amplification)),
            kept.detail,
        )
    )
    return backend.masked_select(use, split, kept)


def _regular(backend: Backend, a: Array, noise: Array, method: str) -> Solution:
    """Root and inverse root of nonsingular members by one method."""
    if method == "schur":
        return _schur(backend, a, noise)
    if method == "polynomial":
        return _polynomial(backend, a, estimates=not backend.products_only(a))
    iterate = newton(backend, AntiDiagonal(a, eye(backend, a) + 0 * a))
    x, z = iterate.value
    failed = ~has_converged(backend, iterate)
    if method == "newton":
        return backend.rare_cond(
            failed,
            lambda a, noise, x, z, k: _diagnose(backend, a, noise, (x, z), k),
            lambda a, noise, x, z, k: solution(backend, (x, z), iterations=k),
            *(a, noise, x, z, iterate.steps),
        )
    size = backend.norm(x)
    gap = backend.norm(x @ x - a) / (size * size)
    doubtful = failed | ~(gap < working_precision(backend, a))
    return backend.rare_cond(
        doubtful,
        lambda a, noise, *_: _schur(backend, a, noise),
        lambda a, noise, x, z, k: solution(backend, (x, z), iterations=k),
        *(a, noise, x, z, iterate.steps),
    )


def _schur(backend: Backend, a: Array, noise: Array) -> Solution:
    root, failure, figure = backend.host_callback(
        schur_functions.square_root, (a, backend.int_zeros(a), no_details(backend, a)), a, noise
    )
    return solution(backend, (root, backend.inv(root)))._replace(failure=failure, detail=figure)


def _diagnose(backend: Backend, a: Array, noise: Array, value: Arrays, steps: Array) -> Solution:
    """Why the iteration did not converge: a negative eigenvalue, or unknown."""
    failure, figure = backend.host_callback(
        schur_functions.negative_eigenvalues, (backend.int_zeros(a), no_details(backend, a)), a, noise
    )
    failure = backend.xp.where(failure > 0, failure, int(Failure.NOT_CONVERGED) + 0 * failure)
    return solution(backend, value, iterations=steps)._replace(failure=failure, detail=figure)


# Lower bounds on the smallest eigenvalue of the root relative to the largest. A schedule for a bound smaller than necessary is
# longer, and its slopes magnify imaginary parts from rounding.
_LEVELS = (0.3, 1e-1, 1e-2, 1e-4, 0.0)


def root_pair_by_products(backend: Backend, a: Array, *, rtol: float | None, method: str) -> Solution:
    """(A^{1/2}, A^{-1/2}) by products alone. Zero eigenvalues are not split off: a singular member fails."""
    rtol = rank_tolerance(backend, a, rtol)
    a, half = _normalise_even(backend, a)
    result = _polynomial(backend, a, estimates=False)
    x, z = result.value
    regular = backend.norm(x) * backend.norm(z) * math.sqrt(rtol) < 1
    failure = Failure.NOT_BY_PRODUCTS.where(backend, (result.failure > 0) | ~regular, result.failure)
    return _in_callers_units(backend, result._replace(failure=failure), half, None, True)


def _polynomial(backend: Backend, a: Array, *, estimates: bool = True) -> Solution:
    """By products alone, with a schedule for the spread of the spectrum; a result with a large residual is a failure.

    The spread is estimated by an inverse; without `estimates` the schedule is that for any spectrum.
    """
    size = backend.norm(a)
    start = AntiDiagonal(a / broadcast_scalar(safe_divisor(backend, size)), eye(backend, a) + 0 * a)
    levels = _LEVELS if estimates else _LEVELS[-1:]
    lower = backend.xp.sqrt(1 / backend.norm(backend.inv(start.a))) if estimates else 0 * size

    def attempt(levels: tuple[float, ...], lower: Array, x: Array, unit: Array) -> Any:
        level, *rest = levels

        def at_level(lower: Array, x: Array, unit: Array) -> Any:
            schedule = polar_express(max(level, math.sqrt(x.shape[-1] * backend.eps(x))), 1e-4, backend.eps(x))
            return finish(
                backend, run_schedule(backend, AntiDiagonal(x, unit), schedule), len(schedule) * backend.ones(x)
            )

        if not rest:
            return at_level(lower, x, unit)
        return backend.masked_cond(lower > level, at_level, lambda *args: attempt(tuple(rest), *args), lower, x, unit)

    iterate = attempt(levels, lower, *start)
    x, z = iterate.value
    root = broadcast_scalar(backend.xp.sqrt(safe_divisor(backend, size)))
    x, z = x * root, z / root
    # The residual of the coupled iteration grows with the condition of the root.
    spread = backend.norm(x) * backend.norm(z)
    limit = backend.xp.minimum(100 * a.shape[-1] * backend.eps(a) * spread, math.sqrt(backend.eps(a)) * backend.ones(a))
    gap = backend.xp.maximum(
        backend.norm(x @ x - a) / backend.norm(x) ** 2, backend.norm(x @ z - eye(backend, a)) / spread
    )
    inaccurate = ~(iterate.defect < NEAR_SIGN) | ~(gap < limit)
    return solution(backend, (x, z), Failure.NOT_REAL, inaccurate, iterate.steps)


def takes_single(*, method: str, **options: Any) -> bool:
    return method in ("auto", "eigh")
