"""Errors of the gains and solutions of the backward Riccati recursion (`recursion`)."""

from __future__ import annotations

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.public import Residual
from matsign.equations.riccati.perturbations import in_odd_units, round_by_one, round_randomly
from matsign.equations.riccati.problem import RiccatiProblem
from matsign.equations.riccati.recursion import (
    ByTime,
    all_steps,
    close,
    cost_before,
    right_of,
    solve_recursion,
    weight_of,
)
from matsign.linalg.stacks import hermitian, relative_norm, safe_divisor, scale_to_unit


def recursion_errors(backend: Backend, value: Arrays, p: RiccatiProblem, xf: Array, by_time: ByTime) -> Residual:
    """The largest residual of a step, and the change of the results by rounded coefficients."""
    gain, x = value
    if x.shape[1] == 1:
        return Residual(relative_norm(backend, x[:, 0] - hermitian(xf), x[:, 0]), (0 * gain, 0 * x))
    p, xf = p._replace(q=hermitian(p.q), r=hermitian(p.r)), hermitian(xf)
    backward = _backward_error(backend, all_steps(p, by_time), gain, x)
    changes = [_changes(backend, value, p, xf, by_time, draw) for draw in range(2)]
    return Residual(backward, tuple(_larger(backend, y, z) for y, z in zip(*changes, strict=True)))


def _larger(backend: Backend, x: Array, y: Array) -> Array:
    """The larger numbers, the only ones where the others are NaN, and infinity where both are NaN."""
    xp = backend.xp
    known = xp.where(xp.isfinite(x), xp.where(xp.isfinite(y), xp.maximum(x, y), x), y)
    return xp.where(xp.isfinite(known), known, xp.inf)


def _changes(backend: Backend, value: Arrays, p: RiccatiProblem, xf: Array, by_time: ByTime, draw: int) -> Arrays:
    """The changes by rounded coefficients in units that are not powers of two, in which all rounding errors differ."""
    xp = backend.xp
    odd = in_odd_units(backend, round_randomly(backend, p), hermitian(round_by_one(backend, xf, draw)), draw)
    gain, x = solve_recursion(backend, odd.plant, odd.x, by_time).value
    pairs = zip(value, (gain * odd.gain, x * odd.gap), strict=True)
    return tuple(xp.abs(z - y) + 2 * backend.eps(y) * xp.abs(y) for y, z in pairs)


def _backward_error(backend: Backend, p: RiccatiProblem, gain: Array, x: Array) -> Array:
    """The largest residual of the equations of x and of the gain over all steps, each relative to its terms."""
    xp, members = backend.xp, x.shape[0]

    def merge(y: Array) -> Array:
        """The steps of all members as one stack."""
        return y.reshape((-1, *y.shape[2:]))

    gain, x = xp.moveaxis(gain, 0, 1), xp.moveaxis(x, 0, 1)
    step = RiccatiProblem(*(None if y is None else merge(y) for y in p))
    before, after, gain = merge(x[:-1]), merge(x[1:]), merge(gain)
    *weights, _ = scale_to_unit(backend, *(y for y in (before, after, step.q, step.r, step.s) if y is not None))
    before, after, q, r = weights[:4]
    step = step._replace(q=q, r=r, s=weights[4] if len(weights) == 5 else None)
    worst = xp.maximum(_gap_of_cost(backend, step, before, after, gain), _gap_of_gain(backend, step, after, gain))
    return xp.max(worst.reshape((-1, members)), axis=0)


def _gap_of_cost(backend: Backend, p: RiccatiProblem, before: Array, after: Array, gain: Array) -> Array:
    norm, f = backend.norm, close(p, gain)
    size = norm(p.a) + norm(p.b) * norm(gain)
    terms = norm(before) + norm(p.q) + size * norm(after) * norm(f) + norm(gain) ** 2 * norm(p.r)
    if p.s is not None:
        terms = terms + 2 * norm(p.s) * norm(gain)
    return norm(before - cost_before(p, after, gain)) / safe_divisor(backend, terms)


def _gap_of_gain(backend: Backend, p: RiccatiProblem, after: Array, gain: Array) -> Array:
    norm = backend.norm
    by_input = norm(p.b) * norm(after)
    terms = by_input * norm(p.a) + (norm(p.r) + by_input * norm(p.b)) * norm(gain)
    if p.s is not None:
        terms = terms + norm(p.s)
    return norm(weight_of(p, after) @ gain - right_of(p, after)) / safe_divisor(backend, terms)
