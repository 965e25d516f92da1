"""Sylvester equations with a vertical line between the spectra of a and -b.

With a and b shifted into one half plane, x is a sum (`smith.two_sided_sylvester`), and 2 x is a corner of the sign of
[[-a, q], [0, b]], by Newton's iteration. The line Re z = s is found by trial; the shift does not change the equation,
(a - sI) x + x (b + sI) = q.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.iterations.block_structures import Triangular
from matsign.iterations.newton import has_converged, newton
from matsign.iterations.smith import two_sided_sylvester
from matsign.linalg.separation import ROUNDINGS, may_be_singular
from matsign.linalg.stacks import adjoint, broadcast_scalar, inner, plus_identity, safe_divisor


class LineSearchResult(NamedTuple):
    """x, Newton's steps over all tries, whether a line was found, the line, and the side on which a lies (1: right)."""

    x: Array
    steps: Array
    sound: Array
    line: Array
    side: Array


def likely_inseparable(backend: Backend, a: Array, b: Array) -> Array:
    """Which pairs probably have no line, judged by the means and standard deviations of the two spectra.

    The mean of k numbers on one side of a line is at least 1/√k of their standard deviation away from it, usually more. For
    small matrices Schur vectors cost no more than a failed try, so that these must be farther apart.
    """
    n, m = a.shape[-1], b.shape[-1]
    apart = 1.0 if max(n, m) <= 64 else 2 / math.sqrt(max(n, m))
    mean_a, mean_b = _trace(backend, a) / n, _trace(backend, b) / m
    return backend.xp.abs(mean_a + mean_b) < apart * (
        _real_part_deviation(backend, a, mean_a) + _real_part_deviation(backend, b, mean_b)
    )


def _real_part_deviation(backend: Backend, a: Array, mean: Array) -> Array:
    """The standard deviation of the real parts of the eigenvalues: exact for normal matrices, else an upper bound."""
    n = a.shape[-1]
    size = backend.norm(a)
    second = (_inner(backend, a, a) + size * size) / (2 * n)
    variance = second - mean * mean
    return backend.xp.sqrt(backend.xp.where(variance > 0, variance, 0 * variance))


def find_separating_line(backend: Backend, a: Array, b: Array, q: Array, tries: int, limit: int) -> LineSearchResult:
    """Try lines between the spectra of a and -b until one separates them.

    The means of the two spectra tell which one is on the left, and the line lies between them. The traces of the converged
    blocks of a try count the eigenvalues on the wrong side and give their mean: if both spectra have some, no line exists;
    if one has, its bound moves to their mean.
    """
    xp, one = backend.xp, backend.ones(q)
    n, m = q.shape[-2:]
    side, low, high, line = _line_between_means(backend, a, b)

    def step(state: Any) -> Any:
        a, b, q, side, low, high, line, _, steps, done = state
        right_a, right_b = _shift_and_turn(backend, a, b, line, side)
        iterate = newton(backend, Triangular(-right_a, broadcast_scalar(side) * q, right_b), limit)
        s = iterate.value
        count_a, count_b = (n + _trace(backend, s.a)) / 2, (m - _trace(backend, s.b)) / 2
        misplaced_a, misplaced_b = count_a > 0.5, count_b > 0.5
        sure = (
            has_converged(backend, iterate)
            & (_off_integer(backend, count_a) < 0.1)
            & (_off_integer(backend, count_b) < 0.1)
        )
        # Means of the misplaced eigenvalues: of a where the sign of the first block is +1, of -b where the second's is -1.
        mean_wrong_a = (_trace(backend, a) + _inner(backend, s.a, a)) / (2 * safe_divisor(backend, count_a))
        mean_wrong_b = -(_trace(backend, b) - _inner(backend, s.b, b)) / (2 * safe_divisor(backend, count_b))
        moves_low = sure & xp.where(side > 0, misplaced_b, misplaced_a)
        moves_high = sure & xp.where(side > 0, misplaced_a, misplaced_b)
        mean_wrong_low, mean_wrong_high = (
            xp.where(side > 0, mean_wrong_b, mean_wrong_a),
            xp.where(side > 0, mean_wrong_a, mean_wrong_b),
        )
        low = xp.where(moves_low, xp.maximum(line, mean_wrong_low), low)
        high = xp.where(moves_high, xp.minimum(line, mean_wrong_high), high)
        done = xp.astype(sure & ~misplaced_a & ~misplaced_b, line.dtype)
        mixed = (moves_low & moves_high) | (low >= high)
        # If an eigenvalue lies on the line, try another line.
        next_line = xp.where(sure, (low + high) / 2, line + 0.382 * (high - line))
        next_line = xp.where(done > 0, line, next_line)
        state = (a, b, q, side, low, high, next_line, s.c / 2, steps + iterate.steps, done)
        return state, (done == 0) & ~mixed

    zero = 0 * one
    *_, line, x, steps, done = backend.loop(step, (a, b, q, side, low, high, line, 0 * q, zero, zero), tries)
    return LineSearchResult(x, steps, (done > 0) & (low < high), line, side)


