"""The Sylvester equation a x + x b = q.

The sign of [[A, C], [0, B]] with A negative stable and B positive stable is [[-I, 2X], [0, I]] where XB - AX = C
(`blocks.Triangular`; Roberts 1980). A shift s leaves the equation alone, (a - sI) x + x (b + sI) = q, so a vertical line between
the spectra of a and -b is all that this needs. Where there is none, Schur vectors (Bartels & Stewart 1972) do.

Differential:  a dx + dx b = dq - da x - x db, the same equation again.
"""

from __future__ import annotations

import math
from typing import Any

from matsign.backends import Backend
from matsign.engine import schur
from matsign.engine.blocks import Triangular
from matsign.engine.declare import Residual, Solution, declared, solution
from matsign.engine.failures import Failure
from matsign.engine.iterate import newton, settled
from matsign.engine.linear import adjoint, column, eye, inner, nonzero, norm, normalise

Array = Any

_METHODS = ("auto", "newton", "schur")
_TRIES = 4


def sylvester(be: Backend, a: Array, b: Array, q: Array, *, method: str) -> Solution:
    """x of a stack: Newton where a line is found, Schur vectors for the rest."""
    size = max(q.shape[-2:])
    few = size <= 64 and size * len(q) <= 96 and be.on_cpu(q) and not be.traced(q)
    if method == "schur" or (method == "auto" and few):
        return _schur(be, a, b, q)  # LAPACK scales by itself
    a, b, scale = normalise(be, a, b)
    q, scale_q = normalise(be, q)
    if method == "newton":
        found = _between(be, a, b, q, guarded=False)
    elif be.on_cpu(q) and not be.traced(q):
        found = be.split(
            _hopeless(be, a, b),
            lambda a, b, q: _schur(be, a, b, q),
            lambda a, b, q: _between(be, a, b, q, guarded=True),
            *(a, b, q),
        )
    else:
        found = _between(be, a, b, q, guarded=True)
    return found._replace(value=(be.ldexp(found.value[0], column(scale_q - scale)),))


def _schur(be: Backend, a: Array, b: Array, q: Array) -> Solution:
    code = be.no_counts(q)
    value, failure = be.host(schur.sylvester, (q, code), a, b, q)
    return solution(be, (value,))._replace(failure=failure)


def _hopeless(be: Backend, a: Array, b: Array) -> Array:
    """Which pairs look so mixed that a search for a line would be wasted: the means of the spectra beside their spread.

    The mean of k numbers on one side of a line is at least 1/√k of their standard deviation away from it, usually more. For
    small matrices Schur vectors cost no more than a failed try, so there the pair must look well apart.
    """
    n, m = a.shape[-1], b.shape[-1]
    apart = 1.0 if max(n, m) <= 64 else 2 / math.sqrt(max(n, m))
    gap = be.xp.abs(_trace(be, a) / n + _trace(be, b) / m)
    return gap < apart * (_spread(be, a) + _spread(be, b))


def _spread(be: Backend, a: Array) -> Array:
    """The standard deviation of the real parts of the eigenvalues, exact for normal matrices and above it for others."""
    n = a.shape[-1]
    second = (_inner(be, a, a) + norm(be, a) ** 2) / (2 * n)
    variance = second - (_trace(be, a) / n) ** 2
    return be.xp.sqrt(be.xp.where(variance > 0, variance, 0 * variance))


def _between(be: Backend, a: Array, b: Array, q: Array, guarded: bool) -> Solution:
    """Newton on the line that `_search` finds; guarded by its residual, with Schur vectors where that is too large."""
    # With Schur vectors behind it, a line that is hard to find or to converge from is not worth finding.
    x, steps, found = _search(be, a, b, q, *((2, 26) if guarded else (_TRIES, 0)))
    size = norm(be, a) + norm(be, b)
    error = norm(be, _gap(x, a, b, q)) / (size * norm(be, x) + norm(be, q))
    fine = found & (error < 8 * math.sqrt(max(q.shape[-2:])) * be.eps(q))
    # A solution this large means an operator that is singular to working precision.
    fine = fine & (norm(be, x) * size * be.eps(q) < nonzero(be, norm(be, q)))
    if not guarded:
        return solution(be, (x,), Failure.NO_LINE, ~found, steps)
    return be.split(
        ~fine,
        lambda a, b, q, *_: _schur(be, a, b, q),
        lambda a, b, q, x, k: solution(be, (x,), iterations=k),
        *(a, b, q, x, steps),
    )


def _gap(x: Array, a: Array, b: Array, q: Array) -> Array:
    return q - a @ x - x @ b


