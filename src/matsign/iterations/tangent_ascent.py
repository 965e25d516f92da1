"""Steepest ascent under the spectral norm along a tangent space, to a stated duality gap.

For a matrix G (n × m, n ≥ m), and normals L(X) of a manifold with the multiplier X, the step A solves

    max Re tr(GᴴA)    with ‖A‖₂ ≤ 1 and Lᴴ(A) = 0,        and its dual is    min ‖G + L(X)‖_*  over X,

where ‖·‖_* is the sum of the singular values. Every X gives an upper bound, every feasible A a lower one; their difference is the
duality gap. The dual is not smooth where G + L(X) loses rank. With the barrier -log det(I - AᴴA) it becomes

    min Σ φ(σ),    φ'(σ) = σ / (μ + √(μ² + σ²)),    σ the singular values of M = G + L(X),

and A = U φ'(S) Vᴴ for M = U S Vᴴ is feasible at the minimum, where the gap is at most m μ. The barrier is self-concordant, and
so is its conjugate φ: Newton's method with steps of length 1 / (1 + λ) converges from anywhere, for the decrement λ, and where
λ < 1, the Newton step of A is feasible, too. So each step has a certificate, whatever the rank of M.

The coefficients of the derivative of U φ'(S) Vᴴ are the divided differences of φ', here without cancellation: with
r = √(μ² + σ²), c = √(μ + r), s = σ / c and p = cᵢcⱼ + sᵢsⱼ they are

    2μ / (cᵢcⱼ p)  for the Hermitian part of UᴴdM V,        p / (cᵢcⱼ (rᵢ + rⱼ))  for the skew-Hermitian one.

Newton's equation is solved by conjugate gradients. On the Stiefel manifold their preconditioner is a Lyapunov equation with the
matrix H = V (μ + √(μ² + S²)) Vᴴ. A fixed-point iteration with that equation alone is Su's (2025b). Sources: Nesterov &
Nemirovskii 1994, Bernstein 2025, Su 2025b.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from matsign._typing import Array
from matsign.backends import Backend
from matsign.linalg.stacks import adjoint, broadcast_scalar, hermitian, inner, safe_divisor

# With a decrement below this, μ is reduced.
_CENTRED = 0.25
# By at most this factor where the path to the solution is bent, and by the other one where it is straight.
_SHRINK, _SHRINK_MOST = 0.1, 1e-3
# Newton steps, and conjugate gradients in each (a graded G of 40 columns takes some hundreds, and with fewer more Newton steps);
# the residual of these relative to the first one, squared.
_STEPS, _GRADIENTS, _RESIDUAL = 80, 1000, 1e-12


class Central(NamedTuple):
    """M = U S Vᴴ with the coefficients of φ' and of its derivative at one μ."""

    u: Array
    values: Array
    vh: Array
    root: Array  # √(μ² + σ²)
    height: Array  # μ + √(μ² + σ²)
    even: Array
    odd: Array

    @property
    def sizes(self) -> Array:
        """The singular values of A."""
        return self.values / self.height

    def step(self) -> Array:
        """A = U φ'(S) Vᴴ."""
        return (self.u * self.sizes[:, None, :]) @ self.vh

    def derivative(self, dm: Array) -> Array:
        """That of A along dM."""
        right = dm @ adjoint(self.vh)
        d = adjoint(self.u) @ right
        even = hermitian(d)
        within = self.even * even + self.odd * (d - even)
        return (self.u @ (within - d / self.height[:, None, :]) + right / self.height[:, None, :]) @ self.vh

    def by_barrier(self, mu: Array) -> Array:
        """The derivative of A by log μ."""
        return (self.u * (-mu[:, None] * self.sizes / self.root)[:, None, :]) @ self.vh


class Normals(Protocol):
    """The normals L(X) of a manifold at a point."""

    def lift(self, x: Array) -> Array:
        """L(X)."""

    def restrict(self, backend: Backend, a: Array) -> Array:
        """Lᴴ(A), which is zero for tangents."""

    def start(self, backend: Backend, g: Array) -> Array:
        """The multiplier with which G + L(X) is the tangent nearest to G."""

    def precondition(self, backend: Backend, at: Central, r: Array) -> Array:
        """A simple inverse of X ↦ Lᴴ(derivative of A along L(X))."""


class StiefelNormals(NamedTuple):
    """W X with Hermitian X, at W with orthonormal columns."""

    w: Array

    def lift(self, x: Array) -> Array:
        return self.w @ x

    def restrict(self, backend: Backend, a: Array) -> Array:
        return hermitian(adjoint(self.w) @ a)

    def start(self, backend: Backend, g: Array) -> Array:
        return -hermitian(adjoint(self.w) @ g)

    def precondition(self, backend: Backend, at: Central, r: Array) -> Array:
        """X with H⁻¹ X + X H⁻¹ = 2 R, a Lyapunov equation, in the eigenvectors V of H."""
        sums = 1 / at.height[:, :, None] + 1 / at.height[:, None, :]
        return adjoint(at.vh) @ (2 * (at.vh @ r @ adjoint(at.vh)) / sums) @ at.vh


class SphereNormals(NamedTuple):
    """x Θ with a real number x, the one entry of a matrix."""

    theta: Array

    def lift(self, x: Array) -> Array:
        return x * self.theta

    def restrict(self, backend: Backend, a: Array) -> Array:
        return backend.astype(broadcast_scalar(inner(backend, self.theta, a)), backend.dtype_name(a))

    def start(self, backend: Backend, g: Array) -> Array:
        return -self.restrict(backend, g) / self.restrict(backend, self.theta)

    def precondition(self, backend: Backend, at: Central, r: Array) -> Array:
        return r


