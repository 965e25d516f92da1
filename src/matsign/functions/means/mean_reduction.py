"""Derivatives of means A #_t B of pairs that are singular or graded, by those of regular ones.

Where the range S of one matrix lies in that of the other, the mean is that of two definite matrices on S: if S is the range of B,

    A #_t B = A_S #_t B,    A_S = (Fᴴ A⁺ F)⁻¹ with an orthonormal basis F of S.

So along directions that keep the ranges the differential is that of A_S #_t B. With Z = F A_S Fᴴ A⁺

    d(F A_S Fᴴ) = Z dA Zᴴ,    dZ = -Z dA (I - Zᴴ) A⁺,    d(A⁺) = -A⁺ dA A⁺.

Both are completed by multiples of the projector on the complement of S, which leave the mean on S as it is. Units of rows and
columns, D A D and D B D, make graded pairs well conditioned.
"""

from __future__ import annotations

from typing import NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.members import Solution, solution
from matsign.core.operations import Operation, apply, shapes_of
from matsign.core.tolerances import rank_tolerance
from matsign.functions.means.decimal_mean import affordable
from matsign.functions.means.graded_pairs import common_units, graded_apart, in_units_of_definite
from matsign.functions.means.semidefinite_mean import factor_pair, swap_members
from matsign.functions.powers.coupled_root import normalise_pair
from matsign.linalg.equilibration import rescale
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye, hermitian, is_nearly_hermitian, largest


class RegularPair(NamedTuple):
    """A, B and G in units 2^u of rows and columns, definite on S and on its complement; Z of A and of B, and the projector on S.

    Where all members are definite, or not semidefinite, Z = I is not multiplied.
    """

    u: Array
    a: Array
    b: Array
    value: Array
    to_a: Array
    to_b: Array
    projector: Array
    singular: bool

    def _congruent(self, z: Array, x: Array) -> Array:
        return z @ x @ adjoint(z) if self.singular else x

    def inward(self, backend: Backend, da: Array, db: Array) -> Arrays:
        """The tangents of A and B as those of the regular pair."""
        pairs = ((self.to_a, da), (self.to_b, db))
        return tuple(self._congruent(z, rescale(backend, x, self.u, self.u)) for z, x in pairs)

    def outward(self, backend: Backend, dg: Array) -> Array:
        """The tangent of the mean of the regular pair as that of G."""
        return rescale(backend, self._congruent(self.projector, dg), -self.u, -self.u)

    def adjoint_outward(self, backend: Backend, bar: Array) -> Array:
        return self._congruent(self.projector, rescale(backend, bar, -self.u, -self.u))

    def adjoint_inward(self, backend: Backend, bar_a: Array, bar_b: Array) -> Arrays:
        pairs = ((self.to_a, bar_a), (self.to_b, bar_b))
        return tuple(rescale(backend, self._congruent(adjoint(z), x), self.u, self.u) for z, x in pairs)


def graded_members(backend: Backend, a: Array, b: Array, t: float | Array, rtol: float | None) -> Array | None:
    """The pairs whose means and derivatives are computed in decimal arithmetic; None if there are none."""
    if not isinstance(t, float) or not affordable(backend, a):
        return None
    a, b, _, _ = normalise_pair(backend, *(backend.stop_gradient(x) for x in (a, b)))
    apart = graded_apart(backend, a, b, in_units_of_definite(backend, a, b, rtol).factors, rtol)
    return apart if backend.any_true(apart) else None


def regular_pair(
    backend: Backend, g: Array, a: Array, b: Array, *, t: float | Array, rtol: float | None, apart: Array | None
) -> RegularPair:
    """The pair, with I for A, B and G of the members in `apart`."""
    if apart is not None:
        a, b, g = (backend.xp.where(broadcast_scalar(apart), eye(backend, x), x) for x in (a, b, g))
    fixed = [backend.stop_gradient(x) for x in (a, b)]
    one = eye(backend, fixed[0])
    r = _OnRange(*apply(backend, _ON_RANGE, a, b, rtol=rtol))
    on = backend.stop_gradient(r.projector)
    singular = (on != one).any((-1, -2))
    hermitian_pair = is_nearly_hermitian(backend, fixed[0]) & is_nearly_hermitian(backend, fixed[1])
    # Projectors belong to the units of the arguments.
    u = common_units(backend, *fixed)
    u = backend.xp.where((hermitian_pair & ~singular)[:, None], u, 0 * u)
    some = backend.is_traced(singular) or backend.any_true(singular)
    if some:
        ea, eb = (backend.exponent(largest(backend, x)) for x in fixed)
        size = 2.0 ** (backend.astype(eb - ea, backend.dtype_name(on.real)) * t)
        g = on @ g @ on + backend.ldexp(one - on, broadcast_scalar(ea)) * broadcast_scalar(size)
    a, b, g = (rescale(backend, x, u, u) for x in (r.a, r.b, g))
    return RegularPair(u, a, b, g, r.to_a, r.to_b, on, some)


