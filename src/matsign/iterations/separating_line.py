"""Sylvester equations with a vertical line between the spectra of a and -b.

With a shifted to one side of the imaginary axis and b to the other, x is a sum that doubles (`doubling.two_sided_sylvester`) and
a corner of the sign of [[-a, q], [0, b]], for Newton's iteration. The line s is found by trying; the shift leaves the equation
alone, (a - sI) x + x (b + sI) = q.
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
    """x, Newton's steps over all tries, whether there is a line, which one, and on which side of it a lies: 1 is right."""

    x: Array
    steps: Array
    sound: Array
    line: Array
    side: Array


def likely_inseparable(backend: Backend, a: Array, b: Array) -> Array:
    """Which pairs look so mixed that a search for a line would be wasted: the means of the spectra beside their spread.

    The mean of k numbers on one side of a line is at least 1/√k of their standard deviation away from it, usually more. For
    small matrices Schur vectors cost no more than a failed try, so there the pair must look well apart.
    """
    n, m = a.shape[-1], b.shape[-1]
    apart = 1.0 if max(n, m) <= 64 else 2 / math.sqrt(max(n, m))
    mean_a, mean_b = _trace(backend, a) / n, _trace(backend, b) / m
    return backend.xp.abs(mean_a + mean_b) < apart * (
        _real_part_deviation(backend, a, mean_a) + _real_part_deviation(backend, b, mean_b)
    )


def _real_part_deviation(backend: Backend, a: Array, mean: Array) -> Array:
    """The standard deviation of the real parts of the eigenvalues, exact for normal matrices and above it for others."""
    n = a.shape[-1]
    size = backend.norm(a)
    second = (_inner(backend, a, a) + size * size) / (2 * n)
    variance = second - mean * mean
    return backend.xp.sqrt(backend.xp.where(variance > 0, variance, 0 * variance))


def find_separating_line(backend: Backend, a: Array, b: Array, q: Array, tries: int, limit: int) -> LineSearchResult:
    """Try lines between the spectra of a and -b until one separates them.

    The means of the two spectra say which one lies left and between what the line must run. A try that fails still counts
    the strays on either side, as traces of the converged blocks, and finds their mean: strays on both sides prove that no
    line exists, strays of one spectrum move its bound to their mean.
    """
    xp, one = backend.xp, backend.ones(q)
    n, m = q.shape[-2:]
    side, low, high, line = _line_between_means(backend, a, b)

    def step(state: Any) -> Any:
        a, b, q, side, low, high, line, _, steps, done = state
        right_a, right_b = _shift_and_turn(backend, a, b, line, side)
        found = newton(backend, Triangular(-right_a, broadcast_scalar(side) * q, right_b), limit)
        s = found.value
        count_a, count_b = (n + _trace(backend, s.a)) / 2, (m - _trace(backend, s.b)) / 2
        stray_a, stray_b = count_a > 0.5, count_b > 0.5
        sure = (
            has_converged(backend, found)
            & (_off_integer(backend, count_a) < 0.1)
            & (_off_integer(backend, count_b) < 0.1)
        )
        # Means of the strays: of a where the first block stayed +1, of -b where the second stayed -1.
        place_a = (_trace(backend, a) + _inner(backend, s.a, a)) / (2 * safe_divisor(backend, count_a))
        place_b = -(_trace(backend, b) - _inner(backend, s.b, b)) / (2 * safe_divisor(backend, count_b))
        moves_low = sure & xp.where(side > 0, stray_b, stray_a)
        moves_high = sure & xp.where(side > 0, stray_a, stray_b)
        place_low, place_high = xp.where(side > 0, place_b, place_a), xp.where(side > 0, place_a, place_b)
        low = xp.where(moves_low, xp.maximum(line, place_low), low)
        high = xp.where(moves_high, xp.minimum(line, place_high), high)
        done = xp.astype(sure & ~stray_a & ~stray_b, line.dtype)
        mixed = (moves_low & moves_high) | (low >= high)
        # An eigenvalue on the line itself: step aside.
        next_line = xp.where(sure, (low + high) / 2, line + 0.382 * (high - line))
        next_line = xp.where(done > 0, line, next_line)
        state = (a, b, q, side, low, high, next_line, s.c / 2, steps + found.steps, done)
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
    """x by doubling the sum that the line between the means makes of the equation, and where that equation may be singular."""
    side, _, _, line = _line_between_means(backend, a, b)
    found, growth = _sum_on_line(backend, a, b, q, line, side, limit)
    limit = ROUNDINGS * backend.eps(a) * (backend.norm(a) + backend.norm(b))
    # A solution this large means an operator that is singular to working precision.
    large = ~(backend.norm(found.x) * limit < safe_divisor(backend, backend.norm(q)))
    return found, may_be_singular(backend, 1 / growth, q, limit) | large


def shift_to_line(backend: Backend, a: Array, b: Array) -> tuple[Array, Array, Array]:
    """(a - s I, b + s I, side) about the line between the means, both times the side, which is that of a."""
    side, _, _, line = _line_between_means(backend, a, b)
    return (*_shift_and_turn(backend, a, b, line, side), side)


def _sum_on_line(
    backend: Backend, a: Array, b: Array, q: Array, line: Array, side: Array, limit: int
) -> tuple[LineSearchResult, Array]:
    """x with a x + x b = q, and how much larger than q it may be."""
    found = two_sided_sylvester(
        backend, *_shift_and_turn(backend, a, b, line, side), (broadcast_scalar(side) * q)[..., None, :, :], limit
    )
    return LineSearchResult(found.x[..., 0, :, :], found.steps, found.converged, line, side), found.growth


def _shift_and_turn(backend: Backend, a: Array, b: Array, line: Array, side: Array) -> tuple[Array, Array]:
    """a - line I and b + line I with both spectra in the right half plane."""

    def shift_members(a: Array, b: Array, line: Array, side: Array) -> tuple[Array, Array]:
        return broadcast_scalar(side) * plus_identity(backend, -broadcast_scalar(line), a), broadcast_scalar(
            side
        ) * plus_identity(backend, broadcast_scalar(line), b)

    return backend.masked_cond((line != 0) | (side < 0), shift_members, lambda a, b, *_: (a, b), a, b, line, side)


def unproven_line(backend: Backend, found: LineSearchResult, a: Array, b: Array) -> Array:
    """Where nothing proves yet that the equation with this line is not singular.

    A proof are fields of values of a and -b on two sides of the line: half the distance between them, √eps of the size, is
    below half the separation.
    """
    distance = math.sqrt(backend.eps(a)) * (backend.norm(a) + backend.norm(b))
    a, b = _shift_and_turn(backend, a, b, found.line, found.side)
    return ~(
        found.sound
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
