"""Solvers for stacks of pairs of Sylvester equations a x - y b = c, d x - y e = f, and of their adjoint equations.

With [b, e] z = 0 for orthonormal columns z, x solves the generalised Sylvester equation a x z₁ + d x z₂ = c z₁ + f z₂, and y
follows from [a x - c, d x - f] = y [b, e]. The adjoint pair aᴴ u + dᴴ v = g, -u bᴴ - v eᴴ = h has a solution of this kind, too.
Pairs for which that fails are solved by QZ on the CPU. A pair of matrices is stored as one, [x; y].
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.failures import Failure
from matsign.core.members import Solution, as_details, solution
from matsign.core.tolerances import working_precision
from matsign.direct import generalized_schur
from matsign.equations.sylvester.generalized_methods import solve_by_standard_form
from matsign.iterations.refinement import refine_entries, relative_gap, total
from matsign.linalg.equilibration import equilibrate
from matsign.linalg.separation import ROUNDINGS, may_be_singular, random_right_side
from matsign.linalg.stacks import adjoint, broadcast_scalar, common_exponent, safe_divisor

METHODS = ("auto", "standard", "qz")


class ScaledCoefficients(NamedTuple):
    """Coefficients with entries of at most 1, for right-hand sides 2^-of_c c and 2^-of_f f.

    The caller's x and y are 2^of_x and 2^of_y times these. The exponents are (B, n, m).
    """

    a: Array
    b: Array
    d: Array
    e: Array
    of_c: Array
    of_f: Array
    of_x: Array
    of_y: Array


def scale_coefficients(backend: Backend, a: Array, b: Array, d: Array, e: Array) -> ScaledCoefficients:
    """Units of the two equations, then of all rows and columns, in which the largest entries are near 1."""
    first, second = common_exponent(backend, a, b), common_exponent(backend, d, e)
    a, d, rows, columns = equilibrate(backend, a, d, first, second)
    b, e, other_rows, other_columns = equilibrate(backend, b, e, first, second)
    of_rights = rows[..., :, None] + other_columns[..., None, :]
    return ScaledCoefficients(
        *(a, b, d, e),
        broadcast_scalar(first) + of_rights,
        broadcast_scalar(second) + of_rights,
        other_columns[..., None, :] - columns[..., :, None],
        rows[..., :, None] - other_rows[..., None, :],
    )


def scale_right_sides(backend: Backend, c: Array, f: Array, of_c: Array, of_f: Array) -> tuple[Array, Array]:
    """([2^-of_c c; 2^-of_f f] 2^-k, k) with k (B, 1, 1) such that the largest entry is near 1."""
    rights, k = scaling.scale_entries(backend, stack(backend, c, f), stack(backend, of_c, of_f))
    return rights, broadcast_scalar(k)


def stack(backend: Backend, x: Array, y: Array) -> Array:
    """[x; y]."""
    return backend.xp.concat([x, y], axis=-2)


def halves(z: Array) -> tuple[Array, Array]:
    """x and y of [x; y]."""
    n = z.shape[-2] // 2
    return z[..., :n, :], z[..., n:, :]


class Equations(NamedTuple):
    """The pair, or its adjoint: the terms, which add up to zero for the solution, and the two methods."""

    terms: Callable[..., Arrays]  # (backend, a, b, d, e, rights, z)
    by_generalized: Callable[..., tuple[Array, Array]]
    by_qz: Callable[..., tuple[Array, Array, Array]]


def terms(backend: Backend, a: Array, b: Array, d: Array, e: Array, rights: Array, z: Array) -> Arrays:
    x, y = halves(z)
    return rights, -stack(backend, a @ x, d @ x), stack(backend, y @ b, y @ e)


def _adjoint_terms(backend: Backend, a: Array, b: Array, d: Array, e: Array, rights: Array, z: Array) -> Arrays:
    u, v = halves(z)
    first = stack(backend, adjoint(a) @ u, -(u @ adjoint(b)))
    return rights, -first, -stack(backend, adjoint(d) @ v, -(v @ adjoint(e)))


def _complement(backend: Backend, tall: Array) -> tuple[Array, Array, Array]:
    """(w, z, r⁻¹) with tall = w r for orthonormal columns w, and their orthogonal complement z."""
    k = tall.shape[-1]
    basis, r = backend.xp.linalg.qr(tall, mode="complete")
    return basis[..., :k], basis[..., k:], backend.inv(r[..., :k, :])


def solve_pair(backend: Backend, a: Array, b: Array, d: Array, e: Array, rights: Array) -> tuple[Array, Array]:
    """([x; y] for right-hand sides (B, k, 2n, m), the last of which is partly random, and whether they are reliable)."""
    m = b.shape[-1]
    w, z, inverse = _complement(backend, adjoint(backend.xp.concat([b, e], axis=-1)))
    first, second = z[:, :m], z[:, m:]
    c, f = halves(rights)
    x, reliable = solve_by_standard_form(backend, a, first, d, second, c @ first[:, None] + f @ second[:, None])
    gap = backend.xp.concat([a[:, None] @ x - c, d[:, None] @ x - f], axis=-1)
    return stack(backend, x, gap @ (w @ adjoint(inverse))[:, None]), reliable


def solve_adjoint_pair(backend: Backend, a: Array, b: Array, d: Array, e: Array, rights: Array) -> tuple[Array, Array]:
    """[u; v] of the adjoint pair, in the same way: [u; v] = w r⁻ᴴ g + z p with [a; d] = w r and an unknown p."""
    n = a.shape[-1]
    w, z, inverse = _complement(backend, stack(backend, a, d))
    g, h = halves(rights)
    known = (w @ adjoint(inverse))[:, None] @ g
    u, v = halves(known)
    bh, eh = adjoint(b), adjoint(e)
    rest = -h - u @ bh[:, None] - v @ eh[:, None]
    p, reliable = solve_by_standard_form(backend, z[:, :n], bh, z[:, n:], eh, rest)
    return known + z[:, None] @ p, reliable


PAIR = Equations(terms, solve_pair, generalized_schur.pair)
ADJOINT_PAIR = Equations(_adjoint_terms, solve_adjoint_pair, generalized_schur.adjoint_pair)


def solve_scaled(
    backend: Backend, equations: Equations, a: Array, b: Array, d: Array, e: Array, rights: Array, method: str
) -> Solution:
    """[x; y] of a stack with entries of moderate size, by `method`, corrected where entries of the residual are large."""
    result = _solve_by(backend, equations, a, b, d, e, rights, method)
    z = refine_entries(
        backend,
        lambda gap, a, b, d, e, rights: _solve_by(backend, equations, a, b, d, e, gap, method).value[0],
        functools.partial(equations.terms, backend),
        *(result.value[0], a, b, d, e, rights),
    )
    return result._replace(value=(z,))


def _solve_by(
    backend: Backend, equations: Equations, a: Array, b: Array, d: Array, e: Array, rights: Array, method: str
) -> Solution:
    if method == "qz":
        return _by_qz(backend, equations, a, b, d, e, rights)
    z, reliable = _by_generalized(backend, equations, a, b, d, e, rights)
    if method == "auto":
        error = _larger_error(backend, equations, a, b, d, e, rights, z)
        reliable = reliable & (error <= working_precision(backend, z))
        return backend.rare_cond(
            ~reliable,
            lambda a, b, d, e, rights, z: _by_qz(backend, equations, a, b, d, e, rights),
            lambda a, b, d, e, rights, z: solution(backend, (z,)),
            *(a, b, d, e, rights, z),
        )
    gap = relative_gap(backend, functools.partial(equations.terms, backend), a, b, d, e, rights, z)
    failed = ~(gap < backend.eps(z) ** 0.75)
    result = solution(backend, (z,), Failure.NOT_CONVERGED, failed)
    failure, detail = backend.rare_cond(
        failed | ~reliable,
        lambda a, b, d, e, rights, *_: _by_qz(backend, equations, a, b, d, e, rights)[1::2],
        lambda a, b, d, e, rights, *none: none,
        *(a, b, d, e, rights, result.failure * 0, 0 * result.detail),
    )
    singular = failure == int(Failure.COMMON_PAIR_EIGENVALUE)
    return result._replace(
        failure=Failure.COMMON_PAIR_EIGENVALUE.where(backend, singular, result.failure), detail=detail
    )


def _by_generalized(
    backend: Backend, equations: Equations, a: Array, b: Array, d: Array, e: Array, rights: Array
) -> tuple[Array, Array]:
    """[x; y] by a generalised Sylvester equation, corrected where the residual is large, and whether it is reliable."""
    probe = random_right_side(backend, rights)

    def solve(a: Array, b: Array, d: Array, e: Array, rights: Array, probe: Array) -> tuple[Array, Array]:
        both = backend.xp.stack([rights, probe], axis=1)
        result: tuple[Array, Array] = backend.shared_function(equations.by_generalized, backend, a, b, d, e, both)
        return result

    solved, reliable = solve(a, b, d, e, rights, probe)
    z = solved[:, 0]

    def correct(z: Array, a: Array, b: Array, d: Array, e: Array, rights: Array, probe: Array) -> Array:
        gap = total(equations.terms(backend, a, b, d, e, rights, z))
        new = z + solve(a, b, d, e, gap, probe)[0][:, 0]
        old, error = (_larger_error(backend, equations, a, b, d, e, rights, x) for x in (z, new))
        return backend.xp.where(broadcast_scalar(error < old), new, z)

    accurate = _larger_error(backend, equations, a, b, d, e, rights, z) <= 4 * backend.eps(z)
    z = backend.masked_cond(accurate, lambda z, *_: z, correct, z, a, b, d, e, rights, probe)
    limit = ROUNDINGS * backend.eps(z) * total(tuple(backend.norm(x) for x in (a, b, d, e)))
    least = backend.norm(probe) / safe_divisor(backend, backend.norm(solved[:, 1]))
    large = ~(backend.norm(z) * limit < safe_divisor(backend, backend.norm(rights)))
    return z, reliable & ~large & ~may_be_singular(backend, least, rights, limit)


def _larger_error(backend: Backend, equations: Equations, *arrays: Array) -> Array:
    """The larger one of the backward errors of the two equations: one of x and y may be much smaller than the other."""
    parts = [halves(part) for part in equations.terms(backend, *arrays)]

    def error(*parts: Array) -> Array:
        sizes = total(tuple(backend.norm(part) for part in parts))
        return backend.norm(total(parts)) / safe_divisor(backend, sizes)

    first, second = (error(*(part[k] for part in parts)) for k in range(2))
    return backend.xp.maximum(first, second)


def _by_qz(backend: Backend, equations: Equations, a: Array, b: Array, d: Array, e: Array, rights: Array) -> Solution:
    value, failure, least = backend.host_callback(
        equations.by_qz, (rights, backend.int_zeros(rights), backend.ones(rights)), a, b, d, e, rights
    )
    return solution(backend, (value,))._replace(failure=failure, detail=as_details(backend, rights, least))


def sylvester_pair(
    backend: Backend, a: Array, b: Array, c: Array, d: Array, e: Array, f: Array, *, method: str
) -> Solution:
    """(x, y) of a stack."""
    scaled = scale_coefficients(backend, a, b, d, e)
    rights, top = scale_right_sides(backend, c, f, scaled.of_c, scaled.of_f)
    result = solve_scaled(backend, PAIR, *scaled[:4], rights, method)
    return _restore(backend, result, top + scaled.of_x, top + scaled.of_y)


def adjoint_sylvester_pair(backend: Backend, a: Array, b: Array, d: Array, e: Array, g: Array, h: Array) -> Solution:
    """(u, v) of a stack with aᴴ u + dᴴ v = g and -u bᴴ - v eᴴ = h."""
    scaled = scale_coefficients(backend, a, b, d, e)
    rights, top = scale_right_sides(backend, g, h, -scaled.of_x, -scaled.of_y)
    result = solve_scaled(backend, ADJOINT_PAIR, *scaled[:4], rights, "auto")
    return _restore(backend, result, top - scaled.of_c, top - scaled.of_f)


def _restore(backend: Backend, result: Solution, of_x: Array, of_y: Array) -> Solution:
    """(2^of_x x, 2^of_y y) from [x; y]."""
    value = tuple(backend.ldexp(x, k) for x, k in zip(halves(result.value[0]), (of_x, of_y), strict=True))
    return scaling.check_range(backend, result._replace(value=value))
