"""Several right-hand sides of one large equation, and its separation, from the powers of a single sum.

With the powers c, c², c⁴, … that `iterations.smith` needs for one right-hand side, the sum Σ cᵏ (s u q v) dᵏ for another costs
two products a step, a fraction of a Schur form; so does the adjoint equation, with the adjoint powers. This serves the
certificates of large matrices, one member at a time, and not in a traced program.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.iterations.separating_line import shift_to_line
from matsign.iterations.smith import cayley, limits
from matsign.linalg.separation import may_be_singular
from matsign.linalg.stacks import adjoint, broadcast_scalar, plus_identity, trace

# Up to this size a Schur form costs no more.
SMALL = 64

# Equations that need more steps are left to Schur vectors, as in the solvers.
_MAX_STEPS = 12


class PowerSums(NamedTuple):
    """x = Σ cᵏ (scale u q v) dᵏ, with the powers 1, 2, 4, … of c and d; None for u and v is the identity.

    `growth` is that of `SmithSum`, infinite where the sum does not converge.
    """

    left: list[Array]
    right: list[Array]
    u: Array | None
    v: Array | None
    scale: Array
    growth: Array

    def solve(self, backend: Backend, q: Array) -> Array:
        """The solution for q."""
        x = self.scale * (q if self.u is None else self.u @ q @ self.v)
        for c, d in zip(self.left, self.right, strict=True):
            x = backend.addmm(1.0, x, 1.0, c @ x, d)
        return x

    def adjoint_solve(self, backend: Backend, q: Array) -> Array:
        """The solution of the adjoint equation for q."""
        y = q
        for c, d in zip(self.left, self.right, strict=True):
            y = backend.addmm(1.0, y, 1.0, adjoint(c) @ y, adjoint(d))
        return self.scale * (y if self.u is None else adjoint(self.u) @ y @ adjoint(self.v))

    def is_reliable(self, backend: Backend, limit: Array) -> bool:
        """Whether the sum converges and the separation of its equation is surely above `limit`."""
        return len(self.left) <= _MAX_STEPS and not bool(
            may_be_singular(backend, 1 / self.growth, self.left[0], limit)[0]
        )

    def responses(self, backend: Backend, rights: Array, least: Array | None) -> tuple[Array, Array]:
        """(solutions, separation) for right-hand sides (1, k, n, m); the last one should be partly random.

        The separation is estimated from above, by the norm of the last right-hand side over that of its solution and by `least`,
        an earlier estimate, or without one by the adjoint equation with this solution on the right.
        """
        solved = [self.solve(backend, rights[:, k]) for k in range(rights.shape[1])]
        size = backend.norm(solved[-1])
        if least is None:
            least = 1 / backend.norm(self.adjoint_solve(backend, solved[-1] / broadcast_scalar(size)))
        least = backend.xp.minimum(backend.norm(rights[:, -1]) / size, least)
        return backend.xp.stack(solved, axis=1), backend.xp.where(backend.xp.isfinite(least), least, 0 * size)


def lyapunov(backend: Backend, a: Array) -> PowerSums:
    """For a x + x aᴴ = q with the spectrum of a on one side of the imaginary axis."""
    side = backend.xp.where(trace(backend, a).real <= 0, backend.ones(a), -backend.ones(a))
    c, m, p = cayley(backend, broadcast_scalar(side) * a)
    return congruence_sums(backend, c, m, broadcast_scalar(-2 * side * p))


def stein(backend: Backend, a: Array, d: Array) -> PowerSums:
    """For a x aᴴ - d x + q = 0 with the spectrum of a inside the circle of radius √d, or outside."""
    root = broadcast_scalar(backend.xp.sqrt(d))
    if bool((backend.log_determinant(a) > a.shape[-1] * backend.xp.log(d) / 2)[0]):
        m = backend.inv(a)
        return congruence_sums(backend, root * m, m, -broadcast_scalar(backend.ones(a)))
    return congruence_sums(backend, a / root, None, 1 / broadcast_scalar(d))


def sylvester(backend: Backend, a: Array, b: Array) -> PowerSums:
    """For a x + x b = q where the vertical line halfway between the means separates the spectra of a and -b."""
    a, b, side = shift_to_line(backend, a, b)
    p = broadcast_scalar(
        backend.xp.exp((backend.log_determinant(a) + backend.log_determinant(b)) / (a.shape[-1] + b.shape[-1]))
    )
    u, v = backend.inv(plus_identity(backend, p, a)), backend.inv(plus_identity(backend, p, b))
    c, d = plus_identity(backend, 1.0, -2 * p * u), plus_identity(backend, 1.0, -2 * p * v)
    return _powers(backend, c, d, u, v, 2 * broadcast_scalar(side) * p)


def congruence_sums(
    backend: Backend, c: Array, m: Array | None, scale: Array, max_steps: int = _MAX_STEPS
) -> PowerSums:
    """For x - c x cᴴ = scale m q mᴴ; m is the identity if None."""
    sums = _powers(backend, c, None, m, None if m is None else adjoint(m), scale, max_steps)
    return sums._replace(right=[adjoint(c) for c in sums.left])


def _powers(
    backend: Backend,
    c: Array,
    d: Array | None,
    u: Array | None,
    v: Array | None,
    scale: Array,
    max_steps: int = _MAX_STEPS,
) -> PowerSums:
    """The powers, up to the `limits` of `iterations.smith`; d is None for the adjoint of c."""
    small, large, _ = limits(backend, c)
    left, right = [c], [] if d is None else [d]
    size = backend.norm(c) * backend.norm(c if d is None else d)
    growth = 1 + size
    while len(left) <= max_steps and bool(((size > small**2) & (size < large**2))[0]):
        c = c @ c
        left.append(c)
        if d is not None:
            d = d @ d
            right.append(d)
        size = backend.norm(c) * backend.norm(c if d is None else d)
        growth = growth + 2.0 ** (len(left) - 1) * size
    growth = growth * backend.xp.abs(scale[:, 0, 0])
    if u is not None:
        growth = growth * backend.norm(u) * backend.norm(v)
    return PowerSums(left, right, u, v, scale, backend.xp.where(size <= small**2, growth, math.inf + 0 * growth))
