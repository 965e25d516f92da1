"""Solvers for stacks of nonsymmetric Riccati equations x d x + x b - a x - c = 0.

By the matrix sign, by doubling (M-matrices) or by Schur vectors; Newton's method on the equation corrects each result.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.members import Solution, as_details, overflow_failure, solution
from matsign.core.tolerances import NEAR_SIGN
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
    safe_divisor,
    scale_to_unit,
    trace,
)

METHODS = ("auto", "newton", "schur", "doubling")


_CORRECTIONS = 4


class Problem(NamedTuple):
    """The coefficients of x d x + x b - a x - c = 0."""

    a: Array
    b: Array
    c: Array
    d: Array


def riccati(backend: Backend, a: Array, b: Array, c: Array, d: Array, *, half_plane: str, method: str) -> Solution:
    """x of a stack: the graph subspace of a sign or a Schur form, then Newton's method on the equation."""
    if half_plane == "left":
        a, b, c, d = -a, -b, -c, -d
    problem, k, _ = scale_equation(backend, Problem(a, b, c, d))
    if method == "auto" and backend.is_traced(c):
        # Doubling is better for M-matrices, but a compiled program would have to contain both methods.
        result = _general(backend, problem)
    elif method == "auto":
        result = backend.masked_cond(
            _has_signs_of_m_matrix(backend, problem),
            lambda *p: _by_doubling_or_general(backend, Problem(*p)),
            lambda *p: _general(backend, Problem(*p)),
            *problem,
        )
    elif method == "doubling":
        result = _by_doubling(backend, problem)
    else:
        result = _correct_graph(
            backend, problem, by_sign(backend, *problem) if method == "newton" else _by_schur(backend, *problem)
        )
    x, result = backend.ldexp(result.value[0], broadcast_scalar(k)), explain_failures(backend, problem, result)
    return result._replace(value=(x,), failure=overflow_failure(backend, x, result.failure))


def explain_failures(backend: Backend, p: Problem, result: Solution) -> Solution:
    """Replace NOT_CONVERGED by HARDLY_SPLIT, with the relative distance of the eigenvalues from the axis."""
    if backend.is_traced(result.failure):
        return result

    def near_axis_failure(p: Problem, failure: Array, detail: Array) -> tuple[Array, Array]:
        values = backend.eig(assemble(backend, p.a, p.c, p.d, p.b))[0]
        size = safe_divisor(backend, backend.xp.max(backend.xp.abs(values), axis=-1))
        nearest = backend.xp.min(backend.xp.abs(values.real), axis=-1) / size
        return 0 * failure + int(Failure.HARDLY_SPLIT), as_details(backend, p.a, nearest)

    failure, detail = backend.masked_cond(
        result.failure == int(Failure.NOT_CONVERGED),
        near_axis_failure,
        lambda p, *unchanged: unchanged,
        p,
        result.failure,
        result.detail,
    )
    return result._replace(failure=failure, detail=detail)


def empty_solution(
    backend: Backend, a: Array, b: Array, c: Array, d: Array, *, half_plane: str, method: str
) -> Solution:
    """For n = 0 or m = 0, x is empty; the spectrum of the other coefficient must still lie in its half plane."""
    m = b if a.shape[-1] == 0 else a
    if m.shape[-1] == 0:
        return solution(backend, (c,))
    m = scale_to_unit(backend, m if half_plane == "right" else -m)[0]
    count = backend.xp.sum(backend.xp.astype(backend.eig(m)[0].real > 0, m.real.dtype), axis=-1)
    axis = backend.host_callback(schur_functions.axis, backend.ones(m) > 0, m)
    failure = Failure.AXIS.where(backend, axis, _count_or_graph_failure(backend, count, b.shape[-1], ~axis))
    return solution(backend, (c,), detail=count)._replace(failure=failure)


def _general(backend: Backend, problem: Problem) -> Solution:
    result = by_sign(backend, *problem)
    uncertain = (result.failure == Failure.NOT_CONVERGED) | (result.failure == Failure.NO_GRAPH)
    result = backend.rare_cond(
        uncertain,
        lambda a, b, c, d, *_: _by_schur(backend, a, b, c, d),
        lambda a, b, c, d, *unchanged: Solution((unchanged[0],), *unchanged[1:]),
        *problem,
        *(result.value[0], result.failure, result.iterations, result.detail),
    )
    return _correct_graph(backend, problem, result)


def _correct_graph(backend: Backend, problem: Problem, result: Solution) -> Solution:
    x, stable = newton_corrections(backend, problem, result.value[0])
    # If x = 0, all terms with x vanish: then the residual is measured against the coefficients, which are near 1.
    rounding = backend.eps(x) * sum(backend.norm(m) for m in problem)
    left = backend.norm(gap_of_equation(*problem, x))
    solved = stable & (left < backend.eps(x) ** 0.5 * size_of_terms(backend, *problem, x) + rounding)
    failure = Failure.NOT_CONVERGED.where(backend, (result.failure == 0) & ~solved, result.failure)
    return result._replace(value=(x,), failure=failure)


