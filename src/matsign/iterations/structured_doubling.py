"""The structure-preserving doubling of symplectic pencils, and the closed loops that come out of it.

Doubling (Anderson 1978; Chu, Fan, Lin & Wang 2004) does for the pencil

    [[a, 0], [-h, I]] - λ [[I, g], [0, aᴴ]]

what squaring does for a matrix: it squares the eigenvalues and keeps the form. h moves to the stabilising solution of
x = h + aᴴ x (I + g x)⁻¹ a, quadratically, and a shrinks to zero exactly when the closed loop is stable.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.tolerances import NEAR_SIGN
from matsign.iterations.newton import lyapunov_by_sign
from matsign.iterations.smith import SmithSum, cayley, smith_each
from matsign.linalg.stacks import adjoint, broadcast_scalar, hermitian, plus_identity, safe_divisor, trace


class Symplectic(NamedTuple):
    """The pencil above."""

    a: Array
    g: Array
    h: Array


def double(backend: Backend, like: Array, start: Callable[[], Symplectic]) -> tuple[Array, Array]:
    """(x, steps): h of the pencil doubled until it moves no more. A pencil that nobody else holds is let go of on the way."""
    xp, one, eps = backend.xp, backend.ones(like), backend.eps(like)
    # With a small, what is still to come is about the square of this, and one step of Newton squares that.
    enough = eps**0.25 / 4

    def step(state: Any) -> Any:
        (a, g, h), steps, before = state
        del state
        w = backend.inv(plus_identity(backend, 1.0, g @ h))
        move = hermitian(adjoint(a) @ (h @ (w @ a)))
        w = a @ w
        g = backend.addmm(1.0, g, 1.0, w @ g, adjoint(a))
        new = Symplectic(w @ a, g, h + move)
        gap, size = backend.norm(move) / backend.norm(new.h), backend.norm(new.a)
        # A mode near the boundary moves h by little and for long: a small move is the end only where moves shrink fast.
        slow = (gap > enough) | (size > 0.01) | (gap > 0.05 * before)
        return (new, steps + 1, gap), slow & (gap > eps / 4) & xp.isfinite(gap)

    (_, _, h), steps, _ = backend.loop(step, (start(), 0 * one, math.inf * one), 4 - round(math.log2(eps)))
    return h, steps


# Doubling steps from which the spectrum is so wide, or so near the axis, that the sign iteration may do better.
_SLOW = 18


class ClosedLoopSolution(NamedTuple):
    """x of a Lyapunov or Stein equation with a closed loop (a tuple for several right-hand sides), whether that is stable, and
    in how many doublings of a time of the size 1/‖a‖ it dies out.
    """

    x: Any
    stable: Array
    doublings: Array

    def only(self) -> ClosedLoopSolution:
        """Of one right-hand side."""
        return self._replace(x=self.x[0])


def closed_loop_stein(backend: Backend, a: Array, q: Array) -> ClosedLoopSolution:
    """x with a x aᴴ - x + q = 0, by Smith's iteration."""
    return closed_steins(backend, a, q).only()


def closed_steins(backend: Backend, a: Array, *qs: Array) -> ClosedLoopSolution:
    """The same for several q."""
    return _closed_loop_solution(smith_each(backend, a, lambda: (a, *qs)))


def _closed_loop_solution(found: SmithSum) -> ClosedLoopSolution:
    return ClosedLoopSolution(found.x, found.converged, found.steps)


def closed_loop_lyapunov(backend: Backend, a: Array, q: Array) -> ClosedLoopSolution:
    """x with a x + x aᴴ + q = 0.

    By the Cayley transform and Smith's iteration, and where these are slow by the sign as well: the better of the two.
    """
    return closed_lyapunovs(backend, a, q).only()


