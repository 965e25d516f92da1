"""A regulator problem with time reversed: -y is an anti-stabilising solution for the stabilising solution y of that problem.

continuous   -a, -b, q, r, e, s, with the same gain: the closed loop changes its sign.
discrete     e x⁺ = a x + b u read backwards. With a unitary t such that [a, b] t = [e₁, 0],

                 [a₁, b₁] = [e, 0] t,    [[q₁, s₁], [s₁ᴴ, r₁]] = tᴴ [[q, s], [sᴴ, r]] t,

             because [[q, s], [sᴴ, r]] + [a, b]ᴴ x [a, b] - [e, 0]ᴴ x [e, 0] has rank m at a solution, and so has its
             product with tᴴ and t. Nothing is inverted.
"""

from __future__ import annotations

from matsign._typing import Array
from matsign.backends import Backend
from matsign.equations.riccati.problem import RiccatiProblem
from matsign.linalg.stacks import adjoint, assemble, broadcast_scalar, eye, hermitian, largest


def reverse(backend: Backend, p: RiccatiProblem, *, discrete: bool) -> RiccatiProblem:
    """The problem with time reversed."""
    if not discrete:
        return p._replace(a=-p.a, b=p.b if p.r is None else -p.b)
    if p.r is None:
        p = with_inputs(backend, p)
    xp, n = backend.xp, p.a.shape[-1]
    ab = xp.concat([p.a, p.b], axis=-1)
    t = xp.linalg.qr(adjoint(ab), mode="complete")[0]
    weights = hermitian(adjoint(t) @ _above(backend, p, p.q, 0 * p.b if p.s is None else p.s) @ t)
    a1, e1 = t[..., :n, :] if p.e is None else p.e @ t[..., :n, :], ab @ t[..., :n]
    return RiccatiProblem(
        a1[..., :n], a1[..., n:], weights[..., :n, :n], weights[..., n:, n:], e1, weights[..., :n, n:]
    )


def with_inputs(backend: Backend, p: RiccatiProblem) -> RiccatiProblem:
    """A plant with b r⁻¹ bᴴ = g exactly, for any Hermitian g: b = [g / γ, I], r = (2 / γ) [[0, I], [I, 0]], γ a power of two.

    In r + bᴴ x b large terms g x g cancel: its Newton steps are inaccurate where g x is large.
    """
    xp, one = backend.xp, eye(backend, p.a) + 0 * p.a
    scale = broadcast_scalar(backend.exponent(largest(backend, p.b)))
    half = backend.ldexp(2 * one, -scale)
    b = xp.concat([backend.ldexp(p.b, -scale), one], axis=-1)
    return p._replace(b=b, r=assemble(backend, 0 * one, half, half, 0 * one))


def zero_pencil(backend: Backend, p: RiccatiProblem) -> Array:
    """[[a, b], [sᴴ, r]], singular if and only if 0 is an eigenvalue of every closed loop of a discrete equation.

    For a v + b u = 0 and sᴴ v + r u = 0 every solution has k v = -u, and so (a - b k) v = 0. For g it is a.
    """
    return p.a if p.r is None else _above(backend, p, p.a, p.b)


def _above(backend: Backend, p: RiccatiProblem, left: Array, right: Array) -> Array:
    """[[left, right], [sᴴ, r]]."""
    xp, s = backend.xp, 0 * p.b if p.s is None else p.s
    return xp.concat([xp.concat([left, right], axis=-1), xp.concat([adjoint(s), p.r], axis=-1)], axis=-2)