def _search(be: Backend, a: Array, b: Array, q: Array, tries: int, limit: int) -> tuple[Array, Array, Array]:
    """(x, steps, whether a line was found): try lines between the spectra of a and -b until one separates them.

    The means of the two spectra say which one lies left and between what the line must run. A try that fails still counts
    the strays on either side, as traces of the converged blocks, and finds their mean: strays on both sides prove that no
    line exists, strays of one spectrum move its bound to their mean.
    """
    xp, one = be.xp, be.ones(q)
    n, m = q.shape[-2:]
    mean_a, mean_b = _trace(be, a) / n, -_trace(be, b) / m
    side = xp.where(mean_a >= mean_b, one, -one)  # 1: a lies right of -b
    low, high = xp.minimum(mean_a, mean_b), xp.maximum(mean_a, mean_b)
    middle = (low + high) / 2
    line = xp.where((low < 0) & (high > 0), 0 * one, middle)

    def step(state: Any) -> Any:
        a, b, q, side, low, high, line, _, steps, done = state
        shift, sign = column(line) * eye(be, a), column(side)
        right_a, right_b = sign * (a - shift), sign * (b + column(line) * eye(be, b))
        found = newton(be, Triangular(-right_a, sign * q, right_b), limit)
        s = found.value
        count_a, count_b = (n + _trace(be, s.a)) / 2, (m - _trace(be, s.b)) / 2
        stray_a, stray_b = count_a > 0.5, count_b > 0.5
        sure = settled(be, found) & (_off_integer(be, count_a) < 0.1) & (_off_integer(be, count_b) < 0.1)
        # Means of the strays: of a where the first block stayed +1, of -b where the second stayed -1.
        place_a = (_trace(be, a) + _inner(be, s.a, a)) / (2 * nonzero(be, count_a))
        place_b = -(_trace(be, b) - _inner(be, s.b, b)) / (2 * nonzero(be, count_b))
        moves_low = sure & xp.where(side > 0, stray_b, stray_a)
        moves_high = sure & xp.where(side > 0, stray_a, stray_b)
        place_low, place_high = xp.where(side > 0, place_b, place_a), xp.where(side > 0, place_a, place_b)
        low = xp.where(moves_low, xp.maximum(line, place_low), low)
        high = xp.where(moves_high, xp.minimum(line, place_high), high)
        done = xp.astype(sure & ~stray_a & ~stray_b, line.dtype)
        hopeless = (moves_low & moves_high) | (low >= high)
        # An eigenvalue on the line itself: step aside.
        next_line = xp.where(sure, (low + high) / 2, line + 0.382 * (high - line))
        state = (a, b, q, side, low, high, next_line, s.c / 2, steps + found.steps, done)
        return state, (done == 0) & ~hopeless

    zero = 0 * one
    *_, x, steps, done = be.loop(step, (a, b, q, side, low, high, line, 0 * q, zero, zero), tries)
    return x, steps, (done > 0) & (low < high)


def _trace(be: Backend, x: Array) -> Array:
    return be.real(be.xp.linalg.trace(x))


def _inner(be: Backend, x: Array, y: Array) -> Array:
    """Re tr(x y)."""
    return inner(be, adjoint(x), y)


def _off_integer(be: Backend, x: Array) -> Array:
    return be.xp.abs(x - be.xp.round(x))


def _residual(be: Backend, value: tuple[Array], a: Array, b: Array, q: Array) -> Residual:
    """q - a x - x b beside its terms, and the same equation for that gap."""
    (x,) = value
    a, b, scale = normalise(be, a, b)
    q, scale_q = normalise(be, q)
    shift = column(scale - scale_q)
    x = be.ldexp(x, shift)
    gap = _gap(x, a, b, q)
    size = (norm(be, a) + norm(be, b)) * norm(be, x) + norm(be, q)
    step = sylvester(be, a, b, gap, method="auto").value[0]
    return Residual(norm(be, gap) / nonzero(be, size), (be.ldexp(step, -shift),))


@declared("(n,n),(m,m),(n,m)->(n,m)", solve=sylvester, residual=_residual, choices={"method": _METHODS})
def solve_sylvester(a: Array, b: Array, q: Array, *, method: str = "auto", errors: str = "raise") -> Array:
    """a x + x b = q, the Sylvester equation, with SciPy's name and argument order.

    Parameters
    ----------
    a, b, q : arrays (..., n, n), (..., m, m), (..., n, m), float32, float64, complex64 or complex128
    method : "newton" (the sign of [[-a, q], [0, b]], Roberts 1980, on the blocks; wants a vertical line between the
        spectra of a and -b, and finds it), "schur" (Bartels & Stewart 1972, with a blocked triangular solver, on the
        CPU), or "auto": Schur vectors for a few small members on a CPU, else Newton, with Schur vectors for the members
        that no line separates or whose residual is not at working precision
    errors : "raise", or "nan" to get NaN for the members without an answer

    Notes
    -----
    The article's X B - A X = C is ``solve_sylvester(-A, B, C)``. Raises `SpectrumError` where a and -b share an eigenvalue
    to working precision: then there is no solution, or infinitely many.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import solve_sylvester
    >>> a, b = np.array([[3.0, 1.0], [0.0, 2.0]]), np.array([[1.0]])
    >>> q = np.array([[4.0], [6.0]])
    >>> x = solve_sylvester(a, b, q)
    >>> bool(np.linalg.norm(a @ x + x @ b - q) < 1e-14)
    True
    """
    raise NotImplementedError
