"""The controllable subspace of a model and its observable part, as an operation, and its differential.

In balanced units let the orthonormal columns of u span the controllable subspace and those of v its observable part, with the
projectors p = u uᴴ and r = v vᴴ on their spans, g = I - p and n = p - r. Then g a p = 0, g b = 0, r a n = 0 and c n = 0. If the
order does not change to first order, du = x u and dv = (x + y) v, where x = g x p and y = n y r solve

    g a x - x a p = -g da p,                          x b = g db,
    n aᴴ y - y aᴴ r = -n (da + a x)ᴴ r,               y cᴴ = n (dc + c x)ᴴ.

Each pair is overdetermined, with one solution, because (a, b) is controllable on p. It is also that of the first equation plus
the second one times any matrix k: a Sylvester equation with a p - b k in place of a p, whose eigenvalues are not those of g a g
for almost every k. For directions in which the order grows, the model has no derivative within models of its order, and x is the
solution for one fixed k. vᴴ dv = 0, so functions that do not depend on the choice of the states get their derivatives.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.members import Solution, solution
from matsign.core.operations import Operation, apply, shapes_of
from matsign.core.scaling import size_of
from matsign.direct import staircase
from matsign.equations.sylvester.solver import solve_differentiable
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye, random_probe, safe_divisor


class Units(NamedTuple):
    """Exponents: the model in units is 2^-e a 2^e 2^-k, 2^-e b 2^-l and c 2^e 2^-m, with entries near 1."""

    e: Array
    a: Array
    b: Array
    c: Array

    @classmethod
    def of(cls, backend: Backend, e: Array, model: Arrays) -> Units:
        e = backend.astype(backend.stop_gradient(e), "int32")
        bare = cls(e, *(0 * e[:, 0] for _ in model))
        return cls(e, *(size_of(backend, x) for x in bare.inward(backend, model)))

    def shifts(self) -> tuple[Array, Array, Array]:
        row, column = self.e[:, :, None], self.e[:, None, :]
        return (
            column - row - broadcast_scalar(self.a),
            -row - broadcast_scalar(self.b),
            column - broadcast_scalar(self.c),
        )

    def inward(self, backend: Backend, model: Arrays) -> Arrays:
        """A model, or a direction, in units. The adjoint of this map is the map itself."""
        return tuple(backend.ldexp(x, shift) for x, shift in zip(model, self.shifts(), strict=True))

    def back(self, backend: Backend, model: Arrays) -> Arrays:
        """The inverse of `inward`."""
        return tuple(backend.ldexp(x, -shift) for x, shift in zip(model, self.shifts(), strict=True))

    def outward(self, backend: Backend, model: Arrays) -> Arrays:
        """A model, or a direction, whose states are in units, with inputs, outputs and time in the caller's."""
        return tuple(backend.ldexp(x, broadcast_scalar(k)) for x, k in zip(model, self[1:], strict=True))


class _Subspace(NamedTuple):
    """p: the controllable subspace of (a, b); g: the rest."""

    p: Array
    g: Array
    left: Array  # of the Sylvester equation left x + x right = q
    right: Array
    gain: Array

    @classmethod
    def of(cls, backend: Backend, p: Array, g: Array, a: Array, b: Array) -> _Subspace:
        """The coefficients, with far numbers in place of the eigenvalues of the parts that do not belong to them."""
        gain = _gain(backend, a, b) @ p
        far = 4 * (backend.stop_gradient(backend.norm(a)) + backend.ones(a))
        one, far = eye(backend, a), broadcast_scalar(backend.astype(far, backend.dtype_name(a)))
        return cls(p, g, g @ a @ g + far * (one - g), far * (one - p) - p @ (a - b @ gain) @ p, gain)

    def tangent(self, backend: Backend, da: Array, db: Array) -> Array:
        """x."""
        q = self.g @ (da - db @ self.gain) @ self.p
        return self.g @ solve_differentiable(backend, self.left, self.right, -q) @ self.p

    def cotangent(self, backend: Backend, bar_x: Array) -> tuple[Array, Array]:
        """The adjoint of `tangent`."""
        bar_x = self.g @ bar_x @ self.p
        bar_q = -solve_differentiable(backend, adjoint(self.left), adjoint(self.right), bar_x)
        bar_a = self.g @ bar_q @ self.p
        return bar_a, -(bar_a @ adjoint(self.gain))


