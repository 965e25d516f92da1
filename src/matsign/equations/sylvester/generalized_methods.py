"""Solvers for stacks of generalised Sylvester equations a x b + c x d = q.

By one linear system for few unknowns; by a Sylvester equation for the pencils (a, c) and (d, b), turned so that the matrices to
be inverted are well-conditioned, and corrected with the residual of the original equation; or by QZ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.failures import Failure
from matsign.core.members import Solution, as_details, solution
from matsign.direct import generalized_schur, schur_functions
from matsign.equations.sylvester.methods import auto as standard_auto
from matsign.iterations import few_unknowns
from matsign.iterations.refinement import at_rounding, refine_entries, relative_gap, total
from matsign.iterations.separating_line import shift_to_line
from matsign.iterations.smith import two_sided_sylvester
from matsign.linalg.equilibration import equilibrate
from matsign.linalg.separation import ROUNDINGS, may_be_singular, random_right_side
from matsign.linalg.stacks import (
    broadcast_scalar,
    broadcast_to_rank,
    common_exponent,
    largest,
    safe_divisor,
    scale_to_unit,
)

METHODS = ("auto", "standard", "qz")
# A sum that needs more steps is left to Schur vectors.
_STEPS = 26
# The last of the turns that `_standard_form` tries.
_LAST_TURN = 3


class ScaledEquation(NamedTuple):
    """An equation with entries of at most 1; the caller's x is 2^scale times this x, the operator 2^size times this one.

    `equilibrate_generalized` makes `scale` one exponent for each entry; `size` then is that of the equation in these units.
    """

    a: Array
    b: Array
    c: Array
    d: Array
    q: Array
    scale: Array
    size: Array

    @property
    def arrays(self) -> Arrays:
        return self[:5]


def scale_generalized(
    backend: Backend, a: Array, b: Array, c: Array, d: Array, q: Array, first: Array | int = 0, second: Array | int = 0
) -> ScaledEquation:
    """2^first a x b + 2^second c x d = q with the largest entries of a and c near 1; of a ⊗ b and c ⊗ d the larger one, too."""
    a, e_a = scale_to_unit(backend, a)
    b, e_b = scale_to_unit(backend, b)
    c, e_c = scale_to_unit(backend, c)
    d, e_d = scale_to_unit(backend, d)
    q, e_q = scale_to_unit(backend, q)
    first, second = first + e_a + e_b, second + e_c + e_d
    # A product that is zero has no size.
    has_first = (largest(backend, a) > 0) & (largest(backend, b) > 0)
    has_second = (largest(backend, c) > 0) & (largest(backend, d) > 0)
    first, second = backend.xp.where(has_first, first, second), backend.xp.where(has_second, second, first)
    size = backend.xp.maximum(first, second)
    b, d = (backend.ldexp(x, broadcast_scalar(e - size)) for x, e in ((b, first), (d, second)))
    return ScaledEquation(a, b, c, d, q, broadcast_scalar(e_q - size), size)


def equilibrate_generalized(backend: Backend, *arrays: Array) -> ScaledEquation:
    """The equation in units of the rows and columns of (a, c) and (b, d) in which their largest entries are similar."""
    a, b, c, d, q = arrays
    of_a, of_b, of_c, of_d = (common_exponent(backend, x) for x in (a, b, c, d))
    a, c, rows, columns = equilibrate(backend, a, c, of_a, of_c)
    b, d, other_rows, other_columns = equilibrate(backend, b, d, of_b, of_d)
    q, of_q = scaling.scale_entries(backend, q, rows[..., :, None] + other_columns[..., None, :])
    scaled = scale_generalized(backend, a, b, c, d, q, of_a + of_b, of_c + of_d)
    outer = columns[..., :, None] + other_rows[..., None, :]
    return scaled._replace(scale=scaled.scale + broadcast_scalar(of_q) - outer)


def terms(a: Array, b: Array, c: Array, d: Array, q: Array, x: Array) -> Arrays:
    """The terms, which add up to zero for the solution."""
    return q, -((a @ x) @ b), -((c @ x) @ d)


def operator_size(backend: Backend, a: Array, b: Array, c: Array, d: Array) -> Array:
    """A bound on the norm of x ↦ a x b + c x d."""
    return backend.norm(a) * backend.norm(b) + backend.norm(c) * backend.norm(d)


def generalized_sylvester(
    backend: Backend, a: Array, b: Array, c: Array, d: Array, q: Array, *, method: str
) -> Solution:
    """x of a stack by `method`; what "auto" takes depends on the sizes, the device and the member, not on other members."""
    # A matrix that is spread over devices has no random right-hand side, which the standard form needs.
    method = "qz" if backend.products_only(q) else method
    scaled = equilibrate_generalized(backend, a, b, c, d, q)
    solve = _METHODS[method]
    result = solve(backend, *scaled.arrays)
    x = refine_entries(
        backend,
        lambda gap, a, b, c, d, q: solve(backend, a, b, c, d, gap).value[0],
        terms,
        result.value[0],
        *scaled.arrays,
    )
    return scaling.restore(backend, result._replace(value=(x,)), scaled.scale)


def _auto(backend: Backend, a: Array, b: Array, c: Array, d: Array, q: Array) -> Solution:
    if few_unknowns.has_few_unknowns(backend, q):
        result = few_unknowns.generalized_sylvester(backend, a, b, c, d, q)
        size, parts = operator_size(backend, a, b, c, d), terms(a, b, c, d, q, result.x)
        x, reliable = result.x, few_unknowns.reliable(backend, result, size, *parts)
    else:
        attempt = by_standard_form(backend, a, b, c, d, q)
        x, reliable = attempt.x, attempt.reliable & at_rounding(backend, terms, a, b, c, d, q, attempt.x)
    return backend.rare_cond(
        ~reliable,
        lambda a, b, c, d, q, x: _by_qz(backend, a, b, c, d, q),
        lambda a, b, c, d, q, x: solution(backend, (x,)),
        *(a, b, c, d, q, x),
    )


def _standard(backend: Backend, a: Array, b: Array, c: Array, d: Array, q: Array) -> Solution:
    """The standard form; QZ only tells whether the equation is singular, where that failed or is uncertain."""
    x, reliable = by_standard_form(backend, a, b, c, d, q)
    failed = ~(relative_gap(backend, terms, a, b, c, d, q, x) < backend.eps(q) ** 0.75)
    result = solution(backend, (x,), Failure.NOT_CONVERGED, failed)
    failure, detail = backend.rare_cond(
        failed | ~reliable,
        lambda a, b, c, d, q, *_: _by_qz(backend, a, b, c, d, q)[1::2],
        lambda a, b, c, d, q, *none: none,
        *(a, b, c, d, q, result.failure * 0, 0 * result.detail),
    )
    singular = failure == int(Failure.COMMON_PENCIL_EIGENVALUE)
    failure = Failure.COMMON_PENCIL_EIGENVALUE.where(backend, singular, result.failure)
    return result._replace(failure=failure, detail=detail)


def _by_qz(backend: Backend, a: Array, b: Array, c: Array, d: Array, q: Array) -> Solution:
    value, failure, least = backend.host_callback(
        generalized_schur.solve_generalized, (q, backend.int_zeros(q), backend.ones(q)), a, b, c, d, q
    )
    return solution(backend, (value,))._replace(failure=failure, detail=as_details(backend, q, least))


class Attempt(NamedTuple):
    """x, and whether the equation is surely not singular and x not far from the solution."""

    x: Array
    reliable: Array


def by_standard_form(backend: Backend, a: Array, b: Array, c: Array, d: Array, q: Array) -> Attempt:
    """x by a Sylvester equation, corrected where the residual is above rounding."""
    form = _standard_form(backend, a, b, c, d)
    probe = random_right_side(backend, q)
    solved = form.solve(backend, backend.xp.stack([q, probe], axis=1))
    x = solved[:, 0]
    x = backend.masked_cond(
        _small_residual(backend, a, b, c, d, q, x), _keep, _correction(backend), x, a, b, c, d, q, *form
    )
    reliable = _reliable(backend, a, b, c, d, form, probe, solved[:, 1])
    limit = ROUNDINGS * backend.eps(q) * operator_size(backend, a, b, c, d)
    large = ~(backend.norm(x) * limit < safe_divisor(backend, backend.norm(q)))
    return Attempt(x, reliable & ~large)


def solve_by_standard_form(
    backend: Backend, a: Array, b: Array, c: Array, d: Array, rights: Array
) -> tuple[Array, Array]:
    """(solutions for right-hand sides (B, k, n, m), the last of which is partly random, and whether they are reliable)."""
    form = _standard_form(backend, a, b, c, d)
    solved = form.solve(backend, rights)
    return solved, _reliable(backend, a, b, c, d, form, rights[:, -1], solved[:, -1])


def _reliable(
    backend: Backend, a: Array, b: Array, c: Array, d: Array, form: StandardForm, right: Array, x: Array
) -> Array:
    """Whether the standard form is well-conditioned and the equation not singular, by its solution x for a random right side."""
    limit = ROUNDINGS * backend.eps(x) * operator_size(backend, a, b, c, d)
    least = backend.norm(right) / safe_divisor(backend, backend.norm(x))
    conditioned = form.condition < backend.eps(x) ** -0.75
    return conditioned & ~may_be_singular(backend, least, x, limit)


def _small_residual(backend: Backend, *arrays: Array) -> Array:
    """Whether the residual is at most 4 eps times the norms of the terms."""
    parts = terms(*arrays)
    sizes = total(tuple(backend.norm(part) for part in parts))
    return backend.norm(total(parts)) <= 4 * backend.eps(arrays[-1]) * sizes


def _keep(x: Array, *_: Array) -> Array:
    return x


def _correction(backend: Backend) -> Callable[..., Array]:
    def correct(x: Array, a: Array, b: Array, c: Array, d: Array, q: Array, *form: Array) -> Array:
        gap = total(terms(a, b, c, d, q, x))
        new = x + StandardForm(*form).solve(backend, gap[:, None])[:, 0]
        better = backend.norm(total(terms(a, b, c, d, q, new))) < backend.norm(gap)
        return backend.xp.where(broadcast_scalar(better), new, x)

    return correct


class StandardForm(NamedTuple):
    """left x + x right = u q v, and the product of the condition numbers of u and v in the Frobenius norm."""

    left: Array
    right: Array
    u: Array
    v: Array
    condition: Array

    def solve(self, backend: Backend, rights: Array) -> Array:
        """x for right-hand sides (B, k, n, m): by a sum where a line separates the spectra, else by Schur vectors."""
        rights = self.u[:, None] @ rights @ self.v[:, None]
        a, b, side = shift_to_line(backend, self.left, self.right)
        sums = two_sided_sylvester(backend, a, b, broadcast_to_rank(side, rights) * rights, _STEPS)
        return backend.rare_cond(
            ~sums.converged,
            lambda a, b, rights, x: _without_line(backend, a, b, rights),
            lambda a, b, rights, x: x,
            *(self.left, self.right, rights, sums.x),
        )


def _without_line(backend: Backend, a: Array, b: Array, rights: Array) -> Array:
    if backend.on_cpu(a):
        return backend.host_callback(schur_functions.right_sides, rights, a, b, rights)
    solved = [standard_auto(backend, a, b, rights[:, k]).value[0] for k in range(rights.shape[1])]
    return backend.xp.stack(solved, axis=1)


def _standard_form(backend: Backend, a: Array, b: Array, c: Array, d: Array, turn: int = 0) -> StandardForm:
    """c and b inverted, or a and d, or a ± c and b ∓ d: the first of these whose condition is moderate, else the last.

    a x b + c x d is the same for (a - c, a + c)/√2 and (b - d, b + d)/√2.
    """
    if turn < _LAST_TURN - 1:
        first, second, third, fourth = a, c, b, d
    else:
        first, second, third, fourth = ((a - c), (a + c), (b - d) / 2, (b + d) / 2)
    if turn % 2:
        first, second, third, fourth = second, first, fourth, third
    u, v = backend.inv(second), backend.inv(third)
    condition = backend.norm(second) * backend.norm(u) * backend.norm(third) * backend.norm(v)
    form = StandardForm(u @ first, fourth @ v, u, v, condition)
    if turn == _LAST_TURN:
        return form
    # A random matrix has a condition of about n^1.5 in this norm.
    limit = min(1e4 + 10 * (a.shape[-1] * b.shape[-1]) ** 1.5, backend.eps(a) ** -0.75)
    result: StandardForm = backend.rare_cond(
        ~(condition < limit),
        lambda a, b, c, d, *_: _standard_form(backend, a, b, c, d, turn + 1),
        lambda a, b, c, d, *form: StandardForm(*form),
        *(a, b, c, d, *form),
    )
    return result


_METHODS = {"auto": _auto, "standard": _standard, "qz": _by_qz}
