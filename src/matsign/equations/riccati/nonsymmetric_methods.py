"""How the nonsymmetric Riccati equation is solved on stacks: the sign, doubling, Schur vectors, then Newton's method."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.members import Solution, figures, overflow_failure, solution
from matsign.direct import schur_functions
from matsign.iterations.block_structures import Riccati, Triangular
from matsign.iterations.newton import Iterate, has_converged, newton
from matsign.iterations.structured_doubling import nonsymmetric_doubling
from matsign.linalg.stacks import (
    adjoint,
    all_false,
    assemble,
    broadcast_scalar,
    eye,
    far_exponent,
    largest,
    norm,
    safe_divisor,
    scale_to_unit,
    trace,
)

METHODS = ("auto", "newton", "schur", "doubling")


_CORRECTIONS = 4


class Problem(NamedTuple):
    """The coefficients, scaled: x = 2^k times the solution of this equation."""

    a: Array
    b: Array
    c: Array
    d: Array


def riccati(be: Backend, a: Array, b: Array, c: Array, d: Array, *, half_plane: str, method: str) -> Solution:
    """x of a stack: the graph subspace of a sign or a Schur form, then Newton's method on the equation."""
    if half_plane == "left":
        a, b, c, d = -a, -b, -c, -d
    problem, k, _ = scale_equation(be, Problem(a, b, c, d))
    if method == "auto" and be.is_traced(c):
        # What an M-matrix would gain by doubling is not worth a second method in a program.
        found = _general(be, problem)
    elif method == "auto":
        found = be.masked_cond(
            _has_signs_of_m_matrix(be, problem),
            lambda *p: _by_doubling_or_general(be, Problem(*p)),
            lambda *p: _general(be, Problem(*p)),
            *problem,
        )
    elif method == "doubling":
        found = _by_doubling(be, problem)
    else:
        found = _correct_graph(be, problem, by_sign(be, *problem) if method == "newton" else _by_schur(be, *problem))
    x, found = be.ldexp(found.value[0], broadcast_scalar(k)), explain_failures(be, problem, found)
    return found._replace(value=(x,), failure=overflow_failure(be, x, found.failure))


def explain_failures(be: Backend, p: Problem, found: Solution) -> Solution:
    """With the distance from the axis that goes with no convergence."""
    if be.is_traced(found.failure):
        return found

    def why(p: Problem, failure: Array, detail: Array) -> tuple[Array, Array]:
        values = be.eig(assemble(be, p.a, p.c, p.d, p.b))[0]
        size = safe_divisor(be, be.xp.max(be.xp.abs(values), axis=-1))
        nearest = be.xp.min(be.xp.abs(values.real), axis=-1) / size
        return 0 * failure + int(Failure.HARDLY_SPLIT), figures(be, p.a, nearest)

    failure, detail = be.masked_cond(
        found.failure == int(Failure.NOT_CONVERGED), why, lambda p, *kept: kept, p, found.failure, found.detail
    )
    return found._replace(failure=failure, detail=detail)


def empty_solution(be: Backend, a: Array, b: Array, c: Array, d: Array, *, half_plane: str, method: str) -> Solution:
    """An x without entries solves its equation; what is left to ask is that a and b are stable on their sides."""
    m = b if a.shape[-1] == 0 else a
    if m.shape[-1] == 0:
        return solution(be, (c,))
    m = scale_to_unit(be, m if half_plane == "right" else -m)[0]
    count = be.xp.sum(be.xp.astype(be.eig(m)[0].real > 0, m.real.dtype), axis=-1)
    axis = be.host_callback(schur_functions.axis, be.ones(m) > 0, m)
    failure = Failure.AXIS.where(be, axis, _verdict(be, count, b.shape[-1], ~axis))
    return solution(be, (c,), detail=count)._replace(failure=failure)


def _general(be: Backend, problem: Problem) -> Solution:
    found = by_sign(be, *problem)
    suspect = (found.failure == Failure.NOT_CONVERGED) | (found.failure == Failure.NO_GRAPH)
    found = be.rare_cond(
        suspect,
        lambda a, b, c, d, *_: _by_schur(be, a, b, c, d),
        lambda a, b, c, d, *kept: Solution((kept[0],), *kept[1:]),
        *problem,
        *(found.value[0], found.failure, found.iterations, found.detail),
    )
    return _correct_graph(be, problem, found)


