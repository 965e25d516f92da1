"""Solvers of aᴴ x + x a - x b bᴴ x + cᴴ c = 0 for a factor z of x = z zᴴ.

For a large a the gain bᴴ x comes from structured doubling on factors, and z from Newton's method (Kleinman 1968): with a gain k
near bᴴ x, z is a factor of the Gramian (a - b k)ᴴ x + x (a - b k) + cᴴ c + kᴴ k = 0 of the closed loop, by Smith's iteration.
Its convergence proves that the closed loop is stable. A small a, or one where this fails, has the factor of the solution of
`solve_continuous_are`.
"""

from __future__ import annotations

from typing import NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.failures import Failure
from matsign.core.members import Solution, no_details, solution
from matsign.direct import qz
from matsign.equations.riccati.care import SOLVERS
from matsign.equations.riccati.problem import RiccatiProblem, solution_units
from matsign.equations.riccati.solver import is_eigenvalue
from matsign.iterations.smith import cayley_at
from matsign.iterations.smith_factored import Factors, phases, principal, smith_factors, zero_nonfinite_members
from matsign.iterations.structured_doubling_factored import cayley_pencil, double_factors, shift
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye, hermitian, safe_divisor, scale_to_unit

# From this size on members are computed on factors, one at a time, each with as many columns as it needs.
LARGE = 64
# For eigenvalues of a below this times the average size of b c, those of the closed loop are about as large as b c.
_NEARLY_ZERO = 2.0**-10
# Newton's method squares the error of a gain: one step is enough for a gain with half of the digits.
_STEPS = 4

# The reasons of the dense solver, in terms of c.
_REASONS = {
    Failure.NOT_DETECTABLE: Failure.NOT_OBSERVED,
    Failure.HARDLY_STABILISED: Failure.HARDLY_OBSERVED,
}


def solve_factor(backend: Backend, a: Array, b: Array, c: Array) -> Solution:
    """z of each member."""
    if a.shape[-1] < LARGE or backend.is_traced(a):
        return _by_solution(backend, a, b, c)
    members = [_member(backend, *(x[k : k + 1] for x in (a, b, c))) for k in range(len(a))]
    value = backend.xp.concat([m.value[0] for m in members])
    return Solution((value,), *(backend.xp.concat(part) for part in zip(*(m[1:] for m in members), strict=True)))


def _member(backend: Backend, a: Array, b: Array, c: Array) -> Solution:
    """One member, by doubling on factors or by the dense solution."""
    s = in_balanced_units(backend, a, b, c)
    z, steps, found = _by_doubling(backend, s)
    if found:
        return _restore(backend, s, solution(backend, (z,), iterations=steps * backend.ones(a)))
    # All methods of the dense solver would be tried before it says so. Of modes near the axis it knows more.
    none, value = backend.host_callback(qz.uncontrolled_modes, (backend.ones(a) > 0, no_details(backend, a)), s.a, s.b)
    if backend.all_true(none & (value[..., 0] > backend.eps(a) ** 0.5)):
        detail = backend.ldexp(value, s.time[..., None])
        return solution(backend, (0 * a,), Failure.NOT_STABILISABLE, none)._replace(detail=detail)
    return _by_solution(backend, a, b, c)


class ScaledModel(NamedTuple):
    """The model in units of the states that balance a, and of time and outputs in which no entry exceeds 1.

    The factor in the caller's units is 2^(scale - e) z; eigenvalues are 2^time times those of this model.
    """

    a: Array
    b: Array
    c: Array
    e: Array
    scale: Array
    time: Array


def in_balanced_units(backend: Backend, a: Array, b: Array, c: Array) -> ScaledModel:
    """The model in these units."""
    xp = backend.xp
    e, a, of_a = scaling.balance_together(backend, a)
    e = xp.zeros_like(a[:, 0, :].real, dtype=xp.int32) if e is None else e
    b, of_b = scaling.scale_right_side(backend, b, xp.broadcast_to(e[:, :, None], b.shape))
    c, of_c = scaling.scale_right_side(backend, c, xp.broadcast_to(-e[:, None, :], c.shape))
    return _at_size(backend, e, (a, of_a), (b, of_b), (c, of_c))


def in_units_of_time(backend: Backend, a: Array, b: Array, c: Array) -> ScaledModel:
    """The model with the caller's units of the states."""
    e = backend.xp.zeros_like(a[:, 0, :].real, dtype=backend.xp.int32)
    first, second, third = (scale_to_unit(backend, x) for x in (a, b, c))
    return _at_size(backend, e, first, second, third)


