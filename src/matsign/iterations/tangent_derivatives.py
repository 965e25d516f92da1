"""The derivative of a step of steepest ascent along a tangent space (`tangent_ascent`), by the implicit function theorem.

With M = G + L(X) and the derivative D of M ↦ A = U φ'(S) Vᴴ, a change E of M at a fixed multiplier and a change C of the
constraint Lᴴ(A) = 0 give

    dA = D[E + L(dX)],        (Lᴴ D L) dX = -(Lᴴ D[E] + C),

by conjugate gradients. D is self-adjoint, and so is E ↦ dA for C = 0.

Where M has full rank, D is the derivative of msign. Where it has not, D has coefficients of about 1/μ in the kernel, the block
(I - U₁U₁ᴴ) · V₂V₂ᴴ for the singular values that vanish with μ: dX makes this part of E + L(dX) small. What no dX can make small
is a change that prefers one of several best steps. The step jumps there and has no derivative along it; that part of E is left
out.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.iterations.tangent_ascent import Ascent, Central, Map, central, centre, solve_normals
from matsign.linalg.stacks import adjoint, broadcast_scalar

# Each solution by conjugate gradients is corrected at most this often, if its relative residual exceeds the other number.
_CORRECTIONS, _ROUNDING = 2, 1e-12
# Singular values of M below this times μ are those of the kernel: there A has singular values that are not 1.
_INSIDE = 1e3


class Kernel(NamedTuple):
    """The projection on the block of M that vanishes with μ."""

    u: Array
    vh: Array
    small: Array  # 1 for the singular values that vanish, 0 for others

    @property
    def height(self) -> Array:
        return 1 + 0 * self.small

    def apply(self, dm: Array) -> Array:
        right = dm @ adjoint(self.vh) * self.small[:, None, :]
        large = self.u * (1 - self.small)[:, None, :]
        return (right - large @ (adjoint(large) @ right)) @ self.vh


class Sensitivity(NamedTuple):
    """What the derivative at one point needs: the multiplier X, D, the projection on the kernel, and whether G = 0."""

    normals: Any
    x: Array
    slope: Central
    kernel: Kernel
    at_rest: Array


def sensitivity(backend: Backend, found: Ascent) -> Sensitivity:
    """At the solution that `found` is near."""
    x, mu = centre(backend, found)
    at = central(backend, found.g + found.normals.lift(x), mu)
    small = at.values <= _INSIDE * mu[:, None]
    kernel = Kernel(at.u, at.vh, backend.astype(small, backend.dtype_name(at.values)))
    return Sensitivity(found.normals, x, at, kernel, backend.norm(found.g) == 0)


def response(backend: Backend, at: Sensitivity, e: Array, c: Array) -> tuple[Array, Array]:
    """(dA, dX) for the changes E of M and C of the constraint; 0 where G = 0."""
    e, c = (backend.xp.where(broadcast_scalar(at.at_rest), 0 * x, x) for x in (e - jump(backend, at, e), c))
    dx = _solve(backend, at.normals, at.slope, -(at.normals.restrict(backend, at.slope.apply(e)) + c))
    return at.slope.apply(e + at.normals.lift(dx)), dx


def jump(backend: Backend, at: Sensitivity, e: Array) -> Array:
    """The part of a change E along which the step has no derivative."""
    inside = at.kernel.apply(e)
    x = _solve(backend, at.normals, at.kernel, -at.normals.restrict(backend, inside))
    return inside + at.kernel.apply(at.normals.lift(x))


def _solve(backend: Backend, normals: Any, at: Map, r: Array) -> Array:
    """X with Lᴴ(map of L(X)) = R, corrected until the residual is rounding.

    The map may be singular on the normals, where several X have the same step. R is in its range, but rounding errors are not.
    """

    def residual(x: Array) -> Array:
        return r - normals.restrict(backend, at.apply(normals.lift(x)))

    x = solve_normals(backend, normals, at, r)
    left, limit = residual(x), _ROUNDING * backend.norm(r)
    for _ in range(_CORRECTIONS):
        large = backend.norm(left) > limit
        better = x + solve_normals(backend, normals, at, backend.xp.where(broadcast_scalar(large), left, 0 * left))
        smaller = broadcast_scalar(backend.norm(residual(better)) < backend.norm(left))
        x = backend.xp.where(smaller, better, x)
        left = residual(x)
    return x