def _correct_graph(be: Backend, problem: Problem, found: Solution) -> Solution:
    x, stable = newton_corrections(be, problem, found.value[0])
    # What is left of a solution that is zero is rounding, beside coefficients near 1.
    rounding = be.eps(x) * sum(norm(be, m) for m in problem)
    left = norm(be, gap_of_equation(*problem, x))
    solved = stable & (left < be.eps(x) ** 0.5 * size_of_terms(be, *problem, x) + rounding)
    failure = Failure.NOT_CONVERGED.where(be, (found.failure == 0) & ~solved, found.failure)
    return found._replace(value=(x,), failure=failure)


def _has_signs_of_m_matrix(be: Backend, p: Problem) -> Array:
    """Whether [[b, d], [-c, -a]] has no positive entry off its diagonal: the equation times -1 is the nonnegative one."""
    off_a, off_b = ((1 - eye(be, x.real)) * x.real for x in (p.a, p.b))
    if be.is_complex(p.a):
        return all_false(be, p.a)
    return (off_a >= 0).all((-1, -2)) & (off_b <= 0).all((-1, -2)) & (p.c >= 0).all((-1, -2)) & (p.d <= 0).all((-1, -2))


def _by_doubling(be: Backend, p: Problem) -> Solution:
    """By doubling; what is not stable must at least not be unstable, as where an M-matrix is singular."""
    x, steps = nonsymmetric_doubling(be, -p.a, p.b, p.c, -p.d)
    x, stable = newton_corrections(be, p, x)
    size = norm(be, gap_of_equation(*p, x)) / safe_divisor(be, size_of_terms(be, *p, x))
    solved = size < 64 * be.eps(x)

    def nearly(p: Problem, x: Array) -> Array:
        return _right_of(be, p.b + p.d @ x) & _right_of(be, x @ p.d - p.a)

    solved = solved & be.rare_cond(solved & ~stable, nearly, lambda p, x: be.ones(x) > 0, p, x)
    return solution(be, (x,), Failure.NOT_CONVERGED, ~solved, steps)


def _right_of(be: Backend, m: Array) -> Array:
    """Whether no eigenvalue lies left of the axis by more than a double one on it moves when it is computed."""
    kept = be.xp.where(broadcast_scalar(be.xp.isfinite(norm(be, m))), m, -eye(be, m))
    return be.xp.min(be.eig(kept)[0].real, axis=-1) > -100 * math.sqrt(be.eps(m)) * norm(be, m)


def _by_doubling_or_general(be: Backend, p: Problem) -> Solution:
    found = _by_doubling(be, p)
    return be.rare_cond(
        found.failure > 0,
        lambda a, b, c, d, *_: _general(be, Problem(a, b, c, d)),
        lambda a, b, c, d, *kept: Solution((kept[0],), *kept[1:]),
        *p,
        *(found.value[0], found.failure, found.iterations, found.detail),
    )


def scale_equation(be: Backend, p: Problem) -> tuple[Problem, Array, Array]:
    """(entries below 1 with c and d of one size, k, e): x = 2^k y turns c into c 2^-k and d into d 2^k, all divided by 2^e."""
    xp = be.xp
    ea, eb, ec, ed = (be.exponent(largest(be, x)) for x in p)
    linear = xp.maximum(ea, eb)
    # A zero block has no size of its own: it takes the one that leaves the other block as large as a and b.
    ec, ed = (
        xp.where(largest(be, p.c) > 0, ec, 2 * linear - ed),
        xp.where(largest(be, p.d) > 0, ed, 2 * linear - ec),
    )
    k = (ec - ed) >> 1
    tiny = ec + ed - 2 * linear < -far_exponent(be, p.c)
    # The product of c and d does not count then. What remains is x ≈ c / (b - a), or the other solution, x ≈ (a - b) / d.
    small = be.rare_cond(tiny, functools.partial(_is_stable, be), lambda p: all_false(be, p.a), p)
    k = xp.where(tiny, xp.where(small, ec - linear, linear - ed), k)
    e = xp.maximum(linear, xp.maximum(ec - k, ed + k))
    shifts = (-e, -e, -k - e, k - e)
    return Problem(*(be.ldexp(x, broadcast_scalar(s)) for x, s in zip(p, shifts, strict=True))), k, e


def _is_stable(be: Backend, p: Problem) -> Array:
    """Whether x = 0 leaves b positive stable and a negative stable."""
    a, b = (be.eig(scale_to_unit(be, x)[0])[0].real for x in (p.a, p.b))
    return (be.xp.max(a, axis=-1) < 0) & (be.xp.min(b, axis=-1) > 0)