def closed_lyapunovs(backend: Backend, a: Array, *qs: Array) -> ClosedLoopSolution:
    """The same for several q."""
    xp, n, pace = backend.xp, a.shape[-1], []

    def start() -> tuple[Array, ...]:
        c, m, p = cayley(backend, a)
        pace.append(p)
        return c, *(broadcast_scalar(2 * p) * (m @ q @ adjoint(m)) for q in qs)

    found = _closed_loop_solution(smith_each(backend, a, start))
    slow = ~found.stable | (found.doublings > _SLOW)
    # The Cayley transform measures time by its p, which is far below the norm where a is far from normal.
    slower = xp.log2(0.5 / math.sqrt(n) * backend.norm(a) / pace[0])
    found = found._replace(doublings=found.doublings + xp.where(slower > 0, slower, 0 * slower))

    def both(a: Array, found: ClosedLoopSolution, *qs: Array) -> ClosedLoopSolution:
        signs, ys = zip(*(lyapunov_by_sign(backend, a, -q) for q in qs), strict=True)
        sign = signs[0]
        right = trace(backend, sign.value.a).real + n
        also = (sign.defect < NEAR_SIGN) & (xp.abs(right) < 0.5)

        def better(q: Array, x: Array, y: Array) -> Array:
            gains = (also & ~found.stable) | (
                (also == found.stable) & (_lyapunov_gap(backend, a, q, y) < _lyapunov_gap(backend, a, q, x))
            )
            return xp.where(broadcast_scalar(gains), y, x)

        xs = tuple(better(*each) for each in zip(qs, found.x, ys, strict=True))
        return ClosedLoopSolution(xs, found.stable | also, found.doublings)

    return backend.rare_cond(slow, both, lambda a, found, *qs: found, a, found, *qs)


def _lyapunov_gap(backend: Backend, a: Array, q: Array, x: Array) -> Array:
    half = a @ x
    return backend.norm(half + adjoint(half) + q)


def nonsymmetric_doubling(backend: Backend, a: Array, d: Array, b: Array, c: Array) -> tuple[Array, Array]:
    """(x, steps) with x c x - x d - a x + b = 0 and a - x c, d - c x positive stable (Guo, Lin & Xu 2006).

    For an M-matrix [[d, -c], [-b, a]] every step adds nonnegative numbers only, if γ is not below its diagonal.
    """
    xp, one, eps = backend.xp, backend.ones(b), backend.eps(b)
    gamma = xp.maximum(backend.norm(a) / math.sqrt(a.shape[-1]), backend.norm(d) / math.sqrt(d.shape[-1]))
    for m in (a, d):
        gamma = xp.maximum(gamma, xp.max(xp.linalg.diagonal(m).real, axis=-1))
    gamma = broadcast_scalar(1.05 * gamma)
    a, d = plus_identity(backend, gamma, a), plus_identity(backend, gamma, d)
    a_inverse, d_inverse = backend.inv(a), backend.inv(d)
    w, v = backend.inv(a - b @ d_inverse @ c), backend.inv(d - c @ a_inverse @ b)
    g, h = 2 * gamma * (d_inverse @ c @ w), 2 * gamma * (w @ b @ d_inverse)

    def step(state: Any) -> Any:
        e, f, g, h, steps = state
        ew, fw = (
            e @ backend.inv(plus_identity(backend, 1.0, -(g @ h))),
            f @ backend.inv(plus_identity(backend, 1.0, -(h @ g))),
        )
        move = fw @ h @ e
        new = h + move
        gap = backend.norm(move) / safe_divisor(backend, backend.norm(new))
        active = (gap > eps / 4) & xp.isfinite(gap)
        return (ew @ e, fw @ f, g + ew @ g @ f, new, steps + 1), active

    start = (plus_identity(backend, 1.0, -2 * gamma * v), plus_identity(backend, 1.0, -2 * gamma * w), g, h, 0 * one)
    *_, h, steps = backend.loop(step, start, 4 - round(math.log2(eps)))
    return h, steps
