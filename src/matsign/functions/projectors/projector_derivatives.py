"""The derivative of spectral projectors, from that of the sign.

Without an overlap, P = (Z² ± Z)/2 and dP = (dZ Z + Z dZ ± dZ)/2 with the sign Z of M - at I. The projector changes neither with
the line nor, for the lowest eigenvalues, with the gap: the derivative with respect to `at` is zero.

With an overlap S = T⁻², T = S^{-1/2}, and the projector Π of K = T M T, any factor of S gives the same D = T Π T. That of
S + dS can be taken as T⁻¹ (I + E/2) with E = T dS T, so that

    dK = T dM T - (E K + K E)/2,      dD = T (dΠ - (E Π + Π E)/2) T.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.members import Solution, solution
from matsign.core.operations import Operation, apply, shapes_of
from matsign.functions.powers.square_roots import INVSQRTM
from matsign.functions.projectors.projector_methods import Line, Pencil, middle_of_gap, shift_to_axis, side
from matsign.functions.sign.derivatives import sign_jvp, sign_vjp
from matsign.functions.sign.sign import MCSGN
from matsign.linalg.stacks import adjoint, broadcast_scalar, hermitian, is_hermitian


class _Rule(NamedTuple):
    """K - at I, its sign Z, and whether P = (Z² + Z)/2 (1) or (Z² - Z)/2 (-1)."""

    k: Array
    s: Array
    direction: int

    def projector(self) -> Array:
        return (self.s @ self.s + self.direction * self.s) / 2

    def tangent(self, backend: Backend, dk: Array) -> Array:
        ds = sign_jvp(backend, self.s, self.k, dk)
        return (ds @ self.s + self.s @ ds + self.direction * ds) / 2

    def cotangent(self, backend: Backend, bar: Array) -> Array:
        sh = adjoint(self.s)
        return sign_vjp(backend, self.s, self.k, (bar @ sh + sh @ bar + self.direction * bar) / 2)


def _rule(backend: Backend, k: Array, at: Line, lowest: int | None, half_plane: str | None, **options: Any) -> _Rule:
    if lowest is not None:
        (at,) = apply(backend, _GAP, backend.stop_gradient(k), lowest=lowest)
    k = shift_to_axis(backend, k, None if at is None else backend.stop_gradient(at))
    (s,) = apply(backend, MCSGN.operation, k, **options)
    return _Rule(k, s, 1 if side(lowest, half_plane) == "right" else -1)


def projector_tangent(
    backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, at: Line = None, **options: Any
) -> Arrays:
    (m, overlap), (dm, doverlap) = arrays, tangents[:2]
    if overlap is None:
        return (_rule(backend, m, at, **options).tangent(backend, dm),)
    pencil = Pencil.of(backend, m, hermitian(overlap), at)
    t, k = orthonormal(backend, pencil)
    rule = _rule(backend, k, pencil.at, **options)
    e, p = t @ pencil.change(backend, hermitian(doverlap)) @ t, rule.projector()
    dk = t @ pencil.change(backend, dm, with_size=True) @ t - symmetric(e, k)
    return (pencil.outward(backend, t @ (rule.tangent(backend, dk) - symmetric(e, p)) @ t),)


def projector_cotangent(
    backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, at: Line = None, **options: Any
) -> Arrays:
    (m, overlap), (bar,) = arrays, cotangents
    no_change = (None if at is None else backend.xp.zeros_like(at),)
    if overlap is None:
        return (_rule(backend, m, at, **options).cotangent(backend, bar), None, *no_change)
    pencil = Pencil.of(backend, m, hermitian(overlap), at)
    t, k = orthonormal(backend, pencil)
    rule = _rule(backend, k, pencil.at, **options)
    bar = t @ pencil.outward(backend, bar) @ t
    bar_k = rule.cotangent(backend, bar)
    bar_e = -symmetric(bar_k, adjoint(k)) - symmetric(bar, adjoint(rule.projector()))
    bar_m, bar_overlap = t @ bar_k @ t, hermitian(t @ bar_e @ t)
    return (pencil.change(backend, bar_m, with_size=True), pencil.change(backend, bar_overlap), *no_change)


def symmetric(x: Array, y: Array) -> Array:
    return (x @ y + y @ x) / 2


def orthonormal(backend: Backend, pencil: Pencil) -> tuple[Array, Array]:
    """T = S^{-1/2} and T M T, with the value of an exactly Hermitian matrix if M is Hermitian, and the derivative of T M T."""
    (t,) = apply(backend, INVSQRTM.operation, pencil.overlap, rtol=0.0, method="auto")
    t = hermitian(t)
    k = t @ pencil.m @ t
    fixed = backend.stop_gradient(k)
    return t, backend.xp.where(broadcast_scalar(is_hermitian(pencil.m)), hermitian(fixed) + (k - fixed), k)


def _solve_gap(backend: Backend, k: Array, *, lowest: int) -> Solution:
    return solution(backend, (middle_of_gap(backend, k, lowest),))


# Without a derivative: the projector is the same for every line in the gap.
_GAP = Operation(
    "gap",
    shapes_of("(n,n)"),
    ((),),
    solve=_solve_gap,
    tangent=lambda backend, value, arrays, tangents, **_: (backend.xp.zeros_like(value[0]),),
    cotangent=lambda backend, value, arrays, cotangents, **_: (backend.xp.zeros_like(arrays[0]),),
    kinds=("real",),
)
