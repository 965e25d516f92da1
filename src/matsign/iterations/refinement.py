"""Iterative refinement of Sylvester equations a x + x b = q: from an approximate solver to working precision."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.linalg.separation import random_right_side, separation
from matsign.linalg.stacks import adjoint, broadcast_scalar, inner, safe_divisor, scale_to_unit


class RefinedSolution(NamedTuple):
    """A solution, its residual relative to the moduli of the terms, and the separation of the equation."""

    x: Array
    error: Array
    separation: Array


def sylvester(
    backend: Backend,
    solve: Callable[[Array], Array],
    adjoint_solve: Callable[[Array], Array],
    a: Array,
    b: Array,
    q: Array,
    times: int,
) -> RefinedSolution:
    """x from approximate solvers of the equation and its adjoint, corrected up to `times` times by residuals with a and b.

    A random right-hand side must lead to a small error too, by corrections that decrease: otherwise the solver is too
    inaccurate to tell whether the equation is singular, and q may suit it by chance. If the equation is singular, each
    correction is as large as the solution.
    """
    x, error, _ = _correct(backend, solve, a, b, q, times)
    _, probe_error, ratio = _correct(backend, solve, a, b, random_right_side(backend, q), times)
    error = backend.xp.where(ratio < 0.5, backend.xp.maximum(error, probe_error), math.inf + 0 * error)
    ah, bh = adjoint(a), adjoint(b)
    estimate = separation(
        backend,
        lambda y: _correct(backend, solve, a, b, y, 1)[0],
        lambda y: _correct(backend, adjoint_solve, ah, bh, y, 1)[0],
        q,
    )
    return RefinedSolution(x, error, estimate.value)


def _correct(
    backend: Backend, solve: Callable[[Array], Array], a: Array, b: Array, q: Array, times: int
) -> tuple[Array, Array, Array]:
    """(x, its error, the norm of the first correction over that of x); a correction is kept if it reduces the error."""
    x = solve(q)
    gap, error = total(terms(a, b, q, x)), relative_gap(backend, terms, a, b, q, x)
    first = 0 * error
    for k in range(times):
        step = solve(gap)
        first = backend.norm(step) / safe_divisor(backend, backend.norm(x)) if k == 0 else first
        new = x + step
        new_gap, new_error = total(terms(a, b, q, new)), relative_gap(backend, terms, a, b, q, new)
        better = new_error < error
        x = backend.xp.where(broadcast_scalar(better), new, x)
        gap = backend.xp.where(broadcast_scalar(better), new_gap, gap)
        error = backend.xp.where(better, new_error, error)
    return x, error, first


def terms(a: Array, b: Array, q: Array, x: Array) -> Arrays:
    """The terms, which should add up to zero."""
    return q, -(a @ x), -(x @ b)


def total(parts: Arrays) -> Array:
    """The sum of the terms of an equation: its residual."""
    first, *rest = parts
    for part in rest:
        first = first + part
    return first


def backward(backend: Backend, gap: Array, *parts: Array) -> Array:
    """The backward error: the norm of the residual over the sum of the norms of the terms as they are computed."""
    gap, *scaled, _ = scale_to_unit(backend, gap, *parts)
    return backend.norm(gap) / safe_divisor(backend, total(tuple(backend.norm(part) for part in scaled)))


def rounding(backend: Backend, terms: Callable[..., Arrays], *arrays: Array) -> Array:
    """A bound on the rounding error in each entry of the sum of these terms, in units of eps: the sum for the moduli."""
    return total(tuple(backend.xp.abs(part) for part in terms(*(backend.xp.abs(x) for x in arrays))))


def relative_gap(backend: Backend, terms: Callable[..., Arrays], *arrays: Array) -> Array:
    """The norm of the residual over that of the sum for the moduli."""
    return backend.norm(total(terms(*arrays))) / safe_divisor(backend, backend.norm(rounding(backend, terms, *arrays)))


# Sums by doubling leave a residual of up to 2 eps of the moduli of the terms, on ordinary equations of any size.
_ROUNDINGS = 4


def at_rounding(backend: Backend, terms: Callable[..., Arrays], *arrays: Array) -> Array:
    """Whether the residual is no more than the rounding errors of the terms, computed entry by entry.

    By norms of a and x alone, errors in the small blocks of a stiff equation would not count.
    """
    parts = terms(*arrays)
    gap, enough = backend.norm(total(parts)), _ROUNDINGS * backend.eps(parts[0])
    surely = gap <= enough * total(tuple(backend.norm(part) for part in parts))
    return backend.masked_cond(
        surely,
        lambda gap, *arrays: gap == gap,
        lambda gap, *arrays: gap <= enough * backend.norm(rounding(backend, terms, *arrays)),
        *(gap, *arrays),
    )


# An entry of the residual above this many rounding errors of its own terms is worth a correction.
_ENTRY_ROUNDINGS = 64


def _entry_error(backend: Backend, terms: Callable[..., Arrays], *arrays: Array) -> Array:
    """The largest ratio of an entry of the residual to the moduli of its own terms: no units of rows and columns change it."""
    bound = rounding(backend, terms, *arrays)
    return backend.xp.max(backend.xp.abs(total(terms(*arrays))) / safe_divisor(backend, bound), axis=(-1, -2))


def refine_entries(
    backend: Backend, solve: Callable[..., Array], terms: Callable[..., Arrays], x: Array, *arrays: Array
) -> Array:
    """x, the last argument of `terms`, with corrections ``solve(gap, *arrays)`` where entries of the residual are large.

    In a norm, the equations for small entries would not count: a method that is accurate in the norm may lose all their digits.
    """

    def correct(x: Array, *arrays: Array) -> Array:
        for _ in range(3):
            new = x + solve(total(terms(*arrays, x)), *arrays)
            after, before = (_entry_error(backend, terms, *arrays, y) for y in (new, x))
            x = backend.xp.where(broadcast_scalar(after < before), new, x)
        return x

    large = _entry_error(backend, terms, *arrays, x) > _ENTRY_ROUNDINGS * backend.eps(x)
    result: Array = backend.rare_cond(large, correct, lambda x, *_: x, x, *arrays)
    return result


def in_callers_units(
    backend: Backend,
    solve: Callable[..., Array],
    terms: Callable[..., Arrays],
    x: Array,
    outer: Array | None,
    *arrays: Array,
) -> Array:
    """x, computed in units 2^outer smaller than the caller's, corrected to be as accurate in the caller's (None: the same units).

    An entry that is small in one may be large in the other, with the error of entries that were large. Each correction,
    ``solve(gap, *arrays)`` for the sum of ``terms(x, *arrays)``, reduces it by the relative error of the solver.
    """
    if outer is None:
        return x
    lower = outer - backend.xp.max(outer, axis=(-1, -2), keepdims=True)

    def correct(x: Array, lower: Array, *arrays: Array) -> Array:
        for _ in range(2):
            gap = total(terms(x, *arrays))
            new = x + solve(gap, *arrays)
            after, before, _ = scale_to_unit(
                backend, *(backend.ldexp(y, lower) for y in (total(terms(new, *arrays)), gap))
            )
            x = backend.xp.where(broadcast_scalar(backend.norm(after) < backend.norm(before)), new, x)
        return x

    return backend.rare_cond((outer != 0).any((-1, -2)), correct, lambda x, *_: x, x, lower, *arrays)


def each_in_callers_units(
    backend: Backend,
    solve: Callable[..., Array],
    terms: Callable[..., Arrays],
    solved: Array,
    outer: Array | None,
    rights: Array,
    *arrays: Array,
) -> Array:
    """The same for the solutions of several right-hand sides, (B, k, n, m), the second argument of `terms`."""
    if outer is None:
        return solved

    def correct(solved: Array, outer: Array, rights: Array, *arrays: Array) -> Array:
        parts = [
            in_callers_units(
                backend, lambda gap, right, *xs: solve(gap, *xs), terms, solved[:, k], outer, rights[:, k], *arrays
            )
            for k in range(solved.shape[1])
        ]
        return backend.xp.stack(parts, axis=1)

    mask = (outer != 0).any((-1, -2))
    return backend.rare_cond(mask, correct, lambda solved, *_: solved, solved, outer, rights, *arrays)


def solve_weighed(backend: Backend, outer: Array | None, *parts: Array) -> Arrays:
    """Matrices in units 2^outer smaller than the caller's, brought to the caller's apart from a common factor."""
    if outer is None:
        return parts
    lower = outer - backend.xp.max(outer, axis=(-1, -2), keepdims=True)
    return tuple(backend.ldexp(part, lower) for part in parts)


def correction(backend: Backend, solved: Array) -> Array:
    """Of the solutions (B, k, n, m) the first, for the residual, enlarged by the norm of the others, for random rounding.

    It is enlarged along the first of the others, with the sign that makes it longer. A single solution is returned as it is.
    """
    if solved.shape[1] == 1:
        return solved[:, 0]
    step, direction = solved[:, 0], solved[:, 1]
    spread = backend.norm(solved[:, 1:])
    spread = backend.xp.where(inner(backend, step, direction) < 0, -spread, spread)
    return step + broadcast_scalar(spread / safe_divisor(backend, backend.norm(direction))) * direction
