"""The nonsymmetric algebraic Riccati equation x d x + x b - a x - c = 0.

X solves it when the columns of [X; I] span an invariant subspace of [[A, C], [D, B]], which acts there as B + DX:

    [[A, C], [D, B]] = V [[B + DX, -D], [0, A - XD]] V⁻¹,    V = [[X, -I], [I, 0]].

For the solution with B + DX positive stable and A - XD negative stable that subspace belongs to the right half plane, so with
W = mcsgn([[A, C], [D, B]]) it is where W is 1: (W - I)[X; I] = 0, an overdetermined linear system (Roberts 1980).

Differential:  (XD - A) dX + dX (B + DX) = dA X + dC - X dD X - X dB, positive stable on both sides. The same equation with
the residual on the right is Newton's method for X.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from matsign.backends import Backend
from matsign.engine import schur
from matsign.engine.blocks import Riccati, Triangular, assemble
from matsign.engine.declare import Residual, Solution, declared, solution
from matsign.engine.failures import Failure
from matsign.engine.iterate import newton, separable_sylvester, settled
from matsign.engine.linear import adjoint, column, eye, largest, nonzero, norm, trace

Array = Any

_METHODS = ("auto", "newton", "schur")
_CORRECTIONS = 4


class Problem(NamedTuple):
    """The coefficients, scaled: x = 2^k times the solution of this equation."""

    a: Array
    b: Array
    c: Array
    d: Array


def riccati(be: Backend, a: Array, b: Array, c: Array, d: Array, *, method: str) -> Solution:
    """x of a stack: the graph subspace of a sign or a Schur form, then Newton's method on the equation."""
    problem, k = _scale(be, Problem(a, b, c, d))
    n, m = c.shape[-2:]
    few = be.on_cpu(c) and not be.traced(c) and n + m <= 48 and (n + m) * len(c) <= 96
    if method == "schur" or (method == "auto" and few):
        found = _by_schur(be, *problem)
    else:
        found = by_sign(be, *problem)
        if method == "auto":
            suspect = (found.failure == Failure.NOT_CONVERGED) | (found.failure == Failure.NO_GRAPH)
            found = be.split(
                suspect,
                lambda a, b, c, d, *_: _by_schur(be, a, b, c, d),
                lambda a, b, c, d, *kept: Solution((kept[0],), *kept[1:]),
                *problem,
                *(found.value[0], found.failure, found.iterations, found.detail),
            )
    x, stable = _correct(be, problem, found.value[0])
    failure = be.xp.where((found.failure == 0) & ~stable, int(Failure.NOT_CONVERGED) + 0 * found.failure, found.failure)
    return found._replace(value=(be.ldexp(x, column(k)),), failure=failure)


def _scale(be: Backend, p: Problem) -> tuple[Problem, Array]:
    """Entries below 1, with c and d of one size: x = 2^k y turns c into c 2^-k and d into d 2^k."""
    xp = be.xp
    ea, eb, ec, ed = (be.exponent(largest(be, x)) for x in p)
    linear = xp.maximum(ea, eb)
    # A zero block has no size of its own: it takes the one that leaves the other block as large as a and b.
    ec, ed = (
        xp.where(largest(be, p.c) > 0, ec, 2 * linear - ed),
        xp.where(largest(be, p.d) > 0, ed, 2 * linear - ec),
    )
    k = (ec - ed) // 2
    e = xp.maximum(linear, xp.maximum(ec - k, ed + k))
    shifts = (-e, -e, -k - e, k - e)
    return Problem(*(be.ldexp(x, column(s)) for x, s in zip(p, shifts, strict=True))), k


def by_sign(be: Backend, a: Array, b: Array, c: Array, d: Array) -> Solution:
    """[X; I] from the sign W: [W₁₁ - I; W₂₁] X = -[W₁₂; W₂₂ - I], by QR."""
    xp = be.xp
    n, m = c.shape[-2:]
    found = newton(be, Riccati(a, c, d, b))
    w = found.value
    q, r = xp.linalg.qr(xp.concat([w.a - eye(be, a), w.d], axis=-2))
    x = be.inv(r) @ (adjoint(q) @ -xp.concat([w.c, w.b - eye(be, b)], axis=-2))
    right = (n + m + be.real(trace(be, w.a)) + be.real(trace(be, w.b))) / 2
    graph = norm(be, r) * norm(be, be.inv(r)) * be.eps(a) < 1
    slow = ~settled(be, found)

    def on_axis(a: Array, b: Array, c: Array, d: Array) -> Array:
        return be.host(schur.axis, be.ones(a) > 0, assemble(be, a, c, d, b))

    axis = be.split(slow, on_axis, lambda a, *_: be.ones(a) < 0, a, b, c, d)
    count = xp.where(xp.isfinite(right), xp.round(right), -be.ones(a))
    failure = _verdict(be, count, m, graph & xp.isfinite(norm(be, x)))
    failure = xp.where(~(found.defect < 0.05), int(Failure.NOT_CONVERGED) + 0 * failure, failure)
    failure = xp.where(axis, int(Failure.AXIS) + 0 * failure, failure)
    return solution(be, (x,), iterations=found.steps, detail=count)._replace(failure=failure)


