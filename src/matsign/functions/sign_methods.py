"""How the sign of a stack is computed: eigenvectors, Newton's iteration, products alone, Schur vectors."""

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


# A condition number this part of the one at which a matrix counts as singular is a reason to look: it is an estimate, by rounded
# inverses and norms.
MARGIN = 0.1


# A correction of this part of the value and more says that no digit of the value is sure: an estimate of it may be this much off.
LARGE = 1 / 30


def sign(
    backend: Backend, m: Array, *, tol: float | None, rtol: float | None, method: str, of: FromSign | None = None
) -> Solution:
    """mcsgn of a stack, or what `of` makes of it: Hermitian members by eigenvectors where cheap, singular ones deflated.

    All is computed in units that balance M, and only the end is brought back into the caller's.
    """
    whole = sign_by_eigh if method == "eigh" else _sign_in_units
    units = units_for_method(backend, m, method)
    found = whole(backend, units.matrix, accuracy(backend, m, tol), rtol, method)
    (value,), degree = found.value, 0
    if of is not None:
        value, degree = of.product(units.matrix, value), of.degree
    value = units.mask_unreachable(backend, units.outward(backend, value, degree, exact=True))
    # What was finite in balanced units may be too large for the dtype in the caller's.
    return found._replace(value=(value,), failure=overflow_failure(backend, value, found.failure))


class FromSign(NamedTuple):
    """What is made of M and its sign, homogeneous in M of this degree."""

    product: Callable[[Array, Array], Array]
    degree: int


def units_for_method(backend: Backend, m: Array, method: str = "auto") -> balancing.BalancedMatrix:
    """`balance.units`; eigenvectors of a Hermitian matrix want it as it is, only brought to size."""
    if method != "eigh":
        return balancing.balance(backend, m)
    matrix, k = scale_to_unit(backend, m)
    return balancing.BalancedMatrix(matrix, None, k, None)


def _sign_in_units(backend: Backend, m: Array, tol: float, rtol: float | None, method: str) -> Solution:
    def by_eigh(m: Array) -> Solution:
        return sign_by_eigh(backend, m, tol, rtol, method)

    def by_iteration(m: Array) -> Solution:
        return _one_sided(backend, _general(backend, m, tol, rtol, method))

    if method == "auto" and backend.on_cpu(m) and not backend.is_traced(m):
        # Seven products' worth on a CPU, exact for normal input; on an accelerator the iterations win.
        return backend.masked_cond(is_hermitian(m) & ~_hangs_on_rounding(backend, m, rtol), by_eigh, by_iteration, m)
    return by_iteration(m)


def _hangs_on_rounding(backend: Backend, m: Array, rtol: float | None) -> Array:
    """Where an rtol below rounding has eigenvectors tell zero from what rounding makes of it; zeros are to be counted then."""
    least = m.shape[-1] * backend.eps(m)
    if rtol is None or rtol >= least:
        return all_false(backend, m)
    values = backend.xp.linalg.svdvals(m)
    return values[:, -1] <= least * values[:, 0]


def _one_sided(backend: Backend, found: Solution) -> Solution:
    """I or -I without its rounding errors, where the trace says that all eigenvalues lie on one side."""
    (s,) = found.value
    n = s.shape[-1]
    count = broadcast_scalar(backend.trace(s).real)
    if not backend.is_traced(s) and not (abs(count) > n - 0.5).any():
        return found
    s = backend.xp.where(count > n - 0.5, eye(backend, s), backend.xp.where(count < 0.5 - n, -eye(backend, s), s))
    return found._replace(value=(s,))


def sign_by_eigh(backend: Backend, m: Array, tol: float, rtol: float | None, method: str) -> Solution:
    values, vectors = backend.eigh(m)
    top = backend.xp.maximum(-values[:, :1], values[:, -1:])
    keep = backend.xp.abs(values) > rank_tolerance(backend, m, rtol) * top
    signs = backend.xp.sign(values) * backend.xp.astype(keep, values.dtype)
    value = hermitian((vectors * signs[:, None, :]) @ adjoint(vectors))
    found = solution(backend, (value,), Failure.NOT_HERMITIAN, ~is_nearly_hermitian(backend, m))
    return _one_sided(backend, found)


