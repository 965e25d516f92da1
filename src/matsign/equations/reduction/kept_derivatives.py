"""The differential of the split of a model into its stable part and the poles that are kept (`equations.reduction.kept`).

a P = P a and P² = P give dP = X + Y, X = (I - P) dP P, Y = P dP (I - P), from two Sylvester equations,

    X a - a X = (I - P) da P,    a Y - Y a = P da (I - P).

They are solved for g = a - line in place of a, or g = (a - line)(a + line)⁻¹ in discrete time, whose eigenvalues lie on both
sides of the imaginary axis. For the bases v = P C and lᴴ = (Rᵀ P C)⁻¹ Rᵀ P then dv = dP C and dlᴴ = (Rᵀ P C)⁻¹ Rᵀ dP (I - C lᴴ).
"""

from __future__ import annotations

from typing import NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.members import Solution, solution
from matsign.core.operations import Operation, apply, shapes_of
from matsign.equations.reduction.kept import Bases, Kept, size_of_pole
from matsign.equations.reduction.times import Time
from matsign.iterations.differentiable_solves import inverse, sylvester_positive
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye


class _Halves(NamedTuple):
    """Matrices that are g on one part and have their spectra in the right half plane: A on the stable part, B on the other."""

    a: Array
    b: Array
    inverse: Array | None  # (a + line)⁻¹
    line: Array

    @classmethod
    def of(cls, backend: Backend, time: Time, kept: Kept, a: Array) -> _Halves:
        line, one, p = broadcast_scalar(backend.stop_gradient(kept.line)), eye(backend, a), kept.projector
        h = inverse(backend, a + line * one) if time.steady else None
        g = a - line * one if h is None else one - 2 * line * h
        size = backend.stop_gradient(backend.norm(g))[:, None, None]
        return cls(p @ g - g + size * p, p @ g + size * (one - p), h, line)

    def change(self, da: Array) -> Array:
        """dg."""
        return da if self.inverse is None else 2 * self.line * (self.inverse @ da @ self.inverse)

    def change_adjoint(self, bar: Array) -> Array:
        h = self.inverse
        return bar if h is None else 2 * self.line * (adjoint(h) @ bar @ adjoint(h))


def _solve_both(backend: Backend, a: Array, b: Array, q: Array, r: Array) -> tuple[Array, Array]:
    """(x, y) with a x + x b = q and b y + y a = r."""
    x, y = apply(backend, _PAIR, a, b, q, r)
    return x, y


def _solve(backend: Backend, a: Array, b: Array, q: Array, r: Array) -> Solution:
    """The right-hand sides are mostly 0: those of models without kept poles."""

    def solve(a: Array, b: Array, q: Array, r: Array) -> Arrays:
        return sylvester_positive(backend, a, b, q), sylvester_positive(backend, b, a, r)

    some = ((q != 0) | (r != 0)).any((-1, -2))
    return solution(backend, backend.rare_cond(some, solve, lambda a, b, q, r: (0 * q, 0 * r), a, b, q, r))


def _tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays) -> Arrays:
    (x, y), (a, b, *_), (da, db, dq, dr) = value, arrays, tangents
    return _solve_both(backend, a, b, dq - da @ x - x @ db, dr - db @ y - y @ da)


def _cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays) -> Arrays:
    (x, y), (a, b, *_) = (adjoint(z) for z in value), arrays
    u, v = _solve_both(backend, adjoint(a), adjoint(b), *cotangents)
    return -(u @ x) - y @ v, -(x @ u) - v @ y, u, v


_PAIR = Operation(
    "Sylvester equations of a split",
    shapes_of("(n,n),(n,n),(n,n),(n,n)"),
    shapes_of("(n,n),(n,n)"),
    solve=_solve,
    tangent=_tangent,
    cotangent=_cotangent,
)


def projector_jvp(backend: Backend, time: Time, kept: Kept, a: Array, da: Array) -> Array:
    """dP."""
    halves, p = _Halves.of(backend, time, kept, a), kept.projector
    dg = halves.change(da)
    both = p @ dg @ p
    x, y = _solve_both(backend, halves.a, halves.b, dg @ p - both, p @ dg - both)
    return x + y


def projector_vjp(backend: Backend, time: Time, kept: Kept, a: Array, bar: Array) -> Array:
    """The adjoint of `projector_jvp`."""
    halves, p = _Halves.of(backend, time, kept, a), adjoint(kept.projector)
    both = p @ bar @ p
    x, y = _solve_both(backend, adjoint(halves.a), adjoint(halves.b), bar @ p - both, p @ bar - both)
    return halves.change_adjoint(x + y)


def stable_jvp(backend: Backend, time: Time, kept: Kept, model: Arrays, tangents: Arrays) -> tuple[Array, Arrays]:
    """(dP, the tangents of the stable model)."""
    (a, b, c), (da, db, dc), p = model, tangents, kept.projector
    dp = projector_jvp(backend, time, kept, a, da)
    of_a = da - dp @ a - p @ da - size_of_pole(backend, time, a) * dp
    return dp, (of_a, db - dp @ b - p @ db, dc - dc @ p - c @ dp)


def stable_vjp(backend: Backend, time: Time, kept: Kept, model: Arrays, bar_projector: Array, bars: Arrays) -> Arrays:
    """The adjoint of `stable_jvp`."""
    (a, b, c), (bar_a, bar_b, bar_c), p = model, bars, adjoint(kept.projector)
    bar = bar_projector - bar_a @ adjoint(a) - bar_b @ adjoint(b) - adjoint(c) @ bar_c
    bar = bar - size_of_pole(backend, time, a) * bar_a
    of_a = bar_a - p @ bar_a + projector_vjp(backend, time, kept, a, bar)
    return of_a, bar_b - p @ bar_b, bar_c - bar_c @ p


def bases_jvp(kept: Kept, at: Bases, dp: Array) -> tuple[Array, Array]:
    """(dl, dv)."""
    order, lh = at.left.shape[-1], adjoint(at.left)
    columns = kept.columns[:, :, :order]
    moved = (at.inverse @ adjoint(kept.rows) @ dp)[:, :order]
    return adjoint(moved - moved @ columns @ lh), dp @ columns


def bases_vjp(kept: Kept, at: Bases, bar_left: Array, bar_right: Array) -> Array:
    """The adjoint of `bases_jvp`."""
    order, columns = at.left.shape[-1], kept.columns[:, :, : at.left.shape[-1]]
    bar = adjoint(bar_left)
    bar = bar - bar @ at.left @ adjoint(columns)
    return kept.rows @ adjoint(at.inverse)[:, :, :order] @ bar + bar_right @ adjoint(columns)
