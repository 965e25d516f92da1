"""The structure-preserving doubling of symplectic pencils, and the closed loops that come out of it.

Doubling (Anderson 1978; Chu, Fan, Guo, Hwang & Lin 2004) does for the pencil

    [[a, 0], [-h, I]] - λ [[I, g], [0, aᴴ]]

what squaring does for a matrix: it squares the eigenvalues and keeps the form. h moves to the stabilising solution of
x = h + aᴴ x (I + g x)⁻¹ a, quadratically, and a shrinks to zero exactly when the closed loop is stable.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from matsign.backends import Backend
from matsign.engine.doubling import smith
from matsign.engine.iterate import stable_lyapunov
from matsign.engine.linear import adjoint, column, eye, hermitian, norm, plus_identity, trace

Array = Any


class Symplectic(NamedTuple):
    """The pencil above."""

    a: Array
    g: Array
    h: Array


def double(be: Backend, start: Symplectic) -> tuple[Array, Array]:
    """(x, steps): h of the pencil doubled until it moves no more."""
    xp, one, eps = be.xp, be.ones(start.a), be.eps(start.a)
    enough = math.sqrt(eps) / 64  # with a small, the next move is about the square of this one

    def step(state: Any) -> Any:
        (a, g, h), steps = state
        w = be.inv(plus_identity(be, 1.0, g @ h))
        aw, ah = a @ w, adjoint(a)
        move = hermitian(ah @ (h @ (w @ a)))
        new = Symplectic(aw @ a, hermitian(g + aw @ g @ ah), h + move)
        gap, size = norm(be, move) / norm(be, new.h), norm(be, new.a)
        # A mode near the boundary moves h by little and for long: small moves are the end only once a has shrunk.
        active = ((gap > enough) | ((size > 0.01) & (gap > eps / 4))) & xp.isfinite(gap)
        return (new, steps + 1), active

    (_, _, h), steps = be.loop(step, (start, 0 * one), 4 - round(math.log2(eps)))
    return h, steps


# Above this condition number the Cayley transform loses more digits, and doubling more steps, than Newton's inverses cost.
_WIDE = 1e4


def closed_lyapunov(be: Backend, a: Array, q: Array) -> tuple[Array, Array]:
    """(x, whether a is stable) with a x + x aᴴ + q = 0.

    By the Cayley transform and Smith's iteration; where the spectrum is too wide for that, by the sign.
    """
    xp, n = be.xp, a.shape[-1]
    size, inverse_size = norm(be, a), norm(be, be.inv(a))

    def by_sign(a: Array, q: Array, p: Array) -> tuple[Array, Array]:
        found, x = stable_lyapunov(be, a, -q)
        right = be.real(trace(be, found.value.a)) + n
        return x, (found.defect < 0.05) & (xp.abs(right) < 0.5)

    def by_doubling(a: Array, q: Array, p: Array) -> tuple[Array, Array]:
        p = column(p)
        v = be.inv(a - p * eye(be, a))
        found = smith(be, plus_identity(be, 1.0, 2 * p * v), 2 * p * (v @ q @ adjoint(v)))
        return found.x, found.converged

    wide = ~(size * inverse_size < _WIDE * n)
    return be.split(wide, by_sign, by_doubling, a, q, xp.sqrt(size / inverse_size))