def _by_schur(be: Backend, a: Array, b: Array, c: Array, d: Array) -> Solution:
    xp = be.xp
    code = be.no_counts(a)
    x, count, axis, graph = be.host(schur.graph, (c, code, code > 0, code > 0), a, b, c, d)
    failure = _verdict(be, count, b.shape[-1], graph)
    failure = xp.where(axis, int(Failure.AXIS) + 0 * failure, failure)
    return solution(be, (x,), detail=count)._replace(failure=failure)


def _verdict(be: Backend, count: Array, wanted: int, graph: Array) -> Array:
    none = be.xp.astype(0 * count, be.xp.int32)
    failure = be.xp.where(graph, none, none + int(Failure.NO_GRAPH))
    return be.xp.where(count != wanted, none + int(Failure.WRONG_HALVES), failure)


def _equation(a: Array, b: Array, c: Array, d: Array, x: Array) -> Array:
    return x @ (d @ x + b) - a @ x - c


def _terms(be: Backend, a: Array, b: Array, c: Array, d: Array, x: Array) -> Array:
    """The size of what the equation adds up."""
    return norm(be, x @ d @ x) + norm(be, x @ b) + norm(be, a @ x) + norm(be, c)


def _correct(be: Backend, problem: Problem, x: Array) -> tuple[Array, Array]:
    """Newton's method for the equation, each step kept only if the residual drops; and whether x is the stable solution."""
    xp = be.xp
    n, m = x.shape[-2:]

    def step(state: Any) -> Any:
        a, b, c, d, x, gap, _ = state
        found = newton(be, Triangular(a - x @ d, -_equation(a, b, c, d, x), b + d @ x)).value
        # The corner blocks are -I and I exactly when a - x d and b + d x are stable on their sides.
        away = xp.abs(be.real(trace(be, found.a)) + n) + xp.abs(be.real(trace(be, found.b)) - m)
        new = x + found.c / 2
        new_gap = norm(be, _equation(a, b, c, d, new))
        better = new_gap < gap
        kept = xp.where(better[:, None, None], new, x)
        active = (new_gap < 0.5 * gap) & (new_gap > 4 * be.eps(x) * _terms(be, a, b, c, d, kept))
        return (a, b, c, d, kept, xp.where(better, new_gap, gap), away), active

    start = norm(be, _equation(*problem, x))
    *_, x, _, away = be.loop(step, (*problem, x, start, start), _CORRECTIONS)
    return x, away < 0.5


def _residual(be: Backend, value: tuple[Array], a: Array, b: Array, c: Array, d: Array) -> Residual:
    """The equation beside its terms, and one Newton step."""
    (x,) = value
    (a, b, c, d), k = _scale(be, Problem(a, b, c, d))
    x = be.ldexp(x, column(-k))
    gap = _equation(a, b, c, d, x)
    terms = _terms(be, a, b, c, d, x)
    step = separable_sylvester(be, x @ d - a, b + d @ x, -gap)
    return Residual(norm(be, gap) / nonzero(be, terms), (be.ldexp(step, column(k)),))


@declared("(n,n),(m,m),(n,m),(m,n)->(n,m)", solve=riccati, residual=_residual, choices={"method": _METHODS})
def solve_riccati(a: Array, b: Array, c: Array, d: Array, *, method: str = "auto", errors: str = "raise") -> Array:
    """x d x + x b - a x - c = 0 with b + d x positive stable and a - x d negative stable.

    Parameters
    ----------
    a, b, c, d : arrays (..., n, n), (..., m, m), (..., n, m), (..., m, n), float32, float64, complex64 or complex128
    method : "newton" (the sign of [[a, c], [d, b]], Roberts 1980), "schur" (an ordered Schur form, Laub 1979, on the CPU),
        or "auto": Schur vectors for a few small members on a CPU and for members where the sign fails, else Newton
    errors : "raise", or "nan" to get NaN for the members without an answer

    Notes
    -----
    The solution exists, and is unique, when [[a, c], [d, b]] has m eigenvalues in the open right half plane and n in the
    left, and the invariant subspace of the right ones is a graph. Anything else is a `SpectrumError` that says which
    count was found. The result is corrected by Newton's method on the equation, each step kept only if the residual drops.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import solve_riccati
    >>> a, b = -np.eye(2), np.array([[2.0]])
    >>> c, d = np.array([[1.0], [2.0]]), np.array([[0.5, 0.1]])
    >>> x = solve_riccati(a, b, c, d)
    >>> bool(np.linalg.norm(x @ d @ x + x @ b - a @ x - c) < 1e-14)
    True
    """
    raise NotImplementedError