class Ascent(NamedTuple):
    """The iterate: the multiplier x at the barrier μ, and the best feasible step yet with its relative gap."""

    normals: Any
    g: Array
    x: Array
    mu: Array
    step: Array
    gap: Array
    count: Array


def tangent_part(backend: Backend, normals: Any, a: Array) -> Array:
    """The tangent nearest to A."""
    return a + normals.lift(normals.start(backend, a))


def ascend(backend: Backend, normals: Any, g: Array, tol: float) -> Ascent:
    """The step for these normals and a tangent G, to the relative gap `tol`; for G = 0 the step 0, with the gap 0."""
    size = backend.norm(g)
    x = normals.start(backend, g)
    mu = safe_divisor(backend, size / g.shape[-1] ** 0.5)
    state = Ascent(normals, g, x, mu, 0 * g, 1 + 0 * size, 0 * size)
    found: Ascent = backend.loop(lambda state: _advance(backend, state, tol), state, _STEPS)
    return found


def _advance(backend: Backend, state: Ascent, tol: float) -> tuple[Ascent, Array]:
    """One Newton step for X, which also reduces μ if X is near the minimum for the present μ."""
    xp, normals, mu = backend.xp, state.normals, state.mu
    at = _central(backend, state.g + normals.lift(state.x), mu)
    slope = normals.restrict(backend, at.step())
    move = _newton_step(backend, normals, at, -slope)
    decrement = xp.sqrt(xp.maximum(-inner(backend, slope, move), 0 * mu) / mu)
    step = _feasible(backend, normals, at.step() + at.derivative(normals.lift(move)))
    bound = xp.sum(at.values, axis=-1)
    gap = xp.maximum(bound - inner(backend, state.g, step), 0 * bound) / safe_divisor(backend, bound)
    better = gap < state.gap
    centred = decrement < _CENTRED
    along = normals.restrict(backend, at.by_barrier(mu)) * backend.astype(
        broadcast_scalar(centred), backend.dtype_name(slope)
    )
    path = _newton_step(backend, normals, at, -along)
    shrink = xp.where(decrement < 1e-2, xp.maximum(_SHRINK * xp.sqrt(decrement), 0 * mu + _SHRINK_MOST), _SHRINK)
    length = xp.where(centred, 0 * mu + 1, 1 / (1 + decrement))
    state = state._replace(
        x=state.x + broadcast_scalar(length) * move + broadcast_scalar(shrink - 1) * path,
        mu=xp.where(centred, shrink * mu, mu),
        step=xp.where(broadcast_scalar(better), step, state.step),
        gap=xp.where(better, gap, state.gap),
        count=state.count + 1,
    )
    return state, (state.gap > tol) & (state.mu > 1e-2 * backend.eps(step) * bound)


def _central(backend: Backend, m: Array, mu: Array) -> Central:
    xp = backend.xp
    u, values, vh = backend.svd(m)
    mu = mu[:, None]
    root = xp.sqrt(mu**2 + values**2)
    height = mu + root
    c = xp.sqrt(height)
    s = values / c
    cc = c[:, :, None] * c[:, None, :]
    p = cc + s[:, :, None] * s[:, None, :]
    even, odd = 2 * mu[:, :, None] / (cc * p), p / (cc * (root[:, :, None] + root[:, None, :]))
    return Central(u, values, vh, root, height, even, odd)


def _feasible(backend: Backend, normals: Any, a: Array) -> Array:
    """The tangent nearest to A, divided by its spectral norm if that exceeds 1."""
    a = tangent_part(backend, normals, a)
    top = backend.svd(a)[1][:, 0]
    return a / broadcast_scalar(backend.xp.maximum(top, 0 * top + 1))


class _Gradients(NamedTuple):
    normals: Any
    at: Central
    x: Array
    residual: Array
    direction: Array
    size: Array
    first: Array


def _newton_step(backend: Backend, normals: Any, at: Central, r: Array) -> Array:
    """X with Lᴴ(derivative of A along L(X)) = R, by conjugate gradients."""
    z = normals.precondition(backend, at, r)
    size = inner(backend, r, z)
    state = _Gradients(normals, at, 0 * r, r, z, size, size)
    limit = min(_GRADIENTS, 20 + 4 * r.shape[-1] ** 2)
    found: _Gradients = backend.loop(lambda state: _next_gradient(backend, state), state, limit)
    return found.x


def _next_gradient(backend: Backend, state: _Gradients) -> tuple[_Gradients, Array]:
    normals, at, p = state.normals, state.at, state.direction
    product = normals.restrict(backend, at.derivative(normals.lift(p)))
    curvature = inner(backend, p, product)
    length = backend.xp.where(curvature > 0, state.size / safe_divisor(backend, curvature), 0 * curvature)
    residual = state.residual - broadcast_scalar(length) * product
    z = normals.precondition(backend, at, residual)
    size = inner(backend, residual, z)
    direction = z + broadcast_scalar(size / safe_divisor(backend, state.size)) * p
    state = state._replace(x=state.x + broadcast_scalar(length) * p, residual=residual, direction=direction, size=size)
    return state, (curvature > 0) & (size > _RESIDUAL * state.first)