def _gain(backend: Backend, a: Array, b: Array) -> Array:
    """A fixed k for which b k is about as large as a."""
    k = random_probe(backend, b.shape[-1], a.shape[-1], a)
    size = (
        safe_divisor(backend, backend.norm(a))
        / safe_divisor(backend, backend.norm(b))
        / safe_divisor(backend, backend.norm(k))
    )
    return broadcast_scalar(backend.astype(backend.stop_gradient(size), backend.dtype_name(a))) * k


class Subspaces(NamedTuple):
    """The units of a model, and the bases u and v in them, (B, n, n), with zeros for missing columns."""

    e: Array
    reached: Array
    both: Array


def _solve(backend: Backend, a: Array, b: Array, c: Array, *, rtol: float | None) -> Solution:
    like = backend.xp.zeros_like(a[:, 0].real), backend.xp.zeros_like(a), backend.xp.zeros_like(a)
    return solution(backend, backend.host_callback(functools.partial(staircase.subspaces, rtol=rtol), like, a, b, c))


def _parts(backend: Backend, at: Subspaces, model: Arrays) -> tuple[_Subspace, _Subspace]:
    """The controllable subspace, and that of the dual model within it."""
    a, b, c = model
    p, r = at.reached @ adjoint(at.reached), at.both @ adjoint(at.both)
    first = _Subspace.of(backend, p, eye(backend, a) - p, a, b)
    return first, _Subspace.of(backend, r, p - r, adjoint(a), adjoint(c))


def coupling_terms(backend: Backend, at: Subspaces, model: Arrays) -> Arrays:
    """(g a p + r a n, g b, c n) of a model in units, which would be zero in exact arithmetic."""
    a, b, c = model
    p, r = at.reached @ adjoint(at.reached), at.both @ adjoint(at.both)
    g, n = eye(backend, a) - p, p - r
    return g @ a @ p + r @ a @ n, g @ b, c @ n


def subspaces_tangent(backend: Backend, at: Subspaces, arrays: Arrays, tangents: Arrays) -> Arrays:
    units = Units.of(backend, at.e, arrays)
    (a, b, c), (da, db, dc) = units.inward(backend, arrays), units.inward(backend, tangents)
    first, second = _parts(backend, at, (a, b, c))
    x = first.tangent(backend, da, db)
    y = second.tangent(backend, adjoint(da + a @ x), adjoint(dc + c @ x))
    return backend.xp.zeros_like(at.e), x @ at.reached, (x + y) @ at.both


def subspaces_cotangent(backend: Backend, at: Subspaces, arrays: Arrays, cotangents: Arrays) -> Arrays:
    """The adjoint of `subspaces_tangent`, line by line in reverse order."""
    _, bar_reached, bar_both = cotangents
    units = Units.of(backend, at.e, arrays)
    a, b, c = units.inward(backend, arrays)
    first, second = _parts(backend, at, (a, b, c))
    bar_y = bar_both @ adjoint(at.both)
    by_a, by_c = map(adjoint, second.cotangent(backend, bar_y))
    bar_x = bar_y + bar_reached @ adjoint(at.reached) + adjoint(a) @ by_a + adjoint(c) @ by_c
    bar_a, bar_b = first.cotangent(backend, bar_x)
    return units.inward(backend, (bar_a + by_a, bar_b, by_c))


def _tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, rtol: float | None) -> Arrays:
    return subspaces_tangent(backend, Subspaces(*value), arrays, tangents)


def _cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, rtol: float | None) -> Arrays:
    return subspaces_cotangent(backend, Subspaces(*value), arrays, cotangents)


SUBSPACES = Operation(
    "controllable and observable subspaces",
    shapes_of("(n,n),(n,m),(p,n)"),
    shapes_of("(n),(n,n),(n,n)"),
    solve=_solve,
    tangent=_tangent,
    cotangent=_cotangent,
    kinds=("real", "same", "same"),
)


def subspaces_at(backend: Backend, model: Arrays, rtol: float | None) -> Subspaces:
    """The subspaces of a model, differentiable."""
    return Subspaces(*apply(backend, SUBSPACES, *model, rtol=rtol))