def _at_size(backend: Backend, e: Array, *scaled: tuple[Array, Array]) -> ScaledModel:
    """From a, b and c near 1, each with the exponent of its size."""
    (a, of_a), (b, of_b), (c, of_c) = scaled
    time = time_exponent(backend, b, c, of_a, of_b + of_c)
    a = backend.ldexp(a, broadcast_scalar(of_a - time))
    b = backend.ldexp(b, broadcast_scalar(of_b + of_c - time))
    return ScaledModel(a, b, c, e, of_c - time // 2, time)


def time_exponent(backend: Backend, b: Array, c: Array, of_a: Array, of_bc: Array) -> Array:
    """The exponent of the unit of time: the larger one of a and of b c, made even."""
    coupled = (b != 0).any((-1, -2)) & (c != 0).any((-1, -2))
    time = backend.xp.where(coupled, backend.xp.maximum(of_a, of_bc), of_a)
    return time + time % 2


def in_units_of(backend: Backend, s: ScaledModel, z: Array) -> Array:
    """A factor z in the units of s."""
    return backend.ldexp(z, s.e[:, :, None] - broadcast_scalar(s.scale))


def _restore(backend: Backend, s: ScaledModel, result: Solution) -> Solution:
    return scaling.restore(backend, result, broadcast_scalar(s.scale) - s.e[:, :, None])


def _by_doubling(backend: Backend, s: ScaledModel) -> tuple[Array, int, bool]:
    """(z, steps, whether it is the solution) of one member."""
    p = _shift(backend, s)
    doubled = double_factors(backend, cayley_pencil(backend, s.a, s.b, adjoint(s.c), p))
    z, steps = doubled.c, doubled.steps
    gain = closed_loop_gain(s, z)
    for _ in range(_STEPS if doubled.converged else 0):
        factors = _closed_loop_factors(backend, s, gain, p)
        z, steps = factors.z[0], steps + int(factors.steps[0])
        if not backend.all_true(factors.converged):
            break
        gain, before = closed_loop_gain(s, z), gain
        change = backend.norm(gain - before) / safe_divisor(backend, backend.norm(gain))
        if backend.all_true(change <= backend.eps(z) ** 0.5):
            return z, steps, True
    return z, steps, False


def _shift(backend: Backend, s: ScaledModel) -> Array:
    """`shift` of a, or where a is nearly zero the average size of b c for each eigenvalue: that of the closed loop."""
    p, coupling = shift(backend, s.a), backend.norm(s.b) * backend.norm(s.c) / s.a.shape[-1]
    return backend.xp.where(p > _NEARLY_ZERO * coupling, p, coupling)


def closed_loop_gain(s: ScaledModel, z: Array) -> Array:
    """bᴴ z zᴴ."""
    return (adjoint(s.b) @ z) @ adjoint(z)


def _closed_loop_factors(backend: Backend, s: ScaledModel, gain: Array, p: Array) -> Factors:
    """A factor of the x with (a - b k)ᴴ x + x (a - b k) + cᴴ c + kᴴ k = 0 for this gain k."""
    transformed = cayley_at(backend, adjoint(s.a - s.b @ gain), p)
    right = backend.xp.concat([adjoint(s.c), adjoint(gain)], axis=-1)
    start = broadcast_scalar(backend.xp.sqrt(2 * p)) * (transformed.m @ right)
    return smith_factors(backend, transformed.c, (start,), (False,))


def _by_solution(backend: Backend, a: Array, b: Array, c: Array) -> Solution:
    """The factor of the dense solution, with as many columns as it has eigenvalues above rounding."""
    s = in_units_of_time(backend, a, b, c)
    result = SOLVERS["left"](backend, with_weights(backend, s.a, s.b, s.c), method="auto")
    x = zero_nonfinite_members(backend, result.value[0])
    sizes = backend.xp.linalg.diagonal(x).real
    top = backend.xp.max(sizes, axis=-1, keepdims=True)
    uneven = ((sizes > 0) & (sizes < backend.eps(x) ** 0.5 * top)).any(-1)
    z = backend.rare_cond(uneven, lambda x: _factor_in_units(backend, x), lambda x: _factor(backend, x), x)
    return _restore(backend, s, _in_terms_of_c(backend, result, s.time)._replace(value=(z,)))


def _in_terms_of_c(backend: Backend, result: Solution, time: Array) -> Solution:
    """The solution with the reasons of its failures in terms of c, and eigenvalues in the caller's unit of time."""
    if backend.is_traced(result.failure) or not backend.any_true(result.failure):
        return result
    exponents = backend.xp.where(is_eigenvalue(result.failure), time, 0 * time)
    failure, detail = result.failure, backend.ldexp(result.detail, exponents[..., None])
    for reason, in_terms_of_c in _REASONS.items():
        failure = in_terms_of_c.where(backend, failure == int(reason), failure)
    return result._replace(failure=failure, detail=detail)


def _factor(backend: Backend, x: Array) -> Array:
    """Eigenvectors times roots of the eigenvalues above rounding, the longest first, their phases as in `principal`."""
    values, v = backend.eigh(x)
    values, v = backend.xp.flip(values, axis=-1), backend.xp.flip(v, axis=-1)
    rounding = 4 * x.shape[-1] * backend.eps(x) * values[:, :1]
    z = v * backend.xp.sqrt(backend.xp.where(values > rounding, values, 0 * values))[:, None, :]
    return z * phases(backend, z)


def _factor_in_units(backend: Backend, x: Array) -> Array:
    """The same for an x whose diagonal is uneven: its small entries would be lost in the rounding errors of the others."""
    e = solution_units(backend, x)
    scaled = backend.ldexp(x, -e[:, :, None] - e[:, None, :])
    return principal(backend, backend.ldexp(_factor(backend, scaled), e[:, :, None]))


def with_weights(backend: Backend, a: Array, b: Array, c: Array) -> RiccatiProblem:
    """The equation with q = cᴴ c and r = I."""
    m = b.shape[-1]
    r = backend.zeros((len(b), m, m), b) + eye(backend, b)
    return RiccatiProblem(a, b, hermitian(adjoint(c) @ c), r, None, None)