def _line_between_means(backend: Backend, a: Array, b: Array) -> tuple[Array, Array, Array, Array]:
    """(side, low, high, line): the means of the two spectra, 1 where a lies right of -b, and a line between the means."""
    xp, one = backend.xp, backend.ones(a)
    mean_a, mean_b = _trace(backend, a) / a.shape[-1], -_trace(backend, b) / b.shape[-1]
    low, high = xp.minimum(mean_a, mean_b), xp.maximum(mean_a, mean_b)
    line = xp.where((low < 0) & (high > 0), 0 * one, (low + high) / 2)
    return xp.where(mean_a >= mean_b, one, -one), low, high, line


def solve_by_doubling(backend: Backend, a: Array, b: Array, q: Array, limit: int) -> tuple[LineSearchResult, Array]:
    """x as a sum, after the shift by the line between the means, and where the equation may be singular."""
    side, _, _, line = _line_between_means(backend, a, b)
    result, growth = _sum_on_line(backend, a, b, q, line, side, limit)
    limit = ROUNDINGS * backend.eps(a) * (backend.norm(a) + backend.norm(b))
    # A solution this large means an operator that is singular to working precision.
    large = ~(backend.norm(result.x) * limit < safe_divisor(backend, backend.norm(q)))
    return result, may_be_singular(backend, 1 / growth, q, limit) | large


def shift_to_line(backend: Backend, a: Array, b: Array) -> tuple[Array, Array, Array]:
    """(side (a - s I), side (b + s I), side) for the line s between the means; side is 1 where a is on the right, else -1."""
    side, _, _, line = _line_between_means(backend, a, b)
    return (*_shift_and_turn(backend, a, b, line, side), side)


def _sum_on_line(
    backend: Backend, a: Array, b: Array, q: Array, line: Array, side: Array, limit: int
) -> tuple[LineSearchResult, Array]:
    """x with a x + x b = q, and how much larger than q it may be."""
    smith_sum = two_sided_sylvester(
        backend, *_shift_and_turn(backend, a, b, line, side), (broadcast_scalar(side) * q)[..., None, :, :], limit
    )
    return LineSearchResult(
        smith_sum.x[..., 0, :, :], smith_sum.steps, smith_sum.converged, line, side
    ), smith_sum.growth


def _shift_and_turn(backend: Backend, a: Array, b: Array, line: Array, side: Array) -> tuple[Array, Array]:
    """side (a - line I) and side (b + line I): both spectra are in the right half plane if the line separates them."""

    def shift_members(a: Array, b: Array, line: Array, side: Array) -> tuple[Array, Array]:
        return broadcast_scalar(side) * plus_identity(backend, -broadcast_scalar(line), a), broadcast_scalar(
            side
        ) * plus_identity(backend, broadcast_scalar(line), b)

    return backend.masked_cond((line != 0) | (side < 0), shift_members, lambda a, b, *_: (a, b), a, b, line, side)


def unproven_line(backend: Backend, search: LineSearchResult, a: Array, b: Array) -> Array:
    """Where it is not yet proved that the equation is not singular.

    It is not if the fields of values of a and -b lie on the two sides of the line, each √eps of the norms away from it: the
    separation is at least the distance between them.
    """
    distance = math.sqrt(backend.eps(a)) * (backend.norm(a) + backend.norm(b))
    a, b = _shift_and_turn(backend, a, b, search.line, search.side)
    return ~(
        search.sound
        & fields_of_values_separated(backend, a, distance)
        & fields_of_values_separated(backend, b, distance)
    )


def fields_of_values_separated(backend: Backend, x: Array, distance: Array) -> Array:
    """Whether the field of values of x lies to the right of this distance from the imaginary axis."""
    factor = backend.cholesky(plus_identity(backend, -broadcast_scalar(2 * distance), x + adjoint(x)))
    return backend.xp.isfinite(factor).all((-1, -2))


def _trace(backend: Backend, x: Array) -> Array:
    return backend.trace(x).real


def _inner(backend: Backend, x: Array, y: Array) -> Array:
    """Re tr(x y)."""
    return inner(backend, adjoint(x), y)


def _off_integer(backend: Backend, x: Array) -> Array:
    return backend.xp.abs(x - backend.xp.round(x))
