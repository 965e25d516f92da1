"""The block structures whose sign solves an equation, each closed under a Newton step and under an odd polynomial.

A structure is a named tuple of stacks of blocks. It stands for the matrix that `dense` assembles, for tests and pictures
only; the iterations work on the blocks. An odd function of a structure has the same structure. Its even powers have the
structure in the last column: `square` returns one of these, and `times` multiplies by one.

============  ======================  ==================================  ============================
structure     matrix                  its sign                            structure of its square
============  ======================  ==================================  ============================
Dense         M                       mcsgn(M)                            Dense
Triangular    [[A, C], [0, B]]        [[-I, 2X], [0, I]], XB - AX = C     Triangular
Lyapunov      [[A, Q], [0, -Aᴴ]]      [[-I, 2X], [0, I]], AX + XAᴴ = -Q   LyapunovSquare
AntiDiagonal  [[0, A], [B, 0]]        [[0, C], [inv C, 0]]                Dense: BA
Dilation      [[0, C], [Cᴴ, 0]]       [[0, msign C], [msign(C)ᴴ, 0]]      Dense: CᴴC or CCᴴ, the smaller
Riccati       [[A, C], [D, B]]        its graph subspaces solve Riccati   Riccati
============  ======================  ==================================  ============================
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

from matsign._typing import Array
from matsign.backends import Backend
from matsign.linalg.stacks import adjoint, assemble, broadcast_scalar, plus_identity


def _inverse(backend: Backend, a: Array, near: Array | None) -> Array:
    return backend.inv(a) if near is None else backend.inv_near(a, near)


class Dense(NamedTuple):
    """M itself."""

    m: Array

    def inverse(self, backend: Backend, near: Dense | None = None) -> Dense:
        return Dense(_inverse(backend, self.m, near and near.m))

    def square(self) -> Dense:
        return Dense(self.m @ self.m)

    def times(self, other: Dense) -> Dense:
        return Dense(self.m @ other.m)

    def plus_identity(self, backend: Backend, alpha: Any) -> Dense:
        return Dense(plus_identity(backend, alpha, self.m))

    def size(self, backend: Backend) -> Array:
        return backend.norm(self.m)

    def dense(self, backend: Backend) -> Array:
        return self.m


def _times_each_corner(c: Array, b: Array) -> Array:
    """c b, for each corner where c holds several side by side."""
    return c @ b if c.shape[-1] == b.shape[-1] else (c.reshape((len(c), -1, b.shape[-1])) @ b).reshape(c.shape)


class Triangular(NamedTuple):
    """[[a, c], [0, b]]; c may hold several corners side by side, each as wide as b."""

    a: Array
    c: Array
    b: Array

    def inverse(self, backend: Backend, near: Triangular | None = None) -> Triangular:
        a, b = _inverse(backend, self.a, near and near.a), _inverse(backend, self.b, near and near.b)
        return Triangular(a, -_times_each_corner(a @ self.c, b), b)

    def square(self) -> Triangular:
        return self.times(self)

    def times(self, other: Triangular) -> Triangular:
        return Triangular(self.a @ other.a, self.a @ other.c + _times_each_corner(self.c, other.b), self.b @ other.b)

    def plus_identity(self, backend: Backend, alpha: Any) -> Triangular:
        return Triangular(plus_identity(backend, alpha, self.a), self.c, plus_identity(backend, alpha, self.b))

    def size(self, backend: Backend) -> Array:
        # The spectrum does not depend on c, so neither does the scaling.
        return backend.xp.hypot(backend.norm(self.a), backend.norm(self.b))

    def dense(self, backend: Backend) -> Array:
        return assemble(backend, self.a, self.c, backend.xp.zeros_like(self.c.mT), self.b)


class Lyapunov(NamedTuple):
    """[[a, q], [0, -aᴴ]]: one inverse serves both blocks. For a Hermitian q the matrix is Hamiltonian."""

    a: Array
    q: Array

    def inverse(self, backend: Backend, near: Lyapunov | None = None) -> Lyapunov:
        a = _inverse(backend, self.a, near and near.a)
        return Lyapunov(a, a @ self.q @ adjoint(a))

    def square(self) -> LyapunovSquare:
        return LyapunovSquare(self.a @ self.a, self.a @ self.q - self.q @ adjoint(self.a))

    def times(self, other: LyapunovSquare) -> Lyapunov:
        # other.a is a polynomial in a, so that the two commute.
        return Lyapunov(self.a @ other.a, self.a @ other.q + self.q @ adjoint(other.a))

    def size(self, backend: Backend) -> Array:
        # As for Triangular: the spectrum does not depend on q.
        return backend.norm(self.a)

    def dense(self, backend: Backend) -> Array:
        return assemble(backend, self.a, self.q, backend.xp.zeros_like(self.q), -adjoint(self.a))


class LyapunovSquare(NamedTuple):
    """[[a, q], [0, aᴴ]], an even power of a `Lyapunov`; q is skew-Hermitian if that of the `Lyapunov` is Hermitian."""

    a: Array
    q: Array

    def square(self) -> LyapunovSquare:
        return LyapunovSquare(self.a @ self.a, self.a @ self.q + self.q @ adjoint(self.a))

    def plus_identity(self, backend: Backend, alpha: Any) -> LyapunovSquare:
        return self._replace(a=plus_identity(backend, alpha, self.a))

    def size(self, backend: Backend) -> Array:
        return backend.norm(self.a)


class AntiDiagonal(NamedTuple):
    """[[0, a], [b, 0]]."""

    a: Array
    b: Array

    def inverse(self, backend: Backend, near: AntiDiagonal | None = None) -> AntiDiagonal:
        return AntiDiagonal(_inverse(backend, self.b, near and near.a), _inverse(backend, self.a, near and near.b))

    def square(self) -> Dense:
        return Dense(self.b @ self.a)

    def times(self, other: Dense) -> AntiDiagonal:
        # p(ab) a = a p(ba): one polynomial in ba serves both blocks, and this order is numerically stable.
        return AntiDiagonal(self.a @ other.m, other.m @ self.b)

    def size(self, backend: Backend) -> Array:
        # [[0, t a], [b / t, 0]] is similar: only the product of the norms does not depend on t.
        return backend.xp.sqrt(backend.norm(self.a) * backend.norm(self.b))

    def dense(self, backend: Backend) -> Array:
        zero = backend.xp.zeros_like(self.a)
        return assemble(backend, zero, self.a, self.b, zero)


class Dilation(NamedTuple):
    """[[0, c], [cᴴ, 0]], c of any shape for `square` and `times`, square and nonsingular for `inverse`."""

    c: Array

    def inverse(self, backend: Backend, near: Dilation | None = None) -> Dilation:
        return Dilation(adjoint(_inverse(backend, self.c, near and adjoint(near.c))))

    def square(self) -> Dense:
        return Dense(adjoint(self.c) @ self.c if self._tall else self.c @ adjoint(self.c))

    def times(self, other: Dense) -> Dilation:
        return Dilation(self.c @ other.m if self._tall else other.m @ self.c)

    @property
    def _tall(self) -> bool:
        return bool(self.c.shape[-2] >= self.c.shape[-1])

    def size(self, backend: Backend) -> Array:
        return backend.norm(self.c)

    def dense(self, backend: Backend) -> Array:
        top, bottom = self.c @ adjoint(self.c), adjoint(self.c) @ self.c
        return assemble(backend, 0 * top, self.c, adjoint(self.c), 0 * bottom)


class Riccati(NamedTuple):
    """[[a, c], [d, b]], a full matrix with its partition: the blocks save no work."""

    a: Array
    c: Array
    d: Array
    b: Array

    def inverse(self, backend: Backend, near: Riccati | None = None) -> Riccati:
        # Not by Schur complements: the diagonal blocks of a solvable equation may be singular, even zero.
        return self._split_blocks(backend.inv(self.dense(backend)))

    def square(self) -> Riccati:
        return self.times(self)

    def times(self, other: Riccati) -> Riccati:
        return Riccati(
            self.a @ other.a + self.c @ other.d,
            self.a @ other.c + self.c @ other.b,
            self.d @ other.a + self.b @ other.d,
            self.d @ other.c + self.b @ other.b,
        )

    def plus_identity(self, backend: Backend, alpha: Any) -> Riccati:
        return self._replace(a=plus_identity(backend, alpha, self.a), b=plus_identity(backend, alpha, self.b))

    def size(self, backend: Backend) -> Array:
        # As for AntiDiagonal: the corners count by the product of their norms.
        corners = backend.norm(self.c) * backend.norm(self.d)
        squares = (size * size for size in (backend.norm(self.a), backend.norm(self.b)))
        return backend.xp.sqrt(sum(squares) + 2 * corners)

    def dense(self, backend: Backend) -> Array:
        return assemble(backend, self.a, self.c, self.d, self.b)

    def _split_blocks(self, m: Array) -> Riccati:
        n = self.a.shape[-1]
        return Riccati(m[..., :n, :n], m[..., :n, n:], m[..., n:, :n], m[..., n:, n:])


Structure = TypeVar("Structure", Dense, Triangular, Lyapunov, AntiDiagonal, Dilation, Riccati)


def combine(alpha: Any, x: Structure, beta: Any, y: Structure) -> Structure:
    """alpha x + beta y; alpha and beta are numbers, or one number per member."""
    unscaled = isinstance(alpha, float) and alpha == 1
    return type(x)(*((p if unscaled else alpha * p) + beta * q for p, q in zip(x, y, strict=True)))


def newton_step(backend: Backend, x: Structure, inverse: Structure, mu: Array) -> Structure:
    """½(mu x + inv(mu x)): Newton's method for x² = I at the scaled iterate."""
    mu = broadcast_scalar(mu)
    return combine(0.5 * mu, x, 0.5 / mu, inverse)


def odd_step(backend: Backend, x: Structure, a: float, b: float, c: float = 0.0) -> Structure:
    """a x + b x³ + c x⁵ by products alone."""
    return polynomial_times(backend, x, x.square(), a, b, c)


def polynomial_times(backend: Backend, x: Structure, e: Any, a: float, b: float, c: float) -> Structure:
    """x (a I + b e + c e²) for a known e = x²."""
    cubic = isinstance(c, (int, float)) and c == 0
    p = type(e)(*(b * block for block in e)) if cubic else combine(b, e, c, e.square())
    return x.times(p.plus_identity(backend, a))


def distance(backend: Backend, x: Structure, y: Structure) -> Array:
    """The largest ‖x - y‖ / ‖y‖ over the blocks, ‖x‖ for a block with y = 0."""
    xp, worst = backend.xp, None
    for p, q in zip(x, y, strict=True):
        size = backend.norm(q)
        gap = backend.norm(p - q) / xp.where(size > 0, size, xp.ones_like(size))
        worst = gap if worst is None else xp.maximum(worst, gap)
    return worst