def _has_signs_of_m_matrix(backend: Backend, p: Problem) -> Array:
    """Whether [[b, d], [-c, -a]] is real without positive off-diagonal entries, as an M-matrix (then x ≥ 0 is minimal)."""
    off_a, off_b = ((1 - eye(backend, x.real)) * x.real for x in (p.a, p.b))
    if backend.is_complex(p.a):
        return all_false(backend, p.a)
    return (off_a >= 0).all((-1, -2)) & (off_b <= 0).all((-1, -2)) & (p.c >= 0).all((-1, -2)) & (p.d <= 0).all((-1, -2))


def _by_doubling(backend: Backend, p: Problem) -> Solution:
    """x by doubling; eigenvalues on the imaginary axis are accepted, as for a singular M-matrix."""
    x, steps = nonsymmetric_doubling(backend, -p.a, p.b, p.c, -p.d)
    x, stable = newton_corrections(backend, p, x)
    size = backend.norm(gap_of_equation(*p, x)) / safe_divisor(backend, size_of_terms(backend, *p, x))
    solved = size < 64 * backend.eps(x)

    def nearly_stable(p: Problem, x: Array) -> Array:
        return _spectrum_in_right_half_plane(backend, p.b + p.d @ x) & _spectrum_in_right_half_plane(
            backend, x @ p.d - p.a
        )

    solved = solved & backend.rare_cond(solved & ~stable, nearly_stable, lambda p, x: backend.ones(x) > 0, p, x)
    return solution(backend, (x,), Failure.NOT_CONVERGED, ~solved, steps)


def _spectrum_in_right_half_plane(backend: Backend, m: Array) -> Array:
    """Whether all eigenvalues have Re λ > -100 √eps ‖m‖, the rounding error of a double eigenvalue."""
    finite = backend.xp.where(broadcast_scalar(backend.xp.isfinite(backend.norm(m))), m, -eye(backend, m))
    return backend.xp.min(backend.eig(finite)[0].real, axis=-1) > -100 * math.sqrt(backend.eps(m)) * backend.norm(m)


def _by_doubling_or_general(backend: Backend, p: Problem) -> Solution:
    result = _by_doubling(backend, p)
    return backend.rare_cond(
        result.failure > 0,
        lambda a, b, c, d, *_: _general(backend, Problem(a, b, c, d)),
        lambda a, b, c, d, *unchanged: Solution((unchanged[0],), *unchanged[1:]),
        *p,
        *(result.value[0], result.failure, result.iterations, result.detail),
    )


def scale_equation(backend: Backend, p: Problem) -> tuple[Problem, Array, Array]:
    """(scaled problem, k, e): x = 2^k y; c 2^-k and d 2^k have equal size, and all coefficients are divided by 2^e."""
    xp = backend.xp
    ea, eb, ec, ed = (backend.exponent(largest(backend, x)) for x in p)
    linear = xp.maximum(ea, eb)
    # If c or d is 0, its exponent is chosen so that the other one is scaled to the size of a and b.
    ec, ed = (
        xp.where(largest(backend, p.c) > 0, ec, 2 * linear - ed),
        xp.where(largest(backend, p.d) > 0, ed, 2 * linear - ec),
    )
    k = (ec - ed) >> 1
    product_negligible = ec + ed - 2 * linear < -far_exponent(backend, p.c)
    # Then c d is negligible: the solution is near that of x b - a x = c, or, if x = 0 is not stable, x d + b - a ≈ 0.
    linear_solution_stable = backend.rare_cond(
        product_negligible, functools.partial(_is_stable, backend), lambda p: all_false(backend, p.a), p
    )
    k = xp.where(product_negligible, xp.where(linear_solution_stable, ec - linear, linear - ed), k)
    e = xp.maximum(linear, xp.maximum(ec - k, ed + k))
    shifts = (-e, -e, -k - e, k - e)
    return Problem(*(backend.ldexp(x, broadcast_scalar(s)) for x, s in zip(p, shifts, strict=True))), k, e


def _is_stable(backend: Backend, p: Problem) -> Array:
    """Whether x = 0 leaves b positive stable and a negative stable."""
    a, b = (backend.eig(scale_to_unit(backend, x)[0])[0].real for x in (p.a, p.b))
    return (backend.xp.max(a, axis=-1) < 0) & (backend.xp.min(b, axis=-1) > 0)


def graph_by_sign(backend: Backend, a: Array, b: Array, c: Array, d: Array) -> tuple[Array, Array, Iterate]:
    """(x, r, sign) with [x; I] in the invariant subspace of the right half plane. If r is singular there is no x."""
    sign = newton(backend, Riccati(a, c, d, b))
    return *graph_of_sign(backend, sign.value, 1.0), sign