def _general(backend: Backend, m: Array, tol: float, rtol: float | None, method: str) -> Solution:
    """Iterate, and deflate the members that may have a zero eigenvalue."""
    n = m.shape[-1]
    if method == "auto":
        few = n <= LAPACK_SIZE and n * len(m) <= 96 and backend.on_cpu(m) and not backend.is_traced(m)
        method = "schur" if few else "guarded newton"
    found, condition = sign_of_regular(backend, m, tol, method)
    smallest = rank_tolerance(backend, m, rtol)

    def sign_of_deflation(m: Array, *_: Array) -> Solution:
        zero = deflate(backend, m, smallest)
        found, _ = sign_of_regular(backend, zero.matrix, tol, method)
        if method in ("newton", "polynomial"):
            found = _confirm(backend, zero.matrix, found)
        # A chain that is there but for rounding may as well be eigenvalues that rounding hides; that is for the caller to say.
        clear = zero.sound & (zero.null | ~zero.defective) if rtol is None else zero.sound
        unclear = ~clear & (found.failure != int(Failure.AXIS))
        failure = Failure.UNDECIDED_ZERO.where(backend, unclear, found.failure)
        value = found.value[0] - zero.projector
        nilpotent = broadcast_scalar(backend.trace(zero.projector).real > n - 0.5)
        return found._replace(value=(backend.xp.where(nilpotent, 0 * value, value),), failure=failure)

    def keep(m: Array, s: Array, *rest: Array) -> Solution:
        return Solution((s,), *rest)

    # Singular as it stands, whatever is to count as zero, or singular to what is.
    limit = max(smallest, n * backend.eps(m))
    return backend.rare_cond(~(condition * limit < MARGIN), sign_of_deflation, keep, m, *found.value, *found[1:])


def sign_of_regular(backend: Backend, m: Array, tol: float, method: str) -> tuple[Solution, Array]:
    """The sign of nonsingular members by one method, what to believe of it, and their condition numbers."""
    x = Dense(m)
    if method == "schur":
        return sign_by_schur(backend, m), backend.norm(m) * backend.norm(backend.inv(m))
    if method == "polynomial":
        found = sign_by_products(backend, x, tol)
        lost = ~(found.defect < NEAR_SIGN)
        return solution(backend, found.value, Failure.NOT_REAL, lost, found.steps), backend.norm(m) * backend.norm(
            backend.inv(m)
        )
    found = newton(backend, x)
    s = found.value.m
    gap = backend.norm(m @ s - s @ m) / (backend.norm(m) * backend.norm(s))
    slow = ~has_converged(backend, found)
    if method == "newton":
        # An exact eigenvalue on the axis is moved off it by rounding, and the iteration then converges to noise.
        judged = backend.rare_cond(
            slow,
            lambda m, s, k: _confirm(backend, m, solution(backend, (s,), iterations=k)),
            lambda m, s, k: solution(backend, (s,), iterations=k),
            *(m, s, found.steps),
        )
        # A sign has a whole trace and commutes with m; one that was lost to rounding on the way has neither.
        count = backend.trace(s).real
        lost = ~(gap < backend.eps(m) ** 0.25) | ~(backend.xp.abs(count - backend.xp.round(count)) < 0.1)
        failure = Failure.NOT_CONVERGED.where(backend, lost & (judged.failure == 0), judged.failure)
        return judged._replace(failure=failure), found.condition
    # A small commutator is a small backward error; where rounding left a large one, Schur vectors do better.
    doubtful = slow | ~(gap < working_precision(backend, m))
    judged = backend.rare_cond(
        doubtful,
        lambda m, s, k: sign_by_schur(backend, m),
        lambda m, s, k: solution(backend, (s,), iterations=k),
        *(m, s, found.steps),
    )
    return judged, found.condition


def sign_by_schur(backend: Backend, m: Array) -> Solution:
    code = backend.int_zeros(m)
    value, failure = backend.host_callback(schur_functions.sign, (m, code), m)
    return solution(backend, (value,))._replace(failure=failure)


def _confirm(backend: Backend, m: Array, found: Solution) -> Solution:
    """A result that hangs on how an iteration rounds, where Schur vectors agree with it; they also see an eigenvalue on the axis.

    No residual does: I satisfies all that a sign must, and is none of a matrix with an eigenvalue on the left.
    """
    if backend.unrolls_loops(m):
        return found
    (s,), other = found.value, sign_by_schur(backend, m)
    same = backend.norm(s - other.value[0]) < 0.1 * backend.norm(other.value[0])
    lost = backend.xp.where(same, found.failure, int(Failure.NOT_CONVERGED) + 0 * found.failure)
    return found._replace(failure=backend.xp.where(other.failure != 0, other.failure, lost))


# How small the smallest eigenvalue may be beside √tr(M²). A schedule for smaller ones than there are is not only longer: its
# slopes multiply what little imaginary part rounding left.
_LEVELS = (1e-1, 1e-2, 1e-4, 1e-8, 0.0)


def sign_by_products(backend: Backend, x: Dense, tol: float) -> Iterate:
    """The article's iteration: X₀ = M/√tr(M²), whose eigenvalues lie in [-1, 1] if they are real."""
    square = backend.xp.abs(inner(backend, adjoint(x.m), x.m))
    start = x.m / broadcast_scalar(backend.xp.sqrt(safe_divisor(backend, square)))
    lower = 1 / backend.norm(backend.inv(start))

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

    return attempt(_LEVELS, start, lower)


ABS = FromSign(lambda m, s: m @ s, 1)


# S² and not I, so that a zero eigenvalue belongs to neither side.
PROJECTORS = {
    "right": FromSign(lambda m, s: (s @ s + s) / 2, 0),
    "left": FromSign(lambda m, s: (s @ s - s) / 2, 0),
}
