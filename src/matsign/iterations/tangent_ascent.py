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
# M may have full rank if the ratio of its singular values is above this; a Newton step of X longer than this is not taken.
_FULL_RANK, _LONG = 1e-12, 1e-3
# Elsewhere the step is centred for this μ relative to the mean of the singular values, to this decrement: the derivative has then
# about the error μ, and rounding errors of eps / μ.
_MU, _MU_SINGLE, _DECREMENT = 1e-8, 1e-4, 1e-4
# The most Newton steps of either kind.
_NEWTON, _CENTRINGS = 6, 12


class Map(Protocol):
    """A self-adjoint map of matrices, positive semidefinite, in the singular vectors of M."""

    @property
    def vh(self) -> Array:
        """Vᴴ."""

    @property
    def height(self) -> Array:
        """About the inverse of its size at each singular value."""

    def apply(self, dm: Array) -> Array:
        """The image of dM."""


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

    def apply(self, dm: Array) -> Array:
        """The derivative of A along dM."""
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

    def precondition(self, backend: Backend, at: Map, r: Array) -> Array:
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

    def precondition(self, backend: Backend, at: Map, r: Array) -> Array:
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

    def precondition(self, backend: Backend, at: Map, r: Array) -> Array:
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


def sharpen(backend: Backend, found: Ascent) -> Ascent:
    """The step at the multiplier for a μ of about 0, where its gap is smaller."""
    end, _ = _at_full_rank(backend, found)
    at = central(backend, found.g + found.normals.lift(end.x), end.mu)
    step = _feasible(backend, found.normals, at.step())
    gap = _relative_gap(backend, at, found.g, step)
    better = gap < found.gap
    return found._replace(
        step=backend.xp.where(broadcast_scalar(better), step, found.step), gap=backend.xp.where(better, gap, found.gap)
    )


def _relative_gap(backend: Backend, at: Central, g: Array, step: Array) -> Array:
    bound = backend.xp.sum(at.values, axis=-1)
    return backend.xp.maximum(bound - inner(backend, g, step), 0 * bound) / safe_divisor(backend, bound)


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
    at = central(backend, state.g + normals.lift(state.x), mu)
    slope = normals.restrict(backend, at.step())
    move = solve_normals(backend, normals, at, -slope)
    decrement = xp.sqrt(xp.maximum(-inner(backend, slope, move), 0 * mu) / mu)
    step = _feasible(backend, normals, at.step() + at.apply(normals.lift(move)))
    gap = _relative_gap(backend, at, state.g, step)
    better = gap < state.gap
    centred = decrement < _CENTRED
    along = normals.restrict(backend, at.by_barrier(mu)) * backend.astype(
        broadcast_scalar(centred), backend.dtype_name(slope)
    )
    path = solve_normals(backend, normals, at, -along)
    shrink = xp.where(decrement < 1e-2, xp.maximum(_SHRINK * xp.sqrt(decrement), 0 * mu + _SHRINK_MOST), _SHRINK)
    length = xp.where(centred, 0 * mu + 1, 1 / (1 + decrement))
    state = state._replace(
        x=state.x + broadcast_scalar(length) * move + broadcast_scalar(shrink - 1) * path,
        mu=xp.where(centred, shrink * mu, mu),
        step=xp.where(broadcast_scalar(better), step, state.step),
        gap=xp.where(better, gap, state.gap),
        count=state.count + 1,
    )
    return state, (state.gap > tol) & (state.mu > 1e-2 * backend.eps(step) * xp.sum(at.values, axis=-1))


class Centring(NamedTuple):
    """The multiplier X at one μ, and the members that it is still searched for."""

    normals: Any
    g: Array
    x: Array
    mu: Array
    searched: Array


def centre(backend: Backend, found: Ascent) -> tuple[Array, Array]:
    """(x, μ) where x is the multiplier for this μ to working precision: μ is about 0 where `_at_full_rank` finds one."""
    at_zero, sharp = _at_full_rank(backend, found)
    rough = (_MU if backend.eps(found.g) < 1e-10 else _MU_SINGLE) / (1e-3 * backend.eps(found.g))
    state = at_zero._replace(
        x=backend.xp.where(broadcast_scalar(sharp), at_zero.x, found.x),
        mu=backend.xp.where(sharp, at_zero.mu, rough * at_zero.mu),
        searched=~sharp,
    )
    end: Centring = backend.loop(lambda state: _centre_further(backend, state), state, _CENTRINGS)
    return end.x, end.mu