def graph_of_sign(backend: Backend, w: Riccati, side: float) -> tuple[Array, Array]:
    """(x, r) with (W - side I) [x; I] = 0: [W₁₁ - side I; W₂₁] x = -[W₁₂; W₂₂ - side I], by QR with the factor r."""
    xp = backend.xp
    q, r = xp.linalg.qr(xp.concat([w.a - side * eye(backend, w.a), w.d], axis=-2))
    return backend.inv(r) @ (adjoint(q) @ -xp.concat([w.c, w.b - side * eye(backend, w.b)], axis=-2)), r


def by_sign(backend: Backend, a: Array, b: Array, c: Array, d: Array) -> Solution:
    """x by the sign, with failures: eigenvalues on the axis, a wrong number in a half plane, no graph subspace."""
    xp = backend.xp
    n, m = c.shape[-2:]
    x, r, sign = graph_by_sign(backend, a, b, c, d)
    w = sign.value
    right = (n + m + trace(backend, w.a).real + trace(backend, w.b).real) / 2
    graph = backend.norm(r) * backend.norm(backend.inv(r)) * backend.eps(a) < 1

    def on_axis(a: Array, b: Array, c: Array, d: Array) -> Array:
        return backend.host_callback(schur_functions.axis, backend.ones(a) > 0, assemble(backend, a, c, d, b))

    axis = backend.rare_cond(~has_converged(backend, sign), on_axis, lambda a, *_: all_false(backend, a), a, b, c, d)
    count = xp.where(xp.isfinite(right), xp.round(right), -backend.ones(a))
    failure = _count_or_graph_failure(backend, count, m, graph & xp.isfinite(backend.norm(x)))
    failure = Failure.NOT_CONVERGED.where(backend, ~(sign.defect < NEAR_SIGN), failure)
    failure = Failure.AXIS.where(backend, axis, failure)
    return solution(backend, (x,), iterations=sign.steps, detail=count)._replace(failure=failure)


def _by_schur(backend: Backend, a: Array, b: Array, c: Array, d: Array) -> Solution:
    code = backend.int_zeros(a)
    x, count, axis, graph = backend.host_callback(schur_functions.graph, (c, code, code > 0, code > 0), a, b, c, d)
    failure = _count_or_graph_failure(backend, count, b.shape[-1], graph)
    failure = Failure.AXIS.where(backend, axis, failure)
    return solution(backend, (x,), detail=count)._replace(failure=failure)


def _count_or_graph_failure(backend: Backend, count: Array, wanted: int, graph: Array) -> Array:
    none = backend.xp.astype(0 * count, backend.xp.int32)
    failure = backend.xp.where(graph, none, none + int(Failure.NO_GRAPH))
    return Failure.WRONG_HALVES.where(backend, count != wanted, failure)


def gap_of_equation(a: Array, b: Array, c: Array, d: Array, x: Array) -> Array:
    return x @ (d @ x + b) - a @ x - c


def size_of_terms(backend: Backend, a: Array, b: Array, c: Array, d: Array, x: Array) -> Array:
    """The sum of the norms of the terms."""
    return backend.norm(x @ d @ x) + backend.norm(x @ b) + backend.norm(a @ x) + backend.norm(c)


def newton_corrections(backend: Backend, problem: Problem, x: Array) -> tuple[Array, Array]:
    """(x after Newton steps, each kept only if the residual decreases; whether x is the stable solution)."""
    xp = backend.xp
    n, m = x.shape[-2:]

    def step(state: Any) -> Any:
        a, b, c, d, x, gap, _ = state
        sign_blocks = newton(backend, Triangular(a - x @ d, -gap_of_equation(a, b, c, d, x), b + d @ x)).value
        # The corner blocks are -I and I exactly when a - x d and b + d x are stable on their sides.
        misplaced_eigenvalues = xp.abs(trace(backend, sign_blocks.a).real + n) + xp.abs(
            trace(backend, sign_blocks.b).real - m
        )
        new = x + sign_blocks.c / 2
        new_gap = backend.norm(gap_of_equation(a, b, c, d, new))
        better = new_gap < gap
        kept = xp.where(better[:, None, None], new, x)
        active = (new_gap < 0.5 * gap) & (new_gap > 4 * backend.eps(x) * size_of_terms(backend, a, b, c, d, kept))
        return (a, b, c, d, kept, xp.where(better, new_gap, gap), misplaced_eigenvalues), active

    start = backend.norm(gap_of_equation(*problem, x))
    *_, x, _, misplaced_eigenvalues = backend.loop(step, (*problem, x, start, start), _CORRECTIONS)
    return x, misplaced_eigenvalues < 0.5