class _OnRange(NamedTuple):
    """A and B, restricted to S and completed; Z of both, A⁺, B⁺ and the projector on S; A, B, I, I, 0, 0, I for others."""

    a: Array
    b: Array
    to_a: Array
    to_b: Array
    inverse_a: Array
    inverse_b: Array
    projector: Array


def _solve_on_range(backend: Backend, a: Array, b: Array, *, rtol: float | None) -> Solution:
    zero, one = rank_tolerance(backend, a, rtol), eye(backend, a) + 0 * a
    x, y, _, _ = normalise_pair(backend, a, b)
    x, y, _, factors = in_units_of_definite(backend, x, y, rtol)
    nearly = is_nearly_hermitian(backend, x) & is_nearly_hermitian(backend, y)
    plain = _OnRange(a, b, one, one, 0 * one, 0 * one, one)

    def on_range(x: Array, y: Array, plain: _OnRange) -> _OnRange:
        pair = factor_pair(backend, hermitian(x), hermitian(y), zero)
        larger = broadcast_scalar(pair.large.rank > pair.small.rank)
        on = pair.small.projector
        ranges = swap_members(backend, pair.swap, backend.xp.where(larger, pair.large.projector, on), on)
        (p, to_p, inverse_p), (q, to_q, inverse_q) = (
            _restrict(backend, m, own, on) for m, own in zip(plain[:2], ranges, strict=True)
        )
        restricted = _OnRange(p, q, to_p, to_q, inverse_p, inverse_q, on)
        return _OnRange(*backend.masked_select(pair.semidefinite(), tuple(restricted), tuple(plain)))

    mask = nearly & ~factors.definite(backend, zero)
    return solution(backend, tuple(backend.rare_cond(mask, on_range, lambda x, y, plain: plain, x, y, plain)))


def _restrict(backend: Backend, x: Array, own: Array, on: Array) -> Arrays:
    """x with the range `own`, restricted to S and completed by its size on the complement; Z and x⁺."""
    one = eye(backend, x)
    e = broadcast_scalar(backend.exponent(largest(backend, x)))
    inside = own @ x @ own + backend.ldexp(one - own, e)
    inverse = own @ backend.inv(inside) @ own
    part = backend.inv(on @ inverse @ on + backend.ldexp(one - on, -e))
    # Where S is the whole range, there is nothing to restrict.
    whole = broadcast_scalar((own == on).all((-1, -2)))
    to = backend.xp.where(whole, on, on @ part @ on @ inverse)
    return hermitian(backend.xp.where(whole, inside, part)), to, inverse


def _on_range_tangent(
    backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, rtol: float | None
) -> Arrays:
    r = _OnRange(*value)
    parts = []
    for z, inverse, dx in zip(r[2:4], r[4:6], tangents, strict=True):
        half = z @ dx
        parts.append((half @ adjoint(z), -half @ (inverse - adjoint(z) @ inverse), -inverse @ dx @ inverse))
    return (*(m for both in zip(*parts, strict=True) for m in both), 0 * r.projector)


def _on_range_cotangent(
    backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, rtol: float | None
) -> Arrays:
    r, bars = _OnRange(*value), _OnRange(*cotangents)
    result = []
    for z, inverse, bar, bar_z, bar_inverse in zip(r[2:4], r[4:6], bars[:2], bars[2:4], bars[4:6], strict=True):
        left = adjoint(z)
        of_z = left @ bar_z @ adjoint(inverse - left @ inverse)
        result.append(left @ bar @ z - of_z - adjoint(inverse) @ bar_inverse @ adjoint(inverse))
    return tuple(result)


_ON_RANGE = Operation(
    "semidefinite pair on its common range",
    shapes_of("(n,n),(n,n)"),
    shapes_of("(n,n),(n,n),(n,n),(n,n),(n,n),(n,n),(n,n)"),
    solve=_solve_on_range,
    tangent=_on_range_tangent,
    cotangent=_on_range_cotangent,
)
