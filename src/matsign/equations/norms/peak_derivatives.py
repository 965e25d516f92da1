"""Derivatives of the largest gain σ of G = c (s e - a)⁻¹ b + d and of the frequency ω where it is attained.

With R = (s e - a)⁻¹, s a function of ω, and the singular vectors u and v of σ,

    dσ = Re uᴴ dG v,  dG = dc R b + c R (da - s de) R b + c R db + dd,

at a fixed ω, because the slope h = Re uᴴ G' v is zero. From there dω = -dh / h', where dh is the change of the slope at a fixed
ω, and h' that along ω. Both are values of one bilinear form: with x = [u; v]/√2, N = [[0, G], [Gᴴ, 0]] and K the inverse of
σ I - N off x,

    dh = Re uᴴ dG' v + 2 Re (N' x)ᴴ K dN x,        h' = Re uᴴ G'' v + 2 Re (N' x)ᴴ K N' x.

K exists if σ is a simple singular value. Where the largest gain is attained at several frequencies or by several singular values,
the rule for σ gives one of the subgradients; that for ω is NaN or infinite where σ is multiple or the peak is flat.
"""

from __future__ import annotations

from typing import NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.members import Solution, result_dtype, solution
from matsign.core.operations import Operation, apply, shapes_of
from matsign.iterations.differentiable_solves import inverse
from matsign.linalg.stacks import adjoint, assemble, broadcast_scalar, eye

_ROOT = 2**0.5


def _inner(backend: Backend, x: Array, y: Array) -> Array:
    """xᴴ y of columns, (B, 1, 1)."""
    return backend.xp.sum(x.conj() * y, axis=(-2, -1), keepdims=True)


def _column(backend: Backend, upper: Array, lower: Array) -> Array:
    return backend.xp.concat((upper, lower), axis=-2) / _ROOT


class SingularPair(NamedTuple):
    """Singular vectors of the largest singular value, as columns; the phase of both together is free."""

    u: Array
    v: Array

    def dilate(self, backend: Backend, g: Array) -> Array:
        """[[0, g], [gᴴ, 0]] x."""
        return _column(backend, g @ self.v, adjoint(g) @ self.u)

    def outer(self, backend: Backend, w: Array) -> Array:
        """The adjoint of `dilate`, for Hermitian dilations: √2 (w_u vᴴ + u w_vᴴ) for 2 Re wᴴ [[0, g], [gᴴ, 0]] x."""
        p = self.u.shape[-2]
        return _ROOT * (w[:, :p] @ adjoint(self.v) + self.u @ adjoint(w[:, p:]))


def _respond(backend: Backend, g: Array, pair: SingularPair, y: Array) -> Array:
    """K y."""
    x = _column(backend, *pair)
    sigma = _inner(backend, pair.u, g @ pair.v).real
    rows, columns = g.shape[-2:]
    zero = backend.zeros((len(g), rows, rows), g), backend.zeros((len(g), columns, columns), g)
    dilation = assemble(backend, zero[0], g, adjoint(g), zero[1])
    k = inverse(backend, sigma * (eye(backend, dilation) + x @ adjoint(x)) - dilation)
    return k @ (y - x * _inner(backend, x, y))


def _solve_pair(backend: Backend, g: Array) -> Solution:
    u, _, vh = backend.svd(g)
    return solution(backend, (u[:, :, 0], adjoint(vh)[:, :, 0]))


def _pair_of(value: Arrays) -> SingularPair:
    return SingularPair(*(x[:, :, None] for x in value))


def _pair_tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays) -> Arrays:
    pair = _pair_of(value)
    dx = _ROOT * _respond(backend, arrays[0], pair, pair.dilate(backend, tangents[0]))[:, :, 0]
    p = value[0].shape[-1]
    return dx[:, :p], dx[:, p:]


def _pair_cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays) -> Arrays:
    pair = _pair_of(value)
    bar = _column(backend, *(x[:, :, None] for x in cotangents))
    return (pair.outer(backend, _respond(backend, arrays[0], pair, bar)),)


_PAIR = Operation(
    "largest singular pair",
    shapes_of("(p,m)"),
    shapes_of("(p),(m)"),
    solve=_solve_pair,
    tangent=_pair_tangent,
    cotangent=_pair_cotangent,
)


class At(NamedTuple):
    """A model at the frequency of its peak: G, G' and G'' with respect to ω, and what their changes consist of."""

    pair: SingularPair
    g: Array
    dg: Array
    ddg: Array
    left: Array  # c R
    left2: Array  # c R e R
    right: Array  # R b
    right2: Array  # R e R b
    s: Array
    ds: Array
    moves: Array  # whether ω moves: not at infinity, and not at the ends of the axis of a real model


