"""Structure-preserving doubling of symplectic pencils, and Lyapunov and Stein equations with a closed loop.

Doubling (Anderson 1978; Chu, Fan, Lin & Wang 2004) replaces the pencil

    [[a, 0], [-h, I]] - λ [[I, g], [0, aᴴ]]

by one of the same form with the squares of the eigenvalues. h converges to the stabilising solution of
x = h + aᴴ x (I + g x)⁻¹ a, quadratically, and a converges to zero if and only if the closed loop is stable.
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


def double(backend: Backend, like: Array, start: Callable[[], Symplectic]) -> tuple[Symplectic, Array]:
    """(pencil, steps) after doubling to convergence: h is the solution. `start` makes the pencil, which is then freed."""
    xp, one, eps = backend.xp, backend.ones(like), backend.eps(like)
    # If a is small, the next change is about the square of this, and one step of Newton's method squares that.
    enough = eps**0.25 / 4

    def step(state: Any) -> Any:
        (a, g, h), steps, before = state
        del state
        w = backend.inv(plus_identity(backend, 1.0, g @ h))
        change = hermitian(adjoint(a) @ (h @ (w @ a)))
        w = a @ w
        g = backend.addmm(1.0, g, 1.0, w @ g, adjoint(a))
        new = Symplectic(w @ a, g, h + change)
        gap, size = backend.norm(change) / backend.norm(new.h), backend.norm(new.a)
        # An eigenvalue near the unit circle changes h little but for many steps: stop only where changes decrease fast.
        slow = (gap > enough) | (size > 0.01) | (gap > 0.05 * before)
        return (new, steps + 1, gap), slow & (gap > eps / 4) & xp.isfinite(gap)

    pencil, steps, _ = backend.loop(step, (start(), 0 * one, math.inf * one), 4 - round(math.log2(eps)))
    return pencil, steps


# With this many doubling steps the spectrum is so wide, or so near the axis, that the sign iteration may be more accurate.
_SLOW = 18


class ClosedLoopSolution(NamedTuple):
    """x of a Lyapunov or Stein equation with a closed loop (a tuple for several right-hand sides), whether the loop is stable,
    and in how many doublings of a time of about 1/‖a‖ its response decays.
    """

    x: Any
    stable: Array
    doublings: Array

    def only(self) -> ClosedLoopSolution:
        """The solution for a single right-hand side."""
        return self._replace(x=self.x[0])


def closed_loop_stein(backend: Backend, a: Array, q: Array) -> ClosedLoopSolution:
    """x with a x aᴴ - x + q = 0, by Smith's iteration."""
    return closed_steins(backend, a, q).only()


def closed_steins(backend: Backend, a: Array, *qs: Array) -> ClosedLoopSolution:
    """The same for several q."""
    return _closed_loop_solution(smith_each(backend, a, lambda: (a, *qs)))


def _closed_loop_solution(smith_sum: SmithSum) -> ClosedLoopSolution:
    return ClosedLoopSolution(smith_sum.x, smith_sum.converged, smith_sum.steps)


def closed_loop_lyapunov(backend: Backend, a: Array, q: Array) -> ClosedLoopSolution:
    """x with a x + x aᴴ + q = 0.

    By the Cayley transform and Smith's iteration; where that is slow also by the sign, and the better result is returned.
    """
    return closed_lyapunovs(backend, a, q).only()


def closed_lyapunovs(backend: Backend, a: Array, *qs: Array) -> ClosedLoopSolution:
    """The same for several q."""
    xp, n, shifts = backend.xp, a.shape[-1], []

    def start() -> tuple[Array, ...]:
        c, m, p = cayley(backend, a)
        shifts.append(p)
        return c, *(broadcast_scalar(2 * p) * (m @ q @ adjoint(m)) for q in qs)

    result = _closed_loop_solution(smith_each(backend, a, start))
    slow = ~result.stable | (result.doublings > _SLOW)
    # Smith's steps double the time 1/p, which is far above 1/‖a‖ where a is highly nonnormal.
    longer = xp.log2(0.5 / math.sqrt(n) * backend.norm(a) / shifts[0])
    result = result._replace(doublings=result.doublings + xp.where(longer > 0, longer, 0 * longer))

    def with_sign(a: Array, result: ClosedLoopSolution, *qs: Array) -> ClosedLoopSolution:
        signs, ys = zip(*(lyapunov_by_sign(backend, a, -q) for q in qs), strict=True)
        sign = signs[0]
        right = trace(backend, sign.value.a).real + n
        sign_ok = (sign.defect < NEAR_SIGN) & (xp.abs(right) < 0.5)

        def better(q: Array, x: Array, y: Array) -> Array:
            gains = (sign_ok & ~result.stable) | (
                (sign_ok == result.stable) & (_lyapunov_gap(backend, a, q, y) < _lyapunov_gap(backend, a, q, x))
            )
            return xp.where(broadcast_scalar(gains), y, x)

        xs = tuple(better(*each) for each in zip(qs, result.x, ys, strict=True))
        return ClosedLoopSolution(xs, result.stable | sign_ok, result.doublings)

    return backend.rare_cond(slow, with_sign, lambda a, result, *qs: result, a, result, *qs)


def _lyapunov_gap(backend: Backend, a: Array, q: Array, x: Array) -> Array:
    half = a @ x
    return backend.norm(half + adjoint(half) + q)


def nonsymmetric_doubling(backend: Backend, a: Array, d: Array, b: Array, c: Array) -> tuple[Array, Array]:
    """(x, steps) with x c x - x d - a x + b = 0 and a - x c, d - c x positive stable (Guo, Lin & Xu 2006).

    For an M-matrix [[d, -c], [-b, a]] every step adds only nonnegative numbers, if γ is at least its largest diagonal entry.
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
        change = fw @ h @ e
        new = h + change
        gap = backend.norm(change) / safe_divisor(backend, backend.norm(new))
        active = (gap > eps / 4) & xp.isfinite(gap)
        return (ew @ e, fw @ f, g + ew @ g @ f, new, steps + 1), active

    start = (plus_identity(backend, 1.0, -2 * gamma * v), plus_identity(backend, 1.0, -2 * gamma * w), g, h, 0 * one)
    *_, h, steps = backend.loop(step, start, 4 - round(math.log2(eps)))
    return h, steps
