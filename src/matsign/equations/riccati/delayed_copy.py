"""The filter gain as the gain of a plant with a delayed copy of its states.

In discrete time the gain of the predictor is k = (r + bᴴ x b)⁻¹(bᴴ x a + sᴴ) in terms of the dual plant, that of the filter is
m = (r + bᴴ x b)⁻¹ bᴴ x. For the plant

    a₂ = [[a, I], [0, 0]],  b₂ = [b; 0],  q₂ = [[q, 0], [0, 0]],  s₂ = [s; 0]

the gain is [k, m], because only the first rows of its solution x₂ enter, and these are [x, ...]. So m has the scaling, the error
estimates and the decimal arithmetic of `gain`.
"""

from __future__ import annotations

from matsign._typing import Array
from matsign.backends import Backend
from matsign.equations.riccati.problem import RiccatiProblem
from matsign.linalg.stacks import assemble, plus_identity


def with_copy(backend: Backend, p: RiccatiProblem) -> RiccatiProblem:
    """The plant with a delayed copy of its states; e = I."""
    zero = 0 * p.a
    return extend(backend, p)._replace(a=assemble(backend, p.a, plus_identity(backend, 1, zero), zero, zero))


def extend(backend: Backend, d: RiccatiProblem) -> RiccatiProblem:
    """A change of the plant as one of the plant with the copy."""
    s = None if d.s is None else _extend_rows(backend, d.s)
    b = _extend_rows(backend, d.b)
    return RiccatiProblem(extend_square(backend, d.a), b, extend_square(backend, d.q), d.r, None, s)


def extend_square(backend: Backend, x: Array) -> Array:
    """[[x, 0], [0, 0]]: where the solution of the plant enters the gain."""
    return assemble(backend, x, 0 * x, 0 * x, 0 * x)


def extend_gain(backend: Backend, gain: Array) -> Array:
    """[0, gain], the adjoint of `filter_part`."""
    return backend.xp.concat([0 * gain, gain], axis=-1)


def filter_part(gain: Array) -> Array:
    return gain[..., gain.shape[-1] // 2 :]


def restrict(p: RiccatiProblem, x: Array) -> tuple[RiccatiProblem, Array]:
    """The adjoint of `extend` and of `extend_square`."""
    n = x.shape[-1] // 2
    s = None if p.s is None else p.s[..., :n, :]
    return RiccatiProblem(p.a[..., :n, :n], p.b[..., :n, :], p.q[..., :n, :n], p.r, None, s), x[..., :n, :n]


def _extend_rows(backend: Backend, b: Array) -> Array:
    return backend.xp.concat([b, 0 * b], axis=-2)