def _at_full_rank(backend: Backend, found: Ascent) -> tuple[Centring, Array]:
    """The multiplier for a μ of about 0, and the members where it is one: M = G + L(X) has full rank there.

    There the step is the msign of M, and Newton's steps for Lᴴ(msign(G + L(X))) = 0 converge from nearby, unless several X have
    the same step.
    """
    values = backend.svd(found.g + found.normals.lift(found.x))[1]
    size = safe_divisor(backend, backend.xp.sum(values, axis=-1) / values.shape[-1])
    full = values[:, -1] > _FULL_RANK * values[:, 0]
    state = Centring(found.normals, found.g, found.x, 1e-3 * backend.eps(found.g) * size, full)
    end: Centring = backend.loop(lambda state: _newton_at_zero(backend, state), state, _NEWTON)
    slope = _slope(backend, end, central(backend, end.g + end.normals.lift(end.x), end.mu))
    return end, full & (backend.norm(slope) == 0)


def _newton_at_zero(backend: Backend, state: Centring) -> tuple[Centring, Array]:
    """One Newton step at a μ of about 0; a long one is a sign of a singular equation, and not taken."""
    at = central(backend, state.g + state.normals.lift(state.x), state.mu)
    move = solve_normals(backend, state.normals, at, -_slope(backend, state, at))
    searched = state.searched & (backend.norm(move) < _LONG * at.values[:, 0])
    x = state.x + backend.xp.where(broadcast_scalar(searched), move, 0 * move)
    return state._replace(x=x, searched=searched), searched & (backend.norm(move) > 0)


def _centre_further(backend: Backend, state: Centring) -> tuple[Centring, Array]:
    """One Newton step at this μ, damped where the barrier needs it."""
    at = central(backend, state.g + state.normals.lift(state.x), state.mu)
    slope = _slope(backend, state, at)
    move = solve_normals(backend, state.normals, at, -slope)
    decrement = backend.xp.sqrt(backend.xp.maximum(-inner(backend, slope, move), 0 * state.mu) / state.mu)
    length = backend.xp.where(decrement < _CENTRED, 1 + 0 * decrement, 1 / (1 + decrement))
    step = backend.xp.where(broadcast_scalar(state.searched), broadcast_scalar(length) * move, 0 * move)
    return state._replace(x=state.x + step), state.searched & (decrement > _DECREMENT)


def _slope(backend: Backend, state: Centring, at: Central) -> Array:
    """Lᴴ(A); 0 where it is rounding, since Newton's equation may be singular."""
    slope = state.normals.restrict(backend, at.step())
    rounding = ~(backend.norm(slope) > 8 * at.values.shape[-1] * backend.eps(slope))
    return backend.xp.where(broadcast_scalar(rounding), 0 * slope, slope)


def central(backend: Backend, m: Array, mu: Array) -> Central:
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
    at: Map
    x: Array
    residual: Array
    direction: Array
    size: Array
    first: Array


def solve_normals(backend: Backend, normals: Any, at: Map, r: Array) -> Array:
    """X with Lᴴ(derivative of A along L(X)) = R, by conjugate gradients."""
    z = normals.precondition(backend, at, r)
    size = inner(backend, r, z)
    state = _Gradients(normals, at, 0 * r, r, z, size, size)
    limit = min(_GRADIENTS, 20 + 4 * r.shape[-1] ** 2)
    found: _Gradients = backend.loop(lambda state: _next_gradient(backend, state), state, limit)
    return found.x


def _next_gradient(backend: Backend, state: _Gradients) -> tuple[_Gradients, Array]:
    normals, at, p = state.normals, state.at, state.direction
    product = normals.restrict(backend, at.apply(normals.lift(p)))
    curvature = inner(backend, p, product)
    length = backend.xp.where(curvature > 0, state.size / safe_divisor(backend, curvature), 0 * curvature)
    residual = state.residual - broadcast_scalar(length) * product
    z = normals.precondition(backend, at, residual)
    size = inner(backend, residual, z)
    direction = z + broadcast_scalar(size / safe_divisor(backend, state.size)) * p
    state = state._replace(x=state.x + broadcast_scalar(length) * p, residual=residual, direction=direction, size=size)
    return state, (curvature > 0) & (size > _RESIDUAL * state.first)
