"""Squared Smith iteration: x = Σ cᵏ q (cᵏ)ᴴ by doubling the number of terms, with three products a step and no inverse.

The sum solves x - c x cᴴ = q and converges where every eigenvalue of c lies inside the unit circle. The Cayley transform
brings a x + x aᴴ = q into this form with one inverse: with m = (a - p I)⁻¹ and c = I + 2p m, x - c x cᴴ = -2p m q mᴴ. It maps
the left half plane to the inside of the circle, and squaring c corresponds to a Newton step for the sign of a (R. A. Smith
1968; Davison & Man 1968). The Sylvester equation a x + x b = q has two transforms, and the sum Σ cᵏ q dᵏ.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.linalg.stacks import adjoint, broadcast_scalar, broadcast_to_rank, plus_identity, trace


class SmithSum(NamedTuple):
    """The sum, the number of steps, whether the powers of c vanished soon enough to be reliable, and the growth.

    The growth is an estimate from above of how much larger than its right-hand side a sum can be, Σ ‖cᵏ‖ ‖dᵏ‖ with each k
    rounded down to a power of two. Its reciprocal is a lower bound on the separation.
    """

    x: Array
    steps: Array
    converged: Array
    growth: Array


class Cayley(NamedTuple):
    """c = I + 2p m and m = (a - p I)⁻¹; p is one number per member."""

    c: Array
    m: Array
    p: Array


def limits(backend: Backend, c: Array) -> tuple[float, float, int]:
    """(small, large, steps): norms at which the powers of c have vanished or grown too much, and the most steps.

    With ‖c‖ ≤ small the terms after the next are below rounding. Above `large` less than half of the digits is left. An
    eigenvalue that takes more steps is within rounding of the unit circle.
    """
    eps = backend.eps(c)
    return (eps / 2) ** 0.25, eps**-0.5, -round(math.log2(eps)) - 4


def smith(backend: Backend, like: Array, start: Callable[[], tuple[Array, Array]]) -> SmithSum:
    """x with x - c x cᴴ = q for a c with its spectrum inside the unit circle; for any other c it does not converge.

    The (c, q) that `start` returns are freed during the iteration if the caller keeps no reference.
    """
    smith_sum = smith_each(backend, like, start)
    return smith_sum._replace(x=smith_sum.x[0])


def smith_each(backend: Backend, like: Array, start: Callable[[], tuple[Array, ...]]) -> SmithSum:
    """The same for several right-hand sides that share the powers of c: (c, *qs) from `start`, and a tuple for x."""
    small, large, limit = limits(backend, like)

    def add_terms(c: Array, xs: tuple[Array, ...]) -> tuple[Array, ...]:
        return tuple(backend.addmm(1.0, x, 1.0, c @ x, adjoint(c)) for x in xs)

    def step(state: Any) -> Any:
        c, xs, power, size, growth = state
        del state
        xs = add_terms(c, xs)
        c = c @ c
        growth = growth + power * (size * size)
        size = backend.norm(c)
        return (c, xs, power + power, size, growth), (size > small) & (size < large)

    def begin(c: Array, *xs: Array) -> Any:
        one = backend.ones(like)
        return c, xs, one, backend.norm(c), one

    c, xs, power, size, growth = backend.loop(step, begin(*start()), limit)
    # The power is 2^k after k steps in the loop, and its exponent k + 1: the last addition is a step, too.
    return SmithSum(add_terms(c, xs), backend.exponent(power), size <= small, growth + power * (size * size))


def _radius(backend: Backend, *matrices: Array) -> Array:
    """The geometric mean of the moduli of all eigenvalues; by products alone, that of √(‖a‖/‖a⁻¹‖)."""
    xp = backend.xp
    if backend.products_only(matrices[0]):
        ratios = [backend.norm(a) / backend.norm(backend.inv(a)) for a in matrices]
        return math.prod(ratios) ** (0.5 / len(ratios))
    logarithms = [backend.log_determinant(a) for a in matrices]
    return xp.exp(sum(logarithms[1:], logarithms[0]) / sum(a.shape[-1] for a in matrices))


def cayley(backend: Backend, a: Array) -> Cayley:
    """The transform of a stable `a`; p is the geometric mean of the moduli of its eigenvalues."""
    return cayley_at(backend, a, _radius(backend, a))


def cayley_at(backend: Backend, a: Array, p: Array) -> Cayley:
    """The transform for this p."""
    m = backend.inv(plus_identity(backend, broadcast_scalar(-p), a))
    return Cayley(plus_identity(backend, 1.0, broadcast_scalar(2 * p) * m), m, p)


def one_sided_lyapunov(backend: Backend, a: Array, q: Array) -> SmithSum:
    """x with a x + x aᴴ = q for an `a` with its spectrum on one side of the imaginary axis."""
    one = backend.ones(q)
    side = backend.xp.where(trace(backend, a).real <= 0, one, -one)
    size = []

    def start() -> tuple[Array, Array]:
        c, m, p = cayley(backend, broadcast_scalar(side) * a)
        norm_m = backend.norm(m)
        size.append(2 * p * (norm_m * norm_m))
        return c, broadcast_scalar(-2 * side * p) * (m @ q @ adjoint(m))

    smith_sum = smith(backend, q, start)
    return smith_sum._replace(growth=smith_sum.growth * size[0])


def two_sided_sylvester(backend: Backend, a: Array, b: Array, q: Array, limit: int = 0) -> SmithSum:
    """x with a x + x b = q for right-hand sides (B, k, n, m), where a circle about a point of the right half plane separates
    the spectrum of a from that of -b.

    There is one if a has its spectrum in the right half plane and -b in the left.
    """
    same = b is a
    small, large, most = limits(backend, a)
    p = _radius(backend, a) if same else _radius(backend, a, b)

    def term(x: Array, c: Array, d: Array) -> Array:
        return c[..., None, :, :] @ x @ d[..., None, :, :]

    def step(state: Any) -> Any:
        x, c, d, power, size, growth = state
        del state
        x = x + term(x, c, d)
        c = c @ c
        d = c if same else d @ d
        growth = growth + power * size
        size = backend.norm(c) * backend.norm(d)
        return (x, c, d, power + power, size, growth), (size > small**2) & (size < large**2)

    first = []

    def start() -> Any:
        u = backend.inv(plus_identity(backend, broadcast_scalar(p), a))
        v = u if same else backend.inv(plus_identity(backend, broadcast_scalar(p), b))
        first.append(2 * p * backend.norm(u) * backend.norm(v))
        x = broadcast_to_rank(2 * p, q) * term(q, u, v)
        c = plus_identity(backend, 1.0, broadcast_scalar(-2 * p) * u)
        d = c if same else plus_identity(backend, 1.0, broadcast_scalar(-2 * p) * v)
        one = backend.ones(a)
        return x, c, d, one, backend.norm(c) * backend.norm(d), one

    x, c, d, power, size, growth = backend.loop(step, start(), limit or most)
    growth = first[0] * (growth + power * size)
    return SmithSum(x + term(x, c, d), backend.exponent(power), size <= small**2, growth)


def two_sided_stein(backend: Backend, c: Array, d: Array, q: Array) -> SmithSum:
    """x with x - c x d = q for right-hand sides (B, k, n, m), where every product of an eigenvalue of c and one of d is inside
    the unit circle.

    A step of the loop doubles twice, then moves the norm of the power of d to that of c: one alone may vanish or overflow
    while their product is moderate. The growth rounds each k down to a power of four.
    """
    small, large, most = limits(backend, c)
    tiny = float(backend.xp.finfo(c.real.dtype).smallest_normal)

    def add_terms(x: Array, c: Array, d: Array) -> Array:
        return x + (c[..., None, :, :] @ x) @ d[..., None, :, :]

    def move_norm(c: Array, d: Array) -> tuple[Array, Array, Array]:
        size = broadcast_scalar(backend.norm(d) + tiny)
        c = c * size
        return c, d / size, backend.norm(c)

    def step(state: Any) -> Any:
        x, c, d, power, size, growth = state
        del state
        x = add_terms(x, c, d)
        c, d = c @ c, d @ d
        x = add_terms(x, c, d)
        growth = growth + 3 * power * size
        c, d, size = move_norm(c @ c, d @ d)
        return (x, c, d, 4 * power, size, growth), (size > small**2) & (size < large**2)

    def begin() -> Any:
        one = backend.ones(c)
        first, second, size = move_norm(c, d)
        return q, first, second, one, size, one

    x, c, d, power, size, growth = backend.loop(step, begin(), most // 2)
    return SmithSum(add_terms(x, c, d), backend.exponent(power), size <= small**2, growth + power * size)
