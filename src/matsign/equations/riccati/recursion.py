"""The backward Riccati recursion of a regulator in discrete time, over a horizon of k steps.

With x = qf after the last step, each step from x⁺ to x is

    k = (r + bᴴ x⁺ b)⁻¹ (bᴴ x⁺ a + sᴴ),    f = a - b k,    x = fᴴ x⁺ f + kᴴ r k + q - s k - kᴴ sᴴ,

the form of Joseph (Bucy & Joseph 1968): an error of k changes x by its square only, and x stays positive semidefinite where
[[q, s], [sᴴ, r]] is. The loops get coefficients (k, B, n, m), one for each step, from a function `by_time` of the stacks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.members import Solution, overflow_failure, solution
from matsign.equations.riccati.classification import zero_nonfinite_entries
from matsign.equations.riccati.problem import RiccatiProblem
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye, hermitian

# A map of stacks with leading axis B to stacks (k, B, n, m).
ByTime: TypeAlias = Callable[[Array], Array]

# Costs up to 2^(±this) keep their units, in single and in double precision.
_MODERATE = (64, 500)
# Eigenvalues of r + bᴴ x b above this, relative to its terms, lose few digits.
_FAR = 2.0**-7


class _Units(NamedTuple):
    """The exponents of the cost (B,) and of the inputs (B, m)."""

    cost: Array
    inputs: Array


class _Run(NamedTuple):
    """The gains (B, k, m, n), the solutions (B, k, n, n), the last step without a least cost (-1: none), and the smallest
    eigenvalue there.
    """

    gain: Array
    x: Array
    step: Array
    least: Array


def close(p: RiccatiProblem, gain: Array) -> Array:
    """a - b k."""
    return p.a - p.b @ gain


def weight_of(p: RiccatiProblem, x: Array) -> Array:
    """r + bᴴ x b."""
    return hermitian(p.r + adjoint(p.b) @ x @ p.b)


def right_of(p: RiccatiProblem, x: Array) -> Array:
    """bᴴ x a + sᴴ."""
    right = adjoint(x @ p.b) @ p.a
    return right if p.s is None else right + adjoint(p.s)


def cost_before(p: RiccatiProblem, x: Array, gain: Array) -> Array:
    """x before a step from x after it."""
    f = close(p, gain)
    x = adjoint(f) @ x @ f + adjoint(gain) @ p.r @ gain + p.q
    if p.s is not None:
        cross = p.s @ gain
        x = x - cross - adjoint(cross)
    return hermitian(x)


def solve_recursion(backend: Backend, p: RiccatiProblem, xf: Array, by_time: ByTime) -> Solution:
    """The gains (B, k, m, n) and the solutions (B, k + 1, n, n)."""
    p, xf = p._replace(q=hermitian(p.q), r=hermitian(p.r)), hermitian(xf)
    if not len(by_time(p.a)):
        gain = backend.zeros((len(xf), 0, p.b.shape[-1], p.b.shape[-2]), xf)
        return solution(backend, (gain, xf[:, None]))
    units = _units(backend, p, xf)
    run = _run(backend, _in_units(backend, units, p), backend.ldexp(xf, broadcast_scalar(-units.cost)), by_time)
    gain = backend.ldexp(run.gain, -units.inputs[:, None, :, None])
    x = backend.ldexp(run.x, units.cost[:, None, None, None])
    value = gain, backend.xp.concat([x, xf[:, None]], axis=1)
    result = solution(backend, value)
    failure = Failure.INDEFINITE_STEP.where(backend, run.step >= 0, result.failure)
    for y in value:
        failure = overflow_failure(backend, y.reshape((len(y), -1, 1)), failure)
    step = backend.astype(run.step, backend.dtype_name(run.least))
    return result._replace(failure=failure, detail=backend.xp.concat([step[:, None], run.least[:, None]], axis=-1))


def _units(backend: Backend, p: RiccatiProblem, xf: Array) -> _Units:
    """Units of the inputs in which b is at most near 1, and r near the cost of the states; units of an extreme cost or of one
    whose product with a would be extreme.
    """
    xp, m = backend.xp, p.b.shape[-1]

    def top(x: Array, size: int) -> Array:
        """The largest entries of columns, or of the whole matrix, of all steps."""
        return xp.max(xp.abs(x).reshape((len(x), -1, size)), axis=1)

    cost = backend.exponent(xp.maximum(top(xf, 1), top(p.q, 1)))
    b, r = top(p.b, m), top(xp.linalg.diagonal(p.r), m)
    inputs = backend.exponent(b)
    inputs = xp.where(r > 0, xp.maximum(inputs, (backend.exponent(r) - cost) // 2), inputs)
    limit = _MODERATE[backend.eps(xf) < 1e-10]
    # x b a does not underflow where a is tiny.
    of_a = backend.exponent(top(p.a, 1))
    scaled = xp.where(of_a < -limit, xp.clip(-of_a, limit, 7 * limit // 4), xp.clip(cost, -limit, limit))
    return _Units((cost - scaled)[:, 0], inputs)


def _in_units(backend: Backend, units: _Units, p: RiccatiProblem) -> RiccatiProblem:
    def scale(x: Array, exponents: Array) -> Array:
        return backend.ldexp(x, exponents if x.ndim == 3 else exponents[:, None])

    cost, rows, columns = broadcast_scalar(units.cost), units.inputs[:, :, None], units.inputs[:, None, :]
    return p._replace(
        b=scale(p.b, -columns),
        q=scale(p.q, -cost),
        r=scale(p.r, -cost - rows - columns),
        s=None if p.s is None else scale(p.s, -cost - columns),
    )


def _run(backend: Backend, p: RiccatiProblem, xf: Array, by_time: ByTime) -> _Run:
    """All steps; members in which rounding hides a part of an r + bᴴ x b with inputs that are separated first."""
    xp, steps = backend.xp, all_steps(p, by_time)
    x, gain = backend.scan(lambda x, p: _step(backend, x, p), xf, steps, reverse=True)[1]
    none = backend.int_zeros(xf) - 1
    run = _Run(xp.moveaxis(gain, 0, 1), xp.moveaxis(x, 0, 1), none, 0 * backend.ones(xf))
    uncertain = ~_weights_are_certain(backend, steps, xp.concat([x[1:], xf[None]], axis=0))
    result: _Run = backend.rare_cond(
        uncertain,
        lambda p, xf, _: _run_carefully(backend, all_steps(p, by_time), xf),
        lambda p, xf, run: run,
        *(p, xf, run),
    )
    return result


def all_steps(p: RiccatiProblem, by_time: ByTime) -> RiccatiProblem:
    """The coefficients of all steps, with leading axis time."""
    return RiccatiProblem(*(None if x is None else by_time(x) for x in p))


def _step(backend: Backend, x: Array, p: RiccatiProblem) -> tuple[Array, Arrays]:
    weight, units = _with_unit_diagonal(backend, weight_of(p, x))
    right = backend.ldexp(right_of(p, x), units[:, :, None])
    gain = backend.ldexp(backend.solve(weight, right), units[:, :, None])
    x = cost_before(p, x, gain)
    return x, (x, gain)


def _with_unit_diagonal(backend: Backend, weight: Array) -> tuple[Array, Array]:
    """The matrix in units in which its diagonal is near 1, and the exponents of these units."""
    units = -(backend.exponent(backend.xp.abs(backend.xp.linalg.diagonal(weight).real)) // 2)
    return backend.ldexp(weight, units[:, :, None] + units[:, None, :]), units


def _weights_are_certain(backend: Backend, p: RiccatiProblem, after: Array) -> Array:
    """The members in which each r + bᴴ x b is far from singular, compared with its terms."""
    (steps, members), xp = after.shape[:2], backend.xp
    merged = RiccatiProblem(*(None if x is None else x.reshape((-1, *x.shape[2:])) for x in p))
    after, size = after.reshape((-1, *after.shape[2:])), xp.abs(merged.b)
    weight, units = _with_unit_diagonal(backend, weight_of(merged, after))
    terms = xp.abs(xp.linalg.diagonal(merged.r)) + xp.sum(size * (xp.abs(after) @ size), axis=-2)
    certain = _is_definite(backend, weight, _FAR * xp.max(backend.ldexp(terms, 2 * units), axis=-1))
    return certain.reshape((steps, members)).all(0)


def _is_definite(backend: Backend, weight: Array, least: Array) -> Array:
    """Whether all eigenvalues are above `least`."""
    shifted = weight - broadcast_scalar(least) * eye(backend, weight)
    return backend.xp.isfinite(backend.norm(backend.cholesky(shifted)))


class _State(NamedTuple):
    """x, and the first step from the end whose weight is not positive definite, with this weight."""

    x: Array
    step: Array
    weight: Array


def _run_carefully(backend: Backend, p: RiccatiProblem, xf: Array) -> _Run:
    xp = backend.xp
    start = _State(xf, backend.int_zeros(xf) - 1, eye(backend, p.b[0]) + broadcast_scalar(0 * backend.ones(xf)))
    last, (x, gain) = backend.scan(
        lambda state, row: _careful_step(backend, state, *row), start, (p, range(len(p.a))), reverse=True
    )
    least = backend.eigh(last.weight)[0][..., 0]
    return _Run(xp.moveaxis(gain, 0, 1), xp.moveaxis(x, 0, 1), last.step, least)


def _careful_step(backend: Backend, state: _State, p: RiccatiProblem, k: Any) -> tuple[_State, Arrays]:
    xp = backend.xp
    weight, right, back, terms = _separate(backend, p, state.x)
    weight, units = _with_unit_diagonal(backend, weight)
    rounding = 8 * weight.shape[-1] * backend.eps(weight) * xp.max(backend.ldexp(terms, 2 * units), axis=-1)
    definite = _is_definite(backend, weight, rounding)
    failed = ~definite & (state.step < 0) & xp.isfinite(weight).all((-1, -2))
    safe = xp.where(broadcast_scalar(definite), weight, eye(backend, weight))
    gain = backend.solve(safe, backend.ldexp(right, units[:, :, None]))
    gain = back @ backend.ldexp(gain, units[:, :, None])
    x = cost_before(p, state.x, gain)
    first = xp.where(broadcast_scalar(failed), weight, state.weight)
    return _State(x, xp.where(failed, k + 0 * state.step, state.step), first), (x, gain)


def _separate(backend: Backend, p: RiccatiProblem, x: Array) -> tuple[Array, Array, Array, Array]:
    """vᴴ(r + bᴴ x b)v, vᴴ(bᴴ x a + sᴴ), v and the terms in the diagonal of the first, with v the eigenvectors of bᴴ x b.

    Inputs without effect on x have columns of b v near 0, so that a small r keeps its digits there, beside a large x.
    """
    xp, units = backend.xp, _with_unit_diagonal(backend, weight_of(p, x))[1]
    scaled = backend.ldexp(p.b, units[:, None, :])
    v = backend.eigh(zero_nonfinite_entries(backend, hermitian(adjoint(scaled) @ x @ scaled)))[1]
    b, v = scaled @ v, backend.ldexp(v, units[:, :, None])
    moved, size_b, size_v = x @ b, xp.abs(b), xp.abs(v)
    weight = hermitian(adjoint(v) @ p.r @ v) + hermitian(adjoint(b) @ moved)
    right = adjoint(moved) @ p.a
    right = right if p.s is None else right + adjoint(p.s @ v)
    terms = xp.sum(size_v * (xp.abs(p.r) @ size_v), axis=-2) + xp.sum(size_b * (xp.abs(x) @ size_b), axis=-2)
    return weight, right, v, terms