def graph_by_sign(be: Backend, a: Array, b: Array, c: Array, d: Array) -> tuple[Array, Array, Iterate]:
    """(x, r, sign) from the sign W: [W₁₁ - I; W₂₁] x = -[W₁₂; W₂₂ - I], by QR; a poorly conditioned r means no graph."""
    xp = be.xp
    found = newton(be, Riccati(a, c, d, b))
    w = found.value
    q, r = xp.linalg.qr(xp.concat([w.a - eye(be, a), w.d], axis=-2))
    return be.inv(r) @ (adjoint(q) @ -xp.concat([w.c, w.b - eye(be, b)], axis=-2)), r, found


def by_sign(be: Backend, a: Array, b: Array, c: Array, d: Array) -> Solution:
    """x by the sign, and what stands in its way."""
    xp = be.xp
    n, m = c.shape[-2:]
    x, r, found = graph_by_sign(be, a, b, c, d)
    w = found.value
    right = (n + m + trace(be, w.a).real + trace(be, w.b).real) / 2
    graph = norm(be, r) * norm(be, be.inv(r)) * be.eps(a) < 1

    def on_axis(a: Array, b: Array, c: Array, d: Array) -> Array:
        return be.host_callback(schur_functions.axis, be.ones(a) > 0, assemble(be, a, c, d, b))

    axis = be.rare_cond(~has_converged(be, found), on_axis, lambda a, *_: all_false(be, a), a, b, c, d)
    count = xp.where(xp.isfinite(right), xp.round(right), -be.ones(a))
    failure = _verdict(be, count, m, graph & xp.isfinite(norm(be, x)))
    failure = Failure.NOT_CONVERGED.where(be, ~(found.defect < 0.05), failure)
    failure = Failure.AXIS.where(be, axis, failure)
    return solution(be, (x,), iterations=found.steps, detail=count)._replace(failure=failure)


def _by_schur(be: Backend, a: Array, b: Array, c: Array, d: Array) -> Solution:
    code = be.int_zeros(a)
    x, count, axis, graph = be.host_callback(schur_functions.graph, (c, code, code > 0, code > 0), a, b, c, d)
    failure = _verdict(be, count, b.shape[-1], graph)
    failure = Failure.AXIS.where(be, axis, failure)
    return solution(be, (x,), detail=count)._replace(failure=failure)


def _verdict(be: Backend, count: Array, wanted: int, graph: Array) -> Array:
    none = be.xp.astype(0 * count, be.xp.int32)
    failure = be.xp.where(graph, none, none + int(Failure.NO_GRAPH))
    return Failure.WRONG_HALVES.where(be, count != wanted, failure)


def gap_of_equation(a: Array, b: Array, c: Array, d: Array, x: Array) -> Array:
    return x @ (d @ x + b) - a @ x - c


def size_of_terms(be: Backend, a: Array, b: Array, c: Array, d: Array, x: Array) -> Array:
    """The size of what the equation adds up."""
    return norm(be, x @ d @ x) + norm(be, x @ b) + norm(be, a @ x) + norm(be, c)


def newton_corrections(be: Backend, problem: Problem, x: Array) -> tuple[Array, Array]:
    """Newton's method for the equation, each step kept only if the residual drops; and whether x is the stable solution."""
    xp = be.xp
    n, m = x.shape[-2:]

    def step(state: Any) -> Any:
        a, b, c, d, x, gap, _ = state
        found = newton(be, Triangular(a - x @ d, -gap_of_equation(a, b, c, d, x), b + d @ x)).value
        # The corner blocks are -I and I exactly when a - x d and b + d x are stable on their sides.
        away = xp.abs(trace(be, found.a).real + n) + xp.abs(trace(be, found.b).real - m)
        new = x + found.c / 2
        new_gap = norm(be, gap_of_equation(a, b, c, d, new))
        better = new_gap < gap
        kept = xp.where(better[:, None, None], new, x)
        active = (new_gap < 0.5 * gap) & (new_gap > 4 * be.eps(x) * size_of_terms(be, a, b, c, d, kept))
        return (a, b, c, d, kept, xp.where(better, new_gap, gap), away), active

    start = norm(be, gap_of_equation(*problem, x))
    *_, x, _, away = be.loop(step, (*problem, x, start, start), _CORRECTIONS)
    return x, away < 0.5
