"""The nonsymmetric algebraic Riccati equation x d x + x b - a x - c = 0.

X solves it when the columns of [X; I] span an invariant subspace of [[A, C], [D, B]], which acts there as B + DX:

    [[A, C], [D, B]] = V [[B + DX, -D], [0, A - XD]] V⁻¹,    V = [[X, -I], [I, 0]].

For the solution with B + DX positive stable and A - XD negative stable that subspace belongs to the right half plane, so with
W = mcsgn([[A, C], [D, B]]) it is where W is 1: (W - I)[X; I] = 0, an overdetermined linear system (Roberts 1980).

The solution of the other half plane, B + DX negative stable, is that of the equation times -1. Where [[-B, -D], [C, A]] is an
M-matrix that one is the minimal nonnegative solution of transport theory and queueing (Guo 2001), and doubling (Guo, Lin & Xu
2006) finds it without a cancellation, also when the matrix is singular and an eigenvalue lies on the axis.

Differential:  (XD - A) dX + dX (B + DX) = dA X + dC - X dD X - X dB, positive stable on both sides. The same equation with
the residual on the right is Newton's method for X.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.operations import Arrays, Solution, figures, overflow_failure, solution
from matsign.core.public import Residual, public_function
from matsign.direct import schur_functions
from matsign.iterations.block_structures import Riccati, Triangular
from matsign.iterations.differentiable_solves import sylvester_positive
from matsign.iterations.newton import Iterate, has_converged, newton, separable_sylvester
from matsign.iterations.structured_doubling import nonsymmetric_doubling
from matsign.linalg.double_word import dw_add, dw_neg, dw_product, from_double
from matsign.linalg.separation import separation
from matsign.linalg.stacks import (
    adjoint,
    assemble,
    broadcast_scalar,
    eye,
    far_exponent,
    largest,
    norm,
    random_probe,
    safe_divisor,
    scale_to_unit,
    trace,
)

Array = Any

_METHODS = ("auto", "newton", "schur", "doubling")
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
    problem, k, _ = _scale(be, Problem(a, b, c, d))
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
    x, found = be.ldexp(found.value[0], broadcast_scalar(k)), _explain(be, problem, found)
    return found._replace(value=(x,), failure=overflow_failure(be, x, found.failure))


def _explain(be: Backend, p: Problem, found: Solution) -> Solution:
    """With the distance from the axis that goes with no convergence."""
    if be.is_traced(found.failure):
        return found

    def why(p: Problem, failure: Array, detail: Array) -> tuple[Array, Array]:
        values = be.eig(assemble(be, p.a, p.c, p.d, p.b))[0]
        size = safe_divisor(be, be.xp.max(be.xp.abs(values), axis=-1))
        nearest = be.xp.min(be.xp.abs(be.real(values)), axis=-1) / size
        return 0 * failure + int(Failure.HARDLY_SPLIT), figures(be, p.a, nearest)

    failure, detail = be.masked_cond(
        found.failure == int(Failure.NOT_CONVERGED), why, lambda p, *kept: kept, p, found.failure, found.detail
    )
    return found._replace(failure=failure, detail=detail)


def _nothing(be: Backend, a: Array, b: Array, c: Array, d: Array, *, half_plane: str, method: str) -> Solution:
    """An x without entries solves its equation; what is left to ask is that a and b are stable on their sides."""
    m = b if a.shape[-1] == 0 else a
    if m.shape[-1] == 0:
        return solution(be, (c,))
    m = scale_to_unit(be, m if half_plane == "right" else -m)[0]
    count = be.xp.sum(be.xp.astype(be.real(be.eig(m)[0]) > 0, be.real(m).dtype), axis=-1)
    axis = be.host_callback(schur_functions.axis, be.ones(m) > 0, m)
    failure = be.xp.where(axis, int(Failure.AXIS) + be.int_zeros(m), _verdict(be, count, b.shape[-1], ~axis))
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
    x, stable = _correct(be, problem, found.value[0])
    # What is left of a solution that is zero is rounding, beside coefficients near 1.
    rounding = be.eps(x) * sum(norm(be, m) for m in problem)
    left = norm(be, _equation(*problem, x))
    solved = stable & (left < be.eps(x) ** 0.5 * _terms(be, *problem, x) + rounding)
    failure = be.xp.where((found.failure == 0) & ~solved, int(Failure.NOT_CONVERGED) + 0 * found.failure, found.failure)
    return found._replace(value=(x,), failure=failure)


def _has_signs_of_m_matrix(be: Backend, p: Problem) -> Array:
    """Whether [[b, d], [-c, -a]] has no positive entry off its diagonal: the equation times -1 is the nonnegative one."""
    off_a, off_b = ((1 - eye(be, be.real(x))) * be.real(x) for x in (p.a, p.b))
    if be.is_complex(p.a):
        return be.ones(p.a) < 0
    return (off_a >= 0).all((-1, -2)) & (off_b <= 0).all((-1, -2)) & (p.c >= 0).all((-1, -2)) & (p.d <= 0).all((-1, -2))


def _by_doubling(be: Backend, p: Problem) -> Solution:
    """By doubling; what is not stable must at least not be unstable, as where an M-matrix is singular."""
    x, steps = nonsymmetric_doubling(be, -p.a, p.b, p.c, -p.d)
    x, stable = _correct(be, p, x)
    size = norm(be, _equation(*p, x)) / safe_divisor(be, _terms(be, *p, x))
    solved = size < 64 * be.eps(x)

    def nearly(p: Problem, x: Array) -> Array:
        return _right_of(be, p.b + p.d @ x) & _right_of(be, x @ p.d - p.a)

    solved = solved & be.rare_cond(solved & ~stable, nearly, lambda p, x: be.ones(x) > 0, p, x)
    return solution(be, (x,), Failure.NOT_CONVERGED, ~solved, steps)


def _right_of(be: Backend, m: Array) -> Array:
    """Whether no eigenvalue lies left of the axis by more than a double one on it moves when it is computed."""
    kept = be.xp.where(broadcast_scalar(be.xp.isfinite(norm(be, m))), m, -eye(be, m))
    return be.xp.min(be.real(be.eig(kept)[0]), axis=-1) > -100 * math.sqrt(be.eps(m)) * norm(be, m)


def _by_doubling_or_general(be: Backend, p: Problem) -> Solution:
    found = _by_doubling(be, p)
    return be.rare_cond(
        found.failure > 0,
        lambda a, b, c, d, *_: _general(be, Problem(a, b, c, d)),
        lambda a, b, c, d, *kept: Solution((kept[0],), *kept[1:]),
        *p,
        *(found.value[0], found.failure, found.iterations, found.detail),
    )


def _scale(be: Backend, p: Problem) -> tuple[Problem, Array, Array]:
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
    small = be.rare_cond(tiny, functools.partial(_is_stable, be), lambda p: be.ones(p.a) < 0, p)
    k = xp.where(tiny, xp.where(small, ec - linear, linear - ed), k)
    e = xp.maximum(linear, xp.maximum(ec - k, ed + k))
    shifts = (-e, -e, -k - e, k - e)
    return Problem(*(be.ldexp(x, broadcast_scalar(s)) for x, s in zip(p, shifts, strict=True))), k, e


def _is_stable(be: Backend, p: Problem) -> Array:
    """Whether x = 0 leaves b positive stable and a negative stable."""
    a, b = (be.real(be.eig(scale_to_unit(be, x)[0])[0]) for x in (p.a, p.b))
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
    right = (n + m + be.real(trace(be, w.a)) + be.real(trace(be, w.b))) / 2
    graph = norm(be, r) * norm(be, be.inv(r)) * be.eps(a) < 1

    def on_axis(a: Array, b: Array, c: Array, d: Array) -> Array:
        return be.host_callback(schur_functions.axis, be.ones(a) > 0, assemble(be, a, c, d, b))

    axis = be.rare_cond(~has_converged(be, found), on_axis, lambda a, *_: be.ones(a) < 0, a, b, c, d)
    count = xp.where(xp.isfinite(right), xp.round(right), -be.ones(a))
    failure = _verdict(be, count, m, graph & xp.isfinite(norm(be, x)))
    failure = xp.where(~(found.defect < 0.05), int(Failure.NOT_CONVERGED) + 0 * failure, failure)
    failure = xp.where(axis, int(Failure.AXIS) + 0 * failure, failure)
    return solution(be, (x,), iterations=found.steps, detail=count)._replace(failure=failure)


def _by_schur(be: Backend, a: Array, b: Array, c: Array, d: Array) -> Solution:
    xp = be.xp
    code = be.int_zeros(a)
    x, count, axis, graph = be.host_callback(schur_functions.graph, (c, code, code > 0, code > 0), a, b, c, d)
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
    """The equation beside its terms, and one Newton step for what is left of it and for what rounding may hide.

    The closed loop tells which half plane x belongs to; where it does not, its eigenvalues lie on both sides or between.
    """
    xp = be.xp
    (x,) = value
    (a, b, c, d), k, e = _scale(be, Problem(a, b, c, d))
    x = be.ldexp(x, broadcast_scalar(-k))
    gap = _equation(a, b, c, d, x)
    terms = _terms(be, a, b, c, d, x)
    left, right = x @ d - a, b + d @ x
    side = xp.where(be.real(trace(be, right)) + be.real(trace(be, left)) >= 0, be.ones(x), -be.ones(x))
    left, right = broadcast_scalar(side) * left, broadcast_scalar(side) * right

    def solve(q: Array) -> Array:
        return separable_sylvester(be, left, right, q)

    found = newton(be, Triangular(-left, -gap, right))
    start = random_probe(be, x.shape[-2], x.shape[-1], x) + 0 * x
    sizes = [xp.abs(y) for y in (a, b, c, d, x)]
    noise = sizes[4] @ (sizes[3] @ sizes[4] + sizes[1]) + sizes[0] @ sizes[4] + sizes[2]
    blur = solve(be.eps(x) * noise * xp.sign(be.real(start)) + 0 * gap)
    apart = separation(be, solve, lambda y: separable_sylvester(be, adjoint(left), adjoint(right), y), start).value
    near = ~has_converged(be, found) | ~(apart > be.eps(x) ** 0.25 * (norm(be, left) + norm(be, right)))
    for m in (left, right):
        near = near | ~(norm(be, m) * norm(be, be.inv(m)) < be.eps(x) ** -0.5)

    def look(a: Array, b: Array, c: Array, d: Array) -> Array:
        return be.host_callback(schur_functions.touches_axis, be.ones(a) > 0, assemble(be, a, c, d, b))

    boundary = be.rare_cond(near, look, lambda a, *_: be.ones(a) < 0, a, b, c, d)
    step = xp.abs(found.value.c / 2) + xp.abs(blur)
    step = be.rare_cond(
        norm(be, step) > 1024 * be.eps(x) * norm(be, x),
        functools.partial(_close_look, be),
        lambda *arrays: arrays[-1],
        *(a, b, c, d, x, left, right, step),
    )
    backward = norm(be, gap) / safe_divisor(be, terms)
    return Residual(backward, (be.ldexp(step, broadcast_scalar(k)),), be.ldexp(apart, e), boundary)


def _close_look(be: Backend, *arrays: Array) -> Array:
    """The step for what is left of the equation in twice the precision, and those for two roundings of its data."""
    a, b, c, d, x, left, right, rough = arrays
    y = from_double(x)
    inner = dw_add(dw_product(be, from_double(d), y), from_double(b))
    exact = dw_add(dw_add(dw_product(be, y, inner), dw_neg(dw_product(be, from_double(a), y))), dw_neg(from_double(c)))
    step = be.xp.abs(separable_sylvester(be, left, right, exact.high))
    for draw in range(_ROUNDINGS):
        da, db, dc, dd = (be.eps(m) * m * _noise(be, m, draw) for m in (a, b, c, d))
        step = step + be.xp.abs(separable_sylvester(be, left, right, _equation(da, db, dc, dd, x)))
    return be.xp.where(be.xp.isfinite(step), step, rough)


_ROUNDINGS = 2


def _noise(be: Backend, like: Array, draw: int) -> Array:
    return random_probe(be, like.shape[-2], _ROUNDINGS * like.shape[-1], like)[..., draw::_ROUNDINGS]


def _closed_loops(value: Arrays, arrays: Arrays, half_plane: str) -> tuple[int, Array, Array]:
    """(σ, σ (x d - a), σ (b + d x)), both positive stable."""
    (x,), (a, b, _, d), side = value, arrays, 1 if half_plane == "right" else -1
    return side, side * (x @ d - a), side * (b + d @ x)


def _tangent(be: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, half_plane: str, method: str) -> Arrays:
    (x,), (da, db, dc, dd) = value, tangents
    side, left, right = _closed_loops(value, arrays, half_plane)
    return (sylvester_positive(be, left, right, side * (da @ x + dc - x @ (dd @ x + db))),)


def _cotangent(
    be: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, half_plane: str, method: str
) -> Arrays:
    """(x d - a)ᴴ y + y (b + d x)ᴴ = x̄ gives c̄ = y, ā = y xᴴ, b̄ = -xᴴ y and d̄ = -xᴴ y xᴴ."""
    side, left, right = _closed_loops(value, arrays, half_plane)
    xh = adjoint(value[0])
    y = side * sylvester_positive(be, adjoint(left), adjoint(right), cotangents[0])
    return y @ xh, -(xh @ y), y, -(xh @ y @ xh)


def solve_riccati(
    a: Array,
    b: Array,
    c: Array,
    d: Array,
    *,
    half_plane: str = "right",
    method: str = "auto",
    errors: str = "raise",
) -> Array:
    """Solve the nonsymmetric Riccati equation x d x + x b - a x - c = 0.

    The solution returned is the one for which all eigenvalues of b + d x lie in the right half plane and those of a - x
    d in the left half plane (or the other way round, see `half_plane`).

    Parameters
    ----------
    a : array_like, shape (..., n, n)
        Coefficients, of dtype float32, float64, complex64 or complex128.
    b : array_like, shape (..., m, m)
        Coefficients.
    c : array_like, shape (..., n, m)
        Constant terms.
    d : array_like, shape (..., m, n)
        Quadratic coefficients.
    half_plane : {"right", "left"}, default "right"
        The half plane of the eigenvalues of b + d x; those of a - x d lie in the other one.
    method : {"auto", "newton", "schur", "doubling"}, default "auto"
        How the equation is solved:

        - "newton": by the sign of [[a, c], [d, b]] [1]_, one inverse of size n + m a step.
        - "schur": by an ordered Schur form [2]_, on the CPU.
        - "doubling": by structure-preserving doubling [3]_, for M-matrices.
        - "auto": by doubling where the signs of the coefficients are those of an M-matrix, else by Newton's method, and
          by Schur forms for members where the sign fails.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no solution: raise `SpectrumError`, or return NaN for that member and
        the right result for the others.

    Returns
    -------
    x : array, shape (..., n, m)
        The solutions, in the library, on the device and in the common dtype of the arguments.

    Raises
    ------
    SpectrumError
        If [[a, c], [d, b]] does not have m eigenvalues in the half plane asked for and n in the other one (the message
        says how many were found), if their invariant subspace is not the graph of a matrix, if no method reaches
        working precision, or if a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, or the arrays lie on different devices.
    TypeError
        If an argument is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    solve_continuous_are : The symmetric equation of optimal control.
    solve_sylvester : The linear case, d = 0.
    spectral_projector : The projector on the invariant subspace.

    Notes
    -----
    The columns of [x; I] span an invariant subspace::

        [[a, c], [d, b]] [x; I] = [x; I] (b + d x).

    The solution exists and is unique if [[a, c], [d, b]] has m eigenvalues in the open half plane asked for and n in
    the other one, and the invariant subspace of the first m is a graph. Newton's method on the equation itself corrects
    the result; a step is kept only if the residual decreases.

    For an M-matrix [[-b, -d], [c, a]], also a singular one, ``half_plane="left"`` gives the minimal nonnegative
    solution.

    The solution is differentiable to any order in all arguments; each derivative is one Sylvester equation. A member of
    a batch gives the same bits as in a call by itself. Under ``jax.jit`` no error can be raised: a member without a
    solution is NaN.

    The backward error of `certify` is the norm of the left side divided by ‖x d x‖ + ‖x b‖ + ‖a x‖ + ‖c‖.

    References
    ----------
    .. [1] J. D. Roberts, "Linear model reduction and solution of the algebraic Riccati equation by use of the sign
       function", Int. J. Control 32(4), 1980, pp. 677-687, doi:10.1080/00207178008922881.
    .. [2] A. J. Laub, "A Schur method for solving algebraic Riccati equations", IEEE Trans. Automat. Control 24(6),
       1979, pp. 913-921, doi:10.1109/TAC.1979.1102178.
    .. [3] X.-X. Guo, W.-W. Lin and S.-F. Xu, "A structure-preserving doubling algorithm for nonsymmetric algebraic
       Riccati equation", Numer. Math. 103, 2006, pp. 393-412.

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
    return RICCATI(a, b, c, d, half_plane=half_plane, method=method, errors=errors)


RICCATI = public_function(
    solve_riccati,
    "(n,n),(m,m),(n,m),(m,n)->(n,m)",
    solve=riccati,
    residual=_residual,
    tangent=_tangent,
    cotangent=_cotangent,
    choices={"method": _METHODS, "half_plane": ("right", "left")},
    nothing=_nothing,
)
