"""The model that two projections lᴴ, t with lᴴ t = I leave of x' = a x + b u, y = c x, by truncation or with the steady state.

Truncation:    lᴴ a t,  lᴴ b,  c t.

The steady state is the value of the transfer function c (s - a)⁻¹ b at s = 0, in discrete time at s = 1. Singular perturbation
(Liu & Anderson 1989) replaces the other states by their steady state, which keeps it. With f = a - s, and without these states,

    [[k⁻¹, h], [g, w]] = [lᴴ; c] f⁻¹ [t, b],    the model is  s + k,  k h,  g k,  g k h - w.

For d(lᴴ f⁻¹ t) and so on, d(f⁻¹) = -f⁻¹ da f⁻¹.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.iterations.differentiable_solves import inverse
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye


class Projections(NamedTuple):
    """l and t, and the masks (B, r) of the columns that are not zero and of those of other parts of the model, if any."""

    left: Array
    right: Array
    known: Array
    other: Array | None


def truncate(model: Arrays, p: Projections) -> Arrays:
    a, b, c = model
    lh = adjoint(p.left)
    return lh @ a @ p.right, lh @ b, c @ p.right


def decoupled_diagonal(backend: Backend, p: Projections, value: float) -> Array:
    """The diagonal matrix with this value for states that are neither controllable nor observable."""
    free = ~p.known if p.other is None else ~(p.known | p.other)
    return value * _diagonal(backend, p, backend.astype(free, backend.dtype_name(p.right)))


def truncate_jvp(model: Arrays, tangents: Arrays, p: Projections, dl: Array, dt: Array) -> Arrays:
    (a, b, c), (da, db, dc) = model, tangents
    lh, dlh, t = adjoint(p.left), adjoint(dl), p.right
    return dlh @ a @ t + lh @ (da @ t + a @ dt), dlh @ b + lh @ db, dc @ t + c @ dt


def truncate_vjp(model: Arrays, p: Projections, bars: Arrays) -> tuple[Arrays, Array, Array]:
    """The cotangents of the model, of l and of t."""
    (a, b, c), (bar_a, bar_b, bar_c), (left, right) = model, bars, p[:2]
    by_model = left @ bar_a @ adjoint(right), left @ bar_b, bar_c @ adjoint(right)
    return (
        by_model,
        a @ right @ adjoint(bar_a) + b @ adjoint(bar_b),
        adjoint(a) @ left @ bar_a + adjoint(c) @ bar_c,
    )


class Steady(NamedTuple):
    """k, the other matrices of the reduced model, k⁻¹, and the rounding errors (B,) of d."""

    k: Array
    b: Array
    c: Array
    d: Array
    core: Array
    noise: Array


def _steady(backend: Backend, p: Projections, blocks: Array, invert: Callable[[Array], Array]) -> Steady:
    """From [[k⁻¹, h], [g, w]], in which states whose columns are zero get -1 on the diagonal."""
    order, zero = p.left.shape[-1], backend.astype(~p.known, backend.dtype_name(p.right))
    core = blocks[:, :order, :order] - _diagonal(backend, p, zero)
    k, g, w = invert(core), blocks[:, order:, :order], blocks[:, order:, order:]
    b = k @ blocks[:, :order, order:]
    noise = blocks.shape[-1] * backend.eps(k) * (backend.norm(g) * backend.norm(b) + backend.norm(w))
    return Steady(k, b, g @ k, g @ b - w, core, noise)


def _diagonal(backend: Backend, p: Projections, entries: Array) -> Array:
    return eye(backend, p.right) * entries[:, None, :]


def keep_steady_state(backend: Backend, s: float, model: Arrays, p: Projections, e: Array | None) -> Steady:
    """The model (with a descriptor l and t make e the identity)."""
    a, b, c = model
    left, right = (adjoint(p.left), p.right) if e is None else (adjoint(p.left) @ e, e @ p.right)
    f = a - s * (eye(backend, a) if e is None else e)
    starts = backend.xp.concat([right, b], axis=-1)
    blocks = backend.xp.concat([left, c], axis=-2) @ backend.solve(f, starts)
    return _steady(backend, p, blocks, backend.inv)


def steady_model(backend: Backend, s: float, p: Projections, at: Steady) -> Arrays:
    """(a, b, c, d), with zeros for the states of other parts, and for entries of d that may be rounding errors."""
    others = 0 * at.k[:, 0] if p.other is None else backend.astype(p.other, backend.dtype_name(at.k))
    d = backend.xp.where(backend.xp.abs(at.d) > broadcast_scalar(at.noise), at.d, 0 * at.d)
    return at.k + _diagonal(backend, p, s + (1 - s) * others), at.b, at.c, d


def _differentiable(backend: Backend, s: float, model: Arrays, p: Projections) -> tuple[Steady, Array, Array]:
    """`keep_steady_state` in differentiable operations, f⁻¹ [t, b] and [lᴴ; c] f⁻¹."""
    a, b, c = model
    inv = inverse(backend, a - s * eye(backend, a))
    rows, starts = (
        backend.xp.concat([adjoint(p.left), c], axis=-2),
        backend.xp.concat([p.right, b], axis=-1),
    )
    moved, seen = inv @ starts, rows @ inv
    return _steady(backend, p, rows @ moved, functools.partial(inverse, backend)), moved, seen


def steady_jvp(
    backend: Backend, s: float, model: Arrays, tangents: Arrays, p: Projections, dl: Array, dt: Array
) -> Arrays:
    """(da, db, dc, dd)."""
    (at, moved, seen), (da, db, dc), order = _differentiable(backend, s, model, p), tangents, p.left.shape[-1]
    drows, dstarts = backend.xp.concat([adjoint(dl), dc], axis=-2), backend.xp.concat([dt, db], axis=-1)
    dw = drows @ moved + seen @ (dstarts - da @ moved)
    of_k, of_h, of_g, of_w = dw[:, :order, :order], dw[:, :order, order:], dw[:, order:, :order], dw[:, order:, order:]
    return (
        -(at.k @ of_k @ at.k),
        at.k @ (of_h - of_k @ at.b),
        (of_g - at.c @ of_k) @ at.k,
        of_g @ at.b + at.c @ (of_h - of_k @ at.b) - of_w,
    )


def steady_vjp(backend: Backend, s: float, model: Arrays, p: Projections, bars: Arrays) -> tuple[Arrays, Array, Array]:
    """The adjoint of `steady_jvp`: the cotangents of the model, of l and of t."""
    (at, moved, seen), (bar_a, bar_b, bar_c, bar_d) = _differentiable(backend, s, model, p), bars
    order = p.left.shape[-1]
    kh, bh, ch = adjoint(at.k), adjoint(at.b), adjoint(at.c)
    of_h, of_g = kh @ bar_b + ch @ bar_d, bar_c @ kh + bar_d @ bh
    of_k = -(kh @ bar_a @ kh) - of_h @ bh - ch @ bar_c @ kh
    bar = backend.xp.concat(
        [backend.xp.concat([of_k, of_h], axis=-1), backend.xp.concat([of_g, -bar_d], axis=-1)], axis=-2
    )
    bar_rows, bar_starts = bar @ adjoint(moved), adjoint(seen) @ bar
    by_model = -(bar_starts @ adjoint(moved)), bar_starts[:, :, order:], bar_rows[:, order:]
    return by_model, adjoint(bar_rows[:, :order]), bar_starts[:, :, :order]