def at_peak(backend: Backend, discrete: bool, value: Arrays, arrays: Arrays) -> At:
    xp, (_, frequency), real = backend.xp, value, not backend.is_complex(arrays[0])
    kind = result_dtype(backend, arrays[0], "complex")
    a, b, c, d, e = (None if x is None else backend.astype(x, kind) for x in arrays)
    e = eye(backend, a) if e is None else e
    still = backend.stop_gradient(frequency)
    finite = xp.isfinite(still)
    w = backend.astype(xp.where(finite, frequency, xp.zeros_like(still)), kind)
    s = xp.exp(1j * w) if discrete else 1j * w
    ds, dds = (1j * s, -s) if discrete else (1j + 0 * s, 0 * s)
    s, ds, dds = (broadcast_scalar(xp.where(finite, x, 0 * w)) for x in (s, ds, dds))
    mask = broadcast_scalar(finite)
    r = inverse(backend, xp.where(mask, s * e - a, eye(backend, a)))
    r = xp.where(mask, r, 0 * r)
    left, right = c @ r, r @ b
    left2, right2 = left @ e @ r, r @ (e @ right)
    g, second, third = c @ right, left @ (e @ right), left2 @ (e @ right)
    g = g if d is None else g + d
    pair = _pair_of(apply(backend, _PAIR, g))
    ends = (still == 0) | (xp.abs(still - xp.pi) < 1e-6 if discrete else still < 0)
    moves = finite & (backend.stop_gradient(value[0]) > 0)
    moves = moves & ~ends if real else moves
    return At(pair, g, -ds * second, 2 * ds**2 * third - dds * second, left, left2, right, right2, s, ds, moves)


def _real(x: Array) -> Array:
    return x.real[:, 0, 0]


def _slope_change(backend: Backend, at: At, dg: Array, ddg: Array) -> Array:
    """The change of the slope where G changes by dg and G' by ddg."""
    response = _respond(backend, at.g, at.pair, at.pair.dilate(backend, dg))
    bend = 2 * _inner(backend, at.pair.dilate(backend, at.dg), response)
    return _real(_inner(backend, at.pair.u, ddg @ at.pair.v) + bend)


def _over_curvature(backend: Backend, at: At, x: Array) -> Array:
    """-x / h' where ω moves and x is not 0."""
    used = at.moves & (x != 0)
    curvature = _slope_change(backend, at, at.dg, at.ddg)
    none = backend.xp.zeros_like(x)
    return backend.xp.where(used, -x / backend.xp.where(used, curvature, backend.xp.ones_like(x)), none)


def _changes(at: At, tangents: Arrays) -> tuple[Array, Array]:
    """dG and dG' at a fixed frequency."""
    da, db, dc, dd, de = tangents
    da = da if de is None else da - at.s * de
    by_left, by_left2 = da @ at.right + db, at.left2 @ (da @ at.right + db)
    dg = dc @ at.right + at.left @ by_left
    bend = dc @ at.right2 + at.left @ (da @ at.right2) + by_left2
    ddg = -at.ds * (bend if de is None else bend + at.left @ (de @ at.right))
    return dg if dd is None else dg + dd, ddg


def peak_tangent(backend: Backend, discrete: bool, value: Arrays, arrays: Arrays, tangents: Arrays) -> Arrays:
    at = at_peak(backend, discrete, value, arrays)
    kind = backend.dtype_name(at.g)
    dg, ddg = _changes(at, tuple(None if x is None else backend.astype(x, kind) for x in tangents))
    change = _real(_inner(backend, at.pair.u, dg @ at.pair.v))
    return backend.xp.where(value[0] > 0, change, 0 * change), _over_curvature(
        backend, at, _slope_change(backend, at, dg, ddg)
    )


def peak_cotangent(backend: Backend, discrete: bool, value: Arrays, arrays: Arrays, cotangents: Arrays) -> Arrays:
    xp, at = backend.xp, at_peak(backend, discrete, value, arrays)
    bar = xp.where(value[0] > 0, cotangents[0], 0 * cotangents[0])
    slope = _over_curvature(backend, at, cotangents[1])  # the cotangent of the change of the slope
    response = _respond(backend, at.g, at.pair, at.pair.dilate(backend, at.dg))
    response = xp.where(broadcast_scalar(slope != 0), response, xp.zeros_like(response))
    plain = at.pair.u @ adjoint(at.pair.v)
    scale = backend.astype(slope, backend.dtype_name(plain))
    bar_g = broadcast_scalar(backend.astype(bar, backend.dtype_name(plain))) * plain
    bar_g = bar_g + broadcast_scalar(scale) * at.pair.outer(backend, response)
    bar_dg = -(at.ds.conj()) * broadcast_scalar(scale) * plain
    inner = adjoint(at.left) @ bar_g + adjoint(at.left2) @ bar_dg
    by_a = inner @ adjoint(at.right) + adjoint(at.left) @ bar_dg @ adjoint(at.right2)
    by_c = bar_g @ adjoint(at.right) + bar_dg @ adjoint(at.right2)
    by_e = None if arrays[4] is None else -at.s.conj() * by_a + adjoint(at.left) @ bar_dg @ adjoint(at.right)
    return by_a, inner, by_c, None if arrays[3] is None else bar_g, by_e
