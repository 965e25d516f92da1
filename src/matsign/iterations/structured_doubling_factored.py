"""Structured doubling on factors, for Riccati equations with few inputs and outputs.

`structured_doubling` doubles a pencil with the matrices a, g and h. Here g = b bᴴ and h = c cᴴ are kept as tall b and c: with
t = cᴴ b and upper triangular r, s with rᴴ r = I + tᴴ t and sᴴ s = I + t tᴴ a step is

    b ← [b, a b r⁻¹],    c ← [c, aᴴ c s⁻¹],    a ← a a - (a b r⁻¹)(r⁻ᴴ tᴴ)(aᴴ c)ᴴ,

one large product. Nothing is subtracted in b and c, so that h stays positive semidefinite. Compressed after each step, they
keep as many columns as g and h have eigenvalues above rounding (Li, Chu, Lin & Weng 2013).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.iterations.smith_factored import compress
from matsign.linalg.stacks import adjoint, broadcast_scalar, plus_identity, random_probe


class FactoredPencil(NamedTuple):
    """The pencil of `structured_doubling` with g = b bᴴ and h = c cᴴ."""

    a: Array
    b: Array
    c: Array


class Doubled(NamedTuple):
    """c with c cᴴ = x, nearly; the number of steps; whether a vanished, which it does if the closed loop is stable."""

    c: Array
    steps: int
    converged: bool


def double_factors(backend: Backend, p: FactoredPencil) -> Doubled:
    """Doubling of one member. x has about half of the digits, or more: enough for a step of Newton's method."""
    eps, steps = backend.eps(p.a), 0
    size = float(backend.norm(p.a)[0])
    while size > eps**0.25 and size < 1 / eps and steps < 4 - round(math.log2(eps)):
        p, steps = _step(backend, p), steps + 1
        size = float(backend.norm(p.a)[0])
    return Doubled(p.c, steps, size <= eps**0.25)


def _step(backend: Backend, p: FactoredPencil) -> FactoredPencil:
    t = adjoint(p.c) @ p.b
    ah_c = adjoint(p.a) @ p.c
    ab, w = _solve_gram(backend, p.a @ p.b, t)
    a = p.a @ p.a - ab @ (w @ adjoint(ah_c))
    ca, _ = _solve_gram(backend, ah_c, adjoint(t))
    return FactoredPencil(a, _append(backend, p.b, ab), _append(backend, p.c, ca))


def _solve_gram(backend: Backend, x: Array, t: Array) -> tuple[Array, Array]:
    """(x r⁻¹, r⁻ᴴ tᴴ) for the upper triangular r with rᴴ r = I + tᴴ t, which is not formed."""
    one = backend.eye(t.shape[-1], t)[None]
    r = backend.xp.linalg.qr(backend.xp.concat([one, t], axis=-2))[1]
    both = backend.solve(adjoint(r), backend.xp.concat([adjoint(x), adjoint(t)], axis=-1))
    return adjoint(both[..., : x.shape[-2]]), both[..., x.shape[-2] :]


def _append(backend: Backend, x: Array, new: Array) -> Array:
    """[x, new], compressed. What is dropped changes x xᴴ by rounding."""
    return compress(backend, backend.xp.concat([x, new], axis=-1), backend.eps(x) ** 0.5)


def cayley_pencil(backend: Backend, a: Array, b: Array, c: Array, p: Array) -> FactoredPencil:
    """The Cayley transform at p > 0 of the Hamiltonian matrix [[a, -b bᴴ], [-c cᴴ, -aᴴ]]."""
    v = backend.inv(plus_identity(backend, broadcast_scalar(-p), a))
    vb, vc = v @ b, adjoint(v) @ c
    t = adjoint(c) @ vb
    new_b, w = _solve_gram(backend, vb, t)
    new_c, _ = _solve_gram(backend, vc, adjoint(t))
    double_p, root = broadcast_scalar(2 * p), broadcast_scalar(backend.xp.sqrt(2 * p))
    transformed = plus_identity(backend, 1.0, double_p * (v - new_b @ (w @ adjoint(vc))))
    return FactoredPencil(transformed, root * new_b, root * new_c)


# The shift is at most this much smaller than the geometric mean of the moduli of the eigenvalues.
_SPREAD = 2.0**-10


def shift(backend: Backend, a: Array) -> Array:
    """p > 0 for the Cayley transform of a large a: the geometric mean of the least and the largest modulus of an eigenvalue.

    Both are estimated by two steps of inverse and of power iteration. The mean over all eigenvalues would be near the
    largest, where most eigenvalues of a discretised differential operator lie, and the slow ones would take more steps.
    """
    xp, n = backend.xp, a.shape[-1]
    a = plus_identity(backend, broadcast_scalar(-backend.eps(a) * backend.norm(a)), a)  # a may be singular
    start = random_probe(backend, n, 1, a)

    def growth(apply: Callable[[Array], Array]) -> Array:
        first = apply(start + 0 * a[..., :1])
        return backend.norm(apply(first)) / backend.norm(first)

    extremes = xp.sqrt(growth(lambda x: a @ x) / growth(lambda x: backend.solve(a, x)))
    mean = xp.exp(backend.log_determinant(a) / n)
    extremes = xp.where(xp.isfinite(extremes), extremes, mean)
    return xp.minimum(xp.maximum(extremes, _SPREAD * mean), mean)
