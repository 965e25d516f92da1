"""How the sign of a stack is computed: by eigenvectors, Newton's iteration, polynomial steps or Schur vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.members import Solution, overflow_failure, solution
from matsign.core.tolerances import LAPACK_SIZE, NEAR_SIGN, accuracy, rank_tolerance, working_precision
from matsign.direct import schur_functions
from matsign.iterations.block_structures import Dense
from matsign.iterations.minimax import polar_express
from matsign.iterations.newton import Iterate, finish, has_converged, newton, run_schedule
from matsign.linalg import balancing
from matsign.linalg.conditioning import is_well_conditioned
from matsign.linalg.deflation import deflate
from matsign.linalg.stacks import (
    adjoint,
    all_false,
    broadcast_scalar,
    eye,
    hermitian,
    inner,
    is_hermitian,
    is_nearly_hermitian,
    safe_divisor,
    scale_to_unit,
)

METHODS = ("auto", "newton", "polynomial", "schur", "eigh")


# A matrix is checked for zero eigenvalues from this fraction of the condition number at which it counts as singular, as the
# condition number is only an estimate.
MARGIN = 0.1


# If a correction is at least this fraction of the value, no digit of the value is sure: the correction is only an estimate.
LARGE = 1 / 30


def sign(
    backend: Backend, m: Array, *, tol: float | None, rtol: float | None, method: str, of: FromSign | None = None
) -> Solution:
    """mcsgn of a stack, or the function `of` of M and its sign: Hermitian members by eigenvectors, singular ones deflated.

    All is computed in units that balance M, and only the result is converted to the caller's.
    """
    solve = sign_by_eigh if method == "eigh" else _sign_in_units
    units = units_for_method(backend, m, method)
    result = solve(backend, units.matrix, accuracy(backend, m, tol), rtol, method)
    (value,), degree = result.value, 0
    if of is not None:
        value, degree = of.product(units.matrix, value), of.degree
    value = units.mask_unreachable(backend, units.outward(backend, value, degree, exact=True))
    # A value that is finite in balanced units may overflow in the caller's.
    return result._replace(value=(value,), failure=overflow_failure(backend, value, result.failure))


class FromSign(NamedTuple):
    """A function of M and its sign, homogeneous in M of this degree."""

    product: Callable[[Array, Array], Array]
    degree: int


def units_for_method(backend: Backend, m: Array, method: str = "auto") -> balancing.BalancedMatrix:
    """`balancing.balance`, or for `eigh` a scaling alone, which keeps the matrix Hermitian."""
    if method != "eigh":
        return balancing.balance(backend, m)
    matrix, k = scale_to_unit(backend, m)
    return balancing.BalancedMatrix(matrix, None, k, None)


def _sign_in_units(backend: Backend, m: Array, tol: float, rtol: float | None, method: str) -> Solution:
    def by_eigh(m: Array) -> Solution:
        return sign_by_eigh(backend, m, tol, rtol, method)

    def by_iteration(m: Array) -> Solution:
        return _one_sided(backend, _general(backend, m, tol, rtol, method))

    if method == "auto" and backend.fast_eigh(m) and not backend.is_traced(m):
        # Eigenvectors are backward stable.
        return backend.masked_cond(
            is_hermitian(m) & ~_is_singular_to_rounding(backend, m, rtol), by_eigh, by_iteration, m
        )
    return by_iteration(m)


def _is_singular_to_rounding(backend: Backend, m: Array, rtol: float | None) -> Array:
    """Where `rtol` is below rounding and m singular up to rounding: eigenvectors do not show which zeros are exact."""
    least = m.shape[-1] * backend.eps(m)
    if rtol is None or rtol >= least:
        return all_false(backend, m)
    values = backend.xp.linalg.svdvals(m)
    return values[:, -1] <= least * values[:, 0]


def _one_sided(backend: Backend, result: Solution) -> Solution:
    """I or -I without rounding errors, where the trace shows that all eigenvalues lie in one half plane."""
    (s,) = result.value
    n = s.shape[-1]
    count = broadcast_scalar(backend.trace(s).real)
    if not backend.is_traced(s) and not (abs(count) > n - 0.5).any():
        return result
    s = backend.xp.where(count > n - 0.5, eye(backend, s), backend.xp.where(count < 0.5 - n, -eye(backend, s), s))
    return result._replace(value=(s,))


def sign_by_eigh(backend: Backend, m: Array, tol: float, rtol: float | None, method: str) -> Solution:
    values, vectors = backend.eigh(m)
    top = backend.xp.maximum(-values[:, :1], values[:, -1:])
    keep = backend.xp.abs(values) > rank_tolerance(backend, m, rtol) * top
    signs = backend.xp.sign(values) * backend.xp.astype(keep, values.dtype)
    value = hermitian((vectors * signs[:, None, :]) @ adjoint(vectors))
    result = solution(backend, (value,), Failure.NOT_HERMITIAN, ~is_nearly_hermitian(backend, m))
    return _one_sided(backend, result)


def _general(backend: Backend, m: Array, tol: float, rtol: float | None, method: str) -> Solution:
    """Iterate, and deflate the members that may have a zero eigenvalue."""
    n = m.shape[-1]
    if method == "auto" and backend.products_only(m):
        return backend.masked_cond(
            is_hermitian(m),
            lambda m: _general(backend, m, tol, rtol, "polynomial"),
            lambda m: _general(backend, m, tol, rtol, "newton"),
            m,
        )
    if method == "auto":
        few = n <= LAPACK_SIZE and n * len(m) <= 96 and backend.on_cpu(m) and not backend.is_traced(m)
        method = "schur" if few else "guarded newton"
    result, condition = sign_of_regular(backend, m, tol, method)
    smallest = rank_tolerance(backend, m, rtol)

    def sign_of_deflation(m: Array, *_: Array) -> Solution:
        zero = deflate(backend, m, smallest)
        result, _ = sign_of_regular(backend, zero.matrix, tol, method)
        if method in ("newton", "polynomial"):
            result = _confirm(backend, zero.matrix, result)
        # A Jordan chain that exists only up to rounding may as well be small eigenvalues; only a given `rtol` decides.
        clear = zero.sound & (zero.null | ~zero.defective) if rtol is None else zero.sound
        unclear = ~clear & (result.failure != int(Failure.AXIS))
        failure = Failure.UNDECIDED_ZERO.where(backend, unclear, result.failure)
        value = result.value[0] - zero.projector
        nilpotent = broadcast_scalar(backend.trace(zero.projector).real > n - 0.5)
        return result._replace(value=(backend.xp.where(nilpotent, 0 * value, value),), failure=failure)

    def keep(m: Array, s: Array, *rest: Array) -> Solution:
        return Solution((s,), *rest)

    # Singular up to rounding, or up to `rtol` if that is larger.
    limit = max(smallest, n * backend.eps(m))
    regular = is_well_conditioned(backend, condition, limit / MARGIN, lambda m: (m, backend.inv(m)), m)
    return backend.rare_cond(~regular, sign_of_deflation, keep, m, *result.value, *result[1:])


def sign_of_regular(backend: Backend, m: Array, tol: float, method: str) -> tuple[Solution, Array]:
    """The sign of nonsingular members by one method, with the failures, and their condition numbers."""
    x = Dense(m)
    if method == "schur":
        return sign_by_schur(backend, m), backend.norm(m) * backend.norm(backend.inv(m))
    if method == "polynomial":
        iterate = sign_by_products(backend, x, tol)
        failed = ~(iterate.defect < NEAR_SIGN)
        result = solution(backend, iterate.value, Failure.NOT_REAL, failed, iterate.steps)
        if backend.products_only(m):
            return result, backend.ones(m)  # the steps move an eigenvalue within rounding of 0 neither to 1 nor to -1
        return result, backend.norm(m) * backend.norm(backend.inv(m))
    iterate = newton(backend, x)
    s = iterate.value.m
    gap = backend.norm(m @ s - s @ m) / (backend.norm(m) * backend.norm(s))
    slow = ~has_converged(backend, iterate)
    if method == "newton":
        # An exact eigenvalue on the axis is moved off it by rounding, and the iteration then converges to noise.
        checked = backend.rare_cond(
            slow,
            lambda m, s, k: _confirm(backend, m, solution(backend, (s,), iterations=k)),
            lambda m, s, k: solution(backend, (s,), iterations=k),
            *(m, s, iterate.steps),
        )
        # A sign has an integer trace and commutes with m; a result destroyed by rounding fails one of these tests.
        count = backend.trace(s).real
        failed = ~(gap < backend.eps(m) ** 0.25) | ~(backend.xp.abs(count - backend.xp.round(count)) < 0.1)
        failure = Failure.NOT_CONVERGED.where(backend, failed & (checked.failure == 0), checked.failure)
        return checked._replace(failure=failure), iterate.condition
    # The commutator is the backward error; where rounding made it large, Schur vectors are more accurate.
    doubtful = slow | ~(gap < working_precision(backend, m))
    checked = backend.rare_cond(
        doubtful,
        lambda m, s, k: sign_by_schur(backend, m),
        lambda m, s, k: solution(backend, (s,), iterations=k),
        *(m, s, iterate.steps),
    )
    return checked, iterate.condition


def sign_by_schur(backend: Backend, m: Array) -> Solution:
    code = backend.int_zeros(m)
    value, failure = backend.host_callback(schur_functions.sign, (m, code), m)
    return solution(backend, (value,))._replace(failure=failure)


def _confirm(backend: Backend, m: Array, result: Solution) -> Solution:
    """The result of an iteration that rounding may have decided, if Schur vectors agree; these also detect an axis eigenvalue.

    No residual does: I satisfies all equations of the sign, and is wrong if an eigenvalue lies in the left half plane.
    """
    if backend.unrolls_loops(m):
        return result
    (s,), other = result.value, sign_by_schur(backend, m)
    same = backend.norm(s - other.value[0]) < 0.1 * backend.norm(other.value[0])
    failure = backend.xp.where(same, result.failure, int(Failure.NOT_CONVERGED) + 0 * result.failure)
    return result._replace(failure=backend.xp.where(other.failure != 0, other.failure, failure))


# Lower bounds on the smallest eigenvalue relative to √tr(M²). A schedule for a bound smaller than necessary is longer, and its
# slopes magnify imaginary parts from rounding.
_LEVELS = (1e-1, 1e-2, 1e-4, 1e-8, 0.0)


def sign_by_products(backend: Backend, x: Dense, tol: float) -> Iterate:
    """Polynomial steps from X₀ = M/√tr(M²), whose eigenvalues lie in [-1, 1] if they are real."""
    square = backend.xp.abs(inner(backend, adjoint(x.m), x.m))
    start = x.m / broadcast_scalar(backend.xp.sqrt(safe_divisor(backend, square)))
    # By products alone an inverse costs more than the steps that it saves.
    levels = _LEVELS[-1:] if backend.products_only(start) else _LEVELS
    lower = 1 / backend.norm(backend.inv(start)) if len(levels) > 1 else square

    def attempt(levels: tuple[float, ...], start: Array, lower: Array) -> Iterate:
        level, *rest = levels

        def at_level(start: Array, lower: Array) -> Iterate:
            schedule = polar_express(
                max(level, start.shape[-1] * backend.eps(start)), max(tol, 1e-4), backend.eps(start)
            )
            return finish(backend, run_schedule(backend, Dense(start), schedule), len(schedule) * backend.ones(start))

        if not rest:
            return at_level(start, lower)
        return backend.masked_cond(lower > level, at_level, lambda *args: attempt(tuple(rest), *args), start, lower)

    return attempt(levels, start, lower)


ABS = FromSign(lambda m, s: m @ s, 1)


# S² and not I, so that a zero eigenvalue belongs to neither half plane.
PROJECTORS = {
    "right": FromSign(lambda m, s: (s @ s + s) / 2, 0),
    "left": FromSign(lambda m, s: (s @ s - s) / 2, 0),
}
